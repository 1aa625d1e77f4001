//! Reads `[tenant.grant.assertion]` and `[tenant.grant.jws]`: which documents a tenant may have signed. What they do
//! not allow is denied, and a grant to sign documents without one is refused.

use std::{sync::Arc, time::Duration};

use segl_assertion::{
    Pattern,
    jws::{self, ClaimRule, JwsPolicy},
    policy::{AssertionPolicy, CapacityRule, ConfirmationMethod, Profile},
};

use super::{
    Operation,
    reader::{At, Section, Value},
};

/// Credentials (SD-JWT VC) live for years.
const LIFETIME_MAX: Duration = Duration::from_secs(20 * 366 * 86_400);

const CLOCK_DISTANCE_MAX: Duration = Duration::from_secs(3_600);

/// How long an assertion may be of use, at most: a session lasts hours.
const VALIDITY_MAX: Duration = Duration::from_secs(86_400);

pub(super) fn assertion(
    grant: &Section<'_>,
    operations: &[Operation],
    key: Option<&At<&str>>,
) -> Option<Arc<AssertionPolicy>> {
    const TITLE: &str = "[tenant.grant.assertion]";
    let section = rules(grant, "assertion", TITLE, Operation::SignAssertion, operations, key)?;
    section.required("issuers", "the values of Issuer that are signed: issuers = [\"https://...\"]");
    section.required("audiences", "for whom: audiences = [\"https://sp.example\"]");
    section.required("validity_max", "how long an assertion is good for at most: validity_max = \"1h\"");
    section.required("name_id_formats", "name_id_formats = [\"urn:oasis:names:tc:SAML:2.0:nameid-format:persistent\"]");
    let range = Duration::from_secs(1)..=VALIDITY_MAX;
    let rules = [("agrees", CapacityRule::Agrees), ("not-compared", CapacityRule::NotCompared)];
    let policy = AssertionPolicy {
        issuers: texts(&section, "issuers"),
        audiences: patterns(&section, "audiences"),
        recipients: patterns(&section, "recipients"),
        confirmation_methods: confirmation_methods(&section),
        validity_max_s: section.duration("validity_max", "0s", range.clone()).as_secs(),
        session_max_s: section.value("session_max").and_then(|value| value.duration(range)).map(|max| max.as_secs()),
        clock_distance_max_s: section
            .duration("clock_distance_max", "30s", Duration::ZERO..=CLOCK_DISTANCE_MAX)
            .as_secs(),
        name_id_formats: texts(&section, "name_id_formats"),
        authn_context_classes: authn_context_classes(&section),
        authenticating_authorities: texts(&section, "authenticating_authorities"),
        allowed_attributes: attributes(&section, "allowed_attributes"),
        friendly_names: friendly_names(&section),
        required_attributes: attributes(&section, "required_attributes"),
        forbidden_attributes: patterns(&section, "forbidden_attributes"),
        element_valued_attributes: texts(&section, "element_valued_attributes"),
        spec_versions: texts(&section, "spec_versions"),
        assurance_levels: texts(&section, "assurance_levels"),
        capacity: section.one_of("capacity", CapacityRule::Agrees, &rules),
        other_companies: section.flag("other_companies", false),
        profile: section.value("profile").and_then(|value| value.one_of(&[("oiosaml3", Profile::Oiosaml3)])),
    };
    for (list, demanded) in policy.unmeetable() {
        let at = section.value(list).or_else(|| section.value("profile"));
        let text = format!("`{list}` has nothing that `profile` demands: nothing could be signed");
        let one = if demanded.len() > 1 { ", or one of these" } else { "" };
        at.expect("a profile is said").error(text, format!("{list} = {demanded:?}{one}"));
    }
    section.finish();
    Some(Arc::new(policy))
}

