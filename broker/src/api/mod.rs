//! The HTTP interface: routes, and what every request passes through: who asks, may he, what is sent.

mod assertions;
mod body;
mod health;
mod jws;
mod keys;
mod openapi;
mod order;
mod published;
mod sign;
pub mod types;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use axum::{
    Router,
    body::Bytes,
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use ring::rand::{SecureRandom as _, SystemRandom};
use segl_assertion::encrypt::Providers;
use tokio::time::Instant;

pub use openapi::document;

use crate::{
    callers::{Caller, Callers, Operation, PeerCertificate, Unknown},
    clock,
    config::Publish,
    idempotency::{self, Answer, Fingerprint, Idempotency, Turn},
    in_flight::InFlight,
    metrics,
    problem::{Code, Problem, Retry, Signed},
    published::Published,
    upstream::Tenant,
};

/// Marks an answer that was given before.
static REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// `Idempotency-Key`.
static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// All that requests share.
#[derive(Debug)]
pub struct Broker {
    /// What a reload replaces
    pub snapshot: ArcSwap<Snapshot>,
    /// Answers kept
    pub idempotency: Arc<Idempotency>,
    /// Signatures asked for, by caller
    pub in_flight: Arc<InFlight>,
    /// What the world was told of keys
    pub published: Published,
    /// Limits of a request
    pub limits: Limits,
    /// Set when it begins to leave: `/readyz` says so
    pub draining: AtomicBool,
}

/// One configuration at work.
#[derive(Debug)]
pub struct Snapshot {
    /// Who may ask
    pub callers: Callers,
    /// Their roads, by tenant's name
    pub tenants: BTreeMap<String, Arc<Tenant>>,
    /// Keys whose request may be made again when it is unknown whether it was signed
    pub repeatable_keys: BTreeSet<String>,
    /// Which keys the world is told of
    pub publish: Publish,
    /// Whom assertions may be encrypted for
    pub providers: Providers,
}

/// Limits of a request.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest body in bytes
    pub body_max: usize,
    /// From the end of the header to the end of the body
    pub body_timeout: Duration,
    /// Most items in a batch
    pub batch_max: usize,
    /// A request's `timeout_ms` when it names none
    pub timeout: Duration,
    /// Longest `timeout_ms` that is honoured
    pub timeout_max: Duration,
}

/// What callers see.
pub fn router(broker: Arc<Broker>) -> Router {
    Router::new()
        .route("/v1/sign", post(sign::sign))
        .route("/v1/sign-batch", post(sign::sign_batch))
        .route("/v1/assertions", post(assertions::sign_assertion))
        .route("/v1/jws", post(jws::sign_jws))
        .route("/v1/keys", get(keys::keys))
        .route("/v1/metadata/key-descriptors", get(published::key_descriptors))
        .route("/.well-known/jwks.json", get(published::jwks))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/openapi.json", get(openapi::openapi))
        .route("/docs", get(openapi::docs))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(no_such_route)
        .with_state(broker)
}

/// What the operator sees.
pub fn admin_router(broker: Arc<Broker>) -> Router {
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz_in_full))
        .route("/metrics", get(health::metrics))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(no_such_route)
        .with_state(broker)
}

async fn method_not_allowed() -> Problem {
    Problem::new(Code::MethodNotAllowed, "see /docs for the methods of each path")
}

async fn no_such_route() -> Problem {
    Problem::new(Code::NoSuchRoute, "see /docs for what is here")
}

/// A request by someone known who may do this.
struct Admitted {
    snapshot: Arc<Snapshot>,
    caller: Arc<Caller>,
    began: Instant,
}

impl Admitted {
    fn tenant(&self) -> Result<Arc<Tenant>, Problem> {
        let missing = || Problem::passing(Code::Internal, "the caller's tenant is not configured", None);
        self.snapshot.tenants.get(&self.caller.tenant).cloned().ok_or_else(missing)
    }

    /// Whose key it is decides before anything else about the key is said.
    fn granted(&self, key: &str) -> Result<(), Problem> {
        if self.caller.may_use(key) {
            return Ok(());
        }
        let errors = vec![crate::problem::FieldError {
            pointer: "#/key".into(),
            detail: "no such key for this caller; GET /v1/keys shows those that there are".into(),
        }];
        Err(Problem { errors, ..Problem::new(Code::NotGranted, "no such key for this caller") })
    }
}

impl Broker {
    /// Who asks, and may he: before a byte of the body is looked at.
    fn admit(&self, request: &Request, operation: Operation) -> Result<Admitted, Problem> {
        let began = Instant::now();
        let snapshot = self.snapshot.load_full();
        let headers = request.headers();
        let authorization = only(headers, &header::AUTHORIZATION).map(|value| value.map(HeaderValue::as_bytes));
        let peer = request.extensions().get::<Arc<PeerCertificate>>();
        let now_s = clock::unix_s() as i64;
        let known = authorization
            .map_err(|Repeated| Unknown::Repeated)
            .and_then(|authorization| snapshot.callers.authenticate(authorization, peer.map(Arc::as_ref), now_s));
        let caller = known.map_err(|reason| {
            metrics::unauthenticated(reason.name());
            tracing::debug!(%reason, operation = operation.name(), "a request by nobody known");
            Problem::new(
                Code::Unauthenticated,
                "give the token of a caller as `Authorization: Bearer ...`, or connect with a caller's certificate",
            )
        })?;
        Ok(Admitted { snapshot, caller, began })
    }

