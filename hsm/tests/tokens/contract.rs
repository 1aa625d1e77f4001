//! What every token promises, whatever it is made of.

use std::{collections::BTreeMap, sync::Arc, thread};

use segl_hsm::{
    Algorithm, DigestBytes, Fault, Input, KeyId, KeyInfo, KeySpec, KeyType, Kind, Retry, Rung, Session, Signature,
    Signed, Token, verify::verify,
};

use crate::openssl;

/// A key the token holds.
pub(crate) struct Held {
    pub(crate) key_type: KeyType,
    pub(crate) locator: String,
}

const MISSING: KeyId = KeyId(900);
const NEVER_ADDED: KeyId = KeyId(901);
const MESSAGE: &[u8] = b"a text that somebody signs";

/// Runs every promise. `missing` is a locator that leads to no key.
pub(crate) fn keep(token: Arc<dyn Token>, held: &[Held], missing: &str) {
    let mut specs: Vec<KeySpec> = (1..).zip(held).map(|(id, held)| spec(KeyId(id), &held.locator)).collect();
    specs.push(spec(MISSING, missing));
    token.add_keys(&specs);

    let keys = login_reports_every_key(&*token, held);
    every_algorithm_is_verified_by_openssl(&*token, &keys);
    two_threads_sign_at_once(&token, &keys);
    what_can_not_be_signed_is_refused(&*token, &keys);
    a_key_that_is_not_there_is_said_to_be_missing(&*token);
    presence_is_seen_without_signing(&*token, &keys);
    a_key_may_be_added_later(&*token, &held[0]);
    sessions_come_and_go(&*token, &keys);
}

pub(crate) fn spec(id: KeyId, locator: &str) -> KeySpec {
    KeySpec { id, locator: locator.into() }
}

pub(crate) fn session(token: &dyn Token) -> Box<dyn Session> {
    let mut session = token.open().unwrap();
    session.login().unwrap();
    session
}

type Keys = BTreeMap<KeyId, KeyInfo>;

fn login_reports_every_key(token: &dyn Token, held: &[Held]) -> Keys {
    let mut session = token.open().unwrap();
    let reports = session.login().unwrap();
    assert_eq!(reports.len(), held.len() + 1);
    let mut keys = Keys::new();
    for report in reports {
        match report.result {
            Ok(info) => drop(keys.insert(report.id, info)),
            Err(error) => {
                assert_eq!((report.id, error.kind()), (MISSING, Kind::KeyMissing), "{error}");
                assert_eq!(error.verdict().fault, Fault::Operator);
            }
        }
    }
    for (id, held) in (1..).zip(held) {
        assert_eq!(keys[&KeyId(id)].key_type, held.key_type);
        assert_eq!(segl_hsm::spki::key_type(&keys[&KeyId(id)].spki_der), Ok(held.key_type));
    }
    // Twice, and from another session, is as good as once.
    assert_eq!(session.login().unwrap().len(), held.len() + 1);
    let mut other = token.open().unwrap();
    let again: Keys = other.login().unwrap().into_iter().filter_map(|r| Some((r.id, r.result.ok()?))).collect();
    assert_eq!(again, keys);
    other.close().unwrap();
    session.close().unwrap();
    keys
}

fn every_algorithm_is_verified_by_openssl(token: &dyn Token, keys: &Keys) {
    let mut session = session(token);
    let mut signature = Signature::new();
    for (id, info) in keys {
        for algorithm in Algorithm::ALL.into_iter().filter(|algorithm| algorithm.fits(info.key_type)) {
            let message = Input::message(MESSAGE);
            let digest =
                algorithm.digest().map(|hash| Input::digest(algorithm, &openssl::digest(hash, MESSAGE)).unwrap());
            for input in [Some(message), digest].into_iter().flatten() {
                session.sign(*id, algorithm, &input, &mut signature).unwrap_or_else(|e| panic!("{algorithm}: {e}"));
                assert_eq!(signature.len(), info.key_type.signature_len(), "{algorithm}");
                openssl::verify(&info.spki_der, algorithm, MESSAGE, &signature);
                verify(&info.spki_der, algorithm, MESSAGE, &signature).unwrap();
                assert!(verify(&info.spki_der, algorithm, b"another text", &signature).is_err());
            }
        }
    }
    session.close().unwrap();
}

