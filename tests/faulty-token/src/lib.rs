//! The faulty token: a PKCS#11 module as any vendor's, with working keys, that misbehaves on command.
//!
//! As a shared library it is what a program under test loads; as a Rust library it is how the test commands it
//! ([`FaultyHsm`]). Tests tell it what to do wrong through a socket while it runs, and ask it what was done to it: its
//! own count of signatures made is what a journal is compared with.
//!
//! - One module file is one HSM, made of the configuration beside it. Two copies are two HSMs; and a module may have
//!   several tokens.
//! - [`entry`] alone holds `unsafe` code; all behind it is safe.

#![warn(missing_docs)]

mod client;
mod commands;
mod control;
mod counts;
mod entry;
mod faults;
mod keys;
mod module;
mod search;
mod server;
mod sessions;
mod signing;
mod token;

pub use client::{FaultyHsm, MODULE_FILE};
pub use control::{
    Answer, Call, Command, Configuration, Does, Fault, KeyConfiguration, Revives, Seen, Tempo, TokenConfiguration, When,
};
pub use counts::{Counts, KeyCounts, TokenCounts, Violations};
pub use cryptoki_sys;
pub use segl_hsm::KeyType;
