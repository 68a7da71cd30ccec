//! Rebuilding a chunk's shards from k others. No key is needed: shards are ciphertext here.

use crate::plan::{ChunkPlaces, ShardPlace, ShardState, Verdict};
use crate::service::{RepairError, Shared};
use bytes::Bytes;
use std::time::Duration;
use valv_shard_api::{NewShard, ShardCodec, block_hashes};

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

impl Shared {
    /// Brings one chunk as far as its disks allow, and leaves in `chunk` what is true afterwards.
    pub(crate) async fn mend(&self, chunk: &mut ChunkPlaces) -> Result<Outcome, RepairError> {
        let (sources, wanted, generation) = match chunk.verdict() {
            Verdict::Complete => return Ok(Outcome::Complete),
            Verdict::Waiting => return Ok(Outcome::Waiting),
            Verdict::Lost { have, need } => {
                if !self.is_referenced(&chunk.shards).await? {
                    return Ok(Outcome::Gone);
                }
                let blob = chunk.shards.first().map(|place| place.key.blob);
                tracing::error!(?blob, chunk = chunk.geometry.index, have, need, "a chunk has too few good shards");
                self.metrics.chunks_lost.inc();
                return Ok(Outcome::Lost);
            }
            Verdict::Rebuild { sources, wanted, generation } => (sources, wanted, generation),
        };
        let _in_flight = self.in_flight.acquire().await.map_err(|_| RepairError::Stopped)?;
        let len_bytes = chunk.geometry.shard_len_bytes;
        let Some(present) = self.read_sources(chunk, &sources).await else {
            // A source turned out damaged: its disk has quarantined it, and the next look decides anew.
            return Ok(Outcome::Waiting);
        };
        let coding = chunk.geometry.coding;
        let indices: Vec<u8> = wanted.iter().map(|place| place.key.shard).collect();
        let rebuilt = tokio::task::spawn_blocking(move || {
            let present: Vec<(u8, &[u8])> = present.iter().map(|(index, bytes)| (*index, bytes.as_ref())).collect();
            let mut made: Vec<(u8, Vec<u8>)> =
                indices.into_iter().map(|index| (index, vec![0; len_bytes as usize])).collect();
            let mut wanted: Vec<(u8, &mut [u8])> =
                made.iter_mut().map(|(index, bytes)| (*index, bytes.as_mut_slice())).collect();
            valv_erasure::reconstruct_some(coding, &present, &mut wanted)?;
            let hashed = made.into_iter().map(|(_, bytes)| {
                let hashes = block_hashes(&bytes);
                (Bytes::from(bytes), hashes)
            });
            Ok::<Vec<_>, valv_erasure::ErasureError>(hashed.collect())
        })
        .await
        .map_err(|_| RepairError::Stopped)??;

        // A blob that was deleted meanwhile is not written again: its doom would have been answered already.
        // Should it be deleted just now, what is written here is an orphan, and the orphan scan's.
        if !self.is_referenced(&wanted).await? {
            return Ok(Outcome::Gone);
        }
        for (place, (payload, block_hashes)) in wanted.into_iter().zip(rebuilt) {
            self.pace(payload.len()).await;
            let shard = NewShard { key: place.key, generation, codec: ShardCodec::SealedChunk, payload, block_hashes };
            if let Err(error) = self.put_and_read_back(place, shard, len_bytes).await {
                tracing::warn!(disk = %place.disk, %error, "a rebuilt shard was not taken");
                continue;
            }
            self.metrics.shards_rebuilt.inc();
            self.metrics.bytes_rebuilt.inc_by(u64::from(len_bytes));
            if let Some(own) = chunk.shards.iter_mut().find(|own| own.key == place.key) {
                own.state = ShardState::Present { generation };
            }
        }
        Ok(match chunk.verdict() {
            Verdict::Complete => Outcome::Complete,
            _ => Outcome::Waiting,
        })
    }

    /// Reads k verified shards; `None` if fewer can be read.
    async fn read_sources(&self, chunk: &mut ChunkPlaces, sources: &[ShardPlace]) -> Option<Vec<(u8, Bytes)>> {
        let need = usize::from(chunk.geometry.coding.k);
        let len_bytes = chunk.geometry.shard_len_bytes;
        let mut present = Vec::with_capacity(need);
        for source in sources {
            if present.len() == need {
                break;
            }
            self.pace(len_bytes as usize).await;
            match self.shards.read(source.disk, source.key, 0..len_bytes).await {
                Ok(shard) => present.push((source.key.shard, shard.into_bytes())),
                Err(error) => {
                    tracing::warn!(disk = %source.disk, %error, "a shard could not be read for repair");
                    if let Some(own) = chunk.shards.iter_mut().find(|own| own.key == source.key) {
                        own.state = ShardState::Quarantined;
                    }
                }
            }
        }
        (present.len() == need).then_some(present)
    }

    /// Healed is what was read back from the disk and verified, not what was sent to it.
    async fn put_and_read_back(&self, place: ShardPlace, shard: NewShard, len_bytes: u32) -> Result<(), RepairError> {
        let key = shard.key;
        self.shards.put(place.disk, shard).await?;
        self.shards.read(place.disk, key, 0..len_bytes).await?;
        Ok(())
    }

    /// Whether the blob of these shards still is referenced: metadata's own list says so.
    async fn is_referenced(&self, shards: &[ShardPlace]) -> Result<bool, RepairError> {
        let Some(blob) = shards.first().map(|place| place.key.blob) else { return Ok(false) };
        let before = blob_before(blob);
        let listed = self.metadata.list_blobs(valv_metadata_api::ListBlobs { after: before, limit: 1 }).await?;
        Ok(listed.first().is_some_and(|found| found.blob == blob))
    }

    /// Waits until the bandwidth budget allows `len_bytes` more.
    async fn pace(&self, len_bytes: usize) {
        let wait = {
            let mut due = self.due.lock();
            let now = tokio::time::Instant::now();
            let start = (*due).max(now);
            *due = start + Duration::from_secs_f64(len_bytes as f64 / self.config.bytes_per_s.max(1) as f64);
            start - now
        };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

/// The largest id below `blob`, to list from it; `None` for the smallest.
fn blob_before(blob: valv_types::BlobId) -> Option<valv_types::BlobId> {
    let number = u128::from_be_bytes(*blob.as_bytes());
    Some(valv_types::BlobId::from_bytes(number.checked_sub(1)?.to_be_bytes()))
}
