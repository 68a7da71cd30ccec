//! Checksums: the five that S3 knows, Content-MD5 and the MD5 of ETags, computed in one pass over a body, verified
//! against what the client gave in headers or trailers, and combined for multipart objects.
//!
//! Source: "Checking object integrity in Amazon S3" and the `x-amz-checksum-*` headers of the API reference.

mod combine;
mod expected;

pub use combine::{composite, full_object};
pub use expected::{ChecksumSource, ExpectedDigests};

use crate::error::{S3Code, S3Error};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crc_fast::CrcAlgorithm;
use http::HeaderName;
use md5::{Digest as _, Md5};
use sha1::Sha1;
use sha2::{Sha256, Sha512};
use valv_metadata_api::{Checksum, ChecksumAlgorithm, ChecksumType};
use xxhash_rust::xxh3::Xxh3Default;
use xxhash_rust::xxh64::Xxh64;

/// Every algorithm.
pub const ALGORITHMS: [ChecksumAlgorithm; 10] = [
    ChecksumAlgorithm::Crc32,
    ChecksumAlgorithm::Crc32c,
    ChecksumAlgorithm::Crc64Nvme,
    ChecksumAlgorithm::Sha1,
    ChecksumAlgorithm::Sha256,
    ChecksumAlgorithm::Sha512,
    ChecksumAlgorithm::Md5,
    ChecksumAlgorithm::XxHash64,
    ChecksumAlgorithm::XxHash3,
    ChecksumAlgorithm::XxHash128,
];

/// The name in XML and in `x-amz-checksum-algorithm`: `CRC32C`.
pub const fn algorithm_name(algorithm: ChecksumAlgorithm) -> &'static str {
    match algorithm {
        ChecksumAlgorithm::Crc32 => "CRC32",
        ChecksumAlgorithm::Crc32c => "CRC32C",
        ChecksumAlgorithm::Crc64Nvme => "CRC64NVME",
        ChecksumAlgorithm::Sha1 => "SHA1",
        ChecksumAlgorithm::Sha256 => "SHA256",
        ChecksumAlgorithm::Sha512 => "SHA512",
        ChecksumAlgorithm::Md5 => "MD5",
        ChecksumAlgorithm::XxHash64 => "XXHASH64",
        ChecksumAlgorithm::XxHash3 => "XXHASH3",
        ChecksumAlgorithm::XxHash128 => "XXHASH128",
    }
}

/// The element that holds a value in XML: `ChecksumCRC32C`.
pub const fn element_name(algorithm: ChecksumAlgorithm) -> &'static str {
    match algorithm {
        ChecksumAlgorithm::Crc32 => "ChecksumCRC32",
        ChecksumAlgorithm::Crc32c => "ChecksumCRC32C",
        ChecksumAlgorithm::Crc64Nvme => "ChecksumCRC64NVME",
        ChecksumAlgorithm::Sha1 => "ChecksumSHA1",
        ChecksumAlgorithm::Sha256 => "ChecksumSHA256",
        ChecksumAlgorithm::Sha512 => "ChecksumSHA512",
        ChecksumAlgorithm::Md5 => "ChecksumMD5",
        ChecksumAlgorithm::XxHash64 => "ChecksumXXHASH64",
        ChecksumAlgorithm::XxHash3 => "ChecksumXXHASH3",
        ChecksumAlgorithm::XxHash128 => "ChecksumXXHASH128",
    }
}

/// The header or trailer that holds a value: `x-amz-checksum-crc32c`.
pub const fn header_name_str(algorithm: ChecksumAlgorithm) -> &'static str {
    match algorithm {
        ChecksumAlgorithm::Crc32 => "x-amz-checksum-crc32",
        ChecksumAlgorithm::Crc32c => "x-amz-checksum-crc32c",
        ChecksumAlgorithm::Crc64Nvme => "x-amz-checksum-crc64nvme",
        ChecksumAlgorithm::Sha1 => "x-amz-checksum-sha1",
        ChecksumAlgorithm::Sha256 => "x-amz-checksum-sha256",
        ChecksumAlgorithm::Sha512 => "x-amz-checksum-sha512",
        ChecksumAlgorithm::Md5 => "x-amz-checksum-md5",
        ChecksumAlgorithm::XxHash64 => "x-amz-checksum-xxhash64",
        ChecksumAlgorithm::XxHash3 => "x-amz-checksum-xxhash3",
        ChecksumAlgorithm::XxHash128 => "x-amz-checksum-xxhash128",
    }
}

