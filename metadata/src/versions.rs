//! The versions of one key: the head row holds the current one, noncurrent ones have rows of their own, newest first.
//!
//! This refines the architecture's single run of rows ordered by age: with the current version in a row of its own, a
//! listing of current versions is flat in the number of old ones, and every writer of a key meets on the head row, whose
//! revision guards the whole key.
//!
//! Invariants: a key with noncurrent versions has a head. A key has at most one null version; if it is not the current
//! one, the head names it. Every noncurrent row has an index row, by version id. A noncurrent row comes into being only
//! in a commit that writes the head.

use crate::attempt::{Attempt, store_error};
use crate::lock::Leaving;
use crate::records::{
    self, BucketRecord, FLAG_DELETE_MARKER, HeadRecord, NoncurrentRecord, NullRef, TrashRecord, TrashedVersion,
    VersionIndexRecord, VersionRecord,
};
use crate::rows::{NoncurrentPlace, Tag, noncurrent_place, split_object_row};
use crate::seal::{Place, Sealed};
use crate::service::{Core, corrupt};
use crate::store::{Snapshot, Versioned};
use valv_metadata_api::*;
use valv_types::{BucketId, ProjectId, TimestampMicros, UserId, VersionId};

/// A key and whose it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyPlace<'a> {
    /// The bucket's state, of the row that the attempt expects.
    pub(crate) state: &'a BucketRecord,
    pub(crate) bucket: BucketId,
    pub(crate) key: &'a ObjectKey,
}

/// A head row as read.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) row: Versioned,
    pub(crate) record: HeadRecord,
}

/// A version as found.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) head: Head,
    pub(crate) version: VersionRecord,
    /// Its own row, if it is not the current version.
    pub(crate) noncurrent: Option<Versioned>,
}

impl Found {
    pub(crate) fn is_current(&self) -> bool {
        self.noncurrent.is_none()
    }
}

pub(crate) fn decode_head(row: Option<Versioned>) -> Result<Option<Head>, MetadataError> {
    row.map(|row| Ok(Head { record: records::decode("head", &row.value)?, row })).transpose()
}

fn place_of(version: &VersionRecord) -> NoncurrentPlace {
    NoncurrentPlace { order: version.order, id: version.id }
}

/// What clients are told of a version's id.
pub(crate) fn shown(versioning: Versioning, is_null: bool, id: VersionId) -> ShownVersion {
    match (versioning, is_null) {
        (Versioning::Unversioned, _) => ShownVersion::Hidden,
        (_, true) => ShownVersion::Null,
        (_, false) => ShownVersion::Id(id),
    }
}

impl Core {
    pub(crate) fn seal_attributes(
        &self,
        project: ProjectId,
        bucket: BucketId,
        version: VersionId,
        attributes: &Attributes,
    ) -> Result<Sealed, MetadataError> {
        self.seals.seal(Place::Version(project, bucket, version), attributes)
    }

    pub(crate) fn open_attributes(
        &self,
        project: ProjectId,
        bucket: BucketId,
        version: &VersionRecord,
    ) -> Result<Attributes, MetadataError> {
        if version.is_delete_marker() {
            return Ok(Attributes::default());
        }
        self.seals.open(Place::Version(project, bucket, version.id), version.key_version, &version.sealed)
    }

    /// The version as the API tells it.
    pub(crate) fn version_view(
        &self,
        project: ProjectId,
        bucket: BucketId,
        version: &VersionRecord,
    ) -> Result<ObjectVersion, MetadataError> {
        Ok(ObjectVersion {
            id: version.id,
            order: version.order,
            is_null: version.is_null(),
            is_delete_marker: version.is_delete_marker(),
            len_bytes: version.len_bytes,
            body: version.body.clone(),
            owner: version.owner,
            retention: version.retention,
            legal_hold: version.legal_hold(),
            legal_hold_said: version.legal_hold_said(),
            attributes: self.open_attributes(project, bucket, version)?,
        })
    }

    /// Refuses a body whose key was destroyed, wherever its wrap has come back from.
    pub(crate) fn check_not_shredded(&self, body: &Body) -> Result<(), MetadataError> {
        match body {
            Body::Blob(blob) if self.seals.keys().is_blob_shredded(blob.blob) => Err(MetadataError::KeyDestroyed),
            Body::Empty | Body::Blob(_) | Body::Parts(_) => Ok(()),
        }
    }

    pub(crate) fn delete_marker(
        &self,
        id: VersionId,
        order: TimestampMicros,
        null_flag: u8,
        owner: Option<UserId>,
    ) -> VersionRecord {
        VersionRecord {
            id,
            order,
            flags: FLAG_DELETE_MARKER | null_flag,
            len_bytes: 0,
            body: Body::Empty,
            owner,
            retention: None,
            key_version: 0,
            sealed: Vec::new(),
        }
    }

