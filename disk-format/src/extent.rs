//! The extent header: which extent of which disk a file is.

use crate::FormatError;
use crate::field::{get, get_u16, get_u64, put};
use std::fmt;
use valv_types::{ClusterId, DiskId};

/// Length of the header in bytes; the first record starts here. One page, so that records of a page stay aligned.
pub const EXTENT_HEADER_LEN: u64 = 4096;
/// The version this crate writes.
pub const EXTENT_VERSION: u16 = 1;

const LEN: usize = EXTENT_HEADER_LEN as usize;
const MAGIC: &[u8; 8] = b"VALVEXTN";
const AT_VERSION: usize = 8;
const AT_EXTENT: usize = 16;
const AT_CLUSTER: usize = 24;
const AT_DISK: usize = 40;
const AT_SEQUENCE: usize = 56;
const AT_LEN: usize = 64;
const AT_CRC: usize = LEN - 4;

/// An extent of one disk. Ids grow and are never reused, not even when a file is recycled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ExtentId(pub u64);

impl fmt::Display for ExtentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What the first page of an extent says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtentHeader {
    /// The extent.
    pub extent: ExtentId,
    /// The cluster of its disk.
    pub cluster: ClusterId,
    /// Its disk.
    pub disk: DiskId,
    /// The sequence number that the disk would have given next when the extent was made.
    pub sequence: u64,
    /// Length that the file was given, header included. A file may be shorter: it is cut when it is sealed early.
    pub len_bytes: u64,
}

impl ExtentHeader {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; LEN] {
        let mut out = [0; LEN];
        put(&mut out, 0, MAGIC);
        put(&mut out, AT_VERSION, &EXTENT_VERSION.to_be_bytes());
        put(&mut out, AT_EXTENT, &self.extent.0.to_be_bytes());
        put(&mut out, AT_CLUSTER, self.cluster.as_bytes());
        put(&mut out, AT_DISK, self.disk.as_bytes());
        put(&mut out, AT_SEQUENCE, &self.sequence.to_be_bytes());
        put(&mut out, AT_LEN, &self.len_bytes.to_be_bytes());
        let crc = crc32c::crc32c(&out[..AT_CRC]);
        put(&mut out, AT_CRC, &crc.to_be_bytes());
        out
    }

    /// Reads a header.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let bytes = bytes.get(..LEN).ok_or(FormatError::Short)?;
        if &bytes[..8] != MAGIC {
            return Err(FormatError::Magic);
        }
        if get::<4>(bytes, AT_CRC) != crc32c::crc32c(&bytes[..AT_CRC]).to_be_bytes() {
            return Err(FormatError::Checksum);
        }
        match get_u16(bytes, AT_VERSION) {
            EXTENT_VERSION => {}
            other => return Err(FormatError::Version(other)),
        }
        Ok(Self {
            extent: ExtentId(get_u64(bytes, AT_EXTENT)),
            cluster: ClusterId::from_bytes(get(bytes, AT_CLUSTER)),
            disk: DiskId::from_bytes(get(bytes, AT_DISK)),
            sequence: get_u64(bytes, AT_SEQUENCE),
            len_bytes: get_u64(bytes, AT_LEN),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> ExtentHeader {
        ExtentHeader {
            extent: ExtentId(0x21),
            cluster: ClusterId::from_bytes([0xc1; 16]),
            disk: DiskId::from_bytes([0xd1; 16]),
            sequence: 0x0102_0304_0506_0708,
            len_bytes: 256 << 20,
        }
    }

    /// Version 1, golden: never regenerate.
    #[test]
    fn version_1_keeps_its_bytes() {
        let bytes = sample().encode();
        let head = concat!(
            "56414c564558544e",
            "0001000000000000",
            "0000000000000021",
            "c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1",
            "d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1",
            "0102030405060708",
            "0000000010000000",
        );
        assert_eq!(hex::encode(&bytes[..72]), head);
        assert!(bytes[72..4092].iter().all(|b| *b == 0));
        assert_eq!(hex::encode(&bytes[4092..]), "cfe60533");
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        assert_eq!(ExtentHeader::decode(&sample().encode()), Ok(sample()));
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_noticed(bit in 0..LEN * 8) {
            let mut bytes = sample().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(ExtentHeader::decode(&bytes).is_err());
        }
    }
}
