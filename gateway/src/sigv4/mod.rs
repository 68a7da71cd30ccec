//! AWS Signature Version 4, verified: headers, presigned URLs, form policies, and the chain of chunk signatures.
//!
//! Source: "Authenticating Requests (AWS Signature Version 4)" of the S3 API reference and its pages on the
//! Authorization header, query parameters, POST, multiple chunks and trailing headers.
//!
//! What is checked, in this order, so that the cheap refusals come first and nothing about a key is told before its
//! signature is right: form, algorithm, scope, clock, which headers are signed, the key, the signature. `host` and every
//! `x-amz-*` header must be signed, because all of them can change what a request does. Signatures are compared in
//! constant time.
//!
//! Signing keys are not cached. Deriving one is four HMACs of one block each, about a microsecond; a cache would keep
//! key material in memory for longer than the [`AccessGrant`] it came from, and could serve a replaced secret.

mod canonical;
mod credential;
mod key;
mod policy;
#[cfg(test)]
mod tests;

pub use key::{ChunkVerifier, Signature, SigningKey};
pub use policy::PolicySignature;

use crate::error::{S3Code, S3Error};
use crate::http_date;
use crate::limits::{CLOCK_SKEW_MAX, PRESIGNED_EXPIRES_SECS_MAX};
use crate::payload::{PayloadMode, PayloadModeName};
use async_trait::async_trait;
use canonical::{Reading, canonical_request};
use credential::{AuthorizationHeader, Credential, PresignedQuery};
use http::header::{AUTHORIZATION, DATE, HOST};
use http::request::Parts;
use sha2::{Digest as _, Sha256};
use valv_metadata_api::AccessGrant;
use valv_types::{AccessKeyId, TimestampMicros};

/// The algorithm's name, in every place where one stands.
pub const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// The header that carries the session token of temporary credentials.
const SECURITY_TOKEN: &str = "x-amz-security-token";

/// Where secrets come from: the gateway's cache of access grants, over metadata.
#[async_trait]
pub trait SecretSource: Send + Sync {
    /// What the access key stands for, or InvalidAccessKeyId. The grant must be within its lease when this returns.
    async fn secret(&self, id: &AccessKeyId) -> Result<AccessGrant, S3Error>;

    /// The same for temporary credentials, whose request carries a session token. Nobody issues any yet, so every token
    /// is refused.
    async fn session_secret(&self, _id: &AccessKeyId, _token: &str) -> Result<AccessGrant, S3Error> {
        Err(S3Error::new(S3Code::InvalidToken))
    }
}

/// What this endpoint calls itself in credential scopes.
#[derive(Debug, Clone)]
pub struct SigV4Config {
    /// Accepted regions; the first is the one that clients with a wrong one are told. Never empty.
    regions: Vec<String>,
}

impl SigV4Config {
    /// Accepts scopes of these regions; `region` is named to clients that use another.
    pub fn new(region: impl Into<String>, also: impl IntoIterator<Item = String>) -> Self {
        let mut regions = vec![region.into()];
        regions.extend(also);
        Self { regions }
    }

    /// The region that this endpoint is in.
    pub fn region(&self) -> &str {
        &self.regions[0]
    }

    fn accepts(&self, region: &str) -> bool {
        self.regions.iter().any(|accepted| accepted == region)
    }
}

impl Default for SigV4Config {
    /// `us-east-1`, which every client assumes if it is told nothing.
    fn default() -> Self {
        Self::new("us-east-1", [])
    }
}

/// How a request was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignedBy {
    /// In its Authorization header.
    Header,
    /// In its URL.
    Presigned,
    /// By the signature over its form's policy.
    FormPolicy,
    /// In its URL, by version 2.
    PresignedV2,
    /// By a version 2 signature over its form's policy.
    FormPolicyV2,
}

/// Who signed a request. The signature was right when this was made.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The access key used.
    pub access_key: AccessKeyId,
    /// What it stands for.
    pub grant: AccessGrant,
    /// Where the signature was.
    pub signed_by: SignedBy,
    /// Names of the signed headers, lower-case.
    pub signed_headers: Vec<String>,
    /// The time that the client signed.
    pub signed_at: TimestampMicros,
}

/// The outcome for one request.
#[derive(Debug)]
pub struct Authentication {
    /// Who signed it, or `None` for an anonymous request.
    pub identity: Option<Identity>,
    /// How its body is to be read and verified: see [`crate::payload::Payload`].
    pub payload: PayloadMode,
}

