//! The control socket: what an operator's command asks of the segld that runs, and what that answers.
//!
//! A line of JSON each way over a Unix socket: a [`Request`] of at most [`REQUEST_MAX`] bytes, an [`Answer`] of at most
//! [`ANSWER_MAX`]; many of them on one connection, one after the other. Who is at the other end the kernel says
//! (SO_PEERCRED): root, the daemon's own user, members of the operators' group, and members of the watchers' group,
//! who may only look; anybody else is turned away before a byte of theirs is read.
//!
//! The types are shared by both ends; [`Client`] is the command's, `server` the daemon's.

mod answer;
mod client;
mod request;
pub(crate) mod server;
pub mod status;

pub use self::{
    answer::{Answer, Reason, Refused, SelfTested, TestResult},
    client::{Client, ClientError},
    request::{Access, Request},
    status::Status,
};
pub use crate::config::DEFAULT_SOCKET;

/// Longest request in bytes, its end of line included: a command and a name or two.
pub const REQUEST_MAX: usize = 4 << 10;

/// Longest answer in bytes: the status of a thousand keys on ten tokens has four million.
pub const ANSWER_MAX: usize = 16 << 20;
