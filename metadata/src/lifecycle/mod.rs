//! Lifecycle: carries out what buckets' rules say, a page after the other.
//!
//! A scan of a snapshot only says what may be due. Each removal is a commit of its own on the paths that clients' deletes
//! take ([`apply`]): it reads the version again, judges the rules again, asks Object Lock without any bypass, and expects
//! every row that its judgement rests on. What changed since the scan is left alone, and the next pass sees it anew.
//!
//! Passes are paced: at most [`ROWS_PER_SLICE`] rows are looked at and about [`REMOVALS_PER_SLICE`] removals made in a
//! second, so that clients' requests never wait behind them. A bucket that can't be read (a shredded key, a corrupt row)
//! is told of once a pass and holds up no other.
//!
//! Time is this machine's clock, as in every version's modification time; retention is judged by cluster time, which
//! no clock can set forward.

mod apply;
mod scan;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use crate::service::{Core, MetadataService};
use apply::Outcome;
use futures_util::{StreamExt as _, stream};
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use scan::{Page, Stage};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use valv_metadata_api::MetadataError;
use valv_types::{BucketId, TimestampMicros};

/// A slice of a pass lasts about this long; what it did not use is waited for.
const SLICE: Duration = Duration::from_secs(1);
/// Rows looked at in a slice. A row takes some microseconds, so this is about a tenth of one core; 20 million objects
/// take seven minutes.
const ROWS_PER_SLICE: usize = 50_000;
/// Removals in a slice, beyond which no further page is begun: three and a half million an hour.
const REMOVALS_PER_SLICE: u64 = 1_000;
/// Keys worked on at once: their commits share the store's syncs.
const KEYS_IN_FLIGHT: usize = 16;

/// What passes have done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LifecycleCounts {
    /// Current versions removed, in buckets without versioning.
    pub expired: u64,
    /// Current versions covered by a delete marker.
    pub covered: u64,
    /// Noncurrent versions removed.
    pub noncurrent: u64,
    /// Delete markers removed that had nothing under them.
    pub markers: u64,
    /// Uploads aborted.
    pub uploads: u64,
    /// Removals that Object Lock refused.
    pub locked: u64,
    /// Removals left to a later pass, because something changed between scan and commit.
    pub left: u64,
    /// Buckets, versions and uploads that could not be dealt with.
    pub failed: u64,
}

impl LifecycleCounts {
    fn removals(&self) -> u64 {
        self.expired + self.covered + self.noncurrent + self.markers + self.uploads
    }

    fn add(&mut self, outcome: Outcome) {
        *match outcome {
            Outcome::Expired => &mut self.expired,
            Outcome::Covered => &mut self.covered,
            Outcome::Noncurrent => &mut self.noncurrent,
            Outcome::Marker => &mut self.markers,
            Outcome::Upload => &mut self.uploads,
            Outcome::Locked => &mut self.locked,
            Outcome::Left => &mut self.left,
            Outcome::Failed => &mut self.failed,
        } += 1;
    }
}

/// Counters for an operator. They count from the start of the process, whether or not anybody registered them.
#[derive(Debug)]
pub(crate) struct LifecycleMetrics {
    outcomes: Option<IntCounterVec>,
    passes: Option<IntCounter>,
}

impl Default for LifecycleMetrics {
    fn default() -> Self {
        let help = "What lifecycle rules did, by outcome";
        // Names are constants, so these only fail if the library changes its mind about them.
        let outcomes = IntCounterVec::new(Opts::new("valv_lifecycle_outcomes_total", help), &["outcome"]).ok();
        let passes = IntCounter::new("valv_lifecycle_passes_total", "Passes over all lifecycle rules that ended").ok();
        Self { outcomes, passes }
    }
}

impl LifecycleMetrics {
    fn count(&self, outcome: Outcome) {
        if let Some(outcomes) = &self.outcomes {
            outcomes.with_label_values(&[outcome.name()]).inc();
        }
    }

    fn pass_ended(&self) {
        if let Some(passes) = &self.passes {
            passes.inc();
        }
    }
}

impl MetadataService {
    /// Makes the service's counters part of a registry.
    ///
    /// # Errors
    /// That `registry` has metrics of these names already.
    pub fn register_metrics(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        let metrics = &self.0.lifecycle;
        if let Some(outcomes) = &metrics.outcomes {
            registry.register(Box::new(outcomes.clone()))?;
        }
        if let Some(passes) = &metrics.passes {
            registry.register(Box::new(passes.clone()))?;
        }
        self.0.horizon.register(registry)?;
        Ok(())
    }

    /// One whole pass over all buckets' rules, as if it were `now`, without pacing. The background work does the same in
    /// slices.
    pub async fn run_lifecycle(&self, now: TimestampMicros) -> Result<LifecycleCounts, MetadataError> {
        let mut pass = Pass::default();
        while self.0.lifecycle_page(&mut pass, now).await? {}
        Ok(pass.counts)
    }
}

