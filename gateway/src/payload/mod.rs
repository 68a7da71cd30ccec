//! Request bodies: from what arrives on the socket to verified plaintext bytes, in every form that S3 knows.
//!
//! **Nothing is true before the end.** Bytes are handed on as they arrive, before the hash or the chunk signature that
//! covers them has been checked; only the stream's normal end says that every byte, the length and every signature were
//! right. Whoever consumes a [`Payload`] must treat an error, or dropping it early, as an abort: nothing of it may
//! become visible. Valv's writes are visible only after their metadata commit, which comes after the end.
//!
//! The body is not polled before the first [`Payload::next`], so that hyper sends `100 Continue` only then: a refused
//! request costs its client no upload.

mod chunked;
mod mode;
mod stream;
#[cfg(test)]
mod tests;

pub use chunked::{ChunkedDecoder, ChunkedError, ChunkedEvent, Trailers};
pub use mode::{PayloadMode, PayloadModeName, strip_aws_chunked};
pub use stream::{Payload, PayloadConfig};
