//! Disks in memory that fail as they are told and count their deletes, and metadata that holds blobs.

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use valv_metadata_api::{
    BlobIds, ClusterMap, DoomedBlob, Empty, LiveBlob, MetadataError, Request, Response, Transport,
};
use valv_shard_api::{
    DiskState, DiskStatus, NewShard, ScrubProgress, ShardCodec, ShardError, ShardStat, ShardStore, VerifiedShard,
    block_hashes,
};
use valv_types::{
    BlobId, CellId, ChunkId, ClusterId, DiskId, Epoch, IncarnationId, Layout, PlacementGroup, PoolId, PoolMap, ShardKey,
};

/// Disk number `i`.
pub(crate) fn disk(i: u8) -> DiskId {
    DiskId::from_bytes([i + 1; 16])
}

/// A shard as a disk holds it.
#[derive(Clone)]
pub(crate) struct Held {
    pub(crate) payload: Bytes,
    pub(crate) generation: u32,
    pub(crate) quarantined: bool,
    /// A read will find it damaged; nobody has noticed yet.
    pub(crate) rotten: bool,
}

#[derive(Default)]
pub(crate) struct FakeDisk {
    pub(crate) shards: BTreeMap<ShardKey, Held>,
    pub(crate) state: Option<DiskState>,
    /// Answers that it is away, while its state says otherwise.
    pub(crate) silent: bool,
    pub(crate) opened: u64,
    pub(crate) formatted: u8,
    /// Keys that were ever deleted.
    pub(crate) deletes: u64,
    pub(crate) scrub: Option<ScrubProgress>,
}

/// A store of six disks.
pub(crate) struct FakeStore {
    pub(crate) disks: Mutex<BTreeMap<DiskId, FakeDisk>>,
    /// Puts wait while this is locked for writing.
    pub(crate) puts: tokio::sync::RwLock<()>,
    /// Puts that have begun.
    pub(crate) puts_begun: AtomicU64,
}

impl FakeStore {
    pub(crate) fn new() -> Self {
        let disks = (0..6).map(|i| (disk(i), FakeDisk::default())).collect();
        Self { disks: Mutex::new(disks), puts: tokio::sync::RwLock::new(()), puts_begun: AtomicU64::new(0) }
    }

    /// Changes a disk.
    pub(crate) fn with<T>(&self, i: u8, change: impl FnOnce(&mut FakeDisk) -> T) -> T {
        change(self.disks.lock().get_mut(&disk(i)).unwrap())
    }

    /// Takes a disk away, or brings it back.
    pub(crate) fn set_away(&self, i: u8, is_away: bool) {
        self.with(i, |disk| {
            disk.state = is_away.then_some(DiskState::Absent);
            disk.opened += u64::from(!is_away);
        });
    }

    /// Puts an empty disk in a disk's place.
    pub(crate) fn replace(&self, i: u8) {
        self.with(i, |disk| {
            disk.shards.clear();
            disk.opened += 1;
            disk.formatted += 1;
        });
    }

    pub(crate) fn contents(&self) -> BTreeMap<(DiskId, ShardKey), Bytes> {
        let disks = self.disks.lock();
        let shards = disks.iter().flat_map(|(id, disk)| disk.shards.iter().map(move |(key, held)| (*id, *key, held)));
        shards
            .filter(|(_, _, held)| !held.quarantined && !held.rotten)
            .map(|(d, k, h)| ((d, k), h.payload.clone()))
            .collect()
    }

    pub(crate) fn shards_of(&self, blob: BlobId) -> usize {
        self.disks.lock().values().flat_map(|disk| disk.shards.keys()).filter(|key| key.blob == blob).count()
    }

    pub(crate) fn deletes(&self) -> u64 {
        self.disks.lock().values().map(|disk| disk.deletes).sum()
    }

    fn present<T>(
        &self,
        id: DiskId,
        writes: bool,
        act: impl FnOnce(&mut FakeDisk) -> Result<T, ShardError>,
    ) -> Result<T, ShardError> {
        let mut disks = self.disks.lock();
        let disk = disks.get_mut(&id).unwrap();
        match disk.state {
            Some(DiskState::Absent) => Err(ShardError::Away { disk: id }),
            _ if disk.silent => Err(ShardError::Away { disk: id }),
            Some(DiskState::ReadOnly) if writes => Err(ShardError::ReadOnly { disk: id }),
            _ => act(disk),
        }
    }
}

