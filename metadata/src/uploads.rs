//! Multipart uploads, and the pages of multipart objects.
//!
//! The upload's row guards it: every part expects it, completion and abort remove it. Its parts' blobs are referenced
//! under the upload's id, which becomes the version's, so completing rewrites no reference. A part that commits while a
//! completion or an abort is between its scan and its commit would stay behind; so both leave a sweep in the trash, which
//! releases whatever parts the upload still has.

use crate::attempt::{ATTEMPTS_MAX, Attempt, Plan, Settled, settle, store_error};
use crate::ledger::Event;
use crate::lock;
use crate::objects::{Making, NewVersion};
use crate::quota::Delta;
use crate::records::{
    self, BucketRecord, EventKind, PagePart, PageRecord, PartRow, PartSecrets, TrashRecord, TrashedUpload, UploadRecord,
};
use crate::rows::Tag;
use crate::seal::Place;
use crate::service::{Core, bucket_of, corrupt, malformed};
use crate::store::{Snapshot, Versioned};
use crate::versions::decode_head;
use std::collections::BTreeMap;
use std::sync::Arc;
use valv_metadata_api::*;
use valv_types::{BlobId, BucketId, ProjectId, UploadId, VersionId};

/// S3's smallest part, except for the last.
const PART_LEN_BYTES_MIN: u64 = 5 * 1024 * 1024;
/// S3's largest part number, and most parts.
pub(crate) const PARTS_MAX: u16 = 10_000;

impl Core {
    pub(crate) async fn open_upload(&self, request: CreateUpload) -> Result<Upload, MetadataError> {
        let id = UploadId::from_bytes(*request.commit.as_bytes());
        for number in 0..ATTEMPTS_MAX {
            let plan = self.plan_upload(&request, id).await;
            match settle(self.store.as_ref(), request.commit, number, plan).await? {
                Settled::Done(upload) => return Ok(upload),
                Settled::Again => {}
                Settled::Before(refusal) => {
                    let named = GetUpload { bucket: request.bucket, key: request.key.clone(), upload: id };
                    return self.find_upload(named).await.map_err(|_| refusal);
                }
            }
        }
        Err(MetadataError::Conflict)
    }

    async fn plan_upload(&self, request: &CreateUpload, id: UploadId) -> Result<Plan<Upload>, MetadataError> {
        let keys = [self.rows.bucket(request.bucket), self.rows.upload(id)];
        let [bucket_row, upload_row] = self.get_rows(&keys).await?;
        let [bucket_key, upload_key] = keys;
        let Some(bucket) = self.writable_bucket(request.bucket, bucket_row.as_ref()).await? else {
            return Ok(Plan::Wait);
        };
        if let Some(row) = upload_row {
            return Ok(Plan::Nothing(self.upload_view(id, &bucket, &records::decode("upload", &row.value)?)?));
        }
        self.check_paid(bucket.limits())?;
        if bucket.object_lock.is_none() && (request.lock.retention.is_some() || request.lock.legal_hold) {
            return Err(MetadataError::InvalidBucketState);
        }
        lock::check_request(bucket.rule(), request.lock, self.now().max(self.clock.now()))?;
        let sealed = self.seals.seal(Place::Upload(bucket.project, request.bucket, id), &request.attributes)?;
        let record = UploadRecord {
            bucket: request.bucket,
            key: request.key.as_bytes().to_vec(),
            owner: request.actor.user,
            initiated: self.now(),
            lock: request.lock,
            checksum: request.checksum,
            key_version: sealed.key_version,
            sealed: sealed.bytes,
        };
        let mut attempt = Attempt::default();
        attempt.expect(bucket_key, bucket_row.as_ref());
        attempt.expect_absent(upload_key.clone());
        attempt.put(upload_key, records::encode(&record));
        attempt.put(
            self.rows.upload_index(request.bucket, &request.key, record.initiated, id),
            records::encode(&Empty {}),
        );
        let event = upload_event(EventKind::UploadCreated, &bucket, request.bucket, &request.key, id);
        self.record_event(
            &mut attempt,
            request.commit,
            Some(&request.actor),
            Event { time: record.initiated, ..event },
        )?;
        let view = self.upload_view(id, &bucket, &record)?;
        Ok(Plan::Commit(attempt, view))
    }

