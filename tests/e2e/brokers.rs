//! One broker before two segld, real ones: what a caller notices when one of them goes, and what a caller can not
//! reach through the broker.

use std::{
    path::PathBuf,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use segl_tests::{
    http::{Answer, Http},
    process::{Service, Signal},
    programs, signing,
    site::{P256, RSA, Site, Token, await_keys, free_addresses},
};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    load::{digest_of, public_key, verify},
    room::{SOON, journal, journal_in, site, until},
};

/// Callers who ask at once, each for one signature after the other.
const CALLERS: usize = 4;

/// A key with versions.
const ROLLED: &str = "rolled";

/// Two segld that hold the same keys, each with its own journal, and a broker that knows both.
struct Pair {
    segld: [Service; 2],
    admin: [Http; 2],
    broker: Service,
    broker_admin: Http,
    journals: [PathBuf; 2],
    site: Site,
    _dir: tempfile::TempDir,
}

impl Pair {
    fn start() -> Self {
        Pair::with(|_| {})
    }

    /// The same, in an installation that `change` alters before.
    fn with(change: impl FnOnce(&mut Site)) -> Self {
        let (mut site, dir) = site(Token::Embedded);
        change(&mut site);
        let [second, second_admin] = free_addresses(&[]).unwrap();
        let second_toml = site
            .segld_toml
            .replace(&site.segld.to_string(), &second.to_string())
            .replace(&site.segld_admin.to_string(), &second_admin.to_string())
            .replace("directory = \"journal\"", "directory = \"journal-2\"")
            .replace("control.sock", "control-2.sock");
        std::fs::write(site.dir.join("segld-2.toml"), second_toml).unwrap();
        let room =
            format!("[[segld]]\nname = \"room-2\"\naddress = \"{second}\"\nserver_name = \"localhost\"\n\n[[tenant]]");
        site.broker_toml = site.broker_toml.replacen("[[tenant]]", &room, 1);
        site.write().unwrap();

        let second_admin = Http::new(&format!("http://{second_admin}"), &site.servers.pem(), None).unwrap();
        let admin = [site.segld_admin().unwrap(), second_admin];
        // One after the other, since the first makes the keys.
        let segld = [0, 1].map(|at| start_segld(&site, at, &admin));
        let broker = site.start_broker().unwrap();
        let broker_admin = site.broker_admin().unwrap();
        let journals = [site.journal(), site.dir.join("journal-2")];
        let pair = Pair { segld, admin, broker, broker_admin, journals, site, _dir: dir };
        pair.await_roads(4.0);
        pair
    }

    /// Waits until so many of the roads, one a tenant and segld, can be used.
    fn await_roads(&self, wanted: f64) {
        let ready = || self.broker_admin.metric("segl_broker_upstream_ready", &[]).unwrap();
        until("the broker sees its roads as they are", || ready() == wanted);
    }

    fn caller(&self, tenant: usize) -> Http {
        self.site.caller(&self.site.tenants[tenant]).unwrap()
    }

    fn signed_by(&self, at: usize) -> f64 {
        self.admin[at].metric("segl_requests_total", &["operation=\"sign\"", "outcome=\"ok\""]).unwrap()
    }

    /// Callers ask while something happens, from when both segld are in use until much has been answered after it.
    fn under_load(&mut self, name: &str, happens: impl FnOnce(&mut Self)) -> Vec<(String, Answer)> {
        let (stop, asked, answers) = (AtomicBool::new(false), AtomicUsize::new(0), Mutex::new(Vec::new()));
        let callers: Vec<_> = (0..CALLERS).map(|at| self.caller(at % 2)).collect();
        std::thread::scope(|scope| {
            for caller in &callers {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let reference = format!("{name}-{}", asked.fetch_add(1, Ordering::Relaxed));
                        let answer = ask(caller, &reference, &[]);
                        answers.lock().unwrap().push((reference, answer));
                    }
                });
            }
            let answered = || answers.lock().unwrap().len();
            until("both are in use", || answered() > 200 && self.signed_by(0) > 20.0 && self.signed_by(1) > 20.0);
            happens(self);
            let before = answered();
            until("callers are answered afterwards", || answered() > before + 200);
            stop.store(true, Ordering::Relaxed);
        });
        answers.into_inner().unwrap()
    }
}

