//! The Prometheus recorder for counters and gauges, and the gauges that are read off when somebody looks.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use metrics::{Gauge, counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use segl_pool::{Class, RungCounters, TokenState};
use segl_wire::{KeyState, VersionPhase};

use super::SOFTWARE;
use crate::{clock, keeper, meters, state::Shared};

/// Steps of recovery, by token and rung.
const RUNGS: &str = "segl_token_rungs_total";
/// Retries.
const RETRIES: &str = "segl_retries_total";

/// How often the journal's disk is asked for its room: fast enough for a disk that fills within minutes.
const LOOK_AT_DISK: Duration = Duration::from_secs(10);

/// Installs the recorder for the whole process.
pub(super) fn install() -> PrometheusHandle {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_err() {
        tracing::error!("another metrics recorder is installed: /metrics will be empty");
    }
    describe();
    gauge!("segl_build_info", "version" => SOFTWARE).set(1.0);
    gauge!("segl_start_time_seconds").set(clock::unix_s() as f64);
    handle
}

/// Lets counters begin at 0 whose first step somebody is woken for: Prometheus sees no rise in one that begins at 1.
pub(super) fn zero(tokens: &[Arc<str>]) {
    for token in tokens {
        let token = token.to_string();
        counter!(keeper::WRONG_SIGNATURES, "token" => token.clone()).increment(0);
        counter!(keeper::SESSIONS_LOST, "token" => token.clone()).increment(0);
        for answer in keeper::LATE_ANSWERS {
            counter!(keeper::DISCARDED, "token" => token.clone(), "answer" => answer).increment(0);
        }
    }
}

/// Keeps the room on the journal's disk up to date. A disk that hangs holds up a thread of its own, and nothing else.
pub(super) async fn watch_disk(directory: PathBuf) {
    let mut ticks = tokio::time::interval(LOOK_AT_DISK);
    loop {
        ticks.tick().await;
        let directory = directory.clone();
        match tokio::task::spawn_blocking(move || rustix::fs::statvfs(&directory)).await {
            Ok(Ok(disk)) => {
                gauge!("segl_journal_disk_free_bytes").set((disk.f_bavail * disk.f_frsize) as f64);
                gauge!("segl_journal_disk_size_bytes").set((disk.f_blocks * disk.f_frsize) as f64);
            }
            // What does not answer is said by segl_journal_open, and must not look like the room of a minute ago.
            Ok(Err(_)) | Err(_) => gauge!("segl_journal_disk_free_bytes").set(f64::NAN),
        }
    }
}

