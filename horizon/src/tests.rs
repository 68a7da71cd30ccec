//! The report against its definition, moment by moment; and that what is proposed really covers.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use valv_types::{CustodianId, DiskId, ProjectId};

fn disk(n: u8) -> DiskId {
    DiskId::from_bytes([n; 16])
}

fn project(n: u8) -> ProjectId {
    ProjectId::from_bytes([n; 16])
}

/// A piece that owns its disks.
#[derive(Debug, Clone)]
struct Owned {
    project: u8,
    keep_until: u64,
    bytes: u64,
    disks: Vec<DiskId>,
    losses_max: usize,
}

impl Owned {
    fn piece(&self) -> Piece<'_> {
        Piece {
            project: project(self.project),
            keep_until: TimestampMicros(self.keep_until),
            plain_bytes: self.bytes,
            disks: &self.disks,
            shard_bytes: self.bytes.div_ceil(4),
            losses_max: self.losses_max,
        }
    }
}

fn report(pieces: &[Owned], ends: &BTreeMap<u8, u64>, now: u64, by: u64) -> Report {
    let guarantees = ends.iter().map(|(n, end)| (disk(*n), TimestampMicros(*end))).collect();
    let window = Window { now: TimestampMicros(now), by: TimestampMicros(by) };
    let mut horizon = Horizon::new(window, guarantees);
    pieces.iter().for_each(|piece| horizon.add(piece.piece()));
    horizon.finish()
}

/// Whether at some moment of the window more than `losses` of the disks are out of guarantee while the piece has to be kept.
/// Time goes in whole steps here, so every moment is tried.
fn by_definition(piece: &Owned, ends: &BTreeMap<u8, u64>, now: u64, by: u64, losses: usize) -> bool {
    let end_of = |disk: &DiskId| ends.get(&disk.as_bytes()[0]).copied().unwrap_or(0);
    (now..=by).any(|at| at < piece.keep_until && piece.disks.iter().filter(|disk| end_of(disk) <= at).count() > losses)
}

fn pieces() -> impl Strategy<Value = Vec<Owned>> {
    let disks = prop::sample::subsequence((1..=8u8).collect::<Vec<_>>(), 1..=6);
    let piece = (0..3u8, 0..40u64, 1..1000u64, disks.prop_shuffle(), 0..4usize);
    let piece = piece.prop_map(|(project, keep_until, bytes, disks, losses_max)| Owned {
        project,
        keep_until,
        bytes,
        losses_max: losses_max.min(disks.len() - 1),
        disks: disks.into_iter().map(disk).collect(),
    });
    prop::collection::vec(piece, 0..12)
}

fn ends() -> impl Strategy<Value = BTreeMap<u8, u64>> {
    prop::collection::btree_map(1..=8u8, 0..45u64, 0..=8)
}

fn total(pieces: &[Owned], wanted: impl Fn(&Owned) -> bool) -> u64 {
    pieces.iter().filter(|piece| wanted(piece)).map(|piece| piece.bytes).sum()
}

proptest! {
    #[test]
    fn what_is_reported_is_what_the_definition_says(
        pieces in pieces(), ends in ends(), now in 0..30u64, ahead in 0..30u64
    ) {
        let by = now + ahead;
        let found = report(&pieces, &ends, now, by);
        prop_assert_eq!(found.uncovered_bytes(), total(&pieces, |p| by_definition(p, &ends, now, by, p.losses_max)));
        prop_assert_eq!(found.shrinking_bytes(), total(&pieces, |p| by_definition(p, &ends, now, by, 0)));
        for (id, view) in &found.projects {
            let of = |p: &Owned| project(p.project) == *id;
            prop_assert_eq!(view.kept_bytes, total(&pieces, |p| of(p) && p.keep_until > now));
            // The first moment at which something is uncovered.
            let first = (now..=by).find(|at| pieces.iter().any(|p| of(p) && by_definition(p, &ends, *at, *at, p.losses_max)));
            prop_assert_eq!(view.uncovered_from, first.map(TimestampMicros));
            prop_assert_eq!(view.years.values().map(|year| year.uncovered_bytes).sum::<u64>(), view.uncovered_bytes);
            prop_assert_eq!(view.years.values().map(|year| year.shrinking_bytes).sum::<u64>(), view.shrinking_bytes);
        }
    }

    #[test]
    fn prolonging_what_is_proposed_covers_everything(pieces in pieces(), ends in ends(), now in 0..30u64, ahead in 0..30u64) {
        let by = now + ahead;
        let found = report(&pieces, &ends, now, by);
        let prolonged = |until: fn(&DiskNeed) -> Option<TimestampMicros>| {
            let mut ends = ends.clone();
            for (disk, need) in &found.disks {
                let end = ends.entry(disk.as_bytes()[0]).or_default();
                *end = until(need).map_or(*end, |until| until.0.max(*end));
            }
            report(&pieces, &ends, now, by)
        };
        prop_assert_eq!(prolonged(|need| need.cover_until).uncovered_bytes(), 0);
        prop_assert_eq!(prolonged(|need| need.whole_until).shrinking_bytes(), 0);
        for remedy in remedies(&found, &[]) {
            prop_assert_eq!(Some(remedy.extend_to), found.disks[&remedy.disk].cover_until);
            prop_assert_eq!(remedy.unplaced_bytes, remedy.move_bytes);
        }
        // Rows and disks tell of the same bytes.
        for (id, need) in &found.disks {
            let rows = found.rows.iter().filter(|row| row.disk == *id);
            prop_assert_eq!(rows.map(|row| row.shard_bytes).sum::<u64>(), need.whole_bytes);
        }
    }
}

