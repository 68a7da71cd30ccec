//! `Condition` of a statement: operators, keys and values.
//!
//! Source: "IAM JSON policy elements: Condition operators" and "Conditions with multiple context keys or values". What a
//! missing key means is the heart of it: a positive operator is then false, a negated one true, `...IfExists` true,
//! `ForAllValues:` true and `ForAnyValue:` false.

use crate::date;
use crate::json::Json;
use crate::pattern::{ARN_PARTS, Expansion, Pattern, Variables, Wildcards, normalise_key};
use crate::policy::{Effect, PolicyError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::borrow::Cow;
use std::cmp::Ordering;
use std::net::IpAddr;

/// How a value is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Text,
    TextIgnoreCase,
    /// With wildcards.
    Like,
    Arn,
    Number(Order),
    Date(Order),
    Bool,
    Binary,
    Ip,
    Null,
}

/// Which orders satisfy a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Order {
    fn is_satisfied_by(self, ordering: Ordering) -> bool {
        match self {
            Self::Equal => ordering == Ordering::Equal,
            Self::Less => ordering == Ordering::Less,
            Self::LessOrEqual => ordering != Ordering::Greater,
            Self::Greater => ordering == Ordering::Greater,
            Self::GreaterOrEqual => ordering != Ordering::Less,
        }
    }
}

/// How the values of a key with several are taken together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quantifier {
    One,
    ForAllValues,
    ForAnyValue,
}

/// A value of a policy, read as its operator reads it. Kept small: a policy has room for ten thousand.
#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Text(Box<Pattern>),
    Number(f64),
    DateMicros(i64),
    Bool(bool),
    Binary(Box<[u8]>),
    Network(Network),
}

/// A block of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

impl Network {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let bits_max: u8 = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match prefix {
            None => bits_max,
            Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok()?,
            Some(_) => return None,
        };
        (prefix_bits <= bits_max).then_some(Self { address, prefix_bits })
    }

    pub(crate) fn contains(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.checked_shr(32 - u32::from(self.prefix_bits)).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.checked_shr(128 - u32::from(self.prefix_bits)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }

    /// Whether AWS calls it too broad to narrow anything: more than a /8 of IPv4 or a /32 of IPv6.
    pub(crate) fn is_very_broad(self) -> bool {
        self.prefix_bits < if self.address.is_ipv4() { 8 } else { 32 }
    }
}

/// One condition: all of a statement's must hold.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Condition {
    comparison: Comparison,
    is_negated: bool,
    quantifier: Quantifier,
    if_exists: bool,
    /// Normalised.
    key: String,
    operands: Vec<Operand>,
}

/// Condition keys of S3, lower case, without `s3:`. Those that end in `/` carry a tag's name.
const S3_KEYS: &[&str] = &[
    "accessgrantsinstancearn",
    "accesspointnetworkorigin",
    "authtype",
    "buckettag/",
    "dataaccesspointaccount",
    "dataaccesspointarn",
    "delimiter",
    "existingobjecttag/",
    "if-match",
    "if-none-match",
    "inventoryaccessibleoptionalfields",
    "jobsuspendedcause",
    "locationconstraint",
    "max-keys",
    "object-lock-legal-hold",
    "object-lock-mode",
    "object-lock-remaining-retention-days",
    "object-lock-retain-until-date",
    "objectcreationoperation",
    "prefix",
    "requestobjecttag/",
    "requestobjecttagkeys",
    "resourceaccount",
    "signatureage",
    "signatureversion",
    "tlsversion",
    "versionid",
    "x-amz-acl",
    "x-amz-bucket-namespace",
    "x-amz-content-sha256",
    "x-amz-copy-source",
    "x-amz-grant-full-control",
    "x-amz-grant-read",
    "x-amz-grant-read-acp",
    "x-amz-grant-write",
    "x-amz-grant-write-acp",
    "x-amz-metadata-directive",
    "x-amz-object-ownership",
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-server-side-encryption-customer-algorithm",
    "x-amz-storage-class",
    "x-amz-website-redirect-location",
];

