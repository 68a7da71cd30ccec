//! All rows of a store as one sealed stream: a backup that any MetaStore can be filled from.
//!
//! The stream is `VALVROWS`, a version byte, 16 random bytes, and frames; a frame is its kind (1: segment, 2: trailer),
//! its length (4 bytes, big-endian) and a sealed record, bound to the random bytes, the frame's number and its kind. The
//! segments and the trailer, which holds their number and the BLAKE3 of all of them, are those of a checkpoint of the
//! mirror. Rows get new revisions when they are imported: values never hold revisions.

use super::mirror::format::{Segment, SegmentWriter, Tally, Trailer};
use super::{
    Commit, CommitOutcome, Expectation, KEY_LEN_BYTES_MAX, MetaStore, Snapshot, StoreError, VALUE_LEN_BYTES_MAX, Write,
};
use std::io;
use valv_codec::{KeyError, RecordKey};
use valv_types::{CommitId, Revision};

/// What the key of an export is derived for, by [`valv_codec::SystemKey::system_record_key`].
pub const EXPORT_KEY_PURPOSE: &str = "metadata export";

const MAGIC: &[u8; 8] = b"VALVROWS";
const VERSION: u8 = 1;
const SEGMENT: u8 = 1;
const TRAILER: u8 = 2;
/// A frame holds at most one segment, and that at most one row beyond a mebibyte; the rest is room for what seals it.
const FRAME_BYTES_MAX: usize = VALUE_LEN_BYTES_MAX + KEY_LEN_BYTES_MAX + 1024;

/// Why an export could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    /// The stream could not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A frame was sealed under another key, or is damaged or out of place.
    #[error("the export is damaged, or was made under another root key: {0}")]
    Key(#[from] KeyError),
    /// The stream is not an export of a known version.
    #[error("not an export of metadata rows: {what}")]
    Malformed {
        /// What was wrong.
        what: &'static str,
    },
    /// The stream ends early, or its parts do not add up to its trailer.
    #[error("the export is incomplete")]
    Incomplete,
    /// The store that was to be filled has rows already, or somebody else writes to it.
    #[error("the store to import into is not empty")]
    NotEmpty,
}

/// What an export holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exported {
    /// The revision of the snapshot; zero when it was read back.
    pub revision: Revision,
    /// Rows.
    pub rows: u64,
    /// BLAKE3 of all segments.
    pub digest: [u8; 32],
}

fn place(export: &[u8; 16], number: u64, kind: u8) -> Vec<u8> {
    let mut place = b"valv metadata export v1".to_vec();
    place.extend_from_slice(export);
    place.extend_from_slice(&number.to_be_bytes());
    place.push(kind);
    place
}

/// Writes all rows of `snapshot`. Blocks; memory is bounded by a few segments.
pub fn export_rows(snapshot: &dyn Snapshot, key: &RecordKey, out: &mut dyn io::Write) -> Result<Exported, RowsError> {
    let mut export = [0; 16];
    getrandom::fill(&mut export).map_err(|_| KeyError::NoRandomness)?;
    out.write_all(MAGIC)?;
    out.write_all(&[VERSION])?;
    out.write_all(&export)?;
    let mut number = 0;
    let mut frame = |kind: u8, plain: &[u8]| -> Result<(), RowsError> {
        let sealed = key.seal(&place(&export, number, kind), plain)?;
        let len = u32::try_from(sealed.len()).map_err(|_| RowsError::Malformed { what: "a row too long" })?;
        out.write_all(&[kind])?;
        out.write_all(&len.to_be_bytes())?;
        out.write_all(&sealed)?;
        number += 1;
        Ok(())
    };
    let (mut writer, mut tally) = (SegmentWriter::default(), Tally::default());
    let past_every_key = [0xff; KEY_LEN_BYTES_MAX + 1];
    let mut rows = snapshot.scan(b"", &past_every_key)?;
    while let Some((row, versioned)) = rows.next()? {
        if writer.is_full_for(&row, &versioned.value) {
            frame(SEGMENT, &writer.take_counted(&mut tally))?;
        }
        writer.row(&row, versioned.revision, Some(&versioned.value));
    }
    if !writer.is_empty() {
        frame(SEGMENT, &writer.take_counted(&mut tally))?;
    }
    let trailer = tally.trailer();
    frame(TRAILER, &trailer.encode())?;
    out.flush()?;
    Ok(Exported { revision: snapshot.revision(), rows: trailer.rows, digest: trailer.digest })
}

