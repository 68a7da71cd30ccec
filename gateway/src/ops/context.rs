//! One request, as operations see it.

use super::headers::text;
use super::recording::Met;
use crate::access::{About, AccessWatch, Account, Action, Asker, Given, Judged, ObjectFacts, judge, refuse_outsiders};
use crate::checksum::{BodyHasher, ExpectedDigests, WithMd5};
use crate::documents::Share;
use crate::error::{S3Code, S3Error};
use crate::host::{Query, Target, check_bucket_name};
use crate::limits::DOCUMENT_TIME_MAX;
use crate::payload::{Payload, PayloadMode};
use crate::router::Operation;
use crate::server::ConnInfo;
use crate::sigv4::Identity;
use crate::state::Shared;
use crate::xml::{self, Element};
use bytes::Bytes;
use http::HeaderMap;
use parking_lot::Mutex;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use valv_metadata_api::{
    Actor, Bucket, FoundObject, GetBucket, GetObject, GetUpload, MetadataError, ObjectKey, VersionSelector,
    WriteCondition,
};
use valv_types::{NamespaceId, OpeningId, ProjectId, TimestampMicros, UploadId, VersionId};

/// A request whose signature is right, or that has none.
pub(crate) struct Context {
    pub(crate) shared: Arc<Shared>,
    pub(crate) conn: ConnInfo,
    pub(crate) operation: Operation,
    pub(crate) asker: Arc<Asker>,
    pub(crate) target: Target,
    pub(crate) query: Arc<Query>,
    pub(crate) headers: Arc<HeaderMap>,
    /// When the request came in.
    pub(crate) now: TimestampMicros,
    /// Where bucket names are looked up: `None` for an unsigned request to a host that stands for no namespace.
    namespace: Option<NamespaceId>,
    /// The request's bucket once it has been read.
    seen_bucket: OnceLock<Bucket>,
    /// Everything that was allowed, for the watch over a transfer.
    judged: Mutex<Vec<Judged>>,
    /// What its documents take of memory.
    document_shares: Mutex<Vec<Share>>,
    /// What the request's body gives its object, once it has been read.
    given: OnceLock<Given>,
    /// What its record in the ledger may need.
    pub(super) met: Mutex<Met>,
    /// The opening by which a stranger got into the request's bucket.
    opening: OnceLock<OpeningId>,
}

/// What a request is made of, for [`Context::new`].
pub(crate) struct Request {
    pub(crate) conn: ConnInfo,
    pub(crate) operation: Operation,
    pub(crate) identity: Option<Identity>,
    /// The client's address, as the socket or trusted proxies tell it; `None` if it is not known.
    pub(crate) client: Option<IpAddr>,
    pub(crate) namespace: Option<NamespaceId>,
    pub(crate) target: Target,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) now: TimestampMicros,
}

/// What the request says of digests that its body must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyDigest {
    /// The operation demands Content-MD5 or a checksum, as AWS does.
    Required,
    /// It may be missing.
    Optional,
}

impl Context {
    pub(crate) fn new(shared: Arc<Shared>, request: Request) -> Self {
        let Request { conn, operation, identity, client, namespace, target, query, headers, now } = request;
        let (headers, query) = (Arc::new(headers), Arc::new(query));
        let asker = Asker {
            identity,
            operation,
            client,
            is_tls: conn.is_tls,
            headers: Arc::clone(&headers),
            query: Arc::clone(&query),
            now,
        };
        Self {
            shared,
            conn,
            operation,
            asker: Arc::new(asker),
            target,
            query,
            headers,
            now,
            namespace,
            seen_bucket: OnceLock::new(),
            judged: Mutex::default(),
            document_shares: Mutex::default(),
            given: OnceLock::new(),
            met: Mutex::default(),
            opening: OnceLock::new(),
        }
    }

    /// Who signed the request, if anybody did.
    pub(crate) fn identity(&self) -> Option<&Identity> {
        self.asker.identity.as_ref()
    }

    /// Who signed the request.
    ///
    /// # Errors
    /// AccessDenied if nobody did.
    pub(crate) fn signed(&self) -> Result<&Identity, S3Error> {
        self.identity().ok_or_else(|| S3Code::AccessDenied.into())
    }