    /// Runs one operation for someone known, and counts it.
    async fn answer<F>(
        &self,
        request: Request,
        operation: Operation,
        work: impl FnOnce(Admitted, Request) -> F,
    ) -> Response
    where
        F: Future<Output = Result<Response, Problem>>,
    {
        let began = std::time::Instant::now();
        let admitted = match self.admit(&request, operation) {
            Ok(admitted) => admitted,
            Err(problem) => {
                metrics::answered("-", operation, problem.code.name(), began);
                return problem.into_response();
            }
        };
        let caller = admitted.caller.clone();
        let result = if caller.may(operation) {
            work(admitted, request).await
        } else {
            let detail = format!("{} is not among the operations of this caller", operation.name());
            Err(Problem::new(Code::OperationNotGranted, detail))
        };
        let response = result.into_response();
        let outcome = response.extensions().get::<Code>().map_or("ok", |code| code.name());
        metrics::answered(&caller.name, operation, outcome, began);
        tracing::debug!(caller = caller.name, operation = operation.name(), outcome, "answered");
        response
    }

    /// Runs `work` once for each Idempotency-Key; without one, every time.
    async fn once<F>(&self, call: Call<'_>, work: F) -> Result<Response, Problem>
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let once = |Repeated| Problem::new(Code::BadIdempotencyKey, "a request has one Idempotency-Key at most");
        let Some(key) = only(call.headers, &IDEMPOTENCY_KEY).map_err(once)? else {
            return Ok(shown(&work.await, false));
        };
        let key = idempotency::parse_key(key.as_bytes())?;
        let fingerprint = Fingerprint::new(call.operation.name(), call.body);
        let (answer, replayed) = match self.idempotency.begin(&call.caller.name, key, fingerprint, call.reference)? {
            Turn::First(ticket) => {
                // A task of its own: the answer is owed to whoever asks again, even if this connection breaks.
                let task = tokio::spawn(async move { ticket.answer(work.await) });
                let lost = |_| {
                    let broke = Problem::passing(Code::Internal, "it broke", None).with_reference(call.reference);
                    Problem { signed: Signed::Unknown, ..broke }
                };
                (task.await.map_err(lost)?, false)
            }
            Turn::Again(earlier) => {
                metrics::replayed();
                let reference = earlier.reference.clone();
                let waited = tokio::time::timeout_at(call.deadline, earlier.wait()).await;
                let detail = "ask again with the same key: its answer is still to come";
                let pending = Problem {
                    signed: Signed::Unknown,
                    retry: Retry::Here,
                    retry_after_ms: Some(1_000),
                    ..Problem::new(Code::IdempotencyInProgress, detail).with_reference(&*reference)
                };
                (waited.map_err(|_| pending)?, true)
            }
        };
        Ok(shown(&answer, replayed))
    }

    /// When the caller stops waiting.
    fn deadline(&self, timeout_ms: Option<u32>) -> Result<Instant, Problem> {
        let timeout = match timeout_ms {
            Some(0) => return Err(Problem::field(Code::BadInput, "#/timeout_ms", "must be at least 1")),
            Some(ms) => Duration::from_millis(ms.into()).min(self.limits.timeout_max),
            None => self.limits.timeout,
        };
        Ok(Instant::now() + timeout)
    }
}

/// What [`Broker::once`] needs to know of a request.
struct Call<'a> {
    operation: Operation,
    caller: &'a Caller,
    headers: &'a HeaderMap,
    body: &'a [u8],
    /// Under which it is recorded
    reference: &'a str,
    deadline: Instant,
}

/// A header is there more than once: which one is meant, nobody can know, and a proxy may have looked at another.
struct Repeated;

/// The one value of a header.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h HeaderValue>, Repeated> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(Repeated),
        (value, None) => Ok(value),
    }
}

/// 128 random bits in hexadecimal.
fn new_reference() -> Result<String, Problem> {
    let mut random = [0; 16];
    let failed = |_| Problem::passing(Code::Internal, "the system gives no random numbers", None);
    SystemRandom::new().fill(&mut random).map_err(failed)?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// An answer as HTTP.
fn shown(answer: &Answer, replayed: bool) -> Response {
    let mut response = match answer {
        Answer::Success(body) | Answer::NothingSigned(body) => json(body.clone()),
        Answer::Failure(problem) => Problem::clone(problem).into_response(),
    };
    if replayed {
        response.headers_mut().insert(&REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

fn json(body: Bytes) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn to_json(value: &impl serde::Serialize) -> Bytes {
    serde_json::to_vec(value).expect("answers have string keys only and serialise").into()
}

impl Broker {
    /// Whether it begins to leave.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests;
