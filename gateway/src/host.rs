//! What a request is about: bucket and key out of host and path, and the query's parameters.
//!
//! Keys are bytes as given: the path is percent-decoded once and nothing in it is normalised.

use crate::error::{S3Code, S3Error};
use crate::limits::{BUCKET_NAME_LEN_BYTES_MAX, BUCKET_NAME_LEN_BYTES_MIN, KEY_LEN_BYTES_MAX};
use http::header::HOST;
use http::request::Parts;
use std::borrow::Cow;
use std::net::Ipv4Addr;
use valv_metadata_api::ObjectKey;

/// The host names under which a bucket's name may stand before the first dot ("virtual-host style").
#[derive(Debug, Clone, Default)]
pub struct HostConfig {
    /// Lower-case, without port, the longest first.
    base_domains: Vec<String>,
}

/// How the bucket was named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressingStyle {
    /// First segment of the path.
    Path,
    /// Label or labels before a base domain.
    VirtualHost,
}

/// What a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The bucket, not checked against the naming rules; `None` for the service itself.
    pub bucket: Option<String>,
    /// The key; `None` for the bucket itself. Never there without a bucket.
    pub key: Option<ObjectKey>,
    /// How the bucket was named.
    pub style: AddressingStyle,
}

impl HostConfig {
    /// Serves `bucket.domain` for each of `domains`; every other host name gets path style.
    pub fn new(domains: impl IntoIterator<Item = String>) -> Self {
        let mut base_domains: Vec<String> =
            domains.into_iter().map(|domain| domain.trim_matches('.').to_ascii_lowercase()).collect();
        base_domains.retain(|domain| !domain.is_empty());
        base_domains.sort_by_key(|domain| std::cmp::Reverse(domain.len()));
        Self { base_domains }
    }

    /// Reads a request's target.
    ///
    /// ```
    /// # use valv_gateway::host::HostConfig;
    /// let hosts = HostConfig::new(["s3.example.org".to_owned()]);
    /// let request = http::Request::get("/a%20//b").header("host", "scans.s3.example.org:9000").body(()).unwrap();
    /// let target = hosts.target(&request.into_parts().0).unwrap();
    /// assert_eq!(target.bucket.as_deref(), Some("scans"));
    /// assert_eq!(target.key.unwrap().as_bytes(), b"a //b");
    /// ```
    ///
    /// # Errors
    /// InvalidURI for a malformed percent-encoding, InvalidBucketName for a bucket that is not even UTF-8, and
    /// KeyTooLongError.
    pub fn target(&self, parts: &Parts) -> Result<Target, S3Error> {
        let path = parts.uri.path();
        let path = path.strip_prefix('/').unwrap_or(path);
        if let Some(bucket) = self.bucket_of_host(parts) {
            let key = if path.is_empty() { None } else { Some(decode_key(path)?) };
            return Ok(Target { bucket: Some(bucket), key, style: AddressingStyle::VirtualHost });
        }
        let style = AddressingStyle::Path;
        if path.is_empty() {
            return Ok(Target { bucket: None, key: None, style });
        }
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let bucket = percent_decode_strict(bucket.as_bytes()).ok_or(S3Code::InvalidURI)?.into_owned();
        let bucket = String::from_utf8(bucket).map_err(|_| S3Code::InvalidBucketName)?;
        if bucket.is_empty() {
            return Err(S3Error::new(S3Code::InvalidBucketName).with_extra("BucketName", bucket));
        }
        let key = if key.is_empty() { None } else { Some(decode_key(key)?) };
        Ok(Target { bucket: Some(bucket), key, style })
    }

    /// The endpoint that a host name means: lower-case, without port, and without a bucket before a base domain.
    ///
    /// ```
    /// # use valv_gateway::host::HostConfig;
    /// let hosts = HostConfig::new(["s3.example.org".to_owned()]);
    /// assert_eq!(hosts.endpoint("scans.S3.example.org:9000"), "s3.example.org");
    /// assert_eq!(hosts.endpoint("other.example.org"), "other.example.org");
    /// ```
    pub fn endpoint(&self, host: &str) -> String {
        let host = host.to_ascii_lowercase();
        let host = host_without_port(&host);
        // A host that is a base domain itself comes before one that lies below another, as for buckets.
        let is_endpoint = self.base_domains.iter().any(|domain| domain == host);
        let below = |domain: &&String| host.strip_suffix(domain.as_str()).is_some_and(|bucket| bucket.ends_with('.'));
        match self.base_domains.iter().find(below) {
            Some(domain) if !is_endpoint => domain.clone(),
            _ => host.to_owned(),
        }
    }

