//! Tags of objects and buckets.

use super::context::{BodyDigest, Context};
use super::get::readable;
use super::headers::{add_version, check_tags};
use super::{Answer, no_content, status, xml};
use crate::access::{About, Action, Given, refuse_denied};
use crate::error::{S3Code, S3Error};
use crate::limits::TAGS_MAX;
use crate::payload::Payload;
use crate::xml::{Element, Namespace, Writer, parse, url_encode};
use http::StatusCode;
use valv_metadata_api::{
    Bucket, BucketChange, BucketDocument, BucketDocumentKind, FoundObject, GetBucketDocument, MetadataError,
    UpdateBucket, UpdateVersion, VersionChange, VersionSelector,
};
use valv_types::CommitId;

/// Tags of a bucket (AWS: 50).
const BUCKET_TAGS_MAX: usize = 50;
/// Longest Tagging document: 50 tags of 128 + 256 characters of up to 4 bytes, each perhaps a 6-byte reference, with
/// elements around them, are 130 KiB.
pub(crate) const TAGGING_LEN_BYTES_MAX: usize = 256 * 1024;

fn read_tags(document: &Element, tags_max: usize) -> Result<Vec<(String, String)>, S3Error> {
    read_tag_set(document.child("TagSet").ok_or(S3Code::MalformedXML)?, tags_max)
}

/// The tags that a bucket is created with, as the document that keeps them; `None` if there are none.
///
/// # Errors
/// MalformedXML, BadRequest, InvalidTag.
pub(crate) fn created_with(set: &Element) -> Result<Option<BucketDocument>, S3Error> {
    Ok(kept(&read_tag_set(set, BUCKET_TAGS_MAX)?))
}

/// The document that keeps a bucket's tags; `None` if there are none: S3 answers NoSuchTagSet after an empty set.
fn kept(tags: &[(String, String)]) -> Option<BucketDocument> {
    let body = document(tags).into_bytes();
    (!tags.is_empty()).then_some(BucketDocument { kind: BucketDocumentKind::Tagging, body })
}

fn read_tag_set(set: &Element, tags_max: usize) -> Result<Vec<(String, String)>, S3Error> {
    let mut tags = Vec::new();
    for tag in set.children() {
        if tag.name() != "Tag" {
            return Err(S3Code::MalformedXML.into());
        }
        tags.push((tag.required("Key")?.to_owned(), tag.required("Value")?.to_owned()));
    }
    check_tags(&tags, tags_max)?;
    Ok(tags)
}

/// The `tagging` field of a form, a document as in PutObjectTagging, as the value of `x-amz-tagging`.
///
/// # Errors
/// MalformedXML, InvalidTag, BadRequest.
pub(crate) fn form_tags(document: &[u8]) -> Result<String, S3Error> {
    let tags = read_tags(&parse(document, "Tagging")?, TAGS_MAX)?;
    let encode = |text: &str| url_encode(text.as_bytes()).replace('/', "%2F");
    Ok(tags.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value))).collect::<Vec<_>>().join("&"))
}

fn document(tags: &[(String, String)]) -> String {
    Writer::document("Tagging", Namespace::S3, |xml| {
        xml.element("TagSet", |xml| {
            for (key, value) in tags {
                xml.element("Tag", |xml| {
                    xml.text("Key", key);
                    xml.text("Value", value);
                });
            }
        });
    })
}

/// GET of an object's tags.
pub(crate) async fn get_object(cx: &Context) -> Answer {
    let (_, found) = readable(cx, Action::GetObjectTagging, false).await?;
    let mut response = xml(document(&found.version.attributes.tags));
    add_version(response.headers_mut(), found.shown);
    Ok(response)
}

/// PUT of an object's tags.
pub(crate) async fn put_object(cx: &Context, mut payload: Payload) -> Answer {
    cx.bucket_of_many().await?;
    let document = cx.xml_body(&mut payload, "Tagging", TAGGING_LEN_BYTES_MAX, BodyDigest::Optional).await?;
    let tags = read_tags(&document, TAGS_MAX)?;
    cx.gives(Given { tags: tags.clone(), ..Given::default() });
    let (bucket, found) = readable(cx, Action::PutObjectTagging, false).await?;
    let found = update_version(cx, &bucket, &found, VersionChange::Tags(tags)).await?;
    let mut response = status(StatusCode::OK);
    add_version(response.headers_mut(), found.shown);
    Ok(response)
}

/// DELETE of an object's tags.
pub(crate) async fn delete_object(cx: &Context) -> Answer {
    let (bucket, found) = readable(cx, Action::DeleteObjectTagging, false).await?;
    let found = update_version(cx, &bucket, &found, VersionChange::Tags(Vec::new())).await?;
    let mut response = no_content();
    add_version(response.headers_mut(), found.shown);
    Ok(response)
}

/// Refuses to give a new object tags if the bucket's policy denies `s3:PutObjectTagging`: tags decide, where policies ask
/// for them.
///
/// # Errors
/// AccessDenied.
pub(crate) async fn check_tags_allowed(
    cx: &Context,
    bucket: &Bucket,
    tags: &[(String, String)],
) -> Result<(), S3Error> {
    if tags.is_empty() {
        return Ok(());
    }
    let about = About::key(cx.target.key.as_ref());
    refuse_denied(&cx.shared.rules, &cx.asker, Action::PutObjectTagging, bucket, &about, cx.now).await
}

