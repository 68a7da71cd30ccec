//! The trash: what was removed can be brought back until its time is over, and is purged then.

use crate::attempt::{self, ATTEMPTS_MAX, Attempt, Plan, Settled, settle, store_error};
use crate::ledger::Event;
use crate::lock::Leaving;
use crate::quota::Delta;
use crate::records::{self, EventKind, PageRecord, PartRow, TrashRecord, TrashedVersion, page_refs};
use crate::retention;
use crate::rows::{KeyRange, Tag, last_id, successor};
use crate::service::{Core, MetadataService, corrupt};
use crate::store::{Key, Snapshot, Versioned};
use crate::versions::{KeyPlace, decode_head};
use futures_util::{StreamExt as _, TryStreamExt as _};
use std::sync::Arc;
use valv_metadata_api::{Actor, Body, MetadataError, ObjectKey, TrashPlace};
use valv_types::{CommitId, ProjectId, TimestampMicros, VersionId};

/// Trash rows read at once.
const BATCH: usize = 256;
/// Purges in flight: their commits share the store's syncs.
const PURGES_IN_FLIGHT: usize = 16;
/// Most parts whose references one commit removes. Each takes at most seven expectations and writes, so a commit stays
/// below a third of the store's [`crate::store::COMMIT_KEYS_MAX`].
const PARTS_PER_COMMIT: usize = 2_048;
/// What is kept in the trash by a hold is looked at again after this long at most: so soon its purge goes on after the
/// hold's release.
const KEPT_PAUSE_SECS_MAX: u64 = 3_600;

impl MetadataService {
    /// Brings a removed version back, with its retention and hold, if its trash time is not over. It becomes current
    /// only if it is the newest. Refused with [`MetadataError::InvalidBucketState`] where another null version took its
    /// place, and with [`MetadataError::NoSuchVersion`] if it is not in the trash. One commit.
    pub async fn undelete(&self, actor: &Actor, version: VersionId) -> Result<(), MetadataError> {
        self.0.undelete(actor, version, None).await
    }

    /// The same for an entry of a listing ([`Self::list_trash`]), which is found where it was listed.
    pub async fn undelete_at(&self, actor: &Actor, place: TrashPlace) -> Result<(), MetadataError> {
        self.0.undelete(actor, place.version, Some(place.due)).await
    }

    /// Purges everything in the trash whose time is over. Returns how much that was. The background pass does this too.
    pub async fn purge_trash(&self) -> Result<usize, MetadataError> {
        self.0.purge_trash().await
    }
}

impl Core {
    async fn undelete(
        self: &Arc<Self>,
        actor: &Actor,
        version: VersionId,
        due: Option<TimestampMicros>,
    ) -> Result<(), MetadataError> {
        let commit = CommitId::random();
        for number in 0..ATTEMPTS_MAX {
            let plan = self.plan_undelete(actor, version, due, commit).await;
            if let Settled::Done(()) = settle(self.store.as_ref(), commit, number, plan).await? {
                return Ok(());
            }
        }
        Err(MetadataError::Conflict)
    }

    async fn plan_undelete(
        self: &Arc<Self>,
        actor: &Actor,
        version: VersionId,
        due: Option<TimestampMicros>,
        commit: CommitId,
    ) -> Result<Plan<()>, MetadataError> {
        // Rows are in order of their time; a search by id alone reads them all. Undeleting so is rare.
        let found = self.scan(move |core, snapshot| core.find_trashed(snapshot, version, due)).await?;
        let found = found.filter(|(_, _, trashed)| trashed.project == actor.project);
        let Some((trash_key, trash_row, trashed)) = found else { return Err(MetadataError::NoSuchVersion) };
        let key = ObjectKey::new(trashed.key).ok_or_else(|| corrupt("trash"))?;
        let keys = [self.rows.bucket(trashed.bucket), self.rows.head(trashed.bucket, &key)];
        let [bucket_row, head_row] = self.get_rows(&keys).await?;
        let [bucket_key, _] = keys;
        let Some(bucket) = self.writable_bucket(trashed.bucket, bucket_row.as_ref()).await? else {
            return Ok(Plan::Wait);
        };
        let mut attempt = Attempt::default();
        attempt.expect(bucket_key, bucket_row.as_ref());
        attempt.expect(trash_key.clone(), Some(&trash_row));
        attempt.remove(trash_key);
        let at = KeyPlace { state: &bucket, bucket: trashed.bucket, key: &key };
        let event = Event {
            kind: EventKind::VersionRestored,
            project: bucket.project,
            time: self.now(),
            bucket: Some(trashed.bucket),
            version: Some(version),
            other_version: None,
            bytes: trashed.version.len_bytes,
            subject: key.as_bytes(),
        };
        self.restore_version(&mut attempt, at, decode_head(head_row)?, trashed.version)?;
        self.record_event(&mut attempt, commit, Some(actor), event)?;
        Ok(Plan::Commit(attempt, ()))
    }

