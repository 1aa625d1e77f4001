//! What is said about the subject.

use super::{CORE, Checked, LEVEL_CLASS, Profile, profile};
use crate::{
    saml::{Assertion, Attribute},
    violation::Violations,
};

pub(super) const SPEC_VERSION: &str = "https://data.gov.dk/model/core/specVersion";

/// The level of assurance (NSIS), and the two parts it is made of.
pub(super) const LOA: &str = "https://data.gov.dk/concept/core/nsis/loa";
pub(super) const IAL: &str = "https://data.gov.dk/concept/core/nsis/ial";
pub(super) const AAL: &str = "https://data.gov.dk/concept/core/nsis/aal";

/// The level of assurance in OIOSAML 2.
pub(super) const OLD_LEVEL: &str = "dk:gov:saml:attribute:AssuranceLevel";

/// Assertions usually have fewer attributes than this.
const USUAL: usize = 24;

/// The attributes of an assertion, by name.
pub(super) struct Attributes<'a>(Vec<(&'a str, Attribute<'a>)>);

/// What an attribute that ought to have one value has.
pub(super) enum Single<'a> {
    Absent,
    Value(&'a str),
    /// Several values, none, or elements
    Other,
}

impl<'a> Attributes<'a> {
    pub(super) fn of(assertion: Assertion<'a>) -> Attributes<'a> {
        let mut attributes = Vec::with_capacity(USUAL);
        attributes.extend(assertion.attributes().map(|attribute| (attribute.name(), attribute)));
        Attributes(attributes)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&'a str, Attribute<'a>)> + '_ {
        self.0.iter().copied()
    }

    /// The first attribute of a name; that there is no second is a rule of its own.
    pub(super) fn named(&self, name: &str) -> Option<Attribute<'a>> {
        self.0.iter().find(|(other, _)| *other == name).map(|(_, attribute)| *attribute)
    }

    /// The one value of an attribute that `OIOSAML` calls by this name below its prefix.
    pub(super) fn core(&self, name: &str) -> Single<'a> {
        let found = self.0.iter().find(|(other, _)| other.strip_prefix(CORE) == Some(name));
        found.map_or(Single::Absent, |(_, attribute)| single(*attribute))
    }

    pub(super) fn xpath_of(&self, name: &str, otherwise: Assertion<'_>) -> String {
        self.named(name).map_or_else(|| otherwise.xpath(), Attribute::xpath)
    }
}

