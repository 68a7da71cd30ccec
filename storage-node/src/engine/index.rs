//! The index: from a shard's key to its record. Derived data in RocksDB, rebuilt from the extents when in doubt.
//!
//! Crash consistency: there is no write-ahead log. Everything is in one column family, so whatever RocksDB has flushed
//! is a prefix of the batches written, and each batch carries the cursor up to which it covers the extents. Replaying
//! the extents from that cursor gives the rest again.

use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, FlushOptions, LogLevel, Options, WriteBatch, WriteOptions,
};
use std::path::Path;
use valv_disk_format::{ExtentId, HiddenExtents, Position};
use valv_types::ShardKey;

/// The index can't be used; it has to be rebuilt.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum IndexError {
    #[error("the index can't be read or written: {0}")]
    Rocks(#[from] rocksdb::Error),
    #[error("the index holds a malformed row")]
    Malformed,
}

/// Where a shard's record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) place: Position,
    pub(crate) sequence: u64,
    /// The first extent that may hold a put of this key: what a delete will have to hide.
    pub(crate) oldest: ExtentId,
    pub(crate) len_bytes: u32,
    pub(crate) generation: u32,
    pub(crate) codec: u8,
    pub(crate) quarantined: bool,
}

const ENTRY_LEN: usize = 42;

impl Entry {
    fn encode(&self) -> [u8; ENTRY_LEN] {
        let mut out = [0; ENTRY_LEN];
        out[..8].copy_from_slice(&self.place.extent.0.to_be_bytes());
        out[8..16].copy_from_slice(&self.place.offset.to_be_bytes());
        out[16..24].copy_from_slice(&self.sequence.to_be_bytes());
        out[24..32].copy_from_slice(&self.oldest.0.to_be_bytes());
        out[32..36].copy_from_slice(&self.len_bytes.to_be_bytes());
        out[36..40].copy_from_slice(&self.generation.to_be_bytes());
        out[40] = self.codec;
        out[41] = u8::from(self.quarantined);
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, IndexError> {
        let mut row = Row(bytes);
        let entry = Self {
            place: row.position()?,
            sequence: row.u64()?,
            oldest: ExtentId(row.u64()?),
            len_bytes: row.u32()?,
            generation: row.u32()?,
            codec: row.u8()?,
            quarantined: row.u8()? != 0,
        };
        row.end()?;
        Ok(entry)
    }

    /// Length of the whole record in bytes.
    pub(crate) fn record_len(&self) -> u64 {
        valv_disk_format::record_len(self.len_bytes)
    }
}

/// Delete records of one extent that hide puts in the same extents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tombstones {
    pub(crate) hides: HiddenExtents,
    pub(crate) count: u64,
}

/// Ranges kept apart in one extent; more are merged, which keeps a delete longer than needed but never too short.
/// 32 rows of 24 bytes stay below 1 KiB in each batch.
const TOMBSTONE_RANGES_MAX: usize = 32;

/// What the engine knows of one extent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ExtentStats {
    /// One past the last byte used.
    pub(crate) end: u64,
    /// Nothing more will be appended.
    pub(crate) sealed: bool,
    pub(crate) live_shards: u64,
    /// Bytes of live records, headers and padding included.
    pub(crate) live_record_bytes: u64,
    pub(crate) live_payload_bytes: u64,
    pub(crate) quarantined: u64,
    pub(crate) tombstones: Vec<Tombstones>,
}

