//! Who waits, and whose turn it is.
//!
//! Jobs wait by the set of tokens that can serve them (a *group*), so nothing has to move when a token dies. Among
//! the classes the more urgent goes first, but each of the others gets one dispatch in N. Inside a class, tenants
//! share each token by start-time fair queueing (Goyal, Vin, Cheng 1996): every tenant has a clock per token that
//! advances by the cost of what it was given there, and the tenant whose clock is furthest behind is next. A tenant
//! that was away starts at the token's present, it saves nothing up. Inside a tenant, who came first goes first; a job
//! that is tried again keeps its place there, and each attempt is paid for, since each takes a token's time. What was
//! handed to a session and never begun is given back.
//!
//! The clocks are per token, since it is a token that is shared: on one common clock, a tenant on a slow token would
//! fall behind without end and then hold that token against everybody who comes later. The order of tenants is kept per
//! token and group, so that a token can pass a group over that better ones are to serve (see `placement`) and still
//! give the others their turn.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BinaryHeap, binary_heap::PeekMut},
};

use super::{
    hash::FastMap,
    jobs::{Entry, Jobs, NIL, Place},
    pace::Pace,
};
use crate::{Class, TokenSet};

const CLASSES: usize = Class::ALL.len();
/// So long after it served one tenant and then another, a token counts as shared among them.
const SHARED_FOR_NS: u64 = 10_000_000;

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
    /// Names the batch that is being made up: what was passed over is passed over for this one
    round: u64,
}

/// Jobs that the same set of tokens can serve.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) tokens: TokenSet,
    /// Of self-tests: such jobs have groups of their own, since they go where others do not
    pub(super) probe: bool,
    pub(super) depth: [u32; CLASSES],
    /// How fast it is served
    pub(super) pace: Pace,
    /// Expected token time of what waits
    cost_ns: [u64; CLASSES],
    /// Tenants with jobs waiting
    tenants: [u32; CLASSES],
    longest: [Longest; CLASSES],
    /// The order of its lanes, by token
    orders: Vec<Order>,
}

/// Whose list is the longest.
#[derive(Clone, Copy, Debug, Default)]
struct Longest {
    lane: u32,
    /// No other lane has more: while the lane has as many, it need not be looked for
    others_max: u32,
}

/// The order of a group's lanes on one token.
#[derive(Debug, Default)]
struct Order {
    /// Lanes by their clock, then by when they came to stand here. A lane may have nothing left in the group (another
    /// token took it), or its clock may have moved on (by a job of another group): that is mended when it comes to the
    /// front.
    heaps: [BinaryHeap<Reverse<(u64, u64, u32)>>; CLASSES],
    /// No clock counts for less here: the token's present when the group was last left aside, be it empty or passed
    /// over. So nobody saves up what others were given meanwhile.
    floor_ns: [u64; CLASSES],
    /// The batch it was last passed over for
    passed_over: u64,
}

/// A tenant's jobs of one class.
#[derive(Debug)]
struct Lane {
    lists: Vec<List>,
    /// By token
    clocks: Vec<LaneClock>,
}

/// A lane's jobs in one group, in the order of arrival.
#[derive(Debug)]
struct List {
    group: u16,
    head: u32,
    tail: u32,
    len: u32,
    cost_ns: u64,
    /// The tokens in whose order it stands
    listed: TokenSet,
}

#[derive(Clone, Copy, Debug, Default)]
struct LaneClock {
    /// Where what it was given so far ends
    finish_ns: u64,
    /// Breaks ties: when it came to stand on the token
    stamp: u64,
    /// In how many groups' orders it stands
    listed: u16,
    /// Paid for jobs that were not begun: so much of what it is given next is free
    credit_ns: u64,
}

/// Whose turn it is on one token.
#[derive(Debug, Default)]
struct Turns {
    /// The groups it is in
    groups: Vec<u16>,
    /// By class, its present: the clock of the lane that was served last
    now_ns: [u64; CLASSES],
    /// Dispatches of other classes since the last of this one, while it waited
    passed_over: [u32; CLASSES],
    /// The lane that was served last, and when it was another than the one before
    last_lane: u32,
    changed_ns: Option<u64>,
}

