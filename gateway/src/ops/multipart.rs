//! Multipart uploads up to their completion: create, upload a part, list parts, abort.

use super::acl::{owner_of_version, settle_ownership};
use super::context::Context;
use super::encryption;
use super::get::part_number;
use super::headers::{add_checksums, add_etag, attributes, lock_request, text};
use super::list::{encoding, page_len};
use super::lock::may_lock;
use super::put::CHECKSUM_DEFAULT;
use super::receive::{Received, check_len, receive};
use super::tagging::check_tags_allowed;
use super::{Answer, no_content, status, xml};
use crate::access::Action;
use crate::checksum;
use crate::encryption::{AnswerTo, Use};
use crate::error::{S3Code, S3Error};
use crate::http_date;
use crate::lifecycle::add_abort;
use crate::payload::Payload;
use crate::xml::{Encoding, Namespace, Writer};
use http::{HeaderValue, StatusCode};
use valv_metadata_api::{
    AbortUpload, ChecksumAlgorithm, ChecksumType, CreateUpload, GetUpload, ListParts, PutPart, Upload,
};
use valv_types::{CommitId, TimestampMicros};

/// The checksum that the client chose for parts and object, if any.
fn chosen_checksum(cx: &Context) -> Result<Option<(ChecksumAlgorithm, ChecksumType)>, S3Error> {
    let kind = match text(&cx.headers, "x-amz-checksum-type") {
        None => None,
        Some(name) => Some(checksum::parse_type(name)?),
    };
    let Some(name) = text(&cx.headers, "x-amz-checksum-algorithm") else {
        return match kind {
            None => Ok(None),
            Some(_) => Err(S3Error::invalid_request(
                "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.",
            )),
        };
    };
    let algorithm = checksum::parse_algorithm(name)?;
    let kind = kind.unwrap_or(checksum::default_multipart_type(algorithm));
    checksum::check_multipart_type(algorithm, kind)?;
    Ok(Some((algorithm, kind)))
}

/// POST `?uploads`.
pub(crate) async fn create(cx: &Context) -> Answer {
    let mut attributes = attributes(&cx.headers)?;
    let checksum = chosen_checksum(cx)?;
    // A listing of uploads may ask for encoded keys; the answer here never does, but AWS checks the parameter.
    encoding(cx)?;
    let bucket = cx.bucket(Action::PutObject).await?;
    // After the policy, as for a PUT.
    let asked = encryption::asked(cx)?;
    let lock = lock_request(&cx.headers, &bucket, cx.now)?;
    may_lock(cx, &bucket, &lock).await?;
    settle_ownership(cx, &bucket, &mut attributes).await?;
    check_tags_allowed(cx, &bucket, &attributes.tags).await?;
    let sealing = encryption::new_object(cx, &bucket, asked).await?;
    attributes.encryption = sealing.to_record()?;
    cx.shared.data.check_room(bucket.layout.pool).await?;
    let request = CreateUpload {
        actor: cx.actor(),
        bucket: bucket.id,
        key: cx.key()?.clone(),
        attributes,
        lock,
        checksum,
        commit: CommitId::random(),
    };
    let upload = cx
        .shared
        .commit(move |metadata| {
            let request = request.clone();
            async move { metadata.create_upload(request).await }
        })
        .await?;
    let mut response = xml(Writer::document("InitiateMultipartUploadResult", Namespace::S3, |xml| {
        xml.text("Bucket", &bucket.name);
        xml.key("Key", upload.key.as_bytes(), Encoding::Plain);
        xml.text("UploadId", &upload.id.to_string());
    }));
    let headers = response.headers_mut();
    encryption::add_headers(cx, &sealing, headers, AnswerTo::Write);
    add_abort(cx, headers, &bucket, &upload.key, upload.initiated).await;
    if let Some((algorithm, kind)) = checksum {
        headers.insert("x-amz-checksum-algorithm", HeaderValue::from_static(checksum::algorithm_name(algorithm)));
        headers.insert("x-amz-checksum-type", HeaderValue::from_static(checksum::type_name(kind)));
    }
    Ok(response)
}

/// Refuses a part whose checksum is of another algorithm than the upload's.
fn check_algorithm(upload: &Upload, given: Option<ChecksumAlgorithm>) -> Result<(), S3Error> {
    match (upload.checksum, given) {
        (Some((chosen, _)), Some(given)) if chosen != given => Err(S3Error::invalid_request(format!(
            "Checksum Type mismatch occurred, expected checksum Type: {}, actual checksum Type: {}",
            checksum::algorithm_name(chosen).to_ascii_lowercase(),
            checksum::algorithm_name(given).to_ascii_lowercase()
        ))),
        _ => Ok(()),
    }
}

