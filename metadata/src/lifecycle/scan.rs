//! Finds what may be due: pages of a bucket's rows in a snapshot.
//!
//! Heads and noncurrent rows are in the same order of keys, so two cursors go along side by side, without a seek for each
//! key. Only keys under the rules' common prefix are looked at; a version's tags are opened only if they can decide.

use crate::attempt::store_error;
use crate::lock::Leaving;
use crate::records::{self, BucketRecord, DocumentRecord, FLAG_DELETE_MARKER, FLAG_LEGAL_HOLD};
use crate::rows::{NoncurrentPlace, Tag, last_id, noncurrent_place, split_object_row, successor};
use crate::seal::Place;
use crate::service::{Core, corrupt};
use crate::store::{Cursor, Key, Snapshot, Versioned};
use minicbor::Decode;
use valv_lifecycle::{Configuration, Removal, Standing, Version};
use valv_metadata_api::{BucketDocumentKind, MetadataError, ObjectKey, Retention, Versioning};
use valv_types::{BucketId, ProjectId, TimestampMicros, UploadId, VersionId};

/// Rows of versions or uploads in a page: some milliseconds of reading, and at most a few MiB of keys to work on.
const PAGE_ROWS: usize = 1_000;
/// Bucket rows looked at for one with rules, in one scan.
const BUCKET_ROWS: usize = 1_000;

/// The next bucket with rules.
pub(super) struct NextBucket {
    pub(super) bucket: Option<BucketId>,
    /// Where to look for the one after it.
    pub(super) next_from: Vec<u8>,
    /// Whether there are rows there.
    pub(super) more: bool,
    pub(super) rows: usize,
}

/// A bucket's rules, and the rows that they were read from.
pub(super) struct Rules {
    pub(super) bucket: BucketId,
    pub(super) bucket_row: Versioned,
    pub(super) record: BucketRecord,
    pub(super) rules: Configuration,
}

/// How far a bucket has been looked at.
#[derive(Debug, Clone)]
pub(super) enum Stage {
    Versions(Option<After>),
    /// Upload index rows from this one on.
    Uploads(Vec<u8>),
}

impl Default for Stage {
    fn default() -> Self {
        Self::Versions(None)
    }
}

/// The last version looked at.
#[derive(Debug, Clone)]
pub(super) struct After {
    key: Vec<u8>,
    /// If the key has more: its last noncurrent version looked at, and how many noncurrent ones there were up to it. If
    /// that version goes, the next page's first has lost its successor and is left to the next pass: one in a page.
    inside: Option<(NoncurrentPlace, u32)>,
}

/// What was found in some rows.
pub(super) struct Page {
    pub(super) rules: Rules,
    pub(super) work: Vec<Work>,
    /// Where the bucket goes on; `None` at its end.
    pub(super) next: Option<Stage>,
    pub(super) rows: usize,
}

/// What may be due of one key or upload.
pub(super) enum Work {
    Versions {
        key: ObjectKey,
        /// To be worked on in this order: oldest first, so that no version's successor goes before it.
        targets: Vec<Target>,
    },
    Upload {
        key: ObjectKey,
        id: UploadId,
    },
}

/// A version that may be due.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    Current(VersionId),
    Noncurrent {
        place: NoncurrentPlace,
        /// The next newer version: its writing made this one noncurrent.
        successor: NoncurrentPlace,
    },
}

/// As much of a version as rules look at.
#[derive(Decode)]
struct ScannedVersion<'b> {
    #[n(0)]
    id: VersionId,
    #[n(1)]
    order: TimestampMicros,
    #[n(2)]
    flags: u8,
    #[n(3)]
    len_bytes: u64,
    #[n(6)]
    retention: Option<Retention>,
    #[n(7)]
    key_version: u32,
    #[b(8)]
    #[cbor(with = "minicbor::bytes")]
    sealed: &'b [u8],
}

/// As much of a head or noncurrent row as rules look at.
#[derive(Decode)]
struct Scanned<'b> {
    #[b(0)]
    version: ScannedVersion<'b>,
}

/// As much of sealed attributes as rules look at.
#[derive(Decode)]
struct ScannedTags {
    #[n(3)]
    tags: Vec<(String, String)>,
}

