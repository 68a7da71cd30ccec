//! Keys, numbers and reports.

use super::*;
use crate::data::incarnation::Incarnation;
use proptest::prelude::*;
use std::sync::atomic::Ordering;
use valv_types::IncarnationId;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_asked_for_once_per_lease() {
    let world = World::new().await;
    let asks = (0..50).map(|_| world.path.keys().current(world.project));
    let keys = futures_util::future::try_join_all(asks).await.unwrap();
    assert!(keys.windows(2).all(|pair| pair[0].expose() == pair[1].expose()));
    world.path.keys().version(world.project, 1).await.unwrap();
    assert_eq!(world.metadata.keys_lent.load(Ordering::SeqCst), 1);
    world.path.keys().purge(world.project);
    world.path.keys().current(world.project).await.unwrap();
    assert_eq!(world.metadata.keys_lent.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_ended_lease_is_forgotten_and_renewed() {
    let world = World::new().await;
    world.metadata.key_lease_ms.store(0, Ordering::SeqCst);
    let key = world.path.keys().current(world.project).await.unwrap();
    let weak = Arc::downgrade(&key);
    drop(key);
    world.path.keys().sweep();
    assert!(weak.upgrade().is_none(), "nobody holds the key, so it is zeroised");
    world.path.keys().current(world.project).await.unwrap();
    assert_eq!(world.metadata.keys_lent.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_version_that_metadata_does_not_return_is_an_error() {
    let world = World::new().await;
    assert!(matches!(world.path.keys().version(world.project, 9).await, Err(DataError::Metadata(_))));
}

#[tokio::test]
async fn the_published_mark_follows_the_numbers_in_flight() {
    let world = World::new().await;
    let incarnation = world.path.incarnation().unwrap();
    let published = || world.metadata.low_water.lock().get(&incarnation).copied();
    world.put(&body(10, 1)).await;
    let pending = world.write(&body(10, 1), 10).await.unwrap();
    world.put(&body(10, 1)).await;
    eventually("the mark stands at the pending blob", || published() == Some(1)).await;
    pending.guard.commit_done();
    eventually("the mark has passed all", || published() == Some(3)).await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_mark_never_passes_a_number_in_flight_and_never_goes_back(steps in prop::collection::vec(any::<u8>(), 1..200)) {
        let incarnation = Incarnation::new(IncarnationId(1));
        let mut in_flight = Vec::new();
        let mut before = 0;
        for step in steps {
            if step % 2 == 0 || in_flight.is_empty() {
                in_flight.push(incarnation.begin().unwrap());
            } else {
                let index = usize::from(step) % in_flight.len();
                let mut sequence = in_flight.swap_remove(index);
                if step % 5 == 0 {
                    sequence.hold_when_dropped(Duration::from_secs(3600));
                    let held = sequence.blob.sequence();
                    drop(sequence);
                    prop_assert!(incarnation.low_water() <= held);
                }
            }
            let mark = incarnation.low_water();
            prop_assert!(mark >= before);
            prop_assert!(in_flight.iter().all(|sequence| mark <= sequence.blob.sequence()));
            before = mark;
        }
    }
}
