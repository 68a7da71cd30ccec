//! Legal holds on projects, buckets and prefixes.

use super::records::HoldTexts;
use super::{BucketGuard, HeldPrefix, HoldRecord, project_guard};
use crate::attempt::{ATTEMPTS_MAX, Attempt, Plan, Settled, settle, store_error};
use crate::ledger::Event;
use crate::records::{self, EventKind};
use crate::rows::{Tag, last_id};
use crate::seal::Place;
use crate::service::{Core, MetadataService, corrupt};
use crate::store::Snapshot;
use std::sync::Arc;
use valv_metadata_api::{
    HOLDS_PER_BUCKET_MAX, HOLDS_PER_PROJECT_MAX, Hold, MetadataError, ReleaseHold, RetentionRefusal, RetentionScope,
    SetHold, check_retention_text,
};
use valv_types::{BucketId, CommitId, HoldId, ProjectId};

impl MetadataService {
    /// Sets a legal hold: from its commit on nothing that it keeps is removed, overwritten, expired or purged. One commit,
    /// with its record.
    pub async fn set_hold(&self, request: SetHold) -> Result<Hold, MetadataError> {
        self.0.set_hold(request).await
    }

    /// Releases a legal hold. One commit, with its record.
    pub async fn release_hold(&self, request: ReleaseHold) -> Result<Hold, MetadataError> {
        self.0.release_hold(request).await
    }

    /// The legal holds that stand, in no order: at most [`HOLDS_PER_PROJECT_MAX`].
    pub async fn list_holds(&self, project: ProjectId) -> Result<Vec<Hold>, MetadataError> {
        self.0.scan(move |core, snapshot| core.holds_of(snapshot, project)).await
    }
}

impl Core {
    fn hold_view(&self, project: ProjectId, id: HoldId, record: &HoldRecord) -> Result<Hold, MetadataError> {
        let texts: HoldTexts = self.seals.open(Place::Hold(project, id), record.key_version, &record.sealed)?;
        Ok(Hold {
            id,
            scope: RetentionScope { bucket: record.bucket, prefix: record.prefix.clone() },
            set: record.set,
            by: record.by,
            reason: texts.reason,
            reference: texts.reference,
        })
    }

    fn holds_of(&self, snapshot: &dyn Snapshot, project: ProjectId) -> Result<Vec<Hold>, MetadataError> {
        let range = self.rows.range(Tag::Hold, &[project.as_bytes()]);
        let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
        let mut holds = Vec::new();
        while let Some((key, row)) = cursor.next().map_err(store_error)? {
            let id = last_id(&key).map(HoldId::from_bytes).ok_or_else(|| corrupt("hold"))?;
            holds.push(self.hold_view(project, id, &records::decode("hold", &row.value)?)?);
        }
        holds.sort_by_key(|hold| hold.set);
        Ok(holds)
    }

    /// Plans over a snapshot until the plan commits.
    async fn change_holds(
        self: &Arc<Self>,
        project: ProjectId,
        commit: CommitId,
        plan: impl Fn(&Self, &dyn Snapshot) -> Result<Plan<Hold>, MetadataError> + Send + Sync + 'static,
    ) -> Result<Hold, MetadataError> {
        let (plan, queue) = (Arc::new(plan), self.rows.project_guard(project));
        for number in 0..ATTEMPTS_MAX {
            let _turn = self.queue(number, &queue).await;
            let plan = Arc::clone(&plan);
            let planned = self.scan(move |core, snapshot| plan(core, snapshot)).await;
            match settle(self.store.as_ref(), commit, number, planned).await? {
                Settled::Done(hold) => return Ok(hold),
                Settled::Again => {}
                Settled::Before(refusal) => return Err(refusal),
            }
        }
        Err(MetadataError::Conflict)
    }

    async fn set_hold(self: &Arc<Self>, request: SetHold) -> Result<Hold, MetadataError> {
        request.scope.check()?;
        check_retention_text(&request.reason)?;
        check_retention_text(&request.reference)?;
        if request.reason.is_empty() {
            return Err(RetentionRefusal::TextMissing.into());
        }
        let (project, commit) = (request.project, request.commit);
        self.change_holds(project, commit, move |core, snapshot| core.plan_hold(snapshot, &request)).await
    }

    fn plan_hold(&self, snapshot: &dyn Snapshot, request: &SetHold) -> Result<Plan<Hold>, MetadataError> {
        let (project, id) = (request.project, HoldId::from_bytes(*request.commit.as_bytes()));
        let hold_key = self.rows.hold(project, id);
        if let Some(row) = snapshot.get(&hold_key).map_err(store_error)? {
            return Ok(Plan::Nothing(self.hold_view(project, id, &records::decode("hold", &row.value)?)?));
        }
        let texts = HoldTexts { reason: request.reason.clone(), reference: request.reference.clone() };
        let sealed = self.seals.seal(Place::Hold(project, id), &texts)?;
        let record = HoldRecord {
            bucket: request.scope.bucket,
            prefix: request.scope.prefix.clone(),
            set: self.now(),
            by: request.actor.user,
            key_version: sealed.key_version,
            sealed: sealed.bytes,
        };
        let mut attempt = Attempt::default();
        attempt.expect_absent(hold_key.clone());
        attempt.put(hold_key, records::encode(&record));
        self.plan_hold_change(snapshot, &mut attempt, project, id, record.bucket, Change::Add(&record.prefix))?;
        let hold = self.hold_view(project, id, &record)?;
        let event = self.hold_event(EventKind::HoldSet, project, &record);
        self.record_act(&mut attempt, request.commit, &request.actor, &hold_detail(&hold, None), event)?;
        Ok(Plan::Commit(attempt, hold))
    }

