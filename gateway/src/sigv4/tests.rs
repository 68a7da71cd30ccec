//! The examples that AWS publishes, refusals as tables, and random input.

use super::*;
use crate::host::HostConfig;
use http::Request;
use proptest::prelude::*;
use valv_metadata_api::{Roles, Secret};
use valv_types::{NamespaceId, ProjectId, UserId};

const ACCESS_KEY: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET_KEY: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const SCOPE: &str = "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request";
/// Fri, 24 May 2013 00:00:00 GMT, the time of all of AWS's examples.
const NOW: TimestampMicros = TimestampMicros(1_369_353_600_000_000);

struct OneKey;

fn grant() -> AccessGrant {
    AccessGrant {
        user_name: "u".to_owned(),
        project_name: "p".to_owned(),
        roles: Roles::NONE,
        is_governed: false,
        secret: Secret::new(SECRET_KEY.as_bytes().to_vec()),
        user: UserId::from_bytes([1; 16]),
        canonical_id: "c".repeat(64),
        display_name: "one".to_owned(),
        project: ProjectId::from_bytes([2; 16]),
        namespace: NamespaceId::from_bytes([3; 16]),
        lease_ms: 3_000,
    }
}

#[async_trait]
impl SecretSource for OneKey {
    async fn secret(&self, id: &AccessKeyId) -> Result<AccessGrant, S3Error> {
        if id.as_str() == ACCESS_KEY { Ok(grant()) } else { Err(S3Code::InvalidAccessKeyId.into()) }
    }
}

fn request(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut builder = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(()).expect("valid request").into_parts().0
}

async fn judge(parts: &Parts, now: TimestampMicros) -> Result<Authentication, S3Error> {
    authenticate(&SigV4Config::default(), parts, &OneKey, now).await
}

fn authorization(signed: &str, signature: &str) -> String {
    format!("{ALGORITHM} Credential={SCOPE},SignedHeaders={signed},Signature={signature}")
}

/// Signs `parts` as a client would, adding the Authorization header.
fn sign(mut parts: Parts, signed: &str, scope: &str, at: TimestampMicros) -> Parts {
    let names: Vec<String> = signed.split(';').map(str::to_owned).collect();
    let payload =
        parts.headers.get("x-amz-content-sha256").map_or("", |value| value.to_str().expect("ASCII")).to_owned();
    let canonical = canonical_request(&parts, &names, &payload, Reading::AS_RECEIVED);
    let [date, region, service, _]: [&str; 4] =
        scope.split('/').skip(1).collect::<Vec<_>>().try_into().expect("five components");
    let string = format!(
        "{ALGORITHM}\n{}\n{}\n{}",
        http_date::format_basic(at),
        scope.split_once('/').expect("scope").1,
        hex::encode(Sha256::digest(&canonical))
    );
    let signature = SigningKey::derive(SECRET_KEY.as_bytes(), date, region, service).sign(string.as_bytes()).to_hex();
    let value = format!("{ALGORITHM} Credential={scope}, SignedHeaders={signed}, Signature={signature}");
    parts.headers.insert(AUTHORIZATION, value.parse().expect("ASCII"));
    parts
}

