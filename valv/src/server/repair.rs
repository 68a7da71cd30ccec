//! Repair, wired to what this process has.

use super::Shards;
use super::storage::Storage;
use crate::config::Config;
use prometheus::Registry;
use std::sync::Arc;
use tokio::sync::mpsc;
use valv_metadata_api::Metadata;
use valv_repair::{RepairConfig, RepairService};

/// Damaged shards that may wait to be queued; the disks' own quarantine remembers the rest.
const REPORTS_MAX: usize = 1024;

/// Starts repair beside the metadata service.
pub(crate) fn start(
    config: &Config,
    metadata: Arc<dyn Metadata>,
    shards: Shards,
    storage: Option<&Storage>,
    registry: &Registry,
) -> anyhow::Result<Arc<RepairService>> {
    let section = &config.metadata;
    let repair = RepairConfig {
        bytes_per_s: section.repair_bytes_per_s,
        census_every: section.census,
        orphans_every: section.orphan_scan,
        ..RepairConfig::default()
    };
    // Disks of other processes have nobody here to tell; scrub and reads of their shards end in a census all the same.
    let reports = storage.and_then(|storage| storage.node.corrupt_reports()).map(|mut reports| {
        let (sender, receiver) = mpsc::channel(REPORTS_MAX);
        // Ends when the storage node or the repair service does.
        tokio::spawn(async move {
            while let Some(report) = reports.recv().await {
                if sender.send(report.key).await.is_err() {
                    break;
                }
            }
        });
        receiver
    });
    Ok(RepairService::start(metadata, shards, reports, repair, registry)?)
}
