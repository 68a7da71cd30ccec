//! Gives back the space of extents in which little is live: copy what is needed, sync, switch the index, then recycle or
//! unlink the file.
//!
//! Crash consistency: the copies are ordinary records of the writer with the sequences of their originals, so a crash
//! at any point leaves either the original, or both with equal right. A file goes only after the index that no longer
//! refers to it is flushed. Which delete records have to be copied: [`Book::is_delete_needed`].

use super::allocate::recycle_or_unlink;
use super::index::Batch;
use super::queue::{Ack, CopyItem, Operation};
use super::shared::{ExtentFile, Shared};
use super::stage::Book;
use super::walk::{Step, Walker};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use valv_disk_format::{EXTENT_HEADER_LEN, ExtentId, RECORD_ALIGN, RecordBody, RecordHeader};
use valv_shard_api::ShardError;
use valv_types::ShardKey;

/// Payload bytes read ahead of one request to the writer.
const COPY_BYTES: usize = 4 << 20;
/// Records in one request to the writer: bounds the memory of many small ones.
const COPY_RECORDS: usize = 4096;

/// Why an extent could not be reclaimed now. It is tried again later.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReclaimError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Shard(#[from] ShardError),
    #[error("the engine is closing")]
    Closing,
}

/// Extents that are reclaimed but whose files some reader still holds.
pub(crate) type Dying = Mutex<Vec<Arc<ExtentFile>>>;

impl Book {
    /// The extent that is most worth reclaiming, if any is: one with nothing needed in it, or the one with the smallest
    /// share below `percent`.
    fn candidate(&self, percent: u8, is_excluded: impl Fn(ExtentId) -> bool) -> Option<ExtentId> {
        let newest = self.newest();
        self.iter()
            // Quarantined records stay until they are rewritten or deleted: their undamaged blocks may be all there is.
            .filter(|(id, stats)| stats.sealed && stats.quarantined == 0 && Some(*id) != newest && !is_excluded(*id))
            .filter_map(|(id, stats)| {
                let used = stats.end.saturating_sub(EXTENT_HEADER_LEN).max(1);
                let needed = self.needed_bytes(id);
                let is_worth_it = needed == 0 || needed.saturating_mul(100) < used.saturating_mul(u64::from(percent));
                is_worth_it.then(|| (needed.saturating_mul(1000) / used, id))
            })
            .min()
            .map(|(_, id)| id)
    }
}

impl Shared {
    /// Reclaims what is worth it. Returns how many extents were given back, and how many could not be.
    pub(crate) fn reclaim(&self, dying: &Dying) -> (usize, usize) {
        self.bury(dying);
        let mut reclaimed = 0;
        let mut failed: Vec<ExtentId> = Vec::new();
        while !self.is_poisoned() && !self.is_index_broken() {
            let candidate = {
                let dying = dying.lock();
                let is_excluded = |id| failed.contains(&id) || dying.iter().any(|file| file.id == id);
                self.book.lock().candidate(self.config.reclaim_live_percent, is_excluded)
            };
            let Some(id) = candidate else { break };
            match self.reclaim_extent(id, dying) {
                Ok(()) => reclaimed += 1,
                Err(ReclaimError::Closing) => break,
                Err(error) => {
                    tracing::warn!(disk = %self.disk, extent = %id, %error, "extent not reclaimed");
                    failed.push(id);
                }
            }
        }
        (reclaimed, failed.len())
    }

    fn reclaim_extent(&self, id: ExtentId, dying: &Dying) -> Result<(), ReclaimError> {
        let Some(extent) = self.extent(id) else {
            // In the book, but not a file: what recovery found missing. There is nothing to give back.
            self.forget(id);
            return Ok(());
        };
        let (has_live, has_deletes) = {
            let book = self.book.lock();
            (book.get(id).is_some_and(|stats| stats.live_shards > 0), book.needed_bytes(id) > 0)
        };
        if has_live || has_deletes {
            self.compact(id, &extent)?;
        }
        if self.book.lock().get(id).is_none_or(|stats| stats.live_shards > 0) {
            // Something in it turned out to be damaged, or the index knows a record that the walk did not meet.
            return Err(io::Error::other("live records are left in the extent").into());
        }
        // No index that survives a crash may refer to the file any more.
        self.index.flush(true).map_err(|error| self.index_failed(error))?;
        self.extents.write().remove(&id);
        dying.lock().push(extent);
        self.bury(dying);
        Ok(())
    }

