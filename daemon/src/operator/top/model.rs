//! What is on the screen and what a key does, without a terminal.

use std::collections::VecDeque;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::{
    control::{ClientError, Reason, Request, Status},
    operator::paint::one_line,
};

/// Seconds of the past that are kept for the sparklines; wider than any terminal.
const HISTORY: usize = 600;

/// Errors and findings that are kept.
const EVENTS: usize = 200;

/// Everything that is shown.
#[derive(Default)]
pub(super) struct Model {
    pub(super) status: Option<Status>,
    /// Why there is no newer one
    pub(super) trouble: Option<String>,
    /// Signatures each second, the latest last
    pub(super) rates: VecDeque<u64>,
    /// The 99th percentile in microseconds, the latest last
    pub(super) p99s_us: VecDeque<u64>,
    /// What happened, the latest last
    pub(super) events: VecDeque<String>,
    /// Of the tokens
    pub(super) selected: usize,
    pub(super) question: Option<Question>,
    /// What came of the last command
    pub(super) message: Option<String>,
    pub(super) over: bool,
}

/// Something that waits for yes or no.
pub(super) struct Question {
    pub(super) text: String,
    request: Request,
}

/// What other threads tell.
pub(super) enum News {
    Status(Box<Result<Status, ClientError>>),
    Answered(Request, Result<String, ClientError>),
}

impl Model {
    pub(super) fn hear(&mut self, news: News) {
        match news {
            News::Status(heard) => match *heard {
                Ok(status) => self.seen(status),
                Err(error) => {
                    let why = one_line(&error.to_string());
                    if self.trouble.as_ref() != Some(&why) {
                        self.happened(why.clone());
                    }
                    self.trouble = Some(why);
                }
            },
            News::Answered(_, Ok(text)) => self.message = Some(one_line(&text)),
            // The last of its keys' tokens: that is worth a second question.
            News::Answered(Request::TokenDrain { token, force: false }, Err(ClientError::Refused(refused)))
                if refused.reason == Reason::NotNow =>
            {
                let text = format!("{}. Drain it all the same?", one_line(&refused.text));
                self.question = Some(Question { text, request: Request::TokenDrain { token, force: true } });
            }
            News::Answered(_, Err(error)) => self.message = Some(one_line(&error.to_string())),
        }
    }

    fn seen(&mut self, status: Status) {
        let before = self.status.take();
        // What was wrong before is no news.
        let old = |what: &str| before.iter().flat_map(|status| &status.findings).any(|finding| finding.what == what);
        let findings = status.findings.iter().filter(|finding| !old(&finding.what));
        let mut events: Vec<_> =
            findings.map(|finding| format!("{}  {}", clock(&status.daemon.time), one_line(&finding.what))).collect();
        for token in &status.tokens {
            let last = |status: &Status| {
                let token = status.tokens.iter().find(|other| other.name == token.name);
                token.and_then(|token| token.last_error.clone())
            };
            if let Some(error) = &token.last_error
                && before.as_ref().and_then(last).as_ref() != Some(error)
            {
                events.push(format!("{}  {}: {}", clock(&error.time), token.name, one_line(&error.text)));
            }
        }
        events.into_iter().for_each(|event| self.happened(event));
        push(&mut self.rates, status.requests.signatures_per_s.round() as u64, HISTORY);
        push(&mut self.p99s_us, status.requests.p99_us.unwrap_or_default(), HISTORY);
        self.selected = self.selected.min(status.tokens.len().saturating_sub(1));
        self.trouble = None;
        self.status = Some(status);
    }

    fn happened(&mut self, event: String) {
        push(&mut self.events, event, EVENTS);
    }

