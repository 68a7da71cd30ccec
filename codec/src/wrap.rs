//! The construction under every wrapped key: salt, commitment, sealed key, tag.
//!
//! Each wrap gets an AEAD key of its own, derived from the wrapping key with a fresh salt, so the nonce may be fixed and no
//! limit on the number of wraps applies. The same derivation gives a commitment: AES-GCM alone would let one ciphertext
//! open under two keys.

use crate::kdf::{KEY_LEN, aead_key, derive};
use crate::keys::{KeyError, random};
use ring::aead::{Aad, Nonce, Tag};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

const SALT_LEN: usize = 16;
const TAG_LEN: usize = 16;
/// Where the sealed key starts: after salt and commitment.
const SEALED_AT: usize = SALT_LEN + KEY_LEN;
/// What wrapping adds to a key.
pub(crate) const WRAP_OVERHEAD_LEN: usize = SEALED_AT + TAG_LEN;

/// What a wrap is bound to besides its key.
#[derive(Clone, Copy)]
pub(crate) struct Binding<'a> {
    /// Which layer: goes into the derivation.
    pub(crate) label: &'a [u8],
    /// Whose key it is: goes into the derivation and into the associated data, so a wrap moved to another place opens
    /// nowhere.
    pub(crate) context: &'a [u8],
    /// What stands before the wrap, in clear: goes into the associated data.
    pub(crate) head: &'a [u8],
}

impl Binding<'_> {
    fn key(&self, outer: &[u8; KEY_LEN], salt: &[u8]) -> (Zeroizing<[u8; KEY_LEN]>, [u8; KEY_LEN]) {
        let both = derive::<{ 2 * KEY_LEN }>(outer, salt, &[self.label, self.context]);
        let mut key = Zeroizing::new([0; KEY_LEN]);
        key.copy_from_slice(&both[..KEY_LEN]);
        let mut commitment = [0; KEY_LEN];
        commitment.copy_from_slice(&both[KEY_LEN..]);
        (key, commitment)
    }

    fn aad(&self) -> Aad<Vec<u8>> {
        Aad::from([self.head, self.context].concat())
    }

    /// Wraps `inner` under `outer` into `out`, which is [`WRAP_OVERHEAD_LEN`] longer.
    pub(crate) fn wrap(&self, outer: &[u8; KEY_LEN], inner: &[u8], out: &mut [u8]) -> Result<(), KeyError> {
        if out.len() != inner.len() + WRAP_OVERHEAD_LEN {
            return Err(KeyError::Length);
        }
        let salt: [u8; SALT_LEN] = random()?;
        let (key, commitment) = self.key(outer, &salt);
        out[..SALT_LEN].copy_from_slice(&salt);
        out[SALT_LEN..SEALED_AT].copy_from_slice(&commitment);
        let (body, tag) = out[SEALED_AT..].split_at_mut(inner.len());
        body.copy_from_slice(inner);
        // The nonce is fixed because the key is used once: it was derived with a fresh 128-bit salt.
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let made =
            aead_key(&key).seal_in_place_separate_tag(nonce, self.aad(), body).map_err(|_| KeyError::Mismatch)?;
        tag.copy_from_slice(made.as_ref());
        Ok(())
    }

    /// Opens what [`Self::wrap`] made of `N` bytes. The commitment is compared first, in constant time.
    pub(crate) fn unwrap<const N: usize>(
        &self,
        outer: &[u8; KEY_LEN],
        wrapped: &[u8],
    ) -> Result<Zeroizing<[u8; N]>, KeyError> {
        if wrapped.len() != N + WRAP_OVERHEAD_LEN {
            return Err(KeyError::UnknownFormat);
        }
        let (key, commitment) = self.key(outer, &wrapped[..SALT_LEN]);
        if !bool::from(commitment.ct_eq(&wrapped[SALT_LEN..SEALED_AT])) {
            return Err(KeyError::Mismatch);
        }
        let (body, tag) = wrapped[SEALED_AT..].split_at(N);
        let tag = Tag::try_from(tag).map_err(|_| KeyError::UnknownFormat)?;
        let mut inner = Zeroizing::new([0; N]);
        inner.copy_from_slice(body);
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        aead_key(&key)
            .open_in_place_separate_tag(nonce, self.aad(), tag, inner.as_mut_slice(), 0..)
            .map_err(|_| KeyError::Mismatch)?;
        Ok(inner)
    }
}
