//! Who asks: callers, told apart by bearer token or client certificate, and what each may do.
//!
//! A [`Caller`] comes only from [`Callers::authenticate`], and everything not listed is denied.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
    sync::Arc,
};

use ring::{
    digest::{SHA256, digest},
    rand::{SecureRandom, SystemRandom},
};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::config;

/// All callers of one configuration.
#[derive(Debug, Default)]
pub struct Callers {
    tokens: Vec<(TokenHash, Arc<Caller>)>,
    /// By SAN; several may share one when their keys are pinned
    certificates: BTreeMap<String, Vec<Holder>>,
}

#[derive(Debug)]
struct Holder {
    /// The only public key that it may have
    spki_sha256: Option<TokenHash>,
    caller: Arc<Caller>,
}

/// Someone the broker knows.
#[derive(Debug)]
pub struct Caller {
    /// Its name, as `segld`'s record has it
    pub name: String,
    /// The tenant it belongs to
    pub tenant: String,
    keys: BTreeSet<String>,
    operations: BTreeSet<Operation>,
}

impl Caller {
    /// Whether it may use this key. A key that does not exist looks the same as one that is not granted.
    pub fn may_use(&self, key: &str) -> bool {
        self.keys.contains(key)
    }

    /// Whether it may do this at all.
    pub fn may(&self, operation: Operation) -> bool {
        self.operations.contains(&operation)
    }
}

/// What a caller may be allowed to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// `POST /v1/sign`
    Sign,
    /// `POST /v1/sign-batch`
    SignBatch,
    /// `POST /v1/assertions`
    SignAssertion,
    /// `POST /v1/jws`
    SignJws,
    /// `GET /v1/keys`
    Keys,
}

impl Operation {
    /// As the configuration and the metrics say it.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Sign => "sign",
            Operation::SignBatch => "sign-batch",
            Operation::SignAssertion => "sign-assertion",
            Operation::SignJws => "sign-jws",
            Operation::Keys => "keys",
        }
    }
}

impl FromStr for Operation {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let all = [Self::Sign, Self::SignBatch, Self::SignAssertion, Self::SignJws, Self::Keys];
        all.into_iter().find(|operation| operation.name() == text).ok_or(())
    }
}

/// What a TLS handshake proved about a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Its names, as `DNS:name` in lower case and `URI:uri`
    pub sans: Vec<String>,
    /// SHA-256 of its SubjectPublicKeyInfo
    pub spki_sha256: TokenHash,
    /// Seconds since 1970 after which it proves nothing any more: a connection may outlive it
    pub not_after_s: i64,
}

/// A certificate as the configuration names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateName {
    /// `DNS:name` in lower case or `URI:uri`, among its subject's alternative names
    pub san: String,
    /// The only public key it may have
    pub spki_sha256: Option<TokenHash>,
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.san)
    }
}

/// A SHA-256 hash, written as 64 hexadecimal digits. Comparing two takes the same time wherever they differ.
#[derive(Clone, Copy)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
        Self(hash)
    }
}

impl PartialEq for TokenHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for TokenHash {}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TokenHash {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(());
        }
        let mut hash = [0; 32];
        for (byte, at) in hash.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| ())?;
        }
        Ok(Self(hash))
    }
}

/// Why nobody known is asking. The reasons are for the log: the caller is told only that it is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// Neither token nor certificate
    #[error("neither a bearer token nor a client certificate")]
    Nothing,
    /// More than one Authorization header
    #[error("more than one Authorization header")]
    Repeated,
    /// An Authorization header that is no Bearer token
    #[error("an Authorization header that is not `Bearer` and a token")]
    NotBearer,
    /// Not the token of any caller
    #[error("a bearer token that belongs to no caller")]
    Token,
    /// Not the certificate of any caller
    #[error("a client certificate that belongs to no caller")]
    Certificate,
    /// The certificate ended while the connection lived
    #[error("a client certificate that has expired since the handshake")]
    Expired,
    /// Two callers at once
    #[error("a bearer token of one caller and a client certificate of another")]
    Contradiction,
}

