//! Reads where a key is and which certificate it has: in `[[key]]` itself, or in each `[[key.version]]`, there with the
//! time from which it signs. Holds versions against one another, their certificates and the clock.

use std::{path::Path, sync::Arc};

use segl_hsm::KeyType;

use super::{
    FromFile, Key, KeyTerm, KeyVersion, Purpose, Token, TokenKind,
    files::Files,
    quantity::instant_text,
    read_tls::chain,
    read_tokens::{file_name, name, pkcs11_uri},
    reader::{At, Section, Value},
};
use crate::{
    certificate::{Chain, Validity},
    policy::jws_key_fits,
};

/// What a version has to fit into.
#[derive(Clone, Copy)]
pub(super) struct Of<'a> {
    /// The key's name, if it has one
    pub(super) key: Option<&'a At<Arc<str>>>,
    pub(super) purpose: Purpose,
    pub(super) held_by: &'a [&'a At<Token>],
    /// The keys before it
    pub(super) earlier: &'a [At<Key>],
    pub(super) files: &'a Files<'a>,
}

/// A version as it was read.
struct Version<'a> {
    name: At<Arc<str>>,
    from: Value<'a>,
    from_unix_s: i64,
    locator: Arc<str>,
    certificate: Option<FromFile<Chain>>,
}

impl Version<'_> {
    fn chain(&self) -> Option<&Chain> {
        self.certificate.as_ref().map(|file| &file.content)
    }
}

/// The versions of a key, by the time from which they sign; a key without any is its own only one. What can not be used is
/// reported and left out.
pub(super) fn versions(section: &Section<'_>, of: &Of<'_>) -> Vec<At<KeyVersion>> {
    let sections = section.sections("version", "[[key.version]]");
    if sections.is_empty() {
        return vec![only_version(section, of)];
    }
    for name in ["uri", "file", "certificate"] {
        if let Some(value) = section.value(name) {
            value.error("the key has versions, and each has its own", "move it into a [[key.version]]");
        }
    }
    if let Some(section) = sections.get(segl_wire::VERSIONS_MAX) {
        let text = format!("more than {} versions of a key", segl_wire::VERSIONS_MAX);
        of.files.collector().error(section.span(), text, "take the oldest out: nobody verifies with them any more");
    }
    let mut names: Vec<At<Arc<str>>> = Vec::new();
    let mut versions = Vec::new();
    let (many, mut retired) = (sections.len(), 0);
    for section in sections {
        let name = name(&section, "[[key.version]]", names.iter().map(|name| (&name.value, &name.span)));
        names.extend(name.clone());
        if section.flag("retired", false) {
            // It may be gone from the token, and its certificate from the disk.
            for name in ["uri", "file", "certificate", "active_from"] {
                section.value(name);
            }
            retired += 1;
        } else {
            versions.extend(version(&section, name, &versions, of));
        }
        section.finish();
    }
    if retired == many {
        let hint = "add the version that signs now, or take the key and its grants out";
        of.files.collector().error(section.span(), "all its versions are retired: nothing could be signed", hint);
    }
    versions.sort_by_key(|version| version.from_unix_s);
    judge_terms(&versions, of);
    versions.into_iter().map(described).collect()
}

fn described(version: Version<'_>) -> At<KeyVersion> {
    let term = KeyTerm { name: version.name.value, active_from_unix_s: version.from_unix_s };
    let value = KeyVersion { term: Some(term), locator: version.locator, certificate: version.certificate };
    At { value, span: version.name.span }
}

fn only_version(section: &Section<'_>, of: &Of<'_>) -> At<KeyVersion> {
    let locator = locator(section, &[], of);
    let certificate = section.value("certificate").and_then(|value| {
        let file = certificate(value, of.files)?;
        warn_of_validity(value, &file.content, of.files);
        Some(file)
    });
    let span = of.key.map_or(section.span(), |name| &name.span).clone();
    At { value: KeyVersion { term: None, locator, certificate }, span }
}

