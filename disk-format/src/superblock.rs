//! The superblock: who a disk is. Two copies in two files, so that one torn write never costs the disk.

use crate::FormatError;
use crate::field::{get, get_u16, get_u64, put};
use valv_types::{ClusterId, DiskId, NodeId};

/// Length of one copy in bytes: one page, so that common devices write it whole.
pub const SUPERBLOCK_LEN: usize = 4096;
/// The version this crate writes; also the version of the folder's layout.
pub const SUPERBLOCK_VERSION: u16 = 1;
/// Longest disk name in bytes: what a Linux file name can have.
pub const NAME_LEN_MAX: usize = 255;

const MAGIC: &[u8; 8] = b"VALVDISK";
const AT_VERSION: usize = 8;
const AT_SEQUENCE: usize = 16;
const AT_CLUSTER: usize = 24;
const AT_NODE: usize = 40;
const AT_DISK: usize = 56;
const AT_FORMATTED: usize = 72;
const AT_OPENED: usize = 88;
const AT_NAME_LEN: usize = 96;
const AT_NAME: usize = 98;
const AT_CRC: usize = SUPERBLOCK_LEN - 4;

/// Who a disk is and how often it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// Grows with each rewrite; of two valid copies the one with the higher sequence holds.
    pub sequence: u64,
    /// The cluster.
    pub cluster: ClusterId,
    /// The node that initialised the disk. Disks may move between nodes, so it is no reason to refuse one.
    pub node: NodeId,
    /// The disk.
    pub disk: DiskId,
    /// Random value given when the folder was initialised.
    pub formatted: [u8; 16],
    /// Grows each time the folder is opened: microseconds since 1970, or one more than before if the clock ran back.
    pub opened: u64,
    /// A name for people, at most [`NAME_LEN_MAX`] bytes of UTF-8.
    pub name: String,
}

impl Superblock {
    /// The bytes of one copy. A name that is too long is an error.
    pub fn encode(&self) -> Result<[u8; SUPERBLOCK_LEN], FormatError> {
        if self.name.len() > NAME_LEN_MAX {
            return Err(FormatError::Field("name"));
        }
        let mut out = [0; SUPERBLOCK_LEN];
        put(&mut out, 0, MAGIC);
        put(&mut out, AT_VERSION, &SUPERBLOCK_VERSION.to_be_bytes());
        put(&mut out, AT_SEQUENCE, &self.sequence.to_be_bytes());
        put(&mut out, AT_CLUSTER, self.cluster.as_bytes());
        put(&mut out, AT_NODE, self.node.as_bytes());
        put(&mut out, AT_DISK, self.disk.as_bytes());
        put(&mut out, AT_FORMATTED, &self.formatted);
        put(&mut out, AT_OPENED, &self.opened.to_be_bytes());
        // At most 255, checked above.
        put(&mut out, AT_NAME_LEN, &(self.name.len() as u16).to_be_bytes());
        put(&mut out, AT_NAME, self.name.as_bytes());
        let crc = crc32c::crc32c(&out[..AT_CRC]);
        put(&mut out, AT_CRC, &crc.to_be_bytes());
        Ok(out)
    }

    /// Reads one copy.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let bytes = bytes.get(..SUPERBLOCK_LEN).ok_or(FormatError::Short)?;
        if &bytes[..8] != MAGIC {
            return Err(FormatError::Magic);
        }
        if get::<4>(bytes, AT_CRC) != crc32c::crc32c(&bytes[..AT_CRC]).to_be_bytes() {
            return Err(FormatError::Checksum);
        }
        match get_u16(bytes, AT_VERSION) {
            SUPERBLOCK_VERSION => {}
            other => return Err(FormatError::Version(other)),
        }
        let name_len = usize::from(get_u16(bytes, AT_NAME_LEN));
        if name_len > NAME_LEN_MAX {
            return Err(FormatError::Field("name length"));
        }
        let name = std::str::from_utf8(&bytes[AT_NAME..AT_NAME + name_len]).map_err(|_| FormatError::Field("name"))?;
        Ok(Self {
            sequence: get_u64(bytes, AT_SEQUENCE),
            cluster: ClusterId::from_bytes(get(bytes, AT_CLUSTER)),
            node: NodeId::from_bytes(get(bytes, AT_NODE)),
            disk: DiskId::from_bytes(get(bytes, AT_DISK)),
            formatted: get(bytes, AT_FORMATTED),
            opened: get_u64(bytes, AT_OPENED),
            name: name.to_owned(),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Superblock {
        Superblock {
            sequence: 0x0102_0304_0506_0708,
            cluster: ClusterId::from_bytes([0xc1; 16]),
            node: NodeId::from_bytes([0xa0; 16]),
            disk: DiskId::from_bytes([0xd1; 16]),
            formatted: [0xf0; 16],
            opened: 0x1112_1314_1516_1718,
            name: "disk-1".to_owned(),
        }
    }

    /// Version 1, golden: never regenerate.
    #[test]
    fn version_1_keeps_its_bytes() {
        let bytes = sample().encode().unwrap();
        let head = concat!(
            "56414c564449534b",
            "0001000000000000",
            "0102030405060708",
            "c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1",
            "a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0",
            "d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1",
            "f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0",
            "1112131415161718",
            "0006",
            "6469736b2d31",
        );
        assert_eq!(hex::encode(&bytes[..104]), head);
        assert!(bytes[104..4092].iter().all(|b| *b == 0));
        assert_eq!(hex::encode(&bytes[4092..]), "3cec58a2");
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        assert_eq!(Superblock::decode(&sample().encode().unwrap()), Ok(sample()));
        let long = Superblock { name: "x".repeat(256), ..sample() };
        assert_eq!(long.encode(), Err(FormatError::Field("name")));
    }

    #[test]
    fn a_newer_version_is_named_and_not_guessed_at() {
        let mut bytes = sample().encode().unwrap();
        bytes[9] = 2;
        let crc = crc32c::crc32c(&bytes[..AT_CRC]);
        put(&mut bytes, AT_CRC, &crc.to_be_bytes());
        assert_eq!(Superblock::decode(&bytes), Err(FormatError::Version(2)));
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_noticed(bit in 0..SUPERBLOCK_LEN * 8) {
            let mut bytes = sample().encode().unwrap();
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Superblock::decode(&bytes).is_err());
        }

        #[test]
        fn arbitrary_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
            prop_assert!(Superblock::decode(&bytes).is_err());
        }
    }
}