    pub(crate) fn upload_view(
        &self,
        id: UploadId,
        bucket: &BucketRecord,
        record: &UploadRecord,
    ) -> Result<Upload, MetadataError> {
        let place = Place::Upload(bucket.project, record.bucket, id);
        Ok(Upload {
            id,
            bucket: record.bucket,
            key: ObjectKey::new(record.key.clone()).ok_or_else(|| corrupt("upload"))?,
            owner: record.owner,
            initiated: record.initiated,
            attributes: self.seals.open(place, record.key_version, &record.sealed)?,
            lock: record.lock,
            checksum: record.checksum,
        })
    }

    pub(crate) async fn find_upload(&self, request: GetUpload) -> Result<Upload, MetadataError> {
        let keys = [self.rows.bucket(request.bucket), self.rows.upload(request.upload)];
        let [bucket, upload] = self.get_rows(&keys).await?;
        let bucket = bucket_of(bucket.as_ref())?;
        let record = upload_of(upload.as_ref(), request.bucket, &request.key)?;
        self.upload_view(request.upload, &bucket, &record)
    }

    pub(crate) async fn add_part(&self, request: PutPart) -> Result<PartRecord, MetadataError> {
        if !(1..=PARTS_MAX).contains(&request.number) {
            return Err(malformed("part numbers are 1 to 10,000"));
        }
        for number in 0..ATTEMPTS_MAX {
            let plan = self.plan_part(&request).await;
            match settle(self.store.as_ref(), request.commit, number, plan).await? {
                Settled::Done(part) => return Ok(part),
                Settled::Again => {}
                // The part was committed, and the upload has ended since.
                Settled::Before(_) => {
                    let bucket = self.bucket_record(request.bucket).await?;
                    return self.part_before(&bucket, &request);
                }
            }
        }
        Err(MetadataError::Conflict)
    }

    fn part_before(&self, bucket: &BucketRecord, request: &PutPart) -> Result<PartRecord, MetadataError> {
        let blob = match &request.body {
            NewBody::Inline(blob, _) | NewBody::Blob(blob) => blob.clone(),
            NewBody::Empty => no_blob(bucket),
        };
        Ok(PartRecord {
            number: request.number,
            offset: 0,
            blob,
            md5: request.md5,
            checksums: request.checksums.clone(),
            modified: self.now(),
        })
    }

    async fn plan_part(&self, request: &PutPart) -> Result<Plan<PartRecord>, MetadataError> {
        let owner = VersionId::from(request.upload);
        let keys = [
            self.rows.bucket(request.bucket),
            self.rows.upload(request.upload),
            self.rows.part(request.upload, request.number),
            self.rows.incarnation(request.proof.incarnation),
            self.rows.fence(request.proof.incarnation),
        ];
        let [bucket_row, upload, old, incarnation, fence] = self.get_rows(&keys).await?;
        let [bucket_key, upload_key, part_key, _, fence_key] = keys;
        let bucket = bucket_of(bucket_row.as_ref())?;
        upload_of(upload.as_ref(), request.bucket, &request.key)?;
        if incarnation.is_none() || fence.is_some() {
            return Err(MetadataError::Fenced);
        }
        self.check_paid(bucket.limits())?;
        let mut attempt = Attempt::default();
        // It says whether the part is booked against a quota.
        attempt.expect(bucket_key, bucket_row.as_ref());
        attempt.expect(upload_key, upload.as_ref());
        attempt.expect(part_key.clone(), old.as_ref());
        attempt.expect_absent(fence_key);

        let (body, len_bytes) = self.add_body(&mut attempt, owner, &bucket, &request.body, &request.proof).await?;
        let blob = match body {
            Body::Blob(blob) => blob,
            Body::Empty | Body::Parts(_) => no_blob(&bucket),
        };
        let mut delta = Delta::more(len_bytes, 0);
        if let Some(old) = &old {
            let row: PartRow = records::decode("part", &old.value)?;
            if row.part.blob.blob == blob.blob && blob.len_bytes > 0 {
                return self.part_view(bucket.project, request.upload, row).map(Plan::Nothing);
            }
            let snapshot = self.snapshot().await?;
            self.release_blob(&mut attempt, snapshot.as_ref(), row.part.blob.blob, owner)?;
            delta.bytes = delta.bytes.saturating_sub_unsigned(row.part.blob.len_bytes);
        }
        self.book(&mut attempt, bucket.project, bucket.limits(), delta).await?;
        let secrets = PartSecrets { md5: request.md5, checksums: request.checksums.clone() };
        let sealed = self.seals.seal(Place::Part(bucket.project, request.upload, request.number), &secrets)?;
        let row = PartRow {
            part: PagePart { number: request.number, offset: 0, blob, modified: self.now() },
            key_version: sealed.key_version,
            sealed: sealed.bytes,
        };
        attempt.put(part_key, records::encode(&row));
        let event = upload_event(EventKind::PartCommitted, &bucket, request.bucket, &request.key, request.upload);
        let event = Event { time: row.part.modified, bytes: len_bytes, ..event };
        self.record_event(&mut attempt, request.commit, Some(&request.actor), event)?;
        let part = row.part;
        let answer = PartRecord {
            number: part.number,
            offset: 0,
            blob: part.blob,
            md5: secrets.md5,
            checksums: secrets.checksums,
            modified: part.modified,
        };
        Ok(Plan::Commit(attempt, answer))
    }

