//! A node: several disks, any of which may be away, behind one [`ShardStore`].
//!
//! Every second each folder is looked at. One that vanished, was emptied or replaced is let go of at once, so that
//! nothing is written into an empty mount point; one that comes back with the right superblock is opened again.

use crate::config::{DiskConfig, NodeConfig};
use crate::engine::{
    CorruptReport, Disk, DiskContext, ExpectedDisk, OpenError, REPORTS_MAX, ScrubOutcome, VerifiedBlocks,
    absent_status, is_same, read_superblock,
};
use crate::metrics::{DiskMetrics, NodeMetrics};
use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use parking_lot::Mutex;
use prometheus::Registry;
use rocksdb::Cache;
use std::collections::HashMap;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use valv_shard_api::{DiskState, DiskStatus, NewShard, ShardError, ShardStat, ShardStore, VerifiedShard};
use valv_types::{DiskId, ShardKey};

/// Why a node did not start. Disks that are away are no reason.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A knob has a value that can't work.
    #[error("storage: {0}")]
    Config(&'static str),
    /// Two disks of the configuration have the same id.
    #[error("storage: disk {0} is configured twice")]
    Duplicate(DiskId),
    /// The metrics could not be registered: the registry has them already.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
}

/// The disks of one node. Ends cleanly only through [`StorageNode::shutdown`].
pub struct StorageNode {
    slots: HashMap<DiskId, Arc<Slot>>,
    /// In the order of the configuration.
    order: Vec<DiskId>,
    reports: Mutex<Option<mpsc::Receiver<CorruptReport>>>,
    stop: CancellationToken,
    watches: tokio::sync::Mutex<JoinSet<()>>,
}

/// One configured disk, present or not.
struct Slot {
    config: DiskConfig,
    expected: ExpectedDisk,
    context: DiskContext,
    disk: ArcSwapOption<Disk>,
    away: Mutex<Away>,
}

/// Why a disk is not there.
#[derive(Default)]
struct Away {
    reason: String,
    /// `opened` of the last time that it was: it must never go back.
    opened: u64,
}

/// A directory as the kernel knows it: another file system mounted over it is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FolderIdentity {
    device: u64,
    inode: u64,
}

impl FolderIdentity {
    fn of(path: &Path) -> std::io::Result<Self> {
        let meta = std::fs::metadata(path)?;
        Ok(Self { device: meta.dev(), inode: meta.ino() })
    }
}

impl StorageNode {
    /// Opens every disk that is there and watches for the others. Returns when all present disks are recovered.
    pub async fn start(config: NodeConfig, registry: &Registry) -> Result<Arc<Self>, NodeError> {
        config.engine.check().map_err(NodeError::Config)?;
        if config.presence_interval.is_zero() {
            return Err(NodeError::Config("presence_interval must not be 0"));
        }
        let metrics = NodeMetrics::register(registry)?;
        let cache = Cache::new_lru_cache(config.index_cache_bytes);
        let (sender, reports) = mpsc::channel(REPORTS_MAX);
        let stop = CancellationToken::new();
        let mut slots = HashMap::new();
        let mut order = Vec::with_capacity(config.disks.len());
        for disk in config.disks {
            let id = disk.disk;
            let disk_metrics: DiskMetrics = metrics.disk(&disk.name);
            let slot = Slot {
                expected: ExpectedDisk { cluster: config.cluster, disk: id },
                context: DiskContext {
                    config: config.engine.clone(),
                    cache: cache.clone(),
                    metrics: disk_metrics,
                    reports: sender.clone(),
                },
                config: disk,
                disk: ArcSwapOption::empty(),
                away: Mutex::default(),
            };
            if slots.insert(id, Arc::new(slot)).is_some() {
                return Err(NodeError::Duplicate(id));
            }
            order.push(id);
        }
        let mut watches = JoinSet::new();
        let mut opening = JoinSet::new();
        for slot in slots.values().cloned() {
            opening.spawn(async move {
                let folder = slot.try_open().await;
                (slot, folder)
            });
        }
        while let Some(opened) = opening.join_next().await {
            // Opening does not panic; a slot whose task was lost would only stay absent.
            let Ok((slot, folder)) = opened else { continue };
            watches.spawn(slot.watch(folder, config.presence_interval, stop.clone()));
        }
        Ok(Arc::new(Self {
            slots,
            order,
            reports: Mutex::new(Some(reports)),
            stop,
            watches: tokio::sync::Mutex::new(watches),
        }))
    }

    /// The reports of corrupt shards, for the one who repairs: `None` if they have been taken before.
    pub fn corrupt_reports(&self) -> Option<mpsc::Receiver<CorruptReport>> {
        self.reports.lock().take()
    }

    /// Verifies every live shard of a disk now.
    pub async fn scrub_now(&self, disk: DiskId) -> Result<ScrubOutcome, ShardError> {
        self.present(disk)?.scrub_now().await
    }

    /// Reclaims what is worth it on a disk now. Returns how many extents were given back.
    pub async fn reclaim_now(&self, disk: DiskId) -> Result<usize, ShardError> {
        self.present(disk)?.reclaim_now().await
    }

