//! What each role of a governed project may do with S3: one table.
//!
//! It is asked before anything that a bucket's documents say, so a policy or an ACL can narrow what a role gives and never
//! widens it. Ungoverned projects know no roles: every access key that acts in one is a full member.
//!
//! A depositor brings data in and sees what is there by name, size, time and ETag, as listings show it; HEAD and
//! GetObjectAttributes show what somebody wrote beside the data (user metadata, checksums), so they are a reader's. Retention
//! is not a depositor's to set: what the bucket and the project demand is what its versions get.

use super::Action;
use valv_metadata_api::{AccessGrant, Role, Roles};

/// How far a role gives a right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reach {
    /// Not at all.
    Nothing,
    /// On multipart uploads that the member began.
    OwnUploads,
    /// On everything.
    All,
}

/// What the holder of a grant may do in its own project, by roles alone.
pub(crate) fn reach(grant: &AccessGrant, action: Action) -> Reach {
    if grant.is_governed { reach_of(grant.roles, action) } else { Reach::All }
}

/// Whether the holder of a grant may make buckets in its project.
pub(crate) fn may_create_bucket(grant: &AccessGrant) -> bool {
    !grant.is_governed || grant.roles.has_any(&[Role::Controller, Role::Steward])
}

/// Roles add up: the farthest reach of any.
fn reach_of(roles: Roles, action: Action) -> Reach {
    roles.iter().map(|role| role_reach(role, action)).max().unwrap_or(Reach::Nothing)
}

fn role_reach(role: Role, action: Action) -> Reach {
    match role {
        Role::Controller | Role::Steward => Reach::All,
        Role::Depositor => match action {
            Action::PutObject
            | Action::ListBucket
            | Action::ListBucketVersions
            | Action::ListBucketMultipartUploads
            | Action::GetBucketLocation
            | Action::GetBucketVersioning => Reach::All,
            Action::AbortMultipartUpload | Action::ListMultipartUploadParts => Reach::OwnUploads,
            _ => Reach::Nothing,
        },
        Role::Reader => match action {
            Action::GetObject
            | Action::GetObjectVersion
            | Action::GetObjectAttributes
            | Action::GetObjectVersionAttributes
            | Action::GetObjectTagging
            | Action::GetObjectVersionTagging
            | Action::GetObjectRetention
            | Action::GetObjectLegalHold
            | Action::ListBucket
            | Action::ListBucketVersions
            | Action::GetBucketLocation
            | Action::GetBucketVersioning
            | Action::GetBucketTagging
            | Action::GetBucketObjectLockConfiguration => Reach::All,
            _ => Reach::Nothing,
        },
        Role::Auditor => Reach::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Columns: controller, steward, depositor, reader, auditor. `+` all, `o` own uploads, `-` nothing.
    const TABLE: [(Action, &str); 21] = [
        (Action::PutObject, "+++--"),
        (Action::GetObject, "++-+-"),
        (Action::GetObjectVersion, "++-+-"),
        (Action::GetObjectAttributes, "++-+-"),
        (Action::GetObjectTagging, "++-+-"),
        (Action::PutObjectTagging, "++---"),
        (Action::GetObjectAcl, "++---"),
        (Action::PutObjectAcl, "++---"),
        (Action::DeleteObject, "++---"),
        (Action::DeleteObjectVersion, "++---"),
        (Action::ListBucket, "++++-"),
        (Action::ListBucketVersions, "++++-"),
        (Action::ListBucketMultipartUploads, "+++--"),
        (Action::AbortMultipartUpload, "++o--"),
        (Action::ListMultipartUploadParts, "++o--"),
        (Action::GetBucketLocation, "++++-"),
        (Action::GetBucketPolicy, "++---"),
        (Action::PutBucketPolicy, "++---"),
        (Action::DeleteBucket, "++---"),
        (Action::PutObjectRetention, "++---"),
        (Action::BypassGovernanceRetention, "++---"),
    ];

    #[test]
    fn each_role_reaches_as_far_as_the_table_says_and_roles_add_up() {
        for (action, marks) in TABLE {
            for (role, mark) in Role::ALL.into_iter().zip(marks.chars()) {
                let expected = match mark {
                    '+' => Reach::All,
                    'o' => Reach::OwnUploads,
                    _ => Reach::Nothing,
                };
                assert_eq!(reach_of(Roles::NONE.with(role), action), expected, "{role} {}", action.name());
            }
            let both = reach_of(Roles::NONE.with(Role::Depositor).with(Role::Reader), action);
            let alone = [Role::Depositor, Role::Reader].map(|role| role_reach(role, action));
            assert_eq!(Some(both), alone.into_iter().max(), "{}", action.name());
            assert_eq!(reach_of(Roles::NONE, action), Reach::Nothing);
        }
    }
}
