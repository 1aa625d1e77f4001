//! PINs and TLS keys as sealed credentials: unsealed for segld alone, and only where they were sealed to.

use std::process::{Child, Stdio};

use segl_tests::{site::Token, softhsm};
use serde_json::Value;

use super::{
    container::Container,
    host::{Host, with_a_clock},
};
use crate::room::{connect, sound, until};

/// What segld.service ends with when systemd can not unseal a credential (systemd.exec(5)).
const CREDENTIALS: &str = "243";

/// A TPM in software, in the container's network. Dropped, it is unplugged.
struct Tpm {
    swtpm: Child,
    _state: tempfile::TempDir,
}

impl Tpm {
    /// A device that has no state yet.
    fn plug(container: &Container) -> Tpm {
        let state = tempfile::tempdir().unwrap();
        let mut swtpm = container.beside("swtpm").unwrap();
        swtpm.args(["socket", "--tpm2", "--server", "type=tcp,port=2321", "--ctrl", "type=tcp,port=2322"]);
        swtpm.args(["--flags", "not-need-init,startup-clear", "--tpmstate"]);
        swtpm.arg(format!("dir={}", state.path().display())).stdout(Stdio::null());
        let tpm = Tpm { swtpm: swtpm.spawn().unwrap(), _state: state };
        until("the TPM answers", || container.try_run(&["tpm2_getrandom", "1"]).unwrap().status.success());
        // As a firmware does that measures its Secure Boot: systemd-creds binds to this register.
        let measured = format!("7:sha256={}", "1".repeat(64));
        container.run(&["tpm2_pcrextend", &measured]).unwrap();
        Tpm::flush(container);
        tpm
    }

    /// There is no resource manager, so nobody else takes away what a program leaves behind in it.
    fn flush(container: &Container) {
        for what in ["--saved-session", "--loaded-session", "--transient-object"] {
            container.run(&["tpm2_flushcontext", what]).unwrap();
        }
    }

    fn unplug(self) {}
}

impl Drop for Tpm {
    fn drop(&mut self) {
        // Nothing is left to do about a process that can not be killed.
        let _ = self.swtpm.kill();
        let _ = self.swtpm.wait();
    }
}

fn with_tpm(name: &str) -> (Host, Tpm) {
    let host = Host::boot_with(name, Token::SoftHsm, |container, _| {
        for variable in ["SYSTEMD_TPM2_DEVICE", "TPM2TOOLS_TCTI"] {
            container.set(variable, "swtpm:host=127.0.0.1,port=2321");
        }
    });
    let tpm = Tpm::plug(&host.container);
    (host, tpm)
}

#[test]
#[ignore = "needs root and a container: cargo xtask test --stage systemd"]
fn a_pin_sealed_to_the_host_is_unsealed_for_segld_alone() {
    let host = Host::boot("segl-sealed", Token::SoftHsm);
    host.seal_all();
    host.start_by_socket();
    host.inside(|| sound(&mut connect(&host.site, 0)));

    let pin = "/run/credentials/segld.service/pin";
    assert_eq!(host.container.run(&["cat", pin]).unwrap(), softhsm::PIN, "root sees it, and segld");
    for user in ["nobody", "segl-broker"] {
        let read = host.container.try_run(&["setpriv", "--reuid", user, "--clear-groups", "cat", pin]).unwrap();
        assert!(!read.status.success(), "{user} reads the PIN");
    }
    let pid = host.container.show("segld.service", "MainPID").unwrap();
    for place in ["environ", "cmdline"] {
        let shown = host.container.run(&["cat", &format!("/proc/{pid}/{place}")]).unwrap();
        assert!(!shown.contains(softhsm::PIN), "{shown}");
    }
    assert!(!host.container.log("segld.service").unwrap().contains(softhsm::PIN));
    let on_disk = host.container.try_run(&["grep", "-r", softhsm::PIN, "/etc", "/var"]).unwrap();
    assert_eq!(on_disk.status.code(), Some(1), "it stands in {}", String::from_utf8_lossy(&on_disk.stdout));
    host.systemctl(&["stop", "segld.socket", "segld.service"]).unwrap();
    assert!(!host.container.try_run(&["test", "-e", pin]).unwrap().status.success(), "it goes with the service");
}

