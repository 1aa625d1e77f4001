//! Reads the sections about the daemon itself. Here stand the defaults; `docs/CONFIGURATION.md` gives their reasons.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use super::{
    Admin, Audit, Clock, Host, Io, Limits, Listen, Log, LogFormat, LogLevel, Pool, Reactor, Token, TokenKind,
    files::Files,
    findings::Collector,
    reader::{At, Section, Span, Value},
};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Longest request id and header that stand around a message or a batch in a frame's body.
const FRAME_OVERHEAD: u64 = KIB;
/// A batch item's digest with its own reference.
const BATCH_ITEM_MAX: u64 = 64 + 128 + 16;

/// The label of tokens that benches make for themselves.
const BENCH_LABEL: &str = "segl-bench";

/// systemd-timesyncd, the laziest of time daemons, asks its server every 34 minutes, and may pass over an answer or two.
const CLOCK_AGE_MAX: &str = "2h";

/// Tries after the first: a third token that fails is no accident, and each costs the healthy ones time. The journal has
/// room for them.
const RETRIES_MAX: u32 = 2;
const _: () = assert!(RETRIES_MAX < segl_audit::ATTEMPTS_MAX as u32);

pub(super) fn host(section: Section<'_>, files: &Files<'_>) -> Host {
    let name = section.value("name").and_then(|value| {
        let name = value.text()?;
        let good = (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic());
        if !good {
            value.wrong("a name of 1 to 64 letters, digits and signs without spaces", "as the host's own name");
        }
        Some(name.to_owned())
    });
    let site = section.value("site").and_then(site);
    let machine_ids = section.value("machine_ids").map(|value| machine_ids(value, files)).unwrap_or_default();
    let clock = section.one_of("clock", Clock::Warn, &[("warn", Clock::Warn), ("required", Clock::Required)]);
    let clock_marker = section.value("clock_marker").and_then(|value| files.path(value));
    let clock_age_max =
        section.duration("clock_age_max", CLOCK_AGE_MAX, Duration::from_secs(60)..=Duration::from_secs(7 * 86_400));
    section.finish();
    let node = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    Host { name: name.unwrap_or_else(node), site, machine_ids, clock, clock_marker, clock_age_max }
}

/// The hosts that the configuration is for; this one has to be among them.
fn machine_ids(value: Value<'_>, files: &Files<'_>) -> Vec<String> {
    let id = |value: Value<'_>| {
        let id = value.text()?;
        if !super::is_machine_id(id) {
            value.wrong("a machine id: 32 hexadecimal digits in small letters", "as `cat /etc/machine-id` shows it");
            return None;
        }
        Some(id.to_owned())
    };
    let Some(ids) = value.distinct(id) else { return Vec::new() };
    let ids: Vec<String> = ids.into_iter().map(|id| id.value).collect();
    let hint = "on a host that it is for all is well; to run it here too, add this host's id and see that the tokens, \
                certificates and `name` are this host's";
    match files.machine_id() {
        // Its elements may have been wrong: that is said already.
        _ if value.list().is_some_and(|list| list.len() > ids.len()) => {}
        _ if ids.is_empty() => {
            value.error("`machine_ids` is empty: no host could run this", "name one, or take it out")
        }
        None => {
            value.error("this host's /etc/machine-id can not be read or is no id", "systemd-machine-id-setup makes one")
        }
        Some(ours) if !ids.iter().any(|id| id == ours) => {
            value.error(
                format!("this configuration is for other hosts than this one, whose machine id is {ours}"),
                hint,
            );
        }
        Some(_) => {}
    }
    ids
}

/// A site's name.
pub(super) fn site(value: Value<'_>) -> Option<String> {
    let site = value.text()?;
    let good = (1..=64).contains(&site.len()) && site.bytes().all(|b| b.is_ascii_graphic());
    if !good {
        value.wrong("a name of 1 to 64 letters, digits and signs without spaces", "as you call the room: site = \"A\"");
    }
    good.then(|| site.to_owned())
}