/// A cursor that shows its next row before it is taken.
struct Peeked<'s> {
    cursor: Box<dyn Cursor + 's>,
    next: Option<(Key, Versioned)>,
}

impl<'s> Peeked<'s> {
    fn new(mut cursor: Box<dyn Cursor + 's>) -> Result<Self, MetadataError> {
        let next = cursor.next().map_err(store_error)?;
        Ok(Self { cursor, next })
    }

    /// Takes the next row if it lies before `end`.
    fn next_before(&mut self, end: &[u8]) -> Result<Option<(Key, Versioned)>, MetadataError> {
        if self.next.as_ref().is_none_or(|(key, _)| &key[..] >= end) {
            return Ok(None);
        }
        let after = self.cursor.next().map_err(store_error)?;
        Ok(std::mem::replace(&mut self.next, after))
    }
}

impl Core {
    /// Finds the next bucket with rules, from the row `from` on (all rows, if it is empty).
    pub(super) fn next_lifecycle_bucket(
        &self,
        snapshot: &dyn Snapshot,
        from: Vec<u8>,
    ) -> Result<NextBucket, MetadataError> {
        let range = self.rows.range(Tag::Bucket, &[]);
        let start = if from.is_empty() { range.start } else { from };
        let mut found = NextBucket { bucket: None, next_from: start.clone(), more: false, rows: 0 };
        if start >= range.end {
            return Ok(found);
        }
        let mut cursor = snapshot.scan(&start, &range.end).map_err(store_error)?;
        while let Some((key, row)) = cursor.next().map_err(store_error)? {
            found.rows += 1;
            found.next_from = successor(&key);
            // A row that can't be read has no rules that could be carried out; whoever uses the bucket is told.
            let record: Result<BucketRecord, _> = records::decode("bucket", &row.value);
            if record.is_ok_and(|record| record.documents.contains(&BucketDocumentKind::Lifecycle)) {
                found.bucket = last_id(&key).map(BucketId::from_bytes);
                return Ok(found);
            }
            if found.rows == BUCKET_ROWS {
                found.more = true;
                return Ok(found);
            }
        }
        Ok(found)
    }

    /// The rules of a bucket, unless it is gone, being deleted, or has none.
    pub(super) fn lifecycle_rules(
        &self,
        snapshot: &dyn Snapshot,
        bucket: BucketId,
    ) -> Result<Option<Rules>, MetadataError> {
        let read = |key: &[u8]| snapshot.get(key).map_err(store_error);
        let Some(bucket_row) = read(&self.rows.bucket(bucket))? else { return Ok(None) };
        let record: BucketRecord = records::decode("bucket", &bucket_row.value)?;
        if record.closing.is_some() || !record.documents.contains(&BucketDocumentKind::Lifecycle) {
            return Ok(None);
        }
        let Some(row) = read(&self.rows.document(bucket, BucketDocumentKind::Lifecycle))? else { return Ok(None) };
        let document: DocumentRecord = records::decode("bucket document", &row.value)?;
        let place = Place::Document(record.project, bucket, BucketDocumentKind::Lifecycle);
        let body = self.seals.open_bytes(place, document.key_version, &document.sealed)?;
        let rules = Configuration::decode(&body).map_err(|_| corrupt("lifecycle configuration"))?;
        Ok(Some(Rules { bucket, bucket_row, record, rules }))
    }

    /// Looks at a page of a bucket from `stage` on. `None` if there is nothing to carry out there any more.
    pub(super) fn scan_lifecycle(
        &self,
        snapshot: &dyn Snapshot,
        bucket: BucketId,
        stage: Stage,
        now: TimestampMicros,
    ) -> Result<Option<Page>, MetadataError> {
        let Some(rules) = self.lifecycle_rules(snapshot, bucket)? else { return Ok(None) };
        let mut page = Page { rules, work: Vec::new(), next: None, rows: 0 };
        match stage {
            Stage::Versions(after) => self.scan_versions(snapshot, &mut page, after, now)?,
            Stage::Uploads(from) => self.scan_uploads(snapshot, &mut page, from, now)?,
        }
        Ok(Some(page))
    }

