//! Blobs: references, the census, orphans, the repair queue, and blobs whose shards are to be deleted.
//!
//! A blob is referenced by rows (blob, owner), where the owner is a version, or an open upload under the id that its
//! version will have. A live version, and one in the trash, has all its references. New references come only from new
//! blobs, and from copies that expect a live version's row: so a blob whose last reference goes can't gain one unseen.

use crate::attempt::{ATTEMPTS_MAX, Attempt, Plan, Settled, settle, store_error};
use crate::records::{
    self, BlobRefRecord, BucketRecord, DoomedRecord, IncarnationRecord, QueuedSince, RepairRecord, check_blob,
};
use crate::rows::{Tag, blob_ref_parts, last_id};
use crate::service::{Core, corrupt, malformed};
use crate::store::Snapshot;
use std::sync::Arc;
use valv_metadata_api::*;
use valv_types::{
    BlobId, CommitId, DiskId, Epoch, FRAME_TAG_BYTES, INLINE_LEN_BYTES_MAX, PoolMap, TimestampMicros, VersionId,
};

/// Most rows that one call brings: a page of some hundred KiB.
const PAGE_MAX: usize = 10_000;

impl Core {
    /// Adds a new body's rows to an attempt: its reference, its inline frame or its repairs. Checks that the blob is of
    /// the incarnation that vouches for it, and of the bucket's pool.
    pub(crate) async fn add_body(
        &self,
        attempt: &mut Attempt,
        owner: VersionId,
        bucket: &BucketRecord,
        body: &NewBody,
        proof: &WriteProof,
    ) -> Result<(Body, u64), MetadataError> {
        let blob = match body {
            NewBody::Empty => return Ok((Body::Empty, 0)),
            NewBody::Inline(blob, _) | NewBody::Blob(blob) => blob,
        };
        check_blob(blob)?;
        if blob.blob.incarnation() != proof.incarnation {
            return Err(malformed("the blob is of another incarnation than the one that vouches for it"));
        }
        if blob.layout.pool != bucket.layout.pool {
            return Err(malformed("the blob is of another pool than the bucket"));
        }
        match body {
            NewBody::Inline(_, frame) => {
                let expected_len = blob.len_bytes + u64::from(FRAME_TAG_BYTES);
                let fits = blob.len_bytes <= u64::from(INLINE_LEN_BYTES_MAX) && frame.len() as u64 == expected_len;
                if blob.place != BlobPlace::Inline || !fits {
                    return Err(malformed("an inline body must be one frame of at most 16 KiB"));
                }
                attempt.put(self.rows.inline(blob.blob), bytes::Bytes::copy_from_slice(frame));
            }
            NewBody::Blob(_) | NewBody::Empty => {
                if blob.place != BlobPlace::Shards || blob.len_bytes == 0 {
                    return Err(malformed("a blob in shards must have bytes"));
                }
                self.add_suspicions(attempt, blob, proof).await?;
            }
        }
        attempt.put(self.rows.blob_ref(blob.blob, owner), records::encode(&BlobRefRecord::from(blob)));
        Ok((Body::Blob(self.freshen(bucket.project, blob)?), blob.len_bytes))
    }

    /// Queues a new blob for repair if slots were down when it was written, or if a placement group has changed since.
    async fn add_suspicions(
        &self,
        attempt: &mut Attempt,
        blob: &BlobRecord,
        proof: &WriteProof,
    ) -> Result<(), MetadataError> {
        let pool_key = self.rows.pool(blob.layout.pool);
        let pool_row = self.get(&pool_key).await?.ok_or_else(|| malformed("no such pool"))?;
        let pool: PoolMap = records::decode("pool", &pool_row.value)?;
        // A change of the pool's groups between this read and the commit makes the attempt fail.
        attempt.expect(pool_key, Some(&pool_row));
        let newest = pool.groups.iter().map(|group| group.epoch).max().unwrap_or(Epoch(0));
        let mut missing: Vec<DiskId> =
            proof.missing.iter().filter(|slot| slot.blob == blob.blob).map(|slot| slot.disk).collect();
        missing.sort_unstable();
        missing.dedup();
        if !missing.is_empty() || proof.epoch < newest {
            self.put_repair(attempt, blob.blob, self.now(), &BlobRefRecord::from(blob), missing);
        }
        Ok(())
    }

