//! Accesses on their way into the ledger: no byte of an object, and no answer that tells of one, leaves before its record is
//! durable.
//!
//! Whoever serves a read begins an access here and, while it fetches what is asked for, waits for its [`Ticket`]. One commit
//! is under way at a time, and everything that begins meanwhile is in the next: at rest a read waits for one commit of its
//! own, under load dozens share one, and no timer makes anybody wait longer. How many bytes were really sent is known when a
//! ticket is dropped; that goes along with the next commit, or with one of its own soon after.
//!
//! Invariants: a ticket that says "recorded" is in the ledger. A batch is given up by nobody: it is asked for again under its
//! commit id until its outcome is known, so no access and no completion is recorded twice. Meanwhile reads are refused.
//! Crash: what had begun stands without completion, and counts whole.

mod gathering;
#[cfg(test)]
mod tests;

pub(crate) use gathering::NewAccess;

use crate::error::{S3Code, S3Error};
use gathering::Gathering;
use parking_lot::Mutex;
use prometheus::IntCounter;
use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use valv_ledger::{AccessEnd, AccessState, Completion};
use valv_metadata_api::{COMPLETIONS_PER_CALL_MAX, Metadata, MetadataError, ProjectCompletion, RecordAccesses};
use valv_types::{CommitId, ProjectId, RecorderId};

/// Batches that may wait behind the one under way. Each holds [`valv_metadata_api::ACCESSES_PER_CALL_MAX`] accesses, more than
/// the connections that a gateway has by default, of at most 1.5 KiB each: 24 MiB together.
const BATCHES_MAX: usize = 8;
/// Completions that may wait. Every one had an access that was recorded, so this many come together only if metadata takes no
/// commits for as long as it takes that many downloads to end; then reads are refused until it does.
const COMPLETIONS_MAX: usize = 65_536;
/// How long a read waits for its record before it is refused: longer than any commit that is merely slow, shorter than
/// clients' patience.
const WAIT_MAX: Duration = Duration::from_secs(3);
/// How long completions wait for an access to go along with.
const COMPLETIONS_WAIT: Duration = Duration::from_millis(500);
/// The pause before a batch is asked for again doubles from this ...
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// ... to this.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What became of a batch, as far as those know who wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    Recorded,
    /// It is not known to be recorded, and took too long: whoever waits is refused.
    Late,
}

/// Counters of what is recorded.
#[derive(Debug, Clone)]
pub(crate) struct RecorderMetrics {
    /// Requests whose access was recorded.
    pub(crate) accesses: IntCounter,
    /// Commits that it took.
    pub(crate) commits: IntCounter,
}

/// Records accesses. One for a gateway.
pub(crate) struct AccessRecorder {
    metadata: Arc<dyn Metadata>,
    metrics: RecorderMetrics,
    id: RecorderId,
    state: Mutex<State>,
    tasks: TaskTracker,
    closing: CancellationToken,
}

#[derive(Default)]
struct State {
    /// The number that the next access gets.
    next: u64,
    /// Batches, the oldest first; accesses are added to the last.
    waiting: VecDeque<Batch>,
    completions: VecDeque<ProjectCompletion>,
    /// A task is committing batches.
    is_running: bool,
    /// A task waits to commit completions if nobody takes them along.
    is_timer_set: bool,
    /// They have waited long enough.
    are_completions_due: bool,
    /// The batch under way is late: reads are refused until it is recorded.
    is_late: bool,
}

struct Batch {
    gathering: Gathering,
    fate: watch::Sender<Fate>,
}

impl AccessRecorder {
    pub(crate) fn new(metadata: Arc<dyn Metadata>, metrics: RecorderMetrics) -> Arc<Self> {
        Arc::new(Self {
            metadata,
            metrics,
            id: RecorderId::random(),
            state: Mutex::default(),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        })
    }

