//! Records at rest: CBOR with numbered fields behind one format byte. The page `docs/format-metadata.md` lists them.
//!
//! A number is never used again for something else. A reader skips fields that it does not know, and refuses a format
//! byte that it does not know: the format changes only when skipping would be wrong.

use crate::quota::QuotaRecord;
use crate::retention::BucketGuard;
use bytes::Bytes;
use minicbor::{Decode, Encode};
use valv_ledger::leaf::LEAF_FORMAT;
use valv_ledger::{Accesses, Frontier, Leaf};
use valv_metadata_api::{
    Attributes, BlobPlace, BlobRecord, Body, BucketDocumentKind, Checksum, ChecksumAlgorithm, ChecksumType,
    LockRequest, MetadataError, ObjectLock, Retention, Versioning,
};
use valv_types::{
    BlobId, BucketId, ClusterId, CommitId, DiskId, Layout, NamespaceId, PoolId, ProjectId, TimestampMicros, UserId,
    VersionId,
};

/// The first byte of every record.
const FORMAT: u8 = 1;

/// Encodes a record.
pub(crate) fn encode<T: Encode<()>>(record: &T) -> Bytes {
    let mut out = vec![FORMAT];
    match minicbor::encode(record, &mut out) {
        Ok(()) => Bytes::from(out),
        // Writing to a Vec is infallible, and no record has an encoder of its own that refuses a value.
        Err(_) => unreachable!("records encode into memory"),
    }
}

/// A record without its format byte; `None` if that is another one.
pub(crate) fn body(bytes: &[u8]) -> Option<&[u8]> {
    bytes.split_first().filter(|(format, _)| **format == FORMAT).map(|(_, body)| body)
}

/// Decodes a record; `what` names it in the error.
pub(crate) fn decode<'b, T: Decode<'b, ()>>(what: &'static str, bytes: &'b [u8]) -> Result<T, MetadataError> {
    let corrupt = || MetadataError::Corrupt { what: what.to_owned() };
    match bytes.split_first() {
        Some((&FORMAT, body)) => minicbor::decode(body).map_err(|_| corrupt()),
        _ => Err(corrupt()),
    }
}

/// The cluster row.
#[derive(Debug, Clone, Encode, Decode)]
pub(crate) struct ClusterRecord {
    #[n(0)]
    pub(crate) cluster: ClusterId,
    #[n(1)]
    pub(crate) created: TimestampMicros,
    /// The key of the hashes that stand in keys for names: 32 bytes sealed under the system key "names".
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) sealed_name_key: Vec<u8>,
}

/// The cluster clock's row.
#[derive(Debug, Clone, Copy, Encode, Decode)]
pub(crate) struct ClockRecord {
    /// Cluster time has reached this.
    #[n(0)]
    pub(crate) high_water: TimestampMicros,
}

/// Who does background work until when.
#[derive(Debug, Clone, Encode, Decode)]
pub(crate) struct LeaseRecord {
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) holder: [u8; 16],
    #[n(1)]
    pub(crate) expires: TimestampMicros,
}

/// A project. The name is sealed under the system key "principals".
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct ProjectRecord {
    #[n(0)]
    pub(crate) namespace: NamespaceId,
    #[n(1)]
    pub(crate) pool: PoolId,
    #[n(2)]
    pub(crate) created: TimestampMicros,
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) sealed_name: Vec<u8>,
    /// Since when it has members.
    #[n(4)]
    pub(crate) governed: Option<TimestampMicros>,
    /// Version of the project key that seals what is said of it.
    #[n(5)]
    #[cbor(default)]
    pub(crate) details_key_version: u32,
    /// What is said of it, sealed.
    #[n(6)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) sealed_details: Option<Vec<u8>>,
    /// From when on it is read-only.
    #[n(7)]
    pub(crate) paid_until: Option<TimestampMicros>,
    #[n(8)]
    pub(crate) quota: Option<QuotaRecord>,
    /// A second controller has to approve each opening.
    #[n(9)]
    #[cbor(default)]
    pub(crate) two_person_openings: bool,
}

