//! Looks at the horizon ahead of time, again and again: the gauges that an operator's alert rests on.
//!
//! The holder of the background lease scans once a day, and whenever something was said of a disk or custodian. The scan runs
//! beside the other background work. A service that does not hold the lease shows no horizon.

use super::horizon::FoundHorizon;
use super::records::CustodyState;
use crate::records::decode;
use crate::service::Core;
use prometheus::{GaugeVec, IntGauge, Opts, Registry};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use valv_metadata_api::{Empty, MetadataError};

/// New data and new retention are looked at this often. A horizon is a matter of years.
const EVERY: Duration = Duration::from_secs(24 * 3600);
/// After a scan that failed.
const AGAIN_AFTER: Duration = Duration::from_secs(600);

/// What was found last.
#[derive(Debug)]
pub(crate) struct HorizonMetrics {
    uncovered: Option<IntGauge>,
    shrinking: Option<IntGauge>,
    computed: Option<IntGauge>,
    expires: Option<GaugeVec>,
}

impl Default for HorizonMetrics {
    fn default() -> Self {
        // Names are constants, so these only fail if the library changes its mind about them.
        let gauge = |name: &str, help: &str| IntGauge::new(name, help).ok();
        let expires = Opts::new(
            "valv_disk_guarantee_expires_seconds",
            "When a disk's guarantee ends, in seconds since 1970; 0 if it was never guaranteed",
        );
        Self {
            uncovered: gauge(
                "valv_horizon_uncovered_bytes",
                "Bytes that have to be kept, and that by now or within custody.warn_before more disks are out of guarantee for than may be lost",
            ),
            shrinking: gauge(
                "valv_horizon_shrinking_bytes",
                "Bytes that have to be kept, and that by now or within custody.warn_before at least one disk is out of guarantee for",
            ),
            computed: gauge(
                "valv_horizon_computed_seconds",
                "When the horizon was last looked at, in seconds since 1970",
            ),
            expires: GaugeVec::new(expires, &["disk", "custodian"]).ok(),
        }
    }
}

impl HorizonMetrics {
    pub(crate) fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        for gauge in [&self.uncovered, &self.shrinking, &self.computed].into_iter().flatten() {
            registry.register(Box::new(gauge.clone()))?;
        }
        if let Some(expires) = &self.expires {
            registry.register(Box::new(expires.clone()))?;
        }
        Ok(())
    }

    fn show(&self, found: &FoundHorizon, organisations: &[(String, String, u64)]) {
        let set = |gauge: &Option<IntGauge>, value: u64| {
            if let Some(gauge) = gauge {
                gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
            }
        };
        set(&self.uncovered, found.report.uncovered_bytes());
        set(&self.shrinking, found.report.shrinking_bytes());
        set(&self.computed, found.window.now.as_secs());
        if let Some(expires) = &self.expires {
            expires.reset();
            for (disk, organisation, secs) in organisations {
                expires.with_label_values(&[disk.as_str(), organisation.as_str()]).set(*secs as f64);
            }
        }
    }

    fn clear(&self) {
        for gauge in [&self.uncovered, &self.shrinking, &self.computed].into_iter().flatten() {
            gauge.set(0);
        }
        if let Some(expires) = &self.expires {
            expires.reset();
        }
    }
}

/// A scan under way. Dropping it ends it soon.
struct Running {
    task: JoinHandle<Result<Option<FoundHorizon>, MetadataError>>,
    is_wanted: Arc<AtomicBool>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.is_wanted.store(false, Ordering::Relaxed);
    }
}

/// The horizon of one service that holds the background lease.
#[derive(Default)]
pub(crate) struct Watch {
    /// When the next scan is due whatever happens; `None` at once.
    due: Option<Instant>,
    /// How many changes of custody the last scan knew of.
    changes: Option<u64>,
    running: Option<Running>,
}

impl Watch {
    /// Begins a scan that is due, or shows one that has ended. Never waits for one.
    pub(crate) async fn step(&mut self, core: &Arc<Core>) -> Result<(), MetadataError> {
        if let Some(running) = &mut self.running {
            if !running.task.is_finished() {
                return Ok(());
            }
            let outcome = (&mut running.task).await;
            self.running = None;
            match outcome {
                Ok(Ok(Some(found))) => self.show(core, &found).await?,
                Ok(Ok(None)) => {}
                Ok(Err(error)) => self.try_again(&error),
                Err(error) => self.try_again(&error),
            }
        }
        let changes = match core.get(&core.rows.custody_state()).await? {
            Some(row) => decode::<CustodyState>("state of custody", &row.value)?.changes,
            None => 0,
        };
        let is_due = self.due.is_none_or(|due| Instant::now() >= due);
        if is_due || self.changes != Some(changes) {
            self.due = Some(Instant::now() + EVERY);
            self.changes = Some(changes);
            let is_wanted = Arc::new(AtomicBool::new(true));
            let (core, wanted) = (Arc::clone(core), Arc::clone(&is_wanted));
            let by = core.now().plus_secs(core.config.horizon_warn_secs);
            let go_on = move |_| match wanted.load(Ordering::Relaxed) {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            };
            let task = tokio::spawn(async move { core.find_horizon(None, Some(by), go_on).await });
            self.running = Some(Running { task, is_wanted });
        }
        Ok(())
    }

    fn try_again(&mut self, error: &dyn std::fmt::Display) {
        tracing::warn!(%error, "the horizon could not be looked at; tried again in ten minutes");
        self.due = Some(Instant::now() + AGAIN_AFTER);
    }

    async fn show(&self, core: &Arc<Core>, found: &FoundHorizon) -> Result<(), MetadataError> {
        let custodians = core.all_custodians(Empty {}).await?;
        let told = found.disks.iter().map(|disk| {
            let custodian = custodians.iter().find(|one| Some(one.id) == disk.custodian);
            let organisation = custodian.map(|one| one.details.organisation.clone()).unwrap_or_default();
            (disk.disk.to_string(), organisation, disk.guaranteed_until.map_or(0, |at| at.as_secs()))
        });
        core.horizon.show(found, &told.collect::<Vec<_>>());
        Ok(())
    }

    /// Another service looks after it now.
    pub(crate) fn rest(&mut self, core: &Core) {
        if self.due.is_some() {
            *self = Self::default();
            core.horizon.clear();
        }
    }
}
