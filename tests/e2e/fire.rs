//! segld under full load on HSMs that misbehave, and the accounts at the end: of the clients, the journal and the HSMs.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::Receiver,
    },
    thread,
    time::Duration,
};

use segl_faulty_token::{Call, Command, Configuration, FaultyHsm, TokenCounts, Violations};
use segl_tests::{
    faulty,
    journal::{Calls, Register},
    process::Service,
    site::Site,
};
use segl_wire::Code;

use crate::{
    load::{Account, public_key, run_while, verify},
    room::{Room, SOON, connect, journal, until},
};

/// Clients, half of each tenant.
const CLIENTS: usize = 4;

/// What is the same for every token here: quick to notice what is stuck.
pub(crate) const TOKEN: &str = "sessions = 4\nstuck_after = \"1s\"";

/// No answer takes longer, whatever befalls one HSM: until a stuck call is given up, and a busy machine's time for the
/// next try. Half of what a request has.
const SLOWEST: Duration = Duration::from_secs(5);

/// segld on HSMs that hold the same keys.
pub(crate) struct Fire {
    pub(crate) room: Room,
    pub(crate) hsms: Vec<FaultyHsm>,
}

/// Full load, while it lasts.
pub(crate) struct Load {
    rounds: Receiver<usize>,
    answered: Cell<usize>,
}

/// What is left when all is over, by token.
pub(crate) struct Ashes {
    pub(crate) tokens: BTreeMap<String, TokenCounts>,
    pub(crate) violations: Violations,
    pub(crate) register: Register,
    pub(crate) signed: usize,
    pub(crate) refused: usize,
}

impl Fire {
    /// HSMs of one token each, of these names, whose keys may be signed with twice where `repeatable`.
    pub(crate) fn light(names: &[&str], repeatable: bool) -> Fire {
        Fire::light_with(names, TOKEN, if repeatable { "repeatable = true" } else { "" })
    }

    /// The same, with these lines for every token and every key.
    pub(crate) fn light_with(names: &[&str], token: &str, key: &str) -> Fire {
        let hsms: Vec<_> = names.chunks(1).collect();
        Fire::light_hsms(&hsms, token, key)
    }

    /// HSMs that have these tokens each.
    pub(crate) fn light_hsms(hsms: &[&[&str]], token: &str, key: &str) -> Fire {
        Fire::light_site(hsms, token, key, |_| {})
    }

    /// The same, with this changed about the installation.
    pub(crate) fn light_site(hsms: &[&[&str]], token: &str, key: &str, change: impl FnOnce(&mut Site)) -> Fire {
        Fire::light_told(hsms, &[], token, key, change)
    }

    /// The same, where this is said to every HSM before segld starts.
    pub(crate) fn light_told(
        hsms: &[&[&str]],
        commands: &[Command],
        token: &str,
        key: &str,
        change: impl FnOnce(&mut Site),
    ) -> Fire {
        let names = hsms;
        let (mut site, hsms, dir) = prepare(hsms, token);
        for (hsm, names) in hsms.iter().zip(names) {
            let commands = commands.to_vec();
            hsm.configure(&Configuration { commands, ..faulty::configuration(&site.dir, names) }).unwrap();
        }
        let purpose = "purpose = \"digest\"\n";
        site.segld_toml = site.segld_toml.replace(purpose, &format!("{purpose}{key}\n"));
        change(&mut site);
        site.write().unwrap();
        let segld = site.start_segld().unwrap();
        Fire { room: Room::around(site, segld, dir), hsms }
    }

    /// One HSM, to which this is said before segld starts; its key can not sign yet.
    pub(crate) fn smoulder(commands: Vec<Command>) -> Fire {
        Fire::smoulder_with(|hsm| hsm.commands = commands)
    }

    /// The same, with this changed about the HSM.
    pub(crate) fn smoulder_with(change: impl FnOnce(&mut Configuration)) -> Fire {
        let (site, hsms, dir) = prepare(&[&["one"]], TOKEN);
        let mut configuration = faulty::configuration(&site.dir, &["one"]);
        change(&mut configuration);
        hsms[0].configure(&configuration).unwrap();
        let mut segld = Service::start(site.segld_command(), &site.dir, "segld").unwrap();
        segld.ready(SOON).unwrap();
        Fire { room: Room::around(site, segld, dir), hsms }
    }