fn start_segld(site: &Site, at: usize, admin: &[Http; 2]) -> Service {
    let file = ["segld.toml", "segld-2.toml"][at];
    let mut command = Command::new(programs::segld());
    command.arg("--config").arg(site.dir.join(file));
    let mut segld = Service::start(command, &site.dir, file).unwrap();
    segld.ready(SOON).unwrap();
    await_keys(&admin[at]).unwrap();
    segld
}

/// Asks for a signature over what the reference stands for.
fn ask(caller: &Http, reference: &str, headers: &[(&str, &str)]) -> Answer {
    let body = json!({ "key": P256, "algorithm": "ecdsa-p256-sha256", "digest": STANDARD.encode(digest_of(reference)),
                       "reference": reference });
    caller.post("/v1/sign", &body, headers).unwrap()
}

fn signature(answer: &Answer) -> Vec<u8> {
    assert_eq!(answer.status, 200, "{}", answer.text);
    STANDARD.decode(answer.json["signature"].as_str().unwrap()).unwrap()
}

/// References of the intents in a journal.
fn references(entries: &[Value]) -> Vec<&str> {
    let intents = entries.iter().filter(|entry| entry["kind"] == "intent");
    intents.filter_map(|entry| entry["reference"].as_str()).collect()
}

#[test]
fn callers_notice_nothing_when_one_of_two_segld_is_stopped_under_load() {
    let mut pair = Pair::start();
    let key = public_key(&pair.site);
    let answers = pair.under_load("stop", |pair| {
        assert!(pair.segld[0].terminate(SOON).unwrap().success());
    });
    let journals = pair.journals.each_ref().map(|journal| journal_in(journal));
    let recorded: std::collections::HashSet<_> = journals.iter().flat_map(|entries| references(entries)).collect();
    for (reference, answer) in &answers {
        verify(&key, reference, &signature(answer));
        assert!(recorded.contains(&**reference), "{reference} was signed and is in no journal");
    }
    let ready = pair.broker_admin.get("/readyz").unwrap();
    assert_eq!(ready.status, 200, "one is enough: {}", ready.text);

    pair.segld[0] = start_segld(&pair.site, 0, &pair.admin);
    pair.await_roads(4.0);
    let caller = pair.caller(0);
    until("the one that came back is used again", || {
        signature(&ask(&caller, "again", &[]));
        pair.signed_by(0) > 0.0
    });
}

#[test]
fn when_one_of_two_segld_is_killed_under_load_only_what_it_had_in_hand_is_unknown() {
    let mut pair = Pair::start();
    let key = public_key(&pair.site);
    let answers = pair.under_load("kill", |pair| {
        pair.segld[0].kill().unwrap();
    });
    let mut unknown = 0;
    for (reference, answer) in &answers {
        if answer.status == 200 {
            verify(&key, reference, &signature(answer));
        } else {
            unknown += 1;
            assert_eq!(answer.content_type, "application/problem+json", "{}", answer.text);
            assert_eq!(answer.json["signed"], "unknown", "a definite refusal is for another segld: {}", answer.text);
            assert_eq!(answer.json["reference"], reference.as_str(), "{}", answer.text);
        }
    }
    assert!(unknown <= CALLERS, "{unknown} of {} are unknown, and {CALLERS} were under way at most", answers.len());
}

