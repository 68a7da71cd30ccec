//! One disk's engine: what the node calls.

use super::allocate::{Purpose, purpose_of};
use super::folder::{ExpectedDisk, Folder, FolderError, Identity};
use super::queue::{Ack, DELETE_BYTES, Operation, Queue, Stop};
use super::read::VerifiedBlocks;
use super::reclaim::Dying;
use super::recovery::{Opening, Recovered, RecoveryError};
use super::scrub::{FIRST_KEY, Scrub, ScrubOutcome};
use super::shared::{CorruptReport, Shared};
use super::space::Space;
use super::writer::Writer;
use crate::config::EngineConfig;
use crate::metrics::DiskMetrics;
use parking_lot::{Condvar, Mutex, RwLock};
use rocksdb::Cache;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc};
use valv_disk_format::{Superblock, table_len};
use valv_shard_api::{
    DiskState, DiskStatus, NewShard, SHARD_LEN_BYTES_MAX, STAT_KEYS_MAX, ShardCodec, ShardError, ShardStat,
    VerifiedShard,
};
use valv_types::{DiskId, ShardKey, TimestampMicros};

use super::index::Entry;

/// Why a disk was not opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenError {
    /// The folder is not what was expected: for whoever mounts and configures disks.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The extents can't be read, or no index can be made.
    #[error("{0}")]
    Recovery(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

impl From<RecoveryError> for OpenError {
    fn from(error: RecoveryError) -> Self {
        Self::Recovery(Arc::new(error))
    }
}

/// What an engine is given by its node.
#[derive(Clone)]
pub struct DiskContext {
    /// How the engine runs.
    pub config: EngineConfig,
    /// The block cache of the node's indexes.
    pub cache: Cache,
    /// What it counts.
    pub metrics: DiskMetrics,
    /// Where it reports corrupt shards.
    pub reports: mpsc::Sender<CorruptReport>,
}

/// A cache for an index that is opened alone.
const STANDALONE_CACHE_BYTES: usize = 8 << 20;

impl DiskContext {
    /// For a disk without a node around it, as tools and tests open it. The receiver gets its reports.
    pub fn standalone(
        config: EngineConfig,
        name: &str,
    ) -> Result<(Self, mpsc::Receiver<CorruptReport>), prometheus::Error> {
        let metrics = DiskMetrics::register(&prometheus::Registry::new(), name)?;
        let (reports, receiver) = mpsc::channel(super::shared::REPORTS_MAX);
        let cache = Cache::new_lru_cache(STANDALONE_CACHE_BYTES);
        Ok((Self { config, cache, metrics, reports }, receiver))
    }
}

/// Bytes of the queue that one permit stands for.
const PERMIT_BYTES: usize = 1024;
/// What the smallest request takes of the queue: its record, its answer and its place in the group.
const REQUEST_BYTES_MIN: usize = 4096;
/// Requests that may wait for room in the queue. They hold their payload, which their senders have budgeted for.
const WAITING_MAX: usize = 4096;

/// An open disk. Clones of the `Arc` share it; when the last one goes without [`Disk::close`], the engine stops as if
/// the process had been killed, and the next opening recovers.
pub struct Disk {
    shared: Arc<Shared>,
    room: Arc<Semaphore>,
    waiting: AtomicUsize,
    readers: Arc<Semaphore>,
    maintenance: Arc<Maintenance>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Tells the maintenance thread what to do.
#[derive(Default)]
struct Maintenance {
    stop: Mutex<bool>,
    wake: Condvar,
    /// Reclaimed extents that are still being read.
    dying: Dying,
    /// One reclaim at a time.
    reclaiming: Mutex<()>,
}

impl Disk {
    /// Initialises the empty folder `path`, which is made if it is missing. A folder that holds anything is refused.
    /// Durable when it returns.
    pub fn format(path: &Path, identity: &Identity) -> Result<Superblock, FolderError> {
        Folder::new(path).format(identity)
    }

    /// Opens the disk in `path` and recovers what the last run left. Blocks for as long as the extents take to replay.
    /// Nothing is ever initialised here: a folder that is missing, empty, damaged or another disk's is refused unchanged.
    pub fn open(path: &Path, expected: ExpectedDisk, context: DiskContext) -> Result<Arc<Self>, OpenError> {
        let DiskContext { config, cache, metrics, reports } = context;
        let folder = Folder::new(path);
        // Looked at before the lock, which would leave a file in an empty mount point.
        check(&folder, expected)?;
        let lock = folder.lock()?;
        let (before, stale) = check(&folder, expected)?;
        if stale.contains(&true) {
            tracing::warn!(disk = %before.disk, ?stale, "superblock copies differ; both are written again");
        }
        let superblock = Superblock {
            sequence: before.sequence + 1,
            // Later than before even if the clock ran back.
            opened: TimestampMicros::now().0.max(before.opened + 1),
            ..before.clone()
        };
        let opening = Opening {
            folder: &folder,
            superblock: &before,
            io: &*config.io,
            write_buffer_bytes: config.index_write_buffer_bytes,
            cache: &cache,
            recycled_max: config.recycled_extents_max,
            extent_len_bytes: config.extent_len_bytes,
        };
        let Recovered { index, book, extents, recycled, start, findings } = opening.run()?;
        // From here on the index's mark of a clean end counts no more.
        folder.write_superblock(&superblock)?;
        // Without it the scrub begins anew, and nothing counts as verified.
        let scrub = index.scrub_cursor().ok().flatten();
        let shared = Arc::new(Shared {
            disk: superblock.disk,
            superblock,
            folder,
            extents: RwLock::new(extents),
            book,
            queue: Queue::default(),
            space: Space::default(),
            recycled: Mutex::new(recycled),
            poisoned: Mutex::new(None),
            scrub: Mutex::new(scrub),
            is_poisoned: AtomicBool::new(false),
            is_index_broken: AtomicBool::new(false),
            reports,
            metrics,
            index,
            _lock: lock,
            config,
        });
        shared.metrics.lost_regions.inc_by(findings.lost_regions);
        for key in findings.quarantined {
            shared.metrics.corrupt.inc();
            shared.report(key);
        }
        if findings.rebuilt {
            tracing::info!(disk = %shared.disk, "index rebuilt");
        }
        refresh(&shared);
        Self::start(shared, start)
    }

    fn start(shared: Arc<Shared>, start: super::writer::Start) -> Result<Arc<Self>, OpenError> {
        let recovery = |error: io::Error| OpenError::from(RecoveryError::from(error));
        let maintenance = Arc::new(Maintenance::default());
        let writer = Writer::new(shared.clone(), start).map_err(recovery)?;
        let write = std::thread::Builder::new().name("valv-write".into()).spawn(move || writer.run());
        let write = write.map_err(recovery)?;
        let (for_thread, of_thread) = (shared.clone(), maintenance.clone());
        let maintain =
            std::thread::Builder::new().name("valv-maintain".into()).spawn(move || maintain(&for_thread, &of_thread));
        let maintain = match maintain {
            Ok(handle) => handle,
            Err(error) => {
                shared.queue.stop(Stop::Abandon);
                return Err(recovery(error));
            }
        };
        let room = shared.config.queue_bytes as usize / PERMIT_BYTES;
        let readers = shared.config.readers_max;
        Ok(Arc::new(Self {
            shared,
            room: Arc::new(Semaphore::new(room)),
            waiting: AtomicUsize::new(0),
            readers: Arc::new(Semaphore::new(readers)),
            maintenance,
            threads: Mutex::new(vec![maintain, write]),
        }))
    }

    /// Who the disk is.
    pub fn superblock(&self) -> &Superblock {
        &self.shared.superblock
    }

    /// Appends a shard; durable when it returns. See [`valv_shard_api::ShardStore::put`].
    pub async fn put(&self, shard: NewShard) -> Result<(), ShardError> {
        let len_bytes = u32::try_from(shard.payload.len()).ok().filter(|len| *len <= SHARD_LEN_BYTES_MAX);
        let Some(len_bytes) = len_bytes else { return Err(ShardError::Malformed { what: "shard too long" }) };
        if shard.block_hashes.len() != table_len(len_bytes) {
            return Err(ShardError::Malformed { what: "hash table of the wrong length" });
        }
        self.refuse_writes()?;
        if self.shared.space.is_full() && purpose_of(&shard.key) == Purpose::Put {
            return Err(ShardError::Full { disk: self.shared.disk });
        }
        let bytes = shard.payload.len() + shard.block_hashes.len();
        self.submit(bytes, |ack| Operation::Put(shard, ack)).await
    }

    /// Removes shards; durable when it returns.
    pub async fn delete(&self, keys: Vec<ShardKey>) -> Result<(), ShardError> {
        check_count(&keys)?;
        self.refuse_writes()?;
        let bytes = keys.len() * DELETE_BYTES;
        self.submit(bytes, |ack| Operation::Delete(keys, ack)).await
    }

    /// Reads and verifies a range of a shard.
    pub async fn read(&self, key: ShardKey, range: Range<u32>) -> Result<VerifiedShard, ShardError> {
        self.blocking(move |shared| shared.read(key, range)).await
    }

    /// Reads and verifies the blocks that a range touches.
    pub(crate) async fn read_blocks(&self, key: ShardKey, range: Range<u32>) -> Result<VerifiedBlocks, ShardError> {
        self.blocking(move |shared| shared.read_blocks(key, range)).await
    }

    /// What the index knows of each of `keys`.
    pub async fn stat(&self, keys: Vec<ShardKey>) -> Result<Vec<Option<ShardStat>>, ShardError> {
        check_count(&keys)?;
        self.blocking(move |shared| {
            let look = |key: &ShardKey| match shared.index.get(key) {
                Ok(Some(entry)) => stat_of(shared, *key, &entry).map(Some),
                Ok(None) => Ok(None),
                Err(error) => Err(shared.index_failed(error)),
            };
            keys.iter().map(look).collect()
        })
        .await
    }

    /// Up to `limit` shards at or after `from`.
    pub async fn list(&self, from: ShardKey, limit: usize) -> Result<Vec<ShardStat>, ShardError> {
        self.blocking(move |shared| {
            let mut found = Vec::new();
            let mut unknown = None;
            if limit == 0 {
                return Ok(found);
            }
            let scanned = shared.index.scan(&from, |key, entry| {
                match stat_of(shared, key, &entry) {
                    Ok(stat) => found.push(stat),
                    Err(error) => unknown = Some(error),
                }
                found.len() < limit && unknown.is_none()
            });
            scanned.map_err(|error| shared.index_failed(error))?;
            match unknown {
                Some(error) => Err(error),
                None => Ok(found),
            }
        })
        .await
    }

    /// How the disk is. Answers from counters.
    pub fn status(&self) -> DiskStatus {
        let shared = &self.shared;
        let totals = shared.book.lock().totals();
        let poisoned = shared.poisoned.lock().clone();
        let (state, reason) = match poisoned {
            Some(reason) => (DiskState::ReadOnly, reason),
            None if shared.space.is_full() => {
                (DiskState::Full, format!("less than {} bytes are free", shared.space.reserve_bytes()))
            }
            None => (DiskState::Online, String::new()),
        };
        shared.metrics.set_state(state);
        DiskStatus {
            disk: shared.disk,
            name: shared.superblock.name.clone(),
            state,
            reason,
            opened: shared.superblock.opened,
            formatted: shared.superblock.formatted,
            capacity_bytes: shared.space.capacity_bytes(),
            free_bytes: shared.space.free_bytes(),
            shards: totals.shards,
            live_bytes: totals.payload_bytes,
            quarantined: totals.quarantined,
            scrub: shared.scrub.lock().map(|cursor| cursor.progress()),
        }
    }

    /// Verifies every live shard now, at full speed.
    pub async fn scrub_now(&self) -> Result<ScrubOutcome, ShardError> {
        self.blocking(|shared| {
            let started_secs = TimestampMicros::now().as_secs();
            let mut sum = ScrubOutcome::default();
            let mut next = Some(FIRST_KEY);
            while let Some(from) = next {
                // In steps, so that closing the engine is noticed.
                let (step, rest) = shared.scrub_step(from, 64 << 20).map_err(|error| shared.io_error(error))?;
                sum.shards += step.shards;
                sum.bytes += step.bytes;
                sum.corrupt += step.corrupt;
                next = rest;
            }
            shared.note_whole_scrub(started_secs, &sum);
            Ok(sum)
        })
        .await
    }

    /// Reclaims everything that is worth it now. Returns how many extents were given back.
    pub async fn reclaim_now(&self) -> Result<usize, ShardError> {
        let maintenance = self.maintenance.clone();
        self.blocking(move |shared| {
            let _one = maintenance.reclaiming.lock();
            Ok(shared.reclaim(&maintenance.dying).0)
        })
        .await
    }

    /// Makes the index durable up to everything that has been answered.
    pub async fn flush(&self) -> Result<(), ShardError> {
        self.submit(0, Operation::Flush).await
    }

    /// The index failed: the disk must be closed and opened again, which rebuilds it.
    pub(crate) fn is_index_broken(&self) -> bool {
        self.shared.is_index_broken()
    }

    /// Ends cleanly: what is queued is written, the index flushed. The folder is free once the last reader is done.
    pub async fn close(&self) {
        self.end(Stop::Clean).await;
    }

    /// Ends at once, for a folder that is gone.
    pub(crate) async fn abandon(&self) {
        self.end(Stop::Abandon).await;
    }

    async fn end(&self, stop: Stop) {
        self.stop_threads(stop);
        let threads = std::mem::take(&mut *self.threads.lock());
        let joined = tokio::task::spawn_blocking(move || join(threads)).await;
        if let Err(error) = joined {
            tracing::error!(disk = %self.shared.disk, %error, "joining the engine's threads failed");
        }
    }

    fn stop_threads(&self, stop: Stop) {
        *self.maintenance.stop.lock() = true;
        self.maintenance.wake.notify_all();
        self.shared.queue.stop(stop);
    }

    fn refuse_writes(&self) -> Result<(), ShardError> {
        if self.shared.is_poisoned() {
            return Err(ShardError::ReadOnly { disk: self.shared.disk });
        }
        Ok(())
    }

    /// Waits for room in the queue, queues, and waits for the answer.
    async fn submit(&self, bytes: usize, make: impl FnOnce(Ack) -> Operation) -> Result<(), ShardError> {
        let disk = self.shared.disk;
        let all = self.shared.config.queue_bytes as usize / PERMIT_BYTES;
        // A shard longer than the queue takes all of it.
        let permits = (bytes.max(REQUEST_BYTES_MIN) / PERMIT_BYTES).min(all);
        let permits = u32::try_from(permits).unwrap_or(u32::MAX);
        let room = match self.room.clone().try_acquire_many_owned(permits) {
            Ok(room) => room,
            Err(_) => {
                let _waiting = Waiting::enter(&self.waiting).ok_or(ShardError::Busy { disk })?;
                let wait = self.room.clone().acquire_many_owned(permits);
                match tokio::time::timeout(self.shared.config.queue_wait, wait).await {
                    Ok(Ok(room)) => room,
                    Ok(Err(_)) | Err(_) => return Err(ShardError::Busy { disk }),
                }
            }
        };
        let (ack, answer) = Ack::new(Some(room));
        self.shared.queue.push(make(ack));
        // An engine that closes drops or refuses what it has not written.
        answer.await.unwrap_or(Err(ShardError::Away { disk }))
    }

    /// Runs `work` on a blocking thread, with a bound on how many run at once.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, ShardError> + Send + 'static,
    ) -> Result<T, ShardError> {
        let disk = self.shared.disk;
        let permit = self.readers.clone().acquire_owned().await.map_err(|_| ShardError::Away { disk })?;
        let shared = self.shared.clone();
        let done = tokio::task::spawn_blocking(move || {
            let result = work(&shared);
            drop(permit);
            result
        });
        // The work does not panic; the runtime may be shutting down.
        done.await.unwrap_or(Err(ShardError::Away { disk }))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let threads = std::mem::take(&mut *self.threads.lock());
        if !threads.is_empty() {
            self.stop_threads(Stop::Abandon);
            join(threads);
        }
    }
}

/// Counts who waits for room, for as long as they do.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize) -> Option<Self> {
        let entered = Self(count);
        // Dropping `entered` takes it back.
        (count.fetch_add(1, Ordering::AcqRel) < WAITING_MAX).then_some(entered)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn check(folder: &Folder, expected: ExpectedDisk) -> Result<(Superblock, [bool; 2]), FolderError> {
    let (superblock, stale) = folder.read_superblock()?;
    if superblock.cluster != expected.cluster || superblock.disk != expected.disk {
        return Err(FolderError::Foreign { cluster: superblock.cluster, disk: superblock.disk });
    }
    Ok((superblock, stale))
}

fn check_count(keys: &[ShardKey]) -> Result<(), ShardError> {
    if keys.len() > STAT_KEYS_MAX {
        return Err(ShardError::Malformed { what: "too many keys" });
    }
    Ok(())
}

fn stat_of(shared: &Shared, key: ShardKey, entry: &Entry) -> Result<ShardStat, ShardError> {
    let codec = ShardCodec::try_from(entry.codec)
        .map_err(|_| shared.io_error(io::Error::other("a shard was written by a newer version")))?;
    Ok(ShardStat {
        key,
        generation: entry.generation,
        len_bytes: entry.len_bytes,
        codec,
        quarantined: entry.quarantined,
    })
}

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("an engine's thread panicked");
        }
    }
}

