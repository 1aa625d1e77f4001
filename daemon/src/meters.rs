//! Metrics, resolved once: a look-up by name and labels costs more than a signature's share of a reactor.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use metrics::{Counter, counter};
use segl_pool::Completion;
use segl_wire::{Class, Code};

use crate::{
    config::Operation,
    histogram::TimeHistogram,
    policy::{Tenant, TenantId},
};

/// Requests by tenant, operation and outcome.
pub(crate) const REQUESTS: &str = "segl_requests_total";
/// Connections closed by us, by reason.
pub(crate) const CLOSED: &str = "segl_connections_closed_total";
/// Connections that broke the protocol or were turned away, by code.
pub(crate) const PROTOCOL_ERRORS: &str = "segl_protocol_errors_total";
/// TLS failures, by kind.
pub(crate) const TLS_FAILURES: &str = "segl_tls_failures_total";
/// Failed accepts.
pub(crate) const ACCEPT_FAILURES: &str = "segl_accept_failures_total";

/// The outcome of what was served.
const OK: &str = "ok";

/// What a reactor counts. Lives on its thread.
pub(crate) struct ReactorMeters {
    outcomes: RefCell<HashMap<Outcome, Series>>,
    /// The outcome counted last, which mostly is the next one as well
    last: RefCell<Option<(Outcome, Series)>>,
    times: Arc<Times>,
    tenants: Arc<TenantCounts>,
    accept_failures: Counter,
}

/// Tenant, operation and outcome.
type Outcome = (TenantId, &'static str, &'static str);

/// One series of [`REQUESTS`], and the tenant's count that goes up with it.
#[derive(Clone)]
struct Series {
    counter: Counter,
    counts: Arc<Answers>,
    ok: bool,
}

/// What was answered to each tenant, over all reactors and reloads: the exporter's counters can not be read.
#[derive(Debug, Default)]
pub(crate) struct TenantCounts(Mutex<HashMap<TenantId, Arc<Answers>>>);

/// What was answered to one tenant since the start.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    served: AtomicU64,
    refused: AtomicU64,
}

impl TenantCounts {
    pub(crate) fn of(&self, tenant: TenantId) -> Arc<Answers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(tenant).or_default().clone()
    }
}

impl Answers {
    /// Served, and refused for whatever reason.
    pub(crate) fn read(&self) -> (u64, u64) {
        (self.served.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }

    fn count(&self, ok: bool) {
        let counter = if ok { &self.served } else { &self.refused };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Where requests' time goes, over all reactors.
#[derive(Debug)]
pub(crate) struct Times {
    total: TimeHistogram,
    /// Logins, signatures, bulk: that bulk waits is what it is for, that a login does not
    queue: [TimeHistogram; 3],
    token: TimeHistogram,
    record: TimeHistogram,
}

impl Default for Times {
    fn default() -> Self {
        let queue = |label| TimeHistogram::new("segl_queue_seconds", "Waiting for a session, by class").labelled(label);
        Times {
            total: TimeHistogram::new("segl_request_seconds", "From a request's frame to its answer"),
            queue: ["class=\"login\"", "class=\"signature\"", "class=\"bulk\""].map(queue),
            token: TimeHistogram::new("segl_token_seconds", "Inside the token"),
            record: TimeHistogram::new("segl_record_seconds", "Answers held for the journal after the token was done"),
        }
    }
}

impl Times {
    /// From a request's frame to its answer.
    pub(crate) fn total(&self) -> &TimeHistogram {
        &self.total
    }

    /// Appends all of them in Prometheus' text format.
    pub(crate) fn render(&self, out: &mut String) {
        let [total, token, record] = [&self.total, &self.token, &self.record].map(std::slice::from_ref);
        [total, &self.queue, token, record].into_iter().for_each(|family| TimeHistogram::render(family, out));
    }
}

impl ReactorMeters {
    pub(crate) fn new(times: Arc<Times>, tenants: Arc<TenantCounts>) -> Self {
        ReactorMeters {
            outcomes: RefCell::default(),
            last: RefCell::default(),
            times,
            tenants,
            accept_failures: counter!(ACCEPT_FAILURES),
        }
    }

    /// A signature's answer, good or bad.
    pub(crate) fn done(&self, tenant: &Tenant, operation: Operation, outcome: Result<(), Code>, took_ns: u64) {
        self.times.total.record_ns(took_ns);
        self.count(Some(tenant), operation.name(), outcome.map_or_else(Code::name, |()| OK));
    }

    /// A request answered without the pool.
    pub(crate) fn answered(&self, tenant: &Tenant, operation: &'static str) {
        self.count(Some(tenant), operation, OK);
    }

    /// A request refused before the pool.
    pub(crate) fn refused(&self, tenant: Option<&Tenant>, operation: &'static str, code: Code) {
        self.count(tenant, operation, code.name());
    }

    fn count(&self, tenant: Option<&Tenant>, operation: &'static str, outcome: &'static str) {
        let Some(tenant) = tenant else {
            return counter!(REQUESTS, "tenant" => "", "operation" => operation, "outcome" => outcome).increment(1);
        };
        let this = (tenant.id(), operation, outcome);
        let mut last = self.last.borrow_mut();
        let series = match last.take().filter(|(last, _)| *last == this) {
            Some((_, series)) => series,
            None => self.outcome(tenant, this),
        };
        series.counter.increment(1);
        series.counts.count(series.ok);
        *last = Some((this, series));
    }

    fn outcome(&self, tenant: &Tenant, outcome: Outcome) -> Series {
        let (_, operation, code) = outcome;
        let resolve = || {
            let name = tenant.name().to_string();
            let counter = counter!(REQUESTS, "tenant" => name, "operation" => operation, "outcome" => code);
            Series { counter, counts: self.tenants.of(tenant.id()), ok: code == OK }
        };
        self.outcomes.borrow_mut().entry(outcome).or_insert_with(resolve).clone()
    }

    /// Where a job's time went.
    pub(crate) fn pool_times(&self, class: Class, completion: &Completion) {
        let of_class = match class {
            Class::Login => 0,
            Class::Signature => 1,
            Class::Bulk => 2,
        };
        self.times.queue[of_class].record_ns(u64::from(completion.queue_us) * 1000);
        if !completion.attempts.is_empty() {
            self.times.token.record_ns(u64::from(completion.token_us) * 1000);
        }
    }

    /// How long an answer waited for the journal.
    pub(crate) fn record_waited(&self, ns: u64) {
        self.times.record.record_ns(ns);
    }

    pub(crate) fn closed(&self, reason: &'static str) {
        counter!(CLOSED, "reason" => reason).increment(1);
    }

    pub(crate) fn protocol_error(&self, code: Code) {
        counter!(PROTOCOL_ERRORS, "code" => code.name()).increment(1);
    }

    pub(crate) fn tls_failed(&self, error: &rustls::Error) {
        let kind = match error {
            rustls::Error::NoCertificatesPresented => "no-certificate",
            rustls::Error::InvalidCertificate(rustls::CertificateError::Revoked) => "revoked",
            rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer) => "unknown-issuer",
            rustls::Error::InvalidCertificate(
                rustls::CertificateError::Expired | rustls::CertificateError::ExpiredContext { .. },
            ) => "expired",
            rustls::Error::InvalidCertificate(_) => "bad-certificate",
            rustls::Error::PeerIncompatible(_) => "incompatible",
            rustls::Error::AlertReceived(_) => "alert",
            _ => "other",
        };
        counter!(TLS_FAILURES, "kind" => kind).increment(1);
    }

    pub(crate) fn accept_failed(&self) {
        self.accept_failures.increment(1);
    }
}
