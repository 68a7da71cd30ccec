//! Access control lists.
//!
//! Source: "Access control list (ACL) overview". Encoded with minicbor at rest: numbers are never reused, and a list that
//! can't be read grants nothing.

use minicbor::{Decode, Encode};

/// The most grants in a list, as AWS has it.
pub const GRANTS_MAX: usize = 100;

/// What a grant lets its grantee do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Permission {
    /// List the bucket; read the object.
    #[n(1)]
    Read,
    /// Create objects in the bucket. Means nothing on objects.
    #[n(2)]
    Write,
    /// Read the list.
    #[n(3)]
    ReadAcp,
    /// Write the list.
    #[n(4)]
    WriteAcp,
    /// All of these.
    #[n(5)]
    FullControl,
}

impl Permission {
    const ALL: [Self; 5] = [Self::Read, Self::Write, Self::ReadAcp, Self::WriteAcp, Self::FullControl];

    /// The name in AWS's XML.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "READ",
            Self::Write => "WRITE",
            Self::ReadAcp => "READ_ACP",
            Self::WriteAcp => "WRITE_ACP",
            Self::FullControl => "FULL_CONTROL",
        }
    }

    /// Reads [`Self::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|permission| permission.as_str() == text)
    }

    /// Whether a grant of this contains `asked`.
    pub fn contains(self, asked: Self) -> bool {
        self == Self::FullControl || self == asked
    }
}

/// To whom something is granted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Grantee {
    /// One user.
    #[n(1)]
    User {
        /// The user's canonical id.
        #[n(0)]
        canonical_id: String,
    },
    /// Everybody, signed or not.
    #[n(2)]
    AllUsers,
    /// Everybody whose signature is right.
    #[n(3)]
    AuthenticatedUsers,
    /// S3's log delivery, which nobody is here.
    #[n(4)]
    LogDelivery,
}

impl Grantee {
    /// The URI of a group in AWS's XML; `None` for a user.
    pub const fn uri(&self) -> Option<&'static str> {
        match self {
            Self::User { .. } => None,
            Self::AllUsers => Some("http://acs.amazonaws.com/groups/global/AllUsers"),
            Self::AuthenticatedUsers => Some("http://acs.amazonaws.com/groups/global/AuthenticatedUsers"),
            Self::LogDelivery => Some("http://acs.amazonaws.com/groups/s3/LogDelivery"),
        }
    }

    /// Reads [`Self::uri`].
    pub fn from_uri(uri: &str) -> Option<Self> {
        [Self::AllUsers, Self::AuthenticatedUsers, Self::LogDelivery].into_iter().find(|group| group.uri() == Some(uri))
    }

    /// Whether the group is the public, as PublicAccessBlock means it: AWS's "authenticated" is everybody with an account.
    pub const fn is_public(&self) -> bool {
        matches!(self, Self::AllUsers | Self::AuthenticatedUsers)
    }

    fn has(&self, who: Option<&str>) -> bool {
        match (self, who) {
            (Self::AllUsers, _) | (Self::AuthenticatedUsers, Some(_)) => true,
            (Self::User { canonical_id }, Some(who)) => !who.is_empty() && canonical_id == who,
            (Self::LogDelivery | Self::AuthenticatedUsers | Self::User { .. }, _) => false,
        }
    }
}

/// One grant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Grant {
    /// To whom.
    #[n(0)]
    pub grantee: Grantee,
    /// What.
    #[n(1)]
    pub permission: Permission,
}

/// An access control list: of whom, and the grants.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Acl {
    /// The canonical id of whom the bucket or object belongs to.
    #[n(0)]
    pub owner: String,
    /// At most [`GRANTS_MAX`].
    #[n(1)]
    pub grants: Vec<Grant>,
}

/// What is wrong with a list.
#[derive(Debug, thiserror::Error)]
pub enum AclError {
    /// More than [`GRANTS_MAX`].
    #[error("an access control list has at most {GRANTS_MAX} grants, this has {0}")]
    TooManyGrants(usize),
    /// Bytes at rest that are no list.
    #[error("an access control list at rest can't be read")]
    Corrupt(#[source] minicbor::decode::Error),
}

/// What an ACL belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A bucket.
    Bucket,
    /// An object.
    Object,
}

impl Acl {
    /// A list with `grants`.
    ///
    /// # Errors
    /// [`AclError::TooManyGrants`].
    pub fn new(owner: impl Into<String>, grants: Vec<Grant>) -> Result<Self, AclError> {
        match grants.len() {
            0..=GRANTS_MAX => Ok(Self { owner: owner.into(), grants }),
            too_many => Err(AclError::TooManyGrants(too_many)),
        }
    }

