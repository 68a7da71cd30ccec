//! Continuation tokens: opaque to clients, validated when they come back.
//!
//! A token is base64url of a version byte, a kind, the position and a CRC-32C. It holds nothing that its owner can't
//! see in the listing anyway, so it needs no secret; the checksum tells a mangled one from a valid one.

use crate::error::S3Error;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Version of the form below.
const VERSION: u8 = 1;

/// What a token goes on with; a token of another listing is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// ListObjectsV2.
    Objects = 1,
    /// ListBuckets.
    Buckets = 2,
}

/// Makes a token for `position`.
pub(crate) fn encode(kind: TokenKind, position: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(position.len() + 6);
    bytes.extend_from_slice(&[VERSION, kind as u8]);
    bytes.extend_from_slice(position);
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The position in a token.
///
/// # Errors
/// InvalidArgument.
pub(crate) fn decode(kind: TokenKind, token: &str) -> Result<Vec<u8>, S3Error> {
    let position = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| {
        let (bytes, crc) = bytes.split_last_chunk::<4>()?;
        let is_whole = crc32c::crc32c(bytes) == u32::from_be_bytes(*crc);
        let position = bytes.strip_prefix(&[VERSION, kind as u8])?;
        is_whole.then(|| position.to_vec())
    });
    position.ok_or_else(|| {
        S3Error::invalid_argument("The continuation token provided is incorrect", "continuation-token", token)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_gives_its_position_back_and_a_mangled_one_is_refused() {
        let token = encode(TokenKind::Objects, b"a/\xff");
        assert_eq!(decode(TokenKind::Objects, &token).expect("token"), b"a/\xff");
        assert!(decode(TokenKind::Buckets, &token).is_err());
        for bad in ["", "a", "AAAA", "!!!!", &token[1..], &format!("{token}A"), &token.to_lowercase()] {
            assert!(decode(TokenKind::Objects, bad).is_err(), "{bad}");
        }
    }
}
