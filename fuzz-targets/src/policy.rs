//! Bucket policies and decisions. Input: the policy of the bucket `bucket`, as JSON.

use serde_json::{Value, json};
use std::borrow::Cow;
use valv_policy::{
    Acl, ConditionKeys, Facts, ObjectOwnership, Opening, Opens, Policy, Principal, PublicAccessBlock, Recipient,
    Request, Requester, Use, User, Verdict, Zones, decide,
};

/// Words of policies.
pub const WORDS: &[&str] = &[
    "\"Effect\":\"Deny\"",
    "\"Effect\":\"Allow\"",
    "\"Principal\":\"*\"",
    "\"Principal\":{\"AWS\":\"*\"}",
    "\"NotPrincipal\":",
    "\"NotAction\":",
    "\"NotResource\":",
    "\"s3:*\"",
    "\"s3:GetObject\"",
    "\"*\"",
    "\"arn:aws:s3:::bucket/*\"",
    "\"arn:aws:s3:::bucket\"",
    "\"Condition\":{",
    "\"StringLike\":{\"s3:prefix\":\"*\"}",
    "\"IpAddress\":{\"aws:SourceIp\":\"192.0.2.0/24\"}",
    "IfExists",
    "ForAnyValue:",
    "ForAllValues:",
    "\"Null\":{\"aws:username\":true}",
    "${aws:username}",
    "${*}",
    "${aws:username, 'x'}",
    "\\u0000",
    "2008-10-17",
    "2012-10-17",
    "[",
    "]",
    "{",
    "}",
    ",",
    "\"Bool\":{\"aws:SecureTransport\":\"true\"}",
    "?",
    "*",
];

/// What a request says of conditions.
struct Keys(bool);

impl ConditionKeys for Keys {
    fn values(&self, key: &str) -> Option<Vec<Cow<'_, str>>> {
        let value = match key {
            "aws:sourceip" => "192.0.2.7",
            "aws:securetransport" => "true",
            "aws:currenttime" => "2026-01-01T00:00:00Z",
            "aws:epochtime" => "1767225600",
            "s3:prefix" => "a/b",
            "s3:max-keys" => "7",
            "s3:existingobjecttag/public" => "yes",
            "aws:useragent" => "x/1",
            _ => return None,
        };
        self.0.then(|| vec![value.into()])
    }
}

const ANNA: User<'_> = User {
    name: "anna",
    canonical_id: "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc",
    user_id: "AIDA1",
    accounts: &["project", "p-1"],
};
const OTTO: User<'_> = User { name: "*", canonical_id: "d", user_id: "AIDA2", accounts: &["other"] };

