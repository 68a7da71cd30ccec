//! Quotas and the date until which a project is paid for.

use crate::testing::{Fixture, block_on};
use proptest::prelude::*;
use std::sync::Arc;
use valv_metadata_api::*;
use valv_types::{BucketId, CommitId, ProjectId, TimestampMicros};

/// The length of every body of [`Fixture::put`].
const BODY: u64 = 1 << 20;

impl Fixture {
    async fn limit(&self, changes: ProjectChanges) -> Project {
        let actor = Actor { project: ProjectId::CLUSTER, user: None, ..self.actor.clone() };
        let request = UpdateProject {
            by: Person { actor, is_operator: true },
            project: self.actor.project,
            changes,
            commit: CommitId::random(),
        };
        self.service.update_project(request).await.unwrap()
    }

    async fn set_quota(&self, bytes: Option<u64>, objects: Option<u64>) -> Project {
        self.limit(ProjectChanges { quota: Some(Quota { bytes, objects }), ..ProjectChanges::default() }).await
    }

    async fn paid_until(&self, until: Option<u64>) -> Project {
        let until = until.map(TimestampMicros);
        self.limit(ProjectChanges { paid_until: Some(PaidUntil { until }), ..ProjectChanges::default() }).await
    }

    async fn used(&self) -> Option<QuotaUse> {
        self.service.get_project(GetProject::Id(self.actor.project)).await.unwrap().used
    }

    /// What is there, counted row by row.
    async fn counted(&self) -> QuotaUse {
        let project = self.actor.project;
        let held = self.service.0.scan(move |core, snapshot| core.held_in(snapshot, project)).await.unwrap();
        QuotaUse { bytes: held.bytes as u64, objects: held.objects as u64 }
    }
}

fn used(objects: u64) -> QuotaUse {
    QuotaUse { bytes: objects * BODY, objects }
}

#[tokio::test]
async fn of_writers_at_once_as_many_succeed_as_the_quota_has_room_for() {
    for quota in [Quota { bytes: Some(10 * BODY + 5), objects: None }, Quota { bytes: None, objects: Some(10) }] {
        let fixture = Arc::new(Fixture::new().await);
        let bucket = fixture.bucket("b", false).await;
        fixture.set_quota(quota.bytes, quota.objects).await;
        let puts = (0..100).map(|n| {
            let fixture = Arc::clone(&fixture);
            async move { fixture.service.put_object(fixture.put(bucket, format!("k{n}").as_bytes())).await }
        });
        let outcomes = futures_util::future::join_all(puts).await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 10, "{quota:?}");
        let refused = outcomes.into_iter().filter_map(Result::err);
        refused.for_each(|error| assert_eq!(error, MetadataError::QuotaExceeded));
        assert_eq!(fixture.used().await, Some(used(10)));
    }
}

#[tokio::test]
async fn a_quota_counts_what_was_there_before_and_what_the_trash_holds_until_it_is_purged() {
    let fixture = Fixture::new().await;
    let bucket = fixture.bucket("b", false).await;
    for key in [b"1", b"2", b"3"] {
        fixture.put_now(bucket, key).await;
    }
    assert_eq!(fixture.used().await, None, "nothing counts without a quota");
    assert_eq!(fixture.set_quota(Some(4 * BODY), None).await.used, Some(used(3)));
    fixture.put_now(bucket, b"4").await;
    let full = fixture.service.put_object(fixture.put(bucket, b"5")).await;
    assert_eq!(full, Err(MetadataError::QuotaExceeded));
    // Overwriting leaves the old version in the trash.
    let full = fixture.service.put_object(fixture.put(bucket, b"4")).await;
    assert_eq!(full, Err(MetadataError::QuotaExceeded));
    fixture.service.delete_object(fixture.delete(bucket, b"1", VersionSelector::Current)).await.unwrap();
    assert_eq!(fixture.used().await, Some(used(4)));
    fixture.service.purge_trash().await.unwrap();
    assert_eq!(fixture.used().await, Some(used(3)));
    fixture.put_now(bucket, b"5").await;
    // A lower quota takes nothing away, and a higher one lets in again.
    assert_eq!(fixture.set_quota(Some(BODY), None).await.used, Some(used(4)));
    let full = fixture.service.put_object(fixture.put(bucket, b"6")).await;
    assert_eq!(full, Err(MetadataError::QuotaExceeded));
    fixture.set_quota(Some(5 * BODY), None).await;
    fixture.put_now(bucket, b"6").await;
    assert_eq!(fixture.set_quota(None, None).await.used, None);
    fixture.put_now(bucket, b"7").await;
}