/// The same as a header's name.
pub const fn header_name(algorithm: ChecksumAlgorithm) -> HeaderName {
    HeaderName::from_static(header_name_str(algorithm))
}

/// Bytes of a digest.
pub const fn digest_len_bytes(algorithm: ChecksumAlgorithm) -> usize {
    match algorithm {
        ChecksumAlgorithm::Crc32 | ChecksumAlgorithm::Crc32c => 4,
        ChecksumAlgorithm::Crc64Nvme | ChecksumAlgorithm::XxHash64 | ChecksumAlgorithm::XxHash3 => 8,
        ChecksumAlgorithm::Md5 | ChecksumAlgorithm::XxHash128 => 16,
        ChecksumAlgorithm::Sha1 => 20,
        ChecksumAlgorithm::Sha256 => 32,
        ChecksumAlgorithm::Sha512 => 64,
    }
}

/// The name in XML: `COMPOSITE` or `FULL_OBJECT`.
pub const fn type_name(kind: ChecksumType) -> &'static str {
    match kind {
        ChecksumType::FullObject => "FULL_OBJECT",
        ChecksumType::Composite => "COMPOSITE",
    }
}

/// Reads an algorithm's name, in any case.
///
/// # Errors
/// InvalidRequest.
pub fn parse_algorithm(text: &str) -> Result<ChecksumAlgorithm, S3Error> {
    ALGORITHMS
        .into_iter()
        .find(|&algorithm| algorithm_name(algorithm).eq_ignore_ascii_case(text))
        .ok_or_else(|| S3Error::invalid_request("Checksum algorithm provided is unsupported. Please try again with any of the valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256, SHA512, MD5, XXHASH64, XXHASH3, XXHASH128]"))
}

/// Reads `COMPOSITE` or `FULL_OBJECT`, in any case.
///
/// # Errors
/// InvalidRequest.
pub fn parse_type(text: &str) -> Result<ChecksumType, S3Error> {
    [ChecksumType::Composite, ChecksumType::FullObject]
        .into_iter()
        .find(|&kind| type_name(kind).eq_ignore_ascii_case(text))
        .ok_or_else(|| S3Error::invalid_request("Value for x-amz-checksum-type header is invalid."))
}

/// The type that a multipart upload with this algorithm has, if the client names none.
pub const fn default_multipart_type(algorithm: ChecksumAlgorithm) -> ChecksumType {
    match algorithm {
        ChecksumAlgorithm::Crc64Nvme => ChecksumType::FullObject,
        _ => ChecksumType::Composite,
    }
}

/// Refuses the pairs that S3 does not have: a CRC-64 of parts, and of a whole object that came in parts anything but a CRC
/// (no other digest can be put together from those of its parts).
///
/// # Errors
/// InvalidRequest.
pub fn check_multipart_type(algorithm: ChecksumAlgorithm, kind: ChecksumType) -> Result<(), S3Error> {
    match (algorithm, kind) {
        (ChecksumAlgorithm::Crc64Nvme, ChecksumType::Composite)
        | (
            ChecksumAlgorithm::Sha1
            | ChecksumAlgorithm::Sha256
            | ChecksumAlgorithm::Sha512
            | ChecksumAlgorithm::Md5
            | ChecksumAlgorithm::XxHash64
            | ChecksumAlgorithm::XxHash3
            | ChecksumAlgorithm::XxHash128,
            ChecksumType::FullObject,
        ) => Err(S3Error::invalid_request(format!(
            "The {} checksum type cannot be used with the {} checksum algorithm.",
            type_name(kind),
            algorithm_name(algorithm).to_ascii_lowercase()
        ))),
        _ => Ok(()),
    }
}

/// A digest as S3 sends it: base64.
pub fn encode(digest: &[u8]) -> String {
    STANDARD.encode(digest)
}

/// Reads a digest of the algorithm's length from base64.
///
/// # Errors
/// BadDigest, naming the header.
pub fn parse_digest(algorithm: ChecksumAlgorithm, text: &str) -> Result<Vec<u8>, S3Error> {
    match STANDARD.decode(text.trim()) {
        Ok(digest) if digest.len() == digest_len_bytes(algorithm) => Ok(digest),
        // What no body can have, it does not have.
        _ => Err(S3Error::new(S3Code::BadDigest)
            .with_message(format!("Value for {} header is invalid.", header_name_str(algorithm)))),
    }
}

