//! Usage, receipts and fixity reports.

use super::error::refused;
use super::fixity::Tally;
use super::general::{PieceStream, pieces};
use super::{AdminState, Caller, no_metadata_role};
use std::pin::Pin;
use std::sync::Arc;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};
use valv_ledger::StatementKind;
use valv_ledger::usage::Month;
use valv_metadata::{HeldCursor, ProjectUsage, ReceiptAsked};
use valv_metadata_api::Role;
use valv_proto::admin::v1 as wire;
use valv_proto::admin::v1::fixity_part::Part;
use valv_proto::admin::v1::reports_server::Reports;
use valv_types::{ProjectId, TimestampMicros};

/// Answers from this process's metadata and repair services.
pub(super) struct Reporting(pub(super) Arc<AdminState>);

#[tonic::async_trait]
impl Reports for Reporting {
    async fn get_usage(
        &self,
        request: Request<wire::GetUsageRequest>,
    ) -> Result<Response<wire::GetUsageReply>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let month: Month = request.month.parse().map_err(|error| Status::invalid_argument(format!("{error}")))?;
        let project = (!request.project.is_empty()).then_some(request.project.as_str());
        match project {
            Some(project) => drop(self.0.may_report(&caller, project).await?),
            None => caller.require_operator()?,
        }
        let found = self.0.metadata()?.usage(project, month).await.map_err(refused)?;
        Ok(Response::new(wire::GetUsageReply { projects: found.iter().map(usage_message).collect() }))
    }

    type GetReceiptStream = PieceStream;

    async fn get_receipt(
        &self,
        request: Request<wire::GetReceiptRequest>,
    ) -> Result<Response<Self::GetReceiptStream>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let kind = match request.kind() {
            wire::ReceiptKind::Ingest => StatementKind::IngestReceipt,
            wire::ReceiptKind::Repair => StatementKind::RepairReceipt,
            wire::ReceiptKind::Migration => StatementKind::MigrationReceipt,
            wire::ReceiptKind::Export => StatementKind::ExportReceipt,
            wire::ReceiptKind::Transfer => StatementKind::TransferReceipt,
            wire::ReceiptKind::Disposal => StatementKind::DisposalReceipt,
            wire::ReceiptKind::Unspecified => return Err(Status::invalid_argument("say which kind of receipt")),
        };
        let asked = ReceiptAsked {
            kind,
            project: self.0.may_report(&caller, &request.project).await?,
            bucket: (!request.bucket.is_empty()).then_some(request.bucket),
            prefix: request.prefix.to_vec(),
            since: TimestampMicros(request.since_micros.unwrap_or(0)),
            until: TimestampMicros(request.until_micros.unwrap_or(u64::MAX)),
        };
        let service = self.0.metadata()?.clone();
        Ok(Response::new(pieces(async move |out| Ok(service.write_receipt(&asked, out).await?))))
    }

    type GetFixityStream = Pin<Box<dyn Stream<Item = Result<wire::FixityPart, Status>> + Send>>;

    async fn get_fixity(
        &self,
        request: Request<wire::GetFixityRequest>,
    ) -> Result<Response<Self::GetFixityStream>, Status> {
        let caller = Caller::of(&request)?;
        let project = self.0.may_report(&caller, &request.into_inner().project).await?;
        // Refused before anything is streamed.
        self.0.repair.as_ref().ok_or_else(no_metadata_role)?;
        let report =
            FixityInProgress { state: self.0.clone(), project, tally: Tally::default(), next: Next::Page(None) };
        // A page is looked at when the client has taken what was said of the one before; without a client nothing is.
        Ok(Response::new(Box::pin(futures_util::stream::try_unfold(report, FixityInProgress::step))))
    }
}

impl AdminState {
    /// The project of this name, if the caller may see what is proved and reported of it: every member, auditors among
    /// them, and nobody else; of a project without members, operators.
    pub(super) async fn may_report(&self, caller: &Caller, project: &str) -> Result<ProjectId, Status> {
        // Strangers are not told whether there is such a project.
        Ok(self.require(caller, project, &Role::ALL).await?.id)
    }
}

/// A fixity report that is being made.
struct FixityInProgress {
    state: Arc<AdminState>,
    project: ProjectId,
    tally: Tally,
    next: Next,
}

/// What comes next.
enum Next {
    /// The page of versions that begins here.
    Page(Option<HeldCursor>),
    /// The statement.
    Statement,
    /// Nothing.
    Nothing,
}

impl FixityInProgress {
    async fn step(mut self) -> Result<Option<(wire::FixityPart, Self)>, Status> {
        let part = match std::mem::replace(&mut self.next, Next::Nothing) {
            Next::Page(from) => self.page(from).await?,
            Next::Statement => self.statement().await?,
            Next::Nothing => return Ok(None),
        };
        Ok(Some((wire::FixityPart { part: Some(part) }, self)))
    }

    async fn page(&mut self, from: Option<HeldCursor>) -> Result<Part, Status> {
        let repair = self.state.repair.as_ref().ok_or_else(no_metadata_role)?;
        let page = self.state.metadata()?.held_versions(self.project, from).await.map_err(refused)?;
        let blobs: Vec<_> = page.versions.iter().flat_map(|version| version.blobs.iter().copied()).collect();
        let known = repair.fixity(&blobs).await.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut rest = known.as_slice();
        for version in &page.versions {
            let (own, others) = rest.split_at(version.blobs.len().min(rest.len()));
            self.tally.add(version, own);
            rest = others;
        }
        self.next = match page.next {
            Some(next) => Next::Page(Some(next)),
            None => Next::Statement,
        };
        let (objects, bytes) = self.tally.progress();
        Ok(Part::Progress(wire::FixityProgress { objects, bytes }))
    }

    async fn statement(&self) -> Result<Part, Status> {
        let metadata = self.state.metadata()?;
        let disks = match &self.state.shards {
            Some(shards) => shards.disks().await.map_err(|error| Status::unavailable(error.to_string()))?,
            None => Vec::new(),
        };
        let (repairs, bytes) = metadata.repairs_of(self.project).await.map_err(refused)?;
        let repairs = serde_json::json!({"records": repairs, "bytes": bytes.to_string()});
        let facts = self.tally.facts(&disks, repairs);
        let kind = StatementKind::FixityReport;
        let signed = metadata.statement(kind, self.project, facts.into()).await.map_err(refused)?;
        Ok(Part::Statement(signed.to_line()))
    }
}

fn usage_message(found: &ProjectUsage) -> wire::ProjectUsage {
    let usage = &found.usage;
    let sums = &usage.sums;
    wire::ProjectUsage {
        project: found.project.to_string(),
        name: found.name.clone(),
        month: usage.month.to_string(),
        from_micros: usage.month.start().0,
        until_micros: usage.until.0,
        ledger_size: found.ledger_size,
        held_bytes_start: usage.held_at_start.bytes.to_string(),
        held_objects_start: usage.held_at_start.objects,
        held_bytes_end: usage.held_at_end.bytes.to_string(),
        held_objects_end: usage.held_at_end.objects,
        byte_micros: usage.byte_micros.to_string(),
        byte_hours: usage.byte_hours().to_string(),
        change_requests: sums.change_requests,
        read_requests: sums.read_requests,
        ingress_bytes: sums.ingress_bytes.get().to_string(),
        egress_bytes: sums.egress_bytes().to_string(),
        repairs: sums.repairs,
        repaired_bytes: sums.repaired_bytes.get().to_string(),
        events: sums.events,
    }
}
