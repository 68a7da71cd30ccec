//! `valv admin key`: the root key of a running server.

use crate::admin::{self, refused};
use crate::commands::DataArg;
use valv_proto::admin::v1::RotateRootKeyRequest;
use valv_proto::admin::v1::keys_client::KeysClient;

/// `valv admin key ...`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum AdminKeyCommand {
    /// Replaces the root key while the server runs. Every other key is wrapped anew; no data is touched.
    ///
    /// The key store's and the root key's backups from before open nothing of what is made later: take a key backup
    /// (`valv key backup`) afterwards.
    Rotate(RotateArgs),
}

/// `valv admin key rotate`.
#[derive(Debug, clap::Args)]
pub(crate) struct RotateArgs {
    #[command(flatten)]
    data: DataArg,
    /// Replace the root key. (A project's key: `valv project key rotate`.)
    #[arg(long, required = true)]
    root: bool,
}

/// Runs the command.
pub(crate) async fn run(command: AdminKeyCommand) -> anyhow::Result<()> {
    let AdminKeyCommand::Rotate(args) = command;
    debug_assert!(args.root);
    let mut client = KeysClient::new(admin::channel(&args.data).await?);
    let reply = client.rotate_root_key(RotateRootKeyRequest {}).await;
    let reply = reply.map_err(refused)?.into_inner();
    println!("the root key is of version {} now: take a key backup", reply.root_version);
    Ok(())
}
