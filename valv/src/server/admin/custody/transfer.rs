//! Projects that change hands. Who may what is decided by metadata, inside its commit.

use super::{AdminState, Caller, refused};
use serde_json::json;
use tonic::{Request, Response, Status};
use valv_ledger::StatementKind;
use valv_ledger::statement::rfc3339;
use valv_metadata_api::{
    AcceptTransfer, GetTransfer, Metadata, OfferTransfer, Transfer, TransferTerms, WithdrawTransfer,
};
use valv_proto::admin::v1 as wire;
use valv_types::CommitId;

pub(super) async fn offer(
    state: &AdminState,
    request: Request<wire::OfferTransferRequest>,
) -> Result<Response<wire::Transfer>, Status> {
    let caller = Caller::of(&request)?;
    let request = request.into_inner();
    let service = state.metadata()?;
    let project = service.project_id(&request.project).await.map_err(refused)?;
    let terms = request.terms.unwrap_or_default();
    let offer = OfferTransfer {
        by: caller.person(project),
        project,
        to: request.to,
        terms: TransferTerms {
            organisation: terms.organisation,
            contact: terms.contact,
            legal_basis: terms.legal_basis,
            ethics_approval: terms.ethics_approval,
            reason: terms.reason,
            reference: terms.reference,
        },
        keeps_controllers: request.keeps_controllers,
        valid_secs: request.valid_secs,
        commit: CommitId::random(),
    };
    let offered = service.offer_transfer(offer).await.map_err(refused)?;
    Ok(Response::new(message(&request.project, offered)))
}

pub(super) async fn get(
    state: &AdminState,
    request: Request<wire::GetTransferRequest>,
) -> Result<Response<wire::Transfer>, Status> {
    let caller = Caller::of(&request)?;
    let name = request.into_inner().project;
    let service = state.metadata()?;
    let project = service.project_id(&name).await.map_err(refused)?;
    let asked = GetTransfer { by: caller.person(project), project };
    let found = service.get_transfer(asked).await.map_err(refused)?;
    Ok(Response::new(message(&name, found)))
}

pub(super) async fn accept(
    state: &AdminState,
    request: Request<wire::AcceptTransferRequest>,
) -> Result<Response<wire::AcceptTransferReply>, Status> {
    let caller = Caller::of(&request)?;
    let request = request.into_inner();
    let service = state.metadata()?;
    let project = service.project_id(&request.project).await.map_err(refused)?;
    let offer = request.offer.parse().map_err(|_| Status::invalid_argument("an offer is 32 hexadecimal digits"))?;
    let accept = AcceptTransfer { by: caller.person(project), project, offer, commit: CommitId::random() };
    let accepted = service.accept_transfer(accept).await.map_err(refused)?;
    let facts = facts(&accepted);
    let receipt = service.statement(StatementKind::TransferReceipt, project, facts).await.map_err(refused)?;
    let transfer = Some(message(&request.project, accepted));
    Ok(Response::new(wire::AcceptTransferReply { transfer, receipt: receipt.to_line() }))
}

pub(super) async fn withdraw(
    state: &AdminState,
    request: Request<wire::WithdrawTransferRequest>,
) -> Result<Response<wire::Transfer>, Status> {
    let caller = Caller::of(&request)?;
    let request = request.into_inner();
    let service = state.metadata()?;
    let project = service.project_id(&request.project).await.map_err(refused)?;
    let withdraw =
        WithdrawTransfer { by: caller.person(project), project, reason: request.reason, commit: CommitId::random() };
    let withdrawn = service.withdraw_transfer(withdraw).await.map_err(refused)?;
    Ok(Response::new(message(&request.project, withdrawn)))
}

/// What the receipt of a transfer says.
fn facts(transfer: &Transfer) -> serde_json::Value {
    json!({
        "offer": transfer.offer.to_string(),
        "offered": rfc3339(transfer.offered),
        "offered_by": transfer.offered_by_name,
        "accepted": transfer.settled.map(rfc3339),
        "accepted_by": transfer.to_name,
        "from_organisation": transfer.from_organisation,
        "to_organisation": transfer.terms.organisation,
        "contact": transfer.terms.contact,
        "legal_basis": transfer.terms.legal_basis,
        "ethics_approval": transfer.terms.ethics_approval,
        "reason": transfer.terms.reason,
        "reference": transfer.terms.reference,
        "controllers_removed": transfer.removed,
    })
}

fn message(project: &str, transfer: Transfer) -> wire::Transfer {
    let terms = transfer.terms;
    wire::Transfer {
        offer: transfer.offer.to_string(),
        state: transfer.state.name().to_owned(),
        project: project.to_owned(),
        offered_by: transfer.offered_by_name,
        to: transfer.to_name,
        offered_micros: transfer.offered.0,
        expires_micros: transfer.expires.0,
        keeps_controllers: transfer.keeps_controllers,
        terms: Some(wire::TransferTerms {
            organisation: terms.organisation,
            contact: terms.contact,
            legal_basis: terms.legal_basis,
            ethics_approval: terms.ethics_approval,
            reason: terms.reason,
            reference: terms.reference,
        }),
        from_organisation: transfer.from_organisation,
        settled_micros: transfer.settled.map(|at| at.0),
        removed: transfer.removed,
    }
}
