//! A request's body as a stream of verified bytes.

use super::chunked::{ChunkedDecoder, ChunkedEvent, Trailers};
use super::mode::PayloadMode;
use crate::error::{S3Code, S3Error};
use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::Body;
use http_body_util::BodyExt as _;
use sha2::{Digest as _, Sha256};
use std::error::Error as StdError;
use std::fmt;
use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use subtle::ConstantTimeEq as _;
use tokio::time::{Instant, Sleep, sleep};

/// The slowest that a client may send, on average over the time for which it kept us waiting. A modem was faster; a body that
/// comes byte by byte, each within the idle timeout, would hold its buffers and its connection for years.
const RATE_BYTES_PER_S_MIN: u64 = 1024;
/// How many idle timeouts a client must have kept us waiting in sum before its rate is judged.
const RATE_JUDGED_AFTER: u32 = 2;

type BoxError = Box<dyn StdError + Send + Sync>;
type BoxBody = Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>;

/// Limits of reading bodies.
#[derive(Debug, Clone, Copy)]
pub struct PayloadConfig {
    /// How long a client may send nothing while we wait for its body. Then: RequestTimeout. Clients that send a little now
    /// and then are given up after some of these.
    pub idle_timeout: Duration,
}

impl Default for PayloadConfig {
    /// 30 s: AWS closes after about 20; TCP's retransmissions over a bad link reach 25 s before the sixth.
    fn default() -> Self {
        Self { idle_timeout: Duration::from_secs(30) }
    }
}

/// A request's body, being verified.
///
/// Cancel safety: [`Payload::next`] may be dropped and called again. Memory: no byte is buffered here; what hyper read
/// is handed on in slices. After an error, or after the end, it yields nothing more.
pub struct Payload {
    body: BoxBody,
    framing: Framing,
    /// Input that the decoder has not taken yet.
    input: Bytes,
    /// Plaintext bytes that the request announced.
    decoded_len_bytes: Option<u64>,
    received_bytes: u64,
    idle_timeout: Duration,
    /// Running while the body keeps us waiting.
    idle: Option<Pin<Box<Sleep>>>,
    /// Since when the body has kept us waiting, if it does.
    waiting_since: Option<Instant>,
    /// How long it has in sum, and how many bytes came off the connection.
    waited: Duration,
    input_len_bytes: u64,
    is_done: bool,
    /// The body ends by itself with an error when it gets too long, and so needs no announced length.
    is_bounded: bool,
    sha256: Option<[u8; 32]>,
    trailers: Trailers,
}

enum Framing {
    Plain,
    Hashed { expected: [u8; 32], hasher: Sha256 },
    Chunked(Box<ChunkedDecoder>),
}

