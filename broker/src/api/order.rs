//! What all signing has in common: a request is read, asked of the tenant's roads once, and counted.

use std::{collections::BTreeMap, sync::Arc};

use axum::{body::Bytes, extract::Request, http::HeaderMap, response::Response};
use segl_wire as wire;
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::Instant;

use super::{Admitted, Broker, Call, body, new_reference, to_json, types};
use crate::{
    callers::{Caller, Operation},
    idempotency::Answer,
    metrics,
    problem::{Problem, Signed},
    upstream::{Ask, Failure, Items, Signature, Tenant, What},
};

/// A request that says what is to be signed, as JSON.
pub(super) trait Asked: DeserializeOwned {
    /// What all of them say.
    fn common(&self) -> Common<'_>;
}

/// What every [`Asked`] says.
pub(super) struct Common<'a> {
    pub(super) key: &'a str,
    pub(super) algorithm: &'a str,
    pub(super) class: types::Class,
    pub(super) timeout_ms: Option<u32>,
    pub(super) reference: Option<&'a str>,
    pub(super) capacity: Option<&'a types::Capacity>,
    pub(super) encoding: types::Encoding,
    pub(super) timings: bool,
}

/// Implements [`Asked`], by the name of the field with the algorithm; `encoded` when there is one for the form of ECDSA
/// signatures, which are raw otherwise.
macro_rules! asked {
    ($request:ty, $algorithm:ident, encoded) => {
        $crate::api::order::asked!(@ $request, $algorithm, |asked| asked.encoding);
    };
    ($request:ty, $algorithm:ident) => {
        $crate::api::order::asked!(@ $request, $algorithm, |_asked| $crate::api::types::Encoding::Raw);
    };
    (@ $request:ty, $algorithm:ident, |$asked:ident| $encoding:expr) => {
        impl $crate::api::order::Asked for $request {
            fn common(&self) -> $crate::api::order::Common<'_> {
                let $asked = self;
                $crate::api::order::Common {
                    key: &self.key,
                    algorithm: &self.$algorithm,
                    class: self.class,
                    timeout_ms: self.timeout_ms,
                    reference: self.reference.as_deref(),
                    capacity: self.capacity.as_ref(),
                    encoding: $encoding,
                    timings: self.timings,
                }
            }
        }
    };
}
pub(super) use asked;

/// One thing to be signed, kept for as long as that takes.
pub(super) trait One: Send + Sync + 'static {
    /// What `segld` is asked.
    fn what(&self) -> What<'_>;
    /// The body of the answer.
    fn answer(&self, ask: &Ask, made: Made) -> impl Future<Output = Result<Bytes, Failure>> + Send;
}

/// Several things to be signed with one key.
pub(super) trait Many: Send + Sync + 'static {
    /// The answer to one of them.
    type Item: Serialize + Send;
    /// What `segld` is asked.
    fn items(&self) -> Items<'_>;
    /// The own reference of each.
    fn references(&self) -> impl Iterator<Item = Option<&str>> + Send;
    /// The answer to one of them.
    fn answer(&self, made: Made) -> impl Future<Output = Result<Self::Item, Failure>> + Send;
}

/// What `segld` made.
pub(super) struct Made {
    pub(super) bytes: Vec<u8>,
    pub(super) version: Option<String>,
    pub(super) timings: Option<types::Timings>,
    /// Of a `ds:Signature` alone
    pub(super) offset: Option<u32>,
}

/// A request that was read and may be asked.
pub(super) struct Order {
    pub(super) broker: Arc<Broker>,
    pub(super) admitted: Admitted,
    pub(super) ask: Ask,
    operation: Operation,
    headers: HeaderMap,
    body: Bytes,
}

/// The same, while it is asked.
struct Job {
    tenant: Arc<Tenant>,
    caller: Arc<Caller>,
    ask: Ask,
    began: Instant,
}

impl Broker {
    /// Reads a request of someone who may make it, and lets `work` make an answer.
    pub(super) async fn signs<T: Asked, F>(
        self: Arc<Self>,
        request: Request,
        operation: Operation,
        work: impl FnOnce(Order, T) -> F,
    ) -> Response
    where
        F: Future<Output = Result<Response, Problem>>,
    {
        let read = async |admitted: Admitted, request: Request| {
            let (head, content) = request.into_parts();
            let body = body::read(&head.headers, content, self.limits.body_max, self.limits.body_timeout).await?;
            let asked: T = body::parse(&body)?;
            let ask = asked.common().ask(&self, &admitted)?;
            work(Order { broker: self.clone(), admitted, ask, operation, headers: head.headers, body }, asked).await
        };
        self.answer(request, operation, read).await
    }
}

impl Common<'_> {
    /// Checks it and makes it into what `segld` is asked; `on_behalf_of` is the caller, whatever the request says.
    fn ask(&self, broker: &Broker, admitted: &Admitted) -> Result<Ask, Problem> {
        types::name(self.key, "#/key")?;
        types::name(self.algorithm, "#/algorithm")?;
        admitted.granted(self.key)?;
        let reference = match self.reference {
            Some(reference) => types::text(reference, "#/reference").map(|()| reference.to_owned())?,
            None => new_reference()?,
        };
        let context = wire::Context {
            reference: Some(reference.into()),
            on_behalf_of: Some(admitted.caller.name.clone().into()),
            capacity: self.capacity.map(|capacity| capacity.to_wire("#")).transpose()?,
        };
        Ok(Ask {
            key: self.key.to_owned(),
            algorithm: self.algorithm.to_owned(),
            deadline: broker.deadline(self.timeout_ms)?,
            class: self.class.to_wire(),
            context,
            encoding: self.encoding.to_wire(),
            timings: self.timings,
            repeatable: admitted.snapshot.repeatable_keys.contains(self.key),
        })
    }
}

