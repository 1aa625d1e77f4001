//! The protocol from outside: what its codec promises, and that specification, grammar and code say the same.
#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

mod bytes;
mod cases;
mod grammar;
mod refusals;
mod specification;
mod splitter;
mod tree;

#[cfg(feature = "client")]
mod tls;
