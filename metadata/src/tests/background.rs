//! Trash, fencing, orphans, doomed blobs, the clock, and the task that does background work.

use crate::rows::Tag;
use crate::testing::{Fixture, MemoryStore, disks};
use crate::{KeyStore, MetadataConfig, MetadataService};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use valv_codec::RootKey;
use valv_metadata_api::*;
use valv_types::{BlobId, IncarnationId, VersionId};

#[tokio::test]
async fn a_removed_version_can_be_brought_back_until_it_is_purged() {
    let fixture = Fixture::with_config(MetadataConfig { trash_secs: 3_600, ..MetadataConfig::default() }).await;
    let bucket = fixture.bucket("b", false).await;
    let first = fixture.put_now(bucket, b"k").await;
    fixture.service.delete_object(fixture.delete(bucket, b"k", VersionSelector::Current)).await.unwrap();
    assert_eq!(fixture.service.purge_trash().await.unwrap(), 0, "not due yet");
    assert_eq!(fixture.live_blobs().await.len(), 1, "the trash keeps its blobs");
    fixture.service.undelete(&fixture.actor, first.version).await.unwrap();
    let found = fixture.service.get_object(fixture.get(bucket, b"k", VersionSelector::Current)).await.unwrap();
    assert_eq!((found.version.id, found.version.order), (first.version, first.order));
    let twice = fixture.service.undelete(&fixture.actor, first.version).await;
    assert_eq!(twice, Err(MetadataError::NoSuchVersion));

    // Overwritten, its place is taken.
    fixture.put_now(bucket, b"k").await;
    let taken = fixture.service.undelete(&fixture.actor, first.version).await;
    assert_eq!(taken, Err(MetadataError::InvalidBucketState));
}

#[tokio::test]
async fn an_undeleted_version_goes_back_to_its_place_among_the_others() {
    let fixture = Fixture::with_config(MetadataConfig::default()).await;
    let bucket = fixture.bucket("b", false).await;
    fixture.versioning(bucket, Versioning::Enabled).await.unwrap();
    let mut written = Vec::new();
    for _ in 0..3 {
        written.push(fixture.put_now(bucket, b"k").await.version);
    }
    written.reverse();
    for id in written.clone() {
        fixture.service.delete_object(fixture.delete(bucket, b"k", VersionSelector::Id(id))).await.unwrap();
    }
    for id in [written[1], written[2], written[0]] {
        fixture.service.undelete(&fixture.actor, id).await.unwrap();
    }
    let listed: Vec<VersionId> = fixture.versions(bucket).await.into_iter().map(|entry| entry.id).collect();
    assert_eq!(listed, written);
    for id in written {
        fixture.service.get_object(fixture.get(bucket, b"k", VersionSelector::Id(id))).await.unwrap();
    }
}

#[tokio::test]
async fn a_doomed_blob_waits_until_all_its_disks_have_answered() {
    let fixture = Fixture::new().await;
    let bucket = fixture.bucket("b", false).await;
    fixture.put_now(bucket, b"k").await;
    fixture.service.delete_object(fixture.delete(bucket, b"k", VersionSelector::Current)).await.unwrap();
    assert!(fixture.doomed_blobs().await.is_empty());
    fixture.service.purge_trash().await.unwrap();
    let blob = fixture.doomed_blobs().await[0];
    let answer = |answered: Vec<_>, finished| DoomedAnswer { blob, answered, finished };
    fixture.service.answer_doomed(answer(disks()[..2].to_vec(), false)).await.unwrap();
    fixture.service.answer_doomed(answer(disks()[1..3].to_vec(), false)).await.unwrap();
    let waiting = fixture.service.list_doomed(Limit { limit: 10 }).await.unwrap();
    assert_eq!(waiting[0].answered, disks()[..3]);
    fixture.service.answer_doomed(answer(disks(), true)).await.unwrap();
    fixture.service.answer_doomed(answer(disks(), true)).await.unwrap();
    assert!(fixture.doomed_blobs().await.is_empty());
    assert_eq!(fixture.store.count(Tag::DoomedIndex), 0);
}

#[tokio::test]
async fn an_orphan_needs_a_fence_or_a_higher_low_water_mark_and_no_reference() {
    let fixture = Fixture::new().await;
    let bucket = fixture.bucket("b", false).await;
    let request = fixture.put(bucket, b"k");
    let NewBody::Blob(referenced) = request.body.clone() else { unreachable!() };
    fixture.service.put_object(request).await.unwrap();
    let lost = BlobId::new(fixture.incarnation, referenced.blob.sequence());
    let in_flight = BlobId::new(fixture.incarnation, 1_000);
    let unknown = BlobId::new(IncarnationId(77), 1);
    let blobs = vec![referenced.blob, lost, in_flight, unknown];
    let orphans = || fixture.service.find_orphans(BlobIds { blobs: blobs.clone() });
    assert!(orphans().await.unwrap().blobs.is_empty(), "absence alone is never enough");
    let heartbeat = Heartbeat { incarnation: fixture.incarnation, low_water: lost.sequence() + 1 };
    fixture.service.heartbeat(heartbeat).await.unwrap();
    assert_eq!(orphans().await.unwrap().blobs, [lost]);
    let lower = Heartbeat { low_water: 0, ..heartbeat };
    fixture.service.heartbeat(lower).await.unwrap();
    assert_eq!(orphans().await.unwrap().blobs, [lost], "the mark never sinks");
}

