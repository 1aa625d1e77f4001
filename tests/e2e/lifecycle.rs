//! How segld ends, comes back and changes its mind while it is in use.

use std::time::Duration;

use segl_faulty_token::{Call, Does, When};
use segl_tests::{
    conversation::sign_request,
    faulty,
    process::{Service, Signal},
    site::{P256, Site, Token},
};
use segl_wire::{GoAwayReason, Kind};

use crate::{
    load::{Account, public_key, run, verify},
    room::{DIGEST, Room, SOON, connect, journal, sent_away, site, sound, try_connect},
};

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

/// References of the intents in the journal, which is sound.
fn recorded(site: &Site) -> std::collections::HashSet<String> {
    let entries = journal(site);
    entries.iter().filter_map(|entry| Some(entry["reference"].as_str()?.to_owned())).collect()
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
    let mut room = Room::open(Token::Embedded, |_| {});
    let (mut neighbour, mut revoked) = (connect(&room.site, 0), connect(&room.site, 1));
    sound(&mut neighbour);
    sound(&mut revoked);

    let crl = room.site.clients.crl(2, &[&room.site.tenants[1].identity], Duration::from_secs(3600)).unwrap();
    std::fs::write(room.site.crl(), crl).unwrap();
    room.reload_taken();
    assert_eq!(sent_away(&mut revoked), GoAwayReason::Unauthorised);
    sound(&mut neighbour);
    assert!(try_connect(&room.site, 1).unwrap_err().to_string().contains("CertificateRevoked"));
}

#[test]
fn a_token_that_hangs_holds_up_neither_the_end_nor_the_record() {
    let dir = tempfile::tempdir().unwrap();
    let (mut site, hsms) = faulty::create(&dir.path().join("site"), &[&["one"]], "sessions = 4").unwrap();
    site.segld_toml.push_str("\n[limits]\ndrain_timeout = \"1s\"\n");
    site.write().unwrap();
    let segld = site.start_segld().unwrap();
    let mut room = Room::around(site, segld, dir);
    let mut conversation = connect(&room.site, 0);
    sound(&mut conversation);

    hsms[0].fault(Call::Sign, When::Always, Does::Hang { for_ms: None }).unwrap();
    conversation.send(Kind::Sign, &sign_request(P256, "ecdsa-p256-sha256", &DIGEST)).unwrap();
    hsms[0].wait_for("hanging", 1).unwrap();
    assert!(room.segld.terminate(SOON / 2).unwrap().success(), "the end is in order all the same");
    let entries = journal(&room.site);
    let last_use = entries.iter().rev().find(|entry| entry["kind"] == "intent").unwrap();
    let outcome = entries.iter().find(|entry| entry["intent"] == last_use["seq"]).unwrap();
    assert_eq!(outcome["result"], "unknown", "{outcome}");
}

#[test]
fn a_reload_of_a_wrong_configuration_changes_nothing_and_a_sound_one_takes_a_grant_away_at_once() {
    let mut room = Room::open(Token::Embedded, |_| {});
    let (mut first, mut second) = (connect(&room.site, 0), connect(&room.site, 1));
    let sound_toml = room.site.segld_toml.clone();
    room.site.segld_toml = sound_toml.replace("[[tenant.grant]]", "[[tenant.grunt]]");
    room.reload_refused(&["grunt"]);
    sound(&mut first);
    sound(&mut second);

    let grant = "[[tenant.grant]]\nkey = \"seal-p256\"\n";
    room.site.segld_toml = sound_toml.strip_suffix(grant).expect("the second tenant stands last").to_owned();
    room.reload_taken();
    sound(&mut first);
    let refused = second.sign(&sign_request(P256, "ecdsa-p256-sha256", &DIGEST)).unwrap().unwrap_err();
    assert_eq!(refused.code, segl_wire::Code::NotGranted);
}
