//! GetObjectAttributes.

use super::context::Context;
use super::get::readable;
use super::headers::{add_version, checksum_text, header_value, part_count};
use super::source::part_page;
use super::{Answer, xml};
use crate::access::Action;
use crate::checksum;
use crate::error::{S3Code, S3Error};
use crate::http_date;
use crate::limits::PAGE_LEN_MAX;
use crate::xml::{Namespace, Writer};
use http::header::LAST_MODIFIED;
use valv_metadata_api::{Body, Bucket, FoundObject, PARTS_PER_PAGE, PartRecord};

/// What a request may ask for.
const NAMES: [&str; 5] = ["ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"];

/// Which attributes the request asks for, in one header or several.
fn asked(cx: &Context) -> Result<Vec<&'static str>, S3Error> {
    let invalid =
        |name: &str| S3Error::invalid_argument("Invalid attribute name specified.", "x-amz-object-attributes", name);
    let mut asked = Vec::new();
    for value in cx.headers.get_all("x-amz-object-attributes") {
        for name in value.to_str().map_err(|_| invalid(""))?.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            asked.push(NAMES.into_iter().find(|known| *known == name).ok_or_else(|| invalid(name))?);
        }
    }
    if asked.is_empty() {
        return Err(invalid("").with_message(
            "The x-amz-object-attributes header specifying the attributes to be retrieved is either missing or empty",
        ));
    }
    Ok(asked)
}

/// A page of parts as asked for.
struct Parts {
    marker: u32,
    page_len: u32,
    parts: Vec<PartRecord>,
    is_truncated: bool,
}

/// GET `?attributes`.
pub(crate) async fn get(cx: &Context) -> Answer {
    let customer = super::encryption::read_key(cx)?;
    let asked = asked(cx)?;
    let (bucket, found) = readable(cx, Action::GetObjectAttributes, false).await?;
    let version = &found.version;
    super::encryption::open(&bucket, &version.attributes, customer)?;
    let count = part_count(version);
    let parts = if asked.contains(&"ObjectParts") { parts(cx, &bucket, &found).await? } else { None };

    let mut response = xml(Writer::document("GetObjectAttributesResponse", Namespace::S3, |xml| {
        if asked.contains(&"ETag") {
            // Without quotes, unlike everywhere else.
            xml.text("ETag", &version.attributes.etag);
        }
        if asked.contains(&"Checksum") && !version.attributes.checksums.is_empty() {
            xml.element("Checksum", |xml| {
                for one in &version.attributes.checksums {
                    xml.text(checksum::element_name(one.algorithm), &checksum_text(one, count));
                    xml.text("ChecksumType", checksum::type_name(one.kind));
                }
            });
        }
        if let (Some(parts), Some(count)) = (&parts, count) {
            write_parts(xml, parts, count, &found);
        }
        if asked.contains(&"StorageClass") {
            xml.text("StorageClass", "STANDARD");
        }
        if asked.contains(&"ObjectSize") {
            xml.value("ObjectSize", version.len_bytes);
        }
    }));
    let headers = response.headers_mut();
    headers.insert(LAST_MODIFIED, header_value(&http_date::format_http(version.order)));
    add_version(headers, found.shown);
    Ok(response)
}

fn write_parts(xml: &mut Writer, parts: &Parts, count: u32, found: &FoundObject) {
    // AWS lists the parts of objects that have an additional checksum, which in Valv all objects have.
    let whole = &found.version.attributes.checksums;
    xml.element("ObjectParts", |xml| {
        xml.value("PartsCount", count);
        xml.value("PartNumberMarker", parts.marker);
        if let Some(last) = parts.parts.last() {
            xml.value("NextPartNumberMarker", last.number);
        }
        xml.value("MaxParts", parts.page_len);
        xml.value("IsTruncated", parts.is_truncated);
        for part in &parts.parts {
            xml.element("Part", |xml| {
                // The algorithm of the object's own checksum; a part may have been verified with another.
                for one in part.checksums.iter().filter(|one| whole.iter().any(|all| all.algorithm == one.algorithm)) {
                    xml.text(checksum::element_name(one.algorithm), &checksum::encode(&one.value));
                }
                xml.value("PartNumber", part.number);
                xml.value("Size", part.blob.len_bytes);
            });
        }
    });
}

fn number_header(cx: &Context, name: &'static str) -> Result<Option<u32>, S3Error> {
    let Some(text) = super::headers::text(&cx.headers, name) else { return Ok(None) };
    match text.parse::<i32>().ok().and_then(|number| u32::try_from(number).ok()) {
        Some(number) => Ok(Some(number)),
        None => Err(S3Error::invalid_argument("The value must be an integer between 0 and 2147483647", name, text)),
    }
}

/// The parts after a marker; `None` for an object that did not come in parts.
async fn parts(cx: &Context, bucket: &Bucket, found: &FoundObject) -> Result<Option<Parts>, S3Error> {
    let Body::Parts(index) = &found.version.body else { return Ok(None) };
    let page_len = number_header(cx, "x-amz-max-parts")?.unwrap_or(PAGE_LEN_MAX).min(PAGE_LEN_MAX);
    let marker = number_header(cx, "x-amz-part-number-marker")?.unwrap_or(0);
    let mut parts: Vec<PartRecord> = Vec::new();
    let mut is_truncated = false;
    'pages: for page in 0..index.page_offsets.len() {
        // Numbers ascend by at least one a part: a page can't be past the marker if its last place is.
        let read = part_page(&cx.shared, bucket.id, index, page).await?;
        if read.parts.len() > PARTS_PER_PAGE {
            return Err(S3Code::InternalError.into());
        }
        for part in read.parts.into_iter().filter(|part| u32::from(part.number) > marker) {
            if parts.len() >= page_len as usize {
                is_truncated = true;
                break 'pages;
            }
            parts.push(part);
        }
    }
    Ok(Some(Parts { marker, page_len, parts, is_truncated }))
}