#[test]
#[ignore = "needs root and a container: cargo xtask test --stage systemd"]
fn what_is_sealed_to_a_tpm_is_worthless_beside_another_one_and_what_is_sealed_to_the_disk_is_not() {
    let (host, tpm) = with_tpm("segl-tpm");
    host.systemctl(&["start", "segld.socket"]).unwrap();
    for key in ["host", "tpm2", "host+tpm2"] {
        host.seal(key, "pin", softhsm::PIN.as_bytes());
        Tpm::flush(&host.container);
        host.seal_tls_key(key);
        Tpm::flush(&host.container);
        host.container.run(&["cp", "/etc/segl/credentials/pin.cred", &format!("/root/pin-{key}.cred")]).unwrap();
        host.systemctl(&["start", "segld.service"]).unwrap();
        Tpm::flush(&host.container);
        host.await_keys();
        host.inside(|| sound(&mut connect(&host.site, 0)));
        host.systemctl(&["stop", "segld.service"]).unwrap();
    }
    tpm.unplug();

    // The same disk, in a machine with another TPM.
    let other = Tpm::plug(&host.container);
    for (key, unseals) in [("host", true), ("tpm2", false), ("host+tpm2", false)] {
        let file = format!("/root/pin-{key}.cred");
        let unsealed = host.container.try_run(&["systemd-creds", "decrypt", "--name=pin", &file, "-"]).unwrap();
        assert_eq!(unsealed.status.success(), unseals, "{key}: {unsealed:?}");
        Tpm::flush(&host.container);
    }
    assert!(host.systemctl(&["start", "segld.service"]).is_err());
    assert_eq!(host.container.show("segld.service", "ExecMainStatus").unwrap(), CREDENTIALS);
    other.unplug();
}

#[test]
#[ignore = "needs root and a container: cargo xtask test --stage systemd"]
fn a_credential_that_is_missing_or_was_sealed_for_something_else_starts_nothing() {
    let host = Host::boot_with("segl-wrong", Token::SoftHsm, |container, site| with_a_clock(container, site));
    let refused = |what: &str| {
        assert!(host.systemctl(&["start", "segld.service"]).is_err(), "{what}");
        assert_eq!(host.container.show("segld.service", "ExecMainStatus").unwrap(), CREDENTIALS, "{what}");
        host.is_down();
        host.systemctl(&["stop", "segld.service"]).unwrap();
    };
    refused("nothing is sealed");
    host.seal_all();
    host.seal_as("host", "another-hsm", softhsm::PIN.as_bytes(), "/etc/segl/credentials/pin.cred");
    refused("sealed under another name");
    host.container.put("/etc/segl/credentials/pin.cred", softhsm::PIN.as_bytes()).unwrap();
    refused("not sealed at all");
    let said = host.container.log("segld.service").unwrap();
    assert_eq!(said.matches("Failed to set up credentials").count(), 3, "{said}");
    host.seal_all();
    host.systemctl(&["start", "segld.service"]).unwrap();
    host.await_keys();
    host.is_well();
}

#[test]
#[ignore = "needs root and a container: cargo xtask test --stage systemd"]
fn a_sealed_pin_that_is_wrong_is_tried_once_and_the_right_one_after_a_restart() {
    let host = Host::boot_with("segl-pin", Token::SoftHsm, |container, site| with_a_clock(container, site));
    host.seal_all();
    host.seal("host", "pin", b"not the PIN");
    host.systemctl(&["start", "segld.socket", "segld.service"]).unwrap();
    let readiness = host.inside(|| host.admin()?.get("/readyz")).unwrap();
    assert_eq!(
        (readiness.status, &readiness.json["tokens"][0]["state"]),
        (503, &"needs-operator".into()),
        "{}",
        readiness.text
    );
    let said = host.container.log("segld.service").unwrap();
    assert!(said.contains("CKR_PIN_INCORRECT"), "{said}");
    let status = host.is_unwell(2, "NO KEY CAN SIGN");
    let waits = |finding: &Value| finding["what"].as_str().unwrap().contains("token softhsm waits for you");
    assert!(status["findings"].as_array().unwrap().iter().any(waits), "{status:#}");
    // After a restart it is not tried a second time.
    host.systemctl(&["restart", "segld.service"]).unwrap();
    let said = host.container.log("segld.service").unwrap();
    assert_eq!(said.matches("CKR_PIN_INCORRECT").count(), 1, "{said}");

    host.seal("host", "pin", softhsm::PIN.as_bytes());
    host.systemctl(&["restart", "segld.service"]).unwrap();
    host.await_keys();
    host.inside(|| sound(&mut connect(&host.site, 0)));
    host.is_well();
}
