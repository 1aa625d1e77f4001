//! `segl pin`: the way back after a token has refused its PIN.

use std::process::ExitCode;

use clap::Subcommand;

use super::ask::{Progress, Reach, hopeless};
use crate::control::Request;

#[derive(Subcommand)]
pub(super) enum Pin {
    /// Tries the PIN that a token has refused once more, since you have made sure that it is right
    ///
    /// segld never tries a refused PIN again by itself, not after a restart either. Correct the credential or file
    /// first, if that was wrong: another PIN is tried at the next reload anyway. Each refusal brings the token nearer to
    /// its lock; one that is on its last try, or locked, is not asked: unlock it with the vendor's tool before.
    Retry {
        /// The token's name
        name: String,
    },
}

pub(super) fn run(reach: &Reach, pin: &Pin) -> ExitCode {
    let Pin::Retry { name } = pin;
    reach.tell_and_await(&Request::PinRetry { token: name.clone() }, name, |_, seen| match seen.state.as_str() {
        "ready" => Progress::Done("ready: it signs"),
        _ => hopeless(seen).unwrap_or(Progress::Waiting),
    })
}
