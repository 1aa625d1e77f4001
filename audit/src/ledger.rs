//! The books behind the journal's mutex: what waits for the disk, what room there is, and who may still have some.
//! No thread, no file system: only sums.
//!
//! A record is charged as if it stood in a batch alone, so what is really written never takes more than was charged.
//! Room is what can be written for certain: the rest of the current segment, or, when the next one is allocated, all
//! of that.

use std::{collections::VecDeque, fs::File, time::Instant};

use crate::{
    codec,
    format::{self, BATCH_HEADER_LEN, FRAME_HEADER_LEN, align},
    journal::{Refusal, Stats},
    open_intents::Row,
    pace::{Next, Pace, Pending},
    record::{Gap, Record},
};

/// Kept free for the outcome of each open intent: an outcome with two texts of full length and all attempts fits.
pub(crate) const OUTCOME_RESERVE: u64 = 1536;
/// Kept free for start, stop, reload and the like.
pub(crate) const CONTROL_RESERVE: u64 = 32 << 10;
/// What the longest record is charged.
const CHARGE_MAX: u64 = 4096;
/// What must be free besides for an intent to be taken.
pub(crate) const RESERVE_BESIDE_OUTCOMES: u64 = CONTROL_RESERVE + CHARGE_MAX;
/// Longest beginning of a body: an array's head and two integers.
const PREFIX_MAX: usize = 19;

/// Records on their way.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) bytes: Vec<u8>,
    pub(crate) records: u32,
    pub(crate) first_seq: u64,
    /// The first intent whose outcome does not stand before this batch; its first record when there is none
    pub(crate) open_from: u64,
    charge: u64,
}

/// Where a batch goes.
#[derive(Debug)]
pub(crate) enum Target {
    /// Into the current segment
    Current,
    /// Into this one, which becomes the current
    Next(File),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Ledger {
    pending: Batch,
    next_seq: u64,
    open_intents: Row,
    /// Bytes left in the current segment
    current_left: u64,
    /// Charged to the batch that is being written
    in_flight: u64,
    /// When it was taken
    in_flight_since: Option<Instant>,
    spare: Option<File>,
    /// The segment taken last has not got its name yet
    naming: bool,
    /// The next segment could not be allocated
    no_room: bool,
    look_now: bool,
    /// To be recorded before anybody's intent
    owed: VecDeque<Record<'static>>,
    tally: Option<Tally>,
    refused: u64,
    commits: u64,
    pace: Pace,
    ended: Option<Refusal>,
    segment_payload: u64,
    pending_bytes_max: usize,
    open_intents_max: u32,
}

/// Refused records that the journal does not speak of yet.
#[derive(Clone, Copy, Debug)]
struct Tally {
    from_ns: u64,
    to_ns: u64,
    records: u64,
    why: &'static str,
}

/// How a record is treated when room is scarce.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rank {
    /// It opens something whose outcome will need room
    Intent,
    /// Anybody can cause it, as often as he likes
    Ordinary,
    /// The daemon's own, few
    Control,
    /// Its room is reserved
    Outcome,
}

impl Ledger {
    pub(crate) fn new(config: &crate::Config, next_seq: u64, current_left: u64, spare: Option<File>) -> Ledger {
        let mut pending = Batch { first_seq: next_seq, open_from: next_seq, ..Batch::default() };
        format::begin_batch(&mut pending.bytes);
        Ledger {
            pending,
            next_seq,
            open_intents: Row::with_room_for(config.open_intents_max),
            current_left,
            in_flight: 0,
            in_flight_since: None,
            spare,
            naming: false,
            no_room: false,
            look_now: false,
            owed: VecDeque::new(),
            tally: None,
            refused: 0,
            commits: 0,
            pace: Pace::default(),
            ended: None,
            segment_payload: config.segment_bytes - format::HEADER_LEN,
            pending_bytes_max: config.pending_bytes_max,
            open_intents_max: config.open_intents_max,
        }
    }

    /// Records that must come before anybody's intent: what the journal has to say of its own past.
    pub(crate) fn owe(&mut self, records: impl IntoIterator<Item = Record<'static>>) {
        self.owed.extend(records);
        self.pending.open_from = self.open_from();
    }

    /// Takes a record, whose kind and fields are `rest`.
    pub(crate) fn append(&mut self, record: &Record<'_>, rest: &[u8], time_ns: u64) -> Result<u64, Refusal> {
        if let Some(ended) = self.ended {
            return Err(ended);
        }
        let rank = self.rank(record);
        if let Err((refusal, why)) = self.admit(rank, charge(rest)) {
            self.count_refused(time_ns, why);
            return Err(refusal);
        }
        match record {
            Record::Intent(_) => self.open_intents.open(self.next_seq),
            Record::Outcome(outcome) => self.open_intents.close(outcome.intent),
            _ => {}
        }
        Ok(self.push(rest, time_ns))
    }