fn stat_of(key: ShardKey, held: &Held) -> ShardStat {
    ShardStat {
        key,
        generation: held.generation,
        len_bytes: held.payload.len() as u32,
        codec: ShardCodec::SealedChunk,
        quarantined: held.quarantined,
    }
}

#[async_trait]
impl ShardStore for FakeStore {
    async fn put(&self, id: DiskId, shard: NewShard) -> Result<(), ShardError> {
        self.puts_begun.fetch_add(1, Ordering::SeqCst);
        let _open = self.puts.read().await;
        assert_eq!(shard.block_hashes, block_hashes(&shard.payload), "a shard comes with its own hashes");
        self.present(id, true, |disk| {
            let held = Held { payload: shard.payload, generation: shard.generation, quarantined: false, rotten: false };
            disk.shards.insert(shard.key, held);
            Ok(())
        })
    }

    async fn read(&self, id: DiskId, key: ShardKey, range: Range<u32>) -> Result<VerifiedShard, ShardError> {
        let payload = self.present(id, false, |disk| {
            let held = disk.shards.get_mut(&key).ok_or(ShardError::NotFound { disk: id })?;
            held.quarantined |= held.rotten;
            if held.quarantined {
                return Err(ShardError::Corrupt { disk: id, key: Box::new(key) });
            }
            Ok(held.payload.clone())
        })?;
        let hashes = block_hashes(&payload);
        VerifiedShard::verify(payload, 0, &hashes, range.start as usize..range.end as usize)
            .ok_or(ShardError::Malformed { what: "range" })
    }

    async fn stat(&self, id: DiskId, keys: Vec<ShardKey>) -> Result<Vec<Option<ShardStat>>, ShardError> {
        assert!(keys.len() <= valv_shard_api::STAT_KEYS_MAX);
        self.present(id, false, |disk| {
            Ok(keys.iter().map(|key| disk.shards.get(key).map(|held| stat_of(*key, held))).collect())
        })
    }

    async fn delete(&self, id: DiskId, keys: Vec<ShardKey>) -> Result<(), ShardError> {
        assert!(keys.len() <= valv_shard_api::STAT_KEYS_MAX);
        self.present(id, true, |disk| {
            disk.deletes += keys.len() as u64;
            keys.iter().for_each(|key| drop(disk.shards.remove(key)));
            Ok(())
        })
    }

    async fn list(&self, id: DiskId, from: ShardKey, limit: usize) -> Result<Vec<ShardStat>, ShardError> {
        self.present(id, false, |disk| {
            Ok(disk.shards.range(from..).take(limit).map(|(key, held)| stat_of(*key, held)).collect())
        })
    }

    async fn disks(&self) -> Result<Vec<DiskStatus>, ShardError> {
        let status = |(id, disk): (&DiskId, &FakeDisk)| DiskStatus {
            disk: *id,
            name: id.to_string(),
            state: disk.state.unwrap_or(DiskState::Online),
            reason: String::new(),
            opened: disk.opened,
            formatted: [disk.formatted; 16],
            capacity_bytes: 1 << 40,
            free_bytes: 1 << 40,
            shards: disk.shards.len() as u64,
            live_bytes: 0,
            quarantined: 0,
            scrub: disk.scrub,
        };
        Ok(self.disks.lock().iter().map(status).collect())
    }
}

#[derive(Default)]
pub(crate) struct Blobs {
    pub(crate) live: BTreeMap<BlobId, LiveBlob>,
    pub(crate) queued: Vec<BlobId>,
    pub(crate) doomed: Vec<DoomedBlob>,
    /// Shards rebuilt, as the ledgers were told.
    pub(crate) repaired: BTreeMap<BlobId, u64>,
    /// Blobs below this sequence are committed or given up.
    pub(crate) low_water: u64,
}

/// Metadata of one pool of 4+2 in four groups.
pub(crate) struct FakeMetadata {
    map: ClusterMap,
    pub(crate) blobs: Mutex<Blobs>,
}

impl FakeMetadata {
    pub(crate) fn new() -> Self {
        let layout = Layout::current(PoolId(1), 4, 2).unwrap();
        let group =
            |turn: u8| PlacementGroup { epoch: Epoch(1), disks: (0..6).map(|i| disk((i + turn) % 6)).collect() };
        let pools = vec![PoolMap { layout, groups: (0..4).map(group).collect() }];
        let map = ClusterMap { cluster: ClusterId::random(), cell: CellId(1), pools };
        Self { map, blobs: Mutex::default() }
    }

