//! `valv project retention`.

use crate::admin;
use crate::commands::DataArg;
use crate::commands::output::{confirm, print_fields, print_json, time};
use ::time::OffsetDateTime;
use ::time::format_description::well_known::Rfc3339;
use anyhow::{Context, bail};
use serde_json::json;
use std::str::FromStr;
use valv_metadata_api::days_of_years;
use valv_proto::admin::v1::retention_client::RetentionClient;
use valv_proto::admin::v1::{ExtendRetentionRequest, GetRetentionRequest, RetentionClass, SetRetentionRequest};

const ABOUT_RETENTION: &str = "\
A project's retention class says how long each new version is kept at least, and how long if nobody says.
It is COMPLIANCE retention: nobody ends it early, no operator and no controller.

  valv project retention set cohort-7 --minimum 10y --class 'clinical trial' --reason 'ethics 2026/118'
  valv project retention show cohort-7
  valv project retention extend cohort-7 --bucket images --until 2040-01-01 --reason 'follow-up study'

Ten years are 3,653 days: never less than ten calendar years. What was written before keeps its dates;
`extend` gives it later ones. Lowering what a project demands needs two controllers: --propose.";

/// `valv project retention ...`.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = ABOUT_RETENTION)]
pub(crate) enum RetentionCommand {
    /// Shows a project's retention class.
    Show(ShowArgs),
    /// Sets it for what is written from now on.
    Set(SetArgs),
    /// Keeps what there is longer: a bucket, a prefix or one version. It can't be undone.
    Extend(ExtendArgs),
}

/// `valv project retention show`.
#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    data: DataArg,
    /// The project's name.
    project: String,
    /// Print JSON for scripts.
    #[arg(long)]
    json: bool,
}

/// `valv project retention set`.
#[derive(Debug, clap::Args)]
pub(crate) struct SetArgs {
    #[command(flatten)]
    data: DataArg,
    /// The project's name.
    project: String,
    /// Least retention of every new version: 10y, 3653d, or 0 for none.
    #[arg(long)]
    minimum: Option<Days>,
    /// Retention of a new version if neither the request nor its bucket names one: 15y, 30d, or 0.
    #[arg(long)]
    default: Option<Days>,
    /// Whether lifecycle rules may remove what is past its retention (in a project with a minimum).
    #[arg(long)]
    lifecycle_disposal: Option<bool>,
    /// What the class is called.
    #[arg(long)]
    class: Option<String>,
    /// Why, and the decision behind it.
    #[arg(long)]
    reason: String,
    /// Lowers what the project demands by proposing it: another controller approves.
    #[arg(long, requires = "reference")]
    propose: bool,
    /// The decision that a proposal rests on.
    #[arg(long, default_value = "")]
    reference: String,
    /// Don't ask.
    #[arg(long)]
    yes: bool,
    /// Print JSON for scripts.
    #[arg(long)]
    json: bool,
}

/// `valv project retention extend`.
#[derive(Debug, clap::Args)]
pub(crate) struct ExtendArgs {
    #[command(flatten)]
    data: DataArg,
    /// The project's name.
    project: String,
    /// The bucket.
    #[arg(long)]
    bucket: String,
    /// Only keys that begin with this.
    #[arg(long, default_value = "", conflicts_with = "key")]
    prefix: String,
    /// One object ...
    #[arg(long, requires = "version")]
    key: Option<String>,
    /// ... and which of its versions: 32 hexadecimal digits.
    #[arg(long, requires = "key")]
    version: Option<String>,
    /// Until when at least: 2040-01-01, or 2040-01-01T12:00:00Z.
    #[arg(long)]
    until: When,
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

/// A number of days as people write it: `10y`, `30d`, `30`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Days(u32);

impl FromStr for Days {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let wrong = || format!("{text:?} is no period such as 10y or 30d");
        let (number, is_years) = match text.strip_suffix('y') {
            Some(number) => (number, true),
            None => (text.strip_suffix('d').unwrap_or(text), false),
        };
        let number: u32 = number.parse().with_context(wrong)?;
        Ok(Self(if is_years { days_of_years(number) } else { number }))
    }
}

/// A date (its first moment in UTC), or a time in RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct When(u64);

impl FromStr for When {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let wrong = || format!("{text:?} is no date such as 2040-01-01, and no time such as 2040-01-01T12:00:00Z");
        let midnight = OffsetDateTime::parse(&format!("{text}T00:00:00Z"), &Rfc3339);
        let moment = midnight.or_else(|_| OffsetDateTime::parse(text, &Rfc3339)).with_context(wrong)?;
        let micros = u64::try_from(moment.unix_timestamp_nanos() / 1_000).with_context(wrong)?;
        Ok(Self(micros))
    }
}

fn days(days: u32) -> String {
    match days {
        0 => "none".to_owned(),
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    }
}

fn print_class(class: &RetentionClass) {
    print_fields(&[
        ("class", class.class.escape_debug().to_string()),
        ("minimum", days(class.minimum_days)),
        ("default", days(class.default_days)),
        ("lifecycle rules may dispose", if class.lifecycle_disposal { "yes" } else { "no" }.to_owned()),
    ]);
}

