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

    /// Sums every closing line in the output: nextest's `Summary`, or `test result:` of each of cargo's test binaries.
    pub(crate) fn of_test_output(output: &str) -> Tally {
        let mut tally = Tally::default();
        for line in output.lines().map(str::trim) {
            let counts = if let Some(summary) = line.strip_prefix("Summary [") {
                summary.split_once("run:").map(|(_, counts)| counts)
            } else {
                line.strip_prefix("test result:").and_then(|result| result.split_once('.')).map(|(_, counts)| counts)
            };
            let Some(counts) = counts else { continue };
            for count in counts.split([',', ';']) {
                let mut words = count.split_whitespace();
                let (Some(Ok(number)), Some(what)) = (words.next().map(str::parse::<u64>), words.next()) else {
                    continue;
                };
                match what {
                    "passed" => tally.passed += number,
                    "failed" | "timed" | "exec" => tally.failed += number,
                    "skipped" | "ignored" => tally.skipped += number,
                    _ => {}
                }
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
