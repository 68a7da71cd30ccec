//! `valv admin`: what operators do for the cluster as a whole, and tokens for the admin service.

pub(crate) mod token;
mod usage;

/// `valv admin ...`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum AdminCommand {
    /// Shows a running server's disks, its last census and what repair is doing.
    Status(super::status::StatusArgs),
    /// Tokens, with which users talk to the admin service: create, list, revoke.
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Shows whom the server takes you for.
    #[command(name = "whoami")]
    WhoAmI(token::WhoAmIArgs),
    /// Shows what every project held, asked and was sent in a month.
    Usage(usage::AdminUsageArgs),
}

/// Runs the command.
pub(crate) async fn run(command: AdminCommand) -> anyhow::Result<()> {
    match command {
        AdminCommand::Status(args) => super::status::run(args).await,
        AdminCommand::Token(command) => token::run(command).await,
        AdminCommand::WhoAmI(args) => token::whoami(args).await,
        AdminCommand::Usage(args) => usage::run(args).await,
    }
}
