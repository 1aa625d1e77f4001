//! Finds a key on the token, once: the private object by its URI, what it may do, and its public half.

use std::sync::Arc;

use cryptoki::{
    object::{Attribute, AttributeType, KeyType as CkKeyType, ObjectClass, ObjectHandle},
    session::Session,
};

use super::{ObjectType, Uri, ckr, generation::Generation};
use crate::{
    Error, KeyInfo, KeyType, Kind, Result, der,
    spki::{self, PublicKey},
};

/// A key that can sign.
#[derive(Clone, Debug)]
pub(super) struct FoundKey {
    pub(super) handle: ObjectHandle,
    pub(super) info: KeyInfo,
}

/// Looks a key up. An error whose rung is [`crate::Rung::None`] is about this key, any other about the session.
pub(super) fn look_up(session: &Session, generation: &Generation, locator: &str) -> Result<Arc<FoundKey>> {
    let uri: Uri = locator.parse().map_err(|error| missing(locator, error))?;
    let handle = find(session, generation, &uri, locator)?;
    check_use(session, handle, locator)?;
    let spki_der = public_key(session, handle, locator)?;
    let key_type = spki::key_type(&spki_der).map_err(|error| unusable(locator, error))?;
    Ok(Arc::new(FoundKey { handle, info: KeyInfo { key_type, spki_der } }))
}

/// Whether the private object is still there: by its handle, and if that is void, by name.
pub(super) fn presence(session: &Session, generation: &Generation, locator: &str, key: &FoundKey) -> Result<()> {
    match session.get_attributes(key.handle, &[AttributeType::Class]) {
        Ok(values) if values == [Attribute::Class(ObjectClass::PRIVATE_KEY)] => return Ok(()),
        Ok(_) => {}
        Err(error) => {
            let error = ckr::from_cryptoki("C_GetAttributeValue", error);
            if error.kind() != Kind::KeyHandle {
                return Err(error);
            }
        }
    }
    let uri: Uri = locator.parse().map_err(|error| missing(locator, error))?;
    find(session, generation, &uri, locator)?;
    // It is there under another handle: this generation's are void.
    Err(Error::of(Kind::KeyHandle, "presence", format!("{locator}: another handle than at login")))
}

fn find(session: &Session, generation: &Generation, uri: &Uri, locator: &str) -> Result<ObjectHandle> {
    let identity = &generation.identity;
    let elsewhere = uri.slot_id.is_some_and(|slot| slot != generation.slot.id());
    if elsewhere || !identity.matches(uri) {
        return Err(missing(locator, format!("names another token than this {identity}")));
    }
    if uri.object.is_none() && uri.id.is_none() {
        return Err(missing(locator, "neither object= nor id="));
    }
    if !matches!(uri.object_type, None | Some(ObjectType::Private)) {
        return Err(missing(locator, "type= must be private"));
    }
    let mut template = vec![Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Token(true)];
    template.extend(uri.object.iter().map(|label| Attribute::Label(label.as_bytes().to_vec())));
    template.extend(uri.id.iter().map(|id| Attribute::Id(id.clone())));
    match search(session, &template)?.as_slice() {
        [handle] => Ok(*handle),
        [] => Err(missing(locator, format!("no such private key on {identity}"))),
        _ => Err(missing(locator, format!("several private keys match on {identity}: name the id as well"))),
    }
}

/// Two handles at most: one is right, two are too many, and a module that goes on for ever is not followed.
fn search(session: &Session, template: &[Attribute]) -> Result<Vec<ObjectHandle>> {
    let classified = |error| ckr::from_cryptoki("C_FindObjects", error);
    session.iter_objects(template).map_err(classified)?.take(2).collect::<Result<_, _>>().map_err(classified)
}

fn check_use(session: &Session, handle: ObjectHandle, locator: &str) -> Result<()> {
    if value(session, handle, AttributeType::Sign)? == Some(Attribute::Sign(false)) {
        return Err(unusable(locator, "CKA_SIGN is false"));
    }
    if value(session, handle, AttributeType::AlwaysAuthenticate)? == Some(Attribute::AlwaysAuthenticate(true)) {
        return Err(unusable(locator, "CKA_ALWAYS_AUTHENTICATE: it wants a PIN for every signature"));
    }
    Ok(())
}

/// The public half, as SubjectPublicKeyInfo in our one form. First what the private object says of itself, then the
/// public key or the certificate beside it (same CKA_ID).
fn public_key(session: &Session, private: ObjectHandle, locator: &str) -> Result<Vec<u8>> {
    if let Some(Attribute::PublicKeyInfo(spki_der)) = value(session, private, AttributeType::PublicKeyInfo)?
        && let Ok(public) = spki::read(&spki_der)
    {
        return Ok(public.to_spki_der());
    }
    if let Some(spki_der) = of_object(session, private)? {
        return Ok(spki_der);
    }
    let Some(Attribute::Id(id)) = value(session, private, AttributeType::Id)? else {
        return Err(unusable(locator, "it has no CKA_ID to find its public key by"));
    };
    if id.is_empty() {
        return Err(unusable(locator, "its CKA_ID is empty: nothing to find its public key by"));
    }
    for class in [ObjectClass::PUBLIC_KEY, ObjectClass::CERTIFICATE] {
        let beside = search(session, &[Attribute::Class(class), Attribute::Token(true), Attribute::Id(id.clone())])?;
        let spki_der = match beside.as_slice() {
            [] => continue,
            [public] if class == ObjectClass::PUBLIC_KEY => of_object(session, *public)?,
            [certificate] => of_certificate(session, *certificate)?,
            _ => return Err(unusable(locator, "several public keys or certificates share its CKA_ID")),
        };
        return spki_der.ok_or_else(|| unusable(locator, "its public key is of no type known here"));
    }
    Err(unusable(locator, "neither a public key nor a certificate has its CKA_ID"))
}

