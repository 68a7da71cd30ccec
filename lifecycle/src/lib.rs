//! Lifecycle rules: what a bucket's configuration says, and what is due by it.
//!
//! This crate exists so that the gateway, which accepts rules and tells clients when objects expire, and the metadata
//! service, which carries the rules out, read them in one way. It is pure: it must never know a clock, rows, XML or S3's
//! error codes. Rules are those of the S3 user guide, "Managing the lifecycle of objects".

mod day;
mod error;
mod evaluate;
mod rule;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use day::DayLength;
pub use error::{FormatError, RuleError};
pub use evaluate::{Removal, Scheduled, Standing, Version};
pub use rule::{
    Configuration, Days, Expiration, Filter, FilterForm, ID_CHARS_MAX, MinimumSize, NoncurrentExpiration, RULES_MAX,
    Rule, Scope, SizeBounds, Status,
};
