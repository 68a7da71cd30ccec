//! Repair over disks that fail as they are told. Pauses are short here; what must happen is waited for, and what must
//! not happen has many passes in which it could.

mod fakes;

use crate::{Census, RepairConfig, RepairService, RepairStatus};
use fakes::{FakeMetadata, FakeStore, Line, disk};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;
use valv_metadata_api::Client;
use valv_shard_api::{DiskState, ScrubProgress};
use valv_types::{BlobId, ShardKey};

struct World {
    shards: Arc<FakeStore>,
    metadata: Arc<FakeMetadata>,
}

/// Lengths that make one copied chunk, one coded chunk, and two chunks of which the last is copied.
const LENS: [u64; 3] = [20_000, 300_000, 8 * 1024 * 1024 + 5];

impl World {
    /// Six disks with a few blobs of each kind.
    fn new() -> Self {
        let world = Self { shards: Arc::new(FakeStore::new()), metadata: Arc::new(FakeMetadata::new()) };
        for sequence in 0..9 {
            world.store(sequence);
        }
        world
    }

    fn store(&self, sequence: u64) -> BlobId {
        self.metadata.store(&self.shards, sequence, LENS[sequence as usize % LENS.len()], true)
    }

    fn start(&self) -> Arc<RepairService> {
        self.start_with(None, quick())
    }

    fn start_with(&self, reports: Option<mpsc::Receiver<ShardKey>>, config: RepairConfig) -> Arc<RepairService> {
        let metadata = Arc::new(Client(Line(self.metadata.clone())));
        RepairService::start(metadata, self.shards.clone(), reports, config, &prometheus::Registry::new()).unwrap()
    }
}

/// Passes follow one another at once. Searches for orphans are left to the tests that are about them.
fn quick() -> RepairConfig {
    RepairConfig {
        pass_every: Duration::from_millis(5),
        disks_every: Duration::from_millis(5),
        retry_after: Duration::from_millis(20),
        answer_within: Duration::from_millis(300),
        ..RepairConfig::default()
    }
}

/// Dozens of passes.
async fn passes() {
    tokio::time::sleep(Duration::from_millis(250)).await;
}

/// Waits until `is_so`; a minute is for machines that are very busy.
async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(60), waiting).await.is_ok(), "{what}");
}

async fn until_healthy(repair: &RepairService) -> Census {
    until("healthy", async || repair.status().await.unwrap().healthy).await;
    repair.status().await.unwrap().last_census.unwrap()
}

async fn census(repair: &RepairService) -> (Census, RepairStatus) {
    (repair.census_now().await.unwrap(), repair.status().await.unwrap())
}

#[tokio::test]
async fn nothing_is_healthy_before_a_census_and_nothing_is_written_by_one_that_agrees() {
    let world = World::new();
    let before = world.shards.contents();
    let repair = world.start();
    assert!(!repair.status().await.unwrap().healthy);
    let census = until_healthy(&repair).await;
    // Three copied chunks, three coded, three blobs with both.
    assert_eq!((census.blobs, census.chunks), (9, 12));
    assert_eq!((census.shards_expected, census.shards_present), (6 * 3 + 6 * 6, 6 * 3 + 6 * 6));
    assert_eq!(world.shards.puts_begun.load(Ordering::SeqCst), 0);
    assert_eq!(world.shards.contents(), before);
    repair.stop().await;
}

#[tokio::test]
async fn two_emptied_disks_are_refilled_byte_for_byte() {
    let world = World::new();
    let before = world.shards.contents();
    let repair = world.start();
    until_healthy(&repair).await;
    world.shards.replace(1);
    world.shards.replace(4);
    assert_ne!(world.shards.contents(), before);
    assert!(!repair.status().await.unwrap().healthy, "noticed at once");
    let census = until_healthy(&repair).await;
    assert!(census.is_complete());
    assert_eq!(world.shards.contents(), before);
    let status = repair.status().await.unwrap();
    let lost = before.keys().filter(|(on, _)| *on == disk(1) || *on == disk(4)).count() as u64;
    assert_eq!(status.shards_rebuilt, lost);
    assert_eq!(world.shards.deletes(), 0);
    repair.stop().await;
}

