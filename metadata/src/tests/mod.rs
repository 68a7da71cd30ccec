//! Tests of the service as a whole, over a store in memory; Object Lock over RocksDB.

mod accesses;
mod approvals;
mod background;
mod buckets;
mod golden;
mod isolation;
mod keys;
mod ledger;
mod listing;
mod lock;
mod model;
mod objects;
mod principals;
mod projects;
mod proofs;
mod quota;
mod retention;
mod uploads;
mod users;
