//! Every way a request can fail, in one place: problem documents (RFC 9457) with whose fault it was, whether a
//! signature may exist, and where trying again makes sense.

use std::borrow::Cow;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use segl_wire as wire;
use serde::Serialize;
use utoipa::ToSchema;

/// `Content-Type` of a problem document.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// A problem document: the body of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// `urn:segl:problem:` and the code
    #[serde(rename = "type")]
    #[schema(example = "urn:segl:problem:not-granted")]
    pub kind: &'static str,
    /// The code in words; the same for every occurrence
    pub title: &'static str,
    /// The HTTP status, here too because proxies change it
    #[schema(example = 403, minimum = 400, maximum = 599)]
    pub status: u16,
    /// This occurrence in words: what is wrong and what to do
    pub detail: Cow<'static, str>,
    /// One code a cause, for programs
    pub code: Code,
    /// Whose fault it was
    pub fault: Fault,
    /// Whether a signature may have been made
    pub signed: Signed,
    /// Where trying again makes sense
    pub retry: Retry,
    /// When, at the earliest, in milliseconds; also as `Retry-After` in seconds
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u32>,
    /// The reference under which `segld` recorded the request
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub reference: Option<Box<str>>,
    /// The fields that are wrong
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// What is wrong with a document
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Box<Refused>>,
}

/// What is wrong with a document: in a box, since few problems have it and all are carried about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Refused {
    /// Of a `policy-violation` everything that is against it, up to 32: of a longer list the last one told is the rule
    /// `more`, and in a batch more may be left out. Of a `malformed-document` the first thing found, alone
    pub violations: Vec<Violation>,
}

/// One rule that a document breaks. It repeats nothing that the document says of a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Violation {
    /// Which rule: stable, for programs
    #[schema(example = "audience")]
    pub rule: String,
    /// Where, for people: an XPath, or a JSON Pointer into `{"header": ..., "payload": ...}`; `*` stands for names that
    /// the document alone has
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// What was expected
    pub text: String,
}

impl From<wire::Violation<'_>> for Violation {
    fn from(violation: wire::Violation<'_>) -> Self {
        Self {
            rule: violation.rule.into_owned(),
            place: violation.place.map(Cow::into_owned),
            text: violation.text.into_owned(),
        }
    }
}

/// A field that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// JSON Pointer (RFC 6901) into the request, as a URI fragment
    #[schema(example = "#/items/3/digest")]
    pub pointer: String,
    /// What is wrong with it
    pub detail: String,
}

/// Whose fault it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// The request's
    Client,
    /// The broker's or `segld`'s: configuration, capacity, network, disk
    Server,
    /// The token's
    Token,
}

/// Whether a signature may have been made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Signed {
    /// Certainly not
    No,
    /// It may exist; nobody will see it
    Unknown,
}

/// Where trying again makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Retry {
    /// Nowhere: it will fail again
    Never,
    /// Here, after the time given
    Here,
    /// At another broker, or here much later: this one has already tried the `segld` that it has
    Elsewhere,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $status:ident, $title:literal;)*) => {
        /// What went wrong, one code a cause.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ToSchema)]
        #[serde(rename_all = "kebab-case")]
        pub enum Code { $($(#[$doc])* $variant,)* }

        impl Code {
            /// All there are, in the order of the documentation.
            pub const ALL: &[Code] = &[$(Code::$variant,)*];

            /// As it stands in problem documents and metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Code::$variant => $name,)* }
            }

            /// The HTTP status that goes with it.
            pub const fn status(self) -> StatusCode {
                match self { $(Code::$variant => StatusCode::$status,)* }
            }

            /// In words.
            pub const fn title(self) -> &'static str {
                match self { $(Code::$variant => $title,)* }
            }

            const fn kind(self) -> &'static str {
                match self { $(Code::$variant => concat!("urn:segl:problem:", $name),)* }
            }
        }
    };
}

