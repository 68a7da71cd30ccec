//! Headers that the maker of a presigned URL moved into its query, as several SDKs do: whoever uses the URL need not send
//! them, and can't leave them out.
//!
//! The signature covers the whole query, so they are as good as signed headers. S3 takes them all but the checksums, which
//! SDKs compute there over a body that they don't have.

use crate::error::S3Error;
use crate::host::Query;
use http::{HeaderMap, HeaderName, HeaderValue};

/// What says how the URL is signed, or how a body is transferred, and is no header of the request that was signed.
const NOT_MOVED: [&str; 11] = [
    "x-amz-algorithm",
    "x-amz-content-sha256",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-decoded-content-length",
    "x-amz-expires",
    "x-amz-security-token",
    "x-amz-signature",
    "x-amz-signedheaders",
    "x-amz-trailer",
    "x-amz-user-agent",
];
/// What a version 2 URL may carry besides.
const OF_VERSION_2: [&str; 2] = ["content-md5", "content-type"];

/// The request's headers with those of its query, if there are any; a header that was sent goes before one that was moved.
///
/// # Errors
/// InvalidArgument for a value that no header can have.
pub(crate) fn merged(query: &Query, headers: &HeaderMap) -> Result<Option<HeaderMap>, S3Error> {
    let is_version_2 = crate::sigv2::is_presigned(query);
    let mut all: Option<HeaderMap> = None;
    for (parameter, value) in query.iter() {
        let name = parameter.to_ascii_lowercase();
        let is_amz = name.starts_with("x-amz-")
            && !NOT_MOVED.contains(&name.as_str())
            && !name.starts_with("x-amz-checksum-")
            && !name.starts_with("x-amz-sdk-");
        let is_moved = is_amz || (is_version_2 && OF_VERSION_2.contains(&name.as_str()));
        if !is_moved || headers.contains_key(&name) {
            continue;
        }
        let invalid = || S3Error::invalid_argument("The parameter can't stand for a header", name.clone(), "");
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid())?;
        let value = HeaderValue::from_bytes(value).map_err(|_| invalid())?;
        all.get_or_insert_with(|| headers.clone()).append(header, value);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_the_query_are_taken_and_sent_ones_go_first() {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-acl", HeaderValue::from_static("private"));
        let query = |text: &str| Query::parse(text).expect("query");
        let both = merged(&query("X-Amz-Signature=ab&x-amz-acl=public-read&X-Amz-Meta-Site=Lund%20"), &headers);
        let both = both.expect("valid").expect("some");
        assert_eq!(
            (&both["x-amz-acl"], &both["x-amz-meta-site"]),
            (&"private".parse().expect("value"), &"Lund ".parse().expect("value"))
        );
        for nothing in [
            "X-Amz-Signature=ab&X-Amz-Date=1&X-Amz-Expires=2&versionId=3",
            "X-Amz-Signature=ab&x-amz-checksum-crc32=AAAAAA%3D%3D&x-amz-sdk-checksum-algorithm=CRC32",
            "X-Amz-Signature=ab&content-type=text%2Fplain",
        ] {
            assert!(merged(&query(nothing), &headers).expect("valid").is_none(), "{nothing}");
        }
        let v2 = merged(&query("AWSAccessKeyId=a&Signature=b&Expires=1&content-type=text%2Fplain"), &headers);
        assert_eq!(v2.expect("valid").expect("some")["content-type"], "text/plain");
        assert!(merged(&query("x-amz-meta-a=%0D%0Ab"), &headers).is_err());
    }
}
