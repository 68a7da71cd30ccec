//! One request, as operations see it.

use super::headers::text;
use crate::access::{AccessWatch, Action, authorise};
use crate::checksum::{BodyHasher, ExpectedDigests, WithMd5};
use crate::error::{S3Code, S3Error};
use crate::host::{Query, Target, check_bucket_name};
use crate::payload::{Payload, PayloadMode};
use crate::router::Operation;
use crate::server::ConnInfo;
use crate::sigv4::Identity;
use crate::state::Shared;
use crate::xml::{self, Element};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method};
use std::sync::{Arc, OnceLock};
use valv_metadata_api::{Actor, Bucket, FoundObject, GetBucket, GetObject, MetadataError, ObjectKey, VersionSelector};
use valv_types::{TimestampMicros, UploadId};

/// A request whose signature is right.
pub(crate) struct Context {
    pub(crate) shared: Arc<Shared>,
    pub(crate) conn: ConnInfo,
    pub(crate) operation: Operation,
    pub(crate) identity: Identity,
    pub(crate) target: Target,
    pub(crate) query: Query,
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    /// When the request came in.
    pub(crate) now: TimestampMicros,
    /// The request's bucket once it has been read, for CORS.
    seen_bucket: OnceLock<Bucket>,
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
    #[allow(clippy::too_many_arguments, reason = "called once, by the handler that has just taken the request apart")]
    pub(crate) fn new(
        shared: Arc<Shared>,
        conn: ConnInfo,
        operation: Operation,
        identity: Identity,
        target: Target,
        query: Query,
        parts: Parts,
        now: TimestampMicros,
    ) -> Self {
        let Parts { method, headers, .. } = parts;
        Self { shared, conn, operation, identity, target, query, method, headers, now, seen_bucket: OnceLock::new() }
    }

    /// Who asks, for metadata and the ledger.
    pub(crate) fn actor(&self) -> Actor {
        let grant = &self.identity.grant;
        Actor {
            project: grant.project,
            user: Some(grant.user),
            access_key: Some(self.identity.access_key.clone()),
            request_id: self.conn.request_id.to_string(),
            remote: self.conn.peer.ip().to_string(),
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

    /// Reads the request's bucket and asks whether `action` on it (and on the request's key) is allowed.
    ///
    /// # Errors
    /// NoSuchBucket, AccessDenied.
    pub(crate) async fn bucket(&self, action: Action) -> Result<Bucket, S3Error> {
        let bucket = self.named_bucket(self.bucket_name()?, action, self.target.key.as_ref()).await?;
        self.check_expected_owner("x-amz-expected-bucket-owner", &bucket).await?;
        tracing::Span::current().record("bucket", tracing::field::display(bucket.id));
        let _ = self.seen_bucket.set(bucket.clone());
        Ok(bucket)
    }

    /// The same for another bucket, such as a copy's source.
    pub(crate) async fn named_bucket(
        &self,
        name: &str,
        action: Action,
        key: Option<&ObjectKey>,
    ) -> Result<Bucket, S3Error> {
        let request = GetBucket { namespace: self.identity.grant.namespace, name: name.to_owned() };
        let bucket = self.shared.metadata.get_bucket(request).await.map_err(|error| no_such_bucket(error, name))?;
        authorise(Some(&self.identity), action, &bucket, key)?;
        Ok(bucket)
    }

    /// Asks for a further right in a bucket that has been read.
    pub(crate) fn may(&self, action: Action, bucket: &Bucket) -> Result<(), S3Error> {
        authorise(Some(&self.identity), action, bucket, self.target.key.as_ref())
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

    /// Reads the record of the request's object. A delete marker is returned as such.
    ///
    /// # Errors
    /// NoSuchKey, NoSuchVersion.
    pub(crate) async fn object(
        &self,
        bucket: &Bucket,
        version: VersionSelector,
        with_inline: bool,
    ) -> Result<FoundObject, S3Error> {
        let key = self.key()?.clone();
        let request = GetObject { bucket: bucket.id, key: key.clone(), version, with_inline };
        self.shared.metadata.get_object(request).await.map_err(|error| no_such_object(error, &key, version))
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
        AccessWatch::new(Arc::clone(&self.shared.principals), &self.identity)
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
        let body = payload.read_all(len_bytes_max).await?;
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