    fn part_view(&self, project: ProjectId, upload: UploadId, row: PartRow) -> Result<PartRecord, MetadataError> {
        let place = Place::Part(project, upload, row.part.number);
        let secrets: PartSecrets = self.seals.open(place, row.key_version, &row.sealed)?;
        Ok(PartRecord {
            number: row.part.number,
            offset: row.part.offset,
            blob: row.part.blob,
            md5: secrets.md5,
            checksums: secrets.checksums,
            modified: row.part.modified,
        })
    }

    pub(crate) async fn page_of_parts(self: &Arc<Self>, request: ListParts) -> Result<PartList, MetadataError> {
        self.scan(move |core, snapshot| {
            let read = |key: &[u8]| snapshot.get(key).map_err(store_error);
            let bucket = bucket_of(read(&core.rows.bucket(request.bucket))?.as_ref())?;
            let row = read(&core.rows.upload(request.upload))?;
            let record = upload_of(row.as_ref(), request.bucket, &request.key)?;
            let upload = core.upload_view(request.upload, &bucket, &record)?;
            let range = core.rows.range(Tag::Part, &[request.upload.as_bytes()]);
            let limit = (request.limit as usize).min(usize::from(PARTS_MAX));
            let (mut parts, mut truncated) = (Vec::new(), false);
            if let Some(first) = request.after.checked_add(1) {
                let start = core.rows.part(request.upload, first);
                let mut cursor = snapshot.scan(&start, &range.end).map_err(store_error)?;
                while let Some((_, row)) = cursor.next().map_err(store_error)? {
                    if parts.len() >= limit {
                        truncated = true;
                        break;
                    }
                    let row: PartRow = records::decode("part", &row.value)?;
                    parts.push(core.part_view(bucket.project, request.upload, row)?);
                }
            }
            Ok(PartList { upload, parts, truncated })
        })
        .await
    }

    pub(crate) async fn finish_upload(self: &Arc<Self>, request: CompleteUpload) -> Result<Written, MetadataError> {
        if request.parts.is_empty() || request.parts.len() > usize::from(PARTS_MAX) {
            return Err(malformed("a completion names 1 to 10,000 parts"));
        }
        if request.parts.windows(2).any(|pair| pair[0].number >= pair[1].number) {
            return Err(MetadataError::InvalidPartOrder);
        }
        let request = Arc::new(request);
        let head = self.rows.head(request.bucket, &request.key);
        for number in 0..ATTEMPTS_MAX {
            let _turn = self.queue(number, &head).await;
            let plan = self.plan_completion(&request).await;
            match settle(self.store.as_ref(), request.commit, number, plan).await? {
                Settled::Done(written) => return Ok(written),
                Settled::Again => {}
                Settled::Before(refusal) => return self.completed_before(&request, refusal).await,
            }
        }
        Err(MetadataError::Conflict)
    }