/// Global condition keys, lower case, without `aws:`.
const GLOBAL_KEYS: &[&str] = &[
    "calledvia",
    "calledviafirst",
    "calledvialast",
    "currenttime",
    "ec2instancesourceprivateipv4",
    "ec2instancesourcevpc",
    "epochtime",
    "federatedprovider",
    "multifactorauthage",
    "multifactorauthpresent",
    "principalaccount",
    "principalarn",
    "principalisawsservice",
    "principalorgid",
    "principalorgpaths",
    "principalservicename",
    "principalservicenameslist",
    "principaltag/",
    "principaltype",
    "referer",
    "requestedregion",
    "requesttag/",
    "resourceaccount",
    "resourceorgid",
    "resourceorgpaths",
    "resourcetag/",
    "securetransport",
    "sourceaccount",
    "sourcearn",
    "sourceidentity",
    "sourceip",
    "sourceorgid",
    "sourceorgpaths",
    "sourceowner",
    "sourcevpc",
    "sourcevpcarn",
    "sourcevpce",
    "tagkeys",
    "tokenissuetime",
    "useragent",
    "userid",
    "username",
    "viaawsservice",
    "vpceaccount",
    "vpceorgid",
    "vpceorgpaths",
    "vpcsourceip",
];

/// Whether AWS knows a (normalised) key: one that it does not know is refused, because a negated operator over a misspelt
/// key would always hold.
fn is_known_key(key: &str) -> bool {
    let (names, name) = match key.split_once(':') {
        Some(("s3", name)) => (S3_KEYS, name),
        Some(("aws", name)) => (GLOBAL_KEYS, name),
        _ => return false,
    };
    names.iter().any(|known| match known.strip_suffix('/') {
        Some(_) => name.strip_prefix(known).is_some_and(|tag| !tag.is_empty()),
        None => *known == name,
    })
}

impl Condition {
    /// Reads what stands behind `Condition`.
    pub(crate) fn parse_all(json: &Json, expansion: Expansion) -> Result<Vec<Self>, PolicyError> {
        let Json::Object(operators) = json else { return Err(PolicyError::Syntax) };
        let mut conditions = Vec::new();
        for (operator, keys) in operators {
            let Json::Object(keys) = keys else { return Err(PolicyError::Syntax) };
            for (key, values) in keys {
                conditions.push(Self::parse(operator, key, values, expansion)?);
            }
        }
        Ok(conditions)
    }

