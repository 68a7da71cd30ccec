//! Reports of blobs that a read found damaged, on their way to metadata's repair queue.
//!
//! A report that is dropped or lost is no harm: the scrub and the census find the same damage later.

use super::metrics::DataMetrics;
use super::tasks::Tasks;
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use valv_metadata_api::{BlobIds, Metadata};
use valv_types::BlobId;

/// Reports that wait at most: 16 bytes each, and a disk that dies makes every read report one.
const WAITING_MAX: usize = 4096;
/// Blobs in one call to metadata.
const BATCH_MAX: usize = 256;
/// A blob reported less than this ago is not reported again.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Reports remembered at most.
const REMEMBERED_MAX: usize = 64 * 1024;
/// Pause after a failed call.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

pub(super) struct RepairReports {
    metadata: Arc<dyn Metadata>,
    state: Mutex<State>,
    wake: tokio::sync::Notify,
    metrics: Arc<DataMetrics>,
}

#[derive(Default)]
struct State {
    waiting: BTreeSet<BlobId>,
    reported: HashMap<BlobId, Instant>,
}

impl RepairReports {
    pub(super) fn new(metadata: Arc<dyn Metadata>, metrics: Arc<DataMetrics>) -> Self {
        Self { metadata, state: Mutex::default(), wake: tokio::sync::Notify::new(), metrics }
    }

    /// Reports a blob, unless it was reported a moment ago.
    pub(super) fn report(&self, blob: BlobId) {
        let now = Instant::now();
        let mut state = self.state.lock();
        if state.reported.get(&blob).is_some_and(|at| now.duration_since(*at) < REMEMBERED) {
            return;
        }
        if state.waiting.len() >= WAITING_MAX {
            self.metrics.repairs_dropped.inc();
            return;
        }
        if state.reported.len() >= REMEMBERED_MAX {
            state.reported.retain(|_, at| now.duration_since(*at) < REMEMBERED);
            if state.reported.len() >= REMEMBERED_MAX {
                state.reported.clear();
            }
        }
        state.reported.insert(blob, now);
        if state.waiting.insert(blob) {
            self.metrics.repairs_queued.inc();
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Brings reports to metadata until the process shuts down.
    pub(super) async fn run(self: Arc<Self>, tasks: Arc<Tasks>) {
        loop {
            let batch: Vec<BlobId> = self.state.lock().waiting.iter().take(BATCH_MAX).copied().collect();
            if batch.is_empty() {
                tokio::select! {
                    () = tasks.stopped() => return,
                    () = self.wake.notified() => {}
                }
                continue;
            }
            match self.metadata.queue_repair(BlobIds { blobs: batch.clone() }).await {
                Ok(_) => {
                    let mut state = self.state.lock();
                    batch.iter().for_each(|blob| {
                        state.waiting.remove(blob);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, blobs = batch.len(), "blobs could not be queued for repair; trying again");
                    tokio::select! {
                        () = tasks.stopped() => return,
                        () = tokio::time::sleep(RETRY_PAUSE) => {}
                    }
                }
            }
        }
    }
}
