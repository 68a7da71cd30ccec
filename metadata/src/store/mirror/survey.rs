//! What lies on the disks, and which of it counts.
//!
//! The rules are pure functions of a listing. A batch counts if every piece of it is on some disk and no later term took
//! its revisions: a later term that began at or before the batch's first revision proves that the batch was never
//! acknowledged. Of several batches at one revision the one of the latest term counts. Batches that count must follow
//! each other without a gap.

use super::MirrorError;
use super::copies::Copies;
use super::format::{BatchId, CheckpointId, TRAILER_CHUNK};
use crate::store::Term;
use std::collections::{BTreeMap, BTreeSet};
use valv_shard_api::{ShardCodec, ShardStat};
use valv_types::{BlobId, DiskId, SYSTEM_POOL, ShardKey};

/// Shards per page of a listing: about 50 KiB encoded.
const PAGE: usize = 1024;

/// One piece and where it lies.
#[derive(Debug, Default)]
pub(super) struct Piece {
    /// Its sealed length.
    pub(super) len_bytes: u32,
    /// Its copies: disk and copy number.
    pub(super) places: Vec<(DiskId, u8)>,
    /// How many of them are not known to be damaged.
    pub(super) sound: usize,
}

/// The pieces of a batch or checkpoint, by chunk index.
pub(super) type Pieces = BTreeMap<u32, Piece>;

/// Everything of the mirror that the disks list.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    pub(super) batches: BTreeMap<BatchId, Pieces>,
    pub(super) checkpoints: BTreeMap<CheckpointId, Pieces>,
    /// Disks that were listed.
    pub(super) listed: usize,
    /// Disks that could not be listed.
    pub(super) away: usize,
}

/// Batches that follow each other.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(super) batches: Vec<BatchId>,
    /// The last revision that they reach.
    pub(super) end: u64,
    /// The first revision of a batch that counts and lies beyond the end: what is between is lost.
    pub(super) beyond: Option<u64>,
}

/// The first key of the system pool.
pub(super) const FIRST_KEY: ShardKey =
    ShardKey { pool: SYSTEM_POOL, placement: 0, blob: BlobId::from_bytes([0; 16]), chunk: 0, shard: 0 };

/// The key after `key`, or `None` after the last.
pub(super) fn successor(key: &ShardKey) -> Option<ShardKey> {
    let mut bytes = key.encode();
    for byte in bytes.iter_mut().rev() {
        let (next, carried) = byte.overflowing_add(1);
        *byte = next;
        if !carried {
            return ShardKey::decode(&bytes);
        }
    }
    None
}

/// One page of a disk's shards of the system pool, and where the next one starts.
pub(super) async fn page(
    copies: &Copies,
    disk: DiskId,
    from: ShardKey,
) -> Result<(Vec<ShardStat>, Option<ShardKey>), MirrorError> {
    let mut stats = copies.shards.list(disk, from, PAGE).await?;
    let full = stats.len() >= PAGE;
    let before = stats.len();
    stats.retain(|stat| stat.key.pool == SYSTEM_POOL);
    let next = match stats.last() {
        Some(last) if full && stats.len() == before => successor(&last.key),
        _ => None,
    };
    Ok((stats, next))
}

impl Survey {
    /// Lists every disk that can be read. One that fails counts as away; if not even the disks are known, as many as
    /// there are copies do.
    pub(super) async fn take(copies: &Copies) -> Self {
        if let Err(error) = copies.refresh().await {
            tracing::warn!(%error, "the disks can't be searched for the metadata mirror");
            return Self { away: copies.wanted, ..Self::default() };
        }
        let (disks, away) = copies.readable();
        let mut survey = Self { away, ..Self::default() };
        for disk in disks {
            match survey.list(copies, disk).await {
                Ok(()) => survey.listed += 1,
                Err(error) => {
                    tracing::warn!(%disk, %error, "a disk can't be searched for the metadata mirror");
                    survey.away += 1;
                }
            }
        }
        survey
    }

    async fn list(&mut self, copies: &Copies, disk: DiskId) -> Result<(), MirrorError> {
        let mut from = Some(FIRST_KEY);
        while let Some(start) = from {
            let (stats, next) = page(copies, disk, start).await?;
            for stat in stats {
                self.add(disk, &stat);
            }
            from = next;
        }
        Ok(())
    }

    /// Adds a shard that `disk` lists. Quarantined ones count too: another copy may be whole, and a piece that is known
    /// to have been there must not be taken for one that never was.
    pub(super) fn add(&mut self, disk: DiskId, stat: &ShardStat) {
        let pieces = match stat.codec {
            ShardCodec::MetadataBatch => self.batches.entry(BatchId::of(&stat.key)).or_default(),
            ShardCodec::MetadataCheckpoint => self.checkpoints.entry(CheckpointId::of(&stat.key)).or_default(),
            ShardCodec::SealedChunk => return,
        };
        let piece = pieces.entry(stat.key.chunk).or_default();
        piece.len_bytes = stat.len_bytes;
        piece.places.push((disk, stat.key.shard));
        piece.sound += usize::from(!stat.quarantined);
    }

