//! Records of custody at rest (`docs/format-metadata.md`).

use minicbor::{Decode, Encode};
use valv_metadata_api::{TransferState, TransferTerms};
use valv_types::{CommitId, CustodianId, TimestampMicros, UserId};

/// A custodian.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct CustodianRecord {
    #[n(0)]
    pub(crate) created: TimestampMicros,
    /// Version of the cluster's key that seals the details.
    #[n(1)]
    pub(crate) key_version: u32,
    /// [`valv_metadata_api::CustodianDetails`], sealed.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) sealed: Vec<u8>,
}

/// What is known of a disk's custody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct DiskCustodyRecord {
    #[n(0)]
    pub(crate) custodian: Option<CustodianId>,
    #[n(1)]
    pub(crate) guaranteed_until: Option<TimestampMicros>,
    #[n(2)]
    pub(crate) changed: TimestampMicros,
}

/// How many changes of custody there were. Each writes this row and expects it as it was read, so a change rests on all of
/// custody as it is: operators make few, so that they meet here costs nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub(crate) struct CustodyState {
    #[n(0)]
    pub(crate) changes: u64,
}

/// The transfer of a project that was offered last.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct TransferRecord {
    #[n(0)]
    pub(crate) offer: CommitId,
    #[n(1)]
    pub(crate) state: TransferState,
    #[n(2)]
    pub(crate) offered_by: UserId,
    #[n(3)]
    pub(crate) offered: TimestampMicros,
    #[n(4)]
    pub(crate) expires: TimestampMicros,
    #[n(5)]
    pub(crate) to: UserId,
    #[n(6)]
    pub(crate) keeps_controllers: bool,
    #[n(7)]
    pub(crate) settled: Option<TimestampMicros>,
    /// Version of the project's key that seals the texts.
    #[n(8)]
    pub(crate) key_version: u32,
    /// [`TransferTexts`], sealed.
    #[n(9)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) sealed: Vec<u8>,
}

/// The sealed half of a transfer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct TransferTexts {
    #[n(0)]
    pub(crate) terms: TransferTerms,
    #[n(1)]
    pub(crate) offered_by: String,
    #[n(2)]
    pub(crate) to: String,
    #[n(3)]
    pub(crate) from_organisation: String,
    /// Names of the controllers whose memberships ended.
    #[n(4)]
    pub(crate) removed: Vec<String>,
}
