//! Status, census, exports, users and access keys.

use super::{AdminState, Caller, no_metadata_role, users};
use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use valv_proto::admin::v1 as wire;
use valv_proto::admin::v1::admin_server::Admin;
use valv_repair::Census;
use valv_shard_api::{DiskState, DiskStatus, ShardError, ShardStore};

/// Answers from whatever roles this process has.
pub(super) struct General(pub(super) Arc<AdminState>);

impl std::ops::Deref for General {
    type Target = AdminState;

    fn deref(&self) -> &AdminState {
        &self.0
    }
}

#[tonic::async_trait]
impl Admin for General {
    async fn status(&self, request: Request<wire::StatusRequest>) -> Result<Response<wire::StatusReply>, Status> {
        Caller::of(&request)?.require_operator()?;
        let disks = match &self.shards {
            Some(shards) => shards.disks().await.map_err(|error| Status::unavailable(error.to_string()))?,
            None => vec![],
        };
        let seal = self.seal.view();
        let mut reply = wire::StatusReply {
            sealed: seal.is_sealed,
            shares_given: seal.given,
            shares_needed: seal.threshold,
            cluster: self.cluster.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            roles: self.roles.clone(),
            disks: disks.iter().map(disk_message).collect(),
            ..Default::default()
        };
        if let Some(repair) = &self.repair {
            let status = repair.status().await.map_err(|error| Status::unavailable(error.to_string()))?;
            reply.census = status.last_census.as_ref().map(census_message);
            reply.repair_queue = status.queue;
            reply.shards_repaired = status.shards_rebuilt;
            reply.bytes_repaired = status.bytes_rebuilt;
            reply.healthy = status.healthy;
        }
        Ok(Response::new(reply))
    }

    type CensusStream = Pin<Box<dyn Stream<Item = Result<wire::CensusProgress, Status>> + Send>>;

    async fn census(&self, request: Request<wire::CensusRequest>) -> Result<Response<Self::CensusStream>, Status> {
        Caller::of(&request)?.require_operator()?;
        let repair = self.repair.clone().ok_or_else(no_metadata_role)?;
        if request.into_inner().verify {
            let node = self.node.as_ref();
            let node =
                node.ok_or_else(|| Status::failed_precondition("this process has no disks: ask the one that has"))?;
            for disk in node.disks().await.map_err(|error| Status::unavailable(error.to_string()))? {
                // A disk that is away has nothing to verify.
                match node.scrub_now(disk.disk).await {
                    Ok(_) | Err(ShardError::Away { .. }) => {}
                    Err(error) => return Err(Status::unavailable(error.to_string())),
                }
            }
        }
        let result = repair.census_now().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let done = wire::CensusProgress { census: Some(census_message(&result)), finished: true };
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(done)))))
    }

    type ExportMetadataStream = PieceStream;

    async fn export_metadata(
        &self,
        request: Request<wire::ExportMetadataRequest>,
    ) -> Result<Response<Self::ExportMetadataStream>, Status> {
        // Of every project: sealed records, but object keys, sizes and times lie open.
        Caller::of(&request)?.require_operator()?;
        let service = self.metadata()?.clone();
        Ok(Response::new(pieces(async move |out| Ok(service.export_all(out).await?))))
    }

    type ExportLedgerStream = PieceStream;

    async fn export_ledger(
        &self,
        request: Request<wire::ExportLedgerRequest>,
    ) -> Result<Response<Self::ExportLedgerStream>, Status> {
        let caller = Caller::of(&request)?;
        let service = self.metadata()?.clone();
        let request = request.into_inner();
        if request.cluster {
            caller.require_operator()?;
            return Ok(Response::new(pieces(async move |out| Ok(service.export_cluster_ledger(out).await?))));
        }
        // Names, purposes and references are in it: the operator of a governed project sees them no more than its objects.
        self.may_report(&caller, &request.project).await?;
        Ok(Response::new(pieces(async move |out| Ok(service.export_ledger(&request.project, out).await?))))
    }

    async fn get_signing_key(
        &self,
        _: Request<wire::GetSigningKeyRequest>,
    ) -> Result<Response<wire::SigningKey>, Status> {
        let public_key = self.metadata()?.signing_public_key();
        let name = valv_ledger::head::key_name(&public_key);
        Ok(Response::new(wire::SigningKey { public_key: public_key.to_vec().into(), name }))
    }

    async fn ensure_user(
        &self,
        request: Request<wire::EnsureUserRequest>,
    ) -> Result<Response<wire::EnsureUserReply>, Status> {
        Caller::of(&request)?.require_operator()?;
        Ok(Response::new(users::ensure(self.metadata()?, request.into_inner()).await?))
    }

    async fn list_users(
        &self,
        request: Request<wire::ListUsersRequest>,
    ) -> Result<Response<wire::ListUsersReply>, Status> {
        Caller::of(&request)?.require_operator()?;
        Ok(Response::new(users::list(self.metadata()?, request.into_inner()).await?))
    }

    async fn describe_user(
        &self,
        request: Request<wire::DescribeUserRequest>,
    ) -> Result<Response<wire::DescribeUserReply>, Status> {
        let caller = Caller::of(&request)?;
        if caller.user_name.as_ref() != Some(&request.get_ref().name) {
            caller.require_operator()?;
        }
        Ok(Response::new(users::describe(self.metadata()?, request.into_inner()).await?))
    }

    async fn update_user(
        &self,
        request: Request<wire::UpdateUserRequest>,
    ) -> Result<Response<wire::UpdateUserReply>, Status> {
        Caller::of(&request)?.require_operator()?;
        users::update(self.metadata()?, request.into_inner()).await?;
        Ok(Response::new(wire::UpdateUserReply {}))
    }

    async fn delete_user(
        &self,
        request: Request<wire::DeleteUserRequest>,
    ) -> Result<Response<wire::DeletedReply>, Status> {
        Caller::of(&request)?.require_operator()?;
        Ok(Response::new(users::delete(self.metadata()?, &self.configured, request.into_inner()).await?))
    }

    async fn create_access_key(
        &self,
        request: Request<wire::CreateAccessKeyRequest>,
    ) -> Result<Response<wire::AccessKey>, Status> {
        // Members and controllers of governed projects make keys, too: metadata decides.
        let caller = Caller::of(&request)?;
        Ok(Response::new(users::create_key(self.metadata()?, &caller, request.into_inner()).await?))
    }

    async fn update_access_key(
        &self,
        request: Request<wire::UpdateAccessKeyRequest>,
    ) -> Result<Response<wire::AccessKey>, Status> {
        Caller::of(&request)?.require_operator()?;
        Ok(Response::new(users::update_key(self.metadata()?, request.into_inner()).await?))
    }

    async fn delete_access_key(
        &self,
        request: Request<wire::DeleteAccessKeyRequest>,
    ) -> Result<Response<wire::DeletedReply>, Status> {
        Caller::of(&request)?.require_operator()?;
        Ok(Response::new(users::delete_key(self.metadata()?, &self.configured, request.into_inner()).await?))
    }
}

