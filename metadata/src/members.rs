//! Members of governed projects: their roles, and which access keys they may have.
//!
//! Consistency: a change of members expects and rewrites the project's row (see `projects.rs`), so the count of controllers
//! that it was judged on still holds when it commits. It rewrites the user's row as well, where it meets with the deletion of
//! that user. A new access key expects its member's row: a membership that ends at the same moment leaves no key behind that
//! was not judged against it.
//!
//! Who makes an access key knows its secret, and could act as its user. So a member's first key in a project may be made by an
//! operator, who has to get the member started somehow, and the row remembers that it was; whoever makes a further one is the
//! member or a controller.

use crate::attempt::{ATTEMPTS_MAX, Attempt, Plan, Settled, settle, store_error};
use crate::ledger::Event;
use crate::projects::FoundProject;
use crate::records::{self, EventKind, ProjectRecord, UserRecord};
use crate::rows::{Tag, last_id};
use crate::service::{Core, corrupt};
use crate::store::{Snapshot, Versioned};
use crate::users::FoundUser;
use bytes::Bytes;
use minicbor::{Decode, Encode};
use serde_json::json;
use std::sync::Arc;
use valv_metadata_api::*;
use valv_types::{CommitId, ProjectId, TimestampMicros, UserId};

/// A member's row.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(crate) struct MemberRecord {
    #[n(0)]
    pub(crate) roles: Roles,
    #[n(1)]
    pub(crate) since: TimestampMicros,
    /// Whether an access key was ever made for the member here.
    #[n(2)]
    pub(crate) has_key: bool,
}

