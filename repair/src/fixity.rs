//! What is known of blobs without reading them: whether their shards are there, and since when they are verified.

use crate::census::Steps;
use crate::plan::{ShardState, Verdict};
use crate::service::{RepairError, RepairService, Shared};
use std::collections::{BTreeMap, HashMap};
use valv_metadata_api::{Empty, LiveBlob};
use valv_shard_api::ScrubProgress;
use valv_types::{BlobId, DiskId};

/// What is known of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlobFixity {
    /// Shards that should exist.
    pub shards_expected: u64,
    /// Shards that their disk has, undamaged as far as it knows.
    pub shards_present: u64,
    /// Shards that their disk has not got.
    pub shards_missing: u64,
    /// Shards that their disk found damaged, and that were not rebuilt yet.
    pub shards_quarantined: u64,
    /// Shards on disks that are away: nothing is known of them.
    pub shards_unreachable: u64,
    /// Chunks with fewer good shards than they need, on disks that all answered.
    pub chunks_lost: u64,
    /// Every shard that is present was verified then or later, if it was there then: seconds since 1970. `None` if one is
    /// where the scrub has never been.
    pub verified_since_secs: Option<u64>,
}

impl RepairService {
    /// What is known of each of `blobs`, in their order. Asks the disks for what they have, and how far their scrubs have
    /// come; reads no shard.
    pub async fn fixity(&self, blobs: &[LiveBlob]) -> Result<Vec<BlobFixity>, RepairError> {
        self.shared().fixity(blobs).await
    }
}

impl Shared {
    async fn fixity(&self, blobs: &[LiveBlob]) -> Result<Vec<BlobFixity>, RepairError> {
        // Copies share blobs: each is looked at once.
        let unique: BTreeMap<BlobId, LiveBlob> = blobs.iter().map(|blob| (blob.blob, *blob)).collect();
        let unique: Vec<LiveBlob> = unique.into_values().collect();
        let scrubs: HashMap<DiskId, ScrubProgress> =
            self.shards.disks().await?.into_iter().filter_map(|disk| Some((disk.disk, disk.scrub?))).collect();
        let map = self.metadata.get_cluster_map(Empty {}).await?;
        let mut known: HashMap<BlobId, BlobFixity> = HashMap::with_capacity(unique.len());
        let mut steps = Steps::new(&map, &unique);
        for mut chunks in steps.by_ref() {
            self.look(&mut chunks).await;
            for chunk in &chunks {
                let Some(blob) = chunk.shards.first().map(|place| place.key.blob) else { continue };
                let fixity = known
                    .entry(blob)
                    .or_insert(BlobFixity { verified_since_secs: Some(u64::MAX), ..BlobFixity::default() });
                fixity.chunks_lost += u64::from(matches!(chunk.verdict(), Verdict::Lost { .. }));
                for (place, state) in chunk.shards.iter().zip(chunk.counted()) {
                    fixity.shards_expected += 1;
                    *match state {
                        ShardState::Present { .. } => &mut fixity.shards_present,
                        ShardState::Missing => &mut fixity.shards_missing,
                        ShardState::Quarantined => &mut fixity.shards_quarantined,
                        ShardState::Unknown => &mut fixity.shards_unreachable,
                    } += 1;
                    if matches!(state, ShardState::Present { .. }) {
                        let since = scrubs.get(&place.disk).and_then(|scrub| scrub.verified_since_secs(&place.key));
                        fixity.verified_since_secs = fixity.verified_since_secs.zip(since).map(|(a, b)| a.min(b));
                    }
                }
            }
        }
        for blob in steps.unplaced {
            // No pool of the map places it: nothing is known of it, and that is said as a loss.
            known.insert(blob, BlobFixity { chunks_lost: 1, ..BlobFixity::default() });
        }
        Ok(blobs.iter().map(|blob| known.get(&blob.blob).copied().unwrap_or_default()).collect())
    }
}
