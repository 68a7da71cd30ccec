//! Storing one chunk: code it, hash it, put its shards on all slots at once, and know when it is safe.

use super::DataPath;
use super::cluster::ChunkPlace;
use super::error::DataError;
use super::memory::Buffer;
use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;
use valv_shard_api::{NewShard, ShardCodec, ShardError, block_hashes};
use valv_types::{ChunkCoding, ChunkGeometry, ChunkId, DiskId, Epoch, PoolId, ShardKey};

/// Chunks whose shards are at most this long in sum are coded and hashed where they are: 256 KiB take about 80 us, and
/// handing the work to another thread and back costs as much as it saves.
const CODE_INLINE_LEN_BYTES_MAX: usize = 256 * 1024;

/// Pauses between attempts at a disk whose queue is full, doubling from the first to the second.
const BUSY_PAUSE_MIN: Duration = Duration::from_millis(5);
const BUSY_PAUSE_MAX: Duration = Duration::from_millis(200);

/// How many of a chunk's shards must be durable before it counts as written: k+1, or all where there is no parity.
pub(super) fn write_floor(coding: ChunkCoding) -> usize {
    usize::from(coding.k) + usize::from(coding.m.min(1))
}

/// A sealed chunk on its way to the disks.
pub(super) struct ChunkToStore {
    pub(super) pool: PoolId,
    pub(super) chunk: ChunkId,
    pub(super) geometry: ChunkGeometry,
    /// The sealed frames at the start, room for padding and parity behind.
    pub(super) buffer: Buffer,
    pub(super) place: ChunkPlace,
    /// Disks that failed the blob before: they are not waited for again, unless the floor needs them.
    pub(super) down: Arc<Mutex<BTreeSet<DiskId>>>,
}

/// A chunk that is safe.
#[derive(Debug)]
pub(super) struct StoredChunk {
    pub(super) epoch: Epoch,
    /// Disks that do not have their shard.
    pub(super) missing: Vec<DiskId>,
}

/// The outcome of a chunk that is being stored.
pub(super) struct Storing(oneshot::Receiver<Result<StoredChunk, DataError>>);

impl Storing {
    pub(super) async fn outcome(self) -> Result<StoredChunk, DataError> {
        self.0.await.unwrap_or(Err(DataError::Stopped))
    }
}

/// Bytes of buffer that a chunk needs: all k+m shards, or one copy where k is 1 (the copies are the same bytes).
pub(super) fn buffer_len_bytes(geometry: &ChunkGeometry) -> usize {
    let shards = if geometry.coding.k == 1 { 1 } else { geometry.coding.shards() };
    geometry.shard_len_bytes as usize * usize::from(shards)
}

/// Starts storing a chunk. The outcome comes as soon as every slot that is not marked down is durable, or the floor can't
/// be reached any more; puts that are still on their way then are waited for a little longer by the task itself, which
/// `blob_tasks` tracks so that nobody deletes shards before the last put has ended.
pub(super) fn store(path: &Arc<DataPath>, blob_tasks: &TaskTracker, chunk: ChunkToStore) -> Storing {
    let (tell, outcome) = oneshot::channel();
    let task = blob_tasks.track_future(run(Arc::clone(path), chunk, tell));
    path.tasks.spawn(task);
    Storing(outcome)
}

async fn run(path: Arc<DataPath>, chunk: ChunkToStore, tell: oneshot::Sender<Result<StoredChunk, DataError>>) {
    let ChunkToStore { pool, chunk: id, geometry, buffer, place, down } = chunk;
    let shards = match code(&path, buffer, geometry).await {
        Ok(shards) => shards,
        Err(error) => {
            let _ = tell.send(Err(error));
            return;
        }
    };
    let need = write_floor(geometry.coding);
    let chosen = choose(&path, &place, &down.lock(), need);
    let mut missing: BTreeSet<DiskId> = place.disks.iter().copied().collect();
    let mut puts = FuturesUnordered::new();
    for (index, (disk, shard)) in (0u8..).zip(place.disks.iter().copied().zip(shards)) {
        if !chosen.contains(&disk) {
            continue;
        }
        let new = NewShard {
            key: ShardKey::new(pool, id, index),
            generation: 0,
            codec: ShardCodec::SealedChunk,
            payload: shard.payload,
            block_hashes: shard.block_hashes,
        };
        puts.push(put(&path, disk, new).map(move |result| (disk, result)));
    }
    let deadline = tokio::time::sleep(path.config.put_deadline);
    tokio::pin!(deadline);
    let (mut stored, mut possible) = (0, puts.len());
    while possible >= need {
        tokio::select! {
            done = puts.next() => match done {
                Some((disk, Ok(()))) => {
                    stored += 1;
                    missing.remove(&disk);
                }
                Some((disk, Err(error))) => {
                    possible -= 1;
                    note_failed_put(&path, id, disk, &error);
                }
                None => break,
            },
            () = &mut deadline => {
                tracing::warn!(blob = %id.blob, chunk = id.index, waiting = puts.len(), "disks missed the put deadline");
                possible = stored;
                break;
            }
        }
    }
    down.lock().extend(missing.iter().copied());
    path.metrics.slots_down.inc_by(missing.len() as u64);
    let outcome = if stored < need {
        Err(DataError::NotEnoughDisks { have: possible, need })
    } else {
        Ok(StoredChunk { epoch: place.epoch, missing: missing.into_iter().collect() })
    };
    let _ = tell.send(outcome);
    // Stragglers: each still holds the chunk's memory, so they get one more deadline and are then dropped.
    let _ = tokio::time::timeout(path.config.put_deadline, async { while puts.next().await.is_some() {} }).await;
}

