//! The census: compares what metadata says should exist with what each disk says it has.

use crate::plan::{ChunkPlaces, ShardState};
use crate::service::{RepairError, Shared};
use std::collections::{BTreeMap, HashMap};
use valv_metadata_api::LiveBlob;
use valv_shard_api::{STAT_KEYS_MAX, ShardStat};
use valv_types::{ChunkId, DiskId, TimestampMicros};

/// What a census found. "Healthy" is said only after one that found every shard on every disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Census {
    /// When it ended.
    pub ended: TimestampMicros,
    /// Referenced blobs that lie in shards.
    pub blobs: u64,
    /// Their chunks.
    pub chunks: u64,
    /// Shards that should exist.
    pub shards_expected: u64,
    /// Shards that do, after what this pass rebuilt.
    pub shards_present: u64,
    /// Shards that their disk has not got, and could not be rebuilt.
    pub shards_missing: u64,
    /// Shards that their disk found damaged, and could not be rebuilt.
    pub shards_quarantined: u64,
    /// Shards on disks that are away: nothing is known of them.
    pub shards_unreachable: u64,
    /// Chunks with fewer good shards than they need, on disks that all answered.
    pub chunks_lost: u64,
}

impl Census {
    /// Whether every shard that should exist does.
    pub fn is_complete(&self) -> bool {
        self.shards_present == self.shards_expected
    }

    /// Counts a chunk as it is now.
    pub(crate) fn count(&mut self, chunk: &ChunkPlaces) {
        self.chunks += 1;
        for place in &chunk.shards {
            self.shards_expected += 1;
            *match place.state {
                ShardState::Present { .. } => &mut self.shards_present,
                ShardState::Missing => &mut self.shards_missing,
                ShardState::Quarantined => &mut self.shards_quarantined,
                ShardState::Unknown => &mut self.shards_unreachable,
            } += 1;
        }
    }
}

/// Chunks looked at together: 1,024 chunks of six shards are six `stat` calls and some hundred KiB.
pub(crate) const CHUNKS_PER_STEP: usize = 1024;

impl Shared {
    /// The chunks of `blobs`, a step at a time, with where their shards belong.
    pub(crate) async fn steps(&self, blobs: &[LiveBlob]) -> Result<Vec<Vec<ChunkPlaces>>, RepairError> {
        let map = self.metadata.get_cluster_map(valv_metadata_api::Empty {}).await?;
        let mut steps = vec![Vec::new()];
        for blob in blobs {
            blob.layout.check().map_err(|_| RepairError::Layout { blob: blob.blob })?;
            let pool = map.pool(blob.layout.pool).ok_or(RepairError::Layout { blob: blob.blob })?;
            for geometry in blob.layout.chunks(blob.len_bytes) {
                let id = ChunkId { blob: blob.blob, index: geometry.index };
                let places =
                    ChunkPlaces::of(pool, &blob.layout, id, geometry).ok_or(RepairError::Layout { blob: blob.blob })?;
                match steps.last_mut() {
                    Some(step) if step.len() < CHUNKS_PER_STEP => step.push(places),
                    _ => steps.push(vec![places]),
                }
            }
        }
        Ok(steps)
    }

    /// Asks the disks about every shard of these chunks.
    pub(crate) async fn look(&self, chunks: &mut [ChunkPlaces]) {
        let mut by_disk: BTreeMap<DiskId, Vec<(usize, usize)>> = BTreeMap::new();
        for (c, chunk) in chunks.iter().enumerate() {
            for (s, place) in chunk.shards.iter().enumerate() {
                by_disk.entry(place.disk).or_default().push((c, s));
            }
        }
        let questions = by_disk.iter().map(|(&disk, wanted)| {
            let keys: Vec<_> = wanted.iter().map(|&(c, s)| chunks[c].shards[s].key).collect();
            async move { (disk, self.stat(disk, keys).await) }
        });
        let answers: HashMap<DiskId, Vec<Option<Option<ShardStat>>>> =
            futures_util::future::join_all(questions).await.into_iter().collect();
        for (disk, wanted) in by_disk {
            let Some(answers) = answers.get(&disk) else { continue };
            for ((c, s), answer) in wanted.into_iter().zip(answers) {
                let len_bytes = chunks[c].geometry.shard_len_bytes;
                chunks[c].shards[s].state = match answer {
                    None => ShardState::Unknown,
                    Some(Some(stat)) if stat.quarantined => ShardState::Quarantined,
                    Some(Some(stat)) if stat.len_bytes == len_bytes => {
                        ShardState::Present { generation: stat.generation }
                    }
                    Some(_) => ShardState::Missing,
                };
            }
        }
    }

    /// One answer for each key: `None` if the disk did not give any.
    async fn stat(&self, disk: DiskId, keys: Vec<valv_types::ShardKey>) -> Vec<Option<Option<ShardStat>>> {
        let mut answers = Vec::with_capacity(keys.len());
        for keys in keys.chunks(STAT_KEYS_MAX) {
            match self.shards.stat(disk, keys.to_vec()).await {
                Ok(found) if found.len() == keys.len() => answers.extend(found.into_iter().map(Some)),
                Ok(_) | Err(_) => answers.extend(std::iter::repeat_n(None, keys.len())),
            }
        }
        answers
    }
}
