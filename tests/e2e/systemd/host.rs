//! A host with Segl installed: a container, a SoftHSM2 token in it, and the site whose clients speak to it.

use std::{path::Path, time::Duration};

use segl_tests::{
    Result,
    http::Http,
    programs,
    site::{Site, Token, await_keys},
    softhsm,
};
use serde_json::Value;

use super::container::Container;

/// Longer than anything here takes: a deadline so that a failure does not hang.
pub(super) const SOON: Duration = Duration::from_secs(60);

/// Where the units' sample drop-ins go.
const DROP_INS: &str = "/etc/systemd/system/segld.service.d";

/// The token and its configuration, where segld's user may write.
const SOFTHSM: &str = "/var/lib/segl/softhsm";

/// Installed, configured and booted.
pub(super) struct Host {
    pub(super) container: Container,
    pub(super) site: Site,
    _dir: tempfile::TempDir,
}

impl Host {
    /// Boots a host with this token. What is sealed, and what is started, is the test's business.
    pub(super) fn boot(name: &str, token: Token) -> Host {
        Host::boot_with(name, token, |_, _| {})
    }

    /// As [`boot`](Self::boot), after `change` has had its way with the container and the site.
    pub(super) fn boot_with(name: &str, token: Token, change: impl FnOnce(&mut Container, &mut Site)) -> Host {
        let dir = tempfile::tempdir().unwrap();
        let mut site = Site::create(&dir.path().join("site"), token, &[]).unwrap();
        let mut container = Container::prepare(name).unwrap();
        install(&container);
        change(&mut container, &mut site);
        configure(&container, &mut site);
        container.boot().unwrap();
        Host::around(container, site, dir)
    }

    /// Configures a host that runs, on which somebody else has installed everything.
    pub(super) fn configured(container: Container, mut site: Site, dir: tempfile::TempDir) -> Host {
        configure(&container, &mut site);
        Host::around(container, site, dir)
    }

    fn around(container: Container, mut site: Site, dir: tempfile::TempDir) -> Host {
        container.run(&["chgrp", "-R", "segl-broker", "/etc/segl/broker"]).unwrap();
        container.run(&["chmod", "-R", "u=rwX,g=rX,o=", "/etc/segl/broker"]).unwrap();
        // Whoever makes a token on a host does so as the user who is to use it.
        container.run(&["install", "-d", "-o", "segl", "-g", "segl", "-m", "0700", "/var/lib/segl"]).unwrap();
        container.run(&["chown", "-R", "segl:segl", "/var/lib/segl"]).unwrap();
        site.segld = ([127, 0, 0, 1], 7443).into();
        Host { container, site, _dir: dir }
    }

    /// Seals a secret under this name, as OPERATIONS.md tells, with the key that is given: `host`, `tpm2`, `host+tpm2`.
    pub(super) fn seal(&self, key: &str, name: &str, secret: &[u8]) {
        self.seal_as(key, name, secret, &format!("/etc/segl/credentials/{name}.cred"));
    }

    /// The same into another file.
    pub(super) fn seal_as(&self, key: &str, name: &str, secret: &[u8], file: &str) {
        let (key, name) = (format!("--with-key={key}"), format!("--name={name}"));
        self.container.feed(&["systemd-creds", "encrypt", &key, &name, "-", file], secret).unwrap();
    }

    /// Seals what the unit wants, with the host's key.
    pub(super) fn seal_all(&self) {
        self.seal("host", "pin", softhsm::PIN.as_bytes());
        self.seal_tls_key("host");
    }

    pub(super) fn seal_tls_key(&self, key: &str) {
        self.seal(key, "tls-key", &std::fs::read(self.site.dir.join("pki/segld.key")).unwrap());
    }

    /// A drop-in of segld.service; after the boot it is taken by daemon-reload.
    pub(super) fn drop_in(container: &Container, name: &str, content: &str) {
        container.put(&format!("{DROP_INS}/{name}.conf"), content.as_bytes()).unwrap();
    }

    /// Starts the socket, then segld by it: a client that connects.
    pub(super) fn start_by_socket(&self) {
        self.container.run(&["systemctl", "start", "segld.socket"]).unwrap();
        assert_eq!(self.container.show("segld.service", "ActiveState").unwrap(), "inactive");
        let connected = self.inside(|| std::net::TcpStream::connect(("127.0.0.1", 7443)));
        drop(connected.unwrap());
        self.await_keys();
    }

    /// Waits until segld's keys sign.
    pub(super) fn await_keys(&self) {
        self.inside(|| await_keys(&self.site.segld_admin()?)).unwrap();
    }

    /// segld's metrics and health.
    pub(super) fn admin(&self) -> Result<Http> {
        self.site.segld_admin()
    }

    /// Does something as a client in the container's network.
    pub(super) fn inside<T: Send>(&self, what: impl FnOnce() -> T + Send) -> T {
        self.container.in_network(what).unwrap()
    }

    /// Waits until a unit's property is this.
    pub(super) fn await_property(&self, unit: &str, property: &str, value: &str) {
        crate::room::until(&format!("{unit} has {property}={value}"), || {
            self.container.show(unit, property).is_ok_and(|now| now == value)
        });
    }