impl ExtentStats {
    /// Counts one more delete record.
    pub(crate) fn add_tombstone(&mut self, hides: HiddenExtents) {
        if let Some(same) = self.tombstones.iter_mut().find(|range| range.hides == hides) {
            same.count += 1;
            return;
        }
        self.tombstones.push(Tombstones { hides, count: 1 });
        if self.tombstones.len() > TOMBSTONE_RANGES_MAX {
            // Merging neighbours widens the ranges least.
            self.tombstones.sort_by_key(|range| range.hides);
            let mut merged: Vec<Tombstones> = Vec::with_capacity(TOMBSTONE_RANGES_MAX);
            for pair in self.tombstones.chunks(2) {
                let first = pair.iter().map(|range| range.hides.first).min().unwrap_or_default();
                let last = pair.iter().map(|range| range.hides.last).max().unwrap_or_default();
                let count = pair.iter().map(|range| range.count).sum();
                merged.push(Tombstones { hides: HiddenExtents { first, last }, count });
            }
            self.tombstones = merged;
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(41 + self.tombstones.len() * 24);
        out.push(u8::from(self.sealed));
        for field in [self.end, self.live_shards, self.live_record_bytes, self.live_payload_bytes, self.quarantined] {
            out.extend_from_slice(&field.to_be_bytes());
        }
        for range in &self.tombstones {
            for field in [range.hides.first.0, range.hides.last.0, range.count] {
                out.extend_from_slice(&field.to_be_bytes());
            }
        }
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, IndexError> {
        let mut row = Row(bytes);
        let mut stats = Self {
            sealed: row.u8()? != 0,
            end: row.u64()?,
            live_shards: row.u64()?,
            live_record_bytes: row.u64()?,
            live_payload_bytes: row.u64()?,
            quarantined: row.u64()?,
            tombstones: Vec::new(),
        };
        while !row.0.is_empty() {
            let hides = HiddenExtents { first: ExtentId(row.u64()?), last: ExtentId(row.u64()?) };
            stats.tombstones.push(Tombstones { hides, count: row.u64()? });
        }
        Ok(stats)
    }
}

/// How far the index covers the extents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// The folder's `formatted`: an index of another folder is none.
    pub(crate) formatted: [u8; 16],
    /// Everything before this is durable and in the index.
    pub(crate) position: Position,
    /// The next sequence number.
    pub(crate) next_sequence: u64,
    /// The `opened` of the run that ended cleanly at this cursor; 0 if none did. It counts only for the run after it,
    /// so it needs no clearing: the superblock's own `opened` has then moved on.
    pub(crate) clean_opened: u64,
}

/// How far the scrub has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ScrubCursor {
    /// Seconds since 1970 when this pass began.
    pub(crate) started_secs: u64,
    /// Payload bytes verified in this pass.
    pub(crate) verified_bytes: u64,
    /// The first key not yet verified.
    pub(crate) next: ShardKey,
    /// Seconds since 1970 when the pass before this one began; 0 if none has ended.
    pub(crate) previous_started_secs: u64,
}

/// Rows that are not shards. No pool has this number, and no shard's row has these lengths.
const META: [u8; 4] = [0xff; 4];
const CURSOR: &[u8] = &[0xff, 0xff, 0xff, 0xff, b'c'];
const SCRUB: &[u8] = &[0xff, 0xff, 0xff, 0xff, b's'];

fn stats_row(id: ExtentId) -> [u8; 13] {
    let mut key = [0; 13];
    key[..4].copy_from_slice(&META);
    key[4] = b'e';
    key[5..].copy_from_slice(&id.0.to_be_bytes());
    key
}

/// A set of changes that become visible together.
#[derive(Default)]
pub(crate) struct Batch(WriteBatch);

impl Batch {
    pub(crate) fn entry(&mut self, key: &ShardKey, entry: Option<&Entry>) {
        match entry {
            Some(entry) => self.0.put(key.encode(), entry.encode()),
            None => self.0.delete(key.encode()),
        }
    }

    pub(crate) fn stats(&mut self, id: ExtentId, stats: Option<&ExtentStats>) {
        match stats {
            Some(stats) => self.0.put(stats_row(id), stats.encode()),
            None => self.0.delete(stats_row(id)),
        }
    }

    pub(crate) fn cursor(&mut self, cursor: &Cursor) {
        let mut out = Vec::with_capacity(48);
        out.extend_from_slice(&cursor.formatted);
        for field in [cursor.position.extent.0, cursor.position.offset, cursor.next_sequence, cursor.clean_opened] {
            out.extend_from_slice(&field.to_be_bytes());
        }
        self.0.put(CURSOR, out);
    }

    pub(crate) fn scrub(&mut self, cursor: &ScrubCursor) {
        let mut out = Vec::with_capacity(57);
        out.extend_from_slice(&cursor.started_secs.to_be_bytes());
        out.extend_from_slice(&cursor.verified_bytes.to_be_bytes());
        out.extend_from_slice(&cursor.next.encode());
        out.extend_from_slice(&cursor.previous_started_secs.to_be_bytes());
        self.0.put(SCRUB, out);
    }
}

/// One disk's index.
pub(crate) struct Index {
    db: DB,
    no_log: WriteOptions,
}

