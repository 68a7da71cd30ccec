//! Carries out what a scan found, if it still holds: one commit for each version or upload.
//!
//! What a commit expects, and why: the bucket's row (rules, versioning and closing are behind it), the version's own row,
//! the row of its successor (which says since when it is noncurrent, or that it is the current one), and as many newer
//! noncurrent rows as the rule keeps (one that a client removed meanwhile no longer counts). That a key has nothing but
//! its delete marker is guarded by the head: a noncurrent row comes into being only in a commit that writes the head.

use super::scan::{Rules, Target, Work};
use crate::attempt::{ATTEMPTS_MAX, Attempt, Plan, Settled, settle, store_error};
use crate::ledger::Event;
use crate::lock::Leaving;
use crate::records::{EventKind, FLAG_NULL, VersionRecord};
use crate::rows::{NoncurrentPlace, Tag};
use crate::service::{Core, bucket_of, corrupt};
use crate::store::{Key, Snapshot, Versioned};
use crate::uploads::{upload_event, upload_of};
use crate::versions::{Found, KeyPlace, Placed, decode_head};
use std::sync::Arc;
use valv_lifecycle::{Removal, Standing, Version};
use valv_metadata_api::{LockReason, MetadataError, ObjectKey, VersionSelector, Versioning};
use valv_types::{CommitId, TimestampMicros, UploadId, VersionId};

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The current version was removed.
    Expired,
    /// The current version was covered by a delete marker.
    Covered,
    /// A noncurrent version was removed.
    Noncurrent,
    /// A delete marker was removed.
    Marker,
    /// An upload was aborted.
    Upload,
    /// Object Lock refused.
    Locked,
    /// Something has changed since the scan.
    Left,
    /// It could not be dealt with.
    Failed,
}

impl Outcome {
    /// Its name among metrics.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Covered => "covered",
            Self::Noncurrent => "noncurrent",
            Self::Marker => "marker",
            Self::Upload => "upload",
            Self::Locked => "locked",
            Self::Left => "left",
            Self::Failed => "failed",
        }
    }
}

/// What a judgement rests on, for the commit to expect.
type Grounds = Vec<(Key, Versioned)>;

impl Core {
    /// Works on one key or upload, one commit after the other. Returns what was done, and the error that ended it early.
    pub(super) async fn carry_out_work(
        self: &Arc<Self>,
        rules: &Rules,
        work: Work,
        now: TimestampMicros,
    ) -> (Vec<Outcome>, Option<MetadataError>) {
        // A project that is not paid for is read-only: rules rest with everything else.
        if self.check_paid(rules.record.limits()).is_err() {
            return (Vec::new(), None);
        }
        let (key, targets) = match work {
            Work::Upload { key, id } => {
                return match self.expire_upload(rules, &key, id, now).await {
                    Ok(outcome) => (vec![outcome], None),
                    Err(error) => (Vec::new(), Some(error)),
                };
            }
            Work::Versions { key, targets } => (key, targets),
        };
        let mut outcomes = Vec::with_capacity(targets.len());
        for target in targets {
            match self.expire_version(rules, &key, target, now).await {
                Ok(outcome) => outcomes.push(outcome),
                Err(error) => return (outcomes, Some(error)),
            }
        }
        (outcomes, None)
    }

    async fn expire_version(
        &self,
        rules: &Rules,
        key: &ObjectKey,
        target: Target,
        now: TimestampMicros,
    ) -> Result<Outcome, MetadataError> {
        let (commit, head) = (CommitId::random(), self.rows.head(rules.bucket, key));
        for number in 0..ATTEMPTS_MAX {
            let _turn = self.queue(number, &head).await;
            let plan = match target {
                Target::Current(id) => self.plan_current(rules, key, id, now, commit).await,
                Target::Noncurrent { place, successor } => {
                    self.plan_noncurrent(rules, key, place, successor, now, commit).await
                }
            };
            match settle(self.store.as_ref(), commit, number, plan).await {
                Ok(Settled::Done(outcome)) => return Ok(outcome),
                Ok(Settled::Again) => {}
                // This very commit happened, and its answer was lost twice: the ledger has it, the next pass finds nothing.
                Ok(Settled::Before(_)) => return Ok(Outcome::Left),
                Err(MetadataError::Locked { .. }) => return Ok(Outcome::Locked),
                Err(error) => return Err(error),
            }
        }
        // Clients keep writing this key: the next pass will see what is left to do.
        Ok(Outcome::Left)
    }

