//! Replacing keys while everything runs: the root key in one step, a project's key in many.

mod moves;
mod project;

pub use project::{ProjectKeys, Rotation};

use crate::attempt::{self, Attempt};
use crate::ledger::Event;
use crate::records::EventKind;
use crate::service::{Core, MetadataService};
use serde_json::json;
use std::sync::Arc;
use valv_metadata_api::{Actor, MetadataError};
use valv_types::{CommitId, ProjectId};

impl MetadataService {
    /// Replaces the root key: see [`crate::KeyStore::rotate_root`]. Returns its new version. The act is in the cluster's
    /// ledger before it happens.
    pub async fn rotate_root_key(&self, actor: &Actor) -> Result<u32, MetadataError> {
        self.0.rotate_root_key(actor).await
    }
}

impl Core {
    async fn rotate_root_key(self: &Arc<Self>, actor: &Actor) -> Result<u32, MetadataError> {
        let commit = CommitId::random();
        let mut attempt = Attempt::default();
        let event = Event::of_project(EventKind::RootKeyReplaced, ProjectId::CLUSTER, self.now(), b"root key");
        let detail = json!({ "from_version": self.seals.keys().root_version() });
        self.record_act(&mut attempt, commit, actor, &detail, event)?;
        attempt::commit(self.store.as_ref(), commit, attempt).await?;
        let keys = Arc::clone(self.seals.keys());
        let rotated = tokio::task::spawn_blocking(move || keys.rotate_root()).await;
        let unavailable = |what: String| MetadataError::Unavailable { what };
        rotated.map_err(|error| unavailable(error.to_string()))?.map_err(|error| {
            tracing::error!(%error, "the root key was not replaced");
            unavailable(format!("the root key was not replaced: {error}"))
        })
    }
}
