//! HKDF-SHA256 (RFC 5869) into what we need: an AES-256-GCM key and 32 bytes that commit to it.

use ring::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use zeroize::Zeroizing;

/// Length of every key and of every commitment.
pub(crate) const KEY_LEN: usize = 32;

struct OutLen(usize);

impl KeyType for OutLen {
    fn len(&self) -> usize {
        self.0
    }
}

/// Expands `secret` with `salt` and `info` into `N` bytes.
pub(crate) fn derive<const N: usize>(secret: &[u8], salt: &[u8], info: &[&[u8]]) -> Zeroizing<[u8; N]> {
    const { assert!(N <= 255 * 32, "HKDF-SHA256 gives at most 255 blocks") };
    let mut out = Zeroizing::new([0; N]);
    let pseudo_random_key = Salt::new(HKDF_SHA256, salt).extract(secret);
    let filled = pseudo_random_key.expand(info, OutLen(N)).and_then(|okm| okm.fill(out.as_mut_slice()));
    // ring refuses only lengths over 255 blocks, which the assertion above excludes.
    assert!(filled.is_ok(), "HKDF output length is fixed at compile time");
    out
}

/// An AEAD key from 32 bytes.
pub(crate) fn aead_key(bytes: &[u8; KEY_LEN]) -> LessSafeKey {
    match UnboundKey::new(&AES_256_GCM, bytes) {
        Ok(key) => LessSafeKey::new(key),
        Err(_) => unreachable!("AES-256-GCM takes any 32 bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivation_agrees_with_rfc_5869_test_case_1() {
        let secret = [0x0b; 22];
        let salt: Vec<u8> = (0..=0x0c).collect();
        let info: Vec<u8> = (0xf0..=0xf9).collect();
        let okm = derive::<42>(&secret, &salt, &[&info]);
        assert_eq!(
            hex::encode(okm.as_slice()),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
        );
    }
}
