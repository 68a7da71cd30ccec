//! What repair tells the ledgers.

use minicbor::{Decode, Encode};
use valv_types::{BlobId, CommitId};

/// Shards of these blobs were written anew, read back and verified.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct NoteRepairs {
    /// The commit's id; the records of the ledgers have it.
    #[n(0)]
    pub commit: CommitId,
    /// The blobs, each once.
    #[n(1)]
    pub repaired: Vec<RepairedBlob>,
}

/// What was rebuilt of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct RepairedBlob {
    /// The blob.
    #[n(0)]
    pub blob: BlobId,
    /// Shards written.
    #[n(1)]
    pub shards: u64,
}
