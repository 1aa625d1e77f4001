//! Sessions: opened, closed, ended by the token, and who holds which number; and the login, which ends with the last.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    thread::ThreadId,
    time::Instant,
};

use cryptoki_sys::*;

use crate::{
    Call,
    keys::Mechanism,
    module::{Module, State, Whom, caller},
    token::Death,
};

/// All sessions of a module: their numbers are the module's.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    open: BTreeMap<CK_SESSION_HANDLE, Session>,
    last_handle: CK_SESSION_HANDLE,
    last_serial: u64,
    /// How often the module was initialised
    epoch: u64,
    /// Numbers of sessions that the token ended, or C_Finalize
    ended: HashMap<CK_SESSION_HANDLE, Ended>,
    /// Sessions that another thread than their owner has closed: on its behalf, unless it wants them again
    taken: HashSet<(CK_SESSION_HANDLE, ThreadId)>,
    /// Token and key that a thread has begun a signature with: its C_Sign is that key's also when the session has gone
    /// from under it meanwhile
    pub(crate) begun: HashMap<ThreadId, (usize, usize)>,
}

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) token: usize,
    /// No other session's, ever: handle numbers come again
    pub(crate) serial: u64,
    /// The thread that opened it
    owner: ThreadId,
    used: Instant,
    pub(crate) signing: bool,
    pub(crate) operation: Option<(usize, Mechanism)>,
    pub(crate) search: Option<VecDeque<CK_OBJECT_HANDLE>>,
}

#[derive(Debug)]
struct Ended {
    token: usize,
    epoch: u64,
    /// Whoever opened one of that number and has not closed it
    owners: HashSet<ThreadId>,
}

impl Sessions {
    /// C_Initialize: numbers begin at 1.
    pub(crate) fn restart(&mut self) {
        self.epoch += 1;
        self.restart_numbers();
    }

    pub(crate) fn restart_numbers(&mut self) {
        self.last_handle = 0;
    }

    /// The token of a session, open or ended.
    pub(crate) fn token_of(&self, handle: CK_SESSION_HANDLE) -> Option<usize> {
        let open = self.open.get(&handle).map(|session| session.token);
        open.or_else(|| self.ended.get(&handle).map(|ended| ended.token))
    }

    /// How many a token has open.
    pub(crate) fn of(&self, token: usize) -> u64 {
        self.open.values().filter(|session| session.token == token).count() as u64
    }

    /// Whether this very session is still open.
    pub(crate) fn same(&mut self, handle: CK_SESSION_HANDLE, serial: u64) -> Option<&mut Session> {
        self.open.get_mut(&handle).filter(|session| session.serial == serial)
    }

    fn open(&mut self, token: usize) -> CK_SESSION_HANDLE {
        let owner = caller();
        // Whoever opens a session has done with those it lost.
        for ended in self.ended.values_mut() {
            ended.owners.remove(&owner);
        }
        self.taken.retain(|(_, whose)| *whose != owner);
        self.last_handle += 1;
        while self.open.contains_key(&self.last_handle) {
            self.last_handle += 1;
        }
        self.last_serial += 1;
        let (serial, used) = (self.last_serial, Instant::now());
        let session = Session { token, serial, owner, used, signing: false, operation: None, search: None };
        self.open.insert(self.last_handle, session);
        self.last_handle
    }

    /// Ends a session without its caller's doing.
    fn end(&mut self, handle: CK_SESSION_HANDLE) {
        let Some(session) = self.open.remove(&handle) else { return };
        let ended = Ended { token: session.token, epoch: self.epoch, owners: HashSet::new() };
        let ended = self.ended.entry(handle).and_modify(|old| old.epoch = self.epoch).or_insert(ended);
        ended.token = session.token;
        ended.owners.insert(session.owner);
    }

    fn which(&self, which: impl Fn(&Session) -> bool) -> Vec<CK_SESSION_HANDLE> {
        self.open.iter().filter(|(_, session)| which(session)).map(|(handle, _)| *handle).collect()
    }
}

impl State {
    /// The session that a call names. Whatever is wrong with that is counted.
    pub(crate) fn session(&mut self, handle: CK_SESSION_HANDLE, closing: bool) -> Result<&mut Session, CK_RV> {
        self.end_idle_sessions();
        let (me, epoch) = (caller(), self.sessions.epoch);
        let Some((token, owner)) = self.sessions.open.get(&handle).map(|session| (session.token, session.owner)) else {
            if self.sessions.taken.remove(&(handle, me)) {
                self.counts.violations.strangers_closed += 1;
            }
            if let Some(ended) = self.sessions.ended.get_mut(&handle) {
                if closing {
                    ended.owners.remove(&me);
                }
                let (token, before) = (ended.token, ended.epoch);
                match before < epoch {
                    true => self.counts.violations.finalised_handles += 1,
                    false => self.count_of(token).dead_handles += 1,
                }
            }
            return Err(CKR_SESSION_HANDLE_INVALID);
        };
        let mine_once = |ended: &Ended| ended.owners.contains(&me);
        if owner != me && !closing && self.sessions.ended.get(&handle).is_some_and(mine_once) {
            self.counts.violations.strangers_used += 1;
        }
        if let Some(death) = &mut self.tokens[token].dead {
            let told = std::mem::replace(&mut death.told, true);
            self.end_sessions(token);
            return Err(if told { CKR_SESSION_HANDLE_INVALID } else { CKR_DEVICE_ERROR });
        }
        let session = self.sessions.open.get_mut(&handle).expect("looked up above");
        session.used = Instant::now();
        if session.signing && !closing {
            self.counts.violations.shared_sessions += 1;
        }
        Ok(session)
    }

