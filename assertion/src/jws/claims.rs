//! The policy for a payload's claims (RFC 7519): implicit deny.

use std::collections::BTreeSet;

use super::json::{Json, Object, pointer, told};
use crate::{Capacity, Pattern, violation::Violations};

/// Longest `jti` in bytes: it goes into the audit record.
const JTI_MAX: usize = 128;

/// The last second that every reader's number can hold exactly (2^53 - 1, RFC 8259 §6).
const NUMERIC_DATE_MAX: u64 = (1 << 53) - 1;

/// Claims that a reader acts upon by itself.
const REGISTERED: [&str; 13] =
    ["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "vct", "cnf", "_sd", "_sd_alg", "status", "nonce"];

/// What may be signed. [`JwsPolicy::default`] allows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JwsPolicy {
    /// `typ` is there and is one of these; with none, `typ` must be absent
    pub types: Vec<String>,
    /// If `cty` is there, it is one of these
    pub content_types: Vec<String>,
    /// Further header parameters that the caller may send (see [`super::may_be_allowed`])
    pub header_parameters: Vec<String>,
    /// The payload is no token but sealed parameters: `iss`, `sub`, `aud`, `exp` and `nbf` must be absent, so that it
    /// cannot be passed off as one, and the five rules below do not count
    pub no_token: bool,
    /// `iss` is there and is one of these
    pub issuers: Vec<String>,
    /// `aud` is there and every value matches one of these; with none, `aud` must be absent
    pub audiences: Vec<Pattern>,
    /// `exp` is there, after now, and at most this long after now and after `iat`
    pub lifetime_max_s: u64,
    /// `iat` and `nbf`, if there, are at most this far from now
    pub clock_distance_max_s: u64,
    /// Rules for single claims
    pub claims: Vec<ClaimRule>,
    /// Claims that must not be there
    pub forbidden_claims: Vec<String>,
    /// The claim that says for which company the person acts: the request's CVR, and absent when he acts as himself.
    /// With none, the request's "acting as" is not compared with the payload.
    pub capacity_claim: Option<String>,
    /// Whether claims may be behind digests (SD-JWT) where `typ` says so. A policy cannot see them, so this says nothing
    /// together with a rule that needs the whole payload: see [`JwsPolicy::needs_the_whole_payload`].
    pub selective: bool,
}

impl JwsPolicy {
    /// Whether a rule demands that a claim is absent, or of a kind if it is there: what is disclosed later could break
    /// it. (A claim that is required stands in clear, and RFC 9901 §7.3 refuses a disclosure of the same name.)
    pub fn needs_the_whole_payload(&self) -> bool {
        self.no_token
            || !self.forbidden_claims.is_empty()
            || self.capacity_claim.is_some()
            || self.claims.iter().any(|rule| !rule.required)
    }
}

/// What a claim on the top level must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimRule {
    /// Its name
    pub name: String,
    /// Whether it must be there
    pub required: bool,
    /// If it is there, it is a text that matches one of these; with none, it may be anything but `null`
    pub values: Vec<Pattern>,
}

