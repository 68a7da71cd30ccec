//! Openings: every field closes, nothing but an opening opens, and documents only narrow.

use crate::{
    Acl, Cidr, ConditionKeys, Decision, Facts, Listing, ObjectFacts, ObjectOwnership, OpenedAction, OpenedActions,
    Opening, Opens, Policy, PublicAccessBlock, Recipient, Requester, Use, User, Zones, could_enter, decide,
};
use proptest::prelude::*;
use std::borrow::Cow;
use std::net::IpAddr;

struct NoKeys;

impl ConditionKeys for NoKeys {
    fn values(&self, _: &str) -> Option<Vec<Cow<'_, str>>> {
        None
    }
}

/// What makes S3's own rules decide for everybody: the premise of the tests of policies and ACLs.
pub(super) fn left_to_policies() -> Opening {
    Opening {
        id: [9; 16],
        recipient: Recipient::Public,
        prefix: Vec::new(),
        opens: Opens::WhatPoliciesSay,
        start_micros: 0,
        expiry_micros: None,
        zones: Zones::Anywhere,
    }
}

const NOW: u64 = 1_000;
const OPEN: PublicAccessBlock = PublicAccessBlock {
    block_public_acls: false,
    ignore_public_acls: false,
    block_public_policy: false,
    restrict_public_buckets: false,
};

/// Reading and listing under `a/`, for the user `u`, for a while, from one network.
fn opening() -> Opening {
    Opening {
        id: [1; 16],
        recipient: Recipient::User("u".to_owned()),
        prefix: b"a/".to_vec(),
        opens: Opens::Actions([OpenedAction::Read, OpenedAction::List].into_iter().collect()),
        start_micros: NOW - 10,
        expiry_micros: Some(NOW + 10),
        zones: Zones::Within(vec![Cidr::parse("10.1.0.0/16").expect("block")]),
    }
}

#[derive(Clone)]
struct Case {
    opening: Opening,
    user: Option<(&'static str, &'static str)>,
    action: &'static str,
    key: Option<&'static [u8]>,
    listing: Listing<'static>,
    address: Option<&'static str>,
    now: u64,
    exhausted: Vec<[u8; 16]>,
    only: Option<[u8; 16]>,
    policy: Option<&'static str>,
    ownership: ObjectOwnership,
    owner: &'static str,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            opening: opening(),
            user: Some(("u", "p")),
            action: "s3:GetObject",
            key: Some(b"a/k"),
            listing: Listing::Nothing,
            address: Some("10.1.2.3"),
            now: NOW,
            exhausted: Vec::new(),
            only: None,
            policy: None,
            ownership: ObjectOwnership::BucketOwnerEnforced,
            owner: "owner",
        }
    }
}

