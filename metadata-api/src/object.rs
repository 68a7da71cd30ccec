//! Object versions: how they are written, read, listed and removed.

use crate::{Actor, Bucket, RetentionMode};
use minicbor::{Decode, Encode};
use std::fmt;
use valv_types::{
    BlobId, BucketId, CommitId, DiskId, Epoch, IncarnationId, Layout, TimestampMicros, UserId, VersionId,
};

/// An object's key: 1 to 1,024 bytes, taken as they are. No slash, dot or case is ever normalised.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(Vec<u8>);

impl ObjectKey {
    /// Longest key in bytes.
    pub const LEN_BYTES_MAX: usize = 1024;

    /// Takes a key's bytes; `None` if they are none or too many.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Option<Self> {
        let bytes = bytes.into();
        (1..=Self::LEN_BYTES_MAX).contains(&bytes.len()).then_some(Self(bytes))
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectKey({})", self.0.escape_ascii())
    }
}

impl<C> Encode<C> for ObjectKey {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for ObjectKey {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Self::new(d.bytes()?).ok_or_else(|| minicbor::decode::Error::message("object key of wrong length"))
    }
}

/// Where a blob's sealed bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum BlobPlace {
    /// In a metadata row of its own: one sealed frame.
    #[n(0)]
    Inline,
    /// In shards on the pool's disks.
    #[n(1)]
    Shards,
}

/// A blob and what opens it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct BlobRecord {
    /// The blob.
    #[n(0)]
    pub blob: BlobId,
    /// Its plaintext length.
    #[n(1)]
    pub len_bytes: u64,
    /// How it was cut and coded.
    #[n(2)]
    pub layout: Layout,
    /// Where it is.
    #[n(3)]
    pub place: BlobPlace,
    /// Its data key, wrapped (see `docs/format.md`, "Wrapped data keys").
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    pub wrapped_key: Vec<u8>,
}

/// One part of a multipart object.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct PartRecord {
    /// The part number the client gave, 1 to 10,000.
    #[n(0)]
    pub number: u16,
    /// Plaintext bytes of the object before this part (0 while the upload is open).
    #[n(1)]
    pub offset: u64,
    /// The part's blob.
    #[n(2)]
    pub blob: BlobRecord,
    /// MD5 of the part, 16 bytes.
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub md5: [u8; 16],
    /// Checksums of the part, as the client asked for.
    #[n(4)]
    pub checksums: Vec<Checksum>,
    /// When it was committed.
    #[n(5)]
    pub modified: TimestampMicros,
}

/// Parts in one page: a page is one metadata row, and a range read touches the pages it needs.
pub const PARTS_PER_PAGE: usize = 256;

/// What a version's body is made of.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Body {
    /// No bytes at all.
    #[n(0)]
    Empty,
    /// One blob.
    #[n(1)]
    Blob(#[n(0)] BlobRecord),
    /// Parts, in pages of [`PARTS_PER_PAGE`] read with `get_part_page`.
    #[n(2)]
    Parts(#[n(0)] PartsIndex),
}

/// Where the pages of a multipart object begin.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct PartsIndex {
    /// Number of parts.
    #[n(0)]
    pub count: u32,
    /// The version whose id the page rows carry.
    #[n(1)]
    pub pages_of: VersionId,
    /// Offset within the object of each page's first byte.
    #[n(2)]
    pub page_offsets: Vec<u64>,
}

/// The checksums that S3 knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum ChecksumAlgorithm {
    /// CRC-32 (ISO-HDLC), 4 bytes.
    #[n(1)]
    Crc32,
    /// CRC-32C (iSCSI), 4 bytes.
    #[n(2)]
    Crc32c,
    /// CRC-64/NVME, 8 bytes.
    #[n(3)]
    Crc64Nvme,
    /// SHA-1, 20 bytes.
    #[n(4)]
    Sha1,
    /// SHA-256, 32 bytes.
    #[n(5)]
    Sha256,
    /// SHA-512, 64 bytes.
    #[n(6)]
    Sha512,
    /// MD5, 16 bytes.
    #[n(7)]
    Md5,
    /// XXH64 with seed 0, 8 bytes.
    #[n(8)]
    XxHash64,
    /// XXH3 of 64 bits with seed 0, 8 bytes.
    #[n(9)]
    XxHash3,
    /// XXH3 of 128 bits with seed 0, 16 bytes.
    #[n(10)]
    XxHash128,
}

