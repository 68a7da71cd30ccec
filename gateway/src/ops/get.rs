//! GetObject and HeadObject.

use super::context::Context;
use super::encryption;
use super::headers::{add_checksums, add_etag, add_object, add_version, header_value, part_count, text};
use super::source::{self, Owner, part_page};
use super::{Answer, recording, status};
use crate::access::{AccessWatch, Action};
use crate::accesses::Ticket;
use crate::body::{ByteStream, ResponseBody};
use crate::conditions::{EtagList, ReadConditions, Verdict};
use crate::encryption::AnswerTo;
use crate::error::{S3Code, S3Error};
use crate::http_date;
use crate::lifecycle::Expiring;
use crate::limits::PART_NUMBER_MAX;
use crate::range::ByteRange;
use crate::router::Operation;
use crate::state::Shared;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, ETAG, EXPIRES, LAST_MODIFIED,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use std::ops::Range;
use std::sync::Arc;
use valv_ledger::AccessEnd;
use valv_metadata_api::{Bucket, Checksum, FoundObject, PARTS_PER_PAGE, PartRecord, VersionSelector};

/// What of the object is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// GET.
    Body,
    /// HEAD.
    HeadersOnly,
}

/// Headers of the answer that a signed query may replace.
const OVERRIDES: [(&str, HeaderName); 6] = [
    ("response-cache-control", CACHE_CONTROL),
    ("response-content-disposition", CONTENT_DISPOSITION),
    ("response-content-encoding", CONTENT_ENCODING),
    ("response-content-language", CONTENT_LANGUAGE),
    ("response-content-type", CONTENT_TYPE),
    ("response-expires", EXPIRES),
];

/// GET and HEAD of an object.
pub(crate) async fn get(cx: &Context, want: Want) -> Answer {
    let customer = encryption::read_key(cx)?;
    let (bucket, found) = readable(cx, Action::GetObject, want == Want::Body).await?;
    let version = &found.version;
    let sealing = encryption::open(&bucket, &version.attributes, customer)?;

    let mut headers = HeaderMap::new();
    add_object(&mut headers, version, found.shown);
    hide(cx, &bucket, &found, &mut headers).await?;
    encryption::add_headers(cx, &sealing, &mut headers, AnswerTo::Read);
    match ReadConditions::from_headers(&cx.headers).judge(&version.attributes.etag, version.order) {
        Verdict::Proceed => {}
        Verdict::NotModified => {
            let mut response = status(StatusCode::NOT_MODIFIED);
            // What RFC 9110, section 15.4.5, has a 304 repeat.
            for name in [ETAG, LAST_MODIFIED, CACHE_CONTROL, EXPIRES] {
                if let Some(value) = headers.get(&name) {
                    response.headers_mut().insert(name, value.clone());
                }
            }
            add_version(response.headers_mut(), found.shown);
            return Ok(response);
        }
        Verdict::Failed(condition) => {
            return Err(S3Error::new(S3Code::PreconditionFailed).with_extra("Condition", condition));
        }
    }

    // As AWS, which says nothing of a version that is asked for by its id, be it the current one.
    if cx.version()? == VersionSelector::Current {
        let expiring = Expiring::of(cx, &bucket, cx.key()?, version.len_bytes, &version.attributes.tags).await;
        expiring.add(&mut headers, version.order);
    }
    let asked = Asked::read(cx, &bucket, &found).await?;
    let len_bytes = version.len_bytes;
    let (code, range) = match &asked {
        Asked::Whole => (StatusCode::OK, 0..len_bytes),
        // An empty object or part has no range to name.
        Asked::Part { range, .. } if range.is_empty() => (StatusCode::OK, range.clone()),
        Asked::Range(range) | Asked::Part { range, .. } => (StatusCode::PARTIAL_CONTENT, range.clone()),
    };
    if code == StatusCode::PARTIAL_CONTENT {
        let (first, last) = (range.start, range.end - 1);
        headers.insert(CONTENT_RANGE, header_value(&format!("bytes {first}-{last}/{len_bytes}")));
    }
    if let (Asked::Part { .. }, Some(count)) = (&asked, part_count(version)) {
        headers.insert("x-amz-mp-parts-count", HeaderValue::from(count));
    }
    if text(&cx.headers, "x-amz-checksum-mode").is_some_and(|mode| mode.eq_ignore_ascii_case("ENABLED")) {
        add_checksums(&mut headers, asked.checksums(&found), part_count(version));
    }
    override_headers(cx, &mut headers)?;
    headers.insert(CONTENT_LENGTH, HeaderValue::from(range.end - range.start));

    let body = match want {
        Want::HeadersOnly => ResponseBody::empty(),
        // No byte leaves: what is recorded with the answer says it all.
        Want::Body if range.is_empty() => ResponseBody::empty(),
        Want::Body => {
            let owner = Owner { project: bucket.project, bucket: bucket.id };
            let len_bytes = range.end - range.start;
            let account = cx.account(&bucket).await?;
            if let (Some(account), false) = (&account, len_bytes == 0) {
                account.check(len_bytes).await?;
            }
            // Recorded while the shards are fetched; the first byte waits for both.
            let mut ticket = recording::begin(cx, &bucket, version.id, range.clone(), code)?;
            let opened = source::open(&cx.shared, owner, &found, range, sealing.key());
            let (opened, recorded) = tokio::join!(opened, ticket.recorded());
            let stream = opened.inspect_err(|_| ticket.ends(AccessEnd::Failed))?;
            recorded.inspect_err(|_| ticket.ends(AccessEnd::Failed))?;
            let stream = source::charged(account, stream);
            ResponseBody::stream(len_bytes, watch(Arc::clone(&cx.shared), cx.operation, cx.watch(), ticket, stream))
        }
    };
    let mut response = http::Response::new(body);
    *response.status_mut() = code;
    *response.headers_mut() = headers;
    Ok(response)
}

