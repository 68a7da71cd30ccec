//! Custody: the organisations that run the hardware, which disks are theirs, and until when each disk is guaranteed.
//!
//! Operators keep these facts; every change is one commit with a record in the cluster's ledger
//! ([`valv_types::ProjectId::CLUSTER`]). The horizon compares them with what has to be kept for how long.

use crate::Actor;
use minicbor::{Decode, Encode};
use valv_types::{CommitId, CustodianId, DiskId, TimestampMicros};

/// Most custodians of a cluster. A cluster has some; all of them are read at once for a list, at some 500 bytes each.
pub const CUSTODIANS_MAX: usize = 1_000;
/// Longest organisation, contact, contract reference or reason, in bytes: a few lines of text.
pub const CUSTODY_TEXT_BYTES_MAX: usize = 1_024;
/// Most disks with facts about their custody. A placement group of a pool names some of at most thousands of disks; those
/// that were formally removed keep their facts.
pub const CUSTODY_DISKS_MAX: usize = 100_000;

/// Who a custodian is. Kept sealed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CustodianDetails {
    /// The organisation; no two custodians have the same, whatever its case.
    #[n(0)]
    pub organisation: String,
    /// Whom to call.
    #[n(1)]
    pub contact: String,
    /// The contract under which it runs hardware: a file number.
    #[n(2)]
    pub contract: String,
}

/// A custodian.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Custodian {
    /// Its id.
    #[n(0)]
    pub id: CustodianId,
    /// Who it is.
    #[n(1)]
    pub details: CustodianDetails,
    /// Since when it is known.
    #[n(2)]
    pub created: TimestampMicros,
    /// How many disks are in its custody.
    #[n(3)]
    pub disks: u32,
}

/// Adds a custodian.
#[derive(Debug, Clone, Encode, Decode)]
pub struct CreateCustodian {
    /// Who asks.
    #[n(0)]
    pub actor: Actor,
    /// Who it is.
    #[n(1)]
    pub details: CustodianDetails,
    /// Names the custodian, and resolves the outcome if the answer is lost.
    #[n(2)]
    pub commit: CommitId,
}

/// Changes what is said of a custodian. `None` leaves a property as it is.
#[derive(Debug, Clone, Encode, Decode)]
pub struct UpdateCustodian {
    /// Who asks.
    #[n(0)]
    pub actor: Actor,
    /// Which.
    #[n(1)]
    pub custodian: CustodianId,
    /// See [`CustodianDetails::organisation`].
    #[n(2)]
    pub organisation: Option<String>,
    /// See [`CustodianDetails::contact`].
    #[n(3)]
    pub contact: Option<String>,
    /// See [`CustodianDetails::contract`].
    #[n(4)]
    pub contract: Option<String>,
    /// Resolves the outcome if the answer is lost.
    #[n(5)]
    pub commit: CommitId,
}

/// Removes a custodian that has no disks any more. What its disks were stays in the ledger.
#[derive(Debug, Clone, Encode, Decode)]
pub struct RemoveCustodian {
    /// Who asks.
    #[n(0)]
    pub actor: Actor,
    /// Which.
    #[n(1)]
    pub custodian: CustodianId,
    /// Resolves the outcome if the answer is lost.
    #[n(2)]
    pub commit: CommitId,
}

/// What is known of a disk's custody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct DiskCustody {
    /// The disk.
    #[n(0)]
    pub disk: DiskId,
    /// Who runs it; `None` if nobody said.
    #[n(1)]
    pub custodian: Option<CustodianId>,
    /// Until when it is guaranteed. `None` is no guarantee at all.
    #[n(2)]
    pub guaranteed_until: Option<TimestampMicros>,
    /// When this was last changed; `None` if never.
    #[n(3)]
    pub changed: Option<TimestampMicros>,
    /// Whether a pool places data on it.
    #[n(4)]
    pub is_in_pool: bool,
}

/// Says who runs a disk, until when it is guaranteed, or both. `None` leaves a fact as it is.
#[derive(Debug, Clone, Encode, Decode)]
pub struct SetDiskCustody {
    /// Who asks.
    #[n(0)]
    pub actor: Actor,
    /// The disk. A disk that no pool knows yet may have a custodian before it is used.
    #[n(1)]
    pub disk: DiskId,
    /// Who runs it.
    #[n(2)]
    pub custodian: Option<CustodianId>,
    /// Until when it is guaranteed.
    #[n(3)]
    pub guaranteed_until: Option<TimestampMicros>,
    /// What it rests on: a contract's number, a letter's date.
    #[n(4)]
    pub reason: String,
    /// Resolves the outcome if the answer is lost.
    #[n(5)]
    pub commit: CommitId,
}

/// Why a change of custody was refused. The operator has to decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Encode, Decode)]
#[cbor(index_only)]
pub enum CustodyRefusal {
    /// There is none.
    #[error("no such custodian")]
    #[n(1)]
    NoSuchCustodian,
    /// Another custodian is this organisation.
    #[error("there is a custodian of this organisation already")]
    #[n(2)]
    OrganisationTaken,
    /// Its disks need another custodian first.
    #[error("this custodian has disks: give them to another custodian first")]
    #[n(3)]
    HasDisks,
    /// [`CUSTODIANS_MAX`] or [`CUSTODY_DISKS_MAX`].
    #[error("there are as many custodians or disks as can be kept")]
    #[n(4)]
    TooMany,
    /// A text is empty where one is needed, too long, or has control characters.
    #[error(
        "an organisation must not be empty, and no text may have more than {CUSTODY_TEXT_BYTES_MAX} bytes or control characters"
    )]
    #[n(5)]
    TextMalformed,
    /// Neither a custodian nor a date was given.
    #[error("name a custodian, a date, or both")]
    #[n(6)]
    NothingToChange,
    /// Nothing is offered, or it was settled.
    #[error("no transfer of this project is offered")]
    #[n(7)]
    NoSuchOffer,
    /// Only whom it is made to may accept.
    #[error("this transfer is offered to somebody else")]
    #[n(8)]
    NotYourOffer,
    /// Its time is over.
    #[error("this offer has expired: ask for another one")]
    #[n(9)]
    OfferExpired,
    /// What was read is not what is offered now.
    #[error("another transfer is offered by now: look at it first")]
    #[n(10)]
    OfferChanged,
    /// One at a time.
    #[error("a transfer of this project is offered already: withdraw it first")]
    #[n(11)]
    OfferOpen,
    /// Who offered may not give the project away any more.
    #[error("who offered this is no controller of the project any more: ask its controllers for another offer")]
    #[n(12)]
    OfferLapsed,
    /// That changes nothing.
    #[error("a project is transferred to somebody else, not to yourself")]
    #[n(13)]
    OfferedToYourself,
    /// [`crate::TRANSFER_OFFER_SECS_MAX`].
    #[error("an offer is valid for a second to 180 days")]
    #[n(14)]
    ValidityOutOfRange,
    /// The new side and the reason have to be named.
    #[error("an offer needs the new organisation, a contact there, and a reason")]
    #[n(15)]
    TermsMissing,
}
