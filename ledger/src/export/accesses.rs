//! Accesses in an export: as people read them, and how a verifier holds them against their leaf.

use crate::access::{AccessName, AccessNames, Accesses, Client};
use crate::leaf::Leaf;
use serde::{Deserialize, Serialize};

/// The names of accesses for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReadableAccessNames {
    salt: String,
    clients: Vec<Client>,
    accesses: Vec<ReadableAccessName>,
}

/// The names of one access. A subject that is not UTF-8 is hexadecimal; neither is there if there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadableAccessName {
    client: u32,
    requests: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject_hex: Option<String>,
}

impl ReadableAccessNames {
    pub(super) fn of(names: &AccessNames) -> Self {
        let accesses = names.accesses.iter().map(|name| {
            let text = std::str::from_utf8(&name.subject);
            ReadableAccessName {
                client: name.client,
                requests: name.requests.clone(),
                subject: text.ok().filter(|text| !text.is_empty()).map(str::to_owned),
                subject_hex: text.is_err().then(|| hex::encode(&name.subject)),
            }
        });
        Self { salt: hex::encode(names.salt), clients: names.clients.clone(), accesses: accesses.collect() }
    }

    fn read(self) -> Option<AccessNames> {
        let read = |name: ReadableAccessName| {
            let subject = match (name.subject, name.subject_hex) {
                (None, None) => Vec::new(),
                (Some(text), None) => text.into_bytes(),
                (None, Some(text)) => hex::decode(text).ok()?,
                (Some(_), Some(_)) => return None,
            };
            Some(AccessName { client: name.client, requests: name.requests, subject })
        };
        Some(AccessNames {
            salt: hex::decode(&self.salt).ok()?.try_into().ok()?,
            clients: self.clients,
            accesses: self.accesses.into_iter().map(read).collect::<Option<_>>()?,
        })
    }
}

/// Accesses that hold.
pub(super) struct Held {
    /// How many requests they stand for.
    pub(super) count: u64,
    /// Whether their names were erased.
    pub(super) is_without_names: bool,
}

/// Checks that accesses and names are those that the leaf was made of.
///
/// # Errors
/// What is wrong.
pub(super) fn check(
    leaf: &Leaf,
    hash: &[u8; 32],
    accesses: Option<Accesses>,
    names: Option<ReadableAccessNames>,
) -> Result<Held, &'static str> {
    let accesses = accesses.ok_or("the accesses are missing")?;
    if Accesses::hash_of(&accesses.to_bytes()) != *hash {
        return Err("the accesses are not those that the leaf was made of");
    }
    let bytes = accesses.accesses.iter().fold(0u64, |sum, access| sum.saturating_add(access.bytes));
    if bytes != leaf.bytes {
        return Err("the accesses have another number of bytes than their leaf");
    }
    let names = names.map(|names| names.read().ok_or("the names can't be read")).transpose()?;
    match &names {
        None => {}
        Some(names) if names.hash() != leaf.names_hash => {
            return Err("the names are not those that the leaf was made of");
        }
        Some(names) if names.accesses.len() != accesses.accesses.len() => {
            return Err("names of another number of accesses");
        }
        Some(_) => {}
    }
    Ok(Held {
        count: accesses.accesses.iter().fold(0, |sum, access| sum.saturating_add(access.count)),
        is_without_names: names.is_none() && leaf.names_hash != AccessNames::NONE,
    })
}
