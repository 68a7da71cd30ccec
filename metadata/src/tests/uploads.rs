//! Multipart uploads.

use crate::rows::Tag;
use crate::testing::Fixture;
use valv_metadata_api::*;
use valv_types::{BucketId, CommitId, UploadId, VersionId};

const MIB: u64 = 1 << 20;

pub(super) async fn open(fixture: &Fixture, bucket: BucketId, key: &[u8]) -> Upload {
    let request = CreateUpload {
        actor: fixture.actor.clone(),
        bucket,
        key: ObjectKey::new(key).unwrap(),
        attributes: Attributes { headers: vec![("content-type".into(), "x/y".into())], ..Attributes::default() },
        lock: LockRequest::default(),
        checksum: None,
        commit: CommitId::random(),
    };
    let upload = fixture.service.create_upload(request.clone()).await.unwrap();
    assert_eq!(fixture.service.create_upload(request).await.unwrap(), upload, "repeated");
    upload
}

fn md5_of(number: u16) -> [u8; 16] {
    let mut md5 = [0; 16];
    md5[..2].copy_from_slice(&number.to_be_bytes());
    md5
}

fn part(fixture: &Fixture, upload: &Upload, number: u16, len_bytes: u64) -> PutPart {
    PutPart {
        actor: fixture.actor.clone(),
        bucket: upload.bucket,
        key: upload.key.clone(),
        upload: upload.id,
        number,
        body: NewBody::Blob(fixture.blob(len_bytes, BlobPlace::Shards)),
        md5: md5_of(number),
        checksums: Vec::new(),
        proof: fixture.proof(),
        commit: CommitId::random(),
    }
}

fn complete(fixture: &Fixture, upload: &Upload, numbers: &[u16]) -> CompleteUpload {
    CompleteUpload {
        actor: fixture.actor.clone(),
        bucket: upload.bucket,
        key: upload.key.clone(),
        upload: upload.id,
        parts: numbers.iter().map(|&number| CompletedPart { number, md5: md5_of(number) }).collect(),
        etag: format!("etag-{}", numbers.len()),
        checksums: Vec::new(),
        condition: WriteCondition::default(),
        commit: CommitId::random(),
    }
}

fn abort(fixture: &Fixture, upload: &Upload) -> AbortUpload {
    AbortUpload {
        actor: fixture.actor.clone(),
        bucket: upload.bucket,
        key: upload.key.clone(),
        upload: upload.id,
        commit: CommitId::random(),
    }
}

#[tokio::test]
async fn a_completed_upload_is_one_version_with_its_parts_in_pages() {
    let fixture = Fixture::new().await;
    let bucket = fixture.bucket("b", false).await;
    let upload = open(&fixture, bucket, b"k").await;
    let numbers: Vec<u16> = (1..=600).collect();
    for &number in &numbers {
        fixture.service.put_part(part(&fixture, &upload, number, 5 * MIB)).await.unwrap();
    }
    // An unnamed part, and one that is replaced: neither stays.
    fixture.service.put_part(part(&fixture, &upload, 700, MIB)).await.unwrap();
    fixture.service.put_part(part(&fixture, &upload, 600, 3)).await.unwrap();
    let request = complete(&fixture, &upload, &numbers);
    let written = fixture.service.complete_upload(request.clone()).await.unwrap();
    assert_eq!(written.version, VersionId::from(upload.id));
    assert_eq!(written.etag, "etag-600");

    let found = fixture.service.get_object(fixture.get(bucket, b"k", VersionSelector::Current)).await.unwrap();
    assert_eq!(found.version.len_bytes, 599 * 5 * MIB + 3);
    assert_eq!(found.version.attributes.headers, [("content-type".to_owned(), "x/y".to_owned())]);
    let Body::Parts(index) = found.version.body else { panic!("not multipart") };
    assert_eq!((index.count, index.page_offsets.len()), (600, 3));
    let (mut offset, mut seen) = (0, 0);
    for page in 0..3 {
        let request = GetPartPage { version: index.pages_of, bucket, page };
        let parts = fixture.service.get_part_page(request).await.unwrap().parts;
        assert_eq!(parts[0].offset, index.page_offsets[page as usize]);
        for part in parts {
            seen += 1;
            assert_eq!((part.number, part.offset, part.md5), (seen, offset, md5_of(seen)));
            offset += part.blob.len_bytes;
        }
    }
    assert_eq!(seen, 600);

    // Repeated it gives the same version, be it with another commit id and be the version covered.
    assert_eq!(fixture.service.complete_upload(request.clone()).await.unwrap(), written);
    let other = CompleteUpload { commit: CommitId::random(), ..request.clone() };
    assert_eq!(fixture.service.complete_upload(other.clone()).await.unwrap(), written);
    fixture.versioning(bucket, Versioning::Enabled).await.unwrap();
    fixture.put_now(bucket, b"k").await;
    assert_eq!(fixture.service.complete_upload(other).await.unwrap().version, written.version);

    fixture.service.purge_trash().await.unwrap();
    assert_eq!(fixture.live_blobs().await.len(), 601, "600 parts and the object over them");
    assert_eq!(fixture.doomed_blobs().await.len(), 2, "the unnamed and the replaced part");
    assert_eq!((fixture.store.count(Tag::Part), fixture.store.count(Tag::Trash)), (0, 0));
}

