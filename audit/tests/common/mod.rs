//! Records and journals for the tests.
#![allow(dead_code, reason = "each test binary uses some of it")]

use std::{path::Path, time::Duration};

use segl_audit::{Attempt, Capacity, Config, Fate, Intent, Journal, Outcome, OutcomeResult, Record, Refusal};

/// Longer than anything takes that works.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A journal with the smallest segments.
pub(crate) fn config(directory: &Path) -> Config {
    let mut config = Config::new(directory);
    config.segment_bytes = 128 << 10;
    config.pending_bytes_max = 64 << 10;
    config.open_intents_max = 32;
    config
}

/// A directory in memory where there is one: many small fdatasyncs take their time on a disk.
pub(crate) fn quick_directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a place for temporary files")
}

/// A use of the key `login`.
pub(crate) fn intent(reference: &str) -> Record<'static> {
    Record::Intent(Intent {
        tenant: "nemlog-in".into(),
        client: "spiffe://example.dk/broker".into(),
        peer: Some("192.0.2.7:4711".into()),
        on_behalf_of: Some("portal".into()),
        operation: "digest".into(),
        key: "login".into(),
        key_spki_sha256: [7; 32],
        algorithm: "ecdsa-p256-sha256".into(),
        digest: vec![9; 32].into(),
        message_len: None,
        capacity: Some(Capacity::Company("12345678".into())),
        class: "login".into(),
        reference: Some(reference.to_owned().into()),
        attempt: 1,
        request_id: 42,
        connection_id: 3,
        document: None,
        key_version: None,
    })
}

/// Its good end.
pub(crate) fn outcome(intent: u64) -> Record<'static> {
    Record::Outcome(Outcome {
        intent,
        result: OutcomeResult::Released { signature_sha256: [5; 32] },
        token: Some("site-a".into()),
        attempts: 2,
        attempts_unknown: 1,
        tries: vec![
            Attempt {
                token: "site-b".into(),
                session: 9,
                fate: Fate::Unknown,
                code: Some("CKR_DEVICE_ERROR".into()),
                call: Some("C_Sign".into()),
                token_us: 40,
            },
            Attempt { token: "site-a".into(), session: 3, fate: Fate::Released, code: None, call: None, token_us: 55 },
        ]
        .into(),
        queue_us: 12,
        token_us: 55,
    })
}

/// Appends; a disk that can not keep up is waited for.
pub(crate) fn append_until_taken(journal: &Journal, record: &Record<'_>) -> u64 {
    loop {
        match journal.append(record) {
            Ok(seq) => return seq,
            Err(Refusal::Backlog) => std::thread::yield_now(),
            Err(refusal) => panic!("{refusal}"),
        }
    }
}