    /// Finds a version of a key in a snapshot. `None` if there is none.
    pub(crate) fn find_in(
        &self,
        snapshot: &dyn Snapshot,
        bucket: BucketId,
        key: &ObjectKey,
        selector: VersionSelector,
    ) -> Result<Option<Found>, MetadataError> {
        let read = |key: &[u8]| snapshot.get(key).map_err(store_error);
        let Some(head) = decode_head(read(&self.rows.head(bucket, key))?)? else { return Ok(None) };
        let current = &head.record.version;
        let place = match selector {
            VersionSelector::Current => None,
            VersionSelector::Null if current.is_null() => None,
            VersionSelector::Id(id) if current.id == id => None,
            VersionSelector::Null => match head.record.null {
                Some(null) => Some(NoncurrentPlace { order: null.order, id: null.id }),
                None => return Ok(None),
            },
            VersionSelector::Id(id) => match read(&self.rows.version_index(bucket, id))? {
                Some(row) => {
                    let index: VersionIndexRecord = records::decode("version index", &row.value)?;
                    Some(NoncurrentPlace { order: index.order, id })
                }
                None => return Ok(None),
            },
        };
        let Some(place) = place else {
            let version = current.clone();
            return Ok(Some(Found { head, version, noncurrent: None }));
        };
        // The index is per bucket: a version id of another key has no row under this key.
        let Some(row) = read(&self.rows.noncurrent(bucket, key, place))? else { return Ok(None) };
        let version = records::decode::<NoncurrentRecord>("noncurrent version", &row.value)?.version;
        Ok(Some(Found { head, version, noncurrent: Some(row) }))
    }

    /// The newest noncurrent version of a key: what becomes current when the current one is removed.
    pub(crate) fn newest_noncurrent(
        &self,
        snapshot: &dyn Snapshot,
        bucket: BucketId,
        key: &ObjectKey,
    ) -> Result<Option<(NoncurrentPlace, Versioned)>, MetadataError> {
        let range = self.rows.rows_of_key(Tag::Noncurrent, bucket, key.as_bytes());
        let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
        let Some((row_key, row)) = cursor.next().map_err(store_error)? else { return Ok(None) };
        let place = split_object_row(&row_key).and_then(|(_, suffix)| noncurrent_place(suffix));
        Ok(Some((place.ok_or_else(|| corrupt("noncurrent row"))?, row)))
    }

    /// Adds a row for a version that is no longer current.
    fn put_noncurrent(&self, attempt: &mut Attempt, at: KeyPlace<'_>, version: VersionRecord) {
        let place = place_of(&version);
        let index = VersionIndexRecord { order: place.order };
        attempt.put(self.rows.noncurrent(at.bucket, at.key, place), records::encode(&NoncurrentRecord { version }));
        attempt.put(self.rows.version_index(at.bucket, place.id), records::encode(&index));
    }

    fn remove_noncurrent(&self, attempt: &mut Attempt, at: KeyPlace<'_>, place: NoncurrentPlace, row: &Versioned) {
        let key = self.rows.noncurrent(at.bucket, at.key, place);
        attempt.expect(key.clone(), Some(row));
        attempt.remove(key);
        attempt.remove(self.rows.version_index(at.bucket, place.id));
    }

    fn put_head(&self, attempt: &mut Attempt, at: KeyPlace<'_>, head: &HeadRecord) {
        attempt.put(self.rows.head(at.bucket, at.key), records::encode(head));
    }

    /// Puts `version` on top of the key's versions, guarded by the head row as read. A null version replaces the null
    /// version that there was, which goes to the trash; otherwise what was current becomes noncurrent.
    pub(crate) async fn place_version(
        &self,
        attempt: &mut Attempt,
        at: KeyPlace<'_>,
        head: Option<Head>,
        version: VersionRecord,
        by: Option<UserId>,
    ) -> Result<Placed, MetadataError> {
        attempt.expect(self.rows.head(at.bucket, at.key), head.as_ref().map(|head| &head.row));
        let Some(Head { record: old, .. }) = head else {
            self.put_head(attempt, at, &HeadRecord { version, null: None });
            return Ok(Placed::Done { replaced: None });
        };
        let null_of_old = old.version.is_null().then_some(NullRef { order: old.version.order, id: old.version.id });
        if !version.is_null() {
            let null = null_of_old.or(old.null);
            self.put_noncurrent(attempt, at, old.version);
            self.put_head(attempt, at, &HeadRecord { version, null });
            return Ok(Placed::Done { replaced: None });
        }
        let replaced = if null_of_old.is_some() {
            Some(old.version)
        } else {
            let null = old.null;
            self.put_noncurrent(attempt, at, old.version);
            match null {
                None => None,
                Some(null) => {
                    let place = NoncurrentPlace { order: null.order, id: null.id };
                    let row = self.get(&self.rows.noncurrent(at.bucket, at.key, place)).await?;
                    let Some(row) = row else { return Ok(Placed::InBetween) };
                    self.remove_noncurrent(attempt, at, place, &row);
                    Some(records::decode::<NoncurrentRecord>("noncurrent version", &row.value)?.version)
                }
            }
        };
        self.put_head(attempt, at, &HeadRecord { version, null: None });
        let id = replaced.as_ref().map(|replaced| replaced.id);
        if let Some(replaced) = replaced {
            Leaving::new(at.state, at.key.as_bytes(), &replaced).check(false, self.clock.now())?;
            self.put_trash(attempt, at, replaced, by);
        }
        Ok(Placed::Done { replaced: id })
    }

