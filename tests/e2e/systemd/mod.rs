//! The units under a real systemd. `cargo xtask test --stage systemd` runs these; anywhere else they are ignored tests,
//! since they need root and a container's root directory.

mod clock;
mod container;
mod credentials;
mod doctor;
mod host;
mod packages;
mod sandbox;
mod under_load;

use segl_tests::{
    http::Http,
    openssl, programs, signing,
    site::{P256, Site, Token, await_keys},
};
use serde_json::Value;

use self::{
    container::Container,
    host::{Host, install, with_a_clock},
};

/// What the units that were stopped in order have recorded, which is sound.
fn journal(host: &Host) -> Vec<serde_json::Value> {
    crate::room::journal_in(&host.container.root().join("var/lib/segl/journal"))
}

#[test]
#[ignore = "needs root and a container: cargo xtask test --stage systemd"]
fn the_units_are_understood_and_leave_little_exposed() {
    let mut container = Container::prepare("segl-units").unwrap();
    install(&container);
    container.boot().unwrap();
    for unit in ["segld.service", "segl-broker.service", "segld.socket", "segl-broker.socket", "segld-doctor.service"] {
        let verify = container.try_run(&["systemd-analyze", "verify", "--man=no", unit]).unwrap();
        // Unknown settings are only complained about.
        assert_eq!(String::from_utf8_lossy(&verify.stderr), "", "{unit}");
        assert!(verify.status.success(), "{unit}");
    }
    for unit in ["segld.service", "segl-broker.service"] {
        // 1.5 of 10; the rest is the network, which they are for.
        container.run(&["systemd-analyze", "security", "--no-pager", "--threshold=15", unit]).unwrap();
    }
    for user in ["segl", "segl-broker"] {
        container.run(&["id", user]).unwrap();
    }
    assert_eq!(container.run(&["stat", "--format=%U:%G %a", "/etc/segl/credentials"]).unwrap(), "root:root 700");
    assert_eq!(container.run(&["stat", "--format=%U:%G %a", "/etc/segl/segld"]).unwrap(), "root:segl 750");
    assert_eq!(container.run(&["stat", "--format=%U:%G %a", "/run/segl"]).unwrap(), "segl:segl-operator 2755");
}

#[test]
#[ignore = "needs root and a container: cargo xtask test --stage systemd"]
fn the_sample_drop_ins_are_understood_and_leave_no_more_exposed() {
    let mut container = Container::prepare("segl-drop-ins").unwrap();
    install(&container);
    // What the samples name as if it were there.
    container.put("/usr/lib/sysusers.d/hsm.conf", b"g hsm - -\n").unwrap();
    container.put("/etc/systemd/system/hsm-driver.service", b"[Service]\nExecStart=/bin/true\n").unwrap();
    container.boot().unwrap();
    for entry in std::fs::read_dir(programs::workspace().join("systemd/examples")).unwrap() {
        let sample = entry.unwrap().path();
        let name = sample.file_name().unwrap().to_str().unwrap();
        let unit = if name.starts_with("broker") { "segl-broker.service" } else { "segld.service" };
        let place = format!("/etc/systemd/system/{unit}.d/sample.conf");
        container.put(&place, &std::fs::read(&sample).unwrap()).unwrap();
        container.run(&["systemctl", "daemon-reload"]).unwrap();
        let verify = container.try_run(&["systemd-analyze", "verify", "--man=no", unit]).unwrap();
        assert_eq!(String::from_utf8_lossy(&verify.stderr), "", "{name}");
        container.run(&["systemd-analyze", "security", "--no-pager", "--threshold=15", unit]).unwrap();
        container.run(&["rm", &place]).unwrap();
    }
}

/// The broker's caller inside the container's network.
fn sign(container: &Container, site: &Site, reference: &str) {
    let signed = container.in_network(|| {
        let caller =
            Http::new("https://localhost:8443", &site.servers.pem(), None)?.with_bearer(&site.tenants[0].bearer);
        let spki = signing::public_key(&caller, P256)?;
        let signed = signing::sign(&caller, P256, "ecdsa-p256-sha256", b"a document", reference)?;
        openssl::verify("ecdsa-p256-sha256", &spki, b"a document", &signed.signature)
    });
    signed.unwrap().unwrap();
}

#[test]
#[ignore = "needs root and a container: cargo xtask test --stage systemd"]
fn a_connection_to_the_socket_starts_segld_which_signs_reloads_and_stops_in_order() {
    let host = Host::boot_with("segl-life", Token::Embedded, |container, site| with_a_clock(container, site));
    host.seal("host", "pin", b"of no use to the embedded token");
    host.seal_tls_key("host");
    let Host { container, site, .. } = &host;

    container.run(&["systemctl", "start", "segld.socket", "segl-broker.socket"]).unwrap();
    assert_eq!(container.show("segld.service", "ActiveState").unwrap(), "inactive");
    host.is_down();
    container.run(&["systemctl", "start", "segl-broker.service"]).unwrap();
    container.in_network(|| await_keys(&site.broker_admin()?)).unwrap().unwrap();
    assert_eq!(container.show("segld.service", "ActiveState").unwrap(), "active", "the broker's connection started it");
    sign(container, site, "before-the-reload");
    let status = host.is_well();
    assert_eq!(
        (&status["daemon"]["reload"], &status["daemon"]["connections"]),
        (&Value::Null, &2.into()),
        "{status:#}"
    );

    let pid = container.show("segld.service", "MainPID").unwrap();
    container.run(&["systemctl", "reload", "segld.service", "segl-broker.service"]).unwrap();
    sign(container, site, "after-the-reload");
    assert_eq!(host.is_well()["daemon"]["reload"]["ok"], true);
    assert_eq!(container.show("segld.service", "MainPID").unwrap(), pid);
    assert_eq!(container.show("segld.service", "NRestarts").unwrap(), "0");

    container.run(&["systemctl", "stop", "segl-broker.service", "segld.socket", "segld.service"]).unwrap();
    for unit in ["segld.service", "segl-broker.service"] {
        assert_eq!(container.show(unit, "Result").unwrap(), "success", "{unit}");
        assert_eq!(container.show(unit, "ExecMainStatus").unwrap(), "0", "{unit}");
    }
    host.is_down();
}
