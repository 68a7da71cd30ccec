//! Opening a disk: finds its extents, brings the index up to them, and decides what the tail of the newest one is.
//!
//! The extents are the truth. The index is used if its cursor fits them, and replayed from there; else it is rebuilt
//! from all of them. A bad record below the highest position that the cursor or any intact record attests as durable is
//! corruption: it is skipped, reported, and recovery goes on. Beyond that position it is a torn tail, which nobody
//! was promised: the extent is sealed there.

use super::folder::{Folder, sync_folder};
use super::index::{Cursor, Entry, Index, IndexError};
use super::io::{ExtentIo, read_at, write_all_at};
use super::shared::ExtentFile;
use super::stage::{Book, Staged};
use super::walk::{Step, Walker, verify_payload};
use super::writer::Start;
use parking_lot::Mutex;
use rocksdb::Cache;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;
use valv_disk_format::{
    EXTENT_HEADER_LEN, ExtentHeader, ExtentId, FormatError, Position, RECORD_ALIGN, RECORD_HEADER_LEN, RecordBody,
    RecordHeader, Superblock,
};
use valv_types::ShardKey;

/// Keys changed per batch: some MiB of memory.
const BATCH_KEYS: usize = 16 * 1024;

/// A disk can't be brought up.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum RecoveryError {
    #[error("the extents can't be read: {0}")]
    Io(#[source] Arc<io::Error>),
    #[error(transparent)]
    Index(#[from] IndexError),
}

impl From<io::Error> for RecoveryError {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

/// A disk brought up.
pub(crate) struct Recovered {
    pub(crate) index: Index,
    pub(crate) book: Mutex<Book>,
    pub(crate) extents: BTreeMap<ExtentId, Arc<ExtentFile>>,
    pub(crate) recycled: Vec<PathBuf>,
    pub(crate) start: Start,
    pub(crate) findings: Findings,
}

/// What recovery came across.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Shards whose record has a damaged table of hashes; they are quarantined.
    pub(crate) quarantined: Vec<ShardKey>,
    /// Damaged stretches whose shards can't be named. A census finds out what is missing.
    pub(crate) lost_regions: u64,
    /// The index was rebuilt from all extents.
    pub(crate) rebuilt: bool,
}

pub(crate) struct Opening<'a> {
    pub(crate) folder: &'a Folder,
    /// As it was before this opening.
    pub(crate) superblock: &'a Superblock,
    pub(crate) io: &'a dyn ExtentIo,
    pub(crate) write_buffer_bytes: usize,
    pub(crate) cache: &'a Cache,
    pub(crate) recycled_max: usize,
    /// Recycled files of another length, from before a change of the configuration, are not kept.
    pub(crate) extent_len_bytes: u64,
}

/// The files in the extents folder.
struct Files {
    extents: BTreeMap<ExtentId, Arc<ExtentFile>>,
    recycled: Vec<PathBuf>,
    /// The highest id that any file has had.
    newest_id: ExtentId,
    /// The highest sequence that an extent's header names.
    sequence: u64,
}

