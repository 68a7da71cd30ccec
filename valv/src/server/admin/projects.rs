//! Projects and their members.

use super::error::refused;
use super::{AdminState, Caller};
use std::sync::Arc;
use tonic::{Request, Response, Status};
use valv_metadata_api::*;
use valv_proto::admin::v1 as wire;
use valv_proto::admin::v1::projects_server::Projects;
use valv_types::{CommitId, PoolId, ProjectId, TimestampMicros};

/// Projects of one page.
const PROJECT_PAGE: u32 = 100;

/// Answers from this process's metadata service.
pub(super) struct ProjectsService(pub(super) Arc<AdminState>);

impl ProjectsService {
    /// The project of this name, for those who may know of it: its members and operators. To everybody else there is none.
    async fn known(&self, caller: &Caller, name: String) -> Result<Project, Status> {
        let metadata = self.0.metadata()?;
        let project = metadata.get_project(GetProject::Name(name)).await;
        if caller.is_operator {
            return project.map_err(refused);
        }
        let memberships = memberships(self.0.as_ref(), caller).await?;
        match project {
            Ok(project) if memberships.iter().any(|membership| membership.project == project.id) => Ok(project),
            Ok(_) => Err(refused(ProjectRefusal::NoSuchProject.into())),
            Err(error) => Err(refused(error)),
        }
    }
}

async fn memberships(state: &AdminState, caller: &Caller) -> Result<Vec<Membership>, Status> {
    match caller.user {
        Some(user) => state.metadata()?.projects_of(ProjectsOf { user }).await.map_err(refused),
        None => Ok(Vec::new()),
    }
}

#[tonic::async_trait]
impl Projects for ProjectsService {
    async fn create_project(
        &self,
        request: Request<wire::CreateProjectRequest>,
    ) -> Result<Response<wire::Project>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let create = CreateProject {
            by: caller.person(ProjectId::CLUSTER),
            name: request.name,
            namespace_name: request.namespace,
            controller: request.controller,
            properties: changes(request.properties.unwrap_or_default()),
            commit: CommitId::random(),
        };
        let made = self.0.metadata()?.create_project(create).await.map_err(refused)?;
        Ok(Response::new(project_message(made)))
    }

    async fn get_project(&self, request: Request<wire::GetProjectRequest>) -> Result<Response<wire::Project>, Status> {
        let caller = Caller::of(&request)?;
        let project = self.known(&caller, request.into_inner().name).await?;
        Ok(Response::new(project_message(project)))
    }

    async fn list_projects(
        &self,
        request: Request<wire::ListProjectsRequest>,
    ) -> Result<Response<wire::ListProjectsReply>, Status> {
        let caller = Caller::of(&request)?;
        let after = request.into_inner().after;
        let metadata = self.0.metadata()?;
        let projects = if caller.is_operator {
            let after = (!after.is_empty()).then_some(after);
            metadata.list_projects(ListProjects { after, limit: PROJECT_PAGE }).await.map_err(refused)?
        } else {
            let mut projects = Vec::new();
            let memberships = memberships(&self.0, &caller).await?;
            let page = memberships.iter().filter(|one| one.project_name > after).take(PROJECT_PAGE as usize);
            for membership in page {
                projects.push(metadata.get_project(GetProject::Id(membership.project)).await.map_err(refused)?);
            }
            projects
        };
        Ok(Response::new(wire::ListProjectsReply { projects: projects.into_iter().map(project_message).collect() }))
    }

    async fn update_project(
        &self,
        request: Request<wire::UpdateProjectRequest>,
    ) -> Result<Response<wire::Project>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let project = self.known(&caller, request.name).await?;
        let update = UpdateProject {
            by: caller.person(project.id),
            project: project.id,
            changes: changes(request.changes.unwrap_or_default()),
            commit: CommitId::random(),
        };
        let changed = self.0.metadata()?.update_project(update).await.map_err(refused)?;
        Ok(Response::new(project_message(changed)))
    }

    async fn govern_project(
        &self,
        request: Request<wire::GovernProjectRequest>,
    ) -> Result<Response<wire::Project>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let project = self.known(&caller, request.name).await?;
        let govern = GovernProject {
            by: caller.person(project.id),
            project: project.id,
            controller: request.controller,
            commit: CommitId::random(),
        };
        let governed = self.0.metadata()?.govern_project(govern).await.map_err(refused)?;
        Ok(Response::new(project_message(governed)))
    }

    async fn set_member(&self, request: Request<wire::SetMemberRequest>) -> Result<Response<wire::Member>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let project = self.known(&caller, request.project).await?;
        let roles: Result<Roles, RoleError> = request.roles.iter().map(|role| role.parse::<Role>()).collect();
        let set = SetMember {
            by: caller.person(project.id),
            project: project.id,
            user_name: request.user,
            roles: roles.map_err(|error| Status::invalid_argument(error.to_string()))?,
            commit: CommitId::random(),
        };
        let member = self.0.metadata()?.set_member(set).await.map_err(refused)?;
        Ok(Response::new(member_message(member)))
    }

    async fn remove_member(
        &self,
        request: Request<wire::RemoveMemberRequest>,
    ) -> Result<Response<wire::RemoveMemberReply>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let project = self.known(&caller, request.project).await?;
        let remove = RemoveMember {
            by: caller.person(project.id),
            project: project.id,
            user_name: request.user,
            commit: CommitId::random(),
        };
        self.0.metadata()?.remove_member(remove).await.map_err(refused)?;
        Ok(Response::new(wire::RemoveMemberReply {}))
    }

    async fn list_members(
        &self,
        request: Request<wire::ListMembersRequest>,
    ) -> Result<Response<wire::ListMembersReply>, Status> {
        let caller = Caller::of(&request)?;
        let project = self.known(&caller, request.into_inner().project).await?;
        let members = self.0.metadata()?.list_members(ListMembers { project: project.id }).await.map_err(refused)?;
        Ok(Response::new(wire::ListMembersReply { members: members.into_iter().map(member_message).collect() }))
    }
}

