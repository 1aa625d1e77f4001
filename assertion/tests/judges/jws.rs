//! jwcrypto (Python) and jose (Node) verify a JWS of every algorithm with the keys of the published JWK set.

use base64::{Engine, engine::general_purpose::STANDARD};
use segl_assertion::{
    jws::{JwsAlgorithm, JwsKey, JwsPolicy, Shown, ShownChain, prepare},
    publish::{Jwk, jwks},
};
use serde_json::{Value, json};

use crate::tools::{Key, folder, node, python, run};

const NOW: u64 = 1_800_000_000;

/// What both judges are asked: tokens with the payload each must have, and the keys.
fn questions() -> Value {
    let policy = JwsPolicy {
        types: vec!["JWT".to_owned()],
        issuers: vec!["https://idp.example".to_owned()],
        lifetime_max_s: 600,
        clock_distance_max_s: 30,
        ..JwsPolicy::default()
    };
    // Not as a library would write it: what is signed is what the caller wrote.
    let payload =
        format!("{{ \"iss\":\"https://idp.example\",\r\n\"exp\": {}, \"name\":\"Korsb\\u00e6k ø\" }}", NOW + 300);
    let mut keys = Vec::new();
    let mut tokens = Vec::new();
    for algorithm in JwsAlgorithm::ALL {
        let key = Key::for_algorithm(algorithm);
        let certificates = [&key.certificate];
        let kid = algorithm.name();
        keys.push(Jwk::new(&key.spki, &certificates, Some(algorithm), Some(kid)).unwrap());
        let shown = Shown { kid: true, x5t_s256: true, x5c: ShownChain::All };
        let own = JwsKey::new(Some(kid), &certificates, shown).unwrap();
        let header = br#"{"typ":"JWT"}"#;
        let prepared = prepare(header, payload.as_bytes(), algorithm, &own, &policy, None, NOW).unwrap();
        let signature = key.sign(algorithm, prepared.signing_input());
        tokens.push(json!({
            "alg": algorithm.name(),
            "compact": prepared.finish(&signature),
            "payload": STANDARD.encode(&payload),
        }));
    }
    let set: Value = serde_json::from_str(&jwks(&keys)).unwrap();
    json!({"jwks": set, "tokens": tokens})
}

#[test]
fn a_library_in_python_accepts_a_jws_of_every_algorithm_and_none_that_was_changed() {
    let said = run(python().arg(folder().join("jws.py")), questions().to_string().as_bytes()).unwrap();
    assert_eq!(said.trim(), "10 verified, 10 changed ones refused");
}

#[test]
fn a_library_in_node_accepts_a_jws_of_every_algorithm_and_none_that_was_changed() {
    let said = run(node().arg(folder().join("jws.cjs")), questions().to_string().as_bytes()).unwrap();
    assert_eq!(said.trim(), "10 verified, 10 changed ones refused");
}
