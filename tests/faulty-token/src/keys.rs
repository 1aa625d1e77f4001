//! Working keys in software: the embedded token's, spoken to in PKCS#11's words.

use cryptoki_sys::*;
use segl_hsm::{
    Algorithm, Digest, Input, KeyId, KeyInfo, KeySpec, KeyType, ModuleId, Signature, Token, embedded::EmbeddedToken,
};

use crate::TokenConfiguration;

/// The keys of one token.
#[derive(Debug)]
pub(crate) struct Keys {
    token: EmbeddedToken,
    keys: Vec<Key>,
}

/// A key and what it shows of itself.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) label: String,
    id: Vec<u8>,
    info: KeyInfo,
}

/// What C_SignInit is told to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mechanism {
    pub(crate) number: CK_MECHANISM_TYPE,
    /// Hash, MGF and salt length of CKM_RSA_PKCS_PSS
    pub(crate) pss: Option<(CK_MECHANISM_TYPE, CK_RSA_PKCS_MGF_TYPE, CK_ULONG)>,
}

/// What the module can do.
pub(crate) const MECHANISMS: [CK_MECHANISM_TYPE; 4] = [CKM_RSA_PKCS, CKM_RSA_PKCS_PSS, CKM_ECDSA, CKM_EDDSA];

impl Keys {
    /// Reads the keys of a token.
    pub(crate) fn load(configuration: &TokenConfiguration) -> Result<Keys, String> {
        let said = |error: segl_hsm::Error| error.to_string();
        let directory = &configuration.keys_directory;
        let token = EmbeddedToken::open_directory(&configuration.serial, directory, ModuleId(0), &[]).map_err(said)?;
        let specs: Vec<KeySpec> = (0..)
            .zip(&configuration.keys)
            .map(|(id, key)| KeySpec { id: KeyId(id), locator: key.file.as_str().into() })
            .collect();
        token.add_keys(&specs);
        let reports = token.open().and_then(|mut session| session.login()).map_err(said)?;
        let keys = reports.into_iter().zip(&configuration.keys).map(|(report, key)| {
            let info = report.result.map_err(said)?;
            Ok(Key { label: key.label.clone(), id: key.id.clone(), info })
        });
        let keys = keys.collect::<Result<_, String>>()?;
        Ok(Keys { token, keys })
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn key(&self, place: usize) -> &Key {
        &self.keys[place]
    }

    pub(crate) fn all(&self) -> &[Key] {
        &self.keys
    }

    /// Signs as C_Sign does.
    pub(crate) fn sign(&self, place: usize, mechanism: Mechanism, data: &[u8]) -> Result<Signature, CK_RV> {
        let (algorithm, input) = self.keys[place].job(mechanism, data)?;
        let mut signature = Signature::new();
        let id = KeyId(u32::try_from(place).expect("a configuration has few keys"));
        // A session of the embedded token is nothing but two pointers.
        let mut session = self.token.open().map_err(|_| CKR_GENERAL_ERROR)?;
        session.sign(id, algorithm, &input, &mut signature).map_err(|_| CKR_GENERAL_ERROR)?;
        Ok(signature)
    }
}

impl Key {
    pub(crate) fn signature_len(&self) -> usize {
        self.info.key_type.signature_len()
    }

    /// Whether C_SignInit takes it.
    pub(crate) fn check(&self, mechanism: Mechanism) -> Result<(), CK_RV> {
        let fits = match mechanism.number {
            CKM_RSA_PKCS | CKM_RSA_PKCS_PSS => matches!(self.info.key_type, KeyType::Rsa { .. }),
            CKM_ECDSA => matches!(self.info.key_type, KeyType::EcP256 | KeyType::EcP384 | KeyType::EcP521),
            CKM_EDDSA => self.info.key_type == KeyType::Ed25519,
            _ => return Err(CKR_MECHANISM_INVALID),
        };
        if !fits {
            return Err(CKR_KEY_TYPE_INCONSISTENT);
        }
        if mechanism.number == CKM_RSA_PKCS_PSS && pss_algorithm(mechanism).is_none() {
            return Err(CKR_MECHANISM_PARAM_INVALID);
        }
        Ok(())
    }

