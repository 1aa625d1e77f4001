//! The two traits every token stands behind.

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

    /// Closes it, on its own thread.
    fn close(self: Box<Self>) -> Result<()>;
}
