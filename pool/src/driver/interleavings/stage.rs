//! A pool whose threads are Shuttle's, a token that notes what is asked of it, and what is heard of both.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use segl_hsm::{Algorithm, Error, Input, KeyId, KeyReport, KeySpec, ModuleId, Result, Session, Signature, Token};

use super::{
    pool::{Inbox, Observer, Pool},
    sync::{Condvar, Mutex, thread},
};
use crate::{Class, Completion, Config, Fate, Job, RouteId, Rules, TokenSet, TokenSetup, Work, core::Alarm};

/// Signs at once.
pub(super) const QUICK: KeyId = KeyId(1);
/// Stays in the token until it is let go.
pub(super) const HANGS: KeyId = KeyId(2);

/// What was seen on all sides of the pool.
#[derive(Debug, Default)]
pub(super) struct Book {
    seen: Mutex<Seen>,
    news: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Messages of calls that entered the token
    pub(super) begun: Vec<u64>,
    /// Whether the call that hangs is in the token, and whether it is let go
    pub(super) hangs: bool,
    pub(super) let_go: bool,
    pub(super) opened: u32,
    pub(super) closed: u32,
    pub(super) done: Vec<Completion>,
    /// References of jobs whose signatures came too late
    pub(super) late: Vec<u64>,
    /// Tells the one who lets time pass that nobody waits for it any more
    pub(super) over: bool,
    pool: Weak<Pool>,
    /// Probations that came before the pool was known
    early: Vec<(u16, u64)>,
}

impl Book {
    pub(super) fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap());
        self.news.notify_all();
    }

    pub(super) fn ask<T>(&self, question: impl FnOnce(&Seen) -> T) -> T {
        question(&self.seen.lock().unwrap())
    }

    /// Waits for something: that it never comes is found, since then nothing else moves either.
    pub(super) fn wait(&self, is_so: impl Fn(&Seen) -> bool) {
        drop(self.news.wait_while(self.seen.lock().unwrap(), |seen| !is_so(seen)).unwrap());
    }
}

#[derive(Debug)]
struct NotedToken(Arc<Book>);

impl Token for NotedToken {
    fn name(&self) -> &str {
        "noted"
    }

    fn module(&self) -> ModuleId {
        ModuleId(0)
    }

    fn add_keys(&self, _: &[KeySpec]) {}

    fn reinitialise(&self) -> Result<()> {
        Ok(())
    }

    fn open(&self) -> Result<Box<dyn Session>> {
        self.0.note(|seen| seen.opened += 1);
        Ok(Box::new(NotedSession(self.0.clone())))
    }
}

struct NotedSession(Arc<Book>);

impl Session for NotedSession {
    fn login(&mut self) -> Result<Vec<KeyReport>> {
        Ok(Vec::new())
    }

    fn sign(&mut self, key: KeyId, _: Algorithm, input: &Input, out: &mut Signature) -> Result<()> {
        let Input::Message(message) = input else { panic!("the tests sign messages") };
        let tag = u64::from_le_bytes(message.as_ref().try_into().unwrap());
        self.0.note(|seen| {
            seen.begun.push(tag);
            seen.hangs |= key == HANGS;
        });
        if key == HANGS {
            self.0.wait(|seen| seen.let_go);
        }
        out.extend_from_slice(message);
        Ok(())
    }

    fn presence(&mut self, _: KeyId) -> Result<()> {
        Ok(())
    }

    fn keep_alive(&mut self) -> Result<()> {
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.0.note(|seen| seen.closed += 1);
        Ok(())
    }
}

impl Inbox for Book {
    fn deliver(&self, completions: &mut Vec<Completion>) {
        self.note(|seen| seen.done.append(completions));
    }
}

impl Observer for Book {
    fn token_logged_in(&self, _: u16, _: Vec<KeyReport>) {}

    fn session_lost(&self, _: u16, _: &Error) {}

    fn alarm(&self, alarm: &Alarm) {
        match *alarm {
            Alarm::Probation { token, round } => {
                let mut pool = None;
                self.note(|seen| {
                    pool = seen.pool.upgrade();
                    if pool.is_none() {
                        seen.early.push((token, round));
                    }
                });
                if let Some(pool) = pool {
                    pool.vouch(token, round, true);
                }
            }
            Alarm::Discarded { reference, signed: true, .. } => self.note(|seen| seen.late.push(reference)),
            _ => {}
        }
    }
}

