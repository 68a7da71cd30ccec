//! Asking the disks, none of which may keep a pass waiting for ever.

use crate::plan::ShardState;
use crate::service::Shared;
use valv_shard_api::{NewShard, STAT_KEYS_MAX, ShardError, ShardStat, VerifiedShard};
use valv_types::{DiskId, ShardKey};

impl Shared {
    /// An answer, or that the disk did not give one in time. What was asked may still happen: putting or deleting a
    /// shard late is as harmless as doing it twice, and a shard that comes late for a deleted blob is an orphan.
    async fn in_time<T>(
        &self,
        disk: DiskId,
        asked: impl Future<Output = Result<T, ShardError>>,
    ) -> Result<T, ShardError> {
        match tokio::time::timeout(self.config.answer_within, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(ShardError::Busy { disk }),
        }
    }

    /// One answer for each key: `None` if the disk did not give any.
    pub(crate) async fn stat(&self, disk: DiskId, keys: Vec<ShardKey>) -> Vec<Option<Option<ShardStat>>> {
        let mut answers = Vec::with_capacity(keys.len());
        for keys in keys.chunks(STAT_KEYS_MAX) {
            match self.in_time(disk, self.shards.stat(disk, keys.to_vec())).await {
                Ok(found) if found.len() == keys.len() => answers.extend(found.into_iter().map(Some)),
                Ok(_) | Err(_) => answers.extend(std::iter::repeat_n(None, keys.len())),
            }
        }
        answers
    }

    /// A whole shard, verified.
    pub(crate) async fn read(&self, disk: DiskId, key: ShardKey, len_bytes: u32) -> Result<VerifiedShard, ShardError> {
        self.in_time(disk, self.shards.read(disk, key, 0..len_bytes)).await
    }

    /// Healed is what was read back from the disk and verified, not what was sent to it.
    pub(crate) async fn put_and_read_back(&self, disk: DiskId, shard: NewShard) -> Result<(), ShardError> {
        let (key, payload) = (shard.key, shard.payload.clone());
        self.in_time(disk, self.shards.put(disk, shard)).await?;
        let Ok(len_bytes) = u32::try_from(payload.len()) else {
            return Err(ShardError::Malformed { what: "a shard of 4 GiB or more" });
        };
        let found = self.read(disk, key, len_bytes).await?.into_bytes();
        if found == payload { Ok(()) } else { Err(ShardError::Corrupt { disk, key: Box::new(key) }) }
    }

    /// Removes shards durably.
    pub(crate) async fn delete(&self, disk: DiskId, keys: &[ShardKey]) -> Result<(), ShardError> {
        for keys in keys.chunks(STAT_KEYS_MAX) {
            self.in_time(disk, self.shards.delete(disk, keys.to_vec())).await?;
        }
        Ok(())
    }

    /// A page of a disk's shards.
    pub(crate) async fn list(&self, disk: DiskId, from: ShardKey, limit: usize) -> Result<Vec<ShardStat>, ShardError> {
        self.in_time(disk, self.shards.list(disk, from, limit)).await
    }
}

/// What a failed read says of a shard. Only the disk's own word makes one missing or damaged.
pub(crate) fn state_after(error: &ShardError) -> ShardState {
    match error {
        ShardError::Corrupt { .. } => ShardState::Quarantined,
        ShardError::NotFound { .. } | ShardError::Malformed { .. } => ShardState::Missing,
        ShardError::Away { .. }
        | ShardError::ReadOnly { .. }
        | ShardError::Full { .. }
        | ShardError::Busy { .. }
        | ShardError::Io { .. } => ShardState::Unknown,
    }
}
