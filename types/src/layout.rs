//! How a blob is cut into frames, chunks and shards. Pure arithmetic; a version record names its layout,
//! and no constant here is assumed for data that is already written.

use crate::PoolId;
use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// Plaintext in one frame of layout 1.
pub const FRAME_PLAIN_BYTES: u32 = 64 * 1024;
/// What the AEAD adds to a frame: its 16-byte tag.
pub const FRAME_TAG_BYTES: u32 = 16;
/// Frames in a full chunk of layout 1.
pub const FRAMES_PER_CHUNK: u32 = 128;
/// Shards are padded with zeros to a multiple of this.
pub const SHARD_ALIGN_BYTES: u32 = 64;
/// The unit of verification: BLAKE3 is taken over blocks of this size, so that a range is verified alone.
pub const BLOCK_LEN_BYTES: u32 = 16 * 1024;
/// A last chunk of at most this much plaintext is stored as 1+m copies: k reads of a few KiB cost more than the space.
pub const REPLICATED_CHUNK_PLAIN_BYTES_MAX: u32 = 128 * 1024;
/// A body of at most this length travels sealed in the metadata commit.
pub const INLINE_LEN_BYTES_MAX: u32 = 16 * 1024;

/// Which AEAD seals the frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
pub enum AeadId {
    /// AES-256-GCM in the STREAM construction with key commitment.
    #[n(1)]
    Aes256GcmStream,
}

/// Which code makes the parity shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
pub enum ErasureCodeId {
    /// Systematic Reed-Solomon over GF(2^8), polynomial 0x11d, Vandermonde matrix made systematic.
    #[n(1)]
    ReedSolomonVandermonde,
}

/// Which hash covers the blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
pub enum HashId {
    /// BLAKE3, 32 bytes.
    #[n(1)]
    Blake3,
}

/// Everything a reader needs to know to turn shards back into a body. Stored in every version record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
pub struct Layout {
    /// The pool whose placement groups hold the shards.
    #[n(0)]
    pub pool: PoolId,
    /// Data shards of a full chunk.
    #[n(1)]
    pub k: u8,
    /// Parity shards.
    #[n(2)]
    pub m: u8,
    /// Plaintext bytes in a frame.
    #[n(3)]
    pub frame_plain_bytes: u32,
    /// Frames in a full chunk.
    #[n(4)]
    pub frames_per_chunk: u32,
    /// A last chunk of at most this many plaintext bytes is coded 1+m.
    #[n(5)]
    pub replicated_plain_bytes_max: u32,
    /// Block length for verification.
    #[n(6)]
    pub block_len_bytes: u32,
    /// The frames' AEAD.
    #[n(7)]
    pub aead: AeadId,
    /// The parity code.
    #[n(8)]
    pub erasure_code: ErasureCodeId,
    /// The blocks' hash.
    #[n(9)]
    pub hash: HashId,
}

/// A layout that nobody should write with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// k is 0, or k+m is beyond what GF(2^8) can code.
    #[error("an erasure profile needs 1 <= k and k+m <= 255, not {k}+{m}")]
    Profile {
        /// Data shards asked for.
        k: u8,
        /// Parity shards asked for.
        m: u8,
    },
    /// A size of zero, or sizes whose product does not fit.
    #[error("frame, chunk and block sizes must be positive and a chunk at most 1 GiB")]
    Sizes,
}

/// How one chunk is coded: full chunks k+m, a short last chunk 1+m.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkCoding {
    /// Data shards.
    pub k: u8,
    /// Parity shards.
    pub m: u8,
}

impl ChunkCoding {
    /// All shards, k+m.
    pub const fn shards(self) -> u8 {
        self.k + self.m
    }
}

/// One chunk of a blob: which plaintext it holds and how long its pieces are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkGeometry {
    /// The chunk's index within its blob.
    pub index: u32,
    /// Offset of the chunk's first plaintext byte within the blob.
    pub plain_offset: u64,
    /// Plaintext bytes in the chunk.
    pub plain_len_bytes: u32,
    /// Bytes after sealing: plaintext and one tag per frame.
    pub sealed_len_bytes: u32,
    /// Length of each shard: ceil(sealed / k), rounded up to 64 bytes.
    pub shard_len_bytes: u32,
    /// How the chunk is coded.
    pub coding: ChunkCoding,
}

impl Layout {
    /// The layout that new data is written with in `pool`.
    pub fn current(pool: PoolId, k: u8, m: u8) -> Result<Self, LayoutError> {
        if k == 0 || u16::from(k) + u16::from(m) > 255 {
            return Err(LayoutError::Profile { k, m });
        }
        Ok(Self {
            pool,
            k,
            m,
            frame_plain_bytes: FRAME_PLAIN_BYTES,
            frames_per_chunk: FRAMES_PER_CHUNK,
            replicated_plain_bytes_max: REPLICATED_CHUNK_PLAIN_BYTES_MAX,
            block_len_bytes: BLOCK_LEN_BYTES,
            aead: AeadId::Aes256GcmStream,
            erasure_code: ErasureCodeId::ReedSolomonVandermonde,
            hash: HashId::Blake3,
        })
    }

