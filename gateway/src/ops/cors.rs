//! Cross-origin resource sharing: a bucket's rules, preflights, and the headers of answers.
//!
//! CORS opens nothing: it tells a browser which pages may see an answer that the request's signature has earned.

use super::context::{BodyDigest, Context};
use super::headers::{header_value, text};
use super::tagging::{bucket_document, update_bucket};
use super::{Answer, no_content, status, xml};
use crate::access::Action;
use crate::error::{S3Code, S3Error};
use crate::host::{Target, request_host};
use crate::payload::Payload;
use crate::state::Shared;
use crate::xml::{Element, Namespace, Writer, parse};
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use std::sync::Arc;
use valv_metadata_api::{Bucket, BucketChange, BucketDocument, BucketDocumentKind, GetBucket, GetBucketDocument};

/// Rules of one bucket (AWS: 100).
const RULES_MAX: usize = 100;
/// Longest CORSConfiguration (AWS: 64 KB).
const CORS_LEN_BYTES_MAX: usize = 64 * 1024;
/// Methods that a rule may allow.
const METHODS: [&str; 5] = ["GET", "PUT", "POST", "DELETE", "HEAD"];

/// One rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Rule {
    id: Option<String>,
    origins: Vec<String>,
    methods: Vec<String>,
    headers: Vec<String>,
    expose: Vec<String>,
    max_age_secs: Option<u32>,
}

/// Whether `text` matches a pattern with at most one `*`.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, end)) => text.len() >= start.len() + end.len() && text.starts_with(start) && text.ends_with(end),
    }
}

impl Rule {
    fn read(element: &Element) -> Result<Self, S3Error> {
        let all =
            |name: &str| -> Vec<String> { element.all(name).map(|child| child.text().trim().to_owned()).collect() };
        let rule = Self {
            id: element.text_of("ID").map(str::to_owned),
            origins: all("AllowedOrigin"),
            methods: all("AllowedMethod"),
            headers: all("AllowedHeader"),
            expose: all("ExposeHeader"),
            max_age_secs: element.number("MaxAgeSeconds")?,
        };
        if rule.origins.is_empty() || rule.methods.is_empty() {
            return Err(S3Code::MalformedXML.into());
        }
        if let Some(method) = rule.methods.iter().find(|method| !METHODS.contains(&method.as_str())) {
            return Err(S3Error::invalid_request(format!(
                "Found unsupported HTTP method in CORS config. Unsupported method is {method}"
            )));
        }
        for (what, patterns) in [("AllowedOrigin", &rule.origins), ("AllowedHeader", &rule.headers)] {
            if let Some(pattern) = patterns.iter().find(|pattern| pattern.matches('*').count() > 1) {
                return Err(S3Error::invalid_request(format!(
                    "{what} \"{pattern}\" can not have more than one wildcard."
                )));
            }
        }
        if let Some(header) = rule.expose.iter().find(|header| header.contains('*')) {
            return Err(S3Error::invalid_request(format!(
                "ExposeHeader \"{header}\" contains wildcard. We currently do not support wildcard for ExposeHeader."
            )));
        }
        // What goes into response headers must be able to stand there.
        let is_header = |text: &String| HeaderValue::from_str(text).is_ok();
        if !rule.expose.iter().chain(&rule.origins).chain(&rule.headers).all(is_header) {
            return Err(S3Code::MalformedXML.into());
        }
        Ok(rule)
    }

    fn write(&self, xml: &mut Writer) {
        xml.element("CORSRule", |xml| {
            xml.optional("ID", self.id.as_deref());
            for (name, texts) in [
                ("AllowedOrigin", &self.origins),
                ("AllowedMethod", &self.methods),
                ("AllowedHeader", &self.headers),
                ("ExposeHeader", &self.expose),
            ] {
                for text in texts {
                    xml.text(name, text);
                }
            }
            if let Some(secs) = self.max_age_secs {
                xml.value("MaxAgeSeconds", secs);
            }
        });
    }

