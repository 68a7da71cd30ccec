//! Prometheus metrics over plain HTTP, on an address of their own.

use super::Serving;
use anyhow::Context;
use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{Encoder, Registry, TextEncoder};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A scraper opens one connection, a person's browser a few.
const CONNECTIONS_MAX: usize = 32;

/// Serves `/metrics` on `address`.
pub(crate) async fn serve(
    address: SocketAddr,
    registry: Registry,
    cancel: CancellationToken,
) -> anyhow::Result<Serving> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("metrics: binding {address}"))?;
    let token = cancel.clone();
    Ok(Serving::spawn(cancel, async move {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = token.cancelled() => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
                accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => accepted,
            };
            let Ok((stream, _)) = accepted else { continue };
            let registry = registry.clone();
            let service = service_fn(move |request| answer(registry.clone(), request));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .serve_connection(TokioIo::new(stream), service);
            connections.spawn(async move {
                // A scraper that goes away is no news.
                let _ = connection.await;
            });
        }
        connections.shutdown().await;
    }))
}

async fn answer(
    registry: Registry,
    request: hyper::Request<hyper::body::Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::default());
    if request.uri().path() != "/metrics" {
        *response.status_mut() = StatusCode::NOT_FOUND;
        return Ok(response);
    }
    let mut text = Vec::new();
    match TextEncoder::new().encode(&registry.gather(), &mut text) {
        Ok(()) => *response.body_mut() = Full::from(text),
        Err(_) => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
    }
    Ok(response)
}
