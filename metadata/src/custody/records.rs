//! Records of custody at rest (`docs/format-metadata.md`).

use minicbor::{Decode, Encode};
use valv_types::{CustodianId, TimestampMicros};

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
