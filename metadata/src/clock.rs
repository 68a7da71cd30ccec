//! Cluster time: what retention is judged by.
//!
//! Invariants: it never runs backwards, also not over restarts and between services; and it advances no faster than time
//! really passes while a service runs, so setting a machine's clock forward ends no retention early. While no service
//! runs, cluster time stands still: retention then lasts longer than its date says by the machine's clock, which is the
//! safe side. Catching up by a larger step is a decision of two people (`approvals`), not of a clock.

use crate::attempt::{self, Attempt, store_error};
use crate::records::{self, ClockRecord};
use crate::rows::Rows;
use crate::store::MetaStore;
use parking_lot::Mutex;
use std::time::Instant;
use valv_metadata_api::MetadataError;
use valv_types::{CommitId, TimestampMicros};

/// A lag behind the machine's clock that is worth a line in the log at the start, in seconds.
const LAG_WARN_SECS: u64 = 3600;

#[derive(Debug)]
struct Anchor {
    /// Cluster time at ...
    time: TimestampMicros,
    /// ... this instant of the monotonic clock.
    at: Instant,
}

/// A service's view of cluster time.
#[derive(Debug)]
pub(crate) struct ClusterClock(Mutex<Anchor>);

impl ClusterClock {
    /// Begins at the persisted high-water mark; a new store begins at the machine's clock.
    pub(crate) async fn open(store: &dyn MetaStore, rows: &Rows) -> Result<Self, MetadataError> {
        let wall = TimestampMicros::now();
        let time = match store.get(&rows.clock()).await.map_err(store_error)? {
            Some(row) => records::decode::<ClockRecord>("cluster clock", &row.value)?.high_water,
            None => wall,
        };
        let lag = wall.as_secs().saturating_sub(time.as_secs());
        if lag > LAG_WARN_SECS {
            tracing::warn!(
                lag_secs = lag,
                "cluster time is behind this machine's clock; retention lasts longer by that"
            );
        }
        Ok(Self(Mutex::new(Anchor { time, at: Instant::now() })))
    }

    /// Cluster time now.
    pub(crate) fn now(&self) -> TimestampMicros {
        let anchor = self.0.lock();
        let elapsed = u64::try_from(anchor.at.elapsed().as_micros()).unwrap_or(u64::MAX);
        TimestampMicros(anchor.time.0.saturating_add(elapsed))
    }

    /// Goes on at `time` if that is later: another service has really seen it.
    fn raise(&self, time: TimestampMicros) {
        let mut anchor = self.0.lock();
        let elapsed = u64::try_from(anchor.at.elapsed().as_micros()).unwrap_or(u64::MAX);
        if time.0 > anchor.time.0.saturating_add(elapsed) {
            *anchor = Anchor { time, at: Instant::now() };
        }
    }

    /// Takes over what others persisted, and persists what this service has seen. Called every few seconds: what a
    /// crash forgets is at most that, and only makes retention longer.
    pub(crate) async fn persist(&self, store: &dyn MetaStore, rows: &Rows) -> Result<(), MetadataError> {
        let row = store.get(&rows.clock()).await.map_err(store_error)?;
        if let Some(row) = &row {
            self.raise(records::decode::<ClockRecord>("cluster clock", &row.value)?.high_water);
        }
        let mut attempt = Attempt::default();
        attempt.expect(rows.clock(), row.as_ref());
        attempt.put(rows.clock(), records::encode(&ClockRecord { high_water: self.now() }));
        // A conflict means that another service persisted at this moment: the next pass takes that over.
        attempt::commit(store, CommitId::random(), attempt).await.map(|_| ())
    }

    /// Moves cluster time forward to `to`, for every service of the cell: a decision of people, never of a clock.
    pub(crate) async fn step(
        &self,
        store: &dyn MetaStore,
        rows: &Rows,
        to: TimestampMicros,
    ) -> Result<(), MetadataError> {
        self.raise(to);
        self.persist(store, rows).await
    }

    /// Lets a test see time pass.
    #[cfg(test)]
    pub(crate) fn advance_secs(&self, secs: u64) {
        let mut anchor = self.0.lock();
        anchor.time = anchor.time.plus_secs(secs);
    }

    /// Lets a test try several ways on from one moment.
    #[cfg(test)]
    pub(crate) fn go_back_to(&self, time: TimestampMicros) {
        *self.0.lock() = Anchor { time, at: Instant::now() };
    }
}
