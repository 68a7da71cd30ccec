//! What a request names: host, target, query, operation, bucket name, x-amz-copy-source. Input: three lines, a host, a
//! request target and a copy source.

use http::{HeaderMap, Method, Request};
use valv_gateway::fuzzing::copy_source;
use valv_gateway::host::{AddressingStyle, HostConfig, Query, check_bucket_name};
use valv_gateway::router::{Operation, route};
use valv_gateway::xml::url_encode;
use valv_metadata_api::VersionSelector;

/// Words of targets.
pub const WORDS: &[&str] = &[
    "/",
    "//",
    "/../",
    "/./",
    "%2F",
    "%2f",
    "%00",
    "%ff",
    "%",
    "%z",
    "+",
    "?",
    "&",
    "=",
    "#",
    "bucket",
    ".s3.example.org",
    "s3.example.org",
    ":9000",
    "[::1]",
    "versionId=",
    "null",
    "?versionId=null",
    "?versions",
    "?uploads",
    "?uploadId=a&partNumber=1",
    "?policy",
    "?acl&tagging",
    "?list-type=2",
    "\n",
    "http://h/",
    "*",
    "arn:aws:s3:::b/k",
    "xn--a",
    "192.168.0.1",
];

/// See the module.
pub fn run(data: &[u8]) {
    let mut lines = data.splitn(3, |&byte| byte == b'\n');
    let (host, target, source) = (lines.next(), lines.next(), lines.next());
    if let (Some(host), Some(target)) = (host, target) {
        requested(host, target);
    }
    if let Some(Ok(source)) = source.map(std::str::from_utf8) {
        copied(source);
    }
}

fn requested(host: &[u8], target: &[u8]) {
    let Ok(request) = Request::get(target).header("host", host).body(()) else { return };
    let parts = request.into_parts().0;
    let hosts = HostConfig::new(["s3.example.org".to_owned(), "example.org".to_owned()]);
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    if let Ok(query) = &query {
        let pairs: Vec<String> = query
            .iter()
            .map(|(name, value)| format!("{}={}", url_encode(name.as_bytes()), url_encode(value)))
            .collect();
        assert_eq!(Query::parse(&pairs.join("&")).ok().as_ref(), Some(query), "encoded and read again");
    }
    let Ok(target) = hosts.target(&parts) else { return };
    if let Some(bucket) = &target.bucket
        && check_bucket_name(bucket).is_ok()
    {
        assert!((3..=63).contains(&bucket.len()) && !bucket.contains("..") && !bucket.contains('/'));
        assert!(bucket.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.'));
    }
    assert!(target.bucket.is_some() || target.key.is_none(), "a key without a bucket");
    if let Some(key) = &target.key {
        assert!((1..=1024).contains(&key.as_bytes().len()));
    }

    // The same bucket and key, written in the plainest way, name the same.
    let bucket = target.bucket.as_deref().unwrap_or_default();
    let key = target.key.as_ref().map(|key| url_encode(key.as_bytes())).unwrap_or_default();
    let (host, path) = match (target.style, &target.bucket) {
        (AddressingStyle::VirtualHost, _) => (format!("{bucket}.s3.example.org"), format!("/{key}")),
        (AddressingStyle::Path, Some(_)) => {
            ("127.0.0.1".to_owned(), format!("/{}/{key}", url_encode(bucket.as_bytes()).replace('/', "%2F")))
        }
        (AddressingStyle::Path, None) => ("127.0.0.1".to_owned(), "/".to_owned()),
    };
    if let Ok(plain) = Request::get(path).header("host", host).body(()) {
        let plain = hosts.target(&plain.into_parts().0).map_err(|error| error.code());
        assert_eq!(plain.as_ref(), Ok(&target), "written plainly and read again");
    }

    let Ok(query) = query else { return };
    let is_service = target.bucket.is_none();
    for method in [Method::GET, Method::HEAD, Method::PUT, Method::POST, Method::DELETE, Method::OPTIONS, Method::PATCH]
    {
        let Ok(operation) = route(&method, &target, &query, &HeaderMap::new()) else { continue };
        assert!(Operation::ALL.contains(&operation));
        // Reading never becomes writing, whatever the query says.
        let name = operation.name();
        if method == Method::GET || method == Method::HEAD {
            assert!(
                name.starts_with("Get") || name.starts_with("Head") || name.starts_with("List"),
                "{method}: {name}"
            );
        }
        assert!(!is_service || matches!(name, "ListBuckets" | "Preflight"), "{name} without a bucket");
    }
}

fn copied(source: &str) {
    let Ok((bucket, key, version)) = copy_source(source) else { return };
    assert!(!bucket.is_empty() && !bucket.contains('/') && !bucket.starts_with("arn:"));
    assert!((1..=1024).contains(&key.as_bytes().len()));
    let version_text = match version {
        VersionSelector::Current => String::new(),
        VersionSelector::Null => "?versionId=null".to_owned(),
        VersionSelector::Id(id) => format!("?versionId={id}"),
    };
    for slash in ["", "/"] {
        let plain = format!("{slash}{}/{}{version_text}", url_encode(bucket.as_bytes()), url_encode(key.as_bytes()));
        let again = copy_source(&plain).map_err(|error| error.code());
        assert_eq!(again, Ok((bucket.clone(), key.clone(), version)), "written plainly and read again");
        let form = plain.replace("%20", "+");
        let again = copy_source(&form).map_err(|error| error.code());
        assert_eq!(again, Ok((bucket.clone(), key.clone(), version)), "a plus is a space");
    }
}
