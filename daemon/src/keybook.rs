//! What is known of each key at this moment: which tokens hold it, what they showed, whether its self-test passed,
//! and so where it may be used. Reactors read it on every request, without a lock.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use arc_swap::{ArcSwap, ArcSwapOption};
use segl_hsm::{KeyId, KeyInfo, KeyReport};
use segl_pool::{RouteId, TokenSet};
use segl_wire::{KeyState, VersionPhase};

use crate::{
    certificate::{Validity, spki_sha256},
    clock,
    policy::{KeyEntry, conflicts},
    signing::Place,
};

/// No token may be used.
const NOWHERE: u32 = u32::MAX;

/// The keys of a configuration.
pub(crate) type Cards = HashMap<KeyId, Arc<KeyCard>>;

/// All keys.
#[derive(Debug, Default)]
pub(crate) struct KeyBook {
    cards: ArcSwap<Cards>,
    /// The pool's route table: it only grows, so that a route's number keeps its meaning
    routes: Mutex<Vec<TokenSet>>,
}

/// One key.
#[derive(Debug)]
pub(crate) struct KeyCard {
    /// What the configuration says
    pub(crate) entry: Arc<KeyEntry>,
    /// What the tokens say: one and the same under every configuration that has the key
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    /// By token index, as far as they have reported
    holdings: Mutex<Vec<(u16, Holding)>>,
    /// The last self-test on each token, for the operator
    tests: Mutex<HashMap<u16, LastTest>>,
    /// What the tokens showed
    shown: ArcSwapOption<Shown>,
    /// Written under the holdings' lock
    route: AtomicU32,
    /// For each token of the route the route over the others, if there are others
    detours: Mutex<Vec<(u16, RouteId)>>,
}

/// How a key's last self-test on a token ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LastTest {
    /// Unix seconds
    pub(crate) at_s: i64,
    /// What came of it
    pub(crate) verdict: TestVerdict,
    /// Whether the key signed for it; else the token was only asked whether it holds it
    pub(crate) signed: bool,
}

/// What came of a self-test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TestVerdict {
    /// The key is well
    Passed,
    /// It is not, and is not used there
    Failed(String),
    /// It says nothing of the key, and is made again
    Postponed(String),
}

/// The public key that the tokens showed.
#[derive(Debug)]
pub(crate) struct Shown {
    /// Type, size and public key
    pub(crate) info: KeyInfo,
    /// SHA-256 of its SubjectPublicKeyInfo
    pub(crate) spki_sha256: [u8; 32],
}

/// How one token stands to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Holding {
    /// It was found; no self-test yet
    Untested,
    /// It was found and its self-test passed, Unix seconds
    Passed(i64),
    /// Its self-test failed, and why; it is tested again
    Failed(String),
    /// What the token holds can not be used, and why; only another report changes that
    Unfit(String),
    /// The token holds another public key than the others under the same name, and nothing says which is right
    Stranger(String),
}

impl Holding {
    /// Whether only another report can change that it is not used.
    pub(crate) fn is_unfit(&self) -> bool {
        matches!(self, Holding::Unfit(_) | Holding::Stranger(_))
    }
}

/// Whether a key can be used.
#[derive(Clone, Debug)]
pub(crate) enum Readiness {
    /// There, unless the pool says that these tokens are away
    Usable(Place),
    /// No token that holds it has shown itself fit
    Unavailable,
    /// Its certificate is not valid now
    Expired,
    /// Tokens hold it, and none passes
    Faulty,
}

impl KeyBook {
    /// Takes over the keys of a configuration; what is known of those that stay is kept. Returns their cards.
    pub(crate) fn replace(&self, entries: impl Iterator<Item = Arc<KeyEntry>>) -> Arc<Cards> {
        let known = self.cards.load();
        let cards = entries.map(|entry| {
            let state = known.get(&entry.id).map(|old| old.state.clone()).unwrap_or_default();
            (entry.id, Arc::new(KeyCard { entry, state }))
        });
        let cards: Arc<Cards> = Arc::new(cards.collect());
        self.cards.store(cards.clone());
        cards
    }

