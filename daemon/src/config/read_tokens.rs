//! Reads `[[token]]`.

use std::{sync::Arc, time::Duration};

use segl_hsm::{
    KeyType,
    pkcs11::{PinSource, Uri, UriError},
};

use super::{
    Generate, Host, Limits, Token, TokenKind,
    files::{Files, Located},
    read_settings::{cores, directory, site},
    reader::{At, Section, Value},
};

/// Most tokens: each is a set of threads.
const TOKENS_MAX: usize = 64;

/// Most sessions on a token: Luna's best is 30, nShield's 60; each is a thread.
const SESSIONS_MAX: u16 = 512;

/// Keys that the embedded token makes.
const KEY_TYPES: [(&str, KeyType); 7] = [
    ("rsa-2048", KeyType::Rsa { bits: 2048 }),
    ("rsa-3072", KeyType::Rsa { bits: 3072 }),
    ("rsa-4096", KeyType::Rsa { bits: 4096 }),
    ("ec-p256", KeyType::EcP256),
    ("ec-p384", KeyType::EcP384),
    ("ec-p521", KeyType::EcP521),
    ("ed25519", KeyType::Ed25519),
];

#[derive(Clone, Copy)]
enum Kind {
    Pkcs11,
    Embedded,
}

pub(super) fn tokens(sections: Vec<Section<'_>>, host: &Host, limits: &Limits, files: &Files<'_>) -> Vec<At<Token>> {
    if sections.is_empty() {
        let hint = "add a [[token]]; docs/CONFIGURATION.md has one of each kind";
        files.collector().missing(&(0..0), "there is no [[token]]: nothing could sign", hint);
    }
    if let Some(section) = sections.get(TOKENS_MAX) {
        files.collector().error(
            section.span(),
            format!("more than {TOKENS_MAX} tokens"),
            "run another segld for the rest",
        );
    }
    let mut tokens: Vec<At<Token>> = Vec::new();
    for section in sections {
        let Some(token) = token(&section, &tokens, Around { host, limits, files }) else { continue };
        section.finish();
        tokens.push(token);
    }
    if let (Some(site), Some(first)) = (&host.site, tokens.first())
        && tokens.iter().all(|token| !token.value.preferred)
    {
        let text = format!("no [[token]] is on this host's site {site:?}: none is preferred");
        files.collector().warning(&first.span, text, "correct `site` here or in [host]");
    }
    tokens
}

/// What a token is read beside.
#[derive(Clone, Copy)]
struct Around<'a> {
    host: &'a Host,
    limits: &'a Limits,
    files: &'a Files<'a>,
}

fn token(section: &Section<'_>, earlier: &[At<Token>], around: Around<'_>) -> Option<At<Token>> {
    let files = around.files;
    let taken = earlier.iter().map(|token| (&token.value.name, &token.span));
    let name = name(section, "[[token]]", taken);
    let choices = [("pkcs11", Kind::Pkcs11), ("embedded", Kind::Embedded)];
    let kind_hint = "kind = \"pkcs11\" for an HSM, \"embedded\" for keys in this process (development)";
    let Some(kind) = section.required("kind", kind_hint).and_then(|value| value.one_of(&choices)) else {
        // Without its kind nothing can be said about the rest, but its name is known.
        let kind = TokenKind::Embedded { directory: "/".into(), generate: Vec::new() };
        let (stuck_after, keep_alive) = (Duration::ZERO, Duration::ZERO);
        let preferred = true;
        let cores = Vec::new();
        return Some(name?.map(|name| Token { name, sessions: 1, stuck_after, keep_alive, preferred, cores, kind }));
    };
    let preferred = preferred(section, around.host);
    let stuck_after = stuck_after(section, around.limits);
    let (sessions, keep_alive, kind) = match kind {
        Kind::Pkcs11 => {
            let hint = "how many calls the HSM is given at once: its maker's figure for best throughput";
            let given = section.required("sessions", hint);
            let sessions = given.and_then(|value| value.integer(1..=SESSIONS_MAX.into())).unwrap_or(1);
            // Half the shortest patience known: a YubiHSM 2 closes what was idle for 30 s.
            let keep_alive = section.duration("keep_alive", "15s", Duration::ZERO..=Duration::from_secs(3_600));
            (sessions as u16, keep_alive, pkcs11(section, earlier, files))
        }
        Kind::Embedded => {
            let cpus = std::thread::available_parallelism().map_or(1, usize::from) as u32;
            let max = u32::from(SESSIONS_MAX);
            let sessions = section.count("sessions", cpus.min(max), 1..=max) as u16;
            (sessions, Duration::ZERO, embedded(section, earlier, files))
        }
    };
    let cores = cores(section, files);
    Some(name?.map(|name| Token { name, sessions, stuck_after, keep_alive, preferred, cores, kind }))
}

