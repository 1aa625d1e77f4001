//! A PKCS#11 module: loaded and initialised once per process, whoever asks.

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
use crate::{Error, Kind, ModuleId, Result};

/// A PKCS#11 module, initialised.
#[derive(Debug)]
pub struct Module {
    id: ModuleId,
    path: PathBuf,
    context: Pkcs11,
    fast: FastPath,
    sessions: Mutex<Sessions>,
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

/// Every module this process has initialised. C_Initialize is process-wide and cryptoki does not guard against a
/// second one, so the modules stay here for good; the lock is held through C_Initialize for the same reason.
static LOADED: Mutex<BTreeMap<PathBuf, Arc<Module>>> = Mutex::new(BTreeMap::new());

impl Module {
    /// Loads the library at `path` (absolute: a bare name would be searched for) and initialises it with locking by
    /// the operating system. Loading it again gives what was loaded first; under another id that is an error, since
    /// what is done to the module is done to all its tokens.
    ///
    /// Blocks as long as C_Initialize does.
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
        context
            .initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))
            .map_err(|error| ckr::from_cryptoki("C_Initialize", error))?;
        let fast = FastPath::load(&path).map_err(refuse)?;
        let module = Arc::new(Module { id, path: path.clone(), context, fast, sessions: Mutex::default() });
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
