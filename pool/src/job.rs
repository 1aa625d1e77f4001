//! What is asked of the pool and what it answers: jobs, their addresses, completions and failures.

use segl_hsm::{Algorithm, Error, Fault, Input, KeyId, Retry, Rung, Signature, Signed, Verdict};

use crate::Attempts;

/// One signature to make, or one key to look after.
///
/// `P` is the payload: the pool keeps it, hands a clone to each attempt and never looks inside.
#[derive(Clone, Debug)]
pub struct Job<P = Input> {
    /// What is to be done
    pub work: Work,
    /// The key to do it with
    pub key: KeyId,
    /// The algorithm, which the key can do
    pub algorithm: Algorithm,
    /// What is signed
    pub input: P,
    /// The set of tokens that hold the key
    pub route: RouteId,
    /// Of these tokens only this one, for a self-test of it
    pub only_token: Option<u16>,
    /// How urgent it is
    pub class: Class,
    /// Whose it is: classes are shared fairly among tenants
    pub tenant: u32,
    /// On the pool's clock: no call to the token begins at or after it
    pub deadline_ns: u64,
    /// Whether signing twice is harmless: only then it is tried again when an attempt's fate is unknown
    pub repeatable: bool,
    /// Whether it is part of a token's self-test: only such jobs go to a token that is on probation
    pub probe: bool,
    /// The owner's name for it, which comes back where it matters after the job is gone
    /// ([`crate::core::Alarm::Discarded`]); the pool never looks at it
    pub reference: u64,
    /// The inbox of the pool that gets the completion
    pub inbox: u16,
    /// Names the job in its inbox; unique there while the job lives
    pub tag: u64,
}

/// What a job asks of the token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Work {
    /// A signature
    #[default]
    Sign,
    /// Whether the key is still there, without using it ([`segl_hsm::Session::presence`]); algorithm and input are not
    /// looked at, and a key that is there is answered by an empty signature
    Presence,
}

/// An index into the table of [`crate::Pool::set_routes`]: which tokens hold a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(pub u32);

/// How urgent a job is; the first goes before the others, which are still never starved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Somebody waits in front of a login page
    Login,
    /// Somebody waits for a document
    Signature,
    /// Nobody waits
    Bulk,
}

impl Class {
    /// All classes, the most urgent first.
    pub const ALL: [Class; 3] = [Class::Login, Class::Signature, Class::Bulk];

    /// The name used in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Class::Login => "login",
            Class::Signature => "signature",
            Class::Bulk => "bulk",
        }
    }

    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

/// A set of up to 64 tokens, by their index in the list the pool was started with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TokenSet(u64);

impl TokenSet {
    /// No token.
    pub const EMPTY: TokenSet = TokenSet(0);

    /// Most tokens a pool can have.
    pub const TOKENS_MAX: usize = 64;

    /// The set of one token.
    ///
    /// # Panics
    /// When the index is not below [`TokenSet::TOKENS_MAX`].
    pub fn only(token: u16) -> Self {
        assert!(usize::from(token) < Self::TOKENS_MAX, "a pool has at most 64 tokens, there is no {token}");
        TokenSet(1 << token)
    }

    /// Both sets together.
    pub const fn union(self, other: TokenSet) -> Self {
        TokenSet(self.0 | other.0)
    }

    /// What both sets hold.
    pub const fn intersection(self, other: TokenSet) -> Self {
        TokenSet(self.0 & other.0)
    }

    /// This set without the other.
    pub const fn without(self, other: TokenSet) -> Self {
        TokenSet(self.0 & !other.0)
    }

    /// Whether the token is in it.
    pub const fn contains(self, token: u16) -> bool {
        token < 64 && self.0 & (1 << token) != 0
    }

    /// Whether nothing is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Its tokens, rising.
    pub fn iter(self) -> impl Iterator<Item = u16> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let token = rest.trailing_zeros() as u16;
            rest &= rest.checked_sub(1)?;
            Some(token)
        })
    }
}

impl FromIterator<u16> for TokenSet {
    fn from_iter<I: IntoIterator<Item = u16>>(tokens: I) -> Self {
        tokens.into_iter().fold(TokenSet::EMPTY, |set, token| set.union(TokenSet::only(token)))
    }
}

