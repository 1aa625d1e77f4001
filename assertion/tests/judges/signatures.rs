//! Every kind of signed assertion before judges from outside: xmlsec1, libxmlsec1 in Python, signxml, and the service
//! providers python3-saml and pysaml2.

use std::{fmt::Write, process::Command, sync::OnceLock};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use segl_assertion::{
    jws::JwsAlgorithm,
    saml::{DigestMethod, Document, KeyInfo, Limits, SignatureMethod},
};
use serde_json::{Value, json};

use crate::tools::{COMPANY, Key, PERSON, folder, issued_now, pem, python, run, xmlsec1};

/// The keys of every kind, each with a certificate of the intermediate authority.
struct Keys {
    root_pem: String,
    intermediate: Vec<u8>,
    rsa: Key,
    p256: Key,
    p384: Key,
    p521: Key,
}

fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let authority = |name: &str| {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params
        };
        let root = CertifiedIssuer::self_signed(authority("root"), KeyPair::generate().unwrap()).unwrap();
        let own = KeyPair::generate().unwrap();
        let intermediate = CertifiedIssuer::signed_by(authority("intermediate"), own, &root).unwrap();
        let issued = |key: Key| key.issued_by(&intermediate);
        Keys {
            root_pem: root.pem(),
            rsa: issued(Key::rsa()),
            p256: issued(Key::for_algorithm(JwsAlgorithm::Es256)),
            p384: issued(Key::for_algorithm(JwsAlgorithm::Es384)),
            p521: issued(Key::for_algorithm(JwsAlgorithm::Es512)),
            intermediate: intermediate.der().to_vec(),
        }
    })
}

/// What the Signature says of its key.
#[derive(Clone, Copy, Debug)]
enum Shown {
    Nothing,
    Leaf,
    Chain,
}

const SHOWN: [Shown; 3] = [Shown::Nothing, Shown::Leaf, Shown::Chain];

struct Signed {
    method: SignatureMethod,
    digest: DigestMethod,
    xml: String,
    id: String,
    key: &'static Key,
    shown: Shown,
}

impl Signed {
    fn certificate(&self) -> String {
        pem("CERTIFICATE", &self.key.certificate)
    }

    /// What the Signature shows, and what of the chain above it a provider has itself.
    fn certificates(&self) -> (Vec<String>, Vec<String>) {
        let intermediate = pem("CERTIFICATE", &keys().intermediate);
        let root = keys().root_pem.replace("\r\n", "\n");
        match self.shown {
            Shown::Nothing => (vec![], vec![]),
            Shown::Leaf => (vec![self.certificate()], vec![intermediate, root]),
            Shown::Chain => (vec![self.certificate(), intermediate], vec![root]),
        }
    }

    /// xmlsec1 learnt RSASSA-PSS with version 1.3, which Debian does not have; its library in Python judges that.
    fn is_known_to_xmlsec1(&self) -> bool {
        !self.method.uri().ends_with("MGF1")
    }
}

/// Signs with the key that the method is for, in both forms.
fn sign(document: &str, method: SignatureMethod, digest: DigestMethod, shown: Shown) -> Signed {
    let (key, algorithm) = match method {
        SignatureMethod::RsaSha256 => (&keys().rsa, JwsAlgorithm::Rs256),
        SignatureMethod::RsaSha384 => (&keys().rsa, JwsAlgorithm::Rs384),
        SignatureMethod::RsaSha512 => (&keys().rsa, JwsAlgorithm::Rs512),
        SignatureMethod::RsaPssSha256 => (&keys().rsa, JwsAlgorithm::Ps256),
        SignatureMethod::RsaPssSha384 => (&keys().rsa, JwsAlgorithm::Ps384),
        SignatureMethod::RsaPssSha512 => (&keys().rsa, JwsAlgorithm::Ps512),
        SignatureMethod::EcdsaSha256 => (&keys().p256, JwsAlgorithm::Es256),
        SignatureMethod::EcdsaSha384 => (&keys().p384, JwsAlgorithm::Es384),
        SignatureMethod::EcdsaSha512 => (&keys().p521, JwsAlgorithm::Es512),
    };
    let key_info = match shown {
        Shown::Nothing => KeyInfo::NONE,
        Shown::Leaf => KeyInfo::x509(&[&key.certificate]),
        Shown::Chain => KeyInfo::x509(&[&key.certificate, &keys().intermediate]),
    };
    let parsed = Document::parse(document.as_bytes(), &Limits::default()).unwrap();
    let prepared = parsed.prepare(method, digest, &key_info);
    let value = key.sign(algorithm, prepared.signed_info());
    let (at, element) = prepared.clone().signature_element(&value);
    let xml = prepared.finish(&value);
    let put = [&document.as_bytes()[..at], &element, &document.as_bytes()[at..]].concat();
    assert_eq!(put, xml, "the Signature alone, put where it belongs, is the whole document");
    let id = parsed.assertion().id().to_owned();
    Signed { method, digest, xml: String::from_utf8(xml).unwrap(), id, key, shown }
}

