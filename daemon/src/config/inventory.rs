//! What the daemon signs with and for whom: tokens, keys, tenants and their grants, names resolved.

use std::{fmt, num::NonZeroU32, path::PathBuf, sync::Arc, time::Duration};

use segl_assertion::{jws::JwsPolicy, policy::AssertionPolicy};
use segl_hsm::{
    Algorithm, KeyType,
    pkcs11::{PinSource, Uri},
};
use segl_wire::Class;

use super::FromFile;
use crate::certificate::Chain;

/// `[[token]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its name
    pub name: Arc<str>,
    /// Sessions on it: how many calls it is given at once, at most
    pub sessions: u16,
    /// A call that takes longer is given up, with its thread
    pub stuck_after: Duration,
    /// A session that stands idle for so long is used for a moment; nought: never
    pub keep_alive: Duration,
    /// Whether it is on this host's site, as far as sites are told
    pub preferred: bool,
    /// The cores its sessions' threads are pinned to, in turn; empty: not pinned
    pub cores: Vec<usize>,
    /// Where it is
    pub kind: TokenKind,
}

/// The kinds of token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// Behind a PKCS#11 module
    Pkcs11 {
        /// The module's shared library
        module: PathBuf,
        /// Which token of the module's
        uri: Uri,
        /// Where the PIN is; read at every login, not here
        pin: PinSource,
    },
    /// Keys in this process
    Embedded {
        /// Where its PKCS#8 files are
        directory: PathBuf,
        /// Keys that are made at the first start
        generate: Vec<Generate>,
    },
}

/// A key that the embedded token makes when its file is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generate {
    /// File name in the token's directory
    pub file: String,
    /// What to make
    pub key_type: KeyType,
}

/// The one thing that a key is for. Two purposes on one key would make each a way around the other's checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Purpose {
    /// Digests and messages that the client made (documents, timestamps of others): Segl does not look inside
    Digest,
    /// SAML assertions, checked against the tenant's policy
    Assertion,
    /// JSON Web Signatures
    Jws,
    /// X.509 certificates, CRLs and OCSP answers
    Certificate,
    /// Nothing but self-tests: a token's canary
    SelfTest,
}

impl Purpose {
    /// All of them, in the order of declaration.
    pub const ALL: [Purpose; 5] =
        [Purpose::Digest, Purpose::Assertion, Purpose::Jws, Purpose::Certificate, Purpose::SelfTest];

    /// The name used in configuration and on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Purpose::Digest => "digest",
            Purpose::Assertion => "assertion",
            Purpose::Jws => "jws",
            Purpose::Certificate => "certificate",
            Purpose::SelfTest => "self-test",
        }
    }

    /// Whether a key of this purpose may be used so.
    pub const fn allows(self, operation: Operation) -> bool {
        match operation {
            Operation::Sign => matches!(self, Purpose::Digest),
            Operation::SignAssertion => matches!(self, Purpose::Assertion),
            Operation::SignJws => matches!(self, Purpose::Jws),
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a client may do with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// Have a digest or message signed that Segl does not look into (Sign, SignBatch)
    Sign,
    /// Have a SAML assertion signed that has passed the grant's rules (SignAssertion, SignAssertionBatch)
    SignAssertion,
    /// Have a JSON Web Signature made of a header and payload that have passed the grant's rules (SignJws)
    SignJws,
}

impl Operation {
    /// All of them.
    pub const ALL: [Operation; 3] = [Operation::Sign, Operation::SignAssertion, Operation::SignJws];

    /// The name used in configuration and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Operation::Sign => "sign",
            Operation::SignAssertion => "sign-assertion",
            Operation::SignJws => "sign-jws",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a key shows that it is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelfTest {
    /// It signs something that nobody gets
    Sign,
    /// It is looked at, not used: for keys whose every use counts
    Presence,
}

/// How many of a key's signatures are verified with its public key before anybody gets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// None
    Off,
    /// Each session's first, and one in [`Verify::SAMPLE`] after it
    Sample,
    /// Every one
    Always,
}

impl Verify {
    /// Verifying a P-256 digest costs some 150 us: of one in 128 a signature's share is a microsecond.
    pub const SAMPLE: NonZeroU32 = NonZeroU32::new(128).unwrap();
}

/// `[[key]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name towards clients
    pub name: Arc<str>,
    /// The one thing it is for
    pub purpose: Purpose,
    /// The tokens that hold it, by name, sorted; at least one, all in [`super::Config::tokens`]
    pub tokens: Vec<Arc<str>>,
    /// What it may be used with; at least one
    pub algorithms: Vec<Algorithm>,
    /// By the time from which they sign; at least one. A key without `[[key.version]]` is its own only version
    pub versions: Vec<KeyVersion>,
    /// Whether a signature may be tried again when the first try's fate is unknown (logins)
    pub repeatable: bool,
    /// How it shows that it is well
    pub self_test: SelfTest,
    /// How many of its signatures are verified before they leave
    pub verify: Verify,
    /// Signs even with what ETSI TS 119 312 has ended
    pub accept_legacy: bool,
}

/// `[[key.version]]`, or what a key without any says of itself
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyVersion {
    /// What it is called and when it signs; none of a key without versions
    pub term: Option<KeyTerm>,
    /// Where the tokens hold it: an RFC 7512 URI (PKCS#11) or a file name (embedded)
    pub locator: Arc<str>,
    /// Its certificate and those above it, leaf first
    pub certificate: Option<FromFile<Chain>>,
}

impl KeyVersion {
    /// What the version of a key of that name is called: `name/version`, the name alone if it is the only one.
    pub fn label(&self, key: &Arc<str>) -> Arc<str> {
        match &self.term {
            Some(term) => format!("{key}/{}", term.name).into(),
            None => key.clone(),
        }
    }
}

/// A version's name, and from when it signs until the next one does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyTerm {
    /// Unlike those of the key's other versions
    pub name: Arc<str>,
    /// Unlike those of the key's other versions, in seconds since 1970
    pub active_from_unix_s: i64,
}

/// `[[tenant]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Its name
    pub name: Arc<str>,
    /// Who speaks for it
    pub clients: Vec<Client>,
    /// Requests in flight, over all its connections; a batch of N counts N
    pub in_flight_max: u32,
    /// What it may do; one grant a key
    pub grants: Vec<Grant>,
}

/// A client certificate, by one of its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// The name it must have
    pub san: San,
    /// SHA-256 of the SubjectPublicKeyInfo it must have too
    pub spki_sha256: Option<[u8; 32]>,
}

/// A subjectAltName (RFC 5280 §4.2.1.6) by which clients are told apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum San {
    /// uniformResourceIdentifier, compared byte by byte
    Uri(String),
    /// dNSName in lower case, no wildcard
    Dns(String),
}

impl fmt::Display for San {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            San::Uri(uri) => write!(f, "URI:{uri}"),
            San::Dns(name) => write!(f, "DNS:{name}"),
        }
    }
}

/// `[[tenant.grant]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Name of the key, which is in [`super::Config::keys`]
    pub key: Arc<str>,
    /// What may be done
    pub operations: Vec<Operation>,
    /// With which of the key's algorithms
    pub algorithms: Vec<Algorithm>,
    /// In which classes
    pub classes: Vec<Class>,
    /// Which assertions: `[tenant.grant.assertion]`
    pub assertion: Option<Arc<AssertionPolicy>>,
    /// Which JWS: `[tenant.grant.jws]`
    pub jws: Option<Arc<JwsPolicy>>,
}