    fn parse(operator: &str, key: &str, values: &Json, expansion: Expansion) -> Result<Self, PolicyError> {
        let invalid = || PolicyError::InvalidOperator(operator.to_owned());
        let (quantifier, name) = match operator.split_once(':') {
            None => (Quantifier::One, operator),
            Some(("ForAllValues", name)) => (Quantifier::ForAllValues, name),
            Some(("ForAnyValue", name)) => (Quantifier::ForAnyValue, name),
            Some(_) => return Err(invalid()),
        };
        let (name, if_exists) = match name.strip_suffix("IfExists") {
            Some(name) => (name, true),
            None => (name, false),
        };
        let (comparison, is_negated) = comparison(name).ok_or_else(invalid)?;
        if comparison == Comparison::Null && (if_exists || quantifier != Quantifier::One) {
            return Err(invalid());
        }
        let key = normalise_key(key);
        if !is_known_key(&key) {
            return Err(PolicyError::InvalidConditionKey);
        }
        let values = values.one_or_many();
        if values.is_empty() {
            return Err(PolicyError::Syntax);
        }
        let read = |value: &Json| {
            let text = value.scalar()?;
            Operand::parse(&text, comparison, expansion)
        };
        let operands: Option<Vec<Operand>> = values.iter().map(read).collect();
        let operands = operands.ok_or(PolicyError::Syntax)?;
        Ok(Self { comparison, is_negated, quantifier, if_exists, key, operands })
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Whether it holds. `values` are the request's for this condition's key.
    ///
    /// A policy variable that stands for nothing in this request matches nothing; and under a negated operator, where
    /// that would widen the statement, it keeps an Allow from applying.
    pub(crate) fn holds(&self, values: Option<&[Cow<'_, str>]>, variables: &dyn Variables, effect: Effect) -> bool {
        let values = values.unwrap_or_default();
        if self.comparison == Comparison::Null {
            return self.operands.contains(&Operand::Bool(values.is_empty()));
        }
        if values.is_empty() {
            return match self.quantifier {
                Quantifier::ForAllValues => true,
                Quantifier::ForAnyValue => self.if_exists,
                Quantifier::One => self.if_exists || self.is_negated,
            };
        }
        let unresolved = self.is_negated && effect == Effect::Allow;
        let satisfies = |value: &Cow<'_, str>| {
            let is_match = self
                .operands
                .iter()
                .any(|operand| operand.matches(value, self.comparison, variables).unwrap_or(unresolved));
            is_match != self.is_negated
        };
        let is_for_all = match self.quantifier {
            Quantifier::ForAllValues => true,
            Quantifier::ForAnyValue => false,
            // "Is none of these" is about every value, "is one of these" about any.
            Quantifier::One => self.is_negated,
        };
        if is_for_all { values.iter().all(satisfies) } else { values.iter().any(satisfies) }
    }

    /// Whether it lets only requests through whose key has one of a few fixed values: without a wildcard, a variable, a
    /// negation, and not when the key is missing.
    pub(crate) fn is_fixed(&self) -> bool {
        self.only_these()
            && self.operands.iter().all(|operand| matches!(operand, Operand::Text(pattern) if pattern.is_fixed()))
    }

    /// As [`Self::is_fixed`], for ARNs of access points: the account must be fixed, the rest may be a wildcard.
    pub(crate) fn is_fixed_account(&self) -> bool {
        let is_fixed = |operand: &Operand| matches!(operand, Operand::Text(arn) if arn.colon_part_is_fixed(4));
        self.only_these() && self.operands.iter().all(is_fixed)
    }

    /// Whether it lets only addresses through that are not nearly all addresses.
    pub(crate) fn is_narrow_network(&self) -> bool {
        let is_narrow = |operand: &Operand| matches!(operand, Operand::Network(network) if !network.is_very_broad());
        self.only_these() && self.comparison == Comparison::Ip && self.operands.iter().all(is_narrow)
    }

    fn only_these(&self) -> bool {
        !self.is_negated && !self.if_exists && self.quantifier != Quantifier::ForAllValues
    }
}

/// What an operator's name means, and whether it is negated.
fn comparison(name: &str) -> Option<(Comparison, bool)> {
    Some(match name {
        "StringEquals" => (Comparison::Text, false),
        "StringNotEquals" => (Comparison::Text, true),
        "StringEqualsIgnoreCase" => (Comparison::TextIgnoreCase, false),
        "StringNotEqualsIgnoreCase" => (Comparison::TextIgnoreCase, true),
        "StringLike" => (Comparison::Like, false),
        "StringNotLike" => (Comparison::Like, true),
        "NumericEquals" => (Comparison::Number(Order::Equal), false),
        "NumericNotEquals" => (Comparison::Number(Order::Equal), true),
        "NumericLessThan" => (Comparison::Number(Order::Less), false),
        "NumericLessThanEquals" => (Comparison::Number(Order::LessOrEqual), false),
        "NumericGreaterThan" => (Comparison::Number(Order::Greater), false),
        "NumericGreaterThanEquals" => (Comparison::Number(Order::GreaterOrEqual), false),
        "DateEquals" => (Comparison::Date(Order::Equal), false),
        "DateNotEquals" => (Comparison::Date(Order::Equal), true),
        "DateLessThan" => (Comparison::Date(Order::Less), false),
        "DateLessThanEquals" => (Comparison::Date(Order::LessOrEqual), false),
        "DateGreaterThan" => (Comparison::Date(Order::Greater), false),
        "DateGreaterThanEquals" => (Comparison::Date(Order::GreaterOrEqual), false),
        "Bool" => (Comparison::Bool, false),
        "BinaryEquals" => (Comparison::Binary, false),
        "IpAddress" => (Comparison::Ip, false),
        "NotIpAddress" => (Comparison::Ip, true),
        "ArnEquals" | "ArnLike" => (Comparison::Arn, false),
        "ArnNotEquals" | "ArnNotLike" => (Comparison::Arn, true),
        "Null" => (Comparison::Null, false),
        _ => return None,
    })
}

impl Operand {
    fn parse(text: &str, comparison: Comparison, expansion: Expansion) -> Option<Self> {
        let pattern = |wildcards| Pattern::parse(text, wildcards, expansion).ok().map(Box::new);
        Some(match comparison {
            Comparison::Text | Comparison::TextIgnoreCase => Self::Text(pattern(Wildcards::No)?),
            Comparison::Like => Self::Text(pattern(Wildcards::Yes)?),
            Comparison::Arn => {
                let arn = pattern(Wildcards::Yes)?;
                // Fewer parts would match nothing, and "not like" that everything.
                if arn.colon_parts() < ARN_PARTS && !arn.has_variables() {
                    return None;
                }
                Self::Text(arn)
            }
            Comparison::Number(_) => Self::Number(number(text)?),
            Comparison::Date(_) => Self::DateMicros(date::parse(text)?),
            Comparison::Bool | Comparison::Null => Self::Bool(boolean(text)?),
            Comparison::Binary => Self::Binary(STANDARD.decode(text).ok()?.into_boxed_slice()),
            Comparison::Ip => Self::Network(Network::parse(text)?),
        })
    }

