//! What a configuration says, and everything that can be wrong with it.

use std::{fs, os::unix::fs::PermissionsExt as _};

use super::*;

const SAMPLE: &str = include_str!("../../../docs/samples/segl-broker.toml");

/// Good but for the files.
const GOOD: &str = r#"
[http]
listen = ["127.0.0.1:0"]
insecure_loopback = true
[upstream]
ca = "ca.pem"
[[segld]]
address = "localhost:7443"
server_name = "segld"
[[tenant]]
name = "t"
certificate = "t.pem"
private_key = "t.key"
[[caller]]
name = "c"
tenant = "t"
bearer_sha256 = ["0000000000000000000000000000000000000000000000000000000000000000"]
keys = ["k"]
operations = ["sign"]
"#;

fn parse(text: &str) -> (Config, Vec<(usize, String)>) {
    let (config, findings) = Config::parse(text, Path::new("/base"));
    let findings = findings.into_result().err().unwrap_or_default().0;
    (config, findings.into_iter().map(|finding| (finding.line, finding.message)).collect())
}

/// The findings after replacing a piece of the good configuration.
fn findings(good: &str, bad: &str) -> Vec<(usize, String)> {
    assert!(GOOD.contains(good), "{good} is not in the good configuration");
    parse(&GOOD.replace(good, bad)).1
}

#[track_caller]
fn one(good: &str, bad: &str, line: usize, says: &str) {
    let findings = findings(good, bad);
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0].0, line, "{findings:?}");
    assert!(findings[0].1.contains(says), "{findings:?} does not say {says}");
}

#[test]
fn the_sample_is_good_and_says_the_defaults() {
    let (config, findings) = parse(SAMPLE);
    assert_eq!(findings, []);
    let (sample, (bare, none)) = (config, parse(GOOD));
    assert_eq!(none, []);
    let http = Http { listen: vec![], identity: None, client_ca: None, insecure_loopback: true, ..sample.http.clone() };
    assert_eq!(http, Http { listen: vec![], ..bare.http });
    assert_eq!((sample.admin, sample.log), (bare.admin, bare.log));
    assert_eq!(sample.publish.max_age, bare.publish.max_age);
    assert_eq!((sample.publish.keys().count(), sample.providers.len()), (3, 1));
    assert_eq!(sample.upstream.keys_refresh, bare.upstream.keys_refresh);
    assert_eq!(sample.upstream.connect_timeout, bare.upstream.connect_timeout);
    let kept = |idempotency: &Idempotency| (idempotency.window, idempotency.entries_per_caller, idempotency.bytes_max);
    assert_eq!(kept(&sample.idempotency), kept(&bare.idempotency));
    assert_eq!((sample.segld[0].name.as_str(), bare.segld[0].name.as_str()), ("east", "localhost:7443"));
    assert_eq!(sample.callers[1].certificates.len(), 2);
}

#[test]
fn relative_paths_are_taken_from_the_files_folder() {
    let config = parse(GOOD).0;
    assert_eq!(config.upstream.ca.value, Path::new("/base/ca.pem"));
}