/// The job whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) slot: u32,
    pub(super) group: u16,
    class: usize,
    /// The classes of which something waits
    waiting: [bool; CLASSES],
}

/// A lane in front of its order: its clock and stamp, and its oldest job.
#[derive(Clone, Copy)]
struct Front {
    start_ns: u64,
    stamp: u64,
    slot: u32,
    group: u16,
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
            round: 0,
        }
    }

    /// Jobs that wait.
    pub(super) fn len(&self) -> u32 {
        self.waiting
    }

    pub(super) fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The pace of a group.
    pub(super) fn pace(&mut self, group: u16) -> &mut Pace {
        &mut self.groups[usize::from(group)].pace
    }

    /// The group of a set of tokens. Sets are few, however many keys and routes there are.
    pub(super) fn group(&mut self, tokens: TokenSet, probe: bool) -> u16 {
        if let Some(index) = self.groups.iter().position(|group| group.tokens == tokens && group.probe == probe) {
            return index as u16;
        }
        let group = self.groups.len() as u16;
        self.groups.push(Group {
            tokens,
            probe,
            depth: [0; CLASSES],
            pace: Pace::default(),
            cost_ns: [0; CLASSES],
            tenants: [0; CLASSES],
            longest: [Longest::default(); CLASSES],
            orders: self.turns.iter().map(|_| Order::default()).collect(),
        });
        for token in tokens.iter() {
            self.turns[usize::from(token)].groups.push(group);
        }
        group
    }

    /// The lane of a tenant and class. Tenants are those of the configuration.
    pub(super) fn lane(&mut self, tenant: u32, class: Class) -> u32 {
        let lanes = &mut self.lanes;
        let tokens = self.turns.len();
        let first = *self.lane_of_tenant.entry(tenant).or_insert_with(|| {
            let first = lanes.len() as u32;
            lanes.extend((0..CLASSES).map(|_| Lane { lists: Vec::new(), clocks: vec![LaneClock::default(); tokens] }));
            first
        });
        first + class.index() as u32
    }

    /// Jobs of a lane that wait in a group.
    pub(super) fn waiting_of_lane(&self, lane: u32, group: u16) -> u32 {
        self.lanes[lane as usize].list(group).map_or(0, |list| list.len)
    }

    /// The newest job of the lane with the most waiting in the group, if that is more than the given lane would have
    /// there with one more.
    pub(super) fn newest_of_longest(&mut self, lane: u32, group: u16) -> Option<u32> {
        let class = lane as usize % CLASSES;
        let own = self.waiting_of_lane(lane, group) + 1;
        let Longest { lane: longest, others_max } = self.groups[usize::from(group)].longest[class];
        let many = self.waiting_of_lane(longest, group);
        if own >= many.max(others_max) {
            return None;
        }
        let (longest, many) = if many >= others_max { (longest, many) } else { self.find_longest(group, class) };
        if own >= many {
            return None;
        }
        self.lanes[longest as usize].list(group).map(|list| list.tail)
    }

    fn find_longest(&mut self, group: u16, class: usize) -> (u32, u32) {
        let (mut longest, mut many, mut others_max) = (class as u32, 0, 0);
        for lane in (class..self.lanes.len()).step_by(CLASSES) {
            let len = self.waiting_of_lane(lane as u32, group);
            if len > many {
                others_max = many;
                (longest, many) = (lane as u32, len);
            } else {
                others_max = others_max.max(len);
            }
        }
        self.groups[usize::from(group)].longest[class] = Longest { lane: longest, others_max };
        (longest, many)
    }

    /// Token time that is due before a job which joins this lane and group now: all that waits in its class and the
    /// more urgent ones; but of its own class, if that is less, what fair sharing lets pass before it.
    pub(super) fn ahead_ns(&self, lane: u32, group: u16) -> u64 {
        let class = lane as usize % CLASSES;
        let own_ns = self.lanes[lane as usize].list(group).map_or(0, |list| list.cost_ns);
        let group = &self.groups[usize::from(group)];
        let urgent_ns: u64 = group.cost_ns[..class].iter().sum();
        let fair_ns = own_ns.saturating_mul(u64::from(group.tenants[class]));
        urgent_ns.saturating_add(group.cost_ns[class].min(fair_ns))
    }

    /// Token time of all that waits in the group, in this class and the more urgent ones.
    pub(super) fn backlog_ns(&self, group: u16, class: Class) -> u64 {
        self.groups[usize::from(group)].cost_ns[..=class.index()].iter().sum()
    }

    /// Token time of all that waits for one of these tokens, and perhaps for others too.
    pub(super) fn backlog_for_ns(&self, tokens: TokenSet) -> u64 {
        let concerned = self.groups.iter().filter(|group| !group.tokens.intersection(tokens).is_empty());
        concerned.map(|group| group.cost_ns.iter().sum::<u64>()).sum()
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
                let listed = TokenSet::EMPTY;
                lane.lists.push(List { group: group_index, head: NIL, tail: NIL, len: 0, cost_ns: 0, listed });
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
        let longest = &mut group.longest[class];
        if longest.lane != lane_index {
            longest.others_max = longest.others_max.max(list.len);
        }
        let was_empty = group.depth[class] == 0;
        group.depth[class] += 1;
        group.cost_ns[class] += cost_ns;
        self.waiting += 1;

        for token in group.tokens.iter() {
            let order = &mut group.orders[usize::from(token)];
            let now_ns = self.turns[usize::from(token)].now_ns[class];
            if was_empty {
                order.floor_ns[class] = now_ns;
            }
            if list.listed.contains(token) {
                continue;
            }
            list.listed = list.listed.union(TokenSet::only(token));
            let clock = &mut lane.clocks[usize::from(token)];
            if clock.listed == 0 {
                clock.stamp = self.next_stamp;
                self.next_stamp += 1;
                if clock.finish_ns < now_ns {
                    *clock = LaneClock { finish_ns: now_ns, credit_ns: 0, ..*clock };
                }
            }
            clock.listed += 1;
            order.heaps[class].push(Reverse((clock.finish_ns, clock.stamp, lane_index)));
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
        let list = self.lanes[lane as usize].list(group)?;
        (list.len > 0).then_some(list.head)
    }

    /// Begins to make up a batch: nothing is passed over yet.
    pub(super) fn begin_round(&mut self) {
        self.round += 1;
    }

    /// Passes a group over on this token, for the batch that is being made up.
    pub(super) fn pass_over(&mut self, group: u16, token: u16) {
        self.groups[usize::from(group)].orders[usize::from(token)].passed_over = self.round;
    }

    /// The job whose turn it is on this token, of the groups that were not passed over.
    pub(super) fn peek<P>(&mut self, jobs: &Jobs<P>, token: u16) -> Option<Next> {
        let turns = &self.turns[usize::from(token)];
        let mut fronts: [Option<Front>; CLASSES] = [None; CLASSES];
        for &index in &turns.groups {
            let group = &mut self.groups[usize::from(index)];
            let order = &mut group.orders[usize::from(token)];
            let left_aside = order.passed_over != 0;
            if left_aside {
                order.floor_ns = turns.now_ns;
                if order.passed_over == self.round {
                    continue;
                }
                order.passed_over = 0;
            }
            for (class, front) in fronts.iter_mut().enumerate() {
                if group.depth[class] == 0 {
                    continue;
                }
                let Some(found) = order.front(&mut self.lanes, token, index, class) else { continue };
                if front.is_none_or(|front| found.is_before(&front, jobs)) {
                    *front = Some(found);
                }
            }
        }
        let starved = |&class: &usize| turns.passed_over[class] + 1 >= self.one_in[class];
        // The least urgent is asked first whether it has been passed over too often: its share is the smallest.
        let class = (1..CLASSES)
            .rev()
            .filter(|&class| fronts[class].is_some())
            .find(starved)
            .or_else(|| fronts.iter().position(Option::is_some))?;
        let waiting = fronts.map(|front| front.is_some());
        fronts[class].map(|Front { slot, group, .. }| Next { slot, group, class, waiting })
    }

    /// Takes the job that [`Queues::peek`] named for this token, and charges its tenant's clock there.
    pub(super) fn take<P>(&mut self, jobs: &mut Jobs<P>, token: u16, next: Next, cost_ns: u64, now_ns: u64) {
        let Next { slot, group, class, waiting } = next;
        self.remove(jobs, slot);
        jobs[slot].charged_ns = cost_ns;
        self.groups[usize::from(group)].pace.taken(jobs[slot].cost_ns);
        let (lane_index, _) = jobs[slot].place.origin();
        let lane = &mut self.lanes[lane_index as usize];
        let clock = &mut lane.clocks[usize::from(token)];
        let list = lane.lists.iter_mut().find(|list| list.group == group).expect("a job waits in a list");
        let order = &mut self.groups[usize::from(group)].orders[usize::from(token)];
        let mut front = order.heaps[class].peek_mut().expect("the job's lane stands in front");
        let Reverse((start_ns, stamp, front_lane)) = *front;
        assert_eq!(front_lane, lane_index, "the job's lane stands in front");

        let free_ns = cost_ns.min(clock.credit_ns);
        clock.credit_ns -= free_ns;
        clock.finish_ns = start_ns.saturating_add(cost_ns - free_ns);
        if list.len > 0 {
            *front = Reverse((clock.finish_ns, stamp, lane_index));
            drop(front);
        } else {
            clock.listed -= 1;
            list.listed = list.listed.without(TokenSet::only(token));
            PeekMut::pop(front);
        }
        let turns = &mut self.turns[usize::from(token)];
        turns.now_ns[class] = turns.now_ns[class].max(start_ns);
        if turns.last_lane != lane_index {
            turns.last_lane = lane_index;
            turns.changed_ns = Some(now_ns);
        }
        for (other, passed_over) in turns.passed_over.iter_mut().enumerate() {
            *passed_over = if other == class || !waiting[other] { 0 } else { passed_over.saturating_add(1) };
        }
    }

    /// Whether the token served several tenants or classes just now.
    pub(super) fn is_shared(&self, token: u16, now_ns: u64) -> bool {
        let changed_ns = self.turns[usize::from(token)].changed_ns;
        changed_ns.is_some_and(|changed_ns| now_ns.saturating_sub(changed_ns) < SHARED_FOR_NS)
    }

    /// Gives back what a job was charged on a token that never began it.
    pub(super) fn refund<P>(&mut self, jobs: &Jobs<P>, slot: u32, token: u16) {
        let Entry { place, charged_ns: cost_ns, .. } = jobs[slot];
        let (lane, _) = place.origin();
        let clock = &mut self.lanes[lane as usize].clocks[usize::from(token)];
        clock.credit_ns = clock.credit_ns.saturating_add(cost_ns);
    }
}

