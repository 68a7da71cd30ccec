//! How full a disk is, and whether it takes more.
//!
//! Thresholds are about the file system, which may be shared: six disk folders of a laptop lie beside other data that
//! fills it to 80 % already, and that is no reason to refuse writes. So 85, 90 and 95 % only warn, and writes are refused
//! when what is left is below the reserve: 5 % of the file system, at most 2 GiB. On file systems of up to 40 GiB that is
//! exactly the 95 % threshold. The reserve is for deletes and for the extents that reclaim copies into.

use crate::metrics::DiskMetrics;
use parking_lot::Mutex;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use valv_types::DiskId;

/// The reserve is at most this, however large the file system.
const RESERVE_BYTES_MAX: u64 = 2 << 30;
/// Shares of the file system in use, in percent, at which the log warns.
const WARN_PERCENT: [u64; 3] = [95, 90, 85];

/// A look at the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct FileSystem {
    pub(crate) capacity_bytes: u64,
    pub(crate) available_bytes: u64,
}

impl FileSystem {
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Self {
            capacity_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
            available_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }
}

/// What is kept free on a file system of this size.
fn reserve_bytes(capacity_bytes: u64, configured: Option<u64>) -> u64 {
    configured.unwrap_or_else(|| (capacity_bytes / 20).min(RESERVE_BYTES_MAX))
}

/// The threshold that is reached, or 0.
fn warn_level(fs: FileSystem) -> u64 {
    let used = fs.capacity_bytes.saturating_sub(fs.available_bytes);
    WARN_PERCENT
        .into_iter()
        .find(|percent| used.saturating_mul(100) >= fs.capacity_bytes.saturating_mul(*percent))
        .unwrap_or(0)
}

/// The latest look at a disk's file system.
#[derive(Debug, Default)]
pub(crate) struct Space {
    capacity_bytes: AtomicU64,
    available_bytes: AtomicU64,
    /// Allocated to the disk but not yet written: the rest of the active extent, and recycled files.
    allocated_bytes: AtomicU64,
    reserve_bytes: AtomicU64,
    is_full: AtomicBool,
    warned: Mutex<u64>,
}

impl Space {
    /// Looks again.
    pub(crate) fn refresh(
        &self,
        disk: DiskId,
        path: &Path,
        allocated_bytes: u64,
        configured_reserve: Option<u64>,
        metrics: &DiskMetrics,
    ) -> io::Result<()> {
        let fs = FileSystem::of(path)?;
        let reserve = reserve_bytes(fs.capacity_bytes, configured_reserve);
        self.capacity_bytes.store(fs.capacity_bytes, Ordering::Relaxed);
        self.available_bytes.store(fs.available_bytes, Ordering::Relaxed);
        self.allocated_bytes.store(allocated_bytes, Ordering::Relaxed);
        self.reserve_bytes.store(reserve, Ordering::Relaxed);
        self.is_full.store(fs.available_bytes.saturating_add(allocated_bytes) < reserve, Ordering::Relaxed);
        metrics.capacity_bytes.set(i64::try_from(fs.capacity_bytes).unwrap_or(i64::MAX));
        metrics.free_bytes.set(i64::try_from(self.free_bytes()).unwrap_or(i64::MAX));
        let level = warn_level(fs);
        let mut warned = self.warned.lock();
        if level > *warned {
            tracing::warn!(%disk, used_percent = level, available_bytes = fs.available_bytes, "disk is filling up");
        }
        *warned = level;
        Ok(())
    }

    pub(crate) fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    pub(crate) fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn reserve_bytes(&self) -> u64 {
        self.reserve_bytes.load(Ordering::Relaxed)
    }

    /// Bytes that new shards may still take.
    pub(crate) fn free_bytes(&self) -> u64 {
        let all = self.available_bytes.load(Ordering::Relaxed) + self.allocated_bytes.load(Ordering::Relaxed);
        all.saturating_sub(self.reserve_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn the_reserve_is_a_twentieth_but_no_more_than_2_gib() {
        for (capacity, configured, reserve) in
            [(10 * GIB, None, GIB / 2), (40 * GIB, None, 2 * GIB), (4000 * GIB, None, 2 * GIB), (GIB, Some(7), 7)]
        {
            assert_eq!(reserve_bytes(capacity, configured), reserve);
        }
    }

    #[test]
    fn warnings_start_at_85_percent() {
        for (available, level) in [(100, 0), (16, 0), (15, 85), (11, 85), (10, 90), (5, 95), (0, 95)] {
            assert_eq!(warn_level(FileSystem { capacity_bytes: 100, available_bytes: available }), level);
        }
    }
}
