//! The horizon: which bytes have to be kept for longer than the hardware under them is guaranteed, and what would cover them.
//!
//! This crate exists so that the answer is a pure function of three things: what must be kept until when, on which disks it
//! lies, and until when each disk is guaranteed. It must never know rows, keys, RPC or a clock.
//!
//! A piece of data lies on n disks and outlives the loss of any m of them. A disk counts as lost from the end of its
//! guarantee on. So there are two levels: from the first end on the piece's **redundancy shrinks**, and from the end after
//! which more than m disks are out of guarantee it is **not covered**: nobody has promised that it can still be read.
//! Both only matter while the piece has to be kept.

mod civil;
mod remedy;
mod report;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use civil::year_of;
pub use remedy::{DiskFacts, Move, Remedy, remedies};
pub use report::{DiskNeed, Guarantees, Horizon, Piece, ProjectView, Report, Row, Window, YearView};

use valv_types::TimestampMicros;

/// What has to be kept for as long as nobody decides otherwise (a legal hold) is kept until this.
pub const FOREVER: TimestampMicros = TimestampMicros(u64::MAX);

/// When a disk's guarantee has ended that was never given.
pub const NEVER_GUARANTEED: TimestampMicros = TimestampMicros(0);

/// Most rows of a report (project, disk, year): some 100 bytes each, so 20 MiB. Beyond that the years of a project on a disk
/// are one row.
pub const ROWS_MAX: usize = 200_000;
