//! Decisions and leases.

use super::*;
use crate::host::Query;
use crate::router::Operation;
use crate::sigv4::{Identity, SignedBy};
use async_trait::async_trait;
use http::HeaderMap;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio_util::task::TaskTracker;
use valv_metadata_api::{
    AccessGrant, BucketDocument, BucketDocumentKind, BucketOpenings, Client, Metadata, MetadataError, OpeningFacts,
    OpeningRecipient, OpeningScope, Request, Response, Retention, RetentionMode, Roles, Secret, Transport, User,
    VersionSelector, Versioning,
};
use valv_policy::ConditionKeys as _;
use valv_types::{AccessKeyId, BucketId, Layout, NamespaceId, OpeningId, PoolId, ProjectId, UserId};

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
        project_name: "p".to_owned(),
        roles: Roles::NONE,
        is_governed: false,
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
        operation: Operation::GetObject,
        client: Some([192, 0, 2, 1].into()),
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
        own_name: None,
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

type Bodies = Vec<(BucketDocumentKind, Vec<u8>)>;

/// Answers with a bucket's documents, and with one user, and counts the documents read.
#[derive(Clone, Default)]
struct Documents {
    bodies: Arc<Mutex<Bodies>>,
    openings: Arc<Mutex<Vec<OpeningFacts>>>,
    read: Arc<AtomicUsize>,
}

#[async_trait]
impl Transport for Documents {
    async fn call(&self, request: Request) -> Result<Response, MetadataError> {
        match request {
            Request::GetBucketDocument(request) => {
                self.read.fetch_add(1, Ordering::Relaxed);
                let bodies = self.bodies.lock();
                let found = bodies.iter().find(|(kind, _)| *kind == request.kind);
                let (kind, body) = found.cloned().ok_or(MetadataError::NoSuchDocument)?;
                Ok(Response::GetBucketDocument(BucketDocument { kind, body }))
            }
            Request::GetBucketOpenings(_) => {
                let openings = self.openings.lock().clone();
                Ok(Response::GetBucketOpenings(BucketOpenings { openings, lease_ms: 0 }))
            }
            _ => Ok(Response::GetUser(User {
                id: UserId::from_bytes([1; 16]),
                name: "owner".to_owned(),
                canonical_id: "cd".repeat(32),
                display_name: "O".to_owned(),
                email: String::new(),
                project: ProjectId::from_bytes([3; 16]),
            })),
        }
    }
}

impl Documents {
    /// Makes an opening of the whole bucket, for good, from everywhere.
    fn open(&self, bucket: &Bucket, recipient: OpeningRecipient, scope: OpeningScope) -> OpeningId {
        let id = OpeningId::random();
        let (prefix, start, expiry, blocks) = (Vec::new(), bucket.created, None, None);
        let facts = OpeningFacts { id, recipient, prefix, scope, start, expiry, blocks, budget_left_bytes: None };
        self.openings.lock().push(facts);
        id
    }

    fn rules(&self) -> RulesCache {
        let metadata: Arc<dyn Metadata> = Arc::new(Client(self.clone()));
        let openings = Openings::new(Arc::clone(&metadata), TaskTracker::new());
        RulesCache::new(Arc::clone(&metadata), Arc::new(Principals::new(metadata)), openings)
    }

    /// What PutBucketPolicy and its like do to a bucket.
    fn set(&self, bucket: &mut Bucket, kind: BucketDocumentKind, body: &str) {
        let mut bodies = self.bodies.lock();
        bodies.retain(|(kept, _)| *kept != kind);
        bodies.push((kind, body.as_bytes().to_vec()));
        bucket.documents = bodies.iter().map(|(kind, _)| *kind).collect();
        bucket.document_changes += 1;
    }
}

async fn code(rules: &RulesCache, asker: &Asker, action: Action, bucket: &Bucket) -> Result<(), S3Code> {
    let about = About::key(ObjectKey::new("k").as_ref());
    judge(rules, asker, action, bucket, &about, asker.now).await.map(|_| ()).map_err(|error| error.code())
}

const DENIED: Result<(), S3Code> = Err(S3Code::AccessDenied);

#[tokio::test]
async fn members_may_and_strangers_and_the_unsigned_may_not() {
    let project = ProjectId::random();
    let (documents, bucket) = (Documents::default(), bucket(project));
    let rules = documents.rules();
    let member = asker(Some(grant(project, 1)));
    let stranger = asker(Some(grant(ProjectId::random(), 1)));
    for action in [Action::GetObject, Action::PutObject, Action::ListBucket, Action::BypassGovernanceRetention] {
        assert_eq!(code(&rules, &member, action, &bucket).await, Ok(()));
        for other in [&stranger, &asker(None)] {
            assert_eq!(code(&rules, other, action, &bucket).await, DENIED);
        }
    }
    assert_eq!(documents.read.load(Ordering::Relaxed), 0, "a bucket without documents costs no read");
}

