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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sigv4::SignedBy;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use valv_metadata_api::{Client, Request, Response, Secret, Transport, Versioning};
    use valv_types::{BucketId, Layout, NamespaceId, PoolId, TimestampMicros};

    fn grant(project: ProjectId, lease_ms: u32) -> AccessGrant {
        AccessGrant {
            secret: Secret::new(b"secret".to_vec()),
            user: UserId::from_bytes([1; 16]),
            canonical_id: "ab".repeat(32),
            display_name: "A".to_owned(),
            project,
            namespace: NamespaceId::from_bytes([2; 16]),
            lease_ms,
        }
    }

    fn identity(grant: AccessGrant) -> Identity {
        Identity {
            access_key: key(),
            grant,
            signed_by: SignedBy::Header,
            signed_headers: Vec::new(),
            signed_at: TimestampMicros(0),
        }
    }

    fn key() -> AccessKeyId {
        AccessKeyId::new("VALV0123456789ABCDEF").expect("key")
    }

    /// Answers every look-up with one grant, or with none, and counts.
    #[derive(Clone)]
    struct OneGrant {
        grant: Arc<Mutex<Option<AccessGrant>>>,
        asked: Arc<AtomicUsize>,
    }

    #[async_trait]
    impl Transport for OneGrant {
        async fn call(&self, _: Request) -> Result<Response, MetadataError> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            self.grant.lock().clone().map(Response::GetAccessKey).ok_or(MetadataError::NoSuchAccessKey)
        }
    }

    fn principals(lease_ms: u32) -> (OneGrant, Arc<Principals>) {
        let grant = Arc::new(Mutex::new(Some(grant(ProjectId::from_bytes([3; 16]), lease_ms))));
        let metadata = OneGrant { grant, asked: Arc::default() };
        let principals = Principals::new(Arc::new(Client(metadata.clone())));
        (metadata, Arc::new(principals))
    }

    #[test]
    fn members_may_and_strangers_and_the_unsigned_may_not() {
        let project = ProjectId::random();
        let bucket = Bucket {
            id: BucketId::random(),
            name: "b".to_owned(),
            project,
            namespace: NamespaceId::random(),
            owner: UserId::random(),
            created: TimestampMicros(0),
            layout: Layout::current(PoolId(1), 4, 2).expect("layout"),
            versioning: Versioning::Unversioned,
            object_lock: None,
            documents: Vec::new(),
        };
        let (member, stranger) = (identity(grant(project, 1)), identity(grant(ProjectId::random(), 1)));
        for action in [Action::ReadObject, Action::WriteObject, Action::ListBucket, Action::BypassGovernance] {
            assert!(authorise(Some(&member), action, &bucket, None).is_ok());
            for other in [Some(&stranger), None] {
                let refused = authorise(other, action, &bucket, None).map_err(|error| error.code());
                assert_eq!(refused, Err(S3Code::AccessDenied));
            }
        }
    }

    #[tokio::test]
    async fn a_grant_is_held_for_its_lease_and_no_longer() {
        let (metadata, held) = principals(3_000);
        for _ in 0..3 {
            held.grant(&key()).await.expect("grant");
        }
        assert_eq!(metadata.asked.load(Ordering::Relaxed), 1);
        let (metadata, not_held) = principals(0);
        for _ in 0..3 {
            not_held.grant(&key()).await.expect("grant");
        }
        assert_eq!(metadata.asked.load(Ordering::Relaxed), 3);
        *metadata.grant.lock() = None;
        let gone = not_held.grant(&key()).await.map_err(|error| error.code());
        assert_eq!(gone.err(), Some(S3Code::InvalidAccessKeyId));
    }

    #[tokio::test]
    async fn a_transfer_ends_when_its_key_is_gone_or_stands_for_another_project() {
        let (metadata, principals) = principals(0);
        let identity = identity(principals.grant(&key()).await.expect("grant"));
        let mut watch = AccessWatch::new(Arc::clone(&principals), &identity);
        // Due at once, instead of in a second.
        let check = async |watch: &mut AccessWatch| {
            watch.next = Instant::now();
            watch.check().await.map_err(|error| error.code())
        };
        assert_eq!(check(&mut watch).await, Ok(()));
        *metadata.grant.lock() = Some(grant(ProjectId::random(), 0));
        assert_eq!(check(&mut watch).await, Err(S3Code::AccessDenied));
        *metadata.grant.lock() = None;
        assert_eq!(check(&mut watch).await, Err(S3Code::AccessDenied));
    }
}
