//! What the pool has to tell of its tokens: counted, said once a storm, and passed on to the keeper.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, mpsc::Sender},
    time::Instant,
};

use metrics::counter;
use segl_hsm::{Error, KeyReport, ModuleId};
use segl_pool::{Observer, core::Alarm};

use super::Event;
use crate::{
    gate::{Gate, and_more},
    keybook::KeyBook,
};

/// Sessions lost, by token.
pub(crate) const SESSIONS_LOST: &str = "segl_sessions_lost_total";
/// Alarms raised by the pool, by token and kind.
pub(crate) const ALARMS: &str = "segl_token_alarms_total";
/// Signatures that their own public key refused, by token.
pub(crate) const WRONG_SIGNATURES: &str = "segl_wrong_signatures_total";
/// Answers of calls that had been given up, by token and whether they were signatures.
pub(crate) const DISCARDED: &str = "segl_late_answers_total";
/// What such an answer can be.
pub(crate) const LATE_ANSWERS: [&str; 2] = [LATE_SIGNATURE, LATE_FAILURE];
const LATE_SIGNATURE: &str = "signature";
const LATE_FAILURE: &str = "failure";

/// Of one kind of trouble with one token this much is said: what follows within ten seconds is the same storm.
const STORM_NS: u64 = 10_000_000_000;

/// A token holds another key than the others under the same name.
const ANOTHER_KEY: &str = "another-key";

/// Hears the pool's news and passes on to the keeper what it needs.
pub(crate) struct News {
    events: Sender<Event>,
    keys: Arc<KeyBook>,
    names: Vec<Arc<str>>,
    modules: Vec<ModuleId>,
    began: Instant,
    gates: Mutex<HashMap<(u16, &'static str), Gate>>,
}

/// How much an alarm matters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Weight {
    /// Things take their course
    Info,
    /// Worth a look
    Warn,
    /// Somebody should act, or clients notice
    Error,
}

/// What is said of an alarm.
struct Words {
    kind: &'static str,
    weight: Weight,
    text: String,
    /// It is recorded too
    noted: bool,
}

impl Words {
    fn new(kind: &'static str, weight: Weight, text: impl Into<String>) -> Words {
        Words { kind, weight, text: text.into(), noted: true }
    }

    fn unrecorded(self) -> Words {
        Words { noted: false, ..self }
    }
}

impl Observer for News {
    /// The pool has not told the token to sign yet: what does not fit is withdrawn before this returns.
    fn token_logged_in(&self, token: u16, reports: Vec<KeyReport>) {
        let to_test = self.keys.reported(token, &reports);
        let keys = reports.len();
        for stranger in self.keys.strangers(Some(token)) {
            counter!(ALARMS, "token" => self.name(token), "kind" => ANOTHER_KEY).increment(1);
            self.say(token, &Words::new(ANOTHER_KEY, Weight::Error, stranger));
        }
        self.send(Event::LoggedIn { token, reports, to_test });
        self.say(token, &Words::new("logged-in", Weight::Info, format!("logged in; {keys} keys looked up")));
    }

    fn session_lost(&self, token: u16, error: &Error) {
        counter!(SESSIONS_LOST, "token" => self.name(token)).increment(1);
        self.say(token, &Words::new("session-lost", Weight::Warn, format!("a session was lost: {error}")).unrecorded());
    }

