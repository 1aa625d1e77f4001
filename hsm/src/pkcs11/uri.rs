//! PKCS#11 URIs (RFC 7512): how tokens and keys are named in the configuration.
//!
//! Of the attributes those that select a token (`token`, `serial`, `manufacturer`, `model`, `slot-id`) or a key
//! (`object`, `id`, `type`). Anything else is an error: an attribute that were passed over would select more than
//! its writer meant. `pin-value` is refused with its own words, since a configuration is no place for a secret.

use std::{fmt, str::FromStr};

/// Longest URI, in bytes: all attributes at their full length (32 bytes, an id of 255), percent-encoded.
pub const URI_LEN_MAX: usize = 2048;

/// Longest CKA_ID, in bytes. The standard has no bound; devices keep it in a byte's length.
const ID_LEN_MAX: usize = 255;

/// A parsed PKCS#11 URI. An attribute that is `None` selects nothing: anything matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uri {
    /// `token`: the token's label, without padding
    pub token: Option<String>,
    /// `serial`: its serial number
    pub serial: Option<String>,
    /// `manufacturer`: its manufacturer
    pub manufacturer: Option<String>,
    /// `model`: its model
    pub model: Option<String>,
    /// `slot-id`: the slot's number; not stable on many modules
    pub slot_id: Option<u64>,
    /// `object`: the key's CKA_LABEL
    pub object: Option<String>,
    /// `id`: the key's CKA_ID
    pub id: Option<Vec<u8>>,
    /// `type`: `private`, `public` or `cert`
    pub object_type: Option<ObjectType>,
}

/// The `type` attribute, as far as signing has a use for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectType {
    /// `private`
    Private,
    /// `public`
    Public,
    /// `cert`
    Certificate,
}

/// Why a URI is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UriError {
    /// Longer than [`URI_LEN_MAX`]
    #[error("longer than {URI_LEN_MAX} bytes")]
    TooLong,
    /// It does not begin with `pkcs11:`
    #[error("does not begin with pkcs11:")]
    Scheme,
    /// No `name=value`
    #[error("an attribute without name or value")]
    Attribute,
    /// Not one of those above
    #[error("attribute {0:?} is not known here")]
    Unknown(String),
    /// The same twice
    #[error("attribute {0} stands there twice")]
    Twice(&'static str),
    /// A value that can not be
    #[error("attribute {0} has a value that can not be")]
    Value(&'static str),
    /// A PIN in the configuration
    #[error("a PIN stands in the URI: take it out, consider it known, and give the file or credential that holds it")]
    PinValue,
}

impl Uri {
    /// Whether it says anything about the token.
    pub fn selects_token(&self) -> bool {
        self.token.is_some()
            || self.serial.is_some()
            || self.manufacturer.is_some()
            || self.model.is_some()
            || self.slot_id.is_some()
    }

    /// Whether it says anything about an object.
    pub fn selects_object(&self) -> bool {
        self.object.is_some() || self.id.is_some() || self.object_type.is_some()
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), UriError> {
        match name {
            "token" => text(&mut self.token, "token", value),
            "serial" => text(&mut self.serial, "serial", value),
            "manufacturer" => text(&mut self.manufacturer, "manufacturer", value),
            "model" => text(&mut self.model, "model", value),
            "object" => text(&mut self.object, "object", value),
            "slot-id" => {
                // Digits only: `parse` would take a sign.
                let number = value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse().ok()).flatten();
                once(&mut self.slot_id, "slot-id", number)
            }
            "id" => {
                let id = decode(value).filter(|id| !id.is_empty() && id.len() <= ID_LEN_MAX);
                once(&mut self.id, "id", id)
            }
            "type" => {
                let object_type = match value {
                    "private" => Some(ObjectType::Private),
                    "public" => Some(ObjectType::Public),
                    "cert" => Some(ObjectType::Certificate),
                    _ => None,
                };
                once(&mut self.object_type, "type", object_type)
            }
            "pin-value" => Err(UriError::PinValue),
            other => Err(UriError::Unknown(other.chars().take(64).collect())),
        }
    }
}

impl FromStr for Uri {
    type Err = UriError;

    fn from_str(uri: &str) -> Result<Uri, UriError> {
        // Looked for first: whatever else is wrong, this must be heard.
        if uri.contains("pin-value") {
            return Err(UriError::PinValue);
        }
        if uri.len() > URI_LEN_MAX {
            return Err(UriError::TooLong);
        }
        let path = uri.strip_prefix("pkcs11:").ok_or(UriError::Scheme)?;
        // No query attribute (pin-source, module-name, ...) is known: they are settings of their own.
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let mut parsed = Uri::default();
        for attribute in path.split(';').filter(|_| !path.is_empty()) {
            let (name, value) = attribute.split_once('=').ok_or(UriError::Attribute)?;
            parsed.set(name, value)?;
        }
        match query {
            None => Ok(parsed),
            Some(query) => {
                let name = query.split(['=', '&']).next().unwrap_or_default();
                Err(UriError::Unknown(name.chars().take(64).collect()))
            }
        }
    }
}

