//! Users, access keys, projects and namespaces.

use crate::attempt::{ATTEMPTS_MAX, Attempt, Plan, Settled, settle};
use crate::members::MemberRecord;
use crate::records::{self, AccessKeyRecord, EventKind, NamespaceRecord, ProjectRecord, UserNames, UserRecord};

use crate::rows::{NameHash, UserIndexKind, last_id};
use crate::seal::Place;
use crate::service::{Core, corrupt};
use crate::store::{Key, Versioned};
use crate::users::{FoundUser, user_view};
use std::sync::Arc;
use valv_metadata_api::*;
use valv_types::{BucketId, CommitId, NamespaceId, PoolId, ProjectId, TimestampMicros, UserId};

/// A gateway may rely on an access key for this long: the architecture's bound on revocation.
const ACCESS_LEASE_MS: u32 = 3_000;
/// The pool of new projects.
pub(crate) const FIRST_POOL: PoolId = PoolId(1);
/// The namespace of a new project for which none is named.
const DEFAULT_NAMESPACE: &str = "default";
/// Longest name of a user, project or namespace, in bytes.
const NAME_LEN_BYTES_MAX: usize = 256;

/// Something that a name row points to: the id found, or a fresh one for what has to be made.
struct Named<I> {
    id: I,
    row: Key,
    found: Option<Versioned>,
}

/// A project that is there, or will be with the commit.
pub(crate) struct PlannedProject {
    pub(crate) id: ProjectId,
    pub(crate) namespace: NamespaceId,
    pub(crate) is_new: bool,
}

/// A user who is there, or will be with the commit.
enum EnsuredUser {
    Found(Box<FoundUser>),
    New(UserId),
}

impl EnsuredUser {
    fn id(&self) -> UserId {
        match self {
            Self::Found(found) => found.id,
            Self::New(id) => *id,
        }
    }
}

/// What becomes of the access key.
enum EnsuredKey {
    Same,
    Replaced,
    Made,
}

/// A name of a user, project or namespace, or what else is said of a user.
pub(crate) fn check_name(name: &str) -> Result<(), MetadataError> {
    let is_good = !name.is_empty() && name.len() <= NAME_LEN_BYTES_MAX && !name.chars().any(char::is_control);
    if is_good { Ok(()) } else { Err(PrincipalConflict::NameMalformed.into()) }
}

impl Core {
    pub(crate) async fn find_access_key(&self, request: GetAccessKey) -> Result<AccessGrant, MetadataError> {
        let row = self.get(&self.rows.access_key(&request.id)).await?.ok_or(MetadataError::NoSuchAccessKey)?;
        let key: AccessKeyRecord = records::decode("access key", &row.value)?;
        if key.disabled {
            return Err(MetadataError::NoSuchAccessKey);
        }
        let member = self.rows.member(key.project, key.user);
        let [user, project, member] =
            self.get_rows(&[self.rows.user(key.user), self.rows.project(key.project), member]).await?;
        let Some(user) = user else {
            // A user is deleted together with all keys.
            return match self.get(&self.rows.access_key(&request.id)).await? {
                None => Err(MetadataError::NoSuchAccessKey),
                Some(_) => Err(corrupt("user of an access key")),
            };
        };
        let project = project.ok_or_else(|| corrupt("project of an access key"))?;
        let names = self.user_names(key.user, &records::decode("user", &user.value)?)?;
        let project: ProjectRecord = records::decode("project", &project.value)?;
        let roles = match member {
            Some(member) => records::decode::<MemberRecord>("member", &member.value)?.roles,
            None => Roles::NONE,
        };
        // Whoever is no member any more is refused as if the key were not there.
        if project.governed.is_some() && roles.is_empty() {
            return Err(MetadataError::NoSuchAccessKey);
        }
        let project_name = self.seals.open_principal(key.project.as_bytes(), &project.sealed_name)?;
        let secret = self.seals.open_access_secret(&request.id, key.user, key.project, &key.sealed_secret)?;
        Ok(AccessGrant {
            secret: Secret::new(secret),
            user: key.user,
            canonical_id: names.canonical_id,
            display_name: names.display_name,
            project: key.project,
            namespace: project.namespace,
            lease_ms: ACCESS_LEASE_MS,
            user_name: names.name,
            project_name: String::from_utf8(project_name).map_err(|_| corrupt("project name"))?,
            roles,
            is_governed: project.governed.is_some(),
        })
    }

