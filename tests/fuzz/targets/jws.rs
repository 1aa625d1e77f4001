//! A protected header and a payload, cut apart at the first byte of zero.
#![no_main]

use libfuzzer_sys::fuzz_target;
use segl_assertion::{
    Refusal, VIOLATIONS_MAX,
    jws::{JwsAlgorithm, JwsKey, JwsPolicy, prepare},
};

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let (header, payload) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let policy = JwsPolicy {
        types: vec!["JWT".into()],
        issuers: vec!["https://op.example".into()],
        lifetime_max_s: 600,
        ..JwsPolicy::default()
    };
    let selective = JwsPolicy { types: vec!["dc+sd-jwt".into()], selective: true, ..policy.clone() };
    let sealed = JwsPolicy { no_token: true, header_parameters: vec!["sealed".into()], ..JwsPolicy::default() };
    for policy in [policy, selective, sealed] {
        match prepare(header, payload, JwsAlgorithm::Ps256, &JwsKey::default(), &policy, None, 1_795_305_600) {
            Ok(prepared) => assert_eq!(prepared.signing_input().iter().filter(|byte| **byte == b'.').count(), 1),
            Err(Refusal::Policy(violations)) => assert!((1..=VIOLATIONS_MAX).contains(&violations.len())),
            Err(Refusal::Malformed(_)) => {}
        }
    }
});
