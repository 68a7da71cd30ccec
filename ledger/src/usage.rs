//! Usage: what a project held, asked and was sent in a month, as it follows from its ledger.
//!
//! Bytes held at a moment are the lengths of all object versions that were made before and not purged yet, so versions in
//! the trash are among them; parts of uploads that were not completed are not. Held bytes are summed exactly, as bytes
//! times microseconds, and only shown as byte-hours. A sum over a month needs the events of that month and the number of
//! bytes held when it began: that is why months can be kept as rows and added to in any order.

use crate::access::Accesses;
use crate::leaf::Leaf;
use minicbor::{Decode, Encode};
use std::fmt;
use std::str::FromStr;
use valv_types::TimestampMicros;

/// Microseconds in an hour.
const HOUR_MICROS: u128 = 3_600_000_000;

/// A calendar month in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month(u32);

impl Month {
    /// The month that holds `time`.
    pub fn of(time: TimestampMicros) -> Self {
        // Howard Hinnant's civil_from_days, over years that begin in March.
        let days = time.as_secs() / 86_400 + 719_468;
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day_of_year = day - (365 * year + year / 4 - year / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let months = (era * 400 + year) * 12 + march_month + 2;
        Self(u32::try_from(months).unwrap_or(u32::MAX))
    }

    /// Months since the year 0: the order of months.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The month with this number.
    pub const fn from_number(number: u32) -> Self {
        Self(number)
    }

    /// When it begins.
    pub fn start(self) -> TimestampMicros {
        let (year, month) = (u64::from(self.0 / 12), u64::from(self.0 % 12));
        // days_from_civil, over years that begin in March.
        let year = if month < 2 { year.saturating_sub(1) } else { year };
        let march_month = (month + 10) % 12;
        let day_of_year = (153 * march_month + 2) / 5;
        let (era, year_of_era) = (year / 400, year % 400);
        let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        TimestampMicros::from_secs(days.saturating_sub(719_468).saturating_mul(86_400))
    }

    /// When the next begins.
    pub fn end(self) -> TimestampMicros {
        Self(self.0.saturating_add(1)).start()
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.0 / 12, self.0 % 12 + 1)
    }
}

/// A word that names no month.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no month: write it as 2026-11")]
pub struct MonthError(pub String);

impl FromStr for Month {
    type Err = MonthError;

    fn from_str(text: &str) -> Result<Self, MonthError> {
        let wrong = || MonthError(text.to_owned());
        let (year, month) = text.split_once('-').filter(|(y, m)| y.len() == 4 && m.len() == 2).ok_or_else(wrong)?;
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(year) || !is_number(month) {
            return Err(wrong());
        }
        let (year, month): (u32, u32) = (year.parse().map_err(|_| wrong())?, month.parse().map_err(|_| wrong())?);
        if year >= 1970 && (1..=12).contains(&month) { Ok(Self(year * 12 + month - 1)) } else { Err(wrong()) }
    }
}

/// What happened in a month. Sums of these sums are those of all their events together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct MonthSums {
    /// Events.
    #[n(0)]
    pub events: u64,
    /// Lengths of versions made.
    #[n(1)]
    pub made_bytes: WideSum,
    /// Lengths of versions purged.
    #[n(2)]
    pub purged_bytes: WideSum,
    /// Each version made: its length times the microseconds from the start of the month to then.
    #[n(3)]
    pub made_moment: WideSum,
    /// The same of versions purged.
    #[n(4)]
    pub purged_moment: WideSum,
    /// Requests that changed something: those with a ledger record of their own.
    #[n(5)]
    pub change_requests: u64,
    /// Bytes that came in: of objects and parts.
    #[n(6)]
    pub ingress_bytes: WideSum,
    /// Requests that read something.
    #[n(7)]
    pub read_requests: u64,
    /// Bytes that readers asked for.
    #[n(8)]
    pub asked_bytes: WideSum,
    /// Repairs of this project's data.
    #[n(9)]
    pub repairs: u64,
    /// Plaintext bytes of the blobs that were repaired.
    #[n(10)]
    pub repaired_bytes: WideSum,
    /// Object versions made.
    #[n(11)]
    pub made_objects: u64,
    /// Object versions purged.
    #[n(12)]
    pub purged_objects: u64,
    /// Of the bytes asked for, in this month or before, those that were not sent: transfers that ended early.
    #[n(13)]
    pub unsent_bytes: WideSum,
}

