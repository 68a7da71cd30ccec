//! Custodians, the custody of disks, the horizon, and projects that change hands.

mod horizon;
mod transfer;

use super::error::refused;
use super::{AdminState, Caller};
use std::collections::HashMap;
use std::sync::Arc;
use tonic::{Request, Response, Status};
use valv_metadata_api::*;
use valv_proto::admin::v1 as wire;
use valv_proto::admin::v1::custody_server::Custody;
use valv_shard_api::DiskStatus;
use valv_types::{CommitId, CustodianId, DiskId, ProjectId, TimestampMicros};

/// Answers from the metadata service; the names of disks are the storage nodes'.
pub(super) struct CustodyService(pub(super) Arc<AdminState>);

/// Names of the disks whose nodes answer, and bytes that they may still take. Without an answer there are ids only.
async fn disk_statuses(state: &AdminState) -> HashMap<DiskId, DiskStatus> {
    let Some(shards) = &state.shards else { return HashMap::new() };
    let disks = shards.disks().await.unwrap_or_default();
    disks.into_iter().map(|disk| (disk.disk, disk)).collect()
}

fn disk_message(
    disk: &DiskCustody,
    custodians: &[Custodian],
    statuses: &HashMap<DiskId, DiskStatus>,
) -> wire::DiskCustody {
    wire::DiskCustody {
        disk: disk.disk.to_string(),
        name: statuses.get(&disk.disk).map(|status| status.name.clone()).unwrap_or_default(),
        custodian: disk.custodian.map(|id| id.to_string()).unwrap_or_default(),
        organisation: organisation(custodians, disk.custodian),
        guaranteed_until_micros: disk.guaranteed_until.map(|at| at.0),
        changed_micros: disk.changed.map(|at| at.0),
        in_pool: disk.is_in_pool,
    }
}

fn organisation(custodians: &[Custodian], id: Option<CustodianId>) -> String {
    let found = custodians.iter().find(|one| Some(one.id) == id);
    found.map(|one| one.details.organisation.clone()).unwrap_or_default()
}

impl CustodyService {
    /// The custodian that a client names by id or by organisation.
    async fn custodian_named(&self, text: &str) -> Result<CustodianId, Status> {
        if let Ok(id) = text.parse() {
            return Ok(id);
        }
        let all = self.0.metadata()?.list_custodians(Empty {}).await.map_err(refused)?;
        let wanted = text.to_lowercase();
        let found = all.iter().find(|one| one.details.organisation.to_lowercase() == wanted);
        found.map(|one| one.id).ok_or_else(|| Status::not_found(format!("no custodian {text:?}")))
    }

    async fn disk_named(&self, text: &str) -> Result<DiskId, Status> {
        if let Ok(id) = text.parse() {
            return Ok(id);
        }
        let statuses = disk_statuses(&self.0).await;
        let named: Vec<DiskId> = statuses.values().filter(|one| one.name == text).map(|one| one.disk).collect();
        match named.as_slice() {
            [disk] => Ok(*disk),
            [] => Err(Status::not_found(format!("no disk {text:?}: name it as `valv status` does, or by its id"))),
            _ => Err(Status::invalid_argument(format!("several disks are called {text:?}: name it by its id"))),
        }
    }

    async fn disk_messages(&self, disks: Vec<DiskCustody>) -> Result<Vec<wire::DiskCustody>, Status> {
        let custodians = self.0.metadata()?.list_custodians(Empty {}).await.map_err(refused)?;
        let statuses = disk_statuses(&self.0).await;
        Ok(disks.iter().map(|disk| disk_message(disk, &custodians, &statuses)).collect())
    }
}

fn custodian_message(custodian: Custodian) -> wire::Custodian {
    wire::Custodian {
        id: custodian.id.to_string(),
        organisation: custodian.details.organisation,
        contact: custodian.details.contact,
        contract: custodian.details.contract,
        created_micros: custodian.created.0,
        disks: custodian.disks,
    }
}

#[tonic::async_trait]
impl Custody for CustodyService {
    async fn create_custodian(
        &self,
        request: Request<wire::CreateCustodianRequest>,
    ) -> Result<Response<wire::Custodian>, Status> {
        let caller = Caller::of(&request)?;
        caller.require_operator()?;
        let wire::CreateCustodianRequest { organisation, contact, contract } = request.into_inner();
        let request = CreateCustodian {
            actor: caller.actor(ProjectId::CLUSTER),
            details: CustodianDetails { organisation, contact, contract },
            commit: CommitId::random(),
        };
        let made = self.0.metadata()?.create_custodian(request).await.map_err(refused)?;
        Ok(Response::new(custodian_message(made)))
    }

