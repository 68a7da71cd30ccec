//! Quotas: how much a project may hold, exact under any number of writers, and nothing at all for projects without one.
//!
//! A quota is spread over [`SLOTS`] rows a project. Each has an allotment and what was used of it; the allotments add up to the
//! quota. A commit that adds to the project books it on one slot, whose row it expects and writes, so a quota is never
//! exceeded: no commit passes whose slot has not enough left. Within a process a slot is held from reading it until the commit
//! is over, so writers of one project meet on no row as long as there are no more of them than slots, and queue up if there
//! are. A commit that finds its slot short levels all of them: it expects every row, adds up what is used, and spreads the rest
//! evenly. Only then, with everything counted, is a write refused. So nothing of a quota stays unspent in other slots.
//!
//! What counts: every object version until it is purged, so also what waits in the trash, and every part of an open upload.
//! Purges and sweeps book what they give back on slots of their own ([`RETURN_SLOTS`]), which have no allotment.
//!
//! A bucket's row says whether its project counts ([`Limits`]): a write into a project without a quota reads no further row. A
//! quota that is set on a project with data starts to count in one commit, and a snapshot after it tells what was there before:
//! everything that the snapshot holds, less what the slots in the same snapshot have counted. Until that is booked nothing is
//! refused. A crash in between leaves a row that has the background pass go on ([`Core::finish_counts`]).

use crate::attempt::{self, ATTEMPTS_MAX, Attempt, store_error};
use crate::records::{self, BucketRecord, ListedHead, ListedNoncurrent, PartRow, ProjectRecord, TrashRecord};
use crate::rows::{Tag, last_id};
use crate::service::{Core, corrupt};
use crate::store::{Key, Snapshot, Versioned};
use bytes::Bytes;
use minicbor::{Decode, Encode};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::OwnedMutexGuard;
use valv_metadata_api::{MetadataError, Project, ProjectRefusal, Quota, QuotaUse};
use valv_types::{CommitId, ProjectId, TimestampMicros, UploadId};

/// Slots that writers book on: more than a gateway has uploads of one project at their commit at one time.
const SLOTS: u8 = 64;
/// Slots that purges and sweeps book on: as many as there are purges in flight.
const RETURN_SLOTS: u8 = 16;
/// Projects whose slots are held in this process, at some 5 KiB each. When there are more, all are let go, which costs a few
/// conflicts.
const HELD_PROJECTS_MAX: usize = 1_000;

/// What a bucket's row has of its project's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub(crate) struct Limits {
    /// From then on nothing is written or removed.
    #[n(0)]
    pub(crate) paid_until: Option<TimestampMicros>,
    /// Writes are booked against a quota.
    #[n(1)]
    pub(crate) counts: bool,
}

/// A project's quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(crate) struct QuotaRecord {
    #[n(0)]
    pub(crate) bytes: Option<u64>,
    #[n(1)]
    pub(crate) objects: Option<u64>,
    /// What was there before the quota is not booked yet, and nothing is refused.
    #[n(2)]
    pub(crate) is_counting: bool,
}

/// One slot's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
struct SlotRecord {
    /// Below zero where more was given back than booked.
    #[n(0)]
    used_bytes: i64,
    #[n(1)]
    used_objects: i64,
    /// `None`: no bound. Below zero where more is held than a lowered quota allows.
    #[n(2)]
    allotted_bytes: Option<i64>,
    #[n(3)]
    allotted_objects: Option<i64>,
}

/// What a commit adds to a project, or takes from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Delta {
    pub(crate) bytes: i64,
    pub(crate) objects: i64,
}

impl Delta {
    /// That many bytes and objects more.
    pub(crate) fn more(bytes: u64, objects: u32) -> Self {
        Self { bytes: signed(bytes), objects: objects.into() }
    }