/// Whether a checksum is of the whole object or of its parts' checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum ChecksumType {
    /// Of the object's bytes.
    #[n(1)]
    FullObject,
    /// Of the concatenated checksums of the parts.
    #[n(2)]
    Composite,
}

/// A checksum, verified when the bytes came in.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Checksum {
    /// Which algorithm.
    #[n(0)]
    pub algorithm: ChecksumAlgorithm,
    /// Of what.
    #[n(1)]
    pub kind: ChecksumType,
    /// The digest's bytes, big-endian as S3 sends them.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub value: Vec<u8>,
}

/// What a version says of itself besides its bytes. Sealed in metadata: it would fingerprint known files and people.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Attributes {
    /// The ETag without quotes: MD5 in hexadecimal, or `hex-N` for N parts.
    #[n(0)]
    pub etag: String,
    /// Headers kept for the reader (Content-Type, Content-Encoding, Cache-Control, ...), lower-case names.
    #[n(1)]
    pub headers: Vec<(String, String)>,
    /// User metadata without the `x-amz-meta-` prefix, lower-case names.
    #[n(2)]
    pub user_metadata: Vec<(String, String)>,
    /// Tags.
    #[n(3)]
    pub tags: Vec<(String, String)>,
    /// Checksums.
    #[n(4)]
    pub checksums: Vec<Checksum>,
    /// Access control list, as the gateway wrote it; empty means private to the owner.
    #[n(5)]
    #[cbor(with = "minicbor::bytes")]
    pub acl: Vec<u8>,
    /// How the gateway sealed it at the client's wish; empty means SSE-S3 (see the gateway's `encryption`).
    #[n(6)]
    #[cbor(with = "minicbor::bytes")]
    pub encryption: Vec<u8>,
    /// Who owns the version, if that is somebody else than who writes it.
    #[n(7)]
    pub owner: Option<UserId>,
}

/// A date before which a version can't be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Retention {
    /// Who may shorten it.
    #[n(0)]
    pub mode: RetentionMode,
    /// The date, in cluster time.
    #[n(1)]
    pub until: TimestampMicros,
}

/// One version of an object, or a delete marker.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ObjectVersion {
    /// The version.
    #[n(0)]
    pub id: VersionId,
    /// Its place among its key's versions and its modification time: max(now, newest + 1).
    #[n(1)]
    pub order: TimestampMicros,
    /// Whether clients name it `null` (written while versioning was not enabled).
    #[n(2)]
    pub is_null: bool,
    /// Whether it only says that the key was deleted.
    #[n(3)]
    pub is_delete_marker: bool,
    /// Plaintext length.
    #[n(4)]
    pub len_bytes: u64,
    /// The bytes.
    #[n(5)]
    pub body: Body,
    /// Who owns it; `None` for what nobody signed for.
    #[n(6)]
    pub owner: Option<UserId>,
    /// Retention, if any.
    #[n(7)]
    pub retention: Option<Retention>,
    /// Legal hold.
    #[n(8)]
    pub legal_hold: bool,
    /// The rest.
    #[n(9)]
    pub attributes: Attributes,
    /// Whether a legal hold was ever set or released by name: S3 tells "released" and "never" apart.
    #[n(10)]
    #[cbor(default)]
    pub legal_hold_said: bool,
}

/// What a write demands of the key's current version. Judged inside the commit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct WriteCondition {
    /// The current version's ETag must be one of these (without quotes; `*` matches any).
    #[n(0)]
    pub if_match: Option<Vec<String>>,
    /// There must be no current version (`*`), or its ETag must be none of these.
    #[n(1)]
    pub if_none_match: Option<Vec<String>>,
    /// The current version must have been modified in this second (DeleteObject's x-amz-if-match-last-modified-time).
    #[n(2)]
    pub if_match_modified_secs: Option<u64>,
    /// The current version must have this length (DeleteObject's x-amz-if-match-size).
    #[n(3)]
    pub if_match_len_bytes: Option<u64>,
}

/// A slot that was down when its shards were acknowledged: repair starts from these.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct MissingSlot {
    /// The blob.
    #[n(0)]
    pub blob: BlobId,
    /// The disk that has not all of its shards.
    #[n(1)]
    pub disk: DiskId,
}

