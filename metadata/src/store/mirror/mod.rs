//! The mirror: every group of commits, sealed, on several disks of the storage nodes, so that no single disk holds the
//! only copy of the metadata.
//!
//! Consistency: a commit is acknowledged when its group is in the WAL and on `copies` disks (or on all that take writes,
//! if those are fewer, and never on none). At most one group, the latest, is ever in the WAL and not in the mirror.
//! Crash consistency: a group that reached the mirror and not the WAL is rolled forward when the store is opened; one
//! that reached the WAL and not the mirror is mirrored again from its rows. Neither had been acknowledged. Retries: a
//! group that no disk took is tried again before anything else is committed. Deletion: older batches and checkpoints are
//! deleted when a newer checkpoint is complete with all its copies, and never on the evidence of absence.

mod checkpoint;
mod copies;
pub(crate) mod format;
mod rebuild;
mod survey;

use super::rocks::{Database, Group};
use super::{StoreError, Term};
use bytes::Bytes;
use copies::Copies;
use format::{BATCH_PIECE_BYTES_MAX, BatchId, CheckpointId, Segment, encode_segment, open, seal};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};
use survey::{Pieces, is_short, len_bytes};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use valv_codec::{KeyError, RecordKey};
use valv_shard_api::{ShardCodec, ShardError, ShardStore};
use valv_types::Revision;

pub(crate) use rebuild::rebuild;
pub(crate) use survey::Survey;

/// How often the disks are asked how they are.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// How long after a failed checkpoint the next is tried at first, doubled with each failure: a checkpoint writes all of
/// the metadata.
const CHECKPOINT_RETRY_AFTER: Duration = Duration::from_secs(5);
/// The longest that it grows to.
const CHECKPOINT_RETRY_AFTER_MAX: Duration = Duration::from_secs(640);
/// How often the copies are counted: seconds of listing, beside a scrub that takes days.
const AUDIT_EVERY: Duration = Duration::from_secs(3600);
/// A checkpoint is made at the latest when there is one batch per this many bytes of the last one: keeps the listing
/// that an open needs below one key for every 5 KiB of metadata.
const CHECKPOINT_BYTES_PER_BATCH: u64 = 16 << 10;

/// Where the mirror goes and how much of it there is.
#[derive(Clone)]
pub struct MirrorConfig {
    /// The disks.
    pub shards: Arc<dyn ShardStore>,
    /// Seals every piece: [`valv_codec::SystemKey::system_record_key`] of [`MIRROR_KEY_PURPOSE`].
    pub key: RecordKey,
    /// On how many disks each piece is put: m+1, so that the loss of any m leaves one.
    pub copies: u8,
    /// Bytes of batches after which a checkpoint is made, or as many as the last checkpoint had if that is more: then
    /// checkpoints at most double what the batches write.
    pub checkpoint_bytes: u64,
    /// Batches after which a checkpoint is made.
    pub checkpoint_batches: u64,
    /// A disk that has not taken its copy by then is replaced by another.
    pub put_deadline: Duration,
    /// How long a disk with copies may be away before new ones are made: longer than a restart of its node.
    pub remirror_after: Duration,
}

/// What the mirror's key is derived for.
pub const MIRROR_KEY_PURPOSE: &str = "metadata mirror";

impl MirrorConfig {
    /// The defaults: three copies (m = 2), a checkpoint each 64 MiB or 100,000 batches.
    pub fn new(shards: Arc<dyn ShardStore>, key: RecordKey) -> Self {
        Self {
            shards,
            key,
            copies: 3,
            checkpoint_bytes: 64 << 20,
            checkpoint_batches: 100_000,
            put_deadline: Duration::from_secs(10),
            remirror_after: Duration::from_secs(60),
        }
    }
}

