//! `valv statement`: checks what Valv has signed, without a server.

use anyhow::{Context, bail};
use serde_json::Value;
use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

const ABOUT_STATEMENTS: &str = "\
Receipts, certificates and reports are files whose last line is a statement that Valv has signed. To
verify one, all that is needed is the file and the public key that `valv ledger key` prints:

  valv statement verify receipt.jsonl --key 7c9f...

docs/statements.md has the format, and a few lines of Python that verify one.";

/// `valv statement ...`.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = ABOUT_STATEMENTS)]
pub(crate) enum StatementCommand {
    /// Verifies a receipt, certificate or report, and prints what it says. Needs no server.
    Verify(VerifyArgs),
}

/// `valv statement verify`.
#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// The file.
    file: PathBuf,
    /// The public key: 64 hexadecimal digits, as `valv ledger key` prints it.
    #[arg(long)]
    key: String,
    /// Prints the statement as JSON.
    #[arg(long)]
    json: bool,
}

/// Reads a public key.
pub(super) fn public_key(text: &str) -> anyhow::Result<[u8; 32]> {
    match hex::decode(text.trim()).ok().and_then(|bytes| bytes.try_into().ok()) {
        Some(key) => Ok(key),
        None => bail!("--key must be 64 hexadecimal digits"),
    }
}

/// Runs the command.
pub(crate) fn run(command: StatementCommand) -> anyhow::Result<()> {
    let StatementCommand::Verify(args) = command;
    let key = public_key(&args.key)?;
    let file = File::open(&args.file).with_context(|| format!("opening {}", args.file.display()))?;
    let verified = valv_ledger::statement::verify(BufReader::new(file), &key)
        .with_context(|| format!("{} does not hold", args.file.display()))?;
    if args.json {
        return super::output::print_json(&Value::Object(verified.statement));
    }
    let text = |name: &str| verified.statement.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    println!("holds: {} for project {} ({})", text("kind"), text("project_name"), text("project"));
    println!("signed: {}", text("time"));
    if let Some(ledger) = verified.statement.get("ledger") {
        println!("ledger then: {} events, root {}", ledger["size"], ledger["root"].as_str().unwrap_or_default());
    }
    if verified.lines > 0 {
        println!("lines before the statement: {}", verified.lines);
    }
    println!();
    if let Some(facts) = verified.statement.get("facts") {
        print_facts("", facts);
    }
    Ok(())
}

/// One fact a line, with the names that lead to it.
fn print_facts(name: &str, value: &Value) {
    let below = |part: &str| if name.is_empty() { part.to_owned() } else { format!("{name}.{part}") };
    match value {
        Value::Object(members) => members.iter().for_each(|(part, value)| print_facts(&below(part), value)),
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            items.iter().enumerate().for_each(|(index, value)| print_facts(&below(&index.to_string()), value));
        }
        // A control character in a name must not reach the terminal as one.
        Value::String(text) => println!("{name}: {}", text.escape_debug()),
        other => println!("{name}: {other}"),
    }
}
