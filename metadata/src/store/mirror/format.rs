//! The bytes of the mirror: shard keys that tell what a shard is, and segments of rows and commits.
//!
//! A *segment* is CBOR: `[1, commits, rows]` with `commits = [* [id, revision, seconds]]` and
//! `rows = [* [key, revision, value / null]]`. A batch is one segment, cut into pieces of at most 8 MiB; a checkpoint is
//! many segments of about 1 MiB and a trailer `[1, pieces, rows, commits, digest]`, where the digest is the BLAKE3 of
//! all segments in order. Every piece is sealed by itself, bound to its shard key less the copy number, and everything
//! that decides which batches count stands in the key, so that a listing of the disks is enough to plan with.

use super::MirrorError;
use crate::store::{Key, Term};
use bytes::Bytes;
use minicbor::{Decoder, Encoder};
use valv_codec::RecordKey;
use valv_shard_api::ShardCodec;
use valv_types::{BlobId, CommitId, Revision, SYSTEM_POOL, ShardKey};

/// Longest piece of a batch, before sealing: well inside one gRPC message and one append of a disk.
pub(crate) const BATCH_PIECE_BYTES_MAX: usize = 8 << 20;
/// A segment of a checkpoint is closed before it grows past this, unless a single row is longer.
pub(crate) const SEGMENT_BYTES_MAX: usize = 1 << 20;
/// The chunk index of a checkpoint's trailer. It is written last, so a checkpoint that has one is complete.
pub(crate) const TRAILER_CHUNK: u32 = u32::MAX;

const VERSION: u32 = 1;
/// Terms are milliseconds since 1970 and revisions are counted: either fits 48 bits for 8,900 years, at a million
/// commits a second the latter for nine.
const NUMBER_MAX: u64 = (1 << 48) - 1;

/// A commit as it is mirrored: id, revision, and time in seconds since 1970.
pub(crate) type CommitRow = (CommitId, Revision, u64);
/// A row as it is mirrored; without a value it was removed.
pub(crate) type Row = (Key, Revision, Option<Bytes>);

/// What a batch's shard key says of it. The blob id is term (6 bytes), span (2), pieces (2), start of the term (6), all
/// big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BatchId {
    /// Its first revision: the placement of its shards.
    pub(crate) first: u64,
    /// The term that wrote it.
    pub(crate) term: u64,
    /// Its last revision is `first + span`.
    pub(crate) span: u16,
    /// How many pieces it was cut into: chunks 0 to `pieces - 1`.
    pub(crate) pieces: u16,
    /// The first revision that its term may have written.
    pub(crate) term_start: u64,
}

impl BatchId {
    pub(crate) fn new(term: Term, first: Revision, last: Revision, body_len: usize) -> Result<Self, MirrorError> {
        let too_large = |_| MirrorError::Malformed { what: "a group too large to mirror" };
        if term.number > NUMBER_MAX || term.start > NUMBER_MAX {
            return Err(MirrorError::Malformed { what: "a term beyond 48 bits" });
        }
        Ok(Self {
            first: first.0,
            term: term.number,
            span: u16::try_from(last.0.saturating_sub(first.0)).map_err(too_large)?,
            pieces: u16::try_from(body_len.div_ceil(BATCH_PIECE_BYTES_MAX).max(1)).map_err(too_large)?,
            term_start: term.start,
        })
    }

    /// Its last revision.
    pub(crate) fn last(&self) -> u64 {
        self.first.saturating_add(u64::from(self.span))
    }

    /// The key of a copy of a piece.
    pub(crate) fn key(&self, piece: u32, copy: u8) -> ShardKey {
        let mut blob = [0; 16];
        blob[..6].copy_from_slice(&self.term.to_be_bytes()[2..]);
        blob[6..8].copy_from_slice(&self.span.to_be_bytes());
        blob[8..10].copy_from_slice(&self.pieces.to_be_bytes());
        blob[10..].copy_from_slice(&self.term_start.to_be_bytes()[2..]);
        let blob = BlobId::from_bytes(blob);
        ShardKey { pool: SYSTEM_POOL, placement: self.first, blob, chunk: piece, shard: copy }
    }

    /// Reads what [`Self::key`] made.
    pub(crate) fn of(key: &ShardKey) -> Self {
        let b = key.blob.as_bytes();
        Self {
            first: key.placement,
            term: u64::from_be_bytes([0, 0, b[0], b[1], b[2], b[3], b[4], b[5]]),
            span: u16::from_be_bytes([b[6], b[7]]),
            pieces: u16::from_be_bytes([b[8], b[9]]),
            term_start: u64::from_be_bytes([0, 0, b[10], b[11], b[12], b[13], b[14], b[15]]),
        }
    }
}

