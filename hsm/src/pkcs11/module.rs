//! A PKCS#11 module: loaded once per process, whoever asks, and initialised once, by the first who uses it; anew only
//! by [`Module::reinitialise`], which begins another *world*: no handle of an earlier one is used or closed in it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::Error as CryptokiError,
    session::Session,
    slot::Slot,
};
use cryptoki_sys::{CK_SESSION_HANDLE, CKR_CRYPTOKI_NOT_INITIALIZED};

use super::{ckr, fast::FastPath, generation::Generation};
use crate::{Error, Fault, Kind, ModuleId, Result, Retry, Rung, Signed, Verdict};

/// A PKCS#11 module, loaded.
#[derive(Debug)]
pub struct Module {
    id: ModuleId,
    path: PathBuf,
    context: Pkcs11,
    fast: FastPath,
    initialised: Mutex<Initialised>,
    /// Goes up with every C_Finalize
    world: AtomicU64,
    opening: Turn,
    sessions: Mutex<Sessions>,
    /// Sessions to be closed by whoever has the next turn
    unclosed: Mutex<Vec<Closing>>,
}

/// How long somebody waits for his turn. A C_OpenSession takes milliseconds, a C_Login not much longer; one that takes
/// more may never return, and then whoever stood behind it would be stuck as well. Shorter than the pool's patience with
/// a call (`stuck_after`), which is a second at least.
pub(super) const TURN_WAIT: Duration = Duration::from_millis(800);

/// What came of C_Initialize, which must not be called a second time once it has succeeded.
#[derive(Debug)]
enum Initialised {
    NotYet,
    Yes,
    /// It succeeded, and still the module can not be used: nothing to try before the process starts anew
    InVain(Error),
}

/// Who holds which handle. A module may give a number again once it has closed a session by itself (the token was
/// taken out, say), and then a late C_CloseSession would hit a stranger; so only the number's last holder closes it.
#[derive(Debug, Default)]
struct Sessions {
    opened: u64,
    generations: u64,
    holders: BTreeMap<CK_SESSION_HANDLE, Holder>,
}

#[derive(Clone, Debug)]
struct Holder {
    number: u64,
    generation: u64,
    role: Role,
    /// The module has given its number to another
    void: Arc<AtomicBool>,
}

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// To sign: a thread may be in a call with it
    Signs,
    /// To keep the login: nobody ever makes a call with it
    Anchor,
}

/// A session that is open at the token until [`Module::close_session`]; dropping it does not close it.
#[derive(Debug)]
pub(super) struct OpenSession {
    session: Session,
    holder: Holder,
    /// The module gave it the number of a session that is open as far as anybody here knew
    again: bool,
}

impl OpenSession {
    /// Whether its number is that of an earlier session of the same generation, which the token has so ended by itself:
    /// since it stood idle, or with all others when the token began anew.
    pub(super) fn comes_again(&self) -> bool {
        self.again
    }

    /// Whether the module has given its number to another: a call with it would be a call with a stranger's session.
    pub(super) fn is_void(&self) -> bool {
        self.holder.void.load(Ordering::Acquire)
    }
}

impl std::ops::Deref for OpenSession {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

/// A session that is to be closed, and the generation that counts it.
#[derive(Debug)]
pub(super) struct Closing {
    pub(super) generation: Arc<Generation>,
    pub(super) session: OpenSession,
}

/// Every module this process has loaded. C_Initialize is process-wide and cryptoki does not guard against a second
/// one, so the modules stay here for good. The lock is not held through C_Initialize: a module that hangs there holds
/// up its own tokens alone.
static LOADED: Mutex<BTreeMap<PathBuf, Arc<Module>>> = Mutex::new(BTreeMap::new());

impl Module {
    /// Loads the library at `path` (absolute: a bare name would be searched for). Loading it again gives what was
    /// loaded first; under another id that is an error, since what is done to the module is done to all its tokens.
    ///
    /// The device behind it is not asked yet: C_Initialize, which may fail or block while the device is away, is for
    /// the first session that is opened, on its thread.
    pub fn load(path: impl AsRef<Path>, id: ModuleId) -> Result<Arc<Module>> {
        let path = path.as_ref();
        let refuse = |why: String| Error::of(Kind::Module, "module", format!("{}: {why}", path.display()));
        if !path.is_absolute() {
            return Err(refuse("not an absolute path".into()));
        }
        let path = path.canonicalize().map_err(|error| refuse(error.to_string()))?;
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = loaded.get(&path) {
            if module.id != id {
                return Err(refuse(format!("loaded already as module {}, now asked for as {}", module.id.0, id.0)));
            }
            return Ok(module.clone());
        }
        let context = Pkcs11::new(&path).map_err(|error| ckr::from_cryptoki("load", error))?;
        let fast = FastPath::load(&path).map_err(refuse)?;
        let module = Arc::new(Module {
            id,
            path: path.clone(),
            context,
            fast,
            initialised: Mutex::new(Initialised::NotYet),
            world: AtomicU64::new(0),
            opening: Turn::default(),
            sessions: Mutex::default(),
            unclosed: Mutex::default(),
        });
        loaded.insert(path, module.clone());
        Ok(module)
    }