    async fn release_hold(self: &Arc<Self>, request: ReleaseHold) -> Result<Hold, MetadataError> {
        check_retention_text(&request.reason)?;
        if request.reason.is_empty() {
            return Err(RetentionRefusal::TextMissing.into());
        }
        let (project, commit) = (request.project, request.commit);
        self.change_holds(project, commit, move |core, snapshot| core.plan_release(snapshot, &request)).await
    }

    fn plan_release(&self, snapshot: &dyn Snapshot, request: &ReleaseHold) -> Result<Plan<Hold>, MetadataError> {
        let (project, id) = (request.project, request.hold);
        let hold_key = self.rows.hold(project, id);
        let row = snapshot.get(&hold_key).map_err(store_error)?.ok_or(RetentionRefusal::NoSuchHold)?;
        let record: HoldRecord = records::decode("hold", &row.value)?;
        let mut attempt = Attempt::default();
        attempt.expect(hold_key.clone(), Some(&row));
        attempt.remove(hold_key);
        self.plan_hold_change(snapshot, &mut attempt, project, id, record.bucket, Change::Remove)?;
        let hold = self.hold_view(project, id, &record)?;
        let event = self.hold_event(EventKind::HoldReleased, project, &record);
        let detail = hold_detail(&hold, Some(&request.reason));
        self.record_act(&mut attempt, request.commit, &request.actor, &detail, event)?;
        Ok(Plan::Commit(attempt, hold))
    }

    /// Adds a hold to the rows that removals judge by, or takes it out of them.
    fn plan_hold_change(
        &self,
        snapshot: &dyn Snapshot,
        attempt: &mut Attempt,
        project: ProjectId,
        id: HoldId,
        bucket: Option<BucketId>,
        change: Change<'_>,
    ) -> Result<(), MetadataError> {
        let key = self.rows.project_guard(project);
        let row = snapshot.get(&key).map_err(store_error)?;
        let mut guard = project_guard(row.as_ref())?;
        if guard.shredding.is_some() {
            return Err(MetadataError::InvalidBucketState);
        }
        guard.hold_count = match change {
            Change::Add(_) if guard.hold_count >= HOLDS_PER_PROJECT_MAX => {
                return Err(RetentionRefusal::TooManyHolds.into());
            }
            Change::Add(_) => guard.hold_count + 1,
            Change::Remove => guard.hold_count.saturating_sub(1),
        };
        if bucket.is_none() {
            guard.holds.retain(|held| *held != id);
            if let Change::Add(_) = change {
                guard.holds.push(id);
            }
        }
        attempt.expect(key.clone(), row.as_ref());
        attempt.put(key, records::encode(&guard));
        let apply = |guard: &mut BucketGuard| {
            guard.holds.retain(|held| held.hold != id);
            if let Change::Add(prefix) = change {
                if guard.holds.len() >= HOLDS_PER_BUCKET_MAX {
                    return Err(RetentionRefusal::TooManyHolds.into());
                }
                guard.holds.push(HeldPrefix { hold: id, prefix: prefix.to_vec() });
            }
            Ok(())
        };
        match bucket {
            None => self.guard_all_buckets(snapshot, attempt, project, apply).map(|_| ()),
            Some(bucket) => self.guard_bucket(snapshot, attempt, project, bucket, apply),
        }
    }

    fn hold_event<'a>(&self, kind: EventKind, project: ProjectId, record: &'a HoldRecord) -> Event<'a> {
        Event {
            kind,
            project,
            time: self.now(),
            bucket: record.bucket,
            version: None,
            other_version: None,
            bytes: 0,
            subject: &record.prefix,
        }
    }
}

/// What becomes of a hold.
#[derive(Debug, Clone, Copy)]
enum Change<'a> {
    /// It is set, on keys that begin with this.
    Add(&'a [u8]),
    /// It is released.
    Remove,
}

fn hold_detail(hold: &Hold, released: Option<&str>) -> serde_json::Value {
    let mut detail = serde_json::json!({
        "hold": hold.id.to_string(),
        "scope": match (&hold.scope.bucket, hold.scope.prefix.is_empty()) {
            (None, _) => "project",
            (Some(_), true) => "bucket",
            (Some(_), false) => "prefix",
        },
        "reason": hold.reason,
        "reference": hold.reference,
    });
    if let (Some(reason), Some(object)) = (released, detail.as_object_mut()) {
        object.insert("released_because".to_owned(), reason.into());
    }
    detail
}
