//! The metadata role: the store and its mirror, the service over it, and its background work.

use super::admin::users::{self, FirstKey};
use super::first_start::DataFolder;
use super::sealed::OpenRoot;
use super::storage::Storage;
use super::{KEYS_FOLDER, METADATA_FOLDER, RPC_IN_FLIGHT_MAX, Serving, Shards, remote, repair};
use crate::config::Config;
use anyhow::{Context, bail};
use prometheus::Registry;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use valv_metadata::store::{MIRROR_KEY_PURPOSE, MirrorConfig, OnLoss, RocksConfig, RocksMetaStore, Start};
use valv_metadata::{BootstrapConfig, KeyStore, MetadataConfig, MetadataService};
use valv_metadata_api::Metadata as MetadataApi;
use valv_repair::RepairService;

/// Placement groups of the first pool: enough to be spread over many more disks later, few enough to be listed.
const PLACEMENT_GROUPS: u32 = 16;
/// How long a start waits for the storage nodes that it needs, before it says what it lacks.
const DISKS_WAIT_MAX: Duration = Duration::from_secs(60);

/// The running role.
pub(crate) struct Metadata {
    /// The service.
    pub(crate) service: Arc<MetadataService>,
    /// Census, repair and reclaim.
    pub(crate) repair: Arc<RepairService>,
    /// The disks, as this role reaches them.
    pub(crate) shards: Shards,
    /// The key of the first project, if this start gave or made one.
    pub(crate) first_key: Option<FirstKey>,
    /// Where the metadata service listens, if it does.
    pub(crate) address: Option<SocketAddr>,
    serving: Option<Serving>,
    store: Arc<RocksMetaStore>,
    background: Serving,
}

impl Metadata {
    /// The service behind the trait that everybody else knows.
    pub(crate) fn api(&self) -> Arc<dyn MetadataApi> {
        self.service.clone()
    }

    /// Stops serving, then background work, then the store.
    pub(crate) async fn stop(self) {
        if let Some(serving) = self.serving {
            serving.stop().await;
        }
        self.repair.stop().await;
        self.background.stop().await;
        if let Err(error) = self.store.shutdown().await {
            tracing::error!(%error, "the metadata store did not close cleanly; the next start recovers it");
        }
    }
}

/// Opens keys and store, makes the first project if there is none, and starts what the role does.
pub(crate) async fn start(
    config: &Config,
    folder: &DataFolder,
    root: OpenRoot,
    storage: Option<&Storage>,
    registry: &Registry,
) -> anyhow::Result<Metadata> {
    let section = &config.metadata;
    let shards = match storage {
        Some(storage) => storage.shards(),
        None => remote::shards(&section.storage).await?,
    };
    let keys = KeyStore::open(&folder.path.join(KEYS_FOLDER), root.key)?.with_root_home(root.home);

    let start = if folder.is_first_start() { Start::First } else { Start::Again };
    let mut mirror = MirrorConfig::new(shards.clone(), keys.system().system_record_key(MIRROR_KEY_PURPOSE));
    mirror.copies = section.m + 1;
    let mut store_config = RocksConfig::new(folder.path.join(METADATA_FOLDER), start);
    if config.accept_metadata_loss {
        store_config.on_loss = OnLoss::StartWithWhatIsLeft;
    }
    let store = RocksMetaStore::open(store_config, Some(mirror)).await.context("opening the metadata store")?;
    // With disks that come up later the store opens, and only reads until its mirror can be written.
    if tokio::time::timeout(DISKS_WAIT_MAX, store.wait_until_ready()).await.is_err() {
        tracing::warn!("no disk takes the metadata's mirror yet: nothing can be changed until one does");
    }
    let service_config = MetadataConfig {
        trash_secs: section.trash.as_secs(),
        key_lease_ms: u32::try_from(config.keys.lease.as_millis())?,
        key_retire_secs: config.keys.retire_after.as_secs(),
        key_backup_secs: config.keys.backups_kept.as_secs(),
        lifecycle_day: section.lifecycle_day,
        horizon_warn_secs: config.custody.warn_before.as_secs(),
        lifecycle_every_ms: u64::try_from(section.lifecycle_every.as_millis())?,
        cooling_off_secs: section.cooling_off.as_secs(),
        ..MetadataConfig::default()
    };
    let service = MetadataService::open(service_config, store.clone(), keys).await?;
    service.register_metrics(registry)?;
    bootstrap(&service, service_config.cell, config, folder, &shards).await?;
    service.ensure_cluster_key().await?;
    let first_key = users::ensure_all(&service, config).await?;
    service.ensure_openings(&config.openings).await.context("[[openings]]")?;

    let cancel = CancellationToken::new();
    let task = service.start_background(cancel.clone());
    let background = Serving::adopt(cancel, task);
    let repair = repair::start(config, service.clone(), shards.clone(), storage, registry)?;
    let (address, serving) = match section.listen {
        None => (None, None),
        Some(address) => {
            let (address, serving) = serve(address, service.clone()).await?;
            (Some(address), Some(serving))
        }
    };
    Ok(Metadata { service, repair, shards, first_key, address, serving, store, background })
}

