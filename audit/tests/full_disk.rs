//! A disk that is really full: a small tmpfs, mounted for the test.
#![allow(clippy::unwrap_used, reason = "a test that can not go on says where")]

mod common;

use std::{io::Write, os::unix::fs::FileExt, path::PathBuf, process::Command, sync::mpsc};

use common::{LONG, config, intent, outcome};
use segl_audit::{Journal, Reader, Record, Refusal, Settled, State, verify};

/// A tmpfs; unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// None, loudly, where mounting is not allowed.
    fn mount(kib: u32) -> Option<SmallDisk> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={kib}k,mode=0700"), "segl-audit-test"])
            .arg(directory.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(SmallDisk(directory)),
            other => {
                eprintln!("SKIPPED: no tmpfs can be mounted here, so no disk is full: {other:?}");
                None
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "{} stays mounted", self.0.path().display());
    }
}

#[test]
fn a_full_disk_refuses_intents_takes_outcomes_and_resumes_by_itself_when_there_is_room() {
    let Some(disk) = SmallDisk::mount(1024) else { return };
    // Room for three segments.
    std::fs::write(disk.path("ballast"), vec![1; 600 << 10]).unwrap();
    let directory = disk.path("journal");
    let (journal, _) = Journal::open(config(&directory)).unwrap();
    let (changed, change) = mpsc::channel();
    journal.subscribe(Box::new(move || _ = changed.send(())));

    let open: Vec<u64> = (0..5).map(|_| journal.append(&intent("open")).unwrap()).collect();
    let mut delayed = 0;
    let refusal = loop {
        match journal.append(&intent("fill")) {
            Ok(seq) => {
                let seq = journal.append(&outcome(seq)).unwrap();
                assert_eq!(journal.wait(seq, LONG), Settled::Durable);
            }
            // The next segment is being allocated.
            Err(Refusal::Backlog) => {
                delayed += 1;
                std::thread::yield_now();
            }
            Err(refusal) => break refusal,
        }
    };
    assert_eq!(refusal, Refusal::Full);
    assert_eq!(journal.state(), State::Full);
    let trouble = journal.trouble().unwrap();
    assert!(trouble.contains("No space left on device") && trouble.contains("journal"), "{trouble}");
    for intent in open {
        let seq = journal.append(&outcome(intent)).unwrap();
        assert_eq!(journal.wait(seq, LONG), Settled::Durable, "an outcome finds room on a full disk");
    }
    // What was reserved for the outcomes and not used is room again, but not for long.
    let mut open = 0;
    while journal.append(&intent("reserve")) != Err(Refusal::Full) {
        open += 1;
    }
    assert!(open < 5, "{open} more intents than outcomes had been promised room");
    assert_eq!(journal.state(), State::Full);

    std::fs::remove_file(disk.path("ballast")).unwrap();
    // Nobody asks for it: the journal looks by itself.
    while journal.state() == State::Full {
        change.recv_timeout(LONG).unwrap();
    }
    let seq = journal.append(&intent("room again")).unwrap();
    assert_eq!(journal.wait(seq, LONG), Settled::Durable);
    assert_eq!((journal.state(), journal.trouble()), (State::Open, None));
    journal.close(LONG).unwrap();

    let report = verify(&directory).unwrap();
    assert_eq!((report.open_intents, report.refused_records), (open + 1, delayed + 2));
    let gaps = Reader::open(&directory).unwrap().map(Result::unwrap).filter_map(|entry| match entry.record {
        Record::Gap(gap) => Some(gap.why),
        _ => None,
    });
    assert_eq!(gaps.last(), Some("full".into()));
}

#[test]
fn a_torn_end_on_a_full_disk_keeps_no_journal_from_opening() {
    for spare_is_there in [true, false] {
        let Some(disk) = SmallDisk::mount(512) else { return };
        let directory = disk.path("journal");
        let (journal, recovery) = Journal::open(config(&directory)).unwrap();
        assert!(recovery.warnings.iter().any(|warning| warning.contains("memory")), "{recovery:?}");
        let last = journal.append(&intent("last")).unwrap();
        assert_eq!(journal.wait(last, LONG), Settled::Durable);
        // It has the waiting segment open, whose room would not be given back.
        drop(journal);
        let segment = std::fs::OpenOptions::new().write(true).open(directory.join("segl-00000000000000000001.journal"));
        segment.unwrap().write_all_at(&[7; 3000], 4096).unwrap();
        if !spare_is_there {
            let _ = std::fs::remove_file(directory.join("segl-spare"));
        } else if !directory.join("segl-spare").exists() {
            std::fs::write(directory.join("segl-spare"), vec![0; 128 << 10]).unwrap();
        }
        let mut ballast = std::fs::File::create(disk.path("ballast")).unwrap();
        while ballast.write_all(&[1; 4096]).is_ok() {}

        let (journal, recovery) = Journal::open(config(&directory)).unwrap();
        let repair = recovery.repaired.unwrap();
        assert_eq!(repair.side_file.is_some(), spare_is_there);
        assert_eq!(recovery.warnings.iter().any(|warning| warning.contains("no room for a copy")), !spare_is_there);
        assert_eq!(recovery.interrupted, [last]);
        journal.close(LONG).unwrap();
        let report = verify(&directory).unwrap();
        assert_eq!((report.repairs, report.torn_tail), (1, None));
    }
}

#[test]
fn a_journal_on_a_full_disk_opens_and_says_that_it_is_full() {
    let Some(disk) = SmallDisk::mount(256) else { return };
    std::fs::write(disk.path("ballast"), vec![1; 200 << 10]).unwrap();
    let directory = disk.path("journal");
    let mut config = config(&directory);
    config.retry = LONG;
    let (journal, _) = Journal::open(config).unwrap();
    assert_eq!(journal.state(), State::Full);
    assert_eq!(journal.append(&intent("none")), Err(Refusal::Full));
    let (changed, change) = mpsc::channel();
    journal.subscribe(Box::new(move || _ = changed.send(())));
    std::fs::remove_file(disk.path("ballast")).unwrap();
    while journal.state() == State::Full {
        journal.look_for_room();
        change.recv_timeout(LONG).unwrap();
    }
    let seq = journal.append(&intent("some")).unwrap();
    assert_eq!(journal.wait(seq, LONG), Settled::Durable);
}