impl Unknown {
    /// For metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Unknown::Nothing => "nothing",
            Unknown::Repeated => "repeated",
            Unknown::NotBearer => "not-bearer",
            Unknown::Token => "token",
            Unknown::Certificate => "certificate",
            Unknown::Expired => "expired",
            Unknown::Contradiction => "contradiction",
        }
    }
}

impl Callers {
    /// Those of a configuration that was checked.
    pub fn new(callers: &[config::Caller]) -> Self {
        let mut all = Self::default();
        for configured in callers {
            let caller = Arc::new(Caller {
                name: configured.name.value.clone(),
                tenant: configured.tenant.value.clone(),
                keys: configured.keys.clone(),
                operations: configured.operations.clone(),
            });
            for token in &configured.tokens {
                all.tokens.push((token.value, caller.clone()));
            }
            for certificate in &configured.certificates {
                let holders = all.certificates.entry(certificate.san.clone()).or_default();
                holders.push(Holder { spki_sha256: certificate.spki_sha256, caller: caller.clone() });
            }
        }
        all
    }

    /// The caller behind an `Authorization` header and a client certificate. A header that is there must be good,
    /// whatever the certificate says, and both together must mean the same caller.
    pub fn authenticate(
        &self,
        authorization: Option<&[u8]>,
        peer: Option<&PeerCertificate>,
        now_s: i64,
    ) -> Result<Arc<Caller>, Unknown> {
        let by_token = match authorization {
            Some(header) => {
                let token = bearer_token(header).ok_or(Unknown::NotBearer)?;
                Some(self.by_token(TokenHash::of(token)).ok_or(Unknown::Token)?)
            }
            None => None,
        };
        let by_certificate = peer.map(|peer| self.by_certificate(peer, now_s));
        match (by_token, by_certificate) {
            (Some(token), Some(Ok(certificate))) if !Arc::ptr_eq(token, certificate) => Err(Unknown::Contradiction),
            (Some(caller), _) => Ok(caller.clone()),
            (None, Some(certificate)) => certificate.cloned(),
            (None, None) => Err(Unknown::Nothing),
        }
    }

    /// Looks at every hash, so that the time taken says nothing.
    fn by_token(&self, hash: TokenHash) -> Option<&Arc<Caller>> {
        let mut found = None;
        for (token, caller) in &self.tokens {
            if *token == hash {
                found = Some(caller);
            }
        }
        found
    }

    fn by_certificate(&self, peer: &PeerCertificate, now_s: i64) -> Result<&Arc<Caller>, Unknown> {
        if now_s > peer.not_after_s {
            return Err(Unknown::Expired);
        }
        let mut found: Option<&Arc<Caller>> = None;
        for holder in peer.sans.iter().filter_map(|san| self.certificates.get(san)).flatten() {
            if holder.spki_sha256.is_some_and(|pin| pin != peer.spki_sha256) {
                continue;
            }
            if found.is_some_and(|earlier| !Arc::ptr_eq(earlier, &holder.caller)) {
                return Err(Unknown::Contradiction);
            }
            found = Some(&holder.caller);
        }
        found.ok_or(Unknown::Certificate)
    }
}

