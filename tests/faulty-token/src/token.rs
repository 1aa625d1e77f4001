//! One token: its slot, PIN, limits and handles. What is asked of it under the module's lock is here.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use cryptoki_sys::*;

use crate::{Revives, Tempo, TokenConfiguration, keys::Keys};

#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) label: String,
    pub(crate) serial: String,
    pub(crate) keys: Arc<Keys>,
    pub(crate) slot: u64,
    pub(crate) present: bool,
    /// The slot it shows in after the next C_Initialize
    pub(crate) arriving: Option<u64>,
    pub(crate) dead: Option<Death>,
    pub(crate) sessions_max: Option<u64>,
    pub(crate) sessions_announced: bool,
    pub(crate) idle_limit: Option<Duration>,
    pub(crate) login: Login,
    pub(crate) handles: Handles,
    pub(crate) service: Service,
}

/// A token whose sessions are worth nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Death {
    pub(crate) opens: bool,
    pub(crate) until: Revives,
    /// Somebody has had CKR_DEVICE_ERROR
    pub(crate) told: bool,
}

/// Who is logged in, and how often one may try.
#[derive(Debug)]
pub(crate) struct Login {
    pin: Vec<u8>,
    tries: u32,
    pub(crate) tries_left: u32,
    refused: BTreeSet<Vec<u8>>,
    pub(crate) logged_in: bool,
}

/// Which object handle names which key.
#[derive(Debug)]
pub(crate) struct Handles {
    keys: u64,
    /// Handles below are void
    base: u64,
    rotation: u64,
    /// Found by a search since the handles' meaning changed
    found: BTreeSet<u64>,
}

/// How fast it signs, and who is waiting inside.
#[derive(Debug, Default)]
pub(crate) struct Service {
    pub(crate) tempo: Tempo,
    calls: u64,
    random: u64,
    pub(crate) busy: u32,
    pub(crate) queue: VecDeque<u64>,
    tickets: u64,
}

impl Token {
    pub(crate) fn new(configuration: &TokenConfiguration) -> Result<Token, String> {
        let keys = Keys::load(configuration)?;
        let handles = Handles { keys: keys.len() as u64, base: 0, rotation: 0, found: BTreeSet::new() };
        Ok(Token {
            label: configuration.label.clone(),
            serial: configuration.serial.clone(),
            keys: Arc::new(keys),
            slot: configuration.slot,
            present: true,
            arriving: None,
            dead: None,
            sessions_max: None,
            sessions_announced: false,
            idle_limit: None,
            login: Login::new(configuration.pin.as_bytes(), configuration.tries),
            handles,
            service: Service { random: 0x9e37_79b9_7f4a_7c15, ..Service::default() },
        })
    }

    /// CK_TOKEN_INFO's flags.
    pub(crate) fn flags(&self) -> CK_FLAGS {
        let login = &self.login;
        let when = |so: bool, flag: CK_FLAGS| if so { flag } else { 0 };
        CKF_RNG
            | CKF_LOGIN_REQUIRED
            | CKF_USER_PIN_INITIALIZED
            | CKF_TOKEN_INITIALIZED
            | when(login.tries_left < login.tries && login.tries_left > 0, CKF_USER_PIN_COUNT_LOW)
            | when(login.tries_left == 1, CKF_USER_PIN_FINAL_TRY)
            | when(login.tries_left == 0, CKF_USER_PIN_LOCKED)
    }

    pub(crate) fn log_out(&mut self) {
        self.login.logged_in = false;
        self.handles.void();
    }
}

impl Login {
    fn new(pin: &[u8], tries: u32) -> Login {
        Login { pin: pin.to_vec(), tries, tries_left: tries, refused: BTreeSet::new(), logged_in: false }
    }

    /// Another PIN, with all tries; whoever is logged in stays so.
    pub(crate) fn set_pin(&mut self, pin: &[u8]) {
        *self = Login { logged_in: self.logged_in, ..Login::new(pin, self.tries) };
    }

    pub(crate) fn unlock(&mut self) {
        self.tries_left = self.tries;
    }

    /// Whether a PIN was refused before, since the PIN was set.
    pub(crate) fn was_refused(&self, pin: &[u8]) -> bool {
        self.refused.contains(pin)
    }

    /// C_Login of somebody who is not logged in.
    pub(crate) fn attempt(&mut self, pin: &[u8]) -> Result<(), CK_RV> {
        if self.tries_left == 0 {
            return Err(CKR_PIN_LOCKED);
        }
        if pin != self.pin {
            self.tries_left -= 1;
            self.refused.insert(pin.to_vec());
            return Err(CKR_PIN_INCORRECT);
        }
        self.unlock();
        self.logged_in = true;
        Ok(())
    }
}