    /// Whether the request's `value` compares as asked; `None` if a variable stands for nothing.
    fn matches(&self, value: &str, comparison: Comparison, variables: &dyn Variables) -> Option<bool> {
        // What reading the value for another time costs; the pattern's own cost is its own to tell.
        if !variables.spend(value.len()) {
            return None;
        }
        Some(match (self, comparison) {
            (Self::Text(pattern), Comparison::Arn) => pattern.matches_arn(value.as_bytes(), variables)?,
            (Self::Text(pattern), Comparison::TextIgnoreCase) => {
                pattern.text(variables)?.to_lowercase() == value.to_lowercase()
            }
            (Self::Text(pattern), _) => pattern.matches(value.as_bytes(), variables)?,
            (Self::Number(expected), Comparison::Number(order)) => {
                let ordering = number(value).and_then(|value| value.partial_cmp(expected));
                ordering.is_some_and(|ordering| order.is_satisfied_by(ordering))
            }
            (Self::DateMicros(expected), Comparison::Date(order)) => {
                date::parse(value).is_some_and(|value| order.is_satisfied_by(value.cmp(expected)))
            }
            (Self::Bool(expected), _) => boolean(value) == Some(*expected),
            (Self::Binary(expected), _) => STANDARD.decode(value).is_ok_and(|value| *value == **expected),
            (Self::Network(network), _) => {
                // A dual-stack socket gives an IPv4 client as ::ffff:a.b.c.d.
                value.parse::<IpAddr>().is_ok_and(|address| network.contains(address.to_canonical()))
            }
            (Self::Number(_) | Self::DateMicros(_), _) => false,
        })
    }
}

/// A decimal number. Exact up to 2^53, which is beyond every number that S3's keys have.
fn number(text: &str) -> Option<f64> {
    let is_decimal = |char: char| char.is_ascii_digit() || "+-.eE".contains(char);
    if !text.chars().all(is_decimal) {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

fn boolean(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct User;
    impl Variables for User {
        fn variable(&self, key: &str) -> Option<String> {
            (key == "aws:username").then(|| "Anna".to_owned())
        }
        fn spend(&self, _: usize) -> bool {
            true
        }
    }

    fn holds(condition: &str, values: &[&str]) -> bool {
        let json: Json = serde_json::from_str(condition).expect("JSON");
        let conditions = Condition::parse_all(&json, Expansion::Yes).expect("condition");
        let values: Vec<Cow<'_, str>> = values.iter().map(|value| Cow::Borrowed(*value)).collect();
        let values = (!values.is_empty()).then_some(values.as_slice());
        conditions.iter().all(|condition| condition.holds(values, &User, Effect::Allow))
    }

    /// Operator, values of the policy, values of the request, and whether it holds.
    #[test]
    fn operators_compare_as_iam_documents() {
        for (operator, operands, values, expected) in [
            ("StringEquals", r#""a""#, &["a"][..], true),
            ("StringEquals", r#"["b","a"]"#, &["a"], true),
            ("StringEquals", r#""a*""#, &["ab"], false),
            ("StringEquals", r#""${aws:username}""#, &["Anna"], true),
            ("StringEquals", r#""a""#, &["A"], false),
            ("StringEquals", r#""a""#, &[], false),
            ("StringNotEquals", r#""a""#, &["a"], false),
            ("StringNotEquals", r#"["a","b"]"#, &["b"], false),
            ("StringNotEquals", r#"["a","b"]"#, &["c"], true),
            ("StringNotEquals", r#""a""#, &[], true),
            ("StringNotEquals", r#""${aws:PrincipalOrgID}""#, &["a"], false),
            ("StringEqualsIgnoreCase", r#""${aws:username}Ä""#, &["ANNAä"], true),
            ("StringNotEqualsIgnoreCase", r#""a""#, &["A"], false),
            ("StringLike", r#""a*?""#, &["abc"], true),
            ("StringLike", r#""a*?""#, &["a"], false),
            ("StringNotLike", r#""a*""#, &["b"], true),
            ("StringEqualsIfExists", r#""a""#, &[], true),
            ("StringEqualsIfExists", r#""a""#, &["b"], false),
            ("StringNotEqualsIfExists", r#""a""#, &[], true),
            ("NumericEquals", "10", &["10.0"], true),
            ("NumericEquals", r#""10""#, &["10"], true),
            ("NumericNotEquals", "10", &["11"], true),
            ("NumericLessThan", "10", &["10"], false),
            ("NumericLessThanEquals", "10", &["10"], true),
            ("NumericGreaterThan", "10", &["11"], true),
            ("NumericGreaterThanEquals", "10", &["9"], false),
            ("NumericLessThan", "10", &["x"], false),
            ("NumericLessThan", "10", &[], false),
            ("DateLessThan", r#""2026-03-01T00:00:00Z""#, &["2026-02-28T23:59:59Z"], true),
            ("DateGreaterThan", r#""2026-03-01T00:00:00Z""#, &["2026-02-28T23:59:59Z"], false),
            ("DateGreaterThanEquals", "1772366400", &["2026-03-01T12:00:00Z"], true),
            ("DateLessThanEquals", r#""2026-03-01T12:00:00Z""#, &["1772366400"], true),
            ("DateEquals", r#""2026-03-01T12:00:00Z""#, &["1772366400"], true),
            ("DateNotEquals", r#""2026-03-01T12:00:00Z""#, &["1772366400"], false),
            ("Bool", "true", &["true"], true),
            ("Bool", r#""false""#, &["true"], false),
            ("Bool", r#""TRUE""#, &["true"], true),
            ("Bool", r#""false""#, &[], false),
            ("BoolIfExists", r#""false""#, &[], true),
            ("BinaryEquals", r#""QmluYXJ5""#, &["QmluYXJ5"], true),
            ("BinaryEquals", r#""QmluYXJ5""#, &["AAAA"], false),
            ("IpAddress", r#""192.0.2.0/24""#, &["192.0.2.7"], true),
            ("IpAddress", r#""192.0.2.0/24""#, &["::ffff:192.0.2.7"], true),
            ("IpAddress", r#""192.0.2.0/24""#, &["192.0.3.7"], false),
            ("IpAddress", r#""192.0.2.7""#, &["192.0.2.7"], true),
            ("IpAddress", r#""0.0.0.0/0""#, &["192.0.2.7"], true),
            ("IpAddress", r#""0.0.0.0/0""#, &["2001:db8::1"], false),
            ("IpAddress", r#"["192.0.2.0/24","2001:db8::/32"]"#, &["2001:db8:1::1"], true),
            ("IpAddress", r#""::/0""#, &["2001:db8::1"], true),
            ("NotIpAddress", r#""192.0.2.0/24""#, &["192.0.2.7"], false),
            ("NotIpAddress", r#""192.0.2.0/24""#, &["198.51.100.1"], true),
            ("NotIpAddress", r#""192.0.2.0/24""#, &[], true),
            ("ArnEquals", r#""arn:aws:iam::*:user/a*""#, &["arn:aws:iam::p:user/anna"], true),
            ("ArnLike", r#""arn:aws:iam::p:user/b""#, &["arn:aws:iam::p:user/anna"], false),
            ("ArnNotLike", r#""arn:aws:iam::p:user/b""#, &["arn:aws:iam::p:user/anna"], true),
            ("ArnNotEquals", r#""arn:aws:iam::p:user/b""#, &[], true),
            ("Null", "true", &[], true),
            ("Null", "true", &["a"], false),
            ("Null", r#""false""#, &["a"], true),
            ("Null", r#""false""#, &[], false),
            ("ForAllValues:StringEquals", r#"["a","b"]"#, &["a", "b"], true),
            ("ForAllValues:StringEquals", r#"["a","b"]"#, &["a", "c"], false),
            ("ForAllValues:StringEquals", r#"["a","b"]"#, &[], true),
            ("ForAllValues:StringNotEquals", r#"["a","b"]"#, &["c", "d"], true),
            ("ForAllValues:StringNotEquals", r#"["a","b"]"#, &["c", "a"], false),
            ("ForAnyValue:StringEquals", r#"["a","b"]"#, &["c", "a"], true),
            ("ForAnyValue:StringEquals", r#"["a","b"]"#, &["c", "d"], false),
            ("ForAnyValue:StringEquals", r#"["a","b"]"#, &[], false),
            ("ForAnyValue:StringNotEquals", r#"["a","b"]"#, &["a", "c"], true),
            ("ForAnyValue:StringNotEquals", r#"["a","b"]"#, &["a", "b"], false),
            ("ForAnyValue:StringLikeIfExists", r#""a*""#, &[], true),
        ] {
            let condition = format!(r#"{{"{operator}":{{"s3:RequestObjectTagKeys":{operands}}}}}"#);
            assert_eq!(holds(&condition, values), expected, "{condition} {values:?}");
        }
    }

    #[test]
    fn what_is_no_condition() {
        for (condition, expected) in [
            (r#"[]"#, PolicyError::Syntax),
            (r#"{"StringEquals":"a"}"#, PolicyError::Syntax),
            (r#"{"StringEquals":{"s3:prefix":[]}}"#, PolicyError::Syntax),
            (r#"{"StringEquals":{"s3:prefix":null}}"#, PolicyError::Syntax),
            (r#"{"StringEquals":{"s3:prefix":[["a"]]}}"#, PolicyError::Syntax),
            (r#"{"StringEquals":{"s3:prefx":"a"}}"#, PolicyError::InvalidConditionKey),
            (r#"{"StringEquals":{"s3:ExistingObjectTag":"a"}}"#, PolicyError::InvalidConditionKey),
            (r#"{"StringEquals":{"ec2:Region":"a"}}"#, PolicyError::InvalidConditionKey),
            (r#"{"Equals":{"s3:prefix":"a"}}"#, PolicyError::InvalidOperator("Equals".to_owned())),
            (r#"{"NullIfExists":{"s3:prefix":true}}"#, PolicyError::InvalidOperator("NullIfExists".to_owned())),
            (r#"{"ForSome:Bool":{"s3:prefix":true}}"#, PolicyError::InvalidOperator("ForSome:Bool".to_owned())),
            (r#"{"IpAddress":{"aws:SourceIp":"192.0.2.0/33"}}"#, PolicyError::Syntax),
            (r#"{"IpAddress":{"aws:SourceIp":"192.0.2"}}"#, PolicyError::Syntax),
            (r#"{"NumericEquals":{"s3:max-keys":"inf"}}"#, PolicyError::Syntax),
            (r#"{"NumericEquals":{"s3:max-keys":"NaN"}}"#, PolicyError::Syntax),
            (r#"{"DateEquals":{"aws:CurrentTime":"tomorrow"}}"#, PolicyError::Syntax),
            (r#"{"Bool":{"aws:SecureTransport":"yes"}}"#, PolicyError::Syntax),
            (r#"{"BinaryEquals":{"s3:prefix":"%"}}"#, PolicyError::Syntax),
            (r#"{"ArnLike":{"aws:PrincipalArn":"arn:aws"}}"#, PolicyError::Syntax),
            (r#"{"StringEquals":{"s3:prefix":"${aws:username"}}"#, PolicyError::Syntax),
        ] {
            let json: Json = serde_json::from_str(condition).expect("JSON");
            assert_eq!(Condition::parse_all(&json, Expansion::Yes), Err(expected), "{condition}");
        }
    }
}
