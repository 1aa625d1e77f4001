//! Files of arbitrary bytes are refused or repaired, never believed: no panic, and no memory by a length that only
//! the file says.
#![allow(clippy::unwrap_used, reason = "a test that can not go on says where")]

mod common;

use common::{LONG, config, intent, outcome, quick_directory};
use proptest::prelude::*;
use segl_audit::{Filter, Format, Journal, show, verify};

const NAME: &str = "segl-00000000000000000001.journal";

/// A sound segment of some batches, cut after them: 128 KiB of zeros would only hide what is tried.
fn sound() -> Vec<u8> {
    let directory = quick_directory();
    let (journal, _) = Journal::open(config(directory.path())).unwrap();
    for number in 0..3 {
        let seq = journal.append(&intent("r")).unwrap();
        journal.wait(journal.append(&outcome(seq)).unwrap(), LONG);
        assert!(seq > number);
    }
    journal.close(LONG).unwrap();
    let mut bytes = std::fs::read(directory.path().join(NAME)).unwrap();
    bytes.truncate(16 << 10);
    bytes
}

/// Reads it in every way there is. Returns the most memory that reading held.
fn survives(bytes: &[u8]) -> u64 {
    let directory = quick_directory();
    std::fs::write(directory.path().join(NAME), bytes).unwrap();
    let used = allocation_counter::measure(|| {
        let _ = verify(directory.path());
        let _ = show(directory.path(), &Filter::default(), Format::Json, &mut std::io::sink());
    });
    if let Ok((journal, _)) = Journal::open(config(directory.path())) {
        journal.close(LONG).unwrap();
        verify(directory.path()).expect("what was opened is sound afterwards");
    }
    used.bytes_max
}

/// Decoded records are a few times as long as their bytes; the constant is the buffer for looking at the end.
fn fair(len: usize) -> u64 {
    (2 << 20) + 32 * len as u64
}

/// A frame or batch that says it is as long as 32 bits can say.
#[test]
fn a_length_beyond_the_file_is_not_believed() {
    let sound = sound();
    for at in [512 + 12, 512 + 32] {
        let mut bytes = sound.clone();
        bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(survives(&bytes) < fair(bytes.len()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..8192)) {
        prop_assert!(survives(&bytes) < fair(bytes.len()));
    }

    #[test]
    fn arbitrary_bytes_after_a_sound_header_never_panic(rest in proptest::collection::vec(any::<u8>(), 0..4096)) {
        let mut bytes = sound();
        bytes.truncate(512);
        bytes.extend(rest);
        prop_assert!(survives(&bytes) < fair(bytes.len()));
    }

    #[test]
    fn a_frame_of_arbitrary_bytes_with_right_checksums_never_panics(
        body in proptest::collection::vec(any::<u8>(), 0..600),
        records in 0u32..3,
    ) {
        let mut bytes = sound();
        bytes.truncate(512);
        bytes.extend(batch(&body, records));
        bytes.resize(8 << 10, 0);
        prop_assert!(survives(&bytes) < fair(bytes.len()));
    }

    #[test]
    fn changed_bytes_in_a_sound_segment_never_panic(
        changes in proptest::collection::vec((0usize..16 << 10, any::<u8>()), 1..6),
    ) {
        let mut bytes = sound();
        changes.into_iter().for_each(|(at, byte)| bytes[at] = byte);
        prop_assert!(survives(&bytes) < fair(bytes.len()));
    }
}

/// A batch around one frame with this body, as the format's description has it.
fn batch(body: &[u8], records: u32) -> Vec<u8> {
    let mut hashed = vec![0; 32];
    hashed.extend(body);
    let mut frame = ring::digest::digest(&ring::digest::SHA256, &hashed).as_ref().to_vec();
    frame.extend(body);
    let mut covered = (32 + 8 + frame.len() as u32).to_le_bytes().to_vec();
    covered.extend(records.to_le_bytes());
    covered.extend(0u32.to_le_bytes());
    covered.extend(1u64.to_le_bytes());
    covered.extend((body.len() as u32).to_le_bytes());
    covered.extend(crc32c::crc32c(&frame).to_le_bytes());
    covered.extend(frame);
    let mut batch = b"SEGLBAT1".to_vec();
    batch.extend(crc32c::crc32c(&covered).to_le_bytes());
    batch.extend(covered);
    batch
}
