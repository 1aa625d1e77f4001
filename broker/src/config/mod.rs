//! The configuration file: its shape, its defaults and what must agree within it.
//!
//! [`Config::parse`] looks at the text alone; [`load`](crate::config::load) then opens the files it names.

mod documents;
mod load;
mod reader;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

pub use documents::{Provider, Publish, PublishedKey};
pub use load::{Loaded, TenantIdentity};
pub use reader::{At, Finding, Findings};

use self::reader::{Section, Source};
use crate::callers::{CertificateName, Operation, TokenHash};

/// How long after a request's timeout its answer may still come, and be asked for again.
const ANSWER_SLACK: Duration = Duration::from_secs(2);

/// Where the unit's credentials are for those who are not the service.
const CREDENTIALS: &str = "/run/credentials/segl-broker.service";

/// `segl-broker.toml`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where callers are served
    pub http: Http,
    /// Where the operator looks
    pub admin: Option<SocketAddr>,
    /// How it logs
    pub log: Log,
    /// What all `segld` have in common
    pub upstream: Upstream,
    /// The `segld` that there are
    pub segld: Vec<Segld>,
    /// How long answers are kept for `Idempotency-Key`
    pub idempotency: Idempotency,
    /// On whose road requests travel
    pub tenants: Vec<Tenant>,
    /// Who may ask
    pub callers: Vec<Caller>,
    /// Which keys the world is told of
    pub publish: Publish,
    /// Whom assertions may be encrypted for
    pub providers: Vec<Provider>,
}

/// `[http]`: the listener for callers and its limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Http {
    /// Addresses; sockets passed by systemd take their place
    pub listen: Vec<At<SocketAddr>>,
    /// Certificate chain and key; none only with `insecure_loopback`
    pub identity: Option<Identity>,
    /// Who issues callers' certificates
    pub client_ca: Option<At<PathBuf>>,
    /// Plain HTTP, on loopback addresses only
    pub insecure_loopback: bool,
    /// Connections at once
    pub connections_max: usize,
    /// From accept to the end of the TLS handshake
    pub handshake_timeout: Duration,
    /// From the first byte of a request, or from the last answer, to the end of its header
    pub header_timeout: Duration,
    /// From the end of the header to the end of the body
    pub body_timeout: Duration,
    /// Longest body in bytes
    pub body_max: usize,
    /// Most items in a batch
    pub batch_max: usize,
    /// Signatures that one caller may have asked for at once
    pub in_flight_per_caller: usize,
    /// A request's `timeout_ms` when it names none
    pub request_timeout: Duration,
    /// Longest `timeout_ms` that is honoured
    pub request_timeout_max: Duration,
    /// At SIGTERM: how long requests in flight may take
    pub drain_timeout: Duration,
}

/// A certificate chain and its private key, both PEM files.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// Leaf first
    pub certificate: At<PathBuf>,
    /// Readable by its owner and at most its group
    pub private_key: At<PathBuf>,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// One JSON object a line instead of text
    pub json: bool,
    /// As in `RUST_LOG`
    pub filter: String,
}

/// `[upstream]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// Who issues the certificates of `segld`; empty when missing, which is a finding
    pub ca: At<PathBuf>,
    /// TCP and TLS together
    pub connect_timeout: Duration,
    /// Between two looks at the keys' states
    pub keys_refresh: Duration,
    /// Keys whose request may be made again when it is unknown whether it was signed
    pub repeatable_keys: BTreeSet<String>,
}

/// `[[segld]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Segld {
    /// What callers and metrics call it
    pub name: String,
    /// `host:port`
    pub address: At<String>,
    /// The name in its certificate
    pub server_name: At<String>,
}

/// `[idempotency]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Idempotency {
    /// How long an answer is kept
    pub window: Duration,
    /// Answers kept for each caller
    pub entries_per_caller: usize,
    /// Answers kept in all, in bytes
    pub bytes_max: usize,
    line: usize,
}

/// `[[tenant]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Tenant {
    /// Its name
    pub name: At<String>,
    /// Its own client certificate towards `segld`
    pub identity: Identity,
}

