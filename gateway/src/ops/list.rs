//! Listings: ListObjects in both versions, ListObjectVersions and ListMultipartUploads.

use super::acl::owner_of_version;
use super::context::{Context, parse_version};
use super::headers::shown_text;
use super::token::{TokenKind, decode, encode};
use super::{Answer, xml};
use crate::access::Action;
use crate::checksum;
use crate::error::S3Error;
use crate::http_date;
use crate::limits::PAGE_LEN_MAX;
use crate::xml::{Encoding, Namespace, Writer};
use std::collections::HashMap;
use std::sync::Arc;
use valv_metadata_api::{
    Bucket, CommonPrefix, ListEntry, ListObjects, ListUploads, ListVersions, ObjectList, ShownVersion, UploadList,
    User, VersionList, VersionSelector,
};
use valv_types::{TimestampMicros, UserId};

/// Whole seconds, as AWS writes times in listings; Last-Modified has no more.
fn date(at: TimestampMicros) -> String {
    http_date::format_iso8601(TimestampMicros::from_secs(at.as_secs()))
}

/// What all listings ask for.
struct Paging<'c> {
    prefix: &'c [u8],
    delimiter: &'c [u8],
    /// As the client gave it, cut to a page; the answer names it.
    page_len: u32,
    encoding: Encoding,
}

impl<'c> Paging<'c> {
    fn read(cx: &'c Context, max_parameter: &'static str) -> Result<Self, S3Error> {
        Ok(Self {
            prefix: cx.query.get_bytes("prefix").unwrap_or_default(),
            delimiter: cx.query.get_bytes("delimiter").unwrap_or_default(),
            page_len: page_len(cx, max_parameter)?,
            encoding: encoding(cx)?,
        })
    }

    fn encoding_element(&self, xml: &mut Writer) {
        if self.encoding == Encoding::Url {
            xml.text("EncodingType", "url");
        }
    }

    fn delimiter_element(&self, xml: &mut Writer) {
        if !self.delimiter.is_empty() {
            xml.key("Delimiter", self.delimiter, self.encoding);
        }
    }

    fn common_prefixes(&self, xml: &mut Writer, prefixes: &[CommonPrefix]) {
        for prefix in prefixes {
            xml.element("CommonPrefixes", |xml| xml.key("Prefix", &prefix.0, self.encoding));
        }
    }
}

/// Reads `max-keys` and its siblings: more than a page is a page.
///
/// # Errors
/// InvalidArgument for what is no number, or is negative.
pub(crate) fn page_len(cx: &Context, parameter: &'static str) -> Result<u32, S3Error> {
    let Some(text) = cx.query.get(parameter)?.filter(|text| !text.is_empty()) else { return Ok(PAGE_LEN_MAX) };
    parse_page_len(text).ok_or_else(|| {
        S3Error::invalid_argument(
            format!("Argument {parameter} must be an integer between 0 and 2147483647"),
            parameter,
            text,
        )
    })
}

fn parse_page_len(text: &str) -> Option<u32> {
    let number: u32 = text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()))?;
    (i32::try_from(number).is_ok()).then(|| number.min(PAGE_LEN_MAX))
}

/// Reads `encoding-type`.
///
/// # Errors
/// InvalidArgument for anything but `url`.
pub(crate) fn encoding(cx: &Context) -> Result<Encoding, S3Error> {
    match cx.query.get("encoding-type")? {
        None | Some("") => Ok(Encoding::Plain),
        Some(text) if text.eq_ignore_ascii_case("url") => Ok(Encoding::Url),
        Some(text) => {
            Err(S3Error::invalid_argument("Invalid Encoding Method specified in Request", "encoding-type", text))
        }
    }
}

/// Owners of a page's entries by what is recorded of them, each looked up once.
struct Owners(HashMap<Option<UserId>, Arc<User>>);

impl Owners {
    async fn of(cx: &Context, bucket: &Bucket, recorded: Vec<Option<UserId>>) -> Result<Self, S3Error> {
        let mut owners = HashMap::new();
        for id in recorded {
            if !owners.contains_key(&id)
                && let Some(user) = owner_of_version(cx, bucket, id).await?
            {
                owners.insert(id, user);
            }
        }
        Ok(Self(owners))
    }

    /// The users themselves, whoever may own what they began.
    async fn themselves(cx: &Context, users: Vec<Option<UserId>>) -> Result<Self, S3Error> {
        let mut found = HashMap::new();
        for id in users.into_iter().flatten() {
            if !found.contains_key(&Some(id))
                && let Some(user) = cx.shared.principals.user(id).await?
            {
                found.insert(Some(id), user);
            }
        }
        Ok(Self(found))
    }

