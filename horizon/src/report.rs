//! Adding up pieces, one after the other, in memory that does not grow with their number.

use crate::{FOREVER, NEVER_GUARANTEED, ROWS_MAX, year_of};
use std::collections::{BTreeMap, HashMap};
use valv_types::{DiskId, ProjectId, TimestampMicros};

/// Until when disks are guaranteed. A disk that is not named never was.
#[derive(Debug, Clone, Default)]
pub struct Guarantees(HashMap<DiskId, TimestampMicros>);

impl Guarantees {
    /// The end of a disk's guarantee.
    pub fn end(&self, disk: DiskId) -> TimestampMicros {
        self.0.get(&disk).copied().unwrap_or(NEVER_GUARANTEED)
    }
}

impl FromIterator<(DiskId, TimestampMicros)> for Guarantees {
    fn from_iter<I: IntoIterator<Item = (DiskId, TimestampMicros)>>(ends: I) -> Self {
        Self(ends.into_iter().collect())
    }
}

/// The time that is looked at: what is uncovered at some moment from `now` to `by`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// What need not be kept any more by now is of no interest.
    pub now: TimestampMicros,
    /// The last moment of interest.
    pub by: TimestampMicros,
}

/// Data that stands and falls together: a chunk.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// Whose it is.
    pub project: ProjectId,
    /// Until when it has to be kept.
    pub keep_until: TimestampMicros,
    /// Its plaintext length.
    pub plain_bytes: u64,
    /// The disks that it lies on, each once.
    pub disks: &'a [DiskId],
    /// Bytes on each of them.
    pub shard_bytes: u64,
    /// How many of them may be lost.
    pub losses_max: usize,
}

/// What endangers bytes of a project from some year on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct YearView {
    /// Bytes whose redundancy begins to shrink in this year.
    pub shrinking_bytes: u64,
    /// Bytes that begin to be uncovered in this year.
    pub uncovered_bytes: u64,
}

/// A project, as far as it has something to be kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProjectView {
    /// Bytes that have to be kept at present.
    pub kept_bytes: u64,
    /// Of these, those whose redundancy shrinks within the window while they have to be kept.
    pub shrinking_bytes: u64,
    /// Of these, those that are not covered at some moment of the window at which they have to be kept.
    pub uncovered_bytes: u64,
    /// When the first bytes' redundancy begins to shrink.
    pub shrinking_from: Option<TimestampMicros>,
    /// When the first bytes begin to be uncovered.
    pub uncovered_from: Option<TimestampMicros>,
    /// Until when the last of the bytes that shrink or are uncovered has to be kept.
    pub keep_until: Option<TimestampMicros>,
    /// By the year in which it begins.
    pub years: BTreeMap<u16, YearView>,
}

/// What a disk's guarantee would have to be, for what lies on it and is endangered within the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskNeed {
    /// Bytes on it of pieces that would be uncovered without it.
    pub cover_bytes: u64,
    /// Until when it would have to be guaranteed so that they are covered.
    pub cover_until: Option<TimestampMicros>,
    /// Bytes on it of pieces whose redundancy shrinks, those above included.
    pub whole_bytes: u64,
    /// Until when it would have to be guaranteed so that no redundancy shrinks.
    pub whole_until: Option<TimestampMicros>,
}

/// Bytes of a project on a disk that have to be kept until some year, beyond the disk's guarantee.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Whose.
    pub project: ProjectId,
    /// Where.
    pub disk: DiskId,
    /// The year until which they have to be kept; `None`: several, because there were too many rows.
    pub year: Option<u16>,
    /// Bytes on the disk.
    pub shard_bytes: u64,
    /// Of these, those of pieces that are not covered.
    pub uncovered_shard_bytes: u64,
    /// Until when the last of them has to be kept.
    pub keep_until: TimestampMicros,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Every project that has something to be kept.
    pub projects: BTreeMap<ProjectId, ProjectView>,
    /// Every disk whose guarantee ends too early for something that is endangered within the window.
    pub disks: BTreeMap<DiskId, DiskNeed>,
    /// The same by project, disk and year.
    pub rows: Vec<Row>,
}

impl Report {
    /// Uncovered bytes of all projects.
    pub fn uncovered_bytes(&self) -> u64 {
        self.projects.values().fold(0, |sum, project| sum.saturating_add(project.uncovered_bytes))
    }

    /// Bytes of all projects whose redundancy shrinks.
    pub fn shrinking_bytes(&self) -> u64 {
        self.projects.values().fold(0, |sum, project| sum.saturating_add(project.shrinking_bytes))
    }
}

#[derive(Debug, Clone, Copy)]
struct Sum {
    shard_bytes: u64,
    uncovered_shard_bytes: u64,
    keep_until: TimestampMicros,
}

