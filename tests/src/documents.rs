//! Keys for assertions and JWS in an installation, realistic assertions of this moment, and their judges: `xmlsec1`, `openssl`.

use std::{path::Path, process::Command};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use rcgen::{CertificateParams, KeyPair};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    Result, openssl,
    pki::{Authority, pem},
    run,
    site::{FIRST, Site},
};

/// An RSA-3072 key for assertions.
pub const LOGIN_RSA: &str = "login-rsa";
/// A P-256 key for assertions.
pub const LOGIN: &str = "login-p256";
/// A P-256 key for JWS.
pub const TOKENS: &str = "tokens-p256";
/// The only issuer of assertions that the grants allow.
pub const ISSUER: &str = "https://saml.nemlog-in.example";
/// The CVR number in [`company`].
pub const CVR: &str = "12345678";

/// The Audience in [`person`].
pub const PERSONS_AUDIENCE: &str = "https://selvbetjening.korsbaek.example";
/// The Audience in [`company`].
pub const COMPANYS_AUDIENCE: &str = "https://sag.korsbaek.example";
/// The private key (RSA-2048, PEM) of the service providers of [`add_provider`].
pub const PROVIDER_KEY: &str = include_str!("../../assertion/tests/keys/rsa-2048.pem");

/// RSASSA-PKCS1-v1_5 with SHA-256 in XML.
pub const RSA_SHA256: &str = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256";
/// ECDSA with SHA-256 in XML.
pub const ECDSA_SHA256: &str = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256";
/// SHA-256 in XML.
pub const SHA256: &str = "http://www.w3.org/2001/04/xmlenc#sha256";

/// Rules of a grant for assertions, which take [`person`] and [`company`].
pub const ASSERTION_RULES: &str = r#"[tenant.grant.assertion]
issuers = ["https://saml.nemlog-in.example"]
audiences = ["https://sag.korsbaek.example", "https://selvbetjening.korsbaek.example"]
validity_max = "1h"
session_max = "8h"
clock_distance_max = "1m"
name_id_formats = [
    "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent",
    "urn:oasis:names:tc:SAML:2.0:nameid-format:transient",
]
spec_versions = ["OIO-SAML-3.0"]
assurance_levels = ["Low", "Substantial", "High"]
authn_context_classes = [
    "urn:oasis:names:tc:SAML:2.0:ac:classes:MobileTwoFactorContract",
    "urn:oasis:names:tc:SAML:2.0:ac:classes:X509",
]
confirmation_methods = ["bearer", "holder-of-key"]
friendly_names = [
    { attribute = "https://data.gov.dk/model/core/eid/fullName", name = "Fulde navn" },
    { attribute = "https://data.gov.dk/model/core/eid/professional/cvr", name = "CVR nummer" },
]
profile = "oiosaml3"
"#;

/// Rules of a grant for JWS, which take [`claims`].
pub const JWS_RULES: &str = r#"[tenant.grant.jws]
issuers = ["https://idp.example"]
audiences = ["https://app.example/*"]
lifetime_max = "10m"
types = ["JWT"]
claims = [{ name = "sub" }]
capacity = "not-compared"
"#;

/// A key for documents.
#[derive(Clone, Copy, Debug)]
pub struct DocumentKey<'a> {
    /// Its name, and of its file
    pub name: &'a str,
    /// `assertion` or `jws`
    pub purpose: &'a str,
    /// As segld's configuration calls its type
    pub embedded: &'a str,
    /// As `pkcs11-tool` does
    pub pkcs11: &'a str,
    /// What it may sign with
    pub algorithms: &'a [&'a str],
    /// The grant's table
    pub rules: &'a str,
}

/// Adds a key, and the first tenant's grant to it. To be called before the start.
pub fn add_key(site: &mut Site, of: &DocumentKey<'_>) -> Result<()> {
    let DocumentKey { name, purpose, embedded, pkcs11, algorithms, rules } = of;
    let (token, locator) = match site.softhsm() {
        Some(softhsm) => ("softhsm", format!("uri = \"pkcs11:{}\"", softhsm.generate(pkcs11, name)?)),
        None => {
            let generate = format!("generate = [\n    {{ file = \"{name}.pem\", type = \"{embedded}\" }},\n");
            site.segld_toml = site.segld_toml.replacen("generate = [\n", &generate, 1);
            ("embedded", format!("file = \"{name}.pem\""))
        }
    };
    let key = format!(
        "[[key]]\nname = \"{name}\"\npurpose = \"{purpose}\"\ntokens = [\"{token}\"]\n{locator}\n\
         algorithms = {algorithms:?}\naccept_legacy = true\n\n[[tenant]]"
    );
    site.segld_toml = site.segld_toml.replacen("[[tenant]]", &key, 1);
    let grant = format!("[[tenant.grant]]\nkey = \"{name}\"\n{rules}[[tenant.grant]]");
    site.segld_toml = site.segld_toml.replacen("[[tenant.grant]]", &grant, 1);
    site.broker_toml = site.broker_toml.replacen("keys = [", &format!("keys = [\"{name}\", "), 1);
    Ok(())
}

