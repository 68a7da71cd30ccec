//! Where a chunk's shards lie: a pure function of the chunk's id and its pool's map.

use crate::{BlobId, DiskId, Epoch, Layout, PoolId};
use minicbor::{Decode, Encode};

/// The pool of Valv's own records (the mirror of the MetaStore's commits); no project's data is ever in it.
pub const SYSTEM_POOL: PoolId = PoolId(0);

/// One chunk: the unit of erasure coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkId {
    /// The blob it belongs to.
    pub blob: BlobId,
    /// Its index within the blob.
    pub index: u32,
}

/// The 64-bit placement hash of a chunk: the first 8 bytes, big-endian, of BLAKE3(blob id, index as 4 bytes big-endian).
pub fn placement_hash(chunk: ChunkId) -> u64 {
    let mut input = [0; 20];
    input[..16].copy_from_slice(chunk.blob.as_bytes());
    input[16..].copy_from_slice(&chunk.index.to_be_bytes());
    let digest = blake3::hash(&input);
    let mut first = [0; 8];
    first.copy_from_slice(&digest.as_bytes()[..8]);
    u64::from_be_bytes(first)
}

/// A shard's key on its disk. The order of the fields is the order of the disk's index, so that the census of a
/// placement group is one range scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardKey {
    /// The pool.
    pub pool: PoolId,
    /// The chunk's placement hash (in the system pool: the revision of the mirrored commit).
    pub placement: u64,
    /// The chunk's blob.
    pub blob: BlobId,
    /// The chunk's index within the blob.
    pub chunk: u32,
    /// Which of the chunk's shards this is: 0..k are data, k..k+m parity.
    pub shard: u8,
}

impl ShardKey {
    /// Bytes of an encoded key.
    pub const ENCODED_LEN: usize = 33;

    /// The key of shard `shard` of `chunk` in `pool`.
    pub fn new(pool: PoolId, chunk: ChunkId, shard: u8) -> Self {
        Self { pool, placement: placement_hash(chunk), blob: chunk.blob, chunk: chunk.index, shard }
    }

    /// The chunk this shard belongs to.
    pub fn chunk_id(&self) -> ChunkId {
        ChunkId { blob: self.blob, index: self.chunk }
    }

    /// The key's bytes, big-endian, so that byte order is key order.
    pub fn encode(&self) -> [u8; Self::ENCODED_LEN] {
        let mut out = [0; Self::ENCODED_LEN];
        out[..4].copy_from_slice(&self.pool.0.to_be_bytes());
        out[4..12].copy_from_slice(&self.placement.to_be_bytes());
        out[12..28].copy_from_slice(self.blob.as_bytes());
        out[28..32].copy_from_slice(&self.chunk.to_be_bytes());
        out[32] = self.shard;
        out
    }

    /// Reads a key that [`Self::encode`] made; `None` if the length is wrong.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::ENCODED_LEN] = bytes.try_into().ok()?;
        Some(Self {
            pool: PoolId(u32::from_be_bytes(bytes[..4].try_into().ok()?)),
            placement: u64::from_be_bytes(bytes[4..12].try_into().ok()?),
            blob: BlobId::from_slice(&bytes[12..28]).ok()?,
            chunk: u32::from_be_bytes(bytes[28..32].try_into().ok()?),
            shard: bytes[32],
        })
    }
}

/// An ordered list of k+m disks; every chunk of the pool hashes to one of these.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct PlacementGroup {
    /// The version of this list.
    #[n(0)]
    pub epoch: Epoch,
    /// One disk per slot.
    #[n(1)]
    pub disks: Vec<DiskId>,
}

/// A pool's placement: its layout and its 2^p placement groups.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct PoolMap {
    /// The layout that new blobs of this pool are written with.
    #[n(0)]
    pub layout: Layout,
    /// Placement groups; their number is a power of two, and a chunk's is its placement hash's top bits.
    #[n(1)]
    pub groups: Vec<PlacementGroup>,
}

impl PoolMap {
    /// The group that holds chunks with this placement hash, or `None` if the map is malformed.
    pub fn group(&self, placement: u64) -> Option<&PlacementGroup> {
        if !self.groups.len().is_power_of_two() {
            return None;
        }
        let bits = self.groups.len().trailing_zeros();
        let index = if bits == 0 { 0 } else { placement >> (64 - bits) };
        self.groups.get(usize::try_from(index).ok()?)
    }

    /// The disk of shard `shard` of a chunk with this placement hash: slot (shard + hash) mod (k+m). Chunks coded
    /// 1+m take the first 1+m of that rotation. `None` if the map is malformed or the shard does not exist.
    pub fn disk(&self, placement: u64, shard: u8) -> Option<DiskId> {
        let group = self.group(placement)?;
        let slots = group.disks.len() as u64;
        if slots == 0 || u64::from(shard) >= slots {
            return None;
        }
        let slot = (u64::from(shard) + placement % slots) % slots;
        group.disks.get(slot as usize).copied()
    }

    /// The lowest epoch among the groups: what a commit carries so that later changes can be noticed.
    pub fn epoch_min(&self) -> Epoch {
        self.groups.iter().map(|group| group.epoch).min().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::IncarnationId;
    use std::collections::BTreeSet;

    fn map() -> PoolMap {
        let disks: Vec<_> = (0..6u8).map(|i| DiskId::from_bytes([i; 16])).collect();
        let groups = (0..8).map(|_| PlacementGroup { epoch: Epoch(1), disks: disks.clone() }).collect();
        PoolMap { layout: Layout::current(PoolId(1), 4, 2).unwrap(), groups }
    }

    #[test]
    fn shards_of_a_chunk_lie_on_different_disks() {
        let map = map();
        for index in 0..100 {
            let chunk = ChunkId { blob: BlobId::new(IncarnationId(1), 7), index };
            let hash = placement_hash(chunk);
            let disks: BTreeSet<_> = (0..6).map(|shard| map.disk(hash, shard).unwrap()).collect();
            assert_eq!(disks.len(), 6);
        }
        assert_eq!(map.disk(0, 6), None);
    }

    #[test]
    fn the_top_bits_choose_the_group_so_that_it_can_be_split_later() {
        let mut map = map();
        map.groups[7].epoch = Epoch(9);
        assert_eq!(map.group(u64::MAX).unwrap().epoch, Epoch(9));
        assert_eq!(map.group(0).unwrap().epoch, Epoch(1));
    }

    #[test]
    fn shard_keys_sort_as_their_bytes_do() {
        let blob = BlobId::from_bytes([3; 16]);
        let a = ShardKey { pool: PoolId(1), placement: 255, blob, chunk: 0, shard: 1 };
        let b = ShardKey { pool: PoolId(1), placement: 256, blob, chunk: 0, shard: 0 };
        assert!(a < b && a.encode() < b.encode());
        assert_eq!(ShardKey::decode(&a.encode()), Some(a));
        assert_eq!(ShardKey::decode(&[0; 32]), None);
    }
}
