//! `valv admin zone`.

use crate::admin::{self, Channel, refused};
use crate::commands::DataArg;
use crate::commands::output::{confirm, day, print_json, print_table};
use serde_json::{Value, json};
use valv_proto::admin::v1::openings_client::OpeningsClient;
use valv_proto::admin::v1::*;

const ABOUT_ZONES: &str = "\
A zone is a name for networks. An opening may be bound to zones: then it works only from there, by
presigned URLs, too. What counts is the address of the socket's peer or, behind the proxies that the
server's configuration trusts (gateway.trusted_proxies), the one that they forward.

  valv admin zone set analysis-platform 10.20.0.0/16 2001:db8:20::/48
  valv admin zone list

Setting a zone again replaces its networks: openings that name it follow within five seconds.";

/// `valv admin zone ...`.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = ABOUT_ZONES)]
pub(crate) enum ZoneCommand {
    /// Makes a zone, or replaces its networks.
    Set(SetArgs),
    /// Lists all zones.
    List(ListArgs),
    /// Removes a zone: openings that name it let nobody in through it any more.
    Remove(RemoveArgs),
}

/// `valv admin zone set`.
#[derive(Debug, clap::Args)]
pub(crate) struct SetArgs {
    #[command(flatten)]
    data: DataArg,
    /// Its name.
    name: String,
    /// Its networks, such as 10.20.0.0/16; an address alone is a network of one.
    #[arg(required = true)]
    networks: Vec<String>,
    /// Print JSON for scripts.
    #[arg(long)]
    json: bool,
}

/// `valv admin zone list`.
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    data: DataArg,
    /// Print JSON for scripts.
    #[arg(long)]
    json: bool,
}

/// `valv admin zone remove`.
#[derive(Debug, clap::Args)]
pub(crate) struct RemoveArgs {
    #[command(flatten)]
    data: DataArg,
    /// Its name.
    name: String,
    /// Don't ask.
    #[arg(long)]
    yes: bool,
}

async fn connect(data: &DataArg) -> anyhow::Result<OpeningsClient<Channel>> {
    Ok(OpeningsClient::new(admin::channel(data).await?).max_decoding_message_size(admin::ADMIN_MESSAGE_BYTES_MAX))
}

/// Runs the command.
pub(crate) async fn run(command: ZoneCommand) -> anyhow::Result<()> {
    match command {
        ZoneCommand::Set(args) => {
            let request = SetZoneRequest { name: args.name, blocks: args.networks };
            let zone = connect(&args.data).await?.set_zone(request).await.map_err(refused)?.into_inner();
            show(&[zone], args.json)
        }
        ZoneCommand::List(args) => {
            let reply = connect(&args.data).await?.list_zones(ListZonesRequest {}).await.map_err(refused)?;
            show(&reply.into_inner().zones, args.json)
        }
        ZoneCommand::Remove(args) => {
            confirm("shuts out everybody who comes in through this zone", &args.name, args.yes)?;
            let request = RemoveZoneRequest { name: args.name };
            connect(&args.data).await?.remove_zone(request).await.map_err(refused)?;
            Ok(())
        }
    }
}

fn show(zones: &[Zone], as_json: bool) -> anyhow::Result<()> {
    if as_json {
        let one = |zone: &Zone| json!({ "name": zone.name, "networks": zone.blocks, "set_micros": zone.set_micros });
        return print_json(&zones.iter().map(one).collect::<Value>());
    }
    let row = |zone: &Zone| vec![zone.name.clone(), zone.blocks.join(" "), day(zone.set_micros)];
    print_table(&["zone", "networks", "since"], zones.iter().map(row).collect());
    Ok(())
}
