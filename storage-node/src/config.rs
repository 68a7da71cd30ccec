//! Every knob of a node and of its engines, with what its default follows from.

use crate::engine::io::{ExtentIo, SystemIo};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use valv_types::{ClusterId, DiskId, NodeId};

/// One disk of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskConfig {
    /// The disk that is expected in the folder.
    pub disk: DiskId,
    /// Its folder.
    pub path: PathBuf,
    /// A name for people, at most 255 bytes.
    pub name: String,
}

/// A storage node: its identity, its disks, and how their engines run.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// The cluster that its disks must belong to.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// Its disks. Any of them may be away.
    pub disks: Vec<DiskConfig>,
    /// How each engine runs.
    pub engine: EngineConfig,
    /// How often each folder is looked at. 1 s: an emptied mount point takes at most a second of writes.
    pub presence_interval: Duration,
    /// RocksDB block cache shared by all disks of the node. 32 MiB holds the upper levels of the index of some
    /// 10 million shards; the rest is the page cache's work.
    pub index_cache_bytes: usize,
}

impl NodeConfig {
    /// A node with these disks and defaults for everything else.
    pub fn new(cluster: ClusterId, node: NodeId, disks: Vec<DiskConfig>) -> Self {
        Self {
            cluster,
            node,
            disks,
            engine: EngineConfig::default(),
            presence_interval: Duration::from_secs(1),
            index_cache_bytes: 32 << 20,
        }
    }
}

/// How one engine runs.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Length of a new extent. 256 MiB: at 100 MiB/s a few seconds of writing, so the syncs and the directory work of a
    /// new extent vanish, and 40 TB are 160,000 files. A record that is longer gets an extent of its own.
    pub extent_len_bytes: u64,
    /// Payload bytes that may wait for the writer. 64 MiB: half a second at 128 MiB/s.
    pub queue_bytes: u32,
    /// How long a request waits for room in the queue before it is told that the disk is busy.
    pub queue_wait: Duration,
    /// Payload bytes in one group commit. 8 MiB keep a sync near 100 ms on a slow disk.
    pub group_bytes: usize,
    /// Requests in one group commit: bounds the memory of a group of small ones.
    pub group_requests: usize,
    /// RocksDB memtable. 4 MiB hold about 40,000 entries; two of them exist at times.
    pub index_write_buffer_bytes: usize,
    /// Bytes appended after which the index is flushed, so that recovery replays at most about this much.
    pub index_flush_bytes: u64,
    /// An index with unflushed changes is flushed after this long without a write, so that what is acknowledged is
    /// soon attested by a cursor and later damage to it is never taken for a torn tail.
    pub index_flush_idle: Duration,
    /// Reads of one disk that run at once; more wait. 32 saturate a fast SSD.
    pub readers_max: usize,
    /// Bytes that are kept free for deletes and reclaim. `None`: 5 % of the file system, at most 2 GiB. The limit of
    /// 2 GiB is for a large file system shared with other data: there 5 % free is no shortage.
    pub reserve_bytes: Option<u64>,
    /// An extent with a smaller share of live bytes than this is compacted. 50: each byte freed costs at most one copied.
    pub reclaim_live_percent: u8,
    /// Files of reclaimed extents that are kept for reuse, since rewriting blocks can be several times faster than
    /// first writes. 4 are 1 GiB a disk.
    pub recycled_extents_max: usize,
    /// How often the maintenance thread looks for work.
    pub maintenance_interval: Duration,
    /// In which every live byte is verified once.
    pub scrub_period: Duration,
    /// Rate below which the scrub does not slow down, so that small disks are verified well within the period.
    pub scrub_bytes_per_second_min: u64,
    /// Extent files held open at once; others are opened when they are read. Below the usual limit of 1,024 with six
    /// disks and connections beside them.
    pub open_files_max: usize,
    /// How extents are written and synced: the system's calls, or a test's faults.
    pub io: Arc<dyn ExtentIo>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            extent_len_bytes: 256 << 20,
            queue_bytes: 64 << 20,
            queue_wait: Duration::from_secs(5),
            group_bytes: 8 << 20,
            group_requests: 1024,
            index_write_buffer_bytes: 4 << 20,
            index_flush_bytes: 1 << 30,
            index_flush_idle: Duration::from_secs(10),
            readers_max: 32,
            reserve_bytes: None,
            reclaim_live_percent: 50,
            recycled_extents_max: 4,
            maintenance_interval: Duration::from_secs(1),
            scrub_period: Duration::from_secs(14 * 24 * 3600),
            scrub_bytes_per_second_min: 1 << 20,
            open_files_max: 96,
            io: Arc::new(SystemIo),
        }
    }
}

impl EngineConfig {
    /// Names the first knob whose value can't work.
    pub fn check(&self) -> Result<(), &'static str> {
        // A header page, one small record and the seal have to fit.
        if self.extent_len_bytes < 64 * 1024 {
            return Err("extent_len_bytes must be at least 64 KiB");
        }
        if self.queue_bytes < 1 << 20 {
            return Err("queue_bytes must be at least 1 MiB");
        }
        if self.group_bytes == 0 || self.group_requests == 0 {
            return Err("group_bytes and group_requests must not be 0");
        }
        if self.readers_max == 0 || self.open_files_max == 0 {
            return Err("readers_max and open_files_max must not be 0");
        }
        if self.reclaim_live_percent > 95 {
            return Err("reclaim_live_percent must be at most 95");
        }
        if self.scrub_period.is_zero() || self.maintenance_interval.is_zero() {
            return Err("scrub_period and maintenance_interval must not be 0");
        }
        Ok(())
    }
}
