//! A node with several disks: folders that vanish and return, and the same API over gRPC.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::*;
use prometheus::Registry;
use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use valv_shard_api::{DiskState, ShardError, ShardStore};
use valv_storage_node::grpc::{ClientConfig, ShardClient, ShardService};
use valv_storage_node::{Disk, DiskConfig, EngineConfig, Identity, NodeConfig, NodeError, StorageNode};
use valv_types::DiskId;

fn id(number: u8) -> DiskId {
    DiskId::from_bytes([number; 16])
}

struct Bench {
    dir: TempDir,
    config: NodeConfig,
}

impl Bench {
    fn new(disks: u8) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let disks = (1..=disks)
            .map(|number| {
                let name = format!("disk-{number}");
                let path = dir.path().join(&name);
                format(&path, number);
                DiskConfig { disk: id(number), path, name }
            })
            .collect();
        let mut config = NodeConfig::new(identity().cluster, identity().node, disks);
        config.engine = EngineConfig { maintenance_interval: Duration::from_millis(20), ..small() };
        config.presence_interval = Duration::from_millis(20);
        Self { dir, config }
    }

    fn path(&self, number: usize) -> PathBuf {
        self.config.disks[number - 1].path.clone()
    }

    async fn start(&self) -> Arc<StorageNode> {
        StorageNode::start(self.config.clone(), &Registry::new()).await.unwrap()
    }
}

fn format(path: &Path, number: u8) {
    let identity = Identity { disk: id(number), name: format!("disk-{number}"), ..identity() };
    Disk::format(path, &identity).unwrap();
}

async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < Duration::from_secs(30), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn state(store: &dyn ShardStore, disk: DiskId) -> DiskState {
    store.disks().await.unwrap().into_iter().find(|status| status.disk == disk).unwrap().state
}

#[test]
fn a_folder_that_vanishes_is_away_and_comes_back_with_its_shards() {
    runtime().block_on(async {
        let bench = Bench::new(2);
        let node = bench.start().await;
        node.put(id(1), shard(key(0), payload(0, 5000))).await.unwrap();
        let before = node.disks().await.unwrap()[0].clone();
        let aside = bench.dir.path().join("aside");
        fs::rename(bench.path(1), &aside).unwrap();
        until("away", || async { state(&*node, id(1)).await == DiskState::Absent }).await;
        // An empty mount point in its place is not the disk, and stays empty.
        fs::create_dir(bench.path(1)).unwrap();
        assert!(matches!(node.read(id(1), key(0), 0..10).await, Err(ShardError::Away { .. })));
        assert!(matches!(node.put(id(1), shard(key(1), payload(1, 10))).await, Err(ShardError::Away { .. })));
        assert!(node.put(id(2), shard(key(1), payload(1, 10))).await.is_ok());
        until("told empty", || async { node.disks().await.unwrap()[0].reason.contains("empty") }).await;
        assert_eq!(fs::read_dir(bench.path(1)).unwrap().count(), 0);
        fs::remove_dir(bench.path(1)).unwrap();
        fs::rename(&aside, bench.path(1)).unwrap();
        until("back", || async { state(&*node, id(1)).await == DiskState::Online }).await;
        let after = node.disks().await.unwrap()[0].clone();
        assert!(after.opened > before.opened);
        assert_eq!((after.formatted, after.shards), (before.formatted, 1));
        assert_eq!(node.read(id(1), key(0), 0..5000).await.unwrap().into_bytes(), payload(0, 5000));
        node.shutdown().await;
    });
}

#[test]
fn a_replaced_folder_is_taken_up_as_new() {
    runtime().block_on(async {
        let bench = Bench::new(1);
        let node = bench.start().await;
        node.put(id(1), shard(key(0), payload(0, 5000))).await.unwrap();
        let before = node.disks().await.unwrap()[0].clone();
        fs::rename(bench.path(1), bench.dir.path().join("broken")).unwrap();
        format(&bench.path(1), 1);
        until("replaced", || async {
            let status = node.disks().await.unwrap()[0].clone();
            status.state == DiskState::Online && status.formatted != before.formatted
        })
        .await;
        let after = node.disks().await.unwrap()[0].clone();
        assert!(after.opened > before.opened);
        assert!(matches!(node.read(id(1), key(0), 0..10).await, Err(ShardError::NotFound { .. })));
        node.shutdown().await;
    });
}

#[test]
fn a_node_starts_without_some_of_its_disks_and_ends_cleanly() {
    runtime().block_on(async {
        let bench = Bench::new(3);
        fs::remove_dir_all(bench.path(2)).unwrap();
        let node = bench.start().await;
        let states: Vec<_> = node.disks().await.unwrap().iter().map(|status| status.state).collect();
        assert_eq!(states, [DiskState::Online, DiskState::Absent, DiskState::Online]);
        node.put(id(3), shard(key(0), payload(0, 5000))).await.unwrap();
        node.shutdown().await;
        assert!(matches!(node.put(id(3), shard(key(1), payload(1, 10))).await, Err(ShardError::Away { .. })));
        let node = bench.start().await;
        assert_eq!(node.read(id(3), key(0), 0..5000).await.unwrap().into_bytes(), payload(0, 5000));
        node.shutdown().await;
    });
}

