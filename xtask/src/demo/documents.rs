//! The demo's assertions and JWS: signed through the broker, judged by xmlsec1 and openssl; and some that are refused.

use std::{
    path::{Path, PathBuf},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use segl_tests::{
    documents::{self, CVR, ECDSA_SHA256, ISSUER, LOGIN, LOGIN_RSA, RSA_SHA256, TOKENS},
    http::{Answer, Http},
    openssl, signing,
};
use serde_json::{Value, json};

use super::ms;
use crate::Result;

/// An assertion that the demo has signed.
struct Work {
    /// The document's name, which its files have too
    name: &'static str,
    /// What it is, in the demo's words
    what: &'static str,
    make: fn(&str) -> String,
    /// The CVR number of the company that the person acts for
    company: Option<&'static str>,
    /// Text in it, and what someone else could like to read there
    forged: (&'static str, &'static str),
}

const PERSON: Work = Work {
    name: "person",
    what: "a samlp:Response with the assertion of a citizen",
    make: documents::person,
    company: None,
    forged: (">Substantial<", ">High<"),
};

const COMPANY: Work = Work {
    name: "company",
    what: "a saml:Assertion of someone who acts for Korsbæk Kommune",
    make: documents::company,
    company: Some(CVR),
    forged: ("Korsbæk Kommune", "Korsbaek Kommune"),
};

const KEYS: [(&str, &str, &str); 2] = [(LOGIN_RSA, RSA_SHA256, "rsa-sha256"), (LOGIN, ECDSA_SHA256, "ecdsa-sha256")];

/// What has to be found wrong, whatever else is.
const WRONG: [&str; 7] =
    ["issuer", "name-id-format", "audience", "conditions", "spec-version", "assurance-level", "capacity"];

/// The reference of the assertion that is against the policy.
pub(super) const REFUSED: &str = "demo-stolen";

/// Has everything signed, or refused, and tells it; the files go to a directory of their own.
///
/// Returns the references of what was signed, as they stand in the journal.
pub(super) fn tell(caller: &Http, dir: &Path, go_on: &dyn Fn() -> Result<()>) -> Result<Vec<String>> {
    let files = dir.join("documents");
    std::fs::create_dir_all(&files)?;
    let mut references = Vec::new();
    println!("\nA login broker has OIOSAML 3 assertions of this moment signed; segld looks into each before it signs:");
    for work in [&PERSON, &COMPANY] {
        println!("  {}.xml: {}", work.name, work.what);
        for key in KEYS {
            go_on()?;
            references.push(assertion(caller, &files, work, key)?);
        }
    }
    println!(
        "  Each came back byte for byte, with ds:Signature, and the key's certificate in it, right after Issuer.\n  \
           Verified by xmlsec1 with the public key of GET /v1/keys; and refused by it once {:?} reads {:?},\n  \
           {:?} reads {:?}.",
        PERSON.forged.0, PERSON.forged.1, COMPANY.forged.0, COMPANY.forged.1
    );
    let (key, file) = (files.join(format!("{LOGIN}.pem")), signed_file(&files, &COMPANY, LOGIN));
    println!("  All of it is in {}. By hand:\n    {}", files.display(), by_hand(&key, &file));
    go_on()?;
    references.push(id_token(caller, &files)?);
    go_on()?;
    against_the_policy(caller, &files)?;
    malformed(caller)?;
    Ok(references)
}

/// One assertion signed with one key, held against the input, verified, and verified not once it was changed.
fn assertion(caller: &Http, files: &Path, work: &Work, (key, method, short): (&str, &str, &str)) -> Result<String> {
    let reference = format!("demo-{}-{short}", work.name);
    let document = (work.make)(&format!("_{reference}"));
    let body = request(key, method, &document, work.company, &reference);
    let started = Instant::now();
    let answer = caller.post("/v1/assertions", &body, &[])?;
    let took = started.elapsed();
    let signed = answer.json["document"].as_str().filter(|_| answer.status == 200);
    let signed = signed.ok_or_else(|| format!("{reference}: {} {}", answer.status, answer.text))?;

    let rest = signed.split_once("<ds:Signature").and_then(|(before, after)| {
        let (_, after) = after.split_once("</ds:Signature>")?;
        before.ends_with("Issuer>").then(|| [before, after].concat())
    });
    if rest.as_deref() != Some(&document) {
        return Err(format!("{reference}: what came back is not the input with a signature after its Issuer").into());
    }
    let spki = signing::public_key(caller, key)?;
    let (key_file, file) = (files.join(format!("{key}.pem")), signed_file(files, work, key));
    std::fs::write(&key_file, openssl::public_pem(&spki)?)?;
    std::fs::write(files.join(format!("{}.xml", work.name)), &document)?;
    std::fs::write(&file, signed)?;
    documents::xmlsec1(signed.as_bytes(), &spki).map_err(|error| format!("{reference}: {error}"))?;
    let forged = signed.replacen(work.forged.0, work.forged.1, 1);
    if forged == signed || documents::xmlsec1(forged.as_bytes(), &spki).is_ok() {
        return Err(format!("{reference}: xmlsec1 accepts it although {:?} was changed", work.forged.0).into());
    }
    let us = |name: &str| answer.json["timings"][name].as_u64().unwrap_or_default();
    println!(
        "    {key:<11} {short:<12} {:>5} bytes  xmlsec1: verified  {:>9} in all, {:>6} us in the queue, {:>6} us in the token",
        signed.len(),
        ms(took),
        us("queue_us"),
        us("token_us")
    );
    Ok(reference)
}

/// An OpenID Connect id_token, as its payload the claims.
fn id_token(caller: &Http, files: &Path) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let reference = "demo-id-token";
    let payload = json!({ "iss": "https://idp.example", "aud": "https://app.example/borger", "sub": "37a5a1aa",
        "jti": reference, "nonce": "n-0S6_WzA2Mj", "acr": "Substantial", "iat": now, "exp": now + 300 });
    let body = json!({ "key": TOKENS, "algorithm": "ES256", "header": { "typ": "JWT" }, "payload": payload,
        "capacity": { "type": "citizen" }, "reference": reference });
    let answer = caller.post("/v1/jws", &body, &[])?;
    let jws = answer.json["jws"].as_str().filter(|_| answer.status == 200);
    let jws = jws.ok_or_else(|| format!("{reference}: {} {}", answer.status, answer.text))?;
    documents::es256(jws, &signing::public_key(caller, TOKENS)?).map_err(|error| format!("{reference}: {error}"))?;
    let file = files.join("id_token.jws");
    std::fs::write(&file, jws)?;
    println!("\nAn id_token as JWS: {TOKENS} ES256, {} bytes, openssl: verified; in {}", jws.len(), file.display());
    println!("  {:.70}...", jws);
    Ok(reference.to_owned())
}