/// A key with two versions, of which the second takes over at this instant.
fn rolls_over(site: &mut Site, instant: OffsetDateTime) {
    let made = [1, 2].map(|number| format!("    {{ file = \"rolled-{number}.pem\", type = \"ec-p256\" }},\n"));
    site.segld_toml = site.segld_toml.replacen("generate = [\n", &format!("generate = [\n{}", made.concat()), 1);
    let version = |number: u8, from: OffsetDateTime| {
        let from = from.format(&Rfc3339).unwrap();
        format!("[[key.version]]\nname = \"v{number}\"\nfile = \"rolled-{number}.pem\"\nactive_from = {from}\n")
    };
    let versions = [version(1, instant - time::Duration::days(300)), version(2, instant)].concat();
    let key = format!(
        "[[key]]\nname = \"{ROLLED}\"\npurpose = \"digest\"\ntokens = [\"embedded\"]\n\
         algorithms = [\"ecdsa-p256-sha256\"]\n{versions}\n[[tenant]]"
    );
    site.segld_toml = site.segld_toml.replacen("[[tenant]]", &key, 1);
    let grant = format!("[[tenant.grant]]\nkey = \"{ROLLED}\"\n[[tenant.grant]]");
    site.segld_toml = site.segld_toml.replacen("[[tenant.grant]]", &grant, 1);
    site.broker_toml = site.broker_toml.replacen("keys = [", &format!("keys = [\"{ROLLED}\", "), 1);
}

#[test]
fn every_segld_takes_the_next_version_of_a_key_at_the_same_instant() {
    let notice = Duration::from_secs(20);
    let instant = (OffsetDateTime::now_utc() + notice).replace_nanosecond(0).unwrap();
    let pair = Pair::with(|site| rolls_over(site, instant));
    let instant = SystemTime::from(instant);
    let (begins, ends) = (instant - Duration::from_secs(1), instant + Duration::from_secs(1));
    assert!(SystemTime::now() < begins, "the machine is too slow for this test's notice");
    until("the instant is near", || SystemTime::now() >= begins);

    let answered = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for at in 0..CALLERS {
            let (caller, answered) = (pair.caller(0), &answered);
            scope.spawn(move || {
                for count in 0.. {
                    let sent = SystemTime::now();
                    if sent > ends {
                        break;
                    }
                    let digest = STANDARD.encode(digest_of(&format!("{at}-{count}")));
                    let body = json!({ "key": ROLLED, "algorithm": "ecdsa-p256-sha256", "digest": digest });
                    let answer = caller.post("/v1/sign", &body, &[]).unwrap();
                    assert_eq!(answer.status, 200, "{}", answer.text);
                    let version = answer.json["version"].as_str().unwrap().to_owned();
                    answered.lock().unwrap().push((sent, SystemTime::now(), version));
                }
            });
        }
    });
    let items = json!([{ "digest": STANDARD.encode(digest_of("batch")) }]);
    let body = json!({ "key": ROLLED, "algorithm": "ecdsa-p256-sha256", "items": items });
    let batch = pair.caller(0).post("/v1/sign-batch", &body, &[]).unwrap();
    assert_eq!(batch.json["items"][0]["version"], "v2", "{}", batch.text);
    for (sent, received, version) in answered.into_inner().unwrap() {
        assert!(version == "v1" || received >= instant, "too early");
        assert!(version == "v2" || sent < instant, "too late");
    }
    for journal in &pair.journals {
        let entries = journal_in(journal);
        let intents = entries.iter().filter(|entry| entry["kind"] == "intent" && entry["key"] == ROLLED);
        let versions: std::collections::BTreeSet<_> = intents.filter_map(|it| it["key_version"].as_str()).collect();
        assert_eq!(Vec::from_iter(versions), ["v1", "v2"], "both signed before and after");
    }
}

#[test]
fn a_broker_without_any_segld_is_not_ready_and_refuses_with_nothing_signed() {
    let mut pair = Pair::start();
    for segld in &mut pair.segld {
        segld.kill().unwrap();
    }
    pair.await_roads(0.0);
    assert_eq!(pair.broker_admin.get("/readyz").unwrap().status, 503);
    assert_eq!(pair.broker_admin.get("/healthz").unwrap().status, 200);
    let answer = ask(&pair.caller(0), "nobody-there", &[]);
    assert_eq!((answer.status, &answer.json["signed"]), (503, &"no".into()), "{}", answer.text);
    assert!(answer.json["retry_after_ms"].as_u64().is_some_and(|ms| ms > 0), "{}", answer.text);

    pair.segld[1] = start_segld(&pair.site, 1, &pair.admin);
    await_keys(&pair.broker_admin).unwrap();
    signature(&ask(&pair.caller(0), "somebody-there", &[]));
    pair.broker.signal(Signal::TERM).unwrap();
    assert!(pair.broker.wait(SOON).unwrap().success());
}

