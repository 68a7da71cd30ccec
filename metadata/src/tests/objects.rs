//! Single cases of reading and writing versions: repetition, contention, secrecy, lost answers, proofs.

use crate::rows::Tag;
use crate::testing::{Fixture, SECRET_TEXT, disks};
use crate::{MetadataConfig, MetadataService};
use std::sync::Arc;
use valv_metadata_api::*;
use valv_types::{BlobId, CommitId, Epoch, IncarnationId, VersionId};

#[tokio::test]
async fn of_many_conditional_creations_of_one_key_exactly_one_wins() {
    let fixture = Arc::new(Fixture::new().await);
    let bucket = fixture.bucket("b", false).await;
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            let mut request = fixture.put(bucket, b"k");
            request.condition.if_none_match = Some(vec!["*".to_owned()]);
            let fixture = Arc::clone(&fixture);
            tokio::spawn(async move { fixture.service.put_object(request).await })
        })
        .collect();
    let mut won = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => won += 1,
            Err(error) => {
                assert_eq!(error, MetadataError::PreconditionFailed { which: Precondition::IfNoneMatch });
            }
        }
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn many_writers_of_one_key_all_succeed_and_the_last_order_wins() {
    let fixture = Arc::new(Fixture::new().await);
    let bucket = fixture.bucket("b", false).await;
    fixture.versioning(bucket, Versioning::Enabled).await.unwrap();
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            let (fixture, request) = (Arc::clone(&fixture), fixture.put(bucket, b"k"));
            tokio::spawn(async move { fixture.service.put_object(request).await.unwrap() })
        })
        .collect();
    let mut written = Vec::new();
    for task in tasks {
        written.push(task.await.unwrap());
    }
    let newest = written.iter().max_by_key(|written| written.order).unwrap();
    let found = fixture.service.get_object(fixture.get(bucket, b"k", VersionSelector::Current)).await.unwrap();
    assert_eq!(found.version.id, newest.version);
    assert_eq!(fixture.versions(bucket).await.len(), 64);
}

#[tokio::test]
async fn puts_of_different_keys_never_conflict() {
    let fixture = Fixture::new().await;
    let bucket = fixture.bucket("b", false).await;
    let (a, b) = (fixture.put(bucket, b"a"), fixture.put(bucket, b"b"));
    let before = fixture.store.rows();
    let (a, b) = tokio::join!(fixture.service.put_object(a), fixture.service.put_object(b));
    a.unwrap();
    b.unwrap();
    // Nothing that both wrote existed before, and the bucket's row is as it was.
    let bucket_row = fixture.service.0.rows.bucket(bucket);
    assert_eq!(before.get(&bucket_row), fixture.store.rows().get(&bucket_row));
}

#[tokio::test]
async fn a_lost_answer_is_resolved_by_the_commit_id() {
    let fixture = Fixture::new().await;
    let bucket = fixture.bucket("b", false).await;
    let mut request = fixture.put(bucket, b"k");
    request.condition.if_none_match = Some(vec!["*".to_owned()]);
    fixture.store.lose_answers.store(1, std::sync::atomic::Ordering::Relaxed);
    let written = fixture.service.put_object(request.clone()).await.unwrap();
    // Repeated, it is not judged against its own effect.
    assert_eq!(fixture.service.put_object(request.clone()).await.unwrap(), written);
    // Nor once it is covered by another version: the answer still names what this commit made.
    fixture.put_now(bucket, b"k").await;
    let again = fixture.service.put_object(request).await.unwrap();
    assert_eq!(again.version, written.version);
}

#[tokio::test]
async fn a_key_and_a_version_that_are_not_there_are_told_apart() {
    let fixture = Fixture::new().await;
    let bucket = fixture.bucket("b", false).await;
    let get = |version| fixture.service.get_object(fixture.get(bucket, b"k", version));
    assert_eq!(get(VersionSelector::Current).await.unwrap_err(), MetadataError::NoSuchKey);
    assert_eq!(get(VersionSelector::Id(VersionId::random())).await.unwrap_err(), MetadataError::NoSuchVersion);
    let unknown = fixture.get(valv_types::BucketId::random(), b"k", VersionSelector::Current);
    assert_eq!(fixture.service.get_object(unknown).await.unwrap_err(), MetadataError::NoSuchBucket);
}

