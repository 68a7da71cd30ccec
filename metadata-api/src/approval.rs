//! Acts that need more than one person: proposed by one, approved by another, and only then carried out.
//!
//! A proposal is a row. Proposing, approving, rejecting and carrying out are one commit each, with a record in the project's
//! ledger. Nobody approves their own proposal. Acts that can't be undone wait a cooling-off time after the approval, in
//! which anybody who might have approved can still reject.

use crate::{Actor, ProjectRetention, Role};
use minicbor::{Decode, Encode};
use valv_types::{CommitId, DisposalId, ProjectId, ProposalId, TimestampMicros, UserId};

/// A proposal that nobody has answered for this long can't be approved any more, in seconds: 30 days.
pub const PROPOSAL_SECS_MAX: u64 = 30 * 24 * 3600;
/// Longest reason or reference of a proposal, in bytes.
pub const REASON_LEN_BYTES_MAX: usize = 4096;

/// What is proposed. Each variant says who may propose and who may approve it: see [`Act::rules`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Act {
    /// Appoints a controller in a governed project whose controllers are gone: see [`AppointController`].
    #[n(1)]
    AppointController(#[n(0)] AppointController),
    /// Moves cluster time forward: see [`AdvanceClock`].
    #[n(2)]
    AdvanceClock(#[n(0)] AdvanceClock),
    /// Destroys a project's keys, and with them all that it holds: see [`crate::ShredProject`].
    #[n(50)]
    ShredProject(#[n(0)] crate::ShredProject),
    /// Destroys the key of one object version: see [`crate::ShredObject`].
    #[n(51)]
    ShredObject(#[n(0)] crate::ShredObject),
    /// Makes an opening.
    #[n(160)]
    CreateOpening(#[n(0)] Box<crate::NewOpening>),
    /// Lets one controller alone make openings again: see [`OneControllerOpens`].
    #[n(161)]
    OneControllerOpens(#[n(0)] OneControllerOpens),
    /// Disposes of what a list names: see [`Dispose`].
    #[n(200)]
    Dispose(#[n(0)] Dispose),
    /// Lowers what a project's retention class demands: see [`LowerRetention`].
    #[n(201)]
    LowerRetention(#[n(0)] LowerRetention),
}

/// Takes back a project's wish that a second controller approves each opening. What a controller alone could take back would
/// bind nobody.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct OneControllerOpens {
    /// The project.
    #[n(0)]
    pub project: ProjectId,
}

/// Disposes of the versions on a list that was made before. Each is judged again when its turn comes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Dispose {
    /// The project.
    #[n(0)]
    pub project: ProjectId,
    /// The list. The proposal has the same id.
    #[n(1)]
    pub disposal: DisposalId,
}

/// Lowers a project's retention class. What was written before keeps the dates it has.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct LowerRetention {
    /// The project.
    #[n(0)]
    pub project: ProjectId,
    /// The class from then on.
    #[n(1)]
    pub retention: ProjectRetention,
}

/// Appoints a controller: the way back when a project's controllers have left without naming another. Two operators decide,
/// the members are told by their ledger, and a controller who is still there can reject it while it cools off.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct AppointController {
    /// The governed project.
    #[n(0)]
    pub project: ProjectId,
    /// The user who becomes controller.
    #[n(1)]
    pub user: UserId,
}

/// Moves cluster time forward. It stands still while no server runs, so after a long rest retention lasts longer than its
/// dates say; two operators may have it catch up, never beyond the clock of the server that does it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct AdvanceClock {
    /// What cluster time becomes.
    #[n(0)]
    pub to: TimestampMicros,
}

/// Who may propose or approve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Operators.
    Operators,
    /// Members of the act's project with one of these roles. In a project without members: operators.
    Members(&'static [Role]),
}

/// What an act demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActRules {
    /// Its name, for people and for the ledger.
    pub name: &'static str,
    /// Who may propose it.
    pub proposer: Who,
    /// Who may approve it; always another person.
    pub approver: Who,
    /// Whether it waits the cooling-off time after the approval.
    pub cools_off: bool,
}

impl Act {
    /// What it demands.
    pub fn rules(&self) -> ActRules {
        match self {
            Self::AppointController(_) => ActRules {
                name: "appoint controller",
                proposer: Who::Operators,
                approver: Who::Operators,
                cools_off: true,
            },
            Self::AdvanceClock(_) => {
                ActRules { name: "advance clock", proposer: Who::Operators, approver: Who::Operators, cools_off: true }
            }
            Self::ShredProject(_) => ActRules {
                name: "destroy project key",
                proposer: Who::Members(&[Role::Controller]),
                approver: Who::Members(&[Role::Controller, Role::Steward]),
                cools_off: true,
            },
            Self::ShredObject(_) => ActRules {
                name: "destroy object key",
                proposer: Who::Members(&[Role::Controller]),
                approver: Who::Members(&[Role::Controller, Role::Steward]),
                cools_off: true,
            },
            Self::CreateOpening(_) => ActRules {
                name: "create opening",
                proposer: Who::Members(&[Role::Controller]),
                approver: Who::Members(&[Role::Controller]),
                // It can be revoked.
                cools_off: false,
            },
            Self::OneControllerOpens(_) => ActRules {
                name: "let one controller open",
                proposer: Who::Members(&[Role::Controller]),
                approver: Who::Members(&[Role::Controller]),
                cools_off: true,
            },
            Self::Dispose(_) => ActRules {
                name: "dispose",
                proposer: Who::Members(&[Role::Controller]),
                approver: Who::Members(&[Role::Controller, Role::Steward]),
                // What is removed waits in the trash.
                cools_off: false,
            },
            Self::LowerRetention(_) => ActRules {
                name: "lower retention",
                proposer: Who::Members(&[Role::Controller]),
                approver: Who::Members(&[Role::Controller]),
                cools_off: true,
            },
        }
    }

    /// Whether it holds nothing but ids and numbers, so that it may lie open in metadata.
    pub fn is_ids_only(&self) -> bool {
        match self {
            Self::AppointController(_)
            | Self::AdvanceClock(_)
            | Self::Dispose(_)
            | Self::ShredProject(_)
            | Self::OneControllerOpens(_) => true,
            // It names the object.
            Self::LowerRetention(_) | Self::ShredObject(_) | Self::CreateOpening(_) => false,
        }
    }

    /// The project that it is about; `None` for acts about the cluster.
    pub fn project(&self) -> Option<ProjectId> {
        match self {
            Self::AppointController(act) => Some(act.project),
            Self::CreateOpening(act) => Some(act.project),
            Self::OneControllerOpens(act) => Some(act.project),
            Self::AdvanceClock(_) => None,
            Self::Dispose(act) => Some(act.project),
            Self::LowerRetention(act) => Some(act.project),
            Self::ShredProject(act) => Some(act.project),
            Self::ShredObject(act) => Some(act.project),
        }
    }
}

/// Who asks, and with what right. Filled in by the admin service after authentication; roles are looked up again inside.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Person {
    /// The user, and through what the admin service was reached.
    #[n(0)]
    pub actor: Actor,
    /// Whether the credential is an operator's.
    #[n(1)]
    pub is_operator: bool,
}

