//! A model of the driver's thread of one session: orders in their turn, answers told when a batch is back.

use std::collections::VecDeque;

use segl_hsm::ModuleId;

use super::{script::CallKind, token::Handle};
use crate::core::{Call, CallId, CallResult, Event, Generation, SessionId};

/// A thread.
#[derive(Debug)]
pub(super) struct Thread {
    pub(super) place: SessionId,
    pub(super) token: u16,
    /// It was given up in this generation: another thread has its place
    pub(super) given_up: Option<Generation>,
    pub(super) orders: VecDeque<Order>,
    pub(super) running: Option<Running>,
    pub(super) held: Option<(Generation, Handle)>,
    /// A call has spoilt the session: the rest of the batch is not begun
    pub(super) spoilt: bool,
    pub(super) answers: Vec<Event<u64>>,
    /// Since when there are answers that were not told
    pub(super) answered_ns: u64,
    /// When the present batch was last told of
    pub(super) told_ns: u64,
    /// It has orders and will look at them
    pub(super) resting: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Order {
    Open(Generation),
    Login(Generation),
    Sign(Generation, Call<u64>),
    KeepAlive(Generation),
    Close(Generation),
    Reinitialise(ModuleId, Generation),
}

/// A call inside the module.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) order: Order,
    pub(super) started_ns: u64,
    /// It never returns
    pub(super) for_ever: bool,
    /// Of a login: the PIN that it has read is wrong, whatever the operator puts in its place meanwhile
    pub(super) pin_wrong: bool,
}

impl Order {
    pub(super) fn kind(&self) -> CallKind {
        match self {
            Order::Open(_) => CallKind::Open,
            Order::Login(_) => CallKind::Login,
            Order::Sign(..) => CallKind::Sign,
            Order::KeepAlive(_) => CallKind::KeepAlive,
            Order::Close(_) => CallKind::Close,
            Order::Reinitialise(..) => CallKind::Reinitialise,
        }
    }

    pub(super) fn generation(&self) -> Generation {
        match *self {
            Order::Open(generation)
            | Order::Login(generation)
            | Order::Sign(generation, _)
            | Order::KeepAlive(generation)
            | Order::Close(generation)
            | Order::Reinitialise(_, generation) => generation,
        }
    }
}

impl Thread {
    pub(super) fn new(place: SessionId, token: u16) -> Self {
        Thread {
            place,
            token,
            given_up: None,
            orders: VecDeque::new(),
            running: None,
            held: None,
            spoilt: false,
            answers: Vec::new(),
            answered_ns: 0,
            told_ns: 0,
            resting: false,
        }
    }

    /// Takes a call back that has not begun: its answer.
    pub(super) fn take_back(&mut self, id: CallId, now_ns: u64) -> Option<Event<u64>> {
        let is_it = |order: &Order| matches!(order, Order::Sign(_, call) if call.id == id);
        let place = self.orders.iter().position(is_it)?;
        match self.orders.remove(place) {
            Some(Order::Sign(generation, call)) => Some(self.unbegun(generation, &call, CallResult::Skipped, now_ns)),
            _ => None,
        }
    }

    /// The answer to a call that is not begun.
    pub(super) fn unbegun(
        &self,
        generation: Generation,
        call: &Call<u64>,
        result: CallResult,
        now_ns: u64,
    ) -> Event<u64> {
        Event::Returned { session: self.place, generation, call: call.id, result, started_ns: now_ns, token_ns: 0 }
    }

    /// All calls that have not begun.
    pub(super) fn unbegun_calls(&self) -> Vec<CallId> {
        let call = |order: &Order| match order {
            Order::Sign(_, call) => Some(call.id),
            _ => None,
        };
        self.orders.iter().filter_map(call).collect()
    }
}
