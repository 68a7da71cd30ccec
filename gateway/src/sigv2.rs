//! AWS Signature Version 2, in URLs and over the policies of forms: nowhere else.
//!
//! It is here because boto3 still presigns with it for `us-east-1` unless it is told otherwise, whatever the endpoint. What
//! it leaves open is closed here: a parameter of the URL that it does not sign is refused, so a URL does what its maker
//! signed and nothing besides; and it ends within a week, as those of version 4 do. It signs no host and no body, which
//! holds for a version 4 URL's body as well. Requests signed in their Authorization header are refused: every client does
//! that with version 4.
//!
//! Source: "Signing and authenticating REST requests" and "Authenticating Requests: Browser-Based Uploads Using POST (AWS
//! Signature Version 2)" of the S3 user guide and API reference.

use crate::error::{S3Code, S3Error};
use crate::host::{AddressingStyle, Query, Target};
use crate::http_date;
use crate::limits::PRESIGNED_EXPIRES_SECS_MAX;
use crate::sigv4::{Identity, SecretSource, SignedBy};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderName};
use http::request::Parts;
use sha1::Sha1;
use std::collections::BTreeMap;
use subtle::ConstantTimeEq as _;
use valv_metadata_api::AccessGrant;
use valv_types::{AccessKeyId, TimestampMicros};

const KEY: &str = "AWSAccessKeyId";
const SIGNATURE: &str = "Signature";
const EXPIRES: &str = "Expires";
const CONTENT_MD5: HeaderName = HeaderName::from_static("content-md5");

/// Parameters that the signature covers.
const SIGNED_PARAMETERS: [&str; 24] = [
    "acl",
    "cors",
    "delete",
    "lifecycle",
    "location",
    "logging",
    "notification",
    "object-lock",
    "partNumber",
    "policy",
    "replication",
    "requestPayment",
    "response-cache-control",
    "response-content-disposition",
    "response-content-encoding",
    "response-content-language",
    "response-content-type",
    "response-expires",
    "tagging",
    "uploadId",
    "uploads",
    "versionId",
    "versioning",
    "versions",
];

/// Whether a URL is presigned with version 2.
pub(crate) fn is_presigned(query: &Query) -> bool {
    query.has(KEY) && query.has(SIGNATURE) && !query.has("X-Amz-Algorithm")
}

/// Whether the signature takes the parameter for a header: makers of URLs may move their `x-amz-*` headers there.
fn stands_for_header(name: &str) -> bool {
    name.starts_with("x-amz-") || name == CONTENT_MD5.as_str() || name == CONTENT_TYPE.as_str()
}

/// Verifies a presigned URL. `target` is what the request names.
///
/// # Errors
/// AccessDenied for one that has expired or is malformed, InvalidRequest for one with a parameter that is not signed,
/// InvalidAccessKeyId, SignatureDoesNotMatch.
pub(crate) async fn authenticate(
    parts: &Parts,
    query: &Query,
    target: &Target,
    secrets: &(impl SecretSource + ?Sized),
    now: TimestampMicros,
) -> Result<Identity, S3Error> {
    let once = |name: &'static str| match query.all_bytes(name).count() {
        1 => query.get(name),
        _ => Err(S3Error::new(S3Code::AccessDenied)
            .with_message("Query-string authentication requires the Signature, Expires and AWSAccessKeyId parameters")),
    };
    let (id, signature, expires) = (once(KEY)?, once(SIGNATURE)?, once(EXPIRES)?);
    let (id, signature, expires) = (id.unwrap_or_default(), signature.unwrap_or_default(), expires.unwrap_or_default());
    check_expires(expires, now)?;
    for (name, _) in query.iter() {
        let is_known = [KEY, SIGNATURE, EXPIRES].contains(&name) || SIGNED_PARAMETERS.contains(&name);
        if !is_known && !stands_for_header(name) {
            return Err(S3Error::invalid_request(format!(
                "The parameter {name} is not covered by a Version 2 signature. Please use AWS4-HMAC-SHA256."
            )));
        }
    }
    if query.has("x-amz-security-token") || parts.headers.contains_key("x-amz-security-token") {
        return Err(S3Code::InvalidToken.into());
    }
    let text = string_to_sign(parts, query, target, expires);
    verify(id, signature, &text, secrets, SignedBy::PresignedV2, now).await
}

