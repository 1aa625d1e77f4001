//! An async client on Tokio: one connection kept up, many requests in flight on it.
//!
//! It never sends a request twice. What became of a request is said by [`ClientError::signed`]: a request that was
//! never written is `No` and safe to try elsewhere, one whose connection died is `Unknown`.

mod conversation;
mod error;
mod link;
mod request;
mod supervisor;
#[cfg(test)]
mod tests;
mod tls;
mod transport;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

pub use error::ClientError;
use link::{Awaiting, Link, Reply, Submission};
use request::Request;
use supervisor::Phase;
pub use supervisor::Status;
pub use tls::{TlsError, tls_config};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use transport::Connect;

use crate::{
    Code, Error, Hello, Keys, ListKeys, Sign, SignAssertion, SignAssertionBatch, SignBatch, SignJws, SignedAssertion,
    SignedJws, SignedState, Timings,
};

/// Where to connect to, and how patiently.
#[derive(Clone)]
pub struct ClientConfig {
    /// `host:port`, looked up anew for every connection
    pub address: String,
    /// The name that the server's certificate must carry
    pub server_name: String,
    /// From [`tls_config`]
    pub tls: Arc<rustls::ClientConfig>,
    /// For TCP, TLS and Hello together
    pub connect_timeout: Duration,
    /// The first pause after a failed connection; each failure doubles it, and a random half of it is left out
    pub backoff_min: Duration,
    /// The longest pause
    pub backoff_max: Duration,
    /// How long to wait for an answer beyond the request's own timeout: the way there and back
    pub grace: Duration,
    /// A Ping after so long, earlier if the server's `idle_ms` asks for it; a connection on which nothing at all comes
    /// back until the next is given up
    pub keep_alive: Duration,
    /// Hears of every request's fate
    pub trace: Option<Trace>,
}

impl ClientConfig {
    /// With the usual patience: 5 s to connect, pauses of 100 ms to 5 s, 2 s of grace, a Ping every 10 s.
    pub fn new(address: impl Into<String>, server_name: impl Into<String>, tls: Arc<rustls::ClientConfig>) -> Self {
        ClientConfig {
            address: address.into(),
            server_name: server_name.into(),
            tls,
            connect_timeout: Duration::from_secs(5),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            grace: Duration::from_secs(2),
            keep_alive: Duration::from_secs(10),
            trace: None,
        }
    }
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig")
            .field("address", &self.address)
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

/// A callback for [`TraceEvent`]s. It is called from the connection's task and must not block.
pub type Trace = Arc<dyn Fn(TraceEvent) + Send + Sync>;

/// A step in a request's life. Ids are a connection's own, so each event names its connection, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TraceEvent {
    /// The request is being written
    Sent {
        /// Which connection
        connection: u64,
        /// The request
        id: u64,
    },
    /// It has its answer
    Answered {
        /// Which connection
        connection: u64,
        /// The request
        id: u64,
    },
    /// It was answered with an error
    Refused {
        /// Which connection
        connection: u64,
        /// The request
        id: u64,
        /// Why
        code: Code,
    },
    /// The server leaves; requests above `last_id` were not looked at
    GoAway {
        /// Which connection
        connection: u64,
        /// The highest request that gets an answer
        last_id: u64,
    },
    /// The connection ended, with these requests sent and unanswered
    ClosedWith {
        /// Which connection
        connection: u64,
        /// Rising
        pending: Vec<u64>,
    },
}

/// A signature as the caller keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// In the form asked for
    pub bytes: Vec<u8>,
    /// When asked for
    pub timings: Option<Timings>,
    /// Which version of the key signed, if it has versions
    pub version: Option<String>,
}

/// A handle on the connection, cheap to clone. The connection is closed when the last one is dropped.
#[derive(Clone)]
pub struct Client {
    handle: Arc<Handle>,
}

struct Handle {
    phase: watch::Receiver<Phase>,
    status: watch::Receiver<Status>,
    /// Requests that wait for a connection or a slot, in slots
    waiting: AtomicUsize,
    grace: Duration,
    /// Dropping it tells the supervisor and the connections to end
    _alive: watch::Sender<()>,
}

