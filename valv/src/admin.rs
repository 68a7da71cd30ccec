//! The commands' way to the admin service: the Unix socket in a data folder, or a server's address over TLS.
//!
//! The socket lies in the data folder with mode 0600: whoever may read the data folder's keys may ask as its operator. Over
//! the network a caller shows a token or a client certificate. A token is never sent over an open connection, except to
//! this machine itself.

use crate::credentials::parse_token;
use crate::tls;
use anyhow::{Context, bail};
use hyper_util::rt::TokioIo;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Endpoint, Uri};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;
use valv_proto::admin::v1::admin_client::AdminClient;

/// Exported lines travel in pieces of at most 1 MiB; a status is far smaller.
pub(crate) const ADMIN_MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Where the token is looked for before any file: a command line can be seen by others, so no argument takes it.
const TOKEN_VARIABLE: &str = "VALV_TOKEN";
/// The port of an address that names none.
pub(crate) const DEFAULT_PORT: u16 = 9443;
/// How long a connection may take to come up.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Which server a command talks to, and as whom.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ServerArg {
    /// The data folder of a server on this machine, asked through the socket in it.
    #[arg(help_heading = "Server", long, default_value = "valv-data")]
    pub(crate) data: PathBuf,
    /// Ask the server at this address instead, such as https://valv.example.org:9443.
    #[arg(help_heading = "Server", long, env = "VALV_SERVER")]
    pub(crate) server: Option<String>,
    /// The certificates (PEM) that the server's must come from.
    #[arg(help_heading = "Server", long, env = "VALV_CA")]
    pub(crate) ca: Option<PathBuf>,
    /// A file with your token in its first line. VALV_TOKEN holds the token itself.
    #[arg(help_heading = "Server", long, env = "VALV_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Your client certificate (PEM), instead of a token.
    #[arg(help_heading = "Server", long, env = "VALV_CLIENT_CERT", requires = "client_key")]
    pub(crate) client_cert: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(help_heading = "Server", long, env = "VALV_CLIENT_KEY", requires = "client_cert")]
    pub(crate) client_key: Option<PathBuf>,
}

/// A connection on which every call shows the caller's token, if there is one.
pub(crate) type Channel = InterceptedService<tonic::transport::Channel, ShowToken>;

/// Adds the caller's token to each call.
#[derive(Clone)]
pub(crate) struct ShowToken(Option<MetadataValue<Ascii>>);

impl Interceptor for ShowToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(bearer) = &self.0 {
            request.metadata_mut().insert("authorization", bearer.clone());
        }
        Ok(request)
    }
}

/// Where the socket lies in a data folder.
pub(crate) fn socket_path(data: &Path) -> PathBuf {
    data.join("admin.sock")
}

/// What the server said against it, in its words alone, with the fields that it names and what a caller who is not known can
/// do.
pub(crate) fn refused(status: Status) -> anyhow::Error {
    let mut said = status.message().to_owned();
    let fields = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
    for violated in fields.iter().filter(|violated| violated.description != status.message()) {
        said.push_str(&format!("\n  {}: {}", violated.field, violated.description));
    }
    if status.code() == Code::Unauthenticated {
        said.push_str(
            "\n(a token is shown with VALV_TOKEN or --token-file, a certificate with --client-cert and --client-key)",
        );
    }
    anyhow::anyhow!(said)
}

/// Connects to the service for disks, users and exports.
pub(crate) async fn connect(to: &ServerArg) -> anyhow::Result<AdminClient<Channel>> {
    Ok(AdminClient::new(channel(to).await?).max_decoding_message_size(ADMIN_MESSAGE_BYTES_MAX))
}

/// Connects to the server, for any of its services.
pub(crate) async fn channel(to: &ServerArg) -> anyhow::Result<Channel> {
    let show = ShowToken(token(to)?);
    let channel = match &to.server {
        None => local(&to.data).await?,
        Some(server) => network(server, to).await?,
    };
    Ok(InterceptedService::new(channel, show))
}

