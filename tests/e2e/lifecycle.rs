//! How segld ends, comes back and changes its mind while it is in use.

use std::{process::Command, time::Duration};

use segl_tests::{
    conversation::{Conversation, sign_request},
    process::{Service, Signal},
    programs,
    site::{P256, Site, Token},
};
use segl_wire::{GoAway, GoAwayReason, Kind, Limits, Message};

use crate::load::{Account, connect, public_key, run, verify};

const SOON: Duration = Duration::from_secs(30);
const DIGEST: [u8; 32] = [7; 32];

fn site(token: Token) -> (Site, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (Site::create(&dir.path().join("site"), token, &[]).unwrap(), dir)
}

/// Four clients under full load; when `enough` requests are answered, `end` is done to segld.
fn under_load(
    site: &Site,
    segld: &mut Service,
    name: &str,
    enough: usize,
    end: impl FnOnce(&mut Service),
) -> Vec<Account> {
    let (progress, rounds) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|at| {
                let (conversation, progress) = (connect(site, at % 2), progress.clone());
                scope.spawn(move || run(conversation, &format!("{name}-{at}"), usize::MAX, &progress))
            })
            .collect();
        drop(progress);
        let mut answered = 0;
        while answered < enough {
            answered += rounds.recv().expect("clients go on until segld ends");
        }
        end(segld);
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    })
}

fn sound(conversation: &mut Conversation) {
    conversation.sign(&sign_request(P256, "ecdsa-p256-sha256", &DIGEST)).unwrap().unwrap();
}

/// References of the intents in the journal, after `segl audit verify` has found it whole.
fn recorded(site: &Site) -> std::collections::HashSet<String> {
    let segl = |words: &[&str]| {
        let output = Command::new(programs::segl()).args(words).arg(site.journal()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    segl(&["audit", "verify"]);
    let entries = segl(&["audit", "show", "--json"]);
    let entries = entries.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    entries.filter_map(|entry| Some(entry["reference"].as_str()?.to_owned())).collect()
}

#[test]
fn at_sigterm_under_load_every_request_is_answered_refused_or_above_goaway_s_last_id() {
    let (site, _dir) = site(Token::Embedded);
    let mut segld = site.start_segld().unwrap();
    let public_key = public_key(&site);
    let accounts = under_load(&site, &mut segld, "term", 2_000, |segld| segld.signal(Signal::TERM).unwrap());
    assert!(segld.wait(SOON).unwrap().success());
    let recorded = recorded(&site);
    for account in accounts {
        assert!(account.last_id.is_some(), "segld said that it leaves");
        assert_eq!(account.lost(), [0; 0]);
        for (reference, signature) in account.signed.values() {
            verify(&public_key, reference, signature);
            assert!(recorded.contains(reference), "{reference} was signed and is not in the journal");
        }
    }
}

#[test]
fn after_sigkill_under_load_every_signature_that_a_client_holds_is_in_the_journal() {
    let (site, _dir) = site(Token::Embedded);
    let mut held = Vec::new();
    for round in 0..10 {
        let mut segld = site.start_segld().unwrap();
        let public_key = public_key(&site);
        let enough = 300 + 170 * round;
        let accounts = under_load(&site, &mut segld, &format!("kill-{round}"), enough, |segld| {
            segld.kill().unwrap();
        });
        for (reference, signature) in accounts.into_iter().flat_map(|account| account.signed.into_values()) {
            verify(&public_key, &reference, &signature);
            held.push(reference);
        }
    }
    // One more start repairs the last torn tail.
    let mut segld = site.start_segld().unwrap();
    assert!(segld.terminate(SOON).unwrap().success());
    let recorded = recorded(&site);
    let missing: Vec<_> = held.iter().filter(|reference| !recorded.contains(*reference)).collect();
    assert!(missing.is_empty(), "{} of {} are not in the journal: {missing:?}", missing.len(), held.len());
}

#[test]
fn a_certificate_revoked_by_crl_and_sighup_loses_its_live_connection_and_its_neighbour_notices_nothing() {
    let (site, _dir) = site(Token::Embedded);
    let mut segld = site.start_segld().unwrap();
    let (mut neighbour, mut revoked) = (connect(&site, 0), connect(&site, 1));
    sound(&mut neighbour);
    sound(&mut revoked);

    let crl = site.clients.crl(2, &[&site.tenants[1].identity], Duration::from_secs(3600)).unwrap();
    std::fs::write(site.crl(), crl).unwrap();
    segld.signal(Signal::HUP).unwrap();
    segld.notified("RELOADING=1", SOON).unwrap();
    segld.ready(SOON).unwrap();

    let frame = revoked.receive().unwrap().expect("a GoAway before the end");
    assert_eq!(frame.header.known_kind(), Some(Kind::GoAway));
    let goaway = GoAway::decode(&frame.body, &Limits::from(revoked.hello())).unwrap();
    assert_eq!(goaway.reason, GoAwayReason::Unauthorised);
    assert!(revoked.receive().unwrap().is_none(), "then the connection ends");
    sound(&mut neighbour);
    let again = Conversation::open(site.segld, &site.servers.pem(), Some(&site.tenants[1].identity));
    assert!(again.unwrap_err().to_string().contains("CertificateRevoked"));
}

#[test]
fn a_reload_of_a_wrong_configuration_changes_nothing_and_a_sound_one_takes_a_grant_away_at_once() {
    let (mut site, _dir) = site(Token::Embedded);
    let mut segld = site.start_segld().unwrap();
    let (mut first, mut second) = (connect(&site, 0), connect(&site, 1));
    let sound_toml = site.segld_toml.clone();
    let mut reload = |site: &Site| {
        site.write().unwrap();
        segld.signal(Signal::HUP).unwrap();
        segld.notified("RELOADING=1", SOON).unwrap();
        segld.ready(SOON).unwrap();
    };

    site.segld_toml = sound_toml.replace("[[tenant.grant]]", "[[tenant.grunt]]");
    reload(&site);
    sound(&mut first);
    sound(&mut second);

    let grant = "[[tenant.grant]]\nkey = \"seal-p256\"\n";
    assert!(sound_toml.ends_with(grant), "the second tenant stands last");
    site.segld_toml = sound_toml.strip_suffix(grant).unwrap().to_owned();
    reload(&site);
    sound(&mut first);
    let refused = second.sign(&sign_request(P256, "ecdsa-p256-sha256", &DIGEST)).unwrap().unwrap_err();
    assert_eq!(refused.code, segl_wire::Code::NotGranted);
}