    fn put_repair(
        &self,
        attempt: &mut Attempt,
        blob: BlobId,
        since: TimestampMicros,
        reference: &BlobRefRecord,
        missing: Vec<DiskId>,
    ) {
        let record = RepairRecord { len_bytes: reference.len_bytes, layout: reference.layout, missing };
        attempt.put(self.rows.repair(since, blob), records::encode(&record));
        attempt.put(self.rows.repair_index(blob), records::encode(&QueuedSince { since }));
    }

    /// The first reference to a blob by anyone but `owner`, with its key.
    fn other_reference(
        &self,
        snapshot: &dyn Snapshot,
        blob: BlobId,
        owner: VersionId,
    ) -> Result<Option<(crate::store::Key, crate::store::Versioned)>, MetadataError> {
        let range = self.rows.range(Tag::BlobRef, &[blob.as_bytes()]);
        let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
        while let Some((key, row)) = cursor.next().map_err(store_error)? {
            let (_, other) = blob_ref_parts(&key).ok_or_else(|| corrupt("blob reference"))?;
            if other != owner {
                return Ok(Some((key, row)));
            }
        }
        Ok(None)
    }

    /// Removes `owner`'s reference to a blob. If it is the last, the same commit queues the blob's shards for deletion,
    /// or removes its inline row, and takes it off the repair queue.
    pub(crate) fn release_blob(
        &self,
        attempt: &mut Attempt,
        snapshot: &dyn Snapshot,
        blob: BlobId,
        owner: VersionId,
    ) -> Result<(), MetadataError> {
        let own_key = self.rows.blob_ref(blob, owner);
        let Some(own) = snapshot.get(&own_key).map_err(store_error)? else { return Ok(()) };
        attempt.expect(own_key.clone(), Some(&own));
        attempt.remove(own_key);
        if let Some((other_key, other)) = self.other_reference(snapshot, blob, owner)? {
            // Two owners that let go at once would each see the other: one of them has to try again.
            attempt.expect(other_key, Some(&other));
            return Ok(());
        }
        let reference: BlobRefRecord = records::decode("blob reference", &own.value)?;
        if reference.place == BlobPlace::Inline {
            attempt.remove(self.rows.inline(blob));
            return Ok(());
        }
        let index_key = self.rows.repair_index(blob);
        let index = snapshot.get(&index_key).map_err(store_error)?;
        attempt.expect(index_key.clone(), index.as_ref());
        if let Some(index) = index {
            let QueuedSince { since } = records::decode("repair index", &index.value)?;
            attempt.remove(index_key);
            attempt.remove(self.rows.repair(since, blob));
        }
        let since = self.now();
        let record = DoomedRecord { len_bytes: reference.len_bytes, layout: reference.layout, answered: Vec::new() };
        attempt.put(self.rows.doomed(since, blob), records::encode(&record));
        attempt.put(self.rows.doomed_index(blob), records::encode(&QueuedSince { since }));
        Ok(())
    }

    pub(crate) async fn census_page(self: &Arc<Self>, request: ListBlobs) -> Result<Vec<LiveBlob>, MetadataError> {
        self.scan(move |core, snapshot| {
            let range = core.rows.range(Tag::BlobRef, &[]);
            let start = match request.after {
                Some(after) => core.rows.range(Tag::BlobRef, &[after.as_bytes()]).end,
                None => range.start,
            };
            let limit = (request.limit as usize).min(PAGE_MAX);
            let mut live = Vec::new();
            if start >= range.end {
                return Ok(live);
            }
            let mut cursor = snapshot.scan(&start, &range.end).map_err(store_error)?;
            let mut last = None;
            while live.len() < limit {
                let Some((key, row)) = cursor.next().map_err(store_error)? else { break };
                let (blob, _) = blob_ref_parts(&key).ok_or_else(|| corrupt("blob reference"))?;
                if last == Some(blob) {
                    // A blob that many versions share is listed once.
                    cursor.seek(&core.rows.range(Tag::BlobRef, &[blob.as_bytes()]).end).map_err(store_error)?;
                    continue;
                }
                last = Some(blob);
                let reference: BlobRefRecord = records::decode("blob reference", &row.value)?;
                if reference.place == BlobPlace::Shards {
                    live.push(LiveBlob { blob, len_bytes: reference.len_bytes, layout: reference.layout });
                }
            }
            Ok(live)
        })
        .await
    }

