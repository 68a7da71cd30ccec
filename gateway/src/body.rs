//! Bodies: of requests, as they come off a connection; of responses, which may fail half-way.

use crate::error::{S3Code, S3Error};
use bytes::Bytes;
use futures_util::Stream;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use parking_lot::Mutex;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

/// The body of a request. The first poll is what sends `100 Continue`.
///
/// ```
/// # use valv_gateway::body::RequestBody;
/// use http_body::Body as _;
/// let body = RequestBody::from("in memory, for a test of a handler");
/// assert!(!body.is_end_stream());
/// ```
pub struct RequestBody {
    source: Source,
    rest: Arc<RestOfBody>,
}

/// What is left of a request's body when whoever had it has dropped it: whether the connection can be used again depends
/// on it.
pub(crate) struct RestOfBody {
    /// Set when nothing is left to read.
    ended: AtomicBool,
    /// The body itself, if it was dropped before its end.
    unread: Mutex<Option<Incoming>>,
}

impl RestOfBody {
    fn new(ended: bool) -> Arc<Self> {
        Arc::new(Self { ended: AtomicBool::new(ended), unread: Mutex::new(None) })
    }

    /// Whether nothing is left. If something is, reads and throws away what comes within `time_max`.
    pub(crate) async fn discard(&self, time_max: Duration) -> bool {
        if self.ended.load(Ordering::Relaxed) {
            return true;
        }
        let Some(mut unread) = self.unread.lock().take() else { return false };
        let discard = async {
            while let Some(frame) = unread.frame().await {
                if frame.is_err() {
                    return false;
                }
            }
            true
        };
        tokio::time::timeout(time_max, discard).await.unwrap_or(false)
    }

    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if self.rest.is_empty() {
            return;
        }
        if let Source::Connection(incoming) = std::mem::replace(&mut self.source, Source::Memory(Bytes::new())) {
            *self.rest.unread.lock() = Some(incoming);
        }
    }
}

enum Source {
    Connection(Incoming),
    Memory(Bytes),
}

impl RequestBody {
    /// A body that comes off a connection.
    pub fn new(incoming: Incoming) -> Self {
        let rest = RestOfBody::new(incoming.is_end_stream());
        Self { source: Source::Connection(incoming), rest }
    }

    /// What will be left of the body when it has been dropped.
    pub(crate) fn rest(&self) -> Arc<RestOfBody> {
        Arc::clone(&self.rest)
    }
}

impl From<Bytes> for RequestBody {
    fn from(bytes: Bytes) -> Self {
        let rest = RestOfBody::new(bytes.is_empty());
        Self { source: Source::Memory(bytes), rest }
    }
}

impl From<&'static str> for RequestBody {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestBody({:?})", self.size_hint().exact())
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = match &mut self.source {
            Source::Connection(incoming) => std::task::ready!(Pin::new(incoming).poll_frame(cx)),
            Source::Memory(bytes) if bytes.is_empty() => None,
            Source::Memory(bytes) => Some(Ok(Frame::data(std::mem::take(bytes)))),
        };
        if frame.is_none() || self.is_end_stream() {
            self.rest.ended.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Connection(incoming) => incoming.is_end_stream(),
            Source::Memory(bytes) => bytes.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Connection(incoming) => incoming.size_hint(),
            Source::Memory(bytes) => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}

/// The stream inside a [`ResponseBody`].
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, S3Error>> + Send + 'static>>;

/// The body of a response.
///
/// A stream that yields an error, or whose bytes are not exactly as many as were announced, ends the *connection*:
/// hyper sees the error and cuts it, so a client can never take a truncated body for a whole one.
///
/// ```
/// # use valv_gateway::body::ResponseBody;
/// use http_body::Body as _;
/// assert!(ResponseBody::empty().is_end_stream());
/// assert_eq!(ResponseBody::from("abc").size_hint().exact(), Some(3));
/// ```
pub struct ResponseBody(Inner);

enum Inner {
    /// No more bytes.
    Done,
    /// These bytes, then nothing.
    Full(Bytes),
    /// `left` bytes are still to come, or nobody knows how many.
    Stream { stream: ByteStream, left: Option<u64> },
}

impl ResponseBody {
    /// No bytes.
    pub const fn empty() -> Self {
        Self(Inner::Done)
    }

    /// These bytes.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self(if bytes.is_empty() { Inner::Done } else { Inner::Full(bytes) })
    }

    /// A stream of exactly `len_bytes` bytes. One that yields fewer or more is an error, and the connection is cut.
    pub fn stream(len_bytes: u64, stream: impl Stream<Item = Result<Bytes, S3Error>> + Send + 'static) -> Self {
        Self(Inner::Stream { stream: Box::pin(stream), left: Some(len_bytes) })
    }

    /// A stream of unknown length: sent chunked in HTTP/1.1.
    pub fn stream_of_unknown_length(stream: impl Stream<Item = Result<Bytes, S3Error>> + Send + 'static) -> Self {
        Self(Inner::Stream { stream: Box::pin(stream), left: None })
    }

    fn wrong_length(what: &'static str) -> S3Error {
        S3Error::new(S3Code::InternalError).with_message(what)
    }
}

