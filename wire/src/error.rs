//! The other answer: what went wrong, whose fault it was, whether a signature may exist, where to try again.

use std::borrow::Cow;

use crate::numbered::numbered;

/// Longest text for a human in an [`Error`] or a [`crate::GoAway`], in bytes.
pub const EXPLANATION_MAX: usize = 512;

/// Most violations in one [`Error`].
pub const VIOLATIONS_MAX: usize = 32;

/// Longest place of a [`Violation`], in bytes.
pub const PLACE_MAX: usize = 256;

numbered! {
    /// What went wrong, one code a cause. The number is the wire's.
    pub enum Code {
        /// The body is not the deterministic CBOR of its type
        Malformed = 1,
        /// No such frame type
        UnknownType = 2,
        /// Longer than announced
        FrameTooLong = 3,
        /// Ids must rise
        BadId = 4,
        /// The digest's length is not the algorithm's, the message or document is too long, or the key has no
        /// certificate to show
        BadInput = 5,
        /// No such key for this client
        NotGranted = 6,
        /// The key's purpose forbids the operation
        PurposeViolated = 7,
        /// Not an algorithm of this key, or not granted
        AlgorithmNotAllowed = 8,
        /// Not a class granted to this client
        ClassNotAllowed = 9,
        /// More items than announced, or none, or the answer would be too long
        BadBatch = 10,
        /// The document says what this client may not have signed; [`Error::violations`] lists it
        PolicyViolation = 11,
        /// The document is not what it claims to be, or not safe to read; [`Error::violations`] says where
        MalformedDocument = 12,
        /// The deadline passed before a token began
        Expired = 20,
        /// More in flight than announced
        TooManyInFlight = 21,
        /// The queue is full, or the deadline can not be met
        Overloaded = 22,
        /// No token that holds the key answers
        KeyUnavailable = 23,
        /// The token failed while signing
        TokenFailed = 24,
        /// The record can not be written
        AuditUnavailable = 25,
        /// The client took it back
        Cancelled = 26,
        /// The server is leaving
        Draining = 27,
        /// The tenant's own limit
        TenantLimit = 28,
        /// The key's certificate has expired, or the key failed its test
        KeyRefused = 29,
        /// Segl's own fault
        Internal = 40,
    }
}

numbered! {
    /// Whose fault it was.
    pub enum Fault {
        /// The request's
        Client = 0,
        /// The server's: configuration, capacity, disk
        Server = 1,
        /// The token's
        Token = 2,
    }
}

numbered! {
    /// Whether a signature may have been made.
    pub enum SignedState {
        /// Certainly not
        No = 0,
        /// It may exist; nobody will see it
        Unknown = 1,
    }
}

numbered! {
    /// Where trying again makes sense.
    pub enum Retry {
        /// It will fail again
        Never = 0,
        /// The same server, after the time given
        Here = 1,
        /// Another server, or this one much later
        Elsewhere = 2,
    }
}

/// What is said of a code unless the case at hand is known better.
struct Defaults {
    name: &'static str,
    fault: Fault,
    signed: SignedState,
    retry: Retry,
}

impl Code {
    /// In `snake_case`, as JSON and metrics have it.
    pub const fn name(self) -> &'static str {
        self.defaults().name
    }

    /// Whose fault it is, as a rule.
    pub const fn fault(self) -> Fault {
        self.defaults().fault
    }

    /// Whether a signature may exist, as a rule.
    pub const fn signed(self) -> SignedState {
        self.defaults().signed
    }

    /// Where to try again, as a rule.
    pub const fn retry(self) -> Retry {
        self.defaults().retry
    }

    const fn defaults(self) -> Defaults {
        const fn row(name: &'static str, fault: Fault, signed: SignedState, retry: Retry) -> Defaults {
            Defaults { name, fault, signed, retry }
        }
        use Fault::{Client, Server, Token};
        use Retry::{Elsewhere, Here, Never};
        use SignedState::{No, Unknown};
        match self {
            Code::Malformed => row("malformed", Client, No, Never),
            Code::UnknownType => row("unknown_type", Client, No, Never),
            Code::FrameTooLong => row("frame_too_long", Client, No, Never),
            Code::BadId => row("bad_id", Client, No, Never),
            Code::BadInput => row("bad_input", Client, No, Never),
            Code::NotGranted => row("not_granted", Client, No, Never),
            Code::PurposeViolated => row("purpose_violated", Client, No, Never),
            Code::AlgorithmNotAllowed => row("algorithm_not_allowed", Client, No, Never),
            Code::ClassNotAllowed => row("class_not_allowed", Client, No, Never),
            Code::BadBatch => row("bad_batch", Client, No, Never),
            Code::PolicyViolation => row("policy_violation", Client, No, Never),
            Code::MalformedDocument => row("malformed_document", Client, No, Never),
            Code::Expired => row("expired", Server, No, Elsewhere),
            Code::TooManyInFlight => row("too_many_in_flight", Client, No, Here),
            Code::Overloaded => row("overloaded", Server, No, Elsewhere),
            Code::KeyUnavailable => row("key_unavailable", Token, No, Elsewhere),
            Code::TokenFailed => row("token_failed", Token, Unknown, Elsewhere),
            Code::AuditUnavailable => row("audit_unavailable", Server, No, Elsewhere),
            Code::Cancelled => row("cancelled", Client, No, Never),
            Code::Draining => row("draining", Server, No, Elsewhere),
            Code::TenantLimit => row("tenant_limit", Client, No, Here),
            Code::KeyRefused => row("key_refused", Server, No, Elsewhere),
            Code::Internal => row("internal", Server, Unknown, Elsewhere),
        }
    }
}

