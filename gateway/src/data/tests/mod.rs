//! The data path over a fake store with faults and a fake metadata service.

mod fakes;
mod reading;
mod shared;
mod writing;

use super::*;
use fakes::{FakeMetadata, FakeStore, Line};
use futures_util::TryStreamExt;
use valv_metadata_api::{BlobRecord, Client, NewBody};
use valv_types::{DiskId, PoolId};

pub(super) const DISKS: u8 = 6;

/// A layout like the real one with everything 16 or 128 times smaller: chunks of 32 KiB, four shards of 8.2 KiB.
pub(super) fn small_layout() -> Layout {
    Layout {
        frame_plain_bytes: 4096,
        frames_per_chunk: 8,
        replicated_plain_bytes_max: 8192,
        ..Layout::current(PoolId(1), 4, 2).unwrap()
    }
}

pub(super) fn disk(index: u8) -> DiskId {
    DiskId::from_bytes([index; 16])
}

pub(super) struct World {
    pub(super) path: Arc<DataPath>,
    pub(super) store: Arc<FakeStore>,
    pub(super) metadata: Arc<FakeMetadata>,
    pub(super) project: ProjectId,
    pub(super) layout: Layout,
    cancel: CancellationToken,
}

impl Drop for World {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// Hedges soon and often. The deadlines stay long, so that a busy machine makes no healthy disk look dead; tests with a
/// disk that hangs shorten the one they need.
pub(super) fn quick_config() -> DataPathConfig {
    DataPathConfig {
        memory_budget_bytes: 8 << 20,
        hedge_after_min: Duration::from_millis(5),
        hedge_after_max: Duration::from_millis(20),
        hedge_percent_max: 100,
        heartbeat_interval: Duration::from_millis(20),
        disk_refresh_interval: Duration::from_millis(20),
        ..DataPathConfig::default()
    }
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with(small_layout(), quick_config()).await
    }

    pub(super) async fn with(layout: Layout, config: DataPathConfig) -> Self {
        let store = Arc::new(FakeStore::new(DISKS));
        let metadata = Arc::new(FakeMetadata::new(layout, DISKS));
        let client: Arc<dyn Metadata> = Arc::new(Client(Line(Arc::clone(&metadata))));
        let path = DataPath::new(client, Arc::clone(&store) as _, config, &prometheus::Registry::new());
        let cancel = CancellationToken::new();
        path.start(cancel.clone()).await;
        Self { path, store, metadata, project: ProjectId::random(), layout, cancel }
    }

    /// Writes `body` in pieces of `step` bytes.
    pub(super) async fn write(&self, body: &[u8], step: usize) -> Result<FinishedBlob, DataError> {
        let mut writer = self.path.write_blob(self.project, self.layout, Some(body.len() as u64)).await?;
        for piece in body.chunks(step.max(1)) {
            writer.write(Bytes::copy_from_slice(piece)).await?;
        }
        writer.finish().await
    }

    /// Writes `body` and commits it.
    pub(super) async fn put(&self, body: &[u8]) -> Stored {
        let finished = self.write(body, 10_000).await.unwrap();
        finished.guard.commit_done();
        assert_eq!(finished.len_bytes, body.len() as u64);
        match finished.body {
            NewBody::Empty => Stored { record: None, inline: None },
            NewBody::Inline(record, sealed) => Stored { record: Some(record), inline: Some(sealed.into()) },
            NewBody::Blob(record) => Stored { record: Some(record), inline: None },
        }
    }

    pub(super) async fn get(&self, stored: &Stored, range: Range<u64>) -> Result<Vec<u8>, DataError> {
        let Some(record) = &stored.record else { return Ok(Vec::new()) };
        let stream = self.path.read_blob(self.project, record, stored.inline.clone(), range).await?;
        collect(stream).await
    }

    /// The disk that holds shard `shard` of a chunk.
    pub(super) async fn disk_of(&self, record: &BlobRecord, chunk: u32, shard: u8) -> DiskId {
        let chunk = valv_types::ChunkId { blob: record.blob, index: chunk };
        self.path.cluster.place(self.layout.pool, chunk, DISKS).await.unwrap().disks[usize::from(shard)]
    }
}

pub(super) struct Stored {
    pub(super) record: Option<BlobRecord>,
    pub(super) inline: Option<Bytes>,
}

impl Stored {
    pub(super) fn record(&self) -> &BlobRecord {
        self.record.as_ref().unwrap()
    }
}

pub(super) async fn collect(stream: BlobStream) -> Result<Vec<u8>, DataError> {
    let pieces: Vec<Bytes> = stream.try_collect().await?;
    Ok(pieces.concat())
}

/// Bytes in which no two neighbouring places look alike.
pub(super) fn body(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

/// Waits until `condition` holds.
pub(super) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..5_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("still not so after 10 s: {what}");
}

pub(super) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}
