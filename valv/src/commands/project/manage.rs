//! `valv project create`, `list`, `show`, `update`, `govern` and `member`.

use crate::admin::{self, Channel, refused};
use crate::commands::DataArg;
use crate::commands::output::{confirm, day, print_fields, print_json, print_table, time};
use anyhow::bail;
use serde_json::{Value, json};
use valv_gateway::http_date;
use valv_proto::admin::v1::projects_client::ProjectsClient;
use valv_proto::admin::v1::*;

const ABOUT_CREATE: &str = "\
An operator makes a project and names its first controller. From then on the controllers alone say
who is a member, and as what; operators can't make themselves one.

  valv user add --name ada --project welcome
  valv project create cohort-7 --controller ada --quota-bytes 20T --paid-until 2036-12-31
  valv user key add ada --project cohort-7     ada's first access key there
  valv admin token create --user ada           and ada's first token";

const ABOUT_MEMBERS: &str = "\
Roles add up. A change takes effect everywhere within 3 seconds, on running transfers too.

  controller  answers for the data: members, openings, retention, disposal, and all that follows
  steward     reads and writes, changes buckets' settings, brings back from the trash
  depositor   brings data in, and lists it; reads no contents and removes nothing
  reader      reads and lists
  auditor     reads the ledger, usage and reports; no object

  valv project member add cohort-7 bo --role depositor --role reader
  valv project member list cohort-7
  valv project member remove cohort-7 bo";

/// `valv project create`.
#[derive(Debug, clap::Args)]
#[command(after_help = ABOUT_CREATE)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    data: DataArg,
    /// The project's name.
    name: String,
    /// The user who becomes its first controller.
    #[arg(long)]
    controller: String,
    /// A namespace to share with other projects [default: one of its own].
    #[arg(long, default_value = "", hide_default_value = true)]
    namespace: String,
    #[command(flatten)]
    properties: PropertyArgs,
    /// Print JSON for scripts.
    #[arg(long)]
    json: bool,
}

/// What can be said of a project.
#[derive(Debug, clap::Args)]
pub(crate) struct PropertyArgs {
    /// The organisation that answers for the data. A controller's to change.
    #[arg(long)]
    organisation: Option<String>,
    /// Whom to ask there. A controller's to change.
    #[arg(long)]
    contact: Option<String>,
    /// Where the legal basis is on file. A controller's to change.
    #[arg(long)]
    legal_basis: Option<String>,
    /// Where the ethics approval is on file. A controller's to change.
    #[arg(long)]
    ethics_approval: Option<String>,
    /// Anything else. A controller's to change.
    #[arg(long)]
    note: Option<String>,
    /// The pool of buckets made from now on. An operator's to change.
    #[arg(long)]
    pool: Option<u32>,
    /// How many bytes it may hold, such as 500G or 20T (powers of 1024); `none` for no bound. An operator's to change.
    #[arg(long, value_parser = parse_bound)]
    quota_bytes: Option<Bound>,
    /// How many object versions it may hold; `none` for no bound. An operator's to change.
    #[arg(long, value_parser = parse_bound)]
    quota_objects: Option<Bound>,
    /// Until when it is paid for: a date (2036-12-31, to its end) or a time in RFC 3339; `none` for no end. From then on it is
    /// read-only. An operator's to change.
    #[arg(long, value_parser = parse_until)]
    paid_until: Option<Until>,
    /// Have a second controller approve each opening from now on. A controller's to say; it takes two to take it back
    /// (`valv project opening one-controller`).
    #[arg(long)]
    two_person_openings: bool,
}

/// A bound, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bound(Option<u64>);

/// A time in microseconds, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Until(Option<u64>);

fn parse_bound(text: &str) -> Result<Bound, String> {
    if text == "none" {
        return Ok(Bound(None));
    }
    let wrong = || format!("{text:?} is no number such as 1000, 500G or 20T");
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'K')) => (&text[..at], 10),
        Some((at, 'M')) => (&text[..at], 20),
        Some((at, 'G')) => (&text[..at], 30),
        Some((at, 'T')) => (&text[..at], 40),
        Some((at, 'P')) => (&text[..at], 50),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).map(|number| Bound(Some(number))).ok_or_else(wrong)
}