/// A sum that may pass 64 bits, as CBOR has no integer for it: high and low half.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct WideSum {
    #[n(0)]
    high: u64,
    #[n(1)]
    low: u64,
}

impl WideSum {
    /// The number.
    pub const fn get(self) -> u128 {
        (self.high as u128) << 64 | self.low as u128
    }

    fn add(&mut self, more: u128) {
        let sum = self.get().saturating_add(more);
        *self = Self { high: (sum >> 64) as u64, low: sum as u64 };
    }
}

/// Ingestion: a version was made by an upload.
const KIND_VERSION_CREATED: u32 = 20;
/// Replication: a version was made by a copy.
const KIND_VERSION_COPIED: u32 = 21;
/// A version left the trash.
const KIND_VERSION_PURGED: u32 = 25;
/// A part came in.
const KIND_PART: u32 = 31;
/// A version was made of parts.
const KIND_UPLOAD_COMPLETED: u32 = 32;
/// Shards of the project were rebuilt.
pub const KIND_REPAIR: u32 = 110;

/// Kinds of a client's S3 requests that change something: those of buckets, objects and uploads that somebody asked for.
/// What the trash, lifecycle rules and repair do is nobody's request.
const fn is_change_request(kind: u32) -> bool {
    matches!(kind, 10..=12 | 20..=24 | 26 | 30..=33)
}

impl MonthSums {
    /// Adds an event of this month, `start` being when the month began.
    pub fn add(&mut self, start: TimestampMicros, leaf: &Leaf) {
        let bytes = u128::from(leaf.bytes);
        let moment = bytes * u128::from(leaf.time.0.saturating_sub(start.0));
        self.events += 1;
        self.change_requests += u64::from(is_change_request(leaf.kind));
        match leaf.kind {
            KIND_VERSION_CREATED | KIND_VERSION_COPIED | KIND_UPLOAD_COMPLETED => {
                self.made_objects += 1;
                self.made_bytes.add(bytes);
                self.made_moment.add(moment);
                if leaf.kind == KIND_VERSION_CREATED {
                    self.ingress_bytes.add(bytes);
                }
            }
            KIND_VERSION_PURGED => {
                self.purged_objects += 1;
                self.purged_bytes.add(bytes);
                self.purged_moment.add(moment);
            }
            KIND_PART => self.ingress_bytes.add(bytes),
            KIND_REPAIR => {
                self.repairs += 1;
                self.repaired_bytes.add(bytes);
            }
            _ => {}
        }
    }

    /// Adds the sums of other events of the same month.
    pub fn merge(&mut self, other: &Self) {
        self.events += other.events;
        self.made_bytes.add(other.made_bytes.get());
        self.purged_bytes.add(other.purged_bytes.get());
        self.made_moment.add(other.made_moment.get());
        self.purged_moment.add(other.purged_moment.get());
        self.change_requests += other.change_requests;
        self.ingress_bytes.add(other.ingress_bytes.get());
        self.read_requests = self.read_requests.saturating_add(other.read_requests);
        self.asked_bytes.add(other.asked_bytes.get());
        self.unsent_bytes.add(other.unsent_bytes.get());
        self.repairs += other.repairs;
        self.repaired_bytes.add(other.repaired_bytes.get());
        self.made_objects += other.made_objects;
        self.purged_objects += other.purged_objects;
    }