impl Payload {
    /// Prepares to read a body; nothing is read yet.
    ///
    /// # Errors
    /// MissingContentLength if an aws-chunked body has no `x-amz-decoded-content-length`, InvalidArgument if a length is
    /// not a number.
    pub fn new<B>(mode: PayloadMode, headers: &HeaderMap, body: B, config: PayloadConfig) -> Result<Self, S3Error>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let decoded_len_bytes = match mode.is_chunked() {
            true => Some(length(headers, "x-amz-decoded-content-length")?.ok_or(S3Code::MissingContentLength)?),
            false => length(headers, CONTENT_LENGTH.as_str())?,
        };
        let framing = match mode {
            PayloadMode::Unsigned => Framing::Plain,
            PayloadMode::Sha256(expected) => Framing::Hashed { expected, hasher: Sha256::new() },
            chunked => {
                let trailers = announced_trailers(headers)?;
                match ChunkedDecoder::new(chunked, decoded_len_bytes.unwrap_or(0), trailers) {
                    Some(decoder) => Framing::Chunked(Box::new(decoder)),
                    None => unreachable!("the modes without framing are matched above"),
                }
            }
        };
        Ok(Self {
            body: Box::pin(body.map_err(Into::into)),
            framing,
            input: Bytes::new(),
            decoded_len_bytes,
            received_bytes: 0,
            idle_timeout: config.idle_timeout,
            idle: None,
            waiting_since: None,
            waited: Duration::ZERO,
            input_len_bytes: 0,
            is_done: false,
            is_bounded: false,
            sha256: None,
            trailers: Vec::new(),
        })
    }

    /// A form's file, which has no length of its own: see [`crate::form::FormUpload::into_file`].
    ///
    /// # Errors
    /// None; the type is that of [`Self::new`].
    pub fn of_form_file<B>(file: B, config: PayloadConfig) -> Result<Self, S3Error>
    where
        B: Body<Data = Bytes, Error = S3Error> + Send + 'static,
    {
        let payload = Self::new(PayloadMode::Unsigned, &HeaderMap::new(), file, config)?;
        Ok(Self { is_bounded: true, ..payload })
    }

    /// Plaintext bytes that the request announced, if it did.
    pub const fn decoded_len_bytes(&self) -> Option<u64> {
        self.decoded_len_bytes
    }

    /// The same for operations that need to know. `None` for a body that bounds itself, as a form's file does.
    ///
    /// # Errors
    /// MissingContentLength (411).
    pub fn required_len_bytes(&self) -> Result<Option<u64>, S3Error> {
        match self.decoded_len_bytes {
            None if !self.is_bounded => Err(S3Code::MissingContentLength.into()),
            len_bytes => Ok(len_bytes),
        }
    }

    /// The next bytes; `None` after the end, and only then is all that came before true. Cancel safe: what was read
    /// stays read.
    pub async fn next(&mut self) -> Option<Result<Bytes, S3Error>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Reads a small body, such as XML, whole.
    ///
    /// # Errors
    /// MaxMessageLengthExceeded beyond `len_bytes_max`, before more than that is read; whatever is wrong with the body.
    pub async fn read_all(&mut self, len_bytes_max: usize) -> Result<Bytes, S3Error> {
        self.read_all_within(len_bytes_max, |_| Ok(())).await
    }

    /// The same; `grow` is told each length that the body has reached, before more is read, and may refuse it.
    ///
    /// # Errors
    /// As [`Self::read_all`]; what `grow` says.
    pub(crate) async fn read_all_within(
        &mut self,
        len_bytes_max: usize,
        mut grow: impl FnMut(usize) -> Result<(), S3Error>,
    ) -> Result<Bytes, S3Error> {
        let too_long = || {
            S3Error::new(S3Code::MaxMessageLengthExceeded)
                .with_extra("MaxMessageLengthBytes", len_bytes_max.to_string())
                .closing_connection()
        };
        if self.decoded_len_bytes.is_some_and(|len| len > len_bytes_max as u64) {
            return Err(too_long());
        }
        let mut first: Option<Bytes> = None;
        let mut all = BytesMut::new();
        while let Some(bytes) = self.next().await {
            let bytes = bytes?;
            let len = first.as_ref().map_or(0, Bytes::len) + all.len() + bytes.len();
            if len > len_bytes_max {
                return Err(too_long());
            }
            grow(len)?;
            match (&first, all.is_empty()) {
                // Most such bodies come in one piece, which is then not copied.
                (None, true) => first = Some(bytes),
                (Some(only), _) => {
                    all.extend_from_slice(only);
                    all.extend_from_slice(&bytes);
                    first = None;
                }
                (None, false) => all.extend_from_slice(&bytes),
            }
        }
        Ok(first.unwrap_or_else(|| all.freeze()))
    }

    /// A trailer's value; known after the end.
    pub fn trailer(&self, name: &str) -> Option<&str> {
        self.trailers.iter().find(|(trailer, _)| trailer == name).map(|(_, value)| value.as_str())
    }

    /// All trailers; known after the end.
    pub fn trailers(&self) -> &Trailers {
        &self.trailers
    }

    /// The body's SHA-256, if the mode made us compute it; known after the end. Saves hashing twice when the client also
    /// asks for `x-amz-checksum-sha256`.
    pub const fn sha256(&self) -> Option<[u8; 32]> {
        self.sha256
    }

    /// Whether the stream will compute the SHA-256 by itself.
    pub const fn computes_sha256(&self) -> bool {
        matches!(self.framing, Framing::Hashed { .. })
    }

    fn poll_verified(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, S3Error>>> {
        loop {
            if let Framing::Chunked(decoder) = &mut self.framing {
                match decoder.next(&mut self.input)? {
                    ChunkedEvent::Data(data) => return Poll::Ready(Some(Ok(data))),
                    // After the end we still read on, to see that nothing follows and to leave the connection usable.
                    ChunkedEvent::NeedInput | ChunkedEvent::End => {}
                }
            }
            match ready!(self.poll_input(cx)) {
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(bytes)) if bytes.is_empty() => {}
                Some(Ok(bytes)) => match &mut self.framing {
                    Framing::Chunked(_) => self.input = bytes,
                    Framing::Plain => return Poll::Ready(Some(self.count(bytes))),
                    Framing::Hashed { hasher, .. } => {
                        hasher.update(&bytes);
                        return Poll::Ready(Some(self.count(bytes)));
                    }
                },
                None => return Poll::Ready(self.end().err().map(Err)),
            }
        }
    }

    fn count(&mut self, bytes: Bytes) -> Result<Bytes, S3Error> {
        self.received_bytes += bytes.len() as u64;
        match self.decoded_len_bytes {
            Some(announced) if self.received_bytes > announced => {
                Err(S3Error::new(S3Code::IncompleteBody).closing_connection())
            }
            _ => Ok(bytes),
        }
    }

    /// Judges the body as a whole.
    fn end(&mut self) -> Result<(), S3Error> {
        match &mut self.framing {
            Framing::Chunked(decoder) => {
                decoder.finish()?;
                self.trailers = decoder.trailers().clone();
                return Ok(());
            }
            Framing::Plain => {}
            Framing::Hashed { expected, hasher } => {
                let digest: [u8; 32] = hasher.finalize_reset().into();
                self.sha256 = Some(digest);
                // The length comes first: a truncated body is told as one.
                if self.decoded_len_bytes.is_none_or(|announced| announced == self.received_bytes)
                    && !bool::from(expected.ct_eq(&digest))
                {
                    return Err(S3Error::new(S3Code::XAmzContentSHA256Mismatch)
                        .with_extra("ClientComputedContentSHA256", hex::encode(*expected))
                        .with_extra("S3ComputedContentSHA256", hex::encode(digest)));
                }
            }
        }
        match self.decoded_len_bytes {
            Some(announced) if announced != self.received_bytes => {
                Err(S3Error::new(S3Code::IncompleteBody).closing_connection())
            }
            _ => Ok(()),
        }
    }

    /// The next bytes off the connection, or RequestTimeout if none come for too long.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, S3Error>>> {
        loop {
            match self.body.as_mut().poll_frame(cx) {
                Poll::Ready(frame) => {
                    self.waited += self.waiting_since.take().map(|since| since.elapsed()).unwrap_or_default();
                    return Poll::Ready(match frame {
                        None => None,
                        Some(Err(error)) => Some(Err(broken_off(error))),
                        Some(Ok(frame)) => match frame.into_data() {
                            Ok(data) => {
                                self.input_len_bytes += data.len() as u64;
                                let is_too_slow = is_too_slow(self.waited, self.input_len_bytes, self.idle_timeout);
                                if is_too_slow { Some(Err(timed_out())) } else { Some(Ok(data)) }
                            }
                            // HTTP's own trailers mean nothing in S3.
                            Err(_) => continue,
                        },
                    });
                }
                Poll::Pending => {
                    if self.waiting_since.is_none() {
                        self.waiting_since = Some(Instant::now());
                        match &mut self.idle {
                            Some(idle) => idle.as_mut().reset(Instant::now() + self.idle_timeout),
                            None => self.idle = Some(Box::pin(sleep(self.idle_timeout))),
                        }
                    }
                    let Some(idle) = &mut self.idle else { return Poll::Pending };
                    ready!(idle.as_mut().poll(cx));
                    return Poll::Ready(Some(Err(timed_out())));
                }
            }
        }
    }
}