/// How a write came about; every commit that makes blobs visible carries it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct WriteProof {
    /// The gateway's incarnation; a fenced one is refused.
    #[n(0)]
    pub incarnation: IncarnationId,
    /// The lowest epoch under which its shards were written.
    #[n(1)]
    pub epoch: Epoch,
    /// Slots that were down.
    #[n(2)]
    pub missing: Vec<MissingSlot>,
}

/// The bytes of a new version.
#[derive(Debug, Clone, Encode, Decode)]
pub enum NewBody {
    /// None.
    #[n(0)]
    Empty,
    /// A sealed frame that goes into a row of its own.
    #[n(1)]
    Inline(
        #[n(0)] BlobRecord,
        #[n(1)]
        #[cbor(with = "minicbor::bytes")]
        Vec<u8>,
    ),
    /// A blob whose shards are durable.
    #[n(2)]
    Blob(#[n(0)] BlobRecord),
}

/// Retention and hold that a write asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct LockRequest {
    /// Retention; `None` takes the bucket's default.
    #[n(0)]
    pub retention: Option<Retention>,
    /// Legal hold.
    #[n(1)]
    pub legal_hold: bool,
}

/// Makes a version visible.
#[derive(Debug, Clone, Encode, Decode)]
pub struct PutObject {
    /// Who asks.
    #[n(0)]
    pub actor: Actor,
    /// The bucket.
    #[n(1)]
    pub bucket: BucketId,
    /// The key.
    #[n(2)]
    pub key: ObjectKey,
    /// The bytes.
    #[n(3)]
    pub body: NewBody,
    /// The rest.
    #[n(4)]
    pub attributes: Attributes,
    /// Retention and hold.
    #[n(5)]
    pub lock: LockRequest,
    /// What must hold.
    #[n(6)]
    pub condition: WriteCondition,
    /// How the blob was written.
    #[n(7)]
    pub proof: WriteProof,
    /// Resolves the outcome if the answer is lost; also the version's id.
    #[n(8)]
    pub commit: CommitId,
}

/// The version that a write made.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Written {
    /// The version.
    #[n(0)]
    pub version: VersionId,
    /// Its modification time.
    #[n(1)]
    pub order: TimestampMicros,
    /// What clients are told: `None` in a bucket that never had versioning, `null` or the id otherwise.
    #[n(2)]
    pub shown: ShownVersion,
    /// Its ETag without quotes.
    #[n(3)]
    pub etag: String,
    /// Its checksums.
    #[n(4)]
    pub checksums: Vec<Checksum>,
}

/// What a response says of the version id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum ShownVersion {
    /// Nothing: the bucket never had versioning.
    #[n(0)]
    Hidden,
    /// `null`.
    #[n(1)]
    Null,
    /// The version's id.
    #[n(2)]
    Id(#[n(0)] VersionId),
}

/// Which version of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum VersionSelector {
    /// The current one.
    #[n(0)]
    Current,
    /// The one that clients name `null`.
    #[n(1)]
    Null,
    /// This one.
    #[n(2)]
    Id(#[n(0)] VersionId),
}

/// Reads a version's record.
#[derive(Debug, Clone, Encode, Decode)]
pub struct GetObject {
    /// The bucket.
    #[n(0)]
    pub bucket: BucketId,
    /// The key.
    #[n(1)]
    pub key: ObjectKey,
    /// Which version. A current delete marker is returned as such: the gateway decides what to say.
    #[n(2)]
    pub version: VersionSelector,
    /// Whether to bring the sealed bytes of an inline body.
    #[n(3)]
    pub with_inline: bool,
}

/// A version's record as read.
#[derive(Debug, Clone, Encode, Decode)]
pub struct FoundObject {
    /// The record.
    #[n(0)]
    pub version: ObjectVersion,
    /// What clients are told of its id.
    #[n(1)]
    pub shown: ShownVersion,
    /// Whether it is the key's current version.
    #[n(2)]
    pub is_current: bool,
    /// The sealed frame of an inline body, if asked for.
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub inline: Option<Vec<u8>>,
}

