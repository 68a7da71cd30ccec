//! Transfer of a project to another controller: offered by a controller, accepted by the other side, recorded by both acts.

use crate::Person;
use minicbor::{Decode, Encode};
use valv_types::{CommitId, ProjectId, TimestampMicros, UserId};

/// Longest time for which a transfer is offered, in seconds: 180 days, for two legal departments.
pub const TRANSFER_OFFER_SECS_MAX: u64 = 180 * 24 * 3600;

/// What is said of a transfer. Kept sealed under the project's key.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct TransferTerms {
    /// The organisation that will answer for the data.
    #[n(0)]
    pub organisation: String,
    /// Whom to ask there.
    #[n(1)]
    pub contact: String,
    /// Where the new side's legal basis is on file.
    #[n(2)]
    pub legal_basis: String,
    /// Where the ethics approval is on file; empty leaves it as it is.
    #[n(3)]
    pub ethics_approval: String,
    /// Why the project goes.
    #[n(4)]
    pub reason: String,
    /// The agreement that it rests on.
    #[n(5)]
    pub reference: String,
}

/// Offers a project to another controller. For controllers; there is one open offer of a project at a time.
#[derive(Debug, Clone, Encode, Decode)]
pub struct OfferTransfer {
    /// Who offers.
    #[n(0)]
    pub by: Person,
    /// What.
    #[n(1)]
    pub project: ProjectId,
    /// The unique name of the user who may accept.
    #[n(2)]
    pub to: String,
    /// What is said of it.
    #[n(3)]
    pub terms: TransferTerms,
    /// Whether the controllers of today stay members with their roles; otherwise their memberships end.
    #[n(4)]
    pub keeps_controllers: bool,
    /// For how long it may be accepted, in seconds.
    #[n(5)]
    pub valid_secs: u64,
    /// Names the offer, and resolves the outcome if the answer is lost.
    #[n(6)]
    pub commit: CommitId,
}

/// Reads what is or was last offered. For controllers, stewards and auditors of the project, and for whom it is offered to.
#[derive(Debug, Clone, Encode, Decode)]
pub struct GetTransfer {
    /// Who asks.
    #[n(0)]
    pub by: Person,
    /// Of which project.
    #[n(1)]
    pub project: ProjectId,
}

/// Accepts an offer: for the user whom it is made to.
#[derive(Debug, Clone, Encode, Decode)]
pub struct AcceptTransfer {
    /// Who accepts.
    #[n(0)]
    pub by: Person,
    /// Which project.
    #[n(1)]
    pub project: ProjectId,
    /// The offer that was read: another one is not accepted in its place.
    #[n(2)]
    pub offer: CommitId,
    /// Resolves the outcome if the answer is lost.
    #[n(3)]
    pub commit: CommitId,
}

/// Withdraws an offer (a controller) or declines it (whom it is made to).
#[derive(Debug, Clone, Encode, Decode)]
pub struct WithdrawTransfer {
    /// Who asks.
    #[n(0)]
    pub by: Person,
    /// Of which project.
    #[n(1)]
    pub project: ProjectId,
    /// Why.
    #[n(2)]
    pub reason: String,
    /// Resolves the outcome if the answer is lost.
    #[n(3)]
    pub commit: CommitId,
}

/// How far a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum TransferState {
    /// It may be accepted until it expires.
    #[n(1)]
    Offered,
    /// The project has changed hands.
    #[n(2)]
    Accepted,
    /// A controller took it back.
    #[n(3)]
    Withdrawn,
    /// The other side does not want it.
    #[n(4)]
    Declined,
    /// Nobody accepted in time.
    #[n(5)]
    Expired,
}

impl TransferState {
    /// One word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Offered => "offered",
            Self::Accepted => "accepted",
            Self::Withdrawn => "withdrawn",
            Self::Declined => "declined",
            Self::Expired => "expired",
        }
    }
}

/// A transfer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Transfer {
    /// The offer's id.
    #[n(0)]
    pub offer: CommitId,
    /// Of which project.
    #[n(1)]
    pub project: ProjectId,
    /// How far it is.
    #[n(2)]
    pub state: TransferState,
    /// The controller who offered it.
    #[n(3)]
    pub offered_by: UserId,
    /// That user's name.
    #[n(4)]
    pub offered_by_name: String,
    /// When.
    #[n(5)]
    pub offered: TimestampMicros,
    /// Until when it may be accepted.
    #[n(6)]
    pub expires: TimestampMicros,
    /// Who may accept, or accepted.
    #[n(7)]
    pub to: UserId,
    /// That user's name.
    #[n(8)]
    pub to_name: String,
    /// Whether the controllers of before stay.
    #[n(9)]
    pub keeps_controllers: bool,
    /// What is said of it.
    #[n(10)]
    pub terms: TransferTerms,
    /// The organisation that answered for the data when it was offered.
    #[n(11)]
    pub from_organisation: String,
    /// When it was accepted, withdrawn or declined.
    #[n(12)]
    pub settled: Option<TimestampMicros>,
    /// Names of the controllers whose memberships ended with it.
    #[n(13)]
    pub removed: Vec<String>,
}
