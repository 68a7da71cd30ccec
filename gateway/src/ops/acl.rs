//! Access control lists of buckets and objects, and who owns an object that is being written.
//!
//! Members of the bucket's project act for the bucket's owner: what they write is the bucket owner's, as an account's
//! users write for the account in AWS. Who is no member owns what they write where ownership controls say so, and the
//! bucket's owner does elsewhere; so does it own what is written without a signature. A list that grants nothing beyond
//! its owner's FULL_CONTROL is not kept: its absence says the same.

use super::context::{BodyDigest, Context};
use super::get::readable;
use super::grants::{NamedGrant, NamedGrantee, Wanted, read_document, read_headers};
use super::tagging::{update_bucket, update_version};
use super::{Answer, status, xml};
use crate::access::{About, Action, refuse_denied};
use crate::error::{S3Code, S3Error};
use crate::payload::Payload;
use crate::xml::{Namespace, Writer};
use http::StatusCode;
use std::sync::Arc;
use valv_metadata_api::{
    Attributes, Bucket, BucketChange, BucketDocument, BucketDocumentKind, GetUser, MetadataError, ObjectVersion, User,
    VersionChange,
};
use valv_policy::acl::Target;
use valv_policy::{Acl, CannedAcl, Grant, Grantee, ObjectOwnership, Permission, PublicAccessBlock};
use valv_types::UserId;

/// Longest AccessControlPolicy: 100 grants of some 400 bytes, with white space, are 60 KiB.
const ACL_LEN_BYTES_MAX: usize = 128 * 1024;

/// Who a user is in lists: a user who is gone has no name, and nobody can claim theirs.
fn canonical_id(user: &Option<Arc<User>>) -> &str {
    user.as_ref().map_or("", |user| user.canonical_id.as_str())
}

/// Who owns a version: whoever is recorded, unless that is a member of the bucket's project, who wrote for the bucket's
/// owner; or where ACLs are off, the bucket's owner.
///
/// # Errors
/// That metadata can't be reached.
pub(crate) async fn owner_of_version(
    cx: &Context,
    bucket: &Bucket,
    owner: Option<UserId>,
) -> Result<Option<Arc<User>>, S3Error> {
    let rules = cx.shared.rules.of(bucket).await?;
    if let Some(owner) = owner.filter(|owner| *owner != bucket.owner && rules.ownership.has_acls())
        && let Some(user) = cx.shared.principals.user(owner).await?
        && user.project != bucket.project
    {
        return Ok(Some(user));
    }
    cx.shared.principals.user(bucket.owner).await
}

/// Looks up the grantees that a request names.
///
/// # Errors
/// InvalidArgument, UnresolvableGrantByEmailAddress.
async fn resolve(cx: &Context, grants: Vec<NamedGrant>) -> Result<Vec<Grant>, S3Error> {
    let mut resolved: Vec<Grant> = Vec::with_capacity(grants.len());
    for NamedGrant { grantee, permission } in grants {
        let request = match &grantee {
            NamedGrantee::Id(id) => GetUser::Canonical(id.clone()),
            NamedGrantee::Email(address) => GetUser::Email(address.clone()),
            NamedGrantee::Uri(uri) => {
                let grantee = Grantee::from_uri(uri)
                    .ok_or_else(|| S3Error::invalid_argument("Invalid group uri", "Group/URI", uri.as_str()))?;
                resolved.push(Grant { grantee, permission });
                continue;
            }
        };
        let user = match cx.shared.metadata.get_user(request).await {
            Ok(user) => user,
            Err(MetadataError::NoSuchUser) => {
                return Err(match grantee {
                    NamedGrantee::Email(_) => S3Code::UnresolvableGrantByEmailAddress.into(),
                    NamedGrantee::Id(id) | NamedGrantee::Uri(id) => {
                        S3Error::invalid_argument("Invalid id", "CanonicalUser/ID", id)
                    }
                });
            }
            Err(error) => return Err(error.into()),
        };
        resolved.push(Grant { grantee: Grantee::User { canonical_id: user.canonical_id }, permission });
    }
    Ok(resolved)
}