    pub(crate) fn user_names(&self, id: UserId, record: &UserRecord) -> Result<UserNames, MetadataError> {
        records::decode("user", &self.seals.open_principal(id.as_bytes(), &record.sealed)?)
    }

    pub(crate) async fn find_user(&self, request: GetUser) -> Result<User, MetadataError> {
        let index = match &request {
            GetUser::Id(_) => None,
            GetUser::Name(name) => Some(self.user_index_row(UserIndexKind::Name, name)?),
            GetUser::Canonical(id) => Some(self.user_index_row(UserIndexKind::Canonical, id)?),
            GetUser::Email(email) => Some(self.user_index_row(UserIndexKind::Email, &email.to_lowercase())?),
        };
        let id = match (request, index) {
            (GetUser::Id(id), _) => id,
            (_, Some(index)) => {
                let row = self.get(&index).await?.ok_or(MetadataError::NoSuchUser)?;
                id_of_row(&row, UserId::from_bytes)?
            }
            (_, None) => return Err(MetadataError::NoSuchUser),
        };
        let row = self.get(&self.rows.user(id)).await?.ok_or(MetadataError::NoSuchUser)?;
        let record: UserRecord = records::decode("user", &row.value)?;
        let names = self.user_names(id, &record)?;
        Ok(user_view(id, &record, names))
    }

    pub(crate) async fn find_namespace(&self, request: GetNamespace) -> Result<Namespace, MetadataError> {
        let row = self.rows.namespace_name(&self.name_hash("namespace", &request.name)?);
        let row = self.get(&row).await?.ok_or(MetadataError::NoSuchNamespace)?;
        Ok(Namespace { id: id_of_row(&row, NamespaceId::from_bytes)? })
    }

    pub(crate) fn user_index_row(&self, kind: UserIndexKind, value: &str) -> Result<Key, MetadataError> {
        let word = match kind {
            UserIndexKind::Name => "user name",
            UserIndexKind::Canonical => "canonical id",
            UserIndexKind::Email => "email",
        };
        Ok(self.rows.user_index(kind, &self.name_hash(word, value)?))
    }

    pub(crate) async fn lend_project_key(&self, request: GetProjectKey) -> Result<ProjectKeyLease, MetadataError> {
        let key = self.keys_of(request.project, request.version)?;
        Ok(ProjectKeyLease {
            version: key.version(),
            key: Secret::new(key.expose().to_vec()),
            lease_ms: self.config.key_lease_ms,
        })
    }

    fn keys_of(&self, project: ProjectId, version: Option<u32>) -> Result<valv_codec::ProjectKey, MetadataError> {
        self.seals.keys().project_key(project, version).map_err(|error| {
            tracing::warn!(%project, %error, "a project key could not be lent");
            crate::seal::no_key(error)
        })
    }

    pub(crate) async fn make_principal(
        self: &Arc<Self>,
        request: EnsurePrincipal,
    ) -> Result<EnsuredPrincipal, MetadataError> {
        check_name(&request.user_name)?;
        let commit = CommitId::random();
        let first = self.name_hash("user name", &request.user_name)?;
        for number in 0..ATTEMPTS_MAX {
            let _turn = self.queue(number, &first).await;
            let plan = self.plan_principal(&request, commit).await;
            if let Settled::Done(answer) = settle(self.store.as_ref(), commit, number, plan).await? {
                return Ok(answer);
            }
        }
        Err(MetadataError::Conflict)
    }