    /// Appends what is owed, as far as there is room: the journal's own past first, then how much was refused.
    pub(crate) fn settle_debts(&mut self, time_ns: u64) {
        if self.ended == Some(Refusal::Failed) {
            return;
        }
        let mut rest = Vec::new();
        while let Some(record) = self.owed.front() {
            rest.clear();
            codec::put_rest(record, &mut rest).expect("it holds no digest");
            if self.unspoken() < charge(&rest) {
                return;
            }
            self.owed.pop_front();
            self.push(&rest, time_ns);
        }
        if let Some(Tally { from_ns, to_ns, records, why }) = self.tally {
            rest.clear();
            let gap = Record::Gap(Gap { from_ns, to_ns, records, why: why.into() });
            codec::put_rest(&gap, &mut rest).expect("it holds no digest");
            // Not from the reserves, since it comes again and again while others are refused; but once at the end.
            let reserve = if self.ended.is_some() { 0 } else { CONTROL_RESERVE };
            let resumed = self.ended.is_some() || !self.is_full();
            if resumed && self.unreserved() >= charge(&rest) + reserve {
                self.tally = None;
                self.push(&rest, time_ns);
            }
        }
    }

    /// Swaps the pending batch for an empty one, whose allocation is used again, and says where it goes. None when
    /// there is nothing to write.
    pub(crate) fn take(&mut self, batch: &mut Batch) -> Option<Target> {
        if self.pending.records == 0 {
            return None;
        }
        format::begin_batch(&mut batch.bytes);
        (batch.records, batch.charge, batch.first_seq) = (0, 0, self.next_seq);
        batch.open_from = self.open_from();
        std::mem::swap(batch, &mut self.pending);
        (self.in_flight, self.in_flight_since) = (batch.charge, Some(Instant::now()));
        if align(batch.bytes.len() as u64) <= self.current_left {
            return Some(Target::Current);
        }
        let spare = self.spare.take().expect("no more is admitted than fits the current segment or the allocated one");
        self.current_left = self.segment_payload;
        self.naming = true;
        Some(Target::Next(spare))
    }

    /// A batch of so many bytes, padding included, is on disk.
    ///
    /// True when another segment may be allocated now.
    pub(crate) fn committed(&mut self, bytes: u64) -> bool {
        self.current_left -= bytes;
        (self.in_flight, self.in_flight_since) = (0, None);
        self.commits += 1;
        std::mem::take(&mut self.naming)
    }

    /// Whether the next segment has to be allocated. Not before the one taken last has its own name: until then it
    /// stands under the name that the next would get.
    pub(crate) fn wants_spare(&self) -> bool {
        self.spare.is_none() && !self.naming
    }

    /// The next segment is allocated. True when that ends a shortage.
    pub(crate) fn spare_ready(&mut self, spare: File) -> bool {
        self.spare = Some(spare);
        std::mem::take(&mut self.no_room)
    }

    /// The next segment could not be allocated. True when that is news.
    pub(crate) fn spare_failed(&mut self) -> bool {
        !std::mem::replace(&mut self.no_room, true)
    }

    /// Whether allocating failed the last time, and nobody has asked to try again at once.
    pub(crate) fn may_rest(&mut self) -> bool {
        self.no_room && !std::mem::take(&mut self.look_now)
    }

    pub(crate) fn look_for_room(&mut self) {
        self.look_now = true;
    }

    /// Whether intents are refused for want of room.
    pub(crate) fn is_full(&self) -> bool {
        self.no_room && (!self.owed.is_empty() || self.unreserved() < RESERVE_BESIDE_OUTCOMES + OUTCOME_RESERVE)
    }

    pub(crate) fn close(&mut self) {
        self.ended.get_or_insert(Refusal::Closed);
    }

