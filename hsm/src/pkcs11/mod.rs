//! Tokens behind any PKCS#11 module (OASIS PKCS#11 2.40 and later), by cryptoki.
//!
//! - A [`Module`] is a shared library, loaded and initialised once per process and path.
//! - A [`Pkcs11Token`] is one token of it, found by label, serial and the like, anew in every *generation*.
//! - A generation holds what goes together: the slot, the sessions and the key handles. When a failure says that
//!   handles are stale, the whole generation is given up, since a stale handle may name another key; the next
//!   session to open begins a new one.
//!
//! The process must not fork after the first [`Module::load`].

mod acl;
mod ckr;
mod fast;
mod generation;
mod guard;
mod keys;
mod mechanism;
mod module;
mod pin;
mod session;
mod survey;
mod token;
mod uri;

pub use module::Module;
pub use pin::PinSource;
pub use survey::{PinState, Seen};
pub use token::Pkcs11Token;
pub use uri::{ObjectType, URI_LEN_MAX, Uri, UriError};
