//! `valv project opening`.

use crate::admin::{self, Channel, refused};
use crate::commands::DataArg;
use crate::commands::admin::date;
use crate::commands::output::{confirm, day, print_fields, print_json, print_table, time};
use anyhow::Context;
use serde_json::{Value, json};
use valv_proto::admin::v1::create_opening_request::To;
use valv_proto::admin::v1::openings_client::OpeningsClient;
use valv_proto::admin::v1::*;

const ABOUT_OPENINGS: &str = "\
Nobody but a project's members gets in, whatever bucket policies and ACLs say, unless the project's
controller makes an opening: for whom, to what, for which purpose, on which approval, until when.
Expiry and revocation take effect within five seconds, on transfers in flight, too. The bucket then
appears among the recipient's own, under its name or an alias; any S3 client reads it.

  valv project opening create cohort-7 --bucket ct-slices --to-project lung-group --action read --action list \\
      --purpose 'nodule detection' --reference 'ethics 2026-0117' --until 2028-05-31 \\
      --zone analysis-platform --budget 2TiB --alias cohort-7-ct
  valv project opening list cohort-7
  valv project opening revoke cohort-7 1f0c... --reason 'the group has finished'

Zones are networks that operators name (`valv admin zone list`): with one, data is read on the
platform and nowhere else, by presigned URLs neither.";

/// `valv project opening ...`.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = ABOUT_OPENINGS)]
pub(crate) enum OpeningCommand {
    /// Lets somebody in who is not a member.
    Create(Box<CreateArgs>),
    /// Lists a project's openings, newest first.
    List(ListArgs),
    /// Shows an opening.
    Show(ShowArgs),
    /// Ends an opening at once.
    Revoke(RevokeArgs),
    /// Proposes that one controller alone may make openings again, where the project has wanted two.
    OneController(OneControllerArgs),
}

/// `valv project opening create`.
#[derive(Debug, clap::Args)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    data: DataArg,
    /// The project whose data is opened.
    project: String,
    /// Its bucket. Without one all buckets are opened, now and in future, to those who share the project's namespace.
    #[arg(long, default_value = "", hide_default_value = true)]
    bucket: String,
    #[command(flatten)]
    to: ToArgs,
    /// What the recipient may do: read (objects, their attributes and tags), list (keys), write (new objects), delete.
    /// Repeatable.
    #[arg(long = "action", value_parser = ["read", "list", "write", "delete"], required_unless_present = "policies_decide")]
    actions: Vec<String>,
    /// Instead of actions: let the bucket's S3 policy and ACLs decide.
    #[arg(long, conflicts_with = "actions")]
    policies_decide: bool,
    /// Only keys that start with this.
    #[arg(long, default_value = "", hide_default_value = true)]
    prefix: String,
    /// What the recipient wants the data for.
    #[arg(long)]
    purpose: String,
    /// The approval that it rests on, such as a file number.
    #[arg(long)]
    reference: String,
    /// From when on, in RFC 3339 or as a date (00:00 UTC) [default: at once].
    #[arg(long = "from", value_parser = point_in_time)]
    start: Option<u64>,
    /// Until when, in RFC 3339 or as a date (00:00 UTC).
    #[arg(long, value_parser = point_in_time, required_unless_present = "policies_decide")]
    until: Option<u64>,
    /// A network zone from which it may be used; none: from everywhere. Repeatable.
    #[arg(long = "zone")]
    zones: Vec<String>,
    /// How many bytes may be read in all, such as 2TiB.
    #[arg(long, value_parser = size)]
    budget: Option<u64>,
    /// The bucket's name in the recipient's namespace [default: its own].
    #[arg(long, default_value = "", hide_default_value = true)]
    alias: String,
    /// Propose it for another controller to approve (`valv proposal approve`): where the project wants two people, the only
    /// way.
    #[arg(long)]
    propose: bool,
    /// Print JSON for scripts.
    #[arg(long)]
    json: bool,
}

