//! Reads one range of a shard: look up, read, verify. Blocking; callers run it off the reactor.

use super::index::Entry;
use super::io::read_at;
use super::shared::Shared;
use bytes::Bytes;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use valv_disk_format::{HASH_LEN, RECORD_HEADER_LEN, RecordBody, RecordHeader, table_len};
use valv_shard_api::{ShardError, VerifiedShard};
use valv_types::{BLOCK_LEN_BYTES, ShardKey};

/// Bytes that are read and not needed, to save a second call: as much as a disk reads ahead in any case.
const GAP_BYTES_MAX: usize = 32 * 1024;
/// Times that a lookup is repeated because compaction moved the record meanwhile. It moves at most once in minutes.
const MOVES_MAX: usize = 8;

/// Whole blocks of a shard, not yet verified, with their hashes.
pub(crate) struct RawBlocks {
    pub(crate) blocks: Bytes,
    pub(crate) hashes: Bytes,
    /// Offset of the first block within the payload.
    pub(crate) start: u32,
}

/// Whole blocks of a shard that match their hashes.
pub(crate) struct VerifiedBlocks {
    pub(crate) blocks: VerifiedShard,
    pub(crate) hashes: Bytes,
    pub(crate) start: u32,
}

/// Why a record could not be read.
enum ReadFault {
    /// The bytes are not what was written, or the device can't read them.
    Corrupt,
    Io(io::Error),
}

impl From<io::Error> for ReadFault {
    fn from(error: io::Error) -> Self {
        // EIO on a read is a sector that the device has given up: damage to this shard, not trouble with the disk.
        if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) { Self::Corrupt } else { Self::Io(error) }
    }
}

impl Shared {
    /// Reads and verifies the bytes of `range`.
    pub(crate) fn read(&self, key: ShardKey, range: Range<u32>) -> Result<VerifiedShard, ShardError> {
        self.read_with(key, range.clone(), |raw| {
            let (from, to) = ((range.start - raw.start) as usize, (range.end - raw.start) as usize);
            VerifiedShard::verify(raw.blocks, 0, &raw.hashes, from..to)
        })
    }

    /// Reads and verifies the whole blocks that `range` touches, for a caller who verifies again.
    pub(crate) fn read_blocks(&self, key: ShardKey, range: Range<u32>) -> Result<VerifiedBlocks, ShardError> {
        self.read_with(key, range, |raw| {
            let len = raw.blocks.len();
            let blocks = VerifiedShard::verify(raw.blocks, 0, &raw.hashes, 0..len)?;
            Some(VerifiedBlocks { blocks, hashes: raw.hashes, start: raw.start })
        })
    }

    fn read_with<T>(
        &self,
        key: ShardKey,
        range: Range<u32>,
        verify: impl Fn(RawBlocks) -> Option<T>,
    ) -> Result<T, ShardError> {
        self.metrics.reads.inc();
        let mut entry = self.lookup(key)?;
        for _ in 0..MOVES_MAX {
            if range.start > range.end || range.end > entry.len_bytes {
                return Err(ShardError::Malformed { what: "range outside the shard" });
            }
            let fault = match self.read_raw(key, &entry, range.clone()) {
                Ok(raw) => match verify(raw) {
                    Some(verified) => return Ok(verified),
                    None => ReadFault::Corrupt,
                },
                Err(fault) => fault,
            };
            // Compaction or a replacement may have moved the record since the lookup.
            let now = self.lookup(key)?;
            if now.place == entry.place && now.sequence == entry.sequence {
                return match fault {
                    ReadFault::Io(error) => Err(self.io_error(error)),
                    ReadFault::Corrupt => {
                        self.damaged(key, entry.sequence);
                        Err(self.corrupt(key))
                    }
                };
            }
            entry = now;
        }
        Err(ShardError::Busy { disk: self.disk })
    }

    fn lookup(&self, key: ShardKey) -> Result<Entry, ShardError> {
        match self.index.get(&key) {
            Ok(Some(entry)) if entry.quarantined => Err(self.corrupt(key)),
            Ok(Some(entry)) => Ok(entry),
            Ok(None) => Err(ShardError::NotFound { disk: self.disk }),
            Err(error) => Err(self.index_failed(error)),
        }
    }

    fn corrupt(&self, key: ShardKey) -> ShardError {
        ShardError::Corrupt { disk: self.disk, key: Box::new(key) }
    }