    fn alarm(&self, alarm: &Alarm) {
        let (concerned, words) = match alarm {
            Alarm::SessionLost { token, error } => return self.session_lost(*token, error),
            Alarm::Probation { token, round } => {
                self.send(Event::Probation(*token, *round));
                (vec![*token], Words::new("probation", Weight::Info, "it has to pass its self-test").unrecorded())
            }
            Alarm::TokenAway { token, error } => {
                self.send(Event::Away(*token));
                (vec![*token], Words::new("token-away", Weight::Error, format!("it can not be used: {error}")))
            }
            Alarm::TokenBack { token } => (vec![*token], Words::new("token-back", Weight::Info, "it is back")),
            Alarm::NeedsOperator { token, error } => {
                self.send(Event::Away(*token));
                let text = format!("it is not tried again until an operator has acted and sent SIGHUP: {error}");
                (vec![*token], Words::new("needs-operator", Weight::Error, text))
            }
            Alarm::WrongSignature { token, error } => {
                self.send(Event::Away(*token));
                counter!(WRONG_SIGNATURES, "token" => self.name(*token)).increment(1);
                let text = format!("IT MADE A WRONG SIGNATURE, which nobody got, and was taken out: {error}");
                (vec![*token], Words::new("wrong-signature", Weight::Error, text))
            }
            Alarm::RefreshFailed { token, error } => {
                let text = format!("it signs, but keys added since are not known there: {error}");
                (vec![*token], Words::new("refresh-failed", Weight::Error, text))
            }
            Alarm::FewerSessions { token, sessions } => {
                let text = format!("it gives {sessions} sessions, fewer than configured");
                (vec![*token], Words::new("fewer-sessions", Weight::Warn, text).unrecorded())
            }
            Alarm::Stuck { token, call, replaced } => {
                let what =
                    if *replaced { "its thread is replaced" } else { "too many threads are: its session is lost" };
                let text = format!("a {call} call did not return in time; {what}");
                (vec![*token], Words::new("stuck", Weight::Error, text))
            }
            Alarm::NoThread { token, error } => {
                let text =
                    format!("no thread can be had in the place of one that is stuck: {error}; it is tried again");
                (vec![*token], Words::new("no-thread", Weight::Error, text))
            }
            Alarm::Discarded { reference, token, reason, signed } => {
                self.send(Event::Discarded { intent: *reference, token: *token, reason: *reason, signed: *signed });
                let answer = if *signed { LATE_SIGNATURE } else { LATE_FAILURE };
                counter!(DISCARDED, "token" => self.name(*token), "answer" => answer).increment(1);
                let text = format!("a call that had been given up came back with a {answer}; it is discarded");
                // It has a record of its own.
                (vec![*token], Words::new("discarded", Weight::Warn, text).unrecorded())
            }
            Alarm::ModuleReinitialised { module } => {
                let text = "its module was finalised and initialised anew";
                (self.tokens_of(*module), Words::new("module-reinitialised", Weight::Warn, text))
            }
            Alarm::ReinitialiseFailed { module, error } => {
                let text = format!("its module can not be initialised anew: {error}");
                (self.tokens_of(*module), Words::new("reinitialise-failed", Weight::Error, text))
            }
            Alarm::ModuleWedged { module } => {
                let tokens = self.tokens_of(*module);
                tokens.iter().for_each(|token| self.send(Event::Away(*token)));
                let text = "a call is stuck in its module, which so can not be initialised anew: restart segld, \
                            unless the call returns";
                (tokens, Words::new("module-wedged", Weight::Error, text))
            }
            _ => return tracing::error!(?alarm, "alarm"),
        };
        for token in concerned {
            counter!(ALARMS, "token" => self.name(token), "kind" => words.kind).increment(1);
            self.say(token, &words);
        }
    }
}

impl News {
    pub(super) fn new(events: Sender<Event>, keys: Arc<KeyBook>, names: Vec<Arc<str>>, modules: Vec<ModuleId>) -> News {
        News { events, keys, names, modules, began: Instant::now(), gates: Mutex::default() }
    }

    /// The keeper ends with the process only.
    fn send(&self, event: Event) {
        let _ = self.events.send(event);
    }

    /// One line, and one record, a storm.
    fn say(&self, token: u16, words: &Words) {
        let now_ns = self.began.elapsed().as_nanos() as u64;
        let passes = {
            let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
            gates.entry((token, words.kind)).or_insert_with(|| Gate::per_period(1, STORM_NS)).passes(now_ns)
        };
        let Some(held_back) = passes else { return };
        let (name, kind, text) = (self.name(token), words.kind, and_more(&words.text, held_back));
        match words.weight {
            Weight::Info => tracing::info!(token = name, kind, "{text}"),
            Weight::Warn => tracing::warn!(token = name, kind, "{text}"),
            Weight::Error => tracing::error!(token = name, kind, "{text}"),
        }
        if words.noted {
            self.send(Event::Noted { token, event: words.kind, detail: text });
        }
    }

    fn name(&self, token: u16) -> String {
        self.names.get(usize::from(token)).map_or_else(String::new, |name| name.to_string())
    }

    fn tokens_of(&self, module: ModuleId) -> Vec<u16> {
        (0u16..).zip(&self.modules).filter(|(_, of)| **of == module).map(|(token, _)| token).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use segl_hsm::Kind;

    use super::*;

    #[test]
    fn a_storm_is_recorded_once_and_the_keeper_hears_all_of_it() {
        let (events, received) = mpsc::channel();
        let names = vec!["hsm-a".into(), "hsm-b".into()];
        let news = News::new(events, Arc::default(), names, vec![ModuleId(1), ModuleId(1)]);
        let error = || Error::of(Kind::Device, "C_Sign", "broken");
        for _ in 0..100 {
            news.session_lost(0, &error());
            news.alarm(&Alarm::TokenAway { token: 0, error: error() });
        }
        news.alarm(&Alarm::TokenAway { token: 1, error: error() });
        news.alarm(&Alarm::ModuleReinitialised { module: ModuleId(1) });
        drop(news);
        let (mut away, mut noted) = (0, Vec::new());
        for event in received {
            match event {
                Event::Away(_) => away += 1,
                Event::Noted { token, event, .. } => noted.push((token, event)),
                _ => panic!("nothing else is said"),
            }
        }
        assert_eq!(away, 101);
        let expected = [(0, "token-away"), (1, "token-away"), (0, "module-reinitialised"), (1, "module-reinitialised")];
        assert_eq!(noted, expected);
    }
}
