//! Who is passed over, and how often: tenants share a token, and no class starves on it.

use std::collections::BTreeMap;

use super::promise;
use crate::{
    Class, Job, TokenSet,
    simulator::script::{Mood, Script},
};

/// How often a tenant may be passed over by another one on a token while it waits, where all jobs cost the same. One
/// turn is each other's due; but before the first measurements what a job costs is a guess, up to ten times too low.
const EVEN_PASSES: u32 = 40;
/// The same where one job may cost a hundred times the other.
const UNEVEN_PASSES: u32 = 600;

/// A set of tokens, a tenant and a class.
type Lane = (usize, u32, usize);
/// The lane that waits, the token and the tenant that is served instead.
type Passing = (Lane, u16, u32);

#[derive(Debug)]
pub(super) struct Shares {
    mood: Mood,
    /// While a class waits, one dispatch in so many is of it
    one_in: [u32; 3],
    sets: Vec<TokenSet>,
    /// Jobs that wait, by set, tenant and class
    waiting: BTreeMap<Lane, u32>,
    /// By the lane that waits, the token and the tenant that was served instead
    passes: BTreeMap<Passing, u32>,
    /// By the set and class that waits, and the token
    passed_over: BTreeMap<(usize, usize, u16), u32>,
    pub(super) broken: Option<(&'static str, String)>,
}

impl Shares {
    pub(super) fn new(script: &Script) -> Self {
        let rules = &script.rules;
        Shares {
            mood: script.mood,
            one_in: [1, rules.signature_one_in, rules.bulk_one_in],
            sets: Vec::new(),
            waiting: BTreeMap::new(),
            passes: BTreeMap::new(),
            passed_over: BTreeMap::new(),
            broken: None,
        }
    }

    fn lane(&mut self, tokens: TokenSet, job: &Job<u64>) -> Lane {
        let set = self.sets.iter().position(|&set| set == tokens).unwrap_or_else(|| {
            self.sets.push(tokens);
            self.sets.len() - 1
        });
        (set, job.tenant, job.class.index())
    }

    pub(super) fn waits(&mut self, tokens: TokenSet, job: &Job<u64>) {
        if !job.probe {
            let lane = self.lane(tokens, job);
            *self.waiting.entry(lane).or_default() += 1;
        }
    }

    pub(super) fn waits_no_more(&mut self, tokens: TokenSet, job: &Job<u64>) {
        if job.probe {
            return;
        }
        let lane = self.lane(tokens, job);
        let waiting = self.waiting.get_mut(&lane).expect("it waited");
        *waiting -= 1;
        if *waiting == 0 {
            self.waiting.remove(&lane);
            self.passes.retain(|&(passed, _, _), _| passed != lane);
            let (set, _, class) = lane;
            if !self.waiting.keys().any(|&(other, _, of)| (other, of) == (set, class)) {
                self.passed_over.retain(|&(other, of, _), _| (other, of) != (set, class));
            }
        }
    }

    /// A job of this kind is handed to a session of the token.
    pub(super) fn handed(&mut self, token: u16, tokens: TokenSet, job: &Job<u64>) {
        if job.probe {
            return;
        }
        let (set, tenant, class) = self.lane(tokens, job);
        self.passes.retain(|&((_, passed, of), at, _), _| (passed, of, at) != (tenant, class, token));
        self.passed_over.retain(|&(_, of, at), _| (of, at) != (class, token));
        let others: Vec<_> = self.waiting.keys().copied().filter(|&(other, _, _)| other == set).collect();
        let mut classes = [false; 3];
        for (_, other, of) in others {
            if of == class && other != tenant {
                self.passed(((set, other, of), token, tenant));
            }
            if of != class && !std::mem::replace(&mut classes[of], true) {
                let over = self.passed_over.entry((set, of, token)).or_default();
                *over += 1;
                // The one that waits for its turn may itself have to let the other such class pass, and its turn may go
                // to jobs of its class for other tokens.
                let max = 3 * self.one_in[of] + 4;
                // A token that fails is kept from what better ones are to serve, for as long as that may take.
                let sound = matches!(self.mood, Mood::Even | Mood::Fair);
                if sound && of != Class::Login.index() && *over > max {
                    let detail = format!("class {of} was passed over {over} times on token {token}, of {max}");
                    self.broken.get_or_insert((promise::STARVED, detail));
                }
            }
        }
    }

    fn passed(&mut self, key: Passing) {
        let max = match self.mood {
            Mood::Even => EVEN_PASSES,
            Mood::Fair => UNEVEN_PASSES,
            _ => return,
        };
        let passes = self.passes.entry(key).or_default();
        *passes += 1;
        if *passes > max {
            let ((_, waits, class), token, by) = key;
            let detail =
                format!("tenant {waits} was passed by tenant {by} {passes} times on token {token}, class {class}");
            self.broken.get_or_insert((promise::FAIR, detail));
        }
    }

    pub(super) fn waiting_sets(&self) -> Vec<TokenSet> {
        let mut sets: Vec<usize> = self.waiting.keys().map(|&(set, _, _)| set).collect();
        sets.dedup();
        sets.into_iter().map(|set| self.sets[set]).collect()
    }
}
