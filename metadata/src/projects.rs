//! Projects: making, governing and changing them, and what is told of them.
//!
//! Consistency: whatever changes a project's properties or members expects and rewrites the project's row, so of two changes
//! at once one looks again; that is also what keeps the last controller in place (`members.rs`). Every commit that puts data
//! into a project expects that row too, without writing it: no write slips past a quota or a paid-until date that was set
//! before it committed.

use crate::attempt::{ATTEMPTS_MAX, Attempt, Plan, Settled, settle, store_error};
use crate::ledger::Event;
use crate::members::MemberRecord;
use crate::principals::{FIRST_POOL, check_name, id_of_row};
use crate::quota::{QuotaRecord, quota_record};
use crate::records::{self, EventKind, NamespaceRecord, ProjectRecord};
use crate::rows::{Tag, last_id};
use crate::seal::Place;
use crate::service::{Core, MetadataService, corrupt, is_text};
use crate::store::{Snapshot, Versioned};
use serde_json::{Value, json};
use std::sync::Arc;
use valv_metadata_api::*;
use valv_types::{CommitId, NamespaceId, PoolId, ProjectId, TimestampMicros};

/// Most projects in a page: at 20 KiB each, when every text is as long as it may be, 10 MiB.
const PROJECT_PAGE_MAX: usize = 500;

/// A project that was read, with the row that a change expects.
pub(crate) struct FoundProject {
    pub(crate) id: ProjectId,
    pub(crate) row: Versioned,
    pub(crate) record: ProjectRecord,
}