/// A namespace. The name is sealed under the system key "principals".
#[derive(Debug, Clone, Encode, Decode)]
pub(crate) struct NamespaceRecord {
    #[n(0)]
    pub(crate) created: TimestampMicros,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) sealed_name: Vec<u8>,
}

/// A user.
#[derive(Debug, Clone, Encode, Decode)]
pub(crate) struct UserRecord {
    #[n(0)]
    pub(crate) project: ProjectId,
    #[n(1)]
    pub(crate) created: TimestampMicros,
    /// [`UserNames`], sealed under the system key "principals".
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) sealed: Vec<u8>,
}

/// What a user is called.
#[derive(Debug, Clone, Encode, Decode)]
pub(crate) struct UserNames {
    #[n(0)]
    pub(crate) name: String,
    #[n(1)]
    pub(crate) display_name: String,
    #[n(2)]
    pub(crate) email: String,
    #[n(3)]
    pub(crate) canonical_id: String,
}

/// An access key.
#[derive(Debug, Clone, Encode, Decode)]
pub(crate) struct AccessKeyRecord {
    #[n(0)]
    pub(crate) user: UserId,
    #[n(1)]
    pub(crate) project: ProjectId,
    #[n(2)]
    pub(crate) created: TimestampMicros,
    #[n(3)]
    pub(crate) disabled: bool,
    /// The secret, sealed under the system key "access keys".
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) sealed_secret: Vec<u8>,
}

/// A bucket's state.
#[derive(Debug, Clone, Encode, Decode)]
pub(crate) struct BucketRecord {
    #[n(0)]
    pub(crate) project: ProjectId,
    #[n(1)]
    pub(crate) namespace: NamespaceId,
    #[n(2)]
    pub(crate) owner: UserId,
    #[n(3)]
    pub(crate) created: TimestampMicros,
    #[n(4)]
    pub(crate) layout: Layout,
    #[n(5)]
    pub(crate) versioning: Versioning,
    #[n(6)]
    pub(crate) object_lock: Option<ObjectLock>,
    #[n(7)]
    pub(crate) documents: Vec<BucketDocumentKind>,
    /// Version of the project key that seals the name.
    #[n(8)]
    pub(crate) key_version: u32,
    #[n(9)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) sealed_name: Vec<u8>,
    /// Since when a deletion is checking that the bucket is empty: no write commits meanwhile.
    #[n(10)]
    pub(crate) closing: Option<TimestampMicros>,
    /// How many times a document was set or removed.
    #[n(11)]
    #[cbor(default)]
    pub(crate) document_changes: u64,
    /// What its project's retention class and legal holds demand here: a copy, rewritten by the act that changes them, so
    /// that whoever expects this row has judged by what holds now.
    #[n(15)]
    #[cbor(default)]
    pub(crate) guard: Option<Box<BucketGuard>>,
}

/// A bucket document: its text, sealed.
#[derive(Debug, Clone, Encode, Decode)]
pub(crate) struct DocumentRecord {
    #[n(0)]
    pub(crate) key_version: u32,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) sealed: Vec<u8>,
}

/// Flag of [`VersionRecord`]: clients name it `null`.
pub(crate) const FLAG_NULL: u8 = 1;
/// Flag of [`VersionRecord`]: a delete marker.
pub(crate) const FLAG_DELETE_MARKER: u8 = 2;
/// Flag of [`VersionRecord`]: under legal hold.
pub(crate) const FLAG_LEGAL_HOLD: u8 = 4;
/// Flag of [`VersionRecord`]: a legal hold was set or released by name, at least once.
pub(crate) const FLAG_LEGAL_HOLD_SAID: u8 = 8;

