//! `POST /v1/assertions` and `POST /v1/jws`: documents that `segld` looks into before it signs them.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{Request, State},
    http::HeaderMap,
    response::Response,
};
use segl_wire as wire;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{Admitted, Broker, Call, Common, body, to_json, types};
use crate::{
    callers::Operation,
    idempotency::Answer,
    metrics,
    problem::{Code, Problem},
    upstream::{Ask, Failure, Signature, What},
};

/// Asks for the signature of one SAML 2.0 assertion.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AssertionRequest {
    /// Name of the key, as `GET /v1/keys` shows it
    #[schema(max_length = 64, min_length = 1)]
    key: String,
    /// URI of the signature's algorithm (RFC 9231)
    #[schema(max_length = 64, example = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256")]
    signature_method: String,
    /// URI of the digest's algorithm; SHA-256 when absent
    #[serde(default = "sha256")]
    #[schema(max_length = 64, example = "http://www.w3.org/2001/04/xmlenc#sha256")]
    digest_method: String,
    /// What `ds:KeyInfo` says
    #[serde(default)]
    key_info: XmlKeyInfo,
    /// A `saml:Assertion`, or a `samlp:Response` with exactly one; XML as text
    document: String,
    /// Urgency; `login` when absent
    #[serde(default)]
    class: types::Class,
    /// How long an answer is of use, in milliseconds; the broker has a default and a limit
    #[schema(minimum = 1)]
    timeout_ms: Option<u32>,
    /// The caller's reference to the transaction, for the record; made by the broker when absent
    #[schema(max_length = 128, min_length = 1)]
    reference: Option<String>,
    /// In which capacity the person acts: it must agree with the assertion
    capacity: Option<types::Capacity>,
    /// Whether the answer shall say where the time went
    #[serde(default)]
    timings: bool,
}

fn sha256() -> String {
    "http://www.w3.org/2001/04/xmlenc#sha256".to_owned()
}

/// What an XML signature says of its key.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum XmlKeyInfo {
    /// Nothing
    #[default]
    None,
    /// The key's certificate
    Leaf,
    /// The certificate and those above it
    Chain,
}

/// A signed assertion.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct AssertionAnswer {
    /// The document, byte for byte as it came, with `ds:Signature` right after the assertion's Issuer
    document: String,
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

/// Sign one SAML assertion that the policy allows. A refusal (`policy-violation`) lists everything that is against it.
#[utoipa::path(
    post,
    path = "/v1/assertions",
    tag = "signing",
    operation_id = "signAssertion",
    request_body = AssertionRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "As with `POST /v1/sign`", max_length = 128)),
    responses(
        (status = 200, description = "The signed assertion", body = AssertionAnswer),
        (status = "default", description = "Any failure", body = Problem, content_type = "application/problem+json"),
    ),
    security(("bearer" = []), ("certificate" = [])),
)]
pub(super) async fn sign_assertion(State(broker): State<Arc<Broker>>, request: Request) -> Response {
    let work = async |admitted: Admitted, request: Request| {
        let (headers, bytes) = read(&broker, request).await?;
        let asked: AssertionRequest = body::parse(&bytes)?;
        types::name(&asked.signature_method, "#/signature_method")?;
        types::name(&asked.digest_method, "#/digest_method")?;
        let common = Common {
            key: &asked.key,
            algorithm: &asked.signature_method,
            class: asked.class,
            timeout_ms: asked.timeout_ms,
            reference: asked.reference.as_deref(),
            capacity: asked.capacity.as_ref(),
            encoding: types::Encoding::Raw,
            timings: asked.timings,
        };
        let ask = common.ask(&broker, &admitted)?;
        signed(&broker, &admitted, &headers, &bytes, ask, Document::Assertion(asked)).await
    };
    broker.answer(request, Operation::SignAssertion, work).await
}