/// `valv project opening one-controller`.
#[derive(Debug, clap::Args)]
pub(crate) struct OneControllerArgs {
    #[command(flatten)]
    data: DataArg,
    /// The project.
    project: String,
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

/// For whom.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct ToArgs {
    /// For a user.
    #[arg(long)]
    to_user: Option<String>,
    /// For everybody who acts in a project.
    #[arg(long)]
    to_project: Option<String>,
    /// For everybody, unsigned requests too; in the namespace of this name, or without one in the project's own.
    #[arg(long, num_args = 0..=1, default_missing_value = "")]
    to_public: Option<String>,
}

/// `valv project opening list`.
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    data: DataArg,
    /// The project.
    project: String,
    /// Those that are over, too.
    #[arg(long)]
    all: bool,
    /// Print JSON for scripts.
    #[arg(long)]
    json: bool,
}

/// `valv project opening show`.
#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    data: DataArg,
    /// The project.
    project: String,
    /// The opening's id.
    id: String,
    /// Print JSON for scripts.
    #[arg(long)]
    json: bool,
}

/// `valv project opening revoke`.
#[derive(Debug, clap::Args)]
pub(crate) struct RevokeArgs {
    #[command(flatten)]
    data: DataArg,
    /// The project.
    project: String,
    /// The opening's id.
    id: String,
    /// Why.
    #[arg(long)]
    reason: String,
    /// Don't ask.
    #[arg(long)]
    yes: bool,
    /// Print JSON for scripts.
    #[arg(long)]
    json: bool,
}

async fn connect(data: &DataArg) -> anyhow::Result<OpeningsClient<Channel>> {
    Ok(OpeningsClient::new(admin::channel(data).await?).max_decoding_message_size(admin::ADMIN_MESSAGE_BYTES_MAX))
}

/// Runs the command.
pub(crate) async fn run(command: OpeningCommand) -> anyhow::Result<()> {
    match command {
        OpeningCommand::Create(args) => create(*args).await,
        OpeningCommand::List(args) => list(args).await,
        OpeningCommand::Show(args) => {
            let request = GetOpeningRequest { project: args.project, id: args.id };
            let opening = connect(&args.data).await?.get_opening(request).await.map_err(refused)?.into_inner();
            print(&opening, args.json)
        }
        OpeningCommand::Revoke(args) => revoke(args).await,
        OpeningCommand::OneController(args) => one_controller(args).await,
    }
}

async fn create(args: CreateArgs) -> anyhow::Result<()> {
    let ToArgs { to_user, to_project, to_public } = args.to;
    let to = to_user.map(To::User).or(to_project.map(To::ToProject)).or(to_public.map(To::PublicNamespace));
    let request = CreateOpeningRequest {
        project: args.project,
        bucket: args.bucket,
        to,
        prefix: args.prefix.into_bytes().into(),
        actions: args.actions,
        policies_decide: args.policies_decide,
        purpose: args.purpose,
        reference: args.reference,
        start_micros: args.start.unwrap_or_default(),
        expiry_micros: args.until.unwrap_or_default(),
        zones: args.zones,
        budget_bytes: args.budget,
        alias: args.alias,
    };
    if args.propose {
        let proposal = connect(&args.data).await?.propose_opening(request).await.map_err(refused)?.into_inner();
        return crate::commands::proposal::show(&proposal, args.json);
    }
    let reply = connect(&args.data).await?.create_opening(request).await.map_err(refused)?.into_inner();
    print(&reply.opening.context("the server answered without an opening")?, args.json)
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let request = ListOpeningsRequest { project: args.project, with_ended: args.all };
    let reply = connect(&args.data).await?.list_openings(request).await.map_err(refused)?.into_inner();
    if args.json {
        return print_json(&reply.openings.iter().map(opening_json).collect());
    }
    let row = |opening: &Opening| {
        vec![
            opening.id.clone(),
            opening.state.clone(),
            recipient(opening),
            if opening.bucket.is_empty() { "(all)".to_owned() } else { opening.bucket.clone() },
            scope(opening),
            if opening.expiry_micros == 0 { String::new() } else { day(opening.expiry_micros) },
        ]
    };
    let titles = ["id", "state", "for", "bucket", "may", "until"];
    print_table(&titles, reply.openings.iter().map(row).collect());
    Ok(())
}

