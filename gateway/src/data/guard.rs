//! What becomes of shards whose blob was not, or may not have been, committed.

use super::DataPath;
use super::incarnation::Sequence;
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio_util::task::TaskTracker;
use valv_shard_api::STAT_KEYS_MAX;
use valv_types::{ChunkId, DiskId, PoolId, ShardKey};

/// The shards that one upload wrote or tried to write, and the tasks that may still be writing them.
pub(super) struct WrittenShards {
    path: Arc<DataPath>,
    pool: PoolId,
    /// Each chunk with the disks of its shards in order. A body of 5 GiB has 640 chunks: 60 KiB at 4+2.
    placed: Vec<(ChunkId, Vec<DiskId>)>,
    tasks: TaskTracker,
}

impl WrittenShards {
    pub(super) fn new(path: Arc<DataPath>, pool: PoolId) -> Self {
        Self { path, pool, placed: Vec::new(), tasks: TaskTracker::new() }
    }

    pub(super) fn note(&mut self, chunk: ChunkId, disks: &[DiskId]) {
        self.placed.push((chunk, disks.to_vec()));
    }

    pub(super) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Deletes the shards when the last put has ended. The blob's number stays in flight until then. Deletes that fail are
    /// left to the orphan search, which finds them by rule.
    pub(super) fn delete_in_background(self, sequence: Sequence) {
        // Without a runtime (the process is ending) the shards are orphans of an incarnation that will be fenced.
        if self.placed.is_empty() || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let tasks = Arc::clone(&self.path.tasks);
        tasks.spawn(async move {
            self.tasks.close();
            self.tasks.wait().await;
            self.delete().await;
            drop(sequence);
        });
    }

    async fn delete(&self) {
        let mut by_disk: BTreeMap<DiskId, Vec<ShardKey>> = BTreeMap::new();
        for (chunk, disks) in &self.placed {
            for (shard, disk) in (0u8..).zip(disks) {
                by_disk.entry(*disk).or_default().push(ShardKey::new(self.pool, *chunk, shard));
            }
        }
        let deletes = by_disk.into_iter().map(|(disk, keys)| async move {
            for keys in keys.chunks(STAT_KEYS_MAX) {
                let deleting = self.path.shards.delete(disk, keys.to_vec());
                match tokio::time::timeout(self.path.config.put_deadline, deleting).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::debug!(%disk, %error, "shards of an upload that was given up are left to the orphan search");
                        return;
                    }
                    Err(_) => return,
                }
            }
        });
        join_all(deletes).await;
    }
}

/// Holds a finished blob's place below the low-water mark until somebody knows what became of its commit.
///
/// Say [`Self::commit_done`] when the commit returned, [`Self::discard`] when it definitely failed. Dropped without
/// either, the outcome is unknown: nothing is deleted, and the low-water mark stays below the blob for
/// `unresolved_commit_hold`, in which a commit that is still on its way either arrives or never will.
#[must_use = "a guard that is dropped at once holds the low-water mark back"]
pub struct BlobGuard {
    inner: Option<(WrittenShards, Sequence)>,
}

impl BlobGuard {
    pub(super) fn new(written: WrittenShards, mut sequence: Sequence) -> Self {
        sequence.hold_when_dropped(written.path.config.unresolved_commit_hold);
        Self { inner: Some((written, sequence)) }
    }

    /// The commit returned success: the blob belongs to metadata now.
    pub fn commit_done(mut self) {
        if let Some((_, mut sequence)) = self.inner.take() {
            sequence.resolve();
        }
    }

    /// The commit failed for certain, or will never be tried: the shards are deleted in the background.
    pub fn discard(mut self) {
        if let Some((written, mut sequence)) = self.inner.take() {
            sequence.resolve();
            written.delete_in_background(sequence);
        }
    }
}