/// Reads frames and opens them.
struct Reader<'a> {
    from: &'a mut dyn io::Read,
    key: &'a RecordKey,
    export: [u8; 16],
    number: u64,
    tally: Tally,
}

impl<'a> Reader<'a> {
    fn new(from: &'a mut dyn io::Read, key: &'a RecordKey) -> Result<Self, RowsError> {
        let mut head = [0; 9];
        from.read_exact(&mut head).map_err(incomplete)?;
        if &head[..8] != MAGIC {
            return Err(RowsError::Malformed { what: "the first bytes are others" });
        }
        if head[8] != VERSION {
            return Err(RowsError::Malformed { what: "of another version" });
        }
        let mut export = [0; 16];
        from.read_exact(&mut export).map_err(incomplete)?;
        Ok(Self { from, key, export, number: 0, tally: Tally::default() })
    }

    /// The next segment; `None` when the trailer was read and everything before it adds up.
    fn next(&mut self) -> Result<Option<Segment>, RowsError> {
        let mut head = [0; 5];
        self.from.read_exact(&mut head).map_err(incomplete)?;
        let [kind, len @ ..] = head;
        let len = u32::from_be_bytes(len) as usize;
        if len > FRAME_BYTES_MAX || !matches!(kind, SEGMENT | TRAILER) {
            return Err(RowsError::Malformed { what: "a frame that no export has" });
        }
        let mut sealed = vec![0; len];
        self.from.read_exact(&mut sealed).map_err(incomplete)?;
        let plain = self.key.open(&place(&self.export, self.number, kind), &sealed)?;
        self.number += 1;
        if kind == TRAILER {
            let trailer = Trailer::decode(&plain).map_err(|_| RowsError::Malformed { what: "the trailer" })?;
            return if trailer == self.tally.trailer() { Ok(None) } else { Err(RowsError::Incomplete) };
        }
        let segment = Segment::decode(&plain).map_err(|_| RowsError::Malformed { what: "a segment" })?;
        self.tally.add(&plain, segment.rows.len() as u64, segment.commits.len() as u64);
        Ok(Some(segment))
    }

    fn exported(&self) -> Exported {
        let trailer = self.tally.trailer();
        Exported { revision: Revision(0), rows: trailer.rows, digest: trailer.digest }
    }
}

fn incomplete(error: io::Error) -> RowsError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => RowsError::Incomplete,
        _ => error.into(),
    }
}

/// Reads an export to its end and checks all of it, and changes nothing.
pub fn verify_rows(from: &mut dyn io::Read, key: &RecordKey) -> Result<Exported, RowsError> {
    let mut reader = Reader::new(from, key)?;
    while reader.next()?.is_some() {}
    Ok(reader.exported())
}

/// Fills an empty store. It must be thrown away if this fails in the middle: [`verify_rows`] first tells whether the
/// stream will. Reads block, so `from` should be a file.
pub async fn import_rows(
    from: &mut (dyn io::Read + Send),
    key: &RecordKey,
    store: &dyn MetaStore,
) -> Result<Exported, RowsError> {
    if store.latest_revision().await? != Revision(0) {
        return Err(RowsError::NotEmpty);
    }
    let mut reader = Reader::new(from, key)?;
    while let Some(segment) = reader.next()? {
        let expected = segment.rows.iter().map(|(row, ..)| Expectation { key: row.clone(), revision: None }).collect();
        let writes = segment.rows.into_iter().map(|(row, _, value)| Write { key: row, value }).collect();
        let commit = Commit { id: CommitId::random(), expected, writes };
        match store.commit(commit).await? {
            CommitOutcome::Committed(_) => {}
            CommitOutcome::Conflict { .. } => return Err(RowsError::NotEmpty),
        }
    }
    Ok(reader.exported())
}
