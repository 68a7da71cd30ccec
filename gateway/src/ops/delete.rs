//! DeleteObject and DeleteObjects.

use super::context::{BodyDigest, Context, parse_version};
use super::headers::{header_value, shown_text, text};
use super::{Answer, no_content, xml};
use crate::access::Action;
use crate::conditions::{EtagList, delete_condition, parse_modified};
use crate::error::{S3Code, S3Error};
use crate::host::checked_key;
use crate::limits::{PAGE_LEN_MAX, XML_BODY_LEN_BYTES_MAX};
use crate::payload::Payload;
use crate::xml::{Element, Namespace, Writer};
use futures_util::{StreamExt as _, stream};
use http::HeaderValue;
use valv_metadata_api::{
    Bucket, DeleteObject, Deleted, MetadataError, ObjectKey, ShownVersion, VersionSelector, WriteCondition,
};
use valv_types::CommitId;

/// Deletes of one DeleteObjects under way at one time. Each is a commit; group commit makes some of them cheaper together,
/// and more would let one request crowd out others.
const DELETES_IN_FLIGHT: usize = 16;

/// DELETE of an object or a version.
pub(crate) async fn one(cx: &Context) -> Answer {
    let selector = cx.version()?;
    let condition = delete_condition(&cx.headers)?;
    let bucket = cx.bucket_of_many().await?;
    cx.may_delete(&bucket, cx.key()?, selector, &condition).await?;
    cx.may_compare(&bucket, cx.key()?, &condition).await?;
    let bypass_governance = bypass(cx, &bucket).await?;
    let deleted = delete(cx, &bucket, cx.key()?.clone(), selector, bypass_governance, condition).await?;
    let mut response = no_content();
    let headers = response.headers_mut();
    if let Some(version) = shown_text(deleted.shown) {
        headers.insert("x-amz-version-id", header_value(&version));
    }
    if deleted.delete_marker {
        headers.insert("x-amz-delete-marker", HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// Whether the request wants to bypass governance retention; then it must be allowed to.
pub(crate) async fn bypass(cx: &Context, bucket: &Bucket) -> Result<bool, S3Error> {
    let wants = wants_bypass(cx);
    if wants {
        cx.may_key(Action::BypassGovernanceRetention, bucket, cx.key()?, cx.version()?).await?;
    }
    Ok(wants)
}

fn wants_bypass(cx: &Context) -> bool {
    text(&cx.headers, "x-amz-bypass-governance-retention").is_some_and(|text| text.eq_ignore_ascii_case("true"))
}

/// Deletes, and takes what was not there as deleted, as S3 does.
async fn delete(
    cx: &Context,
    bucket: &Bucket,
    key: ObjectKey,
    version: VersionSelector,
    bypass_governance: bool,
    condition: WriteCondition,
) -> Result<Deleted, S3Error> {
    let request = DeleteObject {
        actor: cx.actor(),
        bucket: bucket.id,
        key,
        version,
        bypass_governance,
        condition,
        commit: CommitId::random(),
    };
    let outcome = cx
        .shared
        .commit(move |metadata| {
            let request = request.clone();
            async move { metadata.delete_object(request).await }
        })
        .await;
    match outcome {
        Ok(deleted) => Ok(deleted),
        Err(MetadataError::NoSuchKey | MetadataError::NoSuchVersion) => {
            let shown = match version {
                VersionSelector::Current => ShownVersion::Hidden,
                VersionSelector::Null => ShownVersion::Null,
                VersionSelector::Id(id) => ShownVersion::Id(id),
            };
            Ok(Deleted { delete_marker: false, shown, existed: false })
        }
        Err(error) => Err(error.into()),
    }
}

/// One line of a DeleteObjects.
struct Entry {
    key: ObjectKey,
    version_text: Option<String>,
    /// What is wrong with this line alone.
    parsed: Result<(VersionSelector, WriteCondition), S3Error>,
}

impl Entry {
    fn read(object: &Element) -> Result<Self, S3Error> {
        let key = object.required("Key")?;
        let key = if key.is_empty() { return Err(S3Code::MalformedXML.into()) } else { checked_key(key.as_bytes())? };
        let version_text = object.text_of("VersionId").filter(|text| !text.is_empty()).map(str::to_owned);
        let parsed = Self::parse(object, version_text.as_deref());
        Ok(Self { key, version_text, parsed })
    }

    async fn delete(self, cx: &Context, bucket: &Bucket, bypass_governance: bool) -> (Self, Result<Deleted, S3Error>) {
        let outcome = self.delete_if_allowed(cx, bucket, bypass_governance).await;
        (self, outcome)
    }

    async fn delete_if_allowed(
        &self,
        cx: &Context,
        bucket: &Bucket,
        bypass_governance: bool,
    ) -> Result<Deleted, S3Error> {
        let (selector, condition) = self.parsed.clone()?;
        cx.may_delete(bucket, &self.key, selector, &condition).await?;
        cx.may_compare(bucket, &self.key, &condition).await?;
        if bypass_governance {
            cx.may_key(Action::BypassGovernanceRetention, bucket, &self.key, selector).await?;
        }
        delete(cx, bucket, self.key.clone(), selector, bypass_governance, condition).await
    }

    fn parse(object: &Element, version: Option<&str>) -> Result<(VersionSelector, WriteCondition), S3Error> {
        let selector = match version {
            None => VersionSelector::Current,
            // AWS tells of an impossible version id as of one that does not exist.
            Some(text) => parse_version(text).map_err(|_| {
                S3Error::new(S3Code::NoSuchVersion)
                    .with_message("The version ID specified in the request does not match an existing version.")
            })?,
        };
        let if_match = object.text_of("ETag").map(|etag| EtagList::parse(etag).into_list());
        let if_match_modified_secs = match object.text_of("LastModifiedTime") {
            None => None,
            Some(date) => Some(parse_modified(date).ok_or(S3Code::MalformedXML)?),
        };
        let condition = WriteCondition {
            if_match,
            if_none_match: None,
            if_match_modified_secs,
            if_match_len_bytes: object.number("Size")?,
        };
        Ok((selector, condition))
    }
}

/// POST `?delete`.
pub(crate) async fn many(cx: &Context, mut payload: Payload) -> Answer {
    cx.bucket_of_many().await?;
    let document = cx.xml_body(&mut payload, "Delete", XML_BODY_LEN_BYTES_MAX, BodyDigest::Required).await?;
    let is_quiet = document.flag("Quiet")?;
    let objects: Vec<&Element> = document.all("Object").collect();
    if objects.is_empty() || objects.len() > PAGE_LEN_MAX as usize {
        return Err(S3Code::MalformedXML.into());
    }
    let entries = objects.into_iter().map(Entry::read).collect::<Result<Vec<_>, _>>()?;
    let bypass_governance = wants_bypass(cx);
    // Again: its rules may have changed while the body came in.
    let bucket = cx.bucket_of_many().await?;

    let deletes: Vec<_> = entries.into_iter().map(|entry| entry.delete(cx, &bucket, bypass_governance)).collect();
    let outcomes: Vec<_> = stream::iter(deletes).buffered(DELETES_IN_FLIGHT).collect().await;

    Ok(xml(Writer::document("DeleteResult", Namespace::S3, |xml| {
        for (entry, outcome) in &outcomes {
            let key = String::from_utf8_lossy(entry.key.as_bytes());
            match outcome {
                Ok(_) if is_quiet => {}
                Ok(deleted) => xml.element("Deleted", |xml| {
                    xml.text("Key", &key);
                    xml.optional("VersionId", entry.version_text.as_deref());
                    if deleted.delete_marker {
                        xml.value("DeleteMarker", true);
                        xml.optional("DeleteMarkerVersionId", shown_text(deleted.shown).as_deref());
                    }
                }),
                Err(error) => xml.element("Error", |xml| {
                    xml.text("Key", &key);
                    xml.optional("VersionId", entry.version_text.as_deref());
                    xml.text("Code", error.code().as_str());
                    xml.text("Message", error.message());
                }),
            }
        }
    })))
}
