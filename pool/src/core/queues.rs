//! Who waits, and whose turn it is.
//!
//! Jobs wait by the set of tokens that can serve them (a *group*), so nothing has to move when a token dies. Among
//! the classes the more urgent goes first, but each of the others gets one dispatch in N. Inside a class, tenants
//! share each token by start-time fair queueing (Goyal, Vin, Cheng 1996): every tenant has a clock per token that
//! advances by the cost of what it was given there, and the tenant whose clock is furthest behind is next. A tenant
//! that was away starts at the token's present, it saves nothing up. Inside a tenant, who came first goes first.
//!
//! The clocks are per token, since it is a token that is shared: on one common clock, a tenant on a slow token would
//! fall behind without end and then hold that token against everybody who comes later.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::{
    hash::FastMap,
    jobs::{Entry, Jobs, NIL, Place},
};
use crate::{Class, TokenSet};

const CLASSES: usize = Class::ALL.len();

/// All that waits.
#[derive(Debug)]
pub(super) struct Queues {
    groups: Vec<Group>,
    /// Three a tenant, by class
    lanes: Vec<Lane>,
    lane_of_tenant: FastMap<u32, u32>,
    turns: Vec<Turns>,
    /// While a class waits, one dispatch in so many is of it
    one_in: [u32; CLASSES],
    waiting: u32,
    next_stamp: u64,
}

/// Jobs that the same set of tokens can serve.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) tokens: TokenSet,
    pub(super) depth: [u32; CLASSES],
    /// Expected token time of what waits
    cost_ns: [u64; CLASSES],
    /// Tenants with jobs waiting
    tenants: [u32; CLASSES],
}

/// A tenant's jobs of one class.
#[derive(Debug)]
struct Lane {
    lists: Vec<List>,
    /// By token
    clocks: Vec<LaneClock>,
    waiting: u32,
}

/// A lane's jobs in one group, in the order of arrival.
#[derive(Debug)]
struct List {
    group: u16,
    head: u32,
    tail: u32,
    len: u32,
    cost_ns: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct LaneClock {
    /// Where what it was given so far ends
    finish_ns: u64,
    /// Whether it stands in the token's heap
    listed: bool,
}

/// Whose turn it is on one token.
#[derive(Debug, Default)]
struct Turns {
    by_class: [ClassTurns; CLASSES],
}

#[derive(Debug, Default)]
struct ClassTurns {
    /// Lanes by their clock, then by when they came to stand here. A lane may have nothing left for this token
    /// (another one took it): it is struck off when it comes to the front.
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
    /// The token's present: the clock of the lane that was served last
    now_ns: u64,
    /// Dispatches of other classes since the last of this one, while it waited
    passed_over: u32,
}

/// The job whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) slot: u32,
    class: usize,
}

impl Queues {
    pub(super) fn new(tokens: usize, signature_one_in: u32, bulk_one_in: u32) -> Self {
        Queues {
            groups: Vec::new(),
            lanes: Vec::new(),
            lane_of_tenant: FastMap::default(),
            turns: (0..tokens).map(|_| Turns::default()).collect(),
            one_in: [1, signature_one_in.max(1), bulk_one_in.max(1)],
            waiting: 0,
            next_stamp: 0,
        }
    }

    /// Jobs that wait.
    pub(super) fn len(&self) -> u32 {
        self.waiting
    }

    pub(super) fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The group of a set of tokens. Sets are few, however many keys and routes there are.
    pub(super) fn group(&mut self, tokens: TokenSet) -> u16 {
        if let Some(index) = self.groups.iter().position(|group| group.tokens == tokens) {
            return index as u16;
        }
        self.groups.push(Group { tokens, depth: [0; CLASSES], cost_ns: [0; CLASSES], tenants: [0; CLASSES] });
        (self.groups.len() - 1) as u16
    }

    /// The lane of a tenant and class. Tenants are those of the configuration.
    pub(super) fn lane(&mut self, tenant: u32, class: Class) -> u32 {
        let lanes = &mut self.lanes;
        let tokens = self.turns.len();
        let first = *self.lane_of_tenant.entry(tenant).or_insert_with(|| {
            let first = lanes.len() as u32;
            lanes.extend((0..CLASSES).map(|_| Lane {
                lists: Vec::new(),
                clocks: vec![LaneClock::default(); tokens],
                waiting: 0,
            }));
            first
        });
        first + class.index() as u32
    }

