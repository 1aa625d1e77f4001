//! Requests about documents that Segl looks into before it signs.
//!
//! A document is borrowed from its frame until it has passed; then it is copied once, with room for the signature, and
//! that copy waits for the token and becomes the answer.

use std::{cell::RefCell, rc::Rc};

use rustix::time::{ClockId, clock_gettime};
use segl_wire::{
    ANSWER_MAX, AssertionHow, AssertionItem, Capacity, Code, Context, EcdsaEncoding, Error, Form, Kind, Meta,
    SignAssertion, SignAssertionBatch, SignJws,
};

use super::{Asked, Common, Particulars, Prepared, Refusable, TENANT_RETRY_MS, weight};
use crate::{
    config::Operation,
    policy::Denied,
    reactor::{Answers, Batch, Reply},
};

/// CPU time of one batch that documents may take which are then refused. A refused one takes tens of microseconds, so
/// this is hundreds of them; those that are signed are bounded by what may be in flight.
const REFUSED_CPU_NS: u64 = 10_000_000;

/// CPU time of this thread: on a host that is busy with something else, no document has to pay for that.
fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    u64::try_from(i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)).unwrap_or_default()
}

/// What is left of it.
struct Patience(u64);

impl Patience {
    fn spend(&mut self, ns: u64) {
        self.0 = self.0.saturating_sub(ns);
    }

    fn is_over(&self) -> bool {
        self.0 == 0
    }
}

impl Asked<'_> {
    pub(super) fn sign_assertion(&self) -> Refusable {
        let SignAssertion { meta, how, document } = self.read()?;
        let common = self.assertions(&meta, &how)?;
        let waiting = document.len() + common.permit.key().faces.growth(how.key_info);
        common.one(weight(waiting), || common.assertion(&how, &document, meta.context.capacity.as_ref()))
    }

    pub(super) fn sign_assertion_batch(&self) -> Refusable {
        let SignAssertionBatch { meta, how, items } = self.read()?;
        let common = self.assertions(&meta, &how)?;
        let growth = common.permit.key().faces.growth(how.key_info);
        let sent_back = |item: &AssertionItem<'_>| match how.form {
            Form::Document => item.document.len() + growth,
            Form::Signature => growth,
        };
        let answer_max: usize = items.iter().map(sent_back).sum();
        if answer_max > ANSWER_MAX as usize {
            let text = format!("the answer could be longer than {ANSWER_MAX} bytes: send fewer, or ask for form 1");
            return Err(Error::of(Code::BadBatch, text));
        }
        let weights = items.iter().map(|item| weight(item.document.len() + growth)).sum();
        common.admit(u32::try_from(items.len()).unwrap_or(u32::MAX), weights)?;
        let batch = Rc::new(RefCell::new(Batch::new(self.id, Kind::SignedAssertionBatch, items.len())));
        let mut patience = Patience(REFUSED_CPU_NS);
        for (index, item) in items.iter().enumerate() {
            let weight = weight(item.document.len() + growth);
            if patience.is_over() {
                let text = "refused documents of this batch took too long: this one was not looked at";
                let error = Error::of(Code::TenantLimit, text).retry_after(TENANT_RETRY_MS);
                common.item_refused(&batch, index, weight, "sign-assertion-batch", Err(error));
                continue;
            }
            let began_ns = thread_cpu_ns();
            let context = Context { capacity: item.capacity.or(meta.context.capacity), ..meta.context.clone() };
            let reply = Reply::Item { batch: batch.clone(), index };
            let reference = item.reference.as_deref();
            let ordered = common.order(Particulars { weight, context: &context, reference, reply }, || {
                common.assertion(&how, &item.document, context.capacity.as_ref())
            });
            if ordered.is_err() {
                patience.spend(thread_cpu_ns().saturating_sub(began_ns));
            }
            common.item_refused(&batch, index, weight, "sign-assertion-batch", ordered);
        }
        Ok(())
    }

    pub(super) fn sign_jws(&self) -> Refusable {
        let SignJws { meta, key, algorithm, timings, key_info, header, payload } = self.read()?;
        let answers = Answers { encoding: EcdsaEncoding::Raw, form: Form::Document, timings };
        let common = self.common(Operation::SignJws, &meta, &key, &algorithm, answers)?;
        let header = header.as_deref().unwrap_or(b"{}");
        let waiting = (header.len() + payload.len()) * 4 / 3 + common.permit.key().faces.growth(key_info);
        common.one(weight(waiting), || {
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
    ) -> Result<Prepared<'_>, Denied> {
        let bytes_max = self.reactor.limits().document_max;
        let prepared = self.permit.assertion(document, &how.digest_method, how.key_info, capacity, bytes_max);
        prepared.map(|(order, unsigned)| (order, Some(unsigned)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_documents_use_up_the_patience_with_their_batch() {
        let mut patience = Patience(REFUSED_CPU_NS);
        patience.spend(REFUSED_CPU_NS - 1);
        assert!(!patience.is_over());
        patience.spend(2);
        assert!(patience.is_over());
    }
}