    /// What `segl status` says to root: its exit status, and the status itself, null where there is none.
    pub(super) fn status(&self) -> (i32, Value) {
        let output = self.container.try_run(&["segl", "status", "--json"]).unwrap();
        let status = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.code().unwrap(), status)
    }

    /// It says that all is well with this process, whose keys sign.
    #[track_caller]
    pub(super) fn is_well(&self) -> Value {
        let (exit, status) = self.status();
        assert_eq!(
            (exit, &status["health"], &status["findings"]),
            (0, &"ok".into(), &Value::Array(vec![])),
            "{status:#}"
        );
        let pid = self.container.show("segld.service", "MainPID").unwrap();
        assert_eq!(status["daemon"]["pid"].to_string(), pid, "{status:#}");
        assert!(status["tokens"].as_array().unwrap().iter().all(|token| token["state"] == "ready"), "{status:#}");
        assert!(status["keys"].as_array().unwrap().iter().all(|key| key["state"] == "usable"), "{status:#}");
        status
    }

    /// It says this first, with this exit status.
    #[track_caller]
    pub(super) fn is_unwell(&self, exit: i32, finding: &str) -> Value {
        let (said, status) = self.status();
        let first = status["findings"][0]["what"].as_str().unwrap_or_default();
        assert!(said == exit && first.contains(finding), "exit {said}: {status:#}");
        status
    }

    /// There is none that answers.
    #[track_caller]
    pub(super) fn is_down(&self) {
        let output = self.container.try_run(&["segl", "status"]).unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(3) && said.contains("segld does not run here"), "{output:?}");
    }

    pub(super) fn systemctl(&self, words: &[&str]) -> Result<String> {
        self.container.run(&[&["systemctl"], words].concat())
    }
}

/// The container has no time daemon, which the status would rightly tell of: something else vouches for its clock.
pub(super) fn with_a_clock(container: &Container, site: &mut Site) {
    container.put("/etc/segl/segld/clock", b"").unwrap();
    site.segld_toml.push_str("\n[host]\nclock_marker = \"clock\"\n");
}

/// Installs programs, units, users and directories as a package would.
pub(super) fn install(container: &Container) {
    for program in [programs::segld(), programs::segl(), programs::broker()] {
        let name = program.file_name().unwrap().to_str().unwrap();
        std::fs::copy(&program, container.root().join("usr/bin").join(name)).unwrap();
    }
    let systemd = programs::workspace().join("systemd");
    for (from, to) in [
        ("segld.service", "usr/lib/systemd/system"),
        ("segld.socket", "usr/lib/systemd/system"),
        ("segld-doctor.service", "usr/lib/systemd/system"),
        ("segl-broker.service", "usr/lib/systemd/system"),
        ("segl-broker.socket", "usr/lib/systemd/system"),
        ("sysusers.d/segld.conf", "usr/lib/sysusers.d"),
        ("sysusers.d/segl-broker.conf", "usr/lib/sysusers.d"),
        ("tmpfiles.d/segld.conf", "usr/lib/tmpfiles.d"),
        ("tmpfiles.d/segl-broker.conf", "usr/lib/tmpfiles.d"),
    ] {
        let name = from.rsplit('/').next().unwrap();
        container.put(&format!("{to}/{name}"), &std::fs::read(systemd.join(from)).unwrap()).unwrap();
    }
}

/// Puts an installation's configuration where the units look for it. Sockets come from systemd, PIN and TLS key as
/// credentials.
fn configure(container: &Container, site: &mut Site) {
    let mut segld = site
        .segld_toml
        .replace(&format!("addresses = [\"{}\"]\n", site.segld), "")
        .replace("\"pki/segld.key\"", "\"credential:tls-key\"")
        .replace("directory = \"journal\"", "directory = \"/var/lib/segl/journal\"")
        .replace("directory = \"keys\"", "directory = \"/var/lib/segl/keys\"")
        .replace("[control]\nsocket = \"control.sock\"\n", "");
    if let Some(softhsm) = site.softhsm() {
        segld = segld.replace(&format!("pin_file = \"{}\"", softhsm.pin_file().display()), "pin_credential = \"pin\"");
        let tokens = softhsm.pin_file().with_file_name("tokens");
        copy_all(&tokens, &container.root().join(SOFTHSM.trim_start_matches('/')).join("tokens"));
        let configuration = format!("directories.tokendir = {SOFTHSM}/tokens\nobjectstore.backend = file\n");
        container.put("/etc/segl/softhsm2.conf", configuration.as_bytes()).unwrap();
        Host::drop_in(container, "softhsm", "[Service]\nEnvironment=SOFTHSM2_CONF=/etc/segl/softhsm2.conf\n");
    }
    let broker = site
        .broker_toml
        .replace(&format!("listen = [\"{}\"]\n", site.broker), "")
        .replace(&site.segld.to_string(), "127.0.0.1:7443");
    container.put("/etc/segl/segld/segld.toml", segld.as_bytes()).unwrap();
    container.put("/etc/segl/broker/segl-broker.toml", broker.as_bytes()).unwrap();
    site.segld_toml = segld;
    let pki = site.dir.join("pki");
    let copy = |from: &str, to: &str| container.put(to, &std::fs::read(pki.join(from)).unwrap()).unwrap();
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

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}
