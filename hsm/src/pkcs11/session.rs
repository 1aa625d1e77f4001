//! A session: the login with its guard, and signing.

use std::{collections::BTreeMap, sync::Arc};

use cryptoki::{error::Error as CryptokiError, session::UserType, slot::TokenInfo, types::RawAuthPin};
use cryptoki_sys::{
    CK_RV, CKR_FUNCTION_NOT_SUPPORTED, CKR_RANDOM_NO_RNG, CKR_USER_ALREADY_LOGGED_IN, CKR_USER_PIN_NOT_INITIALIZED,
};

use super::{
    ckr,
    fast::Failure,
    generation::{Generation, KeyTable, is_user, logged_out},
    keys::{self, FoundKey},
    mechanism::{self, Data},
    module::OpenSession,
    token::Shared,
};
use crate::{Algorithm, Error, Fault, Input, KeyId, KeyReport, Kind, Result, Retry, Rung, Session, Signature, Verdict};

pub(super) struct Pkcs11Session {
    shared: Arc<Shared>,
    generation: Arc<Generation>,
    session: OpenSession,
    /// This session's own copy of the handles, so that signing takes no lock, and the version it was made of.
    keys: BTreeMap<KeyId, (Arc<str>, Arc<FoundKey>)>,
    version: u64,
    /// It has done something: what it is lost by later is its age, or an accident.
    worked: bool,
}

impl Pkcs11Session {
    pub(super) fn new(shared: Arc<Shared>, generation: Arc<Generation>, session: OpenSession) -> Pkcs11Session {
        Pkcs11Session { shared, generation, session, keys: BTreeMap::new(), version: 0, worked: false }
    }

    /// That the generation is over concerns all sessions, and whoever hears it first may not have heard why: the call
    /// whose error ended it may be one that nobody waits for any more.
    fn check_alive(&self) -> Result<()> {
        if self.generation.is_given_up(&self.shared.module) {
            let verdict = Verdict { rung: Rung::Token, ..Kind::Session.verdict() };
            let detail = "its generation was given up: handles may be stale";
            return Err(Error::new(Kind::Session, verdict, "session", detail));
        }
        if self.session.is_void() {
            return Err(Error::of(Kind::Session, "session", "the token has ended it, and given its number to another"));
        }
        Ok(())
    }

    /// Runs a step, and gives the generation up if that is what its error says.
    fn step<T>(&mut self, step: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.check_alive()?;
        step(self)
            .map_err(|error| match error.kind() {
                Kind::Session if !self.worked => self.shared.stillborn(error),
                _ => error,
            })
            .inspect_err(|error| self.shared.judge(&self.generation, error))
    }

    /// A step that shows, when it succeeds, that the session works. (A login may be answered from memory.)
    fn work<T>(&mut self, step: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let done = self.step(step)?;
        self.worked = true;
        self.shared.works();
        Ok(done)
    }

    fn key(&mut self, id: KeyId) -> Result<&(Arc<str>, Arc<FoundKey>)> {
        let version = self.shared.version();
        if version != self.version {
            self.copy_keys();
            self.version = version;
        }
        self.keys.get(&id).ok_or_else(|| {
            let Some(table) = self.generation.keys() else { return not_logged_in() };
            match table.get(&id) {
                Some((_, Err(error))) => error.clone(),
                _ => Error::of(Kind::KeyMissing, "key", "not looked up on this token"),
            }
        })
    }

    fn copy_keys(&mut self) {
        let specs = self.shared.specs();
        let table = self.generation.keys();
        let found = table.iter().flat_map(|table| table.iter()).filter_map(|(id, (locator, result))| {
            let current = specs.get(id) == Some(locator);
            result.as_ref().ok().filter(|_| current).map(|key| (*id, (locator.clone(), key.clone())))
        });
        self.keys = found.collect();
    }

    fn log_in(&self) -> Result<()> {
        let context = self.shared.module.context();
        let token_info =
            || context.get_token_info(self.generation.slot).map_err(|e| ckr::from_cryptoki("C_GetTokenInfo", e));
        let info = token_info()?;
        if !info.login_required() {
            return Ok(());
        }
        let state = self.session.get_session_info().map_err(|error| ckr::from_cryptoki("C_GetSessionInfo", error))?;
        if is_user(state.session_state()) {
            self.generation.set_logged_in();
            return Ok(());
        }
        if self.generation.is_logged_in() {
            return Err(logged_out());
        }
        if info.user_pin_locked() || info.user_pin_final_try() {
            let why = if info.user_pin_locked() { "is locked" } else { "has one try left, which is not ours to take" };
            return Err(Error::of(Kind::PinLocked, "login", format!("the PIN of {} {why}", self.generation.identity)));
        }
        if !info.user_pin_initialized() {
            return Err(ckr::beside_sign("login", CKR_USER_PIN_NOT_INITIALIZED));
        }
        self.try_pin(&info, token_info)?;
        self.generation.set_logged_in();
        Ok(())
    }

