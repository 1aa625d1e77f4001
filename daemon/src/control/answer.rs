//! What segld answers.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Status;

/// An answer, as a line of JSON: `{"done":"..."}`, `{"refused":{...}}`, ...
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// To a request for it
    Status(Box<Status>),
    /// It is done, or begun; in words
    Done(String),
    /// What came of self-tests
    Selftests(Vec<SelfTested>),
    /// How much is logged
    LogLevel(String),
    /// It is not done
    Refused(Refused),
}

/// Why something is not done, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// For programs
    pub reason: Reason,
    /// What is wrong
    pub text: String,
    /// What to do
    pub hint: String,
}

/// The kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Whoever asks may not
    Denied,
    /// It is no request
    Malformed,
    /// There is no token or key of that name
    Unknown,
    /// Not as things are; the text says what stands in the way
    NotNow,
    /// Too many speak to segld at once
    Busy,
    /// It can not be recorded, and so is not done
    Unrecorded,
    /// It was tried and failed
    Failed,
}

impl Refused {
    /// One of them.
    pub fn new(reason: Reason, text: impl Into<String>, hint: impl Into<String>) -> Refused {
        Refused { reason, text: text.into(), hint: hint.into() }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, "\n    {}", self.hint) }
    }
}

/// A self-test that was asked for: one key on one token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelfTested {
    /// The key's name; of a version `NAME/VERSION`
    pub key: String,
    /// The token's name
    pub token: String,
    /// What came of it
    pub result: TestResult,
    /// Whether the key signed; else the token was only asked whether it holds it
    pub signed: bool,
    /// Why it failed, was postponed or not made; empty where it passed
    pub detail: String,
}

/// What came of a self-test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TestResult {
    /// The key is well
    Passed,
    /// It is not, and is not used there
    Failed,
    /// Nothing can be said of the key yet; it is tested again
    Postponed,
    /// It was not made
    NotMade,
}

impl TestResult {
    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            TestResult::Passed => "passed",
            TestResult::Failed => "failed",
            TestResult::Postponed => "postponed",
            TestResult::NotMade => "not made",
        }
    }
}
