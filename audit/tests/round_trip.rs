//! What is appended is read back; what is acknowledged is on disk.
#![allow(clippy::unwrap_used, reason = "a test that can not go on says where")]

mod common;

use std::{os::unix::fs::PermissionsExt, time::Duration};

use common::{LONG, config, intent, outcome, quick_directory};
use segl_audit::{
    Capacity, Clock, Connection, ConnectionEvent, Discarded, Gap, Intent, Journal, OpenError, Operator, Outcome,
    OutcomeResult, Reader, Record, Refusal, Refused, Reload, Repaired, Settled, Start, State, Stop, Token,
    open_intents_possible, verify,
};

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
    journal.close(LONG).unwrap();

    let (journal, recovery) = Journal::open(config).unwrap();
    assert_eq!((recovery.last_seq, recovery.segments, recovery.repaired), (2, 1, None));
    assert!(recovery.interrupted.is_empty());
    let third = journal.append(&intent("b")).unwrap();
    assert_eq!(third, 3);
    assert_eq!(journal.wait(third, LONG), Settled::Durable);
    assert_eq!(journal.wait(third + 1, Duration::ZERO), Settled::Pending);
    journal.close(LONG).unwrap();

    let entries: Vec<_> = Reader::open(directory.path()).unwrap().map(Result::unwrap).collect();
    let records: Vec<_> = entries.iter().map(|entry| entry.record.clone()).collect();
    assert_eq!(records, [intent("a"), outcome(1), intent("b")]);
    assert_eq!(entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [1, 2, 3]);
    let report = verify(directory.path()).unwrap();
    assert_eq!((report.records, report.last_seq, report.open_intents_listed), (3, 3, vec![3]));
}

#[test]
fn every_kind_of_record_comes_back_as_it_was_with_and_without_its_options() {
    let Record::Intent(full) = intent("r") else { unreachable!("it is an intent") };
    let bare = Intent {
        peer: None,
        on_behalf_of: None,
        message_len: Some(u64::MAX),
        capacity: Some(Capacity::Citizen),
        reference: None,
        attempt: u8::MAX,
        digest: vec![0xab; 64].into(),
        document: Some("_4f1c2ab0".into()),
        key_version: Some("login-2026".into()),
        ..full.clone()
    };
    let end = |result| {
        Record::Outcome(Outcome {
            intent: 1,
            result,
            token: None,
            attempts: u8::MAX,
            attempts_unknown: 0,
            tries: Default::default(),
            queue_us: u32::MAX,
            token_us: 0,
        })
    };
    let connection = |event, reason: Option<&'static str>| {
        Record::Connection(Connection {
            client: reason.map(Into::into),
            tenant: None,
            peer: Some("[2001:db8::1]:4711".into()),
            connection_id: 7,
            event,
            reason: reason.map(Into::into),
        })
    };
    let refused = Refused {
        tenant: None,
        client: "c".into(),
        operation: "digest".into(),
        key: "k".into(),
        code: "not-granted".into(),
        reason: "no such key".into(),
    };
    let records = [
        Record::Start(Start {
            version: "0.1.0".into(),
            host: "h".into(),
            boot_id: "b".into(),
            config_digest: [1; 32],
            last_seq: 0,
        }),
        Record::Intent(Intent { capacity: None, ..full.clone() }),
        Record::Intent(full),
        Record::Intent(bare),
        end(OutcomeResult::Released { signature_sha256: [2; 32] }),
        end(OutcomeResult::Discarded { reason: "cancelled".into(), signature_sha256: None }),
        end(OutcomeResult::Discarded { reason: "cancelled".into(), signature_sha256: Some([3; 32]) }),
        end(OutcomeResult::NotSigned { code: "expired".into() }),
        end(OutcomeResult::Unknown { code: "device".into() }),
        Record::Refused(Refused { tenant: Some("t".into()), ..refused.clone() }),
        Record::Refused(refused),
        Record::Reload(Reload { ok: false, message: "line 3: æøå".into(), config_digest: [4; 32] }),
        connection(ConnectionEvent::Opened, None),
        connection(ConnectionEvent::Closed, Some("idle")),
        connection(ConnectionEvent::Refused, Some("no tenant")),
        Record::Repaired(Repaired { file: "f".into(), offset: 1, bytes: 2, sha256: [5; 32], side_file: "".into() }),
        Record::Gap(Gap { from_ns: 1, to_ns: u64::MAX, records: 3, why: "full".into() }),
        Record::Operator(Operator {
            who: "root".into(),
            command: "drain".into(),
            result: "ok".into(),
            uid: Some(1000),
            pid: Some(4711),
            asked: Some(7),
        }),
        Record::Token(Token { token: "site-a".into(), event: "lost".into(), detail: "CKR_DEVICE_ERROR".into() }),
        Record::Discarded(Discarded { intent: 3, token: "site-a".into(), reason: "late".into(), signed: true }),
        Record::Clock(Clock { synchronised: false, source: "chronyd".into(), detail: "no source".into() }),
        Record::Stop(Stop { reason: "SIGTERM".into() }),
    ];
    let directory = quick_directory();
    let mut config = config(directory.path());
    config.clock = || 1_795_291_845_123_456_789;
    let (journal, _) = Journal::open(config).unwrap();
    records.iter().for_each(|record| _ = journal.append(record).unwrap());
    journal.close(LONG).unwrap();
    let entries: Vec<_> = Reader::open(directory.path()).unwrap().map(Result::unwrap).collect();
    assert!(entries.iter().all(|entry| entry.time_ns == 1_795_291_845_123_456_789));
    assert_eq!(entries.into_iter().map(|entry| entry.record).collect::<Vec<_>>(), records);
}

