//! Self-tests that an operator asks for: which keys, and what came of each where it is held.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
};

use crate::{
    keybook::{KeyCard, LastTest},
    policy::KeyEntry,
};

/// An operator's wish.
pub(super) struct Asked {
    /// A key's name, or a version's label; none: all keys
    key: Option<String>,
    answer: Sender<Vec<Tested>>,
}

/// One key on one token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tested {
    /// The key's name, of a version `NAME/VERSION`
    pub(crate) key: String,
    /// The token's name
    pub(crate) token: String,
    /// What came of it, or why it was not made
    pub(crate) result: Result<LastTest, String>,
}

impl Asked {
    pub(super) fn new(key: Option<&str>) -> (Asked, Receiver<Vec<Tested>>) {
        let (answer, results) = mpsc::channel();
        (Asked { key: key.map(str::to_owned), answer }, results)
    }

    pub(super) fn wants(&self, entry: &KeyEntry) -> bool {
        self.key.as_deref().is_none_or(|key| key == &*entry.name || key == &*entry.label)
    }
}

/// Wishes whose tests are under way.
#[derive(Default)]
pub(super) struct Asks {
    next: u64,
    under_way: HashMap<u64, Ask>,
}

struct Ask {
    left: usize,
    results: Vec<Tested>,
    answer: Sender<Vec<Tested>>,
}

impl Asks {
    /// Notes a wish of so many tests, and of those that are not made and why; returns its number.
    pub(super) fn begin(
        &mut self,
        asked: Asked,
        tests: usize,
        unmade: &[(Arc<KeyCard>, u16, String)],
        names: &[Arc<str>],
    ) -> u64 {
        self.next += 1;
        let result = |(card, token, why): &(Arc<KeyCard>, u16, String)| tested(card, *token, names, Err(why.clone()));
        let ask = Ask { left: tests, results: unmade.iter().map(result).collect(), answer: asked.answer };
        self.under_way.insert(self.next, ask);
        self.answer_if_done(self.next);
        self.next
    }

    /// One of its tests is over, and noted on the key's card.
    pub(super) fn ended(&mut self, number: u64, card: &KeyCard, token: u16, names: &[Arc<str>]) {
        if let Some(ask) = self.under_way.get_mut(&number) {
            let last = card.last_test(token).ok_or_else(|| "nothing is known of it".to_owned());
            ask.results.push(tested(card, token, names, last));
            ask.left -= 1;
            self.answer_if_done(number);
        }
    }

    fn answer_if_done(&mut self, number: u64) {
        let done = self.under_way.get(&number).is_some_and(|ask| ask.left == 0);
        if let Some(mut ask) = done.then(|| self.under_way.remove(&number)).flatten() {
            ask.results.sort_by(|a, b| (&a.key, &a.token).cmp(&(&b.key, &b.token)));
            // Who waited may have given up.
            let _ = ask.answer.send(ask.results);
        }
    }
}

fn tested(card: &KeyCard, token: u16, names: &[Arc<str>], result: Result<LastTest, String>) -> Tested {
    Tested { key: card.entry.label.to_string(), token: names[usize::from(token)].to_string(), result }
}
