//! The embedded store and its mirror over real disk engines, killed in the middle of its work.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use valv_codec::SystemKey;
use valv_metadata::store::{
    Commit, CommitOutcome, MIRROR_KEY_PURPOSE, MetaStore, MirrorConfig, RocksConfig, RocksError, RocksMetaStore, Start,
    Write,
};
use valv_storage_node::{Disk, DiskConfig, Identity, NodeConfig, StorageNode};
use valv_types::{ClusterId, CommitId, DiskId, NodeId};

const FOLDER: &str = "VALV_CRASH_TEST_FOLDER";
const DISKS: u8 = 6;
const COMMITTERS: usize = 8;

fn disk_path(folder: &Path, n: u8) -> PathBuf {
    folder.join(format!("disk{n}"))
}

fn cluster() -> ClusterId {
    ClusterId::from_bytes([9; 16])
}

fn format_disks(folder: &Path) {
    for n in 0..DISKS {
        let identity = Identity {
            cluster: cluster(),
            node: NodeId::from_bytes([8; 16]),
            disk: DiskId::from_bytes([n; 16]),
            name: format!("disk{n}"),
        };
        Disk::format(&disk_path(folder, n), &identity).unwrap();
    }
}

struct Running {
    node: Arc<StorageNode>,
    store: Arc<RocksMetaStore>,
}

async fn open(folder: &Path, start: Start, checkpoint_batches: u64) -> Result<Running, RocksError> {
    let disk =
        |n| DiskConfig { disk: DiskId::from_bytes([n; 16]), path: disk_path(folder, n), name: format!("disk{n}") };
    let disks = (0..DISKS).map(disk).collect();
    let config = NodeConfig::new(cluster(), NodeId::from_bytes([8; 16]), disks);
    let node = StorageNode::start(config, &prometheus::Registry::new()).await.unwrap();
    let key = SystemKey::from_bytes(1, &[5; 32]).unwrap().system_record_key(MIRROR_KEY_PURPOSE);
    let mirror = MirrorConfig { checkpoint_batches, ..MirrorConfig::new(node.clone(), key) };
    match RocksMetaStore::open(RocksConfig::new(folder.join("metadata"), start), Some(mirror)).await {
        Ok(store) => Ok(Running { node, store }),
        Err(error) => {
            node.shutdown().await;
            Err(error)
        }
    }
}

impl Running {
    async fn stop(self) {
        self.store.shutdown().await.unwrap();
        drop(self.store);
        self.node.shutdown().await;
    }

    async fn put(&self, key: &str, value: &str) {
        let write = Write { key: Bytes::from(key.to_owned()), value: Some(Bytes::from(value.to_owned())) };
        let commit = Commit { id: CommitId::random(), expected: vec![], writes: vec![write] };
        assert!(matches!(self.store.commit(commit).await.unwrap(), CommitOutcome::Committed(_)));
    }

    /// Every acknowledged value, or a later one of the same committer.
    async fn check(&self, acknowledged: &BTreeMap<String, u64>) {
        for (key, value) in acknowledged {
            let row = self.store.get(key.as_bytes()).await.unwrap().unwrap_or_else(|| panic!("{key} is gone"));
            let found: u64 = std::str::from_utf8(&row.value).unwrap().parse().unwrap();
            assert!(found == *value || found == *value + 1, "{key}: {found}, acknowledged {value}");
        }
    }
}

/// Not a test by itself: what the tests run in another process and kill.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the tests that kill it"]
async fn child() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let running = Arc::new(open(Path::new(&folder), Start::First, 50).await.unwrap());
    let mut tasks = tokio::task::JoinSet::new();
    for committer in 0..COMMITTERS {
        let running = running.clone();
        tasks.spawn(async move {
            let first = format!("key{committer}");
            let start = running.store.get(first.as_bytes()).await.unwrap();
            let start: u64 = start.map_or(0, |row| std::str::from_utf8(&row.value).unwrap().parse().unwrap());
            for n in start + 1.. {
                running.put(&first, &n.to_string()).await;
                running.put(&format!("{first}/{n}"), &n.to_string()).await;
                // In one write, so that the parent never sees half a line of two committers.
                std::io::stderr().lock().write_all(format!("acknowledged {first} {n}\n").as_bytes()).unwrap();
            }
        });
    }
    tasks.join_next().await;
}