    /// Jobs that wait of the tenant this lane is one of, all classes together.
    pub(super) fn waiting_of_tenant(&self, lane: u32) -> u32 {
        let first = lane as usize / CLASSES * CLASSES;
        self.lanes[first..first + CLASSES].iter().map(|lane| lane.waiting).sum()
    }

    /// Token time that is due before a job which joins this lane and group now: all that waits in its class and the
    /// more urgent ones; but of its own class, if that is less, what fair sharing lets pass before it.
    pub(super) fn ahead_ns(&self, lane: u32, group: u16) -> u64 {
        let class = lane as usize % CLASSES;
        let own_ns = self.lanes[lane as usize].lists.iter().find(|list| list.group == group).map_or(0, |l| l.cost_ns);
        let group = &self.groups[usize::from(group)];
        let urgent_ns: u64 = group.cost_ns[..class].iter().sum();
        let fair_ns = own_ns.saturating_mul(u64::from(group.tenants[class]));
        urgent_ns.saturating_add(group.cost_ns[class].min(fair_ns))
    }

    /// Token time of all that waits in the group, in this class and the more urgent ones.
    pub(super) fn backlog_ns(&self, group: u16, class: Class) -> u64 {
        self.groups[usize::from(group)].cost_ns[..=class.index()].iter().sum()
    }

    /// Puts a job where it says it waits, by its place in the order of arrival: a new one at the end, one that comes
    /// back at its old place.
    pub(super) fn push<P>(&mut self, jobs: &mut Jobs<P>, slot: u32) {
        let Entry { seq, cost_ns, place, .. } = jobs[slot];
        let (lane_index, group_index) = place.origin();
        jobs[slot].place = Place::Waiting { lane: lane_index, group: group_index };
        let class = lane_index as usize % CLASSES;
        let group = &mut self.groups[usize::from(group_index)];
        let lane = &mut self.lanes[lane_index as usize];

        let list = match lane.lists.iter_mut().position(|list| list.group == group_index) {
            Some(found) => &mut lane.lists[found],
            None => {
                lane.lists.push(List { group: group_index, head: NIL, tail: NIL, len: 0, cost_ns: 0 });
                lane.lists.last_mut().expect("one was just pushed")
            }
        };
        let mut before = NIL;
        if list.tail != NIL && jobs[list.tail].seq > seq {
            before = list.head;
            while jobs[before].seq < seq {
                before = jobs[before].next;
            }
        }
        let after = if before == NIL { list.tail } else { jobs[before].prev };
        jobs[slot].prev = after;
        jobs[slot].next = before;
        if after == NIL {
            list.head = slot
        } else {
            jobs[after].next = slot
        }
        if before == NIL {
            list.tail = slot
        } else {
            jobs[before].prev = slot
        }

        if list.len == 0 {
            group.tenants[class] += 1;
        }
        list.len += 1;
        list.cost_ns += cost_ns;
        lane.waiting += 1;
        group.depth[class] += 1;
        group.cost_ns[class] += cost_ns;
        self.waiting += 1;

        for token in group.tokens.iter() {
            let clock = &mut lane.clocks[usize::from(token)];
            let turns = &mut self.turns[usize::from(token)].by_class[class];
            if !clock.listed {
                clock.listed = true;
                turns.heap.push(Reverse((turns.now_ns.max(clock.finish_ns), self.next_stamp, lane_index)));
                self.next_stamp += 1;
            }
        }
    }

    /// Takes a waiting job out, wherever it stands.
    pub(super) fn remove<P>(&mut self, jobs: &mut Jobs<P>, slot: u32) {
        let Entry { prev, next, cost_ns, place, .. } = jobs[slot];
        let Place::Waiting { lane: lane_index, group: group_index } = place else {
            unreachable!("only a job that waits is taken out of a queue");
        };
        let class = lane_index as usize % CLASSES;
        let group = &mut self.groups[usize::from(group_index)];
        let lane = &mut self.lanes[lane_index as usize];
        let list = lane.lists.iter_mut().find(|list| list.group == group_index).expect("a job waits in a list");
        if prev == NIL {
            list.head = next
        } else {
            jobs[prev].next = next
        }
        if next == NIL {
            list.tail = prev
        } else {
            jobs[next].prev = prev
        }
        list.len -= 1;
        list.cost_ns -= cost_ns;
        if list.len == 0 {
            group.tenants[class] -= 1;
        }
        lane.waiting -= 1;
        group.depth[class] -= 1;
        group.cost_ns[class] -= cost_ns;
        self.waiting -= 1;
        let entry = &mut jobs[slot];
        entry.prev = NIL;
        entry.next = NIL;
        entry.place = Place::Running { lane: lane_index, group: group_index };
    }

