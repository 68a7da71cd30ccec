//! What of a row lies under a project's key, and how it moves to a newer version of that key.
//!
//! Everything that is sealed or wrapped is made anew with the same contents, so nothing that anybody reads changes. A row of
//! a kind that this file does not know keeps the old versions of every key alive: forgetting a kind here can never cost data.

use crate::records::{
    self, BucketRecord, HeadRecord, NoncurrentRecord, PageRecord, PartRow, TrashRecord, UploadRecord, VersionRecord,
};
use crate::rows::{Tag, bucket_of_row};
use crate::seal::Place;
use crate::service::{Core, corrupt};
use bytes::Bytes;
use minicbor::{Decoder, Encoder};
use std::collections::HashSet;
use std::ops::Range;
use valv_codec::{ProjectKey, wrapped_data_key_version};
use valv_metadata_api::{BlobRecord, Body, BucketDocumentKind, MetadataError};
use valv_types::{BucketId, CommitId, DisposalId, HoldId, OpeningId, ProjectId, ProposalId, UploadId, VersionId};

/// The kinds of rows that are told apart.
const KNOWN: [Tag; 60] = [
    Tag::Cluster,
    Tag::Pool,
    Tag::Clock,
    Tag::Lease,
    Tag::Project,
    Tag::ProjectName,
    Tag::Namespace,
    Tag::NamespaceName,
    Tag::User,
    Tag::UserIndex,
    Tag::AccessKey,
    Tag::Member,
    Tag::Membership,
    Tag::Token,
    Tag::BucketName,
    Tag::ProjectBucket,
    Tag::VersionIndex,
    Tag::BlobRef,
    Tag::Inline,
    Tag::Doomed,
    Tag::DoomedIndex,
    Tag::Repair,
    Tag::RepairIndex,
    Tag::UploadIndex,
    Tag::LedgerPending,
    Tag::LedgerLeaf,
    Tag::LedgerTree,
    Tag::LedgerNode,
    Tag::Usage,
    Tag::UsageCounted,
    Tag::ProposalDue,
    Tag::KeyRotation,
    Tag::Shredding,
    Tag::IncarnationCounter,
    Tag::Incarnation,
    Tag::Fence,
    Tag::Bucket,
    Tag::Document,
    Tag::Head,
    Tag::Noncurrent,
    Tag::Trash,
    Tag::PartPage,
    Tag::Part,
    Tag::Upload,
    Tag::Ledger,
    Tag::Proposal,
    Tag::ProjectGuard,
    Tag::Hold,
    Tag::Custodian,
    Tag::DiskCustody,
    Tag::CustodyState,
    Tag::Transfer,
    Tag::Disposal,
    Tag::QuotaSlot,
    Tag::QuotaCounting,
    Tag::Opening,
    Tag::OpeningPlace,
    Tag::OpeningRecipient,
    Tag::OpeningBudget,
    Tag::Zone,
];

/// What becomes of a row.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// Nothing of it is under an old version of the project's key.
    Stays,
    /// It is written anew.
    To(Bytes),
    /// Nobody knows what it holds: the old versions have to stay.
    Unknown,
}

/// What rows are looked at for.
pub(super) struct Mover<'a> {
    pub(super) core: &'a Core,
    pub(super) project: ProjectId,
    /// The project's buckets.
    pub(super) buckets: &'a HashSet<BucketId>,
    /// The version that everything moves to.
    pub(super) newest: &'a ProjectKey,
}

/// Where a record's only sealed part stands: the numbers of the key version's field and of the sealed bytes' field.
#[derive(Debug, Clone, Copy)]
struct SealedFields {
    key_version: usize,
    sealed: usize,
}

