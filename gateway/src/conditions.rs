//! Preconditions: on reads (RFC 9110, section 13, with S3's precedence), on copy sources, and on writes.

use crate::error::{S3Code, S3Error};
use crate::http_date;
use http::{HeaderMap, HeaderValue};
use valv_metadata_api::WriteCondition;
use valv_types::TimestampMicros;

/// The conditions of a read or of a copy's source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadConditions {
    if_match: Option<EtagList>,
    if_none_match: Option<EtagList>,
    if_modified_since_secs: Option<u64>,
    if_unmodified_since_secs: Option<u64>,
}

/// What the conditions say of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Proceed,
    /// 304.
    NotModified,
    /// 412, and the header that failed.
    Failed(&'static str),
}

/// `*`, or a list of entity tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtagList {
    is_any: bool,
    etags: Vec<String>,
}

impl EtagList {
    /// Reads a list; quotes may be missing, as many clients leave them out. A weak tag (`W/`) counts as its strong one:
    /// S3's ETags name bytes.
    pub fn parse(text: &str) -> Self {
        let items = text.split(',').map(|tag| {
            let tag = tag.trim();
            let tag = tag.strip_prefix("W/").unwrap_or(tag);
            tag.trim_matches('"')
        });
        let (mut is_any, mut etags) = (false, Vec::new());
        for tag in items.filter(|tag| !tag.is_empty()) {
            match tag {
                "*" => is_any = true,
                tag => etags.push(tag.to_owned()),
            }
        }
        Self { is_any, etags }
    }

    /// Whether an ETag, without quotes, is in the list.
    pub fn matches(&self, etag: &str) -> bool {
        self.is_any || self.etags.iter().any(|listed| listed == etag)
    }

    /// As metadata wants it: `*` stands for any.
    pub fn into_list(self) -> Vec<String> {
        if self.is_any { vec!["*".to_owned()] } else { self.etags }
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).map(HeaderValue::as_bytes).and_then(|bytes| std::str::from_utf8(bytes).ok())
}

fn date_secs(headers: &HeaderMap, name: &str) -> Option<u64> {
    text(headers, name).and_then(http_date::parse_http).map(TimestampMicros::as_secs)
}

impl ReadConditions {
    /// Those of GET and HEAD.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        Self {
            if_match: text(headers, "if-match").map(EtagList::parse),
            if_none_match: text(headers, "if-none-match").map(EtagList::parse),
            if_modified_since_secs: date_secs(headers, "if-modified-since"),
            if_unmodified_since_secs: date_secs(headers, "if-unmodified-since"),
        }
    }

    /// Those of a copy's source.
    pub fn of_copy_source(headers: &HeaderMap) -> Self {
        Self {
            if_match: text(headers, "x-amz-copy-source-if-match").map(EtagList::parse),
            if_none_match: text(headers, "x-amz-copy-source-if-none-match").map(EtagList::parse),
            if_modified_since_secs: date_secs(headers, "x-amz-copy-source-if-modified-since"),
            if_unmodified_since_secs: date_secs(headers, "x-amz-copy-source-if-unmodified-since"),
        }
    }

    /// Judges an object. An entity tag takes precedence over the date beside it: If-Match that holds makes
    /// If-Unmodified-Since moot, and If-None-Match makes If-Modified-Since moot (RFC 9110, section 13.2.2).
    pub fn judge(&self, etag: &str, modified: TimestampMicros) -> Verdict {
        let modified_secs = modified.as_secs();
        match (&self.if_match, self.if_unmodified_since_secs) {
            (Some(list), _) if !list.matches(etag) => return Verdict::Failed("If-Match"),
            (None, Some(since)) if modified_secs > since => return Verdict::Failed("If-Unmodified-Since"),
            _ => {}
        }
        match (&self.if_none_match, self.if_modified_since_secs) {
            (Some(list), _) if list.matches(etag) => Verdict::NotModified,
            (None, Some(since)) if modified_secs <= since => Verdict::NotModified,
            _ => Verdict::Proceed,
        }
    }

    /// Judges a copy's source: what would be 304 for a read is 412 here.
    ///
    /// # Errors
    /// PreconditionFailed.
    pub fn judge_copy_source(&self, etag: &str, modified: TimestampMicros) -> Result<(), S3Error> {
        let failed = match self.judge(etag, modified) {
            Verdict::Proceed => return Ok(()),
            Verdict::Failed("If-Match") => "x-amz-copy-source-If-Match",
            Verdict::Failed(_) => "x-amz-copy-source-If-Unmodified-Since",
            Verdict::NotModified if self.if_none_match.is_some() => "x-amz-copy-source-If-None-Match",
            Verdict::NotModified => "x-amz-copy-source-If-Modified-Since",
        };
        Err(S3Error::new(S3Code::PreconditionFailed).with_extra("Condition", failed))
    }
}

