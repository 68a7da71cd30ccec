//! Who may do what: one function that every operation asks, and the leases under which its answers hold.
//!
//! A decision looks at who asks ([`Asker`]), at the bucket, and at the object if there is one ([`ObjectFacts`]). Transfers
//! that last longer ask again every second and end when the right is gone ([`AccessWatch`]).

mod action;
mod asker;
mod principals;
mod rules;
#[cfg(test)]
mod tests;
mod watch;

pub use action::Action;
pub(crate) use asker::Asker;
pub use principals::Principals;
pub(crate) use rules::ObjectFacts;
pub(crate) use watch::{AccessWatch, Judged};

use crate::error::{S3Code, S3Error};
use valv_metadata_api::{Bucket, ObjectKey};
use valv_types::TimestampMicros;

/// Decides whether `asker` may do `action` to `key` in `bucket` (or to the bucket itself). `object` is what is known of the
/// object. `now` is when the decision is made. Members of the bucket's project may do everything, nobody else anything.
///
/// # Errors
/// AccessDenied.
pub(crate) async fn judge(
    asker: &Asker,
    _action: Action,
    bucket: &Bucket,
    _key: Option<&ObjectKey>,
    _object: Option<&ObjectFacts>,
    _now: TimestampMicros,
) -> Result<(), S3Error> {
    if asker.is_member(bucket) { Ok(()) } else { Err(S3Code::AccessDenied.into()) }
}
