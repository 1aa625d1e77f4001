//! Sessions, tokens and modules: who is asked for what, and when.

use segl_hsm::{Error, Kind, Rung};

use super::{Watch, promise};
use crate::{
    core::{CallId, CallResult, Event, Generation, SessionId},
    simulator::script::MS,
};

/// How much later than its time a stuck call may be noticed: what came back before it is told late, and timers lag.
const NOTICE_NS: u64 = 600 * MS;

/// A session's place.
#[derive(Clone, Debug)]
pub(in crate::simulator) struct PlaceSeen {
    pub(super) token: u16,
    pub(super) generation: Generation,
    pub(super) standing: Standing,
    /// Since when it owes an answer
    since_ns: u64,
    /// When something of its batch was last heard of
    pub(super) heard_ns: u64,
    /// The batch, as far as it is not told of
    pub(super) batch: Vec<CallId>,
    /// The session's number; none while there is no session
    opened: u64,
    /// An error has spoilt it, or it is waited for no longer
    pub(super) spoilt: bool,
    /// It was given up, and no other thread took its place: what it says later is not believed
    lost: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Closed,
    Idle,
    Opening,
    LoggingIn,
    KeepingAlive,
    Signing,
    Closing,
    Reinitialising,
}

/// A token.
#[derive(Clone, Debug, Default)]
pub(in crate::simulator) struct TokenSeen {
    pub(super) joined: bool,
    pub(super) logged_in: bool,
    /// An error spoke against the login: whether Core believes it depends on when the call began
    login_doubted: bool,
    /// It failed a call that another token might not, which may put it behind the others for that key
    pub(super) refuses: bool,
    /// Sessions up to this number are void
    void: u64,
    /// Sessions up to this number may be
    doubtful: u64,
    /// Its number, until somebody has vouched
    pub(super) probation: Option<u64>,
    pub(super) vouched: bool,
    pub(super) needs_operator: bool,
    pub(super) login_refused: bool,
    /// The operator has spoken since the last login began
    pub(super) operator_spoke: bool,
    /// The last login was refused with what was there before: another one is due
    pub(super) outdated: bool,
    /// Wrong PINs tried since an operator acted
    pub(super) refusals: u32,
    /// Threads given up that have not come back, with their generations
    ghosts: Vec<(SessionId, Generation)>,
    /// Sessions it said to give, and until when that holds
    cap: Option<(usize, u64)>,
    /// Opens, logins and calls that failed so that the token, or more, is to be rebuilt, since it last signed
    failures: u32,
    /// An operator wants its module begun anew, and nothing stood in the way
    wanted_anew: bool,
    /// When a session was last closed
    closed_ns: Option<u64>,
}

impl PlaceSeen {
    pub(super) fn new(token: u16) -> Self {
        PlaceSeen {
            token,
            generation: Generation(0),
            standing: Standing::Closed,
            since_ns: 0,
            heard_ns: 0,
            batch: Vec::new(),
            opened: 0,
            spoilt: false,
            lost: false,
        }
    }
}

impl Watch {
    fn place(&mut self, id: SessionId) -> &mut PlaceSeen {
        &mut self.places[usize::from(id.0)]
    }

    fn token_of(&mut self, id: SessionId) -> &mut TokenSeen {
        let token = self.places[usize::from(id.0)].token;
        &mut self.tokens[usize::from(token)]
    }

    /// Whether this is the answer the place owes; then it has given it.
    fn settles(&mut self, id: SessionId, generation: Generation, owed: Standing, then: Standing) -> bool {
        let Some(place) = self.places.get_mut(usize::from(id.0)) else { return false };
        let settles = place.generation == generation && place.standing == owed;
        if settles {
            place.standing = then;
        }
        settles && !place.lost
    }

