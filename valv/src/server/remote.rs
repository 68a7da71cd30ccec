//! Reaching the roles that run in other processes.

use super::Shards;
use anyhow::Context;
use std::sync::Arc;
use valv_metadata_api::Metadata;
use valv_storage_node::grpc::{ClientConfig, ShardClient};

/// The disks of the storage nodes at `addresses`. Nodes that are not up yet are found when they are.
pub(crate) async fn shards(addresses: &[String]) -> anyhow::Result<Shards> {
    let client = ShardClient::new(addresses, ClientConfig::default()).context("storage")?;
    Ok(Arc::new(client))
}

/// The metadata service at `address`.
pub(crate) async fn metadata(address: Option<&str>) -> anyhow::Result<Arc<dyn Metadata>> {
    let address = address.context("gateway.metadata is not set")?;
    Ok(Arc::new(valv_metadata::grpc::connect(address)?))
}
