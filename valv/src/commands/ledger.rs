//! `valv ledger`.

mod proofs;

use super::{DataArg, create_private};
use crate::admin;
use anyhow::{Context, bail};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use valv_ledger::SignedHead;
use valv_proto::admin::v1::{ExportLedgerRequest, GetSigningKeyRequest};

/// `valv ledger ...`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum LedgerCommand {
    /// Writes a project's ledger to a file: every custody event, in order, and a signed head over all of them. Keep it away
    /// from the server: later exports are checked against it.
    Export(ExportArgs),
    /// Prints the public key that ledgers' heads verify with. Hand it to those who verify, once, on a way they trust.
    Key(KeyArgs),
    /// Writes a signed head: how many events there are, and the root over them. Keep it away from the server.
    Head(proofs::HeadArgs),
    /// Proves that an event is in the ledger: a small file that says nothing of the others.
    Prove(proofs::ProveArgs),
    /// Proves that the ledger goes on from an earlier head: that nothing of its past was rewritten.
    Consistency(proofs::ConsistencyArgs),
    /// Verifies an exported ledger or a proof. Needs the file and the public key only: no server, no data folder.
    Verify(VerifyArgs),
}

/// `valv ledger export`.
#[derive(Debug, clap::Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    data: DataArg,
    /// The project's name.
    #[arg(long, required_unless_present = "cluster")]
    project: Option<String>,
    /// The cluster's own ledger: custodians, disks, and what else belongs to no project. For operators.
    #[arg(long, conflicts_with = "project")]
    cluster: bool,
    /// The file to write; it must not exist.
    #[arg(long)]
    out: PathBuf,
}

/// `valv ledger key`.
#[derive(Debug, clap::Args)]
pub(crate) struct KeyArgs {
    #[command(flatten)]
    data: DataArg,
}

/// `valv ledger verify`.
#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// The export, or a proof.
    file: PathBuf,
    /// The public key: 64 hexadecimal digits, as `valv ledger key` prints it.
    #[arg(long)]
    key: String,
    /// An earlier export of the same ledger (or its last line alone): the newer one must go on from it. Repeatable.
    #[arg(long)]
    earlier: Vec<PathBuf>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) async fn run(command: LedgerCommand) -> anyhow::Result<()> {
    match command {
        LedgerCommand::Export(args) => export(args).await,
        LedgerCommand::Key(args) => {
            let mut client = admin::connect(&args.data).await?;
            let key = client.get_signing_key(GetSigningKeyRequest {}).await?.into_inner();
            println!("{}", hex::encode(&key.public_key));
            Ok(())
        }
        LedgerCommand::Head(args) => proofs::head(args).await,
        LedgerCommand::Prove(args) => proofs::prove(args).await,
        LedgerCommand::Consistency(args) => proofs::consistency(args).await,
        LedgerCommand::Verify(args) => verify(&args),
    }
}

async fn export(args: ExportArgs) -> anyhow::Result<()> {
    let mut client = admin::connect(&args.data).await?;
    let request = ExportLedgerRequest { project: args.project.unwrap_or_default(), cluster: args.cluster };
    let mut pieces = client.export_ledger(request).await.map_err(admin::refused)?.into_inner();
    // Nothing is left behind for a project that does not exist.
    let mut piece = pieces.message().await.map_err(|status| anyhow::anyhow!("{}", status.message()))?;
    let mut file = create_private(&args.out).with_context(|| format!("creating {}", args.out.display()))?;
    let bar = indicatif::ProgressBar::new_spinner();
    let mut written = 0;
    while let Some(lines) = piece {
        file.write_all(&lines.json_lines).with_context(|| format!("writing {}", args.out.display()))?;
        written += lines.json_lines.len() as u64;
        bar.set_message(indicatif::BinaryBytes(written).to_string());
        bar.tick();
        piece = pieces.message().await.context("the export broke off: the file is incomplete")?;
    }
    file.sync_all().with_context(|| format!("writing {}", args.out.display()))?;
    bar.finish_and_clear();
    println!("{} holds {written} bytes; `valv ledger verify` checks them", args.out.display());
    Ok(())
}

fn verify(args: &VerifyArgs) -> anyhow::Result<()> {
    let key = super::statement::public_key(&args.key)?;
    if let Some(proof) = proofs::read(&args.file)? {
        return match args.earlier.is_empty() {
            true => proofs::verify(&proof, &key, args.json),
            false => bail!("--earlier is for exports: a proof of consistency has both heads in it"),
        };
    }
    let earlier = args.earlier.iter().map(|path| head_of(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let file = File::open(&args.file).with_context(|| format!("opening {}", args.file.display()))?;
    let report = valv_ledger::verify(BufReader::new(file), &key, &earlier)
        .with_context(|| format!("{} does not hold", args.file.display()))?;
    if args.json {
        let report = serde_json::json!({
            "project": report.project.to_string(),
            "events": report.events,
            "events_without_names": report.without_names,
            "accesses": report.accesses,
            "root": hex::encode(report.root),
            "signed_micros": report.signed.0,
            "earlier_exports": earlier.len(),
        });
        println!("{report}");
        return Ok(());
    }
    println!(
        "holds: {} events of project {}, which tell of {} accesses",
        report.events, report.project, report.accesses
    );
    if report.without_names > 0 {
        println!("names erased: {}", report.without_names);
    }
    println!("root: {}", hex::encode(report.root));
    println!("earlier exports that it goes on from: {}", earlier.len());
    Ok(())
}

/// The last line of a file that is not empty.
fn head_of(path: &Path) -> anyhow::Result<SignedHead> {
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut last = String::new();
    for line in BufReader::new(file).lines() {
        let line = line.with_context(|| format!("reading {}", path.display()))?;
        if !line.trim().is_empty() {
            last = line;
        }
    }
    valv_ledger::export::read_last_line(&last)
        .with_context(|| format!("{} has no signed head at its end", path.display()))
}
