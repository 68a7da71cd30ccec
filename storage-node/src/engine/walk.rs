//! Walks the records of an extent file, in order, over damage if need be.

use super::io::read_at;
use rustix::fs::SeekFrom;
use std::fs::File;
use std::io;
use valv_disk_format::{
    ExtentId, FormatError, Position, RECORD_ALIGN, RECORD_HEADER_LEN, RECORD_MAGIC, RecordHeader, table_len,
};

/// Read at once while walking: a header and the table of a 7 MiB shard, or many small records.
const WINDOW_BYTES: usize = 16 * 1024;
/// Read at once while looking for the next intact header.
const SCAN_BYTES: usize = 1 << 20;

/// What lies at an offset.
#[derive(Debug)]
pub(crate) enum Step {
    /// A record with an intact header. Its payload was not looked at.
    Record {
        header: RecordHeader,
        /// Its table of block hashes, if that is intact.
        table: Option<Vec<u8>>,
    },
    /// The seal: nothing follows.
    Sealed,
    /// Not a record: damage, a torn write, or the end of what was written.
    Nothing,
}

/// Reads one extent file through a small window.
pub(crate) struct Walker<'a> {
    file: &'a File,
    extent: ExtentId,
    file_len: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl<'a> Walker<'a> {
    pub(crate) fn new(file: &'a File, extent: ExtentId) -> io::Result<Self> {
        let file_len = file.metadata()?.len();
        Ok(Self { file, extent, file_len, window: Vec::new(), window_at: 0 })
    }

    pub(crate) fn file_len(&self) -> u64 {
        self.file_len
    }

    /// What lies at `offset`.
    pub(crate) fn step(&mut self, offset: u64) -> io::Result<Step> {
        let extent = self.extent;
        let file_len = self.file_len;
        let head = self.bytes(offset, RECORD_HEADER_LEN)?;
        let header = match RecordHeader::decode(head, Position { extent, offset }) {
            Ok(header) => header,
            // Intact but of a newer version: to take it for damage, or for a torn tail, would destroy it.
            Err(FormatError::Version(version)) => {
                return Err(io::Error::other(format!("extent {extent} holds records of version {version}")));
            }
            Err(_) => return Ok(Step::Nothing),
        };
        // An intact header whose record would leave the file: the file was cut.
        if offset.saturating_add(header.record_len()) > file_len {
            return Ok(Step::Nothing);
        }
        if matches!(header.body, valv_disk_format::RecordBody::Seal) {
            return Ok(Step::Sealed);
        }
        let table_len = table_len(header.payload_len_bytes());
        let table = self.bytes(offset + RECORD_HEADER_LEN as u64, table_len)?;
        let table = header.check_table(table).is_ok().then(|| table.to_vec());
        Ok(Step::Record { header, table })
    }

    /// The first offset at or after `from` that holds an intact header written for exactly that place.
    pub(crate) fn next_intact(&mut self, from: u64) -> io::Result<Option<u64>> {
        let mut at = from.next_multiple_of(RECORD_ALIGN);
        while at + RECORD_HEADER_LEN as u64 <= self.file_len {
            // Preallocated blocks that were never written are holes to SEEK_DATA: a fresh extent is not read through.
            match rustix::fs::seek(self.file, SeekFrom::Data(at)) {
                Ok(data) => at = at.max(data / RECORD_ALIGN * RECORD_ALIGN),
                Err(rustix::io::Errno::NXIO) => return Ok(None),
                // Not every file system can tell.
                Err(_) => {}
            }
            let chunk = read_at(self.file, at, SCAN_BYTES + RECORD_HEADER_LEN)?;
            if chunk.len() < RECORD_HEADER_LEN {
                return Ok(None);
            }
            for start in (0..SCAN_BYTES).step_by(RECORD_ALIGN as usize) {
                let Some(head) = chunk.get(start..start + RECORD_HEADER_LEN) else { break };
                let offset = at + start as u64;
                if head.starts_with(RECORD_MAGIC)
                    && RecordHeader::decode(head, Position { extent: self.extent, offset })
                        .is_ok_and(|header| offset.saturating_add(header.record_len()) <= self.file_len)
                {
                    return Ok(Some(offset));
                }
            }
            at += SCAN_BYTES as u64;
        }
        Ok(None)
    }

    /// `len` bytes at `offset`; fewer at the end of the file.
    fn bytes(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        let inside = |start: u64, have: usize| offset >= start && offset + len as u64 <= start + have as u64;
        if !inside(self.window_at, self.window.len()) {
            self.window = read_at(self.file, offset, len.max(WINDOW_BYTES))?;
            self.window_at = offset;
        }
        let start = (offset - self.window_at) as usize;
        let end = (start + len).min(self.window.len());
        Ok(self.window.get(start..end).unwrap_or_default())
    }
}

/// Whether every block of a payload that starts at `offset` matches its hash. Reads piece by piece.
pub(crate) fn verify_payload(file: &File, offset: u64, len_bytes: u32, table: &[u8]) -> io::Result<bool> {
    let block_len = u64::from(valv_types::BLOCK_LEN_BYTES);
    // 64 blocks are 1 MiB.
    let piece_len = 64 * block_len;
    let mut hashes = table.chunks_exact(valv_disk_format::HASH_LEN);
    let mut at = 0;
    while at < u64::from(len_bytes) {
        let want = piece_len.min(u64::from(len_bytes) - at) as usize;
        let piece = read_at(file, offset + at, want)?;
        if piece.len() < want {
            return Ok(false);
        }
        for block in piece.chunks(block_len as usize) {
            if hashes.next() != Some(blake3::hash(block).as_bytes().as_slice()) {
                return Ok(false);
            }
        }
        at += want as u64;
    }
    Ok(true)
}
