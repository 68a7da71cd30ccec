//! The single writer of a disk: gathers what is queued, writes it in one go, syncs once, then answers everyone.
//!
//! Durability: an operation is answered `Ok` after the fdatasync that covers all its records, and after the index shows
//! them. A group never spans extents: before an extent is left, what was gathered for it is committed and the extent is
//! sealed and synced, so only the newest extent can have a torn tail.
//!
//! Crash consistency: what a crash leaves of an unanswered group is recognised by recovery, since every record
//! names the position up to which the disk was durable when it was written. A new extent gets its name only after its
//! header is durable and its predecessor sealed.

use super::allocate::{AllocateError, Purpose, prepare, purpose_of};
use super::index::{Cursor, Entry};
use super::io::write_all_at;
use super::queue::{Ack, CopyItem, Damaged, Operation, Stop};
use super::shared::{ExtentFile, Shared};
use super::stage::Staged;
use bytes::Bytes;
use std::fs::File;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::{Duration, Instant};
use valv_disk_format::{
    EXTENT_HEADER_LEN, ExtentId, HiddenExtents, Position, RECORD_ALIGN, RECORD_HEADER_LEN, RecordBody, RecordHeader,
    record_len, table_crc,
};
use valv_shard_api::{NewShard, ShardError};
use valv_types::ShardKey;

/// How long the writer sleeps when nothing happens, between looks at whether the index should be flushed.
const IDLE_TICK: Duration = Duration::from_secs(1);
static PADDING: [u8; RECORD_ALIGN as usize] = [0; RECORD_ALIGN as usize];

/// The extent that is being appended to.
struct Active {
    file: Arc<ExtentFile>,
    handle: Arc<File>,
    len: u64,
    /// End of what is durable.
    end: u64,
}

/// Where recovery left the disk.
pub(crate) struct Start {
    /// An extent that may be continued, after a clean end.
    pub(crate) active: Option<Position>,
    pub(crate) next_extent: ExtentId,
    pub(crate) next_sequence: u64,
    pub(crate) durable: Position,
}

/// A record on its way to the disk. The payload is the caller's buffer, not a copy.
struct Piece {
    header: [u8; RECORD_HEADER_LEN],
    table: Bytes,
    payload: Bytes,
    padding: usize,
}

/// What will be made durable together.
struct Group {
    pieces: Vec<Piece>,
    staged: Staged,
    acks: Vec<Ack>,
    start: u64,
    end: u64,
}

impl Group {
    fn at(end: u64) -> Self {
        Self { pieces: Vec::new(), staged: Staged::default(), acks: Vec::new(), start: end, end }
    }

    fn fail(self, error: &ShardError) {
        self.acks.into_iter().for_each(|ack| ack.send(Err(error.clone())));
    }
}

