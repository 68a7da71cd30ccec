//! Proposals: what waits for a second person, and the answers.

use super::error::refused;
use super::{AdminState, Caller};
use std::sync::Arc;
use tonic::{Request, Response, Status};
use valv_metadata_api::*;
use valv_proto::admin::v1 as wire;
use valv_proto::admin::v1::approvals_server::Approvals;
use valv_types::{CommitId, ProjectId, ProposalId, TimestampMicros, UserId};

/// Who may see a project's proposals.
const READERS: &[Role] = &[Role::Controller, Role::Steward, Role::Auditor];

/// The service.
pub(super) struct Service(pub(super) Arc<AdminState>);

#[tonic::async_trait]
impl Approvals for Service {
    async fn list_proposals(
        &self,
        request: Request<wire::ListProposalsRequest>,
    ) -> Result<Response<wire::ListProposalsReply>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let project = self.readable_project(&caller, &request.project).await?;
        let metadata = self.0.metadata()?;
        let list = ListProposals { project, open_only: request.open_only };
        let mut proposals = Vec::new();
        for proposal in metadata.list_proposals(list).await.map_err(refused)? {
            proposals.push(self.message(&request.project, proposal).await?);
        }
        Ok(Response::new(wire::ListProposalsReply { proposals }))
    }

    async fn get_proposal(
        &self,
        request: Request<wire::GetProposalRequest>,
    ) -> Result<Response<wire::Proposal>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let project = self.readable_project(&caller, &request.project).await?;
        let find = GetProposal { proposal: proposal_id(&request.proposal)?, project };
        let proposal = self.0.metadata()?.get_proposal(find).await.map_err(refused)?;
        Ok(Response::new(self.message(&request.project, proposal).await?))
    }

    async fn answer_proposal(
        &self,
        request: Request<wire::AnswerProposalRequest>,
    ) -> Result<Response<wire::Proposal>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let project = self.project(&request.project).await?;
        let answer = AnswerProposal {
            proposal: proposal_id(&request.proposal)?,
            project,
            by: caller.person(project.unwrap_or(ProjectId::CLUSTER)),
            approve: request.approve,
            reason: request.reason,
            commit: CommitId::random(),
        };
        let proposal = self.0.metadata()?.answer_proposal(answer).await.map_err(refused)?;
        Ok(Response::new(self.message(&request.project, proposal).await?))
    }

    async fn propose_controller(
        &self,
        request: Request<wire::ProposeControllerRequest>,
    ) -> Result<Response<wire::Proposal>, Status> {
        let caller = Caller::of(&request)?;
        caller.require_operator()?;
        let request = request.into_inner();
        let metadata = self.0.metadata()?;
        let project = self.project(&request.project).await?;
        let project = project.ok_or_else(|| Status::invalid_argument("name the project"))?;
        let user = metadata.get_user(GetUser::Name(request.user)).await.map_err(refused)?;
        let propose = ProposeAct {
            act: Act::AppointController(AppointController { project, user: user.id }),
            by: caller.person(project),
            reason: request.reason,
            reference: request.reference,
            commit: CommitId::random(),
        };
        let proposal = metadata.propose_act(propose).await.map_err(refused)?;
        Ok(Response::new(self.message(&request.project, proposal).await?))
    }

    async fn propose_clock_step(
        &self,
        request: Request<wire::ProposeClockStepRequest>,
    ) -> Result<Response<wire::Proposal>, Status> {
        let caller = Caller::of(&request)?;
        caller.require_operator()?;
        let request = request.into_inner();
        let propose = ProposeAct {
            act: Act::AdvanceClock(AdvanceClock { to: TimestampMicros(request.to_micros) }),
            by: caller.person(ProjectId::CLUSTER),
            reason: request.reason,
            reference: request.reference,
            commit: CommitId::random(),
        };
        let proposal = self.0.metadata()?.propose_act(propose).await.map_err(refused)?;
        Ok(Response::new(self.message("", proposal).await?))
    }
}

