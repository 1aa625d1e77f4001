//! Self-tests: when they are due, what came of them, and what follows for keys and tokens.
//!
//! What is tested because a token has logged in is one *trial* of it. When the token is on probation, the end of the
//! trial is the word that the pool waits for.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use metrics::counter;
use segl_audit::Record;
use segl_hsm::{KeyId, KeyReport};
use segl_pool::{Completion, TokenSet, TokenState};

use super::{
    Event, Keeper,
    asked::{Asked, Asks},
    checks::Doubt,
    suspects::Suspects,
};
use crate::{
    clock,
    config::{Purpose, SelfTest},
    gate::{Gate, and_more},
    keybook::{Holding, KeyCard, LastTest, TestVerdict},
    signing::{Address, Orders, Place, SelfTestOrder},
    state::Shared,
};

/// Between two tests of a key that passes, in seconds: one that can not sign is noticed before many people have.
const TEST_EVERY_S: i64 = 60;

/// Between two looks at what is due; a key that does not pass is tested at each.
const ROUND_EVERY: Duration = Duration::from_secs(5);

/// Between two looks whether a key that was set aside can be tried again, when it is time: its token may be away.
const RETRIAL_EVERY: Duration = Duration::from_millis(250);

/// A self-test waits in the queue like a login; a token that needs longer than this is not one to rely on.
const TEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the journal may take with a self-test's intent.
pub(super) const RECORD_TIMEOUT: Duration = Duration::from_secs(5);

/// Signatures discarded by self-tests, by result.
pub(crate) const SELF_TESTS: &str = "segl_self_tests_total";

/// The keeper's thread.
pub(super) struct Trials {
    pub(super) shared: Arc<Shared>,
    keeper: Arc<Keeper>,
    inbox: u16,
    next_tag: u64,
    under_way: HashMap<u64, Test>,
    /// Nobody waits for these any more; they are still in the token, and what comes of them is recorded
    given_up: HashMap<u64, Test>,
    suspects: Suspects,
    /// The latest of each token
    trials: HashMap<u16, Trial>,
    next_trial: u64,
    /// Replacements of the key book that the tests under way look after
    replacements: usize,
    /// What is held where may have changed since the routes were put right
    changed: bool,
    /// For the log, when no tests can be made
    postponed: Gate,
    /// What operators wait for
    asks: Asks,
}

/// On whose account a test is made.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cause {
    trial: Option<u64>,
    pub(super) asked: Option<u64>,
}

/// What the keys of a token have shown since it logged in.
#[derive(Debug)]
struct Trial {
    number: u64,
    left: usize,
    passed: usize,
    /// Tests that say nothing of their keys, and so much of the token
    unclear: usize,
    /// Which of the token's probations it decides on
    probation: Option<u64>,
}

impl Trial {
    /// Whether the token may sign: some key of it has shown that it does, or nothing speaks against it. A key that fails
    /// by itself is not used there, which is no reason to take it from the others.
    fn speaks_for_it(&self) -> bool {
        self.passed > 0 || self.unclear == 0
    }

    fn came_to_nothing(&self) -> bool {
        self.left == 0 && self.passed == 0 && self.unclear > 0
    }
}

/// A test under way.
pub(super) struct Test {
    pub(super) card: Arc<KeyCard>,
    pub(super) token: u16,
    pub(super) question: Question,
    cause: Cause,
    ends: Instant,
}

/// What is done to find out.
pub(super) enum Question {
    /// It signs something
    Signature {
        /// In the journal
        intent: u64,
        order: SelfTestOrder,
    },
    /// The token is asked whether it is there
    Presence,
}

impl Trials {
    pub(super) fn new(shared: Arc<Shared>, keeper: Arc<Keeper>, inbox: u16) -> Trials {
        Trials {
            shared,
            keeper,
            inbox,
            next_tag: 0,
            under_way: HashMap::new(),
            given_up: HashMap::new(),
            suspects: Suspects::default(),
            trials: HashMap::new(),
            next_trial: 0,
            replacements: 0,
            changed: false,
            postponed: Gate::new(1),
            asks: Asks::default(),
        }
    }

