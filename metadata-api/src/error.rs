//! Why metadata refused. Split by who must act; the gateway maps each to an S3 code in one exhaustive match.

use crate::{
    ApprovalRefusal, CustodyRefusal, OpeningRefusal, PrincipalConflict, ProjectRefusal, RetentionRefusal, TokenConflict,
};
use minicbor::{Decode, Encode};
use valv_types::TimestampMicros;

/// Which precondition did not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Precondition {
    /// If-Match, or one of its siblings for deletes, against an existing version.
    #[n(1)]
    IfMatch,
    /// If-Match on a key that has no current version: S3 answers 404 NoSuchKey.
    #[n(2)]
    IfMatchMissing,
    /// If-None-Match.
    #[n(3)]
    IfNoneMatch,
}

/// What protects a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum LockReason {
    /// Governance retention, and no bypass.
    #[n(1)]
    Governance,
    /// Compliance retention.
    #[n(2)]
    Compliance,
    /// Legal hold.
    #[n(3)]
    LegalHold,
    /// A legal hold on the project, the bucket or a prefix.
    #[n(4)]
    ScopeHold,
    /// The project's data leave by a disposal that was decided on, not by lifecycle rules.
    #[n(5)]
    DisposalOnly,
}

/// The outcome of a metadata operation that did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Encode, Decode)]
pub enum MetadataError {
    /// No such access key, or it is disabled.
    #[error("no such access key")]
    #[n(1)]
    NoSuchAccessKey,
    /// No such user.
    #[error("no such user")]
    #[n(2)]
    NoSuchUser,
    /// No such bucket.
    #[error("no such bucket")]
    #[n(3)]
    NoSuchBucket,
    /// The name is taken by the caller's own project.
    #[error("the bucket exists and is yours")]
    #[n(4)]
    BucketAlreadyOwnedByYou,
    /// The name is taken by another project of the namespace.
    #[error("the bucket exists")]
    #[n(5)]
    BucketAlreadyExists,
    /// Versions, delete markers or open uploads remain.
    #[error("the bucket is not empty")]
    #[n(6)]
    BucketNotEmpty,
    /// The key has no version at all.
    #[error("no such key")]
    #[n(7)]
    NoSuchKey,
    /// The key has no such version.
    #[error("no such version")]
    #[n(8)]
    NoSuchVersion,
    /// No such upload.
    #[error("no such upload")]
    #[n(9)]
    NoSuchUpload,
    /// A part is missing or is not the one named.
    #[error("part {number} is missing or differs")]
    #[n(10)]
    InvalidPart {
        /// Its number.
        #[n(0)]
        number: u16,
    },
    /// Part numbers do not ascend.
    #[error("parts are not in ascending order")]
    #[n(11)]
    InvalidPartOrder,
    /// A part other than the last is shorter than 5 MiB.
    #[error("part {number} is too small")]
    #[n(12)]
    PartTooSmall {
        /// Its number.
        #[n(0)]
        number: u16,
        /// Its length.
        #[n(1)]
        len_bytes: u64,
    },
    /// No such document on this bucket.
    #[error("no such bucket document")]
    #[n(13)]
    NoSuchDocument,
    /// A precondition of the request does not hold.
    #[error("precondition failed")]
    #[n(14)]
    PreconditionFailed {
        /// Which one.
        #[n(0)]
        which: Precondition,
    },
    /// Object Lock protects the version.
    #[error("the version is locked")]
    #[n(15)]
    Locked {
        /// By what.
        #[n(0)]
        reason: LockReason,
    },
    /// The bucket was made without Object Lock, or the change does not fit its state.
    #[error("the bucket's state does not allow this")]
    #[n(16)]
    InvalidBucketState,
    /// The project's quota would be exceeded.
    #[error("quota exceeded")]
    #[n(17)]
    QuotaExceeded,
    /// The gateway's incarnation was fenced: it must register anew, and what it wrote is orphaned.
    #[error("this gateway incarnation is fenced")]
    #[n(18)]
    Fenced,
    /// Others changed the same rows again and again; the caller may try once more.
    #[error("too much contention")]
    #[n(19)]
    Conflict,
    /// Metadata can't be reached or can't be written durably at the moment.
    #[error("metadata is unavailable: {what}")]
    #[n(20)]
    Unavailable {
        /// For people.
        #[n(0)]
        what: String,
    },
    /// The project's key is gone or the server is sealed.
    #[error("the project's key is not available")]
    #[n(21)]
    KeyUnavailable,
    /// A stored record fails its checks. Nothing was returned from it.
    #[error("metadata record is corrupt: {what}")]
    #[n(22)]
    Corrupt {
        /// Which kind, for people.
        #[n(0)]
        what: String,
    },
    /// The request does not make sense: a bug in the caller.
    #[error("malformed metadata request: {what}")]
    #[n(23)]
    Malformed {
        /// What was wrong.
        #[n(0)]
        what: String,
    },
    /// No such namespace.
    #[error("no such namespace")]
    #[n(24)]
    NoSuchNamespace,
    /// An operator's change of users, keys or projects contradicts what is there.
    #[error("{reason}")]
    #[n(25)]
    Principal {
        /// What stands against it.
        #[n(0)]
        reason: PrincipalConflict,
    },
    /// The project is not paid for any more: nothing is written or removed.
    #[error("the project was paid for until a date that is over: it is read-only")]
    #[n(31)]
    ReadOnly {
        /// Since when.
        #[n(0)]
        since: TimestampMicros,
    },
    /// A change of a project, its members or their keys is refused.
    #[error("{reason}")]
    #[n(30)]
    Project {
        /// Why.
        #[n(0)]
        reason: ProjectRefusal,
    },
    /// A proposal, or an answer to one, is refused.
    #[error("{reason}")]
    #[n(36)]
    Approval {
        /// Why.
        #[n(0)]
        reason: ApprovalRefusal,
    },
    /// A token can't be made, revoked or taken.
    #[error("{reason}")]
    #[n(180)]
    Token {
        /// What stands against it.
        #[n(0)]
        reason: TokenConflict,
    },
    /// An act of retention, hold or disposal is refused.
    #[error("{reason}")]
    #[n(200)]
    Retention {
        /// Why.
        #[n(0)]
        reason: RetentionRefusal,
    },
    /// The project demands compliance retention of at least this many days, and less was asked for by name.
    #[error("this project demands COMPLIANCE retention of at least {minimum_days} days")]
    #[n(201)]
    RetentionBelowMinimum {
        /// The project's minimum.
        #[n(0)]
        minimum_days: u32,
    },
    /// The key was destroyed on purpose: nobody opens this any more.
    #[error("the key of this data was destroyed")]
    #[n(45)]
    KeyDestroyed,
    /// A change of custody contradicts what is there.
    #[error("{reason}")]
    #[n(60)]
    Custody {
        /// What stands against it.
        #[n(0)]
        reason: CustodyRefusal,
    },
    /// An opening or a zone is refused.
    #[error("{reason}")]
    #[n(160)]
    Opening {
        /// Why.
        #[n(0)]
        reason: OpeningRefusal,
    },
}

impl From<OpeningRefusal> for MetadataError {
    fn from(reason: OpeningRefusal) -> Self {
        Self::Opening { reason }
    }
}

impl From<ApprovalRefusal> for MetadataError {
    fn from(reason: ApprovalRefusal) -> Self {
        Self::Approval { reason }
    }
}

impl From<TokenConflict> for MetadataError {
    fn from(reason: TokenConflict) -> Self {
        Self::Token { reason }
    }
}

impl From<RetentionRefusal> for MetadataError {
    fn from(reason: RetentionRefusal) -> Self {
        Self::Retention { reason }
    }
}

impl From<ProjectRefusal> for MetadataError {
    fn from(reason: ProjectRefusal) -> Self {
        Self::Project { reason }
    }
}

impl From<CustodyRefusal> for MetadataError {
    fn from(reason: CustodyRefusal) -> Self {
        Self::Custody { reason }
    }
}

impl From<PrincipalConflict> for MetadataError {
    fn from(reason: PrincipalConflict) -> Self {
        Self::Principal { reason }
    }
}
