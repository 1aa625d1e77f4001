//! What a refusal looks like to the client: the one place where the daemon's reasons become the protocol's errors.

use segl_audit::Refusal;
use segl_hsm::{Fault, Kind, Retry, Signed, Verdict};
use segl_pool::{Completion, Failure};
use segl_wire::{Code, DecodeError, Error, SignedState, Violation};

use crate::policy::Denied;

/// A decision of the policy.
pub(crate) fn denied(denied: &Denied) -> Error<'static> {
    let code = match denied {
        Denied::NotGranted => Code::NotGranted,
        Denied::PurposeViolated { .. } => Code::PurposeViolated,
        Denied::AlgorithmNotAllowed => Code::AlgorithmNotAllowed,
        Denied::ClassNotAllowed => Code::ClassNotAllowed,
        Denied::KeyExpired | Denied::KeyNotYetValid | Denied::KeyNotYetActive => Code::KeyRefused,
        Denied::Input(_) | Denied::MessageTooLong { .. } | Denied::NoCertificate => Code::BadInput,
        Denied::Document(refusal) => return document(refusal),
    };
    Error::of(code, denied.to_string())
}

/// What is wrong with a document.
fn document(refusal: &segl_assertion::Refusal) -> Error<'static> {
    let (code, violations) = match refusal {
        segl_assertion::Refusal::Malformed(violation) => (Code::MalformedDocument, std::slice::from_ref(violation)),
        segl_assertion::Refusal::Policy(violations) => (Code::PolicyViolation, &violations[..]),
    };
    let told = violations.iter().map(|at| Violation::new(at.rule, at.place.clone(), at.text.clone()));
    Error::of(code, refusal.to_string()).violations(told)
}

/// How often the journal looks whether there is room again.
const ROOM_LOOKED_FOR_MS: u32 = 1_000;

/// What can not be recorded is not signed.
pub(crate) fn unrecorded(refusal: &Refusal) -> Error<'static> {
    let code = match refusal {
        // The policy has checked the digest: that it does not fit the record is our own mistake.
        Refusal::Invalid => return Error::of(Code::Internal, refusal.to_string()).signed(SignedState::No),
        Refusal::Closed => Code::Draining,
        Refusal::Full | Refusal::Failed | Refusal::Backlog => Code::AuditUnavailable,
    };
    let error = Error::of(code, refusal.to_string());
    match refusal {
        Refusal::Full | Refusal::Backlog => error.retry_after(ROOM_LOOKED_FOR_MS),
        _ => error,
    }
}

/// The intent of a signature that may have been made is not on disk in time: nobody gets to see the signature.
pub(crate) fn record_lost() -> Error<'static> {
    let text = "the record of this signature could not be written in time, so nobody gets to see it";
    Error::of(Code::AuditUnavailable, text).signed(SignedState::Unknown)
}

/// A body that is not what its type says.
pub(crate) fn malformed(error: &DecodeError) -> Error<'static> {
    Error::of(error.code, error.to_string())
}

/// The pool's other answer; none for a signature.
pub(crate) fn unsigned(completion: &Completion) -> Option<Error<'static>> {
    let failure = completion.result.as_ref().err()?;
    let verdict = completion.verdict()?;
    let (code, text) = match failure {
        Failure::Expired => (Code::Expired, failure.to_string()),
        Failure::Cancelled => (Code::Cancelled, failure.to_string()),
        Failure::Overloaded { .. } => (Code::Overloaded, failure.to_string()),
        Failure::TenantLimit { .. } => (Code::TenantLimit, failure.to_string()),
        Failure::KeyUnavailable { .. } => (Code::KeyUnavailable, failure.to_string()),
        Failure::Draining => (Code::Draining, failure.to_string()),
        Failure::Stuck => (Code::TokenFailed, failure.to_string()),
        Failure::Token(error) => (token_code(error.kind()), token_text(verdict)),
    };
    let retry = match failure {
        // The pool has asked the other tokens already: what they refuse too is refused everywhere.
        Failure::Token(_) if verdict.fault == Fault::Client => segl_wire::Retry::Never,
        _ => retry(verdict),
    };
    let error = Error::of(code, text).fault(fault(verdict)).signed(signed(verdict)).retry(retry);
    Some(match failure.retry_after_ms() {
        Some(retry_after_ms) => error.retry_after(retry_after_ms),
        None => error,
    })
}

fn token_code(kind: Kind) -> Code {
    match kind {
        Kind::InputRefused => Code::BadInput,
        Kind::KeyMissing | Kind::KeyUnusable | Kind::AlgorithmUnsupported => Code::KeyRefused,
        Kind::Overloaded | Kind::SessionCount => Code::Overloaded,
        Kind::Module | Kind::TokenAbsent | Kind::PinIncorrect | Kind::PinLocked | Kind::PinHeldBack => {
            Code::KeyUnavailable
        }
        Kind::PinUnavailable | Kind::NotLoggedIn => Code::KeyUnavailable,
        _ => Code::TokenFailed,
    }
}

/// What exactly failed stands in the log and is the operator's to know; the client learns what it can act on.
fn token_text(verdict: Verdict) -> String {
    let what = match verdict.fault {
        Fault::Client => "the token refuses what was to be signed",
        Fault::Operator => "the token can not use this key as it is set up; the operator has to act",
        Fault::Token | Fault::Segl => "the token failed",
    };
    let fate = match verdict.signed {
        Signed::No => "nothing was signed",
        Signed::Unknown => "a signature may exist that nobody will see",
    };
    format!("{what}; {fate}")
}

fn fault(verdict: Verdict) -> segl_wire::Fault {
    match verdict.fault {
        Fault::Client => segl_wire::Fault::Client,
        Fault::Operator | Fault::Segl => segl_wire::Fault::Server,
        Fault::Token => segl_wire::Fault::Token,
    }
}

fn signed(verdict: Verdict) -> SignedState {
    match verdict.signed {
        Signed::No => SignedState::No,
        Signed::Unknown => SignedState::Unknown,
    }
}

fn retry(verdict: Verdict) -> segl_wire::Retry {
    match verdict.retry {
        Retry::Never => segl_wire::Retry::Never,
        Retry::Here => segl_wire::Retry::Here,
        Retry::Elsewhere => segl_wire::Retry::Elsewhere,
    }
}
