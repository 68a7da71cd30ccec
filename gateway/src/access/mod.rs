//! Who may do what: one function that every operation asks, and the leases under which its answers hold.
//!
//! A decision looks at who asks ([`Asker`]), at the bucket and what its documents say ([`Rules`]), and at the object if
//! there is one ([`ObjectFacts`]); [`valv_policy::decide`] is the judge. Transfers that last longer ask again every second
//! and end when the right is gone ([`AccessWatch`]).

mod action;
mod asker;
mod openings;
mod principals;
mod roles;
mod rules;
#[cfg(test)]
mod tests;
mod watch;

pub use action::Action;
pub(crate) use asker::Asker;
pub(crate) use openings::{Account, Opened, Openings};
pub use principals::Principals;
pub(crate) use roles::may_create_bucket;
pub(crate) use rules::{About, Given, ObjectFacts, Rules, RulesCache, read_ownership, read_public_access_block};
pub(crate) use watch::{AccessWatch, Judged};

use crate::error::{S3Code, S3Error};
use asker::Keys;
use std::sync::Arc;
use valv_metadata_api::{Bucket, ObjectKey};
use valv_policy::{Acl, Decision, Facts, Listing, Requester, Use, Verdict, could_enter, decide, verdict};
use valv_types::{OpeningId, TimestampMicros};

/// Decides whether `asker` may do `action` in `bucket`. `now` is when the decision is made. Returns the opening by which a
/// stranger may.
///
/// # Errors
/// AccessDenied; whatever kept the bucket's rules from being read.
pub(crate) async fn judge(
    cache: &RulesCache,
    asker: &Asker,
    action: Action,
    bucket: &Bucket,
    about: &About,
    now: TimestampMicros,
) -> Result<Option<OpeningId>, S3Error> {
    if !asker.role_allows(action, bucket, about) {
        return Err(S3Code::AccessDenied.into());
    }
    if cache.knows_only_members(bucket) && asker.is_member(bucket) {
        return Ok(None);
    }
    match ask(cache, asker, action, bucket, about, now, decide).await? {
        Decision::Allowed => Ok(None),
        Decision::Opened(opening) => Ok(Some(OpeningId::from_bytes(opening))),
        Decision::Denied => Err(S3Code::AccessDenied.into()),
    }
}

/// Refuses who can't have any right in `bucket`, whatever the action and the key turn out to be.
///
/// # Errors
/// AccessDenied; whatever kept the bucket's rules from being read.
pub(crate) async fn refuse_outsiders(
    cache: &RulesCache,
    asker: &Asker,
    bucket: &Bucket,
    now: TimestampMicros,
) -> Result<(), S3Error> {
    if asker.is_member(bucket) {
        return Ok(());
    }
    // Which action is not asked.
    let may_enter = ask(cache, asker, Action::ListBucket, bucket, &About::default(), now, could_enter).await?;
    if may_enter { Ok(()) } else { Err(S3Code::AccessDenied.into()) }
}

/// Refuses `action` on a key if the bucket's policy denies it: for what comes with another right, such as giving an ACL to
/// an object that one may write.
///
/// # Errors
/// AccessDenied; whatever kept the bucket's rules from being read.
pub(crate) async fn refuse_denied(
    cache: &RulesCache,
    asker: &Asker,
    action: Action,
    bucket: &Bucket,
    about: &About,
    now: TimestampMicros,
) -> Result<(), S3Error> {
    match ask(cache, asker, action, bucket, about, now, verdict).await? {
        Verdict::Allow | Verdict::NoMatch => Ok(()),
        Verdict::Deny => Err(S3Code::AccessDenied.into()),
    }
}

