//! Puts each piece on several disks, and reads it from whichever still has it.
//!
//! Consistency: a put is done when the configured number of disks has it durably; with fewer disks that take writes, all
//! of those. Retries: a disk that refuses or misses the deadline is left out for a while and another takes its copy.
//! The same few disks are used until one fails or a checkpoint is made, so that losing a disk touches as little as it
//! can and what lies where is known without a row per batch.

use super::MirrorError;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use valv_shard_api::{DiskState, DiskStatus, NewShard, ShardCodec, ShardError, ShardStore, block_hashes};
use valv_types::{DiskId, ShardKey};

/// How long a disk that failed a put is left out, unless no other is left.
const SUSPENSION: Duration = Duration::from_secs(10);

/// Whether a disk in this state may take a copy.
fn may_take(state: DiskState) -> bool {
    matches!(state, DiskState::Online | DiskState::Full)
}

pub(super) struct Copies {
    pub(super) shards: Arc<dyn ShardStore>,
    pub(super) wanted: usize,
    pub(super) put_deadline: Duration,
    roster: Mutex<Roster>,
}

#[derive(Default)]
struct Roster {
    statuses: Vec<DiskStatus>,
    suspended: HashMap<DiskId, Instant>,
    /// The disks in use.
    set: Vec<DiskId>,
    /// Disks with something that the mirror needs, and how they were formatted when it was put there.
    holders: BTreeMap<DiskId, [u8; 16]>,
    /// The same for what comes after the checkpoint that is being made.
    next_holders: Option<BTreeMap<DiskId, [u8; 16]>>,
    /// Whether something that the mirror needs has fewer copies than wanted.
    short: bool,
    next_short: bool,
    /// Since when a holder is missing.
    missing_since: Option<Instant>,
}

impl Copies {
    pub(super) fn new(shards: Arc<dyn ShardStore>, wanted: usize, put_deadline: Duration) -> Self {
        Self { shards, wanted: wanted.max(1), put_deadline, roster: Mutex::default() }
    }

    /// Asks the disks how they are.
    pub(super) async fn refresh(&self) -> Result<(), MirrorError> {
        let statuses = self.shards.disks().await?;
        let mut roster = self.roster.lock();
        roster.statuses = statuses;
        let missing = roster.holders.iter().any(|(disk, formatted)| {
            !roster
                .statuses
                .iter()
                .any(|s| s.disk == *disk && s.state != DiskState::Absent && s.formatted == *formatted)
        });
        roster.missing_since = missing.then(|| roster.missing_since.unwrap_or_else(Instant::now));
        Ok(())
    }

    /// Disks that can be read, and how many there are besides.
    pub(super) fn readable(&self) -> (Vec<DiskId>, usize) {
        let roster = self.roster.lock();
        let present = roster.statuses.iter().filter(|status| status.state != DiskState::Absent);
        let present: Vec<_> = present.map(|status| status.disk).collect();
        let away = roster.statuses.len() - present.len();
        (present, away)
    }

    /// How many disks are online.
    pub(super) fn online(&self) -> usize {
        self.roster.lock().statuses.iter().filter(|status| status.state == DiskState::Online).count()
    }

    /// Whether any disk may take a copy.
    pub(super) fn is_writable(&self) -> bool {
        self.roster.lock().statuses.iter().any(|status| may_take(status.state))
    }

    /// Notes that something has fewer sound copies than wanted.
    pub(super) fn found_short(&self) {
        self.roster.lock().short = true;
    }

    /// Whether something has fewer copies than wanted.
    pub(super) fn is_short(&self) -> bool {
        self.roster.lock().short
    }

    /// Whether more copies are needed and can be had: some were never made, or a disk that has some is missing for
    /// `patience` or longer.
    pub(super) fn needs_copies(&self, patience: Duration) -> bool {
        let roster = self.roster.lock();
        let online = roster.statuses.iter().filter(|status| status.state == DiskState::Online).count();
        let missing = roster.missing_since.is_some_and(|since| since.elapsed() >= patience);
        online >= self.wanted && (roster.short || missing)
    }

    /// Notes what a survey found: who holds what the mirror needs, and whether all of it has enough copies.
    pub(super) fn found(&self, holders: impl Iterator<Item = DiskId>, short: bool) {
        let mut roster = self.roster.lock();
        let formatted: HashMap<_, _> = roster.statuses.iter().map(|status| (status.disk, status.formatted)).collect();
        roster.holders = holders.filter_map(|disk| Some((disk, *formatted.get(&disk)?))).collect();
        roster.short = short;
    }

    /// From here on everything that is put counts for the checkpoint that is being made; it goes to other disks than
    /// before, so that over time all bear the same load.
    pub(super) fn begin_checkpoint(&self) {
        let mut roster = self.roster.lock();
        roster.next_holders = Some(BTreeMap::new());
        roster.next_short = false;
        let mut online: Vec<_> = roster.statuses.iter().filter(|s| s.state == DiskState::Online).collect();
        online.sort_by_key(|status| (roster.set.contains(&status.disk), std::cmp::Reverse(status.free_bytes)));
        roster.set = online.iter().take(self.wanted).map(|status| status.disk).collect();
    }

