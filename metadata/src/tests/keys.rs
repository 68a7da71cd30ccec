//! Keys replaced while records come and go, and keys destroyed for good.

use crate::MetadataConfig;
use crate::records;
use crate::rows::Tag;
use crate::testing::{Fixture, actor};
use valv_codec::{DataKey, ProjectKey, wrapped_data_key_version};
use valv_metadata_api::*;
use valv_types::{BlobId, BucketId, CommitId, ProposalId, UserId, VersionId};

/// No grace: nothing reads meanwhile.
fn config() -> MetadataConfig {
    MetadataConfig {
        trash_secs: 600,
        key_retire_secs: 0,
        key_lease_ms: 0,
        cooling_off_secs: 0,
        ..MetadataConfig::default()
    }
}

/// A PUT whose wrap is really under this key.
fn put(fixture: &Fixture, bucket: BucketId, key: &[u8], under: &ProjectKey) -> PutObject {
    let mut put = fixture.put(bucket, key);
    if let NewBody::Blob(blob) = &mut put.body {
        let data_key = DataKey::generate().unwrap();
        blob.wrapped_key = under.wrap_data_key(fixture.actor.project, blob.blob, &data_key, None).unwrap();
    }
    put
}

fn newest(fixture: &Fixture) -> ProjectKey {
    fixture.service.keys().project_key(fixture.actor.project, None).unwrap()
}

async fn wrap_of(fixture: &Fixture, bucket: BucketId, key: &[u8], version: VersionSelector) -> (BlobId, Vec<u8>) {
    let found = fixture.service.get_object(fixture.get(bucket, key, version)).await.unwrap();
    let Body::Blob(blob) = found.version.body else { panic!("no blob") };
    (blob.blob, blob.wrapped_key)
}

async fn finish(fixture: &Fixture) {
    while fixture.service.advance_rotations().await.unwrap() {}
    // The last pass may begin one turn later.
    while fixture.service.project_keys(fixture.actor.project).await.unwrap().rotation.unwrap().ended.is_none() {
        fixture.service.advance_rotations().await.unwrap();
    }
}

