//! The shard API over gRPC: the service beside the engines, and the client that stands in for them elsewhere.
//!
//! Generated types stop in this module. Deadlines are on every call of the client; sizes are bounded on both sides.

mod client;
mod convert;
mod service;

pub use client::{ClientConfig, ClientError, ShardClient};
pub use service::ShardService;

/// Default limit of one message: the payload of the longest shard in use (a full chunk coded 1+m is 8.4 MB), its
/// hashes, and room for pools with larger chunks.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Bytes of blocks in one message of a read: large enough to vanish beside the bytes, small enough to flow.
const CHUNK_BYTES: usize = 1 << 20;

/// Bytes from which hashing is moved off the reactor: below, it takes less than 0.1 ms.
const OFFLOAD_BYTES: usize = 256 << 10;