    /// Begins an access. Nothing of it may leave before [`Ticket::recorded`] has returned.
    ///
    /// # Errors
    /// ServiceUnavailable while metadata takes no records; SlowDown if too much waits.
    pub(crate) fn begin(self: &Arc<Self>, access: NewAccess) -> Result<Ticket, S3Error> {
        let (project, of_bytes, is_begun) = (access.project, access.bytes, access.state == AccessState::Begun);
        let mut state = self.state.lock();
        if state.is_late || state.completions.len() >= COMPLETIONS_MAX {
            return Err(unrecorded());
        }
        if state.waiting.back().is_none_or(|batch| batch.gathering.is_full()) {
            if state.waiting.len() >= BATCHES_MAX {
                return Err(S3Code::SlowDown.into());
            }
            let fate = watch::Sender::new(Fate::Open);
            state.waiting.push_back(Batch { gathering: Gathering::default(), fate });
        }
        let number = state.next;
        state.next += 1;
        let Some(batch) = state.waiting.back_mut() else { return Err(S3Code::InternalError.into()) };
        // An access that is folded into another goes by its number.
        let number = batch.gathering.add(number, access);
        let fate = batch.fate.subscribe();
        self.run_unless_running(&mut state, &Handle::current());
        drop(state);
        let recorder = Arc::clone(self);
        Ok(Ticket { recorder, fate, project, number, of_bytes, sent_bytes: 0, end: None, is_begun })
    }

    fn complete(self: &Arc<Self>, project: ProjectId, completion: Completion) {
        let mut state = self.state.lock();
        state.completions.push_back(ProjectCompletion { project, completion });
        if state.is_running || state.is_timer_set {
            return;
        }
        // Without a runtime the process is ending, and the access counts whole.
        let Ok(runtime) = Handle::try_current() else { return };
        self.set_timer(&mut state, &runtime);
    }

    fn set_timer(self: &Arc<Self>, state: &mut State, runtime: &Handle) {
        state.is_timer_set = true;
        let recorder = Arc::clone(self);
        let wait = async move {
            tokio::select! {
                () = recorder.closing.cancelled() => {}
                () = sleep(COMPLETIONS_WAIT) => {}
            }
            let mut state = recorder.state.lock();
            state.is_timer_set = false;
            state.are_completions_due = true;
            recorder.run_unless_running(&mut state, &Handle::current());
        };
        self.tasks.spawn_on(wait, runtime);
    }

    fn run_unless_running(self: &Arc<Self>, state: &mut State, runtime: &Handle) {
        if !state.is_running {
            state.is_running = true;
            let recorder = Arc::clone(self);
            self.tasks.spawn_on(async move { recorder.run().await }, runtime);
        }
    }

    /// Commits batch after batch until nothing waits.
    async fn run(self: &Arc<Self>) {
        while let Some((request, fate)) = self.take() {
            self.record(request, &fate).await;
        }
    }

    /// The next batch; `None` when there is none, and then this task is not running any more.
    fn take(self: &Arc<Self>) -> Option<(RecordAccesses, watch::Sender<Fate>)> {
        let mut state = self.state.lock();
        let batch = state.waiting.pop_front();
        let must_run = state.are_completions_due && !state.completions.is_empty();
        if batch.is_none() && !must_run {
            state.is_running = false;
            state.are_completions_due = false;
            if !state.completions.is_empty() && !state.is_timer_set {
                self.set_timer(&mut state, &Handle::current());
            }
            return None;
        }
        let count = state.completions.len().min(COMPLETIONS_PER_CALL_MAX);
        let completions: Vec<_> = state.completions.drain(..count).collect();
        state.are_completions_due &= !state.completions.is_empty();
        drop(state);
        let (gathering, fate) = match batch {
            Some(Batch { gathering, fate }) => (gathering, fate),
            None => (Gathering::default(), watch::Sender::new(Fate::Open)),
        };
        let (clients, accesses) = gathering.into_parts();
        let commit = CommitId::random();
        Some((RecordAccesses { recorder: self.id, clients, accesses, completions, commit }, fate))
    }

