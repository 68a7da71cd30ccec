//! The HTTP edge: accepts connections, bounds what they may cost, and hands requests to a [`Handler`].
//!
//! HTTP/1.1 only, as AWS's own S3 endpoints speak it: no S3 client needs more, and HTTP/2's multiplexing has been a source
//! of denial of service (CVE-2023-44487) that we need not have.
//!
//! A refused request must still be heard. A server that closes a socket with unread bytes in it makes the kernel send RST,
//! and the client, still sending, loses the answer that says why. So after such an answer the connection *lingers*: our
//! side is shut down, and what still comes is thrown away for a bounded time and amount (as RFC 9112, section 9.6, advises).

mod linger;
mod stall;
#[cfg(test)]
mod tests;

use crate::body::{RequestBody, ResponseBody};
use crate::limits::{HEADER_SECTION_LEN_BYTES_MAX, HEADERS_MAX};
use crate::request_id::RequestId;
use crate::tls::Tls;
use async_trait::async_trait;
use http::header::{CONNECTION, EXPECT, SERVER};
use http::{HeaderName, HeaderValue, Request, Response};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use stall::StallGuard;
use std::convert::Infallible;
use std::error::Error as StdError;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Limits of the HTTP edge.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Connections at one time; beyond it, new ones wait in the kernel's backlog. Each may hold
    /// [`ServerConfig::CONNECTION_BUFFER_LEN_BYTES_MAX`] of unread input and somewhat less of output, so the default of
    /// 1,024 is bounded by 256 MiB, a quarter of the default budget; an idle one holds about 10 KiB.
    pub connections_max: usize,
    /// How long a client may take for a request's headers, counted from when we are ready for them: so this is also how
    /// long an idle connection is kept.
    pub header_timeout: Duration,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// How long a client may take no byte of a response that we have for it.
    pub write_stall_timeout: Duration,
    /// How long a connection lingers after an answer that left a request's body unread.
    pub linger_timeout: Duration,
    /// How many bytes of an unread body are thrown away at most before the client loses the answer. 64 MiB is eight parts
    /// of boto3's default size; clients that send more than that in one request ask `Expect: 100-continue` first.
    pub linger_len_bytes_max: u64,
    /// How long requests in flight may take after the server was told to stop.
    pub drain_timeout: Duration,
}

impl ServerConfig {
    /// Input buffer of one connection. hyper grows it by need, up to this.
    pub const CONNECTION_BUFFER_LEN_BYTES_MAX: usize = 256 * 1024;
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            connections_max: 1_024,
            header_timeout: Duration::from_secs(60),
            handshake_timeout: Duration::from_secs(10),
            write_stall_timeout: Duration::from_secs(60),
            linger_timeout: Duration::from_secs(10),
            linger_len_bytes_max: 64 << 20,
            drain_timeout: Duration::from_secs(30),
        }
    }
}

/// Where a request came from, and what it is called.
#[derive(Debug, Clone, Copy)]
pub struct ConnInfo {
    /// The client's address.
    pub peer: SocketAddr,
    /// Whether the connection is TLS.
    pub is_tls: bool,
    /// The request's id; the server puts it into the response's headers.
    pub request_id: RequestId,
}

/// Answers requests.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. The body has not been touched; reading it is what sends `100 Continue`, so whoever refuses a
    /// request does it before. Dropped when the client goes away or the drain deadline passes.
    async fn handle(&self, request: Request<RequestBody>, conn: ConnInfo) -> Response<ResponseBody>;
}

/// Serves `listener` until `shutdown` is cancelled, then lets requests in flight end, up to
/// [`ServerConfig::drain_timeout`]. Returns when every connection is closed. Dropping the future closes them at once.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    handler: Arc<dyn Handler>,
    config: ServerConfig,
    shutdown: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(config.connections_max.clamp(1, Semaphore::MAX_PERMITS)));
    let drain_timeout = config.drain_timeout;
    let shared = Arc::new(Shared { handler, config, tls, shutdown: shutdown.clone() });
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            // Reaping keeps the set from growing; a connection that panicked is told once, here.
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a connection's task ended abnormally");
                }
                continue;
            }
            accepted = accept(&listener, &permits) => accepted,
        };
        match accepted {
            Some((stream, peer, permit)) => {
                let shared = Arc::clone(&shared);
                connections.spawn(async move { shared.connection(stream, peer, permit).await });
            }
            // Most likely out of file descriptors: trying again at once would only burn the processor.
            None => tokio::select! {
                () = shutdown.cancelled() => break,
                () = sleep(Duration::from_millis(50)) => {}
            },
        }
    }
    drop(listener);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if timeout(drain_timeout, all_ended).await.is_err() {
        tracing::warn!(connections = connections.len(), "closing connections that did not end in time");
        connections.shutdown().await;
    }
}

/// The next connection, when there is room for one.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let Ok(permit) = Arc::clone(permits).acquire_owned().await else {
        unreachable!("nobody closes the semaphore");
    };
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, permit)),
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            None
        }
    }
}

/// What every connection needs.
struct Shared {
    handler: Arc<dyn Handler>,
    config: ServerConfig,
    tls: Option<Arc<Tls>>,
    shutdown: CancellationToken,
}