/// The list that a request wants for something of `owner`'s.
async fn list_of(
    cx: &Context,
    wanted: Wanted,
    owner: &str,
    bucket_owner: &str,
    target: Target,
) -> Result<Acl, S3Error> {
    match wanted {
        Wanted::Canned(canned) => Ok(canned.acl(owner, bucket_owner, target)),
        Wanted::Grants(grants) => {
            let grants = resolve(cx, grants).await?;
            Acl::new(owner, grants).map_err(|_| S3Code::MalformedACLError.into())
        }
    }
}

/// Where ACLs are off, a request may say what holds anyway, and nothing else.
fn check_disabled(wanted: &Wanted, owner: &str) -> Result<(), S3Error> {
    let is_what_holds = match wanted {
        Wanted::Canned(canned) => matches!(canned, CannedAcl::BucketOwnerFullControl | CannedAcl::Private),
        Wanted::Grants(grants) => {
            let is_owners = |grant: &NamedGrant| {
                grant.permission == Permission::FullControl
                    && matches!(&grant.grantee, NamedGrantee::Id(id) if id == owner)
            };
            !grants.is_empty() && grants.iter().all(is_owners)
        }
    };
    if is_what_holds { Ok(()) } else { Err(S3Code::AccessControlListNotSupported.into()) }
}

/// Refuses what grants to the public where that is blocked.
fn check_public(acl: &Acl, block: PublicAccessBlock) -> Result<(), S3Error> {
    if block.block_public_acls && acl.is_public() { Err(S3Code::AccessDenied.into()) } else { Ok(()) }
}

/// The list as it is kept: nothing for one that says nothing.
fn kept(acl: &Acl) -> Vec<u8> {
    if *acl == Acl::private(&acl.owner) { Vec::new() } else { acl.to_bytes() }
}

/// Decides who will own the object that this request writes into `bucket`, and its list.
///
/// # Errors
/// InvalidArgument and the like for the headers; AccessControlListNotSupported; AccessDenied for a public list where such
/// are blocked, and if a policy denies setting it.
pub(crate) async fn settle_ownership(
    cx: &Context,
    bucket: &Bucket,
    attributes: &mut Attributes,
) -> Result<(), S3Error> {
    let wanted = read_headers(&cx.headers)?;
    let rules = cx.shared.rules.of(bucket).await?;
    let writer = cx.identity().filter(|_| !cx.is_member(bucket)).map(|identity| &identity.grant);
    attributes.owner = Some(bucket.owner);
    attributes.acl = Vec::new();
    if wanted.is_none() && (writer.is_none() || !rules.ownership.has_acls()) {
        return Ok(());
    }
    let owner = cx.shared.principals.user(bucket.owner).await?;
    let bucket_owner = canonical_id(&owner);
    if !rules.ownership.has_acls() {
        return wanted.map_or(Ok(()), |wanted| check_disabled(&wanted, bucket_owner));
    }
    let is_handed_over = rules.ownership == ObjectOwnership::BucketOwnerPreferred
        && wanted == Some(Wanted::Canned(CannedAcl::BucketOwnerFullControl));
    let (owner_id, owner) = match writer {
        Some(writer) if !is_handed_over => (writer.user, writer.canonical_id.as_str()),
        _ => (bucket.owner, bucket_owner),
    };
    attributes.owner = Some(owner_id);
    let Some(wanted) = wanted else { return Ok(()) };
    // Setting a list is an action of its own, which a policy may deny; else it comes with writing the object.
    let about = About::key(cx.target.key.as_ref());
    refuse_denied(&cx.shared.rules, &cx.asker, Action::PutObjectAcl, bucket, &about, cx.now).await?;
    let acl = list_of(cx, wanted, owner, bucket_owner, Target::Object).await?;
    check_public(&acl, rules.public_access_block)?;
    attributes.acl = kept(&acl);
    Ok(())
}