    async fn update_custodian(
        &self,
        request: Request<wire::UpdateCustodianRequest>,
    ) -> Result<Response<wire::Custodian>, Status> {
        let caller = Caller::of(&request)?;
        caller.require_operator()?;
        let request = request.into_inner();
        let request = UpdateCustodian {
            actor: caller.actor(ProjectId::CLUSTER),
            custodian: self.custodian_named(&request.custodian).await?,
            organisation: request.organisation,
            contact: request.contact,
            contract: request.contract,
            commit: CommitId::random(),
        };
        let changed = self.0.metadata()?.update_custodian(request).await.map_err(refused)?;
        Ok(Response::new(custodian_message(changed)))
    }

    async fn remove_custodian(
        &self,
        request: Request<wire::RemoveCustodianRequest>,
    ) -> Result<Response<wire::RemoveCustodianReply>, Status> {
        let caller = Caller::of(&request)?;
        caller.require_operator()?;
        let request = RemoveCustodian {
            actor: caller.actor(ProjectId::CLUSTER),
            custodian: self.custodian_named(&request.into_inner().custodian).await?,
            commit: CommitId::random(),
        };
        self.0.metadata()?.remove_custodian(request).await.map_err(refused)?;
        Ok(Response::new(wire::RemoveCustodianReply {}))
    }

    async fn list_custodians(
        &self,
        request: Request<wire::ListCustodiansRequest>,
    ) -> Result<Response<wire::ListCustodiansReply>, Status> {
        Caller::of(&request)?.require_operator()?;
        let all = self.0.metadata()?.list_custodians(Empty {}).await.map_err(refused)?;
        let custodians = all.into_iter().map(custodian_message).collect();
        Ok(Response::new(wire::ListCustodiansReply { custodians }))
    }

    async fn set_disk_custody(
        &self,
        request: Request<wire::SetDiskCustodyRequest>,
    ) -> Result<Response<wire::DiskCustody>, Status> {
        let caller = Caller::of(&request)?;
        caller.require_operator()?;
        let request = request.into_inner();
        let custodian = match &request.custodian {
            None => None,
            Some(text) => Some(self.custodian_named(text).await?),
        };
        let request = SetDiskCustody {
            actor: caller.actor(ProjectId::CLUSTER),
            disk: self.disk_named(&request.disk).await?,
            custodian,
            guaranteed_until: request.guaranteed_until_micros.map(TimestampMicros),
            reason: request.reason,
            commit: CommitId::random(),
        };
        let set = self.0.metadata()?.set_disk_custody(request).await.map_err(refused)?;
        let message = self.disk_messages(vec![set]).await?.pop();
        message.map(Response::new).ok_or_else(|| Status::internal("the disk is gone"))
    }

    async fn list_disk_custody(
        &self,
        request: Request<wire::ListDiskCustodyRequest>,
    ) -> Result<Response<wire::ListDiskCustodyReply>, Status> {
        Caller::of(&request)?.require_operator()?;
        let disks = self.0.metadata()?.list_disk_custody(Empty {}).await.map_err(refused)?;
        Ok(Response::new(wire::ListDiskCustodyReply { disks: self.disk_messages(disks).await? }))
    }

    type HorizonStream = horizon::HorizonStream;

    async fn horizon(&self, request: Request<wire::HorizonRequest>) -> Result<Response<Self::HorizonStream>, Status> {
        horizon::answer(&self.0, request).await
    }

    async fn offer_transfer(
        &self,
        request: Request<wire::OfferTransferRequest>,
    ) -> Result<Response<wire::Transfer>, Status> {
        transfer::offer(&self.0, request).await
    }

    async fn get_transfer(
        &self,
        request: Request<wire::GetTransferRequest>,
    ) -> Result<Response<wire::Transfer>, Status> {
        transfer::get(&self.0, request).await
    }

    async fn accept_transfer(
        &self,
        request: Request<wire::AcceptTransferRequest>,
    ) -> Result<Response<wire::AcceptTransferReply>, Status> {
        transfer::accept(&self.0, request).await
    }

    async fn withdraw_transfer(
        &self,
        request: Request<wire::WithdrawTransferRequest>,
    ) -> Result<Response<wire::Transfer>, Status> {
        transfer::withdraw(&self.0, request).await
    }
}
