//! Administration of users and access keys: listing them, and every change after they were made.
//!
//! Consistency: whatever adds an access key or a bucket to a user also rewrites the user's row, and deleting a user
//! expects that row as it was before its keys and buckets were looked for. So no key and no bucket is ever left without
//! its user. Disabling and deleting keys rewrites the key's own row only.
//!
//! Keys are found by walking all of the cell's, some microseconds each: an operator asks, seldom, and an index would be
//! one more thing that has to agree.

use crate::attempt::{ATTEMPTS_MAX, Attempt, Plan, Settled, settle, store_error};
use crate::ledger::Event;
use crate::principals::check_name;
use crate::records::{
    self, AccessKeyRecord, BucketRecord, EventKind, NamespaceRecord, ProjectRecord, UserNames, UserRecord,
};
use crate::rows::{Tag, UserIndexKind, last_id};
use crate::service::{Core, corrupt};
use crate::store::{Snapshot, Versioned};
use std::sync::Arc;
use valv_metadata_api::*;
use valv_types::{AccessKeyId, CommitId, NamespaceId, ProjectId, UserId};

/// Most users in a page: at some 600 bytes each, far below the longest message.
const USER_PAGE_MAX: usize = 1_000;

/// A change that an operator asks for.
enum Change {
    CreateKey(CreateAccessKey),
    UpdateKey(UpdateAccessKey),
    DeleteKey(DeleteAccessKey),
    UpdateUser(UpdateUser),
    DeleteUser(DeleteUser),
}

/// A user that a change is about.
pub(crate) struct FoundUser {
    pub(crate) id: UserId,
    pub(crate) row: Versioned,
    pub(crate) record: UserRecord,
    pub(crate) names: UserNames,
}

impl Core {
    pub(crate) async fn page_of_users(self: &Arc<Self>, request: ListUsers) -> Result<Vec<UserEntry>, MetadataError> {
        self.scan(move |core, snapshot| {
            let mut users = Vec::new();
            let range = core.rows.range(Tag::User, &[]);
            let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
            while let Some((key, row)) = cursor.next().map_err(store_error)? {
                let id = last_id(&key).map(UserId::from_bytes).ok_or_else(|| corrupt("user row"))?;
                let record: UserRecord = records::decode("user", &row.value)?;
                let names = core.user_names(id, &record)?;
                if request.after.as_ref().is_none_or(|after| names.name > *after) {
                    users.push((id, record, names));
                }
            }
            users.sort_by(|a, b| a.2.name.cmp(&b.2.name));
            users.truncate((request.limit as usize).min(USER_PAGE_MAX));
            users.into_iter().map(|(id, record, names)| core.user_entry(snapshot, id, &record, names)).collect()
        })
        .await
    }

    pub(crate) async fn detail_of_user(self: &Arc<Self>, request: GetUser) -> Result<UserDetail, MetadataError> {
        let id = self.find_user(request).await?.id;
        self.scan(move |core, snapshot| {
            let row = snapshot.get(&core.rows.user(id)).map_err(store_error)?.ok_or(MetadataError::NoSuchUser)?;
            let record: UserRecord = records::decode("user", &row.value)?;
            let names = core.user_names(id, &record)?;
            let entry = core.user_entry(snapshot, id, &record, names)?;
            let keys = core.keys_of_user(snapshot, id)?;
            let keys =
                keys.iter().map(|(id, _, record)| core.key_entry(snapshot, id, record)).collect::<Result<_, _>>()?;
            Ok(UserDetail { entry, keys })
        })
        .await
    }

    fn user_entry(
        &self,
        snapshot: &dyn Snapshot,
        id: UserId,
        record: &UserRecord,
        names: UserNames,
    ) -> Result<UserEntry, MetadataError> {
        let (project_name, namespace) = self.project_name(snapshot, record.project)?;
        let row = snapshot.get(&self.rows.namespace(namespace)).map_err(store_error)?;
        let row = row.ok_or_else(|| corrupt("namespace of a project"))?;
        let sealed = records::decode::<NamespaceRecord>("namespace", &row.value)?.sealed_name;
        let namespace_name = self.seals.open_principal(namespace.as_bytes(), &sealed)?;
        Ok(UserEntry {
            user: user_view(id, record, names),
            project_name,
            namespace_name: String::from_utf8(namespace_name).map_err(|_| corrupt("namespace name"))?,
            created: record.created,
        })
    }