    /// Core says that a place of the token is lost to such a call: the one that is in it for longest.
    pub(super) fn place_lost(&mut self, token: u16, call: &str) {
        let owed = match call {
            "open" => Standing::Opening,
            "login" => Standing::LoggingIn,
            "keep-alive" => Standing::KeepingAlive,
            "close" => Standing::Closing,
            "reinitialise" => Standing::Reinitialising,
            _ => Standing::Signing,
        };
        let now_ns = self.now_ns;
        let after_ns = self.script.tokens[usize::from(token)].stuck_after_ns;
        let calls = &self.calls;
        let since_ns = |place: &PlaceSeen| {
            let begun = place.batch.iter().filter_map(|call| calls[call].begun_ns);
            begun.min().unwrap_or_default().max(place.since_ns)
        };
        let places = self.places.iter_mut().map(|place| (since_ns(place), place));
        // A call can have begun a little before it did.
        let due = places.filter(|(since_ns, place)| {
            let there = place.token == token && place.standing == owed && !place.lost;
            there && now_ns + MS >= since_ns.saturating_add(after_ns)
        });
        match due.min_by_key(|&(since_ns, _)| since_ns) {
            Some((_, place)) => {
                place.lost = true;
                place.spoilt = true;
                let call = place.batch.iter().copied().find(|call| calls[call].begun_ns.is_some());
                call.into_iter().for_each(|call| self.given_up(call));
            }
            None => self.fail(promise::STUCK_EARLY, format!("token {token} loses a place to {call:?} before its time")),
        }
    }

    // --- What Core hears ---

    pub(super) fn opened(&mut self, id: SessionId, generation: Generation, result: &Result<(), Error>) {
        let then = if result.is_ok() { Standing::Idle } else { Standing::Closed };
        if !self.settles(id, generation, Standing::Opening, then) {
            return;
        }
        let place = self.place(id).clone();
        let index = place.token;
        let others = self.taken(index);
        let lost = self.places.iter().filter(|place| place.token == index && place.lost).count();
        let retry_ns = self.script.rules.session_count_retry_ns;
        let now_ns = self.now_ns;
        let token = self.token_of(id);
        match result {
            Ok(()) => {}
            // What was closed since it was asked for may have had the place.
            Err(error)
                if error.kind() == Kind::SessionCount && (others > lost || token.closed_ns >= Some(place.since_ns)) =>
            {
                let others = others.max(1);
                let cap =
                    token.cap.filter(|&(_, until_ns)| now_ns < until_ns).map_or(others, |(cap, _)| cap.min(others));
                token.cap = Some((cap, now_ns.saturating_add(retry_ns)));
            }
            // It finds the login of those before it gone.
            Err(error) if error.kind() == Kind::NotLoggedIn => {
                token.failures += 1;
                if !place.spoilt {
                    self.void(&place);
                }
            }
            Err(error) => {
                token.failures += 1;
                if others == 0 {
                    token.logged_in = false;
                    token.vouched = false;
                    token.needs_operator |= Self::is_operators(error) && !std::mem::take(&mut token.operator_spoke);
                }
            }
        }
    }

    pub(super) fn logged_in(&mut self, id: SessionId, generation: Generation, result: &Result<(), Error>) {
        if !self.settles(id, generation, Standing::LoggingIn, Standing::Idle) {
            return;
        }
        let place = self.place(id).clone();
        let module = self.script.tokens[usize::from(place.token)].module;
        // With others in the module it may have been given up for their sake.
        let alone = self.script.tokens.iter().filter(|token| token.module == module).count() == 1;
        let token = self.token_of(id);
        match result {
            Ok(()) => {
                token.logged_in |= place.opened > token.void && !place.spoilt;
                token.login_doubted = false;
            }
            Err(error) => {
                token.failures += 1;
                let refused = Self::is_operators(error);
                let counts = refused && !token.operator_spoke;
                // A login from before may still hold; another is not tried.
                token.login_refused |= counts;
                token.needs_operator |= counts && !token.logged_in;
                token.outdated = refused && !counts && !token.logged_in;
                if refused && token.logged_in {
                    return;
                }
                // What a session says that is void says nothing of the token.
                if alone && !token.logged_in && !place.spoilt && place.opened > token.void {
                    token.vouched = false;
                }
                self.spoil(id, error);
            }
        }
    }