    fn none() -> Self {
        Self(HashMap::new())
    }

    fn write(&self, xml: &mut Writer, element: &str, id: Option<UserId>) {
        if let Some(user) = self.0.get(&id) {
            xml.element(element, |xml| {
                xml.text("ID", &user.canonical_id);
                xml.text("DisplayName", &user.display_name);
            });
        }
    }
}

async fn objects(cx: &Context, paging: &Paging<'_>, after: &[u8]) -> Result<(Bucket, ObjectList), S3Error> {
    let bucket = cx.bucket(Action::ListBucket).await?;
    if paging.page_len == 0 {
        return Ok((bucket, ObjectList { entries: Vec::new(), common_prefixes: Vec::new(), next_after: None }));
    }
    let request = ListObjects {
        bucket: bucket.id,
        prefix: paging.prefix.to_vec(),
        delimiter: paging.delimiter.to_vec(),
        after: after.to_vec(),
        limit: paging.page_len,
    };
    let list = cx.shared.metadata.list_objects(request).await?;
    Ok((bucket, list))
}

/// One `<Contents>`.
fn contents(xml: &mut Writer, entry: &ListEntry, encoding: Encoding, owners: &Owners) {
    xml.element("Contents", |xml| {
        xml.key("Key", entry.key.as_bytes(), encoding);
        xml.text("LastModified", &date(entry.modified));
        xml.etag(&entry.etag);
        checksum_elements(xml, entry);
        xml.value("Size", entry.len_bytes);
        xml.text("StorageClass", "STANDARD");
        owners.write(xml, "Owner", entry.owner);
    });
}

fn checksum_elements(xml: &mut Writer, entry: &ListEntry) {
    for (algorithm, kind) in &entry.checksums {
        xml.text("ChecksumAlgorithm", checksum::algorithm_name(*algorithm));
        xml.text("ChecksumType", checksum::type_name(*kind));
    }
}

/// GET of a bucket, first version.
pub(crate) async fn objects_v1(cx: &Context) -> Answer {
    let paging = Paging::read(cx, "max-keys")?;
    let marker = cx.query.get_bytes("marker").unwrap_or_default();
    let (bucket, list) = objects(cx, &paging, marker).await?;
    let owners = Owners::of(cx, &bucket, list.entries.iter().map(|entry| entry.owner).collect()).await?;
    let name = cx.bucket_name()?;
    Ok(xml(Writer::document("ListBucketResult", Namespace::S3, |xml| {
        xml.text("Name", name);
        xml.key("Prefix", paging.prefix, paging.encoding);
        xml.key("Marker", marker, paging.encoding);
        // Only with a delimiter, as AWS has it: without, the last key is where to go on. Clients that rely on it even so
        // do no harm.
        if let Some(next) = list.next_after.as_deref().filter(|_| !paging.delimiter.is_empty()) {
            xml.key("NextMarker", next, paging.encoding);
        }
        xml.value("MaxKeys", paging.page_len);
        paging.delimiter_element(xml);
        paging.encoding_element(xml);
        xml.value("IsTruncated", list.next_after.is_some());
        for entry in &list.entries {
            contents(xml, entry, paging.encoding, &owners);
        }
        paging.common_prefixes(xml, &list.common_prefixes);
    })))
}

/// GET `?list-type=2`.
pub(crate) async fn objects_v2(cx: &Context) -> Answer {
    let paging = Paging::read(cx, "max-keys")?;
    let start_after = cx.query.get_bytes("start-after");
    let token = cx.query.get("continuation-token")?;
    let fetch_owner = cx.query.get("fetch-owner")?.is_some_and(|text| text.eq_ignore_ascii_case("true"));
    let after = match token {
        Some(token) if !token.is_empty() => decode(TokenKind::Objects, token)?,
        // An empty token continues nothing: the listing starts from its beginning.
        _ => start_after.unwrap_or_default().to_vec(),
    };
    let (bucket, list) = objects(cx, &paging, &after).await?;
    let owners = match fetch_owner {
        true => Owners::of(cx, &bucket, list.entries.iter().map(|entry| entry.owner).collect()).await?,
        false => Owners::none(),
    };
    let name = cx.bucket_name()?;
    Ok(xml(Writer::document("ListBucketResult", Namespace::S3, |xml| {
        xml.text("Name", name);
        xml.key("Prefix", paging.prefix, paging.encoding);
        xml.optional("ContinuationToken", token);
        if let Some(next) = &list.next_after {
            xml.text("NextContinuationToken", &encode(TokenKind::Objects, next));
        }
        if let Some(start_after) = start_after.filter(|key| !key.is_empty()) {
            xml.key("StartAfter", start_after, paging.encoding);
        }
        xml.value("KeyCount", list.entries.len() + list.common_prefixes.len());
        xml.value("MaxKeys", paging.page_len);
        paging.delimiter_element(xml);
        paging.encoding_element(xml);
        xml.value("IsTruncated", list.next_after.is_some());
        for entry in &list.entries {
            contents(xml, entry, paging.encoding, &owners);
        }
        paging.common_prefixes(xml, &list.common_prefixes);
    })))
}

