//! What requests and answers look like in JSON, and the way from there to what `segld` is asked.
//!
//! Unknown fields are refused, limits come before meaning, and whatever is wrong is told with a pointer to its field.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use segl_wire as wire;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::problem::{Code, Problem};

/// Asks for one signature. Exactly one of `digest` and `message` is given.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "key": "signatures-2026",
    "algorithm": "ecdsa-p256-sha256",
    "digest": "n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=",
    "class": "signature",
    "reference": "order-4711",
    "capacity": {"type": "company", "cvr": "12345678"}
}))]
pub struct SignRequest {
    /// Name of the key, as `GET /v1/keys` shows it
    #[schema(max_length = 64, min_length = 1)]
    pub key: String,
    /// Name of the algorithm, as `GET /v1/keys` shows it
    #[schema(max_length = 64, min_length = 1)]
    pub algorithm: String,
    /// The hash to sign (DTBS/R), base64, as long as the algorithm's hash
    pub digest: Option<String>,
    /// The data itself to sign, base64; short only: `segld` announces its limit
    pub message: Option<String>,
    /// Urgency; `login` when absent
    #[serde(default)]
    pub class: Class,
    /// How long an answer is of use, in milliseconds; the broker has a default and a limit
    #[schema(minimum = 1)]
    pub timeout_ms: Option<u32>,
    /// The caller's reference to the transaction, for the record; made by the broker when absent
    #[schema(max_length = 128, min_length = 1)]
    pub reference: Option<String>,
    /// In which capacity the person acts, for the record
    pub capacity: Option<Capacity>,
    /// Form of an ECDSA signature; other algorithms have one form only
    #[serde(default)]
    pub encoding: Encoding,
    /// Whether the answer shall say where the time went
    #[serde(default)]
    pub timings: bool,
}

/// Asks for many signatures with one key for one transaction; each item gets its own answer.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignBatchRequest {
    /// Name of the key, as `GET /v1/keys` shows it
    #[schema(max_length = 64, min_length = 1)]
    pub key: String,
    /// Name of the algorithm, as `GET /v1/keys` shows it
    #[schema(max_length = 64, min_length = 1)]
    pub algorithm: String,
    /// What to sign; at most as many as the broker's limit
    #[schema(min_items = 1)]
    pub items: Vec<BatchItem>,
    /// Urgency; `login` when absent
    #[serde(default)]
    pub class: Class,
    /// How long an answer is of use, in milliseconds; the broker has a default and a limit
    #[schema(minimum = 1)]
    pub timeout_ms: Option<u32>,
    /// The caller's reference to the transaction, for the record; made by the broker when absent
    #[schema(max_length = 128, min_length = 1)]
    pub reference: Option<String>,
    /// In which capacity the person acts, for the record
    pub capacity: Option<Capacity>,
    /// Form of ECDSA signatures; other algorithms have one form only
    #[serde(default)]
    pub encoding: Encoding,
    /// Whether the answers shall say where the time went
    #[serde(default)]
    pub timings: bool,
}

/// One of a batch. Exactly one of `digest` and `message` is given.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchItem {
    /// The hash to sign (DTBS/R), base64, as long as the algorithm's hash
    pub digest: Option<String>,
    /// The data itself to sign, base64
    pub message: Option<String>,
    /// In place of the batch's reference
    #[schema(max_length = 128, min_length = 1)]
    pub reference: Option<String>,
}

/// How urgent a request is: each class has its own queue.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// A person waits at a login
    #[default]
    Login,
    /// A person waits for a signature
    Signature,
    /// Nobody waits
    Bulk,
}

/// Form of an ECDSA signature.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// `ECDSA-Sig-Value` (RFC 3279 section 2.2.3), as X.509, CMS and openssl want it
    #[default]
    Der,
    /// `r || s` of fixed width, as JWS and XML-DSig want it
    Raw,
}

/// In which capacity the person acts.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum Capacity {
    /// As himself
    Citizen {},
    /// For a company
    Company {
        /// Its CVR number: eight digits
        #[schema(example = "12345678", pattern = "^[0-9]{8}$")]
        cvr: String,
    },
}

/// A signature.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SignAnswer {
    /// Base64
    pub signature: String,
    /// Name of the key
    pub key: String,
    /// Name of the algorithm
    pub algorithm: String,
    /// Under which the request is recorded
    pub reference: String,
    /// Which version of the key signed, if it has versions
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// When asked for
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timings: Option<Timings>,
}

