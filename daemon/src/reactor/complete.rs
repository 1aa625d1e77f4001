//! The way back: completions become answers, but not before the intent is on disk; the outcome follows.

use std::{
    borrow::Cow,
    rc::Rc,
    time::{Duration, Instant},
};

use ring::digest::{SHA256, digest};
use segl_audit::{OutcomeResult, Settled};
use segl_hsm::{Signed, ecdsa};
use segl_pool::{Completion, Failure};
use segl_wire::{Code, EcdsaEncoding, Error, Timings};

use super::{Answer, Made, Reactor, Reply, Request, held::Held, rest::Waits};
use crate::{connection::Phase, refusal};

impl Reactor {
    /// Takes completions back for as long as the reactor lives.
    pub(super) async fn take_completions(self: Rc<Self>) {
        let (mut taken, mut released) = (Vec::new(), Vec::new());
        let mut waits = Waits::new(Instant::now());
        loop {
            self.inbox.rung().await;
            self.inbox.take(&mut taken);
            let now_ns = self.now_ns();
            if let Some(queue_us) = taken.iter().map(|completion| completion.queue_us).min() {
                waits.rest_after_round(Duration::from_micros(queue_us.into()));
            }
            for completion in taken.drain(..) {
                self.completed(completion, now_ns);
            }
            self.release_held(&mut released, now_ns);
        }
    }

    fn completed(&self, completion: Completion, now_ns: u64) {
        let Some(request) = self.requests.borrow_mut().remove(completion.tag) else {
            // Every job completes once, and its request waits for it: this would be a bug of ours.
            debug_assert!(false, "a completion nobody waits for");
            return;
        };
        self.meters.pool_times(request.class, &completion);
        match self.desk().settled(request.intent) {
            Settled::Pending => {
                let held = Held { request, completion, since_ns: now_ns };
                self.held.borrow_mut().hold(held);
            }
            Settled::Durable => self.answer(request, completion, now_ns),
            Settled::Lost => {
                self.destroy(request, completion, now_ns);
                self.take_all_back();
            }
        }
    }

    /// The journal has failed for good: what still waits would be signed for nothing.
    fn take_all_back(&self) {
        let waiting: Vec<_> = self.requests.borrow().iter().map(|(tag, _)| tag).collect();
        self.cancel_all(&waiting);
    }

    /// Answers what the journal has on disk by now, and has it hurry with the rest. `released` is empty, and is again.
    fn release_held(&self, released: &mut Vec<Held>, now_ns: u64) {
        let Some((first, last)) = self.held.borrow().span() else { return };
        // Said before the look, so that a commit between the two is not missed.
        self.inbox.await_journal(true);
        if self.desk().settled(first) != Settled::Pending {
            self.held.borrow_mut().take_if(released, |request| self.desk().settled(request.intent) != Settled::Pending);
            released.drain(..).for_each(|held| self.settle(held, now_ns));
        }
        if self.held.borrow().is_empty() {
            self.inbox.await_journal(false);
        } else {
            self.desk().hasten(last);
        }
    }

    fn settle(&self, held: Held, now_ns: u64) {
        match self.desk().settled(held.request.intent) {
            Settled::Pending => self.held.borrow_mut().hold(held),
            Settled::Durable => {
                self.meters.record_waited(now_ns - held.since_ns);
                self.answer(held.request, held.completion, now_ns);
            }
            Settled::Lost => self.destroy(held.request, held.completion, now_ns),
        }
    }

    /// A disk that neither works nor fails must not hold answers for ever: past their deadline they are destroyed.
    pub(super) fn give_up_on_the_journal(&self, now_ns: u64) {
        let mut overdue = Vec::new();
        self.held.borrow_mut().take_if(&mut overdue, |request| request.deadline_ns <= now_ns);
        for held in overdue {
            if self.desk().settled(held.request.intent) == Settled::Pending {
                self.destroy(held.request, held.completion, now_ns);
            } else {
                self.settle(held, now_ns);
            }
        }
    }

