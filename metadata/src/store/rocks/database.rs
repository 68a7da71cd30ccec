//! The embedded database: its column families, their options, and the bytes of its rows.
//!
//! | column family | key | value |
//! |---|---|---|
//! | `rows` | the row's key | revision (8 bytes, big-endian), then the row's value |
//! | `commits` | commit id (16 bytes) | revision and time in seconds since 1970 (8 bytes each, big-endian) |
//! | `state` | a name | see [`State`] |

use super::committer::Group;
use super::{RocksConfig, RocksError};
use crate::store::mirror::format::{Segment, SegmentWriter};
use crate::store::{StoreError, Versioned};
use bytes::Bytes;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType,
    DBPinnableSlice, DBRecoveryMode, ErrorKind, LogLevel, Options, ReadOptions, WriteBatch, WriteOptions,
    compaction_filter::Decision,
};
use std::path::{Path, PathBuf};
use valv_types::{CommitId, Revision, TimestampMicros};

const ROWS: &str = "rows";
const COMMITS: &str = "commits";
const STATE: &str = "state";

const LATEST: &[u8] = b"latest";
const TERM: &[u8] = b"term";
const TAIL: &[u8] = b"tail";

/// How long a commit id is remembered, in seconds: a day, as the trait promises, and an hour more, because the clock
/// that the time was taken from may have been set since.
pub(crate) const COMMIT_MEMORY_SECS: u64 = 25 * 3600;

/// Open files that RocksDB keeps at most. At 64 MiB each this is 32 GiB of tables before any is reopened, and it
/// leaves half of the usual limit of 1,024 descriptors to everybody else.
const OPEN_FILES_MAX: i32 = 512;
/// WAL bytes after which memtables are flushed so that it can be dropped: bounds what an open has to replay.
const WAL_BYTES_MAX: u64 = 64 << 20;
/// A window of this many entries with half of them tombstones marks its table for compaction, so that a listing
/// beside deleted keys stays as fast as one that is not. 128 is about one page of a listing in twenty.
const TOMBSTONE_WINDOW: usize = 128;

/// The rows of the `state` column family.
///
/// `latest` is the revision of the latest commit (8 bytes). `term` is the term of this opening of the store and the
/// first revision that may belong to it (8 bytes each). `tail` is written with a mirrored group: the keys and commit
/// ids of that group alone, from which its mirrored batch can be made again if a crash came between the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    /// The latest commit.
    pub(crate) latest: Revision,
    /// See [`Term`].
    pub(crate) term: Term,
}

/// One opening of the store. Batches in the mirror carry it, so that what an earlier opening wrote there without
/// acknowledging it is told from what took the same revisions later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Term {
    /// Milliseconds since 1970 when it began, or one more than the latest that was known, whichever is more: so it
    /// also differs from those that only a disk knows which is away.
    pub(crate) number: u64,
    /// The first revision that this term may have written. Batches of older terms at or after it never happened.
    pub(crate) start: u64,
}

/// RocksDB with Valv's column families.
pub(crate) struct Database {
    pub(super) db: DB,
}

/// Why the folder could not be opened: decides whether it may be put aside and rebuilt.
#[derive(Debug)]
pub(crate) enum OpenFailure {
    /// Another process holds it.
    InUse,
    /// Its files are damaged or incomplete.
    Damaged(String),
    /// Anything else: permissions, no space. Says nothing against the files.
    Io(String),
}

impl Database {
    /// Opens the database in `path`, which must have been made by [`Self::create`].
    pub(crate) fn open(path: &Path, config: &RocksConfig) -> Result<Self, OpenFailure> {
        let database = Self::open_with(path, config, false).map_err(|error| classify(&error))?;
        match database.state() {
            Ok(_) => Ok(database),
            Err(error) => Err(OpenFailure::Damaged(error.to_string())),
        }
    }

    /// Makes an empty database in `path`, which must be missing or empty. It can't be opened before a state was
    /// written to it.
    pub(crate) fn create(path: &Path, config: &RocksConfig) -> Result<Self, rocksdb::Error> {
        Self::open_with(path, config, true)
    }

