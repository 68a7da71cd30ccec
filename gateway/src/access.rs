//! Who may do what: one function that every operation asks, and the leases under which its answers hold.
//!
//! An access key's grant is held for at most three seconds, counted from *before* the read that brought it, so that a
//! disabled key or a replaced secret takes effect everywhere within that time. Transfers that last longer ask again every
//! second and end when the right is gone ([`AccessWatch`]).

use crate::error::{S3Code, S3Error};
use crate::sigv4::{Identity, SecretSource};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use valv_metadata_api::{AccessGrant, Bucket, GetAccessKey, GetUser, Metadata, MetadataError, ObjectKey, User};
use valv_types::{AccessKeyId, ProjectId, UserId};

/// The longest lease that is honoured, whatever metadata says (architecture, "Write path", 1).
const LEASE_MAX: Duration = Duration::from_secs(3);
/// How often a running transfer asks whether it still may.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Grants held at one time: at about 300 bytes each, 3 MiB. A cluster with more keys in use within three seconds asks
/// metadata more often, and nothing else.
const GRANTS_MAX: usize = 10_000;
/// Users whose canonical id and name are held, for listings: some 300 bytes each.
const USERS_MAX: usize = 10_000;
/// How long a user's name is held. It decides nothing.
const USER_AGE_MAX: Duration = Duration::from_secs(60);

/// What somebody wants to do, as far as rights tell operations apart (AWS: the actions of `s3:`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// `s3:ListBucket` and its siblings: names, sizes, versions and uploads of a bucket.
    ListBucket,
    /// Reading a bucket's settings.
    ReadBucketSettings,
    /// Changing a bucket's settings.
    WriteBucketSettings,
    /// `s3:DeleteBucket`.
    DeleteBucket,
    /// `s3:GetObject` and its siblings.
    ReadObject,
    /// `s3:PutObject` and its siblings.
    WriteObject,
    /// `s3:DeleteObject`.
    DeleteObject,
    /// `s3:DeleteObjectVersion`.
    DeleteVersion,
    /// `s3:PutObjectRetention` and `s3:PutObjectLegalHold`.
    WriteLock,
    /// `s3:BypassGovernanceRetention`.
    BypassGovernance,
}

/// Decides whether `identity` may do `action` to `key` in `bucket` (or to the bucket itself).
///
/// Members of the bucket's project may do everything; nobody else anything, and anonymous requests nothing. Policies and
/// openings will be judged here, and nowhere else.
///
/// # Errors
/// AccessDenied.
pub fn authorise(
    identity: Option<&Identity>,
    _action: Action,
    bucket: &Bucket,
    _key: Option<&ObjectKey>,
) -> Result<(), S3Error> {
    match identity {
        Some(identity) if identity.grant.project == bucket.project => Ok(()),
        Some(_) | None => Err(S3Code::AccessDenied.into()),
    }
}

/// Access keys by lease, and users' names.
pub struct Principals {
    metadata: Arc<dyn Metadata>,
    grants: Mutex<HashMap<AccessKeyId, Held<AccessGrant>>>,
    users: Mutex<HashMap<UserId, Held<Arc<User>>>>,
}

struct Held<T> {
    value: T,
    until: Instant,
}

impl Principals {
    /// Nothing held yet.
    pub fn new(metadata: Arc<dyn Metadata>) -> Self {
        Self { metadata, grants: Mutex::default(), users: Mutex::default() }
    }

    /// What an access key stands for, within its lease.
    ///
    /// # Errors
    /// InvalidAccessKeyId, or that metadata can't be reached: an expired lease is never stretched.
    pub async fn grant(&self, id: &AccessKeyId) -> Result<AccessGrant, S3Error> {
        let asked = Instant::now();
        if let Some(held) = self.grants.lock().get(id).filter(|held| asked < held.until) {
            return Ok(held.value.clone());
        }
        let grant = self.metadata.get_access_key(GetAccessKey { id: id.clone() }).await?;
        let lease = Duration::from_millis(u64::from(grant.lease_ms)).min(LEASE_MAX);
        let mut grants = self.grants.lock();
        if grants.len() >= GRANTS_MAX {
            // What has expired goes; if everything is fresh, everything goes: it costs one read each.
            grants.retain(|_, held| asked < held.until);
            if grants.len() >= GRANTS_MAX {
                grants.clear();
            }
        }
        grants.insert(id.clone(), Held { value: grant.clone(), until: asked + lease });
        Ok(grant)
    }

    /// A user's names, at most a minute old. `None` if there is no such user any more.
    ///
    /// # Errors
    /// That metadata can't be reached.
    pub async fn user(&self, id: UserId) -> Result<Option<Arc<User>>, S3Error> {
        let now = Instant::now();
        if let Some(held) = self.users.lock().get(&id).filter(|held| now < held.until) {
            return Ok(Some(Arc::clone(&held.value)));
        }
        let user = match self.metadata.get_user(GetUser::Id(id)).await {
            Ok(user) => Arc::new(user),
            Err(MetadataError::NoSuchUser) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut users = self.users.lock();
        if users.len() >= USERS_MAX {
            users.clear();
        }
        users.insert(id, Held { value: Arc::clone(&user), until: now + USER_AGE_MAX });
        Ok(Some(user))
    }
}

#[async_trait]
impl SecretSource for Principals {
    async fn secret(&self, id: &AccessKeyId) -> Result<AccessGrant, S3Error> {
        self.grant(id).await
    }
}

/// Keeps asking, during a transfer, whether its right still holds.
pub struct AccessWatch {
    principals: Arc<Principals>,
    access_key: AccessKeyId,
    user: UserId,
    project: ProjectId,
    next: Instant,
}

impl AccessWatch {
    /// Watches over a transfer of `identity`.
    pub fn new(principals: Arc<Principals>, identity: &Identity) -> Self {
        Self {
            principals,
            access_key: identity.access_key.clone(),
            user: identity.grant.user,
            project: identity.grant.project,
            next: Instant::now() + WATCH_INTERVAL,
        }
    }

    /// To be called with every piece; asks once a second.
    ///
    /// # Errors
    /// AccessDenied if the key is gone or stands for somebody else; ServiceUnavailable if the lease can't be renewed.
    pub async fn check(&mut self) -> Result<(), S3Error> {
        let now = Instant::now();
        if now < self.next {
            return Ok(());
        }
        let grant = self.principals.grant(&self.access_key).await.map_err(|error| match error.code() {
            S3Code::InvalidAccessKeyId => S3Error::new(S3Code::AccessDenied),
            _ => error,
        })?;
        if (grant.user, grant.project) != (self.user, self.project) {
            return Err(S3Code::AccessDenied.into());
        }
        self.next = now + WATCH_INTERVAL;
        Ok(())
    }
}
