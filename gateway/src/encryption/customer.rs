//! The key that a request brings along (SSE-C).
//!
//! Codes and messages are AWS's, where AWS has been seen to answer ("Specifying server-side encryption with
//! customer-provided keys" in the S3 user guide has the rules). Of the key nothing but its MD5 leaves this module, and
//! that only to the client who sent it. Neither is in any error.

use crate::error::{S3Code, S3Error};
use crate::ops::headers::header_value;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::{HeaderMap, HeaderName, HeaderValue};
use md5::{Digest as _, Md5};
use valv_codec::{CustomerKey, KEY_LEN_BYTES};
use zeroize::Zeroizing;

const ALGORITHM: HeaderName = HeaderName::from_static("x-amz-server-side-encryption-customer-algorithm");
const KEY: HeaderName = HeaderName::from_static("x-amz-server-side-encryption-customer-key");
const KEY_MD5: HeaderName = HeaderName::from_static("x-amz-server-side-encryption-customer-key-md5");
const SOURCE_ALGORITHM: HeaderName =
    HeaderName::from_static("x-amz-copy-source-server-side-encryption-customer-algorithm");
const SOURCE_KEY: HeaderName = HeaderName::from_static("x-amz-copy-source-server-side-encryption-customer-key");
const SOURCE_KEY_MD5: HeaderName = HeaderName::from_static("x-amz-copy-source-server-side-encryption-customer-key-md5");

/// The longest key header that is decoded at all: base64 of twice a key, so that one too long is told from nonsense.
const KEY_TEXT_LEN_BYTES_MAX: usize = 2 * KEY_LEN_BYTES * 4 / 3 + 4;

/// Whose key it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyHeaders {
    /// Of the object or part that the request names.
    Object,
    /// Of a copy's source.
    CopySource,
}

impl KeyHeaders {
    const fn names(self) -> [HeaderName; 3] {
        match self {
            Self::Object => [ALGORITHM, KEY, KEY_MD5],
            Self::CopySource => [SOURCE_ALGORITHM, SOURCE_KEY, SOURCE_KEY_MD5],
        }
    }

    /// Whether any of them is there.
    pub(super) fn are_in(self, headers: &HeaderMap) -> bool {
        self.names().iter().any(|name| headers.contains_key(name))
    }
}

/// What the key is wanted for. AWS refuses bad ones differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// The MD5 must come along: a key that was garbled on its way would lock its owner out.
    Write,
    /// The MD5 may be missing, and a key of the wrong length is simply a wrong one.
    Read,
}

/// A customer's key, for as long as its request lasts.
#[derive(Clone)]
pub(crate) struct Customer {
    pub(crate) key: CustomerKey,
    md5: [u8; 16],
}

impl Customer {
    /// Reads the key from a request's headers. `is_private` says whether nobody listens on the way.
    ///
    /// # Errors
    /// InvalidRequest on an open line; InvalidArgument, InvalidEncryptionAlgorithmError for what is not whole or does not
    /// fit together; AccessDenied for a key to read with that can't be anybody's.
    pub(crate) fn read(
        headers: &HeaderMap,
        whose: KeyHeaders,
        wanted_for: Use,
        is_private: bool,
    ) -> Result<Option<Self>, S3Error> {
        let [algorithm, key, md5] = whose.names().map(|name| headers.get(name));
        if algorithm.is_none() && key.is_none() && md5.is_none() {
            return Ok(None);
        }
        if !is_private {
            return Err(S3Error::invalid_request(
                "Requests specifying Server Side Encryption with Customer provided keys must be made over a secure \
                 connection.",
            ));
        }
        let algorithm = algorithm.ok_or_else(|| {
            invalid(
                "Requests specifying Server Side Encryption with Customer provided keys must provide a valid encryption \
                 algorithm.",
                "null",
            )
        })?;
        if algorithm.as_bytes() != b"AES256" {
            return Err(S3Error::new(S3Code::InvalidEncryptionAlgorithmError)
                .with_message("The Encryption request you specified is not valid. Supported value: AES256.")
                .with_extra("ArgumentName", super::METHOD.as_str())
                .with_extra("ArgumentValue", String::from_utf8_lossy(algorithm.as_bytes())));
        }
        let key = key.ok_or_else(|| {
            invalid(
                "Requests specifying Server Side Encryption with Customer provided keys must provide an appropriate secret \
                 key.",
                "null",
            )
        })?;
        Self::decode(key, md5, wanted_for).map(Some)
    }

    fn decode(key: &HeaderValue, md5: Option<&HeaderValue>, wanted_for: Use) -> Result<Self, S3Error> {
        let unusable = || invalid("The secret key was invalid for the specified algorithm.", "null");
        if key.len() > KEY_TEXT_LEN_BYTES_MAX {
            return Err(unusable());
        }
        let bytes = Zeroizing::new(BASE64.decode(key.as_bytes()).map_err(|_| unusable())?);
        let computed: [u8; 16] = Md5::digest(bytes.as_slice()).into();
        match md5 {
            Some(given) if BASE64.decode(given.as_bytes()).ok().as_deref() == Some(computed.as_slice()) => {}
            Some(_) => {
                return Err(invalid(
                    "The calculated MD5 hash of the key did not match the hash that was provided.",
                    "null",
                ));
            }
            None if wanted_for == Use::Read => {}
            None => {
                return Err(invalid(
                    "Requests specifying Server Side Encryption with Customer provided keys must provide the client \
                     calculated MD5 of the secret key.",
                    "null",
                ));
            }
        }
        let key = CustomerKey::from_bytes(&bytes).map_err(|_| match wanted_for {
            Use::Write => unusable(),
            Use::Read => wrong_key(),
        })?;
        Ok(Self { key, md5: computed })
    }

    /// Adds what answers say: the algorithm, and the MD5 of the key that the request brought.
    pub(super) fn add_headers(&self, headers: &mut HeaderMap) {
        headers.insert(ALGORITHM, HeaderValue::from_static("AES256"));
        headers.insert(KEY_MD5, header_value(&BASE64.encode(self.md5)));
    }
}

/// AWS names the method's header whichever of the three is at fault; a value is told only if it is no part of a key.
pub(super) fn invalid(message: &'static str, value: &str) -> S3Error {
    S3Error::invalid_argument(message, super::METHOD.as_str(), value)
}

/// The answer to a key that does not open what it is for.
pub(super) fn wrong_key() -> S3Error {
    S3Error::new(S3Code::AccessDenied).with_message(
        "Requests specifying Server Side Encryption with Customer provided keys must provide the correct secret key.",
    )
}