pub(crate) struct Writer {
    shared: Arc<Shared>,
    active: Option<Active>,
    next_extent: ExtentId,
    next_sequence: u64,
    durable: Position,
    unflushed_bytes: u64,
    is_index_dirty: bool,
    last_commit: Instant,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, start: Start) -> io::Result<Self> {
        let active = match start.active {
            Some(position) => match shared.extent(position.extent) {
                Some(file) => {
                    let handle = file.handle()?;
                    let len = handle.metadata()?.len();
                    Some(Active { file, handle, len, end: position.offset })
                }
                None => None,
            },
            None => None,
        };
        Ok(Self {
            shared,
            active,
            next_extent: start.next_extent,
            next_sequence: start.next_sequence,
            durable: start.durable,
            unflushed_bytes: 0,
            is_index_dirty: true,
            last_commit: Instant::now(),
        })
    }

    /// Runs until the queue is stopped.
    pub(crate) fn run(mut self) {
        loop {
            let config = &self.shared.config;
            let taken = self.shared.queue.take(config.group_bytes, config.group_requests, IDLE_TICK);
            if taken.stop == Some(Stop::Abandon) {
                let away = ShardError::Away { disk: self.shared.disk };
                refuse(taken.operations, &away);
                break;
            }
            self.process(taken.operations, taken.damaged);
            if taken.stop == Some(Stop::Clean) {
                self.finish();
                break;
            }
            self.flush_index_when_due();
        }
        let away = ShardError::Away { disk: self.shared.disk };
        refuse(self.shared.queue.close(), &away);
    }

    fn process(&mut self, operations: Vec<Operation>, damaged: Vec<Damaged>) {
        if operations.is_empty() && damaged.is_empty() {
            return;
        }
        let requests = operations.len();
        let mut group = Group::at(self.end());
        let mut flushes = Vec::new();
        for operation in operations {
            match operation {
                Operation::Put(shard, ack) => {
                    let result = self.stage_put(&mut group, shard);
                    settle(&mut group, ack, result);
                }
                Operation::Delete(keys, ack) => {
                    let result = keys.into_iter().try_for_each(|key| self.stage_delete(&mut group, key));
                    settle(&mut group, ack, result);
                }
                Operation::Copy(items, ack) => {
                    let result = items.into_iter().try_for_each(|item| self.stage_copy(&mut group, item));
                    settle(&mut group, ack, result);
                }
                Operation::Flush(ack) => flushes.push(ack),
            }
        }
        for Damaged { key, sequence } in damaged {
            if let Err(error) = group.staged.quarantine(&self.shared.index, key, sequence) {
                self.shared.index_failed(error);
            }
        }
        if requests > 0 {
            self.shared.metrics.group_requests.observe(requests as f64);
        }
        // A failure has been answered to everyone whom it concerns.
        let _ = self.commit(group);
        for ack in flushes {
            let result = self.shared.index.flush(true).map_err(|error| self.shared.index_failed(error));
            self.is_index_dirty &= result.is_err();
            ack.send(result);
        }
    }

    fn stage_put(&mut self, group: &mut Group, shard: NewShard) -> Result<(), ShardError> {
        let purpose = purpose_of(&shard.key);
        if self.shared.space.is_full() && purpose == Purpose::Put {
            return Err(ShardError::Full { disk: self.shared.disk });
        }
        let sequence = self.take_sequence();
        let codec = shard.codec as u8;
        self.append_put(group, shard.key, sequence, shard.generation, codec, shard.block_hashes, shard.payload, purpose)
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of one record")]
    fn append_put(
        &mut self,
        group: &mut Group,
        key: ShardKey,
        sequence: u64,
        generation: u32,
        codec: u8,
        table: Bytes,
        payload: Bytes,
        purpose: Purpose,
    ) -> Result<(), ShardError> {
        // `Disk::put` has checked the length.
        let len_bytes = u32::try_from(payload.len()).map_err(|_| ShardError::Malformed { what: "shard too long" })?;
        let place = self.room(group, record_len(len_bytes), purpose)?;
        let body = RecordBody::Put { key, generation, codec, len_bytes, table_crc: table_crc(&table) };
        let entry = Entry { place, sequence, oldest: place.extent, len_bytes, generation, codec, quarantined: false };
        group.staged.put(&self.shared.index, key, entry).map_err(|error| self.shared.index_failed(error))?;
        self.push(group, place, sequence, body, table, payload);
        Ok(())
    }

    fn stage_delete(&mut self, group: &mut Group, key: ShardKey) -> Result<(), ShardError> {
        let found = group.staged.get(&self.shared.index, &key).map_err(|error| self.shared.index_failed(error))?;
        // A key that is not there needs no record: whatever older puts of it exist are hidden by earlier deletes.
        let Some(old) = found else {
            return if self.shared.is_poisoned() { Err(self.read_only()) } else { Ok(()) };
        };
        let sequence = self.take_sequence();
        let hides = HiddenExtents { first: old.oldest, last: old.place.extent };
        self.append_delete(group, key, sequence, hides)
    }

    fn append_delete(
        &mut self,
        group: &mut Group,
        key: ShardKey,
        sequence: u64,
        hides: HiddenExtents,
    ) -> Result<(), ShardError> {
        let place = self.room(group, record_len(0), Purpose::FreeSpace)?;
        group
            .staged
            .delete(&self.shared.index, key, sequence, hides, place.extent)
            .map_err(|error| self.shared.index_failed(error))?;
        self.push(group, place, sequence, RecordBody::Delete { key, hides }, Bytes::new(), Bytes::new());
        Ok(())
    }

    fn stage_copy(&mut self, group: &mut Group, item: CopyItem) -> Result<(), ShardError> {
        match item {
            CopyItem::Put { key, sequence, from, generation, codec, table, payload } => {
                let now =
                    group.staged.get(&self.shared.index, &key).map_err(|error| self.shared.index_failed(error))?;
                // Replaced, deleted or quarantined since it was read: a dead put must never be copied past its delete.
                if now.is_none_or(|entry| entry.sequence != sequence || entry.place != from || entry.quarantined) {
                    return Ok(());
                }
                self.append_put(group, key, sequence, generation, codec, table, payload, Purpose::FreeSpace)
            }
            CopyItem::Delete { key, sequence, hides } => self.append_delete(group, key, sequence, hides),
        }
    }

    fn push(
        &mut self,
        group: &mut Group,
        place: Position,
        sequence: u64,
        body: RecordBody,
        table: Bytes,
        payload: Bytes,
    ) {
        let header = RecordHeader { position: place, sequence, durable: self.durable, body };
        let whole = header.record_len();
        let padding = whole as usize - RECORD_HEADER_LEN - table.len() - payload.len();
        group.end = place.offset + whole;
        group.pieces.push(Piece { header: header.encode(), table, payload, padding });
    }

    fn take_sequence(&mut self) -> u64 {
        self.next_sequence += 1;
        self.next_sequence - 1
    }

    fn end(&self) -> u64 {
        self.active.as_ref().map_or(0, |active| active.end)
    }

    fn read_only(&self) -> ShardError {
        ShardError::ReadOnly { disk: self.shared.disk }
    }

    /// The place of the next record, after moving on to a new extent if it does not fit.
    fn room(&mut self, group: &mut Group, record_len: u64, purpose: Purpose) -> Result<Position, ShardError> {
        if self.shared.is_poisoned() {
            return Err(self.read_only());
        }
        if let Some(active) = &self.active
            && group.end + record_len + RECORD_HEADER_LEN as u64 <= active.len
        {
            return Ok(Position { extent: active.file.id, offset: group.end });
        }
        // Everything gathered so far belongs to the old extent.
        self.commit(std::mem::replace(group, Group::at(0)))?;
        self.roll(record_len, purpose)?;
        *group = Group::at(self.end());
        match &self.active {
            Some(active) => Ok(Position { extent: active.file.id, offset: active.end }),
            None => Err(self.read_only()),
        }
    }

    /// Moves on to a new extent.
    fn roll(&mut self, record_len: u64, purpose: Purpose) -> Result<(), ShardError> {
        let shared = self.shared.clone();
        let unborn = match prepare(&shared, self.next_extent, self.next_sequence, record_len, purpose) {
            Ok(unborn) => unborn,
            Err(AllocateError::Full) => return Err(ShardError::Full { disk: shared.disk }),
            Err(AllocateError::Io(error)) => return Err(self.broken("making an extent", error)),
        };
        self.seal()?;
        let (id, len) = (self.next_extent, unborn.len);
        let made = unborn.publish(&shared).and_then(|file| Ok((file.handle()?, file)));
        let (handle, file) = made.map_err(|error| self.broken("naming an extent", error))?;
        self.next_extent = ExtentId(id.0 + 1);
        self.active = Some(Active { file, handle, len, end: EXTENT_HEADER_LEN });
        self.durable = Position { extent: id, offset: EXTENT_HEADER_LEN };
        let mut staged = Staged::default();
        staged.end(id, EXTENT_HEADER_LEN, false);
        self.commit_index(staged)
    }

    /// Closes the active extent with a seal, so that its end can be told from damage for ever.
    fn seal(&mut self) -> Result<(), ShardError> {
        let Some(active) = self.active.take() else { return Ok(()) };
        let sequence = self.take_sequence();
        let place = Position { extent: active.file.id, offset: active.end };
        let seal = RecordHeader { position: place, sequence, durable: self.durable, body: RecordBody::Seal }.encode();
        let io = &*self.shared.config.io;
        write_all_at(io, &active.handle, &mut [IoSlice::new(&seal)], place.offset)
            .and_then(|()| io.sync_data(&active.handle))
            .map_err(|error| self.broken("sealing an extent", error))?;
        self.durable.offset = place.offset + RECORD_HEADER_LEN as u64;
        let mut staged = Staged::default();
        staged.end(place.extent, self.durable.offset, true);
        self.commit_index(staged)
    }

    /// Writes, syncs, shows in the index, answers. On an error everyone in the group is told, and so is the caller.
    fn commit(&mut self, mut group: Group) -> Result<(), ShardError> {
        let acks = std::mem::take(&mut group.acks);
        let result = self.make_durable(group);
        let failed = Group { acks, ..Group::at(0) };
        match &result {
            Ok(()) => failed.acks.into_iter().for_each(|ack| ack.send(Ok(()))),
            Err(error) => failed.fail(error),
        }
        result
    }

    fn make_durable(&mut self, mut group: Group) -> Result<(), ShardError> {
        if !group.pieces.is_empty() {
            let Some(active) = &self.active else { return Err(self.read_only()) };
            let mut slices = Vec::with_capacity(group.pieces.len() * 4);
            for piece in &group.pieces {
                let parts = [&piece.header[..], &piece.table, &piece.payload, &PADDING[..piece.padding]];
                slices.extend(parts.into_iter().filter(|part| !part.is_empty()).map(IoSlice::new));
            }
            let io = &*self.shared.config.io;
            if let Err(error) = write_all_at(io, &active.handle, &mut slices, group.start) {
                return Err(self.broken("a write", error));
            }
            let started = Instant::now();
            if let Err(error) = io.sync_data(&active.handle) {
                return Err(self.broken("fdatasync", error));
            }
            let metrics = &self.shared.metrics;
            metrics.sync_seconds.observe(started.elapsed().as_secs_f64());
            metrics.syncs.inc();
            metrics.written_bytes.inc_by(group.end - group.start);
            let id = active.file.id;
            self.unflushed_bytes += group.end - group.start;
            self.durable = Position { extent: id, offset: group.end };
            group.staged.end(id, group.end, false);
            if let Some(active) = &mut self.active {
                active.end = group.end;
            }
        }
        if group.staged.is_empty() {
            return Ok(());
        }
        self.commit_index(group.staged)
    }

    fn commit_index(&mut self, staged: Staged) -> Result<(), ShardError> {
        let shared = &self.shared;
        // A cursor must never pass over a batch that was lost.
        if shared.is_index_broken() {
            return Err(shared.io_error(io::Error::other("the index has failed and is not yet rebuilt")));
        }
        let cursor = self.cursor(0);
        self.is_index_dirty = true;
        self.last_commit = Instant::now();
        staged.commit(&shared.index, &shared.book, Some(&cursor)).map_err(|error| shared.index_failed(error))
    }

    fn cursor(&self, clean_opened: u64) -> Cursor {
        Cursor {
            formatted: self.shared.superblock.formatted,
            position: self.durable,
            next_sequence: self.next_sequence,
            clean_opened,
        }
    }

    /// After a failed write nothing more is written to this disk in this run.
    fn broken(&self, what: &str, error: io::Error) -> ShardError {
        self.shared.poison(what, &error);
        self.shared.io_error(error)
    }

    fn flush_index_when_due(&mut self) {
        let config = &self.shared.config;
        let is_idle = self.is_index_dirty && self.last_commit.elapsed() >= config.index_flush_idle;
        if !is_idle && self.unflushed_bytes < config.index_flush_bytes {
            return;
        }
        match self.shared.index.flush(false) {
            Ok(()) => {
                self.is_index_dirty = false;
                self.unflushed_bytes = 0;
            }
            Err(error) => {
                self.shared.index_failed(error);
            }
        }
    }

    /// The end of a clean run: the index covers everything and says so.
    fn finish(&mut self) {
        if self.shared.is_poisoned() || self.shared.is_index_broken() {
            return;
        }
        let mut batch = super::index::Batch::default();
        batch.cursor(&self.cursor(self.shared.superblock.opened));
        if let Err(error) = self.shared.index.write(batch).and_then(|()| self.shared.index.flush(true)) {
            self.shared.index_failed(error);
        }
    }
}

fn refuse(operations: impl IntoIterator<Item = Operation>, error: &ShardError) {
    for operation in operations {
        match operation {
            Operation::Put(_, ack) | Operation::Delete(_, ack) | Operation::Copy(_, ack) | Operation::Flush(ack) => {
                ack.send(Err(error.clone()));
            }
        }
    }
}

/// An operation whose records are staged is answered with its group; one that failed is answered at once.
fn settle(group: &mut Group, ack: Ack, result: Result<(), ShardError>) {
    match result {
        Ok(()) => group.acks.push(ack),
        Err(error) => ack.send(Err(error)),
    }
}
