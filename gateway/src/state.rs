//! The gateway as a whole: what all requests share, and the path that each of them takes.
//!
//! Target -> signature -> operation -> rights -> body -> commit -> answer. A request that fails on the way answers with
//! one S3 error, is counted once and, if the fault is ours, logged once, here.

use crate::access::{Openings, Principals, RulesCache};
use crate::accesses::AccessRecorder;
use crate::body::{RequestBody, ResponseBody};
use crate::data::{BlobGuard, DataPath};
use crate::documents::Documents;
use crate::error::{S3Code, S3Error};
use crate::forwarded;
use crate::host::{HostConfig, Query, Target, request_host};
use crate::lifecycle::LifecycleRules;
use crate::metrics::Metrics;
use crate::moved_headers;
use crate::namespaces::{NamespaceConfig, Namespaces};
use crate::ops::context::Request as ContextRequest;
use crate::ops::cors::CrossOrigin;
use crate::ops::{self, Answer, Context};
use crate::payload::{Payload, PayloadConfig, PayloadMode};
use crate::router::{self, Operation};
use crate::server::{ConnInfo, Handler};
use crate::sigv2;
use crate::sigv4::{SigV4Config, authenticate};
use async_trait::async_trait;
use http::header::{AUTHORIZATION, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;
use valv_metadata_api::{Metadata, MetadataError};
use valv_policy::{Cidr, ObjectOwnership};
use valv_types::{NamespaceId, TimestampMicros};

/// What an operator may set of the S3 side.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// The region that this endpoint is in; the scope of signatures must name it (or one of `regions_also`).
    pub region: String,
    /// Further regions that signatures may name.
    pub regions_also: Vec<String>,
    /// Host names under which buckets are addressed as `bucket.domain`.
    pub base_domains: Vec<String>,
    /// Where requests without a signature find bucket names.
    pub namespaces: NamespaceConfig,
    /// Takes customers' keys (SSE-C) over plain HTTP from other machines, too: for a gateway behind a proxy that ends TLS.
    pub sse_c_without_tls: bool,
    /// Further names by which clients may call their project's key (SSE-KMS): for those that know it by another.
    pub kms_key_names: Vec<String>,
    /// What new buckets are made with.
    pub new_buckets: NewBuckets,
    /// Proxies whose X-Forwarded-For is believed.
    pub trusted_proxies: Vec<Cidr>,
    /// Limits of reading bodies.
    pub payload: PayloadConfig,
    /// How long a commit whose answer was lost is asked for again before the client gets 503.
    pub commit_deadline: Duration,
    /// How long CompleteMultipartUpload works in silence before it sends 200 and white space to keep the connection alive.
    pub complete_silence: Duration,
}

/// What a new bucket is made with if its maker says nothing else. Buckets that exist keep what they have.
///
/// The default is S3's since April 2023, and locked down: the bucket's owner owns everything in it, ACLs are off, public
/// access is blocked. An operator chooses otherwise for clients that were written before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewBuckets {
    /// Who owns objects that others write.
    pub ownership: ObjectOwnership,
    /// Whether public access is blocked.
    pub is_public_access_blocked: bool,
}

impl Default for NewBuckets {
    fn default() -> Self {
        Self { ownership: ObjectOwnership::BucketOwnerEnforced, is_public_access_blocked: true }
    }
}

impl Default for GatewayConfig {
    /// us-east-1, path style only; commits are pursued for 10 s, which covers a metadata service's restart; completions
    /// start to send after 10 s, since load balancers commonly close after 60.
    fn default() -> Self {
        Self {
            region: "us-east-1".to_owned(),
            regions_also: Vec::new(),
            base_domains: Vec::new(),
            namespaces: NamespaceConfig::default(),
            sse_c_without_tls: false,
            kms_key_names: Vec::new(),
            new_buckets: NewBuckets::default(),
            trusted_proxies: Vec::new(),
            payload: PayloadConfig::default(),
            commit_deadline: Duration::from_secs(10),
            complete_silence: Duration::from_secs(10),
        }
    }
}

/// The S3 gateway: a [`Handler`] over metadata and the data path.
pub struct Gateway {
    shared: Arc<Shared>,
}

