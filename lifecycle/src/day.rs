//! How long a day is, and when a number of them is over.

use std::time::Duration;
use valv_types::TimestampMicros;

const CALENDAR_DAY_MICROS: u64 = 24 * 60 * 60 * 1_000_000;
/// The shortest day: work is done in passes at least a second apart, so a shorter one would promise what nobody keeps.
const DAY_MICROS_MIN: u64 = 1_000_000;

/// The length of a day of lifecycle rules: 24 hours, or less where tests can't wait for days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DayLength {
    micros: u64,
}

impl Default for DayLength {
    fn default() -> Self {
        Self::CALENDAR
    }
}

impl DayLength {
    /// 24 hours.
    pub const CALENDAR: Self = Self { micros: CALENDAR_DAY_MICROS };

    /// A day of `length`; `None` unless it is 1 second to 24 hours.
    pub fn new(length: Duration) -> Option<Self> {
        let micros = u64::try_from(length.as_micros()).ok()?;
        (DAY_MICROS_MIN..=CALENDAR_DAY_MICROS).contains(&micros).then_some(Self { micros })
    }

    /// Its length.
    pub const fn length(self) -> Duration {
        Duration::from_micros(self.micros)
    }

    /// When `days` days from `start` are over. Days of 24 hours are rounded up to the next midnight UTC, as S3 does:
    /// three days from 10:30 on the 15th are over at 00:00 on the 19th. Shorter days know no midnight and are not
    /// rounded at all, so that a test waits for what it configured and no longer.
    pub fn after(self, start: TimestampMicros, days: u32) -> TimestampMicros {
        let end = start.0.saturating_add(self.micros.saturating_mul(u64::from(days)));
        if self != Self::CALENDAR {
            return TimestampMicros(end);
        }
        TimestampMicros(end.div_ceil(CALENDAR_DAY_MICROS).saturating_mul(CALENDAR_DAY_MICROS))
    }

    /// Whether `at` is a midnight UTC.
    pub(crate) const fn is_midnight(at: TimestampMicros) -> bool {
        at.0.is_multiple_of(CALENDAR_DAY_MICROS)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600;
    /// 2014-01-15T00:00:00Z.
    const MIDNIGHT: u64 = 1_389_744_000;

    #[test]
    fn days_of_24_hours_end_at_midnight_and_shorter_ones_when_they_are_over() {
        let start = TimestampMicros::from_secs(MIDNIGHT + 10 * HOUR + 1_800);
        let day = DayLength::CALENDAR;
        assert_eq!(day.after(start, 3), TimestampMicros::from_secs(MIDNIGHT + 4 * 24 * HOUR));
        assert_eq!(day.after(TimestampMicros::from_secs(MIDNIGHT), 1).as_secs(), MIDNIGHT + 24 * HOUR);
        assert_eq!(day.after(TimestampMicros(MIDNIGHT * 1_000_000 + 1), 1).as_secs(), MIDNIGHT + 2 * 24 * HOUR);
        let short = DayLength::new(Duration::from_secs(10)).unwrap();
        assert_eq!(short.after(start, 3), start.plus_secs(30));
        assert_eq!(day.after(TimestampMicros(u64::MAX), u32::MAX), TimestampMicros(u64::MAX));
    }

    #[test]
    fn a_day_has_a_second_at_least_and_24_hours_at_most() {
        for (millis, is_day) in [(0, false), (999, false), (1_000, true), (86_400_000, true), (86_400_001, false)] {
            assert_eq!(DayLength::new(Duration::from_millis(millis)).is_some(), is_day, "{millis}");
        }
        assert_eq!(DayLength::new(Duration::from_secs(24 * HOUR)), Some(DayLength::CALENDAR));
        assert_eq!(DayLength::new(Duration::MAX), None);
    }
}