/// A change of members.
enum Change<'a> {
    Set(&'a SetMember),
    Remove(&'a RemoveMember),
}

/// A member's row as it was read.
pub(crate) struct FoundMember {
    pub(crate) row: Versioned,
    pub(crate) record: MemberRecord,
}

impl Core {
    /// What a user may do in a project: none if the user is no member, or if the project has none.
    pub(crate) async fn roles_of(&self, project: ProjectId, user: UserId) -> Result<Roles, MetadataError> {
        Ok(self.found_member(project, user).await?.map_or(Roles::NONE, |member| member.record.roles))
    }

    pub(crate) async fn found_member(
        &self,
        project: ProjectId,
        user: UserId,
    ) -> Result<Option<FoundMember>, MetadataError> {
        let Some(row) = self.get(&self.rows.member(project, user)).await? else { return Ok(None) };
        let record = records::decode("member", &row.value)?;
        Ok(Some(FoundMember { row, record }))
    }

    pub(crate) async fn add_member(self: &Arc<Self>, request: SetMember) -> Result<Member, MetadataError> {
        if request.roles.is_empty() {
            return Err(ProjectRefusal::NoRole.into());
        }
        self.change_members(Change::Set(&request), request.commit).await?;
        let user = self.user_named(&request.user_name).await?;
        let member = self.found_member(request.project, user.id).await?.ok_or(ProjectRefusal::NoSuchMember)?;
        Ok(member_view(user.id, user.names.name, user.names.display_name, &member.record))
    }

    pub(crate) async fn end_membership(self: &Arc<Self>, request: RemoveMember) -> Result<Empty, MetadataError> {
        self.change_members(Change::Remove(&request), request.commit).await?;
        Ok(Empty {})
    }

    async fn change_members(self: &Arc<Self>, change: Change<'_>, commit: CommitId) -> Result<(), MetadataError> {
        for number in 0..ATTEMPTS_MAX {
            let _turn = self.queue(number, b"principals").await;
            let plan = match &change {
                Change::Set(request) => self.plan_member(request).await,
                Change::Remove(request) => self.plan_member_removal(request).await,
            };
            match settle(self.store.as_ref(), commit, number, plan).await? {
                Settled::Done(()) | Settled::Before(_) => return Ok(()),
                Settled::Again => {}
            }
        }
        Err(MetadataError::Conflict)
    }

    /// The project, which must have members, with an attempt that meets every other change of them.
    pub(crate) async fn governed_project(&self, id: ProjectId) -> Result<(FoundProject, Attempt), MetadataError> {
        let project = self.found_project(id).await?;
        if project.record.governed.is_none() {
            return Err(ProjectRefusal::Ungoverned.into());
        }
        let mut attempt = Attempt::default();
        attempt.expect(self.rows.project(id), Some(&project.row));
        attempt.put(self.rows.project(id), project.row.value.clone());
        Ok((project, attempt))
    }

    /// Makes `user` the member that `record` says, over the row as it was `found`. Every way to become a member takes this one,
    /// and so meets with the deletion of that user.
    pub(crate) async fn plan_membership(
        &self,
        attempt: &mut Attempt,
        project: ProjectId,
        user: UserId,
        found: Option<&Versioned>,
        record: &MemberRecord,
    ) -> Result<(), MetadataError> {
        self.plan_use_of_user(attempt, user).await?;
        attempt.expect(self.rows.member(project, user), found);
        attempt.put(self.rows.member(project, user), records::encode(record));
        attempt.put(self.rows.membership(user, project), Bytes::new());
        Ok(())
    }

    async fn plan_member(self: &Arc<Self>, request: &SetMember) -> Result<Plan<()>, MetadataError> {
        let (project, mut attempt) = self.governed_project(request.project).await?;
        self.require_role(&request.by, project.id, &[Role::Controller]).await?;
        let user = self.user_named(&request.user_name).await?;
        let found = self.found_member(project.id, user.id).await?;
        let record = match &found {
            Some(member) if member.record.roles == request.roles => return Ok(Plan::Nothing(())),
            Some(member) => MemberRecord { roles: request.roles, ..member.record.clone() },
            None => {
                let has_key = self.has_key_in(user.id, project.id).await?;
                MemberRecord { roles: request.roles, since: self.now(), has_key }
            }
        };
        let before = found.as_ref().map_or(Roles::NONE, |member| member.record.roles);
        self.check_members(project.id, user.id, found.is_none(), (before, request.roles)).await?;
        let row = found.as_ref().map(|member| &member.row);
        self.plan_membership(&mut attempt, project.id, user.id, row, &record).await?;
        let detail = json!({ "from": role_names(before), "to": role_names(request.roles) });
        let event = Event::of_project(EventKind::MemberSet, project.id, self.now(), &user.names.name);
        self.record_act(&mut attempt, request.commit, &request.by.actor, &detail, event)?;
        Ok(Plan::Commit(attempt, ()))
    }

    async fn plan_member_removal(self: &Arc<Self>, request: &RemoveMember) -> Result<Plan<()>, MetadataError> {
        let (project, mut attempt) = self.governed_project(request.project).await?;
        let user = self.user_named(&request.user_name).await?;
        // Whoever is a member may leave.
        if request.by.actor.user != Some(user.id) {
            self.require_role(&request.by, project.id, &[Role::Controller]).await?;
        }
        let member = self.found_member(project.id, user.id).await?.ok_or(ProjectRefusal::NoSuchMember)?;
        self.check_members(project.id, user.id, false, (member.record.roles, Roles::NONE)).await?;
        attempt.expect(self.rows.member(project.id, user.id), Some(&member.row));
        attempt.remove(self.rows.member(project.id, user.id));
        attempt.remove(self.rows.membership(user.id, project.id));
        self.plan_use_of_user(&mut attempt, user.id).await?;
        let detail = json!({ "from": role_names(member.record.roles), "to": [] });
        let event = Event::of_project(EventKind::MemberRemoved, project.id, self.now(), &user.names.name);
        self.record_act(&mut attempt, request.commit, &request.by.actor, &detail, event)?;
        Ok(Plan::Commit(attempt, ()))
    }

    /// Demands that a controller remains, and that there is room for a new member.
    async fn check_members(
        self: &Arc<Self>,
        project: ProjectId,
        user: UserId,
        is_new: bool,
        (before, after): (Roles, Roles),
    ) -> Result<(), MetadataError> {
        let members = self.scan(move |core, snapshot| core.members_in(snapshot, project)).await?;
        if is_new && members.len() >= MEMBERS_MAX {
            return Err(ProjectRefusal::TooManyMembers.into());
        }
        if before.has(Role::Controller) && !after.has(Role::Controller) && !has_other_controller(&members, user) {
            return Err(ProjectRefusal::LastController.into());
        }
        Ok(())
    }

    pub(crate) fn members_in(
        &self,
        snapshot: &dyn Snapshot,
        project: ProjectId,
    ) -> Result<Vec<(UserId, MemberRecord)>, MetadataError> {
        let range = self.rows.range(Tag::Member, &[project.as_bytes()]);
        let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
        let mut members = Vec::new();
        while let Some((key, row)) = cursor.next().map_err(store_error)? {
            let user = last_id(&key).map(UserId::from_bytes).ok_or_else(|| corrupt("member row"))?;
            members.push((user, records::decode("member", &row.value)?));
        }
        Ok(members)
    }

    pub(crate) async fn all_members(self: &Arc<Self>, request: ListMembers) -> Result<Vec<Member>, MetadataError> {
        self.scan(move |core, snapshot| {
            if snapshot.get(&core.rows.project(request.project)).map_err(store_error)?.is_none() {
                return Err(ProjectRefusal::NoSuchProject.into());
            }
            let mut members = Vec::new();
            for (id, record) in core.members_in(snapshot, request.project)? {
                let row = snapshot.get(&core.rows.user(id)).map_err(store_error)?;
                let row = row.ok_or_else(|| corrupt("user of a member"))?;
                let names = core.user_names(id, &records::decode::<UserRecord>("user", &row.value)?)?;
                members.push(member_view(id, names.name, names.display_name, &record));
            }
            members.sort_by(|a, b| a.user_name.cmp(&b.user_name));
            Ok(members)
        })
        .await
    }

    pub(crate) async fn memberships(self: &Arc<Self>, request: ProjectsOf) -> Result<Vec<Membership>, MetadataError> {
        self.scan(move |core, snapshot| {
            let mut found = Vec::new();
            for project in core.projects_with(snapshot, request.user)? {
                let row = snapshot.get(&core.rows.project(project)).map_err(store_error)?;
                let row = row.ok_or_else(|| corrupt("project of a member"))?;
                let project_name = core.open_project_name(project, &records::decode("project", &row.value)?)?;
                let row = snapshot.get(&core.rows.member(project, request.user)).map_err(store_error)?;
                let row = row.ok_or_else(|| corrupt("member row"))?;
                let record: MemberRecord = records::decode("member", &row.value)?;
                found.push(Membership { project, project_name, roles: record.roles, since: record.since });
            }
            found.sort_by(|a, b| a.project_name.cmp(&b.project_name));
            Ok(found)
        })
        .await
    }

    fn projects_with(&self, snapshot: &dyn Snapshot, user: UserId) -> Result<Vec<ProjectId>, MetadataError> {
        let range = self.rows.range(Tag::Membership, &[user.as_bytes()]);
        let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
        let mut projects = Vec::new();
        while let Some((key, _)) = cursor.next().map_err(store_error)? {
            projects.push(last_id(&key).map(ProjectId::from_bytes).ok_or_else(|| corrupt("membership row"))?);
        }
        Ok(projects)
    }

    pub(crate) async fn has_key_in(self: &Arc<Self>, user: UserId, project: ProjectId) -> Result<bool, MetadataError> {
        self.scan(move |core, snapshot| {
            Ok(core.keys_of_user(snapshot, user)?.iter().any(|(_, _, key)| key.project == project))
        })
        .await
    }

    /// Judges a new access key in a project; in an ungoverned one, or one that is being made, operators make all keys. `by` is
    /// `None` for operators.
    pub(crate) async fn plan_key_of_member(
        &self,
        attempt: &mut Attempt,
        project: ProjectId,
        user: UserId,
        by: Option<&Person>,
    ) -> Result<(), MetadataError> {
        let operator_asks = by.is_none_or(|by| by.is_operator);
        let row = self.get(&self.rows.project(project)).await?;
        let is_governed = match &row {
            Some(row) => records::decode::<ProjectRecord>("project", &row.value)?.governed.is_some(),
            None => false,
        };
        // Becoming governed at this moment would leave a key that nobody judged.
        if let Some(row) = &row {
            attempt.expect(self.rows.project(project), Some(row));
        }
        if !is_governed {
            return if operator_asks { Ok(()) } else { Err(ProjectRefusal::OperatorsOnly.into()) };
        }
        let member = self.found_member(project, user).await?.ok_or(ProjectRefusal::KeyOfStranger)?;
        let person = by.and_then(|by| by.actor.user);
        let may = match person {
            Some(person) if person == user => true,
            Some(person) if self.roles_of(project, person).await?.has(Role::Controller) => true,
            _ => operator_asks && !member.record.has_key,
        };
        if !may {
            return Err(ProjectRefusal::KeyOfMember.into());
        }
        let key = self.rows.member(project, user);
        attempt.expect(key.clone(), Some(&member.row));
        if !member.record.has_key {
            attempt.put(key, records::encode(&MemberRecord { has_key: true, ..member.record }));
        }
        Ok(())
    }

    /// Ends all memberships of a user who is being deleted. Refused where the user is the last controller.
    pub(crate) async fn plan_end_of_memberships(
        self: &Arc<Self>,
        attempt: &mut Attempt,
        commit: CommitId,
        user: &FoundUser,
    ) -> Result<(), MetadataError> {
        let id = user.id;
        let found = self
            .scan(move |core, snapshot| {
                let projects = core.projects_with(snapshot, id)?;
                projects.into_iter().map(|project| Ok((project, core.members_in(snapshot, project)?))).collect::<Result<
                    Vec<_>,
                    MetadataError,
                >>(
                )
            })
            .await?;
        for (number, (project, members)) in found.into_iter().enumerate() {
            let row = self.found_project(project).await?.row;
            attempt.expect(self.rows.project(project), Some(&row));
            attempt.put(self.rows.project(project), row.value);
            let roles =
                members.iter().find(|(member, _)| *member == id).map_or(Roles::NONE, |(_, record)| record.roles);
            if roles.has(Role::Controller) && !has_other_controller(&members, id) {
                return Err(ProjectRefusal::UserIsLastController.into());
            }
            attempt.remove(self.rows.member(project, id));
            attempt.remove(self.rows.membership(id, project));
            let event = Event::of_project(EventKind::MemberRemoved, project, self.now(), &user.names.name);
            let detail = json!({ "from": role_names(roles), "to": [], "why": "the user was deleted" });
            self.record_act_of(attempt, commit_of_step(commit, number), None, &detail, event)?;
        }
        Ok(())
    }
}

/// An id of a further ledger record in the commit `commit`.
fn commit_of_step(commit: CommitId, number: usize) -> CommitId {
    let mut hasher = blake3::Hasher::new_derive_key("valv end of membership v1");
    hasher.update(commit.as_bytes()).update(&number.to_be_bytes());
    let mut id = [0; 16];
    hasher.finalize_xof().fill(&mut id);
    CommitId::from_bytes(id)
}

fn has_other_controller(members: &[(UserId, MemberRecord)], user: UserId) -> bool {
    members.iter().any(|(member, record)| *member != user && record.roles.has(Role::Controller))
}

fn member_view(user: UserId, user_name: String, display_name: String, record: &MemberRecord) -> Member {
    Member { user, user_name, display_name, roles: record.roles, since: record.since }
}

fn role_names(roles: Roles) -> Vec<&'static str> {
    roles.iter().map(Role::name).collect()
}
