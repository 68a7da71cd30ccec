//! The embedded MetaStore: RocksDB, committed to by one thread.
//!
//! Point reads run on the caller's thread: they are answered from memory or the page cache within microseconds, and
//! a hop to another thread would cost more than the read.

mod bulk;
mod committer;
mod database;
mod open;
mod snapshot;

use super::mirror::{Mirror, MirrorConfig, MirrorError, MirrorStatus};
use super::{
    COMMIT_BYTES_MAX, COMMIT_KEYS_MAX, Commit, CommitOutcome, KEY_LEN_BYTES_MAX, Key, MetaStore, Snapshot, StoreError,
    VALUE_LEN_BYTES_MAX, Versioned,
};
use async_trait::async_trait;
use committer::{Committer, Job, MirrorLink};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use valv_types::{CommitId, Revision};

pub(crate) use bulk::Building;
pub(crate) use committer::Group;
pub(crate) use database::{Database, Term};
pub(crate) use snapshot::RocksSnapshot;

/// Jobs that may wait for the committer: four groups, so that one is always ready while another is written.
const QUEUE_JOBS_MAX: usize = 4 * committer::GROUP_COMMITS_MAX;
/// KiB of commits that may wait for the committer. The largest commit must fit.
const QUEUE_KIB_MAX: usize = 2 * COMMIT_BYTES_MAX / 1024;

/// Where the store lies and what it may use.
#[derive(Debug, Clone)]
pub struct RocksConfig {
    /// Its folder.
    pub path: PathBuf,
    /// Memory for blocks of tables, with their indexes and filters.
    pub block_cache_bytes: usize,
    /// Memory of one write buffer of rows; there are at most three, and others of a quarter of it.
    pub write_buffer_bytes: usize,
    /// Whether the store may be new.
    pub start: Start,
    /// What to do when the folder is lost and the mirror does not give everything back.
    pub on_loss: OnLoss,
}

/// Whether a store that is nowhere to be found is new or lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The cluster's first start: nothing was ever committed.
    First,
    /// There was a start before: a missing store is a loss.
    Again,
}

/// What to do when the folder is lost and the mirror does not provably give everything back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLoss {
    /// Refuse to start.
    Refuse,
    /// Start with what is left. Only ever on an operator's explicit word.
    StartWithWhatIsLeft,
}

