//! A signing key is rolled over by reloads while clients sign: published, taken over at its instant, retired.

use std::{
    collections::{BTreeMap, HashMap},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, SystemTime},
};

use segl_tests::{
    conversation::{Conversation, sign_request},
    site::{Site, Token},
};
use segl_wire::{Keys, Kind, Limits, ListKeys, Message, Signed, VersionPhase};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    load::{digest_of, verify},
    room::{Room, connect, journal, spki, until},
};

const SEAL: &str = "seal";
const ALGORITHM: &str = "ecdsa-p256-sha256";
/// Connections under load, and requests in flight on each.
const CONNECTIONS: usize = 3;
const PIPELINED: usize = 16;
/// Between two of them: every record is read at the end.
const PACE: Duration = Duration::from_millis(2);
/// From the reload that publishes a version to its instant: longer than a reload takes on a loaded machine.
const NOTICE: Duration = Duration::from_secs(10);

/// An answer, and between which moments of the clock, which is segld's too, it was decided.
struct Made {
    sent: SystemTime,
    received: SystemTime,
    version: Option<String>,
    reference: String,
    signature: Vec<u8>,
}

/// Signs until it is told to stop, without a moment in which nothing is in flight; nothing may be refused or lost.
fn sign_until(stop: &Receiver<()>, mut conversation: Conversation, name: &str) -> Vec<Made> {
    let limits = Limits::from(conversation.hello());
    let (mut in_flight, mut made) = (HashMap::new(), BTreeMap::new());
    let mut count = 0;
    loop {
        let stopping = stop.recv_timeout(PACE) != Err(RecvTimeoutError::Timeout);
        while in_flight.len() < PIPELINED && !stopping {
            let reference = format!("{name}-{count}");
            let digest = digest_of(&reference);
            let sent = SystemTime::now();
            let id = conversation.send(Kind::Sign, &sign_request(SEAL, ALGORITHM, &digest)).unwrap();
            in_flight.insert(id, (sent, reference));
            count += 1;
        }
        if in_flight.is_empty() {
            return made.into_values().collect();
        }
        let frame = conversation.receive().unwrap().expect("an answer to each request");
        assert_eq!(frame.header.known_kind(), Some(Kind::Signed), "{:?}", conversation.error(&frame));
        let received = SystemTime::now();
        let signed = Signed::decode(&frame.body, &limits).unwrap();
        let (sent, reference) = in_flight.remove(&frame.header.id).expect("one answer to each request");
        let (version, signature) = (signed.version.map(Into::into), signed.signature.into_owned());
        made.insert(frame.header.id, Made { sent, received, version, reference, signature });
    }
}

/// Each version's name, phase and public key; nothing for a key without versions.
fn versions(conversation: &mut Conversation) -> Vec<(String, VersionPhase, Vec<u8>)> {
    conversation.send(Kind::ListKeys, &ListKeys { meta: sign_request("", "", &[]).meta }).unwrap();
    let frame = conversation.answer().unwrap();
    let keys = Keys::decode(&frame.body, &Limits::from(conversation.hello())).unwrap();
    let seal = keys.keys.into_iter().find(|key| key.name == SEAL).unwrap();
    let told =
        |version: segl_wire::KeyVersion<'_>| (version.name.into_owned(), version.phase, version.spki_der.into_owned());
    seal.versions.into_iter().map(told).collect()
}

/// The key, with what says where it is.
fn put_key(site: &mut Site, described: &str) {
    let begin = format!("# the {SEAL}\n");
    let end = format!("# end of the {SEAL}\n");
    let key = format!(
        "{begin}[[key]]\nname = \"{SEAL}\"\npurpose = \"digest\"\ntokens = [\"softhsm\"]\n\
         algorithms = [\"{ALGORITHM}\"]\n{described}\n{end}"
    );
    match site.segld_toml.split_once(&begin) {
        Some((before, rest)) => {
            let (_, after) = rest.split_once(&end).unwrap();
            site.segld_toml = format!("{before}{key}{after}");
        }
        None => {
            site.segld_toml = site.segld_toml.replacen("[[tenant]]", &format!("{key}\n[[tenant]]"), 1);
            let grant = format!("[[tenant.grant]]\nkey = \"{SEAL}\"\n[[tenant.grant]]");
            site.segld_toml = site.segld_toml.replacen("[[tenant.grant]]", &grant, 1);
        }
    }
}

fn version(name: &str, uri: &str, active_from: OffsetDateTime, more: &str) -> String {
    let from = active_from.format(&Rfc3339).unwrap();
    format!("[[key.version]]\nname = \"{name}\"\nuri = \"{uri}\"\nactive_from = {from}\n{more}\n")
}