/// Whether it is on this host's site. One that says nothing of its site is as good as any.
fn preferred(section: &Section<'_>, host: &Host) -> bool {
    let Some(value) = section.value("site") else { return true };
    let Some(site) = site(value) else { return true };
    if host.site.is_none() {
        let hint = "say where this host stands: [host] site = \"...\"";
        value.error("the token has a site and this host has none, so nothing could be nearer than anything", hint);
    }
    host.site.as_deref() == Some(&*site)
}

/// Below a second a token that is only slow would lose its threads.
fn stuck_after(section: &Section<'_>, limits: &Limits) -> Duration {
    let stuck_after = section.duration("stuck_after", "5s", Duration::from_secs(1)..=Duration::from_secs(600));
    if let (Some(value), true) = (section.value("stuck_after"), stuck_after >= limits.timeout_max) {
        value.warning(
            "a request's time is up before its stuck call is given up, so it is never tried elsewhere",
            "keep it below [limits] `timeout_max`",
        );
    }
    stuck_after
}

fn pkcs11(section: &Section<'_>, earlier: &[At<Token>], files: &Files<'_>) -> TokenKind {
    let hint = "the vendor's library: module = \"/usr/lib/softhsm/libsofthsm2.so\"";
    let module = section.required("module", hint).and_then(|value| {
        let path = files.path(value)?;
        files.must_exist(value, &path, "PKCS#11 module");
        Some(path)
    });
    let hint = "which token of the module: uri = \"pkcs11:token=LABEL;serial=SERIAL\"";
    let uri_at = section.required("uri", hint);
    let uri = uri_at.and_then(|value| token_uri(value).map(|uri| (value, uri)));
    let pin = pin(section, files);
    if let Some((value, uri)) = &uri {
        let same = |token: &&At<Token>| matches!(&token.value.kind, TokenKind::Pkcs11 { module: m, uri: u, .. } if Some(m) == module.as_ref() && u == uri);
        if let Some(other) = earlier.iter().find(same) {
            value.error(
                format!(
                    "this is the same token as \"{}\" on {}",
                    other.value.name,
                    files.collector().line(&other.span)
                ),
                "one [[token]] for each; raise `sessions` instead",
            );
        }
    }
    TokenKind::Pkcs11 { module: module.unwrap_or_default(), uri: uri.map(|(_, uri)| uri).unwrap_or_default(), pin }
}

fn pin(section: &Section<'_>, files: &Files<'_>) -> PinSource {
    let (value, source, path) = match (section.value("pin_file"), section.value("pin_credential")) {
        (Some(_), Some(credential)) => {
            credential.error("both `pin_file` and `pin_credential` are given", "take one of them out");
            return PinSource::None;
        }
        (Some(value), None) => {
            let Some(path) = files.path(value) else { return PinSource::None };
            (value, PinSource::File(path.clone()), path)
        }
        (None, Some(value)) => {
            let located = value.text().and_then(|name| Some((name, files.credential(value, name)?)));
            let Some((name, Located::At(path))) = located else { return PinSource::None };
            (value, PinSource::Credential(name.to_owned()), path)
        }
        (None, None) => {
            let hint = "pin_credential = \"NAME\" with LoadCredentialEncrypted=NAME in the unit, or pin_file = \"...\"";
            section.required("pin_credential", hint);
            return PinSource::None;
        }
    };
    if let Err(error) = PinSource::File(path).check() {
        let hint = "a file that root or segld's user owns, and nobody else may read";
        files.judged_as_daemon(value, error.to_string(), hint);
    }
    source
}

