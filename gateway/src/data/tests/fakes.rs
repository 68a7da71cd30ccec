//! A store that keeps shards in memory and fails as it is told, and a metadata service that knows one pool.

use super::disk;
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use valv_metadata_api::{ClusterMap, Empty, MetadataError, ProjectKeyLease, Request, Response, Secret, Transport};
use valv_shard_api::{DiskState, DiskStatus, NewShard, ShardError, ShardStat, ShardStore, VerifiedShard, block_hashes};
use valv_types::{
    BLOCK_LEN_BYTES, BlobId, CellId, ClusterId, DiskId, Epoch, IncarnationId, Layout, PlacementGroup, PoolMap,
    ProjectId, ShardKey,
};

const BLOCKS: usize = BLOCK_LEN_BYTES as usize;

/// What is wrong with a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Answers that it is away; its state says so too.
    Away,
    /// Answers that it is away, while its state says that it is online.
    AwayUnannounced,
    Full,
    ReadOnly,
    Io,
    /// Never answers reads or writes.
    Hangs,
    /// Has lost every shard.
    Empty,
    /// Every shard is damaged and known to be.
    Corrupt,
}

pub(crate) const READ_FAULTS: [Fault; 6] =
    [Fault::Away, Fault::AwayUnannounced, Fault::Io, Fault::Hangs, Fault::Empty, Fault::Corrupt];

#[derive(Default)]
struct Disk {
    fault: Option<Fault>,
    busy_puts: u32,
    shards: BTreeMap<ShardKey, (Bytes, Bytes)>,
}

pub(crate) struct FakeStore {
    disks: Mutex<BTreeMap<DiskId, Disk>>,
    pub(crate) reads: AtomicU64,
    pub(crate) bytes_read: AtomicU64,
    /// Puts wait while this is locked for writing.
    pub(crate) gate: tokio::sync::RwLock<()>,
}

impl FakeStore {
    pub(crate) fn new(disks: u8) -> Self {
        Self {
            disks: Mutex::new((0..disks).map(|i| (disk(i), Disk::default())).collect()),
            reads: AtomicU64::new(0),
            bytes_read: AtomicU64::new(0),
            gate: tokio::sync::RwLock::new(()),
        }
    }

    pub(crate) fn fail(&self, disk: DiskId, fault: Fault) {
        self.disks.lock().get_mut(&disk).unwrap().fault = Some(fault);
    }

    pub(crate) fn busy(&self, disk: DiskId, puts: u32) {
        self.disks.lock().get_mut(&disk).unwrap().busy_puts = puts;
    }

    pub(crate) fn shard_count(&self) -> usize {
        self.disks.lock().values().map(|disk| disk.shards.len()).sum()
    }

    pub(crate) fn shards_of(&self, disk: DiskId) -> usize {
        self.disks.lock()[&disk].shards.len()
    }

    /// Replaces a shard by other bytes whose hashes hold: what a bug or an attacker on the node could do.
    pub(crate) fn forge(&self, disk: DiskId, shard: u8, change: impl Fn(&mut Vec<u8>)) -> usize {
        let mut disks = self.disks.lock();
        let mut forged = 0;
        for (key, (payload, hashes)) in &mut disks.get_mut(&disk).unwrap().shards {
            if key.shard == shard {
                let mut bytes = payload.to_vec();
                change(&mut bytes);
                *hashes = block_hashes(&bytes);
                *payload = bytes.into();
                forged += 1;
            }
        }
        forged
    }

    /// The fault to act out; hangs if that is the fault.
    async fn fault(&self, disk: DiskId) -> Fault {
        let fault = self.disks.lock()[&disk].fault.unwrap_or(Fault::None);
        if fault == Fault::Hangs {
            std::future::pending::<()>().await;
        }
        fault
    }
}

fn io(disk: DiskId) -> ShardError {
    ShardError::Io { disk, source: Arc::new(std::io::Error::other("the disk says no")) }
}

#[async_trait]
impl ShardStore for FakeStore {
    async fn put(&self, disk: DiskId, shard: NewShard) -> Result<(), ShardError> {
        let _open = self.gate.read().await;
        match self.fault(disk).await {
            Fault::Away | Fault::AwayUnannounced => return Err(ShardError::Away { disk }),
            Fault::Full => return Err(ShardError::Full { disk }),
            Fault::ReadOnly => return Err(ShardError::ReadOnly { disk }),
            Fault::Io => return Err(io(disk)),
            Fault::None | Fault::Hangs | Fault::Empty | Fault::Corrupt => {}
        }
        assert_eq!(shard.block_hashes, block_hashes(&shard.payload), "a shard comes with its own hashes");
        let mut disks = self.disks.lock();
        let entry = disks.get_mut(&disk).unwrap();
        if entry.busy_puts > 0 {
            entry.busy_puts -= 1;
            return Err(ShardError::Busy { disk });
        }
        // A copy, as a disk makes one.
        entry.shards.insert(shard.key, (Bytes::copy_from_slice(&shard.payload), shard.block_hashes));
        Ok(())
    }

