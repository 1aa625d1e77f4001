//! `POST /v1/jws`: JSON Web Signatures, whose claims `segld` looks into before it signs them.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{Request, State},
    response::Response,
};
use segl_wire as wire;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{
    Broker,
    order::{Made, One, Order, asked},
    to_json, types,
};
use crate::{
    callers::Operation,
    problem::{Code, Problem},
    upstream::{Ask, Failure, What},
};

asked!(JwsRequest, algorithm);

/// Asks for one JSON Web Signature (RFC 7515).
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct JwsRequest {
    /// Name of the key, as `GET /v1/keys` shows it
    #[schema(max_length = 64, min_length = 1)]
    key: String,
    /// The value of `alg`
    #[schema(max_length = 64, example = "ES256")]
    algorithm: String,
    /// What the header says of the key beside `kid`
    #[serde(default)]
    key_info: JwsKeyInfo,
    /// The caller's part of the protected header
    #[schema(value_type = Option<Object>)]
    header: Option<Box<RawValue>>,
    /// The claims; signed as they stand here, white space included
    #[schema(value_type = Object)]
    payload: Box<RawValue>,
    /// Urgency; `login` when absent
    #[serde(default)]
    class: types::Class,
    /// How long an answer is of use, in milliseconds; the broker has a default and a limit
    #[schema(minimum = 1)]
    timeout_ms: Option<u32>,
    /// The caller's reference to the transaction, for the record; made by the broker when absent
    #[schema(max_length = 128, min_length = 1)]
    reference: Option<String>,
    /// In which capacity the person acts
    capacity: Option<types::Capacity>,
    /// Whether the answer shall say where the time went
    #[serde(default)]
    timings: bool,
}

/// What a JWS's header says of its key.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum JwsKeyInfo {
    /// Nothing
    #[default]
    None,
    /// `x5c` with the key's certificate
    Leaf,
    /// `x5c` with those above it too
    Chain,
    /// `x5t#S256`
    Thumbprint,
}

/// A signed JWS.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct JwsAnswer {
    /// In compact serialisation
    jws: String,
    /// Name of the key
    key: String,
    /// Which version of the key signed, if it has versions
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    /// Under which the request is recorded
    reference: String,
    /// When asked for
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<types::Timings>,
}

/// Sign one JSON Web Signature that the policy allows. A refusal (`policy-violation`) lists what is against it.
#[utoipa::path(
    post,
    path = "/v1/jws",
    tag = "signing",
    operation_id = "signJws",
    request_body = JwsRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "As with `POST /v1/sign`", max_length = 128)),
    responses(
        (status = 200, description = "The JWS", body = JwsAnswer),
        (status = "default", description = "Any failure", body = Problem, content_type = "application/problem+json"),
    ),
    security(("bearer" = []), ("certificate" = [])),
)]
pub(super) async fn sign_jws(State(broker): State<Arc<Broker>>, request: Request) -> Response {
    let work = async |order: Order, asked: JwsRequest| order.one(asked).await;
    broker.signs(request, Operation::SignJws, work).await
}

impl One for JwsRequest {
    fn what(&self) -> What<'_> {
        What::Jws {
            header: self.header.as_ref().map(|header| header.get().as_bytes()),
            payload: self.payload.get().as_bytes(),
            key_info: match self.key_info {
                JwsKeyInfo::None => wire::KeyInfo::None,
                JwsKeyInfo::Leaf => wire::KeyInfo::Leaf,
                JwsKeyInfo::Chain => wire::KeyInfo::Chain,
                JwsKeyInfo::Thumbprint => wire::KeyInfo::Thumbprint,
            },
        }
    }

    async fn answer(&self, ask: &Ask, made: Made) -> Result<Bytes, Failure> {
        let unread = |_| Failure::unanswered(Code::UpstreamProtocol, "segld made no text of the JWS");
        Ok(to_json(&JwsAnswer {
            jws: String::from_utf8(made.bytes).map_err(unread)?,
            key: ask.key.clone(),
            version: made.version,
            reference: ask.reference().to_owned(),
            timings: made.timings,
        }))
    }
}
