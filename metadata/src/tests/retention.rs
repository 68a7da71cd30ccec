//! Retention classes, legal holds, disposal and trash, where the model of Object Lock does not reach: races, crashes,
//! counts, and who decides.

use crate::MetadataConfig;
use crate::approvals::Carried;
use crate::records::{self, EventKind, LedgerRecord};
use crate::rows::Tag;
use crate::store::MetaStore;
use crate::testing::{Fixture, actor};
use std::sync::Arc;
use std::time::Duration;
use valv_metadata_api::*;
use valv_types::{BucketId, CommitId, DisposalId, ProposalId, TimestampMicros, UserId, VersionId};

const DAY: u64 = 24 * 60 * 60;

fn config() -> MetadataConfig {
    MetadataConfig { trash_secs: 1_000, cooling_off_secs: 0, ..MetadataConfig::default() }
}

fn class(default_days: u32, minimum_days: u32) -> ProjectRetention {
    ProjectRetention { default_days, minimum_days, lifecycle_disposal: false, class: "ten years".to_owned() }
}

async fn set_class<S: MetaStore + 'static>(
    fixture: &Fixture<S>,
    retention: ProjectRetention,
) -> Result<(), MetadataError> {
    let actor = fixture.actor.clone();
    let project = actor.project;
    let request = SetProjectRetention { actor, project, retention, reason: "r".to_owned(), commit: CommitId::random() };
    fixture.service.set_project_retention(request).await
}

async fn hold(fixture: &Fixture, bucket: Option<BucketId>, prefix: &[u8]) -> Hold {
    let actor = fixture.actor.clone();
    let request = SetHold {
        project: actor.project,
        actor,
        scope: RetentionScope { bucket, prefix: prefix.to_vec() },
        reason: "inquiry".to_owned(),
        reference: "court 1/30".to_owned(),
        commit: CommitId::random(),
    };
    fixture.service.set_hold(request).await.unwrap()
}

async fn release(fixture: &Fixture, hold: Hold) {
    let actor = fixture.actor.clone();
    let reason = "closed".to_owned();
    let request = ReleaseHold { project: actor.project, actor, hold: hold.id, reason, commit: CommitId::random() };
    fixture.service.release_hold(request).await.unwrap();
}

fn proposal_of<S: MetaStore + 'static>(fixture: &Fixture<S>, disposal: DisposalId, approvers: usize) -> Proposal {
    let approval = |_| Decision {
        user: UserId::random(),
        time: TimestampMicros(1),
        approve: true,
        reason: String::new(),
        caller: String::new(),
    };
    Proposal {
        id: ProposalId::from_bytes(*disposal.as_bytes()),
        act: Act::Dispose(Dispose { project: fixture.actor.project, disposal }),
        proposer: UserId::random(),
        proposed: TimestampMicros(1),
        reason: "r".to_owned(),
        reference: "r".to_owned(),
        state: ProposalState::Approved { not_before: TimestampMicros(1) },
        decisions: (0..approvers).map(approval).collect(),
    }
}

async fn propose<S: MetaStore + 'static>(fixture: &Fixture<S>, bucket: BucketId) -> Result<Disposal, MetadataError> {
    let actor = fixture.actor.clone();
    let request = ProposeDisposal {
        project: actor.project,
        actor,
        bucket,
        prefix: Vec::new(),
        reason: "end of study".to_owned(),
        reference: "board 4/36".to_owned(),
        disposal: DisposalId::random(),
    };
    fixture.service.propose_disposal(request).await
}

async fn carry_out<S: MetaStore + 'static>(fixture: &Fixture<S>, disposal: DisposalId) {
    let proposal = proposal_of(fixture, disposal, 1);
    let act = Dispose { project: fixture.actor.project, disposal };
    while let Carried::More = fixture.service.0.carry_out_disposal(&act, &proposal).await.unwrap() {}
}