/// `[[caller]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Caller {
    /// Stands in `segld`'s record as the one on whose behalf the broker asks
    pub name: At<String>,
    /// The one tenant it belongs to
    pub tenant: At<String>,
    /// SHA-256 of its tokens
    pub tokens: Vec<At<TokenHash>>,
    /// Its certificates
    pub certificates: Vec<At<CertificateName>>,
    /// Keys it may use
    pub keys: BTreeSet<String>,
    /// What it may do with them
    pub operations: BTreeSet<Operation>,
}

impl Config {
    /// Reads the text; relative paths are taken from `base`. Everything that can be told from the text alone is
    /// told, and what could be read is returned beside it, so that the files it names can be looked at too.
    pub fn parse(text: &str, base: &Path) -> (Self, Findings) {
        let source = Source::new(text);
        let document = source.document();
        let mut root = Section::root(&source, &document);
        let http = Http::read(root.section("http"), base);
        let config = {
            let admin = read_admin(root.section("admin"));
            let log = Log::read(root.section("log"));
            let upstream = Upstream::read(root.section("upstream"), base);
            let segld = root.sections("segld").into_iter().filter_map(Segld::read).collect();
            let idempotency = Idempotency::read(root.section("idempotency"));
            let tenants = root.sections("tenant").into_iter().filter_map(|s| Tenant::read(s, base)).collect();
            let callers = root.sections("caller").into_iter().filter_map(Caller::read).collect();
            let publish = Publish::read(root.section("publish"));
            let providers = root.sections("provider").into_iter().filter_map(|s| Provider::read(s, base)).collect();
            for list in ["segld", "tenant", "caller"] {
                root.demand(list);
            }
            root.finish();
            Self { http, admin, log, upstream, segld, idempotency, tenants, callers, publish, providers }
        };
        let mut findings = source.into_findings();
        config.cross_check(&mut findings);
        (config, findings)
    }

    /// What must agree across tables.
    fn cross_check(&self, findings: &mut Findings) {
        unique(findings, "tenant", self.tenants.iter().map(|tenant| &tenant.name));
        unique(findings, "caller", self.callers.iter().map(|caller| &caller.name));
        unique(findings, "token", self.callers.iter().flat_map(|caller| &caller.tokens));
        unique(findings, "certificate", self.callers.iter().flat_map(|caller| &caller.certificates));
        unique(findings, "address", self.segld.iter().map(|segld| &segld.address));
        let names = self.segld.iter().map(|segld| At { value: segld.name.clone(), line: segld.address.line });
        unique(findings, "segld", names.collect::<Vec<_>>().iter());
        let of_callers = self.callers.iter().map(|caller| ("[[caller]]", &caller.tenant));
        for (section, tenant) in of_callers.chain(self.publish.keys().map(|key| ("[publish]", &key.tenant))) {
            if !self.tenants.iter().any(|known| known.name.value == tenant.value) {
                findings.push(tenant.line, format!("{section}: there is no tenant `{}`", tenant.value));
            }
        }
        for caller in &self.callers {
            if let (Some(certificate), None) = (caller.certificates.first(), &self.http.client_ca) {
                findings.push(certificate.line, "[[caller]]: `certificate` needs [http] `client_ca`");
            }
        }
        if self.idempotency.window <= self.http.request_timeout_max + ANSWER_SLACK {
            findings.push(
                self.idempotency.line,
                "[idempotency]: `window_s` must be longer than [http] `request_timeout_max_ms` and 2 s more: an answer must be kept beyond the wait for it",
            );
        }
    }
}

