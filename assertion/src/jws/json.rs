//! JSON as strictly as something signed must be read: what two readers could understand differently is refused.
//!
//! RFC 8259 leaves duplicate members open and RFC 7515 section 4 forbids them; names of members are spelt plainly, since
//! readers that cut at a NUL, trim or have a `__proto__` would read others; size, depth and count of members are
//! limited before anything is built from them. serde_json refuses what is not UTF-8, lone surrogates and trailing bytes.

use std::{collections::BTreeMap, fmt};

use serde::{
    Serialize, Serializer,
    de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor},
};

use crate::violation::{Violation, cut};

/// Deepest nesting of arrays and objects.
const DEPTH_MAX: usize = 16;

/// Most values in a text, all levels together.
const VALUES_MAX: usize = 1024;

/// A JSON object's members.
pub(crate) type Object = BTreeMap<String, Json>;

/// A JSON value. Integers beyond 64 bits are numbers that no claim may have.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    Natural(u64),
    Negative(i64),
    Float(f64),
    Text(String),
    Array(Vec<Json>),
    Object(Object),
}

/// Reads one object. `root` is the pointer that places in it begin with.
pub(crate) fn object(bytes: &[u8], root: &'static str) -> Result<Object, Violation> {
    let mut state = State { place: root.to_owned(), depth: 0, values: 0, fault: None };
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Seed(&mut state).deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    match value {
        Ok(Json::Object(members)) => Ok(members),
        Ok(_) => Err(fault("json-object", root, "one JSON object is expected")),
        Err(error) => Err(state.fault.take().unwrap_or_else(|| {
            let (line, column) = (error.line(), error.column());
            fault("json-syntax", root, format!("the text is no JSON in UTF-8 (RFC 8259): line {line}, column {column}"))
        })),
    }
}

/// Puts a member's name to a pointer (RFC 6901 section 3).
pub(crate) fn pointer(parent: &str, name: &str) -> String {
    format!("{parent}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// Names that are told in places. The others are the caller's own, and places end in logs.
const TOLD: [&str; 32] = [
    "acr",
    "alg",
    "aud",
    "auth_time",
    "azp",
    "cnf",
    "crit",
    "cty",
    "exp",
    "iat",
    "iss",
    "jku",
    "jti",
    "jwk",
    "kid",
    "nbf",
    "nonce",
    "status",
    "sub",
    "typ",
    "vct",
    "x5c",
    "x5t",
    "x5t#S256",
    "x5u",
    "b64",
    "enc",
    "zip",
    "...",
    "_sd",
    "_sd_alg",
    "amr",
];

/// The same with `*` for a name that is not everybody's.
pub(crate) fn told(parent: &str, name: &str) -> String {
    pointer(parent, if TOLD.contains(&name) { name } else { "*" })
}

fn fault(rule: &'static str, place: &str, text: impl Into<String>) -> Violation {
    Violation { rule, place: cut(place.to_owned()), text: text.into() }
}

impl Json {
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Json::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// For header parameters only. A float is never written: the text of the same number can differ.
impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Json::Null => serializer.serialize_unit(),
            Json::Bool(value) => serializer.serialize_bool(*value),
            Json::Natural(value) => serializer.serialize_u64(*value),
            Json::Negative(value) => serializer.serialize_i64(*value),
            Json::Float(_) => Err(serde::ser::Error::custom("a float is not written")),
            Json::Text(value) => serializer.serialize_str(value),
            Json::Array(items) => serializer.collect_seq(items),
            Json::Object(members) => serializer.collect_map(members),
        }
    }
}

/// What reading knows on its way through the text.
struct State {
    place: String,
    depth: usize,
    values: usize,
    fault: Option<Violation>,
}

impl State {
    fn refuse<E: serde::de::Error>(&mut self, rule: &'static str, text: String) -> E {
        self.fault = Some(fault(rule, &self.place, text));
        // Never seen: the fault is told instead.
        E::custom(rule)
    }

    /// Goes a level down for the time of `read`.
    fn nested<T, E: serde::de::Error>(&mut self, read: impl FnOnce(&mut State) -> Result<T, E>) -> Result<T, E> {
        if self.depth == DEPTH_MAX {
            return Err(self.refuse("json-depth", format!("at most {DEPTH_MAX} levels of nesting are taken")));
        }
        self.depth += 1;
        let value = read(self)?;
        self.depth -= 1;
        Ok(value)
    }
}