    pub(super) fn kept_alive(&mut self, id: SessionId, generation: Generation, result: &Result<(), Error>) {
        if self.settles(id, generation, Standing::KeepingAlive, Standing::Idle)
            && let Err(error) = result
        {
            self.spoil(id, error);
        }
    }

    pub(super) fn closed(&mut self, id: SessionId, generation: Generation) {
        if self.settles(id, generation, Standing::Closing, Standing::Closed) {
            self.token_of(id).closed_ns = Some(self.now_ns);
        }
    }

    pub(super) fn reinitialised(&mut self, id: SessionId, generation: Generation, ok: bool) {
        if self.settles(id, generation, Standing::Reinitialising, Standing::Closed) {
            let token = self.place(id).token;
            let module = self.script.tokens[usize::from(token)].module;
            for (token, plan) in self.tokens.iter_mut().zip(&self.script.tokens) {
                token.wanted_anew &= plan.module != module;
            }
            if ok {
                self.token_of(id).failures = 0;
            }
        }
    }

    /// The module has earned it by an operator's word.
    pub(in crate::simulator) fn operator_wants_it_anew(&mut self, token: u16) {
        self.tokens[usize::from(token)].wanted_anew = true;
    }

    pub(super) fn gone(&mut self, id: SessionId, generation: Generation) {
        if usize::from(id.0) < self.places.len() {
            self.token_of(id).ghosts.retain(|&ghost| ghost != (id, generation));
        }
    }

    /// A call that the place had has failed.
    pub(super) fn spoil(&mut self, id: SessionId, error: &Error) {
        let rung = error.verdict().rung;
        let place = self.place(id);
        if rung == Rung::None || place.standing == Standing::Closed {
            return;
        }
        place.spoilt = true;
        let place = place.clone();
        let token = self.token_of(id);
        token.login_doubted |= rung == Rung::Login;
        token.failures += u32::from(rung >= Rung::Token);
        if rung >= Rung::Token && self.void(&place) && Self::is_wrong(error) {
            let token = self.token_of(id);
            token.needs_operator = true;
            token.vouched = false;
        }
    }

    /// A call that this place was in says that all sessions of its token are void; not so if the place is itself: that says
    /// nothing of those that came after it.
    fn void(&mut self, place: &PlaceSeen) -> bool {
        // What was opened while the call ran may belong to what came after.
        let void = self.opened_ns.partition_point(|&at_ns| at_ns <= place.since_ns) as u64;
        let latest = self.next_opened - 1;
        let token = &mut self.tokens[usize::from(place.token)];
        if place.opened <= token.void {
            return false;
        }
        token.void = void;
        token.doubtful = latest;
        token.logged_in &= void < latest;
        token.login_doubted = true;
        true
    }

    /// What a thread says that was given up speaks for the token's trouble, if it is in doubt that the login holds.
    pub(super) fn count_late_failure(&mut self, event: &Event<u64>) {
        let (id, generation, error) = match event {
            Event::Returned { session, generation, result: CallResult::Failed(error), .. }
            | Event::LoggedIn { session, generation, result: Err(error) }
            | Event::KeptAlive { session, generation, result: Err(error) } => (*session, *generation, error),
            _ => return,
        };
        let Some(place) = self.places.get(usize::from(id.0)) else { return };
        let lost = place.lost && place.generation == generation;
        let token = self.token_of(id);
        if (lost || token.ghosts.contains(&(id, generation))) && error.verdict().rung >= Rung::Token {
            token.failures += 1;
        }
    }

    /// A place has signed: its token is sound.
    pub(super) fn has_signed(&mut self, id: SessionId) {
        let place = self.place(id);
        let (spoilt, opened) = (place.spoilt, place.opened);
        let token = self.token_of(id);
        if !spoilt && opened > token.doubtful {
            token.failures = 0;
        }
    }

