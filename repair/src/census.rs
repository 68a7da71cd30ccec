//! The census: compares what metadata says should exist with what each disk says it has.

use crate::plan::{ChunkPlaces, ShardState};
use crate::rebuild::Outcome;
use crate::service::{RepairError, Shared};
use std::collections::{BTreeMap, HashMap};
use valv_metadata_api::{ClusterMap, Empty, ListBlobs, LiveBlob};
use valv_shard_api::ShardStat;
use valv_types::{BlobId, ChunkId, DiskId, PoolMap, TimestampMicros};

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
    /// Shards that their disk has not got, or only of another generation or length, and that could not be rebuilt.
    pub shards_missing: u64,
    /// Shards that their disk found damaged, and could not be rebuilt.
    pub shards_quarantined: u64,
    /// Shards on disks that are away: nothing is known of them.
    pub shards_unreachable: u64,
    /// Chunks with fewer good shards than they need, on disks that all answered.
    pub chunks_lost: u64,
    /// Blobs whose layout no pool of the cluster map places: nothing of them was looked at.
    pub blobs_unplaced: u64,
}

impl Census {
    /// Whether every shard that should exist does.
    pub fn is_complete(&self) -> bool {
        self.shards_present == self.shards_expected && self.chunks_lost == 0 && self.blobs_unplaced == 0
    }

    /// Whether nothing but the return of a disk can bring the next census further.
    pub(crate) fn only_waits_for_disks(&self) -> bool {
        self.shards_missing == 0 && self.shards_quarantined == 0 && self.blobs_unplaced == 0
    }

    /// Counts a chunk as it is now.
    fn count(&mut self, chunk: &ChunkPlaces) {
        self.chunks += 1;
        for state in chunk.counted() {
            self.shards_expected += 1;
            *match state {
                ShardState::Present { .. } => &mut self.shards_present,
                ShardState::Missing => &mut self.shards_missing,
                ShardState::Quarantined => &mut self.shards_quarantined,
                ShardState::Unknown => &mut self.shards_unreachable,
            } += 1;
        }
    }
}

/// Blobs in a page of the census.
const PAGE: u32 = 1000;
/// Chunks looked at together: 1,024 chunks of six shards are six `stat` calls and some hundred KiB.
const CHUNKS_PER_STEP: usize = 1024;

/// The chunks of blobs, a step at a time, with where their shards belong. Made as they are asked for: a page of the
/// largest blobs has hundreds of thousands.
pub(crate) struct Steps<'a> {
    map: &'a ClusterMap,
    blobs: std::slice::Iter<'a, LiveBlob>,
    /// The blob that the next chunk is of, its pool, and the chunk's index.
    current: Option<(&'a LiveBlob, &'a PoolMap, u32)>,
    /// Blobs that the map does not place.
    pub(crate) unplaced: Vec<BlobId>,
}

impl<'a> Steps<'a> {
    pub(crate) fn new(map: &'a ClusterMap, blobs: &'a [LiveBlob]) -> Self {
        Self { map, blobs: blobs.iter(), current: None, unplaced: Vec::new() }
    }

    fn next_chunk(&mut self) -> Option<ChunkPlaces> {
        loop {
            let Some((blob, pool, index)) = self.current else {
                let blob = self.blobs.next()?;
                match self.map.pool(blob.layout.pool).filter(|_| blob.layout.check().is_ok()) {
                    Some(pool) => self.current = Some((blob, pool, 0)),
                    None => self.unplaced.push(blob.blob),
                }
                continue;
            };
            let Some(geometry) = blob.layout.chunk(blob.len_bytes, index) else {
                self.current = None;
                continue;
            };
            let chunk = ChunkId { blob: blob.blob, index };
            match ChunkPlaces::of(pool, &blob.layout, chunk, geometry) {
                Some(places) => {
                    self.current = index.checked_add(1).map(|next| (blob, pool, next));
                    return Some(places);
                }
                None => {
                    self.unplaced.push(blob.blob);
                    self.current = None;
                }
            }
        }
    }
}

impl Iterator for Steps<'_> {
    type Item = Vec<ChunkPlaces>;

    fn next(&mut self) -> Option<Self::Item> {
        let step: Vec<_> = std::iter::from_fn(|| self.next_chunk()).take(CHUNKS_PER_STEP).collect();
        (!step.is_empty()).then_some(step)
    }
}

impl Shared {
    /// A full pass over everything that is referenced; rebuilds what is missing as it goes.
    pub(crate) async fn census(&self) -> Result<Census, RepairError> {
        let mut census = Census::default();
        let mut after = None;
        loop {
            let blobs = self.metadata.list_blobs(ListBlobs { after, limit: PAGE }).await?;
            let Some(last) = blobs.last().map(|blob| blob.blob) else { break };
            census.blobs += blobs.len() as u64;
            // Anew for each page: placement groups may change during a pass of hours.
            let map = self.metadata.get_cluster_map(Empty {}).await?;
            let mut steps = Steps::new(&map, &blobs);
            for mut chunks in steps.by_ref() {
                self.look(&mut chunks).await;
                for (chunk, outcome) in self.mend_all(chunks).await? {
                    match outcome {
                        Outcome::Gone => continue,
                        Outcome::Lost => census.chunks_lost += 1,
                        Outcome::Complete | Outcome::Waiting => {}
                    }
                    census.count(&chunk);
                }
            }
            self.tell_ledgers().await?;
            for blob in &steps.unplaced {
                tracing::error!(%blob, "no pool of the cluster map places this blob");
                census.blobs_unplaced += 1;
            }
            after = Some(last);
        }
        census.ended = TimestampMicros::now();
        Ok(census)
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
}