    /// Full load while `during` lasts; then what became of every request.
    pub(crate) fn load(&self, during: impl FnOnce(&Load)) -> Vec<Account> {
        let (progress, rounds) = std::sync::mpsc::channel();
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|at| {
                    let (conversation, progress, over) = (connect(&self.room.site, at % 2), progress.clone(), &over);
                    let more = move |_| if over.load(Ordering::Relaxed) { 0 } else { usize::MAX };
                    scope.spawn(move || run_while(conversation, &format!("fire-{at}"), more, &progress))
                })
                .collect();
            // The clients come to their end even when the test does not.
            let end = OnDrop(|| over.store(true, Ordering::Relaxed));
            let load = Load { rounds, answered: Cell::new(0) };
            load.answers(500);
            during(&load);
            drop(end);
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        })
    }

    /// Says something to the first HSM, the one that misbehaves.
    pub(crate) fn tell(&self, command: Command) {
        self.hsms[0].command(&command).unwrap();
    }

    /// Waits until the token that misbehaves signs again: many more than it has by now.
    pub(crate) fn recovered(&self) {
        let before = self.token().all_keys().signed;
        self.hsms[0].wait_for("tokens/one/keys/seal-p256/signed", before + 200).unwrap();
    }

    /// Counts of the token that misbehaves.
    pub(crate) fn token(&self) -> TokenCounts {
        self.hsms[0].counts().unwrap().tokens.remove("one").unwrap()
    }

    /// Ends segld and compares the accounts: every request answered in good time, with a signature that verifies or one
    /// of the `allowed` errors; every signature in the journal; every signature that an HSM counts and gave out in the
    /// journal as released or discarded, key by key; and nothing done to an HSM that no caller may do.
    pub(crate) fn put_out(self, accounts: &[Account], allowed: &[Code]) -> Ashes {
        self.put_out_but(accounts, allowed, Violations::default())
    }

    /// The same, but for what was done with reason, so often exactly.
    pub(crate) fn put_out_but(self, accounts: &[Account], allowed: &[Code], with_reason: Violations) -> Ashes {
        let ashes = self.sift(accounts, allowed);
        assert_eq!(ashes.violations, with_reason);
        for (name, token) in &ashes.tokens {
            for (key, made) in &token.keys {
                let calls = ashes.register.of_key(name, key);
                assert!(calls.account_for(made), "{name}, {key}: {made:?} in the HSM, {calls:?} in the journal");
            }
        }
        ashes
    }

    /// The same, whatever was done to the HSMs and by whichever key: where a caller can not know better.
    pub(crate) fn sift(mut self, accounts: &[Account], allowed: &[Code]) -> Ashes {
        let mut released = BTreeSet::new();
        let public_key = if accounts.is_empty() { Vec::new() } else { public_key(&self.room.site) };
        for account in accounts {
            assert_eq!(account.lost(), [0; 0]);
            assert!(account.slowest < SLOWEST, "an answer took {:?}", account.slowest);
            let foreign: Vec<_> = account.refused.values().filter(|code| !allowed.contains(code)).collect();
            assert!(foreign.is_empty(), "{} errors that nobody was promised: {:?}", foreign.len(), foreign[0]);
            for (reference, signature) in account.signed.values() {
                verify(&public_key, reference, signature);
                released.insert(reference.clone());
            }
        }
        // Clients may have gone before what they asked for was done.
        let inside = |hsm: &FaultyHsm| hsm.counts().unwrap().inside[&Call::Sign];
        until("nothing is inside the HSMs", || self.hsms.iter().map(inside).sum::<u64>() == 0);
        // Before the end, since the counts end with the process; nothing is asked for any more.
        let mut counts = self.hsms.iter().map(|hsm| hsm.counts().unwrap()).collect::<Vec<_>>();
        assert!(self.room.segld.terminate(SOON).unwrap().success());
        let entries = journal(&self.room.site);
        let mut register = Register::default();
        entries.iter().for_each(|record| register.note(record).unwrap());
        let tokens: BTreeMap<_, _> = counts.iter_mut().flat_map(|counts| std::mem::take(&mut counts.tokens)).collect();
        for (name, token) in &tokens {
            let (made, calls) = (token.all_keys(), register.of_token(name));
            assert!(calls.account_for(&made), "{name}: {made:?} in the HSM, {calls:?} in the journal");
        }
        let recorded: BTreeSet<_> = entries.iter().filter_map(|entry| entry["reference"].as_str()).collect();
        assert!(released.iter().all(|reference| recorded.contains(reference.as_str())));
        let refused = accounts.iter().map(|account| account.refused.len()).sum();
        let violations = counts.iter().map(|counts| counts.violations).find(|found| *found != Violations::default());
        let violations = violations.unwrap_or_default();
        Ashes { tokens, violations, register, signed: released.len(), refused }
    }
}

impl Ashes {
    /// What the journal says of the calls to a token.
    pub(crate) fn calls(&self, token: &str) -> Calls {
        self.register.of_token(token)
    }
}

impl Load {
    /// Waits until so many more requests are answered, whichever way.
    pub(crate) fn answers(&self, more: usize) {
        let until = self.answered.get() + more;
        while self.answered.get() < until {
            let round = self.rounds.recv_timeout(SOON).expect("requests are answered as long as there are any");
            self.answered.set(self.answered.get() + round);
        }
    }
}

fn prepare(hsms: &[&[&str]], token: &str) -> (Site, Vec<FaultyHsm>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let (site, hsms) = faulty::create(&dir.path().join("site"), hsms, token).unwrap();
    (site, hsms, dir)
}

/// Does something at the end of a scope, also of one that a failure ends.
pub(crate) struct OnDrop<F: FnMut()>(pub(crate) F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
