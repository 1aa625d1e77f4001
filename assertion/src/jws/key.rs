//! What a JWS's header says about its key.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ring::digest;

/// Longest `kid` in bytes.
const KID_MAX: usize = 128;

/// Most certificates in `x5c`.
const CHAIN_MAX: usize = 8;

/// The header parameters that come from a key's configuration. Made once for a key and used for all its requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JwsKey {
    /// `kid` (RFC 7515 §4.1.4)
    pub(super) kid: Option<String>,
    /// `x5t#S256` (§4.1.8)
    pub(super) x5t_s256: Option<String>,
    /// `x5c` (§4.1.6), the leaf first
    pub(super) x5c: Vec<String>,
    /// What is put into headers
    pub(super) shown: Shown,
}

/// Which of them a header carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// `kid`
    pub kid: bool,
    /// `x5t#S256`
    pub x5t_s256: bool,
    /// `x5c`
    pub x5c: ShownChain,
}

/// How much of the chain `x5c` carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShownChain {
    /// No `x5c`
    #[default]
    Nothing,
    /// The key's certificate
    Leaf,
    /// All that is configured
    All,
}

/// Why a key's configuration cannot be shown: the operator's mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwsKeyError {
    /// `kid` is to be shown and there is none, or it is empty, too long or has control characters
    #[error("`kid` has 1 to {KID_MAX} bytes without control characters")]
    Kid,
    /// A certificate is to be shown and there is none
    #[error("`x5c` and `x5t#S256` need the key's certificate")]
    NoCertificate,
    /// More than eight certificates
    #[error("a chain has at most {CHAIN_MAX} certificates")]
    LongChain,
}

impl JwsKey {
    /// Takes the key's name and its certificates in DER, the leaf first.
    ///
    /// # Errors
    /// When what is to be shown is not there or beyond a limit.
    pub fn new(kid: Option<&str>, certificates: &[impl AsRef<[u8]>], shown: Shown) -> Result<JwsKey, JwsKeyError> {
        let good = |kid: &str| (1..=KID_MAX).contains(&kid.len()) && !kid.chars().any(char::is_control);
        if kid.map_or(shown.kid, |kid| !good(kid)) {
            return Err(JwsKeyError::Kid);
        }
        if certificates.len() > CHAIN_MAX {
            return Err(JwsKeyError::LongChain);
        }
        if certificates.is_empty() && (shown.x5t_s256 || shown.x5c != ShownChain::Nothing) {
            return Err(JwsKeyError::NoCertificate);
        }
        Ok(JwsKey {
            kid: kid.map(str::to_owned),
            x5t_s256: certificates.first().map(|leaf| x5t_s256(leaf.as_ref())),
            x5c: certificates.iter().map(|certificate| STANDARD.encode(certificate)).collect(),
            shown,
        })
    }

    /// The certificates a header carries.
    pub(super) fn shown_chain(&self) -> &[String] {
        match self.shown.x5c {
            ShownChain::Nothing => &[],
            ShownChain::Leaf => &self.x5c[..self.x5c.len().min(1)],
            ShownChain::All => &self.x5c,
        }
    }
}

/// `x5t#S256` of a certificate in DER (RFC 7515 §4.1.8).
pub(crate) fn x5t_s256(certificate: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, certificate))
}