/// A version: what listing, retention and reclaim need lies open, the rest is sealed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct VersionRecord {
    #[n(0)]
    pub(crate) id: VersionId,
    #[n(1)]
    pub(crate) order: TimestampMicros,
    #[n(2)]
    pub(crate) flags: u8,
    #[n(3)]
    pub(crate) len_bytes: u64,
    #[n(4)]
    pub(crate) body: Body,
    #[n(5)]
    pub(crate) owner: Option<UserId>,
    #[n(6)]
    pub(crate) retention: Option<Retention>,
    /// Version of the project key that seals the attributes.
    #[n(7)]
    pub(crate) key_version: u32,
    /// [`Attributes`], sealed for (project, bucket, version): the place does not change when a version stops being the
    /// current one, so moving it needs no key.
    #[n(8)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) sealed: Vec<u8>,
}

impl VersionRecord {
    pub(crate) fn is_null(&self) -> bool {
        self.flags & FLAG_NULL != 0
    }

    pub(crate) fn is_delete_marker(&self) -> bool {
        self.flags & FLAG_DELETE_MARKER != 0
    }

    pub(crate) fn legal_hold(&self) -> bool {
        self.flags & FLAG_LEGAL_HOLD != 0
    }

    /// A hold that stands was set, whether or not an older Valv noted it.
    pub(crate) fn legal_hold_said(&self) -> bool {
        self.flags & (FLAG_LEGAL_HOLD | FLAG_LEGAL_HOLD_SAID) != 0
    }
}

/// As much of a version as a listing shows; the body is skipped, and nothing is copied.
#[derive(Debug, Clone, Decode)]
pub(crate) struct ListedVersion<'b> {
    #[n(0)]
    pub(crate) id: VersionId,
    #[n(1)]
    pub(crate) order: TimestampMicros,
    #[n(2)]
    pub(crate) flags: u8,
    #[n(3)]
    pub(crate) len_bytes: u64,
    #[n(5)]
    pub(crate) owner: Option<UserId>,
    #[n(7)]
    pub(crate) key_version: u32,
    #[b(8)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) sealed: &'b [u8],
}

/// As much of [`Attributes`] as a listing shows.
#[derive(Debug, Clone, Decode)]
pub(crate) struct ListedAttributes<'b> {
    #[b(0)]
    pub(crate) etag: &'b str,
    #[n(4)]
    pub(crate) checksums: Vec<ListedChecksum>,
}

/// Which checksum, without its value.
#[derive(Debug, Clone, Decode)]
pub(crate) struct ListedChecksum {
    #[n(0)]
    pub(crate) algorithm: ChecksumAlgorithm,
    #[n(1)]
    pub(crate) kind: ChecksumType,
}

/// A key's noncurrent null version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct NullRef {
    #[n(0)]
    pub(crate) order: TimestampMicros,
    #[n(1)]
    pub(crate) id: VersionId,
}

/// The head row of a key: its current version or delete marker. Every writer of a key meets on this row.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct HeadRecord {
    #[n(0)]
    pub(crate) version: VersionRecord,
    /// The null version, if the key has one that is not current.
    #[n(1)]
    pub(crate) null: Option<NullRef>,
}

/// As much of a head row as a listing shows.
#[derive(Debug, Clone, Decode)]
pub(crate) struct ListedHead<'b> {
    #[b(0)]
    pub(crate) version: ListedVersion<'b>,
    #[n(1)]
    pub(crate) null: Option<NullRef>,
}

/// A noncurrent version's row.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct NoncurrentRecord {
    #[n(0)]
    pub(crate) version: VersionRecord,
}

/// As much of a noncurrent row as a listing shows.
#[derive(Debug, Clone, Decode)]
pub(crate) struct ListedNoncurrent<'b> {
    #[b(0)]
    pub(crate) version: ListedVersion<'b>,
}

/// Where the noncurrent version with this id stands among its key's.
#[derive(Debug, Clone, Copy, Encode, Decode)]
pub(crate) struct VersionIndexRecord {
    #[n(0)]
    pub(crate) order: TimestampMicros,
}

