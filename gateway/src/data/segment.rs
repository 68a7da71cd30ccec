//! A segment: neighbouring frames of one chunk, fetched together, opened where they lie.

use super::DataPath;
use super::error::DataError;
use super::fetch::{ChunkReads, Part, parts};
use super::memory::Reservation;
use bytes::Bytes;
use futures_util::future::join_all;
use std::ops::Range;
use std::sync::Arc;
use valv_codec::FrameOpener;
use valv_types::{BlobId, ChunkGeometry, ChunkId, Layout};

/// Frames opened before other tasks get their turn: four take about 40 us.
const FRAMES_PER_TURN: usize = 4;
/// Combinations of shards tried for a frame that fails authentication. 4+2 has 15 and 10+4 has 1,001; a frame that none of
/// so many opens is lost.
const COMBINATIONS_MAX: usize = 1024;

/// A blob that is being read.
pub(super) struct OpenBlob {
    pub(super) path: Arc<DataPath>,
    pub(super) blob: BlobId,
    pub(super) layout: Layout,
    pub(super) len_bytes: u64,
    pub(super) opener: FrameOpener,
}

/// Which frames of which chunk to read, and which of their bytes are wanted.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) geometry: ChunkGeometry,
    /// Indices within the chunk.
    pub(super) frames: Range<u32>,
    /// Offsets within the blob.
    pub(super) wanted: Range<u64>,
}

/// Opened frames, and the share of the memory budget that they take.
struct Opened {
    bytes: Bytes,
    _reservation: Reservation,
}

impl AsRef<[u8]> for Opened {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl OpenBlob {
    /// The wanted plaintext of a segment, in pieces of at most a frame. Every piece was verified and opened.
    pub(super) async fn read(&self, segment: Segment) -> Result<Vec<Bytes>, DataError> {
        let frame_len = self.layout.frame_sealed_bytes();
        let Segment { geometry, frames, wanted } = segment;
        let sealed_range = frames.start * frame_len..(frames.end * frame_len).min(geometry.sealed_len_bytes);
        let reservation = self.path.memory.reserve(sealed_range.len()).await?;
        let chunk = ChunkId { blob: self.blob, index: geometry.index };
        let mut sealed = self.fetch(chunk, geometry, sealed_range).await?;

        let first = u64::from(geometry.index) * u64::from(self.layout.frames_per_chunk);
        let frame_count = self.len_bytes.div_ceil(u64::from(self.layout.frame_plain_bytes));
        let mut plain_lens = Vec::with_capacity(frames.len());
        for (turn, (frame, bytes)) in frames.clone().zip(sealed.chunks_mut(frame_len as usize)).enumerate() {
            let index = u32::try_from(first + u64::from(frame)).map_err(|_| DataError::Misuse)?;
            let last = u64::from(index) + 1 == frame_count;
            let opened = self.opener.open(bytes, index, last).map(|plain| plain.len());
            let plain_len = match opened {
                Ok(len) => len,
                Err(_) => {
                    let plain = self.rescue(chunk, geometry, frame, index, last).await?;
                    let room =
                        bytes.get_mut(..plain.len()).ok_or(DataError::Corrupt { blob: self.blob, frame: index })?;
                    room.copy_from_slice(&plain);
                    plain.len()
                }
            };
            plain_lens.push(plain_len);
            if turn % FRAMES_PER_TURN == FRAMES_PER_TURN - 1 {
                tokio::task::yield_now().await;
            }
        }
        if plain_lens.len() != frames.len() {
            return Err(DataError::Corrupt { blob: self.blob, frame: frames.end });
        }
        let opened = Bytes::from_owner(Opened { bytes: sealed.freeze(), _reservation: reservation });
        let frame_plain = u64::from(self.layout.frame_plain_bytes);
        let pieces = frames.zip(plain_lens).enumerate().filter_map(|(position, (frame, plain_len))| {
            let offset = geometry.plain_offset + u64::from(frame) * frame_plain;
            let start = wanted.start.max(offset);
            let end = wanted.end.min(offset + plain_len as u64);
            // Differences are below a frame's length.
            let within = |at: u64| position * frame_len as usize + (at - offset) as usize;
            (start < end).then(|| opened.slice(within(start)..within(end)))
        });
        Ok(pieces.collect())
    }

    async fn reads(&self, chunk: ChunkId, geometry: ChunkGeometry) -> Result<ChunkReads, DataError> {
        let place = self.path.cluster.place(self.layout.pool, chunk, geometry.coding.shards()).await?;
        Ok(ChunkReads::new(Arc::clone(&self.path), self.layout.pool, chunk, geometry, place))
    }