impl Shared {
    async fn connection(&self, stream: TcpStream, peer: SocketAddr, _permit: OwnedSemaphorePermit) {
        // Without it, small answers wait 40 ms for the client's delayed acknowledgement (Nagle's algorithm).
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "the connection ended before it began");
            return;
        }
        let Some(tls) = &self.tls else { return self.http(stream, peer, false).await };
        let handshake = timeout(self.config.handshake_timeout, tls.acceptor().accept(stream));
        let stream = tokio::select! {
            () = self.shutdown.cancelled() => return,
            stream = handshake => stream,
        };
        match stream {
            Ok(Ok(stream)) => self.http(stream, peer, true).await,
            Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
        }
    }

    async fn http<S>(&self, stream: S, peer: SocketAddr, is_tls: bool)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // Whether the last request had a body, of which something may be unread when the connection ends.
        let had_body = Arc::new(AtomicBool::new(false));
        let service = {
            let (handler, had_body) = (Arc::clone(&self.handler), Arc::clone(&had_body));
            service_fn(move |request: Request<Incoming>| {
                had_body.store(!request.body().is_end_stream(), Ordering::Relaxed);
                let conn = ConnInfo { peer, is_tls, request_id: RequestId::next() };
                let handler = Arc::clone(&handler);
                // Boxed because hyper's `poll_without_shutdown` needs it Unpin.
                Box::pin(async move { Ok::<_, Infallible>(answer(&*handler, request, conn).await) })
            })
        };
        let io = TokioIo::new(StallGuard::new(stream, self.config.write_stall_timeout));
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            // A client that ends its side in the middle of a body still reads: it is told IncompleteBody.
            .half_close(true)
            .header_read_timeout(self.config.header_timeout)
            .max_buf_size(ServerConfig::CONNECTION_BUFFER_LEN_BYTES_MAX)
            .max_header_size(HEADER_SECTION_LEN_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            .serve_connection(io, service);

        let ended = {
            let mut shutdown = pin!(self.shutdown.cancelled());
            let mut is_draining = false;
            std::future::poll_fn(|cx| {
                if !is_draining && shutdown.as_mut().poll(cx).is_ready() {
                    is_draining = true;
                    Pin::new(&mut connection).graceful_shutdown();
                }
                connection.poll_without_shutdown(cx)
            })
            .await
        };
        let mut may_linger = had_body.load(Ordering::Relaxed);
        if let Err(error) = ended {
            tracing::debug!(%peer, error = &error as &dyn StdError, "the connection ended abnormally");
            // An answer that broke off must look broken off: no orderly shutdown. A request that could not be parsed was
            // answered by hyper, and the client should hear it.
            if !error.is_parse() {
                return;
            }
            may_linger = true;
        }
        let mut stream = connection.into_parts().io.into_inner();
        if may_linger {
            let config = &self.config;
            linger::linger(&mut stream, config.linger_timeout, config.linger_len_bytes_max, &self.shutdown).await;
        } else {
            linger::close(&mut stream).await;
        }
    }
}

/// An unread body that is thrown away, so that the connection goes on. A longer one costs the connection, and the client is
/// told so.
const TINY_BODY_LEN_BYTES_MAX: u64 = 8 * 1024;
/// How long the answer waits for such a body. It is on its way with the head or right behind it, often in a segment of its
/// own, so this is a few round trips.
const TINY_BODY_TIME_MAX: Duration = Duration::from_secs(1);

/// Asks the handler, and adds what every response carries.
async fn answer(handler: &dyn Handler, request: Request<Incoming>, conn: ConnInfo) -> Response<ResponseBody> {
    let request = request.map(RequestBody::new);
    const REQUEST_ID: HeaderName = HeaderName::from_static("x-amz-request-id");
    const HOST_ID: HeaderName = HeaderName::from_static("x-amz-id-2");
    let started = std::time::Instant::now();
    let method = request.method().clone();
    // A client that waits for 100 Continue may or may not send its body after a refusal: nobody can tell what comes next.
    let is_tiny = request.body().size_hint().exact().is_some_and(|len| len <= TINY_BODY_LEN_BYTES_MAX)
        && !request.headers().contains_key(EXPECT);
    // hyper sends no 100 Continue for a body of no bytes, which it may omit. botocore then takes this answer's status for that
    // of the connection's next request too, reads its real status line as headers, and waits for a body until it times
    // out; on a new connection it starts afresh.
    let unsent_continue = request.headers().contains_key(EXPECT) && request.body().is_end_stream();
    let rest = request.body().rest();
    let mut response = handler.handle(request, conn).await;
    let is_read = if is_tiny { rest.discard(TINY_BODY_TIME_MAX).await } else { rest.is_empty() };
    let headers = response.headers_mut();
    if unsent_continue || !is_read {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    // Both ids are hexadecimal or base64, which every header may hold.
    if let Ok(id) = HeaderValue::from_str(&conn.request_id.to_string()) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(HOST_ID, HeaderValue::from_static(conn.request_id.host_id()));
    headers.insert(SERVER, HeaderValue::from_static("Valv"));
    // Neither path nor query: keys may name people, and presigned queries are credentials.
    tracing::debug!(
        request_id = %conn.request_id,
        peer = %conn.peer.ip(),
        %method,
        status = response.status().as_u16(),
        elapsed_us = started.elapsed().as_micros(),
        "answered"
    );
    response
}
