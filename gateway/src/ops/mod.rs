//! The operations of S3, over metadata and the data path.
//!
//! Every operation takes the request's [`Context`], asks [`crate::access::judge`] through it before it touches
//! anything, and reads the body only after that. What asks only is in the ledger before it is answered ([`recording`]). What changes something commits once; whatever fails before the commit
//! leaves nothing visible, because the blob's writer is dropped.

pub(crate) mod acl;
pub(crate) mod attributes;
pub(crate) mod bucket;
pub(crate) mod bucket_settings;
pub(crate) mod complete;
pub(crate) mod context;
pub(crate) mod copy;
pub(crate) mod cors;
pub(crate) mod delete;
pub(crate) mod encoded_words;
pub(crate) mod encryption;
pub(crate) mod errors;
pub(crate) mod get;
mod grants;
pub(crate) mod headers;
pub(crate) mod lifecycle;
pub(crate) mod list;
pub(crate) mod lock;
pub(crate) mod multipart;
pub(crate) mod ownership;
pub(crate) mod policy;
pub(crate) mod post;
pub(crate) mod probes;
pub(crate) mod put;
pub(crate) mod receive;
pub(crate) mod recording;
pub(crate) mod source;
pub(crate) mod tagging;
pub(crate) mod token;

pub(crate) use context::Context;

use crate::body::ResponseBody;
use crate::error::{S3Code, S3Error};
use crate::payload::Payload;
use crate::router::Operation;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};

/// What an operation answers.
pub(crate) type Answer = Result<Response<ResponseBody>, S3Error>;

/// Runs the operation that the router found.
pub(crate) async fn run(cx: &Context, payload: Payload) -> Answer {
    let answer = dispatch(cx, payload).await.map_err(|error| {
        // S3 names the upload that it does not know.
        let is_unnamed = error.code() == S3Code::NoSuchUpload && error.extra("UploadId").is_none();
        match cx.query.get("uploadId") {
            Ok(Some(id)) if is_unnamed => error.with_extra("UploadId", id),
            _ => error,
        }
    });
    recording::answered(cx, answer).await
}

async fn dispatch(cx: &Context, payload: Payload) -> Answer {
    use Operation::*;
    match cx.operation {
        ListBuckets => bucket::list(cx).await,
        CreateBucket => bucket::create(cx, payload).await,
        HeadBucket => bucket::head(cx).await,
        DeleteBucket => bucket::delete(cx).await,
        GetBucketLocation => bucket::location(cx).await,

        ListObjects => list::objects_v1(cx).await,
        ListObjectsV2 => list::objects_v2(cx).await,
        ListObjectVersions => list::versions(cx).await,
        ListMultipartUploads => list::uploads(cx).await,

        GetBucketVersioning => bucket_settings::get_versioning(cx).await,
        PutBucketVersioning => bucket_settings::put_versioning(cx, payload).await,
        GetPublicAccessBlock => bucket_settings::get_public_access_block(cx).await,
        PutPublicAccessBlock => bucket_settings::put_public_access_block(cx, payload).await,
        DeletePublicAccessBlock => bucket_settings::delete_public_access_block(cx).await,
        GetBucketCors => cors::get(cx).await,
        PutBucketCors => cors::put(cx, payload).await,
        DeleteBucketCors => cors::delete(cx).await,
        GetBucketEncryption => encryption::get(cx).await,
        PutBucketEncryption => encryption::put(cx, payload).await,
        DeleteBucketEncryption => encryption::delete(cx).await,
        GetBucketLifecycle => lifecycle::get(cx).await,
        PutBucketLifecycle => lifecycle::put(cx, payload).await,
        DeleteBucketLifecycle => lifecycle::delete(cx).await,
        GetBucketTagging => tagging::get_bucket(cx).await,
        PutBucketTagging => tagging::put_bucket(cx, payload).await,
        DeleteBucketTagging => tagging::delete_bucket(cx).await,
        GetObjectLockConfiguration => lock::get_configuration(cx).await,
        PutObjectLockConfiguration => lock::put_configuration(cx, payload).await,

        GetBucketAcl => acl::get_bucket(cx).await,
        PutBucketAcl => acl::put_bucket(cx, payload).await,
        GetBucketPolicy => policy::get(cx).await,
        PutBucketPolicy => policy::put(cx, payload).await,
        DeleteBucketPolicy => policy::delete(cx).await,
        GetBucketPolicyStatus => policy::get_status(cx).await,
        GetBucketOwnershipControls => ownership::get(cx).await,
        PutBucketOwnershipControls => ownership::put(cx, payload).await,
        DeleteBucketOwnershipControls => ownership::delete(cx).await,

        GetBucketLogging
        | PutBucketLogging
        | GetBucketNotification
        | PutBucketNotification
        | GetBucketRequestPayment
        | PutBucketRequestPayment
        | GetBucketWebsite
        | PutBucketWebsite
        | DeleteBucketWebsite
        | GetBucketReplication
        | PutBucketReplication
        | DeleteBucketReplication
        | GetBucketAccelerate
        | PutBucketAccelerate
        | ListBucketAnalytics
        | GetBucketAnalytics
        | ListBucketInventory
        | GetBucketInventory
        | ListBucketMetrics
        | GetBucketMetrics
        | ListBucketIntelligentTiering
        | GetBucketIntelligentTiering => probes::run(cx, payload).await,

        PutObject => put::put(cx, payload).await,
        PostObject => post::post(cx, payload).await,
        GetObject => get::get(cx, get::Want::Body).await,
        HeadObject => get::get(cx, get::Want::HeadersOnly).await,
        GetObjectAttributes => attributes::get(cx).await,
        CopyObject => copy::copy(cx).await,
        DeleteObject => delete::one(cx).await,
        DeleteObjects => delete::many(cx, payload).await,
        GetObjectTagging => tagging::get_object(cx).await,
        PutObjectTagging => tagging::put_object(cx, payload).await,
        DeleteObjectTagging => tagging::delete_object(cx).await,
        GetObjectAcl => acl::get_object(cx).await,
        PutObjectAcl => acl::put_object(cx, payload).await,
        GetObjectRetention => lock::get_retention(cx).await,
        PutObjectRetention => lock::put_retention(cx, payload).await,
        GetObjectLegalHold => lock::get_legal_hold(cx).await,
        PutObjectLegalHold => lock::put_legal_hold(cx, payload).await,

        CreateMultipartUpload => multipart::create(cx).await,
        UploadPart => multipart::upload_part(cx, payload).await,
        UploadPartCopy => copy::upload_part_copy(cx).await,
        CompleteMultipartUpload => complete::complete(cx, payload).await,
        AbortMultipartUpload => multipart::abort(cx).await,
        ListParts => multipart::list_parts(cx).await,

        // Answered before authentication; see `Gateway`.
        Preflight => Err(S3Error::not_implemented("OPTIONS")),
    }
}

/// 200 with a document.
pub(crate) fn xml(document: String) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::full(document));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    response
}

/// A status without a body.
pub(crate) fn status(status: StatusCode) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = status;
    response
}

/// 204.
pub(crate) fn no_content() -> Response<ResponseBody> {
    status(StatusCode::NO_CONTENT)
}
