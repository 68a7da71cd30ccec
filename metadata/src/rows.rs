//! Row keys: where everything stands in the MetaStore. The page `docs/format-metadata.md` lists them.
//!
//! Every key starts with the cell (2 bytes, big-endian) and a tag (1 byte). Keys hold ids, object keys and keyed hashes
//! of names, never a name of a user, project, namespace or bucket. Integers are big-endian, so byte order is their order.
//!
//! An object key stands escaped: 0x00 becomes 0x00 0xFF, and 0x00 0x01 ends it. So the order of rows is the order of
//! keys, no key's rows lie among another's, and all keys with a prefix are one range.

use crate::store::Key;
use bytes::Bytes;
use valv_metadata_api::{BucketDocumentKind, ObjectKey};
use valv_types::{
    AccessKeyId, BlobId, BucketId, CellId, CommitId, CustodianId, DiskId, DisposalId, HoldId, IncarnationId,
    NamespaceId, OpeningId, PoolId, ProjectId, ProposalId, TimestampMicros, TokenId, UploadId, UserId, VersionId,
};

/// A keyed hash of a name, which stands in keys instead of it.
pub(crate) type NameHash = [u8; 16];

/// Bytes before an escaped object key in rows of a bucket: cell, tag, bucket.
const BUCKET_PREFIX_LEN: usize = 2 + 1 + 16;

/// What kind of row a key names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Tag {
    Cluster = 0x01,
    Pool = 0x02,
    Clock = 0x03,
    Lease = 0x04,
    Project = 0x10,
    ProjectName = 0x11,
    Namespace = 0x12,
    NamespaceName = 0x13,
    User = 0x14,
    UserIndex = 0x15,
    AccessKey = 0x16,
    Member = 0x17,
    Membership = 0x18,
    QuotaSlot = 0x19,
    QuotaCounting = 0x1A,
    Token = 0x1B,
    BucketName = 0x20,
    Bucket = 0x21,
    ProjectBucket = 0x22,
    Document = 0x23,
    Opening = 0x24,
    OpeningPlace = 0x25,
    OpeningRecipient = 0x26,
    OpeningBudget = 0x27,
    Head = 0x30,
    Noncurrent = 0x31,
    VersionIndex = 0x32,
    BlobRef = 0x40,
    Inline = 0x41,
    PartPage = 0x42,
    Doomed = 0x43,
    DoomedIndex = 0x44,
    Repair = 0x45,
    RepairIndex = 0x46,
    UploadIndex = 0x50,
    Upload = 0x51,
    Part = 0x52,
    Trash = 0x60,
    Ledger = 0x70,
    LedgerPending = 0x71,
    LedgerLeaf = 0x72,
    LedgerTree = 0x73,
    LedgerNode = 0x77,
    Usage = 0x78,
    UsageCounted = 0x79,
    Proposal = 0x90,
    ProposalDue = 0x91,
    ProjectGuard = 0x93,
    Hold = 0x94,
    Disposal = 0x95,
    Custodian = 0x98,
    DiskCustody = 0x99,
    CustodyState = 0x9A,
    Transfer = 0x9B,
    KeyRotation = 0x96,
    Shredding = 0x97,
    Zone = 0xA0,
    IncarnationCounter = 0x80,
    Incarnation = 0x81,
    Fence = 0x82,
}

/// By which property a user is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum UserIndexKind {
    Name = 1,
    Canonical = 2,
    Email = 3,
}

/// Where a noncurrent version stands among its key's: newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoncurrentPlace {
    pub(crate) order: TimestampMicros,
    pub(crate) id: VersionId,
}

/// A half-open range of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyRange {
    pub(crate) start: Vec<u8>,
    pub(crate) end: Vec<u8>,
}

/// The keys of one cell.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows {
    cell: CellId,
}

impl Rows {
    pub(crate) fn new(cell: CellId) -> Self {
        Self { cell }
    }

    fn key(&self, tag: Tag, parts: &[&[u8]]) -> Key {
        let mut out = Vec::with_capacity(3 + parts.iter().map(|part| part.len()).sum::<usize>());
        out.extend_from_slice(&self.cell.0.to_be_bytes());
        out.push(tag as u8);
        for part in parts {
            out.extend_from_slice(part);
        }
        Bytes::from(out)
    }