#[tokio::test]
async fn a_last_part_without_bytes_is_a_part_and_no_blob() {
    let fixture = Fixture::new().await;
    let bucket = fixture.bucket("b", false).await;
    let upload = open(&fixture, bucket, b"k").await;
    fixture.service.put_part(part(&fixture, &upload, 1, 5 * MIB)).await.unwrap();
    let empty = PutPart { body: NewBody::Empty, ..part(&fixture, &upload, 2, 1) };
    assert_eq!(fixture.service.put_part(empty.clone()).await.unwrap().blob.len_bytes, 0);
    fixture.service.put_part(PutPart { commit: CommitId::random(), ..empty }).await.unwrap();
    let written = fixture.service.complete_upload(complete(&fixture, &upload, &[1, 2])).await.unwrap();
    fixture.service.copy_object(fixture.copy(bucket, (b"k", written.version), b"copy")).await.unwrap();
    let page = GetPartPage { version: written.version, bucket, page: 0 };
    let page = fixture.service.get_part_page(page).await.unwrap();
    assert_eq!((page.parts.len(), page.parts[1].offset, page.inline.len()), (2, 5 * MIB, 0));
    let mut out = Vec::new();
    assert_eq!(fixture.service.export_all(&mut out).await.unwrap(), 2);
    for key in [b"k".as_slice(), b"copy"] {
        fixture.service.delete_object(fixture.delete(bucket, key, VersionSelector::Current)).await.unwrap();
    }
    fixture.service.purge_trash().await.unwrap();
    assert_eq!((fixture.live_blobs().await.len(), fixture.doomed_blobs().await.len()), (0, 1));
}

#[tokio::test]
async fn completions_that_do_not_fit_say_what_is_wrong_and_change_nothing() {
    let fixture = Fixture::new().await;
    let bucket = fixture.bucket("b", false).await;
    let upload = open(&fixture, bucket, b"k").await;
    fixture.service.put_part(part(&fixture, &upload, 1, 5 * MIB - 1)).await.unwrap();
    fixture.service.put_part(part(&fixture, &upload, 2, 5)).await.unwrap();
    let mut wrong_md5 = complete(&fixture, &upload, &[2]);
    wrong_md5.parts[0].md5 = [9; 16];
    let mut unmet = complete(&fixture, &upload, &[2]);
    unmet.condition.if_match = Some(vec!["*".to_owned()]);
    let small = MetadataError::PartTooSmall { number: 1, len_bytes: 5 * MIB - 1 };
    let missing = MetadataError::PreconditionFailed { which: Precondition::IfMatchMissing };
    let cases = [
        (complete(&fixture, &upload, &[2, 1]), MetadataError::InvalidPartOrder),
        (complete(&fixture, &upload, &[1, 1]), MetadataError::InvalidPartOrder),
        (complete(&fixture, &upload, &[1, 2]), small),
        (complete(&fixture, &upload, &[3]), MetadataError::InvalidPart { number: 3 }),
        (wrong_md5, MetadataError::InvalidPart { number: 2 }),
        (unmet, missing),
    ];
    for (request, expected) in cases {
        assert_eq!(fixture.service.complete_upload(request).await, Err(expected));
    }
    let mut unknown = complete(&fixture, &upload, &[2]);
    unknown.upload = UploadId::random();
    assert_eq!(fixture.service.complete_upload(unknown).await, Err(MetadataError::NoSuchUpload));
    let mut elsewhere = complete(&fixture, &upload, &[2]);
    elsewhere.key = ObjectKey::new("other").unwrap();
    assert_eq!(fixture.service.complete_upload(elsewhere).await, Err(MetadataError::NoSuchUpload));
    fixture.service.complete_upload(complete(&fixture, &upload, &[2])).await.unwrap();
}

#[tokio::test]
async fn ten_thousand_parts_complete_are_copied_and_are_purged_within_the_stores_limits() {
    let fixture = Fixture::new().await;
    let bucket = fixture.bucket("b", false).await;
    let upload = open(&fixture, bucket, b"k").await;
    let numbers: Vec<u16> = (1..=10_000).collect();
    for &number in &numbers {
        fixture.service.put_part(part(&fixture, &upload, number, 5 * MIB)).await.unwrap();
    }
    let written = fixture.service.complete_upload(complete(&fixture, &upload, &numbers)).await.unwrap();
    let copy = fixture.copy(bucket, (b"k", written.version), b"copy");
    fixture.service.copy_object(copy).await.unwrap();
    fixture.service.delete_object(fixture.delete(bucket, b"k", VersionSelector::Current)).await.unwrap();
    fixture.service.purge_trash().await.unwrap();
    assert_eq!(fixture.live_blobs().await.len(), 10_000, "the copy holds them");
    let found = fixture.service.get_object(fixture.get(bucket, b"copy", VersionSelector::Current)).await.unwrap();
    let Body::Parts(index) = found.version.body else { panic!("not multipart") };
    let page = GetPartPage { version: index.pages_of, bucket, page: 39 };
    assert_eq!(fixture.service.get_part_page(page).await.unwrap().parts.len(), 10_000 - 39 * PARTS_PER_PAGE);

    fixture.service.delete_object(fixture.delete(bucket, b"copy", VersionSelector::Current)).await.unwrap();
    fixture.service.purge_trash().await.unwrap();
    assert!(fixture.live_blobs().await.is_empty());
    assert_eq!(fixture.doomed_blobs().await.len(), 10_000);
    let left = [Tag::PartPage, Tag::Trash, Tag::Part, Tag::Upload, Tag::UploadIndex, Tag::BlobRef];
    assert_eq!(left.map(|tag| fixture.store.count(tag)), [0; 6]);
}