/// An export on its way to a client.
pub(super) type PieceStream = Pin<Box<dyn Stream<Item = Result<wire::ExportedBytes, Status>> + Send>>;

/// Runs an exporter. It writes as a blocking writer does, so it has a thread of its own; what it has written waits in a
/// bounded channel for a second one, which hands it to the client at the client's pace.
pub(super) fn pieces<W>(work: W) -> PieceStream
where
    W: AsyncFnOnce(&mut (dyn Write + Send)) -> anyhow::Result<u64> + Send + 'static,
{
    let (written, to_send) = std::sync::mpsc::sync_channel(PIECES_MAX);
    let (sender, pieces) = mpsc::channel(1);
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let mut out = PieceWriter { sender: written, piece: Vec::with_capacity(PIECE_BYTES) };
        let exported = runtime.block_on(work(&mut out)).map_err(|error| error.to_string());
        if let Err(error) = exported.and_then(|_| out.flush().map_err(|error| error.to_string())) {
            // If the client has gone, nobody is left to tell.
            let _ = out.sender.send(Err(Status::internal(error)));
        }
    });
    tokio::task::spawn_blocking(move || {
        while let Ok(piece) = to_send.recv() {
            if sender.blocking_send(piece).is_err() {
                break;
            }
        }
    });
    Box::pin(ReceiverStream::new(pieces))
}

/// Bytes of one exported message.
const PIECE_BYTES: usize = 1 << 20;
/// Messages that may wait for a slow client: 8 MiB.
const PIECES_MAX: usize = 8;

/// Turns an exporter's writes into messages.
struct PieceWriter {
    sender: std::sync::mpsc::SyncSender<Result<wire::ExportedBytes, Status>>,
    piece: Vec<u8>,
}

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE_BYTES));
        let message = wire::ExportedBytes { json_lines: piece.into() };
        let sent = self.sender.send(Ok(message));
        sent.map_err(|_| std::io::Error::new(std::io::ErrorKind::BrokenPipe, "the client has gone"))
    }
}

fn disk_message(disk: &DiskStatus) -> wire::DiskStatus {
    let state = match disk.state {
        DiskState::Online => "online",
        DiskState::Full => "full",
        DiskState::ReadOnly => "read-only",
        DiskState::Absent => "absent",
    };
    wire::DiskStatus {
        disk: disk.disk.to_string(),
        name: disk.name.clone(),
        state: state.to_owned(),
        reason: disk.reason.clone(),
        capacity_bytes: disk.capacity_bytes,
        free_bytes: disk.free_bytes,
        shards: disk.shards,
        live_bytes: disk.live_bytes,
        quarantined: disk.quarantined,
    }
}

fn census_message(census: &Census) -> wire::Census {
    wire::Census {
        ended_micros: census.ended.0,
        blobs: census.blobs,
        chunks: census.chunks,
        shards_expected: census.shards_expected,
        shards_present: census.shards_present,
        shards_missing: census.shards_missing,
        shards_quarantined: census.shards_quarantined,
        shards_unreachable: census.shards_unreachable,
    }
}