    /// The card of a key, if it is one of those that are looked after now.
    pub(crate) fn card(&self, id: KeyId) -> Option<Arc<KeyCard>> {
        self.cards.load().get(&id).cloned()
    }

    /// All cards.
    pub(crate) fn cards(&self) -> Vec<Arc<KeyCard>> {
        let mut cards: Vec<_> = self.cards.load().values().cloned().collect();
        cards.sort_by(|a, b| a.entry.label.cmp(&b.entry.label));
        cards
    }

    /// A token has logged in and says what it holds. Returns what has to be tested there now.
    pub(crate) fn reported(&self, token: u16, reports: &[KeyReport]) -> Vec<Arc<KeyCard>> {
        let cards = self.cards.load();
        // A key that a reload took away may still be reported.
        let reported: Vec<_> =
            reports.iter().filter_map(|report| cards.get(&report.id).map(|card| (card, report))).collect();
        for (card, report) in &reported {
            card.reported(token, report);
        }
        self.enforce_one_use(&cards);
        let held = reported.into_iter().map(|(card, _)| card);
        held.filter(|card| card.holding(token).is_some_and(|holding| !holding.is_unfit())).cloned().collect()
    }

    /// Keys of which this token, or any, holds another one than those before it: name and what is wrong.
    pub(crate) fn strangers(&self, token: Option<u16>) -> Vec<String> {
        let stranger = |card: &Arc<KeyCard>| {
            let mut holdings = card.holdings().into_iter().filter(|(at, _)| token.is_none_or(|token| *at == token));
            holdings.find_map(|(_, holding)| match holding {
                Holding::Stranger(why) => Some(format!("key {}: {why}", card.entry.label)),
                _ => None,
            })
        };
        self.cards().iter().filter_map(stranger).collect()
    }

    /// One public key under two purposes would make each a way around the other's checks, and as two versions of one key
    /// nothing would be rolled over: neither is used.
    fn enforce_one_use(&self, cards: &HashMap<KeyId, Arc<KeyCard>>) {
        let shown: Vec<_> = cards.values().filter_map(|card| card.shown().map(|shown| (card, shown))).collect();
        let claims: Vec<_> = shown.iter().map(|(card, shown)| card.entry.claim(&shown.info.spki_der)).collect();
        for conflict in conflicts(&claims) {
            tracing::error!(%conflict, "one public key with two uses: it has neither");
            for at in [conflict.first, conflict.second] {
                shown[at].0.refuse_everywhere(&conflict.to_string());
            }
        }
    }

    /// The number of the route over these tokens, making one when there is none; the whole table when it is new, for
    /// the pool to be told.
    pub(crate) fn route(&self, tokens: TokenSet) -> (RouteId, Option<Vec<TokenSet>>) {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = routes.iter().position(|route| *route == tokens) {
            return (RouteId(at as u32), None);
        }
        routes.push(tokens);
        (RouteId(routes.len() as u32 - 1), Some(routes.clone()))
    }
}

impl Default for State {
    fn default() -> Self {
        State {
            holdings: Mutex::default(),
            tests: Mutex::default(),
            shown: ArcSwapOption::empty(),
            route: AtomicU32::new(NOWHERE),
            detours: Mutex::default(),
        }
    }
}

