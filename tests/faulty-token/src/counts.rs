//! What was done to the module and what it did, as tests assert it.

use std::{collections::BTreeMap, iter::Sum};

use serde::{Deserialize, Serialize};

use crate::Call;

/// Since the module was loaded.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Calls entered; C_Sign's that ask for a length only are not counted
    pub calls: BTreeMap<Call, u64>,
    /// Calls inside at this moment
    pub inside: BTreeMap<Call, u64>,
    /// Calls that hang at this moment
    pub hanging: u64,
    /// C_Initialize that succeeded
    pub initialised: u64,
    /// C_Finalize that succeeded
    pub finalised: u64,
    /// What no caller may do
    pub violations: Violations,
    /// By serial number
    pub tokens: BTreeMap<String, TokenCounts>,
}

/// What PKCS#11 forbids, or what may hit a stranger. A well-behaved caller leaves all at 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violations {
    /// C_Initialize of an initialised module
    pub second_initialise: u64,
    /// C_Finalize while another call was inside
    pub finalised_with_calls_inside: u64,
    /// Calls to a module that is not initialised (C_GetInfo and C_Finalize, by which one may find out, not counted)
    pub not_initialised: u64,
    /// Session handles from before the last C_Initialize that name no session now
    pub finalised_handles: u64,
    /// A call with a session handle that named the thread's own session once, and names another thread's now
    pub strangers_used: u64,
    /// A call with the handle of a session that another thread has closed, and not on the caller's behalf
    pub strangers_closed: u64,
    /// Two calls in one session at the same time
    pub shared_sessions: u64,
    /// C_SignInit or C_GetAttributeValue with an object handle that no search has found since the handles' meaning
    /// changed
    pub stale_objects: u64,
    /// C_Login with a PIN that was refused before, while another could be right
    pub refused_pins: u64,
}

/// Of one token.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TokenCounts {
    /// C_Login that looked at the PIN
    pub logins: u64,
    /// Those that refused it
    pub logins_refused: u64,
    /// Wrong PINs that are left before the token locks
    pub tries_left: u64,
    /// Sessions open now
    pub sessions: u64,
    /// The most that ever were
    pub sessions_most: u64,
    /// Calls with the handle of a session that the token has ended by itself: how a caller learns of it
    pub dead_handles: u64,
    /// C_Sign served now
    pub busy: u64,
    /// C_Sign waiting inside for its turn
    pub queued: u64,
    /// By label
    pub keys: BTreeMap<String, KeyCounts>,
}

/// Of one key. `entered` calls made `signed` signatures; the caller got `signed - wrong - cut - withheld` good ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyCounts {
    /// C_Sign that had an operation with this key to do
    pub entered: u64,
    /// Signatures made
    pub signed: u64,
    /// Of these, spoilt before they were given out
    pub wrong: u64,
    /// Of these, given out with a wrong length
    pub cut: u64,
    /// Of these, not given out: the call answered with an error
    pub withheld: u64,
}

impl Counts {
    /// One count by its path, as `calls/C_Sign`; none if there is no such count.
    pub fn number(&self, path: &str) -> Option<u64> {
        let (section, rest) = match path {
            "hanging" => return Some(self.hanging),
            "initialised" => return Some(self.initialised),
            "finalised" => return Some(self.finalised),
            path => path.split_once('/')?,
        };
        // The one that is long is not turned into JSON as a whole.
        let (value, field) = match section {
            "calls" => (serde_json::to_value(&self.calls), rest),
            "inside" => (serde_json::to_value(&self.inside), rest),
            "violations" => (serde_json::to_value(self.violations), rest),
            "tokens" => {
                let (serial, field) = rest.split_once('/')?;
                let token = self.tokens.get(serial)?;
                match field.strip_prefix("keys/").and_then(|key| key.rsplit_once('/')) {
                    Some((label, field)) => (serde_json::to_value(token.keys.get(label)?), field),
                    None => (serde_json::to_value(TokenCounts { keys: BTreeMap::new(), ..token.clone() }), field),
                }
            }
            _ => return None,
        };
        value.ok()?.get(field)?.as_u64()
    }

    /// All keys of all tokens together.
    pub fn all_keys(&self) -> KeyCounts {
        self.tokens.values().map(TokenCounts::all_keys).sum()
    }

    /// The calls of one function.
    pub fn of(&self, call: Call) -> u64 {
        self.calls.get(&call).copied().unwrap_or(0)
    }

    pub(crate) fn new() -> Counts {
        let zeros: BTreeMap<_, _> = Call::ALL.iter().map(|call| (*call, 0)).collect();
        Counts { calls: zeros.clone(), inside: zeros, ..Counts::default() }
    }
}

impl TokenCounts {
    /// All its keys together.
    pub fn all_keys(&self) -> KeyCounts {
        self.keys.values().copied().sum()
    }
}

impl KeyCounts {
    /// Signatures that the caller has got as they were made, and those that only he can know to be wrong.
    pub fn given_out(&self) -> u64 {
        self.signed - self.withheld - self.cut
    }
}

impl Sum for KeyCounts {
    fn sum<I: Iterator<Item = KeyCounts>>(keys: I) -> KeyCounts {
        keys.fold(KeyCounts::default(), |sum, key| KeyCounts {
            entered: sum.entered + key.entered,
            signed: sum.signed + key.signed,
            wrong: sum.wrong + key.wrong,
            cut: sum.cut + key.cut,
            withheld: sum.withheld + key.withheld,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_count_has_a_path() {
        let mut counts = Counts::new();
        let key = KeyCounts { signed: 3, ..KeyCounts::default() };
        let keys = [("a/b".to_owned(), key)].into();
        counts.tokens.insert("S1".into(), TokenCounts { busy: 2, keys, ..TokenCounts::default() });
        counts.calls.insert(Call::Sign, 7);
        counts.violations.strangers_closed = 1;
        for (path, number) in [
            ("calls/C_Sign", 7),
            ("inside/C_Finalize", 0),
            ("hanging", 0),
            ("violations/strangers_closed", 1),
            ("tokens/S1/busy", 2),
            ("tokens/S1/keys/a/b/signed", 3),
        ] {
            assert_eq!(counts.number(path), Some(number), "{path}");
        }
        for path in
            ["", "calls", "calls/C_Sing", "hanging/x", "tokens/S2/busy", "tokens/S1/keys", "tokens/S1/keys/c/signed"]
        {
            assert_eq!(counts.number(path), None, "{path}");
        }
    }
}