/// How far a pass has come.
#[derive(Debug, Default)]
struct Pass {
    /// The first bucket row not looked at.
    buckets_from: Vec<u8>,
    /// The bucket under way.
    within: Option<(BucketId, Stage)>,
    counts: LifecycleCounts,
    rows: usize,
}

/// The passes of one service that holds the background lease.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    started: Option<Instant>,
    pass: Option<Pass>,
}

impl Walk {
    /// Goes on with the pass under way, or begins one that is due, for about a [`SLICE`]. Returns how long to wait before
    /// going on, if there is more to do. An error leaves the pass where it is.
    pub(crate) async fn step(
        &mut self,
        core: &Arc<Core>,
        cancel: &CancellationToken,
    ) -> Result<Option<Duration>, MetadataError> {
        let begun = Instant::now();
        let every = Duration::from_millis(core.config.lifecycle_every_ms);
        if self.pass.is_none() && self.started.is_none_or(|at| at.elapsed() >= every) {
            self.started = Some(begun);
            self.pass = Some(Pass::default());
        }
        let Some(pass) = &mut self.pass else { return Ok(None) };
        let (rows, removals) = (pass.rows, pass.counts.removals());
        while !cancel.is_cancelled()
            && begun.elapsed() < SLICE
            && pass.rows - rows < ROWS_PER_SLICE
            && pass.counts.removals() - removals < REMOVALS_PER_SLICE
        {
            if !core.lifecycle_page(pass, core.now()).await? {
                core.lifecycle.pass_ended();
                let counts = pass.counts;
                if counts != LifecycleCounts::default() {
                    tracing::info!(?counts, rows = pass.rows, "a lifecycle pass ended");
                }
                self.pass = None;
                return Ok(None);
            }
        }
        Ok(Some(SLICE.saturating_sub(begun.elapsed())))
    }
}

impl Core {
    /// Does one page of a pass: looks at some rows and carries out what is due among them. `false` if that was the last.
    /// An error is metadata's as a whole, not a bucket's.
    async fn lifecycle_page(self: &Arc<Self>, pass: &mut Pass, now: TimestampMicros) -> Result<bool, MetadataError> {
        let Some((bucket, stage)) = pass.within.take() else {
            let from = std::mem::take(&mut pass.buckets_from);
            let found = self.scan(move |core, snapshot| core.next_lifecycle_bucket(snapshot, from)).await?;
            pass.buckets_from = found.next_from;
            pass.rows += found.rows;
            pass.within = found.bucket.map(|bucket| (bucket, Stage::default()));
            return Ok(pass.within.is_some() || found.more);
        };
        let at = stage.clone();
        let page = match self.scan(move |core, snapshot| core.scan_lifecycle(snapshot, bucket, at, now)).await {
            Ok(Some(page)) => page,
            // Gone, closing, or without rules by now.
            Ok(None) => return Ok(true),
            Err(error) if is_everybodys(&error) => {
                pass.within = Some((bucket, stage));
                return Err(error);
            }
            Err(error) => {
                tracing::error!(%bucket, %error, "a bucket's lifecycle rules can't be carried out");
                self.count_lifecycle(pass, Outcome::Failed);
                return Ok(true);
            }
        };
        pass.rows += page.rows;
        // On an error the same page is scanned again: what was removed is not found a second time.
        let next = page.next.clone();
        pass.within = Some((bucket, stage));
        self.carry_out_page(pass, bucket, page, now).await?;
        pass.within = next.map(|stage| (bucket, stage));
        Ok(true)
    }

    async fn carry_out_page(
        self: &Arc<Self>,
        pass: &mut Pass,
        bucket: BucketId,
        page: Page,
        now: TimestampMicros,
    ) -> Result<(), MetadataError> {
        let Page { rules, work, .. } = page;
        let rules = Arc::new(rules);
        let works = stream::iter(work).map(|work| {
            let (core, rules) = (Arc::clone(self), Arc::clone(&rules));
            async move { core.carry_out_work(&rules, work, now).await }
        });
        let mut done = works.buffer_unordered(KEYS_IN_FLIGHT);
        let (mut is_told, mut broken) = (false, None);
        while let Some(result) = done.next().await {
            let (outcomes, error) = result;
            outcomes.into_iter().for_each(|outcome| self.count_lifecycle(pass, outcome));
            let Some(error) = error else { continue };
            if is_everybodys(&error) {
                // Those in flight end first: their outcomes count.
                broken = Some(error);
                continue;
            }
            self.count_lifecycle(pass, Outcome::Failed);
            if !is_told {
                tracing::error!(%bucket, %error, "a lifecycle rule can't be carried out; told once for this page");
                is_told = true;
            }
        }
        broken.map_or(Ok(()), Err)
    }

    fn count_lifecycle(&self, pass: &mut Pass, outcome: Outcome) {
        pass.counts.add(outcome);
        self.lifecycle.count(outcome);
    }
}

/// Whether an error says that nothing can be done for any bucket at the moment.
const fn is_everybodys(error: &MetadataError) -> bool {
    matches!(error, MetadataError::Unavailable { .. })
}
