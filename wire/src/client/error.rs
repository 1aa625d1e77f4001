//! How a request can end without its answer.

use std::sync::Arc;

use crate::{Code, Error, Retry, SignedState};

/// Why there is no answer, with what that means for a second attempt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The server's other answer; or our own, where its Hello says that it would refuse
    #[error("{0}")]
    Refused(Error<'static>),
    /// It was never sent, or the server said that it did not look at it: safe to send elsewhere
    #[error("not sent: {cause}")]
    NotSent {
        /// What is wrong with the connection
        cause: Arc<str>,
    },
    /// It was sent and the connection ended before the answer
    #[error("no answer to request {id}: {cause}")]
    Lost {
        /// Its id on that connection, 0 for a Ping
        id: u64,
        /// Unknown, but for what never signs
        signed: SignedState,
        /// Why the connection ended
        cause: Arc<str>,
    },
    /// Neither answer nor end came in time
    #[error("timed out")]
    TimedOut {
        /// No while it waited to be sent, else unknown
        signed: SignedState,
    },
}

impl ClientError {
    /// Whether a signature may exist.
    pub fn signed(&self) -> SignedState {
        match self {
            ClientError::Refused(error) => error.signed,
            ClientError::NotSent { .. } => SignedState::No,
            ClientError::Lost { signed, .. } | ClientError::TimedOut { signed } => *signed,
        }
    }

    /// Where trying again makes sense; whether it may be tried again depends on [`signed`](Self::signed).
    pub fn retry(&self) -> Retry {
        match self {
            ClientError::Refused(error) => error.retry,
            ClientError::NotSent { .. } | ClientError::Lost { .. } | ClientError::TimedOut { .. } => Retry::Elsewhere,
        }
    }

    /// The code of a refusal.
    pub fn code(&self) -> Option<Code> {
        match self {
            ClientError::Refused(error) => Some(error.code),
            _ => None,
        }
    }
}