    /// All rows whose key starts with the tag and `parts`.
    pub(crate) fn range(&self, tag: Tag, parts: &[&[u8]]) -> KeyRange {
        let start = self.key(tag, parts).to_vec();
        let end = successor(&start);
        KeyRange { start, end }
    }

    pub(crate) fn cluster(&self) -> Key {
        self.key(Tag::Cluster, &[])
    }

    pub(crate) fn pool(&self, pool: PoolId) -> Key {
        self.key(Tag::Pool, &[&pool.0.to_be_bytes()])
    }

    pub(crate) fn clock(&self) -> Key {
        self.key(Tag::Clock, &[])
    }

    pub(crate) fn lease(&self, work: u8) -> Key {
        self.key(Tag::Lease, &[&[work]])
    }

    pub(crate) fn project(&self, project: ProjectId) -> Key {
        self.key(Tag::Project, &[project.as_bytes()])
    }

    pub(crate) fn project_name(&self, name: &NameHash) -> Key {
        self.key(Tag::ProjectName, &[name])
    }

    pub(crate) fn namespace(&self, namespace: NamespaceId) -> Key {
        self.key(Tag::Namespace, &[namespace.as_bytes()])
    }

    pub(crate) fn namespace_name(&self, name: &NameHash) -> Key {
        self.key(Tag::NamespaceName, &[name])
    }

    pub(crate) fn user(&self, user: UserId) -> Key {
        self.key(Tag::User, &[user.as_bytes()])
    }

    pub(crate) fn user_index(&self, kind: UserIndexKind, value: &NameHash) -> Key {
        self.key(Tag::UserIndex, &[&[kind as u8], value])
    }

    pub(crate) fn access_key(&self, id: &AccessKeyId) -> Key {
        self.key(Tag::AccessKey, &[id.as_str().as_bytes()])
    }

    pub(crate) fn token(&self, id: TokenId) -> Key {
        self.key(Tag::Token, &[id.as_bytes()])
    }

    /// A member of a project.
    pub(crate) fn member(&self, project: ProjectId, user: UserId) -> Key {
        self.key(Tag::Member, &[project.as_bytes(), user.as_bytes()])
    }

    /// The same the other way round: in which projects a user is a member.
    pub(crate) fn membership(&self, user: UserId, project: ProjectId) -> Key {
        self.key(Tag::Membership, &[user.as_bytes(), project.as_bytes()])
    }

    /// A slot of a project's quota.
    pub(crate) fn quota_slot(&self, project: ProjectId, slot: u8) -> Key {
        self.key(Tag::QuotaSlot, &[project.as_bytes(), &[slot]])
    }

    /// Says that what a project held before it had a quota is still to be booked.
    pub(crate) fn quota_counting(&self, project: ProjectId) -> Key {
        self.key(Tag::QuotaCounting, &[project.as_bytes()])
    }

    pub(crate) fn bucket_name(&self, namespace: NamespaceId, name: &NameHash) -> Key {
        self.key(Tag::BucketName, &[namespace.as_bytes(), name])
    }

    pub(crate) fn bucket(&self, bucket: BucketId) -> Key {
        self.key(Tag::Bucket, &[bucket.as_bytes()])
    }

    pub(crate) fn project_bucket(&self, project: ProjectId, bucket: BucketId) -> Key {
        self.key(Tag::ProjectBucket, &[project.as_bytes(), bucket.as_bytes()])
    }

    pub(crate) fn document(&self, bucket: BucketId, kind: BucketDocumentKind) -> Key {
        self.key(Tag::Document, &[bucket.as_bytes(), &[kind as u8]])
    }

    pub(crate) fn opening(&self, project: ProjectId, opening: OpeningId) -> Key {
        self.key(Tag::Opening, &[project.as_bytes(), opening.as_bytes()])
    }

    /// Says that an opening is of a bucket, or of a whole project, by whose id `place` is.
    pub(crate) fn opening_place(&self, place: &[u8; 16], opening: OpeningId) -> Key {
        self.key(Tag::OpeningPlace, &[place, opening.as_bytes()])
    }