#[tokio::test]
async fn damaged_truncated_and_stale_shards_are_written_again() {
    let world = World::new();
    let before = world.shards.contents();
    world.shards.with(0, |disk| disk.shards.values_mut().for_each(|held| held.quarantined = true));
    for (n, held) in world.shards.with(3, |disk| std::mem::take(&mut disk.shards)).into_iter().enumerate() {
        world.shards.with(3, |disk| {
            let (key, mut held) = held;
            match n % 2 {
                0 => held.payload = held.payload.slice(..held.payload.len() / 2),
                _ => held.generation = 9,
            }
            disk.shards.insert(key, held);
        });
    }
    let repair = world.start();
    until_healthy(&repair).await;
    assert_eq!(world.shards.contents(), before);
    assert!(world.shards.disks.lock()[&disk(3)].shards.values().all(|held| held.generation == 0));
    repair.stop().await;
}

#[tokio::test]
async fn a_source_found_damaged_while_it_is_read_is_replaced_by_another_and_mended_too() {
    let world = World::new();
    let before = world.shards.contents();
    world.shards.replace(2);
    // Nobody knows yet that these are rotten: the census counts them as present until they are read.
    world.shards.with(5, |disk| disk.shards.values_mut().for_each(|held| held.rotten = true));
    let repair = world.start();
    until("all that can be known is mended", async || {
        let _ = repair.census_now().await;
        world.shards.disks.lock()[&disk(2)].shards.len() == before.keys().filter(|(on, _)| *on == disk(2)).count()
    })
    .await;
    let (found, _) = census(&repair).await;
    assert!(found.is_complete());
    let noticed = world.shards.contents();
    assert!(noticed.iter().all(|(place, bytes)| before[place] == *bytes), "what is there is right");
    repair.stop().await;
}

#[tokio::test]
async fn disks_that_are_away_or_come_in_any_order_lose_nothing_to_deletes() {
    let world = World::new();
    let before = world.shards.contents();
    (0..6).for_each(|i| world.shards.set_away(i, true));
    let config = RepairConfig { orphans_every: Duration::from_millis(20), ..quick() };
    let repair = world.start_with(None, config);
    for i in [3, 0, 5, 1, 4, 2] {
        passes().await;
        let status = repair.status().await.unwrap();
        assert!(!status.healthy && status.last_census.is_some_and(|census| census.shards_unreachable > 0));
        world.shards.set_away(i, false);
    }
    until_healthy(&repair).await;
    assert_eq!(world.shards.contents(), before);
    assert_eq!(world.shards.deletes(), 0);
    assert_eq!(world.shards.puts_begun.load(Ordering::SeqCst), 0, "away is not missing");
    repair.stop().await;
}

#[tokio::test]
async fn one_shard_short_is_never_called_healthy() {
    let world = World::new();
    world.shards.with(2, |disk| {
        // It holds all shards but one, and takes no writes.
        let first = *disk.shards.keys().next().unwrap();
        disk.shards.remove(&first);
        disk.state = Some(DiskState::ReadOnly);
    });
    let repair = world.start();
    for _ in 0..5 {
        let (found, status) = census(&repair).await;
        assert_eq!((found.shards_expected - found.shards_present, found.shards_missing), (1, 1));
        assert!(!found.is_complete() && !status.healthy);
    }
    world.shards.with(2, |disk| disk.state = None);
    until_healthy(&repair).await;
    repair.stop().await;
}

#[tokio::test]
async fn a_chunk_with_too_few_shards_is_reported_kept_and_mended_once_a_disk_returns() {
    let world = World { shards: Arc::new(FakeStore::new()), metadata: Arc::new(FakeMetadata::new()) };
    world.store(1);
    let before = world.shards.contents();
    let saved: BTreeMap<u8, _> =
        (0..3).map(|i| (i, world.shards.with(i, |disk| std::mem::take(&mut disk.shards)))).collect();
    let repair = world.start();
    let (found, status) = census(&repair).await;
    assert_eq!((found.chunks_lost, found.shards_missing, status.healthy), (1, 3, false));
    assert_eq!(world.shards.contents().len(), 3, "the rest is kept");
    // One of the three comes back with its shards.
    world.shards.with(0, |disk| {
        disk.shards = saved[&0].clone();
        disk.opened += 1;
    });
    until_healthy(&repair).await;
    assert_eq!(world.shards.contents(), before);
    assert_eq!(world.shards.deletes(), 0);
    repair.stop().await;
}