    /// Whether the bucket is as it was when its rules were read.
    fn is_same_bucket(&self, snapshot: &dyn Snapshot, rules: &Rules) -> Result<bool, MetadataError> {
        let row = snapshot.get(&self.rows.bucket(rules.bucket)).map_err(store_error)?;
        Ok(row.is_some_and(|row| row.revision == rules.bucket_row.revision))
    }

    /// An attempt that holds only if the bucket and `grounds` are as they were read.
    fn attempt_on(&self, rules: &Rules, grounds: Grounds) -> Attempt {
        let mut attempt = Attempt::default();
        attempt.expect(self.rows.bucket(rules.bucket), Some(&rules.bucket_row));
        for (key, row) in &grounds {
            attempt.expect(key.clone(), Some(row));
        }
        attempt
    }

    /// What rules look at of a version. Its tags are opened if they can decide.
    fn tags_for(
        &self,
        rules: &Rules,
        facts: &Version<'_>,
        version: &VersionRecord,
        now: TimestampMicros,
    ) -> Result<Vec<(String, String)>, MetadataError> {
        if !rules.rules.needs_tags(facts, now, self.config.lifecycle_day) {
            return Ok(Vec::new());
        }
        let (project, bucket) = (rules.record.project, rules.bucket);
        self.scanned_tags(project, bucket, version.id, version.key_version, &version.sealed)
    }

    async fn plan_current(
        &self,
        rules: &Rules,
        key: &ObjectKey,
        id: VersionId,
        now: TimestampMicros,
        commit: CommitId,
    ) -> Result<Plan<Outcome>, MetadataError> {
        let snapshot = self.snapshot().await?;
        let snapshot = snapshot.as_ref();
        let head_row = snapshot.get(&self.rows.head(rules.bucket, key)).map_err(store_error)?;
        let head = decode_head(head_row)?.filter(|head| head.record.version.id == id);
        let (Some(head), true) = (head, self.is_same_bucket(snapshot, rules)?) else {
            return Ok(Plan::Nothing(Outcome::Left));
        };
        let version = head.record.version.clone();
        let is_delete_marker = version.is_delete_marker();
        // Only a delete marker's fate depends on what is under it.
        let is_only = is_delete_marker && self.newest_rows(snapshot, rules, key, 1)?.is_empty();
        let facts = Version {
            key: key.as_bytes(),
            len_bytes: version.len_bytes,
            tags: &[],
            modified: version.order,
            is_delete_marker,
            standing: Standing::Current { is_only },
        };
        let tags = self.tags_for(rules, &facts, &version, now)?;
        let facts = Version { tags: &tags, ..facts };
        let Some(due) = rules.rules.due(&facts, now, self.config.lifecycle_day) else {
            return Ok(Plan::Nothing(Outcome::Left));
        };
        let at = KeyPlace { state: &rules.record, bucket: rules.bucket, key };
        let mut attempt = self.attempt_on(rules, Grounds::new());
        let event = Event {
            kind: EventKind::VersionExpired,
            project: rules.record.project,
            time: self.now(),
            bucket: Some(rules.bucket),
            version: Some(id),
            other_version: None,
            bytes: version.len_bytes,
            subject: key.as_bytes(),
        };
        let versioning = rules.record.versioning;
        if due.removal == Removal::RemoveMarker || versioning == Versioning::Unversioned {
            Leaving::new(&rules.record, key.as_bytes(), &version).check_by_rule(self.clock.now())?;
            let outcome = if is_delete_marker { Outcome::Marker } else { Outcome::Expired };
            self.take_version(&mut attempt, snapshot, at, Found { head, version, noncurrent: None }, None)?;
            self.record_rule_event(&mut attempt, commit, due.rule.id(), event)?;
            return Ok(Plan::Commit(attempt, outcome));
        }
        if rules.record.is_held(key.as_bytes()) {
            // A marker would remove nothing, but rules pause altogether on what is held.
            return Err(MetadataError::Locked { reason: LockReason::ScopeHold });
        }
        let marker_id = VersionId::from_bytes(*commit.as_bytes());
        let order = self.next_order(Some(&head));
        let null_flag = if versioning == Versioning::Enabled { 0 } else { FLAG_NULL };
        // Nobody asked for the marker, and somebody has to own it: the bucket's owner, as in S3.
        let marker = self.delete_marker(marker_id, order, null_flag, Some(rules.record.owner));
        let Placed::Done { replaced } = self.place_version(&mut attempt, at, Some(head), marker, None).await? else {
            return Ok(Plan::Wait);
        };
        let event = Event {
            kind: EventKind::DeleteMarkerByRule,
            time: order,
            version: Some(marker_id),
            other_version: replaced.or(Some(id)),
            bytes: 0,
            ..event
        };
        self.record_rule_event(&mut attempt, commit, due.rule.id(), event)?;
        Ok(Plan::Commit(attempt, Outcome::Covered))
    }

