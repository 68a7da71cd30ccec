//! What the data path counts.

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Registry};
use std::sync::Arc;

/// From a cached read to a disk that is about to be marked down.
const LATENCY_BUCKETS_SECS: [f64; 13] =
    [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3, 1.0, 5.0, 30.0];

pub(super) struct DataMetrics {
    pub(super) bytes_in: IntCounter,
    pub(super) bytes_out: IntCounter,
    pub(super) memory_bytes: IntGauge,
    pub(super) overloaded: IntCounter,
    pub(super) shard_put_seconds: Histogram,
    pub(super) shard_read_seconds: Histogram,
    pub(super) slots_down: IntCounter,
    pub(super) hedges: IntCounter,
    pub(super) reconstructions: IntCounter,
    pub(super) frames_rescued: IntCounter,
    pub(super) repairs_queued: IntCounter,
    pub(super) repairs_dropped: IntCounter,
}

impl DataMetrics {
    pub(super) fn new(registry: &Registry) -> Arc<Self> {
        let counter = |name, help| register(registry, IntCounter::new(name, help));
        let seconds = |name: &str, help: &str| {
            register(
                registry,
                Histogram::with_opts(HistogramOpts::new(name, help).buckets(LATENCY_BUCKETS_SECS.to_vec())),
            )
        };
        Arc::new(Self {
            bytes_in: counter("valv_data_bytes_in_total", "Plaintext bytes of bodies taken in"),
            bytes_out: counter("valv_data_bytes_out_total", "Plaintext bytes of bodies yielded"),
            memory_bytes: register(
                registry,
                IntGauge::new("valv_data_memory_bytes", "Memory budget in use, free buffers included"),
            ),
            overloaded: counter(
                "valv_data_overloaded_total",
                "Transfers refused because the memory budget was used up",
            ),
            shard_put_seconds: seconds("valv_data_shard_put_seconds", "Time until a shard was durable"),
            shard_read_seconds: seconds(
                "valv_data_shard_read_seconds",
                "Time until a shard's range was read and verified",
            ),
            slots_down: counter("valv_data_slots_down_total", "Shards not written because their disk was or went down"),
            hedges: counter("valv_data_hedges_total", "Reads repeated from other shards because the first were slow"),
            reconstructions: counter("valv_data_reconstructions_total", "Ranges worked out from other shards"),
            frames_rescued: counter(
                "valv_data_frames_rescued_total",
                "Frames that failed authentication and were found whole in other shards",
            ),
            repairs_queued: counter("valv_data_repairs_queued_total", "Blobs reported for repair"),
            repairs_dropped: counter(
                "valv_data_repairs_dropped_total",
                "Reports for repair dropped because too many waited",
            ),
        })
    }
}

/// Registers a metric. A second data path on one registry (tests) counts into metrics that nobody scrapes.
fn register<M: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<M>) -> M {
    let metric = match made {
        Ok(metric) => metric,
        Err(error) => unreachable!("metric names and buckets here are constants and valid: {error}"),
    };
    if let Err(error) = registry.register(Box::new(metric.clone())) {
        tracing::warn!(%error, "a metric is not exported");
    }
    metric
}
