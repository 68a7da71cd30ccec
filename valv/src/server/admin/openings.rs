//! Openings and network zones.

use super::error::refused;
use super::{AdminState, Caller};
use std::sync::Arc;
use tonic::{Request, Response, Status};
use valv_metadata_api as api;
use valv_metadata_api::{Metadata as _, Role};
use valv_policy::{Cidr, OpenedAction};
use valv_proto::admin::v1 as wire;
use valv_proto::admin::v1::create_opening_request::To;
use valv_proto::admin::v1::openings_server::Openings;
use valv_types::{CommitId, OpeningId, ProjectId, TimestampMicros};

/// Answers from this process's metadata service.
pub(super) struct Opening(pub(super) Arc<AdminState>);

/// Who may see what is open.
const SEE: [Role; 3] = [Role::Controller, Role::Steward, Role::Auditor];

#[tonic::async_trait]
impl Openings for Opening {
    async fn create_opening(
        &self,
        request: Request<wire::CreateOpeningRequest>,
    ) -> Result<Response<wire::CreateOpeningReply>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let project = self.0.require(&caller, &request.project, &[Role::Controller]).await?.id;
        let create = api::CreateOpening {
            actor: caller.actor(project),
            is_operator: caller.is_operator,
            opening: asked(project, request)?,
            commit: CommitId::random(),
        };
        let opening = self.0.metadata()?.create_opening(create).await.map_err(refused)?;
        Ok(Response::new(wire::CreateOpeningReply { opening: Some(message(opening)) }))
    }

    async fn propose_opening(
        &self,
        request: Request<wire::CreateOpeningRequest>,
    ) -> Result<Response<wire::Proposal>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let name = request.project.clone();
        let project = self.0.require(&caller, &name, &[Role::Controller]).await?.id;
        let opening = asked(project, request)?;
        let propose = api::ProposeAct {
            by: caller.person(project),
            reason: opening.purpose.clone(),
            reference: opening.reference.clone(),
            act: api::Act::CreateOpening(Box::new(opening)),
            commit: CommitId::random(),
        };
        let proposal = self.0.metadata()?.propose_act(propose).await.map_err(refused)?;
        Ok(Response::new(self.0.proposal_message(&name, proposal).await?))
    }

    async fn propose_one_controller(
        &self,
        request: Request<wire::ProposeOneControllerRequest>,
    ) -> Result<Response<wire::Proposal>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let project = self.0.require(&caller, &request.project, &[Role::Controller]).await?.id;
        let propose = api::ProposeAct {
            by: caller.person(project),
            reason: request.reason,
            reference: request.reference,
            act: api::Act::OneControllerOpens(api::OneControllerOpens { project }),
            commit: CommitId::random(),
        };
        let proposal = self.0.metadata()?.propose_act(propose).await.map_err(refused)?;
        Ok(Response::new(self.0.proposal_message(&request.project, proposal).await?))
    }

    async fn revoke_opening(
        &self,
        request: Request<wire::RevokeOpeningRequest>,
    ) -> Result<Response<wire::Opening>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let project = self.0.require(&caller, &request.project, &[Role::Controller]).await?.id;
        let revoke = api::RevokeOpening {
            actor: caller.actor(project),
            is_operator: caller.is_operator,
            project,
            opening: id(&request.id)?,
            reason: request.reason,
            commit: CommitId::random(),
        };
        self.0.metadata()?.revoke_opening(revoke).await.map(|opening| Response::new(message(opening))).map_err(refused)
    }

    async fn list_openings(
        &self,
        request: Request<wire::ListOpeningsRequest>,
    ) -> Result<Response<wire::ListOpeningsReply>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let project = self.0.require(&caller, &request.project, &SEE).await?.id;
        let list = api::ListOpenings { project, with_ended: request.with_ended };
        let openings = self.0.metadata()?.list_openings(list).await.map_err(refused)?;
        Ok(Response::new(wire::ListOpeningsReply { openings: openings.into_iter().map(message).collect() }))
    }

    async fn get_opening(&self, request: Request<wire::GetOpeningRequest>) -> Result<Response<wire::Opening>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let project = self.0.require(&caller, &request.project, &SEE).await?.id;
        let get = api::GetOpening { project, opening: id(&request.id)? };
        self.0.metadata()?.get_opening(get).await.map(|opening| Response::new(message(opening))).map_err(refused)
    }

    async fn set_zone(&self, request: Request<wire::SetZoneRequest>) -> Result<Response<wire::Zone>, Status> {
        let caller = Caller::of(&request)?;
        caller.require_operator()?;
        let wire::SetZoneRequest { name, blocks } = request.into_inner();
        if blocks.is_empty() {
            return Err(Status::invalid_argument("a zone has at least one block of addresses, such as 10.20.0.0/16"));
        }
        for block in &blocks {
            Cidr::parse(block)
                .ok_or_else(|| Status::invalid_argument(format!("{block:?} is no block of addresses")))?;
        }
        let actor = caller.actor(ProjectId::CLUSTER);
        let set = api::SetZone { actor, name, blocks, commit: CommitId::random() };
        self.0.metadata()?.set_zone(set).await.map(|zone| Response::new(zone_message(zone))).map_err(refused)
    }

    async fn remove_zone(
        &self,
        request: Request<wire::RemoveZoneRequest>,
    ) -> Result<Response<wire::RemoveZoneReply>, Status> {
        let caller = Caller::of(&request)?;
        caller.require_operator()?;
        let actor = caller.actor(ProjectId::CLUSTER);
        let remove = api::RemoveZone { actor, name: request.into_inner().name, commit: CommitId::random() };
        self.0.metadata()?.remove_zone(remove).await.map_err(refused)?;
        Ok(Response::new(wire::RemoveZoneReply {}))
    }

    async fn list_zones(
        &self,
        request: Request<wire::ListZonesRequest>,
    ) -> Result<Response<wire::ListZonesReply>, Status> {
        // Whoever makes openings needs the names.
        Caller::of(&request)?;
        let zones = self.0.metadata()?.list_zones(api::Empty {}).await.map_err(refused)?;
        Ok(Response::new(wire::ListZonesReply { zones: zones.into_iter().map(zone_message).collect() }))
    }
}