/// Headers that are for those only who have a right besides reading (AWS, GetObject, "Response Elements").
const TOLD_BY_RIGHT: [(&[&str], Action); 3] = [
    (&["x-amz-tagging-count"], Action::GetObjectTagging),
    (&["x-amz-object-lock-mode", "x-amz-object-lock-retain-until-date"], Action::GetObjectRetention),
    (&["x-amz-object-lock-legal-hold"], Action::GetObjectLegalHold),
];

async fn hide(cx: &Context, bucket: &Bucket, found: &FoundObject, headers: &mut HeaderMap) -> Result<(), S3Error> {
    for (names, action) in TOLD_BY_RIGHT {
        let is_there = names.iter().any(|name| headers.contains_key(*name));
        if is_there && !cx.may_also(action, bucket, cx.key()?, cx.version()?, found).await? {
            for name in names {
                headers.remove(*name);
            }
        }
    }
    Ok(())
}

/// Ends a download when the right to it ends, and counts its bytes.
fn watch(
    shared: Arc<Shared>,
    operation: Operation,
    watch: AccessWatch,
    ticket: Ticket,
    stream: ByteStream,
) -> ByteStream {
    let state = (shared, watch, ticket, stream);
    Box::pin(stream::try_unfold(state, move |(shared, mut watch, mut ticket, mut stream)| async move {
        let Some(piece) = stream.next().await else { return Ok(None) };
        let piece: Bytes = piece.inspect_err(|error| {
            // The status line is long gone: the connection is cut, and this is where the cause is told.
            let source = error.source_error().map(|source| source as &dyn std::error::Error);
            tracing::error!(code = %error.code(), error = source, "a download broke off");
            ticket.ends(AccessEnd::Failed);
        })?;
        watch.check().await.inspect_err(|_| ticket.ends(AccessEnd::RightEnded))?;
        ticket.sent(piece.len() as u64);
        shared.metrics.sent(operation.name(), piece.len() as u64);
        Ok(Some((piece, (shared, watch, ticket, stream))))
    }))
}

/// Reads the record of the request's object for somebody who may do `action` to it, and who wants the object, not a delete
/// marker.
///
/// # Errors
/// NoSuchBucket, AccessDenied, NoSuchVersion; NoSuchKey if the current version is a delete marker; MethodNotAllowed if the
/// version asked for is one.
pub(crate) async fn readable(
    cx: &Context,
    action: Action,
    with_inline: bool,
) -> Result<(Bucket, FoundObject), S3Error> {
    let selector = cx.version()?;
    let (bucket, found) = cx.object(action, selector, with_inline).await?;
    if !found.version.is_delete_marker {
        return Ok((bucket, found));
    }
    let key = String::from_utf8_lossy(cx.key()?.as_bytes()).into_owned();
    let mut headers = HeaderMap::new();
    add_version(&mut headers, found.shown);
    let mut error = match selector {
        VersionSelector::Current => S3Error::new(S3Code::NoSuchKey).with_extra("Key", key),
        VersionSelector::Null | VersionSelector::Id(_) => {
            let modified = http_date::format_http(found.version.order);
            S3Error::new(S3Code::MethodNotAllowed)
                .with_extra("Method", "GET")
                .with_extra("ResourceType", "DeleteMarker")
                .with_header(ALLOW, HeaderValue::from_static("DELETE"))
                .with_header(LAST_MODIFIED, header_value(&modified))
        }
    };
    const DELETE_MARKER: HeaderName = HeaderName::from_static("x-amz-delete-marker");
    error = error.with_header(DELETE_MARKER, HeaderValue::from_static("true"));
    for (name, value) in headers.into_iter().filter_map(|(name, value)| Some((name?, value))) {
        error = error.with_header(name, value);
    }
    Err(error)
}

/// Which bytes a request asks for.
enum Asked {
    Whole,
    Range(Range<u64>),
    Part { range: Range<u64>, checksums: Option<Vec<Checksum>> },
}

