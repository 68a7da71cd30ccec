//! What AWS calls public.
//!
//! Source: "Blocking public access to your Amazon S3 storage", section "The meaning of 'public'". A policy is public until
//! shown otherwise: every statement that allows must name fixed principals, or be narrowed by a condition to fixed values
//! (no wildcard, no policy variable) of one of the keys that say where a request comes from. Deny statements count for
//! nothing, and neither do the actions: a narrow hole is a hole.

use crate::condition::Condition;
use crate::policy::{Effect, Statement};

/// Keys whose fixed values narrow a statement. AWS also has the id of a KMS key, because KMS asks in its turn whether the
/// requester may use it; here it is a name that anybody may write.
const NARROWING_KEYS: &[&str] = &[
    "aws:principalaccount",
    "aws:principalarn",
    "aws:principalorgid",
    "aws:sourceaccount",
    "aws:sourcearn",
    "aws:sourceowner",
    "aws:sourcevpc",
    "aws:sourcevpce",
    "aws:userid",
    "s3:dataaccesspointaccount",
];

/// Whether a statement lets in the public.
pub(crate) fn is_public(statement: &Statement) -> bool {
    statement.effect == Effect::Allow && statement.is_for_everybody() && !statement.conditions.iter().any(narrows)
}

fn narrows(condition: &Condition) -> bool {
    match condition.key() {
        // Broader than /8 (IPv4) or /32 (IPv6) is everybody.
        "aws:sourceip" => condition.is_narrow_network(),
        // The access point's name may be a wildcard if its account is not.
        "s3:dataaccesspointarn" => condition.is_fixed_account(),
        key => NARROWING_KEYS.contains(&key) && condition.is_fixed(),
    }
}
