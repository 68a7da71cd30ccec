//! Retention of projects, legal holds, disposal at the end, and what can still be brought back from the trash.
//!
//! A project's retention class says how long every new version is kept at least (compliance: nobody shortens it), and how
//! long when nothing is said. A legal hold keeps what there is for as long as it stands, whatever its dates say. Nothing
//! of a project with a minimum ends silently: a disposal lists what may go, a second person approves the list, and each
//! removal is judged again when it is carried out.

use crate::{Actor, Checksum, ObjectKey};
use minicbor::{Decode, Encode};
use valv_types::{BucketId, CommitId, DisposalId, HoldId, ProjectId, TimestampMicros, UserId, VersionId};

/// Longest retention of a project, in days: a hundred years.
pub const PROJECT_RETENTION_DAYS_MAX: u32 = days_of_years(100);
/// Longest label, reason or reference, in bytes.
pub const RETENTION_TEXT_LEN_BYTES_MAX: usize = 1_024;
/// Most legal holds that concern one bucket: its row carries them, at a kilobyte at most for each prefix.
pub const HOLDS_PER_BUCKET_MAX: usize = 64;
/// Most legal holds of a project: one commit rewrites all its buckets' rows, and must stay far below the store's largest.
pub const HOLDS_PER_PROJECT_MAX: u32 = 1_000;
/// Most entries of a page of trash, of versions to extend, or of a manifest.
pub const RETENTION_PAGE_MAX: u32 = 1_000;

/// Days that are no fewer than `years` calendar years, wherever they begin: ten years are 3,653 days. (S3 counts a year as
/// 365 days, which makes its ten years end two or three days early.)
pub const fn days_of_years(years: u32) -> u32 {
    let quarter_days = years as u64 * 1_461;
    let days = quarter_days.div_ceil(4);
    if days > u32::MAX as u64 { u32::MAX } else { days as u32 }
}

/// A project's retention class.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct ProjectRetention {
    /// Compliance retention of a new version if neither the request nor its bucket names one, in days from its creation;
    /// 0 for none. At least the minimum counts.
    #[n(0)]
    pub default_days: u32,
    /// Least compliance retention of every new version, in days from its creation; 0 for none.
    #[n(1)]
    pub minimum_days: u32,
    /// Whether lifecycle rules may remove what is no longer under retention, in a project with a minimum.
    #[n(2)]
    pub lifecycle_disposal: bool,
    /// What the class is called (`clinical trial, ten years`); may be empty.
    #[n(3)]
    pub class: String,
}

impl ProjectRetention {
    /// Whether new versions get retention from the project.
    pub fn is_set(&self) -> bool {
        self.default_days > 0 || self.minimum_days > 0
    }

    /// Whether `new` demands less than this in any way, so that two people have to want it.
    pub fn is_lowered_by(&self, new: &Self) -> bool {
        new.minimum_days < self.minimum_days
            || (self.minimum_days > 0 && new.default_days < self.default_days)
            || (self.minimum_days > 0 && new.lifecycle_disposal && !self.lifecycle_disposal)
    }

    /// Checks bounds.
    ///
    /// # Errors
    /// [`RetentionRefusal::Days`] or [`RetentionRefusal::Text`].
    pub fn check(&self) -> Result<(), RetentionRefusal> {
        let (default, minimum) = (self.default_days, self.minimum_days);
        if default.max(minimum) > PROJECT_RETENTION_DAYS_MAX || (default != 0 && default < minimum) {
            return Err(RetentionRefusal::Days);
        }
        check_retention_text(&self.class)
    }
}

/// Checks a label, reason or reference: bounded, and without control characters.
///
/// # Errors
/// [`RetentionRefusal::Text`].
pub fn check_retention_text(text: &str) -> Result<(), RetentionRefusal> {
    if text.len() <= RETENTION_TEXT_LEN_BYTES_MAX && !text.chars().any(char::is_control) {
        Ok(())
    } else {
        Err(RetentionRefusal::Text)
    }
}

/// Changes a project's retention class. Lowering it is refused here: two people have to want it.
#[derive(Debug, Clone, Encode, Decode)]
pub struct SetProjectRetention {
    /// Who asks.
    #[n(0)]
    pub actor: Actor,
    /// The project.
    #[n(1)]
    pub project: ProjectId,
    /// The class from now on. What was written before keeps the dates it has.
    #[n(2)]
    pub retention: ProjectRetention,
    /// Why, and the decision behind it.
    #[n(3)]
    pub reason: String,
    /// Resolves the outcome if the answer is lost.
    #[n(4)]
    pub commit: CommitId,
}

/// A part of a project: all of it, one bucket, or the keys of a bucket that begin with a prefix.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RetentionScope {
    /// The bucket; `None` for all of them, those to come included.
    #[n(0)]
    pub bucket: Option<BucketId>,
    /// Only keys that begin with this; empty for all. Needs a bucket.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub prefix: Vec<u8>,
}

