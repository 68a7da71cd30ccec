//! The aws-chunked framing, without I/O: bytes go in, events come out, and any cut of the input gives the same output.
//!
//! ```text
//! 10000;chunk-signature=<64 hex>\r\n <65536 bytes> \r\n
//! 0;chunk-signature=<64 hex>\r\n
//! x-amz-checksum-crc32c:sOO8/Q==\r\n
//! x-amz-trailer-signature:<64 hex>\r\n
//! \r\n
//! ```
//!
//! Without trailers the last chunk is followed by an empty line; unsigned chunks have no signatures. Two habits of real
//! clients are met: lines that end in a bare LF, and an empty line between the last chunk or the trailers and what must
//! still follow (minio-go sends one before the trailer's signature).

use super::PayloadMode;
use crate::error::{S3Code, S3Error};
use crate::limits::{CHUNK_LINE_LEN_BYTES_MAX, TRAILER_SECTION_LEN_BYTES_MAX, TRAILERS_MAX};
use crate::sigv4::{ChunkVerifier, Signature};
use bytes::{Buf as _, Bytes};
use sha2::{Digest as _, Sha256};

/// Name of the trailer that signs the others.
const TRAILER_SIGNATURE: &str = "x-amz-trailer-signature";

/// Why a body's framing was refused. All are the client's to mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChunkedError {
    /// The body ended before its last chunk or trailer.
    #[error("the body ended inside its framing")]
    Truncated,
    /// A chunk header is not what the framing says.
    #[error("malformed chunk header")]
    MalformedChunk,
    /// A line is longer than any legitimate one.
    #[error("a line of the framing is too long")]
    LineTooLong,
    /// A chunk's signature is wrong.
    #[error("wrong chunk signature")]
    SignatureMismatch,
    /// The chunks have other than x-amz-decoded-content-length bytes.
    #[error("decoded length is not the announced {announced} bytes")]
    WrongLength {
        /// What the header said.
        announced: u64,
    },
    /// The trailers are malformed, too many, or not those announced.
    #[error("malformed trailers")]
    MalformedTrailer,
    /// Bytes follow the end.
    #[error("bytes follow the end of the body")]
    AfterEnd,
}

impl From<ChunkedError> for S3Error {
    fn from(error: ChunkedError) -> Self {
        let mapped = match &error {
            ChunkedError::Truncated => S3Error::new(S3Code::IncompleteBody),
            ChunkedError::WrongLength { .. } => S3Error::new(S3Code::IncompleteBody).with_message(
                "You did not provide the number of bytes specified by the x-amz-decoded-content-length HTTP header",
            ),
            ChunkedError::MalformedChunk | ChunkedError::LineTooLong => {
                S3Error::invalid_request("The chunk framing of the body is malformed")
            }
            ChunkedError::SignatureMismatch => S3Error::new(S3Code::SignatureDoesNotMatch),
            ChunkedError::MalformedTrailer => S3Error::new(S3Code::MalformedTrailerError),
            ChunkedError::AfterEnd => S3Error::invalid_request("Bytes follow the end of the body"),
        };
        // What is left on the connection is the rest of a body that nobody can delimit.
        mapped.with_source(error).closing_connection()
    }
}

/// What came out of the decoder.
#[derive(Debug, PartialEq, Eq)]
pub enum ChunkedEvent {
    /// Plaintext bytes: a slice of the input, not copied.
    Data(Bytes),
    /// The input is used up; feed more.
    NeedInput,
    /// The body ended, and everything about it was right.
    End,
}

/// Trailers in the order in which they came, lower-case names, trimmed values; without the signature.
pub type Trailers = Vec<(String, String)>;

/// Where in the framing the decoder is.
#[derive(Debug)]
enum State {
    /// In a chunk's header line.
    Header,
    /// In a chunk's bytes.
    Data { left: u64 },
    /// Before the CR or LF that ends a chunk's bytes.
    DataEnd { seen_cr: bool },
    /// After the last chunk's header: trailers, then an empty line.
    Trailers { skipped_blank: bool },
    /// After the end.
    End,
}