    fn find_trashed(
        &self,
        snapshot: &dyn Snapshot,
        version: VersionId,
        due: Option<TimestampMicros>,
    ) -> Result<Option<(Key, Versioned, TrashedVersion)>, MetadataError> {
        let range = match due {
            Some(due) => {
                let start = self.rows.trash(due, version).to_vec();
                KeyRange { end: successor(&start), start }
            }
            None => self.rows.range(Tag::Trash, &[]),
        };
        let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
        while let Some((key, row)) = cursor.next().map_err(store_error)? {
            if last_id(&key) != Some(*version.as_bytes()) {
                continue;
            }
            match records::decode("trash", &row.value)? {
                TrashRecord::Version(trashed) if !trashed.purging => return Ok(Some((key, row, *trashed))),
                TrashRecord::Version(_) | TrashRecord::Upload(_) => {}
            }
        }
        Ok(None)
    }

    pub(crate) async fn purge_trash(self: &Arc<Self>) -> Result<usize, MetadataError> {
        let mut purged = 0;
        loop {
            let due = self.rows.trash_due(self.now());
            let batch = self
                .scan(move |_, snapshot| {
                    let mut cursor = snapshot.scan(&due.start, &due.end).map_err(store_error)?;
                    let mut keys = Vec::new();
                    while let Some((key, _)) = cursor.next().map_err(store_error)? {
                        keys.push(key);
                        if keys.len() == BATCH {
                            break;
                        }
                    }
                    Ok(keys)
                })
                .await?;
            let found = batch.len();
            let purges = futures_util::stream::iter(batch).map(|key| {
                let core = Arc::clone(self);
                async move { core.purge_one(key).await }
            });
            purges.buffer_unordered(PURGES_IN_FLIGHT).try_for_each(|()| async { Ok(()) }).await?;
            purged += found;
            if found < BATCH {
                return Ok(purged);
            }
        }
    }

    /// Purges a version that is in the trash before its time is over: its key was destroyed.
    pub(crate) async fn purge_at_once(self: &Arc<Self>, version: VersionId) -> Result<(), MetadataError> {
        let row = self
            .scan(move |core, snapshot| {
                let range = core.rows.range(Tag::Trash, &[]);
                let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
                while let Some((key, _)) = cursor.next().map_err(store_error)? {
                    if last_id(&key) == Some(*version.as_bytes()) {
                        return Ok(Some(key));
                    }
                }
                Ok(None)
            })
            .await?;
        match row {
            Some(key) => self.purge_one(key).await,
            None => Ok(()),
        }
    }

    /// Purges one row of the trash: in several commits if it has very many parts.
    async fn purge_one(self: &Arc<Self>, key: Key) -> Result<(), MetadataError> {
        let mut conflicts = 0;
        while conflicts < ATTEMPTS_MAX {
            let commit = CommitId::random();
            let row_key = key.clone();
            let step = self.scan(move |core, snapshot| core.plan_purge(snapshot, row_key, commit)).await?;
            let (attempt, rest) = match step {
                Step::Gone => return Ok(()),
                Step::Last(attempt) => (attempt, false),
                Step::More(attempt) => (attempt, true),
            };
            match attempt::commit(self.store.as_ref(), commit, attempt).await? {
                true if !rest => return Ok(()),
                true => conflicts = 0,
                false => conflicts += 1,
            }
        }
        // Whoever keeps changing these rows is at work on them; the next pass looks again.
        Ok(())
    }

    fn plan_purge(&self, snapshot: &dyn Snapshot, key: Key, commit: CommitId) -> Result<Step, MetadataError> {
        let Some(row) = snapshot.get(&key).map_err(store_error)? else { return Ok(Step::Gone) };
        let mut attempt = Attempt::default();
        attempt.expect(key.clone(), Some(&row));
        match records::decode("trash", &row.value)? {
            TrashRecord::Upload(trashed) => self.plan_sweep(snapshot, attempt, key, trashed.project, commit),
            TrashRecord::Version(version) => self.plan_version_purge(snapshot, attempt, key, *version, commit),
        }
    }

