//! Bucket policies: put, get, delete, and whether one is public.
//!
//! The text is kept as it came, after [`valv_policy::Policy`] has read it whole; [`crate::access`] judges by it.

use super::context::{BodyDigest, Context};
use super::headers::text;
use super::tagging::{bucket_document, update_bucket};
use super::{Answer, no_content, xml};
use crate::access::Action;
use crate::body::ResponseBody;
use crate::error::{S3Code, S3Error};
use crate::payload::Payload;
use crate::xml::{Namespace, Writer};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};
use valv_metadata_api::{BucketChange, BucketDocument, BucketDocumentKind};
use valv_policy::policy::POLICY_LEN_BYTES_MAX;
use valv_policy::{Acl, Policy, PolicyError};

/// How much is read of a policy: enough to say of a long one that it is too long.
const BODY_LEN_BYTES_MAX: usize = 16 * POLICY_LEN_BYTES_MAX;

fn malformed(error: PolicyError) -> S3Error {
    S3Error::new(S3Code::MalformedPolicy).with_message(error.to_string())
}

/// PUT `?policy`.
///
/// Members of the bucket's project can always read, replace and remove its policy, so nobody can lock themselves out:
/// `x-amz-confirm-remove-self-bucket-access` has nothing to confirm.
pub(crate) async fn put(cx: &Context, mut payload: Payload) -> Answer {
    let bucket = cx.bucket(Action::PutBucketPolicy).await?;
    let confirm = "x-amz-confirm-remove-self-bucket-access";
    if let Some(flag) = text(&cx.headers, confirm)
        && !flag.eq_ignore_ascii_case("true")
        && !flag.eq_ignore_ascii_case("false")
    {
        return Err(S3Error::invalid_argument("The value must be true or false", confirm, flag));
    }
    let body = cx.small_body(&mut payload, BODY_LEN_BYTES_MAX, BodyDigest::Optional).await?;
    if body.is_empty() {
        return Err(S3Code::MissingRequestBodyError.into());
    }
    let policy = Policy::parse(&body, bucket.own_name()).map_err(malformed)?;
    let rules = cx.shared.rules.of(&bucket).await?;
    if rules.public_access_block.block_public_policy && policy.is_public() {
        return Err(S3Code::AccessDenied.into());
    }
    let document = BucketDocument { kind: BucketDocumentKind::Policy, body: body.to_vec() };
    update_bucket(cx, &bucket, BucketChange::SetDocument(document)).await?;
    Ok(no_content())
}

/// GET `?policy`: the text as it was put.
pub(crate) async fn get(cx: &Context) -> Answer {
    let bucket = cx.bucket(Action::GetBucketPolicy).await?;
    let body = bucket_document(cx, &bucket, BucketDocumentKind::Policy).await?;
    let mut response = Response::new(ResponseBody::full(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// DELETE `?policy`; harmless without one.
pub(crate) async fn delete(cx: &Context) -> Answer {
    let bucket = cx.bucket(Action::DeleteBucketPolicy).await?;
    update_bucket(cx, &bucket, BucketChange::RemoveDocument(BucketDocumentKind::Policy)).await?;
    Ok(no_content())
}

/// GET `?policyStatus`: whether the bucket is public, by its policy or by its list.
///
/// A bucket with neither is not public. S3 itself was seen to answer that with NoSuchBucketPolicy, which its API reference
/// does not say, and which leaves out the lists that its own "meaning of public" counts.
pub(crate) async fn get_status(cx: &Context) -> Answer {
    let bucket = cx.bucket(Action::GetBucketPolicyStatus).await?;
    let rules = cx.shared.rules.of(&bucket).await?;
    let is_policy_public = rules.policy.as_ref().is_some_and(Policy::is_public);
    let has_lists = rules.ownership.has_acls() && !rules.public_access_block.ignore_public_acls;
    let is_public = is_policy_public || (has_lists && rules.acl.as_ref().is_some_and(Acl::is_public));
    Ok(xml(Writer::document("PolicyStatus", Namespace::S3, |xml| xml.value("IsPublic", is_public))))
}