/// Writes it so that it parses to the same.
impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("pkcs11:")?;
        let mut separator = "";
        let mut attribute = |name: &str, value: String| {
            write!(f, "{separator}{name}={value}")?;
            separator = ";";
            Ok(())
        };
        let texts = [
            ("token", &self.token),
            ("serial", &self.serial),
            ("manufacturer", &self.manufacturer),
            ("model", &self.model),
            ("object", &self.object),
        ];
        for (name, value) in texts {
            if let Some(value) = value {
                attribute(name, encode(value.as_bytes(), is_plain))?;
            }
        }
        if let Some(slot) = self.slot_id {
            attribute("slot-id", slot.to_string())?;
        }
        if let Some(id) = &self.id {
            // RFC 7512 §2.3: every byte of an id should be encoded.
            attribute("id", encode(id, |_| false))?;
        }
        match self.object_type {
            None => Ok(()),
            Some(ObjectType::Private) => attribute("type", "private".into()),
            Some(ObjectType::Public) => attribute("type", "public".into()),
            Some(ObjectType::Certificate) => attribute("type", "cert".into()),
        }
    }
}

fn text(place: &mut Option<String>, name: &'static str, value: &str) -> Result<(), UriError> {
    let text = decode(value).and_then(|bytes| String::from_utf8(bytes).ok());
    once(place, name, text.filter(|text| !text.is_empty() && !text.contains('\0')))
}

fn once<T>(place: &mut Option<T>, name: &'static str, value: Option<T>) -> Result<(), UriError> {
    if place.is_some() {
        return Err(UriError::Twice(name));
    }
    *place = Some(value.ok_or(UriError::Value(name))?);
    Ok(())
}

/// RFC 3986 §2.3 unreserved, and what RFC 7512 §2.3 allows beside it in a path attribute.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:[]@!$'()*+,&".contains(&byte)
}

fn decode(value: &str) -> Option<Vec<u8>> {
    let mut bytes = value.bytes();
    let mut decoded = Vec::with_capacity(value.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                (16 * high + low) as u8
            }
            plain if is_plain(plain) => plain,
            _ => return None,
        });
    }
    Some(decoded)
}

fn encode(bytes: &[u8], plain: fn(u8) -> bool) -> String {
    bytes.iter().fold(String::with_capacity(3 * bytes.len()), |mut out, &byte| {
        if plain(byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn some_text() -> impl Strategy<Value = Option<String>> {
        prop::option::of("[^\0]{1,12}")
    }

    proptest! {
        #[test]
        fn arbitrary_strings_never_panic(text in ".{0,200}", tail in ".{0,200}") {
            let _ = text.parse::<Uri>();
            let _ = format!("pkcs11:{text};{tail}").parse::<Uri>();
            let _ = format!("pkcs11:object={text};id=%{tail}").parse::<Uri>();
        }

        #[test]
        fn every_uri_comes_back(
            token in some_text(),
            serial in some_text(),
            object in some_text(),
            slot_id in any::<Option<u64>>(),
            id in prop::option::of(prop::collection::vec(any::<u8>(), 1..30)),
        ) {
            let uri = Uri { token, serial, object, slot_id, id, object_type: Some(ObjectType::Private), ..Uri::default() };
            prop_assume!(!uri.to_string().contains("pin-value"));
            prop_assert_eq!(uri.to_string().parse(), Ok(uri));
        }
    }

    #[test]
    fn the_attributes_mean_what_rfc_7512_says() {
        let uri: Uri =
            "pkcs11:token=Software%20PKCS%2311;serial=0A1b;slot-id=7;object=l%C3%B8gin;id=%69%00;type=private"
                .parse()
                .unwrap();
        let expected = Uri {
            token: Some("Software PKCS#11".into()),
            serial: Some("0A1b".into()),
            slot_id: Some(7),
            object: Some("løgin".into()),
            id: Some(vec![0x69, 0]),
            object_type: Some(ObjectType::Private),
            ..Uri::default()
        };
        assert_eq!(uri, expected);
        assert_eq!("pkcs11:".parse(), Ok(Uri::default()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let long = format!("pkcs11:object={}", "a".repeat(URI_LEN_MAX));
        for (uri, error) in [
            ("pkcs12:token=a", UriError::Scheme),
            ("pkcs11:token", UriError::Attribute),
            ("pkcs11:token=a;", UriError::Attribute),
            ("pkcs11:token=a;token=b", UriError::Twice("token")),
            ("pkcs11:token=", UriError::Value("token")),
            ("pkcs11:token=%4", UriError::Value("token")),
            ("pkcs11:token=%+1", UriError::Value("token")),
            ("pkcs11:token=a b", UriError::Value("token")),
            ("pkcs11:object=%ff", UriError::Value("object")),
            ("pkcs11:slot-id=+1", UriError::Value("slot-id")),
            ("pkcs11:slot-id=", UriError::Value("slot-id")),
            ("pkcs11:type=data", UriError::Value("type")),
            ("pkcs11:library-version=3", UriError::Unknown("library-version".into())),
            ("pkcs11:token=a?pin-source=file:/x", UriError::Unknown("pin-source".into())),
            ("pkcs11:token=a?pin-value=1234", UriError::PinValue),
            ("pkcs11:pin-value=1234", UriError::PinValue),
            (&long, UriError::TooLong),
        ] {
            assert_eq!(uri.parse::<Uri>(), Err(error), "{uri}");
        }
    }

    #[test]
    fn a_refused_pin_is_not_repeated() {
        let error = "pkcs11:token=a?pin-value=31415".parse::<Uri>().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("31415"));
    }
}
