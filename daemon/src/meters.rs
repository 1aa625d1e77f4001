//! Metrics, resolved once: a look-up by name and labels costs more than a signature's share of a reactor.

use std::{cell::RefCell, collections::HashMap};

use metrics::{Counter, Histogram, counter, histogram};
use segl_pool::Completion;
use segl_wire::{Code, Error, Signed};

use crate::policy::{Tenant, TenantId};

/// Requests by tenant, operation and outcome.
pub(crate) const REQUESTS: &str = "segl_requests_total";
/// Time of a signature from its frame to its answer.
pub(crate) const TOTAL_SECONDS: &str = "segl_request_seconds";
/// Of that, waiting for a session.
pub(crate) const QUEUE_SECONDS: &str = "segl_queue_seconds";
/// Of that, inside the token.
pub(crate) const TOKEN_SECONDS: &str = "segl_token_seconds";
/// Of that, waiting for the journal after the token was done.
pub(crate) const RECORD_SECONDS: &str = "segl_record_seconds";
/// Connections closed by us, by reason.
pub(crate) const CLOSED: &str = "segl_connections_closed_total";
/// Connections that broke the protocol or were turned away, by code.
pub(crate) const PROTOCOL_ERRORS: &str = "segl_protocol_errors_total";
/// TLS failures, by kind.
pub(crate) const TLS_FAILURES: &str = "segl_tls_failures_total";
/// Failed accepts.
pub(crate) const ACCEPT_FAILURES: &str = "segl_accept_failures_total";

/// What a reactor counts. Lives on its thread.
pub(crate) struct ReactorMeters {
    outcomes: RefCell<HashMap<(TenantId, &'static str, &'static str), Counter>>,
    total: Histogram,
    queue: Histogram,
    token: Histogram,
    record: Histogram,
    accept_failures: Counter,
}

impl Default for ReactorMeters {
    fn default() -> Self {
        ReactorMeters {
            outcomes: RefCell::default(),
            total: histogram!(TOTAL_SECONDS),
            queue: histogram!(QUEUE_SECONDS),
            token: histogram!(TOKEN_SECONDS),
            record: histogram!(RECORD_SECONDS),
            accept_failures: counter!(ACCEPT_FAILURES),
        }
    }
}

impl ReactorMeters {
    /// A signature's answer, good or bad.
    pub(crate) fn done(&self, tenant: &Tenant, answer: &Result<Signed<'_>, Error<'_>>, took_ns: u64) {
        self.total.record(took_ns as f64 / 1e9);
        self.count(Some(tenant), "sign", answer.as_ref().map_or_else(|error| error.code.name(), |_| "ok"));
    }

    /// A request answered without the pool.
    pub(crate) fn answered(&self, tenant: &Tenant, operation: &'static str) {
        self.count(Some(tenant), operation, "ok");
    }

    /// A request refused before the pool.
    pub(crate) fn refused(&self, tenant: Option<&Tenant>, operation: &'static str, code: Code) {
        self.count(tenant, operation, code.name());
    }

    fn count(&self, tenant: Option<&Tenant>, operation: &'static str, outcome: &'static str) {
        let Some(tenant) = tenant else {
            return counter!(REQUESTS, "tenant" => "", "operation" => operation, "outcome" => outcome).increment(1);
        };
        self.outcomes
            .borrow_mut()
            .entry((tenant.id(), operation, outcome))
            .or_insert_with(|| {
                let name = tenant.name().to_string();
                counter!(REQUESTS, "tenant" => name, "operation" => operation, "outcome" => outcome)
            })
            .increment(1);
    }

    /// Where a job's time went.
    pub(crate) fn pool_times(&self, completion: &Completion) {
        self.queue.record(f64::from(completion.queue_us) / 1e6);
        if completion.attempts > 0 {
            self.token.record(f64::from(completion.token_us) / 1e6);
        }
    }

    /// How long an answer waited for the journal.
    pub(crate) fn record_waited(&self, ns: u64) {
        self.record.record(ns as f64 / 1e9);
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
