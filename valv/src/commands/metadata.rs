//! `valv metadata`.

use super::{DataArg, create_private};
use crate::{admin, server};
use anyhow::Context;
use std::io::Write;
use std::path::PathBuf;
use valv_proto::admin::v1::ExportMetadataRequest;

/// `valv metadata ...`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum MetadataCommand {
    /// Writes the record of every object version to a file, as JSON Lines. Asks the running server; if none runs over the
    /// data folder, reads the folder itself.
    Export(ExportArgs),
}

/// `valv metadata export`.
#[derive(Debug, clap::Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    data: DataArg,
    #[command(flatten)]
    open: super::key::OpenArgs,
    /// The file to write; it must not exist.
    #[arg(long)]
    out: PathBuf,
}

/// Runs the command.
pub(crate) async fn run(command: MetadataCommand) -> anyhow::Result<()> {
    let MetadataCommand::Export(args) = command;
    let data = &args.data.data;
    let client = match (admin::connect(&args.data).await, &args.data.server) {
        (Ok(client), _) => Some(client),
        (Err(error), Some(_)) => return Err(error),
        (Err(_), None) => None,
    };
    let Some(mut client) = client else {
        let mut file = create_private(&args.out).with_context(|| format!("creating {}", args.out.display()))?;
        let lines = server::export_offline(data, args.open.root(data)?, &mut file).await?;
        file.sync_all().with_context(|| format!("writing {}", args.out.display()))?;
        println!("{} holds {lines} records", args.out.display());
        return Ok(());
    };
    let mut pieces = client.export_metadata(ExportMetadataRequest {}).await.map_err(admin::refused)?.into_inner();
    let mut file = create_private(&args.out).with_context(|| format!("creating {}", args.out.display()))?;
    let bar = indicatif::ProgressBar::new_spinner();
    let mut written = 0;
    while let Some(piece) = pieces.message().await.context("the export broke off: the file is incomplete")? {
        file.write_all(&piece.json_lines).with_context(|| format!("writing {}", args.out.display()))?;
        written += piece.json_lines.len() as u64;
        bar.set_message(indicatif::BinaryBytes(written).to_string());
        bar.tick();
    }
    file.sync_all().with_context(|| format!("writing {}", args.out.display()))?;
    bar.finish_and_clear();
    println!("{} holds {written} bytes of records", args.out.display());
    Ok(())
}
