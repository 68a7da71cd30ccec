//! Buckets: creation, settings, documents, and deletion of empty ones.
//!
//! Every write into a bucket expects the revision of its state row. That alone does not guard emptiness: a write changes
//! no state row, so it would not make a concurrent deletion fail. Hence deletion has two steps. First the row says
//! `closing`, and from that commit on no write commits; then a scan finds the bucket empty, and the row goes; or it finds
//! something, and the bucket opens again. A crash in between leaves a closing bucket, which the next write opens again
//! when the closing is older than [`CLOSING_SECS_MAX`]. Open uploads are no content: they are aborted before the first step,
//! as S3 deletes buckets in which uploads were left behind.

use crate::attempt::{self, ATTEMPTS_MAX, Attempt, Plan, Settled, settle, store_error};
use crate::ledger::Event;
use crate::lock;
use crate::openings::records::NamedBucket;
use crate::records::{self, BucketRecord, DocumentRecord, EventKind, ProjectRecord};
use crate::retention;
use crate::rows::{Tag, last_id};
use crate::seal::Place;
use crate::service::{Core, bucket_of, corrupt, malformed};
use crate::store::{Snapshot, Versioned};
use std::sync::Arc;
use valv_metadata_api::*;
use valv_types::{BucketId, CommitId, PoolMap, ProjectId};

/// Most buckets of a project: AWS's quota. Listing buckets opens all of a project's, some microseconds each.
pub(crate) const BUCKETS_PER_PROJECT_MAX: usize = 10_000;
/// Most buckets in a page.
const BUCKET_PAGE_MAX: usize = 10_000;
/// A deletion's scan takes milliseconds; a closing older than this was left by a crash.
const CLOSING_SECS_MAX: u64 = 30;
/// Uploads aborted between two looks at those that are open when their bucket is deleted.
const UPLOADS_PAGE_LEN: u32 = 1_000;
/// Rows of versions and delete markers.
const CONTENT: [Tag; 2] = [Tag::Head, Tag::Noncurrent];
/// The same, and those of open uploads.
const CONTENT_AND_UPLOADS: [Tag; 3] = [Tag::Head, Tag::Noncurrent, Tag::UploadIndex];
/// Longest bucket document: S3's largest is a lifecycle configuration, below 1 MiB with its sealing.
const DOCUMENT_LEN_BYTES_MAX: usize = 512 * 1024;

impl Core {
    pub(crate) async fn make_bucket(self: &Arc<Self>, request: CreateBucket) -> Result<Bucket, MetadataError> {
        let owner = request.actor.user.ok_or_else(|| malformed("a bucket needs an owner"))?;
        // The commit's id is the bucket's: a repeated call finds the bucket that the first one made.
        let id = BucketId::from_bytes(*request.commit.as_bytes());
        for number in 0..ATTEMPTS_MAX {
            // A user's buckets meet on the user's row (see `users`), and so on the name's.
            let _turn = self.queue(number, owner.as_bytes()).await;
            let plan = self.plan_bucket(&request, owner, id).await;
            match settle(self.store.as_ref(), request.commit, number, plan).await? {
                Settled::Done(bucket) => return Ok(bucket),
                Settled::Again => {}
                Settled::Before(refusal) => {
                    let record = self.bucket_record(id).await.map_err(|_| refusal)?;
                    return self.bucket_view(id, &record);
                }
            }
        }
        Err(MetadataError::Conflict)
    }

