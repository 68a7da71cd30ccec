//! Forms in every cut, against a reading of the whole; and policies as tables.

use super::*;
use crate::error::S3Code;
use crate::http_date::parse_iso8601;
use crate::limits::{FORM_FIELDS_LEN_BYTES_MAX, FORM_FIELDS_MAX, FORM_PART_HEADERS_LEN_BYTES_MAX, PUT_LEN_BYTES_MAX};
use crate::payload::{Payload, PayloadConfig, PayloadMode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream;
use http::HeaderMap;
use http_body::Frame;
use http_body_util::StreamBody;
use proptest::prelude::*;

const BOUNDARY: &str = "B-B";

/// What a form came to: the fields if the file began, the file's bytes, and whether all of it was right.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Read {
    fields: Option<FormFields>,
    file: Vec<u8>,
    end: Result<(), FormError>,
}

/// Feeds the parser with `body`, cut at `cuts`.
fn read(boundary: &str, body: &[u8], cuts: &[usize]) -> Read {
    let mut parser = FormParser::new(&Boundary::new(boundary).expect("boundary"));
    let mut read = Read { fields: None, file: Vec::new(), end: Ok(()) };
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (body.len() + 1)).collect();
    cuts.push(body.len());
    cuts.sort_unstable();
    let mut at = 0;
    for cut in cuts {
        let mut input = Bytes::copy_from_slice(&body[at..cut]);
        at = cut;
        loop {
            match parser.next(&mut input) {
                Ok(FormEvent::NeedInput) => break,
                Ok(FormEvent::Fields(fields)) => assert!(read.fields.replace(fields).is_none()),
                Ok(FormEvent::File(data)) => {
                    assert!(read.fields.is_some() && !data.is_empty());
                    read.file.extend_from_slice(&data);
                }
                Err(error) => return Read { end: Err(error), ..read },
            }
        }
        assert!(input.is_empty());
    }
    read.end = parser.finish();
    read
}

/// The same by splitting the whole body at its boundaries, as RFC 2046 describes it. `None` if it is no form.
fn naive(boundary: &str, body: &[u8]) -> Option<(FormFields, Vec<u8>)> {
    let delimiter = format!("\r\n--{boundary}");
    let body = [b"\r\n", body].concat();
    let starts: Vec<usize> = memchr::memmem::find_iter(&body, delimiter.as_bytes()).collect();
    if *starts.first()? > 1024 + 2 {
        return None;
    }
    let (mut fields, mut file) = (FormFields::default(), None);
    for (index, start) in starts.iter().enumerate() {
        let after = &body[start + delimiter.len()..];
        if let Some(rest) = after.strip_prefix(b"--") {
            let is_white = rest.len() <= 1024 && rest.iter().all(|b| b" \t\r\n".contains(b));
            return if is_white { file.map(|file| (fields, file)) } else { None };
        }
        let end = starts.get(index + 1).copied().unwrap_or(body.len());
        let segment = &body[start + delimiter.len()..end];
        let padding = segment.iter().take_while(|b| b" \t".contains(b)).count();
        let segment = segment[padding..].strip_prefix(b"\r\n")?;
        // An empty part's blank line may be the delimiter's own.
        let text = [segment, b"\r\n"].concat();
        // A blank line at once: a part without headers.
        if text.starts_with(b"\r\n") {
            return None;
        }
        let headers_end = memchr::memmem::find(&text, b"\r\n\r\n")?;
        let part = super::disposition::PartName::read(&text[..headers_end + 2]).ok()?;
        let content = text.get(headers_end + 4..text.len() - 2).unwrap_or_default();
        match (part.name == "file", &file) {
            (true, Some(_)) => return None,
            (true, None) => {
                fields.set_file_name(part.file_name);
                fields.expand_file_name(FORM_FIELDS_LEN_BYTES_MAX).ok()?;
                file = Some(content.to_vec());
            }
            (false, None) => fields.add(part.name, content.to_vec()),
            (false, Some(_)) => {}
        }
    }
    None
}