/// What every request needs, and streams that outlive their handler.
pub(crate) struct Shared {
    pub(crate) config: GatewayConfig,
    pub(crate) sigv4: SigV4Config,
    pub(crate) hosts: HostConfig,
    pub(crate) metadata: Arc<dyn Metadata>,
    pub(crate) data: Arc<DataPath>,
    pub(crate) principals: Arc<Principals>,
    pub(crate) rules: RulesCache,
    pub(crate) metrics: Metrics,
    pub(crate) accesses: Arc<AccessRecorder>,
    namespaces: Namespaces,
    pub(crate) lifecycle: LifecycleRules,
    pub(crate) documents: Documents,
    /// Commits under way. They end by themselves within `commit_deadline`, even if their client has gone.
    commits: TaskTracker,
}

impl Gateway {
    /// A gateway. Its metrics are registered in `registry`.
    ///
    /// # Errors
    /// That `registry` has metrics of these names already.
    pub fn new(
        config: GatewayConfig,
        metadata: Arc<dyn Metadata>,
        data: Arc<DataPath>,
        registry: &prometheus::Registry,
    ) -> Result<Arc<Self>, prometheus::Error> {
        let principals = Arc::new(Principals::new(Arc::clone(&metadata)));
        let metrics = Metrics::new(registry)?;
        let commits = TaskTracker::new();
        let shared = Shared {
            sigv4: SigV4Config::new(config.region.clone(), config.regions_also.clone()),
            hosts: HostConfig::new(config.base_domains.clone()),
            rules: RulesCache::new(
                Arc::clone(&metadata),
                Arc::clone(&principals),
                Openings::new(Arc::clone(&metadata), commits.clone()),
            ),
            principals,
            accesses: AccessRecorder::new(Arc::clone(&metadata), metrics.recorder.clone()),
            metrics,
            namespaces: Namespaces::new(config.namespaces.clone(), Arc::clone(&metadata)),
            lifecycle: LifecycleRules::default(),
            documents: Documents::new(),
            commits,
            config,
            metadata,
            data,
        };
        Ok(Arc::new(Self { shared: Arc::new(shared) }))
    }

    /// Waits for commits under way, and records what accesses came to, each for at most `commit_deadline`. To be called after the server has drained.
    pub async fn drain(&self) {
        self.shared.commits.close();
        let deadline = self.shared.config.commit_deadline;
        if tokio::time::timeout(deadline, self.shared.commits.wait()).await.is_err() {
            tracing::warn!(commits = self.shared.commits.len(), "ending with commits whose outcome is not known");
        }
        self.shared.accesses.drain(deadline).await;
    }
}

/// First pause before a commit is asked for again; each next one is twice as long.
const COMMIT_PAUSE_FIRST: Duration = Duration::from_millis(50);

impl Shared {
    /// The namespace in which an unsigned request to `host` (as [`crate::host::request_host`] gives it) finds bucket
    /// names. `None` if the operator named none for this host, or nobody has made the one named yet.
    ///
    /// # Errors
    /// That metadata can't be reached.
    pub(crate) async fn namespace_of_host(&self, host: &str) -> Result<Option<NamespaceId>, S3Error> {
        self.namespaces.of_endpoint(&self.hosts.endpoint(host)).await
    }