#[tokio::test]
async fn a_reported_shard_is_queued_mended_and_taken_off_the_queue() {
    let world = World::new();
    let before = world.shards.contents();
    let (sender, reports) = mpsc::channel(8);
    let repair = world.start_with(Some(reports), quick());
    until_healthy(&repair).await;
    let key = world.shards.with(4, |disk| {
        let (key, held) = disk.shards.iter_mut().next().unwrap();
        held.quarantined = true;
        *key
    });
    sender.send(key).await.unwrap();
    until("it is mended", async || world.shards.contents() == before).await;
    until("the queue is empty", async || world.metadata.blobs.lock().queued.is_empty()).await;
    until_healthy(&repair).await;
    repair.stop().await;
}

#[tokio::test]
async fn a_shard_in_quarantine_whose_report_was_lost_is_found_by_the_scan() {
    let world = World::new();
    let before = world.shards.contents();
    let config = RepairConfig { orphans_every: Duration::from_millis(20), ..quick() };
    let repair = world.start_with(None, config);
    until_healthy(&repair).await;
    world.shards.with(4, |disk| disk.shards.values_mut().for_each(|held| held.quarantined = true));
    until("it is mended", async || world.shards.contents() == before).await;
    repair.stop().await;
}

#[tokio::test]
async fn a_queued_blob_waits_for_its_disk_and_does_not_hold_up_others() {
    let world = World::new();
    let repair = world.start();
    until_healthy(&repair).await;
    world.shards.set_away(0, true);
    let (waiting, damaged) = (world.store(10), world.store(13));
    let lost: Vec<ShardKey> = world.shards.with(0, |disk| {
        let lost = disk.shards.keys().filter(|key| key.blob == waiting).copied().collect::<Vec<_>>();
        lost.iter().for_each(|key| drop(disk.shards.remove(key)));
        lost
    });
    assert!(!lost.is_empty());
    world.metadata.blobs.lock().queued.push(waiting);
    passes().await;
    assert_eq!(world.metadata.blobs.lock().queued, [waiting], "its disk is away");
    // Damage on a disk that is here is mended at once, though blobs before it wait.
    world.shards.with(1, |disk| {
        disk.shards.iter_mut().filter(|(key, _)| key.blob == damaged).for_each(|(_, held)| held.quarantined = true)
    });
    world.metadata.blobs.lock().queued.push(damaged);
    let mended = |disk: &mut fakes::FakeDisk| {
        disk.shards.iter().filter(|(key, _)| key.blob == damaged).all(|(_, held)| !held.quarantined)
    };
    until("it is mended", async || world.shards.with(1, mended)).await;
    world.shards.set_away(0, false);
    until_healthy(&repair).await;
    assert!(world.metadata.blobs.lock().queued.is_empty());
    assert!(world.shards.with(0, |disk| lost.iter().all(|key| disk.shards.contains_key(key))));
    repair.stop().await;
}

#[tokio::test]
async fn a_disk_that_never_answers_does_not_stop_the_others() {
    let world = World::new();
    let repair = world.start();
    until_healthy(&repair).await;
    let _held = world.shards.puts.write().await;
    world.shards.replace(3);
    // Every put hangs; the census still ends, and says so.
    let (found, status) = census(&repair).await;
    assert!(found.shards_missing > 0 && !status.healthy);
    drop(_held);
    until_healthy(&repair).await;
    repair.stop().await;
}

