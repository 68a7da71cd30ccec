//! The calendar's year of a point in time.

use valv_types::TimestampMicros;

const MICROS_PER_DAY: u64 = 86_400_000_000;
/// Days from 0000-03-01 to 1970-01-01.
const DAYS_TO_1970: u64 = 719_468;
/// Days of 400 years of the Gregorian calendar.
const DAYS_PER_ERA: u64 = 146_097;

/// The year, in UTC and the Gregorian calendar; 9999 for everything after it, [`crate::FOREVER`] too. After "civil_from_days"
/// of H. Hinnant, "chrono-Compatible Low-Level Date Algorithms": years begin in March, so that leap days end them.
pub fn year_of(at: TimestampMicros) -> u16 {
    let days = at.0 / MICROS_PER_DAY + DAYS_TO_1970;
    let (era, day_of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // January and February, days 306 and later, belong to the calendar's next year.
    let year = era * 400 + year_of_era + u64::from(day_of_year >= 306);
    u16::try_from(year.min(9_999)).unwrap_or(9_999)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn years_begin_at_midnight_of_the_first_of_january() {
        // Seconds of the first moment of each year, from `date -u -d YEAR-01-01 +%s`.
        for (secs, year) in [
            (0, 1970),
            (946_684_800, 2000),
            (978_307_200, 2001),
            (1_735_689_600, 2025),
            (2_019_686_400, 2034),
            (4_102_444_800, 2100),
            (4_133_980_800, 2101),
            (253_370_764_800, 9999),
        ] {
            assert_eq!(year_of(TimestampMicros::from_secs(secs)), year);
            if secs > 0 {
                assert_eq!(year_of(TimestampMicros(secs * 1_000_000 - 1)), year - 1);
            }
        }
        assert_eq!(year_of(crate::FOREVER), 9999);
    }
}