/// One algorithm at work.
enum Running {
    /// Any of the CRCs; `len_bytes` of the result's low bytes are the digest.
    Crc {
        digest: Box<crc_fast::Digest>,
        len_bytes: usize,
    },
    Sha1(Sha1),
    Sha256(Sha256),
    Sha512(Sha512),
    Md5(Md5),
    XxHash64(Xxh64),
    /// XXH3, whose state serves both lengths.
    XxHash3 {
        state: Box<Xxh3Default>,
        len_bytes: usize,
    },
}

impl Running {
    fn new(algorithm: ChecksumAlgorithm) -> Self {
        let crc =
            |crc| Self::Crc { digest: Box::new(crc_fast::Digest::new(crc)), len_bytes: digest_len_bytes(algorithm) };
        match algorithm {
            ChecksumAlgorithm::Crc32 => crc(CrcAlgorithm::Crc32IsoHdlc),
            ChecksumAlgorithm::Crc32c => crc(CrcAlgorithm::Crc32Iscsi),
            ChecksumAlgorithm::Crc64Nvme => crc(CrcAlgorithm::Crc64Nvme),
            ChecksumAlgorithm::Sha1 => Self::Sha1(Sha1::new()),
            ChecksumAlgorithm::Sha256 => Self::Sha256(Sha256::new()),
            ChecksumAlgorithm::Sha512 => Self::Sha512(Sha512::new()),
            ChecksumAlgorithm::Md5 => Self::Md5(Md5::new()),
            ChecksumAlgorithm::XxHash64 => Self::XxHash64(Xxh64::new(0)),
            ChecksumAlgorithm::XxHash3 | ChecksumAlgorithm::XxHash128 => {
                Self::XxHash3 { state: Box::new(Xxh3Default::new()), len_bytes: digest_len_bytes(algorithm) }
            }
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Crc { digest, .. } => digest.update(bytes),
            Self::Sha1(hasher) => hasher.update(bytes),
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
            Self::Md5(hasher) => hasher.update(bytes),
            Self::XxHash64(hasher) => hasher.update(bytes),
            Self::XxHash3 { state, .. } => state.update(bytes),
        }
    }

    fn finish(self) -> Vec<u8> {
        match self {
            Self::Crc { digest, len_bytes } => digest.finalize().to_be_bytes()[8 - len_bytes..].to_vec(),
            Self::Sha1(hasher) => hasher.finalize().to_vec(),
            Self::Sha256(hasher) => hasher.finalize().to_vec(),
            Self::Sha512(hasher) => hasher.finalize().to_vec(),
            Self::Md5(hasher) => hasher.finalize().to_vec(),
            // The canonical form of xxHash is big-endian.
            Self::XxHash64(hasher) => hasher.digest().to_be_bytes().to_vec(),
            Self::XxHash3 { state, len_bytes: 16 } => state.digest128().to_be_bytes().to_vec(),
            Self::XxHash3 { state, .. } => state.digest().to_be_bytes().to_vec(),
        }
    }
}

/// Whether the MD5 is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithMd5 {
    /// For an ETag, or to verify Content-MD5.
    Yes,
    /// Nobody asks; MD5 is the slowest of all.
    No,
}

/// Computes what was asked for, and nothing else, in one pass.
///
/// Updating is work for the processor (MD5 alone: about 1.5 ms a MiB); on large bodies it belongs beside the other work
/// on the same bytes, not before it.
///
/// ```
/// # use valv_gateway::checksum::{BodyHasher, WithMd5, encode};
/// # use valv_metadata_api::ChecksumAlgorithm;
/// let mut hasher = BodyHasher::new(WithMd5::Yes, [ChecksumAlgorithm::Crc32c]);
/// hasher.update(b"1234");
/// hasher.update(b"56789");
/// let digests = hasher.finish();
/// assert_eq!(digests.etag().unwrap(), "25f9e794323b453885f5181f1b624d0b");
/// assert_eq!(encode(digests.checksum(ChecksumAlgorithm::Crc32c).unwrap()), "4waSgw==");
/// ```
pub struct BodyHasher {
    md5: Option<Md5>,
    /// Whether that MD5 is also asked for as a checksum: the slowest of all is computed once.
    is_md5_checksum: bool,
    checksums: Vec<(ChecksumAlgorithm, Running)>,
}

