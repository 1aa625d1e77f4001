//! Carrying out what an operator asks for: looked at, recorded, done, and recorded how that went.

use std::time::Duration;

use segl_audit::{Record, Settled};
use segl_pool::{TokenState, core::Obstacle};
use segl_wire::KeyState;

use super::{Context, gather, peers::Caller};
use crate::{
    config::LogLevel,
    control::{Access, Answer, Reason, Refused, Request, SelfTested, TestResult},
    keeper::Tested,
    keybook::TestVerdict,
    policy::GrantView,
};

/// How long the journal may take with an operator's command.
const RECORD_LIMIT: Duration = Duration::from_secs(5);

/// How long self-tests may take: one waits for the token and for the journal, and all go at once.
const SELF_TEST_LIMIT: Duration = Duration::from_secs(25);

/// Where a refusal by the journal is explained.
const JOURNAL_HINT: &str = "make room on the journal's disk, or see why it fails: segl status";

/// Answers a request of somebody who may make it.
pub(super) async fn carry_out(context: &Context, caller: &Caller, request: &Request) -> Answer {
    if request.access() == Access::Look {
        return match request {
            Request::LogLevel { .. } => Answer::LogLevel(context.levels.now()),
            _ => Answer::Status(Box::new(gather::status(context))),
        };
    }
    // What can not be done is told before it is recorded: names in the journal are names that there are.
    if let Err(refused) = feasible(context, request) {
        return Answer::Refused(refused);
    }
    let asked = match record_asked(context, caller, request).await {
        Ok(asked) => asked,
        Err(refused) => return Answer::Refused(refused),
    };
    let answer = act(context, request).await;
    let result = match &answer {
        Answer::Refused(refused) => format!("refused: {}", refused.text),
        Answer::Done(text) => text.clone(),
        Answer::Selftests(tests) => told_of(tests),
        Answer::LogLevel(_) | Answer::Status(_) => "done".to_owned(),
    };
    context.shared.desk.note(&record(caller, request, &result, Some(asked)));
    answer
}

fn record<'a>(caller: &'a Caller, request: &Request, result: &'a str, asked: Option<u64>) -> Record<'a> {
    Record::Operator(segl_audit::Operator {
        who: caller.name.as_str().into(),
        command: request.command_line().into(),
        result: result.into(),
        uid: Some(caller.uid),
        pid: caller.pid,
        asked,
    })
}

/// The record is on disk before anything is done.
async fn record_asked(context: &Context, caller: &Caller, request: &Request) -> Result<u64, Refused> {
    let unrecorded = |why: String| Refused::new(Reason::Unrecorded, format!("not done, since {why}"), JOURNAL_HINT);
    let command = request.command_line();
    tracing::info!(who = &*caller.name, uid = caller.uid, pid = caller.pid, command, "an operator's command");
    let journal = context.shared.desk.journal();
    let seq = journal.append(&record(caller, request, "asked", None)).map_err(|why| unrecorded(why.to_string()))?;
    let shared = context.shared.clone();
    let settled = tokio::task::spawn_blocking(move || shared.desk.journal().wait(seq, RECORD_LIMIT)).await;
    match settled {
        Ok(Settled::Durable) => Ok(seq),
        _ => Err(unrecorded("the journal's disk did not take its record".to_owned())),
    }
}

fn told_of(tests: &[SelfTested]) -> String {
    let count = |result| tests.iter().filter(|test| test.result == result).count();
    let [passed, failed] = [TestResult::Passed, TestResult::Failed].map(count);
    format!("{passed} passed, {failed} failed, {} neither", tests.len() - passed - failed)
}

