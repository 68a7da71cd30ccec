//! Repairs as custody events: each project whose blobs were rebuilt gets one record for a batch of them.

use crate::attempt::{self, Attempt, store_error};
use crate::ledger::Event;
use crate::records::{self, BlobRefRecord, EventKind};
use crate::rows::{Tag, blob_ref_parts};
use crate::service::{Core, corrupt, malformed};
use crate::store::Snapshot;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use valv_metadata_api::{Empty, MetadataError, NoteRepairs, RepairedBlob};
use valv_types::{CommitId, ProjectId, VersionId};

/// Blobs in one request. A record names a version for each, 35 bytes as JSON: with 256 it stays below 16 KiB.
const BLOBS_MAX: usize = 256;

/// What was repaired of one project.
#[derive(Default)]
struct Repaired {
    blobs: u64,
    shards: u64,
    bytes: u64,
    versions: Vec<String>,
}

impl Core {
    pub(crate) async fn record_repairs(self: &Arc<Self>, request: NoteRepairs) -> Result<Empty, MetadataError> {
        if request.repaired.len() > BLOBS_MAX {
            return Err(malformed("too many repaired blobs in one request"));
        }
        let projects = self.project_ids().await?;
        let NoteRepairs { commit, repaired } = request;
        let found = self.scan(move |core, snapshot| core.projects_of(snapshot, &projects, &repaired)).await?;
        if found.is_empty() {
            return Ok(Empty {});
        }
        let mut attempt = Attempt::default();
        for (project, repaired) in found {
            let detail = json!({"blobs": repaired.blobs, "shards": repaired.shards, "versions": repaired.versions});
            let event = Event {
                kind: EventKind::ShardsRepaired,
                project,
                time: self.now(),
                bucket: None,
                version: None,
                other_version: None,
                bytes: repaired.bytes,
                subject: b"",
            };
            self.record_work(&mut attempt, commit, &detail, event)?;
        }
        // It expects nothing, so nothing can be in its way; a repeated one has its effect once.
        attempt::commit(self.store.as_ref(), commit, attempt).await?;
        Ok(Empty {})
    }

    fn projects_of(
        &self,
        snapshot: &dyn Snapshot,
        projects: &[ProjectId],
        repaired: &[RepairedBlob],
    ) -> Result<BTreeMap<ProjectId, Repaired>, MetadataError> {
        let mut found: BTreeMap<ProjectId, Repaired> = BTreeMap::new();
        let mut likely = None;
        for blob in repaired {
            let range = self.rows.range(Tag::BlobRef, &[blob.blob.as_bytes()]);
            let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
            // Deleted meanwhile: there is nothing left that was repaired.
            let Some((key, row)) = cursor.next().map_err(store_error)? else { continue };
            let (_, owner) = blob_ref_parts(&key).ok_or_else(|| corrupt("blob reference"))?;
            let reference: BlobRefRecord = records::decode("blob reference", &row.value)?;
            let Some(project) = self.project_of(snapshot, projects, likely, owner)? else { continue };
            likely = Some(project);
            let of_project = found.entry(project).or_default();
            of_project.blobs += 1;
            of_project.shards += blob.shards;
            of_project.bytes += reference.len_bytes;
            of_project.versions.push(owner.to_string());
        }
        for repaired in found.values_mut() {
            repaired.versions.sort_unstable();
            repaired.versions.dedup();
        }
        Ok(found)
    }

    /// Whose an owner of blobs is: its id is that of the commit that made it, and so of a record in its project's ledger.
    /// `likely` is looked at first.
    fn project_of(
        &self,
        snapshot: &dyn Snapshot,
        projects: &[ProjectId],
        likely: Option<ProjectId>,
        owner: VersionId,
    ) -> Result<Option<ProjectId>, MetadataError> {
        let event = CommitId::from_bytes(*owner.as_bytes());
        for project in likely.iter().chain(projects) {
            if snapshot.get(&self.rows.ledger(*project, event)).map_err(store_error)?.is_some() {
                return Ok(Some(*project));
            }
        }
        Ok(None)
    }
}
