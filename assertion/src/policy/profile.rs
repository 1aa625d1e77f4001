//! OIOSAML Web SSO Profile 3.0.x: what it demands of every assertion, beside what a policy may choose.

use super::{
    AssertionPolicy, BEARER, CORE, Checked, ConfirmationMethod,
    attributes::{AAL, IAL, LOA, SPEC_VERSION, Single, single},
    capacity::{CVR, is_professional},
};
use crate::violation::Violations;

const ENTITY: &str = "urn:oasis:names:tc:SAML:2.0:nameid-format:entity";
const URI_NAMES: &str = "urn:oasis:names:tc:SAML:2.0:attrname-format:uri";
const NAME_ID_FORMATS: [&str; 2] =
    ["urn:oasis:names:tc:SAML:2.0:nameid-format:persistent", "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"];
const VERSION: &str = "OIO-SAML-3.0";
const LEVELS: [&str; 3] = ["Low", "Substantial", "High"];

/// The profile's attributes of a person or a professional, below the prefix. `eid/bootstrapToken` is left out: what is
/// in it cannot be checked, so a policy that wants it names it.
const ATTRIBUTES: [&str; 19] = [
    "specVersion",
    "eid/privilegesIntermediate",
    "eid/fullName",
    "eid/firstName",
    "eid/lastName",
    "eid/alias",
    "eid/email",
    "eid/cprNumber",
    "eid/cprUuid",
    "eid/age",
    "eid/dateOfBirth",
    "eid/person/pid",
    "eid/professional/cvr",
    "eid/professional/orgName",
    "eid/professional/uuid/persistent",
    "eid/professional/rid",
    "eid/professional/productionUnit",
    "eid/professional/seNumber",
    "eid/professional/authorizedToRepresent",
];

/// Whether the profile knows an attribute of this name.
pub(super) fn has_attribute(name: &str) -> bool {
    match name.strip_prefix(CORE) {
        Some(name) => ATTRIBUTES.contains(&name),
        None => [LOA, IAL, AAL].contains(&name),
    }
}