fn embedded(section: &Section<'_>, earlier: &[At<Token>], files: &Files<'_>) -> TokenKind {
    let directory_at = section.required("directory", "where its keys are: directory = \"keys\"");
    let directory = directory_at.and_then(|value| directory(value, files)).unwrap_or_default();
    let same =
        |token: &&At<Token>| matches!(&token.value.kind, TokenKind::Embedded { directory: d, .. } if *d == directory);
    if let (Some(value), Some(other)) = (directory_at, earlier.iter().find(same)) {
        value.error(
            format!("token \"{}\" on {} has the same directory", other.value.name, files.collector().line(&other.span)),
            "one directory for each",
        );
    }
    let mut generate: Vec<Generate> = Vec::new();
    for item in section.value("generate").and_then(Value::list).unwrap_or_default() {
        let Some(entry) = item.table() else { continue };
        let file_at = entry.required("file", "generate = [{ file = \"login.pem\", type = \"ec-p256\" }]");
        let file = file_at.and_then(file_name);
        let key_type = entry.required("type", "type = \"ec-p256\"").and_then(|value| value.one_of(&KEY_TYPES));
        entry.finish();
        let (Some(value), Some(file), Some(key_type)) = (file_at, file, key_type) else { continue };
        if generate.iter().any(|other| other.file == file) {
            value.error(format!("{file} is to be made twice"), "take one of them out");
        }
        generate.push(Generate { file, key_type });
    }
    TokenKind::Embedded { directory, generate }
}

fn token_uri(value: Value<'_>) -> Option<Uri> {
    let uri = pkcs11_uri(value)?;
    if uri.selects_object() {
        value
            .error("the URI names an object, but this is about the token", "object and id go into the [[key]]'s `uri`");
        return None;
    }
    if !uri.selects_token() {
        value.error("the URI names no token: any would do", "pkcs11:token=LABEL, best with serial=");
        return None;
    }
    Some(uri)
}

/// RFC 7512.
pub(super) fn pkcs11_uri(value: Value<'_>) -> Option<Uri> {
    match value.text()?.parse() {
        Ok(uri) => Some(uri),
        Err(UriError::PinValue) => {
            value.error(UriError::PinValue.to_string(), "change the PIN, then use `pin_credential` or `pin_file`");
            None
        }
        Err(error) => {
            value
                .wrong("a PKCS#11 URI (RFC 7512)", &format!("{error}; pkcs11:token=LABEL, pkcs11:object=LABEL;id=%01"));
            None
        }
    }
}

/// A file name in an embedded token's directory.
pub(super) fn file_name(value: Value<'_>) -> Option<String> {
    let name = value.text()?;
    if name.is_empty() || name.starts_with('.') || name.contains('/') {
        value.wrong("a file name without directories", "the file is in the token's `directory`");
        return None;
    }
    Some(name.to_owned())
}

/// `name`, unique among its kind: 1 to 64 of `a-z 0-9 . _ -`, first a letter or digit.
pub(super) fn name<'t>(
    section: &Section<'_>,
    title: &str,
    mut taken: impl Iterator<Item = (&'t Arc<str>, &'t super::reader::Span)>,
) -> Option<At<Arc<str>>> {
    let value = section.required("name", "give it a name of its own: name = \"...\"")?;
    let name = value.text()?;
    section.rename(format!("{title} \"{name}\""));
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    let first_good = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if !first_good || name.len() > segl_wire::NAME_MAX || !name.bytes().all(good) {
        value.wrong("1 to 64 of a-z, 0-9, `.`, `_`, `-`, beginning with a letter or digit", "choose another name");
    }
    if let Some((_, other)) = taken.find(|(taken, _)| taken.as_ref() == name) {
        let text = format!("{title} \"{name}\" is there already, on {}", section.collector().line(other));
        value.error(text, "give one of them another name");
    }
    Some(value.at(name.into()))
}