    /// Writes what is queued, flushes every index, and lets go of the folders. Requests after it find the disks away.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        let mut watches = self.watches.lock().await;
        while watches.join_next().await.is_some() {}
        let mut closing = JoinSet::new();
        for slot in self.slots.values() {
            if let Some(disk) = slot.leave("the node is shutting down".to_owned()) {
                closing.spawn(async move { disk.close().await });
            }
        }
        while closing.join_next().await.is_some() {}
    }

    /// Blocks of a shard with their hashes, for the service.
    pub(crate) async fn read_blocks(
        &self,
        disk: DiskId,
        key: ShardKey,
        range: Range<u32>,
    ) -> Result<VerifiedBlocks, ShardError> {
        self.present(disk)?.read_blocks(key, range).await
    }

    fn present(&self, disk: DiskId) -> Result<Arc<Disk>, ShardError> {
        self.slots.get(&disk).and_then(|slot| slot.disk.load_full()).ok_or(ShardError::Away { disk })
    }
}

impl Slot {
    /// Opens the disk if its folder is there. Returns the folder as the kernel knows it.
    async fn try_open(self: &Arc<Self>) -> Option<FolderIdentity> {
        let slot = self.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let path = &slot.config.path;
            let disk = Disk::open(path, slot.expected, slot.context.clone())?;
            let folder = FolderIdentity::of(path).map_err(|error| OpenError::Folder(error.into()))?;
            Ok::<_, OpenError>((disk, folder))
        })
        .await;
        let reason = match opened {
            Ok(Ok((disk, folder))) => {
                tracing::info!(disk = %self.config.disk, path = %self.config.path.display(), "disk opened");
                self.context.metrics.set_state(DiskState::Online);
                self.disk.store(Some(disk));
                return Some(folder);
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        self.context.metrics.set_state(DiskState::Absent);
        let mut away = self.away.lock();
        // Once for each reason, not once a second.
        if away.reason != reason {
            tracing::warn!(disk = %self.config.disk, path = %self.config.path.display(), %reason, "disk is absent");
            away.reason = reason;
        }
        None
    }

    /// Takes the disk out of service; the caller ends its engine.
    fn leave(&self, reason: String) -> Option<Arc<Disk>> {
        let disk = self.disk.swap(None)?;
        let mut away = self.away.lock();
        away.reason = reason;
        away.opened = away.opened.max(disk.superblock().opened);
        self.context.metrics.set_state(DiskState::Absent);
        Some(disk)
    }

    /// Looks at the folder again and again until the node stops.
    async fn watch(self: Arc<Self>, mut folder: Option<FolderIdentity>, interval: Duration, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(interval) => {}
            }
            let Some(disk) = self.disk.load_full() else {
                folder = self.try_open().await;
                continue;
            };
            let slot = self.clone();
            let present = disk.clone();
            let looked = tokio::task::spawn_blocking(move || slot.look(&present, folder)).await;
            let reason = match looked {
                Ok(None) => continue,
                Ok(Some(reason)) => reason,
                Err(error) => error.to_string(),
            };
            tracing::error!(disk = %self.config.disk, %reason, "disk is let go");
            self.leave(reason);
            disk.abandon().await;
        }
    }

    /// Why the disk can't be used any more, if so.
    fn look(&self, disk: &Disk, folder: Option<FolderIdentity>) -> Option<String> {
        if disk.is_index_broken() {
            return Some("the index has failed and will be rebuilt".to_owned());
        }
        let path = &self.config.path;
        match FolderIdentity::of(path) {
            Ok(found) if Some(found) == folder => {}
            Ok(_) => return Some("the folder was replaced by another".to_owned()),
            Err(error) => return Some(format!("the folder is gone: {error}")),
        }
        match read_superblock(path) {
            Ok(found) if is_same(disk, &found) => None,
            Ok(_) => Some("the folder now holds another disk".to_owned()),
            Err(error) => Some(error.to_string()),
        }
    }
}

#[async_trait]
impl ShardStore for StorageNode {
    async fn put(&self, disk: DiskId, shard: NewShard) -> Result<(), ShardError> {
        self.present(disk)?.put(shard).await
    }

    async fn read(&self, disk: DiskId, key: ShardKey, range: Range<u32>) -> Result<VerifiedShard, ShardError> {
        self.present(disk)?.read(key, range).await
    }

    async fn stat(&self, disk: DiskId, keys: Vec<ShardKey>) -> Result<Vec<Option<ShardStat>>, ShardError> {
        self.present(disk)?.stat(keys).await
    }

    async fn delete(&self, disk: DiskId, keys: Vec<ShardKey>) -> Result<(), ShardError> {
        self.present(disk)?.delete(keys).await
    }

    async fn list(&self, disk: DiskId, from: ShardKey, limit: usize) -> Result<Vec<ShardStat>, ShardError> {
        self.present(disk)?.list(from, limit).await
    }

    async fn disks(&self) -> Result<Vec<DiskStatus>, ShardError> {
        let slots = self.order.iter().filter_map(|id| self.slots.get(id));
        let status = |slot: &Arc<Slot>| match slot.disk.load_full() {
            Some(disk) => disk.status(),
            None => {
                let away = slot.away.lock();
                absent_status(slot.config.disk, &slot.config.name, away.reason.clone(), away.opened)
            }
        };
        Ok(slots.map(status).collect())
    }
}
