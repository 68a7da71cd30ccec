//! The storage role: this process's own disks, and the shard service for other processes.

use super::RPC_IN_FLIGHT_MAX;
use super::first_start::DataFolder;
use super::{Serving, Shards};
use crate::config::Config;
use anyhow::Context;
use prometheus::Registry;
use std::fs::DirBuilder;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use valv_storage_node::grpc::ShardService;
use valv_storage_node::{Disk, DiskConfig, Identity, NodeConfig, StorageNode};

/// The running role.
pub(crate) struct Storage {
    /// The disks.
    pub(crate) node: Arc<StorageNode>,
    /// Where the shard service listens, if it does.
    pub(crate) address: Option<SocketAddr>,
    serving: Option<Serving>,
}

impl Storage {
    /// The disks behind the trait that everybody else knows.
    pub(crate) fn shards(&self) -> Shards {
        self.node.clone()
    }

    /// Stops serving, then closes the disks.
    pub(crate) async fn stop(self) {
        if let Some(serving) = self.serving {
            serving.stop().await;
        }
        self.node.shutdown().await;
    }
}

/// Opens the disks, after initialising the empty ones of a first start, and serves them if the configuration says so.
pub(crate) async fn start(config: &Config, folder: &DataFolder, registry: &Registry) -> anyhow::Result<Storage> {
    let identity = &folder.identity;
    let disks: Vec<DiskConfig> = identity
        .match_disks(&config.storage.disks)?
        .into_iter()
        .map(|(path, disk)| DiskConfig { disk: disk.id, path, name: disk.name })
        .collect();
    if folder.is_first_start() {
        for disk in &disks {
            initialise(disk, folder)?;
        }
    }
    let mut node_config = NodeConfig::new(identity.cluster, identity.node, disks);
    node_config.engine.extent_len_bytes = config.storage.extent_bytes;
    node_config.engine.scrub_period = config.storage.scrub;
    let node = StorageNode::start(node_config, registry).await.context("starting the storage node")?;
    let (address, serving) = match config.storage.listen {
        None => (None, None),
        Some(address) => {
            let (address, serving) = serve(address, node.clone()).await?;
            (Some(address), Some(serving))
        }
    };
    Ok(Storage { node, address, serving })
}

/// Makes one disk folder of a new server. A first start that was interrupted left some of them initialised already.
fn initialise(disk: &DiskConfig, folder: &DataFolder) -> anyhow::Result<()> {
    let identity = &folder.identity;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&disk.path)
        .with_context(|| format!("creating the disk folder {}", disk.path.display()))?;
    if valv_storage_node::read_superblock(&disk.path).is_ok_and(|found| found.disk == disk.disk) {
        return Ok(());
    }
    let made = Identity { cluster: identity.cluster, node: identity.node, disk: disk.disk, name: disk.name.clone() };
    Disk::format(&disk.path, &made).with_context(|| format!("initialising the disk folder {}", disk.path.display()))?;
    Ok(())
}

async fn serve(address: SocketAddr, node: Arc<StorageNode>) -> anyhow::Result<(SocketAddr, Serving)> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("storage: binding {address}"))?;
    let bound = listener.local_addr()?;
    let cancel = CancellationToken::new();
    let stopped = cancel.clone();
    let serving = Serving::spawn(cancel, async move {
        let served = tonic::transport::Server::builder()
            .concurrency_limit_per_connection(RPC_IN_FLIGHT_MAX)
            .add_service(ShardService::new(node).into_server())
            .serve_with_incoming_shutdown(
                TcpIncoming::from(listener).with_nodelay(Some(true)),
                stopped.cancelled_owned(),
            )
            .await;
        if let Err(error) = served {
            tracing::error!(%error, "the shard service ended");
        }
    });
    Ok((bound, serving))
}