pub(super) fn single(attribute: Attribute<'_>) -> Single<'_> {
    let mut values = attribute.values();
    match (values.next().and_then(|value| value.text()), values.next()) {
        (Some(text), None) => Single::Value(text),
        _ => Single::Other,
    }
}

pub(super) fn check(checked: &Checked<'_>, violations: &mut Violations) {
    let Checked { policy, assertion, attributes, .. } = checked;
    for (name, attribute) in attributes.iter() {
        let xpath = || attribute.xpath();
        if policy.forbidden_attributes.iter().any(|pattern| pattern.matches(name)) {
            violations.add("attribute-forbidden", xpath, "this attribute is not allowed");
        } else if !is_allowed(checked, name) {
            let text = "the Name of an attribute is one of the allowed, letter for letter";
            violations.add("attribute-not-allowed", xpath, text);
        }
        if attribute.friendly_name().is_some_and(|friendly| !is_its_friendly_name(checked, name, friendly)) {
            let text = "FriendlyName is the last part of Name, or one that is allowed for it, or left out";
            violations.add("friendly-name", xpath, text);
        }
        let elements = attribute.values().any(|value| value.is_element_valued());
        if elements && !policy.element_valued_attributes.iter().any(|allowed| allowed == name) {
            violations.add("attribute-elements", xpath, "the values of this attribute are texts");
        }
    }
    check_twins(attributes, violations);
    for required in &policy.required_attributes {
        let there = attributes.named(required).is_some_and(|attribute| {
            attribute.values().any(|value| value.text().is_none_or(|text| !text.trim().is_empty()))
        });
        if !there {
            // The name is the policy's, not the assertion's.
            let text = format!("the attribute {required} is there, with a value");
            violations.add("attribute-required", || attributes.xpath_of(required, *assertion), text);
        }
    }
    one_of(checked, SPEC_VERSION, &policy.spec_versions, "spec-version", violations);
    one_of(checked, LOA, &policy.assurance_levels, "assurance-level", violations);
    // What the level is made of is as much a promise as the level.
    for part in [IAL, AAL, OLD_LEVEL] {
        if attributes.named(part).is_some() {
            one_of(checked, part, &policy.assurance_levels, "assurance-level", violations);
        }
    }
    check_authentication(checked, violations);
}

fn is_allowed(checked: &Checked<'_>, name: &str) -> bool {
    let policy = checked.policy;
    let listed = policy.allowed_attributes.iter().chain(&policy.required_attributes).any(|allowed| allowed == name);
    let of_profile = || policy.profile == Some(Profile::Oiosaml3) && profile::has_attribute(name);
    listed
        || name == SPEC_VERSION && !policy.spec_versions.is_empty()
        || [LOA, IAL, AAL].contains(&name) && !policy.assurance_levels.is_empty()
        || of_profile()
}

/// Readers that look attributes up by FriendlyName must find what others find by Name.
fn is_its_friendly_name(checked: &Checked<'_>, name: &str, friendly: &str) -> bool {
    let last = name.rsplit(['/', ':']).next().unwrap_or_default();
    let allowed = checked.policy.friendly_names.iter().filter(|(attribute, _)| attribute == name);
    friendly == last || allowed.into_iter().any(|(_, allowed)| allowed == friendly)
}

/// No Name or FriendlyName that is another attribute's: readers disagree on which one counts.
fn check_twins(attributes: &Attributes<'_>, violations: &mut Violations) {
    let all = || attributes.iter().enumerate();
    let names = all().map(|(index, (name, _))| (name, index));
    let friendly_names = all().filter_map(|(index, (_, attribute))| Some((attribute.friendly_name()?, index)));
    let mut keys: Vec<(&str, usize)> = Vec::with_capacity(2 * attributes.0.len());
    keys.extend(names.chain(friendly_names));
    keys.sort_unstable();
    let same = keys.windows(2).filter(|pair| pair[0].0 == pair[1].0 && pair[0].1 != pair[1].1);
    let mut twins: Vec<usize> = same.map(|pair| pair[1].1).collect();
    twins.sort_unstable();
    for twin in twins {
        let text = "no two attributes have the same name: readers disagree on which one counts";
        violations.add("attribute-twice", || attributes.0[twin].1.xpath(), text);
    }
}

/// How the person has shown who he is: a class that the policy knows, which may be the level of assurance.
fn check_authentication(checked: &Checked<'_>, violations: &mut Violations) {
    let Checked { policy, assertion, attributes, .. } = checked;
    let level = attributes.named(LOA).map(single);
    for statement in assertion.authn_statements() {
        let good = statement.class_ref().is_some_and(|class| match class.strip_prefix(LEVEL_CLASS) {
            Some(of) => {
                matches!(level, Some(Single::Value(level)) if level == of)
                    && policy.assurance_levels.iter().any(|allowed| allowed == of)
            }
            None => policy.authn_context_classes.iter().any(|allowed| allowed == class),
        });
        if !good {
            let text = format!(
                "AuthnContextClassRef is there, one of the allowed or {LEVEL_CLASS} and the level that {LOA} says"
            );
            violations.add("authn-context", || statement.xpath(), text);
        }
        for declared in statement.decl_refs() {
            violations.add("authn-context", || declared.xpath(), "there is no AuthnContextDeclRef");
        }
        for authority in statement.authorities() {
            if !policy.authenticating_authorities.iter().any(|allowed| allowed == authority.text()) {
                violations.add("authn-context", || authority.xpath(), "AuthenticatingAuthority is one of the allowed");
            }
        }
    }
}

/// An attribute that is there once with one of the allowed values, or, where none is allowed, is not there.
fn one_of(checked: &Checked<'_>, name: &str, allowed: &[String], rule: &'static str, violations: &mut Violations) {
    let attribute = checked.attributes.named(name);
    let good = match attribute.map(single) {
        None => allowed.is_empty(),
        Some(Single::Value(value)) => allowed.iter().any(|one| one == value),
        Some(_) => false,
    };
    if !good {
        let text = if allowed.is_empty() {
            format!("{name} is left out: no value is allowed")
        } else {
            format!("{name} is there with one value, one of the allowed")
        };
        violations.add(rule, || checked.attributes.xpath_of(name, checked.assertion), text);
    }
}