impl Opening<'_> {
    pub(crate) fn run(&self) -> Result<Recovered, RecoveryError> {
        let files = self.find_files()?;
        // Even the cursor of an index that does not fit attests what was durable.
        let mut attested = Position::default();
        if let Some((index, cursor)) = self.usable_index(&files, &mut attested) {
            match self.replay(&files, index, Some(cursor), attested) {
                Err(RecoveryError::Index(error)) => {
                    tracing::warn!(disk = %self.superblock.disk, %error, "index failed in recovery");
                }
                Err(error) => return Err(error),
                Ok(recovered) => return Ok(self.recovered(files, recovered, false)),
            }
        }
        tracing::warn!(disk = %self.superblock.disk, extents = files.extents.len(), "rebuilding the index");
        let index = self.new_index()?;
        let replayed = self.replay(&files, index, None, attested)?;
        replayed.index.flush(true)?;
        // Derived data that nobody needs any more; what stays is removed by the next rebuild.
        let _ = fs::remove_dir_all(self.folder.index_bad());
        let _ = fs::remove_file(self.folder.index_mark());
        Ok(self.recovered(files, replayed, true))
    }

    fn recovered(&self, files: Files, replayed: Replayed, rebuilt: bool) -> Recovered {
        let Replayed { index, book, start, mut findings } = replayed;
        findings.rebuilt = rebuilt;
        Recovered { index, book, extents: files.extents, recycled: files.recycled, start, findings }
    }

    fn find_files(&self) -> Result<Files, RecoveryError> {
        let root = self.folder.extents();
        let mut files = Files { extents: BTreeMap::new(), recycled: Vec::new(), newest_id: ExtentId(0), sequence: 0 };
        let mut removed = false;
        for entry in fs::read_dir(&root)? {
            let path = entry?.path();
            let Some((id, kind)) = parse_name(&path) else {
                tracing::warn!(path = %path.display(), "unknown file among the extents");
                continue;
            };
            files.newest_id = files.newest_id.max(id);
            match kind {
                "ext" => {
                    match self.read_header(&path, id)? {
                        HeaderState::Ours(header) => files.sequence = files.sequence.max(header.sequence),
                        // Each record says for itself where it belongs, so they can be read without it.
                        HeaderState::Damaged => {
                            tracing::error!(extent = %id, "damaged extent header");
                        }
                        HeaderState::Foreign => {
                            tracing::error!(path = %path.display(), "extent of another disk; it is left alone");
                            continue;
                        }
                    }
                    files.extents.insert(id, Arc::new(ExtentFile::new(id, path)));
                }
                "free"
                    if files.recycled.len() < self.recycled_max
                        && fs::metadata(&path)?.len() == self.extent_len_bytes =>
                {
                    files.recycled.push(path);
                }
                "free" | "tmp" => {
                    fs::remove_file(&path)?;
                    removed = true;
                }
                _ => tracing::warn!(path = %path.display(), "unknown file among the extents"),
            }
        }
        if removed {
            sync_folder(&root)?;
        }
        Ok(files)
    }

    fn read_header(&self, path: &std::path::Path, id: ExtentId) -> io::Result<HeaderState> {
        let bytes = read_at(&File::open(path)?, 0, EXTENT_HEADER_LEN as usize)?;
        Ok(match ExtentHeader::decode(&bytes) {
            Ok(header) if header.cluster != self.superblock.cluster || header.disk != self.superblock.disk => {
                HeaderState::Foreign
            }
            Ok(header) if header.extent == id => HeaderState::Ours(header),
            Err(FormatError::Version(version)) => {
                return Err(io::Error::other(format!("extent {id} is of version {version}")));
            }
            Ok(_) | Err(_) => HeaderState::Damaged,
        })
    }

    /// The index, if it is intact, of this folder, and fits the extents that are there.
    fn usable_index(&self, files: &Files, attested: &mut Position) -> Option<(Index, Cursor)> {
        if !self.folder.index().exists() {
            return None;
        }
        let found = Index::open(&self.folder.index(), self.write_buffer_bytes, self.cache).and_then(|index| {
            let cursor = index.cursor()?;
            let stats = index.all_stats()?;
            Ok((index, cursor, stats))
        });
        let (index, cursor, stats) = match found {
            Ok((index, Some(cursor), stats)) => (index, cursor, stats),
            Ok((_, None, _)) => return None,
            Err(error) => {
                tracing::warn!(disk = %self.superblock.disk, %error, "index can't be used");
                return None;
            }
        };
        if cursor.formatted == self.superblock.formatted {
            *attested = cursor.position;
        }
        let at = cursor.position;
        let has_cursor_extent = match files.extents.get(&at.extent) {
            Some(file) => file.handle().and_then(|file| file.metadata()).is_ok_and(|meta| meta.len() >= at.offset),
            None => at.extent == ExtentId(0),
        };
        let known: BTreeMap<_, _> = stats.into_iter().collect();
        let fits = !self.folder.index_mark().exists()
            && cursor.formatted == self.superblock.formatted
            && has_cursor_extent
            // Every extent with something live in it is there, and none before the cursor is unknown.
            && known.iter().all(|(id, stats)| stats.live_shards == 0 || files.extents.contains_key(id))
            && files.extents.range(..=at.extent).all(|(id, _)| known.contains_key(id));
        if !fits {
            tracing::warn!(disk = %self.superblock.disk, "index does not fit the extents");
        }
        fits.then_some((index, cursor))
    }

    /// An empty index. The old one is kept aside until the new one is complete: a crash meanwhile changes nothing,
    /// since the new one has no cursor that fits before it has been filled.
    fn new_index(&self) -> Result<Index, RecoveryError> {
        let (path, bad) = (self.folder.index(), self.folder.index_bad());
        if path.exists() {
            if bad.exists() {
                fs::remove_dir_all(&bad)?;
            }
            fs::rename(&path, &bad)?;
        }
        sync_folder(self.folder.root())?;
        Ok(Index::open(&path, self.write_buffer_bytes, self.cache)?)
    }

    /// Applies everything from the cursor on, or everything there is.
    fn replay(
        &self,
        files: &Files,
        index: Index,
        cursor: Option<Cursor>,
        attested: Position,
    ) -> Result<Replayed, RecoveryError> {
        let known = match cursor {
            Some(_) => {
                let mut known = index.all_stats()?;
                known.retain(|(id, _)| files.extents.contains_key(id));
                known
            }
            None => Vec::new(),
        };
        let next_sequence = cursor.map_or(1, |cursor| cursor.next_sequence).max(files.sequence);
        let mut replay = Replay {
            index,
            book: Mutex::new(Book::new(known)),
            staged: Staged::default(),
            next_sequence,
            // While an index is rebuilt it gets no cursor before it is complete.
            cursor_for: cursor.map(|cursor| cursor.formatted),
            findings: Findings::default(),
        };
        let newest = files.extents.keys().next_back().copied();
        let from = cursor.map_or(Position::default(), |cursor| cursor.position);
        let is_clean = cursor.is_some_and(|cursor| cursor.clean_opened == self.superblock.opened);
        let mut active = None;
        let mut end = from;
        for (id, file) in files.extents.range(from.extent..) {
            let handle = file.handle()?;
            let start = if *id == from.extent { from.offset.max(EXTENT_HEADER_LEN) } else { EXTENT_HEADER_LEN };
            let (known_sealed, is_known) = match replay.book.lock().get(*id) {
                Some(stats) => (stats.sealed, true),
                None => (false, false),
            };
            if known_sealed {
                // Complete in the index: its cursor stands behind the seal.
                end = Position { extent: *id, offset: start };
            } else if Some(*id) != newest {
                let stop = replay.extent(*id, &handle, start, u64::MAX)?;
                replay.staged.end(*id, stop, true);
                end = Position { extent: *id, offset: stop };
            } else if is_clean && is_known {
                end = Position { extent: *id, offset: start };
                active = Some(end);
            } else {
                let attested = if *id == attested.extent { attested.offset } else { 0 };
                let tail = self.newest_extent(&mut replay, *id, &handle, start, attested)?;
                end = Position { extent: *id, offset: tail };
            }
        }
        let cursor = Cursor {
            formatted: self.superblock.formatted,
            position: end,
            next_sequence: replay.next_sequence,
            clean_opened: 0,
        };
        std::mem::take(&mut replay.staged).commit(&replay.index, &replay.book, Some(&cursor))?;
        let start = Start {
            active,
            next_extent: ExtentId(files.newest_id.max(end.extent).0 + 1),
            next_sequence: replay.next_sequence,
            durable: end,
        };
        Ok(Replayed { index: replay.index, book: replay.book, start, findings: replay.findings })
    }

    /// Applies the newest extent and seals it where its good part ends. Returns that end, seal included.
    fn newest_extent(
        &self,
        replay: &mut Replay,
        id: ExtentId,
        file: &File,
        start: u64,
        attested: u64,
    ) -> Result<u64, RecoveryError> {
        let survey = survey(file, id, start, attested, &mut replay.next_sequence)?;
        // What is accepted must be durable before a cursor says so: after kill -9 it may be in the page cache only.
        self.io.sync_data(file)?;
        let stop = replay.extent(id, file, start, survey.tail)?;
        if survey.sealed {
            replay.staged.end(id, stop, true);
            return Ok(stop);
        }
        // Sealing anew, and never appending here again: bytes of writes that were in flight may follow.
        let tail = survey.tail;
        let seal = RecordHeader {
            position: Position { extent: id, offset: tail },
            sequence: replay.next_sequence,
            durable: Position { extent: id, offset: tail },
            body: RecordBody::Seal,
        };
        replay.next_sequence += 1;
        write_all_at(self.io, file, &mut [IoSlice::new(&seal.encode())], tail)?;
        self.io.sync_data(file)?;
        let end = tail + RECORD_HEADER_LEN as u64;
        file.set_len(end)?;
        file.sync_all()?;
        replay.staged.end(id, end, true);
        Ok(end)
    }
}