    fn try_pin(&self, info: &TokenInfo, token_info: impl Fn() -> Result<TokenInfo>) -> Result<()> {
        let pin = self.shared.pin.read()?;
        if pin.is_none() && !info.protected_authentication_path() {
            return Err(Error::of(Kind::PinUnavailable, "login", "the token wants a PIN and none is configured"));
        }
        let guard = self.shared.guard(&self.generation)?;
        self.shared.note_passed(&guard)?;
        let attempt = guard.begin(pin.as_ref().map_or(&[], |pin| pin.as_bytes()))?;
        let answer = match &pin {
            // Wiped when dropped, as `pin` is.
            Some(pin) => {
                self.session.login_with_raw(UserType::User, &RawAuthPin::new(Box::new(pin.as_bytes().to_vec())))
            }
            None => self.session.login(UserType::User, None),
        };
        let error = match answer {
            Ok(()) => None,
            Err(CryptokiError::Pkcs11(rv, _)) if ckr::code_of(rv) == CKR_USER_ALREADY_LOGGED_IN => None,
            Err(error) => Some(error),
        };
        let Some(error) = error else {
            self.shared.passed(attempt);
            return Ok(());
        };
        let not_looked_at = matches!(error, CryptokiError::Pkcs11(rv, _) if ckr::pin_not_looked_at(ckr::code_of(rv)));
        let error = ckr::from_cryptoki("C_Login", error);
        // Not every token calls a wrong PIN by its name; but then its counter tells.
        let refused = matches!(error.kind(), Kind::PinIncorrect | Kind::PinLocked)
            || token_info().is_ok_and(|now| {
                now.user_pin_locked()
                    || now.user_pin_final_try()
                    || now.user_pin_count_low() && !info.user_pin_count_low()
            });
        let noted = match (refused, not_looked_at) {
            (true, _) => attempt.refused(),
            (false, true) => attempt.passed(),
            // It may have been a try that the token counted: the mark stays, and a second such end is the last.
            (false, false) => Ok(()),
        };
        match noted {
            Ok(()) => Err(error),
            // The mark of the attempt is still there, so at most one more follows.
            Err(noting) => {
                let detail = format!("{error}; and {noting}");
                Err(Error::new(error.kind(), error.verdict(), "C_Login", detail).with_code(error.code()))
            }
        }
    }

    /// Looks up what this generation has not looked up yet, or did not find: it may have been put there since.
    fn look_up_keys(&mut self) -> Result<Vec<KeyReport>> {
        let mut specs: Vec<_> = self.shared.specs().into_iter().collect();
        let known = self.generation.keys().unwrap_or_default();
        let mut table = KeyTable::new();
        // Those that have made a look-up fail come last, so that it shows whether it was them or the session.
        specs.sort_by_key(|(id, _)| self.shared.is_suspect(*id));
        for (id, locator) in specs {
            let before = known.get(&id).filter(|(by, result)| *by == locator && result.is_ok());
            let result = match before {
                Some((_, result)) => result.clone(),
                None => match self.look_up(id, &locator) {
                    // Twice the same key, while others are found: it is the key, and the others are worth a login.
                    Err(error) if error.verdict().rung != Rung::None => {
                        let others = table.values().any(|(_, result)| result.is_ok());
                        if !(self.shared.suspect(id) && others) {
                            return Err(error);
                        }
                        Err(Error::of(Kind::KeyUnusable, "key", format!("{locator}: every look-up fails: {error}")))
                    }
                    result => {
                        self.shared.clear(id);
                        result
                    }
                },
            };
            table.insert(id, (locator, result));
        }
        let reports = table.iter().map(|(id, (_, result))| {
            let result = result.as_ref().map(|key| key.info.clone()).map_err(Error::clone);
            KeyReport { id: *id, result }
        });
        let reports = reports.collect();
        self.generation.set_keys(table);
        self.shared.outdate();
        Ok(reports)
    }

