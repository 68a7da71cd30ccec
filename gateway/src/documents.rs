//! What request bodies that are read whole (documents) may take of memory, all together.
//!
//! Each is bounded by itself, but a thousand connections with 8 MiB each would be 8 GiB. A body takes from the budget as it
//! comes in, not as it is announced: who holds the budget has sent as much. When it is used up, longer documents are
//! refused with SlowDown; short ones never are, so that settings can be changed and small deletes go on.

use crate::error::{S3Code, S3Error};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Up to here a document takes nothing: with every one of 1,024 connections sending one, 64 MiB.
const FREE_LEN_BYTES: usize = 64 * 1024;
/// Documents in memory at one time beyond that: 32 of the longest, or a thousand DeleteObjects of usual keys.
const BUDGET_LEN_BYTES: usize = 256 << 20;
/// What a permit stands for.
const UNIT_LEN_BYTES: usize = 64 * 1024;

/// The budget.
pub(crate) struct Documents(Arc<Semaphore>);

impl Documents {
    /// Nothing used.
    pub(crate) fn new() -> Self {
        Self::of(BUDGET_LEN_BYTES)
    }

    fn of(len_bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(len_bytes / UNIT_LEN_BYTES)))
    }

    /// A document about to be read.
    pub(crate) fn begin(&self) -> Share {
        Share { budget: Arc::clone(&self.0), permits: None }
    }
}

/// One document's share, given back when it is dropped.
pub(crate) struct Share {
    budget: Arc<Semaphore>,
    permits: Option<OwnedSemaphorePermit>,
}

impl Share {
    /// Takes what a document of `len_bytes` needs, counted from its start.
    ///
    /// # Errors
    /// SlowDown, which closes the connection: the rest of the body is not read.
    pub(crate) fn grow_to(&mut self, len_bytes: usize) -> Result<(), S3Error> {
        let units = len_bytes.saturating_sub(FREE_LEN_BYTES).div_ceil(UNIT_LEN_BYTES);
        let held = self.permits.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let Some(more) = units.checked_sub(held).filter(|more| *more > 0) else { return Ok(()) };
        let busy = || S3Error::new(S3Code::SlowDown).closing_connection();
        let more = u32::try_from(more).map_err(|_| busy())?;
        let taken = Arc::clone(&self.budget).try_acquire_many_owned(more).map_err(|_| busy())?;
        match &mut self.permits {
            Some(permits) => permits.merge(taken),
            None => self.permits = Some(taken),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_documents_are_read_also_when_long_ones_are_not() {
        let documents = Documents::of(4 * UNIT_LEN_BYTES);
        let mut long = documents.begin();
        for len_bytes in [1, FREE_LEN_BYTES, FREE_LEN_BYTES + 1, FREE_LEN_BYTES + 3 * UNIT_LEN_BYTES] {
            assert!(long.grow_to(len_bytes).is_ok(), "{len_bytes}");
        }
        assert_eq!(documents.0.available_permits(), 1);
        let mut other = documents.begin();
        assert!(other.grow_to(FREE_LEN_BYTES).is_ok());
        assert!(other.grow_to(FREE_LEN_BYTES + UNIT_LEN_BYTES).is_ok());
        let refused = other.grow_to(FREE_LEN_BYTES + UNIT_LEN_BYTES + 1).map_err(|error| error.code());
        assert_eq!(refused, Err(S3Code::SlowDown));
        assert!(documents.begin().grow_to(FREE_LEN_BYTES).is_ok());
        drop(long);
        assert!(other.grow_to(FREE_LEN_BYTES + 4 * UNIT_LEN_BYTES).is_ok());
        drop(other);
        assert_eq!(documents.0.available_permits(), 4);
    }
}
