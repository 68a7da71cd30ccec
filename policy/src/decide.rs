//! One decision out of everything that has a say: policy, ACLs, ownership and PublicAccessBlock.
//!
//! In this order:
//! 1. A Deny of the policy ends it, for members too. Only the policy itself stays within members' reach, as within the
//!    reach of an AWS account's root user: else nobody could ever repair a policy that denies everything.
//! 2. Members of the bucket's project may do the rest, as the account does in AWS. Not so with an object that belongs to
//!    somebody else while ACLs are on: its ACL decides who reads it and who changes its ACL and tags.
//! 3. Others are denied, whatever policies and ACLs say, unless an opening is for them, here and now ([`crate::opening`]).
//!    One that names actions gives these to its recipient, as far as the bucket's owner could: not objects that belong to
//!    somebody else, except by their ACL. One that leaves it to policies and ACLs makes them count: then an Allow of the
//!    policy is needed, which a public policy under RestrictPublicBuckets does not give, and which says nothing about
//!    objects that the bucket's owner does not own; or a grant, if ACLs are on.
//!
//! Source: "How Amazon S3 authorizes a request for an object operation", "Access control list (ACL) overview", "Blocking
//! public access to your Amazon S3 storage".

use crate::acl::{Acl, Permission};
use crate::opening::{OpeningRef, Opens, Use};
use crate::policy::{ConditionKeys, Policy, Request, Verdict};
use crate::principal::{Principal, User};
use crate::settings::{ObjectOwnership, PublicAccessBlock};

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub enum Requester<'a> {
    /// An unsigned request.
    Anonymous,
    /// A request whose signature is right.
    User {
        /// Of whom.
        user: User<'a>,
        /// The project in which the access key acts, by id.
        project_id: &'a str,
        /// Whether the access key's project is the bucket's.
        is_member_of_bucket_project: bool,
    },
}

/// What is known of an object that exists.
#[derive(Debug, Clone, Copy)]
pub struct ObjectFacts<'a> {
    /// The canonical id of its owner.
    pub owner: &'a str,
    /// Its list, whose owner has FULL_CONTROL if there is none.
    pub acl: Option<&'a Acl>,
}

/// One request and everything that has a say in it.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// Who asks.
    pub requester: Requester<'a>,
    /// Such as `s3:GetObject`.
    pub action: &'a str,
    /// The bucket's name.
    pub bucket: &'a str,
    /// The object's key, for actions on objects.
    pub key: Option<&'a [u8]>,
    /// The facts that conditions are about.
    pub keys: &'a dyn ConditionKeys,
    /// The bucket's policy.
    pub policy: Option<&'a Policy>,
    /// Who owns objects.
    pub ownership: ObjectOwnership,
    /// What the public may be given.
    pub public_access_block: PublicAccessBlock,
    /// The bucket's list. Its owner is the bucket's.
    pub bucket_acl: &'a Acl,
    /// The object that the action is about, if it exists.
    pub object: Option<ObjectFacts<'a>>,
    /// The canonical id of who began the multipart upload that the action is about.
    pub upload_initiator: Option<&'a str>,
    /// What is open to those who are no members.
    pub opened: Use<'a>,
}

impl<'a> Facts<'a> {
    /// The asker's user id and project id.
    fn asker(&self) -> Option<(&'a str, &'a str)> {
        match self.requester {
            Requester::Anonymous => None,
            Requester::User { user, project_id, .. } => Some((user.user_id, project_id)),
        }
    }
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It may be done, by a member.
    Allowed,
    /// It may be done by this opening.
    Opened(OpeningRef),
    /// It may not.
    Denied,
}

impl Decision {
    /// Whether it may be done.
    pub fn is_allowed(self) -> bool {
        self != Self::Denied
    }
}