/// Proposes an act.
#[derive(Debug, Clone, Encode, Decode)]
pub struct ProposeAct {
    /// What.
    #[n(0)]
    pub act: Act,
    /// Who proposes.
    #[n(1)]
    pub by: Person,
    /// Why.
    #[n(2)]
    pub reason: String,
    /// The decision that it rests on: a file number, an approval, a contract. Some acts demand one.
    #[n(3)]
    pub reference: String,
    /// Names the proposal, and resolves the outcome if the answer is lost.
    #[n(4)]
    pub commit: CommitId,
}

/// Approves or rejects a proposal, or withdraws one's own.
#[derive(Debug, Clone, Encode, Decode)]
pub struct AnswerProposal {
    /// Which.
    #[n(0)]
    pub proposal: ProposalId,
    /// Its project, `None` for acts about the cluster.
    #[n(1)]
    pub project: Option<ProjectId>,
    /// Who answers.
    #[n(2)]
    pub by: Person,
    /// Approve, or reject.
    #[n(3)]
    pub approve: bool,
    /// Why.
    #[n(4)]
    pub reason: String,
    /// Resolves the outcome if the answer is lost.
    #[n(5)]
    pub commit: CommitId,
}

/// Finds a proposal.
#[derive(Debug, Clone, Encode, Decode)]
pub struct GetProposal {
    /// Which.
    #[n(0)]
    pub proposal: ProposalId,
    /// Its project, `None` for acts about the cluster.
    #[n(1)]
    pub project: Option<ProjectId>,
}

