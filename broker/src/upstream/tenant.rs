//! A tenant's roads: which `segld` gets a request, and when another one is asked.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use segl_wire::{self as wire, KeyState};
use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
    time::{Instant, sleep, timeout},
};

use super::{
    ask::{Ask, Items, Outcome, What},
    segld::{Failure, Segld, Signature, Wait},
};
use crate::problem::Code;

/// Tries of one request in all: enough to pass a draining and a failing `segld`, few enough that a failure common to
/// all does not multiply the load.
const TRIES_MAX: usize = 3;

/// A try with less time than this is not made: it would only end as unknown.
const TRY_MIN: Duration = Duration::from_millis(5);

/// How long a request waits for some `segld` to become ready, when none is: it bridges a reconnection, no outage.
const READY_WAIT_MAX: Duration = Duration::from_millis(500);

/// How long a `segld` that failed is ranked behind the others when it names no time; each failure after that doubles it.
const AVOID_MIN: Duration = Duration::from_secs(1);

/// The longest it is ranked behind.
const AVOID_MAX: Duration = Duration::from_secs(10);

/// A look at the keys is asked for early at most this often.
const REFRESH_PAUSE: Duration = Duration::from_millis(100);

/// One tenant and all its roads.
#[derive(Debug)]
pub struct Tenant {
    /// Its name
    pub name: String,
    members: Vec<Arc<Member>>,
    /// Where the search for the least busy begins, so that equals take turns
    turn: AtomicUsize,
}

/// One road and what was last seen of the keys behind it. The keys are looked at for as long as it lives.
#[derive(Debug)]
pub struct Member {
    /// The name of the `segld`
    pub name: String,
    /// The road
    pub segld: Arc<dyn Segld>,
    view: watch::Receiver<Option<Arc<View>>>,
    look: Arc<Notify>,
    refresh: Duration,
    watching: AbortHandle,
    setback: Mutex<Setback>,
}

/// What a road's last failures mean for the next request: who fails fast is never busy, and would draw everything.
#[derive(Debug, Default)]
struct Setback {
    /// Others come first until then
    until: Option<Instant>,
    /// How long the last one was; zero after a success
    pause: Duration,
}

#[derive(Debug)]
struct View {
    at: Instant,
    keys: BTreeMap<String, wire::Key<'static>>,
}

/// A key as one `segld` shows it.
#[derive(Clone, Debug)]
pub struct SeenKey {
    /// The name of the `segld`
    pub segld: String,
    /// What it says
    pub key: wire::Key<'static>,
}

/// Who was asked for one request.
#[derive(Debug, Default)]
struct Asked {
    members: Vec<usize>,
    /// The last one was never sent it
    not_sent: bool,
    /// The last one's next connection was waited for
    waited: bool,
}

impl Asked {
    fn tries(&self) -> u32 {
        self.members.len() as u32
    }
}

impl Tenant {
    /// With its roads.
    pub fn new(name: String, members: Vec<Arc<Member>>) -> Self {
        Self { name, members, turn: AtomicUsize::new(0) }
    }

    /// Its roads.
    pub fn members(&self) -> &[Arc<Member>] {
        &self.members
    }

    /// Whether any road is open.
    pub fn is_ready(&self) -> bool {
        self.members.iter().any(|member| member.segld.is_ready())
    }