    pub(crate) fn project_name(
        &self,
        snapshot: &dyn Snapshot,
        project: ProjectId,
    ) -> Result<(String, NamespaceId), MetadataError> {
        let row = snapshot.get(&self.rows.project(project)).map_err(store_error)?;
        let row = row.ok_or_else(|| corrupt("project of a user or access key"))?;
        let record: ProjectRecord = records::decode("project", &row.value)?;
        let name = self.seals.open_principal(project.as_bytes(), &record.sealed_name)?;
        Ok((String::from_utf8(name).map_err(|_| corrupt("project name"))?, record.namespace))
    }

    fn key_entry(
        &self,
        snapshot: &dyn Snapshot,
        id: &AccessKeyId,
        record: &AccessKeyRecord,
    ) -> Result<AccessKeyEntry, MetadataError> {
        let state = if record.disabled { KeyState::Disabled } else { KeyState::Enabled };
        let (project_name, _) = self.project_name(snapshot, record.project)?;
        Ok(AccessKeyEntry { id: id.clone(), project: record.project, project_name, created: record.created, state })
    }

    /// All keys of a user, in the order of their ids.
    pub(crate) fn keys_of_user(
        &self,
        snapshot: &dyn Snapshot,
        user: UserId,
    ) -> Result<Vec<(AccessKeyId, Versioned, AccessKeyRecord)>, MetadataError> {
        let range = self.rows.range(Tag::AccessKey, &[]);
        let mut keys = Vec::new();
        let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
        while let Some((key, row)) = cursor.next().map_err(store_error)? {
            let record: AccessKeyRecord = records::decode("access key", &row.value)?;
            if record.user == user {
                let id = key.get(range.start.len()..).and_then(|id| std::str::from_utf8(id).ok());
                let id = id.and_then(|id| AccessKeyId::new(id).ok()).ok_or_else(|| corrupt("access key row"))?;
                keys.push((id, row, record));
            }
        }
        Ok(keys)
    }

    pub(crate) async fn add_access_key(
        self: &Arc<Self>,
        request: CreateAccessKey,
    ) -> Result<AccessKeyEntry, MetadataError> {
        let (id, commit) = (request.id.clone(), request.commit);
        self.change_principals(Change::CreateKey(request), commit).await?;
        self.access_key_entry(id).await
    }

    pub(crate) async fn change_access_key(
        self: &Arc<Self>,
        request: UpdateAccessKey,
    ) -> Result<AccessKeyEntry, MetadataError> {
        let (id, commit) = (request.id.clone(), request.commit);
        self.change_principals(Change::UpdateKey(request), commit).await?;
        self.access_key_entry(id).await
    }

    pub(crate) async fn remove_access_key(self: &Arc<Self>, request: DeleteAccessKey) -> Result<Empty, MetadataError> {
        let commit = request.commit;
        self.change_principals(Change::DeleteKey(request), commit).await?;
        Ok(Empty {})
    }

    pub(crate) async fn change_user(self: &Arc<Self>, request: UpdateUser) -> Result<User, MetadataError> {
        let (name, commit) = (request.user_name.clone(), request.commit);
        self.change_principals(Change::UpdateUser(request), commit).await?;
        self.find_user(GetUser::Name(name)).await
    }

    pub(crate) async fn remove_user(self: &Arc<Self>, request: DeleteUser) -> Result<Empty, MetadataError> {
        let commit = request.commit;
        self.change_principals(Change::DeleteUser(request), commit).await?;
        Ok(Empty {})
    }

    async fn access_key_entry(self: &Arc<Self>, id: AccessKeyId) -> Result<AccessKeyEntry, MetadataError> {
        self.scan(move |core, snapshot| {
            let row = snapshot.get(&core.rows.access_key(&id)).map_err(store_error)?;
            let row = row.ok_or(MetadataError::NoSuchAccessKey)?;
            core.key_entry(snapshot, &id, &records::decode("access key", &row.value)?)
        })
        .await
    }