pub(super) fn jws(grant: &Section<'_>, operations: &[Operation], key: Option<&At<&str>>) -> Option<Arc<JwsPolicy>> {
    const TITLE: &str = "[tenant.grant.jws]";
    let section = rules(grant, "jws", TITLE, Operation::SignJws, operations, key)?;
    let no_token = section.flag("no_token", false);
    let policy = JwsPolicy {
        types: texts(&section, "types"),
        content_types: texts(&section, "content_types"),
        header_parameters: header_parameters(&section),
        no_token,
        issuers: texts(&section, "issuers"),
        audiences: patterns(&section, "audiences"),
        lifetime_max_s: section.duration("lifetime_max", "0s", Duration::from_secs(1)..=LIFETIME_MAX).as_secs(),
        clock_distance_max_s: section
            .duration("clock_distance_max", "30s", Duration::ZERO..=CLOCK_DISTANCE_MAX)
            .as_secs(),
        claims: claims(&section),
        forbidden_claims: texts(&section, "forbidden_claims"),
        capacity_claim: capacity_claim(&section),
        selective: section.flag("selective", false),
    };
    if policy.selective
        && policy.needs_the_whole_payload()
        && let Some(value) = section.value("selective")
    {
        let text =
            "with `selective` claims stand behind digests, where no rule can see that one is absent or what it says";
        let hint = "take out `forbidden_claims`, `capacity_claim`, `no_token` and claims that are not `required`";
        value.error(text, format!("{hint}, or `selective`"));
    }
    let of_tokens = ["issuers", "audiences", "lifetime_max"];
    if no_token {
        for name in of_tokens.into_iter().filter(|name| section.has(name)) {
            if let Some(value) = section.value(name) {
                let hint = "take it out, or `no_token`";
                value.error("with `no_token` the payload has no such claim: this says nothing", hint);
            }
        }
    } else {
        section.required("issuers", "the values of `iss` that are signed: issuers = [\"https://...\"]");
        section.required("lifetime_max", "how long a token lives at most: lifetime_max = \"10m\"");
    }
    section.finish();
    Some(Arc::new(policy))
}

/// The table with the rules for an operation: there when the operation is granted, and only then.
fn rules<'a>(
    grant: &Section<'a>,
    name: &'static str,
    title: &str,
    operation: Operation,
    operations: &[Operation],
    key: Option<&At<&str>>,
) -> Option<Section<'a>> {
    let granted = operations.contains(&operation);
    match (grant.value(name), granted) {
        (Some(value), false) => {
            let hint = format!("take it out, or grant \"{operation}\" for a key of that purpose");
            value.error(format!("{title} says nothing without the operation \"{operation}\""), hint);
            None
        }
        (None, true) => {
            let span = key.map_or(grant.span(), |key| &key.span);
            let text = format!("\"{operation}\" is granted without {title}: nothing would be allowed");
            grant.collector().missing(span, text, format!("add {title} below it: what is not listed there is denied"));
            None
        }
        (None, false) => None,
        (Some(_), true) => {
            let section = grant.section(name);
            section.rename(title.to_owned());
            Some(section)
        }
    }
}

fn texts(section: &Section<'_>, name: &'static str) -> Vec<String> {
    let read = |item: Value<'_>| {
        let text = item.text()?;
        if text.is_empty() {
            item.error("an empty text", "take it out");
        }
        Some(text.to_owned())
    };
    let texts = section.value(name).and_then(|value| value.distinct(read)).unwrap_or_default();
    texts.into_iter().map(|text| text.value).collect()
}

fn patterns(section: &Section<'_>, name: &'static str) -> Vec<Pattern> {
    let patterns = section.value(name).and_then(|value| value.distinct(pattern)).unwrap_or_default();
    patterns.into_iter().map(|pattern| pattern.value).collect()
}

fn pattern(value: Value<'_>) -> Option<Pattern> {
    let text = value.text()?;
    let pattern = Pattern::new(text);
    if let Err(error) = &pattern {
        value.error(format!("{text:?}: {error}"), "a whole value, or \"https://sp.example/*\", or \"urn:dk:sp:*\"");
    }
    pattern.ok()
}

/// Names of attributes. Readers that trim or fold must find the same ones.
fn attributes(section: &Section<'_>, name: &'static str) -> Vec<String> {
    let read = |item: Value<'_>| {
        let text = item.text()?;
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            item.error(format!("{text:?} is no name of an attribute"), "printable ASCII without white space");
        }
        Some(text.to_owned())
    };
    let names = section.value(name).and_then(|value| value.distinct(read)).unwrap_or_default();
    for (index, name) in names.iter().enumerate() {
        if let Some(twin) = names[..index].iter().find(|other| other.value.eq_ignore_ascii_case(&name.value)) {
            let text = format!("{:?} and {:?} differ by upper and lower case alone", twin.value, name.value);
            section.collector().error(&name.span, text, "take one of them out: some readers take them for one");
        }
    }
    names.into_iter().map(|name| name.value).collect()
}

