//! Deleting shards: of doomed blobs, on every disk, and of orphans.

use crate::plan::ChunkPlaces;
use crate::service::{RepairError, Shared};
use std::collections::{BTreeMap, BTreeSet};
use valv_metadata_api::{BlobIds, DoomedAnswer, DoomedBlob, Empty, Limit};
use valv_shard_api::STAT_KEYS_MAX;
use valv_types::{BlobId, ChunkId, DiskId, PoolId, SYSTEM_POOL, ShardKey};

/// Doomed blobs taken at once.
const DOOMED_PER_PASS: u32 = 512;
/// Shards listed at once by the orphan scan.
const ORPHAN_PAGE: usize = 1024;

impl Shared {
    /// Deletes the shards of doomed blobs. A blob's tombstone stays until every disk of its groups has answered: a disk
    /// that is away when this runs deletes them when it is back. Returns how many blobs were finished.
    pub(crate) async fn delete_doomed(&self) -> Result<u64, RepairError> {
        let doomed = self.metadata.list_doomed(Limit { limit: DOOMED_PER_PASS }).await?;
        if doomed.is_empty() {
            return Ok(0);
        }
        let map = self.metadata.get_cluster_map(Empty {}).await?;
        let mut by_disk: BTreeMap<DiskId, Vec<ShardKey>> = BTreeMap::new();
        let mut owed: BTreeMap<BlobId, BTreeSet<DiskId>> = BTreeMap::new();
        for blob in &doomed {
            let Some(shards) = shards_of(&map, blob) else {
                tracing::error!(blob = %blob.blob, "the cluster map does not place a doomed blob");
                continue;
            };
            let disks = owed.entry(blob.blob).or_default();
            for (disk, key) in shards.into_iter().filter(|(disk, _)| !blob.answered.contains(disk)) {
                by_disk.entry(disk).or_default().push(key);
                disks.insert(disk);
            }
        }
        let mut answered: BTreeSet<(BlobId, DiskId)> = BTreeSet::new();
        for (disk, keys) in by_disk {
            let mut failed: BTreeSet<BlobId> = BTreeSet::new();
            for batch in keys.chunks(STAT_KEYS_MAX) {
                if let Err(error) = self.shards.delete(disk, batch.to_vec()).await {
                    tracing::debug!(%disk, %error, "a disk did not delete; its tombstones stay");
                    failed.extend(batch.iter().map(|key| key.blob));
                }
            }
            answered
                .extend(keys.iter().map(|key| key.blob).filter(|blob| !failed.contains(blob)).map(|blob| (blob, disk)));
        }
        let mut finished = 0;
        for blob in &doomed {
            let Some(disks) = owed.get(&blob.blob) else { continue };
            let now: Vec<DiskId> =
                disks.iter().copied().filter(|disk| answered.contains(&(blob.blob, *disk))).collect();
            let is_finished = now.len() == disks.len();
            if now.is_empty() && !is_finished {
                continue;
            }
            let answer = DoomedAnswer { blob: blob.blob, answered: now, finished: is_finished };
            self.metadata.answer_doomed(answer).await?;
            finished += u64::from(is_finished);
        }
        self.metrics.blobs_deleted.inc_by(finished);
        Ok(finished)
    }

    /// Looks at every shard of every disk for blobs that are orphans by metadata's rule, and deletes those.
    pub(crate) async fn delete_orphans(&self) -> Result<u64, RepairError> {
        let mut deleted = 0;
        for disk in self.shards.disks().await? {
            // Projects' pools come after the system's own, which is none of this scan's business.
            let mut from = ShardKey {
                pool: PoolId(SYSTEM_POOL.0 + 1),
                placement: 0,
                blob: BlobId::from_bytes([0; 16]),
                chunk: 0,
                shard: 0,
            };
            loop {
                let Ok(page) = self.shards.list(disk.disk, from, ORPHAN_PAGE).await else { break };
                let blobs: BTreeSet<BlobId> = page.iter().map(|stat| stat.key.blob).collect();
                let asked = BlobIds { blobs: blobs.into_iter().collect() };
                let orphans: BTreeSet<BlobId> = self.metadata.find_orphans(asked).await?.blobs.into_iter().collect();
                let keys: Vec<ShardKey> =
                    page.iter().map(|stat| stat.key).filter(|key| orphans.contains(&key.blob)).collect();
                if !keys.is_empty() {
                    tracing::info!(disk = %disk.name, shards = keys.len(), "deleting shards of unfinished uploads");
                    deleted += keys.len() as u64;
                    self.shards.delete(disk.disk, keys).await?;
                }
                match page.last().and_then(|last| after(last.key)) {
                    Some(next) if page.len() == ORPHAN_PAGE => from = next,
                    _ => break,
                }
            }
        }
        self.metrics.orphans_deleted.inc_by(deleted);
        Ok(deleted)
    }
}

fn shards_of(map: &valv_metadata_api::ClusterMap, blob: &DoomedBlob) -> Option<Vec<(DiskId, ShardKey)>> {
    blob.layout.check().ok()?;
    let pool = map.pool(blob.layout.pool)?;
    let mut shards = Vec::new();
    for geometry in blob.layout.chunks(blob.len_bytes) {
        let chunk = ChunkId { blob: blob.blob, index: geometry.index };
        let places = ChunkPlaces::of(pool, &blob.layout, chunk, geometry)?;
        shards.extend(places.shards.into_iter().map(|place| (place.disk, place.key)));
    }
    Some(shards)
}

/// The smallest key after `key`: a shard index of 255 does not exist, so adding one never leaves the chunk.
fn after(key: ShardKey) -> Option<ShardKey> {
    Some(ShardKey { shard: key.shard.checked_add(1)?, ..key })
}
