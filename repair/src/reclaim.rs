//! Deleting shards: of doomed blobs, on every disk, and of orphans. Nothing else is ever deleted.

use crate::plan::ChunkPlaces;
use crate::service::{RepairError, Shared};
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use valv_metadata_api::{BlobIds, ClusterMap, DoomedAnswer, DoomedBlob, Empty, Limit};
use valv_shard_api::{DiskStatus, ShardStat};
use valv_types::{BlobId, ChunkId, DiskId, PoolId, SYSTEM_POOL, ShardKey};

/// Doomed blobs listed at once: as many as one call may bring, so that those which wait for a disk don't hide others.
/// What lies beyond is deleted by the orphan scan, and answered for when the disk is back.
const DOOMED_PAGE: u32 = 10_000;
/// Shards deleted before their blobs are answered for: with one more blob of the largest size, about a MiB of keys.
const DOOMED_KEYS: usize = 16 * 1024;
/// Answers on their way to metadata at once: they share its group commits.
const ANSWERS_IN_FLIGHT: usize = 16;
/// Shards listed at once by the orphan scan.
const ORPHAN_PAGE: usize = 1024;
/// Pause after each page: at most 10,000 shards a second, a few per cent of a processor.
const ORPHAN_PAUSE: Duration = Duration::from_millis(100);

/// How a pass over the doomed blobs went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct DoomedPass {
    /// Blobs that every disk has answered for.
    pub(crate) finished: u64,
    /// Whether the list was full, so that there may be more.
    pub(crate) is_full: bool,
    /// Disks that are there and refused.
    pub(crate) refused: u64,
}

impl Shared {
    /// Deletes the shards of doomed blobs. A blob's tombstone stays until every disk of its groups has answered: a disk
    /// that is away when this runs deletes them when it is back.
    pub(crate) async fn delete_doomed(&self) -> Result<DoomedPass, RepairError> {
        let doomed = self.metadata.list_doomed(Limit { limit: DOOMED_PAGE }).await?;
        let mut pass = DoomedPass { is_full: doomed.len() >= DOOMED_PAGE as usize, ..DoomedPass::default() };
        if doomed.is_empty() {
            return Ok(pass);
        }
        let map = self.metadata.get_cluster_map(Empty {}).await?;
        // A repair that asked for references before the doom writes its shards now. They are waited for, so that they are
        // among those which are deleted; one that asks from here on is told that there are none.
        drop(self.writing.write().await);
        let mut refusing = self.disks_away();
        let away = refusing.len();
        let mut batch: Vec<Owed> = Vec::new();
        let mut keys = 0;
        for blob in &doomed {
            if waits_only_for(&map, blob, &refusing) {
                continue;
            }
            let Some(owed) = owed_by(&map, blob) else {
                tracing::error!(blob = %blob.blob, "the cluster map does not place a doomed blob");
                continue;
            };
            keys += owed.values().map(Vec::len).sum::<usize>();
            batch.push(Owed { blob: blob.blob, keys: owed });
            if keys >= DOOMED_KEYS {
                pass.finished += self.delete_batch(std::mem::take(&mut batch), &mut refusing).await?;
                keys = 0;
            }
        }
        pass.finished += self.delete_batch(batch, &mut refusing).await?;
        pass.refused = (refusing.len() - away) as u64;
        self.metrics.blobs_deleted.inc_by(pass.finished);
        Ok(pass)
    }

    /// Deletes what these blobs are owed on all disks but the `refusing`, adds to those, and answers for the rest.
    async fn delete_batch(&self, blobs: Vec<Owed>, refusing: &mut BTreeSet<DiskId>) -> Result<u64, RepairError> {
        let mut by_disk: BTreeMap<DiskId, Vec<ShardKey>> = BTreeMap::new();
        for blob in &blobs {
            for (disk, keys) in blob.keys.iter().filter(|(disk, _)| !refusing.contains(disk)) {
                by_disk.entry(*disk).or_default().extend_from_slice(keys);
            }
        }
        let deletes = by_disk.iter().map(|(disk, keys)| async move { (*disk, self.delete(*disk, keys).await) });
        for (disk, deleted) in join_all(deletes).await {
            if let Err(error) = deleted {
                tracing::warn!(%disk, %error, "a disk did not delete; its tombstones stay");
                refusing.insert(disk);
            }
        }
        let answers = blobs.iter().filter_map(|blob| {
            let answered: Vec<DiskId> = blob.keys.keys().copied().filter(|disk| !refusing.contains(disk)).collect();
            let finished = answered.len() == blob.keys.len();
            (finished || !answered.is_empty()).then_some(DoomedAnswer { blob: blob.blob, answered, finished })
        });
        stream::iter(answers.collect::<Vec<_>>())
            .map(|answer| async move {
                let finished = u64::from(answer.finished);
                self.metadata.answer_doomed(answer).await?;
                Ok(finished)
            })
            .buffer_unordered(ANSWERS_IN_FLIGHT)
            .try_fold(0, |sum, finished| async move { Ok(sum + finished) })
            .await
    }