    /// Asks until the outcome is known. Who waits is told when it is, or after [`WAIT_MAX`] that it takes too long.
    async fn record(&self, request: RecordAccesses, fate: &watch::Sender<Fate>) {
        let requests: u64 = request.accesses.iter().map(|access| access.access.count).sum();
        let late_at = Instant::now() + WAIT_MAX;
        let mut is_late = false;
        let mut pause = PAUSE_FIRST;
        loop {
            let mut call = pin!(self.metadata.record_accesses(request.clone()));
            let answer = loop {
                tokio::select! {
                    biased;
                    answer = &mut call => break answer,
                    () = sleep_until(late_at), if !is_late => {
                        is_late = true;
                        self.refuse_waiting(fate, "no answer in time");
                    }
                }
            };
            match answer {
                Ok(_) => {
                    self.metrics.accesses.inc_by(requests);
                    self.metrics.commits.inc();
                    if is_late {
                        tracing::info!("accesses are recorded again, and reads served");
                        self.state.lock().is_late = false;
                    }
                    fate.send_replace(Fate::Recorded);
                    return;
                }
                Err(error @ MetadataError::Malformed { .. }) => {
                    tracing::error!(%error, "a batch of accesses can't be recorded; its reads are refused");
                    self.state.lock().is_late = false;
                    fate.send_replace(Fate::Late);
                    return;
                }
                Err(error) => {
                    if !is_late && Instant::now() + pause >= late_at {
                        is_late = true;
                        self.refuse_waiting(fate, &error.to_string());
                    }
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// Refuses everybody who waits, and whoever comes until the batch under way is recorded.
    fn refuse_waiting(&self, fate: &watch::Sender<Fate>, why: &str) {
        tracing::error!(why, "accesses can't be recorded in the ledger: reads are refused until they can");
        let mut state = self.state.lock();
        state.is_late = true;
        for batch in &state.waiting {
            batch.fate.send_replace(Fate::Late);
        }
        drop(state);
        fate.send_replace(Fate::Late);
    }

    /// Records what is left, for at most `wait`. To be called when all connections have ended.
    pub(crate) async fn drain(&self, wait: Duration) {
        self.closing.cancel();
        self.tasks.close();
        if timeout(wait, self.tasks.wait()).await.is_err() {
            tracing::warn!("ending with accesses whose completion is not recorded: they count whole");
        }
    }
}

fn unrecorded() -> S3Error {
    S3Error::new(S3Code::ServiceUnavailable)
        .with_message("The access can't be recorded at the moment. Please try again.")
}

/// An access that has begun. Dropping it completes the access with the bytes that were sent.
pub(crate) struct Ticket {
    recorder: Arc<AccessRecorder>,
    fate: watch::Receiver<Fate>,
    project: ProjectId,
    number: u64,
    of_bytes: u64,
    sent_bytes: u64,
    end: Option<AccessEnd>,
    /// Whether a completion follows.
    is_begun: bool,
}

impl Ticket {
    /// Waits until the access is in the ledger. Cancel safe.
    ///
    /// # Errors
    /// ServiceUnavailable if it can't be recorded now. It may be recorded later all the same, as one of which nothing was sent.
    pub(crate) async fn recorded(&mut self) -> Result<(), S3Error> {
        match self.fate.wait_for(|fate| *fate != Fate::Open).await {
            Ok(fate) if *fate == Fate::Recorded => Ok(()),
            _ => Err(unrecorded()),
        }
    }

    /// So many more bytes were sent.
    pub(crate) fn sent(&mut self, len_bytes: u64) {
        self.sent_bytes += len_bytes;
    }

    /// Everything was sent, or written to a copy.
    pub(crate) fn all_sent(&mut self) {
        self.sent_bytes = self.of_bytes;
        self.end = Some(AccessEnd::Whole);
    }

    /// Why it ends before everything was sent; else it is the client that goes away.
    pub(crate) fn ends(&mut self, end: AccessEnd) {
        self.end = Some(end);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.is_begun {
            return;
        }
        let end = match self.end {
            Some(end) => end,
            None if self.sent_bytes == self.of_bytes => AccessEnd::Whole,
            None => AccessEnd::BrokenOff,
        };
        let (number, of_bytes, sent_bytes) = (self.number, self.of_bytes, self.sent_bytes);
        self.recorder.complete(self.project, Completion { number, count: 1, of_bytes, sent_bytes, end });
    }
}
