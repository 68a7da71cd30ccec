//! Finds out who calls, before any service sees the call.
//!
//! A call shows a token (`authorization: Bearer valv-...`), or came over a connection that says who is at the other end.
//! Credentials that are shown and not taken end the call, whatever else the connection would have allowed. Nothing is
//! answered without credentials but health and reflection, which say nothing of what is stored.
//!
//! Guessing: a token has 256 random bits, so what has to be bounded is what a refusal costs. A refused call is answered
//! after a pause, a bounded number at once, and one line a second goes to the log. Calls that are in order never wait.

use super::AdminState;
use super::caller::{Caller, nobody};
use super::error::with_reason;
use super::listener::{Peer, user_of};
use crate::credentials::parse_token;
use http::header::{AUTHORIZATION, HeaderValue};
use http::request::Parts;
use http::{Request, Response};
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tonic::body::Body;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Code, Status};
use tower::{Layer, Service};
use valv_metadata_api::{CheckToken, GetUser, Metadata as _, MetadataError};

/// How long a refusal waits: with [`REFUSALS_WAITING_MAX`], some 250 tried credentials a second.
const REFUSAL_PAUSE: Duration = Duration::from_millis(250);
/// Refusals that wait at once; each holds its call, some KiB. Beyond, a call is refused at once and unread.
const REFUSALS_WAITING_MAX: usize = 64;
/// Refusals are logged no more often than this.
const REFUSAL_LOG_EVERY: Duration = Duration::from_secs(1);
/// What may be asked by anybody: whether the server serves, and what its services are called.
const OPEN_TO_ALL: [&str; 2] = ["/grpc.health.v1.Health/", "/grpc.reflection."];

/// Slows refusals down.
#[derive(Debug)]
pub(super) struct Refusals {
    waiting: Semaphore,
    logged: Mutex<Logged>,
}

#[derive(Debug, Default)]
struct Logged {
    last: Option<Instant>,
    unsaid: u64,
}

impl Default for Refusals {
    fn default() -> Self {
        Self { waiting: Semaphore::new(REFUSALS_WAITING_MAX), logged: Mutex::default() }
    }
}

impl Refusals {
    /// The answer to credentials that are not taken. All look the same to the caller; `why` is for the log.
    async fn refuse(&self, remote: &str, why: &str) -> Status {
        self.log(remote, why);
        let Ok(_waiting) = self.waiting.try_acquire() else {
            let message = "too many calls with wrong credentials: try again later";
            return with_reason(Code::ResourceExhausted, "TOO_MANY_REFUSALS", message);
        };
        tokio::time::sleep(REFUSAL_PAUSE).await;
        with_reason(Code::Unauthenticated, "CREDENTIALS_NOT_VALID", "these credentials are not valid")
    }

    fn log(&self, remote: &str, why: &str) {
        let mut logged = self.logged.lock();
        if logged.last.is_some_and(|last| last.elapsed() < REFUSAL_LOG_EVERY) {
            logged.unsaid += 1;
            return;
        }
        tracing::warn!(remote, why, others = logged.unsaid, "credentials for the admin service were refused");
        *logged = Logged { last: Some(Instant::now()), unsaid: 0 };
    }
}

/// Puts [`Authenticate`] before every service.
#[derive(Clone)]
pub(super) struct AuthenticateLayer(pub(super) Arc<AdminState>);

impl<S> Layer<S> for AuthenticateLayer {
    type Service = Authenticate<S>;

    fn layer(&self, inner: S) -> Authenticate<S> {
        Authenticate { inner, state: self.0.clone() }
    }
}

/// Finds the [`Caller`] and hands it on with the request.
#[derive(Clone)]
pub(super) struct Authenticate<S> {
    inner: S,
    state: Arc<AdminState>,
}

impl<S> Service<Request<Body>> for Authenticate<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let state = self.state.clone();
        // The one that is ready is taken; its clone becomes ready in its turn.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        Box::pin(async move {
            // A body can't be shared between threads, so it is left out.
            let (mut parts, body) = request.into_parts();
            match identify(&state, &parts).await {
                Ok(Some(caller)) => {
                    parts.extensions.insert(caller);
                }
                Ok(None) if OPEN_TO_ALL.iter().any(|path| parts.uri.path().starts_with(path)) => {}
                Ok(None) => return Ok(nobody().into_http()),
                Err(status) => return Ok(status.into_http()),
            }
            inner.call(Request::from_parts(parts, body)).await
        })
    }
}

