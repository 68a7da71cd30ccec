//! What AWS's pages say, as tables.

use crate::{ConditionKeys, Policy, PolicyError, Principal, Request, User, Verdict};
use std::borrow::Cow;

const ANNA: User<'static> = User { name: "anna", canonical_id: "ca", user_id: "ua", accounts: &["cohort"] };
const BERTA: User<'static> = User { name: "berta", canonical_id: "cb", user_id: "ub", accounts: &["cohort"] };

struct Keys(Vec<(&'static str, &'static str)>);

impl ConditionKeys for Keys {
    fn values(&self, key: &str) -> Option<Vec<Cow<'_, str>>> {
        let values: Vec<_> =
            self.0.iter().filter(|(name, _)| *name == key).map(|(_, value)| Cow::Borrowed(*value)).collect();
        (!values.is_empty()).then_some(values)
    }
}

fn statement(fields: &str) -> String {
    format!(r#"{{"Version":"2012-10-17","Statement":[{{{fields}}}]}}"#)
}

#[test]
fn malformed_policies_are_refused_in_awss_words() {
    let whole = |text: &str| Policy::parse(text.as_bytes(), "b").map(|_| ()).map_err(|error| error.to_string());
    let not_json = "Policies must be valid JSON and the first byte must be '{'";
    for (text, message) in [
        ("", not_json),
        (" {}", not_json),
        ("[]", not_json),
        ("{", not_json),
        (r#"{"Statement":[]}x"#, not_json),
        (r#"{"Version":"2012-10-17","Version":"2012-10-17"}"#, not_json),
        ("{}", "Missing required field Statement"),
        (r#"{"Statement":[]}"#, "Could not parse the policy: Statement is empty!"),
        (r#"{"Version":"2026-01-01","Statement":[]}"#, "The policy must contain a valid version string"),
        (r#"{"Version":1,"Statement":[]}"#, "The policy must contain a valid version string"),
        (r#"{"Statement":[],"Owner":"x"}"#, "Unknown field Owner"),
        (r#"{"Statement":["x"]}"#, "Invalid policy syntax."),
        (r#"{"Statement":[],"Id":1}"#, "Invalid policy syntax."),
    ] {
        assert_eq!(whole(text), Err(message.to_owned()), "{text}");
    }
    let (effect, principal) = (r#""Effect":"Allow""#, r#""Principal":"*""#);
    let (action, resource) = (r#""Action":"s3:GetObject""#, r#""Resource":"arn:aws:s3:::b/*""#);
    for (fields, message) in [
        (vec![principal, action, resource], "Missing required field Effect"),
        (vec![effect, action, resource], "Missing required field Principal"),
        (vec![effect, principal, resource], "Missing required field Action"),
        (vec![effect, principal, action], "Missing required field Resource"),
        (vec![r#""Effect":"allow""#, principal, action, resource], "Invalid effect: allow"),
        (vec![effect, r#""Principal":"anna""#, action, resource], "Invalid principal in policy"),
        (vec![effect, r#""Principal":{"AWS":"a b"}"#, action, resource], "Invalid principal in policy"),
        (vec![effect, r#""NotPrincipal":"*""#, action, resource], "Allow with NotPrincipal is not allowed."),
        (vec![effect, principal, r#""Action":"GetObject""#, resource], "Policy has invalid action"),
        (vec![effect, principal, r#""Action":"s3:GetObjectt""#, resource], "Policy has invalid action"),
        (vec![effect, principal, r#""Action":"ec2:*""#, resource], "Policy has invalid action"),
        (vec![effect, principal, r#""Action":[]"#, resource], "Missing required field Action"),
        (vec![effect, principal, r#""Action":[1]"#, resource], "Invalid policy syntax."),
        (vec![effect, principal, action, r#""Resource":"b/*""#], "Policy has invalid resource"),
        (vec![effect, principal, action, r#""Resource":"arn:aws:s3:::c/*""#], "Policy has invalid resource"),
        (vec![effect, principal, action, r#""Resource":"arn:aws:s3:::bb/*""#], "Policy has invalid resource"),
        (vec![effect, principal, action, r#""Resource":"arn:aws:s3:eu-north-1::b/*""#], "Policy has invalid resource"),
        (vec![effect, principal, action, r#""NotResource":"arn:aws:s3:::c/*""#], "Policy has invalid resource"),
        (
            vec![effect, principal, action, r#""Resource":"arn:aws:s3:::b""#],
            "Action does not apply to any resource(s) in statement",
        ),
        (
            vec![effect, principal, r#""Action":["s3:GetObject","s3:ListBucket"]"#, resource],
            "Action does not apply to any resource(s) in statement",
        ),
        (vec![effect, principal, action, resource, r#""Conditions":{}"#], "Unknown field Conditions"),
        (vec![effect, principal, action, r#""NotAction":"s3:PutObject""#, resource], "Invalid policy syntax."),
        (vec![effect, principal, action, resource, r#""Sid":1"#], "Invalid policy syntax."),
        (
            vec![effect, principal, action, resource, r#""Condition":{"Equals":{"s3:prefix":"a"}}"#],
            "Invalid Condition type : Equals",
        ),
    ] {
        let text = statement(&fields.join(","));
        assert_eq!(whole(&text), Err(message.to_owned()), "{text}");
    }
    let long = statement(&format!(r#"{effect},{principal},{action},{resource},"Sid":"{}""#, "x".repeat(20_480)));
    assert_eq!(Policy::parse(long.as_bytes(), "b"), Err(PolicyError::TooLong));
}

#[test]
fn policies_of_awss_pages_are_accepted() {
    for fields in [
        r#""Sid":"S","Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*""#,
        r#""Effect":"Deny","Principal":{"AWS":"*"},"Action":"*","Resource":["arn:aws:s3:::b","arn:aws:s3:::b/*"],
           "Condition":{"Bool":{"aws:SecureTransport":"false"}}"#,
        r#""Effect":"Allow","Principal":{"AWS":["111122223333","arn:aws:iam::444455556666:root"]},
           "Action":["s3:PutObject","s3:PutObjectAcl"],"Resource":"arn:aws:s3:::b/*",
           "Condition":{"StringEquals":{"s3:x-amz-acl":["public-read"]}}"#,
        r#""Effect":"Allow","Principal":{"Service":"logging.s3.amazonaws.com"},"Action":"s3:PutObject",
           "Resource":"arn:aws:s3:::b/logs*","Condition":{"ArnLike":{"aws:SourceArn":"arn:aws:s3:::source"},
           "StringEquals":{"aws:SourceAccount":"111122223333"}}"#,
        r#""Effect":"Allow","Principal":"*","Action":"s3:ListBucket","Resource":"arn:aws:s3:::b",
           "Condition":{"NumericLessThanEquals":{"s3:max-keys":10},"StringLike":{"s3:prefix":"home/${aws:username}/*"}}"#,
        r#""Effect":"Allow","Principal":"*","Action":"s3:*","Resource":"arn:aws:s3:::*""#,
        r#""Effect":"Allow","Principal":"*","Action":"S3:getobject","Resource":"*""#,
        r#""Effect":"Deny","NotPrincipal":{"AWS":"arn:aws:iam::cohort:user/anna"},"NotAction":"s3:Get*",
           "NotResource":"arn:aws:s3:::b/public/*""#,
    ] {
        let text = statement(fields);
        assert!(Policy::parse(text.as_bytes(), "b").is_ok(), "{:?} {text}", Policy::parse(text.as_bytes(), "b"));
    }
    // One statement needs no array, and no version either.
    let text = r#"{"Statement":{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":"arn:aws:s3:::b"}}"#;
    assert!(Policy::parse(text.as_bytes(), "b").is_ok());
}

#[test]
fn a_policy_says_what_it_says() {
    let anna = Principal::User(ANNA);
    let get = |key: &'static str| ("s3:GetObject", Some(key));
    let list = ("s3:ListBucket", None);
    for (fields, principal, (action, key), keys, expected) in [
        (
            r#""Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*""#,
            Principal::Anonymous,
            get("k"),
            vec![],
            Verdict::Allow,
        ),
        (
            r#""Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/a/*""#,
            Principal::Anonymous,
            get("k"),
            vec![],
            Verdict::NoMatch,
        ),
        (
            r#""Effect":"Allow","Principal":"*","Action":"s3:Get*","Resource":"arn:aws:s3:::b/?""#,
            anna,
            get("é"),
            vec![],
            Verdict::Allow,
        ),
        (
            r#""Effect":"Allow","Principal":"*","Action":"s3:ListBucket","Resource":"arn:aws:s3:::b""#,
            anna,
            list,
            vec![],
            Verdict::Allow,
        ),
        (
            r#""Effect":"Allow","Principal":"*","Action":"s3:*","Resource":"arn:aws:s3:::b/*""#,
            anna,
            list,
            vec![],
            Verdict::NoMatch,
        ),
        (
            r#""Effect":"Allow","Principal":"*","NotAction":"s3:Put*","Resource":"arn:aws:s3:::b/*""#,
            anna,
            get("k"),
            vec![],
            Verdict::Allow,
        ),
        (
            r#""Effect":"Allow","Principal":"*","NotAction":"s3:Get*","Resource":"arn:aws:s3:::b/*""#,
            anna,
            get("k"),
            vec![],
            Verdict::NoMatch,
        ),
        (
            r#""Effect":"Deny","Principal":"*","Action":"s3:*","NotResource":"arn:aws:s3:::b/a/*""#,
            anna,
            get("k"),
            vec![],
            Verdict::Deny,
        ),
        (
            r#""Effect":"Deny","Principal":"*","Action":"s3:*","NotResource":"arn:aws:s3:::b/a/*""#,
            anna,
            get("a/k"),
            vec![],
            Verdict::NoMatch,
        ),
        (
            r#""Effect":"Deny","NotPrincipal":{"AWS":"arn:aws:iam::cohort:user/berta"},"Action":"s3:*","Resource":"arn:aws:s3:::b/*""#,
            anna,
            get("k"),
            vec![],
            Verdict::Deny,
        ),
        (
            r#""Effect":"Deny","NotPrincipal":{"AWS":"arn:aws:iam::cohort:user/berta"},"Action":"s3:*","Resource":"arn:aws:s3:::b/*""#,
            Principal::User(BERTA),
            get("k"),
            vec![],
            Verdict::NoMatch,
        ),
        (
            r#""Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/home/${aws:username}/*""#,
            anna,
            get("home/anna/k"),
            vec![],
            Verdict::Allow,
        ),
        (
            r#""Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/home/${aws:username}/*""#,
            anna,
            get("home/berta/k"),
            vec![],
            Verdict::NoMatch,
        ),
        (
            r#""Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/home/${aws:userid}/*""#,
            anna,
            get("home/ua/k"),
            vec![],
            Verdict::Allow,
        ),
        // Who is nobody by name must not slip through what is meant for others' folders.
        (
            r#""Effect":"Allow","Principal":"*","Action":"s3:GetObject","NotResource":"arn:aws:s3:::b/home/${aws:username}/*""#,
            Principal::Anonymous,
            get("k"),
            vec![],
            Verdict::NoMatch,
        ),
        (
            r#""Effect":"Deny","Principal":"*","Action":"s3:GetObject","NotResource":"arn:aws:s3:::b/home/${aws:username}/*""#,
            Principal::Anonymous,
            get("k"),
            vec![],
            Verdict::Deny,
        ),
        (
            r#""Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*","Condition":{"StringEquals":{"s3:ExistingObjectTag/Class":"open"}}"#,
            anna,
            get("k"),
            vec![("s3:existingobjecttag/Class", "open")],
            Verdict::Allow,
        ),
        (
            r#""Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*","Condition":{"StringEquals":{"s3:ExistingObjectTag/Class":"open"}}"#,
            anna,
            get("k"),
            vec![("s3:existingobjecttag/class", "open")],
            Verdict::NoMatch,
        ),
        (
            r#""Effect":"Allow","Principal":"*","Action":"s3:ListBucket","Resource":"arn:aws:s3:::b","Condition":{"StringLike":{"s3:prefix":"home/${aws:username}/*"}}"#,
            anna,
            list,
            vec![("s3:prefix", "home/anna/")],
            Verdict::Allow,
        ),
        (
            r#""Effect":"Deny","Principal":"*","Action":"s3:*","Resource":"arn:aws:s3:::b/*","Condition":{"Bool":{"aws:SecureTransport":"false"}}"#,
            anna,
            get("k"),
            vec![("aws:securetransport", "false")],
            Verdict::Deny,
        ),
        (
            r#""Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*","Condition":{"StringEquals":{"aws:username":"anna"},"IpAddress":{"aws:SourceIp":"192.0.2.0/24"}}"#,
            anna,
            get("k"),
            vec![("aws:sourceip", "192.0.2.9")],
            Verdict::Allow,
        ),
        (
            r#""Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*","Condition":{"StringEquals":{"aws:username":"anna"},"IpAddress":{"aws:SourceIp":"192.0.2.0/24"}}"#,
            anna,
            get("k"),
            vec![("aws:sourceip", "198.51.100.9")],
            Verdict::NoMatch,
        ),
        // A header's word about the identity is never asked for.
        (
            r#""Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*","Condition":{"StringEquals":{"aws:username":"berta"}}"#,
            anna,
            get("k"),
            vec![("aws:username", "berta")],
            Verdict::NoMatch,
        ),
        (
            r#""Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*","Condition":{"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::cohort:user/*"}}"#,
            anna,
            get("k"),
            vec![],
            Verdict::Allow,
        ),
    ] {
        let text = statement(fields);
        let policy = Policy::parse(text.as_bytes(), "b").expect(&text);
        let keys = Keys(keys);
        let request = Request { principal, action, bucket: "b", key: key.map(str::as_bytes), keys: &keys };
        assert_eq!(policy.evaluate(&request), expected, "{text} {principal:?} {key:?}");
    }
}

#[test]
fn variables_belong_to_the_newer_language() {
    let text = r#"{"Version":"2008-10-17","Statement":{"Effect":"Allow","Principal":"*","Action":"s3:GetObject",
        "Resource":"arn:aws:s3:::b/${aws:username}"}}"#;
    let policy = Policy::parse(text.as_bytes(), "b").expect("policy");
    let verdict = |key: &str| {
        let (principal, keys) = (Principal::User(ANNA), Keys(Vec::new()));
        let request =
            Request { principal, action: "s3:GetObject", bucket: "b", key: Some(key.as_bytes()), keys: &keys };
        policy.evaluate(&request)
    };
    assert_eq!(verdict("anna"), Verdict::NoMatch);
    assert_eq!(verdict("${aws:username}"), Verdict::Allow);
}

#[test]
fn a_policy_that_costs_too_much_to_judge_opens_nothing() {
    const AGENT: &str = "aws:useragent";
    let long: &'static str = "a".repeat(60_000).leak();
    let stars = format!("*{}b", "a".repeat(9_000));
    let many = format!("[{}]", vec![r#""A""#; 4_000].join(","));
    let variables = "${aws:UserAgent}".repeat(1_000);
    for (condition, agent, expected) in [
        (format!(r#"{{"StringLike":{{"aws:UserAgent":"{stars}"}}}}"#), "curl", Verdict::NoMatch),
        (format!(r#"{{"StringNotLike":{{"aws:UserAgent":"{stars}"}}}}"#), "curl", Verdict::Allow),
        (format!(r#"{{"StringLike":{{"aws:UserAgent":"{stars}"}}}}"#), long, Verdict::Deny),
        (format!(r#"{{"StringNotLike":{{"aws:UserAgent":"{stars}"}}}}"#), long, Verdict::Deny),
        (format!(r#"{{"StringLikeIfExists":{{"aws:UserAgent":"{stars}"}}}}"#), long, Verdict::Deny),
        (format!(r#"{{"StringNotEqualsIgnoreCase":{{"aws:UserAgent":{many}}}}}"#), long, Verdict::Deny),
        (format!(r#"{{"StringEquals":{{"aws:Referer":"{variables}"}}}}"#), long, Verdict::Deny),
    ] {
        let fields = format!(
            r#""Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::b/*","Condition":{condition}"#
        );
        let policy = Policy::parse(statement(&fields).as_bytes(), "b").expect("policy");
        let keys = Keys(vec![(AGENT, agent), ("aws:referer", agent)]);
        let request = Request {
            principal: Principal::Anonymous,
            action: "s3:GetObject",
            bucket: "b",
            key: Some(b"k"),
            keys: &keys,
        };
        assert_eq!(policy.evaluate(&request), expected, "{:.60}", condition);
    }
    // The longest honest policy against the longest key.
    let resource = format!("arn:aws:s3:::b/*{}", "a".repeat(19_500));
    let fields = format!(r#""Effect":"Deny","Principal":"*","Action":"s3:GetObject","Resource":"{resource}""#);
    let policy = Policy::parse(statement(&fields).as_bytes(), "b").expect("policy");
    let (key, keys) = ("a".repeat(1_024), Keys(Vec::new()));
    let request = Request {
        principal: Principal::Anonymous,
        action: "s3:GetObject",
        bucket: "b",
        key: Some(key.as_bytes()),
        keys: &keys,
    };
    assert_eq!(policy.evaluate(&request), Verdict::NoMatch);
}

/// "The meaning of public", with its examples.
#[test]
fn public_is_what_aws_calls_public() {
    for (principal, condition, expected) in [
        (r#""*""#, "", true),
        (r#"{"AWS":"*"}"#, "", true),
        (r#"{"AWS":["arn:aws:iam::cohort:root","*"]}"#, "", true),
        (r#"{"AWS":"arn:aws:iam::cohort:root"}"#, "", false),
        (r#"{"CanonicalUser":"ca"}"#, "", false),
        (r#"{"Service":"cloudtrail.amazonaws.com"}"#, "", false),
        (r#""*""#, r#"{"StringLike":{"aws:SourceVpc":"vpc-*"}}"#, true),
        (r#""*""#, r#"{"StringEquals":{"aws:SourceVpc":"vpc-91237329"}}"#, false),
        (r#""*""#, r#"{"StringLike":{"aws:SourceVpc":"vpc-91237329"}}"#, false),
        (r#""*""#, r#"{"StringEquals":{"aws:SourceVpc":["vpc-1","vpc-2"]}}"#, false),
        (r#""*""#, r#"{"StringLike":{"aws:SourceVpc":["vpc-1","*"]}}"#, true),
        (r#""*""#, r#"{"StringNotEquals":{"aws:SourceVpc":"vpc-1"}}"#, true),
        (r#""*""#, r#"{"StringEqualsIfExists":{"aws:SourceVpc":"vpc-1"}}"#, true),
        (r#""*""#, r#"{"ForAllValues:StringEquals":{"aws:SourceVpc":"vpc-1"}}"#, true),
        (r#""*""#, r#"{"Null":{"aws:SourceVpc":"false"}}"#, true),
        (r#""*""#, r#"{"IpAddress":{"aws:SourceIp":"192.0.2.0/24"}}"#, false),
        (r#""*""#, r#"{"IpAddress":{"aws:SourceIp":["192.0.2.0/24","0.0.0.0/1"]}}"#, true),
        (r#""*""#, r#"{"IpAddress":{"aws:SourceIp":"0.0.0.0/0"}}"#, true),
        (r#""*""#, r#"{"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}}"#, false),
        (r#""*""#, r#"{"IpAddress":{"aws:SourceIp":"12.0.0.0/7"}}"#, true),
        (r#""*""#, r#"{"IpAddress":{"aws:SourceIp":"2001:db8::/32"}}"#, false),
        (r#""*""#, r#"{"IpAddress":{"aws:SourceIp":"2000::/31"}}"#, true),
        (r#""*""#, r#"{"NotIpAddress":{"aws:SourceIp":"192.0.2.0/24"}}"#, true),
        (r#""*""#, r#"{"StringEquals":{"aws:SourceIp":"192.0.2.1"}}"#, true),
        (r#""*""#, r#"{"StringEquals":{"aws:userid":"ua"}}"#, false),
        (r#""*""#, r#"{"StringLike":{"aws:userid":"AROAID:*"}}"#, true),
        (r#""*""#, r#"{"StringEquals":{"aws:userid":"${aws:username}"}}"#, true),
        (r#""*""#, r#"{"StringEquals":{"s3:prefix":"a"}}"#, true),
        (r#""*""#, r#"{"Bool":{"aws:SecureTransport":"true"}}"#, true),
        (r#""*""#, r#"{"StringEquals":{"s3:prefix":"a","aws:SourceArn":"arn:aws:s3:::b"}}"#, false),
        (r#""*""#, r#"{"ArnLike":{"s3:DataAccessPointArn":"arn:aws:s3:eu-north-1:1:accesspoint/*"}}"#, false),
        (r#""*""#, r#"{"ArnLike":{"s3:DataAccessPointArn":"arn:aws:s3:*:*:accesspoint/*"}}"#, true),
    ] {
        let condition = if condition.is_empty() { "{}" } else { condition };
        let fields = format!(
            r#""Effect":"Allow","Principal":{principal},"Action":"s3:*","Resource":"arn:aws:s3:::b","Condition":{condition}"#
        );
        let public = Policy::parse(statement(&fields).as_bytes(), "b").expect(&fields).is_public();
        assert_eq!(public, expected, "{fields}");
        let fields = fields.replace("Allow", "Deny");
        assert!(!Policy::parse(statement(&fields).as_bytes(), "b").expect(&fields).is_public(), "{fields}");
    }
}
