//! `Idempotency-Key`: the same request asked twice is answered once (draft-ietf-httpapi-idempotency-key-header-07).
//!
//! A key belongs to its caller and to the request it first came with. Its answer is kept for a window from the first
//! request, and whoever comes while the first is being answered waits for the same answer. A definite failure (nothing
//! signed) is not kept, so that it can be tried again; an unknown outcome is. Answers are never thrown out early, and
//! no key before its answer came: when there is no room, new keys are refused. All of it lives in this process alone.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::body::Bytes;
use ring::digest::{Context, SHA256};
use tokio::{sync::watch, time::Instant};

use crate::problem::{Code, Problem, Retry, Signed};

/// Longest key, in bytes: a UUID has 36.
pub const KEY_MAX: usize = 128;

/// What an entry weighs beside its answer, in bytes: key, caller, fingerprint, reference, table.
const ENTRY_BYTES: usize = 640;

/// Ends of entries removed early are swept when they outnumber the others by this.
const ENDS_SLACK: usize = 64;

/// The answers kept.
#[derive(Debug)]
pub struct Idempotency {
    window: Duration,
    entries_per_caller: usize,
    bytes_max: usize,
    kept: Mutex<Kept>,
}

/// Everything here is guarded by one lock, held for table look-ups only.
#[derive(Debug, Default)]
struct Kept {
    entries: HashMap<Scope, Entry>,
    /// In the order in which they end: the window is the same for all. The number tells an entry from a later one
    /// under the same key.
    ends: VecDeque<(Instant, u64, Scope)>,
    per_caller: HashMap<Arc<str>, usize>,
    bytes: usize,
    next_number: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Scope {
    caller: Arc<str>,
    key: Arc<str>,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    fingerprint: Fingerprint,
    reference: Arc<str>,
    answer: watch::Receiver<Option<Settled>>,
    bytes: usize,
}

type Settled = Arc<Answer>;

/// SHA-256 of what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of an operation and a body.
    pub fn new(operation: &str, body: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(operation.as_bytes());
        context.update(&[0]);
        context.update(body);
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(context.finish().as_ref());
        Self(fingerprint)
    }
}

/// An answer as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 200 and this JSON
    Success(Bytes),
    /// 200 and this JSON, in which nothing was signed for certain
    NothingSigned(Bytes),
    /// A problem
    Failure(Box<Problem>),
}

impl Answer {
    fn is_kept(&self) -> bool {
        match self {
            Answer::Success(_) => true,
            Answer::NothingSigned(_) => false,
            Answer::Failure(problem) => problem.signed == Signed::Unknown,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Answer::Success(body) | Answer::NothingSigned(body) => body.len(),
            Answer::Failure(problem) => problem.detail.len(),
        }
    }
}

/// What to do with a request that carries a key.
#[derive(Debug)]
pub enum Turn {
    /// It is the first: answer it, and say so to the ticket
    First(Ticket),
    /// It was asked before: this is, or will be, the answer
    Again(Earlier),
}

/// The right, and the duty, to answer the first request with a key. Dropped without an answer, the outcome is unknown.
#[derive(Debug)]
pub struct Ticket {
    store: Arc<Idempotency>,
    scope: Scope,
    number: u64,
    reference: Arc<str>,
    sender: watch::Sender<Option<Settled>>,
}

/// The answer to the first request with this key.
#[derive(Debug)]
pub struct Earlier {
    /// Under which the first request is recorded
    pub reference: Arc<str>,
    answer: watch::Receiver<Option<Settled>>,
}

