//! Appointing a controller where the controllers are gone: the only way in which operators change who answers for a project.
//! Two of them decide, it is in the project's ledger from the first word on, and a controller can reject it while it cools
//! off.

use crate::approvals::Carried;
use crate::attempt::{ATTEMPTS_MAX, Plan, Settled, settle};
use crate::members::MemberRecord;
use crate::projects::project_event;
use crate::records::{self, EventKind};
use crate::service::{Core, MetadataService};
use bytes::Bytes;
use serde_json::json;
use std::sync::Arc;
use valv_metadata_api::*;
use valv_types::{CommitId, ProjectId};

impl MetadataService {
    /// Lets members with one of `roles` through: the question that the admin service asks before it shows something. In a
    /// project without members operators stand in for all of them; in a governed one being an operator gives no right.
    ///
    /// # Errors
    /// [`ProjectRefusal::RoleMissing`], [`ProjectRefusal::OperatorsOnly`] or [`ProjectRefusal::NoSuchProject`].
    pub async fn require_role(&self, by: &Person, project: ProjectId, roles: &[Role]) -> Result<(), MetadataError> {
        self.0.require_role(by, project, roles).await
    }
}

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
        let key = self.rows.member(project.id, user.id);
        attempt.expect(key.clone(), found.as_ref().map(|member| &member.row));
        let record = match found {
            Some(member) if member.record.roles.has(Role::Controller) => return Ok(Plan::Nothing(())),
            Some(member) => MemberRecord { roles: member.record.roles.with(Role::Controller), ..member.record },
            None => {
                let has_key = self.has_key_in(user.id, project.id).await?;
                MemberRecord { roles: Roles::NONE.with(Role::Controller), since: self.now(), has_key }
            }
        };
        self.plan_use_of_user(&mut attempt, user.id).await?;
        attempt.put(key, records::encode(&record));
        attempt.put(self.rows.membership(user.id, project.id), Bytes::new());
        let deciders: Vec<_> = proposal.deciders().iter().map(ToString::to_string).collect();
        let detail = json!({
            "to": record.roles.iter().map(Role::name).collect::<Vec<_>>(),
            "proposal": proposal.id.to_string(),
            "reference": proposal.reference,
            "operators": deciders,
        });
        let event = project_event(EventKind::MemberSet, project.id, self.now(), &user.names.name);
        self.record_act_of(&mut attempt, commit, None, &detail, event)?;
        Ok(Plan::Commit(attempt, ()))
    }
}
