//! `segl top`: the status, live and full screen, with the keys to drain, resume and reload.
//!
//! Three threads: one asks for the status each second, one for each command that was confirmed, and the main one draws
//! and listens to the keyboard. The terminal is given back as it was found, whatever the end: a key, a signal, a panic.

mod model;
mod view;

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyEventKind},
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use self::model::{Model, News};
use super::ask::{self, Reach};
use crate::control::{Answer, Client, ClientError};

/// The status, live and full screen: rates, times and sessions of each token, what is wrong, errors as they come
///
/// Keys: up and down choose a token, d drains it, r resumes it, R reads the configuration again (each asks first), q
/// ends.
#[derive(Args)]
pub(super) struct Top {}

/// How often segld is asked.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// How long the keyboard is listened to before signals and news are looked at.
const LISTEN: Duration = Duration::from_millis(100);

pub(super) fn run(reach: &Reach, _: &Top) -> ExitCode {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        eprintln!("segl: top needs a terminal; segl status is for everything else");
        return ExitCode::FAILURE;
    }
    // What is wrong with the way to segld is told on the terminal as it is.
    if let Err(error) = reach.connect().and_then(|mut client| ask::status(&mut client, reach.limit())) {
        return ask::complain(&error);
    }
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        if let Err(error) = signal_hook::flag::register(signal, ended.clone()) {
            eprintln!("segl: signal {signal} can not be awaited: {error}");
            return ExitCode::FAILURE;
        }
    }
    let terminal = match ratatui::try_init() {
        Ok(terminal) => Restored(terminal),
        Err(error) => {
            eprintln!("segl: the terminal can not be taken over: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = live(reach, terminal, &ended);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("segl: the terminal: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The terminal, given back when it is dropped; on a panic by the hook that comes with it.
struct Restored(DefaultTerminal);

impl Drop for Restored {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

fn live(reach: &Reach, mut terminal: Restored, ended: &AtomicBool) -> io::Result<()> {
    let (tell, news) = mpsc::channel();
    let watched = (reach.socket.clone(), reach.limit(), tell.clone());
    thread::spawn(move || watch(&watched.0, watched.1, &watched.2));
    let mut model = Model::default();
    let mut stale = true;
    while !ended.load(Ordering::Relaxed) && !model.over {
        while let Ok(heard) = news.try_recv() {
            model.hear(heard);
            stale = true;
        }
        if std::mem::take(&mut stale) {
            terminal.0.draw(|frame| view::draw(frame, &model))?;
        }
        if !event::poll(LISTEN)? {
            continue;
        }
        stale = true;
        if let Event::Key(key) = event::read()?
            && key.kind == KeyEventKind::Press
            && let Some(request) = model.press(key)
        {
            let (socket, limit, tell) = (reach.socket.clone(), reach.limit(), tell.clone());
            thread::spawn(move || {
                let answer = Client::connect(&socket).and_then(|mut client| client.ask(&request, limit));
                // The main thread may be at its end.
                let _ = tell.send(News::Answered(request, said(answer)));
            });
        }
    }
    Ok(())
}

fn said(answer: Result<Answer, ClientError>) -> Result<String, ClientError> {
    match answer? {
        Answer::Done(text) => Ok(text),
        _ => Err(ClientError::Unreadable("it answers something else than was asked".into())),
    }
}

/// Asks each second, over one connection as long as it holds; ends with the main thread.
fn watch(socket: &std::path::Path, limit: Duration, tell: &Sender<News>) {
    let mut client = None;
    loop {
        let asked = Instant::now();
        let status = match client.take() {
            Some(client) => Ok(client),
            None => Client::connect(socket),
        };
        let heard = status.and_then(|mut open| {
            let status = ask::status(&mut open, limit)?;
            client = Some(open);
            Ok(status)
        });
        if tell.send(News::Status(Box::new(heard))).is_err() {
            return;
        }
        thread::sleep(ASK_EVERY.saturating_sub(asked.elapsed()));
    }
}