#[tokio::test]
async fn a_doomed_blob_is_deleted_everywhere_and_waits_for_a_disk_that_is_away() {
    let world = World::new();
    let keep = world.shards.contents();
    let blobs: Vec<BlobId> = (10..16).map(|sequence| world.store(sequence)).collect();
    world.shards.set_away(5, true);
    blobs.iter().for_each(|blob| world.metadata.doom(*blob));
    let repair = world.start();
    let is_clean = |i: u8| world.shards.with(i, |disk| !disk.shards.keys().any(|key| blobs.contains(&key.blob)));
    until("disks that are here delete", async || (0..5).all(is_clean)).await;
    passes().await;
    let left: Vec<BlobId> = world.metadata.blobs.lock().doomed.iter().map(|doomed| doomed.blob).collect();
    let owes = |blob: &BlobId| world.shards.with(5, |disk| disk.shards.keys().any(|key| key.blob == *blob));
    assert!(!left.is_empty() && left.iter().all(owes), "the tombstones that the disk owes stay, and only those");
    world.shards.set_away(5, false);
    until("the tombstones go", async || world.metadata.blobs.lock().doomed.is_empty()).await;
    assert!(is_clean(5));
    assert_eq!(world.shards.contents(), keep, "nothing else was deleted");
    repair.stop().await;
}

#[tokio::test]
async fn a_disk_that_refuses_deletes_keeps_its_tombstones() {
    for is_silent in [true, false] {
        let world = World::new();
        let blob = world.store(10);
        world.metadata.doom(blob);
        world.shards.with(1, |disk| {
            disk.silent = is_silent;
            disk.state = (!is_silent).then_some(DiskState::ReadOnly);
        });
        let repair = world.start();
        passes().await;
        assert_eq!(world.metadata.blobs.lock().doomed.len(), 1);
        assert_eq!(world.metadata.blobs.lock().doomed[0].answered.len(), 5);
        world.shards.with(1, |disk| (disk.silent, disk.state) = (false, None));
        until("the tombstone goes", async || world.metadata.blobs.lock().doomed.is_empty()).await;
        assert_eq!(world.shards.shards_of(blob), 0);
        repair.stop().await;
    }
}

#[tokio::test]
async fn a_blob_deleted_while_it_is_repaired_is_not_brought_back() {
    let world = World::new();
    let repair = world.start();
    until_healthy(&repair).await;
    let blob = world.store(10);
    let all = world.shards.shards_of(blob);
    let held = world.shards.puts.write().await;
    let key = world.shards.with(2, |disk| {
        let key = *disk.shards.keys().find(|key| key.blob == blob).unwrap();
        disk.shards.remove(&key);
        key
    });
    world.metadata.blobs.lock().queued.push(blob);
    until("the repair writes", async || world.shards.puts_begun.load(Ordering::SeqCst) == 1).await;
    // The repair has asked for references, and its put is on its way. Now the blob goes.
    world.metadata.doom(blob);
    passes().await;
    assert_eq!(world.metadata.blobs.lock().doomed.len(), 1, "not answered for while a shard may still come");
    drop(held);
    until("the tombstone goes", async || world.metadata.blobs.lock().doomed.is_empty()).await;
    passes().await;
    assert_eq!(world.shards.shards_of(blob), 0, "of {all}, {key:?} above all");
    until_healthy(&repair).await;
    repair.stop().await;
}

#[tokio::test]
async fn a_blob_deleted_before_its_repair_is_neither_written_nor_counted() {
    let world = World::new();
    let blob = world.store(10);
    let queued = world.metadata.blobs.lock().live[&blob];
    world.metadata.doom(blob);
    world.shards.replace(2);
    let shared = world.start();
    until_healthy(&shared).await;
    until("the tombstone goes", async || world.metadata.blobs.lock().doomed.is_empty()).await;
    assert_eq!(world.shards.shards_of(queued.blob), 0);
    shared.stop().await;
}