    /// Carries out a change. Refusals that this very commit has caused itself, by having happened before, are none.
    async fn change_principals(self: &Arc<Self>, change: Change, commit: CommitId) -> Result<(), MetadataError> {
        for number in 0..ATTEMPTS_MAX {
            // Operators' changes are few: one queue for all of them.
            let _turn = self.queue(number, b"principals").await;
            let plan = match &change {
                Change::CreateKey(request) => self.plan_new_key(request).await,
                Change::UpdateKey(request) => self.plan_key_state(request).await,
                Change::DeleteKey(request) => self.plan_key_removal(request).await,
                Change::UpdateUser(request) => self.plan_user_change(request).await,
                Change::DeleteUser(request) => self.plan_user_removal(request).await,
            };
            match settle(self.store.as_ref(), commit, number, plan).await? {
                Settled::Done(()) | Settled::Before(_) => return Ok(()),
                Settled::Again => {}
            }
        }
        Err(MetadataError::Conflict)
    }

    async fn plan_new_key(self: &Arc<Self>, request: &CreateAccessKey) -> Result<Plan<()>, MetadataError> {
        let mut attempt = Attempt::default();
        let user = self.user_named(&request.user_name).await?;
        let project = match &request.project_name {
            None => user.record.project,
            Some(name) => self.plan_project(&mut attempt, name, &request.namespace_name, self.now()).await?.id,
        };
        let row = self.rows.access_key(&request.id);
        if self.get(&row).await?.is_some() {
            return Err(PrincipalConflict::AccessKeyTaken.into());
        }
        attempt.expect_absent(row.clone());
        self.plan_key_of_member(&mut attempt, project, user.id, request.by.as_ref()).await?;
        self.plan_room_for_key(&mut attempt, &user).await?;
        attempt.put(self.rows.user(user.id), user.row.value.clone());
        let sealed_secret = self.seals.seal_access_secret(&request.id, user.id, project, request.secret.expose())?;
        let record = AccessKeyRecord { user: user.id, project, created: self.now(), disabled: false, sealed_secret };
        attempt.put(row, records::encode(&record));
        self.record_key_event(&mut attempt, request.commit, EventKind::AccessKeyCreated, project, &user, &request.id)?;
        Ok(Plan::Commit(attempt, ()))
    }

    /// Demands that the user has room for one more key. The caller rewrites the user's row in the same commit, so that
    /// two keys added at once meet on it.
    pub(crate) async fn plan_room_for_key(
        self: &Arc<Self>,
        attempt: &mut Attempt,
        user: &FoundUser,
    ) -> Result<(), MetadataError> {
        attempt.expect(self.rows.user(user.id), Some(&user.row));
        let id = user.id;
        let count = self.scan(move |core, snapshot| Ok(core.keys_of_user(snapshot, id)?.len())).await?;
        match count < KEYS_PER_USER_MAX {
            true => Ok(()),
            false => Err(PrincipalConflict::TooManyKeys.into()),
        }
    }

    async fn plan_key_state(self: &Arc<Self>, request: &UpdateAccessKey) -> Result<Plan<()>, MetadataError> {
        let (row, mut record) = self.key_record(&request.id).await?;
        let disabled = request.state == KeyState::Disabled;
        if record.disabled == disabled {
            return Ok(Plan::Nothing(()));
        }
        record.disabled = disabled;
        let mut attempt = Attempt::default();
        attempt.expect(self.rows.access_key(&request.id), Some(&row));
        attempt.put(self.rows.access_key(&request.id), records::encode(&record));
        let kind = if disabled { EventKind::AccessKeyDisabled } else { EventKind::AccessKeyEnabled };
        let user = self.user_of_key(&record).await?;
        self.record_key_event(&mut attempt, request.commit, kind, record.project, &user, &request.id)?;
        Ok(Plan::Commit(attempt, ()))
    }

