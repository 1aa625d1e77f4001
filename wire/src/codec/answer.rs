//! Keys, Signed, SignedBatch and Error.

use std::borrow::Cow;

use super::{Body, Limits, Result, need};
use crate::{
    ALGORITHMS_MAX, CERTIFICATES_MAX, Code, EXPLANATION_MAX, Error, Fault, KEYS_MAX, Key, KeyState, Keys, NAME_MAX,
    Retry, Signed, SignedBatch, SignedState, Timings,
    cbor::{Reader, Writer},
};

impl<'a> Body<'a> for Signed<'a> {
    fn write(&self, w: &mut Writer<'_>) {
        w.map(1 + usize::from(self.timings.is_some()));
        w.uint(1u8);
        w.bytes(&self.signature);
        if let Some(timings) = &self.timings {
            w.uint(2u8);
            w.map(2);
            w.uint(1u8);
            w.uint(timings.queue_us);
            w.uint(2u8);
            w.uint(timings.token_us);
        }
    }

    fn read(r: &mut Reader<'a>, _: &Limits) -> Result<Self> {
        let (mut signature, mut timings) = (None, None);
        r.map(|r, key| {
            match key {
                1 => signature = Some(Cow::Borrowed(r.bytes()?)),
                2 => timings = Some(read_timings(r)?),
                _ => return r.extension(key),
            }
            Ok(())
        })?;
        Ok(Signed { signature: need(signature, r, "no signature")?, timings })
    }
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
        w.map(1);
        w.uint(1u8);
        w.array(self.items.len());
        for item in &self.items {
            w.map(1);
            match item {
                Ok(signed) => {
                    w.uint(1u8);
                    signed.write(w);
                }
                Err(error) => {
                    w.uint(2u8);
                    error.write(w);
                }
            }
        }
    }

    fn read(r: &mut Reader<'a>, limits: &Limits) -> Result<Self> {
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
        Ok(SignedBatch { items: need(items, r, "no items")? })
    }
}

fn read_item<'a>(r: &mut Reader<'a>, limits: &Limits) -> Result<std::result::Result<Signed<'a>, Error<'a>>> {
    let mut item = None;
    r.map(|r, key| {
        match key {
            1 => item = Some(Ok(Signed::read(r, limits)?)),
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
    w.map(8);
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
    w.array(key.certificates.len());
    key.certificates.iter().for_each(|certificate| w.bytes(certificate));
    w.uint(8u8);
    w.uint(key.state as u8);
}

fn read_key<'a>(r: &mut Reader<'a>) -> Result<Key<'a>> {
    let (mut name, mut purpose, mut key_type, mut bits) = (None, None, None, None);
    let (mut algorithms, mut spki_der, mut certificates, mut state) = (None, None, None, None);
    let text = |r: &mut Reader<'a>| r.text(NAME_MAX).map(Cow::Borrowed);
    r.map(|r, key| {
        match key {
            1 => name = Some(text(r)?),
            2 => purpose = Some(text(r)?),
            3 => key_type = Some(text(r)?),
            4 => bits = Some(r.u16()?),
            5 => algorithms = Some(r.list((0, ALGORITHMS_MAX, Code::Malformed), 2, text)?),
            6 => spki_der = Some(Cow::Borrowed(r.bytes()?)),
            7 => {
                let certificate = |r: &mut Reader<'a>| r.bytes().map(Cow::Borrowed);
                certificates = Some(r.list((0, CERTIFICATES_MAX, Code::Malformed), 1, certificate)?);
            }
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
    })
}

impl<'a> Body<'a> for Error<'a> {
    fn write(&self, w: &mut Writer<'_>) {
        w.map(5 + usize::from(self.retry_after_ms.is_some()));
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
    }

    fn read(r: &mut Reader<'a>, _: &Limits) -> Result<Self> {
        let (mut code, mut fault, mut signed, mut retry) = (None, None, None, None);
        let (mut retry_after_ms, mut message) = (None, None);
        r.map(|r, key| {
            match key {
                // A code of a later version: fault, signed and retry still say what to do.
                1 => code = Some(r.number(|n| Some(Code::from_u8(n).unwrap_or(Code::Internal)), "no such code")?),
                2 => fault = Some(r.number(Fault::from_u8, "no such fault")?),
                3 => signed = Some(r.number(SignedState::from_u8, "signed is neither 0 nor 1")?),
                4 => retry = Some(r.number(Retry::from_u8, "no such retry")?),
                5 => retry_after_ms = Some(r.u32()?),
                6 => message = Some(Cow::Borrowed(r.text(EXPLANATION_MAX)?)),
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
        })
    }
}
