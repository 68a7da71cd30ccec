//! The service: when a census or a repair is due, how much it may take, and what it tells.

use crate::census::Census;
use crate::queue::Waiting;
use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge, Registry};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, RwLock, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use valv_metadata_api::{BlobIds, Limit, Metadata, MetadataError, NoteRepairs, RepairedBlob};
use valv_shard_api::{DiskState, ShardError, ShardStore};
use valv_types::{BlobId, CommitId, DiskId, SYSTEM_POOL, ShardKey};

/// How repair behaves.
#[derive(Debug, Clone)]
pub struct RepairConfig {
    /// Bytes that repair reads and writes per second at most, all disks together.
    pub bytes_per_s: u64,
    /// Chunks in work at once, by the census and by the queue each: small ones wait for disks, and share their syncs.
    pub chunks_in_flight: usize,
    /// Memory for shards in work, of the census and the queue together. A 4+2 chunk takes k+m shards of 2 MiB.
    pub memory_bytes: u64,
    /// How long a disk may take for one answer. A pass goes on without one that takes longer.
    pub answer_within: Duration,
    /// How often a full census runs if nothing else asks for one.
    pub census_every: Duration,
    /// How often the repair queue and the doomed blobs are looked at.
    pub pass_every: Duration,
    /// How often every disk is searched for orphans.
    pub orphans_every: Duration,
    /// How often the disks are asked how they are.
    pub disks_every: Duration,
    /// First pause before a blob of the queue, a disk that did not delete or an incomplete census is tried again. It
    /// doubles up to a quarter of an hour, for deletes up to half a minute.
    pub retry_after: Duration,
}

impl Default for RepairConfig {
    fn default() -> Self {
        Self {
            bytes_per_s: 256 << 20,
            chunks_in_flight: 16,
            memory_bytes: 64 << 20,
            answer_within: Duration::from_secs(60),
            census_every: Duration::from_secs(24 * 3600),
            pass_every: Duration::from_secs(2),
            orphans_every: Duration::from_secs(600),
            disks_every: Duration::from_secs(1),
            retry_after: Duration::from_secs(5),
        }
    }
}

impl RepairConfig {
    /// The memory budget in the semaphore's unit.
    pub(crate) fn memory_kib(&self) -> u32 {
        u32::try_from(self.memory_bytes.div_ceil(1024)).unwrap_or(u32::MAX).clamp(1, MEMORY_KIB_MAX)
    }
}

/// Half of what a semaphore of tokio's can count on a 32-bit machine: 256 GiB.
const MEMORY_KIB_MAX: u32 = 1 << 28;

/// Why a pass ended early. It is tried again.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// Metadata did not answer.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// A disk refused.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// The code refused what it was given: a bug.
    #[error(transparent)]
    Code(#[from] valv_erasure::ErasureError),
    /// The service is stopping.
    #[error("repair is stopping")]
    Stopped,
}

/// What repair has done and found.
#[derive(Debug, Clone, Default)]
pub struct RepairStatus {
    /// The last census that ended.
    pub last_census: Option<Census>,
    /// Whether it found everything, no disk has changed since it began, and nothing waits for repair.
    pub healthy: bool,
    /// Blobs waiting for repair when the queue was last read.
    pub queue: u64,
    /// Shards written since the start.
    pub shards_rebuilt: u64,
    /// Their bytes.
    pub bytes_rebuilt: u64,
}

pub(crate) struct Metrics {
    pub(crate) shards_rebuilt: IntCounter,
    pub(crate) bytes_rebuilt: IntCounter,
    pub(crate) chunks_lost: IntCounter,
    pub(crate) blobs_deleted: IntCounter,
    pub(crate) orphans_deleted: IntCounter,
    pub(crate) queue: IntGauge,
    missing: IntGauge,
    unrepairable: IntGauge,
    healthy: IntGauge,
}

impl Metrics {
    fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        Ok(Self {
            shards_rebuilt: counter("valv_repair_shards_rebuilt_total", "Shards written by repair")?,
            bytes_rebuilt: counter("valv_repair_bytes_rebuilt_total", "Payload bytes written by repair")?,
            chunks_lost: counter("valv_repair_chunks_lost_total", "Times a chunk was found with too few good shards")?,
            blobs_deleted: counter("valv_repair_blobs_deleted_total", "Doomed blobs deleted on every disk")?,
            orphans_deleted: counter(
                "valv_repair_orphan_shards_deleted_total",
                "Shards of unfinished uploads deleted",
            )?,
            queue: gauge("valv_repair_queue_blobs", "Blobs waiting for repair")?,
            missing: gauge("valv_census_shards_not_present", "Shards that the last census did not find")?,
            unrepairable: gauge(
                "valv_census_chunks_lost",
                "Chunks that the last census found with too few good shards",
            )?,
            healthy: gauge("valv_census_healthy", "1 if the last census found every shard and nothing changed since")?,
        })
    }
}

