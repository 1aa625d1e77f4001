//! A PKCS#11 module: loaded once per process, whoever asks, and initialised once, by the first who uses it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    session::Session,
    slot::Slot,
};
use cryptoki_sys::CK_SESSION_HANDLE;

use super::{ckr, fast::FastPath};
use crate::{Error, Kind, ModuleId, Result, Retry, Rung, Signed, Verdict};

/// A PKCS#11 module, loaded.
#[derive(Debug)]
pub struct Module {
    id: ModuleId,
    path: PathBuf,
    context: Pkcs11,
    fast: FastPath,
    initialised: Mutex<Initialised>,
    opening: Mutex<()>,
    sessions: Mutex<Sessions>,
}

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
    holders: BTreeMap<CK_SESSION_HANDLE, u64>,
}

/// A session that is open at the token until [`Module::close_session`]; dropping it does not close it.
#[derive(Debug)]
pub(super) struct OpenSession {
    session: Session,
    holder: u64,
}

impl std::ops::Deref for OpenSession {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
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
            opening: Mutex::default(),
            sessions: Mutex::default(),
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
            Initialised::Yes => return Ok(()),
            Initialised::InVain(error) => return Err(error.clone()),
            Initialised::NotYet => {}
        }
        self.context
            .initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
            .map_err(|error| self.not_initialised(ckr::from_cryptoki("C_Initialize", error)))?;
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
        Error::new(Kind::Module, verdict, "module", format!("{}: {error}", self.path.display()))
    }

    /// Held through C_OpenSession and C_CloseSession of all the module's tokens, and while a new generation is begun:
    /// it is what makes them one after the other. Handle numbers are the module's, so a late close could hit a
    /// session of another token. Signing never waits for it.
    pub(super) fn opening(&self) -> MutexGuard<'_, ()> {
        self.opening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn context(&self) -> &Pkcs11 {
        &self.context
    }

    /// C_OpenSession, read-only: nothing is written to a token.
    pub(super) fn open_session(&self, slot: Slot) -> Result<OpenSession> {
        let session = self.context.open_ro_session_no_drop(slot);
        let session = session.map_err(|error| ckr::from_cryptoki("C_OpenSession", error))?;
        let mut sessions = self.sessions();
        sessions.opened += 1;
        let holder = sessions.opened;
        sessions.holders.insert(session.handle(), holder);
        Ok(OpenSession { session, holder })
    }

    /// C_CloseSession, unless the handle's number has another holder by now.
    pub(super) fn close_session(&self, open: OpenSession) -> Result<()> {
        let handle = open.session.handle();
        if self.sessions().holders.get(&handle) != Some(&open.holder) {
            return Ok(());
        }
        let closed = open.session.close();
        let mut sessions = self.sessions();
        if sessions.holders.get(&handle) == Some(&open.holder) {
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
