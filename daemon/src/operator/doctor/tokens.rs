//! Whether modules load and tokens are seen: as a running segld has it, else by loading each module in a process of
//! its own, which dies with what the module does to it.
//!
//! While segld runs no module is loaded a second time: some devices let one process in, and throw the first one out.

use std::{
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use segl_hsm::{
    ModuleId,
    pkcs11::{Module, PinState, Uri},
};
use serde::{Deserialize, Serialize};

use super::{Check, Subject, child};
use crate::{
    config::{self, TokenKind},
    control::status,
};

/// How long a module may take to load and to find its tokens.
const LIMIT: Duration = Duration::from_secs(30);

/// What a look at a token gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Seen {
    Here { identity: String, pin: Pin },
    Not { error: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Pin {
    Good,
    TriedWrongly,
    FinalTry,
    Locked,
}

pub(super) fn checks(subject: &Subject) -> Vec<Check> {
    let Some(draft) = &subject.draft else { return vec![subject.unread("tokens")] };
    draft.tokens.iter().map(|token| check(token, subject)).collect()
}

fn check(token: &config::Token, subject: &Subject) -> Check {
    let name = format!("token {}", token.name);
    if let Some(status) = &subject.status {
        return match status.tokens.iter().find(|of| *of.name == *token.name) {
            Some(of) => running(name, of),
            None => Check::warning(
                name,
                "the segld that runs does not know it",
                "restart segld: tokens are read at its start",
            ),
        };
    }
    match &token.kind {
        TokenKind::Embedded { directory, .. } => {
            let seen = format!("embedded, keys in {}", directory.display());
            Check::warning(name, seen, "for development only: its keys are files")
        }
        TokenKind::Pkcs11 { .. } if subject.runs() => Check::not_known(
            name,
            "segld runs, and its control socket does not answer: its module is not loaded a second time",
            "systemctl status segld; segl status",
        ),
        TokenKind::Pkcs11 { module, uri, .. } => looked_up(name, module, uri, subject),
    }
}

/// As the segld that runs has it.
fn running(name: String, of: &status::Token) -> Check {
    if of.state == "ready" {
        let sessions = format!("{} of {} sessions open", of.sessions_open, of.sessions_configured);
        return Check::ok(name, format!("ready in the segld that runs, {sessions}"));
    }
    let error = of.last_error.as_ref().map_or_else(String::new, |error| format!(": {}", error.text));
    let advice = format!("OPERATIONS.md, Tokens, and what they go through: `{}`", of.state);
    Check::problem(name, format!("{} in the segld that runs{error}", of.state), advice)
}

fn looked_up(name: String, module: &Path, uri: &Uri, subject: &Subject) -> Check {
    let path = module.display();
    let advice = "the vendor's own tool shows whether the device is reached; OPERATIONS.md, What is wrong";
    let seen = match ask_child(module, uri, subject) {
        Ok(seen) => seen,
        Err(why) => return Check::problem(name, format!("{path} {why}"), advice),
    };
    match seen {
        Seen::Not { error } => Check::problem(name, error, advice),
        Seen::Here { identity, pin } => match pin {
            Pin::Good => Check::ok(name, format!("{identity}, seen by {path}")),
            Pin::TriedWrongly => Check::warning(
                name,
                format!("{identity}: its PIN was given wrongly"),
                "see that the sealed PIN is right",
            ),
            Pin::FinalTry => Check::problem(
                name,
                format!("{identity}: one more wrong PIN locks it"),
                "segld does not try it; log in with the vendor's tool once the PIN is sure",
            ),
            Pin::Locked => Check::problem(
                name,
                format!("{identity}: its PIN is locked"),
                "unlock it with the vendor's tool, as security officer",
            ),
        },
    }
}

/// Starts this program once more, as segld's user where there is one, in the unit's environment.
fn ask_child(module: &Path, uri: &Uri, subject: &Subject) -> Result<Seen, String> {
    let program = std::env::current_exe().map_err(|error| format!("could not be tried: {error}"))?;
    let mut command = Command::new(program);
    command.args(["doctor", SURVEY]).arg(module).arg(uri.to_string());
    command.envs(subject.unit.iter().flat_map(|unit| unit.environment()));
    command.current_dir("/");
    if let (true, Some(user), Some(group)) = (rustix::process::geteuid().is_root(), subject.user, subject.group) {
        command.gid(group).uid(user);
    }
    let ended = child::run(&mut command, LIMIT)?;
    if let Some(signal) = ended.status.signal() {
        return Err(format!("crashes: the process that loaded it got signal {signal}"));
    }
    // A module may print what it likes before.
    let last = ended.stdout.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty()).unwrap_or_default();
    serde_json::from_slice(last).map_err(|_| format!("ended the process that loaded it, with {}", ended.status))
}

/// The option by which the doctor asks itself for that.
pub(super) const SURVEY: &str = "--look-into";

/// In the child: loads the module, finds the token, prints what it saw.
pub(super) fn survey(module: &[PathBuf]) -> ExitCode {
    let [path, uri] = module else { return ExitCode::FAILURE };
    let seen = uri.to_string_lossy().parse::<Uri>().map_err(|error| error.to_string()).and_then(|uri| {
        let module = Module::load(path, ModuleId(1)).map_err(|error| error.to_string())?;
        let seen = module.survey(&uri).map_err(|error| error.to_string())?;
        let pin = match seen.pin {
            PinState::Good => Pin::Good,
            PinState::TriedWrongly => Pin::TriedWrongly,
            PinState::FinalTry => Pin::FinalTry,
            PinState::Locked => Pin::Locked,
        };
        Ok(Seen::Here { identity: seen.identity, pin })
    });
    let seen = seen.unwrap_or_else(|error| Seen::Not { error });
    match serde_json::to_string(&seen) {
        Ok(line) => {
            println!("\n{line}");
            ExitCode::SUCCESS
        }
        Err(_) => ExitCode::FAILURE,
    }
}
