//! `valv server`: wires the roles of this process together, prints how to reach it, and takes it down in order.
//!
//! Start: lock the folder, know its identity, open the disks, then metadata, then repair, then the gateway: nothing
//! listens before what it needs is there. Stop is the reverse: first no new requests, last the disks.

mod admin;
mod announce;
mod first_start;
mod gateway;
mod metadata;
mod metrics;
mod remote;
mod repair;
mod sealed;
mod storage;

pub(crate) use first_start::lock as lock_folder;
pub(crate) use metadata::export_offline;

use crate::config::{Config, Role};
use anyhow::Context;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::prelude::*;

/// The key store's folder in the data folder.
pub(crate) const KEYS_FOLDER: &str = "keys";
/// Calls of one connection that are decoded and served at once. A shard of 2 MiB is held while it is stored: 64 are
/// 128 MiB; what comes beyond waits in the connection's flow control.
const RPC_IN_FLIGHT_MAX: usize = 64;
/// The metadata store's folder in the data folder.
const METADATA_FOLDER: &str = "metadata";

/// Runs a server until SIGTERM or SIGINT.
pub(crate) async fn run(config: Config) -> anyhow::Result<()> {
    start_logging();
    valv_erasure::check_cpu().context("this processor can't run Valv's erasure code")?;
    let cancel = CancellationToken::new();
    let stop = watch_signals(cancel.clone())?;

    let mut folder = first_start::open_folder(&config)?;
    let registry = prometheus::Registry::new();
    let metrics = match config.metrics {
        None => None,
        Some(address) => Some(metrics::serve(address, registry.clone(), cancel.child_token()).await?),
    };

    let storage = match config.has(Role::Storage) {
        true => Some(storage::start(&config, &folder, &registry).await?),
        false => None,
    };
    let (seal, metadata) = match config.has(Role::Metadata) {
        true => match sealed::open(&config, &folder, storage.as_ref(), &cancel).await? {
            Some((root, seal)) => {
                (seal, Some(metadata::start(&config, &folder, root, storage.as_ref(), &registry).await?))
            }
            // Told to stop before it was open.
            None => {
                if let Some(storage) = storage {
                    storage.stop().await;
                }
                return Ok(());
            }
        },
        false => (sealed::Seal::open(""), None),
    };
    folder.finish_first_start()?;
    let gateway = match config.has(Role::Gateway) {
        true => Some(gateway::start(&config, storage.as_ref(), metadata.as_ref(), &registry).await?),
        false => None,
    };
    let admin = admin::serve(&config, &folder, storage.as_ref(), metadata.as_ref(), &seal).await?;
    announce::print(&config, gateway.as_ref(), metadata.as_ref(), storage.as_ref(), admin.url.as_deref());
    tracing::info!(roles = ?config.roles, cluster = %folder.identity.cluster, "serving");

    cancel.cancelled().await;
    tracing::info!("stopping: requests in flight may finish");
    if let Some(gateway) = gateway {
        gateway.stop().await;
    }
    admin.stop().await;
    if let Some(metadata) = metadata {
        metadata.stop().await;
    }
    if let Some(storage) = storage {
        storage.stop().await;
    }
    if let Some(metrics) = metrics {
        metrics.stop().await;
    }
    stop.abort();
    tracing::info!("stopped");
    Ok(())
}

/// Structured logs on standard error: text for a terminal, JSON with VALV_LOG_FORMAT=json. VALV_LOG filters as
/// tracing's EnvFilter does.
fn start_logging() {
    let filter = EnvFilter::try_from_env("VALV_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let json = std::env::var("VALV_LOG_FORMAT").is_ok_and(|format| format == "json");
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    // A second initialisation can only happen in tests that share a process.
    let _ =
        if json { registry.with(layer.json()).try_init() } else { registry.with(layer.with_ansi(false)).try_init() };
}

/// The first SIGTERM or SIGINT drains; a second one ends the process at once, which is safe at any moment.
fn watch_signals(cancel: CancellationToken) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::spawn(async move {
        for nth in 0.. {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if nth > 0 {
                std::process::exit(130);
            }
            cancel.cancel();
        }
    }))
}

/// A task that serves until it is told to stop.
pub(crate) struct Serving {
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Serving {
    /// Runs `task`, which must end soon after `cancel`.
    pub(crate) fn spawn(cancel: CancellationToken, task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { cancel, task: tokio::spawn(task) }
    }

    /// Takes charge of a task that ends soon after `cancel`.
    pub(crate) fn adopt(cancel: CancellationToken, task: tokio::task::JoinHandle<()>) -> Self {
        Self { cancel, task }
    }

    /// Stops and waits.
    pub(crate) async fn stop(self) {
        self.cancel.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "a serving task did not end cleanly");
        }
    }
}

/// The disks that this process can reach: its own, or those of other nodes.
pub(crate) type Shards = Arc<dyn valv_shard_api::ShardStore>;
