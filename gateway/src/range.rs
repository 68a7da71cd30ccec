//! The Range header, as S3 reads it: one range or the whole object.
//!
//! RFC 9110, section 14: a Range that is malformed is ignored. S3 ignores a list of several ranges, too, and answers
//! with the whole object.

use crate::error::{S3Code, S3Error};
use std::ops::Range;

/// One range, not yet held against a length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRange {
    /// `a-b`, both inclusive.
    FromTo(u64, u64),
    /// `a-`.
    From(u64),
    /// `-n`: the last n bytes.
    Last(u64),
}

impl ByteRange {
    /// Reads a Range header. `None` if it is to be ignored: malformed, another unit, or several ranges.
    ///
    /// ```
    /// # use valv_gateway::range::ByteRange;
    /// assert_eq!(ByteRange::parse("bytes=0-99"), Some(ByteRange::FromTo(0, 99)));
    /// assert_eq!(ByteRange::parse("bytes=0-1,5-6"), None);
    /// ```
    pub fn parse(header: &str) -> Option<Self> {
        let (unit, ranges) = header.trim().split_once('=')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return None;
        }
        let (first, last) = ranges.trim().split_once('-')?;
        match (first.trim(), last.trim()) {
            ("", "") => None,
            ("", suffix) => Some(Self::Last(number(suffix)?)),
            (first, "") => Some(Self::From(number(first)?)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::FromTo(first, last))
            }
        }
    }

    /// The bytes of an object of `len_bytes`, never none.
    ///
    /// # Errors
    /// InvalidRange (416) if there are none, naming the object's size.
    pub fn resolve(self, len_bytes: u64) -> Result<Range<u64>, S3Error> {
        let range = match self {
            Self::FromTo(first, last) => first..last.saturating_add(1).min(len_bytes),
            Self::From(first) => first..len_bytes,
            Self::Last(count) => len_bytes.saturating_sub(count)..len_bytes,
        };
        if range.is_empty() {
            return Err(S3Error::new(S3Code::InvalidRange)
                .with_extra("RangeRequested", self.to_string())
                .with_extra("ActualObjectSize", len_bytes.to_string())
                .with_header(
                    http::header::CONTENT_RANGE,
                    crate::ops::headers::header_value(&format!("bytes */{len_bytes}")),
                ));
        }
        Ok(range)
    }

    /// Reads `x-amz-copy-source-range`, which knows only `bytes=a-b` and must fit.
    ///
    /// # Errors
    /// InvalidArgument for another form; InvalidRange if it is not inside the source.
    pub fn copy_source(header: &str, len_bytes: u64) -> Result<Range<u64>, S3Error> {
        let Some(Self::FromTo(first, last)) = Self::parse(header) else {
            return Err(S3Error::invalid_argument(
                "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the \
                 zero-based offsets of the first and last bytes to copy",
                "x-amz-copy-source-range",
                header,
            ));
        };
        if last >= len_bytes {
            return Err(S3Error::new(S3Code::InvalidRange)
                .with_message(format!("Range specified is not valid for source object of size: {len_bytes}"))
                .with_extra("RangeRequested", header)
                .with_extra("ActualObjectSize", len_bytes.to_string()));
        }
        Ok(first..last + 1)
    }
}

impl std::fmt::Display for ByteRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::FromTo(first, last) => write!(f, "bytes={first}-{last}"),
            Self::From(first) => write!(f, "bytes={first}-"),
            Self::Last(count) => write!(f, "bytes=-{count}"),
        }
    }
}

/// Digits only; a number beyond u64 is as good as the largest.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_read_as_s3_reads_them() {
        use ByteRange::*;
        for (header, expected) in [
            ("bytes=0-0", Some(FromTo(0, 0))),
            ("bytes=5-", Some(From(5))),
            ("bytes=-5", Some(Last(5))),
            ("Bytes=1-2", Some(FromTo(1, 2))),
            ("bytes=0-99999999999999999999999", Some(FromTo(0, u64::MAX))),
            ("bytes=2-1", None),
            ("bytes=-", None),
            ("bytes=", None),
            ("bytes=a-b", None),
            ("bytes=+1-2", None),
            ("bytes=0-1,3-4", None),
            ("items=0-1", None),
            ("0-1", None),
            ("", None),
        ] {
            assert_eq!(ByteRange::parse(header), expected, "{header}");
        }
    }

    #[test]
    fn ranges_are_held_against_the_length() {
        for (header, len, expected) in [
            ("bytes=0-0", 10, Some(0..1)),
            ("bytes=5-", 10, Some(5..10)),
            ("bytes=9-100", 10, Some(9..10)),
            ("bytes=0-18446744073709551615", 10, Some(0..10)),
            ("bytes=-3", 10, Some(7..10)),
            ("bytes=-30", 10, Some(0..10)),
            ("bytes=-0", 10, None),
            ("bytes=10-", 10, None),
            ("bytes=10-20", 10, None),
            ("bytes=0-", 0, None),
            ("bytes=-5", 0, None),
        ] {
            let resolved = ByteRange::parse(header).expect("well-formed").resolve(len);
            assert_eq!(resolved.as_ref().ok(), expected.as_ref(), "{header} of {len}");
            if let Err(error) = resolved {
                assert_eq!(error.code(), S3Code::InvalidRange);
                assert_eq!(error.extra("ActualObjectSize"), Some(len.to_string().as_str()));
            }
        }
    }

    #[test]
    fn a_copy_range_must_be_closed_and_inside() {
        assert_eq!(ByteRange::copy_source("bytes=0-9", 10).ok(), Some(0..10));
        for bad in ["bytes=0-", "bytes=-5", "0-5", ""] {
            assert_eq!(ByteRange::copy_source(bad, 10).err().map(|e| e.code()), Some(S3Code::InvalidArgument), "{bad}");
        }
        assert_eq!(ByteRange::copy_source("bytes=0-10", 10).err().map(|e| e.code()), Some(S3Code::InvalidRange));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn a_resolved_range_is_never_empty_and_never_outside(text in "bytes=[0-9]{0,3}-[0-9]{0,3}", len in 0_u64..500) {
            if let Some(range) = ByteRange::parse(&text).and_then(|range| range.resolve(len).ok()) {
                prop_assert!(range.start < range.end && range.end <= len);
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,40}") {
            let _ = ByteRange::parse(&text).map(|range| range.resolve(7));
        }
    }
}
