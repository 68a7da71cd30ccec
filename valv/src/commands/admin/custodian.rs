//! `valv admin custodian`.

use crate::admin::{self, Channel, refused};
use crate::commands::DataArg;
use crate::commands::output::{confirm, day, print_fields, print_json, print_table};
use serde_json::{Value, json};
use valv_proto::admin::v1::custody_client::CustodyClient;
use valv_proto::admin::v1::*;

const ABOUT: &str = "\
A custodian is the organisation that runs hardware, under a contract. Each disk has one, and a date
until which it is guaranteed (`valv admin disk set`); `valv admin horizon` compares these dates with
what has to be kept for how long.

  valv admin custodian add 'University A, IT services' --contact storage@a.example --contract 'dnr 2026/7'
  valv admin disk set d0 d1 d2 --custodian 'University A, IT services' --guaranteed-until 2033-12-31

Every change is in the cluster's ledger: valv ledger export --cluster.";

/// `valv admin custodian ...`.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = ABOUT)]
pub(crate) enum CustodianCommand {
    /// Adds a custodian.
    Add(AddArgs),
    /// Lists all custodians.
    List(ListArgs),
    /// Changes what is said of a custodian.
    Change(ChangeArgs),
    /// Removes a custodian that has no disks any more.
    Remove(RemoveArgs),
}

/// `valv admin custodian add`.
#[derive(Debug, clap::Args)]
pub(crate) struct AddArgs {
    #[command(flatten)]
    data: DataArg,
    /// The organisation's name.
    organisation: String,
    /// Whom to call.
    #[arg(long, default_value = "", hide_default_value = true)]
    contact: String,
    /// The contract under which it runs hardware: a file number.
    #[arg(long, default_value = "", hide_default_value = true)]
    contract: String,
    /// Print JSON for scripts.
    #[arg(long)]
    json: bool,
}

/// `valv admin custodian list`.
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    data: DataArg,
    /// Print JSON for scripts.
    #[arg(long)]
    json: bool,
}

/// `valv admin custodian change`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub(crate) struct ChangeArgs {
    #[command(flatten)]
    data: DataArg,
    /// The organisation's name as it is, or the custodian's id.
    custodian: String,
    /// The organisation's new name.
    #[arg(long, group = "what")]
    organisation: Option<String>,
    /// Whom to call.
    #[arg(long, group = "what")]
    contact: Option<String>,
    /// The contract under which it runs hardware.
    #[arg(long, group = "what")]
    contract: Option<String>,
}

/// `valv admin custodian remove`.
#[derive(Debug, clap::Args)]
pub(crate) struct RemoveArgs {
    #[command(flatten)]
    data: DataArg,
    /// The organisation's name, or the custodian's id.
    custodian: String,
    /// Don't ask.
    #[arg(long)]
    yes: bool,
}

/// Runs the command.
pub(crate) async fn run(command: CustodianCommand) -> anyhow::Result<()> {
    match command {
        CustodianCommand::Add(args) => {
            let request = CreateCustodianRequest {
                organisation: args.organisation,
                contact: args.contact,
                contract: args.contract,
            };
            let made = connect(&args.data).await?.create_custodian(request).await.map_err(refused)?.into_inner();
            show(&made, args.json)
        }
        CustodianCommand::List(args) => {
            let mut client = connect(&args.data).await?;
            let all = client.list_custodians(ListCustodiansRequest {}).await.map_err(refused)?.into_inner().custodians;
            if args.json {
                return print_json(&all.iter().map(custodian_json).collect());
            }
            let row = |one: &Custodian| {
                let Custodian { organisation, contact, contract, disks, created_micros, .. } = one.clone();
                vec![organisation, contact, contract, disks.to_string(), day(created_micros)]
            };
            print_table(&["organisation", "contact", "contract", "disks", "since"], all.iter().map(row).collect());
            Ok(())
        }
        CustodianCommand::Change(args) => {
            let request = UpdateCustodianRequest {
                custodian: args.custodian,
                organisation: args.organisation,
                contact: args.contact,
                contract: args.contract,
            };
            let changed = connect(&args.data).await?.update_custodian(request).await.map_err(refused)?.into_inner();
            show(&changed, false)
        }
        CustodianCommand::Remove(args) => {
            confirm(&format!("removes custodian {}", args.custodian), &args.custodian, args.yes)?;
            let request = RemoveCustodianRequest { custodian: args.custodian.clone() };
            connect(&args.data).await?.remove_custodian(request).await.map_err(refused)?;
            println!("custodian {} is removed", args.custodian);
            Ok(())
        }
    }
}

/// The custody service of the server.
pub(super) async fn connect(data: &DataArg) -> anyhow::Result<CustodyClient<Channel>> {
    Ok(CustodyClient::new(admin::channel(data).await?).max_decoding_message_size(admin::ADMIN_MESSAGE_BYTES_MAX))
}

fn custodian_json(one: &Custodian) -> Value {
    json!({
        "id": one.id, "organisation": one.organisation, "contact": one.contact, "contract": one.contract,
        "disks": one.disks, "created_micros": one.created_micros,
    })
}

fn show(one: &Custodian, json: bool) -> anyhow::Result<()> {
    if json {
        return print_json(&custodian_json(one));
    }
    print_fields(&[
        ("custodian", one.organisation.clone()),
        ("id", one.id.clone()),
        ("contact", one.contact.clone()),
        ("contract", one.contract.clone()),
        ("disks", one.disks.to_string()),
        ("since", day(one.created_micros)),
    ]);
    Ok(())
}
