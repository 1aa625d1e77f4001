//! Keys, Error, and what was signed: one by one and in batches.

use std::borrow::Cow;

use super::{Body, Limits, Result, need};
use crate::{
    ALGORITHMS_MAX, CERTIFICATES_MAX, Code, EXPLANATION_MAX, Error, Fault, KEYS_MAX, Key, KeyState, KeyVersion, Keys,
    NAME_MAX, PLACE_MAX, Retry, Signed, SignedAssertion, SignedAssertionBatch, SignedBatch, SignedJws, SignedState,
    Timings, VERSIONS_MAX, VIOLATIONS_MAX, VersionPhase, Violation,
    cbor::{Reader, Writer},
};

impl<'a> Body<'a> for Signed<'a> {
    fn write(&self, w: &mut Writer<'_>) {
        write_made(&self.signature, self.timings.as_ref(), self.version.as_deref(), None, w);
    }

    fn read(r: &mut Reader<'a>, _: &Limits) -> Result<Self> {
        let Made { bytes, timings, version, .. } = read_made(r, false)?;
        Ok(Signed { signature: bytes, timings, version })
    }
}

impl<'a> Body<'a> for SignedAssertion<'a> {
    fn write(&self, w: &mut Writer<'_>) {
        write_made(&self.xml, self.timings.as_ref(), self.version.as_deref(), self.offset, w);
    }

    fn read(r: &mut Reader<'a>, _: &Limits) -> Result<Self> {
        let Made { bytes, timings, version, offset } = read_made(r, true)?;
        Ok(SignedAssertion { xml: bytes, timings, version, offset })
    }
}

impl<'a> Body<'a> for SignedJws<'a> {
    fn write(&self, w: &mut Writer<'_>) {
        write_made(&self.compact, self.timings.as_ref(), self.version.as_deref(), None, w);
    }

    fn read(r: &mut Reader<'a>, _: &Limits) -> Result<Self> {
        let Made { bytes, timings, version, .. } = read_made(r, false)?;
        Ok(SignedJws { compact: bytes, timings, version })
    }
}

/// What Signed, SignedAssertion and SignedJws have in common.
struct Made<'a> {
    bytes: Cow<'a, [u8]>,
    timings: Option<Timings>,
    version: Option<Cow<'a, str>>,
    offset: Option<u32>,
}

fn write_made(bytes: &[u8], timings: Option<&Timings>, version: Option<&str>, offset: Option<u32>, w: &mut Writer<'_>) {
    w.map(1 + usize::from(timings.is_some()) + usize::from(version.is_some()) + usize::from(offset.is_some()));
    w.uint(1u8);
    w.bytes(bytes);
    if let Some(timings) = timings {
        w.uint(2u8);
        w.map(2);
        w.uint(1u8);
        w.uint(timings.queue_us);
        w.uint(2u8);
        w.uint(timings.token_us);
    }
    if let Some(version) = version {
        w.uint(3u8);
        w.text(version);
    }
    if let Some(offset) = offset {
        w.uint(4u8);
        w.uint(offset);
    }
}

fn read_made<'a>(r: &mut Reader<'a>, may_have_offset: bool) -> Result<Made<'a>> {
    let (mut bytes, mut timings, mut version, mut offset) = (None, None, None, None);
    r.map(|r, key| {
        match key {
            1 => bytes = Some(Cow::Borrowed(r.bytes()?)),
            2 => timings = Some(read_timings(r)?),
            3 => version = Some(Cow::Borrowed(r.text(NAME_MAX)?)),
            4 if may_have_offset => offset = Some(r.u32()?),
            _ => return r.extension(key),
        }
        Ok(())
    })?;
    Ok(Made { bytes: need(bytes, r, "nothing signed")?, timings, version, offset })
}

