//! What people and programs get to see of a journal.
#![allow(clippy::unwrap_used, reason = "a test that can not go on says where")]

mod common;

use std::path::Path;

use common::{LONG, config, intent, outcome, quick_directory};
use segl_audit::{Discarded, Filter, Format, Journal, Operator, Record, Signatures, parse_utc, show, utc, verify};

fn written() -> tempfile::TempDir {
    let directory = quick_directory();
    let mut config = config(directory.path());
    config.clock = || 1_795_291_845_123_456_789;
    let (journal, _) = Journal::open(config).unwrap();
    let first = journal.append(&intent("first")).unwrap();
    let second = journal.append(&intent("second one")).unwrap();
    journal.append(&outcome(second)).unwrap();
    journal.append(&outcome(first)).unwrap();
    let command = "drain\n9 2026-11-21T20:10:45Z stop reason=none";
    let forged = Operator {
        who: "root".into(),
        command: command.into(),
        result: "ok".into(),
        uid: Some(1000),
        pid: Some(4711),
        asked: Some(7),
    };
    journal.append(&Record::Operator(forged)).unwrap();
    journal.close(LONG).unwrap();
    directory
}

fn shown(directory: &Path, filter: &Filter, format: Format) -> Vec<String> {
    let mut out = Vec::new();
    let count = show(directory, filter, format, &mut out).unwrap();
    let lines: Vec<String> = String::from_utf8(out).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(lines.len() as u64, count);
    lines
}

#[test]
fn a_record_is_one_line_that_says_everything() {
    let directory = written();
    let lines = shown(directory.path(), &Filter::default(), Format::Text);
    assert_eq!(
        lines[3],
        format!(
            "4 2026-11-21T20:10:45.123456789Z outcome intent=1 result=released signature_sha256={} token=site-a \
             queue_us=12 token_us=55 attempts=2 attempts_unknown=1 \
             tries=[site-b/9:unknown:CKR_DEVICE_ERROR:C_Sign:40us site-a/3:released:55us]",
            "05".repeat(32)
        )
    );
    assert!(lines[1].contains(r#" reference="second one" "#), "{}", lines[1]);
    assert!(lines[0].contains(" capacity=12345678 "), "{}", lines[0]);
}

#[test]
fn a_record_can_not_look_like_two() {
    let directory = written();
    let lines = shown(directory.path(), &Filter::default(), Format::Text);
    assert_eq!(lines.len(), 5);
    assert!(lines[4].contains(r#"command="drain\n9 "#), "{}", lines[4]);
}

#[test]
fn json_has_a_line_a_record_with_the_same_fields() {
    let directory = written();
    let lines = shown(directory.path(), &Filter::default(), Format::Json);
    let intent: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(intent["seq"], 1);
    assert_eq!(intent["kind"], "intent");
    assert_eq!(intent["time"], "2026-11-21T20:10:45.123456789Z");
    assert_eq!(intent["digest"], "09".repeat(32));
    assert_eq!(intent["attempt"], 1);
    assert_eq!(intent.get("message_len"), None);
    let outcome: serde_json::Value = serde_json::from_str(&lines[2]).unwrap();
    assert_eq!((&outcome["attempts"], &outcome["attempts_unknown"]), (&2.into(), &1.into()));
    assert_eq!(outcome["tries"][0]["code"], "CKR_DEVICE_ERROR");
    assert_eq!((&outcome["tries"][1]["fate"], &outcome["tries"][1]["token_us"]), (&"released".into(), &55.into()));
}

#[test]
fn a_filter_shows_what_fits_and_the_outcome_with_its_intent() {
    let directory = written();
    let of = |filter: Filter| -> Vec<String> {
        let lines = shown(directory.path(), &filter, Format::Text);
        lines.iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(of(Filter { reference: some("first"), ..Filter::default() }), ["1", "4"]);
    assert_eq!(of(Filter { tenant: some("nemlog-in"), ..Filter::default() }), ["1", "2", "3", "4"]);
    assert_eq!(of(Filter { key: some("login"), reference: some("none"), ..Filter::default() }), [""; 0]);
    assert_eq!(of(Filter { last: Some(2), ..Filter::default() }), ["4", "5"]);
    assert_eq!(of(Filter { since_ns: parse_utc("2026-11-21T20:10:46Z"), ..Filter::default() }), [""; 0]);
    assert_eq!(of(Filter { until_ns: parse_utc("2026-11-21T20:10:46Z"), ..Filter::default() }).len(), 5);
}

#[test]
fn what_came_too_late_is_shown_with_its_intent_and_counted() {
    let directory = quick_directory();
    let (journal, _) = Journal::open(config(directory.path())).unwrap();
    let late = |intent, signed| {
        let (token, reason) = ("site-b".into(), "late".into());
        Record::Discarded(Discarded { intent, token, reason, signed })
    };
    let wanted = journal.append(&intent("wanted")).unwrap();
    let other = journal.append(&intent("other")).unwrap();
    let third = journal.append(&intent("third")).unwrap();
    journal.append(&late(wanted, true)).unwrap();
    for closed in [wanted, other, third] {
        journal.append(&outcome(closed)).unwrap();
    }
    journal.append(&late(other, false)).unwrap();
    journal.close(LONG).unwrap();
    let filter = |reference: &str| Filter { reference: Some(reference.to_owned()), ..Filter::default() };
    let kinds = |reference: &str| -> Vec<String> {
        let lines = shown(directory.path(), &filter(reference), Format::Text);
        lines.iter().map(|line| line.split(' ').nth(2).unwrap().to_owned()).collect()
    };
    assert_eq!(kinds("wanted"), ["intent", "discarded", "outcome"]);
    assert_eq!(kinds("other"), ["intent", "outcome", "discarded"]);
    let report = verify(directory.path()).unwrap();
    assert!(report.is_consistent());
    let expected =
        Signatures { released: 3, unknown: 3, unknown_signed: 1, unknown_failed: 1, ..Signatures::default() };
    assert_eq!(report.signatures, expected);
    // The third's first attempt may have left one.
    assert_eq!((expected.at_least(), expected.at_most()), (4, Some(5)));
}

#[test]
fn times_are_utc_and_read_back() {
    assert_eq!(utc(0), "1970-01-01T00:00:00Z");
    assert_eq!(parse_utc("2026-11-21T21:10:45.123456789+01:00"), Some(1_795_291_845_123_456_789));
    assert_eq!(parse_utc("yesterday"), None);
    assert_eq!(utc(u64::MAX), "2554-07-21T23:34:33.709551615Z");
}
