//! The metadata service: retention, custody and placement over an ordered, transactional store.
//!
//! Domain logic is deterministic code over the `MetaStore` trait. RocksDB is known only to `store::rocks`; this crate
//! knows the shard API only to mirror its commits, and never how shards lie on disk.

pub mod store;
