//! Whether it lives, whether it can be used, and what it counts.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::Broker;
use crate::metrics as counters;

/// Whether requests can be served.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Readiness {
    /// Some tenant has a `segld`, and the broker is not leaving
    ready: bool,
    /// It is leaving
    draining: bool,
}

/// The same for the operator, road by road.
#[derive(Debug, Serialize)]
struct FullReadiness {
    ready: bool,
    draining: bool,
    tenants: Vec<TenantReadiness>,
}

#[derive(Debug, Serialize)]
struct TenantReadiness {
    tenant: String,
    ready: bool,
    upstreams: Vec<UpstreamReadiness>,
}

#[derive(Debug, Serialize)]
struct UpstreamReadiness {
    segld: String,
    state: String,
    in_flight: usize,
    /// Absent while nothing fresh is known
    keys_usable: Option<usize>,
    keys: Option<usize>,
}

/// Whether the process lives.
#[utoipa::path(get, path = "/healthz", tag = "health", operation_id = "healthz",
    responses((status = 200, description = "It lives", body = String, content_type = "text/plain")))]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether requests can be served: some tenant has a `segld` that it can reach.
#[utoipa::path(get, path = "/readyz", tag = "health", operation_id = "readyz",
    responses(
        (status = 200, description = "They can", body = Readiness),
        (status = 503, description = "They cannot", body = Readiness),
    ))]
pub(super) async fn readyz(State(broker): State<Arc<Broker>>) -> Response {
    let (ready, draining) = (is_ready(&broker), broker.is_draining());
    (status(ready), Json(Readiness { ready, draining })).into_response()
}

pub(super) async fn readyz_in_full(State(broker): State<Arc<Broker>>) -> Response {
    let (ready, draining) = (is_ready(&broker), broker.is_draining());
    let snapshot = broker.snapshot.load();
    let tenants = snapshot.tenants.values().map(|tenant| TenantReadiness {
        tenant: tenant.name.clone(),
        ready: tenant.is_ready(),
        upstreams: tenant
            .members()
            .iter()
            .map(|member| {
                let counts = member.key_counts();
                UpstreamReadiness {
                    segld: member.name.clone(),
                    state: member.segld.state(),
                    in_flight: member.segld.in_flight(),
                    keys_usable: counts.map(|(usable, _)| usable),
                    keys: counts.map(|(_, all)| all),
                }
            })
            .collect(),
    });
    (status(ready), Json(FullReadiness { ready, draining, tenants: tenants.collect() })).into_response()
}

pub(super) async fn metrics(State(broker): State<Arc<Broker>>) -> Response {
    for tenant in broker.snapshot.load().tenants.values() {
        for member in tenant.members() {
            counters::upstream(&tenant.name, &member.name, member.segld.is_ready(), member.segld.in_flight());
        }
    }
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], counters::exposition().render()).into_response()
}

fn is_ready(broker: &Broker) -> bool {
    !broker.is_draining() && broker.snapshot.load().tenants.values().any(|tenant| tenant.is_ready())
}

fn status(ready: bool) -> StatusCode {
    if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}
