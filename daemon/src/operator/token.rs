//! `segl token`: taking a token out for maintenance and in again, and beginning its module anew.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::ask::{Progress, Reach, hopeless};
use crate::control::{Request, status};

#[derive(Subcommand)]
pub(super) enum Token {
    /// Gives a token no more work: what it has is finished, then its sessions are closed and it can be serviced
    ///
    /// Requests go to the other tokens that hold their keys. Where there are none, it is refused unless --force is
    /// given: then clients get `key_unavailable`. It stays out until `segl token resume` or a restart of segld.
    Drain {
        /// The token's name
        name: String,
        /// Also when keys can sign nowhere else
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        patience: Patience,
    },
    /// Takes a drained token in again: it logs in, and signs once its self-tests have passed
    Resume {
        /// The token's name
        name: String,
        #[command(flatten)]
        patience: Patience,
    },
    /// Begins a token's module anew (C_Finalize, C_Initialize), as some HSMs want it before they are seen again
    ///
    /// Calls inside the module are finished first, and requests wait or go to other modules meanwhile. It is refused
    /// while another token of the same module signs (drain that first), and while a call is stuck inside.
    Reinit {
        /// The token's name
        name: String,
        #[command(flatten)]
        patience: Patience,
    },
}

#[derive(Args)]
pub(super) struct Patience {
    /// Return at once, not when it is done
    #[arg(long)]
    no_wait: bool,
}

pub(super) fn run(reach: &Reach, token: &Token) -> ExitCode {
    let (request, name, patience) = match token {
        Token::Drain { name, force, patience } => {
            (Request::TokenDrain { token: name.clone(), force: *force }, name, patience)
        }
        Token::Resume { name, patience } => (Request::TokenResume { token: name.clone() }, name, patience),
        Token::Reinit { name, patience } => (Request::TokenReinit { token: name.clone() }, name, patience),
    };
    if patience.no_wait {
        return reach.tell(&request);
    }
    reach.tell_and_await(&request, name, |before, seen| match token {
        Token::Drain { .. } => drained(seen),
        Token::Resume { .. } => ready(seen),
        // It is begun anew some time after the answer: not before the count has risen is a ready token the new one.
        Token::Reinit { .. } if seen.rungs.module == before.rungs.module && seen.state == "ready" => Progress::Waiting,
        Token::Reinit { .. } => ready(seen),
    })
}

fn drained(seen: &status::Token) -> Progress {
    match seen.state.as_str() {
        "drained" => Progress::Done("drained: nobody is inside it"),
        "draining" => Progress::Waiting,
        state => Progress::Failed(format!("it is {state}: somebody has taken it in again")),
    }
}

fn ready(seen: &status::Token) -> Progress {
    match seen.state.as_str() {
        "ready" => Progress::Done("ready: it signs"),
        "drained" | "draining" => Progress::Failed("it is being drained again".into()),
        _ => hopeless(seen).unwrap_or(Progress::Waiting),
    }
}
