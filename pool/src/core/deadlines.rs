//! The deadlines of the jobs that live, in a row while they rise and in a heap where they do not. The finished are left
//! lying until they are in front, or many.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

use super::jobs::Jobs;

/// Below this many entries sweeping is not worth it.
const SWEEP_MIN: usize = 1024;

/// When, which slot, and which job it was that had it.
type Entry = (u64, u32, u64);

/// Deadlines, the earliest first.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    /// Those that came in order: nearly all, since clients ask for about the same time
    row: VecDeque<Entry>,
    heap: BinaryHeap<Reverse<Entry>>,
}

impl Deadlines {
    /// Notes a job's deadline.
    pub(super) fn push<P>(&mut self, deadline_ns: u64, slot: u32, jobs: &Jobs<P>) {
        // Without sweeping, it would grow with the rate times the longest deadline. With it, each sweep is paid for by
        // at least as many pushes.
        let len = self.row.len() + self.heap.len();
        if len >= SWEEP_MIN && len >= 4 * jobs.len() {
            self.row.retain(|&(_, slot, seq)| jobs.holds(slot, seq));
            self.heap.retain(|&Reverse((_, slot, seq))| jobs.holds(slot, seq));
        }
        let entry = (deadline_ns, slot, jobs[slot].seq);
        if self.row.back().is_none_or(|(last_ns, ..)| *last_ns <= deadline_ns) {
            self.row.push_back(entry);
        } else {
            self.heap.push(Reverse(entry));
        }
    }

    /// Takes out a job whose deadline has come.
    pub(super) fn pop_due<P>(&mut self, now_ns: u64, jobs: &Jobs<P>) -> Option<u32> {
        while let Some((deadline_ns, slot, seq)) = self.first() {
            let holds = jobs.holds(slot, seq);
            if holds && deadline_ns > now_ns {
                return None;
            }
            self.take_first();
            if holds {
                return Some(slot);
            }
        }
        None
    }

    fn first(&self) -> Option<Entry> {
        let (row, heap) = (self.row.front().copied(), self.heap.peek().map(|&Reverse(entry)| entry));
        row.into_iter().chain(heap).min()
    }

    fn take_first(&mut self) {
        if self.row.front().copied() == self.first() {
            self.row.pop_front();
        } else {
            self.heap.pop();
        }
    }

    /// Entries, those of the finished included.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.row.len() + self.heap.len()
    }

    /// The earliest one; at times that of a job which is no more.
    pub(super) fn next_ns(&self) -> Option<u64> {
        self.first().map(|(deadline_ns, ..)| deadline_ns)
    }
}
