//! What a request promises about its body's digests, and the check that it kept the promise.

use super::{ALGORITHMS, Digests, algorithm_name, header_name_str, parse_algorithm, parse_digest};
use crate::error::{S3Code, S3Error};
use crate::payload::{PayloadMode, Trailers};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use subtle::ConstantTimeEq as _;
use valv_metadata_api::ChecksumAlgorithm;

/// Where a checksum's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChecksumSource {
    /// A header: the digest.
    Header(Vec<u8>),
    /// A trailer, known only after the body.
    Trailer,
}

/// The digests that a request gives for its body.
///
/// ```
/// # use valv_gateway::checksum::{BodyHasher, ExpectedDigests, WithMd5};
/// # use valv_gateway::payload::PayloadMode;
/// let mut headers = http::HeaderMap::new();
/// headers.insert("x-amz-checksum-crc32c", "4waSgw==".parse().unwrap());
/// let expected = ExpectedDigests::from_headers(&headers, &PayloadMode::Unsigned).unwrap();
/// let mut hasher = BodyHasher::new(WithMd5::Yes, expected.algorithm());
/// hasher.update(b"123456789");
/// assert!(expected.verify(&hasher.finish(), &vec![]).is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExpectedDigests {
    content_md5: Option<[u8; 16]>,
    checksum: Option<(ChecksumAlgorithm, ChecksumSource)>,
}

impl ExpectedDigests {
    /// Reads Content-MD5, `x-amz-checksum-*`, `x-amz-trailer` and `x-amz-sdk-checksum-algorithm`.
    ///
    /// # Errors
    /// InvalidDigest for a malformed Content-MD5, BadDigest for a malformed checksum; InvalidRequest for more than one
    /// checksum, an unknown one, or an announced algorithm without a value.
    pub fn from_headers(headers: &HeaderMap, mode: &PayloadMode) -> Result<Self, S3Error> {
        let content_md5 = match headers.get("content-md5") {
            None => None,
            Some(value) => Some(parse_content_md5(value.as_bytes())?),
        };
        let mut checksum: Option<(ChecksumAlgorithm, ChecksumSource)> = None;
        let mut add = |found: (ChecksumAlgorithm, ChecksumSource)| match checksum.replace(found) {
            None => Ok(()),
            Some(_) => Err(S3Error::invalid_request(
                "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
            )),
        };
        for (name, value) in headers {
            let Some(suffix) = name.as_str().strip_prefix("x-amz-checksum-") else { continue };
            // These name an algorithm, a type or a mode; they are no digests.
            if matches!(suffix, "algorithm" | "type" | "mode") {
                continue;
            }
            let algorithm = algorithm_of_header(name.as_str()).ok_or_else(|| {
                S3Error::invalid_request("The algorithm type you specified in x-amz-checksum- header is invalid.")
            })?;
            let text = value.to_str().unwrap_or_default();
            add((algorithm, ChecksumSource::Header(parse_digest(algorithm, text)?)))?;
        }
        if mode.has_trailers() {
            for value in headers.get_all("x-amz-trailer") {
                let names = value.to_str().unwrap_or_default().split(',').map(|name| name.trim().to_ascii_lowercase());
                for name in names.filter(|name| !name.is_empty()) {
                    let algorithm = algorithm_of_header(&name).ok_or_else(|| {
                        S3Error::invalid_request("The value specified in the x-amz-trailer header is not supported")
                    })?;
                    add((algorithm, ChecksumSource::Trailer))?;
                }
            }
        }
        if let Some(named) = headers.get("x-amz-sdk-checksum-algorithm") {
            let named = parse_algorithm(named.to_str().unwrap_or_default())
                .map_err(|_| S3Error::invalid_request("Value for x-amz-sdk-checksum-algorithm header is invalid."))?;
            match &checksum {
                Some((algorithm, _)) if *algorithm == named => {}
                // Content-MD5 in its place is what SDKs send for operations that demand it.
                None if content_md5.is_some() => {}
                Some(_) => {
                    return Err(S3Error::invalid_request("Value for x-amz-sdk-checksum-algorithm header is invalid."));
                }
                None => {
                    return Err(S3Error::invalid_request(
                        "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer \
                         headers were found.",
                    ));
                }
            }
        }
        Ok(Self { content_md5, checksum })
    }

    /// The algorithm whose digest must be computed to verify this.
    pub fn algorithm(&self) -> Option<ChecksumAlgorithm> {
        self.checksum.as_ref().map(|(algorithm, _)| *algorithm)
    }

    /// Whether the MD5 must be computed to verify this.
    pub const fn needs_md5(&self) -> bool {
        self.content_md5.is_some()
    }

    /// Whether the request gave any digest at all; some operations demand one.
    pub const fn is_empty(&self) -> bool {
        self.content_md5.is_none() && self.checksum.is_none()
    }