/// Decides one request.
pub fn decide(facts: &Facts<'_>) -> Decision {
    if matches!(facts.requester, Requester::User { is_member_of_bucket_project: true, .. }) {
        return if documents_allow(facts) { Decision::Allowed } else { Decision::Denied };
    }
    let action = facts.action.to_ascii_lowercase();
    let action = action.strip_prefix("s3:").unwrap_or(&action);
    let mut by_documents = None;
    let mut is_denied = None;
    for opening in facts.opened.for_asker(facts.asker()) {
        if facts.opened.covers(opening, action, facts.key) {
            if !*is_denied.get_or_insert_with(|| verdict(facts) == Verdict::Deny) && owner_could_give(facts, action) {
                return Decision::Opened(opening.id);
            }
        } else if facts.opened.leaves_to_policies(opening, facts.key)
            && *by_documents.get_or_insert_with(|| documents_allow(facts))
        {
            return Decision::Opened(opening.id);
        }
    }
    Decision::Denied
}

/// Whether the bucket's owner has the right that an opening gives: of somebody else's object only what its ACL says, and of
/// an upload only who began it looks at it and gives it up.
fn owner_could_give(facts: &Facts<'_>, action: &str) -> bool {
    let who = match facts.requester {
        Requester::Anonymous => None,
        Requester::User { user, .. } => Some(user.canonical_id),
    };
    if matches!(action, "abortmultipartupload" | "listmultipartuploadparts") {
        return who.is_some() && who == facts.upload_initiator;
    }
    !is_foreign(facts, action)
        || acl_allows(facts, action, who)
        || acl_allows(facts, action, Some(&facts.bucket_acl.owner))
}

/// Whether anything lets somebody who is no member into the bucket at all, for whatever action on whatever key: for requests
/// whose rights are known only when their body has been read, which is not done for anybody.
pub fn could_enter(facts: &Facts<'_>) -> bool {
    let (principal, who) = match facts.requester {
        Requester::Anonymous => (Principal::Anonymous, None),
        Requester::User { user, is_member_of_bucket_project: false, .. } => {
            (Principal::User(user), Some(user.canonical_id))
        }
        Requester::User { is_member_of_bucket_project: true, .. } => return true,
    };
    let mut leaves_to_policies = false;
    for opening in facts.opened.for_asker(facts.asker()) {
        match opening.opens {
            Opens::Actions(_) => return true,
            Opens::WhatPoliciesSay => leaves_to_policies = true,
        }
    }
    if !leaves_to_policies {
        return false;
    }
    let restricts = facts.public_access_block.restrict_public_buckets;
    let ignore_public = facts.public_access_block.ignore_public_acls;
    let by_policy =
        facts.policy.is_some_and(|policy| policy.could_allow(&principal) && !(restricts && policy.is_public()));
    // Documents with such rights are judged by no object's list, but by the bucket's.
    by_policy || facts.ownership.has_acls() && facts.bucket_acl.allows(who, Permission::Write, ignore_public)
}

/// What the policy alone says. For what a request may do by being allowed something else, such as giving a list to an
/// object that it may write, unless a policy denies it.
pub fn verdict(facts: &Facts<'_>) -> Verdict {
    let principal = match facts.requester {
        Requester::Anonymous => Principal::Anonymous,
        Requester::User { user, .. } => Principal::User(user),
    };
    let request = Request { principal, action: facts.action, bucket: facts.bucket, key: facts.key, keys: facts.keys };
    facts.policy.map_or(Verdict::NoMatch, |policy| policy.evaluate(&request))
}

