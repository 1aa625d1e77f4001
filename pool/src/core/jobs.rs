//! The jobs that live: a slab whose places are used again, and the way from a return address to its job.

use super::event::{CallId, Generation, SessionId};
use crate::{Attempts, Job, core::hash::FastMap};

/// No slot.
pub(super) const NIL: u32 = u32::MAX;

/// All jobs that were accepted and not completed.
#[derive(Debug)]
pub(super) struct Jobs<P> {
    slots: Vec<Option<Entry<P>>>,
    free: Vec<u32>,
    by_address: FastMap<(u16, u64), u32>,
    next_seq: u64,
}

/// A job and what became of it so far.
#[derive(Debug)]
pub(super) struct Entry<P> {
    /// As submitted
    pub(super) job: Job<P>,
    /// Its place in the order of arrival; unique
    pub(super) seq: u64,
    /// The group it was submitted to; it may be tried again in one of fewer tokens
    pub(super) home: u16,
    /// Neighbours in the list it waits in
    pub(super) prev: u32,
    pub(super) next: u32,
    pub(super) place: Place,
    /// Its row in the table of costs
    pub(super) cost_row: u16,
    /// What it is counted with while it waits
    pub(super) cost_ns: u64,
    /// What it was charged on the token it was handed to
    pub(super) charged_ns: u64,
    pub(super) submitted_ns: u64,
    pub(super) cancelled: bool,
    pub(super) attempts: Attempts,
    /// The last call that was made for it: while it is with a session, the one that it is with
    pub(super) call: Option<(SessionId, Generation, CallId)>,
    /// Of the last attempt
    pub(super) started_ns: u64,
}

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In the list of this lane for this group
    Waiting { lane: u32, group: u16 },
    /// With a session
    Running { lane: u32, group: u16 },
}

impl Place {
    /// The lane and the group it waits in or came from.
    pub(super) fn origin(self) -> (u32, u16) {
        match self {
            Place::Waiting { lane, group } | Place::Running { lane, group } => (lane, group),
        }
    }
}

impl<P> Jobs<P> {
    pub(super) fn new() -> Self {
        Jobs { slots: Vec::new(), free: Vec::new(), by_address: FastMap::default(), next_seq: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Takes a job in; it waits nowhere yet.
    pub(super) fn insert(&mut self, job: Job<P>, place: Place, cost_row: u16, cost_ns: u64, now_ns: u64) -> u32 {
        let seq = self.next_seq;
        self.next_seq += 1;
        let address = (job.inbox, job.tag);
        let entry = Entry {
            job,
            seq,
            home: place.origin().1,
            prev: NIL,
            next: NIL,
            place,
            cost_row,
            cost_ns,
            charged_ns: 0,
            submitted_ns: now_ns,
            cancelled: false,
            attempts: Attempts::default(),
            call: None,
            started_ns: 0,
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(entry);
                slot
            }
            None => {
                self.slots.push(Some(entry));
                (self.slots.len() - 1) as u32
            }
        };
        self.by_address.insert(address, slot);
        slot
    }

    /// Lets a job go.
    pub(super) fn remove(&mut self, slot: u32) -> Entry<P> {
        let entry = self.slots[slot as usize].take().expect("a job is let go once");
        self.free.push(slot);
        let address = (entry.job.inbox, entry.job.tag);
        // A tag that was given twice names the later job.
        if self.by_address.get(&address) == Some(&slot) {
            self.by_address.remove(&address);
        }
        entry
    }

    /// The job that answers to this address.
    pub(super) fn find(&self, inbox: u16, tag: u64) -> Option<u32> {
        self.by_address.get(&(inbox, tag)).copied()
    }

    /// Whether the slot still holds this very job.
    pub(super) fn holds(&self, slot: u32, seq: u64) -> bool {
        self.slots[slot as usize].as_ref().is_some_and(|entry| entry.seq == seq)
    }
}

impl<P> std::ops::Index<u32> for Jobs<P> {
    type Output = Entry<P>;

    fn index(&self, slot: u32) -> &Entry<P> {
        self.slots[slot as usize].as_ref().expect("a slot that is named holds a job")
    }
}

impl<P> std::ops::IndexMut<u32> for Jobs<P> {
    fn index_mut(&mut self, slot: u32) -> &mut Entry<P> {
        self.slots[slot as usize].as_mut().expect("a slot that is named holds a job")
    }
}
