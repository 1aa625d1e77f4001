//! A soak: segld at full load over mutual TLS, on HSMs that misbehave at random, until the time is up; and then the
//! question whether its promise held.
//!
//! The promise: no answer is wrong, none is lost, and no error reaches a client that another token could have spared it.
//! The HSMs' own counts are the journal's. Tokens that heal sign again by themselves, but for those that need the
//! operator, who is here too. What happens to the tokens, in which order and for how long, comes from a seed; what the
//! machine makes of it does not, so a seed that failed once may not fail again.

mod books;
mod clients;
mod dice;
mod ground;
mod health;
mod host;
mod line;
mod operator;
mod report;
mod trouble;
mod weather;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use self::{
    books::Books,
    clients::Role,
    dice::Dice,
    ground::{Ground, KEYS, STUCK_AFTER, TOKENS},
    health::Health,
    host::Footprint,
    line::{Account, Common, State},
    operator::Operator,
    weather::{Chronicle, weather},
};
pub use self::{report::Report, weather::Recovery};
use crate::{Result, http::Http, journal, process::Service};

/// How often it says how it goes.
const PROGRESS: Duration = Duration::from_secs(5);
/// Until memory is compared: by then all sessions are open and every way was gone once. A third of a short soak.
const WARM: Duration = Duration::from_secs(60);
/// Service stands still no longer while a token that holds the key is well: until what has hung is given up, and some
/// time of a busy machine.
const STALL_MAX: Duration = STUCK_AFTER.saturating_add(Duration::from_secs(2));
/// For what takes a moment.
const SOON: Duration = Duration::from_secs(30);
/// Memory may grow by so much after it is warm: a quarter, and what an allocator keeps of a burst.
const GROWTH_KIB: u64 = 24 * 1024;

/// Runs one in `dir`, which must be empty. `progress` hears a line now and then; it ends early when `stop` says so.
pub fn run(
    dir: &Path,
    seed: u64,
    lasts: Duration,
    stop: &AtomicBool,
    mut progress: impl FnMut(&str),
) -> Result<Report> {
    let ground = Ground::lay(dir)?;
    let segld = Mutex::new(ground.site.start_segld()?);
    for hsm in &ground.hsms {
        let tempo = segl_faulty_token::Command::Tempo { token: None, tempo: ground::TEMPO };
        hsm.command(&tempo)?;
    }
    let admin = ground.site.segld_admin()?;
    let before = Footprint::of(&segld.lock().unwrap_or_else(PoisonError::into_inner))?;
    let health = Health::new(TOKENS.len());
    let public_keys = clients::public_keys(&ground)?;
    let common = Common { health: &health, public_keys, answers: AtomicU64::new(0), errors: AtomicU64::new(0) };
    let operator = Operator::new(&ground.site, &segld)?;

    let soak = Soak { ground: &ground, common: &common, operator: &operator, segld: &segld, seed };
    let played = soak.play(lasts, stop, &mut progress);
    progress("over; waiting until all is quiet");
    let Played { accounts, chronicles, lasted, warm_kib, mut broken } = played;
    if let Err(error) = soak.settle(&admin) {
        broken.push(error.to_string());
    }

    let mut service = segld.lock().unwrap_or_else(PoisonError::into_inner);
    let after = Footprint::of(&service)?;
    let retries_refused = admin.metric("segl_retries_refused_total", &[])? as u64;
    let mut counts = Vec::new();
    for hsm in &ground.hsms {
        counts.push(hsm.counts()?);
    }
    if !service.terminate(SOON)?.success() {
        broken.push("segld did not end well".into());
    }
    progress("reading the journal");
    journal::verify(&ground.site.journal())?;
    let mut books = Books::read(&ground.site.journal(), &accounts, retries_refused)?;
    for counts in &counts {
        for (token, of_token) in &counts.tokens {
            of_token.keys.iter().for_each(|(key, made)| books.hold(token, key, *made));
        }
        if counts.violations != segl_faulty_token::Violations::default() {
            broken.push(format!("what no caller may do to an HSM: {:?}", counts.violations));
        }
    }
    broken.extend(footprint_broken(before, warm_kib, after));

    let states = |wanted| accounts.iter().flat_map(|account| &account.states).filter(|state| **state == wanted).count();
    let mut recoveries: BTreeMap<&'static str, Vec<Recovery>> = BTreeMap::new();
    for Chronicle { recoveries: of_token, broken: of_token_broken } in chronicles {
        of_token.into_iter().for_each(|(name, more)| recoveries.entry(name).or_default().extend(more));
        broken.extend(of_token_broken);
    }
    let mut stalls = BTreeMap::new();
    for (key, stall) in accounts.iter().flat_map(|account| &account.stalls) {
        let longest: &mut Duration = stalls.entry(KEYS[*key].name).or_default();
        *longest = (*longest).max(*stall);
    }
    for (key, stall) in stalls.iter().filter(|(_, stall)| **stall > STALL_MAX) {
        broken.push(format!("{key} was not served for {:.3} s while a token was well", stall.as_secs_f64()));
    }
    let mut allowed = std::mem::take(&mut books.allowed);
    for account in &accounts {
        account.allowed.iter().for_each(|(why, count)| *allowed.entry(*why).or_default() += count);
        broken.extend(account.broken.iter().cloned());
    }
    broken.append(&mut books.broken);
    Ok(Report {
        seed,
        lasted,
        requests: accounts.iter().map(|account| account.states.len() as u64).sum(),
        signatures: states(State::Signed) as u64,
        errors: states(State::Refused) as u64,
        forgone: states(State::Forgone) as u64,
        cancels: accounts.iter().map(|account| account.cancels).sum(),
        connections: accounts.iter().map(|account| account.connections).sum(),
        allowed,
        not_allowed: books.not_allowed,
        recoveries,
        stalls,
        slowest: accounts.iter().map(|account| account.slowest).max().unwrap_or_default(),
        reloads: operator.reloads(),
        before,
        after,
        calls: TOKENS.iter().map(|token| books.register.of_token(token)).sum(),
        counted: counts.iter().map(|counts| counts.all_keys()).sum(),
        records: books.records,
        released_to_nobody: books.released_to_nobody,
        retries_refused,
        broken,
    })
}

