//! `valv project disposal`.

use crate::admin;
use crate::commands::output::{day, print_fields, print_json, print_table, time};
use crate::commands::{DataArg, create_private};
use anyhow::Context;
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;
use valv_proto::admin::v1::retention_client::RetentionClient;
use valv_proto::admin::v1::{DisposalMessage, GetDisposalRequest, ListDisposalsRequest, ProposeDisposalRequest};

const ABOUT_DISPOSAL: &str = "\
Nothing of a project with a minimum retention ends silently. A controller has a list made of what is past
its retention; another controller or a steward looks at it and approves; then each version is judged once
more, removed, and recorded; and a signed receipt says what became of the list.

  valv project disposal propose cohort-7 --bucket images --reason 'end of study' --reference 'board 4/2036'
  valv project disposal show cohort-7 5f0c... --list list.jsonl
  valv project disposal receipt cohort-7 5f0c... --out receipt.jsonl

Another person approves the proposal, which has the same id. Removed versions wait in the trash as any
others do.";

/// `valv project disposal ...`.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = ABOUT_DISPOSAL)]
pub(crate) enum DisposalCommand {
    /// Lists what is past its retention in a bucket or under a prefix, and proposes its disposal.
    Propose(ProposeArgs),
    /// Shows a disposal and how far it is.
    Show(ShowArgs),
    /// Lists a project's disposals, newest first.
    List(ListArgs),
    /// Writes the signed receipt of a disposal that is done.
    Receipt(ReceiptArgs),
}

/// `valv project disposal propose`.
#[derive(Debug, clap::Args)]
pub(crate) struct ProposeArgs {
    #[command(flatten)]
    data: DataArg,
    /// The project's name.
    project: String,
    /// The bucket.
    #[arg(long)]
    bucket: String,
    /// Only keys that begin with this.
    #[arg(long, default_value = "")]
    prefix: String,
    /// Why.
    #[arg(long)]
    reason: String,
    /// The decision that it rests on.
    #[arg(long)]
    reference: String,
    /// Print JSON for scripts.
    #[arg(long)]
    json: bool,
}

/// `valv project disposal show`.
#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    data: DataArg,
    /// The project's name.
    project: String,
    /// The disposal.
    disposal: String,
    /// Also write what is on its list to this file (JSON Lines); it must not exist.
    #[arg(long)]
    list: Option<PathBuf>,
    /// Print JSON for scripts.
    #[arg(long)]
    json: bool,
}

/// `valv project disposal list`.
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    data: DataArg,
    /// The project's name.
    project: String,
    /// Print JSON for scripts.
    #[arg(long)]
    json: bool,
}

/// `valv project disposal receipt`.
#[derive(Debug, clap::Args)]
pub(crate) struct ReceiptArgs {
    #[command(flatten)]
    data: DataArg,
    /// The project's name.
    project: String,
    /// The disposal.
    disposal: String,
    /// The file to write; it must not exist. `valv statement verify` checks it.
    #[arg(long)]
    out: PathBuf,
}

fn disposal_json(disposal: &DisposalMessage) -> Value {
    let moment = |micros: u64| (micros > 0).then(|| time(micros));
    json!({
        "id": disposal.id,
        "bucket": disposal.bucket,
        "prefix": String::from_utf8_lossy(&disposal.prefix),
        "state": disposal.state,
        "proposer": disposal.proposer,
        "proposed": time(disposal.proposed_micros),
        "reason": disposal.reason,
        "reference": disposal.reference,
        "versions": disposal.versions,
        "bytes": disposal.bytes,
        "kept": disposal.kept,
        "sha256": hex::encode(&disposal.digest),
        "retention_ended": moment(disposal.retention_ended_micros),
        "deciders": disposal.deciders,
        "removed": disposal.removed,
        "removed_bytes": disposal.removed_bytes,
        "refused": disposal.refused,
        "gone": disposal.gone,
        "delete_markers": disposal.markers,
        "ended": moment(disposal.ended_micros),
    })
}

