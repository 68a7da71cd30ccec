//! Buckets: names, emptiness, settings and documents.

use crate::testing::{Fixture, actor, principal};
use std::sync::Arc;
use valv_metadata_api::*;
use valv_types::{BucketId, CommitId};

fn delete(fixture: &Fixture, bucket: BucketId) -> DeleteBucket {
    DeleteBucket { actor: fixture.actor.clone(), bucket, commit: CommitId::random() }
}

fn create(actor: &Actor, fixture: &Fixture, name: &str) -> CreateBucket {
    CreateBucket {
        actor: actor.clone(),
        namespace: fixture.namespace,
        name: name.to_owned(),
        object_lock: false,
        documents: Vec::new(),
        commit: CommitId::random(),
    }
}

#[tokio::test]
async fn a_taken_name_says_whose_it_is_and_a_repeated_creation_returns_the_bucket() {
    let fixture = Fixture::new().await;
    let request = create(&fixture.actor, &fixture, "taken");
    let made = fixture.service.create_bucket(request.clone()).await.unwrap();
    assert_eq!(fixture.service.create_bucket(request).await.unwrap(), made);
    let again = create(&fixture.actor, &fixture, "taken");
    assert_eq!(fixture.service.create_bucket(again).await, Err(MetadataError::BucketAlreadyOwnedByYou));
    let other = fixture.service.ensure_principal(principal("other")).await.unwrap();
    let other = actor(other.project, other.user);
    let theirs = create(&other, &fixture, "taken");
    assert_eq!(fixture.service.create_bucket(theirs).await, Err(MetadataError::BucketAlreadyExists));
    let get = GetBucket { namespace: fixture.namespace, name: "taken".to_owned() };
    assert_eq!(fixture.service.get_bucket(get).await.unwrap(), made);
}

#[tokio::test]
async fn buckets_are_listed_in_name_order_after_and_with_a_prefix() {
    let fixture = Fixture::new().await;
    for name in ["cc", "aa", "bb", "ab"] {
        fixture.bucket(name, false).await;
    }
    let list = |prefix: &str, after: Option<&str>, limit| {
        let request = ListBuckets {
            project: fixture.actor.project,
            prefix: prefix.to_owned(),
            after: after.map(str::to_owned),
            limit,
            opened_to: None,
        };
        let service = Arc::clone(&fixture.service);
        async move { service.list_buckets(request).await.unwrap().into_iter().map(|b| b.name).collect::<Vec<_>>() }
    };
    assert_eq!(list("", None, 10).await, ["aa", "ab", "bb", "cc"]);
    assert_eq!(list("", Some("ab"), 1).await, ["bb"]);
    assert_eq!(list("a", Some("aa"), 10).await, ["ab"]);
}

#[tokio::test]
async fn only_an_empty_bucket_goes_and_its_name_is_free_again() {
    let fixture = Fixture::new().await;
    let bucket = fixture.bucket("b", false).await;
    fixture.versioning(bucket, Versioning::Enabled).await.unwrap();
    let written = fixture.put_now(bucket, b"k").await;
    let refused = Err(MetadataError::BucketNotEmpty);
    assert_eq!(fixture.service.delete_bucket(delete(&fixture, bucket)).await, refused);
    let marker = fixture.delete(bucket, b"k", VersionSelector::Current);
    let marker_id = valv_types::VersionId::from_bytes(*marker.commit.as_bytes());
    fixture.service.delete_object(marker).await.unwrap();
    for id in [written.version, marker_id] {
        assert_eq!(fixture.service.delete_bucket(delete(&fixture, bucket)).await, refused);
        fixture.service.delete_object(fixture.delete(bucket, b"k", VersionSelector::Id(id))).await.unwrap();
    }
    let request = delete(&fixture, bucket);
    fixture.service.delete_bucket(request.clone()).await.unwrap();
    fixture.service.delete_bucket(request).await.unwrap();
    let gone = fixture.service.delete_bucket(delete(&fixture, bucket)).await;
    assert_eq!(gone, Err(MetadataError::NoSuchBucket));
    let put = fixture.service.put_object(fixture.put(bucket, b"k")).await;
    assert_eq!(put, Err(MetadataError::NoSuchBucket));
    assert_ne!(fixture.bucket("b", false).await, bucket, "another bucket under the old name");
}

