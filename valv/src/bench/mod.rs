//! `valv bench`: load over HTTP against any S3 endpoint, so that Valv and its peers are measured by one program.
//!
//! Reports throughput, latency percentiles and, given the server's process ids, the CPU seconds it spent per GiB or
//! per operation. Compare figures of one run only: absolute ones are the machine's.

mod client;
mod report;
mod signer;

use anyhow::{Context, bail};
use client::{Client, Target};
use report::{Report, Row};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// What to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Workload {
    /// PUT of whole objects.
    Put,
    /// Multipart uploads in 16 MiB parts.
    Multipart,
    /// GET of whole objects.
    Get,
    /// HEAD.
    Head,
    /// GET of 64 KiB ranges of the first object that is large enough.
    Range,
    /// ListObjectsV2 pages of 1,000.
    List,
    /// 70 % GET, 20 % PUT, 5 % HEAD, 5 % DELETE.
    Mixed,
}

/// `valv bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    /// The S3 endpoint, http://HOST:PORT.
    #[arg(long, default_value = "http://127.0.0.1:9000")]
    endpoint: String,
    /// Access key id.
    #[arg(long, env = "VALV_ACCESS_KEY_ID")]
    access_key: String,
    /// Secret access key.
    #[arg(long, env = "VALV_SECRET_ACCESS_KEY", hide_env_values = true)]
    secret_key: String,
    /// Region in the signature.
    #[arg(long, default_value = "us-east-1")]
    region: String,
    /// Bucket to use; made if it is not there.
    #[arg(long, default_value = "valv-bench")]
    bucket: String,
    /// Workloads, in order. GET, HEAD, RANGE and LIST read what PUT wrote in the same run.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "put,get,head,range,list,mixed")]
    workload: Vec<Workload>,
    /// Object sizes; every workload but LIST runs once for each.
    #[arg(long, value_delimiter = ',', default_value = "8MiB,512KiB,4KiB")]
    size: Vec<String>,
    /// Requests at once.
    #[arg(long, default_value_t = 8)]
    clients: usize,
    /// How long each measurement runs.
    #[arg(long, default_value = "10s")]
    duration: String,
    /// Sign payloads (SHA-256) instead of UNSIGNED-PAYLOAD.
    #[arg(long)]
    signed_payload: bool,
    /// Process ids of the server, to measure its CPU time.
    #[arg(long, value_delimiter = ',')]
    server_pid: Vec<u32>,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

/// Keys of one object size that exist.
#[derive(Clone)]
struct Population {
    prefix: String,
    size_bytes: usize,
    count: Arc<AtomicU64>,
}

impl Population {
    fn key(&self, index: u64) -> String {
        format!("{}/{index:012}", self.prefix)
    }
}

