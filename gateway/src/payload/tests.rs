//! The streamed examples of AWS, every cut of a body, every prefix of it, and random bytes.

use super::*;
use crate::error::{S3Code, S3Error};
use crate::sigv4::{ChunkVerifier, Signature, SigningKey};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, HeaderName};
use http_body::Frame;
use http_body_util::StreamBody;
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};
use std::time::Duration;

fn chain(seed: &str) -> ChunkVerifier {
    let key = SigningKey::derive(b"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "20130524", "us-east-1", "s3");
    let seed = Signature::from_hex(seed.as_bytes()).expect("64 digits");
    ChunkVerifier::new(key, "20130524T000000Z".to_owned(), "20130524/us-east-1/s3/aws4_request".to_owned(), seed)
}

const SEED: &str = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9";

/// The two kinds of line ends and empty lines that clients send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Habit {
    Aws,
    MinioGo,
}

/// Builds a body as a client would.
fn encode(
    chunks: &[Vec<u8>],
    mut signer: Option<ChunkVerifier>,
    trailers: Option<&[(&str, &str)]>,
    habit: Habit,
) -> Vec<u8> {
    let mut out = Vec::new();
    let mut header = |out: &mut Vec<u8>, chunk: &[u8]| {
        out.extend_from_slice(format!("{:x}", chunk.len()).as_bytes());
        if let Some(signer) = &mut signer {
            out.extend_from_slice(format!(";chunk-signature={}", signer.sign_chunk(chunk)).as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    };
    for chunk in chunks {
        header(&mut out, chunk);
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    header(&mut out, b"");
    if let Some(trailers) = trailers {
        let end = if habit == Habit::MinioGo { "\n" } else { "\r\n" };
        for (name, value) in trailers {
            out.extend_from_slice(format!("{name}:{value}{end}").as_bytes());
        }
        if let Some(signer) = &mut signer {
            if habit == Habit::MinioGo {
                out.extend_from_slice(b"\r\n");
            }
            let canonical: String = trailers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
            out.extend_from_slice(
                format!("x-amz-trailer-signature:{}\r\n", signer.sign_trailers(canonical.as_bytes())).as_bytes(),
            );
        }
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// Feeds `body` in pieces that end at `cuts`, and gives what came out.
fn decode(
    decoder: &mut ChunkedDecoder,
    body: &[u8],
    cuts: impl IntoIterator<Item = usize>,
) -> Result<Vec<u8>, ChunkedError> {
    let mut out = Vec::new();
    let mut start = 0;
    for end in cuts.into_iter().chain([body.len()]) {
        let end = end.clamp(start, body.len());
        let mut input = Bytes::copy_from_slice(&body[start..end]);
        start = end;
        while let ChunkedEvent::Data(data) = decoder.next(&mut input)? {
            out.extend_from_slice(&data);
        }
        assert!(input.is_empty(), "the decoder takes all of its input");
    }
    decoder.finish()?;
    Ok(out)
}

fn crc() -> Vec<String> {
    vec!["x-amz-checksum-crc32c".to_owned()]
}

// "Transferring Payload in Multiple Chunks": 66,560 bytes of `a`, chunks of 64 KiB and 1 KiB.
#[test]
fn the_chunked_example_of_aws_is_accepted() {
    let mut body = Vec::new();
    body.extend_from_slice(
        b"10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\n",
    );
    body.extend_from_slice(&[b'a'; 65_536]);
    body.extend_from_slice(
        b"\r\n400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n",
    );
    body.extend_from_slice(&[b'a'; 1_024]);
    body.extend_from_slice(
        b"\r\n0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n\r\n",
    );
    assert_eq!(body.len(), 66_824, "the Content-Length of the example");
    let mut decoder = ChunkedDecoder::new(PayloadMode::SignedChunks(chain(SEED)), 66_560, vec![]).expect("chunked");
    assert_eq!(decode(&mut decoder, &body, []), Ok(vec![b'a'; 66_560]));
}

// "Including Trailing Headers": the same bytes, and a CRC-32C in a signed trailer.
#[test]
fn the_trailer_example_of_aws_is_accepted() {
    let mut body = Vec::new();
    body.extend_from_slice(
        b"10000;chunk-signature=b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2\r\n",
    );
    body.extend_from_slice(&[b'a'; 65_536]);
    body.extend_from_slice(
        b"\r\n400;chunk-signature=1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7\r\n",
    );
    body.extend_from_slice(&[b'a'; 1_024]);
    body.extend_from_slice(
        b"\r\n0;chunk-signature=2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992\r\n",
    );
    body.extend_from_slice(b"x-amz-checksum-crc32c:sOO8/Q==\r\n");
    body.extend_from_slice(
        b"x-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n",
    );
    let seed = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e";
    let mode = PayloadMode::SignedChunksTrailer(chain(seed));
    let mut decoder = ChunkedDecoder::new(mode, 66_560, crc()).expect("chunked");
    assert_eq!(decode(&mut decoder, &body, []), Ok(vec![b'a'; 66_560]));
    assert_eq!(decoder.trailers(), &vec![("x-amz-checksum-crc32c".to_owned(), "sOO8/Q==".to_owned())]);
}

#[test]
fn malformed_framing_is_refused() {
    use ChunkedError::*;
    let unsigned = |body: &str, len, trailers: Vec<String>| {
        let mut decoder = ChunkedDecoder::new(PayloadMode::UnsignedChunksTrailer, len, trailers).expect("chunked");
        decode(&mut decoder, body.as_bytes(), [])
    };
    for (body, expected) in [
        ("3\r\nabc\r\n0\r\n\r\n", Ok(b"abc".to_vec())),
        ("0003\r\nabc\r\n0\r\n\r\n", Ok(b"abc".to_vec())),
        ("3;ext=1\r\nabc\r\n0\r\n\r\n", Ok(b"abc".to_vec())),
        ("3\nabc\n0\n\n", Ok(b"abc".to_vec())),
        ("3\r\nabc\r\n0\r\n\r\n\r\n", Ok(b"abc".to_vec())),
        ("1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", Ok(b"abc".to_vec())),
        ("", Err(Truncated)),
        ("3\r\nabc\r\n", Err(Truncated)),
        ("3\r\nab", Err(Truncated)),
        ("3\r\nabcd\r\n0\r\n\r\n", Err(MalformedChunk)),
        ("3\r\nabc0\r\n\r\n", Err(MalformedChunk)),
        ("4\r\nabcd\r\n0\r\n\r\n", Err(WrongLength { announced: 3 })),
        ("2\r\nab\r\n0\r\n\r\n", Err(WrongLength { announced: 3 })),
        ("3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n", Err(WrongLength { announced: 3 })),
        ("ffffffffffffffff\r\n", Err(WrongLength { announced: 3 })),
        ("10000000000000000\r\n", Err(MalformedChunk)),
        ("+3\r\nabc\r\n0\r\n\r\n", Err(MalformedChunk)),
        ("-3\r\nabc\r\n0\r\n\r\n", Err(MalformedChunk)),
        (" 3\r\nabc\r\n0\r\n\r\n", Err(MalformedChunk)),
        ("\r\n", Err(MalformedChunk)),
        ("xyz\r\n", Err(MalformedChunk)),
        ("3\r\nabc\r\n0\r\n\r\nGET / HTTP/1.1\r\n", Err(AfterEnd)),
        ("3\r\nabc\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n", Err(MalformedTrailer)),
    ] {
        assert_eq!(unsigned(body, 3, vec![]), expected, "{body:?}");
    }
    assert_eq!(unsigned(&"0".repeat(600), 3, vec![]), Err(LineTooLong));

    for (trailer, expected) in [
        ("x-amz-checksum-crc32c:AAAAAA==\r\n\r\n", Ok(vec![])),
        ("X-Amz-Checksum-Crc32c : AAAAAA== \n\r\n", Ok(vec![])),
        ("\r\nx-amz-checksum-crc32c:AAAAAA==\r\n\r\n", Ok(vec![])),
        ("\r\n", Err(Truncated)),
        ("\r\n\r\n", Err(MalformedTrailer)),
        ("x-amz-checksum-crc32c:AAAAAA==\r\n", Err(Truncated)),
        ("x-amz-checksum-crc32c:AAAAAA==", Err(Truncated)),
        ("x-amz-checksum-crc32c:A\r\nx-amz-checksum-crc32c:B\r\n\r\n", Err(MalformedTrailer)),
        ("x-amz-checksum-sha1:A\r\n\r\n", Err(MalformedTrailer)),
        ("nonsense\r\n\r\n", Err(MalformedTrailer)),
        ("x-amz-trailer-signature:00\r\n\r\n", Err(MalformedTrailer)),
    ] {
        assert_eq!(unsigned(&format!("0\r\n{trailer}"), 0, crc()), expected, "{trailer:?}");
    }
    assert_eq!(
        unsigned(&format!("0\r\nx-amz-checksum-crc32c:{}\r\n\r\n", "A".repeat(5_000)), 0, crc()),
        Err(LineTooLong)
    );
}

#[test]
fn chunks_that_are_not_what_was_signed_are_refused() {
    let chunks = [b"hello".to_vec(), b"world".to_vec()];
    let good = encode(&chunks, Some(chain(SEED)), None, Habit::Aws);
    let judge = |body: &[u8]| {
        let mut decoder = ChunkedDecoder::new(PayloadMode::SignedChunks(chain(SEED)), 10, vec![]).expect("chunked");
        decode(&mut decoder, body, [])
    };
    assert_eq!(judge(&good), Ok(b"helloworld".to_vec()));
    let text = String::from_utf8(good.clone()).expect("ASCII");
    let swapped = {
        let line = |at: usize| text.split("\r\n").nth(at).expect("line").to_owned();
        format!("{}\r\n{}\r\n{}\r\n{}\r\n{}\r\n\r\n", line(2), line(3), line(0), line(1), line(4))
    };
    for (what, body, expected) in [
        ("a changed byte", text.replace("world", "worle"), ChunkedError::SignatureMismatch),
        ("swapped chunks", swapped, ChunkedError::SignatureMismatch),
        ("no signature", text.replacen(";chunk-signature=", ";chunk=", 1), ChunkedError::MalformedChunk),
        ("a short signature", text.replacen("\r\nhello", "0\r\nhello", 1), ChunkedError::MalformedChunk),
    ] {
        assert_eq!(judge(body.as_bytes()), Err(expected), "{what}");
    }
    // Every single bit matters, except in the size's case and the line ends.
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x01;
        assert!(judge(&bad).is_err(), "byte {at}");
    }
}

#[test]
fn signed_trailers_that_are_not_what_was_signed_are_refused() {
    let trailers = [("x-amz-checksum-crc32c", "sOO8/Q==")];
    for habit in [Habit::Aws, Habit::MinioGo] {
        let good = String::from_utf8(encode(&[], Some(chain(SEED)), Some(&trailers), habit)).expect("ASCII");
        let judge = |body: &str| {
            let mode = PayloadMode::SignedChunksTrailer(chain(SEED));
            decode(&mut ChunkedDecoder::new(mode, 0, crc()).expect("chunked"), body.as_bytes(), [])
        };
        assert_eq!(judge(&good), Ok(vec![]), "{habit:?}");
        assert_eq!(judge(&good.replace("sOO8/Q==", "sOO8/A==")), Err(ChunkedError::SignatureMismatch));
        let unsigned = good.split("x-amz-trailer-signature").next().expect("before").to_owned() + "\r\n\r\n";
        assert_eq!(judge(&unsigned), Err(ChunkedError::MalformedTrailer), "{habit:?}");
    }
}

fn headers(pairs: &[(&'static str, String)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().expect("ASCII"))).collect()
}

fn body_of(pieces: Vec<Bytes>) -> StreamBody<impl futures_util::Stream<Item = Result<Frame<Bytes>, S3Error>> + Send> {
    StreamBody::new(stream::iter(pieces.into_iter().map(|piece| Ok(Frame::data(piece)))))
}

async fn read(mode: PayloadMode, pairs: &[(&'static str, String)], pieces: &[&[u8]]) -> Result<Vec<u8>, S3Code> {
    let pieces = pieces.iter().map(|piece| Bytes::copy_from_slice(piece)).collect();
    let payload = Payload::new(mode, &headers(pairs), body_of(pieces), PayloadConfig::default());
    let mut payload = payload.map_err(|error| error.code())?;
    let mut out = Vec::new();
    while let Some(bytes) = payload.next().await {
        out.extend_from_slice(&bytes.map_err(|error| error.code())?);
    }
    assert!(payload.next().await.is_none());
    Ok(out)
}

#[tokio::test]
async fn plain_bodies_are_held_to_their_length_and_hash() {
    let length = |len: &str| vec![("content-length", len.to_owned())];
    let hash = |bytes: &[u8]| PayloadMode::Sha256(Sha256::digest(bytes).into());
    let whole = Ok(b"abcdef".to_vec());
    let pieces: [&[u8]; 3] = [b"ab", b"", b"cdef"];
    assert_eq!(read(PayloadMode::Unsigned, &length("6"), &pieces).await, whole);
    assert_eq!(read(PayloadMode::Unsigned, &[], &pieces).await, whole);
    assert_eq!(read(PayloadMode::Unsigned, &length("7"), &pieces).await, Err(S3Code::IncompleteBody));
    assert_eq!(read(PayloadMode::Unsigned, &length("5"), &pieces).await, Err(S3Code::IncompleteBody));
    assert_eq!(read(PayloadMode::Unsigned, &length("+6"), &pieces).await, Err(S3Code::InvalidArgument));
    assert_eq!(read(hash(b"abcdef"), &length("6"), &pieces).await, whole);
    assert_eq!(read(hash(b"abcdeg"), &length("6"), &pieces).await, Err(S3Code::XAmzContentSHA256Mismatch));
    assert_eq!(read(hash(b"abcdef"), &length("7"), &pieces).await, Err(S3Code::IncompleteBody));
    assert_eq!(read(hash(b""), &length("0"), &[]).await, Ok(vec![]));
    assert_eq!(read(hash(b"x"), &[], &[]).await, Err(S3Code::XAmzContentSHA256Mismatch));
}

#[tokio::test]
async fn chunked_bodies_need_their_decoded_length() {
    let body = encode(&[b"abc".to_vec()], None, None, Habit::Aws);
    let length = |len: &str| vec![("x-amz-decoded-content-length", len.to_owned())];
    let mode = || PayloadMode::UnsignedChunksTrailer;
    assert_eq!(read(mode(), &length("3"), &[&body]).await, Ok(b"abc".to_vec()));
    assert_eq!(read(mode(), &length("4"), &[&body]).await, Err(S3Code::IncompleteBody));
    assert_eq!(read(mode(), &length("x"), &[&body]).await, Err(S3Code::InvalidArgument));
    assert_eq!(read(mode(), &[("content-length", "3".to_owned())], &[&body]).await, Err(S3Code::MissingContentLength));
    assert_eq!(read(mode(), &length("3"), &[&body[..body.len() - 1]]).await, Err(S3Code::IncompleteBody));
}

#[tokio::test]
async fn a_client_that_stalls_is_timed_out() {
    let first = stream::iter([Ok::<_, S3Error>(Frame::data(Bytes::from_static(b"x")))]);
    let body = StreamBody::new(Box::pin(first.chain(stream::pending())));
    let config = PayloadConfig { idle_timeout: Duration::from_millis(20) };
    let length = headers(&[("content-length", "2".to_owned())]);
    let mut payload = Payload::new(PayloadMode::Unsigned, &length, body, config).expect("payload");
    assert!(payload.next().await.expect("more").is_ok());
    let error = payload.next().await.expect("an answer").expect_err("stalled");
    assert_eq!(error.code(), S3Code::RequestTimeout);
    assert!(payload.next().await.is_none());
}

#[test]
fn a_client_must_send_a_kibibyte_a_second_once_it_kept_us_waiting_for_long() {
    let secs = Duration::from_secs;
    for (waited, len_bytes, expected) in [
        (secs(59), 1, false),
        (secs(60), 1, true),
        (secs(60), 60 * 1024 - 1, true),
        (secs(60), 60 * 1024, false),
        (secs(86_400), 86_400 * 1024, false),
        (secs(86_400), 86_399 * 1024, true),
        (Duration::MAX, u64::MAX, true),
    ] {
        assert_eq!(super::stream::is_too_slow(waited, len_bytes, secs(30)), expected, "{waited:?} {len_bytes}");
    }
}

#[tokio::test]
async fn a_body_that_drips_times_out() {
    let drops = stream::iter(0..1_000_000).then(|_| async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"x")))
    });
    let config = PayloadConfig { idle_timeout: Duration::from_millis(200) };
    let mut payload =
        Payload::new(PayloadMode::Unsigned, &HeaderMap::new(), StreamBody::new(drops), config).expect("payload");
    let read = payload.read_all(usize::MAX).await.map_err(|error| error.code());
    assert_eq!(read, Err(S3Code::RequestTimeout));
}

#[tokio::test]
async fn small_bodies_are_read_whole_and_large_ones_refused_early() {
    let payload = |pairs: &[(&'static str, String)], pieces: &[&'static [u8]]| {
        let pieces = pieces.iter().copied().map(Bytes::from_static).collect();
        Payload::new(PayloadMode::Unsigned, &headers(pairs), body_of(pieces), PayloadConfig::default())
            .expect("payload")
    };
    for pieces in [&[b"abcdef" as &[u8]][..], &[b"abc", b"def"], &[b"a", b"bcd", b"ef"]] {
        assert_eq!(payload(&[], pieces).read_all(6).await.expect("fits"), &b"abcdef"[..]);
        let error = payload(&[], pieces).read_all(5).await.expect_err("too long");
        assert_eq!(error.code(), S3Code::MaxMessageLengthExceeded);
    }
    assert_eq!(payload(&[], &[]).read_all(0).await.expect("nothing"), Bytes::new());
    let length = [("content-length", "6".to_owned())];
    assert!(payload(&length, &[]).read_all(5).await.is_err());
}

#[test]
fn aws_chunked_is_not_kept_as_the_encoding_of_an_object() {
    for (given, kept) in [
        ("aws-chunked", None),
        ("aws-chunked,gzip", Some("gzip")),
        ("gzip, AWS-Chunked", Some("gzip")),
        ("gzip , br", Some("gzip,br")),
        ("", None),
    ] {
        assert_eq!(strip_aws_chunked(given).as_deref(), kept, "{given}");
    }
}

/// A body in one of the three framings, with what decodes it.
#[derive(Debug, Clone)]
struct Case {
    kind: u8,
    chunks: Vec<Vec<u8>>,
    habit: Habit,
}

impl Case {
    fn plaintext(&self) -> Vec<u8> {
        self.chunks.concat()
    }

    fn body(&self) -> Vec<u8> {
        let trailers: &[(&str, &str)] = &[("x-amz-checksum-crc32c", "sOO8/Q==")];
        match self.kind {
            0 => encode(&self.chunks, Some(chain(SEED)), None, Habit::Aws),
            1 => encode(&self.chunks, Some(chain(SEED)), Some(trailers), self.habit),
            _ => encode(&self.chunks, None, Some(trailers), self.habit),
        }
    }

    fn decoder(&self) -> ChunkedDecoder {
        let (mode, trailers) = match self.kind {
            0 => (PayloadMode::SignedChunks(chain(SEED)), vec![]),
            1 => (PayloadMode::SignedChunksTrailer(chain(SEED)), crc()),
            _ => (PayloadMode::UnsignedChunksTrailer, crc()),
        };
        ChunkedDecoder::new(mode, self.plaintext().len() as u64, trailers).expect("chunked")
    }
}

fn case() -> impl Strategy<Value = Case> {
    let chunks = prop::collection::vec(prop::collection::vec(any::<u8>(), 1..80), 0..5);
    let habit = prop_oneof![Just(Habit::Aws), Just(Habit::MinioGo)];
    (0..3_u8, chunks, habit).prop_map(|(kind, chunks, habit)| Case { kind, chunks, habit })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_cut_of_a_body_gives_the_same_bytes(case in case(), mut cuts in prop::collection::vec(0_usize..1_000, 0..8)) {
        cuts.sort_unstable();
        let body = case.body();
        prop_assert_eq!(decode(&mut case.decoder(), &body, cuts), Ok(case.plaintext()));
        prop_assert_eq!(decode(&mut case.decoder(), &body, 0..body.len()), Ok(case.plaintext()));
    }

    #[test]
    fn no_proper_prefix_of_a_body_is_a_body(case in case(), part in 0.0_f64..1.0) {
        let body = case.body();
        let len = ((body.len() as f64) * part) as usize;
        prop_assert_eq!(decode(&mut case.decoder(), &body[..len], []), Err(ChunkedError::Truncated));
        prop_assert_eq!(decode(&mut case.decoder(), &body[..body.len() - 1], []), Err(ChunkedError::Truncated));
    }

    #[test]
    fn a_damaged_body_gives_the_same_outcome_at_every_cut(
        case in case(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        mut cuts in prop::collection::vec(0_usize..1_000, 0..8),
    ) {
        cuts.sort_unstable();
        let mut body = case.body();
        let at = at.index(body.len());
        body[at] = byte;
        prop_assert_eq!(decode(&mut case.decoder(), &body, []), decode(&mut case.decoder(), &body, cuts));
    }

    #[test]
    fn random_bytes_never_panic(
        kind in 0..3_u8,
        body in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b';')], 0..200),
    ) {
        let case = Case { kind, chunks: vec![vec![0; 20]], habit: Habit::Aws };
        let mut framed = b"5\r\n".to_vec();
        framed.extend_from_slice(&body);
        for body in [&body, &framed] {
            let whole = decode(&mut case.decoder(), body, []);
            prop_assert_eq!(decode(&mut case.decoder(), body, 0..body.len()), whole);
        }
    }
}
