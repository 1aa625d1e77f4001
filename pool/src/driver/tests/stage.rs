//! Tokens that do as they are told, and an inbox and an observer that can be waited for.

use std::{
    collections::HashMap,
    sync::{
        Arc, Condvar, Mutex, Weak,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, ThreadId},
    time::Duration,
};

use segl_hsm::{Algorithm, Error, Input, KeyId, KeyReport, KeySpec, Kind, ModuleId, Result, Session, Signature, Token};

use crate::{
    Class, Completion, Config, Failure, Inbox, Job, Observer, Pool, RouteId, Rules, TokenSet, TokenSetup, TokenState,
    Work, core::Alarm,
};

/// Longer than anything takes; only a broken pool waits for it to pass.
pub(super) const FOREVER: Duration = Duration::from_secs(30);

/// Signs at once.
pub(super) const QUICK: KeyId = KeyId(1);
/// Enters the token and stays there until the gate is opened.
pub(super) const GATED: KeyId = KeyId(2);
/// The same, but another key.
pub(super) const GATED_TOO: KeyId = KeyId(5);
/// Panics in the token.
pub(super) const PANICS: KeyId = KeyId(3);
/// Fails with the next error laid ready, signs when there is none.
pub(super) const FAILS: KeyId = KeyId(4);

/// What a token of the tests did and is to do.
#[derive(Debug, Default)]
pub(super) struct Script {
    state: Mutex<Told>,
    news: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) opened: u32,
    pub(super) closed: u32,
    pub(super) logins: u32,
    /// Calls that entered a gated key, and calls the gate has let through
    pub(super) entered: u32,
    pub(super) gate: u32,
    /// Messages of calls that were begun
    pub(super) begun: Vec<u64>,
    pub(super) open_errors: Vec<Error>,
    pub(super) sign_errors: Vec<Error>,
    /// So many opens, and the next C_Finalize, stay in the token until the gate is opened
    pub(super) hanging_opens: u32,
    pub(super) finalise_hangs: bool,
    pub(super) reinitialised: u32,
    pub(super) kept_alive: u32,
    /// Sessions that were used or closed on a thread not their own
    pub(super) strangers: u32,
}

impl Script {
    pub(super) fn tell(&self, change: impl FnOnce(&mut Told)) {
        change(&mut self.state.lock().unwrap());
        self.news.notify_all();
    }

    pub(super) fn wait(&self, is_so: impl Fn(&Told) -> bool) {
        let told = self.state.lock().unwrap();
        let (told, waited) = self.news.wait_timeout_while(told, FOREVER, |told| !is_so(told)).unwrap();
        assert!(!waited.timed_out(), "it never came: {told:?}");
    }

    pub(super) fn ask<T>(&self, question: impl FnOnce(&Told) -> T) -> T {
        question(&self.state.lock().unwrap())
    }

    /// Stays until the gate lets one through.
    fn enter_gate(&self) {
        self.tell(|told| told.entered += 1);
        let told = self.state.lock().unwrap();
        let shut = |told: &mut Told| told.gate == 0;
        let (mut told, waited) = self.news.wait_timeout_while(told, FOREVER, shut).unwrap();
        assert!(!waited.timed_out(), "the gate was never opened: {told:?}");
        told.gate -= 1;
    }

    /// Lets so many more gated calls through.
    pub(super) fn open_gate(&self, calls: u32) {
        self.tell(|told| told.gate += calls);
    }
}

#[derive(Debug)]
struct ScriptedToken {
    name: String,
    script: Arc<Script>,
}

struct ScriptedSession {
    script: Arc<Script>,
    thread: ThreadId,
}

impl Token for ScriptedToken {
    fn name(&self) -> &str {
        &self.name
    }

    fn module(&self) -> ModuleId {
        ModuleId(0)
    }

    fn add_keys(&self, _: &[KeySpec]) {}

    fn reinitialise(&self) -> Result<()> {
        if self.script.ask(|told| told.finalise_hangs) {
            self.script.enter_gate();
        }
        self.script.tell(|told| told.reinitialised += 1);
        Ok(())
    }