    fn scan_versions(
        &self,
        snapshot: &dyn Snapshot,
        page: &mut Page,
        after: Option<After>,
        now: TimestampMicros,
    ) -> Result<(), MetadataError> {
        let Page { rules, work, next, rows } = page;
        let (bucket, prefix) = (rules.bucket, rules.rules.common_prefix());
        *next = Some(Stage::Uploads(Vec::new()));
        let heads = self.rows.keys_with_prefix(Tag::Head, bucket, prefix);
        let start = match &after {
            None => heads.start,
            Some(After { key, inside: None }) => self.rows.after_key(Tag::Head, bucket, key),
            Some(After { key, inside: Some(_) }) => self.rows.rows_of_key(Tag::Head, bucket, key).start,
        };
        if !rules.rules.concerns_versions() || start >= heads.end {
            return Ok(());
        }
        let mut cursor = snapshot.scan(&start, &heads.end).map_err(store_error)?;
        let mut older = self.older_versions(snapshot, rules, after.as_ref())?;
        let mut resumed = after;
        while let Some((row_key, row)) = cursor.next().map_err(store_error)? {
            let (key, _) = split_object_row(&row_key).ok_or_else(|| corrupt("head row"))?;
            if *rows >= PAGE_ROWS {
                *next = Some(Stage::Versions(resumed));
                return Ok(());
            }
            *rows += 1;
            let head: Scanned<'_> = records::decode("head", &row.value)?;
            let head = head.version;
            let place = NoncurrentPlace { order: head.order, id: head.id };
            let inside = resumed.take().filter(|after| after.key == key).and_then(|after| after.inside);
            let (mut newest, mut newer) = inside.unwrap_or((place, 0));
            let (mut targets, mut is_cut) = (Vec::new(), false);
            if let Some(older) = &mut older {
                let end = self.rows.after_key(Tag::Noncurrent, bucket, &key);
                while let Some((row_key, row)) = older.next_before(&end)? {
                    let place = split_object_row(&row_key).and_then(|(_, suffix)| noncurrent_place(suffix));
                    let place = place.ok_or_else(|| corrupt("noncurrent row"))?;
                    let scanned: Scanned<'_> = records::decode("noncurrent version", &row.value)?;
                    let standing = Standing::Noncurrent { since: newest.order, newer };
                    if self.may_be_due(rules, &key, &scanned.version, standing, now)? {
                        targets.push(Target::Noncurrent { place, successor: newest });
                    }
                    (newest, newer) = (place, newer.saturating_add(1));
                    *rows += 1;
                    if *rows >= PAGE_ROWS {
                        is_cut = true;
                        break;
                    }
                }
            }
            targets.reverse();
            if inside.is_none() {
                let standing = Standing::Current { is_only: newer == 0 };
                if self.may_be_due(rules, &key, &head, standing, now)? {
                    targets.push(Target::Current(head.id));
                }
            }
            if !targets.is_empty() {
                let key = ObjectKey::new(key.clone()).ok_or_else(|| corrupt("head row"))?;
                work.push(Work::Versions { key, targets });
            }
            let after = After { key, inside: is_cut.then_some((newest, newer)) };
            if is_cut {
                *next = Some(Stage::Versions(Some(after)));
                return Ok(());
            }
            resumed = Some(after);
        }
        Ok(())
    }

