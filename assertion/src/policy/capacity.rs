//! The request's "acting as" and the assertion say the same.

use super::{
    CORE, Checked,
    attributes::Single,
    privileges::{self, PRIVILEGES},
};
use crate::{Capacity, violation::Violations};

const RULE: &str = "capacity";

pub(super) const PROFESSIONAL: &str = "eid/professional/";
pub(super) const CVR: &str = "eid/professional/cvr";

pub(super) fn check(checked: &Checked<'_>, violations: &mut Violations) {
    match checked.capacity {
        None => violations.add(RULE, "", "the request says in which capacity the person acts"),
        Some(Capacity::Company(cvr)) => check_company(checked, cvr, violations),
        Some(Capacity::Citizen) => check_citizen(checked, violations),
    }
}

/// The professional's own company, or one for which the assertion gives him rights.
fn check_company(checked: &Checked<'_>, cvr: &str, violations: &mut Violations) {
    let is_cvr = cvr.len() == 8 && cvr.bytes().all(|byte| byte.is_ascii_digit());
    let own = matches!(checked.attributes.core(CVR), Single::Value(value) if value == cvr);
    if is_cvr && (own || scopes(checked).iter().any(|scope| privileges::company_of(scope) == Some(cvr))) {
        return;
    }
    let xpath = checked.attributes.xpath_of(&format!("{CORE}{CVR}"), checked.assertion);
    let text = format!("{CORE}{CVR}, or a scope in {CORE}{PRIVILEGES}, is the CVR number that the request acts for");
    violations.add(RULE, xpath, text);
}

fn check_citizen(checked: &Checked<'_>, violations: &mut Violations) {
    for (name, attribute) in checked.attributes.iter() {
        if name.strip_prefix(CORE).is_some_and(|name| name.starts_with(PROFESSIONAL)) {
            let text = "a citizen's assertion has no attribute of a professional";
            violations.add(RULE, attribute.xpath(), text);
        }
    }
    if scopes(checked).iter().any(|scope| privileges::is_of_company(scope)) {
        let xpath = checked.attributes.xpath_of(&format!("{CORE}{PRIVILEGES}"), checked.assertion);
        violations.add(RULE, xpath, "a citizen's assertion gives no rights for a company");
    }
    let name_id = checked.assertion.subject().and_then(|subject| subject.name_id());
    if let Some(name_id) = name_id
        && name_id.value().strip_prefix(CORE).is_some_and(|name| name.starts_with(PROFESSIONAL))
    {
        violations.add(RULE, name_id.xpath(), "a citizen's NameID is not that of a professional");
    }
}

/// What rights in the assertion are limited to. A list that cannot be read is a violation by itself.
fn scopes(checked: &Checked<'_>) -> Vec<String> {
    match checked.attributes.core(PRIVILEGES) {
        Single::Value(list) => privileges::scopes(list).unwrap_or_default(),
        Single::Absent | Single::Other => Vec::new(),
    }
}
