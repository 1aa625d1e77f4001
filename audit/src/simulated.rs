//! Tests on a simulated disk: one that waits, fails or is full when it is told to.

#![allow(clippy::unwrap_used, reason = "a test that can not go on says where")]

use std::{
    fs::File,
    io,
    path::Path,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use crate::{
    Capacity, Config, Intent, Journal, OpenError, Outcome, OutcomeResult, Reader, Record, Refusal, Settled, State,
    disk::{Disk, FileSystem},
    ledger::CONTROL_RESERVE,
    verify,
};

const LONG: Duration = Duration::from_secs(60);

/// A disk on which fdatasync waits behind a gate, and everything can be made to fail.
struct SimulatedDisk {
    gate_open: Mutex<bool>,
    gate: Condvar,
    /// Told of each fdatasync as it begins
    syncs: Mutex<mpsc::Sender<()>>,
    sync_fails: AtomicBool,
    write_fails: AtomicBool,
    is_full: AtomicBool,
    allocate_panics: AtomicBool,
    allocate_gate: Mutex<bool>,
    room: Condvar,
}

impl SimulatedDisk {
    fn new() -> (Arc<SimulatedDisk>, mpsc::Receiver<()>) {
        let (syncs, sync) = mpsc::channel();
        let disk = SimulatedDisk {
            gate_open: Mutex::new(true),
            gate: Condvar::new(),
            syncs: Mutex::new(syncs),
            sync_fails: AtomicBool::new(false),
            write_fails: AtomicBool::new(false),
            is_full: AtomicBool::new(false),
            allocate_panics: AtomicBool::new(false),
            allocate_gate: Mutex::new(true),
            room: Condvar::new(),
        };
        (Arc::new(disk), sync)
    }

    fn set_gate(&self, open: bool) {
        *self.gate_open.lock().unwrap() = open;
        self.gate.notify_all();
    }

    fn set_allocate_gate(&self, open: bool) {
        *self.allocate_gate.lock().unwrap() = open;
        self.room.notify_all();
    }
}

impl Disk for SimulatedDisk {
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.write_fails.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(5));
        }
        FileSystem.write_at(file, bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        let _ = self.syncs.lock().unwrap().send(());
        drop(self.gate.wait_while(self.gate_open.lock().unwrap(), |open| !*open).unwrap());
        if self.sync_fails.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(5));
        }
        FileSystem.sync(file)
    }

    fn allocate(&self, path: &Path, bytes: u64, stop: &dyn Fn() -> bool) -> io::Result<File> {
        drop(self.room.wait_while(self.allocate_gate.lock().unwrap(), |open| !*open).unwrap());
        assert!(!self.allocate_panics.load(Ordering::SeqCst), "an allocator's mistake");
        if self.is_full.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(28));
        }
        FileSystem.allocate(path, bytes, stop)
    }
}

struct Fixture {
    directory: tempfile::TempDir,
    disk: Arc<SimulatedDisk>,
    sync: mpsc::Receiver<()>,
    journal: Journal,
}

fn fixture() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let (disk, sync) = SimulatedDisk::new();
    let mut config = config(directory.path());
    config.disk = disk.clone();
    let (journal, _) = Journal::open(config).unwrap();
    Fixture { directory, disk, sync, journal }
}

fn config(directory: &Path) -> Config {
    let mut config = Config::new(directory);
    config.segment_bytes = 128 << 10;
    config.pending_bytes_max = 40 << 10;
    config.open_intents_max = 40;
    config.retry = LONG;
    config
}

fn intent() -> Record<'static> {
    Record::Intent(Intent {
        tenant: "tenant".into(),
        client: "client".into(),
        peer: None,
        on_behalf_of: None,
        operation: "digest".into(),
        key: "key".into(),
        key_spki_sha256: [1; 32],
        algorithm: "ed25519".into(),
        digest: vec![2; 64].into(),
        message_len: Some(1000),
        capacity: Some(Capacity::Citizen),
        class: "login".into(),
        reference: None,
        attempt: 1,
        request_id: 1,
        connection_id: 1,
        document: None,
        key_version: None,
    })
}

