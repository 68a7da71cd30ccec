//! Dates of conditions: W3C's profile of ISO 8601, and seconds since 1970.

/// Microseconds since 1970 of a date such as `2026`, `2026-03`, `2026-03-01`, `2026-03-01T12:00Z`,
/// `2026-03-01T12:00:00.5+01:00` or `1772366400`. Four digits alone are a year.
pub(crate) fn parse(text: &str) -> Option<i64> {
    if text.len() != 4 && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse::<i64>().ok()?.checked_mul(MICROS);
    }
    let (date, time) = match text.split_once('T') {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let mut parts = date.split('-');
    let year = digits(parts.next()?, 4)?;
    let month = parts.next().map_or(Some(1), |text| digits(text, 2))?;
    let day = parts.next().map_or(Some(1), |text| digits(text, 2))?;
    if parts.next().is_some() || !(1..=12).contains(&month) || !(1..=days_of(year, month)).contains(&day) {
        return None;
    }
    // A time needs a whole date.
    if time.is_some() && date.len() != "2026-03-01".len() {
        return None;
    }
    let seconds = days_since_1970(year, month, day) * SECONDS_PER_DAY;
    let micros = time.map_or(Some(0), time_of_day)?;
    seconds.checked_mul(MICROS)?.checked_add(micros)
}

const MICROS: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// `len` decimal digits.
fn digits(text: &str, len: usize) -> Option<i64> {
    (text.len() == len && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

/// Microseconds since midnight UTC of `12:00Z`, `12:00:00Z`, `12:00:00.123+01:00`.
fn time_of_day(text: &str) -> Option<i64> {
    let (clock, offset_minutes) = match text.strip_suffix('Z') {
        Some(clock) => (clock, 0),
        None => {
            let at = text.rfind(['+', '-'])?;
            let (clock, offset) = text.split_at(at);
            let (hours, minutes) = offset.get(1..)?.split_once(':')?;
            let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let sign = if offset.starts_with('-') { -1 } else { 1 };
            (clock, sign * (hours * 60 + minutes))
        }
    };
    let mut parts = clock.split(':');
    let hours = digits(parts.next()?, 2)?;
    let minutes = digits(parts.next()?, 2)?;
    let (seconds, fraction) = match parts.next() {
        None => (0, 0),
        Some(text) => {
            let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
            (digits(seconds, 2)?, micros_of(fraction)?)
        }
    };
    // A leap second counts as the second after it.
    if parts.next().is_some() || hours > 23 || minutes > 59 || seconds > 60 {
        return None;
    }
    Some(((hours * 60 + minutes - offset_minutes) * 60 + seconds) * MICROS + fraction)
}

/// Microseconds of the digits behind a decimal point; what is finer is cut off.
fn micros_of(fraction: &str) -> Option<i64> {
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let micros: String = fraction.chars().chain(std::iter::repeat('0')).take(6).collect();
    micros.parse().ok()
}

fn days_of(year: i64, month: i64) -> i64 {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01, counted in years that begin in March so that the leap day is the last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let era_days = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // 1970-01-01 is day 719,468 when 0000-03-01 is day 0.
    era_days + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn dates_in_every_documented_form() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970", 0),
            ("1970-01", 0),
            ("1970-01-02", 86_400),
            ("1969-12-31T23:59:59Z", -1),
            ("2000-02-29T00:00Z", 951_782_400),
            ("2026-03-01T12:00:00Z", 1_772_366_400),
            ("2026-03-01T13:00:00+01:00", 1_772_366_400),
            ("2026-03-01T06:30:00-05:30", 1_772_366_400),
            ("1772366400", 1_772_366_400),
        ] {
            assert_eq!(parse(text), Some(seconds * 1_000_000), "{text}");
        }
        assert_eq!(parse("1970-01-01T00:00:00.25Z"), Some(250_000));
    }

    #[test]
    fn what_is_no_date() {
        for text in [
            "",
            "x",
            "2026-13-01",
            "2026-02-29",
            "2026-3-1",
            "2026-03-01T",
            "2026-03-01T12Z",
            "2026-03-01T12:00",
            "2026-03T12:00Z",
            "2026-03-01T25:00Z",
            "2026-03-01T12:00:00.Z",
            "-1",
            "99999999999999999999",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
