//! The aws-chunked framing. Input: a mode, a length and a body as `mode len\n<body>`; mode `u` is unsigned with a
//! trailer, `s` signed, `t` signed with a trailer.
//!
//! The body is decoded whole, byte by byte and in random pieces, which must come out the same. Then its own bytes are
//! framed as a client would, which must give them back, and no more after any change to what was signed.

use crate::random::{Random, seed_of};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use valv_gateway::payload::{ChunkedDecoder, ChunkedError, ChunkedEvent, PayloadMode, Trailers};
use valv_gateway::sigv4::{ALGORITHM, ChunkVerifier, Signature, SigningKey};

/// Words of the framing.
pub const WORDS: &[&str] = &[
    "\r\n",
    "\n",
    "0\r\n",
    ";chunk-signature=",
    "0;chunk-signature=",
    "x-amz-checksum-crc32:AAAAAA==\r\n",
    "x-amz-trailer-signature:",
    "ffffffffffffffff",
    "10000000000000000",
    "5\r\nhello\r\n",
    "0\r\n\r\n",
    "-1",
    "+5",
    "0x5",
    " ",
];

const SEED: &[u8] = b"4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9";
const SCOPE: &str = "20130524/us-east-1/s3/aws4_request";
const STAMP: &str = "20130524T000000Z";
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const TRAILER: &str = "x-amz-checksum-crc32";
/// Beyond this a run takes too long to be repeated often.
const BODY_LEN_BYTES_MAX: usize = 16 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Unsigned,
    Signed,
    SignedTrailer,
}

impl Mode {
    const fn has_trailer(self) -> bool {
        matches!(self, Self::Unsigned | Self::SignedTrailer)
    }

    const fn is_signed(self) -> bool {
        matches!(self, Self::Signed | Self::SignedTrailer)
    }
}

fn key() -> SigningKey {
    SigningKey::derive(b"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "20130524", "us-east-1", "s3")
}

fn decoder(mode: Mode, len_bytes: u64) -> ChunkedDecoder {
    let seed = Signature::from_hex(SEED).expect("64 digits");
    let chain = || ChunkVerifier::new(key(), STAMP.to_owned(), SCOPE.to_owned(), seed);
    let (mode, trailers) = match mode {
        Mode::Unsigned => (PayloadMode::UnsignedChunksTrailer, vec![TRAILER.to_owned()]),
        Mode::Signed => (PayloadMode::SignedChunks(chain()), Vec::new()),
        Mode::SignedTrailer => (PayloadMode::SignedChunksTrailer(chain()), vec![TRAILER.to_owned()]),
    };
    ChunkedDecoder::new(mode, len_bytes, trailers).expect("every one of these is framed")
}

/// Feeds `body` in pieces that `piece` measures.
fn decode(
    mode: Mode,
    len_bytes: u64,
    body: &[u8],
    mut piece: impl FnMut() -> usize,
) -> Result<(Vec<u8>, Trailers), ChunkedError> {
    let mut decoder = decoder(mode, len_bytes);
    let mut data = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(piece().clamp(1, rest.len()));
        rest = later;
        let mut input = Bytes::copy_from_slice(now);
        while let ChunkedEvent::Data(piece) = decoder.next(&mut input)? {
            assert!(!piece.is_empty(), "an event without bytes");
            data.extend_from_slice(&piece);
            assert!(data.len() as u64 <= len_bytes, "more bytes than were announced");
        }
        assert!(input.is_empty(), "the decoder takes all of its input");
    }
    decoder.finish()?;
    Ok((data, decoder.trailers().clone()))
}

