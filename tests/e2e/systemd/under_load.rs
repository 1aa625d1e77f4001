//! What operators and the watchdog do to segld while clients are at it: every request is answered, refused as one to
//! try again, or seen by its client to have gone down with the connection; no connection is refused; and what a client
//! holds is in the journal.

use std::{
    collections::HashSet,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, channel},
    },
};

use segl_tests::{
    conversation::Conversation,
    site::{P256, Token},
};
use segl_wire::{Code, Retry, SignedState};
use serde_json::Value;

use super::{
    host::{Host, with_a_clock},
    journal,
};
use crate::{
    load::{Account, run_while, verify},
    room::{connect, spki},
};

/// Clients at once.
const CLIENTS: usize = 4;

/// Requests answered before something is done to segld, and again after it.
const ENOUGH: usize = 1_500;

fn started(name: &str) -> Host {
    let host = Host::boot_with(name, Token::SoftHsm, |container, site| {
        with_a_clock(container, site);
        // The rate limit is for hosts on which nobody tries this on purpose.
        let often = "[Unit]\nStartLimitIntervalSec=0\n[Service]\nWatchdogSec=2s\n";
        Host::drop_in(container, "test", often);
    });
    host.seal_all();
    host.start_by_socket();
    host
}

/// Clients that go on through everything, each deed done once they have had enough answers. One account a connection.
fn under_load(host: &Host, deeds: &[&(dyn Fn(&Host) + Sync)]) -> Vec<Account> {
    let over = AtomicBool::new(false);
    let client = |at: usize, progress: std::sync::mpsc::Sender<usize>| {
        let mut accounts = Vec::new();
        while !over.load(Ordering::Relaxed) {
            let tenant = &host.site.tenants[at % 2];
            // The socket is systemd's: whatever happens to segld, nobody is refused here. A handshake may go down with
            // the segld that was at it.
            let tcp = std::net::TcpStream::connect(host.site.segld).expect("no connection is refused");
            let authority = host.site.servers.pem();
            let Ok(conversation) = Conversation::over(tcp, &authority, Some(&tenant.identity), segl_wire::ALPN) else {
                continue;
            };
            let more = |_| if over.load(Ordering::Relaxed) { 0 } else { usize::MAX };
            accounts.push(run_while(conversation, &format!("client-{at}-{}", accounts.len()), more, &progress));
        }
        accounts
    };
    host.inside(|| {
        std::thread::scope(|scope| {
            let (progress, rounds) = channel();
            let client = &client;
            let clients: Vec<_> = (0..CLIENTS)
                .map(|at| {
                    let progress = progress.clone();
                    scope.spawn(move || client(at, progress))
                })
                .collect();
            // Also where a deed fails: the clients end, and with them the test.
            let _end = OnDrop(&over);
            for deed in deeds {
                enough(&rounds);
                deed(host);
            }
            enough(&rounds);
            over.store(true, Ordering::Relaxed);
            clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
        })
    })
}

struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Waits for so many answers from now on.
fn enough(rounds: &Receiver<usize>) {
    // What was answered while a deed was done says nothing of the time after it.
    let _ = rounds.try_iter().count();
    let mut answered = 0;
    while answered < ENOUGH {
        answered += rounds.recv_timeout(super::host::SOON).expect("clients are answered again");
    }
}

/// Everything that clients hold is sound and recorded, and what was refused was certainly not signed and may be asked
/// again.
fn account_for(host: &Host, accounts: &[Account], public_key: &[u8]) {
    host.systemctl(&["stop", "segld.socket", "segld.service"]).unwrap();
    let recorded: HashSet<String> =
        journal(host).iter().filter_map(|entry| Some(entry["reference"].as_str()?.to_owned())).collect();
    for account in accounts {
        for (reference, signature) in account.signed.values() {
            verify(public_key, reference, signature);
            assert!(recorded.contains(reference), "{reference} was signed and is not in the journal");
        }
        let hopeless = |code: &Code| code.retry() == Retry::Never || code.signed() != SignedState::No;
        let hopeless: Vec<_> = account.refused.values().filter(|code| hopeless(code)).collect();
        assert!(hopeless.is_empty(), "{hopeless:?}");
    }
}