fn part(name: &str, file_name: Option<&str>, content: &[u8]) -> Vec<u8> {
    let file_name = file_name.map(|name| format!("; filename=\"{name}\"")).unwrap_or_default();
    let head = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"{file_name}\r\n\r\n");
    [head.as_bytes(), content, b"\r\n"].concat()
}

fn form(parts: &[Vec<u8>]) -> Vec<u8> {
    [parts.concat().as_slice(), format!("--{BOUNDARY}--\r\n").as_bytes()].concat()
}

#[test]
fn fields_and_file_are_read_and_the_variable_is_expanded() {
    let body = form(&[
        part("Key", None, b"u/${filename}-${filename}"),
        part("policy", None, b"${filename}"),
        part("x-amz-meta-a", None, b"1"),
        part("X-Amz-Meta-A", None, b"2"),
        part("empty", Some(""), b""),
        part("file", Some("C:\\d\\n.txt"), b"\r\n--B-\r\n--\r--B-B\r"),
        part("late", None, b"ignored"),
    ]);
    let read = read(BOUNDARY, &body, &[]);
    assert_eq!(read.end, Ok(()));
    assert_eq!(read.file, b"\r\n--B-\r\n--\r--B-B\r");
    let fields = read.fields.expect("fields");
    assert_eq!(fields.get("key"), Some(&b"u/n.txt-n.txt"[..]));
    assert_eq!(fields.get("policy"), Some(&b"${filename}"[..]));
    assert_eq!(fields.get("x-amz-meta-a"), Some(&b"1,2"[..]));
    assert_eq!(fields.get("empty"), Some(&b""[..]));
    assert_eq!((fields.get("late"), fields.file_name()), (None, Some(&b"n.txt"[..])));
}

#[test]
fn every_cut_of_a_form_reads_the_same_and_no_prefix_is_a_form() {
    let body = form(&[
        part("key", None, b"k"),
        part("file", Some("f"), b"a\r\n--B\r\n--B-\r\r\n--"),
        part("after", None, b""),
    ]);
    let whole = read(BOUNDARY, &body, &[]);
    assert_eq!(whole.end, Ok(()));
    for first in 0..=body.len() {
        assert_eq!(read(BOUNDARY, &body, &[first]), whole, "{first}");
    }
    let all: Vec<usize> = (0..body.len()).collect();
    assert_eq!(read(BOUNDARY, &body, &all), whole);
    for len in 0..body.len() - 2 {
        assert_eq!(read(BOUNDARY, &body[..len], &[]).end, Err(FormError::Truncated), "{len}");
    }
}

#[test]
fn what_is_no_form_is_refused() {
    let malformed = |read: &Read| matches!(read.end, Err(FormError::Malformed(_)));
    let head = "--B-B\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n";
    for body in [
        format!("{head}x\r\n--B-Bx\r\n--B-B--"),
        format!("{head}x\r\n--B-B--x"),
        format!("{head}x\r\n--B-B--\r\nepilogue"),
        format!("{head}x\r\n--B-B-\r\n"),
        format!("{head}x\r\n--B-B \r \n"),
        format!("{head}x\r\n--B-B--\r\n{}", " ".repeat(1024)),
        format!("{}\r\n{head}x\r\n--B-B--", "p".repeat(1025)),
        "--B-B\r\n\r\nx\r\n--B-B--".to_owned(),
        "--B-B\r\nX: y\r\n\r\nx\r\n--B-B--".to_owned(),
        format!("--B-B\r\nX: {}\r\n{}", "y".repeat(FORM_PART_HEADERS_LEN_BYTES_MAX), &head[7..]),
        "--B-B\nContent-Disposition: form-data; name=\"file\"\n\nx\n--B-B--".to_owned(),
    ] {
        assert!(malformed(&read(BOUNDARY, body.as_bytes(), &[])), "{body:.200}");
    }
    for body in ["", "nothing", "--B-", "--B", "--\r\nB-B--"] {
        assert_eq!(read(BOUNDARY, body.as_bytes(), &[]).end, Err(FormError::Truncated), "{body}");
    }
    // What RFC 2046 allows, and hardly anybody sends.
    for body in [
        format!("preamble\r\n{head}x\r\n--B-B--"),
        format!("\r\n{head}x\r\n--B-B--\r\n\r\n \t"),
        format!("--B-B \t\r\n{}x\r\n--B-B--", &head[7..]),
    ] {
        let read = read(BOUNDARY, body.as_bytes(), &[]);
        assert_eq!((read.end, read.file.as_slice()), (Ok(()), &b"x"[..]), "{body}");
    }
    let empty = read(BOUNDARY, format!("{}\r\n--B-B--", &head[..head.len() - 2]).as_bytes(), &[]);
    assert_eq!((empty.end, empty.file.len()), (Ok(()), 0));
}

