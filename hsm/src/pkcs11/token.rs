//! A token of a module, as the rest of Segl sees it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

use super::{
    Module, PinSource, Uri,
    generation::Generation,
    guard::{Attempt, PinGuard},
    keys::{self, FoundKey},
    module::{Closing, OpenSession, TURN_WAIT, Turn, TurnGuard},
    session::Pkcs11Session,
};
use crate::{Error, Fault, KeyId, KeySpec, Kind, ModuleId, Result, Rung, Session, Token, Verdict};

/// So many new sessions may be lost in a row before it is the token's doing.
const VOID_SESSIONS_MAX: u32 = 2;

/// A token of a PKCS#11 module. A key's locator is a PKCS#11 URI with `object` or `id` or both.
#[derive(Debug)]
pub struct Pkcs11Token {
    shared: Arc<Shared>,
}

/// What the token's sessions share.
#[derive(Debug)]
pub(super) struct Shared {
    name: String,
    pub(super) module: Arc<Module>,
    uri: Uri,
    pub(super) pin: PinSource,
    state_directory: PathBuf,
    specs: Mutex<BTreeMap<KeyId, Arc<str>>>,
    /// The public key each id has shown first, over all generations.
    shown: Mutex<BTreeMap<KeyId, Vec<u8>>>,
    /// Keys whose look-up failed with an error that speaks against the session.
    suspects: Mutex<BTreeSet<KeyId>>,
    /// Sessions in a row that were void before they had done anything.
    void_sessions: AtomicU32,
    /// Goes up whenever a session's copy of the key handles may be out of date.
    version: AtomicU64,
    current: Mutex<Option<Arc<Generation>>>,
    /// Taken through a login and the look-up of keys after it.
    login: Turn,
    /// A login succeeded and its guard could not note that: it does before the next
    passed: AtomicBool,
}

impl Pkcs11Token {
    /// The token of `module` that `uri` selects (`token`, `serial`, `manufacturer`, `model`, `slot-id`; at least one
    /// of them, and none that speaks of a key). Nothing is asked of the module before a session opens.
    ///
    /// `state_directory` keeps what must outlive a restart: which PIN the token refused. It is made when missing.
    pub fn new(
        name: impl Into<String>,
        module: Arc<Module>,
        uri: Uri,
        pin: PinSource,
        state_directory: impl Into<PathBuf>,
    ) -> Result<Pkcs11Token> {
        let refused = |why| {
            let verdict = Verdict { fault: Fault::Operator, ..Kind::TokenAbsent.verdict() };
            Err(Error::new(Kind::TokenAbsent, verdict, "token", format!("{uri}: {why}")))
        };
        if !uri.selects_token() {
            return refused("selects no token");
        }
        if uri.selects_object() {
            return refused("speaks of a key where a token is meant");
        }
        let shared = Shared {
            name: name.into(),
            module,
            uri,
            pin,
            state_directory: state_directory.into(),
            specs: Mutex::default(),
            shown: Mutex::default(),
            suspects: Mutex::default(),
            void_sessions: AtomicU32::new(0),
            version: AtomicU64::new(1),
            current: Mutex::default(),
            login: Turn::default(),
            passed: AtomicBool::new(false),
        };
        Ok(Pkcs11Token { shared: Arc::new(shared) })
    }
}

impl Token for Pkcs11Token {
    fn name(&self) -> &str {
        &self.shared.name
    }

    fn module(&self) -> ModuleId {
        self.shared.module.id()
    }

    fn add_keys(&self, keys: &[KeySpec]) {
        let mut specs = lock(&self.shared.specs);
        for spec in keys {
            specs.insert(spec.id, spec.locator.clone());
        }
        drop(specs);
        self.shared.outdate();
    }

    fn open(&self) -> Result<Box<dyn Session>> {
        let (generation, session) = self.shared.open_session()?;
        Ok(Box::new(Pkcs11Session::new(self.shared.clone(), generation, session)))
    }

    fn reinitialise(&self) -> Result<()> {
        self.shared.module.reinitialise()
    }

    /// Finds the token, whose serial number is part of what is remembered.
    fn retry_pin(&self) -> Result<()> {
        let generation = {
            let _one = self.shared.module.opening()?;
            self.shared.generation()?
        };
        self.shared.guard(&generation)?.forget()?;
        self.shared.passed.store(false, Ordering::Release);
        Ok(())
    }
}

impl Shared {
    fn open_session(&self) -> Result<(Arc<Generation>, OpenSession)> {
        let _one = self.module.opening()?;
        let generation = self.generation()?;
        match generation.open_session(&self.module) {
            Ok(session) => Ok((generation, session)),
            Err(error) => {
                // While others are open, what one more could not have says nothing against theirs: they will hear
                // for themselves when they sign.
                if generation.sessions() == 0 {
                    self.judge(&generation, &error);
                }
                Err(error)
            }
        }
    }