/// As long as an outcome can be.
fn long_outcome(intent: u64) -> Record<'static> {
    Record::Outcome(Outcome {
        intent,
        result: OutcomeResult::Discarded { reason: "r".repeat(300).into(), signature_sha256: Some([3; 32]) },
        token: Some("t".repeat(300).into()),
        attempts: u8::MAX,
        attempts_unknown: u8::MAX,
        tries: vec![
            crate::record::Attempt {
                token: "t".repeat(300).into(),
                session: u16::MAX,
                fate: crate::record::Fate::Unknown,
                code: Some("c".repeat(300).into()),
                call: Some("c".repeat(300).into()),
                token_us: u32::MAX,
            };
            crate::record::ATTEMPTS_MAX
        ]
        .into(),
        queue_us: u32::MAX,
        token_us: u32::MAX,
    })
}

#[test]
fn records_that_come_while_the_disk_is_busy_share_one_fdatasync() {
    let Fixture { directory: _kept, disk, sync, journal } = fixture();
    disk.set_gate(false);
    let first = journal.append(&intent()).unwrap();
    sync.recv_timeout(LONG).unwrap();
    let last = (0..30).map(|_| journal.append(&intent()).unwrap()).last().unwrap();
    assert_eq!((journal.settled(first), journal.settled(last)), (Settled::Pending, Settled::Pending));
    disk.set_gate(true);
    assert_eq!(journal.wait(last, LONG), Settled::Durable);
    journal.close(LONG).unwrap();
    assert_eq!(journal.stats().commits, 2);
    assert_eq!(sync.try_iter().count(), 1, "one more after the first");
}

#[test]
fn after_a_failed_fdatasync_nothing_pending_is_durable_and_nothing_is_taken_until_a_restart() {
    fails_for_good(|disk| &disk.sync_fails, "fdatasync");
}

#[test]
fn after_a_failed_write_nothing_pending_is_durable_and_nothing_is_taken_until_a_restart() {
    fails_for_good(|disk| &disk.write_fails, "write");
}

fn fails_for_good(fault: impl Fn(&SimulatedDisk) -> &AtomicBool, call: &str) {
    let Fixture { directory, disk, journal, .. } = fixture();
    let (changed, change) = mpsc::channel();
    let sound = journal.append(&intent()).unwrap();
    assert_eq!(journal.wait(sound, LONG), Settled::Durable);
    journal.subscribe(Box::new(move || _ = changed.send(())));
    fault(&disk).store(true, Ordering::SeqCst);
    let lost = journal.append(&intent()).unwrap();
    assert_eq!(journal.wait(lost, LONG), Settled::Lost);
    change.recv_timeout(LONG).expect("subscribers hear of the failure");
    // The disk may seem sound again: it is not trusted.
    fault(&disk).store(false, Ordering::SeqCst);
    assert_eq!((journal.state(), journal.settled(sound)), (State::Failed, Settled::Durable));
    for record in [intent(), long_outcome(lost)] {
        assert_eq!(journal.append(&record), Err(Refusal::Failed));
    }
    let trouble = journal.close(LONG).unwrap_err();
    assert!(trouble.contains(call) && trouble.contains("restarted"), "{trouble}");

    let (journal, recovery) = Journal::open(config(directory.path())).unwrap();
    assert!(recovery.last_seq >= sound);
    let seq = journal.append(&intent()).unwrap();
    assert_eq!(journal.wait(seq, LONG), Settled::Durable);
    journal.close(LONG).unwrap();
    assert!(verify(directory.path()).unwrap().is_consistent());
}

#[test]
fn what_the_disk_finishes_after_a_failure_is_lost_all_the_same() {
    let Fixture { directory: _kept, disk, sync, journal } = fixture();
    let (changed, change) = mpsc::channel();
    disk.set_allocate_gate(false);
    let sound = journal.append(&intent()).unwrap();
    assert_eq!(journal.wait(sound, LONG), Settled::Durable);
    sync.recv_timeout(LONG).unwrap();
    disk.set_gate(false);
    let lost = journal.append(&intent()).unwrap();
    sync.recv_timeout(LONG).unwrap();
    journal.subscribe(Box::new(move || _ = changed.send(())));
    // The first segment was begun, so the next is being allocated.
    disk.allocate_panics.store(true, Ordering::SeqCst);
    disk.set_allocate_gate(true);
    while journal.state() != State::Failed {
        change.recv_timeout(LONG).unwrap();
    }
    assert_eq!(journal.settled(lost), Settled::Lost);
    disk.set_gate(true);
    journal.close(LONG).unwrap_err();
    assert_eq!(
        (journal.settled(lost), journal.settled(sound)),
        (Settled::Lost, Settled::Durable),
        "no verdict changes"
    );
}

