//! The two halves of XML Encryption that we do: content with AES-256, and its key with RSA-OAEP.

use aes::{
    Aes256,
    cipher::{BlockModeEncrypt, KeyIvInit, block_padding::NoPadding},
};
use getrandom::SysRng;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rsa::{Oaep, RsaPublicKey, sha2::Sha256, traits::PaddingScheme};
use sha1::Sha1;
use zeroize::Zeroizing;

use super::EncryptError;

/// How the content is encrypted (XML Encryption 1.1 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContentMethod {
    /// AES-256-GCM, which is authenticated
    Aes256Gcm,
    /// AES-256-CBC: only the signature inside protects it from change
    Aes256Cbc,
}

/// How the content's key is encrypted (XML Encryption 1.1 §5.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyTransport {
    /// RSA-OAEP with SHA-256 and MGF1 with SHA-256
    RsaOaep,
    /// `rsa-oaep-mgf1p`: MGF1 with SHA-1, which is fixed, and SHA-1, which is the default
    RsaOaepMgf1pSha1,
    /// `rsa-oaep-mgf1p` with SHA-256, where the provider asks for it: MGF1 is with SHA-1 still
    RsaOaepMgf1pSha256,
}

pub(super) const SHA1_URI: &str = "http://www.w3.org/2000/09/xmldsig#sha1";
pub(super) const SHA256_URI: &str = "http://www.w3.org/2001/04/xmlenc#sha256";
pub(super) const MGF1_SHA256_URI: &str = "http://www.w3.org/2009/xmlenc11#mgf1sha256";
pub(super) const RSA_OAEP_URI: &str = "http://www.w3.org/2009/xmlenc11#rsa-oaep";
pub(super) const RSA_OAEP_MGF1P_URI: &str = "http://www.w3.org/2001/04/xmlenc#rsa-oaep-mgf1p";

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;
const BLOCK_BYTES: usize = 16;

/// A content's key, for one content.
pub(super) struct ContentKey(Zeroizing<[u8; KEY_BYTES]>);

impl ContentMethod {
    /// Its identifier.
    pub const fn uri(self) -> &'static str {
        match self {
            ContentMethod::Aes256Gcm => "http://www.w3.org/2009/xmlenc11#aes256-gcm",
            ContentMethod::Aes256Cbc => "http://www.w3.org/2001/04/xmlenc#aes256-cbc",
        }
    }

    /// The method of this identifier; none for what is weaker or unknown.
    pub fn by_uri(uri: &str) -> Option<ContentMethod> {
        [ContentMethod::Aes256Gcm, ContentMethod::Aes256Cbc].into_iter().find(|method| method.uri() == uri)
    }

    /// Encrypts under a fresh key: what stands in CipherValue, and the key.
    pub(super) fn encrypt(self, plain: &[u8]) -> Result<(Vec<u8>, ContentKey), EncryptError> {
        let key = ContentKey(Zeroizing::new(random()?));
        let sealed = match self {
            ContentMethod::Aes256Gcm => key.gcm(plain, random()?)?,
            ContentMethod::Aes256Cbc => key.cbc(plain, random()?, random()?),
        };
        Ok((sealed, key))
    }
}

impl ContentKey {
    /// §5.2.4: the nonce of 96 bits, the ciphertext, the tag of 128 bits.
    fn gcm(&self, plain: &[u8], nonce: [u8; NONCE_BYTES]) -> Result<Vec<u8>, EncryptError> {
        let key = UnboundKey::new(&AES_256_GCM, &*self.0).map_err(|_| EncryptError::Cipher)?;
        let mut sealed = Vec::with_capacity(NONCE_BYTES + plain.len() + BLOCK_BYTES);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plain);
        let tag = LessSafeKey::new(key)
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut sealed[NONCE_BYTES..])
            .map_err(|_| EncryptError::Cipher)?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// §5.2.2: the IV, then the ciphertext of the padded content. The last byte says how many bytes of padding there
    /// are, itself included; the others are random.
    fn cbc(&self, plain: &[u8], iv: [u8; BLOCK_BYTES], random: [u8; BLOCK_BYTES]) -> Vec<u8> {
        let padding = BLOCK_BYTES - plain.len() % BLOCK_BYTES;
        let mut sealed = Vec::with_capacity(BLOCK_BYTES + plain.len() + padding);
        sealed.extend_from_slice(&iv);
        sealed.extend_from_slice(plain);
        sealed.extend_from_slice(&random[..padding - 1]);
        sealed.push(padding as u8);
        let len = plain.len() + padding;
        cbc::Encryptor::<Aes256>::new(&(*self.0).into(), &iv.into())
            .encrypt_padded::<NoPadding>(&mut sealed[BLOCK_BYTES..], len)
            .expect("the buffer is a whole number of blocks");
        sealed
    }
}

impl KeyTransport {
    /// Its identifier.
    pub const fn uri(self) -> &'static str {
        match self {
            KeyTransport::RsaOaep => RSA_OAEP_URI,
            KeyTransport::RsaOaepMgf1pSha1 | KeyTransport::RsaOaepMgf1pSha256 => RSA_OAEP_MGF1P_URI,
        }
    }

    /// Its DigestMethod.
    pub(super) const fn digest_uri(self) -> &'static str {
        match self {
            KeyTransport::RsaOaep | KeyTransport::RsaOaepMgf1pSha256 => SHA256_URI,
            KeyTransport::RsaOaepMgf1pSha1 => SHA1_URI,
        }
    }

    /// Its MGF, where the method lets it be named.
    pub(super) const fn mgf_uri(self) -> Option<&'static str> {
        match self {
            KeyTransport::RsaOaep => Some(MGF1_SHA256_URI),
            KeyTransport::RsaOaepMgf1pSha1 | KeyTransport::RsaOaepMgf1pSha256 => None,
        }
    }

    /// Encrypts a content's key for a provider.
    pub(super) fn wrap(self, key: &ContentKey, provider: &RsaPublicKey) -> Result<Vec<u8>, EncryptError> {
        let rng = &mut SysRng;
        let wrapped = match self {
            KeyTransport::RsaOaep => Oaep::<Sha256>::new().encrypt(rng, provider, &*key.0),
            KeyTransport::RsaOaepMgf1pSha1 => Oaep::<Sha1>::new().encrypt(rng, provider, &*key.0),
            KeyTransport::RsaOaepMgf1pSha256 => {
                Oaep::<Sha256, Sha1>::new_with_mgf_hash().encrypt(rng, provider, &*key.0)
            }
        };
        wrapped.map_err(|_| EncryptError::Cipher)
    }
}

fn random<const N: usize>() -> Result<[u8; N], EncryptError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| EncryptError::Random)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NIST SP 800-38A, F.2.5: the first block of AES-256 in CBC.
    #[test]
    fn cbc_is_that_of_the_standard_s_example_and_pads_to_a_whole_block() {
        let hex = |text: &str| -> Vec<u8> {
            (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
        };
        let key = hex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
        let key = ContentKey(Zeroizing::new(key.try_into().unwrap()));
        let iv: [u8; 16] = hex("000102030405060708090a0b0c0d0e0f").try_into().unwrap();
        let sealed = key.cbc(&hex("6bc1bee22e409f96e93d7e117393172a"), iv, [7; 16]);
        assert_eq!(sealed.len(), 48);
        assert_eq!(sealed[16..32], hex("f58c4c04d6e5f1ba779eabfb5f7bfbd6"));
        for len in 0..40 {
            assert_eq!(key.cbc(&vec![1; len], iv, [7; 16]).len(), 16 + (len / 16 + 1) * 16);
        }
    }
}
