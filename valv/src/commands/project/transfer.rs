//! `valv project transfer`.

use crate::admin::{self, Channel, ServerArg, refused};
use crate::commands::create_private;
use crate::commands::output::{confirm, print_fields, print_json, time};
use anyhow::Context;
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;
use valv_proto::admin::v1::custody_client::CustodyClient;
use valv_proto::admin::v1::*;

const ABOUT: &str = "\
A project goes to another controller in two steps, each by one side with its own token, each in the
project's ledger:

  valv project transfer offer cohort-7 --to eva --organisation 'University B' \\
      --contact data@b.example --reason 'the group moves' --reference 'agreement 12/2026'
  valv project transfer show cohort-7                  eva reads what she is offered ...
  valv project transfer accept cohort-7 --receipt r.json      ... and accepts

From then on eva is controller, and the controllers of before are no members any more, unless the
offer says --keep-controllers. Everybody else stays a member, and openings stay as they are: look at
both, and end what should end.";

/// `valv project transfer ...`.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = ABOUT)]
pub(crate) enum TransferCommand {
    /// Offers a project to another controller.
    Offer(OfferArgs),
    /// Shows what is offered, or how the last offer ended.
    Show(ShowArgs),
    /// Accepts what is offered to you: you answer for the data from then on.
    Accept(AcceptArgs),
    /// Withdraws your offer, or declines one that is made to you.
    Withdraw(WithdrawArgs),
}

/// `valv project transfer offer`.
#[derive(Debug, clap::Args)]
pub(crate) struct OfferArgs {
    #[command(flatten)]
    server: ServerArg,
    /// The project's name.
    project: String,
    /// The name of the user who may accept.
    #[arg(long)]
    to: String,
    /// The organisation that will answer for the data.
    #[arg(long)]
    organisation: String,
    /// Whom to ask there.
    #[arg(long)]
    contact: String,
    /// Where the new side's legal basis is on file.
    #[arg(long, default_value = "", hide_default_value = true)]
    legal_basis: String,
    /// Where the ethics approval is on file, if that changes.
    #[arg(long, default_value = "", hide_default_value = true)]
    ethics_approval: String,
    /// Why the project goes.
    #[arg(long)]
    reason: String,
    /// The agreement that it rests on.
    #[arg(long, default_value = "", hide_default_value = true)]
    reference: String,
    /// Today's controllers stay members with their roles.
    #[arg(long)]
    keep_controllers: bool,
    /// For how many days it may be accepted.
    #[arg(long, default_value_t = 30)]
    valid_days: u32,
    /// Print JSON for scripts.
    #[arg(long)]
    json: bool,
}

/// `valv project transfer show`.
#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    server: ServerArg,
    /// The project's name.
    project: String,
    /// Print JSON for scripts.
    #[arg(long)]
    json: bool,
}

/// `valv project transfer accept`.
#[derive(Debug, clap::Args)]
pub(crate) struct AcceptArgs {
    #[command(flatten)]
    server: ServerArg,
    /// The project's name.
    project: String,
    /// The offer that you have read; without it, the one that stands now is shown first.
    #[arg(long)]
    offer: Option<String>,
    /// Where to write the signed receipt; the file must not exist.
    #[arg(long)]
    receipt: Option<PathBuf>,
    /// Don't ask.
    #[arg(long)]
    yes: bool,
}