fn describe() {
    describe_counter!(meters::REQUESTS, "Requests answered, by tenant, operation and outcome");
    describe_counter!(meters::CLOSED, "Connections closed by segld, by reason");
    describe_counter!(meters::PROTOCOL_ERRORS, "Connections that broke the protocol or were turned away, by code");
    describe_counter!(meters::TLS_FAILURES, "Failed handshakes and broken TLS sessions, by kind");
    describe_counter!(meters::ACCEPT_FAILURES, "Connections that could not be accepted");
    describe_counter!(keeper::SELF_TESTS, "Self-tests, by key, token and result");
    describe_counter!(keeper::SESSIONS_LOST, "Sessions lost to an error, by token");
    describe_counter!(keeper::ALARMS, "Alarms raised by the pool, by token and kind");
    describe_counter!(keeper::WRONG_SIGNATURES, "Signatures that their own public key refused; none was released");
    describe_counter!(keeper::DISCARDED, "Answers of calls that had been given up, by token and answer");
    describe_counter!(RUNGS, "Steps of recovery taken, by token and rung");
    describe_counter!(RETRIES, "Attempts that were followed by another of the same request");
    describe_counter!("segl_retries_refused_total", "Retries that the budget did not allow");
    describe_counter!("segl_attempts_unknown_total", "Calls to tokens of which nobody knows whether they signed");
    describe_gauge!("segl_retries_left", "Retries that the budget allows at once");
    describe_gauge!("segl_token_state", "1 for the state the token is in");
    describe_gauge!("segl_threads_stuck", "Threads inside a token's call that are not waited for any more");
    describe_gauge!("segl_token_service_seconds", "Moving average of a signature's time inside the token");
    describe_gauge!("segl_sessions", "Sessions of a token: open, busy, and how many it may have");
    describe_gauge!("segl_token_ready", "1 where the token signs");
    describe_gauge!("segl_key_usable", "1 where the key can sign now");
    describe_gauge!("segl_key_fit", "1 where the token holds the key and its last self-test there passed");
    describe_gauge!("segl_key_version_usable", "1 where a key's version could sign now, were it its time");
    describe_gauge!("segl_key_version_begins_seconds", "Time until a key's version signs; negative once it has begun");
    describe_gauge!("segl_queue_depth", "Jobs waiting, by class");
    describe_gauge!("segl_connections", "Connections, by phase");
    describe_gauge!("segl_journal_lag_records", "Records appended and not yet on disk");
    describe_gauge!("segl_journal_open", "1 while the journal takes intents");
    describe_gauge!("segl_journal_disk_free_bytes", "Room on the journal's disk");
    describe_gauge!("segl_journal_disk_size_bytes", "Size of the journal's disk");
    describe_gauge!("segl_build_info", "1, with the version that runs");
    describe_gauge!("segl_start_time_seconds", "When segld was started, in seconds since 1970");
    describe_gauge!("segl_certificate_expires_seconds", "Time until segld's own certificate ends");
    describe_gauge!("segl_crl_expires_seconds", "Time until a CRL's nextUpdate, by issuer");
    describe_gauge!("segl_key_certificate_expires_seconds", "Time until a key's certificate ends");
    describe_gauge!("segl_tenant_in_flight", "Requests in flight, by tenant");
    describe_gauge!("segl_clock_synchronised", "1 while the time daemon says that the host's clock is synchronised");
    describe_gauge!("segl_reload_ok", "1 when the last reload was taken, 0 when it was refused");
}

