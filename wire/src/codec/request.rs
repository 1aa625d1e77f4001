//! ListKeys, Sign, SignBatch and Cancel, and what all requests share. A key has the same meaning in each of them.

use std::borrow::Cow;

use super::{Body, Limits, Result, bytes_up_to, need};
use crate::{
    BatchItem, Cancel, Capacity, Class, Code, Context, Cvr, DIGEST_MAX, EcdsaEncoding, ListKeys, Meta, NAME_MAX,
    Payload, Sign, SignBatch, TEXT_MAX,
    cbor::{EXTENSION_KEY_MIN, Reader, Writer},
};

const TIMEOUT_MS: u64 = 1;
const CLASS: u64 = 2;
pub(super) const REFERENCE: u64 = 3;
const ON_BEHALF_OF: u64 = 4;
pub(super) const CAPACITY: u64 = 5;
pub(super) const KEY: u64 = 10;
pub(super) const ALGORITHM: u64 = 11;
const ENCODING: u64 = 12;
pub(super) const TIMINGS: u64 = 13;
const DIGEST: u64 = 14;
const MESSAGE: u64 = 15;
pub(super) const ITEMS: u64 = 16;

/// A set of keys, as bits.
pub(super) const fn keys(from: u64, to: u64) -> u64 {
    ((1 << (to - from + 1)) - 1) << from
}

/// The keys of every request.
pub(super) const META: u64 = keys(TIMEOUT_MS, CAPACITY);

impl<'a> Body<'a> for ListKeys<'a> {
    fn write(&self, w: &mut Writer<'_>) {
        w.map(meta_len(&self.meta));
        write_meta(&self.meta, w);
    }

    fn read(r: &mut Reader<'a>, limits: &Limits) -> Result<Self> {
        let parts = Parts::read(r, limits, META, no_more)?;
        Ok(ListKeys { meta: parts.meta(r)? })
    }
}

impl<'a> Body<'a> for Sign<'a> {
    fn write(&self, w: &mut Writer<'_>) {
        w.map(meta_len(&self.meta) + 5);
        write_meta(&self.meta, w);
        write_how(&self.key, &self.algorithm, self.encoding, self.timings, w);
        write_payload(&self.payload, w);
    }

    fn read(r: &mut Reader<'a>, limits: &Limits) -> Result<Self> {
        let mut parts = Parts::read(r, limits, META | keys(KEY, MESSAGE), no_more)?;
        Ok(Sign {
            payload: need(parts.payload.take(), r, "nothing to sign")?,
            key: need(parts.key.take(), r, "no key")?,
            algorithm: need(parts.algorithm.take(), r, "no algorithm")?,
            encoding: need(parts.encoding, r, "no encoding")?,
            timings: need(parts.timings, r, "timings not said")?,
            meta: parts.meta(r)?,
        })
    }
}

impl<'a> Body<'a> for SignBatch<'a> {
    fn write(&self, w: &mut Writer<'_>) {
        w.map(meta_len(&self.meta) + 5);
        write_meta(&self.meta, w);
        write_how(&self.key, &self.algorithm, self.encoding, self.timings, w);
        w.uint(ITEMS);
        w.array(self.items.len());
        for item in &self.items {
            w.map(1 + usize::from(item.reference.is_some()));
            if let Some(reference) = &item.reference {
                w.uint(REFERENCE);
                w.text(reference);
            }
            write_payload(&item.payload, w);
        }
    }

    fn read(r: &mut Reader<'a>, limits: &Limits) -> Result<Self> {
        let mut parts = Parts::read(r, limits, META | keys(KEY, ITEMS), no_more)?;
        if parts.payload.is_some() {
            return Err(r.malformed("a batch's digests and messages stand in its items"));
        }
        Ok(SignBatch {
            items: need(parts.items.take(), r, "no items")?,
            key: need(parts.key.take(), r, "no key")?,
            algorithm: need(parts.algorithm.take(), r, "no algorithm")?,
            encoding: need(parts.encoding, r, "no encoding")?,
            timings: need(parts.timings, r, "timings not said")?,
            meta: parts.meta(r)?,
        })
    }
}

impl<'a> Body<'a> for Cancel {
    fn write(&self, w: &mut Writer<'_>) {
        w.map(0);
    }

    fn read(r: &mut Reader<'a>, _: &Limits) -> Result<Self> {
        r.map(|r, key| r.extension(key))?;
        Ok(Cancel)
    }
}

/// For requests without keys of their own.
fn no_more(r: &mut Reader<'_>, key: u64) -> Result<()> {
    r.extension(key)
}

/// What requests share, as found.
#[derive(Default)]
pub(super) struct Parts<'a> {
    timeout_ms: Option<u32>,
    class: Option<Class>,
    context: Context<'a>,
    pub(super) key: Option<Cow<'a, str>>,
    pub(super) algorithm: Option<Cow<'a, str>>,
    encoding: Option<EcdsaEncoding>,
    pub(super) timings: Option<bool>,
    payload: Option<Payload<'a>>,
    items: Option<Vec<BatchItem<'a>>>,
}