#[test]
fn two_disks_of_one_id_are_refused() {
    runtime().block_on(async {
        let mut bench = Bench::new(2);
        bench.config.disks[1].disk = id(1);
        let result = StorageNode::start(bench.config.clone(), &Registry::new()).await;
        assert!(matches!(result, Err(NodeError::Duplicate(_))));
    });
}

#[test]
fn the_background_reclaims_and_scrubs() {
    runtime().block_on(async {
        let bench = Bench::new(1);
        let node = bench.start().await;
        let mut reports = node.corrupt_reports().unwrap();
        assert!(node.corrupt_reports().is_none());
        for number in 0..12 {
            node.put(id(1), shard(key(number), payload(number, 30_000))).await.unwrap();
        }
        let first = bench.path(1).join("extents/0000000000000001.ext");
        assert!(first.exists());
        node.delete(id(1), (0..10).map(key).collect()).await.unwrap();
        until("reclaimed", || async { !first.exists() }).await;
        // Damage that nobody reads: the scrub finds it by itself.
        let extents = fs::read_dir(bench.path(1).join("extents")).unwrap().map(|entry| entry.unwrap().path());
        for path in extents.filter(|path| path.extension().is_some_and(|kind| kind == "ext")) {
            let mut bytes = fs::read(&path).unwrap();
            let at = bytes.windows(64).position(|window| *window == payload(11, 64)[..]);
            if let Some(at) = at {
                bytes[at + 20_000] ^= 1;
                // In place: the engine has the file open.
                let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
                std::os::unix::fs::FileExt::write_all_at(&file, &bytes[at..at + 30_000], at as u64).unwrap();
            }
        }
        node.scrub_now(id(1)).await.unwrap();
        assert_eq!(reports.recv().await.unwrap().key, key(11));
        node.shutdown().await;
    });
}

async fn serve(node: Arc<StorageNode>) -> (String, CancellationToken, JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let server = tokio::spawn(async move {
        tonic::transport::Server::builder()
            .add_service(ShardService::new(node).into_server())
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped.cancelled_owned())
            .await
            .unwrap();
    });
    (address, stop, server)
}

#[test]
fn the_client_does_over_grpc_what_the_node_does() {
    runtime().block_on(async {
        let bench = Bench::new(2);
        let node = bench.start().await;
        let (address, stop, server) = serve(node.clone()).await;
        let client = ShardClient::new(&[address], ClientConfig::default()).unwrap();
        let long = payload(1, 5_000_000);
        client.put(id(1), shard(key(1), long.clone())).await.unwrap();
        client.put(id(1), shard(key(2), payload(2, 100))).await.unwrap();
        for range in [0..5_000_000, 0..1, 3_000_000..3_065_552, 4_999_999..5_000_000, 77..77] {
            let read = client.read(id(1), key(1), range.clone()).await.unwrap();
            assert_eq!(read.into_bytes(), long.slice(range.start as usize..range.end as usize));
        }
        assert!(matches!(client.read(id(1), key(1), 0..5_000_001).await, Err(ShardError::Malformed { .. })));
        assert!(matches!(client.read(id(2), key(1), 0..1).await, Err(ShardError::NotFound { .. })));
        assert!(matches!(client.read(id(9), key(1), 0..1).await, Err(ShardError::Away { .. })));
        let stat = client.stat(id(1), vec![key(3), key(1)]).await.unwrap();
        assert_eq!((stat[0], stat[1]), (None, node.stat(id(1), vec![key(1)]).await.unwrap()[0]));
        for number in 10..20 {
            client.put(id(1), shard(key(number), payload(number, 10))).await.unwrap();
        }
        let from = valv_types::ShardKey { placement: 0, chunk: 0, shard: 0, ..key(0) };
        assert_eq!(client.list(id(1), from, 1000).await.unwrap(), node.list(id(1), from, 1000).await.unwrap());
        assert_eq!(client.list(id(1), from, 5).await.unwrap(), node.list(id(1), from, 5).await.unwrap());
        client.delete(id(1), vec![key(1), key(2)]).await.unwrap();
        assert!(matches!(client.read(id(1), key(1), 0..1).await, Err(ShardError::NotFound { .. })));
        assert_eq!(client.disks().await.unwrap(), node.disks().await.unwrap());
        // What was damaged on its way is refused.
        let mut bad = shard(key(5), payload(5, 1000));
        bad.payload = payload(6, 1000);
        assert!(matches!(client.put(id(1), bad).await, Err(ShardError::Malformed { .. })));
        // A node that is gone makes its disks away, and does not make them unknown.
        stop.cancel();
        drop(server);
        node.shutdown().await;
        until("away", || async { client.disks().await.unwrap().iter().all(|disk| disk.state == DiskState::Absent) })
            .await;
        assert_eq!(client.disks().await.unwrap().len(), 2);
        assert!(matches!(client.read(id(1), key(10), 0..1).await, Err(ShardError::Away { .. })));
    });
}
