//! Algorithms and key sizes as ETSI TS 119 312 V2.1.1 (June 2026) sees them.

use segl_hsm::{Algorithm, KeyType};

/// 2029-01-01T00:00:00Z: the last certificates on RSA of 1900 to 2999 bits end on 2028-12-31.
const SHORT_RSA_ENDS_UNIX_S: i64 = 1_861_920_000;

/// How an algorithm with a key stands. The texts go into findings and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing to say
    Recommended,
    /// Its end is planned
    Legacy(&'static str),
    /// Its end has come: only where the configuration says so, key by key
    Ended(&'static str),
    /// Not with us, whatever the configuration says
    Broken(&'static str),
}

/// How the algorithm stands; a key type that is not known yet is not held against it.
pub fn standing(algorithm: Algorithm, key_type: Option<KeyType>, now_unix_s: i64) -> Standing {
    match key_type {
        Some(KeyType::Rsa { bits }) if bits < 1_900 => {
            return Standing::Broken("RSA below 1900 bits is not signed with");
        }
        Some(KeyType::Rsa { bits }) if bits < 3_000 && now_unix_s >= SHORT_RSA_ENDS_UNIX_S => {
            return Standing::Ended("ETSI TS 119 312 ended RSA below 3000 bits on 2028-12-31");
        }
        _ => {}
    }
    let pkcs1 = matches!(algorithm, Algorithm::RsaPkcs1Sha256 | Algorithm::RsaPkcs1Sha384 | Algorithm::RsaPkcs1Sha512);
    match key_type {
        Some(KeyType::Rsa { bits }) if bits < 3_000 => {
            Standing::Legacy("ETSI TS 119 312 ends RSA below 3000 bits on 2028-12-31")
        }
        _ if pkcs1 => Standing::Legacy("ETSI TS 119 312 calls RSASSA-PKCS1-v1_5 legacy; RSASSA-PSS is recommended"),
        _ => Standing::Recommended,
    }
}

/// Why the key must not be used so, if it must not: asked again when a token has shown the key's true type.
pub fn refusal(algorithm: Algorithm, key_type: KeyType, accept_legacy: bool, now_unix_s: i64) -> Option<&'static str> {
    match standing(algorithm, Some(key_type), now_unix_s) {
        Standing::Broken(reason) => Some(reason),
        Standing::Ended(reason) if !accept_legacy => Some(reason),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RSA_2048: KeyType = KeyType::Rsa { bits: 2048 };

    #[test]
    fn short_rsa_is_legacy_to_the_last_second_of_2028_then_ended() {
        let at = |now| standing(Algorithm::RsaPssSha256, Some(RSA_2048), now);
        assert!(matches!(at(SHORT_RSA_ENDS_UNIX_S - 1), Standing::Legacy(_)));
        assert!(matches!(at(SHORT_RSA_ENDS_UNIX_S), Standing::Ended(_)));
    }

    #[test]
    fn what_has_ended_is_used_only_by_keys_that_say_so_and_broken_by_none() {
        let after = SHORT_RSA_ENDS_UNIX_S;
        assert!(refusal(Algorithm::RsaPssSha256, RSA_2048, false, after).is_some());
        assert_eq!(refusal(Algorithm::RsaPssSha256, RSA_2048, true, after), None);
        assert!(refusal(Algorithm::RsaPssSha256, KeyType::Rsa { bits: 1024 }, true, after).is_some());
        assert_eq!(refusal(Algorithm::EcdsaP256Sha256, KeyType::EcP256, false, after), None);
    }

    #[test]
    fn pkcs1_is_legacy_with_any_key_and_pss_with_3072_bits_is_not() {
        let rsa_3072 = Some(KeyType::Rsa { bits: 3072 });
        assert!(matches!(standing(Algorithm::RsaPkcs1Sha256, rsa_3072, 0), Standing::Legacy(_)));
        assert!(matches!(standing(Algorithm::RsaPkcs1Sha256, None, 0), Standing::Legacy(_)));
        assert_eq!(standing(Algorithm::RsaPssSha256, rsa_3072, 0), Standing::Recommended);
    }
}
