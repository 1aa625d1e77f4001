//! The OpenAPI document, made from the code, and a page that shows it.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{Http, HttpAuthScheme, SecurityScheme},
};

use super::{Broker, assertions, health, json, jws, keys, published, sign, to_json};
use crate::problem::Code;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Segl broker",
        description = "Signatures by keys in hardware tokens, over HTTP. Bytes are base64 (RFC 4648 section 4, with \
            padding). Every failure is a problem document (RFC 9457) that says whose fault it was, whether a \
            signature may have been made (`signed`), and where trying again makes sense (`retry`)."
    ),
    paths(
        sign::sign, sign::sign_batch, assertions::sign_assertion, jws::sign_jws, keys::keys, published::jwks,
        published::key_descriptors, health::healthz, health::readyz, openapi, docs,
    ),
    tags(
        (name = "signing", description = "Signatures and the keys that make them"),
        (name = "published", description = "What the world is told of signing keys: for anybody"),
        (name = "health", description = "Whether it lives and can be used"),
        (name = "documentation", description = "This document"),
    ),
    modifiers(&Additions),
)]
struct Api;

/// What attributes cannot say.
struct Additions;

impl Modify for Additions {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let table = Code::ALL
            .iter()
            .map(|code| format!("| `{}` | {} | {} |", code.name(), code.status().as_u16(), code.title()));
        let table = table.collect::<Vec<_>>().join("\n");
        let description = openapi.info.description.get_or_insert_default();
        description.push_str(&format!("\n\n| code | status | meaning |\n| --- | --- | --- |\n{table}\n"));
        let components = openapi.components.get_or_insert_default();
        let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        let certificate = SecurityScheme::MutualTls {
            description: Some("A caller's client certificate".into()),
            deprecated: None,
            extensions: None,
        };
        components.add_security_scheme("bearer", bearer);
        components.add_security_scheme("certificate", certificate);
    }
}

/// The OpenAPI document of this interface.
pub fn document() -> utoipa::openapi::OpenApi {
    Api::openapi()
}

/// What the window, as configured, and `unknown` mean for a caller.
fn asking_again(window: Duration) -> String {
    format!(
        "\nThis broker keeps the answer to a request with an `Idempotency-Key` for {} s from the first request. Answers \
        live in one broker process: they are lost when it restarts, and other brokers do not know them. `signed` = \
        `unknown` means that a signature may exist which nobody will see; the same key gives the same answer. Where a \
        second signature does no harm, ask with a new key; where it binds somebody, look up the `reference` in \
        segld's journal first.\n",
        window.as_secs()
    )
}

/// The OpenAPI document.
#[utoipa::path(get, path = "/openapi.json", tag = "documentation", operation_id = "openapi",
    responses((status = 200, description = "OpenAPI 3.1", body = Object, content_type = "application/json")))]
pub(super) async fn openapi(State(broker): State<Arc<Broker>>) -> Response {
    let mut document = document();
    document.info.description.get_or_insert_default().push_str(&asking_again(broker.idempotency.window()));
    json(to_json(&document))
}

/// A page that shows the OpenAPI document; it loads nothing from elsewhere.
#[utoipa::path(get, path = "/docs", tag = "documentation", operation_id = "docs",
    responses((status = 200, description = "A page", body = String, content_type = "text/html")))]
pub(super) async fn docs() -> Response {
    const POLICY: &str = "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; style-src \
        'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    ];
    (headers, include_str!("docs.html")).into_response()
}
