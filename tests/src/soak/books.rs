//! The accounts at the end: what clients got, what the journal says and what the HSMs counted, held against each other.

use std::collections::{BTreeMap, HashMap};

use segl_faulty_token::KeyCounts;
use segl_wire::SignedState;
use serde_json::Value;

use super::{
    ground::KEYS,
    line::{Account, Complaint, State},
};
use crate::{
    Result,
    journal::{self, Register, number, text},
};

/// Most calls that one request may cost: `retries_max` and the first.
const ATTEMPTS_MAX: u64 = 3;

/// The journal, held against the accounts.
#[derive(Debug, Default)]
pub(super) struct Books {
    pub(super) register: Register,
    /// Errors by their name and the reason why they are allowed
    pub(super) allowed: BTreeMap<(&'static str, &'static str), u64>,
    /// Errors by their name that no rule allows
    pub(super) not_allowed: BTreeMap<&'static str, u64>,
    pub(super) broken: Vec<String>,
    pub(super) records: u64,
    /// Released to clients that had gone
    pub(super) released_to_nobody: u64,
}

/// A request, by its account's place and its own there.
type Who = (usize, u32);

impl Books {
    /// Reads the whole journal. `retries_refused` is how often the retry budget did not allow a retry.
    pub(super) fn read(directory: &std::path::Path, accounts: &[Account], retries_refused: u64) -> Result<Books> {
        let mut books = Books::default();
        let names: HashMap<&str, usize> = accounts.iter().map(|account| account.name.as_str()).zip(0..).collect();
        let mut open: HashMap<u64, Who> = HashMap::new();
        let mut seen: Vec<Vec<bool>> = accounts.iter().map(|account| vec![false; account.states.len()]).collect();
        let mut complaints: HashMap<Who, Option<Fate>> = HashMap::new();
        for (place, account) in accounts.iter().enumerate() {
            complaints.extend(account.complaints.iter().map(|complaint| ((place, complaint.request), None)));
        }
        journal::read(directory, |record| {
            books.records += 1;
            books.register.note(record)?;
            match text(record, "kind")? {
                "intent" => {
                    if let Some(who) = who(record, &names) {
                        open.insert(number(record, "seq")?, who);
                    }
                }
                "outcome" => {
                    if let Some(who) = open.remove(&number(record, "intent")?) {
                        let released = text(record, "result")? == "released";
                        books.compare(accounts, who, released, record);
                        seen[who.0][who.1 as usize] |= released;
                        if let Some(fate) = complaints.get_mut(&who) {
                            *fate = Some(Fate::of(record)?);
                        }
                    }
                }
                _ => {}
            }
            Ok(())
        })?;
        for (account, seen) in accounts.iter().zip(&seen) {
            for (request, (state, seen)) in account.states.iter().zip(seen).enumerate() {
                match state {
                    State::Open => books.broken.push(format!("{}-{request} was never answered", account.name)),
                    State::Signed if !seen => {
                        books.broken.push(format!("{}-{request} is signed and not in the journal", account.name));
                    }
                    _ => {}
                }
            }
        }
        books.judge(accounts, &complaints, retries_refused);
        Ok(books)
    }

    /// Holds an HSM's counts of a key against the journal's.
    pub(super) fn hold(&mut self, token: &str, key: &str, made: KeyCounts) {
        let calls = self.register.of_key(token, key);
        if !calls.account_for(&made) {
            self.broken.push(format!("{token}, {key}: {made:?} in the HSM, {calls:?} in the journal"));
        }
    }

    fn compare(&mut self, accounts: &[Account], (place, request): Who, released: bool, record: &Value) {
        let account = &accounts[place];
        match (account.states[request as usize], released) {
            (State::Signed, true) | (State::Refused, false) | (State::Forgone, false) => {}
            (State::Forgone, true) => self.released_to_nobody += 1,
            (state, _) => self.broken.push(format!("{}-{request} is {state:?}, and {record}", account.name)),
        }
    }

    /// Looks for the rule that allows an error, now that the journal tells what became of the request.
    fn judge(&mut self, accounts: &[Account], fates: &HashMap<Who, Option<Fate>>, retries_refused: u64) {
        let mut refused = retries_refused;
        for (place, account) in accounts.iter().enumerate() {
            for complaint in &account.complaints {
                let fate = fates.get(&(place, complaint.request)).copied().flatten();
                match reason(complaint, fate, &mut refused) {
                    Some(reason) => *self.allowed.entry((complaint.code.name(), reason)).or_default() += 1,
                    None => {
                        *self.not_allowed.entry(complaint.code.name()).or_default() += 1;
                        let Complaint { request, key, text, at, took, signed, .. } = complaint;
                        self.broken.push(format!(
                            "{}-{request} with {}: {text:?} (signed: {signed:?}) {:.3} s after the start, after \
                             {:.3} s, while a token was well; {fate:?}",
                            account.name,
                            KEYS[*key].name,
                            at.as_secs_f64(),
                            took.as_secs_f64(),
                        ));
                    }
                }
            }
        }
    }
}

/// What the journal says of a request that was refused.
#[derive(Clone, Copy, Debug)]
struct Fate {
    attempts: u64,
    unknown: u64,
}

impl Fate {
    fn of(outcome: &Value) -> Result<Fate> {
        Ok(Fate { attempts: number(outcome, "attempts")?, unknown: number(outcome, "attempts_unknown")? })
    }
}

fn reason(complaint: &Complaint, fate: Option<Fate>, retries_refused: &mut u64) -> Option<&'static str> {
    let Fate { attempts, unknown } = fate?;
    if complaint.signed == SignedState::Unknown && unknown > 0 && !KEYS[complaint.key].repeatable {
        return Some("its fate is unknown and the key is not repeatable");
    }
    if attempts >= ATTEMPTS_MAX {
        return Some("all tries were used up");
    }
    if attempts > 0 && *retries_refused > 0 {
        *retries_refused -= 1;
        return Some("the retry budget was used up");
    }
    None
}

fn who(intent: &Value, names: &HashMap<&str, usize>) -> Option<Who> {
    let (name, request) = intent["reference"].as_str()?.rsplit_once('-')?;
    Some((*names.get(name)?, request.parse().ok()?))
}
