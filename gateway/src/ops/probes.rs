//! Settings that Valv's buckets do not have, or have in one form only: reading them gives AWS's answer for such a bucket,
//! setting them to what holds anyway is accepted, and everything else is 501. A document is never kept whose meaning
//! nobody enforces.

use super::context::{BodyDigest, Context};
use super::{Answer, no_content, status, xml};
use crate::access::Action;
use crate::error::{S3Code, S3Error};
use crate::payload::Payload;
use crate::router::Operation;
use crate::xml::{Element, Namespace, Writer};
use http::StatusCode;
use valv_metadata_api::BucketDocumentKind;

/// Longest document that is read to see whether it is one of the accepted ones (AWS's largest of these, a policy, has
/// 20 KiB; anything longer is none of ours).
const SETTINGS_LEN_BYTES_MAX: usize = 64 * 1024;

/// Answers every operation of this file on buckets.
pub(crate) async fn run(cx: &Context, mut payload: Payload) -> Answer {
    use Operation::*;
    let action = Action::of_settings(cx.operation).ok_or(S3Code::InternalError)?;
    let bucket = cx.bucket(action).await?;
    let of_bucket = |error: S3Error| Err(error.with_extra("BucketName", bucket.name.as_str()));
    match cx.operation {
        GetBucketWebsite => of_bucket(S3Error::no_such_document(BucketDocumentKind::Website)),
        GetBucketReplication => of_bucket(S3Code::ReplicationConfigurationNotFoundError.into()),
        GetBucketAnalytics | GetBucketInventory | GetBucketMetrics | GetBucketIntelligentTiering => {
            Err(S3Code::NoSuchConfiguration.into())
        }
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
        DeleteBucketWebsite | DeleteBucketReplication => Ok(no_content()),

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
        let notification = "<NotificationConfiguration><QueueConfiguration/></NotificationConfiguration>";
        assert!(
            !is_empty(&parse(notification.as_bytes(), "NotificationConfiguration").expect("XML")).expect("children")
        );
    }
}
