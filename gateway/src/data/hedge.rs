//! When a read is slow enough to be asked of other disks too, and how often that may happen.

use super::config::DataPathConfig;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Hedges that may come in a burst before the share of all reads limits them: one disk that stops answering makes every read
/// in flight slow at once.
const BURST: i64 = 64;
/// Credit that one hedge costs; a read earns `hedge_percent_max` of these hundredths.
const COST: i64 = 100;

/// Follows the 95th percentile of read times and the share of reads that were hedged.
pub(super) struct Hedging {
    p95_secs: Mutex<f64>,
    credit: AtomicI64,
    earned_per_read: i64,
    after_min: Duration,
    after_max: Duration,
}

impl Hedging {
    pub(super) fn new(config: &DataPathConfig) -> Self {
        Self {
            p95_secs: Mutex::new(config.hedge_after_min.as_secs_f64()),
            credit: AtomicI64::new(BURST * COST),
            earned_per_read: i64::from(config.hedge_percent_max),
            after_min: config.hedge_after_min,
            after_max: config.hedge_after_max.max(config.hedge_after_min),
        }
    }

    /// A read took this long. The estimate moves up by 19 steps for a slower read and down by one for a faster one, so it
    /// settles where one read in twenty is slower; a step is a share of the estimate, so it follows by orders of magnitude.
    pub(super) fn observe(&self, took: Duration) {
        const STEP: f64 = 0.005;
        let mut p95 = self.p95_secs.lock();
        *p95 *= if took.as_secs_f64() > *p95 { 1.0 + 19.0 * STEP } else { 1.0 - STEP };
        *p95 = p95.clamp(1e-6, 60.0);
        drop(p95);
        let earn = |credit: i64| Some((credit + self.earned_per_read).min(BURST * COST));
        let _ = self.credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, earn);
    }

    /// How long to wait for a read before it is hedged.
    pub(super) fn after(&self) -> Duration {
        Duration::from_secs_f64(*self.p95_secs.lock() * 2.0).clamp(self.after_min, self.after_max)
    }

    /// Whether one more hedge is within bounds; if so it is taken.
    pub(super) fn take(&self) -> bool {
        let spend = |credit: i64| (credit >= COST).then_some(credit - COST);
        self.credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_follows_the_slow_end_of_the_reads() {
        let config = DataPathConfig { hedge_after_min: Duration::from_millis(1), ..DataPathConfig::default() };
        let hedging = Hedging::new(&config);
        for i in 0..20_000 {
            hedging.observe(Duration::from_millis(if i % 10 == 0 { 200 } else { 5 }));
        }
        let after = hedging.after();
        assert!(after > Duration::from_millis(250) && after < Duration::from_millis(600), "{after:?}");
    }

    #[test]
    fn hedges_stay_within_their_share_of_reads() {
        let hedging = Hedging::new(&DataPathConfig { hedge_percent_max: 10, ..DataPathConfig::default() });
        let burst = (0..1000).filter(|_| hedging.take()).count();
        assert_eq!(burst, BURST as usize);
        (0..100).for_each(|_| hedging.observe(Duration::from_millis(1)));
        assert_eq!((0..1000).filter(|_| hedging.take()).count(), 10);
    }
}
