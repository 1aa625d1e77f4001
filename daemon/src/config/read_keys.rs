//! Reads `[[key]]`, and holds keys against their tokens, their certificates, one another and ETSI TS 119 312.

use segl_hsm::{Algorithm, KeyType};

use super::{
    Key, KeyVersion, Purpose, SelfTest, Token, Verify,
    files::Files,
    read_tokens::name,
    read_versions::{Of, generated_type, versions},
    reader::{At, Section, Span, Value, nearest},
};
use crate::{
    certificate::Chain,
    policy::{
        Claim, conflicts,
        suite::{self, Standing},
    },
};

/// Most keys: the pool keeps a queue for each set of tokens, the metrics a line for each key.
const KEYS_MAX: usize = 1_000;

pub(super) fn keys(sections: Vec<Section<'_>>, tokens: &[At<Token>], files: &Files<'_>) -> Vec<At<Key>> {
    let collector = files.collector();
    if sections.is_empty() {
        let hint = "add a [[key]]; docs/CONFIGURATION.md has examples";
        collector.missing(&(0..0), "there is no [[key]]: nothing could be signed", hint);
    }
    if let Some(section) = sections.get(KEYS_MAX) {
        collector.error(section.span(), format!("more than {KEYS_MAX} keys"), "run another segld for the rest");
    }
    let (mut keys, mut places) = (Vec::new(), Vec::new());
    for section in sections {
        let key = key(&section, &keys, tokens, files);
        section.finish();
        if let Some((key, versions)) = key {
            keys.push(key);
            places.push(versions);
        }
    }
    judge_public_keys(&keys, &places, files);
    keys
}

/// By the certificates; what the tokens hold is seen when they are logged in to. `places` are those of the versions.
fn judge_public_keys(keys: &[At<Key>], places: &[Vec<Span>], files: &Files<'_>) {
    let versions = keys.iter().zip(places).flat_map(|(key, places)| {
        key.value.versions.iter().zip(places).map(move |(version, place)| (&key.value, version, place))
    });
    let certified: Vec<_> = versions
        .filter_map(|(key, version, place)| Some((key, version.label(&key.name), version.certificate.as_ref()?, place)))
        .collect();
    let claims: Vec<_> = certified
        .iter()
        .map(|(key, label, file, _)| Claim {
            key: &key.name,
            label,
            purpose: key.purpose,
            spki_der: file.content.spki_der(),
        })
        .collect();
    for conflict in conflicts(&claims) {
        let ((_, _, _, first), (_, _, _, second)) = (&certified[conflict.first], &certified[conflict.second]);
        let line = files.collector().line(first);
        files.collector().error(second, format!("{conflict} (on {line})"), "make a key of its own for each");
    }
}

/// A key, and where each of its versions stands.
fn key(
    section: &Section<'_>,
    earlier: &[At<Key>],
    tokens: &[At<Token>],
    files: &Files<'_>,
) -> Option<(At<Key>, Vec<Span>)> {
    let taken = earlier.iter().map(|key| (&key.value.name, &key.span));
    let name = name(section, "[[key]]", taken);
    let hint = "the one thing it is for: purpose = \"digest\"";
    let choices = Purpose::ALL.map(|purpose| (purpose.name(), purpose));
    let purpose = section.required("purpose", hint).and_then(|value| value.one_of(&choices)).unwrap_or(Purpose::Digest);
    let hint = "the tokens that hold it: tokens = [\"...\"]";
    let held_by = section.required("tokens", hint).map(|value| held_by(value, tokens)).unwrap_or_default();
    let versions = versions(section, &Of { key: name.as_ref(), purpose, held_by: &held_by, earlier, files });
    let hint = "what it may be used with: algorithms = [\"ecdsa-p256-sha256\"]";
    let algorithms_at = section.required("algorithms", hint);
    let algorithms = algorithms_at.map(algorithms).unwrap_or_default();
    let accept_legacy = section.flag("accept_legacy", false);
    let key_type = |version: &At<KeyVersion>| {
        let chain = version.value.certificate.as_ref().map(|file| &file.content);
        chain.map(Chain::key_type).or_else(|| generated_type(&held_by, &version.value.locator))
    };
    let mut key_types: Vec<_> = versions.iter().map(key_type).collect();
    // What is to say of all is said once.
    key_types.dedup();
    if let Some(value) = algorithms_at {
        key_types.into_iter().for_each(|of| judge(value, &algorithms, of, accept_legacy, files.now_unix_s()));
    }
    let repeatable = section.flag("repeatable", matches!(purpose, Purpose::Assertion | Purpose::Jws));
    let self_test = self_test(section, purpose);
    // A CA signs seldom, and what it signs is valid for years.
    let default = if purpose == Purpose::Certificate { Verify::Always } else { Verify::Sample };
    let choices = [("off", Verify::Off), ("sample", Verify::Sample), ("always", Verify::Always)];
    let verify = section.one_of("verify", default, &choices);
    let mut tokens: Vec<_> = held_by.iter().map(|token| token.value.name.clone()).collect();
    tokens.sort();
    let (places, versions) = versions.into_iter().map(|version| (version.span, version.value)).unzip();
    let key = name?.map(|name| Key {
        name,
        purpose,
        tokens,
        algorithms,
        versions,
        repeatable,
        self_test,
        verify,
        accept_legacy,
    });
    Some((key, places))
}

