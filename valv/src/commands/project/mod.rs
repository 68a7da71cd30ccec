//! `valv project`: what controllers, stewards and auditors do with their projects.

pub(crate) mod usage;

/// `valv project ...`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ProjectCommand {
    /// Shows what a project held, asked and was sent in a month.
    Usage(usage::ProjectUsageArgs),
}

/// Runs the command.
pub(crate) async fn run(command: ProjectCommand) -> anyhow::Result<()> {
    match command {
        ProjectCommand::Usage(args) => usage::run(args).await,
    }
}