struct Seed<'s>(&'s mut State);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Natural(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Negative(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Json, A::Error> {
        self.0.nested(|state| {
            let mut items = Vec::new();
            let parent = state.place.len();
            loop {
                state.place.push_str(&format!("/{}", items.len()));
                let Some(item) = sequence.next_element_seed(Seed(state))? else { break };
                count(state)?;
                items.push(item);
                state.place.truncate(parent);
            }
            state.place.truncate(parent);
            Ok(Json::Array(items))
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        self.0.nested(|state| {
            let mut members = Object::new();
            let parent = state.place.len();
            while let Some(name) = map.next_key_seed(Name(state))? {
                state.place.push_str(&told("", &name));
                if members.contains_key(&name) {
                    return Err(state.refuse("json-duplicate-member", "a member stands once only".to_owned()));
                }
                let value = map.next_value_seed(Seed(state))?;
                count(state)?;
                members.insert(name, value);
                state.place.truncate(parent);
            }
            Ok(Json::Object(members))
        })
    }
}

/// A member's name, as it stands in the text.
struct Name<'s>(&'s mut State);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    /// Without escapes.
    fn visit_borrowed_str<E: serde::de::Error>(self, name: &'de str) -> Result<String, E> {
        if name.chars().any(char::is_control) || name.trim() != name || name == "__proto__" {
            let text = "a member's name has no control characters, no white space at its ends, and is not `__proto__`";
            return Err(self.0.refuse("json-member-name", text.to_owned()));
        }
        Ok(name.to_owned())
    }

    /// With escapes.
    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<String, E> {
        Err(self.0.refuse("json-member-name", "a member's name is spelt without `\\` escapes".to_owned()))
    }
}

fn count<E: serde::de::Error>(state: &mut State) -> Result<(), E> {
    state.values += 1;
    if state.values > VALUES_MAX {
        return Err(state.refuse("json-values", format!("at most {VALUES_MAX} values are taken")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(text: &[u8]) -> (&'static str, String) {
        let fault = object(text, "/payload").expect_err("this is not taken");
        (fault.rule, fault.place)
    }

    #[test]
    fn what_readers_disagree_on_is_refused_with_its_place() {
        let deep = "[".repeat(64) + &"]".repeat(64);
        for (text, rule, place) in [
            (&br#"{"exp":1,"exp":2}"#[..], "json-duplicate-member", "/payload/exp"),
            (br#"{"exp":1,"e\u0078p":2}"#, "json-member-name", "/payload"),
            (br#"{"exp\u0000":99999999999,"e\u0078p":1300}"#, "json-member-name", "/payload"),
            (br#"{"cnf":{"cvr ":"87654321"}}"#, "json-member-name", "/payload/cnf"),
            ("{\"\u{a0}cvr\":1}".as_bytes(), "json-member-name", "/payload"),
            ("{\"cvr\u{85}x\":1}".as_bytes(), "json-member-name", "/payload"),
            (br#"{"__proto__":{"admin":true}}"#, "json-member-name", "/payload"),
            (br#"{"a":[0,{"b/~c":1,"b/~c":1}]}"#, "json-duplicate-member", "/payload/*/1/*"),
            (br#"{"a":1}{"#, "json-syntax", "/payload"),
            (br#"{"a":1,}"#, "json-syntax", "/payload"),
            (br#"{"a":"\ud800"}"#, "json-syntax", "/payload"),
            (b"{\"a\":\"\xff\"}", "json-syntax", "/payload"),
            (b"\xef\xbb\xbf{}", "json-syntax", "/payload"),
            (b"{\"a\":1e999}", "json-syntax", "/payload"),
            (b"[]", "json-object", "/payload"),
            (b"", "json-syntax", "/payload"),
            (format!("{{\"a\":{deep}}}").as_bytes(), "json-depth", &format!("/payload/*{}", "/0".repeat(15))),
        ] {
            assert_eq!(refused(text), (rule, place.to_owned()), "{}", String::from_utf8_lossy(text));
        }
        let many = format!("{{\"a\":[{}1]}}", "1,".repeat(VALUES_MAX));
        assert_eq!(refused(many.as_bytes()).0, "json-values");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>, text in r#"[{}\[\]",:0-9eu\\a-]{0,64}"#) {
            let _ = object(&bytes, "/header");
            let _ = object(text.as_bytes(), "/header");
        }
    }
}