impl Order {
    /// Asks for one signature.
    pub(super) async fn one(self, wanted: impl One) -> Result<Response, Problem> {
        let work = async move |job: Job| {
            let outcome = job.tenant.sign(&job.ask, &wanted.what()).await;
            metrics::tries(outcome.tries);
            let made = match outcome.result {
                Ok(signature) => wanted.answer(&job.ask, job.made(signature, outcome.tries)).await,
                Err(failure) => Err(failure),
            };
            metrics::signatures(
                &job.caller.name,
                made.as_ref().map_or_else(|failure| failure.code.name(), |_| "signed"),
                1,
            );
            match made {
                Ok(body) => Answer::Success(body),
                Err(failure) => Answer::Failure(Box::new(failure.into_problem(job.ask.reference()))),
            }
        };
        self.once(1, work).await
    }

    /// Asks for so many signatures with one key. The answer is 200 with an answer for each item; only when every item
    /// failed for certain, and for the same reason, is that one problem the answer.
    pub(super) async fn many(self, count: usize, wanted: impl Many) -> Result<Response, Problem> {
        let work = async move |job: Job| {
            let outcome = job.tenant.sign_batch(&job.ask, &wanted.items()).await;
            metrics::tries(outcome.tries);
            let mut counts = BTreeMap::<&'static str, u64>::new();
            let mut items = Vec::with_capacity(outcome.result.len());
            for (own, result) in wanted.references().zip(outcome.result) {
                let made = match result {
                    Ok(signature) => wanted.answer(job.made(signature, outcome.tries)).await,
                    Err(failure) => Err(failure),
                };
                *counts.entry(made.as_ref().map_or_else(|failure| failure.code.name(), |_| "signed")).or_default() += 1;
                items.push(match made {
                    Ok(signed) => types::ItemAnswer::Signed(signed),
                    Err(failure) => {
                        let problem = failure.into_problem(own.unwrap_or(job.ask.reference()));
                        types::ItemAnswer::Failed(types::FailedItem { problem })
                    }
                });
            }
            for (name, count) in counts {
                metrics::signatures(&job.caller.name, name, count);
            }
            if let Some(problem) = common_problem(&items) {
                return Answer::Failure(Box::new(problem.with_reference(job.ask.reference())));
            }
            let answer = if items.iter().all(certainly_failed) { Answer::NothingSigned } else { Answer::Success };
            answer(to_json(&types::BatchAnswer {
                key: &job.ask.key,
                algorithm: &job.ask.algorithm,
                reference: job.ask.reference(),
                signed: items.iter().filter(|item| matches!(item, types::ItemAnswer::Signed(_))).count(),
                items,
            }))
        };
        self.once(count, work).await
    }

    /// Runs the work once for an Idempotency-Key, as soon as the caller may have that many signatures in flight.
    async fn once<F>(self, count: usize, work: impl FnOnce(Job) -> F + Send + 'static) -> Result<Response, Problem>
    where
        F: Future<Output = Answer> + Send,
    {
        let Order { broker, admitted, ask, operation, headers, body } = self;
        let reference = ask.reference().to_owned();
        let (deadline, in_flight) = (ask.deadline, broker.in_flight.clone());
        let job = Job { tenant: admitted.tenant()?, caller: admitted.caller.clone(), ask, began: admitted.began };
        let work = async move {
            match in_flight.enter(&job.caller, count, job.tenant.capacity()) {
                Ok(_place) => work(job).await,
                Err(problem) => {
                    metrics::signatures(&job.caller.name, problem.code.name(), count as u64);
                    Answer::Failure(Box::new(problem.with_reference(job.ask.reference())))
                }
            }
        };
        let caller = &admitted.caller;
        let call = Call { operation, caller, headers: &headers, body: &body, reference: &reference, deadline };
        broker.once(call, work).await
    }
}

impl Job {
    fn made(&self, signature: Signature, tries: u32) -> Made {
        let timings = signature.timings.map(|timings| types::Timings::new(timings, self.began, tries));
        Made { bytes: signature.bytes, version: signature.version, timings, offset: signature.offset }
    }
}

fn certainly_failed<T>(answer: &types::ItemAnswer<T>) -> bool {
    matches!(answer, types::ItemAnswer::Failed(failed) if failed.problem.signed == Signed::No)
}

/// The problem of all, when nothing was signed for certain and the code is the same everywhere.
fn common_problem<T>(answers: &[types::ItemAnswer<T>]) -> Option<Problem> {
    let mut first: Option<&Problem> = None;
    for answer in answers {
        let types::ItemAnswer::Failed(types::FailedItem { problem }) = answer else { return None };
        if problem.signed != Signed::No || first.is_some_and(|first| first.code != problem.code) {
            return None;
        }
        first.get_or_insert(problem);
    }
    first.cloned()
}