codes! {
    /// Not JSON, or not the fields that the operation takes
    BadJson = "bad-json", BAD_REQUEST, "The body is not the JSON that this operation takes";
    /// A field with a value that it cannot have
    BadInput = "bad-input", BAD_REQUEST, "A field has a value that it cannot have";
    /// More items than the limit, or none
    BadBatch = "bad-batch", BAD_REQUEST, "The batch has no items or too many";
    /// An Idempotency-Key that is none
    BadIdempotencyKey = "bad-idempotency-key", BAD_REQUEST, "The Idempotency-Key is not one";
    /// Nobody known
    Unauthenticated = "unauthenticated", UNAUTHORIZED, "No known caller";
    /// Not among the caller's operations
    OperationNotGranted = "operation-not-granted", FORBIDDEN, "This caller may not do this";
    /// No such key for this caller
    NotGranted = "not-granted", FORBIDDEN, "No such key for this caller";
    /// The key's purpose forbids it
    PurposeViolated = "purpose-violated", FORBIDDEN, "The key's purpose forbids this";
    /// Not an algorithm of this key, or not granted
    AlgorithmNotAllowed = "algorithm-not-allowed", FORBIDDEN, "Not an algorithm that may be used with this key";
    /// Not a class granted
    ClassNotAllowed = "class-not-allowed", FORBIDDEN, "Not a class that may be asked for";
    /// No such path
    NoSuchRoute = "no-such-route", NOT_FOUND, "There is nothing here";
    /// Another method
    MethodNotAllowed = "method-not-allowed", METHOD_NOT_ALLOWED, "This path takes another method";
    /// The body did not arrive in time
    BodyTimeout = "body-timeout", REQUEST_TIMEOUT, "The body did not arrive in time";
    /// The first request with this key is still being answered
    IdempotencyInProgress = "idempotency-in-progress", CONFLICT, "The first request with this Idempotency-Key has no answer yet";
    /// Longer than the limit
    BodyTooLarge = "body-too-large", PAYLOAD_TOO_LARGE, "The body is too long";
    /// Not JSON by its own word
    UnsupportedMediaType = "unsupported-media-type", UNSUPPORTED_MEDIA_TYPE, "The body must be application/json";
    /// The key was used with another body
    IdempotencyMismatch = "idempotency-mismatch", UNPROCESSABLE_ENTITY, "This Idempotency-Key came with another request before";
    /// It says what this caller may not have signed; `violations` lists it
    PolicyViolation = "policy-violation", UNPROCESSABLE_ENTITY, "The document is against the policy";
    /// Not what it claims to be, or not safe to read
    MalformedDocument = "malformed-document", UNPROCESSABLE_ENTITY, "The document cannot be read";
    /// It is to be encrypted, and nobody knows for whom
    NoProvider = "no-provider", UNPROCESSABLE_ENTITY, "No provider is known to encrypt for";
    /// The caller has as much in flight as it may have
    CallerLimit = "caller-limit", TOO_MANY_REQUESTS, "The caller has too much in flight";
    /// The caller's share of kept answers is used up
    IdempotencyFull = "idempotency-full", TOO_MANY_REQUESTS, "Too many Idempotency-Keys within the window";
    /// All memory for kept answers is used up
    IdempotencyUnavailable = "idempotency-unavailable", SERVICE_UNAVAILABLE, "No room to keep an answer for this Idempotency-Key";
    /// The tenant's own limit
    TenantLimit = "tenant-limit", TOO_MANY_REQUESTS, "The tenant's limit is reached";
    /// The broker has as much in flight as segld allows
    TooManyInFlight = "too-many-in-flight", SERVICE_UNAVAILABLE, "Too much is in flight";
    /// The queue is full, or the deadline cannot be met
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, "The queue is full";
    /// No segld can be reached
    UpstreamUnavailable = "upstream-unavailable", SERVICE_UNAVAILABLE, "No segld can be reached";
    /// No token that holds the key answers
    KeyUnavailable = "key-unavailable", SERVICE_UNAVAILABLE, "No token that holds the key answers";
    /// The certificate has expired, or the key failed its test
    KeyRefused = "key-refused", SERVICE_UNAVAILABLE, "The key is refused: expired certificate or failed test";
    /// What is published is not known yet
    NothingKnown = "nothing-known", SERVICE_UNAVAILABLE, "The keys are not known yet";
    /// The record cannot be written
    AuditUnavailable = "audit-unavailable", SERVICE_UNAVAILABLE, "The record cannot be written";
    /// It leaves
    Draining = "draining", SERVICE_UNAVAILABLE, "The server is leaving";
    /// It was taken back
    Cancelled = "cancelled", SERVICE_UNAVAILABLE, "The request was cancelled";
    /// The token failed while signing
    TokenFailed = "token-failed", BAD_GATEWAY, "The token failed while signing";
    /// The connection was lost before the answer
    AnswerLost = "answer-lost", BAD_GATEWAY, "The connection to segld was lost before the answer came";
    /// Broker and segld do not understand each other
    UpstreamProtocol = "upstream-protocol", BAD_GATEWAY, "Broker and segld do not understand each other";
    /// The deadline passed before a token began
    Expired = "expired", GATEWAY_TIMEOUT, "The deadline passed before a token began";
    /// The deadline passed and segld has said nothing
    AnswerTimeout = "answer-timeout", GATEWAY_TIMEOUT, "The deadline passed without an answer";
    /// Segl's own fault
    Internal = "internal", INTERNAL_SERVER_ERROR, "Segl's own fault";
}

