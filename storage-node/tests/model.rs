//! The engine against a map: random operations, restarts, crashes and rebuilt indexes.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use valv_shard_api::{ShardError, ShardStat};
use valv_storage_node::Disk;
use valv_types::ShardKey;

const KEYS: u32 = 14;

#[derive(Debug, Clone)]
enum Step {
    Put {
        key: u32,
        seed: u32,
        len: usize,
    },
    PutMany {
        first: u32,
        seed: u32,
        len: usize,
    },
    Delete {
        keys: Vec<u32>,
    },
    Read {
        key: u32,
        start: u16,
        len: u16,
    },
    Compare,
    ReopenCleanly,
    ReopenRebuilt,
    /// Go on with a copy of the folder made while the engine runs: what kill -9 leaves.
    Crash {
        keep_index: bool,
    },
    Reclaim,
    /// Compaction races with what would make its copies stale.
    ReclaimWhile {
        deletes: Vec<u32>,
        puts: Vec<(u32, u32)>,
        len: usize,
    },
    FlushIndex,
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..KEYS;
    let len = || prop_oneof![0..200usize, 10_000..40_000usize, Just(16_384), Just(16_385)];
    prop_oneof![
        8 => (key.clone(), any::<u32>(), len()).prop_map(|(key, seed, len)| Step::Put { key, seed, len }),
        4 => (key.clone(), any::<u32>(), len()).prop_map(|(first, seed, len)| Step::PutMany { first, seed, len }),
        5 => prop::collection::vec(key.clone(), 1..5).prop_map(|keys| Step::Delete { keys }),
        4 => (key.clone(), 0..45_000u16, prop_oneof![Just(0u16), 0..20_000u16]).prop_map(|(key, start, len)| Step::Read { key, start, len }),
        1 => Just(Step::Compare),
        1 => Just(Step::ReopenCleanly),
        1 => Just(Step::ReopenRebuilt),
        1 => any::<bool>().prop_map(|keep_index| Step::Crash { keep_index }),
        2 => Just(Step::Reclaim),
        3 => (prop::collection::vec(key.clone(), 1..6), prop::collection::vec((key, any::<u32>()), 0..3), len())
            .prop_map(|(deletes, puts, len)| Step::ReclaimWhile { deletes, puts, len }),
        1 => Just(Step::FlushIndex),
    ]
}

type Model = BTreeMap<ShardKey, Vec<u8>>;

async fn compare(disk: &Disk, model: &Model) {
    let listed = disk.list(key_min(), 1000).await.unwrap();
    let expected: Vec<_> = model.iter().map(|(key, bytes)| (*key, bytes.len() as u32)).collect();
    let found: Vec<_> = listed.iter().map(|stat: &ShardStat| (stat.key, stat.len_bytes)).collect();
    assert_eq!(found, expected);
    for (key, bytes) in model {
        let read = disk.read(*key, 0..bytes.len() as u32).await.unwrap();
        assert!(read.into_bytes() == bytes[..], "other bytes than were put");
    }
    let status = disk.status();
    assert_eq!(status.shards, model.len() as u64);
    assert_eq!(status.live_bytes, model.values().map(|bytes| bytes.len() as u64).sum::<u64>());
    assert_eq!(status.quarantined, 0);
}

fn key_min() -> ShardKey {
    ShardKey { chunk: 0, shard: 0, placement: 0, ..key(0) }
}

