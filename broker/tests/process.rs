//! The program itself: what it tells systemd, what signals do, what it says when it cannot run.
#![allow(clippy::unwrap_used, reason = "clippy lets tests unwrap, but not what they are set up with")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::{fs::PermissionsExt as _, net::UnixDatagram},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use ring::digest::{SHA256, digest};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_segl-broker");

/// Far longer than anything here takes: a deadline so that a failure does not hang.
const PATIENCE: Duration = Duration::from_secs(60);

struct Folder(TempDir);

impl Folder {
    /// With a CA, a tenant's identity and a configuration for plain HTTP.
    fn new(token: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["localhost".into()]).unwrap().signed_by(&key, &ca).unwrap();
        folder.write("ca.pem", &ca.pem(), 0o644);
        folder.write("leaf.pem", &leaf.pem(), 0o644);
        folder.write("leaf.key", &key.serialize_pem(), 0o600);
        folder.configure(token, "insecure_loopback = true");
        folder
    }

    fn configure(&self, token: &str, http: &str) {
        let hash: String =
            digest(&SHA256, token.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let text = format!(
            r#"
            [http]
            listen = ["127.0.0.1:0"]
            {http}
            [admin]
            listen = "127.0.0.1:0"
            [log]
            format = "json"
            [upstream]
            ca = "ca.pem"
            connect_timeout_ms = 100
            [[segld]]
            address = "127.0.0.1:1"
            server_name = "localhost"
            [[tenant]]
            name = "t"
            certificate = "leaf.pem"
            private_key = "leaf.key"
            [[caller]]
            name = "c"
            tenant = "t"
            bearer_sha256 = ["{hash}"]
            keys = ["k"]
            operations = ["sign", "keys"]
            "#
        );
        self.write("broker.toml", &text, 0o644);
    }

    fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn config(&self) -> PathBuf {
        self.0.path().join("broker.toml")
    }
}

/// A running broker and what it tells systemd.
struct Running {
    child: Child,
    systemd: UnixDatagram,
    callers: SocketAddr,
    admin: SocketAddr,
}

impl Running {
    fn start(folder: &Folder) -> Self {
        let socket = folder.0.path().join("notify");
        let systemd = UnixDatagram::bind(&socket).unwrap();
        systemd.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut child = Command::new(PROGRAM)
            .arg("--config")
            .arg(folder.config())
            .env("NOTIFY_SOCKET", &socket)
            .env("WATCHDOG_USEC", "100000")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut address = |message: &str| {
            for line in (&mut log).lines() {
                let line = line.unwrap();
                if line.contains(message) {
                    let json: serde_json::Value = serde_json::from_str(&line).unwrap();
                    return json["fields"]["address"].as_str().unwrap().parse().unwrap();
                }
            }
            panic!("the log ended without {message}");
        };
        let (callers, admin) = (address("serving callers"), address("serving metrics"));
        // The rest of the log is read so that the program never waits for us.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        let running = Self { child, systemd, callers, admin };
        running.wait_told("READY=1");
        running
    }

    fn wait_told(&self, expected: &str) {
        let mut message = [0; 1024];
        loop {
            let len = self.systemd.recv(&mut message).unwrap_or_else(|error| panic!("no {expected}: {error}"));
            if std::str::from_utf8(&message[..len]).unwrap().lines().any(|line| line == expected) {
                return;
            }
        }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id() as i32).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// The status line of an answer.
    fn status(&self, path: &str, token: &str) -> String {
        get(self.callers, path, token).lines().next().unwrap_or_default().to_owned()
    }

    fn exit(mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.wait_told("STOPPING=1");
        self.child.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn get(address: SocketAddr, path: &str, token: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn run(arguments: &[&str], config: &Path) -> Output {
    Command::new(PROGRAM).args(arguments).arg("--config").arg(config).output().unwrap()
}

#[test]
fn it_starts_without_a_segld_says_so_feeds_the_watchdog_and_leaves_in_peace() {
    let folder = Folder::new("token");
    let running = Running::start(&folder);
    assert_eq!(running.status("/healthz", ""), "HTTP/1.1 200 OK");
    let limits = fs::read_to_string(format!("/proc/{}/limits", running.child.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "no core dumps");
    assert_eq!(running.status("/readyz", ""), "HTTP/1.1 503 Service Unavailable");
    assert_eq!(running.status("/v1/keys", "token"), "HTTP/1.1 503 Service Unavailable");
    assert_eq!(running.status("/v1/keys", "other"), "HTTP/1.1 401 Unauthorized");
    assert_eq!(running.status("/metrics", ""), "HTTP/1.1 404 Not Found");
    let ready = get(running.admin, "/readyz", "");
    assert!(ready.contains("\"segld\":\"127.0.0.1:1\",\"state\":\"down"), "{ready}");
    let metrics = get(running.admin, "/metrics", "");
    assert!(metrics.contains("segl_broker_certificate_not_after_seconds{holder=\"tenant:t\"}"), "{metrics}");
    running.wait_told("WATCHDOG=1");
    assert!(running.exit().success());
}

#[test]
fn a_reload_takes_new_callers_and_refuses_a_configuration_that_is_wrong() {
    let folder = Folder::new("old");
    let running = Running::start(&folder);
    folder.configure("new", "insecure_loopback = true");
    running.signal(rustix::process::Signal::HUP);
    running.wait_told("RELOADING=1");
    running.wait_told("READY=1");
    assert_eq!(running.status("/v1/keys", "old"), "HTTP/1.1 401 Unauthorized");
    assert_eq!(running.status("/v1/keys", "new"), "HTTP/1.1 503 Service Unavailable");

    folder.configure("newest", "insecure_loopback = 1");
    running.signal(rustix::process::Signal::HUP);
    running.wait_told("RELOADING=1");
    running.wait_told("READY=1");
    assert_eq!(running.status("/v1/keys", "newest"), "HTTP/1.1 401 Unauthorized");
    assert_eq!(running.status("/v1/keys", "new"), "HTTP/1.1 503 Service Unavailable");
    let metrics = get(running.admin, "/metrics", "");
    assert!(metrics.contains("segl_broker_reloads_total{outcome=\"ok\"} 1"), "{metrics}");
    assert!(metrics.contains("segl_broker_reloads_total{outcome=\"refused\"} 1"));
    assert!(running.exit().success());
}

#[test]
fn check_and_start_tell_the_same_mistakes() {
    let folder = Folder::new("token");
    assert!(run(&["check"], &folder.config()).status.success());
    folder.write("leaf.key", "no key", 0o644);
    folder.configure("token", "insecure_loopback = true\nlistens = 1");
    let (check, start) = (run(&["check"], &folder.config()), run(&[], &folder.config()));
    assert!(!check.status.success() && !start.status.success());
    let text = String::from_utf8(check.stderr).unwrap();
    assert_eq!(text, String::from_utf8(start.stderr).unwrap());
    assert!(text.contains("broker.toml:5: [http]: unknown `listens`"), "{text}");
    assert!(text.contains("chmod 0600"), "{text}");
}

#[test]
fn a_new_token_is_the_one_that_its_hash_admits() {
    let output = Command::new(PROGRAM).arg("new-token").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let words: Vec<_> = text.split_whitespace().collect();
    let [_, token, "bearer_sha256", hash] = words[..] else { panic!("{text}") };
    let computed: String =
        digest(&SHA256, token.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hash, computed);
}
