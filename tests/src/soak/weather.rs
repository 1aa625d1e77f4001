//! Makes a token ill and well again, as its forecast says, and watches how long it takes to sign again.

use std::{
    collections::BTreeMap,
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use segl_faulty_token::FaultyHsm;

use super::{
    ground::{KEYS, TOKENS},
    health::Health,
    operator::Operator,
    trouble::{Ends, Spell},
};
use crate::{Result, http::Http};

/// A token that is healed signs again, with each of its keys, within this: the longest back-off, a stuck call, the
/// self-tests, the next one of a key that an outage made look guilty, on a busy machine.
pub(super) const RECOVERY_MAX: Duration = Duration::from_secs(20);
/// So many more signatures show that it takes part.
const SIGNS_AGAIN: u64 = 10;
/// How often it is asked.
const LOOK: Duration = Duration::from_millis(50);
/// After how long the operator tries again.
const INSISTS: Duration = Duration::from_secs(3);

/// How a token came back from a trouble.
#[derive(Debug)]
pub struct Recovery {
    /// Which token, and what it was
    pub what: String,
    /// How long it took to sign again
    pub took: Duration,
}

/// What one token went through.
#[derive(Debug, Default)]
pub(super) struct Chronicle {
    /// By trouble
    pub(super) recoveries: BTreeMap<&'static str, Vec<Recovery>>,
    /// What was not as it should be
    pub(super) broken: Vec<String>,
}

/// Until `over` says so, or the token does not come back.
pub(super) fn weather(
    seed: u64,
    token: usize,
    hsm: &FaultyHsm,
    admin: &Http,
    health: &Health,
    operator: &Operator<'_>,
    over: &Receiver<()>,
) -> Result<Chronicle> {
    let mut chronicle = Chronicle::default();
    for Spell { pause_ms, trouble, lasts_ms } in Spell::forecast(seed, token) {
        if is_over(over, pause_ms) {
            break;
        }
        health.falls_ill(token, trouble.name());
        trouble.begin(hsm)?;
        let over = is_over(over, lasts_ms);
        let ends = trouble.end(hsm)?;
        let healed = Instant::now();
        if let Ends::NewPin(pin) = &ends {
            operator.learn_pin(token, pin)?;
        }
        let recovered = await_recovery(token, hsm, admin, || match ends {
            Ends::ByItself => Ok(()),
            Ends::Reload | Ends::NewPin(_) => operator.reload(),
        })?;
        let recovery = Recovery { what: format!("{}: {trouble:?}", TOKENS[token]), took: healed.elapsed() };
        chronicle.recoveries.entry(trouble.name()).or_default().push(recovery);
        if !recovered {
            let (name, seconds) = (TOKENS[token], RECOVERY_MAX.as_secs());
            let state = state_of(token, admin)?;
            chronicle
                .broken
                .push(format!("token {name} does not sign {seconds} s after {trouble:?} was taken back: {state}"));
            break;
        }
        health.recovers(token);
        if over {
            break;
        }
    }
    Ok(chronicle)
}

/// What segld says of it.
fn state_of(token: usize, admin: &Http) -> Result<String> {
    let readiness = admin.get("/readyz")?.text;
    let metrics = admin.get("/metrics")?.text;
    let label = format!("token=\"{}\"", TOKENS[token]);
    let mine: Vec<_> = metrics.lines().filter(|line| line.contains(&label) && !line.ends_with(" 0")).collect();
    Ok(format!("{readiness} {}", mine.join(", ")))
}

/// Whether the end came within that time.
fn is_over(over: &Receiver<()>, within_ms: u64) -> bool {
    match over.recv_timeout(Duration::from_millis(within_ms)) {
        Ok(()) | Err(RecvTimeoutError::Disconnected) => true,
        Err(RecvTimeoutError::Timeout) => false,
    }
}

/// Waits until the token is ready with each of its keys and signs; the operator does what is his now and then.
fn await_recovery(token: usize, hsm: &FaultyHsm, admin: &Http, operator: impl Fn() -> Result<()>) -> Result<bool> {
    let label = format!("token=\"{}\"", TOKENS[token]);
    let keys = KEYS.iter().filter(|key| key.tokens.contains(&token)).count() as f64;
    let signed = || Ok::<_, Box<dyn std::error::Error + Send + Sync>>(hsm.counts()?.all_keys().signed);
    let (healed, before) = (Instant::now(), signed()?);
    let mut acts_at = healed;
    while healed.elapsed() < RECOVERY_MAX {
        let ready = admin.metric("segl_token_ready", &[&label])? > 0.0;
        if ready && admin.metric("segl_key_fit", &[&label])? >= keys && signed()? >= before + SIGNS_AGAIN {
            return Ok(true);
        }
        if !ready && Instant::now() >= acts_at {
            operator()?;
            acts_at = Instant::now() + INSISTS;
        }
        // Nobody announces when a token takes part again.
        std::thread::sleep(LOOK);
    }
    Ok(false)
}