/// Verifies the signature of a request whose body has not been touched.
///
/// # Errors
/// AWS's code for whatever is wrong; what `secrets` answers for an unknown key. Cancel safe: nothing is changed.
pub async fn authenticate(
    config: &SigV4Config,
    parts: &Parts,
    secrets: &(impl SecretSource + ?Sized),
    now: TimestampMicros,
) -> Result<Authentication, S3Error> {
    let query = parts.uri.query().unwrap_or_default();
    let presigned = PresignedQuery::is_present(query);
    let mut authorizations = parts.headers.get_all(AUTHORIZATION).iter();
    match (authorizations.next(), authorizations.next(), presigned) {
        (None, _, false) => {
            let name = match header_text(parts, "x-amz-content-sha256")? {
                Some(text) => PayloadModeName::parse(text)?,
                None => PayloadModeName::Unsigned,
            };
            Ok(Authentication { identity: None, payload: name.anonymous()? })
        }
        (None, _, true) => verify_presigned(config, parts, query, secrets, now).await,
        (Some(value), None, false) => {
            let value = value.to_str().map_err(|_| credential::malformed_header("the header is not ASCII"))?;
            verify_header(config, parts, value, secrets, now).await
        }
        (Some(_), Some(_), _) | (Some(_), _, true) => Err(S3Error::invalid_argument(
            "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string \
             parameter or the Authorization header should be specified",
            "Authorization",
            "",
        )),
    }
}

async fn verify_header(
    config: &SigV4Config,
    parts: &Parts,
    value: &str,
    secrets: &(impl SecretSource + ?Sized),
    now: TimestampMicros,
) -> Result<Authentication, S3Error> {
    let header = AuthorizationHeader::parse(value)?;
    let signed_at = request_date(parts)?;
    header.credential.check(config, signed_at, credential::Place::Header)?;
    check_skew(signed_at, now)?;
    let payload_header = header_text(parts, "x-amz-content-sha256")?
        .ok_or_else(|| S3Error::invalid_request("Missing required header for this request: x-amz-content-sha256"))?;
    let mode = PayloadModeName::parse(payload_header)?;
    let in_query = PresignedQuery::security_token(parts.uri.query().unwrap_or_default())?;
    let token = header_text(parts, SECURITY_TOKEN)?.or(in_query.as_deref());
    let claim = Claim {
        credential: header.credential,
        signed_headers: header.signed_headers,
        signature: header.signature,
        signed_at,
        signed_by: SignedBy::Header,
    };
    claim.verify(parts, payload_header, mode, token, secrets).await
}

async fn verify_presigned(
    config: &SigV4Config,
    parts: &Parts,
    query: &str,
    secrets: &(impl SecretSource + ?Sized),
    now: TimestampMicros,
) -> Result<Authentication, S3Error> {
    let query = PresignedQuery::parse(query)?;
    query.credential.check(config, query.signed_at, credential::Place::Query)?;
    let skew_secs = CLOCK_SKEW_MAX.as_secs();
    if query.signed_at.as_secs() > now.as_secs().saturating_add(skew_secs) {
        return Err(S3Error::new(S3Code::AccessDenied)
            .with_message("Request is not valid yet")
            .with_extra("ServerTime", http_date::format_iso8601(now)));
    }
    let expires = query.signed_at.plus_secs(query.expires_secs);
    if now >= expires {
        return Err(S3Error::new(S3Code::AccessDenied)
            .with_message("Request has expired")
            .with_extra("X-Amz-Expires", query.expires_secs.to_string())
            .with_extra("Expires", http_date::format_iso8601(expires))
            .with_extra("ServerTime", http_date::format_iso8601(now)));
    }
    // A presigned URL says UNSIGNED-PAYLOAD unless its maker bound the body, in a signed header or in the query.
    let header = header_text(parts, "x-amz-content-sha256")?;
    let bound = header.or(query.content_sha256.as_deref()).unwrap_or("UNSIGNED-PAYLOAD");
    let mode = PayloadModeName::parse(bound)?;
    let claim = Claim {
        credential: query.credential,
        signed_headers: query.signed_headers,
        signature: query.signature,
        signed_at: query.signed_at,
        signed_by: SignedBy::Presigned,
    };
    // Wherever a token stands, it is under the signature: as every x-amz-* header, or as part of the query.
    let token = query.security_token.as_deref().or(header_text(parts, SECURITY_TOKEN)?);
    claim.verify(parts, bound, mode, token, secrets).await
}

/// What a request says of its own signature.
struct Claim {
    credential: Credential,
    signed_headers: Vec<String>,
    signature: Signature,
    signed_at: TimestampMicros,
    signed_by: SignedBy,
}

