//! The POST policy: what the one who signed it allows a form to say ("Creating a POST policy").
//!
//! A document that is not one is InvalidPolicyDocument; a form that does not meet it is AccessDenied, each in the words
//! that AWS's servers use.

use super::fields::FormFields;
use crate::error::{S3Code, S3Error};
use crate::http_date;
use crate::limits::PUT_LEN_BYTES_MAX;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;
use valv_types::TimestampMicros;

/// How many bytes a file may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LengthRange {
    /// At least.
    pub min: u64,
    /// At most.
    pub max: u64,
}

impl Default for LengthRange {
    /// What any single upload may have: up to 5 GiB.
    fn default() -> Self {
        Self { min: 0, max: PUT_LEN_BYTES_MAX }
    }
}

impl LengthRange {
    /// What both allow. Several conditions all hold.
    fn and(self, other: Self) -> Self {
        Self { min: self.min.max(other.min), max: self.max.min(other.max) }
    }
}

/// A policy, read from what was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostPolicy {
    expiration: TimestampMicros,
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    /// The condition as an error shows it: `["eq", "$acl", "private"]`.
    shown: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    /// The field, in lower case, has this value.
    Equal { field: String, value: String },
    /// It begins with this.
    StartsWith { field: String, prefix: String },
    /// The file is that long.
    Length(LengthRange),
    /// A condition that no form meets, such as one on a field without its dollar sign.
    Never,
}

impl PostPolicy {
    /// Reads the `policy` field. Its signature has been verified: nothing is told of an unsigned one but that.
    ///
    /// # Errors
    /// InvalidPolicyDocument.
    pub fn parse(policy: &str) -> Result<Self, S3Error> {
        // Forms made by hand have their base64 broken into lines.
        let packed: Vec<u8> = policy.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        let document = STANDARD.decode(packed).map_err(|_| invalid("invalid Base64 encoding."))?;
        let json = without_s3_escapes(&document);
        let Json::Object(members) = serde_json::from_slice(&json).map_err(|_| invalid("Invalid JSON."))? else {
            return Err(invalid("Invalid JSON."));
        };
        let (mut expiration, mut conditions) = (None, None);
        for (name, value) in members {
            let slot = match name.as_str() {
                "expiration" => &mut expiration,
                "conditions" => &mut conditions,
                _ => return Err(invalid(format!("Unexpected: '{}'", name.to_lowercase()))),
            };
            // Which of two would be meant can't be known.
            if slot.replace(value).is_some() {
                return Err(invalid("Invalid JSON."));
            }
        }
        let expiration = match expiration.ok_or_else(|| invalid("Policy missing expiration."))? {
            Json::Text(text) => read_expiration(&text)?,
            _ => return Err(invalid("Invalid 'expiration' value: must be a String.")),
        };
        let conditions = match conditions.ok_or_else(|| invalid("Policy missing conditions."))? {
            Json::Array(items) => items.into_iter().map(Condition::read).collect::<Result<_, _>>()?,
            _ => return Err(invalid("Invalid 'conditions' value: must be a List.")),
        };
        Ok(Self { expiration, conditions })
    }

    /// Holds a form against the policy: the time, every condition, and that every field has one. Returns how long the file
    /// may be, which is known only later.
    ///
    /// # Errors
    /// AccessDenied, naming what failed.
    pub fn check(&self, fields: &FormFields, bucket: &str, now: TimestampMicros) -> Result<LengthRange, S3Error> {
        if now >= self.expiration {
            return Err(denied("Policy expired."));
        }
        // The bucket is named by the URL; a field of that name, which some SDKs send, says nothing.
        let value_of = |field: &str| match field {
            "bucket" => Some(bucket.as_bytes()),
            field => fields.get(field),
        };
        let mut range = LengthRange::default();
        for condition in &self.conditions {
            let is_met = match &condition.test {
                Test::Equal { field, value } => value_of(field) == Some(value.as_bytes()),
                Test::StartsWith { field, prefix } => value_of(field).is_some_and(|value| starts(field, value, prefix)),
                Test::Length(allowed) => {
                    range = range.and(*allowed);
                    true
                }
                Test::Never => false,
            };
            if !is_met {
                return Err(denied(format!("Policy Condition failed: {}", condition.shown)));
            }
        }
        let is_covered = |name: &str| {
            self.conditions.iter().any(|condition| match &condition.test {
                Test::Equal { field, .. } | Test::StartsWith { field, .. } => field == name,
                Test::Length(_) | Test::Never => false,
            })
        };
        let names = fields.iter().map(|(name, _)| name).filter(|name| !is_exempt(name) && *name != "bucket");
        let extra: Vec<&str> = std::iter::once("bucket").chain(names).filter(|name| !is_covered(name)).collect();
        if extra.is_empty() { Ok(range) } else { Err(denied(format!("Extra input fields: {}", extra.join(", ")))) }
    }
}

