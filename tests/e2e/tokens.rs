//! The main job over every token there is: each algorithm, each form of input and of answer, through mutual TLS to
//! segld itself, with `openssl` as the judge.

use segl_tests::{
    conversation::{Conversation, sign_request},
    openssl,
    site::{ED25519, P256, P384, RSA, Token},
};
use segl_wire::{Code, EcdsaEncoding, Payload, Sign};

use crate::room::{DIGEST, Room, add_key, connect, sound, spki};

const P521: &str = "seal-p521";

const EVERYTHING: [(&str, &str); 10] = [
    (RSA, "rsa-pkcs1-sha256"),
    (RSA, "rsa-pkcs1-sha384"),
    (RSA, "rsa-pkcs1-sha512"),
    (RSA, "rsa-pss-sha256"),
    (RSA, "rsa-pss-sha384"),
    (RSA, "rsa-pss-sha512"),
    (P256, "ecdsa-p256-sha256"),
    (P384, "ecdsa-p384-sha384"),
    (P521, "ecdsa-p521-sha512"),
    (ED25519, "ed25519"),
];

/// Long enough for many blocks of a hash, and short enough for a frame.
const LONG: usize = 20_000;

/// A room whose token has a P-521 key too.
fn room(token: Token) -> Room {
    Room::open(token, |site| {
        let locator = match site.softhsm() {
            Some(softhsm) => format!("uri = \"pkcs11:{}\"", softhsm.generate("EC:secp521r1", P521).unwrap()),
            None => {
                let generate = format!("generate = [\n    {{ file = \"{P521}.pem\", type = \"ec-p521\" }},\n");
                site.segld_toml = site.segld_toml.replace("generate = [\n", &generate);
                format!("file = \"{P521}.pem\"")
            }
        };
        add_key(site, P521, "ecdsa-p521-sha512", &locator);
    })
}

/// Signs in one form and has openssl look at it.
fn openssl_accepts(conversation: &mut Conversation, spki: &[u8], document: &[u8], request: &Sign<'_>) {
    let mut signature = conversation.sign(request).unwrap().unwrap_or_else(|error| panic!("{request:?}: {error}"));
    if request.encoding == EcdsaEncoding::Raw && request.algorithm.starts_with("ecdsa-") {
        let width = match &*request.algorithm {
            "ecdsa-p256-sha256" => 32,
            "ecdsa-p384-sha384" => 48,
            _ => 66,
        };
        assert_eq!(signature.len(), 2 * width, "r and s have the width of the curve");
        signature = openssl::ecdsa_der(&signature);
    }
    openssl::verify(&request.algorithm, spki, document, &signature)
        .unwrap_or_else(|error| panic!("{:?} {:?}: {error}", request.encoding, request.payload));
}

fn signs_everything(token: Token) {
    let room = room(token);
    let mut conversation = connect(&room.site, 0);
    let documents = [Vec::new(), b"I, the undersigned".to_vec(), vec![0xa5; LONG]];
    for (key, algorithm) in EVERYTHING {
        let spki = spki(&mut conversation, key);
        // This openssl has no Ed25519 over nothing.
        for document in documents.iter().filter(|document| algorithm != "ed25519" || !document.is_empty()) {
            let input = openssl::input_of(algorithm, document).unwrap();
            for encoding in [EcdsaEncoding::Der, EcdsaEncoding::Raw] {
                let digest = Sign { encoding, ..sign_request(key, algorithm, &input) };
                let message = Sign { payload: Payload::Message(document.into()), ..digest.clone() };
                openssl_accepts(&mut conversation, &spki, document, &message);
                if algorithm != "ed25519" {
                    openssl_accepts(&mut conversation, &spki, document, &digest);
                }
            }
        }
    }
    // Ed25519 signs messages: what looks like a digest of one is not taken for it.
    let error = conversation.sign(&sign_request(ED25519, "ed25519", &DIGEST)).unwrap().unwrap_err();
    assert_eq!(error.code, Code::BadInput, "{error}");
    sound(&mut conversation);
}

#[test]
fn the_embedded_token_signs_everything_and_openssl_accepts_it() {
    signs_everything(Token::Embedded);
}

#[test]
fn softhsm_signs_everything_and_openssl_accepts_it() {
    signs_everything(Token::SoftHsm);
}

#[test]
fn kryoptic_signs_everything_and_openssl_accepts_it() {
    if std::env::var_os("SEGL_KRYOPTIC").is_none() {
        eprintln!("SKIPPED: SEGL_KRYOPTIC is not set; `cargo xtask test` builds Kryoptic and sets it");
        return;
    }
    signs_everything(Token::Kryoptic);
}