impl Service {
    /// The project of this name, or `None` for no name: the cluster.
    async fn project(&self, name: &str) -> Result<Option<ProjectId>, Status> {
        if name.is_empty() {
            return Ok(None);
        }
        let found = self.0.metadata()?.get_project(GetProject::Name(name.to_owned())).await.map_err(refused)?;
        Ok(Some(found.id))
    }

    /// The same, if the caller may see its proposals. Operators may see that there is something for them to decide.
    async fn readable_project(&self, caller: &Caller, name: &str) -> Result<Option<ProjectId>, Status> {
        if name.is_empty() {
            caller.require_operator()?;
            return Ok(None);
        }
        if caller.is_operator {
            return self.project(name).await;
        }
        Ok(Some(self.0.require(caller, name, READERS).await?.id))
    }

    async fn message(&self, project: &str, proposal: Proposal) -> Result<wire::Proposal, Status> {
        self.0.proposal_message(project, proposal).await
    }
}

impl AdminState {
    /// A proposal with the names of those who spoke, as every service shows it.
    pub(super) async fn proposal_message(&self, project: &str, proposal: Proposal) -> Result<wire::Proposal, Status> {
        let rules = proposal.act.rules();
        let mut decisions = Vec::new();
        for decision in &proposal.decisions {
            decisions.push(wire::Decision {
                user: self.user_name(decision.user).await?,
                time_micros: decision.time.0,
                approve: decision.approve,
                reason: decision.reason.clone(),
            });
        }
        let not_before = match proposal.state {
            ProposalState::Approved { not_before } => not_before.0,
            _ => 0,
        };
        let result = match &proposal.state {
            ProposalState::CarriedOut { result } => result.clone(),
            ProposalState::Failed { what } => what.clone(),
            _ => String::new(),
        };
        Ok(wire::Proposal {
            id: proposal.id.to_string(),
            project: project.to_owned(),
            act: rules.name.to_owned(),
            facts: self.act_facts(&proposal.act).await?.to_string(),
            proposer: self.user_name(proposal.proposer).await?,
            proposed_micros: proposal.proposed.0,
            reason: proposal.reason.clone(),
            reference: proposal.reference.clone(),
            state: proposal.state.name().to_owned(),
            not_before_micros: not_before,
            result,
            decisions,
            approvers: match rules.approver {
                Who::Operators => "another operator".to_owned(),
                Who::Members(roles) => {
                    let names: Vec<_> = roles.iter().map(|role| role.name()).collect();
                    format!("another {}", names.join(" or "))
                }
            },
        })
    }

    /// What exactly an act would do, for people.
    async fn act_facts(&self, act: &Act) -> Result<serde_json::Value, Status> {
        Ok(match act {
            Act::AdvanceClock(act) => serde_json::json!({ "to_micros": act.to.0 }),
            Act::CreateOpening(asked) => super::openings::facts(asked),
            Act::OneControllerOpens(_) => serde_json::json!({}),
            Act::Dispose(act) => serde_json::json!({ "disposal": act.disposal.to_string() }),
            Act::LowerRetention(act) => serde_json::json!({
                "class": act.retention.class,
                "minimum_days": act.retention.minimum_days,
                "default_days": act.retention.default_days,
                "lifecycle_disposal": act.retention.lifecycle_disposal,
            }),
            Act::ShredProject(_) => serde_json::json!({}),
            Act::ShredObject(act) => serde_json::json!({
                "bucket_id": act.bucket.to_string(),
                "key": String::from_utf8_lossy(act.key.as_bytes()),
                "version": act.version.to_string(),
            }),
            Act::AppointController(act) => serde_json::json!({ "user": self.user_name(act.user).await? }),
        })
    }

    /// A user's name; of one who is gone the id.
    async fn user_name(&self, user: UserId) -> Result<String, Status> {
        match self.metadata()?.get_user(GetUser::Id(user)).await {
            Ok(user) => Ok(user.name),
            Err(MetadataError::NoSuchUser) => Ok(user.to_string()),
            Err(error) => Err(refused(error)),
        }
    }
}

#[allow(clippy::result_large_err, reason = "tonic's error type")]
fn proposal_id(text: &str) -> Result<ProposalId, Status> {
    text.parse().map_err(|_| Status::invalid_argument("a proposal's id has 32 hexadecimal digits"))
}