impl BodyHasher {
    /// A hasher for these algorithms; one named twice is computed once.
    pub fn new(md5: WithMd5, algorithms: impl IntoIterator<Item = ChecksumAlgorithm>) -> Self {
        let mut checksums: Vec<(ChecksumAlgorithm, Running)> = Vec::new();
        let mut is_md5_checksum = false;
        for algorithm in algorithms {
            if algorithm == ChecksumAlgorithm::Md5 && md5 == WithMd5::Yes {
                is_md5_checksum = true;
            } else if !checksums.iter().any(|(seen, _)| *seen == algorithm) {
                checksums.push((algorithm, Running::new(algorithm)));
            }
        }
        Self { md5: (md5 == WithMd5::Yes).then(Md5::new), is_md5_checksum, checksums }
    }

    /// The next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
        for (_, running) in &mut self.checksums {
            running.update(bytes);
        }
    }

    /// The digests.
    pub fn finish(self) -> Digests {
        let md5: Option<[u8; 16]> = self.md5.map(|md5| md5.finalize().into());
        let also_md5 = md5.filter(|_| self.is_md5_checksum).map(|md5| (ChecksumAlgorithm::Md5, md5.to_vec()));
        let checksums = self.checksums.into_iter().map(|(algorithm, running)| (algorithm, running.finish()));
        Digests { md5, checksums: checksums.chain(also_md5).collect() }
    }
}

impl std::fmt::Debug for BodyHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let algorithms: Vec<_> = self.checksums.iter().map(|(algorithm, _)| *algorithm).collect();
        write!(f, "BodyHasher(md5: {}, {algorithms:?})", self.md5.is_some())
    }
}

/// The digests of one body.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Digests {
    md5: Option<[u8; 16]>,
    checksums: Vec<(ChecksumAlgorithm, Vec<u8>)>,
}

impl Digests {
    /// Adds a digest that was computed elsewhere in the same pass (see [`crate::payload::Payload::sha256`]).
    #[must_use]
    pub fn with(mut self, algorithm: ChecksumAlgorithm, digest: Vec<u8>) -> Self {
        if self.checksum(algorithm).is_none() {
            self.checksums.push((algorithm, digest));
        }
        self
    }

    /// The MD5, if it was asked for.
    pub const fn md5(&self) -> Option<[u8; 16]> {
        self.md5
    }

    /// The ETag of a body written by one PUT, without quotes: MD5 in hexadecimal.
    pub fn etag(&self) -> Option<String> {
        self.md5.map(hex::encode)
    }

    /// A checksum, if it was asked for.
    pub fn checksum(&self, algorithm: ChecksumAlgorithm) -> Option<&[u8]> {
        self.checksums.iter().find(|(computed, _)| *computed == algorithm).map(|(_, digest)| digest.as_slice())
    }

    /// All checksums, as records of an object written by one PUT (or of one part).
    pub fn to_records(&self) -> Vec<Checksum> {
        self.checksums
            .iter()
            .map(|(algorithm, digest)| Checksum {
                algorithm: *algorithm,
                kind: ChecksumType::FullObject,
                value: digest.clone(),
            })
            .collect()
    }
}