impl<'a> Parts<'a> {
    /// Reads a request of which the keys in the set `known` are read here; `own` takes the others.
    pub(super) fn read(
        r: &mut Reader<'a>,
        limits: &Limits,
        known: u64,
        mut own: impl FnMut(&mut Reader<'a>, u64) -> Result<()>,
    ) -> Result<Self> {
        let mut parts = Parts::default();
        r.map(|r, key| {
            if key >= EXTENSION_KEY_MIN || known & 1 << key == 0 {
                return own(r, key);
            }
            match key {
                TIMEOUT_MS => parts.timeout_ms = Some(r.u32()?),
                CLASS => parts.class = Some(r.number(Class::from_u8, "no such class")?),
                REFERENCE => parts.context.reference = Some(text(r)?),
                ON_BEHALF_OF => parts.context.on_behalf_of = Some(text(r)?),
                CAPACITY => parts.context.capacity = Some(read_capacity(r)?),
                KEY => parts.key = Some(name(r)?),
                ALGORITHM => parts.algorithm = Some(name(r)?),
                ENCODING => parts.encoding = Some(r.number(EcdsaEncoding::from_u8, "no such encoding")?),
                TIMINGS => parts.timings = Some(r.bool()?),
                DIGEST | MESSAGE => read_payload(r, key, limits, &mut parts.payload)?,
                ITEMS => {
                    let bounds = (1, limits.batch_max as usize, Code::BadBatch);
                    parts.items = Some(r.list(bounds, ITEM_LEN_MIN, |r| read_item(r, limits))?);
                }
                _ => return r.extension(key),
            }
            Ok(())
        })?;
        Ok(parts)
    }

    pub(super) fn meta(self, r: &Reader<'_>) -> Result<Meta<'a>> {
        Ok(Meta {
            timeout_ms: need(self.timeout_ms, r, "no timeout_ms")?,
            class: need(self.class, r, "no class")?,
            context: self.context,
        })
    }
}

/// `{14: h''}`
const ITEM_LEN_MIN: u64 = 3;

fn read_item<'a>(r: &mut Reader<'a>, limits: &Limits) -> Result<BatchItem<'a>> {
    let (mut reference, mut payload) = (None, None);
    r.map(|r, key| {
        match key {
            REFERENCE => reference = Some(text(r)?),
            DIGEST | MESSAGE => read_payload(r, key, limits, &mut payload)?,
            _ => return r.extension(key),
        }
        Ok(())
    })?;
    Ok(BatchItem { payload: need(payload, r, "nothing to sign")?, reference })
}

fn read_payload<'a>(r: &mut Reader<'a>, key: u64, limits: &Limits, into: &mut Option<Payload<'a>>) -> Result<()> {
    if into.is_some() {
        return Err(r.malformed("a digest and a message"));
    }
    *into = Some(if key == DIGEST {
        Payload::Digest(Cow::Borrowed(bytes_up_to(r, DIGEST_MAX, Code::BadInput, "digest too long")?))
    } else {
        let max = limits.message_max as usize;
        Payload::Message(Cow::Borrowed(bytes_up_to(r, max, Code::BadInput, "message longer than announced")?))
    });
    Ok(())
}

pub(super) fn read_capacity(r: &mut Reader<'_>) -> Result<Capacity> {
    if r.at_text() {
        let cvr = Cvr::new(r.text(TEXT_MAX)?);
        return Ok(Capacity::Company(need(cvr, r, "a CVR number is eight digits")?));
    }
    r.number(|number| (number == 0).then_some(Capacity::Citizen), "no such capacity")
}

pub(super) fn text<'a>(r: &mut Reader<'a>) -> Result<Cow<'a, str>> {
    r.text(TEXT_MAX).map(Cow::Borrowed)
}

pub(super) fn name<'a>(r: &mut Reader<'a>) -> Result<Cow<'a, str>> {
    r.text(NAME_MAX).map(Cow::Borrowed)
}

pub(super) fn meta_len(meta: &Meta<'_>) -> usize {
    let Context { reference, on_behalf_of, capacity } = &meta.context;
    2 + usize::from(reference.is_some()) + usize::from(on_behalf_of.is_some()) + usize::from(capacity.is_some())
}

pub(super) fn write_meta(meta: &Meta<'_>, w: &mut Writer<'_>) {
    w.uint(TIMEOUT_MS);
    w.uint(meta.timeout_ms);
    w.uint(CLASS);
    w.uint(meta.class as u8);
    if let Some(reference) = &meta.context.reference {
        w.uint(REFERENCE);
        w.text(reference);
    }
    if let Some(on_behalf_of) = &meta.context.on_behalf_of {
        w.uint(ON_BEHALF_OF);
        w.text(on_behalf_of);
    }
    if let Some(capacity) = &meta.context.capacity {
        w.uint(CAPACITY);
        write_capacity(capacity, w);
    }
}

pub(super) fn write_capacity(capacity: &Capacity, w: &mut Writer<'_>) {
    match capacity {
        Capacity::Citizen => w.uint(0u8),
        Capacity::Company(cvr) => w.text(cvr.as_str()),
    }
}

fn write_how(key: &str, algorithm: &str, encoding: EcdsaEncoding, timings: bool, w: &mut Writer<'_>) {
    w.uint(KEY);
    w.text(key);
    w.uint(ALGORITHM);
    w.text(algorithm);
    w.uint(ENCODING);
    w.uint(encoding as u8);
    w.uint(TIMINGS);
    w.bool(timings);
}

fn write_payload(payload: &Payload<'_>, w: &mut Writer<'_>) {
    let (key, bytes) = match payload {
        Payload::Digest(digest) => (DIGEST, digest),
        Payload::Message(message) => (MESSAGE, message),
    };
    w.uint(key);
    w.bytes(bytes);
}
