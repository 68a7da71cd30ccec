//! Random policies and requests against a second reading of the rules.
//!
//! The reading here shares nothing with the crate: policies are its own values, written out as JSON for the crate to
//! parse; wildcards are matched by recursion; lists are sets; the decision is a list of reasons.

use super::openings::left_to_policies;
use crate::Use;
use crate::{
    Acl, ConditionKeys, Facts, Grant, Grantee, ObjectFacts, ObjectOwnership, Permission, Policy, Principal,
    PublicAccessBlock, Request, Requester, User, Verdict, decide,
};
use proptest::collection::vec;
use proptest::prelude::*;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone)]
struct Statement {
    allow: bool,
    /// `*`, or names of users; with `true`, everybody but these.
    principals: (bool, BTreeSet<&'static str>),
    actions: (bool, BTreeSet<&'static str>),
    resources: (bool, BTreeSet<&'static str>),
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone)]
struct Condition {
    set: &'static str,
    operator: &'static str,
    if_exists: bool,
    key: &'static str,
    values: BTreeSet<&'static str>,
}

const USERS: [&str; 3] = ["anna", "berta", "carl"];
const KEYS: [&str; 3] = ["s3:prefix", "s3:RequestObjectTagKeys", "s3:ExistingObjectTag/A"];
const WORDS: [&str; 5] = ["a", "ab", "a*", "b", "*"];

fn json(statements: &[Statement]) -> String {
    let quoted = |items: &BTreeSet<&str>, wrap: &dyn Fn(&str) -> String| {
        let items: Vec<String> = items.iter().map(|item| format!("{:?}", wrap(item))).collect();
        format!("[{}]", items.join(","))
    };
    let not = |is_not: bool, name: &str| if is_not { format!("\"Not{name}\"") } else { format!("\"{name}\"") };
    let one = |statement: &Statement| {
        let (is_not, names) = &statement.principals;
        let principal = if names.contains("*") {
            r#"{"AWS":"*"}"#.to_owned()
        } else {
            format!(r#"{{"AWS":{}}}"#, quoted(names, &|name| format!("arn:aws:iam::p:user/{name}")))
        };
        // Equal operators are one object in JSON.
        let mut operators: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for condition in &statement.conditions {
            let exists = if condition.if_exists { "IfExists" } else { "" };
            let operator = format!("{}{}{exists}", condition.set, condition.operator);
            let values = quoted(&condition.values, &|value| value.to_owned());
            operators.entry(operator).or_default().push(format!("{:?}:{values}", condition.key));
        }
        let operators: Vec<String> =
            operators.iter().map(|(name, keys)| format!("{name:?}:{{{}}}", keys.join(","))).collect();
        format!(
            r#"{{"Effect":{:?},{}:{principal},{}:{},{}:{},"Condition":{{{}}}}}"#,
            if statement.allow { "Allow" } else { "Deny" },
            not(*is_not, "Principal"),
            not(statement.actions.0, "Action"),
            quoted(&statement.actions.1, &|action| action.to_owned()),
            not(statement.resources.0, "Resource"),
            quoted(&statement.resources.1, &|resource| format!("arn:aws:s3:::{resource}")),
            operators.join(","),
        )
    };
    let statements: Vec<String> = statements.iter().map(one).collect();
    format!(r#"{{"Version":"2012-10-17","Statement":[{}]}}"#, statements.join(","))
}

fn fits(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => fits(rest, text) || !text.is_empty() && fits(pattern, &text[1..]),
        ([b'?', rest @ ..], [_, behind @ ..]) => fits(rest, behind),
        ([one, rest @ ..], [byte, behind @ ..]) => one == byte && fits(rest, behind),
        _ => false,
    }
}

fn any_fits(patterns: &BTreeSet<&str>, text: &str) -> bool {
    patterns.iter().any(|pattern| fits(pattern.to_lowercase().as_bytes(), text.to_lowercase().as_bytes()))
}

#[derive(Debug, Clone)]
struct Asked {
    /// `None`: unsigned.
    user: Option<&'static str>,
    action: &'static str,
    key: Option<&'static str>,
    facts: BTreeMap<&'static str, BTreeSet<&'static str>>,
}

impl ConditionKeys for Asked {
    fn values(&self, key: &str) -> Option<Vec<Cow<'_, str>>> {
        let (_, values) = self.facts.iter().find(|(name, _)| name.eq_ignore_ascii_case(key))?;
        Some(values.iter().map(|value| Cow::Borrowed(*value)).collect())
    }
}

fn condition_holds(condition: &Condition, asked: &Asked) -> bool {
    let values = asked.facts.get(condition.key).cloned().unwrap_or_default();
    if condition.operator == "Null" {
        return condition.values.contains(if values.is_empty() { "true" } else { "false" });
    }
    let negated = condition.operator.contains("Not");
    if values.is_empty() {
        return match condition.set {
            "ForAllValues:" => true,
            "ForAnyValue:" => condition.if_exists,
            _ => condition.if_exists || negated,
        };
    }
    let is_listed = |value: &&str| match condition.operator {
        "StringLike" | "StringNotLike" => condition.values.iter().any(|word| fits(word.as_bytes(), value.as_bytes())),
        _ => condition.values.contains(value),
    };
    let (listed, unlisted): (Vec<&str>, Vec<&str>) = values.iter().copied().partition(is_listed);
    match (condition.set, negated) {
        ("ForAllValues:", false) => unlisted.is_empty(),
        ("ForAllValues:", true) => listed.is_empty(),
        ("ForAnyValue:", false) => !listed.is_empty(),
        ("ForAnyValue:", true) => !unlisted.is_empty(),
        (_, false) => !listed.is_empty(),
        (_, true) => listed.is_empty(),
    }
}

fn statement_applies(statement: &Statement, asked: &Asked) -> bool {
    let (but, names) = &statement.principals;
    let is_named = names.contains("*") || asked.user.is_some_and(|user| names.contains(user));
    let (not_actions, actions) = &statement.actions;
    let (not_resources, resources) = &statement.resources;
    let resource = asked.key.map_or("b".to_owned(), |key| format!("b/{key}"));
    let is_resource = resources.iter().any(|pattern| fits(pattern.as_bytes(), resource.as_bytes()));
    let reasons = [
        is_named != *but,
        any_fits(actions, asked.action) != *not_actions,
        is_resource != *not_resources,
        statement.conditions.iter().all(|condition| condition_holds(condition, asked)),
    ];
    reasons == [true; 4]
}

fn verdict(statements: &[Statement], asked: &Asked) -> Verdict {
    let applying: BTreeSet<bool> =
        statements.iter().filter(|statement| statement_applies(statement, asked)).map(|one| one.allow).collect();
    match (applying.contains(&false), applying.contains(&true)) {
        (true, _) => Verdict::Deny,
        (false, true) => Verdict::Allow,
        (false, false) => Verdict::NoMatch,
    }
}

fn some_of(words: &'static [&'static str]) -> impl Strategy<Value = BTreeSet<&'static str>> {
    proptest::sample::subsequence(words, 1..=words.len().min(3)).prop_map(|words| words.into_iter().collect())
}

