//! One attempt to change something: what it expects of rows that were read, what it writes, and how it ends.
//!
//! Every operation is a loop: read rows, judge, build an [`Attempt`], commit it. A conflict means that a row changed
//! since it was read: the loop begins again, a bounded number of times, with jitter. Nothing is decided on rows that
//! the commit does not guard.

use crate::quota::HeldSlots;
use crate::store::{Commit, CommitOutcome, Expectation, Key, MetaStore, StoreError, Versioned, Write};
use bytes::Bytes;
use std::time::Duration;
use valv_metadata_api::MetadataError;
use valv_types::CommitId;

/// Attempts before [`MetadataError::Conflict`]. From the second on, the writers of one key in one process queue up, so
/// only writers in other processes can make an attempt fail again.
pub(crate) const ATTEMPTS_MAX: u32 = 16;
/// The longest pause between attempts doubles from this ...
const PAUSE_MS_FIRST: u64 = 2;
/// ... to this: all sixteen together stay under two seconds.
const PAUSE_MS_MAX: u64 = 250;

/// What a commit will expect and write.
#[derive(Debug, Default)]
pub(crate) struct Attempt {
    expected: Vec<Expectation>,
    writes: Vec<Write>,
    /// Slots of a quota, until the commit is over.
    held: HeldSlots,
}

impl Attempt {
    /// Demands that the row is as it was read.
    pub(crate) fn expect(&mut self, key: Key, read: Option<&Versioned>) {
        self.expected.push(Expectation { key, revision: read.map(|row| row.revision) });
    }

    /// Demands that the row is absent.
    pub(crate) fn expect_absent(&mut self, key: Key) {
        self.expected.push(Expectation { key, revision: None });
    }

    pub(crate) fn put(&mut self, key: Key, value: Bytes) {
        self.writes.push(Write { key, value: Some(value) });
    }

    /// Keeps slots of a quota until the commit is over.
    pub(crate) fn hold(&mut self, slots: HeldSlots) {
        self.held.extend(slots);
    }

    /// Takes over what another attempt expects and writes.
    pub(crate) fn append(&mut self, other: Self) {
        self.expected.extend(other.expected);
        self.writes.extend(other.writes);
        self.held.extend(other.held);
    }

    pub(crate) fn remove(&mut self, key: Key) {
        self.writes.push(Write { key, value: None });
    }
}

/// What an operation wants after judging the rows it read.
#[derive(Debug)]
pub(crate) enum Plan<T> {
    /// Nothing is to be changed; this is the answer.
    Nothing(T),
    /// Commit this; if it holds, this is the answer.
    Commit(Attempt, T),
    /// The rows are in between states of somebody else's change: read again after a pause.
    Wait,
}

/// How an attempt ended.
#[derive(Debug)]
pub(crate) enum Settled<T> {
    /// With this answer.
    Done(T),
    /// A row changed: try again.
    Again,
    /// The rows refuse it, because this very commit happened before: the caller repeats the first outcome.
    Before(MetadataError),
}

pub(crate) fn store_error(error: StoreError) -> MetadataError {
    match error {
        StoreError::Unavailable { what } => MetadataError::Unavailable { what },
        StoreError::Unknown { .. } => MetadataError::Unavailable { what: error.to_string() },
        StoreError::Io { what } => MetadataError::Unavailable { what },
        StoreError::Malformed { what } => MetadataError::Malformed { what: what.to_owned() },
        StoreError::Corrupt { what } => MetadataError::Corrupt { what },
    }
}

/// Commits `attempt`. A lost answer is resolved by the commit id, never guessed.
pub(crate) async fn commit(store: &dyn MetaStore, id: CommitId, attempt: Attempt) -> Result<bool, MetadataError> {
    let Attempt { expected, writes, held: _held } = attempt;
    let commit = Commit { id, expected, writes };
    match store.commit(commit).await {
        Ok(CommitOutcome::Committed(_)) => Ok(true),
        Ok(CommitOutcome::Conflict { .. }) => Ok(false),
        Err(error @ StoreError::Unknown { .. }) => match store.outcome(id).await.map_err(store_error)? {
            Some(_) => Ok(true),
            // It did not happen; but a store that loses answers is in no state to be asked again at once.
            None => Err(store_error(error)),
        },
        Err(error) => Err(store_error(error)),
    }
}

/// Carries out a plan, and pauses when it has to be made again.
pub(crate) async fn settle<T>(
    store: &dyn MetaStore,
    id: CommitId,
    number: u32,
    plan: Result<Plan<T>, MetadataError>,
) -> Result<Settled<T>, MetadataError> {
    match plan {
        Ok(Plan::Nothing(answer)) => Ok(Settled::Done(answer)),
        Ok(Plan::Commit(attempt, answer)) => {
            if commit(store, id, attempt).await? {
                return Ok(Settled::Done(answer));
            }
            pause(number).await;
            Ok(Settled::Again)
        }
        Ok(Plan::Wait) => {
            pause(number).await;
            Ok(Settled::Again)
        }
        Err(
            error @ (MetadataError::Unavailable { .. }
            | MetadataError::Corrupt { .. }
            | MetadataError::Malformed { .. }
            | MetadataError::KeyUnavailable
            | MetadataError::KeyDestroyed),
        ) => Err(error),
        Err(refusal) => match store.outcome(id).await.map_err(store_error)? {
            Some(_) => Ok(Settled::Before(refusal)),
            None => Err(refusal),
        },
    }
}

async fn pause(number: u32) {
    let longest = PAUSE_MS_MAX.min(PAUSE_MS_FIRST << number.min(16));
    tokio::time::sleep(Duration::from_micros(jitter(longest * 1000))).await;
}

/// A random number below `end`; without randomness the middle, since only the spread is lost.
fn jitter(end: u64) -> u64 {
    getrandom::u64().map_or(end / 2, |random| random % end.max(1))
}