/// Reads one page of a multipart object's parts.
#[derive(Debug, Clone, Encode, Decode)]
pub struct GetPartPage {
    /// From [`PartsIndex::pages_of`].
    #[n(0)]
    pub version: VersionId,
    /// The bucket, whose project's key seals the page.
    #[n(1)]
    pub bucket: BucketId,
    /// Which page, from 0.
    #[n(2)]
    pub page: u32,
}

/// A page of parts. Inline parts bring their sealed frames along.
#[derive(Debug, Clone, Encode, Decode)]
pub struct PartPage {
    /// The parts, in order.
    #[n(0)]
    pub parts: Vec<PartRecord>,
    /// Sealed frames of inline parts, by blob.
    #[n(1)]
    pub inline: Vec<InlineFrame>,
}

/// The sealed frame of an inline blob.
#[derive(Debug, Clone, Encode, Decode)]
pub struct InlineFrame {
    /// The blob.
    #[n(0)]
    pub blob: BlobId,
    /// Its only frame.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub sealed: Vec<u8>,
}

/// Makes a version that shares the source's blobs. Both buckets belong to one project; across projects the gateway
/// reads and seals anew.
#[derive(Debug, Clone, Encode, Decode)]
pub struct CopyObject {
    /// Who asks.
    #[n(0)]
    pub actor: Actor,
    /// The source's bucket.
    #[n(1)]
    pub source_bucket: BucketId,
    /// The source's key.
    #[n(2)]
    pub source_key: ObjectKey,
    /// The source's version, as the gateway read and authorised it.
    #[n(3)]
    pub source_version: VersionId,
    /// The destination's bucket.
    #[n(4)]
    pub bucket: BucketId,
    /// The destination's key.
    #[n(5)]
    pub key: ObjectKey,
    /// The new version's attributes, complete (the gateway has merged what the directives say).
    #[n(6)]
    pub attributes: Attributes,
    /// Retention and hold.
    #[n(7)]
    pub lock: LockRequest,
    /// What must hold at the destination.
    #[n(8)]
    pub condition: WriteCondition,
    /// Resolves the outcome if the answer is lost; also the version's id.
    #[n(9)]
    pub commit: CommitId,
}

/// Removes a version, or covers the key with a delete marker.
#[derive(Debug, Clone, Encode, Decode)]
pub struct DeleteObject {
    /// Who asks.
    #[n(0)]
    pub actor: Actor,
    /// The bucket.
    #[n(1)]
    pub bucket: BucketId,
    /// The key.
    #[n(2)]
    pub key: ObjectKey,
    /// `Current` deletes as S3 does without a version id; the others remove that version for good.
    #[n(3)]
    pub version: VersionSelector,
    /// Whether the caller may and wants to bypass governance retention.
    #[n(4)]
    pub bypass_governance: bool,
    /// What must hold of the current version (or of the named one).
    #[n(5)]
    pub condition: WriteCondition,
    /// Resolves the outcome if the answer is lost; also a delete marker's version id.
    #[n(6)]
    pub commit: CommitId,
}

/// What a delete did.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Deleted {
    /// Whether a delete marker was made or removed.
    #[n(0)]
    pub delete_marker: bool,
    /// The version made or removed, as clients are told.
    #[n(1)]
    pub shown: ShownVersion,
    /// Whether there was anything to delete.
    #[n(2)]
    pub existed: bool,
}

/// Changes what may change of an immutable version.
#[derive(Debug, Clone, Encode, Decode)]
pub struct UpdateVersion {
    /// Who asks.
    #[n(0)]
    pub actor: Actor,
    /// The bucket.
    #[n(1)]
    pub bucket: BucketId,
    /// The key.
    #[n(2)]
    pub key: ObjectKey,
    /// Which version.
    #[n(3)]
    pub version: VersionSelector,
    /// What to change.
    #[n(4)]
    pub change: VersionChange,
    /// Resolves the outcome if the answer is lost.
    #[n(5)]
    pub commit: CommitId,
}