async fn bootstrap(
    service: &MetadataService,
    cell: valv_types::CellId,
    config: &Config,
    folder: &DataFolder,
    shards: &Shards,
) -> anyhow::Result<()> {
    if service.get_cluster_map(valv_metadata_api::Empty {}).await.is_ok() {
        return Ok(());
    }
    let need = usize::from(config.metadata.k) + usize::from(config.metadata.m);
    let disks = wait_for_disks(shards, need).await?;
    let made = BootstrapConfig {
        cluster: folder.identity.cluster,
        cell,
        disks,
        k: config.metadata.k,
        m: config.metadata.m,
        pg_count: PLACEMENT_GROUPS,
    };
    service.bootstrap(made).await.context("making the first pool")?;
    Ok(())
}

/// The ids of all disks, once at least `need` are known.
async fn wait_for_disks(shards: &Shards, need: usize) -> anyhow::Result<Vec<valv_types::DiskId>> {
    let deadline = tokio::time::Instant::now() + DISKS_WAIT_MAX;
    loop {
        let known = shards.disks().await.unwrap_or_default();
        if known.len() >= need {
            return Ok(known.into_iter().map(|disk| disk.disk).collect());
        }
        if tokio::time::Instant::now() >= deadline {
            bail!("the pool needs {need} disks, and the storage nodes that answer have {}", known.len());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn serve(address: SocketAddr, service: Arc<MetadataService>) -> anyhow::Result<(SocketAddr, Serving)> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("metadata: binding {address}"))?;
    let bound = listener.local_addr()?;
    let cancel = CancellationToken::new();
    let stopped = cancel.clone();
    let serving = Serving::spawn(cancel, async move {
        let served = tonic::transport::Server::builder()
            .concurrency_limit_per_connection(RPC_IN_FLIGHT_MAX)
            .add_service(valv_metadata::grpc::MetadataServer::new(service).into_server())
            .serve_with_incoming_shutdown(
                TcpIncoming::from(listener).with_nodelay(Some(true)),
                stopped.cancelled_owned(),
            )
            .await;
        if let Err(error) = served {
            tracing::error!(%error, "the metadata service ended");
        }
    });
    Ok((bound, serving))
}

/// Writes every record of a data folder over which no server runs; returns how many. Changes nothing in it.
pub(crate) async fn export_offline(
    data: &Path,
    root: valv_codec::RootKey,
    out: &mut (dyn std::io::Write + Send),
) -> anyhow::Result<u64> {
    let path = data.join(METADATA_FOLDER);
    if !path.exists() {
        bail!("no server answers, and {} is not there: start the server, which rebuilds it", path.display());
    }
    let keys = KeyStore::open(&data.join(KEYS_FOLDER), root)?;
    let store = RocksMetaStore::open(RocksConfig::new(path, Start::Again), None).await?;
    let service = MetadataService::open(MetadataConfig::default(), store.clone(), keys).await?;
    let lines = service.export_all(out).await?;
    store.shutdown().await?;
    Ok(lines)
}
