//! Where the pool's session threads leave completions for a reactor, and where the journal rings.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering, fence},
};

use segl_pool::{Completion, Inbox};
use tokio::sync::Notify;

/// Completions on their way from many threads to one reactor.
#[derive(Debug, Default)]
pub(crate) struct ReactorInbox {
    completions: Mutex<Vec<Completion>>,
    /// Whether answers are held until their intents are on disk
    awaits_journal: AtomicBool,
    ring: Notify,
}

impl Inbox for ReactorInbox {
    fn deliver(&self, completions: &mut Vec<Completion>) {
        let mut waiting = self.completions.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = waiting.is_empty();
        waiting.append(completions);
        drop(waiting);
        // Once is enough for many: the reactor takes all there is when it comes.
        if was_empty {
            self.ring.notify_one();
        }
    }
}

impl ReactorInbox {
    /// Waits until there may be something to do.
    pub(crate) async fn rung(&self) {
        self.ring.notified().await;
    }

    /// Swaps what has come into `taken`, which is empty.
    pub(crate) fn take(&self, taken: &mut Vec<Completion>) {
        debug_assert!(taken.is_empty(), "completions would be mixed up");
        std::mem::swap(&mut *self.completions.lock().unwrap_or_else(PoisonError::into_inner), taken);
    }

    /// Says whether answers are held. After saying yes the reactor looks at the journal once more, so that a commit
    /// between its last look and this is not missed: the two fences make one of the two sides see the other.
    pub(crate) fn await_journal(&self, awaits: bool) {
        self.awaits_journal.store(awaits, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Called by the journal's thread after every commit or failure.
    pub(crate) fn journal_moved(&self) {
        fence(Ordering::SeqCst);
        if self.awaits_journal.load(Ordering::Relaxed) {
            self.ring.notify_one();
        }
    }
}