    /// Adds the accesses of a leaf of this month. An access that begins counts with all that it asks for, and its
    /// completion takes away what was not sent: without one, all of it counts.
    pub fn add_accesses(&mut self, accesses: &Accesses) {
        for access in &accesses.accesses {
            self.read_requests = self.read_requests.saturating_add(access.count);
            self.asked_bytes.add(u128::from(access.bytes));
        }
        for completion in &accesses.completions {
            self.unsent_bytes.add(u128::from(completion.of_bytes.saturating_sub(completion.sent_bytes)));
        }
    }

    /// Bytes that were sent. Below 0 in a month in which more of earlier months' transfers ended early than was sent.
    pub fn egress_bytes(&self) -> i128 {
        let signed = |sum: WideSum| i128::try_from(sum.get()).unwrap_or(i128::MAX);
        signed(self.asked_bytes) - signed(self.unsent_bytes)
    }
}

/// Bytes and versions held when a month began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    /// Bytes made less bytes purged.
    pub bytes: u128,
    /// Versions made less versions purged.
    pub objects: u64,
}

impl Held {
    /// What is held after a month.
    #[must_use]
    pub fn after(self, sums: &MonthSums) -> Self {
        Self {
            bytes: (self.bytes + sums.made_bytes.get()).saturating_sub(sums.purged_bytes.get()),
            objects: (self.objects + sums.made_objects).saturating_sub(sums.purged_objects),
        }
    }
}

/// A project's usage in a month, or in that part of it that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// The month.
    pub month: Month,
    /// Until when bytes held are summed: the month's end, or when it was asked.
    pub until: TimestampMicros,
    /// Held when the month began.
    pub held_at_start: Held,
    /// Held at `until`.
    pub held_at_end: Held,
    /// Bytes held, times microseconds.
    pub byte_micros: u128,
    /// What happened.
    pub sums: MonthSums,
}

impl Usage {
    /// Usage of a month from what was held when it began and from what happened in it before `now`. An event of the month
    /// that is later than `now` (clocks differ by milliseconds) counts as held for no time.
    pub fn new(month: Month, held: Held, sums: MonthSums, now: TimestampMicros) -> Self {
        let (start, end) = (month.start(), month.end());
        let until = now.clamp(start, end);
        let span = u128::from(until.0 - start.0);
        // The sum over versions of length times (until - made) less length times (until - purged), term by term.
        let held_all_along = held.bytes * span;
        let made = (sums.made_bytes.get() * span).saturating_sub(sums.made_moment.get());
        let purged = (sums.purged_bytes.get() * span).saturating_sub(sums.purged_moment.get());
        let byte_micros = (held_all_along + made).saturating_sub(purged);
        Self { month, until, held_at_start: held, held_at_end: held.after(&sums), byte_micros, sums }
    }

