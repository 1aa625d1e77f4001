//! The status of a segld: what `segl status` shows, and with `--json` prints as it is.
//!
//! Within one [`FORMAT`] members are only added. Times of day are RFC 3339 in UTC; what has a unit has it in its name;
//! what is not known is null.

use serde::{Deserialize, Serialize};

use super::TestResult;

/// The format's number.
pub const FORMAT: u32 = 1;

/// Everything there is to see.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`FORMAT`]
    pub format: u32,
    /// Everything in a word
    pub health: Health,
    /// What is wrong, the worst first
    pub findings: Vec<Finding>,
    /// The daemon itself
    pub daemon: Daemon,
    /// What clients ask for, all together
    pub requests: Requests,
    /// In the order of the configuration
    pub tokens: Vec<Token>,
    /// In the order of their names; each version by itself
    pub keys: Vec<Key>,
    /// In the order of the configuration
    pub tenants: Vec<Tenant>,
    /// segld's certificate and its clients' revocation lists
    pub tls: Tls,
    /// The audit journal
    pub journal: Journal,
}

/// Everything in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// Nothing is wrong
    Ok,
    /// It signs, and somebody should look
    Degraded,
    /// Nothing is signed, or nobody can ask for it
    Down,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How bad it is
    pub severity: Severity,
    /// What is wrong
    pub what: String,
    /// What to do about it
    pub action: String,
    /// Where docs/OPERATIONS.md says more
    pub anchor: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Nothing is signed, or nobody can ask for it
    Critical,
    /// Something does not work, or will soon not
    Warning,
    /// Worth knowing; nothing is wrong
    Notice,
}

/// The daemon itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Daemon {
    /// Name and version
    pub software: String,
    /// What it is called
    pub host: String,
    /// Where it stands
    pub site: Option<String>,
    /// Its process id
    pub pid: u32,
    /// Now
    pub time: String,
    /// Since when it has been running
    pub started: String,
    /// For how long
    pub uptime_s: u64,
    /// Where clients connect
    pub listeners: Vec<String>,
    /// Connections of clients
    pub connections: usize,
    /// Of these, handshakes under way
    pub handshakes: usize,
    /// How much is logged
    pub log_level: String,
    /// Whether the host's clock is known to be synchronised
    pub clock_synchronised: bool,
    /// Who says so, or not
    pub clock: String,
    /// SHA-256 of the configuration in force
    pub config_sha256: String,
    /// The last reload since the start
    pub reload: Option<Reload>,
}

/// A reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {
    /// When it ended
    pub time: String,
    /// Whether it was taken
    pub ok: bool,
    /// What is in force now, or why it was refused
    pub message: String,
}

/// What clients ask for, all together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Requests {
    /// Answered with a signature, in the last ten seconds
    pub signatures_per_s: f64,
    /// The same in the last minute
    pub signatures_per_s_1m: f64,
    /// From a request's frame to its answer, the median of the last minute
    pub p50_us: Option<u64>,
    /// 99 of a hundred take no longer
    pub p99_us: Option<u64>,
    /// Jobs that wait for a session, by class
    pub queued: Queued,
    /// Jobs inside tokens
    pub running: u32,
    /// Retries that the budget still allows
    pub retries_left: u32,
    /// Retries that it did not allow, in the last minute
    pub retries_refused_1m: u64,
    /// Requests refused since too many waited, in the last minute
    pub overloaded_1m: u64,
}

/// Jobs that wait, by class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queued {
    /// A person waits at a login
    pub login: u32,
    /// A person waits for a signature
    pub signature: u32,
    /// Nobody waits
    pub bulk: u32,
}