    /// Whether the disks list nothing of a mirror.
    pub(crate) fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.checkpoints.is_empty()
    }

    /// The latest term that left anything.
    pub(crate) fn term_max(&self) -> u64 {
        let batches = self.batches.keys().map(|batch| batch.term);
        batches.chain(self.checkpoints.keys().map(CheckpointId::term)).max().unwrap_or(0)
    }

    /// Checkpoints that were completed, newest first.
    pub(super) fn complete_checkpoints(&self) -> impl Iterator<Item = (&CheckpointId, &Pieces)> {
        self.checkpoints.iter().rev().filter(|(_, pieces)| pieces.contains_key(&TRAILER_CHUNK))
    }

    /// The batches that count and follow revision `after`; `known` is the latest term that the caller knows of.
    pub(super) fn chain(&self, after: u64, known: Term) -> Chain {
        let mut terms: BTreeSet<(u64, u64)> = self.batches.keys().map(|batch| (batch.term, batch.term_start)).collect();
        terms.insert((known.number, known.start));
        // A term that made a checkpoint at some revision began at or before the next one.
        terms.extend(self.checkpoints.keys().map(|id| (id.term(), id.revision.saturating_add(1))));
        let counts = |id: &BatchId, pieces: &Pieces| {
            let later = terms.range((id.term.saturating_add(1), 0)..);
            pieces.len() == usize::from(id.pieces)
                && id.pieces > 0
                && !later.into_iter().any(|(term, start)| *term > id.term && *start <= id.first)
        };
        let mut chain = Chain { batches: Vec::new(), end: after, beyond: None };
        let mut candidates =
            self.batches.iter().filter(|(id, pieces)| id.first > after && counts(id, pieces)).peekable();
        while let Some((id, _)) = candidates.next() {
            // In order of (first, term): of those at one revision, the last.
            if candidates.peek().is_some_and(|(next, _)| next.first == id.first) || id.first <= chain.end {
                continue;
            }
            if id.first != chain.end + 1 {
                chain.beyond = Some(id.first);
                break;
            }
            chain.end = id.last();
            chain.batches.push(*id);
        }
        chain
    }
}

/// Whether any piece has fewer than `wanted` sound copies.
pub(super) fn is_short(pieces: &Pieces, wanted: usize) -> bool {
    pieces.values().any(|piece| piece.sound < wanted)
}

/// The length of all pieces, each counted once.
pub(super) fn len_bytes(pieces: &Pieces) -> u64 {
    pieces.values().map(|piece| u64::from(piece.len_bytes)).sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TERM: Term = Term { number: 0, start: 0 };

    /// Batches as (first, last, term, start of the term).
    fn survey(batches: &[(u64, u64, u64, u64)]) -> Survey {
        let mut survey = Survey::default();
        for (first, last, term, term_start) in batches {
            let id =
                BatchId { first: *first, term: *term, span: (last - first) as u16, pieces: 1, term_start: *term_start };
            survey.batches.insert(id, BTreeMap::from([(0, Piece::default())]));
        }
        survey
    }

    #[test]
    fn batches_that_count_are_found_and_gaps_are_noticed() {
        type Case<'a> = (&'a str, &'a [(u64, u64, u64, u64)], u64, (&'a [u64], u64, Option<u64>));
        let cases: [Case<'_>; 9] = [
            ("nothing", &[], 5, (&[], 5, None)),
            ("contiguous", &[(1, 3, 1, 1), (4, 4, 1, 1)], 0, (&[1, 4], 4, None)),
            ("after a checkpoint", &[(1, 3, 1, 1), (4, 4, 1, 1)], 3, (&[4], 4, None)),
            ("gap", &[(1, 3, 1, 1), (5, 6, 1, 1)], 0, (&[1], 3, Some(5))),
            ("start missing", &[(5, 6, 1, 1)], 0, (&[], 0, Some(5))),
            (
                "never acknowledged, replaced by the next term",
                &[(1, 3, 1, 1), (4, 9, 1, 1), (4, 5, 2, 4)],
                0,
                (&[1, 4], 5, None),
            ),
            (
                "a superseded one beyond the end is no gap",
                &[(1, 3, 1, 1), (7, 9, 1, 1), (4, 5, 2, 4)],
                0,
                (&[1, 4], 5, None),
            ),
            ("written again by the next term", &[(1, 3, 1, 1), (1, 3, 2, 4), (4, 4, 2, 4)], 0, (&[1, 4], 4, None)),
            ("an older term continues", &[(1, 3, 1, 1), (4, 4, 2, 4), (5, 5, 3, 5)], 0, (&[1, 4, 5], 5, None)),
        ];
        for (label, batches, after, (firsts, end, beyond)) in cases {
            let chain = survey(batches).chain(after, TERM);
            let found: Vec<_> = chain.batches.iter().map(|batch| batch.first).collect();
            assert_eq!((&found[..], chain.end, chain.beyond), (firsts, end, beyond), "{label}");
        }
        let known = Term { number: 2, start: 4 };
        let chain = survey(&[(1, 3, 1, 1), (4, 9, 1, 1)]).chain(3, known);
        assert_eq!(chain, Chain { batches: vec![], end: 3, beyond: None }, "superseded by a term known otherwise");
        let mut lost = survey(&[(1, 3, 1, 1), (6, 9, 1, 1)]);
        let checkpoint = CheckpointId::new(Term { number: 2, start: 4 }, valv_types::Revision(5)).unwrap();
        lost.checkpoints.insert(checkpoint, Pieces::new());
        assert_eq!(lost.chain(5, TERM).batches, [], "superseded by the term of a checkpoint");
        let mut torn = survey(&[(1, 3, 1, 1)]);
        torn.batches.insert(
            BatchId { first: 4, term: 1, span: 0, pieces: 2, term_start: 1 },
            BTreeMap::from([(0, Piece::default())]),
        );
        assert_eq!(torn.chain(0, TERM).end, 3, "a batch with a piece missing");
    }

    #[test]
    fn successors_carry() {
        let key = ShardKey { shard: 255, chunk: 7, ..FIRST_KEY };
        assert_eq!(successor(&key), Some(ShardKey { shard: 0, chunk: 8, ..FIRST_KEY }));
        assert_eq!(successor(&ShardKey::decode(&[0xff; 33]).unwrap()), None);
    }
}