fn six() -> Owned {
    Owned { project: 1, keep_until: 100, bytes: 400, disks: (1..=6).map(disk).collect(), losses_max: 2 }
}

#[test]
fn four_of_six_have_to_last_and_the_two_that_end_first_may_go() {
    let ends = BTreeMap::from([(1, 10), (2, 20), (3, 30), (4, 200), (5, 200), (6, 200)]);
    for (by, shrinking, uncovered) in [(9, 0, 0), (10, 400, 0), (29, 400, 0), (30, 400, 400), (99, 400, 400)] {
        let found = report(&[six()], &ends, 0, by);
        assert_eq!((found.shrinking_bytes(), found.uncovered_bytes()), (shrinking, uncovered), "by {by}");
    }
    let found = report(&[six()], &ends, 0, 50);
    let covers: Vec<_> =
        found.disks.iter().map(|(id, need)| (id.as_bytes()[0], need.cover_until.map(|at| at.0))).collect();
    assert_eq!(covers, [(1, None), (2, None), (3, Some(100))], "prolonging the third alone is enough");
    assert_eq!(found.disks[&disk(1)].whole_until, Some(TimestampMicros(100)));
}

#[test]
fn what_need_not_be_kept_any_more_is_not_told_of_and_a_hold_has_no_end() {
    let ends = BTreeMap::new();
    assert_eq!(report(&[six()], &ends, 100, 500).projects.len(), 0, "its time is over");
    let held = Owned { keep_until: u64::MAX, ..six() };
    let guaranteed: BTreeMap<u8, u64> = (1..=6).map(|n| (n, 1_000)).collect();
    assert_eq!(report(std::slice::from_ref(&held), &guaranteed, 0, 999).uncovered_bytes(), 0);
    let found = report(&[held], &guaranteed, 0, 1_000);
    assert_eq!(found.uncovered_bytes(), 400);
    let spare = DiskFacts {
        disk: disk(9),
        custodian: None,
        guaranteed_until: TimestampMicros(u64::MAX - 1),
        free_bytes: 1 << 40,
    };
    for remedy in remedies(&found, &[spare]) {
        assert_eq!((remedy.extend_to, remedy.moves.len()), (FOREVER, 0), "no date of a disk is for ever");
    }
}

#[test]
fn moves_go_to_the_shortest_guarantee_that_suffices_as_far_as_there_is_room() {
    let ends = BTreeMap::from([(1, 10), (2, 20), (3, 30), (4, 40), (5, 200), (6, 200)]);
    let found = report(&[six()], &ends, 0, 50);
    let facts = |n: u8, guaranteed_until: u64, free_bytes: u64| DiskFacts {
        disk: disk(n),
        custodian: Some(CustodianId::from_bytes([n; 16])),
        guaranteed_until: TimestampMicros(guaranteed_until),
        free_bytes,
    };
    let disks = [facts(3, 30, 1 << 30), facts(7, 99, 1 << 30), facts(8, 300, 90), facts(9, 150, 70)];
    let found = remedies(&found, &disks);
    let moves: Vec<_> = found
        .iter()
        .map(|remedy| {
            let moves: Vec<_> = remedy.moves.iter().map(|one| (one.disk.as_bytes()[0], one.bytes)).collect();
            (remedy.disk.as_bytes()[0], moves, remedy.unplaced_bytes)
        })
        .collect();
    assert_eq!(moves, [(3, vec![(9, 70), (8, 30)], 0), (4, vec![(8, 60)], 40)]);
}

#[test]
fn too_many_rows_become_one_a_disk_and_project() {
    // A year each, for more years and projects than there is room for.
    let years = 7_000u64;
    let pieces: Vec<Owned> = (0..years * 40)
        .map(|n| Owned {
            project: (n / years) as u8,
            keep_until: (n % years + 1) * 31_557_600_000_000,
            bytes: 4,
            disks: vec![disk(1)],
            losses_max: 0,
        })
        .collect();
    let found = report(&pieces, &BTreeMap::new(), 0, 0);
    assert!(found.rows.len() <= ROWS_MAX + 40, "{}", found.rows.len());
    assert_eq!(found.rows.iter().map(|row| row.shard_bytes).sum::<u64>(), pieces.len() as u64);
    assert!(found.rows.iter().any(|row| row.year.is_none()));
}