    /// Whether it allows `method` from `origin` with these request headers (lower-case).
    fn allows(&self, origin: &str, method: &str, headers: &[String]) -> bool {
        let allows_header =
            |header: &String| self.headers.iter().any(|pattern| matches(&pattern.to_ascii_lowercase(), header));
        self.methods.iter().any(|allowed| allowed == method)
            && self.origins.iter().any(|pattern| matches(pattern, origin))
            && headers.iter().all(allows_header)
    }

    /// The headers of an answer under this rule.
    fn decorate(&self, origin: &str, answer: &mut HeaderMap) {
        let is_any = self.origins.iter().any(|pattern| pattern == "*");
        let allowed = if is_any { HeaderValue::from_static("*") } else { header_value(origin) };
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        if !is_any {
            answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        answer.insert(ACCESS_CONTROL_ALLOW_METHODS, header_value(&self.methods.join(", ")));
        if !self.expose.is_empty() {
            answer.insert(ACCESS_CONTROL_EXPOSE_HEADERS, header_value(&self.expose.join(", ")));
        }
        if let Some(secs) = self.max_age_secs {
            answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(secs));
        }
        answer.insert(
            VARY,
            HeaderValue::from_static("Origin, Access-Control-Request-Headers, Access-Control-Request-Method"),
        );
    }
}

fn read_rules(document: &Element) -> Result<Vec<Rule>, S3Error> {
    let rules = document.all("CORSRule").map(Rule::read).collect::<Result<Vec<_>, _>>()?;
    if rules.is_empty() || rules.len() > RULES_MAX {
        return Err(S3Code::MalformedXML.into());
    }
    Ok(rules)
}

fn write_rules(rules: &[Rule]) -> String {
    Writer::document("CORSConfiguration", Namespace::S3, |xml| rules.iter().for_each(|rule| rule.write(xml)))
}

/// GET `?cors`.
pub(crate) async fn get(cx: &Context) -> Answer {
    let bucket = cx.bucket(Action::GetBucketCORS).await?;
    let body = bucket_document(cx, &bucket, BucketDocumentKind::Cors).await?;
    Ok(xml(String::from_utf8(body).map_err(S3Error::internal)?))
}

/// PUT `?cors`.
pub(crate) async fn put(cx: &Context, mut payload: Payload) -> Answer {
    let bucket = cx.bucket(Action::PutBucketCORS).await?;
    let document = cx.xml_body(&mut payload, "CORSConfiguration", CORS_LEN_BYTES_MAX, BodyDigest::Required).await?;
    let body = write_rules(&read_rules(&document)?).into_bytes();
    let document = BucketDocument { kind: BucketDocumentKind::Cors, body };
    update_bucket(cx, &bucket, BucketChange::SetDocument(document)).await?;
    Ok(status(StatusCode::OK))
}

/// DELETE `?cors`.
pub(crate) async fn delete(cx: &Context) -> Answer {
    let bucket = cx.bucket(Action::PutBucketCORS).await?;
    update_bucket(cx, &bucket, BucketChange::RemoveDocument(BucketDocumentKind::Cors)).await?;
    Ok(no_content())
}

/// Names in a comma-separated header, lower-case.
fn header_names(headers: &HeaderMap, name: &str) -> Vec<String> {
    let list = text(headers, name).unwrap_or_default();
    list.split(',').map(|name| name.trim().to_ascii_lowercase()).filter(|name| !name.is_empty()).collect()
}

/// What a request that a page of another origin made says of itself.
pub(crate) struct CrossOrigin {
    origin: String,
    method: String,
    host: String,
    bucket: String,
}

impl CrossOrigin {
    /// `None` for a request without an Origin, or to no bucket.
    pub(crate) fn of(target: &Target, parts: &Parts) -> Option<Self> {
        let origin = text(&parts.headers, "origin")?.to_owned();
        let method = text(&parts.headers, "access-control-request-method").unwrap_or(parts.method.as_str()).to_owned();
        let host = request_host(parts).unwrap_or_default().to_owned();
        Some(Self { origin, method, host, bucket: target.bucket.clone()? })
    }

