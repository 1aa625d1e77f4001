//! The units under a real systemd. `cargo xtask test --stage systemd` runs these; anywhere else they are ignored tests,
//! since they need root and a container's root directory.

mod container;

use segl_tests::{
    http::Http,
    openssl, programs, signing,
    site::{P256, Site, Token, await_keys},
};

use self::container::Container;

/// Installs programs, units, users and directories as a package would.
fn install(container: &Container) {
    for program in [programs::segld(), programs::broker()] {
        let name = program.file_name().unwrap().to_str().unwrap();
        std::fs::copy(&program, container.root().join("usr/bin").join(name)).unwrap();
    }
    let systemd = programs::workspace().join("systemd");
    for (from, to) in [
        ("segld.service", "usr/lib/systemd/system"),
        ("segld.socket", "usr/lib/systemd/system"),
        ("segl-broker.service", "usr/lib/systemd/system"),
        ("segl-broker.socket", "usr/lib/systemd/system"),
        ("sysusers.d/segl.conf", "usr/lib/sysusers.d"),
        ("tmpfiles.d/segl.conf", "usr/lib/tmpfiles.d"),
    ] {
        let name = from.rsplit('/').next().unwrap();
        container.put(&format!("{to}/{name}"), &std::fs::read(systemd.join(from)).unwrap()).unwrap();
    }
}

#[test]
#[ignore = "needs root and a container: cargo xtask test --stage systemd"]
fn the_units_are_understood_and_leave_little_exposed() {
    let mut container = Container::prepare("segl-units").unwrap();
    install(&container);
    container.boot().unwrap();
    for unit in ["segld.service", "segl-broker.service", "segld.socket", "segl-broker.socket"] {
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
}

/// Puts an installation's configuration where the units look for it. Sockets come from systemd, the daemon's TLS key
/// as a credential.
fn configure(container: &Container, site: &Site) {
    let segld = site
        .segld_toml
        .replace(&format!("addresses = [\"{}\"]\n", site.segld), "")
        .replace("\"pki/segld.key\"", "\"credential:tls-key\"")
        .replace("directory = \"journal\"", "directory = \"/var/lib/segl/journal\"")
        .replace("directory = \"keys\"", "directory = \"/var/lib/segl/keys\"");
    let broker = site
        .broker_toml
        .replace(&format!("listen = [\"{}\"]\n", site.broker), "")
        .replace(&site.segld.to_string(), "127.0.0.1:7443");
    container.put("/etc/segl/segld/segld.toml", segld.as_bytes()).unwrap();
    container.put("/etc/segl/broker/segl-broker.toml", broker.as_bytes()).unwrap();
    container.put("/etc/segl/credentials/pin", b"of no use to the embedded token").unwrap();
    let pki = site.dir.join("pki");
    let copy = |from: &str, to: &str| container.put(to, &std::fs::read(pki.join(from)).unwrap()).unwrap();
    copy("segld.key", "/etc/segl/credentials/tls-key");
    for file in ["segld.pem", "clients-ca.pem", "clients.crl"] {
        copy(file, &format!("/etc/segl/segld/pki/{file}"));
    }
    let mut broker = vec!["servers-ca.pem".to_owned(), "clients-ca.pem".to_owned()];
    for name in ["segl-broker", site.tenants[0].name, site.tenants[1].name] {
        broker.extend([format!("{name}.pem"), format!("{name}.key")]);
    }
    for file in broker {
        copy(&file, &format!("/etc/segl/broker/pki/{file}"));
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
    let dir = tempfile::tempdir().unwrap();
    let site = Site::create(&dir.path().join("site"), Token::Embedded, &[]).unwrap();
    let mut container = Container::prepare("segl-life").unwrap();
    install(&container);
    configure(&container, &site);
    container.boot().unwrap();
    container.run(&["chgrp", "-R", "segl-broker", "/etc/segl/broker"]).unwrap();
    container.run(&["chmod", "-R", "u=rwX,g=rX,o=", "/etc/segl/broker"]).unwrap();

    container.run(&["systemctl", "start", "segld.socket", "segl-broker.socket"]).unwrap();
    assert_eq!(container.show("segld.service", "ActiveState").unwrap(), "inactive");
    container.run(&["systemctl", "start", "segl-broker.service"]).unwrap();
    container.in_network(|| await_keys(&site.broker_admin()?)).unwrap().unwrap();
    assert_eq!(container.show("segld.service", "ActiveState").unwrap(), "active", "the broker's connection started it");
    sign(&container, &site, "before-the-reload");

    let pid = container.show("segld.service", "MainPID").unwrap();
    container.run(&["systemctl", "reload", "segld.service", "segl-broker.service"]).unwrap();
    sign(&container, &site, "after-the-reload");
    assert_eq!(container.show("segld.service", "MainPID").unwrap(), pid);
    assert_eq!(container.show("segld.service", "NRestarts").unwrap(), "0");

    container.run(&["systemctl", "stop", "segl-broker.service", "segld.socket", "segld.service"]).unwrap();
    for unit in ["segld.service", "segl-broker.service"] {
        assert_eq!(container.show(unit, "Result").unwrap(), "success", "{unit}");
        assert_eq!(container.show(unit, "ExecMainStatus").unwrap(), "0", "{unit}");
    }
}
