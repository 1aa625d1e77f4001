//! What somebody is woken by: Prometheus' own tool judges the rules, and rules and dashboard ask for nothing that the
//! daemons do not say.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
};

use segl_tests::{
    conversation::Conversation,
    documents,
    http::Http,
    pki::Authority,
    programs::workspace,
    signing,
    site::{ED25519, P256, P384, Token},
};
use serde_json::Value;

use crate::room::{Room, connect, sound, until};

fn monitoring(name: &str) -> PathBuf {
    workspace().join("systemd/monitoring").join(name)
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

/// Runs promtool: the one that `SEGL_PROMTOOL` names, or the one on PATH.
fn promtool(words: &[&str], file: &Path) {
    let program = std::env::var_os("SEGL_PROMTOOL").unwrap_or_else(|| "promtool".into());
    let output = Command::new(&program).args(words).arg(file).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}; cargo xtask test has one", program.display()));
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

/// One alert of the rules.
struct Rule {
    name: String,
    severity: String,
    text: String,
}

/// All rules, read by the one form in which they are written.
fn rules() -> Vec<Rule> {
    let text = read(monitoring("segl.rules.yml"));
    let rules = text.split("      - alert: ").skip(1).map(|text| {
        let severity = text.split("labels: {severity: ").nth(1).unwrap().split('}').next().unwrap();
        Rule { name: text.lines().next().unwrap().to_owned(), severity: severity.to_owned(), text: text.to_owned() }
    });
    let rules: Vec<_> = rules.collect();
    assert!(rules.len() > 20);
    rules
}

/// What a rule asks Prometheus.
fn expression(rule: &Rule) -> &str {
    let rest = rule.text.split("        expr: ").nth(1).unwrap();
    let end = ["\n        for:", "\n        labels:"].iter().filter_map(|end| rest.find(end)).min().unwrap();
    &rest[..end]
}

#[test]
fn prometheus_finds_the_rules_sound_and_their_tests_passed() {
    promtool(&["check", "rules"], &monitoring("segl.rules.yml"));
    promtool(&["test", "rules"], &monitoring("segl.rules.test.yml"));
}

#[test]
fn every_alert_says_who_is_told_what_it_means_and_what_to_do_and_is_tested() {
    let (manual, tests) = (read(workspace().join("docs/OPERATIONS.md")), read(monitoring("segl.rules.test.yml")));
    let chapter = manual.split("\n## Alerts\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let paragraphs: BTreeMap<_, _> = chapter
        .split("\n### ")
        .skip(1)
        .map(|paragraph| {
            let (name, text) = paragraph.split_once('\n').unwrap();
            (name.to_owned(), text.trim().to_owned())
        })
        .collect();
    let rules = rules();
    for Rule { name, severity, text } in &rules {
        assert!(["page", "ticket"].contains(&severity.as_str()), "{name}: {severity}");
        let paragraph = paragraphs.get(name).unwrap_or_else(|| panic!("the manual has no paragraph on {name}"));
        assert!(paragraph.starts_with(&format!("**{severity}.**")), "{name}: {paragraph}");
        for annotation in ["summary: ", "meaning: "] {
            assert_eq!(text.matches(&format!("          {annotation}")).count(), 1, "{name}: {annotation}");
        }
        // An anchor is the heading in small letters.
        let runbook = format!("runbook: /usr/share/doc/segld/OPERATIONS.md#{}\n", name.to_lowercase());
        assert!(text.contains(&runbook), "{name}: {runbook}");
        assert!(tests.contains(&format!("alertname=\"{name}\"")), "{name} has no test that it fires");
    }
    let alerts: BTreeSet<_> = rules.iter().map(|rule| &rule.name).collect();
    assert_eq!(alerts, paragraphs.keys().collect(), "a paragraph without an alert");
}

/// The dashboard's queries, each with its legend.
fn queries() -> Vec<(String, String)> {
    fn gather(value: &Value, into: &mut Vec<(String, String)>) {
        match value {
            Value::Object(fields) => {
                if let Some(query) = fields.get("expr").and_then(Value::as_str) {
                    let legend = ["legendFormat", "titleFormat"].iter().find_map(|name| fields.get(*name)?.as_str());
                    into.push((query.to_owned(), legend.unwrap_or_default().to_owned()));
                }
                if let Some(query) = fields.get("query").and_then(Value::as_str)
                    && query.contains("label_values")
                {
                    into.push((query.to_owned(), String::new()));
                }
                fields.values().for_each(|value| gather(value, into));
            }
            Value::Array(values) => values.iter().for_each(|value| gather(value, into)),
            _ => {}
        }
    }
    let dashboard: Value = serde_json::from_str(&read(monitoring("segl-dashboard.json"))).unwrap();
    let mut queries = Vec::new();
    gather(&dashboard, &mut queries);
    assert!(queries.len() > 40);
    queries
}

#[test]
fn prometheus_understands_every_query_of_the_dashboard() {
    let dir = tempfile::tempdir().unwrap();
    let queries = queries();
    let asked = queries.iter().filter(|(query, _)| !query.contains("label_values"));
    let rules = asked.enumerate().map(|(index, (query, _))| {
        // Grafana fills its variables in before it asks.
        let query = query.replace("$instance", ".*").replace("$broker", ".*");
        serde_json::json!({ "record": format!("query_{index}"), "expr": query })
    });
    // YAML takes JSON.
    let file = serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules.collect::<Vec<_>>() }] });
    let path = dir.path().join("dashboard.yml");
    std::fs::write(&path, file.to_string()).unwrap();
    promtool(&["check", "rules"], &path);
}