    /// Gives back the files that nobody reads any more.
    fn bury(&self, dying: &Dying) {
        let mut waiting = Vec::new();
        for extent in std::mem::take(&mut *dying.lock()) {
            // Out of the map, so nobody can take hold of it anew: a count of one is final.
            if Arc::strong_count(&extent) > 1 {
                waiting.push(extent);
                continue;
            }
            extent.close();
            match recycle_or_unlink(self, extent.id, &self.folder.extent(extent.id)) {
                Ok(()) => {
                    self.metrics.reclaimed_extents.inc();
                    self.forget(extent.id);
                }
                Err(error) => {
                    tracing::warn!(disk = %self.disk, extent = %extent.id, %error, "extent file not given back");
                    waiting.push(extent);
                }
            }
        }
        dying.lock().extend(waiting);
    }

    /// Only now, when the file is durably gone, does the extent cease to count for deletes that hide what was in it.
    fn forget(&self, id: ExtentId) {
        let mut book = self.book.lock();
        book.remove(id);
        let mut batch = Batch::default();
        batch.stats(id, None);
        if let Err(error) = self.index.write(batch) {
            self.index_failed(error);
        }
    }

    /// Copies what is needed of an extent to the end of the disk.
    fn compact(&self, id: ExtentId, extent: &ExtentFile) -> Result<(), ReclaimError> {
        let handle = extent.handle()?;
        let mut walker = Walker::new(&handle, id)?;
        let end = self.book.lock().get(id).map_or(0, |stats| stats.end);
        let mut at = EXTENT_HEADER_LEN;
        let (mut items, mut bytes) = (Vec::new(), 0);
        while at < end {
            let header = match walker.step(at)? {
                Step::Record { header, .. } => header,
                Step::Sealed => break,
                Step::Nothing => match walker.next_intact(at + RECORD_ALIGN)? {
                    Some(next) => {
                        at = next;
                        continue;
                    }
                    None => break,
                },
            };
            if let Some(item) = self.copy_of(id, &header)? {
                if let CopyItem::Put { payload, .. } = &item {
                    bytes += payload.len();
                }
                items.push(item);
            }
            if bytes >= COPY_BYTES || items.len() >= COPY_RECORDS {
                self.copy(std::mem::take(&mut items), bytes)?;
                bytes = 0;
            }
            at += header.record_len();
        }
        if items.is_empty() { Ok(()) } else { self.copy(items, bytes) }
    }

    /// The record to be copied, if it is needed.
    fn copy_of(&self, id: ExtentId, header: &RecordHeader) -> Result<Option<CopyItem>, ReclaimError> {
        match header.body {
            RecordBody::Put { key, generation, codec, .. } => {
                let Some(entry) = self.index.get(&key).map_err(|error| self.index_failed(error))? else {
                    return Ok(None);
                };
                if entry.place != header.position || entry.quarantined {
                    return Ok(None);
                }
                let Some((table, payload)) = self.read_record(key, &entry)? else {
                    self.damaged(key, entry.sequence);
                    return Err(self.corrupt_record(key).into());
                };
                let (sequence, from) = (entry.sequence, entry.place);
                Ok(Some(CopyItem::Put { key, sequence, from, generation, codec, table, payload }))
            }
            RecordBody::Delete { key, hides } => {
                let is_needed = self.book.lock().is_delete_needed(hides, id);
                Ok(is_needed.then_some(CopyItem::Delete { key, sequence: header.sequence, hides }))
            }
            RecordBody::Seal => Ok(None),
        }
    }

    fn corrupt_record(&self, key: ShardKey) -> ShardError {
        ShardError::Corrupt { disk: self.disk, key: Box::new(key) }
    }

    /// Hands records to the writer and waits until they are durable and in the index.
    fn copy(&self, items: Vec<CopyItem>, bytes: usize) -> Result<(), ReclaimError> {
        // No room in the queue is asked for: there is one request of this kind at a time, of bounded size.
        let (ack, answer) = Ack::new(None);
        if !self.queue.push(Operation::Copy(items, ack)) {
            return Err(ReclaimError::Closing);
        }
        answer.blocking_recv().map_err(|_| ReclaimError::Closing)??;
        self.metrics.copied_bytes.inc_by(bytes as u64);
        Ok(())
    }
}
