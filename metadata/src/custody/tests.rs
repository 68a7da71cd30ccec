//! Custodians and disks: what is refused, what is recorded, and that nothing of it lies open.

use super::FoundHorizon;
use crate::rows::Tag;
use crate::testing::{Fixture, SECRET_TEXT, actor, disks};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use valv_metadata_api::*;
use valv_types::{
    BucketId, ChunkId, CommitId, CustodianId, DiskId, ProjectId, TimestampMicros, UserId, placement_hash,
};

fn operator() -> Actor {
    let mut operator = actor(ProjectId::CLUSTER, valv_types::UserId::from_bytes([9; 16]));
    operator.user = None;
    operator.caller = Some("operator on the server's socket".to_owned());
    operator
}

fn details(organisation: &str) -> CustodianDetails {
    CustodianDetails {
        organisation: organisation.to_owned(),
        contact: format!("{SECRET_TEXT} contact"),
        contract: "dnr 7/2026".to_owned(),
    }
}

async fn create(fixture: &Fixture, organisation: &str) -> Result<Custodian, MetadataError> {
    let request = CreateCustodian { actor: operator(), details: details(organisation), commit: CommitId::random() };
    fixture.service.create_custodian(request).await
}

async fn guarantee(
    fixture: &Fixture,
    disk: DiskId,
    custodian: Option<CustodianId>,
    until: Option<TimestampMicros>,
) -> Result<DiskCustody, MetadataError> {
    let request = SetDiskCustody {
        actor: operator(),
        disk,
        custodian,
        guaranteed_until: until,
        reason: "contract".to_owned(),
        commit: CommitId::random(),
    };
    fixture.service.set_disk_custody(request).await
}

