//! How an algorithm and an input become a mechanism and the bytes that C_Sign is given.
//!
//! Data is always hashed before the token sees it, by the caller or here, so that there is one path: CKM_RSA_PKCS
//! over a DigestInfo, CKM_RSA_PKCS_PSS and CKM_ECDSA over the digest. Ed25519 signs the message (CKM_EDDSA).

use std::borrow::Cow;

use cryptoki::mechanism::MechanismType;
use cryptoki_sys::{
    CKG_MGF1_SHA256, CKG_MGF1_SHA384, CKG_MGF1_SHA512, CKM_ECDSA, CKM_EDDSA, CKM_RSA_PKCS, CKM_RSA_PKCS_PSS,
    CKM_SHA256, CKM_SHA384, CKM_SHA512,
};

use super::fast::{Mechanism, PssParameters};
use crate::{Algorithm, Digest, Error, Input, Kind, Result};

/// The mechanisms of the token that signing needs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mechanisms {
    rsa_pkcs: bool,
    rsa_pss: bool,
    ecdsa: bool,
    eddsa: bool,
}

impl Mechanisms {
    /// From C_GetMechanismList.
    pub(super) fn new(list: &[MechanismType]) -> Mechanisms {
        Mechanisms {
            rsa_pkcs: list.contains(&MechanismType::RSA_PKCS),
            rsa_pss: list.contains(&MechanismType::RSA_PKCS_PSS),
            ecdsa: list.contains(&MechanismType::ECDSA),
            eddsa: list.contains(&MechanismType::EDDSA),
        }
    }

    pub(super) fn support(self, algorithm: Algorithm) -> bool {
        match mechanism(algorithm).number {
            CKM_RSA_PKCS => self.rsa_pkcs,
            CKM_RSA_PKCS_PSS => self.rsa_pss,
            CKM_ECDSA => self.ecdsa,
            _ => self.eddsa,
        }
    }
}

/// The mechanism for an algorithm.
pub(super) fn mechanism(algorithm: Algorithm) -> Mechanism {
    let number = match algorithm {
        Algorithm::RsaPkcs1Sha256 | Algorithm::RsaPkcs1Sha384 | Algorithm::RsaPkcs1Sha512 => CKM_RSA_PKCS,
        Algorithm::RsaPssSha256 | Algorithm::RsaPssSha384 | Algorithm::RsaPssSha512 => CKM_RSA_PKCS_PSS,
        Algorithm::EcdsaP256Sha256 | Algorithm::EcdsaP384Sha384 | Algorithm::EcdsaP521Sha512 => CKM_ECDSA,
        Algorithm::Ed25519 => CKM_EDDSA,
    };
    let pss = algorithm.digest().filter(|_| number == CKM_RSA_PKCS_PSS).map(|digest| match digest {
        Digest::Sha256 => PssParameters { hash: CKM_SHA256, mgf: CKG_MGF1_SHA256, salt_len: 32 },
        Digest::Sha384 => PssParameters { hash: CKM_SHA384, mgf: CKG_MGF1_SHA384, salt_len: 48 },
        Digest::Sha512 => PssParameters { hash: CKM_SHA512, mgf: CKG_MGF1_SHA512, salt_len: 64 },
    });
    Mechanism { number, pss }
}

/// What C_Sign is given. On the stack but for Ed25519's message, since the standard lets a module write to it.
pub(super) enum Data {
    /// A digest, behind the head of a DigestInfo where PKCS#1 v1.5 wants one
    Short { bytes: [u8; SHORT_LEN_MAX], len: usize },
    /// A message
    Message(Vec<u8>),
}

/// The head of a DigestInfo and SHA-512.
const SHORT_LEN_MAX: usize = 19 + 64;

impl Data {
    pub(super) fn new(algorithm: Algorithm, input: &Input) -> Result<Data> {
        let refused = |why: Cow<'static, str>| Error::of(Kind::InputRefused, "sign", why);
        let Some(hash) = algorithm.digest() else {
            return match input {
                Input::Message(message) => Ok(Data::Message(message.to_vec())),
                Input::Digest(_) => Err(refused("Ed25519 signs a message, not a digest".into())),
            };
        };
        let hashed;
        let digest = match input {
            Input::Digest(digest) if digest.as_slice().len() == hash.len() => digest.as_slice(),
            Input::Digest(digest) => {
                let got = digest.as_slice().len();
                return Err(refused(format!("{algorithm} signs {} bytes, not {got}", hash.len()).into()));
            }
            Input::Message(message) => {
                hashed = ring::digest::digest(ring_digest(hash), message);
                hashed.as_ref()
            }
        };
        let head: &[u8] = if mechanism(algorithm).number == CKM_RSA_PKCS { digest_info_head(hash) } else { &[] };
        let mut bytes = [0; SHORT_LEN_MAX];
        let len = head.len() + digest.len();
        bytes[..head.len()].copy_from_slice(head);
        bytes[head.len()..len].copy_from_slice(digest);
        Ok(Data::Short { bytes, len })
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        match self {
            Data::Short { bytes, len } => &mut bytes[..*len],
            Data::Message(message) => message,
        }
    }
}

fn ring_digest(hash: Digest) -> &'static ring::digest::Algorithm {
    match hash {
        Digest::Sha256 => &ring::digest::SHA256,
        Digest::Sha384 => &ring::digest::SHA384,
        Digest::Sha512 => &ring::digest::SHA512,
    }
}

/// RFC 8017 §9.2 note 1: SEQUENCE { AlgorithmIdentifier with NULL, OCTET STRING } up to the digest itself.
fn digest_info_head(hash: Digest) -> &'static [u8; 19] {
    match hash {
        Digest::Sha256 => b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20",
        Digest::Sha384 => b"\x30\x41\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\x04\x30",
        Digest::Sha512 => b"\x30\x51\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\x04\x40",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_and_its_digest_become_the_same_bytes() {
        for algorithm in Algorithm::ALL.into_iter().filter(|algorithm| algorithm.digest().is_some()) {
            let hash = algorithm.digest().unwrap();
            let digest = ring::digest::digest(ring_digest(hash), b"text");
            let digest = Input::digest(algorithm, digest.as_ref()).unwrap();
            let mut one = Data::new(algorithm, &digest).unwrap();
            let mut other = Data::new(algorithm, &Input::message(b"text")).unwrap();
            assert_eq!(one.as_mut_slice(), other.as_mut_slice(), "{algorithm}");
        }
    }

    #[test]
    fn a_digest_of_another_length_is_refused() {
        for algorithm in Algorithm::ALL {
            for len in [32, 48, 64] {
                if algorithm.digest().is_none_or(|hash| hash.len() != len) {
                    let input = Input::Digest(crate::DigestBytes::new(&vec![1; len]).unwrap());
                    let error = Data::new(algorithm, &input).err().unwrap();
                    assert_eq!(error.kind(), Kind::InputRefused, "{algorithm} {len}");
                }
            }
        }
    }
}
