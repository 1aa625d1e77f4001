//! Segl's protocol, `segl/1`: frames, messages, and behind the feature `client` an async client.
//!
//! `docs/PROTOCOL.md` is the specification, `docs/protocol.cddl` its grammar.

mod frame;
mod message;

pub use frame::*;
pub use message::*;
