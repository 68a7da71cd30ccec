//! Rebuilding a chunk's shards from k others. No key is needed: shards are ciphertext here.

use crate::ask::state_after;
use crate::plan::{ChunkPlaces, ShardPlace, ShardState, Verdict};
use crate::service::{RepairError, Shared};
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use std::time::Duration;
use valv_metadata_api::ListBlobs;
use valv_shard_api::{NewShard, ShardCodec, block_hashes};
use valv_types::{BlobId, ChunkGeometry};

/// How a chunk came out of a repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All its shards are present.
    Complete,
    /// Some are on disks that are away or would not take them.
    Waiting,
    /// It can't be rebuilt from what is there.
    Lost,
    /// Its blob was deleted meanwhile.
    Gone,
}

/// Shards to be written, and k others to make them from.
struct Ready {
    pieces: Vec<(u8, Bytes)>,
    wanted: Vec<ShardPlace>,
    generation: u32,
}

impl Shared {
    /// Mends chunks, several at a time, and returns them as they are then.
    pub(crate) async fn mend_all(&self, chunks: Vec<ChunkPlaces>) -> Result<Vec<(ChunkPlaces, Outcome)>, RepairError> {
        let mended = stream::iter(chunks).map(|mut chunk| async move {
            let outcome = self.mend(&mut chunk).await?;
            Ok((chunk, outcome))
        });
        mended.buffer_unordered(self.config.chunks_in_flight.max(1)).try_collect().await
    }

    /// Reads every shard that is said to be present, several chunks at a time, and marks those that fail verification.
    /// A chunk that a disk says nothing of is not complete in any case: it is read once all have answered, and not each
    /// time that it is tried while a disk is away.
    pub(crate) async fn read_through(&self, chunks: Vec<ChunkPlaces>) -> Vec<ChunkPlaces> {
        let read = stream::iter(chunks).map(|mut chunk| async move {
            let len_bytes = chunk.geometry.shard_len_bytes;
            if chunk.shards.iter().any(|place| place.state == ShardState::Unknown) {
                return chunk;
            }
            for place in &mut chunk.shards {
                if !matches!(place.state, ShardState::Present { .. }) {
                    continue;
                }
                self.pace(len_bytes as usize).await;
                if let Err(error) = self.read(place.disk, place.key, len_bytes).await {
                    place.state = state_after(&error);
                }
            }
            chunk
        });
        read.buffer_unordered(self.config.chunks_in_flight.max(1)).collect().await
    }

    /// Brings one chunk as far as its disks allow, and leaves in `chunk` what is true afterwards.
    async fn mend(&self, chunk: &mut ChunkPlaces) -> Result<Outcome, RepairError> {
        if matches!(chunk.verdict(), Verdict::Complete | Verdict::Waiting) {
            return Ok(outcome_of(chunk));
        }
        let _memory =
            self.memory.acquire_many(self.memory_kib(&chunk.geometry)).await.map_err(|_| RepairError::Stopped)?;
        let Some(Ready { pieces, wanted, generation }) = self.read_sources(chunk).await else {
            if !self.is_referenced(chunk).await? {
                return Ok(Outcome::Gone);
            }
            if let Verdict::Lost { have, need } = chunk.verdict() {
                let blob = chunk.shards.first().map(|place| place.key.blob);
                tracing::error!(?blob, chunk = chunk.geometry.index, have, need, "a chunk has too few good shards");
                self.metrics.chunks_lost.inc();
            }
            return Ok(outcome_of(chunk));
        };
        let indices = wanted.iter().map(|place| place.key.shard).collect();
        let geometry = chunk.geometry;
        let rebuilt = tokio::task::spawn_blocking(move || rebuild(&geometry, &pieces, indices))
            .await
            .map_err(|_| RepairError::Stopped)??;
        self.pace(geometry.shard_len_bytes as usize * wanted.len()).await;

        // Whoever deletes a doomed blob waits for this lock after having learnt of the doom. So either the blob is
        // doomed already and the question below says so, or its shards are written before they are deleted: a repair
        // can't bring back what was answered for.
        let _writing = self.writing.read().await;
        if !self.is_referenced(chunk).await? {
            return Ok(Outcome::Gone);
        }
        for (place, (payload, block_hashes)) in wanted.into_iter().zip(rebuilt) {
            let shard = NewShard { key: place.key, generation, codec: ShardCodec::SealedChunk, payload, block_hashes };
            if let Err(error) = self.put_and_read_back(place.disk, shard).await {
                tracing::warn!(disk = %place.disk, %error, "a rebuilt shard was not taken");
                continue;
            }
            *self.rebuilt.lock().entry(place.key.blob).or_default() += 1;
            self.metrics.shards_rebuilt.inc();
            self.metrics.bytes_rebuilt.inc_by(u64::from(geometry.shard_len_bytes));
            chunk.set(place.key, ShardState::Present { generation });
        }
        Ok(outcome_of(chunk))
    }

