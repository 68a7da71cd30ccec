//! The decision as tables: who, what, under which settings.

use super::openings::left_to_policies;
use crate::Use;
use crate::{
    Acl, ConditionKeys, Facts, Grant, Grantee, ObjectFacts, ObjectOwnership, Permission, Policy, PublicAccessBlock,
    Requester, User, could_enter, decide,
};
use std::borrow::Cow;

struct NoKeys;

impl ConditionKeys for NoKeys {
    fn values(&self, _: &str) -> Option<Vec<Cow<'_, str>>> {
        None
    }
}

/// Canonical ids: the bucket's owner is `owner`.
fn requester(canonical_id: &'static str, is_member_of_bucket_project: bool) -> Requester<'static> {
    let user = User { name: canonical_id, canonical_id, user_id: canonical_id, accounts: &[] };
    Requester::User { user, project_id: "elsewhere", is_member_of_bucket_project }
}

fn grant(to: &str, permission: Permission) -> Grant {
    let grantee = match to {
        "all" => Grantee::AllUsers,
        "authenticated" => Grantee::AuthenticatedUsers,
        id => Grantee::User { canonical_id: id.to_owned() },
    };
    Grant { grantee, permission }
}

fn acl(owner: &str, to: &str, permission: Permission) -> Acl {
    Acl::new(owner, vec![grant(owner, Permission::FullControl), grant(to, permission)]).expect("acl")
}

const OPEN: PublicAccessBlock = PublicAccessBlock {
    block_public_acls: false,
    ignore_public_acls: false,
    block_public_policy: false,
    restrict_public_buckets: false,
};

/// A bucket of `owner` in which nothing is granted.
struct Case {
    policy: Option<Policy>,
    ownership: ObjectOwnership,
    block: PublicAccessBlock,
    bucket_acl: Acl,
    object: Option<(&'static str, Acl)>,
    initiator: Option<&'static str>,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            policy: None,
            ownership: ObjectOwnership::BucketOwnerEnforced,
            block: OPEN,
            bucket_acl: Acl::private("owner"),
            object: Some(("owner", Acl::private("owner"))),
            initiator: None,
        }
    }
}

impl Case {
    fn policy(effect: &str, principal: &str, action: &str) -> Option<Policy> {
        let text = format!(
            r#"{{"Statement":{{"Effect":"{effect}","Principal":{principal},"Action":"{action}","Resource":"*"}}}}"#
        );
        Some(Policy::parse(text.as_bytes(), "b").expect("policy"))
    }

    fn allows(&self, requester: Requester<'_>, action: &str) -> bool {
        let facts = Facts {
            requester,
            action,
            bucket: "b",
            key: action.contains("Object").then_some(b"k"),
            keys: &NoKeys,
            policy: self.policy.as_ref(),
            ownership: self.ownership,
            public_access_block: self.block,
            bucket_acl: &self.bucket_acl,
            object: self.object.as_ref().map(|(owner, acl)| ObjectFacts { owner, acl: Some(acl) }),
            upload_initiator: self.initiator,
            opened: Use { openings: &[left_to_policies()], ..Use::CLOSED },
        };
        let is_allowed = decide(&facts).is_allowed();
        // The rights that are asked for only when a body has been read.
        let needs_body =
            ["s3:DeleteObject", "s3:PutObjectTagging", "s3:PutObjectVersionTagging", "s3:PutObjectRetention"];
        if is_allowed && needs_body.iter().any(|start| action.starts_with(start)) {
            assert!(could_enter(&facts), "{action} is allowed to who can't enter");
        }
        is_allowed
    }
}

const ACTIONS: [&str; 20] = [
    "s3:ListBucket",
    "s3:ListBucketVersions",
    "s3:ListBucketMultipartUploads",
    "s3:GetBucketAcl",
    "s3:PutBucketAcl",
    "s3:PutObject",
    "s3:DeleteObject",
    "s3:DeleteObjectVersion",
    "s3:GetObject",
    "s3:GetObjectVersion",
    "s3:GetObjectAcl",
    "s3:PutObjectAcl",
    "s3:GetObjectTagging",
    "s3:PutObjectTagging",
    "s3:PutBucketPolicy",
    "s3:GetBucketPolicy",
    "s3:DeleteBucket",
    "s3:PutBucketVersioning",
    "s3:BypassGovernanceRetention",
    "s3:PutLifecycleConfiguration",
];