    fn open(&self) -> Result<Box<dyn Session>> {
        let mut failed = None;
        let mut hangs = false;
        self.script.tell(|told| {
            hangs = told.hanging_opens > 0;
            told.hanging_opens -= u32::from(hangs);
        });
        if hangs {
            self.script.enter_gate();
        }
        self.script.tell(|told| {
            failed = told.open_errors.pop();
            told.opened += u32::from(failed.is_none());
        });
        match failed {
            Some(error) => Err(error),
            None => Ok(Box::new(ScriptedSession { script: self.script.clone(), thread: thread::current().id() })),
        }
    }
}

impl ScriptedSession {
    fn check_thread(&self) {
        let stranger = thread::current().id() != self.thread;
        self.script.tell(|told| told.strangers += u32::from(stranger));
    }
}

impl Session for ScriptedSession {
    fn login(&mut self) -> Result<Vec<KeyReport>> {
        self.check_thread();
        self.script.tell(|told| told.logins += 1);
        Ok(vec![KeyReport { id: QUICK, result: Err(Error::of(Kind::KeyMissing, "login", "none here")) }])
    }

    fn sign(&mut self, key: KeyId, _: Algorithm, input: &Input, out: &mut Signature) -> Result<()> {
        self.check_thread();
        let Input::Message(message) = input else { panic!("the tests sign messages") };
        let tag = u64::from_le_bytes(message.as_ref().try_into().unwrap());
        self.script.tell(|told| told.begun.push(tag));
        match key {
            GATED | GATED_TOO => self.script.enter_gate(),
            PANICS => panic!("a bug in the token, as the test wants it"),
            FAILS => {
                let mut failed = None;
                self.script.tell(|told| failed = told.sign_errors.pop());
                if let Some(error) = failed {
                    return Err(error);
                }
            }
            _ => {}
        }
        out.resize(1024, 0);
        out.clear();
        out.extend_from_slice(message);
        Ok(())
    }

    fn presence(&mut self, key: KeyId) -> Result<()> {
        self.check_thread();
        if key == FAILS { Err(Error::of(Kind::KeyMissing, "presence", "none here")) } else { Ok(()) }
    }

    fn keep_alive(&mut self) -> Result<()> {
        self.check_thread();
        self.script.tell(|told| told.kept_alive += 1);
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.check_thread();
        self.script.tell(|told| told.closed += 1);
        Ok(())
    }
}

/// An inbox that counts its deliveries.
#[derive(Debug, Default)]
pub(super) struct TestInbox {
    letters: Mutex<Letters>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct Letters {
    deliveries: Vec<usize>,
    completions: Vec<Completion>,
}

impl Inbox for TestInbox {
    fn deliver(&self, completions: &mut Vec<Completion>) {
        let mut letters = self.letters.lock().unwrap();
        letters.deliveries.push(completions.len());
        letters.completions.append(completions);
        self.news.notify_all();
    }
}

impl TestInbox {
    /// Waits until there are so many, and takes all there are.
    pub(super) fn take(&self, count: usize) -> Vec<Completion> {
        let letters = self.letters.lock().unwrap();
        let enough = |letters: &mut Letters| letters.completions.len() < count;
        let (mut letters, waited) = self.news.wait_timeout_while(letters, FOREVER, enough).unwrap();
        assert!(!waited.timed_out(), "{count} never came: {letters:?}");
        std::mem::take(&mut letters.completions)
    }

    pub(super) fn deliveries(&self) -> Vec<usize> {
        self.letters.lock().unwrap().deliveries.clone()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.letters.lock().unwrap().completions.is_empty()
    }
}

/// An observer that keeps what it hears, each as one word, and vouches for whoever comes on probation.
#[derive(Debug, Default)]
pub(super) struct TestObserver {
    heard: Mutex<Vec<&'static str>>,
    news: Condvar,
    guarantor: Mutex<Guarantor>,
}

#[derive(Debug, Default)]
struct Guarantor {
    pool: Weak<Pool>,
    /// Tokens that came before the pool was known
    early: Vec<(u16, u64)>,
    /// It vouches for nobody
    mute: bool,
}

impl TestObserver {
    fn hear(&self, what: &'static str) {
        self.heard.lock().unwrap().push(what);
        self.news.notify_all();
    }