/// Reads everything off.
pub(super) fn refresh(shared: &Shared) {
    let pool = shared.desk.pool_snapshot();
    for token in &pool.tokens {
        let name = token.name.to_string();
        gauge!("segl_sessions", "token" => name.clone(), "state" => "open").set(f64::from(token.sessions_open));
        gauge!("segl_sessions", "token" => name.clone(), "state" => "busy").set(f64::from(token.sessions_busy));
        gauge!("segl_sessions", "token" => name.clone(), "state" => "cap").set(f64::from(token.sessions_cap));
        gauge!("segl_token_ready", "token" => name.clone()).set(flag(token.state == TokenState::Ready));
        for state in TokenState::ALL {
            let is_it = flag(token.state == state);
            gauge!("segl_token_state", "token" => name.clone(), "state" => state.name()).set(is_it);
        }
        gauge!("segl_threads_stuck", "token" => name.clone()).set(f64::from(token.threads_stuck));
        gauge!("segl_token_service_seconds", "token" => name.clone()).set(token.service_ewma_ns as f64 / 1e9);
        let RungCounters {
            session_replaced,
            thread_replaced,
            login_again,
            token_rebuilt,
            module_reinitialised,
            probations,
        } = token.rungs;
        for (rung, count) in [
            ("session", session_replaced),
            ("thread", thread_replaced),
            ("login", login_again),
            ("token", token_rebuilt),
            ("module", module_reinitialised),
            ("probation", probations),
        ] {
            counter!(RUNGS, "token" => name.clone(), "rung" => rung).absolute(count);
        }
    }
    counter!(RETRIES).absolute(pool.counters.retries);
    counter!("segl_retries_refused_total").absolute(pool.counters.retries_refused);
    counter!("segl_attempts_unknown_total").absolute(pool.counters.unknown);
    gauge!("segl_retries_left").set(f64::from(pool.retries_left));
    for class in Class::ALL {
        gauge!("segl_queue_depth", "class" => class.name()).set(f64::from(pool.queued(class)));
    }
    let now_s = clock::unix_s();
    let until = |then_s: i64| (then_s - now_s) as f64;
    // A key is as usable as its active version, and not at all without one.
    let (active, waiting): (Vec<_>, Vec<_>) =
        shared.keys.cards().into_iter().partition(|card| card.entry.phase(now_s) == VersionPhase::Active);
    let mut shown = Shown::default();
    for card in waiting.iter().chain(&active) {
        let entry = &card.entry;
        let is_active = entry.phase(now_s) == VersionPhase::Active;
        let name = ("key", &*entry.name);
        let usable = flag(card.state(|route| shared.desk.route_usable(route)) == KeyState::Usable);
        shown.set("segl_key_usable", &[name], if is_active { usable } else { 0.0 });
        if let Some(term) = &entry.term {
            let version = [name, ("version", &*term.version)];
            shown.set("segl_key_version_usable", &version, usable);
            shown.set("segl_key_version_begins_seconds", &version, until(term.from_unix_s));
        }
        if let Some(chain) = entry.certificate.as_ref().filter(|_| is_active) {
            shown.set("segl_key_certificate_expires_seconds", &[name], until(chain.not_after_unix_s()));
        }
        let fit = card.fit_tokens();
        for (token, token_name) in (0u16..).zip(&shared.token_names) {
            if entry.tokens.contains(token_name) {
                let labels = [("key", &*entry.label), ("token", &**token_name)];
                shown.set("segl_key_fit", &labels, flag(fit.contains(token)));
            }
        }
    }
    let snapshot = shared.snapshot.load();
    gauge!("segl_certificate_expires_seconds").set(until(snapshot.tls.certificate_not_after_s));
    for crl in &snapshot.tls.crls {
        shown.set("segl_crl_expires_seconds", &[("issuer", &crl.issuer)], until(crl.next_update_s));
    }
    for tenant in snapshot.policy.tenants() {
        let taken = shared.census.load(tenant.id()).taken();
        shown.set("segl_tenant_in_flight", &[("tenant", tenant.name())], f64::from(taken));
    }
    shown.instead_of_what_was();
    gauge!("segl_connections", "phase" => "all").set(shared.census.connections() as f64);
    gauge!("segl_connections", "phase" => "handshake").set(shared.census.handshakes() as f64);
    let journal = shared.desk.journal().stats();
    gauge!("segl_journal_lag_records").set((journal.appended_seq - journal.durable_seq) as f64);
    gauge!("segl_clock_synchronised").set(flag(shared.clock.latest().is_good()));
    gauge!("segl_journal_open").set(flag(shared.desk.journal().state() == segl_audit::State::Open));
}

/// Gauges of what a reload can take away, by name and values of labels.
#[derive(Default)]
struct Shown(HashMap<(&'static str, Vec<String>), Gauge>);

/// Those of the last refresh; the recorder is the process's too.
static SHOWN: Mutex<Option<Shown>> = Mutex::new(None);

impl Shown {
    fn set(&mut self, name: &'static str, labels: &[(&'static str, &str)], value: f64) {
        let owned: Vec<_> = labels.iter().map(|(label, value)| (*label, (*value).to_owned())).collect();
        let gauge = gauge!(name, &owned);
        gauge.set(value);
        self.0.insert((name, owned.into_iter().map(|(_, value)| value).collect()), gauge);
    }

    /// What is not there any more is no number: a key or CRL that was taken out must not alarm for ever.
    fn instead_of_what_was(self) {
        let mut last = SHOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = last.iter().flat_map(|last| &last.0).filter(|(what, _)| !self.0.contains_key(what));
        gone.for_each(|(_, gauge)| gauge.set(f64::NAN));
        *last = Some(self);
    }
}

fn flag(set: bool) -> f64 {
    if set { 1.0 } else { 0.0 }
}