impl Index {
    /// Opens the index in `path`, making an empty one if there is none.
    pub(crate) fn open(path: &Path, write_buffer_bytes: usize, cache: &Cache) -> Result<Self, IndexError> {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(cache);
        // Most puts are of keys that are not there: the filter answers for them without a read.
        table.set_bloom_filter(10.0, false);
        table.set_cache_index_and_filter_blocks(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&table);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_write_buffer_size(write_buffer_bytes);
        options.set_max_write_buffer_number(2);
        options.set_max_open_files(64);
        options.set_keep_log_file_num(2);
        options.set_max_log_file_size(1 << 20);
        options.set_log_level(LogLevel::Warn);
        options.set_stats_dump_period_sec(0);
        options.set_paranoid_checks(true);
        let mut no_log = WriteOptions::default();
        no_log.disable_wal(true);
        Ok(Self { db: DB::open(&options, path)?, no_log })
    }

    pub(crate) fn get(&self, key: &ShardKey) -> Result<Option<Entry>, IndexError> {
        match self.db.get_pinned(key.encode())? {
            Some(row) => Ok(Some(Entry::decode(&row)?)),
            None => Ok(None),
        }
    }

    pub(crate) fn write(&self, batch: Batch) -> Result<(), IndexError> {
        Ok(self.db.write_opt(batch.0, &self.no_log)?)
    }

    /// Makes what was written durable; with `wait` before it returns, else soon.
    pub(crate) fn flush(&self, wait: bool) -> Result<(), IndexError> {
        let mut options = FlushOptions::default();
        options.set_wait(wait);
        Ok(self.db.flush_opt(&options)?)
    }

    pub(crate) fn cursor(&self) -> Result<Option<Cursor>, IndexError> {
        let Some(bytes) = self.db.get_pinned(CURSOR)? else { return Ok(None) };
        let mut row = Row(&bytes);
        let cursor = Cursor {
            formatted: row.array()?,
            position: row.position()?,
            next_sequence: row.u64()?,
            clean_opened: row.u64()?,
        };
        row.end()?;
        Ok(Some(cursor))
    }

    pub(crate) fn scrub_cursor(&self) -> Result<Option<ScrubCursor>, IndexError> {
        let Some(bytes) = self.db.get_pinned(SCRUB)? else { return Ok(None) };
        let mut row = Row(&bytes);
        let (started_secs, verified_bytes) = (row.u64()?, row.u64()?);
        let (key, rest) = row.0.split_at_checked(ShardKey::ENCODED_LEN).ok_or(IndexError::Malformed)?;
        let next = ShardKey::decode(key).ok_or(IndexError::Malformed)?;
        let mut row = Row(rest);
        // A row of an older Valv ends here.
        let previous_started_secs = if rest.is_empty() { 0 } else { row.u64()? };
        row.end()?;
        Ok(Some(ScrubCursor { started_secs, verified_bytes, next, previous_started_secs }))
    }

    /// The statistics of every extent that the index knows.
    pub(crate) fn all_stats(&self) -> Result<Vec<(ExtentId, ExtentStats)>, IndexError> {
        let mut found = Vec::new();
        let mut rows = self.db.raw_iterator();
        rows.seek(stats_row(ExtentId(0)));
        while let Some((key, value)) = rows.item() {
            if key.len() == 13 && key[..5] == stats_row(ExtentId(0))[..5] {
                let mut row = Row(&key[5..]);
                found.push((ExtentId(row.u64()?), ExtentStats::decode(value)?));
            } else if key.get(4) != Some(&b'e') {
                break;
            }
            rows.next();
        }
        rows.status()?;
        Ok(found)
    }

    /// Entries at or after `from`, in key order, until `take` says that it has had enough.
    pub(crate) fn scan(
        &self,
        from: &ShardKey,
        mut take: impl FnMut(ShardKey, Entry) -> bool,
    ) -> Result<(), IndexError> {
        let mut rows = self.db.raw_iterator();
        rows.seek(from.encode());
        while let Some((key, value)) = rows.item() {
            // Rows that are not shards lie among the keys of pool 2^32-1, which is no pool.
            if let Some(key) = ShardKey::decode(key)
                && !take(key, Entry::decode(value)?)
            {
                return Ok(());
            }
            rows.next();
        }
        Ok(rows.status()?)
    }
}

/// Reads a row front to back.
struct Row<'a>(&'a [u8]);

impl Row<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], IndexError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(IndexError::Malformed)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, IndexError> {
        Ok(self.array::<1>()?[0])
    }

    fn u32(&mut self) -> Result<u32, IndexError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, IndexError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    fn position(&mut self) -> Result<Position, IndexError> {
        Ok(Position { extent: ExtentId(self.u64()?), offset: self.u64()? })
    }

    fn end(&self) -> Result<(), IndexError> {
        if self.0.is_empty() { Ok(()) } else { Err(IndexError::Malformed) }
    }
}
