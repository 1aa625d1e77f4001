//! What the pool costs beside the token: jobs through queue, session thread and inbox, with a token that does nothing.

use std::sync::{Arc, Condvar, Mutex};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use segl_hsm::{Algorithm, Error, Input, KeyId, KeyReport, KeySpec, ModuleId, Result, Session, Signature, Token};
use segl_pool::{
    Class, Completion, Config, Inbox, Job, Observer, Pool, RouteId, TokenSet, TokenSetup, Work, core::Alarm,
};

/// A token that signs nothing, at once.
struct NoOpToken;

struct NoOpSession;

impl Token for NoOpToken {
    fn name(&self) -> &str {
        "no-op"
    }

    fn module(&self) -> ModuleId {
        ModuleId(0)
    }

    fn add_keys(&self, _: &[KeySpec]) {}

    fn open(&self) -> Result<Box<dyn Session>> {
        Ok(Box::new(NoOpSession))
    }

    fn reinitialise(&self) -> Result<()> {
        Ok(())
    }
}

impl Session for NoOpSession {
    fn login(&mut self) -> Result<Vec<KeyReport>> {
        Ok(Vec::new())
    }

    fn sign(&mut self, _: KeyId, _: Algorithm, _: &Input, out: &mut Signature) -> Result<()> {
        out.clear();
        out.resize(64, 0);
        Ok(())
    }

    fn presence(&mut self, _: KeyId) -> Result<()> {
        Ok(())
    }

    fn keep_alive(&mut self) -> Result<()> {
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

#[derive(Default)]
struct Counting {
    came: Mutex<usize>,
    changed: Condvar,
}

impl Inbox for Counting {
    fn deliver(&self, completions: &mut Vec<Completion>) {
        assert!(completions.iter().all(|completion| completion.result.is_ok()), "a no-op token refuses nothing");
        *self.came.lock().expect("no bench panics with it") += completions.len();
        completions.clear();
        self.changed.notify_one();
    }
}

impl Counting {
    fn wait_for(&self, many: usize) {
        let came = self.came.lock().expect("no bench panics with it");
        *self.changed.wait_while(came, |came| *came < many).expect("no bench panics with it") -= many;
    }
}

struct Silent;

impl Observer for Silent {
    fn token_logged_in(&self, _: u16, _: Vec<KeyReport>) {}
    fn session_lost(&self, _: u16, _: &Error) {}
    fn alarm(&self, _: &Alarm) {}
}

fn driver(criterion: &mut Criterion) {
    let inbox: Arc<Counting> = Arc::default();
    let tokens = vec![TokenSetup::new(Arc::new(NoOpToken), 2)];
    let pool = Pool::start(Config::default(), tokens, vec![inbox.clone()], Arc::new(Silent)).expect("threads");
    pool.set_routes(&[TokenSet::only(0)]);
    while !pool.route_usable(RouteId(0)) {
        // What does nothing does nothing wrong.
        pool.vouch(0, 1, true);
        std::thread::yield_now();
    }
    let job = |tag| Job {
        work: Work::Sign,
        key: KeyId(0),
        algorithm: Algorithm::EcdsaP256Sha256,
        input: Input::digest(Algorithm::EcdsaP256Sha256, &[7; 32]).expect("a digest of 32 bytes"),
        route: RouteId(0),
        only_token: None,
        class: Class::Login,
        tenant: 0,
        deadline_ns: u64::MAX,
        repeatable: true,
        probe: false,
        reference: 0,
        inbox: 0,
        tag,
    };
    let mut group = criterion.benchmark_group("driver, no-op token, 2 sessions");
    for many in [1, 64] {
        group.throughput(Throughput::Elements(many));
        group.bench_function(format!("{many} at once"), |bencher| {
            let mut jobs = Vec::with_capacity(64);
            bencher.iter(|| {
                jobs.extend((0..many).map(job));
                pool.submit(&mut jobs);
                inbox.wait_for(many as usize);
            });
        });
    }
}

criterion_group!(benches, driver);
criterion_main!(benches);
