//! The faults that stand, and which calls they hit.

use cryptoki_sys::CK_RV;

use crate::{Call, Does, Fault, When};

/// All faults of a module, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    last: u64,
    standing: Vec<Standing>,
}

#[derive(Debug)]
struct Standing {
    number: u64,
    fault: Fault,
    /// Calls that fitted so far
    fitted: u64,
}

/// What a call is: the function, and the token and key it concerns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) call: Call,
    pub(crate) token: Option<&'a str>,
    pub(crate) key: Option<&'a str>,
}

/// What becomes of one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spoilt {
    /// Hangs first: none in it is until it is let go
    pub(crate) hang_ms: Option<Option<u64>>,
    /// Answers this and does nothing
    pub(crate) answer: Option<CK_RV>,
    /// Answers this after having done it
    pub(crate) answer_after: Option<CK_RV>,
    pub(crate) wrong: bool,
    /// The length it says its signature has
    pub(crate) length: Option<u64>,
}

impl Faults {
    pub(crate) fn add(&mut self, fault: Fault) -> u64 {
        self.last += 1;
        self.standing.push(Standing { number: self.last, fault, fitted: 0 });
        self.last
    }

    /// Whether there was such a fault.
    pub(crate) fn clear(&mut self, number: Option<u64>) -> bool {
        let before = self.standing.len();
        self.standing.retain(|standing| number.is_some_and(|number| number != standing.number));
        number.is_none() || self.standing.len() < before
    }

    /// Judges a call, once: faults count the calls that fit.
    pub(crate) fn judge(&mut self, target: Target<'_>) -> Spoilt {
        let mut spoilt = Spoilt::default();
        for standing in &mut self.standing {
            if standing.hits(target) {
                match standing.fault.does {
                    Does::Hang { for_ms } => spoilt.hang_ms = spoilt.hang_ms.or(Some(for_ms)),
                    Does::Answer(code) => spoilt.answer = spoilt.answer.or(Some(code)),
                    Does::AnswerAfter(code) => spoilt.answer_after = spoilt.answer_after.or(Some(code)),
                    Does::WrongSignature => spoilt.wrong = true,
                    Does::Length(length) => spoilt.length = Some(length),
                }
            }
        }
        self.standing.retain(|standing| match standing.fault.when {
            When::Times(times) => standing.fitted < times,
            When::Always | When::OneIn(_) => true,
        });
        spoilt
    }
}

impl Standing {
    fn hits(&mut self, target: Target<'_>) -> bool {
        let fits = |wanted: &Option<String>, have: Option<&str>| wanted.is_none() || wanted.as_deref() == have;
        let fault = &self.fault;
        if fault.call != target.call || !fits(&fault.token, target.token) || !fits(&fault.key, target.key) {
            return false;
        }
        self.fitted += 1;
        match fault.when {
            When::Always | When::Times(_) => true,
            When::OneIn(share) => share > 0 && self.fitted.is_multiple_of(share),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(when: When, does: Does) -> Fault {
        Fault { call: Call::Sign, token: Some("A".into()), key: None, when, does }
    }

    const SIGN: Target<'_> = Target { call: Call::Sign, token: Some("A"), key: Some("k") };

    #[test]
    fn a_fault_hits_the_calls_it_is_meant_for_and_as_many() {
        let mut faults = Faults::default();
        faults.add(fault(When::Times(2), Does::Answer(5)));
        faults.add(fault(When::OneIn(3), Does::WrongSignature));
        let others = [
            Target { call: Call::SignInit, ..SIGN },
            Target { token: Some("B"), ..SIGN },
            Target { token: None, key: None, ..SIGN },
        ];
        for other in others {
            assert_eq!(faults.judge(other), Spoilt::default());
        }
        let judged: Vec<_> = (0..6).map(|_| faults.judge(SIGN)).map(|spoilt| (spoilt.answer, spoilt.wrong)).collect();
        let none = (None, false);
        assert_eq!(judged, [(Some(5), false), (Some(5), false), (None, true), none, none, (None, true)]);
    }

    #[test]
    fn a_fault_is_taken_back_by_its_number() {
        let mut faults = Faults::default();
        let first = faults.add(fault(When::Always, Does::Answer(5)));
        faults.add(fault(When::Always, Does::AnswerAfter(6)));
        assert!(faults.clear(Some(first)) && !faults.clear(Some(first)));
        assert_eq!(faults.judge(SIGN), Spoilt { answer_after: Some(6), ..Spoilt::default() });
        assert!(faults.clear(None));
        assert_eq!(faults.judge(SIGN), Spoilt::default());
    }
}