/// The framing's decoder. Memory: one line and the trailers.
#[derive(Debug)]
pub struct ChunkedDecoder {
    state: State,
    /// The beginning of a line whose end has not come yet.
    line: Vec<u8>,
    /// Bytes that the header announced, and how many of them are still to come.
    announced: u64,
    left: u64,
    chain: Option<ChunkVerifier>,
    /// The current chunk's hash and the signature that must cover it, if chunks are signed.
    chunk: Option<(Sha256, Signature)>,
    /// Names that x-amz-trailer announced; `None` if the mode has no trailers.
    expected_trailers: Option<Vec<String>>,
    trailers: Trailers,
    trailers_len_bytes: usize,
    /// Whether the trailers' signature came and was right.
    trailers_signed: bool,
    /// Line ends that came after the end.
    after_end: u8,
}

impl ChunkedDecoder {
    /// A decoder for a body of `decoded_len_bytes` plaintext bytes. `announced_trailers` are the names in
    /// `x-amz-trailer`. `None` if the mode has no framing.
    pub fn new(mode: PayloadMode, decoded_len_bytes: u64, announced_trailers: Vec<String>) -> Option<Self> {
        let has_trailers = mode.has_trailers();
        let chain = match mode {
            PayloadMode::Unsigned | PayloadMode::Sha256(_) => return None,
            PayloadMode::SignedChunks(chain) | PayloadMode::SignedChunksTrailer(chain) => Some(chain),
            PayloadMode::UnsignedChunksTrailer => None,
        };
        Some(Self {
            state: State::Header,
            line: Vec::new(),
            announced: decoded_len_bytes,
            left: decoded_len_bytes,
            chain,
            chunk: None,
            expected_trailers: has_trailers.then_some(announced_trailers),
            trailers: Vec::new(),
            trailers_len_bytes: 0,
            trailers_signed: false,
            after_end: 0,
        })
    }

    /// Takes bytes from the front of `input` until there is an event. After an error the decoder must not be used.
    pub fn next(&mut self, input: &mut Bytes) -> Result<ChunkedEvent, ChunkedError> {
        loop {
            match &mut self.state {
                State::Header => {
                    let Some(line) = self.take_line(input, CHUNK_LINE_LEN_BYTES_MAX)? else {
                        return Ok(ChunkedEvent::NeedInput);
                    };
                    self.begin_chunk(&line)?;
                }
                State::Data { left } => {
                    if input.is_empty() {
                        return Ok(ChunkedEvent::NeedInput);
                    }
                    let take = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                    let data = input.split_to(take);
                    *left -= take as u64;
                    let is_chunk_complete = *left == 0;
                    if let Some((hasher, _)) = &mut self.chunk {
                        hasher.update(&data);
                    }
                    if is_chunk_complete {
                        self.end_chunk()?;
                        self.state = State::DataEnd { seen_cr: false };
                    }
                    return Ok(ChunkedEvent::Data(data));
                }
                State::DataEnd { seen_cr } => {
                    let Some(&byte) = input.first() else { return Ok(ChunkedEvent::NeedInput) };
                    match (byte, *seen_cr) {
                        (b'\r', false) => *seen_cr = true,
                        (b'\n', _) => self.state = State::Header,
                        _ => return Err(ChunkedError::MalformedChunk),
                    }
                    input.advance(1);
                }
                State::Trailers { .. } => {
                    let Some(line) = self.take_line(input, TRAILER_SECTION_LEN_BYTES_MAX)? else {
                        return Ok(ChunkedEvent::NeedInput);
                    };
                    self.trailer_line(&line)?;
                }
                State::End => {
                    // A client that ends with one empty line too many does no harm; anything else is not a body.
                    let Some(&byte) = input.first() else { return Ok(ChunkedEvent::End) };
                    if !matches!(byte, b'\r' | b'\n') || self.after_end >= 4 {
                        return Err(ChunkedError::AfterEnd);
                    }
                    self.after_end += 1;
                    input.advance(1);
                }
            }
        }
    }

    /// To be called when there is no more input.
    pub fn finish(&self) -> Result<(), ChunkedError> {
        match self.state {
            State::End => Ok(()),
            _ => Err(ChunkedError::Truncated),
        }
    }

    /// The trailers, complete and (if the mode says so) verified once the end was reached.
    pub fn trailers(&self) -> &Trailers {
        &self.trailers
    }

