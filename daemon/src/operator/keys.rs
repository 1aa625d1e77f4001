//! `segl keys`: each key on each token, with the last self-test and the reason where it is not used.

use std::process::ExitCode;

use clap::Args;

use super::{
    ask,
    paint::{Colour, Paint, cell, colour_of, table},
    status::label,
};
use crate::control::{Answer, Request, status};

/// Each key on each token: whether it is used there, its last self-test, and why not where not
#[derive(Args)]
pub(super) struct Keys {
    /// Of this key only, all its versions
    #[arg(value_name = "KEY")]
    key: Option<String>,
}

pub(super) fn run(reach: &ask::Reach, arguments: &Keys) -> ExitCode {
    let status = match reach.ask(&Request::Status {}) {
        Ok(Answer::Status(status)) => status,
        Ok(_) => return ask::unexpected(),
        Err(error) => return ask::complain(&error),
    };
    let wanted =
        |key: &&status::Key| arguments.key.as_deref().is_none_or(|name| name == key.name || name == label(key));
    let keys: Vec<_> = status.keys.iter().filter(wanted).collect();
    if let (Some(name), true) = (&arguments.key, keys.is_empty()) {
        eprintln!("segl: there is no key {name:?}; segl keys lists them");
        return ExitCode::FAILURE;
    }
    let mut out = String::new();
    let rows = keys.into_iter().flat_map(|key| key.tokens.iter().map(move |holding| row(key, holding))).collect();
    let heading = ["KEY", "PURPOSE", "ALGORITHMS", "TOKEN", "USED", "HELD", "LAST SELF-TEST", "WHY NOT"];
    table(&mut out, Paint::for_stdout(), &heading, rows);
    print!("{out}");
    ExitCode::SUCCESS
}

fn row(key: &status::Key, holding: &status::Holding) -> Vec<super::paint::Cell> {
    let (test, colour) = match &holding.self_test {
        Some(test) => {
            let how = if test.signed { "signed" } else { "present" };
            (format!("{} ({how}) {}", test.result.name(), test.time), colour_of(test.result.name()))
        }
        None => ("-".to_owned(), Colour::Plain),
    };
    let (used, used_colour) = if holding.used { ("yes", Colour::Green) } else { ("no", Colour::Red) };
    vec![
        cell(label(key)),
        cell(&key.purpose),
        cell(key.algorithms.join(" ")),
        cell(&holding.token),
        cell(used).coloured(used_colour),
        cell(&holding.state).coloured(colour_of(&holding.state)),
        cell(test).coloured(colour),
        cell(super::paint::one_line(&holding.detail)),
    ]
}