/// The documents of a bucket that this request creates: its ownership controls and its list, as far as the headers name
/// them, and what the operator makes new buckets with.
///
/// # Errors
/// InvalidArgument; InvalidBucketAclWithObjectOwnership; InvalidBucketAclWithBlockPublicAccessError.
pub(crate) async fn of_new_bucket(cx: &Context) -> Result<Vec<BucketDocument>, S3Error> {
    let made_with = cx.shared.config.new_buckets;
    let header = "x-amz-object-ownership";
    let named = super::headers::text(&cx.headers, header);
    let ownership = match named {
        None => made_with.ownership,
        Some(name) => ObjectOwnership::parse(name)
            .ok_or_else(|| S3Error::invalid_argument("Invalid x-amz-object-ownership header", header, name))?,
    };
    let mut documents = Vec::new();
    // A bucket without documents is locked down.
    if named.is_some() || ownership != ObjectOwnership::default() {
        documents.push(super::ownership::document_of(ownership));
    }
    let mut block = PublicAccessBlock::default();
    if !made_with.is_public_access_blocked {
        // As if it had been removed.
        block.block_public_acls = false;
        documents.push(BucketDocument { kind: BucketDocumentKind::PublicAccessBlock, body: Vec::new() });
    }
    let Some(wanted) = read_headers(&cx.headers)? else { return Ok(documents) };
    let owner = cx.signed()?.grant.canonical_id.as_str();
    if !ownership.has_acls() {
        check_disabled(&wanted, owner).map_err(|_| S3Code::InvalidBucketAclWithObjectOwnership)?;
        return Ok(documents);
    }
    let acl = list_of(cx, wanted, owner, owner, Target::Bucket).await?;
    check_public(&acl, block).map_err(|_| S3Code::InvalidBucketAclWithBlockPublicAccessError)?;
    let body = kept(&acl);
    if !body.is_empty() {
        documents.push(BucketDocument { kind: BucketDocumentKind::Acl, body });
    }
    Ok(documents)
}

/// What a PUT of a list asks for, in its headers or its body.
async fn wanted_of_put(cx: &Context, payload: &mut Payload, owner: &str) -> Result<Wanted, S3Error> {
    let body = cx.small_body(payload, ACL_LEN_BYTES_MAX, BodyDigest::Optional).await?;
    match (read_headers(&cx.headers)?, body.trim_ascii().is_empty()) {
        (Some(wanted), true) => Ok(wanted),
        (Some(_), false) => Err(S3Code::UnexpectedContent.into()),
        (None, true) => Err(S3Error::new(S3Code::MissingSecurityHeader).with_extra("MissingHeaderName", "x-amz-acl")),
        (None, false) => {
            let (named_owner, grants) = read_document(&body)?;
            // Ownership is not given away by a list.
            if named_owner == owner { Ok(Wanted::Grants(grants)) } else { Err(S3Code::AccessDenied.into()) }
        }
    }
}

/// GET of a bucket's list.
pub(crate) async fn get_bucket(cx: &Context) -> Answer {
    let bucket = cx.bucket(Action::GetBucketAcl).await?;
    let rules = cx.shared.rules.of(&bucket).await?;
    let owner = cx.shared.principals.user(bucket.owner).await?;
    let stored = rules.acl.as_ref().filter(|_| rules.ownership.has_acls());
    document(cx, owner, stored).await
}

/// PUT of a bucket's list.
pub(crate) async fn put_bucket(cx: &Context, mut payload: Payload) -> Answer {
    let bucket = cx.bucket(Action::PutBucketAcl).await?;
    let rules = cx.shared.rules.of(&bucket).await?;
    let owner = cx.shared.principals.user(bucket.owner).await?;
    let owner = canonical_id(&owner);
    let wanted = wanted_of_put(cx, &mut payload, owner).await?;
    if !rules.ownership.has_acls() {
        check_disabled(&wanted, owner)?;
        return Ok(status(StatusCode::OK));
    }
    let acl = list_of(cx, wanted, owner, owner, Target::Bucket).await?;
    check_public(&acl, rules.public_access_block)?;
    set_bucket_list(cx, &bucket, kept(&acl)).await?;
    Ok(status(StatusCode::OK))
}

async fn set_bucket_list(cx: &Context, bucket: &Bucket, body: Vec<u8>) -> Result<(), S3Error> {
    let change = if body.is_empty() {
        BucketChange::RemoveDocument(BucketDocumentKind::Acl)
    } else {
        BucketChange::SetDocument(BucketDocument { kind: BucketDocumentKind::Acl, body })
    };
    update_bucket(cx, bucket, change).await.map(|_| ())
}

