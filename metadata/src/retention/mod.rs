//! A project's retention class, legal holds on projects, buckets and prefixes, extension, and what the trash still has.
//!
//! Invariant: whatever removes a version expects its bucket's row, and that row says which class and which holds concern
//! the bucket ([`BucketGuard`]). The act that changes a class or a hold rewrites the rows of all buckets it concerns, in one
//! commit with its own row and its ledger record. So no removal that was judged by the old state commits after the act, a
//! project without either pays nothing, and one with them pays no further read. New buckets are guarded by the project's row
//! ([`ProjectGuardRecord`]), which their making expects, and trash of deleted buckets is, too.

mod class;
mod disposal;
mod extend;
mod holds;
mod manifest;
mod records;
mod trash;

#[cfg(test)]
pub(crate) use class::Lowering;
pub use disposal::disposal_facts;
pub(crate) use records::{BucketGuard, HeldPrefix, HoldRecord, ProjectGuardRecord, RetentionRule};

use crate::attempt::{Attempt, store_error};
use crate::quota::Limits;
use crate::records::{BucketRecord, decode, encode};
use crate::service::{Core, bucket_of, corrupt};
use crate::store::{Snapshot, Versioned};
use valv_metadata_api::MetadataError;
use valv_types::{BucketId, ProjectId};

impl BucketRecord {
    /// What the project's class demands of new versions.
    pub(crate) fn rule(&self) -> RetentionRule {
        self.guard.as_ref().map(|guard| guard.rule).unwrap_or_default()
    }

    /// Whether a legal hold on project, bucket or prefix keeps this key's versions.
    pub(crate) fn is_held(&self, key: &[u8]) -> bool {
        self.guard.as_ref().is_some_and(|guard| guard.holds.iter().any(|hold| key.starts_with(&hold.prefix)))
    }

    /// Whether any hold concerns the bucket.
    pub(crate) fn has_holds(&self) -> bool {
        self.guard.as_ref().is_some_and(|guard| !guard.holds.is_empty())
    }

    /// Replaces what guards the bucket. A guard that demands nothing is none.
    fn set_guard(&mut self, guard: BucketGuard) {
        self.guard = (guard != BucketGuard::default()).then(|| Box::new(guard));
    }
}

pub(crate) fn project_guard(row: Option<&Versioned>) -> Result<ProjectGuardRecord, MetadataError> {
    row.map_or_else(|| Ok(ProjectGuardRecord::default()), |row| decode("retention", &row.value))
}

/// What guards a bucket that is being made, from its project's row.
pub(crate) fn guard_of_new_bucket(
    row: Option<&Versioned>,
    limits: Limits,
) -> Result<Option<Box<BucketGuard>>, MetadataError> {
    let project = project_guard(row)?;
    if project.shredding.is_some() {
        return Err(MetadataError::InvalidBucketState);
    }
    let holds = project.holds.iter().map(|hold| HeldPrefix { hold: *hold, prefix: Vec::new() }).collect();
    let guard = BucketGuard { rule: project.rule, holds, limits };
    Ok((guard != BucketGuard::default()).then(|| Box::new(guard)))
}

/// Whether a hold on the whole project stands, from its row.
pub(crate) fn has_project_holds(row: Option<&Versioned>) -> Result<bool, MetadataError> {
    Ok(!project_guard(row)?.holds.is_empty())
}

impl Core {
    /// Rewrites what guards every bucket of a project. The attempt expects all their rows; the caller expects the
    /// project's, which keeps buckets from being made meanwhile.
    pub(crate) fn guard_all_buckets(
        &self,
        snapshot: &dyn Snapshot,
        attempt: &mut Attempt,
        project: ProjectId,
        change: impl Fn(&mut BucketGuard) -> Result<(), MetadataError>,
    ) -> Result<usize, MetadataError> {
        let ids = self.bucket_ids(snapshot, project)?;
        for id in &ids {
            let key = self.rows.bucket(*id);
            let row = snapshot.get(&key).map_err(store_error)?.ok_or_else(|| corrupt("bucket index"))?;
            let mut record: BucketRecord = decode("bucket", &row.value)?;
            let mut guard = record.guard.take().map(|guard| *guard).unwrap_or_default();
            change(&mut guard)?;
            record.set_guard(guard);
            attempt.expect(key.clone(), Some(&row));
            attempt.put(key, encode(&record));
        }
        Ok(ids.len())
    }

    /// The same for one bucket, which must be the project's.
    fn guard_bucket(
        &self,
        snapshot: &dyn Snapshot,
        attempt: &mut Attempt,
        project: ProjectId,
        bucket: BucketId,
        change: impl FnOnce(&mut BucketGuard) -> Result<(), MetadataError>,
    ) -> Result<(), MetadataError> {
        let key = self.rows.bucket(bucket);
        let row = snapshot.get(&key).map_err(store_error)?;
        let mut record = bucket_of(row.as_ref())?;
        if record.project != project {
            return Err(valv_metadata_api::RetentionRefusal::OtherProject.into());
        }
        let mut guard = record.guard.take().map(|guard| *guard).unwrap_or_default();
        change(&mut guard)?;
        record.set_guard(guard);
        attempt.expect(key.clone(), row.as_ref());
        attempt.put(key, encode(&record));
        Ok(())
    }
}
