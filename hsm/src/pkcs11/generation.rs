//! A generation: what was found together and is given up together. The slot, what the token can do, the sessions
//! opened on it and the key handles.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use cryptoki::{
    session::SessionState,
    slot::{Limit, Slot, TokenInfo},
};

use super::{
    Uri, ckr,
    keys::FoundKey,
    mechanism::Mechanisms,
    module::{Module, OpenSession, Role},
};
use crate::{Error, Fault, KeyId, Kind, Result, Verdict};

#[derive(Debug)]
pub(super) struct Generation {
    pub(super) slot: Slot,
    pub(super) identity: Identity,
    pub(super) mechanisms: Mechanisms,
    /// Among all of the module.
    number: u64,
    /// The module's world that the handles are of.
    world: u64,
    /// Its handles are not to be trusted any more.
    given_up: AtomicBool,
    /// C_Login was done, or found done, in this generation. Written by the one that holds the login's lock.
    logged_in: AtomicBool,
    /// None before the first look-up; replaced as a whole.
    keys: Mutex<Option<Arc<KeyTable>>>,
    /// A session that does nothing: when a token's last session is closed the login ends, and with it every handle
    /// of a private object, so this one stays while the others come and go.
    anchor: Mutex<Option<OpenSession>>,
    /// Sessions that are open, the anchor not counted. Changes under the module's `opening`.
    sessions: AtomicU32,
}

/// What was looked up, each under the locator it was looked up by.
pub(super) type KeyTable = BTreeMap<KeyId, (Arc<str>, Result<Arc<FoundKey>>)>;

/// What tells the token from every other, as far as C_GetTokenInfo goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) label: String,
    pub(super) serial: String,
    pub(super) manufacturer: String,
    pub(super) model: String,
}

impl Generation {
    /// Finds the token.
    pub(super) fn begin(module: &Module, token: &Uri) -> Result<Generation> {
        let world = module.world();
        let (slot, info) = find(module, token)?;
        let list = module.context().get_mechanism_list(slot);
        let mechanisms = Mechanisms::new(&list.map_err(|error| ckr::from_cryptoki("C_GetMechanismList", error))?);
        // Where there is one session in all it is better used.
        let room = !matches!(info.max_session_count(), Limit::Max(..=1));
        let number = module.count_generation();
        let anchor = if room { Some(module.open_session(slot, Role::Anchor, number)?) } else { None };
        Ok(Generation {
            slot,
            identity: Identity::new(&info),
            mechanisms,
            number,
            world,
            given_up: AtomicBool::new(false),
            logged_in: AtomicBool::new(false),
            keys: Mutex::default(),
            anchor: Mutex::new(anchor),
            sessions: AtomicU32::new(0),
        })
    }

    /// Whether its handles are worth nothing: an error has said so, or the module was initialised anew.
    pub(super) fn is_given_up(&self, module: &Module) -> bool {
        self.given_up.load(Ordering::Acquire) || self.world != module.world()
    }