/// Lists proposals, newest first.
#[derive(Debug, Clone, Encode, Decode)]
pub struct ListProposals {
    /// Of this project; `None`: those about the cluster.
    #[n(0)]
    pub project: Option<ProjectId>,
    /// Only those that are not settled yet.
    #[n(1)]
    pub open_only: bool,
}

/// How far a proposal is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ProposalState {
    /// Nobody has answered.
    #[n(1)]
    Waiting,
    /// Approved; carried out from this time on.
    #[n(2)]
    Approved {
        /// When the cooling-off is over.
        #[n(0)]
        not_before: TimestampMicros,
    },
    /// Rejected, or withdrawn by who proposed it.
    #[n(3)]
    Rejected,
    /// Carried out.
    #[n(4)]
    CarriedOut {
        /// What came of it: a JSON object.
        #[n(0)]
        result: String,
    },
    /// It could not be carried out, and will not be.
    #[n(5)]
    Failed {
        /// Why.
        #[n(0)]
        what: String,
    },
    /// Nobody answered in time.
    #[n(6)]
    Expired,
}

impl ProposalState {
    /// One word for it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Approved { .. } => "approved",
            Self::Rejected => "rejected",
            Self::CarriedOut { .. } => "carried out",
            Self::Failed { .. } => "failed",
            Self::Expired => "expired",
        }
    }

    /// Whether nothing more will come of it.
    pub fn is_settled(&self) -> bool {
        !matches!(self, Self::Waiting | Self::Approved { .. })
    }
}

/// One person's word on a proposal.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Decision {
    /// Whose.
    #[n(0)]
    pub user: UserId,
    /// When.
    #[n(1)]
    pub time: TimestampMicros,
    /// For or against.
    #[n(2)]
    pub approve: bool,
    /// Why.
    #[n(3)]
    pub reason: String,
    /// Through what the admin service was reached.
    #[n(4)]
    pub caller: String,
}

/// A proposal.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Proposal {
    /// Its id.
    #[n(0)]
    pub id: ProposalId,
    /// What is proposed.
    #[n(1)]
    pub act: Act,
    /// Who proposed it.
    #[n(2)]
    pub proposer: UserId,
    /// When.
    #[n(3)]
    pub proposed: TimestampMicros,
    /// Why.
    #[n(4)]
    pub reason: String,
    /// The decision that it rests on.
    #[n(5)]
    pub reference: String,
    /// How far it is.
    #[n(6)]
    pub state: ProposalState,
    /// What others said.
    #[n(7)]
    pub decisions: Vec<Decision>,
}

impl Proposal {
    /// The id of a commit that carries it out; `step` names which of several. The same each time, so that a second attempt
    /// finds what the first one did.
    pub fn commit(&self, step: &str) -> CommitId {
        let mut hasher = blake3::Hasher::new_derive_key("valv proposal commit v1");
        hasher.update(self.id.as_bytes()).update(step.as_bytes());
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        CommitId::from_bytes(id)
    }

    /// Everybody who wanted it: who proposed it first, then those who approved.
    pub fn deciders(&self) -> Vec<UserId> {
        let approvals = self.decisions.iter().filter(|decision| decision.approve).map(|decision| decision.user);
        std::iter::once(self.proposer).chain(approvals).collect()
    }
}

/// Why a proposal was refused, or an answer to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Encode, Decode)]
#[cbor(index_only)]
pub enum ApprovalRefusal {
    /// Two persons decide, so each has to be known: the server's socket proves none.
    #[error("two people decide on this, so each must be known: use a token or a certificate of a user")]
    #[n(1)]
    NobodyKnown,
    /// The role or the operator's right is missing.
    #[error("your role does not allow this")]
    #[n(2)]
    NotAllowed,
    /// Nobody approves their own proposal.
    #[error("nobody approves their own proposal: another person has to")]
    #[n(3)]
    OwnProposal,
    /// There is none.
    #[error("no such proposal")]
    #[n(4)]
    NoSuchProposal,
    /// It was answered, carried out, or has expired.
    #[error("this proposal is settled")]
    #[n(5)]
    Settled,
    /// A reason or reference is too long or has control characters, or a reference is missing.
    #[error(
        "a reason and a reference are text of at most {REASON_LEN_BYTES_MAX} bytes without control characters, and this act needs both"
    )]
    #[n(6)]
    ReasonMalformed,
    /// The act can't be done as things are.
    #[error("this act does not fit the state of the project")]
    #[n(7)]
    Unfit,
}