    /// Stores a blob as a gateway does, and makes it known unless it is to be an orphan.
    pub(crate) fn store(&self, shards: &FakeStore, sequence: u64, len_bytes: u64, is_committed: bool) -> BlobId {
        let pool = &self.map.pools[0];
        let blob = BlobId::new(IncarnationId(1), sequence);
        for geometry in pool.layout.chunks(len_bytes) {
            let len = geometry.shard_len_bytes as usize;
            let mut bytes: Vec<u8> = (0..len * usize::from(geometry.coding.shards()))
                .map(|i| (i as u64 * 31 + i as u64 / 256 + sequence * 7 + u64::from(geometry.index)) as u8)
                .collect();
            valv_erasure::encode_in_place(geometry.coding, &mut bytes, len).unwrap();
            let chunk = ChunkId { blob, index: geometry.index };
            for (i, payload) in (0u8..).zip(bytes.chunks(len)) {
                let key = ShardKey::new(PoolId(1), chunk, i);
                let id = pool.disk(key.placement, i).unwrap();
                let payload = Bytes::copy_from_slice(payload);
                let held = Held { payload, generation: 0, quarantined: false, rotten: false };
                shards.disks.lock().get_mut(&id).unwrap().shards.insert(key, held);
            }
        }
        if is_committed {
            let live = LiveBlob { blob, len_bytes, layout: pool.layout };
            self.blobs.lock().live.insert(blob, live);
        }
        blob
    }

    /// Removes the last reference of a blob.
    pub(crate) fn doom(&self, blob: BlobId) {
        let mut blobs = self.blobs.lock();
        let live = blobs.live.remove(&blob).unwrap();
        blobs.queued.retain(|queued| *queued != blob);
        let doomed = DoomedBlob { blob, len_bytes: live.len_bytes, layout: live.layout, answered: Vec::new() };
        blobs.doomed.push(doomed);
    }
}

/// The line to the fake.
pub(crate) struct Line(pub(crate) Arc<FakeMetadata>);

#[async_trait]
impl Transport for Line {
    async fn call(&self, request: Request) -> Result<Response, MetadataError> {
        let mut blobs = self.0.blobs.lock();
        Ok(match request {
            Request::GetClusterMap(_) => Response::GetClusterMap(self.0.map.clone()),
            Request::ListBlobs(list) => {
                let after = blobs.live.values().filter(|blob| list.after.is_none_or(|after| blob.blob > after));
                Response::ListBlobs(after.take(list.limit as usize).copied().collect())
            }
            Request::FindOrphans(asked) => {
                let is_orphan = |blob: &BlobId| !blobs.live.contains_key(blob) && blob.sequence() < blobs.low_water;
                Response::FindOrphans(BlobIds { blobs: asked.blobs.into_iter().filter(is_orphan).collect() })
            }
            Request::QueueRepair(asked) => {
                for blob in asked.blobs {
                    if blobs.live.contains_key(&blob) && !blobs.queued.contains(&blob) {
                        blobs.queued.push(blob);
                    }
                }
                Response::QueueRepair(Empty {})
            }
            Request::ListRepairs(list) => {
                let queued = blobs.queued.iter().filter_map(|blob| blobs.live.get(blob)).copied();
                Response::ListRepairs(queued.take(list.limit as usize).collect())
            }
            Request::FinishRepairs(asked) => {
                let finished: BTreeSet<BlobId> = asked.blobs.into_iter().collect();
                blobs.queued.retain(|blob| !finished.contains(blob));
                Response::FinishRepairs(Empty {})
            }
            Request::NoteRepairs(note) => {
                for told in note.repaired {
                    *blobs.repaired.entry(told.blob).or_default() += told.shards;
                }
                Response::NoteRepairs(Empty {})
            }
            Request::ListDoomed(list) => {
                Response::ListDoomed(blobs.doomed.iter().take(list.limit as usize).cloned().collect())
            }
            Request::AnswerDoomed(answer) => {
                if answer.finished {
                    blobs.doomed.retain(|doomed| doomed.blob != answer.blob);
                } else if let Some(doomed) = blobs.doomed.iter_mut().find(|doomed| doomed.blob == answer.blob) {
                    doomed.answered.extend(answer.answered);
                }
                Response::AnswerDoomed(Empty {})
            }
            _ => return Err(MetadataError::Malformed { what: "not asked by repair".to_owned() }),
        })
    }
}
