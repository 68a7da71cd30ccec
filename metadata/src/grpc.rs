//! The metadata API over gRPC: the service beside the domain logic, and the transport that stands in for it elsewhere.
//!
//! Requests and answers travel as CBOR in an envelope, so there is one definition of them. A refusal of the domain is an
//! answer like any other; a gRPC status other than OK means that the outcome is not known, which a caller sees as
//! [`MetadataError::Unavailable`] and resolves by repeating the call with the same commit id. Retries: none here.

use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use valv_metadata_api::{Client, Metadata, MetadataError, Request, Response, Transport, serve};
use valv_proto::metadata::v1::Envelope;
use valv_proto::metadata::v1::metadata_client::MetadataClient;
use valv_proto::metadata::v1::metadata_server;

/// Longest message, both ways: a completion of 10,000 parts or a page of 1,000 versions with inline bodies of 16 KiB
/// comes to less than 20 MiB.
pub const MESSAGE_BYTES_MAX: usize = 32 << 20;
/// How long a call may take: longer than any commit that succeeds while a disk of the mirror is being replaced.
pub const CALL_DEADLINE: Duration = Duration::from_secs(30);
/// How long a connection may take to come up.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// A peer that is silent for so long is asked whether it lives, and must answer within [`KEEP_ALIVE_ANSWER`].
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(10);
/// See [`KEEP_ALIVE_EVERY`].
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(5);

/// Serves a metadata service.
pub struct MetadataServer {
    metadata: Arc<dyn Metadata>,
}

impl MetadataServer {
    /// The server of `metadata`.
    pub fn new(metadata: Arc<dyn Metadata>) -> Self {
        Self { metadata }
    }

