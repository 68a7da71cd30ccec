//! Lifecycle configurations. Input: the document of a PUT.

use valv_gateway::fuzzing::lifecycle;
use valv_lifecycle::{Configuration, DayLength, Standing, Version};
use valv_types::TimestampMicros;

/// Elements of the document, and numbers and dates at its edges.
pub const WORDS: &[&str] = &[
    "<Rule>",
    "</Rule>",
    "<ID>a</ID>",
    "<ID/>",
    "<Status>Enabled</Status>",
    "<Status>Disabled</Status>",
    "<Prefix>a</Prefix>",
    "<Prefix/>",
    "<Filter>",
    "</Filter>",
    "<Filter/>",
    "<And>",
    "</And>",
    "<Tag><Key>a</Key><Value>b</Value></Tag>",
    "<ObjectSizeGreaterThan>0</ObjectSizeGreaterThan>",
    "<ObjectSizeLessThan>1099511627776000</ObjectSizeLessThan>",
    "<Expiration><Days>1</Days></Expiration>",
    "<Expiration><Date>2030-01-01T00:00:00Z</Date></Expiration>",
    "<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>",
    "<NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays></NoncurrentVersionExpiration>",
    "<NewerNoncurrentVersions>1</NewerNoncurrentVersions>",
    "<AbortIncompleteMultipartUpload><DaysAfterInitiation>1</DaysAfterInitiation></AbortIncompleteMultipartUpload>",
    "<Transition/>",
    "9223372036854775807",
    "4294967296",
    "2147483648",
    "100",
    "101",
    "9999-12-31T00:00:00+23:59",
    "1970-01-01T00:00:00Z",
];

/// See the module.
pub fn run(data: &[u8]) {
    let Ok((at_rest, document)) = lifecycle(data) else { return };
    // What a client reads back, it can set again, and it means the same.
    let again = lifecycle(document.as_bytes()).expect("what was written is accepted");
    assert_eq!(again, (at_rest.clone(), document));
    let rules = Configuration::decode(&at_rest).expect("what is kept can be read");
    assert_eq!(rules.encode(), at_rest);

    for key in [rules.common_prefix(), b"a", data.get(..64).unwrap_or(b"b")] {
        for modified in [0, 1, u64::MAX].map(TimestampMicros) {
            for standing in [
                Standing::Current { is_only: true },
                Standing::Current { is_only: false },
                Standing::Noncurrent { since: modified, newer: 1 },
            ] {
                for is_delete_marker in [false, true] {
                    let version = Version { key, len_bytes: 0, tags: &[], modified, is_delete_marker, standing };
                    judge(&rules, &version);
                }
            }
        }
    }
}

fn judge(rules: &Configuration, version: &Version<'_>) {
    let day = DayLength::CALENDAR;
    let Some(scheduled) = rules.schedule(version, day) else { return };
    assert!(rules.concerns_versions() && version.key.starts_with(rules.common_prefix()));
    // Due from that moment on, and not before.
    let before = TimestampMicros(scheduled.at.0.saturating_sub(1));
    assert!(rules.due(version, scheduled.at, day).is_some());
    assert!(scheduled.at.0 == 0 || rules.due(version, before, day).is_none());
}
