//! Proofs, statements and usage: they hold for every state of a ledger, and agree with its export.

use crate::ReceiptAsked;
use crate::proofs::EventAsked;
use crate::rows::Tag;
use crate::store::{Commit, MetaStore as _, Write};
use crate::testing::Fixture;
use serde_json::json;
use valv_ledger::usage::Month;
use valv_ledger::{Proof, Proven, SignedHead, StatementKind, statement};
use valv_metadata_api::*;
use valv_types::{BucketId, CommitId, ProjectId, TimestampMicros};

fn project(fixture: &Fixture) -> ProjectId {
    fixture.actor.project
}

async fn proven(fixture: &Fixture, event: EventAsked, size: Option<u64>) -> Result<Proven, String> {
    let found = fixture.service.prove_inclusion(project(fixture), event, size).await.map_err(|e| e.to_string())?;
    let proof = Proof::inclusion(found.index, &found.leaf, found.names.as_deref(), &found.path, found.head);
    proof.verify(&fixture.service.signing_public_key()).map_err(|error| error.to_string())
}

async fn put_body(fixture: &Fixture, bucket: BucketId, key: &[u8], blob: BlobRecord) {
    let mut put = fixture.put(bucket, key);
    put.body = NewBody::Blob(blob);
    fixture.service.put_object(put).await.unwrap();
}

async fn remove_rows(fixture: &Fixture, tag: Tag) {
    let rows = fixture.store.rows();
    let keys = rows.keys().filter(|key| key[2] == tag as u8);
    let writes = keys.map(|key| Write { key: key.clone(), value: None }).collect();
    fixture.store.commit(Commit { id: CommitId::random(), expected: Vec::new(), writes }).await.unwrap();
}

async fn goes_on(fixture: &Fixture, old: &SignedHead) -> Result<Proven, String> {
    let found = fixture.service.prove_consistency(project(fixture), old.size).await.map_err(|e| e.to_string())?;
    let proof = Proof::consistency(&found.path, old.clone(), found.head);
    proof.verify(&fixture.service.signing_public_key()).map_err(|error| error.to_string())
}

#[tokio::test]
async fn events_and_beginnings_are_proved_across_pages_with_and_without_node_rows() {
    let fixture = Fixture::new().await;
    let bucket = fixture.bucket("b", false).await;
    let mut heads = vec![fixture.service.ledger_head(project(&fixture)).await.unwrap()];
    for (pass, count) in [3, 250, 1, 1, 2, 300, 260].into_iter().enumerate() {
        for number in 0..count {
            fixture.put_now(bucket, format!("{pass}/{number}").as_bytes()).await;
        }
        heads.push(fixture.service.ledger_head(project(&fixture)).await.unwrap());
    }
    assert_eq!(fixture.store.count(Tag::LedgerNode), 4, "three pages, and the first two together");
    for has_nodes in [true, false, true] {
        if !has_nodes {
            // As an older Valv left them.
            remove_rows(&fixture, Tag::LedgerNode).await;
        }
        let size = heads.last().unwrap().size;
        for index in [0, 1, 254, 255, 256, 257, 511, 512, 600, size - 1] {
            let Proven::Inclusion { index: found, .. } =
                proven(&fixture, EventAsked::Index(index), None).await.unwrap()
            else {
                panic!("another proof")
            };
            assert_eq!(found, index);
        }
        for head in &heads {
            goes_on(&fixture, head).await.unwrap();
        }
    }
    assert_eq!(fixture.store.count(Tag::LedgerNode), 4, "the rows are made anew");
    let size = heads.last().unwrap().size;
    proven(&fixture, EventAsked::Index(size), None).await.unwrap_err();
    proven(&fixture, EventAsked::Id(CommitId::random()), None).await.unwrap_err();
    let longer = SignedHead { size: size + 1, ..heads[0].clone() };
    goes_on(&fixture, &longer).await.unwrap_err();
}

#[tokio::test]
async fn an_event_is_found_by_its_id_with_its_names_and_in_older_states() {
    let fixture = Fixture::new().await;
    let bucket = fixture.bucket("b", false).await;
    let written = fixture.put_now(bucket, b"scan/1").await;
    let id = CommitId::from_bytes(*written.version.as_bytes());
    let size = fixture.service.ledger_head(project(&fixture)).await.unwrap().size;
    for number in 0..9u8 {
        fixture.put_now(bucket, &[number]).await;
    }
    let Proven::Inclusion { leaf, names, .. } = proven(&fixture, EventAsked::Id(id), None).await.unwrap() else {
        panic!("another proof")
    };
    assert_eq!((leaf.event, leaf.version), (id, Some(written.version)));
    assert_eq!(names.unwrap().subject, b"scan/1");
    let older = fixture.service.prove_inclusion(project(&fixture), EventAsked::Id(id), Some(size)).await.unwrap();
    assert_eq!(older.size, size);
    assert!(older.head.size > size);
    fixture.service.shred_project_keys(project(&fixture)).unwrap();
    let Proven::Inclusion { names, .. } = proven(&fixture, EventAsked::Id(id), None).await.unwrap() else {
        panic!("another proof")
    };
    assert_eq!(names, None, "erased, and the event is proved all the same");
}

#[tokio::test]
async fn a_record_that_was_edited_in_the_store_is_not_proved() {
    let fixture = Fixture::new().await;
    let bucket = fixture.bucket("b", false).await;
    let written = fixture.put_now(bucket, b"k").await;
    let id = CommitId::from_bytes(*written.version.as_bytes());
    fixture.service.ledger_head(project(&fixture)).await.unwrap();
    let rows = fixture.store.rows();
    let (key, row) = rows.iter().find(|(key, _)| key[2] == Tag::Ledger as u8 && key.ends_with(id.as_bytes())).unwrap();
    let mut value = row.value.to_vec();
    let place = value.len() / 4;
    value[place] ^= 1;
    let writes = vec![Write { key: key.clone(), value: Some(value.into()) }];
    fixture.store.commit(Commit { id: CommitId::random(), expected: Vec::new(), writes }).await.unwrap();
    proven(&fixture, EventAsked::Id(id), None).await.unwrap_err();
}