fn public_key(host: &Host) -> Vec<u8> {
    host.inside(|| spki(&mut connect(&host.site, 1), P256)[26..].to_vec())
}

#[test]
#[ignore = "needs root and a container: cargo xtask test --stage systemd"]
fn a_reload_under_load_costs_nobody_anything_and_a_refused_one_says_why() {
    let host = started("segl-reload");
    let public_key = public_key(&host);
    let reload = |host: &Host| {
        host.systemctl(&["reload", "segld.service"]).unwrap();
        let status = host.is_well();
        assert_eq!(status["daemon"]["reload"]["ok"], true);
        assert!(status["requests"]["signatures_per_s"].as_f64().unwrap() > 0.0, "{status:#}");
    };
    let refused = |host: &Host| {
        let configuration = |text: &str| host.container.put("/etc/segl/segld/segld.toml", text.as_bytes()).unwrap();
        configuration(&format!("{}\n[nonsense]\n", host.site.segld_toml));
        assert!(host.systemctl(&["reload", "segld.service"]).is_err(), "a refused reload is no success");
        host.is_unwell(1, "the last reload was refused");
        configuration(&host.site.segld_toml);
        let said = host.container.log("segld.service").unwrap();
        assert!(said.contains("nonsense"), "{said}");
    };
    let pid = host.container.show("segld.service", "MainPID").unwrap();
    let accounts = under_load(&host, &[&reload, &refused, &reload]);
    assert_eq!(host.container.show("segld.service", "MainPID").unwrap(), pid);
    assert_eq!(accounts.len(), CLIENTS, "every connection lives through all of them");
    for account in &accounts {
        assert_eq!((account.lost(), account.refused.len()), (vec![], 0));
    }
    account_for(&host, &accounts, &public_key);
}

#[test]
#[ignore = "needs root and a container: cargo xtask test --stage systemd"]
fn a_restart_under_load_answers_what_was_accepted_and_refuses_no_connection() {
    let host = started("segl-restart");
    let public_key = public_key(&host);
    let restart = |host: &Host| {
        host.systemctl(&["restart", "segld.service"]).unwrap();
        assert_eq!(host.is_well()["daemon"]["reload"], Value::Null, "it is another process");
    };
    let accounts = under_load(&host, &[&restart, &restart]);
    assert_eq!(host.container.show("segld.service", "NRestarts").unwrap(), "0", "these were asked for");
    assert!(accounts.len() > CLIENTS, "clients came back");
    for account in &accounts {
        assert_eq!(account.lost(), [0; 0], "what segld had taken, by its GoAway, it answered");
    }
    account_for(&host, &accounts, &public_key);
}

#[test]
#[ignore = "needs root and a container: cargo xtask test --stage systemd"]
fn a_segld_that_stands_still_is_killed_by_its_watchdog_and_its_clients_come_back() {
    let host = started("segl-watchdog");
    let public_key = public_key(&host);
    let stand_still = |host: &Host| {
        host.systemctl(&["kill", "--signal=SIGSTOP", "segld.service"]).unwrap();
        let (exit, status) = host.status();
        assert_eq!((exit, status), (3, Value::Null), "it does not answer");
        host.await_property("segld.service", "NRestarts", "1");
        host.await_property("segld.service", "ActiveState", "active");
        host.is_well();
    };
    let accounts = under_load(&host, &[&stand_still]);
    let said = host.container.log("segld.service").unwrap();
    assert!(said.contains("Watchdog timeout"), "{said}");
    assert!(accounts.len() > CLIENTS, "clients came back");
    // What went down with the process nobody holds: its client saw the connection end, and the next segld has put an
    // end to its record.
    let lost: usize = accounts.iter().map(|account| account.lost().len()).sum();
    assert!(lost > 0, "nothing was in flight: the watchdog killed an idle process");
    account_for(&host, &accounts, &public_key);
}
