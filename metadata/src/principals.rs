//! Users, access keys, projects and namespaces.

use crate::attempt::{ATTEMPTS_MAX, Attempt, Plan, Settled, settle};
use crate::ledger::Event;
use crate::records::{self, AccessKeyRecord, EventKind, NamespaceRecord, ProjectRecord, UserNames, UserRecord};
use crate::rows::{NameHash, UserIndexKind, last_id};
use crate::seal::Place;
use crate::service::{Core, corrupt, malformed};
use crate::store::{Key, Versioned};
use valv_metadata_api::*;
use valv_types::{BucketId, CommitId, NamespaceId, PoolId, ProjectId, UserId};

/// A gateway may rely on an access key for this long: the architecture's bound on revocation.
const ACCESS_LEASE_MS: u32 = 3_000;
/// The pool of new projects.
pub(crate) const FIRST_POOL: PoolId = PoolId(1);
/// Longest name of a user, project or namespace, in bytes.
const NAME_LEN_BYTES_MAX: usize = 256;

/// Something that a name row points to: the id found, or a fresh one for what has to be made.
struct Named<I> {
    id: I,
    row: Key,
    found: Option<Versioned>,
}

impl Core {
    pub(crate) async fn find_access_key(&self, request: GetAccessKey) -> Result<AccessGrant, MetadataError> {
        let row = self.get(&self.rows.access_key(&request.id)).await?.ok_or(MetadataError::NoSuchAccessKey)?;
        let key: AccessKeyRecord = records::decode("access key", &row.value)?;
        if key.disabled {
            return Err(MetadataError::NoSuchAccessKey);
        }
        let [user, project] = self.get_rows(&[self.rows.user(key.user), self.rows.project(key.project)]).await?;
        let user = user.ok_or_else(|| corrupt("user of an access key"))?;
        let project = project.ok_or_else(|| corrupt("project of an access key"))?;
        let names = self.user_names(key.user, &records::decode("user", &user.value)?)?;
        let project: ProjectRecord = records::decode("project", &project.value)?;
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
        })
    }

    fn user_names(&self, id: UserId, record: &UserRecord) -> Result<UserNames, MetadataError> {
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
        Ok(User {
            id,
            name: names.name,
            canonical_id: names.canonical_id,
            display_name: names.display_name,
            email: names.email,
            project: record.project,
        })
    }

    pub(crate) async fn find_namespace(&self, request: GetNamespace) -> Result<Namespace, MetadataError> {
        let row = self.rows.namespace_name(&self.name_hash("namespace", &request.name)?);
        let row = self.get(&row).await?.ok_or(MetadataError::NoSuchNamespace)?;
        Ok(Namespace { id: id_of_row(&row, NamespaceId::from_bytes)? })
    }

    fn user_index_row(&self, kind: UserIndexKind, value: &str) -> Result<Key, MetadataError> {
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
            MetadataError::KeyUnavailable
        })
    }

    pub(crate) async fn make_principal(&self, request: EnsurePrincipal) -> Result<EnsuredPrincipal, MetadataError> {
        for name in [&request.user_name, &request.project_name, &request.namespace_name] {
            if name.is_empty() || name.len() > NAME_LEN_BYTES_MAX {
                return Err(malformed("a name must have 1 to 256 bytes"));
            }
        }
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
        &self,
        request: &EnsurePrincipal,
        commit: CommitId,
    ) -> Result<Plan<EnsuredPrincipal>, MetadataError> {
        let now = self.now();
        let hash = |kind, name: &str| self.name_hash(kind, name);
        let mut attempt = Attempt::default();
        let mut changed = false;

        let project_row = self.rows.project_name(&hash("project", &request.project_name)?);
        let project = self.named(project_row, ProjectId::from_bytes, ProjectId::random).await?;
        attempt.expect(project.row.clone(), project.found.as_ref());
        let namespace = match &project.found {
            // What exists is kept: the project stays in its namespace.
            Some(_) => {
                let row = self.get(&self.rows.project(project.id)).await?.ok_or_else(|| corrupt("project"))?;
                records::decode::<ProjectRecord>("project", &row.value)?.namespace
            }
            None => {
                changed = true;
                let namespace = self.plan_namespace(&mut attempt, &request.namespace_name, now).await?;
                // The key is durable before anything can be sealed under it; without the commit it opens nothing.
                self.new_project_key(project.id).await?;
                let sealed_name = self.seals.seal_principal(project.id.as_bytes(), request.project_name.as_bytes())?;
                let record = ProjectRecord { namespace, pool: FIRST_POOL, created: now, sealed_name };
                attempt.put(self.rows.project(project.id), records::encode(&record));
                attempt.put(project.row, records::encode(&project.id));
                namespace
            }
        };

        let user_row = self.user_index_row(UserIndexKind::Name, &request.user_name)?;
        let user = self.named(user_row, UserId::from_bytes, UserId::random).await?;
        attempt.expect(user.row.clone(), user.found.as_ref());
        if user.found.is_none() {
            changed = true;
            attempt.put(user.row, records::encode(&user.id));
            self.plan_user(&mut attempt, request, user.id, project.id, now).await?;
        }

        let key_row = self.rows.access_key(&request.access_key);
        let key = self.get(&key_row).await?;
        attempt.expect(key_row.clone(), key.as_ref());
        let mut record = match &key {
            Some(row) => records::decode::<AccessKeyRecord>("access key", &row.value)?,
            None => AccessKeyRecord {
                user: user.id,
                project: project.id,
                created: now,
                disabled: false,
                sealed_secret: Vec::new(),
            },
        };
        if key.is_none() || !self.secret_is(&request.access_key, &record, request.secret.expose())? {
            changed = true;
            record.sealed_secret = self.seals.seal_access_secret(
                &request.access_key,
                record.user,
                record.project,
                request.secret.expose(),
            )?;
            attempt.put(key_row, records::encode(&record));
        }

        let answer = EnsuredPrincipal { user: user.id, project: project.id, namespace, changed };
        if !changed {
            return Ok(Plan::Nothing(answer));
        }
        let event = Event {
            kind: EventKind::PrincipalEnsured,
            project: project.id,
            time: now,
            bucket: None,
            version: None,
            other_version: None,
            bytes: 0,
            subject: request.user_name.as_bytes(),
        };
        self.record_event(&mut attempt, commit, None, event)?;
        Ok(Plan::Commit(attempt, answer))
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

    async fn new_project_key(&self, project: ProjectId) -> Result<(), MetadataError> {
        let keys = std::sync::Arc::clone(self.seals.keys());
        let made = tokio::task::spawn_blocking(move || keys.ensure_project_key(project)).await;
        match made {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(MetadataError::Unavailable { what: error.to_string() }),
            Err(error) => Err(MetadataError::Unavailable { what: error.to_string() }),
        }
    }

    async fn plan_namespace(
        &self,
        attempt: &mut Attempt,
        name: &str,
        now: valv_types::TimestampMicros,
    ) -> Result<NamespaceId, MetadataError> {
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
        now: valv_types::TimestampMicros,
    ) -> Result<(), MetadataError> {
        let canonical_id = match request.canonical_id.as_str() {
            "" => hex::encode(
                blake3::Hasher::new().update(b"valv canonical id v1").update(id.as_bytes()).finalize().as_bytes(),
            ),
            given => given.to_owned(),
        };
        let mut indexes = vec![self.user_index_row(UserIndexKind::Canonical, &canonical_id)?];
        if !request.email.is_empty() {
            indexes.push(self.user_index_row(UserIndexKind::Email, &request.email.to_lowercase())?);
        }
        for index in indexes {
            if self.get(&index).await?.is_some() {
                return Err(malformed("the canonical id or e-mail address belongs to another user"));
            }
            attempt.expect_absent(index.clone());
            attempt.put(index, records::encode(&id));
        }
        let names = UserNames {
            name: request.user_name.clone(),
            display_name: request.display_name.clone(),
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
