//! A small S3 client over hyper: just what the benchmark sends, with nothing between it and the socket.

use super::signer::{Signer, ToSign, hex_of};
use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use sha2::{Digest, Sha256};
use std::ops::Range;

/// Where the requests go.
pub(crate) struct Target {
    authority: String,
    bucket: String,
}

impl Target {
    /// Reads `http://HOST:PORT`.
    pub(crate) fn parse(endpoint: &str, bucket: &str) -> anyhow::Result<Self> {
        let Some(authority) = endpoint.strip_prefix("http://") else {
            bail!("--endpoint must be http://HOST:PORT: the benchmark measures the server, not TLS");
        };
        Ok(Self { authority: authority.trim_end_matches('/').to_owned(), bucket: bucket.to_owned() })
    }
}

/// The client; one for all workers, its connections are pooled.
pub(crate) struct Client {
    http: hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>,
    target: Target,
    signer: Signer,
    sign_payload: bool,
}

struct Answer {
    status: StatusCode,
    etag: Option<String>,
    body_len: u64,
    /// The body's text if it was short.
    text: String,
}

const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// Enough of a body to show an error or read an upload id.
const TEXT_BYTES_MAX: usize = 4096;

impl Client {
    /// A client for `target`.
    pub(crate) fn new(target: Target, signer: Signer, sign_payload: bool) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector);
        Self { http, target, signer, sign_payload }
    }

    /// Creates the bucket unless it is there.
    pub(crate) async fn ensure_bucket(&self) -> anyhow::Result<()> {
        let answer = self.send(Method::PUT, None, "", Bytes::new(), None).await?;
        if answer.status.is_success() || answer.text.contains("BucketAlreadyOwnedByYou") {
            return Ok(());
        }
        bail!("creating the bucket: {} {}", answer.status, answer.text)
    }

    /// Writes an object.
    pub(crate) async fn put(&self, key: &str, body: Bytes) -> anyhow::Result<()> {
        self.send(Method::PUT, Some(key), "", body, None).await?.expect_success().map(drop)
    }

    /// Reads an object or a range of it; returns the bytes received.
    pub(crate) async fn get(&self, key: &str, range: Option<Range<u64>>) -> anyhow::Result<u64> {
        let wanted = range.as_ref().map(|range| range.end - range.start);
        let answer = self.send(Method::GET, Some(key), "", Bytes::new(), range).await?.expect_success()?;
        if wanted.is_some_and(|wanted| wanted != answer.body_len) {
            bail!("a range of {wanted:?} bytes brought {}", answer.body_len);
        }
        Ok(answer.body_len)
    }

    /// Asks for an object's headers.
    pub(crate) async fn head(&self, key: &str) -> anyhow::Result<()> {
        self.send(Method::HEAD, Some(key), "", Bytes::new(), None).await?.expect_success().map(drop)
    }

    /// Deletes an object.
    pub(crate) async fn delete(&self, key: &str) -> anyhow::Result<()> {
        self.send(Method::DELETE, Some(key), "", Bytes::new(), None).await?.expect_success().map(drop)
    }

    /// Lists a page of 1,000 keys.
    pub(crate) async fn list(&self, prefix: &str) -> anyhow::Result<()> {
        let query = format!("list-type=2&max-keys=1000&prefix={}", prefix.replace('/', "%2F"));
        self.send(Method::GET, None, &query, Bytes::new(), None).await?.expect_success().map(drop)
    }

    /// Uploads `body` in parts, one after the other.
    pub(crate) async fn multipart(&self, key: &str, body: &Bytes, part_bytes: usize) -> anyhow::Result<()> {
        let answer = self.send(Method::POST, Some(key), "uploads=", Bytes::new(), None).await?.expect_success()?;
        let id = between(&answer.text, "<UploadId>", "</UploadId>").context("no UploadId in the answer")?.to_owned();
        let mut parts = String::new();
        for (index, start) in (0..body.len()).step_by(part_bytes).enumerate() {
            let piece = body.slice(start..body.len().min(start + part_bytes));
            let number = index + 1;
            let query = format!("partNumber={number}&uploadId={id}");
            let etag = self.send(Method::PUT, Some(key), &query, piece, None).await?.expect_success()?.etag;
            let etag = etag.context("a part without ETag")?;
            parts += &format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>");
        }
        let xml = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
        let query = format!("uploadId={id}");
        let answer = self.send(Method::POST, Some(key), &query, xml.into(), None).await?.expect_success()?;
        if answer.text.contains("<Error>") {
            bail!("completing: {}", answer.text);
        }
        Ok(())
    }

    async fn send(
        &self,
        method: Method,
        key: Option<&str>,
        query: &str,
        body: Bytes,
        range: Option<Range<u64>>,
    ) -> anyhow::Result<Answer> {
        let path = match key {
            Some(key) => format!("/{}/{key}", self.target.bucket),
            None => format!("/{}", self.target.bucket),
        };
        let payload_hash = match (body.is_empty(), self.sign_payload) {
            (true, _) => EMPTY_SHA256.to_owned(),
            (false, true) => hex_of(&Sha256::digest(&body)),
            (false, false) => "UNSIGNED-PAYLOAD".to_owned(),
        };
        let to_sign = ToSign {
            method: method.as_str(),
            host: &self.target.authority,
            path: &path,
            query,
            payload_hash: &payload_hash,
        };
        let signed = self.signer.sign(&to_sign, time::OffsetDateTime::now_utc());
        let separator = if query.is_empty() { "" } else { "?" };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}{separator}{query}", self.target.authority))
            .header("x-amz-date", signed.date)
            .header("x-amz-content-sha256", &payload_hash)
            .header("authorization", signed.authorization);
        if let Some(range) = range {
            request = request.header("range", format!("bytes={}-{}", range.start, range.end - 1));
        }
        let response = self.http.request(request.body(Full::new(body))?).await?;
        let status = response.status();
        let etag = response.headers().get("etag").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut body = response.into_body();
        let (mut body_len, mut text) = (0, Vec::new());
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                body_len += data.len() as u64;
                if text.len() < TEXT_BYTES_MAX && body_len <= TEXT_BYTES_MAX as u64 {
                    text.extend_from_slice(&data);
                }
            }
        }
        Ok(Answer { status, etag, body_len, text: String::from_utf8_lossy(&text).into_owned() })
    }
}

impl Answer {
    fn expect_success(self) -> anyhow::Result<Self> {
        if self.status.is_success() { Ok(self) } else { bail!("{} {}", self.status, self.text) }
    }
}

fn between<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(open)?;
    rest.split_once(close).map(|(inner, _)| inner)
}

/// A body that does not compress.
pub(crate) fn random_body(len_bytes: usize) -> Bytes {
    let mut body = vec![0; len_bytes];
    // Any bytes will do; random ones keep a compressing peer honest.
    if getrandom::fill(&mut body).is_err() {
        body.iter_mut().zip(0u32..).for_each(|(byte, i)| *byte = (i.wrapping_mul(2_654_435_761) >> 24) as u8);
    }
    body.into()
}