    /// Byte-hours, rounded down.
    pub const fn byte_hours(&self) -> u128 {
        self.byte_micros / HOUR_MICROS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leaf::LEAF_FORMAT;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use valv_types::{CommitId, ProjectId};

    #[test]
    fn months_begin_and_end_where_the_calendar_says() {
        for (text, start_secs) in [
            ("1970-01", 0),
            ("2000-02", 949_363_200),
            ("2000-03", 951_868_800),
            ("2024-02", 1_706_745_600),
            ("2024-03", 1_709_251_200),
            ("2026-12", 1_796_083_200),
            ("2100-03", 4_107_542_400),
        ] {
            let month: Month = text.parse().expect("month");
            assert_eq!(month.start().as_secs(), start_secs, "{text}");
            assert_eq!(month.to_string(), text);
            assert_eq!(Month::of(month.start()), month);
            assert_eq!(Month::of(TimestampMicros(month.end().0 - 1)), month, "{text}");
            assert_eq!(Month::from_number(month.number()), month);
        }
        for text in ["", "2026", "2026-13", "2026-00", "26-11", "2026-1", "2026-11-01", "+026-11", "1969-12"] {
            assert!(text.parse::<Month>().is_err(), "{text}");
        }
    }

    fn leaf(kind: u32, time: u64, bytes: u64) -> Leaf {
        Leaf {
            format: LEAF_FORMAT,
            project: ProjectId::from_bytes([4; 16]),
            event: CommitId::from_bytes([1; 16]),
            time: TimestampMicros(time),
            kind,
            user: None,
            bucket: None,
            version: None,
            bytes,
            names_hash: [0; 32],
            entries_hash: None,
        }
    }

    /// (length, made at, purged at or never): times in microseconds after the start of `FIRST`.
    type Life = (u64, u64, Option<u64>);
    const FIRST: u32 = 2026 * 12 + 10;
    const SPAN_MICROS: u64 = 120 * 86_400 * 1_000_000;

    fn lives() -> impl Strategy<Value = Vec<Life>> {
        let life = (0u64..1 << 40, 0..SPAN_MICROS, prop::option::of(0..SPAN_MICROS));
        let life = life.prop_map(|(len, made, stays)| (len, made, stays.map(|stays| made + stays)));
        prop::collection::vec(life, 0..20)
    }

    proptest! {
        #[test]
        fn months_sum_to_what_each_version_was_held(lives in lives(), now in 0..2 * SPAN_MICROS) {
            let base = Month::from_number(FIRST).start().0;
            let mut months: BTreeMap<Month, MonthSums> = BTreeMap::new();
            // Purges first: rows are added to in any order.
            let purged = lives.iter().filter_map(|(len, _, purged)| Some(leaf(KIND_VERSION_PURGED, base + (*purged)?, *len)));
            let made = lives.iter().map(|(len, made, _)| leaf(KIND_VERSION_CREATED, base + made, *len));
            let now = TimestampMicros(base + now);
            for event in purged.chain(made).filter(|event| event.time <= now) {
                let month = Month::of(event.time);
                months.entry(month).or_default().add(month.start(), &event);
            }
            let mut held = Held::default();
            for number in FIRST..FIRST + 10 {
                let month = Month::from_number(number);
                let sums = months.get(&month).copied().unwrap_or_default();
                let usage = Usage::new(month, held, sums, now);
                // Version by version: the time that it and the month share, up to now.
                let naive: u128 = lives.iter().map(|(len, made, purged)| {
                    let from = (base + made).max(month.start().0);
                    let to = purged.map_or(u64::MAX, |purged| base + purged).min(month.end().0).min(now.0);
                    u128::from(*len) * u128::from(to.saturating_sub(from))
                }).sum();
                if month.start() <= now {
                    prop_assert_eq!(usage.byte_micros, naive, "{}", month);
                }
                held = usage.held_at_end;
            }
        }
    }

    #[test]
    fn an_access_counts_with_what_it_asked_for_until_its_completion_takes_off_what_was_not_sent() {
        use crate::access::{Access, AccessEnd, AccessState, Completion};
        let begun = Access {
            number: 1,
            time: TimestampMicros(7),
            action: "GetObject".to_owned(),
            user: None,
            bucket: None,
            version: None,
            opening: None,
            start: 0,
            end: 100,
            bytes: 100,
            count: 2,
            status: 200,
            state: AccessState::Begun,
        };
        let answered = Access { number: 2, bytes: 30, count: 1, state: AccessState::Answered, ..begun.clone() };
        let end = Completion { number: 1, count: 2, of_bytes: 100, sent_bytes: 40, end: AccessEnd::BrokenOff };
        let leaf = |accesses: Vec<Access>, completions: Vec<Completion>| Accesses {
            recorder: valv_types::RecorderId::from_bytes([1; 16]),
            accesses,
            completions,
        };
        let (mut all, mut first, mut second) = (MonthSums::default(), MonthSums::default(), MonthSums::default());
        first.add_accesses(&leaf(vec![begun, answered], vec![]));
        assert_eq!((first.read_requests, first.egress_bytes()), (3, 130));
        second.add_accesses(&leaf(vec![], vec![end]));
        assert_eq!((second.read_requests, second.egress_bytes()), (0, -60));
        all.merge(&first);
        all.merge(&second);
        assert_eq!((all.read_requests, all.egress_bytes()), (3, 70));
    }
}
