//! What commands show: tables for people, JSON for scripts, and the question before what can't be undone.

use anyhow::bail;
use serde_json::Value;
use std::io::{BufRead, IsTerminal, Write};
use valv_gateway::http_date;
use valv_types::TimestampMicros;

/// Prints JSON for a script.
pub(crate) fn print_json(value: &Value) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Columns as wide as their widest cell.
pub(crate) fn print_table(titles: &[&str], rows: Vec<Vec<String>>) {
    let titles: Vec<String> = titles.iter().map(|&title| title.to_owned()).collect();
    let width = |column: usize| {
        let cells = std::iter::once(&titles).chain(&rows).filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..titles.len()).map(width).collect();
    for row in std::iter::once(&titles).chain(&rows) {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        println!("{}", cells.join("  ").trim_end());
    }
}

/// Names and values, one a line; empty values are left out.
pub(crate) fn print_fields(fields: &[(&str, String)]) {
    let width = fields.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
        println!("{name:<width$}  {value}");
    }
}

/// A time as RFC 3339 in UTC.
pub(crate) fn time(micros: u64) -> String {
    http_date::format_iso8601(TimestampMicros(micros))
}

/// Reads [`time`].
pub(crate) fn read_time(text: &str) -> anyhow::Result<TimestampMicros> {
    match http_date::parse_iso8601(text) {
        Some(time) => Ok(time),
        None => bail!("{text:?} is no time such as 2027-01-31T12:00:00Z"),
    }
}

/// The UTC date of a time.
pub(crate) fn day(micros: u64) -> String {
    time(micros).chars().take(10).collect()
}

/// Asks a person, and refuses to go on without one. `what` goes on after "This" (`deletes user eva for good`); `name` is
/// what has to be typed.
pub(crate) fn confirm(what: &str, name: &str, yes: bool) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        bail!("this {what}: say --yes");
    }
    eprint!("This {what}. Type {name} to go on: ");
    std::io::stderr().flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    if line.trim() != name {
        bail!("nothing was done");
    }
    Ok(())
}
