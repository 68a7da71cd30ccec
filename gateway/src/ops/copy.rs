//! CopyObject and UploadPartCopy.
//!
//! Inside a project a copy shares the source's blobs: one commit, no byte is read. Across projects, for a part that is a
//! range, and where a customer's key is needed for either side, the bytes are read, verified, and sealed anew under the
//! destination's keys.

use super::acl::settle_ownership;
use super::context::{Context, no_such_object, parse_version};
use super::encryption;
use super::get::{part_number, written_headers};
use super::headers::{
    attributes, checksum_text, described, header_value, lock_request, parse_tagging_header, part_count, shown_text,
    text,
};
use super::lock::may_lock;
use super::put::CHECKSUM_DEFAULT;
use super::recording;
use super::source::{self, Owner};
use super::tagging::check_tags_allowed;
use super::{Answer, xml};
use crate::access::Action;
use crate::accesses::Ticket;
use crate::checksum::{self, BodyHasher, Digests, WithMd5};
use crate::conditions::{ReadConditions, write_condition};
use crate::data::FinishedBlob;
use crate::encryption::{AnswerTo, Asked, Sealing, Use};
use crate::error::{S3Code, S3Error};
use crate::host::{checked_key, percent_decode_strict};
use crate::http_date;
use crate::lifecycle::Expiring;
use crate::limits::PUT_LEN_BYTES_MAX;
use crate::range::ByteRange;
use crate::xml::{Namespace, Writer};
use futures_util::StreamExt as _;
use std::ops::Range;
use valv_ledger::AccessEnd;
use valv_metadata_api::{
    Attributes, Bucket, BucketDocumentKind, Checksum, ChecksumAlgorithm, CopyObject, FoundObject, GetUpload,
    MetadataError, ObjectKey, PutObject, PutPart, ShownVersion, VersionSelector, Written,
};
use valv_types::{CommitId, TimestampMicros};

/// What `x-amz-copy-source` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CopySource {
    pub(crate) bucket: String,
    pub(crate) key: ObjectKey,
    pub(crate) version: VersionSelector,
}

impl CopySource {
    /// Reads `/bucket/key?versionId=id`, URL-encoded, with or without the first slash.
    ///
    /// # Errors
    /// InvalidArgument; KeyTooLongError.
    pub(crate) fn parse(header: &str) -> Result<Self, S3Error> {
        let invalid = |message: &'static str| S3Error::invalid_argument(message, "x-amz-copy-source", header);
        // A question mark inside a key comes encoded, so the first bare one starts the query.
        let (path, version) = match header.split_once('?') {
            None => (header, VersionSelector::Current),
            Some((path, query)) => {
                let id =
                    query.strip_prefix("versionId=").ok_or_else(|| invalid("Unsupported copy source parameter."))?;
                (path, parse_version(id)?)
            }
        };
        // The value is form-encoded, unlike a request's path: s5cmd writes a space as a plus, and clients that mean a plus
        // write %2B (aws-sdk-js #1821, aws-sdk-php #236).
        let spaced = path.replace('+', " ");
        let decoded = percent_decode_strict(spaced.as_bytes())
            .ok_or_else(|| invalid("Invalid copy source encoding."))?
            .into_owned();
        let decoded = decoded.strip_prefix(b"/").unwrap_or(&decoded);
        let form = "Copy Source must mention the source bucket and key: sourcebucket/sourcekey";
        let slash = decoded.iter().position(|&byte| byte == b'/').ok_or_else(|| invalid(form))?;
        let (bucket, key) = (&decoded[..slash], &decoded[slash + 1..]);
        let bucket = std::str::from_utf8(bucket).map_err(|_| invalid(form))?;
        if bucket.is_empty() || key.is_empty() {
            return Err(invalid(form));
        }
        if bucket.starts_with("arn:") {
            return Err(
                S3Error::not_implemented("x-amz-copy-source").with_message("Access points are not implemented.")
            );
        }
        Ok(Self { bucket: bucket.to_owned(), key: checked_key(key)?, version })
    }
}

/// A copy source as conditions see it: what is copied, not how the client chose to write it. Without the first slash,
/// decoded; a version stays as it was named. What can't be read is refused before it is copied.
pub(crate) fn normal_copy_source(header: &[u8]) -> String {
    let header = String::from_utf8_lossy(header);
    match CopySource::parse(&header) {
        Err(_) => header.into_owned(),
        Ok(source) => {
            let key = String::from_utf8_lossy(source.key.as_bytes());
            let version = header.split_once('?').map(|(_, query)| format!("?{query}")).unwrap_or_default();
            format!("{}/{key}{version}", source.bucket)
        }
    }
}

