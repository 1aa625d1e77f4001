//! The pool on real threads: a mutex around Core, a thread for each session, one for the timer. It decides nothing.
//!
//! Whoever has something to tell Core locks it, lets it step, unlocks, and carries out what Core asked for: orders to
//! sessions' threads, completions to inboxes, news to the observer. So neither a token nor an inbox is ever called
//! with the lock held.
//!
//! Threads, locks and the clock come from [`sync`] alone, so that the tests can put others in their place
//! (`interleavings`).

mod crew;
#[cfg(test)]
mod interleavings;
mod pool;
mod seat;
mod session;
mod shared;
mod sync;
#[cfg(test)]
mod tests;
mod timer;

pub use pool::{Inbox, Observer, Pool, Progress, Stopped};