#[test]
fn records_that_strangers_cause_leave_the_better_half_to_intents() {
    let Fixture { directory, disk, sync, journal } = fixture();
    disk.set_gate(false);
    let first = journal.append(&intent()).unwrap();
    sync.recv_timeout(LONG).unwrap();
    let stranger = Record::Connection(crate::Connection {
        client: None,
        tenant: None,
        peer: Some("192.0.2.7:4711".into()),
        connection_id: 1,
        event: crate::ConnectionEvent::Refused,
        reason: Some("r".repeat(200).into()),
    });
    let taken = std::iter::repeat_with(|| journal.append(&stranger)).take_while(Result::is_ok).count();
    assert!(taken > 10, "{taken}");
    let half = (40 << 10) / 2;
    assert!(journal.stats().pending_bytes <= half);
    for _ in 0..20 {
        journal.append(&intent()).expect("strangers displace no intent");
        assert_eq!(journal.append(&stranger), Err(Refusal::Backlog));
    }
    let operator = crate::Operator {
        who: "root".into(),
        command: "drain".into(),
        result: "ok".into(),
        uid: None,
        pid: None,
        asked: None,
    };
    let token = crate::Token { token: "t".into(), event: "lost".into(), detail: "d".into() };
    for record in [Record::Operator(operator), Record::Token(token)] {
        journal.append(&record).expect("what the daemon itself has to say ranks higher");
    }
    disk.set_gate(true);
    let outcome = journal.append(&long_outcome(first)).unwrap();
    assert_eq!(journal.wait(outcome, LONG), Settled::Durable);
    journal.close(LONG).unwrap();
    assert_eq!(verify(directory.path()).unwrap().refused_records, 21);
}

#[test]
fn on_a_full_disk_strangers_leave_the_last_quarter_of_a_segment_to_intents() {
    let Fixture { directory: _kept, disk, journal, .. } = fixture();
    disk.is_full.store(true, Ordering::SeqCst);
    let stranger = Record::Refused(crate::Refused {
        tenant: None,
        client: "client".into(),
        operation: "digest".into(),
        key: "no such key".into(),
        code: "not-granted".into(),
        reason: "r".repeat(200).into(),
    });
    // Each alone, so that it is room that ends it.
    while let Ok(seq) = journal.append(&stranger) {
        assert_eq!(journal.wait(seq, LONG), Settled::Durable);
    }
    let quarter = (128 << 10) / 4;
    assert!(journal.stats().room_bytes >= quarter + CONTROL_RESERVE, "{:?}", journal.stats());
    for _ in 0..10 {
        let seq = journal.append(&intent()).expect("strangers displace no intent");
        assert_eq!(journal.wait(seq, LONG), Settled::Durable);
    }
}

#[test]
fn a_slow_disk_makes_a_bounded_backlog_that_is_refused_beyond_and_told_of_afterwards() {
    let Fixture { directory, disk, sync, journal } = fixture();
    disk.set_gate(false);
    let taken = journal.append(&intent()).unwrap();
    sync.recv_timeout(LONG).unwrap();
    let refused = Record::Refused(crate::Refused {
        tenant: None,
        client: "client".into(),
        operation: "digest".into(),
        key: "no such key".into(),
        code: "not-granted".into(),
        reason: "no such key".into(),
    });
    let mut pending = 0;
    while journal.append(&refused).is_ok() {
        pending += 1;
    }
    assert_eq!(journal.append(&refused), Err(Refusal::Backlog));
    assert!(journal.stats().pending_bytes <= (40 << 10) / 2);
    assert!(pending > 60, "{pending}");
    assert_eq!(journal.state(), State::Open, "slow is not full");
    let outcome = journal.append(&long_outcome(taken)).expect("an outcome is taken all the same");
    disk.set_gate(true);
    assert_eq!(journal.wait(outcome, LONG), Settled::Durable);
    journal.close(LONG).unwrap();
    let report = verify(directory.path()).unwrap();
    assert_eq!((report.refused_records, report.open_intents), (2, 0));
}

