//! The keeper of the keys: takes in what tokens report at login, tests each key where it is held, and decides by
//! which tokens requests may go.
//!
//! A self-test signs the hash of a message that is made inside ([`Desk::order_self_test`]); the signature is verified
//! and destroyed. One round tests everything that is due at once, so that a stuck token delays no other.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use metrics::counter;
use segl_audit::{OutcomeResult, Record, Settled};
use segl_hsm::{Error, KeyReport, Rung, Signed, verify::verify};
use segl_pool::{Completion, Failure, Inbox, Observer, TokenSet, core::Alarm};

use crate::{
    certificate::Validity,
    clock,
    config::{Purpose, SelfTest},
    keybook::{Holding, KeyBook, KeyCard},
    signing::{Address, Orders, Place, SelfTestOrder},
    state::Shared,
    vital::vital,
};

/// Between two tests of a key that passes, in seconds: one that can not sign is noticed before many people have.
const TEST_EVERY_S: i64 = 60;

/// Between two looks at what is due; a key that does not pass is tested at each.
const ROUND_EVERY: Duration = Duration::from_secs(5);

/// A self-test waits in the queue like a login; a token that needs longer than this is not one to rely on.
const TEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the journal may take with a self-test's intent.
const RECORD_TIMEOUT: Duration = Duration::from_secs(5);

/// Signatures discarded by self-tests, by result.
pub(crate) const SELF_TESTS: &str = "segl_self_tests_total";
/// Sessions lost, by token.
pub(crate) const SESSIONS_LOST: &str = "segl_sessions_lost_total";
/// Alarms raised by the pool, by token and kind.
pub(crate) const ALARMS: &str = "segl_token_alarms_total";

enum Event {
    /// The reports stand in the key book already
    LoggedIn {
        token: u16,
        reports: Vec<KeyReport>,
        to_test: Vec<Arc<KeyCard>>,
    },
    /// The token can not be had for now
    Away(u16),
    Replaced,
}

/// Hears the pool's news and passes on to the keeper what it needs.
pub(crate) struct News {
    events: Sender<Event>,
    keys: Arc<KeyBook>,
    token_names: Vec<Arc<str>>,
}

/// Where self-tests' completions come back.
#[derive(Debug, Default)]
pub(crate) struct TestInbox {
    completions: Mutex<Vec<Completion>>,
    came: Condvar,
}

/// What the keeper has seen so far, for those who wait for it.
#[derive(Default)]
struct Seen {
    /// Each token's last report, and how many there were
    reports: HashMap<u16, (u64, Vec<KeyReport>)>,
    /// Tokens that were tried in vain, and have not reported since
    away: HashSet<u16>,
    /// Whether no event waits and no test runs
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

impl Inbox for TestInbox {
    fn deliver(&self, completions: &mut Vec<Completion>) {
        self.completions.lock().unwrap_or_else(PoisonError::into_inner).append(completions);
        self.came.notify_one();
    }
}

impl Observer for News {
    /// The pool has not told the token to sign yet: what does not fit is withdrawn before this returns.
    fn token_logged_in(&self, token: u16, reports: Vec<KeyReport>) {
        let to_test = self.keys.reported(token, &reports);
        tracing::info!(token = &*self.token_names[usize::from(token)], keys = reports.len(), "logged in");
        // The keeper ends with the process only.
        let _ = self.events.send(Event::LoggedIn { token, reports, to_test });
    }

    fn session_lost(&self, token: u16, error: &Error) {
        let name = &self.token_names[usize::from(token)];
        tracing::warn!(token = &**name, %error, "a session was lost");
        counter!(SESSIONS_LOST, "token" => name.to_string()).increment(1);
    }