/// Runs the benchmark and prints its report.
pub(crate) async fn run(args: BenchArgs) -> anyhow::Result<()> {
    if args.clients == 0 || args.clients > 10_000 {
        bail!("--clients must be 1 to 10,000");
    }
    let duration = crate::config::parse_duration(&args.duration).context("--duration is not a time such as 10s")?;
    let sizes = args
        .size
        .iter()
        .map(|text| {
            crate::config::parse_bytes(text).with_context(|| format!("--size {text} is not a size such as 8MiB"))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let target = Target::parse(&args.endpoint, &args.bucket)?;
    let signer = signer::Signer::new(args.access_key, args.secret_key, args.region);
    let client = Arc::new(Client::new(target, signer, args.signed_payload));
    client.ensure_bucket().await?;

    let mut report = Report::new(&args.endpoint, args.clients);
    let run_id = std::process::id();
    for size in sizes {
        let size_bytes = usize::try_from(size)?;
        let population = Population {
            prefix: format!("bench-{run_id}/{size_bytes}"),
            size_bytes,
            count: Arc::new(AtomicU64::new(0)),
        };
        for &workload in &args.workload {
            if workload == Workload::List || (workload == Workload::Range && size_bytes < RANGE_BYTES) {
                continue;
            }
            let plan = Plan { workload, population: population.clone(), clients: args.clients, duration };
            report.add(measure(&client, plan, &args.server_pid).await?);
        }
    }
    if args.workload.contains(&Workload::List) {
        let population =
            Population { prefix: format!("bench-{run_id}"), size_bytes: 0, count: Arc::new(AtomicU64::new(1)) };
        let plan = Plan { workload: Workload::List, population, clients: args.clients, duration };
        report.add(measure(&client, plan, &args.server_pid).await?);
    }
    if args.json {
        report.print_json()
    } else {
        report.print_table()
    }
    Ok(())
}

const RANGE_BYTES: usize = 64 * 1024;
const PART_BYTES: usize = 16 * 1024 * 1024;

struct Plan {
    workload: Workload,
    population: Population,
    clients: usize,
    duration: Duration,
}

async fn measure(client: &Arc<Client>, plan: Plan, pids: &[u32]) -> anyhow::Result<Row> {
    if plan.workload != Workload::Put
        && plan.workload != Workload::Multipart
        && plan.population.count.load(Ordering::Acquire) == 0
    {
        // Something to read: as many objects as there are clients.
        let body = client::random_body(plan.population.size_bytes);
        for index in 0..plan.clients as u64 {
            client.put(&plan.population.key(index), body.clone()).await?;
        }
        plan.population.count.store(plan.clients as u64, Ordering::Release);
    }
    let plan = Arc::new(plan);
    let cpu_before = report::cpu_seconds(pids)?;
    let started = Instant::now();
    let mut workers = JoinSet::new();
    for worker in 0..plan.clients {
        workers.spawn(work(client.clone(), plan.clone(), worker as u64, started + plan.duration));
    }
    let mut row = Row::new(plan.workload, plan.population.size_bytes);
    while let Some(outcome) = workers.join_next().await {
        row.merge(outcome??);
    }
    row.finish(started.elapsed(), report::cpu_seconds(pids)? - cpu_before, !pids.is_empty());
    Ok(row)
}

/// One client: request after request until the time is up.
async fn work(client: Arc<Client>, plan: Arc<Plan>, worker: u64, until: Instant) -> anyhow::Result<report::Samples> {
    let mut samples = report::Samples::new()?;
    let mut random = SplitMix(0x9e37_79b9_7f4a_7c15 ^ (worker + 1));
    let body = client::random_body(plan.population.size_bytes);
    while Instant::now() < until {
        let begun = Instant::now();
        let outcome = step(&client, &plan, &mut random, &body).await;
        match outcome {
            Ok(bytes) => samples.ok(begun.elapsed(), bytes),
            Err(error) => samples.failed(error),
        }
    }
    Ok(samples)
}

async fn step(client: &Client, plan: &Plan, random: &mut SplitMix, body: &bytes::Bytes) -> anyhow::Result<u64> {
    let population = &plan.population;
    let pick = |random: &mut SplitMix| random.below(population.count.load(Ordering::Acquire).max(1));
    let size = population.size_bytes as u64;
    match plan.workload {
        Workload::Put => {
            let index = population.count.fetch_add(1, Ordering::AcqRel);
            client.put(&population.key(index), body.clone()).await?;
            Ok(size)
        }
        Workload::Multipart => {
            let key = format!("{}-multipart/{:016x}", population.prefix, random.next());
            client.multipart(&key, body, PART_BYTES).await?;
            Ok(size)
        }
        Workload::Get => client.get(&population.key(pick(random)), None).await,
        Workload::Head => client.head(&population.key(pick(random))).await.map(|()| 0),
        Workload::Range => {
            let frames = size / RANGE_BYTES as u64;
            let start = random.below(frames.max(1)) * RANGE_BYTES as u64;
            client.get(&population.key(pick(random)), Some(start..start + RANGE_BYTES as u64)).await
        }
        Workload::List => client.list(&population.prefix).await.map(|()| 0),
        Workload::Mixed => match random.below(100) {
            0..70 => client.get(&population.key(pick(random)), None).await,
            70..90 => {
                let key = format!("{}-mixed/{:06}", population.prefix, random.below(1000));
                client.put(&key, body.clone()).await.map(|()| size)
            }
            90..95 => client.head(&population.key(pick(random))).await.map(|()| 0),
            _ => {
                let key = format!("{}-mixed/{:06}", population.prefix, random.below(1000));
                client.delete(&key).await.map(|()| 0)
            }
        },
    }
}

/// A small generator for choosing keys (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators").
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}