    // --- What Core asks for ---

    pub(super) fn open(&mut self, id: SessionId, generation: Generation) {
        let now_ns = self.now_ns;
        let next = self.next_opened;
        self.next_opened += 1;
        self.opened_ns.push(now_ns);
        let place = self.place(id).clone();
        self.check(place.standing == Standing::Closed, promise::FREE, || format!("{id:?} is to be opened: {place:?}"));
        self.check(generation > place.generation, promise::GENERATION, || {
            format!("{id:?} is opened as {generation:?} after {:?}", place.generation)
        });
        self.left_alone(id, "opened");
        self.token_of(id).outdated = false;
        self.module_quiet(id, "opened");
        let taken = self.taken(place.token) + 1;
        if let Some((cap, until_ns)) = self.tokens[usize::from(place.token)].cap
            && now_ns < until_ns
        {
            self.check(taken <= cap, promise::SESSION_CAP, || format!("{id:?} is session {taken} of at most {cap}"));
        }
        *self.place(id) = PlaceSeen {
            generation,
            standing: Standing::Opening,
            since_ns: now_ns,
            opened: next,
            ..PlaceSeen::new(place.token)
        };
    }

    pub(super) fn log_in(&mut self, id: SessionId, generation: Generation) {
        self.used(id, generation, Standing::LoggingIn, "logged in");
        self.left_alone(id, "logged in");
        let token = self.token_of(id);
        (token.operator_spoke, token.outdated) = (false, false);
        let refused = token.login_refused;
        self.check(!refused, promise::PIN, || format!("{id:?} is logged in where a login was refused"));
    }

    pub(super) fn keep_alive(&mut self, id: SessionId, generation: Generation) {
        self.used(id, generation, Standing::KeepingAlive, "kept alive");
    }

    pub(super) fn close(&mut self, id: SessionId, generation: Generation) {
        let now_ns = self.now_ns;
        let place = self.place(id).clone();
        self.check(generation == place.generation, promise::GENERATION, || {
            format!("{id:?} is closed as {generation:?} in {:?}", place.generation)
        });
        self.check(place.standing == Standing::Idle, promise::FREE, || format!("{id:?} is to be closed: {place:?}"));
        let place = self.place(id);
        place.standing = Standing::Closing;
        place.since_ns = now_ns;
        place.lost = false;
        self.login_may_end(id);
    }

    /// The last session's closing ends the login, as far as Core can know.
    fn login_may_end(&mut self, id: SessionId) {
        let token = self.place(id).token;
        let open = |place: &PlaceSeen| {
            place.token == token && !matches!(place.standing, Standing::Closed | Standing::Opening | Standing::Closing)
        };
        if !self.places.iter().any(open) {
            self.tokens[usize::from(token)].logged_in = false;
        }
    }

    /// A session is used: it must be there, free, of this generation and not void.
    fn used(&mut self, id: SessionId, generation: Generation, then: Standing, what: &str) {
        let now_ns = self.now_ns;
        let place = self.place(id).clone();
        self.check(generation == place.generation, promise::GENERATION, || {
            format!("{id:?} is {what} as {generation:?} in {:?}", place.generation)
        });
        self.check(place.standing == Standing::Idle, promise::FREE, || format!("{id:?} is to be {what}: {place:?}"));
        let void = self.token_of(id).void;
        self.check(!place.spoilt && place.opened > void, promise::VOID, || {
            format!("{id:?} is {what}: {place:?}, void up to {void}")
        });
        let place = self.place(id);
        place.standing = then;
        place.since_ns = now_ns;
    }