    fn open_with(path: &Path, config: &RocksConfig, create: bool) -> Result<Self, rocksdb::Error> {
        let mut options = Options::default();
        // Never on an existing folder: RocksDB would take one without its CURRENT file for a new one, and start empty.
        options.create_if_missing(create);
        options.create_missing_column_families(create);
        options.set_error_if_exists(create);
        // Every write that was acknowledged is synced, so a record that is cut off at the end of the WAL was not, and
        // damage anywhere else is an error instead of a silent loss of everything after it.
        options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
        options.set_max_total_wal_size(WAL_BYTES_MAX);
        options.set_max_open_files(OPEN_FILES_MAX);
        options.set_max_background_jobs(2);
        options.set_log_level(LogLevel::Warn);
        options.set_keep_log_file_num(4);
        options.set_max_log_file_size(4 << 20);
        options.set_avoid_unnecessary_blocking_io(true);
        let cache = Cache::new_lru_cache(config.block_cache_bytes);
        let families = [
            (ROWS, rows_options(&cache, config.write_buffer_bytes)),
            (COMMITS, commits_options(&cache, config.write_buffer_bytes / 4)),
            (STATE, family_options(&cache, 1 << 20)),
        ];
        let families = families.map(|(name, options)| ColumnFamilyDescriptor::new(name, options));
        Ok(Self { db: DB::open_cf_descriptors(&options, path, families)? })
    }

    fn family(&self, name: &'static str) -> &ColumnFamily {
        match self.db.cf_handle(name) {
            Some(family) => family,
            None => unreachable!("the database was opened with {name}, and column families are never dropped"),
        }
    }

    pub(crate) fn rows(&self) -> &ColumnFamily {
        self.family(ROWS)
    }

    pub(crate) fn commits(&self) -> &ColumnFamily {
        self.family(COMMITS)
    }

    pub(super) fn states(&self) -> &ColumnFamily {
        self.family(STATE)
    }

    /// Reads a row.
    pub(crate) fn row(&self, key: &[u8]) -> Result<Option<Versioned>, StoreError> {
        self.db.get_pinned_cf(self.rows(), key)?.map(|stored| decode_row(&stored)).transpose()
    }

    /// Reads several rows from one snapshot.
    pub(crate) fn rows_at_once(&self, keys: &[crate::store::Key]) -> Result<Vec<Option<Versioned>>, StoreError> {
        let snapshot = self.db.snapshot();
        let mut options = ReadOptions::default();
        options.set_snapshot(&snapshot);
        let found = self.db.batched_multi_get_cf_opt(self.rows(), keys, false, &options);
        found.into_iter().map(|stored| stored?.map(|stored| decode_row(&stored)).transpose()).collect()
    }

    /// Reads the revision of a row and leaves its value alone.
    pub(crate) fn row_revision(&self, key: &[u8]) -> Result<Option<Revision>, StoreError> {
        self.db.get_pinned_cf(self.rows(), key)?.map(|stored| Ok(split_row(&stored)?.0)).transpose()
    }

    /// Reads at which revision a commit happened.
    pub(crate) fn committed(&self, id: CommitId) -> Result<Option<Revision>, StoreError> {
        let stored = self.db.get_pinned_cf(self.commits(), id.as_bytes())?;
        stored.map(|stored| Ok(decode_commit(&stored)?.0)).transpose()
    }

    /// Reads the state rows. A database without them was not completely made.
    pub(crate) fn state(&self) -> Result<State, StoreError> {
        let read = |name: &'static [u8]| -> Result<DBPinnableSlice<'_>, StoreError> {
            let missing = || StoreError::Corrupt { what: "the state of the metadata store is missing".to_owned() };
            self.db.get_pinned_cf(self.states(), name)?.ok_or_else(missing)
        };
        let latest = decode_latest(&read(LATEST)?)?;
        let (number, start) = decode_pair(&read(TERM)?)?;
        Ok(State { latest, term: Term { number, start } })
    }

    /// The latest revision as a RocksDB snapshot sees it.
    pub(super) fn latest_in(&self, snapshot: &rocksdb::Snapshot<'_>) -> Result<Revision, StoreError> {
        match snapshot.get_pinned_cf(self.states(), LATEST)? {
            Some(stored) => decode_latest(&stored),
            None => Err(StoreError::Corrupt { what: "the latest revision is missing".to_owned() }),
        }
    }

