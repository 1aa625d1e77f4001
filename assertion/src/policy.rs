//! What a tenant may have signed as an assertion: implicit deny, and violations told together.
//!
//! The checks read [`Assertion`], the very tree that is digested. Nothing told repeats a value of the assertion.

mod attributes;
mod capacity;
mod privileges;
mod profile;
mod times;

use self::{
    attributes::Attributes,
    privileges::{PRIVILEGES, Privileges},
    times::Clock,
};
use crate::{Capacity, Pattern, Violation, saml::Assertion, violation::Violations};

/// Whoever bears the assertion is its subject.
const BEARER: &str = "urn:oasis:names:tc:SAML:2.0:cm:bearer";

/// Whoever holds a key that the assertion names.
const HOLDER_OF_KEY: &str = "urn:oasis:names:tc:SAML:2.0:cm:holder-of-key";

/// The prefix of the classes of authentication that are NSIS levels of assurance.
const LEVEL_CLASS: &str = "https://data.gov.dk/concept/core/nsis/loa/";

/// The prefix of the attributes' names in OIOSAML 3.
const CORE: &str = "https://data.gov.dk/model/core/";

/// What may be signed. [`AssertionPolicy::default`] allows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AssertionPolicy {
    /// Issuer is one of these
    pub issuers: Vec<String>,
    /// Every Audience matches one of these; there is at least one, in every AudienceRestriction
    pub audiences: Vec<Pattern>,
    /// Every bearer's Recipient is there, and every Recipient matches one of these; with none, it is not looked at
    pub recipients: Vec<Pattern>,
    /// By what a SubjectConfirmation confirms
    pub confirmation_methods: Vec<ConfirmationMethod>,
    /// NotOnOrAfter, of Conditions and of every SubjectConfirmationData, is at most this long after IssueInstant and
    /// after now
    pub validity_max_s: u64,
    /// SessionNotOnOrAfter, if it is there, is at most this long after IssueInstant and after now; with none,
    /// `validity_max_s`. Without it the provider decides how long its session lasts, whatever is signed.
    pub session_max_s: Option<u64>,
    /// IssueInstant is at most this far from now, NotBefore at most this far from IssueInstant, AuthnInstant at most
    /// this long after now
    pub clock_distance_max_s: u64,
    /// Format of the subject's NameID is one of these
    pub name_id_formats: Vec<String>,
    /// How the person may have shown who he is: AuthnContextClassRef is one of these. NSIS levels need not be listed:
    /// `https://data.gov.dk/concept/core/nsis/loa/X` is taken where X is the assertion's `loa` and allowed.
    pub authn_context_classes: Vec<String>,
    /// Every AuthenticatingAuthority is one of these
    pub authenticating_authorities: Vec<String>,
    /// Attributes that may be there beside the required ones, those of the profile, and `specVersion`, `loa`, `ial` and
    /// `aal` where values are listed for them. Names are compared byte for byte.
    pub allowed_attributes: Vec<String>,
    /// FriendlyNames that an attribute (its Name first) may have, beside the last part of its Name
    pub friendly_names: Vec<(String, String)>,
    /// Attributes that are there, with a value
    pub required_attributes: Vec<String>,
    /// Attributes that are not there
    pub forbidden_attributes: Vec<Pattern>,
    /// Attributes whose values may be elements
    pub element_valued_attributes: Vec<String>,
    /// `specVersion` is there once and is one of these; with none, it must be absent
    pub spec_versions: Vec<String>,
    /// NSIS `loa` is there once and is one of these, and so are `ial` and `aal` if they are there; with none, all are
    /// absent
    pub assurance_levels: Vec<String>,
    /// Whether the request's "acting as" must agree with the assertion
    pub capacity: CapacityRule,
    /// Whether somebody who acts for a company may have rights for others, represent others, and have rights for parts
    /// of companies (which do not say of which), in the same assertion
    pub other_companies: bool,
    /// The profile that is demanded beside all this
    pub profile: Option<Profile>,
}

/// What is made of the request's "acting as".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CapacityRule {
    /// The request says it, and the assertion says the same. For a company: `eid/professional/cvr` is its CVR number,
    /// or, where that is absent, a scope in `privilegesIntermediate` is; and every scope of a company is, see
    /// [`AssertionPolicy::other_companies`]. For a citizen: nothing in the assertion is of a professional or gives
    /// rights for a company.
    #[default]
    Agrees,
    /// It is not compared: for assertions that say nothing about companies
    NotCompared,
}

/// By what somebody is confirmed to be the subject (saml-profiles-2.0-os §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfirmationMethod {
    /// He bears the assertion
    Bearer,
    /// He holds the key in its one `ds:KeyInfo`
    HolderOfKey,
}

/// A bundle of further rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// OIOSAML Web SSO Profile 3.0.x, as the state's reference code checks it
    Oiosaml3,
}

/// Everything a rule can look at.
struct Checked<'a> {
    policy: &'a AssertionPolicy,
    assertion: Assertion<'a>,
    attributes: Attributes<'a>,
    privileges: Privileges,
    capacity: Option<Capacity<'a>>,
    clock: Clock,
}