    /// The checkpoint is complete, or it failed and nothing may rely on it. Returns whether everything that now counts
    /// has as many copies as wanted.
    pub(super) fn end_checkpoint(&self, complete: bool) -> bool {
        let mut roster = self.roster.lock();
        if let Some(next) = roster.next_holders.take()
            && complete
        {
            roster.holders = next;
            roster.short = roster.next_short;
            roster.missing_since = None;
        }
        !roster.short
    }

    /// Puts a piece on as many disks as wanted; fails only if no disk takes it.
    pub(super) async fn put(&self, key: ShardKey, codec: ShardCodec, payload: Bytes) -> Result<(), MirrorError> {
        let mut candidates = self.candidates();
        if candidates.is_empty() {
            self.refresh().await?;
            candidates = self.candidates();
        }
        let hashes = block_hashes(&payload);
        let put = |disk: DiskId, copy: u8| {
            let key = ShardKey { shard: copy, ..key };
            let shard = NewShard { key, generation: 0, codec, payload: payload.clone(), block_hashes: hashes.clone() };
            async move {
                let done = tokio::time::timeout(self.put_deadline, self.shards.put(disk, shard)).await;
                (disk, copy, done.unwrap_or(Err(ShardError::Away { disk })))
            }
        };
        let mut running = FuturesUnordered::new();
        for copy in 0..self.wanted {
            if let Some(disk) = candidates.pop_front() {
                running.push(put(disk, copy as u8));
            }
        }
        let mut holders = Vec::with_capacity(self.wanted);
        while let Some((disk, copy, done)) = running.next().await {
            match done {
                Ok(()) => holders.push(disk),
                Err(error) => {
                    tracing::warn!(%disk, %error, "a disk did not take its copy of the metadata mirror");
                    self.roster.lock().suspended.insert(disk, Instant::now());
                    if let Some(other) = candidates.pop_front() {
                        running.push(put(other, copy));
                    }
                }
            }
        }
        self.record(&holders)
    }

    fn record(&self, holders: &[DiskId]) -> Result<(), MirrorError> {
        if holders.is_empty() {
            return Err(MirrorError::NoDisk);
        }
        let mut roster = self.roster.lock();
        for disk in holders {
            let formatted = roster.statuses.iter().find(|status| status.disk == *disk).map(|status| status.formatted);
            let formatted = formatted.unwrap_or_default();
            roster.holders.entry(*disk).or_insert(formatted);
            if let Some(next) = &mut roster.next_holders {
                next.entry(*disk).or_insert(formatted);
            }
        }
        if roster.set != holders {
            roster.set = holders.to_vec();
        }
        if holders.len() < self.wanted {
            if !roster.short {
                tracing::warn!(copies = holders.len(), wanted = self.wanted, "the metadata mirror is short of copies");
            }
            roster.short = true;
            roster.next_short = true;
        }
        Ok(())
    }

    /// Disks to put a copy on, in the order to try them: those in use, the other ones, full ones, and last those that
    /// failed. A full disk is asked because it keeps room for what deletes need, and a delete needs a commit.
    fn candidates(&self) -> VecDeque<DiskId> {
        let mut roster = self.roster.lock();
        roster.suspended.retain(|_, since| since.elapsed() < SUSPENSION);
        let mut disks: Vec<_> = roster.statuses.iter().filter(|status| may_take(status.state)).collect();
        let place = |disk: &DiskId| roster.set.iter().position(|used| used == disk).unwrap_or(usize::MAX);
        disks.sort_by_key(|status| {
            let is_suspended = roster.suspended.contains_key(&status.disk);
            (is_suspended, status.state == DiskState::Full, place(&status.disk))
        });
        disks.into_iter().map(|status| status.disk).collect()
    }

    /// Reads a whole shard from the first of `places` that gives one which `open` accepts.
    pub(super) async fn read<T>(
        &self,
        key: ShardKey,
        places: &[(DiskId, u8)],
        open: impl Fn(&[u8]) -> Result<T, MirrorError>,
    ) -> Option<T> {
        for (disk, copy) in places {
            let key = ShardKey { shard: *copy, ..key };
            match self.read_copy(*disk, key).await.and_then(|sealed| open(&sealed)) {
                Ok(opened) => return Some(opened),
                Err(error) => tracing::warn!(%disk, revision = key.placement, chunk = key.chunk, %error,
                    "a copy of the metadata mirror is unreadable"),
            }
        }
        None
    }

    async fn read_copy(&self, disk: DiskId, key: ShardKey) -> Result<Bytes, MirrorError> {
        let stat = self.shards.stat(disk, vec![key]).await?;
        let Some(Some(stat)) = stat.first() else { return Err(ShardError::NotFound { disk }.into()) };
        Ok(self.shards.read(disk, key, 0..stat.len_bytes).await?.into_bytes())
    }
}
