//! The data path: bodies to sealed, coded, placed shards, and back.
//!
//! [`DataPath::write_blob`] takes plaintext and returns when every shard is durable; [`DataPath::read_blob`] yields only bytes
//! that were verified and opened. Nothing here makes anything visible: that is the metadata commit of the caller, who
//! then tells the [`BlobGuard`] what became of it.
//!
//! Invariants:
//! - A byte that fails authentication, or stands behind one that does, is never yielded.
//! - Memory is bounded by [`DataPathConfig::memory_budget_bytes`], whatever clients do.
//! - The low-water mark never passes a blob that may still be committed.

mod cluster;
mod config;
mod error;
mod fetch;
mod guard;
mod hedge;
mod incarnation;
mod keys;
mod memory;
mod metrics;
mod reader;
mod repair;
mod segment;
mod store;
mod tasks;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod writer;

pub use config::DataPathConfig;
pub use error::DataError;
pub use guard::BlobGuard;
pub use keys::ProjectKeys;
pub use reader::{BlobStream, TransferCheck};
pub use writer::{BlobWriter, FinishedBlob};

use bytes::Bytes;
use cluster::Cluster;
use hedge::Hedging;
use incarnation::Incarnations;
use memory::Memory;
use metrics::DataMetrics;
use repair::RepairReports;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tasks::Tasks;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use valv_codec::CustomerKey;
use valv_metadata_api::{BlobRecord, Metadata};
use valv_shard_api::ShardStore;
use valv_types::{IncarnationId, Layout, PoolId, ProjectId};

/// How often free buffers and ended key leases are let go.
const SWEEP_INTERVAL: Duration = Duration::from_secs(2);

/// Writes and reads blobs. One per gateway process.
pub struct DataPath {
    shards: Arc<dyn ShardStore>,
    config: DataPathConfig,
    metrics: Arc<DataMetrics>,
    memory: Arc<Memory>,
    keys: ProjectKeys,
    cluster: Cluster,
    incarnations: Arc<Incarnations>,
    repairs: Arc<RepairReports>,
    hedging: Hedging,
    coding: Semaphore,
    tasks: Arc<Tasks>,
}

impl DataPath {
    /// A data path over these services. Nothing is asked of them before [`Self::start`].
    pub fn new(
        metadata: Arc<dyn Metadata>,
        shards: Arc<dyn ShardStore>,
        config: DataPathConfig,
        registry: &prometheus::Registry,
    ) -> Arc<Self> {
        let metrics = DataMetrics::new(registry);
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Arc::new(Self {
            memory: Memory::new(config.memory_budget_bytes, config.memory_wait, Arc::clone(&metrics)),
            keys: ProjectKeys::new(Arc::clone(&metadata)),
            cluster: Cluster::new(Arc::clone(&metadata), Arc::clone(&shards)),
            incarnations: Arc::new(Incarnations::new(Arc::clone(&metadata))),
            repairs: Arc::new(RepairReports::new(metadata, Arc::clone(&metrics))),
            hedging: Hedging::new(&config),
            coding: Semaphore::new(config.coding_jobs_max.unwrap_or(processors).max(1)),
            tasks: Arc::new(Tasks::new()),
            shards,
            config,
            metrics,
        })
    }

    /// Registers this process's incarnation, reads map and disk states, and starts the loops that keep them fresh until
    /// `cancel` is cancelled. If metadata can't be reached, it goes on trying: until then writes get
    /// [`DataError::NotReady`].
    pub async fn start(self: &Arc<Self>, cancel: CancellationToken) {
        self.tasks.tie_to(cancel);
        if let Err(error) = self.incarnations.beat().await {
            tracing::warn!(%error, "this gateway could not be registered yet");
        }
        if let Err(error) = self.cluster.refresh_map().await {
            tracing::warn!(%error, "the cluster map could not be read yet");
        }
        self.cluster.refresh_disks().await;
        let tasks = &self.tasks;
        let heartbeat = self.config.heartbeat_interval;
        tasks.spawn(Arc::clone(&self.incarnations).run(Arc::clone(tasks), heartbeat));
        tasks.spawn(Arc::clone(&self.repairs).run(Arc::clone(tasks)));
        let (map, disks) = (self.config.map_refresh_interval, self.config.disk_refresh_interval);
        self.every(map, |path| async move {
            if let Err(error) = path.cluster.refresh_map().await {
                tracing::warn!(%error, "the cluster map could not be refreshed");
            }
        });
        self.every(disks, |path| async move { path.cluster.refresh_disks().await });
        self.every(SWEEP_INTERVAL, |path| async move {
            path.memory.trim();
            path.keys.sweep();
        });
    }

