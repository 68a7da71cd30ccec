//! Signs the benchmark's own requests with SigV4 (AWS: "Signature Calculations for the Authorization Header").

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// Signs for one access key.
pub(crate) struct Signer {
    access_key: String,
    secret: String,
    region: String,
}

/// One request to sign. Path and query are already percent-encoded as they will be sent, query keys sorted.
pub(crate) struct ToSign<'a> {
    pub(crate) method: &'a str,
    pub(crate) host: &'a str,
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    /// Lower-case hex SHA-256 of the body, or `UNSIGNED-PAYLOAD`.
    pub(crate) payload_hash: &'a str,
}

/// The headers that make a request signed.
pub(crate) struct Signed {
    pub(crate) date: String,
    pub(crate) authorization: String,
}

impl Signer {
    /// A signer for this key and region.
    pub(crate) fn new(access_key: String, secret: String, region: String) -> Self {
        Self { access_key, secret, region }
    }

    /// Signs `request` at `now`.
    pub(crate) fn sign(&self, request: &ToSign<'_>, now: time::OffsetDateTime) -> Signed {
        let day = format!("{:04}{:02}{:02}", now.year(), u8::from(now.month()), now.day());
        let date = format!("{day}T{:02}{:02}{:02}Z", now.hour(), now.minute(), now.second());
        let signed_headers = "host;x-amz-content-sha256;x-amz-date";
        let canonical = format!(
            "{}\n{}\n{}\nhost:{}\nx-amz-content-sha256:{}\nx-amz-date:{date}\n\n{signed_headers}\n{}",
            request.method, request.path, request.query, request.host, request.payload_hash, request.payload_hash
        );
        let scope = format!("{day}/{}/s3/aws4_request", self.region);
        let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex_of(&Sha256::digest(canonical)));
        let mut key = hmac(format!("AWS4{}", self.secret).as_bytes(), day.as_bytes());
        for step in [self.region.as_str(), "s3", "aws4_request"] {
            key = hmac(&key, step.as_bytes());
        }
        let signature = hex_of(&hmac(&key, to_sign.as_bytes()));
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope},SignedHeaders={signed_headers},Signature={signature}",
            self.access_key
        );
        Signed { date, authorization }
    }
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { unreachable!("HMAC takes keys of any length") };
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// Lower-case hexadecimal.
pub(crate) fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn the_signature_of_the_documented_list_request_is_the_documented_one() {
        // AWS, "Signature Calculations for the Authorization Header", example "Get Bucket (List Objects)".
        let signer = Signer::new(
            "AKIAIOSFODNN7EXAMPLE".to_owned(),
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
            "us-east-1".to_owned(),
        );
        let request = ToSign {
            method: "GET",
            host: "examplebucket.s3.amazonaws.com",
            path: "/",
            query: "max-keys=2&prefix=J",
            payload_hash: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        };
        let signed = signer.sign(&request, datetime!(2013-05-24 00:00 UTC));
        assert!(
            signed
                .authorization
                .ends_with("Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
            "{}",
            signed.authorization
        );
    }
}