    /// The version that the upload became, if it did.
    async fn completed_before(
        &self,
        request: &CompleteUpload,
        otherwise: MetadataError,
    ) -> Result<Written, MetadataError> {
        let snapshot = self.snapshot().await?;
        let bucket_row = snapshot.get(&self.rows.bucket(request.bucket)).map_err(store_error)?;
        let bucket = bucket_of(bucket_row.as_ref())?;
        let id = VersionSelector::Id(VersionId::from(request.upload));
        match self.find_in(snapshot.as_ref(), request.bucket, &request.key, id)? {
            Some(found) => self.written_view(request.bucket, &bucket, &found.version),
            None => Err(otherwise),
        }
    }

    async fn plan_completion(self: &Arc<Self>, request: &Arc<CompleteUpload>) -> Result<Plan<Written>, MetadataError> {
        let keys = [
            self.rows.bucket(request.bucket),
            self.rows.head(request.bucket, &request.key),
            self.rows.upload(request.upload),
        ];
        let [bucket_row, head_row, upload_row] = self.get_rows(&keys).await?;
        let [bucket_key, _, upload_key] = keys;
        let Some(bucket) = self.writable_bucket(request.bucket, bucket_row.as_ref()).await? else {
            return Ok(Plan::Wait);
        };
        let record = match upload_of(upload_row.as_ref(), request.bucket, &request.key) {
            Ok(record) => record,
            // A completion repeated after success, be it with another commit id, gives the same version, as in S3.
            Err(error) => return self.completed_before(request, error).await.map(Plan::Nothing),
        };
        self.check_paid(bucket.limits())?;
        let head = decode_head(head_row)?;
        self.judge(&request.condition, request.bucket, &bucket, head.as_ref())?;

        let (asked, project) = (Arc::clone(request), bucket.project);
        let pages = self.scan(move |core, snapshot| core.pages_of_upload(snapshot, project, &asked)).await?;
        let mut attempt = pages.attempt;
        attempt.expect(bucket_key, bucket_row.as_ref());
        attempt.expect(upload_key.clone(), upload_row.as_ref());
        attempt.remove(upload_key);
        attempt.remove(self.rows.upload_index(request.bucket, &request.key, record.initiated, request.upload));
        self.put_sweep(&mut attempt, bucket.project, request.bucket, request.upload);

        let place = Place::Upload(bucket.project, request.bucket, request.upload);
        let mut attributes: Attributes = self.seals.open(place, record.key_version, &record.sealed)?;
        attributes.etag.clone_from(&request.etag);
        attributes.checksums.clone_from(&request.checksums);
        let id = VersionId::from(request.upload);
        let index = PartsIndex { count: request.parts.len() as u32, pages_of: id, page_offsets: pages.page_offsets };
        let new = NewVersion {
            id,
            body: Body::Parts(index),
            len_bytes: pages.len_bytes,
            attributes: &attributes,
            lock: record.lock,
        };
        let making =
            Making { kind: EventKind::UploadCompleted, commit: request.commit, actor: &request.actor, source: None };
        self.plan_new_version(attempt, request.bucket, &request.key, &bucket, head, new, making).await
    }

    /// Checks the parts that a completion names and lays them out in pages.
    fn pages_of_upload(
        &self,
        snapshot: &dyn Snapshot,
        project: ProjectId,
        request: &CompleteUpload,
    ) -> Result<Pages, MetadataError> {
        let range = self.rows.range(Tag::Part, &[request.upload.as_bytes()]);
        let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
        let mut rows = BTreeMap::new();
        while let Some((key, row)) = cursor.next().map_err(store_error)? {
            let part: PartRow = records::decode("part", &row.value)?;
            rows.insert(part.part.number, (key, row, part));
        }
        let mut attempt = Attempt::default();
        let mut parts = Vec::with_capacity(request.parts.len());
        let mut len_bytes = 0u64;
        for (at, named) in request.parts.iter().enumerate() {
            let invalid = MetadataError::InvalidPart { number: named.number };
            let Some((key, row, part)) = rows.remove(&named.number) else { return Err(invalid) };
            let mut part = self.part_view(project, request.upload, part)?;
            if part.md5 != named.md5 {
                return Err(invalid);
            }
            if at + 1 < request.parts.len() && part.blob.len_bytes < PART_LEN_BYTES_MIN {
                return Err(MetadataError::PartTooSmall { number: named.number, len_bytes: part.blob.len_bytes });
            }
            attempt.expect(key.clone(), Some(&row));
            attempt.remove(key);
            part.offset = len_bytes;
            len_bytes = len_bytes.saturating_add(part.blob.len_bytes);
            parts.push(part);
        }
        let page_offsets = self.put_pages(&mut attempt, project, VersionId::from(request.upload), &parts)?;
        Ok(Pages { attempt, page_offsets, len_bytes })
    }

