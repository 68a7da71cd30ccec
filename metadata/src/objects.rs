//! Writing, reading, changing and deleting object versions.

use crate::attempt::{ATTEMPTS_MAX, Attempt, Plan, Settled, settle};
use crate::conditions::{self, Current};
use crate::ledger::Event;
use crate::lock::{self, Leaving};
use crate::quota::Delta;
use crate::records::{self, BucketRecord, EventKind, FLAG_LEGAL_HOLD, FLAG_LEGAL_HOLD_SAID, FLAG_NULL, VersionRecord};
use crate::service::{Core, bucket_of, corrupt, malformed};
use crate::versions::{Found, Head, KeyPlace, Placed, decode_head, shown};
use std::sync::Arc;
use valv_metadata_api::*;
use valv_types::{BucketId, CommitId, TimestampMicros, VersionId};

/// Reads that meet a version just purged are repeated this often; each repetition sees a newer state.
const READS_MAX: u32 = 4;
/// Largest sealed attributes: headers and user metadata are bounded by the gateway at some 8 KiB, an ACL at 100 grants.
const ATTRIBUTES_LEN_BYTES_MAX: usize = 256 * 1024;

/// The version that a write is to make, before it has its place.
pub(crate) struct NewVersion<'a> {
    pub(crate) id: VersionId,
    pub(crate) body: Body,
    pub(crate) len_bytes: u64,
    pub(crate) attributes: &'a Attributes,
    pub(crate) lock: LockRequest,
}

