//! What is published of keys of every kind is read by a library, and is the key that a certificate carries.

use base64::{Engine, engine::general_purpose::STANDARD};
use segl_assertion::{
    jws::JwsAlgorithm,
    publish::{Jwk, jwks, key_descriptor, thumbprint},
};
use serde_json::json;

use crate::tools::{Key, folder, python, run};

#[test]
fn a_library_in_python_reads_the_same_keys_from_jwks_and_key_descriptors_as_from_der() {
    let mut keys = Vec::new();
    let mut asked = Vec::new();
    for algorithm in
        [JwsAlgorithm::Ps256, JwsAlgorithm::Es256, JwsAlgorithm::Es384, JwsAlgorithm::Es512, JwsAlgorithm::EdDsa]
    {
        let key = Key::for_algorithm(algorithm);
        let certificates = [&key.certificate];
        let jwk = Jwk::new(&key.spki, &certificates, Some(algorithm), None).unwrap();
        assert_eq!(jwk.kid(), thumbprint(&key.spki).unwrap());
        asked.push(json!({
            "kid": jwk.kid(),
            "spki": STANDARD.encode(&key.spki),
            "descriptor": key_descriptor(&key.spki, &certificates).unwrap(),
            "alg": algorithm.name(),
        }));
        keys.push(jwk);
    }
    let question = json!({"jwks": jwks(&keys), "keys": asked});
    let said = run(python().arg(folder().join("published.py")), question.to_string().as_bytes()).unwrap();
    assert_eq!(said.trim(), "5 keys agree");
}