    /// Adds the page rows of a multipart object. Returns each page's first offset.
    pub(crate) fn put_pages(
        &self,
        attempt: &mut Attempt,
        project: ProjectId,
        version: VersionId,
        parts: &[PartRecord],
    ) -> Result<Vec<u64>, MetadataError> {
        let mut offsets = Vec::new();
        for (page, parts) in (0u32..).zip(parts.chunks(PARTS_PER_PAGE)) {
            let secrets: Vec<PartSecrets> =
                parts.iter().map(|part| PartSecrets { md5: part.md5, checksums: part.checksums.clone() }).collect();
            let sealed = self.seals.seal(Place::Page(project, version, page), &secrets)?;
            let parts: Vec<PagePart> = parts
                .iter()
                .map(|part| PagePart {
                    number: part.number,
                    offset: part.offset,
                    blob: part.blob.clone(),
                    modified: part.modified,
                })
                .collect();
            offsets.push(parts.first().map_or(0, |part| part.offset));
            let record = PageRecord { parts, key_version: sealed.key_version, sealed: sealed.bytes };
            attempt.put(self.rows.part_page(version, page), records::encode(&record));
        }
        Ok(offsets)
    }

    /// Opens a page.
    pub(crate) fn page_view(
        &self,
        project: ProjectId,
        version: VersionId,
        page: u32,
        record: PageRecord,
    ) -> Result<Vec<PartRecord>, MetadataError> {
        let place = Place::Page(project, version, page);
        let secrets: Vec<PartSecrets> = self.seals.open(place, record.key_version, &record.sealed)?;
        if secrets.len() != record.parts.len() {
            return Err(corrupt("page"));
        }
        let parts = record.parts.into_iter().zip(secrets).map(|(part, secrets)| PartRecord {
            number: part.number,
            offset: part.offset,
            blob: part.blob,
            md5: secrets.md5,
            checksums: secrets.checksums,
            modified: part.modified,
        });
        Ok(parts.collect())
    }

    pub(crate) async fn read_part_page(&self, request: GetPartPage) -> Result<PartPage, MetadataError> {
        let keys = [self.rows.bucket(request.bucket), self.rows.part_page(request.version, request.page)];
        let [bucket, page] = self.get_rows(&keys).await?;
        let bucket = bucket_of(bucket.as_ref())?;
        let record = records::decode("page", &page.ok_or(MetadataError::NoSuchVersion)?.value)?;
        let parts = self.page_view(bucket.project, request.version, request.page, record)?;
        if parts.iter().any(|part| self.seals.keys().is_blob_shredded(part.blob.blob)) {
            return Err(MetadataError::KeyDestroyed);
        }
        let blobs: Vec<BlobId> = parts
            .iter()
            .filter(|part| part.blob.place == BlobPlace::Inline && part.blob.len_bytes > 0)
            .map(|part| part.blob.blob)
            .collect();
        let inline_keys: Vec<_> = blobs.iter().map(|blob| self.rows.inline(*blob)).collect();
        let rows = self.store.get_many(&inline_keys).await.map_err(store_error)?;
        let mut inline = Vec::with_capacity(blobs.len());
        for (blob, row) in blobs.into_iter().zip(rows) {
            // Gone means that the version was purged since its page was read.
            let row = row.ok_or(MetadataError::NoSuchVersion)?;
            inline.push(InlineFrame { blob, sealed: row.value.to_vec() });
        }
        Ok(PartPage { parts, inline })
    }

