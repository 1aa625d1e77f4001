//! The request's "acting as" and the assertion say the same.

use super::{
    CORE, Checked,
    attributes::{Single, single},
    privileges::{PRIVILEGES, Scope},
};
use crate::{Capacity, saml::Attribute, violation::Violations};

const RULE: &str = "capacity";

const PROFESSIONAL: &str = "eid/professional/";
const PERSON: &str = "eid/person/";
pub(super) const CVR: &str = "eid/professional/cvr";

/// The CVR numbers of companies that the professional may represent as a whole.
const AUTHORISED: &str = "eid/professional/authorizedToRepresent";

/// The prefix of the attributes' names in OIOSAML 2, and of those that say something of a company.
const OLD_PREFIX: &str = "dk:gov:saml:attribute:";
const OLD_CVR: &str = "dk:gov:saml:attribute:CvrNumberIdentifier";
const OLD_PROFESSIONAL: [&str; 4] =
    ["cvrnumberidentifier", "productionunitidentifier", "senumberidentifier", "ridnumberidentifier"];

/// Whether a name, of an attribute or a person, is that of a professional, to readers that look less closely too.
pub(super) fn is_professional(name: &str) -> bool {
    let name = name.trim();
    let is_old = |name: &str| OLD_PROFESSIONAL.iter().any(|old| name.eq_ignore_ascii_case(old));
    after(name, OLD_PREFIX).is_some_and(is_old)
        || after(name, CORE).is_some_and(|name| after(name, PROFESSIONAL).is_some())
}

/// What follows a prefix, in whatever case that is written.
fn after<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = name.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

pub(super) fn check(checked: &Checked<'_>, violations: &mut Violations) {
    match checked.capacity {
        None => violations.add(RULE, String::new, "the request says in which capacity the person acts"),
        Some(Capacity::Company(cvr)) => check_company(checked, cvr, violations),
        Some(Capacity::Citizen) => check_citizen(checked, violations),
    }
}

/// The professional's own company; or, of somebody who is none, one for which the assertion gives him rights.
fn check_company(checked: &Checked<'_>, cvr: &str, violations: &mut Violations) {
    let is_cvr = cvr.len() == 8 && cvr.bytes().all(|byte| byte.is_ascii_digit());
    let companies: Vec<Attribute<'_>> =
        checked.attributes.iter().filter(|(name, _)| is_company(name)).map(|(_, attribute)| attribute).collect();
    let is_own = |company: &Attribute<'_>| matches!(single(*company), Single::Value(value) if value == cvr);
    let mandated = |scope: &Scope| matches!(scope, Scope::Company(of) if of == cvr);
    let acts = match companies.as_slice() {
        [] => checked.privileges.scopes().iter().any(mandated),
        companies => companies.iter().all(is_own),
    };
    if !is_cvr || !acts {
        let xpath = || checked.attributes.xpath_of(&format!("{CORE}{CVR}"), checked.assertion);
        let text = format!(
            "{CORE}{CVR}, or where that is left out a scope in {CORE}{PRIVILEGES}, is the CVR number that the request \
             acts for"
        );
        violations.add(RULE, xpath, text);
    }
    let other = |scope: &Scope| scope.is_of_company() && !mandated(scope);
    if !checked.policy.other_companies && checked.privileges.scopes().iter().any(other) {
        let text =
            "the assertion gives rights for the company that the request acts for, and for no other or part of one";
        violations.add(RULE, || checked.privileges_xpath(), text);
    }
    if !checked.policy.other_companies {
        let authorised = checked.attributes.iter().filter(|(name, _)| name.strip_prefix(CORE) == Some(AUTHORISED));
        for (_, attribute) in authorised {
            if !attribute.values().all(|value| value.text() == Some(cvr)) {
                let text = "nobody may represent another company than the one that the request acts for";
                violations.add(RULE, || attribute.xpath(), text);
            }
        }
    }
    let Some(name_id) = checked.assertion.subject().and_then(|subject| subject.name_id()) else { return };
    let professional = checked.attributes.iter().any(|(name, _)| is_professional(name));
    let person = name_id.value().strip_prefix(CORE).is_some_and(|name| name.starts_with(PERSON));
    if person && professional || is_professional(name_id.value()) && companies.is_empty() {
        let text = "the NameID is a professional's where the attributes are, and a person's where they are not";
        violations.add(RULE, || name_id.xpath(), text);
    }
}

fn is_company(name: &str) -> bool {
    name.strip_prefix(CORE) == Some(CVR) || name == OLD_CVR
}

fn check_citizen(checked: &Checked<'_>, violations: &mut Violations) {
    for (name, attribute) in checked.attributes.iter() {
        if is_professional(name) {
            let text = "a citizen's assertion has no attribute of a professional";
            violations.add(RULE, || attribute.xpath(), text);
        }
    }
    if !checked.privileges.scopes().iter().all(|scope| *scope == Scope::Person) {
        let text = "a citizen's assertion gives rights for persons alone";
        violations.add(RULE, || checked.privileges_xpath(), text);
    }
    let name_id = checked.assertion.subject().and_then(|subject| subject.name_id());
    if let Some(name_id) = name_id
        && is_professional(name_id.value())
    {
        violations.add(RULE, || name_id.xpath(), "a citizen's NameID is not that of a professional");
    }
}
