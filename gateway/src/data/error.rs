//! Why a blob could not be written or read, split by who must act.

use super::memory::Overloaded;
use valv_codec::KeyError;
use valv_erasure::ErasureError;
use valv_metadata_api::MetadataError;
use valv_types::{BlobId, LayoutError, PoolId};

/// A blob was not written, or not all of what was asked for could be read. Nothing unverified was yielded before it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DataError {
    /// Fewer disks take writes than the floor (k+1) demands. The client may try again; an operator must bring disks back.
    #[error("{have} disks can be written and {need} are needed")]
    NotEnoughDisks {
        /// Disks that stored, or could store, their shard.
        have: usize,
        /// The floor.
        need: usize,
    },
    /// The memory budget was used up by other transfers for as long as this one was prepared to wait. Try again later.
    #[error("the memory budget is used up")]
    Overloaded,
    /// This gateway's incarnation was fenced while the blob was being written: the upload must start again.
    #[error("this gateway incarnation is fenced")]
    Fenced,
    /// Metadata has not been reached since this process started. Try again later.
    #[error("metadata has not been reached yet")]
    NotReady,
    /// Metadata refused or could not be reached.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// Fewer shards of a chunk could be read than are needed. An operator must bring disks back; nothing is inferred
    /// about the data from what is away.
    #[error("blob {blob} chunk {chunk}: {have} shards can be read and {need} are needed")]
    NotEnoughShards {
        /// The blob.
        blob: BlobId,
        /// The chunk.
        chunk: u32,
        /// Shards that could be read.
        have: usize,
        /// k.
        need: usize,
    },
    /// Shards were read and their hashes hold, but no combination of them passes authentication.
    #[error("blob {blob} frame {frame} fails authentication whichever shards it is read from")]
    Corrupt {
        /// The blob.
        blob: BlobId,
        /// The frame's index in the blob.
        frame: u32,
    },
    /// The blob's data key can't be unwrapped: wrong project, wrong key version, or a damaged record.
    #[error("the blob's data key can't be used: {0}")]
    Key(#[from] KeyError),
    /// The right to read ended during the transfer.
    #[error("the authorisation for this transfer has ended")]
    Revoked,
    /// A pool that the cluster map does not have, or whose map is malformed.
    #[error("the cluster map has no usable pool {}", .pool.0)]
    UnknownPool {
        /// The pool.
        pool: PoolId,
    },
    /// A record's layout makes no sense.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// More bytes were written than announced. A bug in the caller, who must check lengths against the client's.
    #[error("more bytes were written than the {expected} announced")]
    LongerThanAnnounced {
        /// What was announced.
        expected: u64,
    },
    /// A range outside the blob, or an inline blob without its frame. A bug in the caller.
    #[error("a read outside the blob or without its inline frame")]
    Misuse,
    /// Coding failed, which correct sizes rule out. A bug.
    #[error(transparent)]
    Erasure(#[from] ErasureError),
    /// The process is shutting down, or a task of this transfer panicked.
    #[error("the transfer was stopped")]
    Stopped,
}

impl From<Overloaded> for DataError {
    fn from(_: Overloaded) -> Self {
        Self::Overloaded
    }
}