    fn vouch_in(&self, pool: &Arc<Pool>) {
        let mut guarantor = self.guarantor.lock().unwrap();
        guarantor.pool = Arc::downgrade(pool);
        let early = std::mem::take(&mut guarantor.early);
        drop(guarantor);
        early.into_iter().for_each(|(token, round)| pool.vouch(token, round, true));
    }

    /// Vouches for nobody from now on.
    pub(super) fn mute(&self) {
        self.guarantor.lock().unwrap().mute = true;
    }

    pub(super) fn heard(&self) -> Vec<&'static str> {
        self.heard.lock().unwrap().clone()
    }

    pub(super) fn wait_for(&self, what: &'static str) {
        let heard = self.heard.lock().unwrap();
        let not_yet = |heard: &mut Vec<&'static str>| !heard.contains(&what);
        let (heard, waited) = self.news.wait_timeout_while(heard, FOREVER, not_yet).unwrap();
        assert!(!waited.timed_out(), "{what} was never heard: {heard:?}");
    }
}

impl Observer for TestObserver {
    fn token_logged_in(&self, _: u16, keys: Vec<KeyReport>) {
        assert_eq!(keys.len(), 1);
        self.hear("logged in");
    }

    fn session_lost(&self, _: u16, _: &Error) {
        self.hear("session lost");
    }

    fn alarm(&self, alarm: &Alarm) {
        self.hear(match alarm {
            Alarm::TokenAway { .. } => "away",
            Alarm::TokenBack { .. } => "back",
            Alarm::Stuck { replaced: true, .. } => "stuck and replaced",
            Alarm::Stuck { replaced: false, .. } => "stuck",
            Alarm::Discarded { signed: true, .. } => "signed too late",
            Alarm::Discarded { signed: false, .. } => "failed too late",
            Alarm::ModuleReinitialised { .. } => "module initialised",
            Alarm::ModuleWedged { .. } => "module wedged",
            Alarm::Probation { token, round } => {
                let mut guarantor = self.guarantor.lock().unwrap();
                if guarantor.mute {
                    "probation"
                } else if let Some(pool) = guarantor.pool.upgrade() {
                    drop(guarantor);
                    return pool.vouch(*token, *round, true);
                } else {
                    return guarantor.early.push((*token, *round));
                }
            }
            _ => "something else",
        });
    }
}

/// A pool with its surroundings.
pub(super) struct Stage {
    pub(super) pool: Arc<Pool>,
    pub(super) scripts: Vec<Arc<Script>>,
    pub(super) inboxes: Vec<Arc<TestInbox>>,
    pub(super) observer: Arc<TestObserver>,
}

impl Stage {
    /// A pool of tokens with so many sessions each, route 0 to all of them, two inboxes.
    pub(super) fn new(sessions: &[u16]) -> Self {
        Stage::with(Config::default(), sessions, |_| {})
    }

    pub(super) fn with(mut config: Config, sessions: &[u16], prepare: impl Fn(&Script)) -> Self {
        config.rules = Rules { batch_time_ns: u64::MAX, backoff_min_ns: 1_000_000, ..config.rules };
        Stage::by_rules(config, sessions, prepare)
    }

    /// The same, by the rules as given.
    pub(super) fn by_rules(config: Config, sessions: &[u16], prepare: impl Fn(&Script)) -> Self {
        Stage::set_up(config, sessions, prepare, |_| {})
    }

