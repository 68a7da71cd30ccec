//! What Valv's own processes need of metadata: keys, incarnations, placement, census, repair and reclaim.

use crate::Secret;
use minicbor::{Decode, Encode};
use valv_types::{BlobId, CellId, ClusterId, DiskId, IncarnationId, Layout, PoolId, PoolMap, ProjectId};

/// An operation that needs no argument, or has nothing to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct Empty {}

/// Asks for a project's key.
#[derive(Debug, Clone, Encode, Decode)]
pub struct GetProjectKey {
    /// The project.
    #[n(0)]
    pub project: ProjectId,
    /// Which version; `None` for the one that new data is sealed under.
    #[n(1)]
    pub version: Option<u32>,
}

/// A project key on loan. The holder zeroises it when the lease ends.
#[derive(Debug, Clone, Encode, Decode)]
pub struct ProjectKeyLease {
    /// The key's version.
    #[n(0)]
    pub version: u32,
    /// The key: 32 bytes.
    #[n(1)]
    pub key: Secret,
    /// How long it may be kept, in milliseconds.
    #[n(2)]
    pub lease_ms: u32,
}

/// The cluster and its pools.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ClusterMap {
    /// The cluster.
    #[n(0)]
    pub cluster: ClusterId,
    /// The cell that answered.
    #[n(1)]
    pub cell: CellId,
    /// Its pools.
    #[n(2)]
    pub pools: Vec<PoolMap>,
}

impl ClusterMap {
    /// The map of `pool`.
    pub fn pool(&self, pool: PoolId) -> Option<&PoolMap> {
        self.pools.iter().find(|map| map.layout.pool == pool)
    }
}

/// A gateway tells that it lives, and that blobs below `low_water` are committed or given up.
#[derive(Debug, Clone, Copy, Encode, Decode)]
pub struct Heartbeat {
    /// The incarnation.
    #[n(0)]
    pub incarnation: IncarnationId,
    /// Every blob of this incarnation with a smaller sequence number is committed, or never will be.
    #[n(1)]
    pub low_water: u64,
}

/// Asks which blobs should exist, in id order.
#[derive(Debug, Clone, Encode, Decode)]
pub struct ListBlobs {
    /// Only ids after this one.
    #[n(0)]
    pub after: Option<BlobId>,
    /// At most this many.
    #[n(1)]
    pub limit: u32,
}

/// A blob that is referenced, and lies in shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct LiveBlob {
    /// The blob.
    #[n(0)]
    pub blob: BlobId,
    /// Its plaintext length.
    #[n(1)]
    pub len_bytes: u64,
    /// How it was cut and coded.
    #[n(2)]
    pub layout: Layout,
}

/// Blobs named by id.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct BlobIds {
    /// The blobs.
    #[n(0)]
    pub blobs: Vec<BlobId>,
}

/// How many to bring at most.
#[derive(Debug, Clone, Copy, Encode, Decode)]
pub struct Limit {
    /// The number.
    #[n(0)]
    pub limit: u32,
}

/// A blob whose last reference is gone and whose trash time is over: its shards are to be deleted.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct DoomedBlob {
    /// The blob.
    #[n(0)]
    pub blob: BlobId,
    /// Its plaintext length.
    #[n(1)]
    pub len_bytes: u64,
    /// How it was cut and coded.
    #[n(2)]
    pub layout: Layout,
    /// Disks that have deleted their shards durably.
    #[n(3)]
    pub answered: Vec<DiskId>,
}

/// Disks have deleted a doomed blob's shards. The tombstone goes when every disk of its groups has answered.
#[derive(Debug, Clone, Encode, Decode)]
pub struct DoomedAnswer {
    /// The blob.
    #[n(0)]
    pub blob: BlobId,
    /// The disks that answered.
    #[n(1)]
    pub answered: Vec<DiskId>,
    /// Whether these are all that ever will.
    #[n(2)]
    pub finished: bool,
}