    /// Removes a version for good: it goes to the trash. If it was current, the newest noncurrent one takes its place.
    /// Object Lock is for the caller to check.
    pub(crate) fn take_version(
        &self,
        attempt: &mut Attempt,
        snapshot: &dyn Snapshot,
        at: KeyPlace<'_>,
        found: Found,
        by: Option<UserId>,
    ) -> Result<(), MetadataError> {
        let head_key = self.rows.head(at.bucket, at.key);
        let Found { head, version, noncurrent } = found;
        match noncurrent {
            Some(row) => {
                self.remove_noncurrent(attempt, at, place_of(&version), &row);
                if version.is_null() {
                    attempt.expect(head_key, Some(&head.row));
                    self.put_head(attempt, at, &HeadRecord { null: None, ..head.record });
                }
            }
            None => {
                attempt.expect(head_key.clone(), Some(&head.row));
                match self.newest_noncurrent(snapshot, at.bucket, at.key)? {
                    None => attempt.remove(head_key),
                    Some((place, row)) => {
                        self.remove_noncurrent(attempt, at, place, &row);
                        let next = records::decode::<NoncurrentRecord>("noncurrent version", &row.value)?.version;
                        let null = if next.is_null() { None } else { head.record.null };
                        self.put_head(attempt, at, &HeadRecord { version: next, null });
                    }
                }
            }
        }
        self.put_trash(attempt, at, version, by);
        Ok(())
    }

    /// Lays a removed version into the trash, where its references keep its blobs. Delete markers just go.
    fn put_trash(&self, attempt: &mut Attempt, at: KeyPlace<'_>, version: VersionRecord, by: Option<UserId>) {
        if version.is_delete_marker() {
            return;
        }
        let now = self.now();
        let row = self.rows.trash(now.plus_secs(self.config.trash_secs), version.id);
        let record = TrashedVersion {
            version,
            project: at.state.project,
            bucket: at.bucket,
            key: at.key.as_bytes().to_vec(),
            removed: now,
            by,
            purging: false,
        };
        attempt.put(row, records::encode(&TrashRecord::Version(Box::new(record))));
    }

    /// Brings a version from the trash back among its key's versions.
    pub(crate) fn restore_version(
        &self,
        attempt: &mut Attempt,
        at: KeyPlace<'_>,
        head: Option<Head>,
        version: VersionRecord,
    ) -> Result<(), MetadataError> {
        attempt.expect(self.rows.head(at.bucket, at.key), head.as_ref().map(|head| &head.row));
        let Some(Head { record: mut old, .. }) = head else {
            self.put_head(attempt, at, &HeadRecord { version, null: None });
            return Ok(());
        };
        if version.is_null() && (old.version.is_null() || old.null.is_some()) {
            // Its place is taken: bringing it back would remove what was written since.
            return Err(MetadataError::InvalidBucketState);
        }
        let null_of =
            |version: &VersionRecord| version.is_null().then_some(NullRef { order: version.order, id: version.id });
        if version.order > old.version.order {
            let null = null_of(&old.version).or(old.null);
            self.put_noncurrent(attempt, at, old.version);
            self.put_head(attempt, at, &HeadRecord { version, null });
        } else {
            old.null = null_of(&version).or(old.null);
            self.put_noncurrent(attempt, at, version);
            self.put_head(attempt, at, &old);
        }
        Ok(())
    }

    /// Rewrites a version where it stands.
    pub(crate) fn rewrite_version(
        &self,
        attempt: &mut Attempt,
        at: KeyPlace<'_>,
        found: &Found,
        version: VersionRecord,
    ) {
        match &found.noncurrent {
            Some(row) => {
                let key = self.rows.noncurrent(at.bucket, at.key, place_of(&version));
                attempt.expect(key.clone(), Some(row));
                attempt.put(key, records::encode(&NoncurrentRecord { version }));
            }
            None => {
                attempt.expect(self.rows.head(at.bucket, at.key), Some(&found.head.row));
                self.put_head(attempt, at, &HeadRecord { version, null: found.head.record.null });
            }
        }
    }
}

/// Whether a version found its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placed {
    /// Yes; the version it replaced went to the trash.
    Done {
        /// That version.
        replaced: Option<VersionId>,
    },
    /// The rows read are of different moments: the attempt can't hold and has to be made again.
    InBetween,
}