    /// Adds CORS headers to an answer, if its bucket has a rule for the request. To refusals, too: without them a page
    /// can't tell what was refused from a server that is away.
    ///
    /// `seen` is the bucket that the request was about. A request that came to nothing before that (its signature was
    /// wrong) is answered as its preflight was.
    pub(crate) async fn decorate(&self, shared: &Shared, seen: Option<Bucket>, answer: Answer) -> Answer {
        let bucket = match seen {
            Some(bucket) => Some(bucket),
            None if answer.is_ok() => None,
            None => self.bucket_of_endpoint(shared).await,
        };
        let Some(bucket) = bucket else { return answer };
        let Some(headers) = self.headers(shared, &bucket).await else { return answer };
        match answer {
            Ok(mut response) => {
                response.headers_mut().extend(headers);
                Ok(response)
            }
            Err(error) => {
                let named = headers.iter().map(|(name, value)| (name.clone(), value.clone()));
                Err(named.fold(error, |error, (name, value)| error.with_header(name, value)))
            }
        }
    }

    async fn bucket_of_endpoint(&self, shared: &Shared) -> Option<Bucket> {
        let namespace = shared.namespace_of_host(&self.host).await.ok()??;
        shared.metadata.get_bucket(GetBucket { namespace, name: self.bucket.clone() }).await.ok()
    }

    async fn headers(&self, shared: &Shared, bucket: &Bucket) -> Option<HeaderMap> {
        if !bucket.documents.contains(&BucketDocumentKind::Cors) {
            return None;
        }
        // If the rules can't be read the browser keeps the answer from its page; the request itself has been served.
        let rules = rules(shared, bucket.id).await.ok()?;
        let rule = rules.iter().find(|rule| rule.allows(&self.origin, &self.method, &[]))?;
        let mut headers = HeaderMap::new();
        rule.decorate(&self.origin, &mut headers);
        Some(headers)
    }
}

async fn rules(shared: &Shared, bucket: valv_types::BucketId) -> Result<Vec<Rule>, S3Error> {
    let request = GetBucketDocument { bucket, kind: BucketDocumentKind::Cors };
    let document = shared.metadata.get_bucket_document(request).await?;
    read_rules(&parse(&document.body, "CORSConfiguration")?)
}