    /// Its id.
    pub fn id(&self) -> ModuleId {
        self.id
    }

    /// Where it was loaded from, links resolved.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// C_Initialize, with locking by the operating system, unless it was done. A failure is tried again by the next
    /// who asks.
    pub(super) fn initialise(&self) -> Result<()> {
        let mut initialised = self.initialised.lock().unwrap_or_else(PoisonError::into_inner);
        match &*initialised {
            Initialised::Yes => Ok(()),
            Initialised::InVain(error) => Err(error.clone()),
            Initialised::NotYet => self.initialise_now(&mut initialised).map_err(|error| self.not_initialised(error)),
        }
    }

    /// C_Finalize and C_Initialize: the last thing there is to try with a module short of a new process, for the
    /// device that no session can be had of any more, and the token that is only seen by who looks anew. It ends every
    /// token's sessions and login, so nobody may be inside the module: it is refused while any session is open but the
    /// anchors, or one is being opened or closed.
    ///
    /// # Errors
    /// When it is refused, and nothing has changed; or as C_Initialize does, and then the next open tries that again.
    pub(super) fn reinitialise(&self) -> Result<()> {
        let refuse = |why: &str| {
            let verdict = Verdict { fault: Fault::Segl, rung: Rung::None, ..Kind::Module.verdict() };
            Error::new(Kind::Module, verdict, "C_Finalize", format!("{}: {why}", self.path.display()))
        };
        let Some(_one) = self.opening.begin(Duration::ZERO) else {
            return Err(refuse("a session is being opened or closed"));
        };
        self.close_unclosed();
        let mut initialised = self.initialised.lock().unwrap_or_else(PoisonError::into_inner);
        if let Initialised::InVain(error) = &*initialised {
            return Err(error.clone());
        }
        if self.sessions().holders.values().any(|holder| holder.role == Role::Signs) {
            return Err(refuse("sessions are open"));
        }
        let finalised = self.context.clone().finalize();
        let finalised = match finalised {
            Err(CryptokiError::Pkcs11(rv, _)) if ckr::code_of(rv) == CKR_CRYPTOKI_NOT_INITIALIZED => Ok(()),
            other => other.map_err(|error| ckr::from_cryptoki("C_Finalize", error)),
        };
        *initialised = Initialised::NotYet;
        let begun = match self.initialise_now(&mut initialised) {
            // It did not end, so it goes on: the anchors with it.
            Err(error) if finalised.is_err() && error.code() == ALREADY_INITIALISED => {
                *initialised = Initialised::Yes;
                return finalised.map_err(|error| self.not_initialised(error));
            }
            begun => begun,
        };
        self.world.fetch_add(1, Ordering::AcqRel);
        self.sessions().holders.clear();
        begun.map_err(|error| self.not_initialised(error))
    }

    /// Counts the worlds: whoever holds handles of another one holds nothing.
    pub(super) fn world(&self) -> u64 {
        self.world.load(Ordering::Acquire)
    }

    fn initialise_now(&self, initialised: &mut Initialised) -> Result<()> {
        self.context
            .initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
            .map_err(|error| ckr::from_cryptoki("C_Initialize", error))?;
        // Signing goes by a function list of its own, which must be one of this very library: the file could have
        // been exchanged between the two times it was opened, and then C_Initialize was said to another.
        if let Err(why) = self.fast.check_initialised() {
            let verdict = Verdict { rung: Rung::Operator, ..Kind::Module.verdict() };
            let detail = format!("{}: {why}; start anew", self.path.display());
            let error = Error::new(Kind::Module, verdict, "module", detail);
            *initialised = Initialised::InVain(error.clone());
            return Err(error);
        }
        *initialised = Initialised::Yes;
        Ok(())
    }

    /// Whatever C_Initialize says, it is about the module, and tried again unless only an operator can help.
    fn not_initialised(&self, error: Error) -> Error {
        let verdict = error.verdict();
        let rung = if verdict.rung == Rung::Operator { Rung::Operator } else { Rung::Module };
        let verdict = Verdict { signed: Signed::No, retry: Retry::Elsewhere, rung, ..verdict };
        let detail = format!("{}: {error}", self.path.display());
        Error::new(Kind::Module, verdict, "module", detail).with_code(error.code())
    }

