//! What is drawn before a run: the pool, the models' properties, and what clients, operators and fate do when. It can
//! be shortened without the rest of it changing, which is how a failing run is made small enough to be read.

use super::{draw::Draw, faults::Answer, token::Failing};
use crate::{Class, Rules, TokenSet};

pub(super) const MS: u64 = 1_000_000;
pub(super) const SECOND: u64 = 1_000 * MS;

/// Keys there are; the last one is the slow one.
pub(super) const KEYS: u64 = 3;
/// Tenants there are.
pub(super) const TENANTS: u32 = 4;
/// The tenant of self-tests.
pub(super) const KEEPER: u32 = 99;

/// A burst of retries that is never used up.
pub(super) const ROOMY_BURST: u32 = 1_000_000;

/// A whole run.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) seed: u64,
    pub(super) mood: Mood,
    pub(super) rules: Rules,
    pub(super) tokens: Vec<TokenPlan>,
    /// Which tokens hold the keys of each route
    pub(super) routes: Vec<TokenSet>,
    /// In the order of time
    pub(super) acts: Vec<Act>,
    /// From here on nothing fails any more, and operators repair what is theirs to repair
    pub(super) calm_ns: u64,
    pub(super) ending: Ending,
}

/// What kind of run it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    /// Nothing fails, all jobs cost the same, and much waits: shares are looked at
    Even,
    /// Nothing fails
    Fair,
    /// One kind of trouble, again and again
    OneTrouble,
    /// Every kind
    Stormy,
    /// Verdicts that no table would give
    Wild,
}

/// How the pool ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// All that waits is served first
    Drained,
    /// What is not back is given up
    Abandoned,
}

/// A token's properties.
#[derive(Clone, Debug)]
pub(super) struct TokenPlan {
    pub(super) module: u32,
    /// Sessions configured
    pub(super) sessions: u16,
    pub(super) preferred: bool,
    pub(super) service_ns: u64,
    /// What the slow key costs more
    pub(super) slow_key: u64,
    /// Every call takes the same time
    pub(super) even: bool,
    pub(super) tail_permille: u64,
    /// Sessions it gives
    pub(super) session_cap: u32,
    /// Sessions idle for longer are gone
    pub(super) expiry_ns: Option<u64>,
    /// The login outlives the last session
    pub(super) anchor: bool,
    pub(super) stuck_after_ns: u64,
    /// Never at `u64::MAX`
    pub(super) keep_alive_ns: u64,
}

/// Something that somebody does.
#[derive(Clone, Debug)]
pub(super) struct Act {
    pub(super) at_ns: u64,
    pub(super) what: What,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    Submit(Burst),
    /// The job that was submitted so many before the last
    Cancel {
        back: u64,
    },
    Join {
        token: u16,
    },
    Leave {
        token: u16,
    },
    Refresh {
        token: u16,
    },
    Reinitialise {
        token: u16,
    },
    /// A vouching without cause, for the probation so many before the latest
    Vouch {
        token: u16,
        back: u64,
        ok: bool,
    },
    Routes(Vec<TokenSet>),
    /// Answers that nobody waits for
    Stray {
        number: u64,
    },
    Trouble {
        token: u16,
        trouble: Trouble,
    },
}

/// Jobs submitted at once.
#[derive(Clone, Debug)]
pub(super) struct Burst {
    pub(super) tenant: u32,
    pub(super) class: Class,
    pub(super) count: u64,
    pub(super) key: u32,
    pub(super) route: u32,
    pub(super) only_token: Option<u16>,
    pub(super) timeout_ns: u64,
    pub(super) repeatable: bool,
    pub(super) presence: bool,
}

/// The calls that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallKind {
    Open,
    Login,
    Sign,
    KeepAlive,
    Close,
    Reinitialise,
}