fn condition() -> impl Strategy<Value = Condition> {
    let sets = proptest::sample::select(&["", "", "ForAllValues:", "ForAnyValue:"][..]);
    let operators =
        proptest::sample::select(&["StringEquals", "StringNotEquals", "StringLike", "StringNotLike", "Null"][..]);
    let keys = proptest::sample::select(&KEYS[..]);
    (sets, operators, any::<bool>(), keys, some_of(&WORDS), some_of(&["true", "false"])).prop_map(
        |(set, operator, if_exists, key, words, flags)| match operator {
            "Null" => Condition { set: "", operator, if_exists: false, key, values: flags },
            _ => Condition { set, operator, if_exists, key, values: words },
        },
    )
}

fn statement() -> impl Strategy<Value = Statement> {
    let principals = prop_oneof![Just(BTreeSet::from(["*"])), some_of(&USERS)];
    let actions =
        some_of(&["s3:*", "s3:GetObject", "S3:Get*", "s3:Put?bject", "s3:ListBucket", "*", "s3:DeleteObject"]);
    let resources = some_of(&["b", "b/*", "b/a*", "b/?", "b/ab", "*", "b*"]);
    // Conditions of one operator and key stand in JSON once.
    let conditions = vec(condition(), 0..3).prop_map(|conditions| {
        let mut seen = BTreeSet::new();
        let is_new = |one: &Condition| seen.insert((one.set, one.operator, one.if_exists, one.key));
        conditions.into_iter().filter(is_new).collect()
    });
    (any::<bool>(), any::<bool>(), principals, any::<bool>(), actions, any::<bool>(), resources, conditions).prop_map(
        |(allow, but, principals, not_actions, actions, not_resources, resources, conditions)| Statement {
            allow,
            principals: (but && !allow, principals),
            actions: (not_actions, actions),
            resources: (not_resources, resources),
            conditions,
        },
    )
}