/// Answers OPTIONS. A preflight has no signature; it learns a rule that the bucket's owner made for browsers, and gets the
/// same refusal whether the bucket does not exist, has no rules, or has none that fits.
pub(crate) async fn preflight(shared: &Arc<Shared>, target: &Target, parts: &Parts) -> Answer {
    let headers = &parts.headers;
    let origin = text(headers, "origin").ok_or_else(|| {
        S3Error::new(S3Code::BadRequest).with_message("Insufficient information. Origin request header needed.")
    })?;
    let method = text(headers, "access-control-request-method")
        .ok_or_else(|| S3Error::new(S3Code::BadRequest).with_message("Invalid Access-Control-Request-Method: null"))?;
    let forbidden = || {
        S3Error::new(S3Code::AccessForbidden)
            .with_message(
                "CORSResponse: This CORS request is not allowed. This is usually because the evalution of Origin, request \
                 method / Access-Control-Request-Method or Access-Control-Request-Headers are not whitelisted by the \
                 resource's CORS spec.",
            )
            .with_extra("Method", method)
            .with_extra("ResourceType", if target.key.is_some() { "OBJECT" } else { "BUCKET" })
    };
    let Some(name) = target.bucket.clone() else { return Err(forbidden()) };
    let host = request_host(parts).unwrap_or_default();
    let Some(namespace) = shared.namespace_of_host(host).await? else { return Err(forbidden()) };
    let bucket = shared.metadata.get_bucket(GetBucket { namespace, name }).await.map_err(|_| forbidden())?;
    if !bucket.documents.contains(&BucketDocumentKind::Cors) {
        return Err(forbidden());
    }
    let rules = rules(shared, bucket.id).await.map_err(|_| forbidden())?;
    let wanted = header_names(headers, "access-control-request-headers");
    let rule = rules.iter().find(|rule| rule.allows(origin, method, &wanted)).ok_or_else(forbidden)?;
    let mut response = status(StatusCode::OK);
    rule.decorate(origin, response.headers_mut());
    if !wanted.is_empty() {
        response.headers_mut().insert(ACCESS_CONTROL_ALLOW_HEADERS, header_value(&wanted.join(", ")));
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules_of(xml: &str) -> Result<Vec<Rule>, S3Code> {
        let xml = format!("<CORSConfiguration>{xml}</CORSConfiguration>");
        parse(xml.as_bytes(), "CORSConfiguration").and_then(|document| read_rules(&document)).map_err(|e| e.code())
    }

    #[test]
    fn rules_are_matched_by_origin_method_and_headers() {
        let rules = rules_of(
            "<CORSRule><ID>1</ID><AllowedOrigin>https://*.example.org</AllowedOrigin><AllowedMethod>GET</AllowedMethod>\
             <AllowedMethod>PUT</AllowedMethod><AllowedHeader>x-amz-*</AllowedHeader><ExposeHeader>ETag</ExposeHeader>\
             <MaxAgeSeconds>60</MaxAgeSeconds></CORSRule>",
        )
        .expect("rules");
        let allows = |origin: &str, method: &str, headers: &[&str]| {
            let headers: Vec<_> = headers.iter().map(|name| (*name).to_owned()).collect();
            rules[0].allows(origin, method, &headers)
        };
        assert!(allows("https://a.example.org", "GET", &[]));
        assert!(allows("https://a.example.org", "PUT", &["x-amz-date"]));
        assert!(!allows("https://a.example.org", "DELETE", &[]));
        assert!(!allows("https://a.example.org", "GET", &["authorization"]));
        assert!(!allows("https://example.com", "GET", &[]));
        assert!(!matches("ab*ba", "aba"));

        let mut answer = HeaderMap::new();
        rules[0].decorate("https://a.example.org", &mut answer);
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_ORIGIN], "https://a.example.org");
        assert_eq!(answer[ACCESS_CONTROL_MAX_AGE], "60");
        assert_eq!(answer[ACCESS_CONTROL_EXPOSE_HEADERS], "ETag");

        let written = write_rules(&rules);
        let read = read_rules(&parse(written.as_bytes(), "CORSConfiguration").expect("XML")).expect("rules");
        assert_eq!(read, rules);
    }

    #[test]
    fn rules_that_s3_does_not_take_are_refused() {
        let rule = |inner: &str| format!("<CORSRule>{inner}</CORSRule>");
        let (origin, method) = ("<AllowedOrigin>*</AllowedOrigin>", "<AllowedMethod>GET</AllowedMethod>");
        for (xml, code) in [
            (String::new(), S3Code::MalformedXML),
            (rule(origin), S3Code::MalformedXML),
            (rule(method), S3Code::MalformedXML),
            (rule(&format!("{origin}<AllowedMethod>PATCH</AllowedMethod>")), S3Code::InvalidRequest),
            (rule(&format!("{method}<AllowedOrigin>*.*</AllowedOrigin>")), S3Code::InvalidRequest),
            (rule(&format!("{origin}{method}<AllowedHeader>x-*-*</AllowedHeader>")), S3Code::InvalidRequest),
            (rule(&format!("{origin}{method}<ExposeHeader>*</ExposeHeader>")), S3Code::InvalidRequest),
            (rule(&format!("{origin}{method}<MaxAgeSeconds>-1</MaxAgeSeconds>")), S3Code::MalformedXML),
            (rule(&format!("{origin}{method}")).repeat(101), S3Code::MalformedXML),
        ] {
            assert_eq!(rules_of(&xml), Err(code), "{xml:.80}");
        }
        assert!(rules_of(&rule(&format!("{origin}{method}"))).is_ok());
    }
}
