//! CompleteMultipartUpload: the parts that the client lists become one object, in one commit.

use super::context::Context;
use super::encryption;
use super::encryption::UploadSealing;
use super::headers::{add_version, checksum_text, text};
use super::put::CHECKSUM_DEFAULT;
use super::{Answer, xml};
use crate::access::Action;
use crate::body::ResponseBody;
use crate::checksum::{self, BodyHasher, ExpectedDigests, WithMd5};
use crate::conditions::write_condition;
use crate::encryption::Use;
use crate::error::{S3Code, S3Error};
use crate::host::AddressingStyle;
use crate::lifecycle::Expiring;
use crate::limits::{OBJECT_LEN_BYTES_MAX, PART_LEN_BYTES_MIN, PART_NUMBER_MAX, XML_BODY_LEN_BYTES_MAX};
use crate::payload::{Payload, PayloadMode};
use crate::request_id::RequestId;
use crate::xml::{DECLARATION, Element, Encoding, Namespace, Writer, parse, url_encode};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response};
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use valv_metadata_api::{
    Checksum, ChecksumAlgorithm, ChecksumType, CompleteUpload, CompletedPart, ListParts, MetadataError, PartRecord,
    Upload, Written,
};
use valv_types::CommitId;

/// A part as the client lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Listed {
    number: u16,
    md5: [u8; 16],
    checksums: Vec<(ChecksumAlgorithm, Vec<u8>)>,
}

/// Reads the client's list.
///
/// # Errors
/// MalformedXML, InvalidPartOrder, InvalidPart.
fn read_list(document: &Element) -> Result<Vec<Listed>, S3Error> {
    let mut list: Vec<Listed> = Vec::new();
    for part in document.all("Part") {
        let number: u16 = part.number("PartNumber")?.ok_or(S3Code::MalformedXML)?;
        let etag = part.required("ETag")?.trim().trim_matches('"');
        if !(1..=PART_NUMBER_MAX).contains(&number) {
            return Err(S3Error::invalid_argument(
                format!("PartNumber must be an integer between 1 and {PART_NUMBER_MAX}, inclusive"),
                "PartNumber",
                number.to_string(),
            ));
        }
        if list.last().is_some_and(|last| last.number >= number) {
            return Err(S3Code::InvalidPartOrder.into());
        }
        let mut md5 = [0; 16];
        hex::decode_to_slice(etag, &mut md5).map_err(|_| invalid_part(number, etag))?;
        let mut checksums = Vec::new();
        for algorithm in checksum::ALGORITHMS {
            if let Some(text) = part.text_of(checksum::element_name(algorithm)).filter(|text| !text.is_empty()) {
                checksums.push((algorithm, checksum::parse_digest(algorithm, text)?));
            }
        }
        list.push(Listed { number, md5, checksums });
    }
    if list.is_empty() {
        return Err(S3Code::MalformedXML.into());
    }
    Ok(list)
}

fn invalid_part(number: u16, etag: &str) -> S3Error {
    S3Error::new(S3Code::InvalidPart).with_extra("PartNumber", number.to_string()).with_extra("ETag", etag)
}

/// What the finished object is, worked out from what was uploaded and what the client lists.
#[derive(Debug, PartialEq, Eq)]
struct Assembled {
    etag: String,
    len_bytes: u64,
    checksums: Vec<Checksum>,
}