    /// The intent is on disk: the client may have what the token made of it.
    fn answer(&self, mut request: Request, completion: Completion, now_ns: u64) {
        let token = completion.token.and_then(|token| self.shared.token_names.get(usize::from(token)).cloned());
        let (answer, why_discarded) = match &completion.result {
            Ok(signature) => match self.released(&mut request, &completion, signature) {
                Ok(made) => (Ok(made), None),
                Err(why) => (Err(Error::of(Code::Internal, why)), Some(why)),
            },
            Err(failure) => {
                let error = refusal::unsigned(&completion)
                    .unwrap_or_else(|| Error::of(Code::Internal, "neither a signature nor a reason"));
                self.log_failure(&request, failure);
                (Err(error), None)
            }
        };
        let outcome = || match (&completion.result, why_discarded) {
            (Ok(signature), None) => OutcomeResult::Released { signature_sha256: sha256(signature) },
            (Ok(signature), Some(why)) => discarded(why, signature),
            (Err(failure), _) => unsigned_outcome(&completion, failure),
        };
        self.desk().close(request.intent, outcome, token.as_deref(), &completion);
        self.reply(request, answer, now_ns);
    }

    /// The signature as the client wants it, or why it can not have it.
    fn released(&self, request: &mut Request, completion: &Completion, signature: &[u8]) -> Result<Made, &'static str> {
        if matches!(request.connection.phase(), Phase::Finished | Phase::Closed) {
            return Err("the connection was closed");
        }
        let signature = match request.answers.encoding {
            EcdsaEncoding::Der if request.algorithm.is_ecdsa() => {
                let der = ecdsa::der_from_raw(signature);
                Cow::Owned(der.map_err(|_| "the token's signature is no pair of numbers")?)
            }
            _ => Cow::Borrowed(signature),
        };
        let timings =
            request.answers.timings.then_some(Timings { queue_us: completion.queue_us, token_us: completion.token_us });
        let version = request.version.as_deref();
        Made::new(request.unsigned.take(), request.answers.form, &signature, timings, version)
    }

    /// The intent is not on disk and will not be, or too late: whatever was signed is destroyed.
    fn destroy(&self, request: Request, completion: Completion, now_ns: u64) {
        let token = completion.token.and_then(|token| self.shared.token_names.get(usize::from(token)).cloned());
        let outcome = || match &completion.result {
            Ok(signature) => discarded("the intent was not on disk in time", signature),
            Err(failure) => unsigned_outcome(&completion, failure),
        };
        let error = match &completion.result {
            Ok(_) => refusal::record_lost(),
            Err(failure) => {
                self.log_failure(&request, failure);
                refusal::unsigned(&completion).unwrap_or_else(refusal::record_lost)
            }
        };
        self.desk().close(request.intent, outcome, token.as_deref(), &completion);
        self.reply(request, Err(error), now_ns);
    }

    fn reply(&self, request: Request, answer: Answer, now_ns: u64) {
        request.client.load.gave_back(request.weight);
        let outcome = answer.as_ref().map(drop).map_err(|error| error.code);
        let took_ns = now_ns.saturating_sub(request.began_ns);
        self.meters.done(&request.client.tenant, request.operation, outcome, took_ns);
        match request.reply {
            Reply::Single { id } => match &answer {
                Ok(made) => made.send(&request.connection, id),
                Err(error) => request.connection.refuse(id, error, 1),
            },
            Reply::Item { batch, index } => batch.borrow_mut().item_done(&request.connection, index, answer),
        }
    }

    /// At the end: what still waits gets no answer, and the record says so.
    pub(super) fn abandon_requests(&self) {
        let mut held = Vec::new();
        self.held.borrow_mut().take_if(&mut held, |_| true);
        for Held { request, completion, .. } in held {
            self.destroy(request, completion, self.now_ns());
        }
        let left: Vec<_> = self.requests.borrow().iter().map(|(tag, _)| tag).collect();
        for tag in left {
            if let Some(request) = self.requests.borrow_mut().remove(tag) {
                self.desk().abandon(request.intent, "shutdown");
                request.client.load.gave_back(request.weight);
            }
        }
    }

    fn log_failure(&self, request: &Request, failure: &Failure) {
        if let Failure::Token(error) = failure {
            tracing::warn!(intent = request.intent, tenant = &**request.client.tenant.name(), %error, "a token failed");
        }
    }
}

/// What the record says of a signature that nobody gets.
fn discarded(reason: &'static str, signature: &[u8]) -> OutcomeResult<'static> {
    OutcomeResult::Discarded { reason: Cow::Borrowed(reason), signature_sha256: Some(sha256(signature)) }
}

/// What the record says of a failure: nothing was signed, or nobody knows.
fn unsigned_outcome(completion: &Completion, failure: &Failure) -> OutcomeResult<'static> {
    let code = Cow::Borrowed(failure.name());
    match completion.verdict().map(|verdict| verdict.signed) {
        Some(Signed::Unknown) => OutcomeResult::Unknown { code },
        _ => OutcomeResult::NotSigned { code },
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}
