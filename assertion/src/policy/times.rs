//! Points of time: everything is measured against IssueInstant, or now where that is earlier, and IssueInstant against
//! this site's clock.

use super::{BEARER, Checked};
use crate::{
    saml::{Assertion, Element, unix_ms},
    violation::Violations,
};

/// Milliseconds since 1970.
type Instant = i64;

pub(super) struct Clock {
    now_ms: Instant,
    /// None when it is no UTC time
    issued_ms: Option<Instant>,
}

impl Clock {
    pub(super) fn of(assertion: Assertion<'_>, now_unix_s: u64) -> Clock {
        Clock { now_ms: milliseconds(now_unix_s), issued_ms: unix_ms(assertion.issue_instant()) }
    }
}

/// A point of time that the assertion names.
struct Named<'a> {
    rule: &'static str,
    attribute: &'static str,
    element: Element<'a>,
}

impl Named<'_> {
    fn value(&self) -> Option<&str> {
        self.element.attribute(self.attribute)
    }

    fn place(&self) -> String {
        format!("{}/@{}", self.element.xpath(), self.attribute)
    }
}

pub(super) fn check(checked: &Checked<'_>, violations: &mut Violations) {
    let Checked { policy, assertion, .. } = checked;
    let check = Times { checked, distance_ms: milliseconds(policy.clock_distance_max_s) };
    check.issued(violations);

    match assertion.conditions() {
        None => violations.add("conditions", || assertion.xpath(), "there is a Conditions with NotOnOrAfter"),
        Some(conditions) => {
            let named = |attribute| Named { rule: "conditions", attribute, element: conditions.element() };
            check.ends(true, policy.validity_max_s, named("NotOnOrAfter"), violations);
            check.begins(named("NotBefore"), violations);
        }
    }
    check.confirmations(violations);
    check.sessions(violations);
}

struct Times<'c, 'a> {
    checked: &'c Checked<'a>,
    distance_ms: i64,
}

impl Times<'_, '_> {
    fn issued(&self, violations: &mut Violations) {
        let Checked { policy, assertion, clock, .. } = self.checked;
        let near = |issued_ms: Instant| issued_ms.abs_diff(clock.now_ms) <= self.distance_ms.unsigned_abs();
        if !clock.issued_ms.is_some_and(near) {
            let distance = policy.clock_distance_max_s;
            let text = format!("IssueInstant is a UTC time, at most {distance} s from this site's clock");
            violations.add("issue-instant", || assertion.xpath() + "/@IssueInstant", text);
        }
    }

    fn confirmations(&self, violations: &mut Violations) {
        let Checked { policy, assertion, .. } = self.checked;
        for confirmation in assertion.subject().iter().flat_map(|subject| subject.confirmations()) {
            // Conditions end it too, so that holding a key without an end here is no longer good than the rest.
            let bearer = confirmation.method() == BEARER;
            let Some(data) = confirmation.data() else {
                if bearer {
                    let text = "a bearer's SubjectConfirmation has SubjectConfirmationData";
                    violations.add("confirmation-data", || confirmation.xpath(), text);
                }
                continue;
            };
            let named = |attribute| Named { rule: "confirmation-data", attribute, element: data.element() };
            self.ends(bearer, policy.validity_max_s, named("NotOnOrAfter"), violations);
            self.begins(named("NotBefore"), violations);
        }
    }

    fn sessions(&self, violations: &mut Violations) {
        let Checked { policy, assertion, clock, .. } = self.checked;
        for statement in assertion.authn_statements() {
            let past = |instant: Instant| instant <= clock.now_ms.saturating_add(self.distance_ms);
            if !unix_ms(statement.authn_instant()).is_some_and(past) {
                let distance = policy.clock_distance_max_s;
                let text = format!("AuthnInstant is a UTC time, at most {distance} s ahead of this site's clock");
                violations.add("authn-instant", || statement.xpath() + "/@AuthnInstant", text);
            }
            let until = Named { rule: "session", attribute: "SessionNotOnOrAfter", element: statement.element() };
            self.ends(false, policy.session_max_s.unwrap_or(policy.validity_max_s), until, violations);
        }
    }

    /// An end of validity: after now, and at most `max_s` after IssueInstant and after now. Without a good IssueInstant,
    /// which is told already, it is measured against now.
    fn ends(&self, required: bool, max_s: u64, named: Named<'_>, violations: &mut Violations) {
        let clock = &self.checked.clock;
        let issued_ms = clock.issued_ms.unwrap_or(clock.now_ms).min(clock.now_ms);
        let latest_ms = issued_ms.saturating_add(milliseconds(max_s));
        let good = match named.value() {
            None => !required,
            Some(value) => unix_ms(value).is_some_and(|end_ms| end_ms > clock.now_ms && end_ms <= latest_ms),
        };
        if !good {
            let there = if required { "is there, " } else { "is " };
            let attribute = named.attribute;
            let text = format!("{attribute} {there}a UTC time after now, at most {max_s} s after IssueInstant and now");
            violations.add(named.rule, || named.place(), text);
        }
    }

    /// A beginning of validity: near IssueInstant and not ahead of now, so that no assertion is made for later.
    fn begins(&self, named: Named<'_>, violations: &mut Violations) {
        let clock = &self.checked.clock;
        let issued_ms = clock.issued_ms.unwrap_or(clock.now_ms);
        let latest_ms = clock.now_ms.saturating_add(self.distance_ms);
        let near = |begin_ms: Instant| {
            begin_ms.abs_diff(issued_ms) <= self.distance_ms.unsigned_abs() && begin_ms <= latest_ms
        };
        if let Some(value) = named.value()
            && !unix_ms(value).is_some_and(near)
        {
            let (attribute, distance) = (named.attribute, self.checked.policy.clock_distance_max_s);
            let text =
                format!("{attribute} is a UTC time, at most {distance} s from IssueInstant, and no more ahead of now");
            violations.add(named.rule, || named.place(), text);
        }
    }
}

fn milliseconds(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000)
}