    async fn named<I>(
        &self,
        row: Key,
        from_bytes: fn([u8; 16]) -> I,
        random: fn() -> I,
    ) -> Result<Named<I>, MetadataError> {
        let found = self.get(&row).await?;
        let id = match &found {
            Some(row) => id_of_row(row, from_bytes)?,
            None => random(),
        };
        Ok(Named { id, row, found })
    }

    async fn plan_principal(
        self: &Arc<Self>,
        request: &EnsurePrincipal,
        commit: CommitId,
    ) -> Result<Plan<EnsuredPrincipal>, MetadataError> {
        let now = self.now();
        let mut attempt = Attempt::default();
        let project = self.plan_project(&mut attempt, &request.project_name, &request.namespace_name, now).await?;
        let (user, user_changed) = self.plan_ensured_user(&mut attempt, request, project.id, now).await?;
        let key_changed = self.plan_ensured_key(&mut attempt, request, &user, project.id, now).await?;
        let id = user.id();
        // A new key makes the user's row new too, unless it is being written anyway: see `users`.
        if let (EnsuredUser::Found(found), false, EnsuredKey::Made) = (&user, user_changed, &key_changed) {
            attempt.put(self.rows.user(id), found.row.value.clone());
        }

        let changed = project.is_new || user_changed || !matches!(key_changed, EnsuredKey::Same);
        let answer = EnsuredPrincipal { user: id, project: project.id, namespace: project.namespace, changed };
        if !changed {
            return Ok(Plan::Nothing(answer));
        }
        self.record_principal_event(&mut attempt, commit, EventKind::PrincipalEnsured, project.id, &request.user_name)?;
        Ok(Plan::Commit(attempt, answer))
    }

    /// Finds a project, or adds it with its namespace and its first key. No namespace means the project's own, and that
    /// of a new one is then [`DEFAULT_NAMESPACE`].
    pub(crate) async fn plan_project(
        &self,
        attempt: &mut Attempt,
        name: &str,
        namespace_name: &str,
        now: TimestampMicros,
    ) -> Result<PlannedProject, MetadataError> {
        check_name(name)?;
        let row = self.rows.project_name(&self.name_hash("project", name)?);
        let project = self.named(row, ProjectId::from_bytes, ProjectId::random).await?;
        attempt.expect(project.row.clone(), project.found.as_ref());
        if project.found.is_some() {
            let row = self.get(&self.rows.project(project.id)).await?.ok_or_else(|| corrupt("project"))?;
            let namespace = records::decode::<ProjectRecord>("project", &row.value)?.namespace;
            if !namespace_name.is_empty() {
                let named = self.get(&self.rows.namespace_name(&self.name_hash("namespace", namespace_name)?)).await?;
                let named = named.map(|row| id_of_row(&row, NamespaceId::from_bytes)).transpose()?;
                if named != Some(namespace) {
                    return Err(PrincipalConflict::OtherNamespace.into());
                }
            }
            return Ok(PlannedProject { id: project.id, namespace, is_new: false });
        }
        let namespace_name = if namespace_name.is_empty() { DEFAULT_NAMESPACE } else { namespace_name };
        let namespace = self.plan_namespace(attempt, namespace_name, now).await?;
        // The key is durable before anything can be sealed under it; without the commit it opens nothing.
        self.new_project_key(project.id).await?;
        let sealed_name = self.seals.seal_principal(project.id.as_bytes(), name.as_bytes())?;
        let record = ProjectRecord {
            namespace,
            pool: FIRST_POOL,
            created: now,
            sealed_name,
            governed: None,
            details_key_version: 0,
            sealed_details: None,
            paid_until: None,
            two_person_openings: false,
            quota: None,
        };
        attempt.put(self.rows.project(project.id), records::encode(&record));
        attempt.put(project.row, records::encode(&project.id));
        Ok(PlannedProject { id: project.id, namespace, is_new: true })
    }