fn parse_until(text: &str) -> Result<Until, String> {
    const MICROS_PER_DAY: u64 = 24 * 60 * 60 * 1_000_000;
    if text == "none" {
        return Ok(Until(None));
    }
    let wrong = || format!("{text:?} is no date such as 2036-12-31, nor a time such as 2036-12-31T12:00:00Z");
    if text.len() == 10 {
        let midnight = http_date::parse_iso8601(&format!("{text}T00:00:00Z")).ok_or_else(wrong)?;
        return Ok(Until(Some(midnight.0 + MICROS_PER_DAY)));
    }
    http_date::parse_iso8601(text).map(|time| Until(Some(time.0))).ok_or_else(wrong)
}

impl PropertyArgs {
    /// The changes that were named. A quota that is changed in one of its halves keeps the other one of `before`.
    fn changes(self, before: Option<&Project>) -> ProjectChanges {
        let quota = (self.quota_bytes.is_some() || self.quota_objects.is_some()).then(|| Quota {
            bytes: self.quota_bytes.map_or_else(|| before.and_then(|project| project.quota_bytes), |bound| bound.0),
            objects: self
                .quota_objects
                .map_or_else(|| before.and_then(|project| project.quota_objects), |bound| bound.0),
        });
        ProjectChanges {
            organisation: self.organisation,
            contact: self.contact,
            legal_basis: self.legal_basis,
            ethics_approval: self.ethics_approval,
            note: self.note,
            pool: self.pool,
            quota,
            paid_until: self.paid_until.map(|until| PaidUntil { micros: until.0 }),
            two_person_openings: self.two_person_openings.then_some(true),
        }
    }
}

/// `valv project list`.
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    data: DataArg,
    /// Print JSON for scripts.
    #[arg(long)]
    json: bool,
}

/// `valv project show`.
#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    data: DataArg,
    /// The project's name.
    name: String,
    /// Print JSON for scripts.
    #[arg(long)]
    json: bool,
}

/// `valv project update`.
#[derive(Debug, clap::Args)]
pub(crate) struct UpdateArgs {
    #[command(flatten)]
    data: DataArg,
    /// The project's name.
    name: String,
    #[command(flatten)]
    properties: PropertyArgs,
    /// Print JSON for scripts.
    #[arg(long)]
    json: bool,
}

/// `valv project govern`.
#[derive(Debug, clap::Args)]
pub(crate) struct GovernArgs {
    #[command(flatten)]
    data: DataArg,
    /// The project's name.
    name: String,
    /// The user who becomes its first controller.
    #[arg(long)]
    controller: String,
    /// Don't ask.
    #[arg(long)]
    yes: bool,
    /// Print JSON for scripts.
    #[arg(long)]
    json: bool,
}

/// `valv project member ...`.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = ABOUT_MEMBERS)]
pub(crate) enum MemberCommand {
    /// Makes a user a member, or gives a member other roles.
    Add(MemberAddArgs),
    /// Ends a membership. Members may remove themselves; the last controller stays.
    Remove(MemberRemoveArgs),
    /// Lists members and their roles.
    List(ShowArgs),
}

/// `valv project member add`.
#[derive(Debug, clap::Args)]
pub(crate) struct MemberAddArgs {
    #[command(flatten)]
    data: DataArg,
    /// The project's name.
    name: String,
    /// The user's name.
    user: String,
    /// A role; may be given several times. These are all roles that the member has from now on.
    #[arg(long, required = true)]
    role: Vec<String>,
    /// Print JSON for scripts.
    #[arg(long)]
    json: bool,
}

/// `valv project member remove`.
#[derive(Debug, clap::Args)]
pub(crate) struct MemberRemoveArgs {
    #[command(flatten)]
    data: DataArg,
    /// The project's name.
    name: String,
    /// The user's name.
    user: String,
}

