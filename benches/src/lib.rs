//! Inputs that the benchmarks and the limit program share. Measures Valv's own code; nothing depends on this crate.

use valv_types::{ChunkGeometry, Layout, LayoutError, PoolId};

/// The geometry of a full 4+2 chunk, the unit of most measurements.
pub fn full_chunk() -> Result<(Layout, ChunkGeometry), LayoutError> {
    let layout = Layout::current(PoolId(1), 4, 2)?;
    let len_bytes = u64::from(layout.chunk_plain_bytes());
    match layout.chunk(len_bytes, 0) {
        Some(chunk) => Ok((layout, chunk)),
        None => unreachable!("a blob of one chunk has a chunk"),
    }
}

/// Bytes that do not compress and are the same in every run.
pub fn noise(len_bytes: usize) -> Vec<u8> {
    let mut block = *blake3::hash(b"valv benchmark").as_bytes();
    let mut out = Vec::with_capacity(len_bytes + block.len());
    while out.len() < len_bytes {
        block = *blake3::hash(&block).as_bytes();
        out.extend_from_slice(&block);
    }
    out.truncate(len_bytes);
    out
}