#[test]
fn a_form_has_one_file_and_bounded_fields() {
    let (key, file) = (part("key", None, b"k"), part("file", None, b"f"));
    let end = |parts: &[Vec<u8>]| read(BOUNDARY, &form(parts), &[]).end;
    assert_eq!(end(std::slice::from_ref(&key)), Err(FormError::NotOneFile { count: 0 }));
    assert_eq!(end(&[file.clone(), file.clone()]), Err(FormError::NotOneFile { count: 2 }));
    assert_eq!(end(&[key.clone(), file.clone()]), Ok(()));

    let of_len = |len: usize| part("a", None, &vec![b'x'; len]);
    assert_eq!(end(&[of_len(FORM_FIELDS_LEN_BYTES_MAX - 1), file.clone()]), Ok(()));
    assert_eq!(end(&[of_len(FORM_FIELDS_LEN_BYTES_MAX), file.clone()]), Err(FormError::FieldsTooLong));
    // Not by the name of the file, either.
    let expanding = part("a", None, &b"${filename}".repeat(1_000));
    let named = part("file", Some(&"n".repeat(100)), b"f");
    assert_eq!(end(&[expanding, named]), Err(FormError::FieldsTooLong));

    let many = |count: usize| [vec![key.clone(); count], vec![file.clone()]].concat();
    assert_eq!(end(&many(FORM_FIELDS_MAX)), Ok(()));
    assert_eq!(end(&many(FORM_FIELDS_MAX + 1)), Err(FormError::TooManyFields));
    // After the file they are ignored, and bounded.
    assert!(end(&[file.clone(), of_len(FORM_FIELDS_LEN_BYTES_MAX)]).is_ok());
    assert!(end(&[file, of_len(FORM_FIELDS_LEN_BYTES_MAX + 1)]).is_err());
}

/// Pieces that matter to the parser, so that random sequences of them meet every state.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "\r\n--B-B\r\n",
        "\r\n--B-B--",
        "--B-B",
        "\r\n",
        "\r",
        "\n",
        "--",
        "B-B",
        "-",
        " ",
        "a",
        "Content-Disposition: form-data; name=\"file\"; filename=\"f\"",
        "Content-Disposition: form-data; name=\"key\"",
        "Content-Disposition: form-data; name=a\r\n\r\n",
        "Content-Disposition: form-data; name=\"file\"\r\n\r\n",
        "${filename}",
    ]);
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat().into_bytes())
}

