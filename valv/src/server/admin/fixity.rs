//! Fixity reports: goes through what a project holds and says what is known of it.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use valv_ledger::statement::rfc3339;
use valv_metadata::HeldVersion;
use valv_repair::BlobFixity;
use valv_shard_api::{DiskState, DiskStatus};
use valv_types::TimestampMicros;

/// Versions and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Count {
    objects: u64,
    bytes: u64,
}

impl Count {
    fn add(&mut self, len_bytes: u64) {
        self.objects += 1;
        self.bytes = self.bytes.saturating_add(len_bytes);
    }

    fn json(self) -> Value {
        json!({"objects": self.objects, "bytes": self.bytes})
    }
}

/// What is known so far. Each version is counted in one of the groups from `verified` on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Tally {
    all: Count,
    /// All shards are there, and each was verified since the version was made.
    verified: Count,
    /// All shards are there; of one at least the scrub has not come by since the version was made.
    unverified: Count,
    /// Bodies that lie in the metadata store only, read a moment ago.
    in_metadata: Count,
    /// Shards are missing or damaged; what is left gives the bytes back.
    damaged: Count,
    /// Shards lie on disks that are away.
    unreachable: Count,
    /// Fewer shards are left than are needed, on disks that all answered.
    lost: Count,
    shards_expected: u64,
    shards_present: u64,
    shards_missing: u64,
    shards_quarantined: u64,
    shards_unreachable: u64,
    /// Verified versions by the second since which they are: as many as disks have passes, so few.
    since_secs: BTreeMap<u64, u64>,
}

impl Tally {
    /// Versions looked at so far, and their bytes.
    pub(super) fn progress(&self) -> (u64, u64) {
        (self.all.objects, self.all.bytes)
    }

    /// Adds a version. `blobs` is what is known of each of its blobs.
    pub(super) fn add(&mut self, version: &HeldVersion, blobs: &[BlobFixity]) {
        self.all.add(version.len_bytes);
        let mut sum = BlobFixity { verified_since_secs: Some(u64::MAX), ..BlobFixity::default() };
        for blob in blobs {
            sum.shards_expected += blob.shards_expected;
            sum.shards_present += blob.shards_present;
            sum.shards_missing += blob.shards_missing;
            sum.shards_quarantined += blob.shards_quarantined;
            sum.shards_unreachable += blob.shards_unreachable;
            sum.chunks_lost += blob.chunks_lost;
            sum.verified_since_secs = sum.verified_since_secs.zip(blob.verified_since_secs).map(|(a, b)| a.min(b));
        }
        self.shards_expected += sum.shards_expected;
        self.shards_present += sum.shards_present;
        self.shards_missing += sum.shards_missing;
        self.shards_quarantined += sum.shards_quarantined;
        self.shards_unreachable += sum.shards_unreachable;
        // A pass that began before the version was made need not have met it.
        let verified = sum.verified_since_secs.filter(|since| *since > version.made.as_secs());
        let group = if sum.chunks_lost > 0 || version.inline_missing > 0 {
            &mut self.lost
        } else if sum.shards_missing + sum.shards_quarantined > 0 {
            &mut self.damaged
        } else if sum.shards_unreachable > 0 {
            &mut self.unreachable
        } else if blobs.is_empty() {
            &mut self.in_metadata
        } else if let Some(since) = verified {
            *self.since_secs.entry(since).or_default() += 1;
            &mut self.verified
        } else {
            &mut self.unverified
        };
        group.add(version.len_bytes);
    }

    /// The second since which at least half of the verified versions are verified: the later ones.
    fn median_secs(&self) -> Option<u64> {
        let mut before = 0;
        let found = self.since_secs.iter().find(|(_, versions)| {
            before += **versions;
            2 * before >= self.verified.objects
        });
        found.map(|(since, _)| *since)
    }

