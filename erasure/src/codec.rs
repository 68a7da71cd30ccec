//! Encoding and reconstruction.

use crate::matrix::{Singular, invert, row_times};
use parking_lot::Mutex;
use reed_solomon_erasure::galois_8::{ReedSolomon, mul_slice, mul_slice_xor};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use valv_types::ChunkCoding;

/// Codecs kept per process. A cluster has one profile per pool, so a handful; a codec is about k x (k+m) bytes and the
/// library's own cache of at most 254 decode matrices of k x k bytes (which this crate does not use). When full, the
/// cache starts anew: a codec costs microseconds to make.
const CODECS_MAX: usize = 64;

/// Bytes of each piece worked on at a time during reconstruction, so that the sum stays in the first-level cache while
/// all k pieces are added to it.
const STRIP_LEN_BYTES: usize = 16 * 1024;

/// A call that cannot be carried out. All of them are mistakes of the caller, except that pieces may be too few.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ErasureError {
    /// k is 0, or k+m is beyond what GF(2^8) can code.
    #[error("cannot code {k}+{m}")]
    Profile {
        /// Data shards.
        k: u8,
        /// Parity shards.
        m: u8,
    },
    /// Not k data pieces, or not m parity pieces.
    #[error("{given} pieces where {needed} belong")]
    PieceCount {
        /// How many there were.
        given: usize,
        /// How many there should have been.
        needed: usize,
    },
    /// Pieces of different lengths, or of no length at all.
    #[error("pieces of different lengths")]
    PieceLength,
    /// Fewer than k pieces are present.
    #[error("{have} shards are present and {need} are needed")]
    TooFew {
        /// Distinct pieces given.
        have: usize,
        /// k.
        need: usize,
    },
    /// A shard index of k+m or more.
    #[error("no shard {index} in this coding")]
    Index {
        /// The index.
        index: u8,
    },
}

struct Codec {
    library: ReedSolomon,
    /// The whole coding matrix: k rows of the identity, then one row per parity shard.
    rows: Vec<Vec<u8>>,
}

type CodecsByProfile = HashMap<(u8, u8), Arc<Codec>>;

impl Codec {
    fn new(coding: ChunkCoding) -> Result<Self, ErasureError> {
        let error = ErasureError::Profile { k: coding.k, m: coding.m };
        let (k, m) = (usize::from(coding.k), usize::from(coding.m));
        let library = ReedSolomon::new(k, m).map_err(|_| error)?;
        // The library keeps its matrix to itself; coding the unit vectors writes it out, column by column.
        let unit: Vec<Vec<u8>> = (0..k).map(|i| (0..k).map(|j| u8::from(i == j)).collect()).collect();
        let mut parity = vec![vec![0; k]; m];
        library.encode_sep(&unit, &mut parity).map_err(|_| error)?;
        let rows = unit.into_iter().chain(parity).collect();
        Ok(Self { library, rows })
    }

    fn cached(coding: ChunkCoding) -> Result<Arc<Self>, ErasureError> {
        static CODECS: LazyLock<Mutex<CodecsByProfile>> = LazyLock::new(Mutex::default);
        if let Some(codec) = CODECS.lock().get(&(coding.k, coding.m)) {
            return Ok(Arc::clone(codec));
        }
        let codec = Arc::new(Self::new(coding)?);
        let mut codecs = CODECS.lock();
        if codecs.len() >= CODECS_MAX {
            codecs.clear();
        }
        codecs.insert((coding.k, coding.m), Arc::clone(&codec));
        Ok(codec)
    }
}

fn check_profile(coding: ChunkCoding) -> Result<(), ErasureError> {
    if coding.k == 0 || u16::from(coding.k) + u16::from(coding.m) > 255 {
        return Err(ErasureError::Profile { k: coding.k, m: coding.m });
    }
    Ok(())
}

fn check_count(given: usize, needed: u8) -> Result<(), ErasureError> {
    let needed = usize::from(needed);
    if given == needed { Ok(()) } else { Err(ErasureError::PieceCount { given, needed }) }
}

/// The common length of all pieces.
fn common_len(mut lens: impl Iterator<Item = usize>) -> Result<usize, ErasureError> {
    let first = lens.next().filter(|len| *len > 0).ok_or(ErasureError::PieceLength)?;
    if lens.all(|len| len == first) { Ok(first) } else { Err(ErasureError::PieceLength) }
}

/// Writes the m parity pieces for k data pieces. All must have one length, which is not 0.
pub fn encode(coding: ChunkCoding, data: &[&[u8]], parity: &mut [&mut [u8]]) -> Result<(), ErasureError> {
    check_profile(coding)?;
    check_count(data.len(), coding.k)?;
    check_count(parity.len(), coding.m)?;
    common_len(data.iter().map(|d| d.len()).chain(parity.iter().map(|p| p.len())))?;
    if coding.k == 1 {
        parity.iter_mut().for_each(|copy| copy.copy_from_slice(data[0]));
        return Ok(());
    }
    if coding.m == 0 {
        return Ok(());
    }
    Codec::cached(coding)?.library.encode_sep(data, parity).map_err(|_| ErasureError::PieceLength)
}

