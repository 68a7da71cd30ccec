//! Disks for tests: they keep shards in memory across openings of the store, and fail as they are told.

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use valv_shard_api::{
    DiskState, DiskStatus, NewShard, ShardCodec, ShardError, ShardStat, ShardStore, VerifiedShard, block_hashes,
};
use valv_types::{DiskId, ShardKey};

/// How a disk behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Well,
    /// Known to be away.
    Away,
    /// Takes what it is given, but would rather not.
    Full,
    /// Said to be online, and every put fails.
    FailsPuts,
}

struct Disk {
    mood: Mood,
    formatted: [u8; 16],
    shards: BTreeMap<ShardKey, (ShardCodec, Bytes)>,
}

/// A handful of disks.
pub(super) struct Disks(Mutex<BTreeMap<DiskId, Disk>>);

impl Disks {
    pub(super) fn new(count: u8) -> Arc<Self> {
        let disk = |n| Disk { mood: Mood::Well, formatted: [n; 16], shards: BTreeMap::new() };
        Arc::new(Self(Mutex::new((0..count).map(|n| (id(n), disk(n))).collect())))
    }

    pub(super) fn set(&self, n: u8, mood: Mood) {
        self.with(id(n), |disk| disk.mood = mood);
    }

    /// An empty disk takes the place of this one.
    pub(super) fn replace(&self, n: u8) {
        self.with(id(n), |disk| {
            disk.formatted[15] = 0xee;
            disk.shards.clear();
        });
    }

    /// How many shards of a kind a disk has.
    pub(super) fn count(&self, n: u8, codec: ShardCodec) -> usize {
        self.with(id(n), |disk| disk.shards.values().filter(|(of, _)| *of == codec).count())
    }

    /// Changes the payloads of the shards that `choose` picks; removes those for which it gives `None`.
    pub(super) fn edit(&self, n: u8, mut edit: impl FnMut(&ShardKey, ShardCodec, &[u8]) -> Option<Vec<u8>>) {
        self.with(id(n), |disk| {
            let shards = std::mem::take(&mut disk.shards);
            disk.shards = shards
                .into_iter()
                .filter_map(|(key, (codec, payload))| Some((key, (codec, edit(&key, codec, &payload)?.into()))))
                .collect();
        });
    }

    /// Everything on a disk, to be put back later.
    pub(super) fn image(&self, n: u8) -> BTreeMap<ShardKey, (ShardCodec, Bytes)> {
        self.with(id(n), |disk| disk.shards.clone())
    }

    pub(super) fn restore(&self, n: u8, image: BTreeMap<ShardKey, (ShardCodec, Bytes)>) {
        self.with(id(n), |disk| disk.shards = image);
    }

    fn with<T>(&self, id: DiskId, work: impl FnOnce(&mut Disk) -> T) -> T {
        work(self.0.lock().get_mut(&id).unwrap())
    }

    fn present<T>(&self, disk: DiskId, work: impl FnOnce(&mut Disk) -> Result<T, ShardError>) -> Result<T, ShardError> {
        self.with(disk, |d| if d.mood == Mood::Away { Err(ShardError::Away { disk }) } else { work(d) })
    }
}

fn id(n: u8) -> DiskId {
    DiskId::from_bytes([n; 16])
}

fn stat(key: &ShardKey, shard: &(ShardCodec, Bytes)) -> ShardStat {
    ShardStat { key: *key, generation: 0, len_bytes: shard.1.len() as u32, codec: shard.0, quarantined: false }
}

#[async_trait]
impl ShardStore for Disks {
    async fn put(&self, disk: DiskId, shard: NewShard) -> Result<(), ShardError> {
        tokio::task::yield_now().await;
        assert_eq!(shard.block_hashes, block_hashes(&shard.payload));
        self.present(disk, |d| match d.mood {
            Mood::FailsPuts => Err(ShardError::Full { disk }),
            _ => {
                d.shards.insert(shard.key, (shard.codec, shard.payload));
                Ok(())
            }
        })
    }

    async fn read(&self, disk: DiskId, key: ShardKey, range: Range<u32>) -> Result<VerifiedShard, ShardError> {
        self.present(disk, |d| {
            let (_, payload) = d.shards.get(&key).ok_or(ShardError::NotFound { disk })?;
            let range = range.start as usize..range.end as usize;
            VerifiedShard::verify(payload.clone(), 0, &block_hashes(payload), range)
                .ok_or(ShardError::Malformed { what: "range" })
        })
    }

    async fn stat(&self, disk: DiskId, keys: Vec<ShardKey>) -> Result<Vec<Option<ShardStat>>, ShardError> {
        self.present(disk, |d| Ok(keys.iter().map(|key| d.shards.get(key).map(|shard| stat(key, shard))).collect()))
    }

    async fn delete(&self, disk: DiskId, keys: Vec<ShardKey>) -> Result<(), ShardError> {
        self.present(disk, |d| {
            d.shards.retain(|key, _| !keys.contains(key));
            Ok(())
        })
    }

    async fn list(&self, disk: DiskId, from: ShardKey, limit: usize) -> Result<Vec<ShardStat>, ShardError> {
        self.present(disk, |d| Ok(d.shards.range(from..).take(limit).map(|(key, shard)| stat(key, shard)).collect()))
    }

    async fn disks(&self) -> Result<Vec<DiskStatus>, ShardError> {
        let status = |(id, disk): (&DiskId, &Disk)| DiskStatus {
            disk: *id,
            name: id.to_string(),
            state: match disk.mood {
                Mood::Away => DiskState::Absent,
                Mood::Full => DiskState::Full,
                Mood::Well | Mood::FailsPuts => DiskState::Online,
            },
            reason: String::new(),
            opened: 1,
            formatted: disk.formatted,
            capacity_bytes: 1 << 40,
            free_bytes: 1 << 39,
            shards: disk.shards.len() as u64,
            live_bytes: 0,
            quarantined: 0,
            scrub: None,
        };
        Ok(self.0.lock().iter().map(status).collect())
    }
}