/// What the passes share.
pub(crate) struct Shared {
    pub(crate) metadata: Arc<dyn Metadata>,
    pub(crate) shards: Arc<dyn ShardStore>,
    pub(crate) config: RepairConfig,
    pub(crate) metrics: Metrics,
    /// One permit for each KiB of shards in work.
    pub(crate) memory: Semaphore,
    /// Held for reading from the question whether a blob is referenced until its shards are written; taken for writing
    /// between learning that blobs are doomed and deleting their shards.
    pub(crate) writing: RwLock<()>,
    /// Until when the bandwidth budget is used up.
    pub(crate) due: Mutex<Instant>,
    pub(crate) state: Mutex<State>,
    /// Shards rebuilt of each blob since the ledgers were last told.
    pub(crate) rebuilt: Mutex<BTreeMap<BlobId, u64>>,
    pub(crate) census_wanted: Notify,
    pub(crate) queue_wanted: Notify,
    census_ended: watch::Sender<u64>,
}

#[derive(Default)]
pub(crate) struct State {
    disks: BTreeMap<DiskId, DiskSeen>,
    /// Grows with each change of a disk.
    disks_version: u64,
    /// Disks that took writes when they were last looked at.
    writable: BTreeSet<DiskId>,
    /// Grows with each change of a disk, and when one begins or ends to take writes.
    pub(crate) chances: u64,
    pub(crate) last_census: Option<Census>,
    /// `disks_version` when the last census began.
    census_of_version: u64,
    censuses_begun: u64,
    pub(crate) queue: u64,
}

/// What matters about a disk: whether its shards can have changed since it was last seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct DiskSeen {
    is_here: bool,
    opened: u64,
    formatted: [u8; 16],
}

/// Blobs of the queue looked at in one pass; those that wait for a disk must not hide those that don't.
pub(crate) const QUEUE_PAGE: u32 = 10_000;
/// Longest pause before a blob of the queue or an incomplete census is tried again.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(15 * 60);
/// Longest pause while a disk refuses deletes: the others' space must not wait for it long.
const DOOMED_BACKOFF_MAX: Duration = Duration::from_secs(30);
/// An incomplete census is not repeated before this many times as long as it took: it may be of millions of blobs.
const CENSUS_REST: u32 = 4;
/// The first search for orphans comes this soon after the start.
const FIRST_ORPHANS_AFTER: Duration = Duration::from_secs(60);
/// Repaired blobs told together: as many as a record may name.
const REPAIRS_PER_RECORD: usize = 256;
/// Corrupt shards reported together in one commit.
const REPORTS_PER_COMMIT: usize = 256;

/// Census, repair and reclaim, running.
pub struct RepairService {
    shared: Arc<Shared>,
    cancel: CancellationToken,
    tasks: tokio::sync::Mutex<JoinSet<()>>,
}

