//! A process that is killed while it writes: whatever it had been told to be durable is there.
#![allow(clippy::unwrap_used, reason = "a test that can not go on says where")]

mod common;

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

use common::{LONG, config, intent, outcome};
use segl_audit::{Journal, Reader, Settled, verify};

const DIRECTORY: &str = "SEGL_AUDIT_TEST_DIRECTORY";

#[test]
fn every_acknowledged_record_survives_sigkill() {
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 0..8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_process_that_is_killed", "--ignored", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (mut seen, before) = (0, acknowledged);
        // Until the pipe ends: what it said before it died counts too.
        for line in lines.map_while(Result::ok) {
            let Some(seq) = line.strip_prefix("durable ").and_then(|seq| seq.strip_suffix('.')) else { continue };
            acknowledged = seq.parse::<u64>().unwrap();
            seen += 1;
            if seen == 20 + 37 * round {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(acknowledged > before, "round {round}: it wrote something");

        let report = verify(directory.path()).unwrap();
        assert!(report.last_seq >= acknowledged, "{acknowledged} was durable, {} is the last", report.last_seq);
        assert!(report.is_consistent());
        let (journal, recovery) = Journal::open(config(directory.path())).unwrap();
        assert!(recovery.last_seq >= acknowledged);
        journal.close(LONG).unwrap();
        assert_eq!(verify(directory.path()).unwrap().open_intents, 0, "each intent has an outcome by now");
    }
    let report = verify(directory.path()).unwrap();
    assert_eq!(Reader::open(directory.path()).unwrap().count() as u64, report.last_seq);
    assert!(report.segments > 1, "it went on to further segments too");
}

#[test]
#[ignore = "started by the test above, to be killed"]
fn the_process_that_is_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let (journal, _) = Journal::open(config(Path::new(&directory))).unwrap();
    let mut open = Vec::new();
    loop {
        open.extend((0..3).filter_map(|_| journal.append(&intent("killed")).ok()));
        let Some(&last) = open.last() else { continue };
        assert_eq!(journal.wait(last, LONG), Settled::Durable);
        // One write a line, so that a line is there whole or not at all; the full stop proves it.
        std::io::stdout().write_all(format!("durable {last}.\n").as_bytes()).unwrap();
        open.drain(..).for_each(|intent| _ = journal.append(&outcome(intent)).unwrap());
    }
}
