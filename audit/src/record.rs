//! What stands in the journal: one type per kind of event. Texts are borrowed when appended and owned when read.
//!
//! No record has a field for a PIN, a private key, a signature or the data that was signed: of those only hashes.

use std::borrow::Cow;

/// Longest text of a field in bytes. A longer one is cut at a character and ends in `…`: what a stranger sent
/// must neither fill the journal nor keep his attempt out of it.
pub const TEXT_MAX: usize = 256;

/// Longest digest in bytes (SHA-512).
pub const DIGEST_MAX: usize = 64;

/// An event as it is appended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
// Made on the stack to be appended by reference; boxing the most frequent kinds would cost each signature more.
#[allow(clippy::large_enum_variant)]
pub enum Record<'a> {
    /// The daemon began
    Start(Start<'a>),
    /// The daemon came to an orderly end
    Stop(Stop<'a>),
    /// A key is about to be used
    Intent(Intent<'a>),
    /// What became of an intent
    Outcome(Outcome<'a>),
    /// A request that was refused before a key was touched
    Refused(Refused<'a>),
    /// The configuration was read again
    Reload(Reload<'a>),
    /// A client came, went, or was turned away
    Connection(Connection<'a>),
    /// The journal's own: a torn end was repaired
    Repaired(Repaired<'a>),
    /// The journal's own: events that could not be recorded
    Gap(Gap<'a>),
    /// An operator did something
    Operator(Operator<'a>),
    /// A token logged in, was lost, refused its PIN
    Token(Token<'a>),
    /// A call that had been given up came back after all
    Discarded(Discarded<'a>),
    /// The time daemon began or ceased to say that the clock is synchronised
    Clock(Clock<'a>),
}

/// The daemon began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start<'a> {
    /// Of the software
    pub version: Cow<'a, str>,
    /// Name of the machine
    pub host: Cow<'a, str>,
    /// `/proc/sys/kernel/random/boot_id`
    pub boot_id: Cow<'a, str>,
    /// SHA-256 of the configuration in force
    pub config_digest: [u8; 32],
    /// Last record of the run before, 0 when there was none
    pub last_seq: u64,
}

/// The daemon came to an orderly end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop<'a> {
    /// `SIGTERM`, ...
    pub reason: Cow<'a, str>,
}

/// In which capacity the person acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capacity<'a> {
    /// As himself
    Citizen,
    /// For the company with this CVR number (eight digits)
    Company(Cow<'a, str>),
}

/// A key is about to be used: one record per attempt, self-tests included (operation `self-test`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent<'a> {
    /// Who pays for it
    pub tenant: Cow<'a, str>,
    /// The certificate's identity
    pub client: Cow<'a, str>,
    /// Address of the client
    pub peer: Option<Cow<'a, str>>,
    /// The client's own caller
    pub on_behalf_of: Option<Cow<'a, str>>,
    /// `digest`, `message`, `self-test`, ...
    pub operation: Cow<'a, str>,
    /// Name of the key
    pub key: Cow<'a, str>,
    /// SHA-256 of the key's SubjectPublicKeyInfo: a name may be given to another key later
    pub key_spki_sha256: [u8; 32],
    /// Name of the algorithm
    pub algorithm: Cow<'a, str>,
    /// The digest to be signed; for a message its SHA-256. At most [`DIGEST_MAX`] bytes
    pub digest: Cow<'a, [u8]>,
    /// Length of the message in bytes; absent when a digest came
    pub message_len: Option<u64>,
    /// When the request said so
    pub capacity: Option<Capacity<'a>>,
    /// `login`, `signature` or `bulk`
    pub class: Cow<'a, str>,
    /// The caller's reference to the transaction
    pub reference: Option<Cow<'a, str>>,
    /// 1 for the first
    pub attempt: u8,
    /// Id of the request on its connection
    pub request_id: u64,
    /// Number of the connection in this run of the daemon
    pub connection_id: u64,
    /// The assertion's ID, or the token's `jti`
    pub document: Option<Cow<'a, str>>,
    /// Which of the key's versions
    pub key_version: Option<Cow<'a, str>>,
}

/// Longest name of a token or code in an [`Attempt`], in bytes; a longer one is cut.
pub const NAME_MAX: usize = 64;

/// Most attempts an [`Outcome`] has room for.
pub const ATTEMPTS_MAX: usize = 4;

/// One call that entered a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt<'a> {
    /// Name of the token
    pub token: Cow<'a, str>,
    /// The session's place in this run of the daemon
    pub session: u16,
    /// What became of it
    pub fate: Fate,
    /// The error's exact name (`CKR_DEVICE_ERROR`), or why a signature was discarded; none for what was released
    pub code: Option<Cow<'a, str>>,
    /// The call or step it failed in (`C_SignInit`); none for a signature, where the call was given up, and when it was
    /// written before that was recorded
    pub call: Option<Cow<'a, str>>,
    /// Time inside the token, in microseconds
    pub token_us: u32,
}

/// What became of a call that entered a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// Its signature was handed to the client's connection
    Released,
    /// It failed, and nothing was signed
    Failed,
    /// It ended, or was given up, without saying whether something was signed; a [`Discarded`] may say more
    Unknown,
    /// It gave a signature, which was destroyed unseen
    Discarded,
}

impl Fate {
    /// As it is shown.
    pub const fn name(self) -> &'static str {
        match self {
            Fate::Released => "released",
            Fate::Failed => "failed",
            Fate::Unknown => "unknown",
            Fate::Discarded => "discarded",
        }
    }
}

/// A call that had been given up came back after all: what one of its intent's attempts of unknown fate has really
/// done. It may stand before the intent's outcome or after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discarded<'a> {
    /// The intent's sequence number
    pub intent: u64,
    /// Name of the token
    pub token: Cow<'a, str>,
    /// Why: `late`
    pub reason: Cow<'a, str>,
    /// Whether it gave a signature, which was destroyed unseen; else it failed
    pub signed: bool,
}

/// What became of an intent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome<'a> {
    /// The intent's sequence number
    pub intent: u64,
    /// Its end
    pub result: OutcomeResult<'a>,
    /// Name of the token that was asked
    pub token: Option<Cow<'a, str>>,
    /// Calls to a token that were begun for it; 0 also when nobody can tell any more
    pub attempts: u8,
    /// Of these, the calls whose fate is unknown: each may have left a signature that nobody saw
    pub attempts_unknown: u8,
    /// Each of these calls, in their order; at most [`ATTEMPTS_MAX`] are written. Empty also when it was written before
    /// they were listed
    pub tries: Cow<'a, [Attempt<'a>]>,
    /// Wait before a session took it, in microseconds
    pub queue_us: u32,
    /// Time inside the token, in microseconds
    pub token_us: u32,
}

/// The end of an intent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutcomeResult<'a> {
    /// The signature was handed to the client's connection
    Released {
        /// SHA-256 of the signature as the token made it
        signature_sha256: [u8; 32],
    },
    /// The signature was made and destroyed unseen
    Discarded {
        /// Why: `connection closed`, `cancelled`, `record lost`, ...
        reason: Cow<'a, str>,
        /// SHA-256 of the signature as the token made it
        signature_sha256: Option<[u8; 32]>,
    },
    /// Certainly no signature
    NotSigned {
        /// The error's code
        code: Cow<'a, str>,
    },
    /// A signature may exist
    Unknown {
        /// The error's code; `interrupted` when the daemon ended before it could say more
        code: Cow<'a, str>,
    },
}

/// A request that was refused before a key was touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused<'a> {
    /// When it is known
    pub tenant: Option<Cow<'a, str>>,
    /// The certificate's identity
    pub client: Cow<'a, str>,
    /// What was asked for
    pub operation: Cow<'a, str>,
    /// The key as it was asked for
    pub key: Cow<'a, str>,
    /// The error's code
    pub code: Cow<'a, str>,
    /// In words
    pub reason: Cow<'a, str>,
}

/// The configuration was read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reload<'a> {
    /// Whether the new one is in force
    pub ok: bool,
    /// What changed, or what was wrong
    pub message: Cow<'a, str>,
    /// SHA-256 of the configuration that is in force now
    pub config_digest: [u8; 32],
}