    /// The project of this name, which must exist.
    pub(crate) async fn project_named(&self, name: &str) -> Result<ProjectId, MetadataError> {
        let row = self.get(&self.rows.project_name(&self.name_hash("project", name)?)).await?;
        id_of_row(&row.ok_or(PrincipalConflict::NoSuchProject)?, ProjectId::from_bytes)
    }

    /// Adds the user, or changes the names of one who is there. Returns whether the user's row is written.
    async fn plan_ensured_user(
        &self,
        attempt: &mut Attempt,
        request: &EnsurePrincipal,
        project: ProjectId,
        now: TimestampMicros,
    ) -> Result<(EnsuredUser, bool), MetadataError> {
        let index = self.user_index_row(UserIndexKind::Name, &request.user_name)?;
        let user = self.named(index, UserId::from_bytes, UserId::random).await?;
        attempt.expect(user.row.clone(), user.found.as_ref());
        if user.found.is_none() {
            attempt.put(user.row, records::encode(&user.id));
            self.plan_user(attempt, request, user.id, project, now).await?;
            return Ok((EnsuredUser::New(user.id), true));
        }
        let found = self.user_with(user.id).await?;
        if !request.canonical_id.is_empty() && request.canonical_id != found.names.canonical_id {
            return Err(PrincipalConflict::CanonicalIdFixed.into());
        }
        let or_kept = |wanted: &str, kept: &str| if wanted.is_empty() { kept.to_owned() } else { wanted.to_owned() };
        let display_name = or_kept(&request.display_name, &found.names.display_name);
        let email = or_kept(&request.email, &found.names.email);
        // The default project was chosen when the user was made; `project` is only that of the key.
        let default = found.record.project;
        let changed = self.plan_user_update(attempt, &found, &display_name, &email, default).await?;
        Ok((EnsuredUser::Found(Box::new(found)), changed))
    }

    async fn plan_ensured_key(
        self: &Arc<Self>,
        attempt: &mut Attempt,
        request: &EnsurePrincipal,
        user: &EnsuredUser,
        project: ProjectId,
        now: TimestampMicros,
    ) -> Result<EnsuredKey, MetadataError> {
        let row = self.rows.access_key(&request.access_key);
        let found = self.get(&row).await?;
        attempt.expect(row.clone(), found.as_ref());
        let (mut record, outcome) = match &found {
            Some(found) => {
                let record: AccessKeyRecord = records::decode("access key", &found.value)?;
                if (record.user, record.project) != (user.id(), project) {
                    return Err(PrincipalConflict::AccessKeyTaken.into());
                }
                if self.secret_is(&request.access_key, &record, request.secret.expose())? {
                    return Ok(EnsuredKey::Same);
                }
                if self.project_record(project).await?.governed.is_some() {
                    return Err(ProjectRefusal::SecretFixed.into());
                }
                // A key that an operator has disabled stays so, whatever its secret.
                (record, EnsuredKey::Replaced)
            }
            None => {
                if let EnsuredUser::Found(found) = user {
                    self.plan_room_for_key(attempt, found).await?;
                }
                let user = user.id();
                self.plan_key_of_member(attempt, project, user, None).await?;
                let record =
                    AccessKeyRecord { user, project, created: now, disabled: false, sealed_secret: Vec::new() };
                (record, EnsuredKey::Made)
            }
        };
        record.sealed_secret =
            self.seals.seal_access_secret(&request.access_key, record.user, project, request.secret.expose())?;
        attempt.put(row, records::encode(&record));
        Ok(outcome)
    }

    fn secret_is(
        &self,
        id: &valv_types::AccessKeyId,
        record: &AccessKeyRecord,
        wanted: &[u8],
    ) -> Result<bool, MetadataError> {
        let secret =
            Secret::new(self.seals.open_access_secret(id, record.user, record.project, &record.sealed_secret)?);
        // Not an authentication: the caller is the operator's own configuration.
        Ok(secret.expose() == wanted)
    }

