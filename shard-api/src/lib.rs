//! The shard API: what a storage node does for gateways, for repair and for the metadata mirror.
//!
//! One trait, served in-process by `valv-storage-node`'s engines or over gRPC by its client. This crate must never
//! know how shards lie on disk, nor what is inside one: payloads are ciphertext to everyone on this side.

use async_trait::async_trait;
use bytes::Bytes;
use std::ops::Range;
use valv_types::{DiskId, ShardKey};

/// A shard on its way to a disk: its payload and the BLAKE3 of each 16 KiB block of it.
///
/// The payload may be a slice of a larger buffer; nobody copies it between the gateway and the disk.
#[derive(Clone)]
pub struct NewShard {
    /// Where it belongs.
    pub key: ShardKey,
    /// Distinguishes shards of one key that were coded differently; a reader asks for the one it expects. 0 at first.
    pub generation: u32,
    /// How the payload was coded, for tools that look at a disk alone: see `docs/format.md`, "Shard codecs".
    pub codec: ShardCodec,
    /// The shard's bytes, at most [`SHARD_LEN_BYTES_MAX`].
    pub payload: Bytes,
    /// 32 bytes for every started 16 KiB of payload.
    pub block_hashes: Bytes,
}

/// The longest shard that any layout makes: a whole chunk of 1 GiB coded 1+m would be longer, but `Layout::check`
/// keeps chunks of k >= 1 within this.
pub const SHARD_LEN_BYTES_MAX: u32 = 1 << 30;

/// What a shard's payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ShardCodec {
    /// A piece of a sealed chunk: data or parity of Reed-Solomon, or a copy.
    SealedChunk = 1,
    /// A sealed batch of MetaStore commits (system pool).
    MetadataBatch = 2,
    /// A sealed piece of a MetaStore checkpoint (system pool).
    MetadataCheckpoint = 3,
}

impl TryFrom<u8> for ShardCodec {
    type Error = u8;
    fn try_from(id: u8) -> Result<Self, u8> {
        match id {
            1 => Ok(Self::SealedChunk),
            2 => Ok(Self::MetadataBatch),
            3 => Ok(Self::MetadataCheckpoint),
            other => Err(other),
        }
    }
}

/// Bytes of a shard whose every block was checked against its hash after it was read. Only verification makes one.
#[derive(Clone)]
pub struct VerifiedShard(Bytes);

impl VerifiedShard {
    /// Checks `blocks`, which start at block `first_block` of a shard, against the shard's table of hashes, and cuts
    /// out `range` (offsets within `blocks`). `None` if any block differs from its hash or `range` is outside.
    pub fn verify(blocks: Bytes, first_block: usize, block_hashes: &[u8], range: Range<usize>) -> Option<Self> {
        if range.start > range.end || range.end > blocks.len() {
            return None;
        }
        let mut hashes = block_hashes.chunks_exact(32).skip(first_block);
        for block in blocks.chunks(valv_types::BLOCK_LEN_BYTES as usize) {
            if hashes.next()? != blake3_of(block) {
                return None;
            }
        }
        Some(Self(blocks.slice(range)))
    }

    /// The verified bytes.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn blake3_of(block: &[u8]) -> [u8; 32] {
    *blake3::hash(block).as_bytes()
}

/// The table of block hashes for `payload`: 32 bytes of BLAKE3 for each started 16 KiB.
pub fn block_hashes(payload: &[u8]) -> Bytes {
    let blocks = payload.chunks(valv_types::BLOCK_LEN_BYTES as usize);
    let mut table = Vec::with_capacity(blocks.len() * 32);
    for block in blocks {
        table.extend_from_slice(&blake3_of(block));
    }
    table.into()
}

