//! SubjectPublicKeyInfo (RFC 5280 §4.1.2.7) of the keys Segl knows: read, and written in one form only, so that
//! two tokens' keys are the same key exactly when these bytes are.

use crate::{KeyType, der};

const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const EC: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
pub(crate) const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
pub(crate) const P384: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
pub(crate) const P521: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23];
const NULL: &[u8] = &[0x05, 0x00];
const OBJECT_IDENTIFIER: u8 = 0x06;

/// No key of a type that Segl knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no SubjectPublicKeyInfo of an RSA, P-256, P-384, P-521 or Ed25519 key")]
pub struct UnknownKey;

/// What a SubjectPublicKeyInfo says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey<'a> {
    /// Type and size
    pub key_type: KeyType,
    /// The key by itself: RSAPublicKey in DER (RFC 8017 §A.1.1), an uncompressed point (SEC 1 §2.3.3), or the 32
    /// bytes of Ed25519 (RFC 8032 §5.1.5)
    pub key: &'a [u8],
}

impl PublicKey<'_> {
    /// As SubjectPublicKeyInfo.
    pub fn to_spki_der(&self) -> Vec<u8> {
        let parameters: [&[u8]; 2] = match self.key_type {
            KeyType::Rsa { .. } => [RSA, NULL],
            KeyType::EcP256 => [EC, P256],
            KeyType::EcP384 => [EC, P384],
            KeyType::EcP521 => [EC, P521],
            KeyType::Ed25519 => [ED25519, &[]],
        };
        let mut body = Vec::with_capacity(self.key.len() + 32);
        der::write(&mut body, der::SEQUENCE, &parameters);
        der::write(&mut body, der::BIT_STRING, &[&[0], self.key]);
        let mut out = Vec::with_capacity(body.len() + 4);
        der::write(&mut out, der::SEQUENCE, &[&body]);
        out
    }
}

/// Reads a SubjectPublicKeyInfo.
pub fn read(spki_der: &[u8]) -> Result<PublicKey<'_>, UnknownKey> {
    parse(spki_der).ok_or(UnknownKey)
}

/// The type and size of the key in a SubjectPublicKeyInfo.
pub fn key_type(spki_der: &[u8]) -> Result<KeyType, UnknownKey> {
    read(spki_der).map(|public| public.key_type)
}

/// The SubjectPublicKeyInfo within an X.509 certificate, as it stands there.
pub fn of_certificate(certificate_der: &[u8]) -> Result<&[u8], UnknownKey> {
    let find = || {
        let mut tbs = der::Reader::new(der::Reader::new(certificate_der).expect(der::SEQUENCE)?);
        let mut field = der::Reader::new(tbs.expect(der::SEQUENCE)?);
        field.skip_version()?;
        field.expect(der::INTEGER)?;
        for _signature_issuer_validity_subject in 0..4 {
            field.expect(der::SEQUENCE)?;
        }
        field.whole(der::SEQUENCE)
    };
    find().ok_or(UnknownKey)
}

/// SubjectPublicKeyInfo of an RSA key, from modulus and public exponent, both big-endian.
#[cfg(feature = "pkcs11")]
pub(crate) fn of_rsa(modulus: &[u8], exponent: &[u8]) -> Result<Vec<u8>, UnknownKey> {
    let mut numbers = Vec::with_capacity(modulus.len() + exponent.len() + 12);
    der::write_unsigned(&mut numbers, modulus);
    der::write_unsigned(&mut numbers, exponent);
    let mut key = Vec::with_capacity(numbers.len() + 4);
    der::write(&mut key, der::SEQUENCE, &[&numbers]);
    let key_type = rsa_type(&key).ok_or(UnknownKey)?;
    Ok(PublicKey { key_type, key: &key }.to_spki_der())
}

fn parse(spki_der: &[u8]) -> Option<PublicKey<'_>> {
    let mut outer = der::Reader::new(spki_der);
    let mut body = der::Reader::new(outer.expect(der::SEQUENCE)?);
    outer.end()?;
    let mut algorithm = der::Reader::new(body.expect(der::SEQUENCE)?);
    let key = body.bits()?;
    body.end()?;
    let point = |len: usize| (key.len() == 1 + 2 * len && key[0] == 4).then_some(());
    let key_type = match algorithm.whole(OBJECT_IDENTIFIER)? {
        RSA => {
            algorithm.whole(NULL[0])?;
            rsa_type(key)?
        }
        EC => match algorithm.whole(OBJECT_IDENTIFIER)? {
            P256 => point(32).map(|()| KeyType::EcP256)?,
            P384 => point(48).map(|()| KeyType::EcP384)?,
            P521 => point(66).map(|()| KeyType::EcP521)?,
            _ => return None,
        },
        ED25519 => (key.len() == 32).then_some(KeyType::Ed25519)?,
        _ => return None,
    };
    algorithm.end()?;
    Some(PublicKey { key_type, key })
}

/// RSA up to the longest signature there is room for.
fn rsa_type(key: &[u8]) -> Option<KeyType> {
    let mut outer = der::Reader::new(key);
    let mut numbers = der::Reader::new(outer.expect(der::SEQUENCE)?);
    outer.end()?;
    let (modulus, exponent) = (numbers.unsigned()?, numbers.unsigned()?);
    numbers.end()?;
    let first = *modulus.first()?;
    if exponent.is_empty() || modulus.len() > crate::SIGNATURE_LEN_MAX {
        return None;
    }
    let bits = 8 * modulus.len() - first.leading_zeros() as usize;
    Some(KeyType::Rsa { bits: u16::try_from(bits).ok()? })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
            let _ = of_certificate(&bytes);
        }

        #[test]
        fn a_key_comes_back(len in prop::sample::select(vec![32usize, 48, 66]), fill in any::<u8>()) {
            let mut point = vec![fill; 1 + 2 * len];
            point[0] = 4;
            let key_type = match len { 32 => KeyType::EcP256, 48 => KeyType::EcP384, _ => KeyType::EcP521 };
            let public = PublicKey { key_type, key: &point };
            let spki_der = public.to_spki_der();
            prop_assert_eq!(read(&spki_der), Ok(public));
        }
    }

    #[test]
    fn a_flipped_structure_is_refused() {
        let good = PublicKey { key_type: KeyType::Ed25519, key: &[7; 32] }.to_spki_der();
        assert_eq!(key_type(&good), Ok(KeyType::Ed25519));
        for place in 0..good.len() - 32 {
            let mut bad = good.clone();
            bad[place] ^= 1;
            assert_eq!(read(&bad), Err(UnknownKey), "byte {place}");
        }
        assert_eq!(read(&[&good[..], &[0]].concat()), Err(UnknownKey));
    }

    #[cfg(feature = "pkcs11")]
    #[test]
    fn the_size_of_rsa_is_that_of_its_modulus() {
        for (modulus, bits) in [(vec![0x80; 256], 2048), (vec![0xff; 384], 3072), (vec![0x01; 256], 2041)] {
            let spki = of_rsa(&modulus, &[1, 0, 1]).unwrap();
            assert_eq!(key_type(&spki), Ok(KeyType::Rsa { bits }));
        }
        assert_eq!(of_rsa(&[0xff; 1025], &[1, 0, 1]), Err(UnknownKey));
        assert_eq!(of_rsa(&[], &[1, 0, 1]), Err(UnknownKey));
    }
}
