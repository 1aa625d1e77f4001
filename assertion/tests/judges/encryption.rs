//! A signed assertion, encrypted: xmlsec1 decrypts and verifies it, and a service provider (python3-saml) takes it.

use base64::{Engine, engine::general_purpose::STANDARD};
use segl_assertion::{
    encrypt::{ContentMethod, Defaults, KeyTransport, Provider, Providers},
    jws::JwsAlgorithm,
    saml::{DigestMethod, Document, KeyInfo, Limits, SignatureMethod},
};
use serde_json::json;

use crate::tools::{COMPANY, Key, PERSON, folder, issued_now, pem, python, run, xmlsec1};

const AUDIENCE: &str = "https://selvbetjening.korsbaek.example";

/// A sample as if it were issued now, signed by a key of its own.
fn signed(sample: &str) -> (Key, Vec<u8>) {
    let fresh = issued_now(sample);
    let key = Key::for_algorithm(JwsAlgorithm::Es256);
    let document = Document::parse(fresh.as_bytes(), &Limits::default()).unwrap();
    let key_info = KeyInfo::x509(&[&key.certificate]);
    let prepared = document.prepare(SignatureMethod::EcdsaSha256, DigestMethod::Sha256, &key_info);
    let signature = key.sign(JwsAlgorithm::Es256, prepared.signed_info());
    (key, prepared.finish(&signature))
}

fn providers(provider: &Key, audience: &str, content: ContentMethod, transport: KeyTransport) -> Providers {
    let certificate = STANDARD.encode(&provider.certificate);
    let sha256 = "<ds:DigestMethod Algorithm=\"http://www.w3.org/2001/04/xmlenc#sha256\"/>";
    let digest = if transport == KeyTransport::RsaOaepMgf1pSha256 { sha256 } else { "" };
    let metadata = format!(
        "<EntityDescriptor xmlns=\"urn:oasis:names:tc:SAML:2.0:metadata\" xmlns:ds=\"http://www.w3.org/2000/09/xmldsig#\" \
         entityID=\"{audience}\"><SPSSODescriptor protocolSupportEnumeration=\"urn:oasis:names:tc:SAML:2.0:protocol\">\
         <KeyDescriptor use=\"encryption\"><ds:KeyInfo><ds:X509Data><ds:X509Certificate>{certificate}\
         </ds:X509Certificate></ds:X509Data></ds:KeyInfo><EncryptionMethod Algorithm=\"{}\"/>\
         <EncryptionMethod Algorithm=\"{}\">{digest}</EncryptionMethod></KeyDescriptor></SPSSODescriptor>\
         </EntityDescriptor>",
        content.uri(),
        transport.uri()
    );
    let provider = Provider::from_metadata(metadata.as_bytes(), Defaults::default(), 0).unwrap();
    assert_eq!((provider.content_method(), provider.key_transport()), (content, transport));
    let mut providers = Providers::default();
    providers.insert(provider);
    providers
}

const CONTENTS: [ContentMethod; 2] = [ContentMethod::Aes256Gcm, ContentMethod::Aes256Cbc];

/// It does not take `xmlenc11#rsa-oaep`: the schemas it carries have no element MGF of XML Encryption 1.1.
#[test]
fn a_service_provider_in_python_takes_what_was_signed_and_encrypted_for_it() {
    let provider = Key::rsa();
    for content in CONTENTS {
        for transport in [KeyTransport::RsaOaepMgf1pSha1, KeyTransport::RsaOaepMgf1pSha256] {
            let (key, document) = signed(PERSON);
            let providers = providers(&provider, AUDIENCE, content, transport);
            let encrypted = providers.encrypt(&document, &Limits::default()).unwrap();
            let readable = String::from_utf8(encrypted.clone()).unwrap();
            assert!(!readable.contains("fullName") && readable.contains("<saml:EncryptedAssertion "), "{readable}");
            let question = json!({
                "response": STANDARD.encode(&encrypted),
                "idp_certificate": STANDARD.encode(&key.certificate),
                "sp_certificate": STANDARD.encode(&provider.certificate),
                "sp_key": STANDARD.encode(&provider.pkcs8),
                "audience": AUDIENCE,
            });
            let judge = folder().join("service_provider.py");
            let said = run(python().arg(&judge), question.to_string().as_bytes());
            let said = said.unwrap_or_else(|error| panic!("{content:?}, {transport:?}: {error}"));
            assert_eq!(said.trim(), "taken: Bøje Æresen Østergård-Łukasz, Substantial", "{content:?}, {transport:?}");
        }
    }
}

