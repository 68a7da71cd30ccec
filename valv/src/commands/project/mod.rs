//! `valv project`: what controllers, stewards and auditors do with their projects.

mod disposal;
mod hold;
mod key;
pub(crate) mod manage;
mod manifest;
pub(crate) mod opening;
mod report;
mod retention;
mod transfer;
mod trash;
pub(crate) mod usage;

/// `valv project ...`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ProjectCommand {
    /// Writes a signed receipt: what came in, went out, was repaired, moved or disposed of.
    Receipt(report::ReceiptArgs),
    /// Writes a signed report of what is verified, since when, and what is missing.
    Fixity(report::FixityArgs),
    /// Makes a project and names its first controller. For operators.
    Create(manage::CreateArgs),
    /// Lists projects: all for operators, your own for members.
    List(manage::ListArgs),
    /// Shows a project.
    Show(manage::ShowArgs),
    /// Changes what is said of a project (controllers) or its limits (operators).
    Update(manage::UpdateArgs),
    /// Hands a project that has no members to its first controller. For operators.
    Govern(manage::GovernArgs),
    /// Members and their roles: add, remove, list.
    #[command(subcommand)]
    Member(manage::MemberCommand),
    /// Hands a project to another controller: offer, show, accept, withdraw.
    #[command(subcommand)]
    Transfer(transfer::TransferCommand),
    /// How long a project keeps what is written into it, and extension of what there is.
    #[command(subcommand)]
    Retention(retention::RetentionCommand),
    /// Legal holds on a project, a bucket or a prefix: set, released, listed.
    #[command(subcommand)]
    Hold(hold::HoldCommand),
    /// Disposal at the end of retention: a list, a second person's approval, a receipt.
    #[command(subcommand)]
    Disposal(disposal::DisposalCommand),
    /// Lists what was removed and can still be brought back, and brings it back.
    #[command(subcommand)]
    Trash(trash::TrashCommand),
    /// Writes the signed checksum manifest of a bucket, or checks files against one.
    Manifest(manifest::ManifestArgs),
    /// Openings: lets somebody in who is not a member, and out again.
    #[command(subcommand)]
    Opening(opening::OpeningCommand),
    /// Shows what a project held, asked and was sent in a month.
    Usage(usage::ProjectUsageArgs),
    /// The project's key: rotate it, list its versions.
    #[command(subcommand)]
    Key(key::ProjectKeyCommand),
    /// Destroys keys, so that nobody can read again what is under them.
    #[command(subcommand)]
    Shred(key::ShredCommand),
}

/// Runs the command.
pub(crate) async fn run(command: ProjectCommand) -> anyhow::Result<()> {
    match command {
        ProjectCommand::Receipt(args) => report::receipt(args).await,
        ProjectCommand::Fixity(args) => report::fixity(args).await,
        ProjectCommand::Create(args) => manage::create(args).await,
        ProjectCommand::List(args) => manage::list(args).await,
        ProjectCommand::Show(args) => manage::show(args).await,
        ProjectCommand::Update(args) => manage::update(args).await,
        ProjectCommand::Govern(args) => manage::govern(args).await,
        ProjectCommand::Member(command) => manage::member(command).await,
        ProjectCommand::Transfer(command) => transfer::run(command).await,
        ProjectCommand::Retention(command) => retention::run(command).await,
        ProjectCommand::Hold(command) => hold::run(command).await,
        ProjectCommand::Disposal(command) => disposal::run(command).await,
        ProjectCommand::Trash(command) => trash::run(command).await,
        ProjectCommand::Manifest(args) => manifest::run(args).await,
        ProjectCommand::Opening(command) => opening::run(command).await,
        ProjectCommand::Usage(args) => usage::run(args).await,
        ProjectCommand::Key(command) => key::run(command).await,
        ProjectCommand::Shred(command) => key::shred(command).await,
    }
}