async fn connect(data: &DataArg) -> anyhow::Result<ProjectsClient<Channel>> {
    Ok(ProjectsClient::new(admin::channel(data).await?).max_decoding_message_size(admin::ADMIN_MESSAGE_BYTES_MAX))
}

/// Makes a project.
pub(super) async fn create(args: CreateArgs) -> anyhow::Result<()> {
    let request = CreateProjectRequest {
        name: args.name,
        namespace: args.namespace,
        controller: args.controller,
        properties: Some(args.properties.changes(None)),
    };
    let made = connect(&args.data).await?.create_project(request).await.map_err(refused)?.into_inner();
    print_project(&made, args.json)
}

/// Lists projects.
pub(super) async fn list(args: ListArgs) -> anyhow::Result<()> {
    let mut client = connect(&args.data).await?;
    let mut projects: Vec<Project> = Vec::new();
    loop {
        let after = projects.last().map(|project| project.name.clone()).unwrap_or_default();
        let page = client.list_projects(ListProjectsRequest { after }).await.map_err(refused)?.into_inner().projects;
        if page.is_empty() {
            break;
        }
        projects.extend(page);
    }
    if args.json {
        return print_json(&projects.iter().map(project_json).collect());
    }
    let row = |project: &Project| {
        let organisation = project.details.as_ref().map(|details| details.organisation.clone()).unwrap_or_default();
        let governed = if project.governed_micros.is_some() { "governed" } else { "ungoverned" };
        let paid = project.paid_until_micros.map(day).unwrap_or_default();
        let quota = project.quota_bytes.map(|bytes| bytes.to_string()).unwrap_or_default();
        let name = project.name.clone();
        vec![name, governed.to_owned(), organisation, quota, paid, day(project.created_micros)]
    };
    let titles = ["project", "state", "organisation", "quota in bytes", "paid until", "since"];
    print_table(&titles, projects.iter().map(row).collect());
    Ok(())
}

/// Shows a project.
pub(super) async fn show(args: ShowArgs) -> anyhow::Result<()> {
    let request = GetProjectRequest { name: args.name };
    let project = connect(&args.data).await?.get_project(request).await.map_err(refused)?.into_inner();
    print_project(&project, args.json)
}

/// Changes a project.
pub(super) async fn update(args: UpdateArgs) -> anyhow::Result<()> {
    let mut client = connect(&args.data).await?;
    let request = GetProjectRequest { name: args.name.clone() };
    let before = client.get_project(request).await.map_err(refused)?.into_inner();
    let changes = args.properties.changes(Some(&before));
    if changes == ProjectChanges::default() {
        bail!("nothing to change: name a property, such as --contact");
    }
    let request = UpdateProjectRequest { name: args.name, changes: Some(changes) };
    let changed = client.update_project(request).await.map_err(refused)?.into_inner();
    print_project(&changed, args.json)
}

/// Makes a governed project of an ungoverned one.
pub(super) async fn govern(args: GovernArgs) -> anyhow::Result<()> {
    let what = format!(
        "hands project {} to {} for good, and refuses every access key of others in it",
        args.name, args.controller
    );
    confirm(&what, &args.name, args.yes)?;
    let request = GovernProjectRequest { name: args.name, controller: args.controller };
    let governed = connect(&args.data).await?.govern_project(request).await.map_err(refused)?.into_inner();
    print_project(&governed, args.json)
}