/// What a checkpoint's shard key says of it. The blob id is the term (6 bytes) and 10 random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CheckpointId {
    /// It holds everything up to this revision: the placement of its shards.
    pub(crate) revision: u64,
    /// The blob of its shards.
    pub(crate) blob: BlobId,
}

impl CheckpointId {
    pub(crate) fn new(term: Term, revision: Revision) -> Result<Self, MirrorError> {
        let mut blob = [0; 16];
        blob[..6].copy_from_slice(&term.number.to_be_bytes()[2..]);
        getrandom::fill(&mut blob[6..]).map_err(|_| valv_codec::KeyError::NoRandomness)?;
        Ok(Self { revision: revision.0, blob: BlobId::from_bytes(blob) })
    }

    /// The term that wrote it.
    pub(crate) fn term(&self) -> u64 {
        let b = self.blob.as_bytes();
        u64::from_be_bytes([0, 0, b[0], b[1], b[2], b[3], b[4], b[5]])
    }

    /// The key of a copy of a piece.
    pub(crate) fn key(&self, chunk: u32, copy: u8) -> ShardKey {
        ShardKey { pool: SYSTEM_POOL, placement: self.revision, blob: self.blob, chunk, shard: copy }
    }

    /// Reads what [`Self::key`] made.
    pub(crate) fn of(key: &ShardKey) -> Self {
        Self { revision: key.placement, blob: key.blob }
    }
}

/// What a sealed piece is bound to: what it is and where it belongs, the same for every copy.
fn place(codec: ShardCodec, key: &ShardKey) -> Vec<u8> {
    let mut place = b"valv mirror v1".to_vec();
    place.push(codec as u8);
    place.extend_from_slice(&key.encode()[..ShardKey::ENCODED_LEN - 1]);
    place
}

/// Seals a piece for its place.
pub(crate) fn seal(key: &RecordKey, codec: ShardCodec, at: &ShardKey, plain: &[u8]) -> Result<Bytes, MirrorError> {
    Ok(key.seal(&place(codec, at), plain)?.into())
}

/// Opens a piece, or says that it is not what stands at its place.
pub(crate) fn open(key: &RecordKey, codec: ShardCodec, at: &ShardKey, sealed: &[u8]) -> Result<Vec<u8>, MirrorError> {
    Ok(key.open(&place(codec, at), sealed)?)
}

/// Rows and commits, decoded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Segment {
    pub(crate) commits: Vec<CommitRow>,
    pub(crate) rows: Vec<Row>,
}

/// Encodes a segment.
pub(crate) fn encode_segment(commits: &[CommitRow], rows: &[Row]) -> Vec<u8> {
    let mut out = SegmentWriter::default();
    for (id, revision, secs) in commits {
        out.commit(*id, *revision, *secs);
    }
    for (key, revision, value) in rows {
        out.row(key, *revision, value.as_deref());
    }
    out.take()
}

/// Writes a segment row by row, from borrowed bytes.
#[derive(Default)]
pub(crate) struct SegmentWriter {
    commits: u64,
    commit_bytes: Vec<u8>,
    rows: u64,
    row_bytes: Vec<u8>,
}

/// What the head of a row takes at most: array, lengths of key and value, revision.
const ROW_OVERHEAD_BYTES_MAX: usize = 1 + 3 + 9 + 5;

impl SegmentWriter {
    pub(crate) fn commit(&mut self, id: CommitId, revision: Revision, secs: u64) {
        self.commits += 1;
        let mut e = Encoder::new(&mut self.commit_bytes);
        infallible(
            e.array(3).and_then(|e| e.bytes(id.as_bytes())).and_then(|e| e.u64(revision.0)).and_then(|e| e.u64(secs)),
        );
    }

    pub(crate) fn row(&mut self, key: &[u8], revision: Revision, value: Option<&[u8]>) {
        self.rows += 1;
        let mut e = Encoder::new(&mut self.row_bytes);
        let head = e.array(3).and_then(|e| e.bytes(key)).and_then(|e| e.u64(revision.0));
        infallible(match value {
            Some(value) => head.and_then(|e| e.bytes(value)),
            None => head.and_then(|e| e.null()),
        });
    }