enum HeaderState {
    Ours(ExtentHeader),
    Damaged,
    Foreign,
}

struct Replayed {
    index: Index,
    book: Mutex<Book>,
    start: Start,
    findings: Findings,
}

fn parse_name(path: &std::path::Path) -> Option<(ExtentId, &str)> {
    let (stem, kind) = path.file_name()?.to_str()?.split_once('.')?;
    // Exactly as they are written: 16 lower-case digits.
    let id = ExtentId(u64::from_str_radix(stem, 16).ok()?);
    (id.to_string() == stem).then_some((id, kind))
}

/// What the newest extent turns out to be.
struct Survey {
    /// Where its good part ends.
    tail: u64,
    /// It has a seal there already.
    sealed: bool,
}

/// Finds the tail of an extent that may have been written to when the run before ended.
fn survey(file: &File, id: ExtentId, start: u64, attested: u64, next_sequence: &mut u64) -> io::Result<Survey> {
    let mut walker = Walker::new(file, id)?;
    // First pass: what do the records attest?
    let mut attested = attested;
    let mut at = start;
    let sealed_at = loop {
        match walker.step(at)? {
            Step::Record { header, .. } => {
                if header.durable.extent == id {
                    attested = attested.max(header.durable.offset);
                }
                *next_sequence = (*next_sequence).max(header.sequence.saturating_add(1));
                at += header.record_len();
            }
            // A seal is written after everything before it was synced.
            Step::Sealed => {
                attested = attested.max(at);
                break Some(at);
            }
            Step::Nothing => match walker.next_intact(at + RECORD_ALIGN)? {
                Some(next) => at = next,
                None => break None,
            },
        }
    };
    if let Some(at) = sealed_at {
        return Ok(Survey { tail: at, sealed: true });
    }
    // Second pass: the first thing wrong at or beyond what is attested is the torn tail. A record there counts only
    // if its payload is whole, since the parts of a write reach the disk in any order.
    let mut at = start;
    let tail = loop {
        match walker.step(at)? {
            Step::Record { header, table } => {
                if at >= attested && !is_whole(file, &header, table.as_deref())? {
                    break at;
                }
                at += header.record_len();
            }
            Step::Sealed => break at,
            Step::Nothing if at >= attested => break at,
            Step::Nothing => match walker.next_intact(at + RECORD_ALIGN)? {
                // A gap that ends beyond what is attested hides where the last durable record ended: what follows
                // was never promised.
                Some(next) if next <= attested => at = next,
                _ => break attested.next_multiple_of(RECORD_ALIGN),
            },
        }
    };
    Ok(Survey { tail, sealed: false })
}

