//! What cannot be recorded is not signed: a full disk, and two daemons with one journal.

use std::{
    collections::{HashMap, HashSet},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use segl_tests::{
    conversation::sign_request,
    process::Service,
    site::{P256, Token},
};
use segl_wire::{Capacity, Code, Context, Cvr, EcdsaEncoding, Fault, Retry, SignedState};

use crate::{
    load::{public_key, run, verify},
    room::{DIGEST, Room, SOON, connect, journal, journal_in, sound, until},
};

/// A small file system of its own. Dropped, it is unmounted.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    /// None without the right to mount.
    fn mount(size: &str) -> Option<Tmpfs> {
        let at = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size},mode=700"), "tmpfs"]).arg(at.path());
        let output = mount.output().unwrap();
        if !output.status.success() {
            eprintln!("SKIPPED: a tmpfs can not be mounted: {}", String::from_utf8_lossy(&output.stderr));
            return None;
        }
        Some(Tmpfs(at))
    }

    fn journal(&self) -> PathBuf {
        self.0.path().join("journal")
    }

    /// A file that takes what room is left.
    fn fill(&self) -> PathBuf {
        let path = self.0.path().join("filler");
        let mut file = std::fs::File::create(&path).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
        path
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        match Command::new("umount").arg(self.0.path()).output() {
            Ok(output) if output.status.success() => {}
            other => eprintln!("{} stays mounted: {other:?}", self.0.path().display()),
        }
    }
}

#[test]
fn on_a_full_disk_nothing_is_signed_and_service_resumes_by_itself_when_there_is_room() {
    let Some(disk) = Tmpfs::mount("8m") else { return };
    let mut room = Room::open(Token::Embedded, |site| {
        let audit = format!("directory = {:?}\nsegment_size = \"1MiB\"", disk.journal());
        site.segld_toml = site.segld_toml.replace("directory = \"journal\"\nsegment_size = \"4MiB\"", &audit);
    });
    let filler = disk.fill();
    let key = public_key(&room.site);
    let (progress, _rounds) = std::sync::mpsc::channel();

    let account = run(connect(&room.site, 0), "filling", 10_000, &progress);
    assert_eq!(account.lost(), [0; 0]);
    assert!(!account.refused.is_empty(), "the disk is not full after {} signatures", account.signed.len());
    assert!(account.refused.values().all(|code| *code == Code::AuditUnavailable), "{:?}", account.refused);
    let mut conversation = connect(&room.site, 0);
    let request = sign_request(P256, "ecdsa-p256-sha256", &DIGEST);
    let error = conversation.sign(&request).unwrap().unwrap_err();
    assert_eq!((error.code, error.fault, error.signed), (Code::AuditUnavailable, Fault::Server, SignedState::No));
    assert_eq!(error.retry, Retry::Elsewhere);
    assert!(error.retry_after_ms.is_some_and(|ms| ms > 0), "{error:?}");
    let readiness = room.admin.get("/readyz").unwrap();
    assert_eq!((readiness.status, &readiness.json["journal"]), (503, &"full".into()), "{}", readiness.text);
    assert_eq!(room.admin.get("/healthz").unwrap().status, 200, "a full disk is no reason to restart");
    assert_eq!(room.metric("segl_journal_open", &[]), 0.0);

    std::fs::remove_file(filler).unwrap();
    until("there is room again", || room.admin.get("/readyz").unwrap().status == 200);
    sound(&mut conversation);
    let resumed = run(connect(&room.site, 1), "resumed", 500, &progress);
    assert_eq!((resumed.signed.len(), resumed.refused.len()), (500, 0));
    assert!(room.segld.terminate(SOON).unwrap().success());

    // Whatever a client holds is in the journal, and what was refused is not.
    let entries = journal_in(&disk.journal());
    let recorded: HashSet<_> = entries.iter().filter_map(|entry| entry["reference"].as_str()).collect();
    for (reference, signature) in account.signed.values().chain(resumed.signed.values()) {
        verify(&key, reference, signature);
        assert!(recorded.contains(&**reference), "{reference} was signed and is not in the journal");
    }
    let ours = recorded.iter().filter(|reference| reference.starts_with("filling-")).count();
    assert_eq!(ours, account.signed.len(), "a request was refused and is in the journal");
    assert!(entries.iter().any(|entry| entry["kind"] == "gap"), "the journal says that requests were refused");
}