/// Why the mirror could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// No disk took a copy.
    #[error("no disk takes a copy of the metadata")]
    NoDisk,
    /// So many disks are away that they may hold what is not found elsewhere.
    #[error("{away} disks are away, and with {copies} copies of each piece they may hold metadata that no other has")]
    Hidden {
        /// Disks that can't be read.
        away: usize,
        /// Copies of each piece.
        copies: usize,
    },
    /// Pieces are missing in the middle.
    #[error("the mirror gives the metadata back up to revision {end} and goes on at {beyond}: what is between is lost")]
    Gap {
        /// The last revision before the gap.
        end: u64,
        /// The first after it.
        beyond: u64,
    },
    /// No copy of a piece that the disks list passes its checks.
    #[error("no copy of the mirrored {what} at revision {revision} is readable")]
    Unreadable {
        /// Batch or checkpoint.
        what: &'static str,
        /// Its revision.
        revision: u64,
    },
    /// The mirror has more than the store that is running.
    #[error("the mirror has commits up to revision {mirror}, the store up to {store}: it must be opened again")]
    Ahead {
        /// The mirror's.
        mirror: u64,
        /// The store's.
        store: u64,
    },
    /// A disk refused.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// A piece could not be sealed or opened.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The local store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Opened, but not what it should be.
    #[error("malformed mirror: {what}")]
    Malformed {
        /// What was wrong.
        what: &'static str,
    },
}

/// How the mirror is, for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MirrorStatus {
    /// Whether commits are taken.
    pub ready: bool,
    /// Whether something has fewer copies than configured.
    pub short_of_copies: bool,
    /// Disks that take writes.
    pub disks_online: usize,
    /// The revision of the last checkpoint.
    pub checkpoint: Revision,
    /// Batches since then.
    pub batches_since: u64,
    /// Their bytes.
    pub bytes_since: u64,
}

/// What was mirrored since the last checkpoint.
#[derive(Debug, Default, Clone, Copy)]
struct Since {
    bytes: u64,
    batches: u64,
    checkpoint: Revision,
    checkpoint_bytes: u64,
}

/// The mirror of one store.
pub(crate) struct Mirror {
    copies: Copies,
    config: MirrorConfig,
    /// Whether checkpoint and batches give back everything that was ever committed here.
    ready: watch::Sender<bool>,
    since: Mutex<Since>,
    wake: Notify,
    /// One checkpoint at a time.
    checkpointing: tokio::sync::Mutex<()>,
    /// Threads that read the store for a checkpoint. They end soon after nobody waits for them.
    readers: TaskTracker,
}

impl Mirror {
    pub(crate) fn new(config: MirrorConfig) -> Arc<Self> {
        let copies = Copies::new(config.shards.clone(), usize::from(config.copies), config.put_deadline);
        let (ready, since) = (watch::Sender::new(false), Mutex::default());
        let (checkpointing, readers) = (tokio::sync::Mutex::default(), TaskTracker::new());
        Arc::new(Self { copies, config, ready, since, wake: Notify::new(), checkpointing, readers })
    }