    pub(crate) fn fail(&mut self) {
        self.ended = Some(Refusal::Failed);
        self.in_flight_since = None;
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// What the writer is to do now, who waits until then.
    pub(crate) fn writers_next(&mut self) -> Next {
        self.pace.next(self.pending(), Instant::now())
    }

    /// Somebody waits for this record. Whether the writer has to be woken: only the first to ask is told so.
    pub(crate) fn hasten(&mut self, seq: u64) -> bool {
        self.pace.hasten(seq, self.pending());
        self.wake_writer()
    }

    /// Whether the writer has to be woken for what is there now. Only the first to ask is told so.
    pub(crate) fn wake_writer(&mut self) -> bool {
        self.pace.wake(self.pending())
    }

    fn pending(&self) -> Pending {
        Pending {
            first_seq: self.pending.first_seq,
            records: self.pending.records,
            bytes: self.pending.bytes.len(),
            open_intents: self.open_intents.len(),
            closed: self.ended.is_some(),
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            appended_seq: self.next_seq - 1,
            durable_seq: 0,
            pending_bytes: if self.pending.records == 0 { 0 } else { self.pending.bytes.len() },
            open_intents: self.open_intents.len(),
            refused: self.refused,
            commits: self.commits,
            committing_ns: self.in_flight_since.map_or(0, |since| since.elapsed().as_nanos().max(1) as u64),
            room_bytes: self.room().saturating_sub(self.in_flight),
        }
    }

    /// The first intent whose outcome has not been appended, be it of an earlier run; the next record when there is
    /// none.
    fn open_from(&self) -> u64 {
        let owed = self.owed.iter().find_map(|record| match record {
            Record::Outcome(outcome) => Some(outcome.intent),
            _ => None,
        });
        owed.or(self.open_intents.lowest()).unwrap_or(self.next_seq)
    }

    fn rank(&self, record: &Record<'_>) -> Rank {
        match record {
            Record::Intent(_) => Rank::Intent,
            Record::Outcome(outcome) if self.open_intents.contains(outcome.intent) => Rank::Outcome,
            Record::Refused(_) | Record::Connection(_) => Rank::Ordinary,
            _ => Rank::Control,
        }
    }

    fn admit(&self, rank: Rank, charge: u64) -> Result<(), (Refusal, &'static str)> {
        const FULL: (Refusal, &str) = (Refusal::Full, "full");
        const BACKLOG: (Refusal, &str) = (Refusal::Backlog, "backlog");
        // The allocator may just not be done yet; only when it has failed the disk is full.
        let short = if self.no_room { FULL } else { BACKLOG };
        let owing = !self.owed.is_empty();
        let (enough, limit) = match rank {
            Rank::Intent if owing || self.unreserved() < charge + OUTCOME_RESERVE + CONTROL_RESERVE => (false, None),
            Rank::Intent if self.open_intents.len() >= self.open_intents_max => return Err(BACKLOG),
            Rank::Ordinary if owing || self.unreserved() < charge + self.ordinary_reserve() => (false, None),
            Rank::Ordinary => (true, Some(self.pending_bytes_max / 2)),
            Rank::Intent => (true, Some(self.pending_bytes_max)),
            Rank::Control => (self.unreserved() >= charge, Some(self.pending_bytes_max + CONTROL_RESERVE as usize)),
            // As many as there are open intents: that is their bound.
            Rank::Outcome => (self.unspoken() >= charge, None),
        };
        if !enough {
            return Err(short);
        }
        match limit {
            Some(limit) if self.pending.bytes.len() as u64 + charge > limit as u64 => Err(BACKLOG),
            _ => Ok(()),
        }
    }

    fn push(&mut self, rest: &[u8], time_ns: u64) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        format::put_frame(&mut self.pending.bytes, |bytes| {
            codec::put_prefix(seq, time_ns, bytes);
            bytes.extend_from_slice(rest);
        });
        self.pending.records += 1;
        self.pending.charge += charge(rest);
        seq
    }

    fn count_refused(&mut self, time_ns: u64, why: &'static str) {
        self.refused += 1;
        let tally = self.tally.get_or_insert(Tally { from_ns: time_ns, to_ns: time_ns, records: 0, why });
        tally.to_ns = time_ns;
        tally.records += 1;
        // The graver of the two.
        if why == "full" {
            tally.why = why;
        }
    }

    fn room(&self) -> u64 {
        if self.spare.is_some() { self.segment_payload.max(self.current_left) } else { self.current_left }
    }

    /// Room that no record on its way takes.
    fn unspoken(&self) -> u64 {
        self.room().saturating_sub(self.in_flight + self.pending.charge)
    }

    /// Kept free of records that strangers and refused requests can cause, however many there are: a quarter of a
    /// segment for intents.
    fn ordinary_reserve(&self) -> u64 {
        CONTROL_RESERVE + self.segment_payload / 4
    }

    /// Room that is not kept for outcomes either.
    fn unreserved(&self) -> u64 {
        self.unspoken().saturating_sub(u64::from(self.open_intents.len()) * OUTCOME_RESERVE)
    }
}