    /// An orphan is a blob unreferenced in a snapshot in which its incarnation is fenced or has published a higher
    /// low-water mark: from then on no commit can reference it any more. Nothing else is ever one.
    pub(crate) async fn judge_orphans(self: &Arc<Self>, request: BlobIds) -> Result<BlobIds, MetadataError> {
        if request.blobs.len() > PAGE_MAX {
            return Err(malformed("too many blobs in one question"));
        }
        self.scan(move |core, snapshot| {
            let read = |key: &[u8]| snapshot.get(key).map_err(store_error);
            let mut orphans = Vec::new();
            for blob in request.blobs {
                let incarnation = blob.incarnation();
                let given_up = match read(&core.rows.incarnation(incarnation))? {
                    // A number that was never given proves nothing.
                    None => false,
                    Some(row) => {
                        let record: IncarnationRecord = records::decode("incarnation", &row.value)?;
                        blob.sequence() < record.low_water || read(&core.rows.fence(incarnation))?.is_some()
                    }
                };
                if !given_up {
                    continue;
                }
                let range = core.rows.range(Tag::BlobRef, &[blob.as_bytes()]);
                let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
                if cursor.next().map_err(store_error)?.is_none() {
                    orphans.push(blob);
                }
            }
            Ok(BlobIds { blobs: orphans })
        })
        .await
    }

    pub(crate) async fn add_repairs(self: &Arc<Self>, request: BlobIds) -> Result<Empty, MetadataError> {
        if request.blobs.len() > PAGE_MAX {
            return Err(malformed("too many blobs in one request"));
        }
        let commit = CommitId::random();
        for number in 0..ATTEMPTS_MAX {
            let blobs = request.blobs.clone();
            let plan = self.scan(move |core, snapshot| core.plan_repairs(snapshot, blobs)).await;
            if let Settled::Done(answer) = settle(self.store.as_ref(), commit, number, plan).await? {
                return Ok(answer);
            }
        }
        Err(MetadataError::Conflict)
    }

    fn plan_repairs(&self, snapshot: &dyn Snapshot, mut blobs: Vec<BlobId>) -> Result<Plan<Empty>, MetadataError> {
        blobs.sort_unstable();
        blobs.dedup();
        let mut attempt = Attempt::default();
        let mut any = false;
        for blob in blobs {
            let index_key = self.rows.repair_index(blob);
            if snapshot.get(&index_key).map_err(store_error)?.is_some() {
                continue;
            }
            let range = self.rows.range(Tag::BlobRef, &[blob.as_bytes()]);
            let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
            // Unreferenced blobs are not repaired.
            let Some((key, row)) = cursor.next().map_err(store_error)? else { continue };
            let reference: BlobRefRecord = records::decode("blob reference", &row.value)?;
            if reference.place != BlobPlace::Shards {
                continue;
            }
            attempt.expect(key, Some(&row));
            attempt.expect_absent(index_key);
            self.put_repair(&mut attempt, blob, self.now(), &reference, Vec::new());
            any = true;
        }
        Ok(if any { Plan::Commit(attempt, Empty {}) } else { Plan::Nothing(Empty {}) })
    }

