//! Versioning and PublicAccessBlock of buckets.

use super::context::{BodyDigest, Context};
use super::lock::refused_versioning;
use super::tagging::{bucket_document, update_bucket};
use super::{Answer, no_content, status, xml};
use crate::access::{Action, read_public_access_block};
use crate::error::{S3Code, S3Error};
use crate::payload::Payload;
use crate::xml::{Element, Namespace, Writer};
use http::StatusCode;
use valv_metadata_api::{BucketChange, BucketDocument, BucketDocumentKind, UpdateBucket, Versioning};
use valv_policy::PublicAccessBlock;
use valv_types::CommitId;

/// Longest document of this family; the largest has four elements.
const SETTINGS_LEN_BYTES_MAX: usize = 16 * 1024;

/// GET `?versioning`.
pub(crate) async fn get_versioning(cx: &Context) -> Answer {
    let bucket = cx.bucket(Action::GetBucketVersioning).await?;
    Ok(xml(Writer::document("VersioningConfiguration", Namespace::S3, |xml| match bucket.versioning {
        Versioning::Unversioned => {}
        Versioning::Enabled => xml.text("Status", "Enabled"),
        Versioning::Suspended => xml.text("Status", "Suspended"),
    })))
}

/// PUT `?versioning`.
pub(crate) async fn put_versioning(cx: &Context, mut payload: Payload) -> Answer {
    let bucket = cx.bucket(Action::PutBucketVersioning).await?;
    let document =
        cx.xml_body(&mut payload, "VersioningConfiguration", SETTINGS_LEN_BYTES_MAX, BodyDigest::Optional).await?;
    let versioning = read_versioning(&document)?;
    let request = UpdateBucket {
        actor: cx.actor(),
        bucket: bucket.id,
        change: BucketChange::Versioning(versioning),
        commit: CommitId::random(),
    };
    cx.shared
        .commit(move |metadata| {
            let request = request.clone();
            async move { metadata.update_bucket(request).await }
        })
        .await
        .map_err(refused_versioning)?;
    Ok(status(StatusCode::OK))
}

fn read_versioning(document: &Element) -> Result<Versioning, S3Error> {
    match document.text_of("MfaDelete").map(str::trim) {
        None | Some("Disabled") => {}
        Some("Enabled") => {
            return Err(S3Error::not_implemented("MfaDelete").with_message("MFA delete is not implemented."));
        }
        Some(_) => return Err(S3Code::MalformedXML.into()),
    }
    match document.text_of("Status").map(str::trim) {
        Some("Enabled") => Ok(Versioning::Enabled),
        Some("Suspended") => Ok(Versioning::Suspended),
        None => Err(S3Error::new(S3Code::IllegalVersioningConfigurationException)
            .with_message("The Versioning element must be specified")),
        Some(_) => Err(S3Code::MalformedXML.into()),
    }
}

fn public_access_block(block: PublicAccessBlock) -> String {
    Writer::document("PublicAccessBlockConfiguration", Namespace::S3, |xml| {
        xml.value("BlockPublicAcls", block.block_public_acls);
        xml.value("IgnorePublicAcls", block.ignore_public_acls);
        xml.value("BlockPublicPolicy", block.block_public_policy);
        xml.value("RestrictPublicBuckets", block.restrict_public_buckets);
    })
}

/// GET `?publicAccessBlock`. A bucket whose owner has said nothing blocks everything, as AWS makes buckets since April 2023;
/// one whose owner has removed the block has none.
pub(crate) async fn get_public_access_block(cx: &Context) -> Answer {
    let bucket = cx.bucket(Action::GetBucketPublicAccessBlock).await?;
    let kind = BucketDocumentKind::PublicAccessBlock;
    if bucket.documents.contains(&kind) && bucket_document(cx, &bucket, kind).await?.is_empty() {
        return Err(S3Error::no_such_document(kind).with_extra("BucketName", bucket.name.as_str()));
    }
    Ok(xml(public_access_block(cx.shared.rules.of(&bucket).await?.public_access_block)))
}

/// PUT `?publicAccessBlock`. A switch that is off opens nothing by itself: it lets a policy or an ACL do so.
pub(crate) async fn put_public_access_block(cx: &Context, mut payload: Payload) -> Answer {
    let bucket = cx.bucket(Action::PutBucketPublicAccessBlock).await?;
    let root = "PublicAccessBlockConfiguration";
    let document = cx.xml_body(&mut payload, root, SETTINGS_LEN_BYTES_MAX, BodyDigest::Optional).await?;
    // AWS takes any of the switches for off if it is not there, but not all of them.
    if document.children().is_empty() {
        return Err(S3Error::invalid_request("Must specify at least one configuration."));
    }
    let body = public_access_block(read_public_access_block(&document)?).into_bytes();
    let document = BucketDocument { kind: BucketDocumentKind::PublicAccessBlock, body };
    update_bucket(cx, &bucket, BucketChange::SetDocument(document)).await?;
    Ok(status(StatusCode::OK))
}

/// DELETE `?publicAccessBlock`: nothing is blocked any more. Kept as an empty document, because no document at all means that
/// everything is blocked.
pub(crate) async fn delete_public_access_block(cx: &Context) -> Answer {
    let bucket = cx.bucket(Action::PutBucketPublicAccessBlock).await?;
    let removed = BucketDocument { kind: BucketDocumentKind::PublicAccessBlock, body: Vec::new() };
    update_bucket(cx, &bucket, BucketChange::SetDocument(removed)).await?;
    Ok(no_content())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::parse;

    #[test]
    fn versioning_is_read_as_aws_reads_it() {
        let read = |inner: &str| {
            let xml = format!("<VersioningConfiguration>{inner}</VersioningConfiguration>");
            read_versioning(&parse(xml.as_bytes(), "VersioningConfiguration").expect("XML"))
                .map_err(|error| error.code())
        };
        for (inner, expected) in [
            ("<Status>Enabled</Status>", Ok(Versioning::Enabled)),
            ("<MfaDelete>Disabled</MfaDelete><Status>Suspended</Status>", Ok(Versioning::Suspended)),
            ("<Status>enabled</Status>", Err(S3Code::MalformedXML)),
            ("", Err(S3Code::IllegalVersioningConfigurationException)),
            ("<Status>Enabled</Status><MfaDelete>Enabled</MfaDelete>", Err(S3Code::NotImplemented)),
        ] {
            assert_eq!(read(inner), expected, "{inner}");
        }
    }

    #[test]
    fn a_new_bucket_blocks_everything() {
        let xml = public_access_block(PublicAccessBlock::default());
        assert!(xml.contains("<BlockPublicAcls>true</BlockPublicAcls><IgnorePublicAcls>true</IgnorePublicAcls>"));
        assert!(!xml.contains("false"));
    }
}