fn held_by<'t>(value: Value<'_>, tokens: &'t [At<Token>]) -> Vec<&'t At<Token>> {
    let names = value.distinct(Value::text).unwrap_or_default();
    if names.is_empty() {
        value.error("no token holds it", "name at least one token");
    }
    let mut held_by = Vec::new();
    for name in names {
        match tokens.iter().find(|token| &*token.value.name == name.value) {
            Some(token) => held_by.push(token),
            None => {
                let hint = match nearest(name.value, tokens.iter().map(|token| &*token.value.name)) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => "add a [[token]] of that name, or correct it".to_owned(),
                };
                value.missing(&name.span, format!("there is no token \"{}\"", name.value), hint);
            }
        }
    }
    held_by
}

fn algorithms(value: Value<'_>) -> Vec<Algorithm> {
    let choices = Algorithm::ALL.map(|algorithm| (algorithm.name(), algorithm));
    let Some(list) = value.list() else { return Vec::new() };
    if list.is_empty() {
        value.error("no algorithm: the key could never be used", "name at least one");
    }
    let algorithms = value.distinct(|item| item.one_of(&choices)).unwrap_or_default();
    algorithms.into_iter().map(|algorithm| algorithm.value).collect()
}

/// Algorithms against the key and against ETSI TS 119 312.
fn judge(value: Value<'_>, algorithms: &[Algorithm], key_type: Option<KeyType>, accept_legacy: bool, now_unix_s: i64) {
    for algorithm in algorithms {
        if let Some(key_type) = key_type.filter(|key_type| !algorithm.fits(*key_type)) {
            value.error(format!("{algorithm} can not be done with a key of type {key_type}"), "take it out");
            continue;
        }
        match suite::standing(*algorithm, key_type, now_unix_s) {
            Standing::Recommended => {}
            Standing::Legacy(_) | Standing::Ended(_) if accept_legacy => {}
            Standing::Legacy(reason) => {
                value.warning(
                    format!("{algorithm}: {reason}"),
                    "plan its end, or say `accept_legacy = true` for this key",
                );
            }
            Standing::Ended(reason) => {
                value.error(
                    format!("{algorithm}: {reason}"),
                    "use another key or algorithm, or say `accept_legacy = true`",
                );
            }
            Standing::Broken(reason) => value.error(format!("{algorithm}: {reason}"), "use another key"),
        }
    }
}

fn self_test(section: &Section<'_>, purpose: Purpose) -> SelfTest {
    let choices = [("sign", SelfTest::Sign), ("presence", SelfTest::Presence)];
    let given = section.value("self_test").and_then(|value| Some((value, value.one_of(&choices)?)));
    match given {
        Some((value, SelfTest::Sign)) if purpose == Purpose::Certificate => {
            let hint = "use \"presence\", and give the token a canary: a [[key]] with purpose = \"self-test\"";
            value.error("a CA's key signs nothing but what it is for", hint);
            SelfTest::Presence
        }
        Some((_, self_test)) => self_test,
        None if purpose == Purpose::Certificate => SelfTest::Presence,
        None => SelfTest::Sign,
    }
}
