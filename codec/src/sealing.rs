//! Sealing of the root key: under a key that a passphrase gives, or that lies in shares.
//!
//! The bytes are specified in `docs/format-metadata.md`, "Sealed root key".

use crate::backup::{BACKUP_ITERATIONS, stretch};
use crate::kdf::KEY_LEN;
use crate::keys::{KeyError, RootKey, random};
use crate::shamir::{self, Share, ShareError, SplitError};
use zeroize::Zeroizing;

/// PBKDF2 iterations of newly sealed root keys.
pub const SEALING_ITERATIONS: u32 = BACKUP_ITERATIONS;
/// Bytes of a sealed root key.
pub const SEALED_ROOT_KEY_LEN_BYTES: usize = crate::keys::WRAPPED_PROJECT_KEY_LEN_BYTES;

/// What seals a root key. Held by the process that opened it, so that a new root key can be sealed likewise.
///
/// Zeroised when dropped; has no `Debug` output and is never serialised.
#[derive(Clone)]
pub struct SealingKey(Zeroizing<[u8; KEY_LEN]>);

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealingKey(..)")
    }
}

impl SealingKey {
    /// A fresh random key, to be split.
    ///
    /// # Errors
    /// [`KeyError::NoRandomness`].
    pub fn generate() -> Result<Self, KeyError> {
        Ok(Self(Zeroizing::new(random()?)))
    }

    /// The key that a passphrase gives. Takes a fraction of a second of processor time: not for a reactor thread.
    ///
    /// # Errors
    /// [`KeyError::UnknownFormat`] for a number of iterations that no Valv writes.
    pub fn from_passphrase(passphrase: &[u8], salt: &[u8; 16], iterations: u32) -> Result<Self, KeyError> {
        Ok(Self(stretch(passphrase, salt, iterations)?))
    }

    /// Splits the key: any `threshold` of the `count` shares give it back.
    ///
    /// # Errors
    /// [`SplitError`].
    pub fn split(&self, threshold: u8, count: u8) -> Result<Vec<Share>, SplitError> {
        shamir::split(&self.0, threshold, count)
    }

    /// Puts the key together. Shares that were forged give another key, which opens nothing.
    ///
    /// # Errors
    /// [`ShareError`].
    pub fn combine(shares: &[Share]) -> Result<Self, ShareError> {
        Ok(Self(shamir::combine(shares)?))
    }

    /// Seals a root key; `context` says how, and must be given again.
    ///
    /// # Errors
    /// [`KeyError::NoRandomness`].
    pub fn seal_root(&self, context: &[u8], root: &RootKey) -> Result<Vec<u8>, KeyError> {
        root.sealed_under(&self.0, &context_of(context))
    }

    /// Opens a sealed root key.
    ///
    /// # Errors
    /// [`KeyError::Mismatch`] for another passphrase or other shares.
    pub fn open_root(&self, context: &[u8], version: u32, sealed: &[u8]) -> Result<RootKey, KeyError> {
        RootKey::opened_under(&self.0, version, &context_of(context), sealed)
    }
}

fn context_of(context: &[u8]) -> Vec<u8> {
    [b"root\0".as_slice(), context].concat()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_root_key_opens_under_its_own_seal_and_context_only() {
        let root = RootKey::generate(3).unwrap();
        let key = SealingKey::generate().unwrap();
        let sealed = key.seal_root(b"shares", &root).unwrap();
        assert_eq!(sealed.len(), SEALED_ROOT_KEY_LEN_BYTES);
        assert_eq!(key.open_root(b"shares", 3, &sealed).unwrap().expose(), root.expose());
        let other = SealingKey::generate().unwrap();
        assert_eq!(other.open_root(b"shares", 3, &sealed).unwrap_err(), KeyError::Mismatch);
        assert_eq!(key.open_root(b"passphrase", 3, &sealed).unwrap_err(), KeyError::Mismatch);
        assert!(key.open_root(b"shares", 4, &sealed).is_err());
        let again = SealingKey::combine(&key.split(2, 3).unwrap()[1..]).unwrap();
        assert_eq!(again.open_root(b"shares", 3, &sealed).unwrap().expose(), root.expose());
    }

    #[test]
    fn a_passphrase_gives_the_same_key_for_the_same_salt_only() {
        let key = |passphrase: &[u8], salt| SealingKey::from_passphrase(passphrase, &[salt; 16], 100_000).unwrap();
        let root = RootKey::generate(1).unwrap();
        let sealed = key(b"correct horse", 1).seal_root(b"", &root).unwrap();
        assert!(key(b"correct horse", 1).open_root(b"", 1, &sealed).is_ok());
        assert!(key(b"correct horse", 2).open_root(b"", 1, &sealed).is_err());
        assert!(key(b"wrong", 1).open_root(b"", 1, &sealed).is_err());
        assert!(SealingKey::from_passphrase(b"x", &[0; 16], 1).is_err());
    }
}