#[tokio::test]
async fn only_orphans_by_the_rule_are_deleted() {
    let world = World::new();
    let keep = world.shards.contents();
    let given_up: Vec<BlobId> =
        (20..23).map(|sequence| world.metadata.store(&world.shards, sequence, LENS[2], false)).collect();
    let being_written = world.metadata.store(&world.shards, 40, LENS[1], false);
    // A shard of the system's own pool is none of anybody's business, whatever its id says.
    let own = ShardKey { pool: valv_types::SYSTEM_POOL, placement: 1, blob: given_up[0], chunk: 0, shard: 0 };
    world.shards.with(0, |disk| {
        let held = disk.shards.values().next().unwrap().clone();
        disk.shards.insert(own, held);
    });
    let expected = world.shards.shards_of(being_written);
    world.metadata.blobs.lock().low_water = 30;
    // A disk that refuses must not keep the search from the disks after it.
    world.shards.with(1, |disk| disk.state = Some(DiskState::ReadOnly));
    let config = RepairConfig { orphans_every: Duration::from_millis(20), ..quick() };
    let repair = world.start_with(None, config);
    let on_others = || {
        let disks = world.shards.disks.lock();
        let others = disks.iter().filter(|(id, _)| **id != disk(1)).flat_map(|(_, disk)| disk.shards.keys());
        others.filter(|key| given_up.contains(&key.blob) && **key != own).count()
    };
    until("orphans go", async || on_others() == 0).await;
    world.shards.with(1, |disk| disk.state = None);
    let left = || given_up.iter().map(|blob| world.shards.shards_of(*blob)).sum::<usize>();
    until("all orphans go", async || left() == 1).await;
    passes().await;
    assert!(world.shards.with(0, |disk| disk.shards.remove(&own).is_some()), "the system pool is left alone");
    assert_eq!(world.shards.shards_of(being_written), expected, "its gateway may still commit it");
    let mut found = world.shards.contents();
    found.retain(|(_, key), _| key.blob != being_written);
    assert_eq!(found, keep);
    repair.stop().await;
}

#[tokio::test]
async fn repair_keeps_to_its_bandwidth() {
    let world = World { shards: Arc::new(FakeStore::new()), metadata: Arc::new(FakeMetadata::new()) };
    world.store(1);
    world.shards.replace(0);
    let config = RepairConfig { bytes_per_s: 1 << 20, ..quick() };
    let begun = std::time::Instant::now();
    let repair = world.start_with(None, config);
    until_healthy(&repair).await;
    let status = repair.status().await.unwrap();
    // Four bytes are read for each that is written, and the write waits for them: a floor, whatever the machine does.
    let floor = Duration::from_secs_f64(status.bytes_rebuilt as f64 * 4.0 / f64::from(1 << 20));
    assert!(begun.elapsed() >= floor, "{:?} for {} bytes", begun.elapsed(), status.bytes_rebuilt);
    repair.stop().await;
}

#[tokio::test]
async fn fixity_tells_what_is_damaged_until_it_is_repaired_and_the_ledgers_are_told_of_it() {
    let world = World::new();
    let repair = world.start();
    until_healthy(&repair).await;
    let blobs: Vec<_> = world.metadata.blobs.lock().live.values().copied().collect();
    let ended = |started_secs| ScrubProgress { started_secs, next: None, previous_started_secs: None };
    (0..6).for_each(|i| world.shards.with(i, |disk| disk.scrub = Some(ended(100 + u64::from(i)))));
    for (blob, fixity) in blobs.iter().zip(repair.fixity(&blobs).await.unwrap()) {
        assert_eq!(fixity.shards_present, fixity.shards_expected, "{blob:?}");
        assert!(fixity.verified_since_secs.is_some_and(|since| (100..106).contains(&since)));
    }
    // A disk that takes no writes keeps its damage.
    let coded = blobs.iter().find(|blob| blob.len_bytes == LENS[1]).unwrap().blob;
    world.shards.with(2, |disk| {
        disk.state = Some(DiskState::ReadOnly);
        disk.scrub = None;
        let held = disk.shards.iter_mut().find(|(key, _)| key.blob == coded).unwrap().1;
        held.quarantined = true;
    });
    world.metadata.blobs.lock().queued.push(coded);
    let of_coded = async || {
        let live = blobs.iter().copied().filter(|blob| blob.blob == coded).collect::<Vec<_>>();
        repair.fixity(&live).await.unwrap()[0]
    };
    let found = of_coded().await;
    assert_eq!((found.shards_quarantined, found.shards_present, found.chunks_lost), (1, 5, 0));
    passes().await;
    assert_eq!(of_coded().await, found);
    assert!(world.metadata.blobs.lock().repaired.is_empty());
    world.shards.with(2, |disk| disk.state = None);
    until("repaired", async || of_coded().await.shards_quarantined == 0).await;
    until("told", async || world.metadata.blobs.lock().repaired.get(&coded) == Some(&1)).await;
    assert_eq!(of_coded().await.verified_since_secs, None, "where the scrub has never been");
    repair.stop().await;
}