    /// Looks at every shard of every disk. Those of blobs that are orphans by metadata's rule are deleted; blobs of those
    /// that the disk holds in quarantine are queued for repair, should the report of them have been lost.
    pub(crate) async fn delete_orphans(&self) -> Result<u64, RepairError> {
        let mut deleted = 0;
        for disk in self.shards.disks().await? {
            deleted += self.scan_disk(&disk).await?;
        }
        Ok(deleted)
    }

    async fn scan_disk(&self, disk: &DiskStatus) -> Result<u64, RepairError> {
        // Projects' pools come after the system's own, which is none of this scan's business.
        let pool = PoolId(SYSTEM_POOL.0 + 1);
        let mut from = ShardKey { pool, placement: 0, blob: BlobId::from_bytes([0; 16]), chunk: 0, shard: 0 };
        let mut deleted = 0;
        loop {
            // A disk that is away or in trouble is looked at next time.
            let Ok(page) = self.list(disk.disk, from, ORPHAN_PAGE).await else { break };
            let Some(last) = page.last().map(|stat| stat.key) else { break };
            let blobs: BTreeSet<BlobId> = page.iter().map(|stat| stat.key.blob).collect();
            let asked = BlobIds { blobs: blobs.into_iter().collect() };
            let orphans: BTreeSet<BlobId> = self.metadata.find_orphans(asked).await?.blobs.into_iter().collect();
            let (of_orphans, others): (Vec<&ShardStat>, Vec<&ShardStat>) =
                page.iter().partition(|stat| orphans.contains(&stat.key.blob) && stat.key.pool != SYSTEM_POOL);
            let keys: Vec<ShardKey> = of_orphans.iter().map(|stat| stat.key).collect();
            if !keys.is_empty() {
                if let Err(error) = self.delete(disk.disk, &keys).await {
                    tracing::warn!(disk = %disk.name, %error, "shards of orphans were not deleted; they are found again");
                    break;
                }
                tracing::info!(disk = %disk.name, shards = keys.len(), "deleted shards that nothing refers to");
                self.metrics.orphans_deleted.inc_by(keys.len() as u64);
                deleted += keys.len() as u64;
            }
            let damaged: BTreeSet<BlobId> =
                others.iter().filter(|stat| stat.quarantined).map(|stat| stat.key.blob).collect();
            if !damaged.is_empty() {
                self.metadata.queue_repair(BlobIds { blobs: damaged.into_iter().collect() }).await?;
            }
            match after(last) {
                Some(next) if page.len() == ORPHAN_PAGE => from = next,
                _ => break,
            }
            tokio::time::sleep(ORPHAN_PAUSE).await;
        }
        Ok(deleted)
    }
}

/// The shards of a doomed blob that disks have not answered for.
struct Owed {
    blob: BlobId,
    keys: BTreeMap<DiskId, Vec<ShardKey>>,
}

/// `None` if the map does not place the blob: then nobody can answer for it.
fn owed_by(map: &ClusterMap, blob: &DoomedBlob) -> Option<BTreeMap<DiskId, Vec<ShardKey>>> {
    blob.layout.check().ok()?;
    let pool = map.pool(blob.layout.pool)?;
    let mut owed: BTreeMap<DiskId, Vec<ShardKey>> = BTreeMap::new();
    for geometry in blob.layout.chunks(blob.len_bytes) {
        let chunk = ChunkId { blob: blob.blob, index: geometry.index };
        let places = ChunkPlaces::of(pool, &blob.layout, chunk, geometry)?;
        for place in places.shards.into_iter().filter(|place| !blob.answered.contains(&place.disk)) {
            owed.entry(place.disk).or_default().push(place.key);
        }
    }
    Some(owed)
}

/// Whether every disk that could still have to answer is among `refusing`: seen without working out a placement, for
/// thousands of blobs may wait for one disk.
fn waits_only_for(map: &ClusterMap, blob: &DoomedBlob, refusing: &BTreeSet<DiskId>) -> bool {
    let Some(pool) = map.pool(blob.layout.pool) else { return false };
    let mut left = pool.groups.iter().flat_map(|group| &group.disks).filter(|disk| !blob.answered.contains(disk));
    let mut any = false;
    let only_refusing = left.all(|disk| {
        any = true;
        refusing.contains(disk)
    });
    any && only_refusing
}

/// The smallest key after `key`; `None` after the largest of all.
fn after(key: ShardKey) -> Option<ShardKey> {
    let mut bytes = key.encode();
    for byte in bytes.iter_mut().rev() {
        let (next, carried) = byte.overflowing_add(1);
        *byte = next;
        if !carried {
            return ShardKey::decode(&bytes);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_after_a_key_carries_over_all_its_fields() {
        let key = |pool, chunk, shard| ShardKey {
            pool: PoolId(pool),
            placement: u64::MAX,
            blob: BlobId::from_bytes([0xff; 16]),
            chunk,
            shard,
        };
        assert_eq!(after(key(1, 7, 2)), Some(key(1, 7, 3)));
        assert_eq!(after(key(1, 7, 255)), Some(key(1, 8, 0)));
        let next_pool =
            ShardKey { pool: PoolId(2), placement: 0, blob: BlobId::from_bytes([0; 16]), chunk: 0, shard: 0 };
        assert_eq!(after(key(1, u32::MAX, 255)), Some(next_pool));
        assert_eq!(after(key(u32::MAX, u32::MAX, 255)), None);
    }
}