    /// A key was pressed; what is to be asked of segld now.
    pub(super) fn press(&mut self, key: KeyEvent) -> Option<Request> {
        let ends = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
        if let (Some(question), false) = (self.question.take(), ends) {
            return match key.code {
                KeyCode::Char('y' | 'Y') => {
                    self.message = Some("asked".into());
                    Some(question.request)
                }
                _ => {
                    self.message = Some("not done".into());
                    None
                }
            };
        }
        let tokens = self.status.as_ref().map_or(0, |status| status.tokens.len());
        match key.code {
            _ if ends => self.over = true,
            KeyCode::Char('q') | KeyCode::Esc => self.over = true,
            KeyCode::Up | KeyCode::Char('k') => self.selected = self.selected.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.selected = (self.selected + 1).min(tokens.saturating_sub(1)),
            KeyCode::Char('d') => self.ask_of_token("Drain", |token| Request::TokenDrain { token, force: false }),
            KeyCode::Char('r') => self.ask_of_token("Resume", |token| Request::TokenResume { token }),
            KeyCode::Char('R') => {
                let text = "Read the configuration again?".to_owned();
                self.question = Some(Question { text, request: Request::Reload { wait: true } });
            }
            _ => {}
        }
        None
    }

    fn ask_of_token(&mut self, verb: &str, request: impl FnOnce(String) -> Request) {
        let Some(token) = self.status.as_ref().and_then(|status| status.tokens.get(self.selected)) else { return };
        let text = format!("{verb} token {}?", token.name);
        self.question = Some(Question { text, request: request(token.name.clone()) });
    }
}

fn push<T>(queue: &mut VecDeque<T>, value: T, most: usize) {
    if queue.len() >= most {
        queue.pop_front();
    }
    queue.push_back(value);
}

/// The time of day in a time.
fn clock(time: &str) -> &str {
    time.get(11..19).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Refused, status::examples::degraded};

    fn press(model: &mut Model, key: char) -> Option<Request> {
        model.press(KeyEvent::new(KeyCode::Char(key), KeyModifiers::NONE))
    }

    fn model() -> Model {
        let mut model = Model::default();
        model.hear(News::Status(Box::new(Ok(degraded()))));
        model
    }

    #[test]
    fn nothing_is_done_before_it_is_confirmed() {
        let mut model = model();
        assert_eq!(press(&mut model, 'j'), None);
        assert_eq!(press(&mut model, 'd'), None);
        assert_eq!(model.question.as_ref().unwrap().text, "Drain token hsm-b?");
        assert_eq!(press(&mut model, 'n'), None);
        assert!(model.question.is_none() && !model.over);
        press(&mut model, 'r');
        assert_eq!(press(&mut model, 'y'), Some(Request::TokenResume { token: "hsm-b".into() }));
        press(&mut model, 'R');
        assert_eq!(press(&mut model, 'q'), None, "that is no yes, and no end either");
        assert!(!model.over);
        press(&mut model, 'q');
        assert!(model.over);
    }

    #[test]
    fn a_drain_that_would_leave_keys_without_a_token_is_asked_for_twice() {
        let mut model = model();
        let request = Request::TokenDrain { token: "hsm-a".into(), force: false };
        let refused = Refused::new(Reason::NotNow, "without hsm-a nobody can sign with login", "");
        model.hear(News::Answered(request, Err(ClientError::Refused(refused))));
        assert!(model.question.as_ref().unwrap().text.contains("nobody can sign with login. Drain it all the same?"));
        assert_eq!(press(&mut model, 'y'), Some(Request::TokenDrain { token: "hsm-a".into(), force: true }));
    }

    #[test]
    fn what_is_new_is_an_event_and_what_stays_is_not() {
        let mut model = model();
        let before = model.events.len();
        model.hear(News::Status(Box::new(Ok(degraded()))));
        assert_eq!(model.events.len(), before);
        let mut worse = degraded();
        worse.findings[0].what = "token hsm-a is away".into();
        model.hear(News::Status(Box::new(Ok(worse))));
        assert!(model.events.back().unwrap().contains("token hsm-a is away"));
        for _ in 0..2 {
            let error = ClientError::Unreadable("x".into());
            model.hear(News::Status(Box::new(Err(error))));
        }
        assert_eq!(model.events.len(), before + 2, "a trouble that lasts is one");
        assert!(model.status.is_some(), "the last that was seen stays on the screen");
    }
}
