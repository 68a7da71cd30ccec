//! What a benchmark measured, and how it is printed.

use super::Workload;
use anyhow::Context;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::time::Duration;

/// One worker's measurements.
pub(crate) struct Samples {
    latency_us: Histogram<u64>,
    bytes: u64,
    errors: u64,
    first_error: Option<String>,
}

impl Samples {
    /// Latencies of 1 us to 10 minutes with three significant digits.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let latency_us = Histogram::new_with_bounds(1, 600_000_000, 3)?;
        Ok(Self { latency_us, bytes: 0, errors: 0, first_error: None })
    }

    /// A request that succeeded and moved `bytes` of body.
    pub(crate) fn ok(&mut self, latency: Duration, bytes: u64) {
        self.latency_us.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
        self.bytes += bytes;
    }

    /// A request that failed.
    pub(crate) fn failed(&mut self, error: anyhow::Error) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| format!("{error:#}"));
    }
}

/// One line of the report.
#[derive(Serialize)]
pub(crate) struct Row {
    workload: String,
    size_bytes: usize,
    requests: u64,
    errors: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_error: Option<String>,
    seconds: f64,
    requests_per_s: f64,
    mib_per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    server_cpu_s: Option<f64>,
    server_cpu_s_per_gib: Option<f64>,
    server_cpu_ms_per_request: Option<f64>,
    #[serde(skip)]
    samples: Option<Samples>,
}

impl Row {
    pub(crate) fn new(workload: Workload, size_bytes: usize) -> Self {
        Self {
            workload: format!("{workload:?}").to_lowercase(),
            size_bytes,
            requests: 0,
            errors: 0,
            first_error: None,
            seconds: 0.0,
            requests_per_s: 0.0,
            mib_per_s: 0.0,
            p50_ms: 0.0,
            p99_ms: 0.0,
            max_ms: 0.0,
            server_cpu_s: None,
            server_cpu_s_per_gib: None,
            server_cpu_ms_per_request: None,
            samples: None,
        }
    }

    /// Adds a worker's measurements.
    pub(crate) fn merge(&mut self, other: Samples) {
        match &mut self.samples {
            None => self.samples = Some(other),
            Some(samples) => {
                // Both histograms have the same bounds, so adding cannot fail.
                let _ = samples.latency_us.add(&other.latency_us);
                samples.bytes += other.bytes;
                samples.errors += other.errors;
                samples.first_error = samples.first_error.take().or(other.first_error);
            }
        }
    }

    /// Works the figures out.
    pub(crate) fn finish(&mut self, elapsed: Duration, cpu_s: f64, cpu_known: bool) {
        let Some(samples) = self.samples.take() else { return };
        let latency = &samples.latency_us;
        let ms = |us: u64| us as f64 / 1000.0;
        self.requests = latency.len();
        self.errors = samples.errors;
        self.first_error = samples.first_error;
        self.seconds = elapsed.as_secs_f64();
        self.requests_per_s = self.requests as f64 / self.seconds;
        self.mib_per_s = samples.bytes as f64 / f64::from(1 << 20) / self.seconds;
        self.p50_ms = ms(latency.value_at_quantile(0.5));
        self.p99_ms = ms(latency.value_at_quantile(0.99));
        self.max_ms = ms(latency.max());
        if cpu_known {
            self.server_cpu_s = Some(cpu_s);
            if samples.bytes > 0 {
                self.server_cpu_s_per_gib = Some(cpu_s / (samples.bytes as f64 / f64::from(1 << 30)));
            }
            if self.requests > 0 {
                self.server_cpu_ms_per_request = Some(cpu_s * 1000.0 / self.requests as f64);
            }
        }
    }
}

/// The whole run.
#[derive(Serialize)]
pub(crate) struct Report {
    endpoint: String,
    clients: usize,
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new(endpoint: &str, clients: usize) -> Self {
        Self { endpoint: endpoint.to_owned(), clients, rows: vec![] }
    }

    pub(crate) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// For scripts.
    pub(crate) fn print_json(&self) {
        match serde_json::to_string_pretty(self) {
            Ok(text) => println!("{text}"),
            Err(error) => eprintln!("the report can't be written as JSON: {error}"),
        }
    }

    /// For people.
    pub(crate) fn print_table(&self) {
        println!("{} with {} clients", self.endpoint, self.clients);
        println!(
            "{:<10} {:>10} {:>9} {:>7} {:>10} {:>10} {:>9} {:>9} {:>9} {:>10} {:>10}",
            "workload",
            "bytes",
            "requests",
            "errors",
            "req/s",
            "MiB/s",
            "p50 ms",
            "p99 ms",
            "max ms",
            "CPU s/GiB",
            "CPU ms/req"
        );
        let or_dash = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
        for row in &self.rows {
            println!(
                "{:<10} {:>10} {:>9} {:>7} {:>10.1} {:>10.1} {:>9.2} {:>9.2} {:>9.2} {:>10} {:>10}",
                row.workload,
                row.size_bytes,
                row.requests,
                row.errors,
                row.requests_per_s,
                row.mib_per_s,
                row.p50_ms,
                row.p99_ms,
                row.max_ms,
                or_dash(row.server_cpu_s_per_gib),
                or_dash(row.server_cpu_ms_per_request),
            );
            if let Some(error) = &row.first_error {
                println!("           first error: {error}");
            }
        }
    }
}

/// User and system CPU seconds that these processes have used so far (proc(5), fields 14 and 15 of stat).
pub(crate) fn cpu_seconds(pids: &[u32]) -> anyhow::Result<f64> {
    let ticks_per_s = rustix::param::clock_ticks_per_second() as f64;
    let mut ticks = 0;
    for pid in pids {
        let path = format!("/proc/{pid}/stat");
        let stat = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        // The command's name may hold blanks; it ends at the last parenthesis.
        let (_, fields) = stat.rsplit_once(')').with_context(|| format!("{path} is malformed"))?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        for index in [11, 12] {
            ticks +=
                fields.get(index).and_then(|field| field.parse::<u64>().ok()).context("/proc stat is malformed")?;
        }
    }
    Ok(ticks as f64 / ticks_per_s)
}
