//! Openings that the server's configuration asks for: that policies and ACLs decide for named people. Each start makes those
//! that are missing and ends those that the configuration no longer names.

use super::records::OpeningRecord;
use crate::attempt::store_error;
use crate::rows::Tag;
use crate::service::{Core, MetadataService, corrupt};
use std::collections::HashSet;
use std::sync::Arc;
use valv_metadata_api::*;
use valv_types::{CommitId, OpeningId, ProjectId};

/// What stands in the records of such an opening.
const PURPOSE: &str = "policies and ACLs decide";
const REFERENCE: &str = "the server's configuration";

/// A project in which policies and ACLs decide for these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfiguredOpening {
    /// The project's name.
    pub project_name: String,
    /// For whom.
    pub to: Vec<OpeningTo>,
}

impl MetadataService {
    /// Makes what the configuration asks for, and ends what it no longer does.
    ///
    /// # Errors
    /// What is wrong with an opening: a project or recipient that is not there, or a project whose members decide.
    pub async fn ensure_openings(&self, configured: &[ConfiguredOpening]) -> Result<(), MetadataError> {
        self.0.ensure_openings(configured).await
    }
}

impl Core {
    async fn ensure_openings(self: &Arc<Self>, configured: &[ConfiguredOpening]) -> Result<(), MetadataError> {
        let mut standing = self.configured_openings().await?;
        for one in configured {
            let project = self.project_named(&one.project_name).await?;
            let mut done: HashSet<OpeningRecipient> = HashSet::new();
            for to in &one.to {
                let recipient = self.recipient_to_configure(to, project).await?;
                if !done.insert(recipient) {
                    continue;
                }
                let is_there =
                    |other: &(ProjectId, OpeningId, OpeningRecipient)| (other.0, other.2) == (project, recipient);
                match standing.iter().position(is_there) {
                    Some(at) => {
                        standing.swap_remove(at);
                    }
                    None => self.make_configured(project, to).await?,
                }
            }
        }
        for (project, opening, _) in standing {
            let request = RevokeOpening {
                actor: actor(project),
                is_operator: true,
                project,
                opening,
                reason: "the configuration no longer names it".to_owned(),
                commit: CommitId::random(),
            };
            self.end_opening(request).await?;
        }
        Ok(())
    }

    async fn recipient_to_configure(
        &self,
        to: &OpeningTo,
        project: ProjectId,
    ) -> Result<OpeningRecipient, MetadataError> {
        let row = self.get(&self.rows.project(project)).await?.ok_or_else(|| corrupt("project"))?;
        let own: crate::records::ProjectRecord = crate::records::decode("project", &row.value)?;
        Ok(self.recipient_of(to, project, own.namespace).await?.recipient)
    }

    async fn make_configured(self: &Arc<Self>, project: ProjectId, to: &OpeningTo) -> Result<(), MetadataError> {
        let opening = NewOpening {
            project,
            bucket_name: None,
            to: to.clone(),
            prefix: Vec::new(),
            scope: OpeningScope::WhatPoliciesSay,
            purpose: PURPOSE.to_owned(),
            reference: REFERENCE.to_owned(),
            start: None,
            expiry: None,
            zones: Vec::new(),
            budget_bytes: None,
            alias: None,
            is_configured: true,
        };
        let commit = CommitId::random();
        self.make_opening(CreateOpening { actor: actor(project), is_operator: true, opening, commit }).await?;
        Ok(())
    }

    /// All that the configuration asked for and that still holds.
    async fn configured_openings(
        self: &Arc<Self>,
    ) -> Result<Vec<(ProjectId, OpeningId, OpeningRecipient)>, MetadataError> {
        self.scan(|core, snapshot| {
            let (now, mut found) = (core.now(), Vec::new());
            let range = core.rows.range(Tag::Opening, &[]);
            let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
            while let Some((key, row)) = cursor.next().map_err(store_error)? {
                // Cell (2), tag (1), project (16), opening (16).
                let ids = key.get(3..).and_then(|ids| ids.as_chunks::<16>().0.first_chunk::<2>().copied());
                let [project, id] = ids.ok_or_else(|| corrupt("opening row"))?;
                let record: OpeningRecord = crate::records::decode("opening", &row.value)?;
                if record.is_configured && !record.state(now).is_over() {
                    found.push((ProjectId::from_bytes(project), OpeningId::from_bytes(id), record.recipient));
                }
            }
            Ok(found)
        })
        .await
    }
}

fn actor(project: ProjectId) -> Actor {
    Actor {
        project,
        user: None,
        access_key: None,
        request_id: CommitId::random().to_string(),
        remote: "local".to_owned(),
        caller: Some(REFERENCE.to_owned()),
        opening: None,
    }
}
