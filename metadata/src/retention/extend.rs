//! Extension: versions that there are get compliance retention until at least a date.
//!
//! One call works on a page of versions, in the order of listings, each in a commit of its own with its record; the call
//! that begins leaves a record of the act itself. A version never leaves its key, so none is passed over: one that another
//! covers moves behind the place at which the next page begins, or was there already.

use crate::attempt::{self, ATTEMPTS_MAX, Attempt, Plan, Settled, settle, store_error};
use crate::ledger::Event;
use crate::records::EventKind;
use crate::service::{Core, MetadataService, bucket_of};
use crate::versions::KeyPlace;
use futures_util::{StreamExt as _, TryStreamExt as _};
use std::sync::Arc;
use valv_metadata_api::{
    Actor, ExtendRetention, ExtendWhich, Extended, ListVersions, MetadataError, ObjectKey, PROJECT_RETENTION_DAYS_MAX,
    RETENTION_PAGE_MAX, Retention, RetentionMode, RetentionRefusal, VersionPlace, VersionSelector,
    check_retention_text,
};
use valv_types::{BucketId, CommitId, TimestampMicros, VersionId};

/// Versions extended at once: their commits share the store's syncs.
const EXTENSIONS_IN_FLIGHT: usize = 16;

impl MetadataService {
    /// Extends the retention of a page of versions. Nothing is ever shortened: a version that is kept longer stays as it
    /// is. May be repeated.
    pub async fn extend_retention(&self, request: ExtendRetention) -> Result<Extended, MetadataError> {
        self.0.extend_retention(request).await
    }
}

impl Core {
    async fn extend_retention(self: &Arc<Self>, request: ExtendRetention) -> Result<Extended, MetadataError> {
        check_retention_text(&request.reason)?;
        let now = self.clock.now();
        let longest = now.plus_secs(u64::from(PROJECT_RETENTION_DAYS_MAX) * 24 * 60 * 60);
        if request.until <= now || request.until > longest {
            return Err(RetentionRefusal::Date.into());
        }
        let bucket = self.bucket_record(request.bucket).await?;
        if bucket.project != request.actor.project {
            return Err(RetentionRefusal::OtherProject.into());
        }
        if request.after.is_none() {
            self.record_extension(&request).await?;
        }
        let (places, next) = match &request.which {
            ExtendWhich::Version(key, version) => {
                let place = VersionPlace { key: key.clone(), version: *version };
                // One that is named has to be there.
                let is_later = self.extend_one(&request.actor, request.bucket, place, request.until).await?;
                let is_later = is_later.ok_or(MetadataError::NoSuchVersion)?;
                return Ok(Extended { extended: is_later.into(), unchanged: (!is_later).into(), next: None });
            }
            ExtendWhich::Prefix(prefix) => {
                let (key, version) = match request.after.clone() {
                    Some(place) => (place.key.as_bytes().to_vec(), Some(VersionSelector::Id(place.version))),
                    None => (Vec::new(), None),
                };
                let page = ListVersions {
                    bucket: request.bucket,
                    prefix: prefix.clone(),
                    delimiter: Vec::new(),
                    after: key,
                    after_version: version,
                    limit: RETENTION_PAGE_MAX,
                };
                let page = self.page_of_versions(page).await?;
                let next = match (page.next_after, page.entries.last()) {
                    (Some(_), Some(last)) => Some(VersionPlace { key: last.key.clone(), version: last.id }),
                    _ => None,
                };
                let data = page.entries.into_iter().filter(|entry| !entry.is_delete_marker);
                let places: Vec<_> = data.map(|entry| VersionPlace { key: entry.key, version: entry.id }).collect();
                (places, next)
            }
        };
        let request = &request;
        let done = futures_util::stream::iter(places)
            .map(|place| async move { self.extend_one(&request.actor, request.bucket, place, request.until).await })
            .buffer_unordered(EXTENSIONS_IN_FLIGHT);
        let answer = Extended { extended: 0, unchanged: 0, next };
        done.try_fold(answer, |mut answer, is_later| async move {
            match is_later {
                Some(true) => answer.extended += 1,
                Some(false) => answer.unchanged += 1,
                // Removed since it was listed.
                None => {}
            }
            Ok(answer)
        })
        .await
    }

