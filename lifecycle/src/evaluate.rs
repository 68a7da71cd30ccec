//! What is due, when, and by which rule.
//!
//! Where several rules apply, the earliest date wins, and among equal dates the rule that stands first: S3 resolves
//! overlapping rules so (user guide, "Conflicting lifecycle actions").

use crate::day::DayLength;
use crate::rule::{Configuration, Expiration, Rule, Status};
use valv_types::TimestampMicros;

/// What of a version the rules look at.
#[derive(Debug, Clone, Copy)]
pub struct Version<'a> {
    /// The object key.
    pub key: &'a [u8],
    /// The version's length; 0 for a delete marker.
    pub len_bytes: u64,
    /// Its tags; none for a delete marker.
    pub tags: &'a [(String, String)],
    /// When it was written.
    pub modified: TimestampMicros,
    /// Whether it only says that the key was deleted.
    pub is_delete_marker: bool,
    /// Where it stands among its key's versions.
    pub standing: Standing,
}

/// Where a version stands among its key's versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// On top.
    Current {
        /// Whether the key has no other version.
        is_only: bool,
    },
    /// Under others.
    Noncurrent {
        /// When the next newer version was written.
        since: TimestampMicros,
        /// How many noncurrent versions of the key are newer.
        newer: u32,
    },
}

/// What is to happen to a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// The current version expires: it is removed where the bucket keeps one version only, and covered by a delete marker
    /// elsewhere.
    Expire,
    /// The noncurrent version is removed for good.
    RemoveNoncurrent,
    /// The delete marker, which has nothing under it, is removed.
    RemoveMarker,
}

/// What happens when, by which rule.
#[derive(Debug, Clone, Copy)]
pub struct Scheduled<'c> {
    /// What.
    pub removal: Removal,
    /// From when on.
    pub at: TimestampMicros,
    /// By which rule.
    pub rule: &'c Rule,
}

impl Configuration {
    fn enabled(&self) -> impl Iterator<Item = &Rule> {
        self.rules().iter().filter(|rule| rule.status() == Status::Enabled)
    }

    /// What will happen to a version if nothing else does: the earliest removal that any rule plans for it.
    pub fn schedule(&self, version: &Version<'_>, day: DayLength) -> Option<Scheduled<'_>> {
        let applies = |rule: &&Rule| admits_but_tags(rule, version) && rule.scope().admits_tags(version.tags);
        let planned = self.enabled().filter(applies).filter_map(|rule| {
            let (removal, at) = plan(rule, version, day)?;
            Some(Scheduled { removal, at, rule })
        });
        // Of equal dates, `min_by_key` takes the first.
        planned.min_by_key(|scheduled| scheduled.at)
    }

    /// What is due at `now`.
    pub fn due(&self, version: &Version<'_>, now: TimestampMicros, day: DayLength) -> Option<Scheduled<'_>> {
        self.schedule(version, day).filter(|scheduled| scheduled.at <= now)
    }

    /// Whether the version's tags decide anything that could be due at `now`: reading them costs something, so they are
    /// read only then. Looks at everything of `version` but its tags.
    pub fn needs_tags(&self, version: &Version<'_>, now: TimestampMicros, day: DayLength) -> bool {
        !version.is_delete_marker
            && self.enabled().any(|rule| {
                !rule.scope().tags().is_empty()
                    && admits_but_tags(rule, version)
                    && plan(rule, version, day).is_some_and(|(_, at)| at <= now)
            })
    }

    /// When an open upload is aborted, and by which rule.
    pub fn abort(&self, key: &[u8], initiated: TimestampMicros, day: DayLength) -> Option<(TimestampMicros, &Rule)> {
        let planned = self.enabled().filter(|rule| rule.scope().admits_key(key)).filter_map(|rule| {
            let days = rule.abort()?.get();
            Some((day.after(initiated, days), rule))
        });
        planned.min_by_key(|(at, _)| *at)
    }

    /// Whether any rule in force looks at versions.
    pub fn concerns_versions(&self) -> bool {
        self.enabled().any(|rule| rule.expiration().is_some() || rule.noncurrent().is_some())
    }

    /// Whether any rule in force looks at uploads.
    pub fn concerns_uploads(&self) -> bool {
        self.enabled().any(|rule| rule.abort().is_some())
    }

    /// The longest prefix of every key that a rule in force applies to: nothing else need be looked at.
    pub fn common_prefix(&self) -> &[u8] {
        let mut prefixes = self.enabled().map(|rule| rule.scope().prefix().as_bytes());
        let Some(first) = prefixes.next() else { return &[] };
        prefixes.fold(first, |common, prefix| {
            let len = common.iter().zip(prefix).take_while(|(a, b)| a == b).count();
            &common[..len]
        })
    }
}

fn admits_but_tags(rule: &Rule, version: &Version<'_>) -> bool {
    rule.scope().admits_key(version.key) && rule.scope().admits_size(version.len_bytes)
}

/// What one rule plans for a version that it applies to.
fn plan(rule: &Rule, version: &Version<'_>, day: DayLength) -> Option<(Removal, TimestampMicros)> {
    match version.standing {
        Standing::Noncurrent { since, newer } => {
            let noncurrent = rule.noncurrent()?;
            let is_kept = noncurrent.newer().is_some_and(|kept| newer < kept);
            (!is_kept).then(|| (Removal::RemoveNoncurrent, day.after(since, noncurrent.days())))
        }
        Standing::Current { is_only } if version.is_delete_marker => {
            // "Days" and "Date" clean up delete markers too, once these are old enough. S3 allows no tags and sizes
            // beside ExpiredObjectDeleteMarker; so a rule with these leaves delete markers alone here.
            if !is_only || !rule.scope().is_of_keys() {
                return None;
            }
            let at = match rule.expiration()? {
                Expiration::DeleteMarker(true) => version.modified,
                Expiration::DeleteMarker(false) => return None,
                Expiration::Days(days) => day.after(version.modified, days.get()),
                Expiration::Date(date) => date,
            };
            Some((Removal::RemoveMarker, at))
        }
        Standing::Current { .. } => {
            let at = match rule.expiration()? {
                Expiration::DeleteMarker(_) => return None,
                Expiration::Days(days) => day.after(version.modified, days.get()),
                Expiration::Date(date) => date,
            };
            Some((Removal::Expire, at))
        }
    }
}