#[tokio::test]
async fn past_its_date_a_project_is_read_only_and_keeps_everything() {
    let fixture = Fixture::new().await;
    let bucket = fixture.bucket("b", false).await;
    fixture.put_now(bucket, b"k").await;
    fixture.paid_until(Some(1)).await;
    let read_only = MetadataError::ReadOnly { since: TimestampMicros(1) };
    let put = fixture.service.put_object(fixture.put(bucket, b"n")).await;
    assert_eq!(put.err(), Some(read_only.clone()));
    let deleted = fixture.service.delete_object(fixture.delete(bucket, b"k", VersionSelector::Current)).await;
    assert_eq!(deleted.err(), Some(read_only.clone()));
    let made = CreateBucket {
        actor: fixture.actor.clone(),
        namespace: fixture.namespace,
        name: "later".to_owned(),
        object_lock: false,
        documents: Vec::new(),
        commit: CommitId::random(),
    };
    assert_eq!(fixture.service.create_bucket(made).await.err(), Some(read_only));
    assert!(fixture.service.get_object(fixture.get(bucket, b"k", VersionSelector::Current)).await.is_ok());
    let later = TimestampMicros::now().plus_secs(3_600);
    fixture.paid_until(Some(later.0)).await;
    fixture.put_now(bucket, b"n").await;
    fixture.paid_until(None).await;
    fixture.service.delete_object(fixture.delete(bucket, b"k", VersionSelector::Current)).await.unwrap();
}

/// One thing that happens to a project.
#[derive(Debug, Clone)]
enum Step {
    Put(u8),
    Delete(u8),
    Copy(u8, u8),
    Purge,
    Quota(Option<u64>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..6u8).prop_map(Step::Put),
        2 => (0..6u8).prop_map(Step::Delete),
        2 => (0..6u8, 0..6u8).prop_map(|(from, to)| Step::Copy(from, to)),
        2 => Just(Step::Purge),
        1 => prop::option::of(0..12u64).prop_map(Step::Quota),
    ];
    prop::collection::vec(step, 1..40)
}

async fn step(fixture: &Fixture, bucket: BucketId, step: &Step) -> Result<(), MetadataError> {
    match step {
        Step::Put(key) => fixture.service.put_object(fixture.put(bucket, &[*key])).await.map(|_| ()),
        Step::Delete(key) => {
            let delete = fixture.delete(bucket, &[*key], VersionSelector::Current);
            fixture.service.delete_object(delete).await.map(|_| ())
        }
        Step::Copy(from, to) => {
            let get = fixture.get(bucket, &[*from], VersionSelector::Current);
            let Ok(found) = fixture.service.get_object(get).await else { return Ok(()) };
            let copy = fixture.copy(bucket, (&[*from], found.version.id), &[*to]);
            fixture.service.copy_object(copy).await.map(|_| ())
        }
        Step::Purge => fixture.service.purge_trash().await.map(|_| ()),
        Step::Quota(objects) => {
            fixture.set_quota(None, *objects).await;
            Ok(())
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Against counting every row: what is booked is what is there, and it passes a quota only where that was lowered.
    #[test]
    fn what_is_booked_is_what_is_there(steps in steps()) {
        block_on(async {
            let fixture = Fixture::new().await;
            let bucket = fixture.bucket("b", false).await;
            let mut quota = None;
            for one in steps {
                let before = fixture.counted().await;
                let outcome = step(&fixture, bucket, &one).await;
                let after = fixture.counted().await;
                if let Step::Quota(objects) = one {
                    quota = objects;
                }
                match outcome {
                    Ok(()) if after.objects > before.objects => {
                        assert!(quota.is_none_or(|all| after.objects <= all), "{one:?} {after:?} of {quota:?}");
                    }
                    Ok(()) => {}
                    Err(MetadataError::QuotaExceeded) => {
                        assert!(quota.is_some_and(|all| before.objects + 1 > all), "{one:?} {before:?} of {quota:?}");
                    }
                    Err(error) => panic!("{error}"),
                }
                assert_eq!(fixture.used().await, quota.map(|_| after));
            }
        });
    }
}