    /// The record of the act. Its effects follow, each with a record of its own.
    async fn record_extension(&self, request: &ExtendRetention) -> Result<(), MetadataError> {
        let (key, version) = match &request.which {
            ExtendWhich::Version(key, version) => (key.as_bytes(), Some(*version)),
            ExtendWhich::Prefix(prefix) => (prefix.as_slice(), None),
        };
        let detail = serde_json::json!({ "until_micros": request.until.0, "reason": request.reason });
        let event = Event {
            kind: EventKind::RetentionExtended,
            project: request.actor.project,
            time: self.now(),
            bucket: Some(request.bucket),
            version,
            other_version: None,
            bytes: 0,
            subject: key,
        };
        let (mut attempt, commit) = (Attempt::default(), CommitId::random());
        self.record_act(&mut attempt, commit, &request.actor, &detail, event)?;
        attempt::commit(self.store.as_ref(), commit, attempt).await.map(|_| ())
    }

    /// Whether the version's date is later now; `None` if it is not there.
    async fn extend_one(
        &self,
        actor: &Actor,
        bucket: BucketId,
        place: VersionPlace,
        until: TimestampMicros,
    ) -> Result<Option<bool>, MetadataError> {
        let (commit, head) = (CommitId::random(), self.rows.head(bucket, &place.key));
        for number in 0..ATTEMPTS_MAX {
            let _turn = self.queue(number, &head).await;
            let plan = self.plan_extension(actor, bucket, &place.key, place.version, until, commit).await;
            match settle(self.store.as_ref(), commit, number, plan).await? {
                Settled::Done(answer) => return Ok(answer),
                Settled::Again => {}
                Settled::Before(_) => return Ok(Some(true)),
            }
        }
        Err(MetadataError::Conflict)
    }

    async fn plan_extension(
        &self,
        actor: &Actor,
        bucket_id: BucketId,
        key: &ObjectKey,
        version: VersionId,
        until: TimestampMicros,
        commit: CommitId,
    ) -> Result<Plan<Option<bool>>, MetadataError> {
        let snapshot = self.snapshot().await?;
        let bucket_row = snapshot.get(&self.rows.bucket(bucket_id)).map_err(store_error)?;
        let bucket = bucket_of(bucket_row.as_ref())?;
        let found = self.find_in(snapshot.as_ref(), bucket_id, key, VersionSelector::Id(version))?;
        let Some(found) = found.filter(|found| !found.version.is_delete_marker()) else {
            return Ok(Plan::Nothing(None));
        };
        let mut version = found.version.clone();
        let old = version.retention;
        // Governance that lasts longer is replaced too, by a compliance that lasts no less.
        let until = old.map_or(until, |old| old.until.max(until));
        let new = Retention { mode: RetentionMode::Compliance, until };
        if old == Some(new) {
            return Ok(Plan::Nothing(Some(false)));
        }
        version.retention = Some(new);
        bucket.check_not_shredding()?;
        let mut attempt = Attempt::default();
        attempt.expect(self.rows.bucket(bucket_id), bucket_row.as_ref());
        let event = Event {
            kind: EventKind::VersionChanged,
            project: bucket.project,
            time: self.now(),
            bucket: Some(bucket_id),
            version: Some(version.id),
            other_version: None,
            bytes: 0,
            subject: key.as_bytes(),
        };
        self.rewrite_version(&mut attempt, KeyPlace { state: &bucket, bucket: bucket_id, key }, &found, version);
        self.record_event(&mut attempt, commit, Some(actor), event)?;
        Ok(Plan::Commit(attempt, Some(true)))
    }
}
