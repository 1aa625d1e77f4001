//! `POST /v1/assertions`: SAML assertions, which `segld` looks into before it signs them; then, if asked for, encrypted
//! for their service provider.

use std::{borrow::Cow, sync::Arc};

use axum::{
    body::Bytes,
    extract::{Request, State},
    response::Response,
};
use segl_assertion::{encrypt::EncryptError, saml::Limits};
use segl_wire as wire;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Broker, Snapshot,
    order::{Made, Many, One, Order, asked},
    to_json, types,
};
use crate::{
    callers::Operation,
    clock,
    problem::{Code, Problem},
    upstream::{Ask, Failure, Items, SignedForm, What},
};

asked!(AssertionRequest, signature_method);

/// Asks for the signatures of SAML 2.0 assertions: of one, as `document`, or of several, as `items`.
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
    document: Option<String>,
    /// Several, each with its own answer; at most as many as the broker's limit
    #[schema(min_items = 1)]
    items: Option<Vec<AssertionItem>>,
    /// What comes back: all of the document, or the signature alone, to save the way back
    #[serde(default)]
    form: Form,
    /// Whether each is encrypted, once it is signed, for the service provider that its Audience names: with the methods
    /// of its metadata, which the broker is configured with
    #[serde(default)]
    encrypt: bool,
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

/// One of several assertions.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AssertionItem {
    /// A `saml:Assertion`, or a `samlp:Response` with exactly one; XML as text
    document: String,
    /// In place of the request's reference
    #[schema(max_length = 128, min_length = 1)]
    reference: Option<String>,
    /// In place of the request's capacity
    capacity: Option<types::Capacity>,
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

/// What comes back of a signed assertion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Form {
    /// The document with its signature
    #[default]
    Document,
    /// `ds:Signature`, and where it goes
    Signature,
}

/// A document with its signature, or the signature of one.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct SignedXml {
    /// The document, byte for byte as it came, with `ds:Signature` right after the assertion's Issuer; when encryption
    /// was asked for, with `saml:EncryptedAssertion` in the assertion's place
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<String>,
    /// `ds:Signature` alone, when `form` asks for it
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<String>,
    /// How many bytes of the document, in UTF-8, stand before that signature
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u32>,
}

/// A signed assertion.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct AssertionAnswer {
    #[serde(flatten)]
    xml: SignedXml,
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

/// One of several signed assertions.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SignedDocument {
    #[serde(flatten)]
    xml: SignedXml,
    /// Which version of the key signed, if it has versions
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    /// When asked for
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<types::Timings>,
}

/// The answer to `document`, or to `items`.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it is described here; each of the two is made where it is known which it is")]
enum AssertionsAnswer {
    One(AssertionAnswer),
    Several(types::BatchAnswer<'static, SignedDocument>),
}

/// Sign SAML assertions that the policy allows. A refusal (`policy-violation`) lists what is against it.
///
/// Several are answered as `/v1/sign-batch` does: 200 with an answer for each, unless all failed for certain and for the
/// same reason.
#[utoipa::path(
    post,
    path = "/v1/assertions",
    tag = "signing",
    operation_id = "signAssertion",
    request_body = AssertionRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "As with `POST /v1/sign`", max_length = 128)),
    responses(
        (status = 200, description = "The signed assertion, or an answer for each", body = AssertionsAnswer),
        (status = "default", description = "Any failure", body = Problem, content_type = "application/problem+json"),
    ),
    security(("bearer" = []), ("certificate" = [])),
)]
pub(super) async fn sign_assertion(State(broker): State<Arc<Broker>>, request: Request) -> Response {
    let work = async |order: Order, mut asked: AssertionRequest| {
        types::name(&asked.signature_method, "#/signature_method")?;
        types::name(&asked.digest_method, "#/digest_method")?;
        if asked.encrypt && asked.form == Form::Signature {
            return Err(Problem::field(Code::BadInput, "#/form", "what is encrypted comes back as a document"));
        }
        let encryption = Encryption(asked.encrypt.then(|| order.admitted.snapshot.clone()));
        match (asked.document.take(), asked.items.take()) {
            (Some(document), None) => {
                encryption.check(&document, "#/document")?;
                order.one(Assertion { document, asked, encryption }).await
            }
            (None, Some(items)) => {
                types::batch_len(items.len(), order.broker.limits.batch_max)?;
                let capacities = capacities(&items)?;
                for (at, item) in items.iter().enumerate() {
                    encryption.check(&item.document, &format!("#/items/{at}/document"))?;
                }
                order.many(items.len(), Assertions { items, capacities, asked, encryption }).await
            }
            _ => Err(Problem::field(Code::BadInput, "#/document", "give either `document` or `items`")),
        }
    };
    broker.signs(request, Operation::SignAssertion, work).await
}

