//! segld towards those who run it: its notifications, the socket it is handed, its log, its ends, and a start without
//! what it needs.

use std::{
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use segl_tests::{
    conversation::{Conversation, sign_request},
    process::{Service, Signal},
    site::{P256, Site, Token, await_keys},
};
use segl_wire::{ALPN, Code, Fault, GoAwayReason, Retry, SignedState};

use crate::room::{DIGEST, Room, SOON, after, connect, sent_away, site, sound, until};

/// Shorter than the drain limit: whoever ends within it did not wait for that.
const PROMPT: Duration = Duration::from_secs(10);

/// Starts a segld that cannot start, and returns what it said.
fn refused(site: &Site) -> String {
    site.write().unwrap();
    let mut segld = Service::start(site.segld_command(), &site.dir, "refused").unwrap();
    assert_eq!(segld.wait(SOON).unwrap().code(), Some(1));
    assert!(segld.ready(Duration::ZERO).is_err(), "it never said that it is ready");
    segld.log()
}

#[test]
fn the_service_manager_hears_of_readiness_reloads_the_watchdog_and_the_end_in_this_order() {
    let (site, dir) = site(Token::Embedded);
    let mut command = site.segld_command();
    command.env("WATCHDOG_USEC", "900000");
    let mut segld = Service::start(command, &site.dir, "segld").unwrap();
    segld.ready(SOON).unwrap();
    segld.notified("WATCHDOG=1", SOON).unwrap();
    segld.notified("WATCHDOG=1", SOON).unwrap();
    segld.signal(Signal::HUP).unwrap();
    segld.notified("RELOADING=1", SOON).unwrap();
    let since_boot_us: u64 = segld.told("MONOTONIC_USEC", SOON).unwrap().parse().unwrap();
    assert!(since_boot_us > 0, "Type=notify-reload wants the time beside it");
    segld.ready(SOON).unwrap();
    segld.notified("WATCHDOG=1", SOON).unwrap();
    segld.signal(Signal::TERM).unwrap();
    segld.notified("STOPPING=1", SOON).unwrap();
    assert!(segld.wait(PROMPT).unwrap().success());
    assert!(segld.ready(Duration::ZERO).is_err(), "nothing is said after the end");
    drop(dir);
}

#[test]
fn with_nothing_in_flight_it_says_goodbye_and_ends_at_once() {
    let mut room = Room::open(Token::Embedded, |_| {});
    let mut idle = connect(&room.site, 0);
    sound(&mut idle);
    room.segld.signal(Signal::TERM).unwrap();
    assert_eq!(sent_away(&mut idle), GoAwayReason::Shutdown);
    drop(idle);
    assert!(room.segld.wait(PROMPT).unwrap().success());
    assert!(TcpStream::connect(room.site.segld).is_err(), "nobody listens any more");
}

#[test]
fn a_connection_made_before_segld_starts_is_served_through_the_socket_it_is_handed() {
    let (mut site, dir) = site(Token::Embedded);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (own, handed) = (site.segld, listener.local_addr().unwrap());
    let early = TcpStream::connect(handed).unwrap();

    // As systemd does: the socket is descriptor 3, and the environment says whose it is.
    let command = after("exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1", &site.segld_command());
    let socket = Stdio::from(OwnedFd::from(listener));
    let mut segld = Service::start_with(command, socket, &site.dir, "segld").unwrap();
    segld.ready(SOON).unwrap();
    site.segld = handed;
    let mut room = Room::around(site, segld, dir);
    await_keys(&room.admin).unwrap();
    let identity = Some(&room.site.tenants[0].identity);
    let mut early = Conversation::over(early, &room.site.servers.pem(), identity, ALPN).unwrap();
    sound(&mut early);
    sound(&mut connect(&room.site, 1));
    assert!(TcpStream::connect(own).is_err(), "with systemd's sockets it opens none of its own");
    until("it says so", || room.segld.log().contains("listen.addresses is not used"));

    // The socket outlives it: a reload keeps it, and its end is in order.
    room.reload_taken();
    sound(&mut early);
    drop(early);
    assert!(room.segld.terminate(PROMPT).unwrap().success());
}

#[test]
fn metrics_and_readiness_tell_what_an_operator_asks() {
    let room = Room::open(Token::Embedded, |_| {});
    sound(&mut connect(&room.site, 0));
    let metrics = room.admin.get("/metrics").unwrap();
    assert!(metrics.content_type.starts_with("text/plain; version=0.0.4"), "{}", metrics.content_type);
    for family in [
        "segl_requests_total{",
        "segl_request_seconds_bucket{",
        "segl_queue_seconds_bucket{",
        "segl_token_seconds_bucket{",
        "segl_record_seconds_bucket{",
        "segl_sessions{",
        "segl_queue_depth{",
        "segl_journal_lag_records ",
        "segl_crl_expires_seconds{",
        "segl_certificate_expires_seconds ",
        "segl_key_usable{",
        "segl_connections{",
    ] {
        assert!(metrics.text.lines().any(|line| line.starts_with(family)), "no {family} in {}", metrics.text);
    }
    let labels = ["tenant=\"town-hall\"", "operation=\"sign\"", "outcome=\"ok\""];
    assert_eq!(room.metric("segl_requests_total", &labels), 1.0);
    assert_eq!(room.metric("segl_request_seconds_count", &[]), 1.0);
    assert!(room.metric("segl_crl_expires_seconds", &[]) > 0.0);

    let readiness = room.admin.get("/readyz").unwrap();
    let keys = readiness.json["keys"].as_array().unwrap();
    assert_eq!((readiness.status, keys.len()), (200, 4), "{}", readiness.text);
    assert!(keys.iter().all(|key| key["state"] == "usable"), "{}", readiness.text);
}

#[test]
fn a_pin_file_that_others_can_read_refuses_the_start() {
    let (mut site, _dir) = site(Token::SoftHsm);
    let pin = site.softhsm().unwrap().pin_file().to_owned();
    std::fs::set_permissions(&pin, std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = refused(&site);
    assert!(said.contains(pin.to_str().unwrap()), "{said}");
}

#[test]
fn every_line_of_a_json_log_is_an_object_with_time_level_and_message() {
    let mut room = Room::open(Token::Embedded, |site| site.segld_toml.push_str("\n[log]\nformat = \"json\"\n"));
    sound(&mut connect(&room.site, 0));
    let stranger = segl_tests::pki::Authority::new("Another CA").unwrap().client("spiffe://a\"b\\c\n").unwrap();
    Conversation::open(room.site.segld, &room.site.servers.pem(), Some(&stranger)).unwrap_err();
    let sound_toml = room.site.segld_toml.clone();
    room.site.segld_toml.push_str("[\"mistake\"]\n");
    let said = room.reload();
    assert!(said.contains("mistake"), "{said}");
    room.site.segld_toml = sound_toml;
    room.reload();
    assert!(room.segld.terminate(SOON).unwrap().success());

    let log = room.segld.log();
    let mut levels = std::collections::BTreeSet::new();
    for line in log.lines() {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(entry["timestamp"].is_string() && entry["message"].is_string(), "{line}");
        levels.insert(entry["level"].as_str().unwrap().to_owned());
    }
    assert!(["ERROR", "WARN", "INFO"].iter().all(|level| levels.contains(*level)), "{levels:?}");
    assert!(!log.contains("PRIVATE KEY"));
}

#[test]
fn a_start_with_a_broken_configuration_says_everything_at_once_and_leaves_nothing_behind() {
    let (mut site, _dir) = site(Token::Embedded);
    site.segld_toml =
        site.segld_toml.replace("kind = \"embedded\"", "kind = \"imbedded\"").replace("[admin]", "[admim]");
    let said = refused(&site);
    assert!(said.contains("imbedded") && said.contains("admim"), "{said}");
    assert!(!site.journal().exists(), "nothing is made before the configuration is sound");
}

#[test]
fn a_start_without_the_token_s_module_is_refused_by_its_name() {
    let (mut site, _dir) = site(Token::SoftHsm);
    let sound_toml = site.segld_toml.clone();
    let module = site.softhsm().unwrap().module().display().to_string();
    site.segld_toml = sound_toml.replace(&module, "/nowhere/libhsm.so");
    let said = refused(&site);
    assert!(said.contains("/nowhere/libhsm.so"), "{said}");

    let no_module = std::env::current_exe().unwrap();
    site.segld_toml = sound_toml.replace(&module, no_module.to_str().unwrap());
    let said = refused(&site);
    assert!(said.contains(no_module.to_str().unwrap()) || said.contains("token softhsm"), "{said}");
}

/// segld with a token that is not there: it starts all the same.
fn start_degraded(site: Site, dir: tempfile::TempDir) -> Room {
    site.write().unwrap();
    let mut segld = Service::start(site.segld_command(), &site.dir, "segld").unwrap();
    segld.ready(SOON).unwrap();
    let room = Room::around(site, segld, dir);
    let readiness = room.admin.get("/readyz").unwrap();
    assert_eq!(readiness.status, 503, "{}", readiness.text);
    let keys = readiness.json["keys"].as_array().unwrap();
    assert!(!keys.is_empty() && keys.iter().all(|key| key["state"] == "unavailable"), "{}", readiness.text);
    assert_eq!(room.admin.get("/healthz").unwrap().status, 200, "an HSM that is away is no reason to restart");

    let mut conversation = connect(&room.site, 0);
    for _ in 0..3 {
        let error = conversation.sign(&sign_request(P256, "ecdsa-p256-sha256", &DIGEST)).unwrap().unwrap_err();
        assert_eq!((error.code, error.fault), (Code::KeyUnavailable, Fault::Token), "{error}");
        assert_eq!((error.signed, error.retry), (SignedState::No, Retry::Elsewhere));
        assert!(error.retry_after_ms.is_some_and(|ms| ms > 0), "{error:?}");
    }
    room
}

#[test]
fn with_its_token_away_segld_starts_degraded_and_refuses_at_once() {
    let (mut site, dir) = site(Token::SoftHsm);
    site.segld_toml = site.segld_toml.replace("pkcs11:token=segl", "pkcs11:token=elsewhere");
    let mut room = start_degraded(site, dir);
    until("it says so", || room.segld.log().contains("starting degraded"));
    assert!(room.segld.terminate(PROMPT).unwrap().success());
}

/// SoftHSM2 makes its list of slots once, at C_Initialize, so a token can not come to it later; but it looks at the
/// label in the token's file each time it is asked. So this token is there from the start and goes by another name.
struct Alias {
    file: PathBuf,
    generation: u64,
}

impl Alias {
    fn of(site: &mut Site) -> Alias {
        let tokens = site.softhsm().unwrap().environment().1.with_file_name("tokens");
        let token = std::fs::read_dir(tokens).unwrap().next().expect("one token was made").unwrap().path();
        let file = token.join("token.object");
        let generation = u64::from_be_bytes(std::fs::read(&file).unwrap()[..8].try_into().unwrap());
        Alias { file, generation }
    }

    /// Changes the label, and the number at the file's start by which SoftHSM2 tells that it has changed.
    fn rename(&mut self, from: &str, to: &str) {
        let mut content = std::fs::read(&self.file).unwrap();
        let label = |name: &str| format!("{name:<32}").into_bytes();
        let at = content.windows(32).position(|window| window == label(from)).expect("it has this label");
        content[at..at + 32].copy_from_slice(&label(to));
        self.generation += 1;
        content[..8].copy_from_slice(&self.generation.to_be_bytes());
        std::fs::write(&self.file, content).unwrap();
    }
}

#[test]
fn a_token_that_comes_after_the_start_is_taken_into_use_without_a_restart() {
    let (mut site, dir) = site(Token::SoftHsm);
    site.segld_toml.push_str("\n[pool]\nbackoff_min = \"50ms\"\nbackoff_max = \"200ms\"\n");
    let mut alias = Alias::of(&mut site);
    alias.rename("segl", "away");
    let mut room = start_degraded(site, dir);
    let mut before = connect(&room.site, 0);
    alias.rename("away", "segl");
    await_keys(&room.admin).unwrap();
    sound(&mut before);
    until("it says so", || room.segld.log().contains("it is back"));
    assert!(room.segld.terminate(PROMPT).unwrap().success());
}