    /// What the report says.
    pub(super) fn facts(&self, disks: &[DiskStatus], repairs: Value) -> Map<String, Value> {
        let time = |secs: u64| rfc3339(TimestampMicros::from_secs(secs));
        let disks: Vec<Value> = disks
            .iter()
            .map(|disk| {
                json!({
                    "disk": disk.disk.to_string(),
                    "is_here": disk.state != DiskState::Absent,
                    "scrub_pass_began": disk.scrub.map(|scrub| time(scrub.started_secs)),
                    "scrub_pass_ended": disk.scrub.is_some_and(|scrub| scrub.next.is_none()),
                    "scrub_pass_before_began":
                        disk.scrub.and_then(|scrub| scrub.previous_started_secs).map(time),
                })
            })
            .collect();
        let facts = json!({
            "scope": "every object version of the project but those in the trash",
            "all": self.all.json(),
            "verified": self.verified.json(),
            "not_verified_yet": self.unverified.json(),
            "in_metadata": self.in_metadata.json(),
            "damaged": self.damaged.json(),
            "on_disks_that_are_away": self.unreachable.json(),
            "lost": self.lost.json(),
            "last_verified": {
                "oldest": self.since_secs.keys().next().copied().map(time),
                "median": self.median_secs().map(time),
            },
            "shards": {
                "expected": self.shards_expected,
                "present": self.shards_present,
                "missing": self.shards_missing,
                "quarantined": self.shards_quarantined,
                "on_disks_that_are_away": self.shards_unreachable,
            },
            "repairs": repairs,
            "disks": disks,
        });
        match facts {
            Value::Object(members) => members,
            _ => Map::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(len_bytes: u64, made_secs: u64) -> HeldVersion {
        HeldVersion {
            len_bytes,
            made: TimestampMicros::from_secs(made_secs),
            inline: 0,
            inline_missing: 0,
            blobs: Vec::new(),
        }
    }

    fn whole(since: Option<u64>) -> BlobFixity {
        BlobFixity { shards_expected: 6, shards_present: 6, verified_since_secs: since, ..BlobFixity::default() }
    }

    #[test]
    fn each_version_is_in_one_group_by_its_worst_blob() {
        let mut tally = Tally::default();
        tally.add(&version(1, 10), &[whole(Some(20)), whole(Some(15))]);
        tally.add(&version(2, 10), &[whole(Some(30))]);
        tally.add(&version(4, 10), &[whole(Some(20)), whole(None)]);
        tally.add(&version(8, 20), &[whole(Some(20))]);
        tally.add(&version(16, 0), &[]);
        let damaged = BlobFixity { shards_present: 5, shards_quarantined: 1, ..whole(Some(20)) };
        tally.add(&version(32, 0), &[damaged, whole(Some(20))]);
        let away = BlobFixity { shards_present: 5, shards_unreachable: 1, ..whole(Some(20)) };
        tally.add(&version(64, 0), &[away]);
        let lost = BlobFixity { shards_present: 3, shards_missing: 3, chunks_lost: 1, ..whole(Some(20)) };
        tally.add(&version(128, 0), &[lost, away]);
        tally.add(&HeldVersion { inline: 1, inline_missing: 1, ..version(256, 0) }, &[]);
        assert_eq!(tally.progress(), (9, 511));
        assert_eq!(tally.verified, Count { objects: 2, bytes: 3 });
        assert_eq!(tally.unverified, Count { objects: 2, bytes: 12 });
        assert_eq!(tally.in_metadata.bytes, 16);
        assert_eq!(tally.damaged.bytes, 32);
        assert_eq!(tally.unreachable.bytes, 64);
        assert_eq!(tally.lost, Count { objects: 2, bytes: 384 });
        let facts = tally.facts(&[], Value::Null);
        assert_eq!(facts["last_verified"], json!({"oldest": "1970-01-01T00:00:15Z", "median": "1970-01-01T00:00:15Z"}));
        assert_eq!(facts["shards"]["quarantined"], 1);
    }
}
