//! A protected header and a payload, cut apart at the first byte of zero.
#![no_main]

use libfuzzer_sys::fuzz_target;
use segl_assertion::jws::{JwsAlgorithm, JwsKey, JwsPolicy, prepare};

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let (header, payload) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let policy = JwsPolicy {
        types: vec!["JWT".into()],
        issuers: vec!["https://op.example".into()],
        lifetime_max_s: 600,
        ..JwsPolicy::default()
    };
    for policy in [policy, JwsPolicy { no_token: true, ..JwsPolicy::default() }] {
        if let Ok(prepared) =
            prepare(header, payload, JwsAlgorithm::Ps256, &JwsKey::default(), &policy, None, 1_795_305_600)
        {
            assert_eq!(prepared.signing_input().iter().filter(|byte| **byte == b'.').count(), 1);
        }
    }
});