    /// Says that an opening is for a user or project, by whose id `recipient` is.
    pub(crate) fn opening_recipient(&self, recipient: &[u8; 16], opening: OpeningId) -> Key {
        self.key(Tag::OpeningRecipient, &[recipient, opening.as_bytes()])
    }

    pub(crate) fn opening_budget(&self, opening: OpeningId) -> Key {
        self.key(Tag::OpeningBudget, &[opening.as_bytes()])
    }

    pub(crate) fn zone(&self, name: &NameHash) -> Key {
        self.key(Tag::Zone, &[name])
    }

    pub(crate) fn head(&self, bucket: BucketId, key: &ObjectKey) -> Key {
        self.key(Tag::Head, &[bucket.as_bytes(), &escape_whole(key.as_bytes())])
    }

    pub(crate) fn noncurrent(&self, bucket: BucketId, key: &ObjectKey, place: NoncurrentPlace) -> Key {
        let newest_first = (!place.order.0).to_be_bytes();
        self.key(
            Tag::Noncurrent,
            &[bucket.as_bytes(), &escape_whole(key.as_bytes()), &newest_first, place.id.as_bytes()],
        )
    }

    pub(crate) fn version_index(&self, bucket: BucketId, version: VersionId) -> Key {
        self.key(Tag::VersionIndex, &[bucket.as_bytes(), version.as_bytes()])
    }

    pub(crate) fn blob_ref(&self, blob: BlobId, owner: VersionId) -> Key {
        self.key(Tag::BlobRef, &[blob.as_bytes(), owner.as_bytes()])
    }

    pub(crate) fn inline(&self, blob: BlobId) -> Key {
        self.key(Tag::Inline, &[blob.as_bytes()])
    }

    pub(crate) fn part_page(&self, pages_of: VersionId, page: u32) -> Key {
        self.key(Tag::PartPage, &[pages_of.as_bytes(), &page.to_be_bytes()])
    }

    pub(crate) fn doomed(&self, since: TimestampMicros, blob: BlobId) -> Key {
        self.key(Tag::Doomed, &[&since.0.to_be_bytes(), blob.as_bytes()])
    }

    pub(crate) fn doomed_index(&self, blob: BlobId) -> Key {
        self.key(Tag::DoomedIndex, &[blob.as_bytes()])
    }

    pub(crate) fn repair(&self, since: TimestampMicros, blob: BlobId) -> Key {
        self.key(Tag::Repair, &[&since.0.to_be_bytes(), blob.as_bytes()])
    }

    pub(crate) fn repair_index(&self, blob: BlobId) -> Key {
        self.key(Tag::RepairIndex, &[blob.as_bytes()])
    }

    pub(crate) fn upload_index(
        &self,
        bucket: BucketId,
        key: &ObjectKey,
        initiated: TimestampMicros,
        id: UploadId,
    ) -> Key {
        self.key(
            Tag::UploadIndex,
            &[bucket.as_bytes(), &escape_whole(key.as_bytes()), &initiated.0.to_be_bytes(), id.as_bytes()],
        )
    }

    pub(crate) fn upload(&self, id: UploadId) -> Key {
        self.key(Tag::Upload, &[id.as_bytes()])
    }

    pub(crate) fn part(&self, upload: UploadId, number: u16) -> Key {
        self.key(Tag::Part, &[upload.as_bytes(), &number.to_be_bytes()])
    }

    pub(crate) fn trash(&self, due: TimestampMicros, id: VersionId) -> Key {
        self.key(Tag::Trash, &[&due.0.to_be_bytes(), id.as_bytes()])
    }

    /// Trash that is due at `now` or was before.
    pub(crate) fn trash_due(&self, now: TimestampMicros) -> KeyRange {
        let start = self.key(Tag::Trash, &[]).to_vec();
        let end = self.key(Tag::Trash, &[&now.0.saturating_add(1).to_be_bytes()]).to_vec();
        KeyRange { start, end }
    }

    /// A project's ledger records are spread over 16 prefixes, so that no range of keys is hot.
    pub(crate) fn ledger(&self, project: ProjectId, event: CommitId) -> Key {
        let prefix = event.as_bytes()[0] >> 4;
        self.key(Tag::Ledger, &[project.as_bytes(), &[prefix], event.as_bytes()])
    }

