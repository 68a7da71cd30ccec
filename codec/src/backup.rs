//! Sealing under a passphrase, for key backups that people keep in a safe.
//!
//! PBKDF2-HMAC-SHA256 (RFC 8018) stretches the passphrase: weaker per second than a memory-hard function, but it is in
//! every cryptographic library, and a backup must open decades from now without Valv. The bytes are specified in
//! `docs/format-metadata.md`, "Key backup".

use crate::kdf::{KEY_LEN, aead_key};
use crate::keys::KeyError;
use ring::aead::{Aad, Nonce};
use ring::pbkdf2;
use std::num::NonZeroU32;
use zeroize::Zeroizing;

/// Iterations of new backups (OWASP's recommendation for PBKDF2-HMAC-SHA256 in 2023).
pub const BACKUP_ITERATIONS: u32 = 600_000;
/// Fewest iterations that a backup is opened with: fewer is a forged or careless file.
const ITERATIONS_MIN: u32 = 100_000;
/// Most iterations that a backup is opened with: some seconds of work.
const ITERATIONS_MAX: u32 = 20_000_000;

/// What a passphrase opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedBackup {
    /// PBKDF2 iterations.
    pub iterations: u32,
    /// PBKDF2 salt.
    pub salt: [u8; 16],
    /// AES-256-GCM nonce.
    pub nonce: [u8; 12],
    /// Ciphertext and tag.
    pub sealed: Vec<u8>,
}

/// The key that a passphrase gives.
pub(crate) fn stretch(
    passphrase: &[u8],
    salt: &[u8; 16],
    iterations: u32,
) -> Result<Zeroizing<[u8; KEY_LEN]>, KeyError> {
    if !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations) {
        return Err(KeyError::UnknownFormat);
    }
    let iterations = NonZeroU32::new(iterations).ok_or(KeyError::UnknownFormat)?;
    let mut key = Zeroizing::new([0; KEY_LEN]);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, passphrase, key.as_mut_slice());
    Ok(key)
}

impl SealedBackup {
    /// Seals `plain` under `passphrase`; `context` is authenticated and must be given again. Takes a fraction of a
    /// second of processor time: not for a reactor thread.
    pub fn seal(passphrase: &[u8], context: &[u8], plain: &[u8]) -> Result<Self, KeyError> {
        let (mut salt, mut nonce) = ([0; 16], [0; 12]);
        getrandom::fill(&mut salt).map_err(|_| KeyError::NoRandomness)?;
        getrandom::fill(&mut nonce).map_err(|_| KeyError::NoRandomness)?;
        let key = stretch(passphrase, &salt, BACKUP_ITERATIONS)?;
        let mut sealed = Vec::with_capacity(plain.len() + 16);
        sealed.extend_from_slice(plain);
        aead_key(&key)
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context), &mut sealed)
            .map_err(|_| KeyError::Mismatch)?;
        Ok(Self { iterations: BACKUP_ITERATIONS, salt, nonce, sealed })
    }

    /// Opens the backup. [`KeyError::Mismatch`] means a wrong passphrase or damage.
    pub fn open(&self, passphrase: &[u8], context: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let key = stretch(passphrase, &self.salt, self.iterations)?;
        let mut plain = Zeroizing::new(self.sealed.clone());
        let len = aead_key(&key)
            .open_in_place(Nonce::assume_unique_for_key(self.nonce), Aad::from(context), &mut plain)
            .map_err(|_| KeyError::Mismatch)?
            .len();
        plain.truncate(len);
        Ok(plain)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_opens_under_its_own_passphrase_and_context_only() {
        let sealed = SealedBackup::seal(b"correct horse", b"c", b"keys").unwrap();
        assert_eq!(sealed.open(b"correct horse", b"c").unwrap().as_slice(), b"keys");
        assert_eq!(sealed.open(b"wrong", b"c").unwrap_err(), KeyError::Mismatch);
        assert_eq!(sealed.open(b"correct horse", b"d").unwrap_err(), KeyError::Mismatch);
        let weak = SealedBackup { iterations: 1, ..sealed };
        assert_eq!(weak.open(b"correct horse", b"c").unwrap_err(), KeyError::UnknownFormat);
    }
}
