//! `GET /.well-known/jwks.json` and `GET /v1/metadata/key-descriptors`: for anybody, since whoever verifies a signature
//! must be able to look up its key. Which keys they show is the operator's choice ([`crate::published`]).

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};

use super::Broker;
use crate::{
    problem::{Code, Problem},
    published::{KeyDescriptors, Kind},
};

/// The public keys of JWS, as a JWK set (RFC 7517); `kid` is that in the header of the JWS.
///
/// Keys that will sign later are in it already, those that signed before until they are taken out. `Age` says how long
/// ago the oldest part was seen.
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "published", operation_id = "jwks",
    responses(
        (status = 200, description = "A JWK set", body = Object, content_type = "application/jwk-set+json"),
        (status = "default", description = "Any failure", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn jwks(State(broker): State<Arc<Broker>>) -> Result<Response, Problem> {
    answer(&broker, Kind::Jwks, "application/jwk-set+json")
}

/// The public keys of SAML assertions, as `md:KeyDescriptor` elements for a metadata document.
#[utoipa::path(get, path = "/v1/metadata/key-descriptors", tag = "published", operation_id = "keyDescriptors",
    responses(
        (status = 200, description = "The elements", body = KeyDescriptors),
        (status = "default", description = "Any failure", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn key_descriptors(State(broker): State<Arc<Broker>>) -> Result<Response, Problem> {
    answer(&broker, Kind::KeyDescriptors, "application/json")
}

fn answer(broker: &Broker, kind: Kind, content_type: &'static str) -> Result<Response, Problem> {
    let snapshot = broker.snapshot.load();
    let keys = match kind {
        Kind::Jwks => &snapshot.publish.jwks,
        Kind::KeyDescriptors => &snapshot.publish.key_descriptors,
    };
    if keys.is_empty() {
        return Err(Problem::new(Code::NoSuchRoute, "no keys are published here"));
    }
    let unknown = || {
        let detail = "no segld has shown any of these keys since this broker started";
        Problem::passing(Code::NothingKnown, detail, Some(1_000))
    };
    let set = broker.published.set(kind, &snapshot).ok_or_else(unknown)?;
    // What is not all of it is asked for again soon: a key that is missing is a signature that nobody can verify.
    let max_age_s = if set.complete { snapshot.publish.max_age.as_secs() } else { 0 };
    let cache = HeaderValue::try_from(format!("public, max-age={max_age_s}")).expect("a number is printable");
    let mut response = set.body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, cache);
    headers.insert(header::AGE, set.seen_at.elapsed().as_secs().into());
    Ok(response)
}
