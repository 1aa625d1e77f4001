//! JSON Web Signatures (RFC 7515) in compact serialisation: what is signed, and how the signature is put to it.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;

/// Longest payload in bytes: an id_token with every claim is below 4 KiB, an SD-JWT VC with a hundred disclosures
/// below 32 KiB.
pub const PAYLOAD_MAX: usize = 64 << 10;

/// Longest `kid` and `typ` in bytes.
const NAME_MAX: usize = 128;

/// The algorithms of RFC 7518 §3.1 and RFC 8037 that Segl's keys can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JwsAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512
    Rs512,
    /// RSASSA-PSS with SHA-256
    Ps256,
    /// RSASSA-PSS with SHA-384
    Ps384,
    /// RSASSA-PSS with SHA-512
    Ps512,
    /// ECDSA on P-256 with SHA-256
    Es256,
    /// ECDSA on P-384 with SHA-384
    Es384,
    /// ECDSA on P-521 with SHA-512
    Es512,
    /// Ed25519
    EdDsa,
}

impl JwsAlgorithm {
    /// The value of `alg`.
    pub const fn name(self) -> &'static str {
        match self {
            JwsAlgorithm::Rs256 => "RS256",
            JwsAlgorithm::Rs384 => "RS384",
            JwsAlgorithm::Rs512 => "RS512",
            JwsAlgorithm::Ps256 => "PS256",
            JwsAlgorithm::Ps384 => "PS384",
            JwsAlgorithm::Ps512 => "PS512",
            JwsAlgorithm::Es256 => "ES256",
            JwsAlgorithm::Es384 => "ES384",
            JwsAlgorithm::Es512 => "ES512",
            JwsAlgorithm::EdDsa => "EdDSA",
        }
    }
}

/// Why nothing can be prepared: the caller's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwsError {
    /// More than [`PAYLOAD_MAX`]
    #[error("the payload has {got} bytes, at most {PAYLOAD_MAX} are taken")]
    PayloadTooLong {
        /// Its length
        got: usize,
    },
    /// `kid` or `typ` is empty or longer than 128 bytes
    #[error("{parameter} has {got} bytes, 1 to 128 are taken")]
    NameLength {
        /// Which header parameter
        parameter: &'static str,
        /// Its length
        got: usize,
    },
}

/// A JWS that lacks nothing but its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared(String);

#[derive(Serialize)]
struct ProtectedHeader<'a> {
    alg: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    typ: Option<&'a str>,
}

/// Prepares a JWS. The header is built here from named parts, so that no caller can slip in an `alg`, `jku` or `crit`.
///
/// # Errors
/// When a part is longer than its limit.
pub fn prepare(
    algorithm: JwsAlgorithm,
    kid: Option<&str>,
    typ: Option<&str>,
    payload: &[u8],
) -> Result<Prepared, JwsError> {
    for (parameter, value) in [("kid", kid), ("typ", typ)] {
        if let Some(got) = value.map(str::len).filter(|len| !(1..=NAME_MAX).contains(len)) {
            return Err(JwsError::NameLength { parameter, got });
        }
    }
    if payload.len() > PAYLOAD_MAX {
        return Err(JwsError::PayloadTooLong { got: payload.len() });
    }
    let header = ProtectedHeader { alg: algorithm.name(), kid, typ };
    let header = serde_json::to_vec(&header).expect("text serialises to JSON");
    let mut signing_input = URL_SAFE_NO_PAD.encode(header);
    signing_input.push('.');
    URL_SAFE_NO_PAD.encode_string(payload, &mut signing_input);
    Ok(Prepared(signing_input))
}

impl Prepared {
    /// What is signed (RFC 7515 §5.1, step 5): header and payload in base64url, a dot between.
    pub fn signing_input(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The compact serialisation (RFC 7515 §7.1). An ECDSA signature is `r || s` (RFC 7518 §3.4).
    pub fn into_compact(self, signature: &[u8]) -> String {
        let mut compact = self.0;
        compact.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut compact);
        compact
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 7515, appendix A.2.
    const CLAIMS: &[u8] = b"{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n \"http://example.com/is_root\":true}";

    #[test]
    fn the_signing_input_is_that_of_the_rfc_s_example() {
        let prepared = prepare(JwsAlgorithm::Rs256, None, None, CLAIMS).unwrap();
        let expected = "eyJhbGciOiJSUzI1NiJ9.\
            eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        assert_eq!(prepared.signing_input(), expected.as_bytes());
        assert_eq!(prepared.into_compact(&[0xff, 0xfe]), format!("{expected}.__4"));
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_is_encoded() {
        let long = "k".repeat(NAME_MAX + 1);
        let refused = prepare(JwsAlgorithm::Es256, Some(&long), None, CLAIMS);
        assert_eq!(refused, Err(JwsError::NameLength { parameter: "kid", got: NAME_MAX + 1 }));
        let refused = prepare(JwsAlgorithm::Es256, None, Some(""), CLAIMS);
        assert_eq!(refused, Err(JwsError::NameLength { parameter: "typ", got: 0 }));
        let refused = prepare(JwsAlgorithm::Es256, None, None, &vec![b' '; PAYLOAD_MAX + 1]);
        assert_eq!(refused, Err(JwsError::PayloadTooLong { got: PAYLOAD_MAX + 1 }));
    }

    proptest! {
        #[test]
        fn no_text_in_a_header_becomes_another_parameter(kid in "\\PC{1,30}", payload: Vec<u8>) {
            let prepared = prepare(JwsAlgorithm::EdDsa, Some(&kid), None, &payload).unwrap();
            let parts: Vec<_> = prepared.signing_input().split(|byte| *byte == b'.').collect();
            prop_assert_eq!(parts.len(), 2);
            let header = URL_SAFE_NO_PAD.decode(parts[0]).unwrap();
            let header: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&header).unwrap();
            prop_assert_eq!(header.len(), 2);
            prop_assert_eq!(header["alg"].as_str(), Some("EdDSA"));
            prop_assert_eq!(header["kid"].as_str(), Some(&*kid));
            prop_assert_eq!(URL_SAFE_NO_PAD.decode(parts[1]).unwrap(), payload);
        }
    }
}
