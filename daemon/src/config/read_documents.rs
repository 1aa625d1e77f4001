//! Reads `[tenant.grant.assertion]` and `[tenant.grant.jws]`: which documents a tenant may have signed. What they do
//! not allow is denied, and a grant to sign documents without one is refused.

use std::{sync::Arc, time::Duration};

use segl_assertion::{
    Pattern,
    jws::{self, ClaimRule, JwsPolicy},
    policy::{AssertionPolicy, CapacityRule, Profile},
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
        validity_max_s: section.duration("validity_max", "0s", range.clone()).as_secs(),
        session_max_s: section.value("session_max").and_then(|value| value.duration(range)).map(|max| max.as_secs()),
        clock_distance_max_s: section
            .duration("clock_distance_max", "30s", Duration::ZERO..=CLOCK_DISTANCE_MAX)
            .as_secs(),
        name_id_formats: texts(&section, "name_id_formats"),
        required_attributes: texts(&section, "required_attributes"),
        forbidden_attributes: patterns(&section, "forbidden_attributes"),
        element_valued_attributes: texts(&section, "element_valued_attributes"),
        spec_versions: texts(&section, "spec_versions"),
        assurance_levels: texts(&section, "assurance_levels"),
        capacity: section.one_of("capacity", CapacityRule::Agrees, &rules),
        profile: section.value("profile").and_then(|value| value.one_of(&[("oiosaml3", Profile::Oiosaml3)])),
    };
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
        capacity_claim: section.value("capacity_claim").and_then(Value::text).map(str::to_owned),
    };
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