/// The samples, and what else puts namespaces in unusual places.
fn documents() -> Vec<String> {
    let xs = " xmlns:xs=\"http://www.w3.org/2001/XMLSchema\" xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\"";
    // Declared again where it is used, as OpenSAML writes it.
    let inside = PERSON.replace(" xsi:type=\"xs:string\"", &format!("{xs} xsi:type=\"xs:string\""));
    assert!(inside.matches(xs).count() == 12);
    vec![PERSON.to_owned(), COMPANY.to_owned(), inside]
}

/// Every method with every digest, showing its key in every way.
fn every_kind(document: &str) -> impl Iterator<Item = Signed> {
    let digests = |method: &'static SignatureMethod| DigestMethod::ALL.iter().map(move |digest| (*method, *digest));
    let kinds = SignatureMethod::ALL.iter().flat_map(digests);
    kinds.flat_map(move |(method, digest)| SHOWN.map(|shown| sign(document, method, digest, shown)))
}

fn ask(script: &str, cases: &[Value]) {
    let lines = cases.iter().fold(String::new(), |mut lines, case| {
        writeln!(lines, "{case}").unwrap();
        lines
    });
    let said = run(python().arg(folder().join(script)), lines.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(said.trim(), cases.len().to_string());
}

#[test]
fn libxmlsec1_and_signxml_accept_every_kind_of_signature() {
    let cases: Vec<Value> = documents()
        .iter()
        .flat_map(|document| every_kind(document))
        .map(|signed| {
            let (shown, issuers) = signed.certificates();
            json!({
                "xml": signed.xml, "id": signed.id, "certificate": signed.certificate(), "shown": shown,
                "issuers": issuers, "method": signed.method.uri(), "digest": signed.digest.uri(),
            })
        })
        .collect();
    assert_eq!(cases.len(), 3 * 9 * 3 * 3);
    ask("signatures.py", &cases);
}

/// A Response with the assertion, as a service provider gets it: issued now, in answer to its request.
fn response(sample: &str) -> (String, Value) {
    const ASKED: &str = "_q71b22f3c9d0d4f6fb8e5c1f0a2b3c4d5";
    let person = sample == PERSON;
    let audience = if person { "https://selvbetjening.korsbaek.example" } else { "https://sag.korsbaek.example" };
    // python3-saml knows its own address without a query only.
    let sample = sample.replace("?system=byg&amp;milj&#xF8;=prod\"", &format!("\" InResponseTo=\"{ASKED}\""));
    let mut document = issued_now(&sample);
    // pysaml2 writes an assertion anew before it looks at it, and loses the prefix in an xsi:type.
    if let Some(at) = document.find("<SubjectConfirmation Method=\"urn:oasis:names:tc:SAML:2.0:cm:holder-of-key\"") {
        let end = document.rfind("</SubjectConfirmation>").unwrap() + "</SubjectConfirmation>".len();
        document.replace_range(at..end, "");
    }
    let parsed = Document::parse(document.as_bytes(), &Limits::default()).unwrap();
    let assertion = parsed.assertion();
    let attributes: serde_json::Map<String, Value> = assertion
        .attributes()
        .map(|attribute| {
            let values: Vec<_> = attribute.values().map(|value| value.text().unwrap()).collect();
            (attribute.name().to_owned(), json!(values))
        })
        .collect();
    let expected = json!({
        "audience": audience, "recipient": format!("{audience}/saml/acs"), "in_response_to": ASKED,
        "name_id": assertion.subject().unwrap().name_id().unwrap().value(), "attributes": attributes,
    });
    (document, expected)
}

/// Around an assertion that was signed by itself.
fn in_response(signed: &str, recipient: &str, instant: &str) -> String {
    if signed.contains("<samlp:Response") {
        return signed.to_owned();
    }
    format!(
        "<samlp:Response xmlns:samlp=\"urn:oasis:names:tc:SAML:2.0:protocol\" ID=\"_r1\" Version=\"2.0\" \
         IssueInstant=\"{instant}\" Destination=\"{recipient}\" InResponseTo=\"_q71b22f3c9d0d4f6fb8e5c1f0a2b3c4d5\">\
         <Issuer xmlns=\"urn:oasis:names:tc:SAML:2.0:assertion\">https://saml.nemlog-in.example</Issuer><samlp:Status>\
         <samlp:StatusCode Value=\"urn:oasis:names:tc:SAML:2.0:status:Success\"/></samlp:Status>{signed}</samlp:Response>"
    )
}

#[test]
fn service_providers_take_every_kind_of_signature_and_read_what_the_policy_reads() {
    let mut cases = Vec::new();
    for sample in [PERSON, COMPANY] {
        let (document, expected) = response(sample);
        let instant = Document::parse(document.as_bytes(), &Limits::default()).unwrap();
        let instant = instant.assertion().issue_instant().to_owned();
        for (at, method) in SignatureMethod::ALL.iter().enumerate() {
            let signed = sign(&document, *method, DigestMethod::ALL[at % 3], SHOWN[at / 3]);
            let mut case = expected.clone();
            case["response"] = in_response(&signed.xml, expected["recipient"].as_str().unwrap(), &instant).into();
            case["certificate"] = signed.certificate().into();
            // It lets xmlsec1 verify.
            case["pysaml2"] = signed.is_known_to_xmlsec1().into();
            cases.push(case);
        }
    }
    ask("relying_parties.py", &cases);
}

/// By the public key alone, or by what the Signature shows and the authority that the provider trusts.
fn xmlsec1_accepts(document: &str, signed: &Signed) -> bool {
    let place = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = place.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let mut command: Command = xmlsec1();
    command.args(["--verify", "--id-attr:ID", "urn:oasis:names:tc:SAML:2.0:assertion:Assertion"]);
    let root = file("root.pem", &keys().root_pem);
    match signed.shown {
        Shown::Nothing => command.arg("--pubkey-cert-pem").arg(file("key.pem", &signed.certificate())),
        Shown::Leaf => {
            let intermediate = file("intermediate.pem", &pem("CERTIFICATE", &keys().intermediate));
            command.arg("--trusted-pem").arg(root).arg("--untrusted-pem").arg(intermediate)
        }
        Shown::Chain => command.arg("--trusted-pem").arg(root),
    };
    run(command.arg(file("document.xml", document)), b"").is_ok()
}

#[test]
fn xmlsec1_accepts_every_kind_of_signature_that_it_knows() {
    for document in documents() {
        for (at, method) in SignatureMethod::ALL.iter().enumerate() {
            let signed = sign(&document, *method, DigestMethod::ALL[at % 3], SHOWN[at % 3]);
            if signed.is_known_to_xmlsec1() {
                assert!(xmlsec1_accepts(&signed.xml, &signed), "{method:?}: {}", signed.xml);
            }
        }
    }
    for digest in DigestMethod::ALL {
        for shown in SHOWN {
            let signed = sign(PERSON, SignatureMethod::EcdsaSha256, *digest, shown);
            assert!(xmlsec1_accepts(&signed.xml, &signed), "{digest:?}, {shown:?}: {}", signed.xml);
        }
    }
}

#[test]
fn xmlsec1_accepts_an_assertion_that_was_signed_alone_and_put_into_a_response() {
    let signed = sign(COMPANY, SignatureMethod::EcdsaSha256, DigestMethod::Sha256, Shown::Leaf);
    let response = format!(
        "<p:Response xmlns:p=\"urn:oasis:names:tc:SAML:2.0:protocol\" xmlns:saml=\"urn:oasis:names:tc:SAML:2.0:assertion\" \
         xmlns:xs=\"http://www.w3.org/2001/XMLSchema\" xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\">{}</p:Response>",
        signed.xml
    );
    assert!(xmlsec1_accepts(&response, &signed), "{response}");
}

#[test]
fn xmlsec1_refuses_an_assertion_changed_after_it_was_signed() {
    let signed = sign(COMPANY, SignatureMethod::EcdsaSha256, DigestMethod::Sha256, Shown::Leaf);
    for (from, to) in [
        (">12345678<", ">12345679<"),
        ("Korsbæk Kommune</Att", "Korsbaek Kommune</Att"),
        ("08:30:00Z", "08:30:01Z"),
        ("saml:KeyInfoConfirmationDataType", "saml:KeyInfoConfirmationDataTypo"),
        ("</AttributeStatement>", " </AttributeStatement>"),
        // What xsi:type means is in the digest.
        ("xmlns:saml=\"urn:oasis:names:tc:SAML:2.0:assertion\"", "xmlns:saml=\"urn:other\""),
    ] {
        let changed = signed.xml.replace(from, to);
        assert_ne!(changed, signed.xml, "{from}");
        assert!(!xmlsec1_accepts(&changed, &signed), "{from} -> {to}");
    }
}
