//! `POST /v1/sign`: one signature.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{Broker, Call, Common, body, to_json, types};
use crate::{callers::Operation, idempotency::Answer, metrics, problem::Problem, upstream::What};

/// Sign one digest or one bounded message.
#[utoipa::path(
    post,
    path = "/v1/sign",
    tag = "signing",
    operation_id = "sign",
    request_body = types::SignRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes it safe to send the request again: \
        the same key with the same body gets the same answer within the broker's window, marked \
        `Idempotency-Replayed: true`. A definite failure (`signed` is `no`) is not kept. Answers live in the memory of \
        one broker process.", max_length = 128)),
    responses(
        (status = 200, description = "The signature", body = types::SignAnswer),
        (status = "default", description = "Any failure", body = Problem, content_type = "application/problem+json"),
    ),
    security(("bearer" = []), ("certificate" = [])),
)]
pub(super) async fn sign(State(broker): State<Arc<Broker>>, request: Request) -> Response {
    let work = async |admitted: super::Admitted, request: Request| {
        let (head, content) = request.into_parts();
        let bytes = body::read(&head.headers, content, broker.limits.body_max, broker.limits.body_timeout).await?;
        let asked: types::SignRequest = body::parse(&bytes)?;
        let ask = Common {
            key: &asked.key,
            algorithm: &asked.algorithm,
            class: asked.class,
            timeout_ms: asked.timeout_ms,
            reference: asked.reference.as_deref(),
            capacity: asked.capacity.as_ref(),
            encoding: asked.encoding,
            timings: asked.timings,
        }
        .ask(&broker, &admitted)?;
        let payload = types::payload(&asked.algorithm, asked.digest.as_deref(), asked.message.as_deref(), "#")?;
        let tenant = admitted.tenant()?;
        let (caller, began) = (admitted.caller.clone(), admitted.began);
        let reference = ask.context.reference.as_deref().unwrap_or_default().to_owned();
        let call = Call {
            operation: Operation::Sign,
            caller: &admitted.caller,
            headers: &head.headers,
            body: &bytes,
            reference: &reference,
            deadline: ask.deadline,
        };
        let work = async move {
            let outcome = tenant.sign(&ask, &What::Payload(payload)).await;
            metrics::tries(outcome.tries);
            let reference = ask.context.reference.as_deref().unwrap_or_default();
            match outcome.result {
                Ok(signature) => {
                    metrics::signatures(&caller.name, "signed", 1);
                    Answer::Success(to_json(&types::SignAnswer {
                        signature: STANDARD.encode(&signature.bytes),
                        key: ask.key.clone(),
                        algorithm: ask.algorithm.clone(),
                        reference: reference.to_owned(),
                        timings: signature.timings.map(|timings| types::Timings::new(timings, began, outcome.tries)),
                    }))
                }
                Err(failure) => {
                    metrics::signatures(&caller.name, failure.code.name(), 1);
                    Answer::Failure(Box::new(failure.into_problem(reference)))
                }
            }
        };
        broker.once(call, work).await
    };
    broker.answer(request, Operation::Sign, work).await
}
