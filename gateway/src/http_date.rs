//! The ways in which S3 writes a point in time.

use std::time::{Duration, UNIX_EPOCH};
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};
use valv_types::TimestampMicros;

/// `20130524T000000Z`, as in `x-amz-date`.
const BASIC: &[BorrowedFormatItem<'_>] = format_description!("[year][month][day]T[hour][minute][second]Z");
/// `2013-05-24T00:00:00.000Z`, as in XML bodies.
const MILLIS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// The date and time of `at`, or of the last moment of the year 9999 if it lies beyond.
fn date_time(at: TimestampMicros) -> OffsetDateTime {
    const YEAR_9999_END: OffsetDateTime = time::macros::datetime!(9999-12-31 23:59:59 UTC);
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.0) * 1_000).unwrap_or(YEAR_9999_END)
}

/// `Fri, 24 May 2013 00:00:00 GMT`: the form of `Last-Modified` and `Date` (RFC 9110, section 5.6.7).
pub fn format_http(at: TimestampMicros) -> String {
    let secs = u64::try_from(date_time(at).unix_timestamp()).unwrap_or(0);
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(secs))
}

/// Reads an HTTP date in any of the three forms of RFC 9110, in whole seconds. `None` if it is none of them: RFC 9110
/// says that a conditional header with an invalid date is ignored. The zone may also be written as in mail (RFC 5322,
/// section 3.3): botocore signs such a `Date`.
pub fn parse_http(text: &str) -> Option<TimestampMicros> {
    let text = text.trim();
    let in_utc = ["-0000", "+0000", "UTC"].into_iter().find_map(|zone| text.strip_suffix(zone));
    let at = match in_utc {
        Some(rest) => httpdate::parse_http_date(&format!("{rest}GMT")),
        None => httpdate::parse_http_date(text),
    };
    let at = at.ok()?;
    Some(TimestampMicros::from_secs(at.duration_since(UNIX_EPOCH).ok()?.as_secs()))
}

/// `2013-05-24T00:00:00.000Z`: the form of dates in XML bodies.
pub fn format_iso8601(at: TimestampMicros) -> String {
    date_time(at).format(MILLIS).unwrap_or_default()
}

/// Reads an ISO 8601 date and time with offset, as in `x-amz-object-lock-retain-until-date` and in XML bodies.
pub fn parse_iso8601(text: &str) -> Option<TimestampMicros> {
    let at = OffsetDateTime::parse(text.trim(), &Rfc3339).ok()?;
    u64::try_from(at.unix_timestamp_nanos() / 1_000).ok().map(TimestampMicros)
}

/// `20130524T000000Z`: the form of `x-amz-date`.
pub fn format_basic(at: TimestampMicros) -> String {
    date_time(at).format(BASIC).unwrap_or_default()
}

/// Reads the form of `x-amz-date`.
pub fn parse_basic(text: &str) -> Option<TimestampMicros> {
    if text.len() != 16 {
        return None;
    }
    let at = PrimitiveDateTime::parse(text, BASIC).ok()?.assume_utc();
    u64::try_from(at.unix_timestamp()).ok().map(TimestampMicros::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const AT: TimestampMicros = TimestampMicros(1_369_353_600_123_456);

    #[test]
    fn one_moment_is_written_in_every_form() {
        assert_eq!(format_http(AT), "Fri, 24 May 2013 00:00:00 GMT");
        assert_eq!(format_iso8601(AT), "2013-05-24T00:00:00.123Z");
        assert_eq!(format_basic(AT), "20130524T000000Z");
    }

    #[test]
    fn every_form_is_read_and_nonsense_is_not() {
        let secs = TimestampMicros::from_secs(AT.as_secs());
        assert_eq!(parse_http("Fri, 24 May 2013 00:00:00 GMT"), Some(secs));
        assert_eq!(parse_http("Friday, 24-May-13 00:00:00 GMT"), Some(secs));
        assert_eq!(parse_http("Fri, 24 May 2013 00:00:00 -0000"), Some(secs));
        assert_eq!(parse_http("Fri, 24 May 2013 00:00:00 +0200"), None);
        assert_eq!(parse_iso8601("2013-05-24T02:00:00+02:00"), Some(secs));
        assert_eq!(parse_iso8601("2013-05-24T00:00:00.123456Z"), Some(AT));
        assert_eq!(parse_basic("20130524T000000Z"), Some(secs));
        for bad in ["", "20130524", "20131324T000000Z", "20130524T000000+", "2013052aT000000Z", "19500101T000000Z"] {
            assert_eq!(parse_basic(bad), None, "{bad}");
        }
        assert_eq!(parse_http("yesterday"), None);
        assert_eq!(parse_iso8601("2013-05-24"), None);
    }

    #[test]
    fn a_time_beyond_the_calendar_is_its_end_and_not_a_panic() {
        assert_eq!(format_iso8601(TimestampMicros(u64::MAX)), "9999-12-31T23:59:59.000Z");
        assert_eq!(format_http(TimestampMicros(u64::MAX)), "Fri, 31 Dec 9999 23:59:59 GMT");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn whole_seconds_survive_every_form(secs in 0_u64..250_000_000_000) {
            let at = TimestampMicros::from_secs(secs);
            prop_assert_eq!(parse_http(&format_http(at)), Some(at));
            prop_assert_eq!(parse_iso8601(&format_iso8601(at)), Some(at));
            prop_assert_eq!(parse_basic(&format_basic(at)), Some(at));
        }

        #[test]
        fn no_text_makes_a_parser_panic(text in ".{0,40}") {
            let _ = (parse_http(&text), parse_iso8601(&text), parse_basic(&text));
        }
    }
}