impl Idempotency {
    /// Keeps answers for `window`, so many for each caller, so many bytes in all (exceeded at most by the answers
    /// in flight when it is reached).
    pub fn new(window: Duration, entries_per_caller: usize, bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { window, entries_per_caller, bytes_max, kept: Mutex::default() })
    }

    /// How long an answer is kept.
    pub fn window(&self) -> Duration {
        self.window
    }

    /// Looks a key up and, when it is new, takes it for the request recorded under `reference`.
    pub fn begin(
        self: &Arc<Self>,
        caller: &str,
        key: &str,
        fingerprint: Fingerprint,
        reference: &str,
    ) -> Result<Turn, Problem> {
        let scope = Scope { caller: caller.into(), key: key.into() };
        let now = Instant::now();
        let mut kept = self.lock();
        kept.expire(now, self.window);
        if let Some(entry) = kept.entries.get(&scope) {
            if entry.fingerprint != fingerprint {
                return Err(Problem::new(
                    Code::IdempotencyMismatch,
                    "the key belongs to the request it first came with; a new request needs a new key",
                ));
            }
            return Ok(Turn::Again(Earlier { reference: entry.reference.clone(), answer: entry.answer.clone() }));
        }
        let until_room = || {
            let end = kept.ends.front().map_or(now, |(end, ..)| *end);
            u32::try_from(end.saturating_duration_since(now).as_millis()).ok()
        };
        if kept.per_caller.get(&scope.caller).is_some_and(|count| *count >= self.entries_per_caller) {
            let detail = format!(
                "{} keys within {} s are kept for a caller, and all are taken",
                self.entries_per_caller,
                self.window.as_secs()
            );
            return Err(Problem {
                retry: Retry::Here,
                retry_after_ms: until_room(),
                ..Problem::new(Code::IdempotencyFull, detail)
            });
        }
        if kept.bytes + ENTRY_BYTES > self.bytes_max {
            let detail = "the memory for kept answers is full; nothing was signed";
            return Err(Problem::passing(Code::IdempotencyUnavailable, detail, until_room()));
        }
        let (sender, answer) = watch::channel(None);
        let number = kept.next_number;
        kept.next_number += 1;
        kept.bytes += ENTRY_BYTES;
        *kept.per_caller.entry(scope.caller.clone()).or_default() += 1;
        kept.ends.push_back((now + self.window, number, scope.clone()));
        let reference: Arc<str> = reference.into();
        let entry = Entry { number, fingerprint, reference: reference.clone(), answer, bytes: ENTRY_BYTES };
        kept.entries.insert(scope.clone(), entry);
        Ok(Turn::First(Ticket { store: self.clone(), scope, number, reference, sender }))
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Kept {
    fn expire(&mut self, now: Instant, window: Duration) {
        while let Some((_, number, scope)) = self.ends.pop_front_if(|(end, ..)| *end <= now) {
            let entry = self.entries.get(&scope).filter(|entry| entry.number == number);
            if entry.is_some_and(|entry| entry.answer.borrow().is_none()) {
                // Forgotten before its answer, the key would sign a second time: it gets another window.
                self.ends.push_back((now + window, number, scope));
            } else {
                self.remove(&scope, number);
            }
        }
    }

    fn remove(&mut self, scope: &Scope, number: u64) {
        if self.entries.get(scope).is_none_or(|entry| entry.number != number) {
            return;
        }
        let Some(entry) = self.entries.remove(scope) else { return };
        self.bytes -= entry.bytes;
        if let Some(count) = self.per_caller.get_mut(&scope.caller) {
            *count -= 1;
            if *count == 0 {
                self.per_caller.remove(&scope.caller);
            }
        }
        if self.ends.len() > 2 * self.entries.len() + ENDS_SLACK {
            let entries = &self.entries;
            self.ends.retain(|(_, number, scope)| entries.get(scope).is_some_and(|entry| entry.number == *number));
        }
    }
}

impl Ticket {
    /// The answer, for everyone who waits and, unless it is a definite failure, for everyone who asks later.
    pub fn answer(self, answer: Answer) -> Arc<Answer> {
        let answer = Arc::new(answer);
        self.settle(answer.clone());
        answer
    }

    fn settle(&self, answer: Arc<Answer>) {
        let mut kept = self.store.lock();
        if answer.is_kept() {
            if let Some(entry) = kept.entries.get_mut(&self.scope).filter(|entry| entry.number == self.number) {
                entry.bytes += answer.bytes();
                kept.bytes += answer.bytes();
            }
        } else {
            kept.remove(&self.scope, self.number);
        }
        drop(kept);
        self.sender.send_replace(Some(answer));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.sender.borrow().is_none() {
            let detail = "the first request with this key ended without an answer";
            let problem = Problem { signed: Signed::Unknown, ..Problem::passing(Code::Internal, detail, None) };
            self.settle(Arc::new(Answer::Failure(Box::new(problem.with_reference(&*self.reference)))));
        }
    }
}

impl Earlier {
    /// Waits for it.
    pub async fn wait(mut self) -> Arc<Answer> {
        match self.answer.wait_for(Option::is_some).await {
            Ok(answer) => answer.clone().expect("waited for an answer that is there"),
            Err(_) => unreachable!("a ticket answers before its sender is dropped"),
        }
    }
}

/// The key in an `Idempotency-Key` header: a string in double quotes (RFC 8941 §3.3.3) or, as many clients send it,
/// bare. 1 to [`KEY_MAX`] printable ASCII characters.
pub fn parse_key(header: &[u8]) -> Result<&str, Problem> {
    let text = std::str::from_utf8(header).unwrap_or_default().trim();
    let quoted = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let key = quoted.unwrap_or(text);
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    if key.is_empty() || key.len() > KEY_MAX || !key.bytes().all(plain) {
        let detail = "it must be 1 to 128 printable ASCII characters without quotes, backslashes and spaces";
        return Err(Problem::new(Code::BadIdempotencyKey, detail));
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(600);

    fn store() -> Arc<Idempotency> {
        Idempotency::new(WINDOW, 2, 1 << 20)
    }

    fn fingerprint(body: &str) -> Fingerprint {
        Fingerprint::new("sign", body.as_bytes())
    }

    fn first(store: &Arc<Idempotency>, caller: &str, key: &str) -> Ticket {
        match store.begin(caller, key, fingerprint("body"), "r-1") {
            Ok(Turn::First(ticket)) => ticket,
            other => panic!("expected to be the first: {other:?}"),
        }
    }

    async fn again(store: &Arc<Idempotency>, key: &str) -> Answer {
        match store.begin("a", key, fingerprint("body"), "r-1") {
            Ok(Turn::Again(earlier)) => (*earlier.wait().await).clone(),
            other => panic!("expected to come again: {other:?}"),
        }
    }

    fn success() -> Answer {
        Answer::Success(Bytes::from_static(b"{}"))
    }

    fn refusal(result: Result<Turn, Problem>) -> Code {
        result.expect_err("it is refused").code
    }

    #[tokio::test]
    async fn the_second_gets_the_answer_of_the_first() {
        let store = store();
        first(&store, "a", "k").answer(success());
        assert_eq!(again(&store, "k").await, success());
    }

    #[tokio::test]
    async fn who_comes_meanwhile_waits_for_the_same_answer() {
        let store = store();
        let ticket = first(&store, "a", "k");
        let (answer, _) = tokio::join!(again(&store, "k"), async { ticket.answer(success()) });
        assert_eq!(answer, success());
    }

    #[tokio::test]
    async fn another_body_is_refused_and_another_caller_is_a_stranger() {
        let store = store();
        first(&store, "a", "k").answer(success());
        assert_eq!(refusal(store.begin("a", "k", fingerprint("other"), "r-1")), Code::IdempotencyMismatch);
        assert_eq!(refusal(store.begin("a", "k", Fingerprint::new("keys", b"body"), "r-1")), Code::IdempotencyMismatch);
        first(&store, "b", "k").answer(success());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_kept_for_the_window_and_no_longer() {
        let store = store();
        first(&store, "a", "k").answer(success());
        tokio::time::advance(WINDOW - Duration::from_millis(1)).await;
        assert_eq!(again(&store, "k").await, success());
        tokio::time::advance(Duration::from_millis(1)).await;
        first(&store, "a", "k").answer(success());
        assert_eq!(store.lock().bytes, ENTRY_BYTES + 2);
    }

    #[tokio::test]
    async fn a_definite_failure_may_be_tried_again_and_an_unknown_one_is_kept() {
        let store = store();
        let definite = Answer::Failure(Box::new(Problem::new(Code::Overloaded, "full")));
        first(&store, "a", "k").answer(definite);
        let unknown = Problem { signed: Signed::Unknown, ..Problem::new(Code::AnswerLost, "lost") };
        first(&store, "a", "k").answer(Answer::Failure(Box::new(unknown.clone())));
        assert_eq!(again(&store, "k").await, Answer::Failure(Box::new(unknown)));
    }

    #[tokio::test]
    async fn a_first_request_that_vanishes_leaves_an_unknown_outcome() {
        let store = store();
        drop(first(&store, "a", "k"));
        let Answer::Failure(problem) = again(&store, "k").await else { panic!("nothing was signed") };
        assert_eq!((problem.signed, problem.reference.as_deref()), (Signed::Unknown, Some("r-1")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_without_an_answer_outlives_the_window() {
        let store = store();
        let ticket = first(&store, "a", "k");
        tokio::time::advance(WINDOW * 3).await;
        let (answer, _) = tokio::join!(again(&store, "k"), async { ticket.answer(success()) });
        assert_eq!(answer, success());
        tokio::time::advance(WINDOW).await;
        first(&store, "a", "k").answer(success());
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_store_refuses_and_throws_nothing_out() {
        let store = store();
        first(&store, "a", "1").answer(success());
        first(&store, "a", "2").answer(success());
        let problem = store.begin("a", "3", fingerprint("body"), "r-1").expect_err("full");
        assert_eq!((problem.code, problem.retry_after_ms), (Code::IdempotencyFull, Some(600_000)));
        first(&store, "b", "3").answer(success());
        assert_eq!(again(&store, "1").await, success());
        tokio::time::advance(WINDOW).await;
        first(&store, "a", "3").answer(success());
    }

    #[tokio::test]
    async fn bytes_are_limited_too_and_given_back() {
        let store = Idempotency::new(WINDOW, 100, ENTRY_BYTES * 2);
        let (one, two) = (first(&store, "a", "1"), first(&store, "a", "2"));
        assert_eq!(refusal(store.begin("a", "3", fingerprint("body"), "r-1")), Code::IdempotencyUnavailable);
        for ticket in [one, two] {
            ticket.answer(Answer::Failure(Box::new(Problem::new(Code::Overloaded, "full"))));
        }
        assert_eq!(store.lock().bytes, 0);
        first(&store, "a", "3").answer(success());
    }

    #[tokio::test]
    async fn failures_leave_nothing_behind() {
        let store = store();
        for _ in 0..1_000 {
            first(&store, "a", "k").answer(Answer::Failure(Box::new(Problem::new(Code::Overloaded, "full"))));
        }
        let kept = store.lock();
        assert!(kept.ends.len() <= ENDS_SLACK + 2 && kept.entries.is_empty() && kept.per_caller.is_empty());
    }

    #[test]
    fn a_key_is_quoted_or_bare_and_never_strange() {
        assert_eq!(parse_key(b"\"8e03978e-40d5\"").unwrap(), "8e03978e-40d5");
        assert_eq!(parse_key(b" 8e03978e ").unwrap(), "8e03978e");
        let long = "k".repeat(KEY_MAX + 1);
        for bad in [&b""[..], b"\"\"", b"a b", b"\"a", b"a\\b", b"\xc3\xa6", b"\xff", long.as_bytes()] {
            assert!(parse_key(bad).is_err(), "{bad:?}");
        }
    }
}
