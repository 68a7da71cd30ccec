//! This process's incarnations and the sequence numbers of the blobs they write.
//!
//! Invariant: the low-water mark of an incarnation never passes a blob that may still be committed. Numbers are taken
//! and given back under one lock, so a mark read at any moment is below every number in flight then and after.

use super::error::DataError;
use super::tasks::Tasks;
use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use valv_metadata_api::{Empty, Heartbeat, Metadata, MetadataError};
use valv_types::{BlobId, IncarnationId};

/// One registered incarnation.
pub(super) struct Incarnation {
    pub(super) id: IncarnationId,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    in_flight: BTreeSet<u64>,
    /// Numbers whose commit has an unknown outcome, with the time until which they are held.
    held: Vec<(u64, Instant)>,
    fenced: bool,
}

impl Incarnation {
    pub(super) fn new(id: IncarnationId) -> Arc<Self> {
        Arc::new(Self { id, state: Mutex::default() })
    }

    /// Takes the next blob id.
    pub(super) fn begin(self: &Arc<Self>) -> Result<Sequence, DataError> {
        let mut state = self.state.lock();
        if state.fenced {
            return Err(DataError::Fenced);
        }
        let number = state.next;
        state.next += 1;
        state.in_flight.insert(number);
        drop(state);
        Ok(Sequence { blob: BlobId::new(self.id, number), incarnation: Arc::clone(self), number, hold: None })
    }

    pub(super) fn is_fenced(&self) -> bool {
        self.state.lock().fenced
    }

    /// Every blob with a smaller number is committed, or never will be.
    pub(super) fn low_water(&self) -> u64 {
        let now = Instant::now();
        let mut state = self.state.lock();
        let State { held, in_flight, .. } = &mut *state;
        held.retain(|(number, until)| {
            let keep = now < *until;
            if !keep {
                in_flight.remove(number);
            }
            keep
        });
        state.in_flight.first().copied().unwrap_or(state.next)
    }
}

/// The number of a blob in flight. Dropping it says that the blob is committed or never will be, unless it is held.
pub(super) struct Sequence {
    pub(super) blob: BlobId,
    incarnation: Arc<Incarnation>,
    number: u64,
    hold: Option<Duration>,
}

impl Sequence {
    pub(super) fn incarnation(&self) -> &Incarnation {
        &self.incarnation
    }

    /// From here on a drop means that nobody knows whether the blob was committed: its number is held for `hold` longer.
    pub(super) fn hold_when_dropped(&mut self, hold: Duration) {
        self.hold = Some(hold);
    }

    /// The outcome is known after all.
    pub(super) fn resolve(&mut self) {
        self.hold = None;
    }
}

impl Drop for Sequence {
    fn drop(&mut self) {
        let mut state = self.incarnation.state.lock();
        match self.hold {
            None => {
                state.in_flight.remove(&self.number);
            }
            Some(hold) => state.held.push((self.number, Instant::now() + hold)),
        }
    }
}

/// The current incarnation, and the heartbeat that keeps it.
pub(super) struct Incarnations {
    metadata: Arc<dyn Metadata>,
    current: ArcSwapOption<Incarnation>,
    beat: tokio::sync::Notify,
}

impl Incarnations {
    pub(super) fn new(metadata: Arc<dyn Metadata>) -> Self {
        Self { metadata, current: ArcSwapOption::empty(), beat: tokio::sync::Notify::new() }
    }

    /// Takes the next blob id of the current incarnation.
    pub(super) fn begin(&self) -> Result<Sequence, DataError> {
        self.current.load_full().ok_or(DataError::NotReady)?.begin()
    }

    pub(super) fn current(&self) -> Option<Arc<Incarnation>> {
        self.current.load_full()
    }

    /// Makes the heartbeat come at once: somebody heard that the incarnation is fenced.
    pub(super) fn beat_now(&self) {
        self.beat.notify_one();
    }

    /// Registers if need be, renews otherwise. A fenced incarnation is replaced; its writers fail at their next step.
    pub(super) async fn beat(&self) -> Result<(), MetadataError> {
        if let Some(current) = self.current.load_full() {
            let heartbeat = Heartbeat { incarnation: current.id, low_water: current.low_water() };
            match self.metadata.heartbeat(heartbeat).await {
                Err(MetadataError::Fenced) => {
                    tracing::warn!(incarnation = current.id.0, "this incarnation was fenced; its uploads are given up");
                    current.state.lock().fenced = true;
                }
                other => return other.map(drop),
            }
        }
        let id = self.metadata.register_incarnation(Empty {}).await?;
        tracing::info!(incarnation = id.0, "registered");
        self.current.store(Some(Incarnation::new(id)));
        Ok(())
    }

    /// Beats until the process shuts down.
    pub(super) async fn run(self: Arc<Self>, tasks: Arc<Tasks>, interval: Duration) {
        loop {
            tokio::select! {
                () = tasks.stopped() => return,
                () = self.beat.notified() => {}
                () = tokio::time::sleep(interval) => {}
            }
            if let Err(error) = self.beat().await {
                tracing::warn!(%error, "heartbeat failed");
            }
        }
    }
}
