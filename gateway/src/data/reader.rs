//! Reading a range of a blob: segments fetched ahead, yielded in order.

use super::DataPath;
use super::error::DataError;
use super::segment::{OpenBlob, Segment};
use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, Stream, StreamExt};
use std::collections::VecDeque;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio_util::task::AbortOnDropHandle;
use valv_codec::{BlobContext, CustomerKey, FrameOpener, wrapped_data_key_version};
use valv_metadata_api::{BlobPlace, BlobRecord};
use valv_types::{Layout, ProjectId};

/// Plaintext in a segment at most: 32 frames of layout 1, which in a full 4+2 chunk are exactly one data shard.
const SEGMENT_PLAIN_BYTES_MAX: u32 = 2 << 20;
/// Segments on their way at a time, besides the one that is being sent: a full 4+2 chunk is read from four disks at once,
/// and a download holds at most five segments, 10 MiB.
const SEGMENTS_AHEAD: usize = 4;
/// How often the right to go on is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Whether a transfer may go on.
pub type TransferCheck = Arc<dyn Fn() -> bool + Send + Sync>;

/// The plaintext of a range of a blob, in pieces of at most a frame. Every piece was verified and opened before it is
/// yielded; after an error nothing follows.
///
/// Dropping the stream stops what it was reading. The pieces count against the memory budget until they are dropped.
pub struct BlobStream {
    blob: Option<Arc<OpenBlob>>,
    plan: Plan,
    ahead: FuturesOrdered<BoxFuture<'static, Result<Vec<Bytes>, DataError>>>,
    ready: VecDeque<Bytes>,
    left: u64,
    check: Option<(TransferCheck, Instant)>,
    path: Arc<DataPath>,
}

impl std::fmt::Debug for BlobStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlobStream({} bytes left)", self.left)
    }
}

/// What is still to be fetched.
#[derive(Debug, Clone)]
struct Plan {
    layout: Layout,
    len_bytes: u64,
    wanted: Range<u64>,
}

impl Iterator for Plan {
    type Item = Segment;

    fn next(&mut self) -> Option<Segment> {
        if self.wanted.is_empty() {
            return None;
        }
        let frame_plain = u64::from(self.layout.frame_plain_bytes);
        let chunk_plain = u64::from(self.layout.chunk_plain_bytes());
        let geometry = self.layout.chunk(self.len_bytes, u32::try_from(self.wanted.start / chunk_plain).ok()?)?;
        let chunk_end = geometry.plain_offset + u64::from(geometry.plain_len_bytes);
        let end = self.wanted.end.min(chunk_end);
        // Within a chunk everything fits 32 bits.
        let first = ((self.wanted.start - geometry.plain_offset) / frame_plain) as u32;
        let after_last = (end - geometry.plain_offset).div_ceil(frame_plain) as u32;
        let per_segment = (SEGMENT_PLAIN_BYTES_MAX / self.layout.frame_plain_bytes).max(1);
        let frames = first..after_last.min((first / per_segment + 1) * per_segment);
        let segment_end = end.min(geometry.plain_offset + u64::from(frames.end) * frame_plain);
        let wanted = self.wanted.start..segment_end;
        self.wanted.start = segment_end;
        Some(Segment { geometry, frames, wanted })
    }
}

impl BlobStream {
    pub(super) async fn open(
        path: Arc<DataPath>,
        project: ProjectId,
        record: &BlobRecord,
        inline: Option<Bytes>,
        range: Range<u64>,
        customer: Option<&CustomerKey>,
    ) -> Result<Self, DataError> {
        let layout = record.layout;
        layout.check()?;
        let frames = record.len_bytes.div_ceil(u64::from(layout.frame_plain_bytes));
        if range.start > range.end || range.end > record.len_bytes || frames > u64::from(u32::MAX) {
            return Err(DataError::Misuse);
        }
        let mut stream = Self {
            blob: None,
            plan: Plan { layout, len_bytes: record.len_bytes, wanted: range.clone() },
            ahead: FuturesOrdered::new(),
            ready: VecDeque::new(),
            left: range.end - range.start,
            check: None,
            path: Arc::clone(&path),
        };
        if range.is_empty() {
            return Ok(stream);
        }
        let version = wrapped_data_key_version(&record.wrapped_key)?;
        let project_key = path.keys.version(project, version).await?;
        let data_key = project_key.unwrap_data_key(project, record.blob, &record.wrapped_key, customer)?;
        let opener = FrameOpener::new(&data_key, BlobContext { project, blob: record.blob });
        match record.place {
            BlobPlace::Inline => {
                let sealed = inline.ok_or(DataError::Misuse)?;
                let plain = open_inline(&opener, record, sealed)?;
                // An inline body is one frame, so its offsets fit.
                stream.ready.push_back(plain.slice(range.start as usize..range.end as usize));
                stream.plan.wanted = range.end..range.end;
            }
            BlobPlace::Shards => {
                let blob = OpenBlob { path, blob: record.blob, layout, len_bytes: record.len_bytes, opener };
                stream.blob = Some(Arc::new(blob));
                stream.first_segment().await?;
            }
        }
        Ok(stream)
    }

