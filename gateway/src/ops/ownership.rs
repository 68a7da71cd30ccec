//! Ownership controls of buckets: who owns what others write, and whether ACLs mean anything.
//!
//! Source: "Controlling ownership of objects and disabling ACLs for your bucket". A bucket that says nothing has
//! BucketOwnerEnforced. One whose controls were removed has none to show, and is ObjectWriter, as in AWS; that is kept as an
//! empty document.

use super::context::{BodyDigest, Context};
use super::tagging::{bucket_document, update_bucket};
use super::{Answer, no_content, status, xml};
use crate::access::{Action, read_ownership};
use crate::error::{S3Code, S3Error};
use crate::payload::Payload;
use crate::xml::{Namespace, Writer};
use http::StatusCode;
use valv_metadata_api::{BucketChange, BucketDocument, BucketDocumentKind};
use valv_policy::ObjectOwnership;

/// Longest OwnershipControls; it has one rule.
const CONTROLS_LEN_BYTES_MAX: usize = 16 * 1024;

const KIND: BucketDocumentKind = BucketDocumentKind::OwnershipControls;

fn controls(ownership: ObjectOwnership) -> String {
    Writer::document("OwnershipControls", Namespace::S3, |xml| {
        xml.element("Rule", |xml| xml.text("ObjectOwnership", ownership.as_str()));
    })
}

/// The document that says so.
pub(crate) fn document_of(ownership: ObjectOwnership) -> BucketDocument {
    BucketDocument { kind: KIND, body: controls(ownership).into_bytes() }
}

/// GET `?ownershipControls`.
pub(crate) async fn get(cx: &Context) -> Answer {
    let bucket = cx.bucket(Action::GetBucketOwnershipControls).await?;
    if bucket.documents.contains(&KIND) && bucket_document(cx, &bucket, KIND).await?.is_empty() {
        return Err(S3Error::no_such_document(KIND).with_extra("BucketName", bucket.name.as_str()));
    }
    let rules = cx.shared.rules.of(&bucket).await?;
    Ok(xml(controls(rules.ownership)))
}

/// PUT `?ownershipControls`.
pub(crate) async fn put(cx: &Context, mut payload: Payload) -> Answer {
    let bucket = cx.bucket(Action::PutBucketOwnershipControls).await?;
    let document = cx.xml_body(&mut payload, "OwnershipControls", CONTROLS_LEN_BYTES_MAX, BodyDigest::Optional).await?;
    let ownership = read_ownership(&document)?;
    if !ownership.has_acls() {
        // A list that grants to others would silently stop to: it has to go first.
        let rules = cx.shared.rules.of(&bucket).await?;
        let acl = cx.shared.rules.acl_of(&bucket, &rules).await?;
        if acl.grants_others(&acl.owner) {
            return Err(S3Code::InvalidBucketAclWithObjectOwnership.into());
        }
    }
    update_bucket(cx, &bucket, BucketChange::SetDocument(document_of(ownership))).await?;
    Ok(status(StatusCode::OK))
}

/// DELETE `?ownershipControls`.
pub(crate) async fn delete(cx: &Context) -> Answer {
    let bucket = cx.bucket(Action::PutBucketOwnershipControls).await?;
    update_bucket(cx, &bucket, BucketChange::SetDocument(BucketDocument { kind: KIND, body: Vec::new() })).await?;
    Ok(no_content())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::parse;

    #[test]
    fn controls_are_read_as_they_are_written() {
        for ownership in [ObjectOwnership::ObjectWriter, ObjectOwnership::BucketOwnerPreferred] {
            let document = document_of(ownership);
            let read = read_ownership(&parse(&document.body, "OwnershipControls").expect("XML"));
            assert_eq!(read.map_err(|error| error.code()), Ok(ownership));
        }
        let two = controls(ObjectOwnership::ObjectWriter).replace(
            "</OwnershipControls>",
            "<Rule><ObjectOwnership>ObjectWriter</ObjectOwnership></Rule></OwnershipControls>",
        );
        for broken in [
            two.as_str(),
            "<OwnershipControls/>",
            "<OwnershipControls><Rule><ObjectOwnership>Mine</ObjectOwnership></Rule></OwnershipControls>",
        ] {
            let read = read_ownership(&parse(broken.as_bytes(), "OwnershipControls").expect("XML"));
            assert_eq!(read.map_err(|error| error.code()), Err(S3Code::MalformedXML), "{broken}");
        }
    }
}