    /// That many bytes and objects less.
    pub(crate) fn less(bytes: u64, objects: u32) -> Self {
        Self { bytes: -signed(bytes), objects: -i64::from(objects) }
    }

    fn plus(self, other: Self) -> Self {
        Self { bytes: self.bytes.saturating_add(other.bytes), objects: self.objects.saturating_add(other.objects) }
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl SlotRecord {
    fn used(self) -> Delta {
        Delta { bytes: self.used_bytes, objects: self.used_objects }
    }

    /// The slot with `delta` booked, or `None` if it has not enough left. What adds nothing is never refused.
    fn booked(self, delta: Delta) -> Option<Self> {
        let used = self.used().plus(delta);
        let fits = |added: i64, used: i64, allotted: Option<i64>| added <= 0 || allotted.is_none_or(|all| used <= all);
        (fits(delta.bytes, used.bytes, self.allotted_bytes) && fits(delta.objects, used.objects, self.allotted_objects))
            .then_some(Self { used_bytes: used.bytes, used_objects: used.objects, ..self })
    }
}

/// The slots of a level state: everything used is on the first, and what is left of the quota is spread evenly.
fn level(quota: Option<Quota>, used: Delta) -> impl Fn(u8) -> SlotRecord {
    let share = |all: Option<u64>, used: i64, slot: u8| {
        all.map(|all| {
            let left = signed(all).saturating_sub(used).max(0);
            let even = left / i64::from(SLOTS);
            if slot == 0 { signed(all).saturating_sub(even * i64::from(SLOTS - 1)) } else { even }
        })
    };
    move |slot| {
        let booked = if slot == 0 { used } else { Delta::default() };
        let (bytes, objects) = quota.map_or((None, None), |quota| (quota.bytes, quota.objects));
        let is_return = slot >= SLOTS;
        SlotRecord {
            used_bytes: booked.bytes,
            used_objects: booked.objects,
            allotted_bytes: if is_return { Some(0) } else { share(bytes, used.bytes, slot) },
            allotted_objects: if is_return { Some(0) } else { share(objects, used.objects, slot) },
        }
    }
}

type SlotLocks = Arc<[Arc<tokio::sync::Mutex<()>>]>;

/// Which slots commits of this process are using. Only an optimisation: the rows decide.
#[derive(Default)]
pub(crate) struct QuotaLocks {
    projects: Mutex<HashMap<ProjectId, SlotLocks>>,
}

/// Slots held until a commit is over.
pub(crate) type HeldSlots = Vec<OwnedMutexGuard<()>>;

impl QuotaLocks {
    fn of(&self, project: ProjectId) -> SlotLocks {
        let mut projects = self.projects.lock();
        if projects.len() >= HELD_PROJECTS_MAX && !projects.contains_key(&project) {
            projects.clear();
        }
        let made = || (0..SLOTS).map(|_| Arc::default()).collect();
        Arc::clone(projects.entry(project).or_insert_with(made))
    }

    /// Some slot, free if there is a free one.
    async fn one(&self, project: ProjectId) -> (u8, OwnedMutexGuard<()>) {
        let slots = self.of(project);
        let start = getrandom::u32().map_or(0, |random| random as usize % slots.len());
        for at in (start..slots.len()).chain(0..start) {
            if let Ok(held) = Arc::clone(&slots[at]).try_lock_owned() {
                return (at as u8, held);
            }
        }
        (start as u8, Arc::clone(&slots[start]).lock_owned().await)
    }

    /// All of them, in order, so that two who want all of them don't wait for each other.
    async fn all(&self, project: ProjectId) -> HeldSlots {
        let mut held = Vec::with_capacity(usize::from(SLOTS));
        for slot in self.of(project).iter() {
            held.push(Arc::clone(slot).lock_owned().await);
        }
        held
    }
}

impl BucketRecord {
    /// What the bucket's project may hold, and until when.
    pub(crate) fn limits(&self) -> Limits {
        self.guard.as_ref().map(|guard| guard.limits).unwrap_or_default()
    }
}

impl ProjectRecord {
    /// What its buckets' rows have of its limits.
    pub(crate) fn limits(&self) -> Limits {
        Limits { paid_until: self.paid_until, counts: self.quota.is_some() }
    }

    /// What is refused beyond; `None` while nothing is.
    fn enforced(&self) -> Option<Quota> {
        self.quota.filter(|quota| !quota.is_counting).map(|quota| Quota { bytes: quota.bytes, objects: quota.objects })
    }
}

impl Core {
    /// Refuses writing and removing in a project that is not paid for any more. By cluster time, which no clock turns back.
    pub(crate) fn check_paid(&self, limits: Limits) -> Result<(), MetadataError> {
        match limits.paid_until {
            Some(until) if until <= self.clock.now() => Err(MetadataError::ReadOnly { since: until }),
            _ => Ok(()),
        }
    }

    /// Books `delta` in the commit, if the project counts. The caller expects the row that `limits` are from.
    ///
    /// # Errors
    /// [`MetadataError::QuotaExceeded`].
    pub(crate) async fn book(
        &self,
        attempt: &mut Attempt,
        project: ProjectId,
        limits: Limits,
        delta: Delta,
    ) -> Result<(), MetadataError> {
        if !limits.counts || delta == Delta::default() {
            return Ok(());
        }
        let (slot, held) = self.quota_locks.one(project).await;
        let key = self.rows.quota_slot(project, slot);
        let row = self.get(&key).await?.ok_or(MetadataError::Conflict)?;
        let record: SlotRecord = records::decode("quota slot", &row.value)?;
        if let Some(booked) = record.booked(delta) {
            attempt.expect(key.clone(), Some(&row));
            attempt.put(key, records::encode(&booked));
            attempt.hold(vec![held]);
            return Ok(());
        }
        drop(held);
        let held = self.quota_locks.all(project).await;
        let project_row = self.get(&self.rows.project(project)).await?.ok_or_else(|| corrupt("project of a bucket"))?;
        let quota = records::decode::<ProjectRecord>("project", &project_row.value)?.enforced();
        let (rows, used) = self.quota_slots(project).await?;
        let used = used.plus(delta);
        let exceeds = |added: i64, used: i64, all: Option<u64>| added > 0 && all.is_some_and(|all| used > signed(all));
        if let Some(quota) = quota
            && (exceeds(delta.bytes, used.bytes, quota.bytes) || exceeds(delta.objects, used.objects, quota.objects))
        {
            return Err(MetadataError::QuotaExceeded);
        }
        // Setting another quota rewrites the slots, so the project's row need not be expected.
        put_slots(attempt, rows, level(quota, used));
        attempt.hold(held);
        Ok(())
    }

    /// Books what a purge or a sweep gives back. `commit` spreads such commits over the slots for them.
    pub(crate) fn book_return(
        &self,
        snapshot: &dyn Snapshot,
        attempt: &mut Attempt,
        project: ProjectId,
        commit: CommitId,
        delta: Delta,
    ) -> Result<(), MetadataError> {
        let project_key = self.rows.project(project);
        let row = snapshot.get(&project_key).map_err(store_error)?;
        attempt.expect(project_key, row.as_ref());
        let Some(row) = row else { return Ok(()) };
        if delta == Delta::default() || records::decode::<ProjectRecord>("project", &row.value)?.quota.is_none() {
            return Ok(());
        }
        let key = self.rows.quota_slot(project, SLOTS + commit.as_bytes()[0] % RETURN_SLOTS);
        let row = snapshot.get(&key).map_err(store_error)?.ok_or_else(|| corrupt("quota slot"))?;
        let record: SlotRecord = records::decode("quota slot", &row.value)?;
        let used = record.used().plus(delta);
        let booked = SlotRecord { used_bytes: used.bytes, used_objects: used.objects, ..record };
        attempt.expect(key.clone(), Some(&row));
        attempt.put(key, records::encode(&booked));
        Ok(())
    }

    /// All slots of a project that counts, and what is used in all of them.
    async fn quota_slots(&self, project: ProjectId) -> Result<(Vec<(Key, Versioned)>, Delta), MetadataError> {
        let keys: Vec<Key> = (0..SLOTS + RETURN_SLOTS).map(|slot| self.rows.quota_slot(project, slot)).collect();
        let rows = self.store.get_many(&keys).await.map_err(store_error)?;
        let mut found = Vec::with_capacity(keys.len());
        let mut used = Delta::default();
        for (key, row) in keys.into_iter().zip(rows) {
            // Without a slot the quota was taken away since the bucket was read.
            let row = row.ok_or(MetadataError::Conflict)?;
            used = used.plus(records::decode::<SlotRecord>("quota slot", &row.value)?.used());
            found.push((key, row));
        }
        Ok((found, used))
    }

    /// What is used of a quota, in a snapshot.
    fn quota_used(&self, snapshot: &dyn Snapshot, project: ProjectId) -> Result<Delta, MetadataError> {
        let range = self.rows.range(Tag::QuotaSlot, &[project.as_bytes()]);
        let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
        let mut used = Delta::default();
        while let Some((_, row)) = cursor.next().map_err(store_error)? {
            used = used.plus(records::decode::<SlotRecord>("quota slot", &row.value)?.used());
        }
        Ok(used)
    }

    /// Adds quota and usage to what is told of a project.
    pub(crate) fn tell_quota(
        &self,
        snapshot: &dyn Snapshot,
        record: &ProjectRecord,
        project: &mut Project,
    ) -> Result<(), MetadataError> {
        let Some(quota) = record.quota else { return Ok(()) };
        project.quota = Quota { bytes: quota.bytes, objects: quota.objects };
        if !quota.is_counting {
            let used = self.quota_used(snapshot, project.id)?;
            let shown = |number: i64| u64::try_from(number).unwrap_or_default();
            project.used = Some(QuotaUse { bytes: shown(used.bytes), objects: shown(used.objects) });
        }
        Ok(())
    }

    /// Rewrites the slots for a quota that a commit sets, changes or takes away. The caller expects the project's row.
    pub(crate) async fn plan_quota(
        &self,
        attempt: &mut Attempt,
        project: ProjectId,
        before: Option<QuotaRecord>,
        record: &ProjectRecord,
    ) -> Result<(), MetadataError> {
        match (before, record.quota) {
            (None, None) => {}
            (None, Some(quota)) => {
                let slots = level(record.enforced(), Delta::default());
                for slot in 0..SLOTS + RETURN_SLOTS {
                    let key = self.rows.quota_slot(project, slot);
                    attempt.expect_absent(key.clone());
                    attempt.put(key, records::encode(&slots(slot)));
                }
                if quota.is_counting {
                    attempt.put(self.rows.quota_counting(project), Bytes::new());
                }
            }
            (Some(_), Some(_)) => {
                attempt.hold(self.quota_locks.all(project).await);
                let (rows, used) = self.quota_slots(project).await?;
                put_slots(attempt, rows, level(record.enforced(), used));
            }
            (Some(_), None) => {
                attempt.hold(self.quota_locks.all(project).await);
                for (key, row) in self.quota_slots(project).await?.0 {
                    attempt.expect(key.clone(), Some(&row));
                    attempt.remove(key);
                }
                attempt.remove(self.rows.quota_counting(project));
            }
        }
        Ok(())
    }

    /// Books what projects held before they had a quota, where that was begun and not finished.
    pub(crate) async fn finish_counts(self: &Arc<Self>) -> Result<(), MetadataError> {
        let range = self.rows.range(Tag::QuotaCounting, &[]);
        let waiting = self
            .scan(move |_, snapshot| {
                let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
                let mut waiting = Vec::new();
                while let Some((key, _)) = cursor.next().map_err(store_error)? {
                    waiting.push(last_id(&key).map(ProjectId::from_bytes).ok_or_else(|| corrupt("quota counting"))?);
                }
                Ok(waiting)
            })
            .await?;
        for project in waiting {
            self.finish_count(project).await?;
        }
        Ok(())
    }

    /// The same for one project. Harmless if somebody else did it.
    pub(crate) async fn finish_count(self: &Arc<Self>, project: ProjectId) -> Result<(), MetadataError> {
        let marker = self.rows.quota_counting(project);
        // The marker's revision is that of the commit from which on everything is booked: the sum rests on it.
        let Some(marked) = self.get(&marker).await? else { return Ok(()) };
        let before = self
            .scan(move |core, snapshot| {
                let (held, booked) = (core.held_in(snapshot, project)?, core.quota_used(snapshot, project)?);
                Ok(Delta { bytes: held.bytes - booked.bytes, objects: held.objects - booked.objects })
            })
            .await?;
        for number in 0..ATTEMPTS_MAX {
            let _turn = self.queue(number, b"principals").await;
            if self.get(&marker).await?.map(|row| row.revision) != Some(marked.revision) {
                return Ok(());
            }
            let found = self.found_project(project).await?;
            let Some(quota) = found.record.quota else { return Ok(()) };
            let mut record = found.record.clone();
            record.quota = Some(QuotaRecord { is_counting: false, ..quota });
            let mut attempt = Attempt::default();
            attempt.hold(self.quota_locks.all(project).await);
            let (rows, used) = self.quota_slots(project).await?;
            put_slots(&mut attempt, rows, level(record.enforced(), used.plus(before)));
            attempt.expect(self.rows.project(project), Some(&found.row));
            attempt.put(self.rows.project(project), records::encode(&record));
            attempt.expect(marker.clone(), Some(&marked));
            attempt.remove(marker.clone());
            if attempt::commit(self.store.as_ref(), CommitId::random(), attempt).await? {
                return Ok(());
            }
        }
        Err(MetadataError::Conflict)
    }

    /// Everything that a project holds in a snapshot, counted row by row.
    pub(crate) fn held_in(&self, snapshot: &dyn Snapshot, project: ProjectId) -> Result<Delta, MetadataError> {
        let mut held = Delta::default();
        for bucket in self.bucket_ids(snapshot, project)? {
            let range = self.rows.range(Tag::Head, &[bucket.as_bytes()]);
            let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
            while let Some((_, row)) = cursor.next().map_err(store_error)? {
                let head: ListedHead<'_> = records::decode("head", &row.value)?;
                held = held.plus(version_delta(head.version.flags, head.version.len_bytes));
            }
            let range = self.rows.range(Tag::Noncurrent, &[bucket.as_bytes()]);
            let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
            while let Some((_, row)) = cursor.next().map_err(store_error)? {
                let noncurrent: ListedNoncurrent<'_> = records::decode("noncurrent", &row.value)?;
                held = held.plus(version_delta(noncurrent.version.flags, noncurrent.version.len_bytes));
            }
            let range = self.rows.range(Tag::UploadIndex, &[bucket.as_bytes()]);
            let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
            while let Some((key, _)) = cursor.next().map_err(store_error)? {
                let upload = last_id(&key).map(UploadId::from_bytes).ok_or_else(|| corrupt("upload index"))?;
                held = held.plus(self.parts_in(snapshot, upload)?);
            }
        }
        let range = self.rows.range(Tag::Trash, &[]);
        let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
        while let Some((key, row)) = cursor.next().map_err(store_error)? {
            match records::decode("trash", &row.value)? {
                TrashRecord::Version(trashed) if trashed.project == project => {
                    held = held.plus(version_delta(trashed.version.flags, trashed.version.len_bytes));
                }
                TrashRecord::Upload(trashed) if trashed.project == project => {
                    let upload = last_id(&key).map(UploadId::from_bytes).ok_or_else(|| corrupt("trash"))?;
                    held = held.plus(self.parts_in(snapshot, upload)?);
                }
                TrashRecord::Version(_) | TrashRecord::Upload(_) => {}
            }
        }
        Ok(held)
    }

    fn parts_in(&self, snapshot: &dyn Snapshot, upload: UploadId) -> Result<Delta, MetadataError> {
        let range = self.rows.range(Tag::Part, &[upload.as_bytes()]);
        let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
        let mut held = Delta::default();
        while let Some((_, row)) = cursor.next().map_err(store_error)? {
            let part: PartRow = records::decode("part", &row.value)?;
            held = held.plus(Delta::more(part.part.blob.len_bytes, 0));
        }
        Ok(held)
    }

    /// Sets what the project's buckets have of its limits, in the commit that changes them.
    pub(crate) async fn plan_limits(
        self: &Arc<Self>,
        attempt: &mut Attempt,
        project: ProjectId,
        limits: Limits,
    ) -> Result<(), MetadataError> {
        let rewritten = self
            .scan(move |core, snapshot| {
                let mut attempt = Attempt::default();
                core.guard_all_buckets(snapshot, &mut attempt, project, |guard| {
                    guard.limits = limits;
                    Ok(())
                })?;
                Ok(attempt)
            })
            .await?;
        attempt.append(rewritten);
        Ok(())
    }
}

/// What a version counts: delete markers nothing.
fn version_delta(flags: u8, len_bytes: u64) -> Delta {
    if flags & records::FLAG_DELETE_MARKER != 0 { Delta::default() } else { Delta::more(len_bytes, 1) }
}

fn put_slots(attempt: &mut Attempt, rows: Vec<(Key, Versioned)>, record: impl Fn(u8) -> SlotRecord) {
    for (slot, (key, row)) in (0u8..).zip(rows) {
        attempt.expect(key.clone(), Some(&row));
        attempt.put(key, records::encode(&record(slot)));
    }
}

/// The record of a quota that is asked for; `None` without any bound.
pub(crate) fn quota_record(asked: Quota, is_counting: bool) -> Result<Option<QuotaRecord>, MetadataError> {
    let Quota { bytes, objects } = asked;
    if [bytes, objects].into_iter().flatten().any(|bound| i64::try_from(bound).is_err()) {
        return Err(ProjectRefusal::QuotaTooLarge.into());
    }
    Ok((bytes.is_some() || objects.is_some()).then_some(QuotaRecord { bytes, objects, is_counting }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn level_slots_add_up_to_the_quota_and_to_what_is_used(all in 0..10_000u64, used in -5_000..20_000i64) {
            let quota = Quota { bytes: Some(all), objects: None };
            let slots = level(Some(quota), Delta { bytes: used, objects: 3 });
            let slots: Vec<_> = (0..SLOTS + RETURN_SLOTS).map(slots).collect();
            let allotted: i64 = slots.iter().filter_map(|slot| slot.allotted_bytes).sum();
            prop_assert_eq!(allotted, all as i64);
            prop_assert_eq!(slots.iter().map(|slot| slot.used_bytes).sum::<i64>(), used);
            prop_assert_eq!(slots.iter().map(|slot| slot.used_objects).sum::<i64>(), 3);
            // No slot lets more in than is left of the quota.
            for slot in &slots[..usize::from(SLOTS)] {
                let left = (all as i64 - used).max(0);
                let (beyond, objects) = (Delta { bytes: left + 1, objects: 0 }, Delta { bytes: 0, objects: 1_000 });
                prop_assert!(slot.booked(beyond).is_none());
                prop_assert!(slot.booked(objects).is_some(), "objects have no bound");
            }
        }
    }
}