/// The answers to a batch.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchAnswer<'a, T> {
    /// Name of the key
    pub key: &'a str,
    /// Name or URI of the algorithm
    pub algorithm: &'a str,
    /// Under which the batch is recorded; its items under their own where they have one
    pub reference: &'a str,
    /// How many items have a signature
    pub signed: usize,
    /// An answer for each item, in the order of the request
    pub items: Vec<ItemAnswer<T>>,
}

/// The answer to one item: what was made of it, or a problem.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum ItemAnswer<T> {
    /// It was signed
    Signed(T),
    /// It was not, or nobody knows
    Failed(FailedItem),
}

/// An item without an answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct FailedItem {
    /// Why
    pub problem: Problem,
}

/// A signature of a batch.
#[derive(Debug, Serialize, ToSchema)]
pub struct SignedItem {
    /// Base64
    pub signature: String,
    /// Which version of the key signed, if it has versions
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// When asked for
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timings: Option<Timings>,
}

/// Where the time went, in microseconds.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Timings {
    /// In `segld`'s queue
    pub queue_us: u32,
    /// Inside the token
    pub token_us: u32,
    /// From the broker's receipt of the header to the answer
    pub total_us: u64,
    /// How many `segld` were asked
    pub tries: u32,
}

/// The keys that a caller may use.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct KeysAnswer {
    /// By name
    pub keys: Vec<KeyAnswer>,
}

/// A key as its user sees it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct KeyAnswer {
    /// Its name
    pub name: String,
    /// The one thing it is for
    pub purpose: String,
    /// `rsa`, `ec-p256`, ...
    #[serde(rename = "type")]
    pub key_type: String,
    /// Modulus or field size in bits
    pub bits: u16,
    /// What may be done with it
    pub algorithms: Vec<String>,
    /// SubjectPublicKeyInfo, PEM; absent while no token has shown it
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_key_pem: Option<String>,
    /// SubjectPublicKeyInfo, DER in base64; absent while no token has shown it
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spki: Option<String>,
    /// Certificates, PEM, leaf first
    pub certificates: Vec<String>,
    /// Whether it can sign now: the best of all `segld`
    pub state: State,
    /// Whether it can sign now, at each `segld` that is connected
    pub upstreams: Vec<KeyUpstream>,
}

/// A key at one `segld`.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct KeyUpstream {
    /// The name of the `segld`
    pub segld: String,
    /// Whether it can sign now
    pub state: State,
}

/// Whether a key can sign now; the better come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Some token signs with it
    Usable,
    /// No token that holds it answers at present
    Unavailable,
    /// Its certificate has expired or is not valid yet
    Expired,
    /// It is refused: self-test or certificate do not fit the token's key
    Faulty,
}

impl From<wire::KeyState> for State {
    fn from(state: wire::KeyState) -> Self {
        match state {
            wire::KeyState::Usable => State::Usable,
            wire::KeyState::Unavailable => State::Unavailable,
            wire::KeyState::Expired => State::Expired,
            wire::KeyState::Faulty => State::Faulty,
        }
    }
}

impl Timings {
    /// With what the broker adds: the time since the request `began`, and the tries.
    pub(super) fn new(timings: wire::Timings, began: Instant, tries: u32) -> Self {
        let total_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        Self { queue_us: timings.queue_us, token_us: timings.token_us, total_us, tries }
    }
}

impl Class {
    pub(super) fn to_wire(self) -> wire::Class {
        match self {
            Class::Login => wire::Class::Login,
            Class::Signature => wire::Class::Signature,
            Class::Bulk => wire::Class::Bulk,
        }
    }
}

impl Encoding {
    pub(super) fn to_wire(self) -> wire::EcdsaEncoding {
        match self {
            Encoding::Der => wire::EcdsaEncoding::Der,
            Encoding::Raw => wire::EcdsaEncoding::Raw,
        }
    }
}

impl Capacity {
    /// `pointer` is that of what it stands in.
    pub(super) fn to_wire(&self, pointer: &str) -> Result<wire::Capacity, Problem> {
        let Capacity::Company { cvr } = self else { return Ok(wire::Capacity::Citizen) };
        let bad = || Problem::field(Code::BadInput, format!("{pointer}/capacity/cvr"), "a CVR number is eight digits");
        wire::Cvr::new(cvr).map(wire::Capacity::Company).ok_or_else(bad)
    }
}