struct Soak<'a> {
    ground: &'a Ground,
    common: &'a Common<'a>,
    operator: &'a Operator<'a>,
    segld: &'a Mutex<Service>,
    seed: u64,
}

/// What is left when the time is up.
struct Played {
    accounts: Vec<Account>,
    chronicles: Vec<Chronicle>,
    lasted: Duration,
    warm_kib: Option<u64>,
    broken: Vec<String>,
}

impl Soak<'_> {
    fn play(&self, lasts: Duration, stop: &AtomicBool, progress: &mut impl FnMut(&str)) -> Played {
        let began = Instant::now();
        let over = AtomicBool::new(false);
        let mut ends: Vec<Sender<()>> = Vec::new();
        thread::scope(|scope| {
            let over = &over;
            let mut end = || {
                let (ending, end) = channel();
                ends.push(ending);
                end
            };
            let mut weathers = Vec::new();
            for token in 0..TOKENS.len() {
                let end = end();
                weathers.push(scope.spawn(move || {
                    let admin = self.ground.site.segld_admin()?;
                    let hsm = &self.ground.hsms[token];
                    weather(self.seed, token, hsm, &admin, self.common.health, self.operator, &end)
                }));
            }
            let mut clients = Vec::new();
            for (role, stream) in Role::all().into_iter().zip(100..) {
                let (dice, end) = (Dice::new(self.seed, stream), end());
                clients.push(scope.spawn(move || clients::run(role, dice, self.ground, self.common, over, &end)));
            }
            let end = end();
            let operator = scope.spawn(move || self.operate(&end));

            let mut warm_kib = None;
            let mut told = began;
            while began.elapsed() < lasts && !stop.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(100).min(lasts.saturating_sub(began.elapsed())));
                if warm_kib.is_none() && began.elapsed() >= WARM.min(lasts / 3) {
                    let segld = self.segld.lock().unwrap_or_else(PoisonError::into_inner);
                    warm_kib = Footprint::of(&segld).ok().map(|footprint| footprint.resident_kib);
                }
                if told.elapsed() >= PROGRESS {
                    told = Instant::now();
                    progress(&self.line(began.elapsed()));
                }
            }
            let lasted = began.elapsed();
            // The tokens first, while there is load that shows them well; then the clients.
            ends.drain(..TOKENS.len());
            let mut broken = Vec::new();
            let mut told = |what: Result<Chronicle>| {
                what.unwrap_or_else(|error| {
                    broken.push(error.to_string());
                    Chronicle::default()
                })
            };
            let chronicles =
                weathers.into_iter().map(|weather| told(weather.join().expect("a token's troubles end"))).collect();
            over.store(true, Ordering::Relaxed);
            ends.clear();
            let accounts = clients.into_iter().map(|client| client.join().expect("a client ends")).collect();
            if let Err(error) = operator.join().expect("the operator ends") {
                broken.push(error.to_string());
            }
            Played { accounts, chronicles, lasted, warm_kib, broken }
        })
    }

    /// The operator's own ideas, now and then.
    fn operate(&self, end: &Receiver<()>) -> Result<()> {
        let mut dice = Dice::new(self.seed, 99);
        while end.recv_timeout(Duration::from_millis(dice.between(2_000, 8_000))) == Err(RecvTimeoutError::Timeout) {
            self.operator.does_something(&mut dice)?;
        }
        Ok(())
    }

    /// Waits until nothing is under way any more.
    fn settle(&self, admin: &Http) -> Result<()> {
        for hsm in &self.ground.hsms {
            hsm.heal()?;
        }
        self.operator.reload()?;
        let deadline = Instant::now() + SOON;
        loop {
            let mut hanging = 0;
            for hsm in &self.ground.hsms {
                let counts = hsm.counts()?;
                hanging += counts.hanging + counts.inside.values().sum::<u64>();
            }
            let stuck = admin.metric("segl_threads_stuck", &[])?;
            let connections = admin.metric("segl_connections", &["phase=\"all\""])?;
            let ready = admin.metric("segl_token_ready", &[])?;
            if hanging == 0 && stuck == 0.0 && connections == 0.0 && ready == TOKENS.len() as f64 {
                return Ok(());
            }
            if Instant::now() > deadline {
                let what = format!("{hanging} calls, {stuck} stuck threads, {connections} connections, {ready} ready");
                return Err(format!("not quiet after {} s: {what}", SOON.as_secs()).into());
            }
            // Nobody announces quiet.
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn line(&self, elapsed: Duration) -> String {
        let answers = self.common.answers.load(Ordering::Relaxed);
        let errors = self.common.errors.load(Ordering::Relaxed);
        let present = self.common.health.present();
        let ill = TOKENS.iter().zip(present).map(|(token, ill)| format!("{token} {}", ill.unwrap_or("well")));
        format!(
            "{:>4} s  {answers} signatures ({:.0}/s), {errors} errors; {}",
            elapsed.as_secs(),
            answers as f64 / elapsed.as_secs_f64(),
            ill.collect::<Vec<_>>().join(", ")
        )
    }
}

/// What the process keeps though everything is over.
fn footprint_broken(before: Footprint, warm_kib: Option<u64>, after: Footprint) -> Vec<String> {
    let mut broken = Vec::new();
    if let Some(warm_kib) = warm_kib {
        let most_kib = warm_kib + warm_kib / 4 + GROWTH_KIB;
        if after.resident_kib > most_kib {
            broken.push(format!("{} KiB resident at the end, {warm_kib} when it was warm", after.resident_kib));
        }
    }
    // Reloads and segments of the journal may come with a descriptor at that moment.
    if after.descriptors > before.descriptors + 4 {
        broken.push(format!("{} descriptors at the end, {} at the start", after.descriptors, before.descriptors));
    }
    if after.threads > before.threads {
        broken.push(format!("{} threads at the end, {} at the start", after.threads, before.threads));
    }
    broken
}