/// The source of a copy, read and authorised.
struct Source {
    bucket: Bucket,
    key: ObjectKey,
    found: FoundObject,
    version: VersionSelector,
    /// How it is sealed, with the key that the request brought for it.
    sealing: Sealing,
}

impl Source {
    async fn read(cx: &Context, with_inline: bool) -> Result<Self, S3Error> {
        let header = text(&cx.headers, "x-amz-copy-source").unwrap_or_default();
        let CopySource { bucket: name, key, version } = CopySource::parse(header)?;
        let customer = encryption::source_key(cx)?;
        crate::host::check_bucket_name(&name)?;
        let (bucket, found) = cx.named_object(&name, &key, Action::GetObject, version, with_inline).await?;
        cx.check_expected_owner("x-amz-source-expected-bucket-owner", &bucket).await?;
        if found.version.is_delete_marker {
            return Err(match version {
                VersionSelector::Current => S3Error::new(S3Code::NoSuchKey)
                    .with_extra("Key", String::from_utf8_lossy(key.as_bytes()).into_owned()),
                VersionSelector::Null | VersionSelector::Id(_) => S3Error::invalid_request(
                    "The source of a copy request may not specifically refer to a delete marker by version id.",
                ),
            });
        }
        ReadConditions::of_copy_source(&cx.headers)
            .judge_copy_source(&found.version.attributes.etag, found.version.order)?;
        let sealing = encryption::open(&bucket, &found.version.attributes, customer)?;
        Ok(Self { bucket, key, found, version, sealing })
    }

    fn len_bytes(&self) -> u64 {
        self.found.version.len_bytes
    }

    /// What the answer says of the source's version: only if the source's bucket knows versions.
    async fn may_read_tags(&self, cx: &Context) -> Result<bool, S3Error> {
        let version = self.version;
        cx.may_also(Action::GetObjectTagging, &self.bucket, &self.key, version, &self.found).await
    }

    fn shown(&self) -> ShownVersion {
        self.found.shown
    }
}

/// `COPY` (the default) or `REPLACE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Directive {
    Copy,
    Replace,
}

fn directive(cx: &Context, header: &'static str) -> Result<Directive, S3Error> {
    match text(&cx.headers, header) {
        None | Some("COPY") => Ok(Directive::Copy),
        Some("REPLACE") => Ok(Directive::Replace),
        Some(other) => Err(S3Error::invalid_argument(
            if header == "x-amz-metadata-directive" {
                "Unknown metadata directive."
            } else {
                "Unknown tagging directive."
            },
            header,
            other,
        )),
    }
}