    async fn plan_bucket(
        self: &Arc<Self>,
        request: &CreateBucket,
        owner: valv_types::UserId,
        id: BucketId,
    ) -> Result<Plan<Bucket>, MetadataError> {
        let project = request.actor.project;
        let name_key = self.bucket_name_row(request.namespace, &request.name)?;
        let keys = [name_key.clone(), self.rows.project(project), self.rows.project_guard(project)];
        let [name_row, project_row, guard_row] = self.get_rows(&keys).await?;
        let [_, _, guard_key] = keys;
        // A name that only openings give is free: nobody outside a project decides what its buckets are called.
        let taken = match name_row.as_ref().map(NamedBucket::read).transpose()? {
            Some(NamedBucket::Own(taken)) => Some(taken),
            Some(NamedBucket::Alias(_)) | None => None,
        };
        if let Some(taken) = taken {
            let yours = self.bucket_record(taken).await.is_ok_and(|bucket| bucket.project == project);
            return Err(if yours {
                MetadataError::BucketAlreadyOwnedByYou
            } else {
                MetadataError::BucketAlreadyExists
            });
        }
        let project_row = project_row.ok_or_else(|| malformed("no such project"))?;
        let project_record: ProjectRecord = records::decode("project", &project_row.value)?;
        self.check_paid(project_record.limits())?;
        let pool = project_record.pool;
        let pool_row = self.get(&self.rows.pool(pool)).await?.ok_or_else(|| corrupt("pool of a project"))?;
        let layout = records::decode::<PoolMap>("pool", &pool_row.value)?.layout;
        let count = self.scan(move |core, snapshot| Ok(core.bucket_ids(snapshot, project)?.len())).await?;
        if count >= BUCKETS_PER_PROJECT_MAX {
            return Err(MetadataError::QuotaExceeded);
        }

        let guard = retention::guard_of_new_bucket(guard_row.as_ref(), project_record.limits())?;
        // A project's retention needs all versions: without them nobody could overwrite or delete anything.
        let locked = request.object_lock || guard.as_ref().is_some_and(|guard| guard.rule.is_set());
        let sealed = self.seal_bucket_name(project, id, &request.name)?;
        let mut record = BucketRecord {
            project,
            namespace: request.namespace,
            owner,
            created: self.now(),
            layout,
            versioning: if locked { Versioning::Enabled } else { Versioning::Unversioned },
            object_lock: locked.then_some(ObjectLock { default: None }),
            documents: Vec::new(),
            key_version: sealed.key_version,
            sealed_name: sealed.bytes,
            closing: None,
            document_changes: 0,
            guard,
        };
        let mut attempt = Attempt::default();
        // A retention class, a hold or a limit of the project that is being set at this moment concerns this bucket, too.
        attempt.expect(guard_key, guard_row.as_ref());
        attempt.expect(self.rows.project(project), Some(&project_row));
        attempt.expect(name_key.clone(), name_row.as_ref());
        attempt.expect_absent(self.rows.bucket(id));
        self.plan_use_of_user(&mut attempt, owner).await?;
        attempt.put(name_key, records::encode(&id));
        attempt.put(self.rows.project_bucket(project, id), records::encode(&id));
        for document in &request.documents {
            if record.documents.contains(&document.kind) {
                return Err(malformed("a document kind stands twice"));
            }
            self.put_document(&mut attempt, project, id, document)?;
            record.documents.push(document.kind);
        }
        record.documents.sort_unstable();
        attempt.put(self.rows.bucket(id), records::encode(&record));
        let event = self.bucket_event(EventKind::BucketCreated, id, &record, &request.name);
        self.record_event(&mut attempt, request.commit, Some(&request.actor), event)?;
        let view = self.bucket_view(id, &record)?;
        Ok(Plan::Commit(attempt, view))
    }

