//! A public key taken apart, as far as it is published.

use std::borrow::Cow;

use x509_parser::{
    certificate::X509Certificate, prelude::FromDer, public_key::RSAPublicKey, x509::SubjectPublicKeyInfo,
};

use super::PublishError;

/// The curves that signing keys are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P384,
    P521,
}

/// The numbers of a public key: big endian, those of RSA without leading zeros, coordinates as long as their field.
#[derive(Clone, Copy, Debug)]
pub(super) enum PublicKey<'a> {
    Rsa { modulus: &'a [u8], exponent: &'a [u8] },
    Ec { curve: Curve, point: &'a [u8], x: &'a [u8], y: &'a [u8] },
    Ed25519 { x: &'a [u8] },
}

impl Curve {
    const ALL: [Curve; 3] = [Curve::P256, Curve::P384, Curve::P521];

    /// The value of `crv` (RFC 7518 §6.2.1.1).
    pub(super) const fn name(self) -> &'static str {
        match self {
            Curve::P256 => "P-256",
            Curve::P384 => "P-384",
            Curve::P521 => "P-521",
        }
    }

    /// RFC 5480 §2.1.1.1.
    pub(super) const fn oid(self) -> &'static str {
        match self {
            Curve::P256 => "1.2.840.10045.3.1.7",
            Curve::P384 => "1.3.132.0.34",
            Curve::P521 => "1.3.132.0.35",
        }
    }

    const fn field_bytes(self) -> usize {
        match self {
            Curve::P256 => 32,
            Curve::P384 => 48,
            Curve::P521 => 66,
        }
    }
}

impl<'a> PublicKey<'a> {
    /// Reads a SubjectPublicKeyInfo in DER (RFC 5280 §4.1).
    pub(super) fn parse(spki: &'a [u8]) -> Result<PublicKey<'a>, PublishError> {
        let (rest, info) = SubjectPublicKeyInfo::from_der(spki).map_err(|_| PublishError::PublicKey)?;
        if !rest.is_empty() || info.subject_public_key.unused_bits != 0 {
            return Err(PublishError::PublicKey);
        }
        let Cow::Borrowed(bits) = info.subject_public_key.data else { return Err(PublishError::PublicKey) };
        // The sequence ends with the key's bits: the parser would not see what follows them in it.
        if bits.as_ptr_range().end != spki.as_ptr_range().end {
            return Err(PublishError::PublicKey);
        }
        match info.algorithm.algorithm.to_id_string().as_str() {
            "1.2.840.113549.1.1.1" => rsa(bits),
            "1.2.840.10045.2.1" => {
                let named = info.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
                let named = named.map(|oid| oid.to_id_string());
                let curve = Curve::ALL.into_iter().find(|curve| named.as_deref() == Some(curve.oid()));
                ec(curve.ok_or(PublishError::UnknownKind)?, bits)
            }
            "1.3.101.112" if bits.len() == 32 => Ok(PublicKey::Ed25519 { x: bits }),
            _ => Err(PublishError::UnknownKind),
        }
    }
}

/// Checks that certificates can be read and that the first is this key's.
pub(super) fn check_certificates(spki: &[u8], certificates: &[impl AsRef<[u8]>]) -> Result<(), PublishError> {
    for (index, certificate) in certificates.iter().enumerate() {
        let parsed = X509Certificate::from_der(certificate.as_ref());
        let Ok(([], certificate)) = parsed else { return Err(PublishError::Certificate) };
        if index == 0 && certificate.public_key().raw != spki {
            return Err(PublishError::OtherKey);
        }
    }
    Ok(())
}

fn rsa(bits: &[u8]) -> Result<PublicKey<'_>, PublishError> {
    let Ok(([], key)) = RSAPublicKey::from_der(bits) else { return Err(PublishError::PublicKey) };
    let (modulus, exponent) = (without_zeros(key.modulus), without_zeros(key.exponent));
    if modulus.is_empty() || exponent.is_empty() {
        return Err(PublishError::PublicKey);
    }
    Ok(PublicKey::Rsa { modulus, exponent })
}

fn ec(curve: Curve, point: &[u8]) -> Result<PublicKey<'_>, PublishError> {
    let len = curve.field_bytes();
    match point {
        // SEC 1 §2.3.3: 4 begins an uncompressed point.
        [4, coordinates @ ..] if coordinates.len() == 2 * len => {
            let (x, y) = coordinates.split_at(len);
            Ok(PublicKey::Ec { curve, point, x, y })
        }
        _ => Err(PublishError::UnknownKind),
    }
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}