fn read_timings(r: &mut Reader<'_>) -> Result<Timings> {
    let (mut queue_us, mut token_us) = (None, None);
    r.map(|r, key| {
        match key {
            1 => queue_us = Some(r.u32()?),
            2 => token_us = Some(r.u32()?),
            _ => return r.extension(key),
        }
        Ok(())
    })?;
    Ok(Timings { queue_us: need(queue_us, r, "no queue_us")?, token_us: need(token_us, r, "no token_us")? })
}

impl<'a> Body<'a> for SignedBatch<'a> {
    fn write(&self, w: &mut Writer<'_>) {
        write_items(&self.items, w);
    }

    fn read(r: &mut Reader<'a>, limits: &Limits) -> Result<Self> {
        Ok(SignedBatch { items: read_items(r, limits)? })
    }
}

impl<'a> Body<'a> for SignedAssertionBatch<'a> {
    fn write(&self, w: &mut Writer<'_>) {
        write_items(&self.items, w);
    }

    fn read(r: &mut Reader<'a>, limits: &Limits) -> Result<Self> {
        Ok(SignedAssertionBatch { items: read_items(r, limits)? })
    }
}

/// A batch's item: what was made, or the other answer.
type Item<'a, T> = std::result::Result<T, Error<'a>>;

fn write_items<'a, T: Body<'a>>(items: &[Item<'a, T>], w: &mut Writer<'_>) {
    w.map(1);
    w.uint(1u8);
    w.array(items.len());
    for item in items {
        w.map(1);
        match item {
            Ok(made) => {
                w.uint(1u8);
                made.write(w);
            }
            Err(error) => {
                w.uint(2u8);
                error.write(w);
            }
        }
    }
}

fn read_items<'a, T: Body<'a>>(r: &mut Reader<'a>, limits: &Limits) -> Result<Vec<Item<'a, T>>> {
    // {1: {1: h''}}
    const ITEM_LEN_MIN: u64 = 5;
    let mut items = None;
    r.map(|r, key| {
        match key {
            1 => {
                let bounds = (1, limits.batch_max as usize, Code::BadBatch);
                items = Some(r.list(bounds, ITEM_LEN_MIN, |r| read_item(r, limits))?);
            }
            _ => return r.extension(key),
        }
        Ok(())
    })?;
    need(items, r, "no items")
}

fn read_item<'a, T: Body<'a>>(r: &mut Reader<'a>, limits: &Limits) -> Result<Item<'a, T>> {
    let mut item = None;
    r.map(|r, key| {
        match key {
            1 => item = Some(Ok(T::read(r, limits)?)),
            2 if item.is_some() => return Err(r.malformed("a signature and an error")),
            2 => item = Some(Err(Error::read(r, limits)?)),
            _ => return r.extension(key),
        }
        Ok(())
    })?;
    need(item, r, "neither signature nor error")
}

impl<'a> Body<'a> for Keys<'a> {
    fn write(&self, w: &mut Writer<'_>) {
        w.map(1);
        w.uint(1u8);
        w.array(self.keys.len());
        self.keys.iter().for_each(|key| write_key(key, w));
    }

    fn read(r: &mut Reader<'a>, _: &Limits) -> Result<Self> {
        let mut keys = None;
        r.map(|r, key| {
            match key {
                1 => keys = Some(r.list((0, KEYS_MAX, Code::Malformed), KEY_LEN_MIN, read_key)?),
                _ => return r.extension(key),
            }
            Ok(())
        })?;
        Ok(Keys { keys: need(keys, r, "no keys")? })
    }
}

/// The map's head, eight keys, three texts of one letter, a number, two arrays, a byte string and the state.
const KEY_LEN_MIN: u64 = 20;

fn write_key(key: &Key<'_>, w: &mut Writer<'_>) {
    w.map(8 + usize::from(!key.versions.is_empty()));
    for (number, text) in [(1u8, &key.name), (2, &key.purpose), (3, &key.key_type)] {
        w.uint(number);
        w.text(text);
    }
    w.uint(4u8);
    w.uint(key.bits);
    w.uint(5u8);
    w.array(key.algorithms.len());
    key.algorithms.iter().for_each(|algorithm| w.text(algorithm));
    w.uint(6u8);
    w.bytes(&key.spki_der);
    w.uint(7u8);
    write_certificates(&key.certificates, w);
    w.uint(8u8);
    w.uint(key.state as u8);
    if !key.versions.is_empty() {
        w.uint(9u8);
        w.array(key.versions.len());
        key.versions.iter().for_each(|version| write_version(version, w));
    }
}

fn write_certificates(certificates: &[Cow<'_, [u8]>], w: &mut Writer<'_>) {
    w.array(certificates.len());
    certificates.iter().for_each(|certificate| w.bytes(certificate));
}

fn write_version(version: &KeyVersion<'_>, w: &mut Writer<'_>) {
    w.map(6);
    w.uint(1u8);
    w.text(&version.name);
    w.uint(2u8);
    w.uint(version.phase as u8);
    w.uint(3u8);
    w.uint(version.active_from_unix_s);
    w.uint(4u8);
    w.bytes(&version.spki_der);
    w.uint(5u8);
    write_certificates(&version.certificates, w);
    w.uint(6u8);
    w.uint(version.state as u8);
}

fn read_key<'a>(r: &mut Reader<'a>) -> Result<Key<'a>> {
    let (mut name, mut purpose, mut key_type, mut bits) = (None, None, None, None);
    let (mut algorithms, mut spki_der, mut certificates, mut state) = (None, None, None, None);
    let mut versions = Vec::new();
    let text = |r: &mut Reader<'a>| r.text(NAME_MAX).map(Cow::Borrowed);
    r.map(|r, key| {
        match key {
            1 => name = Some(text(r)?),
            2 => purpose = Some(text(r)?),
            3 => key_type = Some(text(r)?),
            4 => bits = Some(r.u16()?),
            5 => algorithms = Some(r.list((0, ALGORITHMS_MAX, Code::Malformed), 2, text)?),
            6 => spki_der = Some(Cow::Borrowed(r.bytes()?)),
            7 => certificates = Some(read_certificates(r)?),
            9 => versions = r.list((1, VERSIONS_MAX, Code::Malformed), VERSION_LEN_MIN, read_version)?,
            8 => state = Some(r.number(KeyState::from_u8, "no such state")?),
            _ => return r.extension(key),
        }
        Ok(())
    })?;
    Ok(Key {
        name: need(name, r, "no name")?,
        purpose: need(purpose, r, "no purpose")?,
        key_type: need(key_type, r, "no key type")?,
        bits: need(bits, r, "no bits")?,
        algorithms: need(algorithms, r, "no algorithms")?,
        spki_der: need(spki_der, r, "no public key")?,
        certificates: need(certificates, r, "no certificates")?,
        state: need(state, r, "no state")?,
        versions,
    })
}

fn read_certificates<'a>(r: &mut Reader<'a>) -> Result<Vec<Cow<'a, [u8]>>> {
    r.list((0, CERTIFICATES_MAX, Code::Malformed), 1, |r| r.bytes().map(Cow::Borrowed))
}