/// PUT with `x-amz-copy-source`.
pub(crate) async fn copy(cx: &Context) -> Answer {
    let metadata_directive = directive(cx, "x-amz-metadata-directive")?;
    let tagging_directive = directive(cx, "x-amz-tagging-directive")?;
    let condition = write_condition(&cx.headers)?;
    // Judged whole, even what a COPY directive then leaves unused: a refusal beats a surprise.
    let asked = attributes(&cx.headers)?;
    let algorithm = match text(&cx.headers, "x-amz-checksum-algorithm") {
        None => None,
        Some(name) => Some(checksum::parse_algorithm(name)?),
    };
    let bucket = cx.bucket(Action::PutObject).await?;
    // After the policy, as for a PUT.
    let asked_encryption = encryption::asked(cx)?;
    let lock = lock_request(&cx.headers, &bucket, cx.now)?;
    may_lock(cx, &bucket, &lock).await?;
    cx.may_compare(&bucket, cx.key()?, &condition).await?;
    let source = Source::read(cx, true).await?;
    if source.len_bytes() > PUT_LEN_BYTES_MAX {
        return Err(S3Error::invalid_request(format!(
            "The specified copy source is larger than the maximum allowable size for a copy source: {PUT_LEN_BYTES_MAX}"
        )));
    }
    // Its tags would be read in the copy (AWS, CopyObject, "Permissions").
    let takes_tags = tagging_directive == Directive::Copy && !source.found.version.attributes.tags.is_empty();
    if takes_tags && !source.may_read_tags(cx).await? {
        return Err(S3Code::AccessDenied.into());
    }
    let key = cx.key()?.clone();
    let is_itself = bucket.id == source.bucket.id && key == source.key && source.version == VersionSelector::Current;
    let changes_nothing = metadata_directive == Directive::Copy
        && !cx.headers.contains_key("x-amz-website-redirect-location")
        && !cx.headers.contains_key("x-amz-storage-class")
        && matches!(asked_encryption, Asked::Nothing { has_bucket_key: None })
        // What the bucket's own configuration asks for counts as a change to S3, whether or not it is one.
        && !bucket.documents.contains(&BucketDocumentKind::Encryption)
        && !source.sealing.encryption.is_customer();
    if is_itself && changes_nothing {
        return Err(S3Error::invalid_request(
            "This copy request is illegal because it is trying to copy an object to itself without changing the object's \
             metadata, storage class, website redirect location or encryption attributes.",
        ));
    }

    let sealing = encryption::new_object(cx, &bucket, asked_encryption).await?;
    let mut attributes = merge(cx, &source, asked, metadata_directive, tagging_directive)?;
    attributes.encryption = sealing.to_record()?;
    // A copy has an owner and a list of its own.
    settle_ownership(cx, &bucket, &mut attributes).await?;
    check_tags_allowed(cx, &bucket, &attributes.tags).await?;
    let expiring = Expiring::of(cx, &bucket, &key, source.len_bytes(), &attributes.tags).await;
    // What a customer's key is needed for is never shared: each copy has the key that its own request brought.
    let mut ticket = begin_read(cx, &source, 0..source.len_bytes())?;
    let has_customer = sealing.encryption.is_customer() || source.sealing.encryption.is_customer();
    let written = if bucket.project == source.bucket.project && !has_customer {
        ticket.recorded().await?;
        share(cx, &bucket, &source, key, attributes, algorithm, lock, condition).await?
    } else {
        let range = 0..source.len_bytes();
        // AWS: a copy has the checksum of its source if the request names none.
        let of_source = source.found.version.attributes.checksums.first().map(|one| one.algorithm);
        let algorithm = algorithm.or(of_source).unwrap_or(CHECKSUM_DEFAULT);
        let (finished, digests) = reseal(cx, &source, &bucket, &sealing, range, [algorithm], &mut ticket).await?;
        let etag = hex::encode(sealing.etag(digests.md5().ok_or(S3Code::InternalError)?)?);
        let attributes = Attributes { etag, checksums: digests.to_records(), ..attributes };
        let request = PutObject {
            actor: cx.actor(),
            bucket: bucket.id,
            key: key.clone(),
            body: finished.body,
            attributes,
            lock,
            condition,
            proof: finished.proof,
            commit: CommitId::random(),
        };
        cx.shared
            .commit_blob(finished.guard, move |metadata| {
                let request = request.clone();
                async move { metadata.put_object(request).await }
            })
            .await
            .map_err(|error| no_such_object(error, &key, VersionSelector::Current))?
    };
    ticket.all_sent();
    let parts = part_count(&source.found.version);
    let mut response = xml(result("CopyObjectResult", written.order, &written.etag, &written.checksums, parts));
    let headers = response.headers_mut();
    written_headers(headers, &written);
    encryption::add_headers(cx, &sealing, headers, AnswerTo::Write);
    expiring.add(headers, written.order);
    // The answer's body has them; the headers would be taken for the document's.
    for one in &written.checksums {
        headers.remove(checksum::header_name(one.algorithm));
    }
    headers.remove("x-amz-checksum-type");
    headers.remove(http::header::ETAG);
    add_source_version(headers, source.shown());
    Ok(response)
}

fn add_source_version(headers: &mut http::HeaderMap, shown: ShownVersion) {
    if let Some(version) = shown_text(shown) {
        headers.insert("x-amz-copy-source-version-id", header_value(&version));
    }
}

/// What the new version carries: the source's or the request's, as the directives say.
fn merge(
    cx: &Context,
    source: &Source,
    asked: Attributes,
    metadata_directive: Directive,
    tagging_directive: Directive,
) -> Result<Attributes, S3Error> {
    let old = &source.found.version.attributes;
    let (mut headers, user_metadata) = match metadata_directive {
        Directive::Copy => (old.headers.clone(), old.user_metadata.clone()),
        Directive::Replace => {
            let described = described(&cx.headers)?;
            (described.headers, described.user_metadata)
        }
    };
    // A redirect belongs to the copy alone (AWS: it is not copied).
    const REDIRECT: &str = "x-amz-website-redirect-location";
    headers.retain(|(name, _)| name != REDIRECT);
    headers.extend(asked.headers.into_iter().filter(|(name, _)| name == REDIRECT));
    let tags = match tagging_directive {
        Directive::Copy => old.tags.clone(),
        Directive::Replace => match cx.headers.get("x-amz-tagging") {
            None => Vec::new(),
            Some(value) => parse_tagging_header(value.as_bytes())?,
        },
    };
    Ok(Attributes {
        etag: old.etag.clone(),
        headers,
        user_metadata,
        tags,
        checksums: old.checksums.clone(),
        ..Attributes::default()
    })
}