fn version<'a>(
    section: &Section<'a>,
    name: Option<At<Arc<str>>>,
    siblings: &[Version<'_>],
    of: &Of<'_>,
) -> Option<Version<'a>> {
    let locator = locator(section, siblings, of);
    let certificate = section.value("certificate").and_then(|value| certificate(value, of.files));
    let from = section.required("active_from", "from when it signs, in UTC: active_from = 2027-01-01T00:00:00Z")?;
    let (from_unix_s, name) = (from.instant()?, name?);
    let version = Version { name, from, from_unix_s, locator, certificate };
    let names = of.key.filter(|_| of.purpose == Purpose::Jws);
    if let Some(Err(why)) = names.map(|key| jws_key_fits(&label(key, &version.name), version.chain())) {
        let hint = "give the key or the version a shorter name, or the certificate a shorter chain";
        of.files.collector().error(&version.name.span, format!("a JWS could not name it: {why}"), hint);
    }
    Some(version)
}

fn label(key: &At<Arc<str>>, version: &At<Arc<str>>) -> String {
    format!("{}/{}", key.value, version.value)
}

/// Versions, in the order of their times, against one another, their certificates and the clock.
fn judge_terms(versions: &[Version<'_>], of: &Of<'_>) {
    let now = of.files.now_unix_s();
    for version in versions {
        let Some(chain) = version.chain() else { continue };
        let (from, from_unix_s) = (version.from, version.from_unix_s);
        if from_unix_s > chain.not_after_unix_s() {
            let end = instant_text(chain.not_after_unix_s());
            let text = format!("its certificate ends at {end}, before the version begins: it would never sign");
            from.error(text, "let it begin earlier, or give it its new certificate");
        } else if from_unix_s > now && from_unix_s < chain.not_before_unix_s() {
            let begin = instant_text(chain.not_before_unix_s());
            let text =
                format!("its certificate begins at {begin}, after the version does: nothing would sign until then");
            from.error(text, "let the version begin with its certificate, or later");
        }
    }
    for pair in versions.windows(2) {
        let [before, after] = pair else { continue };
        if before.from_unix_s == after.from_unix_s {
            let line = of.files.collector().line(&before.name.span);
            let text = format!("version \"{}\" on {line} begins at the same instant", before.name.value);
            after.from.error(text, "give each a time of its own: nobody could tell which of them signs");
            continue;
        }
        let Some(end) = before.chain().map(Chain::not_after_unix_s) else { continue };
        // What has ended already is told of the version that is active.
        if end < after.from_unix_s && now <= end {
            let text = format!(
                "the certificate of version \"{}\" ends at {}, before this one takes over: nothing signs in between",
                before.name.value,
                instant_text(end)
            );
            after.from.warning(text, "let this one begin earlier, or renew that certificate");
        }
    }
    match versions.iter().rfind(|version| version.from_unix_s <= now) {
        Some(active) => {
            if let Some(chain) = active.chain() {
                warn_of_validity(active.from, chain, of.files);
            }
        }
        None => {
            if let Some(first) = versions.first() {
                let text = format!("no version signs before {}", instant_text(first.from_unix_s));
                first.from.warning(text, "nothing is to be done if the key is new");
            }
        }
    }
}

/// Where the tokens hold it: `uri` or `file`, as their kind asks, and no other key there.
fn locator(section: &Section<'_>, siblings: &[Version<'_>], of: &Of<'_>) -> Arc<str> {
    let Of { held_by, files, .. } = *of;
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
        shares && key.value.versions.iter().any(|version| version.locator == locator)
    };
    if let Some(other) = of.earlier.iter().find(same) {
        value.error(
            format!(
                "key \"{}\" on {} is the same key on the same token",
                other.value.name,
                files.collector().line(&other.span)
            ),
            "one [[key]] for each key: give its users a [[tenant.grant]] instead",
        );
    }
    if let Some(other) = siblings.iter().find(|other| other.locator == locator) {
        let line = files.collector().line(&other.name.span);
        let text = format!("version \"{}\" on {line} is the same key on the same token", other.name.value);
        value.error(text, "a version is a key of its own: make one on the token, or renew the certificate of that one");
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

/// The type of a key that its token makes.
pub(super) fn generated_type(held_by: &[&At<Token>], locator: &str) -> Option<KeyType> {
    held_by.iter().find_map(|token| match &token.value.kind {
        TokenKind::Embedded { generate, .. } => generate.iter().find(|g| g.file == locator).map(|g| g.key_type),
        TokenKind::Pkcs11 { .. } => None,
    })
}

fn certificate(value: Value<'_>, files: &Files<'_>) -> Option<FromFile<Chain>> {
    files.content(value, "certificate chain", chain)
}

/// For a certificate that should be valid now.
fn warn_of_validity(value: Value<'_>, chain: &Chain, files: &Files<'_>) {
    match chain.validity(files.now_unix_s()) {
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
}