/// What somebody who took over the broker could ask for: refused, with everything that is wrong.
fn against_the_policy(caller: &Http, files: &Path) -> Result<()> {
    let document = stolen(&documents::company("_demo-stolen"))?;
    let file = files.join("against-the-policy.xml");
    std::fs::write(&file, &document)?;
    let answer =
        caller.post("/v1/assertions", &request(LOGIN, ECDSA_SHA256, &document, Some("87654321"), REFUSED), &[])?;
    let violations = refused(&answer, "policy-violation")?;
    println!("\nWhoever takes over the broker asks for what the policy does not allow ({}):", file.display());
    println!("  {} {}, nothing signed; all that is wrong, with its XPath:", answer.status, code(&answer));
    for at in violations {
        let text = |field: &str| at[field].as_str().unwrap_or("-").to_owned();
        println!("  {:<15} {}\n  {:<15} {}", text("rule"), text("place"), "", text("text"));
    }
    match WRONG.iter().find(|rule| violations.iter().all(|at| at["rule"] != **rule)) {
        Some(rule) => Err(format!("the rule {rule:?} was broken and is not among the violations").into()),
        None => Ok(()),
    }
}

fn stolen(document: &str) -> Result<String> {
    let changes = [
        (ISSUER, "https://evil.example"),
        ("<Audience>https://sag.", "<Audience>https://elsewhere."),
        ("nameid-format:transient", "nameid-format:unspecified"),
        ("OIO-SAML-3.0", "OIO-SAML-2.0"),
        ("<AttributeValue>High<", "<AttributeValue>Ultimate<"),
    ];
    let mut stolen = document.to_owned();
    for (from, to) in changes {
        if !stolen.contains(from) {
            return Err(format!("the company's assertion has no {from:?}").into());
        }
        stolen = stolen.replacen(from, to, 1);
    }
    let (before, rest) = stolen.split_once("<Conditions").ok_or("the assertion has no Conditions")?;
    let (conditions, after) = rest.split_once('>').ok_or("Conditions has no end")?;
    let (start, _) = conditions.split_once("NotOnOrAfter='").ok_or("Conditions has no NotOnOrAfter")?;
    Ok(format!("{before}<Conditions{start}NotOnOrAfter='2099-12-31T23:59:59Z'>{after}"))
}

/// What is no assertion that two readers understand alike does not even come before the policy.
fn malformed(caller: &Http) -> Result<()> {
    let document = format!("<!DOCTYPE x [<!ENTITY e 'x'>]>{}", documents::company("_demo-entity"));
    let answer =
        caller.post("/v1/assertions", &request(LOGIN, ECDSA_SHA256, &document, Some(CVR), "demo-entity"), &[])?;
    let violations = refused(&answer, "malformed-document")?;
    let text = violations[0]["text"].as_str().unwrap_or_default();
    println!("An assertion with a DTD: {} {}: {text}", answer.status, code(&answer));
    Ok(())
}

/// What is wrong, as the answer lists it.
fn refused<'a>(answer: &'a Answer, expected: &str) -> Result<&'a [Value]> {
    match answer.json["violations"].as_array() {
        Some(violations) if answer.status == 422 && code(answer) == expected && !violations.is_empty() => {
            Ok(violations)
        }
        _ => Err(format!("{expected} with violations expected: {} {}", answer.status, answer.text).into()),
    }
}

fn code(answer: &Answer) -> &str {
    answer.json["code"].as_str().unwrap_or_default()
}

fn request(key: &str, method: &str, document: &str, company: Option<&str>, reference: &str) -> Value {
    let capacity = match company {
        Some(cvr) => json!({ "type": "company", "cvr": cvr }),
        None => json!({ "type": "citizen" }),
    };
    json!({ "key": key, "signature_method": method, "document": document, "capacity": capacity,
        "key_info": "leaf", "reference": reference, "timings": true })
}

fn signed_file(files: &Path, work: &Work, key: &str) -> PathBuf {
    files.join(format!("{}.signed-by-{key}.xml", work.name))
}

/// The judge's command, to be typed.
fn by_hand(key: &Path, file: &Path) -> String {
    let command = documents::xmlsec1_command(key, file);
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