/// The ETag of a multipart object, without quotes: the MD5 of its parts' MD5s, and their number.
pub fn multipart_etag<'a>(parts: impl IntoIterator<Item = &'a [u8; 16]>) -> String {
    let mut md5 = Md5::new();
    let mut count = 0_usize;
    for part in parts {
        md5.update(part);
        count += 1;
    }
    format!("{}-{count}", hex::encode(md5.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // Check values of "123456789": the CRC catalogue (reveng) for the CRCs, sha1sum and its like, and xxhsum, for the others.
    #[test]
    fn every_algorithm_gives_its_check_value() {
        let mut hasher = BodyHasher::new(WithMd5::Yes, ALGORITHMS);
        hasher.update(b"123456789");
        let digests = hasher.finish();
        for (algorithm, expected) in [
            (ChecksumAlgorithm::Crc32, "cbf43926"),
            (ChecksumAlgorithm::Crc32c, "e3069283"),
            (ChecksumAlgorithm::Crc64Nvme, "ae8b14860a799888"),
            (ChecksumAlgorithm::Sha1, "f7c3bc1d808e04732adf679965ccc34ca7ae3441"),
            (ChecksumAlgorithm::Sha256, "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"),
            (
                ChecksumAlgorithm::Sha512,
                "d9e6762dd1c8eaf6d61b3c6192fc408d4d6d5f1176d0c29169bc24e71c3f274a\
                 d27fcd5811b313d681f7e55ec02d73d499c95455b6b5bb503acf574fba8ffe85",
            ),
            (ChecksumAlgorithm::Md5, "25f9e794323b453885f5181f1b624d0b"),
            (ChecksumAlgorithm::XxHash64, "8cb841db40e6ae83"),
            (ChecksumAlgorithm::XxHash3, "72dcb18b67a17dff"),
            (ChecksumAlgorithm::XxHash128, "33119477ede5dcd5e9716427681d5860"),
        ] {
            let digest = digests.checksum(algorithm).expect("asked for");
            assert_eq!(hex::encode(digest), expected);
            assert_eq!(digest.len(), digest_len_bytes(algorithm));
            assert_eq!(parse_digest(algorithm, &encode(digest)).expect("round trip"), digest);
            assert_eq!(parse_algorithm(&algorithm_name(algorithm).to_lowercase()).expect("name"), algorithm);
        }
        assert_eq!(digests.etag().as_deref(), Some("25f9e794323b453885f5181f1b624d0b"));
        assert_eq!(digests.to_records().len(), ALGORITHMS.len());
    }

    #[test]
    fn nothing_is_computed_that_nobody_asked_for() {
        let mut hasher = BodyHasher::new(WithMd5::No, [ChecksumAlgorithm::Sha1, ChecksumAlgorithm::Sha1]);
        hasher.update(b"x");
        let digests = hasher.finish();
        assert_eq!((digests.md5(), digests.to_records().len()), (None, 1));
        assert_eq!(digests.with(ChecksumAlgorithm::Sha256, vec![0; 32]).to_records().len(), 2);
    }

    #[test]
    fn malformed_digests_and_unknown_algorithms_are_refused() {
        for text in ["", "AAAA", "AAAAAA", "AAAAAA==AAAAAA==", "!!!!!!==", "AAAAAAA="] {
            assert!(parse_digest(ChecksumAlgorithm::Crc32, text).is_err(), "{text}");
        }
        assert!(parse_algorithm("MD4").is_err() && parse_type("PART").is_err());
        assert_eq!(parse_type("full_object").expect("type"), ChecksumType::FullObject);
    }

    #[test]
    fn the_pairs_that_s3_does_not_have_are_refused() {
        for algorithm in ALGORITHMS {
            assert!(check_multipart_type(algorithm, default_multipart_type(algorithm)).is_ok(), "{algorithm:?}");
        }
        assert!(check_multipart_type(ChecksumAlgorithm::Crc64Nvme, ChecksumType::Composite).is_err());
        assert!(check_multipart_type(ChecksumAlgorithm::Sha1, ChecksumType::FullObject).is_err());
        assert!(check_multipart_type(ChecksumAlgorithm::Crc32, ChecksumType::FullObject).is_ok());
    }

    #[test]
    fn a_multipart_etag_is_the_md5_of_the_md5s() {
        let part = |bytes: &[u8]| -> [u8; 16] { Md5::digest(bytes).into() };
        // echo -n | md5sum of the two digests' bytes.
        let parts = [part(b"a"), part(b"b")];
        let all: Vec<u8> = parts.concat();
        assert_eq!(multipart_etag(&parts), format!("{}-2", hex::encode(Md5::digest(&all))));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_cut_of_a_body_gives_the_same_digests(
            body in prop::collection::vec(any::<u8>(), 0..4096),
            cuts in prop::collection::vec(1_usize..512, 0..16),
        ) {
            let mut whole = BodyHasher::new(WithMd5::Yes, ALGORITHMS);
            whole.update(&body);
            let mut cut = BodyHasher::new(WithMd5::Yes, ALGORITHMS);
            let mut rest = &body[..];
            for take in cuts {
                let (head, tail) = rest.split_at(take.min(rest.len()));
                cut.update(head);
                rest = tail;
            }
            cut.update(rest);
            prop_assert_eq!(whole.finish(), cut.finish());
        }

        #[test]
        fn no_text_makes_a_parser_panic(text in ".{0,60}") {
            let _ = (parse_algorithm(&text), parse_type(&text));
            for algorithm in ALGORITHMS {
                let _ = parse_digest(algorithm, &text);
            }
        }
    }
}