async fn one_controller(args: OneControllerArgs) -> anyhow::Result<()> {
    let request = ProposeOneControllerRequest { project: args.project, reason: args.reason, reference: args.reference };
    let proposal = connect(&args.data).await?.propose_one_controller(request).await.map_err(refused)?.into_inner();
    crate::commands::proposal::show(&proposal, args.json)
}

async fn revoke(args: RevokeArgs) -> anyhow::Result<()> {
    confirm("ends the opening for good, and every transfer by it", &args.id, args.yes)?;
    let request = RevokeOpeningRequest { project: args.project, id: args.id, reason: args.reason };
    let opening = connect(&args.data).await?.revoke_opening(request).await.map_err(refused)?.into_inner();
    print(&opening, args.json)
}

/// A time in RFC 3339, or a date, which means its first moment in UTC.
fn point_in_time(text: &str) -> Result<u64, String> {
    date(text).map(|time| time.0).map_err(|error| error.to_string())
}

/// A number of bytes.
fn size(text: &str) -> Result<u64, String> {
    crate::config::parse_bytes(text).ok_or_else(|| "a size looks like 2TiB, 500GB or 1048576".to_owned())
}

fn recipient(opening: &Opening) -> String {
    match (opening.recipient_kind.as_str(), opening.recipient.as_str()) {
        ("public", "") => "the public".to_owned(),
        ("public", namespace) => format!("the public in {namespace}"),
        (kind, name) => format!("{kind} {name}"),
    }
}

fn scope(opening: &Opening) -> String {
    if opening.policies_decide { "what policies say".to_owned() } else { opening.actions.join(", ") }
}

fn or_empty(micros: u64) -> String {
    if micros == 0 { String::new() } else { time(micros) }
}

fn print(opening: &Opening, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return print_json(&opening_json(opening));
    }
    let budget = opening.budget_bytes.map(|budget| format!("{} of {budget} bytes drawn", opening.drawn_bytes));
    print_fields(&[
        ("opening", opening.id.clone()),
        ("state", opening.state.clone()),
        ("for", recipient(opening)),
        ("bucket", if opening.bucket.is_empty() { "(all)".to_owned() } else { opening.bucket.clone() }),
        ("appears as", opening.alias.clone()),
        ("keys under", String::from_utf8_lossy(&opening.prefix).into_owned()),
        ("may", scope(opening)),
        ("purpose", opening.purpose.clone()),
        ("reference", opening.reference.clone()),
        ("from", time(opening.start_micros)),
        ("until", or_empty(opening.expiry_micros)),
        ("zones", opening.zones.join(", ")),
        ("budget", budget.unwrap_or_default()),
        ("decided by", opening.deciders.join(", ")),
        ("revoked", or_empty(opening.revoked_micros)),
        ("because", opening.revoked_because.clone()),
    ]);
    Ok(())
}

fn opening_json(opening: &Opening) -> Value {
    let micros = |micros: u64| if micros == 0 { Value::Null } else { json!(micros) };
    json!({
        "id": opening.id,
        "state": opening.state,
        "recipient": { "kind": opening.recipient_kind, "name": opening.recipient },
        "bucket": opening.bucket,
        "alias": opening.alias,
        "prefix": String::from_utf8_lossy(&opening.prefix),
        "actions": opening.actions,
        "policies_decide": opening.policies_decide,
        "purpose": opening.purpose,
        "reference": opening.reference,
        "start_micros": opening.start_micros,
        "expiry_micros": micros(opening.expiry_micros),
        "zones": opening.zones,
        "budget_bytes": opening.budget_bytes,
        "drawn_bytes": opening.drawn_bytes,
        "created_micros": opening.created_micros,
        "deciders": opening.deciders,
        "revoked_micros": micros(opening.revoked_micros),
        "revoked_because": opening.revoked_because,
        "configured": opening.configured,
    })
}

#[cfg(test)]
mod tests {
    use super::point_in_time;

    #[test]
    fn times_are_dates_or_moments() {
        assert_eq!(point_in_time("1970-01-02"), Ok(86_400_000_000));
        assert_eq!(point_in_time("1970-01-02T00:00:01Z"), Ok(86_401_000_000));
        assert!(point_in_time("tomorrow").is_err() && point_in_time("2028-13-01").is_err());
    }
}