/// A change of one project.
enum Change<'a> {
    Update(&'a UpdateProject),
    Govern(&'a GovernProject),
}

impl MetadataService {
    /// Lets members with one of `roles` through: the question that the admin service asks before it shows something. In a
    /// project without members operators stand in for all of them; in a governed one being an operator gives no right.
    ///
    /// # Errors
    /// [`ProjectRefusal::RoleMissing`], [`ProjectRefusal::OperatorsOnly`] or [`ProjectRefusal::NoSuchProject`].
    pub async fn require_role(&self, by: &Person, project: ProjectId, roles: &[Role]) -> Result<(), MetadataError> {
        self.0.require_role(by, project, roles).await
    }
}

impl Core {
    /// The row of a project, which must exist.
    pub(crate) async fn found_project(&self, id: ProjectId) -> Result<FoundProject, MetadataError> {
        let row = self.get(&self.rows.project(id)).await?.ok_or(ProjectRefusal::NoSuchProject)?;
        let record = records::decode("project", &row.value)?;
        Ok(FoundProject { id, row, record })
    }

    /// The record of a project, which must exist.
    pub(crate) async fn project_record(&self, id: ProjectId) -> Result<ProjectRecord, MetadataError> {
        Ok(self.found_project(id).await?.record)
    }

    /// Lets members with one of `roles` through. In a project without members operators stand in for all of them; in a
    /// governed one being an operator gives no right.
    ///
    /// # Errors
    /// [`ProjectRefusal::RoleMissing`], [`ProjectRefusal::OperatorsOnly`] or [`ProjectRefusal::NoSuchProject`].
    pub(crate) async fn require_role(
        &self,
        by: &Person,
        project: ProjectId,
        roles: &[Role],
    ) -> Result<(), MetadataError> {
        if self.project_record(project).await?.governed.is_none() {
            return if by.is_operator { Ok(()) } else { Err(ProjectRefusal::OperatorsOnly.into()) };
        }
        match by.actor.user {
            Some(user) if self.roles_of(project, user).await?.has_any(roles) => Ok(()),
            _ => Err(ProjectRefusal::RoleMissing.into()),
        }
    }

    pub(crate) async fn find_project(self: &Arc<Self>, request: GetProject) -> Result<Project, MetadataError> {
        let id = match request {
            GetProject::Id(id) => id,
            GetProject::Name(name) => {
                let row = self.get(&self.rows.project_name(&self.name_hash("project", &name)?)).await?;
                id_of_row(&row.ok_or(ProjectRefusal::NoSuchProject)?, ProjectId::from_bytes)?
            }
        };
        self.scan(move |core, snapshot| {
            let row = snapshot.get(&core.rows.project(id)).map_err(store_error)?;
            let row = row.ok_or(ProjectRefusal::NoSuchProject)?;
            core.project_view(snapshot, id, &records::decode("project", &row.value)?)
        })
        .await
    }

    pub(crate) async fn page_of_projects(
        self: &Arc<Self>,
        request: ListProjects,
    ) -> Result<Vec<Project>, MetadataError> {
        self.scan(move |core, snapshot| {
            let range = core.rows.range(Tag::Project, &[]);
            let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
            let mut found = Vec::new();
            while let Some((key, row)) = cursor.next().map_err(store_error)? {
                let id = last_id(&key).map(ProjectId::from_bytes).ok_or_else(|| corrupt("project row"))?;
                let record: ProjectRecord = records::decode("project", &row.value)?;
                let name = core.open_project_name(id, &record)?;
                if request.after.as_ref().is_none_or(|after| name > *after) {
                    found.push((name, id, record));
                }
            }
            found.sort_by(|a, b| a.0.cmp(&b.0));
            found.truncate((request.limit as usize).min(PROJECT_PAGE_MAX));
            found.into_iter().map(|(_, id, record)| core.project_view(snapshot, id, &record)).collect()
        })
        .await
    }

    pub(crate) fn open_project_name(&self, id: ProjectId, record: &ProjectRecord) -> Result<String, MetadataError> {
        let name = self.seals.open_principal(id.as_bytes(), &record.sealed_name)?;
        String::from_utf8(name).map_err(|_| corrupt("project name"))
    }

    /// The project as the API tells it.
    fn project_view(
        &self,
        snapshot: &dyn Snapshot,
        id: ProjectId,
        record: &ProjectRecord,
    ) -> Result<Project, MetadataError> {
        let namespace = snapshot.get(&self.rows.namespace(record.namespace)).map_err(store_error)?;
        let namespace = namespace.ok_or_else(|| corrupt("namespace of a project"))?;
        let sealed = records::decode::<NamespaceRecord>("namespace", &namespace.value)?.sealed_name;
        let namespace_name = self.seals.open_principal(record.namespace.as_bytes(), &sealed)?;
        let said = match self.open_details(id, record) {
            Ok(said) => Some(said),
            Err(MetadataError::KeyUnavailable | MetadataError::KeyDestroyed) => None,
            Err(error) => return Err(error),
        };
        let mut project = Project {
            id,
            name: self.open_project_name(id, record)?,
            namespace: record.namespace,
            namespace_name: String::from_utf8(namespace_name).map_err(|_| corrupt("namespace name"))?,
            pool: record.pool,
            created: record.created,
            governed: record.governed,
            details: said,
            quota: Quota::default(),
            used: None,
            paid_until: record.paid_until,
            two_person_openings: record.two_person_openings,
        };
        self.tell_quota(snapshot, record, &mut project)?;
        Ok(project)
    }

    fn open_details(&self, id: ProjectId, record: &ProjectRecord) -> Result<ProjectDetails, MetadataError> {
        match &record.sealed_details {
            Some(sealed) => self.seals.open(Place::Project(id), record.details_key_version, sealed),
            None => Ok(ProjectDetails::default()),
        }
    }

    pub(crate) async fn make_project(self: &Arc<Self>, request: CreateProject) -> Result<Project, MetadataError> {
        require_operator(&request.by)?;
        check_name(&request.name)?;
        let id = ProjectId::from_bytes(*request.commit.as_bytes());
        // The key is durable before anything can be sealed under it; without the commit it opens nothing.
        let mut has_key = false;
        for number in 0..ATTEMPTS_MAX {
            let _turn = self.queue(number, b"principals").await;
            let plan = self.plan_new_project(&request, id, &mut has_key).await;
            match settle(self.store.as_ref(), request.commit, number, plan).await? {
                Settled::Done(()) | Settled::Before(_) => return self.find_project(GetProject::Id(id)).await,
                Settled::Again => {}
            }
        }
        Err(MetadataError::Conflict)
    }

    async fn plan_new_project(
        self: &Arc<Self>,
        request: &CreateProject,
        id: ProjectId,
        has_key: &mut bool,
    ) -> Result<Plan<()>, MetadataError> {
        let now = self.now();
        let mut attempt = Attempt::default();
        let name_row = self.rows.project_name(&self.name_hash("project", &request.name)?);
        if self.get(&name_row).await?.is_some() {
            return Err(ProjectRefusal::NameTaken.into());
        }
        attempt.expect_absent(name_row.clone());
        attempt.expect_absent(self.rows.project(id));
        let controller = self.user_named(&request.controller).await?;
        let namespace = self.plan_namespace_of_project(&mut attempt, request, now).await?;
        if !*has_key {
            self.new_project_key(id).await?;
            *has_key = true;
        }
        let mut record = ProjectRecord {
            namespace,
            pool: FIRST_POOL,
            created: now,
            sealed_name: self.seals.seal_principal(id.as_bytes(), request.name.as_bytes())?,
            governed: Some(now),
            details_key_version: 0,
            sealed_details: None,
            paid_until: None,
            two_person_openings: false,
            quota: None,
        };
        let mut detail = json!({ "controller": request.controller });
        self.apply_changes(id, &mut record, &request.properties, &mut detail).await?;
        attempt.put(name_row, records::encode(&id));
        // There is nothing yet that would have to be counted.
        record.quota = record.quota.map(|quota| QuotaRecord { is_counting: false, ..quota });
        self.plan_quota(&mut attempt, id, None, &record).await?;
        attempt.put(self.rows.project(id), records::encode(&record));
        let member = MemberRecord { roles: Roles::NONE.with(Role::Controller), since: now, has_key: false };
        self.plan_membership(&mut attempt, id, controller.id, None, &member).await?;
        let event = Event::of_project(EventKind::ProjectCreated, id, now, &request.name);
        self.record_act(&mut attempt, request.commit, &request.by.actor, &detail, event)?;
        Ok(Plan::Commit(attempt, ()))
    }

    /// A namespace of the project's own must be new: found by chance, it would show the project others' bucket names.
    async fn plan_namespace_of_project(
        &self,
        attempt: &mut Attempt,
        request: &CreateProject,
        now: TimestampMicros,
    ) -> Result<NamespaceId, MetadataError> {
        if !request.namespace_name.is_empty() {
            return self.plan_namespace(attempt, &request.namespace_name, now).await;
        }
        let row = self.rows.namespace_name(&self.name_hash("namespace", &request.name)?);
        if self.get(&row).await?.is_some() {
            return Err(ProjectRefusal::NamespaceTaken.into());
        }
        self.plan_namespace(attempt, &request.name, now).await
    }

    pub(crate) async fn change_project(self: &Arc<Self>, request: UpdateProject) -> Result<Project, MetadataError> {
        self.alter_project(request.project, request.commit, Change::Update(&request)).await
    }

    pub(crate) async fn make_governed(self: &Arc<Self>, request: GovernProject) -> Result<Project, MetadataError> {
        require_operator(&request.by)?;
        self.alter_project(request.project, request.commit, Change::Govern(&request)).await
    }

    async fn alter_project(
        self: &Arc<Self>,
        project: ProjectId,
        commit: CommitId,
        change: Change<'_>,
    ) -> Result<Project, MetadataError> {
        for number in 0..ATTEMPTS_MAX {
            let turn = self.queue(number, b"principals").await;
            let plan = match &change {
                Change::Update(request) => self.plan_project_change(request).await,
                Change::Govern(request) => self.plan_governed(request).await,
            };
            match settle(self.store.as_ref(), commit, number, plan).await? {
                Settled::Done(()) | Settled::Before(_) => {
                    drop(turn);
                    // A crash before this is made good by the background pass.
                    self.finish_count(project).await?;
                    return self.find_project(GetProject::Id(project)).await;
                }
                Settled::Again => {}
            }
        }
        Err(MetadataError::Conflict)
    }

    async fn plan_governed(self: &Arc<Self>, request: &GovernProject) -> Result<Plan<()>, MetadataError> {
        let now = self.now();
        let FoundProject { id, row, mut record } = self.found_project(request.project).await?;
        if record.governed.is_some() {
            return Err(ProjectRefusal::AlreadyGoverned.into());
        }
        let controller = self.user_named(&request.controller).await?;
        record.governed = Some(now);
        let mut attempt = Attempt::default();
        attempt.expect(self.rows.project(id), Some(&row));
        attempt.put(self.rows.project(id), records::encode(&record));
        let has_key = self.has_key_in(controller.id, id).await?;
        let member = MemberRecord { roles: Roles::NONE.with(Role::Controller), since: now, has_key };
        self.plan_membership(&mut attempt, id, controller.id, None, &member).await?;
        let detail = json!({ "controller": request.controller });
        let name = self.open_project_name(id, &record)?;
        let event = Event::of_project(EventKind::ProjectGoverned, id, now, &name);
        self.record_act(&mut attempt, request.commit, &request.by.actor, &detail, event)?;
        Ok(Plan::Commit(attempt, ()))
    }

    async fn plan_project_change(self: &Arc<Self>, request: &UpdateProject) -> Result<Plan<()>, MetadataError> {
        let FoundProject { id, row, mut record } = self.found_project(request.project).await?;
        if request.changes.has_controllers() {
            self.require_role(&request.by, id, &[Role::Controller]).await?;
        }
        if request.changes.has_operators() {
            require_operator(&request.by)?;
        }
        let before = record.clone();
        let mut detail = json!({});
        self.apply_changes(id, &mut record, &request.changes, &mut detail).await?;
        if record == before {
            return Ok(Plan::Nothing(()));
        }
        let mut attempt = Attempt::default();
        attempt.expect(self.rows.project(id), Some(&row));
        attempt.put(self.rows.project(id), records::encode(&record));
        if record.quota != before.quota {
            self.plan_quota(&mut attempt, id, before.quota, &record).await?;
        }
        if record.limits() != before.limits() {
            self.plan_limits(&mut attempt, id, record.limits()).await?;
        }
        let name = self.open_project_name(id, &record)?;
        let event = Event::of_project(EventKind::ProjectChanged, id, self.now(), &name);
        self.record_act(&mut attempt, request.commit, &request.by.actor, &detail, event)?;
        Ok(Plan::Commit(attempt, ()))
    }

    /// Changes the record as asked, and notes in `detail` what was and what is now.
    pub(crate) async fn apply_changes(
        &self,
        id: ProjectId,
        record: &mut ProjectRecord,
        changes: &ProjectChanges,
        detail: &mut Value,
    ) -> Result<(), MetadataError> {
        let old = self.open_details(id, record)?;
        let mut said = old.clone();
        let texts = [
            ("organisation", &changes.organisation, &mut said.organisation),
            ("contact", &changes.contact, &mut said.contact),
            ("legal_basis", &changes.legal_basis, &mut said.legal_basis),
            ("ethics_approval", &changes.ethics_approval, &mut said.ethics_approval),
            ("note", &changes.note, &mut said.note),
        ];
        for (name, new, kept) in texts {
            let Some(new) = new.as_ref().filter(|new| *new != kept) else { continue };
            check_text(new)?;
            detail[name] = json!({ "from": kept, "to": new });
            kept.clone_from(new);
        }
        if said != old {
            let sealed = self.seals.seal(Place::Project(id), &said)?;
            record.details_key_version = sealed.key_version;
            record.sealed_details = Some(sealed.bytes);
        }
        match changes.two_person_openings {
            Some(false) if record.two_person_openings => return Err(OpeningRefusal::NeedsSecondPerson.into()),
            Some(true) if !record.two_person_openings => {
                detail["two_person_openings"] = json!({ "from": false, "to": true });
                record.two_person_openings = true;
            }
            _ => {}
        }
        if let Some(pool) = changes.pool.filter(|pool| *pool != record.pool) {
            self.check_pool(pool).await?;
            detail["pool"] = json!({ "from": record.pool.0, "to": pool.0 });
            record.pool = pool;
        }
        let quota_before = record.quota.map(|quota| Quota { bytes: quota.bytes, objects: quota.objects });
        if let Some(quota) = changes.quota.filter(|quota| *quota != quota_before.unwrap_or_default()) {
            let quota_json = |quota: Quota| json!({ "bytes": quota.bytes, "objects": quota.objects });
            detail["quota"] = json!({ "from": quota_json(quota_before.unwrap_or_default()), "to": quota_json(quota) });
            // One that takes the place of another goes on counting where that one was.
            let is_counting = record.quota.is_none_or(|before| before.is_counting);
            record.quota = quota_record(quota, is_counting)?;
        }
        if let Some(PaidUntil { until }) = changes.paid_until.filter(|paid| paid.until != record.paid_until) {
            let micros = |time: Option<TimestampMicros>| time.map(|time| time.0);
            detail["paid_until"] = json!({ "from": micros(record.paid_until), "to": micros(until) });
            record.paid_until = until;
        }
        Ok(())
    }

    async fn check_pool(&self, pool: PoolId) -> Result<(), MetadataError> {
        let found = self.get(&self.rows.pool(pool)).await?;
        found.map(|_| ()).ok_or_else(|| ProjectRefusal::NoSuchPool.into())
    }
}

pub(crate) fn require_operator(by: &Person) -> Result<(), MetadataError> {
    if by.is_operator { Ok(()) } else { Err(ProjectRefusal::OperatorsOnly.into()) }
}

fn check_text(text: &str) -> Result<(), MetadataError> {
    if is_text(text, PROJECT_TEXT_LEN_BYTES_MAX) { Ok(()) } else { Err(ProjectRefusal::TextMalformed.into()) }
}
