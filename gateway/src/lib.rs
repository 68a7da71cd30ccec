//! The S3 gateway: speaks S3 to clients, seals, codes and places their bytes, and asks metadata for everything else.
//!
//! This crate knows the metadata and shard APIs, never their insides: no RocksDB, no SQL, no disk format. S3's XML,
//! headers and error codes live here and nowhere else.

pub mod access;
mod accesses;
pub mod body;
pub mod checksum;
pub mod conditions;
pub mod data;
mod documents;
mod encryption;
pub mod error;
pub mod form;
mod forwarded;
#[doc(hidden)]
pub mod fuzzing;
pub mod host;
pub mod http_date;
mod lifecycle;
pub mod limits;
mod metrics;
mod moved_headers;
pub mod namespaces;
mod ops;
pub mod payload;
pub mod range;
pub mod request_id;
pub mod router;
pub mod server;
mod sigv2;
pub mod sigv4;
pub mod state;
pub mod tls;
pub mod xml;

pub use encryption::has_random_etag;