impl Handles {
    /// The handle of a key, found by a search.
    pub(crate) fn find(&mut self, key: usize) -> u64 {
        let handle = self.base + 1 + (key as u64 + self.keys - self.rotation % self.keys) % self.keys;
        self.found.insert(handle);
        handle
    }

    /// The key that a handle names now.
    pub(crate) fn key(&self, handle: u64) -> Option<usize> {
        let place = handle.checked_sub(self.base + 1).filter(|place| *place < self.keys)?;
        usize::try_from((place + self.rotation) % self.keys).ok()
    }

    /// Whether a search has found it since handles changed their meaning.
    pub(crate) fn is_stale(&self, handle: u64) -> bool {
        !self.found.contains(&handle)
    }

    /// Handles so far name nothing.
    fn void(&mut self) {
        self.base += self.keys;
        self.found.clear();
    }

    /// Handles begin at 1 again, and each names the key after the one it named then.
    pub(crate) fn restart(&mut self) {
        self.base = 0;
        self.reshuffle();
    }

    /// Each handle names the key after the one it named.
    pub(crate) fn reshuffle(&mut self) {
        self.rotation += 1;
        self.found.clear();
    }
}

impl Service {
    /// How long the next signature takes.
    pub(crate) fn draw(&mut self) -> Duration {
        let Tempo { base_us, spread_us, tail_one_in, tail_us, .. } = self.tempo;
        self.calls += 1;
        // Xorshift64: even enough, and the same in every run.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let spread = self.random.checked_rem(spread_us).unwrap_or(0);
        let in_tail = tail_one_in > 0 && self.calls.is_multiple_of(tail_one_in);
        Duration::from_micros(base_us + spread + if in_tail { tail_us } else { 0 })
    }

    pub(crate) fn queue_up(&mut self) -> u64 {
        self.tickets += 1;
        self.queue.push_back(self.tickets);
        self.tickets
    }

    /// Lets the first in the queue in, if it is this one and there is a place.
    pub(crate) fn let_in(&mut self, ticket: u64) -> bool {
        let place = self.tempo.parallel == 0 || self.busy < self.tempo.parallel;
        if place && self.queue.front() == Some(&ticket) {
            self.queue.pop_front();
            self.busy += 1;
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_name_their_keys_until_they_are_void_or_change_their_meaning() {
        let mut handles = Handles { keys: 3, base: 0, rotation: 0, found: BTreeSet::new() };
        let first: Vec<_> = (0..3).map(|key| handles.find(key)).collect();
        assert_eq!(first, [1, 2, 3]);
        handles.void();
        assert!(handles.is_stale(1) && handles.key(1).is_none());
        assert_eq!(handles.find(0), 4);
        handles.restart();
        assert_eq!(first.iter().map(|handle| handles.key(*handle)).collect::<Vec<_>>(), [Some(1), Some(2), Some(0)]);
        assert!(handles.is_stale(1));
        for key in 0..3 {
            let handle = handles.find(key);
            assert_eq!(handles.key(handle), Some(key));
            assert!(!handles.is_stale(handle));
        }
    }

    #[test]
    fn the_last_try_is_announced_and_the_lock_holds_against_the_right_pin() {
        let mut login = Login::new(b"1", 2);
        assert_eq!(login.attempt(b"2"), Err(CKR_PIN_INCORRECT));
        assert!(login.was_refused(b"2") && login.tries_left == 1);
        assert_eq!(login.attempt(b"1"), Ok(()));
        assert_eq!(login.tries_left, 2);
        login.logged_in = false;
        for _ in 0..2 {
            assert_eq!(login.attempt(b"3"), Err(CKR_PIN_INCORRECT));
        }
        assert_eq!(login.attempt(b"1"), Err(CKR_PIN_LOCKED));
    }

    #[test]
    fn one_call_in_so_many_is_in_the_tail() {
        let tempo = Tempo { base_us: 100, spread_us: 50, tail_one_in: 4, tail_us: 1_000, parallel: 0 };
        let mut service = Service { tempo, random: 1, ..Service::default() };
        let drawn: Vec<_> = (0..8).map(|_| service.draw().as_micros()).collect();
        for (at, us) in drawn.into_iter().enumerate() {
            let base = if at % 4 == 3 { 1_100 } else { 100 };
            assert!((base..base + 50).contains(&us), "{us} at {at}");
        }
    }
}