impl RetentionScope {
    /// Checks that a prefix has a bucket and is no longer than a key.
    ///
    /// # Errors
    /// [`RetentionRefusal::Scope`].
    pub fn check(&self) -> Result<(), RetentionRefusal> {
        let is_good =
            (self.bucket.is_some() || self.prefix.is_empty()) && self.prefix.len() <= ObjectKey::LEN_BYTES_MAX;
        if is_good { Ok(()) } else { Err(RetentionRefusal::Scope) }
    }
}

/// A legal hold.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Hold {
    /// The hold.
    #[n(0)]
    pub id: HoldId,
    /// What it keeps.
    #[n(1)]
    pub scope: RetentionScope,
    /// Since when.
    #[n(2)]
    pub set: TimestampMicros,
    /// Who set it; `None` for a local operator.
    #[n(3)]
    pub by: Option<UserId>,
    /// Why.
    #[n(4)]
    pub reason: String,
    /// The decision behind it: a file number, a court's order.
    #[n(5)]
    pub reference: String,
}

/// Sets a legal hold.
#[derive(Debug, Clone, Encode, Decode)]
pub struct SetHold {
    /// Who asks.
    #[n(0)]
    pub actor: Actor,
    /// The project.
    #[n(1)]
    pub project: ProjectId,
    /// What it keeps.
    #[n(2)]
    pub scope: RetentionScope,
    /// Why.
    #[n(3)]
    pub reason: String,
    /// The decision behind it.
    #[n(4)]
    pub reference: String,
    /// Resolves the outcome if the answer is lost; also the hold's id.
    #[n(5)]
    pub commit: CommitId,
}

/// Releases a legal hold.
#[derive(Debug, Clone, Encode, Decode)]
pub struct ReleaseHold {
    /// Who asks.
    #[n(0)]
    pub actor: Actor,
    /// The project.
    #[n(1)]
    pub project: ProjectId,
    /// The hold.
    #[n(2)]
    pub hold: HoldId,
    /// Why, and the decision behind it.
    #[n(3)]
    pub reason: String,
    /// Resolves the outcome if the answer is lost.
    #[n(4)]
    pub commit: CommitId,
}

/// Extends the retention of versions that there are: each gets compliance until at least a date. One call does a page.
#[derive(Debug, Clone, Encode, Decode)]
pub struct ExtendRetention {
    /// Who asks.
    #[n(0)]
    pub actor: Actor,
    /// The bucket.
    #[n(1)]
    pub bucket: BucketId,
    /// Which versions.
    #[n(2)]
    pub which: ExtendWhich,
    /// Until when at least, in cluster time.
    #[n(3)]
    pub until: TimestampMicros,
    /// Why.
    #[n(4)]
    pub reason: String,
    /// Where to go on: [`Extended::next`] of the call before; `None` begins.
    #[n(5)]
    pub after: Option<VersionPlace>,
}

/// Which versions an extension concerns.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ExtendWhich {
    /// One.
    #[n(1)]
    Version(#[n(0)] ObjectKey, #[n(1)] VersionId),
    /// Every version of every key that begins with this.
    #[n(2)]
    Prefix(
        #[n(0)]
        #[cbor(with = "minicbor::bytes")]
        Vec<u8>,
    ),
}

/// A version's place in the order of listings.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct VersionPlace {
    /// Its key.
    #[n(0)]
    pub key: ObjectKey,
    /// The version.
    #[n(1)]
    pub version: VersionId,
}

/// What a call of [`ExtendRetention`] did.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Extended {
    /// Versions whose date is later now.
    #[n(0)]
    pub extended: u64,
    /// Versions that were kept as long before.
    #[n(1)]
    pub unchanged: u64,
    /// Where the next call goes on; `None` at the end.
    #[n(2)]
    pub next: Option<VersionPlace>,
}

/// Lists versions and what they were as long as the trash still has them, those purged first at the top.
#[derive(Debug, Clone, Encode, Decode)]
pub struct ListTrash {
    /// Of this project.
    #[n(0)]
    pub project: ProjectId,
    /// Only of this bucket.
    #[n(1)]
    pub bucket: Option<BucketId>,
    /// Only keys that begin with this.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub prefix: Vec<u8>,
    /// Where to go on: [`TrashPage::next`]; `None` begins.
    #[n(3)]
    pub after: Option<TrashPlace>,
    /// At most this many, and never more than [`RETENTION_PAGE_MAX`].
    #[n(4)]
    pub limit: u32,
}

/// A place in the trash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct TrashPlace {
    /// When it is purged.
    #[n(0)]
    pub due: TimestampMicros,
    /// The version.
    #[n(1)]
    pub version: VersionId,
}

