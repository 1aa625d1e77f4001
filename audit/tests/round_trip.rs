//! What is appended is read back; what is acknowledged is on disk.
#![allow(clippy::unwrap_used, reason = "a test that can not go on says where")]

mod common;

use std::time::Duration;

use common::{LONG, config, intent, outcome};
use segl_audit::{Journal, Reader, Settled, State, verify};

#[test]
fn what_is_appended_is_read_back_in_order_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let (journal, recovery) = Journal::open(config.clone()).unwrap();
    assert_eq!((recovery.last_seq, recovery.segments), (0, 0));
    let first = journal.append(&intent("a")).unwrap();
    let second = journal.append(&outcome(first)).unwrap();
    assert_eq!((first, second), (1, 2));
    assert_eq!(journal.wait(second, LONG), Settled::Durable);
    assert_eq!(journal.settled(first), Settled::Durable);
    assert_eq!(journal.state(), State::Open);
    journal.close().unwrap();

    let (journal, recovery) = Journal::open(config).unwrap();
    assert_eq!((recovery.last_seq, recovery.segments, recovery.repaired), (2, 1, None));
    assert!(recovery.interrupted.is_empty());
    let third = journal.append(&intent("b")).unwrap();
    assert_eq!(third, 3);
    assert_eq!(journal.wait(third, LONG), Settled::Durable);
    assert_eq!(journal.wait(third + 1, Duration::ZERO), Settled::Pending);
    journal.close().unwrap();

    let entries: Vec<_> = Reader::open(directory.path()).unwrap().map(Result::unwrap).collect();
    let records: Vec<_> = entries.iter().map(|entry| entry.record.clone()).collect();
    assert_eq!(records, [intent("a"), outcome(1), intent("b")]);
    assert_eq!(entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [1, 2, 3]);
    let report = verify(directory.path()).unwrap();
    assert_eq!((report.records, report.last_seq, report.open_intents_listed), (3, 3, vec![3]));
}