fn two_threads_sign_at_once(token: &Arc<dyn Token>, keys: &Keys) {
    let work = |seed: u8| {
        let mut session = session(&**token);
        let mut signature = Signature::new();
        for turn in 0..50 {
            for (id, info) in keys.iter().filter(|(_, info)| !matches!(info.key_type, KeyType::Rsa { .. })) {
                let message = [seed, turn];
                let algorithm = Algorithm::ALL.into_iter().find(|algorithm| algorithm.fits(info.key_type)).unwrap();
                session.sign(*id, algorithm, &Input::message(&message), &mut signature).unwrap();
                verify(&info.spki_der, algorithm, &message, &signature).unwrap();
            }
        }
        session.close().unwrap();
    };
    thread::scope(|scope| {
        scope.spawn(|| work(1));
        scope.spawn(|| work(2));
    });
}

fn what_can_not_be_signed_is_refused(token: &dyn Token, keys: &Keys) {
    let mut session = session(token);
    let mut signature = vec![7; 10];
    for (id, info) in keys {
        for algorithm in Algorithm::ALL {
            for len in [32, 48, 64] {
                let fits = algorithm.fits(info.key_type);
                if fits && algorithm.digest().is_some_and(|hash| hash.len() == len) {
                    continue;
                }
                let input = Input::Digest(DigestBytes::new(&vec![1; len]).unwrap());
                let error = session.sign(*id, algorithm, &input, &mut signature).unwrap_err();
                let kind = if fits { Kind::InputRefused } else { Kind::AlgorithmUnsupported };
                assert_eq!(error.kind(), kind, "{algorithm} {len}: {error}");
                let verdict = error.verdict();
                let expected = (Fault::Client, Signed::No, Retry::Never, Rung::None);
                assert_eq!((verdict.fault, verdict.signed, verdict.retry, verdict.rung), expected);
                assert!(signature.is_empty(), "an old signature must not look like the answer");
            }
        }
    }
    // The session is sound, as the verdict says.
    let (id, info) = keys.first_key_value().unwrap();
    let algorithm = Algorithm::ALL.into_iter().find(|algorithm| algorithm.fits(info.key_type)).unwrap();
    session.sign(*id, algorithm, &Input::message(MESSAGE), &mut signature).unwrap();
    session.close().unwrap();
}

fn a_key_that_is_not_there_is_said_to_be_missing(token: &dyn Token) {
    let mut session = session(token);
    let mut signature = Signature::new();
    for id in [MISSING, NEVER_ADDED] {
        let error = session.sign(id, Algorithm::Ed25519, &Input::message(MESSAGE), &mut signature).unwrap_err();
        assert_eq!(error.kind(), Kind::KeyMissing);
        assert_eq!(error.verdict().signed, Signed::No);
        assert_eq!(error.verdict().rung, Rung::None);
        assert_eq!(session.presence(id).unwrap_err().kind(), Kind::KeyMissing);
    }
    session.close().unwrap();
}

fn presence_is_seen_without_signing(token: &dyn Token, keys: &Keys) {
    let mut session = session(token);
    for id in keys.keys() {
        session.presence(*id).unwrap();
    }
    session.close().unwrap();
}

fn a_key_may_be_added_later(token: &dyn Token, held: &Held) {
    let id = KeyId(500);
    let mut session = session(token);
    token.add_keys(&[spec(id, &held.locator)]);
    let mut signature = Signature::new();
    let algorithm = Algorithm::ALL.into_iter().find(|algorithm| algorithm.fits(held.key_type)).unwrap();
    let message = Input::message(MESSAGE);
    assert_eq!(session.sign(id, algorithm, &message, &mut signature).unwrap_err().kind(), Kind::KeyMissing);
    let reports = session.login().unwrap();
    assert!(reports.iter().any(|report| report.id == id && report.result.is_ok()));
    session.sign(id, algorithm, &message, &mut signature).unwrap();
    session.close().unwrap();
}

fn sessions_come_and_go(token: &dyn Token, keys: &Keys) {
    let (id, info) = keys.first_key_value().unwrap();
    let algorithm = Algorithm::ALL.into_iter().find(|algorithm| algorithm.fits(info.key_type)).unwrap();
    let mut signature = Signature::new();
    let mut stays = session(token);
    for _ in 0..20 {
        let mut passes = session(token);
        passes.sign(*id, algorithm, &Input::message(MESSAGE), &mut signature).unwrap();
        passes.close().unwrap();
        stays.sign(*id, algorithm, &Input::message(MESSAGE), &mut signature).unwrap();
    }
    stays.close().unwrap();
    // All of them are closed now, and still the next one finds its keys.
    let mut last = session(token);
    last.sign(*id, algorithm, &Input::message(MESSAGE), &mut signature).unwrap();
    verify(&info.spki_der, algorithm, MESSAGE, &signature).unwrap();
    last.close().unwrap();
}
