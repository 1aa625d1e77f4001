//! A session's thread: carries out its orders, one call to the token after the other, and tells Core what came of a
//! batch at once, unless it takes long.

use std::panic::{AssertUnwindSafe, catch_unwind};

use segl_hsm::{Error, Fault, Input, Kind, Result, Retry, Rung, Session, Signature, Signed, Verdict};

use super::{seat::Order, shared::Shared, sync::atomic::Ordering};
use crate::{
    Work,
    core::{Call, CallResult, Core, Event, Generation, SessionId},
};

/// Runs until the pool is left, or the thread was given up as stuck and is back. The session lives and dies on this
/// thread. What is done is told when all of a batch is, or when `tell_ns` have passed: nobody waits longer for the slow
/// calls of others.
pub(super) fn run(shared: &Shared, id: SessionId, tenure: u32) {
    let (token_index, setup) = shared.crew.token(id);
    let (token, spin_ns, tell_ns) = (&setup.token, shared.crew.spin_ns, shared.crew.tell_ns);
    let seat = &shared.seats[usize::from(id.0)];
    if !seat.sit(tenure) {
        return;
    }
    let mut held: Option<Box<dyn Session>> = None;
    let mut signature = Signature::new();
    let mut answers = Vec::new();
    while seat.take(tenure, shared.clock, spin_ns, &shared.leaving) {
        let mut batch = Batch { id, shared, spoilt: false, now_ns: shared.clock.now_ns() };
        let mut told_ns = batch.now_ns;
        while let Some(order) = seat.next(tenure) {
            let answer = match order {
                Order::Sign(generation, call) => batch.call(present(&mut held), generation, call, &mut signature),
                Order::Open(generation) => {
                    let opened = guarded("open", Signed::No, || token.open());
                    Event::Opened { session: id, generation, result: opened.map(|session| held = Some(session)) }
                }
                Order::Login(generation) => {
                    let keys = guarded("login", Signed::No, || present(&mut held).login());
                    // Before Core hears of it: whoever compares the keys does so before one of them signs. What a
                    // login found that was given up says nothing of the one that counts.
                    let heard = |keys| {
                        if seat.tenure() == tenure {
                            shared.observer.token_logged_in(token_index, keys);
                        }
                    };
                    let result = keys.map(heard);
                    Event::LoggedIn { session: id, generation, result }
                }
                Order::KeepAlive(generation) => {
                    let result = guarded("keep-alive", Signed::No, || present(&mut held).keep_alive());
                    Event::KeptAlive { session: id, generation, result }
                }
                Order::Reinitialise(generation, module) => {
                    let result = guarded("reinitialise", Signed::No, || token.reinitialise());
                    Event::Reinitialised { module, session: id, generation, result }
                }
                Order::Close(generation) => {
                    let session = held.take().expect("Core closes what it has opened");
                    // A token that can not close it will forget it; there is nothing to be done about it here.
                    let _ = guarded("close", Signed::No, || session.close());
                    Event::Closed { session: id, generation }
                }
            };
            let goes_on = match seat.answer(tenure, answer, batch.now_ns) {
                Ok(goes_on) => goes_on,
                Err(late) => {
                    shared.tell([late]);
                    break;
                }
            };
            if batch.now_ns - told_ns > tell_ns {
                told_ns = batch.now_ns;
                seat.collect(tenure, &mut answers);
                shared.tell(answers.drain(..));
                batch.now_ns = shared.clock.now_ns();
            } else if goes_on {
                shared.leave_untold();
            }
        }
        seat.collect(tenure, &mut answers);
        // Empty when others have taken it back or along.
        if !answers.is_empty() {
            shared.tell(answers.drain(..));
        }
    }
    if let Some(generation) = seat.resign(tenure) {
        if let Some(session) = held.take() {
            let _ = guarded("close", Signed::No, || session.close());
        }
        shared.tell([Event::Gone { session: id, generation }]);
    }
}

/// A batch on its way through the token.
struct Batch<'a> {
    id: SessionId,
    shared: &'a Shared,
    /// A call has spoilt the session: the others are not begun
    spoilt: bool,
    /// The end of one call is the start of the next
    now_ns: u64,
}

impl Batch<'_> {
    /// Makes a call. `buffer` is room for a signature, used again and again.
    fn call(
        &mut self,
        session: &mut dyn Session,
        generation: Generation,
        call: Call<Input>,
        buffer: &mut Signature,
    ) -> Event<Input> {
        let started_ns = self.now_ns;
        let result = if self.spoilt || self.shared.leaving.load(Ordering::Acquire) {
            CallResult::Skipped
        } else if started_ns >= call.deadline_ns {
            CallResult::Expired
        } else {
            buffer.clear();
            let done = match call.work {
                Work::Sign => {
                    guarded("sign", Signed::Unknown, || session.sign(call.key, call.algorithm, &call.input, buffer))
                }
                Work::Presence => guarded("presence", Signed::No, || session.presence(call.key)),
            };
            self.now_ns = self.shared.clock.now_ns();
            match done {
                // A copy of exactly its length: tokens want room for the longest there is.
                Ok(()) => CallResult::Signed(buffer.as_slice().to_vec()),
                Err(error) => {
                    self.spoilt = Core::<Input>::ends_batch(&error);
                    CallResult::Failed(error)
                }
            }
        };
        let token_ns = self.now_ns - started_ns;
        Event::Returned { session: self.id, generation, call: call.id, result, started_ns, token_ns }
    }
}

fn present(held: &mut Option<Box<dyn Session>>) -> &mut dyn Session {
    held.as_deref_mut().expect("Core asks only what it has opened")
}

/// Calls the token; its panic costs the session, not the process. It is not tried again: an input that makes one
/// session panic must not take the next as well.
fn guarded<T>(context: &'static str, signed: Signed, call: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| {
        let verdict = Verdict { fault: Fault::Segl, signed, retry: Retry::Never, rung: Rung::Session };
        Err(Error::new(Kind::Other, verdict, context, "the token's code panicked"))
    })
}