    async fn fetch(
        &self,
        chunk: ChunkId,
        geometry: ChunkGeometry,
        range: Range<u32>,
    ) -> Result<bytes::BytesMut, DataError> {
        let pool = self.layout.pool;
        let shards = geometry.coding.shards();
        let before = self.path.cluster.place(pool, chunk, shards).await?;
        let disks = before.disks.clone();
        let reads = ChunkReads::new(Arc::clone(&self.path), pool, chunk, geometry, before);
        match reads.fetch(range.clone()).await {
            Err(error @ DataError::NotEnoughShards { .. }) => {
                // The placement group may have moved since the map was read.
                self.path.cluster.refresh_map().await?;
                let now = self.path.cluster.place(pool, chunk, shards).await?;
                if now.disks == disks {
                    return Err(error);
                }
                ChunkReads::new(Arc::clone(&self.path), pool, chunk, geometry, now).fetch(range).await
            }
            other => other,
        }
    }

    /// Looks for a combination of k shards from which a frame opens that failed authentication although every block
    /// that it was read from matched its hash: a shard of the right name with wrong contents.
    async fn rescue(
        &self,
        chunk: ChunkId,
        geometry: ChunkGeometry,
        frame: u32,
        index: u32,
        last: bool,
    ) -> Result<Vec<u8>, DataError> {
        tracing::error!(blob = %self.blob, frame = index, "a frame fails authentication; trying every combination of shards");
        self.path.repairs.report(self.blob);
        let coding = geometry.coding;
        let start = frame * self.layout.frame_sealed_bytes();
        let sealed = start..(start + self.layout.frame_sealed_bytes()).min(geometry.sealed_len_bytes);
        let all_len = sealed.len() * usize::from(coding.shards());
        let _memory = self.path.memory.reserve_for_recovery(all_len).await?;
        let reads = self.reads(chunk, geometry).await?;
        let pieces = parts(&geometry, sealed);
        let reads = &reads;
        let read_all = pieces.iter().map(|part| async move {
            let of_each = (0..coding.shards()).map(|shard| reads.read(&Part { shard, range: part.range.clone() }));
            join_all(of_each).await.into_iter().map(Result::ok).collect::<Vec<Option<Bytes>>>()
        });
        let found = join_all(read_all).await;
        let usable: Vec<u8> = (0..coding.shards())
            .filter(|shard| found.iter().all(|of_part| of_part[usize::from(*shard)].is_some()))
            .collect();
        for chosen in combinations(&usable, usize::from(coding.k)).take(COMBINATIONS_MAX) {
            let mut candidate = Vec::new();
            for (part, of_part) in pieces.iter().zip(&found) {
                let present: Vec<(u8, &[u8])> = chosen
                    .iter()
                    .filter_map(|shard| Some((*shard, of_part[usize::from(*shard)].as_deref()?)))
                    .collect();
                let mut piece = vec![0; part.range.len()];
                valv_erasure::reconstruct_some(coding, &present, &mut [(part.shard, &mut piece)])?;
                candidate.extend_from_slice(&piece);
            }
            if let Ok(plain) = self.opener.open(&mut candidate, index, last) {
                tracing::warn!(blob = %self.blob, frame = index, shards = ?chosen, "the frame was found whole in other shards");
                self.path.metrics.frames_rescued.inc();
                return Ok(plain.to_vec());
            }
            tokio::task::yield_now().await;
        }
        Err(DataError::Corrupt { blob: self.blob, frame: index })
    }
}

/// Every way to choose `size` of `items`, in lexicographic order.
fn combinations(items: &[u8], size: usize) -> impl Iterator<Item = Vec<u8>> + '_ {
    let mut next = (size <= items.len()).then(|| (0..size).collect::<Vec<usize>>());
    std::iter::from_fn(move || {
        let current = next.take()?;
        let mut following = current.clone();
        if let Some(moving) = (0..size).rev().find(|i| current[*i] < items.len() - size + i) {
            following[moving] += 1;
            for i in moving + 1..size {
                following[i] = following[i - 1] + 1;
            }
            next = Some(following);
        }
        Some(current.into_iter().map(|i| items[i]).collect())
    })
}

#[cfg(test)]
mod tests {
    use super::combinations;

    #[test]
    fn combinations_are_all_there_once() {
        let of = |n: u8, k| combinations(&(0..n).collect::<Vec<_>>(), k).collect::<Vec<_>>();
        assert_eq!(of(4, 2), [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]);
        assert_eq!(of(6, 4).len(), 15);
        assert_eq!(of(3, 3), [[0, 1, 2]]);
        assert!(of(2, 3).is_empty());
    }
}