#[tokio::test]
async fn a_write_and_a_deletion_of_the_bucket_never_both_succeed() {
    for _ in 0..50 {
        let fixture = Fixture::new().await;
        let bucket = fixture.bucket("b", false).await;
        let put = fixture.put(bucket, b"k");
        let (put, deleted) =
            tokio::join!(fixture.service.put_object(put), fixture.service.delete_bucket(delete(&fixture, bucket)));
        assert!(put.is_ok() != deleted.is_ok(), "put {put:?}, delete {deleted:?}");
        match put {
            Ok(_) => assert_eq!(fixture.versions(bucket).await.len(), 1),
            Err(error) => assert_eq!(error, MetadataError::NoSuchBucket),
        }
    }
}

#[tokio::test]
async fn documents_are_kept_sealed_and_the_bucket_names_which_there_are() {
    let fixture = Fixture::new().await;
    let bucket = fixture.bucket("b", false).await;
    let update = |change| UpdateBucket { actor: fixture.actor.clone(), bucket, change, commit: CommitId::random() };
    let get = GetBucketDocument { bucket, kind: BucketDocumentKind::Cors };
    assert_eq!(fixture.service.get_bucket_document(get.clone()).await, Err(MetadataError::NoSuchDocument));
    let document = BucketDocument { kind: BucketDocumentKind::Cors, body: b"<cors/>".to_vec() };
    let changed = fixture.service.update_bucket(update(BucketChange::SetDocument(document.clone()))).await.unwrap();
    assert_eq!(changed.documents, [BucketDocumentKind::Cors]);
    assert_eq!(fixture.service.get_bucket_document(get.clone()).await.unwrap(), document);
    let remove = || update(BucketChange::RemoveDocument(BucketDocumentKind::Cors));
    assert!(fixture.service.update_bucket(remove()).await.unwrap().documents.is_empty());
    assert!(fixture.service.update_bucket(remove()).await.is_ok(), "harmless if it is not there");
    assert_eq!(fixture.service.get_bucket_document(get).await, Err(MetadataError::NoSuchDocument));
}

#[tokio::test]
async fn object_lock_needs_versioning_and_then_stays() {
    let fixture = Fixture::new().await;
    let bucket = fixture.bucket("b", false).await;
    let default = DefaultRetention { mode: RetentionMode::Compliance, period: RetentionPeriod::Days(1) };
    let change = BucketChange::ObjectLock(ObjectLock { default: Some(default) });
    let lock =
        || UpdateBucket { actor: fixture.actor.clone(), bucket, change: change.clone(), commit: CommitId::random() };
    assert_eq!(fixture.service.update_bucket(lock()).await, Err(MetadataError::InvalidBucketState));
    fixture.versioning(bucket, Versioning::Enabled).await.unwrap();
    fixture.service.update_bucket(lock()).await.unwrap();
    let refused = fixture.versioning(bucket, Versioning::Suspended).await;
    assert_eq!(refused, Err(MetadataError::InvalidBucketState));
    // A version gets the default, and goes only when cluster time has reached its date.
    let written = fixture.put_now(bucket, b"k").await;
    let remove = || fixture.delete(bucket, b"k", VersionSelector::Id(written.version));
    let locked = Err(MetadataError::Locked { reason: LockReason::Compliance });
    assert_eq!(fixture.service.delete_object(remove()).await, locked);
    fixture.service.0.clock.advance_secs(24 * 3600 - 60);
    assert_eq!(fixture.service.delete_object(remove()).await, locked);
    fixture.service.0.clock.advance_secs(120);
    fixture.service.delete_object(remove()).await.unwrap();
}

#[tokio::test]
async fn open_uploads_end_with_their_bucket_and_outlive_a_refusal() {
    let fixture = Fixture::new().await;
    let bucket = fixture.bucket("b", false).await;
    fixture.put_now(bucket, b"k").await;
    let mut uploads = Vec::new();
    for key in [&b"a"[..], b"a", b"k"] {
        uploads.push(super::uploads::open(&fixture, bucket, key).await);
    }
    let get = |upload: &Upload| {
        let request = GetUpload { bucket, key: upload.key.clone(), upload: upload.id };
        let service = Arc::clone(&fixture.service);
        async move { service.get_upload(request).await }
    };
    let refused = fixture.service.delete_bucket(delete(&fixture, bucket)).await;
    assert_eq!(refused, Err(MetadataError::BucketNotEmpty));
    for upload in &uploads {
        assert_eq!(get(upload).await.as_ref(), Ok(upload));
    }
    fixture.service.delete_object(fixture.delete(bucket, b"k", VersionSelector::Current)).await.unwrap();
    fixture.service.delete_bucket(delete(&fixture, bucket)).await.unwrap();
    for upload in &uploads {
        assert!(get(upload).await.is_err());
    }
}