fn check_expires(expires: &str, now: TimestampMicros) -> Result<(), S3Error> {
    let denied = |message: String| S3Error::new(S3Code::AccessDenied).with_message(message);
    let secs: u64 =
        expires.parse().map_err(|_| denied(format!("Invalid date (should be seconds since epoch): {expires}")))?;
    let expires = TimestampMicros::from_secs(secs.min(u64::from(u32::MAX) * 4));
    if now >= expires {
        return Err(denied("Request has expired".to_owned())
            .with_extra("Expires", http_date::format_iso8601(expires))
            .with_extra("ServerTime", http_date::format_iso8601(now)));
    }
    if expires.as_secs() - now.as_secs() > PRESIGNED_EXPIRES_SECS_MAX {
        return Err(denied("Expires must be less than a week (in seconds) ahead".to_owned()));
    }
    Ok(())
}

/// The header's values, or else the parameter that stands for it.
fn value(headers: &HeaderMap, query: &Query, name: &str) -> String {
    let mut values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    match values.next() {
        Some(first) => values.fold(first.trim().to_owned(), |all, next| format!("{all},{}", next.trim())),
        None => query.get_bytes(name).map(|value| String::from_utf8_lossy(value).trim().to_owned()).unwrap_or_default(),
    }
}

fn string_to_sign(parts: &Parts, query: &Query, target: &Target, expires: &str) -> String {
    let headers = &parts.headers;
    let in_headers = headers.keys().map(HeaderName::as_str);
    let in_query = query.iter().map(|(name, _)| name);
    let amz: BTreeMap<&str, String> = in_headers
        .chain(in_query)
        .filter(|name| name.starts_with("x-amz-"))
        .map(|name| (name, value(headers, query, name)))
        .collect();
    let mut text = format!(
        "{}\n{}\n{}\n{expires}\n",
        parts.method,
        value(headers, query, CONTENT_MD5.as_str()),
        value(headers, query, CONTENT_TYPE.as_str())
    );
    for (name, value) in amz {
        text += &format!("{name}:{value}\n");
    }
    if let (AddressingStyle::VirtualHost, Some(bucket)) = (target.style, &target.bucket) {
        text += &format!("/{bucket}");
    }
    text += parts.uri.path();
    let mut separator = '?';
    for name in SIGNED_PARAMETERS {
        for value in query.all_bytes(name) {
            text.push(separator);
            text += name;
            if !value.is_empty() {
                text += &format!("={}", String::from_utf8_lossy(value));
            }
            separator = '&';
        }
    }
    text
}

/// Verifies the signature over a form's policy, base64 as it stands in the form.
///
/// # Errors
/// InvalidAccessKeyId, SignatureDoesNotMatch.
pub(crate) async fn verify_policy(
    id: &str,
    policy: &str,
    signature: &str,
    secrets: &(impl SecretSource + ?Sized),
    now: TimestampMicros,
) -> Result<Identity, S3Error> {
    verify(id, signature, policy, secrets, SignedBy::FormPolicyV2, now).await
}