    /// Whether a row of this size would make the segment longer than it should be.
    pub(crate) fn is_full_for(&self, key: &[u8], value: &[u8]) -> bool {
        let len = self.len_bytes();
        len > 0 && len + key.len() + value.len() + ROW_OVERHEAD_BYTES_MAX > SEGMENT_BYTES_MAX
    }

    pub(crate) fn len_bytes(&self) -> usize {
        self.commit_bytes.len() + self.row_bytes.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len_bytes() == 0
    }

    /// The segment so far; the writer is empty again.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let this = std::mem::take(self);
        let mut out = Vec::with_capacity(32 + this.len_bytes());
        let mut e = Encoder::new(&mut out);
        infallible(e.array(3).and_then(|e| e.u32(VERSION)).and_then(|e| e.array(this.commits)));
        out.extend_from_slice(&this.commit_bytes);
        infallible(Encoder::new(&mut out).array(this.rows));
        out.extend_from_slice(&this.row_bytes);
        out
    }
}

/// Writing CBOR to memory has no error to give.
fn infallible<T>(result: Result<T, minicbor::encode::Error<std::convert::Infallible>>) {
    if result.is_err() {
        unreachable!("a vector takes every byte");
    }
}

impl Segment {
    /// Decodes a segment; nothing may follow it.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, MirrorError> {
        let mut d = Decoder::new(bytes);
        let segment = Self::read(&mut d).map_err(|_| MirrorError::Malformed { what: "a segment" })?;
        if d.position() != bytes.len() {
            return Err(MirrorError::Malformed { what: "bytes after a segment" });
        }
        Ok(segment)
    }

    fn read(d: &mut Decoder<'_>) -> Result<Self, minicbor::decode::Error> {
        let wrong = minicbor::decode::Error::message;
        if d.array()? != Some(3) || d.u32()? != VERSION {
            return Err(wrong("not a segment of a known version"));
        }
        let mut segment = Self::default();
        for _ in 0..d.array()?.ok_or_else(|| wrong("indefinite array"))? {
            expect_array(d, 3)?;
            let id = CommitId::from_slice(d.bytes()?).map_err(|_| wrong("commit id"))?;
            segment.commits.push((id, Revision(d.u64()?), d.u64()?));
        }
        for _ in 0..d.array()?.ok_or_else(|| wrong("indefinite array"))? {
            expect_array(d, 3)?;
            let key = Bytes::copy_from_slice(d.bytes()?);
            let revision = Revision(d.u64()?);
            let value = match d.datatype()? {
                minicbor::data::Type::Null => d.null().map(|()| None)?,
                _ => Some(Bytes::copy_from_slice(d.bytes()?)),
            };
            segment.rows.push((key, revision, value));
        }
        Ok(segment)
    }
}

fn expect_array(d: &mut Decoder<'_>, len: u64) -> Result<(), minicbor::decode::Error> {
    match d.array()? == Some(len) {
        true => Ok(()),
        false => Err(minicbor::decode::Error::message("array of another length")),
    }
}

/// What a sequence of segments must add up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub(crate) pieces: u32,
    pub(crate) rows: u64,
    pub(crate) commits: u64,
    pub(crate) digest: [u8; 32],
}

impl Trailer {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut e = Encoder::new(&mut out);
        let head = e.array(5).and_then(|e| e.u32(VERSION)).and_then(|e| e.u32(self.pieces));
        infallible(
            head.and_then(|e| e.u64(self.rows)).and_then(|e| e.u64(self.commits)).and_then(|e| e.bytes(&self.digest)),
        );
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, MirrorError> {
        Self::read(&mut Decoder::new(bytes)).map_err(|_| MirrorError::Malformed { what: "a trailer" })
    }

    fn read(d: &mut Decoder<'_>) -> Result<Self, minicbor::decode::Error> {
        let wrong = minicbor::decode::Error::message;
        expect_array(d, 5)?;
        if d.u32()? != VERSION {
            return Err(wrong("not a trailer of a known version"));
        }
        let (pieces, rows, commits) = (d.u32()?, d.u64()?, d.u64()?);
        let digest = d.bytes()?.try_into().map_err(|_| wrong("digest"))?;
        Ok(Self { pieces, rows, commits, digest })
    }
}

/// Adds segments up, while they are written and again while they are read.
#[derive(Default)]
pub(crate) struct Tally {
    pieces: u32,
    rows: u64,
    commits: u64,
    hasher: blake3::Hasher,
}