/// What a write demands of the key's current version. AWS documents `*` alone for If-None-Match; entity tags are taken as
/// RFC 9110 (section 13.1.2), to which its page refers, defines them.
///
/// # Errors
/// InvalidRequest for both at once.
pub fn write_condition(headers: &HeaderMap) -> Result<WriteCondition, S3Error> {
    let if_match = text(headers, "if-match").map(EtagList::parse);
    let if_none_match = text(headers, "if-none-match").map(EtagList::parse);
    if if_match.is_some() && if_none_match.is_some() {
        return Err(S3Error::invalid_request("If-Match and If-None-Match can't be used together."));
    }
    Ok(WriteCondition {
        if_match: if_match.map(EtagList::into_list),
        if_none_match: if_none_match.map(EtagList::into_list),
        ..WriteCondition::default()
    })
}

/// What a delete demands: If-Match and S3's two siblings of it.
///
/// # Errors
/// InvalidArgument for a date or size that is none.
pub fn delete_condition(headers: &HeaderMap) -> Result<WriteCondition, S3Error> {
    let if_match = text(headers, "if-match").map(|list| EtagList::parse(list).into_list());
    let if_match_modified_secs = match text(headers, "x-amz-if-match-last-modified-time") {
        None => None,
        Some(date) => Some(parse_modified(date).ok_or_else(|| {
            S3Error::invalid_argument("The date is not valid", "x-amz-if-match-last-modified-time", date)
        })?),
    };
    let if_match_len_bytes = match text(headers, "x-amz-if-match-size") {
        None => None,
        Some(size) => Some(
            size.parse()
                .map_err(|_| S3Error::invalid_argument("The size is not a number", "x-amz-if-match-size", size))?,
        ),
    };
    Ok(WriteCondition { if_match, if_none_match: None, if_match_modified_secs, if_match_len_bytes })
}