    /// The list of everything new: its owner has FULL_CONTROL.
    pub fn private(owner: &str) -> Self {
        Self { owner: owner.to_owned(), grants: vec![user(owner, Permission::FullControl)] }
    }

    /// For metadata, which keeps it sealed.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match minicbor::encode(self, &mut bytes) {
            Ok(()) => bytes,
            // Writing to a Vec is infallible, and no field has an encoder of its own that refuses a value.
            Err(_) => unreachable!("lists encode into memory"),
        }
    }

    /// Reads [`Self::to_bytes`].
    ///
    /// # Errors
    /// [`AclError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, AclError> {
        let acl: Self = minicbor::decode(bytes).map_err(AclError::Corrupt)?;
        Self::new(acl.owner, acl.grants)
    }

    /// Whether a grant gives `permission` to `who` (a canonical id; `None` for an unsigned request).
    pub fn allows(&self, who: Option<&str>, permission: Permission, ignore_public: bool) -> bool {
        self.grants.iter().any(|grant| {
            grant.permission.contains(permission)
                && !(ignore_public && grant.grantee.is_public())
                && grant.grantee.has(who)
        })
    }

    /// Whether anything is granted to the public.
    pub fn is_public(&self) -> bool {
        self.grants.iter().any(|grant| grant.grantee.is_public())
    }

    /// Whether anything is granted to anybody but `owner`: such a list keeps ACLs from being turned off.
    pub fn grants_others(&self, owner: &str) -> bool {
        self.grants.iter().any(|grant| !grant.grantee.has_only(owner))
    }
}

impl Grantee {
    fn has_only(&self, owner: &str) -> bool {
        matches!(self, Self::User { canonical_id } if canonical_id == owner)
    }
}

fn user(canonical_id: &str, permission: Permission) -> Grant {
    Grant { grantee: Grantee::User { canonical_id: canonical_id.to_owned() }, permission }
}

/// The canned ACLs of `x-amz-acl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CannedAcl {
    /// The owner only.
    Private,
    /// Everybody reads.
    PublicRead,
    /// Everybody reads and writes.
    PublicReadWrite,
    /// Whoever has an account reads.
    AuthenticatedRead,
    /// EC2 reads machine images, which nobody does here: as `private`.
    AwsExecRead,
    /// The bucket's owner reads. As `private` on buckets.
    BucketOwnerRead,
    /// The bucket's owner has everything. As `private` on buckets.
    BucketOwnerFullControl,
    /// Log delivery writes to the bucket.
    LogDeliveryWrite,
}

impl CannedAcl {
    const ALL: [Self; 8] = [
        Self::Private,
        Self::PublicRead,
        Self::PublicReadWrite,
        Self::AuthenticatedRead,
        Self::AwsExecRead,
        Self::BucketOwnerRead,
        Self::BucketOwnerFullControl,
        Self::LogDeliveryWrite,
    ];