/// Proposes and carries out. `None` if there is nothing that may go, or no bucket.
pub(crate) async fn dispose<S: MetaStore + 'static>(fixture: &Fixture<S>, bucket: BucketId) -> Option<Disposal> {
    let disposal = match propose(fixture, bucket).await {
        Ok(disposal) => disposal,
        Err(MetadataError::Retention { reason: RetentionRefusal::NothingToDispose } | MetadataError::NoSuchBucket) => {
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    carry_out(fixture, disposal.id).await;
    Some(fixture.service.disposal(fixture.actor.project, disposal.id).await.unwrap())
}

async fn is_there(fixture: &Fixture, bucket: BucketId, key: &[u8], version: VersionId) -> bool {
    let request = fixture.get(bucket, key, VersionSelector::Id(version));
    fixture.service.get_object(request).await.is_ok()
}

fn events(fixture: &Fixture, kind: EventKind) -> usize {
    let rows = fixture.store.rows();
    let ledger = rows.iter().filter(|(key, _)| key[2] == Tag::Ledger as u8);
    ledger.filter(|(_, row)| records::decode::<LedgerRecord>("ledger", &row.value).unwrap().kind == kind).count()
}

#[tokio::test]
async fn every_bucket_of_a_project_gets_its_class_those_to_come_included() {
    let fixture = Fixture::with_config(config()).await;
    let old = fixture.bucket("old", false).await;
    set_class(&fixture, class(0, 10)).await.unwrap();
    let new = fixture.bucket("new", false).await;
    let found = |name: &str| GetBucket { namespace: fixture.namespace, name: name.to_owned() };
    let bucket = fixture.service.get_bucket(found("new")).await.unwrap();
    assert_eq!((bucket.versioning, bucket.object_lock), (Versioning::Enabled, Some(ObjectLock { default: None })));
    let bucket = fixture.service.get_bucket(found("old")).await.unwrap();
    assert_eq!((bucket.versioning, bucket.object_lock), (Versioning::Unversioned, None), "it stays what it is");
    for bucket in [old, new] {
        fixture.put_now(bucket, b"k").await;
        let got = fixture.service.get_object(fixture.get(bucket, b"k", VersionSelector::Current)).await.unwrap();
        let retention = got.version.retention.unwrap();
        assert_eq!(retention.mode, RetentionMode::Compliance);
        assert!(retention.until >= got.version.order.plus_secs(10 * DAY));
    }
    let locked = Err(MetadataError::Locked { reason: LockReason::Compliance });
    let overwrite = fixture.service.put_object(fixture.put(old, b"k")).await;
    assert_eq!(overwrite.map(|_| ()), locked.clone());
    let delete = fixture.service.delete_object(fixture.delete(old, b"k", VersionSelector::Current)).await;
    assert_eq!(delete.map(|_| ()), locked);
    assert!(fixture.versioning(old, Versioning::Suspended).await.is_err(), "a project's retention needs all versions");
    assert_eq!(events(&fixture, EventKind::RetentionSet), 1);
    assert_eq!(fixture.service.project_retention(fixture.actor.project).await.unwrap(), class(0, 10));
}

#[tokio::test]
async fn lowering_needs_two_people_and_touches_nothing_that_was_written() {
    let fixture = Fixture::with_config(config()).await;
    set_class(&fixture, class(20, 10)).await.unwrap();
    let bucket = fixture.bucket("b", false).await;
    let written = fixture.put_now(bucket, b"k").await;
    let needed = MetadataError::from(RetentionRefusal::NeedsApproval);
    assert_eq!(set_class(&fixture, class(20, 9)).await, Err(needed.clone()));
    assert_eq!(set_class(&fixture, class(10, 10)).await, Err(needed.clone()));
    assert_eq!(set_class(&fixture, class(0, 0)).await, Err(needed));
    let project = fixture.actor.project;
    let person = |_| Person { actor: actor(project, UserId::random()), is_operator: true };
    let (first, second) = (person(1), person(2));
    let propose = ProposeAct {
        act: Act::LowerRetention(LowerRetention { project, retention: class(0, 1) }),
        by: first,
        reason: "the law has changed".to_owned(),
        reference: "law 7/31".to_owned(),
        commit: CommitId::random(),
    };
    let proposal = fixture.service.propose_act(propose).await.unwrap();
    assert_eq!(fixture.service.project_retention(project).await.unwrap(), class(20, 10));
    let answer = AnswerProposal {
        proposal: proposal.id,
        project: Some(project),
        by: second,
        approve: true,
        reason: String::new(),
        commit: CommitId::random(),
    };
    let answered = fixture.service.answer_proposal(answer).await.unwrap();
    assert!(matches!(answered.state, ProposalState::CarriedOut { .. }), "{answered:?}");
    assert_eq!(fixture.service.project_retention(project).await.unwrap(), class(0, 1));
    let got = fixture.service.get_object(fixture.get(bucket, b"k", VersionSelector::Current)).await.unwrap();
    assert!(got.version.retention.unwrap().until >= written.order.plus_secs(20 * DAY));
}

#[tokio::test]
async fn of_a_hold_and_removals_at_the_same_time_nothing_goes_after_the_hold_is_set() {
    let fixture = Arc::new(Fixture::with_config(config()).await);
    for scope in 0..3 {
        let bucket = fixture.bucket(&format!("race-{scope}"), true).await;
        let mut versions = Vec::new();
        for number in 0..40u8 {
            versions.push(fixture.put_now(bucket, &[b'k', number + 1]).await.version);
        }
        let removals = versions.iter().zip(1u8..).map(|(version, number)| {
            let (fixture, version) = (Arc::clone(&fixture), *version);
            tokio::spawn(async move {
                let request = fixture.delete(bucket, &[b'k', number], VersionSelector::Id(version));
                fixture.service.delete_object(request).await.is_ok()
            })
        });
        let removals: Vec<_> = removals.collect();
        let held = match scope {
            0 => hold(&fixture, None, b"").await,
            1 => hold(&fixture, Some(bucket), b"").await,
            _ => hold(&fixture, Some(bucket), b"k").await,
        };
        let kept = fixture.versions(bucket).await;
        for removal in removals {
            removal.await.unwrap();
        }
        assert_eq!(fixture.versions(bucket).await, kept, "something went after the hold was set");
        let request = fixture.delete(bucket, b"other", VersionSelector::Current);
        assert!(fixture.service.delete_object(request).await.is_ok(), "a delete marker removes nothing");
        release(&fixture, held).await;
    }
    assert!(fixture.service.list_holds(fixture.actor.project).await.unwrap().is_empty());
    assert_eq!((events(&fixture, EventKind::HoldSet), events(&fixture, EventKind::HoldReleased)), (3, 3));
}

#[tokio::test]
async fn a_hold_on_a_project_keeps_the_trash_and_new_buckets_too() {
    let fixture = Fixture::with_config(MetadataConfig { trash_secs: 0, ..config() }).await;
    let (gone, kept) = (fixture.bucket("gone", false).await, fixture.bucket("kept", false).await);
    for bucket in [gone, kept] {
        fixture.put_now(bucket, b"k").await;
        fixture.service.delete_object(fixture.delete(bucket, b"k", VersionSelector::Current)).await.unwrap();
    }
    let request = DeleteBucket { actor: fixture.actor.clone(), bucket: gone, commit: CommitId::random() };
    fixture.service.delete_bucket(request).await.unwrap();
    let held = hold(&fixture, None, b"").await;
    let later = fixture.bucket("later", false).await;
    fixture.put_now(later, b"k").await;
    let delete = fixture.service.delete_object(fixture.delete(later, b"k", VersionSelector::Current)).await;
    assert_eq!(delete.map(|_| ()), Err(MetadataError::Locked { reason: LockReason::ScopeHold }));
    let request = DeleteBucket { actor: fixture.actor.clone(), bucket: kept, commit: CommitId::random() };
    let refused = fixture.service.delete_bucket(request).await;
    assert_eq!(refused.map(|_| ()), Err(MetadataError::Locked { reason: LockReason::ScopeHold }));
    for _ in 0..3 {
        fixture.service.purge_trash().await.unwrap();
    }
    assert_eq!(fixture.store.count(Tag::Trash), 2, "of the deleted bucket, too");
    release(&fixture, held).await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    fixture.service.purge_trash().await.unwrap();
    assert_eq!(fixture.store.count(Tag::Trash), 0, "its time goes on after the hold");
}

#[tokio::test]
async fn a_disposal_takes_what_was_listed_and_judges_each_version_again() {
    let fixture = Fixture::with_config(config()).await;
    set_class(&fixture, class(0, 10)).await.unwrap();
    let bucket = fixture.bucket("study", false).await;
    let mut ids = Vec::new();
    for key in [b"a", b"b", b"c", b"d"] {
        ids.push(fixture.put_now(bucket, key).await.version);
    }
    fixture.service.delete_object(fixture.delete(bucket, b"a", VersionSelector::Current)).await.unwrap();
    let nothing = MetadataError::from(RetentionRefusal::NothingToDispose);
    assert_eq!(propose(&fixture, bucket).await.map(|_| ()), Err(nothing), "all is under retention");
    assert_eq!(fixture.store.count(Tag::Disposal), 0, "nothing of a refused list is left");

    fixture.service.0.clock.advance_secs(11 * DAY);
    let kept = fixture.put_now(bucket, b"e").await.version;
    let disposal = propose(&fixture, bucket).await.unwrap();
    assert_eq!((disposal.listed.versions, disposal.listed.kept), (4, 1));
    assert!(disposal.listed.retention_ended.is_some());
    let list = fixture.service.disposal_list(fixture.actor.project, disposal.id, 0).await.unwrap().unwrap();
    assert_eq!(list.iter().map(|entry| entry.version).collect::<Vec<_>>(), ids, "without the delete marker");

    // One person is not enough, whatever calls it.
    let alone = proposal_of(&fixture, disposal.id, 0);
    let act = Dispose { project: fixture.actor.project, disposal: disposal.id };
    let refused = fixture.service.0.carry_out_disposal(&act, &alone).await.map(|_| ());
    assert_eq!(refused, Err(RetentionRefusal::NotApproved.into()));

    // Since then: one is extended, one held, one removed, one written anew.
    let extend = ExtendRetention {
        actor: fixture.actor.clone(),
        bucket,
        which: ExtendWhich::Version(ObjectKey::new(*b"b").unwrap(), ids[1]),
        until: fixture.service.0.clock.now().plus_secs(DAY),
        reason: "r".to_owned(),
        after: None,
    };
    assert_eq!(fixture.service.extend_retention(extend).await.unwrap().extended, 1);
    hold(&fixture, Some(bucket), b"c").await;
    fixture.service.delete_object(fixture.delete(bucket, b"d", VersionSelector::Id(ids[3]))).await.unwrap();
    let later = fixture.put_now(bucket, b"a").await.version;

    carry_out(&fixture, disposal.id).await;
    let done = fixture.service.disposal(fixture.actor.project, disposal.id).await.unwrap();
    assert_eq!(done.state, DisposalState::Done);
    assert_eq!((done.removed, done.refused, done.gone, done.markers), (1, 2, 1, 1));
    assert_eq!(done.removed_bytes, 1 << 20);
    assert_eq!(done.deciders.len(), 2);
    assert!(!is_there(&fixture, bucket, b"a", ids[0]).await);
    for (key, version) in [(b"b", ids[1]), (b"c", ids[2]), (b"a", later), (b"e", kept)] {
        assert!(is_there(&fixture, bucket, key, version).await, "{}", key.escape_ascii());
    }
    assert_eq!(events(&fixture, EventKind::VersionDisposed), 2, "the version and its marker");
    assert_eq!(events(&fixture, EventKind::DisposalEnded), 1);
    assert_eq!(fixture.store.count(Tag::Disposal), 1, "of the list nothing is left");
    // Until it is purged it can be brought back.
    fixture.service.undelete(&fixture.actor, ids[0]).await.unwrap();
    assert!(is_there(&fixture, bucket, b"a", ids[0]).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disposal_that_dies_at_any_moment_is_carried_on_and_counts_each_version_once() {
    const VERSIONS: u32 = 700;
    let mut fixture = Fixture::with_config(config()).await;
    let bucket = fixture.bucket("study", true).await;
    for number in 0..VERSIONS {
        fixture.put_now(bucket, format!("k{}", number / 2).as_bytes()).await;
    }
    let disposal = propose(&fixture, bucket).await.unwrap();
    assert_eq!(disposal.listed.versions, u64::from(VERSIONS));
    let proposal = proposal_of(&fixture, disposal.id, 1);
    let act = Dispose { project: fixture.actor.project, disposal: disposal.id };
    let mut deaths = 0;
    for polls in [2, 5, 20, 50, 90, 140, 200, 300] {
        let service = Arc::clone(&fixture.service);
        let mut work = Box::pin(service.0.carry_out_disposal(&act, &proposal));
        for _ in 0..polls {
            if futures_util::poll!(&mut work).is_ready() {
                break;
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        drop(work);
        let so_far = fixture.service.disposal(fixture.actor.project, disposal.id).await.unwrap();
        deaths += u32::from(so_far.state == DisposalState::Approved);
        fixture.restart().await;
    }
    assert!(deaths > 1, "it was never cut short in between");
    carry_out(&fixture, disposal.id).await;
    let done = fixture.service.disposal(fixture.actor.project, disposal.id).await.unwrap();
    assert_eq!((done.removed, done.refused, done.gone), (u64::from(VERSIONS), 0, 0));
    assert_eq!(done.removed_bytes, u64::from(VERSIONS) << 20);
    assert_eq!(events(&fixture, EventKind::VersionDisposed), VERSIONS as usize);
    assert!(fixture.versions(bucket).await.is_empty());
}

#[tokio::test]
async fn a_disposal_that_was_rejected_leaves_no_list() {
    let fixture = Fixture::with_config(config()).await;
    let bucket = fixture.bucket("study", true).await;
    fixture.put_now(bucket, b"k").await;
    let disposal = propose(&fixture, bucket).await.unwrap();
    let project = fixture.actor.project;
    let person = Person { actor: fixture.actor.clone(), is_operator: true };
    let propose = ProposeAct {
        act: Act::Dispose(Dispose { project, disposal: disposal.id }),
        by: person.clone(),
        reason: "r".to_owned(),
        reference: "r".to_owned(),
        commit: CommitId::from_bytes(*disposal.id.as_bytes()),
    };
    let proposal = fixture.service.propose_act(propose).await.unwrap();
    fixture.service.0.tidy_disposals().await.unwrap();
    assert_eq!(fixture.store.count(Tag::Disposal), 2, "it waits for an answer");
    let answer = AnswerProposal {
        proposal: proposal.id,
        project: Some(project),
        by: person,
        approve: false,
        reason: "not yet".to_owned(),
        commit: CommitId::random(),
    };
    fixture.service.answer_proposal(answer).await.unwrap();
    fixture.service.0.tidy_disposals().await.unwrap();
    let rejected = fixture.service.disposal(project, disposal.id).await.unwrap();
    assert_eq!(rejected.state, DisposalState::Rejected);
    assert_eq!(fixture.store.count(Tag::Disposal), 1);
    assert_eq!(fixture.versions(bucket).await.len(), 1);
}

#[tokio::test]
async fn trash_is_listed_by_place_and_brought_back_in_order() {
    let fixture = Fixture::with_config(config()).await;
    let (bucket, other) = (fixture.bucket("one", true).await, fixture.bucket("two", true).await);
    let mut versions = Vec::new();
    for _ in 0..3 {
        versions.push(fixture.put_now(bucket, b"a/k").await.version);
    }
    let elsewhere = fixture.put_now(other, b"b/k").await.version;
    for (bucket, key, version) in [(bucket, b"a/k", versions[1]), (other, b"b/k", elsewhere)] {
        fixture.service.delete_object(fixture.delete(bucket, key, VersionSelector::Id(version))).await.unwrap();
    }
    let project = fixture.actor.project;
    let list = |bucket, prefix: &[u8]| ListTrash { project, bucket, prefix: prefix.to_vec(), after: None, limit: 1 };
    let first = fixture.service.list_trash(list(None, b"")).await.unwrap();
    let rest = ListTrash { after: first.next, ..list(None, b"") };
    let second = fixture.service.list_trash(rest).await.unwrap();
    let listed: Vec<_> = [&first, &second].iter().flat_map(|page| &page.entries).collect();
    assert_eq!(listed.iter().map(|entry| entry.place.version).collect::<Vec<_>>(), [versions[1], elsewhere]);
    assert_eq!((listed[0].bucket_name.as_deref(), listed[0].by), (Some("one"), fixture.actor.user));
    let of_other = fixture.service.list_trash(list(Some(other), b"")).await.unwrap().entries;
    assert_eq!(of_other.len(), 1);
    assert!(fixture.service.list_trash(list(Some(other), b"a")).await.unwrap().entries.is_empty());

    let stranger = actor(valv_types::ProjectId::random(), UserId::random());
    let refused = fixture.service.undelete_at(&stranger, listed[0].place).await;
    assert_eq!(refused, Err(MetadataError::NoSuchVersion), "another project's trash does not exist");
    fixture.service.undelete_at(&fixture.actor, listed[0].place).await.unwrap();
    let order: Vec<_> = fixture.versions(bucket).await.iter().map(|entry| entry.id).collect();
    assert_eq!(order, [versions[2], versions[1], versions[0]], "newest first, where it was");
}