/// See the module.
pub fn run(data: &[u8]) {
    let Some(end) = data.iter().position(|&byte| byte == b'\n') else { return };
    let (head, body) = (&data[..end], &data[end + 1..]);
    let Some((mode, len)) = std::str::from_utf8(head).ok().and_then(|head| head.split_once(' ')) else { return };
    let mode = match mode {
        "u" => Mode::Unsigned,
        "s" => Mode::Signed,
        "t" => Mode::SignedTrailer,
        _ => return,
    };
    let Ok(len_bytes) = len.parse::<u64>() else { return };
    let body = &body[..body.len().min(BODY_LEN_BYTES_MAX)];
    let mut random = Random::new(seed_of(data));

    let whole = decode(mode, len_bytes, body, || usize::MAX);
    assert_eq!(decode(mode, len_bytes, body, || 1), whole, "byte by byte");
    assert_eq!(decode(mode, len_bytes, body, || random.below(40)), whole, "in pieces");
    if let Ok((bytes, trailers)) = &whole {
        assert_eq!(bytes.len() as u64, len_bytes);
        assert_eq!(trailers.len(), usize::from(mode.has_trailer()));
        // The end is where it is: the body without its last byte is not a body, unless that was a line end too many.
        let shorter = decode(mode, len_bytes, &body[..body.len() - 1], || usize::MAX);
        assert!(shorter.is_err() || matches!(body.last(), Some(b'\r' | b'\n')), "cut and accepted");
    }
    round_trip(mode, body, &mut random);
}

/// Frames `body` as a client would.
fn round_trip(mode: Mode, body: &[u8], random: &mut Random) {
    let framed = encode(mode, body, random);
    let len_bytes = body.len() as u64;
    let trailers = if mode.has_trailer() { vec![(TRAILER.to_owned(), "AAAAAA==".to_owned())] } else { Vec::new() };
    let wanted = Ok((body.to_vec(), trailers));
    assert_eq!(decode(mode, len_bytes, &framed, || random.below(100)), wanted);
    assert!(decode(mode, len_bytes + 1, &framed, || usize::MAX).is_err(), "one byte less than announced");
    // Any proper prefix that lacks more than the last line's end is refused.
    let cut = random.below(framed.len().saturating_sub(2));
    assert!(decode(mode, len_bytes, &framed[..cut], || usize::MAX).is_err(), "cut at {cut}");
    // What was signed can't be changed: the bytes come out as they were, or not at all.
    if mode.is_signed() {
        let mut flipped = framed;
        let at = random.below(flipped.len());
        flipped[at] ^= 1 << random.below(8);
        if let Ok(got) = decode(mode, len_bytes, &flipped, || usize::MAX) {
            assert_eq!(Ok(got), wanted, "changed at {at}, and accepted as something else");
        }
    }
}

fn encode(mode: Mode, body: &[u8], random: &mut Random) -> Vec<u8> {
    let mut previous = String::from_utf8_lossy(SEED).into_owned();
    let mut sign = |kind: &str, hashes: String| {
        let text = format!("{ALGORITHM}-{kind}\n{STAMP}\n{SCOPE}\n{previous}\n{hashes}");
        previous = key().sign(text.as_bytes()).to_hex();
        previous.clone()
    };
    let mut chunks: Vec<&[u8]> = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let (chunk, later) = rest.split_at((1 + random.below(5_000)).min(rest.len()));
        chunks.push(chunk);
        rest = later;
    }
    chunks.push(b"");
    let mut out = Vec::new();
    for chunk in chunks {
        out.extend_from_slice(format!("{:x}", chunk.len()).as_bytes());
        if mode.is_signed() {
            let hash = hex::encode(Sha256::digest(chunk));
            let signature = sign("PAYLOAD", format!("{EMPTY_SHA256}\n{hash}"));
            out.extend_from_slice(format!(";chunk-signature={signature}").as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        if !chunk.is_empty() {
            out.extend_from_slice(chunk);
            out.extend_from_slice(b"\r\n");
        }
    }
    if mode.has_trailer() {
        out.extend_from_slice(format!("{TRAILER}:AAAAAA==\r\n").as_bytes());
        if mode.is_signed() {
            let hash = hex::encode(Sha256::digest(format!("{TRAILER}:AAAAAA==\n")));
            out.extend_from_slice(format!("x-amz-trailer-signature:{}\r\n", sign("TRAILER", hash)).as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
    out
}
