//! Headers of objects: what a write may say of its object, and what a read says of it.

use super::encoded_words;
use crate::checksum;
use crate::error::{S3Code, S3Error};
use crate::http_date;
use crate::limits::{TAGS_MAX, USER_METADATA_LEN_BYTES_MAX};
use crate::payload::strip_aws_chunked;
use http::header::{ACCEPT_RANGES, CONTENT_TYPE, ETAG, LAST_MODIFIED};
use http::{HeaderMap, HeaderName, HeaderValue};
use valv_metadata_api::{
    Attributes, Body, Bucket, Checksum, ChecksumType, LockRequest, ObjectVersion, Retention, RetentionMode,
    ShownVersion,
};
use valv_types::TimestampMicros;

/// Headers kept with an object and given back as they came.
const KEPT: [&str; 6] =
    ["cache-control", "content-disposition", "content-encoding", "content-language", "content-type", "expires"];
/// The content type of an object whose writer named none.
const CONTENT_TYPE_DEFAULT: &str = "binary/octet-stream";
/// Kept and given back, too; it does nothing without a website.
const REDIRECT: &str = "x-amz-website-redirect-location";
/// Longest redirect location (AWS: 2 KiB).
const REDIRECT_LEN_BYTES_MAX: usize = 2 * 1024;
/// The prefix of user metadata.
const META: &str = "x-amz-meta-";
/// Longest tag key and value in characters (AWS: "Categorizing your storage using tags").
const TAG_KEY_CHARS_MAX: usize = 128;
const TAG_VALUE_CHARS_MAX: usize = 256;

/// A header's value; what no header may hold (which is checked where it comes in) becomes empty.
pub(crate) fn header_value(text: &str) -> HeaderValue {
    HeaderValue::from_bytes(text.as_bytes()).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// A header's text, if it is there and UTF-8.
pub(crate) fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| std::str::from_utf8(value.as_bytes()).ok())
}

/// First of the private-use characters that stand for bytes which are not UTF-8.
const RAW_BYTE_BASE: u32 = 0xf700;

/// A header's bytes as text from which exactly these bytes can be made again. UTF-8 stays as it is; anything else has its
/// bytes above 0x7f moved to private-use characters (as Python's surrogateescape does).
fn text_of_bytes(bytes: &[u8]) -> String {
    let is_raw = |c: char| (RAW_BYTE_BASE + 0x80..RAW_BYTE_BASE + 0x100).contains(&(c as u32));
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(is_raw) => text.to_owned(),
        _ => {
            let moved = |byte: u8| match byte {
                0..0x80 => byte as char,
                _ => char::from_u32(RAW_BYTE_BASE + u32::from(byte)).unwrap_or(char::REPLACEMENT_CHARACTER),
            };
            bytes.iter().map(|&byte| moved(byte)).collect()
        }
    }
}