/// Fields that need no condition: "except x-amz-signature, file, policy, and field names that have an x-ignore- prefix", and
/// version 2's AWSAccessKeyId and signature.
fn is_exempt(name: &str) -> bool {
    matches!(name, "x-amz-signature" | "file" | "policy" | "awsaccesskeyid" | "signature")
        || name.starts_with("x-ignore-")
}

/// A list of content types starts with a prefix if each of them does; commas in other values mean nothing.
fn starts(field: &str, value: &[u8], prefix: &str) -> bool {
    match field {
        "content-type" => value.split(|&b| b == b',').all(|one| one.trim_ascii_start().starts_with(prefix.as_bytes())),
        _ => value.starts_with(prefix.as_bytes()),
    }
}

impl Condition {
    fn read(json: Json) -> Result<Self, S3Error> {
        match json {
            Json::Object(members) => {
                let [(name, value)] = <[_; 1]>::try_from(members).map_err(|_| {
                    invalid("Invalid Simple-Condition: Simple-Conditions must have exactly one property specified.")
                })?;
                match value {
                    Json::Text(value) => Ok(Self {
                        shown: shown(&["eq", &format!("${name}"), showable(&name, &value)]),
                        test: Test::Equal { field: name.to_ascii_lowercase(), value },
                    }),
                    Json::Null => Err(invalid("Invalid JSON.")),
                    _ => Err(invalid("Invalid Simple-Condition: value must be a string.")),
                }
            }
            Json::Array(items) => Self::read_list(&items),
            _ => Err(invalid("Invalid condition test: must be a List or Object.")),
        }
    }

    fn read_list(items: &[Json]) -> Result<Self, S3Error> {
        let Some(first) = items.first() else {
            return Err(invalid("Invalid Condition: missing operation identifier."));
        };
        let Json::Text(operation) = first else { return Err(invalid("Invalid JSON.")) };
        let kind = operation.to_ascii_lowercase();
        let [_, one, other] = items else {
            return Err(match kind.as_str() {
                "eq" | "starts-with" | "content-length-range" => {
                    invalid(format!("Invalid {kind}: wrong number of arguments."))
                }
                _ => unknown_operation(operation),
            });
        };
        match kind.as_str() {
            "content-length-range" => {
                let shown = shown_items(items);
                let test = match (one.bound()?, other.bound()?) {
                    (Some(min), Some(max)) => Test::Length(LengthRange { min, max }),
                    _ => Test::Never,
                };
                Ok(Self { shown, test })
            }
            "eq" | "starts-with" => {
                let (Json::Text(field), Json::Text(value)) = (one, other) else {
                    return Err(invalid("Invalid JSON."));
                };
                let shown = shown(&[operation, field, showable(field, value)]);
                let test = match (field.strip_prefix('$'), kind.as_str()) {
                    (None, _) => Test::Never,
                    (Some(field), "eq") => Test::Equal { field: field.to_ascii_lowercase(), value: value.clone() },
                    (Some(field), _) => Test::StartsWith { field: field.to_ascii_lowercase(), prefix: value.clone() },
                };
                Ok(Self { shown, test })
            }
            _ => Err(unknown_operation(operation)),
        }
    }
}

fn unknown_operation(operation: &str) -> S3Error {
    invalid(format!("Invalid Condition: unknown operation '{operation}'."))
}

