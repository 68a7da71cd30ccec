//! The record: one put, delete or seal. Header, table of block hashes, payload, zeros up to 64 bytes.

use crate::field::{get, get_u32, get_u64, put};
use crate::{ExtentId, FormatError};
use valv_types::{BLOCK_LEN_BYTES, ShardKey};

/// Length of the header in bytes.
pub const RECORD_HEADER_LEN: usize = 128;
/// Every record starts at a multiple of this, so that a reader can find the next one behind a damaged header.
pub const RECORD_ALIGN: u64 = 64;
/// Length of one block's hash in bytes (BLAKE3).
pub const HASH_LEN: usize = 32;
/// What a header starts with.
pub const RECORD_MAGIC: &[u8; 4] = b"VREC";
/// The version this crate writes.
pub const RECORD_VERSION: u8 = 1;

const AT_VERSION: usize = 4;
const AT_KIND: usize = 5;
const AT_CODEC: usize = 6;
const AT_EXTENT: usize = 8;
const AT_OFFSET: usize = 16;
const AT_SEQUENCE: usize = 24;
const AT_DURABLE_EXTENT: usize = 32;
const AT_DURABLE_OFFSET: usize = 40;
const AT_KEY: usize = 48;
const AT_GENERATION: usize = 84;
const AT_PAYLOAD_LEN: usize = 88;
const AT_BLOCK_LEN: usize = 92;
const AT_HIDES_FIRST: usize = 96;
const AT_HIDES_LAST: usize = 104;
const AT_TABLE_CRC: usize = 120;
const AT_CRC: usize = 124;

const KIND_PUT: u8 = 1;
const KIND_DELETE: u8 = 2;
const KIND_SEAL: u8 = 3;

/// A place on a disk. Later extents come after earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// The extent.
    pub extent: ExtentId,
    /// Offset in bytes from the start of the extent's file.
    pub offset: u64,
}

/// The extents, first and last included, that may hold puts which a delete hides. Once none of them is left, the
/// delete has nothing to hide and may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HiddenExtents {
    /// The first.
    pub first: ExtentId,
    /// The last.
    pub last: ExtentId,
}

/// What a record does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordBody {
    /// Stores a shard.
    Put {
        /// Its key.
        key: ShardKey,
        /// Its generation.
        generation: u32,
        /// Its codec id.
        codec: u8,
        /// Its payload's length in bytes.
        len_bytes: u32,
        /// CRC32C of the table of block hashes.
        table_crc: u32,
    },
    /// Removes a shard.
    Delete {
        /// Its key.
        key: ShardKey,
        /// Where the puts may lie that this hides.
        hides: HiddenExtents,
    },
    /// Nothing follows in this extent.
    Seal,
}

/// The header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// Where the record was written; a header found elsewhere is not one.
    pub position: Position,
    /// Its place in the disk's history: of two records of one key the later holds. A record that is moved keeps it.
    pub sequence: u64,
    /// Everything before this was durable when the record was written.
    pub durable: Position,
    /// What it does.
    pub body: RecordBody,
}

/// How many blocks a payload has.
pub const fn blocks_of(payload_len_bytes: u32) -> usize {
    payload_len_bytes.div_ceil(BLOCK_LEN_BYTES) as usize
}

/// Length in bytes of the table of block hashes.
pub const fn table_len(payload_len_bytes: u32) -> usize {
    blocks_of(payload_len_bytes) * HASH_LEN
}

/// Length in bytes of a whole record with this payload, padding included.
pub const fn record_len(payload_len_bytes: u32) -> u64 {
    let len = RECORD_HEADER_LEN as u64 + table_len(payload_len_bytes) as u64 + payload_len_bytes as u64;
    len.next_multiple_of(RECORD_ALIGN)
}

/// The checksum of a table of block hashes, as it stands in the header of its record.
pub fn table_crc(table: &[u8]) -> u32 {
    crc32c::crc32c(table)
}