    fn put_sweep(&self, attempt: &mut Attempt, project: ProjectId, bucket: BucketId, upload: UploadId) {
        let record = TrashRecord::Upload(TrashedUpload { project, bucket });
        attempt.put(self.rows.trash(self.now(), VersionId::from(upload)), records::encode(&record));
    }

    pub(crate) async fn drop_upload(&self, request: AbortUpload) -> Result<Empty, MetadataError> {
        for number in 0..ATTEMPTS_MAX {
            let plan = self.plan_abort(&request).await;
            match settle(self.store.as_ref(), request.commit, number, plan).await? {
                Settled::Done(answer) => return Ok(answer),
                Settled::Again => {}
                Settled::Before(_) => return Ok(Empty {}),
            }
        }
        Err(MetadataError::Conflict)
    }

    /// Removes an upload's rows, and leaves the sweep of its parts. The caller expects the upload's row.
    pub(crate) fn remove_upload(
        &self,
        attempt: &mut Attempt,
        bucket: &BucketRecord,
        record: &UploadRecord,
        key: &ObjectKey,
        id: UploadId,
    ) {
        attempt.remove(self.rows.upload(id));
        attempt.remove(self.rows.upload_index(record.bucket, key, record.initiated, id));
        self.put_sweep(attempt, bucket.project, record.bucket, id);
    }

    async fn plan_abort(&self, request: &AbortUpload) -> Result<Plan<Empty>, MetadataError> {
        let keys = [self.rows.bucket(request.bucket), self.rows.upload(request.upload)];
        let [bucket, upload] = self.get_rows(&keys).await?;
        let [_, upload_key] = keys;
        let bucket = bucket_of(bucket.as_ref())?;
        let record = upload_of(upload.as_ref(), request.bucket, &request.key)?;
        self.check_paid(bucket.limits())?;
        let mut attempt = Attempt::default();
        attempt.expect(upload_key, upload.as_ref());
        self.remove_upload(&mut attempt, &bucket, &record, &request.key, request.upload);
        let event = upload_event(EventKind::UploadAborted, &bucket, request.bucket, &request.key, request.upload);
        self.record_event(&mut attempt, request.commit, Some(&request.actor), Event { time: self.now(), ..event })?;
        Ok(Plan::Commit(attempt, Empty {}))
    }
}

/// A completed upload's pages, with the attempt that writes them and takes their parts.
struct Pages {
    attempt: Attempt,
    page_offsets: Vec<u64>,
    len_bytes: u64,
}

/// What stands for the blob of a part without bytes: length 0, an id of zeros (no incarnation has number 0), no row, no
/// reference and no key.
fn no_blob(bucket: &BucketRecord) -> BlobRecord {
    BlobRecord {
        blob: BlobId::from_bytes([0; 16]),
        len_bytes: 0,
        layout: bucket.layout,
        place: BlobPlace::Inline,
        wrapped_key: Vec::new(),
    }
}

/// An event of an upload; time and bytes are the caller's to fill in.
pub(crate) fn upload_event<'a>(
    kind: EventKind,
    bucket: &BucketRecord,
    id: BucketId,
    key: &'a ObjectKey,
    upload: UploadId,
) -> Event<'a> {
    Event {
        kind,
        project: bucket.project,
        time: valv_types::TimestampMicros(0),
        bucket: Some(id),
        version: Some(VersionId::from(upload)),
        other_version: None,
        bytes: 0,
        subject: key.as_bytes(),
    }
}

/// Decodes an upload's row, which must be of this bucket and key.
pub(crate) fn upload_of(
    row: Option<&Versioned>,
    bucket: BucketId,
    key: &ObjectKey,
) -> Result<UploadRecord, MetadataError> {
    let record: UploadRecord = records::decode("upload", &row.ok_or(MetadataError::NoSuchUpload)?.value)?;
    if record.bucket != bucket || record.key != key.as_bytes() {
        return Err(MetadataError::NoSuchUpload);
    }
    Ok(record)
}