#[test]
fn a_second_segld_on_the_same_journal_refuses_to_start_and_the_first_goes_on() {
    let room = Room::open(Token::Embedded, |_| {});
    let mut conversation = connect(&room.site, 0);
    let mut second = Service::start(room.site.segld_command(), &room.site.dir, "second").unwrap();
    assert_eq!(second.wait(SOON).unwrap().code(), Some(1));
    let said = second.log();
    let journal = room.site.journal().canonicalize().unwrap();
    assert!(said.contains("segld can not go on") && said.contains(journal.to_str().unwrap()), "{said}");
    assert!(said.contains("another process keeps its journal here"), "{said}");
    sound(&mut conversation);
}

#[test]
fn the_journal_tells_who_asked_for_what_and_in_which_capacity_and_what_became_of_it() {
    let mut room = Room::open(Token::Embedded, |_| {});
    let mut conversation = connect(&room.site, 0);
    let mut held = HashMap::new();
    for (reference, capacity) in [
        ("as-himself", Some(Capacity::Citizen)),
        ("for-a-company", Some(Capacity::Company(Cvr::new("12345678").unwrap()))),
        ("unsaid", None),
    ] {
        let mut request = sign_request(P256, "ecdsa-p256-sha256", &DIGEST);
        // The record speaks of the signature as the token made it.
        request.encoding = EcdsaEncoding::Raw;
        let on_behalf_of = Some("a portal".into());
        request.meta.context = Context { reference: Some(reference.into()), on_behalf_of, capacity };
        let signature = conversation.sign(&request).unwrap().unwrap();
        held.insert(reference, ring::digest::digest(&ring::digest::SHA256, &signature));
    }
    assert!(room.segld.terminate(SOON).unwrap().success());

    let entries = journal(&room.site);
    let recorded = |reference: &str| {
        let intent = entries.iter().find(|entry| entry["kind"] == "intent" && entry["reference"] == reference).unwrap();
        for (field, value) in
            [("tenant", "town-hall"), ("on_behalf_of", "a portal"), ("key", P256), ("algorithm", "ecdsa-p256-sha256")]
        {
            assert_eq!(intent[field], value, "{intent}");
        }
        assert_eq!(intent["digest"], "07".repeat(32), "{intent}");
        let outcome = entries.iter().find(|entry| entry["kind"] == "outcome" && entry["intent"] == intent["seq"]);
        let outcome = outcome.expect("every intent has its outcome");
        assert_eq!(outcome["result"], "released", "{outcome}");
        let hash: String = held[reference].as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(outcome["signature_sha256"], hash, "{outcome}");
        intent["capacity"].clone()
    };
    assert_eq!(recorded("as-himself"), "citizen");
    assert_eq!(recorded("for-a-company"), "12345678");
    assert_eq!(recorded("unsaid"), serde_json::Value::Null);
}

/// Its segments, oldest first, as the manual's `segl-[0-9]*` finds them.
fn segments(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "journal");
    let mut segments: Vec<_> = entries.filter(is_segment).collect();
    segments.sort();
    segments
}

#[test]
fn what_is_copied_while_it_is_written_is_sound_and_segments_that_were_archived_are_not_missed() {
    let mut room = Room::open(Token::Embedded, |site| {
        site.segld_toml = site.segld_toml.replace("segment_size = \"4MiB\"", "segment_size = \"1MiB\"");
    });
    let (directory, archive) = (room.site.journal(), room.site.dir.join("archive"));
    let (progress, _rounds) = std::sync::mpsc::channel();
    let connection = connect(&room.site, 0);
    std::thread::scope(|scope| {
        let load = scope.spawn(move || run(connection, "archived", 6_000, &progress));
        until("there are some segments", || segments(&directory).len() > 2);
        // The list first, then the files: one that is begun meanwhile has no place in it.
        std::fs::create_dir(&archive).unwrap();
        for segment in segments(&directory) {
            std::fs::copy(&segment, archive.join(segment.file_name().unwrap())).unwrap();
        }
        assert!(!load.is_finished(), "it was copied while it was written");
        assert_eq!(load.join().unwrap().lost(), [0; 0]);
    });
    assert!(!journal_in(&archive).is_empty());

    let mut old = segments(&directory);
    old.pop();
    old.iter().for_each(|segment| std::fs::remove_file(segment).unwrap());
    assert!(!journal_in(&directory).is_empty(), "sound, from the first that is there");
    assert!(room.segld.terminate(SOON).unwrap().success());
    room.segld = room.site.start_segld().unwrap();
    sound(&mut connect(&room.site, 0));
    assert!(room.segld.terminate(SOON).unwrap().success());
    journal_in(&directory);
}
