//! What Prometheus sees. Labels come from the configuration and from fixed lists only, so their number is bounded.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::callers::Operation;

/// From a local token's answer to the longest timeout, in seconds.
const SECONDS_BUCKETS: [f64; 16] =
    [0.000_5, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

const REQUESTS: &str = "segl_broker_requests_total";
const REQUEST_SECONDS: &str = "segl_broker_request_seconds";
const SIGNATURES: &str = "segl_broker_signatures_total";
const FURTHER_TRIES: &str = "segl_broker_further_tries_total";
const REPLAYS: &str = "segl_broker_idempotent_replays_total";
const UNAUTHENTICATED: &str = "segl_broker_unauthenticated_total";
const CONNECTIONS: &str = "segl_broker_connections";
const CONNECTIONS_REFUSED: &str = "segl_broker_connections_refused_total";
const RELOADS: &str = "segl_broker_reloads_total";
const READY: &str = "segl_broker_upstream_ready";
const IN_FLIGHT: &str = "segl_broker_upstream_in_flight";
const CERTIFICATE_EXPIRY: &str = "segl_broker_certificate_not_after_seconds";
const METADATA_VALID_UNTIL: &str = "segl_broker_metadata_valid_until_seconds";

/// The exposition; recording begins with the first call.
pub(crate) fn exposition() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS_BUCKETS)
            .expect("there are buckets")
            .build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).expect("this is the only recorder of the process");
        describe_counter!(REQUESTS, "Requests answered, by caller, operation and outcome");
        describe_histogram!(REQUEST_SECONDS, "From a request's header to its answer, by operation");
        describe_counter!(SIGNATURES, "Signatures asked for, items of batches each, by caller and outcome");
        describe_counter!(FURTHER_TRIES, "Tries of requests after their first");
        describe_counter!(REPLAYS, "Requests answered with the kept answer to an earlier one");
        describe_gauge!(CONNECTIONS, "Connections of callers");
        describe_counter!(CONNECTIONS_REFUSED, "Connections closed before their first request, by reason");
        describe_counter!(UNAUTHENTICATED, "Requests by nobody known, by reason");
        describe_counter!(RELOADS, "Reloads, by outcome");
        describe_gauge!(READY, "1 when the tenant can send requests to the segld");
        describe_gauge!(IN_FLIGHT, "Signatures asked for and not answered");
        describe_gauge!(CERTIFICATE_EXPIRY, "When a certificate ends, in seconds since 1970");
        describe_gauge!(METADATA_VALID_UNTIL, "When a provider's metadata ends, in seconds since 1970");
        // Prometheus sees no rise in a counter that begins at 1.
        for outcome in ["ok", "refused"] {
            counter!(RELOADS, "outcome" => outcome).increment(0);
        }
        handle
    })
}

pub(crate) fn answered(caller: &str, operation: Operation, outcome: &'static str, began: Instant) {
    counter!(REQUESTS, "caller" => caller.to_owned(), "operation" => operation.name(), "outcome" => outcome)
        .increment(1);
    histogram!(REQUEST_SECONDS, "operation" => operation.name()).record(began.elapsed());
}

pub(crate) fn signatures(caller: &str, outcome: &'static str, count: u64) {
    counter!(SIGNATURES, "caller" => caller.to_owned(), "outcome" => outcome).increment(count);
}

pub(crate) fn tries(count: u32) {
    counter!(FURTHER_TRIES).increment(u64::from(count.saturating_sub(1)));
}

pub(crate) fn replayed() {
    counter!(REPLAYS).increment(1);
}

pub(crate) fn unauthenticated(reason: &'static str) {
    counter!(UNAUTHENTICATED, "reason" => reason).increment(1);
}

pub(crate) fn connections(change: f64) {
    gauge!(CONNECTIONS).increment(change);
}

pub(crate) fn connection_refused(reason: &'static str) {
    counter!(CONNECTIONS_REFUSED, "reason" => reason).increment(1);
}

pub(crate) fn reloaded(outcome: &'static str) {
    counter!(RELOADS, "outcome" => outcome).increment(1);
}

pub(crate) fn upstream(tenant: &str, segld: &str, ready: bool, in_flight: usize) {
    let labels = [("tenant", tenant.to_owned()), ("segld", segld.to_owned())];
    gauge!(READY, &labels).set(if ready { 1.0 } else { 0.0 });
    gauge!(IN_FLIGHT, &labels).set(in_flight as f64);
}

pub(crate) fn certificate(holder: &str, not_after_s: i64) {
    gauge!(CERTIFICATE_EXPIRY, "holder" => holder.to_owned()).set(not_after_s as f64);
}

pub(crate) fn metadata(provider: &str, valid_until_s: i64) {
    gauge!(METADATA_VALID_UNTIL, "provider" => provider.to_owned()).set(valid_until_s as f64);
}

/// How often the recorder's own memory must be tidied; without it histogram samples pile up.
pub(crate) const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