impl Client {
    /// Starts connecting. Must be called inside a Tokio runtime.
    pub fn start(config: ClientConfig) -> Client {
        let connect = transport::tls(config.address.clone(), config.server_name.clone(), config.tls.clone());
        Client::start_over(connect, config)
    }

    fn start_over(connect: Connect, config: ClientConfig) -> Client {
        let (alive, stop) = watch::channel(());
        let (phase_tx, phase) = watch::channel(Phase::Connecting);
        let (status_tx, status) = watch::channel(Status::Connecting);
        let grace = config.grace;
        tokio::spawn(supervisor::run(connect, config, phase_tx, status_tx, stop));
        Client { handle: Arc::new(Handle { phase, status, waiting: AtomicUsize::new(0), grace, _alive: alive }) }
    }

    /// Waits until a connection takes requests, however long that takes.
    pub async fn ready(&self) {
        let mut phase = self.handle.phase.clone();
        // The supervisor lives as long as this handle: the channel can not close.
        let _ = phase.wait_for(|phase| phase.open_link().is_some()).await;
    }

    /// How the connection is now.
    pub fn status(&self) -> Status {
        self.handle.status.borrow().clone()
    }

    /// How the connection is, and when that changes.
    pub fn watch_status(&self) -> watch::Receiver<Status> {
        self.handle.status.clone()
    }

