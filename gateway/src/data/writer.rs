//! Writing a blob: plaintext in, sealed frames in chunk buffers, chunks to the disks.
//!
//! One pass: every incoming byte is copied once, into its place in the chunk, and sealed there while it is in the cache.
//! The last frame is held back until more bytes or the end come, because "last" is part of its nonce.
//!
//! Memory: at most two chunk buffers per upload, one filling and one being stored.
//!
//! Cancellation: a dropped writer, or a dropped `write` or `finish`, leaves nothing visible; the shards that it wrote are
//! deleted in the background. Whatever a crash leaves is an orphan of a fenced incarnation.

use super::DataPath;
use super::error::DataError;
use super::guard::{BlobGuard, WrittenShards};
use super::incarnation::Sequence;
use super::memory::Buffer;
use super::store::{ChunkToStore, Storing, buffer_len_bytes, store, write_floor};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use valv_codec::{BlobContext, CustomerKey, DataKey, FrameSealer};
use valv_metadata_api::{BlobPlace, BlobRecord, MissingSlot, NewBody, WriteProof};
use valv_types::{ChunkGeometry, ChunkId, DiskId, Epoch, FRAME_TAG_BYTES, INLINE_LEN_BYTES_MAX, Layout, ProjectId};

/// A blob whose bytes are safe, ready for the metadata commit that makes them visible.
pub struct FinishedBlob {
    /// What the commit is to name.
    pub body: NewBody,
    /// How it was written.
    pub proof: WriteProof,
    /// Plaintext length.
    pub len_bytes: u64,
    /// Says what became of the commit. See [`BlobGuard`].
    pub guard: BlobGuard,
}

/// Takes the plaintext of one blob. Not cancel safe: a writer whose `write` was dropped can only be dropped.
pub struct BlobWriter {
    path: Arc<DataPath>,
    layout: Layout,
    wrapped_key: Vec<u8>,
    sealer: FrameSealer,
    /// What was written so far and the blob's number. `None` once finished.
    written: Option<(WrittenShards, Sequence)>,
    expected_len: Option<u64>,
    len: u64,
    filling: Option<Filling>,
    storing: Option<Storing>,
    down: Arc<Mutex<BTreeSet<DiskId>>>,
    missing: BTreeSet<DiskId>,
    epoch: Option<Epoch>,
    /// Why nothing more can be written.
    failed: Option<DataError>,
}

/// A chunk that is being filled.
struct Filling {
    buffer: Buffer,
    index: u32,
    frames_sealed: u32,
    /// Where the open frame starts in the buffer.
    open_at: usize,
    /// Plaintext bytes in the open frame.
    open_len: usize,
}

impl Filling {
    /// Takes as many of `bytes` as fit into the open frame.
    fn take(&mut self, bytes: &mut Bytes, frame_plain_bytes: usize) -> Result<usize, DataError> {
        let taken = bytes.len().min(frame_plain_bytes - self.open_len);
        let start = self.open_at + self.open_len;
        let room = self.buffer.bytes_mut().get_mut(start..start + taken).ok_or(DataError::Misuse)?;
        room.copy_from_slice(&bytes.split_to(taken));
        self.open_len += taken;
        self.buffer.plain = self.open_at..start + taken;
        Ok(taken)
    }

    /// Seals the open frame where it stands.
    fn seal(&mut self, sealer: &mut FrameSealer, last: bool) -> Result<(), DataError> {
        let end = self.open_at + self.open_len;
        let tag_end = end + FRAME_TAG_BYTES as usize;
        let frame = self.buffer.bytes_mut().get_mut(self.open_at..tag_end).ok_or(DataError::Misuse)?;
        let (plain, tag) = frame.split_at_mut(self.open_len);
        tag.copy_from_slice(&sealer.seal(plain, last));
        self.buffer.plain = 0..0;
        self.frames_sealed += 1;
        self.open_at = tag_end;
        self.open_len = 0;
        Ok(())
    }
}