/// A reference to a blob, with all that a census needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct BlobRefRecord {
    #[n(0)]
    pub(crate) len_bytes: u64,
    #[n(1)]
    pub(crate) layout: Layout,
    #[n(2)]
    pub(crate) place: BlobPlace,
}

impl From<&BlobRecord> for BlobRefRecord {
    fn from(blob: &BlobRecord) -> Self {
        Self { len_bytes: blob.len_bytes, layout: blob.layout, place: blob.place }
    }
}

/// A page of a multipart object's parts.
#[derive(Debug, Clone, Encode, Decode)]
pub(crate) struct PageRecord {
    #[n(0)]
    pub(crate) parts: Vec<PagePart>,
    #[n(1)]
    pub(crate) key_version: u32,
    /// `Vec<`[`PartSecrets`]`>`, sealed.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) sealed: Vec<u8>,
}

/// The open half of a part.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct PagePart {
    #[n(0)]
    pub(crate) number: u16,
    #[n(1)]
    pub(crate) offset: u64,
    #[n(2)]
    pub(crate) blob: BlobRecord,
    #[n(3)]
    pub(crate) modified: TimestampMicros,
}

/// The sealed half of a part: it would fingerprint known files.
#[derive(Debug, Clone, Encode, Decode)]
pub(crate) struct PartSecrets {
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) md5: [u8; 16],
    #[n(1)]
    pub(crate) checksums: Vec<Checksum>,
}

/// A part of an open upload.
#[derive(Debug, Clone, Encode, Decode)]
pub(crate) struct PartRow {
    #[n(0)]
    pub(crate) part: PagePart,
    #[n(1)]
    pub(crate) key_version: u32,
    /// [`PartSecrets`], sealed.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) sealed: Vec<u8>,
}

/// An open upload.
#[derive(Debug, Clone, Encode, Decode)]
pub(crate) struct UploadRecord {
    #[n(0)]
    pub(crate) bucket: BucketId,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) key: Vec<u8>,
    #[n(2)]
    pub(crate) owner: Option<UserId>,
    #[n(3)]
    pub(crate) initiated: TimestampMicros,
    #[n(4)]
    pub(crate) lock: LockRequest,
    #[n(5)]
    pub(crate) checksum: Option<(ChecksumAlgorithm, ChecksumType)>,
    #[n(6)]
    pub(crate) key_version: u32,
    /// [`Attributes`], sealed.
    #[n(7)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) sealed: Vec<u8>,
}