impl Code {
    /// What the wire's code is called here.
    pub const fn of_wire(code: wire::Code) -> Self {
        use wire::Code as Wire;
        match code {
            Wire::Malformed | Wire::UnknownType | Wire::FrameTooLong | Wire::BadId => Code::UpstreamProtocol,
            Wire::BadInput => Code::BadInput,
            Wire::NotGranted => Code::NotGranted,
            Wire::PurposeViolated => Code::PurposeViolated,
            Wire::AlgorithmNotAllowed => Code::AlgorithmNotAllowed,
            Wire::ClassNotAllowed => Code::ClassNotAllowed,
            Wire::BadBatch => Code::BadBatch,
            Wire::PolicyViolation => Code::PolicyViolation,
            Wire::MalformedDocument => Code::MalformedDocument,
            Wire::Expired => Code::Expired,
            Wire::TooManyInFlight => Code::TooManyInFlight,
            Wire::Overloaded => Code::Overloaded,
            Wire::KeyUnavailable => Code::KeyUnavailable,
            Wire::TokenFailed => Code::TokenFailed,
            Wire::AuditUnavailable => Code::AuditUnavailable,
            Wire::Cancelled => Code::Cancelled,
            Wire::Draining => Code::Draining,
            Wire::TenantLimit => Code::TenantLimit,
            Wire::KeyRefused => Code::KeyRefused,
            Wire::Internal => Code::Internal,
        }
    }
}

impl Problem {
    /// The client's fault, nothing signed, no use trying again as it is.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind: code.kind(),
            title: code.title(),
            status: code.status().as_u16(),
            detail: detail.into(),
            code,
            fault: Fault::Client,
            signed: Signed::No,
            retry: Retry::Never,
            retry_after_ms: None,
            reference: None,
            errors: Vec::new(),
            refused: None,
        }
    }

    /// One field is wrong; `pointer` as in [`FieldError`].
    pub fn field(code: Code, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        let (pointer, detail) = (pointer.into(), detail.into());
        let summary = format!("{}: {detail}", pointer.trim_start_matches("#/"));
        Self { errors: vec![FieldError { pointer, detail }], ..Self::new(code, summary) }
    }

    /// The server's fault, and worth another try here.
    pub fn passing(code: Code, detail: impl Into<Cow<'static, str>>, retry_after_ms: Option<u32>) -> Self {
        Self { fault: Fault::Server, retry: Retry::Here, retry_after_ms, ..Self::new(code, detail) }
    }

    /// With the reference under which it is recorded.
    pub fn with_reference(self, reference: impl Into<String>) -> Self {
        Self { reference: Some(reference.into().into_boxed_str()), ..self }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self).expect("a problem has string keys only and serialises");
        let mut response = (self.code.status(), body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if self.code == Code::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"segl\""));
        }
        if let Some(ms) = self.retry_after_ms {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1_000).max(1)));
        }
        response.extensions_mut().insert(self.code);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_one_name_and_it_is_the_serialised_one() {
        let mut names = std::collections::BTreeSet::new();
        for code in Code::ALL {
            assert!(names.insert(code.name()), "{} stands twice", code.name());
            assert_eq!(serde_json::to_value(code).unwrap(), code.name());
            assert!(code.status().is_client_error() || code.status().is_server_error());
        }
    }

    #[test]
    fn the_manual_says_of_every_refusal_what_it_means() {
        let manual = include_str!("../../docs/OPERATIONS.md");
        let chapter = manual.split("\n## Refusals\n").nth(1).unwrap();
        let wire = wire::Code::ALL.iter().map(|code| code.name());
        for name in Code::ALL.iter().map(|code| code.name()).chain(wire) {
            assert!(chapter.contains(&format!("`{name}`")), "{name}");
        }
    }

    #[test]
    fn a_problem_is_a_document_with_its_headers() {
        let problem = Problem::passing(Code::Overloaded, "come back", Some(1_200)).with_reference("r-1");
        let document = serde_json::to_value(&problem).unwrap();
        assert_eq!(document["type"], "urn:segl:problem:overloaded");
        assert_eq!((&document["signed"], &document["retry"]), (&"no".into(), &"here".into()));
        assert_eq!(document["reference"], "r-1");
        assert!(document.get("errors").is_none());
        let response = problem.into_response();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["content-type"], PROBLEM_JSON);
        assert_eq!(response.headers()["retry-after"], "2");
    }

    #[test]
    fn unauthenticated_says_how_to_authenticate() {
        let response = Problem::new(Code::Unauthenticated, "who?").into_response();
        assert_eq!(response.status(), 401);
        assert!(response.headers()["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
    }
}