impl BlobWriter {
    pub(super) async fn begin(
        path: Arc<DataPath>,
        project: ProjectId,
        layout: Layout,
        expected_len: Option<u64>,
        customer: Option<&CustomerKey>,
    ) -> Result<Self, DataError> {
        layout.check()?;
        path.cluster.check_room(layout.pool).await?;
        let sequence = path.incarnations.begin()?;
        let blob = sequence.blob;
        if expected_len.is_none_or(|len| len > inline_len_bytes_max(&layout)) {
            // A client that is told before it sends its body can go elsewhere.
            let geometry = planned(&layout, expected_len, 0)?;
            let place = path.cluster.place(layout.pool, ChunkId { blob, index: 0 }, geometry.coding.shards()).await?;
            let have = place.disks.iter().filter(|disk| path.cluster.writable(**disk)).count();
            let need = write_floor(geometry.coding);
            if have < need {
                return Err(DataError::NotEnoughDisks { have, need });
            }
        }
        let project_key = path.keys.current(project).await?;
        let data_key = DataKey::generate()?;
        let wrapped_key = project_key.wrap_data_key(project, blob, &data_key, customer)?;
        let sealer = FrameSealer::new(&data_key, BlobContext { project, blob });
        let written = WrittenShards::new(Arc::clone(&path), layout.pool);
        let mut writer = Self {
            path,
            layout,
            wrapped_key,
            sealer,
            written: Some((written, sequence)),
            expected_len,
            len: 0,
            filling: None,
            storing: None,
            down: Arc::default(),
            missing: BTreeSet::new(),
            epoch: None,
            failed: None,
        };
        if expected_len != Some(0) {
            writer.filling = Some(writer.next_buffer(0).await?);
        }
        Ok(writer)
    }