async fn run(steps: Vec<Step>) {
    let mut folder = Folder::formatted();
    let mut disk = open(&folder.path);
    let mut model = Model::new();
    for step in steps {
        match step {
            Step::Put { key: number, seed, len } => {
                let bytes = payload(seed, len);
                disk.put(shard(key(number), bytes.clone())).await.unwrap();
                model.insert(key(number), bytes.to_vec());
            }
            Step::PutMany { first, seed, len } => {
                let puts = (0..4).map(|i| {
                    let (disk, number) = (disk.clone(), (first + i) % KEYS);
                    let bytes = payload(seed.wrapping_add(i), len);
                    model.insert(key(number), bytes.to_vec());
                    tokio::spawn(async move { disk.put(shard(key(number), bytes)).await })
                });
                for put in puts.collect::<Vec<_>>() {
                    put.await.unwrap().unwrap();
                }
            }
            Step::Delete { keys } => {
                disk.delete(keys.iter().map(|number| key(*number)).collect()).await.unwrap();
                for number in keys {
                    model.remove(&key(number));
                }
            }
            Step::Read { key: number, start, len } => {
                let (start, end) = (u32::from(start), u32::from(start) + u32::from(len));
                let result = disk.read(key(number), start..end).await;
                match (model.get(&key(number)), result) {
                    (None, Err(ShardError::NotFound { .. })) => {}
                    (Some(bytes), Ok(read)) => {
                        assert!(read.into_bytes() == bytes[start as usize..end as usize]);
                    }
                    (Some(bytes), Err(ShardError::Malformed { .. })) => assert!(end as usize > bytes.len()),
                    (model, result) => panic!("{:?} {:?}", model.map(Vec::len), result.map(|read| read.len())),
                }
            }
            Step::Compare => compare(&disk, &model).await,
            Step::ReopenCleanly => {
                disk.close().await;
                drop(disk);
                disk = open(&folder.path);
                compare(&disk, &model).await;
            }
            Step::ReopenRebuilt => {
                disk.close().await;
                drop(disk);
                folder.remove_index();
                disk = open(&folder.path);
                compare(&disk, &model).await;
            }
            Step::Crash { keep_index } => {
                let copy = folder.snapshot();
                drop(disk);
                if !keep_index {
                    copy.remove_index();
                }
                folder = copy;
                disk = open(&folder.path);
                compare(&disk, &model).await;
            }
            Step::Reclaim => {
                disk.reclaim_now().await.unwrap();
            }
            Step::ReclaimWhile { deletes, puts, len } => {
                let reclaiming = {
                    let disk = disk.clone();
                    tokio::spawn(async move { disk.reclaim_now().await })
                };
                for number in deletes {
                    disk.delete(vec![key(number)]).await.unwrap();
                    model.remove(&key(number));
                }
                for (number, seed) in puts {
                    let bytes = payload(seed, len);
                    disk.put(shard(key(number), bytes.clone())).await.unwrap();
                    model.insert(key(number), bytes.to_vec());
                }
                reclaiming.await.unwrap().unwrap();
            }
            Step::FlushIndex => disk.flush().await.unwrap(),
        }
    }
    compare(&disk, &model).await;
    // Nothing that was deleted or replaced is in the extents in a way that a rebuilt index would show.
    disk.close().await;
    drop(disk);
    folder.remove_index();
    disk = open(&folder.path);
    compare(&disk, &model).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_engine_does_what_a_map_does(steps in prop::collection::vec(step(), 1..60)) {
        runtime().block_on(run(steps));
    }
}

#[test]
fn many_writers_share_syncs_and_all_are_kept() {
    runtime().block_on(async {
        let folder = Folder::formatted();
        let disk = open(&folder.path);
        let puts: Vec<_> = (0..200u32)
            .map(|number| {
                let disk: Arc<Disk> = disk.clone();
                tokio::spawn(async move { disk.put(shard(key(number), payload(number, 3000))).await })
            })
            .collect();
        for put in puts {
            put.await.unwrap().unwrap();
        }
        let copy = folder.snapshot();
        drop(disk);
        let disk = open(&copy.path);
        for number in 0..200 {
            let read = disk.read(key(number), 0..3000).await.unwrap();
            assert_eq!(read.into_bytes(), payload(number, 3000));
        }
    });
}

/// Readers are never given other bytes while their extents are compacted and their files recycled under them.
#[test]
fn reads_during_reclaim_are_right_or_not_found() {
    runtime().block_on(async {
        let folder = Folder::formatted();
        let disk = open(&folder.path);
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        // The payload of a key is the same in every round, so that any other bytes are wrong ones.
        let readers: Vec<_> = (0..3u32)
            .map(|reader| {
                let (disk, stop) = (disk.clone(), stop.clone());
                tokio::spawn(async move {
                    let mut found = 0;
                    let mut number = reader;
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        number = (number + 7) % 24;
                        match disk.read(key(number), 1000..25_000).await {
                            Ok(read) => {
                                assert!(read.into_bytes() == payload(number, 30_000).slice(1000..25_000));
                                found += 1;
                            }
                            Err(ShardError::NotFound { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                    found
                })
            })
            .collect();
        for round in 0..12u32 {
            for number in 0..24 {
                disk.put(shard(key(number), payload(number, 30_000))).await.unwrap();
            }
            disk.delete((0..24).filter(|number| (number + round) % 3 != 0).map(key).collect()).await.unwrap();
            disk.reclaim_now().await.unwrap();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        for reader in readers {
            assert!(reader.await.unwrap() > 0);
        }
        assert_eq!(disk.status().quarantined, 0);
    });
}
