//! The one thread that commits.
//!
//! It takes whatever is waiting, checks the commits in order against the database and against those before them in the
//! same group, writes the whole group in one batch with one sync of the WAL, and then answers all of them. The design
//! that lost was a latch per key with concurrent writers: one sequencer gives the same guarantee, numbers revisions
//! without gaps (which the mirror relies on), and shares each sync among everyone who waits.
//!
//! Crash consistency: rows, commit ids and the latest revision of a group are one RocksDB batch. Retries: a failed WAL
//! write is never repeated, since the kernel may have dropped the dirty pages (ATC'20); the store then only reads until
//! it is opened again. Cancellation: a commit that was queued is carried out even if nobody waits for its answer.

use super::database::{Database, Term};
use crate::store::mirror::{Mirror, MirrorError};
use crate::store::{Commit, CommitOutcome, Key, StoreError};
use bytes::Bytes;
use rocksdb::WriteBatch;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use valv_types::{CommitId, Revision, TimestampMicros};

/// Most commits of one group: what 5,000 commits/s bring within a slow sync of 200 ms.
pub(crate) const GROUP_COMMITS_MAX: usize = 1024;
/// A group takes no further commit once it holds this much; with the largest single commit on top it is still one
/// write that RocksDB takes at once.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// What callers ask of the committer, in the order in which it is answered.
pub(super) enum Job {
    /// Commit this.
    Commit {
        commit: Commit,
        len_bytes: usize,
        answer: oneshot::Sender<Result<CommitOutcome, StoreError>>,
        /// Room in the queue, given back when the job is dropped.
        room: OwnedSemaphorePermit,
    },
    /// Say whether this happened. Through the same queue, so that a commit still waiting in it counts.
    Outcome { id: CommitId, answer: oneshot::Sender<Result<Option<Revision>, StoreError>> },
}

/// A group as the mirror keeps it: what is true after it, not how it came to be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Group {
    /// The revision of its first commit.
    pub(crate) first: Revision,
    /// The revision of its last commit.
    pub(crate) last: Revision,
    /// Its commits: id, revision, and time in seconds since 1970.
    pub(crate) commits: Vec<(CommitId, Revision, u64)>,
    /// The rows that it changed, each once; `None` for one that it removed.
    pub(crate) rows: Vec<(Key, Revision, Option<Bytes>)>,
}

/// Everything of the committer that outlives a group.
pub(super) struct Committer {
    pub(super) database: Arc<Database>,
    pub(super) latest: Arc<AtomicU64>,
    /// Why nothing is committed any more, once a WAL write has failed.
    pub(super) poisoned: Option<String>,
    pub(super) mirror: Option<MirrorLink>,
}

/// The committer's way to the mirror.
pub(super) struct MirrorLink {
    pub(super) mirror: Arc<Mirror>,
    pub(super) term: Term,
    /// Where the disks are written from while this thread waits for the WAL.
    pub(super) runtime: tokio::runtime::Handle,
    /// The latest group, if it is in the WAL and no disk took it: nothing else is committed before it is mirrored.
    pub(super) unmirrored: Option<Arc<Group>>,
}

impl MirrorLink {
    fn start(&self, group: Arc<Group>) -> oneshot::Receiver<Result<(), MirrorError>> {
        let (done, receiver) = oneshot::channel();
        let (mirror, term) = (self.mirror.clone(), self.term);
        self.runtime.spawn(async move {
            // The receiver is gone only if the committer's thread is.
            let _ = done.send(mirror.append(term, &group).await);
        });
        receiver
    }

    /// Mirrors what could not be mirrored before.
    fn catch_up(&mut self) {
        if let Some(group) = self.unmirrored.take()
            && !is_mirrored(self.start(group.clone()))
        {
            self.unmirrored = Some(group);
        }
    }

    fn refusal(&self) -> Option<&'static str> {
        match (&self.unmirrored, self.mirror.is_ready()) {
            (None, true) => None,
            (Some(_), _) => Some("no disk takes a copy of the metadata"),
            (None, false) => Some("the metadata mirror is not complete yet"),
        }
    }
}