impl Mover<'_> {
    /// What becomes of the row `key`.
    pub(super) fn row(&self, key: &[u8], value: &[u8]) -> Result<Move, MetadataError> {
        let Some((&tag, ids)) = key.get(2..).and_then(<[u8]>::split_first) else { return Err(corrupt("row")) };
        let Some(tag) = KNOWN.iter().copied().find(|known| *known as u8 == tag) else { return Ok(Move::Unknown) };
        match tag {
            // Nothing sealed, or sealed under the system key.
            Tag::Cluster
            | Tag::Pool
            | Tag::Clock
            | Tag::Lease
            | Tag::ProjectName
            | Tag::Namespace
            | Tag::NamespaceName
            | Tag::User
            | Tag::UserIndex
            | Tag::AccessKey
            | Tag::Member
            | Tag::Membership
            | Tag::QuotaSlot
            | Tag::QuotaCounting
            | Tag::Token
            | Tag::BucketName
            | Tag::ProjectBucket
            | Tag::VersionIndex
            | Tag::BlobRef
            | Tag::Inline
            | Tag::Doomed
            | Tag::DoomedIndex
            | Tag::Repair
            | Tag::RepairIndex
            | Tag::UploadIndex
            | Tag::LedgerPending
            | Tag::LedgerLeaf
            | Tag::LedgerTree
            | Tag::LedgerNode
            | Tag::Usage
            | Tag::UsageCounted
            | Tag::ProposalDue
            | Tag::KeyRotation
            | Tag::OpeningPlace
            | Tag::OpeningRecipient
            | Tag::OpeningBudget
            | Tag::Zone
            | Tag::DiskCustody
            | Tag::CustodyState
            | Tag::IncarnationCounter
            | Tag::Incarnation
            | Tag::Fence => Ok(Move::Stays),
            // Sealed under the cluster's own key, if at all.
            Tag::Shredding | Tag::Custodian if self.project == ProjectId::CLUSTER => Ok(Move::Unknown),
            Tag::Shredding | Tag::Custodian => Ok(Move::Stays),
            Tag::Project => match split_project(ids) {
                Some((project, _)) if project == self.project => {
                    self.sealed(Place::Project(project), value, SealedFields { key_version: 5, sealed: 6 })
                }
                _ => Ok(Move::Stays),
            },
            Tag::Bucket => self.bucket(ids, value),
            Tag::Document => self.document(ids, value),
            Tag::Head => self.head(key, value),
            Tag::Noncurrent => self.noncurrent(key, value),
            Tag::Trash => self.trash(value),
            Tag::PartPage => self.page(ids, value),
            Tag::Part => self.part(ids, value),
            Tag::Upload => self.upload(ids, value),
            Tag::Ledger => match split_project(ids) {
                Some((project, [_, event @ ..])) if project == self.project => {
                    let place = Place::Ledger(project, CommitId::from_bytes(id(event, "ledger record")?));
                    self.sealed(place, value, SealedFields { key_version: 7, sealed: 8 })
                }
                _ => Ok(Move::Stays),
            },
            Tag::Proposal => match split_project(ids) {
                Some((project, rest)) if project == self.project => {
                    let place = Place::Proposal(project, ProposalId::from_bytes(id(rest, "proposal")?));
                    self.sealed(place, value, SealedFields { key_version: 3, sealed: 4 })
                }
                _ => Ok(Move::Stays),
            },
            Tag::ProjectGuard => match split_project(ids) {
                Some((project, _)) if project == self.project => {
                    self.sealed(Place::Retention(project), value, SealedFields { key_version: 3, sealed: 4 })
                }
                _ => Ok(Move::Stays),
            },
            Tag::Opening => match split_project(ids) {
                Some((project, rest)) if project == self.project => {
                    let place = Place::Opening(project, OpeningId::from_bytes(id(rest, "opening")?));
                    self.sealed(place, value, SealedFields { key_version: 10, sealed: 11 })
                }
                _ => Ok(Move::Stays),
            },
            Tag::Hold => match split_project(ids) {
                Some((project, rest)) if project == self.project => {
                    let place = Place::Hold(project, HoldId::from_bytes(id(rest, "hold")?));
                    self.sealed(place, value, SealedFields { key_version: 4, sealed: 5 })
                }
                _ => Ok(Move::Stays),
            },
            Tag::Disposal => match ids.split_first() {
                // Pages of lists hold nothing sealed.
                Some((1, _)) => Ok(Move::Stays),
                Some((0, ids)) => match split_project(ids) {
                    Some((project, rest)) if project == self.project => {
                        let place = Place::Disposal(project, DisposalId::from_bytes(id(rest, "disposal")?));
                        self.sealed(place, value, SealedFields { key_version: 14, sealed: 15 })
                    }
                    _ => Ok(Move::Stays),
                },
                _ => Ok(Move::Unknown),
            },
            Tag::Transfer => match split_project(ids) {
                Some((project, _)) if project == self.project => {
                    let record = Fields::read(value).ok_or_else(|| corrupt("transfer"))?;
                    let place = Place::Transfer(project, record.get(0)?);
                    self.sealed(place, value, SealedFields { key_version: 8, sealed: 9 })
                }
                _ => Ok(Move::Stays),
            },
            // Kinds that come later stand here until they are told apart above.
            #[allow(unreachable_patterns, reason = "only until a kind comes that is not told apart")]
            _ => Ok(Move::Unknown),
        }
    }

    fn is_old(&self, key_version: u32) -> bool {
        // 0 stands for "nothing is sealed".
        key_version != 0 && key_version < self.newest.version()
    }

    /// Seals anew what an old version sealed. Returns whether it did.
    fn reseal(&self, place: Place, key_version: &mut u32, sealed: &mut Vec<u8>) -> Result<bool, MetadataError> {
        if !self.is_old(*key_version) || sealed.is_empty() {
            return Ok(false);
        }
        let plain = zeroize::Zeroizing::new(self.core.seals.open_bytes(place, *key_version, sealed)?);
        let made = self.core.seals.seal_bytes(place, &plain)?;
        (*key_version, *sealed) = (made.key_version, made.bytes);
        Ok(true)
    }

    /// Wraps a blob's key anew. Returns whether it did.
    fn rewrap(&self, blob: &mut BlobRecord) -> Result<bool, MetadataError> {
        self.core.rewrap(self.project, blob, self.newest)
    }

    /// A record with one sealed part, whatever else is in it.
    fn sealed(&self, place: Place, value: &[u8], fields: SealedFields) -> Result<Move, MetadataError> {
        let record = Fields::read(value).ok_or_else(|| corrupt("record"))?;
        if record.fields.len() <= fields.sealed {
            // Written before there was anything to seal.
            return Ok(Move::Stays);
        }
        let mut key_version: u32 = record.get(fields.key_version)?;
        if !self.is_old(key_version) {
            return Ok(Move::Stays);
        }
        let mut sealed: minicbor::bytes::ByteVec = record.get(fields.sealed)?;
        let changed = self.reseal(place, &mut key_version, &mut sealed)?;
        if !changed {
            return Ok(Move::Stays);
        }
        record.with(fields.key_version, &key_version, fields.sealed, &sealed).map(Move::To)
    }

    fn version(&self, bucket: BucketId, version: &mut VersionRecord) -> Result<bool, MetadataError> {
        let place = Place::Version(self.project, bucket, version.id);
        let mut changed = self.reseal(place, &mut version.key_version, &mut version.sealed)?;
        if let Body::Blob(blob) = &mut version.body {
            changed |= self.rewrap(blob)?;
        }
        Ok(changed)
    }

    fn head(&self, key: &[u8], value: &[u8]) -> Result<Move, MetadataError> {
        let Some(bucket) = bucket_of_row(key).filter(|bucket| self.buckets.contains(bucket)) else {
            return Ok(Move::Stays);
        };
        let mut record: HeadRecord = records::decode("head", value)?;
        let changed = self.version(bucket, &mut record.version)?;
        Ok(if changed { Move::To(records::encode(&record)) } else { Move::Stays })
    }

    fn noncurrent(&self, key: &[u8], value: &[u8]) -> Result<Move, MetadataError> {
        let Some(bucket) = bucket_of_row(key).filter(|bucket| self.buckets.contains(bucket)) else {
            return Ok(Move::Stays);
        };
        let mut record: NoncurrentRecord = records::decode("noncurrent version", value)?;
        let changed = self.version(bucket, &mut record.version)?;
        Ok(if changed { Move::To(records::encode(&record)) } else { Move::Stays })
    }

    fn trash(&self, value: &[u8]) -> Result<Move, MetadataError> {
        let mut record: TrashRecord = records::decode("trash", value)?;
        let TrashRecord::Version(trashed) = &mut record else { return Ok(Move::Stays) };
        if trashed.project != self.project {
            return Ok(Move::Stays);
        }
        let changed = self.version(trashed.bucket, &mut trashed.version)?;
        Ok(if changed { Move::To(records::encode(&record)) } else { Move::Stays })
    }

    /// A page's row does not say whose it is: it is the project's if the project's key opens it.
    fn page(&self, ids: &[u8], value: &[u8]) -> Result<Move, MetadataError> {
        let mut record: PageRecord = records::decode("page", value)?;
        let blobs = record.parts.iter().map(|part| &part.blob);
        if !self.is_old(record.key_version) && !self.has_old_wrap(blobs)? {
            return Ok(Move::Stays);
        }
        let Some((version, page)) = ids.split_first_chunk::<16>() else { return Err(corrupt("page")) };
        let page = u32::from_be_bytes(page.try_into().map_err(|_| corrupt("page"))?);
        let place = Place::Page(self.project, VersionId::from_bytes(*version), page);
        if self.core.seals.open_bytes(place, record.key_version, &record.sealed).is_err() {
            return Ok(Move::Stays);
        }
        let mut changed = self.reseal(place, &mut record.key_version, &mut record.sealed)?;
        for part in &mut record.parts {
            changed |= self.rewrap(&mut part.blob)?;
        }
        Ok(if changed { Move::To(records::encode(&record)) } else { Move::Stays })
    }

    /// As with pages.
    fn part(&self, ids: &[u8], value: &[u8]) -> Result<Move, MetadataError> {
        let mut record: PartRow = records::decode("part", value)?;
        if !self.is_old(record.key_version) && !self.has_old_wrap([&record.part.blob].into_iter())? {
            return Ok(Move::Stays);
        }
        let Some((upload, number)) = ids.split_first_chunk::<16>() else { return Err(corrupt("part")) };
        let number = u16::from_be_bytes(number.try_into().map_err(|_| corrupt("part"))?);
        let place = Place::Part(self.project, UploadId::from_bytes(*upload), number);
        if self.core.seals.open_bytes(place, record.key_version, &record.sealed).is_err() {
            return Ok(Move::Stays);
        }
        let mut changed = self.reseal(place, &mut record.key_version, &mut record.sealed)?;
        changed |= self.rewrap(&mut record.part.blob)?;
        Ok(if changed { Move::To(records::encode(&record)) } else { Move::Stays })
    }

    fn has_old_wrap<'b>(&self, mut blobs: impl Iterator<Item = &'b BlobRecord>) -> Result<bool, MetadataError> {
        blobs.try_fold(false, |found, blob| Ok(found || self.is_old(wrap_version(blob)?)))
    }

    fn upload(&self, ids: &[u8], value: &[u8]) -> Result<Move, MetadataError> {
        let record: UploadRecord = records::decode("upload", value)?;
        if !self.buckets.contains(&record.bucket) {
            return Ok(Move::Stays);
        }
        let place = Place::Upload(self.project, record.bucket, UploadId::from_bytes(id(ids, "upload")?));
        self.sealed(place, value, SealedFields { key_version: 6, sealed: 7 })
    }

    fn bucket(&self, ids: &[u8], value: &[u8]) -> Result<Move, MetadataError> {
        let record: BucketRecord = records::decode("bucket", value)?;
        if record.project != self.project {
            return Ok(Move::Stays);
        }
        let place = Place::Bucket(self.project, BucketId::from_bytes(id(ids, "bucket")?));
        self.sealed(place, value, SealedFields { key_version: 8, sealed: 9 })
    }

    fn document(&self, ids: &[u8], value: &[u8]) -> Result<Move, MetadataError> {
        let Some((bucket, &[kind])) = ids.split_first_chunk::<16>() else { return Err(corrupt("document")) };
        let bucket = BucketId::from_bytes(*bucket);
        if !self.buckets.contains(&bucket) {
            return Ok(Move::Stays);
        }
        let kind = BucketDocumentKind::ALL.iter().copied().find(|known| *known as u8 == kind);
        let Some(kind) = kind else { return Ok(Move::Unknown) };
        self.sealed(Place::Document(self.project, bucket, kind), value, SealedFields { key_version: 0, sealed: 1 })
    }
}