fn class_json(class: &RetentionClass) -> serde_json::Value {
    json!({
        "class": class.class,
        "minimum_days": class.minimum_days,
        "default_days": class.default_days,
        "lifecycle_disposal": class.lifecycle_disposal,
    })
}

/// Runs the command.
pub(super) async fn run(command: RetentionCommand) -> anyhow::Result<()> {
    match command {
        RetentionCommand::Show(args) => {
            let mut client = RetentionClient::new(admin::channel(&args.data).await?);
            let request = GetRetentionRequest { project: args.project };
            let class = client.get_retention(request).await.map_err(admin::refused)?.into_inner();
            if args.json {
                return print_json(&class_json(&class));
            }
            print_class(&class);
            Ok(())
        }
        RetentionCommand::Set(args) => set(args).await,
        RetentionCommand::Extend(args) => extend(args).await,
    }
}

async fn set(args: SetArgs) -> anyhow::Result<()> {
    let mut client = RetentionClient::new(admin::channel(&args.data).await?);
    let request = GetRetentionRequest { project: args.project.clone() };
    let old = client.get_retention(request).await.map_err(admin::refused)?.into_inner();
    let minimum_days = args.minimum.map_or(old.minimum_days, |days| days.0);
    let new = RetentionClass {
        minimum_days,
        // A default that was not named follows the minimum up.
        default_days: match args.default {
            Some(days) => days.0,
            None if old.default_days == 0 => 0,
            None => old.default_days.max(minimum_days),
        },
        lifecycle_disposal: args.lifecycle_disposal.unwrap_or(old.lifecycle_disposal),
        class: args.class.unwrap_or(old.class),
    };
    if !args.propose && new.minimum_days > old.minimum_days {
        let what = format!(
            "keeps everything that is written into {} for at least {} days, and nobody can end that early",
            args.project, new.minimum_days
        );
        confirm(&what, &args.project, args.yes)?;
    }
    let request = SetRetentionRequest {
        project: args.project,
        retention: Some(new),
        reason: args.reason,
        propose: args.propose,
        reference: args.reference,
    };
    let reply = client.set_retention(request).await.map_err(admin::refused)?.into_inner();
    let class = reply.retention.unwrap_or_default();
    if args.json {
        let mut shown = class_json(&class);
        shown["proposal"] = json!((!reply.proposal.is_empty()).then_some(&reply.proposal));
        return print_json(&shown);
    }
    if !reply.proposal.is_empty() {
        println!("proposed: another controller approves proposal {}", reply.proposal);
        return Ok(());
    }
    print_class(&class);
    Ok(())
}

async fn extend(args: ExtendArgs) -> anyhow::Result<()> {
    let what = match (&args.key, args.prefix.is_empty()) {
        (Some(_), _) => "a version",
        (None, true) => "everything in the bucket",
        (None, false) => "everything under the prefix",
    };
    let said = format!("keeps {what} until {}, and nobody can end that early", time(args.until.0));
    confirm(&said, &args.bucket, args.yes)?;
    let mut client = RetentionClient::new(admin::channel(&args.data).await?);
    let request = ExtendRetentionRequest {
        project: args.project,
        bucket: args.bucket,
        prefix: args.key.unwrap_or(args.prefix).into_bytes().into(),
        version: args.version.unwrap_or_default(),
        until_micros: args.until.0,
        reason: args.reason,
    };
    let mut pages = client.extend_retention(request).await.map_err(admin::refused)?.into_inner();
    let bar = indicatif::ProgressBar::new_spinner();
    let mut last = Default::default();
    while let Some(progress) = pages.message().await.map_err(admin::refused)? {
        bar.set_message(format!("{} versions", progress.extended + progress.unchanged));
        bar.tick();
        last = progress;
    }
    bar.finish_and_clear();
    if !last.finished {
        bail!("it broke off: run it again, nothing is done twice");
    }
    if args.json {
        return print_json(&json!({ "extended": last.extended, "unchanged": last.unchanged }));
    }
    println!("{} versions are kept longer now; {} were kept as long before", last.extended, last.unchanged);
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn periods_and_dates_are_read_as_people_write_them() {
        for (text, days) in [("10y", 3_653), ("1y", 366), ("30d", 30), ("30", 30), ("0", 0)] {
            assert_eq!(text.parse::<Days>().unwrap(), Days(days), "{text}");
        }
        for text in ["", "y", "-1d", "10 y", "1.5y", "4294967296"] {
            assert!(text.parse::<Days>().is_err(), "{text}");
        }
        let when = |text: &str| text.parse::<When>();
        assert_eq!(when("1970-01-02").unwrap(), When(86_400_000_000));
        assert_eq!(when("1970-01-01T02:00:00+01:00").unwrap(), When(3_600_000_000));
        for text in ["", "2040", "2040-13-01", "01.01.2040", "1969-12-31"] {
            assert!(when(text).is_err(), "{text}");
        }
    }
}
