//! Checkpoints: all rows and commit ids at one revision, after which older batches are not needed.

use super::format::{BatchId, CheckpointId, SegmentWriter, TRAILER_CHUNK, Tally, Trailer, open, seal};
use super::survey::{FIRST_KEY, Pieces, page};
use super::{Mirror, MirrorError};
use crate::store::rocks::{Database, RocksSnapshot};
use crate::store::{Snapshot, StoreError, Term};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::mpsc;
use valv_codec::RecordKey;
use valv_shard_api::{ShardCodec, ShardStat};
use valv_types::{DiskId, ShardKey};

const CODEC: ShardCodec = ShardCodec::MetadataCheckpoint;
/// Sealed segments that wait for the disks: with the one being put and the one being made, 4 MiB.
const SEGMENTS_WAITING: usize = 2;

impl Mirror {
    /// Makes a checkpoint of everything committed until now and deletes what it replaces. On failure, or when dropped,
    /// the previous one stays and so do the batches after it.
    pub(crate) async fn checkpoint(&self, database: &Arc<Database>, term: Term) -> Result<(), MirrorError> {
        let _one_at_a_time = self.checkpointing.lock().await;
        self.copies.refresh().await?;
        self.copies.begin_checkpoint();
        let before = *self.since.lock();
        let written = self.write_checkpoint(database.clone(), term).await;
        let has_all_copies = self.copies.end_checkpoint(written.is_ok());
        let (id, len_bytes) = written?;
        {
            let mut since = self.since.lock();
            since.bytes = since.bytes.saturating_sub(before.bytes);
            since.batches = since.batches.saturating_sub(before.batches);
            since.checkpoint = valv_types::Revision(id.revision);
            since.checkpoint_bytes = len_bytes;
        }
        tracing::info!(revision = id.revision, len_bytes, has_all_copies, "checkpoint of the metadata made");
        if has_all_copies {
            self.clean(id).await;
        }
        Ok(())
    }

    async fn write_checkpoint(&self, database: Arc<Database>, term: Term) -> Result<(CheckpointId, u64), MirrorError> {
        let snapshot = RocksSnapshot::new(database)?;
        let id = CheckpointId::new(term, snapshot.revision())?;
        let (sender, mut segments) = mpsc::channel(SEGMENTS_WAITING);
        let key = self.config.key.clone();
        let producer = self.readers.spawn_blocking(move || produce(&snapshot, &key, id, &sender));
        let mut len_bytes = 0;
        while let Some((chunk, sealed)) = segments.recv().await {
            len_bytes += sealed.len() as u64;
            self.copies.put(id.key(chunk, 0), CODEC, sealed).await?;
        }
        let trailer = producer.await.map_err(|error| StoreError::Io { what: error.to_string() })??;
        let at = id.key(TRAILER_CHUNK, 0);
        self.copies.put(at, CODEC, seal(&self.config.key, CODEC, &at, &trailer.encode())?).await?;
        Ok((id, len_bytes))
    }

    /// Whether every segment that the trailer counts is on some disk.
    pub(super) async fn covers(&self, id: &CheckpointId, pieces: &Pieces) -> bool {
        match self.read_trailer(id, pieces).await {
            Ok(trailer) => pieces.keys().copied().filter(|chunk| *chunk != TRAILER_CHUNK).eq(0..trailer.pieces),
            Err(_) => false,
        }
    }

    pub(super) async fn read_trailer(&self, id: &CheckpointId, pieces: &Pieces) -> Result<Trailer, MirrorError> {
        Trailer::decode(&self.read_segment(id, pieces, TRAILER_CHUNK).await?)
    }

    pub(super) async fn read_segment(
        &self,
        id: &CheckpointId,
        pieces: &Pieces,
        chunk: u32,
    ) -> Result<Vec<u8>, MirrorError> {
        let unreadable = || MirrorError::Unreadable { what: "checkpoint", revision: id.revision };
        let key = id.key(chunk, 0);
        let places = &pieces.get(&chunk).ok_or_else(unreadable)?.places;
        let opener = |sealed: &[u8]| open(&self.config.key, CODEC, &key, sealed);
        self.copies.read(key, places, opener).await.ok_or_else(unreadable)
    }

    /// Deletes batches and checkpoints that `newest` replaces. What can't be deleted now is found by the next one.
    async fn clean(&self, newest: CheckpointId) {
        let (disks, _) = self.copies.readable();
        for disk in disks {
            if let Err(error) = self.clean_disk(disk, newest).await {
                tracing::debug!(%disk, %error, "replaced parts of the mirror stay on a disk for now");
            }
        }
    }

    async fn clean_disk(&self, disk: DiskId, newest: CheckpointId) -> Result<(), MirrorError> {
        let mut from = Some(FIRST_KEY);
        while let Some(start) = from {
            let (stats, next) = page(&self.copies, disk, start).await?;
            let past = stats.last().is_some_and(|stat| stat.key.placement > newest.revision);
            let victims: Vec<ShardKey> =
                stats.iter().filter(|stat| is_replaced(stat, newest)).map(|stat| stat.key).collect();
            if !victims.is_empty() {
                self.copies.shards.delete(disk, victims).await?;
            }
            from = next.filter(|_| !past);
        }
        Ok(())
    }
}

fn is_replaced(stat: &ShardStat, newest: CheckpointId) -> bool {
    match stat.codec {
        // A checkpoint always ends between two groups, so no batch lies across its revision.
        ShardCodec::MetadataBatch => BatchId::of(&stat.key).last() <= newest.revision,
        ShardCodec::MetadataCheckpoint => {
            let id = CheckpointId::of(&stat.key);
            id.revision <= newest.revision && id != newest
        }
        ShardCodec::SealedChunk => false,
    }
}

/// Cuts the snapshot into sealed segments. Ends early if nobody takes them any more.
fn produce(
    snapshot: &RocksSnapshot,
    key: &RecordKey,
    id: CheckpointId,
    out: &mpsc::Sender<(u32, Bytes)>,
) -> Result<Trailer, MirrorError> {
    let mut writer = SegmentWriter::default();
    let mut tally = Tally::default();
    let mut chunk = 0;
    let mut send = |writer: &mut SegmentWriter, tally: &mut Tally| -> Result<(), MirrorError> {
        let sealed = seal(key, CODEC, &id.key(chunk, 0), &writer.take_counted(tally))?;
        out.blocking_send((chunk, sealed)).map_err(|_| MirrorError::NoDisk)?;
        chunk += 1;
        Ok(())
    };
    let mut rows = snapshot.rows();
    while let Some((row_key, revision, value)) = rows.next()? {
        if writer.is_full_for(row_key, value) {
            send(&mut writer, &mut tally)?;
        }
        writer.row(row_key, revision, Some(value));
    }
    let mut commits = snapshot.commits();
    while let Some((commit, revision, secs)) = commits.next()? {
        if writer.is_full_for(&[0; 16], &[0; 16]) {
            send(&mut writer, &mut tally)?;
        }
        writer.commit(commit, revision, secs);
    }
    if !writer.is_empty() {
        send(&mut writer, &mut tally)?;
    }
    Ok(tally.trailer())
}
