//! What a crash leaves at the end is repaired; what anything else has changed is refused, with the place.
#![allow(clippy::unwrap_used, reason = "a test that can not go on says where")]

mod common;

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use common::{LONG, config, intent, outcome, quick_directory};
use segl_audit::{Entry, Journal, OpenError, ReadError, Reader, Record, Settled, verify};

const BLOCK: usize = 512;

/// A segment of batches with one record each, and where they are.
struct Written {
    name: String,
    bytes: Vec<u8>,
    batches: Vec<Range<usize>>,
    entries: Vec<Entry>,
}

fn written(records: u64) -> Written {
    let directory = quick_directory();
    let (journal, _) = Journal::open(config(directory.path())).unwrap();
    for number in 0..records {
        let seq = journal.append(&if number % 2 == 0 { intent("r") } else { outcome(number) }).unwrap();
        assert_eq!(journal.wait(seq, LONG), Settled::Durable);
    }
    journal.close(LONG).unwrap();
    let name = "segl-00000000000000000001.journal".to_owned();
    let bytes = std::fs::read(directory.path().join(&name)).unwrap();
    let batches: Vec<_> = (0..bytes.len())
        .step_by(BLOCK)
        .filter(|&at| bytes[at..].starts_with(b"SEGLBAT1"))
        .map(|at| at..at + u32::from_le_bytes(bytes[at + 12..at + 16].try_into().unwrap()) as usize)
        .collect();
    assert_eq!(batches.len() as u64, records);
    Written { name, bytes, batches, entries: read(directory.path()) }
}

fn read(directory: &Path) -> Vec<Entry> {
    Reader::open(directory).unwrap().map(Result::unwrap).collect()
}

/// A directory in which this segment stands alone.
fn directory_with(name: &str, bytes: &[u8]) -> tempfile::TempDir {
    let directory = quick_directory();
    std::fs::write(directory.path().join(name), bytes).unwrap();
    directory
}

fn side_files(directory: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.to_string_lossy().contains(".torn-")).collect()
}

/// Opens what a crash has left, goes on, and sees that everything before the last batch is as it was.
fn goes_on_with_all_but_the_last(written: &Written, bytes: &[u8], torn: Option<&[u8]>, label: &str) {
    let directory = directory_with(&written.name, bytes);
    let durable = &written.entries[..written.entries.len() - 1];
    let last = written.batches.last().unwrap();

    assert_eq!(read(directory.path()), durable, "{label}: a reader stops at the end without complaint");
    let (journal, recovery) = Journal::open(config(directory.path())).unwrap();
    assert_eq!(recovery.last_seq, durable.len() as u64, "{label}");
    let repair = recovery.repaired;
    match torn {
        None => assert_eq!(side_files(directory.path()), [] as [PathBuf; 0], "{label}"),
        Some(torn) => {
            let repair = repair.clone().unwrap_or_else(|| panic!("{label}: no repair"));
            assert_eq!((repair.offset, repair.bytes), (last.start as u64, torn.len() as u64), "{label}");
            assert_eq!(std::fs::read(repair.side_file.unwrap()).unwrap(), torn, "{label}");
        }
    }
    let seq = journal.append(&intent("after")).unwrap();
    assert_eq!(journal.wait(seq, LONG), Settled::Durable);
    journal.close(LONG).unwrap();

    let entries = read(directory.path());
    assert_eq!(&entries[..durable.len()], durable, "{label}");
    assert_eq!(entries.last().unwrap().record, intent("after"), "{label}");
    let report = verify(directory.path()).unwrap();
    assert_eq!(report.repairs, u64::from(repair.is_some()), "{label}");
    assert_eq!(report.torn_tail, None, "{label}");
}

