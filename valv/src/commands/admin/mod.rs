//! `valv admin`: what operators do for the cluster as a whole.

mod usage;

/// `valv admin ...`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum AdminCommand {
    /// Shows what every project held, asked and was sent in a month.
    Usage(usage::AdminUsageArgs),
}

/// Runs the command.
pub(crate) async fn run(command: AdminCommand) -> anyhow::Result<()> {
    match command {
        AdminCommand::Usage(args) => usage::run(args).await,
    }
}