/// Writes the parity of a chunk whose k+m shards lie one after another in `shards`, each `shard_len_bytes` long.
pub fn encode_in_place(coding: ChunkCoding, shards: &mut [u8], shard_len_bytes: usize) -> Result<(), ErasureError> {
    check_profile(coding)?;
    if shard_len_bytes == 0 || shards.len() != shard_len_bytes * usize::from(coding.shards()) {
        return Err(ErasureError::PieceLength);
    }
    let (data, parity) = shards.split_at_mut(shard_len_bytes * usize::from(coding.k));
    let data: Vec<&[u8]> = data.chunks_exact(shard_len_bytes).collect();
    let mut parity: Vec<&mut [u8]> = parity.chunks_exact_mut(shard_len_bytes).collect();
    encode(coding, &data, &mut parity)
}

/// Works out the pieces in `wanted` from those in `present`: pairs of shard index and bytes, of which the first k
/// distinct ones are used.
///
/// Every byte of a shard depends only on the bytes at its own offset in the others, so all pieces may be the same range
/// of their shards. On error nothing in `wanted` is to be used.
pub fn reconstruct_some(
    coding: ChunkCoding,
    present: &[(u8, &[u8])],
    wanted: &mut [(u8, &mut [u8])],
) -> Result<(), ErasureError> {
    check_profile(coding)?;
    let known = |index: u8| if index < coding.shards() { Ok(()) } else { Err(ErasureError::Index { index }) };
    present.iter().try_for_each(|(index, _)| known(*index))?;
    wanted.iter().try_for_each(|(index, _)| known(*index))?;
    let need = usize::from(coding.k);
    let mut used: Vec<(u8, &[u8])> = Vec::with_capacity(need);
    for &(index, piece) in present {
        if used.len() < need && used.iter().all(|(other, _)| *other != index) {
            used.push((index, piece));
        }
    }
    if used.len() < need {
        return Err(ErasureError::TooFew { have: used.len(), need });
    }
    let len = common_len(used.iter().map(|(_, p)| p.len()).chain(wanted.iter().map(|(_, p)| p.len())))?;
    if coding.k == 1 {
        wanted.iter_mut().for_each(|(_, copy)| copy.copy_from_slice(used[0].1));
        return Ok(());
    }
    if coding.m == 0 {
        // All k are present, so a wanted one is among them.
        for (index, out) in wanted.iter_mut() {
            if let Some((_, piece)) = used.iter().find(|(there, _)| there == index) {
                out.copy_from_slice(piece);
            }
        }
        return Ok(());
    }
    let codec = Codec::cached(coding)?;
    // The pieces are `rows x data`; so data is `rows^-1 x pieces`, and shard w is `row(w) x rows^-1 x pieces`.
    let rows = used.iter().map(|(index, _)| codec.rows[usize::from(*index)].clone()).collect();
    let inverse = match invert(rows) {
        Ok(inverse) => inverse,
        Err(Singular) => unreachable!("any k rows of a systematic Vandermonde matrix are independent"),
    };
    for (index, out) in wanted.iter_mut() {
        let factors = row_times(&codec.rows[usize::from(*index)], &inverse);
        for start in (0..len).step_by(STRIP_LEN_BYTES) {
            let strip = start..len.min(start + STRIP_LEN_BYTES);
            let out = &mut out[strip.clone()];
            for (position, (factor, (_, piece))) in factors.iter().zip(&used).enumerate() {
                if position == 0 {
                    mul_slice(*factor, &piece[strip.clone()], out);
                } else {
                    mul_slice_xor(*factor, &piece[strip.clone()], out);
                }
            }
        }
    }
    Ok(())
}

/// Fills in every shard that is `None`. `shards` are all k+m, in order.
pub fn reconstruct(coding: ChunkCoding, shards: &mut [Option<Vec<u8>>]) -> Result<(), ErasureError> {
    check_profile(coding)?;
    check_count(shards.len(), coding.shards())?;
    let len = common_len(shards.iter().flatten().map(Vec::len))?;
    let mut made: Vec<(u8, Vec<u8>)> =
        (0..coding.shards()).filter(|i| shards[usize::from(*i)].is_none()).map(|i| (i, vec![0; len])).collect();
    let present: Vec<(u8, &[u8])> =
        (0..coding.shards()).zip(shards.iter()).filter_map(|(i, shard)| Some((i, shard.as_deref()?))).collect();
    let mut wanted: Vec<(u8, &mut [u8])> = made.iter_mut().map(|(i, bytes)| (*i, bytes.as_mut_slice())).collect();
    reconstruct_some(coding, &present, &mut wanted)?;
    for (index, bytes) in made {
        shards[usize::from(index)] = Some(bytes);
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "tests.rs"]
mod tests;
