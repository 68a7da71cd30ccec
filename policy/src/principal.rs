//! Who asks, and whom a policy names.
//!
//! Valv has no twelve-digit accounts. What AWS calls an account is a project here, so an ARN's account is a project's name
//! or id; and an ARN with an empty account names a user wherever it works, as other S3 servers write it.

use crate::json::Json;

/// A user of Valv.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User<'a> {
    /// The user's name.
    pub name: &'a str,
    /// The canonical id, as ACLs give it.
    pub canonical_id: &'a str,
    /// The user's id as text.
    pub user_id: &'a str,
    /// What the project may be called in an ARN's account: its name, its id.
    pub accounts: &'a [&'a str],
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Principal<'a> {
    /// An unsigned request.
    Anonymous,
    /// A request whose signature is right.
    User(User<'a>),
}

impl Principal<'_> {
    /// What the request's own identity says of a condition key: these are never a header's word. The outer `None` means
    /// that the key is not one of them.
    pub(crate) fn key(&self, key: &str) -> Option<Option<Vec<String>>> {
        let user = match self {
            Self::Anonymous => None,
            Self::User(user) => Some(user),
        };
        let values = match key {
            "aws:username" => user.map(|user| vec![user.name.to_owned()]),
            // AWS says "anonymous" of nobody, but calls a policy narrowed to a fixed id not public.
            "aws:userid" => user.map(|user| vec![user.user_id.to_owned()]),
            "aws:principaltype" => Some(vec![user.map_or("Anonymous", |_| "User").to_owned()]),
            "aws:principalaccount" => user.map(|user| user.accounts.iter().map(|name| (*name).to_owned()).collect()),
            "aws:principalarn" => user.map(|user| {
                let arn = |account: &&str| format!("arn:aws:iam::{account}:user/{}", user.name);
                user.accounts.iter().map(arn).collect()
            }),
            _ => return None,
        };
        Some(values)
    }
}

/// One principal that a policy names.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Named {
    Everybody,
    /// `arn:aws:iam::<account>:root`.
    Account(Box<str>),
    /// `arn:aws:iam::<account>:user/<name>`; without an account, wherever the user works.
    User {
        account: Option<Box<str>>,
        name: Box<str>,
    },
    /// A word alone: an account, a user's id, a canonical id.
    Bare(Box<str>),
    /// `{"CanonicalUser": ..}`.
    Canonical(Box<str>),
    /// A role, a service, a federated identity: nobody who could sign a request here.
    Nobody,
}

/// The principal was not written as AWS documents it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadPrincipal;

/// What stands behind `Principal` or `NotPrincipal`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Principals(Vec<Named>);

impl Principals {
    pub(crate) fn parse(json: &Json) -> Result<Self, BadPrincipal> {
        let kinds = match json {
            Json::Text(text) if text == "*" => return Ok(Self(vec![Named::Everybody])),
            Json::Object(kinds) if !kinds.is_empty() => kinds,
            _ => return Err(BadPrincipal),
        };
        let mut named = Vec::new();
        for (kind, values) in kinds {
            let values = values.one_or_many();
            if values.is_empty() {
                return Err(BadPrincipal);
            }
            for value in values {
                let Json::Text(value) = value else { return Err(BadPrincipal) };
                named.push(match kind.as_str() {
                    "AWS" => parse_aws(value)?,
                    "CanonicalUser" if is_word(value) => Named::Canonical(value.as_str().into()),
                    "Service" | "Federated" if !value.is_empty() => Named::Nobody,
                    _ => return Err(BadPrincipal),
                });
            }
        }
        Ok(Self(named))
    }

    pub(crate) fn names(&self, principal: &Principal<'_>) -> bool {
        self.0.iter().any(|named| match (named, principal) {
            (Named::Everybody, _) => true,
            (Named::Nobody, _) | (_, Principal::Anonymous) => false,
            (Named::Account(account), Principal::User(user)) => user.accounts.contains(&&**account),
            (Named::Canonical(id), Principal::User(user)) => !id.is_empty() && **id == *user.canonical_id,
            (Named::Bare(word), Principal::User(user)) => {
                let word = &**word;
                word == user.canonical_id || word == user.user_id || user.accounts.contains(&word)
            }
            (Named::User { account, name }, Principal::User(user)) => {
                let is_account = account.as_ref().is_none_or(|account| user.accounts.contains(&&**account));
                is_account && [user.name, user.canonical_id, user.user_id].contains(&&**name)
            }
        })
    }

    /// Whether everybody is named, signed or not.
    pub(crate) fn is_everybody(&self) -> bool {
        self.0.contains(&Named::Everybody)
    }
}

/// A name without wildcards, spaces and separators of ARNs.
fn is_word(text: &str) -> bool {
    let is_plain = |char: char| char.is_alphanumeric() || "_.+=,@-".contains(char);
    !text.is_empty() && text.chars().all(is_plain)
}