/// Holds the list against the uploaded parts.
///
/// # Errors
/// InvalidPart, EntityTooSmall, EntityTooLarge.
fn assemble(upload: &Upload, uploaded: &[PartRecord], list: &[Listed]) -> Result<Assembled, S3Error> {
    let by_number: HashMap<u16, &PartRecord> = uploaded.iter().map(|part| (part.number, part)).collect();
    let mut parts = Vec::with_capacity(list.len());
    let mut len_bytes = 0_u64;
    for (index, listed) in list.iter().enumerate() {
        let part = by_number
            .get(&listed.number)
            .filter(|part| part.md5 == listed.md5)
            .ok_or_else(|| invalid_part(listed.number, &hex::encode(listed.md5)))?;
        check_part_checksums(part, listed)?;
        if index + 1 < list.len() && part.blob.len_bytes < PART_LEN_BYTES_MIN {
            return Err(MetadataError::PartTooSmall { number: part.number, len_bytes: part.blob.len_bytes }.into());
        }
        len_bytes = len_bytes.saturating_add(part.blob.len_bytes);
        parts.push(*part);
    }
    if len_bytes > OBJECT_LEN_BYTES_MAX {
        return Err(S3Error::new(S3Code::EntityTooLarge)
            .with_extra("ProposedSize", len_bytes.to_string())
            .with_extra("MaxSizeAllowed", OBJECT_LEN_BYTES_MAX.to_string()));
    }
    let etag = checksum::multipart_etag(parts.iter().map(|part| &part.md5));
    let (algorithm, kind) = upload.checksum.unwrap_or((CHECKSUM_DEFAULT, ChecksumType::FullObject));
    let checksums =
        combined(&parts, algorithm, kind).map(|value| Checksum { algorithm, kind, value }).into_iter().collect();
    Ok(Assembled { etag, len_bytes, checksums })
}

/// Checksums in the list are held against the stored ones. They may be missing, of composite uploads too: every part was
/// verified when it came, and its MD5 in the list says which upload of it is meant.
fn check_part_checksums(part: &PartRecord, listed: &Listed) -> Result<(), S3Error> {
    for (algorithm, digest) in &listed.checksums {
        let stored = part.checksums.iter().find(|one| one.algorithm == *algorithm);
        if stored.is_none_or(|stored| stored.value != *digest) {
            return Err(invalid_part(listed.number, &hex::encode(listed.md5)));
        }
    }
    Ok(())
}

/// The object's checksum from those of its parts; `None` if a part has none of this algorithm.
fn combined(parts: &[&PartRecord], algorithm: ChecksumAlgorithm, kind: ChecksumType) -> Option<Vec<u8>> {
    let digests = parts
        .iter()
        .map(|part| {
            let one = part.checksums.iter().find(|one| one.algorithm == algorithm)?;
            Some((one.value.as_slice(), part.blob.len_bytes))
        })
        .collect::<Option<Vec<_>>>()?;
    match kind {
        ChecksumType::Composite => Some(checksum::composite(algorithm, digests.into_iter().map(|(digest, _)| digest))),
        ChecksumType::FullObject => checksum::full_object(algorithm, digests),
    }
}

/// Holds what the request's headers say of the object against what it is.
///
/// # Errors
/// BadDigest, InvalidRequest.
fn check_object(headers: &HeaderMap, assembled: &Assembled, parts: usize) -> Result<(), S3Error> {
    if let Some(size) = text(headers, "x-amz-mp-object-size") {
        let size: u64 = size
            .parse()
            .map_err(|_| S3Error::invalid_argument("The size is not a number", "x-amz-mp-object-size", size))?;
        if size != assembled.len_bytes {
            return Err(S3Error::invalid_request(format!(
                "The provided 'x-amz-mp-object-size' header value {size} does not match what was computed: {}",
                assembled.len_bytes
            )));
        }
    }
    if let Some(kind) = text(headers, "x-amz-checksum-type") {
        let kind = checksum::parse_type(kind)?;
        if let Some(one) = assembled.checksums.iter().find(|one| one.kind != kind) {
            return Err(S3Error::invalid_request(format!(
                "The upload was created using the {} checksum mode. The complete request must use the same checksum mode.",
                checksum::type_name(one.kind)
            )));
        }
    }
    for algorithm in checksum::ALGORITHMS {
        let Some(given) = text(headers, checksum::header_name_str(algorithm)) else { continue };
        // A composite one may come with the number of its parts.
        let digest = given.strip_suffix(&format!("-{parts}")).unwrap_or(given);
        let digest = checksum::parse_digest(algorithm, digest)?;
        match assembled.checksums.iter().find(|one| one.algorithm == algorithm) {
            Some(one) if one.value == digest => {}
            Some(_) => {
                return Err(S3Error::new(S3Code::BadDigest).with_message(format!(
                    "The {} you specified did not match the calculated checksum.",
                    checksum::algorithm_name(algorithm)
                )));
            }
            None => {
                return Err(S3Error::invalid_request(format!(
                    "The upload was not created with the {} checksum.",
                    checksum::algorithm_name(algorithm)
                )));
            }
        }
    }
    Ok(())
}