    fn bucket_of_host(&self, parts: &Parts) -> Option<String> {
        if self.base_domains.is_empty() {
            return None;
        }
        let host = request_host(parts)?.to_ascii_lowercase();
        let host = host_without_port(&host);
        // A host that *is* a base domain is path style, even if it also ends with another, shorter one.
        if self.base_domains.iter().any(|domain| domain == host) {
            return None;
        }
        let bucket =
            self.base_domains.iter().find_map(|domain| host.strip_suffix(domain.as_str())?.strip_suffix('.'))?;
        (!bucket.is_empty()).then(|| bucket.to_owned())
    }
}

/// The host that a request names, with its port: the Host header, or HTTP/2's `:authority`.
pub fn request_host(parts: &Parts) -> Option<&str> {
    match parts.headers.get(HOST) {
        Some(host) => host.to_str().ok(),
        None => parts.uri.authority().map(|authority| authority.as_str()),
    }
}

fn host_without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

fn decode_key(path: &str) -> Result<ObjectKey, S3Error> {
    let key = percent_decode_strict(path.as_bytes()).ok_or(S3Code::InvalidURI)?.into_owned();
    checked_key(key)
}

/// Takes a key's bytes, from wherever they came (path, XML, form, copy source).
///
/// # Errors
/// KeyTooLongError; InvalidArgument for an empty key.
pub fn checked_key(key: impl Into<Vec<u8>>) -> Result<ObjectKey, S3Error> {
    let key = key.into();
    let len = key.len();
    ObjectKey::new(key).ok_or_else(|| match len {
        0 => S3Error::invalid_argument("Object key must not be empty", "key", ""),
        _ => S3Error::new(S3Code::KeyTooLongError)
            .with_extra("Size", len.to_string())
            .with_extra("MaxSizeAllowed", KEY_LEN_BYTES_MAX.to_string()),
    })
}

/// Checks a bucket name against AWS's "General purpose bucket naming rules".
///
/// # Errors
/// InvalidBucketName.
pub fn check_bucket_name(name: &str) -> Result<(), S3Error> {
    const RESERVED_PREFIXES: [&str; 3] = ["xn--", "sthree-", "amzn-s3-demo-"];
    const RESERVED_SUFFIXES: [&str; 5] = ["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"];
    let is_alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    // Labels are DNS labels: this covers adjacent dots, dashes beside dots, and both at the ends.
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        bytes.first().is_some_and(|&b| is_alphanumeric(b))
            && bytes.last().is_some_and(|&b| is_alphanumeric(b))
            && bytes.iter().all(|&b| is_alphanumeric(b) || b == b'-')
    };
    let is_valid = (BUCKET_NAME_LEN_BYTES_MIN..=BUCKET_NAME_LEN_BYTES_MAX).contains(&name.len())
        && name.split('.').all(is_label)
        && name.parse::<Ipv4Addr>().is_err()
        && !RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        && !RESERVED_SUFFIXES.iter().any(|suffix| name.ends_with(suffix));
    match is_valid {
        true => Ok(()),
        false => Err(S3Error::new(S3Code::InvalidBucketName).with_extra("BucketName", name)),
    }
}

/// The parameters of a query, decoded, in the order in which they stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    parameters: Vec<(String, Vec<u8>)>,
}

