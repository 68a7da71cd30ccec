//! The checksum of a multipart object out of its parts' checksums, without reading a byte.

use super::Running;
use valv_metadata_api::ChecksumAlgorithm;

/// The COMPOSITE checksum: the algorithm over the parts' digests, concatenated. S3 shows it as base64, `-` and the number
/// of parts.
pub fn composite<'a>(algorithm: ChecksumAlgorithm, parts: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut running = Running::new(algorithm);
    for digest in parts {
        running.update(digest);
    }
    running.finish()
}

/// The FULL_OBJECT checksum of parts in order, each given as (digest, length in bytes). `None` if the algorithm is no CRC,
/// or a digest has the wrong length.
///
/// A CRC is the remainder of a polynomial division, so that of A followed by B is CRC(A) * x^(8 * |B|) + CRC(B), all
/// modulo the CRC's polynomial; the initial and final inversions cancel. x^n takes log2(n) multiplications, so 10,000 parts
/// take milliseconds; the matrix method of older zlib takes seconds.
pub fn full_object<'a>(
    algorithm: ChecksumAlgorithm,
    parts: impl IntoIterator<Item = (&'a [u8], u64)>,
) -> Option<Vec<u8>> {
    let field = Field::of(algorithm)?;
    let digest_len_bytes = super::digest_len_bytes(algorithm);
    // The CRC of nothing.
    let mut crc = 0;
    // Parts have mostly one length, so the last power is worth keeping.
    let mut power: Option<(u64, u64)> = None;
    for (digest, len_bytes) in parts {
        if digest.len() != digest_len_bytes {
            return None;
        }
        let part = digest.iter().fold(0_u64, |value, &byte| value << 8 | u64::from(byte));
        let shift = match power {
            Some((len, shift)) if len == len_bytes => shift,
            _ => field.x_to_bytes(len_bytes),
        };
        power = Some((len_bytes, shift));
        crc = field.multiply(crc, shift) ^ part;
    }
    Some(crc.to_be_bytes()[8 - digest_len_bytes..].to_vec())
}

/// Polynomials over GF(2) modulo a CRC's polynomial. All three CRCs are reflected: the highest bit is the coefficient of
/// x^0.
struct Field {
    /// The polynomial without its leading term, reflected.
    polynomial: u64,
    /// The bit that stands for x^0.
    one: u64,
}

impl Field {
    fn of(algorithm: ChecksumAlgorithm) -> Option<Self> {
        let (polynomial, width_bits) = match algorithm {
            ChecksumAlgorithm::Crc32 => (0xedb8_8320, 32),
            ChecksumAlgorithm::Crc32c => (0x82f6_3b78, 32),
            ChecksumAlgorithm::Crc64Nvme => (0x9a6c_9329_ac4b_c9b5, 64),
            ChecksumAlgorithm::Sha1
            | ChecksumAlgorithm::Sha256
            | ChecksumAlgorithm::Sha512
            | ChecksumAlgorithm::Md5
            | ChecksumAlgorithm::XxHash64
            | ChecksumAlgorithm::XxHash3
            | ChecksumAlgorithm::XxHash128 => return None,
        };
        Some(Self { polynomial, one: 1 << (width_bits - 1) })
    }

    fn multiply(&self, a: u64, b: u64) -> u64 {
        let (mut term, mut shifted, mut product) = (self.one, b, 0);
        while term != 0 {
            if a & term != 0 {
                product ^= shifted;
            }
            shifted = if shifted & 1 == 1 { shifted >> 1 ^ self.polynomial } else { shifted >> 1 };
            term >>= 1;
        }
        product
    }

    /// x^(8 * `len_bytes`).
    fn x_to_bytes(&self, len_bytes: u64) -> u64 {
        let (mut exponent, mut square, mut power) = (len_bytes, self.one >> 8, self.one);
        while exponent != 0 {
            if exponent & 1 == 1 {
                power = self.multiply(power, square);
            }
            square = self.multiply(square, square);
            exponent >>= 1;
        }
        power
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ALGORITHMS, BodyHasher, WithMd5};
    use super::*;
    use proptest::prelude::*;

    fn digest(algorithm: ChecksumAlgorithm, bytes: &[u8]) -> Vec<u8> {
        let mut running = Running::new(algorithm);
        running.update(bytes);
        running.finish()
    }

    const CRCS: [ChecksumAlgorithm; 3] =
        [ChecksumAlgorithm::Crc32, ChecksumAlgorithm::Crc32c, ChecksumAlgorithm::Crc64Nvme];

    #[test]
    fn no_parts_have_the_checksum_of_nothing() {
        for algorithm in CRCS {
            assert_eq!(full_object(algorithm, []), Some(digest(algorithm, b"")));
        }
        assert_eq!(full_object(ChecksumAlgorithm::Sha256, []), None);
        assert_eq!(full_object(ChecksumAlgorithm::Crc32, [(&[0_u8; 8][..], 1)]), None);
    }

    #[test]
    fn lengths_beyond_memory_agree_with_the_matrix_method() {
        for (algorithm, theirs) in [
            (ChecksumAlgorithm::Crc32, crc_fast::CrcAlgorithm::Crc32IsoHdlc),
            (ChecksumAlgorithm::Crc32c, crc_fast::CrcAlgorithm::Crc32Iscsi),
            (ChecksumAlgorithm::Crc64Nvme, crc_fast::CrcAlgorithm::Crc64Nvme),
        ] {
            let (a, b) = (digest(algorithm, b"first"), digest(algorithm, b"second"));
            let value = |digest: &[u8]| digest.iter().fold(0_u64, |value, &byte| value << 8 | u64::from(byte));
            for len_bytes in [1, 5 << 20, (5 << 30) - 1, 5 << 40] {
                let expected = crc_fast::checksum_combine(theirs, value(&a), value(&b), len_bytes);
                let found = full_object(algorithm, [(&a[..], 5), (&b[..], len_bytes)]).expect("a CRC");
                assert_eq!(value(&found), expected, "{algorithm:?} {len_bytes}");
            }
        }
    }

    #[test]
    fn a_composite_checksum_is_that_of_the_digests() {
        for algorithm in ALGORITHMS {
            let parts = [digest(algorithm, b"a"), digest(algorithm, b"b")];
            let mut hasher = BodyHasher::new(WithMd5::No, [algorithm]);
            hasher.update(&parts.concat());
            let expected = hasher.finish().checksum(algorithm).map(<[u8]>::to_vec);
            assert_eq!(Some(composite(algorithm, parts.iter().map(Vec::as_slice))), expected);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn combined_parts_have_the_checksum_of_the_whole(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 0..8),
        ) {
            let whole = parts.concat();
            for algorithm in CRCS {
                let digests: Vec<_> = parts.iter().map(|part| (digest(algorithm, part), part.len() as u64)).collect();
                let combined = full_object(algorithm, digests.iter().map(|(digest, len)| (digest.as_slice(), *len)));
                prop_assert_eq!(combined, Some(digest(algorithm, &whole)));
            }
        }
    }
}