/// A token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Token {
    /// Its name
    pub name: String,
    /// `pkcs11` or `embedded`
    pub kind: String,
    /// `ready`, `away`, ...: docs/OPERATIONS.md, "Tokens, and what they go through"
    pub state: String,
    /// Whether it is used before those that are not
    pub preferred: bool,
    /// Sessions that hold jobs
    pub sessions_busy: u16,
    /// Sessions that are open
    pub sessions_open: u16,
    /// Sessions it is allowed now
    pub sessions_cap: u16,
    /// Sessions configured
    pub sessions_configured: u16,
    /// Threads given up inside its code
    pub threads_stuck: u16,
    /// Jobs that wait for this token, among others perhaps
    pub queued: u32,
    /// Signatures made there, in the last ten seconds
    pub signatures_per_s: f64,
    /// The same in the last minute
    pub signatures_per_s_1m: f64,
    /// Inside the token, the median of the last minute
    pub p50_us: Option<u64>,
    /// 99 of a hundred take no longer
    pub p99_us: Option<u64>,
    /// Calls that failed, in the last minute
    pub errors_1m: u64,
    /// The latest error of any call
    pub last_error: Option<TokenError>,
    /// How often each rung of recovery was taken, since the start
    pub rungs: Rungs,
}

/// An error of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenError {
    /// When
    pub time: String,
    /// `device`, `pin-incorrect`, ...
    pub kind: String,
    /// What
    pub text: String,
}

/// How often each rung of recovery was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rungs {
    /// A session was replaced
    pub session: u64,
    /// A thread was given up
    pub thread: u64,
    /// The login was done again
    pub login: u64,
    /// All sessions and key handles were given up together
    pub token: u64,
    /// The module was begun anew
    pub module: u64,
    /// It was put on probation
    pub probation: u64,
}

/// A key, or a version of one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Key {
    /// Its name
    pub name: String,
    /// The version's name
    pub version: Option<String>,
    /// `next`, `active` or `former`; of a key with versions
    pub phase: Option<String>,
    /// `usable`, `unavailable`, `expired` or `faulty`
    pub state: String,
    /// The one thing it is for
    pub purpose: String,
    /// What it signs with
    pub algorithms: Vec<String>,
    /// Whether somebody is granted it
    pub granted: bool,
    /// How it stands on each token
    pub tokens: Vec<Holding>,
    /// When its certificate ends
    pub certificate_ends: Option<String>,
    /// In how long; negative once it has
    pub certificate_ends_in_s: Option<i64>,
    /// In how long its version begins to sign; negative once it does
    pub begins_in_s: Option<i64>,
}

/// How a key stands on a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// The token's name
    pub token: String,
    /// `passed`, `untested`, `failed`, `unfit`, `stranger`, or `unseen` where the token has not reported
    pub state: String,
    /// Why, where it is not used there
    pub detail: String,
    /// Whether it is used there now
    pub used: bool,
    /// The last self-test there
    pub self_test: Option<SelfTest>,
}

/// A self-test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelfTest {
    /// When it ended
    pub time: String,
    /// What came of it
    pub result: TestResult,
    /// Whether the key signed; else the token was only asked whether it holds it
    pub signed: bool,
}

/// A tenant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tenant {
    /// Its name
    pub name: String,
    /// Requests in flight
    pub in_flight: u32,
    /// The most it may have
    pub in_flight_max: u32,
    /// Requests answered as asked, in the last ten seconds
    pub served_per_s: f64,
    /// Requests refused, in the last ten seconds
    pub refused_per_s: f64,
    /// Requests answered as asked since the start
    pub served: u64,
    /// Requests refused since the start, for whatever reason
    pub refused: u64,
}

/// segld's certificate and its clients' revocation lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// When segld's own certificate ends
    pub certificate_ends: String,
    /// In how long; negative once it has
    pub certificate_ends_in_s: i64,
    /// For how long lists are honoured past their time
    pub crl_grace_s: i64,
    /// The lists
    pub crls: Vec<Crl>,
}

/// A revocation list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crl {
    /// Its issuer's name
    pub issuer: String,
    /// When it was made
    pub made: String,
    /// When the next one is due
    pub next_update: String,
    /// In how long; negative once it is overdue
    pub next_update_in_s: i64,
    /// How long it lasts from its making
    pub lasts_s: i64,
}

