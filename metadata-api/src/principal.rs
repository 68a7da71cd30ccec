//! Administration of users and access keys: what operators ask, never S3 clients.
//!
//! Every change is one commit with a ledger record. A disabled or deleted key stops working everywhere within
//! [`crate::AccessGrant::lease_ms`], running transfers included.

use crate::{Person, Secret, User};
use minicbor::{Decode, Encode};
use valv_types::{AccessKeyId, CommitId, ProjectId, TimestampMicros};

/// Most access keys of one user. AWS allows two, which is enough for rotation; a user here may also have keys in several
/// projects.
pub const KEYS_PER_USER_MAX: usize = 100;

/// Lists users in name order.
#[derive(Debug, Clone, Encode, Decode)]
pub struct ListUsers {
    /// Only names after this one.
    #[n(0)]
    pub after: Option<String>,
    /// At most this many, and never more than 1,000.
    #[n(1)]
    pub limit: u32,
}

/// A user as operators see one.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct UserEntry {
    /// The user; `project` is the default project.
    #[n(0)]
    pub user: User,
    /// The default project's name.
    #[n(1)]
    pub project_name: String,
    /// The name of the namespace that the default project's bucket names are in.
    #[n(2)]
    pub namespace_name: String,
    /// Since when there is this user.
    #[n(3)]
    pub created: TimestampMicros,
}

/// An access key as operators see one: its secret is shown to nobody.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct AccessKeyEntry {
    /// The public half.
    #[n(0)]
    pub id: AccessKeyId,
    /// The project in which requests with it act.
    #[n(1)]
    pub project: ProjectId,
    /// That project's name.
    #[n(2)]
    pub project_name: String,
    /// Since when there is this key.
    #[n(3)]
    pub created: TimestampMicros,
    /// Whether it works.
    #[n(4)]
    pub state: KeyState,
}

/// Whether an access key works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum KeyState {
    /// It signs requests.
    #[n(1)]
    Enabled,
    /// It is refused as if it were not there, until it is enabled again.
    #[n(2)]
    Disabled,
}

/// A user with all access keys, in the order of their ids.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct UserDetail {
    /// The user.
    #[n(0)]
    pub entry: UserEntry,
    /// The user's keys, whatever project they act in.
    #[n(1)]
    pub keys: Vec<AccessKeyEntry>,
}

/// Adds an access key to a user.
#[derive(Debug, Clone, Encode, Decode)]
pub struct CreateAccessKey {
    /// The user's unique name.
    #[n(0)]
    pub user_name: String,
    /// The project in which the key acts, made if there is none of this name; `None`: the user's default project.
    #[n(1)]
    pub project_name: Option<String>,
    /// The namespace of a project that has to be made; empty for `default`. A project that is there stays in its own,
    /// and naming another is refused.
    #[n(2)]
    pub namespace_name: String,
    /// The key.
    #[n(3)]
    pub id: AccessKeyId,
    /// Its secret.
    #[n(4)]
    pub secret: Secret,
    /// Resolves the outcome if the answer is lost.
    #[n(5)]
    pub commit: CommitId,
    /// Who asks; `None`: an operator. In a governed project this decides.
    #[n(6)]
    pub by: Option<Person>,
}

/// Enables or disables an access key. Harmless if it is so already.
#[derive(Debug, Clone, Encode, Decode)]
pub struct UpdateAccessKey {
    /// The key.
    #[n(0)]
    pub id: AccessKeyId,
    /// What it shall be.
    #[n(1)]
    pub state: KeyState,
    /// Resolves the outcome if the answer is lost.
    #[n(2)]
    pub commit: CommitId,
}

/// Deletes an access key. Its id may be used again, for a new key.
#[derive(Debug, Clone, Encode, Decode)]
pub struct DeleteAccessKey {
    /// The key.
    #[n(0)]
    pub id: AccessKeyId,
    /// Resolves the outcome if the answer is lost.
    #[n(1)]
    pub commit: CommitId,
}

/// Changes what is said of a user. `None` leaves a property as it is.
#[derive(Debug, Clone, Encode, Decode)]
pub struct UpdateUser {
    /// The user's unique name, which never changes.
    #[n(0)]
    pub user_name: String,
    /// Name shown in listings and ACLs.
    #[n(1)]
    pub display_name: Option<String>,
    /// E-mail address; empty takes it away.
    #[n(2)]
    pub email: Option<String>,
    /// The name of the project that becomes the default; it must exist. Keys that are there keep theirs.
    #[n(3)]
    pub project_name: Option<String>,
    /// Resolves the outcome if the answer is lost.
    #[n(4)]
    pub commit: CommitId,
}

/// Deletes a user and the user's access keys. Refused while the user owns a bucket. Objects that the user wrote into
/// others' buckets stay, and name an owner that nobody is any more.
#[derive(Debug, Clone, Encode, Decode)]
pub struct DeleteUser {
    /// The user's unique name.
    #[n(0)]
    pub user_name: String,
    /// Resolves the outcome if the answer is lost.
    #[n(1)]
    pub commit: CommitId,
}

/// What stands against a change of users, keys or projects. The operator has to decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Encode, Decode)]
#[cbor(index_only)]
pub enum PrincipalConflict {
    /// The access key id is another user's, or acts in another project.
    #[error("this access key id is taken: it is another user's, or acts in another project")]
    #[n(1)]
    AccessKeyTaken,
    /// The canonical id is another user's.
    #[error("this canonical id is another user's")]
    #[n(2)]
    CanonicalIdTaken,
    /// The e-mail address is another user's.
    #[error("this e-mail address is another user's")]
    #[n(3)]
    EmailTaken,
    /// A canonical id names a user in ACLs and policies, so it never changes.
    #[error("this user has another canonical id, and a canonical id never changes")]
    #[n(4)]
    CanonicalIdFixed,
    /// The project's bucket names are in another namespace, and a project stays in its namespace.
    #[error("this project is in another namespace, and a project stays in its namespace")]
    #[n(5)]
    OtherNamespace,
    /// There is no project of this name.
    #[error("there is no such project")]
    #[n(6)]
    NoSuchProject,
    /// The user has as many keys as a user may have.
    #[error("this user has {KEYS_PER_USER_MAX} access keys, which is as many as a user may have: delete one")]
    #[n(7)]
    TooManyKeys,
    /// The user owns buckets.
    #[error("this user owns buckets: delete them first, or disable the user's access keys instead")]
    #[n(8)]
    OwnsBuckets,
    /// A canonical id is 64 hexadecimal digits in lower case.
    #[error("a canonical id must be 64 hexadecimal digits in lower case")]
    #[n(9)]
    CanonicalIdMalformed,
    /// A name is 1 to 256 bytes without control characters.
    #[error("a name must have 1 to 256 bytes, and no control characters")]
    #[n(10)]
    NameMalformed,
}
