//! Users and access keys of a running server: those that the environment and the configuration name, made at the start,
//! and those that operators manage through the admin service.

use super::Caller;
use super::error::refused;
use crate::config::{Config, UserSection};
use crate::credentials;
use anyhow::{Context, bail};
use std::collections::HashSet;
use tonic::Status;
use valv_metadata::MetadataService;
use valv_metadata_api::*;
use valv_proto::admin::v1 as wire;
use valv_types::{AccessKeyId, CommitId, ProjectId};

/// The user, project and namespace that the first start makes.
const FIRST_USER: &str = "admin";
const FIRST_PROJECT: &str = "default";
const FIRST_NAMESPACE: &str = "default";
/// Where the environment names the first user's key.
const ID_VARIABLE: &str = "VALV_ACCESS_KEY_ID";
/// See [`ID_VARIABLE`].
const SECRET_VARIABLE: &str = "VALV_SECRET_ACCESS_KEY";
/// Users of one page: some 600 bytes each, at most some 1,300.
const USER_PAGE: u32 = 500;

/// An access key to show to the person who started the server.
pub(crate) struct FirstKey {
    /// Its public half.
    pub(crate) access_key_id: String,
    /// Its secret, if Valv made it: it is shown this once. `None`: it was given in the environment.
    pub(crate) shown_secret: Option<String>,
}

/// Makes sure of every user that the environment and the configuration name.
pub(crate) async fn ensure_all(service: &MetadataService, config: &Config) -> anyhow::Result<Option<FirstKey>> {
    let first_key = ensure_first_key(service).await?;
    for user in &config.users {
        ensure_user(service, user).await.with_context(|| format!("[[users]] {:?}", user.name))?;
    }
    Ok(first_key)
}

/// The access key of the first project: the one in the environment, or a generated one if there is no user yet.
async fn ensure_first_key(service: &MetadataService) -> anyhow::Result<Option<FirstKey>> {
    let (access_key, secret, is_generated) = match key_in_environment()? {
        Some((id, secret)) => (id, secret, false),
        None => {
            let anybody = service.list_users(ListUsers { after: None, limit: 1 }).await?;
            if !anybody.is_empty() {
                return Ok(None);
            }
            let id = credentials::check_id(&credentials::generate_access_key_id()?)?;
            (id, credentials::generate_secret()?, true)
        }
    };
    let access_key_id = access_key.to_string();
    let principal = EnsurePrincipal {
        user_name: FIRST_USER.to_owned(),
        display_name: String::new(),
        email: String::new(),
        canonical_id: String::new(),
        project_name: FIRST_PROJECT.to_owned(),
        namespace_name: FIRST_NAMESPACE.to_owned(),
        access_key,
        secret: Secret::new(secret.clone().into_bytes()),
    };
    match service.ensure_principal(principal).await {
        Ok(_) => {}
        Err(error @ MetadataError::Project { .. }) => {
            tracing::warn!(%error, "the access key of the environment is left out");
            return Ok(None);
        }
        Err(error) => return Err(error).context(ID_VARIABLE),
    }
    Ok(Some(FirstKey { access_key_id, shown_secret: is_generated.then_some(secret) }))
}

fn key_in_environment() -> anyhow::Result<Option<(AccessKeyId, String)>> {
    match (std::env::var(ID_VARIABLE).ok(), std::env::var(SECRET_VARIABLE).ok()) {
        (Some(id), Some(secret)) => {
            credentials::check_secret(&secret).context(SECRET_VARIABLE)?;
            Ok(Some((credentials::check_id(&id).context(ID_VARIABLE)?, secret)))
        }
        (None, None) => Ok(None),
        _ => bail!("{ID_VARIABLE} and {SECRET_VARIABLE} go together: one of them is not set"),
    }
}

async fn ensure_user(service: &MetadataService, user: &UserSection) -> anyhow::Result<()> {
    for key in &user.keys {
        let principal = EnsurePrincipal {
            user_name: user.name.clone(),
            display_name: user.display_name.clone(),
            email: user.email.clone(),
            canonical_id: user.canonical_id.clone(),
            project_name: key.project.clone(),
            namespace_name: key.namespace.clone(),
            access_key: key.id.clone(),
            secret: Secret::new(key.secret.0.clone().into_bytes()),
        };
        match service.ensure_principal(principal).await {
            Ok(_) => {}
            // The project has become governed since: its members decide, and the server starts all the same.
            Err(error @ MetadataError::Project { .. }) => {
                tracing::warn!(user = %user.name, key = %key.id, %error, "an access key of the configuration is left out");
            }
            Err(error) => return Err(error).with_context(|| format!("access key {}", key.id)),
        }
    }
    Ok(())
}

/// What the next start would make again if it were deleted.
#[derive(Debug, Default)]
pub(crate) struct Configured {
    users: HashSet<String>,
    keys: HashSet<String>,
}

impl Configured {
    pub(crate) fn new(config: &Config) -> Self {
        let mut configured = Self::default();
        if let Ok(id) = std::env::var(ID_VARIABLE) {
            configured.users.insert(FIRST_USER.to_owned());
            configured.keys.insert(id);
        }
        for user in &config.users {
            configured.users.insert(user.name.clone());
            configured.keys.extend(user.keys.iter().map(|key| key.id.to_string()));
        }
        configured
    }
}

