//! Signatures asked for over the broker's HTTP, as a caller would.

use std::time::{Duration, Instant};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    Result,
    http::{Answer, Http},
    openssl,
};

/// A signature and where its time went.
#[derive(Clone, Debug)]
pub struct Signed {
    /// ECDSA in DER
    pub signature: Vec<u8>,
    /// Under which it is recorded
    pub reference: String,
    /// As the caller saw it; of a batch the whole batch's
    pub took: Duration,
    /// In segld's queue, in microseconds
    pub queue_us: u64,
    /// In the token, in microseconds
    pub token_us: u64,
}

/// A key's SubjectPublicKeyInfo, DER, as `GET /v1/keys` shows it to this caller.
pub fn public_key(caller: &Http, key: &str) -> Result<Vec<u8>> {
    let answer = expect(200, caller.get("/v1/keys")?)?;
    let keys = answer["keys"].as_array().ok_or("no `keys` in the answer")?;
    let entry = keys.iter().find(|entry| entry["name"] == key).ok_or_else(|| format!("{key} is not among {answer}"))?;
    bytes(&entry["spki"])
}

/// The body that asks for a signature over `document`.
pub fn request(key: &str, algorithm: &str, document: &[u8], reference: &str) -> Result<Value> {
    let mut body = json!({ "key": key, "algorithm": algorithm, "class": "signature", "timings": true });
    body["reference"] = reference.into();
    let (field, input) = input(algorithm, document)?;
    body[field] = input.into();
    Ok(body)
}

/// Asks for one signature; anything but a signature is an error with the answer's text.
pub fn sign(caller: &Http, key: &str, algorithm: &str, document: &[u8], reference: &str) -> Result<Signed> {
    let body = request(key, algorithm, document, reference)?;
    let started = Instant::now();
    let answer = caller.post("/v1/sign", &body, &[])?;
    let took = started.elapsed();
    signed(&expect(200, answer)?, reference, took)
}

/// Asks for a signature over each document in one request; item `i` is recorded under `REFERENCE-i`.
pub fn sign_batch(
    caller: &Http,
    key: &str,
    algorithm: &str,
    documents: &[Vec<u8>],
    reference: &str,
) -> Result<Vec<Signed>> {
    let mut items = Vec::new();
    for (at, document) in documents.iter().enumerate() {
        let (field, input) = input(algorithm, document)?;
        items.push(json!({ field: input, "reference": format!("{reference}-{at}") }));
    }
    let body = json!({ "key": key, "algorithm": algorithm, "items": items, "class": "bulk", "timings": true,
                       "reference": reference });
    let started = Instant::now();
    let answer = caller.post("/v1/sign-batch", &body, &[])?;
    let took = started.elapsed();
    let answer = expect(200, answer)?;
    let items = answer["items"].as_array().ok_or("no `items` in the answer")?;
    if items.len() != documents.len() {
        return Err(format!("{} answers to {} items", items.len(), documents.len()).into());
    }
    items.iter().enumerate().map(|(at, item)| signed(item, &format!("{reference}-{at}"), took)).collect()
}

fn input(algorithm: &str, document: &[u8]) -> Result<(&'static str, String)> {
    let field = if algorithm == "ed25519" { "message" } else { "digest" };
    Ok((field, STANDARD.encode(openssl::input_of(algorithm, document)?)))
}

fn signed(answer: &Value, reference: &str, took: Duration) -> Result<Signed> {
    if answer.get("signature").is_none() {
        return Err(format!("{reference}: {answer}").into());
    }
    let us = |name: &str| answer["timings"][name].as_u64().ok_or_else(|| format!("no timings.{name} in {answer}"));
    Ok(Signed {
        signature: bytes(&answer["signature"])?,
        reference: reference.to_owned(),
        took,
        queue_us: us("queue_us")?,
        token_us: us("token_us")?,
    })
}

fn expect(status: u16, answer: Answer) -> Result<Value> {
    if answer.status == status { Ok(answer.json) } else { Err(format!("{}: {}", answer.status, answer.text).into()) }
}

fn bytes(value: &Value) -> Result<Vec<u8>> {
    let text = value.as_str().ok_or_else(|| format!("base64 expected, not {value}"))?;
    Ok(STANDARD.decode(text)?)
}
