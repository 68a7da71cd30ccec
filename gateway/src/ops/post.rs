//! POST of a form: a PUT whose headers are the form's fields ("POST Object" of the S3 API reference).
//!
//! Nothing but the form says who uploads, so the fields are read first, within their limits. Signature, policy and rights
//! are judged on them alone: a byte of the file is asked for only when all three have been passed.

use super::complete::bucket_url;
use super::context::Context;
use super::headers::{header_value, text};
use super::tagging::form_tags;
use super::{Answer, put};
use crate::body::ResponseBody;
use crate::error::S3Error;
use crate::form::{Boundary, FormFields, FormUpload, PostPolicy};
use crate::host::{Target, checked_key};
use crate::payload::{Payload, PayloadMode};
use crate::sigv2;
use crate::sigv4::{Identity, PolicySignature};
use crate::state::Shared;
use crate::xml::{Namespace, Writer, url_encode};
use http::header::{CONTENT_TYPE, ETAG, HOST, LOCATION, ORIGIN, REFERER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use valv_types::TimestampMicros;

/// Fields that an object keeps, under the names of their headers.
const KEPT: [&str; 7] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-md5",
    "content-type",
    "expires",
];
/// `x-amz-*` fields that say something of the form or of a transfer, and nothing of the object: they are no headers.
const OF_THE_FORM: [&str; 11] = [
    "x-amz-algorithm",
    "x-amz-content-sha256",
    "x-amz-copy-source",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-decoded-content-length",
    "x-amz-sdk-checksum-algorithm",
    "x-amz-security-token",
    "x-amz-signature",
    "x-amz-te",
    "x-amz-trailer",
];
/// Headers of the request itself that remain: they say where it came from.
const OF_THE_REQUEST: [HeaderName; 4] = [HOST, ORIGIN, REFERER, USER_AGENT];
const REDIRECT: &str = "success_action_redirect";
/// The older name of it.
const REDIRECT_OLD: &str = "redirect";
const STATUS: &str = "success_action_status";
/// One more, which can do nothing but refuse.
const EXPECTED_OWNER: &str = "x-amz-expected-bucket-owner";

/// A form whose signature and policy are right, as the PUT that it stands for.
pub(crate) struct SignedForm {
    /// Who signed its policy; `None` for a form without a signature.
    pub(crate) identity: Option<Identity>,
    /// The bucket of the URL and the key of the form.
    pub(crate) target: Target,
    /// The fields, as headers.
    pub(crate) headers: HeaderMap,
    /// The file, of which nothing has been read.
    pub(crate) payload: Payload,
}

/// Reads a form up to its file, and verifies signature and policy.
///
/// # Errors
/// What is wrong with the form, its signature or its policy.
pub(crate) async fn read(
    shared: &Shared,
    mut target: Target,
    headers: &HeaderMap,
    body: crate::body::RequestBody,
    now: TimestampMicros,
) -> Result<SignedForm, S3Error> {
    let boundary = Boundary::of_request(headers)?;
    let payload = Payload::new(PayloadMode::Unsigned, headers, body, shared.config.payload)?;
    let (fields, upload) = FormUpload::begin(payload, &boundary).await?;
    let key = fields.get("key").map_or_else(|| fields.required("key").map(str::as_bytes), Ok)?;
    let identity = authenticate(shared, &fields, now).await?;
    let bucket = target.bucket.as_deref().unwrap_or_default();
    // A policy binds whoever sends it, also if nobody signed it.
    let range = match fields.text("policy")? {
        Some(policy) => PostPolicy::parse(policy)?.check(&fields, bucket, now)?,
        None => Default::default(),
    };
    target.key = Some(checked_key(key)?);
    let headers = headers_of(headers, &fields)?;
    let payload = Payload::of_form_file(upload.into_file(range), shared.config.payload)?;
    Ok(SignedForm { identity, target, headers, payload })
}

/// Whose signature the form carries. A form with none of the fields of a signature is anonymous; with some of them it must
/// have all.
async fn authenticate(shared: &Shared, fields: &FormFields, now: TimestampMicros) -> Result<Option<Identity>, S3Error> {
    const FIELDS: [&str; 5] =
        ["x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-signature", "x-amz-security-token"];
    if FIELDS.iter().all(|name| fields.get(name).is_none()) {
        if ["awsaccesskeyid", "signature"].iter().all(|name| fields.get(name).is_none()) {
            return Ok(None);
        }
        let (id, signature) = (fields.required("AWSAccessKeyId")?, fields.required("Signature")?);
        return sigv2::verify_policy(id, fields.required("Policy")?, signature, &*shared.principals, now)
            .await
            .map(Some);
    }
    let signature = PolicySignature {
        algorithm: fields.required("X-Amz-Algorithm")?,
        credential: fields.required("X-Amz-Credential")?,
        date: fields.required("X-Amz-Date")?,
        signature: fields.required("X-Amz-Signature")?,
        policy: fields.required("Policy")?,
        security_token: fields.text("x-amz-security-token")?,
    };
    signature.verify(&shared.sigv4, &*shared.principals).await.map(Some)
}