/// What waits in the trash.
#[derive(Debug, Clone, Encode, Decode)]
pub(crate) enum TrashRecord {
    /// A removed version, with all that bringing it back needs.
    #[n(0)]
    Version(#[n(0)] Box<TrashedVersion>),
    /// An upload that ended: parts that no version took are still to be released.
    #[n(1)]
    Upload(#[n(0)] TrashedUpload),
}

/// A removed version.
#[derive(Debug, Clone, Encode, Decode)]
pub(crate) struct TrashedVersion {
    #[n(0)]
    pub(crate) version: VersionRecord,
    #[n(1)]
    pub(crate) project: ProjectId,
    #[n(2)]
    pub(crate) bucket: BucketId,
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) key: Vec<u8>,
    #[n(4)]
    pub(crate) removed: TimestampMicros,
    /// The user who removed it.
    #[n(5)]
    pub(crate) by: Option<UserId>,
    /// Part of its references are gone already: it can't be brought back.
    #[n(6)]
    pub(crate) purging: bool,
}

/// An upload that was completed or aborted.
#[derive(Debug, Clone, Encode, Decode)]
pub(crate) struct TrashedUpload {
    #[n(0)]
    pub(crate) project: ProjectId,
    #[n(1)]
    pub(crate) bucket: BucketId,
}

/// A blob whose shards are to be deleted.
#[derive(Debug, Clone, Encode, Decode)]
pub(crate) struct DoomedRecord {
    #[n(0)]
    pub(crate) len_bytes: u64,
    #[n(1)]
    pub(crate) layout: Layout,
    #[n(2)]
    pub(crate) answered: Vec<DiskId>,
}

/// A blob that waits for repair.
#[derive(Debug, Clone, Encode, Decode)]
pub(crate) struct RepairRecord {
    #[n(0)]
    pub(crate) len_bytes: u64,
    #[n(1)]
    pub(crate) layout: Layout,
    /// Disks known to lack shards; empty when a read met the damage.
    #[n(2)]
    pub(crate) missing: Vec<DiskId>,
}

/// Since when a blob has been on the repair queue or doomed.
#[derive(Debug, Clone, Copy, Encode, Decode)]
pub(crate) struct QueuedSince {
    #[n(0)]
    pub(crate) since: TimestampMicros,
}

/// The last incarnation number given.
#[derive(Debug, Clone, Copy, Encode, Decode)]
pub(crate) struct IncarnationCounter {
    #[n(0)]
    pub(crate) last: u32,
}

/// One run of a gateway.
#[derive(Debug, Clone, Copy, Encode, Decode)]
pub(crate) struct IncarnationRecord {
    #[n(0)]
    pub(crate) registered: TimestampMicros,
    #[n(1)]
    pub(crate) last_seen: TimestampMicros,
    #[n(2)]
    pub(crate) low_water: u64,
}

/// An incarnation that may commit nothing any more.
#[derive(Debug, Clone, Copy, Encode, Decode)]
pub(crate) struct FenceRecord {
    #[n(0)]
    pub(crate) since: TimestampMicros,
}

/// What a ledger record tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
#[repr(u32)]
pub(crate) enum EventKind {
    /// A principal was created, its secret replaced or its names changed, from the configuration or by `valv user add`.
    #[n(1)]
    PrincipalEnsured = 1,
    #[n(2)]
    AccessKeyCreated = 2,
    #[n(3)]
    AccessKeyDisabled = 3,
    #[n(4)]
    AccessKeyEnabled = 4,
    #[n(5)]
    AccessKeyDeleted = 5,
    /// Names, e-mail address or default project of a user changed.
    #[n(6)]
    UserChanged = 6,
    /// A user was deleted, with all access keys.
    #[n(7)]
    UserDeleted = 7,
    /// A user got a token for the admin service.
    #[n(8)]
    TokenCreated = 8,
    #[n(9)]
    TokenRevoked = 9,
    #[n(10)]
    BucketCreated = 10,
    #[n(11)]
    BucketDeleted = 11,
    #[n(12)]
    BucketChanged = 12,
    /// An object version was ingested (PREMIS: ingestion).
    #[n(20)]
    VersionCreated = 20,
    /// ... by copying another (PREMIS: replication).
    #[n(21)]
    VersionCopied = 21,
    #[n(22)]
    DeleteMarkerCreated = 22,
    /// A version was moved to the trash, or a delete marker removed (PREMIS: deaccession).
    #[n(23)]
    VersionRemoved = 23,
    /// A version was brought back from the trash.
    #[n(24)]
    VersionRestored = 24,
    /// A version left the trash; its last references went with it (PREMIS: deletion).
    #[n(25)]
    VersionPurged = 25,
    /// Tags, access list, retention or hold changed (PREMIS: metadata modification).
    #[n(26)]
    VersionChanged = 26,
    /// A lifecycle rule moved a version to the trash, or removed a delete marker (PREMIS: deaccession).
    #[n(27)]
    VersionExpired = 27,
    /// A lifecycle rule covered the current version with a delete marker.
    #[n(28)]
    DeleteMarkerByRule = 28,
    #[n(30)]
    UploadCreated = 30,
    #[n(31)]
    PartCommitted = 31,
    #[n(32)]
    UploadCompleted = 32,
    #[n(33)]
    UploadAborted = 33,
    /// ... by a lifecycle rule.
    #[n(34)]
    UploadExpired = 34,
    /// A governed project was made.
    #[n(50)]
    ProjectCreated = 50,
    /// A project got its first controller.
    #[n(51)]
    ProjectGoverned = 51,
    /// What is said of a project changed, or its limits.
    #[n(52)]
    ProjectChanged = 52,
    /// A user became a member, or got other roles.
    #[n(53)]
    MemberSet = 53,
    #[n(54)]
    MemberRemoved = 54,
    /// Somebody who is no member was let in.
    #[n(70)]
    OpeningCreated = 70,
    /// ... and out again before the time.
    #[n(71)]
    OpeningRevoked = 71,
    /// A network zone was made or changed.
    #[n(72)]
    ZoneSet = 72,
    #[n(73)]
    ZoneRemoved = 73,
    /// An act that needs a second person was proposed.
    #[n(85)]
    ActProposed = 85,
    #[n(86)]
    ActApproved = 86,
    /// ... rejected, or withdrawn by who proposed it.
    #[n(87)]
    ActRejected = 87,
    #[n(88)]
    ActCarriedOut = 88,
    /// An approved act could not be carried out.
    #[n(89)]
    ActFailed = 89,
    /// Accesses that began, or were answered, with completions of others.
    #[n(100)]
    AccessesRecorded = 100,
    /// Only completions of accesses.
    #[n(101)]
    AccessesCompleted = 101,
    /// A project's retention class was set.
    #[n(90)]
    RetentionSet = 90,
    /// Versions of a bucket, a prefix or one alone are kept longer. Each one's record is a [`Self::VersionChanged`].
    #[n(91)]
    RetentionExtended = 91,
    /// A legal hold on a project, bucket or prefix was set.
    #[n(92)]
    HoldSet = 92,
    #[n(93)]
    HoldReleased = 93,
    /// A list of versions that may be disposed of was made.
    #[n(94)]
    DisposalProposed = 94,
    /// A second person approved it.
    #[n(95)]
    DisposalApproved = 95,
    #[n(96)]
    DisposalRejected = 96,
    /// A disposal moved a version to the trash (PREMIS: deaccession).
    #[n(97)]
    VersionDisposed = 97,
    /// Every version on the list had its turn.
    #[n(98)]
    DisposalEnded = 98,
    /// The root key was replaced: in the cluster's ledger.
    #[n(120)]
    RootKeyReplaced = 120,
    /// A new version of a project's key was made; what is under old ones moves to it from here on.
    #[n(121)]
    ProjectKeyReplacing = 121,
    /// Nothing refers to the project's old key versions any more, and they are destroyed.
    #[n(122)]
    ProjectKeyReplaced = 122,
    /// A project's keys were destroyed, and with them all that was under them (PREMIS: deletion).
    #[n(123)]
    ProjectShredded = 123,
    /// The key of one object version was destroyed (PREMIS: deletion).
    #[n(124)]
    VersionShredded = 124,
    #[n(130)]
    CustodianCreated = 130,
    #[n(131)]
    CustodianChanged = 131,
    #[n(132)]
    CustodianRemoved = 132,
    /// A disk was given to a custodian, or its guarantee changed.
    #[n(133)]
    DiskCustodyChanged = 133,
    /// Shards of the project's blobs were missing or damaged, and were rebuilt.
    #[n(110)]
    ShardsRepaired = 110,
    /// A controller offered the project to another one.
    #[n(134)]
    TransferOffered = 134,
    /// ... who accepted: the project changed hands.
    #[n(135)]
    TransferAccepted = 135,
    #[n(136)]
    TransferWithdrawn = 136,
    #[n(137)]
    TransferDeclined = 137,
}

/// One custody event.
#[derive(Debug, Clone, Encode, Decode)]
pub(crate) struct LedgerRecord {
    #[n(0)]
    pub(crate) time: TimestampMicros,
    #[n(1)]
    pub(crate) kind: EventKind,
    #[n(2)]
    pub(crate) user: Option<UserId>,
    #[n(3)]
    pub(crate) bucket: Option<BucketId>,
    #[n(4)]
    pub(crate) version: Option<VersionId>,
    #[n(5)]
    pub(crate) bytes: u64,
    /// [`valv_ledger::Names::hash`] of the sealed part, which has a salt: what the tree covers, telling nothing once the
    /// project's key is gone.
    #[n(6)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) names_hash: [u8; 32],
    #[n(7)]
    pub(crate) key_version: u32,
    /// [`valv_ledger::Names`], sealed; for accesses [`valv_ledger::AccessNames`].
    #[n(8)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) sealed: Vec<u8>,
    /// [`valv_ledger::Accesses`], for the two kinds that stand for them.
    #[n(9)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) entries: Option<Vec<u8>>,
}

impl LedgerRecord {
    /// The leaf that the record becomes.
    pub(crate) fn leaf(&self, project: ProjectId, event: CommitId) -> Leaf {
        Leaf {
            format: LEAF_FORMAT,
            project,
            event,
            time: self.time,
            kind: self.kind as u32,
            user: self.user,
            bucket: self.bucket,
            version: self.version,
            bytes: self.bytes,
            names_hash: self.names_hash,
            entries_hash: self.entries.as_deref().map(Accesses::hash_of),
        }
    }
}

/// Leaves in one page: 4 KiB of ids.
pub(crate) const LEAVES_PER_PAGE: usize = 256;

/// A page of a tree's leaves: which events they are of, in order.
#[derive(Debug, Clone, Default, Encode, Decode)]
pub(crate) struct LeafPage {
    /// Ids of 16 bytes, one after the other.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    events: Vec<u8>,
}

impl LeafPage {
    pub(crate) fn push(&mut self, event: CommitId) {
        self.events.extend_from_slice(event.as_bytes());
    }