/// What happened to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionEvent {
    /// It is authenticated and has a tenant
    Opened,
    /// It is gone
    Closed,
    /// It was turned away
    Refused,
}

/// A client came, went, or was turned away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection<'a> {
    /// The certificate's identity, when there was one
    pub client: Option<Cow<'a, str>>,
    /// Its tenant, when it has one
    pub tenant: Option<Cow<'a, str>>,
    /// Address of the client
    pub peer: Option<Cow<'a, str>>,
    /// Number of the connection in this run of the daemon
    pub connection_id: u64,
    /// What happened
    pub event: ConnectionEvent,
    /// Why
    pub reason: Option<Cow<'a, str>>,
}

/// The end of a segment was torn by a crash; it was copied aside and zeroed. None of it had been acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired<'a> {
    /// Name of the segment
    pub file: Cow<'a, str>,
    /// Where the torn bytes began
    pub offset: u64,
    /// How many they were (0: the file was too short)
    pub bytes: u64,
    /// Their SHA-256
    pub sha256: [u8; 32],
    /// Name of the file that holds them; empty when there were none
    pub side_file: Cow<'a, str>,
}

/// Events that could not be recorded, because the disk was full or too slow. Each was refused to its caller; none of
/// them had a sequence number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap<'a> {
    /// Time of the first
    pub from_ns: u64,
    /// Time of the last
    pub to_ns: u64,
    /// How many
    pub records: u64,
    /// `full` or `backlog`
    pub why: Cow<'a, str>,
}

/// An operator's command: one record before it is carried out, and one with what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator<'a> {
    /// User name, or uid where the host knows no name for it
    pub who: Cow<'a, str>,
    /// What: `token drain hsm-a`, ...
    pub command: Cow<'a, str>,
    /// `asked`, or what came of it
    pub result: Cow<'a, str>,
    /// User id, as the kernel says
    pub uid: Option<u32>,
    /// Process id, as the kernel says
    pub pid: Option<u32>,
    /// The record that this one ends
    pub asked: Option<u64>,
}

/// A token logged in, was lost, refused its PIN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token<'a> {
    /// Its name
    pub token: Cow<'a, str>,
    /// `logged-in`, `lost`, `pin-refused`, `key-missing`, ...
    pub event: Cow<'a, str>,
    /// In words
    pub detail: Cow<'a, str>,
}

/// What the time daemon says of the host's clock, by which every record here is dated: once after each start, and
/// whenever it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clock<'a> {
    /// Whether it is synchronised
    pub synchronised: bool,
    /// Who said so: `chronyd`, ...; empty when nobody did
    pub source: Cow<'a, str>,
    /// In words
    pub detail: Cow<'a, str>,
}

/// A record as it was read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number, from 1, without holes
    pub seq: u64,
    /// UTC, nanoseconds since 1970
    pub time_ns: u64,
    /// The record
    pub record: Record<'static>,
}