/// What can be known before.
fn feasible(context: &Context, request: &Request) -> Result<(), Refused> {
    match request {
        Request::TokenDrain { token, force } => {
            let index = token_index(context, token)?;
            if !force {
                last_of_its_keys(context, index, token)?;
            }
        }
        Request::TokenResume { token } => {
            let index = token_index(context, token)?;
            let state = context.shared.desk.pool_snapshot().tokens[usize::from(index)].state;
            if !matches!(state, TokenState::Draining | TokenState::Drained) {
                let text = format!("{token} is not drained: it is {}", state.name());
                return Err(Refused::new(Reason::NotNow, text, "segl status says what it waits for"));
            }
        }
        Request::TokenReinit { token } | Request::PinRetry { token } => {
            token_index(context, token)?;
        }
        Request::Selftest { key: Some(key) } => {
            let cards = context.shared.keys.cards();
            if !cards.iter().any(|card| *card.entry.name == **key || *card.entry.label == **key) {
                let known = names(cards.iter().map(|card| &*card.entry.name));
                return Err(Refused::new(Reason::Unknown, format!("there is no key {key:?}"), known));
            }
        }
        Request::LogLevel { level: Some(level) } if LogLevel::of(level).is_none() => {
            let text = format!("there is no log level {level:?}");
            return Err(Refused::new(Reason::Unknown, text, names(LogLevel::ALL.iter().map(|level| level.name()))));
        }
        _ => {}
    }
    Ok(())
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<_> = names.collect();
    names.dedup();
    format!("there are: {}", names.join(", "))
}

fn token_index(context: &Context, name: &str) -> Result<u16, Refused> {
    let all = &context.shared.token_names;
    let found = all.iter().position(|token| **token == *name).and_then(|at| u16::try_from(at).ok());
    let unknown = || {
        Refused::new(Reason::Unknown, format!("there is no token {name:?}"), names(all.iter().map(|token| &**token)))
    };
    found.ok_or_else(unknown)
}

/// Keys that are granted, sign now, and would not without this token.
fn last_of_its_keys(context: &Context, token: u16, name: &str) -> Result<(), Refused> {
    let shared = &context.shared;
    let tokens = shared.desk.pool_snapshot().tokens;
    let snapshot = shared.snapshot.load();
    let granted = |key| {
        let grants = |grant: GrantView<'_>| grant.key.versions().iter().any(|version| version.id == key);
        snapshot.policy.tenants().iter().any(|tenant| tenant.grants().any(grants))
    };
    let mut lost = Vec::new();
    for card in shared.keys.cards() {
        let fit = card.fit_tokens();
        let elsewhere = |&other: &u16| other != token && tokens[usize::from(other)].state == TokenState::Ready;
        let usable = card.state(|route| shared.desk.route_usable(route)) == KeyState::Usable;
        if usable && fit.contains(token) && !fit.iter().any(|other| elsewhere(&other)) && granted(card.entry.id) {
            lost.push(card.entry.label.to_string());
        }
    }
    if lost.is_empty() {
        return Ok(());
    }
    let text = format!("without {name} nobody can sign with {}", lost.join(", "));
    Err(Refused::new(Reason::NotNow, text, "bring another token of theirs back first, or say --force"))
}

async fn act(context: &Context, request: &Request) -> Answer {
    let desk = &context.shared.desk;
    let done = |text: String| Answer::Done(text);
    // The names have been looked up before, and tokens stay as long as the process does.
    let index = |name: &str| token_index(context, name);
    match request {
        Request::Reload { wait } => reload(context, *wait).await,
        Request::TokenDrain { token, .. } => match index(token) {
            Ok(at) => {
                desk.drain_token(at);
                done(format!("{token} gets no more work, and is drained once what it has is finished"))
            }
            Err(refused) => Answer::Refused(refused),
        },
        Request::TokenResume { token } => match index(token) {
            Ok(at) => {
                desk.resume_token(at);
                done(format!("{token} logs in, and signs once its self-tests have passed"))
            }
            Err(refused) => Answer::Refused(refused),
        },
        Request::TokenReinit { token } => match index(token) {
            Ok(at) => match desk.reinitialise_token(at) {
                Ok(()) => done(format!("the module of {token} is begun anew once nobody is inside")),
                Err(obstacle) => Answer::Refused(in_the_way(context, token, obstacle)),
            },
            Err(refused) => Answer::Refused(refused),
        },
        Request::PinRetry { token } => match index(token) {
            Ok(at) => pin_retry(context, token, at).await,
            Err(refused) => Answer::Refused(refused),
        },
        Request::Selftest { key } => self_test(context, key.clone()).await,
        Request::LogLevel { level: Some(level) } => match context.levels.set(level) {
            Ok(()) => Answer::LogLevel(context.levels.now()),
            Err(why) => Answer::Refused(Refused::new(Reason::Failed, why, "")),
        },
        Request::Status {} | Request::LogLevel { level: None } => Answer::Status(Box::new(gather::status(context))),
    }
}

