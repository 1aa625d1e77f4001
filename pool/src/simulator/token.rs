//! Models of modules and tokens: what is true behind PKCS#11, and what `segl-hsm` makes of it.
//!
//! A call is judged when it returns, by what is true then. Handles carry the initialisation, the incarnation and the
//! number they were given under: numbers restart at 1 and soon name a stranger, so the model goes by all three.

use std::collections::BTreeMap;

use segl_hsm::{Error, Kind, Rung, Verdict};

use super::{
    draw::Draw,
    faults::Answer,
    script::{CallKind, TokenPlan, Trouble},
};

/// What tokens share that stand behind one C_Initialize.
#[derive(Clone, Debug, Default)]
pub(super) struct Module {
    /// Counts initialisations
    pub(super) epoch: u32,
    /// Nothing but C_Finalize and C_Initialize helps: with how it says so
    pub(super) broken: Option<Answer>,
    /// Calls inside it
    pub(super) inside: u32,
}

/// One token.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) plan: TokenPlan,
    draw: Draw,
    /// What was looked up before is void: counts how often that happened
    incarnation: u32,
    logged_in: bool,
    next_number: u32,
    /// Sessions that are open there by their number: whose it is, and when it was last used
    open: BTreeMap<u32, (u64, u64)>,
    next_holder: u64,
    /// `segl-hsm`'s generation, and whether it was given up
    generation: u32,
    given_up: bool,
    /// Keys were looked up in this generation
    looked_up: bool,

    pub(super) absent: bool,
    pub(super) pin_wrong: bool,
    pub(super) session_cap: u32,
    pub(super) slowness: u64,
    pub(super) failing_percent: u64,
    pub(super) failing: Failing,
    pub(super) wrong_percent: u64,
    /// The next call of this kind hangs: for so long, or for ever
    pub(super) hangs: Vec<(CallKind, Option<u64>)>,
    /// Signatures made
    pub(super) made: u64,
}

/// Which calls fail, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failing {
    /// Signing, with an answer of a list
    Sign,
    /// All but signing
    Beside,
    /// Every call
    All,
    /// Every call with a verdict as drawn
    Wild,
}

/// A session as the thread holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Handle {
    pub(super) epoch: u32,
    incarnation: u32,
    number: u32,
    /// Numbers are given again, this is not
    holder: u64,
    generation: u32,
}

/// How a signing call went.
#[derive(Clone, Debug)]
pub(super) struct Signing {
    pub(super) result: Result<(), Error>,
    /// A signature was made, whoever hears of it
    pub(super) made: bool,
}

impl Token {
    pub(super) fn new(plan: TokenPlan, draw: Draw) -> Self {
        Token {
            session_cap: plan.session_cap,
            plan,
            draw,
            incarnation: 0,
            logged_in: false,
            next_number: 1,
            open: BTreeMap::new(),
            next_holder: 0,
            generation: 0,
            given_up: true,
            looked_up: false,
            absent: false,
            pin_wrong: false,
            slowness: 1,
            failing_percent: 0,
            failing: Failing::Sign,
            wrong_percent: 0,
            hangs: Vec::new(),
            made: 0,
        }
    }

    /// How long a call takes; none when it never returns.
    pub(super) fn duration_ns(&mut self, kind: CallKind, key: u32) -> Option<u64> {
        if let Some(place) = self.hangs.iter().position(|&(hanging, _)| hanging == kind) {
            return self.hangs.remove(place).1;
        }
        let full_ns = match kind {
            CallKind::Sign => {
                let even_ns = self.plan.service_ns * if key == 2 { self.plan.slow_key } else { 1 };
                let tail = if self.draw.below(1000) < self.plan.tail_permille { 20 } else { 1 };
                if self.plan.even { even_ns } else { even_ns * self.draw.between(50, 150) / 100 * tail }
            }
            CallKind::Open | CallKind::Login => self.draw.between(100_000, 4_000_000),
            CallKind::Close | CallKind::KeepAlive => self.draw.between(10_000, 300_000),
            CallKind::Reinitialise => self.draw.between(1_000_000, 50_000_000),
        };
        // However slow, it is back before healing is over: what never returns is a hang.
        Some((full_ns * self.slowness).clamp(1, 4 * self.plan.stuck_after_ns))
    }