fn charge(rest: &[u8]) -> u64 {
    align((BATCH_HEADER_LEN + FRAME_HEADER_LEN + PREFIX_MAX + rest.len()) as u64)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        Config,
        record::{ATTEMPTS_MAX, Attempt, Fate, NAME_MAX, Outcome, OutcomeResult, Refused, Stop},
    };

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Intent(usize),
        Outcome(usize),
        Refused(usize),
        Control(usize),
        Take,
        Committed,
        SpareReady,
        SpareFailed,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0usize..300).prop_map(Step::Intent),
            6 => (0usize..300).prop_map(Step::Outcome),
            4 => (0usize..300).prop_map(Step::Refused),
            1 => (0usize..300).prop_map(Step::Control),
            4 => Just(Step::Take),
            4 => Just(Step::Committed),
            1 => Just(Step::SpareReady),
            1 => Just(Step::SpareFailed),
        ]
    }

    /// As long as they can be.
    fn longest_tries<'a>() -> Cow<'a, [Attempt<'a>]> {
        let attempt = Attempt {
            token: "t".repeat(NAME_MAX + 1).into(),
            session: u16::MAX,
            fate: Fate::Discarded,
            code: Some("c".repeat(NAME_MAX + 1).into()),
            call: Some("c".repeat(NAME_MAX + 1).into()),
            token_us: u32::MAX,
        };
        vec![attempt; ATTEMPTS_MAX + 1].into()
    }

    fn append(ledger: &mut Ledger, record: &Record<'_>) -> Result<u64, Refusal> {
        let mut rest = Vec::new();
        codec::put_rest(record, &mut rest).expect("its digest is short");
        ledger.append(record, &rest, u64::MAX)
    }

    fn intent(text: &str) -> Record<'_> {
        Record::Intent(crate::record::Intent {
            tenant: text.into(),
            client: text.into(),
            peer: Some(text.into()),
            on_behalf_of: Some(text.into()),
            operation: text.into(),
            key: text.into(),
            key_spki_sha256: [1; 32],
            algorithm: text.into(),
            digest: vec![2; 64].into(),
            message_len: Some(u64::MAX),
            capacity: None,
            class: text.into(),
            reference: Some(text.into()),
            attempt: 1,
            request_id: u64::MAX,
            connection_id: u64::MAX,
            document: Some(text.into()),
            key_version: Some(text.into()),
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

        /// [`Ledger::take`] panics where what was admitted does not fit.
        #[test]
        fn what_is_admitted_fits_and_every_open_intent_can_have_its_outcome(
            steps in proptest::collection::vec(step(), 0..4000),
        ) {
            let mut config = Config::new("/nowhere");
            config.segment_bytes = 128 << 10;
            config.pending_bytes_max = 64 << 10;
            config.open_intents_max = 60;
            let spare = || File::open("/dev/null").expect("it is there");
            let mut ledger = Ledger::new(&config, 1, 0, None);
            let (mut batch, mut writing, mut open) = (Batch::default(), false, Vec::new());
            for step in steps {
                match step {
                    Step::Intent(len) => open.extend(append(&mut ledger, &intent(&"i".repeat(len)))),
                    Step::Outcome(len) if !open.is_empty() => {
                        let text = "o".repeat(len);
                        let result = OutcomeResult::Discarded {
                            reason: text.as_str().into(),
                            signature_sha256: Some([0; 32]),
                        };
                        let token = Some(text.as_str().into());
                        let outcome = Outcome {
                            intent: open.swap_remove(len % open.len()),
                            result,
                            token,
                            attempts: u8::MAX,
                            attempts_unknown: u8::MAX,
                            tries: longest_tries(),
                            queue_us: u32::MAX,
                            token_us: u32::MAX,
                        };
                        prop_assert!(append(&mut ledger, &Record::Outcome(outcome)).is_ok());
                    }
                    Step::Outcome(_) => {}
                    Step::Refused(len) => {
                        let text = "r".repeat(len);
                        let text = || text.as_str().into();
                        let refused = Refused {
                            tenant: None,
                            client: text(),
                            operation: text(),
                            key: text(),
                            code: text(),
                            reason: text(),
                        };
                        let _ = append(&mut ledger, &Record::Refused(refused));
                    }
                    Step::Control(len) => {
                        let _ = append(&mut ledger, &Record::Stop(Stop { reason: "c".repeat(len).into() }));
                    }
                    Step::Take if !writing => {
                        ledger.settle_debts(u64::MAX);
                        writing = ledger.take(&mut batch).is_some();
                        if writing {
                            format::seal(&mut batch.bytes, batch.records, batch.first_seq, format::GENESIS);
                            prop_assert!(batch.bytes.len() as u64 <= batch.charge);
                        }
                    }
                    Step::Committed if writing => {
                        ledger.committed(batch.bytes.len() as u64);
                        writing = false;
                    }
                    Step::SpareReady if ledger.wants_spare() => _ = ledger.spare_ready(spare()),
                    Step::SpareFailed if ledger.wants_spare() => _ = ledger.spare_failed(),
                    Step::Take | Step::Committed | Step::SpareReady | Step::SpareFailed => {}
                }
            }
        }
    }
}
