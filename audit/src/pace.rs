//! When the writer commits what is pending: each commit costs a write, an fdatasync and two changes of thread, so it
//! waits for company as long as nobody is the worse for it.

use std::time::{Duration, Instant};

/// Between the beginnings of two commits while nobody waits for either, at most: what a crash may leave without an outcome
/// is no more than was signed in so long a time. How long within these bounds is learnt. An answer that comes when its
/// record is not even on its way to the disk had better have found it there: then half as long. As long as none does, a
/// tenth longer each time. So a record goes to the disk while its signature is made where there is no queue, and waits
/// for company where there is a long one.
const LINGER_MAX: Duration = Duration::from_millis(25);
const LINGER_MIN: Duration = Duration::from_micros(50);

/// Somebody waits for it, and so many others may soon: so long for each of them, since each may bring company. With 64
/// under way that is half a millisecond, a few times what a commit takes; alone it is next to nothing.
const GATHER_PER_INTENT: Duration = Duration::from_micros(8);
const GATHER_MAX: Duration = Duration::from_millis(1);

/// So much is reason enough by itself: a few milliseconds' worth at any rate a disk likes.
const ENOUGH_BYTES: usize = 256 << 10;

/// See the module.
#[derive(Debug)]
pub(crate) struct Pace {
    /// When the last batch was taken to be written
    last: Option<Instant>,
    /// The last record that somebody waits for
    wanted_seq: u64,
    linger: Duration,
    sleep: Sleep,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { last: None, wanted_seq: 0, linger: LINGER_MIN, sleep: Sleep::Awake }
    }
}

/// What the writer is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sleep {
    Awake,
    /// For a record
    Idle,
    /// For this moment, while records are pending
    Until(Instant),
}

/// What is pending.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pending {
    /// Its first record's number
    pub(crate) first_seq: u64,
    /// None at all: 0
    pub(crate) records: u32,
    pub(crate) bytes: usize,
    /// Intents, pending or not, that have no outcome
    pub(crate) open_intents: u32,
    /// The journal is closed: what is left is written now
    pub(crate) closed: bool,
}

/// What the writer is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Write what is pending
    Commit,
    /// Wait so long, or until woken, for company or for what is bound to come
    Wait(Duration),
    /// There is nothing to write: wait until woken
    Rest,
}

impl Pace {
    /// What to do now. The writer waits as it is told, and says so by asking again.
    pub(crate) fn next(&mut self, pending: Pending, now: Instant) -> Next {
        let (due, then) = match self.due(pending) {
            Some(due) => (due, Next::Commit),
            None => (self.first_due(pending), Next::Rest),
        };
        if let Some(left) = due.and_then(|due| due.checked_duration_since(now)).filter(|left| !left.is_zero()) {
            self.sleep = Sleep::Until(now + left);
            return Next::Wait(left);
        }
        if then == Next::Rest {
            self.sleep = Sleep::Idle;
            return Next::Rest;
        }
        self.sleep = Sleep::Awake;
        self.last = Some(now);
        if self.wanted_seq < pending.first_seq {
            self.linger = (self.linger * 11 / 10).min(LINGER_MAX);
        }
        Next::Commit
    }

    /// Somebody waits for this record.
    pub(crate) fn hasten(&mut self, seq: u64, pending: Pending) {
        let first = self.wanted_seq < pending.first_seq;
        if first && seq >= pending.first_seq {
            self.linger = (self.linger / 2).max(LINGER_MIN);
        }
        self.wanted_seq = self.wanted_seq.max(seq);
    }

    /// Whether the writer has to be woken, since it sleeps and could do better. Only the first to ask is told so.
    pub(crate) fn wake(&mut self, pending: Pending) -> bool {
        let wake = match self.sleep {
            Sleep::Awake => false,
            Sleep::Idle => true,
            Sleep::Until(moment) => match self.due(pending) {
                Some(Some(due)) => due < moment,
                Some(None) => true,
                None => false,
            },
        };
        if wake {
            self.sleep = Sleep::Awake;
        }
        wake
    }

    /// When what comes first would be written, while nothing is pending and something is bound to come: so its coming
    /// wakes nobody.
    fn first_due(&self, pending: Pending) -> Option<Instant> {
        let bound_to_come = pending.open_intents > 0 && !pending.closed;
        self.last.filter(|_| bound_to_come).map(|last| last + self.linger)
    }

