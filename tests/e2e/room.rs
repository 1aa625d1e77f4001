//! segld alone in a directory of its own, as most tests want it, and what is asked of it again and again.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use segl_tests::{
    conversation::{Conversation, sign_request},
    http::Http,
    process::{Service, Signal},
    programs,
    site::{P256, Site, Token},
};
use segl_wire::{GoAway, GoAwayReason, Keys, Kind, Limits, ListKeys, Message};

/// Longer than anything here takes: a deadline so that a failure does not hang.
pub(crate) const SOON: Duration = Duration::from_secs(30);
pub(crate) const DIGEST: [u8; 32] = [7; 32];

pub(crate) struct Room {
    pub(crate) segld: Service,
    pub(crate) site: Site,
    pub(crate) admin: Http,
    _dir: tempfile::TempDir,
}

impl Room {
    /// Makes the installation, lets `change` alter it, and starts segld.
    pub(crate) fn open(token: Token, change: impl FnOnce(&mut Site)) -> Self {
        let (mut site, dir) = site(token);
        change(&mut site);
        site.write().unwrap();
        let segld = site.start_segld().unwrap();
        Room::around(site, segld, dir)
    }

    pub(crate) fn around(site: Site, segld: Service, dir: tempfile::TempDir) -> Self {
        let admin = site.segld_admin().unwrap();
        Room { segld, site, admin, _dir: dir }
    }

    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        self.admin.metric(name, labels).unwrap()
    }

    /// SIGHUP, until segld says that it is through with it; returns what it logged meanwhile.
    pub(crate) fn reload(&mut self) -> String {
        self.site.write().unwrap();
        let before = self.segld.log().len();
        self.segld.signal(Signal::HUP).unwrap();
        self.segld.notified("RELOADING=1", SOON).unwrap();
        self.segld.ready(SOON).unwrap();
        // The log is written by a thread of its own.
        let said = || self.segld.log().split_off(before);
        until("the reload's end is in the log", || {
            ["reloaded", "the reload is refused"].iter().any(|end| said().contains(end))
        });
        said()
    }

    /// A reload that is taken.
    pub(crate) fn reload_taken(&mut self) {
        let said = self.reload();
        assert!(said.contains("reloaded") && self.metric("segl_reload_ok", &[]) == 1.0, "{said}");
    }

    /// A reload that is refused, with every one of `why` in the log.
    pub(crate) fn reload_refused(&mut self, why: &[&str]) {
        let said = self.reload();
        assert!(said.contains("the reload is refused; the old configuration stays in force"), "{said}");
        for why in why {
            assert!(said.contains(why), "{why:?} is not in {said}");
        }
        assert_eq!(self.metric("segl_reload_ok", &[]), 0.0);
    }
}

/// The same command, run by a shell that does something first: what a test can not do between fork and exec.
pub(crate) fn after(script: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("{script}; exec \"$0\" \"$@\"")).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        shell.env(name, value.expect("a command here only adds to the environment"));
    }
    shell
}

pub(crate) fn site(token: Token) -> (Site, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (Site::create(&dir.path().join("site"), token, &[]).unwrap(), dir)
}

/// One more key in the configuration, and the first tenant's grant to it.
pub(crate) fn add_key(site: &mut Site, name: &str, algorithm: &str, locator: &str) {
    let token = if site.softhsm().is_some() { "softhsm" } else { "embedded" };
    let key = format!(
        "[[key]]\nname = \"{name}\"\npurpose = \"digest\"\ntokens = [\"{token}\"]\n{locator}\n\
         algorithms = [\"{algorithm}\"]\n\n[[tenant]]"
    );
    site.segld_toml = site.segld_toml.replacen("[[tenant]]", &key, 1);
    let grant = format!("[[tenant.grant]]\nkey = \"{name}\"\n[[tenant.grant]]");
    site.segld_toml = site.segld_toml.replacen("[[tenant.grant]]", &grant, 1);
}

/// A connection of one of the tenants.
pub(crate) fn try_connect(site: &Site, tenant: usize) -> segl_tests::Result<Conversation> {
    Conversation::open(site.segld, &site.servers.pem(), Some(&site.tenants[tenant].identity))
}

pub(crate) fn connect(site: &Site, tenant: usize) -> Conversation {
    try_connect(site, tenant).unwrap()
}

/// A request that every tenant may make is answered with a signature.
pub(crate) fn sound(conversation: &mut Conversation) {
    conversation.sign(&sign_request(P256, "ecdsa-p256-sha256", &DIGEST)).unwrap().unwrap();
}

/// A key's public key, as ListKeys shows it.
pub(crate) fn spki(conversation: &mut Conversation, key: &str) -> Vec<u8> {
    conversation.send(Kind::ListKeys, &ListKeys { meta: sign_request("", "", &[]).meta }).unwrap();
    let frame = conversation.answer().unwrap();
    let keys = Keys::decode(&frame.body, &Limits::from(conversation.hello())).unwrap();
    let found = keys.keys.iter().find(|entry| entry.name == key);
    found.unwrap_or_else(|| panic!("{key} is not listed")).spki_der.to_vec()
}

/// The next frame is a GoAway, and after it the connection ends.
pub(crate) fn sent_away(conversation: &mut Conversation) -> GoAwayReason {
    let frame = conversation.receive().unwrap().expect("a GoAway before the end");
    assert_eq!(frame.header.known_kind(), Some(Kind::GoAway));
    let reason = GoAway::decode(&frame.body, &Limits::from(conversation.hello())).unwrap().reason;
    assert!(conversation.receive().unwrap().is_none(), "then the connection ends");
    reason
}

/// What the journal holds, a value a record, after `segl audit verify` has found it sound. What a segld that runs has
/// said and not yet written is waited for.
pub(crate) fn journal(site: &Site) -> Vec<serde_json::Value> {
    let admin = site.segld_admin().unwrap();
    let lag = || admin.metric("segl_journal_lag_records", &[]);
    until("everything is on disk", || lag().map_or(true, |records| records == 0.0));
    journal_in(&site.journal())
}

pub(crate) fn journal_in(directory: &std::path::Path) -> Vec<serde_json::Value> {
    let segl = |words: &[&str]| {
        let output = Command::new(programs::segl()).args(words).arg(directory).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let verdict = segl(&["audit", "verify"]);
    assert!(verdict.ends_with("SOUND\n"), "{verdict}");
    segl(&["audit", "show", "--json"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Asks again and again until it is so: for what nobody announces.
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !so() {
        assert!(Instant::now() < deadline, "{what}: not within {} s", SOON.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
}
