//! The protocol from outside: what its codec promises, and that specification, grammar and code say the same.

mod bytes;
mod cases;
mod grammar;
mod refusals;
mod splitter;
mod tree;