impl Claim {
    async fn verify(
        self,
        parts: &Parts,
        payload_hash: &str,
        mode: PayloadModeName,
        token: Option<&str>,
        secrets: &(impl SecretSource + ?Sized),
    ) -> Result<Authentication, S3Error> {
        check_signed_headers(parts, &self.signed_headers)?;
        let grant = lookup(&self.credential, token, secrets).await?;
        let key = self.credential.signing_key(&grant);
        let timestamp = http_date::format_basic(self.signed_at);
        let scope = self.credential.scope();

        let mut refused = None;
        let mut accepted = false;
        for reading in Reading::all(&self.signed_headers) {
            let request = canonical_request(parts, &self.signed_headers, payload_hash, reading);
            let hash = hex::encode(Sha256::digest(&request));
            let string_to_sign = format!("{ALGORITHM}\n{timestamp}\n{scope}\n{hash}");
            if key.sign(string_to_sign.as_bytes()) == self.signature {
                accepted = true;
                break;
            }
            refused.get_or_insert((request, string_to_sign));
        }
        if !accepted {
            let (request, string_to_sign) = refused.unwrap_or_default();
            return Err(S3Error::new(S3Code::SignatureDoesNotMatch)
                .with_extra("AWSAccessKeyId", self.credential.access_key.as_str())
                .with_extra("StringToSign", string_to_sign)
                .with_extra("SignatureProvided", self.signature.to_hex())
                .with_extra("CanonicalRequest", String::from_utf8_lossy(&request)));
        }
        let chunks = || ChunkVerifier::new(key, timestamp, scope, self.signature);
        Ok(Authentication {
            payload: mode.signed(chunks)?,
            identity: Some(Identity {
                access_key: self.credential.access_key,
                grant,
                signed_by: self.signed_by,
                signed_headers: self.signed_headers,
                signed_at: self.signed_at,
            }),
        })
    }
}

/// The grant of a credential's key, with AWS's element that names it if there is none.
async fn lookup(
    credential: &Credential,
    token: Option<&str>,
    secrets: &(impl SecretSource + ?Sized),
) -> Result<AccessGrant, S3Error> {
    let id = &credential.access_key;
    let grant = match token.filter(|token| !token.is_empty()) {
        Some(token) => secrets.session_secret(id, token).await,
        None => secrets.secret(id).await,
    };
    grant.map_err(|error| match error.code() {
        S3Code::InvalidAccessKeyId => error.with_extra("AWSAccessKeyId", id.as_str()),
        _ => error,
    })
}

/// The time that a header-signed request states: `x-amz-date`, or else `Date` in either form.
fn request_date(parts: &Parts) -> Result<TimestampMicros, S3Error> {
    let stated = match header_text(parts, "x-amz-date")? {
        Some(text) => http_date::parse_basic(text).or_else(|| http_date::parse_http(text)),
        None => match parts.headers.get(DATE).and_then(|value| value.to_str().ok()) {
            Some(text) => http_date::parse_http(text).or_else(|| http_date::parse_basic(text)),
            None => None,
        },
    };
    stated.ok_or_else(|| {
        S3Error::new(S3Code::AccessDenied).with_message("AWS authentication requires a valid Date or x-amz-date header")
    })
}

fn check_skew(signed_at: TimestampMicros, now: TimestampMicros) -> Result<(), S3Error> {
    let apart_secs = signed_at.as_secs().abs_diff(now.as_secs());
    if apart_secs <= CLOCK_SKEW_MAX.as_secs() {
        return Ok(());
    }
    Err(S3Error::new(S3Code::RequestTimeTooSkewed)
        .with_extra("RequestTime", http_date::format_basic(signed_at))
        .with_extra("ServerTime", http_date::format_iso8601(now))
        .with_extra("MaxAllowedSkewMilliseconds", CLOCK_SKEW_MAX.as_millis().to_string()))
}

/// Refuses a request with a header that can change its meaning and is not under the signature.
fn check_signed_headers(parts: &Parts, signed: &[String]) -> Result<(), S3Error> {
    let is_signed = |name: &str| signed.iter().any(|signed| signed == name);
    let mut unsigned: Vec<&str> = Vec::new();
    if !is_signed(HOST.as_str()) {
        unsigned.push(HOST.as_str());
    }
    unsigned.extend(
        parts.headers.keys().map(|name| name.as_str()).filter(|name| name.starts_with("x-amz-") && !is_signed(name)),
    );
    if unsigned.is_empty() {
        return Ok(());
    }
    Err(S3Error::new(S3Code::AccessDenied)
        .with_message("There were headers present in the request which were not signed")
        .with_extra("HeadersNotSigned", unsigned.join(", ")))
}

/// A header that may stand only once, as text.
fn header_text<'p>(parts: &'p Parts, name: &'static str) -> Result<Option<&'p str>, S3Error> {
    let mut values = parts.headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => match value.to_str() {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(S3Error::invalid_argument("The header is not ASCII", name, "")),
        },
        (Some(_), Some(_)) => Err(S3Error::invalid_argument("The header may be given only once", name, "")),
    }
}
