//! Reads `[[key]]`, and holds keys against their tokens, their certificates, one another and ETSI TS 119 312.

use std::{path::Path, sync::Arc};

use segl_hsm::{Algorithm, KeyType};

use super::{
    FromFile, Key, Purpose, SelfTest, Token, TokenKind, Verify,
    files::Files,
    read_tls::chain,
    read_tokens::{file_name, name, pkcs11_uri},
    reader::{At, Section, Value, nearest},
};
use crate::{
    certificate::{Chain, Validity},
    policy::{
        purpose_conflicts,
        suite::{self, Standing},
    },
};

/// Most keys: the pool keeps a queue for each set of tokens, the metrics a line for each key.
const KEYS_MAX: usize = 1_000;

pub(super) fn keys(sections: Vec<Section<'_>>, tokens: &[At<Token>], files: &Files<'_>) -> Vec<At<Key>> {
    let collector = files.collector();
    if sections.is_empty() {
        let hint = "add a [[key]]; docs/OPERATIONS.md has examples";
        collector.missing(&(0..0), "there is no [[key]]: nothing could be signed", hint);
    }
    if let Some(section) = sections.get(KEYS_MAX) {
        collector.error(section.span(), format!("more than {KEYS_MAX} keys"), "run another segld for the rest");
    }
    let mut keys: Vec<At<Key>> = Vec::new();
    for section in sections {
        let key = key(&section, &keys, tokens, files);
        section.finish();
        keys.extend(key);
    }
    let certified = keys.iter().filter_map(|key| Some((key, key.value.certificate.as_ref()?)));
    let public_keys: Vec<_> =
        certified.map(|(key, file)| (&*key.value.name, key.value.purpose, file.content.spki_der())).collect();
    for conflict in purpose_conflicts(&public_keys) {
        let (first, second) = (at(&keys, &conflict.first), at(&keys, &conflict.second));
        collector.error(
            second,
            format!("{conflict} (on {})", collector.line(first)),
            "make a key of its own for each purpose",
        );
    }
    keys
}

fn at<'k>(keys: &'k [At<Key>], name: &str) -> &'k super::reader::Span {
    &keys.iter().find(|key| &*key.value.name == name).expect("conflicts are about keys given in").span
}