    async fn plan_key_removal(self: &Arc<Self>, request: &DeleteAccessKey) -> Result<Plan<()>, MetadataError> {
        let (row, record) = self.key_record(&request.id).await?;
        let mut attempt = Attempt::default();
        attempt.expect(self.rows.access_key(&request.id), Some(&row));
        attempt.remove(self.rows.access_key(&request.id));
        let user = self.user_of_key(&record).await?;
        let kind = EventKind::AccessKeyDeleted;
        self.record_key_event(&mut attempt, request.commit, kind, record.project, &user, &request.id)?;
        Ok(Plan::Commit(attempt, ()))
    }

    async fn plan_user_change(&self, request: &UpdateUser) -> Result<Plan<()>, MetadataError> {
        let user = self.user_named(&request.user_name).await?;
        let mut attempt = Attempt::default();
        let display_name = request.display_name.as_deref().unwrap_or(&user.names.display_name);
        let email = request.email.as_deref().unwrap_or(&user.names.email);
        let project = match &request.project_name {
            None => user.record.project,
            Some(name) => self.project_named(name).await?,
        };
        if !self.plan_user_update(&mut attempt, &user, display_name, email, project).await? {
            return Ok(Plan::Nothing(()));
        }
        self.record_user_event(&mut attempt, request.commit, EventKind::UserChanged, &user)?;
        Ok(Plan::Commit(attempt, ()))
    }

    /// Writes a user's row and e-mail index anew. Returns whether anything differs; if not, nothing is written.
    pub(crate) async fn plan_user_update(
        &self,
        attempt: &mut Attempt,
        user: &FoundUser,
        display_name: &str,
        email: &str,
        project: ProjectId,
    ) -> Result<bool, MetadataError> {
        if user.names.display_name == display_name && user.names.email == email && user.record.project == project {
            return Ok(false);
        }
        check_name(display_name)?;
        let (old, new) = (user.names.email.to_lowercase(), email.to_lowercase());
        if old != new {
            if !old.is_empty() {
                attempt.remove(self.user_index_row(UserIndexKind::Email, &old)?);
            }
            if !new.is_empty() {
                check_name(&new)?;
                let index = self.user_index_row(UserIndexKind::Email, &new)?;
                if self.get(&index).await?.is_some() {
                    return Err(PrincipalConflict::EmailTaken.into());
                }
                attempt.expect_absent(index.clone());
                attempt.put(index, records::encode(&user.id));
            }
        }
        let names = UserNames { display_name: display_name.to_owned(), email: email.to_owned(), ..user.names.clone() };
        let sealed = self.seals.seal_principal(user.id.as_bytes(), &records::encode(&names))?;
        attempt.expect(self.rows.user(user.id), Some(&user.row));
        let record = UserRecord { project, sealed, ..user.record.clone() };
        attempt.put(self.rows.user(user.id), records::encode(&record));
        Ok(true)
    }

    async fn plan_user_removal(self: &Arc<Self>, request: &DeleteUser) -> Result<Plan<()>, MetadataError> {
        let user = self.user_named(&request.user_name).await?;
        let id = user.id;
        let (keys, tokens, owns_bucket) = self
            .scan(move |core, snapshot| {
                Ok((
                    core.keys_of_user(snapshot, id)?,
                    core.tokens_of_user(snapshot, id)?,
                    core.owns_bucket(snapshot, id)?,
                ))
            })
            .await?;
        if owns_bucket {
            return Err(PrincipalConflict::OwnsBuckets.into());
        }
        let mut attempt = Attempt::default();
        attempt.expect(self.rows.user(id), Some(&user.row));
        attempt.remove(self.rows.user(id));
        attempt.remove(self.user_index_row(UserIndexKind::Name, &user.names.name)?);
        attempt.remove(self.user_index_row(UserIndexKind::Canonical, &user.names.canonical_id)?);
        if !user.names.email.is_empty() {
            attempt.remove(self.user_index_row(UserIndexKind::Email, &user.names.email.to_lowercase())?);
        }
        for (key, row, _) in &keys {
            attempt.expect(self.rows.access_key(key), Some(row));
            attempt.remove(self.rows.access_key(key));
        }
        for token in &tokens {
            attempt.expect(self.rows.token(token.id), Some(&token.row));
            attempt.remove(self.rows.token(token.id));
        }
        self.plan_end_of_memberships(&mut attempt, request.commit, &user).await?;
        self.record_user_event(&mut attempt, request.commit, EventKind::UserDeleted, &user)?;
        Ok(Plan::Commit(attempt, ()))
    }