    /// Checks a layout that came from outside, so that the arithmetic below cannot overflow or divide by zero.
    pub fn check(&self) -> Result<(), LayoutError> {
        if self.k == 0 || u16::from(self.k) + u16::from(self.m) > 255 {
            return Err(LayoutError::Profile { k: self.k, m: self.m });
        }
        let chunk = u64::from(self.frame_plain_bytes) * u64::from(self.frames_per_chunk);
        if chunk == 0 || chunk > 1 << 30 || self.block_len_bytes == 0 {
            return Err(LayoutError::Sizes);
        }
        Ok(())
    }

    /// Slots of a placement group of this layout's pool: k+m.
    pub const fn slots(&self) -> u8 {
        self.k + self.m
    }

    /// Plaintext bytes in a full chunk.
    pub const fn chunk_plain_bytes(&self) -> u32 {
        self.frame_plain_bytes * self.frames_per_chunk
    }

    /// Sealed bytes in a full frame.
    pub const fn frame_sealed_bytes(&self) -> u32 {
        self.frame_plain_bytes + FRAME_TAG_BYTES
    }

    /// Chunks of a blob of `plain_len_bytes`. An empty blob has none.
    pub const fn chunk_count(&self, plain_len_bytes: u64) -> u32 {
        plain_len_bytes.div_ceil(self.chunk_plain_bytes() as u64) as u32
    }

    /// Frames of a blob of `plain_len_bytes`. An empty blob has none.
    pub const fn frame_count(&self, plain_len_bytes: u64) -> u32 {
        plain_len_bytes.div_ceil(self.frame_plain_bytes as u64) as u32
    }

    /// The geometry of chunk `index` in a blob of `plain_len_bytes`, or `None` past its end.
    pub fn chunk(&self, plain_len_bytes: u64, index: u32) -> Option<ChunkGeometry> {
        let full = u64::from(self.chunk_plain_bytes());
        let plain_offset = u64::from(index) * full;
        if plain_offset >= plain_len_bytes {
            return None;
        }
        let plain = (plain_len_bytes - plain_offset).min(full) as u32;
        let is_last = plain_offset + u64::from(plain) == plain_len_bytes;
        let replicated = is_last && plain <= self.replicated_plain_bytes_max;
        let coding = ChunkCoding { k: if replicated { 1 } else { self.k }, m: self.m };
        Some(self.geometry(index, plain_offset, plain, coding))
    }

    /// The geometry of a chunk whose plaintext length and coding are known already.
    fn geometry(&self, index: u32, plain_offset: u64, plain_len_bytes: u32, coding: ChunkCoding) -> ChunkGeometry {
        let frames = plain_len_bytes.div_ceil(self.frame_plain_bytes);
        let sealed_len_bytes = plain_len_bytes + frames * FRAME_TAG_BYTES;
        let shard_len_bytes = sealed_len_bytes.div_ceil(u32::from(coding.k)).next_multiple_of(SHARD_ALIGN_BYTES);
        ChunkGeometry { index, plain_offset, plain_len_bytes, sealed_len_bytes, shard_len_bytes, coding }
    }

    /// Every chunk of a blob, in order.
    pub fn chunks(&self, plain_len_bytes: u64) -> impl Iterator<Item = ChunkGeometry> + '_ {
        (0..self.chunk_count(plain_len_bytes)).filter_map(move |index| self.chunk(plain_len_bytes, index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn four_plus_two() -> Layout {
        Layout::current(PoolId(1), 4, 2).unwrap()
    }

    #[test]
    fn a_full_chunk_has_the_sizes_that_the_architecture_states() {
        let chunk = four_plus_two().chunk(1 << 30, 0).unwrap();
        assert_eq!(chunk.sealed_len_bytes, 8_390_656);
        assert_eq!(chunk.shard_len_bytes, 2_097_664);
        assert_eq!(chunk.coding, ChunkCoding { k: 4, m: 2 });
        assert_eq!(four_plus_two().frame_sealed_bytes(), 65_552);
    }

    #[test]
    fn a_short_last_chunk_is_copied_and_a_longer_one_is_coded() {
        let layout = four_plus_two();
        assert_eq!(layout.chunk(131_072, 0).unwrap().coding.k, 1);
        assert_eq!(layout.chunk(131_073, 0).unwrap().coding.k, 4);
        let tail = layout.chunk(8 * 1024 * 1024 + 1, 1).unwrap();
        assert_eq!((tail.plain_len_bytes, tail.sealed_len_bytes, tail.shard_len_bytes), (1, 17, 64));
    }

    #[test]
    fn an_empty_blob_has_no_chunks() {
        assert_eq!(four_plus_two().chunk_count(0), 0);
        assert_eq!(four_plus_two().chunk(0, 0), None);
    }

    proptest! {
        #[test]
        fn chunks_cover_the_blob_without_gap_or_overlap(len in 0u64..100_000_000, k in 1u8..20, m in 0u8..8) {
            let layout = Layout::current(PoolId(1), k, m).unwrap();
            let mut next = 0;
            for chunk in layout.chunks(len) {
                prop_assert_eq!(chunk.plain_offset, next);
                prop_assert!(u64::from(chunk.shard_len_bytes) * u64::from(chunk.coding.k) >= u64::from(chunk.sealed_len_bytes));
                next += u64::from(chunk.plain_len_bytes);
            }
            prop_assert_eq!(next, len);
        }
    }
}
