//! Runs the suite over each way to open the embedded store.

use super::disks::Disks;
use crate::store::conformance::{Factory, Instance, run_all};
use crate::store::{MIRROR_KEY_PURPOSE, MetaStore, MirrorConfig, RocksConfig, RocksMetaStore, Start};
use async_trait::async_trait;
use std::sync::Arc;
use tempfile::TempDir;
use valv_codec::SystemKey;

/// The ways to open it.
enum Embedded {
    Alone,
    Mirrored,
}

struct EmbeddedInstance {
    folder: TempDir,
    mirror: Option<MirrorConfig>,
    store: Option<Arc<RocksMetaStore>>,
}

impl EmbeddedInstance {
    async fn open(&mut self, start: Start) {
        let config = RocksConfig::new(self.folder.path().join("metadata"), start);
        self.store = Some(RocksMetaStore::open(config, self.mirror.clone()).await.unwrap());
    }
}

#[async_trait]
impl Factory for Embedded {
    async fn fresh(&self) -> Box<dyn Instance> {
        let key = SystemKey::generate(1).unwrap().system_record_key(MIRROR_KEY_PURPOSE);
        let mirror = match self {
            Self::Alone => None,
            // Checkpoints come often, so that every test meets some.
            Self::Mirrored => Some(MirrorConfig { checkpoint_batches: 10, ..MirrorConfig::new(Disks::new(4), key) }),
        };
        let mut instance = EmbeddedInstance { folder: TempDir::new().unwrap(), mirror, store: None };
        instance.open(Start::First).await;
        Box::new(instance)
    }
}

#[async_trait]
impl Instance for EmbeddedInstance {
    fn store(&self) -> Arc<dyn MetaStore> {
        self.store.clone().unwrap()
    }

    async fn reopen(&mut self) {
        let store = self.store.take().unwrap();
        store.shutdown().await.unwrap();
        drop(store);
        if self.mirror.is_some() {
            // With a mirror, the folder is not even needed.
            std::fs::remove_dir_all(self.folder.path().join("metadata")).unwrap();
        }
        self.open(Start::Again).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_store_conforms_without_a_mirror() {
    run_all(&Embedded::Alone).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_store_conforms_with_a_mirror_even_when_its_folder_is_removed_at_each_stop() {
    run_all(&Embedded::Mirrored).await;
}