fn split_project(ids: &[u8]) -> Option<(ProjectId, &[u8])> {
    let (project, rest) = ids.split_first_chunk::<16>()?;
    Some((ProjectId::from_bytes(*project), rest))
}

fn id(bytes: &[u8], what: &'static str) -> Result<[u8; 16], MetadataError> {
    bytes.try_into().map_err(|_| corrupt(what))
}

/// Which version of the project's key wraps the blob's; 0 for a body without bytes, which has no key.
fn wrap_version(blob: &BlobRecord) -> Result<u32, MetadataError> {
    if blob.wrapped_key.is_empty() {
        return Ok(0);
    }
    wrapped_data_key_version(&blob.wrapped_key).map_err(|_| corrupt("wrapped key"))
}

impl Core {
    /// Wraps the key of a blob that comes in under the project's newest key, if the gateway still had an older one.
    pub(crate) fn freshen(&self, project: ProjectId, blob: &BlobRecord) -> Result<BlobRecord, MetadataError> {
        let mut blob = blob.clone();
        let Some(newest) = self.seals.keys().newest_version(project) else { return Ok(blob) };
        if blob.wrapped_key.is_empty() || wrapped_data_key_version(&blob.wrapped_key).is_ok_and(|old| old >= newest) {
            return Ok(blob);
        }
        // What is not a wrap at all is refused when it is read; a wrap that its key does not open is refused now.
        if wrapped_data_key_version(&blob.wrapped_key).is_ok() {
            let newest = self.seals.keys().project_key(project, Some(newest)).map_err(crate::seal::no_key)?;
            self.rewrap(project, &mut blob, &newest)?;
        }
        Ok(blob)
    }

