//! Sealing of metadata records: small, many, each under a key of its own.

use crate::kdf::{KEY_LEN, aead_key, derive};
use ring::aead::{Aad, Nonce};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::keys::KeyError;

const FORMAT: u8 = 1;
const SALT_LEN: usize = 16;
const COMMITMENT_LEN: usize = 16;
const TAG_LEN: usize = 16;
const HEAD_LEN: usize = 1 + SALT_LEN + COMMITMENT_LEN;

/// What sealing adds to a record: format, salt, commitment, tag.
pub const RECORD_OVERHEAD_BYTES: usize = HEAD_LEN + TAG_LEN;

/// Seals and opens records of one project, or of the system.
///
/// Each record gets its own AEAD key: BLAKE3 keyed with this key, over a random 128-bit salt. BLAKE3 rather than HKDF
/// because a listing opens a thousand records a page: 0.1 us against 2 us each.
#[derive(Clone)]
pub struct RecordKey(Zeroizing<[u8; KEY_LEN]>);

impl std::fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecordKey(..)")
    }
}

impl RecordKey {
    pub(crate) fn derived(secret: &[u8; KEY_LEN], info: &[&[u8]]) -> Self {
        Self(derive::<KEY_LEN>(secret, &[], info))
    }

    fn one_time(&self, salt: &[u8]) -> (Zeroizing<[u8; KEY_LEN]>, [u8; COMMITMENT_LEN]) {
        let mut both = Zeroizing::new([0; KEY_LEN + COMMITMENT_LEN]);
        blake3::Hasher::new_keyed(&self.0).update(salt).finalize_xof().fill(both.as_mut_slice());
        let mut key = Zeroizing::new([0; KEY_LEN]);
        key.copy_from_slice(&both[..KEY_LEN]);
        let mut commitment = [0; COMMITMENT_LEN];
        commitment.copy_from_slice(&both[KEY_LEN..]);
        (key, commitment)
    }

    /// Seals `plain`; `place` (the row's key, say) is authenticated and must be given again to open it.
    pub fn seal(&self, place: &[u8], plain: &[u8]) -> Result<Vec<u8>, KeyError> {
        let mut out = Vec::with_capacity(RECORD_OVERHEAD_BYTES + plain.len());
        let mut salt = [0; SALT_LEN];
        getrandom::fill(&mut salt).map_err(|_| KeyError::NoRandomness)?;
        let (key, commitment) = self.one_time(&salt);
        out.push(FORMAT);
        out.extend_from_slice(&salt);
        out.extend_from_slice(&commitment);
        out.extend_from_slice(plain);
        // The nonce is fixed because the key is used once.
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let tag = aead_key(&key)
            .seal_in_place_separate_tag(nonce, Aad::from(place), &mut out[HEAD_LEN..])
            .map_err(|_| KeyError::Mismatch)?;
        out.extend_from_slice(tag.as_ref());
        Ok(out)
    }

    /// Opens what [`Self::seal`] made for the same `place`.
    pub fn open(&self, place: &[u8], sealed: &[u8]) -> Result<Vec<u8>, KeyError> {
        if sealed.len() < RECORD_OVERHEAD_BYTES || sealed[0] != FORMAT {
            return Err(KeyError::UnknownFormat);
        }
        let (key, commitment) = self.one_time(&sealed[1..1 + SALT_LEN]);
        if !bool::from(commitment.ct_eq(&sealed[1 + SALT_LEN..HEAD_LEN])) {
            return Err(KeyError::Mismatch);
        }
        let mut plain = sealed[HEAD_LEN..].to_vec();
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let len =
            aead_key(&key).open_in_place(nonce, Aad::from(place), &mut plain).map_err(|_| KeyError::Mismatch)?.len();
        plain.truncate(len);
        Ok(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemKey;

    #[test]
    fn a_record_opens_in_its_own_place_only() {
        let key = SystemKey::generate(1).unwrap().system_record_key("test");
        let sealed = key.seal(b"row 1", b"contents").unwrap();
        assert_eq!(sealed.len(), RECORD_OVERHEAD_BYTES + 8);
        assert_eq!(key.open(b"row 1", &sealed).unwrap(), b"contents");
        assert_eq!(key.open(b"row 2", &sealed), Err(KeyError::Mismatch));
        let other = SystemKey::generate(1).unwrap().system_record_key("test");
        assert_eq!(other.open(b"row 1", &sealed), Err(KeyError::Mismatch));
    }

    #[test]
    fn purposes_do_not_open_each_other() {
        let root = SystemKey::generate(1).unwrap();
        let sealed = root.system_record_key("a").seal(b"", b"x").unwrap();
        assert!(root.system_record_key("b").open(b"", &sealed).is_err());
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let key = SystemKey::generate(1).unwrap().system_record_key("test");
        let sealed = key.seal(b"p", b"secret").unwrap();
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(key.open(b"p", &damaged).is_err(), "bit {bit}");
        }
        assert!(key.open(b"p", &sealed[..10]).is_err());
    }
}