/// A copy inside the project. Another checksum than the source's is computed by reading the source through.
#[allow(clippy::too_many_arguments, reason = "the parts of one commit, each decided by the caller")]
async fn share(
    cx: &Context,
    bucket: &Bucket,
    source: &Source,
    key: ObjectKey,
    mut attributes: Attributes,
    algorithm: Option<ChecksumAlgorithm>,
    lock: valv_metadata_api::LockRequest,
    condition: valv_metadata_api::WriteCondition,
) -> Result<Written, S3Error> {
    let has = |algorithm| attributes.checksums.iter().any(|one| one.algorithm == algorithm);
    if let Some(algorithm) = algorithm.filter(|&algorithm| !has(algorithm)) {
        let mut hasher = BodyHasher::new(WithMd5::No, [algorithm]);
        let mut stream = open(cx, source, 0..source.len_bytes()).await?;
        let mut watch = cx.watch();
        while let Some(piece) = stream.next().await {
            hasher.update(&piece?);
            watch.check().await?;
        }
        attributes.checksums = hasher.finish().to_records();
    }
    let request = CopyObject {
        actor: cx.actor(),
        source_bucket: source.bucket.id,
        source_key: source.key.clone(),
        source_version: source.found.version.id,
        bucket: bucket.id,
        key,
        attributes,
        lock,
        condition,
        commit: CommitId::random(),
    };
    let source_key = String::from_utf8_lossy(source.key.as_bytes()).into_owned();
    cx.shared.data.check_room(bucket.layout.pool).await?;
    cx.shared
        .commit(move |metadata| {
            let request = request.clone();
            async move { metadata.copy_object(request).await }
        })
        .await
        .map_err(|error| match error {
            // The source was removed since it was read.
            MetadataError::NoSuchKey | MetadataError::NoSuchVersion => {
                S3Error::new(S3Code::NoSuchKey).with_extra("Key", source_key)
            }
            error => error.into(),
        })
}

async fn open(cx: &Context, source: &Source, range: Range<u64>) -> Result<crate::body::ByteStream, S3Error> {
    let owner = Owner { project: source.bucket.project, bucket: source.bucket.id };
    source::open(&cx.shared, owner, &source.found, range, source.sealing.key()).await
}

/// Begins to record that the source is read. The copy must not be visible before that is durable.
fn begin_read(cx: &Context, source: &Source, range: Range<u64>) -> Result<Ticket, S3Error> {
    let mut ticket = recording::begin(cx, &source.bucket, source.found.version.id, range, http::StatusCode::OK)?;
    // Unless it comes to its end.
    ticket.ends(AccessEnd::Failed);
    Ok(ticket)
}

/// Reads a range of the source and seals it as a new blob of `bucket`'s project, and returns when that it was read is recorded.
async fn reseal(
    cx: &Context,
    source: &Source,
    bucket: &Bucket,
    sealing: &Sealing,
    range: Range<u64>,
    algorithms: impl IntoIterator<Item = ChecksumAlgorithm>,
    ticket: &mut Ticket,
) -> Result<(FinishedBlob, Digests), S3Error> {
    let mut hasher = BodyHasher::new(WithMd5::Yes, algorithms);
    let len_bytes = range.end - range.start;
    let data = &cx.shared.data;
    let mut writer = data.write_blob_for(bucket.project, bucket.layout, Some(len_bytes), sealing.key()).await?;
    // What leaves the project is charged to the opening by which it does, as a download is.
    let account = match source.bucket.project == bucket.project {
        true => None,
        false => cx.account(&source.bucket).await?,
    };
    let mut stream = source::charged(account, open(cx, source, range).await?);
    let mut watch = cx.watch();
    while let Some(piece) = stream.next().await {
        let piece = piece?;
        hasher.update(&piece);
        writer.write(piece).await?;
        watch.check().await?;
    }
    let (finished, recorded) = tokio::join!(writer.finish(), ticket.recorded());
    recorded?;
    Ok((finished?, hasher.finish()))
}

/// The document that tells of a copy.
fn result(root: &str, modified: TimestampMicros, etag: &str, checksums: &[Checksum], parts: Option<u32>) -> String {
    Writer::document(root, Namespace::S3, |xml| {
        xml.text("LastModified", &http_date::format_iso8601(TimestampMicros::from_secs(modified.as_secs())));
        xml.etag(etag);
        for one in checksums {
            xml.text(checksum::element_name(one.algorithm), &checksum_text(one, parts));
            if root == "CopyObjectResult" {
                xml.text("ChecksumType", checksum::type_name(one.kind));
            }
        }
    })
}