    /// Noncurrent versions from where the page begins; `None` where there can't be any.
    fn older_versions<'s>(
        &self,
        snapshot: &'s dyn Snapshot,
        rules: &Rules,
        after: Option<&After>,
    ) -> Result<Option<Peeked<'s>>, MetadataError> {
        if rules.record.versioning == Versioning::Unversioned {
            return Ok(None);
        }
        let range = self.rows.keys_with_prefix(Tag::Noncurrent, rules.bucket, rules.rules.common_prefix());
        let start = match after {
            None => range.start,
            Some(After { key, inside: None }) => self.rows.after_key(Tag::Noncurrent, rules.bucket, key),
            Some(After { key, inside: Some((place, _)) }) => {
                let key = ObjectKey::new(key.clone()).ok_or_else(|| corrupt("head row"))?;
                let mut row = self.rows.noncurrent(rules.bucket, &key, *place).to_vec();
                // The next possible key.
                row.push(0);
                row
            }
        };
        if start >= range.end {
            return Ok(None);
        }
        Peeked::new(snapshot.scan(&start, &range.end).map_err(store_error)?).map(Some)
    }

    /// Whether a version is due as far as the snapshot tells, and Object Lock would let it go.
    fn may_be_due(
        &self,
        rules: &Rules,
        key: &[u8],
        scanned: &ScannedVersion<'_>,
        standing: Standing,
        now: TimestampMicros,
    ) -> Result<bool, MetadataError> {
        let facts = Version {
            key,
            len_bytes: scanned.len_bytes,
            tags: &[],
            modified: scanned.order,
            is_delete_marker: scanned.flags & FLAG_DELETE_MARKER != 0,
            standing,
        };
        let (day, project) = (self.config.lifecycle_day, rules.record.project);
        let due = if rules.rules.needs_tags(&facts, now, day) {
            let tags = self.scanned_tags(project, rules.bucket, scanned.id, scanned.key_version, scanned.sealed)?;
            rules.rules.due(&Version { tags: &tags, ..facts }, now, day)
        } else {
            rules.rules.due(&facts, now, day)
        };
        let Some(due) = due else { return Ok(false) };
        if due.removal == Removal::Expire && rules.record.versioning != Versioning::Unversioned {
            return Ok(!rules.record.is_held(key));
        }
        let leaving = Leaving {
            bucket: &rules.record,
            key,
            is_delete_marker: facts.is_delete_marker,
            retention: scanned.retention,
            legal_hold: scanned.flags & FLAG_LEGAL_HOLD != 0,
        };
        Ok(leaving.check_by_rule(self.clock.now()).is_ok())
    }

    /// Opens the tags of a version.
    pub(super) fn scanned_tags(
        &self,
        project: ProjectId,
        bucket: BucketId,
        id: VersionId,
        key_version: u32,
        sealed: &[u8],
    ) -> Result<Vec<(String, String)>, MetadataError> {
        let plain = self.seals.open_bytes(Place::Version(project, bucket, id), key_version, sealed)?;
        Ok(records::decode::<ScannedTags>("version", &plain)?.tags)
    }

    fn scan_uploads(
        &self,
        snapshot: &dyn Snapshot,
        page: &mut Page,
        from: Vec<u8>,
        now: TimestampMicros,
    ) -> Result<(), MetadataError> {
        let Page { rules, work, next, rows } = page;
        let range = self.rows.keys_with_prefix(Tag::UploadIndex, rules.bucket, rules.rules.common_prefix());
        let start = range.start.max(from);
        if !rules.rules.concerns_uploads() || start >= range.end {
            return Ok(());
        }
        let mut cursor = snapshot.scan(&start, &range.end).map_err(store_error)?;
        while let Some((row_key, _)) = cursor.next().map_err(store_error)? {
            if *rows >= PAGE_ROWS {
                *next = Some(Stage::Uploads(row_key.to_vec()));
                return Ok(());
            }
            *rows += 1;
            let (key, suffix) = split_object_row(&row_key).ok_or_else(|| corrupt("upload index"))?;
            let (initiated, id) = upload_of_suffix(suffix).ok_or_else(|| corrupt("upload index"))?;
            let planned = rules.rules.abort(&key, initiated, self.config.lifecycle_day);
            if planned.is_some_and(|(at, _)| at <= now) {
                let key = ObjectKey::new(key).ok_or_else(|| corrupt("upload index"))?;
                work.push(Work::Upload { key, id });
            }
        }
        Ok(())
    }
}

/// When an upload was opened, and its id, from the end of its index row's key.
fn upload_of_suffix(suffix: &[u8]) -> Option<(TimestampMicros, UploadId)> {
    let initiated = u64::from_be_bytes(suffix.get(..8)?.try_into().ok()?);
    Some((TimestampMicros(initiated), UploadId::from_slice(suffix.get(8..)?).ok()?))
}