/// What a disk knows of one shard without reading its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardStat {
    /// The shard.
    pub key: ShardKey,
    /// Its generation.
    pub generation: u32,
    /// Its payload's length in bytes.
    pub len_bytes: u32,
    /// What its payload is.
    pub codec: ShardCodec,
    /// A read or the scrub found it damaged. It is not served, and waits for repair to write it again.
    pub quarantined: bool,
}

/// Whether a disk can be used, and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DiskState {
    /// Reads and writes.
    Online,
    /// Reads, deletes and reclaim go on; writes are refused because less than the reserve is free.
    Full,
    /// Reads only: an fsync failed, so nothing that was written since can be trusted to this disk again before a restart.
    ReadOnly,
    /// The folder is missing, empty, unreadable or belongs to another disk. Nothing is inferred from what it lacks.
    Absent,
}

/// A disk as its node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskStatus {
    /// The disk.
    pub disk: DiskId,
    /// A name for people: its folder's name.
    pub name: String,
    /// What it can do at the moment.
    pub state: DiskState,
    /// Why it is not online, for people; empty when it is.
    pub reason: String,
    /// Grows each time the disk's folder is opened or initialised anew: whoever compares it with an earlier value
    /// learns that shards may be missing and a census is due.
    pub opened: u64,
    /// Random value given when the folder was initialised. Differs after a replacement.
    pub formatted: [u8; 16],
    /// Size of the file system in bytes.
    pub capacity_bytes: u64,
    /// Bytes that new shards may still take.
    pub free_bytes: u64,
    /// Live shards.
    pub shards: u64,
    /// Payload bytes of live shards.
    pub live_bytes: u64,
    /// Shards found damaged and not yet rewritten.
    pub quarantined: u64,
    /// How far the scrub has come; `None` if it has verified nothing yet, or is not known.
    pub scrub: Option<ScrubProgress>,
}

/// How far the scrub of a disk has come. It verifies every shard in the order of keys, pass after pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrubProgress {
    /// When the newest pass began: seconds since 1970.
    pub started_secs: u64,
    /// The first key that the newest pass has not verified; `None` once it has ended.
    pub next: Option<ShardKey>,
    /// When the pass before began, which has ended.
    pub previous_started_secs: Option<u64>,
}

impl ScrubProgress {
    /// When the pass began that verified the shard last, if it was on the disk then: seconds since 1970. The shard was
    /// verified at that time or later.
    pub fn verified_since_secs(&self, key: &ShardKey) -> Option<u64> {
        match &self.next {
            Some(next) if key.encode() >= next.encode() => self.previous_started_secs,
            _ => Some(self.started_secs),
        }
    }
}

/// Why a disk did not do what it was asked. Split by who must act.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ShardError {
    /// No such shard on this disk (or one of another generation). Not evidence that it never existed.
    #[error("disk {disk} has no such shard")]
    NotFound {
        /// The disk asked.
        disk: DiskId,
    },
    /// The shard is there but its bytes fail verification. It has been quarantined.
    #[error("disk {disk}: shard of blob {} chunk {} is corrupt", .key.blob, .key.chunk)]
    Corrupt {
        /// The disk asked.
        disk: DiskId,
        /// The shard.
        key: Box<ShardKey>,
    },
    /// The disk is away, or its node can't be reached.
    #[error("disk {disk} is away")]
    Away {
        /// The disk asked.
        disk: DiskId,
    },
    /// The disk takes no writes at the moment.
    #[error("disk {disk} takes no writes")]
    ReadOnly {
        /// The disk asked.
        disk: DiskId,
    },
    /// Less than the reserve is free.
    #[error("disk {disk} is full")]
    Full {
        /// The disk asked.
        disk: DiskId,
    },
    /// More requests are waiting than the disk's queue admits.
    #[error("disk {disk} is busy")]
    Busy {
        /// The disk asked.
        disk: DiskId,
    },
    /// The request is malformed: a range outside the shard, a hash table of the wrong length.
    #[error("malformed shard request: {what}")]
    Malformed {
        /// What was wrong.
        what: &'static str,
    },
    /// An I/O error that says nothing of the data already stored.
    #[error("disk {disk}: {source}")]
    Io {
        /// The disk asked.
        disk: DiskId,
        /// The cause.
        #[source]
        source: std::sync::Arc<std::io::Error>,
    },
}

