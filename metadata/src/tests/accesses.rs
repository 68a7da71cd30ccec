//! Accesses become leaves: one for a project and call, within bounds, sealed where they have names.

use crate::rows::Tag;
use crate::testing::Fixture;
use std::collections::BTreeMap;
use valv_ledger::access::{ACCESSES_PER_LEAF_MAX, COMPLETIONS_PER_LEAF_MAX};
use valv_ledger::{Access, AccessEnd, AccessName, AccessState, Client, Completion, Report, verify};
use valv_metadata_api::*;
use valv_types::{AccessKeyId, CommitId, ProjectId, RecorderId, TimestampMicros, VersionId};

fn access(project: ProjectId, number: u64, subject: &[u8]) -> ProjectAccess {
    let access = Access {
        number,
        time: TimestampMicros(7),
        action: "GetObject".to_owned(),
        user: None,
        bucket: None,
        version: subject.is_empty().then(|| VersionId::from_bytes([5; 16])),
        opening: None,
        start: 0,
        end: 10,
        bytes: 10,
        count: 1,
        status: 200,
        state: AccessState::Begun,
    };
    let requests = vec![format!("R{number}")];
    ProjectAccess { project, access, name: AccessName { client: 1, requests, subject: subject.to_vec() } }
}

fn completion(project: ProjectId, number: u64) -> ProjectCompletion {
    let completion = Completion { number, count: 1, of_bytes: 10, sent_bytes: 10, end: AccessEnd::Whole };
    ProjectCompletion { project, completion }
}

fn request(accesses: Vec<ProjectAccess>, completions: Vec<ProjectCompletion>) -> RecordAccesses {
    let client = |key: &str| Client { access_key: AccessKeyId::new(key).ok(), remote: "192.0.2.7".to_owned() };
    RecordAccesses {
        recorder: RecorderId::from_bytes([1; 16]),
        clients: vec![client("KEY-NOBODY"), client("KEY-SOMEBODY")],
        accesses,
        completions,
        commit: CommitId::random(),
    }
}

async fn exported(fixture: &Fixture) -> (Report, Vec<serde_json::Value>) {
    let mut out = Vec::new();
    fixture.service.export_ledger("project of main", &mut out).await.unwrap();
    let report = verify(&out[..], &fixture.service.signing_public_key(), &[]).unwrap();
    let lines = String::from_utf8(out).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap());
    (report, lines.filter(|line: &serde_json::Value| line["accesses"].is_object()).collect())
}

#[tokio::test]
async fn accesses_of_one_call_are_one_leaf_with_sealed_names() {
    let fixture = Fixture::new().await;
    let project = fixture.actor.project;
    let before = fixture.store.count(Tag::Ledger);
    let first = request(vec![access(project, 1, b""), access(project, 2, b"secret-prefix/")], vec![]);
    fixture.service.record_accesses(first).await.unwrap();
    fixture.service.record_accesses(request(vec![], vec![completion(project, 1)])).await.unwrap();
    assert_eq!(fixture.store.count(Tag::Ledger), before + 2);
    for (_, row) in fixture.store.rows().iter() {
        let text = String::from_utf8_lossy(&row.value).into_owned();
        assert!(!text.contains("secret-prefix") && !text.contains("KEY-SOMEBODY") && !text.contains("192.0.2.7"));
    }

    let (report, lines) = exported(&fixture).await;
    assert_eq!((report.accesses, report.without_names), (2, 0));
    let [begun, completed] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!((&begun["event"]["kind"], &begun["event"]["bytes"]), (&"accesses".into(), &20.into()));
    assert_eq!(completed["event"]["kind"], "access completions");
    assert_eq!(begun["access_names"]["clients"].as_array().unwrap().len(), 1, "only those who asked");
    assert_eq!(begun["access_names"]["clients"][0]["access_key"], "KEY-SOMEBODY");
    assert_eq!(begun["access_names"]["accesses"][1]["subject"], "secret-prefix/");
    assert_eq!(completed["accesses"]["completions"][0]["number"], 1);

    fixture.service.shred_project_keys(project).unwrap();
    let (report, lines) = exported(&fixture).await;
    assert_eq!((report.accesses, report.without_names), (2, report.events - 1), "completions have no names");
    assert!(lines.iter().all(|line| line["access_names"].is_null()));
    // Who is refused by a project whose key is gone is recorded all the same.
    fixture.service.record_accesses(request(vec![access(project, 3, b"x")], vec![])).await.unwrap();
    assert_eq!(exported(&fixture).await.0.accesses, 3);
}