impl RocksConfig {
    /// The defaults for a store in `path`: 64 MiB of block cache and write buffers of 16 MiB.
    pub fn new(path: impl Into<PathBuf>, start: Start) -> Self {
        Self {
            path: path.into(),
            block_cache_bytes: 64 << 20,
            write_buffer_bytes: 16 << 20,
            start,
            on_loss: OnLoss::Refuse,
        }
    }
}

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum RocksError {
    /// Another process has it open.
    #[error("{path}: in use by another process", path = .path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The folder can't be read or written.
    #[error("{path}: {source}", path = .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// RocksDB failed for a reason that says nothing against its files.
    #[error("{path}: {what}", path = .path.display())]
    Engine {
        /// The folder.
        path: PathBuf,
        /// RocksDB's message.
        what: String,
    },
    /// The store is missing or damaged, this is not the first start, and no disk has anything of its mirror.
    #[error("{path}: the metadata is lost ({why}), and no disk that can be read has anything of its mirror", path = .path.display())]
    Lost {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The mirror does not give back what is lost, or contradicts what is there.
    #[error("the metadata mirror: {0}")]
    Mirror(#[from] MirrorError),
    /// Filling or reading the new database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rocksdb::Error> for RocksError {
    fn from(error: rocksdb::Error) -> Self {
        Self::Store(error.into())
    }
}

/// The embedded MetaStore.
pub struct RocksMetaStore {
    database: Arc<Database>,
    latest: Arc<AtomicU64>,
    room: Arc<Semaphore>,
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    committer: Mutex<Option<JoinHandle<()>>>,
    mirror: Option<Arc<Mirror>>,
    term: Term,
    stop: CancellationToken,
    tasks: Mutex<JoinSet<()>>,
}

impl RocksMetaStore {
    /// Opens the store; makes it at the first start; rolls it forward or rebuilds it from its mirror where needed.
    ///
    /// Without a mirror the folder is the only copy. When no disk takes writes, the store opens and only reads until one
    /// does. A damaged folder is renamed aside, never deleted. Cancel safety: dropped, it leaves nothing half-made in
    /// place. Must be called within a tokio runtime, which the store uses until [`Self::shutdown`].
    pub async fn open(config: RocksConfig, mirror: Option<MirrorConfig>) -> Result<Arc<Self>, RocksError> {
        let mirror = mirror.map(Mirror::new);
        let survey = match &mirror {
            Some(mirror) => Some(mirror.survey().await),
            None => None,
        };
        let (database, term) = open::open(config, mirror.as_deref().zip(survey.as_ref())).await?;
        if let (Some(mirror), Some(survey)) = (&mirror, &survey)
            && let Err(error) = mirror.establish(survey, &database, term).await
        {
            tracing::warn!(%error, "the metadata store opens without its mirror and takes no commits yet");
        }
        Self::start(database, mirror, term)
    }

    fn start(database: Arc<Database>, mirror: Option<Arc<Mirror>>, term: Term) -> Result<Arc<Self>, RocksError> {
        let latest = Arc::new(AtomicU64::new(database.state()?.latest.0));
        let (jobs, queue) = mpsc::channel(QUEUE_JOBS_MAX);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        if let Some(mirror) = &mirror {
            tasks.spawn(mirror.clone().run(database.clone(), term, stop.clone()));
        }
        let runtime = tokio::runtime::Handle::current();
        let link = mirror.clone().map(|mirror| MirrorLink { mirror, term, runtime, unmirrored: None });
        let committer = Committer { database: database.clone(), latest: latest.clone(), poisoned: None, mirror: link };
        let thread = std::thread::Builder::new()
            .name("valv-committer".to_owned())
            .spawn(move || committer.run(queue))
            .map_err(|source| RocksError::Folder { path: database.db.path().to_owned(), source })?;
        Ok(Arc::new(Self {
            database,
            latest,
            room: Arc::new(Semaphore::new(QUEUE_KIB_MAX)),
            jobs: Mutex::new(Some(jobs)),
            committer: Mutex::new(Some(thread)),
            mirror,
            term,
            stop,
            tasks: Mutex::new(tasks),
        }))
    }

    /// How the mirror is; `None` without one.
    pub fn mirror_status(&self) -> Option<MirrorStatus> {
        self.mirror.as_ref().map(|mirror| mirror.status())
    }

    /// Returns when commits are taken: at once without a mirror, otherwise when enough disks are there to write it and
    /// it holds everything. Cancel safe.
    pub async fn wait_until_ready(&self) {
        if let Some(mirror) = &self.mirror {
            mirror.wait_until_ready().await;
        }
    }

    /// Makes a checkpoint in the mirror now; without a mirror it does nothing. One that is being made is waited for first.
    pub async fn checkpoint(&self) -> Result<(), RocksError> {
        match &self.mirror {
            Some(mirror) => Ok(mirror.checkpoint(&self.database, self.term).await?),
            None => Ok(()),
        }
    }

    /// Takes no further commits, finishes those that wait, and flushes. Reads go on until the store is dropped.
    pub async fn shutdown(&self) -> Result<(), StoreError> {
        self.jobs.lock().take();
        let committer = self.committer.lock().take();
        let finished = tokio::task::spawn_blocking(move || match committer.map(JoinHandle::join) {
            Some(Err(_)) => Err(StoreError::Io { what: "the committer has panicked".to_owned() }),
            _ => Ok(()),
        });
        let finished = finished.await.unwrap_or_else(|error| Err(StoreError::Io { what: error.to_string() }));
        // Only now: the committer may have been waiting for the mirror.
        self.stop.cancel();
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        while tasks.join_next().await.is_some() {}
        if let Some(mirror) = &self.mirror {
            mirror.released().await;
        }
        finished?;
        let database = self.database.clone();
        let flushed = tokio::task::spawn_blocking(move || Ok(database.flush()?));
        flushed.await.unwrap_or_else(|error| Err(StoreError::Io { what: error.to_string() }))
    }

    async fn ask<T>(
        &self,
        job: Job,
        answer: oneshot::Receiver<Result<T, StoreError>>,
        lost: StoreError,
    ) -> Result<T, StoreError> {
        let jobs = self.jobs.lock().clone();
        let Some(jobs) = jobs else { return Err(closed()) };
        jobs.send(job).await.map_err(|_| closed())?;
        drop(jobs);
        answer.await.unwrap_or(Err(lost))
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable { what: "the store is shutting down".to_owned() }
}

/// Checks a commit's sizes and that no key is written twice; returns its weight in bytes.
fn check(commit: &Commit) -> Result<usize, StoreError> {
    let malformed = |what| Err(StoreError::Malformed { what });
    if commit.expected.len() > COMMIT_KEYS_MAX || commit.writes.len() > COMMIT_KEYS_MAX {
        return malformed("too many keys");
    }
    let mut len_bytes = 0;
    let mut written = HashSet::with_capacity(commit.writes.len());
    for key in commit.expected.iter().map(|expectation| &expectation.key).chain(commit.writes.iter().map(|w| &w.key)) {
        if key.len() > KEY_LEN_BYTES_MAX {
            return malformed("a key is too long");
        }
        len_bytes += key.len();
    }
    for write in &commit.writes {
        let value_len = write.value.as_ref().map_or(0, bytes::Bytes::len);
        if value_len > VALUE_LEN_BYTES_MAX {
            return malformed("a value is too long");
        }
        if !written.insert(&write.key) {
            return malformed("a key is written twice");
        }
        len_bytes += value_len;
    }
    if len_bytes > COMMIT_BYTES_MAX {
        return malformed("the commit is too large");
    }
    Ok(len_bytes)
}

#[async_trait]
impl MetaStore for RocksMetaStore {
    async fn get(&self, key: &[u8]) -> Result<Option<Versioned>, StoreError> {
        self.database.row(key)
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Versioned>>, StoreError> {
        match keys {
            // One key needs no snapshot to be consistent.
            [key] => Ok(vec![self.database.row(key)?]),
            _ => self.database.rows_at_once(keys),
        }
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        Ok(Box::new(RocksSnapshot::new(self.database.clone())?))
    }

    async fn commit(&self, commit: Commit) -> Result<CommitOutcome, StoreError> {
        let len_bytes = check(&commit)?;
        let id = commit.id;
        // Both casts are exact: the weight is at most COMMIT_BYTES_MAX.
        let kib = (len_bytes / 1024 + 1) as u32;
        let room = self.room.clone().acquire_many_owned(kib).await.map_err(|_| closed())?;
        let (answer, receiver) = oneshot::channel();
        self.ask(Job::Commit { commit, len_bytes, answer, room }, receiver, StoreError::Unknown { id }).await
    }

    async fn outcome(&self, id: CommitId) -> Result<Option<Revision>, StoreError> {
        let (answer, receiver) = oneshot::channel();
        self.ask(Job::Outcome { id, answer }, receiver, closed()).await
    }

    async fn latest_revision(&self) -> Result<Revision, StoreError> {
        Ok(Revision(self.latest.load(Ordering::Acquire)))
    }
}