// rclone #8206: a proxy between client and server rewrites a header that the client signed.
#[tokio::test]
async fn a_rewritten_accept_encoding_is_forgiven_and_no_other_header_is() {
    let headers = |accept: &'static str, range: &'static str| {
        vec![
            ("host", "h"),
            ("x-amz-date", "20130524T000000Z"),
            ("x-amz-content-sha256", EMPTY),
            ("accept-encoding", accept),
            ("range", range),
        ]
    };
    let all = "accept-encoding;host;range;x-amz-content-sha256;x-amz-date";
    for (original, rewritten, signed, is_accepted) in [
        ("identity", "gzip", all, true),
        ("gzip", "gzip, br", all, true),
        ("gzip, deflate", "", all, true),
        ("", "gzip", all, true),
        ("gzip,deflate;q=0.5", "gzip,deflate;q=0.5", all, true),
        // Not one of the originals that are tried.
        ("br", "gzip", all, false),
        ("identity", "gzip", "host;range;x-amz-content-sha256;x-amz-date", true),
    ] {
        let mut parts = sign(request("GET", "/b/k", &headers(original, "bytes=0-9")), signed, SCOPE, NOW);
        parts.headers.insert("accept-encoding", rewritten.parse().expect("value"));
        assert_eq!(judge(&parts, NOW).await.is_ok(), is_accepted, "{original} -> {rewritten}");
        parts.headers.remove("accept-encoding");
        let is_tried = matches!(original, "identity" | "gzip" | "gzip, deflate" | "") || signed != all;
        assert_eq!(judge(&parts, NOW).await.is_ok(), is_tried, "{original} -> nothing");
        parts.headers.insert("range", "bytes=0-8".parse().expect("value"));
        let refused = judge(&parts, NOW).await.expect_err("the range was signed");
        assert_eq!(refused.code(), S3Code::SignatureDoesNotMatch);
    }
}