/// Names of metrics, each with its labels.
type Exposed = BTreeMap<String, BTreeSet<String>>;

/// What a daemon's `/metrics` shows.
fn exposed(admin: &Http, into: &mut Exposed) {
    let text = admin.get("/metrics").unwrap().text;
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let name = line.split(['{', ' ']).next().unwrap();
        let (_, labels) = asked(line);
        into.entry(name.to_owned()).or_default().extend(labels);
    }
}

/// The metrics and the labels that a query names: labels stand in braces, and in the list after a word like `by`.
fn asked(query: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut metrics, mut labels) = (BTreeSet::new(), BTreeSet::new());
    let (mut in_braces, mut in_list, mut list_next) = (false, false, false);
    let mut rest = query;
    while let Some(first) = rest.chars().next() {
        if first == '"' {
            let end = rest[1..].find('"').unwrap();
            rest = &rest[end + 2..];
            continue;
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            let word = &rest[..end];
            rest = &rest[end..];
            if in_braces || in_list {
                labels.insert(word.to_owned());
            } else if word.starts_with("segl_") {
                metrics.insert(word.to_owned());
            }
            list_next = ["by", "on", "ignoring", "without", "group_left"].contains(&word);
            continue;
        }
        match first {
            '{' => in_braces = true,
            '}' => in_braces = false,
            '(' => in_list = std::mem::take(&mut list_next),
            ')' => in_list = false,
            _ => {}
        }
        rest = &rest[first.len_utf8()..];
    }
    (metrics, labels)
}