/// `valv project transfer withdraw`.
#[derive(Debug, clap::Args)]
pub(crate) struct WithdrawArgs {
    #[command(flatten)]
    server: ServerArg,
    /// The project's name.
    project: String,
    /// Why. For the ledger.
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

/// Runs the command.
pub(crate) async fn run(command: TransferCommand) -> anyhow::Result<()> {
    match command {
        TransferCommand::Offer(args) => {
            let request = OfferTransferRequest {
                project: args.project,
                to: args.to,
                terms: Some(TransferTerms {
                    organisation: args.organisation,
                    contact: args.contact,
                    legal_basis: args.legal_basis,
                    ethics_approval: args.ethics_approval,
                    reason: args.reason,
                    reference: args.reference,
                }),
                keeps_controllers: args.keep_controllers,
                valid_secs: u64::from(args.valid_days) * 24 * 3600,
            };
            let offered = connect(&args.server).await?.offer_transfer(request).await.map_err(refused)?.into_inner();
            show(&offered, args.json)
        }
        TransferCommand::Show(args) => {
            let request = GetTransferRequest { project: args.project };
            let found = connect(&args.server).await?.get_transfer(request).await.map_err(refused)?.into_inner();
            show(&found, args.json)
        }
        TransferCommand::Accept(args) => accept(args).await,
        TransferCommand::Withdraw(args) => {
            let request = WithdrawTransferRequest { project: args.project, reason: args.reason };
            let ended = connect(&args.server).await?.withdraw_transfer(request).await.map_err(refused)?.into_inner();
            println!("the offer of {} to {} is {}", ended.project, ended.to, ended.state);
            Ok(())
        }
    }
}

async fn accept(args: AcceptArgs) -> anyhow::Result<()> {
    let mut client = connect(&args.server).await?;
    let offer = match args.offer {
        Some(offer) => offer,
        None => {
            let request = GetTransferRequest { project: args.project.clone() };
            let found = client.get_transfer(request).await.map_err(refused)?.into_inner();
            show(&found, false)?;
            found.offer
        }
    };
    confirm(&format!("makes you the controller of {}", args.project), &args.project, args.yes)?;
    // Before the act: a receipt that can't be written should not come to light after it.
    let file = match &args.receipt {
        Some(path) => Some(create_private(path).with_context(|| format!("creating {}", path.display()))?),
        None => None,
    };
    let request = AcceptTransferRequest { project: args.project.clone(), offer };
    let reply = client.accept_transfer(request).await;
    if let (Err(_), Some(path)) = (&reply, &args.receipt) {
        // Nothing was accepted, so there is nothing to keep: an empty file would only be in the way of the next attempt.
        let _ = std::fs::remove_file(path);
    }
    let reply = reply.map_err(refused)?.into_inner();
    if let (Some(mut file), Some(path)) = (file, &args.receipt) {
        let written = file.write_all(reply.receipt.as_bytes()).and_then(|()| file.sync_all());
        written.with_context(|| format!("writing {}: {}", path.display(), reply.receipt))?;
        println!("the receipt is in {}; `valv statement verify` checks it", path.display());
    }
    println!("you are controller of {} from now on", args.project);
    for name in reply.transfer.map(|transfer| transfer.removed).unwrap_or_default() {
        println!("no member any more: {name}");
    }
    Ok(())
}

async fn connect(to: &ServerArg) -> anyhow::Result<CustodyClient<Channel>> {
    Ok(CustodyClient::new(admin::channel(to).await?).max_decoding_message_size(admin::ADMIN_MESSAGE_BYTES_MAX))
}

fn show(transfer: &Transfer, json: bool) -> anyhow::Result<()> {
    let terms = transfer.terms.clone().unwrap_or_default();
    if json {
        return print_json(&json!({
            "offer": transfer.offer, "state": transfer.state, "project": transfer.project,
            "offered_by": transfer.offered_by, "to": transfer.to, "offered": time(transfer.offered_micros),
            "expires": time(transfer.expires_micros), "keeps_controllers": transfer.keeps_controllers,
            "from_organisation": transfer.from_organisation, "organisation": terms.organisation,
            "contact": terms.contact, "legal_basis": terms.legal_basis, "ethics_approval": terms.ethics_approval,
            "reason": terms.reason, "reference": terms.reference, "settled": transfer.settled_micros.map(time),
            "removed": transfer.removed,
        }));
    }
    let after = if transfer.keeps_controllers { "stay members" } else { "are no members any more" };
    print_fields(&[
        ("project", transfer.project.clone()),
        ("state", transfer.state.clone()),
        ("offer", transfer.offer.clone()),
        ("offered by", transfer.offered_by.clone()),
        ("to", transfer.to.clone()),
        ("offered", time(transfer.offered_micros)),
        ("expires", time(transfer.expires_micros)),
        ("from organisation", transfer.from_organisation.clone()),
        ("to organisation", terms.organisation),
        ("contact", terms.contact),
        ("legal basis", terms.legal_basis),
        ("ethics approval", terms.ethics_approval),
        ("reason", terms.reason),
        ("reference", terms.reference),
        ("today's controllers", after.to_owned()),
        ("settled", transfer.settled_micros.map(time).unwrap_or_default()),
    ]);
    Ok(())
}