fn is_whole(file: &File, header: &RecordHeader, table: Option<&[u8]>) -> io::Result<bool> {
    let Some(table) = table else { return Ok(false) };
    let payload_at = header.position.offset + RECORD_HEADER_LEN as u64 + table.len() as u64;
    verify_payload(file, payload_at, header.payload_len_bytes(), table)
}

struct Replay {
    index: Index,
    book: Mutex<Book>,
    staged: Staged,
    next_sequence: u64,
    /// The folder's `formatted`, if batches may carry a cursor.
    cursor_for: Option<[u8; 16]>,
    findings: Findings,
}

impl Replay {
    /// Applies the records of an extent from `start` up to `tail`. Returns where they end, seal included.
    fn extent(&mut self, id: ExtentId, file: &File, start: u64, tail: u64) -> Result<u64, RecoveryError> {
        let mut walker = Walker::new(file, id)?;
        let mut at = start;
        // The extent exists in the book from now on, even if nothing is in it.
        self.staged.end(id, at, false);
        while at < tail {
            match walker.step(at)? {
                Step::Record { header, table } => {
                    self.apply(id, &header, table.is_some())?;
                    at += header.record_len();
                    self.staged.end(id, at, false);
                    self.commit_if_large(Position { extent: id, offset: at })?;
                }
                Step::Sealed => return Ok(at + RECORD_HEADER_LEN as u64),
                Step::Nothing => {
                    let next = walker.next_intact(at + RECORD_ALIGN)?.filter(|next| *next <= tail);
                    let end = next.unwrap_or_else(|| tail.min(walker.file_len()).max(at));
                    // The unwritten rest of an extent that lost its seal looks the same; either way a census decides.
                    tracing::error!(extent = %id, from = at, to = end, "damaged stretch of an extent skipped");
                    self.findings.lost_regions += 1;
                    match next {
                        Some(next) => at = next,
                        None => return Ok(at),
                    }
                }
            }
        }
        // At the tail there may be the seal that the survey found.
        match walker.step(at)? {
            Step::Sealed => Ok(at + RECORD_HEADER_LEN as u64),
            Step::Record { .. } | Step::Nothing => Ok(at),
        }
    }

    fn apply(&mut self, id: ExtentId, header: &RecordHeader, is_table_intact: bool) -> Result<(), IndexError> {
        self.next_sequence = self.next_sequence.max(header.sequence.saturating_add(1));
        match header.body {
            RecordBody::Put { key, generation, codec, len_bytes, .. } => {
                let entry = Entry {
                    place: header.position,
                    sequence: header.sequence,
                    oldest: id,
                    len_bytes,
                    generation,
                    codec,
                    quarantined: !is_table_intact,
                };
                if !is_table_intact {
                    self.findings.quarantined.push(key);
                }
                self.staged.put(&self.index, key, entry)
            }
            RecordBody::Delete { key, hides } => self.staged.delete(&self.index, key, header.sequence, hides, id),
            RecordBody::Seal => Ok(()),
        }
    }

    /// Keeps memory bounded. `position` is how far has been applied.
    fn commit_if_large(&mut self, position: Position) -> Result<(), IndexError> {
        if self.staged.len() < BATCH_KEYS {
            return Ok(());
        }
        let next_sequence = self.next_sequence;
        let cursor = self.cursor_for.map(|formatted| Cursor { formatted, position, next_sequence, clean_opened: 0 });
        std::mem::take(&mut self.staged).commit(&self.index, &self.book, cursor.as_ref())
    }
}
