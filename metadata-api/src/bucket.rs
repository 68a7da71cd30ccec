//! Principals and buckets.

use crate::{Roles, Secret};
use minicbor::{Decode, Encode};
use valv_types::{AccessKeyId, BucketId, CommitId, Layout, NamespaceId, OpeningId, ProjectId, TimestampMicros, UserId};

/// Who asks, for the ledger and for ownership. Filled in by the gateway after authentication.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Actor {
    /// The project in which the request acts.
    #[n(0)]
    pub project: ProjectId,
    /// The user, or `None` for an anonymous request and for Valv's own background work.
    #[n(1)]
    pub user: Option<UserId>,
    /// The access key used.
    #[n(2)]
    pub access_key: Option<AccessKeyId>,
    /// The request id that the client was given.
    #[n(3)]
    pub request_id: String,
    /// The peer's address as text, without port.
    #[n(4)]
    pub remote: String,
    /// Through what the admin service was reached, as the ledger shall name it (`operator on the server's socket`, `token
    /// 1f0c...`). `None` for requests of S3 and for Valv's own work.
    #[n(5)]
    pub caller: Option<String>,
    /// The opening by which the actor got in, if the actor is no member.
    #[n(6)]
    pub opening: Option<OpeningId>,
}

/// Looks up an access key.
#[derive(Debug, Clone, Encode, Decode)]
pub struct GetAccessKey {
    /// The key's public half.
    #[n(0)]
    pub id: AccessKeyId,
}

/// What an access key stands for. A gateway may use it for [`AccessGrant::lease_ms`] counted from before it asked.
#[derive(Debug, Clone, Encode, Decode)]
pub struct AccessGrant {
    /// The secret half, for checking signatures.
    #[n(0)]
    pub secret: Secret,
    /// The user.
    #[n(1)]
    pub user: UserId,
    /// 64 hexadecimal digits that name the user in ACLs and listings.
    #[n(2)]
    pub canonical_id: String,
    /// The user's display name.
    #[n(3)]
    pub display_name: String,
    /// The project in which requests with this key act.
    #[n(4)]
    pub project: ProjectId,
    /// The namespace in which bucket names of this key resolve.
    #[n(5)]
    pub namespace: NamespaceId,
    /// How long this answer may be relied on, in milliseconds: at most 3,000.
    #[n(6)]
    pub lease_ms: u32,
    /// The user's unique name, as policies may name them.
    #[n(7)]
    #[cbor(default)]
    pub user_name: String,
    /// The project's unique name: what policies may write in the place of an account.
    #[n(8)]
    #[cbor(default)]
    pub project_name: String,
    /// What the user may do in the project, if it is governed.
    #[n(9)]
    #[cbor(default)]
    pub roles: Roles,
    /// Whether the project has members, so that roles decide; else every access key that acts in it is a full member.
    #[n(10)]
    #[cbor(default)]
    pub is_governed: bool,
}

/// Creates a user with a project, a namespace and an access key unless they are there already. Idempotent: a secret,
/// display name or e-mail address that differs is replaced, and what can't change is refused when it differs
/// ([`crate::PrincipalConflict`]). A key that an operator has disabled stays disabled.
#[derive(Debug, Clone, Encode, Decode)]
pub struct EnsurePrincipal {
    /// The user's unique name.
    #[n(0)]
    pub user_name: String,
    /// Name shown in listings and ACLs; empty for the one that the user has, or the user's name.
    #[n(1)]
    pub display_name: String,
    /// E-mail address, for ACL grants by address; empty for the one that the user has, or none.
    #[n(2)]
    pub email: String,
    /// The canonical id to use, 64 hexadecimal digits; empty to derive one from the user's id.
    #[n(3)]
    pub canonical_id: String,
    /// The unique name of the project in which the key acts, and the default project of a user who is made here.
    #[n(4)]
    pub project_name: String,
    /// The namespace's unique name; projects that name the same one share it. Empty for the project's own, or `default`.
    #[n(5)]
    pub namespace_name: String,
    /// The access key.
    #[n(6)]
    pub access_key: AccessKeyId,
    /// Its secret.
    #[n(7)]
    pub secret: Secret,
}

/// What [`EnsurePrincipal`] found or made.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct EnsuredPrincipal {
    /// The user.
    #[n(0)]
    pub user: UserId,
    /// The project.
    #[n(1)]
    pub project: ProjectId,
    /// The namespace.
    #[n(2)]
    pub namespace: NamespaceId,
    /// Whether anything had to be created or changed.
    #[n(3)]
    pub changed: bool,
}

