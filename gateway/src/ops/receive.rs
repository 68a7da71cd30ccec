//! A body on its way in: verified and hashed in the pass in which it is sealed and stored.

use super::Context;
use crate::checksum::{BodyHasher, Digests, ExpectedDigests, WithMd5};
use crate::data::FinishedBlob;
use crate::error::{S3Code, S3Error};
use crate::limits::PUT_LEN_BYTES_MAX;
use crate::payload::Payload;
use valv_codec::CustomerKey;
use valv_metadata_api::{Bucket, ChecksumAlgorithm};

/// A body that is safe on the disks and visible to nobody.
pub(crate) struct Received {
    pub(crate) finished: FinishedBlob,
    pub(crate) digests: Digests,
}

impl Received {
    /// The body's MD5.
    ///
    /// # Errors
    /// InternalError, which [`receive`] rules out by always asking for it.
    pub(crate) fn md5(&self) -> Result<[u8; 16], S3Error> {
        self.digests.md5().ok_or_else(|| S3Code::InternalError.into())
    }
}

/// Refuses a body that has no length or is too long, before a byte of it is read. `None` if the body bounds itself.
///
/// # Errors
/// MissingContentLength, EntityTooLarge.
pub(crate) fn check_len(payload: &Payload) -> Result<Option<u64>, S3Error> {
    let len_bytes = payload.required_len_bytes()?;
    if let Some(len_bytes) = len_bytes.filter(|&len_bytes| len_bytes > PUT_LEN_BYTES_MAX) {
        return Err(S3Error::new(S3Code::EntityTooLarge)
            .with_extra("ProposedSize", len_bytes.to_string())
            .with_extra("MaxSizeAllowed", PUT_LEN_BYTES_MAX.to_string())
            .closing_connection());
    }
    Ok(len_bytes)
}

/// Stores the request's body as a new blob of `bucket`'s project, which `customer`'s key is needed for if there is one,
/// computing MD5 and `algorithms` on the way.
///
/// # Errors
/// Whatever is wrong with the body or its digests; that it can't be stored. Then, and when the future is dropped, what
/// was stored is deleted in the background.
pub(crate) async fn receive(
    cx: &Context,
    mut payload: Payload,
    bucket: &Bucket,
    customer: Option<&CustomerKey>,
    expected: &ExpectedDigests,
    algorithms: impl IntoIterator<Item = ChecksumAlgorithm>,
) -> Result<Received, S3Error> {
    let len_bytes = check_len(&payload)?;
    // The payload hashes by itself when the signature covers the hash: once is enough.
    let has_sha256 = payload.computes_sha256();
    let mut wants_sha256 = false;
    let algorithms = algorithms.into_iter().filter(|&algorithm| {
        wants_sha256 |= algorithm == ChecksumAlgorithm::Sha256;
        !(has_sha256 && algorithm == ChecksumAlgorithm::Sha256)
    });
    let mut hasher = BodyHasher::new(WithMd5::Yes, algorithms);
    let mut writer = cx.shared.data.write_blob_for(bucket.project, bucket.layout, len_bytes, customer).await?;
    let mut watch = cx.watch();
    loop {
        let piece = tokio::select! {
            biased;
            piece = payload.next() => piece,
            // Somebody who falls silent is not to keep an upload open with a right that has ended.
            () = watch.due() => {
                watch.check().await?;
                continue;
            }
        };
        let Some(bytes) = piece else { break };
        let bytes = bytes?;
        hasher.update(&bytes);
        cx.shared.metrics.received(cx.operation.name(), bytes.len() as u64);
        writer.write(bytes).await?;
        watch.check().await?;
    }
    let mut digests = hasher.finish();
    if wants_sha256 && let Some(sha256) = payload.sha256() {
        digests = digests.with(ChecksumAlgorithm::Sha256, sha256.to_vec());
    }
    expected.verify(&digests, payload.trailers())?;
    let finished = writer.finish().await?;
    Ok(Received { finished, digests })
}