    /// How many lanes there are.
    pub(super) fn lanes(&self) -> u32 {
        self.lanes.len() as u32
    }

    /// The first job of a lane in a group.
    pub(super) fn first_of(&self, lane: u32, group: u16) -> Option<u32> {
        let list = self.lanes[lane as usize].lists.iter().find(|list| list.group == group)?;
        (list.len > 0).then_some(list.head)
    }

    /// The job whose turn it is on this token.
    pub(super) fn peek<P>(&mut self, jobs: &Jobs<P>, token: u16) -> Option<Next> {
        let mut heads = [None; CLASSES];
        for (class, head) in heads.iter_mut().enumerate() {
            *head = self.head(jobs, token, class);
        }
        let turns = &self.turns[usize::from(token)];
        let starved = |&class: &usize| turns.by_class[class].passed_over + 1 >= self.one_in[class];
        // The least urgent is asked first whether it has been passed over too often: its share is the smallest.
        let class = (1..CLASSES)
            .rev()
            .filter(|&class| heads[class].is_some())
            .find(starved)
            .or_else(|| heads.iter().position(Option::is_some))?;
        heads[class].map(|slot| Next { slot, class })
    }

    /// Takes the job that [`Queues::peek`] named for this token, and charges its tenant's clock there.
    pub(super) fn take<P>(&mut self, jobs: &mut Jobs<P>, token: u16, next: Next, cost_ns: u64) {
        let Next { slot, class } = next;
        self.remove(jobs, slot);
        let (lane_index, _) = jobs[slot].place.origin();

        let stays = self.oldest(jobs, lane_index, token).is_some();
        let lane = &mut self.lanes[lane_index as usize];
        let turns = &mut self.turns[usize::from(token)].by_class;
        let mut front = turns[class].heap.peek_mut().expect("the job's lane stands in front");
        let Reverse((start_ns, stamp, front_lane)) = *front;
        assert_eq!(front_lane, lane_index, "the job's lane stands in front");
        let clock = &mut lane.clocks[usize::from(token)];
        clock.finish_ns = start_ns.saturating_add(cost_ns);
        if stays {
            *front = Reverse((clock.finish_ns, stamp, lane_index));
            drop(front);
        } else {
            clock.listed = false;
            std::collections::binary_heap::PeekMut::pop(front);
        }
        turns[class].now_ns = turns[class].now_ns.max(start_ns);
        turns[class].passed_over = 0;
        for (other, turns) in turns.iter_mut().enumerate() {
            if other != class {
                turns.passed_over = if turns.heap.is_empty() { 0 } else { turns.passed_over.saturating_add(1) };
            }
        }
    }

    /// The job of a class whose turn it is, with its lane in front of the heap.
    fn head<P>(&mut self, jobs: &Jobs<P>, token: u16, class: usize) -> Option<u32> {
        loop {
            let front = self.turns[usize::from(token)].by_class[class].heap.peek();
            let &Reverse((_, _, lane)) = front?;
            if let Some(slot) = self.oldest(jobs, lane, token) {
                return Some(slot);
            }
            self.turns[usize::from(token)].by_class[class].heap.pop();
            self.lanes[lane as usize].clocks[usize::from(token)].listed = false;
        }
    }

    /// The lane's oldest job that this token can serve.
    fn oldest<P>(&self, jobs: &Jobs<P>, lane: u32, token: u16) -> Option<u32> {
        let lists = self.lanes[lane as usize].lists.iter();
        lists
            .filter(|list| list.len > 0 && self.groups[usize::from(list.group)].tokens.contains(token))
            .map(|list| list.head)
            .min_by_key(|&slot| jobs[slot].seq)
    }
}