    fn owns_bucket(&self, snapshot: &dyn Snapshot, user: UserId) -> Result<bool, MetadataError> {
        let range = self.rows.range(Tag::Bucket, &[]);
        let mut cursor = snapshot.scan(&range.start, &range.end).map_err(store_error)?;
        while let Some((_, row)) = cursor.next().map_err(store_error)? {
            if records::decode::<BucketRecord>("bucket", &row.value)?.owner == user {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Demands in a commit that adds something to a user that the user is there, and makes it meet with the user's
    /// deletion.
    pub(crate) async fn plan_use_of_user(&self, attempt: &mut Attempt, id: UserId) -> Result<(), MetadataError> {
        // Who was deleted has no access key either.
        let row = self.get(&self.rows.user(id)).await?.ok_or(MetadataError::NoSuchAccessKey)?;
        attempt.expect(self.rows.user(id), Some(&row));
        attempt.put(self.rows.user(id), row.value);
        Ok(())
    }

    pub(crate) async fn user_named(&self, name: &str) -> Result<FoundUser, MetadataError> {
        let index = self.get(&self.user_index_row(UserIndexKind::Name, name)?).await?;
        let index = index.ok_or(MetadataError::NoSuchUser)?;
        self.user_with(crate::principals::id_of_row(&index, UserId::from_bytes)?).await
    }

    pub(crate) async fn user_with(&self, id: UserId) -> Result<FoundUser, MetadataError> {
        let row = self.get(&self.rows.user(id)).await?.ok_or(MetadataError::NoSuchUser)?;
        let record: UserRecord = records::decode("user", &row.value)?;
        let names = self.user_names(id, &record)?;
        Ok(FoundUser { id, row, record, names })
    }

    async fn key_record(&self, id: &AccessKeyId) -> Result<(Versioned, AccessKeyRecord), MetadataError> {
        let row = self.get(&self.rows.access_key(id)).await?.ok_or(MetadataError::NoSuchAccessKey)?;
        let record = records::decode("access key", &row.value)?;
        Ok((row, record))
    }

    /// A key's user. If the user has gone since the key was read, so has the key.
    async fn user_of_key(&self, record: &AccessKeyRecord) -> Result<FoundUser, MetadataError> {
        self.user_with(record.user).await.map_err(|error| match error {
            MetadataError::NoSuchUser => MetadataError::NoSuchAccessKey,
            other => other,
        })
    }

    fn record_key_event(
        &self,
        attempt: &mut Attempt,
        commit: CommitId,
        kind: EventKind,
        project: ProjectId,
        user: &FoundUser,
        key: &AccessKeyId,
    ) -> Result<(), MetadataError> {
        // The id has no slash, so the last one is where the user's name ends.
        let subject = format!("{}/{key}", user.names.name);
        self.record_principal_event(attempt, commit, kind, project, &subject)
    }

    fn record_user_event(
        &self,
        attempt: &mut Attempt,
        commit: CommitId,
        kind: EventKind,
        user: &FoundUser,
    ) -> Result<(), MetadataError> {
        self.record_principal_event(attempt, commit, kind, user.record.project, &user.names.name)
    }

    pub(crate) fn record_principal_event(
        &self,
        attempt: &mut Attempt,
        commit: CommitId,
        kind: EventKind,
        project: ProjectId,
        subject: &str,
    ) -> Result<(), MetadataError> {
        let event = Event::of_project(kind, project, self.now(), subject);
        self.record_event(attempt, commit, None, event)
    }
}

/// A user as the API tells it.
pub(crate) fn user_view(id: UserId, record: &UserRecord, names: UserNames) -> User {
    User {
        id,
        name: names.name,
        canonical_id: names.canonical_id,
        display_name: names.display_name,
        email: names.email,
        project: record.project,
    }
}
