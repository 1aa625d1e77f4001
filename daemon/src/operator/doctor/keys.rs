//! Whether keys sign. Only the segld that runs can tell: it alone has the PINs, and asks every key itself.

use super::{Check, Outcome, Subject};
use crate::control::status;

pub(super) fn checks(subject: &Subject) -> Vec<Check> {
    let Some(status) = &subject.status else {
        let seen = "only a segld that runs can tell: it tests each key by itself";
        return vec![Check::not_known("keys", seen, "start segld; with its control socket, segl doctor asks it")];
    };
    let mut checks: Vec<_> = status.keys.iter().map(key).collect();
    checks.extend(status.findings.iter().map(finding));
    checks
}

fn key(key: &status::Key) -> Check {
    let label = key.version.as_ref().map_or_else(|| key.name.clone(), |version| format!("{}/{version}", key.name));
    let name = format!("key {label}");
    let tested = key.tokens.iter().filter_map(|holding| Some((holding, holding.self_test.as_ref()?)));
    let tested: Vec<_> = tested.map(|(holding, test)| format!("{} {}", holding.token, test.time)).collect();
    let seen = match tested.as_slice() {
        [] => key.state.clone(),
        tests => format!("{}, tested on {}", key.state, tests.join(", ")),
    };
    if key.state == "usable" {
        return Check::ok(name, seen);
    }
    let why = key.tokens.iter().filter(|holding| !holding.detail.is_empty());
    let why: Vec<_> = why.map(|holding| format!("{}: {}", holding.token, holding.detail)).collect();
    let seen = if why.is_empty() { seen } else { format!("{seen}; {}", why.join("; ")) };
    // One that does not sign yet, or no more, is in nobody's way.
    let waits = key.phase.as_deref().is_some_and(|phase| phase != "active");
    let outcome = if waits { Outcome::Warning } else { Outcome::Problem };
    Check::new(name, outcome, seen, "OPERATIONS.md, What is wrong, and what to do")
}

/// What segld itself has to say.
fn finding(finding: &status::Finding) -> Check {
    let outcome = match finding.severity {
        status::Severity::Critical => Outcome::Problem,
        status::Severity::Warning => Outcome::Warning,
        status::Severity::Notice => Outcome::Ok,
    };
    Check::new("segld says", outcome, finding.what.clone(), finding.action.clone())
}