    /// Ends all sessions of a token, and with them the login.
    pub(crate) fn end_sessions(&mut self, token: usize) {
        for handle in self.sessions.which(|session| session.token == token) {
            self.sessions.end(handle);
        }
        self.tokens[token].log_out();
    }

    /// The token's own doing, shown whenever somebody looks.
    pub(crate) fn end_idle_sessions(&mut self) {
        for place in 0..self.tokens.len() {
            let Some(limit) = self.tokens[place].idle_limit else { continue };
            let idle =
                |session: &Session| session.token == place && !session.signing && session.used.elapsed() >= limit;
            for handle in self.sessions.which(idle) {
                self.sessions.end(handle);
            }
            self.after_the_last(place);
        }
    }

    /// The login ends with the last session (PKCS#11 3.1 §5.6.2).
    fn after_the_last(&mut self, token: usize) {
        if self.sessions.of(token) == 0 && self.tokens[token].login.logged_in {
            self.tokens[token].log_out();
        }
    }

    fn open_session(&mut self, slot: CK_SLOT_ID, flags: CK_FLAGS) -> Result<CK_SESSION_HANDLE, CK_RV> {
        if flags & CKF_SERIAL_SESSION == 0 {
            return Err(CKR_SESSION_PARALLEL_NOT_SUPPORTED);
        }
        self.end_idle_sessions();
        let place = self.token_present(slot)?;
        let dead = self.tokens[place].dead;
        if dead.is_some_and(|dead| !dead.opens) {
            return Err(CKR_DEVICE_ERROR);
        }
        let open = self.sessions.of(place);
        if self.tokens[place].sessions_max.is_some_and(|max| open >= max) {
            return Err(CKR_SESSION_COUNT);
        }
        let handle = self.sessions.open(place);
        if matches!(dead, Some(Death { told: true, .. })) {
            self.sessions.end(handle);
        }
        let count = self.count_of(place);
        count.sessions_most = count.sessions_most.max(open + 1);
        Ok(handle)
    }

    fn close_session(&mut self, handle: CK_SESSION_HANDLE) -> Result<(), CK_RV> {
        let session = self.session(handle, true)?;
        let (token, owner) = (session.token, session.owner);
        self.sessions.open.remove(&handle);
        if owner != caller() {
            self.sessions.taken.insert((handle, owner));
        }
        self.after_the_last(token);
        Ok(())
    }

    fn log_in(&mut self, handle: CK_SESSION_HANDLE, user: CK_USER_TYPE, pin: &[u8]) -> Result<(), CK_RV> {
        let token = self.session(handle, false)?.token;
        if user != CKU_USER {
            return Err(CKR_USER_TYPE_INVALID);
        }
        let login = &mut self.tokens[token].login;
        if login.logged_in {
            return Err(CKR_USER_ALREADY_LOGGED_IN);
        }
        let refused_before = login.was_refused(pin);
        let done = login.attempt(pin);
        self.counts.violations.refused_pins += u64::from(refused_before);
        let count = self.count_of(token);
        count.logins += 1;
        count.logins_refused += u64::from(done.is_err());
        done
    }
}

/// What C_GetSessionInfo tells.
pub(crate) struct SessionInfo {
    pub(crate) slot: CK_SLOT_ID,
    pub(crate) logged_in: bool,
}

impl Module {
    pub(crate) fn open_session(&self, slot: CK_SLOT_ID, flags: CK_FLAGS) -> Result<CK_SESSION_HANDLE, CK_RV> {
        self.call(Call::OpenSession, Whom::Slot(slot), |state| state.open_session(slot, flags))
    }

    pub(crate) fn close_session(&self, handle: CK_SESSION_HANDLE) -> Result<(), CK_RV> {
        self.call(Call::CloseSession, Whom::Session(handle), |state| state.close_session(handle))
    }

    pub(crate) fn close_all_sessions(&self, slot: CK_SLOT_ID) -> Result<(), CK_RV> {
        self.call(Call::CloseAllSessions, Whom::Slot(slot), |state| {
            let token = state.token_present(slot)?;
            state.end_sessions(token);
            Ok(())
        })
    }

    pub(crate) fn session_info(&self, handle: CK_SESSION_HANDLE) -> Result<SessionInfo, CK_RV> {
        self.call(Call::GetSessionInfo, Whom::Session(handle), |state| {
            let token = state.session(handle, false)?.token;
            let token = &state.tokens[token];
            Ok(SessionInfo { slot: token.slot, logged_in: token.login.logged_in })
        })
    }

    pub(crate) fn log_in(&self, handle: CK_SESSION_HANDLE, user: CK_USER_TYPE, pin: &[u8]) -> Result<(), CK_RV> {
        self.call(Call::Login, Whom::Session(handle), |state| state.log_in(handle, user, pin))
    }

    pub(crate) fn log_out(&self, handle: CK_SESSION_HANDLE) -> Result<(), CK_RV> {
        self.call(Call::Logout, Whom::Session(handle), |state| {
            let token = state.session(handle, false)?.token;
            if !state.tokens[token].login.logged_in {
                return Err(CKR_USER_NOT_LOGGED_IN);
            }
            state.tokens[token].log_out();
            Ok(())
        })
    }
}