    fn bucket_event<'a>(&self, kind: EventKind, id: BucketId, record: &BucketRecord, name: &'a str) -> Event<'a> {
        Event {
            kind,
            project: record.project,
            time: self.now(),
            bucket: Some(id),
            version: None,
            other_version: None,
            bytes: 0,
            subject: name.as_bytes(),
        }
    }

    fn put_document(
        &self,
        attempt: &mut Attempt,
        project: ProjectId,
        bucket: BucketId,
        document: &BucketDocument,
    ) -> Result<(), MetadataError> {
        if document.body.len() > DOCUMENT_LEN_BYTES_MAX {
            return Err(malformed("a bucket document is too long"));
        }
        let sealed = self.seals.seal_bytes(Place::Document(project, bucket, document.kind), &document.body)?;
        let record = DocumentRecord { key_version: sealed.key_version, sealed: sealed.bytes };
        attempt.put(self.rows.document(bucket, document.kind), records::encode(&record));
        Ok(())
    }

    /// Ids of all buckets of a project.
    pub(crate) fn bucket_ids(
        &self,
        snapshot: &dyn Snapshot,
        project: ProjectId,
    ) -> Result<Vec<BucketId>, MetadataError> {
        let range = self.rows.range(Tag::ProjectBucket, &[project.as_bytes()]);
        let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
        let mut ids = Vec::new();
        while let Some((key, _)) = cursor.next().map_err(store_error)? {
            ids.push(last_id(&key).map(BucketId::from_bytes).ok_or_else(|| corrupt("bucket index"))?);
        }
        Ok(ids)
    }

    pub(crate) async fn find_bucket(&self, request: GetBucket) -> Result<Bucket, MetadataError> {
        let row = self.get(&self.bucket_name_row(request.namespace, &request.name)?).await?;
        let id = match NamedBucket::read(&row.ok_or(MetadataError::NoSuchBucket)?)? {
            NamedBucket::Own(id) => id,
            NamedBucket::Alias(alias) => {
                return self.bucket_by_alias(&alias, request.namespace, request.name).await;
            }
        };
        let record = self.bucket_record(id).await?;
        self.bucket_view(id, &record)
    }

    pub(crate) async fn page_of_buckets(self: &Arc<Self>, request: ListBuckets) -> Result<Vec<Bucket>, MetadataError> {
        self.scan(move |core, snapshot| {
            let mut buckets = Vec::new();
            for id in core.bucket_ids(snapshot, request.project)? {
                let Some(row) = snapshot.get(&core.rows.bucket(id)).map_err(store_error)? else {
                    return Err(corrupt("bucket index"));
                };
                let bucket = core.bucket_view(id, &records::decode("bucket", &row.value)?)?;
                let wanted = request.after.as_ref().is_none_or(|after| bucket.name > *after);
                if wanted && bucket.name.starts_with(&request.prefix) {
                    buckets.push(bucket);
                }
            }
            if let Some(opened_to) = request.opened_to {
                let mut opened = core.opened_buckets(snapshot, request.project, opened_to)?;
                opened.retain(|bucket| {
                    let wanted = request.after.as_ref().is_none_or(|after| bucket.name > *after);
                    wanted && bucket.name.starts_with(&request.prefix) && bucket.project != request.project
                });
                buckets.append(&mut opened);
            }
            buckets.sort_by(|a, b| a.name.cmp(&b.name));
            buckets.truncate((request.limit as usize).min(BUCKET_PAGE_MAX));
            Ok(buckets)
        })
        .await
    }

    pub(crate) async fn read_document(&self, request: GetBucketDocument) -> Result<BucketDocument, MetadataError> {
        let keys = [self.rows.bucket(request.bucket), self.rows.document(request.bucket, request.kind)];
        let [bucket, document] = self.get_rows(&keys).await?;
        let bucket = bucket_of(bucket.as_ref())?;
        let document = document.ok_or(MetadataError::NoSuchDocument)?;
        let record: DocumentRecord = records::decode("bucket document", &document.value)?;
        let place = Place::Document(bucket.project, request.bucket, request.kind);
        let body = self.seals.open_bytes(place, record.key_version, &record.sealed)?;
        Ok(BucketDocument { kind: request.kind, body })
    }

    pub(crate) async fn change_bucket(&self, request: UpdateBucket) -> Result<Bucket, MetadataError> {
        let row = self.rows.bucket(request.bucket);
        for number in 0..ATTEMPTS_MAX {
            let _turn = self.queue(number, &row).await;
            let plan = self.plan_bucket_change(&request).await;
            match settle(self.store.as_ref(), request.commit, number, plan).await? {
                Settled::Done(bucket) => return Ok(bucket),
                Settled::Again => {}
                Settled::Before(refusal) => {
                    let record = self.bucket_record(request.bucket).await.map_err(|_| refusal)?;
                    return self.bucket_view(request.bucket, &record);
                }
            }
        }
        Err(MetadataError::Conflict)
    }

    async fn plan_bucket_change(&self, request: &UpdateBucket) -> Result<Plan<Bucket>, MetadataError> {
        let row = self.get(&self.rows.bucket(request.bucket)).await?;
        let mut record = bucket_of(row.as_ref())?;
        let mut attempt = Attempt::default();
        attempt.expect(self.rows.bucket(request.bucket), row.as_ref());
        match &request.change {
            BucketChange::Versioning(new) => {
                lock::check_versioning_change(record.versioning, *new, record.object_lock, record.rule())?;
                record.versioning = *new;
            }
            BucketChange::ObjectLock(new) => {
                if record.versioning != Versioning::Enabled {
                    return Err(MetadataError::InvalidBucketState);
                }
                lock::check_bucket_default(record.rule(), *new)?;
                record.object_lock = Some(*new);
            }
            BucketChange::SetDocument(document) => {
                self.put_document(&mut attempt, record.project, request.bucket, document)?;
                if !record.documents.contains(&document.kind) {
                    record.documents.push(document.kind);
                    record.documents.sort_unstable();
                }
                record.document_changes += 1;
            }
            BucketChange::RemoveDocument(kind) => {
                attempt.remove(self.rows.document(request.bucket, *kind));
                record.documents.retain(|kept| kept != kind);
                record.document_changes += 1;
            }
        }
        attempt.put(self.rows.bucket(request.bucket), records::encode(&record));
        let view = self.bucket_view(request.bucket, &record)?;
        let event = self.bucket_event(EventKind::BucketChanged, request.bucket, &record, &view.name);
        self.record_event(&mut attempt, request.commit, Some(&request.actor), event)?;
        Ok(Plan::Commit(attempt, view))
    }

    /// Decodes the bucket row of a write, and says whether the write has to wait for a deletion to decide.
    pub(crate) async fn writable_bucket(
        &self,
        id: BucketId,
        row: Option<&Versioned>,
    ) -> Result<Option<BucketRecord>, MetadataError> {
        let record = bucket_of(row)?;
        record.check_not_shredding()?;
        let Some(since) = record.closing else { return Ok(Some(record)) };
        if since.plus_secs(CLOSING_SECS_MAX) < self.now() {
            self.reopen_bucket(id, record, row).await?;
        }
        Ok(None)
    }

    async fn reopen_bucket(
        &self,
        id: BucketId,
        record: BucketRecord,
        row: Option<&Versioned>,
    ) -> Result<(), MetadataError> {
        let mut attempt = Attempt::default();
        attempt.expect(self.rows.bucket(id), row);
        attempt.put(self.rows.bucket(id), records::encode(&BucketRecord { closing: None, ..record }));
        // A conflict means that somebody else decided.
        attempt::commit(self.store.as_ref(), CommitId::random(), attempt).await.map(|_| ())
    }

    pub(crate) async fn remove_bucket(self: &Arc<Self>, request: DeleteBucket) -> Result<Empty, MetadataError> {
        let row = self.rows.bucket(request.bucket);
        for number in 0..ATTEMPTS_MAX {
            let _turn = self.queue(number, &row).await;
            let plan = self.plan_bucket_removal(&request).await;
            match settle(self.store.as_ref(), request.commit, number, plan).await? {
                Settled::Done(answer) => return Ok(answer),
                Settled::Again => {}
                Settled::Before(_) => return Ok(Empty {}),
            }
        }
        Err(MetadataError::Conflict)
    }

    async fn plan_bucket_removal(self: &Arc<Self>, request: &DeleteBucket) -> Result<Plan<Empty>, MetadataError> {
        let id = request.bucket;
        let key = self.rows.bucket(id);
        let row = self.get(&key).await?;
        let record = bucket_of(row.as_ref())?;
        self.check_paid(record.limits())?;
        if record.has_holds() {
            // With the bucket would go the way back of what its trash still has.
            return Err(MetadataError::Locked { reason: LockReason::ScopeHold });
        }
        // The usual refusal disturbs nobody, open uploads neither.
        if !self.bucket_has_none_of(id, &CONTENT).await? {
            return Err(MetadataError::BucketNotEmpty);
        }
        self.abort_uploads(request).await?;
        let closing = BucketRecord { closing: Some(self.now()), ..record.clone() };
        let mut attempt = Attempt::default();
        attempt.expect(key.clone(), row.as_ref());
        attempt.put(key.clone(), records::encode(&closing));
        if !attempt::commit(self.store.as_ref(), CommitId::random(), attempt).await? {
            return Ok(Plan::Wait);
        }
        let row = self.get(&key).await?;
        let now_closing = bucket_of(row.as_ref())?;
        if now_closing.closing != closing.closing {
            return Ok(Plan::Wait);
        }
        if now_closing.has_holds() {
            // Set since the look above.
            self.reopen_bucket(id, now_closing, row.as_ref()).await?;
            return Err(MetadataError::Locked { reason: LockReason::ScopeHold });
        }
        if !self.bucket_has_none_of(id, &CONTENT_AND_UPLOADS).await? {
            self.reopen_bucket(id, now_closing, row.as_ref()).await?;
            return Err(MetadataError::BucketNotEmpty);
        }
        let view = self.bucket_view(id, &record)?;
        let mut attempt = Attempt::default();
        attempt.expect(key.clone(), row.as_ref());
        attempt.remove(key);
        attempt.remove(self.bucket_name_row(record.namespace, &view.name)?);
        attempt.remove(self.rows.project_bucket(record.project, id));
        for kind in BucketDocumentKind::ALL.into_iter().filter(|kind| record.documents.contains(kind)) {
            attempt.remove(self.rows.document(id, kind));
        }
        let event = self.bucket_event(EventKind::BucketDeleted, id, &record, &view.name);
        self.record_event(&mut attempt, request.commit, Some(&request.actor), event)?;
        Ok(Plan::Commit(attempt, Empty {}))
    }

    /// Aborts the uploads that are open in the bucket. One that begins meanwhile is found by the scan after closing.
    async fn abort_uploads(self: &Arc<Self>, request: &DeleteBucket) -> Result<(), MetadataError> {
        let page = ListUploads {
            bucket: request.bucket,
            prefix: Vec::new(),
            delimiter: Vec::new(),
            after: Vec::new(),
            after_upload: None,
            limit: UPLOADS_PAGE_LEN,
        };
        loop {
            let uploads = self.page_of_uploads(page.clone()).await?.uploads;
            let is_last = uploads.len() < UPLOADS_PAGE_LEN as usize;
            for upload in uploads {
                let abort = AbortUpload {
                    actor: request.actor.clone(),
                    bucket: request.bucket,
                    key: upload.key,
                    upload: upload.id,
                    commit: CommitId::random(),
                };
                match self.drop_upload(abort).await {
                    // Somebody else ended it.
                    Ok(_) | Err(MetadataError::NoSuchUpload) => {}
                    Err(error) => return Err(error),
                }
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// Whether the bucket has no row of these kinds. A key with noncurrent versions has a head.
    async fn bucket_has_none_of(self: &Arc<Self>, id: BucketId, tags: &'static [Tag]) -> Result<bool, MetadataError> {
        self.scan(move |core, snapshot| {
            for &tag in tags {
                let range = core.rows.range(tag, &[id.as_bytes()]);
                let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
                if cursor.next().map_err(store_error)?.is_some() {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await
    }
}
