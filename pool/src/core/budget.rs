//! How much extra load retries may be: a token bucket over the whole pool.
//!
//! A dying token fails job after job, and each goes on to the healthy ones. The bucket bounds what that adds to their
//! load; it starts full, so that the first fault after the start finds it so. A retry that finds it empty is answered
//! with the error of its attempt.

use crate::Rules;

/// A retry in hundredths, what one job earns of it being a percentage.
const RETRY: u64 = 100;

/// What is left of the budget.
#[derive(Debug)]
pub(super) struct Budget {
    left: u64,
    full: u64,
    percent: u64,
}

impl Budget {
    /// A full bucket. One fault may cost each session one call, however many they are: so it holds a retry for each.
    pub(super) fn new(rules: &Rules, sessions: u32) -> Self {
        let full = u64::from(rules.retry_burst.max(sessions)) * RETRY;
        Budget { left: full, full, percent: u64::from(rules.retry_budget_percent) }
    }

    /// A job was accepted.
    pub(super) fn earn(&mut self) {
        self.left = (self.left + self.percent).min(self.full);
    }

    /// Pays for a retry, if there is enough.
    pub(super) fn spend(&mut self) -> bool {
        let paid = self.left >= RETRY;
        if paid {
            self.left -= RETRY;
        }
        paid
    }

    /// Whole retries that are left.
    pub(super) fn left(&self) -> u32 {
        (self.left / RETRY) as u32
    }
}
