//! Openings of buckets by lease, and the byte budgets that some have.
//!
//! What is open in a bucket is held for at most three seconds, counted from *before* the read that brought it, so that a
//! revocation takes effect everywhere within that time. Expiry needs no read at all: each decision looks at the clock.
//!
//! Only strangers need any of this: requests of a bucket's own project never ask.
//!
//! A budget is escrowed: this gateway draws an allotment from metadata before it sends a byte, and gives back what is left
//! when nobody reads by the opening any more. Metadata never grants more than there is, so all gateways together never send
//! more than the budget. If this process dies, its allotment is lost to the recipient, never sent twice.

use crate::error::{S3Code, S3Error};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use valv_metadata_api::{
    Bucket, DrawOpeningBudget, GetBucketOpenings, Metadata, OpeningFacts, OpeningRecipient, OpeningScope,
};
use valv_policy::{Cidr, OpenedAction, Opening, OpeningRef, Opens, Recipient, Zones};
use valv_types::{BucketId, NamespaceId, OpeningId, ProjectId};

/// The longest lease that is honoured, whatever metadata says (architecture, "Write path", 1).
const LEASE_MAX: Duration = Duration::from_secs(3);
/// Buckets whose openings are held: commonly some hundred bytes each. When it is full, what has expired goes; if everything
/// is fresh, everything goes, which costs each bucket one read.
const BUCKETS_MAX: usize = 2_000;
/// How long an allotment is kept after the last reader left: the next range of the same client need not draw again.
const IDLE: Duration = Duration::from_secs(1);

/// What is open in one bucket.
#[derive(Debug)]
pub(crate) struct Opened {
    project: ProjectId,
    pub(super) openings: Vec<Opening>,
    /// What is left of the budgets, as metadata said.
    budgets: HashMap<OpeningRef, u64>,
}

struct Held {
    opened: Arc<Opened>,
    until: Instant,
}

/// What this gateway has drawn of a budget and not sent.
#[derive(Default)]
struct Pot {
    left_bytes: u64,
    readers: usize,
}

/// Openings by bucket, and the namespace in which it was found.
#[derive(Clone)]
pub(crate) struct Openings(Arc<State>);

struct State {
    metadata: Arc<dyn Metadata>,
    held: Mutex<HashMap<(BucketId, NamespaceId), Held>>,
    pots: Mutex<HashMap<OpeningId, Pot>>,
    /// Returns of unsent bytes under way: the gateway waits for them when it stops.
    returns: TaskTracker,
}

impl Openings {
    /// Nothing held yet.
    pub(crate) fn new(metadata: Arc<dyn Metadata>, returns: TaskTracker) -> Self {
        Self(Arc::new(State { metadata, held: Mutex::default(), pots: Mutex::default(), returns }))
    }

    /// What is open in a bucket that has just been read.
    ///
    /// # Errors
    /// That metadata can't be reached: an expired lease is never stretched.
    pub(crate) async fn of(&self, bucket: &Bucket) -> Result<Arc<Opened>, S3Error> {
        let asked = Instant::now();
        let name = (bucket.id, bucket.namespace);
        if let Some(held) = self.0.held.lock().get(&name).filter(|held| asked < held.until) {
            return Ok(Arc::clone(&held.opened));
        }
        let request = GetBucketOpenings { bucket: bucket.id, project: bucket.project };
        let answer = self.0.metadata.get_bucket_openings(request).await?;
        let until = asked + Duration::from_millis(u64::from(answer.lease_ms)).min(LEASE_MAX);
        let opened = Arc::new(Opened::read(bucket, &answer.openings));
        let mut held = self.0.held.lock();
        if held.len() >= BUCKETS_MAX {
            held.retain(|_, held| asked < held.until);
            if held.len() >= BUCKETS_MAX {
                held.clear();
            }
        }
        held.insert(name, Held { opened: Arc::clone(&opened), until });
        Ok(opened)
    }

    /// The openings whose budget is used up, as far as this gateway knows.
    pub(super) fn exhausted(&self, opened: &Opened) -> Vec<OpeningRef> {
        let used_up = opened.budgets.iter().filter(|(_, left)| **left == 0).map(|(id, _)| *id);
        let pots = self.0.pots.lock();
        used_up.filter(|id| pots.get(&OpeningId::from_bytes(*id)).is_none_or(|pot| pot.left_bytes == 0)).collect()
    }

    /// What a read by an opening is charged to; `None` if the opening has no budget.
    pub(crate) async fn account(&self, bucket: &Bucket, opening: OpeningId) -> Result<Option<Account>, S3Error> {
        let opened = self.of(bucket).await?;
        if !opened.budgets.contains_key(opening.as_bytes()) {
            return Ok(None);
        }
        self.0.pots.lock().entry(opening).or_default().readers += 1;
        Ok(Some(Account { openings: self.clone(), project: opened.project, opening }))
    }
}