pub(super) fn listen(section: Section<'_>) -> At<Listen> {
    let addresses = section.value("addresses").and_then(|value| value.distinct(address)).unwrap_or_default();
    for (at, wild) in addresses.iter().enumerate().filter(|(_, address)| address.value.ip().is_unspecified()) {
        let covered = |other: &SocketAddr| other.port() == wild.value.port() && other.is_ipv4() == wild.value.is_ipv4();
        if let Some((_, other)) = addresses.iter().enumerate().find(|(i, other)| *i != at && covered(&other.value)) {
            let text = format!("{} is already served by {}", other.value, wild.value);
            section.collector().error(&other.span, text, "name the one or the other");
        }
    }
    // The kernel's own default since 5.4: more is cut to net.core.somaxconn anyway.
    let backlog = section.count("backlog", 4096, 1..=65_535);
    let span = section.span().clone();
    section.finish();
    At { value: Listen { addresses: addresses.into_iter().map(|address| address.value).collect(), backlog }, span }
}

pub(super) fn reactor(section: Section<'_>, files: &Files<'_>) -> Reactor {
    let cores = cores(&section, files);
    let io = section.one_of("io", Io::Auto, &[("auto", Io::Auto), ("uring", Io::Uring), ("epoll", Io::Epoll)]);
    section.finish();
    Reactor { cores, io }
}

pub(super) fn limits(section: Section<'_>) -> Limits {
    let s = Duration::from_secs;
    let ms = Duration::from_millis;
    let mut limits = Limits {
        connections: section.integer("connections", 4_096, 1..=1_000_000) as usize,
        connections_per_tenant: section.integer("connections_per_tenant", 1_024, 1..=1_000_000) as usize,
        handshakes: section.integer("handshakes", 512, 1..=100_000) as usize,
        handshake_timeout: section.duration("handshake_timeout", "5s", ms(100)..=s(60)),
        idle_timeout: section.duration("idle_timeout", "5m", s(1)..=s(86_400)),
        write_timeout: section.duration("write_timeout", "10s", ms(100)..=s(600)),
        frame_max: section.size("frame_max", 256 * KIB, 4 * KIB..=16 * MIB) as u32,
        in_flight_per_connection: section.count("in_flight_per_connection", 1_024, 1..=65_536),
        in_flight_per_tenant: section.count("in_flight_per_tenant", 8_192, 1..=1_000_000),
        pending_output_max: section.size("pending_output_max", 256 * KIB, 16 * KIB..=64 * MIB) as usize,
        batch_max: section.count("batch_max", 256, 1..=4_096),
        message_max: section.size("message_max", 64 * KIB, 64..=8 * MIB) as u32,
        timeout_max: section.duration("timeout_max", "30s", ms(10)..=s(600)),
        drain_timeout: section.duration("drain_timeout", "20s", ms(100)..=s(600)),
        document_max: 0,
    };
    let frame_max = u64::from(limits.frame_max);
    let document_max = (128 * KIB).min(frame_max - FRAME_OVERHEAD);
    limits.document_max = section.size("document_max", document_max, KIB..=8 * MIB) as u32;
    let refuse = |name: &'static str, wrong: bool, text: &str, hint: &str| {
        if let (true, Some(value)) = (wrong, section.value(name)) {
            value.error(text, hint);
        }
    };
    let batch_max = u64::from(limits.batch_max);
    let over = batch_max > limits.in_flight_per_connection.into();
    let hint = "lower `batch_max` or raise `in_flight_per_connection`";
    let text = "a full batch would never fit into what a connection may have in flight";
    refuse(if section.has("batch_max") { "batch_max" } else { "in_flight_per_connection" }, over, text, hint);
    let over = u64::from(limits.message_max) + FRAME_OVERHEAD > frame_max;
    let text = "a message of `message_max` would not fit into a frame of `frame_max`";
    let hint = "leave 1KiB between the two";
    refuse(if section.has("message_max") { "message_max" } else { "frame_max" }, over, text, hint);
    let over = u64::from(limits.document_max) + FRAME_OVERHEAD > frame_max;
    let text = "a document of `document_max` would not fit into a frame of `frame_max`";
    refuse(if section.has("document_max") { "document_max" } else { "frame_max" }, over, text, hint);
    let over = batch_max * BATCH_ITEM_MAX + FRAME_OVERHEAD > frame_max;
    let text = "a full batch of digests would not fit into a frame of `frame_max`";
    let hint = "an item with its reference takes up to 208 bytes: lower `batch_max` or raise `frame_max`";
    refuse(if section.has("batch_max") { "batch_max" } else { "frame_max" }, over, text, hint);
    section.finish();
    limits
}

