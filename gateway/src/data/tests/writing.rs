//! What a write promises, and what it leaves behind.

use super::fakes::Fault;
use super::*;
use std::collections::BTreeSet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sizes_decide_between_nothing_inline_copies_and_code() {
    for (len, shards) in
        [(0, 0), (1, 0), (4096, 0), (4097, 3), (8192, 3), (8193, 6), (32_768, 6), (32_769, 9), (65_536, 12)]
    {
        let world = World::new().await;
        let source = body(len, 1);
        let finished = world.write(&source, 777).await.unwrap();
        assert_eq!(world.store.shard_count(), shards, "{len}");
        assert!(finished.proof.missing.is_empty());
        match (&finished.body, len) {
            (NewBody::Empty, 0) => {}
            (NewBody::Inline(_, sealed), 1..=4096) => assert_eq!(sealed.len(), len + 16),
            (NewBody::Blob(record), 4097..) => assert_eq!(record.len_bytes, len as u64),
            (other, _) => panic!("{len}: {other:?}"),
        }
        finished.guard.commit_done();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_length_and_any_piece_size_give_the_same_bytes() {
    let world = World::new().await;
    let source = body(70_000, 9);
    for step in [1, 4095, 4096, 4097, 32_768, 70_000] {
        let mut writer = world.path.write_blob(world.project, world.layout, None).await.unwrap();
        for piece in source.chunks(step) {
            writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        let finished = writer.finish().await.unwrap();
        finished.guard.commit_done();
        let NewBody::Blob(record) = finished.body else { panic!("a blob") };
        let stored = Stored { record: Some(record), inline: None };
        assert!(world.get(&stored, 0..70_000).await.unwrap() == source, "step {step}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn down_disks_are_in_the_proof_down_to_the_floor_and_refused_below() {
    for fault in [Fault::Away, Fault::AwayUnannounced, Fault::Full, Fault::ReadOnly, Fault::Io, Fault::Hangs] {
        let put_deadline = Duration::from_secs(if fault == Fault::Hangs { 2 } else { 60 });
        let world = World::with(small_layout(), DataPathConfig { put_deadline, ..quick_config() }).await;
        world.store.fail(disk(3), fault);
        let source = body(100_000, 4);
        let finished = world.write(&source, 10_000).await.unwrap();
        let missing: Vec<DiskId> = finished.proof.missing.iter().map(|slot| slot.disk).collect();
        assert_eq!(missing, [disk(3)], "{fault:?}");
        assert!((3..=6).contains(&finished.proof.epoch.0));
        finished.guard.commit_done();
        let NewBody::Blob(record) = finished.body else { panic!("a blob") };
        let stored = Stored { record: Some(record), inline: None };
        assert_eq!(world.get(&stored, 0..100_000).await.unwrap(), source, "{fault:?}");

        world.store.fail(disk(0), fault);
        let error = world.write(&source, 10_000).await.map(drop).unwrap_err();
        assert!(matches!(error, DataError::NotEnoughDisks { need: 5, .. }), "{fault:?}: {error}");
        eventually("nothing of the refused blob stays", || {
            // Six shards of each of the four chunks, less those of the disk that was down.
            world.store.shards_of(disk(1)) == finished_shards(&world, disk(1), &stored)
        })
        .await;
    }
}

/// Shards of a committed blob on one disk: one of each coded chunk; the copied last chunk may or may not be there.
fn finished_shards(world: &World, disk: DiskId, stored: &Stored) -> usize {
    let record = stored.record();
    let map = world.metadata.map();
    let pool = &map.pools[0];
    let held = |geometry: &valv_types::ChunkGeometry| {
        let hash = valv_types::placement_hash(valv_types::ChunkId { blob: record.blob, index: geometry.index });
        (0..geometry.coding.shards()).filter(|shard| pool.disk(hash, *shard) == Some(disk)).count()
    };
    record.layout.chunks(record.len_bytes).map(|geometry| held(&geometry)).sum()
}

#[tokio::test]
async fn too_few_writable_disks_are_told_before_a_byte_is_taken() {
    let world = World::new().await;
    for index in [0, 1] {
        world.store.fail(disk(index), Fault::ReadOnly);
    }
    world.path.cluster.refresh_disks().await;
    let error = world.path.write_blob(world.project, world.layout, Some(50_000)).await.map(drop).unwrap_err();
    assert!(matches!(error, DataError::NotEnoughDisks { have: 4, need: 5 }), "{error}");
    assert!(world.write(&body(100, 1), 10).await.is_ok(), "inline bodies need no disk");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_disk_is_asked_again() {
    let world = World::new().await;
    world.store.busy(disk(2), 3);
    let finished = world.write(&body(32_768, 1), 10_000).await.unwrap();
    assert!(finished.proof.missing.is_empty());
    finished.guard.commit_done();
    assert_eq!(world.store.shards_of(disk(2)), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_writer_deletes_its_shards_and_lets_the_mark_pass() {
    let world = World::new().await;
    let mut writer = world.path.write_blob(world.project, world.layout, Some(200_000)).await.unwrap();
    writer.write(Bytes::from(body(150_000, 1))).await.unwrap();
    eventually("shards are on the disks", || world.store.shard_count() > 6).await;
    assert_eq!(world.path.incarnations.current().unwrap().low_water(), 0);
    drop(writer);
    eventually("shards are gone", || world.store.shard_count() == 0).await;
    eventually("the mark has passed", || world.path.incarnations.current().unwrap().low_water() == 1).await;
    assert!(world.path.drain(Duration::from_secs(10)).await);
    assert_eq!(world.store.shard_count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guard_decides_what_becomes_of_the_shards_and_of_the_mark() {
    let world = World::new().await;
    let source = body(32_768, 1);
    let low_water = || world.path.incarnations.current().unwrap().low_water();

    let committed = world.write(&source, 10_000).await.unwrap();
    assert_eq!(low_water(), 0, "the commit is not there yet");
    committed.guard.commit_done();
    assert_eq!((low_water(), world.store.shard_count()), (1, 6));

    world.write(&source, 10_000).await.unwrap().guard.discard();
    eventually("discarded shards are gone", || world.store.shard_count() == 6).await;
    eventually("the mark passes a discarded blob", || low_water() == 2).await;

    drop(world.write(&source, 10_000).await.unwrap());
    assert_eq!((low_water(), world.store.shard_count()), (2, 12), "an unknown outcome keeps shards and number");

    let hasty = DataPathConfig { unresolved_commit_hold: Duration::from_millis(1), ..quick_config() };
    let hasty = World::with(small_layout(), hasty).await;
    drop(hasty.write(&source, 10_000).await.unwrap());
    eventually("a number is held for its time only", || hasty.path.incarnations.current().unwrap().low_water() == 1)
        .await;
    assert_eq!(hasty.store.shard_count(), 6, "and nothing is deleted on a guess");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_of_a_fenced_incarnation_fail_and_new_ones_go_on() {
    let world = World::new().await;
    let first = world.path.incarnation().unwrap();
    let mut writer = world.path.write_blob(world.project, world.layout, Some(100_000)).await.unwrap();
    writer.write(Bytes::from(body(20_000, 1))).await.unwrap();
    world.metadata.fence(first);
    world.path.note_fenced();
    eventually("a new incarnation is registered", || world.path.incarnation() != Some(first)).await;
    let result = async {
        writer.write(Bytes::from(body(80_000, 1))).await?;
        writer.finish().await.map(drop)
    };
    assert!(matches!(result.await, Err(DataError::Fenced)));
    eventually("its shards are gone", || world.store.shard_count() == 0).await;
    let finished = world.write(&body(50_000, 1), 10_000).await.unwrap();
    assert_ne!(finished.proof.incarnation, first);
    finished.guard.commit_done();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_writers_stay_within_the_budget_and_all_end() {
    // Room for about five chunk buffers (six shards of 8,256 bytes each).
    let budget = 300 << 10;
    let config = DataPathConfig { memory_budget_bytes: budget, memory_wait: Duration::from_secs(60), ..quick_config() };
    let world = Arc::new(World::with(small_layout(), config).await);
    let peak = Arc::new(std::sync::atomic::AtomicI64::new(0));
    let mut writers = tokio::task::JoinSet::new();
    for seed in 0..64 {
        let (world, peak) = (Arc::clone(&world), Arc::clone(&peak));
        writers.spawn(async move {
            let source = body(130_000, seed);
            let mut writer = world.path.write_blob(world.project, world.layout, Some(130_000)).await.unwrap();
            for piece in source.chunks(20_000) {
                writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
                peak.fetch_max(world.path.metrics.memory_bytes.get(), std::sync::atomic::Ordering::SeqCst);
            }
            let finished = writer.finish().await.unwrap();
            finished.guard.commit_done();
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    let peak = peak.load(std::sync::atomic::Ordering::SeqCst);
    assert!(peak > 0 && peak <= budget as i64, "{peak}");
    eventually("all memory is given back", || world.path.metrics.memory_bytes.get() == 0).await;
    assert_eq!(world.store.shard_count(), 64 * (3 * 6 + 6));
}

#[tokio::test]
async fn without_memory_a_writer_waits_and_is_then_refused() {
    let config =
        DataPathConfig { memory_budget_bytes: 64 << 10, memory_wait: Duration::from_millis(30), ..quick_config() };
    let world = World::with(small_layout(), config).await;
    let holder = world.path.write_blob(world.project, world.layout, Some(100_000)).await.unwrap();
    let error = world.path.write_blob(world.project, world.layout, Some(100_000)).await.map(drop).unwrap_err();
    assert!(matches!(error, DataError::Overloaded), "{error}");
    drop(holder);
    assert!(world.path.write_blob(world.project, world.layout, Some(100_000)).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_holds_at_most_two_chunks_while_disks_are_slow() {
    let world = Arc::new(World::new().await);
    let closed = world.store.gate.write().await;
    let writing = {
        let world = Arc::clone(&world);
        tokio::spawn(async move { world.write(&body(32_768 * 5, 1), 4096).await.map(|f| f.guard.commit_done()) })
    };
    let chunk = i64::from(6 * 8256u32.next_multiple_of(64)).max(1);
    eventually("two chunks are in flight", || world.path.metrics.memory_bytes.get() > chunk).await;
    for _ in 0..20 {
        tokio::task::yield_now().await;
        assert!(world.path.metrics.memory_bytes.get() <= 2 * (chunk + 4096));
    }
    drop(closed);
    writing.await.unwrap().unwrap();
}

#[tokio::test]
async fn more_than_announced_is_refused_and_a_failed_writer_stays_failed() {
    let world = World::new().await;
    let mut writer = world.path.write_blob(world.project, world.layout, Some(10)).await.unwrap();
    writer.write(Bytes::from_static(b"0123456789")).await.unwrap();
    let error = writer.write(Bytes::from_static(b"x")).await.unwrap_err();
    assert!(matches!(error, DataError::LongerThanAnnounced { expected: 10 }));
    assert!(writer.write(Bytes::new()).await.is_err());
    assert!(writer.finish().await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_with_the_same_bytes_share_nothing() {
    let world = World::new().await;
    let source = body(9000, 1);
    let (a, b) = (world.put(&source).await, world.put(&source).await);
    let keys: BTreeSet<_> = [&a, &b].map(|stored| stored.record().wrapped_key.clone()).into();
    assert_eq!(keys.len(), 2);
    assert_ne!(a.record().blob, b.record().blob);
}