impl RecordHeader {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; RECORD_HEADER_LEN] {
        let mut out = [0; RECORD_HEADER_LEN];
        put(&mut out, 0, RECORD_MAGIC);
        out[AT_VERSION] = RECORD_VERSION;
        put(&mut out, AT_EXTENT, &self.position.extent.0.to_be_bytes());
        put(&mut out, AT_OFFSET, &self.position.offset.to_be_bytes());
        put(&mut out, AT_SEQUENCE, &self.sequence.to_be_bytes());
        put(&mut out, AT_DURABLE_EXTENT, &self.durable.extent.0.to_be_bytes());
        put(&mut out, AT_DURABLE_OFFSET, &self.durable.offset.to_be_bytes());
        match &self.body {
            RecordBody::Put { key, generation, codec, len_bytes, table_crc } => {
                out[AT_KIND] = KIND_PUT;
                out[AT_CODEC] = *codec;
                put(&mut out, AT_KEY, &key.encode());
                put(&mut out, AT_GENERATION, &generation.to_be_bytes());
                put(&mut out, AT_PAYLOAD_LEN, &len_bytes.to_be_bytes());
                put(&mut out, AT_BLOCK_LEN, &BLOCK_LEN_BYTES.to_be_bytes());
                put(&mut out, AT_TABLE_CRC, &table_crc.to_be_bytes());
            }
            RecordBody::Delete { key, hides } => {
                out[AT_KIND] = KIND_DELETE;
                put(&mut out, AT_KEY, &key.encode());
                put(&mut out, AT_HIDES_FIRST, &hides.first.0.to_be_bytes());
                put(&mut out, AT_HIDES_LAST, &hides.last.0.to_be_bytes());
            }
            RecordBody::Seal => out[AT_KIND] = KIND_SEAL,
        }
        let crc = crc32c::crc32c(&out[..AT_CRC]);
        put(&mut out, AT_CRC, &crc.to_be_bytes());
        out
    }

    /// Reads the header of a record that lies at `position`.
    pub fn decode(bytes: &[u8], position: Position) -> Result<Self, FormatError> {
        let bytes = bytes.get(..RECORD_HEADER_LEN).ok_or(FormatError::Short)?;
        if &bytes[..4] != RECORD_MAGIC {
            return Err(FormatError::Magic);
        }
        if get_u32(bytes, AT_CRC) != crc32c::crc32c(&bytes[..AT_CRC]) {
            return Err(FormatError::Checksum);
        }
        if bytes[AT_VERSION] != RECORD_VERSION {
            return Err(FormatError::Version(u16::from(bytes[AT_VERSION])));
        }
        let written = Position { extent: ExtentId(get_u64(bytes, AT_EXTENT)), offset: get_u64(bytes, AT_OFFSET) };
        if written != position {
            return Err(FormatError::Misplaced);
        }
        let key =
            || ShardKey::decode(&get::<{ ShardKey::ENCODED_LEN }>(bytes, AT_KEY)).ok_or(FormatError::Field("key"));
        let body = match bytes[AT_KIND] {
            KIND_PUT => {
                if get_u32(bytes, AT_BLOCK_LEN) != BLOCK_LEN_BYTES {
                    return Err(FormatError::Field("block length"));
                }
                RecordBody::Put {
                    key: key()?,
                    generation: get_u32(bytes, AT_GENERATION),
                    codec: bytes[AT_CODEC],
                    len_bytes: get_u32(bytes, AT_PAYLOAD_LEN),
                    table_crc: get_u32(bytes, AT_TABLE_CRC),
                }
            }
            KIND_DELETE => RecordBody::Delete {
                key: key()?,
                hides: HiddenExtents {
                    first: ExtentId(get_u64(bytes, AT_HIDES_FIRST)),
                    last: ExtentId(get_u64(bytes, AT_HIDES_LAST)),
                },
            },
            KIND_SEAL => RecordBody::Seal,
            _ => return Err(FormatError::Field("kind")),
        };
        Ok(Self {
            position: written,
            sequence: get_u64(bytes, AT_SEQUENCE),
            durable: Position {
                extent: ExtentId(get_u64(bytes, AT_DURABLE_EXTENT)),
                offset: get_u64(bytes, AT_DURABLE_OFFSET),
            },
            body,
        })
    }

    /// Length of the payload in bytes: 0 for all but puts.
    pub fn payload_len_bytes(&self) -> u32 {
        match self.body {
            RecordBody::Put { len_bytes, .. } => len_bytes,
            RecordBody::Delete { .. } | RecordBody::Seal => 0,
        }
    }

    /// Length of the whole record in bytes, padding included.
    pub fn record_len(&self) -> u64 {
        record_len(self.payload_len_bytes())
    }

    /// Whether `table` is the table of block hashes that was written with this header.
    pub fn check_table(&self, table: &[u8]) -> Result<(), FormatError> {
        let RecordBody::Put { len_bytes, table_crc, .. } = self.body else {
            return if table.is_empty() { Ok(()) } else { Err(FormatError::Field("table length")) };
        };
        if table.len() != table_len(len_bytes) {
            return Err(FormatError::Short);
        }
        if crc32c::crc32c(table) != table_crc {
            return Err(FormatError::Checksum);
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use valv_types::{BlobId, PoolId};

    fn key() -> ShardKey {
        ShardKey {
            pool: PoolId(1),
            placement: 0x1122_3344_5566_7788,
            blob: BlobId::from_bytes([0xb1; 16]),
            chunk: 9,
            shard: 5,
        }
    }

    fn at(offset: u64) -> Position {
        Position { extent: ExtentId(0x21), offset }
    }

    fn sample(body: RecordBody) -> RecordHeader {
        RecordHeader { position: at(0x1040), sequence: 0x0102_0304, durable: at(0x1000), body }
    }

    fn put_body() -> RecordBody {
        let table = [0xaa; 64];
        RecordBody::Put { key: key(), generation: 3, codec: 1, len_bytes: 20_000, table_crc: crc32c::crc32c(&table) }
    }

    fn delete_body() -> RecordBody {
        RecordBody::Delete { key: key(), hides: HiddenExtents { first: ExtentId(7), last: ExtentId(8) } }
    }

    /// Version 1, golden: never regenerate.
    #[test]
    fn version_1_keeps_its_bytes() {
        let cases = [
            (
                put_body(),
                concat!(
                    "5652454301010100000000000000002100000000000010400000000001020304",
                    "00000000000000210000000000001000000000011122334455667788b1b1b1b1",
                    "b1b1b1b1b1b1b1b1b1b1b1b100000009050000000000000300004e2000004000",
                    "0000000000000000000000000000000000000000000000003431d2992900ed5f"
                ),
            ),
            (
                delete_body(),
                concat!(
                    "5652454301020000000000000000002100000000000010400000000001020304",
                    "00000000000000210000000000001000000000011122334455667788b1b1b1b1",
                    "b1b1b1b1b1b1b1b1b1b1b1b10000000905000000000000000000000000000000",
                    "00000000000000070000000000000008000000000000000000000000773ac492"
                ),
            ),
            (
                RecordBody::Seal,
                concat!(
                    "5652454301030000000000000000002100000000000010400000000001020304",
                    "0000000000000021000000000000100000000000000000000000000000000000",
                    "0000000000000000000000000000000000000000000000000000000000000000",
                    "00000000000000000000000000000000000000000000000000000000718b8a2a"
                ),
            ),
        ];
        for (body, golden) in cases {
            assert_eq!(hex::encode(sample(body).encode()), golden, "{body:?}");
        }
    }

    #[test]
    fn what_was_encoded_is_decoded_in_its_place_only() {
        for body in [put_body(), delete_body(), RecordBody::Seal] {
            let header = sample(body);
            let bytes = header.encode();
            assert_eq!(RecordHeader::decode(&bytes, at(0x1040)), Ok(header));
            assert_eq!(RecordHeader::decode(&bytes, at(0x1080)), Err(FormatError::Misplaced));
            assert_eq!(RecordHeader::decode(&bytes[..127], at(0x1040)), Err(FormatError::Short));
        }
    }

    #[test]
    fn lengths_follow_from_the_payload() {
        let cases = [
            (0, 0, 128),
            (1, 32, 192),
            (32, 32, 192),
            (33, 32, 256),
            (16_384, 32, 16_576),
            (16_385, 64, 16_640),
            (u32::MAX, 8_388_608, 4_303_356_032),
        ];
        for (payload, table, record) in cases {
            assert_eq!((table_len(payload), record_len(payload)), (table, record), "{payload}");
        }
    }

    #[test]
    fn a_table_is_checked_as_a_whole() {
        let header = sample(put_body());
        assert_eq!(header.check_table(&[0xaa; 64]), Ok(()));
        assert_eq!(header.check_table(&[0xab; 64]), Err(FormatError::Checksum));
        assert_eq!(header.check_table(&[0xaa; 32]), Err(FormatError::Short));
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_noticed(bit in 0..RECORD_HEADER_LEN * 8) {
            let mut bytes = sample(put_body()).encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(RecordHeader::decode(&bytes, at(0x1040)).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_make_a_header_with_a_wrong_checksum(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
            magic in any::<bool>(),
            crc in any::<bool>(),
        ) {
            if magic && bytes.len() >= 4 {
                bytes[..4].copy_from_slice(RECORD_MAGIC);
            }
            if crc && bytes.len() >= RECORD_HEADER_LEN {
                let crc = crc32c::crc32c(&bytes[..AT_CRC]);
                put(&mut bytes, AT_CRC, &crc.to_be_bytes());
            }
            let result = RecordHeader::decode(&bytes, at(0x1040));
            if result.is_ok() {
                prop_assert_eq!(get_u32(&bytes, AT_CRC), crc32c::crc32c(&bytes[..AT_CRC]));
                prop_assert_eq!(&bytes[..4], RECORD_MAGIC);
            }
        }
    }
}