/// The list of a bucket that its owner creates again: "if you re-create an existing bucket that you already own in the
/// North Virginia Region, Amazon S3 returns 200 OK and resets the bucket access control lists (ACLs)" (CreateBucket). So
/// nobody who was told 200 takes a bucket for more private, or more open, than it is.
///
/// # Errors
/// As [`of_new_bucket`]; AccessDenied if a policy denies changing the list.
pub(crate) async fn of_recreated_bucket(cx: &Context) -> Result<(), S3Error> {
    let bucket = cx.bucket_of_many().await?;
    let rules = cx.shared.rules.of(&bucket).await?;
    let owner = cx.shared.principals.user(bucket.owner).await?;
    let owner = canonical_id(&owner);
    let wanted = read_headers(&cx.headers)?;
    if !rules.ownership.has_acls() {
        let check = |wanted| check_disabled(&wanted, owner);
        return wanted.map_or(Ok(()), check).map_err(|_| S3Code::InvalidBucketAclWithObjectOwnership.into());
    }
    let acl = match wanted {
        Some(wanted) => list_of(cx, wanted, owner, owner, Target::Bucket).await?,
        None => Acl::private(owner),
    };
    let body = kept(&acl);
    if body == rules.acl.as_ref().map(kept).unwrap_or_default() {
        return Ok(());
    }
    let about = About::default();
    refuse_denied(&cx.shared.rules, &cx.asker, Action::PutBucketAcl, &bucket, &about, cx.now).await?;
    check_public(&acl, rules.public_access_block).map_err(|_| S3Code::InvalidBucketAclWithBlockPublicAccessError)?;
    set_bucket_list(cx, &bucket, body).await
}

/// GET of an object's list.
pub(crate) async fn get_object(cx: &Context) -> Answer {
    let (bucket, found) = readable(cx, Action::GetObjectAcl, false).await?;
    let rules = cx.shared.rules.of(&bucket).await?;
    let owner = owner_of_version(cx, &bucket, found.version.owner).await?;
    let stored = stored_list(&found.version)?.filter(|_| rules.ownership.has_acls());
    let mut response = document(cx, owner, stored.as_ref()).await?;
    super::headers::add_version(response.headers_mut(), found.shown);
    Ok(response)
}

/// PUT of an object's list.
pub(crate) async fn put_object(cx: &Context, mut payload: Payload) -> Answer {
    let (bucket, found) = readable(cx, Action::PutObjectAcl, false).await?;
    let rules = cx.shared.rules.of(&bucket).await?;
    let bucket_owner = cx.shared.principals.user(bucket.owner).await?;
    let owner = owner_of_version(cx, &bucket, found.version.owner).await?;
    let (owner, bucket_owner) = (canonical_id(&owner), canonical_id(&bucket_owner));
    let wanted = wanted_of_put(cx, &mut payload, owner).await?;
    let shown = if rules.ownership.has_acls() {
        let acl = list_of(cx, wanted, owner, bucket_owner, Target::Object).await?;
        check_public(&acl, rules.public_access_block)?;
        update_version(cx, &bucket, &found, VersionChange::Acl(kept(&acl))).await?.shown
    } else {
        check_disabled(&wanted, owner)?;
        found.shown
    };
    let mut response = status(StatusCode::OK);
    super::headers::add_version(response.headers_mut(), shown);
    Ok(response)
}

fn stored_list(version: &ObjectVersion) -> Result<Option<Acl>, S3Error> {
    match version.attributes.acl.as_slice() {
        [] => Ok(None),
        bytes => Acl::from_bytes(bytes).map(Some).map_err(S3Error::internal),
    }
}

