//! A service provider's metadata, and a document that is to be encrypted for it, cut apart at the first byte of zero.
#![no_main]

use libfuzzer_sys::fuzz_target;
use segl_assertion::{
    encrypt::{Defaults, Provider, Providers},
    saml::Limits,
};

/// When metadata is read and used: seconds since 1970.
const NOW: u64 = 1_795_305_600;

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let (metadata, document) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let Ok(provider) = Provider::from_metadata(metadata, Defaults::default(), NOW) else { return };
    assert!(!provider.entity_id().is_empty());
    let mut providers = Providers::default();
    assert!(providers.insert(provider).is_none());
    let known = providers.provider_of(document, &Limits::OF_SIGNED, NOW).map(|provider| provider.entity_id().to_owned());
    if let Ok(provider) = providers.provider_of(document, &Limits::default(), NOW) {
        assert_eq!(known.as_deref(), Ok(provider.entity_id()), "what `segld` takes the broker reads alike");
    }
    match providers.encrypt(document, &Limits::OF_SIGNED) {
        Ok(encrypted) => {
            assert!(known.is_ok(), "whom it is for was known before");
            let text = std::str::from_utf8(&encrypted).expect("XML of text is text");
            assert_eq!(text.matches(":EncryptedAssertion ").count(), 1);
            // What is not signed a second time is the Response's alone.
            providers.encrypt(&encrypted, &Limits::OF_SIGNED).expect_err("it is encrypted");
        }
        Err(error) => assert!(known.is_err() || error == segl_assertion::encrypt::EncryptError::NotSigned),
    }
});