    /// A whole line without its end, or `None` if its end has not come yet.
    fn take_line(&mut self, input: &mut Bytes, len_bytes_max: usize) -> Result<Option<Vec<u8>>, ChunkedError> {
        let end = memchr::memchr(b'\n', input);
        let take = end.map_or(input.len(), |at| at + 1);
        if self.line.len() + take > len_bytes_max {
            return Err(ChunkedError::LineTooLong);
        }
        self.line.extend_from_slice(&input[..take]);
        input.advance(take);
        if end.is_none() {
            return Ok(None);
        }
        let mut line = std::mem::take(&mut self.line);
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(Some(line))
    }

    fn begin_chunk(&mut self, line: &[u8]) -> Result<(), ChunkedError> {
        let (size, extension) = match memchr::memchr(b';', line) {
            Some(at) => (&line[..at], Some(&line[at + 1..])),
            None => (line, None),
        };
        let size = parse_size(size).ok_or(ChunkedError::MalformedChunk)?;
        if size > self.left {
            return Err(ChunkedError::WrongLength { announced: self.announced });
        }
        if self.chain.is_some() {
            let signature = extension
                .and_then(|extension| extension.strip_prefix(b"chunk-signature="))
                .and_then(Signature::from_hex)
                .ok_or(ChunkedError::MalformedChunk)?;
            self.chunk = Some((Sha256::new(), signature));
        }
        if size > 0 {
            self.left -= size;
            self.state = State::Data { left: size };
            return Ok(());
        }
        if self.left > 0 {
            return Err(ChunkedError::WrongLength { announced: self.announced });
        }
        self.end_chunk()?;
        self.state = State::Trailers { skipped_blank: false };
        Ok(())
    }

    /// Checks the signature of a chunk whose bytes are all hashed.
    fn end_chunk(&mut self) -> Result<(), ChunkedError> {
        let (Some(chain), Some((hasher, signature))) = (&mut self.chain, self.chunk.take()) else { return Ok(()) };
        match chain.verify_chunk(hasher, signature) {
            true => Ok(()),
            false => Err(ChunkedError::SignatureMismatch),
        }
    }

    fn trailer_line(&mut self, line: &[u8]) -> Result<(), ChunkedError> {
        if line.is_empty() {
            return self.blank_line();
        }
        let Some(expected) = &self.expected_trailers else { return Err(ChunkedError::MalformedTrailer) };
        self.trailers_len_bytes += line.len();
        let line = std::str::from_utf8(line).map_err(|_| ChunkedError::MalformedTrailer)?;
        let (name, value) = line.split_once(':').ok_or(ChunkedError::MalformedTrailer)?;
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
        if self.trailers_signed || self.trailers_len_bytes > TRAILER_SECTION_LEN_BYTES_MAX {
            return Err(ChunkedError::MalformedTrailer);
        }
        if name == TRAILER_SIGNATURE {
            let Some(chain) = &mut self.chain else { return Err(ChunkedError::MalformedTrailer) };
            let signature = Signature::from_hex(value.as_bytes()).ok_or(ChunkedError::MalformedTrailer)?;
            let canonical: String = self.trailers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
            if !chain.verify_trailers(canonical.as_bytes(), signature) {
                return Err(ChunkedError::SignatureMismatch);
            }
            self.trailers_signed = true;
            return Ok(());
        }
        let is_announced = expected.contains(&name);
        let is_repeated = self.trailers.iter().any(|(seen, _)| *seen == name);
        if !is_announced || is_repeated || self.trailers.len() >= TRAILERS_MAX {
            return Err(ChunkedError::MalformedTrailer);
        }
        self.trailers.push((name, value.to_owned()));
        Ok(())
    }

    /// An empty line ends the body when nothing is missing.
    fn blank_line(&mut self) -> Result<(), ChunkedError> {
        let is_complete = match &self.expected_trailers {
            None => true,
            Some(expected) => self.trailers.len() == expected.len() && (self.chain.is_none() || self.trailers_signed),
        };
        match &mut self.state {
            State::Trailers { .. } if is_complete => self.state = State::End,
            State::Trailers { skipped_blank } if !*skipped_blank => *skipped_blank = true,
            _ => return Err(ChunkedError::MalformedTrailer),
        }
        Ok(())
    }
}

/// 1 to 16 hexadecimal digits.
fn parse_size(digits: &[u8]) -> Option<u64> {
    if !(1..=16).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}
