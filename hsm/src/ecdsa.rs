//! The two forms of an ECDSA signature: `r || s` of fixed width as tokens, JWS and XML-DSig have it, and the DER
//! `ECDSA-Sig-Value` (RFC 3279 §2.2.3) of X.509, CMS and openssl.

use crate::der;

/// A signature that is none, or does not go with the curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed ECDSA signature")]
pub struct Malformed;

/// The longest coordinate: P-521.
const COORDINATE_LEN_MAX: usize = 66;

/// Makes DER of `r || s`. Of the input only its length is judged: even, and 1 to 66 bytes each.
pub fn der_from_raw(raw: &[u8]) -> Result<Vec<u8>, Malformed> {
    let half = raw.len() / 2;
    if !raw.len().is_multiple_of(2) || half == 0 || half > COORDINATE_LEN_MAX {
        return Err(Malformed);
    }
    let (r, s) = raw.split_at(half);
    let mut numbers = Vec::with_capacity(raw.len() + 6);
    der::write_unsigned(&mut numbers, r);
    der::write_unsigned(&mut numbers, s);
    let mut out = Vec::with_capacity(numbers.len() + 3);
    der::write(&mut out, der::SEQUENCE, &[&numbers]);
    Ok(out)
}

/// Makes `r || s` of DER, each number `coordinate_len` bytes (32, 48 or 66). Only strict DER is taken.
pub fn raw_from_der(signature_der: &[u8], coordinate_len: usize) -> Result<Vec<u8>, Malformed> {
    let (r, s) = numbers(signature_der).ok_or(Malformed)?;
    if coordinate_len > COORDINATE_LEN_MAX || r.len() > coordinate_len || s.len() > coordinate_len {
        return Err(Malformed);
    }
    let mut raw = vec![0; 2 * coordinate_len];
    raw[coordinate_len - r.len()..coordinate_len].copy_from_slice(r);
    raw[2 * coordinate_len - s.len()..].copy_from_slice(s);
    Ok(raw)
}

fn numbers(signature_der: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut outer = der::Reader::new(signature_der);
    let mut inner = der::Reader::new(outer.expect(der::SEQUENCE)?);
    outer.end()?;
    let numbers = (inner.unsigned()?, inner.unsigned()?);
    inner.end()?;
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use p256::ecdsa::{Signature as P256, SigningKey, signature::hazmat::PrehashSigner};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_another_implementation(secret in any::<[u8; 32]>(), digest in any::<[u8; 32]>()) {
            let Ok(key) = SigningKey::from_slice(&secret) else { return Ok(()) };
            let theirs: P256 = key.sign_prehash(&digest).unwrap();
            let der = der_from_raw(&theirs.to_bytes()).unwrap();
            let their_der = theirs.to_der();
            prop_assert_eq!(&der[..], their_der.as_bytes());
            prop_assert_eq!(raw_from_der(&der, 32).unwrap(), theirs.to_bytes().to_vec());
        }

        #[test]
        fn every_raw_signature_comes_back(raw in prop::sample::select(vec![32usize, 48, 66])
            .prop_flat_map(|len| prop::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 2 * len)))
        {
            let der = der_from_raw(&raw).unwrap();
            prop_assert_eq!(raw_from_der(&der, raw.len() / 2).unwrap(), raw);
        }

        #[test]
        fn whatever_is_accepted_has_one_encoding_only(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(raw) = raw_from_der(&bytes, 66) {
                prop_assert_eq!(der_from_raw(&raw).unwrap(), bytes);
            }
        }
    }

    #[test]
    fn loose_der_is_refused() {
        for bad in [
            &[0x30, 0x06, 2, 1, 1, 2, 1][..],      // cut short
            &[0x30, 0x06, 2, 1, 1, 2, 1, 1, 0],    // something behind it
            &[0x30, 0x81, 0x06, 2, 1, 1, 2, 1, 1], // length not minimal
            &[0x30, 0x07, 2, 2, 0, 1, 2, 1, 1],    // number not minimal
            &[0x30, 0x06, 2, 1, 0x80, 2, 1, 1],    // negative
            &[0x30, 0x05, 2, 0, 2, 1, 1],          // empty number
            &[],
        ] {
            assert_eq!(raw_from_der(bad, 32), Err(Malformed), "{bad:02x?}");
        }
        assert_eq!(der_from_raw(&[0; 63]), Err(Malformed));
    }
}