/// The other answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error<'a> {
    /// The cause
    pub code: Code,
    /// Whose fault
    pub fault: Fault,
    /// Whether a signature may exist
    pub signed: SignedState,
    /// Where to try again
    pub retry: Retry,
    /// When, at the earliest
    pub retry_after_ms: Option<u32>,
    /// For a human: what is wrong and what to do
    pub message: Cow<'a, str>,
    /// What is wrong with a document, one by one; at most [`VIOLATIONS_MAX`]
    pub violations: Vec<Violation<'a>>,
}

/// One thing that is wrong with a document. It repeats nothing that the document says of a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation<'a> {
    /// Which rule: stable, for programs; at most [`crate::NAME_MAX`] bytes
    pub rule: Cow<'a, str>,
    /// Where: an XPath, or a JSON pointer (RFC 6901); at most [`PLACE_MAX`] bytes
    pub place: Option<Cow<'a, str>>,
    /// For a human: what was expected; at most [`EXPLANATION_MAX`] bytes
    pub text: Cow<'a, str>,
}

impl<'a> Violation<'a> {
    /// Made fit for the wire; an empty place is none.
    pub fn new(
        rule: impl Into<Cow<'a, str>>,
        place: impl Into<Cow<'a, str>>,
        text: impl Into<Cow<'a, str>>,
    ) -> Violation<'a> {
        let place = Some(place.into()).filter(|place| !place.is_empty());
        Violation {
            rule: fit(rule.into(), crate::NAME_MAX),
            place: place.map(|place| fit(place, PLACE_MAX)),
            text: explanation(text),
        }
    }

    /// Borrowing nothing.
    pub fn into_owned(self) -> Violation<'static> {
        Violation {
            rule: Cow::Owned(self.rule.into_owned()),
            place: self.place.map(|place| Cow::Owned(place.into_owned())),
            text: Cow::Owned(self.text.into_owned()),
        }
    }
}

impl<'a> Error<'a> {
    /// An error with what is said of its code as a rule. The message is made fit for the wire by [`explanation`].
    pub fn of(code: Code, message: impl Into<Cow<'a, str>>) -> Self {
        Error {
            code,
            fault: code.fault(),
            signed: code.signed(),
            retry: code.retry(),
            retry_after_ms: None,
            message: explanation(message),
            violations: Vec::new(),
        }
    }

    /// With what is wrong one by one; beyond [`VIOLATIONS_MAX`] the rest is left out.
    pub fn violations(self, violations: impl IntoIterator<Item = Violation<'a>>) -> Self {
        Error { violations: violations.into_iter().take(VIOLATIONS_MAX).collect(), ..self }
    }

    /// With what is known about a signature in this case.
    pub fn signed(self, signed: SignedState) -> Self {
        Error { signed, ..self }
    }

    /// With another place to try again.
    pub fn retry(self, retry: Retry) -> Self {
        Error { retry, ..self }
    }

    /// With somebody else's fault.
    pub fn fault(self, fault: Fault) -> Self {
        Error { fault, ..self }
    }

    /// With the earliest time to try again.
    pub fn retry_after(self, retry_after_ms: u32) -> Self {
        Error { retry_after_ms: Some(retry_after_ms), ..self }
    }

    /// Borrowing nothing.
    pub fn into_owned(self) -> Error<'static> {
        Error {
            message: Cow::Owned(self.message.into_owned()),
            violations: self.violations.into_iter().map(Violation::into_owned).collect(),
            ..self
        }
    }
}

/// Makes a text for a human fit for the wire: cut to [`EXPLANATION_MAX`] bytes, control characters become spaces, an
/// empty one a dash.
pub fn explanation<'a>(text: impl Into<Cow<'a, str>>) -> Cow<'a, str> {
    fit(text.into(), EXPLANATION_MAX)
}

fn fit(mut text: Cow<'_, str>, max: usize) -> Cow<'_, str> {
    if text.is_empty() {
        return Cow::Borrowed("-");
    }
    if text.contains(char::is_control) {
        text = Cow::Owned(text.replace(char::is_control, " "));
    }
    if text.len() > max {
        let mut end = max;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text = match text {
            Cow::Borrowed(text) => Cow::Borrowed(&text[..end]),
            Cow::Owned(mut text) => {
                text.truncate(end);
                Cow::Owned(text)
            }
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_own_name_and_comes_back_from_its_number() {
        let names: std::collections::HashSet<_> = Code::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            assert_eq!(Code::from_u8(*code as u8), Some(*code));
        }
        assert_eq!(Code::from_u8(0), None);
        assert_eq!(Code::from_u8(13), None);
    }

    #[test]
    fn any_explanation_is_made_fit_for_the_wire() {
        assert_eq!(explanation(""), "-");
        assert_eq!(explanation("two\nlines\u{85}\0"), "two lines  ");
        let long = explanation("å".repeat(300) + "x");
        assert_eq!(long, "å".repeat(256));
        let odd = explanation("x".to_owned() + &"å".repeat(300));
        assert_eq!(odd.len(), EXPLANATION_MAX - 1);
    }
}
