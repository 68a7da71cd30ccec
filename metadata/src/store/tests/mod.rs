//! The conformance suite over RocksDB, and what crashes and lost disks leave of it.
#![allow(clippy::unwrap_used)]

mod conformance;
mod disks;
mod export;
mod mirror;