    /// Who asks, for metadata and the ledger. An unsigned request acts in the project of its bucket, which has been read
    /// by whoever needs an actor.
    pub(crate) fn actor(&self) -> Actor {
        let grant = self.identity().map(|identity| &identity.grant);
        let project = match (grant, self.seen_bucket.get()) {
            (Some(grant), _) => grant.project,
            (None, Some(bucket)) => bucket.project,
            (None, None) => ProjectId::from_bytes([0; 16]),
        };
        Actor {
            project,
            user: grant.map(|grant| grant.user),
            access_key: self.identity().map(|identity| identity.access_key.clone()),
            request_id: self.conn.request_id.to_string(),
            remote: self.asker.client.map_or_else(|| "unknown".to_owned(), |client| client.to_string()),
            caller: None,
            opening: self.opening(),
        }
    }

    /// The opening by which a stranger got into the request's bucket; `None` for members, and before anything was allowed.
    pub(crate) fn opening(&self) -> Option<OpeningId> {
        self.opening.get().copied()
    }

    /// What reading from `bucket` is charged to, if it is read by an opening with a byte budget.
    ///
    /// # Errors
    /// That metadata can't be reached.
    pub(crate) async fn account(&self, bucket: &Bucket) -> Result<Option<Account>, S3Error> {
        let reads = |action| matches!(action, Action::GetObject | Action::GetObjectVersion);
        let opening = {
            let judged = self.judged.lock();
            judged.iter().rev().find(|one| one.bucket.id == bucket.id && reads(one.action)).and_then(|one| one.opening)
        };
        match opening {
            Some(opening) => self.shared.rules.openings().account(bucket, opening).await,
            None => Ok(None),
        }
    }

    /// Remembers by which opening something in `bucket` was allowed.
    fn note_opening(&self, bucket: &Bucket, opening: Option<OpeningId>) {
        let is_requests = self.seen_bucket.get().is_some_and(|seen| seen.id == bucket.id);
        if let (true, Some(opening)) = (is_requests, opening) {
            let _ = self.opening.set(opening);
        }
    }

    /// The name of the request's bucket.
    ///
    /// # Errors
    /// InvalidBucketName.
    pub(crate) fn bucket_name(&self) -> Result<&str, S3Error> {
        let name = self.target.bucket.as_deref().ok_or(S3Code::InvalidBucketName)?;
        check_bucket_name(name)?;
        Ok(name)
    }

    /// The request's key.
    ///
    /// # Errors
    /// InvalidArgument, which the router rules out for operations on objects.
    pub(crate) fn key(&self) -> Result<&ObjectKey, S3Error> {
        self.target.key.as_ref().ok_or_else(|| S3Error::invalid_argument("Object key must not be empty", "key", ""))
    }

    /// Reads the request's bucket and asks whether `action` on it (and on the request's key) is allowed. For actions on an
    /// object that exists there is [`Self::object`]: its ACL and tags decide, too.
    ///
    /// # Errors
    /// NoSuchBucket, AccessDenied.
    pub(crate) async fn bucket(&self, action: Action) -> Result<Bucket, S3Error> {
        let bucket = self.unjudged_bucket().await?;
        self.may(action, &bucket).await?;
        self.check_expected_owner("x-amz-expected-bucket-owner", &bucket).await?;
        Ok(bucket)
    }

    /// Notes what the request's body gives its object, for operations whose rights may depend on that: they read their
    /// body, which is small, before they ask.
    pub(crate) fn gives(&self, given: Given) {
        let _ = self.given.set(given);
    }

    fn given(&self) -> Given {
        self.given.get().cloned().unwrap_or_default()
    }

    /// Reads the request's bucket for an operation whose questions need its body: rights on each of many keys, or on what
    /// the body gives.
    ///
    /// # Errors
    /// NoSuchBucket; AccessDenied if nothing could let the asker into the bucket.
    pub(crate) async fn bucket_of_many(&self) -> Result<Bucket, S3Error> {
        let bucket = self.unjudged_bucket().await?;
        let judged = refuse_outsiders(&self.shared.rules, &self.asker, &bucket, self.now).await;
        self.met.lock().judged(&bucket, &About::key(self.target.key.as_ref()), None, judged)?;
        self.check_expected_owner("x-amz-expected-bucket-owner", &bucket).await?;
        Ok(bucket)
    }

