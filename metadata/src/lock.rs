//! Object Lock: pure rules over what stands in rows and cluster time. Every path that removes a version or changes its
//! retention asks here, inside its commit attempt.
//!
//! The rules are those of the S3 user guide, "How S3 Object Lock works" and "Managing Object Lock".

use valv_metadata_api::{
    DefaultRetention, LockReason, LockRequest, MetadataError, ObjectLock, Retention, RetentionMode, RetentionPeriod,
    Versioning,
};
use valv_types::TimestampMicros;

const SECS_PER_DAY: u64 = 24 * 60 * 60;

/// Retention and hold of a version that is being made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NewLock {
    pub(crate) retention: Option<Retention>,
    pub(crate) legal_hold: bool,
}

fn period_secs(period: RetentionPeriod) -> u64 {
    match period {
        RetentionPeriod::Days(days) => u64::from(days) * SECS_PER_DAY,
        RetentionPeriod::Years(years) => u64::from(years) * 365 * SECS_PER_DAY,
    }
}

fn by_default(default: DefaultRetention, created: TimestampMicros) -> Retention {
    Retention { mode: default.mode, until: created.plus_secs(period_secs(default.period)) }
}

/// What a new version gets: what the request asks for, or the bucket's default counted from `created` (the later of the
/// machine's clock and cluster time: a clock that lags shortens nothing).
pub(crate) fn for_new_version(
    bucket: Option<ObjectLock>,
    request: LockRequest,
    created: TimestampMicros,
) -> Result<NewLock, MetadataError> {
    match bucket {
        None if request.retention.is_some() || request.legal_hold => Err(MetadataError::InvalidBucketState),
        None => Ok(NewLock { retention: None, legal_hold: false }),
        Some(lock) => {
            let retention = request.retention.or(lock.default.map(|default| by_default(default, created)));
            Ok(NewLock { retention, legal_hold: request.legal_hold })
        }
    }
}

/// Whether a version may be removed for good. `now` is cluster time.
pub(crate) fn check_removal(
    retention: Option<Retention>,
    legal_hold: bool,
    bypass_governance: bool,
    now: TimestampMicros,
) -> Result<(), MetadataError> {
    if legal_hold {
        return Err(MetadataError::Locked { reason: LockReason::LegalHold });
    }
    match retention {
        Some(Retention { until, .. }) if until <= now => Ok(()),
        Some(Retention { mode: RetentionMode::Compliance, .. }) => {
            Err(MetadataError::Locked { reason: LockReason::Compliance })
        }
        Some(Retention { mode: RetentionMode::Governance, .. }) if !bypass_governance => {
            Err(MetadataError::Locked { reason: LockReason::Governance })
        }
        Some(_) | None => Ok(()),
    }
}

/// Whether retention may change from `old` to `new`. Compliance in force can only be extended, by anyone; governance in
/// force can be extended by anyone and changed otherwise with the bypass. `now` is cluster time.
pub(crate) fn check_retention_change(
    old: Option<Retention>,
    new: Option<Retention>,
    bypass_governance: bool,
    now: TimestampMicros,
) -> Result<(), MetadataError> {
    let Some(old) = old.filter(|old| old.until > now) else { return Ok(()) };
    let extended = new.is_some_and(|new| new.mode == old.mode && new.until >= old.until);
    match old.mode {
        _ if extended => Ok(()),
        RetentionMode::Compliance => Err(MetadataError::Locked { reason: LockReason::Compliance }),
        RetentionMode::Governance if bypass_governance => Ok(()),
        RetentionMode::Governance => Err(MetadataError::Locked { reason: LockReason::Governance }),
    }
}

