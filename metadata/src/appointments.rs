//! Appointing a controller where the controllers are gone: the only way in which operators change who answers for a project.
//! Two of them decide, it is in the project's ledger from the first word on, and a controller can reject it while it cools
//! off.

use crate::approvals::Carried;
use crate::attempt::{ATTEMPTS_MAX, Plan, Settled, settle};
use crate::ledger::Event;
use crate::members::{FoundMember, MemberRecord};
use crate::records::EventKind;
use crate::service::Core;
use serde_json::json;
use std::sync::Arc;
use valv_metadata_api::*;
use valv_types::CommitId;

impl Core {
    /// Refuses what has nobody to appoint to: a project without members, or a user who is controller already.
    pub(crate) async fn check_appointment(&self, act: &AppointController) -> Result<(), MetadataError> {
        self.user_with(act.user).await?;
        self.governed_project(act.project).await?;
        match self.roles_of(act.project, act.user).await?.has(Role::Controller) {
            true => Err(ApprovalRefusal::Unfit.into()),
            false => Ok(()),
        }
    }

    pub(crate) async fn carry_out_appointment(
        self: &Arc<Self>,
        act: &AppointController,
        proposal: &Proposal,
    ) -> Result<Carried, MetadataError> {
        let commit = proposal.commit("appointment");
        for number in 0..ATTEMPTS_MAX {
            let _turn = self.queue(number, b"principals").await;
            let plan = self.plan_appointment(act, proposal, commit).await;
            match settle(self.store.as_ref(), commit, number, plan).await? {
                Settled::Done(()) | Settled::Before(_) => {
                    let name = self.user_with(act.user).await?.names.name;
                    return Ok(Carried::Done(json!({ "controller": name })));
                }
                Settled::Again => {}
            }
        }
        Err(MetadataError::Conflict)
    }

    async fn plan_appointment(
        self: &Arc<Self>,
        act: &AppointController,
        proposal: &Proposal,
        commit: CommitId,
    ) -> Result<Plan<()>, MetadataError> {
        let (project, mut attempt) = self.governed_project(act.project).await?;
        let user = self.user_with(act.user).await?;
        let found = self.found_member(project.id, user.id).await?;
        let record = match &found {
            Some(member) if member.record.roles.has(Role::Controller) => return Ok(Plan::Nothing(())),
            Some(FoundMember { record, .. }) => {
                MemberRecord { roles: record.roles.with(Role::Controller), ..record.clone() }
            }
            None => {
                let has_key = self.has_key_in(user.id, project.id).await?;
                MemberRecord { roles: Roles::NONE.with(Role::Controller), since: self.now(), has_key }
            }
        };
        let row = found.as_ref().map(|member| &member.row);
        self.plan_membership(&mut attempt, project.id, user.id, row, &record).await?;
        let deciders: Vec<_> = proposal.deciders().iter().map(ToString::to_string).collect();
        let detail = json!({
            "to": record.roles.iter().map(Role::name).collect::<Vec<_>>(),
            "proposal": proposal.id.to_string(),
            "reference": proposal.reference,
            "operators": deciders,
        });
        let event = Event::of_project(EventKind::MemberSet, project.id, self.now(), &user.names.name);
        self.record_act_of(&mut attempt, commit, None, &detail, event)?;
        Ok(Plan::Commit(attempt, ()))
    }
}