    /// Says that a ledger record is not in its tree yet. Spread as the records are.
    pub(crate) fn ledger_pending(&self, project: ProjectId, event: CommitId) -> Key {
        let prefix = event.as_bytes()[0] >> 4;
        self.key(Tag::LedgerPending, &[project.as_bytes(), &[prefix], event.as_bytes()])
    }

    /// A page of the leaves of a project's tree.
    pub(crate) fn ledger_leaves_page(&self, project: ProjectId, page: u64) -> Key {
        self.key(Tag::LedgerLeaf, &[project.as_bytes(), &page.to_be_bytes()])
    }

    /// All leaves of a project's tree, in order.
    pub(crate) fn ledger_leaves(&self, project: ProjectId) -> KeyRange {
        self.range(Tag::LedgerLeaf, &[project.as_bytes()])
    }

    pub(crate) fn ledger_tree(&self, project: ProjectId) -> Key {
        self.key(Tag::LedgerTree, &[project.as_bytes()])
    }

    /// A complete subtree of a project's tree.
    pub(crate) fn ledger_node(&self, project: ProjectId, level: u8, number: u64) -> Key {
        self.key(Tag::LedgerNode, &[project.as_bytes(), &[level], &number.to_be_bytes()])
    }

    /// What a project's ledger says of one month.
    pub(crate) fn usage(&self, project: ProjectId, month: u32) -> Key {
        self.key(Tag::Usage, &[project.as_bytes(), &month.to_be_bytes()])
    }

    /// All months of a project, in order.
    pub(crate) fn usage_months(&self, project: ProjectId) -> KeyRange {
        self.range(Tag::Usage, &[project.as_bytes()])
    }

    /// How many leaves of a project's tree its months hold.
    pub(crate) fn usage_counted(&self, project: ProjectId) -> Key {
        self.key(Tag::UsageCounted, &[project.as_bytes()])
    }

    /// A proposal; those about the cluster stand under a project of zeros.
    pub(crate) fn proposal(&self, project: ProjectId, proposal: ProposalId) -> Key {
        self.key(Tag::Proposal, &[project.as_bytes(), proposal.as_bytes()])
    }

    /// Says that an approved proposal is to be carried out from `due` on.
    pub(crate) fn proposal_due(&self, due: TimestampMicros, project: ProjectId, proposal: ProposalId) -> Key {
        self.key(Tag::ProposalDue, &[&due.0.to_be_bytes(), project.as_bytes(), proposal.as_bytes()])
    }

    /// Proposals that are due at `now` or were before.
    pub(crate) fn proposals_due(&self, now: TimestampMicros) -> KeyRange {
        let start = self.key(Tag::ProposalDue, &[]).to_vec();
        let end = self.key(Tag::ProposalDue, &[&now.0.saturating_add(1).to_be_bytes()]).to_vec();
        KeyRange { start, end }
    }

    /// A project's retention class and the holds on all of it.
    pub(crate) fn project_guard(&self, project: ProjectId) -> Key {
        self.key(Tag::ProjectGuard, &[project.as_bytes()])
    }

    pub(crate) fn hold(&self, project: ProjectId, hold: HoldId) -> Key {
        self.key(Tag::Hold, &[project.as_bytes(), hold.as_bytes()])
    }

    pub(crate) fn disposal(&self, project: ProjectId, disposal: DisposalId) -> Key {
        self.key(Tag::Disposal, &[&[0], project.as_bytes(), disposal.as_bytes()])
    }

    /// All disposals; of one project if one is named.
    pub(crate) fn disposals(&self, project: Option<ProjectId>) -> KeyRange {
        match project {
            Some(project) => self.range(Tag::Disposal, &[&[0], project.as_bytes()]),
            None => self.range(Tag::Disposal, &[&[0]]),
        }
    }

    pub(crate) fn disposal_page(&self, disposal: DisposalId, page: u64) -> Key {
        self.key(Tag::Disposal, &[&[1], disposal.as_bytes(), &page.to_be_bytes()])
    }

    /// The pages of a disposal's list.
    pub(crate) fn disposal_pages(&self, disposal: DisposalId) -> KeyRange {
        self.range(Tag::Disposal, &[&[1], disposal.as_bytes()])
    }

