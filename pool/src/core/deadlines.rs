//! The deadlines of the jobs that live: a heap in which the finished are left lying until they are many.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::jobs::Jobs;

/// Below this many entries sweeping is not worth it.
const SWEEP_MIN: usize = 1024;

/// Deadlines, the earliest first.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    heap: BinaryHeap<Reverse<(u64, u32, u64)>>,
}

impl Deadlines {
    /// Notes a job's deadline. Deadlines mostly rise, so this mostly stays at the end of the heap.
    pub(super) fn push<P>(&mut self, deadline_ns: u64, slot: u32, jobs: &Jobs<P>) {
        // Without sweeping, the heap would grow with the rate times the longest deadline. With it, each sweep is paid
        // for by at least as many pushes.
        if self.heap.len() >= SWEEP_MIN && self.heap.len() >= 4 * jobs.len() {
            self.heap.retain(|&Reverse((_, slot, seq))| jobs.holds(slot, seq));
        }
        self.heap.push(Reverse((deadline_ns, slot, jobs[slot].seq)));
    }

    /// Takes out a job whose deadline has come.
    pub(super) fn pop_due<P>(&mut self, now_ns: u64, jobs: &Jobs<P>) -> Option<u32> {
        while let Some(&Reverse((deadline_ns, slot, seq))) = self.heap.peek() {
            let holds = jobs.holds(slot, seq);
            if holds && deadline_ns > now_ns {
                return None;
            }
            self.heap.pop();
            if holds {
                return Some(slot);
            }
        }
        None
    }

    /// Entries, those of the finished included.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    /// The earliest one; at times that of a job which is no more.
    pub(super) fn next_ns(&self) -> Option<u64> {
        self.heap.peek().map(|&Reverse((deadline_ns, _, _))| deadline_ns)
    }
}