#[allow(clippy::result_large_err, reason = "tonic's error type")]
fn key_id(text: &str) -> Result<AccessKeyId, Status> {
    credentials::check_id(text).map_err(|error| Status::invalid_argument(error.to_string()))
}

#[allow(clippy::result_large_err, reason = "tonic's error type")]
fn secret(bytes: &[u8]) -> Result<Secret, Status> {
    let checked = std::str::from_utf8(bytes)
        .map_err(|_| Status::invalid_argument("a secret access key must be UTF-8"))
        .and_then(|text| credentials::check_secret(text).map_err(|error| Status::invalid_argument(error.to_string())));
    checked.map(|()| Secret::new(bytes.to_vec()))
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

pub(crate) async fn ensure(
    service: &MetadataService,
    request: wire::EnsureUserRequest,
) -> Result<wire::EnsureUserReply, Status> {
    let principal = EnsurePrincipal {
        access_key: key_id(&request.access_key_id)?,
        secret: secret(&request.secret_access_key)?,
        user_name: request.name,
        display_name: request.display_name,
        email: request.email,
        canonical_id: request.canonical_id,
        project_name: request.project,
        namespace_name: request.namespace,
    };
    let made = service.ensure_principal(principal).await.map_err(refused)?;
    Ok(wire::EnsureUserReply { user: made.user.to_string(), project: made.project.to_string(), changed: made.changed })
}

pub(crate) async fn list(
    service: &MetadataService,
    request: wire::ListUsersRequest,
) -> Result<wire::ListUsersReply, Status> {
    let request = ListUsers { after: some(request.after), limit: USER_PAGE };
    let users = service.list_users(request).await.map_err(refused)?;
    Ok(wire::ListUsersReply { users: users.into_iter().map(user_message).collect() })
}

pub(crate) async fn describe(
    service: &MetadataService,
    request: wire::DescribeUserRequest,
) -> Result<wire::DescribeUserReply, Status> {
    let detail = service.describe_user(GetUser::Name(request.name)).await.map_err(refused)?;
    let keys = detail.keys.into_iter().map(key_message).collect();
    Ok(wire::DescribeUserReply { user: Some(user_message(detail.entry)), keys })
}

pub(crate) async fn update(service: &MetadataService, request: wire::UpdateUserRequest) -> Result<(), Status> {
    let request = UpdateUser {
        user_name: request.name,
        display_name: request.display_name,
        email: request.email,
        project_name: request.project,
        commit: CommitId::random(),
    };
    service.update_user(request).await.map_err(refused)?;
    Ok(())
}

pub(crate) async fn delete(
    service: &MetadataService,
    configured: &Configured,
    request: wire::DeleteUserRequest,
) -> Result<wire::DeletedReply, Status> {
    let configured = configured.users.contains(&request.name);
    let request = DeleteUser { user_name: request.name, commit: CommitId::random() };
    service.delete_user(request).await.map_err(refused)?;
    Ok(wire::DeletedReply { configured })
}

pub(crate) async fn create_key(
    service: &MetadataService,
    caller: &Caller,
    request: wire::CreateAccessKeyRequest,
) -> Result<wire::AccessKey, Status> {
    let request = CreateAccessKey {
        id: key_id(&request.id)?,
        secret: secret(&request.secret)?,
        user_name: request.user,
        project_name: some(request.project),
        namespace_name: request.namespace,
        commit: CommitId::random(),
        by: Some(caller.person(ProjectId::CLUSTER)),
    };
    service.create_access_key(request).await.map(key_message).map_err(refused)
}

pub(crate) async fn update_key(
    service: &MetadataService,
    request: wire::UpdateAccessKeyRequest,
) -> Result<wire::AccessKey, Status> {
    let state = if request.disabled { KeyState::Disabled } else { KeyState::Enabled };
    let request = UpdateAccessKey { id: key_id(&request.id)?, state, commit: CommitId::random() };
    service.update_access_key(request).await.map(key_message).map_err(refused)
}

pub(crate) async fn delete_key(
    service: &MetadataService,
    configured: &Configured,
    request: wire::DeleteAccessKeyRequest,
) -> Result<wire::DeletedReply, Status> {
    let configured = configured.keys.contains(&request.id);
    let request = DeleteAccessKey { id: key_id(&request.id)?, commit: CommitId::random() };
    service.delete_access_key(request).await.map_err(refused)?;
    Ok(wire::DeletedReply { configured })
}

fn user_message(entry: UserEntry) -> wire::User {
    wire::User {
        id: entry.user.id.to_string(),
        name: entry.user.name,
        display_name: entry.user.display_name,
        email: entry.user.email,
        canonical_id: entry.user.canonical_id,
        project: entry.project_name,
        namespace: entry.namespace_name,
        created_micros: entry.created.0,
    }
}

fn key_message(entry: AccessKeyEntry) -> wire::AccessKey {
    wire::AccessKey {
        id: entry.id.to_string(),
        project: entry.project_name,
        created_micros: entry.created.0,
        disabled: entry.state == KeyState::Disabled,
    }
}