/// Who sent the request: `None` if it shows nothing and its connection says nothing.
async fn identify(state: &AdminState, request: &Parts) -> Result<Option<Caller>, Status> {
    let socket = request.extensions.get::<UdsConnectInfo>();
    let peer = request.extensions.get::<Peer>();
    let remote = match (socket, peer.and_then(|peer| peer.address)) {
        (Some(_), _) => "local".to_owned(),
        (None, Some(address)) => address.ip().to_canonical().to_string(),
        (None, None) => "unknown".to_owned(),
    };
    if let Some(shown) = request.headers.get(AUTHORIZATION) {
        return by_token(state, shown, remote).await.map(Some);
    }
    if let Some(certificate) = peer.and_then(|peer| peer.certificate.as_ref()) {
        return by_certificate(state, certificate, remote).await.map(Some);
    }
    Ok(socket.map(|socket| Caller::local_operator(socket.peer_cred.as_ref().map(|peer| peer.uid()))))
}

async fn by_token(state: &AdminState, shown: &HeaderValue, remote: String) -> Result<Caller, Status> {
    let Some((id, secret)) = shown.to_str().ok().and_then(parse_bearer) else {
        return Err(state.refusals.refuse(&remote, "no token of Valv's").await);
    };
    match state.metadata()?.check_token(CheckToken { id, secret }).await {
        Ok(grant) => Ok(Caller::with_token(id, grant, remote)),
        Err(MetadataError::Token { reason }) => Err(state.refusals.refuse(&remote, &reason.to_string()).await),
        Err(error) => Err(super::error::refused(error)),
    }
}

/// rustls has verified the certificate; whether its user is there is asked for every call.
async fn by_certificate(state: &AdminState, shown: &CertificateDer<'_>, remote: String) -> Result<Caller, Status> {
    let Some(name) = user_of(shown) else {
        return Err(state.refusals.refuse(&remote, "a client certificate that names no user").await);
    };
    if state.seal.view().is_sealed && state.operators.contains(&name) {
        // Who gives a share over the network: users can't be looked up before enough were given.
        return Ok(Caller::with_certificate(shown, None, name, true, remote));
    }
    match state.metadata()?.get_user(GetUser::Name(name)).await {
        Ok(user) => {
            let is_operator = state.operators.contains(&user.name);
            Ok(Caller::with_certificate(shown, Some(user.id), user.name, is_operator, remote))
        }
        Err(MetadataError::NoSuchUser) => {
            Err(state.refusals.refuse(&remote, "a client certificate of a user that is not there").await)
        }
        Err(error) => Err(super::error::refused(error)),
    }
}

/// The token in an authorization header.
fn parse_bearer(header: &str) -> Option<(valv_types::TokenId, valv_metadata_api::Secret)> {
    let (scheme, token) = header.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") { parse_token(token.trim()) } else { None }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::credentials::format_token;
    use valv_types::TokenId;

    #[test]
    fn only_a_token_of_valv_is_read_from_a_header() {
        let token = format_token(TokenId::random(), &[7; 32]);
        for good in [format!("Bearer {token}"), format!("bearer {token}"), format!("BEARER   {token} ")] {
            assert_eq!(parse_bearer(&good).unwrap().1.expose(), [7; 32], "{good}");
        }
        for bad in [token.clone(), format!("Basic {token}"), "Bearer".to_owned(), "Bearer VALVABCDEFGH".to_owned()] {
            assert!(parse_bearer(&bad).is_none(), "{bad}");
        }
    }

    #[tokio::test]
    async fn refusals_beyond_those_that_wait_are_told_to_come_later() {
        let refusals = Arc::new(Refusals::default());
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..REFUSALS_WAITING_MAX + 10 {
            let refusals = refusals.clone();
            waiting.spawn(async move { refusals.refuse("192.0.2.1", "test").await.code() });
        }
        let codes = waiting.join_all().await;
        let count = |code| codes.iter().filter(|&&found| found == code).count();
        assert_eq!(count(tonic::Code::Unauthenticated), REFUSALS_WAITING_MAX);
        assert_eq!(count(tonic::Code::ResourceExhausted), 10);
        assert_eq!(refusals.refuse("192.0.2.1", "test").await.code(), tonic::Code::Unauthenticated);
    }
}
