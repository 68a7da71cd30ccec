//! Snapshots and cursors over RocksDB's own.

use super::database::{Database, decode_row};
use crate::store::{Cursor, Key, Snapshot, StoreError, Versioned};
use bytes::Bytes;
use rocksdb::{DB, DBRawIteratorWithThreadMode, ReadOptions};
use self_cell::self_cell;
use std::sync::Arc;
use valv_types::Revision;

type Pinned<'a> = rocksdb::Snapshot<'a>;

self_cell!(
    /// A RocksDB snapshot together with the database that it borrows from.
    struct Owned {
        owner: Arc<Database>,

        #[covariant]
        dependent: Pinned,
    }
);

/// A consistent view of the rows. Keeps the database open and old versions of its rows alive while it is held.
pub(crate) struct RocksSnapshot {
    view: Owned,
    revision: Revision,
}

impl RocksSnapshot {
    /// A view of everything that was committed until now.
    pub(crate) fn new(database: Arc<Database>) -> Result<Self, StoreError> {
        let view = Owned::new(database, |database| database.db.snapshot());
        let revision = view.with_dependent(|database, pinned| database.latest_in(pinned))?;
        Ok(Self { view, revision })
    }

    /// The database that this is a view of.
    pub(crate) fn database(&self) -> &Database {
        self.view.borrow_owner()
    }

    /// A raw iterator over all of a column family, as the snapshot sees it.
    pub(crate) fn raw(&self, family: &rocksdb::ColumnFamily) -> DBRawIteratorWithThreadMode<'_, DB> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        self.view.borrow_dependent().raw_iterator_cf_opt(family, options)
    }
}

impl Snapshot for RocksSnapshot {
    fn revision(&self) -> Revision {
        self.revision
    }

    fn get(&self, key: &[u8]) -> Result<Option<Versioned>, StoreError> {
        let found = self.view.borrow_dependent().get_pinned_cf(self.database().rows(), key)?;
        found.map(|stored| decode_row(&stored)).transpose()
    }

    fn scan(&self, start: &[u8], end: &[u8]) -> Result<Box<dyn Cursor + '_>, StoreError> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(start);
        options.set_iterate_upper_bound(end);
        let rows = self.view.borrow_dependent().raw_iterator_cf_opt(self.database().rows(), options);
        let empty = start >= end;
        Ok(Box::new(RocksCursor { rows, start: Bytes::copy_from_slice(start), place: Place::Before, empty }))
    }
}

/// Where a cursor's iterator stands.
enum Place {
    /// Nowhere yet.
    Before,
    /// On the row that `next` returns.
    OnNext,
    /// On the row that `next` has returned.
    OnReturned,
}

struct RocksCursor<'a> {
    rows: DBRawIteratorWithThreadMode<'a, DB>,
    start: Key,
    place: Place,
    /// RocksDB's answer to a range whose end lies before its start is not specified.
    empty: bool,
}

impl Cursor for RocksCursor<'_> {
    fn next(&mut self) -> Result<Option<(Key, Versioned)>, StoreError> {
        if self.empty {
            return Ok(None);
        }
        match self.place {
            Place::Before => self.rows.seek(&self.start),
            Place::OnNext => {}
            // Past the end, the iterator must not be moved.
            Place::OnReturned if self.rows.valid() => self.rows.next(),
            Place::OnReturned => {}
        }
        self.place = Place::OnReturned;
        match self.rows.item() {
            Some((key, stored)) => Ok(Some((Bytes::copy_from_slice(key), decode_row(stored)?))),
            None => {
                self.rows.status()?;
                Ok(None)
            }
        }
    }

    fn seek(&mut self, key: &[u8]) -> Result<(), StoreError> {
        if !self.empty {
            self.rows.seek(key.max(&self.start));
            self.place = Place::OnNext;
        }
        Ok(())
    }
}
