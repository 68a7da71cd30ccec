//! What would cover what is not covered: a guarantee prolonged, or bytes moved to disks that are guaranteed for long enough.

use crate::Report;
use crate::report::is_forever;
use valv_types::{CustodianId, DiskId, TimestampMicros};

/// What is known of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskFacts {
    /// The disk.
    pub disk: DiskId,
    /// Who runs it.
    pub custodian: Option<CustodianId>,
    /// Until when it is guaranteed.
    pub guaranteed_until: TimestampMicros,
    /// Bytes that new shards may still take; 0 if nobody knows.
    pub free_bytes: u64,
}

/// Bytes that could go to a custodian's disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// Whose disk.
    pub custodian: Option<CustodianId>,
    /// Which.
    pub disk: DiskId,
    /// How much.
    pub bytes: u64,
}

/// A disk whose guarantee ends too early, and the two ways out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remedy {
    /// The disk.
    pub disk: DiskId,
    /// Prolong its guarantee to this; [`crate::FOREVER`] for as long as a legal hold stands.
    pub extend_to: TimestampMicros,
    /// Or move this much of what lies on it ...
    pub move_bytes: u64,
    /// ... to these disks, which are guaranteed for long enough ...
    pub moves: Vec<Move>,
    /// ... as far as they have room. For this much there is no such disk.
    pub unplaced_bytes: u64,
}

/// One remedy for each disk without which something is not covered, the one that needs the longest guarantee first. Prolonging all
/// of them covers everything that the report calls uncovered; so does moving all of the bytes. What is free is shared out
/// once, to the disks whose guarantee is the shortest that suffices, and not on a disk that needs a remedy itself. That the
/// shards of one chunk lie on different disks is the placement's concern when they are really moved.
pub fn remedies(report: &Report, disks: &[DiskFacts]) -> Vec<Remedy> {
    let mut targets: Vec<DiskFacts> = disks.to_vec();
    targets.sort_by_key(|target| (target.guaranteed_until, target.disk));
    let mut needs: Vec<(TimestampMicros, DiskId, u64)> =
        report.disks.iter().filter_map(|(disk, need)| Some((need.cover_until?, *disk, need.cover_bytes))).collect();
    // The longest first: it has the fewest disks to go to.
    needs.sort_by_key(|(until, disk, _)| (std::cmp::Reverse(*until), *disk));
    let in_need: Vec<DiskId> = needs.iter().map(|(_, disk, _)| *disk).collect();
    targets.retain(|target| !in_need.contains(&target.disk));
    let remedy = |(extend_to, disk, move_bytes): (TimestampMicros, DiskId, u64)| {
        let (mut left, mut moves) = (move_bytes, Vec::new());
        let enough = |target: &&mut DiskFacts| !is_forever(extend_to) && target.guaranteed_until >= extend_to;
        for target in targets.iter_mut().filter(enough) {
            let bytes = left.min(target.free_bytes);
            if bytes > 0 {
                target.free_bytes -= bytes;
                left -= bytes;
                moves.push(Move { custodian: target.custodian, disk: target.disk, bytes });
            }
        }
        Remedy { disk, extend_to, move_bytes, moves, unplaced_bytes: left }
    };
    needs.into_iter().map(remedy).collect()
}