#[test]
fn intents_that_a_run_left_open_get_the_outcome_unknown_from_the_next() {
    let directory = quick_directory();
    let (journal, _) = Journal::open(config(directory.path())).unwrap();
    let settled = journal.append(&intent("settled")).unwrap();
    let left: Vec<u64> = (0..3).map(|_| journal.append(&intent("left")).unwrap()).collect();
    journal.append(&outcome(settled)).unwrap();
    journal.close(LONG).unwrap();
    for expected in [left.as_slice(), &[]] {
        let (journal, recovery) = Journal::open(config(directory.path())).unwrap();
        assert_eq!(recovery.interrupted, expected);
        journal.close(LONG).unwrap();
    }
    let unknown: Vec<u64> = Reader::open(directory.path())
        .unwrap()
        .filter_map(|entry| match entry.unwrap().record {
            Record::Outcome(Outcome { intent, result: OutcomeResult::Unknown { code }, .. }) => {
                assert_eq!(code, "interrupted");
                Some(intent)
            }
            _ => None,
        })
        .collect();
    assert_eq!(unknown, left);
    assert_eq!(verify(directory.path()).unwrap().open_intents, 0);
}

#[test]
fn an_outcome_without_an_open_intent_is_a_contradiction_that_verify_tells() {
    let directory = quick_directory();
    let (journal, _) = Journal::open(config(directory.path())).unwrap();
    let first = journal.append(&intent("once")).unwrap();
    journal.append(&outcome(first)).unwrap();
    let twice = journal.append(&outcome(first)).unwrap();
    let never = journal.append(&outcome(77)).unwrap();
    journal.close(LONG).unwrap();
    let report = verify(directory.path()).unwrap();
    assert!(!report.is_consistent());
    assert_eq!(report.contradictions_listed, [twice, never]);
}

#[test]
fn a_second_opener_is_turned_away_until_the_first_has_closed() {
    let directory = quick_directory();
    let (journal, _) = Journal::open(config(directory.path())).unwrap();
    assert!(matches!(Journal::open(config(directory.path())), Err(OpenError::Locked(_))));
    journal.close(LONG).unwrap();
    assert_eq!(journal.append(&intent("late")), Err(Refusal::Closed));
    Journal::open(config(directory.path())).unwrap();
}

#[test]
fn a_bound_on_open_intents_that_segments_have_no_room_for_is_refused_with_what_they_have() {
    assert_eq!([64 << 20, 1 << 20, 0].map(open_intents_possible), [43_666, 658, 0]);
    let directory = quick_directory();
    let mut config = config(directory.path());
    let possible = open_intents_possible(config.segment_bytes);
    for refused in [0, possible + 1] {
        config.open_intents_max = refused;
        let Err(error) = Journal::open(config.clone()) else { panic!("{refused} are accepted") };
        assert!(error.to_string().contains(&format!("allow 1 to {possible}")), "{error}");
    }
    config.open_intents_max = possible;
    let (journal, _) = Journal::open(config).unwrap();
    journal.append(&intent("r")).unwrap();
}

#[test]
fn a_directory_that_others_can_write_to_is_refused_and_a_new_one_is_ours_alone() {
    let parent = quick_directory();
    let directory = parent.path().join("journal");
    Journal::open(config(&directory)).unwrap();
    let mode = || std::fs::metadata(&directory).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(), 0o700);
    for (mode, good) in [(0o750, true), (0o770, false), (0o702, false), (0o1777, false)] {
        std::fs::set_permissions(&directory, PermissionsExt::from_mode(mode)).unwrap();
        match Journal::open(config(&directory)) {
            Ok(_) => assert!(good, "{mode:o}"),
            Err(OpenError::Unsafe { what, .. }) => assert!(!good && what.contains("chmod"), "{mode:o}: {what}"),
            Err(other) => panic!("{mode:o}: {other}"),
        }
    }
}

#[test]
fn a_text_too_long_is_cut_at_a_character_with_a_mark_and_a_digest_too_long_is_refused() {
    let directory = quick_directory();
    let (journal, _) = Journal::open(config(directory.path())).unwrap();
    let at_most = "x".repeat(256);
    for reason in [at_most.clone(), format!("a{}", "æ".repeat(200))] {
        journal.append(&Record::Stop(Stop { reason: reason.into() })).unwrap();
    }
    let Record::Intent(mut long) = intent("r") else { unreachable!("it is an intent") };
    long.digest = vec![0; 65].into();
    assert_eq!(journal.append(&Record::Intent(long)), Err(Refusal::Invalid));
    journal.close(LONG).unwrap();
    let reasons: Vec<_> = Reader::open(directory.path())
        .unwrap()
        .filter_map(|entry| match entry.unwrap().record {
            Record::Stop(stop) => Some(stop.reason.into_owned()),
            _ => None,
        })
        .collect();
    assert_eq!(reasons, [at_most, format!("a{}…", "æ".repeat(126))]);
}

#[test]
fn appending_allocates_nothing_once_the_buffers_have_grown() {
    let directory = quick_directory();
    let (journal, _) = Journal::open(config(directory.path())).unwrap();
    let record = intent("r");
    let append = || {
        let seq = journal.append(&record).unwrap();
        assert_eq!(journal.wait(seq, LONG), Settled::Durable);
    };
    // Both buffers, which the writer swaps.
    (0..4).for_each(|_| append());
    let used = allocation_counter::measure(append);
    assert_eq!(used.count_total, 0);
}