    pub(super) fn keep(mut self, events: &Receiver<Event>) {
        let mut next_round = Instant::now() + ROUND_EVERY;
        let mut looked = Instant::now();
        loop {
            let retrial = self.suspects.guilty().into_iter().map(|(.., not_before)| not_before).min();
            let retrial = retrial.map(|not_before| not_before.max(looked + RETRIAL_EVERY));
            let ends = self.under_way.values().map(|test| test.ends);
            let wake = ends.chain(retrial).fold(next_round, Instant::min);
            match events.recv_timeout(wake.saturating_duration_since(Instant::now())) {
                Ok(event) => {
                    self.keeper.change(|seen| seen.idle = false);
                    self.take(event);
                    while let Ok(event) = events.try_recv() {
                        self.take(event);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= next_round {
                next_round = Instant::now() + ROUND_EVERY;
                self.try_forgotten();
                let due = self.due();
                self.begin(due, Cause::default());
            }
            if retrial.is_some_and(|retrial| retrial <= Instant::now()) {
                looked = Instant::now();
                let due = self.retrials(looked);
                self.begin(due, Cause::default());
            }
            self.give_up_overdue();
            // First the ways, then the word: a key that has failed must not be asked for by clients.
            if std::mem::take(&mut self.changed) {
                self.put_routes_right();
            }
            self.vouch();
            if self.under_way.is_empty() {
                let tested_after = std::mem::take(&mut self.replacements);
                self.keeper.change(|seen| {
                    seen.idle = true;
                    seen.replacements -= tested_after;
                });
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::LoggedIn { token, reports, to_test } => {
                self.keeper.change(|seen| {
                    seen.away.remove(&token);
                    let entry = seen.reports.entry(token).or_default();
                    *entry = (entry.0 + 1, reports);
                });
                self.try_token(token, to_test);
            }
            Event::Away(token) => {
                // It may be back by now: what two of the pool's threads have to say comes in any order, and a trial
                // that is forgotten on a probation leaves the token on it for good.
                let tokens = self.shared.desk.pool_snapshot().tokens;
                if tokens.get(usize::from(token)).is_none_or(|token| token.state != TokenState::Probation) {
                    self.trials.remove(&token);
                }
                self.keeper.change(|seen| {
                    seen.away.insert(token);
                });
            }
            Event::Probation(token, round) => {
                // A trial that ended in nothing may have begun before the pool knew of the login.
                if self.trials.get(&token).is_none_or(Trial::came_to_nothing) {
                    let held = |card: &Arc<KeyCard>| {
                        card.holdings().iter().any(|(at, holding)| *at == token && !holding.is_unfit())
                    };
                    let cards = self.shared.keys.cards().into_iter().filter(held).collect();
                    self.try_token(token, cards);
                }
                if let Some(trial) = self.trials.get_mut(&token) {
                    // An earlier one may be told of later.
                    trial.probation = trial.probation.max(Some(round));
                }
            }
            Event::Tested(completions) => completions.iter().for_each(|completion| self.tested(completion)),
            Event::Replaced => {
                self.replacements += 1;
                let reports = self.keeper.seen.lock().unwrap_or_else(PoisonError::into_inner).reports.clone();
                let cards = |(token, (_, reports)): (u16, (u64, Vec<KeyReport>))| {
                    self.shared.keys.reported(token, &reports).into_iter().map(move |card| (card, token))
                };
                let due = reports.into_iter().flat_map(cards).collect();
                self.begin(due, Cause::default());
            }
            // A question about a key's presence uses no key and has no intent.
            Event::Discarded { intent: 0, .. } => {}
            Event::Discarded { intent, token, reason, signed } => {
                self.shared.desk.discarded(intent, token, reason, signed);
            }
            Event::Noted { token, event, detail } => {
                let token = self.shared.token_names[usize::from(token)].as_ref().into();
                self.shared.desk.note(&Record::Token(segl_audit::Token {
                    token,
                    event: event.into(),
                    detail: detail.into(),
                }));
            }
            Event::Asked(asked) => self.ask(asked),
            // Who waits may have given up.
            Event::Flush(done) => drop(done.send(())),
        }
    }

    /// A token on probation signs nothing until its trial is over, so none is left without one, whatever order the
    /// pool's news came in.
    fn try_forgotten(&mut self) {
        for (token, state) in (0..).zip(self.shared.desk.pool_snapshot().tokens) {
            if state.state == TokenState::Probation && !self.trials.contains_key(&token) {
                self.take(Event::Probation(token, state.rungs.probations));
            }
        }
    }

    /// Begins a trial of a token by these keys.
    fn try_token(&mut self, token: u16, cards: Vec<Arc<KeyCard>>) {
        let cards = self.suspects.set_aside(token, cards, |card| card.entry.id);
        self.next_trial += 1;
        let number = self.next_trial;
        // A login to a token that is on probation already, as for new keys, does not end that.
        let probation = self.trials.get(&token).and_then(|trial| trial.probation);
        self.trials.insert(token, Trial { number, left: cards.len(), passed: 0, unclear: 0, probation });
        let cause = Cause { trial: Some(number), asked: None };
        self.begin(cards.into_iter().map(|card| (card, token)).collect(), cause);
    }

    /// What has not passed, or not for a while, and is not being tested.
    fn due(&self) -> Vec<(Arc<KeyCard>, u16)> {
        let held = |card: Arc<KeyCard>| {
            card.holdings().into_iter().map(move |(token, holding)| (card.clone(), token, holding))
        };
        let now_s = clock::unix_s();
        let is_due = |card: &KeyCard, holding: &Holding| match holding {
            Holding::Untested | Holding::Failed(_) => true,
            // What was only looked at as long as it did not sign has to show now that it can.
            // One that was passed in the future was passed by a clock that has been set back since.
            Holding::Passed(at_s) => !(0..TEST_EVERY_S).contains(&(now_s - at_s)) || card.entry.begins_in(*at_s, now_s),
            Holding::Unfit(_) | Holding::Stranger(_) => false,
        };
        let tokens = self.shared.desk.pool_snapshot().tokens;
        // One that is away refuses every test: it is tested when it comes back.
        let answers = |token: u16| {
            tokens
                .get(usize::from(token))
                .is_some_and(|token| matches!(token.state, TokenState::Ready | TokenState::Probation))
        };
        let tested = |id, token| self.tests().any(|test| test.card.entry.id == id && test.token == token);
        let all = self.shared.keys.cards().into_iter().flat_map(held);
        let due = all.filter(|(card, token, holding)| {
            let id = card.entry.id;
            is_due(card, holding) && answers(*token) && !tested(id, *token) && !self.suspects.holds(id, *token)
        });
        due.map(|(card, token, _)| (card, token)).collect()
    }

    /// What was set aside and is to be tried again now: on a token that is well, and by itself, since nobody else is to
    /// be taken along.
    fn retrials(&mut self, now: Instant) -> Vec<(Arc<KeyCard>, u16)> {
        let tokens = self.shared.desk.pool_snapshot().tokens;
        let is_well = |token: u16| tokens.get(usize::from(token)).is_some_and(|token| token.state == TokenState::Ready);
        let mut due: Vec<(Arc<KeyCard>, u16)> = Vec::new();
        for (id, token, not_before) in self.suspects.guilty() {
            let card = self.shared.keys.card(id).filter(|card| card.holding(token).is_some_and(|at| !at.is_unfit()));
            let Some(card) = card else {
                // It is not there any more.
                self.suspects.clear(id, token);
                continue;
            };
            let is_free =
                !due.iter().any(|(_, other)| *other == token) && !self.tests().any(|test| test.token == token);
            if not_before <= now && is_well(token) && is_free {
                self.suspects.tries(id, token, now);
                due.push((card, token));
            }
        }
        due
    }

    fn tests(&self) -> impl Iterator<Item = &Test> {
        self.under_way.values().chain(self.given_up.values())
    }

    /// Begins what an operator has asked for, and leaves the rest unmade with a reason.
    fn ask(&mut self, asked: Asked) {
        let held = |card: Arc<KeyCard>| {
            card.holdings().into_iter().map(move |(token, holding)| (card.clone(), token, holding))
        };
        let tokens = self.shared.desk.pool_snapshot().tokens;
        let cards = self.shared.keys.cards().into_iter().filter(|card| asked.wants(&card.entry));
        let (mut due, mut unmade) = (Vec::new(), Vec::new());
        for (card, token, holding) in cards.flat_map(held) {
            let state = tokens[usize::from(token)].state;
            match &holding {
                Holding::Unfit(why) | Holding::Stranger(why) => unmade.push((card, token, why.clone())),
                _ if !matches!(state, TokenState::Ready | TokenState::Probation) => {
                    unmade.push((card, token, format!("the token is {}", state.name())));
                }
                _ if self.suspects.holds(card.entry.id, token) => {
                    let why = "set aside: it brought the token down, and is tried again by itself";
                    unmade.push((card, token, why.to_owned()));
                }
                _ => due.push((card, token)),
            }
        }
        let number = self.asks.begin(asked, due.len(), &unmade, &self.shared.token_names);
        self.begin(due, Cause { trial: None, asked: Some(number) });
    }

    fn begin(&mut self, due: Vec<(Arc<KeyCard>, u16)>, cause: Cause) {
        self.changed = true;
        let mut orders = Orders::default();
        for (card, token) in due {
            match self.order(&mut orders, &card, token, cause) {
                Ok((tag, test)) => drop(self.under_way.insert(tag, test)),
                Err(why) => self.end(cause, &card, token, Err(Doubt::Circumstances(why))),
            }
        }
        self.shared.desk.submit(&mut orders);
    }

    fn order(&mut self, orders: &mut Orders, card: &KeyCard, token: u16, cause: Cause) -> Result<(u64, Test), String> {
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
        let question = if is_used_to_test(&card) {
            let (intent, order) = desk
                .order_self_test(orders, &card.entry, algorithm, place, deadline_ns, address)
                .map_err(|error| error.to_string())?;
            Question::Signature { intent, order }
        } else {
            desk.order_presence(orders, &card.entry, algorithm, place, deadline_ns, address);
            Question::Presence
        };
        Ok((self.next_tag, Test { card, token, question, cause, ends: Instant::now() + TEST_TIMEOUT + RECORD_TIMEOUT }))
    }

    fn tested(&mut self, completion: &Completion) {
        if let Some(test) = self.given_up.remove(&completion.tag) {
            // What it shows came too late to say anything of the key.
            let _ = self.check(&test, completion);
        } else if let Some(test) = self.under_way.remove(&completion.tag) {
            let outcome = self.check(&test, completion);
            self.end(test.cause, &test.card, test.token, outcome);
        }
    }

    fn give_up_overdue(&mut self) {
        let now = Instant::now();
        for (tag, test) in self.under_way.extract_if(|_, test| test.ends <= now).collect::<Vec<_>>() {
            let why = Doubt::Circumstances("the token did not answer in time".into());
            self.end(test.cause, &test.card, test.token, Err(why));
            self.given_up.insert(tag, test);
        }
    }

    /// A test is over.
    fn end(&mut self, cause: Cause, card: &KeyCard, token: u16, outcome: Result<(), Doubt>) {
        self.changed = true;
        if let Some(of) = self.trials.get_mut(&token).filter(|of| cause.trial == Some(of.number)) {
            of.left -= 1;
            of.passed += usize::from(outcome.is_ok());
            of.unclear += usize::from(matches!(outcome, Err(Doubt::Circumstances(_) | Doubt::Token(_))));
        }
        let id = card.entry.id;
        match outcome {
            Ok(()) => {
                self.suspects.clear(id, token);
                self.judge(card, token, Ok(()));
            }
            Err(Doubt::Key(why)) => {
                self.suspects.clear(id, token);
                self.judge(card, token, Err(why));
            }
            Err(Doubt::Circumstances(why)) => self.postpone(card, token, &why),
            Err(Doubt::Token(why)) => {
                let cards = self.shared.keys.cards();
                let signed_since = |moment_s| others_signed(&cards, id, token, moment_s);
                if self.suspects.accuse(id, token, (Instant::now(), clock::unix_s()), signed_since) {
                    self.judge(card, token, Err(format!("it brings the token down, whose other keys sign: {why}")));
                } else {
                    self.postpone(card, token, &why);
                }
            }
        }
        if let Some(number) = cause.asked {
            self.asks.ended(number, card, token, &self.shared.token_names);
        }
    }

    /// Gives the pool the word on tokens whose trial is over.
    fn vouch(&mut self) {
        let over = self.trials.extract_if(|_, trial| trial.probation.is_some() && trial.left == 0);
        for (token, trial) in over.collect::<Vec<_>>() {
            let Some(round) = trial.probation else { continue };
            let ok = trial.speaks_for_it();
            let (name, passed, unclear) = (&*self.shared.token_names[usize::from(token)], trial.passed, trial.unclear);
            if ok {
                tracing::info!(token = name, passed, unclear, "it has passed its self-test and signs");
            } else if let Some(held_back) = self.postponed.passes(self.shared.desk.now_ns()) {
                tracing::warn!(
                    token = name,
                    unclear,
                    "{}",
                    and_more("its self-test failed; it is tried again", held_back)
                );
            }
            self.shared.desk.vouch(token, round, ok);
        }
    }

    /// Also of what was not tested something may have been withdrawn.
    fn put_routes_right(&self) {
        for card in self.shared.keys.cards() {
            card.put_route_right(|tokens| self.route_over(tokens));
        }
    }

    /// The test says nothing about the key: it stays as it is and is tested again soon.
    fn postpone(&self, card: &KeyCard, token: u16, why: &str) {
        let (key, name) = (&*card.entry.label, &*self.shared.token_names[usize::from(token)]);
        count(key, name, "postponed");
        note(card, token, TestVerdict::Postponed(why.to_owned()));
        if let Some(held_back) = self.postponed.passes(self.shared.desk.now_ns()) {
            tracing::warn!(
                key,
                token = name,
                "{}",
                and_more(&format!("a self-test could not be made: {why}"), held_back)
            );
        }
    }

    fn judge(&self, card: &KeyCard, token: u16, outcome: Result<(), String>) {
        let (key, name) = (&*card.entry.label, &*self.shared.token_names[usize::from(token)]);
        count(key, name, if outcome.is_ok() { "passed" } else { "failed" });
        note(card, token, outcome.clone().map_or_else(TestVerdict::Failed, |()| TestVerdict::Passed));
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

/// Whether another key than this one has passed on the token after the moment, in Unix seconds.
fn others_signed(cards: &[Arc<KeyCard>], id: KeyId, token: u16, moment_s: i64) -> bool {
    let signed = |card: &Arc<KeyCard>| {
        card.entry.id != id && matches!(card.holding(token), Some(Holding::Passed(at_s)) if at_s > moment_s)
    };
    cards.iter().any(signed)
}

fn count(key: &str, token: &str, result: &'static str) {
    counter!(SELF_TESTS, "key" => key.to_owned(), "token" => token.to_owned(), "result" => result).increment(1);
}

fn note(card: &KeyCard, token: u16, verdict: TestVerdict) {
    card.note_test(token, LastTest { at_s: clock::unix_s(), verdict, signed: is_used_to_test(card) });
}

/// Whether a self-test may use the key. A use of a CA's key is an event of its own, and a version whose time is not now,
/// or whose certificate is not valid, must not sign at all: of those the token is only asked whether it holds them.
fn is_used_to_test(card: &KeyCard) -> bool {
    card.entry.self_test == SelfTest::Sign
        && card.entry.purpose != Purpose::Certificate
        && card.entry.signs(clock::unix_s())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_vouched_for_when_a_key_has_passed_or_nothing_speaks_against_it() {
        let trial = |passed, unclear| Trial { number: 1, left: 0, passed, unclear, probation: Some(1) };
        for (passed, unclear, expected, what) in [
            (1, 0, true, "it signs"),
            (1, 3, true, "it signs, whatever became of the others"),
            (0, 0, true, "no key of ours, or keys that fail by themselves and are not used there"),
            (0, 1, false, "all that is known is that it did not sign"),
        ] {
            assert_eq!(trial(passed, unclear).speaks_for_it(), expected, "{what}");
        }
    }
}