    fn alarm(&self, alarm: &Alarm) {
        let (token, kind) = match alarm {
            Alarm::SessionLost { token, .. } => (*token, "session-lost"),
            Alarm::TokenAway { token, .. } => (*token, "token-away"),
            Alarm::TokenBack { token } => (*token, "token-back"),
            Alarm::NeedsOperator { token, .. } => (*token, "needs-operator"),
            Alarm::RefreshFailed { token, .. } => (*token, "refresh-failed"),
            Alarm::FewerSessions { token, .. } => (*token, "fewer-sessions"),
            _ => return tracing::error!(?alarm, "alarm"),
        };
        if matches!(alarm, Alarm::TokenAway { .. } | Alarm::NeedsOperator { .. }) {
            let _ = self.events.send(Event::Away(token));
        }
        let name = &self.token_names[usize::from(token)];
        counter!(ALARMS, "token" => name.to_string(), "kind" => kind).increment(1);
        match alarm {
            Alarm::TokenBack { .. } => tracing::info!(token = &**name, "the token is back"),
            Alarm::FewerSessions { sessions, .. } => {
                tracing::warn!(token = &**name, sessions, "the token gives fewer sessions than configured");
            }
            Alarm::SessionLost { error, .. }
            | Alarm::TokenAway { error, .. }
            | Alarm::NeedsOperator { error, .. }
            | Alarm::RefreshFailed { error, .. } => tracing::error!(token = &**name, kind, %error, "alarm"),
            _ => {}
        }
    }
}

impl Keeper {
    /// The two ends: the pool is given the news, the keeper starts when everything else stands.
    pub(crate) fn prepare(keys: Arc<KeyBook>, token_names: Vec<Arc<str>>) -> (News, KeeperStart) {
        let (events, received) = mpsc::channel();
        (News { events: events.clone(), keys, token_names }, KeeperStart { events, received })
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
    /// Starts the keeper's thread. `inbox` is the number that `tests` has in the pool.
    pub(crate) fn start(self, shared: Arc<Shared>, inbox: u16, tests: Arc<TestInbox>) -> std::io::Result<Arc<Keeper>> {
        let keeper = Arc::new(Keeper { events: self.events, seen: Mutex::default(), changed: Condvar::new() });
        let rounds = Rounds { shared, keeper: keeper.clone(), inbox, tests, next_tag: 0 };
        thread::Builder::new()
            .name("segl-keeper".into())
            .spawn(move || vital("the keeper", || rounds.keep(&self.received)))?;
        Ok(keeper)
    }
}

/// The keeper's thread.
struct Rounds {
    shared: Arc<Shared>,
    keeper: Arc<Keeper>,
    inbox: u16,
    tests: Arc<TestInbox>,
    next_tag: u64,
}

/// A test under way.
struct Test {
    card: Arc<KeyCard>,
    token: u16,
    probe: Probe,
}

/// What is done to find out.
enum Probe {
    /// It signs something
    Signature {
        /// In the journal
        intent: u64,
        order: SelfTestOrder,
    },
    /// The token is asked whether it is there
    Presence,
}

impl Rounds {
    fn keep(mut self, events: &Receiver<Event>) {
        let mut next_round = Instant::now() + ROUND_EVERY;
        loop {
            let mut replacements = 0;
            let mut due = match events.recv_timeout(next_round.saturating_duration_since(Instant::now())) {
                Ok(event) => {
                    self.keeper.change(|seen| seen.idle = false);
                    replacements += usize::from(matches!(event, Event::Replaced));
                    self.take(event)
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    next_round = Instant::now() + ROUND_EVERY;
                    self.due()
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            };
            while let Ok(event) = events.try_recv() {
                replacements += usize::from(matches!(event, Event::Replaced));
                due.extend(self.take(event));
            }
            self.round(due);
            self.keeper.change(|seen| {
                seen.idle = true;
                seen.replacements -= replacements;
            });
        }
    }

    /// What is to be tested after this.
    fn take(&self, event: Event) -> Vec<(Arc<KeyCard>, u16)> {
        match event {
            Event::LoggedIn { token, reports, to_test } => {
                self.keeper.change(|seen| {
                    seen.away.remove(&token);
                    let entry = seen.reports.entry(token).or_default();
                    *entry = (entry.0 + 1, reports);
                });
                to_test.into_iter().map(|card| (card, token)).collect()
            }
            Event::Away(token) => {
                self.keeper.change(|seen| {
                    seen.away.insert(token);
                });
                Vec::new()
            }
            Event::Replaced => {
                let reports = self.keeper.seen.lock().unwrap_or_else(PoisonError::into_inner).reports.clone();
                let cards = |(token, (_, reports)): (u16, (u64, Vec<KeyReport>))| {
                    self.shared.keys.reported(token, &reports).into_iter().map(move |card| (card, token))
                };
                reports.into_iter().flat_map(cards).collect()
            }
        }
    }

    /// What has not passed, or not for a while.
    fn due(&self) -> Vec<(Arc<KeyCard>, u16)> {
        let held = |card: Arc<KeyCard>| {
            card.holdings().into_iter().map(move |(token, holding)| (card.clone(), token, holding))
        };
        let now_s = clock::unix_s();
        let is_due = |holding: &Holding| match holding {
            Holding::Untested | Holding::Failed(_) => true,
            Holding::Passed(at_s) => now_s - at_s >= TEST_EVERY_S,
            Holding::Unfit(_) => false,
        };
        let all = self.shared.keys.cards().into_iter().flat_map(held);
        all.filter(|(_, _, holding)| is_due(holding)).map(|(card, token, _)| (card, token)).collect()
    }

    /// Tests what is due and puts the routes right.
    fn round(&mut self, due: Vec<(Arc<KeyCard>, u16)>) {
        let mut under_way = HashMap::new();
        let mut orders = Orders::default();
        for (card, token) in &due {
            match self.order(&mut orders, card, *token) {
                Ok((tag, test)) => drop(under_way.insert(tag, test)),
                Err(why) => self.postponed(card, *token, &why),
            }
        }
        self.shared.desk.submit(&mut orders);
        let end = Instant::now() + TEST_TIMEOUT + RECORD_TIMEOUT;
        while !under_way.is_empty() {
            let Some(completions) = self.completions(end) else { break };
            for completion in completions {
                if let Some(test) = under_way.remove(&completion.tag) {
                    match self.check(&test, &completion) {
                        Ok(()) => self.judge(&test.card, test.token, Ok(())),
                        Err(Doubt::Key(why)) => self.judge(&test.card, test.token, Err(why)),
                        Err(Doubt::Circumstances(why)) => self.postponed(&test.card, test.token, &why),
                    }
                }
            }
        }
        for test in under_way.into_values() {
            if let Probe::Signature { intent, .. } = test.probe {
                self.shared.desk.abandon(intent, "no answer to a self-test");
            }
            self.postponed(&test.card, test.token, "the token did not answer in time");
        }
        // Also of what was not tested something may have been withdrawn.
        for card in self.shared.keys.cards() {
            let fit = card.fit_tokens();
            card.set_route((!fit.is_empty()).then(|| self.route_over(fit)));
        }
    }

    fn order(&mut self, orders: &mut Orders, card: &KeyCard, token: u16) -> Result<(u64, Test), String> {
        let card = self.shared.keys.card(card.entry.id).ok_or("the key is gone")?;
        let shown = card.shown().ok_or("no token has shown its public key")?;
        let algorithm = *card.entry.algorithms.first().ok_or("the key has no algorithm")?;
        let place = Place {
            route: self.route_over(TokenSet::only(token)),
            only_token: Some(token),
            spki_sha256: shown.spki_sha256,
        };
        let deadline_ns = self.shared.desk.now_ns() + TEST_TIMEOUT.as_nanos() as u64;
        self.next_tag += 1;
        let address = Address { inbox: self.inbox, tag: self.next_tag };
        let desk = &self.shared.desk;
        let probe = if is_used_to_test(&card) {
            let (intent, order) = desk
                .order_self_test(orders, &card.entry, algorithm, place, deadline_ns, address)
                .map_err(|error| error.to_string())?;
            Probe::Signature { intent, order }
        } else {
            desk.order_presence(orders, &card.entry, algorithm, place, deadline_ns, address);
            Probe::Presence
        };
        Ok((self.next_tag, Test { card, token, probe }))
    }

    fn completions(&self, end: Instant) -> Option<Vec<Completion>> {
        let waiting = self.tests.completions.lock().unwrap_or_else(PoisonError::into_inner);
        let left = end.saturating_duration_since(Instant::now());
        let (mut waiting, _) = self
            .tests
            .came
            .wait_timeout_while(waiting, left, |waiting| waiting.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        let taken = std::mem::take(&mut *waiting);
        (!taken.is_empty()).then_some(taken)
    }

    /// Whether the key is well.
    fn check(&self, test: &Test, completion: &Completion) -> Result<(), Doubt> {
        match &test.probe {
            Probe::Signature { intent, order } => self.check_signature(test, *intent, order, completion),
            Probe::Presence => completion.result.as_ref().map(drop).map_err(doubt),
        }
    }

    /// Whether the signature is right; it is destroyed in any case.
    fn check_signature(
        &self,
        test: &Test,
        intent: u64,
        order: &SelfTestOrder,
        completion: &Completion,
    ) -> Result<(), Doubt> {
        let token = &self.shared.token_names[usize::from(test.token)];
        let settled = self.shared.desk.journal().wait(intent, RECORD_TIMEOUT);
        let outcome = match &completion.result {
            Err(failure) => Err(doubt(failure)),
            Ok(_) if settled != Settled::Durable => Err(Doubt::Circumstances("its intent was not recorded".into())),
            Ok(signature) => match test.card.shown() {
                Some(shown) => verify(&shown.info.spki_der, order.algorithm, order.message(), signature)
                    .map_err(|_| Doubt::Key("it made a WRONG signature".into())),
                None => Err(Doubt::Circumstances("no token has shown its public key".into())),
            },
        };
        let reason = match &outcome {
            Ok(()) => "self-test passed".to_owned(),
            Err(Doubt::Key(why) | Doubt::Circumstances(why)) => format!("self-test failed: {why}"),
        };
        let result = match completion.verdict() {
            None => OutcomeResult::Discarded { reason: reason.into(), signature_sha256: None },
            Some(verdict) if verdict.signed == Signed::Unknown => OutcomeResult::Unknown { code: reason.into() },
            Some(_) => OutcomeResult::NotSigned { code: reason.into() },
        };
        self.shared.desk.close(intent, result, Some(token), completion);
        outcome
    }

    /// The test says nothing about the key: it stays as it is and is tested again soon.
    fn postponed(&self, card: &KeyCard, token: u16, why: &str) {
        let (key, name) = (&*card.entry.name, &*self.shared.token_names[usize::from(token)]);
        count(key, name, "postponed");
        tracing::warn!(key, token = name, why, "a self-test could not be made");
    }

    fn judge(&self, card: &KeyCard, token: u16, outcome: Result<(), String>) {
        let (key, name) = (&*card.entry.name, &*self.shared.token_names[usize::from(token)]);
        count(key, name, if outcome.is_ok() { "passed" } else { "failed" });
        match &outcome {
            Ok(()) => tracing::debug!(key, token = name, "self-test passed"),
            Err(why) => {
                tracing::error!(key, token = name, why, "self-test failed: the key is not used there");
                self.shared.desk.note(&Record::Token(segl_audit::Token {
                    token: name.into(),
                    event: "self-test-failed".into(),
                    detail: format!("{key}: {why}").into(),
                }));
            }
        }
        card.tested(token, outcome);
    }

    fn route_over(&self, tokens: TokenSet) -> segl_pool::RouteId {
        let (route, changed) = self.shared.keys.route(tokens);
        if let Some(routes) = changed {
            self.shared.desk.set_routes(&routes);
        }
        route
    }
}

/// What a failed self-test casts doubt on.
enum Doubt {
    /// The key on that token: it is not used there until it passes
    Key(String),
    /// Only the moment: session, load, disk. The pool deals with those for every request
    Circumstances(String),
}

fn doubt(failure: &Failure) -> Doubt {
    match failure {
        Failure::Token(error) if error.verdict().rung == Rung::None => Doubt::Key(error.to_string()),
        other => Doubt::Circumstances(other.to_string()),
    }
}

fn count(key: &str, token: &str, result: &'static str) {
    counter!(SELF_TESTS, "key" => key.to_owned(), "token" => token.to_owned(), "result" => result).increment(1);
}

/// Whether a self-test may use the key. A use of a CA's key is an event of its own, and one whose certificate is not
/// valid yet must not sign at all: of those the token is only asked whether it holds them.
fn is_used_to_test(card: &KeyCard) -> bool {
    card.entry.self_test == SelfTest::Sign
        && card.entry.purpose != Purpose::Certificate
        && card.entry.validity(clock::unix_s()) == Validity::Valid
}
