//! Which intents have no outcome yet: while records are read in their order, and while they are appended.

use std::collections::{BTreeSet, VecDeque};

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

/// The same while they are appended: numbers only rise and most are closed soon, so they stand in a row.
#[derive(Debug)]
pub(crate) struct Row {
    /// Number, and whether it is open still. The first one is
    intents: VecDeque<(u64, bool)>,
    open: u32,
}

/// So many may stand there before closed ones are cleared away.
const UNCLEARED: usize = 64;

impl Row {
    /// Has room for so many that are open, and allocates none later.
    pub(crate) fn with_room_for(open: u32) -> Row {
        Row { intents: VecDeque::with_capacity(2 * open as usize + UNCLEARED), open: 0 }
    }

    /// How many are open.
    pub(crate) fn len(&self) -> u32 {
        self.open
    }

    /// The one that has been open longest.
    pub(crate) fn lowest(&self) -> Option<u64> {
        self.intents.front().map(|(seq, _)| *seq)
    }

    pub(crate) fn contains(&self, seq: u64) -> bool {
        self.find(seq).is_some()
    }

    /// Takes a number higher than all before.
    pub(crate) fn open(&mut self, seq: u64) {
        // Behind one that stays open the closed ones may not pile up.
        if self.intents.len() >= UNCLEARED && self.intents.len() / 2 >= self.open as usize {
            self.intents.retain(|(_, open)| *open);
        }
        self.intents.push_back((seq, true));
        self.open += 1;
    }

    /// Closes one that is open.
    pub(crate) fn close(&mut self, seq: u64) {
        let Some(at) = self.find(seq) else { return };
        self.intents[at].1 = false;
        self.open -= 1;
        while self.intents.front().is_some_and(|(_, open)| !open) {
            self.intents.pop_front();
        }
    }

    fn find(&self, seq: u64) -> Option<usize> {
        let at = self.intents.binary_search_by_key(&seq, |(seq, _)| *seq).ok()?;
        self.intents[at].1.then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_knows_the_lowest_that_is_open_and_stays_short_behind_one_that_is_not_closed() {
        let mut row = Row::with_room_for(2);
        let room = row.intents.capacity();
        row.open(7);
        for seq in 8..100_000 {
            row.open(seq);
            assert!(row.contains(seq));
            row.close(seq);
            assert_eq!((row.contains(seq), row.lowest(), row.len()), (false, Some(7), 1));
        }
        assert_eq!(row.intents.capacity(), room);
        row.open(100_000);
        row.close(7);
        row.close(7);
        assert_eq!((row.lowest(), row.len()), (Some(100_000), 1));
        row.close(100_000);
        assert_eq!((row.lowest(), row.len(), row.intents.len()), (None, 0, 0));
    }
}