    /// Checks the digests of a body that has ended, with its trailers.
    ///
    /// # Errors
    /// BadDigest; MalformedTrailerError if an announced trailer did not come.
    pub fn verify(&self, digests: &Digests, trailers: &Trailers) -> Result<(), S3Error> {
        if let Some(expected) = self.content_md5 {
            match digests.md5() {
                Some(computed) if bool::from(expected.ct_eq(&computed)) => {}
                computed => {
                    let hexadecimal = |md5: Option<[u8; 16]>| md5.map(hex::encode).unwrap_or_default();
                    return Err(S3Error::new(S3Code::BadDigest)
                        .with_message("The Content-MD5 you specified did not match what we received.")
                        .with_extra("ExpectedDigest", super::encode(&expected))
                        .with_extra("CalculatedDigest", hexadecimal(computed)));
                }
            }
        }
        let Some((algorithm, source)) = &self.checksum else { return Ok(()) };
        let expected = match source {
            ChecksumSource::Header(digest) => digest.clone(),
            ChecksumSource::Trailer => {
                let name = header_name_str(*algorithm);
                let value = trailers.iter().find(|(trailer, _)| trailer == name);
                let (_, text) = value.ok_or(S3Code::MalformedTrailerError)?;
                parse_digest(*algorithm, text)?
            }
        };
        match digests.checksum(*algorithm) {
            Some(computed) if bool::from(expected.ct_eq(computed)) => Ok(()),
            _ => Err(S3Error::new(S3Code::BadDigest).with_message(format!(
                "The {} you specified did not match the calculated checksum.",
                algorithm_name(*algorithm)
            ))),
        }
    }
}

fn algorithm_of_header(name: &str) -> Option<ChecksumAlgorithm> {
    ALGORITHMS.into_iter().find(|&algorithm| header_name_str(algorithm) == name)
}

fn parse_content_md5(value: &[u8]) -> Result<[u8; 16], S3Error> {
    let invalid = || {
        S3Error::new(S3Code::InvalidDigest)
            .with_message("The Content-MD5 you specified was invalid.")
            .with_extra("Content-MD5", String::from_utf8_lossy(value))
    };
    let digest = STANDARD.decode(value.trim_ascii()).map_err(|_| invalid())?;
    digest.try_into().map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::super::{BodyHasher, WithMd5};
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().expect("ASCII"))).collect()
    }

    fn digests(expected: &ExpectedDigests) -> Digests {
        let mut hasher = BodyHasher::new(WithMd5::Yes, expected.algorithm());
        hasher.update(b"123456789");
        hasher.finish()
    }

    fn judge(pairs: &[(&'static str, &str)], mode: PayloadMode, trailers: &[(&str, &str)]) -> Option<S3Code> {
        let trailers = trailers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let verified = ExpectedDigests::from_headers(&headers(pairs), &mode)
            .and_then(|expected| expected.verify(&digests(&expected), &trailers));
        verified.err().map(|error| error.code())
    }

    #[test]
    fn digests_in_headers_are_verified() {
        let (bad, invalid) = (Some(S3Code::BadDigest), Some(S3Code::InvalidRequest));
        for (pairs, expected) in [
            (vec![], None),
            (vec![("content-md5", "JfnnlDI7RTiF9RgfG2JNCw==")], None),
            (vec![("content-md5", "AAAAAAAAAAAAAAAAAAAAAA==")], bad),
            (vec![("content-md5", "")], Some(S3Code::InvalidDigest)),
            (vec![("content-md5", "YWJj")], Some(S3Code::InvalidDigest)),
            (vec![("x-amz-checksum-crc32", "y/Q5Jg==")], None),
            (vec![("x-amz-checksum-crc32c", "4waSgw==")], None),
            (vec![("x-amz-checksum-crc64nvme", "rosUhgp5mIg=")], None),
            (vec![("x-amz-checksum-sha1", "98O8HYCOBHMq32eZZczDTKeuNEE=")], None),
            (vec![("x-amz-checksum-sha256", "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU=")], None),
            (vec![("x-amz-checksum-crc32", "AAAAAA==")], bad),
            (vec![("x-amz-checksum-crc32", "AAAA")], bad),
            (vec![("x-amz-checksum-md4", "AAAA")], invalid),
            (vec![("x-amz-checksum-crc32", "y/Q5Jg=="), ("x-amz-checksum-crc32c", "4waSgw==")], invalid),
            (vec![("x-amz-checksum-crc32", "y/Q5Jg=="), ("x-amz-sdk-checksum-algorithm", "CRC32")], None),
            (vec![("x-amz-checksum-crc32", "y/Q5Jg=="), ("x-amz-sdk-checksum-algorithm", "SHA1")], invalid),
            (vec![("x-amz-sdk-checksum-algorithm", "CRC32")], invalid),
            (vec![("x-amz-sdk-checksum-algorithm", "CRC9")], invalid),
            (vec![("x-amz-checksum-mode", "ENABLED"), ("x-amz-checksum-type", "COMPOSITE")], None),
            (vec![("x-amz-checksum-algorithm", "SHA256")], None),
        ] {
            assert_eq!(judge(&pairs, PayloadMode::Unsigned, &[]), expected, "{pairs:?}");
        }
    }

    #[test]
    fn digests_in_trailers_are_verified_after_the_body() {
        let announced = [("x-amz-trailer", "x-amz-checksum-crc32"), ("x-amz-sdk-checksum-algorithm", "CRC32")];
        for (value, expected) in [
            (Some("y/Q5Jg=="), None),
            (Some("AAAAAA=="), Some(S3Code::BadDigest)),
            (Some("nonsense"), Some(S3Code::BadDigest)),
            (None, Some(S3Code::MalformedTrailerError)),
        ] {
            let trailers: Vec<_> = value.map(|value| ("x-amz-checksum-crc32", value)).into_iter().collect();
            assert_eq!(judge(&announced, PayloadMode::UnsignedChunksTrailer, &trailers), expected, "{value:?}");
        }
        let unknown = [("x-amz-trailer", "x-amz-meta-a")];
        assert_eq!(judge(&unknown, PayloadMode::UnsignedChunksTrailer, &[]), Some(S3Code::InvalidRequest));
        // A mode without trailers can't deliver what was announced.
        assert_eq!(judge(&announced, PayloadMode::Unsigned, &[]), Some(S3Code::InvalidRequest));
    }
}