#[tokio::test]
async fn writes_that_nobody_vouches_for_are_refused() {
    let fixture = Fixture::new().await;
    let bucket = fixture.bucket("b", false).await;

    let mut unregistered = fixture.put(bucket, b"k");
    unregistered.proof.incarnation = IncarnationId(99);
    assert_eq!(fixture.service.put_object(unregistered).await, Err(MetadataError::Fenced));

    let mut foreign = fixture.put(bucket, b"k");
    let NewBody::Blob(blob) = &mut foreign.body else { unreachable!() };
    blob.blob = BlobId::new(IncarnationId(99), 1);
    assert!(matches!(fixture.service.put_object(foreign).await, Err(MetadataError::Malformed { .. })));

    let mut long = fixture.put(bucket, b"k");
    long.body = NewBody::Inline(fixture.blob(20_000, BlobPlace::Inline), vec![0; 20_016]);
    assert!(matches!(fixture.service.put_object(long).await, Err(MetadataError::Malformed { .. })));
    assert!(fixture.versions(bucket).await.is_empty());
}

#[tokio::test]
async fn slots_that_were_down_put_the_blob_on_the_repair_queue_in_the_same_commit() {
    let fixture = Fixture::new().await;
    let bucket = fixture.bucket("b", false).await;
    let mut request = fixture.put(bucket, b"k");
    let NewBody::Blob(blob) = request.body.clone() else { unreachable!() };
    request.proof.missing = vec![MissingSlot { blob: blob.blob, disk: disks()[0] }];
    fixture.service.put_object(request).await.unwrap();
    let mut stale = fixture.put(bucket, b"stale");
    stale.proof.epoch = Epoch(0);
    fixture.service.put_object(stale).await.unwrap();
    let waiting = fixture.service.list_repairs(Limit { limit: 10 }).await.unwrap();
    assert_eq!(waiting.len(), 2);
    assert_eq!((waiting[0].blob, waiting[0].len_bytes), (blob.blob, blob.len_bytes));

    // Queued twice it waits once; repaired it is gone; and a doomed blob leaves the queue.
    fixture.service.queue_repair(BlobIds { blobs: vec![blob.blob, blob.blob] }).await.unwrap();
    assert_eq!(fixture.service.list_repairs(Limit { limit: 10 }).await.unwrap().len(), 2);
    fixture.service.finish_repairs(BlobIds { blobs: vec![blob.blob] }).await.unwrap();
    assert_eq!(fixture.service.list_repairs(Limit { limit: 10 }).await.unwrap().len(), 1);
    fixture.service.delete_object(fixture.delete(bucket, b"stale", VersionSelector::Current)).await.unwrap();
    fixture.service.purge_trash().await.unwrap();
    assert!(fixture.service.list_repairs(Limit { limit: 10 }).await.unwrap().is_empty());
    fixture.service.queue_repair(BlobIds { blobs: vec![waiting[1].blob] }).await.unwrap();
    assert!(fixture.service.list_repairs(Limit { limit: 10 }).await.unwrap().is_empty(), "unreferenced");
}

