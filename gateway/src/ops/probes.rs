//! Settings that Valv's buckets do not have, or have in one form only: reading them gives AWS's answer for such a bucket,
//! setting them to what holds anyway is accepted, and everything else is 501. A document is never kept whose meaning
//! nobody enforces.

use super::context::{BodyDigest, Context};
use super::get::readable;
use super::{Answer, no_content, status, xml};
use crate::access::Action;
use crate::error::{S3Code, S3Error};
use crate::payload::Payload;
use crate::router::Operation;
use crate::xml::{Element, Namespace, Writer};
use http::StatusCode;
use std::sync::Arc;
use valv_metadata_api::{Bucket, BucketDocumentKind, User};

/// Longest document that is read to see whether it is one of the accepted ones (AWS's largest of these, a policy, has
/// 20 KiB; anything longer is none of ours).
const SETTINGS_LEN_BYTES_MAX: usize = 64 * 1024;

/// Answers every operation of this file on buckets.
pub(crate) async fn run(cx: &Context, mut payload: Payload) -> Answer {
    use Operation::*;
    let action = Action::of_settings(cx.operation).ok_or(S3Code::InternalError)?;
    let bucket = cx.bucket(action).await?;
    match cx.operation {
        GetBucketAcl => {
            let owner = cx.shared.principals.user(bucket.owner).await?;
            Ok(xml(acl(owner)))
        }
        GetBucketPolicy | GetBucketPolicyStatus => Err(S3Error::no_such_document(BucketDocumentKind::Policy)),
        GetBucketWebsite => Err(S3Error::no_such_document(BucketDocumentKind::Website)),
        GetBucketReplication => Err(S3Code::ReplicationConfigurationNotFoundError.into()),
        GetBucketAnalytics | GetBucketInventory | GetBucketMetrics | GetBucketIntelligentTiering => {
            Err(S3Code::NoSuchConfiguration.into())
        }
        GetBucketOwnershipControls => Ok(xml(ownership())),
        GetBucketRequestPayment => Ok(xml(Writer::document("RequestPaymentConfiguration", Namespace::S3, |xml| {
            xml.text("Payer", "BucketOwner");
        }))),
        GetBucketLogging => Ok(xml(empty("BucketLoggingStatus"))),
        GetBucketNotification => Ok(xml(empty("NotificationConfiguration"))),
        GetBucketAccelerate => Ok(xml(empty("AccelerateConfiguration"))),
        ListBucketAnalytics => Ok(xml(empty_list("ListBucketAnalyticsConfigurationResult"))),
        ListBucketInventory => Ok(xml(empty_list("ListInventoryConfigurationsResult"))),
        ListBucketMetrics => Ok(xml(empty_list("ListMetricsConfigurationsResult"))),
        ListBucketIntelligentTiering => Ok(xml(empty_list("ListBucketIntelligentTieringConfigurationsOutput"))),

        // There is nothing to remove, or the default is all there is.
        DeleteBucketPolicy | DeleteBucketWebsite | DeleteBucketReplication => Ok(no_content()),

        PutBucketAcl => put_acl(cx),
        PutBucketOwnershipControls => accept(cx, &mut payload, "OwnershipControls", is_owner_enforced).await,
        PutBucketRequestPayment => {
            let is_owner = |document: &Element| Ok(document.required("Payer")?.trim() == "BucketOwner");
            accept(cx, &mut payload, "RequestPaymentConfiguration", is_owner).await
        }
        PutBucketLogging => accept(cx, &mut payload, "BucketLoggingStatus", is_empty).await,
        PutBucketNotification => accept(cx, &mut payload, "NotificationConfiguration", is_empty).await,

        operation => Err(S3Error::not_implemented(operation.name())
            .with_message(format!("{} is not implemented.", operation.name()))),
    }
}

/// Accepts a document that says what holds anyway; any other is 501, because it would not be true.
async fn accept(
    cx: &Context,
    payload: &mut Payload,
    root: &str,
    holds: impl Fn(&Element) -> Result<bool, S3Error>,
) -> Answer {
    let document = cx.xml_body(payload, root, SETTINGS_LEN_BYTES_MAX, BodyDigest::Optional).await?;
    if holds(&document)? {
        return Ok(status(StatusCode::OK));
    }
    Err(S3Error::not_implemented(root).with_message(format!("This {root} is not implemented.")))
}