    pub(crate) fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// Returns when commits are taken.
    pub(crate) async fn wait_until_ready(&self) {
        // The sender lives as long as this borrow of it.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// Returns when nothing here holds the store any more. To be called when [`Self::run`] has ended.
    pub(crate) async fn released(&self) {
        self.readers.close();
        self.readers.wait().await;
    }

    pub(crate) fn status(&self) -> MirrorStatus {
        let since = *self.since.lock();
        MirrorStatus {
            ready: self.is_ready(),
            short_of_copies: self.copies.is_short(),
            disks_online: self.copies.online(),
            checkpoint: since.checkpoint,
            batches_since: since.batches,
            bytes_since: since.bytes,
        }
    }

    /// Puts a group on the disks. Durable when it returns; repeating it is harmless.
    pub(crate) async fn append(&self, term: Term, group: &Group) -> Result<(), MirrorError> {
        let body = Bytes::from(encode_segment(&group.commits, &group.rows));
        let id = BatchId::new(term, group.first, group.last, body.len())?;
        for (piece, start) in (0..body.len()).step_by(BATCH_PIECE_BYTES_MAX).enumerate() {
            let key = id.key(piece as u32, 0);
            let plain = &body[start..body.len().min(start + BATCH_PIECE_BYTES_MAX)];
            let sealed = seal(&self.config.key, ShardCodec::MetadataBatch, &key, plain)?;
            self.copies.put(key, ShardCodec::MetadataBatch, sealed).await?;
        }
        let mut since = self.since.lock();
        since.bytes += body.len() as u64;
        since.batches += 1;
        drop(since);
        if self.is_checkpoint_due() {
            self.wake.notify_one();
        }
        Ok(())
    }

    fn is_checkpoint_due(&self) -> bool {
        let since = *self.since.lock();
        let batches_max = self.config.checkpoint_batches.max(since.checkpoint_bytes / CHECKPOINT_BYTES_PER_BATCH);
        since.bytes >= self.config.checkpoint_bytes.max(since.checkpoint_bytes) || since.batches >= batches_max
    }

    /// Lists what the disks have.
    pub(crate) async fn survey(&self) -> Survey {
        Survey::take(&self.copies).await
    }

    /// Refuses if disks are away that may hold what no other has.
    pub(crate) fn refuse_hidden(&self, survey: &Survey) -> Result<(), MirrorError> {
        let copies = self.copies.wanted;
        match survey.away >= copies {
            true => Err(MirrorError::Hidden { away: survey.away, copies }),
            false => Ok(()),
        }
    }

    /// Reads a batch back.
    async fn read_batch(&self, survey: &Survey, id: &BatchId) -> Result<Group, MirrorError> {
        let unreadable = || MirrorError::Unreadable { what: "batch", revision: id.first };
        let pieces = survey.batches.get(id).ok_or_else(unreadable)?;
        let mut body = Vec::new();
        for piece in 0..u32::from(id.pieces) {
            let key = id.key(piece, 0);
            let places = &pieces.get(&piece).ok_or_else(unreadable)?.places;
            let opener = |sealed: &[u8]| open(&self.config.key, ShardCodec::MetadataBatch, &key, sealed);
            body.extend_from_slice(&self.copies.read(key, places, opener).await.ok_or_else(unreadable)?);
        }
        let Segment { commits, rows } = Segment::decode(&body)?;
        let revisions = commits.iter().map(|(_, revision, _)| revision.0);
        if !revisions.eq(id.first..=id.last()) {
            return Err(MirrorError::Malformed { what: "a batch whose commits are not those of its key" });
        }
        Ok(Group { first: Revision(id.first), last: Revision(id.last()), commits, rows })
    }

    /// Batches beyond what the store has: what an earlier opening mirrored without getting it into its WAL, or all that
    /// a folder brought back from a backup lacks. `None` if they do not connect to it and only a rebuild helps.
    pub(crate) async fn ahead_of(
        &self,
        survey: &Survey,
        latest: Revision,
        known: Term,
    ) -> Result<Option<Vec<Group>>, MirrorError> {
        let chain = survey.chain(latest.0, known);
        let checkpoint = survey.complete_checkpoints().next().map_or(0, |(id, _)| id.revision);
        if chain.end < checkpoint {
            return Ok(None);
        }
        if let Some(beyond) = chain.beyond {
            return Err(MirrorError::Gap { end: chain.end, beyond });
        }
        let mut groups = Vec::with_capacity(chain.batches.len());
        for id in &chain.batches {
            match self.read_batch(survey, id).await {
                Ok(group) => groups.push(group),
                // Had it been acknowledged, the store's own WAL would have it: a torn end, and nothing is lost.
                Err(error) if chain.batches.len() == 1 => {
                    tracing::warn!(%error, "a batch that was never acknowledged is dropped");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Some(groups))
    }

    /// The newest checkpoint that has all its pieces.
    async fn base<'a>(&self, survey: &'a Survey) -> Option<(&'a CheckpointId, &'a Pieces)> {
        for (id, pieces) in survey.complete_checkpoints() {
            if self.covers(id, pieces).await {
                return Some((id, pieces));
            }
        }
        None
    }

    /// Looks whether everything that the mirror needs still has all its copies: the disks' own scrub quarantines what
    /// it finds damaged.
    async fn audit(&self, term: Term) {
        let survey = self.survey().await;
        let base = self.base(&survey).await;
        let chain = survey.chain(base.map_or(0, |(id, _)| id.revision), term);
        let batches = chain.batches.iter().filter_map(|id| survey.batches.get(id));
        if survey.away == 0 && batches.chain(base.map(|(_, pieces)| pieces)).any(|p| is_short(p, self.copies.wanted)) {
            tracing::warn!("copies of the metadata mirror are damaged or missing: new ones will be made");
            self.copies.found_short();
        }
    }

    /// Makes sure that the mirror gives back everything that `database` holds, after which commits are taken.
    pub(crate) async fn establish(
        &self,
        survey: &Survey,
        database: &Arc<Database>,
        term: Term,
    ) -> Result<(), MirrorError> {
        if !self.copies.is_writable() {
            return Err(MirrorError::NoDisk);
        }
        let latest = database.state()?.latest.0;
        let base = self.base(survey).await;
        let after = base.map_or(0, |(id, _)| id.revision);
        let chain = survey.chain(after, term);
        if chain.end > latest {
            return Err(MirrorError::Ahead { mirror: chain.end, store: latest });
        }
        let wanted = self.copies.wanted;
        let batches = || chain.batches.iter().filter_map(|id| survey.batches.get(id));
        let needed = || batches().chain(base.map(|(_, pieces)| pieces));
        let holders =
            needed().flat_map(|pieces| pieces.values()).flat_map(|piece| &piece.places).map(|(disk, _)| *disk);
        self.copies.found(holders, needed().any(|pieces| is_short(pieces, wanted)));
        *self.since.lock() = Since {
            batches: chain.batches.len() as u64,
            checkpoint: Revision(after),
            checkpoint_bytes: base.map_or(0, |(_, pieces)| len_bytes(pieces)),
            bytes: batches().map(len_bytes).sum(),
        };
        if base.is_none() && latest == 0 {
            // So that a store in which nothing was committed yet is told from one whose mirror is gone.
            self.checkpoint(database, term).await?;
        } else if chain.end < latest || chain.beyond.is_some() {
            match database.tail_group()? {
                Some(tail) if chain.beyond.is_none() && tail.first.0 == chain.end + 1 && tail.last.0 == latest => {
                    self.append(term, &tail).await?;
                }
                _ => {
                    tracing::warn!(mirrored = chain.end, latest, "the mirror lacks commits: making a checkpoint");
                    self.checkpoint(database, term).await?;
                }
            }
        }
        self.ready.send_replace(true);
        Ok(())
    }

    /// Watches the disks, establishes the mirror when it could not be before, and makes checkpoints. Ends when told to.
    pub(crate) async fn run(self: Arc<Self>, database: Arc<Database>, term: Term, stop: CancellationToken) {
        let work = async {
            let mut tick = tokio::time::interval(WATCH_EVERY);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut audited = Instant::now();
            let mut not_before = Instant::now();
            let mut retry_after = CHECKPOINT_RETRY_AFTER;
            loop {
                tokio::select! {
                    _ = tick.tick() => {}
                    () = self.wake.notified() => {}
                }
                if let Err(error) = self.copies.refresh().await {
                    tracing::warn!(%error, "the state of the disks is unknown");
                    continue;
                }
                if !self.is_ready() {
                    self.try_establish(&database, term).await;
                    continue;
                }
                if audited.elapsed() >= AUDIT_EVERY {
                    self.audit(term).await;
                    audited = Instant::now();
                }
                let due = self.is_checkpoint_due() || self.copies.needs_copies(self.config.remirror_after);
                if due && Instant::now() >= not_before {
                    let made = self.checkpoint(&database, term).await;
                    if let Err(error) = &made {
                        tracing::warn!(%error, "no checkpoint of the metadata could be made");
                    }
                    // One that is short of copies is no better than the last.
                    let is_useless = made.is_err() || self.copies.is_short();
                    retry_after = match is_useless {
                        true => (retry_after * 2).min(CHECKPOINT_RETRY_AFTER_MAX),
                        false => CHECKPOINT_RETRY_AFTER,
                    };
                    not_before = Instant::now() + if is_useless { retry_after } else { Duration::ZERO };
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = stop.cancelled() => {}
        }
    }

    async fn try_establish(&self, database: &Arc<Database>, term: Term) {
        let survey = self.survey().await;
        match self.establish(&survey, database, term).await {
            Ok(()) => tracing::info!("the metadata mirror is complete: commits are taken"),
            Err(error) => tracing::warn!(%error, "no commits: the metadata can't be mirrored"),
        }
    }
}
