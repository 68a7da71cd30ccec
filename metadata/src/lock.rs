//! Object Lock: pure rules over what stands in rows and cluster time. Every path that removes a version or changes its
//! retention asks here, inside its commit attempt.
//!
//! The rules are those of the S3 user guide, "How S3 Object Lock works" and "Managing Object Lock". Above them stand a
//! project's retention class, which every new version of every bucket gets, and legal holds on projects, buckets and
//! prefixes: both lie as a copy in the bucket's row, which every commit that asks here expects.

use crate::records::{BucketRecord, VersionRecord};
use crate::retention::RetentionRule;
use valv_metadata_api::{
    DefaultRetention, LockReason, LockRequest, MetadataError, ObjectLock, Retention, RetentionMode, RetentionPeriod,
    Versioning,
};
use valv_types::TimestampMicros;

const SECS_PER_DAY: u64 = 24 * 60 * 60;
/// A date that a request names may fall short of the project's minimum by this much, for clients whose clock lags or who
/// count in dates; what is kept is the minimum all the same.
const NAMED_SHORT_SECS_MAX: u64 = SECS_PER_DAY;

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

fn compliance(created: TimestampMicros, days: u32) -> Retention {
    Retention { mode: RetentionMode::Compliance, until: created.plus_secs(u64::from(days) * SECS_PER_DAY) }
}

/// Whether a request may ask for this retention at `now`. In a project with a minimum, less than it or governance is
/// refused where it is named: whoever names a date relies on it. (What nobody names is raised in silence.)
pub(crate) fn check_request(
    rule: RetentionRule,
    request: LockRequest,
    now: TimestampMicros,
) -> Result<(), MetadataError> {
    let Some(asked) = request.retention.filter(|_| rule.minimum_days > 0) else { return Ok(()) };
    let least = compliance(now, rule.minimum_days);
    let is_long = asked.until.plus_secs(NAMED_SHORT_SECS_MAX) >= least.until;
    if asked.mode == RetentionMode::Compliance && is_long {
        Ok(())
    } else {
        Err(MetadataError::RetentionBelowMinimum { minimum_days: rule.minimum_days })
    }
}

/// Whether a bucket may have this default: the same for what a bucket names.
pub(crate) fn check_bucket_default(rule: RetentionRule, lock: ObjectLock) -> Result<(), MetadataError> {
    let Some(default) = lock.default.filter(|_| rule.minimum_days > 0) else { return Ok(()) };
    let is_long = period_secs(default.period) >= u64::from(rule.minimum_days) * SECS_PER_DAY;
    if default.mode == RetentionMode::Compliance && is_long {
        Ok(())
    } else {
        Err(MetadataError::RetentionBelowMinimum { minimum_days: rule.minimum_days })
    }
}

/// What a new version gets: what the request asks for, or the bucket's default counted from `created` (the later of the
/// machine's clock and cluster time: a clock that lags shortens nothing), or the project's default; and in a project with
/// a minimum never less than that, in compliance mode, whatever was said and in whatever bucket.
pub(crate) fn for_new_version(
    rule: RetentionRule,
    bucket: Option<ObjectLock>,
    request: LockRequest,
    created: TimestampMicros,
) -> Result<NewLock, MetadataError> {
    if bucket.is_none() && (request.retention.is_some() || request.legal_hold) {
        return Err(MetadataError::InvalidBucketState);
    }
    let by_bucket = || bucket.and_then(|lock| lock.default).map(|default| by_default(default, created));
    let retention = match request.retention.or_else(by_bucket) {
        None if rule.is_set() => Some(compliance(created, rule.default_days.max(rule.minimum_days))),
        Some(said) if rule.minimum_days > 0 => {
            let least = compliance(created, rule.minimum_days);
            Some(Retention { until: said.until.max(least.until), ..least })
        }
        said => said,
    };
    Ok(NewLock { retention, legal_hold: request.legal_hold })
}

/// A version that somebody wants to remove for good.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leaving<'a> {
    pub(crate) bucket: &'a BucketRecord,
    pub(crate) key: &'a [u8],
    pub(crate) is_delete_marker: bool,
    pub(crate) retention: Option<Retention>,
    pub(crate) legal_hold: bool,
}

impl<'a> Leaving<'a> {
    pub(crate) fn new(bucket: &'a BucketRecord, key: &'a [u8], version: &VersionRecord) -> Self {
        Self {
            bucket,
            key,
            is_delete_marker: version.is_delete_marker(),
            retention: version.retention,
            legal_hold: version.legal_hold(),
        }
    }

    /// Whether it may go. `now` is cluster time. The commit that removes it must expect the bucket's row.
    pub(crate) fn check(&self, bypass_governance: bool, now: TimestampMicros) -> Result<(), MetadataError> {
        // A delete marker holds no data.
        if !self.is_delete_marker && self.bucket.is_held(self.key) {
            return Err(MetadataError::Locked { reason: LockReason::ScopeHold });
        }
        check_removal(self.retention, self.legal_hold, bypass_governance, now)
    }

