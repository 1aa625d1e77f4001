//! `cargo xtask demo`: a whole installation under `target/demo`, and a story of what it does, each part verified.

use std::{
    fs::File,
    io::Write,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::mpsc::{Receiver, TryRecvError, channel},
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use segl_tests::{
    documents as document_keys,
    http::Http,
    openssl,
    pki::Authority,
    process::{Service, Signal},
    programs,
    signing::{self, Signed},
    site::{ED25519, P256, P384, RSA, Site, Token, await_keys},
};

use serde_json::Value;

use crate::{
    Result,
    command::{self, Job},
    install, workspace,
};

mod documents;

/// Where the demo serves, when nobody else does: segld, its admin address, the broker, its admin address.
const PORTS: [u16; 4] = [7443, 9464, 8443, 9444];
/// From an empty target folder on a slow machine.
const BUILD: Duration = Duration::from_secs(1800);
/// For things that take a second.
const SOON: Duration = Duration::from_secs(30);
const BATCH: usize = 100;
/// One after the other, for the latencies: enough for a median, no benchmark.
const SINGLES: usize = 50;

/// Nothing is shown that nobody else has verified.
const CANNOT_VERIFY: &str = "Without what is missing nothing could be signed or verified here";

const WORK: [(&str, &str); 5] = [
    (RSA, "rsa-pkcs1-sha256"),
    (RSA, "rsa-pss-sha256"),
    (P256, "ecdsa-p256-sha256"),
    (P384, "ecdsa-p384-sha384"),
    (ED25519, "ed25519"),
];

#[derive(Args)]
pub(crate) struct Arguments {
    /// Stop after the story; exit 0 only if every signature was verified
    #[arg(long)]
    once: bool,
    /// Which token signs
    #[arg(long, value_enum, default_value = "embedded")]
    token: TokenName,
}

#[derive(Clone, Copy, ValueEnum)]
enum TokenName {
    /// Keys in the daemon's own process
    Embedded,
    /// SoftHSM2, installed when missing
    Softhsm,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let (signals, interrupted) = channel();
    command::on_signal(move || {
        // The receiver is gone only when the demo is over.
        let _ = signals.send(());
    })?;
    let (token, name) = match arguments.token {
        TokenName::Embedded => (Token::Embedded, "embedded"),
        TokenName::Softhsm => (Token::SoftHsm, "softhsm"),
    };
    let target = programs::target().join("demo");
    let dir = target.join(name);
    std::fs::create_dir_all(&target)?;
    let lock = File::create(target.join(format!("{name}.lock")))?;
    lock.try_lock().map_err(|error| format!("another demo runs in {}: {error}", dir.display()))?;

    let log = target.join(format!("{name}.build.log"));
    File::create(&log)?;
    let mut needed = vec!["openssl", "xmlsec1"];
    if token == Token::SoftHsm {
        needed.extend(["softhsm2", "opensc"]);
    }
    install::packages(&needed, &log).map_err(|error| format!("{CANNOT_VERIFY}: {error}"))?;
    if std::env::var_os("SEGL_BIN_DIR").is_none() {
        println!("Building segld, segl and segl-broker (development profile)");
        let build = ["build", "--locked", "--package", "segl-daemon", "--package", "segl-broker", "--bins"];
        Job::new("cargo", &workspace(), log).args(build).must(BUILD)?;
        programs::built_in(programs::target().join("debug"));
    }
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    let demo = Demo::start(&dir, token, interrupted)?;
    let story = demo.tell().and_then(|()| if arguments.once { Ok(()) } else { demo.stay() });
    let stopped = demo.stop();
    story?;
    stopped?;
    println!("\nEverything is left in {} until the next demo.", dir.display());
    Ok(ExitCode::SUCCESS)
}

struct Demo {
    site: Site,
    // Before segld: fields are dropped in this order, and the broker is to go first.
    broker: Service,
    segld: Service,
    caller: Http,
    interrupted: Receiver<()>,
}

impl Demo {
    fn start(dir: &Path, token: Token, interrupted: Receiver<()>) -> Result<Self> {
        println!("Making a PKI, {} and both configurations in {}", keys_of(token), dir.display());
        let mut site = Site::create(dir, token, &PORTS)?;
        document_keys::add(&mut site)?;
        let own_group = |mut command: Command| {
            // Ctrl-C is for the demo, which stops its daemons in order.
            command.process_group(0);
            command
        };
        let command = own_group(site.segld_command());
        let started = Instant::now();
        let mut segld = Service::start(command, dir, "segld")?;
        segld.ready(SOON)?;
        // READY=1 means that it serves; /readyz that keys sign, which a token may need a moment for.
        await_keys(&site.segld_admin()?)?;
        println!("segld       mutual TLS on {}, ready after {}", site.segld, ms(started.elapsed()));
        let started = Instant::now();
        let mut broker = Service::start(own_group(site.broker_command()), dir, "segl-broker")?;
        broker.ready(SOON)?;
        await_keys(&site.broker_admin()?)?;
        println!("segl-broker HTTPS on {}, ready after {}", site.broker, ms(started.elapsed()));
        println!("/readyz of both says that keys sign");
        let caller = site.caller(&site.tenants[0])?;
        // An HSM makes the keys, a CA then the certificates: they come with a reload.
        let names = [document_keys::LOGIN_RSA, document_keys::LOGIN];
        let keys = names.map(|name| signing::public_key(&caller, name).map(|spki| (name, spki)));
        let keys = keys.into_iter().collect::<Result<Vec<_>>>()?;
        document_keys::certify(&mut site, &Authority::new("Segl's demo")?, &keys)?;
        segld.signal(Signal::HUP)?;
        segld.notified("RELOADING=1", SOON)?;
        segld.ready(SOON)?;
        println!("segld has read its configuration again: {} have certificates now", names.join(" and "));
        Ok(Demo { caller, site, broker, segld, interrupted })
    }

    fn tell(&self) -> Result<()> {
        let path = workspace().join("README.md");
        let document = std::fs::read(&path)?;
        println!("\nA caller of {} has {} signed (only digests travel):", self.site.tenants[0].name, path.display());
        for (key, algorithm) in WORK {
            self.go_on()?;
            let spki = signing::public_key(&self.caller, key)?;
            let signed = signing::sign(&self.caller, key, algorithm, &document, &format!("demo-{algorithm}"))?;
            openssl::verify(algorithm, &spki, &document, &signed.signature)?;
            println!(
                "  {key:<13} {algorithm:<18} {:>4} bytes  openssl: verified  {:>9} in all, {:>6} us in the queue, {:>6} us in the token",
                signed.signature.len(),
                ms(signed.took),
                signed.queue_us,
                signed.token_us
            );
        }
        self.one_after_the_other(&document)?;
        self.batch(&document)?;
        self.refusal(&document)?;
        let documents = documents::tell(&self.caller, &self.site.dir, &|| self.go_on())?;
        self.journal(&documents)?;
        self.addresses()
    }

    fn one_after_the_other(&self, document: &[u8]) -> Result<()> {
        let mut signed = Vec::new();
        for at in 0..SINGLES {
            self.go_on()?;
            signed.push(signing::sign(
                &self.caller,
                P256,
                "ecdsa-p256-sha256",
                document,
                &format!("demo-single-{at}"),
            )?);
        }
        let spki = signing::public_key(&self.caller, P256)?;
        verify_all(&spki, std::iter::repeat(document), &signed)?;
        let mut took: Vec<Duration> = signed.iter().map(|signed| signed.took).collect();
        took.sort();
        println!(
            "\n{SINGLES} more with {P256}, one after the other, all verified: fastest {}, median {}, slowest {}",
            ms(took[0]),
            ms(took[SINGLES / 2]),
            ms(took[SINGLES - 1])
        );
        Ok(())
    }

    fn batch(&self, document: &[u8]) -> Result<()> {
        self.go_on()?;
        let documents: Vec<Vec<u8>> =
            (0..BATCH).map(|at| [document, format!("\ncopy {at}\n").as_bytes()].concat()).collect();
        let signed = signing::sign_batch(&self.caller, P256, "ecdsa-p256-sha256", &documents, "demo-batch")?;
        let spki = signing::public_key(&self.caller, P256)?;
        verify_all(&spki, documents.iter().map(Vec::as_slice), &signed)?;
        let token_us: u64 = signed.iter().map(|signed| signed.token_us).sum();
        println!(
            "A batch of {BATCH} different copies with {P256} in one request, all verified: {} in all, {token_us} us of it in \
             the token",
            ms(signed[0].took)
        );
        Ok(())
    }

    fn refusal(&self, document: &[u8]) -> Result<()> {
        let tenant = &self.site.tenants[1];
        let body = signing::request(RSA, "rsa-pss-sha256", document, "demo-refused")?;
        let answer = self.site.caller(tenant)?.post("/v1/sign", &body, &[])?;
        if answer.status / 100 != 4 || answer.json.get("signature").is_some() {
            return Err(format!("{} was not refused {RSA}: {} {}", tenant.name, answer.status, answer.text).into());
        }
        let detail = answer.json["detail"].as_str().or(answer.json["title"].as_str()).unwrap_or_default();
        println!("A caller of {} asks for {RSA}, which is not its own: {} {detail}", tenant.name, answer.status);
        Ok(())
    }

    fn journal(&self, documents: &[String]) -> Result<()> {
        let journal = self.site.journal();
        println!("\nThe journal has them, as `segl audit show {}` tells:", journal.display());
        let entries: Vec<Value> = segl(&["audit", "show", "--json"], &journal)?
            .lines()
            .map(serde_json::from_str)
            .collect::<serde_json::Result<_>>()?;
        let pair = |reference: &str| -> Result<(&Value, &Value)> {
            let intent = entries.iter().find(|entry| entry["kind"] == "intent" && entry["reference"] == reference);
            let intent = intent.ok_or_else(|| format!("{reference} was signed and is not in the journal"))?;
            let outcome = entries.iter().find(|entry| entry["kind"] == "outcome" && entry["intent"] == intent["seq"]);
            Ok((intent, outcome.ok_or_else(|| format!("{reference} has no outcome in the journal"))?))
        };
        let digests = WORK.map(|(_, algorithm)| format!("demo-{algorithm}"));
        for reference in digests.iter().chain(documents) {
            let (intent, outcome) = pair(reference)?;
            let text = |field: &str| intent[field].as_str().unwrap_or("-").to_owned();
            let with = |before: &str, field: &str| {
                intent[field].as_str().map(|value| format!("{before}{value}")).unwrap_or_default()
            };
            println!(
                "  {} {} {} for {} on behalf of {}{}: {} {} digest {:.16}...{} -> {} {}",
                intent["seq"],
                text("time"),
                text("operation"),
                text("tenant"),
                text("on_behalf_of"),
                with(", acting as ", "capacity"),
                text("key"),
                text("algorithm"),
                text("digest"),
                with(" of ", "document"),
                outcome["seq"],
                outcome["result"].as_str().unwrap_or("outcome")
            );
        }
        for reference in (0..BATCH).map(|at| format!("demo-batch-{at}")) {
            pair(&reference)?;
        }
        let verified = segl(&["audit", "verify"], &journal)?;
        let line = |start: &str| verified.lines().rev().find(|line| line.starts_with(start)).unwrap_or_default();
        if entries.iter().any(|entry| entry["kind"] == "intent" && entry["reference"] == documents::REFUSED) {
            return Err(format!("{} was about to be signed", documents::REFUSED).into());
        }
        println!(
            "  and {BATCH} of the batch, and nothing of what was refused; `segl audit verify`: {}, {}",
            line("records"),
            line("SOUND")
        );
        Ok(())
    }

    fn addresses(&self) -> Result<()> {
        let (broker, pki) = (self.site.broker.port(), self.site.dir.join("pki"));
        let body = signing::request(P256, "ecdsa-p256-sha256", b"hello", "by-hand")?;
        let request = self.site.dir.join("request.json");
        writeln!(File::create(&request)?, "{body:#}")?;
        println!("\n  broker       https://localhost:{broker}/v1/keys (bearer token), API page and OpenAPI beside it");
        println!("  its admin    http://{}/readyz, /healthz, /metrics", self.site.broker_admin);
        println!("  segld admin  http://{}/readyz, /healthz, /metrics", self.site.segld_admin);
        println!(
            "\nTry:\n  curl --cacert {0}/servers-ca.pem -H \"Authorization: Bearer $(cat {0}/{1}.bearer)\" \\\n    \
                  -H 'Content-Type: application/json' -d @{2} https://localhost:{broker}/v1/sign",
            pki.display(),
            self.site.tenants[0].name,
            request.display()
        );
        Ok(())
    }

    /// Waits for Ctrl-C.
    fn stay(&self) -> Result<()> {
        println!("\nCtrl-C stops it.");
        Ok(self.interrupted.recv()?)
    }

    /// Stops the broker, then segld, each with SIGTERM and time to finish.
    fn stop(mut self) -> Result<()> {
        for (name, service) in [("segl-broker", &mut self.broker), ("segld", &mut self.segld)] {
            let status = service.terminate(SOON)?;
            println!("{name} ended: {status}");
            if !status.success() {
                return Err(format!("{name} did not end well; its log is in {}", self.site.dir.display()).into());
            }
        }
        Ok(())
    }

    /// An error once Ctrl-C was pressed: what was started is then stopped on the way out.
    fn go_on(&self) -> Result<()> {
        match self.interrupted.try_recv() {
            Ok(()) => Err("interrupted".into()),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => Ok(()),
        }
    }
}

fn verify_all<'d>(spki: &[u8], documents: impl Iterator<Item = &'d [u8]>, signed: &[Signed]) -> Result<()> {
    for (document, signed) in documents.zip(signed) {
        openssl::verify("ecdsa-p256-sha256", spki, document, &signed.signature)
            .map_err(|error| format!("{}: {error}", signed.reference))?;
    }
    Ok(())
}

/// Runs the operator's command and returns what it prints.
fn segl(words: &[&str], journal: &PathBuf) -> Result<String> {
    let output = Command::new(programs::segl()).args(words).arg(journal).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("segl {}: {}\n{text}{error}", words.join(" "), output.status).into());
    }
    Ok(text)
}

fn keys_of(token: Token) -> &'static str {
    match token {
        Token::Embedded => "keys for the embedded token",
        Token::SoftHsm => "a SoftHSM2 token with keys",
        Token::Kryoptic => "a Kryoptic token with keys",
    }
}

fn ms(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1e3)
}
