//! The bytes of a Valv disk: superblock, extent header and record, written and read without any I/O.
//!
//! This crate exists so that what lies on a disk for decades is defined in one place; `docs/format-disk.md` says the
//! same for people. It must never know files, RocksDB, the shard API, or what is inside a shard. All integers are
//! big-endian. Every reader takes arbitrary bytes: what is not exactly right is an error, never a panic.

mod extent;
mod field;
mod record;
mod superblock;

pub use extent::{EXTENT_HEADER_LEN, EXTENT_VERSION, ExtentHeader, ExtentId};
pub use record::{
    HASH_LEN, HiddenExtents, Position, RECORD_ALIGN, RECORD_HEADER_LEN, RECORD_MAGIC, RECORD_VERSION, RecordBody,
    RecordHeader, blocks_of, record_len, table_crc, table_len,
};
pub use superblock::{NAME_LEN_MAX, SUPERBLOCK_LEN, SUPERBLOCK_VERSION, Superblock};

/// Why bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Fewer bytes than the structure has.
    #[error("cut short")]
    Short,
    /// The magic number is another one: most likely there never was such a structure here.
    #[error("no magic number")]
    Magic,
    /// The checksum does not match.
    #[error("checksum mismatch")]
    Checksum,
    /// Intact, but written by a version that this one can't read.
    #[error("format version {0} is unknown to this program")]
    Version(u16),
    /// Intact, but written for another place: a misdirected write, or what a recycled file held before.
    #[error("belongs to another place")]
    Misplaced,
    /// Intact, but a field holds what no writer writes.
    #[error("field {0} is out of range")]
    Field(&'static str),
}