    async fn plan_noncurrent(
        &self,
        rules: &Rules,
        key: &ObjectKey,
        place: NoncurrentPlace,
        successor: NoncurrentPlace,
        now: TimestampMicros,
        commit: CommitId,
    ) -> Result<Plan<Outcome>, MetadataError> {
        let snapshot = self.snapshot().await?;
        let snapshot = snapshot.as_ref();
        let found = self.find_in(snapshot, rules.bucket, key, VersionSelector::Id(place.id))?;
        let found = found.filter(|found| !found.is_current() && found.version.order == place.order);
        let (Some(found), true) = (found, self.is_same_bucket(snapshot, rules)?) else {
            return Ok(Plan::Nothing(Outcome::Left));
        };
        let current = &found.head.record.version;
        let newer_row = if (current.order, current.id) == (successor.order, successor.id) {
            Some((self.rows.head(rules.bucket, key), found.head.row.clone()))
        } else {
            let row_key = self.rows.noncurrent(rules.bucket, key, successor);
            snapshot.get(&row_key).map_err(store_error)?.map(|row| (row_key, row))
        };
        let Some(newer_row) = newer_row else { return Ok(Plan::Nothing(Outcome::Left)) };

        // As many newer ones as any rule could keep, and no more, are counted.
        let kept_max = rules.rules.rules().iter().filter_map(|rule| rule.noncurrent()?.newer()).max().unwrap_or(0);
        let mut newest = self.newest_rows(snapshot, rules, key, kept_max as usize)?;
        let own_key = self.rows.noncurrent(rules.bucket, key, place);
        // Rows are ordered newest first.
        newest.retain(|(row_key, _)| *row_key < own_key);
        let version = found.version.clone();
        let facts = Version {
            key: key.as_bytes(),
            len_bytes: version.len_bytes,
            tags: &[],
            modified: version.order,
            is_delete_marker: version.is_delete_marker(),
            standing: Standing::Noncurrent {
                since: successor.order,
                newer: u32::try_from(newest.len()).unwrap_or(u32::MAX),
            },
        };
        let tags = self.tags_for(rules, &facts, &version, now)?;
        let facts = Version { tags: &tags, ..facts };
        let Some(due) = rules.rules.due(&facts, now, self.config.lifecycle_day) else {
            return Ok(Plan::Nothing(Outcome::Left));
        };
        Leaving::new(&rules.record, key.as_bytes(), &version).check_by_rule(self.clock.now())?;
        newest.truncate(due.rule.noncurrent().and_then(|noncurrent| noncurrent.newer()).unwrap_or(0) as usize);
        newest.push(newer_row);
        let mut attempt = self.attempt_on(rules, newest);
        let at = KeyPlace { state: &rules.record, bucket: rules.bucket, key };
        self.take_version(&mut attempt, snapshot, at, found, None)?;
        let event = Event {
            kind: EventKind::VersionExpired,
            project: rules.record.project,
            time: self.now(),
            bucket: Some(rules.bucket),
            version: Some(place.id),
            other_version: None,
            bytes: version.len_bytes,
            subject: key.as_bytes(),
        };
        self.record_rule_event(&mut attempt, commit, due.rule.id(), event)?;
        Ok(Plan::Commit(attempt, Outcome::Noncurrent))
    }

