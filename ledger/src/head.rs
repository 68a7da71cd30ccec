//! Signed tree heads: at this time this ledger had these events.

use crate::tree::Hash;
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use valv_types::{ProjectId, TimestampMicros};

/// Length of an Ed25519 public key in bytes (RFC 8032).
pub const PUBLIC_KEY_LEN_BYTES: usize = 32;

/// What is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Whose ledger.
    pub project: ProjectId,
    /// Number of leaves.
    pub size: u64,
    /// The tree's root.
    pub root: Hash,
    /// When it was signed, in cluster time.
    pub time: TimestampMicros,
}

impl Head {
    /// The text that the signature covers: five lines, the first of which no other document of Valv begins with.
    pub fn signed_text(&self) -> String {
        let Self { project, size, root, time } = self;
        format!("valv ledger head 1\n{project}\n{size}\n{}\n{}\n", hex::encode(root), time.0)
    }
}

/// A head with its signature, as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedHead {
    /// Whose ledger.
    pub project: String,
    /// Number of leaves.
    pub size: u64,
    /// The tree's root, hexadecimal.
    pub root: String,
    /// When it was signed: microseconds since 1970, cluster time.
    pub time_micros: u64,
    /// [`key_name`] of the key that signed it.
    pub key: String,
    /// Ed25519 over [`Head::signed_text`], hexadecimal.
    pub signature: String,
}

/// Why a head can't be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// A field is not what it should be.
    #[error("{field} is malformed")]
    Malformed {
        /// Which one.
        field: &'static str,
    },
    /// Another key signed it.
    #[error("it was signed by key {found}, not by {expected}")]
    OtherKey {
        /// The key that it names.
        found: String,
        /// The key that was given.
        expected: String,
    },
    /// The signature is not that key's over this head.
    #[error("the signature is wrong")]
    Signature,
}

/// A short name of a public key: the first eight bytes of its SHA-256, hexadecimal. It decides nothing.
pub fn key_name(public_key: &[u8; PUBLIC_KEY_LEN_BYTES]) -> String {
    use sha2::Digest as _;
    hex::encode(&sha2::Sha256::digest(public_key)[..8])
}

impl SignedHead {
    /// Writes down a head and the signature that somebody made over its [`Head::signed_text`].
    pub fn new(head: &Head, public_key: &[u8; PUBLIC_KEY_LEN_BYTES], signature: &[u8]) -> Self {
        Self {
            project: head.project.to_string(),
            size: head.size,
            root: hex::encode(head.root),
            time_micros: head.time.0,
            key: key_name(public_key),
            signature: hex::encode(signature),
        }
    }

    /// The head, once its signature has been checked.
    ///
    /// # Errors
    /// [`HeadError`].
    pub fn verify(&self, public_key: &[u8; PUBLIC_KEY_LEN_BYTES]) -> Result<Head, HeadError> {
        let malformed = |field| HeadError::Malformed { field };
        let root: Hash =
            hex::decode(&self.root).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(malformed("root"))?;
        let head = Head {
            project: self.project.parse().map_err(|_| malformed("project"))?,
            size: self.size,
            root,
            time: TimestampMicros(self.time_micros),
        };
        let expected = key_name(public_key);
        if self.key != expected {
            return Err(HeadError::OtherKey { found: self.key.clone(), expected });
        }
        let signature = hex::decode(&self.signature).map_err(|_| malformed("signature"))?;
        UnparsedPublicKey::new(&ED25519, public_key)
            .verify(head.signed_text().as_bytes(), &signature)
            .map_err(|_| HeadError::Signature)?;
        Ok(head)
    }
}
