//! The configuration: one TOML file, and the certificates it names.
//!
//! [`load`] makes a [`Config`] in which everything is parsed, resolved and cross-checked, or says everything that is
//! wrong at once, with line and column. Whoever can write this file decides who may sign what.

mod files;
mod findings;
mod inventory;
mod quantity;
mod read_control;
mod read_documents;
mod read_keys;
mod read_settings;
mod read_tenants;
mod read_tls;
mod read_tokens;
mod read_versions;
mod reader;
mod settings;
mod syntax;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use ring::digest::{SHA256, digest};
use toml::de::DeTable;

use self::{files::Files, findings::Collector, read_tls::TlsParts, reader::Section, syntax::Source};

pub use self::{
    findings::{Finding, Findings, Severity},
    inventory::{
        Client, Generate, Grant, Key, KeyTerm, KeyVersion, Operation, Purpose, San, SelfTest, Tenant, Token, TokenKind,
        Verify,
    },
    read_control::DEFAULT_SOCKET,
    settings::{
        Admin, Audit, Clock, Control, FromFile, Group, Host, Io, Limits, Listen, Log, LogFormat, LogLevel, Pool,
        Reactor, Tls,
    },
};

/// Longest configuration file that is read, in bytes: a thousand keys and tenants fit many times over.
const FILE_MAX: u64 = 16 << 20;

/// What the daemon is told.
#[derive(Debug)]
pub struct Config {
    /// Who we are
    pub host: Host,
    /// Where we listen
    pub listen: Listen,
    /// Which threads serve connections
    pub reactor: Reactor,
    /// Who we are towards clients, and who they must be
    pub tls: Tls,
    /// Limits towards clients
    pub limits: Limits,
    /// How requests wait
    pub pool: Pool,
    /// The journal
    pub audit: Audit,
    /// Metrics, health, readiness
    pub admin: Admin,
    /// The operator's socket
    pub control: Control,
    /// The log
    pub log: Log,
    /// In the order of the file; names are unique
    pub tokens: Vec<Token>,
    /// In the order of the file; names are unique
    pub keys: Vec<Key>,
    /// In the order of the file; names are unique
    pub tenants: Vec<Tenant>,
    digest: [u8; 32],
}

impl Config {
    /// SHA-256 of the file's bytes: by this the journal and the log say which configuration was in force.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// The token of that name.
    pub fn token(&self, name: &str) -> Option<&Token> {
        self.tokens.iter().find(|token| &*token.name == name)
    }
}

/// Reads the configuration as the daemon does: with the warnings, or refused with everything that is wrong.
pub fn load(path: &Path) -> Result<(Config, Findings), Findings> {
    let (config, findings) = read_file(path, &Surroundings::of_daemon());
    match config {
        Some(config) if !findings.fatal() => Ok((config, findings)),
        _ => Err(findings),
    }
}

/// Looks at the configuration as an operator at his shell does: credentials, which only the service sees, are not
/// missed.
pub fn check(path: &Path) -> Findings {
    read_file(path, &Surroundings::of_shell()).1
}

/// Looks at it as [`check`] does, for who goes on to look at the host: what could be read, and what was said of it. The
/// service's credentials are seen where it runs.
pub(crate) fn draft(path: &Path) -> (Option<Draft>, Findings) {
    let seen = Path::new(UNIT_CREDENTIALS);
    let credentials = seen.is_dir().then(|| seen.to_owned());
    read_draft(path, &Surroundings { credentials, ..Surroundings::of_shell() })
}

/// Where systemd has unsealed the unit's credentials, for those who are not the service.
pub(crate) const UNIT_CREDENTIALS: &str = "/run/credentials/segld.service";

/// As much of a configuration as could be read.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) host: Host,
    pub(crate) listen: Listen,
    pub(crate) reactor: Reactor,
    pub(crate) tls: TlsParts,
    pub(crate) limits: Limits,
    pub(crate) pool: Pool,
    pub(crate) audit: Option<Audit>,
    pub(crate) admin: Admin,
    pub(crate) control: Control,
    pub(crate) log: Log,
    pub(crate) tokens: Vec<Token>,
    pub(crate) keys: Vec<Key>,
    pub(crate) tenants: Vec<Tenant>,
    digest: [u8; 32],
}

impl Draft {
    /// The configuration, if nothing is missing.
    fn whole(self) -> Option<Config> {
        let Draft {
            host,
            listen,
            reactor,
            tls,
            limits,
            pool,
            audit,
            admin,
            control,
            log,
            tokens,
            keys,
            tenants,
            digest,
        } = self;
        let (tls, audit) = (tls.whole()?, audit?);
        Some(Config {
            host,
            listen,
            reactor,
            tls,
            limits,
            pool,
            audit,
            admin,
            control,
            log,
            tokens,
            keys,
            tenants,
            digest,
        })
    }
}