#[test]
fn a_key_is_rolled_over_under_load_at_its_instant_and_the_version_before_is_retired() {
    let mut first_uri = String::new();
    let mut room = Room::open(Token::SoftHsm, |site| {
        first_uri = format!("pkcs11:{}", site.softhsm().unwrap().generate("EC:prime256v1", "seal-1").unwrap());
        put_key(site, &format!("uri = \"{first_uri}\""));
    });
    let mut watcher = connect(&room.site, 0);
    assert!(versions(&mut watcher).is_empty());
    let second_uri = format!("pkcs11:{}", room.site.softhsm().unwrap().generate("EC:prime256v1", "seal-2").unwrap());

    let conversations: Vec<_> = (0..CONNECTIONS).map(|_| connect(&room.site, 0)).collect();
    let (instant, keys, made) = std::thread::scope(|scope| {
        let clients = conversations.into_iter().enumerate().map(|(at, conversation)| {
            let (stop, stopped) = channel();
            (stop, scope.spawn(move || sign_until(&stopped, conversation, &format!("roll-{at}"))))
        });
        let (stops, clients): (Vec<_>, Vec<_>) = clients.unzip();

        // The next version is published, and the first one goes on under a name.
        let instant = (OffsetDateTime::now_utc() + NOTICE).replace_nanosecond(0).unwrap();
        let first = version("2026", &first_uri, instant - time::Duration::days(300), "");
        put_key(&mut room.site, &[first, version("2027", &second_uri, instant, "")].concat());
        room.reload_taken();
        let published = versions(&mut watcher);
        let phases: Vec<_> = published.iter().map(|(name, phase, _)| (&**name, *phase)).collect();
        assert_eq!(phases, [("2026", VersionPhase::Active), ("2027", VersionPhase::Next)]);
        let begins =
            |room: &Room| room.metric("segl_key_version_begins_seconds", &["key=\"seal\"", "version=\"2027\""]);
        assert!(begins(&room) > 0.0);

        let later = SystemTime::from(instant) + Duration::from_secs(1);
        until("the instant is past", || SystemTime::now() > later);
        assert!(begins(&room) <= 0.0);
        assert_eq!(room.metric("segl_key_usable", &["key=\"seal\""]), 1.0);
        let phases: Vec<_> = versions(&mut watcher).into_iter().map(|(name, phase, _)| (name, phase)).collect();
        assert_eq!(phases, [("2026".to_owned(), VersionPhase::Former), ("2027".to_owned(), VersionPhase::Active)]);

        // Still under load the former one is retired.
        let first = version("2026", &first_uri, instant - time::Duration::days(300), "retired = true");
        put_key(&mut room.site, &[first, version("2027", &second_uri, instant, "")].concat());
        room.reload_taken();
        // Those who wait for a word hear that nobody will say it.
        drop(stops);
        let made: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        (SystemTime::from(instant), published, made)
    });

    let left = versions(&mut watcher);
    assert_eq!(left, [("2027".to_owned(), VersionPhase::Active, keys[1].2.clone())]);
    assert_eq!(spki(&mut watcher, SEAL), keys[1].2, "the key is its active version towards those who know no versions");
    for of_connection in &made {
        of_connection.iter().for_each(|made| decided_at_the_instant(made, instant, &keys));
        let versions: Vec<_> = of_connection.iter().map(|made| made.version.as_deref()).collect();
        assert!(versions.is_sorted() && versions.ends_with(&[Some("2027")]), "in the order of the requests");
        assert!(versions.contains(&Some("2026")));
    }
    recorded(&room.site, &keys);
}

/// By its version before the instant, by the next one from then on, to the request; and its own public key accepts it.
fn decided_at_the_instant(made: &Made, instant: SystemTime, keys: &[(String, VersionPhase, Vec<u8>)]) {
    if made.received < instant {
        assert_ne!(made.version.as_deref(), Some("2027"), "{} too early", made.reference);
    } else if made.sent >= instant {
        assert_eq!(made.version.as_deref(), Some("2027"), "{} too late", made.reference);
    }
    // Before it had versions the key was what its first version is now.
    let version = made.version.as_deref().unwrap_or("2026");
    let (_, _, spki) = keys.iter().find(|(name, ..)| name == version).unwrap();
    verify(&spki[26..], &made.reference, &made.signature);
}

/// Every intent names the version and the hash of its public key, and a version signed in its time only.
fn recorded(site: &Site, keys: &[(String, VersionPhase, Vec<u8>)]) {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let hashes: HashMap<_, _> = keys
        .iter()
        .map(|(name, _, spki)| (name.clone(), hex(ring::digest::digest(&ring::digest::SHA256, spki).as_ref())))
        .collect();
    let mut seen = HashMap::<_, usize>::new();
    for intent in journal(site).iter().filter(|entry| entry["kind"] == "intent" && entry["key"] == SEAL) {
        let version = intent["key_version"].as_str().unwrap_or("2026");
        assert_eq!(intent["key_spki_sha256"], hashes[version][..], "{intent}");
        *seen.entry(version.to_owned()).or_default() += 1;
    }
    assert!(seen["2026"] > 100 && seen["2027"] > 100, "{seen:?}");
}