fn key(section: &Section<'_>, earlier: &[At<Key>], tokens: &[At<Token>], files: &Files<'_>) -> Option<At<Key>> {
    let taken = earlier.iter().map(|key| (&key.value.name, &key.span));
    let name = name(section, "[[key]]", taken);
    let hint = "the one thing it is for: purpose = \"digest\"";
    let choices = Purpose::ALL.map(|purpose| (purpose.name(), purpose));
    let purpose = section.required("purpose", hint).and_then(|value| value.one_of(&choices)).unwrap_or(Purpose::Digest);
    let hint = "the tokens that hold it: tokens = [\"...\"]";
    let held_by = section.required("tokens", hint).map(|value| held_by(value, tokens)).unwrap_or_default();
    let locator = locator(section, &held_by, earlier, files);
    let hint = "what it may be used with: algorithms = [\"ecdsa-p256-sha256\"]";
    let algorithms_at = section.required("algorithms", hint);
    let algorithms = algorithms_at.map(algorithms).unwrap_or_default();
    let certificate = section.value("certificate").and_then(|value| certificate(value, files));
    let accept_legacy = section.flag("accept_legacy", false);
    let chain = certificate.as_ref().map(|file| &file.content);
    let key_type = chain.map(Chain::key_type).or_else(|| generated_type(&held_by, &locator));
    if let Some(value) = algorithms_at {
        judge(value, &algorithms, key_type, accept_legacy, files.now_unix_s());
    }
    let repeatable = section.flag("repeatable", matches!(purpose, Purpose::Assertion | Purpose::Jws));
    let self_test = self_test(section, purpose);
    // A CA signs seldom, and what it signs is valid for years.
    let default = if purpose == Purpose::Certificate { Verify::Always } else { Verify::Sample };
    let choices = [("off", Verify::Off), ("sample", Verify::Sample), ("always", Verify::Always)];
    let verify = section.one_of("verify", default, &choices);
    let mut tokens: Vec<_> = held_by.iter().map(|token| token.value.name.clone()).collect();
    tokens.sort();
    Some(name?.map(|name| Key {
        name,
        purpose,
        tokens,
        locator,
        algorithms,
        certificate,
        repeatable,
        self_test,
        verify,
        accept_legacy,
    }))
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

/// Where the tokens hold it: `uri` or `file`, as their kind asks, and no other key there.
fn locator(section: &Section<'_>, held_by: &[&At<Token>], earlier: &[At<Key>], files: &Files<'_>) -> Arc<str> {
    let embedded = held_by.iter().filter(|token| matches!(token.value.kind, TokenKind::Embedded { .. })).count();
    let (uri, file) = (section.value("uri"), section.value("file"));
    let (wanted, other) = match held_by.len() {
        // No token known: nothing can be said.
        0 => return "".into(),
        held if embedded == held => (section.required("file", "file = \"NAME.pem\" in the token's directory"), uri),
        _ if embedded == 0 => (section.required("uri", "uri = \"pkcs11:object=LABEL;id=%01\""), file),
        _ => {
            let hint = "keys in this process are for development; take them out of this key's tokens";
            section.collector().error(section.span(), "it is held by PKCS#11 and embedded tokens at once", hint);
            return "".into();
        }
    };
    if let Some(other) = other {
        other.error("its tokens are of the other kind: this says nothing to them", "take it out");
    }
    let Some(value) = wanted else { return "".into() };
    let locator: Arc<str> = if embedded > 0 {
        let Some(name) = file_name(value) else { return "".into() };
        for token in held_by {
            embedded_file(value, &name, &token.value, files);
        }
        name.into()
    } else {
        let Some(uri) = pkcs11_uri(value) else { return "".into() };
        if uri.selects_token() {
            value.error("the URI names a token, but that is said by `tokens`", "leave only object= and id=");
        } else if uri.object.is_none() && uri.id.is_none() {
            value.error("the URI names no key", "say which: object=LABEL or id=%01, best both");
        }
        uri.to_string().into()
    };
    let same = |key: &&At<Key>| {
        let shares = held_by.iter().any(|token| key.value.tokens.contains(&token.value.name));
        key.value.locator == locator && shares
    };
    if let Some(other) = earlier.iter().find(same) {
        value.error(
            format!(
                "key \"{}\" on {} is the same key on the same token",
                other.value.name,
                files.collector().line(&other.span)
            ),
            "one [[key]] for each key: give its users a [[tenant.grant]] instead",
        );
    }
    locator
}

fn embedded_file(value: Value<'_>, name: &str, token: &Token, files: &Files<'_>) {
    let TokenKind::Embedded { directory, generate } = &token.kind else { return };
    let made = generate.iter().any(|generate| generate.file == name);
    let path: &Path = &directory.join(name);
    if !made && !path.exists() {
        let hint = format!("put a PKCS#8 file there, or add it to `generate` of token \"{}\"", token.name);
        value.error(format!("{} does not exist", path.display()), hint);
    } else if !made {
        files.must_exist(value, path, "PKCS#8 key");
    }
}

fn generated_type(held_by: &[&At<Token>], locator: &str) -> Option<KeyType> {
    held_by.iter().find_map(|token| match &token.value.kind {
        TokenKind::Embedded { generate, .. } => generate.iter().find(|g| g.file == locator).map(|g| g.key_type),
        TokenKind::Pkcs11 { .. } => None,
    })
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

fn certificate(value: Value<'_>, files: &Files<'_>) -> Option<FromFile<Chain>> {
    let file = files.content(value, "certificate chain", chain)?;
    match file.content.validity(files.now_unix_s()) {
        Validity::Expired => {
            value.warning("the certificate has expired: the key refuses to sign", "put the new chain there and reload");
        }
        Validity::NotYet => {
            value.warning(
                "the certificate is not valid yet: until then the key refuses to sign",
                "check the host's clock",
            );
        }
        Validity::Valid => {}
    }
    Some(file)
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