    /// A batch's first call, or a further one in the same breath.
    pub(super) fn handed(&mut self, id: SessionId, generation: Generation, call: CallId, probe: bool) {
        let now_ns = self.now_ns;
        let place = self.place(id);
        if place.standing == Standing::Signing && place.since_ns == now_ns && !place.batch.is_empty() {
            let of = place.generation;
            self.check(of == generation, promise::GENERATION, || format!("{id:?} signs as {generation:?} in {of:?}"));
        } else {
            self.used(id, generation, Standing::Signing, "to sign");
        }
        self.place(id).batch.push(call);
        let token = self.token_of(id).clone();
        self.check(token.logged_in, promise::LOGGED_IN, || format!("{id:?} is to sign"));
        self.check(!token.needs_operator, promise::OPERATOR, || format!("{id:?} is to sign"));
        self.check(token.joined, promise::OPERATOR, || format!("{id:?} is to sign for a token that has left"));
        self.check(probe || token.vouched, promise::PROBATION, || format!("{id:?} gets a client's job"));
    }

    pub(super) fn reinitialise(&mut self, module: u32, id: SessionId, generation: Generation) {
        let now_ns = self.now_ns;
        let place = self.place(id).clone();
        self.check(generation > place.generation, promise::GENERATION, || {
            format!("{id:?} begins its module anew as {generation:?} after {:?}", place.generation)
        });
        let of = self.script.tokens[usize::from(place.token)].module;
        self.check(of == module, promise::REINITIALISE, || format!("{id:?} belongs to module {of}, not to {module}"));
        for index in 0..self.places.len() {
            let other = self.places[index].clone();
            let same = self.script.tokens[usize::from(other.token)].module == module;
            self.check(!same || other.standing == Standing::Closed, promise::REINITIALISE, || {
                format!("module {module} is begun anew while place {index} is {:?}", other.standing)
            });
        }
        let mut earned = false;
        for index in 0..self.tokens.len() {
            if self.script.tokens[index].module == module {
                let token = &self.tokens[index];
                earned |= token.failures >= self.script.rules.module_after || token.wanted_anew;
                let ghosts = token.ghosts.clone();
                self.check(ghosts.is_empty(), promise::REINITIALISE, || {
                    format!("module {module} is begun anew with calls stuck inside: {ghosts:?}")
                });
            }
        }
        let failures: Vec<u32> = self.tokens.iter().map(|token| token.failures).collect();
        self.check(earned, promise::REINITIALISE_EARNED, || {
            format!("module {module} is begun anew, its tokens having failed {failures:?} times in a row")
        });
        let place = self.place(id);
        place.generation = generation;
        place.standing = Standing::Reinitialising;
        place.since_ns = now_ns;
    }

    pub(super) fn replace(&mut self, id: SessionId, generation: Generation) {
        let (now_ns, max) = (self.now_ns, self.script.rules.stuck_threads_max);
        let place = self.place(id).clone();
        self.check(generation == place.generation, promise::GENERATION, || {
            format!("{id:?} is given up as {generation:?} in {:?}", place.generation)
        });
        let after_ns = self.script.tokens[usize::from(place.token)].stuck_after_ns;
        let begun_ns = place.batch.iter().filter_map(|call| self.calls[call].begun_ns).max();
        let since_ns = begun_ns.unwrap_or(place.since_ns).max(place.since_ns);
        let owes = !matches!(place.standing, Standing::Closed | Standing::Idle);
        // The watch's call can have begun a little after Core's: when it can have begun is all that Core knows.
        self.check(owes && now_ns + MS >= place.since_ns + after_ns, promise::STUCK_EARLY, || {
            format!("{id:?} is given up at {now_ns}, at work since {since_ns}, of {after_ns}: {place:?}")
        });
        for call in place.batch {
            self.given_up(call);
        }
        let place = self.place(id);
        place.standing = Standing::Closed;
        place.batch.clear();
        self.login_may_end(id);
        let token = self.token_of(id);
        token.ghosts.push((id, generation));
        let ghosts = token.ghosts.len();
        self.check(ghosts <= usize::from(max), promise::STUCK_THREADS, || format!("{ghosts} threads, of {max}"));
    }

