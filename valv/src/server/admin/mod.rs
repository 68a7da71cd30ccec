//! The admin service of a running server: who may ask, and the gRPC services that answer.
//!
//! Each group of acts is a service of its own, in a file of its own: it finds out who calls ([`Caller`]), whether that
//! caller may, and hands the rest to the metadata service, which decides again inside its commit.

mod approvals;
mod authenticate;
mod caller;
mod credentials;
mod custody;
pub(crate) mod error;
mod fixity;
mod general;
mod keys;
mod ledger;
mod reports;
pub(super) mod users;

pub(crate) use caller::Caller;

use super::Serving;
use super::first_start::DataFolder;
use super::metadata::Metadata;
use super::sealed::Seal;
use super::storage::Storage;
use crate::admin::{ADMIN_MESSAGE_BYTES_MAX, socket_path};
use crate::config::Config;
use anyhow::Context;
use authenticate::{AuthenticateLayer, Refusals};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::service::Routes;
use users::Configured;
use valv_metadata::MetadataService;
use valv_metadata_api::{GetProject, Metadata as _, Project, ProjectRefusal, Role};
use valv_proto::admin::v1::admin_server::AdminServer;
use valv_proto::admin::v1::approvals_server::ApprovalsServer;
use valv_proto::admin::v1::credentials_server::CredentialsServer;
use valv_proto::admin::v1::custody_server::CustodyServer;
use valv_proto::admin::v1::keys_server::KeysServer;
use valv_proto::admin::v1::ledger_server::LedgerServer;
use valv_proto::admin::v1::reports_server::ReportsServer;
use valv_repair::RepairService;
use valv_shard_api::ShardStore;
use valv_storage_node::StorageNode;

/// What the services answer from: whatever roles this process has.
pub(crate) struct AdminState {
    pub(crate) cluster: String,
    pub(crate) roles: Vec<String>,
    pub(crate) shards: Option<Arc<dyn ShardStore>>,
    pub(crate) node: Option<Arc<StorageNode>>,
    pub(crate) metadata: Option<Arc<MetadataService>>,
    pub(crate) repair: Option<Arc<RepairService>>,
    pub(crate) configured: Configured,
    /// What wrong credentials cost.
    refusals: Refusals,
    pub(crate) seal: Arc<Seal>,
}

impl AdminState {
    /// The metadata service of this process.
    ///
    /// # Errors
    /// FAILED_PRECONDITION if it has none.
    #[allow(clippy::result_large_err, reason = "tonic's error type")]
    pub(crate) fn metadata(&self) -> Result<&Arc<MetadataService>, Status> {
        self.metadata.as_ref().ok_or_else(|| if self.seal.view().is_sealed { sealed() } else { no_metadata_role() })
    }
}

impl AdminState {
    /// The project of this name, if `caller` is a member with one of `roles`. In a project without members operators stand in
    /// for all of them; in a governed one being an operator gives no right.
    ///
    /// # Errors
    /// NOT_FOUND if there is none, also for who is neither operator nor member: names are not told to strangers.
    /// PERMISSION_DENIED.
    pub(crate) async fn require(&self, caller: &Caller, name: &str, roles: &[Role]) -> Result<Project, Status> {
        let metadata = self.metadata()?;
        let project = metadata.get_project(GetProject::Name(name.to_owned())).await.map_err(error::refused)?;
        let by = caller.person(project.id);
        match metadata.require_role(&by, project.id, roles).await {
            Ok(()) => Ok(project),
            Err(refusal) => {
                let is_known = caller.is_operator || metadata.require_role(&by, project.id, &Role::ALL).await.is_ok();
                Err(error::refused(if is_known { refusal } else { ProjectRefusal::NoSuchProject.into() }))
            }
        }
    }
}

/// What a process without the metadata role answers.
fn no_metadata_role() -> Status {
    Status::failed_precondition("this process has no metadata role: ask the one that has")
}

/// What a sealed server answers.
fn sealed() -> Status {
    Status::unavailable("this server is sealed: give it shares with `valv admin unseal`")
}

/// Every service, over one state.
fn routes(state: &Arc<AdminState>) -> Routes {
    Routes::new(AdminServer::new(general::General(state.clone())).max_encoding_message_size(ADMIN_MESSAGE_BYTES_MAX))
        .add_service(LedgerServer::new(ledger::Ledgers(state.clone())))
        .add_service(ApprovalsServer::new(approvals::Service(state.clone())))
        .add_service(ReportsServer::new(reports::Reporting(state.clone())))
        .add_service(CredentialsServer::new(credentials::CredentialsService(state.clone())))
        .add_service(KeysServer::new(keys::KeysService(state.clone())))
        .add_service(CustodyServer::new(custody::CustodyService(state.clone())))
}

/// Serves the admin services in the data folder.
pub(crate) fn serve(
    config: &Config,
    folder: &DataFolder,
    storage: Option<&Storage>,
    metadata: Option<&Metadata>,
    seal: &Arc<Seal>,
) -> anyhow::Result<Serving> {
    let state = Arc::new(AdminState {
        cluster: folder.identity.cluster.to_string(),
        roles: config.roles.iter().map(|role| role.name().to_owned()).collect(),
        shards: storage.map(Storage::shards).or_else(|| metadata.map(|metadata| metadata.shards.clone())),
        node: storage.map(|storage| storage.node.clone()),
        metadata: metadata.map(|metadata| metadata.service.clone()),
        repair: metadata.map(|metadata| metadata.repair.clone()),
        configured: Configured::new(config),
        refusals: Refusals::default(),
        seal: seal.clone(),
    });
    let listener = bind_socket(folder)?;
    let cancel = CancellationToken::new();
    let stopped = cancel.clone();
    Ok(Serving::spawn(cancel, async move {
        let served = tonic::transport::Server::builder()
            .layer(AuthenticateLayer(state.clone()))
            .add_routes(routes(&state))
            .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stopped.cancelled_owned())
            .await;
        if let Err(error) = served {
            tracing::error!(%error, "the admin service ended");
        }
    }))
}

/// The socket in the data folder, which only the server's own user can open.
fn bind_socket(folder: &DataFolder) -> anyhow::Result<UnixListener> {
    let path = socket_path(&folder.path);
    // Left by a server that was killed; the folder's lock says that none is running.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("removing {}", path.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(&path).with_context(|| format!("binding {}", path.display()))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("protecting {}", path.display()))?;
    Ok(listener)
}