impl Asked {
    async fn read(cx: &Context, bucket: &Bucket, found: &FoundObject) -> Result<Self, S3Error> {
        let range = text(&cx.headers, "range").and_then(ByteRange::parse);
        if let Some(number) = part_number(cx)? {
            if range.is_some() {
                return Err(S3Error::invalid_request(
                    "Cannot specify both Range header and partNumber query parameter",
                ));
            }
            return Self::part(cx, bucket, found, number).await;
        }
        let Some(range) = range else { return Ok(Self::Whole) };
        // If-Range (RFC 9110, section 13.1.5): another object now, so the whole of it.
        let is_same = match text(&cx.headers, "if-range") {
            None => true,
            Some(date) if date.contains("GMT") => {
                http_date::parse_http(date).is_some_and(|date| date.as_secs() == found.version.order.as_secs())
            }
            Some(etag) => EtagList::parse(etag).matches(&found.version.attributes.etag),
        };
        if is_same { range.resolve(found.version.len_bytes).map(Self::Range) } else { Ok(Self::Whole) }
    }

    async fn part(cx: &Context, bucket: &Bucket, found: &FoundObject, number: u16) -> Result<Self, S3Error> {
        let no_such_part = || {
            S3Error::new(S3Code::InvalidPartNumber)
                .with_extra("PartNumberRequested", number.to_string())
                .with_extra("ActualPartCount", part_count(&found.version).unwrap_or(1).to_string())
        };
        let Some(_) = part_count(&found.version) else {
            return match number {
                1 => Ok(Self::Part { range: 0..found.version.len_bytes, checksums: None }),
                _ => Err(no_such_part()),
            };
        };
        let part = find_part(cx, bucket, found, number).await?.ok_or_else(no_such_part)?;
        let range = part.offset..part.offset + part.blob.len_bytes;
        Ok(Self::Part { range, checksums: Some(part.checksums) })
    }

    /// The checksums of what is sent: the object's, the part's, and none for a range.
    fn checksums<'a>(&'a self, found: &'a FoundObject) -> &'a [Checksum] {
        match self {
            Self::Whole | Self::Part { checksums: None, .. } => &found.version.attributes.checksums,
            Self::Part { checksums: Some(checksums), .. } => checksums,
            Self::Range(_) => &[],
        }
    }
}

/// Finds a part of a finished object by the number its client gave, which need not be its place among the parts.
async fn find_part(
    cx: &Context,
    bucket: &Bucket,
    found: &FoundObject,
    number: u16,
) -> Result<Option<PartRecord>, S3Error> {
    let valv_metadata_api::Body::Parts(index) = &found.version.body else { return Ok(None) };
    // Numbers ascend, and the nth part has at least number n: so it is never on a later page than its number says.
    let last = (usize::from(number.max(1)) - 1) / PARTS_PER_PAGE;
    for page in (0..=last.min(index.page_offsets.len().saturating_sub(1))).rev() {
        let page = part_page(&cx.shared, bucket.id, index, page).await?;
        if let Some(part) = page.parts.iter().find(|part| part.number == number) {
            return Ok(Some(part.clone()));
        }
        if page.parts.first().is_some_and(|first| first.number < number) {
            return Ok(None);
        }
    }
    Ok(None)
}

/// The `partNumber` of the query.
///
/// # Errors
/// InvalidArgument unless it is 1 to 10,000.
pub(crate) fn part_number(cx: &Context) -> Result<Option<u16>, S3Error> {
    let Some(text) = cx.query.get("partNumber")? else { return Ok(None) };
    match text.parse() {
        Ok(number) if (1..=PART_NUMBER_MAX).contains(&number) => Ok(Some(number)),
        _ => Err(S3Error::invalid_argument(
            format!("Part number must be an integer between 1 and {PART_NUMBER_MAX}, inclusive"),
            "partNumber",
            text,
        )),
    }
}

/// Applies `response-*`, which S3 takes from signed requests only: others would make us say what a stranger likes.
fn override_headers(cx: &Context, headers: &mut HeaderMap) -> Result<(), S3Error> {
    for (parameter, name) in OVERRIDES {
        let Some(value) = cx.query.get_bytes(parameter) else { continue };
        if cx.identity().is_none() {
            return Err(S3Error::invalid_request(
                "Request specific response headers cannot be used for anonymous GET requests.",
            ));
        }
        // A line break would be a header of the client's making; `from_bytes` refuses it.
        let value = HeaderValue::from_bytes(value).map_err(|_| {
            S3Error::invalid_argument("The header's value is not valid", parameter, String::from_utf8_lossy(value))
        })?;
        headers.insert(name, value);
    }
    Ok(())
}

/// What a write's answer says of the version it made, all but its encryption.
pub(crate) fn written_headers(headers: &mut HeaderMap, written: &valv_metadata_api::Written) {
    add_etag(headers, &written.etag);
    add_version(headers, written.shown);
    add_checksums(headers, &written.checksums, None);
}
