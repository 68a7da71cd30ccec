//! How a connection ends.

use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long a connection still lingers once the server is told to stop.
const LINGER_AT_SHUTDOWN: Duration = Duration::from_secs(1);

/// Ends our side of a connection in order. The kernel sends what is still buffered; the stall guard bounds the rest.
pub(super) async fn close(stream: &mut (impl AsyncWrite + Unpin)) {
    // The peer may be gone already; there is nobody left to tell.
    let _ = stream.shutdown().await;
}

/// Ends our side, then throws away what the client still sends until it has heard: until it ends its side too, or sent
/// more than `len_bytes_max`, or `time_max` has passed.
pub(super) async fn linger(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    time_max: Duration,
    len_bytes_max: u64,
    shutdown: &CancellationToken,
) {
    let discard = async {
        close(stream).await;
        let mut buffer = vec![0; 16 * 1024];
        let mut left = len_bytes_max;
        while let Ok(len @ 1..) = stream.read(&mut buffer).await {
            left = left.saturating_sub(len as u64);
            if left == 0 {
                break;
            }
        }
    };
    let stopping = async {
        shutdown.cancelled().await;
        tokio::time::sleep(LINGER_AT_SHUTDOWN).await;
    };
    tokio::select! {
        _ = timeout(time_max, discard) => {}
        () = stopping => {}
    }
}
