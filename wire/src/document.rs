//! Messages about what Segl looks into before it signs: SAML assertions and JSON Web Signatures.

use std::borrow::Cow;

use crate::{Capacity, Error, Meta, Timings, numbered::numbered};

numbered! {
    /// What a signature says of the key that made it.
    #[derive(Default)]
    pub enum KeyInfo {
        /// Nothing (a JWS always has its `kid`)
        #[default]
        None = 0,
        /// The key's certificate: `X509Data` (XML-DSig §4.5.4), `x5c` (RFC 7515 §4.1.6)
        Leaf = 1,
        /// The certificate and those above it
        Chain = 2,
        /// The certificate's SHA-256: `x5t#S256` (RFC 7515 §4.1.8); JWS only
        Thumbprint = 3,
    }
}

impl KeyInfo {
    /// What the signature of an assertion can say of its key.
    pub const OF_ASSERTIONS: [KeyInfo; 3] = [KeyInfo::None, KeyInfo::Leaf, KeyInfo::Chain];
}

numbered! {
    /// What comes back of a signed document.
    #[derive(Default)]
    pub enum Form {
        /// All of it, with the signature in its place
        #[default]
        Document = 0,
        /// The signature and where it goes, to save the way back
        Signature = 1,
    }
}

/// How assertions are to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssertionHow<'a> {
    /// Name of the key
    pub key: Cow<'a, str>,
    /// URI of the signature's algorithm (XML-DSig §6.4, RFC 9231)
    pub signature_method: Cow<'a, str>,
    /// URI of the digest's algorithm
    pub digest_method: Cow<'a, str>,
    /// What `ds:KeyInfo` says
    pub key_info: KeyInfo,
    /// What comes back
    pub form: Form,
    /// Whether the answer shall carry [`Timings`]
    pub timings: bool,
}

/// Asks for the signature of one SAML 2.0 assertion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignAssertion<'a> {
    /// Common to all requests
    pub meta: Meta<'a>,
    /// How
    pub how: AssertionHow<'a>,
    /// A `saml:Assertion`, or a `samlp:Response` with one; XML, UTF-8
    pub document: Cow<'a, [u8]>,
}

/// Asks for the signatures of many assertions with one key; each gets its own answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignAssertionBatch<'a> {
    /// Common to all requests
    pub meta: Meta<'a>,
    /// How
    pub how: AssertionHow<'a>,
    /// 1 to the announced number
    pub items: Vec<AssertionItem<'a>>,
}

/// One of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssertionItem<'a> {
    /// As in [`SignAssertion`]
    pub document: Cow<'a, [u8]>,
    /// In place of the batch's reference
    pub reference: Option<Cow<'a, str>>,
    /// In place of the batch's capacity: its assertions are about different persons
    pub capacity: Option<Capacity>,
}

/// A signed assertion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedAssertion<'a> {
    /// The document, the input byte for byte with `ds:Signature` right after Issuer; or with `offset` that element only
    pub xml: Cow<'a, [u8]>,
    /// When asked for
    pub timings: Option<Timings>,
    /// Which version of the key signed; none when it has no versions
    pub version: Option<Cow<'a, str>>,
    /// At which byte of the input the element goes
    pub offset: Option<u32>,
}

/// The answers to a batch, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedAssertionBatch<'a> {
    /// An answer per item
    pub items: Vec<Result<SignedAssertion<'a>, Error<'a>>>,
}

/// Asks for one JSON Web Signature (RFC 7515).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignJws<'a> {
    /// Common to all requests
    pub meta: Meta<'a>,
    /// Name of the key
    pub key: Cow<'a, str>,
    /// The value of `alg` (RFC 7518 §3.1, RFC 8037)
    pub algorithm: Cow<'a, str>,
    /// Whether the answer shall carry [`Timings`]
    pub timings: bool,
    /// What the protected header says of the key beside `kid`
    pub key_info: KeyInfo,
    /// The caller's part of the protected header: a JSON object; none is an empty one
    pub header: Option<Cow<'a, [u8]>>,
    /// What is signed
    pub payload: Cow<'a, [u8]>,
}

/// A signed JWS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedJws<'a> {
    /// In compact serialisation (RFC 7515 §7.1): ASCII
    pub compact: Cow<'a, [u8]>,
    /// When asked for
    pub timings: Option<Timings>,
    /// Which version of the key signed; none when it has no versions
    pub version: Option<Cow<'a, str>>,
}

fn own<T: ToOwned + ?Sized + 'static>(value: Cow<'_, T>) -> Cow<'static, T> {
    Cow::Owned(value.into_owned())
}

impl AssertionHow<'_> {
    /// Borrowing nothing.
    pub fn into_owned(self) -> AssertionHow<'static> {
        AssertionHow {
            key: own(self.key),
            signature_method: own(self.signature_method),
            digest_method: own(self.digest_method),
            ..self
        }
    }
}

impl SignAssertion<'_> {
    /// Borrowing nothing.
    pub fn into_owned(self) -> SignAssertion<'static> {
        SignAssertion { meta: self.meta.into_owned(), how: self.how.into_owned(), document: own(self.document) }
    }
}

impl SignAssertionBatch<'_> {
    /// Borrowing nothing.
    pub fn into_owned(self) -> SignAssertionBatch<'static> {
        SignAssertionBatch {
            meta: self.meta.into_owned(),
            how: self.how.into_owned(),
            items: self.items.into_iter().map(AssertionItem::into_owned).collect(),
        }
    }
}

impl AssertionItem<'_> {
    /// Borrowing nothing.
    pub fn into_owned(self) -> AssertionItem<'static> {
        AssertionItem { document: own(self.document), reference: self.reference.map(own), ..self }
    }
}

impl SignedAssertion<'_> {
    /// Borrowing nothing.
    pub fn into_owned(self) -> SignedAssertion<'static> {
        SignedAssertion { xml: own(self.xml), version: self.version.map(own), ..self }
    }
}

impl SignedAssertionBatch<'_> {
    /// Borrowing nothing.
    pub fn into_owned(self) -> SignedAssertionBatch<'static> {
        let own = |item: Result<SignedAssertion<'_>, Error<'_>>| match item {
            Ok(signed) => Ok(signed.into_owned()),
            Err(error) => Err(error.into_owned()),
        };
        SignedAssertionBatch { items: self.items.into_iter().map(own).collect() }
    }
}

impl SignJws<'_> {
    /// Borrowing nothing.
    pub fn into_owned(self) -> SignJws<'static> {
        SignJws {
            meta: self.meta.into_owned(),
            key: own(self.key),
            algorithm: own(self.algorithm),
            header: self.header.map(own),
            payload: own(self.payload),
            ..self
        }
    }
}

impl SignedJws<'_> {
    /// Borrowing nothing.
    pub fn into_owned(self) -> SignedJws<'static> {
        SignedJws { compact: own(self.compact), version: self.version.map(own), ..self }
    }
}