#[tokio::test]
async fn a_policy_opens_and_closes_and_is_read_once_a_change() {
    let project = ProjectId::random();
    let (documents, mut bucket) = (Documents::default(), bucket(project));
    let rules = documents.rules();
    let member = asker(Some(grant(project, 1)));
    let stranger = asker(Some(grant(ProjectId::random(), 1)));
    let policy = |effect: &str, principal: &str| {
        format!(
            r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"{effect}","Principal":{principal},
            "Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*"}}]}}"#
        )
    };
    let named = format!(r#"{{"AWS":"arn:aws:iam::{}:user/a"}}"#, stranger.identity.as_ref().expect("id").grant.project);
    documents.set(&mut bucket, BucketDocumentKind::Policy, &policy("Allow", &named));
    assert_eq!(code(&rules, &stranger, Action::GetObject, &bucket).await, DENIED, "no opening leaves it to the policy");
    assert_eq!(documents.read.load(Ordering::Relaxed), 0, "to strangers without an opening no document is read");
    documents.open(&bucket, OpeningRecipient::Public(bucket.namespace), OpeningScope::WhatPoliciesSay);
    for _ in 0..3 {
        assert_eq!(code(&rules, &stranger, Action::GetObject, &bucket).await, Ok(()));
        assert_eq!(code(&rules, &stranger, Action::PutObject, &bucket).await, DENIED);
        assert_eq!(code(&rules, &asker(None), Action::GetObject, &bucket).await, DENIED);
    }
    assert_eq!(documents.read.load(Ordering::Relaxed), 1);

    // A public policy lets nobody in while public access is blocked, as it is unless somebody says otherwise.
    documents.set(&mut bucket, BucketDocumentKind::Policy, &policy("Allow", "\"*\""));
    assert_eq!(code(&rules, &asker(None), Action::GetObject, &bucket).await, DENIED);
    let open = "<PublicAccessBlockConfiguration/>";
    documents.set(&mut bucket, BucketDocumentKind::PublicAccessBlock, open);
    assert_eq!(code(&rules, &asker(None), Action::GetObject, &bucket).await, Ok(()));

    // Deny holds for members, too.
    documents.set(&mut bucket, BucketDocumentKind::Policy, &policy("Deny", "\"*\""));
    assert_eq!(code(&rules, &member, Action::GetObject, &bucket).await, DENIED);
    assert_eq!(code(&rules, &member, Action::PutObject, &bucket).await, Ok(()));
    // What can't be read opens nothing.
    documents.set(&mut bucket, BucketDocumentKind::Policy, "{");
    assert_eq!(code(&rules, &member, Action::GetObject, &bucket).await, Err(S3Code::InternalError));
    assert_eq!(code(&rules, &stranger, Action::DeleteBucketPolicy, &bucket).await, Err(S3Code::InternalError));
    assert_eq!(code(&rules, &member, Action::DeleteBucketPolicy, &bucket).await, Ok(()));
}

#[tokio::test]
async fn a_transfer_goes_on_by_the_opening_it_began_with_and_by_no_other() {
    let project = ProjectId::random();
    let (documents, bucket) = (Documents::default(), bucket(project));
    let rules = documents.rules();
    let guest = asker(Some(grant(ProjectId::random(), 1)));
    let user = OpeningRecipient::User(guest.identity.as_ref().expect("identity").grant.user);
    let read = OpeningScope::Actions(valv_policy::OpenedAction::Read as u8);
    let judged = async |only: Option<OpeningId>| {
        let about = About { only, ..About::key(ObjectKey::new("k").as_ref()) };
        let judged = judge(&rules, &guest, Action::GetObject, &bucket, &about, guest.now).await;
        judged.map_err(|error| error.code())
    };
    assert_eq!(judged(None).await, Err(S3Code::AccessDenied));
    let first = documents.open(&bucket, user, read);
    let second = documents.open(&bucket, user, read);
    assert_eq!(judged(None).await, Ok(Some(first)));
    assert_eq!(judged(Some(second)).await, Ok(Some(second)));
    documents.openings.lock().remove(0);
    assert_eq!(judged(Some(first)).await, Err(S3Code::AccessDenied));
    assert_eq!(judged(None).await, Ok(Some(second)));
    // A public opening counts in the namespace that it names.
    documents.openings.lock().clear();
    documents.open(&bucket, OpeningRecipient::Public(NamespaceId::random()), read);
    assert_eq!(judged(None).await, Err(S3Code::AccessDenied));
    let public = documents.open(&bucket, OpeningRecipient::Public(bucket.namespace), read);
    assert_eq!(judged(None).await, Ok(Some(public)));
}