/// Runs the child until it has acknowledged `lines` commits, kills it, and adds what it acknowledged.
fn run_and_kill(folder: &Path, lines: usize, acknowledged: &mut BTreeMap<String, u64>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let mut seen = 0;
    for line in stderr.lines() {
        let line = line.unwrap();
        let Some((key, value)) = line.strip_prefix("acknowledged ").and_then(|line| line.split_once(' ')) else {
            continue;
        };
        let value: u64 = value.parse().unwrap();
        acknowledged.insert(key.to_owned(), value);
        acknowledged.insert(format!("{key}/{value}"), value);
        seen += 1;
        if seen == lines {
            child.kill().unwrap();
        }
    }
    assert!(seen >= lines, "the child ended by itself after {seen} commits");
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_commit_survives_kill_9_and_the_loss_of_the_folder_and_of_two_disks() {
    let folder = TempDir::new().unwrap();
    let path = folder.path();
    format_disks(path);
    let mut acknowledged = BTreeMap::new();
    for (round, lines) in [3, 40, 150, 77].into_iter().enumerate() {
        run_and_kill(path, lines, &mut acknowledged);
        let running = open(path, Start::Again, 50).await.unwrap();
        running.check(&acknowledged).await;
        running.stop().await;

        run_and_kill(path, 20, &mut acknowledged);
        std::fs::remove_dir_all(path.join("metadata")).unwrap();
        let (a, b) = (round as u8, (round as u8 * 2 + 3) % DISKS);
        let aside = |n| path.join(format!("aside{n}"));
        for n in [a, b] {
            if disk_path(path, n).exists() {
                std::fs::rename(disk_path(path, n), aside(n)).unwrap();
            }
        }
        let running = open(path, Start::Again, 50).await.unwrap();
        running.check(&acknowledged).await;
        running.put("after", "1").await;
        running.stop().await;
        for n in [a, b] {
            if aside(n).exists() {
                std::fs::rename(aside(n), disk_path(path, n)).unwrap();
            }
        }
    }
}

/// Prints how many commits a second this machine takes; run with `--ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn commits_a_second() {
    for mirrored in [false, true] {
        let folder = TempDir::new_in(std::env::var("VALV_MEASURE_IN").unwrap_or_else(|_| "/tmp".to_owned())).unwrap();
        format_disks(folder.path());
        let running = if mirrored {
            Arc::new(open(folder.path(), Start::First, 100_000).await.unwrap().store)
        } else {
            let config = RocksConfig::new(folder.path().join("metadata"), Start::First);
            Arc::new(RocksMetaStore::open(config, None).await.unwrap())
        };
        let begun = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for committer in 0..16 {
            let store = running.clone();
            tasks.spawn(async move {
                let mut done = 0u64;
                while begun.elapsed() < Duration::from_secs(3) {
                    let write = |part: &str, len: usize| Write {
                        key: Bytes::from(format!("{part}/{committer}/{done}")),
                        value: Some(Bytes::from(vec![7; len])),
                    };
                    let writes =
                        vec![write("head", 300), write("ledger", 200), write("blob", 20), write("inline", 1000)];
                    let commit = Commit { id: CommitId::random(), expected: vec![], writes };
                    store.commit(commit).await.unwrap();
                    done += 1;
                }
                done
            });
        }
        let mut total = 0;
        while let Some(done) = tasks.join_next().await {
            total += done.unwrap();
        }
        let rate = total as f64 / begun.elapsed().as_secs_f64();
        let reads = 200_000;
        let begun = Instant::now();
        for n in 0..reads {
            running.get(format!("head/{}/{}", n % 16, n % 100).as_bytes()).await.unwrap();
        }
        let read_us = begun.elapsed().as_secs_f64() * 1e6 / f64::from(reads);
        println!("mirrored {mirrored}: {rate:.0} commits/s of 16 committers, {read_us:.2} us a get");
        running.shutdown().await.unwrap();
    }
}
