//! The data path's background tasks: every one has this owner, which waits for them at shutdown.

use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(super) struct Tasks {
    tracker: TaskTracker,
    own: CancellationToken,
    given: OnceLock<CancellationToken>,
}

impl Tasks {
    pub(super) fn new() -> Self {
        Self { tracker: TaskTracker::new(), own: CancellationToken::new(), given: OnceLock::new() }
    }

    /// Ties the loops to the process's token. The first one given counts.
    pub(super) fn tie_to(&self, cancel: CancellationToken) {
        let _ = self.given.set(cancel);
    }

    /// Runs `future` to its end, shutdown or not. It must be bounded by itself.
    pub(super) fn spawn<F>(&self, future: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tracker.spawn(future)
    }

    /// Returns when the process shuts down: loops end then.
    pub(super) async fn stopped(&self) {
        match self.given.get() {
            Some(given) => tokio::select! {
                () = given.cancelled() => {}
                () = self.own.cancelled() => {}
            },
            None => self.own.cancelled().await,
        }
    }

    /// Ends the loops and waits until every task has ended, at most `wait`. Whether all did.
    pub(super) async fn drain(&self, wait: Duration) -> bool {
        self.own.cancel();
        self.tracker.close();
        tokio::time::timeout(wait, self.tracker.wait()).await.is_ok()
    }
}
