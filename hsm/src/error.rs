//! What can go wrong with a token, classified once: whose fault, whether a signature may exist, what may be tried
//! again, and which rung of recovery it takes. Everything above acts on the [`Verdict`] alone.

use std::borrow::Cow;

/// A result of the token layer.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whose fault it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The request's: another token would refuse it too
    Client,
    /// The operator's: configuration, PIN, missing key
    Operator,
    /// The token's, the module's or the way to it
    Token,
    /// Segl's own
    Segl,
}

/// Whether a signature may have been made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signed {
    /// Certainly not
    No,
    /// C_Sign was entered and did not answer properly
    Unknown,
}

/// Where trying again makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retry {
    /// The same request fails everywhere
    Never,
    /// Another session of this token
    Here,
    /// Another token
    Elsewhere,
}

/// The rung of recovery the error calls for, lowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rung {
    /// Nothing is broken
    None,
    /// Close this session, open another
    Session,
    /// Log in again
    Login,
    /// Rebuild the token's generation: all sessions and all key handles
    Token,
    /// C_Finalize and C_Initialize
    Module,
    /// Nothing to try: the operator must act (a PIN refused, a PIN locked)
    Operator,
}

/// What is known about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Verdict {
    /// Whose fault
    pub fault: Fault,
    /// Whether a signature may exist
    pub signed: Signed,
    /// Where to try again
    pub retry: Retry,
    /// What to repair
    pub rung: Rung,
}

/// The kinds of failure, by cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The module's shared library can not be loaded or initialised
    Module,
    /// No slot holds the token
    TokenAbsent,
    /// The session is gone or unusable
    Session,
    /// The token has no session left to give
    SessionCount,
    /// Nobody is logged in any more
    NotLoggedIn,
    /// The PIN was refused
    PinIncorrect,
    /// The PIN is locked, or one more wrong try would lock it
    PinLocked,
    /// The PIN was refused before and nobody has changed it since: it was not tried
    PinHeldBack,
    /// The PIN can not be had: file missing, unreadable, or readable by others
    PinUnavailable,
    /// No such key on this token, or several
    KeyMissing,
    /// The key handle is stale
    KeyHandle,
    /// The key can not be used that way (attributes, type, size)
    KeyUnusable,
    /// The token lacks the mechanism, or the key can not do it
    AlgorithmUnsupported,
    /// The token refuses the input
    InputRefused,
    /// The device failed
    Device,
    /// The token is busy or out of memory
    Overloaded,
    /// The answer makes no sense (a length that can not be)
    Nonsense,
    /// The token gave a signature that its own public key refuses; nobody gets to see it
    WrongSignature,
    /// Everything else
    Other,
}

impl Kind {
    /// The verdict that goes with it unless the place it happened knows better.
    pub const fn verdict(self) -> Verdict {
        let (fault, signed, retry, rung) = match self {
            Kind::Module => (Fault::Operator, Signed::No, Retry::Elsewhere, Rung::Module),
            Kind::TokenAbsent => (Fault::Token, Signed::No, Retry::Elsewhere, Rung::Token),
            Kind::Session => (Fault::Token, Signed::No, Retry::Here, Rung::Session),
            Kind::SessionCount | Kind::Overloaded => (Fault::Token, Signed::No, Retry::Elsewhere, Rung::None),
            // A logout voids every handle of a private object, so the generation goes, not the login alone.
            Kind::NotLoggedIn | Kind::KeyHandle => (Fault::Token, Signed::No, Retry::Here, Rung::Token),
            Kind::PinIncorrect | Kind::PinLocked | Kind::PinHeldBack | Kind::PinUnavailable => {
                (Fault::Operator, Signed::No, Retry::Elsewhere, Rung::Operator)
            }
            Kind::KeyMissing | Kind::KeyUnusable => (Fault::Operator, Signed::No, Retry::Elsewhere, Rung::None),
            Kind::AlgorithmUnsupported | Kind::InputRefused => (Fault::Client, Signed::No, Retry::Never, Rung::None),
            Kind::Device => (Fault::Token, Signed::No, Retry::Elsewhere, Rung::Token),
            // It answered, so it did something with the key.
            Kind::Nonsense => (Fault::Token, Signed::Unknown, Retry::Elsewhere, Rung::Session),
            // What came is no signature of anything, so another may be made. But what a token gives that computes
            // wrongly is worth nothing until somebody has looked at it; with RSA it may even give the key away.
            Kind::WrongSignature => (Fault::Token, Signed::No, Retry::Elsewhere, Rung::Operator),
            Kind::Other => (Fault::Token, Signed::No, Retry::Elsewhere, Rung::Session),
        };
        Verdict { fault, signed, retry, rung }
    }

    /// The name used in the journal and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Module => "module",
            Kind::TokenAbsent => "token-absent",
            Kind::Session => "session",
            Kind::SessionCount => "session-count",
            Kind::NotLoggedIn => "not-logged-in",
            Kind::PinIncorrect => "pin-incorrect",
            Kind::PinLocked => "pin-locked",
            Kind::PinHeldBack => "pin-held-back",
            Kind::PinUnavailable => "pin-unavailable",
            Kind::KeyMissing => "key-missing",
            Kind::KeyHandle => "key-handle",
            Kind::KeyUnusable => "key-unusable",
            Kind::AlgorithmUnsupported => "algorithm-unsupported",
            Kind::InputRefused => "input-refused",
            Kind::Device => "device",
            Kind::Overloaded => "overloaded",
            Kind::Nonsense => "nonsense",
            Kind::WrongSignature => "wrong-signature",
            Kind::Other => "other",
        }
    }
}

/// A failure of a token.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{context}: {detail}")]
pub struct Error {
    kind: Kind,
    context: &'static str,
    detail: Cow<'static, str>,
    verdict: Verdict,
    code: Option<&'static str>,
}

impl Error {
    /// An error with its verdict. `context` is the call or step (`C_Sign`), `detail` what happened, free of secrets.
    pub fn new(kind: Kind, verdict: Verdict, context: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Error { kind, context, detail: detail.into(), verdict, code: None }
    }

    /// The same with the name that the module's own language has for it (`CKR_DEVICE_ERROR`).
    #[must_use]
    pub fn with_code(self, code: &'static str) -> Self {
        Error { code: Some(code), ..self }
    }

    /// An error with the verdict its kind has by itself, [`Kind::verdict`].
    pub fn of(kind: Kind, context: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Error::new(kind, kind.verdict(), context, detail)
    }

    /// Its cause.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The shortest exact name of what happened: the module's own (`CKR_DEVICE_ERROR`), else that of the kind.
    pub fn code(&self) -> &'static str {
        self.code.unwrap_or(self.kind.name())
    }

    /// What is known about it.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// The call or step that failed.
    pub fn context(&self) -> &'static str {
        self.context
    }
}