/// A user, as named in ACLs, policies and listings.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct User {
    /// The user.
    #[n(0)]
    pub id: UserId,
    /// Unique name.
    #[n(1)]
    pub name: String,
    /// 64 hexadecimal digits.
    #[n(2)]
    pub canonical_id: String,
    /// Name shown in listings.
    #[n(3)]
    pub display_name: String,
    /// E-mail address; may be empty.
    #[n(4)]
    pub email: String,
    /// The user's default project.
    #[n(5)]
    pub project: ProjectId,
}

/// How to find a user.
#[derive(Debug, Clone, Encode, Decode)]
pub enum GetUser {
    /// By id.
    #[n(0)]
    Id(#[n(0)] UserId),
    /// By canonical id.
    #[n(1)]
    Canonical(#[n(0)] String),
    /// By unique name.
    #[n(2)]
    Name(#[n(0)] String),
    /// By e-mail address.
    #[n(3)]
    Email(#[n(0)] String),
}

/// Looks up a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct GetNamespace {
    /// Its unique name.
    #[n(0)]
    pub name: String,
}

/// A namespace. Its id never changes, and it is never removed, so an answer may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Namespace {
    /// The namespace.
    #[n(0)]
    pub id: NamespaceId,
}

/// Whether a bucket keeps old versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Versioning {
    /// Never enabled: one version a key, its version id is `null`.
    #[n(0)]
    Unversioned,
    /// Every write adds a version.
    #[n(1)]
    Enabled,
    /// Writes replace the null version; older versions stay.
    #[n(2)]
    Suspended,
}

/// A bucket and the settings that the metadata service itself acts on.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Bucket {
    /// The bucket.
    #[n(0)]
    pub id: BucketId,
    /// Its name in its namespace.
    #[n(1)]
    pub name: String,
    /// The project it belongs to.
    #[n(2)]
    pub project: ProjectId,
    /// The namespace its name is in.
    #[n(3)]
    pub namespace: NamespaceId,
    /// Who made it.
    #[n(4)]
    pub owner: UserId,
    /// When.
    #[n(5)]
    pub created: TimestampMicros,
    /// The layout that new blobs get.
    #[n(6)]
    pub layout: Layout,
    /// Whether old versions are kept.
    #[n(7)]
    pub versioning: Versioning,
    /// Object Lock: `None` if the bucket was made without it.
    #[n(8)]
    pub object_lock: Option<ObjectLock>,
    /// The kinds of document set on this bucket, so that a request that meets none of them needs no second read.
    #[n(9)]
    pub documents: Vec<BucketDocumentKind>,
    /// How many times a document was set or removed: with the bucket's id it names what the documents say, so that who
    /// has read them under the same number need not read them again.
    #[n(10)]
    #[cbor(default)]
    pub document_changes: u64,
    /// Its name in its own namespace, if it was found under an alias that an opening gives it; then `name` and `namespace`
    /// are the alias's. Policies know this name, recipients never see it.
    #[n(12)]
    pub own_name: Option<String>,
}

impl Bucket {
    /// The name that its project knows it by.
    pub fn own_name(&self) -> &str {
        self.own_name.as_deref().unwrap_or(&self.name)
    }
}

/// A bucket's Object Lock setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct ObjectLock {
    /// The retention that new versions get when the request names none.
    #[n(0)]
    pub default: Option<DefaultRetention>,
}

/// The retention that new versions of a bucket get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct DefaultRetention {
    /// Governance or compliance.
    #[n(0)]
    pub mode: RetentionMode,
    /// How long, counted from the version's creation.
    #[n(1)]
    pub period: RetentionPeriod,
}

/// A length of time as S3's DefaultRetention states it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum RetentionPeriod {
    /// Days of 24 hours.
    #[n(0)]
    Days(#[n(0)] u32),
    /// Years of 365 days, as S3 counts them.
    #[n(1)]
    Years(#[n(0)] u32),
}

/// Who may shorten a retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum RetentionMode {
    /// Those who hold the permission to bypass it.
    #[n(1)]
    Governance,
    /// Nobody.
    #[n(2)]
    Compliance,
}

/// Settings that the gateway reads and the metadata service only keeps (sealed): their text is the gateway's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum BucketDocumentKind {
    /// Bucket policy (JSON).
    #[n(1)]
    Policy,
    /// Access control list.
    #[n(2)]
    Acl,
    /// Lifecycle rules.
    #[n(3)]
    Lifecycle,
    /// CORS rules.
    #[n(4)]
    Cors,
    /// Bucket tags.
    #[n(5)]
    Tagging,
    /// Default encryption.
    #[n(6)]
    Encryption,
    /// Ownership controls.
    #[n(7)]
    OwnershipControls,
    /// PublicAccessBlock.
    #[n(8)]
    PublicAccessBlock,
    /// Notification configuration.
    #[n(9)]
    Notification,
    /// Server access logging.
    #[n(10)]
    Logging,
    /// Request payment.
    #[n(11)]
    RequestPayment,
    /// Static website.
    #[n(12)]
    Website,
}

