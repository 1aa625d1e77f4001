//! The separate address for those who watch: `/metrics`, `/healthz`, `/readyz`. In clear, on the loopback by default.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use metrics_exporter_prometheus::PrometheusHandle;
use segl_wire::KeyState;
use serde::Serialize;
use tokio::net::TcpListener;

use super::{RunError, gauges, service::Health, system};
use crate::{
    clock, config,
    keybook::{phase_name, state_name},
    policy::GrantView,
    state::Shared,
};

#[derive(Clone)]
struct Watcher {
    shared: Arc<Shared>,
    health: Health,
    prometheus: PrometheusHandle,
}

/// Serves on the main thread's runtime until it ends.
pub(super) async fn start(
    settings: &config::Admin,
    shared: Arc<Shared>,
    health: Health,
    prometheus: PrometheusHandle,
) -> Result<(), RunError> {
    let address = settings.address;
    let listener = TcpListener::bind(address).await.map_err(system(format!("admin.address {address}")))?;
    tracing::info!(%address, "metrics, health and readiness");
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(Watcher { shared, health, prometheus });
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "metrics and health are not served any more");
        }
    });
    Ok(())
}

async fn metrics(State(watcher): State<Watcher>) -> impl IntoResponse {
    gauges::refresh(&watcher.shared);
    let mut text = watcher.prometheus.render();
    watcher.shared.times.render(&mut text);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}

/// Whether our own threads and the journal's disk progress; says nothing of tokens.
async fn healthz(State(watcher): State<Watcher>) -> (StatusCode, String) {
    match watcher.health.check().and_then(|()| watcher.health.check_disk()) {
        Ok(()) => (StatusCode::OK, "ok\n".into()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    journal: String,
    keys: Vec<KeyReadiness>,
    tokens: Vec<TokenState>,
}

#[derive(Serialize)]
struct TokenState {
    token: String,
    state: &'static str,
    sessions: u16,
    threads_stuck: u16,
    last_error: Option<String>,
}

#[derive(Serialize)]
struct KeyReadiness {
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<&'static str>,
    state: &'static str,
    tokens: Vec<TokenReadiness>,
}

#[derive(Serialize)]
struct TokenReadiness {
    token: String,
    holding: String,
}

/// Whether some granted key signs and the journal takes its record.
async fn readyz(State(watcher): State<Watcher>) -> (StatusCode, Json<Readiness>) {
    let shared = &watcher.shared;
    let snapshot = shared.snapshot.load();
    let now_unix_s = clock::unix_s();
    let grants = |grant: &GrantView<'_>, key| grant.key.active(now_unix_s).is_some_and(|active| active.id == key);
    let granted = |key| snapshot.policy.tenants().iter().any(|tenant| tenant.grants().any(|grant| grants(&grant, key)));
    let mut some_key_signs = false;
    let mut keys = Vec::new();
    for card in shared.keys.cards() {
        let state = card.state(|route| shared.desk.route_usable(route));
        some_key_signs |= state == KeyState::Usable && granted(card.entry.id);
        let tokens = card.holdings().into_iter().map(|(token, holding)| TokenReadiness {
            token: shared.token_names[usize::from(token)].to_string(),
            holding: format!("{holding:?}"),
        });
        let (version, phase) = (card.entry.version(), card.entry.phase(now_unix_s));
        keys.push(KeyReadiness {
            key: card.entry.name.to_string(),
            version: version.map(|version| version.to_string()),
            phase: version.map(|_| phase_name(phase)),
            state: state_name(state),
            tokens: tokens.collect(),
        });
    }
    let journal = shared.desk.journal().state();
    let ready = some_key_signs && journal == segl_audit::State::Open;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let pool = shared.desk.pool_snapshot();
    let tokens = pool.tokens.iter().map(|token| TokenState {
        token: token.name.to_string(),
        state: token.state.name(),
        sessions: token.sessions_open,
        threads_stuck: token.threads_stuck,
        last_error: token.last_error.as_ref().map(ToString::to_string),
    });
    let (journal, tokens) = (format!("{journal:?}").to_lowercase(), tokens.collect());
    (status, Json(Readiness { ready, journal, keys, tokens }))
}
