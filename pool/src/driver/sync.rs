//! Threads, locks and the clock that the driver stands on: those of the standard library.

pub(super) use std::{
    hint,
    sync::{Condvar, Mutex, MutexGuard, atomic},
    thread, thread_local,
};

pub(super) use crate::Clock;
