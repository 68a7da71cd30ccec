//! Signature Version 4. Input: a request's head, as `METHOD target`, then a header a line.
//!
//! The head is judged as it stands. Then it is signed, in its headers and in its URL, by a second implementation of the
//! canonical request, written from AWS's documentation alone: that must be accepted, and no longer after any change that
//! changes what it means.

use crate::random::{Random, seed_of};
use async_trait::async_trait;
use futures_util::FutureExt as _;
use http::header::{AUTHORIZATION, HOST, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Request, Uri};
use sha2::{Digest as _, Sha256};
use valv_gateway::error::{S3Code, S3Error};
use valv_gateway::sigv4::{ALGORITHM, Authentication, SecretSource, SigV4Config, SigningKey, authenticate};
use valv_metadata_api::{AccessGrant, Roles, Secret};
use valv_types::{AccessKeyId, NamespaceId, ProjectId, TimestampMicros, UserId};

/// Words of signed requests.
pub const WORDS: &[&str] = &[
    "Authorization: AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders=host,Signature=",
    "SignedHeaders=",
    "Credential=",
    "Signature=",
    "x-amz-date: 20130524T000000Z",
    "x-amz-security-token: t",
    "host: h",
    "x-amz-content-sha256: UNSIGNED-PAYLOAD",
    "x-amz-content-sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
    "X-Amz-Expires=604801",
    "?X-Amz-Algorithm=AWS4-HMAC-SHA256",
    "&X-Amz-Signature=",
    "AWSAccessKeyId=",
    "%2F",
    "%zz",
    "+",
    "%2B",
    "//",
    "/../",
    "?",
    "&",
    "=",
    ";",
    ",",
    "\n",
    "accept-encoding: gzip",
    "AWS4-ECDSA-P256-SHA256",
    "AWS a:b",
];

const ACCESS_KEY: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET_KEY: &[u8] = b"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const SCOPE: &str = "20130524/us-east-1/s3/aws4_request";
const STAMP: &str = "20130524T000000Z";
/// 24 May 2013, midnight: the time of AWS's examples.
const NOW: TimestampMicros = TimestampMicros(1_369_353_600_000_000);

struct OneKey;

#[async_trait]
impl SecretSource for OneKey {
    async fn secret(&self, id: &AccessKeyId) -> Result<AccessGrant, S3Error> {
        if id.as_str() != ACCESS_KEY {
            return Err(S3Code::InvalidAccessKeyId.into());
        }
        Ok(AccessGrant {
            secret: Secret::new(SECRET_KEY.to_vec()),
            user: UserId::from_bytes([1; 16]),
            canonical_id: "c".repeat(64),
            display_name: "one".to_owned(),
            user_name: "one".to_owned(),
            project: ProjectId::from_bytes([2; 16]),
            namespace: NamespaceId::from_bytes([3; 16]),
            project_name: "p".to_owned(),
            lease_ms: 3_000,
            roles: Roles::NONE,
            is_governed: false,
        })
    }
}

fn judge(parts: &Parts, now: TimestampMicros) -> Result<Authentication, S3Error> {
    let config = SigV4Config::default();
    authenticate(&config, parts, &OneKey, now).now_or_never().expect("nothing here waits")
}

/// See the module.
pub fn run(data: &[u8]) {
    let Some(parts) = head(data) else { return };
    if let Ok(Authentication { identity: Some(identity), .. }) = judge(&parts, NOW) {
        assert_eq!(identity.access_key.as_str(), ACCESS_KEY);
        let is_signed = |name: &str| identity.signed_headers.iter().any(|signed| signed == name);
        assert!(is_signed("host"), "the host was not signed");
        for name in parts.headers.keys().filter(|name| name.as_str().starts_with("x-amz-")) {
            assert!(is_signed(name.as_str()), "{name} was not signed");
        }
    }
    if parts.uri.query().is_some_and(|query| query.contains("X-Amz-") || query.contains("AWSAccessKeyId")) {
        return;
    }
    let mut random = Random::new(seed_of(data));
    let Some(signed) = sign_in_headers(&parts) else { return };
    accepted_and_only_as_it_is(&signed, &mut random, NOW);
    let Some(presigned) = sign_in_url(&parts) else { return };
    accepted_and_only_as_it_is(&presigned, &mut random, NOW);
    assert!(judge(&presigned, NOW.plus_secs(60)).is_err(), "the URL was good for 60 seconds");
    assert!(judge(&signed, NOW.plus_secs(15 * 60 + 1)).is_err(), "the clocks are too far apart");
}