impl Tally {
    pub(crate) fn add(&mut self, segment: &[u8], rows: u64, commits: u64) {
        self.pieces += 1;
        self.rows += rows;
        self.commits += commits;
        self.hasher.update(segment);
    }

    pub(crate) fn trailer(&self) -> Trailer {
        let digest = *self.hasher.finalize().as_bytes();
        Trailer { pieces: self.pieces, rows: self.rows, commits: self.commits, digest }
    }
}

impl SegmentWriter {
    /// The segment so far, added to `tally`.
    pub(crate) fn take_counted(&mut self, tally: &mut Tally) -> Vec<u8> {
        let (rows, commits) = (self.rows, self.commits);
        let segment = self.take();
        tally.add(&segment, rows, commits);
        segment
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use valv_codec::SystemKey;

    fn segment() -> Segment {
        Segment {
            commits: vec![(CommitId::random(), Revision(7), 1_700_000_000), (CommitId::random(), Revision(8), 0)],
            rows: vec![
                (Bytes::from_static(b"a"), Revision(7), Some(Bytes::from_static(b"value"))),
                (Bytes::from_static(b""), Revision(8), Some(Bytes::new())),
                (Bytes::from(vec![0xff; 2200]), Revision(u64::MAX), None),
            ],
        }
    }

    #[test]
    fn segments_read_back_and_damaged_ones_are_errors() {
        let segment = segment();
        let bytes = encode_segment(&segment.commits, &segment.rows);
        assert_eq!(Segment::decode(&bytes).unwrap(), segment);
        for len in 0..bytes.len() {
            assert!(Segment::decode(&bytes[..len]).is_err(), "cut to {len}");
        }
        assert!(Segment::decode(&[&bytes[..], &[0]].concat()).is_err());
        assert!(Segment::decode(&encode_segment(&[], &[])).unwrap().rows.is_empty());
    }

    #[test]
    fn the_first_version_of_a_segment_stays_readable() {
        let golden = "83018183500102030405060708090a0b0c0d0e0f10182a1a6553f1008283416b182a417683426b32182af6";
        let segment = Segment::decode(&hex::decode(golden).unwrap()).unwrap();
        let id = CommitId::from_bytes([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
        assert_eq!(segment.commits, [(id, Revision(42), 1_700_000_000)]);
        let rows = [
            (Bytes::from_static(b"k"), Revision(42), Some(Bytes::from_static(b"v"))),
            (Bytes::from_static(b"k2"), Revision(42), None),
        ];
        assert_eq!(segment.rows, rows);
        assert_eq!(hex::encode(encode_segment(&segment.commits, &segment.rows)), golden);
    }

    #[test]
    fn ids_read_back_from_their_shard_keys() {
        let term = Term { number: 3, start: 90 };
        let batch = BatchId::new(term, Revision(100), Revision(1123), BATCH_PIECE_BYTES_MAX + 1).unwrap();
        assert_eq!((batch.pieces, batch.last()), (2, 1123));
        assert_eq!(BatchId::of(&batch.key(1, 2)), batch);
        assert!(BatchId::new(term, Revision(1), Revision(100_000), 1).is_err());
        assert!(BatchId::new(Term { number: 1 << 48, start: 1 }, Revision(1), Revision(1), 1).is_err());
        let checkpoint = CheckpointId::new(term, Revision(5)).unwrap();
        assert_eq!(CheckpointId::of(&checkpoint.key(TRAILER_CHUNK, 1)), checkpoint);
        assert_eq!(checkpoint.term(), 3);
    }

    #[test]
    fn a_piece_opens_in_its_own_place_only() {
        let key = SystemKey::generate(1).unwrap().system_record_key("test");
        let batch = BatchId::new(Term { number: 1, start: 1 }, Revision(1), Revision(1), 3).unwrap();
        let sealed = seal(&key, ShardCodec::MetadataBatch, &batch.key(0, 0), b"abc").unwrap();
        assert_eq!(open(&key, ShardCodec::MetadataBatch, &batch.key(0, 2), &sealed).unwrap(), b"abc", "any copy");
        assert!(open(&key, ShardCodec::MetadataBatch, &batch.key(1, 0), &sealed).is_err());
        assert!(open(&key, ShardCodec::MetadataCheckpoint, &batch.key(0, 0), &sealed).is_err());
        let later = BatchId { term: 2, ..batch };
        assert!(open(&key, ShardCodec::MetadataBatch, &later.key(0, 0), &sealed).is_err());
    }
}
