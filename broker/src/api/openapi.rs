//! The OpenAPI document, made from the code, and a page that shows it.

use std::sync::LazyLock;

use axum::{
    body::Bytes,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{Http, HttpAuthScheme, SecurityScheme},
};

use super::{batch, health, json, keys, sign};
use crate::problem::Code;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Segl broker",
        description = "Signatures by keys in hardware tokens, over HTTP. Bytes are base64 (RFC 4648 section 4, with \
            padding). Every failure is a problem document (RFC 9457) that says whose fault it was, whether a \
            signature may have been made (`signed`), and where trying again makes sense (`retry`)."
    ),
    paths(sign::sign, batch::sign_batch, keys::keys, health::healthz, health::readyz, openapi, docs),
    tags(
        (name = "signing", description = "Signatures and the keys that make them"),
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

/// The OpenAPI document.
#[utoipa::path(get, path = "/openapi.json", tag = "documentation", operation_id = "openapi",
    responses((status = 200, description = "OpenAPI 3.1", body = Object, content_type = "application/json")))]
pub(super) async fn openapi() -> Response {
    static JSON: LazyLock<Bytes> =
        LazyLock::new(|| document().to_json().expect("the document has string keys only and serialises").into());
    json(JSON.clone(), false)
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