fn head(data: &[u8]) -> Option<Parts> {
    let mut lines = data.split(|&byte| byte == b'\n');
    let first = std::str::from_utf8(lines.next()?).ok()?;
    let (method, target) = first.split_once(' ')?;
    let mut builder = Request::builder().method(method).uri(target);
    for line in lines.filter(|line| !line.is_empty()) {
        let colon = line.iter().position(|&byte| byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
        builder = builder.header(name, value);
    }
    Some(builder.body(()).ok()?.into_parts().0)
}

fn accepted_and_only_as_it_is(parts: &Parts, random: &mut Random, now: TimestampMicros) {
    let judged = judge(parts, now);
    let is_signed = judged.as_ref().is_ok_and(|judged| judged.identity.is_some());
    assert!(is_signed, "a signed request was refused: {judged:?}\n{parts:?}");
    let Some(changed) = changed(parts, random) else { return };
    // Without its parameters it is anonymous, which is no secret and no permission.
    if judge(&changed, now).is_ok_and(|judged| judged.identity.is_some()) {
        assert_eq!(meaning(&changed), meaning(parts), "changed, and still accepted");
    }
}

/// The request with one change, as somebody on the way might make it.
fn changed(parts: &Parts, random: &mut Random) -> Option<Parts> {
    let mut changed = parts.clone();
    match random.below(4) {
        0 => changed.method = random.pick(&[http::Method::GET, http::Method::PUT, http::Method::DELETE]).clone(),
        1 | 2 => {
            let mut target = parts.uri.path_and_query()?.as_str().as_bytes().to_vec();
            let at = random.below(target.len());
            match random.below(3) {
                0 => target[at] = *random.pick(b"/%a+&=?2Fb~"),
                1 => target.insert(at, *random.pick(b"/%a+&=?2Fb~")),
                _ => drop(target.remove(at)),
            }
            changed.uri = Uri::try_from(target).ok()?;
        }
        _ => {
            let names: Vec<HeaderName> = parts.headers.keys().filter(|name| *name != AUTHORIZATION).cloned().collect();
            if names.is_empty() {
                return None;
            }
            let name = random.pick(&names);
            match random.below(3) {
                0 => drop(changed.headers.remove(name)),
                1 => drop(changed.headers.insert(name, HeaderValue::from_static("other"))),
                _ => drop(changed.headers.append(name, HeaderValue::from_static("more"))),
            }
        }
    }
    Some(changed)
}

/// What a request asks for: all that a signature must hold fast.
#[derive(Debug, PartialEq, Eq)]
struct Meaning {
    method: String,
    path: Vec<u8>,
    query: Vec<(Vec<u8>, Vec<u8>)>,
    headers: Vec<(String, Vec<u8>)>,
}

fn meaning(parts: &Parts) -> Meaning {
    // Headers that Valv never reads, and whose changes by proxies are forgiven.
    let is_read = |name: &str| name != "accept-encoding";
    let mut names: Vec<&str> = parts.headers.keys().map(HeaderName::as_str).filter(|name| is_read(name)).collect();
    names.sort_unstable();
    Meaning {
        method: parts.method.to_string(),
        // RFC 9110, section 4.2.3: an empty path is a slash.
        path: decode(Some(parts.uri.path()).filter(|path| !path.is_empty()).unwrap_or("/").as_bytes(), false),
        query: pairs(parts),
        // In a canonical request, AWS's included, an empty header and none are the same.
        headers: names
            .into_iter()
            .map(|name| (name.to_owned(), value(parts, name)))
            .filter(|(_, value)| !value.is_empty())
            .collect(),
    }
}

/// Signs every header, in an Authorization header. `None` if the request has something that its signer would not send.
fn sign_in_headers(parts: &Parts) -> Option<Parts> {
    let mut signed = prepared(parts)?;
    signed.headers.insert("x-amz-date", HeaderValue::from_static(STAMP));
    signed.headers.insert("x-amz-content-sha256", HeaderValue::from_static("UNSIGNED-PAYLOAD"));
    let names = signed_names(&signed);
    let signature = sign(&canonical(&signed, &names));
    let text = format!("{ALGORITHM} Credential={ACCESS_KEY}/{SCOPE}, SignedHeaders={names}, Signature={signature}");
    signed.headers.insert(AUTHORIZATION, text.parse().ok()?);
    Some(signed)
}

/// Signs every header, in the URL, for 60 seconds.
fn sign_in_url(parts: &Parts) -> Option<Parts> {
    let mut signed = prepared(parts)?;
    let names = signed_names(&signed);
    let credential = format!("{ACCESS_KEY}/{SCOPE}").replace('/', "%2F");
    let separator = if signed.uri.query().is_some() { '&' } else { '?' };
    let target = format!(
        "{}{separator}X-Amz-Algorithm={ALGORITHM}&X-Amz-Credential={credential}&X-Amz-Date={STAMP}&X-Amz-Expires=60\
         &X-Amz-SignedHeaders={}",
        signed.uri,
        encode(names.as_bytes(), false),
    );
    signed.uri = Uri::try_from(&target).ok()?;
    let signature = sign(&canonical(&signed, &names));
    signed.uri = Uri::try_from(format!("{target}&X-Amz-Signature={signature}")).ok()?;
    Some(signed)
}

/// The request without what would make it mean another kind of signature.
fn prepared(parts: &Parts) -> Option<Parts> {
    let mut prepared = parts.clone();
    for name in ["authorization", "x-amz-security-token", "x-amz-content-sha256", "x-amz-date"] {
        prepared.headers.remove(name);
    }
    prepared.uri = Uri::try_from(parts.uri.path_and_query()?.as_str()).ok()?;
    // Its query must be one that the gateway can read at all.
    valv_gateway::host::Query::parse(prepared.uri.query().unwrap_or_default()).ok()?;
    prepared.headers.insert(HOST, HeaderValue::from_static("bucket.example:9000"));
    (prepared.headers.keys_len() < 200).then_some(prepared)
}

fn signed_names(parts: &Parts) -> String {
    let mut names: Vec<&str> = parts.headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    names.join(";")
}

/// The canonical request: method, path, query, headers, their names, the body's hash.
fn canonical(parts: &Parts, names: &str) -> Vec<u8> {
    let query: Vec<String> =
        pairs(parts).iter().map(|(name, value)| format!("{}={}", encode(name, false), encode(value, false))).collect();
    let path = encode(&decode(parts.uri.path().as_bytes(), false), true);
    let mut out = format!("{}\n{path}\n{}\n", parts.method, sorted(query).join("&")).into_bytes();
    for name in names.split(';') {
        out.extend_from_slice(format!("{name}:").as_bytes());
        out.extend_from_slice(&value(parts, name));
        out.push(b'\n');
    }
    out.extend_from_slice(format!("\n{names}\nUNSIGNED-PAYLOAD").as_bytes());
    out
}

/// AWS sorts by encoded name, then by encoded value: as whole strings `a-b=` would come before `a=`.
fn sorted(mut query: Vec<String>) -> Vec<String> {
    query.sort_by(|a, b| {
        let split = |text: &str| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        split(a).cmp(&split(b))
    });
    query
}

fn sign(canonical: &[u8]) -> String {
    let text = format!("{ALGORITHM}\n{STAMP}\n{SCOPE}\n{}", hex::encode(Sha256::digest(canonical)));
    SigningKey::derive(SECRET_KEY, "20130524", "us-east-1", "s3").sign(text.as_bytes()).to_hex()
}

/// The query's parameters, decoded and sorted, without the signature.
fn pairs(parts: &Parts) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut pairs: Vec<_> = parts
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.starts_with("X-Amz-Signature="))
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name.as_bytes(), true), decode(value.as_bytes(), true)))
        .collect();
    pairs.sort_unstable();
    pairs
}

/// A header's values, as they are signed.
fn value(parts: &Parts, name: &str) -> Vec<u8> {
    let collapsed = |value: &HeaderValue| {
        let words = value.as_bytes().split(|&byte| byte == b' ' || byte == b'\t').filter(|word| !word.is_empty());
        words.collect::<Vec<_>>().join(&b' ')
    };
    parts.headers.get_all(name).iter().map(collapsed).collect::<Vec<_>>().join(&b',')
}

fn encode(bytes: &[u8], keep_slash: bool) -> String {
    bytes
        .iter()
        .map(|&byte| match byte {
            b'/' if keep_slash => "/".to_owned(),
            _ if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

fn decode(text: &[u8], plus_is_space: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let escape = text.get(at + 1..at + 3).filter(|_| text[at] == b'%').and_then(|digits| hex::decode(digits).ok());
        match escape {
            Some(byte) => {
                out.extend(byte);
                at += 3;
            }
            None => {
                out.push(if plus_is_space && text[at] == b'+' { b' ' } else { text[at] });
                at += 1;
            }
        }
    }
    out
}