fn changes(asked: wire::ProjectChanges) -> ProjectChanges {
    ProjectChanges {
        organisation: asked.organisation,
        contact: asked.contact,
        legal_basis: asked.legal_basis,
        ethics_approval: asked.ethics_approval,
        note: asked.note,
        pool: asked.pool.map(PoolId),
        quota: asked.quota.map(|quota| Quota { bytes: quota.bytes, objects: quota.objects }),
        two_person_openings: asked.two_person_openings,
        paid_until: asked.paid_until.map(|paid| PaidUntil { until: paid.micros.map(TimestampMicros) }),
    }
}

fn project_message(project: Project) -> wire::Project {
    wire::Project {
        id: project.id.to_string(),
        name: project.name,
        namespace: project.namespace_name,
        pool: project.pool.0,
        created_micros: project.created.0,
        governed_micros: project.governed.map(|time| time.0),
        details: project.details.map(|details| wire::ProjectDetails {
            organisation: details.organisation,
            contact: details.contact,
            legal_basis: details.legal_basis,
            ethics_approval: details.ethics_approval,
            note: details.note,
        }),
        quota_bytes: project.quota.bytes,
        quota_objects: project.quota.objects,
        used_bytes: project.used.map(|used| used.bytes),
        used_objects: project.used.map(|used| used.objects),
        paid_until_micros: project.paid_until.map(|time| time.0),
        two_person_openings: project.two_person_openings,
    }
}

fn member_message(member: Member) -> wire::Member {
    wire::Member {
        id: member.user.to_string(),
        name: member.user_name,
        display_name: member.display_name,
        roles: member.roles.iter().map(|role| role.name().to_owned()).collect(),
        since_micros: member.since.0,
    }
}
