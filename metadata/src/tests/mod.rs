//! Tests of the service as a whole, over a store in memory.

mod background;
mod buckets;
mod golden;
mod listing;
mod model;
mod objects;
mod principals;
mod uploads;