    fn plan_version_purge(
        &self,
        snapshot: &dyn Snapshot,
        mut attempt: Attempt,
        key: Key,
        mut trashed: TrashedVersion,
        commit: CommitId,
    ) -> Result<Step, MetadataError> {
        let owner = trashed.version.id;
        if self.is_kept_in_trash(snapshot, &mut attempt, &trashed)? {
            // Its time begins anew, at the row's own place in the order of purges, so that no pass looks at it over and over.
            let pause = self.config.trash_secs.clamp(1, KEPT_PAUSE_SECS_MAX);
            let later = self.rows.trash(self.now().plus_secs(pause), owner);
            // A clock that went back may find the row at its place: then there is nothing to write.
            if later != key {
                attempt.remove(key);
                attempt.put(later, records::encode(&TrashRecord::Version(Box::new(trashed))));
            }
            return Ok(Step::Last(attempt));
        }
        match &mut trashed.version.body {
            Body::Empty => {}
            Body::Blob(blob) => self.release_blob(&mut attempt, snapshot, blob.blob, owner)?,
            Body::Parts(index) => {
                let pages_per_commit = PARTS_PER_COMMIT / valv_metadata_api::PARTS_PER_PAGE;
                for _ in 0..pages_per_commit {
                    if index.page_offsets.pop().is_none() {
                        break;
                    }
                    let page_key = self.rows.part_page(index.pages_of, index.page_offsets.len() as u32);
                    // The pages that an earlier, longer record named are gone already.
                    let Some(page) = snapshot.get(&page_key).map_err(store_error)? else { continue };
                    let page: PageRecord = records::decode("page", &page.value)?;
                    for (blob, _) in page_refs(&page) {
                        self.release_blob(&mut attempt, snapshot, blob, owner)?;
                    }
                    attempt.remove(page_key);
                }
                if !index.page_offsets.is_empty() {
                    trashed.purging = true;
                    attempt.put(key, records::encode(&TrashRecord::Version(Box::new(trashed))));
                    return Ok(Step::More(attempt));
                }
            }
        }
        attempt.remove(key);
        let given_back = Delta::less(trashed.version.len_bytes, 1);
        self.book_return(snapshot, &mut attempt, trashed.project, commit, given_back)?;
        let event = Event {
            kind: EventKind::VersionPurged,
            project: trashed.project,
            time: self.now(),
            bucket: Some(trashed.bucket),
            version: Some(owner),
            other_version: None,
            bytes: trashed.version.len_bytes,
            subject: &trashed.key,
        };
        self.record_event(&mut attempt, commit, None, event)?;
        Ok(Step::Last(attempt))
    }

    /// Whether a version in the trash is kept there: by a legal hold, or by compliance retention that is not over. The
    /// attempt expects the row that says so, or that says otherwise.
    fn is_kept_in_trash(
        &self,
        snapshot: &dyn Snapshot,
        attempt: &mut Attempt,
        trashed: &TrashedVersion,
    ) -> Result<bool, MetadataError> {
        let bucket_key = self.rows.bucket(trashed.bucket);
        let bucket_row = snapshot.get(&bucket_key).map_err(store_error)?;
        attempt.expect(bucket_key, bucket_row.as_ref());
        let version = &trashed.version;
        match bucket_row {
            Some(row) => {
                let bucket = records::decode("bucket", &row.value)?;
                // Governance may have been bypassed when it was removed, and is no reason to keep it now.
                Ok(Leaving::new(&bucket, &trashed.key, version).check(true, self.clock.now()).is_err())
            }
            None => {
                let guard_key = self.rows.project_guard(trashed.project);
                let guard_row = snapshot.get(&guard_key).map_err(store_error)?;
                attempt.expect(guard_key, guard_row.as_ref());
                retention::has_project_holds(guard_row.as_ref())
            }
        }
    }

    /// Releases the parts that an ended upload still has. No part commits any more: its row is gone.
    fn plan_sweep(
        &self,
        snapshot: &dyn Snapshot,
        mut attempt: Attempt,
        key: Key,
        project: ProjectId,
        commit: CommitId,
    ) -> Result<Step, MetadataError> {
        let Some(upload) = last_id(&key) else { return Err(corrupt("trash")) };
        let owner = VersionId::from_bytes(upload);
        let range = self.rows.range(Tag::Part, &[&upload]);
        let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
        let (mut swept, mut swept_bytes) = (0, 0u64);
        while let Some((part_key, row)) = cursor.next().map_err(store_error)? {
            if swept == PARTS_PER_COMMIT {
                // Two sweeps at once expect the same parts: one of them fails.
                self.book_return(snapshot, &mut attempt, project, commit, Delta::less(swept_bytes, 0))?;
                return Ok(Step::More(attempt));
            }
            swept += 1;
            let part: PartRow = records::decode("part", &row.value)?;
            self.release_blob(&mut attempt, snapshot, part.part.blob.blob, owner)?;
            swept_bytes = swept_bytes.saturating_add(part.part.blob.len_bytes);
            attempt.expect(part_key.clone(), Some(&row));
            attempt.remove(part_key);
        }
        self.book_return(snapshot, &mut attempt, project, commit, Delta::less(swept_bytes, 0))?;
        attempt.remove(key);
        Ok(Step::Last(attempt))
    }
}

/// One commit of a purge.
enum Step {
    /// Somebody else finished it.
    Gone,
    /// There is more after this one.
    More(Attempt),
    /// The last.
    Last(Attempt),
}