/// The caller's token, ready to be shown. It is not printed, whatever is wrong with it.
fn token(to: &ServerArg) -> anyhow::Result<Option<MetadataValue<Ascii>>> {
    let (token, source) = match (std::env::var(TOKEN_VARIABLE), &to.token_file) {
        (Ok(token), _) if !token.is_empty() => (zeroize::Zeroizing::new(token), TOKEN_VARIABLE.to_owned()),
        (_, Some(path)) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
            let text = zeroize::Zeroizing::new(text);
            let line = text.lines().next().unwrap_or_default().trim().to_owned();
            (zeroize::Zeroizing::new(line), path.display().to_string())
        }
        _ => return Ok(None),
    };
    if parse_token(&token).is_none() {
        bail!("{source} holds no token: one looks like valv-... and is made by `valv admin token create`");
    }
    let mut bearer: MetadataValue<Ascii> =
        format!("Bearer {}", *token).parse().with_context(|| format!("{source} holds no token"))?;
    bearer.set_sensitive(true);
    Ok(Some(bearer))
}

async fn local(data: &Path) -> anyhow::Result<tonic::transport::Channel> {
    let path = socket_path(data);
    let said = format!("no server answers at {}: is it running over this data folder?", path.display());
    over(move || UnixStream::connect(path.clone())).await.context(said)
}

async fn network(server: &str, to: &ServerArg) -> anyhow::Result<tonic::transport::Channel> {
    let address = Address::parse(server)?;
    let said = format!("no server answers at {server}");
    let (host, port) = (address.host.clone(), address.port);
    let tcp = move || {
        let host = host.clone();
        async move {
            let stream = TcpStream::connect((host.as_str(), port)).await?;
            stream.set_nodelay(true)?;
            Ok::<_, std::io::Error>(stream)
        }
    };
    if !address.is_tls {
        return over(tcp).await.context(said);
    }
    let Some(ca) = &to.ca else {
        bail!("--ca is needed with https: the certificates (PEM) that the server's must come from");
    };
    let pair = to.client_cert.as_deref().zip(to.client_key.as_deref());
    let connector = TlsConnector::from(Arc::new(tls::client_config(ca, pair)?));
    let name = rustls_pki_types::ServerName::try_from(address.host)
        .map_err(|_| anyhow::anyhow!("{server}: no certificate can be for this name"))?;
    let connected = over(move || {
        let (tcp, connector, name) = (tcp(), connector.clone(), name.clone());
        async move { connector.connect(name, tcp.await?).await }
    });
    connected.await.context(said)
}

/// A channel over whatever `connect` connects.
async fn over<C, F, IO>(connect: C) -> Result<tonic::transport::Channel, tonic::transport::Error>
where
    C: Fn() -> F + Send + 'static,
    F: Future<Output = std::io::Result<IO>> + Send + 'static,
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connector = tower::service_fn(move |_: Uri| {
        let connecting = connect();
        async move { connecting.await.map(TokioIo::new) }
    });
    // The URI only names the channel; the connector decides where it leads.
    let endpoint = Endpoint::from_static("http://admin.valv").connect_timeout(CONNECT_DEADLINE);
    endpoint.connect_with_connector(connector).await
}

/// A server's address as people write it.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    host: String,
    port: u16,
    is_tls: bool,
}

impl Address {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let wrong = || format!("{text:?} is no address such as https://valv.example.org:{DEFAULT_PORT}");
        let uri: Uri = text.parse().with_context(wrong)?;
        let host = uri.host().with_context(wrong)?.trim_matches(['[', ']']).to_owned();
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => bail!("{}", wrong()),
        };
        let is_this_machine = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        if !is_tls && !is_this_machine {
            bail!("{text}: only https leaves this machine: a token must not be sent over an open connection");
        }
        Ok(Self { host, port: uri.port_u16().unwrap_or(DEFAULT_PORT), is_tls })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, host, port, is_tls) in [
            ("https://valv.example.org", "valv.example.org", DEFAULT_PORT, true),
            ("https://10.0.0.1:1234", "10.0.0.1", 1234, true),
            ("https://[::1]:1234", "::1", 1234, true),
            ("http://127.0.0.1:1234", "127.0.0.1", 1234, false),
            ("http://localhost", "localhost", DEFAULT_PORT, false),
        ] {
            let expected = Address { host: host.to_owned(), port, is_tls };
            assert_eq!(Address::parse(text).unwrap(), expected, "{text}");
        }
        for text in ["valv.example.org", "http://valv.example.org", "http://10.0.0.1:9443", "ftp://x", "", "https://"] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }
}