    /// The same, with tokens as they are set up.
    pub(super) fn set_up(
        config: Config,
        sessions: &[u16],
        prepare: impl Fn(&Script),
        set_up: impl Fn(&mut TokenSetup),
    ) -> Self {
        let scripts: Vec<Arc<Script>> = sessions.iter().map(|_| Arc::default()).collect();
        scripts.iter().for_each(|script| prepare(script));
        let tokens = sessions.iter().zip(&scripts).enumerate().map(|(index, (&sessions, script))| {
            let token = ScriptedToken { name: format!("hsm{index}"), script: script.clone() };
            let mut setup = TokenSetup::new(Arc::new(token), sessions);
            set_up(&mut setup);
            setup
        });
        let inboxes: Vec<Arc<TestInbox>> = vec![Arc::default(), Arc::default()];
        let observer = Arc::new(TestObserver::default());
        let dyn_inboxes = inboxes.iter().map(|inbox| inbox.clone() as Arc<dyn Inbox>).collect();
        let pool = Arc::new(Pool::start(config, tokens.collect(), dyn_inboxes, observer.clone()).unwrap());
        observer.vouch_in(&pool);
        pool.set_routes(&[(0..sessions.len() as u16).collect()]);
        Stage { pool, scripts, inboxes, observer }
    }

    pub(super) fn job(&self, key: KeyId, tag: u64) -> Job {
        Job {
            work: Work::Sign,
            key,
            algorithm: Algorithm::Ed25519,
            input: Input::message(&tag.to_le_bytes()),
            route: RouteId(0),
            only_token: None,
            class: Class::Login,
            tenant: 1,
            deadline_ns: self.pool.clock().in_ns(FOREVER),
            repeatable: false,
            probe: false,
            reference: 0,
            inbox: 0,
            tag,
        }
    }

    pub(super) fn submit(&self, jobs: impl IntoIterator<Item = Job>) {
        let mut jobs: Vec<Job> = jobs.into_iter().collect();
        self.pool.submit(&mut jobs);
        assert!(jobs.is_empty());
    }

    pub(super) fn script(&self) -> &Script {
        &self.scripts[0]
    }

    pub(super) fn inbox(&self) -> &TestInbox {
        &self.inboxes[0]
    }

    /// Waits until everybody can be served by one session at least of this token.
    pub(super) fn wait_until_ready(&self, token: u16) {
        while self.pool.snapshot().tokens[usize::from(token)].state != TokenState::Ready {
            thread::yield_now();
        }
    }

    /// The same where there are more tokens: token 0 is busy with job 0, and job 1 waits for it.
    pub(super) fn occupy_token_0(&self) {
        self.submit([Job { only_token: Some(0), ..self.job(GATED, 0) }]);
        self.script().wait(|told| told.entered > 0);
        self.submit([Job { only_token: Some(0), ..self.job(QUICK, 1) }]);
    }

    /// Another pool on a token like the first, with one inbox.
    pub(super) fn second_pool(&self, inbox: Arc<dyn Inbox>) -> Pool {
        let token = ScriptedToken { name: "other".into(), script: Arc::default() };
        let tokens = vec![TokenSetup::new(Arc::new(token), 1)];
        let pool = Pool::start(Config::default(), tokens, vec![inbox], self.observer.clone()).unwrap();
        pool.set_routes(&[TokenSet::only(0)]);
        while !pool.route_usable(RouteId(0)) {
            pool.vouch(0, 1, true);
            thread::yield_now();
        }
        pool
    }

    /// A gated job that has entered the token: with one session, whatever comes now waits.
    pub(super) fn occupy(&self, tag: u64) {
        self.submit([self.job(GATED, tag)]);
        self.script().wait(|told| told.entered > 0);
    }
}

/// Tags and outcomes, by tag.
pub(super) fn outcomes(completions: &[Completion]) -> HashMap<u64, &'static str> {
    let outcome = |done: &Completion| (done.tag, done.result.as_ref().map_or_else(Failure::name, |_| "signed"));
    let map: HashMap<_, _> = completions.iter().map(outcome).collect();
    assert_eq!(map.len(), completions.len(), "one answer to each");
    map
}

/// A number that everybody draws once.
#[derive(Debug, Default)]
pub(super) struct Tags(AtomicU64);

impl Tags {
    pub(super) fn draw(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}