/// What befalls a token or its module.
#[derive(Clone, Debug)]
pub(super) enum Trouble {
    /// A share of its calls fails
    Failing { percent: u64, failing: Failing, for_ns: u64 },
    /// The next such calls hang
    Hang { call: CallKind, for_ns: Option<u64>, times: usize },
    /// Taken out of its slot
    SlotGone { for_ns: u64 },
    /// It was reset: sessions, handles and login are void
    HandlesVoid,
    /// Somebody closed all sessions
    SessionsVoid,
    /// Somebody logged us out
    LoggedOut,
    /// Somebody changed the PIN; the operator learns of it later
    PinWrong { for_ns: u64 },
    /// It gives fewer sessions
    SessionCap { cap: u32, for_ns: u64 },
    /// Everything takes so many times longer
    Slow { times: u64, for_ns: u64 },
    /// Some signatures are wrong
    WrongSignatures { percent: u64, for_ns: u64 },
    /// Only C_Finalize and C_Initialize help
    ModuleBroken { answer: Answer },
}

impl Trouble {
    /// How long it lasts by itself.
    pub(super) fn for_ns(&self) -> Option<u64> {
        match *self {
            Trouble::Failing { for_ns, .. }
            | Trouble::SlotGone { for_ns }
            | Trouble::PinWrong { for_ns }
            | Trouble::SessionCap { for_ns, .. }
            | Trouble::Slow { for_ns, .. }
            | Trouble::WrongSignatures { for_ns, .. } => Some(for_ns),
            _ => None,
        }
    }
}

impl Script {
    /// The run of this seed.
    pub(super) fn draw(seed: u64) -> Script {
        let mut draw = Draw::new(seed);
        let mood = match draw.below(100) {
            0..8 => Mood::Even,
            8..20 => Mood::Fair,
            20..55 => Mood::OneTrouble,
            55..90 => Mood::Stormy,
            _ => Mood::Wild,
        };
        let rules = rules(&mut draw, seed, mood);
        let count = draw.between(1, 3) as u16;
        let one_module = draw.percent(30);
        let tokens: Vec<_> = (0..count).map(|index| token(&mut draw, index, one_module, mood)).collect();
        let routes = routes(&mut draw, count);
        let calm_ns = draw.between(1, 8) * SECOND;
        let mut script = Script {
            seed,
            mood,
            rules,
            tokens,
            routes,
            acts: Vec::new(),
            calm_ns,
            ending: if draw.percent(20) { Ending::Abandoned } else { Ending::Drained },
        };
        script.clients(&mut draw);
        script.operators(&mut draw);
        script.troubles(&mut draw);
        script.acts.sort_by_key(|act| act.at_ns);
        script
    }

    fn at(&mut self, draw: &mut Draw, what: What) {
        let at_ns = draw.below(self.calm_ns);
        self.acts.push(Act { at_ns, what });
    }

    fn clients(&mut self, draw: &mut Draw) {
        let tokens = self.tokens.len() as u64;
        if matches!(self.mood, Mood::Even | Mood::Fair) && draw.percent(80) {
            // One floods, the others want a little, all day long.
            let class = draw.of(&Class::ALL);
            let key = draw.below(KEYS) as u32;
            for round in 0..self.calm_ns / (100 * MS) {
                let at_ns = round * 100 * MS;
                for tenant in 0..TENANTS {
                    let count = if tenant == 0 { draw.between(30, 90) } else { draw.below(8) };
                    let class = if draw.percent(70) { class } else { draw.of(&Class::ALL) };
                    let timeout_ns = draw.between(2, 20) * SECOND;
                    let mut burst = Burst { tenant, class, count, key, route: 0, ..Burst::of(timeout_ns) };
                    if self.mood == Mood::Fair {
                        burst.key = draw.below(KEYS) as u32;
                    }
                    self.acts.push(Act { at_ns: at_ns + draw.below(50 * MS), what: What::Submit(burst) });
                }
            }
            return;
        }
        for _ in 0..draw.between(20, 120) {
            let timeout_ns = match draw.below(10) {
                0 => draw.below(5 * MS),
                1..4 => draw.between(5 * MS, 300 * MS),
                _ => draw.between(300 * MS, 10 * SECOND),
            };
            let burst = Burst {
                tenant: draw.below(u64::from(TENANTS)) as u32,
                class: draw.of(&Class::ALL),
                count: if draw.percent(5) { draw.between(50, 300) } else { draw.between(1, 30) },
                key: draw.below(KEYS) as u32,
                route: draw.of(&[0, 0, 0, 0, 1, 2, 3, 9]),
                only_token: draw.percent(5).then(|| draw.below(tokens) as u16),
                timeout_ns,
                repeatable: draw.percent(50),
                presence: draw.percent(5),
            };
            self.at(draw, What::Submit(burst));
        }
        for _ in 0..draw.below(30) {
            let back = draw.below(60);
            self.at(draw, What::Cancel { back });
        }
        for _ in 0..draw.below(6) {
            let number = draw.below(1000);
            self.at(draw, What::Stray { number });
        }
    }