pub(super) fn pool(section: Section<'_>) -> Pool {
    let ms = Duration::from_millis;
    let pool = Pool {
        batch_max: section.count("batch_max", 64, 1..=1_024) as u16,
        batch_time: section.duration("batch_time", "1ms", Duration::from_micros(10)..=ms(1_000)),
        spin: section.duration("spin", "0s", Duration::ZERO..=ms(10)),
        queue_depth_max: [
            section.count("queue_depth_login", 16_384, 1..=1_000_000),
            section.count("queue_depth_signature", 16_384, 1..=1_000_000),
            section.count("queue_depth_bulk", 16_384, 1..=1_000_000),
        ],
        tenant_depth_max: section.count("tenant_depth_max", 8_192, 1..=1_000_000),
        signature_one_in: section.count("signature_one_in", 4, 2..=1_000),
        bulk_one_in: section.count("bulk_one_in", 16, 2..=1_000),
        retries_max: section.count("retries_max", 2, 0..=RETRIES_MAX) as u8,
        retry_budget_percent: section.count("retry_budget_percent", 20, 0..=100),
        stuck_threads_max: section.count("stuck_threads_max", 4, 0..=64) as u16,
        backoff_min: section.duration("backoff_min", "100ms", ms(10)..=ms(60_000)),
        backoff_max: section.duration("backoff_max", "10s", ms(100)..=ms(3_600_000)),
    };
    if pool.backoff_min > pool.backoff_max
        && let Some(value) = section.value("backoff_min").or_else(|| section.value("backoff_max"))
    {
        value.error("`backoff_min` is longer than `backoff_max`", "swap or correct them");
    } else if let Err(error) = pool.rules().check() {
        section.collector().error(section.span(), error.to_string(), "the defaults are sound");
    }
    section.finish();
    pool
}

/// The journal, and where the file says that nothing is recorded.
pub(super) fn audit(section: Section<'_>, files: &Files<'_>) -> (Option<Audit>, Option<Span>) {
    let hint = "the journal's place: directory = \"/var/lib/segl/journal\"";
    let directory = section.required("directory", hint).and_then(|value| directory(value, files));
    let segment_size = section.size("segment_size", 64 * MIB, MIB..=GIB);
    let unrecorded = section.value("unrecorded_for_benchmarks").filter(|value| value.flag() == Some(true));
    let unrecorded = unrecorded.map(Value::span);
    section.finish();
    let unrecorded_for_benchmarks = unrecorded.is_some();
    (directory.map(|directory| Audit { directory, segment_size, unrecorded_for_benchmarks }), unrecorded)
}

