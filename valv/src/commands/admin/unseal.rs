//! `valv admin unseal` and `valv admin seal-status`: shares for a sealed server.

use crate::admin::{self, refused};
use crate::commands::DataArg;
use crate::commands::output::{print_fields, print_json};
use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use valv_proto::admin::v1::keys_client::KeysClient;
use valv_proto::admin::v1::{SealStatusReply, SealStatusRequest, SubmitShareRequest};
use zeroize::Zeroizing;

/// `valv admin unseal`.
#[derive(Debug, clap::Args)]
pub(crate) struct UnsealArgs {
    #[command(flatten)]
    data: DataArg,
    /// A file with one share. Without it, the share is read from standard input.
    #[arg(long, value_name = "FILE")]
    share_file: Vec<PathBuf>,
    /// Print JSON for scripts.
    #[arg(long)]
    json: bool,
}

/// `valv admin seal-status`.
#[derive(Debug, clap::Args)]
pub(crate) struct SealStatusArgs {
    #[command(flatten)]
    data: DataArg,
    /// Print JSON for scripts.
    #[arg(long)]
    json: bool,
}

/// Gives shares to the server.
pub(crate) async fn unseal(args: UnsealArgs) -> anyhow::Result<()> {
    let mut client = KeysClient::new(admin::channel(&args.data).await?);
    let mut shares = Vec::with_capacity(args.share_file.len().max(1));
    for path in &args.share_file {
        shares.push(crate::commands::key::read_share(path)?.to_text());
    }
    if shares.is_empty() {
        shares.push(typed_share()?);
    }
    let mut status = client.seal_status(SealStatusRequest {}).await.map_err(refused)?.into_inner();
    for share in shares {
        if !status.sealed {
            break;
        }
        let request = SubmitShareRequest { share: share.as_str().to_owned() };
        status = client.submit_share(request).await.map_err(refused)?.into_inner();
    }
    show(&status, args.json)
}

fn typed_share() -> anyhow::Result<Zeroizing<String>> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        eprint!("Share: ");
        std::io::stderr().flush()?;
    }
    let mut line = Zeroizing::new(String::new());
    stdin.lock().read_line(&mut line)?;
    Ok(Zeroizing::new(line.trim().to_owned()))
}

/// Says whether the server is sealed.
pub(crate) async fn status(args: SealStatusArgs) -> anyhow::Result<()> {
    let mut client = KeysClient::new(admin::channel(&args.data).await?);
    show(&client.seal_status(SealStatusRequest {}).await.map_err(refused)?.into_inner(), args.json)
}

fn show(status: &SealStatusReply, json: bool) -> anyhow::Result<()> {
    if json {
        return print_json(&serde_json::json!({
            "sealed": status.sealed, "method": status.method, "threshold": status.threshold,
            "shares_given": status.shares_given, "set": status.set, "root_version": status.root_version,
        }));
    }
    let (shares, version) = match status.sealed {
        true => {
            (format!("{} of {} given, of set {}", status.shares_given, status.threshold, status.set), String::new())
        }
        false => (String::new(), status.root_version.to_string()),
    };
    print_fields(&[
        ("state", if status.sealed { "sealed" } else { "open" }.to_owned()),
        ("root key", status.method.clone()),
        ("shares", shares),
        ("root key version", if version == "0" { String::new() } else { version }),
    ]);
    Ok(())
}
