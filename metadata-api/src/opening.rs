//! Openings: a controller's explicit, dated, revocable decisions to let somebody in who is not a member, and the network
//! zones and byte budgets that bound them.

use crate::{Actor, Empty};
use minicbor::{Decode, Encode};
use valv_types::{BucketId, CommitId, NamespaceId, OpeningId, ProjectId, TimestampMicros, UserId};

/// Most openings of a project that are not over. A gateway holds those of a bucket for some seconds, at some 300 bytes each.
pub const OPENINGS_PER_PROJECT_MAX: usize = 1_000;
/// Longest purpose or approval reference, in bytes.
pub const OPENING_TEXT_LEN_BYTES_MAX: usize = 4_096;
/// Most zones of an opening.
pub const ZONES_PER_OPENING_MAX: usize = 16;
/// Most blocks of addresses of a zone.
pub const BLOCKS_PER_ZONE_MAX: usize = 256;
/// Most zones of a cluster.
pub const ZONES_MAX: usize = 1_000;

/// What an opening lets its recipient do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum OpeningScope {
    /// These actions: the bits of the policy crate's `OpenedAction` (1 read, 2 list, 4 write, 8 delete).
    #[n(0)]
    Actions(#[n(0)] u8),
    /// Whatever the bucket's policy and ACLs allow, as S3 decides among accounts.
    #[n(1)]
    WhatPoliciesSay,
}

/// For whom an opening is asked for, by name.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum OpeningTo {
    /// A user.
    #[n(0)]
    User(#[n(0)] String),
    /// Every access key that acts in a project.
    #[n(1)]
    Project(#[n(0)] String),
    /// Everybody, unsigned requests too, in this namespace; an empty name means the bucket's own.
    #[n(2)]
    Public(#[n(0)] String),
}

/// For whom an opening is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub enum OpeningRecipient {
    /// A user, whatever project the access key acts in.
    #[n(0)]
    User(#[n(0)] UserId),
    /// Every access key that acts in the project.
    #[n(1)]
    Project(#[n(0)] ProjectId),
    /// Everybody who finds bucket names in this namespace.
    #[n(2)]
    Public(#[n(0)] NamespaceId),
}

/// An opening as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct NewOpening {
    /// The project whose data is opened.
    #[n(0)]
    pub project: ProjectId,
    /// The name of its bucket; `None`: all buckets of the project, now and in future.
    #[n(1)]
    pub bucket_name: Option<String>,
    /// For whom.
    #[n(2)]
    pub to: OpeningTo,
    /// To keys that start with this.
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub prefix: Vec<u8>,
    /// What for.
    #[n(4)]
    pub scope: OpeningScope,
    /// What the recipient wants the data for.
    #[n(5)]
    pub purpose: String,
    /// The approval that it rests on.
    #[n(6)]
    pub reference: String,
    /// From when on; `None`: at once.
    #[n(7)]
    pub start: Option<TimestampMicros>,
    /// Until when. Only what leaves it to policies may go without.
    #[n(8)]
    pub expiry: Option<TimestampMicros>,
    /// Names of the zones from which it may be used; empty: from everywhere.
    #[n(9)]
    pub zones: Vec<String>,
    /// How many bytes of objects may be read by it.
    #[n(10)]
    pub budget_bytes: Option<u64>,
    /// The bucket's name in the recipient's namespace; `None`: its own.
    #[n(11)]
    pub alias: Option<String>,
    /// Whether the server's configuration asks for it: it ends when the configuration no longer does.
    #[n(12)]
    pub is_configured: bool,
}

/// Makes an opening.
#[derive(Debug, Clone, Encode, Decode)]
pub struct CreateOpening {
    /// Who asks.
    #[n(0)]
    pub actor: Actor,
    /// Whether the credential is an operator's, who may open projects without members only.
    #[n(1)]
    pub is_operator: bool,
    /// What is asked for.
    #[n(2)]
    pub opening: NewOpening,
    /// Becomes the opening's id, and resolves the outcome if the answer is lost.
    #[n(3)]
    pub commit: CommitId,
}

/// Ends an opening at once. Harmless if it is over.
#[derive(Debug, Clone, Encode, Decode)]
pub struct RevokeOpening {
    /// Who asks.
    #[n(0)]
    pub actor: Actor,
    /// Whether the credential is an operator's.
    #[n(1)]
    pub is_operator: bool,
    /// The project whose data was opened.
    #[n(2)]
    pub project: ProjectId,
    /// Which.
    #[n(3)]
    pub opening: OpeningId,
    /// Why.
    #[n(4)]
    pub reason: String,
    /// Resolves the outcome if the answer is lost.
    #[n(5)]
    pub commit: CommitId,
}

/// Lists openings of a project, newest first.
#[derive(Debug, Clone, Encode, Decode)]
pub struct ListOpenings {
    /// The project.
    #[n(0)]
    pub project: ProjectId,
    /// Whether those are listed, too, that are over.
    #[n(1)]
    pub with_ended: bool,
}

/// Names an opening.
#[derive(Debug, Clone, Encode, Decode)]
pub struct GetOpening {
    /// The project whose data is opened.
    #[n(0)]
    pub project: ProjectId,
    /// Which.
    #[n(1)]
    pub opening: OpeningId,
}

/// How far an opening is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum OpeningState {
    /// Its start is still to come.
    #[n(1)]
    Waiting,
    /// It holds.
    #[n(2)]
    Active,
    /// It has run out.
    #[n(3)]
    Expired,
    /// It was ended.
    #[n(4)]
    Revoked,
}

impl OpeningState {
    /// One word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }

    /// Whether it is over for good.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Expired | Self::Revoked)
    }
}

/// An opening with all that people want to know.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Opening {
    /// Its id.
    #[n(0)]
    pub id: OpeningId,
    /// What was asked for. Names are those of the day on which it was made.
    #[n(1)]
    pub asked: NewOpening,
    /// For whom.
    #[n(2)]
    pub recipient: OpeningRecipient,
    /// The bucket; `None`: all of the project.
    #[n(3)]
    pub bucket: Option<BucketId>,
    /// From when on.
    #[n(4)]
    pub start: TimestampMicros,
    /// How far it is.
    #[n(5)]
    pub state: OpeningState,
    /// When it was made.
    #[n(6)]
    pub created: TimestampMicros,
    /// Who decided on it; empty for the server's own operators and its configuration.
    #[n(7)]
    pub deciders: Vec<UserId>,
    /// When it was ended, and why.
    #[n(8)]
    pub revoked: Option<(TimestampMicros, String)>,
    /// How much of the budget gateways have drawn and not given back.
    #[n(9)]
    pub drawn_bytes: u64,
}