/// GET `?versions`.
pub(crate) async fn versions(cx: &Context) -> Answer {
    let paging = Paging::read(cx, "max-keys")?;
    let key_marker = cx.query.get_bytes("key-marker").unwrap_or_default();
    let version_marker = cx.query.get("version-id-marker")?;
    let after_version = match version_marker.filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => {
            if key_marker.is_empty() {
                return Err(S3Error::invalid_argument(
                    "A version-id marker cannot be specified without a key marker.",
                    "version-id-marker",
                    text,
                ));
            }
            Some(parse_version(text)?)
        }
    };
    let bucket = cx.bucket(Action::ListBucketVersions).await?;
    let list = if paging.page_len == 0 {
        VersionList { entries: Vec::new(), common_prefixes: Vec::new(), next_after: None, next_after_version: None }
    } else {
        let request = ListVersions {
            bucket: bucket.id,
            prefix: paging.prefix.to_vec(),
            delimiter: paging.delimiter.to_vec(),
            after: key_marker.to_vec(),
            after_version,
            limit: paging.page_len,
        };
        cx.shared.metadata.list_versions(request).await?
    };
    let owners = Owners::of(cx, &bucket, list.entries.iter().map(|entry| entry.owner).collect()).await?;
    Ok(xml(Writer::document("ListVersionsResult", Namespace::S3, |xml| {
        xml.text("Name", &bucket.name);
        xml.key("Prefix", paging.prefix, paging.encoding);
        xml.key("KeyMarker", key_marker, paging.encoding);
        xml.text("VersionIdMarker", version_marker.unwrap_or_default());
        if let Some(next) = &list.next_after {
            xml.key("NextKeyMarker", next, paging.encoding);
            if let Some(version) = list.next_after_version {
                xml.text("NextVersionIdMarker", &selector_text(version));
            }
        }
        xml.value("MaxKeys", paging.page_len);
        paging.delimiter_element(xml);
        paging.encoding_element(xml);
        xml.value("IsTruncated", list.next_after.is_some());
        for entry in &list.entries {
            version(xml, entry, paging.encoding, &owners);
        }
        paging.common_prefixes(xml, &list.common_prefixes);
    })))
}

/// One `<Version>` or `<DeleteMarker>`.
fn version(xml: &mut Writer, entry: &ListEntry, encoding: Encoding, owners: &Owners) {
    let shown = if entry.is_null { ShownVersion::Null } else { ShownVersion::Id(entry.id) };
    xml.element(if entry.is_delete_marker { "DeleteMarker" } else { "Version" }, |xml| {
        xml.key("Key", entry.key.as_bytes(), encoding);
        xml.text("VersionId", &shown_text(shown).unwrap_or_default());
        xml.value("IsLatest", entry.is_current);
        xml.text("LastModified", &date(entry.modified));
        if !entry.is_delete_marker {
            xml.etag(&entry.etag);
            checksum_elements(xml, entry);
            xml.value("Size", entry.len_bytes);
            xml.text("StorageClass", "STANDARD");
        }
        owners.write(xml, "Owner", entry.owner);
    });
}

fn selector_text(selector: VersionSelector) -> String {
    match selector {
        VersionSelector::Current | VersionSelector::Null => "null".to_owned(),
        VersionSelector::Id(id) => id.to_string(),
    }
}

