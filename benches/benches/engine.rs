//! Appending to one disk: every acknowledgement after its fdatasync, alone and with others to share it.

#![allow(missing_docs, reason = "criterion_group! makes a function without documentation")]

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use valv_benches::noise;
use valv_shard_api::{NewShard, ShardCodec, block_hashes};
use valv_storage_node::{Disk, DiskConfig, Identity, NodeConfig, StorageNode};
use valv_types::{BlobId, ChunkId, ClusterId, DiskId, IncarnationId, NodeId, PoolId, ShardKey};

fn shard(payload: &Bytes, hashes: &Bytes, sequence: u64) -> NewShard {
    let chunk = ChunkId { blob: BlobId::new(IncarnationId(1), sequence), index: 0 };
    NewShard {
        key: ShardKey::new(PoolId(1), chunk, 0),
        generation: 0,
        codec: ShardCodec::SealedChunk,
        payload: payload.clone(),
        block_hashes: hashes.clone(),
    }
}

fn engine(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("d0");
    let (cluster, node, disk) = (ClusterId::random(), NodeId::random(), DiskId::random());
    Disk::format(&path, &Identity { cluster, node, disk, name: "d0".to_owned() }).expect("an empty folder");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let disks = vec![DiskConfig { disk, path, name: "d0".to_owned() }];
    let config = NodeConfig::new(cluster, node, disks);
    let node = runtime.block_on(StorageNode::start(config, &prometheus::Registry::new())).expect("a node");

    let mut sequence = 0;
    let mut group = c.benchmark_group("append");
    group.sample_size(10).measurement_time(Duration::from_secs(4)).warm_up_time(Duration::from_secs(1));
    for (name, len_bytes, at_once) in
        [("4KiB alone", 4 << 10, 1), ("4KiB x16", 4 << 10, 16), ("2MiB alone", 2 << 20, 1), ("2MiB x4", 2 << 20, 4u64)]
    {
        let payload = Bytes::from(noise(len_bytes));
        let hashes = block_hashes(&payload);
        group.throughput(Throughput::Bytes(len_bytes as u64 * at_once));
        group.bench_function(name, |b| {
            b.iter(|| {
                let shards: Vec<_> = (0..at_once).map(|i| shard(&payload, &hashes, sequence + i)).collect();
                sequence += at_once;
                runtime.block_on(put_all(node.clone(), disk, shards));
            });
        });
    }
    group.finish();
    runtime.block_on(node.shutdown());
}

async fn put_all(node: Arc<StorageNode>, disk: DiskId, shards: Vec<NewShard>) {
    use valv_shard_api::ShardStore;
    let mut puts = JoinSet::new();
    for shard in shards {
        let node = node.clone();
        puts.spawn(async move { node.put(disk, shard).await });
    }
    while let Some(put) = puts.join_next().await {
        put.expect("the task ended").expect("the shard is stored");
    }
}

criterion_group!(benches, engine);
criterion_main!(benches);