/// Asks what is open in a bucket.
#[derive(Debug, Clone, Copy, Encode, Decode)]
pub struct GetBucketOpenings {
    /// The bucket.
    #[n(0)]
    pub bucket: BucketId,
    /// Its project.
    #[n(1)]
    pub project: ProjectId,
}

/// What is open in a bucket, oldest first: what holds now or will later.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct BucketOpenings {
    /// The openings.
    #[n(0)]
    pub openings: Vec<OpeningFacts>,
    /// How long this answer may be relied on, in milliseconds counted from before it was asked for.
    #[n(1)]
    pub lease_ms: u32,
}

/// What a gateway needs of an opening.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct OpeningFacts {
    /// Its id.
    #[n(0)]
    pub id: OpeningId,
    /// For whom.
    #[n(1)]
    pub recipient: OpeningRecipient,
    /// To keys that start with this.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub prefix: Vec<u8>,
    /// What for.
    #[n(3)]
    pub scope: OpeningScope,
    /// From when on.
    #[n(4)]
    pub start: TimestampMicros,
    /// Until when.
    #[n(5)]
    pub expiry: Option<TimestampMicros>,
    /// From where: blocks of addresses. `None`: from everywhere. A zone that is not there any more adds none.
    #[n(6)]
    pub blocks: Option<Vec<String>>,
    /// What is left of the byte budget; `None`: it has none.
    #[n(7)]
    pub budget_left_bytes: Option<u64>,
}