impl Query {
    /// Reads a query string without its question mark. A plus is a space here, and only here.
    ///
    /// # Errors
    /// InvalidURI for a malformed percent-encoding or a name that is not UTF-8.
    pub fn parse(query: &str) -> Result<Self, S3Error> {
        let decode = |text: &str| -> Result<Vec<u8>, S3Error> {
            let spaced = text.replace('+', " ");
            Ok(percent_decode_strict(spaced.as_bytes()).ok_or(S3Code::InvalidURI)?.into_owned())
        };
        let mut parameters = Vec::new();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let name = String::from_utf8(decode(name)?).map_err(|_| S3Code::InvalidURI)?;
            parameters.push((name, decode(value)?));
        }
        Ok(Self { parameters })
    }

    /// Whether the parameter stands there, with or without a value.
    pub fn has(&self, name: &str) -> bool {
        self.parameters.iter().any(|(parameter, _)| parameter == name)
    }

    /// The first value of a parameter, as bytes: prefixes, markers and delimiters are bytes as keys are.
    pub fn get_bytes(&self, name: &str) -> Option<&[u8]> {
        self.parameters.iter().find(|(parameter, _)| parameter == name).map(|(_, value)| value.as_slice())
    }

    /// The first value of a parameter, as text.
    ///
    /// # Errors
    /// InvalidArgument if it is not UTF-8.
    pub fn get(&self, name: &str) -> Result<Option<&str>, S3Error> {
        let Some(bytes) = self.get_bytes(name) else { return Ok(None) };
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(S3Error::invalid_argument("The parameter is not valid UTF-8", name, "")),
        }
    }

    /// Every value of a parameter.
    pub fn all_bytes<'q>(&'q self, name: &'q str) -> impl Iterator<Item = &'q [u8]> {
        self.parameters.iter().filter(move |(parameter, _)| parameter == name).map(|(_, value)| value.as_slice())
    }

    /// Every parameter.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.parameters.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }
}

/// Percent-decodes; what is not a valid escape stays as it is.
pub fn percent_decode(bytes: &[u8]) -> Cow<'_, [u8]> {
    decode(bytes).0
}

/// Percent-decodes; `None` if a percent sign is not followed by two hexadecimal digits.
pub fn percent_decode_strict(bytes: &[u8]) -> Option<Cow<'_, [u8]>> {
    match decode(bytes) {
        (decoded, Escapes::AllValid) => Some(decoded),
        (_, Escapes::SomeInvalid) => None,
    }
}

#[derive(Clone, Copy)]
enum Escapes {
    AllValid,
    SomeInvalid,
}