    /// The newest noncurrent versions' rows of a key, at most `limit`.
    fn newest_rows(
        &self,
        snapshot: &dyn Snapshot,
        rules: &Rules,
        key: &ObjectKey,
        limit: usize,
    ) -> Result<Grounds, MetadataError> {
        let mut found = Grounds::new();
        if limit == 0 {
            return Ok(found);
        }
        let range = self.rows.rows_of_key(Tag::Noncurrent, rules.bucket, key.as_bytes());
        let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
        while found.len() < limit {
            let Some(row) = cursor.next().map_err(store_error)? else { break };
            found.push(row);
        }
        Ok(found)
    }

    async fn expire_upload(
        &self,
        rules: &Rules,
        key: &ObjectKey,
        id: UploadId,
        now: TimestampMicros,
    ) -> Result<Outcome, MetadataError> {
        let commit = CommitId::random();
        for number in 0..ATTEMPTS_MAX {
            let plan = self.plan_upload_expiry(rules, key, id, now, commit).await;
            match settle(self.store.as_ref(), commit, number, plan).await? {
                Settled::Done(outcome) => return Ok(outcome),
                Settled::Again => {}
                Settled::Before(_) => return Ok(Outcome::Upload),
            }
        }
        Ok(Outcome::Left)
    }

    async fn plan_upload_expiry(
        &self,
        rules: &Rules,
        key: &ObjectKey,
        id: UploadId,
        now: TimestampMicros,
        commit: CommitId,
    ) -> Result<Plan<Outcome>, MetadataError> {
        let left = Ok(Plan::Nothing(Outcome::Left));
        let [bucket_row, upload_row] = self.get_rows(&[self.rows.bucket(rules.bucket), self.rows.upload(id)]).await?;
        if bucket_row.as_ref().map(|row| row.revision) != Some(rules.bucket_row.revision) {
            return left;
        }
        let bucket = bucket_of(bucket_row.as_ref())?;
        let record = match upload_of(upload_row.as_ref(), rules.bucket, key) {
            Ok(record) => record,
            Err(MetadataError::NoSuchUpload) => return left,
            Err(error) => return Err(error),
        };
        let planned = rules.rules.abort(key.as_bytes(), record.initiated, self.config.lifecycle_day);
        let Some((_, rule)) = planned.filter(|(at, _)| *at <= now) else { return left };
        let upload_row = upload_row.ok_or_else(|| corrupt("upload"))?;
        let mut attempt = self.attempt_on(rules, vec![(self.rows.upload(id), upload_row)]);
        self.remove_upload(&mut attempt, &bucket, &record, key, id);
        let event = upload_event(EventKind::UploadExpired, &bucket, rules.bucket, key, id);
        self.record_rule_event(&mut attempt, commit, rule.id(), Event { time: self.now(), ..event })?;
        Ok(Plan::Commit(attempt, Outcome::Upload))
    }
}
