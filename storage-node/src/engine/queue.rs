//! The bounded queue in front of a disk's writer.

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use valv_disk_format::{HiddenExtents, Position};
use valv_shard_api::{NewShard, ShardError};
use valv_types::ShardKey;

/// Who waits for an operation, and the room in the queue that it holds until it is answered.
pub(crate) struct Ack {
    answer: oneshot::Sender<Result<(), ShardError>>,
    _room: Option<OwnedSemaphorePermit>,
}

impl Ack {
    pub(crate) fn new(room: Option<OwnedSemaphorePermit>) -> (Self, oneshot::Receiver<Result<(), ShardError>>) {
        let (answer, receiver) = oneshot::channel();
        (Self { answer, _room: room }, receiver)
    }

    /// Answers. Whoever asked may have gone: that changes nothing here.
    pub(crate) fn send(self, result: Result<(), ShardError>) {
        let _ = self.answer.send(result);
    }
}

/// A record to be moved out of an extent that is being compacted. Its sequence stays.
pub(crate) enum CopyItem {
    Put { key: ShardKey, sequence: u64, from: Position, generation: u32, codec: u8, table: Bytes, payload: Bytes },
    Delete { key: ShardKey, sequence: u64, hides: HiddenExtents },
}

/// What the writer is asked to do.
pub(crate) enum Operation {
    Put(NewShard, Ack),
    Delete(Vec<ShardKey>, Ack),
    Copy(Vec<CopyItem>, Ack),
    /// Answered when everything before it is done and the index is durable.
    Flush(Ack),
}

/// Bytes that a delete takes while it is in a group: its record and what is staged for it.
pub(crate) const DELETE_BYTES: usize = 256;

impl Operation {
    /// What the operation adds to the size of a group.
    fn group_bytes(&self) -> usize {
        match self {
            Self::Put(shard, _) => shard.payload.len(),
            Self::Copy(items, _) => items
                .iter()
                .map(|item| match item {
                    CopyItem::Put { payload, .. } => payload.len(),
                    CopyItem::Delete { .. } => 0,
                })
                .sum(),
            Self::Delete(keys, _) => keys.len() * DELETE_BYTES,
            Self::Flush(_) => 0,
        }
    }
}

/// How a run of the engine ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Everything queued is written and the index flushed.
    Clean,
    /// At once, as if the process had been killed: what is queued is refused.
    Abandon,
}

/// A record that a read found damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Damaged {
    pub(crate) key: ShardKey,
    pub(crate) sequence: u64,
}

/// Damaged records that wait to be marked. Reads of them fail in any case, so more may be dropped.
const DAMAGED_MAX: usize = 1024;

#[derive(Default)]
struct Inner {
    operations: VecDeque<Operation>,
    damaged: Vec<Damaged>,
    stop: Option<Stop>,
    /// The writer has ended: nobody will answer any more.
    closed: bool,
}

/// Operations in the order in which they will be written. Its length is bounded by the permits that they hold.
#[derive(Default)]
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    ready: Condvar,
}

/// What the writer takes at once.
pub(crate) struct Taken {
    pub(crate) operations: Vec<Operation>,
    pub(crate) damaged: Vec<Damaged>,
    pub(crate) stop: Option<Stop>,
}

impl Queue {
    /// Queues an operation; `false` if the engine is closing, and the operation's answer is then dropped.
    pub(crate) fn push(&self, operation: Operation) -> bool {
        let mut inner = self.inner.lock();
        if inner.closed || inner.stop.is_some() {
            return false;
        }
        inner.operations.push_back(operation);
        drop(inner);
        self.ready.notify_one();
        true
    }

    /// Queues the marking of a damaged record.
    pub(crate) fn push_damaged(&self, damaged: Damaged) {
        let mut inner = self.inner.lock();
        if inner.damaged.len() < DAMAGED_MAX && !inner.damaged.contains(&damaged) {
            inner.damaged.push(damaged);
            drop(inner);
            self.ready.notify_one();
        }
    }

    /// Tells the writer to end. The first one to say how wins, except that abandoning always does.
    pub(crate) fn stop(&self, stop: Stop) {
        let mut inner = self.inner.lock();
        if inner.stop.is_none() || stop == Stop::Abandon {
            inner.stop = Some(stop);
        }
        drop(inner);
        self.ready.notify_one();
    }

    /// Refuses everything from now on and gives back what was still queued.
    pub(crate) fn close(&self) -> VecDeque<Operation> {
        let mut inner = self.inner.lock();
        inner.closed = true;
        std::mem::take(&mut inner.operations)
    }

    /// Waits for work, at most `timeout`. Takes what is there, up to `bytes_max` and `count_max` operations
    /// (at least one): what arrives while the previous group is being synced makes the next one, and a lone request
    /// on an idle disk is never delayed.
    pub(crate) fn take(&self, bytes_max: usize, count_max: usize, timeout: Duration) -> Taken {
        let mut inner = self.inner.lock();
        if inner.operations.is_empty() && inner.damaged.is_empty() && inner.stop.is_none() {
            self.ready.wait_for(&mut inner, timeout);
        }
        let damaged = std::mem::take(&mut inner.damaged);
        let mut operations = Vec::with_capacity(inner.operations.len().min(count_max));
        let mut bytes = 0;
        while operations.len() < count_max {
            let Some(next) = inner.operations.front() else { break };
            bytes += next.group_bytes();
            if bytes > bytes_max && !operations.is_empty() {
                break;
            }
            operations.extend(inner.operations.pop_front());
        }
        let stop = match inner.stop {
            Some(Stop::Clean) if !inner.operations.is_empty() => None,
            other => other,
        };
        Taken { operations, damaged, stop }
    }
}