    /// Held through C_OpenSession and C_CloseSession of all the module's tokens, and while a new generation is begun:
    /// it is what makes them one after the other. Handle numbers are the module's, so a late close could hit a
    /// session of another token. Signing never waits for it.
    ///
    /// # Errors
    /// When somebody else has been at it for too long: the module may be stuck in his call.
    pub(super) fn opening(&self) -> Result<TurnGuard<'_>> {
        let turn = self.opening.begin(TURN_WAIT).ok_or_else(|| {
            let verdict = Verdict { rung: Rung::Session, ..Kind::Overloaded.verdict() };
            let detail = format!("{}: another session is being opened or closed for too long", self.path.display());
            Error::new(Kind::Overloaded, verdict, "C_OpenSession", detail)
        })?;
        self.close_unclosed();
        Ok(turn)
    }

    /// Closes a session in its turn; when that does not come in time, whoever has the next one does it: no thread is
    /// lost to another's call.
    pub(super) fn close_in_turn(&self, closing: Closing) -> Result<()> {
        let Some(_one) = self.opening.begin(TURN_WAIT) else {
            self.unclosed().push(closing);
            return Ok(());
        };
        self.close_unclosed();
        closing.generation.close_session(self, closing.session)
    }

    /// Closes what others had to leave. The turn is the caller's.
    fn close_unclosed(&self) {
        let unclosed = std::mem::take(&mut *self.unclosed());
        for Closing { generation, session } in unclosed {
            // Whoever left it has no use for what comes of it.
            let _ = generation.close_session(self, session);
        }
    }

    fn unclosed(&self) -> MutexGuard<'_, Vec<Closing>> {
        self.unclosed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn context(&self) -> &Pkcs11 {
        &self.context
    }

    /// C_OpenSession, read-only: nothing is written to a token.
    pub(super) fn open_session(&self, slot: Slot, role: Role, generation: u64) -> Result<OpenSession> {
        let session = self.context.open_ro_session_no_drop(slot);
        let session = session.map_err(|error| ckr::from_cryptoki("C_OpenSession", error))?;
        let mut sessions = self.sessions();
        sessions.opened += 1;
        let holder = Holder { number: sessions.opened, generation, role, void: Arc::default() };
        let before = sessions.holders.insert(session.handle(), holder.clone());
        let again = before.is_some_and(|before| {
            before.void.store(true, Ordering::Release);
            before.generation == generation
        });
        Ok(OpenSession { session, holder, again })
    }

    /// A generation's number among all of the module.
    pub(super) fn count_generation(&self) -> u64 {
        let mut sessions = self.sessions();
        sessions.generations += 1;
        sessions.generations
    }

    /// C_CloseSession, unless the handle's number has another holder by now, or none: its world has ended.
    pub(super) fn close_session(&self, open: OpenSession) -> Result<()> {
        let handle = open.session.handle();
        let holds =
            |sessions: &Sessions| sessions.holders.get(&handle).is_some_and(|it| it.number == open.holder.number);
        if !holds(&self.sessions()) {
            return Ok(());
        }
        let closed = open.session.close();
        let mut sessions = self.sessions();
        if holds(&sessions) {
            sessions.holders.remove(&handle);
        }
        closed.map_err(|error| ckr::from_cryptoki("C_CloseSession", error))
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn fast(&self) -> &FastPath {
        &self.fast
    }
}

/// The name of the one answer of C_Initialize that says how C_Finalize went.
const ALREADY_INITIALISED: &str = "CKR_CRYPTOKI_ALREADY_INITIALIZED";

/// One at a time, with an end to the waiting.
#[derive(Debug, Default)]
pub(super) struct Turn {
    taken: Mutex<bool>,
    free: Condvar,
}

/// Somebody's turn.
#[derive(Debug)]
pub(super) struct TurnGuard<'a>(&'a Turn);

impl Turn {
    pub(super) fn begin(&self, wait: Duration) -> Option<TurnGuard<'_>> {
        let end = Instant::now() + wait;
        let mut taken = self.taken();
        while *taken {
            let left = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            taken = self.free.wait_timeout(taken, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        *taken = true;
        Some(TurnGuard(self))
    }

    fn taken(&self) -> MutexGuard<'_, bool> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for TurnGuard<'_> {
    fn drop(&mut self) {
        *self.0.taken() = false;
        self.0.free.notify_one();
    }
}