#[test]
fn condition_keys_come_from_the_request() {
    let mut asker = asker(Some(grant(ProjectId::random(), 1)));
    let mut headers = HeaderMap::new();
    headers.insert("x-amz-acl", "public-read".parse().expect("value"));
    headers.insert("x-amz-tagging", "a=1&B=2".parse().expect("value"));
    headers.insert("user-agent", "curl".parse().expect("value"));
    asker.headers = Arc::new(headers);
    asker.query = Arc::new(Query::parse("prefix=x%2F&versionId=null&max-keys=7").expect("query"));
    let object = ObjectFacts { tags: vec![("Site".to_owned(), "Lund".to_owned())], ..ObjectFacts::default() };
    asker.operation = Operation::ListObjectsV2;
    let about = About { object: Some(object), version: VersionSelector::Null, ..About::default() };
    let keys = Keys { asker: &asker, about: &about, now: asker.now };
    for (key, expected) in [
        ("aws:sourceip", Some("192.0.2.1")),
        ("aws:securetransport", Some("false")),
        ("aws:currenttime", Some("2023-11-14T22:13:20.000Z")),
        ("aws:epochtime", Some("1700000000")),
        ("aws:useragent", Some("curl")),
        ("aws:referer", None),
        ("s3:prefix", Some("x/")),
        ("s3:max-keys", Some("7")),
        ("s3:delimiter", None),
        ("s3:versionid", Some("null")),
        ("s3:x-amz-acl", Some("public-read")),
        ("s3:x-amz-copy-source", None),
        ("s3:authtype", Some("REST-HEADER")),
        ("s3:signatureversion", Some("AWS4-HMAC-SHA256")),
        ("s3:existingobjecttag/Site", Some("Lund")),
        ("s3:existingobjecttag/site", None),
        ("s3:requestobjecttag/B", Some("2")),
        ("ec2:region", None),
        ("nonsense", None),
    ] {
        let found = keys.values(key).map(|values| values.join(","));
        assert_eq!(found.as_deref(), expected, "{key}");
    }
    let tags = keys.values("s3:requestobjecttagkeys").expect("tags");
    assert_eq!(tags, ["a", "B"]);
}

#[test]
fn words_that_do_nothing_satisfy_no_condition() {
    let mut asker = asker(None);
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("x-amz-tagging", "a=header"),
        ("x-amz-object-lock-mode", "GOVERNANCE"),
        ("x-amz-object-lock-retain-until-date", "2023-11-24T22:13:20Z"),
        ("x-amz-object-lock-legal-hold", "OFF"),
        ("if-match", "*"),
        ("x-amz-copy-source", "/b%2Fk%20x?versionId=null"),
    ] {
        headers.insert(name, value.parse().expect("value"));
    }
    asker.headers = Arc::new(headers);
    asker.query = Arc::new(Query::parse("prefix=open%2F&delimiter=x&max-keys=1&versionId=mine").expect("query"));
    // The start of the asker's request, and a hundred days later.
    let until = TimestampMicros::from_secs(1_700_000_000 + 100 * 24 * 60 * 60);
    let given = Given {
        tags: vec![("a".to_owned(), "body".to_owned())],
        retention: Some(Retention { mode: RetentionMode::Compliance, until }),
        legal_hold: Some(true),
        if_match: None,
    };
    let about = About { given, ..About::default() };
    let days = "s3:object-lock-remaining-retention-days";
    for (operation, key, expected) in [
        (Operation::ListObjects, "s3:prefix", Some("open/")),
        (Operation::GetObject, "s3:prefix", None),
        (Operation::HeadObject, "s3:max-keys", None),
        (Operation::GetObject, "s3:delimiter", None),
        (Operation::GetObject, "s3:versionid", None),
        (Operation::PutObject, "s3:requestobjecttag/a", Some("header")),
        (Operation::PutObjectTagging, "s3:requestobjecttag/a", Some("body")),
        (Operation::CopyObject, "s3:requestobjecttag/a", None),
        (Operation::PutObject, "s3:object-lock-mode", Some("GOVERNANCE")),
        (Operation::PutObject, days, Some("10")),
        (Operation::PutObject, "s3:object-lock-legal-hold", Some("OFF")),
        (Operation::PutObjectRetention, "s3:object-lock-mode", Some("COMPLIANCE")),
        (Operation::PutObjectRetention, days, Some("100")),
        (Operation::PutObjectRetention, "s3:object-lock-retain-until-date", Some("2024-02-22T22:13:20.000Z")),
        (Operation::PutObjectLegalHold, "s3:object-lock-legal-hold", Some("ON")),
        (Operation::CopyObject, "s3:x-amz-copy-source", Some("b/k x?versionId=null")),
        (Operation::DeleteObject, "s3:if-match", Some("*")),
        (Operation::DeleteObjects, "s3:if-match", None),
        (Operation::PutObject, "s3:objectcreationoperation", Some("true")),
        (Operation::UploadPart, "s3:objectcreationoperation", Some("false")),
        (Operation::GetObject, "s3:objectcreationoperation", None),
    ] {
        asker.operation = operation;
        let keys = Keys { asker: &asker, about: &about, now: asker.now };
        let found = keys.values(key).map(|values| values.join(","));
        assert_eq!(found.as_deref(), expected, "{operation:?} {key}");
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
    let check = async || principals.still_granted(&asker).await.map(|_| ()).map_err(|error| error.code());
    assert_eq!(check().await, Ok(()));
    *metadata.grant.lock() = Some(grant(ProjectId::random(), 0));
    assert_eq!(check().await, Err(S3Code::AccessDenied));
    *metadata.grant.lock() = None;
    assert_eq!(check().await, Err(S3Code::AccessDenied));
}