/// GET `?uploads`.
pub(crate) async fn uploads(cx: &Context) -> Answer {
    let paging = Paging::read(cx, "max-uploads")?;
    let key_marker = cx.query.get_bytes("key-marker").unwrap_or_default();
    let upload_marker = cx.query.get("upload-id-marker")?.filter(|text| !text.is_empty());
    // S3 ignores the upload's marker without the key's.
    let after_upload = match upload_marker.filter(|_| !key_marker.is_empty()) {
        None => None,
        Some(text) => Some(
            text.parse().map_err(|_| S3Error::invalid_argument("Invalid uploadId marker", "upload-id-marker", text))?,
        ),
    };
    let bucket = cx.bucket(Action::ListBucketMultipartUploads).await?;
    let list = if paging.page_len == 0 {
        UploadList { uploads: Vec::new(), common_prefixes: Vec::new(), next_after: None, next_after_upload: None }
    } else {
        let request = ListUploads {
            bucket: bucket.id,
            prefix: paging.prefix.to_vec(),
            delimiter: paging.delimiter.to_vec(),
            after: key_marker.to_vec(),
            after_upload,
            limit: paging.page_len,
        };
        cx.shared.metadata.list_uploads(request).await?
    };
    let users: Vec<_> = list.uploads.iter().map(|upload| upload.owner).collect();
    let owners = Owners::of(cx, &bucket, users.clone()).await?;
    let initiators = Owners::themselves(cx, users).await?;
    Ok(xml(Writer::document("ListMultipartUploadsResult", Namespace::S3, |xml| {
        xml.text("Bucket", &bucket.name);
        xml.key("KeyMarker", key_marker, paging.encoding);
        xml.text("UploadIdMarker", upload_marker.unwrap_or_default());
        if let Some(next) = &list.next_after {
            xml.key("NextKeyMarker", next, paging.encoding);
            let id = list.next_after_upload.map(|id| id.to_string()).unwrap_or_default();
            xml.text("NextUploadIdMarker", &id);
        }
        xml.key("Prefix", paging.prefix, paging.encoding);
        paging.delimiter_element(xml);
        paging.encoding_element(xml);
        xml.value("MaxUploads", paging.page_len);
        xml.value("IsTruncated", list.next_after.is_some());
        for upload in &list.uploads {
            xml.element("Upload", |xml| {
                xml.key("Key", upload.key.as_bytes(), paging.encoding);
                xml.text("UploadId", &upload.id.to_string());
                initiators.write(xml, "Initiator", upload.owner);
                owners.write(xml, "Owner", upload.owner);
                xml.text("StorageClass", "STANDARD");
                xml.text("Initiated", &date(upload.initiated));
                if let Some((algorithm, kind)) = upload.checksum {
                    xml.text("ChecksumAlgorithm", checksum::algorithm_name(algorithm));
                    xml.text("ChecksumType", checksum::type_name(kind));
                }
            });
        }
        paging.common_prefixes(xml, &list.common_prefixes);
    })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use valv_metadata_api::ObjectKey;

    #[test]
    fn page_lengths_are_clamped_and_nonsense_is_refused() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1", Some(1)),
            ("1000", Some(1000)),
            ("1001", Some(1000)),
            ("2147483647", Some(1000)),
            ("2147483648", None),
            ("-1", None),
            ("+1", None),
            ("x", None),
        ] {
            assert_eq!(parse_page_len(text), expected, "{text}");
        }
    }

    #[test]
    fn an_entry_is_written_as_s3_writes_it() {
        let id = valv_types::VersionId::from_bytes([7; 16]);
        let mut entry = ListEntry {
            key: ObjectKey::new("a&b c").expect("key"),
            id,
            is_null: false,
            is_current: true,
            is_delete_marker: false,
            modified: TimestampMicros(1_369_353_600_123_456),
            len_bytes: 7,
            etag: "abc".to_owned(),
            owner: None,
            checksums: vec![(valv_metadata_api::ChecksumAlgorithm::Crc32, valv_metadata_api::ChecksumType::FullObject)],
        };
        let xml = Writer::document("R", Namespace::None, |xml| {
            contents(xml, &entry, Encoding::Plain, &Owners::none());
            entry.is_delete_marker = true;
            entry.is_null = true;
            version(xml, &entry, Encoding::Url, &Owners::none());
        });
        assert!(xml.ends_with(
            "<R><Contents><Key>a&amp;b c</Key><LastModified>2013-05-24T00:00:00.000Z</LastModified>\
             <ETag>&quot;abc&quot;</ETag><ChecksumAlgorithm>CRC32</ChecksumAlgorithm><ChecksumType>FULL_OBJECT</ChecksumType>\
             <Size>7</Size><StorageClass>STANDARD</StorageClass></Contents>\
             <DeleteMarker><Key>a%26b%20c</Key><VersionId>null</VersionId><IsLatest>true</IsLatest>\
             <LastModified>2013-05-24T00:00:00.000Z</LastModified></DeleteMarker></R>"
        ), "{xml}");
    }
}