    /// Takes the next bytes of the body. Waits while two chunks are in flight. After an error the writer is of no use.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), DataError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        // If this future is dropped half-way, nobody knows what was taken.
        self.failed = Some(DataError::Stopped);
        let result = self.take(bytes).await;
        self.failed = result.as_ref().err().cloned();
        result
    }

    async fn take(&mut self, mut bytes: Bytes) -> Result<(), DataError> {
        let frame_plain_bytes = self.layout.frame_plain_bytes as usize;
        if let Some(expected) = self.expected_len
            && self.len + bytes.len() as u64 > expected
        {
            return Err(DataError::LongerThanAnnounced { expected });
        }
        self.path.metrics.bytes_in.inc_by(bytes.len() as u64);
        while !bytes.is_empty() {
            let mut next = 0;
            if let Some(filling) = &mut self.filling
                && filling.open_len == frame_plain_bytes
            {
                // More is coming, so this frame is not the blob's last.
                filling.seal(&mut self.sealer, false)?;
                if filling.frames_sealed == self.layout.frames_per_chunk {
                    next = filling.index + 1;
                    let geometry = planned(&self.layout, None, filling.index)?;
                    self.store_filled(geometry).await?;
                }
            }
            let filling = match &mut self.filling {
                Some(filling) => filling,
                none => none.insert(Self::buffer_for(&self.path, &self.layout, self.expected_len, next).await?),
            };
            self.len += filling.take(&mut bytes, frame_plain_bytes)? as u64;
        }
        Ok(())
    }

    async fn next_buffer(&self, index: u32) -> Result<Filling, DataError> {
        Self::buffer_for(&self.path, &self.layout, self.expected_len, index).await
    }

    async fn buffer_for(
        path: &Arc<DataPath>,
        layout: &Layout,
        expected_len: Option<u64>,
        index: u32,
    ) -> Result<Filling, DataError> {
        let geometry = planned(layout, expected_len, index)?;
        let buffer = path.memory.buffer(buffer_len_bytes(&geometry)).await?;
        Ok(Filling { buffer, index, frames_sealed: 0, open_at: 0, open_len: 0 })
    }

    /// Sends the filled chunk off, after the one before it is safe.
    async fn store_filled(&mut self, geometry: ChunkGeometry) -> Result<(), DataError> {
        self.previous_stored().await?;
        let Some(filling) = self.filling.take() else { return Ok(()) };
        let Some((written, sequence)) = &mut self.written else { return Err(DataError::Misuse) };
        if sequence.incarnation().is_fenced() {
            return Err(DataError::Fenced);
        }
        if buffer_len_bytes(&geometry) > filling.buffer.len() {
            return Err(DataError::Misuse);
        }
        let chunk = ChunkId { blob: sequence.blob, index: filling.index };
        let place = self.path.cluster.place(self.layout.pool, chunk, geometry.coding.shards()).await?;
        written.note(chunk, &place.disks);
        let chunk = ChunkToStore {
            pool: self.layout.pool,
            chunk,
            geometry,
            buffer: filling.buffer,
            place,
            down: Arc::clone(&self.down),
        };
        self.storing = Some(store(&self.path, written.tasks(), chunk));
        Ok(())
    }

    async fn previous_stored(&mut self) -> Result<(), DataError> {
        if let Some(storing) = self.storing.take() {
            let stored = storing.outcome().await?;
            self.missing.extend(stored.missing);
            self.epoch = Some(self.epoch.map_or(stored.epoch, |epoch| epoch.min(stored.epoch)));
        }
        Ok(())
    }

    /// Ends the blob and returns when all of it is safe: every shard durable on every slot that is not marked down, k+1 of
    /// each chunk at least. Nothing is visible before the caller's metadata commit.
    pub async fn finish(mut self) -> Result<FinishedBlob, DataError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let mut inline = None;
        if self.len > 0 {
            let Some(filling) = &mut self.filling else { return Err(DataError::Misuse) };
            filling.seal(&mut self.sealer, true)?;
            if self.len <= inline_len_bytes_max(&self.layout) {
                inline = Some(filling.buffer.as_ref()[..filling.open_at].to_vec());
            } else {
                let geometry = self.layout.chunk(self.len, filling.index).ok_or(DataError::Misuse)?;
                self.store_filled(geometry).await?;
                self.previous_stored().await?;
            }
        }
        // Memory is free for others from here on, while the commit is on its way.
        self.filling = None;
        let epoch = match self.epoch {
            Some(epoch) => epoch,
            None => self.path.cluster.epoch_min(self.layout.pool).await?,
        };
        let Some((written, sequence)) = self.written.take() else { return Err(DataError::Misuse) };
        if sequence.incarnation().is_fenced() {
            self.written = Some((written, sequence));
            return Err(DataError::Fenced);
        }
        let blob = sequence.blob;
        let record = |place| BlobRecord {
            blob,
            len_bytes: self.len,
            layout: self.layout,
            place,
            wrapped_key: self.wrapped_key.clone(),
        };
        let body = match inline {
            _ if self.len == 0 => NewBody::Empty,
            Some(sealed) => NewBody::Inline(record(BlobPlace::Inline), sealed),
            None => NewBody::Blob(record(BlobPlace::Shards)),
        };
        let missing = self.missing.iter().map(|disk| MissingSlot { blob, disk: *disk }).collect();
        let proof = WriteProof { incarnation: sequence.incarnation().id, epoch, missing };
        let guard = BlobGuard::new(written, sequence);
        Ok(FinishedBlob { body, proof, len_bytes: self.len, guard })
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if let Some((written, sequence)) = self.written.take() {
            written.delete_in_background(sequence);
        }
    }
}

/// Bodies of at most this length travel in metadata: they are one frame.
fn inline_len_bytes_max(layout: &Layout) -> u64 {
    u64::from(INLINE_LEN_BYTES_MAX.min(layout.frame_plain_bytes))
}

/// The geometry that chunk `index` has if the body is as long as announced, or goes on after this chunk if nothing was
/// announced.
fn planned(layout: &Layout, expected_len: Option<u64>, index: u32) -> Result<ChunkGeometry, DataError> {
    let goes_on = (u64::from(index) + 2) * u64::from(layout.chunk_plain_bytes());
    layout.chunk(expected_len.unwrap_or(goes_on), index).ok_or(DataError::Misuse)
}
