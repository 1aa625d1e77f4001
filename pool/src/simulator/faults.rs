//! The errors of the models: what `segl-hsm` makes of what a module answers, with the verdicts of its table.

use segl_hsm::{Error, Fault, Kind, Retry, Rung, Signed, Verdict};

use super::draw::Draw;

/// What a call answers that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// CKR_DEVICE_ERROR
    Device,
    /// CKR_GENERAL_ERROR
    General,
    /// CKR_FUNCTION_FAILED
    FunctionFailed,
    /// CKR_DEVICE_MEMORY
    Memory,
    /// CKR_SESSION_HANDLE_INVALID
    SessionInvalid,
    /// CKR_SESSION_CLOSED
    SessionClosed,
    /// CKR_OPERATION_ACTIVE
    OperationActive,
    /// CKR_KEY_HANDLE_INVALID
    KeyHandle,
    /// CKR_USER_NOT_LOGGED_IN
    NotLoggedIn,
    /// CKR_TOKEN_NOT_PRESENT
    NotPresent,
    /// CKR_DEVICE_REMOVED
    Removed,
    /// CKR_CRYPTOKI_NOT_INITIALIZED
    NotInitialised,
    /// CKR_SESSION_COUNT
    SessionCount,
    /// CKR_KEY_FUNCTION_NOT_PERMITTED
    KeyUnusable,
    /// CKR_PIN_INCORRECT
    PinIncorrect,
    /// An answer longer than announced
    Nonsense,
    /// A verdict that no table would give
    Wild(Verdict),
}

impl Answer {
    /// What C_Sign answers now and then.
    pub(super) const IN_SIGN: [Answer; 12] = [
        Answer::Device,
        Answer::General,
        Answer::FunctionFailed,
        Answer::Memory,
        Answer::SessionInvalid,
        Answer::SessionClosed,
        Answer::OperationActive,
        Answer::KeyHandle,
        Answer::NotLoggedIn,
        Answer::Removed,
        Answer::KeyUnusable,
        Answer::Nonsense,
    ];

    /// What other calls answer now and then.
    pub(super) const BESIDE_SIGN: [Answer; 6] = [
        Answer::Device,
        Answer::General,
        Answer::FunctionFailed,
        Answer::SessionCount,
        Answer::NotPresent,
        Answer::SessionInvalid,
    ];

    /// A verdict drawn without regard to what makes sense.
    pub(super) fn wild(draw: &mut Draw) -> Answer {
        let rungs = [Rung::None, Rung::Session, Rung::Session, Rung::Login, Rung::Token, Rung::Module, Rung::Operator];
        Answer::Wild(Verdict {
            fault: draw.of(&[Fault::Token, Fault::Client, Fault::Operator]),
            signed: draw.of(&[Signed::No, Signed::Unknown]),
            retry: draw.of(&[Retry::Never, Retry::Here, Retry::Elsewhere]),
            rung: draw.of(&rungs),
        })
    }

    /// As the error of a call of C_Sign: it costs the session at least.
    pub(super) fn in_sign(self) -> Error {
        let (kind, verdict) = self.row();
        Error::new(kind, Verdict { rung: verdict.rung.max(Rung::Session), ..verdict }, "C_Sign", self.name())
    }

    /// As the error of any other call: nothing was signed.
    pub(super) fn beside_sign(self, call: &'static str) -> Error {
        let (kind, verdict) = self.row();
        Error::new(kind, Verdict { signed: Signed::No, ..verdict }, call, self.name())
    }

    /// As it is, whatever the call.
    pub(super) fn as_drawn(self) -> Error {
        let (kind, verdict) = self.row();
        Error::new(kind, verdict, "C_Sign", self.name())
    }

    fn row(self) -> (Kind, Verdict) {
        let row = |kind: Kind, signed, retry, rung| (kind, Verdict { fault: Fault::Token, signed, retry, rung });
        match self {
            Answer::Device | Answer::General => row(Kind::Device, Signed::Unknown, Retry::Elsewhere, Rung::Token),
            Answer::FunctionFailed => row(Kind::Device, Signed::Unknown, Retry::Here, Rung::Session),
            Answer::Memory => row(Kind::Overloaded, Signed::Unknown, Retry::Elsewhere, Rung::None),
            Answer::SessionInvalid | Answer::OperationActive => {
                row(Kind::Session, Signed::No, Retry::Here, Rung::Session)
            }
            Answer::SessionClosed => row(Kind::Session, Signed::Unknown, Retry::Here, Rung::Session),
            Answer::Removed => row(Kind::TokenAbsent, Signed::Unknown, Retry::Elsewhere, Rung::Token),
            Answer::NotInitialised => row(Kind::Module, Signed::No, Retry::Elsewhere, Rung::Module),
            Answer::KeyHandle => (Kind::KeyHandle, Kind::KeyHandle.verdict()),
            Answer::NotLoggedIn => (Kind::NotLoggedIn, Kind::NotLoggedIn.verdict()),
            Answer::NotPresent => (Kind::TokenAbsent, Kind::TokenAbsent.verdict()),
            Answer::SessionCount => (Kind::SessionCount, Kind::SessionCount.verdict()),
            Answer::KeyUnusable => (Kind::KeyUnusable, Kind::KeyUnusable.verdict()),
            Answer::PinIncorrect => (Kind::PinIncorrect, Kind::PinIncorrect.verdict()),
            Answer::Nonsense => (Kind::Nonsense, Kind::Nonsense.verdict()),
            Answer::Wild(verdict) => (Kind::Other, verdict),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Answer::Device => "CKR_DEVICE_ERROR",
            Answer::General => "CKR_GENERAL_ERROR",
            Answer::FunctionFailed => "CKR_FUNCTION_FAILED",
            Answer::Memory => "CKR_DEVICE_MEMORY",
            Answer::SessionInvalid => "CKR_SESSION_HANDLE_INVALID",
            Answer::SessionClosed => "CKR_SESSION_CLOSED",
            Answer::OperationActive => "CKR_OPERATION_ACTIVE",
            Answer::KeyHandle => "CKR_KEY_HANDLE_INVALID",
            Answer::NotLoggedIn => "CKR_USER_NOT_LOGGED_IN",
            Answer::NotPresent => "CKR_TOKEN_NOT_PRESENT",
            Answer::Removed => "CKR_DEVICE_REMOVED",
            Answer::NotInitialised => "CKR_CRYPTOKI_NOT_INITIALIZED",
            Answer::SessionCount => "CKR_SESSION_COUNT",
            Answer::KeyUnusable => "CKR_KEY_FUNCTION_NOT_PERMITTED",
            Answer::PinIncorrect => "CKR_PIN_INCORRECT",
            Answer::Nonsense => "an answer longer than announced",
            Answer::Wild(_) => "a verdict as drawn",
        }
    }
}
