//! What a signature costs on which token: learned, by key and algorithm, so that an RSA-3072 is not taken for a P-256.

use segl_hsm::{Algorithm, KeyId};

use super::hash::FastMap;

/// Most rows; what comes later shares the first. Rows are made by granted keys only, and keys are few.
const ROWS_MAX: usize = 4096;
/// From so many samples on an average is believed when a job is to be refused for it.
const SAMPLES_SOLID: u32 = 8;
/// A token that refused a use so often in a row is asked for it last.
const REFUSALS: u8 = 3;
/// A sample above so many times the average counts as this: a stall is no service time.
const OUTLIER: u64 = 8;

/// The table of costs.
#[derive(Debug)]
pub(super) struct Costs {
    rows: Vec<Row>,
    /// No algorithm is a look whether the key is there
    by_use: FastMap<(KeyId, Option<Algorithm>), u16>,
    tokens: usize,
    guess_ns: u64,
}

#[derive(Debug)]
struct Row {
    anywhere: Ewma,
    by_token: Vec<OnToken>,
}

/// What is known of a use on one token.
#[derive(Clone, Copy, Debug, Default)]
struct OnToken {
    average: Ewma,
    asked_ns: u64,
    /// What is known is old: the next measurement counts alone
    anew: bool,
    /// How often in a row it refused this use, as another token might not
    refusals: u8,
}

/// An exponentially weighted moving average of times, the newest with a weight of 1/8.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ewma {
    ns: u64,
    samples: u32,
}

impl Ewma {
    pub(super) fn learn(&mut self, sample_ns: u64) {
        if self.samples == 0 {
            self.ns = sample_ns.max(1);
        } else {
            let sample_ns = sample_ns.min(self.ns.saturating_mul(OUTLIER));
            self.ns = (self.ns - self.ns / 8 + sample_ns / 8).max(1);
        }
        self.samples = self.samples.saturating_add(1);
    }

    /// The average, 0 before the first sample.
    pub(super) fn ns(self) -> u64 {
        self.ns
    }

    fn known_ns(self) -> Option<u64> {
        (self.samples > 0).then_some(self.ns)
    }
}

impl Costs {
    pub(super) fn new(tokens: usize, guess_ns: u64) -> Self {
        Costs { rows: Vec::new(), by_use: FastMap::default(), tokens, guess_ns: guess_ns.max(1) }
    }

    /// The row of a key and an algorithm.
    pub(super) fn row(&mut self, key: KeyId, algorithm: Option<Algorithm>) -> u16 {
        if let Some(&row) = self.by_use.get(&(key, algorithm)) {
            return row;
        }
        if self.rows.len() == ROWS_MAX {
            return 0;
        }
        let row = self.rows.len() as u16;
        self.rows.push(Row { anywhere: Ewma::default(), by_token: vec![OnToken::default(); self.tokens] });
        self.by_use.insert((key, algorithm), row);
        row
    }

    /// Takes a measured time in.
    pub(super) fn learn(&mut self, row: u16, token: u16, sample_ns: u64) {
        let row = &mut self.rows[usize::from(row)];
        row.anywhere.learn(sample_ns);
        let on_token = &mut row.by_token[usize::from(token)];
        if std::mem::take(&mut on_token.anew) {
            on_token.average = Ewma::default();
        }
        on_token.average.learn(sample_ns);
        on_token.refusals = 0;
    }

    /// The token refused this use, in a way that says nothing of other tokens.
    pub(super) fn refused(&mut self, row: u16, token: u16) {
        let on_token = &mut self.rows[usize::from(row)].by_token[usize::from(token)];
        on_token.refusals = on_token.refusals.saturating_add(1);
    }

    /// Whether the token refuses this use again and again.
    pub(super) fn refuses(&self, row: u16, token: u16) -> bool {
        self.rows[usize::from(row)].by_token[usize::from(token)].refusals >= REFUSALS
    }

    /// The token is asked now: what was known of it before is worth less if it is older than so much.
    pub(super) fn asked(&mut self, row: u16, token: u16, now_ns: u64, old_ns: u64) {
        let on_token = &mut self.rows[usize::from(row)].by_token[usize::from(token)];
        on_token.anew |= now_ns.saturating_sub(on_token.asked_ns) >= old_ns;
        on_token.asked_ns = now_ns;
    }

    /// Whether the token was not asked for so long.
    pub(super) fn is_old(&self, row: u16, token: u16, now_ns: u64, old_ns: u64) -> bool {
        now_ns.saturating_sub(self.rows[usize::from(row)].by_token[usize::from(token)].asked_ns) >= old_ns
    }

    /// What it should take on whichever token.
    pub(super) fn anywhere_ns(&self, row: u16) -> u64 {
        self.rows[usize::from(row)].anywhere.known_ns().unwrap_or(self.guess_ns)
    }

    /// What it should take on this token.
    pub(super) fn on_token_ns(&self, row: u16, token: u16) -> u64 {
        let row = &self.rows[usize::from(row)];
        row.by_token[usize::from(token)].average.known_ns().or(row.anywhere.known_ns()).unwrap_or(self.guess_ns)
    }

    /// Whether enough was measured to refuse somebody for it.
    pub(super) fn is_solid(&self, row: u16) -> bool {
        self.rows[usize::from(row)].anywhere.samples >= SAMPLES_SOLID
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_with_two_algorithms_has_two_costs_and_a_new_token_starts_with_the_others_experience() {
        let mut costs = Costs::new(2, 500);
        let fast = costs.row(KeyId(1), Some(Algorithm::EcdsaP256Sha256));
        let slow = costs.row(KeyId(1), Some(Algorithm::RsaPssSha256));
        assert_eq!(costs.on_token_ns(fast, 0), 500, "a guess before the first measurement");
        costs.learn(fast, 0, 55_000);
        costs.learn(slow, 0, 1_000_000);
        assert_eq!(costs.on_token_ns(fast, 0), 55_000);
        assert_eq!(costs.on_token_ns(slow, 1), 1_000_000);
        assert_eq!(costs.row(KeyId(1), Some(Algorithm::EcdsaP256Sha256)), fast);
    }

    #[test]
    fn one_stall_does_not_pass_for_a_service_time_but_a_slower_token_is_learned() {
        let mut ewma = Ewma::default();
        ewma.learn(100);
        ewma.learn(1_000_000_000);
        assert!(ewma.ns() < 200, "{ewma:?}");
        for _ in 0..100 {
            ewma.learn(10_000);
        }
        assert!(ewma.ns() > 9_000, "{ewma:?}");
    }

    #[test]
    fn rows_are_bounded_and_the_overflow_shares_one() {
        let mut costs = Costs::new(1, 500);
        for key in 0..ROWS_MAX as u32 {
            costs.row(KeyId(key), Some(Algorithm::Ed25519));
        }
        assert_eq!(costs.row(KeyId(u32::MAX), Some(Algorithm::Ed25519)), 0);
        assert_eq!(costs.rows.len(), ROWS_MAX);
    }
}
