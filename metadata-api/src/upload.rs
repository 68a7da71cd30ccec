//! Multipart uploads.

use crate::{
    Actor, Attributes, Checksum, ChecksumAlgorithm, ChecksumType, CommonPrefix, LockRequest, NewBody, ObjectKey,
    PartRecord, WriteCondition, WriteProof,
};
use minicbor::{Decode, Encode};
use valv_types::{BucketId, CommitId, TimestampMicros, UploadId, UserId};

/// Opens an upload.
#[derive(Debug, Clone, Encode, Decode)]
pub struct CreateUpload {
    /// Who asks.
    #[n(0)]
    pub actor: Actor,
    /// The bucket.
    #[n(1)]
    pub bucket: BucketId,
    /// The key.
    #[n(2)]
    pub key: ObjectKey,
    /// What the finished version will carry (its ETag and checksums are filled in at completion).
    #[n(3)]
    pub attributes: Attributes,
    /// Retention and hold.
    #[n(4)]
    pub lock: LockRequest,
    /// The checksum that parts and object will have, if the client chose one.
    #[n(5)]
    pub checksum: Option<(ChecksumAlgorithm, ChecksumType)>,
    /// Resolves the outcome if the answer is lost; also the upload's id.
    #[n(6)]
    pub commit: CommitId,
}

/// An open upload.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Upload {
    /// The upload.
    #[n(0)]
    pub id: UploadId,
    /// The bucket.
    #[n(1)]
    pub bucket: BucketId,
    /// The key.
    #[n(2)]
    pub key: ObjectKey,
    /// Who opened it.
    #[n(3)]
    pub owner: Option<UserId>,
    /// When.
    #[n(4)]
    pub initiated: TimestampMicros,
    /// What the finished version will carry.
    #[n(5)]
    pub attributes: Attributes,
    /// Retention and hold.
    #[n(6)]
    pub lock: LockRequest,
    /// The checksum chosen.
    #[n(7)]
    pub checksum: Option<(ChecksumAlgorithm, ChecksumType)>,
}

/// Names an upload. An upload that is not of this bucket and key is not found.
#[derive(Debug, Clone, Encode, Decode)]
pub struct GetUpload {
    /// The bucket.
    #[n(0)]
    pub bucket: BucketId,
    /// The key.
    #[n(1)]
    pub key: ObjectKey,
    /// The upload.
    #[n(2)]
    pub upload: UploadId,
}

/// Commits a part; an earlier part of the same number is replaced and its blob dereferenced.
#[derive(Debug, Clone, Encode, Decode)]
pub struct PutPart {
    /// Who asks.
    #[n(0)]
    pub actor: Actor,
    /// The bucket.
    #[n(1)]
    pub bucket: BucketId,
    /// The key.
    #[n(2)]
    pub key: ObjectKey,
    /// The upload.
    #[n(3)]
    pub upload: UploadId,
    /// 1 to 10,000.
    #[n(4)]
    pub number: u16,
    /// The bytes.
    #[n(5)]
    pub body: NewBody,
    /// MD5 of the part.
    #[n(6)]
    #[cbor(with = "minicbor::bytes")]
    pub md5: [u8; 16],
    /// Checksums of the part.
    #[n(7)]
    pub checksums: Vec<Checksum>,
    /// How the blob was written.
    #[n(8)]
    pub proof: WriteProof,
    /// Resolves the outcome if the answer is lost.
    #[n(9)]
    pub commit: CommitId,
}

/// Lists an upload's parts by number.
#[derive(Debug, Clone, Encode, Decode)]
pub struct ListParts {
    /// The bucket.
    #[n(0)]
    pub bucket: BucketId,
    /// The key.
    #[n(1)]
    pub key: ObjectKey,
    /// The upload.
    #[n(2)]
    pub upload: UploadId,
    /// Only numbers after this.
    #[n(3)]
    pub after: u16,
    /// At most this many, at most 10,000 (a gateway checks a completion with one call).
    #[n(4)]
    pub limit: u32,
}

/// Parts of an open upload.
#[derive(Debug, Clone, Encode, Decode)]
pub struct PartList {
    /// The upload.
    #[n(0)]
    pub upload: Upload,
    /// Parts, by number.
    #[n(1)]
    pub parts: Vec<PartRecord>,
    /// Whether there are more.
    #[n(2)]
    pub truncated: bool,
}

/// Turns an upload into a version.
#[derive(Debug, Clone, Encode, Decode)]
pub struct CompleteUpload {
    /// Who asks.
    #[n(0)]
    pub actor: Actor,
    /// The bucket.
    #[n(1)]
    pub bucket: BucketId,
    /// The key.
    #[n(2)]
    pub key: ObjectKey,
    /// The upload.
    #[n(3)]
    pub upload: UploadId,
    /// The parts, as the client listed them, numbers ascending.
    #[n(4)]
    pub parts: Vec<CompletedPart>,
    /// The object's ETag (`hex-N`) as the gateway worked it out from the parts' MD5s.
    #[n(5)]
    pub etag: String,
    /// The object's checksums.
    #[n(6)]
    pub checksums: Vec<Checksum>,
    /// What must hold of the key's current version.
    #[n(7)]
    pub condition: WriteCondition,
    /// Resolves the outcome if the answer is lost.
    #[n(8)]
    pub commit: CommitId,
}

/// A part that a completion names.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CompletedPart {
    /// Its number.
    #[n(0)]
    pub number: u16,
    /// Its MD5: the part must still be the one that the client means.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub md5: [u8; 16],
}

/// Throws an upload away.
#[derive(Debug, Clone, Encode, Decode)]
pub struct AbortUpload {
    /// Who asks.
    #[n(0)]
    pub actor: Actor,
    /// The bucket.
    #[n(1)]
    pub bucket: BucketId,
    /// The key.
    #[n(2)]
    pub key: ObjectKey,
    /// The upload.
    #[n(3)]
    pub upload: UploadId,
    /// Resolves the outcome if the answer is lost.
    #[n(4)]
    pub commit: CommitId,
}

/// Lists open uploads by key, then by time of initiation.
#[derive(Debug, Clone, Encode, Decode)]
pub struct ListUploads {
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
    /// After this key (or common prefix) ...
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub after: Vec<u8>,
    /// ... or, if given, after this upload of that key.
    #[n(4)]
    pub after_upload: Option<UploadId>,
    /// At most this many, at most 1,000.
    #[n(5)]
    pub limit: u32,
}

/// A page of open uploads.
#[derive(Debug, Clone, Encode, Decode)]
pub struct UploadList {
    /// Uploads.
    #[n(0)]
    pub uploads: Vec<Upload>,
    /// Common prefixes.
    #[n(1)]
    pub common_prefixes: Vec<CommonPrefix>,
    /// If there is more: the last key or common prefix returned ...
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub next_after: Option<Vec<u8>>,
    /// ... and the last upload, if it was an upload.
    #[n(3)]
    pub next_after_upload: Option<UploadId>,
}
