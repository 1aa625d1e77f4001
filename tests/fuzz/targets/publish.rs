//! A public key and its certificates in DER, as `segld` lists them and the broker publishes them: each with its length
//! before it, two bytes, the key first. What is published is held against the key as it is read here.
#![no_main]

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use libfuzzer_sys::fuzz_target;
use segl_assertion::{
    jws::JwsAlgorithm,
    publish::{Jwk, PublishError, jwks, key_descriptor, thumbprint},
    saml::{Limits, canonical_form},
};
use serde_json::Value;

const NO_CERTIFICATES: [&[u8]; 0] = [];

/// The next part; what is said to be longer than what is left is what is left.
fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, after) = (*rest).split_first_chunk::<2>()?;
    let len = usize::from(u16::from_be_bytes(*len)).min(after.len());
    let (part, after) = after.split_at(len);
    *rest = after;
    Some(part)
}

/// The content of an item of DER, and what follows it. Tags and the form of lengths are the library's to refuse.
fn item(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (tag, mut rest) = bytes.split_first()?;
    if tag & 0x1f == 0x1f {
        let last = rest.iter().position(|byte| byte & 0x80 == 0)?;
        rest = &rest[last + 1..];
    }
    let (len, rest) = rest.split_first()?;
    let (len, rest) = if len & 0x80 == 0 {
        (usize::from(*len), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(len & 0x7f))?;
        (digits.iter().fold(0_usize, |len, digit| len << 8 | usize::from(*digit)), rest)
    };
    rest.split_at_checked(len)
}

/// The bits of a SubjectPublicKeyInfo: what follows the algorithm, without the number of unused bits.
fn bits_of(spki: &[u8]) -> Option<&[u8]> {
    let (info, _) = item(spki)?;
    let (_, after_algorithm) = item(info)?;
    let (bits, _) = item(after_algorithm)?;
    bits.get(1..)
}

/// Modulus and exponent of an RSAPublicKey, without leading zeros.
fn rsa_numbers(bits: &[u8]) -> Option<[Vec<u8>; 2]> {
    let (numbers, _) = item(bits)?;
    let (modulus, rest) = item(numbers)?;
    let (exponent, _) = item(rest)?;
    Some([modulus, exponent].map(|number| number.iter().copied().skip_while(|byte| *byte == 0).collect()))
}

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    let spki = part(&mut rest).unwrap_or_default();
    let mut certificates: Vec<&[u8]> = Vec::new();
    while let Some(certificate) = part(&mut rest) {
        certificates.push(certificate);
    }

    let alone = Jwk::new(spki, &NO_CERTIFICATES, None, None);
    let own_name = thumbprint(spki);
    assert_eq!(alone.as_ref().map(Jwk::kid), own_name.as_deref(), "the kid of a key that has no other");
    let descriptor = key_descriptor(spki, &certificates);
    let jwk = match Jwk::new(spki, &certificates, None, Some("seal/2026")) {
        Ok(jwk) => jwk,
        Err(error) => {
            assert_eq!(descriptor, Err(error), "the two are refused alike");
            return;
        }
    };
    own_name.expect("the key is read with its certificates");
    assert_eq!(jwk.kid(), "seal/2026");

    let set: Value = serde_json::from_str(&jwks(&[jwk])).expect("a JWK set is JSON");
    let jwk = &set["keys"][0];
    let number = |name: &str| {
        let text = jwk[name].as_str().expect("a key of this type has this member");
        URL_SAFE_NO_PAD.decode(text).expect("numbers are in base64url")
    };
    // The numbers as a KeyValue tells them; none for a key that has no KeyValue.
    let bits = bits_of(spki).expect("what is published is DER");
    let told = match jwk["kty"].as_str() {
        Some("EC") => {
            let field_bytes = match jwk["crv"].as_str() {
                Some("P-256") => 32,
                Some("P-384") => 48,
                Some("P-521") => 66,
                other => panic!("{other:?} is no curve"),
            };
            assert_eq!((number("x").len(), number("y").len()), (field_bytes, field_bytes));
            assert_eq!([&[4_u8][..], &number("x"), &number("y")].concat(), bits, "the point is the key's");
            vec![bits.to_vec()]
        }
        Some("OKP") => {
            assert_eq!(jwk["crv"], "Ed25519");
            assert_eq!(number("x"), bits, "the point is the key's");
            Vec::new()
        }
        Some("RSA") => {
            let numbers = rsa_numbers(bits).expect("what is published is DER");
            assert_eq!([number("n"), number("e")], numbers, "the numbers are the key's");
            numbers.into()
        }
        other => panic!("{other:?} is no type of key"),
    };

    let chain: Vec<Vec<u8>> = jwk["x5c"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| STANDARD.decode(one.as_str().expect("x5c is of texts")).expect("x5c is in base64"))
        .collect();
    assert_eq!(chain, certificates);
    assert_eq!(jwk["x5t#S256"].is_string(), !certificates.is_empty());
    if let Some(leaf) = certificates.first() {
        assert!(leaf.windows(spki.len()).any(|part| part == spki), "the first certificate is the key's");
    }

    let mut fitting = 0;
    for algorithm in JwsAlgorithm::ALL {
        match Jwk::new(spki, &certificates, Some(algorithm), None) {
            Ok(_) => fitting += 1,
            Err(error) => assert_eq!(error, PublishError::Algorithm(algorithm.name())),
        }
    }
    assert_eq!(fitting, if jwk["kty"] == "RSA" { 6 } else { 1 }, "a curve has one algorithm");

    if certificates.is_empty() && told.is_empty() {
        assert_eq!(descriptor, Err(PublishError::UnknownKind), "there is no KeyValue for this key");
        return;
    }
    let descriptor = descriptor.expect("what is a JWK is a KeyDescriptor too");
    canonical_form(descriptor.as_bytes(), &[], &Limits::default()).expect("a KeyDescriptor is XML");
    assert_eq!(descriptor.matches("<ds:X509Certificate>").count(), certificates.len());
    let shown = if certificates.is_empty() { told } else { chain };
    for one in shown {
        assert!(descriptor.contains(&format!(">{}<", STANDARD.encode(one))));
    }
});
