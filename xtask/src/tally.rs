//! Counts of tests, and how they are read from what nextest and `cargo test` print.

use std::{fmt, ops::AddAssign};

/// How many tests, or stages that are one check each, came out how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Tally {
    /// A stage that is one check, and held.
    pub(crate) const PASSED: Tally = Tally { passed: 1, failed: 0, skipped: 0 };

    /// Reads the closing lines in the output: nextest's `Summary`, or else the `test result:` of each of cargo's test
    /// binaries, which nextest repeats for tests that fail.
    pub(crate) fn of_test_output(output: &str) -> Tally {
        let closing = |line: &str| -> Option<String> {
            Some(line.trim().strip_prefix("Summary [")?.split_once("run:")?.1.to_owned())
        };
        let cargo = |line: &str| -> Option<String> {
            Some(line.trim().strip_prefix("test result:")?.split_once('.')?.1.to_owned())
        };
        let mut counts: Vec<String> = output.lines().filter_map(closing).collect();
        if counts.is_empty() {
            counts = output.lines().filter_map(cargo).collect();
        }
        let mut tally = Tally::default();
        for count in counts.iter().flat_map(|counts| counts.split([',', ';'])) {
            let mut words = count.split_whitespace();
            let (Some(Ok(number)), Some(what)) = (words.next().map(str::parse::<u64>), words.next()) else { continue };
            match what {
                "passed" => tally.passed += number,
                "failed" | "timed" | "exec" => tally.failed += number,
                "skipped" | "ignored" => tally.skipped += number,
                _ => {}
            }
        }
        tally
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn reads_nextest_s_summary() {
        let output = "\
    test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 5 filtered out; finished in 0.12s
────────────
     Summary [   1.204s] 40 tests run: 37 passed (1 slow), 2 failed, 1 timed out, 5 skipped
        FAIL [   0.003s] segl-pool core::x
";
        assert_eq!(Tally::of_test_output(output), Tally { passed: 37, failed: 3, skipped: 5 });
    }

    #[test]
    fn sums_the_results_of_every_binary_that_cargo_test_ran() {
        let output = "\
test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 9 filtered out; finished in 0.10s
";
        assert_eq!(Tally::of_test_output(output), Tally { passed: 7, failed: 2, skipped: 1 });
    }
}