fn print_disposal(disposal: &DisposalMessage) {
    let moment = |micros: u64| if micros > 0 { time(micros) } else { String::new() };
    let shown = |text: &str| text.escape_debug().to_string();
    let mut fields = vec![
        ("disposal", disposal.id.clone()),
        ("state", disposal.state.clone()),
        ("bucket", disposal.bucket.clone()),
        ("prefix", shown(&String::from_utf8_lossy(&disposal.prefix))),
        ("reason", shown(&disposal.reason)),
        ("reference", shown(&disposal.reference)),
        ("proposed by", disposal.proposer.clone()),
        ("proposed", time(disposal.proposed_micros)),
        ("on the list", format!("{} versions, {} bytes", disposal.versions, disposal.bytes)),
        ("kept there", format!("{} versions under retention or hold", disposal.kept)),
        ("retention ended", moment(disposal.retention_ended_micros)),
        ("list SHA-256", hex::encode(&disposal.digest)),
        ("decided by", disposal.deciders.join(", ")),
    ];
    if matches!(disposal.state.as_str(), "approved" | "done") {
        fields.extend([
            ("removed", format!("{} versions, {} bytes", disposal.removed, disposal.removed_bytes)),
            ("refused", format!("{} versions, protected when their turn came", disposal.refused)),
            ("gone before", disposal.gone.to_string()),
            ("delete markers", disposal.markers.to_string()),
            ("ended", moment(disposal.ended_micros)),
        ]);
    }
    print_fields(&fields);
}

/// Runs the command.
pub(super) async fn run(command: DisposalCommand) -> anyhow::Result<()> {
    match command {
        DisposalCommand::Propose(args) => {
            let mut client = RetentionClient::new(admin::channel(&args.data).await?);
            let request = ProposeDisposalRequest {
                project: args.project,
                bucket: args.bucket,
                prefix: args.prefix.into_bytes().into(),
                reason: args.reason,
                reference: args.reference,
            };
            let disposal = client.propose_disposal(request).await.map_err(admin::refused)?.into_inner();
            if args.json {
                return print_json(&disposal_json(&disposal));
            }
            print_disposal(&disposal);
            println!("\nanother controller or a steward approves proposal {}", disposal.id);
        }
        DisposalCommand::Show(args) => {
            let mut client = RetentionClient::new(admin::channel(&args.data).await?);
            let request = GetDisposalRequest { project: args.project, disposal: args.disposal };
            let disposal = client.get_disposal(request.clone()).await.map_err(admin::refused)?.into_inner();
            if let Some(path) = &args.list {
                let mut pages = client.list_disposal_entries(request).await.map_err(admin::refused)?.into_inner();
                let writing = || format!("writing {}", path.display());
                let mut file = create_private(path).with_context(|| format!("creating {}", path.display()))?;
                while let Some(page) = pages.message().await.context("the list broke off: the file is incomplete")? {
                    file.write_all(&page.json_lines).with_context(writing)?;
                }
                file.sync_all().with_context(writing)?;
            }
            if args.json {
                return print_json(&disposal_json(&disposal));
            }
            print_disposal(&disposal);
        }
        DisposalCommand::List(args) => {
            let mut client = RetentionClient::new(admin::channel(&args.data).await?);
            let request = ListDisposalsRequest { project: args.project };
            let disposals = client.list_disposals(request).await.map_err(admin::refused)?.into_inner().disposals;
            if args.json {
                return print_json(&disposals.iter().map(disposal_json).collect());
            }
            let rows = disposals.iter().map(|disposal| {
                vec![
                    disposal.id.clone(),
                    disposal.state.clone(),
                    disposal.bucket.clone(),
                    day(disposal.proposed_micros),
                    disposal.versions.to_string(),
                    disposal.removed.to_string(),
                    disposal.reference.escape_debug().to_string(),
                ]
            });
            print_table(&["DISPOSAL", "STATE", "BUCKET", "PROPOSED", "LISTED", "REMOVED", "REFERENCE"], rows.collect());
        }
        DisposalCommand::Receipt(args) => {
            let mut client = RetentionClient::new(admin::channel(&args.data).await?);
            let request = GetDisposalRequest { project: args.project, disposal: args.disposal };
            let receipt = client.get_disposal_receipt(request).await.map_err(admin::refused)?.into_inner();
            let mut file = create_private(&args.out).with_context(|| format!("creating {}", args.out.display()))?;
            file.write_all(receipt.line.as_bytes())
                .and_then(|()| file.sync_all())
                .with_context(|| format!("writing {}", args.out.display()))?;
            println!("{} holds the receipt; `valv statement verify` checks it", args.out.display());
        }
    }
    Ok(())
}
