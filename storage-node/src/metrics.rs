//! What a node counts, for Prometheus.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};
use valv_shard_api::DiskState;

/// The families of all disks of a node.
#[derive(Clone)]
pub(crate) struct NodeMetrics {
    state: IntGaugeVec,
    capacity_bytes: IntGaugeVec,
    free_bytes: IntGaugeVec,
    shards: IntGaugeVec,
    live_bytes: IntGaugeVec,
    quarantined: IntGaugeVec,
    written_bytes: IntCounterVec,
    syncs: IntCounterVec,
    sync_seconds: HistogramVec,
    group_requests: HistogramVec,
    reads: IntCounterVec,
    read_bytes: IntCounterVec,
    corrupt: IntCounterVec,
    lost_regions: IntCounterVec,
    reports_dropped: IntCounterVec,
    scrubbed_bytes: IntCounterVec,
    scrub_progress_permille: IntGaugeVec,
    reclaimed_extents: IntCounterVec,
    copied_bytes: IntCounterVec,
}

/// Seconds: from a fast NVMe's sync to a disk in trouble.
const SYNC_SECONDS: [f64; 10] = [0.0002, 0.0005, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 5.0];
/// Requests that shared a sync.
const GROUP_REQUESTS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 64.0, 256.0, 1024.0];

impl NodeMetrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| -> Result<IntGaugeVec, prometheus::Error> {
            let family = IntGaugeVec::new(Opts::new(format!("valv_disk_{name}"), help), &["disk"])?;
            registry.register(Box::new(family.clone()))?;
            Ok(family)
        };
        let counter = |name: &str, help: &str| -> Result<IntCounterVec, prometheus::Error> {
            let family = IntCounterVec::new(Opts::new(format!("valv_disk_{name}"), help), &["disk"])?;
            registry.register(Box::new(family.clone()))?;
            Ok(family)
        };
        let histogram = |name: &str, help: &str, buckets: &[f64]| -> Result<HistogramVec, prometheus::Error> {
            let options = HistogramOpts::new(format!("valv_disk_{name}"), help).buckets(buckets.to_vec());
            let family = HistogramVec::new(options, &["disk"])?;
            registry.register(Box::new(family.clone()))?;
            Ok(family)
        };
        Ok(Self {
            state: gauge("state", "0 online, 1 full, 2 read-only, 3 absent")?,
            capacity_bytes: gauge("capacity_bytes", "Size of the file system")?,
            free_bytes: gauge("free_bytes", "Bytes that new shards may still take")?,
            shards: gauge("shards", "Live shards")?,
            live_bytes: gauge("live_bytes", "Payload bytes of live shards")?,
            quarantined: gauge("quarantined_shards", "Shards found damaged and not yet rewritten")?,
            written_bytes: counter("written_bytes_total", "Bytes appended to extents")?,
            syncs: counter("syncs_total", "fdatasync calls for group commits")?,
            sync_seconds: histogram("sync_seconds", "Duration of the fdatasync of a group", &SYNC_SECONDS)?,
            group_requests: histogram("group_requests", "Requests in a group commit", &GROUP_REQUESTS)?,
            reads: counter("reads_total", "Reads of shards")?,
            read_bytes: counter("read_bytes_total", "Bytes read for reads of shards")?,
            corrupt: counter("corrupt_total", "Records that failed verification")?,
            lost_regions: counter("lost_regions_total", "Damaged stretches of extents that recovery skipped")?,
            reports_dropped: counter("corrupt_reports_dropped_total", "Reports that nobody took in time")?,
            scrubbed_bytes: counter("scrubbed_bytes_total", "Payload bytes verified by the scrub")?,
            scrub_progress_permille: gauge("scrub_progress_permille", "Share of this scrub pass that is done")?,
            reclaimed_extents: counter("reclaimed_extents_total", "Extents recycled or unlinked")?,
            copied_bytes: counter("copied_bytes_total", "Payload bytes copied by compaction")?,
        })
    }

    pub(crate) fn disk(&self, name: &str) -> DiskMetrics {
        let label = &[name];
        DiskMetrics {
            state: self.state.with_label_values(label),
            capacity_bytes: self.capacity_bytes.with_label_values(label),
            free_bytes: self.free_bytes.with_label_values(label),
            shards: self.shards.with_label_values(label),
            live_bytes: self.live_bytes.with_label_values(label),
            quarantined: self.quarantined.with_label_values(label),
            written_bytes: self.written_bytes.with_label_values(label),
            syncs: self.syncs.with_label_values(label),
            sync_seconds: self.sync_seconds.with_label_values(label),
            group_requests: self.group_requests.with_label_values(label),
            reads: self.reads.with_label_values(label),
            read_bytes: self.read_bytes.with_label_values(label),
            corrupt: self.corrupt.with_label_values(label),
            lost_regions: self.lost_regions.with_label_values(label),
            reports_dropped: self.reports_dropped.with_label_values(label),
            scrubbed_bytes: self.scrubbed_bytes.with_label_values(label),
            scrub_progress_permille: self.scrub_progress_permille.with_label_values(label),
            reclaimed_extents: self.reclaimed_extents.with_label_values(label),
            copied_bytes: self.copied_bytes.with_label_values(label),
        }
    }
}

/// One disk's share of the families.
#[derive(Clone)]
pub struct DiskMetrics {
    state: IntGauge,
    pub(crate) capacity_bytes: IntGauge,
    pub(crate) free_bytes: IntGauge,
    pub(crate) shards: IntGauge,
    pub(crate) live_bytes: IntGauge,
    pub(crate) quarantined: IntGauge,
    pub(crate) written_bytes: IntCounter,
    pub(crate) syncs: IntCounter,
    pub(crate) sync_seconds: Histogram,
    pub(crate) group_requests: Histogram,
    pub(crate) reads: IntCounter,
    pub(crate) read_bytes: IntCounter,
    pub(crate) corrupt: IntCounter,
    pub(crate) lost_regions: IntCounter,
    pub(crate) reports_dropped: IntCounter,
    pub(crate) scrubbed_bytes: IntCounter,
    pub(crate) scrub_progress_permille: IntGauge,
    pub(crate) reclaimed_extents: IntCounter,
    pub(crate) copied_bytes: IntCounter,
}

impl DiskMetrics {
    /// The metrics of one disk, registered in `registry`.
    pub fn register(registry: &Registry, disk: &str) -> Result<Self, prometheus::Error> {
        Ok(NodeMetrics::register(registry)?.disk(disk))
    }

    pub(crate) fn set_state(&self, state: DiskState) {
        self.state.set(match state {
            DiskState::Online => 0,
            DiskState::Full => 1,
            DiskState::ReadOnly => 2,
            DiskState::Absent => 3,
        });
    }
}
