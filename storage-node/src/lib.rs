//! The storage node: engines that keep shards on disks, and their service over gRPC.
//!
//! This crate knows the disk format and the shard API. It must never know what is inside a shard, nor keys, objects,
//! metadata or placement: it stores what it is given, and says when that is damaged or away.

mod config;
mod engine;
pub mod grpc;
mod metrics;
mod node;

pub use config::{DiskConfig, EngineConfig, NodeConfig};
pub use engine::{
    CorruptReport, Disk, DiskContext, ExpectedDisk, ExtentIo, FolderError, Identity, OpenError, ScrubOutcome, SystemIo,
    read_superblock,
};
pub use metrics::DiskMetrics;
pub use node::{NodeError, StorageNode};