#[test]
fn open_intents_are_bounded_and_an_outcome_makes_room_for_another() {
    let Fixture { directory: _kept, journal, .. } = fixture();
    let first = journal.append(&intent()).unwrap();
    let refusal = loop {
        if let Err(refusal) = journal.append(&intent()) {
            break refusal;
        }
    };
    assert_eq!((refusal, journal.stats().open_intents), (Refusal::Backlog, 40));
    journal.append(&long_outcome(first)).unwrap();
    journal.append(&intent()).unwrap();
}

#[test]
fn on_a_full_disk_the_longest_outcome_of_every_open_intent_finds_room() {
    let Fixture { directory, disk, journal, .. } = fixture();
    disk.is_full.store(true, Ordering::SeqCst);
    let open: Vec<u64> = (0..40).map_while(|_| journal.append(&intent()).ok()).collect();
    assert_eq!(open.len(), 40);
    // Turned over until there is no room: the bound on open intents must not be what ends it.
    let mut open = std::collections::VecDeque::from(open);
    let refusal = loop {
        let oldest = open.pop_front().unwrap();
        let seq = journal.append(&long_outcome(oldest)).expect("room was reserved");
        assert_eq!(journal.wait(seq, LONG), Settled::Durable);
        match journal.append(&intent()) {
            Ok(seq) => open.push_back(seq),
            Err(refusal) => break refusal,
        }
    };
    assert_eq!((refusal, journal.state()), (Refusal::Full, State::Full));
    assert!(open.len() >= 39);
    for intent in open {
        // One batch each: the most that they can take.
        let seq = journal.append(&long_outcome(intent)).expect("room was reserved");
        assert_eq!(journal.wait(seq, LONG), Settled::Durable);
    }
    let stop = Record::Stop(crate::Stop { reason: "SIGTERM".into() });
    journal.append(&stop).expect("the daemon's own few records have a reserve too");
    journal.close(LONG).unwrap();
    let report = verify(directory.path()).unwrap();
    assert_eq!(report.open_intents, 0);
    assert!(Reader::open(directory.path()).unwrap().map(Result::unwrap).any(|entry| entry.record == stop));
}

#[test]
fn a_disk_that_hangs_is_seen_and_holds_up_no_close() {
    let Fixture { directory, disk, sync, journal } = fixture();
    assert_eq!(journal.stats().committing_ns, 0);
    disk.set_gate(false);
    let seq = journal.append(&intent()).unwrap();
    sync.recv_timeout(LONG).unwrap();
    assert!(journal.stats().committing_ns > 0);
    let error = journal.close(Duration::from_millis(1)).unwrap_err();
    assert!(error.contains("has not come back") && error.contains("after 0 "), "{error}");
    let second = Journal::open(config(directory.path()));
    assert!(matches!(second, Err(OpenError::Locked(_))), "its writer may write still");
    disk.set_gate(true);
    assert_eq!(journal.close(LONG), Ok(()));
    assert_eq!((journal.settled(seq), journal.stats().committing_ns), (Settled::Durable, 0));
    Journal::open(config(directory.path())).unwrap();
}

#[test]
fn a_panic_in_the_writer_is_a_failure_that_everybody_sees() {
    let Fixture { directory: _kept, journal, .. } = fixture();
    journal.subscribe(Box::new(|| panic!("a subscriber's mistake")));
    let seq = journal.append(&intent()).unwrap();
    assert_eq!(journal.wait(seq, LONG), Settled::Durable, "it is on disk all the same");
    assert!(journal.close(LONG).unwrap_err().contains("panicked"));
    assert_eq!((journal.append(&intent()), journal.state()), (Err(Refusal::Failed), State::Failed));
}