/// POST `?uploadId`.
pub(crate) async fn complete(cx: &Context, mut payload: Payload) -> Answer {
    let id = cx.upload()?;
    let condition = write_condition(&cx.headers)?;
    let customer = encryption::part_key(cx, Use::Read)?;
    let bucket = cx.bucket(Action::PutObject).await?;
    let key = cx.key()?.clone();
    cx.may_compare(&bucket, &key, &condition).await?;

    let body = cx.document(&mut payload, XML_BODY_LEN_BYTES_MAX).await?;
    check_md5(&cx.headers, &body)?;
    if body.trim_ascii().is_empty() {
        return Err(S3Code::MalformedXML.into());
    }
    let list = read_list(&parse(&body, "CompleteMultipartUpload")?)?;
    drop(body);

    let request =
        ListParts { bucket: bucket.id, key: key.clone(), upload: id, after: 0, limit: u32::from(PART_NUMBER_MAX) };
    let mut expiring = Expiring::default();
    let (assembled, sealing) = match cx.shared.metadata.list_parts(request).await {
        Ok(uploaded) => {
            let sealing = encryption::upload(&bucket, &uploaded.upload, customer)?;
            let assembled = assemble(&uploaded.upload, &uploaded.parts, &list)?;
            check_object(&cx.headers, &assembled, list.len())?;
            let tags = &uploaded.upload.attributes.tags;
            expiring = Expiring::of(cx, &bucket, &key, assembled.len_bytes, tags).await;
            (assembled, sealing)
        }
        // Perhaps it is complete already and its answer was lost: metadata knows, and gives the same answer again.
        Err(MetadataError::NoSuchUpload) => {
            let etag = checksum::multipart_etag(list.iter().map(|listed| &listed.md5));
            (Assembled { etag, len_bytes: 0, checksums: Vec::new() }, UploadSealing::unknown())
        }
        Err(error) => return Err(error.into()),
    };

    let request = CompleteUpload {
        actor: cx.actor(),
        bucket: bucket.id,
        key,
        upload: id,
        parts: list.iter().map(|listed| CompletedPart { number: listed.number, md5: listed.md5 }).collect(),
        etag: assembled.etag,
        checksums: assembled.checksums,
        condition,
        commit: CommitId::random(),
    };
    let told = Told {
        bucket: bucket.name,
        location: location(cx),
        key: request.key.as_bytes().to_vec(),
        parts: list.len(),
        sealing: sealing.headers(cx),
        expiring,
    };
    let shared = Arc::clone(&cx.shared);
    let work: Work = Box::pin(async move {
        shared
            .commit(move |metadata| {
                let request = request.clone();
                async move { metadata.complete_upload(request).await }
            })
            .await
            .map_err(S3Error::from)
    });
    answer(work, told, cx.shared.config.complete_silence, cx.conn.request_id).await
}

type Work = Pin<Box<dyn Future<Output = Result<Written, S3Error>> + Send>>;

/// What the answer says beside the outcome.
struct Told {
    bucket: String,
    key: Vec<u8>,
    location: String,
    parts: usize,
    /// The headers that tell how the object is sealed.
    sealing: HeaderMap,
    /// Told only by an answer whose headers have not gone ahead of the outcome.
    expiring: Expiring,
}

impl Told {
    fn document(&self, written: &Written) -> String {
        let parts = u32::try_from(self.parts).ok();
        Writer::document("CompleteMultipartUploadResult", Namespace::S3, |xml| {
            xml.text("Location", &self.location);
            xml.text("Bucket", &self.bucket);
            xml.key("Key", &self.key, Encoding::Plain);
            xml.etag(&written.etag);
            for one in &written.checksums {
                xml.text(checksum::element_name(one.algorithm), &checksum_text(one, parts));
                xml.text("ChecksumType", checksum::type_name(one.kind));
            }
        })
    }
}

