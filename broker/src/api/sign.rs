//! `POST /v1/sign` and `POST /v1/sign-batch`: signatures over what the caller has hashed.

use std::{borrow::Cow, sync::Arc};

use axum::{
    body::Bytes,
    extract::{Request, State},
    response::Response,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use segl_wire as wire;

use super::{
    Broker,
    order::{Made, Many, One, Order, asked},
    to_json, types,
};
use crate::{
    callers::Operation,
    problem::Problem,
    upstream::{Ask, Failure, Items, What},
};

asked!(types::SignRequest, algorithm, encoded);
asked!(types::SignBatchRequest, algorithm, encoded);

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
    let work = async |order: Order, asked: types::SignRequest| {
        let payload = types::payload(&asked.algorithm, asked.digest.as_deref(), asked.message.as_deref(), "#")?;
        order.one(Payload(payload)).await
    };
    broker.signs(request, Operation::Sign, work).await
}

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
        (status = 200, description = "An answer for each item", body = types::BatchAnswer<types::SignedItem>),
        (status = "default", description = "Any failure", body = Problem, content_type = "application/problem+json"),
    ),
    security(("bearer" = []), ("certificate" = [])),
)]
pub(super) async fn sign_batch(State(broker): State<Arc<Broker>>, request: Request) -> Response {
    let work = async |order: Order, asked: types::SignBatchRequest| {
        types::batch_len(asked.items.len(), order.broker.limits.batch_max)?;
        let payloads = payloads(&asked)?;
        order.many(payloads.len(), Payloads(payloads)).await
    };
    broker.signs(request, Operation::SignBatch, work).await
}

struct Payload(wire::Payload<'static>);

impl One for Payload {
    fn what(&self) -> What<'_> {
        What::Payload(self.0.clone())
    }

    async fn answer(&self, ask: &Ask, made: Made) -> Result<Bytes, Failure> {
        Ok(to_json(&types::SignAnswer {
            signature: STANDARD.encode(&made.bytes),
            key: ask.key.clone(),
            algorithm: ask.algorithm.clone(),
            reference: ask.reference().to_owned(),
            version: made.version,
            timings: made.timings,
        }))
    }
}

struct Payloads(Vec<wire::BatchItem<'static>>);

impl Many for Payloads {
    type Item = types::SignedItem;

    fn items(&self) -> Items<'_> {
        Items::Payloads(&self.0)
    }

    fn references(&self) -> impl Iterator<Item = Option<&str>> + Send {
        self.0.iter().map(|item| item.reference.as_deref())
    }

    async fn answer(&self, made: Made) -> Result<types::SignedItem, Failure> {
        let Made { bytes, version, timings, .. } = made;
        Ok(types::SignedItem { signature: STANDARD.encode(&bytes), version, timings })
    }
}

fn payloads(asked: &types::SignBatchRequest) -> Result<Vec<wire::BatchItem<'static>>, Problem> {
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