/// The one answer to a job.
#[derive(Clone, Debug)]
pub struct Completion {
    /// The job's
    pub tag: u64,
    /// The signature in the token's own form (empty for [`Work::Presence`]), or why there is none
    pub result: Result<Signature, Failure>,
    /// From submission to the start of the last attempt, or to the end where there was none
    pub queue_us: u32,
    /// Time inside the token, last attempt only
    pub token_us: u32,
    /// The token of the last attempt
    pub token: Option<u16>,
    /// Calls to a token that were begun for it. With a `result` that is a signature some of them may be in doubt too,
    /// since an earlier attempt's signature may exist that nobody was given
    pub attempts: Attempts,
}

impl Completion {
    /// What is known about the failure, over all attempts; none for a signature.
    pub fn verdict(&self) -> Option<Verdict> {
        let failure = self.result.as_ref().err()?;
        let mut verdict = failure.verdict();
        if self.attempts.unknown() > 0 {
            verdict.signed = Signed::Unknown;
        }
        Some(verdict)
    }
}

/// Why there is no signature.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Failure {
    /// Its deadline passed before a call to a token began
    #[error("the deadline passed while the request waited")]
    Expired,
    /// Its owner took it back
    #[error("cancelled")]
    Cancelled,
    /// Too much waits already, or more than can be done before the deadline
    #[error("too many requests wait for the tokens of this key; try again in {retry_after_ms} ms")]
    Overloaded {
        /// When there should be room, by the rate at which the queue drains
        retry_after_ms: u32,
    },
    /// The tenant has too many jobs waiting
    #[error("too many requests of this tenant wait; try again in {retry_after_ms} ms")]
    TenantLimit {
        /// When some of them should be done
        retry_after_ms: u32,
    },
    /// No token that holds the key can be reached
    #[error("no token that holds this key is available; try again in {retry_after_ms} ms")]
    KeyUnavailable {
        /// When the next try to reach one is over, or a guess
        retry_after_ms: u32,
    },
    /// The pool takes no more jobs
    #[error("shutting down")]
    Draining,
    /// A token did not answer in time, or not before the pool stopped: its fate is unknown
    #[error("the token did not answer in time")]
    Stuck,
    /// The token failed, and trying again was pointless, forbidden or used up
    #[error(transparent)]
    Token(#[from] Error),
}

impl Failure {
    /// Whose fault, whether *this* failure leaves a signature in doubt, and where to try again.
    /// [`Completion::verdict`] takes the earlier attempts into account.
    pub fn verdict(&self) -> Verdict {
        let (fault, signed, retry) = match self {
            Failure::Expired => (Fault::Segl, Signed::No, Retry::Elsewhere),
            Failure::Cancelled => (Fault::Client, Signed::No, Retry::Never),
            Failure::Overloaded { .. } => (Fault::Segl, Signed::No, Retry::Elsewhere),
            Failure::TenantLimit { .. } => (Fault::Client, Signed::No, Retry::Here),
            Failure::KeyUnavailable { .. } => (Fault::Token, Signed::No, Retry::Elsewhere),
            Failure::Draining => (Fault::Segl, Signed::No, Retry::Elsewhere),
            Failure::Stuck => (Fault::Token, Signed::Unknown, Retry::Elsewhere),
            Failure::Token(error) => return error.verdict(),
        };
        Verdict { fault, signed, retry, rung: Rung::None }
    }

    /// When trying again makes sense, where that is known.
    pub fn retry_after_ms(&self) -> Option<u32> {
        match *self {
            Failure::Overloaded { retry_after_ms }
            | Failure::TenantLimit { retry_after_ms }
            | Failure::KeyUnavailable { retry_after_ms } => Some(retry_after_ms),
            _ => None,
        }
    }

    /// The name used in metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Failure::Expired => "expired",
            Failure::Cancelled => "cancelled",
            Failure::Overloaded { .. } => "overloaded",
            Failure::TenantLimit { .. } => "tenant-limit",
            Failure::KeyUnavailable { .. } => "key-unavailable",
            Failure::Draining => "draining",
            Failure::Stuck => "stuck",
            Failure::Token(_) => "token",
        }
    }
}
