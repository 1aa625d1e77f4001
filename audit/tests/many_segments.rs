//! A journal of several segments: one chain, in which nothing may be missing.
#![allow(clippy::unwrap_used, reason = "a test that can not go on says where")]

mod common;

use std::{
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

use common::{LONG, append_until_taken, config, intent, outcome, quick_directory};
use segl_audit::{Entry, Journal, OpenError, ReadError, Reader, Record, Settled, State, verify};

/// Names of the segments in their order.
fn segments(directory: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut segments: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "journal")).collect();
    segments.sort();
    segments
}

fn with_segments(count: usize) -> tempfile::TempDir {
    let directory = quick_directory();
    let (journal, _) = Journal::open(config(directory.path())).unwrap();
    fill_segments(&journal, directory.path(), count);
    journal.close(LONG).unwrap();
    directory
}

fn fill_segments(journal: &Journal, directory: &Path, count: usize) {
    while segments(directory).len() < count {
        let seq = append_until_taken(journal, &intent("r"));
        let seq = append_until_taken(journal, &outcome(seq));
        assert_eq!(journal.wait(seq, LONG), Settled::Durable);
    }
}

#[test]
fn records_go_on_across_segments_and_restarts_without_a_hole() {
    let directory = with_segments(3);
    let before = verify(directory.path()).unwrap();
    let (journal, recovery) = Journal::open(config(directory.path())).unwrap();
    assert_eq!((recovery.segments, recovery.last_seq, recovery.last_hash), (3, before.last_seq, before.last_hash));
    assert_eq!(journal.append(&intent("on")), Ok(before.last_seq + 1));
    journal.close(LONG).unwrap();
    let report = verify(directory.path()).unwrap();
    assert_eq!((report.records, report.first_seq, report.segments), (before.records + 1, 1, 3));
    let numbers: Vec<u64> = Reader::open(directory.path()).unwrap().map(|entry| entry.unwrap().seq).collect();
    assert_eq!(numbers, (1..=report.last_seq).collect::<Vec<_>>());
}

#[test]
fn an_intent_left_open_many_segments_ago_gets_its_outcome_from_the_next_run() {
    let directory = quick_directory();
    let (journal, _) = Journal::open(config(directory.path())).unwrap();
    let settled = append_until_taken(&journal, &intent("settled"));
    let old = append_until_taken(&journal, &intent("old"));
    append_until_taken(&journal, &outcome(settled));
    fill_segments(&journal, directory.path(), 5);
    let young = append_until_taken(&journal, &intent("young"));
    journal.close(LONG).unwrap();
    let kept = quick_directory();
    for segment in segments(directory.path()) {
        std::fs::copy(&segment, kept.path().join(segment.file_name().unwrap())).unwrap();
    }

    for expected in [[old, young].as_slice(), &[]] {
        let (journal, recovery) = Journal::open(config(directory.path())).unwrap();
        assert_eq!(recovery.interrupted, expected);
        journal.close(LONG).unwrap();
    }
    assert_eq!(verify(directory.path()).unwrap().open_intents, 0);

    // Archived elsewhere, the old one is not looked for.
    std::fs::remove_file(&segments(kept.path())[0]).unwrap();
    let (journal, recovery) = Journal::open(config(kept.path())).unwrap();
    assert_eq!(recovery.interrupted, [young]);
    journal.close(LONG).unwrap();
}

#[test]
fn a_missing_segment_is_told_by_verify_and_before_the_last_by_open() {
    let directory = with_segments(4);
    let segments = segments(directory.path());
    let hidden = directory.path().join("hidden");
    for (missing, open_sees_it) in [(1, false), (2, true)] {
        std::fs::rename(&segments[missing], &hidden).unwrap();
        let Err(ReadError::Defect(defect)) = verify(directory.path()) else { panic!("{missing} is not missed") };
        assert_eq!(defect.file, segments[missing + 1]);
        assert!(defect.what.contains("missing"), "{defect}");
        assert_eq!(Journal::open(config(directory.path())).is_err(), open_sees_it);
        std::fs::rename(&hidden, &segments[missing]).unwrap();
    }
    // The oldest may be archived elsewhere: what is left is a journal that begins later.
    std::fs::remove_file(&segments[0]).unwrap();
    assert!(verify(directory.path()).unwrap().first_seq > 1);
}

#[test]
fn a_byte_changed_in_the_segment_before_the_last_is_refused() {
    let directory = with_segments(2);
    let first = &segments(directory.path())[0];
    let sound = std::fs::read(first).unwrap();
    for at in (0..sound.len()).step_by(997).chain([sound.len() - 1]) {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x10;
        std::fs::write(first, bytes).unwrap();
        let Err(ReadError::Defect(defect)) = verify(directory.path()) else { panic!("byte {at} passes verify") };
        assert_eq!(&defect.file, first);
        assert!(defect.offset <= at as u64);
        match Journal::open(config(directory.path())) {
            Err(OpenError::Read(ReadError::Defect(refused))) => assert_eq!(refused, defect),
            other => panic!("byte {at}: {other:?}"),
        }
    }
}

#[test]
fn records_of_many_threads_stand_there_once_each_and_in_each_threads_order() {
    const THREADS: u64 = 4;
    const EACH: u64 = 400;
    let directory = quick_directory();
    let (journal, _) = Journal::open(config(directory.path())).unwrap();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let journal = &journal;
            scope.spawn(move || {
                for number in 0..EACH {
                    let seq = append_until_taken(journal, &intent(&format!("{thread}-{number}")));
                    append_until_taken(journal, &outcome(seq));
                }
            });
        }
    });
    journal.close(LONG).unwrap();
    let report = verify(directory.path()).unwrap();
    assert_eq!((report.intents, report.open_intents), (THREADS * EACH, 0));
    assert!(report.is_consistent());
    let mut next = [0; THREADS as usize];
    for entry in Reader::open(directory.path()).unwrap() {
        let Record::Intent(intent) = entry.unwrap().record else { continue };
        let reference = intent.reference.unwrap();
        let (thread, number) = reference.split_once('-').unwrap();
        let next = &mut next[thread.parse::<usize>().unwrap()];
        assert_eq!(number.parse::<u64>().unwrap(), *next);
        *next += 1;
    }
    assert_eq!(next, [EACH; THREADS as usize]);
}

#[test]
fn a_reader_beside_a_writer_sees_sound_records_only() {
    let directory = quick_directory();
    let (journal, _) = Journal::open(config(directory.path())).unwrap();
    let first = append_until_taken(&journal, &intent("first"));
    assert_eq!(journal.wait(first, LONG), Settled::Durable);
    let (stop, stopped) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let journal = &journal;
        scope.spawn(move || {
            while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
                let seq = append_until_taken(journal, &intent("r"));
                append_until_taken(journal, &outcome(seq));
            }
        });
        // Until the writer has gone through several segments under the reader's eyes.
        let mut last = 0;
        while segments(directory.path()).len() < 6 {
            // What is there now: a reader that is no faster than the writer would never see the end.
            let now = journal.stats().durable_seq as usize;
            let entries: Vec<Entry> = Reader::open(directory.path()).unwrap().map(Result::unwrap).take(now).collect();
            assert_eq!(entries.len(), now);
            assert!(entries.iter().zip(1..).all(|(entry, number)| entry.seq == number));
            assert!(entries.len() >= last);
            assert_ne!(journal.state(), State::Failed);
            last = entries.len();
        }
        drop(stop);
    });
    journal.close(LONG).unwrap();
    assert_eq!(verify(directory.path()).unwrap().torn_tail, None);
}