    fn operators(&mut self, draw: &mut Draw) {
        if matches!(self.mood, Mood::Even | Mood::Fair) {
            return;
        }
        let tokens = self.tokens.len() as u64;
        for _ in 0..draw.below(8) {
            let token = draw.below(tokens) as u16;
            match draw.below(7) {
                0 | 1 => {
                    self.at(draw, What::Leave { token });
                    self.at(draw, What::Join { token });
                }
                2 | 3 => self.at(draw, What::Refresh { token }),
                4 => self.at(draw, What::Reinitialise { token }),
                5 => {
                    let (ok, back) = (draw.percent(30), draw.below(2));
                    self.at(draw, What::Vouch { token, back, ok });
                }
                _ => {
                    let routes = routes(draw, tokens as u16);
                    self.at(draw, What::Routes(routes));
                }
            }
        }
    }

    fn troubles(&mut self, draw: &mut Draw) {
        let (count, kinds): (u64, Vec<u64>) = match self.mood {
            Mood::Even | Mood::Fair => return,
            Mood::OneTrouble => (draw.between(1, 6), vec![draw.below(KINDS)]),
            Mood::Stormy => (draw.between(3, 20), (0..KINDS).collect()),
            Mood::Wild => (draw.between(2, 10), (0..KINDS).collect()),
        };
        for _ in 0..count {
            let token = draw.below(self.tokens.len() as u64) as u16;
            let kind = draw.of(&kinds);
            let trouble = trouble(draw, kind, self.mood, self.tokens[usize::from(token)].stuck_after_ns);
            self.at(draw, What::Trouble { token, trouble });
        }
    }
}

impl Burst {
    fn of(timeout_ns: u64) -> Burst {
        Burst {
            tenant: 0,
            class: Class::Login,
            count: 1,
            key: 0,
            route: 0,
            only_token: None,
            timeout_ns,
            repeatable: true,
            presence: false,
        }
    }

    /// What is asked for when all is well again: little, with much time.
    pub(super) fn at_last(tenant: u32, class: Class, route: u32) -> Burst {
        Burst { tenant, class, count: 3, route, repeatable: false, ..Burst::of(120 * SECOND) }
    }
}

const KINDS: u64 = 16;