#[tokio::test]
async fn an_aborted_upload_releases_its_parts_and_takes_no_more() {
    let fixture = Fixture::new().await;
    let bucket = fixture.bucket("b", false).await;
    let upload = open(&fixture, bucket, b"k").await;
    for number in 1..=5 {
        fixture.service.put_part(part(&fixture, &upload, number, MIB)).await.unwrap();
    }
    let list = ListParts { bucket, key: upload.key.clone(), upload: upload.id, after: 2, limit: 2 };
    let page = fixture.service.list_parts(list.clone()).await.unwrap();
    assert_eq!(page.parts.iter().map(|part| part.number).collect::<Vec<_>>(), [3, 4]);
    assert!(page.truncated);
    let request = abort(&fixture, &upload);
    fixture.service.abort_upload(request.clone()).await.unwrap();
    fixture.service.abort_upload(request).await.unwrap();
    let gone = MetadataError::NoSuchUpload;
    assert_eq!(fixture.service.abort_upload(abort(&fixture, &upload)).await, Err(gone.clone()));
    assert_eq!(fixture.service.put_part(part(&fixture, &upload, 6, MIB)).await, Err(gone.clone()));
    assert_eq!(fixture.service.list_parts(list).await.unwrap_err(), gone);
    fixture.service.purge_trash().await.unwrap();
    assert_eq!(fixture.doomed_blobs().await.len(), 5);
    assert_eq!((fixture.store.count(Tag::Part), fixture.store.count(Tag::BlobRef)), (0, 0));
}

#[tokio::test]
async fn a_part_beside_a_completion_is_either_in_the_upload_or_refused_and_never_leaks() {
    for _ in 0..20 {
        let fixture = Fixture::new().await;
        let bucket = fixture.bucket("b", false).await;
        let upload = open(&fixture, bucket, b"k").await;
        fixture.service.put_part(part(&fixture, &upload, 1, MIB)).await.unwrap();
        let late = part(&fixture, &upload, 2, MIB);
        let (done, late) = tokio::join!(
            fixture.service.complete_upload(complete(&fixture, &upload, &[1])),
            fixture.service.put_part(late)
        );
        done.unwrap();
        fixture.service.purge_trash().await.unwrap();
        assert_eq!(fixture.live_blobs().await.len(), 1);
        assert_eq!(fixture.doomed_blobs().await.len(), usize::from(late.is_ok()));
    }
}

#[tokio::test]
async fn uploads_are_listed_by_key_then_initiation_and_folded() {
    let fixture = Fixture::new().await;
    let bucket = fixture.bucket("b", false).await;
    let mut opened = Vec::new();
    for key in [b"a".as_slice(), b"a", b"d/1", b"d/2", b"e", b"a"] {
        opened.push(open(&fixture, bucket, key).await);
    }
    let mut request = ListUploads {
        bucket,
        prefix: Vec::new(),
        delimiter: b"/".to_vec(),
        after: Vec::new(),
        after_upload: None,
        limit: 1,
    };
    let (mut uploads, mut prefixes) = (Vec::new(), Vec::new());
    loop {
        let page = fixture.service.list_uploads(request.clone()).await.unwrap();
        assert_eq!(page.uploads.len() + page.common_prefixes.len(), 1);
        uploads.extend(page.uploads.into_iter().map(|upload| upload.id));
        prefixes.extend(page.common_prefixes);
        let Some(next) = page.next_after else { break };
        (request.after, request.after_upload) = (next, page.next_after_upload);
    }
    assert_eq!(uploads, [0, 1, 5, 4].map(|at: usize| opened[at].id));
    assert_eq!(prefixes, [CommonPrefix(b"d/".to_vec())]);
    // Without an upload to go on from, the whole key is skipped; with one that is gone, its others come again.
    request = ListUploads { after: b"a".to_vec(), after_upload: None, limit: 10, ..request };
    assert_eq!(fixture.service.list_uploads(request.clone()).await.unwrap().uploads.len(), 1);
    request.after_upload = Some(UploadId::random());
    assert_eq!(fixture.service.list_uploads(request).await.unwrap().uploads.len(), 4);
}