/// RFC 6750 §2.1; the scheme in any case (RFC 9110 §11.1).
fn bearer_token(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked(7)?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

/// A new token of 32 random bytes, as 43 characters of base64url, and its hash.
pub fn new_token() -> Result<(Zeroizing<String>, TokenHash), ring::error::Unspecified> {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let mut random = Zeroizing::new([0; 32]);
    SystemRandom::new().fill(random.as_mut())?;
    let token = Zeroizing::new(URL_SAFE_NO_PAD.encode(random.as_ref()));
    let hash = TokenHash::of(token.as_bytes());
    Ok((token, hash))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::At;

    fn at<T>(value: T) -> At<T> {
        At { value, line: 1 }
    }

    fn caller(name: &str, token: &str, san: &str, pin: Option<&[u8]>) -> config::Caller {
        config::Caller {
            name: at(name.into()),
            tenant: at("tenant".into()),
            tokens: vec![at(TokenHash::of(token.as_bytes()))],
            certificates: vec![at(CertificateName { san: san.into(), spki_sha256: pin.map(TokenHash::of) })],
            keys: ["a-key".to_owned()].into(),
            operations: [Operation::Sign].into(),
        }
    }

    fn callers() -> Callers {
        Callers::new(&[caller("idp", "one", "idp.example", None), caller("signer", "two", "urn:signer", Some(b"spki"))])
    }

    fn peer(san: &str, spki: &[u8]) -> PeerCertificate {
        PeerCertificate { sans: vec![san.into()], spki_sha256: TokenHash::of(spki), not_after_s: 1_000 }
    }

    fn name(result: Result<Arc<Caller>, Unknown>) -> Result<String, Unknown> {
        result.map(|caller| caller.name.clone())
    }

    #[test]
    fn a_token_is_known_by_its_hash_alone() {
        let callers = callers();
        assert_eq!(name(callers.authenticate(Some(b"Bearer one"), None, 0)), Ok("idp".into()));
        assert_eq!(name(callers.authenticate(Some(b"bearer  two "), None, 0)), Ok("signer".into()));
        assert_eq!(name(callers.authenticate(Some(b"Bearer three"), None, 0)), Err(Unknown::Token));
        let hash = TokenHash::of(b"one").to_string();
        assert_eq!(name(callers.authenticate(Some(format!("Bearer {hash}").as_bytes()), None, 0)), Err(Unknown::Token));
    }

    #[test]
    fn other_schemes_and_no_scheme_are_refused() {
        for header in [&b"Basic b25l"[..], b"Bearer", b"Bearer ", b"one", b""] {
            assert_eq!(name(callers().authenticate(Some(header), None, 0)), Err(Unknown::NotBearer));
        }
        assert_eq!(name(callers().authenticate(None, None, 0)), Err(Unknown::Nothing));
    }

    #[test]
    fn a_certificate_is_known_by_san_and_pin_until_it_expires() {
        let callers = callers();
        assert_eq!(name(callers.authenticate(None, Some(&peer("idp.example", b"any")), 0)), Ok("idp".into()));
        assert_eq!(name(callers.authenticate(None, Some(&peer("urn:signer", b"spki")), 0)), Ok("signer".into()));
        let other_key = peer("urn:signer", b"other");
        assert_eq!(name(callers.authenticate(None, Some(&other_key), 0)), Err(Unknown::Certificate));
        let expired = peer("idp.example", b"any");
        assert_eq!(name(callers.authenticate(None, Some(&expired), 1_001)), Err(Unknown::Expired));
    }

    #[test]
    fn token_and_certificate_must_mean_the_same_caller() {
        let callers = callers();
        let idp = peer("idp.example", b"any");
        assert_eq!(name(callers.authenticate(Some(b"Bearer one"), Some(&idp), 0)), Ok("idp".into()));
        assert_eq!(name(callers.authenticate(Some(b"Bearer two"), Some(&idp), 0)), Err(Unknown::Contradiction));
        assert_eq!(name(callers.authenticate(Some(b"Bearer bad"), Some(&idp), 0)), Err(Unknown::Token));
        let stranger = peer("stranger.example", b"any");
        assert_eq!(name(callers.authenticate(Some(b"Bearer one"), Some(&stranger), 0)), Ok("idp".into()));
    }

    #[test]
    fn what_is_not_listed_is_denied() {
        let caller = callers().authenticate(Some(b"Bearer one"), None, 0).unwrap();
        assert!(caller.may(Operation::Sign) && !caller.may(Operation::Keys) && !caller.may(Operation::SignBatch));
        assert!(caller.may_use("a-key") && !caller.may_use("a-key2"));
    }

    #[test]
    fn a_new_token_is_long_and_fits_its_hash() {
        let (token, hash) = new_token().unwrap();
        assert_eq!(token.len(), 43);
        assert_eq!(TokenHash::of(token.as_bytes()), hash);
        assert_ne!(new_token().unwrap().0, token);
        assert_eq!(hash.to_string().parse(), Ok(hash));
    }
}
