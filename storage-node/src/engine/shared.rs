//! What the writer, the readers and the maintenance of one disk share.

use crate::config::EngineConfig;
use crate::engine::folder::{Folder, FolderLock};
use crate::engine::index::{Index, IndexError, ScrubCursor};
use crate::engine::queue::{Damaged, Queue};
use crate::engine::space::Space;
use crate::engine::stage::Book;
use crate::metrics::DiskMetrics;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc;
use valv_disk_format::{ExtentId, Superblock};
use valv_shard_api::ShardError;
use valv_types::{DiskId, ShardKey};

/// A shard whose record was found damaged and was quarantined. Whoever repairs writes it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CorruptReport {
    /// The disk.
    pub disk: DiskId,
    /// The shard.
    pub key: ShardKey,
}

/// Reports that wait for the repair layer. When it is slower than damage is found, reports are dropped and the
/// quarantine alone remembers: `list` shows it, and `DiskStatus::quarantined` counts it.
pub(crate) const REPORTS_MAX: usize = 4096;

/// One extent's file, opened when needed. Whoever reads holds the `Arc`, so a file with readers is never recycled.
#[derive(Debug)]
pub(crate) struct ExtentFile {
    pub(crate) id: ExtentId,
    path: PathBuf,
    file: Mutex<Option<Arc<File>>>,
}

impl ExtentFile {
    pub(crate) fn new(id: ExtentId, path: PathBuf) -> Self {
        Self { id, path, file: Mutex::new(None) }
    }

    /// The open file.
    pub(crate) fn handle(&self) -> io::Result<Arc<File>> {
        let mut slot = self.file.lock();
        if let Some(file) = &*slot {
            return Ok(file.clone());
        }
        let file = Arc::new(File::options().read(true).write(true).open(&self.path)?);
        *slot = Some(file.clone());
        Ok(file)
    }

    /// Lets go of the open file; reads in flight keep theirs. Says whether there was one.
    pub(crate) fn close(&self) -> bool {
        self.file.lock().take().is_some()
    }

    pub(crate) fn is_open(&self) -> bool {
        self.file.lock().is_some()
    }
}

/// An engine's shared state. Dropped when the last reader is done; with it go the index and the folder's lock.
pub(crate) struct Shared {
    pub(crate) disk: DiskId,
    pub(crate) superblock: Superblock,
    pub(crate) folder: Folder,
    pub(crate) config: EngineConfig,
    pub(crate) extents: RwLock<BTreeMap<ExtentId, Arc<ExtentFile>>>,
    pub(crate) book: Mutex<Book>,
    pub(crate) queue: Queue,
    pub(crate) space: Space,
    /// Files of reclaimed extents, ready to become others.
    pub(crate) recycled: Mutex<Vec<PathBuf>>,
    /// Why the disk takes no writes any more.
    pub(crate) poisoned: Mutex<Option<String>>,
    pub(crate) is_poisoned: AtomicBool,
    /// How far the scrub has come, as the index has it.
    pub(crate) scrub: Mutex<Option<ScrubCursor>>,
    /// The index failed: the disk has to be opened again with a new one.
    pub(crate) is_index_broken: AtomicBool,
    pub(crate) reports: mpsc::Sender<CorruptReport>,
    pub(crate) metrics: DiskMetrics,
    pub(crate) index: Index,
    pub(crate) _lock: FolderLock,
}

impl Shared {
    /// Turns the disk read-only for the rest of this run: after a failed write or sync the kernel may have dropped
    /// dirty pages and marked them clean, so a later sync would promise what is not there (Rebello et al., ATC'20).
    pub(crate) fn poison(&self, what: &str, error: &io::Error) {
        let mut poisoned = self.poisoned.lock();
        if poisoned.is_none() {
            tracing::error!(disk = %self.disk, %error, what, "disk turns read-only");
            *poisoned = Some(format!("{what} failed: {error}"));
        }
        self.is_poisoned.store(true, Ordering::Release);
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.is_poisoned.load(Ordering::Acquire)
    }

    pub(crate) fn is_index_broken(&self) -> bool {
        self.is_index_broken.load(Ordering::Acquire)
    }

    /// Notes that the index can't be trusted, and gives the error for whoever asked.
    pub(crate) fn index_failed(&self, error: IndexError) -> ShardError {
        if !self.is_index_broken.swap(true, Ordering::AcqRel) {
            tracing::error!(disk = %self.disk, %error, "index failed; it will be rebuilt");
            // Best effort: without the mark, an index that can't be opened or does not fit is rebuilt all the same.
            if let Err(error) = File::create(self.folder.index_mark()) {
                tracing::warn!(disk = %self.disk, %error, "index not marked for rebuilding");
            }
        }
        self.io_error(io::Error::other(error))
    }

    pub(crate) fn io_error(&self, error: io::Error) -> ShardError {
        ShardError::Io { disk: self.disk, source: Arc::new(error) }
    }

    /// Quarantines a record that failed verification and reports it.
    pub(crate) fn damaged(&self, key: ShardKey, sequence: u64) {
        tracing::error!(disk = %self.disk, blob = %key.blob, chunk = key.chunk, shard = key.shard, "corrupt shard");
        self.metrics.corrupt.inc();
        self.queue.push_damaged(Damaged { key, sequence });
        self.report(key);
    }

    pub(crate) fn report(&self, key: ShardKey) {
        if self.reports.try_send(CorruptReport { disk: self.disk, key }).is_err() {
            self.metrics.reports_dropped.inc();
        }
    }

    pub(crate) fn extent(&self, id: ExtentId) -> Option<Arc<ExtentFile>> {
        self.extents.read().get(&id).cloned()
    }

    /// Closes extent files beyond the configured number, oldest extents first.
    pub(crate) fn close_files(&self) {
        let extents = self.extents.read();
        let open = extents.values().filter(|extent| extent.is_open()).count();
        let mut excess = open.saturating_sub(self.config.open_files_max);
        for extent in extents.values() {
            if excess == 0 {
                break;
            }
            excess -= usize::from(extent.close());
        }
    }
}