/// The bytes that [`text_of_bytes`] was given.
fn bytes_of_text(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for c in text.chars() {
        match (c as u32).checked_sub(RAW_BYTE_BASE).and_then(|byte| u8::try_from(byte).ok()) {
            Some(byte) if byte >= 0x80 => bytes.push(byte),
            _ => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

/// Reads what a write says of its object, all but ETag, checksums, encryption and lock.
///
/// # Errors
/// MetadataTooLarge, InvalidTag, InvalidStorageClass.
pub(crate) fn attributes(headers: &HeaderMap) -> Result<Attributes, S3Error> {
    check_storage_class(headers)?;
    let tags = match headers.get("x-amz-tagging") {
        None => Vec::new(),
        Some(value) => parse_tagging_header(value.as_bytes())?,
    };
    Ok(Attributes { tags, ..described(headers)? })
}

/// The kept headers and the user metadata alone, as a copy with `REPLACE` takes them.
pub(crate) fn described(headers: &HeaderMap) -> Result<Attributes, S3Error> {
    let mut kept = Vec::new();
    for name in KEPT {
        let Some(value) = headers.get(name) else { continue };
        let value = text_of_bytes(value.as_bytes());
        match name {
            "content-encoding" => {
                if let Some(value) = strip_aws_chunked(&value) {
                    kept.push((name.to_owned(), value));
                }
            }
            _ if value.is_empty() => {}
            _ => kept.push((name.to_owned(), value)),
        }
    }
    if let Some(location) = text(headers, REDIRECT) {
        let is_location = ["/", "http://", "https://"].iter().any(|start| location.starts_with(start));
        if !is_location || location.len() > REDIRECT_LEN_BYTES_MAX {
            return Err(S3Error::invalid_argument(
                "The website redirect location must have a prefix of 'http://' or 'https://' or '/'.",
                REDIRECT,
                location,
            ));
        }
        kept.push((REDIRECT.to_owned(), location.to_owned()));
    }
    Ok(Attributes { headers: kept, user_metadata: user_metadata(headers)?, ..Attributes::default() })
}

fn user_metadata(headers: &HeaderMap) -> Result<Vec<(String, String)>, S3Error> {
    let mut metadata: Vec<(String, Vec<u8>)> = Vec::new();
    let mut len_bytes = 0;
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix(META).filter(|name| !name.is_empty()) else { continue };
        len_bytes += value.len();
        // A name given more than once: one value, as HTTP joins a list.
        match metadata.iter_mut().find(|(seen, _)| seen == name) {
            Some((_, joined)) => {
                joined.push(b',');
                joined.extend_from_slice(value.as_bytes());
                len_bytes += 1;
            }
            None => {
                metadata.push((name.to_owned(), value.as_bytes().to_vec()));
                len_bytes += name.len();
            }
        }
        if len_bytes > USER_METADATA_LEN_BYTES_MAX {
            return Err(S3Error::new(S3Code::MetadataTooLarge)
                .with_extra("Size", len_bytes.to_string())
                .with_extra("MaxSizeAllowed", USER_METADATA_LEN_BYTES_MAX.to_string()));
        }
    }
    Ok(metadata.into_iter().map(|(name, value)| (name, text_of_bytes(&value))).collect())
}

fn check_storage_class(headers: &HeaderMap) -> Result<(), S3Error> {
    match text(headers, "x-amz-storage-class") {
        // Nothing but STANDARD: saying GLACIER and storing STANDARD would be a lie.
        None | Some("STANDARD") => Ok(()),
        Some(class) => Err(S3Error::new(S3Code::InvalidStorageClass).with_extra("StorageClassRequested", class)),
    }
}

/// Reads `x-amz-tagging`: `key=value&key=value`, URL-encoded.
///
/// # Errors
/// InvalidArgument, InvalidTag.
pub(crate) fn parse_tagging_header(value: &[u8]) -> Result<Vec<(String, String)>, S3Error> {
    let invalid = || {
        S3Error::invalid_argument(
            "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name \
             duplicates.",
            "x-amz-tagging",
            String::from_utf8_lossy(value),
        )
    };
    let query = std::str::from_utf8(value).map_err(|_| invalid())?;
    let query = crate::host::Query::parse(query).map_err(|_| invalid())?;
    let mut tags: Vec<(String, String)> = Vec::new();
    for (key, value) in query.iter() {
        let value = std::str::from_utf8(value).map_err(|_| invalid())?;
        if tags.iter().any(|(seen, _)| seen == key) {
            return Err(invalid());
        }
        tags.push((key.to_owned(), value.to_owned()));
    }
    check_tags(&tags, TAGS_MAX)?;
    Ok(tags)
}

/// Checks tags against AWS's rules.
///
/// # Errors
/// BadRequest for too many, InvalidTag otherwise.
pub(crate) fn check_tags(tags: &[(String, String)], tags_max: usize) -> Result<(), S3Error> {
    if tags.len() > tags_max {
        let what = if tags_max == TAGS_MAX { "Object" } else { "Bucket" };
        return Err(
            S3Error::new(S3Code::BadRequest).with_message(format!("{what} tags cannot be greater than {tags_max}"))
        );
    }
    let is_allowed = |c: char| c.is_alphanumeric() || c.is_whitespace() || "+-=._:/@".contains(c);
    for (index, (key, value)) in tags.iter().enumerate() {
        let invalid = |message: &'static str| {
            Err(S3Error::new(S3Code::InvalidTag).with_message(message).with_extra("TagKey", key.as_str()))
        };
        if key.is_empty() || key.chars().count() > TAG_KEY_CHARS_MAX || !key.chars().all(is_allowed) {
            return invalid("The TagKey you have provided is invalid");
        }
        if value.chars().count() > TAG_VALUE_CHARS_MAX || !value.chars().all(is_allowed) {
            return Err(S3Error::new(S3Code::InvalidTag)
                .with_message("The TagValue you have provided is invalid")
                .with_extra("TagKey", key.as_str())
                .with_extra("TagValue", value.as_str()));
        }
        if key.starts_with("aws:") {
            return invalid("System tags cannot be added/updated by requester");
        }
        if tags[..index].iter().any(|(seen, _)| seen == key) {
            return invalid("Cannot provide multiple Tags with the same key");
        }
    }
    Ok(())
}

/// Reads retention and legal hold from a write's headers.
///
/// # Errors
/// InvalidRequest in a bucket without Object Lock; InvalidArgument for halves, unknown modes and dates that have passed.
pub(crate) fn lock_request(headers: &HeaderMap, bucket: &Bucket, now: TimestampMicros) -> Result<LockRequest, S3Error> {
    let mode = text(headers, "x-amz-object-lock-mode");
    let until = text(headers, "x-amz-object-lock-retain-until-date");
    let hold = text(headers, "x-amz-object-lock-legal-hold");
    if (mode.is_some() || until.is_some() || hold.is_some()) && bucket.object_lock.is_none() {
        return Err(missing_lock_configuration());
    }
    let retention = match (mode, until) {
        (None, None) => None,
        (Some(mode), Some(until)) => {
            let mode = parse_retention_mode(mode).ok_or_else(|| {
                S3Error::invalid_argument("Unknown wormMode directive.", "x-amz-object-lock-mode", mode)
            })?;
            let date = http_date::parse_iso8601(until).or_else(|| http_date::parse_http(until)).ok_or_else(|| {
                S3Error::invalid_argument(
                    "The retain until date must be provided in ISO 8601 format",
                    "x-amz-object-lock-retain-until-date",
                    until,
                )
            })?;
            check_future(date, now)?;
            Some(Retention { mode, until: date })
        }
        _ => {
            return Err(S3Error::invalid_argument(
                "x-amz-object-lock-retain-until-date and x-amz-object-lock-mode must both be supplied",
                if mode.is_some() { "x-amz-object-lock-retain-until-date" } else { "x-amz-object-lock-mode" },
                "",
            ));
        }
    };
    let legal_hold = match hold {
        None | Some("OFF") => false,
        Some("ON") => true,
        Some(status) => {
            return Err(S3Error::invalid_argument(
                "Legal Hold must be either of 'ON' or 'OFF'",
                "x-amz-object-lock-legal-hold",
                status,
            ));
        }
    };
    Ok(LockRequest { retention, legal_hold })
}

/// What S3 answers when a lock is asked of a bucket made without Object Lock.
pub(crate) fn missing_lock_configuration() -> S3Error {
    S3Error::invalid_request("Bucket is missing Object Lock Configuration")
}

/// Refuses a date that is not in the future.
pub(crate) fn check_future(until: TimestampMicros, now: TimestampMicros) -> Result<(), S3Error> {
    if until > now {
        return Ok(());
    }
    Err(S3Error::invalid_argument(
        "The retain until date must be in the future!",
        "x-amz-object-lock-retain-until-date",
        http_date::format_iso8601(until),
    ))
}

/// `GOVERNANCE` or `COMPLIANCE`.
pub(crate) fn parse_retention_mode(text: &str) -> Option<RetentionMode> {
    match text {
        "GOVERNANCE" => Some(RetentionMode::Governance),
        "COMPLIANCE" => Some(RetentionMode::Compliance),
        _ => None,
    }
}

/// The mode as S3 writes it.
pub(crate) const fn retention_mode_name(mode: RetentionMode) -> &'static str {
    match mode {
        RetentionMode::Governance => "GOVERNANCE",
        RetentionMode::Compliance => "COMPLIANCE",
    }
}

