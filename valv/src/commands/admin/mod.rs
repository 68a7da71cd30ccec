//! `valv admin`: what operators do for the cluster as a whole, and tokens for the admin service.

mod key;
pub(crate) mod token;
mod unseal;
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
    /// The root key.
    #[command(subcommand)]
    Key(key::AdminKeyCommand),
    /// Gives a sealed server a share of its root key's seal.
    ///
    /// Each keeper of a share runs it, in any order; the share that reaches the threshold opens the server.
    Unseal(unseal::UnsealArgs),
    /// Says whether the server is sealed.
    SealStatus(unseal::SealStatusArgs),
}

/// Runs the command.
pub(crate) async fn run(command: AdminCommand) -> anyhow::Result<()> {
    match command {
        AdminCommand::Status(args) => super::status::run(args).await,
        AdminCommand::Token(command) => token::run(command).await,
        AdminCommand::WhoAmI(args) => token::whoami(args).await,
        AdminCommand::Usage(args) => usage::run(args).await,
        AdminCommand::Key(command) => key::run(command).await,
        AdminCommand::Unseal(args) => unseal::unseal(args).await,
        AdminCommand::SealStatus(args) => unseal::status(args).await,
    }
}
