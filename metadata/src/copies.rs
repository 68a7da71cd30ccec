//! Copies within a project: a new version that shares the source's blobs.

use crate::attempt::{ATTEMPTS_MAX, Attempt, Plan, Settled, settle, store_error};
use crate::objects::{Making, NewVersion};
use crate::records::{self, BlobRefRecord, EventKind, PageRecord};
use crate::service::{Core, bucket_of, corrupt, malformed};
use crate::store::Snapshot;
use crate::versions::{Found, decode_head};
use std::sync::Arc;
use valv_metadata_api::*;
use valv_types::{ProjectId, VersionId};

impl Core {
    pub(crate) async fn copy_version(self: &Arc<Self>, request: CopyObject) -> Result<Written, MetadataError> {
        let request = Arc::new(request);
        let head = self.rows.head(request.bucket, &request.key);
        for number in 0..ATTEMPTS_MAX {
            let _turn = self.queue(number, &head).await;
            let plan = self.plan_copy(&request).await;
            match settle(self.store.as_ref(), request.commit, number, plan).await? {
                Settled::Done(written) => return Ok(written),
                Settled::Again => {}
                Settled::Before(_) => {
                    return self
                        .written_before(request.bucket, &request.key, request.commit, &request.attributes)
                        .await;
                }
            }
        }
        Err(MetadataError::Conflict)
    }

    async fn plan_copy(self: &Arc<Self>, request: &Arc<CopyObject>) -> Result<Plan<Written>, MetadataError> {
        let keys = [
            self.rows.bucket(request.source_bucket),
            self.rows.bucket(request.bucket),
            self.rows.head(request.bucket, &request.key),
        ];
        let [source_bucket, bucket_row, head_row] = self.get_rows(&keys).await?;
        let [_, bucket_key, _] = keys;
        let source_bucket = bucket_of(source_bucket.as_ref())?;
        let Some(bucket) = self.writable_bucket(request.bucket, bucket_row.as_ref()).await? else {
            return Ok(Plan::Wait);
        };
        if source_bucket.project != bucket.project {
            return Err(malformed("blobs are shared within one project only"));
        }
        let head = decode_head(head_row)?;
        let id = VersionId::from_bytes(*request.commit.as_bytes());
        if let Some(written) = self.is_repeated(request.bucket, &bucket, head.as_ref(), id)? {
            return Ok(Plan::Nothing(written));
        }
        self.check_paid(bucket.limits())?;
        self.judge(&request.condition, request.bucket, &bucket, head.as_ref())?;

        let (asked, project) = (Arc::clone(request), bucket.project);
        let source = self.scan(move |core, snapshot| core.share_source(snapshot, project, &asked, id)).await?;
        let Shared { mut attempt, found, body } = source;
        let source_is_destination = request.source_bucket == request.bucket && request.source_key == request.key;
        match &found.noncurrent {
            Some(row) => {
                let place = crate::rows::NoncurrentPlace { order: found.version.order, id: found.version.id };
                let key = self.rows.noncurrent(request.source_bucket, &request.source_key, place);
                attempt.expect(key, Some(row));
            }
            None if source_is_destination => match &head {
                // The destination's head is expected anyway; it has to be the one that the source was found in.
                Some(head) if head.row.revision == found.head.row.revision => {}
                Some(_) | None => return Ok(Plan::Wait),
            },
            None => {
                let key = self.rows.head(request.source_bucket, &request.source_key);
                attempt.expect(key, Some(&found.head.row));
            }
        }
        attempt.expect(bucket_key, bucket_row.as_ref());
        let new = NewVersion {
            id,
            body,
            len_bytes: found.version.len_bytes,
            attributes: &request.attributes,
            lock: request.lock,
        };
        let making = Making {
            kind: EventKind::VersionCopied,
            commit: request.commit,
            actor: &request.actor,
            source: Some(request.source_version),
        };
        self.plan_new_version(attempt, request.bucket, &request.key, &bucket, head, new, making).await
    }

    /// Finds the source and adds references of the version `id` to all its blobs. The source's row, which the attempt
    /// will expect, guards them: as long as it is live, so are its references.
    fn share_source(
        &self,
        snapshot: &dyn Snapshot,
        project: ProjectId,
        request: &CopyObject,
        id: VersionId,
    ) -> Result<Shared, MetadataError> {
        let selector = VersionSelector::Id(request.source_version);
        let found = self.find_in(snapshot, request.source_bucket, &request.source_key, selector)?;
        let found = found.filter(|found| !found.version.is_delete_marker()).ok_or(MetadataError::NoSuchVersion)?;
        self.check_not_shredded(&found.version.body)?;
        let mut attempt = Attempt::default();
        let body = match &found.version.body {
            Body::Empty => Body::Empty,
            Body::Blob(blob) => {
                attempt.put(self.rows.blob_ref(blob.blob, id), records::encode(&BlobRefRecord::from(blob)));
                Body::Blob(blob.clone())
            }
            Body::Parts(index) => {
                let mut parts = Vec::with_capacity(index.count as usize);
                for page in 0..index.page_offsets.len() as u32 {
                    let row = snapshot.get(&self.rows.part_page(index.pages_of, page)).map_err(store_error)?;
                    let record: PageRecord = records::decode("page", &row.ok_or_else(|| corrupt("page"))?.value)?;
                    parts.extend(self.page_view(project, index.pages_of, page, record)?);
                }
                for part in parts.iter().filter(|part| part.blob.len_bytes > 0) {
                    let blob = &part.blob;
                    if self.seals.keys().is_blob_shredded(blob.blob) {
                        return Err(MetadataError::KeyDestroyed);
                    }
                    attempt.put(self.rows.blob_ref(blob.blob, id), records::encode(&BlobRefRecord::from(blob)));
                }
                let page_offsets = self.put_pages(&mut attempt, project, id, &parts)?;
                Body::Parts(PartsIndex { count: index.count, pages_of: id, page_offsets })
            }
        };
        Ok(Shared { attempt, found, body })
    }
}

struct Shared {
    attempt: Attempt,
    found: Found,
    body: Body,
}