/// One change of a version.
#[derive(Debug, Clone, Encode, Decode)]
pub enum VersionChange {
    /// Replaces the tags (empty removes them).
    #[n(0)]
    Tags(#[n(0)] Vec<(String, String)>),
    /// Replaces the access control list.
    #[n(1)]
    Acl(
        #[n(0)]
        #[cbor(with = "minicbor::bytes")]
        Vec<u8>,
    ),
    /// Sets or removes retention. Compliance can only be extended; governance shortened only with the bypass.
    #[n(2)]
    Retention {
        /// The new retention, or none.
        #[n(0)]
        retention: Option<Retention>,
        /// Whether the caller may and wants to bypass governance.
        #[n(1)]
        bypass_governance: bool,
    },
    /// Sets or lifts the legal hold.
    #[n(3)]
    LegalHold(#[n(0)] bool),
}

/// Lists current versions (delete markers are skipped).
#[derive(Debug, Clone, Encode, Decode)]
pub struct ListObjects {
    /// The bucket.
    #[n(0)]
    pub bucket: BucketId,
    /// Only keys that start with this.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub prefix: Vec<u8>,
    /// Keys with this after the prefix are folded into common prefixes; empty folds nothing.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub delimiter: Vec<u8>,
    /// Where to go on: only keys after this one, and no common prefix equal to or before it. Empty starts at the start.
    /// A common prefix given here skips everything under it.
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub after: Vec<u8>,
    /// Entries and common prefixes together: at most this many, at most 1,000.
    #[n(4)]
    pub limit: u32,
}

/// A page of a listing.
#[derive(Debug, Clone, Encode, Decode)]
pub struct ObjectList {
    /// Versions, in key order.
    #[n(0)]
    pub entries: Vec<ListEntry>,
    /// Common prefixes, in order.
    #[n(1)]
    pub common_prefixes: Vec<CommonPrefix>,
    /// If there is more: the last key or common prefix returned, to be given as `after`.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub next_after: Option<Vec<u8>>,
}

/// A common prefix.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct CommonPrefix(
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub Vec<u8>,
);

/// One version in a listing.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ListEntry {
    /// The key.
    #[n(0)]
    pub key: ObjectKey,
    /// The version.
    #[n(1)]
    pub id: VersionId,
    /// Whether clients name it `null`.
    #[n(2)]
    pub is_null: bool,
    /// Whether it is the key's current version.
    #[n(3)]
    pub is_current: bool,
    /// Whether it is a delete marker.
    #[n(4)]
    pub is_delete_marker: bool,
    /// When it was written.
    #[n(5)]
    pub modified: TimestampMicros,
    /// Length in bytes.
    #[n(6)]
    pub len_bytes: u64,
    /// ETag without quotes.
    #[n(7)]
    pub etag: String,
    /// Who wrote it.
    #[n(8)]
    pub owner: Option<UserId>,
    /// Which checksums it has.
    #[n(9)]
    pub checksums: Vec<(ChecksumAlgorithm, ChecksumType)>,
}

/// Lists all versions and delete markers.
#[derive(Debug, Clone, Encode, Decode)]
pub struct ListVersions {
    /// The bucket.
    #[n(0)]
    pub bucket: BucketId,
    /// Only keys that start with this.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub prefix: Vec<u8>,
    /// Keys with this after the prefix are folded.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub delimiter: Vec<u8>,
    /// Where to go on: after this key (or common prefix) ...
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub after: Vec<u8>,
    /// ... or, if given, after this version of that key.
    #[n(4)]
    pub after_version: Option<VersionSelector>,
    /// At most this many entries and prefixes, at most 1,000.
    #[n(5)]
    pub limit: u32,
}

/// A page of versions.
#[derive(Debug, Clone, Encode, Decode)]
pub struct VersionList {
    /// Versions, by key and newest first.
    #[n(0)]
    pub entries: Vec<ListEntry>,
    /// Common prefixes, in order.
    #[n(1)]
    pub common_prefixes: Vec<CommonPrefix>,
    /// If there is more: the last key or common prefix returned ...
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub next_after: Option<Vec<u8>>,
    /// ... and the last version, if it was a version.
    #[n(3)]
    pub next_after_version: Option<VersionSelector>,
}

impl ShownVersion {
    /// What a client is told about `version` in `bucket`.
    pub fn of(bucket: &Bucket, version: &ObjectVersion) -> Self {
        match (bucket.versioning, version.is_null) {
            (crate::Versioning::Unversioned, _) => Self::Hidden,
            (_, true) => Self::Null,
            (_, false) => Self::Id(version.id),
        }
    }
}