/// The audit journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// `open`, `full` or `failed`
    pub state: String,
    /// Why it failed
    pub trouble: Option<String>,
    /// The last record
    pub records: u64,
    /// Records that are not on disk yet
    pub lag: u64,
    /// For how long the disk has been writing the present batch
    pub committing_ms: u64,
    /// Records refused since the start
    pub refused: u64,
}

#[cfg(test)]
pub(crate) mod examples {
    use super::*;

    /// One token busy, the other away.
    pub(crate) fn degraded() -> Status {
        let mut status = well();
        status.health = Health::Degraded;
        status.findings.push(Finding {
            severity: Severity::Warning,
            what: "token hsm-b is away".into(),
            action: "look at network, HSM and slot".into(),
            anchor: "docs/OPERATIONS.md#tokens-and-what-they-go-through".into(),
        });
        status.requests.signatures_per_s = 812.0;
        status.tokens[0].sessions_busy = 2;
        status.tokens[0].sessions_cap = 8;
        status.tokens[0].p50_us = Some(1_234);
        status.tokens[1].state = "away".into();
        status.keys.iter_mut().for_each(|key| key.tokens[1].used = false);
        status
    }

    /// Everything well on two tokens.
    pub(crate) fn well() -> Status {
        Status {
            format: 1,
            health: Health::Ok,
            findings: Vec::new(),
            daemon: Daemon {
                software: "segld".into(),
                host: "room-1".into(),
                site: Some("A".into()),
                pid: 1,
                time: String::new(),
                started: String::new(),
                uptime_s: 1,
                listeners: Vec::new(),
                connections: 0,
                handshakes: 0,
                log_level: "info".into(),
                clock_synchronised: true,
                clock: "synchronised".into(),
                config_sha256: String::new(),
                reload: None,
            },
            requests: Requests { queued: Queued::default(), ..Requests::default() },
            tokens: vec![token("hsm-a"), token("hsm-b")],
            keys: vec![key("login"), key("documents")],
            tenants: vec![tenant("borger")],
            tls: Tls {
                certificate_ends: String::new(),
                certificate_ends_in_s: 90 * 86_400,
                crl_grace_s: 3_600,
                crls: vec![crl("CN=one", 6 * 86_400), crl("CN=two", 6 * 86_400)],
            },
            journal: Journal { state: "open".into(), trouble: None, records: 1, lag: 0, committing_ms: 0, refused: 0 },
        }
    }

    fn token(name: &str) -> Token {
        Token {
            name: name.into(),
            kind: "pkcs11".into(),
            state: "ready".into(),
            preferred: true,
            sessions_busy: 0,
            sessions_open: 4,
            sessions_cap: 4,
            sessions_configured: 4,
            threads_stuck: 0,
            queued: 0,
            signatures_per_s: 0.0,
            signatures_per_s_1m: 0.0,
            p50_us: None,
            p99_us: None,
            errors_1m: 0,
            last_error: None,
            rungs: Rungs::default(),
        }
    }

    fn key(name: &str) -> Key {
        let holding = |token: &str| Holding {
            token: token.into(),
            state: "passed".into(),
            detail: String::new(),
            used: true,
            self_test: None,
        };
        Key {
            name: name.into(),
            version: None,
            phase: None,
            state: "usable".into(),
            purpose: "digest".into(),
            algorithms: Vec::new(),
            granted: true,
            tokens: vec![holding("hsm-a"), holding("hsm-b")],
            certificate_ends: None,
            certificate_ends_in_s: None,
            begins_in_s: None,
        }
    }

    fn crl(issuer: &str, next_update_in_s: i64) -> Crl {
        let (made, next_update) = (String::new(), String::new());
        Crl { issuer: issuer.into(), made, next_update, next_update_in_s, lasts_s: 7 * 86_400 }
    }

    fn tenant(name: &str) -> Tenant {
        Tenant {
            name: name.into(),
            in_flight: 3,
            in_flight_max: 100,
            served_per_s: 800.0,
            refused_per_s: 0.0,
            served: 80_000,
            refused: 2,
        }
    }
}
