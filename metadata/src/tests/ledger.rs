//! Ledgers: records become leaves, exports verify, and what was changed behind Valv's back is found.

use crate::rows::Tag;
use crate::store::{Commit, MetaStore as _, Write};
use crate::testing::Fixture;
use bytes::Bytes;
use valv_ledger::{Report, SignedHead, export, verify};
use valv_metadata_api::*;
use valv_types::CommitId;

async fn exported(fixture: &Fixture) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    match fixture.service.export_ledger("project of main", &mut out).await {
        Ok(_) => Ok(out),
        Err(error) => Err(error.to_string()),
    }
}

fn check(fixture: &Fixture, lines: &[u8], earlier: &[SignedHead]) -> Report {
    verify(lines, &fixture.service.signing_public_key(), earlier).unwrap()
}

fn head(lines: &[u8]) -> SignedHead {
    export::read_last_line(std::str::from_utf8(lines).unwrap().lines().last().unwrap()).unwrap()
}

#[tokio::test]
async fn every_record_becomes_one_leaf_and_later_exports_go_on_from_earlier_ones() {
    let fixture = Fixture::new().await;
    let bucket = fixture.bucket("b", false).await;
    for key in [&b"k"[..], b"l", b"\xff"] {
        fixture.put_now(bucket, key).await;
    }
    let first = exported(&fixture).await.unwrap();
    let report = check(&fixture, &first, &[]);
    assert_eq!(report.events as usize, fixture.store.count(Tag::Ledger));
    assert_eq!((report.project, report.without_names), (fixture.actor.project, 0));
    assert_eq!(fixture.store.count(Tag::LedgerPending), 0);
    assert_eq!(fixture.store.count(Tag::LedgerLeaf), 1, "one page");
    assert_eq!(fixture.service.sequence_ledgers().await.unwrap(), 0, "nothing is left");

    fixture.service.delete_object(fixture.delete(bucket, b"k", VersionSelector::Current)).await.unwrap();
    assert_eq!(fixture.service.sequence_ledgers().await.unwrap(), 1);
    let second = exported(&fixture).await.unwrap();
    let report = check(&fixture, &second, &[head(&first)]);
    assert_eq!(report.events, head(&first).size + 1);
    let text = String::from_utf8(second).unwrap();
    assert!(text.contains("\"kind\":\"deaccession\"") && text.contains("\"subject\":\"k\""), "{text}");
}

#[tokio::test]
async fn sequencing_is_repeated_after_lost_answers_without_a_second_leaf() {
    let fixture = Fixture::new().await;
    let bucket = fixture.bucket("b", false).await;
    fixture.put_now(bucket, b"k").await;
    fixture.store.lose_answers.store(1, std::sync::atomic::Ordering::Relaxed);
    // Whatever is told of the lost answer, the next pass leaves each record in the tree once.
    let _ = fixture.service.sequence_ledgers().await;
    fixture.service.sequence_ledgers().await.unwrap();
    let report = check(&fixture, &exported(&fixture).await.unwrap(), &[]);
    assert_eq!(report.events as usize, fixture.store.count(Tag::Ledger));
}

#[tokio::test]
async fn two_sequencers_at_once_leave_each_record_in_the_tree_once() {
    let fixture = Fixture::new().await;
    let bucket = fixture.bucket("b", false).await;
    for number in 0..20u8 {
        fixture.put_now(bucket, &[b'k', number]).await;
    }
    let (one, other) = tokio::join!(fixture.service.sequence_ledgers(), fixture.service.sequence_ledgers());
    assert_eq!(one.unwrap() + other.unwrap(), fixture.store.count(Tag::Ledger));
    check(&fixture, &exported(&fixture).await.unwrap(), &[]);
}

#[tokio::test]
async fn a_record_that_was_edited_or_removed_in_the_store_is_not_signed_over() {
    for is_removed in [false, true] {
        let fixture = Fixture::new().await;
        let bucket = fixture.bucket("b", false).await;
        fixture.put_now(bucket, b"k").await;
        exported(&fixture).await.unwrap();
        let rows = fixture.store.rows();
        let mut records = rows.iter().filter(|(key, _)| key[2] == Tag::Ledger as u8);
        let (key, row) = records.next().unwrap();
        let mut bytes = row.value.to_vec();
        // Somewhere inside the hash of the names.
        let place = bytes.len() / 4;
        bytes[place] ^= 1;
        let value = if is_removed { None } else { Some(Bytes::from(bytes)) };
        let commit =
            Commit { id: CommitId::random(), expected: Vec::new(), writes: vec![Write { key: key.clone(), value }] };
        fixture.store.commit(commit).await.unwrap();
        exported(&fixture).await.expect_err("not signed");
    }
}

#[tokio::test]
async fn erased_names_leave_the_tree_as_it_is() {
    let fixture = Fixture::new().await;
    let bucket = fixture.bucket("b", false).await;
    fixture.put_now(bucket, b"k").await;
    let before = exported(&fixture).await.unwrap();
    fixture.service.shred_project_keys(fixture.actor.project).unwrap();
    let after = exported(&fixture).await.unwrap();
    let report = check(&fixture, &after, &[head(&before)]);
    assert_eq!(report.without_names, report.events);
    assert!(!String::from_utf8(after).unwrap().contains("\"subject\""));
}

#[tokio::test]
async fn leaves_fill_page_after_page_in_passes_of_any_length() {
    let fixture = Fixture::new().await;
    let bucket = fixture.bucket("b", false).await;
    let mut heads = Vec::new();
    // Beside the events of the fixture and the bucket: to just below a page, over its end, and over two at once.
    for (pass, count) in [250, 1, 1, 1, 1, 2, 600].into_iter().enumerate() {
        for number in 0..count {
            fixture.put_now(bucket, format!("{pass}/{number}").as_bytes()).await;
        }
        let lines = exported(&fixture).await.unwrap();
        let report = check(&fixture, &lines, &heads);
        assert_eq!(report.events as usize, fixture.store.count(Tag::Ledger));
        assert_eq!(fixture.store.count(Tag::LedgerLeaf), fixture.store.count(Tag::Ledger).div_ceil(256));
        heads.push(head(&lines));
    }
}