    /// The trash from a row on.
    pub(crate) fn trash_from(&self, due: TimestampMicros, id: VersionId) -> KeyRange {
        KeyRange { start: self.trash(due, id).to_vec(), end: self.range(Tag::Trash, &[]).end }
    }

    pub(crate) fn custodian(&self, custodian: CustodianId) -> Key {
        self.key(Tag::Custodian, &[custodian.as_bytes()])
    }

    pub(crate) fn disk_custody(&self, disk: DiskId) -> Key {
        self.key(Tag::DiskCustody, &[disk.as_bytes()])
    }

    /// The transfer of a project that was offered last.
    pub(crate) fn transfer(&self, project: ProjectId) -> Key {
        self.key(Tag::Transfer, &[project.as_bytes()])
    }

    /// The row that every change of custody writes.
    pub(crate) fn custody_state(&self) -> Key {
        self.key(Tag::CustodyState, &[])
    }

    /// Every row of the cell.
    pub(crate) fn all(&self) -> KeyRange {
        let start = self.cell.0.to_be_bytes().to_vec();
        let end = successor(&start);
        KeyRange { start, end }
    }

    /// How far the replacement of a project's key is.
    pub(crate) fn key_rotation(&self, project: ProjectId) -> Key {
        self.key(Tag::KeyRotation, &[project.as_bytes()])
    }

    /// How far the destruction of a key is, with its certificate at the end.
    pub(crate) fn shredding(&self, project: ProjectId, proposal: ProposalId) -> Key {
        self.key(Tag::Shredding, &[project.as_bytes(), proposal.as_bytes()])
    }

    pub(crate) fn incarnation_counter(&self) -> Key {
        self.key(Tag::IncarnationCounter, &[])
    }

    pub(crate) fn incarnation(&self, id: IncarnationId) -> Key {
        self.key(Tag::Incarnation, &[&id.0.to_be_bytes()])
    }

    pub(crate) fn fence(&self, id: IncarnationId) -> Key {
        self.key(Tag::Fence, &[&id.0.to_be_bytes()])
    }

    /// The start of all rows (of `tag`) of object keys in `bucket` that begin with `prefix`.
    pub(crate) fn keys_with_prefix(&self, tag: Tag, bucket: BucketId, prefix: &[u8]) -> KeyRange {
        self.range(tag, &[bucket.as_bytes(), &escape(prefix)])
    }

    /// Right after every row of the object key `key`.
    pub(crate) fn after_key(&self, tag: Tag, bucket: BucketId, key: &[u8]) -> Vec<u8> {
        let mut out = self.key(tag, &[bucket.as_bytes(), &escape(key)]).to_vec();
        // The key's own rows go on with 0x00 0x01; longer keys with 0x00 0xFF or a larger byte.
        out.extend_from_slice(&[0x00, 0x02]);
        out
    }

    /// The rows of exactly this object key.
    pub(crate) fn rows_of_key(&self, tag: Tag, bucket: BucketId, key: &[u8]) -> KeyRange {
        let start = self.key(tag, &[bucket.as_bytes(), &escape_whole(key)]).to_vec();
        let end = self.after_key(tag, bucket, key);
        KeyRange { start, end }
    }
}

/// Project and event of a pending row.
pub(crate) fn pending_parts(row: &[u8]) -> Option<(ProjectId, CommitId)> {
    let ids = row.get(3..)?;
    let project = ids.get(..16)?.try_into().ok()?;
    let event = ids.get(17..33)?.try_into().ok()?;
    Some((ProjectId::from_bytes(project), CommitId::from_bytes(event)))
}

/// The smallest key greater than every key that starts with `prefix`. A prefix starts with cell and tag, and no tag is
/// 0xFF, so there always is one.
pub(crate) fn successor(prefix: &[u8]) -> Vec<u8> {
    let mut out = prefix.to_vec();
    while let Some(last) = out.last_mut() {
        if *last < 0xff {
            *last += 1;
            return out;
        }
        out.pop();
    }
    out
}

fn escape(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + 2);
    for &byte in key {
        out.push(byte);
        if byte == 0 {
            out.push(0xff);
        }
    }
    out
}