/// Answers at once if the commit is quick. If it is not, 200 and white space go ahead to keep the connection alive, and
/// the outcome, be it an error, follows in the body: clients of S3 know to look there.
async fn answer(mut work: Work, told: Told, silence: Duration, id: RequestId) -> Answer {
    if let Ok(outcome) = tokio::time::timeout(silence, &mut work).await {
        let written = outcome?;
        let mut response = xml(told.document(&written));
        add_version(response.headers_mut(), written.shown);
        response.headers_mut().extend(told.sealing);
        told.expiring.add(response.headers_mut(), written.order);
        return Ok(response);
    }
    let sealing = told.sealing.clone();
    let first = stream::iter([Ok(Bytes::from_static(DECLARATION.as_bytes()))]);
    let rest = stream::unfold(Some((work, told)), move |state| async move {
        let (mut work, told) = state?;
        match tokio::time::timeout(silence, &mut work).await {
            Err(_) => Some((Bytes::from_static(b" "), Some((work, told)))),
            Ok(outcome) => {
                let document = match outcome {
                    Ok(written) => told.document(&written),
                    Err(error) => error.to_xml(&id),
                };
                // The declaration has been sent.
                let rest = document.strip_prefix(DECLARATION).unwrap_or(&document).to_owned();
                Some((Bytes::from(rest), None))
            }
        }
    });
    let mut response = Response::new(ResponseBody::stream_of_unknown_length(first.chain(rest.map(Ok))));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    response.headers_mut().extend(sealing);
    Ok(response)
}

/// Verifies Content-MD5 alone: the checksum headers of this request are the object's, not the body's.
fn check_md5(headers: &HeaderMap, body: &[u8]) -> Result<(), S3Error> {
    let Some(md5) = headers.get("content-md5") else { return Ok(()) };
    let mut only = HeaderMap::new();
    only.insert("content-md5", md5.clone());
    let expected = ExpectedDigests::from_headers(&only, &PayloadMode::Unsigned)?;
    let mut hasher = BodyHasher::new(WithMd5::Yes, []);
    hasher.update(body);
    expected.verify(&hasher.finish(), &Vec::new())
}

/// The object's URL, as the client would name it.
fn location(cx: &Context) -> String {
    let key = cx.target.key.as_ref().map(|key| url_encode(key.as_bytes())).unwrap_or_default();
    format!("{}/{key}", bucket_url(cx))
}

