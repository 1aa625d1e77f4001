//! The keeper of the keys: takes in what tokens report at login, tests each key where it is held, decides by which
//! tokens requests may go, and vouches for a token that comes back.
//!
//! A self-test signs the hash of a message that is made inside ([`crate::signing::Desk::order_self_test`]); the
//! signature is verified and destroyed. Tests of many tokens are under way at once, so that a stuck one delays no other.

mod asked;
mod checks;
mod news;
mod suspects;
mod trials;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::Duration,
};

use segl_hsm::{KeyReport, ModuleId};
use segl_pool::{Completion, Discard, Inbox};

pub(crate) use self::asked::Tested;
pub(crate) use self::news::{ALARMS, DISCARDED, LATE_ANSWERS, News, SESSIONS_LOST, WRONG_SIGNATURES};
pub(crate) use self::trials::SELF_TESTS;
use self::{asked::Asked, trials::Trials};
use crate::{
    keybook::{KeyBook, KeyCard},
    state::Shared,
    vital::vital,
};

enum Event {
    /// The reports stand in the key book already
    LoggedIn { token: u16, reports: Vec<KeyReport>, to_test: Vec<Arc<KeyCard>> },
    /// The token can not be had for now
    Away(u16),
    /// The token signs nothing but self-tests until somebody vouches for it; which of its probations this is
    Probation(u16, u64),
    /// Self-tests came back
    Tested(Vec<Completion>),
    /// The key book has other keys
    Replaced,
    /// A call that was given up came back
    Discarded { intent: u64, token: u16, reason: Discard, signed: bool },
    /// For the journal
    Noted { token: u16, event: &'static str, detail: String },
    /// An operator wants keys tested now
    Asked(Asked),
    /// Answered when everything before it is done
    Flush(Sender<()>),
}

/// Where self-tests' completions come back.
#[derive(Debug)]
pub(crate) struct TestInbox(Sender<Event>);

impl Inbox for TestInbox {
    fn deliver(&self, completions: &mut Vec<Completion>) {
        // The keeper ends with the process only.
        let _ = self.0.send(Event::Tested(std::mem::take(completions)));
    }
}

/// What the keeper has seen so far, for those who wait for it.
#[derive(Default)]
struct Seen {
    /// Each token's last report, and how many there were
    reports: HashMap<u16, (u64, Vec<KeyReport>)>,
    /// Tokens that were tried in vain, and have not reported since
    away: HashSet<u16>,
    /// Whether no event waits and no test is under way
    idle: bool,
    /// Replacements of the key book that were announced and not yet tested after
    replacements: usize,
}

/// The keeper, as others see it.
pub(crate) struct Keeper {
    events: Sender<Event>,
    seen: Mutex<Seen>,
    changed: Condvar,
}

impl Keeper {
    /// The two ends: the pool is given the news and the inbox, the keeper starts when everything else stands. Names and
    /// modules are the tokens', by their index.
    pub(crate) fn prepare(
        keys: Arc<KeyBook>,
        names: Vec<Arc<str>>,
        modules: Vec<ModuleId>,
    ) -> (News, TestInbox, KeeperStart) {
        let (events, received) = mpsc::channel();
        let news = News::new(events.clone(), keys, names, modules);
        (news, TestInbox(events.clone()), KeeperStart { events, received })
    }

    /// Tests all keys now, or the versions of one, wherever they are held, and waits for the results; none where they
    /// did not come within the limit.
    pub(crate) fn self_test(&self, key: Option<&str>, limit: Duration) -> Option<Vec<Tested>> {
        let (asked, results) = Asked::new(key);
        self.events.send(Event::Asked(asked)).ok()?;
        results.recv_timeout(limit).ok()
    }

    /// Waits until everything that the pool has said so far is dealt with: recorded, above all.
    pub(crate) fn flush(&self, limit: Duration) -> bool {
        let (done, heard) = mpsc::channel();
        self.events.send(Event::Flush(done)).is_ok() && heard.recv_timeout(limit).is_ok()
    }

    /// The key book has other keys now.
    pub(crate) fn keys_replaced(&self) {
        // Counted, since a round that is under way ends without having seen it.
        self.change(|seen| seen.replacements += 1);
        let _ = self.events.send(Event::Replaced);
    }

    /// How often a token has reported.
    pub(crate) fn reports_of(&self, token: u16) -> u64 {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.reports.get(&token).map_or(0, |(count, _)| *count)
    }

    /// Waits until these tokens have reported more often than said.
    pub(crate) fn wait_for_reports(&self, tokens: &[(u16, u64)], limit: Duration) -> bool {
        let reported = |seen: &Seen| {
            tokens.iter().all(|(token, before)| seen.reports.get(token).is_some_and(|(count, _)| count > before))
        };
        self.wait_until(reported, limit)
    }

    /// Waits until each of so many tokens has reported, or was tried in vain. Whether all have reported.
    pub(crate) fn wait_for_first_reports(&self, tokens: u16, limit: Duration) -> bool {
        let reported = |seen: &Seen, token: u16| seen.reports.contains_key(&token);
        self.wait_until(|seen| (0..tokens).all(|token| reported(seen, token) || seen.away.contains(&token)), limit);
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        (0..tokens).all(|token| reported(&seen, token))
    }

    /// Waits until nothing waits to be tested.
    pub(crate) fn wait_until_idle(&self, limit: Duration) -> bool {
        self.wait_until(|seen| seen.idle && seen.replacements == 0, limit)
    }

    /// What the token said last of a key.
    pub(crate) fn last_report(&self, token: u16, key: segl_hsm::KeyId) -> Option<KeyReport> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, reports) = seen.reports.get(&token)?;
        reports.iter().find(|report| report.id == key).cloned()
    }

    fn wait_until(&self, met: impl Fn(&Seen) -> bool, limit: Duration) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (seen, _) =
            self.changed.wait_timeout_while(seen, limit, |seen| !met(seen)).unwrap_or_else(PoisonError::into_inner);
        met(&seen)
    }

    fn change(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }
}

/// A keeper that waits for the rest of the daemon.
pub(crate) struct KeeperStart {
    events: Sender<Event>,
    received: Receiver<Event>,
}

impl KeeperStart {
    /// Starts the keeper's thread. `inbox` is the number that the [`TestInbox`] has in the pool.
    pub(crate) fn start(self, shared: Arc<Shared>, inbox: u16) -> std::io::Result<Arc<Keeper>> {
        let keeper = Arc::new(Keeper { events: self.events, seen: Mutex::default(), changed: Condvar::new() });
        let trials = Trials::new(shared, keeper.clone(), inbox);
        thread::Builder::new()
            .name("segl-keeper".into())
            .spawn(move || vital("the keeper", || trials.keep(&self.received)))?;
        Ok(keeper)
    }
}
