//! How a body is verified: what `x-amz-content-sha256` says.

use crate::error::{S3Code, S3Error};
use crate::sigv4::ChunkVerifier;

/// The value of `x-amz-content-sha256`, read and not yet joined with a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadModeName {
    /// `UNSIGNED-PAYLOAD`, or nothing at all in an anonymous request.
    Unsigned,
    /// 64 hexadecimal digits: the SHA-256 of the body.
    Sha256([u8; 32]),
    /// `STREAMING-AWS4-HMAC-SHA256-PAYLOAD`.
    SignedChunks,
    /// `STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER`.
    SignedChunksTrailer,
    /// `STREAMING-UNSIGNED-PAYLOAD-TRAILER`.
    UnsignedChunksTrailer,
}

impl PayloadModeName {
    /// Reads the header's value.
    ///
    /// # Errors
    /// NotImplemented for the SigV4A forms, InvalidArgument for anything that is no form at all.
    pub fn parse(value: &str) -> Result<Self, S3Error> {
        match value {
            "UNSIGNED-PAYLOAD" => return Ok(Self::Unsigned),
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" => return Ok(Self::SignedChunks),
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER" => return Ok(Self::SignedChunksTrailer),
            "STREAMING-UNSIGNED-PAYLOAD-TRAILER" => return Ok(Self::UnsignedChunksTrailer),
            "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD" | "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER" => {
                return Err(S3Error::not_implemented("x-amz-content-sha256"));
            }
            _ => {}
        }
        let mut digest = [0; 32];
        match hex::decode_to_slice(value, &mut digest) {
            Ok(()) => Ok(Self::Sha256(digest)),
            Err(_) => Err(S3Error::invalid_argument(
                "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, \
                 STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER or a valid sha256 value.",
                "x-amz-content-sha256",
                value.chars().take(128).collect::<String>(),
            )),
        }
    }

    /// The mode of a request whose signature was verified; `chunks` makes the chain that starts from it.
    pub(crate) fn signed(self, chunks: impl FnOnce() -> ChunkVerifier) -> Result<PayloadMode, S3Error> {
        Ok(match self {
            Self::SignedChunks => PayloadMode::SignedChunks(chunks()),
            Self::SignedChunksTrailer => PayloadMode::SignedChunksTrailer(chunks()),
            other => return other.anonymous(),
        })
    }

    /// The mode of a request that nobody signed: there is no chain to verify signed chunks with.
    pub(crate) fn anonymous(self) -> Result<PayloadMode, S3Error> {
        match self {
            Self::Unsigned => Ok(PayloadMode::Unsigned),
            Self::Sha256(digest) => Ok(PayloadMode::Sha256(digest)),
            Self::UnsignedChunksTrailer => Ok(PayloadMode::UnsignedChunksTrailer),
            Self::SignedChunks | Self::SignedChunksTrailer => {
                Err(S3Error::new(S3Code::AccessDenied).with_message("Signed chunks need a signed request"))
            }
        }
    }
}

/// How a body is verified.
#[derive(Debug)]
pub enum PayloadMode {
    /// By nothing but its length (and the checksums the client gives).
    Unsigned,
    /// By its SHA-256, which the request's signature covers.
    Sha256([u8; 32]),
    /// aws-chunked, every chunk signed.
    SignedChunks(ChunkVerifier),
    /// aws-chunked, every chunk and the trailers signed.
    SignedChunksTrailer(ChunkVerifier),
    /// aws-chunked with trailers, nothing signed.
    UnsignedChunksTrailer,
}

impl PayloadMode {
    /// Whether the body is in aws-chunked framing, so that Content-Length is not the object's length.
    pub const fn is_chunked(&self) -> bool {
        matches!(self, Self::SignedChunks(_) | Self::SignedChunksTrailer(_) | Self::UnsignedChunksTrailer)
    }

    /// Whether trailers come after the body.
    pub const fn has_trailers(&self) -> bool {
        matches!(self, Self::SignedChunksTrailer(_) | Self::UnsignedChunksTrailer)
    }
}

/// The Content-Encoding to keep with the object: the request's without `aws-chunked`, which is of the transfer and not of
/// the object. `None` if nothing else is left.
pub fn strip_aws_chunked(content_encoding: &str) -> Option<String> {
    let kept: Vec<&str> = content_encoding
        .split(',')
        .map(str::trim)
        .filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("aws-chunked"))
        .collect();
    if kept.is_empty() { None } else { Some(kept.join(",")) }
}
