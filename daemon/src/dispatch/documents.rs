//! Requests about documents that Segl looks into before it signs.
//!
//! A document is borrowed from its frame until it has passed; then it is copied once, with room for the signature, and
//! that copy waits for the token and becomes the answer.

use std::{cell::RefCell, rc::Rc};

use segl_wire::{
    ANSWER_MAX, AssertionHow, Capacity, Code, Context, EcdsaEncoding, Error, Form, Kind, Meta, SignAssertion,
    SignAssertionBatch, SignJws,
};

use super::{Asked, Common, Particulars, Prepared, Refusable, weight};
use crate::{
    config::Operation,
    policy::Denied,
    reactor::{Answers, Batch, Reply},
};

impl Asked<'_> {
    pub(super) fn sign_assertion(&self) -> Refusable {
        let SignAssertion { meta, how, document } = self.read()?;
        let common = self.assertions(&meta, &how)?;
        common.one(weight(document.len()), || common.assertion(&how, &document, meta.context.capacity.as_ref()))
    }

    pub(super) fn sign_assertion_batch(&self) -> Refusable {
        let SignAssertionBatch { meta, how, items } = self.read()?;
        let common = self.assertions(&meta, &how)?;
        let growth = common.permit.key().faces.growth_max();
        let answer_max: usize = items.iter().map(|item| item.document.len() + growth).sum();
        if answer_max > ANSWER_MAX as usize {
            let text = format!("the answer could be longer than {ANSWER_MAX} bytes: send fewer, or ask for form 1");
            return Err(Error::of(Code::BadBatch, text));
        }
        let weights = items.iter().map(|item| weight(item.document.len())).sum();
        common.admit(u32::try_from(items.len()).unwrap_or(u32::MAX), weights)?;
        let batch = Rc::new(RefCell::new(Batch::new(self.id, Kind::SignedAssertionBatch, items.len())));
        for (index, item) in items.iter().enumerate() {
            let weight = weight(item.document.len());
            let context = Context { capacity: item.capacity.or(meta.context.capacity), ..meta.context.clone() };
            let reply = Reply::Item { batch: batch.clone(), index };
            let reference = item.reference.as_deref();
            let ordered = common.order(Particulars { weight, context: &context, reference, reply }, || {
                common.assertion(&how, &item.document, context.capacity.as_ref())
            });
            common.item_refused(&batch, index, weight, "sign-assertion-batch", ordered);
        }
        Ok(())
    }

    pub(super) fn sign_jws(&self) -> Refusable {
        let SignJws { meta, key, algorithm, timings, key_info, header, payload } = self.read()?;
        let answers = Answers { encoding: EcdsaEncoding::Raw, form: Form::Document, timings };
        let common = self.common(Operation::SignJws, &meta, &key, &algorithm, answers)?;
        let header = header.as_deref().unwrap_or(b"{}");
        common.one(weight(header.len() + payload.len()), || {
            let capacity = meta.context.capacity.as_ref();
            let (order, unsigned) = common.permit.jws((header, &payload), key_info, capacity)?;
            Ok((order, Some(unsigned)))
        })
    }

    fn assertions<'c>(&'c self, meta: &'c Meta<'c>, how: &AssertionHow<'_>) -> Refusable<Common<'c>> {
        let answers = Answers { encoding: EcdsaEncoding::Raw, form: how.form, timings: how.timings };
        self.common(Operation::SignAssertion, meta, &how.key, &how.signature_method, answers)
    }
}

impl Common<'_> {
    fn assertion(
        &self,
        how: &AssertionHow<'_>,
        document: &[u8],
        capacity: Option<&Capacity>,
    ) -> Result<Prepared, Denied> {
        let bytes_max = self.reactor.limits().document_max;
        let prepared = self.permit.assertion(document, &how.digest_method, how.key_info, capacity, bytes_max);
        prepared.map(|(order, unsigned)| (order, Some(unsigned)))
    }
}