#[test]
fn without_policy_and_acl_members_may_everything_and_others_nothing() {
    for ownership in [ObjectOwnership::BucketOwnerEnforced, ObjectOwnership::BucketOwnerPreferred] {
        let case = Case { ownership, ..Case::default() };
        for action in ACTIONS {
            assert!(case.allows(requester("owner", true), action), "{action}");
            assert!(case.allows(requester("colleague", true), action), "{action}");
            assert!(!case.allows(requester("stranger", false), action), "{action}");
            assert!(!case.allows(Requester::Anonymous, action), "{action}");
        }
    }
}

#[test]
fn a_deny_binds_members_too_but_never_locks_them_out_of_the_policy() {
    let case = Case { policy: Case::policy("Deny", r#""*""#, "s3:*"), ..Case::default() };
    for action in ACTIONS.into_iter().chain(["s3:DeleteBucketPolicy"]) {
        let is_policy = matches!(action, "s3:GetBucketPolicy" | "s3:PutBucketPolicy" | "s3:DeleteBucketPolicy");
        assert_eq!(case.allows(requester("owner", true), action), is_policy, "{action}");
        assert!(!case.allows(requester("stranger", false), action), "{action}");
        assert!(!case.allows(Requester::Anonymous, action), "{action}");
    }
}

#[test]
fn a_public_policy_lets_everybody_in_only_where_public_buckets_are_not_restricted() {
    for (principal, restricted, anonymous, stranger) in [
        (r#""*""#, false, true, true),
        (r#""*""#, true, false, false),
        (r#"{"AWS":"arn:aws:iam:::user/stranger"}"#, true, false, true),
        (r#"{"AWS":["arn:aws:iam:::user/stranger","*"]}"#, true, false, false),
    ] {
        let block = PublicAccessBlock { restrict_public_buckets: restricted, ..OPEN };
        let case = Case { policy: Case::policy("Allow", principal, "s3:GetObject"), block, ..Case::default() };
        assert_eq!(case.allows(Requester::Anonymous, "s3:GetObject"), anonymous, "{principal} {restricted}");
        assert_eq!(case.allows(requester("stranger", false), "s3:GetObject"), stranger, "{principal} {restricted}");
        assert!(case.allows(requester("owner", true), "s3:GetObject"));
        assert!(!case.allows(requester("stranger", false), "s3:PutObject"));
    }
}

/// "Mapping of ACL permissions and access policy permissions".
#[test]
fn grants_give_what_awss_table_says_and_nothing_else() {
    use Permission::{FullControl, Read, ReadAcp, Write, WriteAcp};
    let of_bucket: [(Permission, &[&str]); 5] = [
        (Read, &["s3:ListBucket", "s3:ListBucketVersions", "s3:ListBucketMultipartUploads"]),
        (Write, &["s3:PutObject"]),
        (ReadAcp, &["s3:GetBucketAcl"]),
        (WriteAcp, &["s3:PutBucketAcl"]),
        (
            FullControl,
            &[
                "s3:ListBucket",
                "s3:ListBucketVersions",
                "s3:ListBucketMultipartUploads",
                "s3:PutObject",
                "s3:GetBucketAcl",
                "s3:PutBucketAcl",
            ],
        ),
    ];
    let of_object: [(Permission, &[&str]); 5] = [
        (Read, &["s3:GetObject", "s3:GetObjectVersion"]),
        (Write, &[]),
        (ReadAcp, &["s3:GetObjectAcl"]),
        (WriteAcp, &["s3:PutObjectAcl"]),
        (FullControl, &["s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectAcl", "s3:PutObjectAcl"]),
    ];
    let private = || Acl::private("owner");
    for (on_bucket, table) in [(true, of_bucket), (false, of_object)] {
        for (permission, given) in table {
            for (to, is_public) in [("grantee", false), ("authenticated", true), ("all", true)] {
                let granted = acl("owner", to, permission);
                let (bucket_acl, object_acl) = if on_bucket { (granted, private()) } else { (private(), granted) };
                let mut case = Case {
                    ownership: ObjectOwnership::ObjectWriter,
                    bucket_acl,
                    object: Some(("owner", object_acl)),
                    ..Case::default()
                };
                for action in ACTIONS {
                    let is_given = given.contains(&action);
                    case.ownership = ObjectOwnership::ObjectWriter;
                    case.block = OPEN;
                    assert_eq!(case.allows(requester("grantee", false), action), is_given, "{permission:?} {action}");
                    let others = is_given && is_public;
                    assert_eq!(case.allows(requester("other", false), action), others, "{permission:?} {to} {action}");
                    let unsigned = is_given && to == "all";
                    assert_eq!(case.allows(Requester::Anonymous, action), unsigned, "{permission:?} {to} {action}");
                    case.block.ignore_public_acls = true;
                    let private = is_given && !is_public;
                    assert_eq!(case.allows(requester("grantee", false), action), private, "{permission:?} {action}");
                    case.ownership = ObjectOwnership::BucketOwnerEnforced;
                    assert!(!case.allows(requester("grantee", false), action), "{permission:?} {action}");
                }
            }
        }
    }
}

#[test]
fn an_object_of_somebody_else_is_its_owners_business() {
    let case = |acl| Case {
        ownership: ObjectOwnership::ObjectWriter,
        object: Some(("writer", acl)),
        policy: Case::policy("Allow", r#"{"AWS":"arn:aws:iam:::user/reader"}"#, "s3:*"),
        ..Case::default()
    };
    let private = case(Acl::private("writer"));
    for (who, is_member, action, expected) in [
        ("owner", true, "s3:GetObject", false),
        ("owner", true, "s3:GetObjectAcl", false),
        ("owner", true, "s3:PutObjectAcl", false),
        ("owner", true, "s3:GetObjectTagging", false),
        ("owner", true, "s3:DeleteObject", true),
        ("owner", true, "s3:DeleteObjectVersion", true),
        ("owner", true, "s3:PutObject", true),
        ("owner", true, "s3:ListBucket", true),
        // The bucket's policy can't give what the bucket's owner does not have.
        ("reader", false, "s3:GetObject", false),
        ("reader", false, "s3:PutObject", true),
        ("reader", false, "s3:ListBucket", true),
        ("writer", false, "s3:GetObject", true),
        ("writer", false, "s3:PutObjectAcl", true),
        ("writer", false, "s3:ListBucket", false),
        ("writer", false, "s3:DeleteObject", false),
    ] {
        assert_eq!(private.allows(requester(who, is_member), action), expected, "{who} {action}");
    }
    let shared = case(acl("writer", "owner", Permission::FullControl));
    for action in ["s3:GetObject", "s3:GetObjectAcl", "s3:PutObjectAcl"] {
        assert!(shared.allows(requester("owner", true), action), "{action}");
        assert!(shared.allows(requester("colleague", true), action), "{action}");
        assert!(!shared.allows(requester("reader", false), action), "{action}");
    }
    // With ACLs off, everything is the bucket owner's.
    let enforced = Case { ownership: ObjectOwnership::BucketOwnerEnforced, ..case(Acl::private("writer")) };
    assert!(enforced.allows(requester("colleague", true), "s3:GetObject"));
    assert!(enforced.allows(requester("reader", false), "s3:GetObject"));
    assert!(!enforced.allows(requester("writer", false), "s3:GetObject"));
}

#[test]
fn who_may_write_may_remove_only_their_own() {
    let case = |object| Case {
        ownership: ObjectOwnership::ObjectWriter,
        bucket_acl: acl("owner", "all", Permission::Write),
        object,
        ..Case::default()
    };
    let of = |owner| case(Some((owner, Acl::private(owner))));
    assert!(of("writer").allows(requester("writer", false), "s3:DeleteObject"));
    assert!(!of("owner").allows(requester("writer", false), "s3:DeleteObject"));
    assert!(!of("owner").allows(Requester::Anonymous, "s3:DeleteObject"));
    assert!(case(None).allows(requester("writer", false), "s3:DeleteObject"));
    assert!(!of("writer").allows(requester("writer", false), "s3:DeleteObjectVersion"));
}

#[test]
fn an_owner_can_always_repair_their_acl() {
    let empty = Acl::new("writer", Vec::new()).expect("acl");
    let case = Case { ownership: ObjectOwnership::ObjectWriter, object: Some(("writer", empty)), ..Case::default() };
    assert!(!case.allows(requester("writer", false), "s3:GetObject"));
    assert!(case.allows(requester("writer", false), "s3:GetObjectAcl"));
    assert!(case.allows(requester("writer", false), "s3:PutObjectAcl"));
}

#[test]
fn who_began_an_upload_may_list_and_abort_it() {
    for (initiator, expected) in [(Some("writer"), true), (Some("other"), false), (None, false)] {
        let case = Case { initiator, object: None, ..Case::default() };
        for action in ["s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"] {
            assert_eq!(case.allows(requester("writer", false), action), expected, "{action}");
            assert!(!case.allows(Requester::Anonymous, action));
            assert!(case.allows(requester("owner", true), action));
        }
    }
}

#[test]
fn who_is_named_nowhere_can_not_enter() {
    let enters = |case: &Case, who: Requester<'_>| {
        could_enter(&Facts {
            requester: who,
            action: "s3:ListBucket",
            bucket: "b",
            key: None,
            keys: &NoKeys,
            policy: case.policy.as_ref(),
            ownership: case.ownership,
            public_access_block: case.block,
            bucket_acl: &case.bucket_acl,
            object: None,
            upload_initiator: None,
            opened: Use { openings: &[left_to_policies()], ..Use::CLOSED },
        })
    };
    let restricted = PublicAccessBlock { restrict_public_buckets: true, ..OPEN };
    let ignoring = PublicAccessBlock { ignore_public_acls: true, ..OPEN };
    let on = ObjectOwnership::ObjectWriter;
    let everybody = || Case::policy("Allow", r#""*""#, "s3:GetObject");
    let named = || Case::policy("Allow", r#"{"CanonicalUser":"a"}"#, "s3:GetObject");
    let deny = || Case::policy("Deny", r#""*""#, "s3:GetObject");
    let writable = |to| acl("owner", to, Permission::Write);
    // Whether a member, the user `a`, and nobody in particular enter.
    for (case, expected) in [
        (Case::default(), [true, false, false]),
        (Case { policy: deny(), ..Case::default() }, [true, false, false]),
        (Case { policy: named(), ..Case::default() }, [true, true, false]),
        (Case { policy: everybody(), ..Case::default() }, [true, true, true]),
        (Case { policy: everybody(), block: restricted, ..Case::default() }, [true, false, false]),
        (Case { bucket_acl: writable("all"), ..Case::default() }, [true, false, false]),
        (Case { bucket_acl: writable("all"), ownership: on, ..Case::default() }, [true, true, true]),
        (Case { bucket_acl: writable("all"), ownership: on, block: ignoring, ..Case::default() }, [true, false, false]),
        (Case { bucket_acl: writable("a"), ownership: on, block: ignoring, ..Case::default() }, [true, true, false]),
        (
            Case { bucket_acl: acl("owner", "all", Permission::Read), ownership: on, ..Case::default() },
            [true, false, false],
        ),
    ] {
        let askers = [requester("m", true), requester("a", false), Requester::Anonymous];
        assert_eq!(askers.map(|asker| enters(&case, asker)), expected, "{:?} {:?}", case.policy, case.bucket_acl);
    }
}
