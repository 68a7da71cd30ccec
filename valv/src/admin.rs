//! The admin service on its Unix socket, and the commands' way to it.
//!
//! The socket lies in the data folder with mode 0600: whoever may read the data folder's keys may ask, nobody else.

use anyhow::Context;
use hyper_util::rt::TokioIo;
use std::path::{Path, PathBuf};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use valv_proto::admin::v1::admin_client::AdminClient;

/// Where the socket lies in a data folder.
pub(crate) fn socket_path(data: &Path) -> PathBuf {
    data.join("admin.sock")
}

/// Connects to the server that runs over `data`.
pub(crate) async fn connect(data: &Path) -> anyhow::Result<AdminClient<Channel>> {
    Ok(AdminClient::new(channel(data).await?).max_decoding_message_size(ADMIN_MESSAGE_BYTES_MAX))
}

/// The same, for the clients of the other services.
pub(crate) async fn channel(data: &Path) -> anyhow::Result<Channel> {
    let path = socket_path(data);
    let connector = {
        let path = path.clone();
        tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        })
    };
    // The URI only names the channel; the connector decides where it leads.
    Endpoint::from_static("http://admin.valv")
        .connect_with_connector(connector)
        .await
        .with_context(|| format!("no server answers at {}: is it running over this data folder?", path.display()))
}

/// Exported lines travel in pieces of at most 1 MiB; a status is far smaller.
pub(crate) const ADMIN_MESSAGE_BYTES_MAX: usize = 4 << 20;