fn asked() -> impl Strategy<Value = Asked> {
    let users = proptest::option::of(proptest::sample::select(&USERS[..]));
    let actions = proptest::sample::select(
        &["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:GetObjectAcl", "s3:ListBucket", "s3:PutBucketPolicy"]
            [..],
    );
    let keys = proptest::sample::select(&["a", "ab", "b", "c"][..]);
    let facts = proptest::collection::btree_map(
        proptest::sample::select(&KEYS[..]),
        proptest::collection::btree_set(proptest::sample::select(&["a", "ab", "b", "c"][..]), 1..3),
        0..3,
    );
    (users, actions, keys, facts).prop_map(|(user, action, key, facts)| Asked {
        user,
        action,
        key: action.contains("Object").then_some(key),
        facts,
    })
}

fn user(name: &'static str) -> User<'static> {
    User { name, canonical_id: name, user_id: name, accounts: &["p"] }
}

fn parsed(statements: &[Statement]) -> Policy {
    let text = json(statements);
    Policy::parse(text.as_bytes(), "b").unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Statements whose actions fit their resources: others are refused when a policy is put.
fn statements() -> impl Strategy<Value = Vec<Statement>> {
    vec(statement(), 1..4).prop_map(|mut statements| {
        statements.retain(|one| Policy::parse(json(std::slice::from_ref(one)).as_bytes(), "b").is_ok());
        statements
    })
}

fn evaluate(policy: &Policy, asked: &Asked) -> Verdict {
    let principal = asked.user.map_or(Principal::Anonymous, |name| Principal::User(user(name)));
    let key = asked.key.map(str::as_bytes);
    policy.evaluate(&Request { principal, action: asked.action, bucket: "b", key, keys: asked })
}

fn grants() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let who = proptest::sample::select(&["anna", "berta", "carl", "all", "authenticated"][..]);
    let what = proptest::sample::select(&["READ", "WRITE", "READ_ACP", "WRITE_ACP", "FULL_CONTROL"][..]);
    vec((who, what), 0..3)
}

fn acl(owner: &str, grants: &[(&str, &str)]) -> Acl {
    let grant = |(who, what): &(&str, &str)| {
        let grantee = match *who {
            "all" => Grantee::AllUsers,
            "authenticated" => Grantee::AuthenticatedUsers,
            id => Grantee::User { canonical_id: id.to_owned() },
        };
        Grant { grantee, permission: Permission::parse(what).expect("permission") }
    };
    Acl::new(owner, grants.iter().map(grant).collect()).expect("acl")
}

/// Everything that has a say but the policy. The bucket is anna's.
#[derive(Debug, Clone)]
struct Settings {
    member: bool,
    ownership: ObjectOwnership,
    restrict: bool,
    ignore: bool,
    bucket_grants: Vec<(&'static str, &'static str)>,
    object: Option<(&'static str, Vec<(&'static str, &'static str)>)>,
}

fn settings() -> impl Strategy<Value = Settings> {
    let ownerships = proptest::sample::select(
        &[ObjectOwnership::BucketOwnerEnforced, ObjectOwnership::BucketOwnerPreferred, ObjectOwnership::ObjectWriter][..],
    );
    let object = proptest::option::of((proptest::sample::select(&USERS[..]), grants()));
    (any::<bool>(), ownerships, any::<bool>(), any::<bool>(), grants(), object).prop_map(
        |(member, ownership, restrict, ignore, bucket_grants, object)| Settings {
            member,
            ownership,
            restrict,
            ignore,
            bucket_grants,
            object,
        },
    )
}

/// The decision, read from the rules a second time.
fn expected(settings: &Settings, statements: &[Statement], asked: &Asked) -> bool {
    let member = settings.member && asked.user.is_some();
    if member && asked.action == "s3:PutBucketPolicy" {
        return true;
    }
    let said = verdict(statements, asked);
    if said == Verdict::Deny {
        return false;
    }
    let acls_on = settings.ownership != ObjectOwnership::BucketOwnerEnforced;
    let reads_or_changes = ["s3:GetObject", "s3:GetObjectAcl"].contains(&asked.action);
    let foreign = acls_on && reads_or_changes && settings.object.as_ref().is_some_and(|(owner, _)| *owner != "anna");
    if !foreign {
        // The keys of the conditions used here narrow nothing, so that every statement for everybody is public.
        let public = statements.iter().any(|one| one.allow && one.principals.1.contains("*"));
        if member || said == Verdict::Allow && !(public && settings.restrict) {
            return true;
        }
    }
    if !acls_on {
        return false;
    }
    let given = |grants: &[(&str, &str)], what: &str, name: Option<&str>| {
        grants.iter().any(|(who, permission)| {
            let to = match *who {
                "all" => !settings.ignore,
                "authenticated" => !settings.ignore && name.is_some(),
                id => name == Some(id),
            };
            to && (*permission == what || *permission == "FULL_CONTROL")
        })
    };
    let mut names = vec![asked.user];
    if member {
        names.push(Some("anna"));
    }
    names.into_iter().any(|name| match (asked.action, &settings.object) {
        ("s3:ListBucket", _) => given(&settings.bucket_grants, "READ", name),
        ("s3:PutObject", _) => given(&settings.bucket_grants, "WRITE", name),
        ("s3:DeleteObject", object) => {
            let own = object.as_ref().is_none_or(|(owner, _)| name == Some(*owner)) || name == Some("anna");
            own && given(&settings.bucket_grants, "WRITE", name)
        }
        ("s3:GetObject", Some((_, grants))) => given(grants, "READ", name),
        ("s3:GetObjectAcl", Some((owner, grants))) => name == Some(*owner) || given(grants, "READ_ACP", name),
        _ => false,
    })
}

fn decided(settings: &Settings, policy: Option<&Policy>, asked: &Asked) -> bool {
    let bucket_acl = acl("anna", &settings.bucket_grants);
    let object_acl = settings.object.as_ref().map(|(owner, grants)| acl(owner, grants));
    let object = settings.object.as_ref().map(|(owner, _)| ObjectFacts { owner, acl: object_acl.as_ref() });
    let requester = match asked.user {
        None => Requester::Anonymous,
        Some(name) => {
            Requester::User { user: user(name), project_id: "elsewhere", is_member_of_bucket_project: settings.member }
        }
    };
    let facts = Facts {
        requester,
        action: asked.action,
        bucket: "b",
        key: asked.key.map(str::as_bytes),
        keys: asked,
        policy,
        ownership: settings.ownership,
        public_access_block: PublicAccessBlock {
            ignore_public_acls: settings.ignore,
            restrict_public_buckets: settings.restrict,
            ..PublicAccessBlock::default()
        },
        bucket_acl: &bucket_acl,
        object,
        upload_initiator: None,
        opened: Use { openings: &[left_to_policies()], ..Use::CLOSED },
    };
    decide(&facts).is_allowed()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn policies_are_evaluated_as_a_second_reading_does(statements in statements(), asked in vec(asked(), 16)) {
        prop_assume!(!statements.is_empty());
        let policy = parsed(&statements);
        for asked in asked {
            prop_assert_eq!(evaluate(&policy, &asked), verdict(&statements, &asked), "{} {:?}", json(&statements), asked);
        }
    }

    #[test]
    fn requests_are_decided_as_a_second_reading_does(
        statements in statements(), asked in vec(asked(), 16), settings in settings(),
    ) {
        let policy = (!statements.is_empty()).then(|| parsed(&statements));
        for asked in asked {
            let decided = decided(&settings, policy.as_ref(), &asked);
            prop_assert_eq!(decided, expected(&settings, &statements, &asked), "{} {:?}", json(&statements), asked);
        }
    }

    /// No statement beside a Deny, before or behind it, makes it vanish.
    #[test]
    fn a_deny_stands_whatever_is_added(
        before in statements(), deny in statement(), behind in statements(), asked in vec(asked(), 16),
        settings in settings(),
    ) {
        let mut deny = deny;
        deny.allow = false;
        prop_assume!(Policy::parse(json(std::slice::from_ref(&deny)).as_bytes(), "b").is_ok());
        let alone = parsed(std::slice::from_ref(&deny));
        let policy = parsed(&before.into_iter().chain([deny]).chain(behind).collect::<Vec<_>>());
        for asked in asked.iter().filter(|asked| evaluate(&alone, asked) == Verdict::Deny) {
            prop_assert_eq!(evaluate(&policy, asked), Verdict::Deny);
            let is_repair = asked.action == "s3:PutBucketPolicy";
            prop_assert!(is_repair || !decided(&settings, Some(&policy), asked));
        }
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = Policy::parse(&bytes, "b");
        let _ = Policy::parse(&[b"{", bytes.as_slice()].concat(), "b");
        let _ = Acl::from_bytes(&bytes);
    }

    /// Damaged policies: a byte replaced, or the end cut off.
    #[test]
    fn no_damage_makes_the_parser_panic(
        statements in statements(), at in any::<prop::sample::Index>(), byte in any::<u8>(), asked in asked(),
    ) {
        let mut text = json(&statements).into_bytes();
        let at = at.index(text.len());
        let _ = Policy::parse(&text[..at], "b");
        text[at] = byte;
        if let Ok(policy) = Policy::parse(&text, "b") {
            let _ = (evaluate(&policy, &asked), policy.is_public());
        }
    }

    #[test]
    fn any_text_in_any_place_is_read_or_refused(text in "[ -~é]{0,24}", asked in asked()) {
        let quoted = serde_json::to_string(&text).expect("JSON");
        for template in [
            r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":@},"Action":"s3:*","Resource":"*"}}"#,
            r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":"*","Action":@,"Resource":"*"}}"#,
            r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":@}}"#,
            r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":"*","Condition":{"StringLike":{"s3:prefix":@}}}}"#,
            r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":"*","Condition":{"DateEquals":{"aws:CurrentTime":@}}}}"#,
            r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":"*","Condition":{"IpAddress":{"aws:SourceIp":@}}}}"#,
            r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":"*","Condition":{@:{"s3:prefix":"a"}}}}"#,
        ] {
            if let Ok(policy) = Policy::parse(template.replace('@', &quoted).as_bytes(), "b") {
                let _ = (evaluate(&policy, &asked), policy.is_public());
            }
        }
    }
}
