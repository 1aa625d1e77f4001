//! What `[[key.version]]` has to say, and what of it is refused.

use super::{MINIMAL, NOW_UNIX_S, Site};

/// The shortest configuration, its one key with these versions. Its token makes any file that they name.
fn with_versions(versions: &[&str]) -> String {
    let (before, after) = MINIMAL.split_once("file = \"documents.pem\"\n").unwrap();
    let (algorithms, after) = after.split_once("\n\n").unwrap();
    let versions: String = versions.iter().map(|version| format!("[[key.version]]\n{version}\n")).collect();
    let made: Vec<_> = ["one", "two"].map(|file| format!("{{ file = \"{file}.pem\", type = \"ec-p256\" }}")).into();
    let before =
        before.replace("[{ file = \"documents.pem\", type = \"ec-p256\" }]", &format!("[{}]", made.join(", ")));
    format!("{before}{algorithms}\n{versions}\n{after}")
}

fn version(name: &str, file: &str, from: &str, more: &str) -> String {
    format!("name = \"{name}\"\nfile = \"{file}.pem\"\nactive_from = {from}\n{more}")
}

/// Everything said of these versions, each in the form that [`version`] gives it.
fn said(site: &Site, versions: &[String]) -> Vec<String> {
    let versions: Vec<_> = versions.iter().map(String::as_str).collect();
    site.read(&with_versions(&versions)).1.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn only(site: &Site, versions: &[String], severity: &str, expected: &str) {
    let said = said(site, versions);
    let [finding] = said.as_slice() else { panic!("{said:?}") };
    assert!(finding.contains(&format!(" {severity}: ")) && finding.contains(expected), "{finding}");
}

const PAST: &str = "2026-01-01T00:00:00Z";
const SOON: &str = "2026-10-01T00:00:00Z";
const LATER: &str = "2027-06-01T00:00:00Z";
/// Of the site's certificates, from 2025-01-01 to 2027-01-01.
const CERTIFIED: &str = "certificate = \"login.pem\"";

#[test]
fn versions_are_ordered_by_their_time_however_it_is_written() {
    let site = Site::new();
    let versions = [version("b", "two", "\"2026-10-01T00:00:00Z\"", ""), version("a", "one", PAST, "")];
    let (config, findings) = site.read(&with_versions(&versions.each_ref().map(String::as_str)));
    assert!(findings.is_empty(), "{findings}");
    let config = config.unwrap();
    let [key] = config.keys.as_slice() else { panic!("{:?}", config.keys) };
    let read: Vec<_> = key.versions.iter().map(|of| (&*of.locator, of.term.as_ref().unwrap())).collect();
    let expected = [("one.pem", "a", 1_767_225_600), ("two.pem", "b", 1_790_812_800)];
    let read: Vec<_> = read.iter().map(|(file, term)| (*file, &*term.name, term.active_from_unix_s)).collect();
    assert_eq!(read, expected);
    assert!(expected[0].2 < NOW_UNIX_S && NOW_UNIX_S < expected[1].2);
}

#[test]
fn a_version_says_all_that_it_needs_and_the_key_nothing_of_it() {
    let site = Site::new();
    let lacking = |what: &str| {
        let whole = version("a", "one", PAST, "");
        let rest: Vec<_> = whole.lines().filter(|line| !line.starts_with(what)).collect();
        [rest.join("\n")]
    };
    only(&site, &lacking("name"), "error", "[[key.version]] has no `name`");
    only(&site, &lacking("file"), "error", "[[key.version]] \"a\" has no `file`");
    only(&site, &lacking("active_from"), "error", "[[key.version]] \"a\" has no `active_from`");
    only(&site, &[version("a", "one", PAST, "actve_from = 1")], "error", "did you mean `active_from`?");
    let text = with_versions(&[&version("a", "one", PAST, "")]).replace("purpose =", "file = \"one.pem\"\npurpose =");
    let (_, findings) = site.read(&text);
    assert!(findings.to_string().contains("the key has versions, and each has its own"), "{findings}");
}

#[test]
fn a_moment_is_in_utc_and_to_the_second() {
    let site = Site::new();
    for wrong in ["2026-01-01T00:00:00+01:00", "2026-01-01T00:00:00", "2026-01-01", "\"soon\"", "1767225600"] {
        only(&site, &[version("a", "one", wrong, "")], "error", "`active_from` must be a moment in UTC, to the second");
    }
}

#[test]
fn two_versions_that_begin_at_once_or_are_one_key_are_refused() {
    let site = Site::new();
    let at_once = [version("a", "one", PAST, ""), version("b", "two", PAST, "")];
    only(&site, &at_once, "error", "begins at the same instant");
    let one_name = [version("a", "one", PAST, ""), version("a", "two", SOON, "")];
    only(&site, &one_name, "error", "[[key.version]] \"a\" is there already, on line");
    let one_place = [version("a", "one", PAST, ""), version("b", "one", SOON, "")];
    only(&site, &one_place, "error", "is the same key on the same token");
    let one_certificate = [version("a", "one", PAST, CERTIFIED), version("b", "two", SOON, CERTIFIED)];
    only(&site, &one_certificate, "error", "versions \"documents/a\" and \"documents/b\" are one public key");
}

#[test]
fn a_public_key_of_a_version_has_no_other_purpose() {
    let site = Site::new();
    let other = "[[key]]\nname = \"login\"\npurpose = \"assertion\"\ntokens = [\"keys\"]\nfile = \"two.pem\"\n\
                 algorithms = [\"ecdsa-p256-sha256\"]\ncertificate = \"login.pem\"\n";
    let text = format!("{}{other}", with_versions(&[&version("a", "one", PAST, CERTIFIED)]));
    let findings = site.findings(&text);
    assert!(
        findings.contains("keys \"documents/a\" (digest) and \"login\" (assertion) are one public key"),
        "{findings}"
    );
}

#[test]
fn a_version_that_would_begin_outside_its_certificates_life_is_refused() {
    let site = Site::new();
    let (now, late) = (version("a", "one", PAST, ""), version("b", "two", LATER, CERTIFIED));
    only(
        &site,
        &[now.clone(), late],
        "error",
        "its certificate ends at 2027-01-01T00:00:00Z, before the version begins",
    );
    site.certify_from("next.pem", 2027);
    let early = version("b", "two", SOON, "certificate = \"next.pem\"");
    only(
        &site,
        &[now.clone(), early],
        "error",
        "its certificate begins at 2027-01-01T00:00:00Z, after the version does",
    );
    let in_time = version("b", "two", LATER, "certificate = \"next.pem\"");
    assert!(said(&site, &[now, in_time]).is_empty());
}

#[test]
fn a_switch_after_the_end_of_the_certificate_before_is_told_as_a_gap() {
    let site = Site::new();
    let versions = [version("a", "one", PAST, CERTIFIED), version("b", "two", LATER, "")];
    only(
        &site,
        &versions,
        "warning",
        "ends at 2027-01-01T00:00:00Z, before this one takes over: nothing signs in between",
    );
    // A version whose time is over may have ended long ago.
    let versions =
        [version("a", "one", "2025-06-01T00:00:00Z", "certificate = \"expired.pem\""), version("b", "two", PAST, "")];
    assert!(said(&site, &versions).is_empty());
    let active = [version("b", "two", "2025-06-01T00:00:00Z", "certificate = \"expired.pem\"")];
    only(&site, &active, "warning", "the certificate has expired: the key refuses to sign");
}

#[test]
fn a_key_without_a_version_that_signs_is_told_of() {
    let site = Site::new();
    let retired = "name = \"a\"\nretired = true\nfile = \"gone.pem\"\nactive_from = 2026-01-01T00:00:00Z";
    only(&site, &[retired.into()], "error", "all its versions are retired");
    only(&site, &[version("a", "one", SOON, "")], "warning", "no version signs before 2026-10-01T00:00:00Z");
    let (config, findings) = site.read(&with_versions(&[retired, &version("b", "two", PAST, "")]));
    assert!(findings.is_empty(), "{findings}");
    let config = config.unwrap();
    assert_eq!(config.keys[0].versions.len(), 1, "what is retired is neither looked up nor listed");
}

#[test]
fn a_key_has_no_more_versions_than_the_protocol_tells() {
    let site = Site::new();
    let versions: Vec<_> = (0..17).map(|at| format!("name = \"v{at}\"\nretired = {}", at > 0)).collect();
    let said = said(&site, &versions);
    assert!(said.iter().any(|finding| finding.contains("more than 16 versions of a key")), "{said:?}");
}
