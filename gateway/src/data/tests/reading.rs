//! Any range of any blob is right, or an error: never wrong bytes.

use super::fakes::{Fault, READ_FAULTS};
use super::*;
use proptest::prelude::*;
use std::sync::atomic::Ordering;

/// Lengths around the borders of frame, replicated chunk, chunk and shard, and some far from any.
fn lens() -> impl Strategy<Value = usize> {
    let borders = [0usize, 1, 4096, 8192, 8208, 16_384, 32_768, 32_896, 65_536, 98_304];
    prop_oneof![
        3 => (prop::sample::select(borders.to_vec()), -2i64..3).prop_map(|(at, by)| (at as i64 + by).max(0) as usize),
        1 => 0usize..120_000,
    ]
}

fn ranges(len: usize) -> impl Strategy<Value = Range<u64>> {
    let near = |at: usize| (at as i64 - 2..at as i64 + 3).prop_map(move |x| x.clamp(0, len as i64) as u64);
    let edge = prop_oneof![near(0), near(4096), near(8208), near(32_768), near(len / 2), near(len), 0..=len as u64];
    (edge.clone(), 0..=len as u64, edge).prop_map(|(a, b, c)| if a <= c { a..c } else { b.min(a)..a })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_range_equals_the_source_with_up_to_m_disks_failing(
        (len, range) in lens().prop_flat_map(|len| (Just(len), ranges(len))),
        seed: u64,
        faults in prop::collection::vec((0..DISKS, prop::sample::select(READ_FAULTS.to_vec())), 0..3),
    ) {
        runtime().block_on(async {
            let world = World::new().await;
            let source = body(len, seed);
            let stored = world.put(&source).await;
            for (index, fault) in &faults {
                world.store.fail(disk(*index), *fault);
            }
            let wanted = &source[range.start as usize..range.end as usize];
            assert_eq!(world.get(&stored, range.clone()).await.unwrap(), wanted, "{range:?} of {len}, {faults:?}");
        });
    }

    #[test]
    fn with_more_than_m_disks_failing_bytes_are_right_or_there_is_an_error(
        len in 4097usize..100_000, seed: u64,
        faults in prop::collection::btree_map(0..DISKS, prop::sample::select(READ_FAULTS.to_vec()), 3..6),
    ) {
        runtime().block_on(async {
            let config = DataPathConfig { read_deadline: Duration::from_millis(300), ..quick_config() };
            let world = World::with(small_layout(), config).await;
            let source = body(len, seed);
            let stored = world.put(&source).await;
            for (index, fault) in &faults {
                world.store.fail(disk(*index), *fault);
            }
            let stream = world.path.read_blob(world.project, stored.record(), None, 0..len as u64).await;
            let Ok(mut stream) = stream else { return };
            let (mut got, mut failed) = (Vec::new(), false);
            while let Some(piece) = futures_util::StreamExt::next(&mut stream).await {
                match piece {
                    Ok(piece) => {
                        assert!(!failed, "nothing follows an error");
                        got.extend_from_slice(&piece);
                    }
                    Err(_) => failed = true,
                }
            }
            assert!(source.starts_with(&got));
            assert!(failed || got.len() == len, "an end without an error is the end");
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_real_layout_reads_back_over_chunks_and_segments() {
    let layout = Layout::current(PoolId(1), 4, 2).unwrap();
    let world = World::with(layout, DataPathConfig { memory_budget_bytes: 64 << 20, ..quick_config() }).await;
    let source = body((20 << 20) + 12_345, 7);
    let stored = world.put(&source).await;
    let len = source.len() as u64;
    assert!(world.get(&stored, 0..len).await.unwrap() == source);
    world.store.fail(disk(1), Fault::Empty);
    world.store.fail(disk(4), Fault::AwayUnannounced);
    for range in [0..len, (8 << 20) - 1..(16 << 20) + 1, 65_535..131_073, len - 5..len] {
        let wanted = &source[range.start as usize..range.end as usize];
        assert!(world.get(&stored, range.clone()).await.unwrap() == wanted, "{range:?}");
    }
    eventually("the damaged blob is reported", || !world.metadata.repairs.lock().is_empty()).await;
    assert_eq!(*world.metadata.repairs.lock(), [stored.record().blob], "once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aligned_frame_is_one_read_of_one_frame() {
    let layout = Layout::current(PoolId(1), 4, 2).unwrap();
    // No hedging by accident on a busy machine.
    let patient = Duration::from_secs(5);
    let config = DataPathConfig {
        memory_budget_bytes: 64 << 20,
        hedge_after_min: patient,
        hedge_after_max: patient,
        ..quick_config()
    };
    let world = World::with(layout, config).await;
    let source = body(9 << 20, 3);
    let stored = world.put(&source).await;
    world.get(&stored, 65_536 * 33..65_536 * 34).await.unwrap();
    assert_eq!(world.store.reads.load(Ordering::Relaxed), 1);
    assert_eq!(world.store.bytes_read.load(Ordering::Relaxed), 65_552);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_with_wrong_contents_under_right_hashes_are_never_sent() {
    for (len, k) in [(32_768 * 2, 4u8), (8_000, 1)] {
        let world = World::new().await;
        let source = body(len, 5);
        let stored = world.put(&source).await;
        for shard in 0..2u8 {
            let holder = world.disk_of(stored.record(), 0, shard).await;
            assert!(world.store.forge(holder, shard, |bytes| bytes[100] ^= 1) > 0);
        }
        assert_eq!(world.get(&stored, 0..len as u64).await.unwrap(), source, "k = {k}: two forged, others whole");
        eventually("the forgery is reported", || !world.metadata.repairs.lock().is_empty()).await;
        let holder = world.disk_of(stored.record(), 0, 2).await;
        world.store.forge(holder, 2, |bytes| bytes[100] ^= 1);
        let error = world.get(&stored, 0..len as u64).await.unwrap_err();
        assert!(matches!(error, DataError::Corrupt { frame: 0, .. }), "k = {k}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_hangs_is_read_around_before_its_deadline() {
    let world = World::new().await;
    let source = body(32_768, 1);
    let stored = world.put(&source).await;
    let holder = world.disk_of(stored.record(), 0, 1).await;
    world.store.fail(holder, Fault::Hangs);
    assert_eq!(world.get(&stored, 0..32_768).await.unwrap(), source);
    assert!(world.path.metrics.hedges.get() > 0);
}

#[tokio::test]
async fn a_damaged_or_missing_inline_frame_is_an_error() {
    let world = World::new().await;
    let source = body(3000, 2);
    let mut stored = world.put(&source).await;
    assert_eq!(world.get(&stored, 10..20).await.unwrap(), &source[10..20]);
    let whole = stored.inline.take().unwrap();
    assert!(matches!(world.get(&stored, 0..3000).await, Err(DataError::Misuse)));
    for flip in [0, 1500, whole.len() - 1] {
        let mut damaged = whole.to_vec();
        damaged[flip] ^= 0x10;
        stored.inline = Some(damaged.into());
        assert!(matches!(world.get(&stored, 0..3000).await, Err(DataError::Corrupt { .. })), "byte {flip}");
    }
    stored.inline = Some(whole.slice(..whole.len() - 1));
    assert!(world.get(&stored, 0..1).await.is_err(), "cut");
}

#[tokio::test]
async fn a_customers_blob_opens_with_the_customers_key_alone() {
    use valv_codec::{CustomerKey, KeyError};
    let world = World::new().await;
    let (key, other) = (CustomerKey::from_bytes(&[1; 32]).unwrap(), CustomerKey::from_bytes(&[2; 32]).unwrap());
    for len in [100, 50_000_u64] {
        let source = body(len as usize, 3);
        let mut writer = world.path.write_blob_for(world.project, world.layout, Some(len), Some(&key)).await.unwrap();
        writer.write(Bytes::from(source.clone())).await.unwrap();
        let finished = writer.finish().await.unwrap();
        finished.guard.commit_done();
        let (record, inline) = match finished.body {
            NewBody::Inline(record, sealed) => (record, Some(Bytes::from(sealed))),
            NewBody::Blob(record) => (record, None),
            NewBody::Empty => panic!("not empty"),
        };
        let open = |customer| world.path.read_blob_for(world.project, &record, inline.clone(), 5..len, customer);
        // Twice: what a first read may have left in a cache must not open it for the next.
        for _ in 0..2 {
            assert_eq!(collect(open(Some(&key)).await.unwrap()).await.unwrap(), &source[5..]);
            assert!(matches!(open(None).await, Err(DataError::Key(KeyError::CustomerKeyMissing))));
            assert!(matches!(open(Some(&other)).await, Err(DataError::Key(KeyError::CustomerMismatch))));
        }
    }
    let plain = world.put(&body(50_000, 4)).await;
    let read = world.path.read_blob_for(world.project, plain.record(), None, 0..50_000, Some(&key)).await;
    assert!(matches!(read, Err(DataError::Key(KeyError::Mismatch))), "no customer's key made this wrap");
}

#[tokio::test]
async fn another_projects_key_opens_nothing() {
    let world = World::new().await;
    let other = ProjectId::random();
    for len in [100, 50_000u64] {
        let stored = world.put(&body(len as usize, 2)).await;
        let error = world.path.read_blob(other, stored.record(), stored.inline.clone(), 0..len).await.unwrap_err();
        assert!(matches!(error, DataError::Key(valv_codec::KeyError::Mismatch)), "{error}");
    }
    // Not even if both projects had the same key: the wrap names its project.
    world.metadata.set_key(other, [7; 32]);
    let twin = ProjectId::random();
    world.metadata.set_key(twin, [7; 32]);
    let finished = {
        let mut writer = world.path.write_blob(twin, world.layout, Some(5)).await.unwrap();
        writer.write(Bytes::from_static(b"twins")).await.unwrap();
        writer.finish().await.unwrap()
    };
    finished.guard.commit_done();
    let NewBody::Inline(record, sealed) = finished.body else { panic!("inline") };
    let fresh = World::new().await;
    fresh.metadata.set_key(other, [7; 32]);
    assert!(fresh.path.read_blob(other, &record, Some(sealed.into()), 0..5).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_ends_when_its_right_ends() {
    let world = World::new().await;
    let stored = world.put(&body(50_000, 2)).await;
    let open = || world.path.read_blob(world.project, stored.record(), None, 0..50_000);
    let refused = open().await.unwrap().with_check(Arc::new(|| false));
    assert!(matches!(collect(refused).await, Err(DataError::Revoked)));
    let allowed = open().await.unwrap().with_check(Arc::new(|| true));
    assert_eq!(collect(allowed).await.unwrap().len(), 50_000);
}

#[tokio::test]
async fn ranges_outside_the_blob_are_refused() {
    let world = World::new().await;
    let stored = world.put(&body(5000, 2)).await;
    assert!(matches!(world.get(&stored, 0..5001).await, Err(DataError::Misuse)));
    assert_eq!(world.get(&stored, 5000..5000).await.unwrap(), b"");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_give_their_memory_back() {
    let world = World::new().await;
    let stored = world.put(&body(100_000, 2)).await;
    let free = world.path.memory.available_bytes();
    let stream = world.path.read_blob(world.project, stored.record(), None, 0..100_000).await.unwrap();
    let pieces: Vec<Bytes> = stream.try_collect().await.unwrap();
    assert!(world.path.memory.available_bytes() < free, "pieces count while they live");
    drop(pieces);
    let dropped = world.path.read_blob(world.project, stored.record(), None, 0..100_000).await.unwrap();
    drop(dropped);
    eventually("all memory is free again", || world.path.memory.available_bytes() == free).await;
}