/// PUT of a part.
pub(crate) async fn upload_part(cx: &Context, payload: Payload) -> Answer {
    let customer = encryption::part_key(cx, Use::Write)?;
    let number = part_number(cx)?.ok_or(S3Code::InvalidRequest)?;
    let id = cx.upload()?;
    let expected = cx.expected_digests()?;
    check_len(&payload)?;
    let bucket = cx.bucket(Action::PutObject).await?;
    let key = cx.key()?.clone();
    let request = GetUpload { bucket: bucket.id, key: key.clone(), upload: id };
    let upload = cx.shared.metadata.get_upload(request).await?;
    check_algorithm(&upload, expected.algorithm())?;
    let sealing = encryption::part(cx, &bucket, &upload.attributes, customer).await?;

    // What the upload was opened with; or what this part brings, and always the default, from whose parts the object's
    // is made.
    let algorithms: Vec<_> = match upload.checksum {
        Some((chosen, _)) => vec![chosen],
        None => expected.algorithm().into_iter().chain([CHECKSUM_DEFAULT]).collect(),
    };
    let received = receive(cx, payload, &bucket, sealing.key(), &expected, algorithms).await?;
    let md5 = sealing.etag(received.md5()?)?;
    let Received { finished, digests } = received;
    let request = PutPart {
        actor: cx.actor(),
        bucket: bucket.id,
        key,
        upload: id,
        number,
        body: finished.body,
        md5,
        checksums: digests.to_records(),
        proof: finished.proof,
        commit: CommitId::random(),
    };
    let part = cx
        .shared
        .commit_blob(finished.guard, move |metadata| {
            let request = request.clone();
            async move { metadata.put_part(request).await }
        })
        .await?;
    let mut response = status(StatusCode::OK);
    let headers = response.headers_mut();
    add_etag(headers, &hex::encode(part.md5));
    encryption::add_headers(cx, &sealing, headers, AnswerTo::Read);
    // What the client gave, or chose at the start; not the one that is only ours.
    let told = upload.checksum.map(|(algorithm, _)| algorithm).or(expected.algorithm());
    let told: Vec<_> = part.checksums.iter().filter(|one| Some(one.algorithm) == told).cloned().collect();
    add_checksums(headers, &told, None);
    headers.remove("x-amz-checksum-type");
    Ok(response)
}

/// DELETE of an upload.
pub(crate) async fn abort(cx: &Context) -> Answer {
    let id = cx.upload()?;
    let bucket = cx.bucket_of_upload(Action::AbortMultipartUpload).await?;
    let request = AbortUpload {
        actor: cx.actor(),
        bucket: bucket.id,
        key: cx.key()?.clone(),
        upload: id,
        commit: CommitId::random(),
    };
    cx.shared
        .commit(move |metadata| {
            let request = request.clone();
            async move { metadata.abort_upload(request).await }
        })
        .await?;
    Ok(no_content())
}

/// GET of an upload's parts.
pub(crate) async fn list_parts(cx: &Context) -> Answer {
    let id = cx.upload()?;
    let limit = page_len(cx, "max-parts")?;
    let marker = cx.query.get("part-number-marker")?.unwrap_or("0");
    let after: u32 = marker.parse().map_err(|_| {
        S3Error::invalid_argument(
            "Argument part-number-marker must be an integer between 0 and 2147483647",
            "part-number-marker",
            marker,
        )
    })?;
    let encoding = encoding(cx)?;
    let customer = encryption::part_key(cx, Use::Read)?;
    let bucket = cx.bucket_of_upload(Action::ListMultipartUploadParts).await?;
    let request = ListParts {
        bucket: bucket.id,
        key: cx.key()?.clone(),
        upload: id,
        // No part has a higher number.
        after: u16::try_from(after).unwrap_or(u16::MAX),
        limit: limit.max(1),
    };
    let mut list = cx.shared.metadata.list_parts(request).await?;
    if limit == 0 {
        list.parts.clear();
        list.truncated = false;
    }
    let upload = &list.upload;
    encryption::upload(&bucket, upload, customer)?;
    let initiator = match upload.owner {
        None => None,
        Some(id) => cx.shared.principals.user(id).await?,
    };
    let owner = owner_of_version(cx, &bucket, upload.owner).await?;
    let mut response = xml(Writer::document("ListPartsResult", Namespace::S3, |xml| {
        xml.text("Bucket", &bucket.name);
        xml.key("Key", upload.key.as_bytes(), encoding);
        xml.text("UploadId", &upload.id.to_string());
        for (element, user) in [("Initiator", &initiator), ("Owner", &owner)] {
            if let Some(user) = user {
                xml.element(element, |xml| {
                    xml.text("ID", &user.canonical_id);
                    xml.text("DisplayName", &user.display_name);
                });
            }
        }
        xml.text("StorageClass", "STANDARD");
        xml.value("PartNumberMarker", after);
        xml.value("NextPartNumberMarker", list.parts.last().map_or(0, |last| last.number));
        xml.value("MaxParts", limit);
        if encoding == Encoding::Url {
            xml.text("EncodingType", "url");
        }
        xml.value("IsTruncated", list.truncated);
        if let Some((algorithm, kind)) = upload.checksum {
            xml.text("ChecksumAlgorithm", checksum::algorithm_name(algorithm));
            xml.text("ChecksumType", checksum::type_name(kind));
        }
        for part in &list.parts {
            xml.element("Part", |xml| {
                xml.value("PartNumber", part.number);
                let modified = TimestampMicros::from_secs(part.modified.as_secs());
                xml.text("LastModified", &http_date::format_iso8601(modified));
                xml.etag(&hex::encode(part.md5));
                xml.value("Size", part.blob.len_bytes);
                for one in part.checksums.iter().filter(|one| upload.checksum.is_some_and(|(a, _)| a == one.algorithm))
                {
                    xml.text(checksum::element_name(one.algorithm), &checksum::encode(&one.value));
                }
            });
        }
    }));
    add_abort(cx, response.headers_mut(), &bucket, &upload.key, upload.initiated).await;
    Ok(response)
}