/// The bucket's URL in the style of the request, without a slash at its end.
pub(super) fn bucket_url(cx: &Context) -> String {
    let scheme = if cx.conn.is_tls { "https" } else { "http" };
    let host = text(&cx.headers, "host").unwrap_or_default();
    match (cx.target.style, &cx.target.bucket) {
        (AddressingStyle::Path, Some(bucket)) => format!("{scheme}://{host}/{bucket}"),
        _ => format!("{scheme}://{host}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;
    use valv_metadata_api::{Attributes, BlobPlace, BlobRecord, LockRequest, ObjectKey, ShownVersion};
    use valv_types::{BlobId, BucketId, IncarnationId, Layout, PoolId, TimestampMicros, UploadId, VersionId};

    const MIB: u64 = 1 << 20;

    fn record(number: u16, len_bytes: u64, algorithms: &[ChecksumAlgorithm]) -> PartRecord {
        let mut hasher = BodyHasher::new(WithMd5::Yes, algorithms.iter().copied());
        hasher.update(&vec![number as u8; len_bytes as usize]);
        let digests = hasher.finish();
        PartRecord {
            number,
            offset: 0,
            blob: BlobRecord {
                blob: BlobId::new(IncarnationId(1), u64::from(number)),
                len_bytes,
                layout: Layout::current(PoolId(1), 4, 2).expect("layout"),
                place: BlobPlace::Shards,
                wrapped_key: Vec::new(),
            },
            md5: digests.md5().expect("asked for"),
            checksums: digests.to_records(),
            modified: TimestampMicros(0),
        }
    }

    fn upload(checksum: Option<(ChecksumAlgorithm, ChecksumType)>) -> Upload {
        Upload {
            id: UploadId::random(),
            bucket: BucketId::random(),
            key: ObjectKey::new("k").expect("key"),
            owner: None,
            initiated: TimestampMicros(0),
            attributes: Attributes::default(),
            lock: LockRequest::default(),
            checksum,
        }
    }

    fn listed(part: &PartRecord, algorithms: &[ChecksumAlgorithm]) -> Listed {
        let checksums = part.checksums.iter().filter(|one| algorithms.contains(&one.algorithm));
        Listed {
            number: part.number,
            md5: part.md5,
            checksums: checksums.map(|one| (one.algorithm, one.value.clone())).collect(),
        }
    }

    #[test]
    fn lists_are_read_with_and_without_quotes_and_in_order_only() {
        let read = |xml: &str| {
            let xml = format!("<CompleteMultipartUpload>{xml}</CompleteMultipartUpload>");
            read_list(&parse(xml.as_bytes(), "CompleteMultipartUpload")?)
        };
        let etag = "900150983cd24fb0d6963f7d28e17f72";
        let part =
            |number: &str, etag: &str| format!("<Part><ETag>{etag}</ETag><PartNumber>{number}</PartNumber></Part>");
        let list = read(&(part("1", &format!("\"{etag}\"")) + &part("3", etag))).expect("list");
        assert_eq!(list.iter().map(|listed| listed.number).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(list[0].md5, list[1].md5);
        for (xml, code) in [
            (String::new(), S3Code::MalformedXML),
            (part("1", etag) + &part("1", etag), S3Code::InvalidPartOrder),
            (part("2", etag) + &part("1", etag), S3Code::InvalidPartOrder),
            (part("0", etag), S3Code::InvalidArgument),
            (part("10001", etag), S3Code::InvalidArgument),
            (part("x", etag), S3Code::MalformedXML),
            (part("1", "abc"), S3Code::InvalidPart),
            ("<Part><PartNumber>1</PartNumber></Part>".to_owned(), S3Code::MalformedXML),
        ] {
            assert_eq!(read(&xml).err().map(|error| error.code()), Some(code), "{xml}");
        }
    }

    #[test]
    fn an_object_is_assembled_with_the_checksum_that_was_chosen() {
        use ChecksumAlgorithm::{Crc32, Crc64Nvme, Sha256};
        let parts = [record(1, 5 * MIB, &[Crc64Nvme, Sha256, Crc32]), record(7, 3, &[Crc64Nvme, Sha256, Crc32])];
        let list = |algorithms: &[_]| parts.iter().map(|part| listed(part, algorithms)).collect::<Vec<_>>();
        let mut whole = BodyHasher::new(WithMd5::No, [Crc64Nvme, Crc32]);
        whole.update(&vec![1; 5 * MIB as usize]);
        whole.update(&[7; 3]);
        let whole = whole.finish();

        let none = assemble(&upload(None), &parts, &list(&[])).expect("assembled");
        assert_eq!(none.len_bytes, 5 * MIB + 3);
        assert!(none.etag.ends_with("-2"));
        assert_eq!(none.checksums[0].value, whole.checksum(Crc64Nvme).expect("asked for"));

        let full = upload(Some((Crc32, ChecksumType::FullObject)));
        let full = assemble(&full, &parts, &list(&[])).expect("assembled");
        assert_eq!(full.checksums[0].value, whole.checksum(Crc32).expect("asked for"));

        let composite = upload(Some((Sha256, ChecksumType::Composite)));
        let unsaid = assemble(&composite, &parts, &list(&[])).expect("assembled");
        let composite = assemble(&composite, &parts, &list(&[Sha256])).expect("assembled");
        assert_eq!(unsaid, composite);
        assert_eq!(composite.checksums[0].kind, ChecksumType::Composite);

        let headers = |name: &'static str, value: String| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().expect("value"));
            headers
        };
        let text = checksum::encode(&composite.checksums[0].value);
        for (name, value, expected) in [
            ("x-amz-checksum-sha256", text.clone(), None),
            ("x-amz-checksum-sha256", format!("{text}-2"), None),
            ("x-amz-checksum-sha256", checksum::encode(&[0; 32]), Some(S3Code::BadDigest)),
            ("x-amz-checksum-sha256", "bad".to_owned(), Some(S3Code::BadDigest)),
            ("x-amz-checksum-crc32", checksum::encode(&[0; 4]), Some(S3Code::InvalidRequest)),
            ("x-amz-checksum-type", "COMPOSITE".to_owned(), None),
            ("x-amz-checksum-type", "FULL_OBJECT".to_owned(), Some(S3Code::InvalidRequest)),
            ("x-amz-mp-object-size", (5 * MIB + 3).to_string(), None),
            ("x-amz-mp-object-size", "7".to_owned(), Some(S3Code::InvalidRequest)),
        ] {
            let judged = check_object(&headers(name, value.clone()), &composite, 2);
            assert_eq!(judged.err().map(|error| error.code()), expected, "{name}: {value}");
        }
    }

    #[test]
    fn parts_that_are_missing_replaced_or_too_small_are_refused() {
        let parts = [record(1, 5 * MIB, &[]), record(2, 4, &[]), record(3, 4, &[])];
        let open = upload(None);
        let code = |list: &[Listed]| assemble(&open, &parts, list).err().map(|error| error.code());
        let all: Vec<_> = parts.iter().map(|part| listed(part, &[])).collect();
        assert_eq!(code(&all), Some(S3Code::EntityTooSmall));
        assert_eq!(code(&all[..2]), None);
        assert_eq!(code(&all[1..2]), None);
        let mut replaced = all[..2].to_vec();
        replaced[1].md5 = [0; 16];
        assert_eq!(code(&replaced), Some(S3Code::InvalidPart));
        replaced[1].number = 9;
        assert_eq!(code(&replaced), Some(S3Code::InvalidPart));
    }

    fn told() -> Told {
        Told {
            bucket: "b".to_owned(),
            key: b"k".to_vec(),
            location: "http://h/b/k".to_owned(),
            parts: 1,
            sealing: HeaderMap::new(),
            expiring: Expiring::default(),
        }
    }

    fn written() -> Written {
        Written {
            version: VersionId::random(),
            order: TimestampMicros(0),
            shown: ShownVersion::Hidden,
            etag: "e-1".to_owned(),
            checksums: Vec::new(),
        }
    }

    #[tokio::test]
    async fn a_quick_completion_is_answered_with_its_status() {
        let hour = Duration::from_secs(3600);
        let quick =
            |outcome: Result<Written, S3Error>| answer(Box::pin(async { outcome }), told(), hour, RequestId::next());
        let response = quick(Ok(written())).await.expect("200");
        let body = response.into_body().collect().await.expect("body").to_bytes();
        assert!(std::str::from_utf8(&body).expect("text").ends_with(
            "<Location>http://h/b/k</Location><Bucket>b</Bucket><Key>k</Key><ETag>&quot;e-1&quot;</ETag>\
             </CompleteMultipartUploadResult>"
        ));
        let refused = quick(Err(S3Code::PreconditionFailed.into())).await;
        assert_eq!(refused.err().map(|error| error.code()), Some(S3Code::PreconditionFailed));
    }

    #[tokio::test]
    async fn a_slow_completion_keeps_the_connection_alive_and_tells_its_outcome_in_the_body() {
        for (outcome, expected) in [
            (Ok(written()), "<CompleteMultipartUploadResult"),
            (Err(S3Error::new(S3Code::SlowDown)), "<Error><Code>SlowDown"),
        ] {
            let (release, released) = tokio::sync::oneshot::channel();
            let work: Work = Box::pin(async move {
                let _ = released.await;
                outcome
            });
            let response = answer(work, told(), Duration::from_millis(1), RequestId::next()).await.expect("200");
            let mut body = response.into_body();
            let mut next = async || body.frame().await.expect("frame").expect("no error").into_data().expect("data");
            assert_eq!(next().await, DECLARATION);
            assert_eq!(next().await, " ");
            release.send(()).expect("still waiting");
            let rest = body.collect().await.expect("body").to_bytes();
            let rest = std::str::from_utf8(&rest).expect("text").trim_start();
            assert!(rest.starts_with(expected) && !rest.contains("<?xml"), "{rest}");
        }
    }
}
