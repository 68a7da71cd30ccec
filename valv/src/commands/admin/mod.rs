//! `valv admin`: what operators do for the cluster as a whole, and tokens for the admin service.

pub(crate) mod custodian;
pub(crate) mod disk;
pub(crate) mod horizon;
mod key;
pub(crate) mod token;
mod unseal;
mod usage;
mod zone;

use anyhow::Context;
use valv_gateway::http_date;
use valv_types::TimestampMicros;

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
    /// Network zones: names for networks, to which openings are bound.
    #[command(subcommand)]
    Zone(zone::ZoneCommand),
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
    /// Custodians: the organisations that run the hardware.
    #[command(subcommand)]
    Custodian(custodian::CustodianCommand),
    /// Disks: who runs each, and until when it is guaranteed.
    #[command(subcommand)]
    Disk(disk::DiskCommand),
    /// What has to be kept for longer than the hardware that it lies on is guaranteed, and what would cover it.
    Horizon(horizon::HorizonArgs),
}

/// Runs the command.
pub(crate) async fn run(command: AdminCommand) -> anyhow::Result<()> {
    match command {
        AdminCommand::Status(args) => super::status::run(args).await,
        AdminCommand::Token(command) => token::run(command).await,
        AdminCommand::WhoAmI(args) => token::whoami(args).await,
        AdminCommand::Zone(command) => zone::run(command).await,
        AdminCommand::Usage(args) => usage::run(args).await,
        AdminCommand::Key(command) => key::run(command).await,
        AdminCommand::Unseal(args) => unseal::unseal(args).await,
        AdminCommand::SealStatus(args) => unseal::status(args).await,
        AdminCommand::Custodian(command) => custodian::run(command).await,
        AdminCommand::Disk(command) => disk::run(command).await,
        AdminCommand::Horizon(args) => horizon::run(args).await,
    }
}

/// Reads a date (`2031-06-30`, its midnight in UTC) or a time (`2031-06-30T12:00:00Z`).
pub(crate) fn date(text: &str) -> anyhow::Result<TimestampMicros> {
    http_date::parse_iso8601(text)
        .or_else(|| http_date::parse_iso8601(&format!("{text}T00:00:00Z")))
        .with_context(|| format!("{text:?} is no date such as 2031-06-30, and no time such as 2031-06-30T12:00:00Z"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_its_midnight_in_utc() {
        assert_eq!(date("1970-01-02").unwrap(), TimestampMicros::from_secs(86_400));
        assert_eq!(date("1970-01-02T00:00:01Z").unwrap(), TimestampMicros::from_secs(86_401));
        assert_eq!(date("1970-01-02T02:00:00+02:00").unwrap(), TimestampMicros::from_secs(86_400));
        for text in ["", "soon", "2031-13-01", "1969-12-31", "31.12.2031"] {
            assert!(date(text).is_err(), "{text}");
        }
    }
}
