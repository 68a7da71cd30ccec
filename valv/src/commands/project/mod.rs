//! `valv project`: what controllers, stewards and auditors do with their projects.

mod report;
pub(crate) mod usage;

/// `valv project ...`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ProjectCommand {
    /// Writes a signed receipt: what came in, went out, was repaired, moved or disposed of.
    Receipt(report::ReceiptArgs),
    /// Writes a signed report of what is verified, since when, and what is missing.
    Fixity(report::FixityArgs),
    /// Shows what a project held, asked and was sent in a month.
    Usage(usage::ProjectUsageArgs),
}

/// Runs the command.
pub(crate) async fn run(command: ProjectCommand) -> anyhow::Result<()> {
    match command {
        ProjectCommand::Receipt(args) => report::receipt(args).await,
        ProjectCommand::Fixity(args) => report::fixity(args).await,
        ProjectCommand::Usage(args) => usage::run(args).await,
    }
}
