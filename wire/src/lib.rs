//! Segl's protocol, `segl/1`: frames, messages, and behind the feature `client` an async client.
//!
//! `docs/PROTOCOL.md` is the specification, `docs/protocol.cddl` its grammar.
#![warn(missing_docs)]

mod cbor;
#[cfg(feature = "client")]
pub mod client;
mod codec;
mod document;
mod error;
mod frame;
mod message;
mod numbered;
mod owned;
mod splitter;

pub use cbor::{DEPTH_MAX, DecodeError, EXTENSION_KEY_MIN, check};
pub use codec::{Limits, Message};
pub use document::*;
pub use error::*;
pub use frame::*;
pub use message::*;
pub use splitter::FrameBuffer;