impl Opened {
    fn read(bucket: &Bucket, facts: &[OpeningFacts]) -> Self {
        let openings = facts.iter().filter_map(|facts| policy_opening(bucket, facts)).collect();
        let budgets = facts.iter().filter_map(|facts| Some((*facts.id.as_bytes(), facts.budget_left_bytes?))).collect();
        Self { project: bucket.project, openings, budgets }
    }
}

/// The opening as the judge knows it; `None` if it has nothing to say in this namespace.
fn policy_opening(bucket: &Bucket, facts: &OpeningFacts) -> Option<Opening> {
    let recipient = match facts.recipient {
        OpeningRecipient::User(user) => Recipient::User(user.to_string()),
        OpeningRecipient::Project(project) => Recipient::Project(project.to_string()),
        OpeningRecipient::Public(namespace) if namespace == bucket.namespace => Recipient::Public,
        OpeningRecipient::Public(_) => return None,
    };
    let opens = match facts.scope {
        OpeningScope::Actions(bits) => {
            Opens::Actions(OpenedAction::ALL.into_iter().filter(|action| bits & *action as u8 != 0).collect())
        }
        OpeningScope::WhatPoliciesSay => Opens::WhatPoliciesSay,
    };
    let zones = match &facts.blocks {
        None => Zones::Anywhere,
        // A block that can't be read lets nobody in.
        Some(blocks) => Zones::Within(blocks.iter().filter_map(|block| Cidr::parse(block)).collect()),
    };
    Some(Opening {
        id: *facts.id.as_bytes(),
        recipient,
        prefix: facts.prefix.clone(),
        opens,
        start_micros: facts.start.0,
        expiry_micros: facts.expiry.map(|expiry| expiry.0),
        zones,
    })
}

/// One reader's access to an opening's budget.
pub(crate) struct Account {
    openings: Openings,
    project: ProjectId,
    opening: OpeningId,
}

impl Account {
    /// Takes up to `len_bytes` from the budget: what may be sent now, at least one byte.
    ///
    /// # Errors
    /// AccessDenied when the budget is used up or the opening is over; that metadata can't be reached.
    pub(crate) async fn take(&self, len_bytes: u64) -> Result<u64, S3Error> {
        self.fill(len_bytes, |pot| {
            let taken = pot.left_bytes.min(len_bytes);
            pot.left_bytes -= taken;
            taken
        })
        .await
    }

    /// Makes sure that there is something left, so that a refusal comes before the first byte.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub(crate) async fn check(&self, len_bytes: u64) -> Result<(), S3Error> {
        self.fill(len_bytes, |pot| pot.left_bytes).await.map(|_| ())
    }

    /// Asks the pot until it gives something, drawing in between.
    async fn fill(&self, want_bytes: u64, from: impl Fn(&mut Pot) -> u64) -> Result<u64, S3Error> {
        let pots = &self.openings.0.pots;
        let ask = || from(pots.lock().entry(self.opening).or_default());
        loop {
            match ask() {
                0 => {}
                given => return Ok(given),
            }
            let request =
                DrawOpeningBudget { project: self.project, opening: self.opening, want_bytes, give_back_bytes: 0 };
            let drawn = self.openings.0.metadata.draw_opening_budget(request).await?;
            if drawn.granted_bytes == 0 {
                // Another reader may have drawn the last of it just now.
                return match ask() {
                    0 => Err(S3Code::AccessDenied.into()),
                    given => Ok(given),
                };
            }
            pots.lock().entry(self.opening).or_default().left_bytes += drawn.granted_bytes;
        }
    }
}

impl Drop for Account {
    /// The last reader's end starts the return of what is left.
    fn drop(&mut self) {
        let is_last = {
            let mut pots = self.openings.0.pots.lock();
            let pot = pots.entry(self.opening).or_default();
            pot.readers = pot.readers.saturating_sub(1);
            pot.readers == 0
        };
        let (true, Ok(handle)) = (is_last, Handle::try_current()) else { return };
        let (openings, project, opening) = (self.openings.clone(), self.project, self.opening);
        let returns = self.openings.0.returns.clone();
        returns.spawn_on(async move { openings.give_back(project, opening).await }, &handle);
    }
}

impl Openings {
    async fn give_back(&self, project: ProjectId, opening: OpeningId) {
        tokio::time::sleep(IDLE).await;
        let left_bytes = {
            let mut pots = self.0.pots.lock();
            match pots.get(&opening) {
                Some(pot) if pot.readers == 0 => pots.remove(&opening).map_or(0, |pot| pot.left_bytes),
                _ => 0,
            }
        };
        if left_bytes == 0 {
            return;
        }
        let request = DrawOpeningBudget { project, opening, want_bytes: 0, give_back_bytes: left_bytes };
        if let Err(error) = self.0.metadata.draw_opening_budget(request).await {
            // Not asked again: whether it was given back is not known, and giving back twice would be too much.
            tracing::warn!(%opening, left_bytes, %error, "bytes of an opening's budget could not be given back");
        }
    }
}
