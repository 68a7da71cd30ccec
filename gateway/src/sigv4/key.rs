//! Signing keys, signatures, and the chain of signatures over the chunks of a streamed body.

use super::ALGORITHM;
use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};
use std::fmt;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// SHA-256 of nothing, which every chunk's string to sign contains.
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A signature: HMAC-SHA256. Compared in constant time.
#[derive(Clone, Copy)]
pub struct Signature([u8; 32]);

impl Signature {
    /// Reads 64 lower-case hexadecimal digits, the only form that AWS accepts.
    pub fn from_hex(text: &[u8]) -> Option<Self> {
        if text.len() != 64 || text.iter().any(u8::is_ascii_uppercase) {
            return None;
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// 64 lower-case hexadecimal digits.
    pub fn to_hex(self) -> String {
        hex::encode(self.0)
    }
}

impl PartialEq for Signature {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for Signature {
    // A right signature is good for 15 minutes, so it is not for the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signature(..)")
    }
}

/// The key of one access key's secret for one day, region and service. Zeroised when dropped.
#[derive(Clone)]
pub struct SigningKey(Zeroizing<[u8; 32]>);

impl SigningKey {
    /// Derives the key: "Deriving the signing key" in AWS's documentation. `date` is `YYYYMMDD`.
    pub fn derive(secret: &[u8], date: &str, region: &str, service: &str) -> Self {
        let mut start = Zeroizing::new(Vec::with_capacity(4 + secret.len()));
        start.extend_from_slice(b"AWS4");
        start.extend_from_slice(secret);
        let mut key = Zeroizing::new(hmac(&start, date.as_bytes()));
        for step in [region, service, "aws4_request"] {
            key = Zeroizing::new(hmac(&*key, step.as_bytes()));
        }
        Self(key)
    }

    /// Signs a string to sign.
    pub fn sign(&self, string_to_sign: &[u8]) -> Signature {
        Signature(hmac(&*self.0, string_to_sign))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        unreachable!("HMAC takes a key of any length (RFC 2104)");
    };
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// Verifies the signatures of a body's chunks, each of which covers the one before it. The first covers the request's.
pub struct ChunkVerifier {
    key: SigningKey,
    /// `20130524T000000Z`, newline, scope, newline: the same in every string to sign.
    prefix: String,
    previous: Signature,
}

impl ChunkVerifier {
    /// A chain that starts from the request's own signature.
    pub fn new(key: SigningKey, timestamp: String, scope: String, seed: Signature) -> Self {
        Self { key, prefix: format!("{timestamp}\n{scope}\n"), previous: seed }
    }

    /// Whether `signature` is right for a chunk whose bytes were hashed in `chunk`; if so the chain goes on from it.
    pub fn verify_chunk(&mut self, chunk: Sha256, signature: Signature) -> bool {
        let string = format!(
            "{ALGORITHM}-PAYLOAD\n{}{}\n{EMPTY_SHA256}\n{}",
            self.prefix,
            self.previous.to_hex(),
            hex::encode(chunk.finalize())
        );
        self.advance(&string, signature)
    }

    /// Whether `signature` is right for the trailer section, given as `name:value\n` lines.
    pub fn verify_trailers(&mut self, canonical: &[u8], signature: Signature) -> bool {
        let string = format!(
            "{ALGORITHM}-TRAILER\n{}{}\n{}",
            self.prefix,
            self.previous.to_hex(),
            hex::encode(Sha256::digest(canonical))
        );
        self.advance(&string, signature)
    }

    fn advance(&mut self, string_to_sign: &str, signature: Signature) -> bool {
        let right = self.key.sign(string_to_sign.as_bytes());
        self.previous = right;
        right == signature
    }
}

impl fmt::Debug for ChunkVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChunkVerifier(..)")
    }
}

#[cfg(test)]
impl ChunkVerifier {
    /// The signature that a client would put on its next chunk; for tests that build bodies.
    pub(crate) fn sign_chunk(&mut self, chunk: &[u8]) -> String {
        let string = format!(
            "{ALGORITHM}-PAYLOAD\n{}{}\n{EMPTY_SHA256}\n{}",
            self.prefix,
            self.previous.to_hex(),
            hex::encode(Sha256::digest(chunk))
        );
        self.previous = self.key.sign(string.as_bytes());
        self.previous.to_hex()
    }

    /// The signature that a client would put on its trailers.
    pub(crate) fn sign_trailers(&mut self, canonical: &[u8]) -> String {
        let hash = hex::encode(Sha256::digest(canonical));
        let string = format!("{ALGORITHM}-TRAILER\n{}{}\n{hash}", self.prefix, self.previous.to_hex());
        self.previous = self.key.sign(string.as_bytes());
        self.previous.to_hex()
    }
}