    /// The last group that was written with a tail, made again from its keys; `None` before the first. Right only if no
    /// later group changed its rows: the tail is that of the latest group.
    pub(crate) fn tail_group(&self) -> Result<Option<Group>, StoreError> {
        let Some(stored) = self.db.get_pinned_cf(self.states(), TAIL)? else { return Ok(None) };
        let corrupt = || StoreError::Corrupt { what: "the tail of the metadata store".to_owned() };
        let Segment { commits, rows } = Segment::decode(&stored).map_err(|_| corrupt())?;
        let (Some((_, first, _)), Some((_, last, _))) = (commits.first(), commits.last()) else {
            return Err(corrupt());
        };
        let mut group =
            Group { first: *first, last: *last, commits: commits.clone(), rows: Vec::with_capacity(rows.len()) };
        for (key, revision, _) in rows {
            let value = self.row(&key)?.map(|row| row.value);
            group.rows.push((key, revision, value));
        }
        Ok(Some(group))
    }

    pub(crate) fn put_row(&self, batch: &mut WriteBatch, key: &[u8], revision: Revision, value: &[u8]) {
        let mut stored = Vec::with_capacity(8 + value.len());
        stored.extend_from_slice(&revision.0.to_be_bytes());
        stored.extend_from_slice(value);
        batch.put_cf(self.rows(), key, stored);
    }

    pub(crate) fn remove_row(&self, batch: &mut WriteBatch, key: &[u8]) {
        batch.delete_cf(self.rows(), key);
    }

    pub(crate) fn put_commit(&self, batch: &mut WriteBatch, id: CommitId, revision: Revision, secs: u64) {
        batch.put_cf(self.commits(), id.as_bytes(), encode_pair(revision.0, secs));
    }

    pub(crate) fn put_latest(&self, batch: &mut WriteBatch, revision: Revision) {
        batch.put_cf(self.states(), LATEST, revision.0.to_be_bytes());
    }

    pub(crate) fn put_term(&self, batch: &mut WriteBatch, term: Term) {
        batch.put_cf(self.states(), TERM, encode_pair(term.number, term.start));
    }

    /// Notes which rows and commits the latest group has, without their values.
    pub(crate) fn put_tail(&self, batch: &mut WriteBatch, group: &Group) {
        let mut tail = SegmentWriter::default();
        for (id, revision, secs) in &group.commits {
            tail.commit(*id, *revision, *secs);
        }
        for (key, revision, _) in &group.rows {
            tail.row(key, *revision, None);
        }
        batch.put_cf(self.states(), TAIL, tail.take());
    }

    /// Writes `batch` and returns when it survives power loss.
    pub(crate) fn write_durably(&self, batch: WriteBatch) -> Result<(), rocksdb::Error> {
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.db.write_opt(batch, &options)
    }

    /// Writes `batch` without the WAL: for filling a database that nobody uses before [`Self::flush`].
    pub(crate) fn write_unlogged(&self, batch: WriteBatch) -> Result<(), rocksdb::Error> {
        self.db.write_without_wal(batch)
    }

    /// Flushes every memtable to tables.
    pub(crate) fn flush(&self) -> Result<(), rocksdb::Error> {
        let mut options = rocksdb::FlushOptions::default();
        options.set_wait(true);
        self.db.flush_cfs_opt(&[self.rows(), self.commits(), self.states()], &options)
    }
}

impl From<rocksdb::Error> for StoreError {
    fn from(error: rocksdb::Error) -> Self {
        match error.kind() {
            ErrorKind::Corruption => StoreError::Corrupt { what: error.to_string() },
            _ => StoreError::Io { what: error.to_string() },
        }
    }
}

fn classify(error: &rocksdb::Error) -> OpenFailure {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::Corruption | ErrorKind::InvalidArgument => OpenFailure::Damaged(text),
        // RocksDB reports both as I/O errors and names the file only in the message.
        ErrorKind::IOError if text.contains("LOCK: ") || text.contains("lock hold by") => OpenFailure::InUse,
        ErrorKind::IOError if text.contains("No such file") => OpenFailure::Damaged(text),
        _ => OpenFailure::Io(text),
    }
}

