//! Rows of retention classes and legal holds.

use crate::quota::Limits;
use minicbor::{Decode, Encode};
use valv_metadata_api::{DisposalEntry, DisposalList, DisposalState};
use valv_types::{BucketId, HoldId, TimestampMicros, UserId};

/// What a project's class demands. Zeros demand nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub(crate) struct RetentionRule {
    #[n(0)]
    pub(crate) default_days: u32,
    #[n(1)]
    pub(crate) minimum_days: u32,
    /// Lifecycle rules may remove what is no longer under retention.
    #[n(2)]
    pub(crate) lifecycle_disposal: bool,
}

impl RetentionRule {
    /// Whether new versions get retention by it.
    pub(crate) fn is_set(self) -> bool {
        self.default_days > 0 || self.minimum_days > 0
    }
}

/// What a bucket's row has of its project's class, and the holds that concern it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub(crate) struct BucketGuard {
    #[n(0)]
    pub(crate) rule: RetentionRule,
    #[n(1)]
    pub(crate) holds: Vec<HeldPrefix>,
    /// What the project may hold, and until when.
    #[n(2)]
    #[cbor(default)]
    pub(crate) limits: Limits,
}

/// A hold, and the keys of the bucket that it keeps.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct HeldPrefix {
    #[n(0)]
    pub(crate) hold: HoldId,
    /// Empty for all keys.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) prefix: Vec<u8>,
}

/// A project's row: its class, and the holds on all of it.
#[derive(Debug, Clone, Default, Encode, Decode)]
pub(crate) struct ProjectGuardRecord {
    #[n(0)]
    pub(crate) rule: RetentionRule,
    #[n(1)]
    pub(crate) holds: Vec<HoldId>,
    /// Holds of the project, those on buckets and prefixes included.
    #[n(2)]
    pub(crate) hold_count: u32,
    #[n(3)]
    pub(crate) key_version: u32,
    /// The class's label, sealed; empty if it has none.
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) sealed: Vec<u8>,
    /// Since when the project's keys are being destroyed: no bucket is made and no hold is set any more.
    #[n(5)]
    pub(crate) shredding: Option<TimestampMicros>,
}

/// A legal hold.
#[derive(Debug, Clone, Encode, Decode)]
pub(crate) struct HoldRecord {
    #[n(0)]
    pub(crate) bucket: Option<BucketId>,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) prefix: Vec<u8>,
    #[n(2)]
    pub(crate) set: TimestampMicros,
    #[n(3)]
    pub(crate) by: Option<UserId>,
    #[n(4)]
    pub(crate) key_version: u32,
    /// [`HoldTexts`], sealed.
    #[n(5)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) sealed: Vec<u8>,
}

/// Why a hold was set.
#[derive(Debug, Clone, Encode, Decode)]
pub(crate) struct HoldTexts {
    #[n(0)]
    pub(crate) reason: String,
    #[n(1)]
    pub(crate) reference: String,
}

/// A disposal.
#[derive(Debug, Clone, Encode, Decode)]
pub(crate) struct DisposalRecord {
    #[n(0)]
    pub(crate) bucket: BucketId,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) prefix: Vec<u8>,
    #[n(2)]
    pub(crate) state: DisposalState,
    #[n(3)]
    pub(crate) proposer: Option<UserId>,
    #[n(4)]
    pub(crate) proposed: TimestampMicros,
    #[n(5)]
    pub(crate) listed: DisposalList,
    #[n(6)]
    pub(crate) deciders: Vec<UserId>,
    /// Pages of the list that are left.
    #[n(7)]
    pub(crate) pages: u64,
    #[n(8)]
    pub(crate) removed: u64,
    #[n(9)]
    pub(crate) removed_bytes: u64,
    #[n(10)]
    pub(crate) refused: u64,
    #[n(11)]
    pub(crate) gone: u64,
    #[n(12)]
    pub(crate) markers: u64,
    #[n(13)]
    pub(crate) ended: Option<TimestampMicros>,
    #[n(14)]
    pub(crate) key_version: u32,
    /// [`HoldTexts`], sealed.
    #[n(15)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) sealed: Vec<u8>,
    /// The first so many pages are of delete markers.
    #[n(16)]
    pub(crate) marker_pages: u64,
}

/// A page of a disposal's list.
#[derive(Debug, Clone, Encode, Decode)]
pub(crate) struct DisposalPageRecord {
    #[n(0)]
    pub(crate) entries: Vec<DisposalEntry>,
}
