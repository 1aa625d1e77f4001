//! Core under random fire in virtual time.
//!
//! The same Core that signs is put between models of modules, tokens, threads, clients and operators, all driven from
//! one seed by a heap of events, and watched: what it may never do is checked at every step. A run is played from a
//! script that is drawn beforehand, so a seed that fails replays exactly, and its script can be shortened until what
//! is left can be read.
//!
//! Only with the feature `simulator` and in tests; `cargo xtask simulate` runs it at length.

mod draw;
mod faults;
mod script;
mod shrink;
#[cfg(test)]
mod tests;
mod thread;
mod token;
mod trace;
mod watch;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use self::{script::Script, watch::promise, world::World};
pub use self::{watch::Violation, world::Summary};

/// A run that broke a promise, as short as it could be made.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed
    pub seed: u64,
    /// What was broken
    pub violation: Violation,
    /// What clients, operators and fate did at first, and in the shortened run
    pub acts: (usize, usize),
    /// The shortened run: a line an event, an action, or a deed of a model
    pub trace: Vec<String>,
}

/// Plays the run of a seed.
///
/// # Errors
/// The first promise that is broken.
pub fn run(seed: u64) -> Result<Summary, Violation> {
    play(&Script::draw(seed), false).0
}

/// Plays the run of a seed that fails, shortens it and traces it; none if it does not fail.
pub fn explain(seed: u64) -> Option<Failure> {
    let script = Script::draw(seed);
    let violation = play(&script, false).0.err()?;
    let short = shrink::shorten(&script, violation.promise);
    let (result, trace) = play(&short, true);
    let violation = result.err().unwrap_or(violation);
    Some(Failure { seed, violation, acts: (script.acts.len(), short.acts.len()), trace })
}

/// Plays the run of a seed as it is and traces it.
pub fn trace(seed: u64) -> (Result<Summary, Violation>, Vec<String>) {
    play(&Script::draw(seed), true)
}

fn play(script: &Script, traced: bool) -> (Result<Summary, Violation>, Vec<String>) {
    let mut world = World::new(script, traced);
    let result = catch_unwind(AssertUnwindSafe(|| world.run())).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().cloned();
        let said = said.or_else(|| panic.downcast_ref::<&str>().map(|&said| said.to_owned()));
        let detail = said.unwrap_or_else(|| "it does not say why".to_owned());
        Err(Violation { promise: promise::PANIC, detail, at_ns: world.now_ns() })
    });
    (result, world.into_trace())
}