/// The AccessControlPolicy of `owner`'s thing; without a list, its owner has FULL_CONTROL.
async fn document(cx: &Context, owner: Option<Arc<User>>, stored: Option<&Acl>) -> Answer {
    let private;
    let acl = match stored {
        Some(acl) => acl,
        None => {
            private = Acl::private(canonical_id(&owner));
            &private
        }
    };
    // Groups come first, then users, both in the order in which they were granted. AWS promises no order; outside suites
    // count on this one, because it is Ceph's.
    let (users, groups) =
        acl.grants.iter().partition::<Vec<_>, _>(|grant| matches!(grant.grantee, Grantee::User { .. }));
    let mut grants = Vec::with_capacity(acl.grants.len());
    for grant in groups.into_iter().chain(users) {
        let name = match &grant.grantee {
            Grantee::User { canonical_id } => display_name(cx, owner.as_deref(), canonical_id).await?,
            Grantee::AllUsers | Grantee::AuthenticatedUsers | Grantee::LogDelivery => None,
        };
        grants.push((grant, name));
    }
    Ok(xml(Writer::document("AccessControlPolicy", Namespace::S3, |xml| {
        xml.element("Owner", |xml| {
            xml.text("ID", canonical_id(&owner));
            xml.optional("DisplayName", owner.as_ref().map(|owner| owner.display_name.as_str()));
        });
        xml.element("AccessControlList", |xml| {
            for (grant, name) in &grants {
                xml.element("Grant", |xml| write_grant(xml, grant, name.as_deref()));
            }
        });
    })))
}

fn write_grant(xml: &mut Writer, grant: &Grant, name: Option<&str>) {
    const INSTANCE: &str = "xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\"";
    match &grant.grantee {
        Grantee::User { canonical_id } => {
            xml.element_with("Grantee", &format!("{INSTANCE} xsi:type=\"CanonicalUser\""), |xml| {
                xml.text("ID", canonical_id);
                xml.optional("DisplayName", name);
            });
        }
        group => {
            xml.element_with("Grantee", &format!("{INSTANCE} xsi:type=\"Group\""), |xml| {
                xml.optional("URI", group.uri());
            });
        }
    }
    xml.text("Permission", grant.permission.as_str());
}

async fn display_name(cx: &Context, owner: Option<&User>, canonical_id: &str) -> Result<Option<String>, S3Error> {
    if let Some(owner) = owner.filter(|owner| owner.canonical_id == canonical_id) {
        return Ok(Some(owner.display_name.clone()));
    }
    match cx.shared.metadata.get_user(GetUser::Canonical(canonical_id.to_owned())).await {
        Ok(user) => Ok(Some(user.display_name)),
        // Gone since the grant was given.
        Err(MetadataError::NoSuchUser) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_acls_are_off_only_what_holds_anyway_is_accepted() {
        let grants = |list: &[(&str, Permission)]| {
            let grant = |(id, permission): &(&str, Permission)| NamedGrant {
                grantee: NamedGrantee::Id((*id).to_owned()),
                permission: *permission,
            };
            Wanted::Grants(list.iter().map(grant).collect())
        };
        for (wanted, is_ok) in [
            (Wanted::Canned(CannedAcl::BucketOwnerFullControl), true),
            (Wanted::Canned(CannedAcl::Private), true),
            (Wanted::Canned(CannedAcl::PublicRead), false),
            (Wanted::Canned(CannedAcl::BucketOwnerRead), false),
            (grants(&[("o", Permission::FullControl)]), true),
            (grants(&[("o", Permission::Read)]), false),
            (grants(&[("a", Permission::FullControl)]), false),
            (grants(&[("o", Permission::FullControl), ("a", Permission::Read)]), false),
            (grants(&[]), false),
        ] {
            assert_eq!(check_disabled(&wanted, "o").is_ok(), is_ok, "{wanted:?}");
        }
    }

    #[test]
    fn a_list_that_says_nothing_is_not_kept() {
        assert!(kept(&Acl::private("o")).is_empty());
        let acl = CannedAcl::PublicRead.acl("o", "o", Target::Object);
        assert_eq!(Acl::from_bytes(&kept(&acl)).expect("read"), acl);
        // No grant at all is less than private.
        let none = Acl::new("o", Vec::new()).expect("acl");
        assert_eq!(Acl::from_bytes(&kept(&none)).expect("read"), none);
        let open = PublicAccessBlock { block_public_acls: false, ..PublicAccessBlock::default() };
        assert!(check_public(&acl, open).is_ok() && check_public(&none, PublicAccessBlock::default()).is_ok());
        assert_eq!(
            check_public(&acl, PublicAccessBlock::default()).map_err(|error| error.code()),
            Err(S3Code::AccessDenied)
        );
    }
}