/// Runs `valv project member ...`.
pub(super) async fn member(command: MemberCommand) -> anyhow::Result<()> {
    match command {
        MemberCommand::Add(args) => {
            let request = SetMemberRequest { project: args.name, user: args.user, roles: args.role };
            let member = connect(&args.data).await?.set_member(request).await.map_err(refused)?.into_inner();
            if args.json {
                return print_json(&member_json(&member));
            }
            println!("{} is {}", member.name, member.roles.join(", "));
        }
        MemberCommand::Remove(args) => {
            let request = RemoveMemberRequest { project: args.name.clone(), user: args.user.clone() };
            connect(&args.data).await?.remove_member(request).await.map_err(refused)?;
            println!("{} is no member of {} any more: access keys are refused within 3 seconds", args.user, args.name);
        }
        MemberCommand::List(args) => {
            let request = ListMembersRequest { project: args.name };
            let members = connect(&args.data).await?.list_members(request).await.map_err(refused)?.into_inner().members;
            if args.json {
                return print_json(&members.iter().map(member_json).collect());
            }
            let row = |member: &Member| {
                let roles = member.roles.join(", ");
                vec![member.name.clone(), member.display_name.clone(), roles, day(member.since_micros)]
            };
            print_table(&["user", "display name", "roles", "since"], members.iter().map(row).collect());
        }
    }
    Ok(())
}

fn project_json(project: &Project) -> Value {
    let details = project.details.as_ref().map(|details| {
        json!({
            "organisation": details.organisation, "contact": details.contact, "legal_basis": details.legal_basis,
            "ethics_approval": details.ethics_approval, "note": details.note,
        })
    });
    json!({
        "id": project.id, "name": project.name, "namespace": project.namespace, "pool": project.pool,
        "created": time(project.created_micros), "governed": project.governed_micros.map(time), "details": details,
        "quota_bytes": project.quota_bytes, "quota_objects": project.quota_objects,
        "used_bytes": project.used_bytes, "used_objects": project.used_objects,
        "paid_until": project.paid_until_micros.map(time), "two_person_openings": project.two_person_openings,
    })
}

fn member_json(member: &Member) -> Value {
    json!({
        "id": member.id, "name": member.name, "display_name": member.display_name, "roles": member.roles,
        "since": time(member.since_micros),
    })
}

fn print_project(project: &Project, json: bool) -> anyhow::Result<()> {
    if json {
        return print_json(&project_json(project));
    }
    let details = project.details.clone().unwrap_or_default();
    let of = |used: Option<u64>, quota: Option<u64>| match (used, quota) {
        (Some(used), Some(quota)) => format!("{used} of {quota}"),
        (None, Some(quota)) => format!("{quota} (what is there is being counted)"),
        _ => String::new(),
    };
    print_fields(&[
        ("project", project.name.clone()),
        ("id", project.id.clone()),
        ("namespace", project.namespace.clone()),
        ("pool", project.pool.to_string()),
        ("since", day(project.created_micros)),
        ("governed since", project.governed_micros.map_or_else(|| "never".to_owned(), day)),
        ("organisation", details.organisation),
        ("contact", details.contact),
        ("legal basis", details.legal_basis),
        ("ethics approval", details.ethics_approval),
        ("note", details.note),
        ("bytes", of(project.used_bytes, project.quota_bytes)),
        ("objects", of(project.used_objects, project.quota_objects)),
        ("paid until", project.paid_until_micros.map(time).unwrap_or_default()),
    ]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_and_dates_are_read_as_people_write_them() {
        for (text, number) in [("0", 0), ("1000", 1000), ("3K", 3 << 10), ("2G", 2 << 30), ("20T", 20 << 40)] {
            assert_eq!(parse_bound(text), Ok(Bound(Some(number))), "{text}");
        }
        assert_eq!(parse_bound("none"), Ok(Bound(None)));
        for text in ["", "G", "-1", "1.5T", "99999999P", "1k"] {
            assert!(parse_bound(text).is_err(), "{text}");
        }
        assert_eq!(parse_until("1970-01-01"), Ok(Until(Some(86_400_000_000))), "to the end of the day");
        assert_eq!(parse_until("1970-01-01T00:00:01Z"), Ok(Until(Some(1_000_000))));
        assert_eq!(parse_until("none"), Ok(Until(None)));
        for text in ["", "1970", "1970-13-01", "tomorrow"] {
            assert!(parse_until(text).is_err(), "{text}");
        }
    }
}
