//! What the engine makes of damage: bit flips, torn tails, failing disks, folders that come and go.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::*;
use proptest::prelude::*;
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::IoSlice;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use valv_shard_api::{DiskState, ShardError};
use valv_storage_node::{Disk, EngineConfig, ExtentIo, FolderError, OpenError, read_superblock};
use valv_types::DiskId;

fn flip(path: &Path, bit: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, bit / 8).unwrap();
    byte[0] ^= 1 << (bit % 8);
    file.write_all_at(&byte, bit / 8).unwrap();
}

const LEN: u32 = 20_000;
const RECORD_LEN: u64 = 128 + 64 + 20_000;

/// Three shards of `LEN` in one extent, closed cleanly.
async fn three_shards() -> Folder {
    let folder = Folder::formatted();
    let disk = open(&folder.path);
    for number in 0..3 {
        disk.put(shard(key(number), payload(number, LEN as usize))).await.unwrap();
    }
    disk.close().await;
    folder
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Header, table, payload and padding of the middle record, with the index and without.
    #[test]
    fn a_flipped_bit_gives_right_bytes_or_a_typed_error(
        bit in prop_oneof![0..128 * 8u64, 128 * 8..192 * 8u64, 192 * 8..RECORD_LEN * 8, Just(RECORD_LEN * 8)],
        has_index in any::<bool>(),
    ) {
        runtime().block_on(async {
            let folder = three_shards().await;
            flip(&folder.extents()[0], (4096 + RECORD_LEN.next_multiple_of(64)) * 8 + bit);
            if !has_index {
                folder.remove_index();
            }
            let (disk, mut reports) = try_open(&folder.path, small()).unwrap();
            for number in [0, 2] {
                let read = disk.read(key(number), 0..LEN).await.unwrap();
                assert_eq!(read.into_bytes(), payload(number, LEN as usize));
            }
            match disk.read(key(1), 0..LEN).await {
                // Padding carries nothing.
                Ok(read) => {
                    assert_eq!(read.into_bytes(), payload(1, LEN as usize));
                    assert!(bit >= RECORD_LEN * 8);
                }
                Err(ShardError::Corrupt { .. }) => {
                    assert_eq!(reports.recv().await.unwrap().key, key(1));
                    assert!(matches!(disk.read(key(1), 0..1).await, Err(ShardError::Corrupt { .. })) || bit >= 192 * 8);
                    disk.flush().await.unwrap();
                    assert_eq!(disk.status().quarantined, 1);
                    assert!(disk.list(key(0), 10).await.unwrap().iter().any(|stat| stat.quarantined));
                    // Repair writes it again.
                    disk.put(shard(key(1), payload(1, LEN as usize))).await.unwrap();
                    assert_eq!(disk.status().quarantined, 0);
                    assert!(disk.read(key(1), 0..LEN).await.is_ok());
                }
                // Without an index, a damaged header hides whose record it was.
                Err(ShardError::NotFound { .. }) => assert!(!has_index && bit < 128 * 8),
                Err(error) => panic!("{error}"),
            }
        });
    }

    /// Garbage anywhere in the extents, headers included: what is read is right or an error, before reclaim and after.
    #[test]
    fn scribbles_anywhere_never_give_wrong_bytes(
        scribbles in prop::collection::vec((any::<u16>(), any::<u32>(), 1..3000usize), 1..6),
        has_index in any::<bool>(),
    ) {
        runtime().block_on(async {
            let folder = Folder::formatted();
            let disk = open(&folder.path);
            for number in 0..14 {
                disk.put(shard(key(number), payload(number, 11_000 * (number as usize % 4)))).await.unwrap();
            }
            disk.delete(vec![key(2), key(6), key(10)]).await.unwrap();
            disk.close().await;
            drop(disk);
            let extents = folder.extents();
            for (extent, at, len) in scribbles {
                let file = OpenOptions::new().write(true).open(&extents[usize::from(extent) % extents.len()]).unwrap();
                let at = u64::from(at) % file.metadata().unwrap().len();
                file.write_all_at(&payload(at as u32, len), at).unwrap();
            }
            if !has_index {
                folder.remove_index();
            }
            let disk = open(&folder.path);
            for _ in 0..2 {
                for number in 0..14 {
                    let bytes = payload(number, 11_000 * (number as usize % 4));
                    match disk.read(key(number), 0..bytes.len() as u32).await {
                        Ok(read) => assert_eq!(read.into_bytes(), bytes),
                        Err(ShardError::Corrupt { .. } | ShardError::NotFound { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                disk.delete(vec![key(3), key(7)]).await.unwrap();
                disk.reclaim_now().await.unwrap();
            }
        });
    }

    /// kill -9 in the middle of writes, then the file cut or scribbled over behind what was acknowledged.
    #[test]
    fn a_torn_tail_costs_nothing_acknowledged(
        acknowledged in 0..4u32,
        cut in 0..=RECORD_LEN,
        scribble in any::<bool>(),
        has_index in any::<bool>(),
    ) {
        runtime().block_on(async {
            let folder = Folder::formatted();
            let disk = open(&folder.path);
            for number in 0..=acknowledged {
                disk.put(shard(key(number), payload(number, LEN as usize))).await.unwrap();
            }
            let crashed = folder.snapshot();
            drop(disk);
            // The last put is treated as if it had not been acknowledged, so the index may not know it either.
            crashed.remove_index();
            let path = &crashed.extents()[0];
            let last = 4096 + u64::from(acknowledged) * RECORD_LEN.next_multiple_of(64);
            let file = OpenOptions::new().write(true).open(path).unwrap();
            if scribble {
                file.write_all_at(&payload(99, (RECORD_LEN - cut) as usize), last + cut).unwrap();
            } else {
                file.set_len(last + cut).unwrap();
            }
            let disk = open(&crashed.path);
            for number in 0..acknowledged {
                let read = disk.read(key(number), 0..LEN).await.unwrap();
                assert_eq!(read.into_bytes(), payload(number, LEN as usize));
            }
            match disk.read(key(acknowledged), 0..LEN).await {
                Ok(read) => {
                    assert_eq!(read.into_bytes(), payload(acknowledged, LEN as usize));
                    assert_eq!(cut, RECORD_LEN);
                }
                Err(ShardError::NotFound { .. }) => assert!(cut < RECORD_LEN),
                Err(error) => panic!("{error}"),
            }
            // And life goes on.
            disk.put(shard(key(50), payload(50, 100))).await.unwrap();
            disk.close().await;
            drop(disk);
            if !has_index {
                crashed.remove_index();
            }
            let disk = open(&crashed.path);
            assert_eq!(disk.read(key(50), 0..100).await.unwrap().into_bytes(), payload(50, 100));
            assert!(disk.status().shards > u64::from(acknowledged));
        });
    }
}

#[test]
fn what_a_torn_group_left_behind_never_comes_back() {
    runtime().block_on(async {
        let folder = Folder::formatted();
        let disk = open(&folder.path);
        disk.put(shard(key(0), payload(0, 1000))).await.unwrap();
        let before = folder.snapshot();
        // One group of two: the first will be lost, the second will be whole.
        let (a, b) = tokio::join!(disk.put(shard(key(1), payload(1, 1000))), disk.put(shard(key(2), payload(2, 1000))));
        a.unwrap();
        b.unwrap();
        drop(disk);
        // The file as after a power loss that lost the first record's header. Which of the two came first does not
        // matter; if they were not one group, the second attests the first, which is then corruption.
        let record = 128 + 32 + 1000u64.next_multiple_of(64) + 32;
        let bytes = fs::read(&folder.extents()[0]).unwrap();
        fs::write(&before.extents()[0], &bytes).unwrap();
        flip(&before.extents()[0], (4096 + record.next_multiple_of(64)) * 8);
        before.remove_index();
        let disk = open(&before.path);
        let survivors = disk.list(key(0), 10).await.unwrap();
        disk.delete(vec![key(1), key(2)]).await.unwrap();
        disk.put(shard(key(3), payload(3, 1000))).await.unwrap();
        drop(disk);
        before.remove_index();
        let disk = open(&before.path);
        let found: Vec<_> = disk.list(key(0), 10).await.unwrap().iter().map(|stat| stat.key).collect();
        assert!(!found.contains(&key(1)) && !found.contains(&key(2)), "{survivors:?} then {found:?}");
        assert!(found.contains(&key(3)));
    });
}

#[test]
fn a_failed_sync_fails_its_group_and_turns_the_disk_read_only() {
    for fail_write in [false, true] {
        runtime().block_on(async {
            let folder = Folder::formatted();
            let io = Arc::new(FaultyIo::default());
            let config = EngineConfig { io: io.clone(), ..small() };
            let (disk, _reports) = try_open(&folder.path, config).unwrap();
            disk.put(shard(key(0), payload(0, 5000))).await.unwrap();
            let fault = if fail_write { &io.fail_writes } else { &io.fail_syncs };
            fault.store(true, Ordering::SeqCst);
            assert!(matches!(disk.put(shard(key(1), payload(1, 5000))).await, Err(ShardError::Io { .. })));
            // Never retried, not even when the disk seems well again.
            fault.store(false, Ordering::SeqCst);
            assert!(matches!(disk.put(shard(key(2), payload(2, 5000))).await, Err(ShardError::ReadOnly { .. })));
            assert!(matches!(disk.delete(vec![key(0)]).await, Err(ShardError::ReadOnly { .. })));
            let status = disk.status();
            assert_eq!((status.state, status.shards), (DiskState::ReadOnly, 1));
            assert!(status.reason.contains("injected"), "{}", status.reason);
            assert_eq!(disk.read(key(0), 0..5000).await.unwrap().into_bytes(), payload(0, 5000));
            assert!(matches!(disk.read(key(1), 0..5000).await, Err(ShardError::NotFound { .. })));
            // A restart looks at what is really there and goes on in a new extent.
            disk.close().await;
            drop(disk);
            let disk = open(&folder.path);
            assert_eq!(disk.status().state, DiskState::Online);
            assert!(disk.read(key(0), 0..5000).await.is_ok());
            disk.put(shard(key(3), payload(3, 5000))).await.unwrap();
        });
    }
}

#[test]
fn short_writes_are_continued() {
    runtime().block_on(async {
        let folder = Folder::formatted();
        let io = Arc::new(FaultyIo::default());
        io.short_writes.store(true, Ordering::SeqCst);
        let (disk, _reports) = try_open(&folder.path, EngineConfig { io, ..small() }).unwrap();
        disk.put(shard(key(0), payload(0, 5001))).await.unwrap();
        assert_eq!(disk.read(key(0), 0..5001).await.unwrap().into_bytes(), payload(0, 5001));
    });
}

#[test]
fn folders_that_are_not_this_disk_are_refused_unchanged() {
    let refused = |path: &Path| match try_open(path, small()) {
        Err(OpenError::Folder(error)) => error,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("opened"),
    };
    let empty = Folder::empty();
    assert!(matches!(refused(&empty.path), FolderError::Empty));
    assert_eq!(fs::read_dir(&empty.path).unwrap().count(), 0, "nothing may be initialised silently");
    assert!(matches!(refused(&empty.path.join("nowhere")), FolderError::Missing));
    fs::create_dir(empty.path.join("lost+found")).unwrap();
    assert!(matches!(refused(&empty.path), FolderError::Empty));
    fs::write(empty.path.join("thesis.docx"), b"x").unwrap();
    assert!(matches!(refused(&empty.path), FolderError::NoSuperblock));
    assert!(matches!(Disk::format(&empty.path, &identity()), Err(FolderError::NotEmpty)));

    let other = Folder::empty();
    Disk::format(&other.path, &valv_storage_node::Identity { disk: DiskId::from_bytes([8; 16]), ..identity() })
        .unwrap();
    assert!(matches!(refused(&other.path), FolderError::Foreign { .. }));
    assert!(matches!(Disk::format(&other.path, &identity()), Err(FolderError::NotEmpty)));

    let damaged = Folder::formatted();
    flip(&damaged.path.join("superblock.0"), 100);
    flip(&damaged.path.join("superblock.1"), 100);
    assert!(matches!(refused(&damaged.path), FolderError::Damaged(_)));
}

#[test]
fn one_damaged_superblock_is_written_again_from_the_other() {
    runtime().block_on(async {
        for copy in ["superblock.0", "superblock.1"] {
            let folder = Folder::formatted();
            flip(&folder.path.join(copy), 8 * 200);
            let before = read_superblock(&folder.path).unwrap();
            let disk = open(&folder.path);
            assert!(disk.superblock().opened > before.opened);
            let copies = ["superblock.0", "superblock.1"].map(|copy| fs::read(folder.path.join(copy)).unwrap());
            assert_eq!(copies[0], copies[1]);
            disk.close().await;
        }
    });
}

#[test]
fn a_folder_in_use_is_refused() {
    runtime().block_on(async {
        let folder = Folder::formatted();
        let disk = open(&folder.path);
        assert!(matches!(try_open(&folder.path, small()), Err(OpenError::Folder(FolderError::InUse))));
        disk.close().await;
        drop(disk);
        assert!(try_open(&folder.path, small()).is_ok());
    });
}

#[test]
fn an_index_full_of_garbage_is_rebuilt() {
    runtime().block_on(async {
        let folder = three_shards().await;
        for entry in fs::read_dir(folder.path.join("index")).unwrap() {
            fs::write(entry.unwrap().path(), b"garbage").unwrap();
        }
        let disk = open(&folder.path);
        assert_eq!(disk.status().shards, 3);
        disk.close().await;
        drop(disk);
        // An index of another time: it knows nothing of the extents that came after it.
        let old = folder.snapshot();
        let disk = open(&folder.path);
        disk.delete(vec![key(0)]).await.unwrap();
        disk.close().await;
        drop(disk);
        fs::remove_dir_all(folder.path.join("index")).unwrap();
        fs::rename(old.path.join("index"), folder.path.join("index")).unwrap();
        let disk = open(&folder.path);
        assert_eq!(disk.status().shards, 2);
    });
}

#[test]
fn a_lost_extent_loses_its_own_shards_only() {
    runtime().block_on(async {
        let folder = Folder::formatted();
        let disk = open(&folder.path);
        for number in 0..12 {
            disk.put(shard(key(number), payload(number, 30_000))).await.unwrap();
        }
        disk.close().await;
        drop(disk);
        let extents = folder.extents();
        assert!(extents.len() >= 3);
        fs::remove_file(&extents[1]).unwrap();
        let disk = open(&folder.path);
        let left = disk.list(key(0), 100).await.unwrap();
        assert!(left.len() < 12 && left.len() >= 6);
        for stat in left {
            assert!(disk.read(stat.key, 0..30_000).await.is_ok());
        }
    });
}

#[test]
fn the_scrub_finds_and_reports_what_nobody_reads() {
    runtime().block_on(async {
        let folder = three_shards().await;
        flip(&folder.extents()[0], (4096 + 5000) * 8);
        let (disk, mut reports) = try_open(&folder.path, small()).unwrap();
        let outcome = disk.scrub_now().await.unwrap();
        assert_eq!((outcome.shards, outcome.corrupt), (3, 1));
        assert_eq!(reports.recv().await.unwrap().key, key(0));
        disk.flush().await.unwrap();
        assert_eq!(disk.status().quarantined, 1);
        let again = disk.scrub_now().await.unwrap();
        assert_eq!((again.shards, again.corrupt), (2, 0));
    });
}

#[test]
fn reclaim_gives_space_back_and_moves_what_lives() {
    runtime().block_on(async {
        let folder = Folder::formatted();
        let disk = open(&folder.path);
        for number in 0..40 {
            disk.put(shard(key(number), payload(number, 30_000))).await.unwrap();
        }
        let full = folder.extents().len();
        disk.delete((0..40).filter(|number| number % 4 != 0).map(key).collect()).await.unwrap();
        let reclaimed = disk.reclaim_now().await.unwrap();
        assert!(reclaimed >= full - 2, "{reclaimed} of {full}");
        assert!(folder.extents().len() < full / 2 + 2);
        for number in (0..40).step_by(4) {
            let read = disk.read(key(number), 100..29_000).await.unwrap();
            assert_eq!(read.into_bytes(), payload(number, 30_000).slice(100..29_000));
        }
        let crashed = folder.snapshot();
        drop(disk);
        crashed.remove_index();
        let disk = open(&crashed.path);
        assert_eq!(disk.status().shards, 10);
    });
}

#[test]
fn a_quarantined_shard_keeps_its_extent_until_it_is_rewritten() {
    runtime().block_on(async {
        let folder = Folder::formatted();
        let disk = open(&folder.path);
        for number in 0..8 {
            disk.put(shard(key(number), payload(number, 30_000))).await.unwrap();
        }
        let first = folder.extents()[0].clone();
        flip(&first, (4096 + 10_000) * 8);
        disk.delete(vec![key(1), key(2), key(3)]).await.unwrap();
        disk.reclaim_now().await.unwrap();
        assert!(first.exists());
        disk.flush().await.unwrap();
        assert_eq!(disk.status().quarantined, 1);
        disk.put(shard(key(0), payload(0, 30_000))).await.unwrap();
        disk.reclaim_now().await.unwrap();
        assert!(!first.exists());
        assert!(disk.read(key(0), 0..30_000).await.is_ok());
    });
}

#[test]
fn a_full_disk_refuses_puts_and_still_deletes() {
    runtime().block_on(async {
        let folder = Folder::formatted();
        let disk = open(&folder.path);
        disk.put(shard(key(0), payload(0, 1000))).await.unwrap();
        disk.close().await;
        drop(disk);
        let config = EngineConfig { reserve_bytes: Some(u64::MAX / 4), ..small() };
        let (disk, _reports) = try_open(&folder.path, config).unwrap();
        assert_eq!(disk.status().state, DiskState::Full);
        assert_eq!(disk.status().free_bytes, 0);
        assert!(matches!(disk.put(shard(key(1), payload(1, 1000))).await, Err(ShardError::Full { .. })));
        assert!(disk.read(key(0), 0..1000).await.is_ok());
        disk.delete(vec![key(0)]).await.unwrap();
        assert_eq!(disk.status().shards, 0);
    });
}

#[test]
fn malformed_requests_are_refused() {
    runtime().block_on(async {
        let folder = Folder::formatted();
        let disk = open(&folder.path);
        let mut bad = shard(key(0), payload(0, 20_000));
        bad.block_hashes = bad.block_hashes.slice(..32);
        assert!(matches!(disk.put(bad).await, Err(ShardError::Malformed { .. })));
        disk.put(shard(key(0), payload(0, 20_000))).await.unwrap();
        let reversed = std::ops::Range { start: 5, end: 4 };
        for range in [0..20_001, 20_001..20_001, reversed] {
            assert!(matches!(disk.read(key(0), range).await, Err(ShardError::Malformed { .. })));
        }
        for at in [0, 5, 16_384, 19_999, 20_000] {
            assert!(disk.read(key(0), at..at).await.unwrap().is_empty());
        }
        assert!(matches!(disk.stat(vec![key(0); 5000]).await, Err(ShardError::Malformed { .. })));
        assert!(disk.list(key(0), 0).await.unwrap().is_empty());
        assert_eq!(disk.status().quarantined, 0);
    });
}

#[test]
fn a_shard_longer_than_an_extent_gets_one_of_its_own() {
    runtime().block_on(async {
        let folder = Folder::formatted();
        let disk = open(&folder.path);
        let long = payload(1, 3_000_000);
        disk.put(shard(key(1), long.clone())).await.unwrap();
        disk.put(shard(key(2), payload(2, 10))).await.unwrap();
        assert_eq!(
            disk.read(key(1), 1_000_000..2_999_999).await.unwrap().into_bytes(),
            long.slice(1_000_000..2_999_999)
        );
        disk.delete(vec![key(1)]).await.unwrap();
        disk.reclaim_now().await.unwrap();
        let used: u64 = folder.extents().iter().map(|path| File::open(path).unwrap().metadata().unwrap().len()).sum();
        assert!(used < 1_000_000);
    });
}

/// What is written reaches the file only with the sync, as if each crash took the power with it.
#[derive(Debug, Default)]
struct PowerLossIo {
    unsynced: std::sync::Mutex<HashMap<u64, Vec<Write>>>,
}

/// Offset and bytes.
type Write = (u64, Vec<u8>);

impl ExtentIo for PowerLossIo {
    fn write_vectored_at(&self, file: &File, slices: &[IoSlice<'_>], offset: u64) -> std::io::Result<usize> {
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        let len = bytes.len();
        let inode = file.metadata()?.ino();
        self.unsynced.lock().unwrap().entry(inode).or_default().push((offset, bytes));
        Ok(len)
    }

    fn sync_data(&self, file: &File) -> std::io::Result<()> {
        let inode = file.metadata()?.ino();
        for (offset, bytes) in self.unsynced.lock().unwrap().remove(&inode).unwrap_or_default() {
            file.write_all_at(&bytes, offset)?;
        }
        Ok(())
    }
}

#[test]
fn with_everything_unsynced_gone_all_that_was_acknowledged_is_there() {
    runtime().block_on(async {
        let folder = Folder::formatted();
        let config = EngineConfig { io: Arc::new(PowerLossIo::default()), ..small() };
        let (disk, _reports) = try_open(&folder.path, config).unwrap();
        let acknowledged = Arc::new(std::sync::Mutex::new(Vec::new()));
        let writers: Vec<_> = (0..4u32)
            .map(|writer| {
                let (disk, acknowledged) = (disk.clone(), acknowledged.clone());
                tokio::spawn(async move {
                    for number in (writer * 100)..(writer * 100 + 30) {
                        disk.put(shard(key(number), payload(number, 9000))).await.unwrap();
                        acknowledged.lock().unwrap().push(number);
                    }
                })
            })
            .collect();
        for many in [5, 40, 90, 120] {
            while acknowledged.lock().unwrap().len() < many {
                tokio::task::yield_now().await;
            }
            let promised = acknowledged.lock().unwrap().clone();
            let crashed = folder.snapshot();
            if many % 20 == 0 {
                crashed.remove_index();
            }
            let disk = open(&crashed.path);
            for number in promised {
                let read = disk.read(key(number), 0..9000).await.unwrap();
                assert_eq!(read.into_bytes(), payload(number, 9000));
            }
        }
        for writer in writers {
            writer.await.unwrap();
        }
    });
}

#[test]
fn a_superblock_rewrite_cut_anywhere_leaves_a_disk() {
    runtime().block_on(async {
        let folder = Folder::formatted();
        let old = fs::read(folder.path.join("superblock.0")).unwrap();
        let disk = open(&folder.path);
        disk.close().await;
        drop(disk);
        let new = fs::read(folder.path.join("superblock.0")).unwrap();
        assert_ne!(old, new);
        let torn: Vec<u8> = new[..512].iter().chain(&old[512..]).copied().collect();
        // The copies at each moment of the rewrite: 0 first, then 1.
        for copies in [[&old, &old], [&torn, &old], [&new, &old], [&new, &torn], [&new, &new]] {
            for (copy, bytes) in copies.into_iter().enumerate() {
                fs::write(folder.path.join(format!("superblock.{copy}")), bytes).unwrap();
            }
            let disk = open(&folder.path);
            disk.close().await;
        }
    });
}
