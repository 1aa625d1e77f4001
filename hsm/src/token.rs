//! The two traits every token stands behind, and the seam at which one can be cut off from this process.
//!
//! A vendor's module is code that nobody here has read, in one address space with everything else: its crash ends the
//! process, its wild write may end anything. So these traits are made for a `remote` token as well: a supervised child
//! process that alone loads the module and reads the PIN. Nothing above them may assume that a session lives here:
//!
//! - What crosses is small and owned: a [`KeyId`], an [`Algorithm`], an [`Input`]; a signature, [`KeyReport`]s, an
//!   [`crate::Error`] with its verdict. No handle, no pointer, no closure. (An error's context and code are names out of
//!   fixed lists, to be looked up again on this side.)
//! - A session's thread blocks in the call as it would in C_Sign: on this side it waits for an answer on a socket. A
//!   child that dies answers every call with an error whose verdict says `signed: unknown` if C_Sign was asked for, and
//!   rung [`crate::Rung::Token`]; opening the next session starts the child anew, so generations and their rules stay
//!   as they are.
//! - [`Token::reinitialise`] becomes the end of the child and the start of another. That may be done even with a call
//!   stuck inside, which is the point of it: then no module is ever wedged.
//! - The PIN guard's file has to be written before C_Login by whoever calls C_Login: the child.
//! - [`crate::Error::verdict`] is made by the child, which knows the CKR table; verification before release
//!   (`verified::VerifiedToken`) is done on this side, which does not take the child's word.
//!
//! What a `remote` token still needs: a frame for each call of these traits on a socket pair, a request number (an
//! answer that comes after its caller was given up must be known as such), and the supervisor's pause between starts.

use crate::{Algorithm, Input, KeyId, KeyReport, KeySpec, Result, Signature};

/// Tokens of one module share its C_Initialize: what is done to the module is done to all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModuleId(pub u32);

/// A token: the holder of keys, on which sessions are opened.
///
/// Shared among threads; all calls may block as long as the token likes, so they are made on session threads only.
pub trait Token: Send + Sync + 'static {
    /// The operator's name for it.
    fn name(&self) -> &str;

    /// The module it belongs to.
    fn module(&self) -> ModuleId;

    /// Says which keys the next [`Session::login`] looks up. Keys given before stay known; an id given again
    /// with another locator is looked up anew. Never blocks.
    fn add_keys(&self, keys: &[KeySpec]);

    /// Opens a session on the calling thread, which is the session's own for all its life.
    fn open(&self) -> Result<Box<dyn Session>>;

    /// Begins the module anew (C_Finalize, C_Initialize), which ends the sessions and logins of all its tokens: the
    /// next [`Token::open`] of each finds its token again. Only when every session of every token of the module is
    /// closed and no call is inside it; a token that shares nothing with anybody has nothing to do.
    ///
    /// # Errors
    /// When it is refused since somebody is inside, or as opening fails; then an open may still be tried.
    fn reinitialise(&self) -> Result<()>;

    /// Lets a PIN that was refused be tried once more: the operator says that it is right now. What the token itself
    /// says of its last try still holds. A token without a PIN has nothing to forget.
    ///
    /// The one call that is not made on a session's thread: it may block as long as the module does.
    ///
    /// # Errors
    /// When the token can not be found, or what is remembered can not be taken away.
    fn retry_pin(&self) -> Result<()> {
        Ok(())
    }
}

/// A session: one call at a time, on the thread that opened it. It need not be [`Send`].
///
/// Dropping a session does not close it at the token: a late close could hit a stranger, since handle numbers
/// restart. [`Session::close`] does, and only within the generation it was opened in.
pub trait Session {
    /// Logs the application in to the token (already being so is success) and looks up the keys of
    /// [`Token::add_keys`] that this generation has not looked up yet. Reports on all keys known so far.
    ///
    /// The login is token-wide (PKCS#11 3.0 §5.6.8): one session does it, the others see the keys.
    fn login(&mut self) -> Result<Vec<KeyReport>>;

    /// Signs; the signature replaces what was in `out`, whose allocation is used again.
    ///
    /// On an error the session may hold an active operation: the caller closes it and opens another, unless the
    /// error's verdict says that the session is sound ([`crate::Rung::None`]).
    fn sign(&mut self, key: KeyId, algorithm: Algorithm, input: &Input, out: &mut Signature) -> Result<()>;

    /// Looks whether the key is still there, without using it.
    fn presence(&mut self, key: KeyId) -> Result<()>;

    /// Makes the device itself see that the session is in use, at the least cost, and says what has become of it: many
    /// devices close what stands idle, some after half a minute.
    fn keep_alive(&mut self) -> Result<()>;

    /// A signature of it was found to be wrong: whatever it was made with, no handle of its generation is used again. The
    /// next one looks everything up anew. A token without handles has nothing to do.
    fn distrust(&mut self) {}

    /// Closes it, on its own thread.
    fn close(self: Box<Self>) -> Result<()>;
}