impl RepairService {
    /// Starts the passes. `reports` brings the keys of shards that disks of this process found damaged.
    pub fn start(
        metadata: Arc<dyn Metadata>,
        shards: Arc<dyn ShardStore>,
        reports: Option<mpsc::Receiver<ShardKey>>,
        config: RepairConfig,
        registry: &Registry,
    ) -> Result<Arc<Self>, prometheus::Error> {
        let shared = Arc::new(Shared {
            metadata,
            shards,
            metrics: Metrics::register(registry)?,
            memory: Semaphore::new(config.memory_kib() as usize),
            writing: RwLock::new(()),
            config,
            due: Mutex::new(Instant::now()),
            state: Mutex::default(),
            rebuilt: Mutex::default(),
            census_wanted: Notify::new(),
            queue_wanted: Notify::new(),
            census_ended: watch::Sender::new(0),
        });
        let cancel = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let mut run = |task: futures_util::future::BoxFuture<'static, ()>| {
            let stopped = cancel.clone();
            // Every step of a pass may be dropped: puts and deletes are harmless when they are repeated.
            tasks.spawn(async move {
                tokio::select! {
                    () = stopped.cancelled() => {}
                    () = task => {}
                }
            });
        };
        run(Box::pin(shared.clone().watch_disks()));
        run(Box::pin(shared.clone().run_census()));
        run(Box::pin(shared.clone().run_queue()));
        run(Box::pin(shared.clone().run_doomed()));
        run(Box::pin(shared.clone().run_orphans()));
        if let Some(reports) = reports {
            run(Box::pin(shared.clone().take_reports(reports)));
        }
        Ok(Arc::new(Self { shared, cancel, tasks: tokio::sync::Mutex::new(tasks) }))
    }

    /// What repair has done and found. The queue and the disks are asked anew, so that damage which was found a moment
    /// ago is not passed over.
    pub async fn status(&self) -> Result<RepairStatus, RepairError> {
        let queue = self.shared.metadata.list_repairs(Limit { limit: QUEUE_PAGE }).await?.len() as u64;
        self.shared.see_disks().await?;
        let mut state = self.shared.state.lock();
        state.queue = queue;
        Ok(RepairStatus {
            last_census: state.last_census,
            healthy: state.is_healthy(),
            queue,
            shards_rebuilt: self.shared.metrics.shards_rebuilt.get(),
            bytes_rebuilt: self.shared.metrics.bytes_rebuilt.get(),
        })
    }

    /// Waits for a census that begins after this call, and returns what it found.
    pub async fn census_now(&self) -> Result<Census, RepairError> {
        let mut ended = self.shared.census_ended.subscribe();
        let begun_before = self.shared.state.lock().censuses_begun;
        self.shared.census_wanted.notify_one();
        tokio::select! {
            () = self.cancel.cancelled() => return Err(RepairError::Stopped),
            ended = ended.wait_for(|&number| number > begun_before) => drop(ended.map_err(|_| RepairError::Stopped)?),
        }
        self.shared.state.lock().last_census.ok_or(RepairError::Stopped)
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Stops all passes and waits for them.
    pub async fn stop(&self) {
        self.cancel.cancel();
        let mut tasks = self.tasks.lock().await;
        while tasks.join_next().await.is_some() {}
    }
}

impl State {
    fn is_healthy(&self) -> bool {
        self.queue == 0
            && self.census_of_version == self.disks_version
            && self.last_census.is_some_and(|census| census.is_complete())
    }
}

impl Shared {
    /// Notices disks that came, went or were initialised anew.
    async fn watch_disks(self: Arc<Self>) {
        loop {
            if let Err(error) = self.see_disks().await {
                tracing::debug!(%error, "the disks could not be asked");
            }
            tokio::time::sleep(self.config.disks_every).await;
        }
    }

    async fn see_disks(&self) -> Result<(), RepairError> {
        let disks = self.shards.disks().await?;
        let seen = disks.iter().map(|disk| {
            let is_here = disk.state != DiskState::Absent;
            (disk.disk, DiskSeen { is_here, opened: disk.opened, formatted: disk.formatted })
        });
        let seen: BTreeMap<_, _> = seen.collect();
        let writable: BTreeSet<DiskId> =
            disks.iter().filter(|disk| disk.state == DiskState::Online).map(|disk| disk.disk).collect();
        let mut state = self.state.lock();
        let has_changed = state.disks != seen;
        if has_changed {
            state.disks = seen;
            state.disks_version += 1;
        }
        if has_changed || state.writable != writable {
            state.writable = writable;
            // What was put off may have become possible.
            state.chances += 1;
            self.queue_wanted.notify_one();
            if has_changed || state.last_census.is_some_and(|census| !census.is_complete()) {
                self.census_wanted.notify_one();
            }
        }
        self.metrics.healthy.set(i64::from(state.is_healthy()));
        Ok(())
    }