#[test]
fn every_mistake_is_told_with_its_line() {
    one("[upstream]", "speed = 9\n[upstream]", 5, "unknown `speed`");
    one("[upstream]", "body_max = \"big\"\n[upstream]", 5, "a whole number, found string");
    one("[upstream]", "body_max = 1\n[upstream]", 5, "between 1024 and");
    one("[upstream]", "[admn]\n[upstream]", 5, "unknown `admn`");
    one("[upstream]", "[log]\nformat = \"xml\"\n[upstream]", 6, "text");
    one("[upstream]", "[log]\nfilter = \"a=b=c\"\n[upstream]", 6, "filter");
    one("\"127.0.0.1:0\"", "\"127.0.0.1\"", 3, "an address such as");
    one("\"127.0.0.1:0\"", "\"10.0.0.1:80\"", 3, "loopback only");
    one("insecure_loopback = true", "", 2, "`certificate` and `private_key` are missing");
    one(
        "insecure_loopback = true",
        "certificate = \"x.pem\"\nprivate_key = \"x.key\"\ninsecure_loopback = true",
        2,
        "exclude",
    );
    one("server_name = \"segld\"", "", 7, "`server_name` is missing");
    one("localhost:7443", "localhost", 8, "host:port");
    one("tenant = \"t\"", "tenant = \"u\"", 16, "there is no tenant `u`");
    one("tenant = \"t\"", "tenant = \"\"", 16, "`tenant` is empty");
    one("0000\"]", "000\"]", 17, "64 hexadecimal digits");
    one("\"sign\"]", "\"sing\"]", 19, "\"sign-batch\"");
    one("keys = [\"k\"]", "", 14, "`keys` is missing");
    one("name = \"c\"", "name = \"æ\"", 15, "letters, digits");
    one("keys = [\"k\"]", "keys = [\"k\"]\ncertificate = [{ san = \"DNS:x\" }]", 19, "needs [http] `client_ca`");
    one("keys = [\"k\"]", "keys = [\"k\"]\ncertificate = [{ san = \"x\" }]", 19, "`san` must be");
    one("[upstream]", "[idempotency]\nwindow_s = 32\n[upstream]", 5, "2 s more");
    one("[upstream]", "batch_max = 300\nin_flight_per_caller = 299\n[upstream]", 2, "`batch_max` is above");
    let published = "[[publish.jwks]]\ntenant = \"nobody\"\nkey = \"k\"\n[upstream]";
    one("[upstream]", published, 6, "[publish]: there is no tenant `nobody`");
    one("[upstream]", "[[publish.key_descriptors]]\ntenant = \"t\"\n[upstream]", 5, "`key` is missing");
    one("[upstream]", "[[provider]]\nfile = \"x\"\nmetadata = \"x\"\n[upstream]", 6, "unknown `file`");
    let again = "[[segld]]\naddress = \"localhost:7443\"\nserver_name = \"x\"\nname = \"y\"\n[[tenant]]";
    one("[[tenant]]", again, 11, "stands twice, first in line 8");
}

#[test]
fn a_token_in_the_place_of_its_hash_is_not_repeated() {
    let findings = findings(&"0".repeat(64), "my-secret-token");
    assert!(findings[0].1.contains("64 hexadecimal digits") && !findings[0].1.contains("my-secret"), "{findings:?}");
}

#[test]
fn a_caller_that_nobody_could_be_is_refused() {
    let hash = "bearer_sha256 = [\"0000000000000000000000000000000000000000000000000000000000000000\"]";
    one(hash, "", 14, "nobody could be this caller");
}

#[test]
fn everything_is_told_at_once() {
    let text = "[http]\nlisten = 3 3\n[upstream]\n[[caller]]\nkeys = 4\n[[tenant]]\nname = \"t\"\n";
    let findings = parse(text).1;
    for (line, says) in [
        (2, "not TOML"),
        (3, "`ca` is missing"),
        (4, "`name` is missing"),
        (4, "`operations` is missing"),
        (5, "an array of strings"),
        (6, "`certificate` is missing"),
        (1, "`segld` is missing"),
    ] {
        assert!(
            findings.iter().any(|finding| finding.0 == line && finding.1.contains(says)),
            "line {line}: {says} is not in {findings:#?}"
        );
    }
}

#[test]
fn the_files_are_looked_at_too_all_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str, mode: u32| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let path = write("broker.toml", &GOOD.replace("server_name = \"segld\"", "server_name = \"no name\""), 0o644);
    write("t.pem", "nothing", 0o644);
    write("t.key", "nothing", 0o644);
    let findings = Config::open(&path).expect_err("nothing is good").0;
    let told: Vec<_> = findings.iter().map(|finding| finding.line).collect();
    assert_eq!(told, [6, 9, 13], "{findings:#?}");
    assert!(findings[0].message.contains("No such file"));
    assert!(findings[1].message.contains("DNS name"));
    assert!(findings[2].message.contains("chmod 0600"));
    assert_eq!(Config::open(Path::new("/nowhere")).expect_err("there is none").0.len(), 1);
}

#[test]
fn a_private_key_may_be_a_credential_of_the_service() {
    let (config, findings) = parse(&GOOD.replace("\"t.key\"", "\"credential:tenant-t\""));
    assert_eq!(findings, []);
    // Under cargo there is no such directory of our own.
    let key = &config.tenants[0].identity.private_key.value;
    assert_eq!(key, Path::new("/run/credentials/segl-broker.service/tenant-t"));
}
