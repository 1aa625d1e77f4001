//! `segl doctor` on a bare host, on one where all is well, and on one where something is not.

use std::collections::BTreeMap;

use segl_tests::{programs, site::Token, softhsm};
use serde_json::Value;

use super::{container::Container, host::Host};

/// What the doctor says, by the name of what it looked at, and its exit status.
fn examine(container: &Container) -> (BTreeMap<String, Value>, i32) {
    let output = container.try_run(&["segl", "doctor", "--json"]).unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let checks = report["checks"].as_array().unwrap().iter();
    let checks = checks.map(|check| (check["name"].as_str().unwrap().to_owned(), check.clone())).collect();
    (checks, output.status.code().unwrap())
}

#[track_caller]
fn is(checks: &BTreeMap<String, Value>, name: &str, outcome: &str, seen: &str) {
    let check = checks.get(name).unwrap_or_else(|| panic!("{name} is not among {checks:#?}"));
    assert_eq!(check["outcome"], outcome, "{check}");
    assert!(check["seen"].as_str().unwrap().contains(seen), "{check}");
    // Whatever is not well comes with what to do.
    assert_eq!(check["advice"].is_string(), outcome != "ok", "{check}");
}

fn outcomes<'c>(checks: &'c BTreeMap<String, Value>, outcome: &str) -> Vec<&'c str> {
    checks.iter().filter(|(_, check)| check["outcome"] == outcome).map(|(name, _)| name.as_str()).collect()
}

#[test]
#[ignore = "needs root and a container: cargo xtask test --stage systemd"]
fn before_an_installation_it_looks_at_the_host_and_finds_nothing_broken() {
    let mut container = Container::prepare("segl-bare").unwrap();
    std::fs::copy(programs::segl(), container.root().join("usr/bin/segl")).unwrap();
    container.boot().unwrap();
    let (checks, status) = examine(&container);
    is(&checks, "kernel", "ok", "");
    is(&checks, "clock", "warning", "no time daemon was found");
    is(&checks, "configuration", "not-known", "/etc/segl/segld/segld.toml is not there");
    is(&checks, "unit", "not-known", "no segld.service");
    is(&checks, "keys", "not-known", "only a segld that runs can tell");
    assert_eq!((outcomes(&checks, "problem"), status), (Vec::new(), 1));
    let text = container.try_run(&["segl", "doctor"]).unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("-> install one (apt install chrony)") && text.contains("0 problem, "), "{text}");
}

#[test]
#[ignore = "needs root and a container: cargo xtask test --stage systemd"]
fn on_a_host_that_signs_it_sees_tokens_keys_credentials_and_limits_by_the_segld_that_runs() {
    let host = Host::boot_with("segl-well", Token::SoftHsm, |container, site| {
        container.put("/etc/chrony/chrony.conf", b"local stratum 10\n").unwrap();
        site.segld_toml.push_str("\n[reactor]\ncores = [1]\n");
        Host::drop_in(container, "cores", "[Service]\nCPUAffinity=1\n");
    });
    host.systemctl(&["start", "chrony.service"]).unwrap();
    host.seal_all();
    host.start_by_socket();
    let (checks, _) = examine(&host.container);
    assert_eq!(outcomes(&checks, "problem"), [""; 0], "{checks:#?}");
    is(&checks, "clock", "ok", "chronyd");
    is(&checks, "unit", "ok", "active");
    is(&checks, "descriptors", "ok", "segld runs with");
    is(&checks, "cores", "ok", "1: reactors and session threads");
    is(&checks, "process", "ok", "not dumpable");
    is(&checks, "PIN of token softhsm", "ok", "the unit's credential \"pin\"");
    is(&checks, "credential pin", "warning", "host key alone");
    is(&checks, "credential pin in the service", "ok", "segld and root alone");
    is(&checks, "TLS certificate", "ok", "ends in");
    is(&checks, "CRL of O=Segl development, CN=Segl clients", "ok", "ends in");
    is(&checks, "token softhsm", "ok", "ready in the segld that runs");
    is(&checks, "key seal-p256", "ok", "usable, tested on softhsm");
    is(&checks, "host pin", "ok", "none");
}

#[test]
#[ignore = "needs root and a container: cargo xtask test --stage systemd"]
fn while_segld_is_down_it_loads_the_module_itself_and_names_what_keeps_segld_from_starting() {
    let host = Host::boot("segl-down", Token::SoftHsm);
    host.seal_all();
    let (checks, _) = examine(&host.container);
    is(&checks, "token softhsm", "ok", "seen by /usr/lib/softhsm/libsofthsm2.so");
    is(&checks, "process", "not-known", "does not run");

    // Sealed for another HSM: systemd only says that something is wrong.
    host.seal_as("host", "another-hsm", softhsm::PIN.as_bytes(), "/etc/segl/credentials/pin.cred");
    let (checks, status) = examine(&host.container);
    is(&checks, "credential pin", "problem", "another-hsm");
    assert_eq!(status, 2);
    host.container.run(&["rm", "/etc/segl/credentials/pin.cred"]).unwrap();
    is(&examine(&host.container).0, "credential pin", "problem", "No such file");

    // Another machine, another token.
    let toml = host.site.segld_toml.replace("pkcs11:token=segl", "pkcs11:token=elsewhere");
    let pinned = format!("{toml}\n[host]\nmachine_ids = [\"{}\"]\n", "f".repeat(32));
    host.container.put("/etc/segl/segld/segld.toml", pinned.as_bytes()).unwrap();
    let (checks, _) = examine(&host.container);
    is(&checks, "host pin", "problem", "is not in [host] machine_ids");
    is(&checks, "configuration", "problem", "would not start");
    is(&checks, "token softhsm", "problem", "no slot holds pkcs11:token=elsewhere");
    host.container.put("/etc/segl/segld/segld.toml", toml.replace("libsofthsm2", "libhsm").as_bytes()).unwrap();
    is(&examine(&host.container).0, "token softhsm", "problem", "libhsm.so");
}

#[test]
#[ignore = "needs root and a container: cargo xtask test --stage systemd"]
fn when_segld_can_not_go_on_what_the_doctor_says_is_in_the_journal() {
    let host = Host::boot_with("segl-onfailure", Token::SoftHsm, |container, _| {
        Host::drop_in(container, "test", "[Service]\nRestart=no\n");
    });
    host.seal_tls_key("host");
    assert!(host.systemctl(&["start", "segld.service"]).is_err());
    let said = || host.container.log("segld-doctor.service").unwrap();
    crate::room::until("the doctor has spoken", || said().contains("credential pin"));
    assert!(said().contains("/etc/segl/credentials/pin.cred: No such file"), "{}", said());
    // Where systemd itself only says that it failed to set up credentials.
    host.seal_as("host", "another-hsm", softhsm::PIN.as_bytes(), "/etc/segl/credentials/pin.cred");
    assert!(host.systemctl(&["start", "segld.service"]).is_err());
    crate::room::until("the doctor names what is wrong with the credential", || said().contains("another-hsm"));
    assert!(!said().contains(softhsm::PIN));
}
