//! The canonical request: "Task 1: Create a Canonical Request" in AWS's documentation, with S3's exceptions (the path is
//! encoded once and never normalised).

use crate::host::percent_decode;
use http::header::{ACCEPT_ENCODING, HOST};
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

/// What clients that sign their `Accept-Encoding` put there: the AWS SDK for Go and rclone `identity` or `gzip`, Python's
/// and Go's HTTP libraries the lists, some nothing at all. A short list of constants, so that a wrong signature costs a
/// bounded number of hashes.
const ACCEPT_ENCODINGS_SIGNED: [&str; 4] = ["identity", "gzip", "gzip, deflate", ""];

/// One way to read the request that a client may have signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reading {
    /// How path and query were written.
    pub(super) form: Form,
    /// What `Accept-Encoding` was before a proxy rewrote it; `None` takes it as received.
    pub(super) accept_encoding: Option<&'static str>,
}

impl Reading {
    /// The request as a client signs it.
    #[cfg(test)]
    pub(super) const AS_RECEIVED: Self = Self { form: Form::Encoded, accept_encoding: None };

    /// Every reading to try, the likeliest first: 2, or 10 if `Accept-Encoding` is among the signed headers.
    ///
    /// Proxies (Cloudflare, nginx with `proxy_set_header`, accelerators) rewrite `Accept-Encoding`, and a client that
    /// signed it could then not be served at all (rclone #8206). So its usual originals are tried. That weakens nothing:
    /// the header is one that a client need not sign, Valv never reads it and never compresses an answer, and everything
    /// that does change what a request means (method, path, query, host, every x-amz header, the body's hash) is under
    /// the signature in each reading.
    pub(super) fn all(signed_headers: &[String]) -> impl Iterator<Item = Self> {
        let is_signed = signed_headers.iter().any(|name| name == ACCEPT_ENCODING.as_str());
        let originals = ACCEPT_ENCODINGS_SIGNED.into_iter().filter(move |_| is_signed).map(Some);
        std::iter::once(None).chain(originals).flat_map(|accept_encoding| {
            [Form::Encoded, Form::AsSent].into_iter().map(move |form| Self { form, accept_encoding })
        })
    }
}

/// The bytes whose hash is signed.
pub(super) fn canonical_request(
    parts: &Parts,
    signed_headers: &[String],
    payload_hash: &str,
    reading: Reading,
) -> Vec<u8> {
    let Reading { form, accept_encoding } = reading;
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
        match accept_encoding.filter(|_| name == ACCEPT_ENCODING.as_str()) {
            Some(original) => out.extend_from_slice(original.as_bytes()),
            None => canonical_values(parts, name, &mut out),
        }
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
            let request = canonical_request(&parts(path, &[]), &[], "H", Reading::AS_RECEIVED);
            assert_eq!(request, format!("GET\n{expected}\n\n\n\nH").into_bytes(), "{path}");
        }
    }

    #[test]
    fn header_values_are_trimmed_collapsed_and_joined() {
        let parts = parts("http://h.example:1/", &[("x-amz-a", "  1  2\t3 "), ("x-amz-a", "4"), ("x-amz-b", "")]);
        let signed = ["host", "x-amz-a", "x-amz-b"].map(str::to_owned);
        let request = canonical_request(&parts, &signed, "H", Reading::AS_RECEIVED);
        let expected = "GET\n/\n\nhost:h.example:1\nx-amz-a:1 2 3,4\nx-amz-b:\n\nhost;x-amz-a;x-amz-b\nH";
        assert_eq!(String::from_utf8(request).expect("ASCII"), expected);
    }
}
