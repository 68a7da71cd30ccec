//! The words of Valv as types: ids by kind, epochs, layouts and their geometry, and the placement hash.
//!
//! This crate exists so that every other crate means the same thing by the same name. It must never
//! know about I/O, keys, S3 or any storage engine: it holds values and arithmetic only.

mod id;
mod layout;
mod placement;
mod time;

pub use id::{
    AccessKeyId, BlobId, BucketId, CellId, ClusterId, CommitId, CustodianId, DiskId, DisposalId, HoldId, IdError,
    IncarnationId, NamespaceId, NodeId, OpeningId, PoolId, ProjectId, ProposalId, RecorderId, SiteId, TokenId,
    UploadId, UserId, VersionId,
};
pub use layout::{
    AeadId, BLOCK_LEN_BYTES, ChunkCoding, ChunkGeometry, ErasureCodeId, FRAME_PLAIN_BYTES, FRAME_TAG_BYTES,
    FRAMES_PER_CHUNK, HashId, INLINE_LEN_BYTES_MAX, Layout, LayoutError, REPLICATED_CHUNK_PLAIN_BYTES_MAX,
    SHARD_ALIGN_BYTES,
};
pub use placement::{ChunkId, PlacementGroup, PoolMap, SYSTEM_POOL, ShardKey, placement_hash};
pub use time::{Epoch, Revision, TimestampMicros};