#[tokio::test]
async fn a_silent_incarnation_is_fenced_and_commits_nothing_any_more() {
    let fixture = Fixture::with_config(MetadataConfig { fence_after_secs: 0, ..MetadataConfig::default() }).await;
    let bucket = fixture.bucket("b", false).await;
    let request = fixture.put(bucket, b"k");
    let NewBody::Blob(blob) = request.body.clone() else { unreachable!() };
    // Silence of 0 seconds is exceeded by the next microsecond.
    while fixture.service.0.fence_silent().await.unwrap() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(fixture.service.put_object(request).await, Err(MetadataError::Fenced));
    let heartbeat = Heartbeat { incarnation: fixture.incarnation, low_water: 0 };
    assert_eq!(fixture.service.heartbeat(heartbeat).await, Err(MetadataError::Fenced));
    let orphans = fixture.service.find_orphans(BlobIds { blobs: vec![blob.blob] }).await.unwrap();
    assert_eq!(orphans.blobs, [blob.blob]);
    assert_eq!(fixture.service.0.fence_silent().await.unwrap(), 0, "once");
    let next = fixture.service.register_incarnation(Empty {}).await.unwrap();
    assert!(next > fixture.incarnation);
}

#[tokio::test]
async fn the_census_lists_each_shared_blob_once_and_in_order() {
    let fixture = Fixture::new().await;
    let bucket = fixture.bucket("b", false).await;
    let mut blobs = Vec::new();
    for at in 0..10u8 {
        let request = fixture.put(bucket, &[at]);
        let NewBody::Blob(blob) = request.body.clone() else { unreachable!() };
        let written = fixture.service.put_object(request).await.unwrap();
        let copy = fixture.copy(bucket, (&[at], written.version), &[b'c', at]);
        fixture.service.copy_object(copy).await.unwrap();
        blobs.push(blob.blob);
    }
    blobs.sort_unstable();
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = fixture.service.list_blobs(ListBlobs { after, limit: 3 }).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.blob);
        listed.extend(page.iter().map(|live| live.blob));
    }
    assert_eq!(listed, blobs);
}

#[tokio::test]
async fn cluster_time_stands_still_over_a_restart_and_never_runs_backwards() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(MemoryStore::default());
    let open = async || {
        let keys = KeyStore::open(folder.path(), RootKey::from_bytes(1, &[1; 32]).unwrap()).unwrap();
        MetadataService::open(MetadataConfig::default(), Arc::clone(&store) as _, keys).await.unwrap()
    };
    let first = open().await;
    first.0.clock.advance_secs(1_000_000);
    first.0.clock.persist(first.0.store.as_ref(), &first.0.rows).await.unwrap();
    let persisted = first.0.clock.now();
    drop(first);
    let second = open().await;
    assert!(second.0.clock.now().as_secs() >= persisted.as_secs(), "ahead of the machine's clock, it stays ahead");
    // Two services take each other's time over.
    let third = open().await;
    third.0.clock.advance_secs(500);
    third.0.clock.persist(third.0.store.as_ref(), &third.0.rows).await.unwrap();
    second.0.clock.persist(second.0.store.as_ref(), &second.0.rows).await.unwrap();
    assert!(second.0.clock.now().as_secs() >= persisted.as_secs() + 500);
}

#[tokio::test]
async fn the_background_task_purges_while_it_runs_and_ends_when_cancelled() {
    let config = MetadataConfig { trash_secs: 0, background_every_ms: 1, ..MetadataConfig::default() };
    let fixture = Fixture::with_config(config).await;
    let bucket = fixture.bucket("b", false).await;
    let cancel = CancellationToken::new();
    let running = fixture.service.start_background(cancel.clone());
    fixture.put_now(bucket, b"k").await;
    fixture.service.delete_object(fixture.delete(bucket, b"k", VersionSelector::Current)).await.unwrap();
    while fixture.doomed_blobs().await.is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    cancel.cancel();
    running.await.unwrap();
    assert_eq!(fixture.store.count(Tag::Lease), 0, "the lease is given back");
    assert_eq!(fixture.store.count(Tag::Clock), 1);
}