    fn look_up(&self, id: KeyId, locator: &str) -> Result<Arc<FoundKey>> {
        let key = keys::look_up(&self.session, &self.generation, locator)?;
        self.shared.check_unchanged(id, locator, &key)?;
        Ok(key)
    }

    fn sign_once(&mut self, id: KeyId, algorithm: Algorithm, input: &Input, out: &mut Signature) -> Result<()> {
        let key = self.key(id)?.1.clone();
        let key_type = key.info.key_type;
        if !algorithm.fits(key_type) {
            let detail = format!("{algorithm} with a key of type {key_type}");
            return Err(Error::of(Kind::AlgorithmUnsupported, "sign", detail));
        }
        if !self.generation.mechanisms.support(algorithm) {
            // Another token may have it.
            let verdict =
                Verdict { fault: Fault::Operator, retry: Retry::Elsewhere, ..Kind::AlgorithmUnsupported.verdict() };
            let detail = format!("{} has no mechanism for {algorithm}", self.generation.identity);
            return Err(Error::new(Kind::AlgorithmUnsupported, verdict, "sign", detail));
        }
        let mut data = Data::new(algorithm, input)?;
        let mechanism = mechanism::mechanism(algorithm);
        let fast = self.shared.module.fast();
        fast.sign(&self.session, mechanism, key.handle, data.as_mut_slice(), out).map_err(|failure| match failure {
            Failure::SignInit(rv) => ckr::beside_sign("C_SignInit", rv),
            Failure::Sign(rv) => ckr::in_sign(rv),
            Failure::Overrun(len) => nonsense(len, key_type.signature_len()),
        })?;
        if out.len() != key_type.signature_len() {
            let len = out.len();
            out.clear();
            return Err(nonsense(len, key_type.signature_len()));
        }
        Ok(())
    }
}

impl Session for Pkcs11Session {
    fn login(&mut self) -> Result<Vec<KeyReport>> {
        let shared = self.shared.clone();
        let _one = shared.logging_in()?;
        self.step(|session| {
            session.log_in()?;
            session.look_up_keys()
        })
    }

    fn sign(&mut self, key: KeyId, algorithm: Algorithm, input: &Input, out: &mut Signature) -> Result<()> {
        out.clear();
        self.work(|session| session.sign_once(key, algorithm, input, out))
    }

    fn presence(&mut self, key: KeyId) -> Result<()> {
        self.work(|session| {
            let (locator, key) = session.key(key)?.clone();
            keys::presence(&session.session, &session.generation, &locator, &key)
        })
    }

    /// C_GetSessionInfo says whether session and login are there, but many modules answer it from their own memory, and
    /// then the device counts the session as idle all the same. What comes from the device itself, and cheaply, is a
    /// few random bytes: no key is used, no object looked up (those are remembered too), and nothing changes.
    fn keep_alive(&mut self) -> Result<()> {
        self.work(|session| {
            let info = session.session.get_session_info().map_err(|e| ckr::from_cryptoki("C_GetSessionInfo", e))?;
            if session.generation.is_logged_in() && !is_user(info.session_state()) {
                return Err(logged_out());
            }
            match session.session.generate_random_slice(&mut [0; 8]) {
                // A token without a generator has nothing cheaper to say.
                Err(CryptokiError::Pkcs11(rv, _)) if NO_RANDOM.contains(&ckr::code_of(rv)) => Ok(()),
                other => other.map_err(|error| ckr::from_cryptoki("C_GenerateRandom", error)),
            }
        })
    }

    fn distrust(&mut self) {
        self.generation.give_up();
    }

    fn close(self: Box<Self>) -> Result<()> {
        let Pkcs11Session { shared, generation, session, .. } = *self;
        shared.close_session(generation, session)
    }
}

/// What a token says that makes no random numbers.
const NO_RANDOM: [CK_RV; 2] = [CKR_FUNCTION_NOT_SUPPORTED, CKR_RANDOM_NO_RNG];

/// The session is of a generation in which nobody has logged in: the one before ended, and whoever asks has not heard.
fn not_logged_in() -> Error {
    let verdict = Verdict { rung: Rung::Login, ..Kind::NotLoggedIn.verdict() };
    Error::new(Kind::NotLoggedIn, verdict, "key", "nothing was looked up in this generation yet")
}

fn nonsense(len: impl std::fmt::Display, expected: usize) -> Error {
    Error::of(Kind::Nonsense, "C_Sign", format!("a signature of {len} bytes where {expected} are right"))
}