    /// What the server of the present connection said of itself.
    pub fn hello(&self) -> Option<Arc<Hello<'static>>> {
        self.handle.phase.borrow().link().map(|link| link.hello.clone())
    }

    /// Slots taken on the present connection, and requests waiting for one; a batch of N counts N.
    pub fn in_flight(&self) -> usize {
        let taken = self.handle.phase.borrow().link().map_or(0, |link| link.taken());
        taken + self.handle.waiting.load(Ordering::Relaxed)
    }

    /// Asks for one signature. Dropping the future takes the request back as far as that is possible.
    pub async fn sign(&self, request: &Sign<'_>) -> Result<Signature, ClientError> {
        match self.request(request).await? {
            Reply::Signed(signature) => Ok(signature),
            _ => unreachable!("a link checks that the answer is the request's"),
        }
    }

    /// Asks for many signatures; each item has its own outcome, in the request's order.
    pub async fn sign_batch(
        &self,
        request: &SignBatch<'_>,
    ) -> Result<Vec<Result<Signature, Error<'static>>>, ClientError> {
        match self.request(request).await? {
            Reply::SignedBatch(items) => Ok(items),
            _ => unreachable!("a link checks that the answer is the request's"),
        }
    }

    /// Asks for the signature of one assertion.
    pub async fn sign_assertion(&self, request: &SignAssertion<'_>) -> Result<SignedAssertion<'static>, ClientError> {
        match self.request(request).await? {
            Reply::SignedAssertion(signed) => Ok(signed),
            _ => unreachable!("a link checks that the answer is the request's"),
        }
    }

    /// Asks for the signatures of many assertions; each has its own outcome, in the request's order.
    pub async fn sign_assertion_batch(
        &self,
        request: &SignAssertionBatch<'_>,
    ) -> Result<Vec<Result<SignedAssertion<'static>, Error<'static>>>, ClientError> {
        match self.request(request).await? {
            Reply::SignedAssertionBatch(items) => Ok(items),
            _ => unreachable!("a link checks that the answer is the request's"),
        }
    }

    /// Asks for one JWS.
    pub async fn sign_jws(&self, request: &SignJws<'_>) -> Result<SignedJws<'static>, ClientError> {
        match self.request(request).await? {
            Reply::SignedJws(signed) => Ok(signed),
            _ => unreachable!("a link checks that the answer is the request's"),
        }
    }

    /// Asks which keys may be used.
    pub async fn list_keys(&self, request: &ListKeys<'_>) -> Result<Keys<'static>, ClientError> {
        match self.request(request).await? {
            Reply::Keys(keys) => Ok(keys),
            _ => unreachable!("a link checks that the answer is the request's"),
        }
    }

    /// Measures the way there and back.
    pub async fn ping(&self, timeout: Duration) -> Result<Duration, ClientError> {
        let started = Instant::now();
        let deadline = started + timeout;
        loop {
            let link = self.link(deadline).await?;
            let Some(pong) = link.ping() else { continue };
            return match timeout_at(deadline, pong).await {
                Ok(Ok(())) => Ok(started.elapsed()),
                Ok(Err(_)) => Err(ClientError::Lost { id: 0, signed: SignedState::No, cause: "no Pong".into() }),
                Err(_) => Err(ClientError::TimedOut { signed: SignedState::No }),
            };
        }
    }

    async fn request<'m, R: Request<'m>>(&self, request: &R) -> Result<Reply, ClientError> {
        let started = Instant::now();
        let timeout_ms = request.meta().timeout_ms;
        let deadline = started + Duration::from_millis(timeout_ms.into());
        let cost = request.cost();
        let (link, submission) = {
            let _waiting = Waiting::new(&self.handle.waiting, cost);
            loop {
                let link = self.link(deadline).await?;
                request.fits(&link.hello).map_err(ClientError::Refused)?;
                let slots = link.slots.clone().acquire_many_owned(cost as u32);
                let slots = match timeout_at(deadline, slots).await {
                    Ok(Ok(slots)) => slots,
                    Ok(Err(_)) => continue, // the connection takes no more requests: wait for the next
                    Err(_) => return Err(ClientError::TimedOut { signed: SignedState::No }),
                };
                let waited_ms = started.elapsed().as_millis();
                let submitted = if waited_ms == 0 {
                    link.submit(request, slots)
                } else {
                    // The server counts from receipt: what was waited here is taken off.
                    let left_ms = u128::from(timeout_ms).saturating_sub(waited_ms);
                    if left_ms == 0 {
                        return Err(ClientError::TimedOut { signed: SignedState::No });
                    }
                    let mut request = request.clone();
                    request.meta_mut().timeout_ms = left_ms as u32;
                    link.submit(&request, slots)
                };
                if let Some(submission) = submitted.map_err(ClientError::Refused)? {
                    break (link, submission);
                }
            }
        };
        let Submission { id, answer } = submission;
        let mut awaiting = Awaiting::new(&link, id);
        match timeout_at(deadline + self.handle.grace, answer).await {
            Ok(answer) => {
                awaiting.answered();
                answer.unwrap_or_else(|_| unreachable!("a link answers every request before it lets it go"))
            }
            Err(_) => Err(ClientError::TimedOut { signed: R::signed_when_lost() }),
        }
    }

    /// The connection to use: waits for one that is being made, but not while the server is down.
    async fn link(&self, deadline: Instant) -> Result<Arc<Link>, ClientError> {
        let mut phase = self.handle.phase.clone();
        let usable = phase.wait_for(|phase| phase.open_link().is_some() || matches!(phase, Phase::Down { .. }));
        match timeout_at(deadline, usable).await {
            Err(_) => Err(ClientError::TimedOut { signed: SignedState::No }),
            Ok(Err(_)) => Err(ClientError::NotSent { cause: "the client's task has ended".into() }),
            Ok(Ok(phase)) => match &*phase {
                Phase::Ready(link) => Ok(link.clone()),
                Phase::Down { error } => Err(ClientError::NotSent { cause: error.clone() }),
                Phase::Connecting | Phase::Draining(_) => unreachable!("waited for another phase"),
            },
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("status", &self.status()).finish_non_exhaustive()
    }
}

/// Counts while a request waits, whichever way the wait ends.
struct Waiting<'c>(&'c AtomicUsize, usize);

impl<'c> Waiting<'c> {
    fn new(counter: &'c AtomicUsize, cost: usize) -> Self {
        counter.fetch_add(cost, Ordering::Relaxed);
        Waiting(counter, cost)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}