/// Adds pieces up. Memory: one entry a project, one a disk, and at most [`ROWS_MAX`] rows besides one for each project on
/// each disk.
#[derive(Debug)]
pub struct Horizon {
    window: Window,
    guarantees: Guarantees,
    report: Report,
    rows: BTreeMap<(ProjectId, DiskId, Option<u16>), Sum>,
    /// The disks of the piece at hand, the one whose guarantee ends first in front.
    ends: Vec<(TimestampMicros, DiskId)>,
}

impl Horizon {
    /// Nothing added yet.
    pub fn new(window: Window, guarantees: Guarantees) -> Self {
        Self { window, guarantees, report: Report::default(), rows: BTreeMap::new(), ends: Vec::new() }
    }

    /// Adds a piece. One that need not be kept any more, or lies nowhere, changes nothing.
    pub fn add(&mut self, piece: Piece<'_>) {
        let Window { now, by } = self.window;
        let keep_until = piece.keep_until;
        if keep_until <= now || piece.disks.is_empty() {
            return;
        }
        let mut ends = std::mem::take(&mut self.ends);
        ends.clear();
        ends.extend(piece.disks.iter().map(|disk| (self.guarantees.end(*disk), *disk)));
        // Ties by id: pieces that share disks then ask for the same ones to be prolonged.
        ends.sort_unstable();
        let last_needed = piece.losses_max.min(ends.len() - 1);
        // A gap that began long ago is one that is there now.
        let begins = |end: TimestampMicros| end.max(now);
        let is_gap = |end: TimestampMicros| begins(end) <= by && end < keep_until;
        let (first_end, cover_end) = (ends[0].0, ends[last_needed].0);
        let (shrinks, uncovered) = (is_gap(first_end), is_gap(cover_end));

        let project = self.report.projects.entry(piece.project).or_default();
        let add = |sum: &mut u64| *sum = sum.saturating_add(piece.plain_bytes);
        add(&mut project.kept_bytes);
        if shrinks {
            let from = begins(first_end);
            add(&mut project.shrinking_bytes);
            add(&mut project.years.entry(year_of(from)).or_default().shrinking_bytes);
            project.shrinking_from = Some(project.shrinking_from.map_or(from, |known| known.min(from)));
            project.keep_until = project.keep_until.max(Some(keep_until));
        }
        if uncovered {
            let from = begins(cover_end);
            add(&mut project.uncovered_bytes);
            add(&mut project.years.entry(year_of(from)).or_default().uncovered_bytes);
            project.uncovered_from = Some(project.uncovered_from.map_or(from, |known| known.min(from)));
        }
        if shrinks {
            for (place, (end, disk)) in ends.iter().enumerate() {
                if *end >= keep_until {
                    break;
                }
                // To be covered, all disks but the `losses_max` that end first have to last.
                self.need(*disk, &piece, uncovered && place >= last_needed);
                self.row(*disk, &piece, uncovered);
            }
        }
        self.ends = ends;
    }

    fn need(&mut self, disk: DiskId, piece: &Piece<'_>, for_cover: bool) {
        let need = self.report.disks.entry(disk).or_default();
        need.whole_bytes = need.whole_bytes.saturating_add(piece.shard_bytes);
        need.whole_until = need.whole_until.max(Some(piece.keep_until));
        if for_cover {
            need.cover_bytes = need.cover_bytes.saturating_add(piece.shard_bytes);
            need.cover_until = need.cover_until.max(Some(piece.keep_until));
        }
    }

    fn row(&mut self, disk: DiskId, piece: &Piece<'_>, uncovered: bool) {
        let mut key = (piece.project, disk, Some(year_of(piece.keep_until)));
        if self.rows.len() >= ROWS_MAX && !self.rows.contains_key(&key) {
            key.2 = None;
        }
        let none = Sum { shard_bytes: 0, uncovered_shard_bytes: 0, keep_until: piece.keep_until };
        let sum = self.rows.entry(key).or_insert(none);
        sum.shard_bytes = sum.shard_bytes.saturating_add(piece.shard_bytes);
        if uncovered {
            sum.uncovered_shard_bytes = sum.uncovered_shard_bytes.saturating_add(piece.shard_bytes);
        }
        sum.keep_until = sum.keep_until.max(piece.keep_until);
    }

    /// What was found.
    pub fn finish(self) -> Report {
        let mut report = self.report;
        let row = |((project, disk, year), sum): ((ProjectId, DiskId, Option<u16>), Sum)| Row {
            project,
            disk,
            year,
            shard_bytes: sum.shard_bytes,
            uncovered_shard_bytes: sum.uncovered_shard_bytes,
            keep_until: sum.keep_until,
        };
        report.rows = self.rows.into_iter().map(row).collect();
        report
    }
}

/// Whether something is kept until nobody knows when.
pub(crate) fn is_forever(until: TimestampMicros) -> bool {
    until == FOREVER
}
