//! The canonical request: "Task 1: Create a Canonical Request" in AWS's documentation, with S3's exceptions (the path is
//! encoded once and never normalised).

use crate::host::percent_decode;
use http::header::HOST;
use http::request::Parts;
use std::borrow::Cow;

/// How path and query are written.
///
/// AWS's text says to URI-encode them; clients that take the URL as they sent it agree with it unless they leave a
/// reserved character bare or encode one that need not be. Both forms are functions of what was received, so accepting
/// either lets nobody change a signed request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Decoded, then encoded as AWS's UriEncode() does.
    Encoded,
    /// The bytes on the wire.
    AsSent,
}

/// The bytes whose hash is signed.
pub(super) fn canonical_request(parts: &Parts, signed_headers: &[String], payload_hash: &str, form: Form) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(parts.method.as_str().as_bytes());
    out.push(b'\n');
    let path = match parts.uri.path() {
        "" => "/",
        path => path,
    };
    match form {
        Form::Encoded => uri_encode(&percent_decode(path.as_bytes()), Slash::Keep, &mut out),
        Form::AsSent => out.extend_from_slice(path.as_bytes()),
    }
    out.push(b'\n');
    canonical_query(parts.uri.query().unwrap_or_default(), form, &mut out);
    out.push(b'\n');
    for name in signed_headers {
        out.extend_from_slice(name.as_bytes());
        out.push(b':');
        canonical_values(parts, name, &mut out);
        out.push(b'\n');
    }
    out.push(b'\n');
    out.extend_from_slice(signed_headers.join(";").as_bytes());
    out.push(b'\n');
    out.extend_from_slice(payload_hash.as_bytes());
    out
}

/// Parameters sorted by encoded name, then by encoded value; the signature itself is left out.
fn canonical_query(query: &str, form: Form, out: &mut Vec<u8>) {
    let mut parameters: Vec<_> = query
        .split('&')
        .filter(|parameter| !parameter.is_empty())
        .map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")))
        .filter(|(name, _)| *name != "X-Amz-Signature")
        .map(|(name, value)| (canonical_component(name, form), canonical_component(value, form)))
        .collect();
    parameters.sort_unstable();
    for (index, (name, value)) in parameters.iter().enumerate() {
        if index > 0 {
            out.push(b'&');
        }
        out.extend_from_slice(name);
        out.push(b'=');
        out.extend_from_slice(value);
    }
}

fn canonical_component(text: &str, form: Form) -> Cow<'_, [u8]> {
    match form {
        Form::AsSent => Cow::Borrowed(text.as_bytes()),
        Form::Encoded => {
            // In a query, and only there, a plus is a space (HTML's form encoding); it is signed as %20.
            let spaced: Cow<'_, [u8]> = match text.contains('+') {
                true => Cow::Owned(text.replace('+', " ").into_bytes()),
                false => Cow::Borrowed(text.as_bytes()),
            };
            let mut encoded = Vec::with_capacity(text.len());
            uri_encode(&percent_decode(&spaced), Slash::Encode, &mut encoded);
            Cow::Owned(encoded)
        }
    }
}

/// The header's values joined by commas, each trimmed and with runs of spaces and tabs made one space.
fn canonical_values(parts: &Parts, name: &str, out: &mut Vec<u8>) {
    let mut is_first = true;
    for value in parts.headers.get_all(name) {
        if !is_first {
            out.push(b',');
        }
        is_first = false;
        collapse(value.as_bytes(), out);
    }
    // HTTP/2 carries the host as :authority, which hyper puts into the URI.
    if is_first
        && name == HOST.as_str()
        && let Some(authority) = parts.uri.authority()
    {
        out.extend_from_slice(authority.as_str().as_bytes());
    }
}

fn collapse(value: &[u8], out: &mut Vec<u8>) {
    let words = value.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
    for (index, word) in words.enumerate() {
        if index > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(word);
    }
}

/// What UriEncode() does with a slash.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Slash {
    Keep,
    Encode,
}

/// AWS's UriEncode(): everything but letters, digits, `-`, `.`, `_` and `~` becomes %XX with upper-case digits.
fn uri_encode(bytes: &[u8], slash: Slash, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte),
            b'/' if slash == Slash::Keep => out.push(byte),
            _ => out.extend_from_slice(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 0x0f)]]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn parts(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut builder = Request::get(uri);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).expect("request").into_parts().0
    }

    fn query_of(query: &str, form: Form) -> String {
        let mut out = Vec::new();
        canonical_query(query, form, &mut out);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn query_parameters_are_encoded_and_sorted() {
        for (query, expected) in [
            ("", ""),
            ("lifecycle", "lifecycle="),
            ("max-keys=2&prefix=J", "max-keys=2&prefix=J"),
            ("prefix=J&max-keys=2", "max-keys=2&prefix=J"),
            ("a=2&a=1", "a=1&a=2"),
            ("a-b=1&a=2", "a=2&a-b=1"),
            ("prefix=a%2fb&delimiter=/", "delimiter=%2F&prefix=a%2Fb"),
            ("prefix=a+b&x=%2B", "prefix=a%20b&x=%2B"),
            ("a=b=c&&", "a=b%3Dc"),
            ("key=%zz", "key=%25zz"),
            ("X-Amz-Signature=abc&b=1", "b=1"),
        ] {
            assert_eq!(query_of(query, Form::Encoded), expected, "{query}");
        }
        assert_eq!(query_of("b=a+b&a=/", Form::AsSent), "a=/&b=a+b");
    }

    #[test]
    fn paths_are_encoded_once_and_never_normalised() {
        for (path, expected) in [
            ("/", "/"),
            ("/test%24file.text", "/test%24file.text"),
            ("/test$file.text", "/test%24file.text"),
            ("/a//b/./c/../d", "/a//b/./c/../d"),
            ("/a%2Fb", "/a/b"),
            ("/a+b", "/a%2Bb"),
            ("/%e5%bc%a0", "/%E5%BC%A0"),
        ] {
            let request = canonical_request(&parts(path, &[]), &[], "H", Form::Encoded);
            assert_eq!(request, format!("GET\n{expected}\n\n\n\nH").into_bytes(), "{path}");
        }
    }

    #[test]
    fn header_values_are_trimmed_collapsed_and_joined() {
        let parts = parts("http://h.example:1/", &[("x-amz-a", "  1  2\t3 "), ("x-amz-a", "4"), ("x-amz-b", "")]);
        let signed = ["host", "x-amz-a", "x-amz-b"].map(str::to_owned);
        let request = canonical_request(&parts, &signed, "H", Form::Encoded);
        let expected = "GET\n/\n\nhost:h.example:1\nx-amz-a:1 2 3,4\nx-amz-b:\n\nhost;x-amz-a;x-amz-b\nH";
        assert_eq!(String::from_utf8(request).expect("ASCII"), expected);
    }
}
