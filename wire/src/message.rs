//! The messages, as the two sides hold them. Requests borrow from the frame they came in.

use std::{borrow::Cow, fmt};

use crate::{Error, numbered::numbered};

numbered! {
    /// How urgent a request is: each class has its own queue.
    #[derive(Default, PartialOrd, Ord)]
    pub enum Class {
        /// A person waits at a login
        #[default]
        Login = 0,
        /// A person waits for a signature
        Signature = 1,
        /// Nobody waits
        Bulk = 2,
    }
}

/// In which capacity the person acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Capacity {
    /// As himself
    Citizen,
    /// For the company with this CVR number
    Company(Cvr),
}

/// A Danish company number: eight digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cvr([u8; 8]);

impl Cvr {
    /// Takes exactly eight ASCII digits.
    pub fn new(digits: &str) -> Option<Cvr> {
        let digits: [u8; 8] = digits.as_bytes().try_into().ok()?;
        digits.iter().all(u8::is_ascii_digit).then_some(Cvr(digits))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("only ASCII digits are let in")
    }
}

impl fmt::Display for Cvr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Cvr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cvr({self})")
    }
}

/// What the audit record says beside the request itself. Texts are 1 to [`TEXT_MAX`] bytes of UTF-8 without
/// control characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context<'a> {
    /// The caller's reference to the transaction
    pub reference: Option<Cow<'a, str>>,
    /// On whose behalf the broker asks: its own caller
    pub on_behalf_of: Option<Cow<'a, str>>,
    /// In which capacity the person acts
    pub capacity: Option<Capacity>,
}

/// Longest text in a message, in bytes (names of keys and algorithms: 64).
pub const TEXT_MAX: usize = 128;

/// Longest key or algorithm name, in bytes.
pub const NAME_MAX: usize = 64;

/// Longest digest that is looked at, in bytes: SHA-512.
pub const DIGEST_MAX: usize = 64;

/// Longest data of a Ping, in bytes.
pub const PING_MAX: usize = 64;

/// Most keys in one answer.
pub const KEYS_MAX: usize = 4096;

/// Most algorithms of a key.
pub const ALGORITHMS_MAX: usize = 32;

/// Most certificates of a key's chain.
pub const CERTIFICATES_MAX: usize = 16;

/// Most versions of a key.
pub const VERSIONS_MAX: usize = 16;

/// What every request carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta<'a> {
    /// From receipt; the server caps it
    pub timeout_ms: u32,
    /// Urgency
    pub class: Class,
    /// For the record
    pub context: Context<'a>,
}

/// What is to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// A hash made by the caller (DTBS/R)
    Digest(Cow<'a, [u8]>),
    /// The data itself, at most the announced length
    Message(Cow<'a, [u8]>),
}

numbered! {
    /// Form of an ECDSA signature; other algorithms have one form only.
    #[derive(Default)]
    pub enum EcdsaEncoding {
        /// `ECDSA-Sig-Value` (RFC 3279 §2.2.3), as X.509, CMS and openssl want it
        #[default]
        Der = 0,
        /// `r || s` of fixed width, as JWS and XML-DSig want it
        Raw = 1,
    }
}

/// Asks which keys the client may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListKeys<'a> {
    /// Common to all requests
    pub meta: Meta<'a>,
}

/// Asks for one signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sign<'a> {
    /// Common to all requests
    pub meta: Meta<'a>,
    /// Name of the key
    pub key: Cow<'a, str>,
    /// Name of the algorithm
    pub algorithm: Cow<'a, str>,
    /// What is signed
    pub payload: Payload<'a>,
    /// Form of an ECDSA signature
    pub encoding: EcdsaEncoding,
    /// Whether the answer shall carry [`Timings`]
    pub timings: bool,
}

/// Asks for many signatures with one key for one transaction; each item gets its own answer.
///
/// Items of different persons or capacities are requests of their own: pipelining makes them as cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignBatch<'a> {
    /// Common to all requests
    pub meta: Meta<'a>,
    /// Name of the key
    pub key: Cow<'a, str>,
    /// Name of the algorithm
    pub algorithm: Cow<'a, str>,
    /// Form of ECDSA signatures
    pub encoding: EcdsaEncoding,
    /// Whether the answers shall carry [`Timings`]
    pub timings: bool,
    /// 1 to the announced number
    pub items: Vec<BatchItem<'a>>,
}