fn table_options(cache: &Cache) -> BlockBasedOptions {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_bloom_filter(10.0, false);
    // Index and filters in partitions within the cache: with ten million objects whole ones would be larger than it.
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_partition_filters(true);
    table.set_metadata_block_size(4096);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_top_level_index_and_filter(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_block_size(8 * 1024);
    table.set_format_version(5);
    table
}

fn family_options(cache: &Cache, write_buffer_bytes: usize) -> Options {
    let mut options = Options::default();
    options.set_block_based_table_factory(&table_options(cache));
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(write_buffer_bytes);
    options.set_max_write_buffer_number(3);
    options
}

fn rows_options(cache: &Cache, write_buffer_bytes: usize) -> Options {
    let mut options = family_options(cache, write_buffer_bytes);
    options.add_compact_on_deletion_collector_factory(TOMBSTONE_WINDOW, TOMBSTONE_WINDOW / 2, 0.5);
    options
}

/// Old commit ids are dropped when compaction meets them: no pass over the ids and no tombstones. Every table is
/// compacted at least once a day, so an id lives two days at most.
fn commits_options(cache: &Cache, write_buffer_bytes: usize) -> Options {
    let mut options = family_options(cache, write_buffer_bytes);
    options.set_periodic_compaction_seconds(24 * 3600);
    options.set_compaction_filter("valv-commit-memory", |_level: u32, _key: &[u8], value: &[u8]| {
        let now = TimestampMicros::now().as_secs();
        match decode_commit(value) {
            Ok((_, secs)) if secs.saturating_add(COMMIT_MEMORY_SECS) < now => Decision::Remove,
            _ => Decision::Keep,
        }
    });
    options
}

fn encode_pair(a: u64, b: u64) -> [u8; 16] {
    let mut out = [0; 16];
    out[..8].copy_from_slice(&a.to_be_bytes());
    out[8..].copy_from_slice(&b.to_be_bytes());
    out
}

fn decode_pair(stored: &[u8]) -> Result<(u64, u64), StoreError> {
    let (a, b) = stored.split_first_chunk::<8>().ok_or_else(|| corrupt("a pair of numbers"))?;
    let b: [u8; 8] = b.try_into().map_err(|_| corrupt("a pair of numbers"))?;
    Ok((u64::from_be_bytes(*a), u64::from_be_bytes(b)))
}

fn decode_latest(stored: &[u8]) -> Result<Revision, StoreError> {
    let bytes: [u8; 8] = stored.try_into().map_err(|_| corrupt("the latest revision"))?;
    Ok(Revision(u64::from_be_bytes(bytes)))
}

/// Revision and time of a row of `commits`.
pub(crate) fn decode_commit(stored: &[u8]) -> Result<(Revision, u64), StoreError> {
    let (revision, secs) = decode_pair(stored)?;
    Ok((Revision(revision), secs))
}

/// Splits a row of `rows` into revision and value.
pub(crate) fn split_row(stored: &[u8]) -> Result<(Revision, &[u8]), StoreError> {
    let (revision, value) = stored.split_first_chunk::<8>().ok_or_else(|| corrupt("a row"))?;
    Ok((Revision(u64::from_be_bytes(*revision)), value))
}

pub(super) fn decode_row(stored: &[u8]) -> Result<Versioned, StoreError> {
    let (revision, value) = split_row(stored)?;
    Ok(Versioned { revision, value: Bytes::copy_from_slice(value) })
}

fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt { what: format!("{what} has the wrong length") }
}

/// Moves a complete database from `folder` to `place`, where nothing or an empty folder may be.
pub(crate) fn put_in_place(folder: &Path, place: &Path) -> Result<(), RocksError> {
    match std::fs::remove_dir(place) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(RocksError::Folder { path: place.to_owned(), source: error })
        }
        _ => rename_durably(folder, place),
    }
}

/// Moves the folder `path` aside under a name that says why and when. It is never deleted.
pub(crate) fn put_aside(path: &Path, why: &str) -> Result<PathBuf, RocksError> {
    let aside = sibling(path, &format!("{why}-{}", TimestampMicros::now().0));
    rename_durably(path, &aside)?;
    Ok(aside)
}

fn rename_durably(from: &Path, to: &Path) -> Result<(), RocksError> {
    let folder_error = |source| RocksError::Folder { path: to.to_owned(), source };
    std::fs::rename(from, to).map_err(folder_error)?;
    valv_durable_file::sync_parent(to).map_err(folder_error)
}

pub(crate) fn remove_folder(path: &Path) -> Result<(), RocksError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(RocksError::Folder { path: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

pub(crate) fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(suffix);
    path.with_file_name(name)
}
