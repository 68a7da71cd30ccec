//! `valv project receipt`, `valv project fixity`: signed statements of what came in, went out, was repaired, and is there.

use crate::admin::{self, ServerArg, refused};
use crate::commands::create_private;
use anyhow::{Context, bail};
use std::io::Write;
use std::path::PathBuf;
use valv_proto::admin::v1::fixity_part::Part;
use valv_proto::admin::v1::reports_client::ReportsClient;
use valv_proto::admin::v1::{GetFixityRequest, GetReceiptRequest, ReceiptKind};

const ABOUT_RECEIPTS: &str = "\
A receipt has a line for each event, each with its place in the ledger, and ends with a statement that the
server has signed. Whoever has the public key can verify it without the server, for as long as it is kept:

  valv project receipt ingest cohort-7 --bucket scans --prefix 2026/ --out received.jsonl
  valv statement verify received.jsonl --key 7c9f...

  ingest     objects that came in: lengths and checksums as stored
  export     reads by anybody
  repair     damaged or missing shards that were rebuilt
  migration  moves to other hardware
  transfer   the handing over to another controller
  disposal   what was disposed of, and what left the trash for good";

/// Which receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    Ingest,
    Export,
    Repair,
    Migration,
    Transfer,
    Disposal,
}

/// `valv project receipt`.
#[derive(Debug, clap::Args)]
#[command(after_help = ABOUT_RECEIPTS)]
pub(crate) struct ReceiptArgs {
    #[command(flatten)]
    server: ServerArg,
    /// Which receipt.
    kind: Kind,
    /// The project's name.
    project: String,
    /// Of this bucket only.
    #[arg(long, default_value = "", hide_default_value = true)]
    bucket: String,
    /// Of object keys that begin with this only.
    #[arg(long, default_value = "", hide_default_value = true, requires = "bucket")]
    prefix: String,
    /// Of events from this time on: 2026-11-01, or 2026-11-01T08:00:00Z.
    #[arg(long, value_parser = micros)]
    since: Option<u64>,
    /// Of events before this time.
    #[arg(long, value_parser = micros)]
    until: Option<u64>,
    /// The file to write; it must not exist.
    #[arg(long)]
    out: PathBuf,
}

/// `valv project fixity`.
#[derive(Debug, clap::Args)]
pub(crate) struct FixityArgs {
    #[command(flatten)]
    server: ServerArg,
    /// The project's name.
    project: String,
    /// The file to write; it must not exist.
    #[arg(long)]
    out: PathBuf,
}

/// A day or a time in UTC, as microseconds since 1970.
fn micros(text: &str) -> Result<u64, String> {
    use time::format_description::well_known::Rfc3339;
    let full = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let time = time::OffsetDateTime::parse(&full, &Rfc3339);
    let micros = time.map(|time| time.unix_timestamp_nanos() / 1_000);
    let micros = micros.ok().and_then(|micros| u64::try_from(micros).ok());
    micros.ok_or_else(|| "write a time as 2026-11-01 or 2026-11-01T08:00:00Z".to_owned())
}

/// Runs `valv project receipt`.
pub(super) async fn receipt(args: ReceiptArgs) -> anyhow::Result<()> {
    let kind = match args.kind {
        Kind::Ingest => ReceiptKind::Ingest,
        Kind::Export => ReceiptKind::Export,
        Kind::Repair => ReceiptKind::Repair,
        Kind::Migration => ReceiptKind::Migration,
        Kind::Transfer => ReceiptKind::Transfer,
        Kind::Disposal => ReceiptKind::Disposal,
    };
    let request = GetReceiptRequest {
        kind: kind.into(),
        project: args.project,
        bucket: args.bucket,
        prefix: args.prefix.into_bytes().into(),
        since_micros: args.since,
        until_micros: args.until,
    };
    let client = ReportsClient::new(admin::channel(&args.server).await?);
    let mut client = client.max_decoding_message_size(admin::ADMIN_MESSAGE_BYTES_MAX);
    let mut pieces = client.get_receipt(request).await.map_err(refused)?.into_inner();
    // Nothing is left behind for what does not exist.
    let mut piece = pieces.message().await.map_err(refused)?;
    let mut file = create_private(&args.out).with_context(|| format!("creating {}", args.out.display()))?;
    let bar = indicatif::ProgressBar::new_spinner();
    let mut lines = 0;
    while let Some(part) = piece {
        file.write_all(&part.json_lines).with_context(|| format!("writing {}", args.out.display()))?;
        lines += part.json_lines.iter().filter(|&&byte| byte == b'\n').count();
        bar.set_message(format!("{lines} lines"));
        bar.tick();
        piece = pieces.message().await.context("the receipt broke off: the file is incomplete")?;
    }
    file.sync_all().with_context(|| format!("writing {}", args.out.display()))?;
    bar.finish_and_clear();
    let events = lines.saturating_sub(1);
    println!("{} holds {events} events and a signed statement over them", args.out.display());
    Ok(())
}

/// Runs `valv project fixity`.
pub(super) async fn fixity(args: FixityArgs) -> anyhow::Result<()> {
    let client = ReportsClient::new(admin::channel(&args.server).await?);
    let mut client = client.max_decoding_message_size(admin::ADMIN_MESSAGE_BYTES_MAX);
    let request = GetFixityRequest { project: args.project };
    let mut parts = client.get_fixity(request).await.map_err(refused)?.into_inner();
    let bar = indicatif::ProgressBar::new_spinner();
    while let Some(part) = parts.message().await.map_err(refused)? {
        match part.part {
            Some(Part::Progress(progress)) => {
                bar.set_message(format!("{} objects looked at", progress.objects));
                bar.tick();
            }
            Some(Part::Statement(line)) => {
                bar.finish_and_clear();
                let mut file = create_private(&args.out).with_context(|| format!("creating {}", args.out.display()))?;
                let written = file.write_all(line.as_bytes()).and_then(|()| file.sync_all());
                written.with_context(|| format!("writing {}", args.out.display()))?;
                println!("{} holds a signed report; `valv statement verify` shows it", args.out.display());
                return Ok(());
            }
            None => {}
        }
    }
    bail!("the report broke off");
}

#[cfg(test)]
mod tests {
    use super::micros;

    #[test]
    fn times_are_days_or_rfc_3339() {
        assert_eq!(micros("1970-01-02"), Ok(86_400_000_000));
        assert_eq!(micros("1970-01-01T01:00:00+01:00"), Ok(0));
        for text in ["", "yesterday", "1970-1-1", "1969-12-31"] {
            assert!(micros(text).is_err(), "{text}");
        }
    }
}