#[tokio::test]
async fn projects_of_one_call_have_a_leaf_each_and_share_the_commit() {
    let fixture = Fixture::new().await;
    let other = fixture.service.ensure_principal(crate::testing::principal("other")).await.unwrap().project;
    let (before, revision) = (fixture.store.count(Tag::Ledger), latest(&fixture).await);
    let accesses = vec![access(fixture.actor.project, 1, b""), access(other, 2, b""), access(other, 3, b"")];
    let call = request(accesses, vec![completion(other, 0)]);
    fixture.service.record_accesses(call.clone()).await.unwrap();
    assert_eq!(fixture.store.count(Tag::Ledger), before + 2);
    assert_eq!(latest(&fixture).await, revision + 1);
    // Asked again after a lost answer, it has no second effect.
    fixture.service.record_accesses(call).await.unwrap();
    assert_eq!(fixture.store.count(Tag::Ledger), before + 2);
    assert_eq!(exported(&fixture).await.0.accesses, 1);
}

async fn latest(fixture: &Fixture) -> u64 {
    use crate::store::MetaStore as _;
    fixture.store.latest_revision().await.unwrap().0
}

#[tokio::test]
async fn leaves_are_bounded_and_lose_nothing() {
    let fixture = Fixture::new().await;
    let project = fixture.actor.project;
    let before = fixture.store.count(Tag::Ledger);
    // Long names, of which JSON writes each byte in six.
    let long = vec![1u8; 1_024];
    let accesses: Vec<_> =
        (0..2_048).map(|number| access(project, number, if number < 200 { &long } else { b"" })).collect();
    let completions: Vec<_> = (0..8_192).map(|number| completion(project, number)).collect();
    fixture.service.record_accesses(request(accesses, completions)).await.unwrap();
    let leaves = fixture.store.count(Tag::Ledger) - before;
    assert!(leaves >= 2_048 / ACCESSES_PER_LEAF_MAX + 2, "{leaves}");

    let (report, lines) = exported(&fixture).await;
    assert_eq!(report.accesses, 2_048);
    let mut seen: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for line in &lines {
        let (accesses, completions) = (&line["accesses"]["accesses"], &line["accesses"]["completions"]);
        assert!(accesses.as_array().unwrap().len() <= ACCESSES_PER_LEAF_MAX);
        assert!(completions.as_array().unwrap().len() <= COMPLETIONS_PER_LEAF_MAX);
        for access in accesses.as_array().unwrap() {
            seen.entry(access["number"].as_u64().unwrap()).or_default().0 += 1;
        }
        for completion in completions.as_array().unwrap() {
            seen.entry(completion["number"].as_u64().unwrap()).or_default().1 += 1;
        }
    }
    assert_eq!(seen.len(), 8_192);
    assert!(seen.iter().all(|(number, counts)| *counts == (u64::from(*number < 2_048), 1)));
}

#[tokio::test]
async fn a_call_beyond_its_bounds_or_with_a_stranger_is_malformed() {
    let fixture = Fixture::new().await;
    let project = fixture.actor.project;
    let mut stranger = access(project, 1, b"");
    stranger.name.client = 2;
    let many = (0..=ACCESSES_PER_CALL_MAX as u64).map(|number| access(project, number, b"")).collect();
    let ends = (0..=COMPLETIONS_PER_CALL_MAX as u64).map(|number| completion(project, number)).collect();
    for call in [request(vec![stranger], vec![]), request(many, vec![]), request(vec![], ends)] {
        let refused = fixture.service.record_accesses(call).await.unwrap_err();
        assert!(matches!(refused, MetadataError::Malformed { .. }), "{refused}");
    }
}
