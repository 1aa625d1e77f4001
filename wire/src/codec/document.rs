//! SignAssertion, SignAssertionBatch and SignJws.

use std::borrow::Cow;

use super::{
    Body, Limits, Result, bytes_up_to, need,
    request::{
        ALGORITHM, CAPACITY, ITEMS, KEY, META, Parts, REFERENCE, TIMINGS, keys, meta_len, name, read_capacity, text,
        write_capacity, write_meta,
    },
};
use crate::{
    AssertionHow, AssertionItem, Code, Form, KeyInfo, SignAssertion, SignAssertionBatch, SignJws,
    cbor::{Reader, Writer},
};

const DIGEST_METHOD: u64 = 17;
const KEY_INFO: u64 = 18;
const FORM: u64 = 19;
const DOCUMENT: u64 = 20;
const HEADER: u64 = 21;
const PAYLOAD: u64 = 22;

/// The keys that these have in common with the other requests.
const SHARED: u64 = META | keys(KEY, ALGORITHM) | keys(TIMINGS, TIMINGS);

impl<'a> Body<'a> for SignAssertion<'a> {
    fn write(&self, w: &mut Writer<'_>) {
        w.map(meta_len(&self.meta) + 7);
        write_meta(&self.meta, w);
        write_common(&self.how, w);
        write_rest(&self.how, w);
        w.uint(DOCUMENT);
        w.bytes(&self.document);
    }

    fn read(r: &mut Reader<'a>, limits: &Limits) -> Result<Self> {
        let (mut own, mut document) = (Own::default(), None);
        let mut parts = Parts::read(r, limits, SHARED, |r, key| match key {
            DOCUMENT => {
                document = Some(read_document(r, limits)?);
                Ok(())
            }
            _ => own.read(r, key),
        })?;
        Ok(SignAssertion {
            document: need(document, r, "no document")?,
            how: own.how(&mut parts, r)?,
            meta: parts.meta(r)?,
        })
    }
}

impl<'a> Body<'a> for SignAssertionBatch<'a> {
    fn write(&self, w: &mut Writer<'_>) {
        w.map(meta_len(&self.meta) + 7);
        write_meta(&self.meta, w);
        write_common(&self.how, w);
        w.uint(ITEMS);
        w.array(self.items.len());
        self.items.iter().for_each(|item| write_item(item, w));
        write_rest(&self.how, w);
    }

    fn read(r: &mut Reader<'a>, limits: &Limits) -> Result<Self> {
        // {20: h''}
        const ITEM_LEN_MIN: u64 = 3;
        let (mut own, mut items) = (Own::default(), None);
        let mut parts = Parts::read(r, limits, SHARED, |r, key| match key {
            ITEMS => {
                let bounds = (1, limits.batch_max as usize, Code::BadBatch);
                items = Some(r.list(bounds, ITEM_LEN_MIN, |r| read_item(r, limits))?);
                Ok(())
            }
            _ => own.read(r, key),
        })?;
        Ok(SignAssertionBatch {
            items: need(items, r, "no items")?,
            how: own.how(&mut parts, r)?,
            meta: parts.meta(r)?,
        })
    }
}

impl<'a> Body<'a> for SignJws<'a> {
    fn write(&self, w: &mut Writer<'_>) {
        w.map(meta_len(&self.meta) + 5 + usize::from(self.header.is_some()));
        write_meta(&self.meta, w);
        w.uint(KEY);
        w.text(&self.key);
        w.uint(ALGORITHM);
        w.text(&self.algorithm);
        w.uint(TIMINGS);
        w.bool(self.timings);
        w.uint(KEY_INFO);
        w.uint(self.key_info as u8);
        if let Some(header) = &self.header {
            w.uint(HEADER);
            w.bytes(header);
        }
        w.uint(PAYLOAD);
        w.bytes(&self.payload);
    }

    fn read(r: &mut Reader<'a>, limits: &Limits) -> Result<Self> {
        let (mut key_info, mut header, mut payload) = (None, None, None);
        let mut parts = Parts::read(r, limits, SHARED, |r, key| {
            match key {
                KEY_INFO => key_info = Some(r.number(KeyInfo::from_u8, "no such key_info")?),
                HEADER => header = Some(read_document(r, limits)?),
                PAYLOAD => payload = Some(read_document(r, limits)?),
                _ => return r.extension(key),
            }
            Ok(())
        })?;
        Ok(SignJws {
            key: need(parts.key.take(), r, "no key")?,
            algorithm: need(parts.algorithm.take(), r, "no algorithm")?,
            timings: need(parts.timings, r, "timings not said")?,
            key_info: need(key_info, r, "key_info not said")?,
            header,
            payload: need(payload, r, "no payload")?,
            meta: parts.meta(r)?,
        })
    }
}

