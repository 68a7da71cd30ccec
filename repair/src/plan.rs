//! What to do about one chunk: a pure function of what its disks say of its shards.

use valv_types::{ChunkGeometry, ChunkId, DiskId, Layout, PoolMap, ShardKey, placement_hash};

/// Where a shard should be, and what its disk says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShardPlace {
    pub(crate) key: ShardKey,
    pub(crate) disk: DiskId,
    pub(crate) state: ShardState,
}

/// What a disk says of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShardState {
    /// Nothing: the disk is away, or did not answer.
    Unknown,
    /// It has it, with the right length.
    Present { generation: u32 },
    /// It has it, and found it damaged.
    Quarantined,
    /// It has not got it, or one of another length.
    Missing,
}

/// A chunk with all its shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChunkPlaces {
    pub(crate) geometry: ChunkGeometry,
    pub(crate) shards: Vec<ShardPlace>,
}

impl ChunkPlaces {
    /// Where the shards of chunk `index` of a blob belong. `None` if the map does not place them.
    pub(crate) fn of(map: &PoolMap, layout: &Layout, chunk: ChunkId, geometry: ChunkGeometry) -> Option<Self> {
        let placement = placement_hash(chunk);
        let shards = (0..geometry.coding.shards())
            .map(|shard| {
                let disk = map.disk(placement, shard)?;
                let key = ShardKey { pool: layout.pool, placement, blob: chunk.blob, chunk: chunk.index, shard };
                Some(ShardPlace { key, disk, state: ShardState::Unknown })
            })
            .collect::<Option<_>>()?;
        Some(Self { geometry, shards })
    }

    /// What is to be done.
    pub(crate) fn verdict(&self) -> Verdict {
        let mut sources = Vec::new();
        let mut wanted = Vec::new();
        let mut unknown = 0;
        // Shards of another generation than most of the good ones are stale: they were coded from other bytes.
        let generation = self.generation();
        for place in &self.shards {
            match place.state {
                ShardState::Unknown => unknown += 1,
                ShardState::Present { generation: found } if Some(found) == generation => sources.push(*place),
                ShardState::Present { .. } | ShardState::Quarantined | ShardState::Missing => wanted.push(*place),
            }
        }
        let need = usize::from(self.geometry.coding.k);
        match (wanted.is_empty(), sources.len() >= need) {
            (true, _) if unknown == 0 => Verdict::Complete,
            (true, _) => Verdict::Waiting,
            (false, true) => Verdict::Rebuild { sources, wanted, generation: generation.unwrap_or(0) },
            (false, false) if unknown > 0 => Verdict::Waiting,
            (false, false) => Verdict::Lost { have: sources.len(), need },
        }
    }

    /// What each shard counts as. One of another generation is as good as missing: it was coded from other bytes.
    pub(crate) fn counted(&self) -> impl Iterator<Item = ShardState> + '_ {
        let generation = self.generation();
        self.shards.iter().map(move |place| match place.state {
            ShardState::Present { generation: found } if Some(found) != generation => ShardState::Missing,
            state => state,
        })
    }

    /// Notes what was learnt about one shard since the disks were asked.
    pub(crate) fn set(&mut self, key: ShardKey, state: ShardState) {
        if let Some(own) = self.shards.iter_mut().find(|own| own.key == key) {
            own.state = state;
        }
    }

    /// The generation that most present shards have; of equals the newest.
    fn generation(&self) -> Option<u32> {
        let found = || {
            self.shards.iter().filter_map(|place| match place.state {
                ShardState::Present { generation } => Some(generation),
                _ => None,
            })
        };
        found().max_by_key(|&candidate| (found().filter(|&other| other == candidate).count(), candidate))
    }
}

