//! `valv proposal`: acts that wait for a second person.

use super::DataArg;
use super::output::{print_fields, print_json, print_table, read_time, time};
use crate::admin::{self, Channel};
use serde_json::{Value, json};
use valv_proto::admin::v1::approvals_client::ApprovalsClient;
use valv_proto::admin::v1::{
    AnswerProposalRequest, GetProposalRequest, ListProposalsRequest, Proposal, ProposeClockStepRequest,
    ProposeControllerRequest,
};
use valv_types::TimestampMicros;

const ABOUT_PROPOSALS: &str = "\
Some acts need two people: one proposes, another approves. Acts that can't be undone then wait a
cooling-off time, in which they can still be rejected. Each person is known by a token of their own.

  valv proposal list --project cohort-7
  valv proposal approve 5f2c... --project cohort-7 --reason 'checked against decision 2036/14'
  valv proposal reject 5f2c... --project cohort-7 --reason 'the list names the wrong bucket'";

/// `valv proposal ...`.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = ABOUT_PROPOSALS)]
pub(crate) enum ProposalCommand {
    /// Lists proposals, newest first.
    List(ListArgs),
    /// Shows a proposal and what was said on it.
    Show(ShowArgs),
    /// Approves another person's proposal.
    Approve(AnswerArgs),
    /// Rejects a proposal, or withdraws your own.
    Reject(AnswerArgs),
    /// Proposes to appoint a controller in a project whose controllers are gone. Two operators decide.
    AppointController(AppointArgs),
    /// Proposes to move cluster time forward, by which retention is judged. Two operators decide.
    AdvanceClock(ClockArgs),
}

/// `valv proposal list`.
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    data: DataArg,
    /// The project's name; without one, proposals about the cluster.
    #[arg(long, default_value = "")]
    project: String,
    /// Those that are settled, too.
    #[arg(long)]
    all: bool,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// `valv proposal show`.
#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    data: DataArg,
    /// The proposal's id.
    id: String,
    /// The project's name; without one, a proposal about the cluster.
    #[arg(long, default_value = "")]
    project: String,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// `valv proposal approve` and `reject`.