/// Checks the payload's claims.
pub(super) fn check(
    claims: &Object,
    policy: &JwsPolicy,
    capacity: Option<Capacity<'_>>,
    now_unix_s: u64,
    violations: &mut Violations,
) {
    if policy.no_token {
        for name in ["iss", "sub", "aud", "exp", "nbf"] {
            absent(claims, name, "claim-of-token", violations);
        }
    } else {
        check_token(claims, policy, now_unix_s, violations);
    }
    if let Some(jti) = claims.get("jti") {
        let good = |text: &str| (1..=JTI_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
        if !jti.text().is_some_and(good) {
            let text = format!("`jti` is a text of 1 to {JTI_MAX} bytes without control characters");
            violations.add("claim-jti", || "/payload/jti", text);
        }
    }
    for rule in &policy.claims {
        check_rule(claims, rule, violations);
    }
    for name in &policy.forbidden_claims {
        absent(claims, name, "claim-forbidden", violations);
    }
    check_case(claims, policy, violations);
    if let Some(name) = &policy.capacity_claim {
        check_capacity(claims, name, capacity, violations);
    }
}

fn check_token(claims: &Object, policy: &JwsPolicy, now_unix_s: u64, violations: &mut Violations) {
    let issuer = claims.get("iss").and_then(Json::text);
    if !issuer.is_some_and(|issuer| policy.issuers.iter().any(|allowed| allowed == issuer)) {
        violations.add("claim-iss", || "/payload/iss", "`iss` is there, and is one of the allowed");
    }
    check_audience(claims, policy, violations);

    let near = |time: u64| time.abs_diff(now_unix_s) <= policy.clock_distance_max_s;
    let distance = policy.clock_distance_max_s;
    for (name, rule) in [("iat", "claim-iat"), ("nbf", "claim-nbf")] {
        if let Some(value) = claims.get(name)
            && !date(value).is_some_and(near)
        {
            let text = format!("`{name}` is an integer of seconds, at most {distance} s from this site's clock");
            violations.add(rule, || pointer("/payload", name), text);
        }
    }
    let issued = claims.get("iat").and_then(date).unwrap_or(now_unix_s).min(now_unix_s);
    let latest = issued.saturating_add(policy.lifetime_max_s);
    let lives = |exp: u64| exp > now_unix_s && exp <= latest;
    if !claims.get("exp").and_then(date).is_some_and(lives) {
        let max = policy.lifetime_max_s;
        let text =
            format!("`exp` is there, an integer of seconds after now, at most {max} s after now and after `iat`");
        violations.add("claim-exp", || "/payload/exp", text);
    }
}

/// `aud` is a text or an array of texts (RFC 7519 §4.1.3). Readers look for themselves among them, so each is checked.
fn check_audience(claims: &Object, policy: &JwsPolicy, violations: &mut Violations) {
    const RULE: &str = "claim-aud";
    let allowed = |value: &Json| value.text().is_some_and(|text| policy.audiences.iter().any(|p| p.matches(text)));
    match claims.get("aud") {
        None if policy.audiences.is_empty() => {}
        Some(_) if policy.audiences.is_empty() => violations.add(RULE, || "/payload/aud", "left out: none is allowed"),
        Some(Json::Array(items)) if !items.is_empty() => {
            for (index, _) in items.iter().enumerate().filter(|(_, item)| !allowed(item)) {
                violations.add(RULE, || format!("/payload/aud/{index}"), "every `aud` is one of the allowed");
            }
        }
        Some(value) if allowed(value) => {}
        _ => violations.add(RULE, || "/payload/aud", "`aud` is there, and is one of the allowed or an array of them"),
    }
}

fn check_rule(claims: &Object, rule: &ClaimRule, violations: &mut Violations) {
    let place = || pointer("/payload", &rule.name);
    match claims.get(&rule.name) {
        None if !rule.required => {}
        None | Some(Json::Null) => violations.add("claim-required", place, "this claim is there, and is not null"),
        Some(_) if rule.values.is_empty() => {}
        Some(value) if value.text().is_some_and(|text| rule.values.iter().any(|pattern| pattern.matches(text))) => {}
        Some(_) => violations.add("claim-value", place, "this claim is a text, one of the allowed"),
    }
}

/// Some readers (Go's encoding/json, with Unicode's simple folding) take a member whose name differs in case for the
/// one they look for, so such a member would pass a check and be acted upon.
fn check_case(claims: &Object, policy: &JwsPolicy, violations: &mut Violations) {
    let own = policy.claims.iter().map(|rule| &*rule.name);
    let own = own.chain(policy.forbidden_claims.iter().map(|name| &**name)).chain(policy.capacity_claim.as_deref());
    let known: BTreeSet<&str> = REGISTERED.into_iter().chain(own).collect();
    let folds: BTreeSet<String> = known.iter().map(|name| folded(name)).collect();
    for name in claims.keys() {
        if !known.contains(&**name) && folds.contains(&folded(name)) {
            let text = "a claim's name does not differ from a known one by upper and lower case alone";
            violations.add("claim-case", || told("/payload", name), text);
        }
    }
}

fn check_capacity(claims: &Object, name: &str, capacity: Option<Capacity<'_>>, violations: &mut Violations) {
    let place = || pointer("/payload", name);
    match capacity {
        None => violations.add("capacity", String::new, "the request says in which capacity the person acts"),
        Some(Capacity::Citizen) => absent(claims, name, "capacity", violations),
        Some(Capacity::Company(cvr)) if claims.get(name).and_then(Json::text) == Some(cvr) => {}
        Some(Capacity::Company(_)) => {
            violations.add("capacity", place, "this claim is the CVR number of the company that the request acts for");
        }
    }
}

fn absent(claims: &Object, name: &str, rule: &'static str, violations: &mut Violations) {
    if claims.contains_key(name) {
        violations.add(rule, || pointer("/payload", name), "this claim is left out");
    }
}

/// NumericDate (RFC 7519 §2) as an integer: readers cut fractions differently.
fn date(value: &Json) -> Option<u64> {
    match value {
        Json::Natural(seconds) if *seconds <= NUMERIC_DATE_MAX => Some(*seconds),
        _ => None,
    }
}

/// A name as readers that ignore case see it: long s and the Kelvin sign fold into ASCII too.
fn folded(name: &str) -> String {
    name.chars().flat_map(char::to_lowercase).map(|c| if c == 'ſ' { 's' } else { c }).collect()
}