fn in_the_way(context: &Context, token: &str, obstacle: Obstacle) -> Refused {
    let not_now = |text: String, hint: String| Refused::new(Reason::NotNow, text, hint);
    match obstacle {
        Obstacle::NotInUse => not_now(
            format!("{token} is drained or waits for an operator, and has nobody who would do it"),
            format!("segl token resume {token}, or segl pin retry {token}"),
        ),
        Obstacle::OthersSign(others) => {
            let others: Vec<_> = others.iter().map(|other| &*context.shared.token_names[usize::from(other)]).collect();
            let others = others.join(", ");
            not_now(
                format!("{others} of the same module would have to log in again too, and signs"),
                format!("segl token drain {others} first, if you mean it"),
            )
        }
        Obstacle::Stuck => not_now(
            format!("a call is stuck inside the module of {token}: it can not be finalised"),
            "see that the HSM answers; else systemctl restart segld".to_owned(),
        ),
        Obstacle::UnderWay => not_now("it is being done already".to_owned(), "segl status".to_owned()),
    }
}

async fn reload(context: &Context, wait: bool) -> Answer {
    if !wait {
        context.reloads.want();
        return Answer::Done(
            "the configuration is read again; the log and segl status say whether it was taken".into(),
        );
    }
    let Some(told) = context.reloads.want_and_hear() else {
        let text = "too many reloads are asked for already";
        return Answer::Refused(Refused::new(Reason::Busy, text, "try again"));
    };
    match told.await {
        Ok(Ok(summary)) => Answer::Done(format!("reloaded: {summary}")),
        Ok(Err(why)) => {
            let hint = "the old configuration stays in force as a whole; segl check FILE says more";
            Answer::Refused(Refused::new(Reason::Failed, why, hint))
        }
        Err(_) => Answer::Refused(Refused::new(Reason::Failed, "segld stops", "")),
    }
}

async fn pin_retry(context: &Context, name: &str, index: u16) -> Answer {
    let token = context.tokens[usize::from(index)].clone();
    let forgotten = tokio::task::spawn_blocking(move || token.retry_pin());
    // The module may hang: then so does this thread, and nobody else.
    match tokio::time::timeout(RECORD_LIMIT, forgotten).await {
        Ok(Ok(Ok(()))) => {
            context.shared.desk.refresh(index);
            Answer::Done(format!("the PIN of {name} is tried once more"))
        }
        Ok(Ok(Err(error))) => {
            let text = format!("what {name} refused can not be forgotten: {error}");
            Answer::Refused(Refused::new(Reason::Failed, text, "see that the token is there: segl status"))
        }
        Ok(Err(_)) | Err(_) => {
            let text = format!("the module of {name} does not answer");
            Answer::Refused(Refused::new(Reason::Failed, text, "see that the HSM answers, then try again"))
        }
    }
}

/// The design's self-test: what is signed is made inside, verified and destroyed. Nothing that is asked chooses it.
async fn self_test(context: &Context, key: Option<String>) -> Answer {
    let keeper = context.keeper.clone();
    let tested = tokio::task::spawn_blocking(move || keeper.self_test(key.as_deref(), SELF_TEST_LIMIT)).await;
    match tested {
        Ok(Some(tests)) => Answer::Selftests(tests.into_iter().map(shown).collect()),
        _ => {
            let text = "the self-tests did not come to an end in time";
            Answer::Refused(Refused::new(Reason::Failed, text, "segl status shows which have"))
        }
    }
}

fn shown(tested: Tested) -> SelfTested {
    let Tested { key, token, result } = tested;
    let (signed, (result, detail)) = match result {
        Ok(test) => (test.signed, verdict(test.verdict)),
        Err(why) => (false, (TestResult::NotMade, why)),
    };
    SelfTested { key, token, result, signed, detail }
}

/// What is shown of a verdict.
pub(super) fn verdict(verdict: TestVerdict) -> (TestResult, String) {
    match verdict {
        TestVerdict::Passed => (TestResult::Passed, String::new()),
        TestVerdict::Failed(why) => (TestResult::Failed, why),
        TestVerdict::Postponed(why) => (TestResult::Postponed, why),
    }
}
