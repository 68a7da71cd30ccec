//! What records do to the index and to the statistics of extents: the same code for writing and for recovery.

use crate::engine::index::{Batch, Cursor, Entry, ExtentStats, Index, IndexError};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use valv_disk_format::{EXTENT_HEADER_LEN, ExtentId, HiddenExtents, RECORD_HEADER_LEN};
use valv_types::ShardKey;

/// The statistics of every extent that exists as a file, and their sums.
#[derive(Debug, Default)]
pub(crate) struct Book {
    extents: BTreeMap<ExtentId, ExtentStats>,
    totals: Totals,
}

/// Sums over a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Totals {
    pub(crate) shards: u64,
    pub(crate) payload_bytes: u64,
    pub(crate) quarantined: u64,
}

impl Book {
    pub(crate) fn new(extents: impl IntoIterator<Item = (ExtentId, ExtentStats)>) -> Self {
        let mut book = Self { extents: extents.into_iter().collect(), totals: Totals::default() };
        for stats in book.extents.values() {
            book.totals.shards += stats.live_shards;
            book.totals.payload_bytes += stats.live_payload_bytes;
            book.totals.quarantined += stats.quarantined;
        }
        book
    }

    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    pub(crate) fn get(&self, id: ExtentId) -> Option<&ExtentStats> {
        self.extents.get(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ExtentId, &ExtentStats)> {
        self.extents.iter().map(|(id, stats)| (*id, stats))
    }

    /// The newest extent. Appends go here, or the next one is made after it; it is never reclaimed, so ids only grow.
    pub(crate) fn newest(&self) -> Option<ExtentId> {
        self.extents.last_key_value().map(|(id, _)| *id)
    }

    /// Forgets an extent whose file is gone, durably.
    pub(crate) fn remove(&mut self, id: ExtentId) {
        self.extents.remove(&id);
    }

    /// Whether a delete record in extent `own` still has something to hide.
    ///
    /// A delete hides older puts of its key. When it is written it names the range of extents in which those may lie:
    /// from the first that ever held a put of the key to the one that held the current put. Dead puts are never
    /// copied, and a live one is copied only if no later delete is ahead of the copy in the writer's queue, so no
    /// older put ever lands outside that range. Hence: a delete may go when no other extent of its range is left as a
    /// file, durably gone from the directory. Puts within its own extent vanish with it, in the same rename or unlink.
    /// Without this rule, an index rebuilt from the extents would revive what was deleted.
    pub(crate) fn is_delete_needed(&self, hides: HiddenExtents, own: ExtentId) -> bool {
        let (first, last) = (hides.first.min(hides.last), hides.first.max(hides.last));
        self.extents.range(first..=last).any(|(id, _)| *id != own)
    }

    /// Bytes of an extent that a compaction would have to copy: live puts, and deletes that are still needed.
    pub(crate) fn needed_bytes(&self, id: ExtentId) -> u64 {
        let Some(stats) = self.extents.get(&id) else { return 0 };
        let deletes: u64 = stats
            .tombstones
            .iter()
            .filter(|range| self.is_delete_needed(range.hides, id))
            .map(|range| range.count)
            .sum();
        stats.live_record_bytes + deletes * RECORD_HEADER_LEN as u64
    }
}

/// The change of one extent's statistics.
#[derive(Debug, Default)]
struct Delta {
    shards: i64,
    record_bytes: i64,
    payload_bytes: i64,
    quarantined: i64,
    deletes: Vec<HiddenExtents>,
    end: Option<u64>,
    sealed: bool,
}

/// Changes by records that are not durable yet: seen by what is staged after them, by nobody else.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    entries: HashMap<ShardKey, Option<Entry>>,
    deltas: BTreeMap<ExtentId, Delta>,
}