/// Which versions of the project's key the rows name, by kind of row.
fn versions_in_rows(fixture: &Fixture) -> Vec<u32> {
    let mut found = Vec::new();
    for (key, row) in fixture.store.rows().iter() {
        if key[2] == Tag::Head as u8 {
            let head: records::HeadRecord = records::decode("head", &row.value).unwrap();
            found.push(head.version.key_version);
        } else if key[2] == Tag::Ledger as u8 && key[3..19] == *fixture.actor.project.as_bytes() {
            found.push(records::decode::<records::LedgerRecord>("ledger", &row.value).unwrap().key_version);
        } else if key[2] == Tag::Bucket as u8 {
            found.push(records::decode::<records::BucketRecord>("bucket", &row.value).unwrap().key_version);
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

#[tokio::test]
async fn a_project_key_is_replaced_and_everything_moves_to_the_new_one() {
    let mut fixture = Fixture::with_config(config()).await;
    let bucket = fixture.bucket("b", false).await;
    fixture.versioning(bucket, Versioning::Enabled).await.unwrap();
    let old = newest(&fixture);
    for key in [b"a", b"b"] {
        fixture.service.put_object(put(&fixture, bucket, key, &old)).await.unwrap();
    }
    let first = wrap_of(&fixture, bucket, b"a", VersionSelector::Current).await;
    // One noncurrent version, and one in the trash.
    fixture.service.put_object(put(&fixture, bucket, b"a", &old)).await.unwrap();
    let trashed =
        fixture.service.get_object(fixture.get(bucket, b"b", VersionSelector::Current)).await.unwrap().version.id;
    fixture.service.delete_object(fixture.delete(bucket, b"b", VersionSelector::Id(trashed))).await.unwrap();

    let opened = CreateOpening {
        actor: fixture.actor.clone(),
        is_operator: true,
        opening: NewOpening {
            project: fixture.actor.project,
            bucket_name: Some("b".to_owned()),
            to: OpeningTo::Public("shared".to_owned()),
            prefix: Vec::new(),
            scope: OpeningScope::WhatPoliciesSay,
            purpose: "a purpose".to_owned(),
            reference: "a reference".to_owned(),
            start: None,
            expiry: None,
            zones: Vec::new(),
            budget_bytes: None,
            alias: None,
            is_configured: false,
        },
        commit: CommitId::random(),
    };
    fixture.service.create_opening(opened).await.unwrap();

    let begun = fixture.service.rotate_project_key(&fixture.actor).await.unwrap();
    assert_eq!((begun.version, begun.ended), (2, None));
    let again = fixture.service.rotate_project_key(&fixture.actor).await.unwrap();
    assert_eq!(again.version, 2, "one that is under way goes on");
    // A crash in the middle, and a gateway that still wraps with the old key.
    fixture.restart().await;
    fixture.service.advance_rotations().await.unwrap();
    let late = fixture.service.put_object(put(&fixture, bucket, b"late", &old)).await;
    if let Ok(written) = &late {
        let (_, wrapped) = wrap_of(&fixture, bucket, b"late", VersionSelector::Id(written.version)).await;
        assert_eq!(wrapped_data_key_version(&wrapped), Ok(2));
    } else {
        assert_eq!(late.unwrap_err(), MetadataError::KeyUnavailable, "the old key had gone already");
    }
    finish(&fixture).await;

    let keys = fixture.service.project_keys(fixture.actor.project).await.unwrap();
    assert_eq!(keys.versions.iter().map(|key| key.version).collect::<Vec<_>>(), [2]);
    let rotation = keys.rotation.unwrap();
    assert!(rotation.ended.is_some() && !rotation.kept && rotation.moved > 0);
    assert_eq!(versions_in_rows(&fixture), [2]);
    let asked = ListOpenings { project: fixture.actor.project, with_ended: true };
    let openings = fixture.service.list_openings(asked).await.unwrap();
    assert_eq!(openings.iter().map(|opening| opening.asked.purpose.as_str()).collect::<Vec<_>>(), ["a purpose"]);
    // Contents and names are what they were; every wrap opens under the new key.
    let new = newest(&fixture);
    let versions = fixture.versions(bucket).await;
    for entry in versions.iter().filter(|entry| !entry.is_delete_marker) {
        let selector = VersionSelector::Id(entry.id);
        let (blob, wrapped) = wrap_of(&fixture, bucket, entry.key.as_bytes(), selector).await;
        new.unwrap_data_key(fixture.actor.project, blob, &wrapped, None).unwrap();
        if blob == first.0 {
            assert_ne!(wrapped, first.1);
        }
    }
    fixture.service.undelete(&fixture.actor, trashed).await.unwrap();
    let (blob, wrapped) = wrap_of(&fixture, bucket, b"b", VersionSelector::Current).await;
    new.unwrap_data_key(fixture.actor.project, blob, &wrapped, None).unwrap();
    assert_eq!(
        fixture.service.get_bucket(GetBucket { namespace: fixture.namespace, name: "b".to_owned() }).await.unwrap().id,
        bucket
    );
    // And again.
    fixture.service.rotate_project_key(&fixture.actor).await.unwrap();
    finish(&fixture).await;
    assert_eq!(newest(&fixture).version(), 3);
}

fn operator(fixture: &Fixture) -> Person {
    Person { actor: actor(fixture.actor.project, UserId::random()), is_operator: true }
}

async fn decided(fixture: &Fixture, act: Act) -> Result<Proposal, MetadataError> {
    let request = ProposeAct {
        act,
        by: operator(fixture),
        reason: "end of the study".to_owned(),
        reference: "disposal 2036/14".to_owned(),
        commit: CommitId::random(),
    };
    let proposal = fixture.service.propose_act(request).await?;
    let answer = AnswerProposal {
        proposal: proposal.id,
        project: Some(fixture.actor.project),
        by: operator(fixture),
        approve: true,
        reason: String::new(),
        commit: CommitId::random(),
    };
    fixture.service.answer_proposal(answer).await
}

async fn carried_out(fixture: &Fixture, proposal: ProposalId) -> Proposal {
    let project = Some(fixture.actor.project);
    for _ in 0..2_000 {
        fixture.service.0.carry_out_due().await.unwrap();
        // The gateway goes on and is heard of.
        let heartbeat = Heartbeat { incarnation: fixture.incarnation, low_water: 0 };
        fixture.service.heartbeat(heartbeat).await.unwrap();
        let found = fixture.service.get_proposal(GetProposal { proposal, project }).await.unwrap();
        if found.state.is_settled() {
            return found;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the act was not carried out");
}

#[tokio::test]
async fn a_shredded_project_stays_so_when_older_metadata_comes_back() {
    let mut fixture = Fixture::with_config(config()).await;
    let bucket = fixture.bucket("b", true).await;
    let held = fixture.put_now(bucket, b"held").await;
    let hold = |is_on| UpdateVersion {
        actor: fixture.actor.clone(),
        bucket,
        key: ObjectKey::new("held").unwrap(),
        version: VersionSelector::Id(held.version),
        change: VersionChange::LegalHold(is_on),
        commit: CommitId::random(),
    };
    let act = Act::ShredProject(ShredProject { project: fixture.actor.project });
    fixture.service.update_version(hold(true)).await.unwrap();
    assert_eq!(
        decided(&fixture, act.clone()).await.unwrap_err(),
        MetadataError::Locked { reason: LockReason::LegalHold }
    );
    fixture.service.update_version(hold(false)).await.unwrap();
    let before = fixture.store.rows();

    let proposal = decided(&fixture, act).await.unwrap();
    let settled = carried_out(&fixture, proposal.id).await;
    assert!(matches!(settled.state, ProposalState::CarriedOut { .. }), "{:?}", settled.state);
    let project = fixture.actor.project;
    let line = fixture.service.shred_certificate(project, proposal.id).await.unwrap().unwrap();
    assert!(line.contains("disposal 2036/14") && line.contains("fingerprint"), "{line}");
    // Older rows, wraps and all: nobody opens them.
    for restored in [false, true] {
        if restored {
            fixture.store.go_back_to(before.clone());
            fixture.restart().await;
        }
        let get = fixture.service.get_object(fixture.get(bucket, b"held", VersionSelector::Current)).await;
        assert!(
            matches!((&get, restored), (Err(MetadataError::KeyDestroyed), _) | (Err(MetadataError::NoSuchKey), false)),
            "{get:?}"
        );
        let put = fixture.service.put_object(fixture.put(bucket, b"more")).await;
        assert!(matches!(put, Err(MetadataError::KeyDestroyed | MetadataError::InvalidBucketState)), "{put:?}");
        let lease = fixture.service.get_project_key(GetProjectKey { project, version: None }).await;
        assert_eq!(lease.unwrap_err(), MetadataError::KeyDestroyed);
        // Background work goes on, and other projects live.
        fixture.service.purge_trash().await.unwrap();
        fixture.service.sequence_ledgers().await.unwrap();
        fixture.service.ensure_principal(crate::testing::principal(&format!("other{restored}"))).await.unwrap();
    }
}

#[tokio::test]
async fn a_shredded_object_stays_so_and_its_names_are_erased() {
    let mut fixture = Fixture::with_config(config()).await;
    let bucket = fixture.bucket("b", false).await;
    let gone = fixture.put_now(bucket, b"gone").await;
    fixture.put_now(bucket, b"kept").await;
    let act = |version: VersionId| {
        let key = ObjectKey::new("gone").unwrap();
        Act::ShredObject(ShredObject { project: fixture.actor.project, bucket, key, version })
    };
    let shared = fixture.service.copy_object(fixture.copy(bucket, (b"gone", gone.version), b"copy")).await.unwrap();
    let refused = decided(&fixture, act(gone.version)).await.unwrap_err();
    assert_eq!(refused, ApprovalRefusal::Unfit.into(), "a copy shares its data");
    fixture.service.delete_object(fixture.delete(bucket, b"copy", VersionSelector::Current)).await.unwrap();
    fixture.service.0.purge_at_once(shared.version).await.unwrap();
    let before = fixture.store.rows();

    let proposal = decided(&fixture, act(gone.version)).await.unwrap();
    let settled = carried_out(&fixture, proposal.id).await;
    assert!(matches!(settled.state, ProposalState::CarriedOut { .. }), "{:?}", settled.state);
    assert_eq!(fixture.doomed_blobs().await.len(), 1, "without trash");
    let get = |fixture: &Fixture, key: &[u8]| fixture.get(bucket, key, VersionSelector::Current);
    assert_eq!(fixture.service.get_object(get(&fixture, b"gone")).await.unwrap_err(), MetadataError::NoSuchKey);
    for (key, row) in fixture.store.rows().iter().filter(|(key, _)| key[2] == Tag::Ledger as u8) {
        let record: records::LedgerRecord = records::decode("ledger", &row.value).unwrap();
        assert!(record.version != Some(gone.version) || record.sealed.is_empty(), "{key:?}");
    }
    fixture.store.go_back_to(before);
    fixture.restart().await;
    assert_eq!(fixture.service.get_object(get(&fixture, b"gone")).await.unwrap_err(), MetadataError::KeyDestroyed);
    fixture.service.get_object(get(&fixture, b"kept")).await.unwrap();
    let copy = fixture.service.copy_object(fixture.copy(bucket, (b"gone", gone.version), b"again")).await;
    assert_eq!(copy.unwrap_err(), MetadataError::KeyDestroyed);
}