    pub(super) fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
    }

    pub(super) fn is_logged_in(&self) -> bool {
        self.logged_in.load(Ordering::Acquire)
    }

    pub(super) fn set_logged_in(&self) {
        self.logged_in.store(true, Ordering::Release);
    }

    /// What was looked up; none if nothing was yet.
    pub(super) fn keys(&self) -> Option<Arc<KeyTable>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_keys(&self, table: KeyTable) {
        *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(table));
    }

    /// Opens a session. The module's `opening` is held, as for the next ones.
    ///
    /// # Errors
    /// Beside those of C_OpenSession, when the session shows that the login of this generation has gone, or that the token
    /// began anew (its number is that of another of our sessions, which the token has so ended, and the login with it).
    /// The handles of the keys may name others then: the generation is given up before anybody tries to use them.
    pub(super) fn open_session(&self, module: &Module) -> Result<OpenSession> {
        let mut opened = module.open_session(self.slot, Role::Signs, self.number);
        // The anchor may have had the last session that others left us: it is better used.
        if self.sessions() == 0 && opened.as_ref().is_err_and(|error| error.kind() == Kind::SessionCount) {
            self.end(module);
            opened = module.open_session(self.slot, Role::Signs, self.number);
        }
        let opened = opened?;
        if let Err(error) = self.check_login(&opened) {
            // Nothing follows from what comes of this.
            let _ = module.close_session(opened);
            return Err(error);
        }
        self.sessions.fetch_add(1, Ordering::Relaxed);
        Ok(opened)
    }

    fn check_login(&self, opened: &OpenSession) -> Result<()> {
        let again = opened.comes_again();
        if self.is_logged_in() || again {
            let holds = match opened.get_session_info() {
                Ok(info) => self.is_logged_in() && is_user(info.session_state()),
                // What is wrong with a session that was not there before, it says itself when it is used.
                Err(_) => !again,
            };
            if !holds {
                self.give_up();
                return Err(logged_out());
            }
        }
        Ok(())
    }

    /// Closes a session that was opened here. The last one ends the login where no anchor holds it, and with it the
    /// generation.
    pub(super) fn close_session(&self, module: &Module, session: OpenSession) -> Result<()> {
        let last = self.sessions.fetch_sub(1, Ordering::Relaxed) == 1;
        if last && self.anchor().is_none() {
            self.give_up();
        }
        module.close_session(session)
    }

    /// Whether the login that was done in it may still be there, asked of the anchor: nobody reminds the device of that,
    /// and one that closes what stands idle has logged us out with it if no other session was open.
    pub(super) fn has_lost_its_login(&self) -> bool {
        let anchor = self.anchor();
        let lost = |anchor: &OpenSession| !anchor.get_session_info().is_ok_and(|info| is_user(info.session_state()));
        self.is_logged_in() && anchor.as_ref().is_some_and(lost)
    }

    /// Sessions that are open, the anchor not counted.
    pub(super) fn sessions(&self) -> u32 {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Closes the anchor. Before another generation's first session is opened, so that its number names nobody else.
    pub(super) fn end(&self, module: &Module) {
        let anchor = self.anchor().take();
        if let Some(anchor) = anchor {
            // It was given up because calls fail; nothing follows from this one.
            let _ = module.close_session(anchor);
        }
    }

    fn anchor(&self) -> MutexGuard<'_, Option<OpenSession>> {
        self.anchor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was looked up under the login that is over is void.
pub(super) fn logged_out() -> Error {
    Error::of(Kind::NotLoggedIn, "login", "the token has logged us out")
}

/// Whether somebody is logged in as the user, by what a session says.
pub(super) fn is_user(state: SessionState) -> bool {
    matches!(state, SessionState::RoUser | SessionState::RwUser)
}

impl Identity {
    fn new(info: &TokenInfo) -> Identity {
        Identity {
            label: info.label().to_owned(),
            serial: info.serial_number().to_owned(),
            manufacturer: info.manufacturer_id().to_owned(),
            model: info.model().to_owned(),
        }
    }

    /// Whether the attributes that speak of tokens agree; the slot's number is the caller's to compare.
    pub(super) fn matches(&self, uri: &Uri) -> bool {
        let agrees = |wanted: &Option<String>, have: &str| wanted.as_deref().is_none_or(|wanted| wanted == have);
        agrees(&uri.token, &self.label)
            && agrees(&uri.serial, &self.serial)
            && agrees(&uri.manufacturer, &self.manufacturer)
            && agrees(&uri.model, &self.model)
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Identity { label, serial, manufacturer, model } = self;
        write!(f, "token {label:?}, serial {serial:?}, model {model:?} by {manufacturer:?}")
    }
}

/// The one token that matches, only looked at.
pub(super) fn look(module: &Module, uri: &Uri) -> Result<(Identity, TokenInfo)> {
    find(module, uri).map(|(_, info)| (Identity::new(&info), info))
}

/// The one slot whose token matches. Slots that can not be asked are passed over: they may belong to another device
/// that is away.
fn find(module: &Module, uri: &Uri) -> Result<(Slot, TokenInfo)> {
    let context = module.context();
    let slots = context.get_slots_with_token().map_err(|error| ckr::from_cryptoki("C_GetSlotList", error))?;
    let mut trouble = None;
    let mut found: Vec<(Slot, TokenInfo)> = Vec::new();
    for slot in slots {
        if uri.slot_id.is_some_and(|wanted| wanted != slot.id()) {
            continue;
        }
        match context.get_token_info(slot) {
            Ok(info) if info.token_initialized() && Identity::new(&info).matches(uri) => found.push((slot, info)),
            Ok(_) => {}
            Err(error) => trouble = Some(ckr::from_cryptoki("C_GetTokenInfo", error)),
        }
    }
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(trouble.unwrap_or_else(|| Error::of(Kind::TokenAbsent, "token", format!("no slot holds {uri}")))),
        count => {
            let serials: Vec<_> = found.iter().map(|(_, info)| format!("{:?}", info.serial_number())).collect();
            let serials = serials.join(", ");
            let detail = format!("{count} tokens match {uri}, with the serial numbers {serials}: name one");
            let verdict = Verdict { fault: Fault::Operator, ..Kind::TokenAbsent.verdict() };
            Err(Error::new(Kind::TokenAbsent, verdict, "token", detail))
        }
    }
}