/// What is to be signed: exactly one of digest and message, the digest as long as the algorithm's hash.
pub(super) fn payload(
    algorithm: &str,
    digest: Option<&str>,
    message: Option<&str>,
    pointer: &str,
) -> Result<wire::Payload<'static>, Problem> {
    let bad = |field: &str, detail: String| Problem::field(Code::BadInput, format!("{pointer}/{field}"), detail);
    let decode = |field: &str, text: &str| {
        let decoded = STANDARD.decode(text);
        decoded.map_err(|error| bad(field, format!("must be base64 with padding (RFC 4648 section 4): {error}")))
    };
    match (digest, message) {
        (Some(digest), None) => {
            let digest = decode("digest", digest)?;
            if algorithm == "ed25519" {
                return Err(bad("digest", "ed25519 signs messages, not digests: give `message`".into()));
            }
            let expected = hash_len(algorithm);
            if expected.is_some_and(|expected| expected != digest.len()) || digest.is_empty() || digest.len() > 64 {
                let expected = expected.map_or("1 to 64".into(), |len| len.to_string());
                let detail = format!("{algorithm} takes a digest of {expected} bytes, not {}", digest.len());
                return Err(bad("digest", detail));
            }
            Ok(wire::Payload::Digest(Cow::Owned(digest)))
        }
        (None, Some(message)) => Ok(wire::Payload::Message(Cow::Owned(decode("message", message)?))),
        (Some(_), Some(_)) => Err(bad("message", "give either `digest` or `message`, not both".into())),
        (None, None) => Err(bad("digest", "give either `digest` or `message`".into())),
    }
}

/// Whether a batch may have so many items.
pub(super) fn batch_len(items: usize, max: usize) -> Result<(), Problem> {
    if (1..=max).contains(&items) {
        return Ok(());
    }
    let detail = format!("a batch has 1 to {max} items here, not {items}");
    Err(Problem::field(Code::BadBatch, "#/items", detail))
}

/// A text for the record: 1 to 128 bytes without control characters.
pub(super) fn text(value: &str, pointer: &str) -> Result<(), Problem> {
    if value.is_empty() || value.len() > wire::TEXT_MAX || value.chars().any(char::is_control) {
        let detail = format!("must be 1 to {} bytes without control characters", wire::TEXT_MAX);
        return Err(Problem::field(Code::BadInput, pointer, detail));
    }
    Ok(())
}

/// A name of a key or an algorithm: 1 to 64 bytes without control characters.
pub(super) fn name(value: &str, pointer: &str) -> Result<(), Problem> {
    if value.is_empty() || value.len() > wire::NAME_MAX || value.chars().any(char::is_control) {
        let detail = format!("must be 1 to {} bytes without control characters", wire::NAME_MAX);
        return Err(Problem::field(Code::BadInput, pointer, detail));
    }
    Ok(())
}

/// Bytes of the hash that an algorithm's name ends with.
fn hash_len(algorithm: &str) -> Option<usize> {
    match algorithm.rsplit_once('-')?.1 {
        "sha256" => Some(32),
        "sha384" => Some(48),
        "sha512" => Some(64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointer(result: Result<wire::Payload<'static>, Problem>) -> String {
        result.expect_err("it is refused").errors.remove(0).pointer
    }

    #[test]
    fn a_digest_has_the_length_of_its_algorithms_hash() {
        let digest = |len: usize| STANDARD.encode(vec![7; len]);
        for (algorithm, len) in [("ecdsa-p256-sha256", 32), ("rsa-pss-sha384", 48), ("rsa-pkcs1-sha512", 64)] {
            assert!(payload(algorithm, Some(&digest(len)), None, "#").is_ok());
            assert_eq!(pointer(payload(algorithm, Some(&digest(len - 1)), None, "#")), "#/digest");
        }
        assert_eq!(pointer(payload("ed25519", Some(&digest(64)), None, "#/items/2")), "#/items/2/digest");
    }

    #[test]
    fn base64_is_standard_and_padded() {
        let of = |text: &str| payload("ed25519", None, Some(text), "#");
        assert_eq!(of("+/8=").unwrap(), wire::Payload::Message(Cow::Borrowed(&[0xfb, 0xff])));
        for bad in ["-_8=", "+/8", "+/8= ", "+/9=", "é"] {
            assert_eq!(pointer(of(bad)), "#/message", "{bad}");
        }
    }

    #[test]
    fn exactly_one_of_digest_and_message_is_given() {
        assert_eq!(pointer(payload("ed25519", None, None, "#")), "#/digest");
        assert_eq!(pointer(payload("ed25519", Some("AA=="), Some("AA=="), "#")), "#/message");
    }
}