    async fn unjudged_bucket(&self) -> Result<Bucket, S3Error> {
        let bucket = self.find_bucket(self.bucket_name()?).await?;
        tracing::Span::current().record("bucket", tracing::field::display(bucket.id));
        let _ = self.seen_bucket.set(bucket.clone());
        Ok(bucket)
    }

    async fn find_bucket(&self, name: &str) -> Result<Bucket, S3Error> {
        let namespace = self.namespace.ok_or(S3Code::AccessDenied)?;
        let request = GetBucket { namespace, name: name.to_owned() };
        self.shared.metadata.get_bucket(request).await.map_err(|error| no_such_bucket(error, name))
    }

    /// Whether the asker is a member of the bucket's project.
    pub(crate) fn is_member(&self, bucket: &Bucket) -> bool {
        self.asker.is_member(bucket)
    }

    /// Asks for a further right on the request's key in a bucket that has been read.
    ///
    /// # Errors
    /// AccessDenied.
    pub(crate) async fn may(&self, action: Action, bucket: &Bucket) -> Result<(), S3Error> {
        self.may_watched(action, bucket, About::key(self.target.key.as_ref()), None).await
    }

    /// Asks for a right on a version of one of many keys of a bucket that has been read.
    ///
    /// # Errors
    /// AccessDenied.
    pub(crate) async fn may_key(
        &self,
        action: Action,
        bucket: &Bucket,
        key: &ObjectKey,
        version: VersionSelector,
    ) -> Result<(), S3Error> {
        let about = About { given: self.given(), ..About::version(key, version) };
        let judged = judge(&self.shared.rules, &self.asker, action, bucket, &about, TimestampMicros::now()).await;
        let opening = self.met.lock().judged(bucket, &about, None, judged)?;
        self.note_opening(bucket, opening);
        Ok(())
    }

    /// Asks whether a key, or a version of it, may be removed. Of an object that exists the owner has a say against
    /// strangers.
    ///
    /// # Errors
    /// AccessDenied.
    pub(crate) async fn may_delete(
        &self,
        bucket: &Bucket,
        key: &ObjectKey,
        version: VersionSelector,
        condition: &WriteCondition,
    ) -> Result<(), S3Error> {
        let mut about = About::version(key, version);
        about.given.if_match = condition.if_match.as_ref().map(|etags| etags.join(","));
        // Its tags may be asked for by a Deny, which binds members, too.
        if !(self.is_member(bucket) && self.shared.rules.knows_only_members(bucket)) {
            let request = GetObject { bucket: bucket.id, key: key.clone(), version, with_inline: false };
            about.object = match self.shared.metadata.get_object(request).await {
                Ok(found) if found.version.is_delete_marker => None,
                Ok(found) => Some(ObjectFacts::of(&self.shared.principals, bucket, &found).await?),
                Err(MetadataError::NoSuchKey | MetadataError::NoSuchVersion) => None,
                Err(error) => return Err(error.into()),
            };
        }
        let action = Action::DeleteObject.of_version(version);
        let judged = judge(&self.shared.rules, &self.asker, action, bucket, &about, TimestampMicros::now()).await;
        let opening = self.met.lock().judged(bucket, &about, None, judged)?;
        self.note_opening(bucket, opening);
        Ok(())
    }

