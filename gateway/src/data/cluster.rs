//! What this process knows of the cluster: the placement map and which disks can be used. Both are hints that age; a
//! disk's own answer is what counts.

use super::error::DataError;
use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use valv_metadata_api::{ClusterMap, Empty, Metadata};
use valv_shard_api::{DiskState, ShardStore};
use valv_types::{ChunkId, DiskId, Epoch, Layout, PoolId, placement_hash};

/// The cached cluster map and disk states.
pub(super) struct Cluster {
    metadata: Arc<dyn Metadata>,
    shards: Arc<dyn ShardStore>,
    map: ArcSwapOption<ClusterMap>,
    asking_map: tokio::sync::Mutex<()>,
    /// `None` until the store has answered once: then every disk is tried.
    states: ArcSwapOption<HashMap<DiskId, DiskState>>,
    /// Disks that said they were away since the states were last asked for.
    away: Mutex<HashSet<DiskId>>,
}

/// Where one chunk's shards lie.
pub(super) struct ChunkPlace {
    /// The disk of each shard, in order.
    pub(super) disks: Vec<DiskId>,
    /// The epoch of the placement group.
    pub(super) epoch: Epoch,
}

impl Cluster {
    pub(super) fn new(metadata: Arc<dyn Metadata>, shards: Arc<dyn ShardStore>) -> Self {
        Self {
            metadata,
            shards,
            map: ArcSwapOption::empty(),
            asking_map: tokio::sync::Mutex::default(),
            states: ArcSwapOption::empty(),
            away: Mutex::default(),
        }
    }

    /// Asks for the map anew. Callers that come together share the work, not the answer.
    pub(super) async fn refresh_map(&self) -> Result<Arc<ClusterMap>, DataError> {
        let _one_at_a_time = self.asking_map.lock().await;
        let map = Arc::new(self.metadata.get_cluster_map(Empty {}).await?);
        self.map.store(Some(Arc::clone(&map)));
        Ok(map)
    }

    /// Asks for the disks' states anew. If the store can't say, the old states stand.
    pub(super) async fn refresh_disks(&self) {
        match self.shards.disks().await {
            Ok(disks) => {
                let states = disks.into_iter().map(|status| (status.disk, status.state)).collect();
                self.states.store(Some(Arc::new(states)));
                self.away.lock().clear();
            }
            Err(error) => tracing::warn!(%error, "the disks' states could not be read"),
        }
    }

    /// The map, with `pool` in it.
    async fn map_with(&self, pool: PoolId) -> Result<Arc<ClusterMap>, DataError> {
        if let Some(map) = self.map.load_full()
            && map.pool(pool).is_some()
        {
            return Ok(map);
        }
        self.refresh_map().await
    }

    /// Where the first `shards` shards of a chunk lie.
    pub(super) async fn place(&self, pool: PoolId, chunk: ChunkId, shards: u8) -> Result<ChunkPlace, DataError> {
        let map = self.map_with(pool).await?;
        let placement = placement_hash(chunk);
        let found = map.pool(pool).and_then(|pool| {
            let disks = (0..shards).map(|shard| pool.disk(placement, shard)).collect::<Option<Vec<_>>>()?;
            Some(ChunkPlace { disks, epoch: pool.group(placement)?.epoch })
        });
        found.ok_or(DataError::UnknownPool { pool })
    }

    /// The layout that new blobs of a pool are written with.
    pub(super) async fn layout(&self, pool: PoolId) -> Result<Layout, DataError> {
        let map = self.map_with(pool).await?;
        Ok(map.pool(pool).ok_or(DataError::UnknownPool { pool })?.layout)
    }

    /// The lowest epoch of a pool's groups.
    pub(super) async fn epoch_min(&self, pool: PoolId) -> Result<Epoch, DataError> {
        let map = self.map_with(pool).await?;
        Ok(map.pool(pool).ok_or(DataError::UnknownPool { pool })?.epoch_min())
    }

    /// Whether a read from this disk is worth trying first.
    pub(super) fn readable(&self, disk: DiskId) -> bool {
        !matches!(self.state(disk), DiskState::Absent)
    }

    /// Whether a write to this disk is worth trying.
    pub(super) fn writable(&self, disk: DiskId) -> bool {
        matches!(self.state(disk), DiskState::Online)
    }

    /// Refuses what takes room while so many disks are full that no blob could be written.
    ///
    /// Small bodies and records travel in metadata commits, whose mirror may use the disks' reserve, because a delete needs
    /// a commit too. Without this check they would eat the reserve up, and then nothing could be deleted any more.
    pub(super) async fn check_room(&self, pool: PoolId) -> Result<(), DataError> {
        let layout = self.layout(pool).await?;
        let states = self.states.load();
        let full = states.iter().flat_map(|states| states.values()).filter(|state| **state == DiskState::Full).count();
        let (slots, need) = (usize::from(layout.slots()), usize::from(layout.k) + 1);
        let have = slots.saturating_sub(full);
        if have < need { Err(DataError::NotEnoughDisks { have, need }) } else { Ok(()) }
    }

    fn state(&self, disk: DiskId) -> DiskState {
        if self.away.lock().contains(&disk) {
            return DiskState::Absent;
        }
        match &*self.states.load() {
            None => DiskState::Online,
            Some(states) => states.get(&disk).copied().unwrap_or(DiskState::Absent),
        }
    }

    /// A disk said that it is away: until the states are asked for again, nobody else needs to hear it from the disk.
    pub(super) fn note_away(&self, disk: DiskId) {
        self.away.lock().insert(disk);
    }
}
