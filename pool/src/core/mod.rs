//! The pool's decisions, as a state machine.

mod event;

pub use event::{Action, Alarm, Call, CallId, CallResult, Event, Generation, SessionId};
