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
use segl_audit::{OutcomeResult, Record, Settled};
use segl_hsm::{KeyReport, Rung, Signed, verify::verify};
use segl_pool::{Completion, Failure, TokenSet, TokenState};

use super::{Event, Keeper, WRONG_SIGNATURES};
use crate::{
    clock,
    config::{Purpose, SelfTest},
    gate::{Gate, and_more},
    keybook::{Holding, KeyCard},
    signing::{Address, Orders, Place, SelfTestOrder},
    state::Shared,
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

/// The keeper's thread.
pub(super) struct Trials {
    shared: Arc<Shared>,
    keeper: Arc<Keeper>,
    inbox: u16,
    next_tag: u64,
    under_way: HashMap<u64, Test>,
    /// The latest of each token
    trials: HashMap<u16, Trial>,
    next_trial: u64,
    /// Replacements of the key book that the tests under way look after
    replacements: usize,
    /// What is held where may have changed since the routes were put right
    changed: bool,
    /// For the log, when no tests can be made
    postponed: Gate,
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
}

/// A test under way.
struct Test {
    card: Arc<KeyCard>,
    token: u16,
    question: Question,
    trial: Option<u64>,
    ends: Instant,
}

/// What is done to find out.
enum Question {
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
            trials: HashMap::new(),
            next_trial: 0,
            replacements: 0,
            changed: false,
            postponed: Gate::new(1),
        }
    }

    pub(super) fn keep(mut self, events: &Receiver<Event>) {
        let mut next_round = Instant::now() + ROUND_EVERY;
        loop {
            let wake = self.under_way.values().map(|test| test.ends).chain([next_round]).min().unwrap_or(next_round);
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
                let due = self.due();
                self.begin(due, None);
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
                if !self.trials.contains_key(&token) {
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
                self.begin(due, None);
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
            // Who waits may have given up.
            Event::Flush(done) => drop(done.send(())),
        }
    }

    /// Begins a trial of a token by these keys.
    fn try_token(&mut self, token: u16, cards: Vec<Arc<KeyCard>>) {
        self.next_trial += 1;
        let number = self.next_trial;
        // A login to a token that is on probation already, as for new keys, does not end that.
        let probation = self.trials.get(&token).and_then(|trial| trial.probation);
        self.trials.insert(token, Trial { number, left: cards.len(), passed: 0, unclear: 0, probation });
        self.begin(cards.into_iter().map(|card| (card, token)).collect(), Some(number));
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
            Holding::Passed(at_s) => now_s - at_s >= TEST_EVERY_S || card.entry.begins_in(*at_s, now_s),
            Holding::Unfit(_) | Holding::Stranger(_) => false,
        };
        let tested = |id, token| self.under_way.values().any(|test| test.card.entry.id == id && test.token == token);
        let all = self.shared.keys.cards().into_iter().flat_map(held);
        all.filter(|(card, token, holding)| is_due(card, holding) && !tested(card.entry.id, *token))
            .map(|(card, token, _)| (card, token))
            .collect()
    }

    fn begin(&mut self, due: Vec<(Arc<KeyCard>, u16)>, trial: Option<u64>) {
        self.changed = true;
        let mut orders = Orders::default();
        for (card, token) in due {
            match self.order(&mut orders, &card, token, trial) {
                Ok((tag, test)) => drop(self.under_way.insert(tag, test)),
                Err(why) => self.end(trial, &card, token, Err(Doubt::Circumstances(why))),
            }
        }
        self.shared.desk.submit(&mut orders);
    }

    fn order(
        &mut self,
        orders: &mut Orders,
        card: &KeyCard,
        token: u16,
        trial: Option<u64>,
    ) -> Result<(u64, Test), String> {
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
        Ok((self.next_tag, Test { card, token, question, trial, ends: Instant::now() + TEST_TIMEOUT + RECORD_TIMEOUT }))
    }

    fn tested(&mut self, completion: &Completion) {
        if let Some(test) = self.under_way.remove(&completion.tag) {
            let outcome = self.check(&test, completion);
            self.end(test.trial, &test.card, test.token, outcome);
        }
    }

    fn give_up_overdue(&mut self) {
        let now = Instant::now();
        for (_, test) in self.under_way.extract_if(|_, test| test.ends <= now).collect::<Vec<_>>() {
            if let Question::Signature { intent, .. } = test.question {
                self.shared.desk.abandon(intent, "no answer to a self-test");
            }
            let why = Doubt::Circumstances("the token did not answer in time".into());
            self.end(test.trial, &test.card, test.token, Err(why));
        }
    }

    /// A test is over.
    fn end(&mut self, trial: Option<u64>, card: &KeyCard, token: u16, outcome: Result<(), Doubt>) {
        self.changed = true;
        if let Some(of) = self.trials.get_mut(&token).filter(|of| trial == Some(of.number)) {
            of.left -= 1;
            of.passed += usize::from(outcome.is_ok());
            of.unclear += usize::from(matches!(outcome, Err(Doubt::Circumstances(_))));
        }
        match outcome {
            Ok(()) => self.judge(card, token, Ok(())),
            Err(Doubt::Key(why)) => self.judge(card, token, Err(why)),
            Err(Doubt::Circumstances(why)) => self.postpone(card, token, &why),
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
            let fit = card.fit_tokens();
            card.set_route((!fit.is_empty()).then(|| self.route_over(fit)));
        }
    }

    /// Whether the key is well.
    fn check(&self, test: &Test, completion: &Completion) -> Result<(), Doubt> {
        match &test.question {
            Question::Signature { intent, order } => self.check_signature(test, *intent, order, completion),
            Question::Presence => completion.result.as_ref().map(drop).map_err(doubt),
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
        let settled = self.shared.desk.wait_until_settled(intent, RECORD_TIMEOUT);
        let outcome = match &completion.result {
            Err(failure) => Err(doubt(failure)),
            Ok(_) if settled != Settled::Durable => Err(Doubt::Circumstances("its intent was not recorded".into())),
            Ok(signature) => match test.card.shown() {
                Some(shown) => {
                    verify(&shown.info.spki_der, order.algorithm, order.message(), signature).map_err(|_| {
                        counter!(WRONG_SIGNATURES, "token" => token.to_string()).increment(1);
                        Doubt::Key("it made a WRONG signature".into())
                    })
                }
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
    fn postpone(&self, card: &KeyCard, token: u16, why: &str) {
        let (key, name) = (&*card.entry.label, &*self.shared.token_names[usize::from(token)]);
        count(key, name, "postponed");
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