    pub(crate) fn len(&self) -> usize {
        self.events.len() / 16
    }

    pub(crate) fn events(&self) -> impl Iterator<Item = CommitId> + '_ {
        self.events.as_chunks::<16>().0.iter().map(|id| CommitId::from_bytes(*id))
    }
}

/// The right edge of a project's tree.
#[derive(Debug, Clone, Default, Encode, Decode)]
pub(crate) struct TreeRecord {
    #[n(0)]
    pub(crate) size: u64,
    /// Hashes of the complete subtrees, largest first: 32 bytes each.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) peaks: Vec<u8>,
}

impl TreeRecord {
    /// Takes up the tree. `None` if the record contradicts itself.
    pub(crate) fn frontier(&self) -> Option<Frontier> {
        let (peaks, rest) = self.peaks.as_chunks::<32>();
        if rest.is_empty() { Frontier::new(self.size, peaks.to_vec()) } else { None }
    }

    pub(crate) fn of(frontier: &Frontier) -> Self {
        Self { size: frontier.size(), peaks: frontier.peaks().concat() }
    }
}

/// A complete subtree of a project's tree.
#[derive(Debug, Clone, Copy, Encode, Decode)]
pub(crate) struct NodeRecord {
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) hash: [u8; 32],
}

/// How many leaves of a project's tree are counted in its months.
#[derive(Debug, Clone, Copy, Default, Encode, Decode)]
pub(crate) struct UsageCountedRecord {
    #[n(0)]
    pub(crate) leaves: u64,
}

/// Makes sure that a decoded blob can be computed with.
pub(crate) fn check_blob(blob: &BlobRecord) -> Result<(), MetadataError> {
    blob.layout.check().map_err(|error| MetadataError::Malformed { what: error.to_string() })
}

/// The blob id and reference of each part of a page.
pub(crate) fn page_refs(page: &PageRecord) -> impl Iterator<Item = (BlobId, BlobRefRecord)> + '_ {
    page.parts.iter().map(|part| (part.blob.blob, BlobRefRecord::from(&part.blob)))
}

/// Attributes as their sealed bytes; kept here so that both directions stand together.
pub(crate) fn encode_attributes(attributes: &Attributes) -> Bytes {
    encode(attributes)
}