impl KeyCard {
    /// What each token said, by index.
    pub(crate) fn holdings(&self) -> Vec<(u16, Holding)> {
        self.state.holdings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn holding(&self, token: u16) -> Option<Holding> {
        self.holdings().into_iter().find_map(|(at, holding)| (at == token).then_some(holding))
    }

    /// The public key, once a token has shown it.
    pub(crate) fn shown(&self) -> Option<Arc<Shown>> {
        self.state.shown.load_full()
    }

    /// The tokens where it passed.
    pub(crate) fn fit_tokens(&self) -> TokenSet {
        passed(&self.holdings())
    }

    /// Requests go over the tokens where it passed from now on, by the routes that `route` knows: over all of them, and
    /// over those that are left when one of them is withdrawn, so that nobody has to wait for the next time.
    pub(crate) fn put_route_right(&self, route: impl Fn(TokenSet) -> RouteId) {
        loop {
            let fit = self.fit_tokens();
            let all = (!fit.is_empty()).then(|| route(fit));
            let others = fit.iter().map(|token| (token, fit.without(TokenSet::only(token))));
            let detours = others.filter(|(_, others)| !others.is_empty()).map(|(token, others)| (token, route(others)));
            let detours = detours.collect();
            // Something may have been withdrawn meanwhile.
            let holdings = self.state.holdings.lock().unwrap_or_else(PoisonError::into_inner);
            if passed(&holdings) == fit {
                *self.state.detours.lock().unwrap_or_else(PoisonError::into_inner) = detours;
                return self.state.route.store(all.map_or(NOWHERE, |route| route.0), Ordering::Relaxed);
            }
        }
    }

    /// Whether it can be used now, and where.
    pub(crate) fn readiness(&self, now_unix_s: i64) -> Readiness {
        match self.entry.validity(now_unix_s) {
            Validity::Valid => {}
            Validity::NotYet | Validity::Expired => return Readiness::Expired,
        }
        match (self.state.route.load(Ordering::Relaxed), self.state.shown.load().as_ref()) {
            (NOWHERE, _) | (_, None) => self.why_nowhere(),
            (route, Some(shown)) => {
                Readiness::Usable(Place { route: RouteId(route), only_token: None, spki_sha256: shown.spki_sha256 })
            }
        }
    }

    fn why_nowhere(&self) -> Readiness {
        let bad = |(_, holding): &(u16, Holding)| matches!(holding, Holding::Failed(_)) || holding.is_unfit();
        if self.holdings().iter().any(bad) { Readiness::Faulty } else { Readiness::Unavailable }
    }

    /// Readiness as clients see it.
    pub(crate) fn state(&self, usable: impl FnOnce(RouteId) -> bool) -> KeyState {
        match self.readiness(clock::unix_s()) {
            Readiness::Usable(place) if usable(place.route) => KeyState::Usable,
            Readiness::Usable(_) | Readiness::Unavailable => KeyState::Unavailable,
            Readiness::Expired => KeyState::Expired,
            Readiness::Faulty => KeyState::Faulty,
        }
    }

    /// Takes in one token's report.
    fn reported(&self, token: u16, report: &KeyReport) {
        let info = match acceptable(&self.entry, report) {
            Ok(info) => info,
            Err(why) => return self.set(token, Holding::Unfit(why)),
        };
        let shown = self.show(info);
        if shown.info.spki_der != info.spki_der {
            let [theirs, first] = [spki_sha256(&info.spki_der), shown.spki_sha256]
                .map(|sha256| sha256[..8].iter().map(|byte| format!("{byte:02x}")).collect::<String>());
            let why = format!(
                "this token holds another public key ({theirs}…) under the same name than the one seen before ({first}…)"
            );
            return self.set(token, Holding::Stranger(why));
        }
        // What has passed before is the same key still: it goes on while it is tested again.
        if !matches!(self.holding(token), Some(Holding::Passed(_))) {
            self.set(token, Holding::Untested);
        }
    }

    /// The public key that was shown first: this one, if there was none. Several tokens may report at the same moment.
    fn show(&self, info: &KeyInfo) -> Arc<Shown> {
        if let Some(shown) = self.shown() {
            return shown;
        }
        let mine = Arc::new(Shown { info: info.clone(), spki_sha256: spki_sha256(&info.spki_der) });
        let before = self.state.shown.compare_and_swap(&None::<Arc<Shown>>, Some(mine.clone()));
        before.as_ref().map_or(mine, Arc::clone)
    }

    /// A self-test ended. What has become unfit meanwhile stays so.
    pub(crate) fn tested(&self, token: u16, outcome: Result<(), String>) {
        if !self.holding(token).is_some_and(|holding| holding.is_unfit()) {
            self.set(token, outcome.map_or_else(Holding::Failed, |()| Holding::Passed(clock::unix_s())));
        }
    }

    /// Notes how a self-test ended, for whoever asks.
    pub(crate) fn note_test(&self, token: u16, test: LastTest) {
        self.state.tests.lock().unwrap_or_else(PoisonError::into_inner).insert(token, test);
    }

    /// The last self-test on that token.
    pub(crate) fn last_test(&self, token: u16) -> Option<LastTest> {
        self.state.tests.lock().unwrap_or_else(PoisonError::into_inner).get(&token).cloned()
    }

    fn refuse_everywhere(&self, why: &str) {
        let mut holdings = self.state.holdings.lock().unwrap_or_else(PoisonError::into_inner);
        holdings.iter_mut().for_each(|(_, holding)| *holding = Holding::Unfit(why.to_owned()));
        self.state.route.store(NOWHERE, Ordering::Relaxed);
    }

    /// A token that does not pass any more is withdrawn at once: requests go to the others.
    fn set(&self, token: u16, holding: Holding) {
        let mut holdings = self.state.holdings.lock().unwrap_or_else(PoisonError::into_inner);
        let passes = matches!(holding, Holding::Passed(_));
        let before = match holdings.iter_mut().find(|(at, _)| *at == token) {
            Some((_, old)) => Some(std::mem::replace(old, holding)),
            None => {
                holdings.push((token, holding));
                None
            }
        };
        if !passes && matches!(before, Some(Holding::Passed(_))) {
            // A detour goes around one token: the next one to be withdrawn finds none, and the keeper a new way.
            let detours = std::mem::take(&mut *self.state.detours.lock().unwrap_or_else(PoisonError::into_inner));
            let detour = detours.into_iter().find_map(|(around, route)| (around == token).then_some(route.0));
            self.state.route.store(detour.unwrap_or(NOWHERE), Ordering::Relaxed);
        }
    }
}

/// The tokens where it passed.
fn passed(holdings: &[(u16, Holding)]) -> TokenSet {
    let passed = |(token, holding): &(u16, Holding)| matches!(holding, Holding::Passed(_)).then_some(*token);
    holdings.iter().filter_map(passed).collect()
}

/// What a token holds under a key's locator, or why it does not go with the configuration.
pub(crate) fn acceptable<'a>(entry: &KeyEntry, report: &'a KeyReport) -> Result<&'a KeyInfo, String> {
    let info = report.result.as_ref().map_err(ToString::to_string)?;
    if entry.certificate.as_ref().is_some_and(|chain| chain.spki_der() != info.spki_der) {
        return Err("its certificate is of another public key than the token's".into());
    }
    match entry.misfit(info.key_type, clock::unix_s()) {
        Some(why) => Err(why),
        None => Ok(info),
    }
}