/// Forms that are mostly right: contents of such pieces.
fn forms() -> impl Strategy<Value = Vec<u8>> {
    let names = prop::sample::select(vec!["key", "a", "B", "file", "file"]);
    let parts = prop::collection::vec((names, pieces()), 0..4);
    parts
        .prop_map(|parts| form(&parts.iter().map(|(name, content)| part(name, Some("n"), content)).collect::<Vec<_>>()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_cut_reads_as_the_whole_does(
        body in prop_oneof![pieces(), forms(), prop::collection::vec(any::<u8>(), 0..200)],
        cuts in prop::collection::vec(any::<usize>(), 0..12),
    ) {
        let whole = read(BOUNDARY, &body, &[]);
        prop_assert_eq!(&read(BOUNDARY, &body, &cuts), &whole);
        let expected = naive(BOUNDARY, &body);
        prop_assert_eq!(whole.end.is_ok(), expected.is_some(), "{:?}", whole.end);
        if let Some((fields, file)) = expected {
            prop_assert_eq!(whole.fields, Some(fields));
            prop_assert_eq!(whole.file, file);
        }
    }

    #[test]
    fn any_content_comes_back(content in prop::collection::vec(any::<u8>(), 0..4_000), cut in any::<usize>()) {
        prop_assume!(memchr::memmem::find(&content, b"\r\n--B-B").is_none() && !content.starts_with(b"--B-B"));
        let body = form(&[part("key", None, b"k"), part("file", None, &content)]);
        let read = read(BOUNDARY, &body, &[cut]);
        prop_assert_eq!((read.end, read.file), (Ok(()), content));
    }

    #[test]
    fn no_policy_makes_the_parser_panic(text in ".{0,200}", inner in "[\\[\\]{}\",:$\\\\a-c0-9 .-]{0,80}") {
        let _ = PostPolicy::parse(&text);
        let _ = PostPolicy::parse(&STANDARD.encode(&text));
        let document = format!(r#"{{"expiration":"2040-01-01T00:00:00Z","conditions":[{inner}]}}"#);
        let _ = PostPolicy::parse(&STANDARD.encode(document));
    }
}

/// A payload of these pieces, as a connection would bring them.
fn payload(pieces: &[&[u8]], headers: &HeaderMap) -> Payload {
    let frames: Vec<_> =
        pieces.iter().map(|piece| Ok::<_, std::io::Error>(Frame::data(Bytes::copy_from_slice(piece)))).collect();
    let body = StreamBody::new(stream::iter(frames));
    Payload::new(PayloadMode::Unsigned, headers, body, PayloadConfig::default()).expect("payload")
}

async fn file_of(pieces: &[&[u8]], headers: &HeaderMap, range: LengthRange) -> Result<Vec<u8>, S3Code> {
    let boundary = Boundary::new(BOUNDARY).expect("boundary");
    let begun = FormUpload::begin(payload(pieces, headers), &boundary).await.map_err(|error| error.code())?;
    let mut file = Payload::of_form_file(begun.1.into_file(range), PayloadConfig::default()).expect("payload");
    let all = file.read_all(1 << 20).await;
    all.map(|bytes| bytes.to_vec()).map_err(|error| error.code())
}

#[tokio::test]
async fn a_file_ends_normally_only_with_its_form_and_body_and_in_its_range() {
    let body = form(&[part("key", None, b"k"), part("file", None, b"12345")]);
    let range = |min, max| LengthRange { min, max };
    let (none, mut short) = (HeaderMap::new(), HeaderMap::new());
    assert_eq!(file_of(&[&body], &none, range(5, 5)).await, Ok(b"12345".to_vec()));
    assert_eq!(file_of(&[&body[..60], &body[60..]], &none, range(0, 9)).await, Ok(b"12345".to_vec()));
    assert_eq!(file_of(&[&body], &none, range(0, 4)).await, Err(S3Code::EntityTooLarge));
    assert_eq!(file_of(&[&body], &none, range(6, 9)).await, Err(S3Code::EntityTooSmall));
    assert_eq!(file_of(&[&body], &none, range(9, 1)).await, Err(S3Code::EntityTooLarge));
    let cut = &body[..body.len() - 8];
    assert_eq!(file_of(&[cut], &none, range(0, 9)).await, Err(S3Code::MalformedPOSTRequest));
    assert_eq!(file_of(&[], &none, range(0, 9)).await, Err(S3Code::MalformedPOSTRequest));
    // The body as a whole has fewer bytes than announced, though the form is closed.
    short.insert(http::header::CONTENT_LENGTH, (body.len() + 1).into());
    assert_eq!(file_of(&[&body], &short, range(0, 9)).await, Err(S3Code::IncompleteBody));
}

const EXPIRATION: &str = "2030-01-01T00:00:00.000Z";

fn policy(conditions: &str) -> Result<PostPolicy, crate::error::S3Error> {
    PostPolicy::parse(&STANDARD.encode(format!(r#"{{"expiration": "{EXPIRATION}", "conditions": [{conditions}]}}"#)))
}

fn check(conditions: &str, fields: &FormFields) -> Result<LengthRange, String> {
    let now = parse_iso8601("2029-12-31T23:59:59Z").expect("date");
    let checked = policy(conditions).and_then(|policy| policy.check(fields, "photos", now));
    checked.map_err(|error| {
        let status = error.status().as_u16();
        format!("{status} {} {}", error.code(), error.message())
    })
}

#[test]
fn a_form_is_held_to_every_condition() {
    let fields = FormFields::of([
        ("key", "user/eric/a.png"),
        ("acl", "private"),
        ("content-type", "image/png,image/jpeg"),
        ("x-amz-meta-tag", ""),
        ("x-ignore-me", "1"),
        ("policy", "p"),
        ("x-amz-signature", "s"),
    ]);
    let rest = r#"{"bucket": "photos"}, ["starts-with", "$key", "user/eric/"], {"acl": "private"},
                  ["starts-with", "$Content-Type", "image/"], ["starts-with", "$x-amz-meta-tag", ""]"#;
    let all = LengthRange { min: 0, max: PUT_LEN_BYTES_MAX };
    let failed =
        |shown: &str| Err(format!("403 AccessDenied Invalid according to Policy: Policy Condition failed: {shown}"));
    let extra = |names: &str| Err(format!("403 AccessDenied Invalid according to Policy: Extra input fields: {names}"));
    for (more, expected) in [
        ("", Ok(all)),
        (r#", ["eq", "$KEY", "user/eric/a.png"], ["EQ", "$aCl", "private"]"#, Ok(all)),
        (r#", ["content-length-range", 1, 10]"#, Ok(LengthRange { min: 1, max: 10 })),
        (
            r#", ["content-length-range", "1", "10"], ["content-length-range", 5, 20]"#,
            Ok(LengthRange { min: 5, max: 10 }),
        ),
        (r#", ["content-length-range", 0, 99999999999999]"#, Ok(all)),
        (r#", {"acl": "Private"}"#, failed(r#"["eq", "$acl", "Private"]"#)),
        (r#", ["eq", "$Key", "x\"y"]"#, failed(r#"["eq", "$Key", "x\"y"]"#)),
        (r#", ["eq", "acl", "private"]"#, failed(r#"["eq", "acl", "private"]"#)),
        (r#", ["starts-with", "$key", "user/betty/"]"#, failed(r#"["starts-with", "$key", "user/betty/"]"#)),
        (r#", ["starts-with", "$Content-Type", "image/p"]"#, failed(r#"["starts-with", "$Content-Type", "image/p"]"#)),
        (r#", ["starts-with", "$absent", ""]"#, failed(r#"["starts-with", "$absent", ""]"#)),
        (r#", ["eq", "$absent", ""]"#, failed(r#"["eq", "$absent", ""]"#)),
        (
            r#", {"X-Amz-Server-Side-Encryption-Customer-Key": "secret"}"#,
            failed(r#"["eq", "$X-Amz-Server-Side-Encryption-Customer-Key", "(not shown)"]"#),
        ),
        (r#", {"bucket": "other"}"#, failed(r#"["eq", "$bucket", "other"]"#)),
        (r#", ["content-length-range", "few", "10"]"#, failed(r#"["content-length-range", "few", "10"]"#)),
    ] {
        assert_eq!(check(&format!("{rest}{more}"), &fields), expected, "{more}");
    }
    assert_eq!(
        check(r#"["starts-with", "$key", ""], {"bucket": "photos"}"#, &fields),
        extra("acl, content-type, x-amz-meta-tag")
    );
    assert_eq!(check(r#"["starts-with", "$key", ""]"#, &FormFields::of([("key", "k")])), extra("bucket"));
    // SDKs send the bucket as a field, too.
    let sdk = FormFields::of([("key", "k"), ("bucket", "photos")]);
    assert_eq!(check(r#"["starts-with", "$key", ""], {"bucket": "photos"}"#, &sdk), Ok(all));
    // Two conditions of one name both hold, however they are written.
    assert!(check(r#"{"bucket": "photos"}, {"key": "k"}, {"key": "l"}"#, &FormFields::of([("key", "l")])).is_err());
}

#[test]
fn a_policy_ends_at_its_expiration() {
    let policy = policy(r#"{"bucket": "photos"}"#).expect("policy");
    let check = |now: &str| {
        let now = parse_iso8601(now).expect("date");
        policy.check(&FormFields::default(), "photos", now).map_err(|error| error.message().to_owned())
    };
    assert!(check("2029-12-31T23:59:59.999Z").is_ok());
    for now in [EXPIRATION, "2031-01-01T00:00:00Z"] {
        assert_eq!(check(now), Err("Invalid according to Policy: Policy expired.".to_owned()));
    }
}

#[test]
fn s3s_own_escapes_are_read() {
    let fields = FormFields::of([("key", "$a\u{b}\\$\u{e5}\n")]);
    let conditions = r#"{"bucket": "photos"}, {"key": "\$a\v\\$\u00e5\n"}"#;
    assert!(check(conditions, &fields).is_ok());
}

#[test]
fn a_document_that_is_no_policy_is_refused() {
    let (expiration, conditions) = (format!(r#""expiration": "{EXPIRATION}""#), r#""conditions": []"#);
    let with = |condition: &str| format!(r#"{{{expiration}, "conditions": [{condition}]}}"#);
    for (document, message) in [
        ("".to_owned(), "Invalid JSON."),
        ("[]".to_owned(), "Invalid JSON."),
        (format!("{{{expiration}, {conditions}"), "Invalid JSON."),
        (format!("{{{conditions}}}"), "Policy missing expiration."),
        (format!("{{{expiration}}}"), "Policy missing conditions."),
        (format!(r#"{{{expiration}, "CONDITIONS": []}}"#), "Unexpected: 'conditions'"),
        (format!(r#"{{{expiration}, {conditions}, "Statement": []}}"#), "Unexpected: 'statement'"),
        (format!(r#"{{{expiration}, {expiration}, {conditions}}}"#), "Invalid JSON."),
        (
            format!(r#"{{"expiration": "2030-01-01 00:00:00Z", {conditions}}}"#),
            "Invalid 'expiration' value: '2030-01-01 00:00:00Z'",
        ),
        (
            format!(r#"{{"expiration": "2030-01-01T00:00:00+01:00", {conditions}}}"#),
            "Invalid 'expiration' value: '2030-01-01T00:00:00+01:00'",
        ),
        (format!(r#"{{"expiration": 7, {conditions}}}"#), "Invalid 'expiration' value: must be a String."),
        (format!(r#"{{{expiration}, "conditions": {{}}}}"#), "Invalid 'conditions' value: must be a List."),
        (with("{}"), "Invalid Simple-Condition: Simple-Conditions must have exactly one property specified."),
        (
            with(r#"{"a": "b", "c": "d"}"#),
            "Invalid Simple-Condition: Simple-Conditions must have exactly one property specified.",
        ),
        (with(r#"{"a": 1}"#), "Invalid Simple-Condition: value must be a string."),
        (with(r#"{"a": null}"#), "Invalid JSON."),
        (with("7"), "Invalid condition test: must be a List or Object."),
        (with("[]"), "Invalid Condition: missing operation identifier."),
        (with(r#"["ends-with", "$a", "b"]"#), "Invalid Condition: unknown operation 'ends-with'."),
        (with(r#"["eq", "$a"]"#), "Invalid eq: wrong number of arguments."),
        (with(r#"["content-length-range", 0]"#), "Invalid content-length-range: wrong number of arguments."),
        (with(r#"["content-length-range", 0, 1, 2]"#), "Invalid content-length-range: wrong number of arguments."),
        (with(r#"["content-length-range", -1, 0]"#), "Invalid content-length-range: the bounds must not be negative."),
        (with(r#"["content-length-range", 0, 5.5]"#), "Invalid JSON."),
        (with(r#"["eq", "$a", 1]"#), "Invalid JSON."),
    ] {
        let refused = PostPolicy::parse(&STANDARD.encode(&document)).expect_err(&document);
        assert_eq!(refused.code(), S3Code::InvalidPolicyDocument, "{document}");
        assert_eq!(refused.message(), format!("Invalid Policy: {message}"), "{document}");
    }
    assert!(PostPolicy::parse("no base64!").is_err());
    let folded = STANDARD.encode(format!("{{{expiration}, {conditions}}}"));
    let (start, end) = folded.split_at(20);
    assert!(PostPolicy::parse(&format!("{start}\r\n{end}")).is_ok());
}

#[test]
fn awss_example_of_a_policy_admits_its_form() {
    let document = "{ \"expiration\": \"2015-12-30T12:00:00.000Z\",\r\n  \"conditions\": [\r\n    {\"bucket\": \"sigv4examplebucket\"},\r\n    [\"starts-with\", \"$key\", \"user/user1/\"],\r\n    {\"acl\": \"public-read\"},\r\n    {\"success_action_redirect\": \"http://sigv4examplebucket.s3.amazonaws.com/successful_upload.html\"},\r\n    [\"starts-with\", \"$Content-Type\", \"image/\"],\r\n    {\"x-amz-meta-uuid\": \"14365123651274\"},\r\n    {\"x-amz-server-side-encryption\": \"AES256\"},\r\n    [\"starts-with\", \"$x-amz-meta-tag\", \"\"],\r\n\r\n    {\"x-amz-credential\": \"AKIAIOSFODNN7EXAMPLE/20151229/us-east-1/s3/aws4_request\"},\r\n    {\"x-amz-algorithm\": \"AWS4-HMAC-SHA256\"},\r\n    {\"x-amz-date\": \"20151229T000000Z\" }\r\n  ]\r\n}";
    let policy = PostPolicy::parse(&STANDARD.encode(document)).expect("policy");
    let fields = FormFields::of([
        ("key", "user/user1/photo.jpg"),
        ("acl", "public-read"),
        ("success_action_redirect", "http://sigv4examplebucket.s3.amazonaws.com/successful_upload.html"),
        ("content-type", "image/jpeg"),
        ("x-amz-meta-uuid", "14365123651274"),
        ("x-amz-server-side-encryption", "AES256"),
        ("x-amz-credential", "AKIAIOSFODNN7EXAMPLE/20151229/us-east-1/s3/aws4_request"),
        ("x-amz-algorithm", "AWS4-HMAC-SHA256"),
        ("x-amz-date", "20151229T000000Z"),
        ("x-amz-meta-tag", ""),
        ("policy", "..."),
        ("x-amz-signature", "..."),
    ]);
    let now = parse_iso8601("2015-12-30T11:59:59Z").expect("date");
    assert!(policy.check(&fields, "sigv4examplebucket", now).is_ok());
}