/// A removed version.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct TrashEntry {
    /// The version, and from when on it is purged.
    #[n(0)]
    pub place: TrashPlace,
    /// The bucket it was in.
    #[n(1)]
    pub bucket: BucketId,
    /// That bucket's name; `None` if the bucket is deleted: the version can't be brought back then.
    #[n(2)]
    pub bucket_name: Option<String>,
    /// Its key.
    #[n(3)]
    pub key: ObjectKey,
    /// Its length in bytes.
    #[n(4)]
    pub len_bytes: u64,
    /// When it was written.
    #[n(5)]
    pub written: TimestampMicros,
    /// When it was removed.
    #[n(6)]
    pub removed: TimestampMicros,
    /// Who removed it; `None` for Valv's own work and for requests that nobody signed.
    #[n(7)]
    pub by: Option<UserId>,
    /// Whether clients name it `null`.
    #[n(8)]
    pub is_null: bool,
}

/// A page of trash.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct TrashPage {
    /// Entries, in the order in which they are purged.
    #[n(0)]
    pub entries: Vec<TrashEntry>,
    /// Where the next page begins; `None` at the end. A page may be empty and not the last.
    #[n(1)]
    pub next: Option<TrashPlace>,
}

/// Proposes a disposal: lists what may go.
#[derive(Debug, Clone, Encode, Decode)]
pub struct ProposeDisposal {
    /// Who asks.
    #[n(0)]
    pub actor: Actor,
    /// The project.
    #[n(1)]
    pub project: ProjectId,
    /// The bucket.
    #[n(2)]
    pub bucket: BucketId,
    /// Only keys that begin with this; empty for all.
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub prefix: Vec<u8>,
    /// Why.
    #[n(4)]
    pub reason: String,
    /// The decision behind it.
    #[n(5)]
    pub reference: String,
    /// The disposal's id.
    #[n(6)]
    pub disposal: DisposalId,
}

/// How far a disposal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum DisposalState {
    /// Its list is being made.
    #[n(1)]
    Listing,
    /// Its list is made; a second person has to approve it.
    #[n(2)]
    Proposed,
    /// Approved, and being carried out.
    #[n(3)]
    Approved,
    /// Carried out.
    #[n(4)]
    Done,
    /// Given up before anything was removed.
    #[n(5)]
    Rejected,
}

impl DisposalState {
    /// One word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Listing => "listing",
            Self::Proposed => "proposed",
            Self::Approved => "approved",
            Self::Done => "done",
            Self::Rejected => "rejected",
        }
    }
}

/// A disposal.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Disposal {
    /// Its id.
    #[n(0)]
    pub id: DisposalId,
    /// The project.
    #[n(1)]
    pub project: ProjectId,
    /// The bucket.
    #[n(2)]
    pub bucket: BucketId,
    /// Keys begin with this.
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub prefix: Vec<u8>,
    /// How far it is.
    #[n(4)]
    pub state: DisposalState,
    /// Who proposed it; `None` for a local operator.
    #[n(5)]
    pub proposer: Option<UserId>,
    /// When.
    #[n(6)]
    pub proposed: TimestampMicros,
    /// Why.
    #[n(7)]
    pub reason: String,
    /// The decision behind it.
    #[n(8)]
    pub reference: String,
    /// What the list has.
    #[n(9)]
    pub listed: DisposalList,
    /// Everybody who decided, who proposed it first.
    #[n(10)]
    pub deciders: Vec<UserId>,
    /// Versions that were removed so far ...
    #[n(11)]
    pub removed: u64,
    /// ... with this many bytes.
    #[n(12)]
    pub removed_bytes: u64,
    /// Versions on the list that were left: under retention or hold when their turn came.
    #[n(13)]
    pub refused: u64,
    /// Versions on the list that were gone when their turn came.
    #[n(14)]
    pub gone: u64,
    /// When it ended.
    #[n(15)]
    pub ended: Option<TimestampMicros>,
    /// Delete markers with nothing under them that went with the data.
    #[n(16)]
    pub markers: u64,
}

/// What a disposal's list has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct DisposalList {
    /// Versions that may go.
    #[n(0)]
    pub versions: u64,
    /// Their bytes.
    #[n(1)]
    pub bytes: u64,
    /// Versions of the same keys that may not: under retention or hold.
    #[n(2)]
    pub kept: u64,
    /// SHA-256 over the list: for each entry in the order of listings its key's length (4 bytes, big-endian), its key and
    /// its version id.
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub digest: [u8; 32],
    /// The latest date until which any of the versions was under retention.
    #[n(4)]
    pub retention_ended: Option<TimestampMicros>,
}