    fn every<F>(self: &Arc<Self>, interval: Duration, work: impl Fn(Arc<Self>) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let path = Arc::clone(self);
        self.tasks.spawn(async move {
            loop {
                tokio::select! {
                    () = path.tasks.stopped() => return,
                    () = tokio::time::sleep(interval) => {}
                }
                work(Arc::clone(&path)).await;
            }
        });
    }

    /// Ends the loops and waits, at most `wait`, for what still runs in the background: deletes of uploads that were given up,
    /// and puts that outlived their upload. Call it when no request runs any more. Whether all of it ended.
    pub async fn drain(&self, wait: Duration) -> bool {
        self.tasks.drain(wait).await
    }

    /// Begins a blob of `project`, written in `layout`. `expected_len` is the plaintext's exact length if it is known: it
    /// sizes the buffers, and more bytes than that are refused (fewer are not; the caller compares with the client's
    /// word).
    ///
    /// Refuses at once if too few disks take writes, and waits for memory at most `memory_wait`.
    pub async fn write_blob(
        self: &Arc<Self>,
        project: ProjectId,
        layout: Layout,
        expected_len: Option<u64>,
    ) -> Result<BlobWriter, DataError> {
        BlobWriter::begin(Arc::clone(self), project, layout, expected_len, None).await
    }

    /// The same for a blob that opens only with the customer's key as well. `None` is [`Self::write_blob`].
    pub async fn write_blob_for(
        self: &Arc<Self>,
        project: ProjectId,
        layout: Layout,
        expected_len: Option<u64>,
        customer: Option<&CustomerKey>,
    ) -> Result<BlobWriter, DataError> {
        BlobWriter::begin(Arc::clone(self), project, layout, expected_len, customer).await
    }

    /// The plaintext of `range` of a blob. `inline` is its sealed frame if it lies in metadata. Returns when the first bytes
    /// are there and verified, so that an error can still become a status code.
    pub async fn read_blob(
        self: &Arc<Self>,
        project: ProjectId,
        blob: &BlobRecord,
        inline: Option<Bytes>,
        range: Range<u64>,
    ) -> Result<BlobStream, DataError> {
        BlobStream::open(Arc::clone(self), project, blob, inline, range, None).await
    }

    /// The same for a blob that was written with a customer's key. `None` is [`Self::read_blob`].
    ///
    /// # Errors
    /// [`DataError::Key`] if the blob was written with another key, with none, or with one and none is given. Data keys
    /// are unwrapped for each read and never held, so every read proves its key anew.
    pub async fn read_blob_for(
        self: &Arc<Self>,
        project: ProjectId,
        blob: &BlobRecord,
        inline: Option<Bytes>,
        range: Range<u64>,
        customer: Option<&CustomerKey>,
    ) -> Result<BlobStream, DataError> {
        BlobStream::open(Arc::clone(self), project, blob, inline, range, customer).await
    }

    /// Refuses what makes metadata grow without writing a blob (copies, new uploads) while the disks of `pool` are full.
    pub async fn check_room(&self, pool: PoolId) -> Result<(), DataError> {
        self.cluster.check_room(pool).await
    }

    /// The layout that new blobs of `pool` are written with.
    pub async fn layout(&self, pool: PoolId) -> Result<Layout, DataError> {
        self.cluster.layout(pool).await
    }

    /// The incarnation that new blobs are written under, once there is one.
    pub fn incarnation(&self) -> Option<IncarnationId> {
        self.incarnations.current().map(|current| current.id)
    }

    /// A metadata commit was refused with `Fenced`: registers anew at once instead of at the next heartbeat.
    pub fn note_fenced(&self) {
        self.incarnations.beat_now();
    }

    /// The project keys on loan to this process.
    pub fn keys(&self) -> &ProjectKeys {
        &self.keys
    }
}
