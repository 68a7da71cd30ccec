//! The embedded MetaStore: RocksDB, committed to by one thread.
//!
//! Point reads run on the caller's thread: they are answered from memory or the page cache within microseconds, and
//! a hop to another thread would cost more than the read.

mod committer;
mod database;
mod snapshot;

use super::{
    COMMIT_BYTES_MAX, COMMIT_KEYS_MAX, Commit, CommitOutcome, KEY_LEN_BYTES_MAX, Key, MetaStore, Snapshot, StoreError,
    VALUE_LEN_BYTES_MAX, Versioned,
};
use async_trait::async_trait;
use committer::{Committer, Job};
use database::{Database, OpenFailure, Term};
use parking_lot::Mutex;
use snapshot::RocksSnapshot;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use tokio::sync::{Semaphore, mpsc, oneshot};
use valv_types::{CommitId, Revision};

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
    /// The store is missing or damaged, this is not the first start, and there is no mirror to rebuild it from.
    #[error("{path}: the metadata is lost ({why}) and has no mirror", path = .path.display())]
    Lost {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
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
}

impl RocksMetaStore {
    /// Opens the store, or makes it.
    ///
    /// A damaged folder is renamed aside, never deleted. Cancel safety: dropped, it leaves nothing half-made in place.
    pub async fn open(config: RocksConfig) -> Result<Arc<Self>, RocksError> {
        let database = tokio::task::spawn_blocking(move || open_database(&config)).await;
        let database = match database {
            Ok(database) => Arc::new(database?),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        };
        Self::start(database)
    }

    fn start(database: Arc<Database>) -> Result<Arc<Self>, RocksError> {
        let latest = Arc::new(AtomicU64::new(database.state()?.latest.0));
        let (jobs, queue) = mpsc::channel(QUEUE_JOBS_MAX);
        let committer = Committer { database: database.clone(), latest: latest.clone(), poisoned: None };
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
        }))
    }

    /// Takes no further commits, finishes those that wait, and flushes. Reads go on until the store is dropped.
    pub async fn shutdown(&self) -> Result<(), StoreError> {
        self.jobs.lock().take();
        let committer = self.committer.lock().take();
        let database = self.database.clone();
        let flushed = tokio::task::spawn_blocking(move || {
            if let Some(committer) = committer
                && committer.join().is_err()
            {
                return Err(StoreError::Io { what: "the committer has panicked".to_owned() });
            }
            Ok(database.flush()?)
        });
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

fn open_database(config: &RocksConfig) -> Result<Database, RocksError> {
    let path = &config.path;
    let why = if is_missing(path)? {
        "the folder is missing or empty".to_owned()
    } else {
        match Database::open(path, config) {
            Ok(database) => return Ok(database),
            Err(OpenFailure::InUse) => return Err(RocksError::InUse { path: path.clone() }),
            Err(OpenFailure::Io(what)) => return Err(RocksError::Engine { path: path.clone(), what }),
            Err(OpenFailure::Damaged(what)) => what,
        }
    };
    if config.start == Start::Again {
        return Err(RocksError::Lost { path: path.clone(), why });
    }
    database::build(path, config, |database| {
        let mut batch = rocksdb::WriteBatch::default();
        database.put_latest(&mut batch, Revision(0));
        database.put_term(&mut batch, Term { number: 1, start: 1 });
        Ok(database.write_durably(batch)?)
    })?;
    match Database::open(path, config) {
        Ok(database) => Ok(database),
        Err(failure) => Err(RocksError::Engine { path: path.clone(), what: format!("{failure:?}") }),
    }
}

/// Whether there is nothing in `path`: no folder, or an empty one.
fn is_missing(path: &Path) -> Result<bool, RocksError> {
    match std::fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(source) => Err(RocksError::Folder { path: path.to_owned(), source }),
    }
}