    pub(super) fn close_session(&self, generation: Arc<Generation>, session: OpenSession) -> Result<()> {
        self.module.close_in_turn(Closing { generation, session })
    }

    /// The current generation, or a new one where there is none or it was given up. The module's `opening` is held.
    fn generation(&self) -> Result<Arc<Generation>> {
        self.module.initialise()?;
        let old = lock(&self.current).clone();
        if let Some(old) = old {
            // With others open the login is theirs as well: if it is lost they will hear for themselves.
            if !old.is_given_up(&self.module) && (old.sessions() > 0 || !old.has_lost_its_login()) {
                return Ok(old);
            }
            old.give_up();
            old.end(&self.module);
        }
        *lock(&self.current) = None;
        let new = Arc::new(Generation::begin(&self.module, &self.uri)?);
        *lock(&self.current) = Some(new.clone());
        self.outdate();
        Ok(new)
    }

    /// Gives the generation up if the error says that its handles are worth nothing.
    pub(super) fn judge(&self, generation: &Generation, error: &Error) {
        if matches!(error.verdict().rung, Rung::Token | Rung::Module) {
            generation.give_up();
        }
    }

    /// A session was found void before it had done anything. Once that is a lost session; again and again it is what
    /// many a device says for ever after it has failed (letsencrypt/boulder#3468), and then new sessions of the same
    /// generation help as little as these: the error speaks against the token, as long as nothing succeeds.
    pub(super) fn stillborn(&self, error: Error) -> Error {
        if self.void_sessions.fetch_add(1, Ordering::Relaxed) < VOID_SESSIONS_MAX {
            return error;
        }
        let verdict = Verdict { rung: Rung::Token, ..error.verdict() };
        let detail = format!("{error}; like the sessions before it, which had done nothing either");
        Error::new(error.kind(), verdict, error.context(), detail).with_code(error.code())
    }

    /// A session works.
    pub(super) fn works(&self) {
        if self.void_sessions.load(Ordering::Relaxed) != 0 {
            self.void_sessions.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn guard(&self, generation: &Generation) -> Result<PinGuard> {
        PinGuard::open(&self.state_directory, &generation.identity.to_string())
    }

    /// One logs in at a time.
    ///
    /// # Errors
    /// When somebody else has been at it for too long: C_Login may never return.
    pub(super) fn logging_in(&self) -> Result<TurnGuard<'_>> {
        self.login.begin(TURN_WAIT).ok_or_else(|| {
            let verdict = Verdict { rung: Rung::Session, ..Kind::Overloaded.verdict() };
            let detail = format!("{}: another session is logging in for too long", self.name);
            Error::new(Kind::Overloaded, verdict, "login", detail)
        })
    }

    /// The token took the PIN. Where the guard can not note that, the login is none the worse for it.
    pub(super) fn passed(&self, attempt: Attempt<'_>) {
        self.passed.store(attempt.passed().is_err(), Ordering::Release);
    }

    /// Has the guard note what it could not, or else successes would be counted as tries of unknown end.
    pub(super) fn note_passed(&self, guard: &PinGuard) -> Result<()> {
        if self.passed.load(Ordering::Acquire) {
            guard.forget()?;
            self.passed.store(false, Ordering::Release);
        }
        Ok(())
    }

    pub(super) fn specs(&self) -> BTreeMap<KeyId, Arc<str>> {
        lock(&self.specs).clone()
    }

    /// An id names one key while the process lives: what comes under its locator with another public key is another
    /// key (a token restored from the wrong backup, say), and nothing is signed with it.
    pub(super) fn check_unchanged(&self, id: KeyId, locator: &str, key: &FoundKey) -> Result<()> {
        match lock(&self.shown).entry(id).or_insert_with(|| key.info.spki_der.clone()) {
            before if *before == key.info.spki_der => Ok(()),
            _ => Err(keys::unusable(locator, "another public key than before under this locator")),
        }
    }

    /// Whether a look-up of this key failed with an error that speaks against the session, the last time.
    pub(super) fn is_suspect(&self, id: KeyId) -> bool {
        lock(&self.suspects).contains(&id)
    }

    /// Notes that it did; says whether it had before.
    pub(super) fn suspect(&self, id: KeyId) -> bool {
        !lock(&self.suspects).insert(id)
    }

    /// Its look-up came to an end.
    pub(super) fn clear(&self, id: KeyId) {
        lock(&self.suspects).remove(&id);
    }

    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(super) fn outdate(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
    }
}

/// With the last session gone, and the token forgotten (a reload, say), the login ends too. It blocks as long as one
/// C_CloseSession does.
impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(generation) = lock(&self.current).take() {
            generation.end(&self.module);
        }
    }
}

/// Nothing is left half done under any of these locks.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
