//! What can go wrong with a token, how it is brought about and how it is taken back.

use segl_faulty_token::{
    Call, Command, Does, Fault, FaultyHsm, Revives, Seen, Tempo, When,
    cryptoki_sys::{
        CKR_DEVICE_ERROR, CKR_DEVICE_MEMORY, CKR_FUNCTION_FAILED, CKR_GENERAL_ERROR, CKR_HOST_MEMORY,
        CKR_KEY_HANDLE_INVALID, CKR_SESSION_HANDLE_INVALID, CKR_USER_NOT_LOGGED_IN,
    },
};

use super::{
    dice::Dice,
    ground::{KEYS, TEMPO},
};
use crate::Result;

/// One token's next trouble.
#[derive(Clone, Debug)]
pub(super) struct Spell {
    /// How long it is well before
    pub(super) pause_ms: u64,
    pub(super) trouble: Trouble,
    pub(super) lasts_ms: u64,
}

#[derive(Clone, Debug)]
pub(super) enum Trouble {
    /// Calls that answer with an error, before or after they have done something
    Fails {
        call: Call,
        when: When,
        does: Does,
    },
    /// C_Sign gives wrong signatures now and then, of a key that is always verified
    WrongSignatures {
        key: &'static str,
        one_in: u64,
    },
    /// Sessions are void for ever
    Dies {
        opens: bool,
        until: Revives,
    },
    LogOut,
    /// Sessions and login are lost, handles begin anew
    Restart,
    /// The same, and few sessions from then on
    FewSessions {
        max: u64,
    },
    /// Idle sessions are closed
    IdleLimit {
        limit_ms: u64,
    },
    /// Out of its slot, and back in another
    Removed {
        slot: u64,
        seen: Seen,
    },
    /// C_Sign hangs
    SignHangs {
        times: u64,
    },
    /// Another call hangs, which a logout or the token's death brings about
    Hangs {
        call: Call,
    },
    /// The PIN is changed, and told to the operator later
    PinChanged {
        pin: String,
    },
    /// A long tail
    Slow {
        tail_one_in: u64,
        tail_us: u64,
    },
}

/// Who has to be asked before it is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    ByItself,
    /// The operator, after a look at the HSM
    Reload,
    /// The operator, who learns the PIN
    NewPin(String),
}

impl Spell {
    /// What a token goes through, one after the other.
    pub(super) fn forecast(seed: u64, token: usize) -> impl Iterator<Item = Spell> {
        let mut dice = Dice::new(seed, token as u64);
        let mut number = 0;
        std::iter::from_fn(move || {
            number += 1;
            let pause_ms = dice.between(500, 4_000);
            let trouble = Trouble::draw(&mut dice, token, number);
            Some(Spell { pause_ms, trouble, lasts_ms: dice.between(300, 3_500) })
        })
    }
}

impl Trouble {
    fn draw(dice: &mut Dice, token: usize, number: u64) -> Trouble {
        const BEFORE: [u64; 5] = [
            CKR_DEVICE_ERROR,
            CKR_GENERAL_ERROR,
            CKR_SESSION_HANDLE_INVALID,
            CKR_KEY_HANDLE_INVALID,
            CKR_USER_NOT_LOGGED_IN,
        ];
        const INSIDE: [u64; 5] =
            [CKR_DEVICE_ERROR, CKR_GENERAL_ERROR, CKR_FUNCTION_FAILED, CKR_HOST_MEMORY, CKR_DEVICE_MEMORY];
        let verified: Vec<_> = KEYS.iter().filter(|key| key.verified && key.tokens.contains(&token)).collect();
        let share = |dice: &mut Dice| match dice.below(4) {
            0 => When::Always,
            1 => When::OneIn(dice.between(3, 10)),
            _ => When::OneIn(dice.between(20, 60)),
        };
        match dice.below(15) {
            0 | 1 => {
                Trouble::Fails { call: Call::SignInit, when: share(dice), does: Does::Answer(*dice.pick(&BEFORE)) }
            }
            2 | 3 => Trouble::Fails { call: Call::Sign, when: share(dice), does: Does::Answer(*dice.pick(&INSIDE)) },
            4 => {
                let when = When::OneIn(dice.between(20, 60));
                let does = *dice.pick(&[Does::AnswerAfter(CKR_DEVICE_ERROR), Does::Length(4_711), Does::Length(5)]);
                Trouble::Fails { call: Call::Sign, when, does }
            }
            5 => Trouble::WrongSignatures { key: dice.pick(&verified).name, one_in: dice.between(10, 50) },
            6 => Trouble::Dies { opens: dice.one_in(2), until: *dice.pick(&[Revives::Finalise, Revives::Healing]) },
            7 => Trouble::LogOut,
            8 => dice.pick(&[Trouble::Restart, Trouble::FewSessions { max: 2 }]).clone(),
            9 => Trouble::IdleLimit { limit_ms: dice.between(100, 400) },
            10 => Trouble::Removed { slot: number + 1, seen: *dice.pick(&[Seen::AtOnce, Seen::Reinitialised]) },
            11 => Trouble::SignHangs { times: dice.between(1, 6) },
            12 => Trouble::Hangs {
                call: *dice.pick(&[Call::OpenSession, Call::Login, Call::CloseSession, Call::Finalize]),
            },
            13 => Trouble::PinChanged { pin: format!("57-changed-{number}") },
            _ => Trouble::Slow { tail_one_in: dice.between(10, 50), tail_us: dice.between(50_000, 400_000) },
        }
    }

