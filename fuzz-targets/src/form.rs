//! Forms of browser-based uploads, and their policies. Input: a body whose boundary is `B-B`, or after `p` a policy
//! document.
//!
//! The body is parsed whole, byte by byte and in random pieces, which must come out the same; no prefix that lacks the
//! closing boundary is a form. Then its own bytes are sent as a file, which must come back. A policy is held against a form
//! that meets it by construction, and against one with a field more.

use crate::random::{Random, seed_of};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use valv_gateway::form::{Boundary, FormError, FormEvent, FormFields, FormParser, PostPolicy};
use valv_types::TimestampMicros;

/// Words of forms and policies.
pub const WORDS: &[&str] = &[
    "\r\n",
    "\r\n--B-B\r\n",
    "\r\n--B-B--",
    "--B-B",
    "--",
    "Content-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n",
    "Content-Disposition: form-data; name=\"key\"\r\n\r\n",
    "; filename=\"a\\\"b\"",
    "\r\n folded",
    "${filename}",
    "[\"starts-with\", \"$key\", \"\"]",
    "{\"acl\": \"private\"}",
    "[\"content-length-range\", 0, 10]",
    "\\$",
    "\\v",
    "\\u0000",
];

const BOUNDARY: &str = "B-B";
const CLOSE: &[u8] = b"\r\n--B-B--";

/// Fields, file and how it ended.
type Parsed = (Option<FormFields>, Vec<u8>, Result<(), FormError>);

/// Feeds `body` in pieces that `piece` measures.
fn parse(body: &[u8], mut piece: impl FnMut() -> usize) -> Parsed {
    let mut parser = FormParser::new(&Boundary::new(BOUNDARY).expect("a boundary"));
    let (mut fields, mut file) = (None, Vec::new());
    let mut rest = body;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(piece().clamp(1, rest.len()));
        rest = later;
        let mut input = Bytes::copy_from_slice(now);
        loop {
            match parser.next(&mut input) {
                Ok(FormEvent::NeedInput) => break,
                Ok(FormEvent::Fields(told)) => assert!(fields.replace(told).is_none(), "fields are told once"),
                Ok(FormEvent::File(data)) => {
                    assert!(fields.is_some(), "a file comes after the fields");
                    file.extend_from_slice(&data);
                }
                Err(error) => return (fields, file, Err(error)),
            }
        }
        assert!(input.is_empty(), "a parser that needs input has none left");
    }
    (fields, file, parser.finish())
}

/// The target.
pub fn run(data: &[u8]) {
    if let Some(document) = data.strip_prefix(b"p") {
        return policy(document);
    }
    let whole = parse(data, || usize::MAX);
    assert_eq!(parse(data, || 1), whole, "byte by byte");
    let mut random = Random::new(seed_of(data));
    assert_eq!(parse(data, || 1 + random.below(9)), whole, "in pieces");
    if whole.2.is_ok() {
        let close = memchr::memmem::rfind(data, CLOSE).map_or(0, |at| at + CLOSE.len());
        assert_eq!(parse(&data[..close], || usize::MAX), whole, "what follows the closing boundary says nothing");
        assert_eq!(parse(&data[..close - 1], || usize::MAX).2, Err(FormError::Truncated), "cut by one byte");
        let total: usize = whole.0.iter().flat_map(FormFields::iter).map(|(_, value)| value.len()).sum();
        assert!(total <= valv_gateway::limits::FORM_FIELDS_LEN_BYTES_MAX, "fields are bounded");
    }
    round_trip(data);
}

/// What a client sends comes back.
fn round_trip(data: &[u8]) {
    let starts_line = [b"\r\n", data].concat();
    if memchr::memmem::find(&starts_line, &CLOSE[..CLOSE.len() - 2]).is_some() {
        return;
    }
    let head = "--B-B\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n".as_bytes();
    let (fields, file, end) = parse(&[head, data, CLOSE].concat(), || usize::MAX);
    assert_eq!((end, file.as_slice()), (Ok(()), data));
    assert_eq!(fields, Some(FormFields::default()));
}

fn policy(document: &[u8]) {
    let Ok(policy) = PostPolicy::parse(&STANDARD.encode(document)) else { return };
    let none = FormFields::default();
    let earliest = TimestampMicros(0);
    let checked = policy.check(&none, "bucket", earliest);
    assert!(policy.check(&none, "bucket", TimestampMicros(u64::MAX)).is_err(), "every policy ends");
    if checked.is_ok() {
        // A field that no condition can name: the words have no such one.
        let body = "--B-B\r\nContent-Disposition: form-data; name=\"\u{1f512}\"\r\n\r\n\r\n--B-B\r\n\
                    Content-Disposition: form-data; name=\"file\"\r\n\r\n\r\n--B-B--";
        let (more, _, _) = parse(body.as_bytes(), || usize::MAX);
        let more = more.expect("fields");
        let is_named = memchr::memmem::find(document, "\u{1f512}".as_bytes()).is_some()
            || memchr::memchr(b'\\', document).is_some();
        assert!(is_named || policy.check(&more, "bucket", earliest).is_err(), "a field without a condition");
    }
}