/// What a configuration is judged against.
struct Surroundings {
    now_unix_s: i64,
    credentials: Option<PathBuf>,
    /// Whether it is the daemon that asks, which sees what it will use; an operator's shell may not
    as_daemon: bool,
    cores: Vec<usize>,
    /// What `/etc/machine-id` says; none where it says nothing
    machine_id: Option<String>,
}

impl Surroundings {
    fn of_daemon() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Surroundings {
            now_unix_s: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
            credentials: credentials_directory(std::env::var_os("CREDENTIALS_DIRECTORY")),
            as_daemon: true,
            cores: own_cores(),
            machine_id: machine_id(),
        }
    }

    fn of_shell() -> Self {
        Surroundings { as_daemon: false, ..Surroundings::of_daemon() }
    }
}

fn credentials_directory(value: Option<OsString>) -> Option<PathBuf> {
    value.map(PathBuf::from).filter(|path| path.is_absolute())
}

/// The cores this process may run on.
fn own_cores() -> Vec<usize> {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..rustix::thread::CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect(),
        Err(_) => (0..std::thread::available_parallelism().map_or(1, usize::from)).collect(),
    }
}

/// Which installation this is (machine-id(5)).
pub(crate) fn machine_id() -> Option<String> {
    let id = std::fs::read_to_string("/etc/machine-id").ok()?;
    let id = id.trim();
    is_machine_id(id).then(|| id.to_owned())
}

/// 32 hexadecimal digits, in small letters.
fn is_machine_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn read_file(path: &Path, surroundings: &Surroundings) -> (Option<Config>, Findings) {
    let (draft, findings) = read_draft(path, surroundings);
    (whole(draft, &findings), findings)
}

fn read_draft(path: &Path, surroundings: &Surroundings) -> (Option<Draft>, Findings) {
    let refused = |text: String, hint: &str| {
        let (file, hint) = (path.to_owned(), hint.to_owned());
        (None, Findings::one(Finding { severity: Severity::Error, file, place: None, text, hint }))
    };
    let bytes = match files::read_bounded(path, FILE_MAX) {
        Ok(bytes) => bytes,
        Err(error) => return refused(format!("it can not be read: {error}"), "give the path of a readable file"),
    };
    match std::str::from_utf8(&bytes) {
        Ok(text) => read_text(path, text, surroundings),
        Err(error) => {
            let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
            refused(format!("line {line} is not UTF-8"), "save the file as UTF-8")
        }
    }
}

/// What is wrong anywhere spoils all of it.
fn whole(draft: Option<Draft>, findings: &Findings) -> Option<Config> {
    draft.filter(|_| !findings.fatal()).and_then(Draft::whole)
}

fn read_text(path: &Path, text: &str, surroundings: &Surroundings) -> (Option<Draft>, Findings) {
    let source = Source::new(text);
    let mut collector = Collector::new(path.to_owned(), text);
    for error in source.errors {
        collector.syntax(error.offset, error.message);
    }
    let tree = source.readable.as_deref().and_then(|readable| DeTable::parse(readable).ok());
    let draft = tree.map(|tree| {
        let files = Files::new(path, surroundings, &collector);
        let root = Section::root(&tree, &collector);
        let draft = read_root(&root, &files, text);
        root.finish();
        draft
    });
    (draft, collector.finish())
}

/// Everything is read even when something is missing, so that everything is said.
fn read_root(root: &Section<'_>, files: &Files<'_>, text: &str) -> Draft {
    let host = read_settings::host(root.section("host"), files);
    let listen = read_settings::listen(root.section("listen"));
    let reactor = read_settings::reactor(root.section("reactor"), files);
    let tls = read_tls::tls(root.section("tls"), files);
    let limits = read_settings::limits(root.section("limits"));
    let pool = read_settings::pool(root.section("pool"));
    let (audit, unrecorded) = read_settings::audit(root.section("audit"), files);
    let admin = read_settings::admin(root.section("admin"), &listen);
    let control = read_control::control(root.section("control"), files);
    let log = read_settings::log(root.section("log"));
    let tokens = read_tokens::tokens(root.sections("token", "[[token]]"), &host, &limits, files);
    if let Some(at) = unrecorded {
        read_settings::unrecorded(&at, &listen.value, &tokens, files.collector());
    }
    let keys = read_keys::keys(root.sections("key", "[[key]]"), &tokens, files);
    let tenants = read_tenants::tenants(root.sections("tenant", "[[tenant]]"), &keys, &limits, files.collector());
    Draft {
        host,
        listen: listen.value,
        reactor,
        tls,
        limits,
        pool,
        audit,
        admin,
        control,
        log,
        tokens: tokens.into_iter().map(|token| token.value).collect(),
        keys: keys.into_iter().map(|key| key.value).collect(),
        tenants,
        digest: digest(&SHA256, text.as_bytes()).as_ref().try_into().expect("SHA-256 has 32 bytes"),
    }
}