    /// C_OpenSession, in a new generation if the last was given up. One that finds the login gone ends the generation.
    pub(super) fn open(&mut self, module: &Module, now_ns: u64) -> Result<Handle, Error> {
        self.expire(now_ns);
        let opened = self.reached(module).and_then(|()| {
            if self.open.len() >= self.session_cap as usize {
                Err(Answer::SessionCount.beside_sign("C_OpenSession"))
            } else {
                self.stumble("C_OpenSession")
            }
        });
        opened?;
        if self.given_up {
            self.generation += 1;
            self.given_up = false;
            self.looked_up = false;
        }
        if self.looked_up && !self.logged_in {
            self.given_up = true;
            return Err(Answer::NotLoggedIn.beside_sign("C_GetSessionInfo"));
        }
        if self.open.is_empty() {
            self.next_number = 1;
        }
        let number = self.next_number;
        self.next_number += 1;
        let holder = self.next_holder;
        self.next_holder += 1;
        self.open.insert(number, (holder, now_ns));
        Ok(Handle { epoch: module.epoch, incarnation: self.incarnation, number, holder, generation: self.generation })
    }

    /// C_Login and the look-up of keys; the PIN was `wrong` when it was read. Says too whether a wrong one was tried.
    pub(super) fn log_in(
        &mut self,
        module: &Module,
        handle: Handle,
        wrong: bool,
        now_ns: u64,
    ) -> (Result<(), Error>, bool) {
        let mut tried_wrong = false;
        let result = self.reach(module, handle, now_ns).and_then(|()| {
            if !self.logged_in {
                if wrong || self.pin_wrong {
                    tried_wrong = true;
                    return Err(Answer::PinIncorrect.beside_sign("C_Login"));
                }
                self.stumble("C_Login")?;
                self.logged_in = true;
            }
            self.stumble("C_FindObjects")?;
            self.looked_up = true;
            Ok(())
        });
        (self.judged(handle, result), tried_wrong)
    }

    /// C_Sign.
    pub(super) fn sign(&mut self, module: &Module, handle: Handle, now_ns: u64) -> Signing {
        if let Err(error) = self.check_key(handle) {
            return Signing { result: Err(error), made: false };
        }
        let (result, made) = self.make(module, handle, now_ns);
        self.made += u64::from(made);
        Signing { result: self.judged(handle, result), made }
    }

    fn make(&mut self, module: &Module, handle: Handle, now_ns: u64) -> (Result<(), Error>, bool) {
        if let Some(answer) = module.broken {
            return (Err(answer.in_sign()), false);
        }
        if self.absent {
            let answer = self.draw.of(&[Answer::Removed, Answer::NotPresent]);
            return (Err(answer.in_sign()), false);
        }
        self.expire(now_ns);
        if !self.knows(handle) {
            return (Err(Answer::SessionInvalid.in_sign()), false);
        }
        self.open.insert(handle.number, (handle.holder, now_ns));
        if !self.logged_in {
            return (Err(Answer::NotLoggedIn.in_sign()), false);
        }
        if self.failing != Failing::Beside && self.draw.percent(self.failing_percent) {
            let error = match self.failing {
                Failing::Wild => Answer::wild(&mut self.draw).as_drawn(),
                _ => self.draw.of(&Answer::IN_SIGN).in_sign(),
            };
            let doubtful = error.verdict().signed == segl_hsm::Signed::Unknown;
            return (Err(error), doubtful && self.draw.percent(50));
        }
        if self.draw.percent(self.wrong_percent) {
            return (Err(Error::of(Kind::WrongSignature, "verify", "the public key does not verify it")), true);
        }
        (Ok(()), true)
    }

    /// The look for a key.
    pub(super) fn presence(&mut self, module: &Module, handle: Handle, now_ns: u64) -> Result<(), Error> {
        self.check_key(handle)?;
        self.keep_alive(module, handle, now_ns)
    }

    /// A call that keeps a session alive.
    pub(super) fn keep_alive(&mut self, module: &Module, handle: Handle, now_ns: u64) -> Result<(), Error> {
        let result = self.reach(module, handle, now_ns);
        if result.is_ok() {
            self.open.insert(handle.number, (handle.holder, now_ns));
        }
        self.judged(handle, result)
    }

    /// C_CloseSession: what it answers is nobody's concern.
    pub(super) fn close(&mut self, handle: Handle) {
        // A number that is another's by now is left alone.
        if self.knows(handle) {
            self.open.remove(&handle.number);
        }
        if self.open.is_empty() && !self.plan.anchor {
            self.logged_in = false;
            self.given_up = true;
        }
    }

    /// What C_Finalize and C_Initialize of its module do to the token.
    pub(super) fn forget_all(&mut self) {
        self.void();
        self.logged_in = false;
        self.given_up = true;
    }

    /// Every session and key handle is void from now on.
    fn void(&mut self) {
        self.incarnation += 1;
        self.open.clear();
        self.next_number = 1;
    }

