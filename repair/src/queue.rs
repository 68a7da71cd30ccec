//! The repair queue: blobs of which somebody knows that shards are missing or damaged.

use crate::census::Steps;
use crate::rebuild::Outcome;
use crate::service::{BACKOFF_MAX, QUEUE_PAGE, RepairError, Shared};
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;
use tokio::time::Instant;
use valv_metadata_api::{BlobIds, Empty, Limit, LiveBlob};
use valv_types::BlobId;

/// Blobs finished in one commit.
const BLOBS_PER_COMMIT: usize = 256;

/// Blobs that could not be finished, and when to try again: each has a pause of its own, so that thousands which wait
/// for a disk do not delay the one that was damaged just now. Holds none that the queue does not: at most a page.
#[derive(Default)]
pub(crate) struct Waiting(HashMap<BlobId, Pause>);

struct Pause {
    /// The disks as they were (see `State::chances`): once they have changed, it is worth trying at once.
    chances: u64,
    until: Instant,
    next: Duration,
}

impl Waiting {
    fn is_due(&self, blob: BlobId, chances: u64, now: Instant) -> bool {
        self.0.get(&blob).is_none_or(|pause| pause.chances != chances || pause.until <= now)
    }

    fn put_off(&mut self, blob: BlobId, chances: u64, first: Duration) {
        let pause = self.0.get(&blob).filter(|before| before.chances == chances);
        let pause = pause.map_or(first, |before| before.next);
        let next = (pause * 2).min(BACKOFF_MAX);
        self.0.insert(blob, Pause { chances, until: Instant::now() + pause, next });
    }

    /// Forgets what is no longer queued.
    fn keep(&mut self, queued: &[LiveBlob]) {
        if self.0.is_empty() {
            return;
        }
        let queued: BTreeSet<BlobId> = queued.iter().map(|blob| blob.blob).collect();
        self.0.retain(|blob, _| queued.contains(blob));
    }
}

impl Shared {
    /// Repairs every queued blob that is due. One leaves the queue only when all its shards are there.
    pub(crate) async fn work_queue(&self, waiting: &mut Waiting) -> Result<(), RepairError> {
        let chances = self.state.lock().chances;
        let queued = self.metadata.list_repairs(Limit { limit: QUEUE_PAGE }).await?;
        waiting.keep(&queued);
        let now = Instant::now();
        let due: Vec<LiveBlob> =
            queued.iter().filter(|blob| waiting.is_due(blob.blob, chances, now)).copied().collect();
        let mut left = queued.len() as u64;
        self.note_queue(left);
        for blobs in due.chunks(BLOBS_PER_COMMIT) {
            let unfinished = self.mend_blobs(blobs).await;
            // Before a blob leaves the queue, and also after a pass that was cut short.
            self.tell_ledgers().await?;
            let unfinished = unfinished?;
            let finished: Vec<BlobId> =
                blobs.iter().map(|blob| blob.blob).filter(|blob| !unfinished.contains(blob)).collect();
            unfinished.iter().for_each(|blob| waiting.put_off(*blob, chances, self.config.retry_after));
            if !finished.is_empty() {
                left -= finished.len() as u64;
                self.metadata.finish_repairs(BlobIds { blobs: finished }).await?;
                self.note_queue(left);
            }
        }
        if left == 0 && !due.is_empty() {
            // What the last census found missing may have been these.
            let state = self.state.lock();
            if state.last_census.is_some_and(|census| !census.is_complete()) {
                self.census_wanted.notify_one();
            }
        }
        Ok(())
    }

    /// Brings blobs as far as their disks allow. Returns those that are not complete.
    async fn mend_blobs(&self, blobs: &[LiveBlob]) -> Result<BTreeSet<BlobId>, RepairError> {
        let map = self.metadata.get_cluster_map(Empty {}).await?;
        let mut unfinished = BTreeSet::new();
        let mut steps = Steps::new(&map, blobs);
        for mut chunks in steps.by_ref() {
            self.look(&mut chunks).await;
            // Where one shard was damaged others may be: what is queued is read through, not only counted.
            let chunks = self.read_through(chunks).await;
            for (chunk, outcome) in self.mend_all(chunks).await? {
                if let (Outcome::Waiting | Outcome::Lost, Some(place)) = (outcome, chunk.shards.first()) {
                    unfinished.insert(place.key.blob);
                }
            }
        }
        for blob in steps.unplaced {
            tracing::error!(%blob, "no pool of the cluster map places a blob that waits for repair");
            unfinished.insert(blob);
        }
        Ok(unfinished)
    }

    fn note_queue(&self, blobs: u64) {
        self.state.lock().queue = blobs;
        self.metrics.queue.set(i64::try_from(blobs).unwrap_or(i64::MAX));
    }
}