pub(super) struct Stage {
    pub(super) pool: Arc<Pool>,
    pub(super) book: Arc<Book>,
}

impl Stage {
    /// A pool of one token with so many sessions, which will be vouched for whenever it is on probation.
    pub(super) fn new(sessions: u16, spin_ns: u64, stuck_after: Duration) -> Stage {
        let book = Arc::new(Book::default());
        // A batch is told of as a whole, and no session is left for a later one.
        let rules = Rules { batch_time_ns: 1_000_000_000, ..Rules::default() };
        let token = TokenSetup {
            stuck_after_ns: stuck_after.as_nanos() as u64,
            ..TokenSetup::new(Arc::new(NotedToken(book.clone())), sessions)
        };
        let config = Config { rules, spin_ns, on_thread_start: None };
        let pool = Pool::start(config, vec![token], vec![book.clone()], book.clone()).unwrap();
        let pool = Arc::new(pool);
        pool.set_routes(&[TokenSet::only(0)]);
        let mut early = Vec::new();
        book.note(|seen| {
            seen.pool = Arc::downgrade(&pool);
            early.append(&mut seen.early);
        });
        early.into_iter().for_each(|(token, round)| pool.vouch(token, round, true));
        Stage { pool, book }
    }

    pub(super) fn job(key: KeyId, tag: u64) -> Job {
        Job {
            work: Work::Sign,
            key,
            algorithm: Algorithm::Ed25519,
            input: Input::message(&tag.to_le_bytes()),
            route: RouteId(0),
            only_token: None,
            class: Class::Login,
            tenant: 1,
            deadline_ns: u64::MAX,
            repeatable: false,
            probe: false,
            reference: tag,
            inbox: 0,
            tag,
        }
    }

    /// On a thread of its own.
    pub(super) fn spawn(&self, act: impl FnOnce(&Pool, &Book) + Send + 'static) -> thread::JoinHandle<()> {
        let (pool, book) = (self.pool.clone(), self.book.clone());
        thread::spawn(move || act(&pool, &book))
    }

    /// Stops the pool, and sees that all of its threads end and that all sessions are closed. Whoever hangs in the
    /// token must have been let go, or be about to be.
    pub(super) fn stop(&self, limit: Duration) -> usize {
        let left = self.pool.stop(limit).threads_left;
        self.book.note(|seen| {
            seen.let_go = true;
            seen.over = true;
        });
        let shared = &self.pool.shared;
        drop(shared.stop_news.wait_while(shared.lock(), |heart| heart.threads > 0).unwrap());
        self.book.ask(|seen| assert_eq!(seen.opened, seen.closed, "every session is closed by the thread that has it"));
        left
    }

    /// Each of `jobs` was answered once, and what the answers say of the token is what the token saw.
    pub(super) fn check_answers(&self, jobs: u64) {
        self.book.ask(|seen| {
            let mut tags: Vec<u64> = seen.done.iter().map(|done| done.tag).collect();
            tags.sort_unstable();
            assert_eq!(tags, (0..jobs).collect::<Vec<_>>(), "one answer to each");
            for done in &seen.done {
                let begun = seen.begun.iter().filter(|&&tag| tag == done.tag).count();
                // A thread that was given up right before its call may not make it any more.
                let in_doubt = done.attempts.iter().filter(|attempt| attempt.fate == Fate::Unknown).count();
                let entered = done.attempts.len();
                assert!((entered - in_doubt..=entered).contains(&begun), "the token saw {begun} calls: {done:?}");
                let released = done.attempts.last().is_some_and(|attempt| attempt.fate == Fate::Released);
                assert_eq!(done.result.is_ok(), released, "{done:?}");
                if let Ok(signature) = &done.result {
                    assert_eq!(signature, &done.tag.to_le_bytes());
                }
            }
            let released = seen.done.iter().filter(|done| done.result.is_ok()).count();
            assert_eq!(seen.begun.len(), released + seen.late.len(), "each signature is released or told of as late");
        });
    }
}

/// Lets time pass for the pool, all at once.
pub(super) fn pass(pool: &Pool, time: Duration) {
    // Nobody is between looking at the clock and waiting for it: a real wait would not miss it either.
    let heart = pool.shared.lock();
    pool.clock().pass(time);
    pool.shared.timer_news.notify_all();
    pool.shared.stop_news.notify_all();
    drop(heart);
}