    /// Asks for the right to read what a write compares the current version with: else its outcome would tell who may
    /// write, but not read, what the object is. That there is an object (`*`) they may learn, as in AWS ("How to perform
    /// conditional deletes").
    ///
    /// # Errors
    /// AccessDenied.
    pub(crate) async fn may_compare(
        &self,
        bucket: &Bucket,
        key: &ObjectKey,
        condition: &WriteCondition,
    ) -> Result<(), S3Error> {
        let names_one = |etags: &Option<Vec<String>>| etags.iter().flatten().any(|etag| etag != "*");
        let compares = names_one(&condition.if_match)
            || names_one(&condition.if_none_match)
            || condition.if_match_modified_secs.is_some()
            || condition.if_match_len_bytes.is_some();
        if !compares {
            return Ok(());
        }
        match self.object_in(bucket, key, Action::GetObject, VersionSelector::Current, false).await {
            Ok(_) => Ok(()),
            // The write will tell.
            Err(error) if error.code() == S3Code::NoSuchKey => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Reads the request's bucket and asks whether `action` on the request's upload is allowed: who began an upload may
    /// look at it and give it up.
    ///
    /// # Errors
    /// NoSuchBucket, AccessDenied, NoSuchUpload.
    pub(crate) async fn bucket_of_upload(&self, action: Action) -> Result<Bucket, S3Error> {
        let bucket = self.unjudged_bucket().await?;
        let mut about = About::key(self.target.key.as_ref());
        if self.asker.depends_on_initiator(action, &bucket) {
            let request = GetUpload { bucket: bucket.id, key: self.key()?.clone(), upload: self.upload()? };
            let initiator = match self.shared.metadata.get_upload(request).await {
                Ok(upload) => upload.owner,
                // Told below, to those who may know.
                Err(MetadataError::NoSuchUpload) => None,
                Err(error) => return Err(error.into()),
            };
            if let Some(initiator) = initiator {
                let user = self.shared.principals.user(initiator).await?;
                about.upload_initiator = user.map(|user| user.canonical_id.clone());
            }
        }
        self.may_watched(action, &bucket, about, None).await?;
        self.check_expected_owner("x-amz-expected-bucket-owner", &bucket).await?;
        Ok(bucket)
    }

    /// Asks for a right, and has [`Self::watch`] ask again. `version` is what a refusal is recorded with.
    async fn may_watched(
        &self,
        action: Action,
        bucket: &Bucket,
        about: About,
        version: Option<VersionId>,
    ) -> Result<(), S3Error> {
        let judged = judge(&self.shared.rules, &self.asker, action, bucket, &about, self.now).await;
        let opening = self.met.lock().judged(bucket, &about, version, judged)?;
        self.note_opening(bucket, opening);
        self.judged.lock().push(Judged { action, bucket: bucket.clone(), about: Arc::new(about), opening });
        Ok(())
    }

    /// The bucket if it has been read.
    pub(crate) fn seen_bucket(&self) -> Option<&Bucket> {
        self.seen_bucket.get()
    }

    /// Refuses if a header names another owner than the bucket's. Owners are canonical ids here.
    pub(crate) async fn check_expected_owner(&self, header: &'static str, bucket: &Bucket) -> Result<(), S3Error> {
        let Some(expected) = text(&self.headers, header) else { return Ok(()) };
        let owner = self.shared.principals.user(bucket.owner).await?;
        match owner {
            Some(owner) if owner.canonical_id == expected => Ok(()),
            _ => Err(S3Code::AccessDenied.into()),
        }
    }

    /// The version that the query names.
    ///
    /// # Errors
    /// InvalidArgument.
    pub(crate) fn version(&self) -> Result<VersionSelector, S3Error> {
        match self.query.get("versionId")? {
            None => Ok(VersionSelector::Current),
            Some(text) => parse_version(text),
        }
    }

    /// Reads the request's bucket and the record of its object, and asks whether `action` on it is allowed. A delete marker
    /// is returned as such.
    ///
    /// # Errors
    /// NoSuchBucket, AccessDenied, NoSuchKey, NoSuchVersion.
    pub(crate) async fn object(
        &self,
        action: Action,
        selector: VersionSelector,
        with_inline: bool,
    ) -> Result<(Bucket, FoundObject), S3Error> {
        let bucket = self.unjudged_bucket().await?;
        let found = self.object_in(&bucket, self.key()?, action, selector, with_inline).await?;
        self.check_expected_owner("x-amz-expected-bucket-owner", &bucket).await?;
        Ok((bucket, found))
    }

    /// The same for another bucket and key, such as a copy's source.
    ///
    /// # Errors
    /// As [`Self::object`].
    pub(crate) async fn named_object(
        &self,
        name: &str,
        key: &ObjectKey,
        action: Action,
        selector: VersionSelector,
        with_inline: bool,
    ) -> Result<(Bucket, FoundObject), S3Error> {
        let bucket = self.find_bucket(name).await?;
        let found = self.object_in(&bucket, key, action, selector, with_inline).await?;
        Ok((bucket, found))
    }

    async fn object_in(
        &self,
        bucket: &Bucket,
        key: &ObjectKey,
        action: Action,
        version: VersionSelector,
        with_inline: bool,
    ) -> Result<FoundObject, S3Error> {
        let request = GetObject { bucket: bucket.id, key: key.clone(), version, with_inline };
        let found = self.shared.metadata.get_object(request).await.map_err(|error| no_such_object(error, key, version));
        let id = found.as_ref().ok().map(|found| found.version.id);
        if let Some(id) = id {
            self.met.lock().version(id);
        }
        let about = About { given: self.given(), ..About::version(key, version) };
        if self.is_member(bucket) && self.shared.rules.knows_only_members(bucket) {
            self.may_watched(action.of_version(version), bucket, about, id).await?;
            return found;
        }
        match found {
            Ok(found) if !found.version.is_delete_marker => {
                let facts = ObjectFacts::of(&self.shared.principals, bucket, &found).await?;
                let about = About { object: Some(facts), ..about };
                // Size, ETag and checksums are for who may read the object (AWS, GetObjectAttributes, "Permissions").
                if action == Action::GetObjectAttributes {
                    self.may_watched(Action::GetObject.of_version(version), bucket, about.clone(), id).await?;
                }
                self.may_watched(action.of_version(version), bucket, about, id).await?;
                Ok(found)
            }
            // That a key does not exist is for those to know who may list the bucket (AWS, GetObject, "Permissions").
            absent => {
                let probe = About { probed: Some(key.clone()), ..About::default() };
                let judged = self.may_watched(Action::ListBucket, bucket, probe, id).await;
                judged.inspect_err(|_| self.met.lock().key(key))?;
                absent
            }
        }
    }

    /// Whether a further right on an object that has been read is there, for what an answer tells or a copy takes along.
    ///
    /// # Errors
    /// Whatever kept the bucket's rules from being read.
    pub(crate) async fn may_also(
        &self,
        action: Action,
        bucket: &Bucket,
        key: &ObjectKey,
        version: VersionSelector,
        found: &FoundObject,
    ) -> Result<bool, S3Error> {
        if self.is_member(bucket) && self.shared.rules.knows_only_members(bucket) {
            return Ok(self.asker.role_allows(action.of_version(version), bucket, &About::default()));
        }
        let facts = ObjectFacts::of(&self.shared.principals, bucket, found).await?;
        let about = About { object: Some(facts), ..About::version(key, version) };
        let action = action.of_version(version);
        match judge(&self.shared.rules, &self.asker, action, bucket, &about, self.now).await {
            Ok(_) => Ok(true),
            Err(error) if error.code() == S3Code::AccessDenied => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The upload that the query names.
    ///
    /// # Errors
    /// NoSuchUpload for what can't be an upload's id.
    pub(crate) fn upload(&self) -> Result<UploadId, S3Error> {
        let text = self.query.get("uploadId")?.unwrap_or_default();
        text.parse().map_err(|_| S3Error::new(S3Code::NoSuchUpload).with_extra("UploadId", text))
    }

    /// A watch over this request's right during a transfer.
    pub(crate) fn watch(&self) -> AccessWatch {
        AccessWatch::new(Arc::clone(&self.shared), Arc::clone(&self.asker), self.judged.lock().clone())
    }

    /// Reads a body whole, within what all such bodies may take of memory and time. Digests are for the caller.
    ///
    /// # Errors
    /// Whatever is wrong with the body; SlowDown; RequestTimeout; AccessDenied if a right ended meanwhile.
    pub(crate) async fn document(&self, payload: &mut Payload, len_bytes_max: usize) -> Result<Bytes, S3Error> {
        let mut watch = self.watch();
        let mut share = self.shared.documents.begin();
        let read = payload.read_all_within(len_bytes_max, |len_bytes| share.grow_to(len_bytes));
        let body = tokio::time::timeout(DOCUMENT_TIME_MAX, read)
            .await
            .map_err(|_| S3Error::new(S3Code::RequestTimeout).closing_connection())??;
        // Until the request ends: what is made of the body is no smaller.
        self.document_shares.lock().push(share);
        // Who dawdles over a body is asked again.
        watch.check().await?;
        Ok(body)
    }

    /// Reads a small body whole and verifies its digests.
    ///
    /// # Errors
    /// Whatever is wrong with the body; InvalidRequest if a digest is required and missing.
    pub(crate) async fn small_body(
        &self,
        payload: &mut Payload,
        len_bytes_max: usize,
        digest: BodyDigest,
    ) -> Result<Bytes, S3Error> {
        let expected = self.expected_digests()?;
        if digest == BodyDigest::Required && expected.is_empty() {
            return Err(S3Error::invalid_request(
                "Missing required header for this request: Content-MD5 OR x-amz-checksum-*",
            ));
        }
        let body = self.document(payload, len_bytes_max).await?;
        let with_md5 = if expected.needs_md5() { WithMd5::Yes } else { WithMd5::No };
        let mut hasher = BodyHasher::new(with_md5, expected.algorithm());
        hasher.update(&body);
        expected.verify(&hasher.finish(), payload.trailers())?;
        Ok(body)
    }

    /// Reads an XML body.
    ///
    /// # Errors
    /// As [`Self::small_body`]; MissingRequestBodyError; MalformedXML.
    pub(crate) async fn xml_body(
        &self,
        payload: &mut Payload,
        root: &str,
        len_bytes_max: usize,
        digest: BodyDigest,
    ) -> Result<Element, S3Error> {
        let body = self.small_body(payload, len_bytes_max, digest).await?;
        if body.trim_ascii().is_empty() {
            return Err(S3Code::MissingRequestBodyError.into());
        }
        xml::parse(&body, root)
    }

    /// The digests that the request's headers promise.
    pub(crate) fn expected_digests(&self) -> Result<ExpectedDigests, S3Error> {
        // Whether trailers may come is known from the header that also chose the payload's mode.
        let mode = match text(&self.headers, "x-amz-content-sha256") {
            Some(name) if name.ends_with("-TRAILER") => PayloadMode::UnsignedChunksTrailer,
            _ => PayloadMode::Unsigned,
        };
        ExpectedDigests::from_headers(&self.headers, &mode)
    }
}

/// Reads a version's id: `null`, or what we made.
///
/// # Errors
/// InvalidArgument.
pub(crate) fn parse_version(text: &str) -> Result<VersionSelector, S3Error> {
    match text {
        "null" => Ok(VersionSelector::Null),
        _ => text
            .parse()
            .map(VersionSelector::Id)
            .map_err(|_| S3Error::invalid_argument("Invalid version id specified", "versionId", text)),
    }
}

/// Adds what AWS says beside NoSuchBucket.
pub(crate) fn no_such_bucket(error: MetadataError, name: &str) -> S3Error {
    let is_missing = matches!(error, MetadataError::NoSuchBucket);
    let error = S3Error::from(error);
    if is_missing { error.with_extra("BucketName", name) } else { error }
}

/// Adds what AWS says beside NoSuchKey and NoSuchVersion. A key without any version is NoSuchVersion, too, if one was
/// asked for.
pub(crate) fn no_such_object(error: MetadataError, key: &ObjectKey, version: VersionSelector) -> S3Error {
    let key_text = || String::from_utf8_lossy(key.as_bytes()).into_owned();
    match (&error, version) {
        (MetadataError::NoSuchKey, VersionSelector::Current) => S3Error::from(error).with_extra("Key", key_text()),
        (MetadataError::NoSuchKey | MetadataError::NoSuchVersion, version) => {
            let id = match version {
                VersionSelector::Current | VersionSelector::Null => "null".to_owned(),
                VersionSelector::Id(id) => id.to_string(),
            };
            S3Error::new(S3Code::NoSuchVersion)
                .with_extra("Key", key_text())
                .with_extra("VersionId", id)
                .with_source(error)
        }
        _ => error.into(),
    }
}