    /// When to commit: none when there is nothing to; at once where there is no moment.
    fn due(&self, pending: Pending) -> Option<Option<Instant>> {
        if pending.records == 0 {
            return None;
        }
        if pending.closed || pending.bytes >= ENOUGH_BYTES {
            return Some(None);
        }
        let apart = if self.wanted_seq >= pending.first_seq {
            GATHER_MAX.min(GATHER_PER_INTENT * pending.open_intents)
        } else {
            self.linger
        };
        Some(self.last.map(|last| last + apart))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: Pending = Pending { first_seq: 10, records: 3, bytes: 600, open_intents: 20, closed: false };

    fn after(last: Instant, us: u64) -> Instant {
        last + Duration::from_micros(us)
    }

    /// One that has just begun a commit, and has seen nobody wait for long.
    fn busy() -> (Pace, Instant) {
        let (mut pace, now) = (Pace::default(), Instant::now());
        assert_eq!(pace.next(SOME, now), Next::Commit, "the first waits for nothing");
        pace.linger = LINGER_MAX;
        (pace, now)
    }

    #[test]
    fn what_comes_after_a_while_is_written_at_once() {
        let (mut pace, last) = busy();
        assert_eq!(pace.next(Pending { records: 0, open_intents: 0, ..SOME }, after(last, 100)), Next::Rest);
        assert!(pace.wake(SOME), "it sleeps");
        assert!(!pace.wake(SOME), "once is enough");
        assert_eq!(pace.next(SOME, after(last, 25_000)), Next::Commit);
    }

    #[test]
    fn what_is_bound_to_come_wakes_nobody_before_its_time() {
        let (mut pace, last) = busy();
        let none = Pending { records: 0, ..SOME };
        assert_eq!(pace.next(none, after(last, 1_000)), Next::Wait(Duration::from_millis(24)));
        assert!(!pace.wake(SOME), "it has come, and has time");
        pace.hasten(11, SOME);
        assert!(pace.wake(SOME), "somebody waits for it");
        assert_eq!(pace.next(none, after(last, 25_000)), Next::Rest, "it was not bound to come so soon");
        let (mut pace, last) = busy();
        assert_eq!(pace.next(Pending { closed: true, ..none }, after(last, 1_000)), Next::Rest);
    }

    #[test]
    fn what_nobody_waits_for_waits_for_company() {
        let (mut pace, last) = busy();
        assert_eq!(pace.next(SOME, after(last, 1_000)), Next::Wait(Duration::from_millis(24)));
        assert!(!pace.wake(Pending { records: 4, ..SOME }), "one more record is no reason");
        assert!(pace.wake(Pending { bytes: ENOUGH_BYTES, ..SOME }), "so many are");
    }

    #[test]
    fn what_somebody_waits_for_waits_only_for_others_that_are_under_way() {
        let (mut pace, last) = busy();
        pace.hasten(9, SOME);
        assert_eq!(
            pace.next(SOME, after(last, 40)),
            Next::Wait(Duration::from_micros(24_960)),
            "that is on disk already"
        );
        pace.hasten(11, SOME);
        assert!(pace.wake(SOME));
        assert_eq!(pace.next(SOME, after(last, 40)), Next::Wait(Duration::from_micros(120)));
        assert_eq!(pace.next(Pending { open_intents: 1, ..SOME }, after(last, 40)), Next::Commit, "he is alone");
        let (mut pace, last) = busy();
        pace.hasten(11, SOME);
        let many = Pending { open_intents: 10_000, ..SOME };
        assert_eq!(pace.next(many, after(last, 0)), Next::Wait(GATHER_MAX), "the patience with many has an end");
    }

    #[test]
    fn how_long_it_may_wait_is_learnt_from_answers_that_come_too_early() {
        let mut pace = Pace::default();
        let mut now = Instant::now();
        let mut batch = SOME;
        // Signatures that stand in a queue: nobody ever waits for their records.
        for _ in 0..1_000 {
            now += LINGER_MAX;
            batch.first_seq += 10;
            assert_eq!(pace.next(batch, now), Next::Commit);
        }
        assert_eq!(pace.linger, LINGER_MAX);
        // None stands in a queue any more: each answer finds its record here.
        for _ in 0..20 {
            now += LINGER_MAX;
            batch.first_seq += 10;
            pace.hasten(batch.first_seq, batch);
            pace.hasten(batch.first_seq + 1, batch);
            assert_eq!(pace.next(batch, now), Next::Commit);
        }
        assert_eq!(pace.linger, LINGER_MIN);
        // One whose record is under way already has not come too early.
        pace.linger = LINGER_MAX;
        pace.hasten(batch.first_seq + 2, Pending { first_seq: batch.first_seq + 10, ..SOME });
        assert_eq!(pace.linger, LINGER_MAX);
    }

    #[test]
    fn at_the_end_nothing_waits() {
        let (mut pace, last) = busy();
        assert_ne!(pace.next(SOME, last), Next::Commit);
        let closed = Pending { closed: true, ..SOME };
        assert!(pace.wake(closed));
        assert_eq!(pace.next(closed, last), Next::Commit);
    }
}