#[test]
fn a_batch_torn_at_any_byte_is_repaired_and_costs_no_durable_record() {
    let written = written(4);
    let last = written.batches.last().unwrap().clone();
    for cut in last.clone() {
        let mut short = written.bytes.clone();
        short.truncate(cut);
        let torn = (cut > last.start).then(|| trimmed(&short[last.start..]));
        goes_on_with_all_but_the_last(&written, &short, torn, &format!("cut at {cut}"));

        let mut zeroed = written.bytes.clone();
        zeroed[cut..last.end].fill(0);
        let torn = (cut > last.start).then(|| trimmed(&zeroed[last.start..last.end]));
        goes_on_with_all_but_the_last(&written, &zeroed, torn, &format!("zeroed from {cut}"));

        let mut garbled = written.bytes.clone();
        garbled[cut..last.end].iter_mut().enumerate().for_each(|(at, byte)| *byte ^= 0x80 | (at as u8 & 0x7f));
        let torn = trimmed(&garbled[last.start..last.end]);
        goes_on_with_all_but_the_last(&written, &garbled, Some(torn), &format!("garbled from {cut}"));

        // The blocks of a write reach the disk in any order: the beginning may be what is missing.
        let mut headless = written.bytes.clone();
        headless[last.start..cut].fill(0);
        if cut > last.start {
            let torn = trimmed(&headless[last.start..last.end]);
            goes_on_with_all_but_the_last(&written, &headless, Some(torn), &format!("zeroed up to {cut}"));
        }
    }
}

/// Zeros at the end belong to what was never written.
fn trimmed(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1)]
}

#[test]
fn a_byte_changed_in_an_earlier_batch_is_refused_with_its_place() {
    let written = written(4);
    let last = written.batches.last().unwrap().start;
    for at in 0..last {
        let mut bytes = written.bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        let directory = directory_with(&written.name, &bytes);
        let index = written.batches.iter().rposition(|batch| batch.start <= at);
        let place = index.map_or((0, 1), |index| (written.batches[index].start as u64, index as u64 + 1));

        let Err(ReadError::Defect(defect)) = verify(directory.path()) else { panic!("byte {at} passes verify") };
        assert_eq!((defect.offset, defect.seq), place, "byte {at}: {defect}");
        assert_eq!(defect.file, directory.path().join(&written.name));
        match Journal::open(config(directory.path())) {
            Err(OpenError::Read(ReadError::Defect(refused))) => assert_eq!(refused, defect, "byte {at}"),
            other => panic!("byte {at}: {other:?}"),
        }
        assert_eq!(
            std::fs::read(directory.path().join(&written.name)).unwrap(),
            bytes,
            "what is refused is not touched"
        );
    }
}

#[test]
fn a_record_made_anew_with_right_checksums_breaks_the_chain() {
    let written = written(4);
    let batch = written.batches[1].clone();
    let mut bytes = written.bytes.clone();
    // The outcome's last byte is its `token_us`.
    bytes[batch.end - 1] ^= 1;
    let frame = batch.start + 32;
    let crc = crc32c::crc32c(&bytes[frame + 8..batch.end]);
    bytes[frame + 4..frame + 8].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[batch.start + 12..batch.end]);
    bytes[batch.start + 8..batch.start + 12].copy_from_slice(&crc.to_le_bytes());
    let directory = directory_with(&written.name, &bytes);
    let Err(ReadError::Defect(defect)) = verify(directory.path()) else { panic!("it passes") };
    assert!(defect.what.contains("hash"), "{defect}");
    assert_eq!((defect.offset, defect.seq), (batch.start as u64, 2));
}

#[test]
fn a_repair_that_a_crash_kept_from_the_record_is_recorded_by_the_next_start() {
    let written = written(3);
    let last = written.batches.last().unwrap().clone();
    let mut bytes = written.bytes.clone();
    bytes[last.clone()].fill(0);
    let directory = directory_with(&written.name, &bytes);
    let side = format!("{}.torn-{}", written.name, last.start);
    std::fs::write(directory.path().join(&side), b"torn").unwrap();
    for _ in 0..2 {
        // Once is enough: the second start finds the record.
        Journal::open(config(directory.path())).unwrap().0.close(LONG).unwrap();
    }
    let repairs: Vec<_> = read(directory.path())
        .into_iter()
        .filter_map(|entry| match entry.record {
            Record::Repaired(repaired) => Some((repaired.side_file, repaired.bytes)),
            _ => None,
        })
        .collect();
    assert_eq!(repairs, [(side.into(), 4)]);
}