    /// The service in a form that a tonic server takes.
    pub fn into_server(self) -> metadata_server::MetadataServer<Self> {
        metadata_server::MetadataServer::new(self)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl metadata_server::Metadata for MetadataServer {
    async fn call(&self, request: tonic::Request<Envelope>) -> Result<tonic::Response<Envelope>, Status> {
        let answer: Result<Response, MetadataError> = match minicbor::decode(&request.into_inner().cbor) {
            Ok(request) => serve(self.metadata.as_ref(), request).await,
            // What it was is not said: it may hold a secret.
            Err(_) => Err(MetadataError::Malformed { what: "a request that this version does not know".to_owned() }),
        };
        Ok(tonic::Response::new(Envelope { cbor: encode(&answer) }))
    }
}

/// A metadata service's address is not one.
#[derive(Debug, thiserror::Error)]
#[error("not a metadata service's address: {address}: {source}")]
pub struct AddressError {
    address: String,
    #[source]
    source: tonic::transport::Error,
}

/// Carries requests over a gRPC channel. Cheap to clone; calls share one connection.
#[derive(Debug, Clone)]
pub struct GrpcTransport {
    client: MetadataClient<Channel>,
    deadline: Duration,
}

impl GrpcTransport {
    /// A transport over a channel that the caller has set up, for example with TLS. A call that has no answer after
    /// `deadline` is [`MetadataError::Unavailable`].
    pub fn new(channel: Channel, deadline: Duration) -> Self {
        let client = MetadataClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Self { client, deadline }
    }
}

/// The metadata service at `address` (like `http://10.0.0.1:9200`). Connects when first used, and again whenever the
/// connection is lost.
///
/// # Panics
/// If called outside a tokio runtime.
pub fn connect(address: &str) -> Result<Client<GrpcTransport>, AddressError> {
    let endpoint = Endpoint::from_shared(address.to_owned())
        .map_err(|source| AddressError { address: address.to_owned(), source })?
        .connect_timeout(CONNECT_DEADLINE)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_EVERY)
        .keep_alive_timeout(KEEP_ALIVE_ANSWER);
    Ok(Client(GrpcTransport::new(endpoint.connect_lazy(), CALL_DEADLINE)))
}

#[async_trait]
impl Transport for GrpcTransport {
    async fn call(&self, request: Request) -> Result<Response, MetadataError> {
        let mut client = self.client.clone();
        let envelope = Envelope { cbor: encode(&request) };
        let answer = match tokio::time::timeout(self.deadline, client.call(envelope)).await {
            Ok(answer) => answer.map_err(|status| unavailable(&status))?,
            Err(_) => return Err(MetadataError::Unavailable { what: "no answer in time".to_owned() }),
        };
        // An answer that can't be read says nothing of what happened, so it is no refusal.
        minicbor::decode(&answer.into_inner().cbor)
            .unwrap_or_else(|_| Err(MetadataError::Unavailable { what: "an answer of an unknown form".to_owned() }))
    }
}

fn unavailable(status: &Status) -> MetadataError {
    let what = match status.code() {
        Code::Unavailable => "the metadata service can't be reached".to_owned(),
        code => format!("the metadata service: {code:?}: {}", status.message()),
    };
    MetadataError::Unavailable { what }
}

fn encode<T: minicbor::Encode<()>>(value: &T) -> Bytes {
    match minicbor::to_vec(value) {
        Ok(bytes) => bytes.into(),
        Err(_) => unreachable!("messages are plain data, and a vector takes every byte"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::store::{RocksConfig, RocksMetaStore, Start};
    use crate::{BootstrapConfig, KeyStore, MetadataConfig, MetadataService};
    use tokio::net::TcpListener;
    use tokio_stream::wrappers::TcpListenerStream;
    use tokio_util::sync::CancellationToken;
    use valv_codec::RootKey;
    use valv_metadata_api::{Empty, EnsurePrincipal, GetBucket, GetUser, Secret};
    use valv_types::{AccessKeyId, ClusterId, DiskId, NamespaceId};

    /// The real service over an embedded store; the folder must outlive it.
    async fn service() -> (Arc<MetadataService>, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let store = RocksConfig::new(folder.path().join("metadata"), Start::First);
        let store = RocksMetaStore::open(store, None).await.unwrap();
        let keys = KeyStore::open(&folder.path().join("keys"), RootKey::generate(1).unwrap()).unwrap();
        let config = MetadataConfig::default();
        let service = MetadataService::open(config, store, keys).await.unwrap();
        let disks = (0..6).map(|n| DiskId::from_bytes([n; 16])).collect();
        let cluster =
            BootstrapConfig { cluster: ClusterId::random(), cell: config.cell, disks, k: 4, m: 2, pg_count: 4 };
        service.bootstrap(cluster).await.unwrap();
        (service, folder)
    }

    fn principal() -> EnsurePrincipal {
        EnsurePrincipal {
            user_name: "somebody".to_owned(),
            display_name: "Somebody".to_owned(),
            email: String::new(),
            canonical_id: String::new(),
            project_name: "project".to_owned(),
            namespace_name: "shared".to_owned(),
            access_key: AccessKeyId::new("KEY-SOMEBODY-0001").unwrap(),
            secret: Secret::new(b"a secret of some length".to_vec()),
        }
    }

    /// Serves on a loopback port until the token is cancelled.
    async fn serve_on_loopback(metadata: Arc<dyn Metadata>, stop: CancellationToken) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let serving = tonic::transport::Server::builder()
            .add_service(MetadataServer::new(metadata).into_server())
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.cancelled_owned());
        tokio::spawn(serving);
        address
    }

    #[tokio::test]
    async fn calls_and_refusals_are_those_of_the_service_itself() {
        let (service, _folder) = service().await;
        let address = serve_on_loopback(service.clone(), CancellationToken::new()).await;
        let client = connect(&address).unwrap();

        let map = client.get_cluster_map(Empty {}).await.unwrap();
        assert_eq!(map, service.get_cluster_map(Empty {}).await.unwrap());
        let made = client.ensure_principal(principal()).await.unwrap();
        assert_eq!(client.get_user(GetUser::Name("somebody".to_owned())).await.unwrap().id, made.user);
        assert_eq!(client.get_user(GetUser::Name("nobody".to_owned())).await.unwrap_err(), MetadataError::NoSuchUser);
        let missing = GetBucket { namespace: NamespaceId::random(), name: "none".to_owned() };
        assert_eq!(client.get_bucket(missing).await.unwrap_err(), MetadataError::NoSuchBucket);
        let (first, second) = (
            client.register_incarnation(Empty {}).await.unwrap(),
            client.register_incarnation(Empty {}).await.unwrap(),
        );
        assert!(first < second);
    }

    #[tokio::test]
    async fn a_service_that_is_gone_is_unavailable_and_is_found_again() {
        let (service, _folder) = service().await;
        let stop = CancellationToken::new();
        let address = serve_on_loopback(service, stop.clone()).await;
        let client = connect(&address).unwrap();
        client.get_cluster_map(Empty {}).await.unwrap();
        stop.cancel();
        let refused = async {
            loop {
                // The connection that is open may still be served.
                if let Err(error) = client.get_cluster_map(Empty {}).await {
                    return error;
                }
            }
        };
        assert!(matches!(refused.await, MetadataError::Unavailable { .. }));

        let nobody = connect("http://127.0.0.1:1").unwrap();
        assert!(matches!(nobody.get_cluster_map(Empty {}).await, Err(MetadataError::Unavailable { .. })));
        assert!(connect("not an address").is_err());
    }

    #[tokio::test]
    async fn a_call_without_an_answer_ends_at_its_deadline() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", silent.local_addr().unwrap());
        let channel = Endpoint::from_shared(address).unwrap().connect_lazy();
        let client = Client(GrpcTransport::new(channel, Duration::from_millis(50)));
        assert!(matches!(client.get_cluster_map(Empty {}).await, Err(MetadataError::Unavailable { .. })));
    }

    #[tokio::test]
    async fn what_is_no_request_is_malformed() {
        let (service, _folder) = service().await;
        let server = MetadataServer::new(service);
        for cbor in [&b""[..], b"\xff", b"\x82\x19\x27\x0f\x80"] {
            let envelope = Envelope { cbor: Bytes::copy_from_slice(cbor) };
            let answer = metadata_server::Metadata::call(&server, tonic::Request::new(envelope)).await.unwrap();
            let answer: Result<Response, MetadataError> = minicbor::decode(&answer.into_inner().cbor).unwrap();
            assert!(matches!(answer, Err(MetadataError::Malformed { .. })));
        }
    }
}
