//! The horizon, streamed: words on how far the scan is, then the report.

use super::{AdminState, Caller, disk_message, disk_statuses, organisation, refused};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use valv_horizon::{DiskFacts, NEVER_GUARANTEED, Remedy, remedies};
use valv_metadata::FoundHorizon;
use valv_metadata_api::*;
use valv_proto::admin::v1 as wire;
use valv_shard_api::DiskStatus;
use valv_types::{DiskId, TimestampMicros};

/// A horizon on its way to a client.
pub(super) type HorizonStream = Pin<Box<dyn Stream<Item = Result<wire::HorizonReply, Status>> + Send>>;

/// Rows of the report that are sent: some 120 bytes each, so that a report stays below the longest message. Those with the
/// most uncovered bytes come first.
const ROWS_MAX: usize = 20_000;

/// Who may see the horizon of a project, besides operators.
const SEE: [Role; 3] = [Role::Controller, Role::Steward, Role::Auditor];

/// Scans, and tells the client on the way. A client that goes away ends the scan.
pub(super) async fn answer(
    state: &Arc<AdminState>,
    request: Request<wire::HorizonRequest>,
) -> Result<Response<HorizonStream>, Status> {
    let caller = Caller::of(&request)?;
    let request = request.into_inner();
    let service = state.metadata()?.clone();
    let project = match request.project.as_str() {
        "" => {
            caller.require_operator()?;
            None
        }
        name if caller.is_operator => Some(service.project_id(name).await.map_err(refused)?),
        // Whoever answers for data, or checks on it, may know how long its hardware is good for.
        name => Some(state.require(&caller, name, &SEE).await?.id),
    };
    let (sender, replies) = mpsc::channel(1);
    let state = Arc::clone(state);
    tokio::spawn(async move {
        let words = sender.clone();
        let progress = move |at: valv_metadata::HorizonProgress| {
            if words.is_closed() {
                return ControlFlow::Break(());
            }
            let progress = wire::HorizonProgress { versions: at.versions, kept: at.kept };
            // A client that reads slowly misses words, and holds no scan up.
            let _ = words.try_send(Ok(reply(wire::horizon_reply::Step::Progress(progress))));
            ControlFlow::Continue(())
        };
        let found = service.horizon(project, request.by_micros.map(TimestampMicros), progress).await;
        let last = match found {
            Ok(Some(found)) => {
                report(&state, &found).await.map(|report| reply(wire::horizon_reply::Step::Report(report)))
            }
            Ok(None) => return,
            Err(error) => Err(refused(error)),
        };
        // If the client has gone, nobody is left to tell.
        let _ = sender.send(last).await;
    });
    Ok(Response::new(Box::pin(ReceiverStream::new(replies))))
}

fn reply(step: wire::horizon_reply::Step) -> wire::HorizonReply {
    wire::HorizonReply { step: Some(step) }
}

async fn report(state: &AdminState, found: &FoundHorizon) -> Result<wire::HorizonReport, Status> {
    let custodians = state.metadata()?.list_custodians(Empty {}).await.map_err(refused)?;
    let statuses = disk_statuses(state).await;
    let facts: Vec<DiskFacts> = found
        .disks
        .iter()
        .map(|disk| DiskFacts {
            disk: disk.disk,
            custodian: disk.custodian,
            guaranteed_until: disk.guaranteed_until.unwrap_or(NEVER_GUARANTEED),
            free_bytes: statuses.get(&disk.disk).map_or(0, |status| status.free_bytes),
        })
        .collect();
    let remedies: HashMap<DiskId, Remedy> =
        remedies(&found.report, &facts).into_iter().map(|remedy| (remedy.disk, remedy)).collect();
    let disks = found.disks.iter().filter(|disk| found.report.disks.contains_key(&disk.disk));
    let disks = disks.map(|disk| disk_need(found, disk, remedies.get(&disk.disk), &custodians, &statuses)).collect();
    let mut rows: Vec<_> = found.report.rows.iter().collect();
    rows.sort_by_key(|row| std::cmp::Reverse((row.uncovered_shard_bytes, row.shard_bytes)));
    let rows = rows.into_iter().take(ROWS_MAX).map(|row| wire::HorizonRow {
        project: row.project.to_string(),
        disk: row.disk.to_string(),
        year: row.year.map_or(0, u32::from),
        shard_bytes: row.shard_bytes,
        uncovered_shard_bytes: row.uncovered_shard_bytes,
        keep_until_micros: row.keep_until.0,
    });
    let projects = found.report.projects.iter().map(|(id, view)| wire::HorizonProject {
        project: id.to_string(),
        name: found.names.get(id).cloned().unwrap_or_default(),
        kept_bytes: view.kept_bytes,
        shrinking_bytes: view.shrinking_bytes,
        uncovered_bytes: view.uncovered_bytes,
        shrinking_from_micros: view.shrinking_from.map(|at| at.0),
        uncovered_from_micros: view.uncovered_from.map(|at| at.0),
        keep_until_micros: view.keep_until.map(|at| at.0),
        years: view
            .years
            .iter()
            .map(|(year, view)| wire::HorizonYear {
                year: u32::from(*year),
                shrinking_bytes: view.shrinking_bytes,
                uncovered_bytes: view.uncovered_bytes,
            })
            .collect(),
    });
    Ok(wire::HorizonReport {
        now_micros: found.window.now.0,
        by_micros: found.window.by.0,
        projects: projects.collect(),
        disks,
        rows: rows.collect(),
        versions: found.scanned.versions,
    })
}

fn disk_need(
    found: &FoundHorizon,
    disk: &DiskCustody,
    remedy: Option<&Remedy>,
    custodians: &[Custodian],
    statuses: &HashMap<DiskId, DiskStatus>,
) -> wire::HorizonDisk {
    let need = found.report.disks.get(&disk.disk).copied().unwrap_or_default();
    let moves = remedy.map(|remedy| remedy.moves.as_slice()).unwrap_or_default();
    let moves = moves.iter().map(|one| wire::HorizonMove {
        disk: one.disk.to_string(),
        name: statuses.get(&one.disk).map(|status| status.name.clone()).unwrap_or_default(),
        organisation: organisation(custodians, one.custodian),
        bytes: one.bytes,
    });
    wire::HorizonDisk {
        disk: Some(disk_message(disk, custodians, statuses)),
        extend_to_micros: remedy.map(|remedy| remedy.extend_to.0),
        move_bytes: remedy.map_or(0, |remedy| remedy.move_bytes),
        moves: moves.collect(),
        unplaced_bytes: remedy.map_or(0, |remedy| remedy.unplaced_bytes),
        whole_until_micros: need.whole_until.map(|at| at.0),
        whole_bytes: need.whole_bytes,
    }
}