    /// Waits until the keys behind some road were seen, at most so long.
    pub async fn wait_seen(&self, limit: Duration) -> bool {
        let seen = self.members.iter().map(|member| Box::pin(member.seen()) as Wait<'_>);
        timeout(limit, first(seen.collect())).await.is_ok()
    }

    /// One signature, or one document with its signature.
    pub async fn sign(&self, ask: &Ask, what: &What<'_>) -> Outcome<Result<Signature, Failure>> {
        let mut asked = Asked::default();
        let mut last = None;
        while let Some(member) = self.next(ask, &mut asked).await {
            match ask.one(&*member.segld, what).await {
                Ok(signature) => {
                    member.clear();
                    return Outcome { result: Ok(signature), tries: asked.tries() };
                }
                Err(failure) => {
                    member.heed(&failure);
                    asked.not_sent = failure.not_sent;
                    let again = failure.may_go_elsewhere(ask.repeatable);
                    last = Some(worse(last, failure));
                    if !again {
                        break;
                    }
                }
            }
        }
        Outcome { result: Err(last.unwrap_or_else(|| self.nobody(ask))), tries: asked.tries() }
    }

    /// Many signatures with one key. Only the items that another `segld` may be asked for are asked again.
    pub async fn sign_batch(&self, ask: &Ask, items: &Items<'_>) -> Outcome<Vec<Result<Signature, Failure>>> {
        let mut asked = Asked::default();
        let mut results: Vec<Option<Result<Signature, Failure>>> = vec![None; items.len()];
        let mut open: Vec<usize> = (0..items.len()).collect();
        while !open.is_empty() {
            let Some(member) = self.next(ask, &mut asked).await else { break };
            let answers = match ask.many(&*member.segld, items, &open).await {
                Ok(answers) if answers.len() == open.len() => answers,
                Ok(_) => {
                    let detail = "segld answered another number of items than it was asked for";
                    vec![Err(Failure::unanswered(Code::UpstreamProtocol, detail)); open.len()]
                }
                Err(failure) => vec![Err(failure); open.len()],
            };
            // One setback for one request, however many items it had.
            match answers.iter().find_map(|answer| answer.as_ref().err().filter(|failure| failure.sets_back())) {
                Some(failure) => member.heed(failure),
                None if answers.iter().any(Result::is_ok) => member.clear(),
                None => {}
            }
            asked.not_sent = answers.iter().all(|answer| answer.as_ref().is_err_and(|failure| failure.not_sent));
            let mut again = Vec::new();
            for (at, answer) in open.into_iter().zip(answers) {
                let earlier = results[at].take().and_then(Result::err);
                results[at] = Some(answer.map_err(|failure| {
                    if failure.may_go_elsewhere(ask.repeatable) {
                        again.push(at);
                    }
                    worse(earlier, failure)
                }));
            }
            open = again;
        }
        let result = results.into_iter().map(|result| result.unwrap_or_else(|| Err(self.nobody(ask)))).collect();
        Outcome { result, tries: asked.tries() }
    }

    /// The keys as last seen, by name, each as every `segld` shows it; `None` while nothing is known.
    pub fn keys(&self) -> Option<BTreeMap<String, Vec<SeenKey>>> {
        let mut all: BTreeMap<String, Vec<SeenKey>> = BTreeMap::new();
        let mut seen = false;
        for member in &self.members {
            let Some(view) = member.fresh() else { continue };
            seen = true;
            for (name, key) in &view.keys {
                let seen = SeenKey { segld: member.name.clone(), key: key.clone() };
                all.entry(name.clone()).or_default().push(seen);
            }
        }
        seen.then_some(all)
    }

    /// How many signatures the roads that are open take at once; 0 while that is not known.
    pub fn capacity(&self) -> usize {
        let open = self.members.iter().filter(|member| member.segld.is_ready());
        open.map(|member| member.segld.capacity()).sum()
    }

    /// A key as every `segld` shows it that is connected; else as the last one showed it; and when that was.
    pub fn last_seen(&self, key: &str) -> Option<(Instant, Vec<wire::Key<'static>>)> {
        let of = |view: &Arc<View>| Some((view.at, view.keys.get(key)?.clone()));
        let fresh: Vec<_> = self.members.iter().filter_map(|member| of(&member.fresh()?)).collect();
        if let Some(at) = fresh.iter().map(|(at, _)| *at).min() {
            return Some((at, fresh.into_iter().map(|(_, key)| key).collect()));
        }
        let stale = self.members.iter().filter_map(|member| of(member.view.borrow().as_ref()?));
        stale.max_by_key(|(at, _)| *at).map(|(at, key)| (at, vec![key]))
    }

    /// The best `segld` not asked yet: ready, its key usable as far as known, not failing, the least busy. `None` when
    /// there is none or no time or tries are left.
    ///
    /// When the last one was never sent the request, as by a connection that is just leaving, and nobody else is
    /// there, its next connection is waited for, once.
    async fn next(&self, ask: &Ask, asked: &mut Asked) -> Option<&Member> {
        if asked.members.len() >= TRIES_MAX || ask.left() < TRY_MIN {
            return None;
        }
        if asked.members.is_empty() && !self.is_ready() {
            let ready = self.members.iter().map(|member| member.segld.ready()).collect();
            let _ = timeout(ask.left().min(READY_WAIT_MAX), first(ready)).await;
        }
        let best = match self.best(&ask.key, &asked.members) {
            Some(best) => best,
            None if asked.not_sent && !asked.waited => {
                asked.waited = true;
                let last = *asked.members.last()?;
                timeout(ask.left().min(READY_WAIT_MAX), self.members[last].segld.ready()).await.ok()?;
                if ask.left() < TRY_MIN {
                    return None;
                }
                last
            }
            None => return None,
        };
        asked.members.push(best);
        Some(&self.members[best])
    }

    fn best(&self, key: &str, asked: &[usize]) -> Option<usize> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let count = self.members.len();
        (0..count)
            .map(|step| turn.wrapping_add(step) % count)
            .filter(|at| !asked.contains(at) && self.members[*at].segld.is_ready())
            .min_by_key(|at| {
                let member = &self.members[*at];
                (member.doubt(key), member.is_set_back(), member.segld.in_flight())
            })
    }