/// What only assertions have, as found.
#[derive(Default)]
struct Own<'a> {
    digest_method: Option<Cow<'a, str>>,
    key_info: Option<KeyInfo>,
    form: Option<Form>,
}

impl<'a> Own<'a> {
    fn read(&mut self, r: &mut Reader<'a>, key: u64) -> Result<()> {
        match key {
            DIGEST_METHOD => self.digest_method = Some(name(r)?),
            KEY_INFO => {
                let known = |number| KeyInfo::OF_ASSERTIONS.into_iter().find(|it| *it as u8 == number);
                self.key_info = Some(r.number(known, "no such key_info of an assertion")?);
            }
            FORM => self.form = Some(r.number(Form::from_u8, "no such form")?),
            _ => return r.extension(key),
        }
        Ok(())
    }

    fn how(self, parts: &mut Parts<'a>, r: &Reader<'_>) -> Result<AssertionHow<'a>> {
        Ok(AssertionHow {
            key: need(parts.key.take(), r, "no key")?,
            signature_method: need(parts.algorithm.take(), r, "no algorithm")?,
            digest_method: need(self.digest_method, r, "no digest method")?,
            key_info: need(self.key_info, r, "key_info not said")?,
            form: need(self.form, r, "form not said")?,
            timings: need(parts.timings, r, "timings not said")?,
        })
    }
}

fn write_common(how: &AssertionHow<'_>, w: &mut Writer<'_>) {
    w.uint(KEY);
    w.text(&how.key);
    w.uint(ALGORITHM);
    w.text(&how.signature_method);
    w.uint(TIMINGS);
    w.bool(how.timings);
}

fn write_rest(how: &AssertionHow<'_>, w: &mut Writer<'_>) {
    w.uint(DIGEST_METHOD);
    w.text(&how.digest_method);
    w.uint(KEY_INFO);
    w.uint(how.key_info as u8);
    w.uint(FORM);
    w.uint(how.form as u8);
}

fn write_item(item: &AssertionItem<'_>, w: &mut Writer<'_>) {
    w.map(1 + usize::from(item.reference.is_some()) + usize::from(item.capacity.is_some()));
    if let Some(reference) = &item.reference {
        w.uint(REFERENCE);
        w.text(reference);
    }
    if let Some(capacity) = &item.capacity {
        w.uint(CAPACITY);
        write_capacity(capacity, w);
    }
    w.uint(DOCUMENT);
    w.bytes(&item.document);
}

fn read_item<'a>(r: &mut Reader<'a>, limits: &Limits) -> Result<AssertionItem<'a>> {
    let (mut reference, mut capacity, mut document) = (None, None, None);
    r.map(|r, key| {
        match key {
            REFERENCE => reference = Some(text(r)?),
            CAPACITY => capacity = Some(read_capacity(r)?),
            DOCUMENT => document = Some(read_document(r, limits)?),
            _ => return r.extension(key),
        }
        Ok(())
    })?;
    Ok(AssertionItem { document: need(document, r, "no document")?, reference, capacity })
}

fn read_document<'a>(r: &mut Reader<'a>, limits: &Limits) -> Result<Cow<'a, [u8]>> {
    let max = limits.document_max as usize;
    bytes_up_to(r, max, Code::BadInput, "document longer than announced").map(Cow::Borrowed)
}
