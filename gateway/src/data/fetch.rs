//! Getting a range of a chunk's sealed bytes: from the shards that hold it, or worked out from others.
//!
//! The layout is systematic and contiguous, so a range lies in one data shard or a few neighbours. A part whose disk is away,
//! damaged or slow is read from any k other shards at the same offsets. Everything here is verified against the disks'
//! hashes, but not yet authenticated: nothing goes to a client from this file.

use super::DataPath;
use super::cluster::ChunkPlace;
use super::error::DataError;
use bytes::{Bytes, BytesMut};
use futures_util::future::{BoxFuture, Either, Shared, select, try_join_all};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;
use valv_shard_api::ShardError;
use valv_types::{ChunkGeometry, ChunkId, PoolId, ShardKey};

/// Reconstructions of at most this many bytes of input run where they are: at 10 GiB/s and more, 25 us.
const RECONSTRUCT_INLINE_LEN_BYTES_MAX: usize = 256 * 1024;

type SharedRead = Shared<BoxFuture<'static, Result<Bytes, ShardError>>>;

/// A range of one shard.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Part {
    pub(super) shard: u8,
    pub(super) range: Range<u32>,
}

/// The parts of a chunk's data shards that hold `sealed` (offsets within the chunk), in order.
pub(super) fn parts(geometry: &ChunkGeometry, sealed: Range<u32>) -> Vec<Part> {
    let len = geometry.shard_len_bytes;
    let mut parts = Vec::new();
    let mut at = sealed.start;
    while at < sealed.end {
        let shard = at / len;
        let start = at - shard * len;
        let end = (sealed.end - shard * len).min(len);
        // The quotient is below k, which fits.
        parts.push(Part { shard: shard as u8, range: start..end });
        at += end - start;
    }
    parts
}

/// Reads of one chunk's shards, each range of each shard at most once.
pub(super) struct ChunkReads {
    path: Arc<DataPath>,
    pool: PoolId,
    chunk: ChunkId,
    geometry: ChunkGeometry,
    place: ChunkPlace,
    begun: Mutex<HashMap<Part, SharedRead>>,
}

impl ChunkReads {
    pub(super) fn new(
        path: Arc<DataPath>,
        pool: PoolId,
        chunk: ChunkId,
        geometry: ChunkGeometry,
        place: ChunkPlace,
    ) -> Self {
        Self { path, pool, chunk, geometry, place, begun: Mutex::default() }
    }