/// The headers of the PUT that the form stands for.
fn headers_of(request: &HeaderMap, fields: &FormFields) -> Result<HeaderMap, S3Error> {
    let mut headers = HeaderMap::new();
    let expected_owner = HeaderName::from_static(EXPECTED_OWNER);
    for name in OF_THE_REQUEST.into_iter().chain([expected_owner]) {
        if let Some(value) = request.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    for (name, value) in fields.iter() {
        let header = match name {
            "acl" => "x-amz-acl",
            // "If a value is specified, you must include the matching checksum": what SDKs mean by this header.
            "x-amz-checksum-algorithm" => "x-amz-sdk-checksum-algorithm",
            "tagging" => {
                let tags = form_tags(value)?;
                if !tags.is_empty() {
                    headers.insert("x-amz-tagging", field_value(name, tags.as_bytes())?);
                }
                continue;
            }
            REDIRECT | REDIRECT_OLD | STATUS => name,
            name if KEPT.contains(&name) => name,
            name if name.starts_with("x-amz-") && !OF_THE_FORM.contains(&name) => name,
            // Whatever else a page's form has in it, AWS does not store.
            _ => continue,
        };
        let header_name = HeaderName::from_bytes(header.as_bytes())
            .map_err(|_| S3Error::invalid_argument("The field's name can't be a header's", name, ""))?;
        headers.insert(header_name, field_value(name, value)?);
    }
    Ok(headers)
}

/// A field's value as a header's: metadata and the like are sent back as headers.
fn field_value(name: &str, value: &[u8]) -> Result<HeaderValue, S3Error> {
    HeaderValue::from_bytes(value.trim_ascii())
        .map_err(|_| S3Error::invalid_argument("The field's value has control characters", name, ""))
}

/// Stores the file and answers as the form wants it.
pub(crate) async fn post(cx: &Context, payload: Payload) -> Answer {
    let stored = put::put(cx, payload).await?;
    Ok(answer(cx, stored))
}

/// What to answer on success.
#[derive(Debug, PartialEq, Eq)]
enum Success {
    /// 303 to this URL.
    Redirect(HeaderValue),
    /// 201 with a document.
    Created,
    /// 200 or 204, empty.
    Empty(StatusCode),
}

impl Success {
    /// Reads what the form wants. AWS takes what it can't understand as if it were not there.
    fn wanted(headers: &HeaderMap, bucket: &str, key: &[u8], etag: &str) -> Self {
        let redirect = text(headers, REDIRECT).or_else(|| text(headers, REDIRECT_OLD));
        if let Some(location) = redirect.and_then(|url| redirect_location(url, bucket, key, etag)) {
            return Self::Redirect(location);
        }
        match text(headers, STATUS) {
            Some("200") => Self::Empty(StatusCode::OK),
            Some("201") => Self::Created,
            _ => Self::Empty(StatusCode::NO_CONTENT),
        }
    }
}

/// The URL with bucket, key and etag in its query. `None` if it is not an absolute http or https URL.
fn redirect_location(url: &str, bucket: &str, key: &[u8], etag: &str) -> Option<HeaderValue> {
    let (scheme, rest) = url.split_once("://")?;
    let is_http = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    if !is_http || rest.is_empty() || rest.starts_with(['/', '?', '#']) {
        return None;
    }
    let (before, fragment) = url.split_once('#').map_or((url, None), |(before, fragment)| (before, Some(fragment)));
    let mark = if before.contains('?') { '&' } else { '?' };
    let key = whole_url_encode(key).replace("%20", "+");
    let mut location = format!("{before}{mark}bucket={bucket}&key={key}&etag={}", whole_url_encode(etag.as_bytes()));
    if let Some(fragment) = fragment {
        location.push('#');
        location.push_str(fragment);
    }
    HeaderValue::from_str(&location).ok()
}

/// Percent-encodes slashes, too, as AWS does here.
fn whole_url_encode(bytes: &[u8]) -> String {
    url_encode(bytes).replace('/', "%2F")
}

fn answer(cx: &Context, mut stored: Response<ResponseBody>) -> Response<ResponseBody> {
    let bucket = cx.target.bucket.as_deref().unwrap_or_default();
    let key = cx.target.key.as_ref().map(|key| key.as_bytes()).unwrap_or_default();
    let etag = text(stored.headers(), ETAG.as_str()).unwrap_or_default().to_owned();
    let url = format!("{}/{}", bucket_url(cx), whole_url_encode(key));
    let success = Success::wanted(&cx.headers, bucket, key, &etag);
    stored.headers_mut().insert(LOCATION, header_value(&url));
    match success {
        Success::Redirect(location) => {
            *stored.status_mut() = StatusCode::SEE_OTHER;
            stored.headers_mut().insert(LOCATION, location);
        }
        Success::Created => {
            let document = Writer::document("PostResponse", Namespace::None, |xml| {
                xml.text("Location", &url);
                xml.text("Bucket", bucket);
                xml.text("Key", &String::from_utf8_lossy(key));
                xml.text("ETag", &etag);
            });
            *stored.status_mut() = StatusCode::CREATED;
            stored.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
            *stored.body_mut() = ResponseBody::full(document);
        }
        Success::Empty(status) => *stored.status_mut() = status,
    }
    stored
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(pairs: &[(&'static str, &str)]) -> Success {
        let headers =
            pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().expect("value"))).collect();
        Success::wanted(&headers, "b", "a b/é".as_bytes(), "\"e\"")
    }

    #[test]
    fn success_is_told_as_the_form_wants_it() {
        let empty = |status| Success::Empty(StatusCode::from_u16(status).expect("status"));
        let to = |location: &str| Success::Redirect(location.parse().expect("value"));
        let query = "bucket=b&key=a+b%2F%C3%A9&etag=%22e%22";
        for (pairs, expected) in [
            (vec![], empty(204)),
            (vec![(STATUS, "200")], empty(200)),
            (vec![(STATUS, "201")], Success::Created),
            (vec![(STATUS, "204")], empty(204)),
            (vec![(STATUS, "404")], empty(204)),
            (vec![(REDIRECT, "https://x.org/done")], to(&format!("https://x.org/done?{query}"))),
            (vec![(REDIRECT_OLD, "http://x.org?a=b")], to(&format!("http://x.org?a=b&{query}"))),
            (vec![(REDIRECT, "http://x.org/#part"), (STATUS, "201")], to(&format!("http://x.org/?{query}#part"))),
            (vec![(REDIRECT, "http://x.org/"), (REDIRECT_OLD, "http://y.org/")], to(&format!("http://x.org/?{query}"))),
            (vec![(REDIRECT, "/relative"), (STATUS, "200")], empty(200)),
            (vec![(REDIRECT, "javascript://x")], empty(204)),
            (vec![(REDIRECT, "http:///x")], empty(204)),
        ] {
            assert_eq!(wanted(&pairs), expected, "{pairs:?}");
        }
    }

    #[test]
    fn fields_become_the_headers_of_a_put_and_nothing_else_does() {
        let mut request = HeaderMap::new();
        for (name, value) in [
            ("host", "h"),
            ("origin", "o"),
            ("content-type", "multipart/form-data"),
            ("x-amz-meta-a", "of the request"),
            ("if-match", "x"),
            ("x-amz-expected-bucket-owner", "me"),
        ] {
            request.insert(HeaderName::from_static(name), value.parse().expect("value"));
        }
        let fields = FormFields::of([
            ("acl", "private"),
            ("content-type", "image/png"),
            ("x-amz-meta-b", "Å"),
            ("x-amz-storage-class", "STANDARD"),
            ("x-amz-date", "20130524T000000Z"),
            ("x-amz-copy-source", "/other/object"),
            ("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
            ("if-none-match", "*"),
            ("submit", "Go\r\n"),
            ("policy", "e30="),
            ("tagging", "<Tagging><TagSet><Tag><Key>a b</Key><Value>c+d/e</Value></Tag></TagSet></Tagging>"),
            ("success_action_status", "201"),
        ]);
        let headers = headers_of(&request, &fields).expect("headers");
        let mut pairs: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        pairs.sort_unstable();
        let expected = [
            ("content-type", "image/png"),
            ("host", "h"),
            ("origin", "o"),
            ("success_action_status", "201"),
            ("x-amz-acl", "private"),
            ("x-amz-expected-bucket-owner", "me"),
            ("x-amz-meta-b", "Å"),
            ("x-amz-storage-class", "STANDARD"),
            ("x-amz-tagging", "a%20b=c%2Bd%2Fe"),
        ];
        assert_eq!(pairs, expected.map(|(name, value)| (name, value.as_bytes())));

        for (name, value) in [("x-amz-meta-a", "b\r\nc: d"), ("x-amz-meta-a b", "c"), ("tagging", "not XML")] {
            assert!(headers_of(&request, &FormFields::of([(name, value)])).is_err(), "{name}");
        }
    }
}