/// The policy's lists that have none of what the profile demands, each with that.
pub(super) fn unmeetable(policy: &AssertionPolicy) -> Vec<(&'static str, &'static [&'static str])> {
    let bearer = policy.confirmation_methods.contains(&ConfirmationMethod::Bearer);
    let has = |list: &[String], demanded: &[&str]| list.iter().any(|one| demanded.contains(&one.as_str()));
    let demands: [(&str, bool, &[&str]); 4] = [
        ("spec_versions", has(&policy.spec_versions, &[VERSION]), &[VERSION]),
        ("assurance_levels", has(&policy.assurance_levels, &LEVELS), &LEVELS),
        ("name_id_formats", has(&policy.name_id_formats, &NAME_ID_FORMATS), &NAME_ID_FORMATS),
        ("confirmation_methods", bearer, &["bearer"]),
    ];
    demands.into_iter().filter(|(_, met, _)| !met).map(|(list, _, demanded)| (list, demanded)).collect()
}

pub(super) fn check(checked: &Checked<'_>, violations: &mut Violations) {
    let issuer = checked.assertion.issuer();
    if issuer.format().is_some_and(|format| format != ENTITY) {
        violations.add("oiosaml3-issuer", || issuer.xpath(), "the Format of Issuer is entity, or left out");
    }
    check_subject(checked, violations);
    check_attributes(checked, violations);
    check_professional(checked, violations);
}

fn check_subject(checked: &Checked<'_>, violations: &mut Violations) {
    let Some(subject) = checked.assertion.subject() else { return };
    if let Some(name_id) = subject.name_id() {
        if !name_id.format().is_some_and(|format| NAME_ID_FORMATS.contains(&format)) {
            let text = "the Format of NameID is persistent or transient";
            violations.add("oiosaml3-name-id", || name_id.xpath(), text);
        }
        if !is_subject(name_id.value()) {
            let text = "NameID is https://data.gov.dk/model/core/eid/{person|professional}/uuid/ and a UUID";
            violations.add("oiosaml3-name-id", || name_id.xpath(), text);
        }
    }
    let mut bearers = subject.confirmations().filter(|confirmation| confirmation.method() == BEARER).peekable();
    if bearers.peek().is_none() {
        violations.add("oiosaml3-bearer", || subject.xpath(), "there is a SubjectConfirmation by bearer");
    }
    // That it has NotOnOrAfter is every policy's rule.
    for data in bearers.filter_map(|confirmation| confirmation.data()) {
        if data.recipient().is_none_or(str::is_empty) {
            violations.add("oiosaml3-bearer", || data.xpath(), "a bearer's SubjectConfirmationData has a Recipient");
        }
        if data.not_before().is_some() {
            violations.add("oiosaml3-bearer", || data.xpath(), "a bearer's SubjectConfirmationData has no NotBefore");
        }
    }
}

fn check_attributes(checked: &Checked<'_>, violations: &mut Violations) {
    let attributes = &checked.attributes;
    for (_, attribute) in attributes.iter() {
        if attribute.name_format() != Some(URI_NAMES) {
            violations.add("oiosaml3-name-format", || attribute.xpath(), "the NameFormat of an attribute is uri");
        }
    }
    if !matches!(attributes.named(SPEC_VERSION).map(single), Some(Single::Value(VERSION))) {
        let xpath = || attributes.xpath_of(SPEC_VERSION, checked.assertion);
        violations.add("oiosaml3-spec-version", xpath, format!("{SPEC_VERSION} is {VERSION}"));
    }
    for (name, required) in [(LOA, true), (IAL, false), (AAL, false)] {
        let good = match attributes.named(name).map(single) {
            None => !required,
            Some(Single::Value(level)) => LEVELS.contains(&level),
            Some(_) => false,
        };
        if !good {
            let text = format!("{name} is Low, Substantial or High");
            violations.add("oiosaml3-assurance", || attributes.xpath_of(name, checked.assertion), text);
        }
    }
}

/// A professional has a company with a number and a name.
fn check_professional(checked: &Checked<'_>, violations: &mut Violations) {
    let attributes = &checked.attributes;
    let name_id = checked.assertion.subject().and_then(|subject| subject.name_id());
    let by_name = name_id.is_some_and(|name_id| is_professional(name_id.value()));
    if !by_name && !attributes.iter().any(|(name, _)| is_professional(name)) {
        return;
    }
    let is_cvr = |cvr: &str| cvr.len() == 8 && cvr.bytes().all(|byte| byte.is_ascii_digit());
    if !matches!(attributes.core(CVR), Single::Value(cvr) if is_cvr(cvr)) {
        let xpath = || attributes.xpath_of(&format!("{CORE}{CVR}"), checked.assertion);
        let text = format!("a professional has {CORE}{CVR}, eight digits");
        violations.add("oiosaml3-professional", xpath, text);
    }
    let org_name = "eid/professional/orgName";
    if !matches!(attributes.core(org_name), Single::Value(name) if !name.trim().is_empty()) {
        let xpath = || attributes.xpath_of(&format!("{CORE}{org_name}"), checked.assertion);
        violations.add("oiosaml3-professional", xpath, format!("a professional has {CORE}{org_name}"));
    }
}

/// `https://data.gov.dk/model/core/eid/{person|professional}/uuid/<UUID>`.
fn is_subject(value: &str) -> bool {
    let Some(path) = value.strip_prefix(CORE) else { return false };
    let uuid = ["eid/person/uuid/", "eid/professional/uuid/"].iter().find_map(|prefix| path.strip_prefix(prefix));
    uuid.is_some_and(|uuid| {
        let mut groups = uuid.split('-');
        let sizes = [8, 4, 4, 4, 12];
        let all = sizes.iter().all(|size| {
            groups.next().is_some_and(|group| group.len() == *size && group.bytes().all(|b| b.is_ascii_hexdigit()))
        });
        all && groups.next().is_none()
    })
}
