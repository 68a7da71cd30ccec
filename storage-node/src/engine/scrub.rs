//! Verifies every live byte once in a configured period, slowly, from a cursor that survives restarts.

use super::index::{Batch, Entry, ScrubCursor};
use super::shared::Shared;
use std::io;
use std::time::{Duration, Instant};
use valv_shard_api::ScrubProgress;
use valv_types::{BlobId, PoolId, ShardKey, TimestampMicros};

/// What a pass found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScrubOutcome {
    /// Shards that were verified, the corrupt ones among them.
    pub shards: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Shards that were found corrupt now.
    pub corrupt: u64,
}

/// Keys looked up at once.
const STEP_SHARDS: usize = 64;
/// Bytes verified in one go before the maintenance thread looks at its other work.
const STEP_BYTES_MAX: u64 = 32 << 20;

/// The first key there can be.
pub(crate) const FIRST_KEY: ShardKey =
    ShardKey { pool: PoolId(0), placement: 0, blob: BlobId::from_bytes([0; 16]), chunk: 0, shard: 0 };

/// The key after `key`; `None` after the last there can be.
pub(crate) fn successor(key: &ShardKey) -> Option<ShardKey> {
    let mut bytes = key.encode();
    for byte in bytes.iter_mut().rev() {
        let (next, overflow) = byte.overflowing_add(1);
        *byte = next;
        if !overflow {
            return ShardKey::decode(&bytes);
        }
    }
    None
}

/// The scrub of one disk, driven by its maintenance thread.
pub(crate) struct Scrub {
    last: Instant,
    /// Bytes that may be verified now.
    allowance: u64,
}

impl Scrub {
    pub(crate) fn new() -> Self {
        Self { last: Instant::now(), allowance: 0 }
    }

    /// Does what has become due since the last call.
    pub(crate) fn advance(&mut self, shared: &Shared) {
        let elapsed = self.last.elapsed();
        self.last = Instant::now();
        let now_secs = TimestampMicros::now().as_secs();
        let period = shared.config.scrub_period;
        let known = *shared.scrub.lock();
        let fresh =
            ScrubCursor { started_secs: now_secs, verified_bytes: 0, next: FIRST_KEY, previous_started_secs: 0 };
        let mut cursor = match known {
            // A pass that has ended waits for the rest of its period.
            Some(cursor) if cursor.has_ended() => {
                if now_secs.saturating_sub(cursor.started_secs) < period.as_secs() {
                    return;
                }
                ScrubCursor { previous_started_secs: cursor.started_secs, ..fresh }
            }
            Some(cursor) => cursor,
            None => fresh,
        };
        let live_bytes = shared.book.lock().totals().payload_bytes;
        let rate = rate(live_bytes, period).max(shared.config.scrub_bytes_per_second_min);
        let earned = (rate as f64 * elapsed.as_secs_f64()) as u64;
        self.allowance = self.allowance.saturating_add(earned).min(STEP_BYTES_MAX);
        if self.allowance == 0 {
            return;
        }
        match shared.scrub_step(cursor.next, self.allowance) {
            Ok((outcome, next)) => {
                self.allowance = self.allowance.saturating_sub(outcome.bytes);
                cursor.verified_bytes += outcome.bytes;
                cursor.next = next.unwrap_or(FIRST_KEY);
                let done =
                    (cursor.verified_bytes.saturating_mul(1000)).checked_div(live_bytes).unwrap_or(1000).min(1000);
                let permille = if next.is_none() { 1000 } else { done };
                shared.metrics.scrub_progress_permille.set(i64::try_from(permille).unwrap_or(1000));
                // An empty disk has nothing to remember, and must not dirty its index for ever.
                if outcome.shards > 0 {
                    shared.note_scrub(known, cursor);
                } else if cursor.verified_bytes > 0 {
                    let mut noted = shared.scrub.lock();
                    if *noted == known {
                        *noted = Some(cursor);
                    }
                }
            }
            Err(error) => tracing::warn!(disk = %shared.disk, %error, "scrub step failed"),
        }
    }
}

/// Bytes a second that verify `live_bytes` in `period`, with a tenth to spare.
fn rate(live_bytes: u64, period: Duration) -> u64 {
    live_bytes.saturating_add(live_bytes / 10) / period.as_secs().max(1)
}