/// A condition's value as messages may show it: a policy can hold a customer's key, and messages are logged.
fn showable<'v>(field: &str, value: &'v str) -> &'v str {
    let is_secret = field.to_ascii_lowercase().contains("server-side-encryption-customer-key");
    if is_secret { "(not shown)" } else { value }
}

/// `["eq", "$acl", "private"]`, strings escaped as JSON does.
fn shown(texts: &[&str]) -> String {
    let items: Vec<Json> = texts.iter().map(|text| Json::Text((*text).to_owned())).collect();
    shown_items(&items)
}

fn shown_items(items: &[Json]) -> String {
    let one = |item: &Json| match item {
        Json::Text(text) => serde_json::Value::from(text.as_str()).to_string(),
        Json::Whole(number) => number.to_string(),
        Json::Null | Json::Other | Json::Array(_) | Json::Object(_) => "null".to_owned(),
    };
    format!("[{}]", items.iter().map(one).collect::<Vec<_>>().join(", "))
}

fn invalid(what: impl fmt::Display) -> S3Error {
    S3Error::new(S3Code::InvalidPolicyDocument).with_message(format!("Invalid Policy: {what}"))
}

fn denied(what: impl fmt::Display) -> S3Error {
    S3Error::new(S3Code::AccessDenied).with_message(format!("Invalid according to Policy: {what}"))
}

/// "ISO8601 GMT date format": with a T and a Z. AWS refuses offsets.
fn read_expiration(text: &str) -> Result<TimestampMicros, S3Error> {
    let is_gmt = text.as_bytes().get(10) == Some(&b'T') && text.ends_with('Z');
    let expiration = http_date::parse_iso8601(text).filter(|_| is_gmt);
    expiration.ok_or_else(|| invalid(format!("Invalid 'expiration' value: '{text}'")))
}

/// Two escapes that AWS lists and JSON does not have: `\$` is a dollar sign, `\v` a vertical tab.
fn without_s3_escapes(document: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\\', document).is_none() {
        return Cow::Borrowed(document);
    }
    let mut out = Vec::with_capacity(document.len());
    let mut rest = document;
    loop {
        rest = match rest {
            [] => return Cow::Owned(out),
            [b'\\', b'$', after @ ..] => {
                out.push(b'$');
                after
            }
            [b'\\', b'v', after @ ..] => {
                out.extend_from_slice(b"\\u000b");
                after
            }
            // Pairs, so that the second backslash of an escaped one begins nothing.
            [b'\\', byte, after @ ..] => {
                out.extend_from_slice(&[b'\\', *byte]);
                after
            }
            [byte, after @ ..] => {
                out.push(*byte);
                after
            }
        };
    }
}

/// JSON with every member of its objects: a map would keep one of two conditions of the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Json {
    Text(String),
    Whole(i128),
    Null,
    /// A truth value or a number that is not whole: nothing in a policy may be one.
    Other,
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// An end of content-length-range: a whole number, or text with one. `None` for any other text, which AWS takes for a
    /// condition that fails.
    fn bound(&self) -> Result<Option<u64>, S3Error> {
        match self {
            Self::Whole(number) => u64::try_from(*number)
                .map(Some)
                .map_err(|_| invalid("Invalid content-length-range: the bounds must not be negative.")),
            Self::Text(text) => Ok(text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()))),
            _ => Err(invalid("Invalid JSON.")),
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Json;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_str<E>(self, text: &str) -> Result<Json, E> {
                Ok(Json::Text(text.to_owned()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
                Ok(Json::Whole(number.into()))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
                Ok(Json::Whole(number.into()))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Json, E> {
                Ok(Json::Other)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
                Ok(Json::Other)
            }

            fn visit_unit<E>(self) -> Result<Json, E> {
                Ok(Json::Null)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
                let mut array = Vec::new();
                while let Some(item) = items.next_element()? {
                    array.push(item);
                }
                Ok(Json::Array(array))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Json, A::Error> {
                let mut object = Vec::new();
                while let Some(member) = members.next_entry()? {
                    object.push(member);
                }
                Ok(Json::Object(object))
            }
        }
        deserializer.deserialize_any(Any)
    }
}
