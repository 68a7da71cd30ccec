//! Background work of the metadata service: fencing, the cluster clock, approved acts, lifecycle rules, the trash, the ledgers' trees.
//! Of several services over one store, the holder of a lease does it; the lease only saves work, for every step guards its
//! own rows.

use crate::attempt::{self, Attempt};
use crate::custody::Watch;
use crate::lifecycle::Walk;
use crate::records::{self, LeaseRecord};
use crate::service::{Core, MetadataService};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use valv_metadata_api::MetadataError;
use valv_types::CommitId;

/// The lease's number among leases.
const LEASE_BACKGROUND: u8 = 1;
/// How long a lease holds. Renewed at half; another service takes over this long after a crash.
const LEASE_SECS: u64 = 30;
/// The clock is persisted this often: what a crash forgets only makes retention longer.
const CLOCK_EVERY: Duration = Duration::from_secs(5);
/// Incarnations are looked through this often: their rows are never removed, and silence is a matter of minutes.
const FENCE_EVERY: Duration = Duration::from_secs(10);
/// Ledger records enter their trees this often, and whenever a ledger is exported. Each leaves a tombstone in a range of
/// nothing else: a pass every few seconds had RocksDB compact a table at every flush, a fifth of all that was written.
const SEQUENCE_EVERY: Duration = Duration::from_secs(3600);

impl MetadataService {
    /// Starts the background work. It ends, its current step finished, when `cancel` is cancelled; await the handle to
    /// know that it has.
    pub fn start_background(&self, cancel: CancellationToken) -> JoinHandle<()> {
        let core = Arc::clone(&self.0);
        tokio::spawn(async move { Background::new(core).run(cancel).await })
    }
}

struct Background {
    core: Arc<Core>,
    holder: [u8; 16],
    clock_persisted: Option<Instant>,
    fenced: Option<Instant>,
    sequenced: Option<Instant>,
    lifecycle: Walk,
    horizon: Watch,
}

impl Background {
    fn new(core: Arc<Core>) -> Self {
        Self {
            core,
            holder: *CommitId::random().as_bytes(),
            clock_persisted: None,
            fenced: None,
            sequenced: None,
            lifecycle: Walk::default(),
            horizon: Watch::default(),
        }
    }

    async fn run(mut self, cancel: CancellationToken) {
        let config = &self.core.config;
        let usual = Duration::from_millis(config.background_every_ms.min(config.lifecycle_every_ms).max(1));
        while !cancel.is_cancelled() {
            let pause = match self.pass(&cancel).await {
                Ok(wanted) => wanted.unwrap_or(usual).min(usual),
                Err(error) => {
                    tracing::warn!(%error, "a pass of metadata's background work failed; the next one tries again");
                    usual
                }
            };
            tokio::select! {
                () = cancel.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        if let Err(error) = self.release().await {
            tracing::debug!(%error, "the background lease could not be given back; it runs out by itself");
        }
    }

    /// One round of everything. Returns how long to wait for the next, if work that was begun is to go on earlier.
    async fn pass(&mut self, cancel: &CancellationToken) -> Result<Option<Duration>, MetadataError> {
        // Every service persists its clock: each has seen time pass for itself.
        if self.clock_persisted.is_none_or(|at| at.elapsed() >= CLOCK_EVERY) {
            self.core.clock.persist(self.core.store.as_ref(), &self.core.rows).await?;
            self.clock_persisted = Some(Instant::now());
        }
        if !self.hold().await? {
            // Where the holder of the lease stands is not known here: a later turn begins at the beginning.
            self.lifecycle = Walk::default();
            self.horizon.rest(&self.core);
            return Ok(None);
        }
        if self.fenced.is_none_or(|at| at.elapsed() >= FENCE_EVERY) {
            self.core.fence_silent().await?;
            self.core.tidy_disposals().await?;
            self.fenced = Some(Instant::now());
        }
        self.core.carry_out_due().await?;
        self.core.finish_counts().await?;
        let rotates = self.core.advance_rotations().await?;
        let wanted = self.lifecycle.step(&self.core, cancel).await?;
        self.core.purge_trash().await?;
        if self.sequenced.is_none_or(|at| at.elapsed() >= SEQUENCE_EVERY) {
            self.core.sequence_ledgers().await?;
            self.core.count_all_usage().await?;
            self.sequenced = Some(Instant::now());
        }
        self.horizon.step(&self.core).await?;
        Ok(if rotates { Some(Duration::ZERO) } else { wanted })
    }

    /// Takes or renews the lease. `false` if another service holds it.
    async fn hold(&self) -> Result<bool, MetadataError> {
        let core = &self.core;
        let key = core.rows.lease(LEASE_BACKGROUND);
        let row = core.get(&key).await?;
        let now = core.now();
        if let Some(row) = &row {
            let lease: LeaseRecord = records::decode("lease", &row.value)?;
            let ours = lease.holder == self.holder;
            if !ours && lease.expires > now {
                return Ok(false);
            }
            if ours && lease.expires > now.plus_secs(LEASE_SECS / 2) {
                return Ok(true);
            }
        }
        let mut attempt = Attempt::default();
        attempt.expect(key.clone(), row.as_ref());
        let lease = LeaseRecord { holder: self.holder, expires: now.plus_secs(LEASE_SECS) };
        attempt.put(key, records::encode(&lease));
        attempt::commit(core.store.as_ref(), CommitId::random(), attempt).await
    }

    async fn release(&self) -> Result<(), MetadataError> {
        let key = self.core.rows.lease(LEASE_BACKGROUND);
        let Some(row) = self.core.get(&key).await? else { return Ok(()) };
        if records::decode::<LeaseRecord>("lease", &row.value)?.holder != self.holder {
            return Ok(());
        }
        let mut attempt = Attempt::default();
        attempt.expect(key.clone(), Some(&row));
        attempt.remove(key);
        attempt::commit(self.core.store.as_ref(), CommitId::random(), attempt).await.map(|_| ())
    }
}