const PRINCIPALS: [Principal<'_>; 3] = [Principal::Anonymous, Principal::User(ANNA), Principal::User(OTTO)];
const ACTIONS: [(&str, Option<&[u8]>); 7] = [
    ("s3:GetObject", Some(b"a/b")),
    ("s3:GetObject", Some(b"home/anna/x")),
    ("s3:PutObject", Some(b"\xff*?${aws:username}")),
    ("s3:DeleteObjectVersion", Some(b"open/x")),
    ("s3:ListBucket", None),
    ("s3:PutBucketPolicy", None),
    ("s3:GetBucketLocation", None),
];

fn verdicts(policy: &Policy) -> Vec<Verdict> {
    let mut out = Vec::new();
    for keys in [Keys(true), Keys(false)] {
        for principal in PRINCIPALS {
            for (action, key) in ACTIONS {
                out.push(policy.evaluate(&Request { principal, action, bucket: "bucket", key, keys: &keys }));
            }
        }
    }
    out
}

/// See the module.
pub fn run(data: &[u8]) {
    let Ok(policy) = Policy::parse(data, "bucket") else { return };
    assert!(data.len() <= 20 * 1024 && data.first() == Some(&b'{'));
    let said = verdicts(&policy);
    decisions(&policy);

    let Ok(document) = serde_json::from_slice::<Value>(data) else { panic!("what the parser takes is JSON") };
    // A number written again may be written otherwise (1e2, 1.50), which conditions may tell apart.
    if has_number(&document) {
        return;
    }
    let changed = |change: &dyn Fn(&mut Vec<Value>)| {
        let mut document = document.clone();
        let statement = &mut document["Statement"];
        let mut statements = match statement.take() {
            Value::Array(statements) => statements,
            one => vec![one],
        };
        change(&mut statements);
        *statement = Value::Array(statements);
        Policy::parse(document.to_string().as_bytes(), "bucket")
    };
    let everything = |effect: &str| {
        let resources = ["arn:aws:s3:::bucket", "arn:aws:s3:::bucket/*"];
        json!({ "Effect": effect, "Principal": "*", "Action": "s3:*", "Resource": resources })
    };
    // Each of these may make the document too long, which is then refused.
    if let Ok(reversed) = changed(&|statements| statements.reverse()) {
        assert_eq!(verdicts(&reversed), said, "the order of statements means something");
        assert_eq!(reversed.is_public(), policy.is_public());
    }
    if let Ok(denied) = changed(&|statements| statements.push(everything("Deny"))) {
        assert!(verdicts(&denied).iter().all(|verdict| *verdict == Verdict::Deny), "a Deny of all was outweighed");
    }
    if let Ok(open) = changed(&|statements| statements.insert(0, everything("Allow"))) {
        let wanted = said.iter().map(|verdict| if *verdict == Verdict::Deny { Verdict::Deny } else { Verdict::Allow });
        assert!(verdicts(&open).into_iter().eq(wanted), "an Allow of all outweighed a Deny, or did nothing");
        assert!(open.is_public(), "everything is open to everybody, and that is not public");
    }
}

fn has_number(value: &Value) -> bool {
    match value {
        Value::Number(_) => true,
        Value::Array(values) => values.iter().any(has_number),
        Value::Object(fields) => fields.values().any(has_number),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

/// What must hold of decisions, whatever the policy says.
fn decisions(policy: &Policy) {
    let acl = Acl::private("owner");
    let blocks = PublicAccessBlock {
        block_public_acls: true,
        ignore_public_acls: true,
        block_public_policy: true,
        restrict_public_buckets: true,
    };
    let opened = PublicAccessBlock { restrict_public_buckets: false, ..blocks };
    let left = [Opening {
        id: [0; 16],
        recipient: Recipient::Public,
        prefix: Vec::new(),
        opens: Opens::WhatPoliciesSay,
        start_micros: 0,
        expiry_micros: None,
        zones: Zones::Anywhere,
    }];
    for keys in [Keys(true), Keys(false)] {
        for principal in PRINCIPALS {
            for is_member in [false, true] {
                let requester = match principal {
                    Principal::Anonymous => Requester::Anonymous,
                    Principal::User(user) => {
                        Requester::User { user, project_id: "", is_member_of_bucket_project: is_member }
                    }
                };
                let is_member = is_member && principal != Principal::Anonymous;
                for (action, key) in ACTIONS {
                    let verdict = policy.evaluate(&Request { principal, action, bucket: "bucket", key, keys: &keys });
                    let asked = |block: PublicAccessBlock, opened: Use<'_>| {
                        decide(&Facts {
                            requester,
                            action,
                            bucket: "bucket",
                            key,
                            keys: &keys,
                            policy: Some(policy),
                            ownership: ObjectOwnership::BucketOwnerEnforced,
                            public_access_block: block,
                            bucket_acl: &acl,
                            object: None,
                            upload_initiator: None,
                            opened,
                        })
                        .is_allowed()
                    };
                    let left = Use { openings: &left, ..Use::CLOSED };
                    let (open, blocked) = (asked(opened, left), asked(blocks, left));
                    assert!(is_member || !asked(opened, Use::CLOSED), "a policy opened what no opening leaves to it");
                    let repairs = is_member && action == "s3:PutBucketPolicy";
                    // ACLs are off and nobody but the owner has a grant: the policy alone has a say.
                    let wanted = repairs || verdict != Verdict::Deny && (is_member || verdict == Verdict::Allow);
                    assert_eq!(open, wanted, "{action} with {verdict:?}, member {is_member}");
                    let wanted = wanted && (is_member || !policy.is_public());
                    assert_eq!(blocked, wanted, "{action} with {verdict:?}, member {is_member}, blocked");
                }
            }
        }
    }
}