fn parse_aws(text: &str) -> Result<Named, BadPrincipal> {
    if text == "*" {
        return Ok(Named::Everybody);
    }
    let Some(arn) = text.strip_prefix("arn:") else {
        return if is_word(text) { Ok(Named::Bare(text.into())) } else { Err(BadPrincipal) };
    };
    let parts: Vec<&str> = arn.splitn(5, ':').collect();
    let &[partition, service, "", account, resource] = parts.as_slice() else { return Err(BadPrincipal) };
    // An ARN with a wildcard in the middle is no principal in AWS either.
    if !matches!(partition, "aws" | "aws-cn" | "aws-us-gov") || text.contains(['*', '?']) {
        return Err(BadPrincipal);
    }
    if !account.is_empty() && !is_word(account) {
        return Err(BadPrincipal);
    }
    match (service, resource.split_once('/')) {
        ("iam", None) if resource == "root" && !account.is_empty() => Ok(Named::Account(account.into())),
        ("iam", Some(("user", name))) if !name.is_empty() => {
            let account = (!account.is_empty()).then(|| account.into());
            Ok(Named::User { account, name: name.into() })
        }
        ("iam", Some(("role" | "group" | "saml-provider" | "oidc-provider", name))) if !name.is_empty() => {
            Ok(Named::Nobody)
        }
        ("sts", Some(("assumed-role" | "federated-user", name))) if !name.is_empty() => Ok(Named::Nobody),
        _ => Err(BadPrincipal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANNA: User<'static> = User {
        name: "anna",
        canonical_id: "c0ffee",
        user_id: "11111111-2222-3333-4444-555555555555",
        accounts: &["cohort", "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"],
    };

    fn names(json: &str, principal: Principal<'_>) -> Option<bool> {
        let json: Json = serde_json::from_str(json).expect("JSON");
        Principals::parse(&json).ok().map(|principals| principals.names(&principal))
    }

    #[test]
    fn principals_name_whom_they_name() {
        for (json, anna, anonymous) in [
            (r#""*""#, true, true),
            (r#"{"AWS":"*"}"#, true, true),
            (r#"{"AWS":["*"]}"#, true, true),
            (r#"{"AWS":"arn:aws:iam::cohort:root"}"#, true, false),
            (r#"{"AWS":"arn:aws:iam::aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee:root"}"#, true, false),
            (r#"{"AWS":"arn:aws:iam::other:root"}"#, false, false),
            (r#"{"AWS":"arn:aws:iam::cohort:user/anna"}"#, true, false),
            (r#"{"AWS":"arn:aws:iam::cohort:user/c0ffee"}"#, true, false),
            (r#"{"AWS":"arn:aws:iam::cohort:user/11111111-2222-3333-4444-555555555555"}"#, true, false),
            (r#"{"AWS":"arn:aws:iam::other:user/anna"}"#, false, false),
            (r#"{"AWS":"arn:aws:iam:::user/anna"}"#, true, false),
            (r#"{"AWS":"arn:aws:iam:::user/berta"}"#, false, false),
            (r#"{"AWS":["arn:aws:iam:::user/berta","cohort"]}"#, true, false),
            (r#"{"AWS":"c0ffee"}"#, true, false),
            (r#"{"AWS":"anna"}"#, false, false),
            (r#"{"CanonicalUser":"c0ffee"}"#, true, false),
            (r#"{"CanonicalUser":"cohort"}"#, false, false),
            (r#"{"Service":"logging.s3.amazonaws.com"}"#, false, false),
            (r#"{"Federated":"accounts.google.com"}"#, false, false),
            (r#"{"AWS":"arn:aws:iam::cohort:role/r"}"#, false, false),
            (r#"{"AWS":"arn:aws:sts::cohort:assumed-role/r/s"}"#, false, false),
        ] {
            assert_eq!(names(json, Principal::User(ANNA)), Some(anna), "{json}");
            assert_eq!(names(json, Principal::Anonymous), Some(anonymous), "{json}");
        }
    }

    #[test]
    fn what_aws_does_not_document_is_no_principal() {
        for json in [
            r#""anna""#,
            r#"[]"#,
            r#"["*"]"#,
            r#"{}"#,
            r#"{"AWS":[]}"#,
            r#"{"AWS":""}"#,
            r#"{"AWS":{"a":"b"}}"#,
            r#"{"AWS":"a*"}"#,
            r#"{"AWS":"arn:aws:iam::*:root"}"#,
            r#"{"AWS":"arn:aws:iam::cohort:user/*"}"#,
            r#"{"AWS":"arn:aws:iam::cohort:user/"}"#,
            r#"{"AWS":"arn:aws:iam:::root"}"#,
            r#"{"AWS":"arn:aws:s3:::bucket"}"#,
            r#"{"Aws":"*"}"#,
            r#"{"CanonicalUser":"*"}"#,
            r#"{"Everybody":"*"}"#,
        ] {
            assert_eq!(names(json, Principal::Anonymous), None, "{json}");
        }
    }
}