/// PUT of a part with `x-amz-copy-source`.
pub(crate) async fn upload_part_copy(cx: &Context) -> Answer {
    let customer = encryption::part_key(cx, Use::Write)?;
    let number = part_number(cx)?.ok_or(S3Code::InvalidRequest)?;
    let id = cx.upload()?;
    let bucket = cx.bucket(Action::PutObject).await?;
    let key = cx.key()?.clone();
    let request = GetUpload { bucket: bucket.id, key: key.clone(), upload: id };
    let upload = cx.shared.metadata.get_upload(request).await?;
    let sealing = encryption::part(cx, &bucket, &upload.attributes, customer).await?;
    let source = Source::read(cx, true).await?;
    let range = match text(&cx.headers, "x-amz-copy-source-range") {
        None => 0..source.len_bytes(),
        Some(header) => ByteRange::copy_source(header, source.len_bytes())?,
    };
    if range.end - range.start > PUT_LEN_BYTES_MAX {
        return Err(S3Error::invalid_request(format!(
            "The specified copy source is larger than the maximum allowable size for a copy source: {PUT_LEN_BYTES_MAX}"
        )));
    }
    let algorithm = upload.checksum.map_or(CHECKSUM_DEFAULT, |(algorithm, _)| algorithm);
    let mut ticket = begin_read(cx, &source, range.clone())?;
    let (finished, digests) = reseal(cx, &source, &bucket, &sealing, range, [algorithm], &mut ticket).await?;
    let request = PutPart {
        actor: cx.actor(),
        bucket: bucket.id,
        key,
        upload: id,
        number,
        body: finished.body,
        md5: sealing.etag(digests.md5().ok_or(S3Code::InternalError)?)?,
        checksums: digests.to_records(),
        proof: finished.proof,
        commit: CommitId::random(),
    };
    let part = cx
        .shared
        .commit_blob(finished.guard, move |metadata| {
            let request = request.clone();
            async move { metadata.put_part(request).await }
        })
        .await?;
    ticket.all_sent();
    // A checksum that nobody asked for is ours, to make the object's from.
    let told = if upload.checksum.is_some() { part.checksums.as_slice() } else { &[] };
    let mut response = xml(result("CopyPartResult", part.modified, &hex::encode(part.md5), told, None));
    encryption::add_headers(cx, &sealing, response.headers_mut(), AnswerTo::Read);
    add_source_version(response.headers_mut(), source.shown());
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copy_sources_are_read_in_every_form_that_clients_send() {
        let id = valv_types::VersionId::random();
        let with_version = format!("b/k?versionId={id}");
        for (header, bucket, key, version) in [
            ("b/k", "b", &b"k"[..], VersionSelector::Current),
            ("/b/k", "b", b"k", VersionSelector::Current),
            ("/b/a//b/", "b", b"a//b/", VersionSelector::Current),
            ("b//k", "b", b"/k", VersionSelector::Current),
            ("/b%2Fk%20x", "b", b"k x", VersionSelector::Current),
            ("b/k%3FversionId%3D1", "b", b"k?versionId=1", VersionSelector::Current),
            ("b/a+b%2Bc", "b", b"a b+c", VersionSelector::Current),
            ("b/%ff", "b", b"\xff", VersionSelector::Current),
            ("b/k?versionId=null", "b", b"k", VersionSelector::Null),
            (&with_version, "b", b"k", VersionSelector::Id(id)),
        ] {
            let source = CopySource::parse(header).expect(header);
            assert_eq!(
                (source.bucket.as_str(), source.key.as_bytes(), source.version),
                (bucket, key, version),
                "{header}"
            );
        }
    }

    #[test]
    fn malformed_copy_sources_are_refused() {
        let long = format!("b/{}", "k".repeat(1025));
        for (header, code) in [
            ("", S3Code::InvalidArgument),
            ("b", S3Code::InvalidArgument),
            ("/b", S3Code::InvalidArgument),
            ("b/", S3Code::InvalidArgument),
            ("//k", S3Code::InvalidArgument),
            ("b/%zz", S3Code::InvalidArgument),
            ("b/k?versionId=1", S3Code::InvalidArgument),
            ("b/k?other=1", S3Code::InvalidArgument),
            ("arn:aws:s3:us-east-1:1:accesspoint/a/object/k", S3Code::NotImplemented),
            (&long, S3Code::KeyTooLongError),
        ] {
            assert_eq!(CopySource::parse(header).err().map(|error| error.code()), Some(code), "{header}");
        }
    }
}
