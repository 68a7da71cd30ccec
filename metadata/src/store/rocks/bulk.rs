//! All of a snapshot in order, and a database that is filled and then put in place.

use super::committer::{Group, put_group};
use super::database::{Database, Term, decode_commit, put_in_place, remove_folder, sibling, split_row};
use super::snapshot::RocksSnapshot;
use super::{RocksConfig, RocksError};
use crate::store::StoreError;
use crate::store::mirror::format::Segment;
use rocksdb::{DB, DBRawIteratorWithThreadMode, WriteBatch};
use std::path::PathBuf;
use valv_types::{CommitId, Revision};

/// Key and stored value, lent by an iterator.
type Entry<'a> = (&'a [u8], &'a [u8]);
/// Key, revision and value of a row, lent by an iterator.
pub(crate) type RowRef<'a> = (&'a [u8], Revision, &'a [u8]);

/// Walks all rows of a snapshot without keeping any of them in the cache.
pub(crate) struct AllRows<'a>(Walk<'a>);

/// Walks all commit ids of a snapshot.
pub(crate) struct AllCommits<'a>(Walk<'a>);

struct Walk<'a> {
    entries: DBRawIteratorWithThreadMode<'a, DB>,
    started: bool,
}

impl Walk<'_> {
    fn next(&mut self) -> Result<Option<Entry<'_>>, StoreError> {
        match self.started {
            true if self.entries.valid() => self.entries.next(),
            true => {}
            false => self.entries.seek_to_first(),
        }
        self.started = true;
        if !self.entries.valid() {
            self.entries.status()?;
        }
        Ok(self.entries.item())
    }
}

impl RocksSnapshot {
    /// All rows, in key order.
    pub(crate) fn rows(&self) -> AllRows<'_> {
        AllRows(Walk { entries: self.raw(self.database().rows()), started: false })
    }

    /// All commits that are remembered, in the order of their ids.
    pub(crate) fn commits(&self) -> AllCommits<'_> {
        AllCommits(Walk { entries: self.raw(self.database().commits()), started: false })
    }
}

impl AllRows<'_> {
    /// The next row: key, revision, value.
    #[allow(clippy::should_implement_trait, reason = "lends from the iterator, which Iterator can't")]
    pub(crate) fn next(&mut self) -> Result<Option<RowRef<'_>>, StoreError> {
        let Some((key, stored)) = self.0.next()? else { return Ok(None) };
        let (revision, value) = split_row(stored)?;
        Ok(Some((key, revision, value)))
    }
}

impl AllCommits<'_> {
    /// The next commit: id, revision, time in seconds since 1970.
    #[allow(clippy::should_implement_trait, reason = "lends from the iterator, which Iterator can't")]
    pub(crate) fn next(&mut self) -> Result<Option<(CommitId, Revision, u64)>, StoreError> {
        let Some((id, stored)) = self.0.next()? else { return Ok(None) };
        let id = CommitId::from_slice(id).map_err(|error| StoreError::Corrupt { what: error.to_string() })?;
        let (revision, secs) = decode_commit(stored)?;
        Ok(Some((id, revision, secs)))
    }
}

/// A database in a folder of its own, which nobody sees before it is complete: a crash leaves either nothing in its
/// place or all of it.
pub(crate) struct Building {
    database: Database,
    folder: PathBuf,
    place: PathBuf,
}

impl Building {
    /// Begins with an empty database; what an earlier attempt left is thrown away.
    pub(crate) fn new(config: &RocksConfig) -> Result<Self, RocksError> {
        let folder = sibling(&config.path, "building");
        remove_folder(&folder)?;
        Ok(Self { database: Database::create(&folder, config)?, folder, place: config.path.clone() })
    }

    /// Adds part of a checkpoint.
    pub(crate) fn add_segment(&self, segment: &Segment) -> Result<(), RocksError> {
        let mut batch = WriteBatch::default();
        for (key, revision, value) in &segment.rows {
            if let Some(value) = value {
                self.database.put_row(&mut batch, key, *revision, value);
            }
        }
        for (id, revision, secs) in &segment.commits {
            self.database.put_commit(&mut batch, *id, *revision, *secs);
        }
        Ok(self.database.write_unlogged(batch)?)
    }

    /// Applies a group.
    pub(crate) fn add_group(&self, group: &Group) -> Result<(), RocksError> {
        let mut batch = WriteBatch::default();
        put_group(&self.database, &mut batch, group);
        Ok(self.database.write_unlogged(batch)?)
    }

    /// Makes the database complete and durable.
    pub(crate) fn finish(&self, latest: Revision, term: Term) -> Result<(), RocksError> {
        let mut batch = WriteBatch::default();
        self.database.put_latest(&mut batch, latest);
        self.database.put_term(&mut batch, term);
        self.database.write_unlogged(batch)?;
        Ok(self.database.flush()?)
    }

    /// Puts it in its place, where nothing or an empty folder may be.
    pub(crate) fn put_in_place(self) -> Result<(), RocksError> {
        let Self { database, folder, place } = self;
        drop(database);
        put_in_place(&folder, &place)
    }
}