    /// An operator is needed, or the token has left: nobody opens and logs in there.
    fn left_alone(&mut self, id: SessionId, what: &str) {
        let token = self.token_of(id);
        let (joined, needs_operator) = (token.joined, token.needs_operator);
        self.check(joined && !needs_operator, promise::OPERATOR, || {
            format!("{id:?} is {what}; joined: {joined}, waits for its operator: {needs_operator}")
        });
    }

    fn module_quiet(&mut self, id: SessionId, what: &str) {
        let token = self.place(id).token;
        let module = self.script.tokens[usize::from(token)].module;
        let busy = self.places.iter().any(|place| {
            place.standing == Standing::Reinitialising && self.script.tokens[usize::from(place.token)].module == module
        });
        self.check(!busy, promise::REINITIALISE, || format!("{id:?} is {what} while module {module} is begun anew"));
    }

    /// Places of a token that are not closed.
    fn taken(&self, token: u16) -> usize {
        self.places.iter().filter(|place| place.token == token && place.standing != Standing::Closed).count()
    }

    // --- What holds between steps ---

    /// Sessions of a token that could take a client's job, as far as the watch knows.
    pub(super) fn idle_of(&self, index: u16) -> usize {
        let token = &self.tokens[usize::from(index)];
        let usable = |place: &&PlaceSeen| {
            place.token == index && place.standing == Standing::Idle && !place.spoilt && place.opened > token.void
        };
        let ready = token.joined && token.logged_in && !token.login_doubted && token.vouched && !token.needs_operator;
        if ready { self.places.iter().filter(usable).count() } else { 0 }
    }

    /// Sessions of a token that will soon be free, as far as the watch knows.
    pub(super) fn busy_of(&self, index: u16) -> usize {
        let busy = |place: &&PlaceSeen| {
            let kept = matches!(place.standing, Standing::Signing | Standing::KeepingAlive | Standing::LoggingIn);
            place.token == index && kept
        };
        self.places.iter().filter(busy).count()
    }

    pub(super) fn check_conserving(&mut self, negligent: Option<u16>) {
        let waiting = self.waiting_sets();
        for tokens in waiting {
            let ready: Vec<u16> =
                tokens.iter().filter(|&token| self.idle_of(token) > 0 || self.busy_of(token) > 0).collect();
            let preferred = |&token: &u16| self.script.tokens[usize::from(token)].preferred;
            let any_preferred = ready.iter().any(preferred);
            // Of several the faster ones may come first, and which these are is Core's to know.
            let first: Vec<u16> = ready.into_iter().filter(|token| !any_preferred || preferred(token)).collect();
            let idle: usize = first.iter().map(|&token| self.idle_of(token)).sum();
            let busy: usize = first.iter().map(|&token| self.busy_of(token)).sum();
            let refuses = tokens.iter().any(|token| self.tokens[usize::from(token)].refuses);
            self.check(idle == 0 || refuses || first.len() > 1 && busy > 0, promise::CONSERVING, || {
                format!("{idle} sessions of tokens {first:?} stand idle while jobs wait for {tokens:?}")
            });
        }
        if let Some(token) = negligent {
            self.fail(promise::CONSERVING, format!("Core itself finds a job that token {token} should take"));
        }
    }

    /// Nobody owes an answer for much longer than the token may take.
    pub(super) fn check_stuck(&mut self) {
        for index in 0..self.places.len() {
            let place = &self.places[index];
            if matches!(place.standing, Standing::Closed | Standing::Idle) || place.lost {
                continue;
            }
            let last_ns = place.batch.iter().filter_map(|call| self.calls[call].begun_ns).max();
            let since_ns = last_ns.unwrap_or_default().max(place.heard_ns).max(place.since_ns);
            let limit_ns = since_ns + self.script.tokens[usize::from(place.token)].stuck_after_ns + NOTICE_NS;
            if self.now_ns > limit_ns {
                let detail = format!("place {index} is waited for since {since_ns}: {place:?}");
                self.fail(promise::STUCK, detail);
            }
        }
    }
}
