//! `valv project usage`.

use crate::admin;
use crate::commands::DataArg;
use crate::commands::output::{print_fields, print_json, print_table, time};
use serde_json::{Value, json};
use valv_ledger::usage::Month;
use valv_proto::admin::v1::reports_client::ReportsClient;
use valv_proto::admin::v1::{GetUsageRequest, ProjectUsage};
use valv_types::TimestampMicros;

const ABOUT_USAGE: &str = "\
Everything follows from the ledger: `valv ledger export` and a sum over its events give the same numbers.

  valv project usage cohort-7                         this month, up to now
  valv project usage cohort-7 --month 2026-11 --csv   for a spreadsheet

Byte-hours are the bytes of all object versions, those in the trash among them, times the hours that they
were held. docs/governance.md says what each column counts.";

/// Which month, and for whom.
#[derive(Debug, clap::Args)]
#[command(after_help = ABOUT_USAGE)]
pub(crate) struct MonthArgs {
    /// The month in UTC, as 2026-11 [default: this one].
    #[arg(long)]
    month: Option<Month>,
    /// Print CSV.
    #[arg(long, conflicts_with = "json")]
    csv: bool,
    /// Print JSON for scripts.
    #[arg(long)]
    json: bool,
}

/// `valv project usage`.
#[derive(Debug, clap::Args)]
pub(crate) struct ProjectUsageArgs {
    #[command(flatten)]
    data: DataArg,
    /// The project's name.
    project: String,
    #[command(flatten)]
    month: MonthArgs,
}

/// Runs the command.
pub(super) async fn run(args: ProjectUsageArgs) -> anyhow::Result<()> {
    show(&args.data, args.project, &args.month).await
}

/// Names of the columns, as CSV and JSON have them.
const COLUMNS: [&str; 19] = [
    "project",
    "name",
    "month",
    "from",
    "until",
    "until_micros",
    "ledger_size",
    "held_bytes_start",
    "held_objects_start",
    "held_bytes_end",
    "held_objects_end",
    "byte_micros",
    "byte_hours",
    "change_requests",
    "read_requests",
    "ingress_bytes",
    "egress_bytes",
    "repairs",
    "repaired_bytes",
];

fn values(usage: &ProjectUsage) -> [Value; COLUMNS.len()] {
    // A sum that passes 64 bits stays text: most readers of JSON would round it.
    let sum = |text: &str| text.parse::<u64>().map_or_else(|_| json!(text), |number| json!(number));
    [
        json!(usage.project),
        json!(usage.name),
        json!(usage.month),
        json!(time(usage.from_micros)),
        json!(time(usage.until_micros)),
        json!(usage.until_micros),
        json!(usage.ledger_size),
        sum(&usage.held_bytes_start),
        json!(usage.held_objects_start),
        sum(&usage.held_bytes_end),
        json!(usage.held_objects_end),
        json!(usage.byte_micros),
        sum(&usage.byte_hours),
        json!(usage.change_requests),
        json!(usage.read_requests),
        sum(&usage.ingress_bytes),
        sum(&usage.egress_bytes),
        json!(usage.repairs),
        sum(&usage.repaired_bytes),
    ]
}

/// Asks for a project's usage (of all, if there is no name) and shows it.
pub(crate) async fn show(data: &DataArg, project: String, args: &MonthArgs) -> anyhow::Result<()> {
    let month = args.month.unwrap_or_else(|| Month::of(TimestampMicros::now()));
    let is_one = !project.is_empty();
    let mut client = ReportsClient::new(admin::channel(data).await?);
    let request = GetUsageRequest { project, month: month.to_string() };
    let reply = client.get_usage(request).await.map_err(|status| anyhow::anyhow!("{}", status.message()))?;
    let projects = reply.into_inner().projects;
    if args.csv {
        println!("{}", COLUMNS.join(","));
        for usage in &projects {
            let cells: Vec<String> = values(usage).iter().map(csv_cell).collect();
            println!("{}", cells.join(","));
        }
        return Ok(());
    }
    if args.json {
        let object = |usage| Value::Object(COLUMNS.iter().map(|name| (*name).to_owned()).zip(values(usage)).collect());
        return print_json(&projects.iter().map(object).collect());
    }
    match (projects.as_slice(), is_one) {
        ([usage], true) => {
            print_usage(usage);
            Ok(())
        }
        _ => {
            let rows = projects.iter().map(|usage| {
                [
                    &usage.name,
                    &usage.held_objects_end.to_string(),
                    &usage.held_bytes_end,
                    &usage.byte_hours,
                    &usage.change_requests.to_string(),
                    &usage.read_requests.to_string(),
                    &usage.egress_bytes,
                ]
                .map(|text| text.clone())
                .to_vec()
            });
            print_table(&["project", "objects", "bytes", "byte-hours", "changes", "reads", "egress"], rows.collect());
            Ok(())
        }
    }
}

fn print_usage(usage: &ProjectUsage) {
    print_fields(&[
        ("project", usage.name.clone()),
        ("month", usage.month.clone()),
        ("until", time(usage.until_micros)),
        ("held at the start", format!("{} bytes in {} versions", usage.held_bytes_start, usage.held_objects_start)),
        ("held at the end", format!("{} bytes in {} versions", usage.held_bytes_end, usage.held_objects_end)),
        ("byte-hours", usage.byte_hours.clone()),
        ("requests that change", usage.change_requests.to_string()),
        ("requests that read", usage.read_requests.to_string()),
        ("bytes in", usage.ingress_bytes.clone()),
        ("bytes out", usage.egress_bytes.clone()),
        ("repairs", format!("{} of {} bytes", usage.repairs, usage.repaired_bytes)),
        ("events counted", usage.ledger_size.to_string()),
    ]);
}

/// A cell of CSV (RFC 4180). A text that a spreadsheet would take for a formula is quoted with an apostrophe before it.
fn csv_cell(value: &Value) -> String {
    let Value::String(text) = value else { return value.to_string() };
    let text = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.clone() };
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_csv_stay_one_cell_and_no_formula() {
        for (name, cell) in
            [("cohort-7", "cohort-7"), ("a, b", "\"a, b\""), ("say \"x\"", "\"say \"\"x\"\"\""), ("=1+1", "'=1+1")]
        {
            assert_eq!(csv_cell(&json!(name)), cell);
        }
        assert_eq!(csv_cell(&json!(7)), "7");
    }
}