    /// Something happens to the token itself.
    pub(super) fn suffer(&mut self, trouble: &Trouble) {
        match *trouble {
            Trouble::Failing { percent, failing, .. } => {
                self.failing_percent = percent;
                self.failing = failing;
            }
            Trouble::Hang { call, for_ns, times } => self.hangs.extend((0..times).map(|_| (call, for_ns))),
            Trouble::SlotGone { .. } => {
                self.absent = true;
                self.void();
                self.logged_in = false;
            }
            Trouble::HandlesVoid => {
                self.void();
                self.logged_in = false;
            }
            Trouble::SessionsVoid => self.open.clear(),
            Trouble::LoggedOut => self.logged_in = false,
            Trouble::PinWrong { .. } => {
                self.pin_wrong = true;
                self.logged_in = false;
            }
            Trouble::SessionCap { cap, .. } => self.session_cap = cap,
            Trouble::Slow { times, .. } => self.slowness = times,
            Trouble::WrongSignatures { percent, .. } => self.wrong_percent = percent,
            Trouble::ModuleBroken { .. } => {}
        }
    }

    /// That trouble is over.
    pub(super) fn recover(&mut self, trouble: &Trouble) {
        match trouble {
            Trouble::Failing { .. } => self.failing_percent = 0,
            Trouble::SlotGone { .. } => self.absent = false,
            Trouble::PinWrong { .. } => self.pin_wrong = false,
            Trouble::SessionCap { .. } => self.session_cap = self.plan.session_cap,
            Trouble::Slow { .. } => self.slowness = 1,
            Trouble::WrongSignatures { .. } => self.wrong_percent = 0,
            _ => {}
        }
    }

    /// All trouble is over, but for what only a reinitialisation helps against.
    pub(super) fn recover_all(&mut self) {
        self.failing_percent = 0;
        self.absent = false;
        self.pin_wrong = false;
        self.session_cap = self.plan.session_cap;
        self.slowness = 1;
        self.wrong_percent = 0;
        self.hangs.clear();
        self.plan.expiry_ns = None;
    }

    /// A call that is not C_Sign, on a session.
    fn reach(&mut self, module: &Module, handle: Handle, now_ns: u64) -> Result<(), Error> {
        self.check_alive(handle)?;
        self.reached(module)?;
        self.expire(now_ns);
        if self.knows(handle) { Ok(()) } else { Err(Answer::SessionInvalid.beside_sign("C_GetSessionInfo")) }
    }

    fn check_alive(&self, handle: Handle) -> Result<(), Error> {
        if self.given_up || handle.generation != self.generation {
            let verdict = Verdict { rung: Rung::Token, ..Kind::Session.verdict() };
            return Err(Error::new(Kind::Session, verdict, "session", "its generation was given up"));
        }
        Ok(())
    }

    /// Handles belong to their generation, whatever the token says of the login.
    fn check_key(&self, handle: Handle) -> Result<(), Error> {
        self.check_alive(handle)?;
        if !self.looked_up {
            let verdict = Verdict { rung: Rung::Login, ..Kind::NotLoggedIn.verdict() };
            return Err(Error::new(Kind::NotLoggedIn, verdict, "key", "nothing was looked up in this generation yet"));
        }
        Ok(())
    }

    fn knows(&self, handle: Handle) -> bool {
        let holds = self.open.get(&handle.number).is_some_and(|&(holder, _)| holder == handle.holder);
        holds && handle.incarnation == self.incarnation
    }

    fn reached(&mut self, module: &Module) -> Result<(), Error> {
        if let Some(answer) = module.broken {
            return Err(answer.beside_sign("C_GetSlotList"));
        }
        if self.absent { Err(Error::of(Kind::TokenAbsent, "token", "no slot holds it")) } else { Ok(()) }
    }

    /// A share of the calls fails.
    fn stumble(&mut self, call: &'static str) -> Result<(), Error> {
        if self.failing == Failing::Sign || !self.draw.percent(self.failing_percent) {
            return Ok(());
        }
        let wild = self.failing == Failing::Wild;
        let answer = if wild { Answer::wild(&mut self.draw) } else { self.draw.of(&Answer::BESIDE_SIGN) };
        Err(answer.beside_sign(call))
    }

    /// Sessions that nobody used for too long are gone.
    fn expire(&mut self, now_ns: u64) {
        if let Some(expiry_ns) = self.plan.expiry_ns {
            let before = self.open.len();
            self.open.retain(|_, &mut (_, used_ns)| now_ns.saturating_sub(used_ns) <= expiry_ns);
            // The anchor stood idle for longer still.
            self.logged_in &= self.open.len() == before || !self.open.is_empty();
        }
    }

    /// As `segl-hsm` does: an error that touches the token ends the generation.
    fn judged(&mut self, handle: Handle, result: Result<(), Error>) -> Result<(), Error> {
        if let Err(error) = &result
            && matches!(error.verdict().rung, Rung::Token | Rung::Module)
            && handle.generation == self.generation
        {
            self.given_up = true;
        }
        result
    }
}