/// Puts one shard. A disk whose queue is full is asked again and again until the caller's deadline: giving up a slot
/// because of a burst would cost redundancy.
async fn put(path: &DataPath, disk: DiskId, shard: NewShard) -> Result<(), ShardError> {
    let started = Instant::now();
    let mut pause = BUSY_PAUSE_MIN;
    loop {
        match path.shards.put(disk, shard.clone()).await {
            Ok(()) => {
                path.metrics.shard_put_seconds.observe(started.elapsed().as_secs_f64());
                return Ok(());
            }
            Err(ShardError::Busy { .. }) => tokio::time::sleep(pause).await,
            Err(error) => return Err(error),
        }
        pause = (pause * 2).min(BUSY_PAUSE_MAX);
    }
}

/// The disks to write to: those that take writes and have not failed this blob before, or, if those are fewer than the
/// floor, all that may take writes.
fn choose(path: &DataPath, place: &ChunkPlace, down: &BTreeSet<DiskId>, need: usize) -> BTreeSet<DiskId> {
    let writable: BTreeSet<DiskId> = place.disks.iter().copied().filter(|disk| path.cluster.writable(*disk)).collect();
    let unfailed: BTreeSet<DiskId> = writable.difference(down).copied().collect();
    if unfailed.len() >= need { unfailed } else { writable }
}

fn note_failed_put(path: &DataPath, chunk: ChunkId, disk: DiskId, error: &ShardError) {
    match error {
        ShardError::Away { .. } => path.cluster.note_away(disk),
        // Said by the disk's state as well, and not news.
        ShardError::ReadOnly { .. } | ShardError::Full { .. } | ShardError::Busy { .. } => {}
        ShardError::NotFound { .. }
        | ShardError::Corrupt { .. }
        | ShardError::Malformed { .. }
        | ShardError::Io { .. } => {
            tracing::warn!(blob = %chunk.blob, chunk = chunk.index, %disk, %error, "a shard could not be stored");
        }
    }
}

struct CodedShard {
    payload: Bytes,
    block_hashes: Bytes,
}

/// Pads the chunk, writes its parity behind it and hashes every shard.
async fn code(path: &Arc<DataPath>, mut buffer: Buffer, geometry: ChunkGeometry) -> Result<Vec<CodedShard>, DataError> {
    let work = move || {
        let tables = code_in_place(&mut buffer, &geometry)?;
        Ok::<_, DataError>((buffer, tables))
    };
    let (buffer, tables) = if buffer_len_bytes(&geometry) <= CODE_INLINE_LEN_BYTES_MAX {
        work()?
    } else {
        let _permit = path.coding.acquire().await.map_err(|_| DataError::Stopped)?;
        tokio::task::spawn_blocking(work).await.map_err(|_| DataError::Stopped)??
    };
    let all = Bytes::from_owner(buffer);
    let len = geometry.shard_len_bytes as usize;
    let shards = (0..usize::from(geometry.coding.shards())).map(|shard| {
        // Copies of a chunk are one and the same piece of memory.
        let piece = if geometry.coding.k == 1 { 0 } else { shard };
        CodedShard { payload: all.slice(piece * len..(piece + 1) * len), block_hashes: tables[piece].clone() }
    });
    Ok(shards.collect())
}

fn code_in_place(buffer: &mut Buffer, geometry: &ChunkGeometry) -> Result<Vec<Bytes>, DataError> {
    let (needed, len) = (buffer_len_bytes(geometry), geometry.shard_len_bytes as usize);
    let bytes = buffer.bytes_mut().get_mut(..needed).ok_or(DataError::Misuse)?;
    bytes[geometry.sealed_len_bytes as usize..len * usize::from(geometry.coding.k)].fill(0);
    if geometry.coding.k > 1 {
        valv_erasure::encode_in_place(geometry.coding, bytes, len)?;
    }
    Ok(bytes.chunks_exact(len).map(block_hashes).collect())
}