/// The map's head, six keys, a text of one letter, three numbers, a byte string and an array.
const VERSION_LEN_MIN: u64 = 14;

fn read_version<'a>(r: &mut Reader<'a>) -> Result<KeyVersion<'a>> {
    let (mut name, mut phase, mut active_from, mut spki_der) = (None, None, None, None);
    let (mut certificates, mut state) = (None, None);
    r.map(|r, key| {
        match key {
            1 => name = Some(Cow::Borrowed(r.text(NAME_MAX)?)),
            2 => phase = Some(r.number(VersionPhase::from_u8, "no such phase")?),
            3 => active_from = Some(r.u64()?),
            4 => spki_der = Some(Cow::Borrowed(r.bytes()?)),
            5 => certificates = Some(read_certificates(r)?),
            6 => state = Some(r.number(KeyState::from_u8, "no such state")?),
            _ => return r.extension(key),
        }
        Ok(())
    })?;
    Ok(KeyVersion {
        name: need(name, r, "no name of a version")?,
        phase: need(phase, r, "no phase")?,
        active_from_unix_s: need(active_from, r, "no active_from")?,
        spki_der: need(spki_der, r, "no public key of a version")?,
        certificates: need(certificates, r, "no certificates of a version")?,
        state: need(state, r, "no state of a version")?,
    })
}

