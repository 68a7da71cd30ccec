//! Openings and zones at rest.

use crate::store::Versioned;
use minicbor::{Decode, Encode};
use valv_metadata_api::{MetadataError, NewOpening, OpeningRecipient, OpeningScope, OpeningState};
use valv_types::{BucketId, NamespaceId, OpeningId, ProjectId, TimestampMicros, UserId};

/// An opening: what decisions need lies open, what people said is sealed.
#[derive(Debug, Clone, Encode, Decode)]
pub(crate) struct OpeningRecord {
    #[n(0)]
    pub(crate) bucket: Option<BucketId>,
    #[n(1)]
    pub(crate) recipient: OpeningRecipient,
    #[n(2)]
    pub(crate) scope: OpeningScope,
    #[n(3)]
    pub(crate) start: TimestampMicros,
    #[n(4)]
    pub(crate) expiry: Option<TimestampMicros>,
    #[n(5)]
    pub(crate) budget_bytes: Option<u64>,
    /// Where the bucket has a name by it; `None`: nowhere.
    #[n(6)]
    pub(crate) alias_namespace: Option<NamespaceId>,
    #[n(7)]
    pub(crate) created: TimestampMicros,
    #[n(8)]
    pub(crate) revoked: Option<TimestampMicros>,
    #[n(9)]
    pub(crate) is_configured: bool,
    #[n(10)]
    pub(crate) key_version: u32,
    /// [`OpeningWords`], sealed.
    #[n(11)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) sealed: Vec<u8>,
}

/// What was said of an opening.
#[derive(Debug, Clone, Encode, Decode)]
pub(crate) struct OpeningWords {
    #[n(0)]
    pub(crate) asked: NewOpening,
    /// The bucket's name in the recipient's namespace.
    #[n(1)]
    pub(crate) alias: Option<String>,
    #[n(2)]
    pub(crate) deciders: Vec<UserId>,
    /// Why it was revoked.
    #[n(3)]
    pub(crate) revoked_because: String,
}

impl OpeningRecord {
    pub(crate) fn state(&self, now: TimestampMicros) -> OpeningState {
        if self.revoked.is_some() {
            OpeningState::Revoked
        } else if self.expiry.is_some_and(|expiry| expiry <= now) {
            OpeningState::Expired
        } else if now < self.start {
            OpeningState::Waiting
        } else {
            OpeningState::Active
        }
    }
}

/// How much of a byte budget gateways have drawn and not given back.
#[derive(Debug, Clone, Copy, Default, Encode, Decode)]
pub(crate) struct BudgetRecord {
    #[n(0)]
    pub(crate) drawn_bytes: u64,
}

/// A zone: its name and blocks, sealed under the system key "principals".
#[derive(Debug, Clone, Encode, Decode)]
pub(crate) struct ZoneRecord {
    #[n(0)]
    pub(crate) set: TimestampMicros,
    /// [`ZoneWords`], sealed.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) sealed: Vec<u8>,
}

/// What a zone is.
#[derive(Debug, Clone, Encode, Decode)]
pub(crate) struct ZoneWords {
    #[n(0)]
    pub(crate) name: String,
    #[n(1)]
    pub(crate) blocks: Vec<String>,
}

/// A bucket's name that openings give it, in the row that would hold the id of a bucket of that name. The bucket's id comes
/// last, as it does in those rows.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct AliasRecord {
    #[n(0)]
    pub(crate) project: ProjectId,
    /// The name stands as long as one of these is not over.
    #[n(1)]
    pub(crate) openings: Vec<OpeningId>,
    #[n(2)]
    pub(crate) bucket: BucketId,
}

/// Length of a name row that holds a bucket's id and nothing else: format byte, CBOR head, id.
const PLAIN_LEN: usize = 1 + 1 + 16;

/// What a bucket's name leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NamedBucket {
    /// A bucket of this name.
    Own(BucketId),
    /// A name that openings give.
    Alias(AliasRecord),
}

impl NamedBucket {
    pub(crate) fn read(row: &Versioned) -> Result<Self, MetadataError> {
        if row.value.len() == PLAIN_LEN {
            return crate::principals::id_of_row(row, BucketId::from_bytes).map(Self::Own);
        }
        crate::records::decode("bucket alias", &row.value).map(Self::Alias)
    }
}