    fn read_raw(&self, key: ShardKey, entry: &Entry, range: Range<u32>) -> Result<RawBlocks, ReadFault> {
        let extent = self.extent(entry.place.extent).ok_or(ReadFault::Corrupt)?;
        let file = extent.handle()?;
        let first_block = (range.start / BLOCK_LEN_BYTES) as usize;
        // An empty range touches no block, and stays where it is.
        let (start, end) = match range.is_empty() {
            true => (range.start, range.start),
            false => (
                range.start / BLOCK_LEN_BYTES * BLOCK_LEN_BYTES,
                range.end.checked_next_multiple_of(BLOCK_LEN_BYTES).unwrap_or(u32::MAX).min(entry.len_bytes),
            ),
        };
        let head_len = RECORD_HEADER_LEN + table_len(entry.len_bytes);
        let blocks_len = (end - start) as usize;
        let (head, blocks) = if start as usize <= GAP_BYTES_MAX {
            // Header, table and blocks lie close together: one call.
            let all = self.read_exactly(&file, entry.place.offset, head_len + end as usize)?;
            (all.slice(..head_len), all.slice(head_len + start as usize..))
        } else {
            let head = self.read_exactly(&file, entry.place.offset, head_len)?;
            let blocks_at = entry.place.offset + head_len as u64 + u64::from(start);
            (head, self.read_exactly(&file, blocks_at, blocks_len)?)
        };
        check_head(&head, key, entry)?;
        let hashes_at = RECORD_HEADER_LEN + first_block * HASH_LEN;
        let hashes_len = blocks_len.div_ceil(BLOCK_LEN_BYTES as usize) * HASH_LEN;
        let hashes = head.slice(hashes_at..hashes_at + hashes_len);
        Ok(RawBlocks { blocks, hashes, start })
    }

    fn read_exactly(&self, file: &Arc<File>, offset: u64, len: usize) -> Result<Bytes, ReadFault> {
        let bytes = read_at(file, offset, len)?;
        if bytes.len() < len {
            return Err(ReadFault::Corrupt);
        }
        self.metrics.read_bytes.inc_by(len as u64);
        Ok(bytes.into())
    }

    /// Reads and verifies a whole record, for compaction. `None` if it is damaged.
    pub(crate) fn read_record(&self, key: ShardKey, entry: &Entry) -> io::Result<Option<(Bytes, Bytes)>> {
        match self.read_raw(key, entry, 0..entry.len_bytes) {
            Ok(raw) => {
                let len = raw.blocks.len();
                let verified = VerifiedShard::verify(raw.blocks, 0, &raw.hashes, 0..len);
                Ok(verified.map(|payload| (raw.hashes, payload.into_bytes())))
            }
            Err(ReadFault::Corrupt) => Ok(None),
            Err(ReadFault::Io(error)) => Err(error),
        }
    }

    /// Whether a whole record is what was written, read in pieces: for the scrub, which may meet long shards.
    pub(crate) fn verify_record(&self, key: ShardKey, entry: &Entry) -> io::Result<bool> {
        let checked = || -> Result<bool, ReadFault> {
            let extent = self.extent(entry.place.extent).ok_or(ReadFault::Corrupt)?;
            let file = extent.handle()?;
            let head = self.read_exactly(&file, entry.place.offset, RECORD_HEADER_LEN + table_len(entry.len_bytes))?;
            check_head(&head, key, entry)?;
            let payload_at = entry.place.offset + head.len() as u64;
            Ok(super::walk::verify_payload(&file, payload_at, entry.len_bytes, &head[RECORD_HEADER_LEN..])?)
        };
        match checked() {
            Ok(is_whole) => Ok(is_whole),
            Err(ReadFault::Corrupt) => Ok(false),
            Err(ReadFault::Io(error)) => Err(error),
        }
    }
}

/// Whether header and table are those of the record that the index means.
fn check_head(head: &[u8], key: ShardKey, entry: &Entry) -> Result<(), ReadFault> {
    let header = RecordHeader::decode(head, entry.place).map_err(|_| ReadFault::Corrupt)?;
    let is_meant = match header.body {
        RecordBody::Put { key: found, generation, len_bytes, .. } => {
            found == key
                && generation == entry.generation
                && len_bytes == entry.len_bytes
                && header.sequence == entry.sequence
        }
        RecordBody::Delete { .. } | RecordBody::Seal => false,
    };
    if !is_meant || header.check_table(&head[RECORD_HEADER_LEN..]).is_err() {
        return Err(ReadFault::Corrupt);
    }
    Ok(())
}