/// As operators see it.
pub(crate) fn state_name(state: KeyState) -> &'static str {
    match state {
        KeyState::Usable => "usable",
        KeyState::Unavailable => "unavailable",
        KeyState::Expired => "expired",
        KeyState::Faulty => "faulty",
    }
}

/// As operators see it.
pub(crate) fn phase_name(phase: VersionPhase) -> &'static str {
    match phase {
        VersionPhase::Next => "next",
        VersionPhase::Active => "active",
        VersionPhase::Former => "former",
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Barrier, thread};

    use segl_hsm::{Algorithm, KeyType};

    use super::*;
    use crate::{
        config::{Purpose, SelfTest, Verify},
        policy::{Faces, Term},
    };

    fn entry(id: u32, purpose: Purpose) -> Arc<KeyEntry> {
        Arc::new(KeyEntry {
            id: KeyId(id),
            name: format!("key-{id}").into(),
            label: format!("key-{id}").into(),
            term: None,
            purpose,
            tokens: vec!["hsm-a".into()],
            locator: "pkcs11:object=key".into(),
            algorithms: vec![Algorithm::EcdsaP256Sha256],
            certificate: None,
            spki_sha256: None,
            repeatable: false,
            self_test: SelfTest::Sign,
            verify: Verify::Off,
            accept_legacy: false,
            faces: Faces::default(),
        })
    }

    fn holds(id: u32, public_key: &[u8]) -> KeyReport {
        let info = KeyInfo { key_type: KeyType::EcP256, spki_der: public_key.to_vec() };
        KeyReport { id: KeyId(id), result: Ok(info) }
    }

    fn book(entries: &[Arc<KeyEntry>]) -> KeyBook {
        let book = KeyBook::default();
        book.replace(entries.iter().cloned());
        book
    }

    /// As the keeper does after a self-test that passed.
    fn pass(book: &KeyBook, id: u32, token: u16) {
        let card = book.card(KeyId(id)).unwrap();
        card.tested(token, Ok(()));
        card.put_route_right(|tokens| book.route(tokens).0);
    }

    fn is_usable(book: &KeyBook, id: u32) -> bool {
        matches!(book.card(KeyId(id)).unwrap().readiness(clock::unix_s()), Readiness::Usable(_))
    }

    #[test]
    fn a_key_is_used_when_its_self_test_has_passed_and_not_before() {
        let book = book(&[entry(1, Purpose::Digest)]);
        assert_eq!(book.reported(0, &[holds(1, b"one")]).len(), 1);
        assert!(!is_usable(&book, 1));
        pass(&book, 1, 0);
        assert!(is_usable(&book, 1));
    }

    #[test]
    fn a_token_that_comes_back_with_another_key_is_withdrawn_at_once() {
        let book = book(&[entry(1, Purpose::Digest)]);
        book.reported(0, &[holds(1, b"one")]);
        pass(&book, 1, 0);
        assert!(book.reported(0, &[holds(1, b"another")]).is_empty(), "there is nothing to test");
        assert!(!is_usable(&book, 1));
        assert_eq!(book.strangers(Some(0)).len(), 1);
        assert!(book.strangers(Some(1)).is_empty());
        // A test that was under way meanwhile changes nothing.
        pass(&book, 1, 0);
        assert!(book.card(KeyId(1)).unwrap().fit_tokens().is_empty());
    }

    #[test]
    fn two_tokens_with_different_keys_under_one_name_are_told_of() {
        let book = book(&[entry(1, Purpose::Digest)]);
        book.reported(0, &[holds(1, b"one")]);
        assert!(book.strangers(None).is_empty());
        book.reported(1, &[holds(1, b"another")]);
        let told = book.strangers(None);
        assert!(told.len() == 1 && told[0].starts_with("key key-1: "), "{told:?}");
        // The token that was right all along is restored from its own backup.
        book.reported(1, &[holds(1, b"one")]);
        assert!(book.strangers(None).is_empty());
    }

    #[test]
    fn where_two_tokens_show_different_keys_at_the_same_moment_one_is_the_stranger() {
        for _ in 0..200 {
            let book = book(&[entry(1, Purpose::Digest)]);
            let together = Barrier::new(2);
            thread::scope(|scope| {
                for (token, key) in [(0, b"one".as_slice()), (1, b"another")] {
                    let (book, together) = (&book, &together);
                    scope.spawn(move || {
                        together.wait();
                        book.reported(token, &[holds(1, key)]);
                    });
                }
            });
            assert_eq!(book.strangers(None).len(), 1);
        }
    }

    #[test]
    fn when_one_token_is_withdrawn_requests_go_to_the_others_at_once() {
        let book = book(&[entry(1, Purpose::Digest)]);
        let place = || match book.card(KeyId(1)).unwrap().readiness(clock::unix_s()) {
            Readiness::Usable(place) => Some(book.routes.lock().unwrap()[place.route.0 as usize].iter().collect()),
            _ => None::<Vec<_>>,
        };
        for token in 0..3 {
            book.reported(token, &[holds(1, b"one")]);
            pass(&book, 1, token);
        }
        assert_eq!(place(), Some(vec![0, 1, 2]));
        book.reported(1, &[holds(1, b"another")]);
        assert_eq!(place(), Some(vec![0, 2]));
        book.card(KeyId(1)).unwrap().tested(2, Err("a wrong signature".into()));
        assert_eq!(place(), None, "until the keeper has found the next way");
        pass(&book, 1, 0);
        assert_eq!(place(), Some(vec![0]));
        book.card(KeyId(1)).unwrap().tested(0, Err("a wrong signature".into()));
        assert_eq!(place(), None, "nobody is left");
    }

    #[test]
    fn what_tokens_say_of_a_key_counts_under_the_configuration_before_as_well() {
        let book = book(&[entry(1, Purpose::Digest)]);
        book.reported(0, &[holds(1, b"one")]);
        pass(&book, 1, 0);
        let before = book.card(KeyId(1)).unwrap();
        book.replace([entry(1, Purpose::Digest)].into_iter());
        book.reported(0, &[holds(1, b"another")]);
        assert!(!matches!(before.readiness(clock::unix_s()), Readiness::Usable(_)));
    }

    #[test]
    fn a_token_that_comes_back_with_its_key_goes_on_while_it_is_tested_again() {
        let book = book(&[entry(1, Purpose::Digest)]);
        book.reported(0, &[holds(1, b"one")]);
        pass(&book, 1, 0);
        assert_eq!(book.reported(0, &[holds(1, b"one")]).len(), 1);
        assert!(is_usable(&book, 1));
    }

    #[test]
    fn one_public_key_under_two_purposes_is_used_for_neither() {
        let book = book(&[entry(1, Purpose::Digest), entry(2, Purpose::Assertion)]);
        book.reported(0, &[holds(1, b"one")]);
        pass(&book, 1, 0);
        assert!(book.reported(0, &[holds(1, b"one"), holds(2, b"one")]).is_empty());
        assert!(!is_usable(&book, 1) && !is_usable(&book, 2));
    }

    #[test]
    fn two_versions_that_turn_out_to_be_one_public_key_are_not_used() {
        let version = |id: u32| {
            let label = format!("seal/{id}").into();
            let term = Term { version: id.to_string().into(), from_unix_s: id.into(), until_unix_s: None };
            let entry = Arc::into_inner(entry(id, Purpose::Digest)).unwrap();
            Arc::new(KeyEntry { name: "seal".into(), label, term: Some(term), ..entry })
        };
        let book = book(&[version(1), version(2), version(3)]);
        book.reported(0, &[holds(1, b"one"), holds(3, b"three")]);
        pass(&book, 1, 0);
        pass(&book, 3, 0);
        book.reported(0, &[holds(1, b"one"), holds(2, b"one"), holds(3, b"three")]);
        assert_eq!([1, 2, 3].map(|id| is_usable(&book, id)), [false, false, true]);
    }

    #[test]
    fn a_failed_self_test_takes_the_key_out_until_it_passes_again() {
        let book = book(&[entry(1, Purpose::Digest)]);
        book.reported(0, &[holds(1, b"one")]);
        pass(&book, 1, 0);
        book.card(KeyId(1)).unwrap().tested(0, Err("a wrong signature".into()));
        assert!(!is_usable(&book, 1));
        assert_eq!(book.card(KeyId(1)).unwrap().state(|_| true), KeyState::Faulty);
        pass(&book, 1, 0);
        assert!(is_usable(&book, 1));
    }
}
