//! The memory budget, and the buffers that are counted against it.
//!
//! Invariant: bytes in buffers that the data path allocated, free buffers kept for reuse included, never exceed the budget.
//!
//! No deadlock: an upload waits for a second buffer only while its first is being stored, a download only for segments
//! that nothing of its own stands behind, and reconstruction draws on a share that nobody else may take. A wait that
//! nothing ends is cut off after `memory_wait`.

use super::metrics::DataMetrics;
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zeroize::Zeroize;

/// Memory is counted in units of this, so that a budget of 16 TiB fits a semaphore's 32-bit permits.
const UNIT_BYTES: usize = 4096;
/// Buffers of at least this size are kept for reuse: fresh ones of this size come from mmap, and touching their pages
/// for the first time costs as much as encrypting them.
const REUSE_LEN_BYTES_MIN: usize = 128 * 1024;
/// Buffers to be kept are rounded up to a multiple of this, so that objects of similar sizes find each other's.
const REUSE_ROUND_BYTES: usize = 128 * 1024;
/// Free buffers kept at most: five full 4+2 chunks. Idle memory stays under the promised 100 MiB.
const REUSE_KEPT_BYTES_MAX: usize = 64 << 20;
/// Free buffers that nobody wanted for this long are given back to the operating system.
const REUSE_IDLE_MAX: Duration = Duration::from_secs(10);
/// Reconstruction's own share of the budget: one part in so many.
const RECOVERY_SHARE: usize = 8;

/// No memory became free in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Overloaded;

/// The budget and the free buffers.
pub(super) struct Memory {
    transfers: Arc<Semaphore>,
    transfers_units: u32,
    recovery: Arc<Semaphore>,
    recovery_units: u32,
    waiting: AtomicUsize,
    free: Mutex<Vec<FreeBuffer>>,
    wait: Duration,
    metrics: Arc<DataMetrics>,
}

struct FreeBuffer {
    bytes: Vec<u8>,
    reservation: Reservation,
    since: Instant,
}

/// A share of the budget, given back when dropped.
pub(super) struct Reservation {
    _permit: OwnedSemaphorePermit,
    len_bytes: i64,
    metrics: Arc<DataMetrics>,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.metrics.memory_bytes.sub(self.len_bytes);
    }
}