/// Adds `x-amz-version-id`, if the client is to be told.
pub(crate) fn add_version(headers: &mut HeaderMap, shown: ShownVersion) {
    if let Some(text) = shown_text(shown) {
        headers.insert("x-amz-version-id", header_value(&text));
    }
}

/// What a client is told of a version.
pub(crate) fn shown_text(shown: ShownVersion) -> Option<String> {
    match shown {
        ShownVersion::Hidden => None,
        ShownVersion::Null => Some("null".to_owned()),
        ShownVersion::Id(id) => Some(id.to_string()),
    }
}

/// Adds checksums and their type. `parts` is the number of parts that a composite one names.
pub(crate) fn add_checksums(headers: &mut HeaderMap, checksums: &[Checksum], parts: Option<u32>) {
    for one in checksums {
        headers.insert(checksum::header_name(one.algorithm), header_value(&checksum_text(one, parts)));
        headers.insert("x-amz-checksum-type", HeaderValue::from_static(checksum::type_name(one.kind)));
    }
}

/// A checksum as S3 shows it: base64, and for one of parts their number.
pub(crate) fn checksum_text(one: &Checksum, parts: Option<u32>) -> String {
    let digest = checksum::encode(&one.value);
    match (one.kind, parts) {
        (ChecksumType::Composite, Some(parts)) => format!("{digest}-{parts}"),
        _ => digest,
    }
}

