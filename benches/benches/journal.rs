//! What an intent costs the reactor that appends it. The disk's part runs on the journal's own thread.

use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use segl_audit::{Config, Intent, Journal, Outcome, OutcomeResult, Record};

/// Intents appended before the journal is waited for: far below what may wait for the disk.
const BURST: u64 = 1000;

fn intent() -> Record<'static> {
    Record::Intent(Intent {
        tenant: "town-hall".into(),
        client: "spiffe://segl.example/town-hall".into(),
        peer: Some("127.0.0.1:37958".into()),
        on_behalf_of: Some("town-hall-portal".into()),
        operation: "sign".into(),
        key: "seal-p256".into(),
        key_spki_sha256: [3; 32],
        algorithm: "ecdsa-p256-sha256".into(),
        digest: vec![7; 32].into(),
        message_len: None,
        capacity: None,
        class: "signature".into(),
        reference: Some("4f1c2ab09d7e4d21".into()),
        attempt: 1,
        request_id: 1,
        connection_id: 1,
        document: None,
        key_version: None,
    })
}

fn outcome(intent: u64) -> Record<'static> {
    let result = OutcomeResult::Released { signature_sha256: [5; 32] };
    Record::Outcome(Outcome {
        intent,
        result,
        token: Some("hsm-a".into()),
        attempts: 1,
        attempts_unknown: 0,
        tries: Default::default(),
        queue_us: 40,
        token_us: 900,
    })
}

fn journal(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (journal, _) = Journal::open(Config::new(directory.path().join("journal"))).expect("a new journal opens");
    let record = intent();
    criterion.bench_function("append 1000 intents and outcomes", |bencher| {
        let durable = |journal: &Journal| {
            let seq = journal.stats().appended_seq;
            journal.wait(seq, Duration::from_secs(10));
        };
        bencher.iter_batched(
            || durable(&journal),
            |()| {
                for _ in 0..BURST {
                    let seq = journal.append(&record).expect("there is room");
                    journal.append(&outcome(seq)).expect("an outcome always has room");
                }
            },
            BatchSize::PerIteration,
        );
    });
}

criterion_group!(benches, journal);
criterion_main!(benches);
