//! The bytes of a stored object on their way out: one blob, or the parts that a range touches, one after the other.

use crate::access::Account;
use crate::body::ByteStream;
use crate::data::BlobStream;
use crate::error::{S3Code, S3Error};
use crate::state::Shared;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use valv_codec::CustomerKey;
use valv_metadata_api::{
    BlobPlace, BlobRecord, Body, FoundObject, GetPartPage, InlineFrame, PartPage, PartRecord, PartsIndex,
};
use valv_types::{BucketId, ProjectId};

/// Whose bytes are read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner {
    /// The project whose keys open them.
    pub(crate) project: ProjectId,
    /// The bucket of the version.
    pub(crate) bucket: BucketId,
}

/// Opens `range` of an object, with the customer's key if it was sealed with one. The first piece has been read and verified when this returns, so that what is wrong from
/// the start becomes an error and not a broken connection.
///
/// # Errors
/// As the data path's; InternalError for a record that contradicts itself.
pub(crate) async fn open(
    shared: &Arc<Shared>,
    owner: Owner,
    found: &FoundObject,
    range: Range<u64>,
    customer: Option<&CustomerKey>,
) -> Result<ByteStream, S3Error> {
    if range.is_empty() {
        return Ok(Box::pin(stream::empty()));
    }
    let rest = match &found.version.body {
        Body::Empty => return Err(S3Code::InternalError.into()),
        Body::Blob(blob) => Rest::Blob(Some((blob.clone(), found.inline.clone().map(Bytes::from)))),
        Body::Parts(index) => {
            // The page that holds the range's first byte.
            let page = index.page_offsets.partition_point(|&offset| offset <= range.start).saturating_sub(1);
            Rest::Parts { index: index.clone(), page, parts: VecDeque::new(), inline: Vec::new() }
        }
    };
    let mut reader =
        Reader { shared: Arc::clone(shared), owner, rest, range, customer: customer.cloned(), current: None };
    let first = reader.next().await?;
    let rest = stream::try_unfold(reader, |mut reader| async move {
        let piece = reader.next().await?;
        Ok(piece.map(|piece| (piece, reader)))
    });
    Ok(Box::pin(stream::iter(first.map(Ok)).chain(rest)))
}

/// Charges what a stream gives to an opening's byte budget, and ends it when nothing is left.
pub(crate) fn charged(account: Option<Account>, stream: ByteStream) -> ByteStream {
    let Some(account) = account else { return stream };
    Box::pin(stream::try_unfold((account, stream, Bytes::new()), |(account, mut stream, mut rest)| async move {
        while rest.is_empty() {
            match stream.next().await {
                Some(piece) => rest = piece?,
                None => return Ok(None),
            }
        }
        let taken = account.take(rest.len() as u64).await?;
        let piece = rest.split_to(usize::try_from(taken).unwrap_or(usize::MAX).min(rest.len()));
        Ok(Some((piece, (account, stream, rest))))
    }))
}

/// Reads a page of a multipart object's parts.
///
/// # Errors
/// As metadata's.
pub(crate) async fn part_page(
    shared: &Shared,
    bucket: BucketId,
    index: &PartsIndex,
    page: usize,
) -> Result<PartPage, S3Error> {
    let page = u32::try_from(page).map_err(|_| S3Code::InternalError)?;
    Ok(shared.metadata.get_part_page(GetPartPage { version: index.pages_of, bucket, page }).await?)
}

struct Reader {
    shared: Arc<Shared>,
    owner: Owner,
    rest: Rest,
    /// What is still to be opened, as offsets in the object.
    range: Range<u64>,
    /// Opens the blobs together with the project's key; gone with the stream.
    customer: Option<CustomerKey>,
    current: Option<BlobStream>,
}

enum Rest {
    Blob(Option<(BlobRecord, Option<Bytes>)>),
    Parts {
        index: PartsIndex,
        /// The page to be read next.
        page: usize,
        /// What is left of the page that was read.
        parts: VecDeque<PartRecord>,
        inline: Vec<InlineFrame>,
    },
}

impl Reader {
    /// The next piece; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, S3Error> {
        loop {
            if let Some(current) = &mut self.current {
                match current.next().await {
                    Some(piece) => return Ok(Some(piece?)),
                    None => self.current = None,
                }
            }
            if self.range.is_empty() {
                return Ok(None);
            }
            let (blob, inline, range) = self.next_blob().await?;
            let data = &self.shared.data;
            let stream = data.read_blob_for(self.owner.project, &blob, inline, range, self.customer.as_ref()).await?;
            self.current = Some(stream);
        }
    }

    /// The next blob that the range touches, and which of its bytes.
    async fn next_blob(&mut self) -> Result<(BlobRecord, Option<Bytes>, Range<u64>), S3Error> {
        match &mut self.rest {
            Rest::Blob(blob) => {
                let (blob, inline) = blob.take().ok_or(S3Code::InternalError)?;
                let range = std::mem::take(&mut self.range);
                Ok((blob, inline, range))
            }
            Rest::Parts { index, page, parts, inline } => loop {
                let Some(part) = parts.pop_front() else {
                    if *page >= index.page_offsets.len() {
                        return Err(S3Code::InternalError.into());
                    }
                    let read = part_page(&self.shared, self.owner.bucket, index, *page).await?;
                    *page += 1;
                    *parts = read.parts.into();
                    *inline = read.inline;
                    continue;
                };
                let end = part.offset + part.blob.len_bytes;
                if end <= self.range.start {
                    continue;
                }
                if part.offset > self.range.start {
                    // A gap between parts would be skipped bytes.
                    return Err(S3Code::InternalError.into());
                }
                let range = self.range.start - part.offset..self.range.end.min(end) - part.offset;
                self.range.start = self.range.end.min(end);
                let frame = match part.blob.place {
                    BlobPlace::Shards => None,
                    BlobPlace::Inline => inline
                        .iter()
                        .find(|frame| frame.blob == part.blob.blob)
                        .map(|frame| Bytes::from(frame.sealed.clone())),
                };
                return Ok((part.blob, frame, range));
            },
        }
    }
}