/// What is to be done about a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Every shard is where it belongs.
    Complete,
    /// Shards lie on disks that are away, and nothing can be done meanwhile.
    Waiting,
    /// Read k of the sources, and write what is wanted.
    Rebuild { sources: Vec<ShardPlace>, wanted: Vec<ShardPlace>, generation: u32 },
    /// Fewer good shards than k on disks that all answered.
    Lost { have: usize, need: usize },
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use valv_types::{BlobId, Epoch, IncarnationId, PlacementGroup, PoolId};

    fn chunk(states: [ShardState; 6]) -> ChunkPlaces {
        let layout = Layout::current(PoolId(1), 4, 2).unwrap();
        let disks = (0..6u8).map(|i| DiskId::from_bytes([i; 16])).collect();
        let map = PoolMap { layout, groups: vec![PlacementGroup { epoch: Epoch(1), disks }] };
        let id = ChunkId { blob: BlobId::new(IncarnationId(1), 1), index: 0 };
        let geometry = layout.chunk(1 << 20, 0).unwrap();
        let mut places = ChunkPlaces::of(&map, &layout, id, geometry).unwrap();
        places.shards.iter_mut().zip(states).for_each(|(place, state)| place.state = state);
        places
    }

    const GOOD: ShardState = ShardState::Present { generation: 0 };
    const STALE: ShardState = ShardState::Present { generation: 7 };
    const GONE: ShardState = ShardState::Missing;
    const BAD: ShardState = ShardState::Quarantined;
    const AWAY: ShardState = ShardState::Unknown;

    /// `complete`, `waiting`, `lost 3/4` or `rebuild 1,5 from 0,2,3,4`.
    fn text(verdict: Verdict) -> String {
        let list = |places: &[ShardPlace]| {
            places.iter().map(|place| place.key.shard.to_string()).collect::<Vec<_>>().join(",")
        };
        match verdict {
            Verdict::Complete => "complete".to_owned(),
            Verdict::Waiting => "waiting".to_owned(),
            Verdict::Lost { have, need } => format!("lost {have}/{need}"),
            Verdict::Rebuild { sources, wanted, .. } => format!("rebuild {} from {}", list(&wanted), list(&sources)),
        }
    }

    #[test]
    fn a_stale_shard_is_never_counted_as_present() {
        let counted: Vec<_> = chunk([GOOD, GOOD, STALE, GOOD, AWAY, BAD]).counted().collect();
        assert_eq!(counted, [GOOD, GOOD, GONE, GOOD, AWAY, BAD]);
    }

    #[test]
    fn verdicts_follow_from_what_the_disks_say() {
        for (states, expected) in [
            ([GOOD; 6], "complete"),
            ([GOOD, GOOD, GOOD, GOOD, GOOD, AWAY], "waiting"),
            ([GOOD, GONE, GOOD, GOOD, GOOD, GOOD], "rebuild 1 from 0,2,3,4,5"),
            ([GOOD, BAD, GOOD, GOOD, GOOD, GONE], "rebuild 1,5 from 0,2,3,4"),
            ([GOOD, GONE, GOOD, GOOD, GOOD, AWAY], "rebuild 1 from 0,2,3,4"),
            ([GOOD, GONE, GOOD, GOOD, AWAY, AWAY], "waiting"),
            ([GOOD, GONE, GOOD, GOOD, BAD, GONE], "lost 3/4"),
            ([GOOD, STALE, GOOD, GOOD, GOOD, GOOD], "rebuild 1 from 0,2,3,4,5"),
            ([GONE; 6], "lost 0/4"),
            ([AWAY; 6], "waiting"),
        ] {
            assert_eq!(text(chunk(states).verdict()), expected, "{states:?}");
        }
    }

    fn any_state() -> impl Strategy<Value = ShardState> {
        prop_oneof![4 => Just(GOOD), 1 => Just(STALE), 2 => Just(GONE), 2 => Just(BAD), 2 => Just(AWAY)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn whatever_the_disks_say_nothing_is_written_where_a_shard_may_be(
            states in proptest::array::uniform6(any_state()),
        ) {
            let places = chunk(states);
            let state_of = |place: &ShardPlace| states[usize::from(place.key.shard)];
            let good = places.counted().filter(|state| matches!(state, ShardState::Present { .. })).count();
            let unknown = states.iter().filter(|state| **state == AWAY).count();
            match places.verdict() {
                Verdict::Complete => prop_assert_eq!(good, 6, "healthy is all, not most"),
                Verdict::Waiting => prop_assert!(unknown > 0, "something else would have to be done"),
                Verdict::Lost { have, need } => {
                    prop_assert_eq!((have, need, unknown), (good, 4, 0), "what is away may still be good");
                    prop_assert!(have < need);
                }
                Verdict::Rebuild { sources, wanted, generation } => {
                    prop_assert!(sources.len() >= 4 && !wanted.is_empty());
                    prop_assert_eq!(sources.len() + wanted.len() + unknown, 6);
                    for source in &sources {
                        prop_assert_eq!(state_of(source), ShardState::Present { generation }, "never of two codings");
                    }
                    for place in &wanted {
                        prop_assert_ne!(state_of(place), ShardState::Present { generation });
                        prop_assert_ne!(state_of(place), AWAY);
                    }
                }
            }
        }
    }
}