impl Lane {
    fn list(&self, group: u16) -> Option<&List> {
        self.lists.iter().find(|list| list.group == group)
    }
}

impl Order {
    /// The lane of a class whose turn it is, brought to the front of the heap.
    fn front(&mut self, lanes: &mut [Lane], token: u16, group: u16, class: usize) -> Option<Front> {
        let heap = &mut self.heaps[class];
        loop {
            let &Reverse((known_ns, stamp, lane_index)) = heap.peek()?;
            let lane = &mut lanes[lane_index as usize];
            let clock = &mut lane.clocks[usize::from(token)];
            let list = lane.lists.iter_mut().find(|list| list.group == group).expect("a lane stands for its list");
            if list.len == 0 {
                clock.listed -= 1;
                list.listed = list.listed.without(TokenSet::only(token));
                heap.pop();
                continue;
            }
            let start_ns = clock.finish_ns.max(self.floor_ns[class]);
            if start_ns == known_ns {
                return Some(Front { start_ns, stamp, slot: list.head, group });
            }
            *heap.peek_mut().expect("it was just looked at") = Reverse((start_ns, stamp, lane_index));
        }
    }
}

impl Front {
    /// Whether it is served first. One lane may stand in front in two groups: its older job goes first.
    fn is_before<P>(&self, other: &Front, jobs: &Jobs<P>) -> bool {
        match (self.start_ns, self.stamp).cmp(&(other.start_ns, other.stamp)) {
            Ordering::Equal => jobs[self.slot].seq < jobs[other.slot].seq,
            order => order == Ordering::Less,
        }
    }
}