    fn nobody(&self, ask: &Ask) -> Failure {
        if ask.left() < TRY_MIN {
            let detail = "the deadline passed before a segld could be asked";
            return Failure { code: Code::Expired, ..Failure::not_sent(detail) };
        }
        Failure::not_sent(format!("none of the {} segld can be reached now", self.members.len()))
    }
}

/// Until one of them is done.
async fn first(mut waits: Vec<Wait<'_>>) {
    poll_fn(|context| {
        let done = waits.iter_mut().any(|wait| wait.as_mut().poll(context).is_ready());
        if done { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// What a request that failed twice is reported as: once it may have been signed, it stays so.
fn worse(earlier: Option<Failure>, latest: Failure) -> Failure {
    match earlier {
        Some(earlier) if earlier.signed == crate::problem::Signed::Unknown => {
            Failure { signed: earlier.signed, ..latest }
        }
        _ => latest,
    }
}

impl Member {
    /// A road whose keys are looked at every `refresh`, and soon after a failure that speaks of them.
    pub fn start(name: String, segld: Arc<dyn Segld>, refresh: Duration) -> Arc<Self> {
        let (sender, view) = watch::channel(None);
        let look = Arc::new(Notify::new());
        let task = tokio::spawn(watch_keys(name.clone(), segld.clone(), sender, look.clone(), refresh));
        Arc::new(Self { name, segld, view, look, refresh, watching: task.abort_handle(), setback: Mutex::default() })
    }

    /// Comes back when the keys were seen for the first time.
    pub async fn seen(&self) {
        // The sender is held by the task that looks, and that lives as long as the member.
        let _ = self.view.clone().wait_for(Option::is_some).await;
    }

    /// How many keys can sign there, of how many; `None` while nothing fresh is known.
    pub fn key_counts(&self) -> Option<(usize, usize)> {
        let view = self.fresh()?;
        Some((view.keys.values().filter(|key| key.state == KeyState::Usable).count(), view.keys.len()))
    }

    /// What was seen, unless it is too old: three rounds missed.
    fn fresh(&self) -> Option<Arc<View>> {
        let view = self.view.borrow().clone()?;
        (view.at.elapsed() <= self.refresh * 3 && self.segld.is_ready()).then_some(view)
    }

    /// 0: the key can sign there; 1: nobody knows; 2: it cannot, as far as seen. A `segld` in doubt is still asked
    /// when there is no better, since its own answer is newer than what was seen.
    fn doubt(&self, key: &str) -> u8 {
        match self.fresh() {
            None => 1,
            Some(view) => match view.keys.get(key) {
                Some(key) if key.state == KeyState::Usable => 0,
                _ => 2,
            },
        }
    }

    /// What a failure says about the keys' states is looked at soon, and one that is not the request's own puts this
    /// road behind the others for a while.
    fn heed(&self, failure: &Failure) {
        if matches!(failure.code, Code::KeyUnavailable | Code::KeyRefused | Code::TokenFailed) {
            self.look.notify_one();
        }
        if !failure.sets_back() {
            return;
        }
        let now = Instant::now();
        let mut setback = self.setback();
        // Requests that were in flight together fail together: they count as one.
        if setback.until.is_some_and(|until| now < until) {
            return;
        }
        let named = failure.retry_after_ms.map_or(AVOID_MIN, |ms| Duration::from_millis(ms.into()));
        setback.pause = named.max(setback.pause * 2).min(AVOID_MAX);
        setback.until = Some(now + setback.pause);
    }

    /// It signed: nothing speaks against it any more.
    fn clear(&self) {
        *self.setback() = Setback::default();
    }

    fn is_set_back(&self) -> bool {
        self.setback().until.is_some_and(|until| Instant::now() < until)
    }

    fn setback(&self) -> MutexGuard<'_, Setback> {
        self.setback.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

async fn watch_keys(
    name: String,
    segld: Arc<dyn Segld>,
    view: watch::Sender<Option<Arc<View>>>,
    look: Arc<Notify>,
    refresh: Duration,
) {
    loop {
        segld.ready().await;
        match segld.list_keys(refresh).await {
            Ok(keys) => {
                let keys = keys.into_iter().map(|key| (key.name.clone().into_owned(), key)).collect();
                view.send_replace(Some(Arc::new(View { at: Instant::now(), keys })));
            }
            Err(failure) => tracing::debug!(segld = name, detail = failure.detail, "keys could not be listed"),
        }
        sleep(refresh.min(REFRESH_PAUSE)).await;
        let _ = timeout(refresh.saturating_sub(REFRESH_PAUSE), look.notified()).await;
    }
}