impl Stream for Payload {
    type Item = Result<Bytes, S3Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.is_done {
            return Poll::Ready(None);
        }
        let item = ready!(this.poll_verified(cx));
        this.is_done = !matches!(item, Some(Ok(_)));
        Poll::Ready(item)
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({:?} bytes announced)", self.decoded_len_bytes)
    }
}

/// Whether a client that kept us waiting for `waited` in sum sends too little. Only its share of the time counts: while we
/// are busy with its bytes we do not wait for more.
pub(super) fn is_too_slow(waited: Duration, input_len_bytes: u64, idle_timeout: Duration) -> bool {
    waited >= idle_timeout * RATE_JUDGED_AFTER
        && u128::from(input_len_bytes) * 1_000 < waited.as_millis() * u128::from(RATE_BYTES_PER_S_MIN)
}

fn timed_out() -> S3Error {
    S3Error::new(S3Code::RequestTimeout).closing_connection()
}

/// The client hung up, or hyper saw fewer bytes than Content-Length says. A body that is part of another, as a form's
/// file is, knows by itself what was wrong.
fn broken_off(error: BoxError) -> S3Error {
    match error.downcast::<S3Error>() {
        Ok(error) => *error,
        Err(error) => S3Error::new(S3Code::IncompleteBody).with_source(BodyError(error)).closing_connection(),
    }
}

/// What hyper says of a body that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("the request's body could not be read")]
struct BodyError(#[source] BoxError);

fn length(headers: &HeaderMap, name: &'static str) -> Result<Option<u64>, S3Error> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let digits = value.to_str().unwrap_or_default();
    // Not `parse` alone, which takes a plus sign.
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    match digits.parse() {
        Ok(len) if is_number => Ok(Some(len)),
        _ => Err(S3Error::invalid_argument("The length is not a number", name, digits)),
    }
}

/// Names in `x-amz-trailer`, lower-case.
fn announced_trailers(headers: &HeaderMap) -> Result<Vec<String>, S3Error> {
    let mut names: Vec<String> = Vec::new();
    for value in headers.get_all("x-amz-trailer") {
        let text = value.to_str().map_err(|_| S3Code::MalformedTrailerError)?;
        for name in text.split(',').map(|name| name.trim().to_ascii_lowercase()).filter(|name| !name.is_empty()) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    if names.len() > crate::limits::TRAILERS_MAX {
        return Err(S3Code::MalformedTrailerError.into());
    }
    Ok(names)
}
