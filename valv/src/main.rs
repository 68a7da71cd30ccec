//! The `valv` program: the server in any combination of its roles, and the commands that steer it.
//!
//! This crate wires the others together and knows every one of them; none of them knows it. `anyhow` is used here and
//! nowhere below.

mod admin;
mod bench;
mod commands;
mod config;
mod credentials;
mod identity;
mod server;
mod tls;

use clap::{CommandFactory, Parser, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// The system's allocator keeps what many threads have freed: after an hour of mixed load the process held twice its
/// buffers. jemalloc gives it back (`.cargo/config.toml` has its settings).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A long-term encrypted object store for sensitive research data.
#[derive(Debug, Parser)]
#[command(name = "valv", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a server: gateway, metadata and storage, or those that the configuration names.
    Server(ServerArgs),
    /// Shows a running server's disks, its last census and what repair is doing.
    Status(commands::status::StatusArgs),
    /// Exchanges disks.
    #[command(subcommand)]
    Disk(commands::disk::DiskCommand),
    /// Exports the metadata.
    #[command(subcommand)]
    Metadata(commands::metadata::MetadataCommand),
    /// What controllers, stewards and auditors do with their projects.
    #[command(subcommand)]
    Project(commands::project::ProjectCommand),
    /// What operators do for the cluster as a whole.
    #[command(subcommand)]
    Admin(commands::admin::AdminCommand),
    /// Verifies receipts, certificates and reports.
    #[command(subcommand)]
    Statement(commands::statement::StatementCommand),
    /// Exports, proves and verifies the ledger of a project.
    #[command(subcommand)]
    Ledger(commands::ledger::LedgerCommand),
    /// Backs keys up, and seals the root key.
    #[command(subcommand)]
    Key(commands::key::KeyCommand),
    /// Makes, shows, changes and deletes users and their access keys.
    #[command(subcommand)]
    User(commands::user::UserCommand),
    /// Shows and answers acts that wait for a second person.
    #[command(subcommand)]
    Proposal(commands::proposal::ProposalCommand),
    /// Measures an S3 endpoint.
    Bench(bench::BenchArgs),
    /// Prints a completion script for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// `valv server`.
#[derive(Debug, clap::Args)]
struct ServerArgs {
    /// The configuration file; without one, all roles run over one data folder.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The data folder [default: valv-data].
    #[arg(long)]
    data: Option<PathBuf>,
    /// Where S3 is served [default: 127.0.0.1:9000].
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// Starts although the metadata is lost and its mirror on the disks does not provably give everything back. What is
    /// missing then is missing for good: use it only when no disk that is away can be brought back.
    #[arg(long)]
    accept_metadata_loss: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        // Blocking work is bounded per disk and per upload; this is the backstop for all of it together.
        .max_blocking_threads(128)
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| {
            let outcome = runtime.block_on(run(cli.command));
            // Whatever still blocks after the drain must not keep the process alive for ever.
            runtime.shutdown_timeout(std::time::Duration::from_secs(10));
            outcome
        });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("valv: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Server(args) => {
            let overrides = config::Overrides {
                data: args.data,
                listen: args.listen,
                accept_metadata_loss: args.accept_metadata_loss,
                lifecycle_day: std::env::var(config::LIFECYCLE_DAY_VARIABLE).ok(),
            };
            server::run(config::load(args.config.as_deref(), overrides)?).await
        }
        Command::Status(args) => commands::status::run(args).await,
        Command::Disk(command) => commands::disk::run(command).await,
        Command::Metadata(command) => commands::metadata::run(command).await,
        Command::Ledger(command) => commands::ledger::run(command).await,
        Command::Project(command) => commands::project::run(command).await,
        Command::Statement(command) => commands::statement::run(command),
        Command::Key(command) => commands::key::run(command),
        Command::User(command) => commands::user::run(command).await,
        Command::Admin(command) => commands::admin::run(command).await,
        Command::Proposal(command) => commands::proposal::run(command).await,
        Command::Bench(args) => bench::run(args).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "valv", &mut std::io::stdout());
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
