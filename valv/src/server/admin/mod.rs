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
mod listener;
mod openings;
mod projects;
mod reports;
mod retention;
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
use futures_util::future::OptionFuture;
use listener::AdminListener;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::HealthReporter;
use tower::layer::util::{Identity, Stack};
use users::Configured;
use valv_metadata::MetadataService;
use valv_metadata_api::{GetProject, Metadata as _, Project, ProjectRefusal, Role};
use valv_proto::admin::v1::admin_server::AdminServer;
use valv_proto::admin::v1::approvals_server::ApprovalsServer;
use valv_proto::admin::v1::credentials_server::CredentialsServer;
use valv_proto::admin::v1::custody_server::CustodyServer;
use valv_proto::admin::v1::keys_server::KeysServer;
use valv_proto::admin::v1::ledger_server::LedgerServer;
use valv_proto::admin::v1::openings_server::OpeningsServer;
use valv_proto::admin::v1::projects_server::ProjectsServer;
use valv_proto::admin::v1::reports_server::ReportsServer;
use valv_proto::admin::v1::retention_server::RetentionServer;
use valv_repair::RepairService;
use valv_shard_api::ShardStore;
use valv_storage_node::StorageNode;

/// The package of the services that reflection lists.
const ADMIN_PACKAGE: &str = "valv.admin.v1";
/// Calls of one connection at once. Messages are at most 4 MiB, so 256 connections could hold what the memory budget
/// allows; people and scripts ask one thing after another.
const CALLS_IN_FLIGHT_MAX: usize = 16;
/// Headers of one call: a token is 76 bytes.
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// A peer that is silent for so long is asked whether it lives.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(30);
/// After this, a connection ends with the calls on it, and a client certificate is looked at anew.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(3600);
/// How long a stop waits for calls in flight.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// What the services answer from: whatever roles this process has.
pub(crate) struct AdminState {
    pub(crate) cluster: String,
    pub(crate) roles: Vec<String>,
    pub(crate) shards: Option<Arc<dyn ShardStore>>,
    pub(crate) node: Option<Arc<StorageNode>>,
    pub(crate) metadata: Option<Arc<MetadataService>>,
    pub(crate) repair: Option<Arc<RepairService>>,
    pub(crate) configured: Configured,
    /// Whether the server serves, as health checks are told. The empty name stands for all of it.
    pub(crate) health: HealthReporter,
    /// Users whose client certificates are operators'.
    operators: Vec<String>,
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
fn routes(state: &Arc<AdminState>, health: HealthServer<impl Health>) -> anyhow::Result<Routes> {
    let routes = Routes::new(
        AdminServer::new(general::General(state.clone())).max_encoding_message_size(ADMIN_MESSAGE_BYTES_MAX),
    )
    .add_service(LedgerServer::new(ledger::Ledgers(state.clone())))
    .add_service(OpeningsServer::new(openings::Opening(state.clone())))
    .add_service(ReportsServer::new(reports::Reporting(state.clone())))
    .add_service(RetentionServer::new(retention::Retaining(state.clone())))
    .add_service(CredentialsServer::new(credentials::CredentialsService(state.clone())))
    .add_service(KeysServer::new(keys::KeysService(state.clone())))
    .add_service(ApprovalsServer::new(approvals::Service(state.clone())))
    .add_service(CustodyServer::new(custody::CustodyService(state.clone())))
    .add_service(ProjectsServer::new(projects::ProjectsService(state.clone())));
    reflection(routes.add_service(health))
}

/// What every service looks like, for clients such as grpcurl that have no .proto files: the services of this package are
/// listed, those between Valv's own processes are not.
fn reflection(routes: Routes) -> anyhow::Result<Routes> {
    let set = FileDescriptorSet::decode(valv_proto::FILE_DESCRIPTOR_SET).context("the descriptors of the services")?;
    let ours = set.file.iter().filter(|file| file.package() == ADMIN_PACKAGE);
    let names: Vec<String> =
        ours.flat_map(|file| &file.service).map(|service| format!("{ADMIN_PACKAGE}.{}", service.name())).collect();
    let builder = || {
        let builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(valv_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name("grpc.health.v1.Health");
        names.iter().fold(builder, |builder, name| builder.with_service_name(name))
    };
    let v1 = builder().with_service_name("grpc.reflection.v1.ServerReflection").build_v1()?;
    // grpcurl and most libraries still ask for the older one.
    let v1alpha = builder().with_service_name("grpc.reflection.v1alpha.ServerReflection").build_v1alpha()?;
    Ok(routes.add_service(v1).add_service(v1alpha))
}

/// The running admin service.
pub(crate) struct Admin {
    /// Where it answers over the network, as commands take it.
    pub(crate) url: Option<String>,
    /// Its tasks, which hold the address until they have ended.
    pub(crate) serving: Serving,
}

impl Admin {
    /// Takes no new calls, and lets those in flight end within [`DRAIN_MAX`].
    pub(crate) async fn stop(self) {
        self.serving.stop().await;
    }
}

/// Serves the admin services in the data folder, and on the network if the configuration says so.
pub(crate) async fn serve(
    config: &Config,
    folder: &DataFolder,
    storage: Option<&Storage>,
    metadata: Option<&Metadata>,
    seal: &Arc<Seal>,
) -> anyhow::Result<Admin> {
    let (health, health_service) = tonic_health::server::health_reporter();
    let is_sealed = seal.view().is_sealed;
    let serves = if is_sealed { ServingStatus::NotServing } else { ServingStatus::Serving };
    health.set_service_status("", serves).await;
    let state = Arc::new(AdminState {
        cluster: folder.identity.cluster.to_string(),
        roles: config.roles.iter().map(|role| role.name().to_owned()).collect(),
        shards: storage.map(Storage::shards).or_else(|| metadata.map(|metadata| metadata.shards.clone())),
        node: storage.map(|storage| storage.node.clone()),
        metadata: metadata.map(|metadata| metadata.service.clone()),
        repair: metadata.map(|metadata| metadata.repair.clone()),
        configured: Configured::new(config),
        health,
        operators: config.admin.operators.clone(),
        refusals: Refusals::default(),
        seal: seal.clone(),
    });
    let socket = bind_socket(folder)?;
    let network = AdminListener::bind(&config.admin).await?;
    let url = network.as_ref().map(AdminListener::url);
    let routes = routes(&state, health_service)?;
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    let local = server(&state)
        .add_routes(routes.clone())
        .serve_with_incoming_shutdown(UnixListenerStream::new(socket), stop.clone().cancelled_owned());
    let (connections, accepting) = network.map(|network| network.connections(stop.clone())).unzip();
    let remote = connections.map(|connections| {
        server(&state)
            .max_connection_age(CONNECTION_AGE_MAX)
            .add_routes(routes)
            .serve_with_incoming_shutdown(connections, stop.clone().cancelled_owned())
    });
    let serving = Serving::spawn(cancel, async move {
        let both = async { tokio::try_join!(local, async { OptionFuture::from(remote).await.unwrap_or(Ok(())) }) };
        tokio::select! {
            served = both => if let Err(error) = served {
                tracing::error!(%error, "the admin service ended");
            },
            // A client that watches would keep the server for ever.
            () = async {
                stop.cancelled().await;
                state.health.set_service_status("", ServingStatus::NotServing).await;
                tokio::time::sleep(DRAIN_MAX).await;
            } => {}
        }
        // The address is free for the next one who binds it.
        if let Some(Err(error)) = OptionFuture::from(accepting).await {
            tracing::error!(%error, "the admin service's listener did not end cleanly");
        }
    });
    Ok(Admin { url, serving })
}

/// A server that knows its callers, with what one connection may ask of it at once.
fn server(state: &Arc<AdminState>) -> tonic::transport::Server<Stack<AuthenticateLayer, Identity>> {
    tonic::transport::Server::builder()
        .concurrency_limit_per_connection(CALLS_IN_FLIGHT_MAX)
        .max_concurrent_streams(CALLS_IN_FLIGHT_MAX as u32)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_keepalive_interval(Some(KEEP_ALIVE_EVERY))
        .layer(AuthenticateLayer(state.clone()))
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
