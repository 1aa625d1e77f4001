//! `POST /v1/sign-batch`: many signatures with one key, an answer for each.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use axum::{
    extract::{Request, State},
    response::Response,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use segl_wire as wire;

use super::{Broker, Call, Common, body, to_json, types};
use crate::{
    callers::Operation,
    idempotency::Answer,
    metrics,
    problem::{Code, Problem, Signed},
};

/// Sign many digests or messages with one key for one transaction.
///
/// The answer is 200 with an answer for each item, be it a signature or a problem. Only when every item failed for
/// certain, and for the same reason, is that one problem the answer.
#[utoipa::path(
    post,
    path = "/v1/sign-batch",
    tag = "signing",
    operation_id = "signBatch",
    request_body = types::SignBatchRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "As for `/v1/sign`. An answer in which \
        some item was signed, or may have been, is kept.", max_length = 128)),
    responses(
        (status = 200, description = "An answer for each item", body = types::SignBatchAnswer),
        (status = "default", description = "Any failure", body = Problem, content_type = "application/problem+json"),
    ),
    security(("bearer" = []), ("certificate" = [])),
)]
pub(super) async fn sign_batch(State(broker): State<Arc<Broker>>, request: Request) -> Response {
    let work = async |admitted: super::Admitted, request: Request| {
        let (head, content) = request.into_parts();
        let bytes = body::read(&head.headers, content, broker.limits.body_max, broker.limits.body_timeout).await?;
        let asked: types::SignBatchRequest = body::parse(&bytes)?;
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
        let items = items(&asked, broker.limits.batch_max)?;
        let tenant = admitted.tenant()?;
        let (caller, began) = (admitted.caller.clone(), admitted.began);
        let reference = ask.context.reference.as_deref().unwrap_or_default().to_owned();
        let call = Call {
            operation: Operation::SignBatch,
            caller: &admitted.caller,
            headers: &head.headers,
            body: &bytes,
            reference: &reference,
            deadline: ask.deadline,
        };
        let work = async move {
            let outcome = tenant.sign_batch(&ask, &items).await;
            metrics::tries(outcome.tries);
            let reference = ask.context.reference.as_deref().unwrap_or_default();
            let mut counts = BTreeMap::<&'static str, u64>::new();
            let mut answers = Vec::with_capacity(items.len());
            for (item, result) in items.iter().zip(outcome.result) {
                let name = result.as_ref().map_or_else(|failure| failure.code.name(), |_| "signed");
                *counts.entry(name).or_default() += 1;
                answers.push(match result {
                    Ok(signature) => types::BatchAnswer::Signed {
                        signature: STANDARD.encode(&signature.bytes),
                        timings: signature.timings.map(|timings| types::Timings::new(timings, began, outcome.tries)),
                    },
                    Err(failure) => types::BatchAnswer::Failed {
                        problem: failure.into_problem(item.reference.as_deref().unwrap_or(reference)),
                    },
                });
            }
            for (name, count) in counts {
                metrics::signatures(&caller.name, name, count);
            }
            if let Some(problem) = common_problem(&answers) {
                return Answer::Failure(Box::new(problem.with_reference(reference)));
            }
            let answer = if answers.iter().all(certainly_failed) { Answer::NothingSigned } else { Answer::Success };
            answer(to_json(&types::SignBatchAnswer {
                key: ask.key.clone(),
                algorithm: ask.algorithm.clone(),
                reference: reference.to_owned(),
                signed: answers.iter().filter(|answer| matches!(answer, types::BatchAnswer::Signed { .. })).count(),
                items: answers,
            }))
        };
        broker.once(call, work).await
    };
    broker.answer(request, Operation::SignBatch, work).await
}

fn items(asked: &types::SignBatchRequest, batch_max: usize) -> Result<Vec<wire::BatchItem<'static>>, Problem> {
    if asked.items.is_empty() || asked.items.len() > batch_max {
        let detail = format!("a batch has 1 to {batch_max} items here, not {}", asked.items.len());
        return Err(Problem::field(Code::BadBatch, "#/items", detail));
    }
    let items = asked.items.iter().enumerate().map(|(at, item)| {
        let pointer = format!("#/items/{at}");
        if let Some(reference) = &item.reference {
            types::text(reference, &format!("{pointer}/reference"))?;
        }
        Ok(wire::BatchItem {
            payload: types::payload(&asked.algorithm, item.digest.as_deref(), item.message.as_deref(), &pointer)?,
            reference: item.reference.clone().map(Cow::Owned),
        })
    });
    items.collect()
}

fn certainly_failed(answer: &types::BatchAnswer) -> bool {
    matches!(answer, types::BatchAnswer::Failed { problem } if problem.signed == Signed::No)
}

/// The problem of all, when nothing was signed for certain and the code is the same everywhere.
fn common_problem(answers: &[types::BatchAnswer]) -> Option<Problem> {
    let mut first: Option<&Problem> = None;
    for answer in answers {
        let types::BatchAnswer::Failed { problem } = answer else { return None };
        if problem.signed != Signed::No || first.is_some_and(|first| first.code != problem.code) {
            return None;
        }
        first.get_or_insert(problem);
    }
    first.cloned()
}