    pub(crate) async fn new_project_key(&self, project: ProjectId) -> Result<(), MetadataError> {
        let keys = Arc::clone(self.seals.keys());
        let made = tokio::task::spawn_blocking(move || keys.ensure_project_key(project)).await;
        match made {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(MetadataError::Unavailable { what: error.to_string() }),
            Err(error) => Err(MetadataError::Unavailable { what: error.to_string() }),
        }
    }

    pub(crate) async fn plan_namespace(
        &self,
        attempt: &mut Attempt,
        name: &str,
        now: TimestampMicros,
    ) -> Result<NamespaceId, MetadataError> {
        check_name(name)?;
        let row = self.rows.namespace_name(&self.name_hash("namespace", name)?);
        let namespace = self.named(row, NamespaceId::from_bytes, NamespaceId::random).await?;
        attempt.expect(namespace.row.clone(), namespace.found.as_ref());
        if namespace.found.is_none() {
            let sealed_name = self.seals.seal_principal(namespace.id.as_bytes(), name.as_bytes())?;
            attempt.put(
                self.rows.namespace(namespace.id),
                records::encode(&NamespaceRecord { created: now, sealed_name }),
            );
            attempt.put(namespace.row, records::encode(&namespace.id));
        }
        Ok(namespace.id)
    }

    /// Adds a new user's record and its indexes. A canonical id or e-mail address that another user has stays theirs.
    async fn plan_user(
        &self,
        attempt: &mut Attempt,
        request: &EnsurePrincipal,
        id: UserId,
        project: ProjectId,
        now: TimestampMicros,
    ) -> Result<(), MetadataError> {
        let canonical_id = match request.canonical_id.as_str() {
            "" => hex::encode(
                blake3::Hasher::new().update(b"valv canonical id v1").update(id.as_bytes()).finalize().as_bytes(),
            ),
            given if given.len() == 64 && given.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) => {
                given.to_owned()
            }
            _ => return Err(PrincipalConflict::CanonicalIdMalformed.into()),
        };
        let display_name = if request.display_name.is_empty() { &request.user_name } else { &request.display_name };
        check_name(display_name)?;
        let canonical = self.user_index_row(UserIndexKind::Canonical, &canonical_id)?;
        let mut indexes = vec![(canonical, PrincipalConflict::CanonicalIdTaken)];
        if !request.email.is_empty() {
            check_name(&request.email)?;
            let email = self.user_index_row(UserIndexKind::Email, &request.email.to_lowercase())?;
            indexes.push((email, PrincipalConflict::EmailTaken));
        }
        for (index, taken) in indexes {
            if self.get(&index).await?.is_some() {
                return Err(taken.into());
            }
            attempt.expect_absent(index.clone());
            attempt.put(index, records::encode(&id));
        }
        let names = UserNames {
            name: request.user_name.clone(),
            display_name: display_name.clone(),
            email: request.email.clone(),
            canonical_id,
        };
        let sealed = self.seals.seal_principal(id.as_bytes(), &records::encode(&names))?;
        attempt.put(self.rows.user(id), records::encode(&UserRecord { project, created: now, sealed }));
        Ok(())
    }

    /// The row that maps a bucket's name to its id.
    pub(crate) fn bucket_name_row(&self, namespace: NamespaceId, name: &str) -> Result<Key, MetadataError> {
        let hash: NameHash = self.name_hash("bucket", name)?;
        Ok(self.rows.bucket_name(namespace, &hash))
    }

    /// Seals a bucket's name for its state row.
    pub(crate) fn seal_bucket_name(
        &self,
        project: ProjectId,
        bucket: BucketId,
        name: &str,
    ) -> Result<crate::seal::Sealed, MetadataError> {
        self.seals.seal_bytes(Place::Bucket(project, bucket), name.as_bytes())
    }
}

/// The id that a name row holds.
pub(crate) fn id_of_row<I>(row: &Versioned, from_bytes: fn([u8; 16]) -> I) -> Result<I, MetadataError> {
    last_id(&row.value).map(from_bytes).ok_or_else(|| corrupt("name row"))
}