/// Puts a question to a judge, with the bucket's rules as they are now.
///
/// # Errors
/// AccessDenied to strangers where nothing is open. Whatever kept the rules from being read. A policy that can't be read
/// leaves only itself in reach of members, who can replace it.
async fn ask<T>(
    cache: &RulesCache,
    asker: &Asker,
    action: Action,
    bucket: &Bucket,
    about: &About,
    now: TimestampMicros,
    judge: impl FnOnce(&Facts<'_>) -> T,
) -> Result<T, S3Error> {
    let opened = match asker.is_member(bucket) {
        true => None,
        false => Some(cache.openings().of(bucket).await?),
    };
    if opened.as_ref().is_some_and(|opened| opened.openings.is_empty()) {
        return Err(S3Code::AccessDenied.into());
    }
    let rules = cache.of(bucket).await?;
    let is_policy = matches!(action, Action::GetBucketPolicy | Action::PutBucketPolicy | Action::DeleteBucketPolicy);
    if rules.is_policy_unreadable && !(is_policy && asker.is_member(bucket)) {
        return Err(S3Code::InternalError.into());
    }
    let acl = cache.acl_of(bucket, &rules).await?;
    let exhausted = opened.as_ref().map(|opened| cache.openings().exhausted(opened)).unwrap_or_default();
    Ok(Question { asker, action, bucket, about, now, rules: &rules, bucket_acl: &acl, opened, exhausted }.ask(judge))
}

/// Everything that one decision looks at.
struct Question<'a> {
    asker: &'a Asker,
    action: Action,
    bucket: &'a Bucket,
    about: &'a About,
    now: TimestampMicros,
    rules: &'a Rules,
    bucket_acl: &'a Acl,
    /// What is open; `None` for members, who need nothing opened.
    opened: Option<Arc<Opened>>,
    /// The openings whose byte budget is used up.
    exhausted: Vec<valv_policy::OpeningRef>,
}

impl Question<'_> {
    fn ask<T>(&self, judge: impl FnOnce(&Facts<'_>) -> T) -> T {
        let grant = self.asker.identity.as_ref().map(|identity| &identity.grant);
        let (user_id, project_id) = match grant {
            Some(grant) => (grant.user.to_string(), grant.project.to_string()),
            None => Default::default(),
        };
        let accounts = [project_id.as_str(), grant.map_or("", |grant| grant.project_name.as_str())];
        let requester = match grant {
            None => Requester::Anonymous,
            Some(grant) => Requester::User {
                user: valv_policy::User {
                    name: &grant.user_name,
                    canonical_id: &grant.canonical_id,
                    user_id: &user_id,
                    accounts: &accounts,
                },
                project_id: &project_id,
                is_member_of_bucket_project: self.asker.is_member(self.bucket),
            },
        };
        let object = self.about.object.as_ref().map(|object| valv_policy::ObjectFacts {
            owner: object.foreign_owner.as_deref().unwrap_or(&self.bucket_acl.owner),
            acl: object.acl.as_ref(),
        });
        judge(&Facts {
            requester,
            action: self.action.name(),
            bucket: self.bucket.own_name(),
            key: self.about.key.as_ref().map(ObjectKey::as_bytes),
            keys: &Keys { asker: self.asker, about: self.about, now: self.now },
            policy: self.rules.policy.as_ref(),
            ownership: self.rules.ownership,
            public_access_block: self.rules.public_access_block,
            bucket_acl: self.bucket_acl,
            object,
            upload_initiator: self.about.upload_initiator.as_deref(),
            opened: Use {
                openings: self.opened.as_ref().map_or(&[], |opened| &opened.openings),
                exhausted: &self.exhausted,
                only: self.about.only.map(|opening| *opening.as_bytes()),
                address: self.asker.client,
                now_micros: self.now.0,
                listing: self.listing(),
            },
        })
    }

    fn listing(&self) -> Listing<'_> {
        match &self.about.probed {
            Some(key) => Listing::Under(key.as_bytes()),
            None if self.asker.is_listing() => Listing::Under(self.asker.query.get_bytes("prefix").unwrap_or_default()),
            None => Listing::Nothing,
        }
    }
}