#[test]
fn an_idempotency_key_replays_its_answer_while_segld_is_away_and_after_it_is_back() {
    let (site, _dir) = site(Token::SoftHsm);
    let mut segld = site.start_segld().unwrap();
    let _broker = site.start_broker().unwrap();
    let caller = site.caller(&site.tenants[0]).unwrap();
    let key = [("idempotency-key", "5b1d2a70-order-1")];
    let first = ask(&caller, "order-1", &key);
    verify(&public_key(&site), "order-1", &signature(&first));
    assert!(segld.terminate(SOON).unwrap().success());

    // SoftHSM2 signs anew each time, so the same bytes are the same signature.
    assert_eq!(signature(&ask(&caller, "order-1", &key)), signature(&first), "while segld is away");
    let mut segld = site.start_segld().unwrap();
    await_keys(&site.broker_admin().unwrap()).unwrap();
    assert_eq!(signature(&ask(&caller, "order-1", &key)), signature(&first), "after it is back");
    let other = ask(&caller, "order-2", &key);
    assert_eq!((other.status / 100, &other.json["signed"]), (4, &"no".into()), "another request: {}", other.text);
    // Another caller's key of the same name is another key.
    let others = ask(&site.caller(&site.tenants[1]).unwrap(), "order-1", &key);
    assert_ne!(signature(&others), signature(&first));

    assert!(segld.terminate(SOON).unwrap().success());
    let entries = journal(&site);
    let uses = entries.iter().filter(|entry| entry["kind"] == "intent" && entry["reference"] == "order-1");
    let tenants: Vec<_> = uses.map(|entry| entry["tenant"].as_str().unwrap()).collect();
    assert_eq!(tenants, ["town-hall", "tax-office"], "each caller's was signed once");
}

#[test]
fn a_caller_reaches_no_more_than_its_tenant_may_whatever_the_broker_allows_it() {
    let (mut site, _dir) = site(Token::Embedded);
    // The second tenant's caller may use the first tenant's key, as far as the broker is concerned.
    let keys = format!("keys = [{P256:?}]");
    assert!(site.broker_toml.contains(&keys));
    site.broker_toml = site.broker_toml.replace(&keys, &format!("keys = [{P256:?}, {RSA:?}]"));
    site.write().unwrap();
    let mut segld = site.start_segld().unwrap();
    let _broker = site.start_broker().unwrap();
    let stranger = site.caller(&site.tenants[1]).unwrap();
    let body = signing::request(RSA, "rsa-pss-sha256", b"not its own", "not-its-own").unwrap();
    let answer = stranger.post("/v1/sign", &body, &[]).unwrap();
    assert_eq!((answer.status / 100, &answer.json["signed"]), (4, &"no".into()), "{}", answer.text);
    // Nor by saying that it asks for somebody else.
    let mut disguised = signing::request(P256, "ecdsa-p256-sha256", b"its own", "disguised").unwrap();
    disguised["on_behalf_of"] = "town-hall-portal".into();
    assert_eq!(stranger.post("/v1/sign", &disguised, &[]).unwrap().status / 100, 4);
    signature(&ask(&stranger, "its-own", &[]));
    signature(&ask(&site.caller(&site.tenants[0]).unwrap(), "the-other-s", &[]));

    assert!(segld.terminate(SOON).unwrap().success());
    let entries = journal(&site);
    let intent = |reference: &str| {
        let mut found = entries.iter().filter(|entry| entry["kind"] == "intent" && entry["reference"] == reference);
        let entry = found.next()?;
        Some([&entry["tenant"], &entry["client"], &entry["on_behalf_of"]].map(|text| text.as_str().unwrap().to_owned()))
    };
    let of = |at: usize, caller: &str| {
        let tenant = &site.tenants[at];
        Some([tenant.name, &format!("URI:{}", tenant.uri), caller].map(str::to_owned))
    };
    assert_eq!(intent("its-own"), of(1, "tax-office-portal"));
    assert_eq!(intent("the-other-s"), of(0, "town-hall-portal"));
    assert_eq!(intent("not-its-own"), None);
    assert_eq!(intent("disguised"), None);
}
