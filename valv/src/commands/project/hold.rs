//! `valv project hold`.

use crate::admin;
use crate::commands::DataArg;
use crate::commands::output::{day, print_json, print_table, time};
use serde_json::{Value, json};
use valv_proto::admin::v1::retention_client::RetentionClient;
use valv_proto::admin::v1::{LegalHold, ListHoldsRequest, ReleaseHoldRequest, SetHoldRequest};

const ABOUT_HOLDS: &str = "\
A legal hold keeps what there is and what will be, for as long as it stands, whatever its retention says:
nothing that it covers is removed, overwritten, expired or purged, by anybody. Each is in the ledger.

  valv project hold set cohort-7 --reason 'inquiry' --reference 'court 12/2031'
  valv project hold set cohort-7 --bucket images --prefix patient-17/ --reason ... --reference ...
  valv project hold list cohort-7
  valv project hold release cohort-7 5f0c... --reason 'inquiry closed 2032-04-01'";

/// `valv project hold ...`.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = ABOUT_HOLDS)]
pub(crate) enum HoldCommand {
    /// Sets a legal hold on a project, a bucket or a prefix.
    Set(SetArgs),
    /// Releases one.
    Release(ReleaseArgs),
    /// Lists those that stand.
    List(ListArgs),
}

/// `valv project hold set`.
#[derive(Debug, clap::Args)]
pub(crate) struct SetArgs {
    #[command(flatten)]
    data: DataArg,
    /// The project's name.
    project: String,
    /// Only this bucket.
    #[arg(long, default_value = "")]
    bucket: String,
    /// Only keys that begin with this.
    #[arg(long, default_value = "", requires = "bucket")]
    prefix: String,
    /// Why.
    #[arg(long)]
    reason: String,
    /// The decision behind it: a file number, a court's order.
    #[arg(long)]
    reference: String,
    /// Print JSON for scripts.
    #[arg(long)]
    json: bool,
}

/// `valv project hold release`.
#[derive(Debug, clap::Args)]
pub(crate) struct ReleaseArgs {
    #[command(flatten)]
    data: DataArg,
    /// The project's name.
    project: String,
    /// The hold, as `list` shows it.
    hold: String,
    /// Why, and the decision behind it.
    #[arg(long)]
    reason: String,
    /// Print JSON for scripts.
    #[arg(long)]
    json: bool,
}

/// `valv project hold list`.
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

fn hold_json(hold: &LegalHold) -> Value {
    json!({
        "id": hold.id,
        "bucket": (!hold.bucket.is_empty()).then_some(&hold.bucket),
        "prefix": String::from_utf8_lossy(&hold.prefix),
        "set": time(hold.set_micros),
        "by": (!hold.by.is_empty()).then_some(&hold.by),
        "reason": hold.reason,
        "reference": hold.reference,
    })
}

/// What it covers, for people.
fn covers(hold: &LegalHold) -> String {
    match (hold.bucket.is_empty(), hold.prefix.is_empty()) {
        (true, _) => "the project".to_owned(),
        (false, true) => hold.bucket.clone(),
        (false, false) => format!("{}/{}*", hold.bucket, String::from_utf8_lossy(&hold.prefix).escape_debug()),
    }
}

/// Runs the command.
pub(super) async fn run(command: HoldCommand) -> anyhow::Result<()> {
    match command {
        HoldCommand::Set(args) => {
            let mut client = RetentionClient::new(admin::channel(&args.data).await?);
            let request = SetHoldRequest {
                project: args.project,
                bucket: args.bucket,
                prefix: args.prefix.into_bytes().into(),
                reason: args.reason,
                reference: args.reference,
            };
            let hold = client.set_hold(request).await.map_err(admin::refused)?.into_inner();
            if args.json {
                return print_json(&hold_json(&hold));
            }
            println!("hold {} keeps {}", hold.id, covers(&hold));
        }
        HoldCommand::Release(args) => {
            let mut client = RetentionClient::new(admin::channel(&args.data).await?);
            let request = ReleaseHoldRequest { project: args.project, hold: args.hold, reason: args.reason };
            let hold = client.release_hold(request).await.map_err(admin::refused)?.into_inner();
            if args.json {
                return print_json(&hold_json(&hold));
            }
            println!("hold {} is released; it kept {}", hold.id, covers(&hold));
        }
        HoldCommand::List(args) => {
            let mut client = RetentionClient::new(admin::channel(&args.data).await?);
            let request = ListHoldsRequest { project: args.project };
            let holds = client.list_holds(request).await.map_err(admin::refused)?.into_inner().holds;
            if args.json {
                return print_json(&holds.iter().map(hold_json).collect());
            }
            let rows = holds.iter().map(|hold| {
                let shown = |text: &str| text.escape_debug().to_string();
                vec![
                    hold.id.clone(),
                    covers(hold),
                    day(hold.set_micros),
                    hold.by.clone(),
                    shown(&hold.reference),
                    shown(&hold.reason),
                ]
            });
            print_table(&["HOLD", "KEEPS", "SINCE", "BY", "REFERENCE", "REASON"], rows.collect());
        }
    }
    Ok(())
}
