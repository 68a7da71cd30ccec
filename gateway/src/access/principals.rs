//! Access keys by lease, and users' names.
//!
//! An access key's grant is held for at most three seconds, counted from *before* the read that brought it, so that a
//! disabled key or a replaced secret takes effect everywhere within that time.

use super::Asker;
use crate::error::{S3Code, S3Error};
use crate::sigv4::SecretSource;
use async_trait::async_trait;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use valv_metadata_api::{AccessGrant, GetAccessKey, GetUser, Metadata, MetadataError, User};
use valv_types::{AccessKeyId, UserId};

/// The longest lease that is honoured, whatever metadata says (architecture, "Write path", 1).
const LEASE_MAX: Duration = Duration::from_secs(3);
/// Grants held at one time: at about 300 bytes each, 3 MiB. A cluster with more keys in use within three seconds asks
/// metadata more often, and nothing else.
const GRANTS_MAX: usize = 10_000;
/// Users whose canonical id and name are held, for listings: some 300 bytes each.
const USERS_MAX: usize = 10_000;
/// How long a user's name is held. It decides nothing: who a user is, is in the grant.
const USER_AGE_MAX: Duration = Duration::from_secs(60);

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

    /// Asks whether the key that signed a request still stands for the same, and what its user may do now. Nothing can be said
    /// against an unsigned request.
    ///
    /// # Errors
    /// AccessDenied if the key is gone or stands for somebody else; that metadata can't be reached.
    pub(crate) async fn still_granted(&self, asker: &Asker) -> Result<Option<AccessGrant>, S3Error> {
        let Some(identity) = &asker.identity else { return Ok(None) };
        let grant = self.grant(&identity.access_key).await.map_err(|error| match error.code() {
            S3Code::InvalidAccessKeyId => S3Error::new(S3Code::AccessDenied),
            _ => error,
        })?;
        if (grant.user, grant.project) != (identity.grant.user, identity.grant.project) {
            return Err(S3Code::AccessDenied.into());
        }
        Ok(Some(grant))
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
