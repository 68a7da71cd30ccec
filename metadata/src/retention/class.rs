//! A project's retention class.

use super::{RetentionRule, project_guard};
use crate::approvals::Carried;
use crate::attempt::{ATTEMPTS_MAX, Attempt, Plan, Settled, settle, store_error};
use crate::ledger::Event;
use crate::records::{self, EventKind};
use crate::seal::Place;
use crate::service::{Core, MetadataService, corrupt};
use crate::store::{Snapshot, Versioned};
use std::sync::Arc;
use valv_metadata_api::{
    Actor, LowerRetention, MetadataError, ProjectRetention, Proposal, RetentionRefusal, SetProjectRetention,
    check_retention_text,
};
use valv_types::ProjectId;

/// Whether a class may demand less than the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lowering {
    /// No.
    Refused,
    /// Yes: two people have decided it.
    Approved,
}

impl MetadataService {
    /// A project's retention class; one that demands nothing if none was set.
    pub async fn project_retention(&self, project: ProjectId) -> Result<ProjectRetention, MetadataError> {
        self.0.project_retention(project).await
    }

    /// Sets a project's retention class for what is written from now on, in every bucket. One commit, with its record.
    /// Lowering is refused with [`RetentionRefusal::NeedsApproval`].
    pub async fn set_project_retention(&self, request: SetProjectRetention) -> Result<(), MetadataError> {
        self.0.set_project_retention(request, Lowering::Refused).await
    }
}

impl Core {
    pub(crate) async fn project_retention(&self, project: ProjectId) -> Result<ProjectRetention, MetadataError> {
        let row = self.get(&self.rows.project_guard(project)).await?;
        self.retention_view(project, row.as_ref())
    }

    pub(crate) fn retention_view(
        &self,
        project: ProjectId,
        row: Option<&Versioned>,
    ) -> Result<ProjectRetention, MetadataError> {
        let record = project_guard(row)?;
        let class = match record.sealed.is_empty() {
            true => String::new(),
            false => {
                let bytes = self.seals.open_bytes(Place::Retention(project), record.key_version, &record.sealed)?;
                String::from_utf8(bytes).map_err(|_| corrupt("retention"))?
            }
        };
        let RetentionRule { default_days, minimum_days, lifecycle_disposal } = record.rule;
        Ok(ProjectRetention { default_days, minimum_days, lifecycle_disposal, class })
    }

    pub(crate) async fn set_project_retention(
        self: &Arc<Self>,
        request: SetProjectRetention,
        lowering: Lowering,
    ) -> Result<(), MetadataError> {
        check_retention_text(&request.reason)?;
        self.change_class(request, lowering).await
    }

    async fn change_class(
        self: &Arc<Self>,
        request: SetProjectRetention,
        lowering: Lowering,
    ) -> Result<(), MetadataError> {
        request.retention.check()?;
        let request = Arc::new(request);
        let queue = self.rows.project_guard(request.project);
        for number in 0..ATTEMPTS_MAX {
            let _turn = self.queue(number, &queue).await;
            let asked = Arc::clone(&request);
            let plan = self.scan(move |core, snapshot| core.plan_class(snapshot, &asked, lowering)).await;
            match settle(self.store.as_ref(), request.commit, number, plan).await? {
                Settled::Done(()) | Settled::Before(_) => return Ok(()),
                Settled::Again => {}
            }
        }
        Err(MetadataError::Conflict)
    }

    /// Carries out what two people have decided.
    pub(crate) async fn carry_out_lowering(
        self: &Arc<Self>,
        act: &LowerRetention,
        proposal: &Proposal,
    ) -> Result<Carried, MetadataError> {
        let request = SetProjectRetention {
            actor: Actor {
                project: act.project,
                user: Some(proposal.proposer),
                access_key: None,
                request_id: String::new(),
                remote: String::new(),
                caller: Some(format!("proposal {}", proposal.id)),
                opening: None,
            },
            project: act.project,
            retention: act.retention.clone(),
            reason: proposal.reason.clone(),
            commit: proposal.commit("class"),
        };
        // A proposal's reason may be longer than one said at once, and has lines.
        self.change_class(request, Lowering::Approved).await?;
        Ok(Carried::Done(serde_json::json!({ "minimum_days": act.retention.minimum_days })))
    }

    fn plan_class(
        &self,
        snapshot: &dyn Snapshot,
        request: &SetProjectRetention,
        lowering: Lowering,
    ) -> Result<Plan<()>, MetadataError> {
        let (project, new) = (request.project, &request.retention);
        let mut attempt = Attempt::default();
        let Some(Changed { old, buckets }) = self.put_class(snapshot, &mut attempt, project, new, lowering)? else {
            return Ok(Plan::Nothing(()));
        };
        let detail = serde_json::json!({
            "old": class_json(&old),
            "new": class_json(new),
            "reason": request.reason,
            "buckets": buckets,
        });
        let event = Event::of_project(EventKind::RetentionSet, project, self.now(), &new.class);
        self.record_act(&mut attempt, request.commit, &request.actor, &detail, event)?;
        Ok(Plan::Commit(attempt, ()))
    }

    /// Adds a new class to an attempt: the project's row, and those of all its buckets. `None` if nothing changes.
    pub(crate) fn put_class(
        &self,
        snapshot: &dyn Snapshot,
        attempt: &mut Attempt,
        project: ProjectId,
        new: &ProjectRetention,
        lowering: Lowering,
    ) -> Result<Option<Changed>, MetadataError> {
        new.check()?;
        let key = self.rows.project_guard(project);
        let row = snapshot.get(&key).map_err(store_error)?;
        let old = self.retention_view(project, row.as_ref())?;
        if old == *new {
            return Ok(None);
        }
        if lowering == Lowering::Refused && old.is_lowered_by(new) {
            return Err(RetentionRefusal::NeedsApproval.into());
        }
        let mut record = project_guard(row.as_ref())?;
        record.rule = RetentionRule {
            default_days: new.default_days,
            minimum_days: new.minimum_days,
            lifecycle_disposal: new.lifecycle_disposal,
        };
        (record.key_version, record.sealed) = match new.class.is_empty() {
            true => (0, Vec::new()),
            false => {
                let sealed = self.seals.seal_bytes(Place::Retention(project), new.class.as_bytes())?;
                (sealed.key_version, sealed.bytes)
            }
        };
        attempt.expect(key.clone(), row.as_ref());
        attempt.put(key, records::encode(&record));
        let buckets = self.guard_all_buckets(snapshot, attempt, project, |guard| {
            guard.rule = record.rule;
            Ok(())
        })?;
        Ok(Some(Changed { old, buckets }))
    }
}

/// A change of a class that an attempt has.
pub(crate) struct Changed {
    old: ProjectRetention,
    buckets: usize,
}

fn class_json(class: &ProjectRetention) -> serde_json::Value {
    serde_json::json!({
        "class": class.class,
        "default_days": class.default_days,
        "minimum_days": class.minimum_days,
        "lifecycle_disposal": class.lifecycle_disposal,
    })
}