impl AssertionPolicy {
    /// The lists in which nothing stands that the profile demands, by their fields' names, each with the values of
    /// which one has to stand there. With such a policy nothing is ever signed.
    pub fn unmeetable(&self) -> Vec<(&'static str, &'static [&'static str])> {
        match self.profile {
            Some(Profile::Oiosaml3) => profile::unmeetable(self),
            None => Vec::new(),
        }
    }

    /// Checks an assertion: its violations, [`VIOLATIONS_MAX`](crate::VIOLATIONS_MAX) at most, none when it may be
    /// signed. `capacity` is the request's "acting as".
    pub fn check(&self, assertion: Assertion<'_>, capacity: Option<Capacity<'_>>, now_unix_s: u64) -> Vec<Violation> {
        let attributes = Attributes::of(assertion);
        let checked = Checked {
            policy: self,
            assertion,
            privileges: Privileges::of(&attributes),
            attributes,
            capacity,
            clock: Clock::of(assertion, now_unix_s),
        };
        let mut violations = Violations::default();
        check_names(&checked, &mut violations);
        times::check(&checked, &mut violations);
        attributes::check(&checked, &mut violations);
        checked.privileges.check(|| checked.privileges_xpath(), &mut violations);
        if self.capacity == CapacityRule::Agrees {
            capacity::check(&checked, &mut violations);
        }
        if self.profile == Some(Profile::Oiosaml3) {
            profile::check(&checked, &mut violations);
        }
        violations.into_vec()
    }
}

impl Checked<'_> {
    fn privileges_xpath(&self) -> String {
        self.attributes.xpath_of(&format!("{CORE}{PRIVILEGES}"), self.assertion)
    }
}

/// Who says it, of whom, to whom.
fn check_names(checked: &Checked<'_>, violations: &mut Violations) {
    let Checked { policy, assertion, .. } = checked;
    let issuer = assertion.issuer();
    if !policy.issuers.iter().any(|allowed| allowed == issuer.value()) {
        violations.add("issuer", || issuer.xpath(), "Issuer is one of the allowed");
    }
    check_subject(checked, violations);

    let conditions = assertion.conditions();
    let mut restrictions = conditions.iter().flat_map(|conditions| conditions.audience_restrictions()).peekable();
    if restrictions.peek().is_none() {
        violations.add("audience", || assertion.xpath(), "Conditions has an AudienceRestriction");
    }
    for restriction in restrictions {
        if restriction.audiences().next().is_none() {
            violations.add("audience", || restriction.xpath(), "an AudienceRestriction has an Audience");
        }
        for audience in restriction.audiences() {
            if !policy.audiences.iter().any(|pattern| pattern.matches(audience.text())) {
                violations.add("audience", || audience.xpath(), "every Audience is one of the allowed");
            }
        }
    }
    let mut statements = assertion.authn_statements();
    if statements.next().is_none() || statements.next().is_some() {
        violations.add("authn-statement", || assertion.xpath(), "there is exactly one AuthnStatement");
    }
    let mut statements = assertion.attribute_statements();
    if statements.next().is_none() || statements.next().is_some() {
        violations.add("attribute-statement", || assertion.xpath(), "there is exactly one AttributeStatement");
    }
}

fn check_subject(checked: &Checked<'_>, violations: &mut Violations) {
    let Checked { policy, assertion, .. } = checked;
    let Some(subject) = assertion.subject() else {
        violations.add("subject", || assertion.xpath(), "there is a Subject");
        return;
    };
    match subject.name_id() {
        None => violations.add("name-id", || subject.xpath(), "Subject has a NameID"),
        Some(name_id) => {
            if !name_id.format().is_some_and(|format| policy.name_id_formats.iter().any(|allowed| allowed == format)) {
                violations.add("name-id-format", || name_id.xpath(), "NameID has a Format, one of the allowed");
            }
            if name_id.value().is_empty() {
                violations.add("name-id", || name_id.xpath(), "NameID has a value");
            }
            if name_id.name_qualifier().is_some_and(|qualifier| !policy.issuers.iter().any(|one| one == qualifier)) {
                violations.add(
                    "name-id",
                    || name_id.xpath(),
                    "NameQualifier is one of the allowed issuers, or left out",
                );
            }
            let provider = name_id.sp_name_qualifier();
            if provider.is_some_and(|provider| !policy.audiences.iter().any(|pattern| pattern.matches(provider))) {
                let text = "SPNameQualifier is one of the allowed audiences, or left out";
                violations.add("name-id", || name_id.xpath(), text);
            }
        }
    }
    if subject.confirmations().next().is_none() {
        violations.add("confirmation", || subject.xpath(), "Subject has a SubjectConfirmation");
    }
    for confirmation in subject.confirmations() {
        let method = [(BEARER, ConfirmationMethod::Bearer), (HOLDER_OF_KEY, ConfirmationMethod::HolderOfKey)]
            .into_iter()
            .find_map(|(uri, method)| (uri == confirmation.method()).then_some(method));
        if !method.is_some_and(|method| policy.confirmation_methods.contains(&method)) {
            violations.add("confirmation", || confirmation.xpath(), "Method is one of the allowed");
        }
        let keys = confirmation.data().map_or(0, |data| data.key_infos());
        if keys != usize::from(method == Some(ConfirmationMethod::HolderOfKey)) {
            let text = "holder-of-key has SubjectConfirmationData with a ds:KeyInfo, and nothing else has one";
            violations.add("confirmation", || confirmation.xpath(), text);
        }
        if confirmation.name_id().is_some() {
            violations.add("confirmation", || confirmation.xpath(), "nobody else confirms: there is no NameID here");
        }
        let good = match confirmation.data().and_then(|data| data.recipient()) {
            Some(recipient) => policy.recipients.iter().any(|pattern| pattern.matches(recipient)),
            None => method != Some(ConfirmationMethod::Bearer),
        };
        if !policy.recipients.is_empty() && !good {
            violations.add("recipient", || confirmation.xpath(), "Recipient is there, one of the allowed");
        }
    }
}

#[cfg(test)]
mod attacks;
#[cfg(test)]
mod tests;