/// Looks at the file system and at the counters that only metrics show.
fn refresh(shared: &Shared) {
    let totals = {
        let book = shared.book.lock();
        let gauge = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        shared.metrics.shards.set(gauge(book.totals().shards));
        shared.metrics.live_bytes.set(gauge(book.totals().payload_bytes));
        shared.metrics.quarantined.set(gauge(book.totals().quarantined));
        book.newest().and_then(|id| book.get(id).map(|stats| (id, stats.end, stats.sealed)))
    };
    let active_rest = match totals {
        Some((id, end, false)) => {
            let len = shared.extent(id).and_then(|file| file.handle().ok()).and_then(|file| file.metadata().ok());
            len.map_or(0, |meta| meta.len().saturating_sub(end))
        }
        _ => 0,
    };
    let recycled = shared.recycled.lock().len() as u64 * shared.config.extent_len_bytes;
    let reserve = shared.config.reserve_bytes;
    let looked =
        shared.space.refresh(shared.disk, shared.folder.root(), active_rest + recycled, reserve, &shared.metrics);
    if let Err(error) = looked {
        tracing::warn!(disk = %shared.disk, %error, "file system can't be looked at");
    }
}

/// After an extent could not be reclaimed (no room for its copies, or damage in it), reclaim rests for this long.
const RECLAIM_RETRY: Duration = Duration::from_secs(30);