#[derive(Debug, clap::Args)]
pub(crate) struct AnswerArgs {
    #[command(flatten)]
    data: DataArg,
    /// The proposal's id.
    id: String,
    /// The project's name; without one, a proposal about the cluster.
    #[arg(long, default_value = "")]
    project: String,
    /// Why. It is kept in the ledger.
    #[arg(long, default_value = "")]
    reason: String,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// `valv proposal appoint-controller`.
#[derive(Debug, clap::Args)]
pub(crate) struct AppointArgs {
    #[command(flatten)]
    data: DataArg,
    /// The project's name.
    #[arg(long)]
    project: String,
    /// The user who becomes controller.
    #[arg(long)]
    user: String,
    /// Why.
    #[arg(long)]
    reason: String,
    /// The decision that it rests on: a file number, a contract.
    #[arg(long)]
    reference: String,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// `valv proposal advance-clock`.
#[derive(Debug, clap::Args)]
pub(crate) struct ClockArgs {
    #[command(flatten)]
    data: DataArg,
    /// What cluster time becomes (RFC 3339), at most what the server's clock says [default: this moment].
    #[arg(long)]
    to: Option<String>,
    /// Why.
    #[arg(long)]
    reason: String,
    /// The decision that it rests on.
    #[arg(long)]
    reference: String,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) async fn run(command: ProposalCommand) -> anyhow::Result<()> {
    match command {
        ProposalCommand::List(args) => list(args).await,
        ProposalCommand::Show(args) => {
            let request = GetProposalRequest { project: args.project, proposal: args.id };
            let proposal = connect(&args.data).await?.get_proposal(request).await.map_err(admin::refused)?;
            show(&proposal.into_inner(), args.json)
        }
        ProposalCommand::Approve(args) => answer(args, true).await,
        ProposalCommand::Reject(args) => answer(args, false).await,
        ProposalCommand::AppointController(args) => {
            let request = ProposeControllerRequest {
                project: args.project,
                user: args.user,
                reason: args.reason,
                reference: args.reference,
            };
            let proposal = connect(&args.data).await?.propose_controller(request).await.map_err(admin::refused)?;
            show(&proposal.into_inner(), args.json)
        }
        ProposalCommand::AdvanceClock(args) => {
            let to = match &args.to {
                None => TimestampMicros::now(),
                Some(text) => read_time(text)?,
            };
            let request = ProposeClockStepRequest { to_micros: to.0, reason: args.reason, reference: args.reference };
            let proposal = connect(&args.data).await?.propose_clock_step(request).await.map_err(admin::refused)?;
            show(&proposal.into_inner(), args.json)
        }
    }
}

async fn connect(data: &DataArg) -> anyhow::Result<ApprovalsClient<Channel>> {
    Ok(ApprovalsClient::new(admin::channel(data).await?))
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let request = ListProposalsRequest { project: args.project, open_only: !args.all };
    let reply = connect(&args.data).await?.list_proposals(request).await.map_err(admin::refused)?;
    let proposals = reply.into_inner().proposals;
    if args.json {
        return print_json(&proposals.iter().map(to_json).collect());
    }
    let row = |proposal: &Proposal| {
        vec![
            proposal.id.clone(),
            proposal.act.clone(),
            proposal.state.clone(),
            proposal.proposer.clone(),
            time(proposal.proposed_micros),
        ]
    };
    print_table(&["proposal", "act", "state", "by", "when"], proposals.iter().map(row).collect());
    Ok(())
}

async fn answer(args: AnswerArgs, approve: bool) -> anyhow::Result<()> {
    let request = AnswerProposalRequest { project: args.project, proposal: args.id, approve, reason: args.reason };
    let proposal = connect(&args.data).await?.answer_proposal(request).await.map_err(admin::refused)?;
    show(&proposal.into_inner(), args.json)
}

/// Prints a proposal: what every command that makes one shows.
pub(crate) fn show(proposal: &Proposal, json: bool) -> anyhow::Result<()> {
    if json {
        return print_json(&to_json(proposal));
    }
    let not_before = match proposal.not_before_micros {
        0 => String::new(),
        micros => time(micros),
    };
    print_fields(&[
        ("proposal", proposal.id.clone()),
        ("project", proposal.project.clone()),
        ("act", proposal.act.clone()),
        ("facts", proposal.facts.clone()),
        ("reason", proposal.reason.clone()),
        ("reference", proposal.reference.clone()),
        ("proposed by", proposal.proposer.clone()),
        ("proposed", time(proposal.proposed_micros)),
        ("state", proposal.state.clone()),
        ("carried out from", not_before),
        ("result", proposal.result.clone()),
        ("to approve", if proposal.state == "waiting" { proposal.approvers.clone() } else { String::new() }),
    ]);
    for decision in &proposal.decisions {
        let word = if decision.approve { "approved" } else { "rejected" };
        println!("{word} by {} at {}: {}", decision.user, time(decision.time_micros), decision.reason);
    }
    Ok(())
}

fn to_json(proposal: &Proposal) -> Value {
    let parsed = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| json!(text));
    json!({
        "id": proposal.id, "project": proposal.project, "act": proposal.act, "facts": parsed(&proposal.facts),
        "proposer": proposal.proposer, "proposed_micros": proposal.proposed_micros, "reason": proposal.reason,
        "reference": proposal.reference, "state": proposal.state, "not_before_micros": proposal.not_before_micros,
        "result": parsed(&proposal.result), "approvers": proposal.approvers,
        "decisions": proposal.decisions.iter().map(|decision| json!({
            "user": decision.user, "time_micros": decision.time_micros, "approve": decision.approve,
            "reason": decision.reason,
        })).collect::<Vec<_>>(),
    })
}
