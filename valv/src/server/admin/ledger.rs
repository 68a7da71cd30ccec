//! Heads of ledgers and proofs about them.

use super::error::refused;
use super::{AdminState, Caller};
use std::sync::Arc;
use tonic::{Request, Response, Status};
use valv_ledger::SignedHead;
use valv_metadata::EventAsked;
use valv_proto::admin::v1 as wire;
use valv_proto::admin::v1::ledger_server::Ledger;
use valv_types::{CommitId, ProjectId};

/// Answers from this process's metadata service.
pub(super) struct Ledgers(pub(super) Arc<AdminState>);

impl Ledgers {
    /// The ledger that is asked about, once the caller may ask.
    async fn asked(&self, caller: &Caller, project: &str, cluster: bool) -> Result<ProjectId, Status> {
        if cluster {
            caller.require_operator()?;
            return Ok(ProjectId::CLUSTER);
        }
        self.0.may_report(caller, project).await
    }
}

#[tonic::async_trait]
impl Ledger for Ledgers {
    async fn get_head(&self, request: Request<wire::GetHeadRequest>) -> Result<Response<wire::LedgerHead>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let project = self.asked(&caller, &request.project, request.cluster).await?;
        let head = self.0.metadata()?.ledger_head(project).await.map_err(refused)?;
        Ok(Response::new(head_message(&head)))
    }

    async fn prove_inclusion(
        &self,
        request: Request<wire::ProveInclusionRequest>,
    ) -> Result<Response<wire::InclusionProof>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let project = self.asked(&caller, &request.project, request.cluster).await?;
        let event = match request.which {
            Some(wire::prove_inclusion_request::Which::Index(index)) => EventAsked::Index(index),
            Some(wire::prove_inclusion_request::Which::Event(id)) => EventAsked::Id(
                id.parse::<CommitId>()
                    .map_err(|_| Status::invalid_argument("an event's id is 32 hexadecimal digits"))?,
            ),
            None => return Err(Status::invalid_argument("say which event, by id or by index")),
        };
        let metadata = self.0.metadata()?;
        let proof = metadata.prove_inclusion(project, event, request.size).await.map_err(|error| match error {
            valv_metadata_api::MetadataError::NoSuchVersion => Status::not_found("this ledger has no such event"),
            other => refused(other),
        })?;
        Ok(Response::new(wire::InclusionProof {
            index: proof.index,
            leaf: proof.leaf.into(),
            names: proof.names.map(Into::into),
            path: proof.path.iter().map(|hash| hash.to_vec().into()).collect(),
            size: proof.size,
            head: Some(head_message(&proof.head)),
        }))
    }

    async fn prove_consistency(
        &self,
        request: Request<wire::ProveConsistencyRequest>,
    ) -> Result<Response<wire::ConsistencyProof>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let project = self.asked(&caller, &request.project, request.cluster).await?;
        let proof = self.0.metadata()?.prove_consistency(project, request.old_size).await.map_err(refused)?;
        Ok(Response::new(wire::ConsistencyProof {
            path: proof.path.iter().map(|hash| hash.to_vec().into()).collect(),
            head: Some(head_message(&proof.head)),
        }))
    }
}

fn head_message(head: &SignedHead) -> wire::LedgerHead {
    wire::LedgerHead {
        project: head.project.clone(),
        size: head.size,
        // Written by this process a moment ago: hexadecimal.
        root: hex::decode(&head.root).unwrap_or_default().into(),
        time_micros: head.time_micros,
        key: head.key.clone(),
        signature: hex::decode(&head.signature).unwrap_or_default().into(),
    }
}
