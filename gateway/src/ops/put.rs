//! PutObject.

use super::acl::settle_ownership;
use super::context::Context;
use super::encryption;
use super::get::written_headers;
use super::headers::{attributes, lock_request};
use super::lock::may_lock;
use super::receive::{Received, check_len, receive};
use super::tagging::check_tags_allowed;
use super::{Answer, status};
use crate::access::Action;
use crate::conditions::write_condition;
use crate::encryption::AnswerTo;
use crate::lifecycle::{Expiring, len_of};
use crate::payload::Payload;
use http::StatusCode;
use valv_metadata_api::{ChecksumAlgorithm, PutObject};
use valv_types::CommitId;

/// The checksum that an object gets if its client gives none, as AWS does since December 2024.
pub(crate) const CHECKSUM_DEFAULT: ChecksumAlgorithm = ChecksumAlgorithm::Crc64Nvme;

/// PUT of an object: stream, store, commit.
pub(crate) async fn put(cx: &Context, payload: Payload) -> Answer {
    let expected = cx.expected_digests()?;
    let condition = write_condition(&cx.headers)?;
    let mut attributes = attributes(&cx.headers)?;
    check_len(&payload)?;
    let bucket = cx.bucket(Action::PutObject).await?;
    // After the policy, which may deny what is not even valid: it judges the headers as they came.
    let asked = encryption::asked(cx)?;
    let lock = lock_request(&cx.headers, &bucket, cx.now)?;
    may_lock(cx, &bucket, &lock).await?;
    cx.may_compare(&bucket, cx.key()?, &condition).await?;
    settle_ownership(cx, &bucket, &mut attributes).await?;
    check_tags_allowed(cx, &bucket, &attributes.tags).await?;
    let sealing = encryption::new_object(cx, &bucket, asked).await?;

    let algorithm = expected.algorithm().unwrap_or(CHECKSUM_DEFAULT);
    let received = receive(cx, payload, &bucket, sealing.key(), &expected, [algorithm]).await?;
    attributes.etag = hex::encode(sealing.etag(received.md5()?)?);
    attributes.encryption = sealing.to_record()?;
    attributes.checksums = received.digests.to_records();
    let Received { finished, .. } = received;
    let request = PutObject {
        actor: cx.actor(),
        bucket: bucket.id,
        key: cx.key()?.clone(),
        body: finished.body,
        attributes,
        lock,
        condition,
        proof: finished.proof,
        commit: CommitId::random(),
    };
    let key = request.key.clone();
    let expiring = Expiring::of(cx, &bucket, &key, len_of(&request.body), &request.attributes.tags).await;
    let written = cx
        .shared
        .commit_blob(finished.guard, move |metadata| {
            let request = request.clone();
            async move { metadata.put_object(request).await }
        })
        .await
        .map_err(|error| super::context::no_such_object(error, &key, valv_metadata_api::VersionSelector::Current))?;
    let mut response = status(StatusCode::OK);
    written_headers(response.headers_mut(), &written);
    encryption::add_headers(cx, &sealing, response.headers_mut(), AnswerTo::Write);
    expiring.add(response.headers_mut(), written.order);
    Ok(response)
}
