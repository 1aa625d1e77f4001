//! Asking the segld that runs, and saying what it answered.

use std::{
    path::PathBuf,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use clap::Args;

use super::{UNKNOWN, paint::plain};
use crate::control::{
    Answer, Client, ClientError, DEFAULT_SOCKET, Request, Status,
    status::{Daemon, Token},
};

/// Where segld is, and how long it may take.
#[derive(Args)]
pub(super) struct Reach {
    /// segld's control socket
    #[arg(long, global = true, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub(super) socket: PathBuf,
    /// How long to wait for segld, in seconds
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) timeout: u64,
}

/// How often a token is looked at that is waited for: nothing tells but asking again.
const LOOK_EVERY: Duration = Duration::from_millis(200);

impl Reach {
    pub(super) fn limit(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    pub(super) fn connect(&self) -> Result<Client, ClientError> {
        Client::connect(&self.socket)
    }

    /// Asks once.
    pub(super) fn ask(&self, request: &Request) -> Result<Answer, ClientError> {
        self.connect()?.ask(request, self.limit())
    }

    /// Asks for something to be done, and says what was answered.
    pub(super) fn tell(&self, request: &Request) -> ExitCode {
        match self.ask(request) {
            Ok(Answer::Done(text)) => {
                println!("{}", plain(&text));
                ExitCode::SUCCESS
            }
            Ok(_) => unexpected(),
            Err(error) => complain(&error),
        }
    }

    /// The same for a token, which is then waited for; `met` is told how it was before and how it is.
    pub(super) fn tell_and_await(
        &self,
        request: &Request,
        token: &str,
        met: impl Fn(&Token, &Token) -> Progress,
    ) -> ExitCode {
        let begun = self.connect().and_then(|mut client| {
            let before = status(&mut client, self.limit())?;
            Ok((client.ask(request, self.limit())?, client, before))
        });
        let (mut client, before) = match begun {
            Ok((Answer::Done(text), client, before)) => {
                println!("{}", plain(&text));
                (client, before)
            }
            Ok(_) => return unexpected(),
            Err(error) => return complain(&error),
        };
        let find = |status: &Status| status.tokens.iter().find(|seen| seen.name == token).cloned();
        let Some(before) = find(&before) else { return unexpected() };
        let end = Instant::now() + self.limit();
        loop {
            let status = match status(&mut client, self.limit()) {
                Ok(status) => status,
                Err(error) => return complain(&error),
            };
            let Some(seen) = find(&status) else { return unexpected() };
            match met(&before, &seen) {
                Progress::Done(text) => {
                    println!("{token} is {text}");
                    return ExitCode::SUCCESS;
                }
                Progress::Failed(why) => {
                    eprintln!("segl: {token}: {}", plain(&why));
                    return ExitCode::FAILURE;
                }
                Progress::Waiting if Instant::now() >= end => {
                    let because = seen.last_error.as_ref().map_or(String::new(), |error| format!(": {}", error.text));
                    let (state, seconds) = (&seen.state, self.timeout);
                    eprintln!("segl: {token} is still {state} after {seconds} s{}", plain(&because));
                    return ExitCode::FAILURE;
                }
                Progress::Waiting => thread::sleep(LOOK_EVERY),
            }
        }
    }
}

/// How far a token is with what was asked for.
pub(super) enum Progress {
    Waiting,
    Done(&'static str),
    Failed(String),
}

/// Why it can not get there by itself.
pub(super) fn hopeless(token: &Token) -> Option<Progress> {
    let why =
        || token.last_error.as_ref().map_or_else(|| "it waits for an operator".to_owned(), |error| error.text.clone());
    matches!(token.state.as_str(), "needs-operator" | "wedged").then(|| Progress::Failed(why()))
}

/// The status, over an open connection.
pub(super) fn status(client: &mut Client, limit: Duration) -> Result<Status, ClientError> {
    match client.ask(&Request::Status {}, limit)? {
        Answer::Status(status) => Ok(*status),
        _ => Err(ClientError::Unreadable("it answers something else".into())),
    }
}

/// Says why not, on standard error; the status is 3 when nothing is known, else 1.
pub(super) fn complain(error: &ClientError) -> ExitCode {
    eprintln!("segl: {}", plain(&error.to_string()));
    if !error.hint().is_empty() {
        eprintln!("    {}", error.hint());
    }
    match error {
        ClientError::Unreachable { .. } | ClientError::Broken(_) | ClientError::Unreadable(_) => {
            ExitCode::from(UNKNOWN)
        }
        ClientError::Refused(_) => ExitCode::FAILURE,
    }
}

pub(super) fn unexpected() -> ExitCode {
    complain(&ClientError::Unreadable("it answers something else than was asked".into()))
}

/// `room-1 (site A)`.
pub(super) fn place(daemon: &Daemon) -> String {
    match &daemon.site {
        Some(site) => format!("{} (site {site})", daemon.host),
        None => daemon.host.clone(),
    }
}