    fn rewrap(&self, project: ProjectId, blob: &mut BlobRecord, newest: &ProjectKey) -> Result<bool, MetadataError> {
        let version = wrap_version(blob)?;
        if version == 0 || version >= newest.version() {
            return Ok(false);
        }
        let old = self.seals.keys().project_key(project, Some(version)).map_err(crate::seal::no_key)?;
        let again = newest.rewrap_data_key(&old, project, blob.blob, &blob.wrapped_key);
        blob.wrapped_key = again.map_err(|_| corrupt("wrapped key"))?;
        Ok(true)
    }
}

/// A record as an array of fields that are not all understood.
struct Fields<'b> {
    value: &'b [u8],
    fields: Vec<Range<usize>>,
}

/// Most fields of a record: none has half as many.
const FIELDS_MAX: u64 = 64;

impl<'b> Fields<'b> {
    fn read(value: &'b [u8]) -> Option<Self> {
        let body = records::body(value)?;
        let start = value.len() - body.len();
        let mut decoder = Decoder::new(body);
        let count = decoder.array().ok()?.filter(|count| *count <= FIELDS_MAX)?;
        let mut fields = Vec::new();
        for _ in 0..count {
            let from = decoder.position();
            decoder.skip().ok()?;
            fields.push(start + from..start + decoder.position());
        }
        Some(Self { value, fields })
    }