    /// Runs one commit to its end in a task of its own, so that a client that goes away can't leave it half-asked, and
    /// repeats it with the same commit id while its outcome is unknown.
    pub(crate) async fn commit<T, F, Fut>(self: &Arc<Self>, attempt: F) -> Result<T, MetadataError>
    where
        T: Send + 'static,
        F: Fn(Arc<dyn Metadata>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, MetadataError>> + Send + 'static,
    {
        let shared = Arc::clone(self);
        self.to_end(async move { shared.pursue(attempt).await }).await
    }

    /// The same for a commit that makes a blob visible: the blob's guard learns the outcome.
    pub(crate) async fn commit_blob<T, F, Fut>(
        self: &Arc<Self>,
        guard: BlobGuard,
        attempt: F,
    ) -> Result<T, MetadataError>
    where
        T: Send + 'static,
        F: Fn(Arc<dyn Metadata>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, MetadataError>> + Send + 'static,
    {
        let shared = Arc::clone(self);
        self.to_end(async move {
            let outcome = shared.pursue(attempt).await;
            if matches!(outcome, Err(MetadataError::Fenced)) {
                // The client's retry is to meet a new incarnation, not wait for the next heartbeat.
                shared.data.note_fenced();
            }
            match &outcome {
                Ok(_) => guard.commit_done(),
                // The guard is dropped: nothing is deleted, and the low-water mark waits.
                Err(error) if is_unknown(error) => drop(guard),
                Err(_) => guard.discard(),
            }
            outcome
        })
        .await
    }

    /// Runs a future to its end whatever becomes of the caller.
    async fn to_end<T, Fut>(&self, future: Fut) -> Result<T, MetadataError>
    where
        T: Send + 'static,
        Fut: Future<Output = Result<T, MetadataError>> + Send + 'static,
    {
        match self.commits.spawn(future.in_current_span()).await {
            Ok(outcome) => outcome,
            Err(error) => Err(MetadataError::Unavailable { what: format!("the commit's task ended: {error}") }),
        }
    }

    async fn pursue<T, F, Fut>(&self, attempt: F) -> Result<T, MetadataError>
    where
        F: Fn(Arc<dyn Metadata>) -> Fut + Send + Sync,
        Fut: Future<Output = Result<T, MetadataError>> + Send,
    {
        let deadline = Instant::now() + self.config.commit_deadline;
        let mut pause = COMMIT_PAUSE_FIRST;
        loop {
            let outcome = attempt(Arc::clone(&self.metadata)).await;
            match &outcome {
                Err(MetadataError::Unavailable { .. } | MetadataError::Conflict)
                    if Instant::now() + pause < deadline =>
                {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                _ => return outcome,
            }
        }
    }
}

/// Whether a commit that failed like this may have happened all the same.
const fn is_unknown(error: &MetadataError) -> bool {
    matches!(error, MetadataError::Unavailable { .. } | MetadataError::Corrupt { .. } | MetadataError::Malformed { .. })
}

#[async_trait]
impl Handler for Gateway {
    async fn handle(&self, request: Request<RequestBody>, conn: ConnInfo) -> Response<ResponseBody> {
        let started = Instant::now();
        let (parts, body) = request.into_parts();
        let is_head = parts.method == Method::HEAD;
        let shared = &self.shared;

        let named = Named::read(shared, &parts);
        let name = match &named {
            Ok(Named { operation: Ok(operation), .. }) => operation.name(),
            _ => "Unknown",
        };
        let span =
            tracing::info_span!("s3", request_id = %conn.request_id, operation = name, bucket = tracing::field::Empty);
        let answer = async {
            match named {
                Ok(named) => named.answer(shared, parts, body, conn).await,
                Err(error) => Err(error),
            }
        }
        .instrument(span.clone())
        .await;

        let (response, code) = match answer {
            Ok(response) => (response, "OK"),
            Err(error) => {
                let code = error.code();
                span.in_scope(|| log(&error));
                (respond(error, &conn, is_head), code.as_str())
            }
        };
        shared.metrics.answered(name, code, started.elapsed());
        response
    }
}

/// Logs what an operator must know of; a client's mistakes are no news.
fn log(error: &S3Error) {
    let source = error.source_error().map(|source| source as &dyn std::error::Error);
    match error.status() {
        StatusCode::INTERNAL_SERVER_ERROR => tracing::error!(code = %error.code(), error = source, "request failed"),
        status if status.is_server_error() => tracing::warn!(code = %error.code(), error = source, "request refused"),
        _ => tracing::debug!(code = %error.code(), message = error.message(), "request refused"),
    }
}

fn respond(error: S3Error, conn: &ConnInfo, is_head: bool) -> Response<ResponseBody> {
    let is_unavailable = error.status() == StatusCode::SERVICE_UNAVAILABLE;
    let mut response = error.into_response(&conn.request_id, is_head);
    if is_unavailable {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// A request whose target and query could be read.
struct Named {
    target: Target,
    query: Query,
    /// The headers with those that a presigned URL's maker moved into the query, if there are any.
    moved: Option<HeaderMap>,
    /// Told only after authentication: a stranger learns nothing, not even what is implemented.
    operation: Result<Operation, S3Error>,
}

impl Named {
    fn read(shared: &Shared, parts: &Parts) -> Result<Self, S3Error> {
        let target = shared.hosts.target(parts)?;
        let query = Query::parse(parts.uri.query().unwrap_or_default())?;
        let is_presigned = query.has("X-Amz-Signature") || sigv2::is_presigned(&query);
        let moved = if is_presigned { moved_headers::merged(&query, &parts.headers)? } else { None };
        let operation = router::route(&parts.method, &target, &query, moved.as_ref().unwrap_or(&parts.headers));
        Ok(Self { target, query, moved, operation })
    }

    async fn answer(self, shared: &Arc<Shared>, parts: Parts, body: RequestBody, conn: ConnInfo) -> Answer {
        let resource = resource(&self.target);
        let answer = if matches!(self.operation, Ok(Operation::Preflight)) {
            ops::cors::preflight(shared, &self.target, &parts).await
        } else {
            let cross_origin = CrossOrigin::of(&self.target, &parts);
            let (answer, bucket) = match self.context(shared, parts, body, conn).await {
                Ok((cx, payload)) => (ops::run(&cx, payload).await, cx.seen_bucket().cloned()),
                Err(error) => (Err(error), None),
            };
            match cross_origin {
                Some(cross_origin) => cross_origin.decorate(shared, bucket, answer).await,
                None => answer,
            }
        };
        answer.map_err(|error| error.or_resource(|| resource))
    }

    /// Finds out who asks and prepares to read the body.
    async fn context(
        self,
        shared: &Arc<Shared>,
        mut parts: Parts,
        body: RequestBody,
        conn: ConnInfo,
    ) -> Result<(Context, Payload), S3Error> {
        let now = TimestampMicros::now();
        // Before a form's fields or a URL's parameters stand for headers: they are the client's words.
        let client = forwarded::client(conn.peer.ip(), &parts.headers, &shared.config.trusted_proxies);
        let (identity, operation, target, payload) = if matches!(self.operation, Ok(Operation::PostObject)) {
            // Who sends a form, and what it says, stands in its body.
            let form = ops::post::read(shared, self.target, &parts.headers, body, now).await?;
            parts.headers = form.headers;
            (form.identity, Operation::PostObject, form.target, form.payload)
        } else {
            let is_v2 = sigv2::is_presigned(&self.query) && !parts.headers.contains_key(AUTHORIZATION);
            let (identity, mode) = if is_v2 {
                let secrets = &*shared.principals;
                let identity = sigv2::authenticate(&parts, &self.query, &self.target, secrets, now).await?;
                (Some(identity), PayloadMode::Unsigned)
            } else {
                let authentication = authenticate(&shared.sigv4, &parts, &*shared.principals, now).await?;
                (authentication.identity, authentication.payload)
            };
            if let Some(headers) = self.moved {
                parts.headers = headers;
            }
            let operation = match (&identity, self.operation) {
                (_, Ok(operation)) => operation,
                (Some(_), Err(error)) => return Err(error),
                (None, Err(_)) => return Err(S3Code::AccessDenied.into()),
            };
            let payload = Payload::new(mode, &parts.headers, body, shared.config.payload)?;
            (identity, operation, self.target, payload)
        };
        let namespace = match &identity {
            Some(identity) => Some(identity.grant.namespace),
            None => shared.namespace_of_host(request_host(&parts).unwrap_or_default()).await?,
        };
        let (query, headers) = (self.query, parts.headers);
        let request = ContextRequest { conn, operation, identity, client, namespace, target, query, headers, now };
        Ok((Context::new(Arc::clone(shared), request), payload))
    }
}

/// `<Resource>` of an error: the path of what was asked for.
fn resource(target: &Target) -> String {
    let key = target.key.as_ref().map(|key| String::from_utf8_lossy(key.as_bytes()));
    match (&target.bucket, key) {
        (Some(bucket), Some(key)) => format!("/{bucket}/{key}"),
        (Some(bucket), None) => format!("/{bucket}"),
        (None, _) => "/".to_owned(),
    }
}
