//! Usage, receipts and fixity reports.

use super::error::refused;
use super::{AdminState, Caller};
use std::sync::Arc;
use tonic::{Request, Response, Status};
use valv_ledger::usage::Month;
use valv_metadata::ProjectUsage;
use valv_proto::admin::v1 as wire;
use valv_proto::admin::v1::reports_server::Reports;

/// Answers from this process's metadata and repair services.
pub(super) struct Reporting(pub(super) Arc<AdminState>);

#[tonic::async_trait]
impl Reports for Reporting {
    async fn get_usage(
        &self,
        request: Request<wire::GetUsageRequest>,
    ) -> Result<Response<wire::GetUsageReply>, Status> {
        Caller::of(&request)?.require_operator()?;
        let request = request.into_inner();
        let month: Month = request.month.parse().map_err(|error| Status::invalid_argument(format!("{error}")))?;
        let project = (!request.project.is_empty()).then_some(request.project.as_str());
        let found = self.0.metadata()?.usage(project, month).await.map_err(refused)?;
        Ok(Response::new(wire::GetUsageReply { projects: found.iter().map(usage_message).collect() }))
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