impl Case {
    fn with_facts<T>(&self, ask: impl FnOnce(&Facts<'_>) -> T) -> T {
        let policy = self.policy.map(|text| Policy::parse(text.as_bytes(), "b").expect("policy"));
        let bucket_acl = Acl::private("owner");
        let requester = match self.user {
            None => Requester::Anonymous,
            Some((user_id, project_id)) => Requester::User {
                user: User { name: user_id, canonical_id: user_id, user_id, accounts: &[] },
                project_id,
                is_member_of_bucket_project: false,
            },
        };
        ask(&Facts {
            requester,
            action: self.action,
            bucket: "b",
            key: self.key,
            keys: &NoKeys,
            policy: policy.as_ref(),
            ownership: self.ownership,
            public_access_block: OPEN,
            bucket_acl: &bucket_acl,
            object: Some(ObjectFacts { owner: self.owner, acl: None }),
            upload_initiator: Some("u"),
            opened: Use {
                openings: std::slice::from_ref(&self.opening),
                exhausted: &self.exhausted,
                only: self.only,
                address: self.address.map(|address| address.parse().expect("address")),
                now_micros: self.now,
                listing: self.listing,
            },
        })
    }

    fn allows(&self) -> bool {
        let decision = self.with_facts(decide);
        assert!(matches!(decision, Decision::Denied | Decision::Opened(_)), "an outsider became a member");
        if decision.is_allowed() {
            assert!(self.with_facts(could_enter), "allowed to who can't enter");
            assert_eq!(decision, Decision::Opened(self.opening.id));
        }
        decision.is_allowed()
    }
}

const DENY_ALL: &str = r#"{"Statement":{"Effect":"Deny","Principal":"*","Action":"s3:*","Resource":"*"}}"#;
const ALLOW_ALL: &str = r#"{"Statement":{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":"*"}}"#;

#[test]
fn each_field_of_an_opening_closes() {
    let good = Case::default();
    assert!(good.allows());
    type Change = fn(&mut Case);
    let closing: [(&str, Change); 19] = [
        ("another user", |case| case.user = Some(("v", "p"))),
        ("nobody", |case| case.user = None),
        ("a project of the user's name", |case| case.opening.recipient = Recipient::Project("u".to_owned())),
        ("not yet", |case| case.now = NOW - 11),
        ("expired, at that very moment", |case| case.now = NOW + 10),
        ("another network", |case| case.address = Some("10.2.0.1")),
        ("an address that is not known", |case| case.address = None),
        ("an IPv6 address", |case| case.address = Some("::1")),
        ("a zone that nobody named", |case| case.opening.zones = Zones::Within(Vec::new())),
        ("another key", |case| case.key = Some(b"b/k")),
        ("the prefix without its end", |case| case.key = Some(b"a")),
        ("writing", |case| case.action = "s3:PutObject"),
        ("removing", |case| case.action = "s3:DeleteObject"),
        ("an ACL", |case| case.action = "s3:GetObjectAcl"),
        ("a setting", |case| (case.action, case.key) = ("s3:GetBucketPolicy", None)),
        ("its budget is used up", |case| case.exhausted = vec![[1; 16]]),
        ("another opening began it", |case| case.only = Some([2; 16])),
        ("a policy denies it", |case| case.policy = Some(DENY_ALL)),
        ("somebody else's object", |case| (case.ownership, case.owner) = (ObjectOwnership::ObjectWriter, "w")),
    ];
    for (name, change) in closing {
        let mut case = good.clone();
        change(&mut case);
        assert!(!case.allows(), "{name}");
    }
    let open: [(&str, Change); 7] = [
        ("its project", |case| case.opening.recipient = Recipient::Project("p".to_owned())),
        ("the public", |case| case.opening.recipient = Recipient::Public),
        ("the public, unsigned", |case| (case.opening.recipient, case.user) = (Recipient::Public, None)),
        ("an IPv4 address in IPv6's clothes", |case| case.address = Some("::ffff:10.1.2.3")),
        ("the last moment", |case| case.now = NOW + 9),
        ("its own object while ACLs are on", |case| {
            (case.ownership, case.owner) = (ObjectOwnership::ObjectWriter, "u")
        }),
        ("another opening's budget is used up", |case| case.exhausted = vec![[2; 16]]),
    ];
    for (name, change) in open {
        let mut case = good.clone();
        change(&mut case);
        assert!(case.allows(), "{name}");
    }
}

#[test]
fn listing_stays_under_the_prefix() {
    let case = |action, listing| Case { action, key: None, listing, ..Case::default() }.allows();
    for action in ["s3:ListBucket", "s3:ListBucketVersions", "s3:ListBucketMultipartUploads"] {
        assert!(case(action, Listing::Under(b"a/")));
        assert!(case(action, Listing::Under(b"a/b")));
        for elsewhere in [&b""[..], b"a", b"b/", b"A/"] {
            assert!(!case(action, Listing::Under(elsewhere)), "{action} {elsewhere:?}");
        }
    }
    // HeadBucket and GetBucketLocation tell nothing but that the bucket is there.
    assert!(case("s3:ListBucket", Listing::Nothing) && case("s3:GetBucketLocation", Listing::Nothing));
    assert!(!case("s3:ListBucketVersions", Listing::Nothing));
    let mut silent = Case { action: "s3:ListBucket", key: None, ..Case::default() };
    silent.opening.opens = Opens::Actions(OpenedActions::NONE.with(OpenedAction::Read));
    assert!(silent.allows());
    silent.listing = Listing::Under(b"a/k");
    assert!(!silent.allows(), "who may only read learns of no key that is not there");
}

#[test]
fn words_stand_for_their_actions_and_no_word_for_the_rest() {
    for (word, actions) in [
        (OpenedAction::Read, &["s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectTagging"][..]),
        (OpenedAction::Write, &["s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]),
        (OpenedAction::Delete, &["s3:DeleteObject"]),
    ] {
        for action in actions {
            for given in OpenedAction::ALL {
                let mut case = Case { action, ..Case::default() };
                case.opening.opens = Opens::Actions(OpenedActions::NONE.with(given));
                assert_eq!(case.allows(), given == word, "{action} by {given:?}");
            }
        }
    }
    for action in [
        "s3:DeleteObjectVersion",
        "s3:PutObjectAcl",
        "s3:PutObjectRetention",
        "s3:BypassGovernanceRetention",
        "s3:PutObjectTagging",
        "s3:PutBucketPolicy",
        "s3:DeleteBucket",
        "s3:PutBucketAcl",
    ] {
        let mut case = Case { action, ..Case::default() };
        case.opening.opens = Opens::Actions(OpenedAction::ALL.into_iter().collect());
        assert!(!case.allows(), "{action}");
    }
}

#[test]
fn policies_open_only_where_an_opening_leaves_it_to_them() {
    let mut case = Case { policy: Some(ALLOW_ALL), action: "s3:PutObjectTagging", ..Case::default() };
    assert!(!case.allows(), "an Allow adds nothing to an opening");
    case.opening.opens = Opens::WhatPoliciesSay;
    assert!(case.allows());
    case.key = Some(b"b/k");
    assert!(!case.allows());
    case.key = Some(b"a/k");
    case.policy = None;
    assert!(!case.allows());
}

fn blocks() -> impl Strategy<Value = (u32, u8, u32)> {
    (any::<u32>(), 0u8..=32, any::<u32>())
}

proptest! {
    /// Without an opening for the asker nothing is allowed, whatever policy and everything else say.
    #[test]
    fn nobody_enters_without_an_opening(
        action in prop::sample::select(&["s3:GetObject", "s3:PutObject", "s3:ListBucket", "s3:DeleteObject"][..]),
        user in prop::option::of(prop::sample::select(&["v", "w"][..])),
        policies in any::<bool>(), start in 0u64..50, len in 0u64..50, now in 0u64..100,
    ) {
        let mut case = Case { action, policy: Some(ALLOW_ALL), now, ..Case::default() };
        case.user = user.map(|user| (user, "p"));
        case.opening.start_micros = start;
        case.opening.expiry_micros = Some(start + len);
        if policies {
            case.opening.opens = Opens::WhatPoliciesSay;
        }
        prop_assert!(!case.allows());
        prop_assert!(!case.with_facts(could_enter));
        // For whom it is, it holds from its start until its expiry.
        case.user = Some(("u", "p"));
        case.action = "s3:GetObject";
        prop_assert_eq!(case.allows(), (start..start + len).contains(&now));
    }

    #[test]
    fn blocks_of_addresses_hold_what_arithmetic_says((network, bits, address) in blocks()) {
        let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
        let ip = |bits: u32| IpAddr::V4(std::net::Ipv4Addr::from_bits(bits));
        let block = Cidr::parse(&format!("{}/{bits}", ip(network))).expect("block");
        prop_assert_eq!(block.contains(ip(address)), network & mask == address & mask);
        prop_assert!(block.contains(ip(network & mask | address & !mask)));
    }
}