    async fn read(&self, disk: DiskId, key: ShardKey, range: Range<u32>) -> Result<VerifiedShard, ShardError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.bytes_read.fetch_add(u64::from(range.end - range.start), Ordering::Relaxed);
        match self.fault(disk).await {
            Fault::Away | Fault::AwayUnannounced => return Err(ShardError::Away { disk }),
            Fault::Io => return Err(io(disk)),
            Fault::Empty => return Err(ShardError::NotFound { disk }),
            Fault::Corrupt => return Err(ShardError::Corrupt { disk, key: Box::new(key) }),
            Fault::None | Fault::Full | Fault::ReadOnly | Fault::Hangs => {}
        }
        let (payload, hashes) =
            self.disks.lock()[&disk].shards.get(&key).cloned().ok_or(ShardError::NotFound { disk })?;
        let (start, end) = (range.start as usize, range.end as usize);
        let first = start / BLOCKS;
        let blocks = Bytes::copy_from_slice(&payload[first * BLOCKS..payload.len().min(end.next_multiple_of(BLOCKS))]);
        let within = start - first * BLOCKS..end - first * BLOCKS;
        VerifiedShard::verify(blocks, first, &hashes, within).ok_or(ShardError::Corrupt { disk, key: Box::new(key) })
    }

    async fn stat(&self, _: DiskId, _: Vec<ShardKey>) -> Result<Vec<Option<ShardStat>>, ShardError> {
        Err(ShardError::Malformed { what: "not asked by the data path" })
    }

    async fn delete(&self, disk: DiskId, keys: Vec<ShardKey>) -> Result<(), ShardError> {
        if matches!(self.fault(disk).await, Fault::Away | Fault::AwayUnannounced) {
            return Err(ShardError::Away { disk });
        }
        let mut disks = self.disks.lock();
        let shards = &mut disks.get_mut(&disk).unwrap().shards;
        keys.iter().for_each(|key| {
            shards.remove(key);
        });
        Ok(())
    }

    async fn list(&self, _: DiskId, _: ShardKey, _: usize) -> Result<Vec<ShardStat>, ShardError> {
        Err(ShardError::Malformed { what: "not asked by the data path" })
    }

    async fn disks(&self) -> Result<Vec<DiskStatus>, ShardError> {
        let disks = self.disks.lock();
        let status = disks.iter().map(|(id, disk)| DiskStatus {
            disk: *id,
            name: String::new(),
            state: match disk.fault {
                Some(Fault::Away) => DiskState::Absent,
                Some(Fault::Full) => DiskState::Full,
                Some(Fault::ReadOnly) => DiskState::ReadOnly,
                _ => DiskState::Online,
            },
            reason: String::new(),
            opened: 1,
            formatted: [0; 16],
            capacity_bytes: 0,
            free_bytes: 0,
            shards: disk.shards.len() as u64,
            live_bytes: 0,
            quarantined: 0,
            scrub: None,
        });
        Ok(status.collect())
    }
}

pub(crate) struct FakeMetadata {
    map: ClusterMap,
    keys: Mutex<HashMap<ProjectId, [u8; 32]>>,
    pub(crate) key_lease_ms: AtomicU32,
    pub(crate) keys_lent: AtomicU64,
    incarnations: AtomicU32,
    fenced: Mutex<BTreeSet<IncarnationId>>,
    pub(crate) low_water: Mutex<HashMap<IncarnationId, u64>>,
    pub(crate) repairs: Mutex<Vec<BlobId>>,
}

impl FakeMetadata {
    pub(crate) fn new(layout: Layout, disks: u8) -> Self {
        // Groups in which the disks stand in different orders, as the planner makes them.
        let group = |turn: u8| PlacementGroup {
            epoch: Epoch(u64::from(turn) + 3),
            disks: (0..disks).map(|i| disk((i + turn) % disks)).collect(),
        };
        let pools = vec![PoolMap { layout, groups: (0..4).map(group).collect() }];
        Self {
            map: ClusterMap { cluster: ClusterId::random(), cell: CellId(0), pools },
            keys: Mutex::default(),
            key_lease_ms: AtomicU32::new(60_000),
            keys_lent: AtomicU64::new(0),
            incarnations: AtomicU32::new(0),
            fenced: Mutex::default(),
            low_water: Mutex::default(),
            repairs: Mutex::default(),
        }
    }

    pub(crate) fn fence(&self, incarnation: IncarnationId) {
        self.fenced.lock().insert(incarnation);
    }

    pub(crate) fn map(&self) -> ClusterMap {
        self.map.clone()
    }

    /// Makes two projects' keys differ or agree.
    pub(crate) fn set_key(&self, project: ProjectId, key: [u8; 32]) {
        self.keys.lock().insert(project, key);
    }
}

/// The line to a fake metadata service.
pub(crate) struct Line(pub(crate) Arc<FakeMetadata>);

#[async_trait]
impl Transport for Line {
    async fn call(&self, request: Request) -> Result<Response, MetadataError> {
        match request {
            Request::GetProjectKey(get) => {
                self.0.keys_lent.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                let mut fresh = [0; 32];
                getrandom::fill(&mut fresh).unwrap();
                let key = *self.0.keys.lock().entry(get.project).or_insert(fresh);
                let lease_ms = self.0.key_lease_ms.load(Ordering::SeqCst);
                let lease = ProjectKeyLease { version: 1, key: Secret::new(key.to_vec()), lease_ms };
                Ok(Response::GetProjectKey(lease))
            }
            Request::GetClusterMap(_) => Ok(Response::GetClusterMap(self.0.map.clone())),
            Request::RegisterIncarnation(_) => {
                let number = self.0.incarnations.fetch_add(1, Ordering::SeqCst) + 1;
                Ok(Response::RegisterIncarnation(IncarnationId(number)))
            }
            Request::Heartbeat(beat) => {
                if self.0.fenced.lock().contains(&beat.incarnation) {
                    return Err(MetadataError::Fenced);
                }
                self.0.low_water.lock().insert(beat.incarnation, beat.low_water);
                Ok(Response::Heartbeat(Empty {}))
            }
            Request::QueueRepair(queue) => {
                self.0.repairs.lock().extend(queue.blobs);
                Ok(Response::QueueRepair(Empty {}))
            }
            _ => Err(MetadataError::Malformed { what: "not asked by the data path".to_owned() }),
        }
    }
}
