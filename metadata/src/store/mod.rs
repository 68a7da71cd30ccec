//! `MetaStore`: ordered keys with revisions, snapshot scans, and conditional commits of many keys at once.
//!
//! The domain logic of the metadata service is deterministic code over this one trait. It must never know which engine
//! lies behind it; what every engine must do is written down as a suite of tests (`conformance`).

#[cfg(any(test, feature = "conformance"))]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "a suite of tests: panicking is how it reports")]
pub mod conformance;
mod export;
mod mirror;
mod rocks;
#[cfg(test)]
mod tests;

pub use export::{EXPORT_KEY_PURPOSE, Exported, RowsError, export_rows, import_rows, verify_rows};
pub use mirror::{MIRROR_KEY_PURPOSE, MirrorConfig, MirrorError, MirrorStatus};
use rocks::Term;
pub use rocks::{OnLoss, RocksConfig, RocksError, RocksMetaStore, Start};

use async_trait::async_trait;
use bytes::Bytes;
use valv_types::{CommitId, Revision};

/// A key: at most [`KEY_LEN_BYTES_MAX`] bytes, ordered as bytes are.
pub type Key = Bytes;

/// Longest key: an object key of 1,024 bytes, each escaped to two, with its prefix and suffix.
pub const KEY_LEN_BYTES_MAX: usize = 2200;
/// Longest value: a page of 256 parts with inline frames excluded is about 64 KiB; an inline body 16 KiB.
pub const VALUE_LEN_BYTES_MAX: usize = 1 << 20;
/// Most keys that one commit may expect or write: a completion of 10,000 parts removes 10,000 part rows, writes 40
/// pages and may release 10,000 blobs of parts that were not named.
pub const COMMIT_KEYS_MAX: usize = 50_000;
/// Largest commit, keys and values together: [`COMMIT_KEYS_MAX`] keys of 150 bytes, and the pages of 10,000 parts with
/// a kilobyte for each, come to 18 MB.
pub const COMMIT_BYTES_MAX: usize = 32 << 20;

/// A value as read, with the revision of the commit that wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// The commit that wrote it.
    pub revision: Revision,
    /// The value.
    pub value: Bytes,
}

/// What a commit demands of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    /// The key.
    pub key: Key,
    /// Its revision; `None` demands that it is absent.
    pub revision: Option<Revision>,
}

/// One write of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The key.
    pub key: Key,
    /// The new value; `None` removes the key.
    pub value: Option<Bytes>,
}

/// A conditional commit: all of it happens, or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Asked for later when the answer was lost. Committing the same id twice has one effect.
    pub id: CommitId,
    /// What must hold.
    pub expected: Vec<Expectation>,
    /// What changes. A key stands at most once.
    pub writes: Vec<Write>,
}

/// How a commit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitOutcome {
    /// It happened, at this revision. Also returned when the same id had been committed before.
    Committed(Revision),
    /// The expectation at this index did not hold; nothing happened.
    Conflict {
        /// Index into [`Commit::expected`].
        index: usize,
    },
}

/// Why a MetaStore did not answer. A conflict is not an error.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Nothing can be committed durably at the moment; nothing happened.
    #[error("the metadata store takes no commits: {what}")]
    Unavailable {
        /// For people.
        what: String,
    },
    /// The commit may or may not have happened: ask [`MetaStore::outcome`].
    #[error("the outcome of commit {id} is unknown")]
    Unknown {
        /// Its id.
        id: CommitId,
    },
    /// A key, value or commit is too large, or a key stands twice among the writes: a bug in the caller.
    #[error("malformed commit: {what}")]
    Malformed {
        /// What was wrong.
        what: &'static str,
    },
    /// A stored row or the engine's own files fail their checks.
    #[error("the metadata store is corrupt: {what}")]
    Corrupt {
        /// Where.
        what: String,
    },
    /// The engine failed.
    #[error("metadata store I/O: {what}")]
    Io {
        /// The engine's message.
        what: String,
    },
}

/// Ordered keys with revisions.
///
/// Consistency: commits are serializable and linearizable; `get` and a new `snapshot` see every commit that returned.
/// Durability: `commit` returns after its writes survive power loss. Cancel safety: a dropped commit may or may not
/// happen; its outcome can be asked for.
#[async_trait]
pub trait MetaStore: Send + Sync + 'static {
    /// Reads one key.
    async fn get(&self, key: &[u8]) -> Result<Option<Versioned>, StoreError>;

    /// Reads several keys from one snapshot, in the order given.
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Versioned>>, StoreError>;

    /// A consistent view of all keys, for scans. Held for seconds, not hours: it keeps old data alive.
    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError>;

    /// Commits, or says which expectation failed.
    async fn commit(&self, commit: Commit) -> Result<CommitOutcome, StoreError>;

    /// Whether a commit with this id happened, and at which revision. Remembered for at least a day.
    async fn outcome(&self, id: CommitId) -> Result<Option<Revision>, StoreError>;

    /// The revision of the latest commit.
    async fn latest_revision(&self) -> Result<Revision, StoreError>;
}

/// A consistent view. Reads may block on disk briefly; they are made for pages of at most a few thousand rows.
pub trait Snapshot: Send + Sync {
    /// The latest revision in the view.
    fn revision(&self) -> Revision;

    /// Reads one key.
    fn get(&self, key: &[u8]) -> Result<Option<Versioned>, StoreError>;

    /// A cursor over keys in `[start, end)`, positioned before the first.
    fn scan(&self, start: &[u8], end: &[u8]) -> Result<Box<dyn Cursor + '_>, StoreError>;
}

/// Walks a range of a snapshot in key order.
pub trait Cursor {
    /// The next row, or `None` at the end of the range.
    fn next(&mut self) -> Result<Option<(Key, Versioned)>, StoreError>;

    /// Goes on at the first key at or after `key` (still within the range): how a listing skips a common prefix
    /// without reading what is under it. `key` must not lie before the current position.
    fn seek(&mut self, key: &[u8]) -> Result<(), StoreError>;
}
