//! The admin service's listener on the network: TLS, and whom a client certificate names.
//!
//! Everything that strangers can make it hold is bounded: connections, the time of a handshake, and how long a connection
//! lives, so that a certificate that has expired since is asked for again.

use crate::config::AdminSection;
use crate::tls;
use anyhow::Context as _;
use rustls_pki_types::CertificateDer;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

/// Connections at once: people and scripts that administer, not clients of S3. Each holds some 100 KiB at most.
const CONNECTIONS_MAX: usize = 256;
/// How long a handshake may take.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// Connections that are ready and not taken yet.
const READY_MAX: usize = 16;
/// How long a failing listener rests (no file descriptors left, say) before it tries again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What a client certificate's URI name begins with; the user's name follows, percent-encoded.
const USER_URI: &str = "valv:user:";

/// Who is at the other end of a connection, as far as the connection itself can tell.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) address: Option<SocketAddr>,
    /// The client certificate, verified against `client_ca`.
    pub(super) certificate: Option<Arc<CertificateDer<'static>>>,
}

/// A connection, with its permit.
pub(super) struct AdminConnection {
    io: Io,
    peer: Peer,
    _permit: OwnedSemaphorePermit,
}

enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// An address that is bound, with the TLS that it will speak.
pub(crate) struct AdminListener {
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    /// Where it listens.
    pub(super) address: SocketAddr,
}

impl AdminListener {
    /// Binds what the configuration names, if it names anything.
    pub(crate) async fn bind(section: &AdminSection) -> anyhow::Result<Option<Self>> {
        let Some(address) = section.listen else { return Ok(None) };
        let acceptor = match &section.tls {
            None => None,
            Some(files) => {
                let config = tls::server_config(&files.certificate, &files.key, files.client_ca.as_deref());
                Some(TlsAcceptor::from(Arc::new(config.context("admin: TLS")?)))
            }
        };
        let listener = TcpListener::bind(address).await.with_context(|| format!("admin: binding {address}"))?;
        let address = listener.local_addr()?;
        Ok(Some(Self { listener, acceptor, address }))
    }

    /// The address as commands take it.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.acceptor.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Connections as they become ready, until `stop`. Handshakes run beside each other: a slow one holds nobody up.
    /// The task holds the address, and ends soon after `stop`.
    pub(super) fn connections(
        self,
        stop: CancellationToken,
    ) -> (ReceiverStream<io::Result<AdminConnection>>, JoinHandle<()>) {
        let (ready, connections) = mpsc::channel(READY_MAX);
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let accepting = tokio::spawn(async move {
            // Dropped with the task, and with it every handshake that has not ended.
            let mut handshakes = JoinSet::new();
            loop {
                let accepted = tokio::select! {
                    () = stop.cancelled() => return,
                    Some(_) = handshakes.join_next() => continue,
                    accepted = self.accept(&permits) => accepted,
                };
                let (stream, address, permit) = match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!(%error, "a connection to the admin service was not accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                };
                let (acceptor, ready) = (self.acceptor.clone(), ready.clone());
                handshakes.spawn(async move {
                    match tokio::time::timeout(HANDSHAKE_DEADLINE, greet(acceptor, stream, address, permit)).await {
                        Ok(Ok(connection)) => {
                            // Nobody waits any more only when the server stops.
                            let _ = ready.send(Ok(connection)).await;
                        }
                        Ok(Err(error)) => {
                            tracing::debug!(%address, %error, "no TLS with a caller of the admin service")
                        }
                        Err(_) => tracing::debug!(%address, "a caller of the admin service took too long to greet"),
                    }
                });
            }
        });
        (ReceiverStream::new(connections), accepting)
    }

    async fn accept(&self, permits: &Arc<Semaphore>) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
        let permit = permits.clone().acquire_owned().await.map_err(io::Error::other)?;
        let (stream, address) = self.listener.accept().await?;
        stream.set_nodelay(true)?;
        Ok((stream, address, permit))
    }
}

async fn greet(
    acceptor: Option<TlsAcceptor>,
    stream: TcpStream,
    address: SocketAddr,
    permit: OwnedSemaphorePermit,
) -> io::Result<AdminConnection> {
    let (io, certificate) = match acceptor {
        None => (Io::Plain(stream), None),
        Some(acceptor) => {
            let stream = acceptor.accept(stream).await?;
            let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let certificate = shown.map(|certificate| Arc::new(certificate.clone().into_owned()));
            (Io::Tls(Box::new(stream)), certificate)
        }
    };
    Ok(AdminConnection { io, peer: Peer { address: Some(address), certificate }, _permit: permit })
}

/// The user's name in a verified client certificate: its one URI name `valv:user:NAME`. Two would leave open who it is.
pub(super) fn user_of(certificate: &CertificateDer<'_>) -> Option<String> {
    let parsed = webpki::EndEntityCert::try_from(certificate).ok()?;
    let mut names = parsed.valid_uri_names().filter_map(|uri| uri.strip_prefix(USER_URI));
    let (name, None) = (names.next()?, names.next()) else { return None };
    let decoded = percent_encoding::percent_decode_str(name).decode_utf8().ok()?;
    (!decoded.is_empty()).then(|| decoded.into_owned())
}

impl Connected for AdminConnection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for AdminConnection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_read(context, into),
            Io::Tls(stream) => Pin::new(stream).poll_read(context, into),
        }
    }
}

impl AsyncWrite for AdminConnection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Io::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_flush(context),
            Io::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Io::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    fn certificate(uris: &[&str]) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["valv.example.org".to_owned()]).unwrap();
        params.subject_alt_names.extend(uris.iter().map(|&uri| SanType::URI(uri.try_into().unwrap())));
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn a_certificate_names_its_user_in_one_uri() {
        for (uris, expected) in [
            (&["valv:user:ada"][..], Some("ada")),
            (&["https://example.org", "valv:user:ada%20l%C3%B6vdahl"], Some("ada lövdahl")),
            (&["valv:user:ada", "valv:user:eve"], None),
            (&["valv:user:"], None),
            (&["valv:user:%ff"], None),
            (&["VALV:USER:ada"], None),
            (&[], None),
        ] {
            assert_eq!(user_of(&certificate(uris)).as_deref(), expected, "{uris:?}");
        }
        assert_eq!(user_of(&CertificateDer::from(vec![1, 2, 3])), None);
    }
}
