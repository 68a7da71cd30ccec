//! The gateway role: S3 on its addresses, over whatever metadata and disks this process can reach.

use super::metadata::Metadata;
use super::storage::Storage;
use super::{Serving, remote};
use crate::config::{Config, Ownership};
use anyhow::Context;
use prometheus::Registry;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use valv_gateway::data::{DataPath, DataPathConfig};
use valv_gateway::namespaces::NamespaceConfig;
use valv_gateway::payload::PayloadConfig;
use valv_gateway::server::{ServerConfig, serve};
use valv_gateway::state::{Gateway as S3, GatewayConfig, NewBuckets};
use valv_gateway::tls::Tls;
use valv_policy::ObjectOwnership;

/// Share of the memory budget for buffers of uploads and downloads. The rest is for RocksDB (memtables of seven
/// instances and two block caches, about 200 MiB at most), connections and the allocator.
const DATA_PATH_SHARE_PERCENT: u64 = 55;

/// The running role.
pub(crate) struct Gateway {
    /// Where S3 is served.
    pub(crate) addresses: Vec<SocketAddr>,
    handler: Arc<S3>,
    data: Arc<DataPath>,
    data_tasks: CancellationToken,
    servers: Vec<Serving>,
}

/// How long uploads that were given up may take to delete their shards at the end.
const CLEAN_UP_MAX: Duration = Duration::from_secs(10);

impl Gateway {
    /// Takes no new requests, lets those in flight end within the server's drain time, then ends the data path's tasks.
    pub(crate) async fn stop(self) {
        for server in self.servers {
            server.stop().await;
        }
        self.handler.drain().await;
        if !self.data.drain(CLEAN_UP_MAX).await {
            tracing::warn!("unfinished uploads are left to the orphan scan");
        }
        self.data_tasks.cancel();
    }
}

/// Binds the addresses and serves S3 on them.
pub(crate) async fn start(
    config: &Config,
    storage: Option<&Storage>,
    metadata: Option<&Metadata>,
    registry: &Registry,
) -> anyhow::Result<Gateway> {
    let section = &config.gateway;
    // Bound first, so that an address in use is said before anything else is done; served last.
    let mut listeners = Vec::with_capacity(section.listen.len());
    for address in &section.listen {
        listeners.push(TcpListener::bind(address).await.with_context(|| format!("gateway: binding {address}"))?);
    }
    let tls = match &section.tls {
        None => None,
        Some(files) => Some(Arc::new(Tls::load(&files.certificate, &files.key).context("gateway: TLS")?)),
    };
    let metadata = match metadata {
        Some(metadata) => metadata.api(),
        None => remote::metadata(section.metadata.as_deref()).await?,
    };
    let shards = match storage {
        Some(storage) => storage.shards(),
        None => remote::shards(&section.storage).await?,
    };
    let budget = config.memory_budget_bytes / 100 * DATA_PATH_SHARE_PERCENT;
    let data_config = DataPathConfig { memory_budget_bytes: usize::try_from(budget)?, ..DataPathConfig::default() };
    let data = DataPath::new(metadata.clone(), shards, data_config, registry);
    let data_tasks = CancellationToken::new();
    data.start(data_tasks.clone()).await;
    let s3_config = GatewayConfig {
        region: section.region.clone(),
        base_domains: section.base_domains.clone(),
        namespaces: NamespaceConfig { anonymous: section.anonymous_namespace.clone(), by_host: section.hosts.clone() },
        sse_c_without_tls: section.sse_c_without_tls,
        kms_key_names: section.kms_key_names.clone(),
        new_buckets: NewBuckets {
            ownership: match section.new_buckets.object_ownership {
                Ownership::BucketOwnerEnforced => ObjectOwnership::BucketOwnerEnforced,
                Ownership::BucketOwnerPreferred => ObjectOwnership::BucketOwnerPreferred,
                Ownership::ObjectWriter => ObjectOwnership::ObjectWriter,
            },
            is_public_access_blocked: section.new_buckets.public_access_block.0,
        },
        trusted_proxies: section.trusted_proxies.clone(),
        payload: PayloadConfig { idle_timeout: section.idle_timeout },
        ..GatewayConfig::default()
    };
    let handler = S3::new(s3_config, metadata, data.clone(), registry)?;
    let server_config = ServerConfig {
        connections_max: section.connections_max,
        header_timeout: section.idle_timeout.max(Duration::from_secs(1)),
        write_stall_timeout: section.idle_timeout.max(Duration::from_secs(1)),
        ..ServerConfig::default()
    };
    let mut addresses = Vec::with_capacity(listeners.len());
    let mut servers = Vec::with_capacity(listeners.len());
    for listener in listeners {
        addresses.push(listener.local_addr()?);
        let stop = CancellationToken::new();
        let serving = serve(listener, tls.clone(), handler.clone(), server_config.clone(), stop.clone());
        servers.push(Serving::spawn(stop, serving));
    }
    Ok(Gateway { addresses, handler, data, data_tasks, servers })
}
