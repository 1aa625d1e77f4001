//! Checking a whole journal, as an auditor does.

use std::path::Path;

use crate::{
    format::GENESIS,
    open_intents::OpenIntents,
    read::{Reader, TornTail},
    record::{Discarded, Entry, Fate, Outcome, OutcomeResult, Record},
    scan::ReadError,
};

/// At most so many contradictions and open intents are listed; the counts are whole.
const LISTED_MAX: usize = 1000;

/// What a sound journal holds. That its records contradict each other does not make it unsound as a file, so it is
/// told here; see [`Report::is_consistent`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Segment files
    pub segments: usize,
    /// Records
    pub records: u64,
    /// Number of the first, 0 when there is none. More than 1 when older segments have been taken away
    pub first_seq: u64,
    /// Number of the last, 0 when there is none
    pub last_seq: u64,
    /// Hash of the last: whoever has kept an earlier one can see that nothing before it has changed
    pub last_hash: [u8; 32],
    /// Time of the first, UTC in nanoseconds since 1970
    pub first_ns: u64,
    /// Time of the last
    pub last_ns: u64,
    /// Uses of a key
    pub intents: u64,
    /// Intents without an outcome
    pub open_intents: u64,
    /// The first thousand of them
    pub open_intents_listed: Vec<u64>,
    /// Torn ends that were repaired
    pub repairs: u64,
    /// Events that were refused because they could not be recorded
    pub refused_records: u64,
    /// What tokens have made for this journal
    pub signatures: Signatures,
    /// Outcomes without an open intent: there was none, or it has an outcome already
    pub contradictions: u64,
    /// The first thousand of them
    pub contradictions_listed: Vec<u64>,
    /// Something stands after the last record
    pub torn_tail: Option<TornTail>,
}

/// The account of signatures: whoever has another count of them, such as a token's own, can compare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signatures {
    /// Handed to a client's connection
    pub released: u64,
    /// Made, and destroyed unseen for a reason that is told; self-tests are such
    pub discarded: u64,
    /// Calls that ended, or were given up, without saying whether they signed
    pub unknown: u64,
    /// Of these, the ones that came back later and had signed
    pub unknown_signed: u64,
    /// Of these, the ones that came back later and had failed
    pub unknown_failed: u64,
    /// Intents that a crash has left open: of their calls nobody knows how many there were
    pub interrupted: u64,
}

impl Signatures {
    /// Tokens have made so many at least.
    pub fn at_least(&self) -> u64 {
        self.released + self.discarded + self.unknown_signed
    }

    /// And so many at most; none when a crash has left intents open.
    pub fn at_most(&self) -> Option<u64> {
        let open = self.unknown.saturating_sub(self.unknown_signed + self.unknown_failed);
        (self.interrupted == 0).then(|| self.at_least() + open)
    }

    fn see(&mut self, outcome: &Outcome<'_>) {
        for attempt in outcome.tries.iter() {
            match attempt.fate {
                Fate::Released => self.released += 1,
                Fate::Failed => {}
                Fate::Unknown => self.unknown += 1,
                Fate::Discarded => self.discarded += 1,
            }
        }
        if !outcome.tries.is_empty() {
            return;
        }
        // Written before each attempt was listed, or without one.
        self.unknown += u64::from(outcome.attempts_unknown);
        match outcome.result {
            OutcomeResult::Released { .. } => self.released += 1,
            OutcomeResult::Discarded { .. } => self.discarded += 1,
            OutcomeResult::NotSigned { .. } => {}
            OutcomeResult::Unknown { .. } => self.interrupted += u64::from(outcome.attempts == 0),
        }
    }
}

impl Report {
    /// Whether no record contradicts another.
    pub fn is_consistent(&self) -> bool {
        self.contradictions == 0
    }
}

/// Reads every byte of a journal and checks all that can be checked: headers, checksums, hashes, that the numbers
/// have no holes, and that every outcome has its intent. An error says what is wrong, and where.
///
/// Records cut off the end at a batch's edge leave no trace in the journal itself: only a number or hash kept
/// elsewhere shows that.
pub fn verify(directory: &Path) -> Result<Report, ReadError> {
    let mut reader = Reader::open(directory)?;
    let mut report = Report { last_hash: GENESIS, ..Report::default() };
    let mut open = OpenIntents::default();
    for entry in reader.by_ref() {
        report.see(&entry?, &mut open);
    }
    report.segments = reader.segments();
    report.torn_tail = reader.torn_tail().cloned();
    if let Some((_, hash)) = reader.end() {
        report.last_hash = hash;
    }
    let open = open.into_vec();
    report.open_intents = open.len() as u64;
    report.open_intents_listed = open.into_iter().take(LISTED_MAX).collect();
    Ok(report)
}

impl Report {
    fn see(&mut self, entry: &Entry, open: &mut OpenIntents) {
        if self.records == 0 {
            (self.first_seq, self.first_ns) = (entry.seq, entry.time_ns);
        }
        self.records += 1;
        (self.last_seq, self.last_ns) = (entry.seq, entry.time_ns);
        let fits = open.see(entry);
        if let Record::Outcome(outcome) = &entry.record {
            self.signatures.see(outcome);
        }
        match &entry.record {
            Record::Intent(_) => self.intents += 1,
            // Its intent may stand in a segment that was taken away.
            Record::Outcome(outcome) if !fits && outcome.intent >= self.first_seq => {
                self.contradictions += 1;
                if self.contradictions_listed.len() < LISTED_MAX {
                    self.contradictions_listed.push(entry.seq);
                }
            }
            Record::Discarded(Discarded { signed: true, .. }) => self.signatures.unknown_signed += 1,
            Record::Discarded(_) => self.signatures.unknown_failed += 1,
            Record::Repaired(_) => self.repairs += 1,
            Record::Gap(gap) => self.refused_records += gap.records,
            _ => {}
        }
    }
}