    pub(crate) async fn waiting_repairs(self: &Arc<Self>, request: Limit) -> Result<Vec<LiveBlob>, MetadataError> {
        self.scan(move |core, snapshot| {
            let range = core.rows.range(Tag::Repair, &[]);
            let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
            let mut waiting = Vec::new();
            while waiting.len() < (request.limit as usize).min(PAGE_MAX) {
                let Some((key, row)) = cursor.next().map_err(store_error)? else { break };
                let blob = last_id(&key).map(BlobId::from_bytes).ok_or_else(|| corrupt("repair row"))?;
                let record: RepairRecord = records::decode("repair row", &row.value)?;
                waiting.push(LiveBlob { blob, len_bytes: record.len_bytes, layout: record.layout });
            }
            Ok(waiting)
        })
        .await
    }

    pub(crate) async fn end_repairs(self: &Arc<Self>, request: BlobIds) -> Result<Empty, MetadataError> {
        if request.blobs.len() > PAGE_MAX {
            return Err(malformed("too many blobs in one request"));
        }
        let commit = CommitId::random();
        for number in 0..ATTEMPTS_MAX {
            let mut blobs = request.blobs.clone();
            blobs.sort_unstable();
            blobs.dedup();
            let plan = self.scan(move |core, snapshot| {
                let mut attempt = Attempt::default();
                let mut any = false;
                for blob in blobs {
                    let index_key = core.rows.repair_index(blob);
                    let Some(index) = snapshot.get(&index_key).map_err(store_error)? else { continue };
                    let QueuedSince { since } = records::decode("repair index", &index.value)?;
                    attempt.expect(index_key.clone(), Some(&index));
                    attempt.remove(index_key);
                    attempt.remove(core.rows.repair(since, blob));
                    any = true;
                }
                Ok(if any { Plan::Commit(attempt, Empty {}) } else { Plan::Nothing(Empty {}) })
            });
            let plan = plan.await;
            if let Settled::Done(answer) = settle(self.store.as_ref(), commit, number, plan).await? {
                return Ok(answer);
            }
        }
        Err(MetadataError::Conflict)
    }

    pub(crate) async fn waiting_doomed(self: &Arc<Self>, request: Limit) -> Result<Vec<DoomedBlob>, MetadataError> {
        self.scan(move |core, snapshot| {
            let range = core.rows.range(Tag::Doomed, &[]);
            let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
            let mut waiting = Vec::new();
            while waiting.len() < (request.limit as usize).min(PAGE_MAX) {
                let Some((key, row)) = cursor.next().map_err(store_error)? else { break };
                let blob = last_id(&key).map(BlobId::from_bytes).ok_or_else(|| corrupt("doomed row"))?;
                let record: DoomedRecord = records::decode("doomed row", &row.value)?;
                waiting.push(DoomedBlob {
                    blob,
                    len_bytes: record.len_bytes,
                    layout: record.layout,
                    answered: record.answered,
                });
            }
            Ok(waiting)
        })
        .await
    }

    pub(crate) async fn note_doomed(&self, request: DoomedAnswer) -> Result<Empty, MetadataError> {
        let commit = CommitId::random();
        for number in 0..ATTEMPTS_MAX {
            let plan = self.plan_doomed(&request).await;
            if let Settled::Done(answer) = settle(self.store.as_ref(), commit, number, plan).await? {
                return Ok(answer);
            }
        }
        Err(MetadataError::Conflict)
    }

    async fn plan_doomed(&self, request: &DoomedAnswer) -> Result<Plan<Empty>, MetadataError> {
        let index_key = self.rows.doomed_index(request.blob);
        let Some(index) = self.get(&index_key).await? else { return Ok(Plan::Nothing(Empty {})) };
        let QueuedSince { since } = records::decode("doomed index", &index.value)?;
        let key = self.rows.doomed(since, request.blob);
        let Some(row) = self.get(&key).await? else { return Ok(Plan::Wait) };
        let mut attempt = Attempt::default();
        attempt.expect(key.clone(), Some(&row));
        if request.finished {
            attempt.remove(index_key);
            attempt.remove(key);
        } else {
            let mut record: DoomedRecord = records::decode("doomed row", &row.value)?;
            record.answered.extend_from_slice(&request.answered);
            record.answered.sort_unstable();
            record.answered.dedup();
            attempt.put(key, records::encode(&record));
        }
        Ok(Plan::Commit(attempt, Empty {}))
    }
}