impl Core {
    pub(crate) async fn put_version(&self, request: PutObject) -> Result<Written, MetadataError> {
        let head = self.rows.head(request.bucket, &request.key);
        for number in 0..ATTEMPTS_MAX {
            let _turn = self.queue(number, &head).await;
            let plan = self.plan_put(&request).await;
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

    async fn plan_put(&self, request: &PutObject) -> Result<Plan<Written>, MetadataError> {
        let keys = [
            self.rows.bucket(request.bucket),
            self.rows.head(request.bucket, &request.key),
            self.rows.incarnation(request.proof.incarnation),
            self.rows.fence(request.proof.incarnation),
        ];
        let [bucket_row, head_row, incarnation, fence] = self.get_rows(&keys).await?;
        let [bucket_key, _, _, fence_key] = keys;
        let Some(bucket) = self.writable_bucket(request.bucket, bucket_row.as_ref()).await? else {
            return Ok(Plan::Wait);
        };
        let head = decode_head(head_row)?;
        let id = VersionId::from_bytes(*request.commit.as_bytes());
        if let Some(written) = self.is_repeated(request.bucket, &bucket, head.as_ref(), id)? {
            return Ok(Plan::Nothing(written));
        }
        if incarnation.is_none() || fence.is_some() {
            return Err(MetadataError::Fenced);
        }
        self.check_paid(bucket.limits())?;
        self.judge(&request.condition, request.bucket, &bucket, head.as_ref())?;

        let mut attempt = Attempt::default();
        attempt.expect(bucket_key, bucket_row.as_ref());
        attempt.expect_absent(fence_key);
        let (body, len_bytes) = self.add_body(&mut attempt, id, &bucket, &request.body, &request.proof).await?;
        let new = NewVersion { id, body, len_bytes, attributes: &request.attributes, lock: request.lock };
        self.plan_new_version(
            attempt,
            request.bucket,
            &request.key,
            &bucket,
            head,
            new,
            Making { kind: EventKind::VersionCreated, commit: request.commit, actor: &request.actor, source: None },
        )
        .await
    }

    /// Completes an attempt that makes a version: its record, its place, its ledger record.
    #[allow(clippy::too_many_arguments, reason = "the rows just read, each of its own type")]
    pub(crate) async fn plan_new_version(
        &self,
        mut attempt: Attempt,
        bucket_id: BucketId,
        key: &ObjectKey,
        bucket: &BucketRecord,
        head: Option<Head>,
        new: NewVersion<'_>,
        making: Making<'_>,
    ) -> Result<Plan<Written>, MetadataError> {
        let order = self.next_order(head.as_ref());
        // The later of both clocks: a lagging one shortens no default retention.
        let (rule, created) = (bucket.rule(), order.max(self.clock.now()));
        if making.kind != EventKind::UploadCompleted {
            // What an upload asks for was judged when it was opened, which may be long ago.
            lock::check_request(rule, new.lock, created)?;
        }
        let lock = lock::for_new_version(rule, bucket.object_lock, new.lock, created)?;
        if records::encode_attributes(new.attributes).len() > ATTRIBUTES_LEN_BYTES_MAX {
            return Err(malformed("a version's attributes are too long"));
        }
        let sealed = self.seal_attributes(bucket.project, bucket_id, new.id, new.attributes)?;
        let is_null = bucket.versioning != Versioning::Enabled;
        let version = VersionRecord {
            id: new.id,
            order,
            flags: if is_null { FLAG_NULL } else { 0 } | if lock.legal_hold { FLAG_LEGAL_HOLD } else { 0 },
            len_bytes: new.len_bytes,
            body: new.body,
            owner: new.attributes.owner.or(making.actor.user),
            retention: lock.retention,
            key_version: sealed.key_version,
            sealed: sealed.bytes,
        };
        let at = KeyPlace { state: bucket, bucket: bucket_id, key };
        let placed = self.place_version(&mut attempt, at, head, version, making.actor.user).await?;
        let Placed::Done { replaced } = placed else { return Ok(Plan::Wait) };
        // The parts of an upload were booked when they came in.
        let bytes = if making.kind == EventKind::UploadCompleted { 0 } else { new.len_bytes };
        self.book(&mut attempt, bucket.project, bucket.limits(), Delta::more(bytes, 1)).await?;
        let event = Event {
            kind: making.kind,
            project: bucket.project,
            time: order,
            bucket: Some(bucket_id),
            version: Some(new.id),
            other_version: making.source.or(replaced),
            bytes: new.len_bytes,
            subject: key.as_bytes(),
        };
        self.record_event(&mut attempt, making.commit, Some(making.actor), event)?;
        let written = Written {
            version: new.id,
            order,
            shown: shown(bucket.versioning, is_null, new.id),
            etag: new.attributes.etag.clone(),
            checksums: new.attributes.checksums.clone(),
        };
        Ok(Plan::Commit(attempt, written))
    }

    /// max(now, newest + 1): versions of a key are strictly ordered whatever the clocks of machines do.
    pub(crate) fn next_order(&self, head: Option<&Head>) -> TimestampMicros {
        let after = head.map_or(0, |head| head.record.version.order.0.saturating_add(1));
        TimestampMicros(self.now().0.max(after))
    }

    /// Judges a write's condition against the key's current version.
    pub(crate) fn judge(
        &self,
        condition: &WriteCondition,
        bucket_id: BucketId,
        bucket: &BucketRecord,
        head: Option<&Head>,
    ) -> Result<(), MetadataError> {
        self.judge_version(condition, bucket_id, bucket, head.map(|head| &head.record.version))
    }

    fn judge_version(
        &self,
        condition: &WriteCondition,
        bucket_id: BucketId,
        bucket: &BucketRecord,
        version: Option<&VersionRecord>,
    ) -> Result<(), MetadataError> {
        let current = version.map(|version| Current {
            order: version.order,
            len_bytes: version.len_bytes,
            is_delete_marker: version.is_delete_marker(),
        });
        conditions::check(condition, current, || match version {
            Some(version) => Ok(self.open_attributes(bucket.project, bucket_id, version)?.etag),
            None => Err(malformed("a condition on a version that does not exist")),
        })
    }

    /// The answer of the first call, if the key's current version is the one that this commit made.
    pub(crate) fn is_repeated(
        &self,
        bucket_id: BucketId,
        bucket: &BucketRecord,
        head: Option<&Head>,
        id: VersionId,
    ) -> Result<Option<Written>, MetadataError> {
        match head {
            Some(head) if head.record.version.id == id => {
                self.written_view(bucket_id, bucket, &head.record.version).map(Some)
            }
            Some(_) | None => Ok(None),
        }
    }

    pub(crate) fn written_view(
        &self,
        bucket_id: BucketId,
        bucket: &BucketRecord,
        version: &VersionRecord,
    ) -> Result<Written, MetadataError> {
        let attributes = self.open_attributes(bucket.project, bucket_id, version)?;
        Ok(Written {
            version: version.id,
            order: version.order,
            shown: shown(bucket.versioning, version.is_null(), version.id),
            etag: attributes.etag,
            checksums: attributes.checksums,
        })
    }

    /// The answer to a write that happened before, though its version may be covered or gone by now.
    pub(crate) async fn written_before(
        &self,
        bucket: BucketId,
        key: &ObjectKey,
        commit: CommitId,
        attributes: &Attributes,
    ) -> Result<Written, MetadataError> {
        let id = VersionId::from_bytes(*commit.as_bytes());
        let snapshot = self.snapshot().await?;
        let record = bucket_of(snapshot.get(&self.rows.bucket(bucket)).map_err(crate::attempt::store_error)?.as_ref())?;
        match self.find_in(snapshot.as_ref(), bucket, key, VersionSelector::Id(id))? {
            Some(found) => self.written_view(bucket, &record, &found.version),
            None => Ok(Written {
                version: id,
                order: self.now(),
                shown: shown(record.versioning, record.versioning != Versioning::Enabled, id),
                etag: attributes.etag.clone(),
                checksums: attributes.checksums.clone(),
            }),
        }
    }

    pub(crate) async fn read_version(&self, request: GetObject) -> Result<FoundObject, MetadataError> {
        for _ in 0..READS_MAX {
            let keys = [self.rows.bucket(request.bucket), self.rows.head(request.bucket, &request.key)];
            let [bucket, head] = self.get_rows(&keys).await?;
            let bucket = bucket_of(bucket.as_ref())?;
            let head = decode_head(head)?;
            let (version, is_current) = match (head, request.version) {
                (None, VersionSelector::Current) => return Err(MetadataError::NoSuchKey),
                (None, _) => return Err(MetadataError::NoSuchVersion),
                (Some(head), VersionSelector::Current) => (head.record.version, true),
                (Some(_), selector) => {
                    let snapshot = self.snapshot().await?;
                    let found = self.find_in(snapshot.as_ref(), request.bucket, &request.key, selector)?;
                    let found = found.ok_or(MetadataError::NoSuchVersion)?;
                    let is_current = found.is_current();
                    (found.version, is_current)
                }
            };
            let inline = match &version.body {
                Body::Blob(blob) if request.with_inline && blob.place == BlobPlace::Inline => {
                    match self.get(&self.rows.inline(blob.blob)).await? {
                        Some(row) => Some(row.value.to_vec()),
                        // The version was removed and purged since its record was read.
                        None => continue,
                    }
                }
                Body::Empty | Body::Blob(_) | Body::Parts(_) => None,
            };
            self.check_not_shredded(&version.body)?;
            let shown = shown(bucket.versioning, version.is_null(), version.id);
            let version = self.version_view(bucket.project, request.bucket, &version)?;
            return Ok(FoundObject { version, shown, is_current, inline });
        }
        Err(corrupt("inline body"))
    }

    pub(crate) async fn delete_version(self: &Arc<Self>, request: DeleteObject) -> Result<Deleted, MetadataError> {
        let head = self.rows.head(request.bucket, &request.key);
        for number in 0..ATTEMPTS_MAX {
            let _turn = self.queue(number, &head).await;
            let plan = match request.version {
                VersionSelector::Current => self.plan_delete(&request).await,
                VersionSelector::Null | VersionSelector::Id(_) => self.plan_removal(&request).await,
            };
            match settle(self.store.as_ref(), request.commit, number, plan).await? {
                Settled::Done(deleted) => return Ok(deleted),
                Settled::Again => {}
                Settled::Before(_) => return self.deleted_before(&request).await,
            }
        }
        Err(MetadataError::Conflict)
    }

    /// The answer to a delete that happened before.
    async fn deleted_before(&self, request: &DeleteObject) -> Result<Deleted, MetadataError> {
        let versioning = self.bucket_record(request.bucket).await?.versioning;
        let id = VersionId::from_bytes(*request.commit.as_bytes());
        let (delete_marker, shown) = match (request.version, versioning) {
            (_, Versioning::Unversioned) => (false, ShownVersion::Hidden),
            (VersionSelector::Current, Versioning::Enabled) => (true, ShownVersion::Id(id)),
            (VersionSelector::Current, Versioning::Suspended) => (true, ShownVersion::Null),
            (VersionSelector::Null, _) => (false, ShownVersion::Null),
            (VersionSelector::Id(id), _) => (false, ShownVersion::Id(id)),
        };
        Ok(Deleted { delete_marker, shown, existed: true })
    }

    /// A delete without a version id: removes the only version of an unversioned bucket's key, or covers the key with a
    /// delete marker.
    async fn plan_delete(&self, request: &DeleteObject) -> Result<Plan<Deleted>, MetadataError> {
        let keys = [self.rows.bucket(request.bucket), self.rows.head(request.bucket, &request.key)];
        let [bucket_row, head_row] = self.get_rows(&keys).await?;
        let [bucket_key, _] = keys;
        let Some(bucket) = self.writable_bucket(request.bucket, bucket_row.as_ref()).await? else {
            return Ok(Plan::Wait);
        };
        let head = decode_head(head_row)?;
        let id = VersionId::from_bytes(*request.commit.as_bytes());
        let is_null = bucket.versioning != Versioning::Enabled;
        let made = Deleted { delete_marker: true, shown: shown(bucket.versioning, is_null, id), existed: true };
        if head.as_ref().is_some_and(|head| head.record.version.id == id) {
            return Ok(Plan::Nothing(made));
        }
        self.check_paid(bucket.limits())?;
        self.judge(&request.condition, request.bucket, &bucket, head.as_ref())?;
        let at = KeyPlace { state: &bucket, bucket: request.bucket, key: &request.key };
        let mut attempt = Attempt::default();
        attempt.expect(bucket_key, bucket_row.as_ref());

        if bucket.versioning == Versioning::Unversioned {
            let Some(head) = head else {
                return Ok(Plan::Nothing(Deleted {
                    delete_marker: false,
                    shown: ShownVersion::Hidden,
                    existed: false,
                }));
            };
            let version = head.record.version.clone();
            let found = Found { head, version: version.clone(), noncurrent: None };
            Leaving::new(&bucket, request.key.as_bytes(), &version)
                .check(request.bypass_governance, self.clock.now())?;
            let snapshot = self.snapshot().await?;
            self.take_version(&mut attempt, snapshot.as_ref(), at, found, request.actor.user)?;
            self.record_removal(&mut attempt, request, &bucket, &version)?;
            let answer = Deleted { delete_marker: false, shown: ShownVersion::Hidden, existed: true };
            return Ok(Plan::Commit(attempt, answer));
        }

        let order = self.next_order(head.as_ref());
        let existed = head.as_ref().is_some_and(|head| !head.record.version.is_delete_marker());
        let marker = self.delete_marker(id, order, if is_null { FLAG_NULL } else { 0 }, request.actor.user);
        let placed = self.place_version(&mut attempt, at, head, marker, request.actor.user).await?;
        let Placed::Done { replaced } = placed else { return Ok(Plan::Wait) };
        let event = Event {
            kind: EventKind::DeleteMarkerCreated,
            project: bucket.project,
            time: order,
            bucket: Some(request.bucket),
            version: Some(id),
            other_version: replaced,
            bytes: 0,
            subject: request.key.as_bytes(),
        };
        self.record_event(&mut attempt, request.commit, Some(&request.actor), event)?;
        Ok(Plan::Commit(attempt, Deleted { existed, ..made }))
    }

    /// A delete with a version id: removes that version for good.
    async fn plan_removal(&self, request: &DeleteObject) -> Result<Plan<Deleted>, MetadataError> {
        let snapshot = self.snapshot().await?;
        let bucket_row = snapshot.get(&self.rows.bucket(request.bucket)).map_err(crate::attempt::store_error)?;
        let bucket = bucket_of(bucket_row.as_ref())?;
        self.check_paid(bucket.limits())?;
        let found = self.find_in(snapshot.as_ref(), request.bucket, &request.key, request.version)?;
        let version = found.as_ref().map(|found| &found.version);
        self.judge_version(&request.condition, request.bucket, &bucket, version)?;
        let Some(found) = found else {
            let shown = match (bucket.versioning, request.version) {
                (Versioning::Unversioned, _) => ShownVersion::Hidden,
                (_, VersionSelector::Id(id)) => ShownVersion::Id(id),
                (_, VersionSelector::Null | VersionSelector::Current) => ShownVersion::Null,
            };
            return Ok(Plan::Nothing(Deleted { delete_marker: false, shown, existed: false }));
        };
        let version = found.version.clone();
        Leaving::new(&bucket, request.key.as_bytes(), &version).check(request.bypass_governance, self.clock.now())?;
        let at = KeyPlace { state: &bucket, bucket: request.bucket, key: &request.key };
        let mut attempt = Attempt::default();
        // Holds are in the bucket's row: one that is being set at this moment wins or loses as a whole.
        attempt.expect(self.rows.bucket(request.bucket), bucket_row.as_ref());
        self.take_version(&mut attempt, snapshot.as_ref(), at, found, request.actor.user)?;
        self.record_removal(&mut attempt, request, &bucket, &version)?;
        let answer = Deleted {
            delete_marker: version.is_delete_marker(),
            shown: shown(bucket.versioning, version.is_null(), version.id),
            existed: true,
        };
        Ok(Plan::Commit(attempt, answer))
    }

    fn record_removal(
        &self,
        attempt: &mut Attempt,
        request: &DeleteObject,
        bucket: &BucketRecord,
        version: &VersionRecord,
    ) -> Result<(), MetadataError> {
        let event = Event {
            kind: EventKind::VersionRemoved,
            project: bucket.project,
            time: self.now(),
            bucket: Some(request.bucket),
            version: Some(version.id),
            other_version: None,
            bytes: version.len_bytes,
            subject: request.key.as_bytes(),
        };
        self.record_event(attempt, request.commit, Some(&request.actor), event)
    }

    pub(crate) async fn change_version(&self, request: UpdateVersion) -> Result<FoundObject, MetadataError> {
        let head = self.rows.head(request.bucket, &request.key);
        for number in 0..ATTEMPTS_MAX {
            let _turn = self.queue(number, &head).await;
            let plan = self.plan_change(&request).await;
            match settle(self.store.as_ref(), request.commit, number, plan).await? {
                Settled::Done(found) => return Ok(found),
                Settled::Again => {}
                Settled::Before(_) => {
                    let UpdateVersion { bucket, key, version, .. } = request;
                    return self.read_version(GetObject { bucket, key, version, with_inline: false }).await;
                }
            }
        }
        Err(MetadataError::Conflict)
    }

    async fn plan_change(&self, request: &UpdateVersion) -> Result<Plan<FoundObject>, MetadataError> {
        let snapshot = self.snapshot().await?;
        let bucket_row = snapshot.get(&self.rows.bucket(request.bucket)).map_err(crate::attempt::store_error)?;
        let bucket = bucket_of(bucket_row.as_ref())?;
        let missing = match request.version {
            VersionSelector::Current => MetadataError::NoSuchKey,
            VersionSelector::Null | VersionSelector::Id(_) => MetadataError::NoSuchVersion,
        };
        let found = self.find_in(snapshot.as_ref(), request.bucket, &request.key, request.version)?;
        let Some(found) = found.filter(|found| !found.version.is_delete_marker()) else { return Err(missing) };
        let mut version = found.version.clone();
        match &request.change {
            VersionChange::Tags(_) | VersionChange::Acl(_) => {
                self.check_paid(bucket.limits())?;
                let mut attributes = self.open_attributes(bucket.project, request.bucket, &version)?;
                match &request.change {
                    VersionChange::Tags(tags) => attributes.tags.clone_from(tags),
                    VersionChange::Acl(acl) => attributes.acl.clone_from(acl),
                    VersionChange::Retention { .. } | VersionChange::LegalHold(_) => {}
                }
                let sealed = self.seal_attributes(bucket.project, request.bucket, version.id, &attributes)?;
                (version.key_version, version.sealed) = (sealed.key_version, sealed.bytes);
            }
            VersionChange::Retention { .. } | VersionChange::LegalHold(_) if bucket.object_lock.is_none() => {
                return Err(MetadataError::InvalidBucketState);
            }
            VersionChange::Retention { retention, bypass_governance } => {
                let now = self.clock.now();
                lock::check_retention_change(version.retention, *retention, *bypass_governance, now)?;
                version.retention = *retention;
            }
            VersionChange::LegalHold(is_on) => {
                version.flags = version.flags & !FLAG_LEGAL_HOLD | FLAG_LEGAL_HOLD_SAID;
                version.flags |= if *is_on { FLAG_LEGAL_HOLD } else { 0 };
            }
        }
        let at = KeyPlace { state: &bucket, bucket: request.bucket, key: &request.key };
        let mut attempt = Attempt::default();
        bucket.check_not_shredding()?;
        attempt.expect(self.rows.bucket(request.bucket), bucket_row.as_ref());
        let answer = FoundObject {
            version: self.version_view(bucket.project, request.bucket, &version)?,
            shown: shown(bucket.versioning, version.is_null(), version.id),
            is_current: found.is_current(),
            inline: None,
        };
        let event = Event {
            kind: EventKind::VersionChanged,
            project: bucket.project,
            time: self.now(),
            bucket: Some(request.bucket),
            version: Some(version.id),
            other_version: None,
            bytes: 0,
            subject: request.key.as_bytes(),
        };
        self.rewrite_version(&mut attempt, at, &found, version);
        self.record_event(&mut attempt, request.commit, Some(&request.actor), event)?;
        Ok(Plan::Commit(attempt, answer))
    }
}

/// Who makes a version, how, and under which commit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Making<'a> {
    pub(crate) kind: EventKind,
    pub(crate) commit: CommitId,
    pub(crate) actor: &'a Actor,
    pub(crate) source: Option<VersionId>,
}