/// From the numbers that an RSA key of either class, or an elliptic public key, carries.
fn of_object(session: &Session, object: ObjectHandle) -> Result<Option<Vec<u8>>> {
    let Some(Attribute::KeyType(key_type)) = value(session, object, AttributeType::KeyType)? else { return Ok(None) };
    if key_type == CkKeyType::RSA {
        let modulus = value(session, object, AttributeType::Modulus)?;
        let exponent = value(session, object, AttributeType::PublicExponent)?;
        return Ok(match (modulus, exponent) {
            (Some(Attribute::Modulus(modulus)), Some(Attribute::PublicExponent(exponent))) => {
                spki::of_rsa(&modulus, &exponent).ok()
            }
            _ => None,
        });
    }
    let Some(Attribute::EcParams(parameters)) = value(session, object, AttributeType::EcParams)? else {
        return Ok(None);
    };
    let Some(Attribute::EcPoint(point)) = value(session, object, AttributeType::EcPoint)? else { return Ok(None) };
    Ok(of_curve(&parameters, &point))
}

fn of_curve(parameters: &[u8], point: &[u8]) -> Option<Vec<u8>> {
    // RFC 8410's OID, and the name as PrintableString (PKCS#11 3.0 §2.3.5), "edwards25519".
    const EDWARDS: [&[u8]; 2] = [&[0x06, 0x03, 0x2b, 0x65, 0x70], b"\x13\x0cedwards25519"];
    let (key_type, len) = match parameters {
        spki::P256 => (KeyType::EcP256, 65),
        spki::P384 => (KeyType::EcP384, 97),
        spki::P521 => (KeyType::EcP521, 133),
        other if EDWARDS.contains(&other) => (KeyType::Ed25519, 32),
        _ => return None,
    };
    // An OCTET STRING by the standard; some modules give the point bare.
    let bare = if point.len() == len { Some(point) } else { der::Reader::new(point).expect(der::OCTET_STRING) };
    let spki_der = PublicKey { key_type, key: bare? }.to_spki_der();
    // Reading it back checks the point's form.
    spki::read(&spki_der).is_ok().then_some(spki_der)
}

fn of_certificate(session: &Session, object: ObjectHandle) -> Result<Option<Vec<u8>>> {
    let Some(Attribute::Value(certificate)) = value(session, object, AttributeType::Value)? else { return Ok(None) };
    let public = spki::of_certificate(&certificate).and_then(spki::read);
    Ok(public.ok().map(|public| public.to_spki_der()))
}

/// One attribute at a time: asked for together, one that a module does not know may spoil the others.
fn value(session: &Session, object: ObjectHandle, attribute: AttributeType) -> Result<Option<Attribute>> {
    match session.get_attributes(object, &[attribute]) {
        Ok(mut values) => Ok(values.pop()),
        Err(error) => {
            let error = ckr::from_cryptoki("C_GetAttributeValue", error);
            // Not there, or not to be read: then it is not there for us.
            if error.kind() == Kind::KeyUnusable || error.kind() == Kind::Nonsense { Ok(None) } else { Err(error) }
        }
    }
}

fn missing(locator: &str, why: impl std::fmt::Display) -> Error {
    Error::of(Kind::KeyMissing, "key", format!("{locator}: {why}"))
}

pub(super) fn unusable(locator: &str, why: impl std::fmt::Display) -> Error {
    Error::of(Kind::KeyUnusable, "key", format!("{locator}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_taken_wrapped_or_bare() {
        let bare = [&[4][..], &[7; 64]].concat();
        let wrapped = [&[4, 65][..], &bare].concat();
        assert!(of_curve(spki::P256, &bare).is_some());
        assert_eq!(of_curve(spki::P256, &bare), of_curve(spki::P256, &wrapped));
        assert_eq!(of_curve(spki::P384, &bare), None);
        assert_eq!(of_curve(spki::P256, &[2; 33]), None);
        assert_eq!(of_curve(&[0x06, 0x01, 0x2a], &bare), None);
    }

    #[test]
    fn ed25519_is_known_by_number_and_by_name() {
        let wrapped = [&[4, 32][..], &[7; 32]].concat();
        let by_name = of_curve(b"\x13\x0cedwards25519", &wrapped);
        assert!(by_name.is_some());
        assert_eq!(by_name, of_curve(&[0x06, 0x03, 0x2b, 0x65, 0x70], &[7; 32]));
    }
}