    /// Ends the transfer with [`DataError::Revoked`] once `check` says no. It is asked before the first piece and then
    /// at most once a second.
    pub fn with_check(mut self, check: TransferCheck) -> Self {
        self.check = Some((check, Instant::now()));
        self
    }

    /// Waits for the first segment, so that a blob that can't be read is known before a status line is sent. The segments
    /// after it are fetched meanwhile.
    async fn first_segment(&mut self) -> Result<(), DataError> {
        let (Some(blob), Some(first)) = (self.blob.clone(), self.plan.next()) else { return Ok(()) };
        self.fetch_ahead();
        self.ready = blob.read(first).await?.into();
        Ok(())
    }

    fn fetch_ahead(&mut self) {
        let Some(blob) = &self.blob else { return };
        while self.ahead.len() < SEGMENTS_AHEAD
            && let Some(segment) = self.plan.next()
        {
            let blob = Arc::clone(blob);
            // Tasks, so that a segment is fetched and opened while the connection is busy with another. They end with the
            // stream that owns them.
            let task = AbortOnDropHandle::new(tokio::spawn(async move { blob.read(segment).await }));
            self.ahead.push_back(Box::pin(async move { task.await.unwrap_or(Err(DataError::Stopped)) }));
        }
    }

    fn end_with(&mut self, error: DataError) -> Poll<Option<Result<Bytes, DataError>>> {
        self.left = 0;
        self.ready.clear();
        self.ahead = FuturesOrdered::new();
        self.blob = None;
        Poll::Ready(Some(Err(error)))
    }

    fn revoked(&mut self) -> bool {
        let Some((check, next)) = &mut self.check else { return false };
        let now = Instant::now();
        if now < *next {
            return false;
        }
        *next = now + CHECK_INTERVAL;
        !check()
    }
}

impl Stream for BlobStream {
    type Item = Result<Bytes, DataError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.left == 0 {
            return Poll::Ready(None);
        }
        if this.revoked() {
            return this.end_with(DataError::Revoked);
        }
        loop {
            if let Some(piece) = this.ready.pop_front() {
                this.left = this.left.saturating_sub(piece.len() as u64);
                this.path.metrics.bytes_out.inc_by(piece.len() as u64);
                return Poll::Ready(Some(Ok(piece)));
            }
            this.fetch_ahead();
            match this.ahead.poll_next_unpin(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(pieces))) => {
                    this.ready = pieces.into();
                    this.fetch_ahead();
                }
                Poll::Ready(Some(Err(error))) => return this.end_with(error),
                // The plan covers the range, so this is never reached with bytes left; if it were, an end would lie.
                Poll::Ready(None) => return this.end_with(DataError::Misuse),
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::from(self.left > 0), None)
    }
}

fn open_inline(opener: &FrameOpener, record: &BlobRecord, sealed: Bytes) -> Result<Bytes, DataError> {
    let corrupt = DataError::Corrupt { blob: record.blob, frame: 0 };
    let mut sealed = sealed.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    let plain_len = opener.open(&mut sealed, 0, true).map_err(|_| corrupt.clone())?.len();
    if plain_len as u64 != record.len_bytes {
        return Err(corrupt);
    }
    sealed.truncate(plain_len);
    Ok(sealed.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use valv_types::PoolId;

    #[test]
    fn an_aligned_frame_of_a_full_chunk_touches_one_shard() {
        let layout = Layout::current(PoolId(1), 4, 2).expect("a valid layout");
        for frame in [0u64, 31, 32, 127] {
            let wanted = frame * 65_536..(frame + 1) * 65_536;
            let segments: Vec<_> = Plan { layout, len_bytes: 64 << 20, wanted }.collect();
            let [segment] = &segments[..] else { panic!("one segment") };
            let sealed = segment.frames.start * 65_552..segment.frames.end * 65_552;
            assert_eq!(super::super::fetch::parts(&segment.geometry, sealed).len(), 1, "frame {frame}");
        }
    }
}