#[test]
fn the_xmlsec_library_in_python_decrypts_and_verifies_by_every_method() {
    let provider = Key::rsa();
    for (sample, audience) in [(PERSON, AUDIENCE), (COMPANY, "https://sag.korsbaek.example")] {
        for content in CONTENTS {
            for transport in [KeyTransport::RsaOaep, KeyTransport::RsaOaepMgf1pSha1, KeyTransport::RsaOaepMgf1pSha256] {
                let (key, document) = signed(sample);
                let providers = providers(&provider, audience, content, transport);
                let encrypted = providers.encrypt(&document, &Limits::default()).unwrap();
                let question = json!({
                    "encrypted": STANDARD.encode(&encrypted),
                    "certificate": pem("CERTIFICATE", &key.certificate),
                    "private_key": pem("PRIVATE KEY", &provider.pkcs8),
                });
                let said = run(python().arg(folder().join("decrypt.py")), question.to_string().as_bytes());
                let said = said.unwrap_or_else(|error| panic!("{content:?}, {transport:?}: {error}"));
                assert_eq!(said.trim(), "decrypted and verified; a changed one refused", "{content:?}, {transport:?}");
            }
        }
    }
}

/// xmlsec1 of today's distributions (1.2) has no `xmlenc11#rsa-oaep` and no other digest than SHA-1 in the older one.
#[test]
fn xmlsec1_decrypts_what_was_encrypted_and_verifies_the_signature_in_it() {
    let provider = Key::rsa();
    for (sample, audience) in [(PERSON, AUDIENCE), (COMPANY, "https://sag.korsbaek.example")] {
        for content in CONTENTS {
            let (key, document) = signed(sample);
            let providers = providers(&provider, audience, content, KeyTransport::RsaOaepMgf1pSha1);
            let encrypted = providers.encrypt(&document, &Limits::default()).unwrap();
            let place = tempfile::tempdir().unwrap();
            let file = |name: &str, bytes: &[u8]| {
                let path = place.path().join(name);
                std::fs::write(&path, bytes).unwrap();
                path
            };
            let private = file("provider.pem", pem("PRIVATE KEY", &provider.pkcs8).as_bytes());
            let issuer = file("issuer.pem", pem("CERTIFICATE", &key.certificate).as_bytes());
            let encrypted = file("encrypted.xml", &encrypted);
            let decrypted = run(xmlsec1().arg("--decrypt").arg("--privkey-pem").arg(&private).arg(encrypted), b"");
            let decrypted = decrypted.unwrap_or_else(|error| panic!("{content:?}: {error}"));
            assert!(decrypted.contains("https://data.gov.dk/model/core/eid/fullName"), "{decrypted}");
            let verify = |document: &str| {
                let document = file("decrypted.xml", document.as_bytes());
                let id = ["--id-attr:ID", "urn:oasis:names:tc:SAML:2.0:assertion:Assertion"];
                run(xmlsec1().arg("--verify").args(id).arg("--trusted-pem").arg(&issuer).arg(document), b"")
            };
            verify(&decrypted).unwrap();
            let changed = decrypted.replacen("OIO-SAML-3.0", "OIO-SAML-3.1", 1);
            assert!(verify(&changed).is_err());
        }
    }
}
