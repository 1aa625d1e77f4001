//! `GET /v1/keys`: the keys that a caller may use, and whether they can sign now.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{Broker, json, to_json, types};
use crate::{
    callers::Operation,
    problem::{Code, Problem},
    upstream::SeenKey,
};

/// The keys that the caller may use, with their live state at each `segld`.
#[utoipa::path(
    get,
    path = "/v1/keys",
    tag = "signing",
    operation_id = "keys",
    responses(
        (status = 200, description = "The keys", body = types::KeysAnswer),
        (status = "default", description = "Any failure", body = Problem, content_type = "application/problem+json"),
    ),
    security(("bearer" = []), ("certificate" = [])),
)]
pub(super) async fn keys(State(broker): State<Arc<Broker>>, request: Request) -> Response {
    let work = async |admitted: super::Admitted, _| {
        let Some(keys) = admitted.tenant()?.keys() else {
            let detail = "no segld is connected, so nothing is known about the keys now";
            return Err(Problem::passing(Code::UpstreamUnavailable, detail, Some(1_000)));
        };
        let granted = keys.iter().filter(|(name, _)| admitted.caller.may_use(name));
        let keys = granted.filter_map(|(_, seen)| answer(seen)).collect();
        Ok(json(to_json(&types::KeysAnswer { keys })))
    };
    broker.answer(request, Operation::Keys, work).await
}

/// One key as several `segld` show it: described by the one where it is best, the states of all beside it.
fn answer(seen: &[SeenKey]) -> Option<types::KeyAnswer> {
    let all = seen.iter().map(|seen| &seen.key);
    let key = all.min_by_key(|key| (types::State::from(key.state), key.spki_der.is_empty()))?;
    let shown = !key.spki_der.is_empty();
    Some(types::KeyAnswer {
        name: key.name.to_string(),
        purpose: key.purpose.to_string(),
        key_type: key.key_type.to_string(),
        bits: key.bits,
        algorithms: key.algorithms.iter().map(ToString::to_string).collect(),
        public_key_pem: shown.then(|| pem("PUBLIC KEY", &key.spki_der)),
        spki: shown.then(|| STANDARD.encode(&key.spki_der)),
        certificates: key.certificates.iter().map(|der| pem("CERTIFICATE", der)).collect(),
        state: key.state.into(),
        upstreams: seen
            .iter()
            .map(|seen| types::KeyUpstream { segld: seen.segld.clone(), state: seen.key.state.into() })
            .collect(),
    })
}

/// RFC 7468: lines of 64 characters.
fn pem(label: &str, der: &[u8]) -> String {
    let encoded = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in encoded.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem + &format!("-----END {label}-----\n")
}