    /// The same for a lifecycle rule: in a project with a minimum, data leave by a disposal, unless it allows otherwise.
    pub(crate) fn check_by_rule(&self, now: TimestampMicros) -> Result<(), MetadataError> {
        self.check(false, now)?;
        let rule = self.bucket.rule();
        if !self.is_delete_marker && rule.minimum_days > 0 && !rule.lifecycle_disposal {
            return Err(MetadataError::Locked { reason: LockReason::DisposalOnly });
        }
        Ok(())
    }
}

/// Whether a version's own retention and hold let it go. `now` is cluster time.
fn check_removal(
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

/// Whether a bucket may change its versioning. Object Lock needs all versions, and so does a project's retention, so it
/// can't be suspended there; and nothing goes back to unversioned.
pub(crate) fn check_versioning_change(
    old: Versioning,
    new: Versioning,
    lock: Option<ObjectLock>,
    rule: RetentionRule,
) -> Result<(), MetadataError> {
    match new {
        Versioning::Enabled => Ok(()),
        Versioning::Suspended if lock.is_none() && !rule.is_set() => Ok(()),
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
        let made = for_new_version(RetentionRule::default(), lock, LockRequest::default(), NOW).unwrap();
        assert_eq!(made.retention, until(Governance, 1_000 + SECS_PER_DAY));
        let own = LockRequest { retention: until(Compliance, 5_000), legal_hold: true };
        let made = for_new_version(RetentionRule::default(), lock, own, NOW).unwrap();
        assert_eq!(made, NewLock { retention: until(Compliance, 5_000), legal_hold: true });
        assert_eq!(for_new_version(RetentionRule::default(), None, own, NOW), Err(MetadataError::InvalidBucketState));
    }

    #[test]
    fn a_project_raises_what_nobody_named_and_refuses_less_where_it_is_named() {
        const DAY: u64 = SECS_PER_DAY;
        let rule = |default_days, minimum_days| RetentionRule { default_days, minimum_days, lifecycle_disposal: false };
        let default = |mode, days| {
            Some(ObjectLock { default: Some(DefaultRetention { mode, period: RetentionPeriod::Days(days) }) })
        };
        let (bare, lock) = (None, Some(ObjectLock { default: None }));
        // Rule, bucket, what the request names in days, and the days that it gets in compliance mode.
        let cases = [
            (rule(0, 10), bare, None, 10),
            (rule(30, 10), bare, None, 30),
            (rule(30, 0), bare, None, 30),
            (rule(30, 10), lock, None, 30),
            (rule(30, 10), default(Compliance, 20), None, 20),
            (rule(30, 10), default(Compliance, 5), None, 10),
            (rule(30, 10), default(Governance, 20), None, 20),
            (rule(30, 10), lock, Some((Compliance, 15)), 15),
            // A day short is a client's clock.
            (rule(30, 10), lock, Some((Compliance, 9)), 10),
        ];
        for (rule, bucket, named, days) in cases {
            let retention = named.and_then(|(mode, days)| until(mode, 1_000 + days * DAY));
            let request = LockRequest { retention, legal_hold: false };
            assert_eq!(check_request(rule, request, NOW), Ok(()), "{named:?}");
            let made = for_new_version(rule, bucket, request, NOW).unwrap();
            assert_eq!(made.retention, until(Compliance, 1_000 + days * DAY), "{rule:?} {bucket:?} {named:?}");
        }
        let refused = Err(MetadataError::RetentionBelowMinimum { minimum_days: 10 });
        for (mode, days) in [(Compliance, 8), (Governance, 20), (Governance, 1)] {
            let request = LockRequest { retention: until(mode, 1_000 + days * DAY), legal_hold: false };
            assert_eq!(check_request(rule(30, 10), request, NOW), refused, "{mode:?} {days}");
            assert_eq!(check_request(rule(30, 0), request, NOW), Ok(()), "no minimum");
        }
        assert_eq!(check_bucket_default(rule(30, 10), default(Compliance, 9).unwrap()), refused);
        assert_eq!(check_bucket_default(rule(30, 10), default(Governance, 99).unwrap()), refused);
        assert_eq!(check_bucket_default(rule(30, 10), default(Compliance, 10).unwrap()), Ok(()));
    }

    #[test]
    fn versioning_is_never_turned_off_and_not_suspended_under_lock() {
        let lock = Some(ObjectLock { default: None });
        let (none, rule) = (RetentionRule::default(), RetentionRule { default_days: 1, ..RetentionRule::default() });
        assert!(check_versioning_change(Versioning::Enabled, Versioning::Suspended, None, none).is_ok());
        assert!(check_versioning_change(Versioning::Enabled, Versioning::Suspended, lock, none).is_err());
        assert!(check_versioning_change(Versioning::Enabled, Versioning::Suspended, None, rule).is_err());
        assert!(check_versioning_change(Versioning::Suspended, Versioning::Unversioned, None, none).is_err());
    }
}