fn trouble(draw: &mut Draw, kind: u64, mood: Mood, stuck_after_ns: u64) -> Trouble {
    let for_ns = draw.between(50 * MS, 4 * SECOND);
    let hang = |draw: &mut Draw, call| {
        let for_ns = match draw.below(10) {
            0 => None,
            1..4 => Some(draw.between(1, stuck_after_ns)),
            _ => Some(draw.between(stuck_after_ns, 4 * stuck_after_ns)),
        };
        Trouble::Hang { call, for_ns, times: if draw.percent(80) { 1 } else { 3 } }
    };
    match kind {
        0 | 1 => {
            let failing = match mood {
                Mood::Wild => Failing::Wild,
                _ => draw.of(&[Failing::Sign, Failing::Sign, Failing::Beside, Failing::All]),
            };
            Trouble::Failing { percent: draw.of(&[1, 5, 20, 60, 100]), failing, for_ns }
        }
        2 | 3 => hang(draw, CallKind::Sign),
        4 => {
            let call = draw.of(&[CallKind::Open, CallKind::Login, CallKind::Close, CallKind::KeepAlive]);
            hang(draw, call)
        }
        5 => Trouble::SlotGone { for_ns },
        6 => Trouble::HandlesVoid,
        7 => Trouble::SessionsVoid,
        8 => Trouble::LoggedOut,
        9 => Trouble::PinWrong { for_ns },
        10 | 11 => Trouble::SessionCap { cap: draw.below(3) as u32, for_ns },
        12 => Trouble::Slow { times: draw.between(2, 30), for_ns },
        13 => Trouble::WrongSignatures { percent: draw.of(&[1, 10, 100]), for_ns },
        _ => Trouble::ModuleBroken { answer: draw.of(&[Answer::NotInitialised, Answer::Device, Answer::NotPresent]) },
    }
}

fn token(draw: &mut Draw, index: u16, one_module: bool, mood: Mood) -> TokenPlan {
    let sessions = draw.between(1, 6) as u16;
    TokenPlan {
        module: if one_module { 0 } else { u32::from(index) },
        sessions,
        preferred: draw.percent(60),
        service_ns: draw.of(&[200_000, MS, 5 * MS]),
        slow_key: if mood == Mood::Even { 1 } else { draw.of(&[1, 4, 20]) },
        even: mood == Mood::Even,
        tail_permille: if mood == Mood::Even { 0 } else { draw.of(&[0, 5, 30]) },
        session_cap: if draw.percent(80) { u32::from(sessions) + 1 } else { draw.between(1, 4) as u32 },
        expiry_ns: draw.percent(15).then(|| draw.between(200, 1500) * MS),
        anchor: draw.percent(70),
        stuck_after_ns: draw.between(300, 2000) * MS,
        keep_alive_ns: if draw.percent(50) { draw.between(50, 400) * MS } else { u64::MAX },
    }
}

fn routes(draw: &mut Draw, tokens: u16) -> Vec<TokenSet> {
    let all: TokenSet = (0..tokens).collect();
    let some = (0..tokens).filter(|_| draw.percent(60)).collect();
    vec![all, some, TokenSet::only(0), TokenSet::only(tokens - 1)]
}

fn rules(draw: &mut Draw, seed: u64, mood: Mood) -> Rules {
    let roomy = matches!(mood, Mood::Even | Mood::Fair);
    let (depth, tenant_depth) =
        if roomy { (100_000, 100_000) } else { (20 + draw.below(500) as u32, 10 + draw.below(300) as u32) };
    let backoff_min_ns = draw.between(10, 100) * MS;
    Rules {
        batch_max: draw.between(1, 16) as u16,
        batch_time_ns: draw.between(1, 20) * MS,
        queue_depth_max: [depth; 3],
        tenant_depth_max: tenant_depth,
        signature_one_in: draw.between(2, 6) as u32,
        bulk_one_in: draw.between(4, 20) as u32,
        retry_burst: if draw.percent(60) { ROOMY_BURST } else { draw.between(1, 30) as u32 },
        retry_budget_percent: draw.of(&[0, 10, 20, 100]),
        retries_max: draw.of(&[0, 1, 2, 2, 2, 3]),
        backoff_min_ns,
        backoff_max_ns: backoff_min_ns * draw.between(2, 16),
        session_count_retry_ns: draw.between(1, 3) * SECOND,
        stuck_threads_max: draw.between(0, 4) as u16,
        module_after: draw.between(1, 4) as u32,
        module_backoff_min_ns: 4 * backoff_min_ns,
        module_backoff_max_ns: 64 * backoff_min_ns,
        seed,
        ..Rules::default()
    }
}
