//! Decisions and leases.

use super::*;
use crate::host::Query;
use crate::sigv4::{Identity, SignedBy};
use async_trait::async_trait;
use http::HeaderMap;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use valv_metadata_api::{AccessGrant, Client, MetadataError, Request, Response, Secret, Transport, Versioning};
use valv_types::{AccessKeyId, BucketId, Layout, NamespaceId, PoolId, ProjectId, UserId};

pub(super) fn grant(project: ProjectId, lease_ms: u32) -> AccessGrant {
    AccessGrant {
        secret: Secret::new(b"secret".to_vec()),
        user: UserId::from_bytes([1; 16]),
        canonical_id: "ab".repeat(32),
        display_name: "A".to_owned(),
        project,
        namespace: NamespaceId::from_bytes([2; 16]),
        lease_ms,
        user_name: "a".to_owned(),
    }
}

fn key() -> AccessKeyId {
    AccessKeyId::new("VALV0123456789ABCDEF").expect("key")
}

pub(super) fn asker(grant: Option<AccessGrant>) -> Asker {
    let identity = grant.map(|grant| Identity {
        access_key: key(),
        grant,
        signed_by: SignedBy::Header,
        signed_headers: Vec::new(),
        signed_at: TimestampMicros(0),
    });
    Asker {
        identity,
        peer: ([192, 0, 2, 1], 1234).into(),
        is_tls: false,
        headers: Arc::new(HeaderMap::new()),
        query: Arc::new(Query::default()),
        now: TimestampMicros::from_secs(1_700_000_000),
    }
}

pub(super) fn bucket(project: ProjectId) -> Bucket {
    Bucket {
        id: BucketId::random(),
        name: "b".to_owned(),
        project,
        namespace: NamespaceId::from_bytes([2; 16]),
        owner: UserId::from_bytes([1; 16]),
        created: TimestampMicros(0),
        layout: Layout::current(PoolId(1), 4, 2).expect("layout"),
        versioning: Versioning::Unversioned,
        object_lock: None,
        documents: Vec::new(),
        document_changes: 0,
    }
}

/// Answers every look-up with one grant, or with none, and counts.
#[derive(Clone)]
struct OneGrant {
    grant: Arc<Mutex<Option<AccessGrant>>>,
    asked: Arc<AtomicUsize>,
}

#[async_trait]
impl Transport for OneGrant {
    async fn call(&self, _: Request) -> Result<Response, MetadataError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.grant.lock().clone().map(Response::GetAccessKey).ok_or(MetadataError::NoSuchAccessKey)
    }
}

fn principals(lease_ms: u32) -> (OneGrant, Arc<Principals>) {
    let grant = Arc::new(Mutex::new(Some(grant(ProjectId::from_bytes([3; 16]), lease_ms))));
    let metadata = OneGrant { grant, asked: Arc::default() };
    let principals = Principals::new(Arc::new(Client(metadata.clone())));
    (metadata, Arc::new(principals))
}

#[tokio::test]
async fn members_may_and_strangers_and_the_unsigned_may_not() {
    let project = ProjectId::random();
    let bucket = bucket(project);
    let member = asker(Some(grant(project, 1)));
    let stranger = asker(Some(grant(ProjectId::random(), 1)));
    for action in [Action::GetObject, Action::PutObject, Action::ListBucket, Action::BypassGovernanceRetention] {
        assert!(judge(&member, action, &bucket, None, None, member.now).await.is_ok());
        for other in [&stranger, &asker(None)] {
            let refused = judge(other, action, &bucket, None, None, member.now).await.map_err(|error| error.code());
            assert_eq!(refused, Err(S3Code::AccessDenied));
        }
    }
}

#[tokio::test]
async fn a_grant_is_held_for_its_lease_and_no_longer() {
    let (metadata, held) = principals(3_000);
    for _ in 0..3 {
        held.grant(&key()).await.expect("grant");
    }
    assert_eq!(metadata.asked.load(Ordering::Relaxed), 1);
    let (metadata, not_held) = principals(0);
    for _ in 0..3 {
        not_held.grant(&key()).await.expect("grant");
    }
    assert_eq!(metadata.asked.load(Ordering::Relaxed), 3);
    *metadata.grant.lock() = None;
    let gone = not_held.grant(&key()).await.map_err(|error| error.code());
    assert_eq!(gone.err(), Some(S3Code::InvalidAccessKeyId));
}

#[tokio::test]
async fn a_transfer_ends_when_its_key_is_gone_or_stands_for_another_project() {
    let (metadata, principals) = principals(0);
    let asker = asker(Some(principals.grant(&key()).await.expect("grant")));
    let check = async || principals.still_granted(&asker).await.map_err(|error| error.code());
    assert_eq!(check().await, Ok(()));
    *metadata.grant.lock() = Some(grant(ProjectId::random(), 0));
    assert_eq!(check().await, Err(S3Code::AccessDenied));
    *metadata.grant.lock() = None;
    assert_eq!(check().await, Err(S3Code::AccessDenied));
}
