//! Every limit of the S3 protocol and of the HTTP edge, in one place. What an operator may change is in
//! [`crate::server::ServerConfig`] and [`crate::payload::PayloadConfig`]; these are S3's own, or bounds that no
//! legitimate client meets.

use std::time::Duration;

/// Longest object key in bytes (AWS: "Naming Amazon S3 objects").
pub const KEY_LEN_BYTES_MAX: usize = 1024;
/// Shortest bucket name.
pub const BUCKET_NAME_LEN_BYTES_MIN: usize = 3;
/// Longest bucket name.
pub const BUCKET_NAME_LEN_BYTES_MAX: usize = 63;
/// Largest body of one PUT or part (AWS: 5 GiB).
pub const PUT_LEN_BYTES_MAX: u64 = 5 << 30;
/// Largest object: 5 TiB, as S3 had it for most of its life; 10,000 parts of 5 GiB would be more.
pub const OBJECT_LEN_BYTES_MAX: u64 = 5 << 40;
/// Smallest part except the last (AWS: 5 MiB).
pub const PART_LEN_BYTES_MIN: u64 = 5 << 20;
/// Highest part number.
pub const PART_NUMBER_MAX: u16 = 10_000;
/// Keys in one page of a listing and in one DeleteObjects.
pub const PAGE_LEN_MAX: u32 = 1_000;
/// User metadata: sum of names (without prefix) and values in bytes.
pub const USER_METADATA_LEN_BYTES_MAX: usize = 2 * 1024;
/// Tags on an object.
pub const TAGS_MAX: usize = 10;
/// Longest XML body of a request that the gateway reads into memory. CompleteMultipartUpload with 10,000 parts and every
/// checksum is about 2.2 MiB (AWS's own limit for it is 1 MiB of part list in practice); DeleteObjects with 1,000 keys of
/// 1,024 bytes, each escaped to 6 bytes, is 6.2 MiB.
pub const XML_BODY_LEN_BYTES_MAX: usize = 8 << 20;

/// Buffer for one request's header section. AWS allows 8 KiB; a URL of 1,024 key bytes each percent-encoded to 3, a presigned
/// query with a session token of a few KiB and 2 KiB of user metadata can pass that, so we take 64 KiB before answering 431.
pub const HEADER_SECTION_LEN_BYTES_MAX: usize = 64 * 1024;
/// Headers in one request: 2 KiB of user metadata are at most some hundred headers.
pub const HEADERS_MAX: usize = 256;

/// How far a request's time may lie from ours, both ways (AWS: 15 minutes).
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(15 * 60);
/// Longest life of a presigned URL in seconds (AWS: 7 days).
pub const PRESIGNED_EXPIRES_SECS_MAX: u64 = 7 * 24 * 3600;
/// Longest line of aws-chunked framing: 16 hexadecimal digits, `;chunk-signature=`, 64 digits and CR LF are 99 bytes;
/// extensions that a client may add have room.
pub const CHUNK_LINE_LEN_BYTES_MAX: usize = 512;
/// Longest trailer section. A trailer has one checksum (at most 44 base64 digits) and one signature.
pub const TRAILER_SECTION_LEN_BYTES_MAX: usize = 4 * 1024;
/// Trailer fields: one per checksum algorithm, the signature, and room for what SDKs add.
pub const TRAILERS_MAX: usize = 16;
/// Fields of a POST form before its file: names and values together (AWS: 20 KB, and its servers say 20,480).
pub const FORM_FIELDS_LEN_BYTES_MAX: usize = 20 * 1024;
/// Fields of a form. S3 knows some 40 by name, and 2 KiB of user metadata are rarely more than another 40.
pub const FORM_FIELDS_MAX: usize = 200;
/// Headers of one part of a form: a field's name, and a file's name of up to 255 characters with each of its bytes
/// percent-encoded, are about 3 KiB at most.
pub const FORM_PART_HEADERS_LEN_BYTES_MAX: usize = 4 * 1024;
/// How long a client may take to send a form's fields. Nothing is known of it until they are there.
pub const FORM_FIELDS_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a client may take to send a document, a body that is read whole: 8 MiB at 70 KB/s. It is kept in memory meanwhile.
pub const DOCUMENT_TIME_MAX: Duration = Duration::from_secs(120);