/// What is its own is checked here; the rest is the same for all.
fn capacities(items: &[AssertionItem]) -> Result<Vec<Option<wire::Capacity>>, Problem> {
    let checked = items.iter().enumerate().map(|(at, item)| {
        let pointer = format!("#/items/{at}");
        if let Some(reference) = &item.reference {
            types::text(reference, &format!("{pointer}/reference"))?;
        }
        item.capacity.as_ref().map(|capacity| capacity.to_wire(&pointer)).transpose()
    });
    checked.collect()
}

/// One assertion; its document stands here, no longer in what was asked.
struct Assertion {
    document: String,
    asked: AssertionRequest,
    encryption: Encryption,
}

impl One for Assertion {
    fn what(&self) -> What<'_> {
        What::Assertion { document: self.document.as_bytes(), form: self.asked.form() }
    }

    async fn answer(&self, ask: &Ask, made: Made) -> Result<Bytes, Failure> {
        let SignedDocument { xml, version, timings } = self.encryption.apply(made).await?;
        let (key, reference) = (ask.key.clone(), ask.reference().to_owned());
        Ok(to_json(&AssertionAnswer { xml, key, version, reference, timings }))
    }
}

/// Several; their documents stand here.
struct Assertions {
    items: Vec<AssertionItem>,
    capacities: Vec<Option<wire::Capacity>>,
    asked: AssertionRequest,
    encryption: Encryption,
}

impl Many for Assertions {
    type Item = SignedDocument;

    fn items(&self) -> Items<'_> {
        let items = self.items.iter().zip(&self.capacities).map(|(item, capacity)| wire::AssertionItem {
            document: Cow::Borrowed(item.document.as_bytes()),
            reference: item.reference.as_deref().map(Cow::Borrowed),
            capacity: *capacity,
        });
        Items::Assertions { items: items.collect(), form: self.asked.form() }
    }

    fn references(&self) -> impl Iterator<Item = Option<&str>> + Send {
        self.items.iter().map(|item| item.reference.as_deref())
    }

    async fn answer(&self, made: Made) -> Result<SignedDocument, Failure> {
        self.encryption.apply(made).await
    }
}

/// Under which configuration what is signed is encrypted, if at all: the same before and after.
struct Encryption(Option<Arc<Snapshot>>);

impl Encryption {
    /// That it can be done, so that nothing is signed in vain.
    fn check(&self, document: &str, pointer: &str) -> Result<(), Problem> {
        let Some(snapshot) = &self.0 else { return Ok(()) };
        let code = |error: &EncryptError| match error {
            EncryptError::Malformed(_) | EncryptError::NotSigned => Code::MalformedDocument,
            _ => Code::NoProvider,
        };
        let wrong = |error: EncryptError| match error {
            EncryptError::NotSigned => {
                let shape = "the document is neither a saml:Assertion nor a samlp:Response with exactly one";
                Problem::field(code(&error), pointer, shape)
            }
            _ => Problem::field(code(&error), pointer, error.to_string()),
        };
        let provider = snapshot.providers.provider_of(document.as_bytes(), &Limits::OF_SIGNED, clock::unix_s());
        provider.map(drop).map_err(wrong)
    }

    async fn apply(&self, made: Made) -> Result<SignedDocument, Failure> {
        let Made { mut bytes, version, timings, offset } = made;
        if let Some(snapshot) = self.0.clone() {
            // The provider's RSA key takes up to a millisecond: too long for a thread that serves connections.
            let work = tokio::task::spawn_blocking(move || snapshot.providers.encrypt(&bytes, &Limits::OF_SIGNED));
            let failed = |why: &dyn std::fmt::Display| {
                Failure::unanswered(Code::Internal, format!("it was signed, and could not be encrypted: {why}"))
            };
            bytes = work.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        }
        let unread = |_| Failure::unanswered(Code::UpstreamProtocol, "segld made no text of the document");
        let text = Some(String::from_utf8(bytes).map_err(unread)?);
        let xml = match offset {
            None => SignedXml { document: text, signature: None, offset },
            Some(_) => SignedXml { document: None, signature: text, offset },
        };
        Ok(SignedDocument { xml, version, timings })
    }
}

impl AssertionRequest {
    fn form(&self) -> SignedForm<'_> {
        SignedForm {
            digest_method: &self.digest_method,
            key_info: match self.key_info {
                XmlKeyInfo::None => wire::KeyInfo::None,
                XmlKeyInfo::Leaf => wire::KeyInfo::Leaf,
                XmlKeyInfo::Chain => wire::KeyInfo::Chain,
            },
            form: match self.form {
                Form::Document => wire::Form::Document,
                Form::Signature => wire::Form::Signature,
            },
        }
    }
}