    /// An attribute of its private object.
    pub(crate) fn attribute(&self, attribute: CK_ATTRIBUTE_TYPE) -> Option<Vec<u8>> {
        let yes = || Some(vec![CK_TRUE]);
        let number = |value: CK_ULONG| Some(value.to_ne_bytes().to_vec());
        match attribute {
            CKA_CLASS => number(CKO_PRIVATE_KEY),
            CKA_KEY_TYPE => number(match self.info.key_type {
                KeyType::Rsa { .. } => CKK_RSA,
                KeyType::Ed25519 => CKK_EC_EDWARDS,
                _ => CKK_EC,
            }),
            CKA_LABEL => Some(self.label.clone().into_bytes()),
            CKA_ID => Some(self.id.clone()),
            CKA_TOKEN | CKA_PRIVATE | CKA_SIGN | CKA_SENSITIVE => yes(),
            CKA_ALWAYS_AUTHENTICATE | CKA_EXTRACTABLE | CKA_MODIFIABLE => Some(vec![CK_FALSE]),
            CKA_PUBLIC_KEY_INFO => Some(self.info.spki_der.clone()),
            _ => None,
        }
    }

    fn job(&self, mechanism: Mechanism, data: &[u8]) -> Result<(Algorithm, Input), CK_RV> {
        let (algorithm, digest) = match mechanism.number {
            CKM_EDDSA => return Ok((Algorithm::Ed25519, Input::message(data))),
            CKM_RSA_PKCS => rsa_pkcs1(data).ok_or(CKR_DATA_INVALID)?,
            CKM_RSA_PKCS_PSS => (pss_algorithm(mechanism).ok_or(CKR_MECHANISM_PARAM_INVALID)?, data),
            _ => match self.info.key_type {
                KeyType::EcP256 => (Algorithm::EcdsaP256Sha256, data),
                KeyType::EcP384 => (Algorithm::EcdsaP384Sha384, data),
                _ => (Algorithm::EcdsaP521Sha512, data),
            },
        };
        Ok((algorithm, Input::digest(algorithm, digest).map_err(|_| CKR_DATA_LEN_RANGE)?))
    }
}

/// The algorithm and the digest of a DigestInfo (RFC 8017 §9.2): its algorithm's number is the head's last part but
/// the digest's own header.
fn rsa_pkcs1(digest_info: &[u8]) -> Option<(Algorithm, &[u8])> {
    const HEAD: usize = 19;
    const SHA2: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];
    let (head, digest) = digest_info.split_at_checked(HEAD)?;
    let algorithm = match head[6..].strip_prefix(SHA2)?.first()? {
        1 => Algorithm::RsaPkcs1Sha256,
        2 => Algorithm::RsaPkcs1Sha384,
        3 => Algorithm::RsaPkcs1Sha512,
        _ => return None,
    };
    Some((algorithm, digest))
}

fn pss_algorithm(mechanism: Mechanism) -> Option<Algorithm> {
    let (hash, mgf, salt_len) = mechanism.pss?;
    let (algorithm, digest) = match (hash, mgf) {
        (CKM_SHA256, CKG_MGF1_SHA256) => (Algorithm::RsaPssSha256, Digest::Sha256),
        (CKM_SHA384, CKG_MGF1_SHA384) => (Algorithm::RsaPssSha384, Digest::Sha384),
        (CKM_SHA512, CKG_MGF1_SHA512) => (Algorithm::RsaPssSha512, Digest::Sha512),
        _ => return None,
    };
    (salt_len == digest.len() as CK_ULONG).then_some(algorithm)
}