/// What policy, ACLs and membership of the bucket's project come to, as S3 decides among accounts.
fn documents_allow(facts: &Facts<'_>) -> bool {
    let action = facts.action.to_ascii_lowercase();
    let action = action.strip_prefix("s3:").unwrap_or(&action);
    let (who, is_member) = match facts.requester {
        Requester::Anonymous => (None, false),
        Requester::User { user, is_member_of_bucket_project, .. } => {
            (Some(user.canonical_id), is_member_of_bucket_project)
        }
    };
    if is_member && matches!(action, "getbucketpolicy" | "putbucketpolicy" | "deletebucketpolicy") {
        return true;
    }
    let verdict = verdict(facts);
    if verdict == Verdict::Deny {
        return false;
    }
    let is_foreign = is_foreign(facts, action);
    if is_member && !is_foreign {
        return true;
    }
    let restricts = facts.public_access_block.restrict_public_buckets;
    let counts_for_nothing = restricts && facts.policy.is_some_and(Policy::is_public);
    if verdict == Verdict::Allow && !is_foreign && !counts_for_nothing {
        return true;
    }
    if matches!(action, "abortmultipartupload" | "listmultipartuploadparts") {
        return who.is_some() && who == facts.upload_initiator;
    }
    // Members act for the bucket's owner, to whom such objects may be granted.
    acl_allows(facts, action, who) || is_member && acl_allows(facts, action, Some(&facts.bucket_acl.owner))
}

/// Whether the action is about an object of somebody else's: the bucket's owner gives no rights to it, and has none of
/// their own.
fn is_foreign(facts: &Facts<'_>, action: &str) -> bool {
    facts.ownership.has_acls()
        && is_about_the_object(action)
        && facts.object.is_some_and(|object| object.owner != facts.bucket_acl.owner)
}

/// Whether an action reads or changes an object that exists, so that its owner has the say: not writing in its place,
/// removing it, or retaining it, which are the bucket's business.
fn is_about_the_object(action: &str) -> bool {
    matches!(
        action,
        "getobject"
            | "getobjectversion"
            | "getobjectattributes"
            | "getobjectversionattributes"
            | "getobjecttorrent"
            | "getobjectversiontorrent"
            | "getobjectacl"
            | "getobjectversionacl"
            | "putobjectacl"
            | "putobjectversionacl"
            | "getobjecttagging"
            | "getobjectversiontagging"
            | "putobjecttagging"
            | "putobjectversiontagging"
            | "deleteobjecttagging"
            | "deleteobjectversiontagging"
    )
}

/// "Mapping of ACL permissions and access policy permissions": every action that a grant can give. Settings of a bucket
/// are not among them.
fn acl_allows(facts: &Facts<'_>, action: &str, who: Option<&str>) -> bool {
    if !facts.ownership.has_acls() {
        return false;
    }
    let ignore_public = facts.public_access_block.ignore_public_acls;
    let on_bucket = |permission| facts.bucket_acl.allows(who, permission, ignore_public);
    let owns_bucket = who == Some(facts.bucket_acl.owner.as_str());
    let owns = |object: ObjectFacts<'_>| who == Some(object.owner);
    let on_object = |permission| {
        facts.object.is_some_and(|object| match object.acl {
            Some(acl) => acl.allows(who, permission, ignore_public),
            None => owns(object),
        })
    };
    match action {
        "listbucket" | "listbucketversions" | "listbucketmultipartuploads" => on_bucket(Permission::Read),
        "putobject" => on_bucket(Permission::Write),
        // Others may write into the bucket; removing is for the owners of the object and of the bucket.
        "deleteobject" => on_bucket(Permission::Write) && facts.object.is_none_or(|object| owns(object) || owns_bucket),
        "deleteobjectversion" => on_bucket(Permission::Write) && owns_bucket,
        "getbucketacl" => on_bucket(Permission::ReadAcp) || owns_bucket,
        "putbucketacl" => on_bucket(Permission::WriteAcp) || owns_bucket,
        "getobject" | "getobjectversion" | "getobjecttorrent" => on_object(Permission::Read),
        // Owners can always repair their lists.
        "getobjectacl" | "getobjectversionacl" => on_object(Permission::ReadAcp) || facts.object.is_some_and(owns),
        "putobjectacl" | "putobjectversionacl" => on_object(Permission::WriteAcp) || facts.object.is_some_and(owns),
        _ => false,
    }
}