/// The disks of one or more storage nodes.
///
/// Durability: `put` and `delete` return after the fdatasync that covers them. Cancel safety: a dropped future may or
/// may not have had its effect; putting the same shard again, or deleting it again, is harmless. Every method is
/// bounded in memory by the caller's own arguments.
#[async_trait]
pub trait ShardStore: Send + Sync + 'static {
    /// Appends a shard to `disk` and returns when it is durable. A shard of the same key is replaced.
    async fn put(&self, disk: DiskId, shard: NewShard) -> Result<(), ShardError>;

    /// Reads `range` (bytes of the payload) of a shard and verifies every block that it touches.
    async fn read(&self, disk: DiskId, key: ShardKey, range: Range<u32>) -> Result<VerifiedShard, ShardError>;

    /// What the disk knows of each of `keys`, in their order. At most [`STAT_KEYS_MAX`] keys.
    async fn stat(&self, disk: DiskId, keys: Vec<ShardKey>) -> Result<Vec<Option<ShardStat>>, ShardError>;

    /// Removes shards; keys that are not there count as removed. Returns when the deletes are durable.
    async fn delete(&self, disk: DiskId, keys: Vec<ShardKey>) -> Result<(), ShardError>;

    /// Up to `limit` shards of `disk` with keys at or after `from`, in key order; fewer than `limit` only at the end.
    async fn list(&self, disk: DiskId, from: ShardKey, limit: usize) -> Result<Vec<ShardStat>, ShardError>;

    /// Every disk that this store knows, present or away.
    async fn disks(&self) -> Result<Vec<DiskStatus>, ShardError>;
}

/// Most keys in one `stat` or `delete`: 4,096 encoded keys are 132 KiB, well inside one gRPC message.
pub const STAT_KEYS_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_blocks_that_match_their_hashes_become_verified() {
        let payload = Bytes::from((0..40_000u32).map(|i| (i / 7) as u8).collect::<Vec<_>>());
        let table = block_hashes(&payload);
        assert_eq!(table.len(), 3 * 32);
        let second = payload.slice(16_384..32_768);
        let verified = VerifiedShard::verify(second.clone(), 1, &table, 5..10).unwrap();
        assert_eq!(verified.into_bytes(), payload.slice(16_389..16_394));
        assert!(VerifiedShard::verify(second.clone(), 0, &table, 0..1).is_none(), "wrong place");
        assert!(VerifiedShard::verify(second, 1, &table, 0..20_000).is_none(), "outside");
        let mut flipped = payload.to_vec();
        flipped[39_999] ^= 1;
        assert!(VerifiedShard::verify(flipped.into(), 0, &table, 0..1).is_none(), "flipped");
    }

    #[test]
    fn a_shard_was_verified_by_the_newest_pass_that_has_come_by() {
        let key = |placement| ShardKey {
            pool: valv_types::PoolId(1),
            placement,
            blob: valv_types::BlobId::from_bytes([0; 16]),
            chunk: 0,
            shard: 0,
        };
        let under_way =
            |previous_started_secs| ScrubProgress { started_secs: 9, next: Some(key(5)), previous_started_secs };
        assert_eq!(under_way(Some(2)).verified_since_secs(&key(4)), Some(9));
        assert_eq!(under_way(Some(2)).verified_since_secs(&key(5)), Some(2));
        assert_eq!(under_way(None).verified_since_secs(&key(6)), None);
        let ended = ScrubProgress { started_secs: 9, next: None, previous_started_secs: None };
        assert_eq!(ended.verified_since_secs(&key(6)), Some(9));
    }
}