    fn get<T: minicbor::Decode<'b, ()>>(&self, field: usize) -> Result<T, MetadataError> {
        let bytes = self.fields.get(field).map(|range| &self.value[range.clone()]);
        bytes.and_then(|bytes| minicbor::decode(bytes).ok()).ok_or_else(|| corrupt("record"))
    }

    /// The record with two fields replaced, all others byte for byte as they are.
    fn with(
        &self,
        version_field: usize,
        key_version: &u32,
        sealed_field: usize,
        sealed: &[u8],
    ) -> Result<Bytes, MetadataError> {
        let start = self.value.len() - records::body(self.value).ok_or_else(|| corrupt("record"))?.len();
        let mut encoder = Encoder::new(self.value[..start].to_vec());
        let failed = |_| corrupt("record");
        encoder.array(self.fields.len() as u64).map_err(failed)?;
        for (number, range) in self.fields.iter().enumerate() {
            if number == version_field {
                encoder.u32(*key_version).map_err(failed)?;
            } else if number == sealed_field {
                encoder.bytes(sealed).map_err(failed)?;
            } else {
                encoder.writer_mut().extend_from_slice(&self.value[range.clone()]);
            }
        }
        Ok(Bytes::from(encoder.into_writer()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_record_keeps_every_field_but_the_two() {
        let record = crate::records::DocumentRecord { key_version: 1, sealed: vec![1, 2, 3] };
        let value = records::encode(&record);
        let fields = Fields::read(&value).unwrap();
        let again = fields.with(0, &70_000, 1, &[9; 300]).unwrap();
        let again: crate::records::DocumentRecord = records::decode("document", &again).unwrap();
        assert_eq!((again.key_version, again.sealed), (70_000, vec![9; 300]));
        assert_eq!(fields.with(0, &1, 1, &[1, 2, 3]).unwrap(), value);
        assert!(
            Fields::read(&[]).is_none() && Fields::read(&[1, 0x9f]).is_none() && Fields::read(&[1, 0x82, 1]).is_none()
        );
    }
}
