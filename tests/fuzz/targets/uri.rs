//! A PKCS#11 URI (RFC 7512), as the configuration has it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use segl_hsm::pkcs11::Uri;

fuzz_target!(|text: &str| {
    let _ = text.parse::<Uri>();
});