fn refusal<T: std::fmt::Debug>(answer: Result<T, MetadataError>) -> CustodyRefusal {
    match answer {
        Err(MetadataError::Custody { reason }) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

async fn cluster_ledger(fixture: &Fixture) -> Vec<(String, Option<String>)> {
    let mut out = Vec::new();
    fixture.service.export_cluster_ledger(&mut out).await.unwrap();
    let key = fixture.service.signing_public_key();
    valv_ledger::verify(out.as_slice(), &key, &[]).unwrap();
    let lines: Vec<serde_json::Value> = out
        .split(|b| *b == b'\n')
        .filter(|line| !line.is_empty())
        .map(|l| serde_json::from_slice(l).unwrap())
        .collect();
    let events = lines.iter().filter(|line| line["line"] == "event");
    events
        .map(|line| {
            let detail = line["names"]["detail"].as_str().map(str::to_owned);
            (line["event"]["kind"].as_str().unwrap().to_owned(), detail)
        })
        .collect()
}

#[tokio::test]
async fn custodians_and_guarantees_are_kept_and_every_change_is_in_the_clusters_ledger() {
    let fixture = Fixture::new().await;
    let uni = create(&fixture, "Uni A").await.unwrap();
    let other = create(&fixture, "Uni B").await.unwrap();
    let disk = disks()[0];
    let set = guarantee(&fixture, disk, Some(uni.id), Some(TimestampMicros(7))).await.unwrap();
    assert_eq!((set.custodian, set.guaranteed_until, set.is_in_pool), (Some(uni.id), Some(TimestampMicros(7)), true));
    let moved = guarantee(&fixture, disk, Some(other.id), None).await.unwrap();
    assert_eq!((moved.custodian, moved.guaranteed_until), (Some(other.id), Some(TimestampMicros(7))), "the date stays");
    let again = guarantee(&fixture, disk, Some(other.id), None).await.unwrap();
    assert_eq!(again, moved, "the same again changes nothing");
    let request = UpdateCustodian {
        actor: operator(),
        custodian: other.id,
        organisation: None,
        contact: Some("new".to_owned()),
        contract: None,
        commit: CommitId::random(),
    };
    assert_eq!(fixture.service.update_custodian(request).await.unwrap().details.contact, "new");
    let listed = fixture.service.list_custodians(Empty {}).await.unwrap();
    assert_eq!(
        listed.iter().map(|one| (one.details.organisation.as_str(), one.disks)).collect::<Vec<_>>(),
        [("Uni A", 0), ("Uni B", 1)]
    );
    let all = fixture.service.list_disk_custody(Empty {}).await.unwrap();
    assert_eq!(all.iter().map(|one| one.disk).collect::<Vec<_>>(), disks(), "disks without facts are listed as well");

    let removal = |custodian| RemoveCustodian { actor: operator(), custodian, commit: CommitId::random() };
    assert_eq!(refusal(fixture.service.remove_custodian(removal(other.id)).await), CustodyRefusal::HasDisks);
    fixture.service.remove_custodian(removal(uni.id)).await.unwrap();
    let told = cluster_ledger(&fixture).await;
    let mut kinds: Vec<_> = told.iter().map(|(kind, _)| kind.as_str()).collect();
    kinds.sort_unstable();
    assert_eq!(
        kinds,
        [
            "custodian changed",
            "custodian created",
            "custodian created",
            "custodian removed",
            "disk custody changed",
            "disk custody changed"
        ]
    );
    let disk_change = told.iter().rev().find(|(kind, _)| kind == "disk custody changed").unwrap();
    let detail: serde_json::Value = serde_json::from_str(disk_change.1.as_ref().unwrap()).unwrap();
    assert_eq!(
        (&detail["before"]["organisation"], &detail["after"]["organisation"]),
        (&"Uni A".into(), &"Uni B".into())
    );
}

#[tokio::test]
async fn what_contradicts_is_refused() {
    let fixture = Fixture::new().await;
    let uni = create(&fixture, "Uni A").await.unwrap();
    let nobody = CustodianId::from_bytes([1; 16]);
    for (answer, expected) in [
        (create(&fixture, "UNI a").await.map(|_| ()), CustodyRefusal::OrganisationTaken),
        (create(&fixture, " ").await.map(|_| ()), CustodyRefusal::TextMalformed),
        (create(&fixture, "a\nb").await.map(|_| ()), CustodyRefusal::TextMalformed),
        (create(&fixture, &"x".repeat(CUSTODY_TEXT_BYTES_MAX + 1)).await.map(|_| ()), CustodyRefusal::TextMalformed),
        (guarantee(&fixture, disks()[0], Some(nobody), None).await.map(|_| ()), CustodyRefusal::NoSuchCustodian),
        (guarantee(&fixture, disks()[0], None, None).await.map(|_| ()), CustodyRefusal::NothingToChange),
    ] {
        assert_eq!(refusal(answer), expected);
    }
    assert_eq!(fixture.service.list_custodians(Empty {}).await.unwrap().len(), 1);
    let spare = DiskId::from_bytes([0x77; 16]);
    assert!(
        !guarantee(&fixture, spare, Some(uni.id), None).await.unwrap().is_in_pool,
        "a disk may be known before it is used"
    );
}

#[tokio::test]
async fn of_two_custodians_of_one_organisation_made_at_once_one_is_refused() {
    let fixture = Fixture::new().await;
    let (one, two) = tokio::join!(create(&fixture, "Uni A"), create(&fixture, "Uni A"));
    assert_eq!([&one, &two].into_iter().filter(|made| made.is_ok()).count(), 1);
    assert_eq!(fixture.store.count(Tag::Custodian), 1);
}

#[tokio::test]
async fn a_lost_answer_is_repeated_with_the_first_outcome() {
    let fixture = Fixture::new().await;
    fixture.store.lose_answers.store(1, std::sync::atomic::Ordering::Relaxed);
    let request = CreateCustodian { actor: operator(), details: details("Uni A"), commit: CommitId::random() };
    let made = fixture.service.create_custodian(request.clone()).await.unwrap();
    assert_eq!(fixture.service.create_custodian(request).await.unwrap(), made);
    assert_eq!(cluster_ledger(&fixture).await.len(), 1);
}

#[tokio::test]
async fn nothing_that_names_a_custodian_lies_open() {
    let fixture = Fixture::new().await;
    create(&fixture, &format!("{SECRET_TEXT} organisation")).await.unwrap();
    let marker = SECRET_TEXT.as_bytes();
    for (key, row) in fixture.store.rows().iter() {
        for bytes in [key.as_ref(), row.value.as_ref()] {
            assert!(!bytes.windows(marker.len()).any(|window| window == marker), "{key:?}");
        }
    }
}

// -- the horizon -------------------------------------------------------------------------------------------------------

const DAY: u64 = 86_400;

fn in_days(fixture: &Fixture, days: u64) -> TimestampMicros {
    fixture.service.0.clock.now().plus_secs(days * DAY)
}

async fn put_kept(fixture: &Fixture, bucket: BucketId, key: &[u8], until: Option<TimestampMicros>) -> Written {
    let mut put = fixture.put(bucket, key);
    put.lock.retention = until.map(|until| Retention { mode: RetentionMode::Compliance, until });
    fixture.service.put_object(put).await.unwrap()
}

async fn horizon(fixture: &Fixture, project: Option<ProjectId>, by: TimestampMicros) -> FoundHorizon {
    let found = fixture.service.horizon(project, Some(by), |_| ControlFlow::Continue(())).await;
    found.unwrap().unwrap()
}

#[tokio::test]
async fn the_horizon_counts_what_has_to_be_kept_beyond_the_guarantee_of_its_disks() {
    let fixture = Fixture::new().await;
    let bucket = fixture.bucket("locked", true).await;
    let project = fixture.actor.project;
    put_kept(&fixture, bucket, b"short", Some(in_days(&fixture, 10))).await;
    put_kept(&fixture, bucket, b"long", Some(in_days(&fixture, 1_000))).await;
    put_kept(&fixture, bucket, b"free", None).await;
    // The retained version is noncurrent, and counts all the same.
    put_kept(&fixture, bucket, b"long", None).await;
    let mut held = fixture.put(bucket, b"held");
    held.lock.legal_hold = true;
    fixture.service.put_object(held).await.unwrap();
    let mut inline = fixture.put(bucket, b"inline");
    inline.body = NewBody::Inline(fixture.blob(100, BlobPlace::Inline), vec![1; 116]);
    inline.lock.retention = Some(Retention { mode: RetentionMode::Governance, until: in_days(&fixture, 1_000) });
    fixture.service.put_object(inline).await.unwrap();

    // 4+2 over six disks: three that end early are one too many, for whatever lies on all six.
    for (disk, days) in disks().into_iter().zip([100, 100, 200, 5_000, 5_000, 5_000]) {
        guarantee(&fixture, disk, None, Some(in_days(&fixture, days))).await.unwrap();
    }
    let mib = 1 << 20;
    for (by, shrinking, uncovered) in [(99, 0, 0), (150, 2 * mib + 100, 0), (250, 2 * mib + 100, 2 * mib + 100)] {
        let found = horizon(&fixture, None, in_days(&fixture, by)).await;
        let view = &found.report.projects[&project];
        assert_eq!((view.shrinking_bytes, view.uncovered_bytes), (shrinking, uncovered), "by day {by}");
        assert_eq!(view.kept_bytes, 3 * mib + 100);
        assert_eq!((found.scanned.versions, found.scanned.kept), (6, 4));
        assert_eq!(found.names[&project], "project of main");
    }
    let found = horizon(&fixture, None, in_days(&fixture, 250)).await;
    let need = found.report.disks[&disks()[2]];
    assert_eq!(need.cover_until, Some(valv_horizon::FOREVER), "because of the hold");
    // Prolonging what is proposed covers it.
    let held = fixture.get(bucket, b"held", VersionSelector::Current);
    let held = fixture.service.get_object(held).await.unwrap();
    let release = UpdateVersion {
        actor: fixture.actor.clone(),
        bucket,
        key: ObjectKey::new(*b"held").unwrap(),
        version: VersionSelector::Id(held.version.id),
        change: VersionChange::LegalHold(false),
        commit: CommitId::random(),
    };
    fixture.service.update_version(release).await.unwrap();
    let found = horizon(&fixture, Some(project), in_days(&fixture, 250)).await;
    for (disk, need) in &found.report.disks {
        if let Some(until) = need.cover_until {
            guarantee(&fixture, *disk, None, Some(until)).await.unwrap();
        }
    }
    assert_eq!(horizon(&fixture, None, in_days(&fixture, 250)).await.report.uncovered_bytes(), 0);

    let nothing = horizon(&fixture, Some(ProjectId::random()), in_days(&fixture, 250)).await;
    assert_eq!((nothing.report.projects.len(), nothing.scanned.versions), (0, 0));
    let ended = fixture.service.horizon(None, None, |_| ControlFlow::Break(())).await.unwrap();
    assert!(ended.is_none(), "who asked has gone");
}

#[tokio::test]
async fn copies_of_a_short_chunk_and_parts_lie_where_their_placement_says() {
    let fixture = Fixture::new().await;
    let bucket = fixture.bucket("locked", true).await;
    let mut put = fixture.put(bucket, b"copied");
    let blob = fixture.blob(100_000, BlobPlace::Shards);
    put.body = NewBody::Blob(blob.clone());
    put.lock.retention = Some(Retention { mode: RetentionMode::Compliance, until: in_days(&fixture, 1_000) });
    fixture.service.put_object(put).await.unwrap();
    // Three copies on three of the six disks: guarantees of the other three are of no use.
    let map = fixture.service.get_cluster_map(Empty {}).await.unwrap();
    let hash = placement_hash(ChunkId { blob: blob.blob, index: 0 });
    let on: Vec<DiskId> = (0..3).map(|shard| map.pools[0].disk(hash, shard).unwrap()).collect();
    for disk in disks() {
        let days = if on.contains(&disk) { 100 } else { 5_000 };
        guarantee(&fixture, disk, None, Some(in_days(&fixture, days))).await.unwrap();
    }
    let found = horizon(&fixture, None, in_days(&fixture, 200)).await;
    assert_eq!(found.report.uncovered_bytes(), 100_000);
    assert_eq!(found.report.rows.iter().map(|row| row.disk).collect::<BTreeSet<_>>(), on.iter().copied().collect());
    let covers = found.report.disks.values().filter(|need| need.cover_until.is_some()).count();
    assert_eq!(covers, 1, "one copy that lasts is enough");
}

// -- transfers ---------------------------------------------------------------------------------------------------------

fn person(project: ProjectId, user: UserId) -> Person {
    Person { actor: actor(project, user), is_operator: false }
}

/// A governed project whose controller is the fixture's user, and another user who is no member.
async fn governed(fixture: &Fixture) -> (ProjectId, UserId, UserId) {
    let (project, owner) = (fixture.actor.project, fixture.actor.user.unwrap());
    let mut by = person(project, owner);
    by.is_operator = true;
    let request = GovernProject { by, project, controller: "main".to_owned(), commit: CommitId::random() };
    fixture.service.govern_project(request).await.unwrap();
    let other = fixture.service.ensure_principal(crate::testing::principal("eva")).await.unwrap();
    (project, owner, other.user)
}

fn offer(project: ProjectId, by: UserId, keeps_controllers: bool) -> OfferTransfer {
    OfferTransfer {
        by: person(project, by),
        project,
        to: "eva".to_owned(),
        terms: TransferTerms {
            organisation: "Uni B".to_owned(),
            contact: format!("{SECRET_TEXT} b@b.example"),
            reason: "the group moves".to_owned(),
            ..TransferTerms::default()
        },
        keeps_controllers,
        valid_secs: 600,
        commit: CommitId::random(),
    }
}

fn acceptance(project: ProjectId, by: UserId, offer: CommitId) -> AcceptTransfer {
    AcceptTransfer { by: person(project, by), project, offer, commit: CommitId::random() }
}

fn withdrawal(project: ProjectId, by: UserId) -> WithdrawTransfer {
    WithdrawTransfer { by: person(project, by), project, reason: String::new(), commit: CommitId::random() }
}

#[tokio::test]
async fn a_project_changes_hands_when_the_other_side_accepts() {
    let fixture = Fixture::new().await;
    let (project, owner, eva) = governed(&fixture).await;
    let service = &fixture.service;
    let none = service.accept_transfer(acceptance(project, eva, CommitId::random())).await;
    assert_eq!(refusal(none), CustodyRefusal::NoSuchOffer);
    assert!(service.offer_transfer(offer(project, eva, false)).await.is_err(), "only a controller may offer");
    let first = service.offer_transfer(offer(project, owner, false)).await.unwrap();
    assert_eq!((first.state, first.to_name.as_str()), (TransferState::Offered, "eva"));
    assert_eq!(refusal(service.offer_transfer(offer(project, owner, false)).await), CustodyRefusal::OfferOpen);
    assert_eq!(
        refusal(service.accept_transfer(acceptance(project, owner, first.offer)).await),
        CustodyRefusal::NotYourOffer
    );
    // Another offer takes its place: what was read is not what would be accepted.
    service.withdraw_transfer(withdrawal(project, owner)).await.unwrap();
    let second = service.offer_transfer(offer(project, owner, false)).await.unwrap();
    assert_eq!(
        refusal(service.accept_transfer(acceptance(project, eva, first.offer)).await),
        CustodyRefusal::OfferChanged
    );
    let shown = service.get_transfer(GetTransfer { by: person(project, eva), project }).await.unwrap();
    assert_eq!(shown, second);

    let accepted = service.accept_transfer(acceptance(project, eva, second.offer)).await.unwrap();
    assert_eq!((accepted.state, accepted.removed.as_slice()), (TransferState::Accepted, &["main".to_owned()][..]));
    assert!(service.0.roles_of(project, eva).await.unwrap().has(Role::Controller));
    assert!(service.0.roles_of(project, owner).await.unwrap().is_empty());
    let details = service.get_project(GetProject::Id(project)).await.unwrap().details.unwrap();
    assert_eq!(details.organisation, "Uni B");
    assert!(service.offer_transfer(offer(project, owner, false)).await.is_err(), "no member any more");
    assert_eq!(
        refusal(service.accept_transfer(acceptance(project, eva, second.offer)).await),
        CustodyRefusal::NoSuchOffer
    );
    assert!(service.get_transfer(GetTransfer { by: person(project, owner), project }).await.is_err());
    let marker = SECRET_TEXT.as_bytes();
    for row in fixture.store.rows().values() {
        assert!(!row.value.windows(marker.len()).any(|window| window == marker));
    }
}

#[tokio::test]
async fn an_offer_may_keep_the_controllers_be_declined_and_is_void_without_its_controller() {
    let fixture = Fixture::new().await;
    let (project, owner, eva) = governed(&fixture).await;
    let service = &fixture.service;
    service.offer_transfer(offer(project, owner, true)).await.unwrap();
    let declined = service.withdraw_transfer(withdrawal(project, eva)).await.unwrap();
    assert_eq!(declined.state, TransferState::Declined);
    for (change, expected) in [
        (OfferTransfer { valid_secs: 0, ..offer(project, owner, true) }, CustodyRefusal::ValidityOutOfRange),
        (
            OfferTransfer { terms: TransferTerms::default(), ..offer(project, owner, true) },
            CustodyRefusal::TermsMissing,
        ),
        (OfferTransfer { to: "main".to_owned(), ..offer(project, owner, true) }, CustodyRefusal::OfferedToYourself),
    ] {
        assert_eq!(refusal(service.offer_transfer(change).await), expected);
    }
    let kept = service.offer_transfer(offer(project, owner, true)).await.unwrap();
    let accepted = service.accept_transfer(acceptance(project, eva, kept.offer)).await.unwrap();
    assert!(accepted.removed.is_empty());
    assert!(service.0.roles_of(project, owner).await.unwrap().has(Role::Controller));

    // Eva ends the other's role while an offer of the other's is open.
    let third = fixture.service.ensure_principal(crate::testing::principal("tom")).await.unwrap();
    let to_tom = OfferTransfer { to: "tom".to_owned(), ..offer(project, owner, false) };
    let open = service.offer_transfer(to_tom).await.unwrap();
    let removal =
        RemoveMember { by: person(project, eva), project, user_name: "main".to_owned(), commit: CommitId::random() };
    service.remove_member(removal).await.unwrap();
    let void = service.accept_transfer(acceptance(project, third.user, open.offer)).await;
    assert_eq!(refusal(void), CustodyRefusal::OfferLapsed);
}