fn is_mirrored(append: oneshot::Receiver<Result<(), MirrorError>>) -> bool {
    match append.blocking_recv() {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::error!(%error, "a group of commits could not be mirrored: no further ones until it is");
            false
        }
        // The runtime ended in the middle of it.
        Err(_) => false,
    }
}

/// A group in the making.
struct Draft {
    next: u64,
    secs: u64,
    rows: HashMap<Key, (Revision, Option<Bytes>)>,
    ids: HashMap<CommitId, Revision>,
    commits: Vec<(CommitId, Revision, u64)>,
    commit_answers: Vec<CommitAnswer>,
    outcome_answers: Vec<OutcomeAnswer>,
}

struct CommitAnswer {
    id: CommitId,
    answer: oneshot::Sender<Result<CommitOutcome, StoreError>>,
    outcome: Result<CommitOutcome, StoreError>,
    _room: OwnedSemaphorePermit,
}

struct OutcomeAnswer {
    answer: oneshot::Sender<Result<Option<Revision>, StoreError>>,
    outcome: Result<Option<Revision>, StoreError>,
}

impl Committer {
    /// Works until every sender of `jobs` is gone and the queue is empty.
    pub(super) fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(first) = jobs.blocking_recv() {
            if let Some(mirror) = &mut self.mirror {
                mirror.catch_up();
            }
            let mut draft = Draft::new(Revision(self.latest.load(Ordering::Acquire)));
            let mut len_bytes = self.take(&mut draft, first);
            while draft.answers() < GROUP_COMMITS_MAX && len_bytes < GROUP_BYTES_MAX {
                match jobs.try_recv() {
                    Ok(job) => len_bytes += self.take(&mut draft, job),
                    Err(_) => break,
                }
            }
            self.finish(draft);
        }
    }

    /// Adds a job to the group and returns how much it weighs.
    fn take(&self, draft: &mut Draft, job: Job) -> usize {
        match job {
            Job::Commit { commit, len_bytes, answer, room } => {
                let id = commit.id;
                let outcome = match self.refusal() {
                    Some(refused) => Err(refused),
                    None => draft.stage(&self.database, commit),
                };
                draft.commit_answers.push(CommitAnswer { id, answer, outcome, _room: room });
                len_bytes
            }
            Job::Outcome { id, answer } => {
                let outcome = match (draft.committed(&self.database, id), self.refusal()) {
                    // The record may have reached the disk in spite of the error: only opening the store again tells.
                    (Ok(None), Some(refused)) => Err(refused),
                    (Ok(Some(revision)), Some(refused)) if self.is_unmirrored(revision) => Err(refused),
                    (found, _) => found,
                };
                draft.outcome_answers.push(OutcomeAnswer { answer, outcome });
                0
            }
        }
    }

    fn refusal(&self) -> Option<StoreError> {
        let mirror = || self.mirror.as_ref()?.refusal().map(str::to_owned);
        self.poisoned.clone().or_else(mirror).map(|what| StoreError::Unavailable { what })
    }

    fn is_unmirrored(&self, revision: Revision) -> bool {
        let unmirrored = self.mirror.as_ref().and_then(|mirror| mirror.unmirrored.as_ref());
        unmirrored.is_some_and(|group| revision >= group.first)
    }

    fn finish(&mut self, draft: Draft) {
        let Draft { commits, rows, next, commit_answers, outcome_answers, .. } = draft;
        let mut failed = false;
        if let (Some(first), Some(last)) = (commits.first(), commits.last()) {
            let rows = rows.into_iter().map(|(key, (revision, value))| (key, revision, value)).collect();
            let group = Group { first: first.1, last: last.1, commits, rows };
            failed = self.write(group, next - 1).is_err();
        }
        for CommitAnswer { id, answer, outcome, .. } in commit_answers {
            let outcome = match outcome {
                Ok(CommitOutcome::Committed(_)) if failed => Err(StoreError::Unknown { id }),
                Ok(CommitOutcome::Conflict { .. }) if failed => Err(self.unavailable()),
                other => other,
            };
            // Whoever asked may be gone; the commit stands all the same.
            let _ = answer.send(outcome);
        }
        for OutcomeAnswer { answer, outcome } in outcome_answers {
            let _ = answer.send(if failed { Err(self.unavailable()) } else { outcome });
        }
    }

    fn unavailable(&self) -> StoreError {
        self.refusal().unwrap_or_else(|| StoreError::Unavailable { what: "the last group failed".to_owned() })
    }

    /// Makes a group durable, in the WAL and in the mirror at once.
    fn write(&mut self, group: Group, latest: u64) -> Result<(), NotDurable> {
        let group = Arc::new(group);
        let append = self.mirror.as_ref().map(|mirror| mirror.start(group.clone()));
        let mut batch = WriteBatch::default();
        put_group(&self.database, &mut batch, &group);
        if append.is_some() {
            self.database.put_tail(&mut batch, &group);
        }
        let written = self.database.write_durably(batch);
        let mirrored = append.is_none_or(is_mirrored);
        if let Err(error) = written {
            tracing::error!(%error, "metadata WAL write failed: no further commits until the store is opened again");
            self.poisoned = Some(format!("a write to the metadata store's log failed ({error})"));
            return Err(NotDurable);
        }
        self.latest.store(latest, Ordering::Release);
        match &mut self.mirror {
            Some(mirror) if !mirrored => {
                mirror.unmirrored = Some(group);
                Err(NotDurable)
            }
            _ => Ok(()),
        }
    }
}

