//! Erasure coding of chunks: systematic Reed-Solomon over GF(2^8), or plain copies where k is 1.
//!
//! This crate turns k equally long pieces into m more, and any k of the k+m back into the rest. It must never know
//! where pieces lie, what is in them, or whether they are right: it repeats whatever garbage it is given, so callers
//! verify first.
//!
//! The code is specified, byte for byte, in `docs/format-erasure.md`.

mod codec;
mod cpu;
mod matrix;

pub use codec::{ErasureError, encode, encode_in_place, reconstruct, reconstruct_some};
pub use cpu::{CpuUnsupported, check_cpu};