impl ScrubCursor {
    /// Whether the pass is over: its cursor is back at the first key.
    fn has_ended(&self) -> bool {
        self.next == FIRST_KEY && self.verified_bytes > 0
    }

    /// What is told of it.
    pub(crate) fn progress(&self) -> ScrubProgress {
        ScrubProgress {
            started_secs: self.started_secs,
            next: (!self.has_ended()).then_some(self.next),
            previous_started_secs: (self.previous_started_secs > 0).then_some(self.previous_started_secs),
        }
    }
}

impl Shared {
    /// Notes how far the scrub has come, unless somebody else has noted something since `known` was read: a whole pass
    /// at once says more than a step.
    fn note_scrub(&self, known: Option<ScrubCursor>, cursor: ScrubCursor) {
        let mut noted = self.scrub.lock();
        if *noted != known {
            return;
        }
        let mut batch = Batch::default();
        batch.scrub(&cursor);
        if let Err(error) = self.index.write(batch) {
            self.index_failed(error);
        }
        *noted = Some(cursor);
    }

    /// Notes that every shard was verified in one go that began at `started_secs`. What was under way before ends with it.
    pub(crate) fn note_whole_scrub(&self, started_secs: u64, outcome: &ScrubOutcome) {
        if outcome.bytes == 0 {
            return;
        }
        let known = *self.scrub.lock();
        let previous_started_secs = match known {
            Some(cursor) if cursor.has_ended() => cursor.started_secs,
            Some(cursor) => cursor.previous_started_secs,
            None => 0,
        };
        let verified_bytes = outcome.bytes;
        self.note_scrub(known, ScrubCursor { started_secs, verified_bytes, next: FIRST_KEY, previous_started_secs });
    }

    /// Verifies shards from `from` on, until `bytes_max` are done. Returns where to go on; `None` at the end.
    pub(crate) fn scrub_step(&self, from: ShardKey, bytes_max: u64) -> io::Result<(ScrubOutcome, Option<ShardKey>)> {
        let mut outcome = ScrubOutcome::default();
        let mut next = Some(from);
        while let Some(from) = next {
            if outcome.bytes >= bytes_max {
                break;
            }
            let mut found: Vec<(ShardKey, Entry)> = Vec::with_capacity(STEP_SHARDS);
            self.index
                .scan(&from, |key, entry| {
                    found.push((key, entry));
                    found.len() < STEP_SHARDS
                })
                .map_err(io::Error::other)?;
            next = None;
            let is_last = found.len() < STEP_SHARDS;
            let mut all_done = true;
            for (key, entry) in found {
                if outcome.bytes >= bytes_max {
                    next = Some(key);
                    all_done = false;
                    break;
                }
                next = successor(&key);
                if entry.quarantined {
                    continue;
                }
                outcome.shards += 1;
                outcome.bytes += u64::from(entry.len_bytes);
                self.metrics.scrubbed_bytes.inc_by(u64::from(entry.len_bytes));
                if !self.verify_record(key, &entry)? && self.is_still(key, &entry) {
                    outcome.corrupt += 1;
                    self.damaged(key, entry.sequence);
                }
            }
            if all_done && is_last {
                next = None;
            }
        }
        Ok((outcome, next))
    }

    /// Whether the index still means the same record: one that was moved or deleted meanwhile is not damaged.
    fn is_still(&self, key: ShardKey, entry: &Entry) -> bool {
        matches!(self.index.get(&key), Ok(Some(now)) if now.place == entry.place && now.sequence == entry.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn successors_follow_the_order_of_keys() {
        let last_shard = ShardKey { shard: 255, ..FIRST_KEY };
        assert_eq!(successor(&FIRST_KEY), Some(ShardKey { shard: 1, ..FIRST_KEY }));
        assert_eq!(successor(&last_shard), Some(ShardKey { chunk: 1, ..FIRST_KEY }));
        let last = ShardKey {
            pool: PoolId(u32::MAX),
            placement: u64::MAX,
            blob: BlobId::from_bytes([255; 16]),
            chunk: u32::MAX,
            shard: 255,
        };
        assert_eq!(successor(&last), None);
    }
}
