//! Openings that two controllers decide on, where a project wants it so.

use super::check_asked;
use crate::approvals::Carried;
use crate::attempt::{ATTEMPTS_MAX, Attempt, Plan, Settled, settle};
use crate::ledger::Event;
use crate::projects::FoundProject;
use crate::records::{self, EventKind};
use crate::service::Core;
use serde_json::json;
use std::sync::Arc;
use valv_metadata_api::*;
use valv_types::{CommitId, OpeningId, ProjectId};

impl Core {
    /// Refuses what nobody could approve, before a second person is asked.
    pub(crate) fn check_proposed_opening(&self, asked: &NewOpening) -> Result<(), MetadataError> {
        let now = self.now();
        check_asked(asked, asked.start.unwrap_or(now), now)
    }

    /// Makes the opening that was approved. Its id follows from the proposal, so that a second attempt finds it.
    pub(crate) async fn carry_out_opening(
        self: &Arc<Self>,
        asked: &NewOpening,
        proposal: &Proposal,
    ) -> Result<Carried, MetadataError> {
        let commit = proposal.commit("opening");
        let actor = Actor {
            project: asked.project,
            user: Some(proposal.proposer),
            access_key: None,
            request_id: proposal.id.to_string(),
            remote: String::new(),
            caller: Some(format!("proposal {}", proposal.id)),
            opening: None,
        };
        let request = CreateOpening { actor, is_operator: false, opening: asked.clone(), commit };
        let id = OpeningId::from_bytes(*commit.as_bytes());
        let opening = self.open_by(&request, id, &proposal.deciders()).await?;
        Ok(Carried::Done(json!({ "opening": opening.id.to_string() })))
    }

    /// Lets one controller alone make openings again.
    pub(crate) async fn carry_out_one_controller(
        self: &Arc<Self>,
        act: &OneControllerOpens,
        proposal: &Proposal,
    ) -> Result<Carried, MetadataError> {
        let commit = proposal.commit("one controller");
        for number in 0..ATTEMPTS_MAX {
            let plan = self.plan_one_controller(act.project, proposal, commit).await;
            match settle(self.store.as_ref(), commit, number, plan).await? {
                Settled::Done(()) | Settled::Before(_) => return Ok(Carried::Done(json!({}))),
                Settled::Again => {}
            }
        }
        Err(MetadataError::Conflict)
    }

    async fn plan_one_controller(
        &self,
        project: ProjectId,
        proposal: &Proposal,
        commit: CommitId,
    ) -> Result<Plan<()>, MetadataError> {
        let FoundProject { id, row, mut record } = self.found_project(project).await?;
        if !record.two_person_openings {
            return Ok(Plan::Nothing(()));
        }
        record.two_person_openings = false;
        let mut attempt = Attempt::default();
        attempt.expect(self.rows.project(id), Some(&row));
        attempt.put(self.rows.project(id), records::encode(&record));
        let deciders: Vec<_> = proposal.deciders().iter().map(ToString::to_string).collect();
        let detail = json!({
            "two_person_openings": { "from": true, "to": false },
            "proposal": proposal.id.to_string(),
            "deciders": deciders,
        });
        let name = self.open_project_name(id, &record)?;
        let event = Event::of_project(EventKind::ProjectChanged, id, self.now(), &name);
        self.record_act_of(&mut attempt, commit, None, &detail, event)?;
        Ok(Plan::Commit(attempt, ()))
    }
}