/// Signing without a record is for benches: with keys in this process or on a token that was labelled for it, and for
/// clients on this host. Any other token might hold a key that matters.
pub(super) fn unrecorded(at: &Span, listen: &Listen, tokens: &[At<Token>], collector: &Collector) {
    let made_for_it = |token: &Token| match &token.kind {
        TokenKind::Embedded { .. } => true,
        TokenKind::Pkcs11 { uri, .. } => uri.token.as_deref() == Some(BENCH_LABEL),
    };
    if let Some(token) = tokens.iter().find(|token| !made_for_it(&token.value)) {
        let text = format!("`unrecorded_for_benchmarks` with the token {:?}: its keys might matter", token.value.name);
        let hint = format!("take it out; a bench's own PKCS#11 token has the label {BENCH_LABEL:?}");
        collector.error(at, text, hint);
    }
    if listen.addresses.is_empty() || listen.addresses.iter().any(|address| !address.ip().is_loopback()) {
        let text = "`unrecorded_for_benchmarks` and clients from beyond this host";
        collector.error(at, text, "take it out, or listen on 127.0.0.1 alone");
    }
    collector.warning(at, "NOTHING IS RECORDED of what is signed", "for a bench this is right, for nothing else");
}

pub(super) fn admin(section: Section<'_>, listen: &At<Listen>) -> Admin {
    let given = section.value("address");
    let address = given.and_then(address).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 9464)));
    let clashes = |other: &&SocketAddr| {
        let same_ip = other.ip() == address.ip() || other.ip().is_unspecified() || address.ip().is_unspecified();
        other.port() == address.port() && other.port() != 0 && same_ip
    };
    if let Some(other) = listen.value.addresses.iter().find(clashes) {
        let span = given.map_or_else(|| listen.span.clone(), Value::span);
        let text = format!("[admin] address {address} is the same as {other} in [listen]");
        section.collector().error(&span, text, "give one of them another port");
    }
    if let (Some(value), false) = (given, address.ip().is_loopback()) {
        let text = format!("metrics and key states are served in clear text on {address}, beyond this host");
        section.collector().warning(
            &value.span(),
            text,
            "use 127.0.0.1 or [::1], or see that only monitoring gets there",
        );
    }
    section.finish();
    Admin { address }
}

pub(super) fn log(section: Section<'_>) -> Log {
    let level = section.one_of("level", LogLevel::Info, &LogLevel::ALL.map(|level| (level.name(), level)));
    let format = section.one_of("format", LogFormat::Text, &[("text", LogFormat::Text), ("json", LogFormat::Json)]);
    section.finish();
    Log { level, format }
}

/// `cores = [0, 1]`: cores that exist and that this process may use.
pub(super) fn cores(section: &Section<'_>, files: &Files<'_>) -> Vec<usize> {
    let core = |value: Value<'_>| {
        let core = value.integer(0..=1_023)? as usize;
        if !files.cores().contains(&core) {
            let known: Vec<_> = files.cores().iter().map(usize::to_string).collect();
            value.error(
                format!("core {core} does not exist or is not given to us"),
                format!("ours: {}", known.join(", ")),
            );
        }
        Some(core)
    };
    let cores = section.value("cores").and_then(|value| value.distinct(core)).unwrap_or_default();
    cores.into_iter().map(|core| core.value).collect()
}

fn address(value: Value<'_>) -> Option<SocketAddr> {
    let address = value.text()?.parse().ok();
    if address.is_none() {
        value.wrong(
            "an address with port",
            "an IP address, not a name: \"192.0.2.1:7443\", \"[2001:db8::1]:7443\", \"[::]:7443\"",
        );
    }
    address
}

/// A directory that exists, or can be made in one that does.
pub(super) fn directory(value: Value<'_>, files: &Files<'_>) -> Option<PathBuf> {
    let path = files.path(value)?;
    let parent = path.parent().filter(|parent| parent.is_dir());
    if path.exists() && !path.is_dir() {
        value.error(format!("{} is not a directory", path.display()), "give a directory of its own");
    } else if !path.exists() && parent.is_none() {
        value.error(
            format!("neither {} nor the directory above it exists", path.display()),
            "make it, owned by segld's user, mode 0700",
        );
    }
    Some(path)
}
