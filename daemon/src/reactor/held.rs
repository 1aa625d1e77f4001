//! Answers that wait until the journal has their intents on disk.

use segl_pool::Completion;

use super::Request;

/// An answer that waits for the journal.
pub(super) struct Held {
    pub(super) request: Request,
    pub(super) completion: Completion,
    pub(super) since_ns: u64,
}

/// All that a reactor has of them.
#[derive(Default)]
pub(super) struct HeldAnswers {
    answers: Vec<Held>,
    /// The lowest and the highest of their intents
    first: u64,
    last: u64,
}

impl HeldAnswers {
    pub(super) fn hold(&mut self, held: Held) {
        let intent = held.request.intent;
        let (first, last) = if self.answers.is_empty() { (intent, intent) } else { (self.first, self.last) };
        (self.first, self.last) = (first.min(intent), last.max(intent));
        self.answers.push(held);
    }

    /// The lowest and the highest of their intents; none when there are no answers.
    pub(super) fn span(&self) -> Option<(u64, u64)> {
        (!self.answers.is_empty()).then_some((self.first, self.last))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// Moves those of which this is so to the end of `taken`, in their order.
    pub(super) fn take_if(&mut self, taken: &mut Vec<Held>, is_so: impl Fn(&Request) -> bool) {
        taken.extend(self.answers.extract_if(.., |held| is_so(&held.request)));
        let intents = || self.answers.iter().map(|held| held.request.intent);
        (self.first, self.last) = (intents().min().unwrap_or(0), intents().max().unwrap_or(0));
    }
}