fn decode(bytes: &[u8]) -> (Cow<'_, [u8]>, Escapes) {
    let Some(first) = memchr::memchr(b'%', bytes) else { return (Cow::Borrowed(bytes), Escapes::AllValid) };
    let mut out = Vec::with_capacity(bytes.len());
    out.extend_from_slice(&bytes[..first]);
    let mut rest = &bytes[first..];
    let mut escapes = Escapes::AllValid;
    while let [byte, after @ ..] = rest {
        if *byte != b'%' {
            out.push(*byte);
            rest = after;
        } else if let [high, low, after @ ..] = after
            && let (Some(high), Some(low)) = (hex_digit(*high), hex_digit(*low))
        {
            out.push(high << 4 | low);
            rest = after;
        } else {
            escapes = Escapes::SomeInvalid;
            out.push(b'%');
            rest = after;
        }
    }
    (Cow::Owned(out), escapes)
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use proptest::prelude::*;

    fn target(hosts: &HostConfig, host: &str, path: &str) -> Result<Target, S3Code> {
        let request = Request::get(path).header("host", host).body(()).expect("request");
        hosts.target(&request.into_parts().0).map_err(|error| error.code())
    }

    fn found(bucket: &str, key: &[u8], style: AddressingStyle) -> Result<Target, S3Code> {
        let bucket = (!bucket.is_empty()).then(|| bucket.to_owned());
        Ok(Target { bucket, key: ObjectKey::new(key), style })
    }

    #[test]
    fn path_style_takes_keys_as_they_are() {
        let hosts = HostConfig::default();
        let path = AddressingStyle::Path;
        for (uri, bucket, key) in [
            ("/", "", &b""[..]),
            ("/b", "b", b""),
            ("/b/", "b", b""),
            ("/b//", "b", b"/"),
            ("/b/k", "b", b"k"),
            ("/b/a//b", "b", b"a//b"),
            ("/b//a", "b", b"/a"),
            ("/b/a/./b", "b", b"a/./b"),
            ("/b/a/../b", "b", b"a/../b"),
            ("/b/..", "b", b".."),
            ("/b/a%2Fb", "b", b"a/b"),
            ("/b/a+b", "b", b"a+b"),
            ("/b/a%20b%2B", "b", b"a b+"),
            ("/b/%ff%00", "b", b"\xff\x00"),
            ("/b/k/", "b", b"k/"),
            ("/b/k?versionId=1", "b", b"k"),
        ] {
            assert_eq!(target(&hosts, "127.0.0.1:9000", uri), found(bucket, key, path), "{uri}");
        }
    }

    #[test]
    fn malformed_paths_are_refused() {
        let hosts = HostConfig::default();
        for (uri, code) in [
            ("/b/%", S3Code::InvalidURI),
            ("/b/%4", S3Code::InvalidURI),
            ("/b/%zz", S3Code::InvalidURI),
            ("/%zz/k", S3Code::InvalidURI),
            ("/%ff/k", S3Code::InvalidBucketName),
            ("//k", S3Code::InvalidBucketName),
        ] {
            assert_eq!(target(&hosts, "h", uri), Err(code), "{uri}");
        }
        let longest = format!("/b/{}", "%41".repeat(1024));
        assert!(target(&hosts, "h", &longest).is_ok());
        assert_eq!(target(&hosts, "h", &format!("{longest}a")), Err(S3Code::KeyTooLongError));
    }

    #[test]
    fn virtual_hosts_name_the_bucket_only_under_a_base_domain() {
        let hosts = HostConfig::new(["example.org".to_owned(), "S3.example.org".to_owned()]);
        let (path, virtual_host) = (AddressingStyle::Path, AddressingStyle::VirtualHost);
        for (host, uri, expected) in [
            ("scans.s3.example.org", "/k", found("scans", b"k", virtual_host)),
            ("scans.s3.example.org:9000", "/", found("scans", b"", virtual_host)),
            ("SCANS.S3.EXAMPLE.ORG", "/a/b", found("scans", b"a/b", virtual_host)),
            ("a.b.s3.example.org", "/k", found("a.b", b"k", virtual_host)),
            ("scans.example.org", "/k", found("scans", b"k", virtual_host)),
            ("s3.example.org", "/b/k", found("b", b"k", path)),
            ("example.org", "/b/k", found("b", b"k", path)),
            ("evilexample.org", "/b/k", found("b", b"k", path)),
            (".s3.example.org", "/b/k", found("b", b"k", path)),
            ("[::1]:9000", "/b/k", found("b", b"k", path)),
        ] {
            assert_eq!(target(&hosts, host, uri), expected, "{host} {uri}");
        }
    }

    #[test]
    fn bucket_names_follow_the_rules_of_aws() {
        for good in ["abc", "a.b", "my-bucket-1", "1bucket", "a-b.c-d", &"a".repeat(63)] {
            assert!(check_bucket_name(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "ab",
            &"a".repeat(64),
            "Abc",
            "a_b",
            "-ab",
            "ab-",
            ".ab",
            "ab.",
            "a..b",
            "a.-b",
            "a-.b",
            "192.168.5.4",
            "xn--abc",
            "sthree-x",
            "abc-s3alias",
            "abc--ol-s3",
            "abc.mrap",
            "a/b",
            "a b",
            "å-bucket",
            "amzn-s3-demo-b",
        ] {
            assert!(check_bucket_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn queries_are_decoded_in_order() {
        let query = Query::parse("prefix=a+b%2B&uploads&x=%ff&prefix=2&=v").expect("query");
        assert_eq!(query.get("prefix").expect("text"), Some("a b+"));
        assert!(query.has("uploads") && !query.has("Uploads"));
        assert_eq!(query.get("uploads").expect("text"), Some(""));
        assert_eq!(query.get_bytes("x"), Some(&b"\xff"[..]));
        assert!(query.get("x").is_err());
        assert_eq!(query.all_bytes("prefix").collect::<Vec<_>>(), [&b"a b+"[..], b"2"]);
        assert_eq!(query.iter().count(), 5);
        assert!(Query::parse("a=%g0").is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn every_key_survives_percent_encoding(key in prop::collection::vec(any::<u8>(), 1..64)) {
            let encoded: String = key.iter().map(|byte| format!("%{byte:02X}")).collect();
            let expected = found("b", &key, AddressingStyle::Path);
            prop_assert_eq!(target(&HostConfig::default(), "h", &format!("/b/{encoded}")), expected);
        }

        #[test]
        fn no_input_makes_a_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), text in ".{0,64}") {
            let _ = (percent_decode(&bytes), percent_decode_strict(&bytes));
            let _ = (Query::parse(&text), check_bucket_name(&text), host_without_port(&text));
        }
    }
}
