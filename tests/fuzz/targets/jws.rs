//! In which capacity the person acts, in one byte; then a protected header and a payload, cut apart at the first byte of
//! zero. What is prepared to be signed is read again, by others' means, and held against the policy.
#![no_main]

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use libfuzzer_sys::fuzz_target;
use segl_assertion::{
    Capacity, Pattern, Refusal, VIOLATIONS_MAX,
    jws::{ClaimRule, HEADER_PARAMETERS_NEVER, JwsAlgorithm, JwsKey, JwsPolicy, prepare},
};
use serde_json::Value;

const NOW: u64 = 1_795_305_600;
const LIFETIME_MAX_S: u64 = 600;
const ISSUER: &str = "https://op.example";
const CAPACITY_CLAIM: &str = "cvr";
const VCT: &str = "https://data.gov.dk/vct/pid";

/// Tokens, SD-JWTs and sealed parameters. What may be behind a digest cannot be held against a capacity.
fn policies() -> [JwsPolicy; 3] {
    let token = JwsPolicy {
        types: vec!["JWT".into()],
        issuers: vec![ISSUER.into()],
        lifetime_max_s: LIFETIME_MAX_S,
        capacity_claim: Some(CAPACITY_CLAIM.into()),
        ..JwsPolicy::default()
    };
    let vct = ClaimRule { name: "vct".into(), required: true, values: vec![Pattern::new(VCT).expect("a pattern")] };
    let selective = JwsPolicy {
        types: vec!["dc+sd-jwt".into()],
        capacity_claim: None,
        claims: vec![vct],
        selective: true,
        ..token.clone()
    };
    let sealed = JwsPolicy { no_token: true, header_parameters: vec!["sealed".into()], ..JwsPolicy::default() };
    [token, selective, sealed]
}

/// Whether some reader could take anything in it for a claim behind a digest.
fn hides(claims: &Value) -> bool {
    match claims {
        Value::Object(members) => {
            members.iter().any(|(name, value)| ["_sd", "_sd_alg", "..."].contains(&name.as_str()) || hides(value))
        }
        Value::Array(items) => items.iter().any(hides),
        _ => false,
    }
}

/// What the policy lets through is what it says.
fn hold(policy: &JwsPolicy, capacity: Option<Capacity<'_>>, header: &Value, claims: &Value) {
    assert_eq!(header["alg"], JwsAlgorithm::Ps256.name());
    for name in HEADER_PARAMETERS_NEVER {
        assert!(name == "alg" || header.get(name).is_none(), "{name} is in the header");
    }
    assert_eq!(header.get("typ").and_then(Value::as_str), policy.types.first().map(String::as_str));
    if policy.no_token {
        for name in ["iss", "sub", "aud", "exp", "nbf"] {
            assert!(claims.get(name).is_none(), "{name} makes it a token");
        }
    } else {
        assert_eq!(claims["iss"], ISSUER);
        let lives = |exp: u64| exp > NOW && exp <= NOW + LIFETIME_MAX_S;
        assert!(claims["exp"].as_u64().is_some_and(lives));
    }
    if policy.selective {
        assert_eq!(claims["vct"], VCT);
    } else {
        assert!(!hides(claims), "a claim may be behind a digest");
    }
    if policy.capacity_claim.is_some() {
        match capacity {
            None => panic!("the request does not say in which capacity the person acts"),
            Some(Capacity::Citizen) => assert!(claims.get(CAPACITY_CLAIM).is_none()),
            Some(Capacity::Company(cvr)) => assert_eq!(claims[CAPACITY_CLAIM], cvr),
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, bytes)) = bytes.split_first() else { return };
    // `0`, `1` and `2` in the seeds.
    let capacity = match first % 3 {
        0 => None,
        1 => Some(Capacity::Citizen),
        _ => Some(Capacity::Company("12345678")),
    };
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let (header, payload) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    for policy in policies() {
        let key = JwsKey::default();
        let prepared = match prepare(header, payload, JwsAlgorithm::Ps256, &key, &policy, capacity, NOW) {
            Ok(prepared) => prepared,
            Err(Refusal::Policy(violations)) => {
                assert!((1..=VIOLATIONS_MAX).contains(&violations.len()));
                continue;
            }
            Err(Refusal::Malformed(_)) => continue,
        };
        let decoded = |part: &[u8]| URL_SAFE_NO_PAD.decode(part).expect("what is signed is in base64url");
        let signed: Vec<Vec<u8>> = prepared.signing_input().split(|byte| *byte == b'.').map(decoded).collect();
        let [signed_header, signed_payload] = signed.as_slice() else { panic!("there are {} parts", signed.len()) };
        assert_eq!(signed_payload, payload, "a payload is signed byte for byte");
        let signed_header = serde_json::from_slice(signed_header).expect("a header is JSON");
        let claims = serde_json::from_slice(payload).expect("a payload is JSON");
        hold(&policy, capacity, &signed_header, &claims);
    }
});