impl BucketDocumentKind {
    /// Every kind.
    pub const ALL: [Self; 12] = [
        Self::Policy,
        Self::Acl,
        Self::Lifecycle,
        Self::Cors,
        Self::Tagging,
        Self::Encryption,
        Self::OwnershipControls,
        Self::PublicAccessBlock,
        Self::Notification,
        Self::Logging,
        Self::RequestPayment,
        Self::Website,
    ];
}

/// Creates a bucket.
#[derive(Debug, Clone, Encode, Decode)]
pub struct CreateBucket {
    /// Who asks; the bucket belongs to the actor's project.
    #[n(0)]
    pub actor: Actor,
    /// The namespace in which the name must be free.
    #[n(1)]
    pub namespace: NamespaceId,
    /// The name, already checked against S3's rules.
    #[n(2)]
    pub name: String,
    /// Make it with Object Lock (and so with versioning enabled).
    #[n(3)]
    pub object_lock: bool,
    /// Documents to set in the same commit.
    #[n(4)]
    pub documents: Vec<BucketDocument>,
    /// Resolves the outcome if the answer is lost.
    #[n(5)]
    pub commit: CommitId,
}

/// Names a bucket.
#[derive(Debug, Clone, Encode, Decode)]
pub struct GetBucket {
    /// The namespace in which the name is looked up.
    #[n(0)]
    pub namespace: NamespaceId,
    /// The name.
    #[n(1)]
    pub name: String,
}

/// Deletes an empty bucket.
#[derive(Debug, Clone, Encode, Decode)]
pub struct DeleteBucket {
    /// Who asks.
    #[n(0)]
    pub actor: Actor,
    /// The bucket.
    #[n(1)]
    pub bucket: BucketId,
    /// Resolves the outcome if the answer is lost.
    #[n(2)]
    pub commit: CommitId,
}

/// Lists the buckets of a project in name order.
#[derive(Debug, Clone, Encode, Decode)]
pub struct ListBuckets {
    /// The project.
    #[n(0)]
    pub project: ProjectId,
    /// Only names that start with this.
    #[n(1)]
    pub prefix: String,
    /// Only names after this one.
    #[n(2)]
    pub after: Option<String>,
    /// At most this many.
    #[n(3)]
    pub limit: u32,
    /// Lists opened buckets, too, that this user or the project finds in this namespace.
    #[n(4)]
    pub opened_to: Option<OpenedTo>,
}

/// Who asks for opened buckets, and where they look for names.
#[derive(Debug, Clone, Copy, Encode, Decode)]
pub struct OpenedTo {
    /// The user.
    #[n(0)]
    pub user: UserId,
    /// The namespace.
    #[n(1)]
    pub namespace: NamespaceId,
}

/// Changes what the metadata service itself acts on.
#[derive(Debug, Clone, Encode, Decode)]
pub struct UpdateBucket {
    /// Who asks.
    #[n(0)]
    pub actor: Actor,
    /// The bucket.
    #[n(1)]
    pub bucket: BucketId,
    /// What to change.
    #[n(2)]
    pub change: BucketChange,
    /// Resolves the outcome if the answer is lost.
    #[n(3)]
    pub commit: CommitId,
}

/// One change of a bucket.
#[derive(Debug, Clone, Encode, Decode)]
pub enum BucketChange {
    /// Enables or suspends versioning. Suspending is refused where Object Lock is on.
    #[n(0)]
    Versioning(#[n(0)] Versioning),
    /// Sets Object Lock's default retention; needs versioning enabled.
    #[n(1)]
    ObjectLock(#[n(0)] ObjectLock),
    /// Sets a document.
    #[n(2)]
    SetDocument(#[n(0)] BucketDocument),
    /// Removes a document; harmless if it is not there.
    #[n(3)]
    RemoveDocument(#[n(0)] BucketDocumentKind),
}

/// A document of a bucket.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct BucketDocument {
    /// Which one.
    #[n(0)]
    pub kind: BucketDocumentKind,
    /// Its text, as the gateway wrote it.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub body: Vec<u8>,
}

/// Reads a document of a bucket.
#[derive(Debug, Clone, Encode, Decode)]
pub struct GetBucketDocument {
    /// The bucket.
    #[n(0)]
    pub bucket: BucketId,
    /// Which document.
    #[n(1)]
    pub kind: BucketDocumentKind,
}