// "Signature Calculations for the Authorization Header: Transferring Payload in a Single Chunk", its four examples; the
// seed request of "... in Multiple Chunks" and of "... Including Trailing Headers".
#[tokio::test]
async fn the_examples_of_aws_are_accepted() {
    let host = ("host", "examplebucket.s3.amazonaws.com");
    let date = ("x-amz-date", "20130524T000000Z");
    let empty = ("x-amz-content-sha256", EMPTY);
    let class = ("x-amz-storage-class", "REDUCED_REDUNDANCY");
    let cases = [
        (
            "GET",
            "/test.txt",
            vec![host, ("range", "bytes=0-9"), empty, date],
            "host;range;x-amz-content-sha256;x-amz-date",
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "PUT",
            "/test$file.text",
            vec![
                host,
                ("date", "Fri, 24 May 2013 00:00:00 GMT"),
                date,
                class,
                ("x-amz-content-sha256", "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"),
            ],
            "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        (
            "GET",
            "/?lifecycle",
            vec![host, empty, date],
            "host;x-amz-content-sha256;x-amz-date",
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        (
            "GET",
            "/?max-keys=2&prefix=J",
            vec![host, empty, date],
            "host;x-amz-content-sha256;x-amz-date",
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
        (
            "PUT",
            "/examplebucket/chunkObject.txt",
            vec![
                ("host", "s3.amazonaws.com"),
                date,
                class,
                ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"),
                ("content-encoding", "aws-chunked"),
                ("x-amz-decoded-content-length", "66560"),
                ("content-length", "66824"),
            ],
            "content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class",
            "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
        ),
        (
            "PUT",
            "/examplebucket/chunkObject.txt",
            vec![
                ("host", "s3.amazonaws.com"),
                date,
                class,
                ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"),
                ("content-encoding", "aws-chunked"),
                ("x-amz-decoded-content-length", "66560"),
                ("x-amz-trailer", "x-amz-checksum-crc32c"),
            ],
            "content-encoding;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class;x-amz-trailer",
            "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e",
        ),
    ];
    for (method, uri, headers, signed, signature) in cases {
        let mut parts = request(method, uri, &headers);
        parts.headers.insert(AUTHORIZATION, authorization(signed, signature).parse().expect("ASCII"));
        let found = judge(&parts, NOW)
            .await
            .unwrap_or_else(|error| panic!("{uri}: {}", error.to_xml(&crate::request_id::RequestId::next())));
        let identity = found.identity.expect("signed");
        assert_eq!(identity.access_key.as_str(), ACCESS_KEY);
        assert_eq!(identity.signed_by, SignedBy::Header);

        // One bit of the signature makes it wrong.
        let wrong = format!("{}{}", if signature.starts_with('0') { '1' } else { '0' }, &signature[1..]);
        parts.headers.insert(AUTHORIZATION, authorization(signed, &wrong).parse().expect("ASCII"));
        let error = judge(&parts, NOW).await.expect_err("wrong signature");
        assert_eq!(error.code(), S3Code::SignatureDoesNotMatch, "{uri}");
        assert!(error.extra("CanonicalRequest").is_some());
    }
}

// "Authenticating Requests: Using Query Parameters", its example.
const PRESIGNED: &str = "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";

#[tokio::test]
async fn the_presigned_example_of_aws_is_accepted_in_its_time_only() {
    let parts = request("GET", PRESIGNED, &[("host", "examplebucket.s3.amazonaws.com")]);
    for (offset_secs, expected) in [
        (-901_i64, Some("Request is not valid yet")),
        (-900, None),
        (0, None),
        (86_399, None),
        (86_400, Some("Request has expired")),
    ] {
        let now = TimestampMicros::from_secs(NOW.as_secs().checked_add_signed(offset_secs).expect("in range"));
        match (judge(&parts, now).await, expected) {
            (Ok(found), None) => {
                assert_eq!(found.identity.map(|identity| identity.signed_by), Some(SignedBy::Presigned));
                assert!(matches!(found.payload, PayloadMode::Unsigned));
            }
            (Err(error), Some(message)) => {
                assert_eq!((error.code(), error.message()), (S3Code::AccessDenied, message));
            }
            (found, _) => panic!("{offset_secs}: {found:?}"),
        }
    }
}

#[tokio::test]
async fn malformed_presigned_urls_get_the_codes_of_aws() {
    let malformed = S3Code::AuthorizationQueryParametersError;
    for (from, to, expected) in [
        ("&X-Amz-Expires=86400", "&X-Amz-Expires=604801", malformed),
        ("&X-Amz-Expires=86400", "&X-Amz-Expires=99999999999999999999999", malformed),
        ("&X-Amz-Expires=86400", "&X-Amz-Expires=-7", malformed),
        ("&X-Amz-Expires=86400", "&X-Amz-Expires=+7", malformed),
        ("&X-Amz-Expires=86400", "&X-Amz-Expires=", malformed),
        ("&X-Amz-Expires=86400", "&X-Amz-Expires=0", S3Code::AccessDenied),
        ("&X-Amz-Expires=86400", "", malformed),
        ("&X-Amz-Expires=86400", "&X-Amz-Expires=86400&X-Amz-Expires=86400", malformed),
        ("&X-Amz-Expires=86400", "&X-Amz-Expires=86399", S3Code::SignatureDoesNotMatch),
        ("X-Amz-Algorithm=AWS4-HMAC-SHA256", "X-Amz-Algorithm=AWS4-HMAC-SHA512", malformed),
        ("X-Amz-Algorithm=AWS4-HMAC-SHA256&", "", malformed),
        ("20130524%2Fus-east-1", "20130523%2Fus-east-1", malformed),
        ("us-east-1", "eu-north-1", malformed),
        ("%2Fs3%2F", "%2Fec2%2F", malformed),
        ("aws4_request", "aws5_request", malformed),
        ("AKIAIOSFODNN7EXAMPLE%2F", "", malformed),
        ("AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7NOBODYS", S3Code::InvalidAccessKeyId),
        ("AKIAIOSFODNN7EXAMPLE", "!", S3Code::InvalidAccessKeyId),
        ("20130524T000000Z", "20130524", malformed),
        ("SignedHeaders=host", "SignedHeaders=Host", malformed),
        ("SignedHeaders=host", "SignedHeaders=range", S3Code::AccessDenied),
        ("604d404", "604d405", S3Code::SignatureDoesNotMatch),
        ("604d404", "604d4", S3Code::SignatureDoesNotMatch),
        ("/test.txt", "/tests.txt", S3Code::SignatureDoesNotMatch),
        ("X-Amz-Signature", "versionId=1&X-Amz-Signature", S3Code::SignatureDoesNotMatch),
    ] {
        let uri = PRESIGNED.replace(from, to);
        assert_ne!(uri, PRESIGNED, "{from}");
        let parts = request("GET", &uri, &[("host", "examplebucket.s3.amazonaws.com")]);
        let error = judge(&parts, NOW).await.expect_err(to);
        assert_eq!(error.code(), expected, "{from} -> {to}: {error}");
    }
    let v2 = "/k?AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE&Signature=abc&Expires=1369353600";
    let error = judge(&request("GET", v2, &[("host", "h")]), NOW).await.expect_err("SigV2");
    assert_eq!(error.code(), S3Code::InvalidRequest);
    let unsigned = [("host", "examplebucket.s3.amazonaws.com"), ("x-amz-acl", "public-read")];
    let error = judge(&request("GET", PRESIGNED, &unsigned), NOW).await.expect_err("unsigned header");
    assert_eq!((error.code(), error.extra("HeadersNotSigned")), (S3Code::AccessDenied, Some("x-amz-acl")));
    let token = format!("{PRESIGNED}&X-Amz-Security-Token=abc");
    let host = [("host", "examplebucket.s3.amazonaws.com")];
    let error = judge(&request("GET", &token, &host), NOW).await.expect_err("token");
    assert_eq!(error.code(), S3Code::InvalidToken);
}

/// Somebody who issues temporary credentials, with two tokens for the same key.
struct Sessions;

#[async_trait]
impl SecretSource for Sessions {
    async fn secret(&self, _: &AccessKeyId) -> Result<AccessGrant, S3Error> {
        Err(S3Code::InvalidAccessKeyId.into())
    }

    async fn session_secret(&self, _: &AccessKeyId, token: &str) -> Result<AccessGrant, S3Error> {
        if token.starts_with("token") { Ok(grant()) } else { Err(S3Code::InvalidToken.into()) }
    }
}

/// A presigned URL's query for `GET /b/k` with these parameters beside the usual ones.
fn presign(extra: &str, headers: &[(&str, &str)], signed: &str) -> String {
    let credential = SCOPE.replace('/', "%2F");
    let query = format!(
        "X-Amz-Algorithm={ALGORITHM}&X-Amz-Credential={credential}&X-Amz-Date=20130524T000000Z&X-Amz-Expires=60\
         &X-Amz-SignedHeaders={}{extra}",
        signed.replace(';', "%3B")
    );
    let names: Vec<String> = signed.split(';').map(str::to_owned).collect();
    let parts = request("GET", &format!("/b/k?{query}"), headers);
    let canonical = canonical_request(&parts, &names, "UNSIGNED-PAYLOAD", Reading::AS_RECEIVED);
    let string = format!(
        "{ALGORITHM}\n20130524T000000Z\n20130524/us-east-1/s3/aws4_request\n{}",
        hex::encode(Sha256::digest(&canonical))
    );
    let key = SigningKey::derive(SECRET_KEY.as_bytes(), "20130524", "us-east-1", "s3");
    format!("/b/k?{query}&X-Amz-Signature={}", key.sign(string.as_bytes()).to_hex())
}

#[tokio::test]
async fn a_session_token_is_under_the_signature_wherever_it_stands_and_refused_while_nobody_issues_any() {
    let config = SigV4Config::default();
    let ask = async |parts: &Parts| {
        let issued = authenticate(&config, parts, &Sessions, NOW).await.map(|_| ()).map_err(|error| error.code());
        let ours = authenticate(&config, parts, &OneKey, NOW).await.map(|_| ()).map_err(|error| error.code());
        (issued, ours)
    };
    let good = (Ok(()), Err(S3Code::InvalidToken));
    let changed = (Err(S3Code::SignatureDoesNotMatch), Err(S3Code::InvalidToken));
    let foreign = (Err(S3Code::InvalidToken), Err(S3Code::InvalidToken));
    let plain = [("host", "h"), ("x-amz-date", "20130524T000000Z"), ("x-amz-content-sha256", EMPTY)];
    let names = "host;x-amz-content-sha256;x-amz-date";

    // In a header of a request that is signed in a header.
    let headers = |token: &'static str| [plain.as_slice(), &[("x-amz-security-token", token)]].concat();
    let with_token = format!("{names};x-amz-security-token");
    let mut parts = sign(request("GET", "/b/k", &headers("token 1")), &with_token, SCOPE, NOW);
    assert_eq!(ask(&parts).await, good);
    parts.headers.insert("x-amz-security-token", "token 2".parse().expect("value"));
    assert_eq!(ask(&parts).await, changed);
    parts.headers.insert("x-amz-security-token", "other".parse().expect("value"));
    assert_eq!(ask(&parts).await, foreign);
    let unsigned = sign(request("GET", "/b/k", &headers("token 1")), names, SCOPE, NOW);
    assert_eq!(ask(&unsigned).await, (Err(S3Code::AccessDenied), Err(S3Code::AccessDenied)));
    // In the query of one.
    let token = "X-Amz-Security-Token=token%201";
    let parts = sign(request("GET", &format!("/b/k?{token}"), &plain), names, SCOPE, NOW);
    assert_eq!(ask(&parts).await, good);

    // In a presigned URL, and in a header beside one.
    let host = [("host", "h")];
    let url = presign(&format!("&{token}"), &host, "host");
    assert_eq!(ask(&request("GET", &url, &host)).await, good);
    assert_eq!(ask(&request("GET", &url.replace("token%201", "token%202"), &host)).await, changed);
    assert_eq!(ask(&request("GET", &url.replace("token%201", "other"), &host)).await, foreign);
    let without = (Err(S3Code::InvalidAccessKeyId), Err(S3Code::SignatureDoesNotMatch));
    assert_eq!(ask(&request("GET", &url.replace(&format!("&{token}"), ""), &host)).await, without);
    let both = [("host", "h"), ("x-amz-security-token", "token 1")];
    let url = presign("", &both, "host;x-amz-security-token");
    assert_eq!(ask(&request("GET", &url, &both)).await, good);
    let url = presign("", &both, "host");
    assert_eq!(ask(&request("GET", &url, &both)).await, (Err(S3Code::AccessDenied), Err(S3Code::AccessDenied)));
}

#[tokio::test]
async fn malformed_authorization_headers_get_the_codes_of_aws() {
    let malformed = S3Code::AuthorizationHeaderMalformed;
    let good = authorization(
        "host;x-amz-content-sha256;x-amz-date",
        "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
    );
    let host = ("host", "examplebucket.s3.amazonaws.com");
    let date = ("x-amz-date", "20130524T000000Z");
    let empty = ("x-amz-content-sha256", EMPTY);
    for (from, to, expected) in [
        (good.as_str(), "", S3Code::AccessDenied),
        (&good, "AWS HAHAHA", S3Code::InvalidArgument),
        (&good, "AWS AKIAIOSFODNN7EXAMPLE:frJIUN8DYpKDtOLCwo//yllqDzg=", S3Code::InvalidRequest),
        (&good, "Basic dTpw", S3Code::InvalidArgument),
        (&good, "AWS4-HMAC-SHA256", malformed),
        (ALGORITHM, "AWS4-ECDSA-P256-SHA256", S3Code::NotImplemented),
        ("Signature=", "Sig=", malformed),
        ("Signature=", "Signature=00,Signature=", malformed),
        ("SignedHeaders=", "Headers=", malformed),
        ("Credential=", "Cred=", malformed),
        ("us-east-1", "eu-north-1", malformed),
        ("20130524/", "20130525/", malformed),
        ("/s3/", "/sts/", malformed),
        ("aws4_request", "aws4", malformed),
        ("/us-east-1/s3", "/s3", malformed),
        ("host;", "host;host;", malformed),
        ("host;", ";host;", malformed),
        ("host;", "", S3Code::AccessDenied),
        ("x-amz-content-sha256;", "", S3Code::AccessDenied),
        ("EXAMPLE/", "EXAMPLEX/", S3Code::InvalidAccessKeyId),
        ("783543", "78354", S3Code::SignatureDoesNotMatch),
        ("783543", "783544", S3Code::SignatureDoesNotMatch),
    ] {
        let value = good.replace(from, to);
        assert_ne!(value, good);
        let parts = request("GET", "/?lifecycle", &[host, date, empty, ("authorization", &value)]);
        let error = judge(&parts, NOW).await.expect_err(to);
        assert_eq!(error.code(), expected, "{from} -> {to}: {error}");
        if to == "eu-north-1" {
            assert_eq!(error.extra("Region"), Some("us-east-1"));
        }
    }
    let both = request("GET", PRESIGNED, &[host, ("authorization", &good)]);
    assert_eq!(judge(&both, NOW).await.expect_err("both").code(), S3Code::InvalidArgument);
    let twice = request("GET", "/", &[host, date, empty, ("authorization", &good), ("authorization", &good)]);
    assert_eq!(judge(&twice, NOW).await.expect_err("twice").code(), S3Code::InvalidArgument);

    for (headers, expected) in [
        (vec![host, empty], S3Code::AccessDenied),
        (vec![host, empty, ("x-amz-date", "yesterday")], S3Code::AccessDenied),
        (vec![host, empty, ("date", "yesterday")], S3Code::AccessDenied),
        (vec![host, date], S3Code::InvalidRequest),
        (vec![host, date, ("x-amz-content-sha256", "nonsense")], S3Code::InvalidArgument),
        (vec![host, date, empty, ("x-amz-acl", "private")], S3Code::AccessDenied),
    ] {
        let mut headers = headers;
        headers.push(("authorization", &good));
        let error = judge(&request("GET", "/?lifecycle", &headers), NOW).await.expect_err("refused");
        assert_eq!(error.code(), expected, "{headers:?}: {error}");
    }
}

#[tokio::test]
async fn a_clock_more_than_fifteen_minutes_away_is_refused() {
    let headers = [("host", "h"), ("x-amz-date", "20130524T120000Z"), ("x-amz-content-sha256", EMPTY)];
    let at = NOW.plus_secs(12 * 3600);
    let parts = sign(request("GET", "/b", &headers), "host;x-amz-content-sha256;x-amz-date", SCOPE, at);
    for (offset_secs, is_accepted) in [(-901_i64, false), (-900, true), (900, true), (901, false)] {
        let now = TimestampMicros::from_secs(at.as_secs().checked_add_signed(offset_secs).expect("in range"));
        match judge(&parts, now).await {
            Ok(_) => assert!(is_accepted, "{offset_secs}"),
            Err(error) => {
                assert!(!is_accepted, "{offset_secs}: {error}");
                assert_eq!(error.code(), S3Code::RequestTimeTooSkewed);
            }
        }
    }
}

#[tokio::test]
async fn other_regions_are_accepted_only_when_configured() {
    let scope = SCOPE.replace("us-east-1", "eu-north-1");
    let headers = [("host", "h"), ("x-amz-date", "20130524T000000Z"), ("x-amz-content-sha256", EMPTY)];
    let parts = sign(request("GET", "/b", &headers), "host;x-amz-content-sha256;x-amz-date", &scope, NOW);
    assert!(judge(&parts, NOW).await.is_err());
    let config = SigV4Config::new("us-east-1", ["eu-north-1".to_owned()]);
    assert!(authenticate(&config, &parts, &OneKey, NOW).await.is_ok());
}

#[tokio::test]
async fn without_a_signature_a_request_is_anonymous() {
    let found = judge(&request("GET", "/b/k", &[("host", "h")]), NOW).await.expect("anonymous");
    assert!(found.identity.is_none() && matches!(found.payload, PayloadMode::Unsigned));
    let chunks = [("host", "h"), ("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")];
    assert_eq!(judge(&request("PUT", "/b/k", &chunks), NOW).await.expect_err("no chain").code(), S3Code::AccessDenied);
    let ecdsa = [("host", "h"), ("x-amz-content-sha256", "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD")];
    assert_eq!(judge(&request("PUT", "/b/k", &ecdsa), NOW).await.expect_err("v4a").code(), S3Code::NotImplemented);
}

#[tokio::test]
async fn a_form_policy_is_verified() {
    // "Example: Browser-Based Upload using HTTP POST (Using AWS Signature Version 4)" has line breaks that its page does
    // not preserve, so the policy here is ours.
    let policy = "eyAiZXhwaXJhdGlvbiI6ICIyMDE1LTEyLTMwVDEyOjAwOjAwLjAwMFoiIH0=";
    let key = SigningKey::derive(SECRET_KEY.as_bytes(), "20130524", "us-east-1", "s3");
    let signature = key.sign(policy.as_bytes()).to_hex();
    let form = PolicySignature {
        policy,
        algorithm: ALGORITHM,
        credential: SCOPE,
        date: "20130524T000000Z",
        signature: &signature,
        security_token: None,
    };
    let config = SigV4Config::default();
    let identity = form.verify(&config, &OneKey).await.expect("right");
    assert_eq!(identity.signed_by, SignedBy::FormPolicy);
    for (wrong, expected) in [
        (PolicySignature { policy: "e30=", ..form }, S3Code::SignatureDoesNotMatch),
        (PolicySignature { signature: "00", ..form }, S3Code::SignatureDoesNotMatch),
        (PolicySignature { date: "20130525T000000Z", ..form }, S3Code::InvalidArgument),
        (PolicySignature { credential: "a/b", ..form }, S3Code::InvalidArgument),
        (PolicySignature { algorithm: "AWS", ..form }, S3Code::InvalidArgument),
        (PolicySignature { security_token: Some("t"), ..form }, S3Code::InvalidToken),
    ] {
        assert_eq!(wrong.verify(&config, &OneKey).await.expect_err("wrong").code(), expected, "{wrong:?}");
    }
}

#[test]
fn secrets_and_signatures_have_no_debug_output() {
    let key = SigningKey::derive(b"secret", "20130524", "us-east-1", "s3");
    let signature = key.sign(b"x");
    let text = format!("{key:?} {signature:?} {:?}", grant());
    assert!(!text.contains(&signature.to_hex()) && !text.contains(SECRET_KEY), "{text}");
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("runtime").block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_key_and_query_that_is_signed_is_accepted(
        key in prop::collection::vec(any::<u8>(), 1..40),
        query in prop::collection::vec(("[a-zA-Z-]{1,8}", ".{0,8}"), 0..4),
        meta in "[!-~ ]{0,20}",
    ) {
        let encode = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("%{byte:02x}")).collect() };
        let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={}", encode(value.as_bytes()))).collect();
        let uri = format!("/bucket/{}?{}", encode(&key), query.join("&"));
        let headers = [
            ("host", "h:9000"), ("x-amz-date", "20130524T000000Z"), ("x-amz-content-sha256", EMPTY), ("x-amz-meta-a", meta.as_str()),
        ];
        let parts = sign(request("GET", &uri, &headers), "host;x-amz-content-sha256;x-amz-date;x-amz-meta-a", SCOPE, NOW);
        let target = HostConfig::default().target(&parts).expect("target");
        prop_assert_eq!(target.key, valv_metadata_api::ObjectKey::new(key));
        prop_assert!(block_on(judge(&parts, NOW)).is_ok());
    }

    #[test]
    fn no_authorization_makes_the_gateway_panic(value in "[ -~]{0,120}", query in "[!-;=?-Z_a-z~&%]{0,120}") {
        let headers = [("host", "h"), ("authorization", value.as_str())];
        let _ = block_on(judge(&request("GET", "/", &headers), NOW));
        let composed = format!("AWS4-HMAC-SHA256 {value}");
        let _ = block_on(judge(&request("GET", "/", &[("host", "h"), ("authorization", composed.as_str())]), NOW));
        if let Ok(uri) = format!("/?X-Amz-Algorithm=AWS4-HMAC-SHA256&{query}").parse::<http::Uri>() {
            let _ = block_on(judge(&request("GET", &uri.to_string(), &[("host", "h")]), NOW));
        }
    }
}