/// Draws from an opening's byte budget, or gives back what was drawn and not sent.
#[derive(Debug, Clone, Copy, Encode, Decode)]
pub struct DrawOpeningBudget {
    /// The project whose data is opened.
    #[n(0)]
    pub project: ProjectId,
    /// Which opening.
    #[n(1)]
    pub opening: OpeningId,
    /// How many bytes are wanted; more may be granted.
    #[n(2)]
    pub want_bytes: u64,
    /// How many bytes are given back.
    #[n(3)]
    pub give_back_bytes: u64,
}

/// What was drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct DrawnBudget {
    /// How many bytes the gateway may send.
    #[n(0)]
    pub granted_bytes: u64,
    /// What is left for others.
    #[n(1)]
    pub left_bytes: u64,
}

/// A network zone: blocks of addresses under a name that operators give.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Zone {
    /// Its name.
    #[n(0)]
    pub name: String,
    /// Blocks, such as `10.20.0.0/16`.
    #[n(1)]
    pub blocks: Vec<String>,
    /// When it was set last.
    #[n(2)]
    pub set: TimestampMicros,
}

/// Makes a zone, or replaces its blocks.
#[derive(Debug, Clone, Encode, Decode)]
pub struct SetZone {
    /// Who asks.
    #[n(0)]
    pub actor: Actor,
    /// Its name.
    #[n(1)]
    pub name: String,
    /// Its blocks, already checked.
    #[n(2)]
    pub blocks: Vec<String>,
    /// Resolves the outcome if the answer is lost.
    #[n(3)]
    pub commit: CommitId,
}

/// Removes a zone: openings that name it let nobody in through it any more.
#[derive(Debug, Clone, Encode, Decode)]
pub struct RemoveZone {
    /// Who asks.
    #[n(0)]
    pub actor: Actor,
    /// Its name.
    #[n(1)]
    pub name: String,
    /// Resolves the outcome if the answer is lost.
    #[n(2)]
    pub commit: CommitId,
}

/// All zones, in name order.
pub type ListZones = Empty;

/// Why something about openings or zones is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Encode, Decode)]
#[cbor(index_only)]
pub enum OpeningRefusal {
    /// There is none.
    #[error("no such opening")]
    #[n(1)]
    NoSuchOpening,
    /// Whom it is for is not there.
    #[error("there is no such user or project to open it to")]
    #[n(2)]
    NoSuchRecipient,
    /// The bucket's project can't be its own guest.
    #[error("members of a project need no opening: give the person a role in it instead")]
    #[n(3)]
    OwnProject,
    /// Another bucket has the name in the recipient's namespace.
    #[error("the recipient's namespace has a bucket of this name: choose another alias")]
    #[n(4)]
    AliasTaken,
    /// An alias needs a bucket.
    #[error("an alias names one bucket: an opening of a whole project has none")]
    #[n(5)]
    AliasWithoutBucket,
    /// Its times contradict each other.
    #[error("an opening has an end, which lies in the future and after its start")]
    #[n(6)]
    TimesMalformed,
    /// A purpose and a reference are needed.
    #[error(
        "a purpose and an approval reference are needed: text of at most {OPENING_TEXT_LEN_BYTES_MAX} bytes without control characters"
    )]
    #[n(7)]
    TextMalformed,
    /// No such zone.
    #[error("there is no network zone of this name: operators set them with `valv admin zone set`")]
    #[n(8)]
    NoSuchZone,
    /// Too many.
    #[error(
        "too many: a project has at most {OPENINGS_PER_PROJECT_MAX} openings, an opening {ZONES_PER_OPENING_MAX} zones, a zone {BLOCKS_PER_ZONE_MAX} blocks"
    )]
    #[n(9)]
    TooMany,
    /// Nothing would be opened.
    #[error("an opening names at least one action: read, list, write, delete")]
    #[n(10)]
    NothingOpened,
    /// The role is missing.
    #[error("openings are for the project's controller to decide")]
    #[n(11)]
    NotAllowed,
    /// The project demands a second person.
    #[error("this project demands that a second controller approves: propose it")]
    #[n(12)]
    NeedsSecondPerson,
    /// There is no such project.
    #[error("there is no such project")]
    #[n(13)]
    NoSuchProject,
}