impl Http {
    fn read(mut section: Section<'_>, base: &Path) -> Self {
        let identity = read_identity(&mut section, base, false);
        let http = Self {
            listen: section.parsed_list("listen", "an address such as 127.0.0.1:8443"),
            identity,
            client_ca: read_path(&mut section, "client_ca", base),
            insecure_loopback: section.boolean("insecure_loopback", false),
            connections_max: section.number("connections_max", 1..=100_000, 1_024) as usize,
            handshake_timeout: millis(&mut section, "handshake_timeout_ms", 100..=60_000, 5_000),
            header_timeout: millis(&mut section, "header_timeout_ms", 100..=600_000, 30_000),
            body_timeout: millis(&mut section, "body_timeout_ms", 100..=60_000, 5_000),
            body_max: section.number("body_max", 1_024..=16 << 20, 1 << 20) as usize,
            batch_max: section.number("batch_max", 1..=4_096, 256) as usize,
            in_flight_per_caller: section.number("in_flight_per_caller", 1..=100_000, 1_024) as usize,
            request_timeout: millis(&mut section, "request_timeout_ms", 1..=120_000, 10_000),
            request_timeout_max: millis(&mut section, "request_timeout_max_ms", 1..=120_000, 30_000),
            drain_timeout: millis(&mut section, "drain_timeout_ms", 0..=600_000, 30_000),
        };
        let line = section.line;
        match (&http.identity, http.insecure_loopback) {
            (Some(_), true) => section.note(line, "`certificate` and `insecure_loopback` exclude each other"),
            (None, false) => {
                section.note(line, "`certificate` and `private_key` are missing (or, for development on loopback, `insecure_loopback = true`)");
            }
            (Some(_), false) => {}
            (None, true) => {
                for address in http.listen.iter().filter(|address| !address.ip().is_loopback()) {
                    let message = format!("plain HTTP is served on loopback only, and {} is not", address.value);
                    section.note(address.line, &message);
                }
                if let Some(ca) = &http.client_ca {
                    section.note(ca.line, "`client_ca` needs `certificate`: plain HTTP knows no client certificates");
                }
            }
        }
        if http.batch_max > http.in_flight_per_caller {
            section.note(line, "`batch_max` is above `in_flight_per_caller`");
        }
        if http.request_timeout > http.request_timeout_max {
            section.note(line, "`request_timeout_ms` is above `request_timeout_max_ms`");
        }
        section.finish();
        http
    }
}

/// The admin address; none when switched off with `enabled = false`.
fn read_admin(mut section: Section<'_>) -> Option<SocketAddr> {
    let enabled = section.boolean("enabled", true);
    let listen = section.parsed("listen", "an address such as 127.0.0.1:9444").map(|listen| listen.value);
    section.finish();
    enabled.then(|| listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 9444))))
}

impl Log {
    fn read(mut section: Section<'_>) -> Self {
        let json = match section.string("format") {
            None => false,
            Some(format) if *format == "text" => false,
            Some(format) if *format == "json" => true,
            Some(format) => {
                section.note(format.line, "`format` must be \"text\" or \"json\"");
                false
            }
        };
        let filter = section.string("filter");
        if let Some(filter) = &filter
            && let Err(error) = tracing_subscriber::EnvFilter::try_new(&filter.value)
        {
            section.note(filter.line, &format!("`filter`: {error}"));
        }
        section.finish();
        Self { json, filter: filter.map_or_else(|| "info".into(), |filter| filter.value) }
    }
}

impl Upstream {
    fn read(mut section: Section<'_>, base: &Path) -> Self {
        section.demand("ca");
        let ca = read_path(&mut section, "ca", base);
        let connect_timeout = millis(&mut section, "connect_timeout_ms", 100..=60_000, 3_000);
        let keys_refresh = millis(&mut section, "keys_refresh_ms", 100..=60_000, 2_000);
        let repeatable = section.strings("repeatable_keys");
        section.finish();
        let repeatable_keys = repeatable.into_iter().map(|key| key.value).collect();
        let ca = ca.unwrap_or(At { value: PathBuf::new(), line: 0 });
        Self { ca, connect_timeout, keys_refresh, repeatable_keys }
    }
}

impl Segld {
    fn read(mut section: Section<'_>) -> Option<Self> {
        let address = section.required("address");
        if let Some(address) = &address
            && address.rsplit_once(':').is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err())
        {
            section.note(address.line, &format!("`address` must be host:port, not `{}`", address.value));
        }
        let server_name = section.required("server_name");
        let name = read_name(&mut section, "name", false).map(|name| name.value);
        section.finish();
        let address = address?;
        Some(Self { name: name.unwrap_or_else(|| address.value.clone()), server_name: server_name?, address })
    }
}

impl Idempotency {
    fn read(mut section: Section<'_>) -> Self {
        let idempotency = Self {
            window: Duration::from_secs(section.number("window_s", 1..=86_400, 600)),
            entries_per_caller: section.number("entries_per_caller", 1..=1_000_000, 20_000) as usize,
            bytes_max: section.number("bytes_max", 1 << 16..=1 << 32, 128 << 20) as usize,
            line: section.line,
        };
        section.finish();
        idempotency
    }
}

impl Tenant {
    fn read(mut section: Section<'_>, base: &Path) -> Option<Self> {
        let name = read_name(&mut section, "name", true);
        let identity = read_identity(&mut section, base, true);
        section.finish();
        Some(Self { name: name?, identity: identity? })
    }
}