    /// Reads k verified shards, each time asking for as many as are lacking; what can't be read is noted in `chunk`, and
    /// what to do follows anew from that. `None` once the chunk can't be rebuilt.
    async fn read_sources(&self, chunk: &mut ChunkPlaces) -> Option<Ready> {
        let need = usize::from(chunk.geometry.coding.k);
        let len_bytes = chunk.geometry.shard_len_bytes;
        let mut pieces: Vec<(u8, Bytes)> = Vec::with_capacity(need);
        let mut pieces_of = None;
        loop {
            let Verdict::Rebuild { sources, wanted, generation } = chunk.verdict() else { return None };
            if pieces_of != Some(generation) {
                pieces.clear();
                pieces_of = Some(generation);
            }
            if pieces.len() == need {
                return Some(Ready { pieces, wanted, generation });
            }
            let is_read = |place: &ShardPlace| pieces.iter().any(|(index, _)| *index == place.key.shard);
            let asked: Vec<ShardPlace> =
                sources.into_iter().filter(|place| !is_read(place)).take(need - pieces.len()).collect();
            self.pace(len_bytes as usize * asked.len()).await;
            let answers = join_all(asked.iter().map(|place| self.read(place.disk, place.key, len_bytes))).await;
            for (place, answer) in asked.into_iter().zip(answers) {
                match answer {
                    Ok(shard) => pieces.push((place.key.shard, shard.into_bytes())),
                    Err(error) => {
                        tracing::warn!(disk = %place.disk, %error, "a shard could not be read for repair");
                        chunk.set(place.key, state_after(&error));
                    }
                }
            }
        }
    }

    /// Whether a chunk's blob still is referenced: metadata's own list says so.
    async fn is_referenced(&self, chunk: &ChunkPlaces) -> Result<bool, RepairError> {
        let Some(blob) = chunk.shards.first().map(|place| place.key.blob) else { return Ok(false) };
        let listed = self.metadata.list_blobs(ListBlobs { after: blob_before(blob), limit: 1 }).await?;
        Ok(listed.first().is_some_and(|found| found.blob == blob))
    }

    /// What a chunk in work takes of the memory budget: all its shards. One that is larger than the budget takes all of
    /// it, and is alone.
    fn memory_kib(&self, geometry: &ChunkGeometry) -> u32 {
        let shards = u64::from(geometry.coding.shards());
        let kib = (u64::from(geometry.shard_len_bytes) * shards).div_ceil(1024);
        u32::try_from(kib).unwrap_or(u32::MAX).min(self.config.memory_kib())
    }

    /// Waits until the bandwidth budget allows `len_bytes` more.
    async fn pace(&self, len_bytes: usize) {
        let start = {
            let mut due = self.due.lock();
            let start = (*due).max(tokio::time::Instant::now());
            *due = start + Duration::from_secs_f64(len_bytes as f64 / self.config.bytes_per_s.max(1) as f64);
            start
        };
        tokio::time::sleep_until(start).await;
    }
}

fn outcome_of(chunk: &ChunkPlaces) -> Outcome {
    match chunk.verdict() {
        Verdict::Complete => Outcome::Complete,
        Verdict::Waiting | Verdict::Rebuild { .. } => Outcome::Waiting,
        Verdict::Lost { .. } => Outcome::Lost,
    }
}

/// The shards `indices` with their block hashes, from k others.
fn rebuild(
    geometry: &ChunkGeometry,
    pieces: &[(u8, Bytes)],
    indices: Vec<u8>,
) -> Result<Vec<(Bytes, Bytes)>, valv_erasure::ErasureError> {
    let present: Vec<(u8, &[u8])> = pieces.iter().map(|(index, bytes)| (*index, bytes.as_ref())).collect();
    let mut made: Vec<(u8, Vec<u8>)> =
        indices.into_iter().map(|index| (index, vec![0; geometry.shard_len_bytes as usize])).collect();
    let mut wanted: Vec<(u8, &mut [u8])> =
        made.iter_mut().map(|(index, bytes)| (*index, bytes.as_mut_slice())).collect();
    valv_erasure::reconstruct_some(geometry.coding, &present, &mut wanted)?;
    let with_hashes = made.into_iter().map(|(_, bytes)| {
        let hashes = block_hashes(&bytes);
        (Bytes::from(bytes), hashes)
    });
    Ok(with_hashes.collect())
}

/// The largest id below `blob`, to list from it; `None` for the smallest.
fn blob_before(blob: BlobId) -> Option<BlobId> {
    let number = u128::from_be_bytes(*blob.as_bytes());
    Some(BlobId::from_bytes(number.checked_sub(1)?.to_be_bytes()))
}
