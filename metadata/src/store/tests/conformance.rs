//! Runs the suite over each way to open the embedded store.

use crate::store::conformance::{Factory, Instance, run_all};
use crate::store::{MetaStore, RocksConfig, RocksMetaStore, Start};
use async_trait::async_trait;
use std::sync::Arc;
use tempfile::TempDir;

struct Plain;

struct PlainInstance {
    folder: TempDir,
    store: Option<Arc<RocksMetaStore>>,
}

#[async_trait]
impl Factory for Plain {
    async fn fresh(&self) -> Box<dyn Instance> {
        let folder = TempDir::new().unwrap();
        let config = RocksConfig::new(folder.path().join("metadata"), Start::First);
        let store = Some(RocksMetaStore::open(config).await.unwrap());
        Box::new(PlainInstance { folder, store })
    }
}

#[async_trait]
impl Instance for PlainInstance {
    fn store(&self) -> Arc<dyn MetaStore> {
        self.store.clone().unwrap()
    }

    async fn reopen(&mut self) {
        let store = self.store.take().unwrap();
        store.shutdown().await.unwrap();
        drop(store);
        let config = RocksConfig::new(self.folder.path().join("metadata"), Start::Again);
        self.store = Some(RocksMetaStore::open(config).await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_store_conforms_without_a_mirror() {
    run_all(&Plain).await;
}
