//! What the gateway counts of its requests. Labels are operations and S3 codes: both sets are fixed, so the number of
//! series is bounded, and nothing names a project, bucket or key.

use crate::accesses::RecorderMetrics;
use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};
use std::time::Duration;

/// Metrics of S3 requests.
pub(crate) struct Metrics {
    requests: IntCounterVec,
    latency: HistogramVec,
    received: IntCounterVec,
    sent: IntCounterVec,
    pub(crate) recorder: RecorderMetrics,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new("valv_s3_requests_total", "S3 requests answered, by operation and S3 error code (or OK)."),
            &["operation", "code"],
        )?;
        let latency = HistogramVec::new(
            HistogramOpts::new("valv_s3_answer_seconds", "Time from a request's headers to its answer's.")
                // 1 ms to 65 s: from a HEAD in memory to a 5 GiB PUT over a slow line.
                .buckets(prometheus::exponential_buckets(0.001, 2.0, 17)?),
            &["operation"],
        )?;
        let received = IntCounterVec::new(
            Opts::new("valv_s3_received_bytes_total", "Plaintext bytes of object bodies received."),
            &["operation"],
        )?;
        let sent = IntCounterVec::new(
            Opts::new("valv_s3_sent_bytes_total", "Plaintext bytes of object bodies sent."),
            &["operation"],
        )?;
        let accesses = IntCounter::new("valv_s3_accesses_recorded_total", "Requests whose access is in the ledger.")?;
        let commits = IntCounter::new("valv_s3_access_commits_total", "Commits that recorded accesses, many in each.")?;
        registry.register(Box::new(accesses.clone()))?;
        registry.register(Box::new(commits.clone()))?;
        let recorder = RecorderMetrics { accesses, commits };
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(latency.clone()))?;
        registry.register(Box::new(received.clone()))?;
        registry.register(Box::new(sent.clone()))?;
        Ok(Self { requests, latency, received, sent, recorder })
    }

    pub(crate) fn answered(&self, operation: &str, code: &str, elapsed: Duration) {
        self.requests.with_label_values(&[operation, code]).inc();
        self.latency.with_label_values(&[operation]).observe(elapsed.as_secs_f64());
    }

    pub(crate) fn received(&self, operation: &str, len_bytes: u64) {
        self.received.with_label_values(&[operation]).inc_by(len_bytes);
    }

    pub(crate) fn sent(&self, operation: &str, len_bytes: u64) {
        self.sent.with_label_values(&[operation]).inc_by(len_bytes);
    }
}