impl Default for ResponseBody {
    fn default() -> Self {
        Self::empty()
    }
}

impl From<Bytes> for ResponseBody {
    fn from(bytes: Bytes) -> Self {
        Self::full(bytes)
    }
}

impl From<Vec<u8>> for ResponseBody {
    fn from(bytes: Vec<u8>) -> Self {
        Self::full(bytes)
    }
}

impl From<String> for ResponseBody {
    fn from(text: String) -> Self {
        Self::full(text)
    }
}

impl From<&'static str> for ResponseBody {
    fn from(text: &'static str) -> Self {
        Self::full(text)
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Inner::Done => f.write_str("ResponseBody(empty)"),
            Inner::Full(bytes) => write!(f, "ResponseBody({} bytes)", bytes.len()),
            Inner::Stream { left, .. } => write!(f, "ResponseBody(stream, {left:?} bytes left)"),
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = S3Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match std::mem::replace(&mut self.0, Inner::Done) {
            Inner::Done => Poll::Ready(None),
            Inner::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Inner::Stream { mut stream, left } => match stream.as_mut().poll_next(cx) {
                Poll::Pending => {
                    self.0 = Inner::Stream { stream, left };
                    Poll::Pending
                }
                // After an error or a wrong length the stream is dropped: what it holds (shards, permits) is free.
                Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error))),
                Poll::Ready(Some(Ok(bytes))) => {
                    let left = match left {
                        None => None,
                        Some(left) => match left.checked_sub(bytes.len() as u64) {
                            Some(left) => Some(left),
                            None => {
                                return Poll::Ready(Some(Err(Self::wrong_length(
                                    "The body is longer than announced.",
                                ))));
                            }
                        },
                    };
                    self.0 = Inner::Stream { stream, left };
                    Poll::Ready(Some(Ok(Frame::data(bytes))))
                }
                Poll::Ready(None) => match left {
                    None | Some(0) => Poll::Ready(None),
                    Some(_) => Poll::Ready(Some(Err(Self::wrong_length("The body is shorter than announced.")))),
                },
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Inner::Done)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Done => SizeHint::with_exact(0),
            Inner::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Stream { left: Some(left), .. } => SizeHint::with_exact(*left),
            Inner::Stream { left: None, .. } => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;

    async fn collect(body: ResponseBody) -> Result<Vec<u8>, S3Code> {
        body.collect().await.map(|all| all.to_bytes().to_vec()).map_err(|error| error.code())
    }

    fn parts(parts: &[Result<&'static str, S3Code>]) -> impl Stream<Item = Result<Bytes, S3Error>> + Send + use<> {
        let parts: Vec<_> = parts.iter().map(|part| part.map(Bytes::from_static_str).map_err(S3Error::new)).collect();
        stream::iter(parts)
    }

    trait FromStaticStr {
        fn from_static_str(text: &'static str) -> Bytes;
    }

    impl FromStaticStr for Bytes {
        fn from_static_str(text: &'static str) -> Bytes {
            Bytes::from_static(text.as_bytes())
        }
    }

    #[tokio::test]
    async fn a_stream_of_the_announced_length_is_delivered_whole() {
        assert_eq!(collect(ResponseBody::stream(5, parts(&[Ok("ab"), Ok("cde")]))).await, Ok(b"abcde".to_vec()));
        assert_eq!(collect(ResponseBody::full("abc")).await, Ok(b"abc".to_vec()));
        assert_eq!(collect(ResponseBody::empty()).await, Ok(vec![]));
        assert_eq!(collect(ResponseBody::stream_of_unknown_length(parts(&[Ok("x")]))).await, Ok(b"x".to_vec()));
    }

    #[tokio::test]
    async fn a_stream_of_another_length_or_with_an_error_never_ends_normally() {
        let internal = Err(S3Code::InternalError);
        assert_eq!(collect(ResponseBody::stream(6, parts(&[Ok("ab"), Ok("cde")]))).await, internal);
        assert_eq!(collect(ResponseBody::stream(4, parts(&[Ok("ab"), Ok("cde")]))).await, internal);
        let slow = parts(&[Ok("ab"), Err(S3Code::SlowDown)]);
        assert_eq!(collect(ResponseBody::stream_of_unknown_length(slow)).await, Err(S3Code::SlowDown));
    }
}