/// Changes a version that the caller has read and may change: this one, whatever has become current since. Else somebody
/// who owned the object yesterday could set the list of what replaces it.
///
/// # Errors
/// OperationAborted if an object without versions was replaced or removed meanwhile; NoSuchVersion; AccessDenied for what a
/// lock protects.
pub(crate) async fn update_version(
    cx: &Context,
    bucket: &Bucket,
    found: &FoundObject,
    change: VersionChange,
) -> Result<FoundObject, S3Error> {
    let selector = cx.version()?;
    let key = cx.key()?.clone();
    let request = UpdateVersion {
        actor: cx.actor(),
        bucket: bucket.id,
        key: key.clone(),
        version: VersionSelector::Id(found.version.id),
        change,
        commit: CommitId::random(),
    };
    cx.shared
        .commit(move |metadata| {
            let request = request.clone();
            async move { metadata.update_version(request).await }
        })
        .await
        .map_err(|error| match (error, selector) {
            (
                MetadataError::NoSuchKey | MetadataError::NoSuchVersion,
                VersionSelector::Current | VersionSelector::Null,
            ) => S3Code::OperationAborted.into(),
            (error, selector) => super::context::no_such_object(error, &key, selector),
        })
}

/// Changes the request's bucket.
///
/// # Errors
/// As metadata's.
pub(crate) async fn update_bucket(cx: &Context, bucket: &Bucket, change: BucketChange) -> Result<Bucket, S3Error> {
    let request = UpdateBucket { actor: cx.actor(), bucket: bucket.id, change, commit: CommitId::random() };
    let updated = cx
        .shared
        .commit(move |metadata| {
            let request = request.clone();
            async move { metadata.update_bucket(request).await }
        })
        .await?;
    Ok(updated)
}

/// Reads a document of a bucket, without asking metadata if there is none.
///
/// # Errors
/// What S3 answers for a bucket without such a document.
pub(crate) async fn bucket_document(
    cx: &Context,
    bucket: &Bucket,
    kind: BucketDocumentKind,
) -> Result<Vec<u8>, S3Error> {
    let none = || S3Error::no_such_document(kind).with_extra("BucketName", bucket.name.as_str());
    if !bucket.documents.contains(&kind) {
        return Err(none());
    }
    match cx.shared.metadata.get_bucket_document(GetBucketDocument { bucket: bucket.id, kind }).await {
        Ok(document) => Ok(document.body),
        Err(MetadataError::NoSuchDocument) => Err(none()),
        Err(error) => Err(error.into()),
    }
}

/// GET of a bucket's tags.
pub(crate) async fn get_bucket(cx: &Context) -> Answer {
    let bucket = cx.bucket(Action::GetBucketTagging).await?;
    let body = bucket_document(cx, &bucket, BucketDocumentKind::Tagging).await?;
    Ok(xml(String::from_utf8(body).map_err(S3Error::internal)?))
}

/// PUT of a bucket's tags.
pub(crate) async fn put_bucket(cx: &Context, mut payload: Payload) -> Answer {
    let bucket = cx.bucket(Action::PutBucketTagging).await?;
    let given = cx.xml_body(&mut payload, "Tagging", TAGGING_LEN_BYTES_MAX, BodyDigest::Optional).await?;
    let tags = read_tags(&given, BUCKET_TAGS_MAX)?;
    let change =
        kept(&tags).map_or(BucketChange::RemoveDocument(BucketDocumentKind::Tagging), BucketChange::SetDocument);
    update_bucket(cx, &bucket, change).await?;
    Ok(no_content())
}

/// DELETE of a bucket's tags.
pub(crate) async fn delete_bucket(cx: &Context) -> Answer {
    let bucket = cx.bucket(Action::PutBucketTagging).await?;
    update_bucket(cx, &bucket, BucketChange::RemoveDocument(BucketDocumentKind::Tagging)).await?;
    Ok(no_content())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::parse;

    #[test]
    fn tags_come_back_as_they_were_given() {
        let tags = vec![("k é".to_owned(), "a+b".to_owned()), ("x".to_owned(), String::new())];
        let written = document(&tags);
        let read = read_tags(&parse(written.as_bytes(), "Tagging").expect("XML"), 10).expect("tags");
        assert_eq!(read, tags);
    }

    #[test]
    fn malformed_tags_are_refused() {
        for (xml, code) in [
            ("<Tagging/>", S3Code::MalformedXML),
            ("<Tagging><TagSet><Tag><Key>k</Key></Tag></TagSet></Tagging>", S3Code::MalformedXML),
            ("<Tagging><TagSet><X/></TagSet></Tagging>", S3Code::MalformedXML),
            ("<Tagging><TagSet><Tag><Key/><Value/></Tag></TagSet></Tagging>", S3Code::InvalidTag),
            ("<Tagging><TagSet><Tag><Key>&lt;</Key><Value/></Tag></TagSet></Tagging>", S3Code::InvalidTag),
            (
                "<Tagging><TagSet><Tag><Key>k</Key><Value/></Tag><Tag><Key>k</Key><Value/></Tag></TagSet></Tagging>",
                S3Code::InvalidTag,
            ),
        ] {
            let read = read_tags(&parse(xml.as_bytes(), "Tagging").expect("XML"), 10);
            assert_eq!(read.err().map(|error| error.code()), Some(code), "{xml}");
        }
    }
}