fn units(len_bytes: usize) -> u32 {
    u32::try_from(len_bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}

impl Memory {
    pub(super) fn new(budget_bytes: usize, wait: Duration, metrics: Arc<DataMetrics>) -> Arc<Self> {
        let all = units(budget_bytes).max(2);
        let recovery_units = (all / RECOVERY_SHARE as u32).max(1);
        let transfers_units = all - recovery_units;
        Arc::new(Self {
            transfers: Arc::new(Semaphore::new(transfers_units as usize)),
            transfers_units,
            recovery: Arc::new(Semaphore::new(recovery_units as usize)),
            recovery_units,
            waiting: AtomicUsize::new(0),
            free: Mutex::default(),
            wait,
            metrics,
        })
    }

    /// Reserves `len_bytes` for a transfer, waiting as long as the configuration allows. A wish beyond the whole budget
    /// gets the whole budget, alone. First come, first served.
    pub(super) async fn reserve(self: &Arc<Self>, len_bytes: usize) -> Result<Reservation, Overloaded> {
        let wanted = units(len_bytes).min(self.transfers_units);
        if let Ok(permit) = Arc::clone(&self.transfers).try_acquire_many_owned(wanted) {
            return Ok(self.reservation(permit, wanted));
        }
        // While anybody waits, no free buffer is kept: see `give_back`, which looks at `waiting` under the same lock.
        let _waiting = Waiting::new(&self.waiting);
        drop(std::mem::take(&mut *self.free.lock()));
        let acquired = tokio::time::timeout(self.wait, Arc::clone(&self.transfers).acquire_many_owned(wanted)).await;
        match acquired {
            Ok(Ok(permit)) => Ok(self.reservation(permit, wanted)),
            _ => {
                self.metrics.overloaded.inc();
                Err(Overloaded)
            }
        }
    }

    /// Reserves memory for a reconstruction, from the share that is kept for it. Holders never wait for anything else
    /// that needs memory, so it always comes free.
    pub(super) async fn reserve_for_recovery(self: &Arc<Self>, len_bytes: usize) -> Result<Reservation, Overloaded> {
        let wanted = units(len_bytes).min(self.recovery_units);
        let acquired = tokio::time::timeout(self.wait, Arc::clone(&self.recovery).acquire_many_owned(wanted)).await;
        match acquired {
            Ok(Ok(permit)) => Ok(self.reservation(permit, wanted)),
            _ => Err(Overloaded),
        }
    }

    fn reservation(&self, permit: OwnedSemaphorePermit, units: u32) -> Reservation {
        let len_bytes = i64::from(units) * UNIT_BYTES as i64;
        self.metrics.memory_bytes.add(len_bytes);
        Reservation { _permit: permit, len_bytes, metrics: Arc::clone(&self.metrics) }
    }

    /// A buffer of at least `len_bytes`, with whatever bytes its last user left in it.
    pub(super) async fn buffer(self: &Arc<Self>, len_bytes: usize) -> Result<Buffer, Overloaded> {
        let reused = len_bytes >= REUSE_LEN_BYTES_MIN;
        let len_bytes = if reused { len_bytes.next_multiple_of(REUSE_ROUND_BYTES) } else { len_bytes };
        if reused {
            let mut free = self.free.lock();
            if let Some(found) = free.iter().rposition(|buffer| buffer.bytes.len() == len_bytes) {
                let FreeBuffer { bytes, reservation, .. } = free.swap_remove(found);
                drop(free);
                return Ok(Buffer { bytes, plain: 0..0, reservation: Some(reservation), memory: Arc::clone(self) });
            }
        }
        let reservation = self.reserve(len_bytes).await?;
        Ok(Buffer { bytes: vec![0; len_bytes], plain: 0..0, reservation: Some(reservation), memory: Arc::clone(self) })
    }

    fn give_back(&self, bytes: Vec<u8>, reservation: Reservation) {
        if bytes.len() < REUSE_LEN_BYTES_MIN {
            return;
        }
        let mut free = self.free.lock();
        let kept: usize = free.iter().map(|buffer| buffer.bytes.len()).sum();
        if self.waiting.load(Ordering::SeqCst) == 0 && kept + bytes.len() <= REUSE_KEPT_BYTES_MAX {
            free.push(FreeBuffer { bytes, reservation, since: Instant::now() });
        }
    }

    /// Frees buffers that nobody wanted for a while. Called every few seconds.
    pub(super) fn trim(&self) {
        let now = Instant::now();
        self.free.lock().retain(|buffer| now.duration_since(buffer.since) < REUSE_IDLE_MAX);
    }

    /// Bytes that are free at the moment, for tests and metrics.
    #[cfg(test)]
    pub(super) fn available_bytes(&self) -> usize {
        let kept: usize = self.free.lock().iter().map(|buffer| buffer.bytes.len()).sum();
        self.transfers.available_permits() * UNIT_BYTES + kept
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A buffer that counts against the budget as long as it, or any `Bytes` made from it, lives.
pub(super) struct Buffer {
    bytes: Vec<u8>,
    /// Where plaintext stands that is not sealed yet. Wiped when the buffer goes, as others will see what it holds.
    pub(super) plain: Range<usize>,
    reservation: Option<Reservation>,
    memory: Arc<Memory>,
}

impl Buffer {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let plain = std::mem::take(&mut self.plain);
        if let Some(plain) = self.bytes.get_mut(plain) {
            plain.zeroize();
        }
        if let Some(reservation) = self.reservation.take() {
            self.memory.give_back(std::mem::take(&mut self.bytes), reservation);
        }
    }
}