#[test]
fn the_words_of_a_query_are_told_apart() {
    let (metrics, labels) = asked(r#"sum by (le, key) (rate(segl_a_bucket{class="a{b"}[5m])) > 2 and segl_b == 1"#);
    assert_eq!(metrics.into_iter().collect::<Vec<_>>(), ["segl_a_bucket", "segl_b"]);
    assert_eq!(labels.into_iter().collect::<Vec<_>>(), ["class", "key", "le"]);
}

/// A segld and a broker to which everything has happened that shows a metric only then.
fn eventful() -> Exposed {
    let mut room = Room::open(Token::Embedded, |site| {
        site.segld_toml.push_str("\n[limits]\nhandshake_timeout = \"1s\"\n");
        let alone = format!("file = \"{P384}.pem\"\nalgorithms = [\"ecdsa-p384-sha384\"]\n");
        let version = format!("[[key.version]]\nname = \"2026\"\nfile = \"{P384}.pem\"\n");
        let versions = format!("algorithms = [\"ecdsa-p384-sha384\"]\n{version}active_from = 2026-01-01T00:00:00Z\n");
        assert!(site.segld_toml.contains(&alone));
        site.segld_toml = site.segld_toml.replace(&alone, &versions);
        documents::add_provider(site, "https://sp.example", &[]).unwrap();
    });
    // A certificate for a key, and with it a reload.
    let certificate = Command::new("openssl")
        .args(["req", "-x509", "-days", "30", "-subj", "/CN=seal", "-key"])
        .arg(room.site.dir.join(format!("keys/{P256}.pem")))
        .arg("-out")
        .arg(room.site.dir.join("pki/seal.pem"))
        .output()
        .unwrap();
    assert!(certificate.status.success(), "{}", String::from_utf8_lossy(&certificate.stderr));
    let file = format!("file = \"{P256}.pem\"\n");
    room.site.segld_toml = room.site.segld_toml.replacen(&file, &format!("{file}certificate = \"pki/seal.pem\"\n"), 1);
    room.reload_taken();

    sound(&mut connect(&room.site, 0));
    let stranger = Authority::new("Another CA").unwrap().client("spiffe://segl.example/x").unwrap();
    Conversation::open(room.site.segld, &room.site.servers.pem(), Some(&stranger)).unwrap_err();
    connect(&room.site, 0).send_bytes(&[0xff; 16]).unwrap();
    let _silent = TcpStream::connect(room.site.segld).unwrap();
    until("the silent one is sent away", || room.metric("segl_connections_closed_total", &[]) > 0.0);
    until("the one that breaks the protocol is counted", || room.metric("segl_protocol_errors_total", &[]) > 0.0);

    let _broker = room.site.start_broker().unwrap();
    let caller = room.site.caller(&room.site.tenants[0]).unwrap();
    let request = signing::request(ED25519, "ed25519", b"a document", "twice").unwrap();
    for _ in 0..2 {
        let answer = caller.post("/v1/sign", &request, &[("idempotency-key", "once")]).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    let base = format!("https://localhost:{}", room.site.broker.port());
    let nobody = Http::new(&base, &room.site.servers.pem(), None).unwrap();
    assert_eq!(nobody.get("/v1/keys").unwrap().status, 401);
    TcpStream::connect(room.site.broker).unwrap().write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let admin = room.site.broker_admin().unwrap();
    until("the one without TLS is counted", || {
        admin.metric("segl_broker_connections_refused_total", &[]).unwrap() > 0.0
    });
    let mut exposed_by_both = Exposed::new();
    exposed(&room.admin, &mut exposed_by_both);
    exposed(&admin, &mut exposed_by_both);
    exposed_by_both
}

#[test]
fn rules_and_dashboard_name_metrics_and_labels_that_the_daemons_show_and_the_manual_names_them_all() {
    let exposed = eventful();
    let manual = read(workspace().join("docs/OPERATIONS.md"));
    for metric in exposed.keys() {
        let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|part| metric.strip_suffix(part));
        let name = histogram.unwrap_or(metric);
        assert!([format!("`{name}`"), format!("`{name}{{")].iter().any(|told| manual.contains(told)), "{name}");
    }
    // What Prometheus itself adds.
    let scraped = ["instance", "job"].map(str::to_owned);
    let check = |what: &str, query: &str, more: BTreeSet<String>| {
        let (metrics, mut labels) = asked(query);
        labels.extend(more);
        let mut known: BTreeSet<String> = scraped.clone().into();
        for metric in &metrics {
            let shown = exposed.get(metric).unwrap_or_else(|| panic!("{what}: nobody shows {metric}"));
            known.extend(shown.iter().cloned());
        }
        let unknown: Vec<_> = labels.difference(&known).collect();
        assert!(unknown.is_empty(), "{what}: {metrics:?} have no labels {unknown:?}, only {known:?}");
    };
    for rule in rules() {
        let used = rule
            .text
            .split("$labels.")
            .skip(1)
            .map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap().to_owned());
        check(&rule.name, expression(&rule), used.collect());
    }
    for (query, legend) in queries() {
        let query = query.strip_prefix("label_values(").map_or(query.clone(), |rest| rest.replace(", instance)", ""));
        let used = legend.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap().to_owned());
        check(&query, &query, used.collect());
    }
}