/// Whether a bucket may change its versioning. Object Lock needs all versions, so it can't be suspended there; and
/// nothing goes back to unversioned.
pub(crate) fn check_versioning_change(
    old: Versioning,
    new: Versioning,
    lock: Option<ObjectLock>,
) -> Result<(), MetadataError> {
    match new {
        Versioning::Enabled => Ok(()),
        Versioning::Suspended if lock.is_none() => Ok(()),
        Versioning::Unversioned if old == Versioning::Unversioned => Ok(()),
        Versioning::Suspended | Versioning::Unversioned => Err(MetadataError::InvalidBucketState),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use RetentionMode::{Compliance, Governance};

    const NOW: TimestampMicros = TimestampMicros::from_secs(1_000);

    fn until(mode: RetentionMode, secs: u64) -> Option<Retention> {
        Some(Retention { mode, until: TimestampMicros::from_secs(secs) })
    }

    fn locked(reason: LockReason) -> Result<(), MetadataError> {
        Err(MetadataError::Locked { reason })
    }

    #[test]
    fn removal_is_judged_by_hold_then_mode_then_date() {
        let cases = [
            (None, false, false, Ok(())),
            (None, true, true, locked(LockReason::LegalHold)),
            (until(Governance, 1_001), false, false, locked(LockReason::Governance)),
            (until(Governance, 1_001), false, true, Ok(())),
            (until(Compliance, 1_001), false, true, locked(LockReason::Compliance)),
            (until(Compliance, 1_000), false, false, Ok(())),
            (until(Compliance, 1_000), true, true, locked(LockReason::LegalHold)),
        ];
        for (retention, hold, bypass, expected) in cases {
            assert_eq!(check_removal(retention, hold, bypass, NOW), expected, "{retention:?} {hold} {bypass}");
        }
    }

    #[test]
    fn compliance_is_only_extended_and_governance_shortened_only_with_the_bypass() {
        let cases = [
            (None, until(Compliance, 2_000), false, Ok(())),
            (until(Compliance, 2_000), until(Compliance, 3_000), false, Ok(())),
            (until(Compliance, 2_000), until(Compliance, 1_999), true, locked(LockReason::Compliance)),
            (until(Compliance, 2_000), until(Governance, 3_000), true, locked(LockReason::Compliance)),
            (until(Compliance, 2_000), None, true, locked(LockReason::Compliance)),
            (until(Governance, 2_000), until(Governance, 3_000), false, Ok(())),
            (until(Governance, 2_000), until(Governance, 1_500), false, locked(LockReason::Governance)),
            (until(Governance, 2_000), until(Governance, 1_500), true, Ok(())),
            (until(Governance, 2_000), until(Compliance, 3_000), false, locked(LockReason::Governance)),
            (until(Governance, 2_000), until(Compliance, 3_000), true, Ok(())),
            (until(Governance, 2_000), None, true, Ok(())),
            (until(Compliance, 999), None, false, Ok(())),
        ];
        for (old, new, bypass, expected) in cases {
            assert_eq!(check_retention_change(old, new, bypass, NOW), expected, "{old:?} -> {new:?}, bypass {bypass}");
        }
    }

    #[test]
    fn a_new_version_takes_the_default_unless_it_names_its_own() {
        let default = DefaultRetention { mode: Governance, period: RetentionPeriod::Days(1) };
        let lock = Some(ObjectLock { default: Some(default) });
        let made = for_new_version(lock, LockRequest::default(), NOW).unwrap();
        assert_eq!(made.retention, until(Governance, 1_000 + SECS_PER_DAY));
        let own = LockRequest { retention: until(Compliance, 5_000), legal_hold: true };
        let made = for_new_version(lock, own, NOW).unwrap();
        assert_eq!(made, NewLock { retention: until(Compliance, 5_000), legal_hold: true });
        assert_eq!(for_new_version(None, own, NOW), Err(MetadataError::InvalidBucketState));
    }

    #[test]
    fn versioning_is_never_turned_off_and_not_suspended_under_lock() {
        let lock = Some(ObjectLock { default: None });
        assert!(check_versioning_change(Versioning::Enabled, Versioning::Suspended, None).is_ok());
        assert!(check_versioning_change(Versioning::Enabled, Versioning::Suspended, lock).is_err());
        assert!(check_versioning_change(Versioning::Suspended, Versioning::Unversioned, None).is_err());
    }
}
