//! `valv admin disk`.

use super::custodian::connect;
use super::date;
use crate::admin::refused;
use crate::commands::DataArg;
use crate::commands::output::{day, print_json, print_table};
use serde_json::{Value, json};
use valv_proto::admin::v1::*;

const ABOUT: &str = "\
  valv admin disk set d0 d1 --custodian 'University A' --guaranteed-until 2033-12-31 --reason 'contract 7, § 4'
  valv admin disk set d0 --guaranteed-until 2036-12-31 --reason 'prolonged by letter of 2026-11-02'
  valv admin disk list

A date is its midnight in UTC. Every change is in the cluster's ledger: valv ledger export --cluster.";

/// `valv admin disk ...`.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = ABOUT)]
pub(crate) enum DiskCommand {
    /// Says who runs disks, until when they are guaranteed, or both.
    Set(SetArgs),
    /// Lists all disks with their custodians and guarantees.
    List(ListArgs),
}

/// `valv admin disk set`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub(crate) struct SetArgs {
    #[command(flatten)]
    data: DataArg,
    /// The disks: their names as `valv status` shows them, or their ids.
    #[arg(required = true)]
    disks: Vec<String>,
    /// The custodian: its organisation's name, or its id.
    #[arg(long, group = "what")]
    custodian: Option<String>,
    /// Until when they are guaranteed: a date (its midnight in UTC), or an RFC 3339 time.
    #[arg(long, group = "what")]
    guaranteed_until: Option<String>,
    /// What it rests on: a contract's number, a letter's date. For the ledger.
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

/// `valv admin disk list`.
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    data: DataArg,
    /// Print JSON for scripts.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) async fn run(command: DiskCommand) -> anyhow::Result<()> {
    match command {
        DiskCommand::Set(args) => set(args).await,
        DiskCommand::List(args) => {
            let mut client = connect(&args.data).await?;
            let disks = client.list_disk_custody(ListDiskCustodyRequest {}).await.map_err(refused)?.into_inner().disks;
            if args.json {
                return print_json(&disks.iter().map(disk_json).collect());
            }
            show(&disks);
            Ok(())
        }
    }
}

async fn set(args: SetArgs) -> anyhow::Result<()> {
    let guaranteed_until_micros = args.guaranteed_until.as_deref().map(date).transpose()?.map(|at| at.0);
    let mut client = connect(&args.data).await?;
    let mut changed = Vec::with_capacity(args.disks.len());
    for disk in args.disks {
        let request = SetDiskCustodyRequest {
            disk,
            custodian: args.custodian.clone(),
            guaranteed_until_micros,
            reason: args.reason.clone(),
        };
        changed.push(client.set_disk_custody(request).await.map_err(refused)?.into_inner());
    }
    show(&changed);
    Ok(())
}

fn disk_json(disk: &DiskCustody) -> Value {
    json!({
        "disk": disk.disk, "name": disk.name, "custodian": disk.custodian, "organisation": disk.organisation,
        "guaranteed_until_micros": disk.guaranteed_until_micros, "changed_micros": disk.changed_micros,
        "in_pool": disk.in_pool,
    })
}

fn show(disks: &[DiskCustody]) {
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let row = |disk: &DiskCustody| {
        let until = disk.guaranteed_until_micros.map_or_else(|| "not guaranteed".to_owned(), day);
        let changed = disk.changed_micros.map_or_else(|| "-".to_owned(), day);
        let pool = if disk.in_pool { "yes" } else { "no" };
        let name = if disk.name.is_empty() { &disk.disk } else { &disk.name };
        vec![name.clone(), or_dash(&disk.organisation), until, pool.to_owned(), changed]
    };
    print_table(&["disk", "custodian", "guaranteed until", "in a pool", "changed"], disks.iter().map(row).collect());
}
