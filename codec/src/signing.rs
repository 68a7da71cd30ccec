//! Signatures over what Valv states to outsiders: Ed25519 (RFC 8032), by a key that follows from the root key, so that a
//! backup of the root key is a backup of it.

use crate::kdf::{KEY_LEN, derive};
use ring::signature::{Ed25519KeyPair, KeyPair as _};

/// Length of a public key in bytes.
pub const PUBLIC_KEY_LEN_BYTES: usize = 32;
/// Length of a signature in bytes.
pub const SIGNATURE_LEN_BYTES: usize = 64;

/// A signing key. Has no `Debug` output and is never serialised. (The library that holds it does not zeroise it: it lives
/// as long as the process that signs.)
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    pub(crate) fn derived(root: &[u8; KEY_LEN]) -> Self {
        let seed = derive::<32>(root, &[], &[b"valv signing v1"]);
        match Ed25519KeyPair::from_seed_unchecked(seed.as_slice()) {
            Ok(pair) => Self(pair),
            Err(_) => unreachable!("Ed25519 takes any 32 bytes as a seed"),
        }
    }

    /// What others check signatures with.
    pub fn public_key(&self) -> [u8; PUBLIC_KEY_LEN_BYTES] {
        let mut bytes = [0; PUBLIC_KEY_LEN_BYTES];
        bytes.copy_from_slice(self.0.public_key().as_ref());
        bytes
    }

    /// Signs a text.
    pub fn sign(&self, text: &[u8]) -> [u8; SIGNATURE_LEN_BYTES] {
        let mut bytes = [0; SIGNATURE_LEN_BYTES];
        bytes.copy_from_slice(self.0.sign(text).as_ref());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{ED25519, UnparsedPublicKey};

    #[test]
    fn signatures_verify_under_the_public_key_and_follow_from_the_root_key() {
        let (key, same, other) =
            (SigningKey::derived(&[1; 32]), SigningKey::derived(&[1; 32]), SigningKey::derived(&[2; 32]));
        assert_eq!(key.public_key(), same.public_key());
        assert_ne!(key.public_key(), other.public_key());
        let signature = key.sign(b"text");
        let verify = |public: [u8; 32], text: &[u8]| UnparsedPublicKey::new(&ED25519, public).verify(text, &signature);
        assert!(verify(key.public_key(), b"text").is_ok());
        assert!(verify(key.public_key(), b"test").is_err());
        assert!(verify(other.public_key(), b"text").is_err());
    }

    #[test]
    fn the_derivation_stays_what_it_is() {
        assert_eq!(
            hex::encode(SigningKey::derived(&[7; 32]).public_key()),
            "7c9ff223c6fca864a79d8d0fad664259ea344e1c643cc67f3c8f5af60a5d0baf"
        );
    }
}
