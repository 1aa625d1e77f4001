//! Which intents have no outcome yet, while records are read in their order.

use std::collections::BTreeSet;

use crate::record::{Entry, Record};

/// The intents without an outcome.
#[derive(Debug, Default)]
pub(crate) struct OpenIntents(BTreeSet<u64>);

impl OpenIntents {
    /// Takes the next record into account. False when it is an outcome without an open intent among those seen.
    pub(crate) fn see(&mut self, entry: &Entry) -> bool {
        match &entry.record {
            Record::Intent(_) => self.0.insert(entry.seq),
            Record::Outcome(outcome) => self.0.remove(&outcome.intent),
            _ => true,
        }
    }

    pub(crate) fn into_vec(self) -> Vec<u64> {
        self.0.into_iter().collect()
    }
}