/// Gives keys, each with its public key (SubjectPublicKeyInfo, DER), certificates of an authority. segld takes them
/// with the next reload. Returns them in DER, in the order of the keys.
pub fn certify(site: &mut Site, authority: &Authority, keys: &[(&str, Vec<u8>)]) -> Result<Vec<Vec<u8>>> {
    let mut certificates = Vec::new();
    for (name, spki_der) in keys {
        let certificate = authority.certify(spki_der)?;
        std::fs::write(site.dir.join(format!("{name}.crt")), pem(&certificate) + &authority.pem())?;
        certificates.push(certificate);
        let named = format!("name = \"{name}\"\npurpose");
        let certified = format!("name = \"{name}\"\ncertificate = \"{name}.crt\"\npurpose");
        if !site.segld_toml.contains(&named) {
            return Err(format!("{name} is no key for documents").into());
        }
        site.segld_toml = site.segld_toml.replacen(&named, &certified, 1);
    }
    site.write()?;
    Ok(certificates)
}

/// Adds the keys, the first tenant's grants to them, and the same at the broker. To be called before the start.
pub fn add(site: &mut Site) -> Result<()> {
    let assertion = DocumentKey {
        name: LOGIN_RSA,
        purpose: "assertion",
        embedded: "rsa-3072",
        pkcs11: "rsa:3072",
        algorithms: &["rsa-pkcs1-sha256"],
        rules: ASSERTION_RULES,
    };
    let on_p256 = DocumentKey {
        name: LOGIN,
        embedded: "ec-p256",
        pkcs11: "EC:prime256v1",
        algorithms: &["ecdsa-p256-sha256"],
        ..assertion
    };
    let jws = DocumentKey { name: TOKENS, purpose: "jws", rules: JWS_RULES, ..on_p256 };
    for key in [assertion, on_p256, jws] {
        add_key(site, &key)?;
    }
    let operations = "operations = [\"sign-assertion\", \"sign-jws\", ";
    site.broker_toml = site.broker_toml.replacen("operations = [", operations, 1);
    for (list, key) in [("jwks", TOKENS), ("key_descriptors", LOGIN), ("key_descriptors", LOGIN_RSA)] {
        site.broker_toml += &format!("\n[[publish.{list}]]\ntenant = \"{FIRST}\"\nkey = \"{key}\"\n");
    }
    site.write()
}

/// Adds a service provider with the key [`PROVIDER_KEY`] to the broker's configuration, with metadata that lists these
/// methods, in this order.
pub fn add_provider(site: &mut Site, entity_id: &str, methods: &[&str]) -> Result<()> {
    let certificate = CertificateParams::default().self_signed(&KeyPair::from_pem(PROVIDER_KEY)?)?;
    let until = (OffsetDateTime::now_utc() + Duration::days(1)).replace_nanosecond(0)?.format(&Rfc3339)?;
    let methods = methods.iter().map(|method| format!("<EncryptionMethod Algorithm=\"{method}\"/>"));
    let metadata = format!(
        "<EntityDescriptor xmlns=\"urn:oasis:names:tc:SAML:2.0:metadata\" entityID=\"{entity_id}\" \
         validUntil=\"{until}\"><SPSSODescriptor protocolSupportEnumeration=\"urn:oasis:names:tc:SAML:2.0:protocol\">\
         <KeyDescriptor use=\"encryption\"><KeyInfo xmlns=\"http://www.w3.org/2000/09/xmldsig#\"><X509Data>\
         <X509Certificate>{}</X509Certificate></X509Data></KeyInfo>{}</KeyDescriptor></SPSSODescriptor>\
         </EntityDescriptor>",
        STANDARD.encode(certificate.der()),
        methods.collect::<String>()
    );
    let file = format!("provider-{}.xml", site.broker_toml.matches("[[provider]]").count());
    std::fs::write(site.dir.join(&file), metadata)?;
    site.broker_toml += &format!("\n[[provider]]\nmetadata = \"{file}\"\n");
    site.write()
}