impl Staged {
    /// How many keys change.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing changes.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.deltas.is_empty()
    }

    /// What the index will hold for `key`.
    pub(crate) fn get(&self, index: &Index, key: &ShardKey) -> Result<Option<Entry>, IndexError> {
        match self.entries.get(key) {
            Some(entry) => Ok(*entry),
            None => index.get(key),
        }
    }

    /// A put, or a copy of one: the record with the higher sequence holds, and of two equal ones the later copy.
    pub(crate) fn put(&mut self, index: &Index, key: ShardKey, mut new: Entry) -> Result<(), IndexError> {
        if let Some(old) = self.get(index, &key)? {
            let oldest = old.oldest.min(new.place.extent);
            if old.sequence > new.sequence {
                self.entries.insert(key, Some(Entry { oldest, ..old }));
                return Ok(());
            }
            if old.place == new.place {
                return Ok(());
            }
            new.oldest = oldest;
            self.count(&old, -1);
        }
        self.count(&new, 1);
        self.entries.insert(key, Some(new));
        Ok(())
    }

    /// A delete record in extent `own`.
    pub(crate) fn delete(
        &mut self,
        index: &Index,
        key: ShardKey,
        sequence: u64,
        hides: HiddenExtents,
        own: ExtentId,
    ) -> Result<(), IndexError> {
        if let Some(old) = self.get(index, &key)?
            && old.sequence < sequence
        {
            self.count(&old, -1);
            self.entries.insert(key, None);
        }
        self.delta(own).deletes.push(hides);
        Ok(())
    }

    /// Marks the record of `key` as damaged, if it is still the one with this sequence. Says whether it was marked.
    pub(crate) fn quarantine(&mut self, index: &Index, key: ShardKey, sequence: u64) -> Result<bool, IndexError> {
        match self.get(index, &key)? {
            Some(old) if old.sequence == sequence && !old.quarantined => {
                let new = Entry { quarantined: true, ..old };
                self.count(&old, -1);
                self.count(&new, 1);
                self.entries.insert(key, Some(new));
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// The extent is used up to `end`, and closed if `sealed`.
    pub(crate) fn end(&mut self, id: ExtentId, end: u64, sealed: bool) {
        let delta = self.delta(id);
        delta.end = Some(end);
        delta.sealed |= sealed;
    }

    fn delta(&mut self, id: ExtentId) -> &mut Delta {
        self.deltas.entry(id).or_default()
    }

    fn count(&mut self, entry: &Entry, sign: i64) {
        let delta = self.delta(entry.place.extent);
        delta.shards += sign;
        delta.record_bytes += sign * entry.record_len() as i64;
        delta.payload_bytes += sign * i64::from(entry.len_bytes);
        delta.quarantined += sign * i64::from(entry.quarantined);
    }

    /// Makes the changes visible, in one batch with `cursor`. On an error nothing is visible.
    pub(crate) fn commit(self, index: &Index, book: &Mutex<Book>, cursor: Option<&Cursor>) -> Result<(), IndexError> {
        let mut batch = Batch::default();
        for (key, entry) in &self.entries {
            batch.entry(key, entry.as_ref());
        }
        if let Some(cursor) = cursor {
            batch.cursor(cursor);
        }
        let mut book = book.lock();
        let mut totals = book.totals;
        let mut changed = Vec::with_capacity(self.deltas.len());
        for (id, delta) in self.deltas {
            let mut stats = book
                .extents
                .get(&id)
                .cloned()
                .unwrap_or_else(|| ExtentStats { end: EXTENT_HEADER_LEN, ..ExtentStats::default() });
            // Saturating: damage to the disk may have cost an extent whose records were counted.
            let add = |count: &mut u64, change: i64| *count = count.saturating_add_signed(change);
            add(&mut stats.live_shards, delta.shards);
            add(&mut stats.live_record_bytes, delta.record_bytes);
            add(&mut stats.live_payload_bytes, delta.payload_bytes);
            add(&mut stats.quarantined, delta.quarantined);
            add(&mut totals.shards, delta.shards);
            add(&mut totals.payload_bytes, delta.payload_bytes);
            add(&mut totals.quarantined, delta.quarantined);
            delta.deletes.into_iter().for_each(|hides| stats.add_tombstone(hides));
            stats.end = delta.end.unwrap_or(stats.end);
            stats.sealed |= delta.sealed;
            batch.stats(id, Some(&stats));
            changed.push((id, stats));
        }
        index.write(batch)?;
        book.totals = totals;
        book.extents.extend(changed);
        Ok(())
    }
}