    /// The header's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::PublicRead => "public-read",
            Self::PublicReadWrite => "public-read-write",
            Self::AuthenticatedRead => "authenticated-read",
            Self::AwsExecRead => "aws-exec-read",
            Self::BucketOwnerRead => "bucket-owner-read",
            Self::BucketOwnerFullControl => "bucket-owner-full-control",
            Self::LogDeliveryWrite => "log-delivery-write",
        }
    }

    /// Reads [`Self::as_str`].
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|canned| canned.as_str() == name)
    }

    /// The list that the name stands for.
    pub fn acl(self, owner: &str, bucket_owner: &str, target: Target) -> Acl {
        let mut acl = Acl::private(owner);
        let mut group = |grantee, permission| acl.grants.push(Grant { grantee, permission });
        match (self, target) {
            (Self::PublicRead, _) => group(Grantee::AllUsers, Permission::Read),
            (Self::PublicReadWrite, _) => {
                group(Grantee::AllUsers, Permission::Read);
                group(Grantee::AllUsers, Permission::Write);
            }
            (Self::AuthenticatedRead, _) => group(Grantee::AuthenticatedUsers, Permission::Read),
            (Self::LogDeliveryWrite, Target::Bucket) => {
                group(Grantee::LogDelivery, Permission::Write);
                group(Grantee::LogDelivery, Permission::ReadAcp);
            }
            (Self::BucketOwnerRead, Target::Object) if owner != bucket_owner => {
                acl.grants.push(user(bucket_owner, Permission::Read));
            }
            (Self::BucketOwnerFullControl, Target::Object) if owner != bucket_owner => {
                acl.grants.push(user(bucket_owner, Permission::FullControl));
            }
            (
                Self::Private
                | Self::AwsExecRead
                | Self::BucketOwnerRead
                | Self::BucketOwnerFullControl
                | Self::LogDeliveryWrite,
                _,
            ) => {}
        }
        acl
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canned_lists_are_awss() {
        let others = |name, owner, target| -> Vec<(Option<&'static str>, &'static str)> {
            let canned = CannedAcl::parse(name).expect("canned");
            assert_eq!(canned.as_str(), name);
            let acl = canned.acl(owner, "bucket-owner", target);
            assert_eq!(acl.grants[0], user(owner, Permission::FullControl));
            acl.grants[1..].iter().map(|grant| (grant.grantee.uri(), grant.permission.as_str())).collect()
        };
        let all = Some("http://acs.amazonaws.com/groups/global/AllUsers");
        let authenticated = Some("http://acs.amazonaws.com/groups/global/AuthenticatedUsers");
        let log = Some("http://acs.amazonaws.com/groups/s3/LogDelivery");
        for target in [Target::Bucket, Target::Object] {
            assert_eq!(others("private", "a", target), []);
            assert_eq!(others("public-read", "a", target), [(all, "READ")]);
            assert_eq!(others("public-read-write", "a", target), [(all, "READ"), (all, "WRITE")]);
            assert_eq!(others("authenticated-read", "a", target), [(authenticated, "READ")]);
            assert_eq!(others("aws-exec-read", "a", target), []);
            assert_eq!(others("bucket-owner-full-control", "bucket-owner", target), []);
        }
        assert_eq!(others("bucket-owner-read", "a", Target::Object), [(None, "READ")]);
        assert_eq!(others("bucket-owner-full-control", "a", Target::Object), [(None, "FULL_CONTROL")]);
        assert_eq!(others("log-delivery-write", "a", Target::Bucket), [(log, "WRITE"), (log, "READ_ACP")]);
        assert_eq!(CannedAcl::parse("Private"), None);
    }

    #[test]
    fn grants_are_for_whom_they_are() {
        let grants = vec![
            user("a", Permission::FullControl),
            user("b", Permission::ReadAcp),
            Grant { grantee: Grantee::AllUsers, permission: Permission::Read },
            Grant { grantee: Grantee::AuthenticatedUsers, permission: Permission::WriteAcp },
            Grant { grantee: Grantee::LogDelivery, permission: Permission::Write },
        ];
        let acl = Acl::new("a", grants).expect("acl");
        for (who, ignore_public, expected) in [
            (Some("a"), true, [true; 4]),
            (Some("b"), false, [true, false, true, true]),
            (Some("b"), true, [false, false, true, false]),
            (Some("c"), false, [true, false, false, true]),
            (Some("c"), true, [false; 4]),
            (None, false, [true, false, false, false]),
            (None, true, [false; 4]),
            (Some(""), true, [false; 4]),
        ] {
            let asked = [Permission::Read, Permission::Write, Permission::ReadAcp, Permission::WriteAcp];
            assert_eq!(asked.map(|permission| acl.allows(who, permission, ignore_public)), expected, "{who:?}");
        }
        assert!(acl.is_public() && acl.grants_others("a"));
        assert!(!Acl::private("a").is_public() && !Acl::private("a").grants_others("a"));
        assert!(Acl::private("a").grants_others("b"));
    }

    #[test]
    fn a_list_is_read_as_it_was_written_and_bounded() {
        let acl = CannedAcl::PublicReadWrite.acl("a", "b", Target::Object);
        let bytes = acl.to_bytes();
        assert_eq!(Acl::from_bytes(&bytes).expect("read"), acl);
        // The bytes at rest, which never change.
        let golden = [
            0x82, 0x61, b'a', 0x83, 0x82, 0x82, 1, 0x81, 0x61, b'a', 5, 0x82, 0x82, 2, 0x80, 1, 0x82, 0x82, 2, 0x80, 2,
        ];
        assert_eq!(bytes, golden);
        assert!(Acl::from_bytes(&[]).is_err() && Acl::from_bytes(b"x").is_err());
        let many = |count| Acl::new("a", vec![user("b", Permission::Read); count]);
        assert!(many(GRANTS_MAX).is_ok() && many(GRANTS_MAX + 1).is_err());
    }
}
