//! Who may do what, as S3 documents it: bucket policies, access control lists, ownership and public access.
//!
//! This crate exists so that every decision about access is a function of values, which a test can ask a million times.
//! It must never know about I/O, clocks, metadata, HTTP or XML: whoever asks brings the facts, and gets an answer.
//!
//! - [`policy`]: the grammar of bucket policies, and what one policy says about one request.
//! - [`acl`]: grants, canned ACLs, and what a list grants.
//! - [`settings`]: PublicAccessBlock and object ownership.
//! - [`opening`]: who gets in that is no member, and for what.
//! - [`decide`]: all of it together, for one request.

mod action;
mod condition;
mod date;
mod json;
mod pattern;
mod principal;
mod public;

pub mod acl;
pub mod decide;
pub mod opening;
pub mod policy;
pub mod settings;

#[cfg(test)]
mod tests;

pub use acl::{Acl, AclError, CannedAcl, Grant, Grantee, Permission, Target};
pub use decide::{Decision, Facts, ObjectFacts, Requester, could_enter, decide, verdict};
pub use opening::{Cidr, Listing, OpenedAction, OpenedActions, Opening, OpeningRef, Opens, Recipient, Use, Zones};
pub use policy::{ConditionKeys, Policy, PolicyError, Request, Verdict};
pub use principal::{Principal, User};
pub use settings::{ObjectOwnership, PublicAccessBlock};