/// Claims that the grants allow, issued now, with this `jti`.
pub fn claims(id: &str) -> String {
    let now_unix_s = OffsetDateTime::now_utc().unix_timestamp();
    format!(
        r#"{{"iss":"https://idp.example","aud":"https://app.example/a","sub":"x","jti":"{id}","iat":{now_unix_s},"exp":{}}}"#,
        now_unix_s + 300
    )
}

/// An assertion of a citizen in a Response, issued now, under this ID.
pub fn person(id: &str) -> String {
    issued_now(include_str!("../../assertion/tests/samples/person.xml"), id)
}

/// An assertion of someone who acts for the company [`CVR`], issued now, under this ID.
pub fn company(id: &str) -> String {
    issued_now(include_str!("../../assertion/tests/samples/company.xml"), id)
}

/// The samples are of 2026-11-21: every time in them is moved by as much as lies between.
fn issued_now(sample: &str, id: &str) -> String {
    const DAY: &str = "2026-11-21T";
    let time = |text: &str| OffsetDateTime::parse(text, &Rfc3339).expect("a time of RFC 3339");
    let assertion = sample.find("Assertion ").expect("there is an assertion");
    let (_, issued) = sample[assertion..].split_once("IssueInstant=\"").expect("it says when it was issued");
    let issued = time(issued.split_once('"').expect("an attribute ends").0);
    let now = OffsetDateTime::now_utc().replace_nanosecond(0).expect("0 is a nanosecond");
    let mut text = String::new();
    let mut rest = sample;
    while let Some(at) = rest.find(DAY) {
        let len = rest[at..].find('Z').expect("the samples' times are UTC") + 1;
        let moved: Duration = time(&rest[at..at + len]) - issued;
        text.push_str(&rest[..at]);
        text.push_str(&(now + moved).format(&Rfc3339).expect("a time of this century"));
        rest = &rest[at + len..];
    }
    text.push_str(rest);
    let assertion = text.find("Assertion ").expect("there is an assertion");
    let from = assertion + text[assertion..].find(" ID=\"").expect("it has an ID") + 5;
    let to = from + text[from..].find('"').expect("an attribute ends");
    text.replace_range(from..to, id);
    text
}

/// Whether xmlsec1 finds the signature of a signed assertion good, with this public key (SubjectPublicKeyInfo, DER).
///
/// # Errors
/// What it said.
pub fn xmlsec1(document: &[u8], spki_der: &[u8]) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (file, key) = (dir.path().join("assertion.xml"), dir.path().join("key.pem"));
    std::fs::write(&file, document)?;
    std::fs::write(&key, openssl::public_pem(spki_der)?)?;
    run(&mut xmlsec1_command(&key, &file)).map(drop)
}

/// The command that verifies the signed assertion in `file` with the public key in `key` (PEM).
pub fn xmlsec1_command(key: &Path, file: &Path) -> Command {
    let mut xmlsec1 = Command::new("xmlsec1");
    xmlsec1.args(["--verify", "--id-attr:ID", "urn:oasis:names:tc:SAML:2.0:assertion:Assertion", "--pubkey-pem"]);
    xmlsec1.arg(key).arg(file);
    xmlsec1
}

/// What xmlsec1 makes of a document with one EncryptedData, with the private key (PEM) that it was encrypted for.
///
/// # Errors
/// What it said.
pub fn xmlsec1_decrypt(document: &[u8], private_key_pem: &str) -> Result<Vec<u8>> {
    let dir = tempfile::tempdir()?;
    let (file, key) = (dir.path().join("encrypted.xml"), dir.path().join("key.pem"));
    std::fs::write(&file, document)?;
    std::fs::write(&key, private_key_pem)?;
    run(Command::new("xmlsec1").args(["--decrypt", "--privkey-pem"]).arg(&key).arg(&file))
}

/// The header of a JWS in compact serialisation.
///
/// # Errors
/// When it is none.
pub fn jws_header(compact: &str) -> Result<serde_json::Value> {
    let header = compact.split('.').next().ok_or("no compact serialisation")?;
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header)?)?)
}

/// Whether openssl finds the signature of a JWS in compact serialisation good that is signed with ES256.
///
/// # Errors
/// What it said, or that this is no such JWS.
pub fn es256(compact: &str, spki_der: &[u8]) -> Result<()> {
    let (signing_input, signature) = compact.rsplit_once('.').ok_or("no compact serialisation")?;
    let signature = openssl::ecdsa_der(&URL_SAFE_NO_PAD.decode(signature)?);
    openssl::verify("ecdsa-p256-sha256", spki_der, signing_input.as_bytes(), &signature)
}