/// An entry of a disposal's list.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct DisposalEntry {
    /// Its key.
    #[n(0)]
    pub key: ObjectKey,
    /// The version.
    #[n(1)]
    pub version: VersionId,
    /// Its bytes.
    #[n(2)]
    pub len_bytes: u64,
    /// Whether it is a delete marker.
    #[n(3)]
    pub is_delete_marker: bool,
}

/// One line of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ManifestEntry {
    /// Its place.
    #[n(0)]
    pub place: VersionPlace,
    /// Whether clients name it `null`.
    #[n(1)]
    pub is_null: bool,
    /// Whether it is the key's current version.
    #[n(2)]
    pub is_current: bool,
    /// Its bytes.
    #[n(3)]
    pub len_bytes: u64,
    /// When it was written.
    #[n(4)]
    pub modified: TimestampMicros,
    /// ETag without quotes.
    #[n(5)]
    pub etag: String,
    /// Its checksums.
    #[n(6)]
    pub checksums: Vec<Checksum>,
    /// How it was sealed at its writer's wish, as the gateway wrote it.
    #[n(7)]
    #[cbor(with = "minicbor::bytes")]
    pub encryption: Vec<u8>,
}

/// Why an act of retention, hold or disposal was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Encode, Decode)]
#[cbor(index_only)]
pub enum RetentionRefusal {
    /// The periods make no sense.
    #[error("retention is at most {PROJECT_RETENTION_DAYS_MAX} days, and a default is no shorter than the minimum")]
    #[n(1)]
    Days,
    /// A text is too long or has control characters.
    #[error("a label, reason or reference has at most {RETENTION_TEXT_LEN_BYTES_MAX} bytes and no control characters")]
    #[n(2)]
    Text,
    /// A reason or a reference is demanded.
    #[error("this act needs a reason and a reference to the decision behind it")]
    #[n(3)]
    TextMissing,
    /// A prefix without a bucket, or too long.
    #[error("a prefix needs a bucket, and is no longer than a key")]
    #[n(4)]
    Scope,
    /// One person does not lower what a project demands.
    #[error("lowering a project's retention needs two people: propose it, and let another controller approve")]
    #[n(5)]
    NeedsApproval,
    /// There is no such hold.
    #[error("no such legal hold")]
    #[n(6)]
    NoSuchHold,
    /// The bounds on holds.
    #[error("a bucket has at most {HOLDS_PER_BUCKET_MAX} legal holds, a project {HOLDS_PER_PROJECT_MAX}")]
    #[n(7)]
    TooManyHolds,
    /// There is no such disposal.
    #[error("no such disposal")]
    #[n(8)]
    NoSuchDisposal,
    /// The disposal is in another state.
    #[error("the disposal's state does not allow this")]
    #[n(9)]
    DisposalState,
    /// There is nothing to dispose of.
    #[error("nothing here may be disposed of: there is nothing, or everything is under retention or hold")]
    #[n(10)]
    NothingToDispose,
    /// The bucket is of another project.
    #[error("the bucket belongs to another project")]
    #[n(11)]
    OtherProject,
    /// A date that is over, or beyond the longest retention.
    #[error("the date must be in the future, and at most {PROJECT_RETENTION_DAYS_MAX} days away")]
    #[n(12)]
    Date,
    /// Nobody else has approved it.
    #[error("a disposal is carried out only after another person has approved it")]
    #[n(13)]
    NotApproved,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn years_are_never_shorter_than_calendar_years() {
        // The longest run of ten calendar years has three 29ths of February.
        for (years, days) in [(0, 0), (1, 366), (4, 1_461), (10, 3_653), (100, 36_525)] {
            assert_eq!(days_of_years(years), days, "{years}");
        }
    }

    #[test]
    fn a_class_is_lowered_by_less_of_anything_it_demands() {
        let class = |default_days, minimum_days, lifecycle_disposal| ProjectRetention {
            default_days,
            minimum_days,
            lifecycle_disposal,
            class: String::new(),
        };
        let cases = [
            (class(0, 0, false), class(10, 10, true), false),
            (class(20, 10, false), class(20, 10, false), false),
            (class(20, 10, false), class(30, 20, false), false),
            (class(20, 10, false), class(20, 9, false), true),
            (class(20, 10, false), class(0, 10, false), true),
            (class(20, 10, false), class(20, 10, true), true),
            (class(20, 0, false), class(10, 0, true), false),
            (class(20, 10, true), class(20, 10, false), false),
        ];
        for (old, new, lowered) in cases {
            assert_eq!(old.is_lowered_by(&new), lowered, "{old:?} -> {new:?}");
        }
        assert_eq!(class(5, 10, false).check(), Err(RetentionRefusal::Days));
        assert_eq!(class(0, 36_526, false).check(), Err(RetentionRefusal::Days));
        assert_eq!(class(0, 10, false).check(), Ok(()));
    }
}
