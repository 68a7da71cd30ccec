//! Project keys on loan: held no longer than metadata allows, then zeroised.

use super::error::DataError;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use valv_codec::ProjectKey;
use valv_metadata_api::{GetProjectKey, Metadata, MetadataError};
use valv_types::ProjectId;

/// Leases remembered at most. One takes about 200 bytes; a gateway serves fewer projects than this at a time, and one more
/// only means asking metadata again.
const LEASES_MAX: usize = 16 * 1024;

/// The leases of this process.
///
/// Single flight: requests for the same key while it is being asked for share one question to metadata.
pub struct ProjectKeys {
    metadata: Arc<dyn Metadata>,
    slots: Mutex<HashMap<Wanted, Arc<Slot>>>,
}

/// A project and a version of its key; `None` for the one that new data is sealed under.
type Wanted = (ProjectId, Option<u32>);

#[derive(Default)]
struct Slot {
    asking: tokio::sync::Mutex<()>,
    lease: Mutex<Option<Lease>>,
}

#[derive(Clone)]
struct Lease {
    key: Arc<ProjectKey>,
    ends: Instant,
}

impl Slot {
    fn valid(&self) -> Option<Arc<ProjectKey>> {
        let now = Instant::now();
        self.lease.lock().as_ref().filter(|lease| now < lease.ends).map(|lease| Arc::clone(&lease.key))
    }
}

impl ProjectKeys {
    /// No leases yet.
    pub fn new(metadata: Arc<dyn Metadata>) -> Self {
        Self { metadata, slots: Mutex::default() }
    }

    /// The key that new data of `project` is sealed under.
    pub async fn current(&self, project: ProjectId) -> Result<Arc<ProjectKey>, DataError> {
        self.get(project, None).await
    }

    /// A given version of a project's key.
    pub async fn version(&self, project: ProjectId, version: u32) -> Result<Arc<ProjectKey>, DataError> {
        self.get(project, Some(version)).await
    }

    async fn get(&self, project: ProjectId, version: Option<u32>) -> Result<Arc<ProjectKey>, DataError> {
        let slot = self.slot(project, version);
        if let Some(key) = slot.valid() {
            return Ok(key);
        }
        let _asking = slot.asking.lock().await;
        if let Some(key) = slot.valid() {
            return Ok(key);
        }
        // Counted from before the question: an answer that was long on its way is an old one.
        let asked = Instant::now();
        let lease = self.metadata.get_project_key(GetProjectKey { project, version }).await?;
        if version.is_some_and(|wanted| wanted != lease.version) {
            return Err(MetadataError::Malformed { what: "project key of another version".to_owned() }.into());
        }
        let key = Arc::new(ProjectKey::from_bytes(lease.version, lease.key.expose())?);
        let ends = asked + Duration::from_millis(u64::from(lease.lease_ms));
        *slot.lease.lock() = Some(Lease { key: Arc::clone(&key), ends });
        if version.is_none() {
            let by_version = self.slot(project, Some(lease.version));
            *by_version.lease.lock() = Some(Lease { key: Arc::clone(&key), ends });
        }
        Ok(key)
    }

    fn slot(&self, project: ProjectId, version: Option<u32>) -> Arc<Slot> {
        let mut slots = self.slots.lock();
        if slots.len() >= LEASES_MAX && !slots.contains_key(&(project, version)) {
            slots.clear();
        }
        Arc::clone(slots.entry((project, version)).or_default())
    }

    /// Forgets leases that have ended, also of projects that nobody asks for any more. Called every few seconds.
    pub fn sweep(&self) {
        let now = Instant::now();
        self.slots.lock().retain(|_, slot| {
            let mut lease = slot.lease.lock();
            if lease.as_ref().is_some_and(|lease| lease.ends <= now) {
                *lease = None;
            }
            // A slot that somebody else holds is being asked for.
            lease.is_some() || Arc::strong_count(slot) > 1
        });
    }

    /// Forgets every lease of a project at once: its key is being shredded.
    pub fn purge(&self, project: ProjectId) {
        self.slots.lock().retain(|(of, _), _| *of != project);
    }
}