#[tokio::test]
async fn a_statement_names_its_project_and_a_ledger_that_has_everything_before_it() {
    let fixture = Fixture::new().await;
    let bucket = fixture.bucket("b", false).await;
    fixture.put_now(bucket, b"k").await;
    let facts = json!({"objects": 1, "text": "\u{e5}\n"});
    let signed =
        fixture.service.statement(StatementKind::IngestReceipt, project(&fixture), facts.clone()).await.unwrap();
    let public = fixture.service.signing_public_key();
    let verified = statement::verify(signed.to_line().as_bytes(), &public).unwrap().statement;
    assert_eq!(verified["facts"], facts);
    assert_eq!(verified["project_name"], "project of main");
    let head = fixture.service.ledger_head(project(&fixture)).await.unwrap();
    assert_eq!(verified["ledger"], json!({"size": head.size, "root": head.root}));
    let refused =
        fixture.service.statement(StatementKind::IngestReceipt, project(&fixture), json!({"share": 0.5})).await;
    assert!(matches!(refused, Err(MetadataError::Malformed { .. })));
}

#[tokio::test]
async fn usage_follows_from_every_leaf_once_however_often_it_is_counted() {
    let fixture = Fixture::new().await;
    let bucket = fixture.bucket("b", false).await;
    let month = Month::of(valv_types::TimestampMicros::now());
    for number in 0..20u8 {
        fixture.put_now(bucket, &[number % 7]).await;
        if number.is_multiple_of(5) {
            fixture.service.usage(Some("project of main"), month).await.unwrap();
        }
    }
    let [counted] = fixture.service.usage(Some("project of main"), month).await.unwrap().try_into().unwrap();
    assert_eq!(counted.ledger_size as usize, fixture.store.count(Tag::Ledger));
    assert_eq!(counted.usage.sums.made_objects, 20);
    // Counted anew from the first leaf, as the ledger of an older Valv is.
    remove_rows(&fixture, Tag::Usage).await;
    remove_rows(&fixture, Tag::UsageCounted).await;
    let again = fixture.service.usage(None, month).await.unwrap();
    let again = again.into_iter().find(|usage| usage.project == project(&fixture)).unwrap();
    assert_eq!(again.usage.sums, counted.usage.sums);
}

#[tokio::test]
async fn repairs_are_in_the_ledgers_of_those_whose_blobs_they_mend() {
    let fixture = Fixture::new().await;
    let bucket = fixture.bucket("b", false).await;
    let mut repaired = Vec::new();
    for number in 0..3u8 {
        let blob = fixture.blob(100_000, BlobPlace::Shards);
        repaired.push(RepairedBlob { blob: blob.blob, shards: 2 });
        put_body(&fixture, bucket, &[number], blob).await;
    }
    // Deleted meanwhile, or never there: nobody's.
    repaired.push(RepairedBlob { blob: fixture.blob(7, BlobPlace::Shards).blob, shards: 1 });
    let before = fixture.store.count(Tag::Ledger);
    let note = NoteRepairs { commit: CommitId::random(), repaired };
    fixture.service.note_repairs(note.clone()).await.unwrap();
    fixture.service.note_repairs(note).await.unwrap();
    assert_eq!(fixture.store.count(Tag::Ledger), before + 1, "one record, however often it is told");
    assert_eq!(fixture.service.repairs_of(project(&fixture)).await.unwrap(), (1, 300_000));
    let asked = ReceiptAsked {
        kind: StatementKind::RepairReceipt,
        project: project(&fixture),
        bucket: None,
        prefix: Vec::new(),
        since: TimestampMicros(0),
        until: TimestampMicros(u64::MAX),
    };
    let mut receipt = Vec::new();
    assert_eq!(fixture.service.write_receipt(&asked, &mut receipt).await.unwrap(), 1);
    let verified = statement::verify(&receipt[..], &fixture.service.signing_public_key()).unwrap();
    assert_eq!(verified.lines, 1);
    let line: serde_json::Value = serde_json::from_slice(receipt.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
    assert_eq!((&line["detail"]["blobs"], &line["detail"]["shards"]), (&json!(3), &json!(6)));
}

#[tokio::test]
async fn every_version_that_is_held_is_gone_through_once() {
    let fixture = Fixture::new().await;
    let bucket = fixture.bucket("b", true).await;
    let mut blobs = std::collections::BTreeSet::new();
    for number in 0..1_050u32 {
        // Three versions of each of a third of the keys, so that both kinds of rows fill pages.
        let key = (number % 350).to_be_bytes();
        let blob = fixture.blob(100_000, BlobPlace::Shards);
        blobs.insert(blob.blob);
        put_body(&fixture, bucket, &key, blob).await;
    }
    fixture.put_now(bucket, b"empty").await;
    let (mut found, mut versions, mut after) = (std::collections::BTreeSet::new(), 0, None);
    loop {
        let page = fixture.service.held_versions(project(&fixture), after).await.unwrap();
        assert!(page.versions.len() <= 1_000);
        versions += page.versions.len();
        found.extend(page.versions.iter().flat_map(|version| version.blobs.iter().map(|blob| blob.blob)));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(versions, 1_051);
    assert!(found.is_superset(&blobs));
    assert_eq!(found.len(), blobs.len() + 1, "and the small body in metadata");
}
