//! Census, repair and reclaim: the background work that needs shards and metadata, but no keys.
//!
//! Runs beside the metadata service. It knows the metadata and shard APIs and the erasure code; it must never know a key,
//! a plaintext or how either side stores things. Nothing here deletes on the evidence of absence: shards are deleted only
//! when metadata says that their blob is doomed or an orphan.

mod ask;
mod census;
mod fixity;
mod plan;
mod queue;
mod rebuild;
mod reclaim;
mod service;

pub use census::Census;
pub use fixity::BlobFixity;
pub use service::{RepairConfig, RepairError, RepairService, RepairStatus};

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