/// Sign one JSON Web Signature that the policy allows. A refusal (`policy-violation`) lists everything that is against
/// it.
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
    let work = async |admitted: Admitted, request: Request| {
        let (headers, bytes) = read(&broker, request).await?;
        let asked: JwsRequest = body::parse(&bytes)?;
        let common = Common {
            key: &asked.key,
            algorithm: &asked.algorithm,
            class: asked.class,
            timeout_ms: asked.timeout_ms,
            reference: asked.reference.as_deref(),
            capacity: asked.capacity.as_ref(),
            encoding: types::Encoding::Raw,
            timings: asked.timings,
        };
        let ask = common.ask(&broker, &admitted)?;
        signed(&broker, &admitted, &headers, &bytes, ask, Document::Jws(asked)).await
    };
    broker.answer(request, Operation::SignJws, work).await
}

async fn read(broker: &Broker, request: Request) -> Result<(HeaderMap, Bytes), Problem> {
    let (head, content) = request.into_parts();
    let bytes = body::read(&head.headers, content, broker.limits.body_max, broker.limits.body_timeout).await?;
    Ok((head.headers, bytes))
}

/// What is signed, for as long as that takes.
enum Document {
    Assertion(AssertionRequest),
    Jws(JwsRequest),
}

impl Document {
    fn operation(&self) -> Operation {
        match self {
            Document::Assertion(_) => Operation::SignAssertion,
            Document::Jws(_) => Operation::SignJws,
        }
    }

    fn what(&self) -> What<'_> {
        match self {
            Document::Assertion(asked) => What::Assertion {
                document: asked.document.as_bytes(),
                digest_method: &asked.digest_method,
                key_info: match asked.key_info {
                    XmlKeyInfo::None => wire::KeyInfo::None,
                    XmlKeyInfo::Leaf => wire::KeyInfo::Leaf,
                    XmlKeyInfo::Chain => wire::KeyInfo::Chain,
                },
            },
            Document::Jws(asked) => What::Jws {
                header: asked.header.as_ref().map(|header| header.get().as_bytes()),
                payload: asked.payload.get().as_bytes(),
                key_info: match asked.key_info {
                    JwsKeyInfo::None => wire::KeyInfo::None,
                    JwsKeyInfo::Leaf => wire::KeyInfo::Leaf,
                    JwsKeyInfo::Chain => wire::KeyInfo::Chain,
                    JwsKeyInfo::Thumbprint => wire::KeyInfo::Thumbprint,
                },
            },
        }
    }

    /// The answer; none when what came is no text, which `segld` never makes of a text.
    fn answer(&self, ask: &Ask, signed: Signature, timings: Option<types::Timings>) -> Option<Bytes> {
        let text = String::from_utf8(signed.bytes).ok()?;
        let (key, version) = (ask.key.clone(), signed.version);
        let reference = ask.context.reference.as_deref().unwrap_or_default().to_owned();
        Some(match self {
            Document::Assertion(_) => to_json(&AssertionAnswer { document: text, key, version, reference, timings }),
            Document::Jws(_) => to_json(&JwsAnswer { jws: text, key, version, reference, timings }),
        })
    }
}

async fn signed(
    broker: &Broker,
    admitted: &Admitted,
    headers: &HeaderMap,
    bytes: &[u8],
    ask: Ask,
    document: Document,
) -> Result<Response, Problem> {
    let tenant = admitted.tenant()?;
    let (caller, began) = (admitted.caller.clone(), admitted.began);
    let reference = ask.context.reference.as_deref().unwrap_or_default().to_owned();
    let call = Call {
        operation: document.operation(),
        caller: &admitted.caller,
        headers,
        body: bytes,
        reference: &reference,
        deadline: ask.deadline,
    };
    let work = async move {
        let outcome = tenant.sign(&ask, &document.what()).await;
        metrics::tries(outcome.tries);
        let made = outcome.result.and_then(|signed| {
            let timings = signed.timings.map(|timings| types::Timings::new(timings, began, outcome.tries));
            let unread = || Failure::unanswered(Code::UpstreamProtocol, "segld made no text of the document");
            document.answer(&ask, signed, timings).ok_or_else(unread)
        });
        match made {
            Ok(body) => {
                metrics::signatures(&caller.name, "signed", 1);
                Answer::Success(body)
            }
            Err(failure) => {
                metrics::signatures(&caller.name, failure.code.name(), 1);
                let reference = ask.context.reference.as_deref().unwrap_or_default();
                Answer::Failure(Box::new(failure.into_problem(reference)))
            }
        }
    };
    broker.once(call, work).await
}