#[tokio::test]
async fn every_change_of_a_project_leaves_one_ledger_record() {
    let fixture = Fixture::new().await;
    let mut expected = fixture.store.count(Tag::Ledger);
    let bucket = fixture.bucket("b", false).await;
    let check = |fixture: &Fixture, expected: &mut usize, what: &str| {
        *expected += 1;
        assert_eq!(fixture.store.count(Tag::Ledger), *expected, "{what}");
    };
    check(&fixture, &mut expected, "create bucket");
    let written = fixture.put_now(bucket, b"k").await;
    check(&fixture, &mut expected, "put");
    fixture.service.copy_object(fixture.copy(bucket, (b"k", written.version), b"l")).await.unwrap();
    check(&fixture, &mut expected, "copy");
    fixture.service.delete_object(fixture.delete(bucket, b"k", VersionSelector::Current)).await.unwrap();
    check(&fixture, &mut expected, "delete");
    fixture.service.purge_trash().await.unwrap();
    check(&fixture, &mut expected, "purge");
    fixture.service.delete_object(fixture.delete(bucket, b"k", VersionSelector::Current)).await.unwrap();
    assert_eq!(fixture.store.count(Tag::Ledger), expected, "a delete of nothing changes nothing");
    fixture.versioning(bucket, Versioning::Enabled).await.unwrap();
    check(&fixture, &mut expected, "versioning");
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[tokio::test]
async fn no_row_holds_names_metadata_or_secrets_in_the_clear() {
    let fixture = Fixture::with_config(MetadataConfig::default()).await;
    let mut request = CreateBucket {
        actor: fixture.actor.clone(),
        namespace: fixture.namespace,
        name: SECRET_TEXT.to_owned(),
        object_lock: false,
        documents: Vec::new(),
        commit: CommitId::random(),
    };
    request.documents.push(BucketDocument { kind: BucketDocumentKind::Policy, body: SECRET_TEXT.into() });
    let bucket = fixture.service.create_bucket(request).await.unwrap().id;
    let written = fixture.put_now(bucket, b"key").await;
    fixture.service.copy_object(fixture.copy(bucket, (b"key", written.version), b"other")).await.unwrap();
    let md5 = *b"md5-of-a-file-16";
    let upload = CreateUpload {
        actor: fixture.actor.clone(),
        bucket,
        key: ObjectKey::new("up").unwrap(),
        attributes: Attributes {
            user_metadata: vec![("n".to_owned(), SECRET_TEXT.to_owned())],
            ..Attributes::default()
        },
        lock: LockRequest::default(),
        checksum: None,
        commit: CommitId::random(),
    };
    let upload = fixture.service.create_upload(upload).await.unwrap();
    let part = PutPart {
        actor: fixture.actor.clone(),
        bucket,
        key: upload.key.clone(),
        upload: upload.id,
        number: 1,
        body: NewBody::Blob(fixture.blob(100, BlobPlace::Shards)),
        md5,
        checksums: Vec::new(),
        proof: fixture.proof(),
        commit: CommitId::random(),
    };
    fixture.service.put_part(part).await.unwrap();
    let complete = CompleteUpload {
        actor: fixture.actor.clone(),
        bucket,
        key: upload.key.clone(),
        upload: upload.id,
        parts: vec![CompletedPart { number: 1, md5 }],
        etag: format!("{}-1", hex::encode(md5)),
        checksums: Vec::new(),
        condition: WriteCondition::default(),
        commit: CommitId::random(),
    };
    fixture.service.complete_upload(complete).await.unwrap();
    fixture.service.delete_object(fixture.delete(bucket, b"key", VersionSelector::Current)).await.unwrap();

    let etag = hex::encode(md5);
    for (key, row) in fixture.store.rows().iter() {
        for secret in [SECRET_TEXT.as_bytes(), b"main display", b"project of main", &md5, etag.as_bytes()] {
            let (in_key, in_value) = (contains(key, secret), contains(&row.value, secret));
            assert!(!in_key && !in_value, "row {} holds {}", hex::encode(key), secret.escape_ascii());
        }
    }
}

#[tokio::test]
async fn a_key_of_the_longest_length_and_only_zeros_is_stored_and_listed() {
    let fixture = Fixture::new().await;
    let bucket = fixture.bucket("b", false).await;
    fixture.versioning(bucket, Versioning::Enabled).await.unwrap();
    let key = vec![0; ObjectKey::LEN_BYTES_MAX];
    fixture.put_now(bucket, &key).await;
    fixture.put_now(bucket, &key).await;
    let versions = fixture.versions(bucket).await;
    assert_eq!(versions.len(), 2);
    assert_eq!(versions[1].key.as_bytes(), key);
}

#[tokio::test]
async fn a_shredded_projects_records_are_not_returned() {
    let fixture = Fixture::new().await;
    let bucket = fixture.bucket("b", false).await;
    fixture.put_now(bucket, b"k").await;
    fixture.service.shred_project_keys(fixture.actor.project).unwrap();
    let get = fixture.service.get_object(fixture.get(bucket, b"k", VersionSelector::Current)).await;
    assert_eq!(get.unwrap_err(), MetadataError::KeyDestroyed);
    let lease = fixture.service.get_project_key(GetProjectKey { project: fixture.actor.project, version: None }).await;
    assert_eq!(lease.unwrap_err(), MetadataError::KeyDestroyed);
}

#[tokio::test]
async fn the_export_tells_nothing_of_a_customers_key_or_bytes() {
    let fixture = Fixture::new().await;
    let bucket = fixture.bucket("b", false).await;
    let checksum = Checksum {
        algorithm: ChecksumAlgorithm::Crc32,
        kind: ChecksumType::FullObject,
        value: b"\x11\x22\x33\x44".to_vec(),
    };
    // SSE-KMS, and SSE-C with salt and check value.
    let customer = [&[0x85, 2, 0xf6, 0xf6, 0x50][..], &[7; 16], &[0x58, 0x20], &[9; 32]].concat();
    for (key, encryption) in [(&b"kms"[..], vec![0x81, 1]), (b"customer", customer.clone())] {
        let mut put = fixture.put(bucket, key);
        put.attributes.checksums = vec![checksum.clone()];
        put.attributes.encryption = encryption;
        fixture.service.put_object(put).await.unwrap();
    }
    let mut out = Vec::new();
    fixture.service.export_all(&mut out).await.unwrap();
    let line = |key: &str| -> serde_json::Value {
        let lines = out.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        let mut parsed = lines.map(|line| serde_json::from_slice::<serde_json::Value>(line).unwrap());
        parsed.find(|line| line["key"]["utf8"] == key).unwrap()
    };
    assert_eq!(line("kms")["encryption_base64"], "gQE=");
    assert_eq!(line("kms")["checksums"].as_array().unwrap().len(), 1);
    assert_eq!(line("customer")["encryption_base64"], "gQI=");
    assert_eq!(line("customer")["checksums"].as_array().unwrap().len(), 0);
    let found = fixture.service.get_object(fixture.get(bucket, b"customer", VersionSelector::Current)).await.unwrap();
    assert_eq!(found.version.attributes.encryption, customer, "the record itself is whole");
}

#[tokio::test]
async fn the_export_has_what_recovery_needs_and_no_key() {
    let fixture = Fixture::new().await;
    let bucket = fixture.bucket("exported", false).await;
    fixture.put_now(bucket, "ключ".as_bytes()).await;
    let mut inline = fixture.put(bucket, b"\xff\x00raw");
    inline.body = NewBody::Inline(fixture.blob(3, BlobPlace::Inline), vec![5; 19]);
    fixture.service.put_object(inline).await.unwrap();
    let mut out = Vec::new();
    assert_eq!(fixture.service.export_all(&mut out).await.unwrap(), 2);
    let lines: Vec<serde_json::Value> = out
        .split(|b| *b == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(lines[0]["type"], "valv-metadata-export");
    assert_eq!(lines[0]["pools"][0]["groups"].as_array().unwrap().len(), 16);
    assert_eq!(lines[0]["pools"][0]["layout"]["k"], 4);
    let text = lines.iter().find(|line| line["key"]["utf8"] == "ключ").unwrap();
    assert_eq!(text["blobs"][0]["place"], "shards");
    assert_eq!(text["bucket"]["name"], "exported");
    let raw = lines.iter().find(|line| line["key"]["base64"] == "/wByYXc=").unwrap();
    assert!(raw["key"]["utf8"].is_null());
    assert_eq!(raw["blobs"][0]["inline_base64"], "BQUFBQUFBQUFBQUFBQUFBQUFBQ==");
    let key = fixture.service.keys().project_key(fixture.actor.project, None).unwrap();
    assert!(!contains(&out, hex::encode(key.expose()).as_bytes()));

    let mut one = Vec::new();
    let key = ObjectKey::new("ключ").unwrap();
    let service: &MetadataService = &fixture.service;
    service.export_object(fixture.namespace, "exported", &key, VersionSelector::Current, &mut one).await.unwrap();
    assert_eq!(one.split(|b| *b == b'\n').filter(|line| !line.is_empty()).count(), 2);
}
