//! What an operator may change about the data path.

use std::time::Duration;

/// Limits and deadlines of the data path. `Default` gives what `valv server` uses when its file says nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct DataPathConfig {
    /// Bytes of chunk and read buffers at most, all transfers together. A full 4+2 chunk takes 12 MiB with its parity, an
    /// upload has at most two of them, a download at most five segments of 2 MiB. An eighth is kept for reconstruction.
    pub memory_budget_bytes: usize,
    /// How long a transfer waits for memory before it is refused (the client sees 503 SlowDown).
    pub memory_wait: Duration,
    /// A disk that has not made a shard durable after this long is marked down for the blob. The first writes to the
    /// blocks of a virtual disk can take seconds for a burst of a few hundred MiB, so this is generous.
    pub put_deadline: Duration,
    /// A disk that has not answered a read after this long counts as away for that read.
    pub read_deadline: Duration,
    /// A read is hedged after twice the 95th percentile of recent reads, but never sooner than this ...
    pub hedge_after_min: Duration,
    /// ... and never later than this.
    pub hedge_after_max: Duration,
    /// Hedged reads at most, as a share of all reads in percent (a slow cluster must not be made slower).
    pub hedge_percent_max: u32,
    /// Chunks being coded and hashed at the same time. `None`: as many as there are processors.
    pub coding_jobs_max: Option<usize>,
    /// How often the incarnation is renewed and its low-water mark published.
    pub heartbeat_interval: Duration,
    /// How often the disks' states are asked for.
    pub disk_refresh_interval: Duration,
    /// How often the cluster map is asked for.
    pub map_refresh_interval: Duration,
    /// How long a blob whose commit has an unknown outcome holds the low-water mark back. Must be longer than any
    /// commit can be on its way to metadata.
    pub unresolved_commit_hold: Duration,
}

impl Default for DataPathConfig {
    fn default() -> Self {
        Self {
            memory_budget_bytes: 640 << 20,
            memory_wait: Duration::from_secs(20),
            put_deadline: Duration::from_secs(30),
            read_deadline: Duration::from_secs(30),
            hedge_after_min: Duration::from_millis(20),
            hedge_after_max: Duration::from_secs(1),
            hedge_percent_max: 10,
            coding_jobs_max: None,
            heartbeat_interval: Duration::from_secs(3),
            disk_refresh_interval: Duration::from_secs(1),
            map_refresh_interval: Duration::from_secs(5),
            unresolved_commit_hold: Duration::from_secs(600),
        }
    }
}