/// One of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchItem<'a> {
    /// What is signed
    pub payload: Payload<'a>,
    /// In place of the batch's reference
    pub reference: Option<Cow<'a, str>>,
}

/// Takes back the request with the header's id; that request still gets its one final answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cancel;

/// Where a request's time went, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// From submission to the pool until a session began with it
    pub queue_us: u32,
    /// Inside the token
    pub token_us: u32,
}

/// A signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed<'a> {
    /// In the form asked for
    pub signature: Cow<'a, [u8]>,
    /// When asked for
    pub timings: Option<Timings>,
    /// Which version of the key signed; none when it has no versions
    pub version: Option<Cow<'a, str>>,
}

/// The answers to a batch, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedBatch<'a> {
    /// An answer per item
    pub items: Vec<Result<Signed<'a>, Error<'a>>>,
}

/// What a client may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys<'a> {
    /// By name
    pub keys: Vec<Key<'a>>,
}

/// A key as its user sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key<'a> {
    /// Its name
    pub name: Cow<'a, str>,
    /// The one thing it is for
    pub purpose: Cow<'a, str>,
    /// `rsa`, `ec-p256`, ...
    pub key_type: Cow<'a, str>,
    /// Modulus or field size in bits
    pub bits: u16,
    /// What this client may do with it
    pub algorithms: Vec<Cow<'a, str>>,
    /// SubjectPublicKeyInfo, DER; empty while no token has shown it
    pub spki_der: Cow<'a, [u8]>,
    /// X.509 DER, leaf first; may be empty
    pub certificates: Vec<Cow<'a, [u8]>>,
    /// Whether it can sign now
    pub state: KeyState,
    /// Its versions, by the time from which they sign; empty when it has only itself. What stands above is the active
    /// version's.
    pub versions: Vec<KeyVersion<'a>>,
}

/// One of a key's versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyVersion<'a> {
    /// Its name
    pub name: Cow<'a, str>,
    /// Before its time, in it, or after it
    pub phase: VersionPhase,
    /// From when it signs, in seconds since 1970
    pub active_from_unix_s: u64,
    /// As [`Key::spki_der`]
    pub spki_der: Cow<'a, [u8]>,
    /// As [`Key::certificates`]
    pub certificates: Vec<Cow<'a, [u8]>>,
    /// Whether it could sign now
    pub state: KeyState,
}

numbered! {
    /// Where a key's version is in its life.
    pub enum VersionPhase {
        /// Published, so that others know it when it begins to sign
        Next = 0,
        /// It signs
        Active = 1,
        /// Another has taken over; what it signed is still verified with it
        Former = 2,
    }
}

numbered! {
    /// Whether a key can sign now.
    pub enum KeyState {
        /// Some token signs with it
        Usable = 0,
        /// No token that holds it answers at present
        Unavailable = 1,
        /// Its certificate has expired or is not valid yet
        Expired = 2,
        /// It is refused: self-test or certificate do not fit the token's key
        Faulty = 3,
    }
}

/// The server's first frame: what it is and every limit it holds the client to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// Name and version of the software
    pub server: Cow<'a, str>,
    /// Longest body of a frame that the server takes, in bytes
    pub frame_max: u32,
    /// Requests in flight on this connection; a batch of N counts N
    pub in_flight_max: u32,
    /// Items in a batch
    pub batch_max: u32,
    /// Longest message to sign, in bytes
    pub message_max: u32,
    /// Longest `timeout_ms` that is honoured
    pub timeout_max_ms: u32,
    /// A connection without traffic for so long is closed
    pub idle_ms: u32,
    /// Longest document (SAML, or a JWS's header or payload), in bytes
    pub document_max: u32,
}

/// Ping and Pong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ping<'a> {
    /// At most 64 bytes, sent back as they are
    pub data: Cow<'a, [u8]>,
}

numbered! {
    /// Why the sender leaves.
    pub enum GoAwayReason {
        /// It stops, or drains before a stop
        Shutdown = 0,
        /// The client's certificate is not good any more
        Unauthorised = 1,
        /// The client broke the protocol
        Protocol = 2,
        /// Nothing was said for too long
        Idle = 3,
    }
}

/// The sender leaves: requests with higher ids were not looked at and may go elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoAway<'a> {
    /// The highest request id that gets an answer
    pub last_id: u64,
    /// Why
    pub reason: GoAwayReason,
    /// For a human
    pub message: Cow<'a, str>,
}
