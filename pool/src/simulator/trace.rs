//! What happened, for a human to read: a line an event, an action or a deed of the models.

use crate::{
    Job,
    core::{Action, Call, CallResult, Event, Generation, SessionId},
};

/// The lines of a run; kept only when somebody wants to read them.
#[derive(Debug)]
pub(super) struct Trace {
    lines: Option<Vec<String>>,
}

impl Trace {
    pub(super) fn new(kept: bool) -> Self {
        Trace { lines: kept.then(Vec::new) }
    }

    pub(super) fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }

    /// Something that a model does.
    pub(super) fn deed(&mut self, now_ns: u64, deed: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{}      {}", clock(now_ns), deed()));
        }
    }

    /// Something that Core hears.
    pub(super) fn event(&mut self, now_ns: u64, event: &Event<u64>) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{}  >   {}", clock(now_ns), heard(event)));
        }
    }

    /// Something that Core asks for.
    pub(super) fn action(&mut self, now_ns: u64, action: &Action<u64>) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{}    < {}", clock(now_ns), asked(action)));
        }
    }
}

/// `12.345678`: seconds, to the microsecond.
pub(super) fn clock(ns: u64) -> String {
    format!("{:>4}.{:06}", ns / 1_000_000_000, ns / 1_000 % 1_000_000)
}

fn heard(event: &Event<u64>) -> String {
    match event {
        Event::Submit(job) => format!("Submit {}", said(job)),
        Event::Cancel { tag, .. } => format!("Cancel job {tag}"),
        Event::Opened { session, generation, result } => {
            format!("Opened {}: {}", at(*session, *generation), outcome(result))
        }
        Event::LoggedIn { session, generation, result } => {
            format!("LoggedIn {}: {}", at(*session, *generation), outcome(result))
        }
        Event::KeptAlive { session, generation, result } => {
            format!("KeptAlive {}: {}", at(*session, *generation), outcome(result))
        }
        Event::Returned { session, generation, call, result, started_ns, token_ns } => {
            let result = match result {
                CallResult::Signed(_) => "signed".to_owned(),
                CallResult::Failed(error) => failure(error),
                CallResult::Expired => "not begun, expired".to_owned(),
                CallResult::Skipped => "not begun, skipped".to_owned(),
            };
            let times = format!("begun {}, {} us", clock(*started_ns).trim_start(), token_ns / 1000);
            format!("Returned {} call {}: {result} ({times})", at(*session, *generation), call.0)
        }
        Event::Closed { session, generation } => format!("Closed {}", at(*session, *generation)),
        Event::Gone { session, generation } => format!("Gone {}", at(*session, *generation)),
        Event::Reinitialised { module, session, generation, result } => {
            format!("Reinitialised module {} by {}: {}", module.0, at(*session, *generation), outcome(result))
        }
        other => format!("{other:?}"),
    }
}

fn asked(action: &Action<u64>) -> String {
    match action {
        Action::Open { session, generation } => format!("Open {}", at(*session, *generation)),
        Action::Login { session, generation } => format!("Login {}", at(*session, *generation)),
        Action::KeepAlive { session, generation } => format!("KeepAlive {}", at(*session, *generation)),
        Action::Sign { session, generation, call } => {
            let Call { id, input, key, work, .. } = call;
            format!("{work:?} {} call {} for job {input}, key {}", at(*session, *generation), id.0, key.0)
        }
        Action::TakeBack { session, generation, call } => {
            format!("TakeBack {} call {}", at(*session, *generation), call.0)
        }
        Action::Close { session, generation } => format!("Close {}", at(*session, *generation)),
        Action::Replace { session, generation } => format!("Replace {}", at(*session, *generation)),
        Action::Reinitialise { module, session, generation } => {
            format!("Reinitialise module {} by {}", module.0, at(*session, *generation))
        }
        Action::Complete { completion, .. } => {
            let result = completion.result.as_ref().map(|_| "a signature").map_err(|failure| format!("{failure:?}"));
            let attempts: Vec<_> =
                completion.attempts.iter().map(|a| format!("token {} {:?}", a.token, a.fate)).collect();
            format!("Complete job {}: {result:?} after {attempts:?}", completion.tag)
        }
        Action::Alarm(alarm) => format!("Alarm {alarm:?}"),
    }
}

fn said(job: &Job<u64>) -> String {
    let Job { tag, tenant, class, key, route, .. } = job;
    let only = job.only_token.map_or(String::new(), |token| format!(" only token {token}"));
    let repeatable = if job.repeatable { ", repeatable" } else { "" };
    let probe = if job.probe { ", a probe" } else { "" };
    let deadline = clock(job.deadline_ns);
    format!(
        "job {tag} of tenant {tenant}: {} key {} route {}{only}, until {}{repeatable}{probe}",
        class.name(),
        key.0,
        route.0,
        deadline.trim_start()
    )
}

fn at(session: SessionId, generation: Generation) -> String {
    format!("place {}/{}", session.0, generation.0)
}

fn outcome(result: &Result<(), segl_hsm::Error>) -> String {
    result.as_ref().map_or_else(failure, |()| "ok".to_owned())
}

fn failure(error: &segl_hsm::Error) -> String {
    let verdict = error.verdict();
    format!("{error} (signed: {:?}, retry: {:?}, rung: {:?})", verdict.signed, verdict.retry, verdict.rung)
}