#[allow(clippy::result_large_err, reason = "tonic's error type")]
fn id(text: &str) -> Result<OpeningId, Status> {
    text.parse().map_err(|_| Status::invalid_argument("an opening's id has 32 hexadecimal digits"))
}

#[allow(clippy::result_large_err, reason = "tonic's error type")]
fn asked(project: ProjectId, request: wire::CreateOpeningRequest) -> Result<api::NewOpening, Status> {
    let some = |text: String| (!text.is_empty()).then_some(text);
    let time = |micros: u64| (micros != 0).then_some(TimestampMicros(micros));
    let to = match request.to {
        Some(To::User(name)) => api::OpeningTo::User(name),
        Some(To::ToProject(name)) => api::OpeningTo::Project(name),
        Some(To::PublicNamespace(name)) => api::OpeningTo::Public(name),
        None => return Err(Status::invalid_argument("say for whom: a user, a project, or the public")),
    };
    let scope = match (request.policies_decide, request.actions.as_slice()) {
        (true, []) => api::OpeningScope::WhatPoliciesSay,
        (true, _) => return Err(Status::invalid_argument("either actions, or policies decide")),
        (false, words) => api::OpeningScope::Actions(bits(words)?),
    };
    Ok(api::NewOpening {
        project,
        bucket_name: some(request.bucket),
        to,
        prefix: request.prefix.to_vec(),
        scope,
        purpose: request.purpose,
        reference: request.reference,
        start: time(request.start_micros),
        expiry: time(request.expiry_micros),
        zones: request.zones,
        budget_bytes: request.budget_bytes,
        alias: some(request.alias),
        is_configured: false,
    })
}

#[allow(clippy::result_large_err, reason = "tonic's error type")]
fn bits(words: &[String]) -> Result<u8, Status> {
    words.iter().try_fold(0, |bits, word| {
        let action = OpenedAction::ALL.into_iter().find(|action| action.name() == word);
        let action = action.ok_or_else(|| {
            Status::invalid_argument(format!("{word:?} is no action: read, list, write and delete are"))
        })?;
        Ok(bits | action as u8)
    })
}

/// What an opening that is proposed would let whom do, for whoever has to approve it.
pub(super) fn facts(asked: &api::NewOpening) -> serde_json::Value {
    let (kind, recipient) = match &asked.to {
        api::OpeningTo::User(name) => ("user", name),
        api::OpeningTo::Project(name) => ("project", name),
        api::OpeningTo::Public(name) => ("public", name),
    };
    let actions: Vec<_> = match asked.scope {
        api::OpeningScope::WhatPoliciesSay => vec!["what policies say"],
        api::OpeningScope::Actions(bits) => OpenedAction::ALL
            .into_iter()
            .filter(|action| bits & *action as u8 != 0)
            .map(|action| action.name())
            .collect(),
    };
    serde_json::json!({
        "recipient": { "kind": kind, "name": recipient },
        "bucket": asked.bucket_name,
        "prefix": String::from_utf8_lossy(&asked.prefix),
        "actions": actions,
        "start_micros": asked.start.map(|time| time.0),
        "expiry_micros": asked.expiry.map(|time| time.0),
        "zones": asked.zones,
        "budget_bytes": asked.budget_bytes,
        "alias": asked.alias,
    })
}

fn message(opening: api::Opening) -> wire::Opening {
    let asked = opening.asked;
    let (recipient_kind, recipient) = match asked.to {
        api::OpeningTo::User(name) => ("user", name),
        api::OpeningTo::Project(name) => ("project", name),
        api::OpeningTo::Public(name) => ("public", name),
    };
    let (actions, policies_decide) = match asked.scope {
        api::OpeningScope::WhatPoliciesSay => (Vec::new(), true),
        api::OpeningScope::Actions(bits) => {
            let actions = OpenedAction::ALL.into_iter().filter(|action| bits & *action as u8 != 0);
            (actions.map(|action| action.name().to_owned()).collect(), false)
        }
    };
    let (revoked_micros, revoked_because) = opening.revoked.map(|(time, why)| (time.0, why)).unwrap_or_default();
    wire::Opening {
        id: opening.id.to_string(),
        bucket: asked.bucket_name.unwrap_or_default(),
        recipient_kind: recipient_kind.to_owned(),
        recipient,
        prefix: asked.prefix.into(),
        actions,
        policies_decide,
        purpose: asked.purpose,
        reference: asked.reference,
        start_micros: opening.start.0,
        expiry_micros: asked.expiry.map_or(0, |expiry| expiry.0),
        zones: asked.zones,
        budget_bytes: asked.budget_bytes,
        drawn_bytes: opening.drawn_bytes,
        alias: asked.alias.unwrap_or_default(),
        state: opening.state.name().to_owned(),
        created_micros: opening.created.0,
        deciders: opening.deciders.iter().map(ToString::to_string).collect(),
        revoked_micros,
        revoked_because,
        configured: asked.is_configured,
    }
}

fn zone_message(zone: api::Zone) -> wire::Zone {
    wire::Zone { name: zone.name, blocks: zone.blocks, set_micros: zone.set.0 }
}