async fn verify(
    id: &str,
    signature: &str,
    text: &str,
    secrets: &(impl SecretSource + ?Sized),
    signed_by: SignedBy,
    now: TimestampMicros,
) -> Result<Identity, S3Error> {
    let unknown = || S3Error::new(S3Code::InvalidAccessKeyId).with_extra("AWSAccessKeyId", id.to_owned());
    let access_key = AccessKeyId::new(id).map_err(|_| S3Error::new(S3Code::InvalidAccessKeyId))?;
    let grant = secrets.secret(&access_key).await.map_err(|error| match error.code() {
        S3Code::InvalidAccessKeyId => unknown(),
        _ => error,
    })?;
    let given = STANDARD.decode(signature).unwrap_or_default();
    if !bool::from(sign(&grant, text).ct_eq(given.as_slice())) {
        return Err(S3Error::new(S3Code::SignatureDoesNotMatch)
            .with_extra("AWSAccessKeyId", access_key.as_str())
            .with_extra("StringToSign", text)
            .with_extra("SignatureProvided", signature));
    }
    // Version 2 does not say when: the right begins with its use.
    Ok(Identity { access_key, grant, signed_by, signed_headers: Vec::new(), signed_at: now })
}

fn sign(grant: &AccessGrant, text: &str) -> [u8; 20] {
    match Hmac::<Sha1>::new_from_slice(grant.secret.expose()) {
        Ok(mut mac) => {
            mac.update(text.as_bytes());
            mac.finalize().into_bytes().into()
        }
        Err(_) => unreachable!("HMAC takes a key of any length"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::HostConfig;
    use async_trait::async_trait;
    use valv_metadata_api::{Roles, Secret};
    use valv_types::{NamespaceId, ProjectId, UserId};

    struct OneKey;

    #[async_trait]
    impl SecretSource for OneKey {
        async fn secret(&self, id: &AccessKeyId) -> Result<AccessGrant, S3Error> {
            if id.as_str() != "AKIAIOSFODNN7EXAMPLE" {
                return Err(S3Code::InvalidAccessKeyId.into());
            }
            Ok(AccessGrant {
                secret: Secret::new(b"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_vec()),
                user: UserId::from_bytes([1; 16]),
                canonical_id: "c".repeat(64),
                display_name: "one".to_owned(),
                project: ProjectId::from_bytes([2; 16]),
                namespace: NamespaceId::from_bytes([3; 16]),
                lease_ms: 3_000,
                user_name: "u".to_owned(),
                project_name: "p".to_owned(),
                roles: Roles::NONE,
                is_governed: false,
            })
        }
    }

    async fn judge(method: &str, uri: &str, headers: &[(&str, &str)], now_secs: u64) -> Result<Identity, S3Error> {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).expect("request").into_parts();
        let query = Query::parse(parts.uri.query().unwrap_or_default()).expect("query");
        assert!(is_presigned(&query));
        let target = HostConfig::new(["s3.example".to_owned()]).target(&parts).expect("target");
        authenticate(&parts, &query, &target, &OneKey, TimestampMicros::from_secs(now_secs)).await
    }

    /// The example of AWS's page on REST authentication.
    const EXAMPLE: &str = "/photos/puppy.jpg?AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE\
                           &Signature=NpgCjnDzrM%2BWFzoENXmpNDUsSn8%3D&Expires=1175139620";
    const EXPIRES: u64 = 1_175_139_620;
    const HOST: (&str, &str) = ("host", "johnsmith.s3.example");

    #[tokio::test]
    async fn awss_example_verifies_in_both_styles_of_address() {
        let identity = judge("GET", EXAMPLE, &[HOST], EXPIRES - 1).await.expect("signed");
        assert_eq!(identity.signed_by, SignedBy::PresignedV2);
        let path_style = format!("/johnsmith{EXAMPLE}");
        assert!(judge("GET", &path_style, &[("host", "other")], EXPIRES - 1).await.is_ok());
    }

    #[tokio::test]
    async fn what_was_not_signed_is_refused() {
        use S3Code::{AccessDenied, InvalidAccessKeyId, InvalidRequest, InvalidToken, SignatureDoesNotMatch};
        let with = |more: &str| format!("{EXAMPLE}&{more}");
        let swapped = |from: &str, to: &str| EXAMPLE.replace(from, to);
        for (method, uri, headers, now_secs, expected) in [
            ("PUT", EXAMPLE.to_owned(), vec![HOST], EXPIRES - 1, SignatureDoesNotMatch),
            ("GET", swapped("puppy", "kitten"), vec![HOST], EXPIRES - 1, SignatureDoesNotMatch),
            ("GET", EXAMPLE.to_owned(), vec![("host", "jane.s3.example")], EXPIRES - 1, SignatureDoesNotMatch),
            ("GET", with("versionId=null"), vec![HOST], EXPIRES - 1, SignatureDoesNotMatch),
            ("GET", with("acl"), vec![HOST], EXPIRES - 1, SignatureDoesNotMatch),
            ("GET", with("x-amz-acl=public-read"), vec![HOST], EXPIRES - 1, SignatureDoesNotMatch),
            ("GET", EXAMPLE.to_owned(), vec![HOST, ("x-amz-acl", "private")], EXPIRES - 1, SignatureDoesNotMatch),
            ("GET", EXAMPLE.to_owned(), vec![HOST, ("content-type", "a/b")], EXPIRES - 1, SignatureDoesNotMatch),
            // What the signature does not cover can't be added: the request would be another one.
            ("GET", with("retention"), vec![HOST], EXPIRES - 1, InvalidRequest),
            ("GET", with("attributes"), vec![HOST], EXPIRES - 1, InvalidRequest),
            ("GET", with("legal-hold"), vec![HOST], EXPIRES - 1, InvalidRequest),
            ("GET", with("x-amz-security-token=t"), vec![HOST], EXPIRES - 1, InvalidToken),
            ("GET", EXAMPLE.to_owned(), vec![HOST], EXPIRES, AccessDenied),
            ("GET", EXAMPLE.to_owned(), vec![HOST], EXPIRES - PRESIGNED_EXPIRES_SECS_MAX - 1, AccessDenied),
            ("GET", swapped("1175139620", "soon"), vec![HOST], EXPIRES - 1, AccessDenied),
            ("GET", with("Expires=1175139620"), vec![HOST], EXPIRES - 1, AccessDenied),
            ("GET", swapped("NpgC", "npgC"), vec![HOST], EXPIRES - 1, SignatureDoesNotMatch),
            ("GET", swapped("%3D", ""), vec![HOST], EXPIRES - 1, SignatureDoesNotMatch),
            ("GET", swapped("AKIAIOSFODNN7EXAMPLE", "AKIANOBODY"), vec![HOST], EXPIRES - 1, InvalidAccessKeyId),
        ] {
            let refused = judge(method, &uri, &headers, now_secs).await.map_err(|error| error.code());
            assert_eq!(refused.err(), Some(expected), "{method} {uri} {headers:?}");
        }
    }

    #[tokio::test]
    async fn headers_may_stand_in_the_query_under_the_signature() {
        let sign_for = |text: &str| {
            let mut mac = Hmac::<Sha1>::new_from_slice(b"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY").expect("key");
            mac.update(text.as_bytes());
            let signature = STANDARD.encode(mac.finalize().into_bytes());
            signature.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D")
        };
        let text = "PUT\n\ntext/plain\n1175139620\nx-amz-acl:private\nx-amz-meta-a:b\n/johnsmith/k%20?versionId=7";
        let uri = |parameters: &str| {
            format!(
                "/k%20?AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE&Signature={}&Expires=1175139620&versionId=7&{parameters}",
                sign_for(text)
            )
        };
        let all = uri("x-amz-meta-a=b&x-amz-acl=private&content-type=text%2Fplain");
        assert!(judge("PUT", &all, &[HOST], EXPIRES - 1).await.is_ok());
        let some = uri("content-type=text%2Fplain");
        let sent = [HOST, ("x-amz-meta-a", "b"), ("x-amz-acl", "private")];
        assert!(judge("PUT", &some, &sent, EXPIRES - 1).await.is_ok());
        assert!(judge("PUT", &some, &sent[..2], EXPIRES - 1).await.is_err());
    }
}