impl<'a> Body<'a> for Error<'a> {
    fn write(&self, w: &mut Writer<'_>) {
        w.map(5 + usize::from(self.retry_after_ms.is_some()) + usize::from(!self.violations.is_empty()));
        for (key, number) in
            [(1u8, self.code as u8), (2, self.fault as u8), (3, self.signed as u8), (4, self.retry as u8)]
        {
            w.uint(key);
            w.uint(number);
        }
        if let Some(retry_after_ms) = self.retry_after_ms {
            w.uint(5u8);
            w.uint(retry_after_ms);
        }
        w.uint(6u8);
        w.text(&self.message);
        if !self.violations.is_empty() {
            w.uint(7u8);
            w.array(self.violations.len());
            self.violations.iter().for_each(|violation| write_violation(violation, w));
        }
    }

    fn read(r: &mut Reader<'a>, _: &Limits) -> Result<Self> {
        let (mut code, mut fault, mut signed, mut retry) = (None, None, None, None);
        let (mut retry_after_ms, mut message, mut violations) = (None, None, Vec::new());
        r.map(|r, key| {
            match key {
                // A code of a later version: fault, signed and retry still say what to do.
                1 => code = Some(r.number(|n| Some(Code::from_u8(n).unwrap_or(Code::Internal)), "no such code")?),
                2 => fault = Some(r.number(Fault::from_u8, "no such fault")?),
                3 => signed = Some(r.number(SignedState::from_u8, "signed is neither 0 nor 1")?),
                4 => retry = Some(r.number(Retry::from_u8, "no such retry")?),
                5 => retry_after_ms = Some(r.u32()?),
                6 => message = Some(Cow::Borrowed(r.text(EXPLANATION_MAX)?)),
                7 => violations = r.list((1, VIOLATIONS_MAX, Code::Malformed), VIOLATION_LEN_MIN, read_violation)?,
                _ => return r.extension(key),
            }
            Ok(())
        })?;
        Ok(Error {
            code: need(code, r, "no code")?,
            fault: need(fault, r, "no fault")?,
            signed: need(signed, r, "signed not said")?,
            retry: need(retry, r, "no retry")?,
            retry_after_ms,
            message: need(message, r, "no message")?,
            violations,
        })
    }
}

/// `{1: "x", 3: "x"}`
const VIOLATION_LEN_MIN: u64 = 7;

fn write_violation(violation: &Violation<'_>, w: &mut Writer<'_>) {
    w.map(2 + usize::from(violation.place.is_some()));
    w.uint(1u8);
    w.text(&violation.rule);
    if let Some(place) = &violation.place {
        w.uint(2u8);
        w.text(place);
    }
    w.uint(3u8);
    w.text(&violation.text);
}

fn read_violation<'a>(r: &mut Reader<'a>) -> Result<Violation<'a>> {
    let (mut rule, mut place, mut text) = (None, None, None);
    r.map(|r, key| {
        match key {
            1 => rule = Some(Cow::Borrowed(r.text(NAME_MAX)?)),
            2 => place = Some(Cow::Borrowed(r.text(PLACE_MAX)?)),
            3 => text = Some(Cow::Borrowed(r.text(EXPLANATION_MAX)?)),
            _ => return r.extension(key),
        }
        Ok(())
    })?;
    Ok(Violation { rule: need(rule, r, "no rule")?, place, text: need(text, r, "no text of a violation")? })
}