/// The maintenance thread: space, reclaim, scrub, open files.
fn maintain(shared: &Shared, maintenance: &Maintenance) {
    let mut scrub = Scrub::new();
    let mut retry_reclaim: Option<Instant> = None;
    loop {
        {
            let mut stop = maintenance.stop.lock();
            if !*stop {
                maintenance.wake.wait_for(&mut stop, shared.config.maintenance_interval);
            }
            if *stop {
                return;
            }
        }
        refresh(shared);
        if retry_reclaim.is_none_or(|at| Instant::now() >= at) {
            let _one = maintenance.reclaiming.lock();
            let (_, failed) = shared.reclaim(&maintenance.dying);
            retry_reclaim = (failed > 0).then(|| Instant::now() + RECLAIM_RETRY);
        }
        scrub.advance(shared);
        shared.close_files();
    }
}

/// For the node's watch: whether the folder still holds the superblock of this run.
pub(crate) fn is_same(disk: &Disk, found: &Superblock) -> bool {
    let ours = disk.superblock();
    found.disk == ours.disk && found.cluster == ours.cluster && found.formatted == ours.formatted
}

/// Who a status is about when there is no engine.
pub(crate) fn absent_status(disk: DiskId, name: &str, reason: String, opened: u64) -> DiskStatus {
    DiskStatus {
        disk,
        name: name.to_owned(),
        state: DiskState::Absent,
        reason,
        opened,
        formatted: [0; 16],
        capacity_bytes: 0,
        free_bytes: 0,
        shards: 0,
        live_bytes: 0,
        quarantined: 0,
        scrub: None,
    }
}