/// Adds a quoted ETag.
pub(crate) fn add_etag(headers: &mut HeaderMap, etag: &str) {
    headers.insert(ETAG, header_value(&format!("\"{etag}\"")));
}

/// How many parts an object was uploaded in; `None` for one that came by a single PUT.
pub(crate) const fn part_count(version: &ObjectVersion) -> Option<u32> {
    match &version.body {
        Body::Parts(index) => Some(index.count),
        Body::Empty | Body::Blob(_) => None,
    }
}

/// Adds what GET and HEAD say of an object, all but length, range, encryption and checksums.
pub(crate) fn add_object(headers: &mut HeaderMap, version: &ObjectVersion, shown: ShownVersion) {
    let attributes = &version.attributes;
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(LAST_MODIFIED, header_value(&http_date::format_http(version.order)));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE_DEFAULT));
    add_etag(headers, &attributes.etag);
    add_version(headers, shown);
    for (name, value) in &attributes.headers {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(&bytes_of_text(value)))
        {
            headers.insert(name, value);
        }
    }
    for (name, value) in &attributes.user_metadata {
        let bytes = bytes_of_text(value);
        let bytes = encoded_words::encode(&bytes).map_or(bytes, String::into_bytes);
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(format!("{META}{name}").as_bytes()), HeaderValue::from_bytes(&bytes))
        {
            headers.insert(name, value);
        }
    }
    if !attributes.tags.is_empty() {
        headers.insert("x-amz-tagging-count", HeaderValue::from(attributes.tags.len()));
    }
    if let Some(retention) = &version.retention {
        headers.insert("x-amz-object-lock-mode", HeaderValue::from_static(retention_mode_name(retention.mode)));
        let until = http_date::format_iso8601(retention.until);
        headers.insert("x-amz-object-lock-retain-until-date", header_value(&until));
    }
    // Not returned "if the specified version of this object has never had a legal hold applied" (HeadObject).
    if version.legal_hold_said {
        let status = if version.legal_hold { "ON" } else { "OFF" };
        headers.insert("x-amz-object-lock-legal-hold", HeaderValue::from_static(status));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(pairs: &[(&str, &[u8])]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).expect("name"),
                HeaderValue::from_bytes(value).expect("value"),
            );
        }
        headers
    }

    fn code(pairs: &[(&str, &[u8])]) -> Option<S3Code> {
        attributes(&headers(pairs)).err().map(|error| error.code())
    }

    #[test]
    fn an_object_keeps_what_its_writer_said_and_nothing_of_the_transfer() {
        let attributes = attributes(&headers(&[
            ("content-type", b"application/dicom"),
            ("content-encoding", b"aws-chunked,gzip"),
            ("content-length", b"7"),
            ("cache-control", b"no-cache"),
            ("x-amz-meta-a", b"1"),
            ("x-amz-meta-a", b"2"),
            ("x-amz-meta-b", "å".as_bytes()),
            ("x-amz-meta-c", b"\xe5"),
            ("x-amz-tagging", b"k=v&x%20y=a+b"),
            ("x-amz-storage-class", b"STANDARD"),
            ("x-amz-acl", b"private"),
        ]))
        .expect("attributes");
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            attributes.headers,
            [
                pair("cache-control", "no-cache"),
                pair("content-encoding", "gzip"),
                pair("content-type", "application/dicom")
            ]
        );
        assert_eq!(attributes.user_metadata, [pair("a", "1,2"), pair("b", "å"), pair("c", "\u{f7e5}")]);
        assert_eq!(attributes.tags, [pair("k", "v"), pair("x y", "a b")]);
    }

    #[test]
    fn what_valv_does_not_do_is_refused_and_not_silently_dropped() {
        let large = vec![b'x'; 2048];
        let full = vec![b'x'; 2047];
        for (pairs, expected) in [
            (vec![("x-amz-storage-class", &b"GLACIER"[..])], Some(S3Code::InvalidStorageClass)),
            (vec![("x-amz-meta-a", &large)], Some(S3Code::MetadataTooLarge)),
            (vec![("x-amz-meta-a", &full)], None),
            (vec![("x-amz-website-redirect-location", b"nowhere")], Some(S3Code::InvalidArgument)),
            (vec![("x-amz-tagging", b"a=1&a=2")], Some(S3Code::InvalidArgument)),
            (vec![("x-amz-tagging", b"aws:a=1")], Some(S3Code::InvalidTag)),
            (vec![("x-amz-tagging", b"=1")], Some(S3Code::InvalidTag)),
            (vec![("x-amz-tagging", b"a=1&b&c&d&e&f&g&h&i&j&k")], Some(S3Code::BadRequest)),
        ] {
            assert_eq!(code(&pairs), expected, "{pairs:?}");
        }
    }

    #[test]
    fn locks_are_read_in_full_or_refused() {
        use valv_metadata_api::{ObjectLock, Versioning};
        let mut bucket = Bucket {
            id: valv_types::BucketId::random(),
            name: "b".to_owned(),
            project: valv_types::ProjectId::random(),
            namespace: valv_types::NamespaceId::random(),
            owner: valv_types::UserId::random(),
            created: TimestampMicros(0),
            layout: valv_types::Layout::current(valv_types::PoolId(1), 4, 2).expect("layout"),
            versioning: Versioning::Enabled,
            object_lock: Some(ObjectLock { default: None }),
            documents: Vec::new(),
            document_changes: 0,
            own_name: None,
        };
        let (mode, until, hold) =
            ("x-amz-object-lock-mode", "x-amz-object-lock-retain-until-date", "x-amz-object-lock-legal-hold");
        let now = TimestampMicros::from_secs(1_700_000_000);
        for (pairs, is_ok) in [
            (vec![], true),
            (vec![(mode, &b"COMPLIANCE"[..]), (until, b"2040-01-01T00:00:00Z")], true),
            (vec![(mode, b"GOVERNANCE"), (until, b"2040-01-01T00:00:00.000Z"), (hold, b"ON")], true),
            (vec![(hold, b"OFF")], true),
            (vec![(hold, b"on")], false),
            (vec![(mode, b"COMPLIANCE")], false),
            (vec![(until, b"2040-01-01T00:00:00Z")], false),
            (vec![(mode, b"compliance"), (until, b"2040-01-01T00:00:00Z")], false),
            (vec![(mode, b"COMPLIANCE"), (until, b"2020-01-01T00:00:00Z")], false),
            (vec![(mode, b"COMPLIANCE"), (until, b"soon")], false),
        ] {
            assert_eq!(lock_request(&headers(&pairs), &bucket, now).is_ok(), is_ok, "{pairs:?}");
        }
        bucket.object_lock = None;
        assert!(lock_request(&headers(&[]), &bucket, now).is_ok());
        assert!(lock_request(&headers(&[(hold, b"OFF")]), &bucket, now).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn any_bytes_of_a_header_come_back(bytes in prop::collection::vec(any::<u8>(), 0..32), text in "[a\u{f780}\u{f7ff}é]{0,6}") {
            prop_assert_eq!(bytes_of_text(&text_of_bytes(&bytes)), bytes);
            prop_assert_eq!(bytes_of_text(&text_of_bytes(text.as_bytes())), text.as_bytes());
        }
    }
}