fn is_empty(document: &Element) -> Result<bool, S3Error> {
    Ok(document.children().is_empty())
}

fn is_owner_enforced(document: &Element) -> Result<bool, S3Error> {
    let rule = document.child("Rule").ok_or(S3Code::MalformedXML)?;
    match rule.required("ObjectOwnership")?.trim() {
        "BucketOwnerEnforced" => Ok(true),
        "BucketOwnerPreferred" | "ObjectWriter" => Ok(false),
        _ => Err(S3Code::MalformedXML.into()),
    }
}

/// An ACL can't be set where the bucket's owner owns everything; AWS lets through only the one that changes nothing.
fn put_acl(cx: &Context) -> Answer {
    match super::headers::text(&cx.headers, "x-amz-acl") {
        Some("bucket-owner-full-control") => Ok(status(StatusCode::OK)),
        _ => Err(S3Code::AccessControlListNotSupported.into()),
    }
}

/// GET of an object's ACL: the bucket's owner, as AWS answers where ACLs are off.
pub(crate) async fn get_object_acl(cx: &Context) -> Answer {
    let (bucket, _) = readable(cx, Action::GetObjectAcl, false).await?;
    let owner = owner(cx, &bucket).await?;
    Ok(xml(acl(owner)))
}

/// PUT of an object's ACL.
pub(crate) async fn put_object_acl(cx: &Context) -> Answer {
    readable(cx, Action::PutObjectAcl, false).await?;
    put_acl(cx)
}

async fn owner(cx: &Context, bucket: &Bucket) -> Result<Option<Arc<User>>, S3Error> {
    cx.shared.principals.user(bucket.owner).await
}

fn acl(owner: Option<Arc<User>>) -> String {
    let (id, name) = owner.as_ref().map_or(("", ""), |owner| (&owner.canonical_id, &owner.display_name));
    let write_owner = |xml: &mut Writer| {
        xml.text("ID", id);
        xml.text("DisplayName", name);
    };
    Writer::document("AccessControlPolicy", Namespace::S3, |xml| {
        xml.element("Owner", write_owner);
        xml.element("AccessControlList", |xml| {
            xml.element("Grant", |xml| {
                let attributes = "xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xsi:type=\"CanonicalUser\"";
                xml.element_with("Grantee", attributes, write_owner);
                xml.text("Permission", "FULL_CONTROL");
            });
        });
    })
}

fn ownership() -> String {
    Writer::document("OwnershipControls", Namespace::S3, |xml| {
        xml.element("Rule", |xml| xml.text("ObjectOwnership", "BucketOwnerEnforced"));
    })
}

fn empty(root: &str) -> String {
    Writer::document(root, Namespace::S3, |_| {})
}

fn empty_list(root: &str) -> String {
    Writer::document(root, Namespace::S3, |xml| xml.value("IsTruncated", false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xml::parse;

    #[test]
    fn only_documents_that_hold_anyway_are_accepted() {
        let owner = parse(ownership().as_bytes(), "OwnershipControls").expect("XML");
        assert!(is_owner_enforced(&owner).expect("ownership"));
        let notification = "<NotificationConfiguration><QueueConfiguration/></NotificationConfiguration>";
        assert!(
            !is_empty(&parse(notification.as_bytes(), "NotificationConfiguration").expect("XML")).expect("children")
        );
    }

    #[test]
    fn an_acl_names_its_owner_with_full_control() {
        let owner = User {
            id: valv_types::UserId::random(),
            name: "u".to_owned(),
            canonical_id: "ab".to_owned(),
            display_name: "A & B".to_owned(),
            email: String::new(),
            project: valv_types::ProjectId::random(),
        };
        let xml = acl(Some(Arc::new(owner)));
        assert!(
            xml.contains("<Owner><ID>ab</ID><DisplayName>A &amp; B</DisplayName></Owner><AccessControlList><Grant>")
        );
        assert!(xml.contains("xsi:type=\"CanonicalUser\"><ID>ab</ID>"));
        assert!(xml.contains("<Permission>FULL_CONTROL</Permission>"));
    }
}