fn friendly_names(section: &Section<'_>) -> Vec<(String, String)> {
    let Some(items) = section.value("friendly_names").and_then(Value::list) else { return Vec::new() };
    let mut all: Vec<(String, String)> = Vec::new();
    for item in items {
        let Some(table) = item.table() else { continue };
        let attribute = table.required("attribute", "attribute = \"https://...\"").and_then(Value::text);
        let name = table.required("name", "name = \"CVR number\"").and_then(Value::text);
        table.finish();
        let (Some(attribute), Some(name)) = (attribute, name) else { continue };
        if all.iter().any(|(other, twin)| other != attribute && twin.trim().eq_ignore_ascii_case(name.trim())) {
            item.error(format!("{name:?} is the FriendlyName of another attribute"), "give each its own");
        }
        all.push((attribute.to_owned(), name.to_owned()));
    }
    all
}

fn confirmation_methods(section: &Section<'_>) -> Vec<ConfirmationMethod> {
    const METHODS: [(&str, ConfirmationMethod); 2] =
        [("bearer", ConfirmationMethod::Bearer), ("holder-of-key", ConfirmationMethod::HolderOfKey)];
    let Some(value) = section.value("confirmation_methods") else { return vec![ConfirmationMethod::Bearer] };
    let methods = value.distinct(|item| item.one_of(&METHODS)).unwrap_or_default();
    methods.into_iter().map(|method| method.value).collect()
}

/// Levels of assurance have a list of their own, and a class that is one agrees with it.
fn authn_context_classes(section: &Section<'_>) -> Vec<String> {
    const LEVELS: &str = "https://data.gov.dk/concept/core/nsis/loa/";
    let classes = texts(section, "authn_context_classes");
    if let Some(value) = section.value("authn_context_classes")
        && classes.iter().any(|class| class.starts_with(LEVELS))
    {
        let hint = "list the levels in `assurance_levels`: AuthnContextClassRef may be the assertion's own";
        value.error(format!("a class in {LEVELS} is not allowed by this list"), hint);
    }
    classes
}

/// The claim that is held against the request's capacity, or the word that none is.
fn capacity_claim(section: &Section<'_>) -> Option<String> {
    let compared = section.one_of("capacity", true, &[("agrees", true), ("not-compared", false)]);
    let claim = section.value("capacity_claim");
    match (claim, compared) {
        (None, true) => {
            let text = "[tenant.grant.jws] does not say which claim agrees with the request's capacity";
            let hint =
                "capacity_claim = \"cvr\", or capacity = \"not-compared\" for tokens that say nothing of companies";
            section.collector().missing(section.span(), text, hint);
        }
        (Some(claim), false) => {
            let text = "`capacity_claim` says nothing with capacity = \"not-compared\"";
            claim.error(text, "take one of them out");
        }
        _ => {}
    }
    claim.and_then(Value::text).map(str::to_owned)
}

fn header_parameters(section: &Section<'_>) -> Vec<String> {
    let read = |item: Value<'_>| {
        let name = item.text()?;
        if !jws::may_be_allowed(name) {
            let text = format!("{name:?} is no header parameter that a caller may send");
            item.error(text, "take it out: what names a key comes from the key, `typ` and `cty` have their own lists");
        }
        Some(name.to_owned())
    };
    let names = section.value("header_parameters").and_then(|value| value.distinct(read)).unwrap_or_default();
    names.into_iter().map(|name| name.value).collect()
}

fn claims(section: &Section<'_>) -> Vec<ClaimRule> {
    let Some(items) = section.value("claims").and_then(Value::list) else { return Vec::new() };
    let mut rules: Vec<ClaimRule> = Vec::new();
    for item in items {
        let Some(table) = item.table() else { continue };
        let name = table.required("name", "name = \"acr\"").and_then(Value::text);
        let rule = ClaimRule {
            name: name.unwrap_or_default().to_owned(),
            required: table.flag("required", true),
            values: patterns(&table, "values"),
        };
        table.finish();
        if rules.iter().any(|other| other.name == rule.name) {
            item.error(format!("there is a rule for the claim {:?} already", rule.name), "put both into one");
        }
        rules.push(rule);
    }
    rules
}
