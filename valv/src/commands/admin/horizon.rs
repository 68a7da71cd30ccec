//! `valv admin horizon`.

use super::custodian::connect;
use super::date;
use crate::admin::refused;
use crate::commands::DataArg;
use crate::commands::output::{day, print_json, print_table, time};
use anyhow::Context;
use indicatif::{BinaryBytes, ProgressBar};
use serde_json::{Value, json};
use valv_proto::admin::v1::horizon_reply::Step;
use valv_proto::admin::v1::*;

const ABOUT: &str = "\
What has to be kept (Object Lock, legal holds, retention of projects) is compared with how long the
disks under it are guaranteed (`valv admin disk set`), chunk by chunk:

  redundancy shrinks   at least one of the disks of these bytes is out of guarantee while they have
                       to be kept
  not covered          more of their disks are out of guarantee than may be lost

  valv admin horizon                        what is so today
  valv admin horizon --date 2031-01-01      what will be so by then, if nobody does anything
  valv admin horizon --project cohort-7 --json";

/// `valv admin horizon`.
#[derive(Debug, clap::Args)]
#[command(after_help = ABOUT)]
pub(crate) struct HorizonArgs {
    #[command(flatten)]
    data: DataArg,
    /// By when: a date (its midnight in UTC), or an RFC 3339 time [default: now].
    #[arg(long)]
    date: Option<String>,
    /// Only this project.
    #[arg(long)]
    project: Option<String>,
    /// Print JSON for scripts: by project, disk and year as well.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) async fn run(args: HorizonArgs) -> anyhow::Result<()> {
    let request = HorizonRequest {
        by_micros: args.date.as_deref().map(date).transpose()?.map(|at| at.0),
        project: args.project.unwrap_or_default(),
    };
    let mut replies = connect(&args.data).await?.horizon(request).await.map_err(refused)?.into_inner();
    let bar = ProgressBar::new_spinner();
    let mut report = None;
    while let Some(reply) = replies.message().await.map_err(refused)? {
        match reply.step {
            Some(Step::Progress(at)) => {
                bar.set_message(format!("{} versions, {} to be kept", at.versions, at.kept));
                bar.tick();
            }
            Some(Step::Report(found)) => report = Some(found),
            None => {}
        }
    }
    bar.finish_and_clear();
    let report = report.context("the server ended the scan early")?;
    if args.json {
        return print_json(&report_json(&report));
    }
    show(&report);
    Ok(())
}

/// u64's largest value says that there is no end.
fn until(micros: u64) -> String {
    if micros == u64::MAX { "for ever".to_owned() } else { day(micros) }
}

fn until_json(micros: Option<u64>) -> Value {
    match micros {
        None => Value::Null,
        Some(u64::MAX) => json!("forever"),
        Some(micros) => json!(time(micros)),
    }
}

fn show(report: &HorizonReport) {
    println!("by {}, of {} versions:", time(report.by_micros), report.versions);
    println!();
    let or_dash = |at: Option<u64>| at.map_or_else(|| "-".to_owned(), until);
    let bytes = |bytes: u64| BinaryBytes(bytes).to_string();
    let project = |one: &HorizonProject| {
        vec![
            one.name.clone(),
            bytes(one.kept_bytes),
            bytes(one.shrinking_bytes),
            or_dash(one.shrinking_from_micros),
            bytes(one.uncovered_bytes),
            or_dash(one.uncovered_from_micros),
            or_dash(one.keep_until_micros),
        ]
    };
    let titles = ["project", "to be kept", "redundancy shrinks", "from", "not covered", "from", "to be kept until"];
    print_table(&titles, report.projects.iter().map(project).collect());
    let needy: Vec<&HorizonDisk> = report.disks.iter().filter(|disk| disk.extend_to_micros.is_some()).collect();
    if needy.is_empty() {
        println!();
        println!("everything is covered");
        return;
    }
    println!();
    println!("to cover it, prolong these guarantees, or move the bytes:");
    let disk = |one: &HorizonDisk| {
        let facts = one.disk.clone().unwrap_or_default();
        let mut moves: Vec<String> = Vec::new();
        for (organisation, moved) in by_organisation(&one.moves) {
            moves.push(format!("{} to disks of {organisation}", bytes(moved)));
        }
        if one.unplaced_bytes > 0 {
            moves.push(format!("{} to new disks", bytes(one.unplaced_bytes)));
        }
        let name = if facts.name.is_empty() { facts.disk } else { facts.name };
        let organisation = if facts.organisation.is_empty() { "-".to_owned() } else { facts.organisation };
        let end = facts.guaranteed_until_micros.map_or_else(|| "not guaranteed".to_owned(), day);
        vec![name, organisation, end, or_dash(one.extend_to_micros), moves.join(", ")]
    };
    print_table(
        &["disk", "custodian", "guaranteed until", "prolong to", "or move"],
        needy.into_iter().map(disk).collect(),
    );
}

/// Moves added up by whose disks they go to, in order.
fn by_organisation(moves: &[HorizonMove]) -> Vec<(String, u64)> {
    let mut sums: Vec<(String, u64)> = Vec::new();
    for one in moves {
        let organisation = if one.organisation.is_empty() { "nobody" } else { &one.organisation };
        match sums.iter_mut().find(|(known, _)| known == organisation) {
            Some((_, sum)) => *sum += one.bytes,
            None => sums.push((organisation.to_owned(), one.bytes)),
        }
    }
    sums
}

fn report_json(report: &HorizonReport) -> Value {
    let projects = report.projects.iter().map(|one| {
        json!({
            "project": one.project, "name": one.name, "kept_bytes": one.kept_bytes,
            "shrinking_bytes": one.shrinking_bytes, "shrinking_from": until_json(one.shrinking_from_micros),
            "uncovered_bytes": one.uncovered_bytes, "uncovered_from": until_json(one.uncovered_from_micros),
            "keep_until": until_json(one.keep_until_micros),
            "years": one.years.iter().map(|year| json!({
                "year": year.year, "shrinking_bytes": year.shrinking_bytes, "uncovered_bytes": year.uncovered_bytes,
            })).collect::<Vec<_>>(),
        })
    });
    let disks = report.disks.iter().map(|one| {
        let facts = one.disk.clone().unwrap_or_default();
        json!({
            "disk": facts.disk, "name": facts.name, "organisation": facts.organisation,
            "guaranteed_until": until_json(facts.guaranteed_until_micros),
            "extend_to": until_json(one.extend_to_micros), "move_bytes": one.move_bytes,
            "moves": one.moves.iter().map(|to| json!({
                "disk": to.disk, "name": to.name, "organisation": to.organisation, "bytes": to.bytes,
            })).collect::<Vec<_>>(),
            "unplaced_bytes": one.unplaced_bytes, "whole_until": until_json(one.whole_until_micros),
            "whole_bytes": one.whole_bytes,
        })
    });
    let rows = report.rows.iter().map(|row| {
        json!({
            "project": row.project, "disk": row.disk, "year": (row.year != 0).then_some(row.year),
            "shard_bytes": row.shard_bytes, "uncovered_shard_bytes": row.uncovered_shard_bytes,
            "keep_until": until_json(Some(row.keep_until_micros)),
        })
    });
    json!({
        "now": time(report.now_micros), "by": time(report.by_micros), "versions": report.versions,
        "projects": projects.collect::<Vec<_>>(), "disks": disks.collect::<Vec<_>>(), "rows": rows.collect::<Vec<_>>(),
    })
}