impl Caller {
    fn read(mut section: Section<'_>) -> Option<Self> {
        let name = read_name(&mut section, "name", true);
        let tenant = section.required("tenant");
        let tokens = section.secret_list("bearer_sha256", "64 hexadecimal digits (see `segl-broker new-token`)");
        let certificates: Vec<_> = section.sections("certificate").into_iter().filter_map(read_certificate).collect();
        if !section.has("bearer_sha256") && !section.has("certificate") {
            section.note(section.line, "needs `bearer_sha256` or `certificate`: nobody could be this caller");
        }
        let keys = section.strings("keys");
        let operations =
            section.parsed_list("operations", "\"sign\", \"sign-batch\", \"sign-assertion\", \"sign-jws\" or \"keys\"");
        section.demand("keys");
        section.demand("operations");
        section.finish();
        Some(Self {
            name: name?,
            tenant: tenant?,
            tokens,
            certificates,
            keys: keys.into_iter().map(|key| key.value).collect(),
            operations: operations.into_iter().map(|operation| operation.value).collect(),
        })
    }
}

fn read_certificate(mut section: Section<'_>) -> Option<At<CertificateName>> {
    let san = section.required("san");
    let spki_sha256 = section.parsed("spki_sha256", "64 hexadecimal digits").map(|hash: At<TokenHash>| hash.value);
    let mut san = san?;
    match san.value.split_once(':') {
        Some(("DNS", name)) => san.value = format!("DNS:{}", name.to_ascii_lowercase()),
        Some(("URI", _)) => {}
        _ => {
            section.note(san.line, &format!("`san` must be \"DNS:name\" or \"URI:uri\", not `{}`", san.value));
            return None;
        }
    }
    section.finish();
    Some(At { line: san.line, value: CertificateName { san: san.value, spki_sha256 } })
}

/// A name that travels to `segld` or into metrics.
fn read_name(section: &mut Section<'_>, field: &'static str, required: bool) -> Option<At<String>> {
    let name = if required { section.required(field) } else { section.string(field) }?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/@".contains(c);
    if name.len() > segl_wire::NAME_MAX || !name.chars().all(plain) {
        let message = format!("`{field}` must be at most 64 letters, digits and - _ . : / @, not `{}`", name.value);
        section.note(name.line, &message);
        return None;
    }
    Some(name)
}

fn read_path(section: &mut Section<'_>, field: &'static str, base: &Path) -> Option<At<PathBuf>> {
    section.string(field).map(|path| At { value: base.join(path.value), line: path.line })
}

/// A path, or `credential:NAME`: what systemd has unsealed for this service (systemd.exec(5), LoadCredentialEncrypted=).
/// To whoever checks from outside it is visible while the service runs.
fn secret(text: &str, base: &Path) -> PathBuf {
    match text.strip_prefix("credential:") {
        None => base.join(text),
        Some(name) => {
            let directory = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
            directory.unwrap_or_else(|| CREDENTIALS.into()).join(name)
        }
    }
}

fn read_identity(section: &mut Section<'_>, base: &Path, required: bool) -> Option<Identity> {
    let certificate = read_path(section, "certificate", base);
    let private_key =
        section.string("private_key").map(|path| At { value: secret(&path.value, base), line: path.line });
    if required || certificate.is_some() || private_key.is_some() {
        section.demand("certificate");
        section.demand("private_key");
    }
    Some(Identity { certificate: certificate?, private_key: private_key? })
}

fn millis(section: &mut Section<'_>, field: &'static str, range: std::ops::RangeInclusive<u64>, ms: u64) -> Duration {
    Duration::from_millis(section.number(field, range, ms))
}

fn unique<'a, T: PartialEq + std::fmt::Display + 'a>(
    findings: &mut Findings,
    what: &str,
    values: impl Iterator<Item = &'a At<T>>,
) {
    let mut seen: Vec<&At<T>> = Vec::new();
    for value in values {
        match seen.iter().find(|earlier| earlier.value == value.value) {
            Some(earlier) => {
                let message = format!("{what} `{}` stands twice, first in line {}", value.value, earlier.line);
                findings.push(value.line, message);
            }
            None => seen.push(value),
        }
    }
}

#[cfg(test)]
mod tests;
