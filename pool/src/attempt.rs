//! The attempts at a job: each call that entered a token for it, and what became of what the token gave.

use std::{fmt, ops::Deref};

use smallvec::SmallVec;

/// One call that entered a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The token's index
    pub token: u16,
    /// The session's place, counted through all tokens
    pub session: u16,
    /// What became of it
    pub fate: Fate,
    /// The error's exact name ([`segl_hsm::Error::code`]), `stuck` where the call was given up; none for a signature
    pub code: Option<&'static str>,
    /// The call or step it failed in ([`segl_hsm::Error::context`]); none for a signature, and where the call was given
    /// up, of which nobody knows where it is
    pub call: Option<&'static str>,
    /// Time inside the token; as far as it is known where the call was given up
    pub token_us: u32,
}

/// What became of a call that entered a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// It gave what the job's owner got
    Released,
    /// It failed, and nothing was signed
    Failed,
    /// It ended, or was given up, without saying whether something was signed
    Unknown,
    /// It gave a signature that nobody gets
    Discarded(Discard),
}

impl Fate {
    /// The name used in the journal.
    pub const fn name(self) -> &'static str {
        match self {
            Fate::Released => "released",
            Fate::Failed => "failed",
            Fate::Unknown => "unknown",
            Fate::Discarded(_) => "discarded",
        }
    }
}

/// Why a signature is discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Discard {
    /// It came after its call had been given up
    Late,
    /// The token's own public key refuses it
    WrongSignature,
}

impl Discard {
    /// The name used in the journal.
    pub const fn name(self) -> &'static str {
        match self {
            Discard::Late => "late",
            Discard::WrongSignature => "wrong-signature",
        }
    }
}

/// The attempts at one job in their order. The first stands in place: a job that needs no other costs no allocation, and
/// what moves with it on its way stays small.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Attempts(SmallVec<[Attempt; 1]>);

impl Attempts {
    /// Most attempts there can be, whatever [`crate::Rules::retries_max`] says.
    pub const MAX: usize = 4;

    /// Of these, calls that ended without saying whether a signature was made.
    pub fn unknown(&self) -> u8 {
        self.iter().filter(|attempt| attempt.fate == Fate::Unknown).count() as u8
    }

    /// How many there were.
    pub fn count(&self) -> u8 {
        self.0.len() as u8
    }

    /// # Panics
    /// When there are [`Attempts::MAX`] already: whoever tries again asks for room first.
    pub(crate) fn push(&mut self, attempt: Attempt) {
        assert!(self.0.len() < Attempts::MAX, "whoever tries again asks for room first");
        self.0.push(attempt);
    }
}

impl Deref for Attempts {
    type Target = [Attempt];

    fn deref(&self) -> &[Attempt] {
        &self.0
    }
}

impl fmt::Debug for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