    /// One census after the other: when one is wanted, when one is due, and again soon while one was incomplete.
    async fn run_census(self: Arc<Self>) {
        let mut backoff = self.config.retry_after;
        let mut pause = self.config.census_every;
        loop {
            tokio::select! {
                () = self.census_wanted.notified() => backoff = self.config.retry_after,
                () = tokio::time::sleep(pause) => {}
            }
            let (number, version) = {
                let mut state = self.state.lock();
                state.censuses_begun += 1;
                (state.censuses_begun, state.disks_version)
            };
            let begun = Instant::now();
            pause = match self.census().await {
                Ok(census) => {
                    let is_complete = census.is_complete();
                    let not_present = census.shards_expected - census.shards_present;
                    self.metrics.missing.set(i64::try_from(not_present).unwrap_or(i64::MAX));
                    self.metrics.unrepairable.set(i64::try_from(census.chunks_lost).unwrap_or(i64::MAX));
                    let mut state = self.state.lock();
                    state.last_census = Some(census);
                    state.census_of_version = version;
                    // A disk that returns asks for a census itself.
                    let is_waiting = census.only_waits_for_disks() && state.disks.values().any(|disk| !disk.is_here);
                    drop(state);
                    tracing::info!(?census, is_complete, "a census has ended");
                    self.census_ended.send_replace(number);
                    if is_complete || is_waiting {
                        self.config.census_every
                    } else {
                        backoff.max(begun.elapsed() * CENSUS_REST)
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a census was cut short");
                    backoff.max(begun.elapsed())
                }
            };
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Works the repair queue off.
    async fn run_queue(self: Arc<Self>) {
        let mut waiting = Waiting::default();
        loop {
            tokio::select! {
                () = self.queue_wanted.notified() => {}
                () = tokio::time::sleep(self.config.pass_every) => {}
            }
            if let Err(error) = self.work_queue(&mut waiting).await {
                tracing::warn!(%error, "the repair queue could not be worked off");
                tokio::time::sleep(self.config.retry_after).await;
            }
        }
    }

    async fn run_doomed(self: Arc<Self>) {
        let mut backoff = self.config.pass_every;
        let mut pause = backoff;
        loop {
            tokio::time::sleep(pause).await;
            (pause, backoff) = match self.delete_doomed().await {
                Ok(pass) if pass.refused > 0 => (backoff, (backoff * 2).min(DOOMED_BACKOFF_MAX)),
                // A full list made room for more.
                Ok(pass) if pass.is_full && pass.finished > 0 => (Duration::ZERO, self.config.pass_every),
                Ok(_) => (self.config.pass_every, self.config.pass_every),
                Err(error) => {
                    tracing::warn!(%error, "doomed blobs could not be deleted");
                    (backoff.max(self.config.retry_after), (backoff * 2).min(DOOMED_BACKOFF_MAX))
                }
            };
        }
    }

    async fn run_orphans(self: Arc<Self>) {
        let mut pause = self.config.orphans_every.min(FIRST_ORPHANS_AFTER);
        loop {
            tokio::time::sleep(pause).await;
            pause = self.config.orphans_every;
            if let Err(error) = self.delete_orphans().await {
                tracing::warn!(%error, "the search for orphans was cut short");
            }
        }
    }

    /// Queues what the disks report as damaged.
    async fn take_reports(self: Arc<Self>, mut reports: mpsc::Receiver<ShardKey>) {
        let mut batch = Vec::with_capacity(REPORTS_PER_COMMIT);
        while reports.recv_many(&mut batch, REPORTS_PER_COMMIT).await > 0 {
            let blobs: BTreeSet<BlobId> =
                batch.drain(..).filter(|key| key.pool != SYSTEM_POOL).map(|key| key.blob).collect();
            if blobs.is_empty() {
                continue;
            }
            match self.metadata.queue_repair(BlobIds { blobs: blobs.into_iter().collect() }).await {
                Ok(_) => self.queue_wanted.notify_one(),
                // The shards stay quarantined on their disks, so the next scan of those finds them.
                Err(error) => tracing::warn!(%error, "damaged shards could not be queued for repair"),
            }
        }
    }

    /// Tells the ledgers what was rebuilt since the last time. What could not be told is told the next time; what a crash
    /// lets be forgotten in between is in no ledger.
    pub(crate) async fn tell_ledgers(&self) -> Result<(), RepairError> {
        let mut rebuilt = std::mem::take(&mut *self.rebuilt.lock());
        while !rebuilt.is_empty() {
            let batch: Vec<RepairedBlob> = rebuilt
                .iter()
                .take(REPAIRS_PER_RECORD)
                .map(|(blob, shards)| RepairedBlob { blob: *blob, shards: *shards })
                .collect();
            let note = NoteRepairs { commit: CommitId::random(), repaired: batch.clone() };
            if let Err(error) = self.metadata.note_repairs(note).await {
                let mut later = self.rebuilt.lock();
                rebuilt.into_iter().for_each(|(blob, shards)| *later.entry(blob).or_default() += shards);
                return Err(error.into());
            }
            for told in &batch {
                rebuilt.remove(&told.blob);
            }
        }
        Ok(())
    }

    /// Disks that were away when they were last looked at.
    pub(crate) fn disks_away(&self) -> BTreeSet<DiskId> {
        let state = self.state.lock();
        state.disks.iter().filter(|(_, seen)| !seen.is_here).map(|(disk, _)| *disk).collect()
    }
}