    /// For the report.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Trouble::Fails { call: Call::SignInit, .. } => "C_SignInit fails",
            Trouble::Fails { does: Does::Answer(_), .. } => "C_Sign fails",
            Trouble::Fails { does: Does::AnswerAfter(_), .. } => "signatures withheld",
            Trouble::Fails { .. } => "signatures of a wrong length",
            Trouble::WrongSignatures { .. } => "wrong signatures",
            Trouble::Dies { .. } => "dead",
            Trouble::LogOut => "logged out",
            Trouble::Restart => "restarted",
            Trouble::FewSessions { .. } => "few sessions",
            Trouble::IdleLimit { .. } => "idle sessions closed",
            Trouble::Removed { .. } => "removed",
            Trouble::SignHangs { .. } => "C_Sign hangs",
            Trouble::Hangs { call: Call::OpenSession } => "C_OpenSession hangs",
            Trouble::Hangs { call: Call::Login } => "C_Login hangs",
            Trouble::Hangs { call: Call::CloseSession } => "C_CloseSession hangs",
            Trouble::Hangs { .. } => "C_Finalize hangs",
            Trouble::PinChanged { .. } => "PIN changed",
            Trouble::Slow { .. } => "slow",
        }
    }

    pub(super) fn begin(&self, hsm: &FaultyHsm) -> Result<()> {
        let tell = |command| hsm.command(&command).map(drop);
        let logged_out = || tell(Command::LogOut { token: None });
        match self {
            Trouble::Fails { call, when, does } => hsm.fault(*call, *when, *does).map(drop),
            Trouble::WrongSignatures { key, one_in } => {
                let (when, does) = (When::OneIn(*one_in), Does::WrongSignature);
                hsm.add(Fault { call: Call::Sign, token: None, key: Some((*key).into()), when, does }).map(drop)
            }
            Trouble::Dies { opens, until } => tell(Command::Die { token: None, opens: *opens, until: *until }),
            Trouble::LogOut => logged_out(),
            Trouble::Restart => tell(Command::Restart { token: None }),
            Trouble::FewSessions { max } => {
                tell(Command::Sessions { token: None, max: Some(*max), announced: false })?;
                tell(Command::Restart { token: None })
            }
            Trouble::IdleLimit { limit_ms } => tell(Command::IdleLimit { token: None, limit_ms: Some(*limit_ms) }),
            Trouble::Removed { .. } => tell(Command::Remove { token: None }),
            Trouble::SignHangs { times } => {
                hsm.fault(Call::Sign, When::Times(*times), Does::Hang { for_ms: None }).map(drop)
            }
            Trouble::Hangs { call } => {
                hsm.fault(*call, When::Times(1), Does::Hang { for_ms: None })?;
                match call {
                    Call::Finalize => tell(Command::Die { token: None, opens: true, until: Revives::Finalise }),
                    _ => logged_out(),
                }
            }
            Trouble::PinChanged { pin } => {
                tell(Command::Pin { token: None, pin: pin.clone() })?;
                logged_out()
            }
            Trouble::Slow { tail_one_in, tail_us } => {
                let tempo = Tempo { tail_one_in: *tail_one_in, tail_us: *tail_us, ..TEMPO };
                tell(Command::Tempo { token: None, tempo })
            }
        }
    }

    /// Takes it back, as far as the HSM goes.
    pub(super) fn end(&self, hsm: &FaultyHsm) -> Result<Ends> {
        match self {
            Trouble::Removed { slot, seen } => {
                hsm.command(&Command::Insert { token: None, slot: Some(*slot), seen: *seen })?;
            }
            Trouble::Slow { .. } => {
                hsm.command(&Command::Tempo { token: None, tempo: TEMPO })?;
            }
            _ => hsm.heal()?,
        }
        Ok(match self {
            Trouble::WrongSignatures { .. } => Ends::Reload,
            Trouble::PinChanged { pin } => Ends::NewPin(pin.clone()),
            _ => Ends::ByItself,
        })
    }
}
