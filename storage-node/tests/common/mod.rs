//! What the engine's tests share: a formatted disk in a temporary folder, and faults for its writes.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

use bytes::Bytes;
use std::fs::File;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::mpsc;
use valv_shard_api::{NewShard, ShardCodec, block_hashes};
use valv_storage_node::{
    CorruptReport, Disk, DiskContext, EngineConfig, ExpectedDisk, ExtentIo, Identity, OpenError, SystemIo,
};
use valv_types::{BlobId, ClusterId, DiskId, NodeId, PoolId, ShardKey};

pub fn identity() -> Identity {
    Identity {
        cluster: ClusterId::from_bytes([1; 16]),
        node: NodeId::from_bytes([2; 16]),
        disk: DiskId::from_bytes([3; 16]),
        name: "disk-1".to_owned(),
    }
}

pub fn expected() -> ExpectedDisk {
    ExpectedDisk { cluster: identity().cluster, disk: identity().disk }
}

/// Small extents, so that a few shards fill several, and no work in the background that a test did not ask for.
pub fn small() -> EngineConfig {
    EngineConfig {
        extent_len_bytes: 128 * 1024,
        index_flush_idle: Duration::from_secs(3600),
        maintenance_interval: Duration::from_secs(3600),
        reserve_bytes: Some(0),
        recycled_extents_max: 1,
        ..EngineConfig::default()
    }
}

pub struct Folder {
    _dir: TempDir,
    pub path: PathBuf,
}

impl Folder {
    pub fn formatted() -> Self {
        let folder = Self::empty();
        Disk::format(&folder.path, &identity()).unwrap();
        folder
    }

    pub fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk-1");
        std::fs::create_dir(&path).unwrap();
        Self { _dir: dir, path }
    }

    /// A copy of the folder as it is now: what a crash at this moment would leave.
    pub fn snapshot(&self) -> Self {
        let copy = Self::empty();
        copy_folder(&self.path, &copy.path);
        copy
    }

    /// The extents' files, oldest first.
    pub fn extents(&self) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = std::fs::read_dir(self.path.join("extents"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|kind| kind == "ext"))
            .collect();
        found.sort();
        found
    }

    pub fn remove_index(&self) {
        let _ = std::fs::remove_dir_all(self.path.join("index"));
    }
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy_folder(&path, &target);
        } else {
            // RocksDB may remove a file while we look: that is part of a crash.
            let _ = std::fs::copy(&path, &target);
        }
    }
}

pub fn try_open(path: &Path, config: EngineConfig) -> Result<(Arc<Disk>, mpsc::Receiver<CorruptReport>), OpenError> {
    let (context, reports) = DiskContext::standalone(config, "disk-1").unwrap();
    Disk::open(path, expected(), context).map(|disk| (disk, reports))
}

pub fn open(path: &Path) -> Arc<Disk> {
    try_open(path, small()).unwrap().0
}

pub fn key(number: u32) -> ShardKey {
    ShardKey {
        pool: PoolId(1),
        placement: u64::from(number % 5) << 60,
        blob: BlobId::from_bytes([7; 16]),
        chunk: number,
        shard: (number % 6) as u8,
    }
}

/// Bytes that differ from those of any other seed in every block.
pub fn payload(seed: u32, len: usize) -> Bytes {
    let mut state = u64::from(seed) * 0x9e37_79b9_7f4a_7c15 + 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out.into()
}

pub fn shard(key: ShardKey, payload: Bytes) -> NewShard {
    let block_hashes = block_hashes(&payload);
    NewShard { key, generation: 0, codec: ShardCodec::SealedChunk, payload, block_hashes }
}

/// Fails what it is told to.
#[derive(Debug, Default)]
pub struct FaultyIo {
    pub fail_writes: AtomicBool,
    pub fail_syncs: AtomicBool,
    pub short_writes: AtomicBool,
}

impl ExtentIo for FaultyIo {
    fn write_vectored_at(&self, file: &File, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        if self.fail_writes.load(Ordering::SeqCst) {
            return Err(io::Error::other("injected write error"));
        }
        if self.short_writes.load(Ordering::SeqCst) {
            let first = slices.iter().find(|slice| !slice.is_empty()).unwrap();
            let part = IoSlice::new(&first[..first.len().min(100)]);
            return SystemIo.write_vectored_at(file, &[part], offset);
        }
        SystemIo.write_vectored_at(file, slices, offset)
    }

    fn sync_data(&self, file: &File) -> io::Result<()> {
        if self.fail_syncs.load(Ordering::SeqCst) {
            return Err(io::Error::other("injected sync error"));
        }
        SystemIo.sync_data(file)
    }
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}