/// Reads a last-modified time in either of the forms that clients send, in whole seconds.
pub fn parse_modified(date: &str) -> Option<u64> {
    http_date::parse_http(date).or_else(|| http_date::parse_iso8601(date)).map(TimestampMicros::as_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODIFIED: TimestampMicros = TimestampMicros(1_369_353_600_900_000);
    const BEFORE: &str = "Thu, 23 May 2013 00:00:00 GMT";
    const SAME: &str = "Fri, 24 May 2013 00:00:00 GMT";
    const AFTER: &str = "Sat, 25 May 2013 00:00:00 GMT";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().expect("value"))).collect()
    }

    #[test]
    fn reads_are_judged_with_the_precedence_of_entity_tags() {
        use Verdict::*;
        for (pairs, expected) in [
            (vec![], Proceed),
            (vec![("if-match", "\"a\"")], Proceed),
            (vec![("if-match", "a")], Proceed),
            (vec![("if-match", "*")], Proceed),
            (vec![("if-match", "\"b\", \"a\"")], Proceed),
            (vec![("if-match", "\"b\"")], Failed("If-Match")),
            (vec![("if-none-match", "\"a\"")], NotModified),
            (vec![("if-none-match", "W/\"a\"")], NotModified),
            (vec![("if-none-match", "*")], NotModified),
            (vec![("if-none-match", "\"b\"")], Proceed),
            (vec![("if-modified-since", BEFORE)], Proceed),
            (vec![("if-modified-since", SAME)], NotModified),
            (vec![("if-modified-since", AFTER)], NotModified),
            (vec![("if-modified-since", "yesterday")], Proceed),
            (vec![("if-unmodified-since", BEFORE)], Failed("If-Unmodified-Since")),
            (vec![("if-unmodified-since", SAME)], Proceed),
            (vec![("if-match", "\"a\""), ("if-unmodified-since", BEFORE)], Proceed),
            (vec![("if-match", "\"b\""), ("if-unmodified-since", AFTER)], Failed("If-Match")),
            (vec![("if-none-match", "\"b\""), ("if-modified-since", AFTER)], Proceed),
            (vec![("if-none-match", "\"a\""), ("if-modified-since", BEFORE)], NotModified),
            (vec![("if-match", "\"b\""), ("if-none-match", "\"a\"")], Failed("If-Match")),
            (vec![("if-match", "\"a\""), ("if-none-match", "\"a\"")], NotModified),
        ] {
            assert_eq!(ReadConditions::from_headers(&headers(&pairs)).judge("a", MODIFIED), expected, "{pairs:?}");
        }
    }

    #[test]
    fn a_copy_source_that_does_not_meet_its_conditions_is_412() {
        for (pairs, is_ok) in [
            (vec![("x-amz-copy-source-if-match", "a")], true),
            (vec![("x-amz-copy-source-if-match", "b")], false),
            (vec![("x-amz-copy-source-if-none-match", "a")], false),
            (vec![("x-amz-copy-source-if-modified-since", AFTER)], false),
            (vec![("x-amz-copy-source-if-unmodified-since", BEFORE)], false),
            (vec![("x-amz-copy-source-if-match", "a"), ("x-amz-copy-source-if-unmodified-since", BEFORE)], true),
            (vec![("if-match", "b")], true),
        ] {
            let judged = ReadConditions::of_copy_source(&headers(&pairs)).judge_copy_source("a", MODIFIED);
            assert_eq!(judged.is_ok(), is_ok, "{pairs:?}");
        }
    }

    #[test]
    fn writes_take_a_star_or_an_entity_tag() {
        let any = write_condition(&headers(&[("if-none-match", "*")])).expect("condition");
        assert_eq!(any.if_none_match.as_deref(), Some(&["*".to_owned()][..]));
        let tag = write_condition(&headers(&[("if-match", "\"abc\"")])).expect("condition");
        assert_eq!(tag.if_match.as_deref(), Some(&["abc".to_owned()][..]));
        let code = |pairs: &[_]| write_condition(&headers(pairs)).err().map(|error| error.code());
        let none = write_condition(&headers(&[("if-none-match", "\"abc\"")])).expect("condition");
        assert_eq!(none.if_none_match.as_deref(), Some(&["abc".to_owned()][..]));
        assert_eq!(code(&[("if-none-match", "*"), ("if-match", "a")]), Some(S3Code::InvalidRequest));
        assert_eq!(code(&[]), None);
    }

    #[test]
    fn deletes_know_size_and_time() {
        let condition = delete_condition(&headers(&[
            ("if-match", "\"a\""),
            ("x-amz-if-match-size", "7"),
            ("x-amz-if-match-last-modified-time", SAME),
        ]))
        .expect("condition");
        assert_eq!(
            (condition.if_match_len_bytes, condition.if_match_modified_secs),
            (Some(7), Some(MODIFIED.as_secs()))
        );
        assert!(delete_condition(&headers(&[("x-amz-if-match-size", "x")])).is_err());
    }
}
