//! What the doctor has to say of one thing, and how it is shown.

use serde::Serialize;

/// What came of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Outcome {
    /// As it should be
    Ok,
    /// It can not be told from here
    NotKnown,
    /// Segld works, and somebody should look at it
    Warning,
    /// Segld does not work, or not safely
    Problem,
}

impl Outcome {
    const fn name(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::NotKnown => "not known",
            Outcome::Warning => "warning",
            Outcome::Problem => "problem",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    /// What was looked at
    pub(super) name: String,
    /// What came of it
    pub(super) outcome: Outcome,
    /// What was seen
    pub(super) seen: String,
    /// What to do; empty where there is nothing to do
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) advice: String,
}

impl Check {
    pub(super) fn new(
        name: impl Into<String>,
        outcome: Outcome,
        seen: impl Into<String>,
        advice: impl Into<String>,
    ) -> Check {
        Check { name: name.into(), outcome, seen: seen.into(), advice: advice.into() }
    }

    pub(super) fn ok(name: impl Into<String>, seen: impl Into<String>) -> Check {
        Check::new(name, Outcome::Ok, seen, "")
    }

    pub(super) fn not_known(name: impl Into<String>, seen: impl Into<String>, advice: impl Into<String>) -> Check {
        Check::new(name, Outcome::NotKnown, seen, advice)
    }

    pub(super) fn warning(name: impl Into<String>, seen: impl Into<String>, advice: impl Into<String>) -> Check {
        Check::new(name, Outcome::Warning, seen, advice)
    }

    pub(super) fn problem(name: impl Into<String>, seen: impl Into<String>, advice: impl Into<String>) -> Check {
        Check::new(name, Outcome::Problem, seen, advice)
    }
}

/// Everything that was looked at, in its order.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// The worst of all
    outcome: Outcome,
    checks: Vec<Check>,
}

impl Report {
    pub(super) fn new(checks: Vec<Check>) -> Report {
        let outcome = checks.iter().map(|check| check.outcome).max().unwrap_or(Outcome::Ok);
        Report { outcome, checks }
    }

    /// As monitoring has it: 0 all is well or can not be told, 1 warnings, 2 problems.
    pub(super) fn status(&self) -> u8 {
        match self.outcome {
            Outcome::Ok | Outcome::NotKnown => 0,
            Outcome::Warning => 1,
            Outcome::Problem => 2,
        }
    }

    /// For eyes: a line for each, what to do below it, the totals last.
    pub(super) fn text(&self) -> String {
        let width = self.checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
        let mut text = String::new();
        for Check { name, outcome, seen, advice } in &self.checks {
            text.push_str(&format!("{:<9}  {name:<width$}  {}\n", outcome.name(), one_line(seen)));
            if !advice.is_empty() {
                text.push_str(&format!("{:11}{:width$}  -> {}\n", "", "", one_line(advice)));
            }
        }
        let count = |outcome| self.checks.iter().filter(|check| check.outcome == outcome).count();
        let totals = [Outcome::Problem, Outcome::Warning, Outcome::NotKnown, Outcome::Ok];
        let totals = totals.map(|outcome| format!("{} {}", count(outcome), outcome.name()));
        text.push_str(&totals.join(", "));
        text
    }
}

/// What modules and files say of themselves may hold anything.
fn one_line(text: &str) -> String {
    text.split(char::is_control).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_decides_and_what_can_not_be_told_is_no_trouble() {
        let status = |outcomes: &[Outcome]| {
            Report::new(outcomes.iter().map(|outcome| Check::new("x", *outcome, "", "")).collect()).status()
        };
        assert_eq!(status(&[]), 0);
        assert_eq!(status(&[Outcome::Ok, Outcome::NotKnown]), 0);
        assert_eq!(status(&[Outcome::Warning, Outcome::Ok]), 1);
        assert_eq!(status(&[Outcome::Ok, Outcome::Problem, Outcome::Warning]), 2);
    }

    #[test]
    fn each_line_says_what_was_seen_and_the_next_what_to_do() {
        let report = Report::new(vec![
            Check::ok("kernel", "6.1"),
            Check::problem("token hsm", "no slot\u{1b}[2J holds it\n", "plug it in"),
        ]);
        let expected = "ok         kernel     6.1\n\
                        problem    token hsm  no slot [2J holds it\n                      -> plug it in\n\
                        1 problem, 0 warning, 0 not known, 1 ok";
        assert_eq!(report.text(), expected);
    }
}