fn escape_whole(key: &[u8]) -> Vec<u8> {
    let mut out = escape(key);
    out.extend_from_slice(&[0x00, 0x01]);
    out
}

/// Reads the object key out of a head, noncurrent or upload row's key, with what follows it; `None` if malformed.
pub(crate) fn split_object_row(row: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let escaped = row.get(BUCKET_PREFIX_LEN..)?;
    let mut key = Vec::with_capacity(escaped.len());
    let mut at = 0;
    loop {
        let byte = *escaped.get(at)?;
        if byte != 0 {
            key.push(byte);
            at += 1;
            continue;
        }
        match *escaped.get(at + 1)? {
            0xff => key.push(0),
            0x01 => return Some((key, &escaped[at + 2..])),
            _ => return None,
        }
        at += 2;
    }
}

/// The bucket in the key of a head or noncurrent row.
pub(crate) fn bucket_of_row(row: &[u8]) -> Option<BucketId> {
    BucketId::from_slice(row.get(3..BUCKET_PREFIX_LEN)?).ok()
}

/// Order and version id from the end of a noncurrent row's key.
pub(crate) fn noncurrent_place(suffix: &[u8]) -> Option<NoncurrentPlace> {
    let order = u64::from_be_bytes(suffix.get(..8)?.try_into().ok()?);
    Some(NoncurrentPlace { order: TimestampMicros(!order), id: VersionId::from_slice(suffix.get(8..)?).ok()? })
}

/// The id at the end of a key that ends in 16 bytes of id.
pub(crate) fn last_id(row: &[u8]) -> Option<[u8; 16]> {
    row.get(row.len().checked_sub(16)?..)?.try_into().ok()
}

/// Blob and owner of a reference row.
pub(crate) fn blob_ref_parts(row: &[u8]) -> Option<(BlobId, VersionId)> {
    let ids = row.get(3..)?;
    Some((BlobId::from_slice(ids.get(..16)?).ok()?, VersionId::from_slice(ids.get(16..)?).ok()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(2), Just(0xff), Just(b'/'), any::<u8>()], 1..12)
    }

    proptest! {
        #[test]
        fn rows_sort_as_object_keys_do_and_give_them_back(a in bytes(), b in bytes()) {
            let rows = Rows::new(CellId(1));
            let bucket = BucketId::random();
            let place = NoncurrentPlace { order: TimestampMicros(7), id: VersionId::random() };
            let (key_a, key_b) = (ObjectKey::new(a.clone()).unwrap(), ObjectKey::new(b.clone()).unwrap());
            prop_assert_eq!(a.cmp(&b), rows.head(bucket, &key_a).cmp(&rows.head(bucket, &key_b)));
            let row = rows.noncurrent(bucket, &key_a, place);
            let (key, suffix) = split_object_row(&row).unwrap();
            prop_assert_eq!(&key, &a);
            prop_assert_eq!(noncurrent_place(suffix), Some(place));
            prop_assert_eq!(bucket_of_row(&row), Some(bucket));
            // A key's rows lie within its own range, and no other key's do.
            let range = rows.rows_of_key(Tag::Noncurrent, bucket, &b);
            let inside = range.start[..] <= row[..] && row[..] < range.end[..];
            prop_assert_eq!(inside, a == b);
            let prefixed = rows.keys_with_prefix(Tag::Noncurrent, bucket, &b);
            let inside = prefixed.start[..] <= row[..] && row[..] < prefixed.end[..];
            prop_assert_eq!(inside, a.starts_with(&b));
        }
    }

    #[test]
    fn newer_versions_of_a_key_come_first() {
        let (rows, bucket, key) = (Rows::new(CellId(0)), BucketId::random(), ObjectKey::new("k").unwrap());
        let at = |order| NoncurrentPlace { order: TimestampMicros(order), id: VersionId::from_bytes([9; 16]) };
        assert!(rows.noncurrent(bucket, &key, at(2)) < rows.noncurrent(bucket, &key, at(1)));
    }

    #[test]
    fn the_successor_is_above_everything_with_the_prefix() {
        assert_eq!(successor(&[1, 2]), vec![1, 3]);
        assert_eq!(successor(&[1, 0xff, 0xff]), vec![2]);
    }
}