    /// The sealed bytes of `sealed`, offsets within the chunk. If one shard gave them all, they are not copied.
    pub(super) async fn fetch(self, sealed: Range<u32>) -> Result<BytesMut, DataError> {
        let len = (sealed.end - sealed.start) as usize;
        let mut pieces = try_join_all(parts(&self.geometry, sealed).into_iter().map(|part| self.part(part))).await?;
        // The shared reads hold references to the bytes; without them the only one is ours.
        drop(self);
        if pieces.len() == 1
            && let Some(piece) = pieces.pop()
        {
            return Ok(piece.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..])));
        }
        let mut all = BytesMut::with_capacity(len);
        pieces.iter().for_each(|piece| all.extend_from_slice(piece));
        Ok(all)
    }

    /// Starts reading a part, or joins the read that was started before.
    pub(super) fn read(&self, part: &Part) -> SharedRead {
        let mut begun = self.begun.lock();
        if let Some(read) = begun.get(part) {
            return read.clone();
        }
        let read = self.start(part).boxed().shared();
        begun.insert(part.clone(), read.clone());
        read
    }

    fn start(&self, part: &Part) -> impl Future<Output = Result<Bytes, ShardError>> + Send + 'static {
        let path = Arc::clone(&self.path);
        let (chunk, range) = (self.chunk, part.range.clone());
        let key = ShardKey::new(self.pool, chunk, part.shard);
        let disk = self.place.disks.get(usize::from(part.shard)).copied();
        async move {
            let Some(disk) = disk else { return Err(ShardError::Malformed { what: "no such shard in the chunk" }) };
            let started = Instant::now();
            let len = range.len();
            let reading = path.shards.read(disk, key, range);
            let result = match tokio::time::timeout(path.config.read_deadline, reading).await {
                Ok(Ok(verified)) if verified.len() == len => {
                    let took = started.elapsed();
                    path.hedging.observe(took);
                    path.metrics.shard_read_seconds.observe(took.as_secs_f64());
                    return Ok(verified.into_bytes());
                }
                Ok(Ok(_)) => Err(ShardError::Corrupt { disk, key: Box::new(key) }),
                Ok(Err(error)) => Err(error),
                Err(_) => Err(ShardError::Busy { disk }),
            };
            if let Err(error) = &result {
                match error {
                    ShardError::Away { .. } => path.cluster.note_away(disk),
                    ShardError::NotFound { .. } | ShardError::Corrupt { .. } => {
                        tracing::warn!(blob = %chunk.blob, chunk = chunk.index, shard = key.shard, %disk, %error,
                            "a shard can't be read; the blob is reported for repair");
                        path.repairs.report(chunk.blob);
                    }
                    ShardError::ReadOnly { .. }
                    | ShardError::Full { .. }
                    | ShardError::Busy { .. }
                    | ShardError::Malformed { .. }
                    | ShardError::Io { .. } => {
                        tracing::warn!(blob = %chunk.blob, chunk = chunk.index, shard = key.shard, %disk, %error,
                            "a shard can't be read");
                    }
                }
            }
            result
        }
    }

    /// One part, from its own shard or from others.
    async fn part(&self, part: Part) -> Result<Bytes, DataError> {
        let disk = self.place.disks.get(usize::from(part.shard));
        if !disk.is_some_and(|disk| self.path.cluster.readable(*disk)) {
            return match self.recover(&part).await {
                Ok(bytes) => Ok(bytes),
                // The disk's state may be out of date; it is the last hope.
                Err(error) => self.read(&part).await.map_err(|_| error),
            };
        }
        let mut own = self.read(&part);
        if let Ok(result) = tokio::time::timeout(self.path.hedging.after(), &mut own).await {
            return match result {
                Ok(bytes) => Ok(bytes),
                Err(_) => self.recover(&part).await,
            };
        }
        if !self.path.hedging.take() {
            return match own.await {
                Ok(bytes) => Ok(bytes),
                Err(_) => self.recover(&part).await,
            };
        }
        self.path.metrics.hedges.inc();
        let others = pin!(self.recover(&part));
        match select(own, others).await {
            Either::Left((Ok(bytes), _)) => Ok(bytes),
            Either::Left((Err(_), others)) => others.await,
            Either::Right((Ok(bytes), _)) => Ok(bytes),
            Either::Right((Err(error), own)) => own.await.map_err(|_| error),
        }
    }

    /// Works a part out from the same range of k other shards (of one, where the shards are copies).
    async fn recover(&self, part: &Part) -> Result<Bytes, DataError> {
        let need = usize::from(self.geometry.coding.k);
        let len = part.range.len();
        let _memory = self.path.memory.reserve_for_recovery((need + 1) * len).await?;
        let mut candidates = self.candidates(part).into_iter();
        let ask = |part: Part| self.read(&part).map(move |read| (part.shard, read));
        let mut reading: FuturesUnordered<_> = candidates.by_ref().take(need).map(ask).collect();
        let mut pieces: Vec<(u8, Bytes)> = Vec::with_capacity(need);
        while pieces.len() < need {
            let slow = tokio::time::sleep(self.path.hedging.after());
            let one_more = tokio::select! {
                read = reading.next() => match read {
                    Some((shard, Ok(bytes))) => {
                        pieces.push((shard, bytes));
                        false
                    }
                    Some((_, Err(_))) => true,
                    None => {
                        let ChunkId { blob, index: chunk } = self.chunk;
                        return Err(DataError::NotEnoughShards { blob, chunk, have: pieces.len(), need });
                    }
                },
                () = slow, if candidates.len() > 0 => {
                    let allowed = self.path.hedging.take();
                    if allowed {
                        self.path.metrics.hedges.inc();
                    }
                    allowed
                }
            };
            if one_more && let Some(part) = candidates.next() {
                reading.push(ask(part));
            }
        }
        drop(reading);
        if need == 1
            && let Some((_, copy)) = pieces.pop()
        {
            return Ok(copy);
        }
        self.path.metrics.reconstructions.inc();
        self.reconstruct(part.shard, len, pieces).await
    }

    /// The other shards' same range, those to be asked first at the front: already read, then readable, then the rest.
    fn candidates(&self, part: &Part) -> Vec<Part> {
        let mut others: Vec<Part> = (0..self.geometry.coding.shards())
            .filter(|shard| *shard != part.shard)
            .map(|shard| Part { shard, range: part.range.clone() })
            .collect();
        let begun = self.begun.lock();
        others.sort_by_key(|other| {
            let readable =
                self.place.disks.get(usize::from(other.shard)).is_some_and(|disk| self.path.cluster.readable(*disk));
            (!begun.contains_key(other), !readable)
        });
        others
    }

    async fn reconstruct(&self, shard: u8, len: usize, pieces: Vec<(u8, Bytes)>) -> Result<Bytes, DataError> {
        let coding = self.geometry.coding;
        let work = move || {
            let present: Vec<(u8, &[u8])> = pieces.iter().map(|(shard, piece)| (*shard, &piece[..])).collect();
            let mut made = vec![0; len];
            valv_erasure::reconstruct_some(coding, &present, &mut [(shard, &mut made)])?;
            Ok(Bytes::from(made))
        };
        if len * usize::from(coding.k) <= RECONSTRUCT_INLINE_LEN_BYTES_MAX {
            return work();
        }
        let _permit = self.path.coding.acquire().await.map_err(|_| DataError::Stopped)?;
        tokio::task::spawn_blocking(work).await.map_err(|_| DataError::Stopped)?
    }
}