/// A group is not everywhere where it must be before it is acknowledged.
struct NotDurable;

/// Adds everything that `group` changes to a batch.
pub(crate) fn put_group(database: &Database, batch: &mut WriteBatch, group: &Group) {
    for (key, revision, value) in &group.rows {
        match value {
            Some(value) => database.put_row(batch, key, *revision, value),
            None => database.remove_row(batch, key),
        }
    }
    for (id, revision, secs) in &group.commits {
        database.put_commit(batch, *id, *revision, *secs);
    }
    database.put_latest(batch, group.last);
}

impl Draft {
    fn new(latest: Revision) -> Self {
        Self {
            next: latest.0 + 1,
            secs: TimestampMicros::now().as_secs(),
            rows: HashMap::new(),
            ids: HashMap::new(),
            commits: Vec::new(),
            commit_answers: Vec::new(),
            outcome_answers: Vec::new(),
        }
    }

    fn answers(&self) -> usize {
        self.commit_answers.len() + self.outcome_answers.len()
    }

    /// Whether `id` was committed, before this group or in it.
    fn committed(&self, database: &Database, id: CommitId) -> Result<Option<Revision>, StoreError> {
        match self.ids.get(&id) {
            Some(revision) => Ok(Some(*revision)),
            None => database.committed(id),
        }
    }

    /// Checks a commit against everything before it and adds its writes, or changes nothing.
    fn stage(&mut self, database: &Database, commit: Commit) -> Result<CommitOutcome, StoreError> {
        if let Some(revision) = self.committed(database, commit.id)? {
            return Ok(CommitOutcome::Committed(revision));
        }
        for (index, expectation) in commit.expected.iter().enumerate() {
            let found = match self.rows.get(&expectation.key) {
                Some((revision, value)) => value.as_ref().map(|_| *revision),
                None => database.row_revision(&expectation.key)?,
            };
            if found != expectation.revision {
                return Ok(CommitOutcome::Conflict { index });
            }
        }
        let revision = Revision(self.next);
        self.next += 1;
        for write in commit.writes {
            self.rows.insert(write.key, (revision, write.value));
        }
        self.ids.insert(commit.id, revision);
        self.commits.push((commit.id, revision, self.secs));
        Ok(CommitOutcome::Committed(revision))
    }
}
