//! Tests of `prepare`: what comes out, and what does not.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::Pattern;

const NOW: u64 = 1_800_000_000;

/// RFC 7515, appendix A.2.
const CLAIMS: &[u8] = b"{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n \"http://example.com/is_root\":true}";

fn policy() -> JwsPolicy {
    JwsPolicy {
        types: vec!["JWT".to_owned()],
        issuers: vec!["https://idp.example".to_owned()],
        audiences: vec![Pattern::new("https://sp.example/*").unwrap()],
        lifetime_max_s: 600,
        clock_distance_max_s: 30,
        claims: vec![ClaimRule { name: "sub".to_owned(), required: true, values: vec![] }],
        forbidden_claims: vec!["scope".to_owned()],
        capacity_claim: Some("cvr".to_owned()),
        ..JwsPolicy::default()
    }
}

fn claims() -> Value {
    json!({"iss": "https://idp.example", "aud": "https://sp.example/a", "sub": "someone", "iat": NOW, "exp": NOW + 300})
}

fn key(shown: Shown) -> JwsKey {
    JwsKey::new(Some("k1"), &[b"leaf".as_slice(), b"issuer".as_slice()], shown).unwrap()
}

fn ask(header: &Value, payload: &Value, policy: &JwsPolicy, capacity: Capacity<'_>) -> Result<PreparedJws, Refusal> {
    let (header, payload) = (header.to_string(), payload.to_string());
    let key = key(Shown { kid: true, ..Shown::default() });
    let algorithm = JwsAlgorithm::Ps256;
    prepare(header.as_bytes(), payload.as_bytes(), algorithm, &key, policy, Some(capacity), NOW)
}

/// The rules and places broken, in order.
fn broken(result: Result<PreparedJws, Refusal>) -> Vec<(&'static str, String)> {
    match result {
        Ok(_) => Vec::new(),
        Err(Refusal::Malformed(violation)) => vec![(violation.rule, violation.place)],
        Err(Refusal::Policy(all)) => all.into_iter().map(|violation| (violation.rule, violation.place)).collect(),
    }
}

fn signed_header(prepared: &PreparedJws) -> Map<String, Value> {
    let header = prepared.signing_input().split(|byte| *byte == b'.').next().unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap()
}

#[test]
fn the_signing_input_is_that_of_the_rfc_s_example() {
    let policy = JwsPolicy { issuers: vec!["joe".to_owned()], lifetime_max_s: 400, ..JwsPolicy::default() };
    let prepared =
        prepare(b"{}", CLAIMS, JwsAlgorithm::Rs256, &JwsKey::default(), &policy, None, 1_300_819_000).unwrap();
    let expected = "eyJhbGciOiJSUzI1NiJ9.\
        eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    assert_eq!(prepared.signing_input(), expected.as_bytes());
    assert_eq!(prepared.finish(&[0xff, 0xfe]), format!("{expected}.__4"));
}

#[test]
fn the_header_names_the_key_as_it_is_configured() {
    let shown = Shown { kid: true, x5t_s256: true, x5c: ShownChain::All };
    let prepare_with = |shown| {
        let (header, payload) = (br#"{"typ":"JWT"}"#, claims().to_string());
        let capacity = Some(Capacity::Citizen);
        prepare(header, payload.as_bytes(), JwsAlgorithm::Es256, &key(shown), &policy(), capacity, NOW).unwrap()
    };
    let header = Value::Object(signed_header(&prepare_with(shown)));
    // printf leaf | openssl dgst -sha256 -binary | basenc --base64url
    let thumbprint = "n5EWH0NDPkmm3m22gNefYBWfLkrJFyYhoShGQoFYRAs";
    assert_eq!(header["x5t#S256"], thumbprint);
    assert_eq!(header["x5c"], json!(["bGVhZg==", "aXNzdWVy"]));
    assert_eq!((&header["alg"], &header["kid"], &header["typ"]), (&json!("ES256"), &json!("k1"), &json!("JWT")));
    let header = signed_header(&prepare_with(Shown { x5c: ShownChain::Leaf, ..Shown::default() }));
    assert_eq!(Value::Object(header), json!({"alg": "ES256", "typ": "JWT", "x5c": ["bGVhZg=="]}));
    assert_eq!(Value::Object(signed_header(&prepare_with(Shown::default()))), json!({"alg": "ES256", "typ": "JWT"}));
}

#[test]
fn what_the_caller_says_of_the_key_is_the_key_s_own_or_refused() {
    let thumbprint = key(Shown::default()).x5t_s256.unwrap();
    let chain = json!(["bGVhZg==", "aXNzdWVy"]);
    let equal = json!({"typ": "JWT", "alg": "PS256", "kid": "k1", "x5t#S256": thumbprint, "x5c": chain});
    let prepared = ask(&equal, &claims(), &policy(), Capacity::Citizen).unwrap();
    assert_eq!(Value::Object(signed_header(&prepared)), equal);
    for (name, value, rule) in [
        ("alg", json!("none"), "header-alg"),
        ("alg", json!("PS384"), "header-alg"),
        ("alg", json!("ps256"), "header-alg"),
        ("kid", json!("k2"), "header-kid"),
        ("kid", json!(null), "header-kid"),
        ("x5t#S256", json!("AAAA"), "header-x5t-s256"),
        ("x5c", json!([]), "header-x5c"),
        ("x5c", json!(["aXNzdWVy"]), "header-x5c"),
        ("x5c", json!("bGVhZg=="), "header-x5c"),
        ("x5c", json!(["bGVhZg==", "aXNzdWVy", "aXNzdWVy"]), "header-x5c"),
    ] {
        let mut header = equal.clone();
        header[name] = value;
        let place = pointer_of(name);
        assert_eq!(broken(ask(&header, &claims(), &policy(), Capacity::Citizen)), [(rule, place)], "{header}");
    }
    let policy = JwsPolicy { issuers: vec!["joe".to_owned()], lifetime_max_s: 400, ..JwsPolicy::default() };
    let header = br#"{"kid":"k1","x5c":["bGVhZg=="],"x5t#S256":"A"}"#;
    let nameless = JwsKey::default();
    let refused = prepare(header, CLAIMS, JwsAlgorithm::Rs256, &nameless, &policy, None, 1_300_819_000);
    assert_eq!(broken(refused).len(), 3);
}

fn pointer_of(name: &str) -> String {
    format!("/header/{name}")
}

#[test]
fn no_header_parameter_is_let_in_that_is_not_allowed() {
    let mut wide = policy();
    wide.header_parameters = HEADER_PARAMETERS_NEVER.iter().map(|name| (*name).to_owned()).collect();
    wide.header_parameters.extend(["nonce".to_owned(), "JKU".to_owned(), "Typ".to_owned()]);
    for name in ["jku", "jwk", "x5u", "x5t", "crit", "b64", "zip", "enc", "JKU", "Typ", "other", ""] {
        let mut header = json!({"typ": "JWT"});
        header[name] = json!(["exp"]);
        let told = if ["JKU", "Typ", "other", ""].contains(&name) { "*" } else { name };
        let expected = [("header-parameter", pointer_of(told))];
        assert_eq!(broken(ask(&header, &claims(), &wide, Capacity::Citizen)), expected, "{name}");
    }
    let prepared = ask(&json!({"typ": "JWT", "nonce": {"a": [-1, true, null]}}), &claims(), &wide, Capacity::Citizen);
    assert_eq!(signed_header(&prepared.unwrap())["nonce"], json!({"a": [-1, true, null]}));
    let float = ask(&json!({"typ": "JWT", "nonce": [1.5]}), &claims(), &wide, Capacity::Citizen);
    assert_eq!(broken(float), [("header-number", "/header/nonce".to_owned())]);
    let narrow = ask(&json!({"typ": "JWT", "nonce": "n"}), &claims(), &policy(), Capacity::Citizen);
    assert_eq!(broken(narrow), [("header-parameter", "/header/nonce".to_owned())]);
}

#[test]
fn a_policy_that_says_nothing_allows_nothing() {
    let payload = json!({"iss": "", "aud": [], "exp": NOW, "iat": NOW});
    let rules: Vec<_> =
        broken(ask(&json!({"typ": "JWT", "cty": ""}), &payload, &JwsPolicy::default(), Capacity::Citizen))
            .into_iter()
            .map(|(rule, _)| rule)
            .collect();
    assert_eq!(rules, ["header-cty", "header-typ", "claim-iss", "claim-aud", "claim-exp"]);
    let rules = broken(ask(&json!({}), &json!({}), &JwsPolicy::default(), Capacity::Citizen));
    assert_eq!(rules.len(), 2, "{rules:?}");
}

#[test]
fn every_violation_is_told_at_once_with_its_place_and_without_the_value() {
    let header = json!({"alg": "none", "jwk": {}, "typ": "at+jwt"});
    let payload = json!({
        "iss": "https://evil.example", "aud": ["https://sp.example/a", "https://secret.example/"], "exp": NOW + 601,
        "iat": NOW - 31, "nbf": NOW + 31, "scope": "all", "Exp": 9, "jti": "", "cvr": "12345678"
    });
    let Err(Refusal::Policy(all)) = ask(&header, &payload, &policy(), Capacity::Company("87654321")) else {
        panic!("this must be refused by the policy")
    };
    let told: Vec<_> = all.iter().map(|violation| (violation.rule, &*violation.place)).collect();
    assert_eq!(
        told,
        [
            ("header-alg", "/header/alg"),
            ("header-parameter", "/header/jwk"),
            ("header-typ", "/header/typ"),
            ("claim-iss", "/payload/iss"),
            ("claim-aud", "/payload/aud/1"),
            ("claim-iat", "/payload/iat"),
            ("claim-nbf", "/payload/nbf"),
            ("claim-exp", "/payload/exp"),
            ("claim-jti", "/payload/jti"),
            ("claim-required", "/payload/sub"),
            ("claim-forbidden", "/payload/scope"),
            ("claim-case", "/payload/*"),
            ("capacity", "/payload/cvr"),
        ]
    );
    let told = format!("{all:?}");
    for value in ["evil", "secret", "12345678", "at+jwt"] {
        assert!(!told.contains(value), "{value} is repeated in {told}");
    }
}

#[test]
fn what_the_policy_asks_for_is_there() {
    let without = |name: &str| {
        let mut payload = claims();
        payload.as_object_mut().unwrap().remove(name);
        broken(ask(&json!({"typ": "JWT"}), &payload, &policy(), Capacity::Citizen))
    };
    for (name, rule) in [("iss", "claim-iss"), ("aud", "claim-aud"), ("exp", "claim-exp"), ("sub", "claim-required")] {
        assert_eq!(without(name), [(rule, format!("/payload/{name}"))]);
    }
    assert_eq!(without("iat"), []);
    let untyped = ask(&json!({}), &claims(), &policy(), Capacity::Citizen);
    assert_eq!(broken(untyped), [("header-typ", "/header/typ".to_owned())]);
    for aud in [json!(""), json!([]), json!(["https://sp.example/a", 1]), json!({}), json!("https://other.example/a")] {
        let mut payload = claims();
        payload["aud"] = aud;
        let rules = broken(ask(&json!({"typ": "JWT"}), &payload, &policy(), Capacity::Citizen));
        assert_eq!(rules.len(), 1, "{payload}: {rules:?}");
        assert_eq!(rules[0].0, "claim-aud");
    }
}

#[test]
fn a_token_lives_as_long_as_the_policy_says_and_no_longer() {
    for (exp, iat, good) in [
        (json!(NOW + 600), json!(NOW), true),
        (json!(NOW + 601), json!(NOW), false),
        (json!(NOW + 600), json!(NOW - 1), false),
        (json!(NOW + 600), json!(NOW + 30), true),
        (json!(NOW + 601), json!(NOW + 30), false),
        (json!(NOW), json!(NOW), false),
        (json!(NOW + 1), json!(NOW - 30), true),
        (json!(u64::MAX), json!(NOW), false),
        (json!((NOW + 300).to_string()), json!(NOW), false),
        (json!(NOW as f64 + 300.0), json!(NOW), false),
        (json!(NOW + 300), json!(NOW as f64), false),
        (json!(NOW + 300), json!(-1), false),
        (json!(null), json!(NOW), false),
    ] {
        let mut payload = claims();
        payload["exp"] = exp;
        payload["iat"] = iat;
        let result = ask(&json!({"typ": "JWT"}), &payload, &policy(), Capacity::Citizen);
        assert_eq!(result.is_ok(), good, "{payload}");
    }
}

#[test]
fn acting_as_agrees_with_the_payload() {
    let mut of_company = claims();
    of_company["cvr"] = json!("12345678");
    let header = json!({"typ": "JWT"});
    assert!(ask(&header, &of_company, &policy(), Capacity::Company("12345678")).is_ok());
    assert!(ask(&header, &claims(), &policy(), Capacity::Citizen).is_ok());
    let place = "/payload/cvr".to_owned();
    for (payload, capacity) in [
        (&of_company, Capacity::Company("87654321")),
        (&of_company, Capacity::Citizen),
        (&claims(), Capacity::Company("12345678")),
    ] {
        assert_eq!(broken(ask(&header, payload, &policy(), capacity)), [("capacity", place.clone())]);
    }
    let unsaid = prepare(
        header.to_string().as_bytes(),
        claims().to_string().as_bytes(),
        JwsAlgorithm::Ps256,
        &key(Shown::default()),
        &policy(),
        None,
        NOW,
    );
    assert_eq!(broken(unsaid), [("capacity", String::new())]);
}

#[test]
fn sealed_parameters_cannot_be_passed_off_as_a_token() {
    let policy = JwsPolicy { no_token: true, ..JwsPolicy::default() };
    assert!(ask(&json!({}), &json!({"documentFormat": "text"}), &policy, Capacity::Citizen).is_ok());
    let posing = json!({"iss": "a", "sub": "a", "aud": "a", "exp": 1, "nbf": 1});
    assert_eq!(broken(ask(&json!({}), &posing, &policy, Capacity::Citizen)).len(), 5);
    assert_eq!(broken(ask(&json!({}), &json!({"ISS": "a"}), &policy, Capacity::Citizen))[0].0, "claim-case");
}

#[test]
fn an_sd_jwt_is_signed_when_its_digests_are_as_the_standard_says() {
    let digest = |byte: u8| URL_SAFE_NO_PAD.encode([byte; 32]);
    let vct = ClaimRule {
        name: "vct".to_owned(),
        required: true,
        values: vec![Pattern::new("https://data.gov.dk/vct/pid").unwrap()],
    };
    let policy = JwsPolicy {
        types: vec!["dc+sd-jwt".to_owned()],
        issuers: vec!["https://idp.example".to_owned()],
        lifetime_max_s: 90 * 86_400,
        clock_distance_max_s: 30,
        claims: vec![vct],
        selective: true,
        ..JwsPolicy::default()
    };
    let good = json!({
        "iss": "https://idp.example", "vct": "https://data.gov.dk/vct/pid", "exp": NOW + 86_400, "_sd_alg": "sha-256",
        "_sd": [digest(1), digest(2)], "nationalities": ["DK", {"...": digest(3)}], "address": {"_sd": [digest(4)]},
    });
    let header = json!({"typ": "dc+sd-jwt"});
    assert!(ask(&header, &good, &policy, Capacity::Citizen).is_ok());
    // Not where the policy does not say so, where `typ` does not, or where a rule needs to see it all.
    let rule = ClaimRule { name: "acr".to_owned(), required: false, values: Vec::new() };
    let told = |policy: JwsPolicy, header: serde_json::Value| {
        let mut rules = broken(ask(&header, &good, &policy, Capacity::Citizen));
        rules.retain(|(rule, _)| *rule == "claim-selective");
        rules.len()
    };
    let sd = || header.clone();
    assert_eq!(told(JwsPolicy { selective: false, ..policy.clone() }, sd()), 4);
    assert_eq!(told(JwsPolicy { capacity_claim: Some("cvr".to_owned()), ..policy.clone() }, sd()), 4);
    assert_eq!(told(JwsPolicy { forbidden_claims: vec!["admin".to_owned()], ..policy.clone() }, sd()), 4);
    assert_eq!(told(JwsPolicy { claims: vec![rule], ..policy.clone() }, sd()), 4);
    assert_eq!(told(JwsPolicy { no_token: true, ..policy.clone() }, sd()), 4);
    assert_eq!(told(JwsPolicy { types: Vec::new(), ..policy.clone() }, json!({})), 4);
    for (name, value, rule) in [
        ("vct", json!("urn:other"), "claim-value"),
        ("vct", json!(""), "sd-jwt-vct"),
        ("_sd_alg", json!("md5"), "sd-jwt-alg"),
        ("_sd_alg", json!("sha-512"), "sd-jwt-digest"),
        ("_sd", json!("AAAA"), "sd-jwt-digest"),
        ("_sd", json!([digest(3)]), "sd-jwt-digest"),
        ("_sd", json!([5]), "sd-jwt-digest"),
        ("address", json!({"_sd_alg": "sha-256"}), "sd-jwt-alg"),
        ("address", json!({"...": digest(5)}), "sd-jwt-array"),
        ("nationalities", json!([{"...": digest(5), "a": 1}]), "sd-jwt-array"),
    ] {
        let mut payload = good.clone();
        payload[name] = value;
        let rules = broken(ask(&header, &payload, &policy, Capacity::Citizen));
        assert!(rules.iter().any(|(told, _)| *told == rule), "{name}: {rules:?}");
    }
}

#[test]
fn what_is_too_long_or_not_an_object_is_refused_before_it_is_read() {
    let ask = |header: &[u8], payload: &[u8]| {
        let key = JwsKey::default();
        broken(prepare(header, payload, JwsAlgorithm::Es256, &key, &policy(), None, NOW))
    };
    assert_eq!(ask(b"{}", &vec![b' '; PAYLOAD_MAX + 1]), [("jws-size", "/payload".to_owned())]);
    assert_eq!(ask(&vec![b' '; HEADER_MAX + 1], b"{}"), [("jws-size", "/header".to_owned())]);
    assert_eq!(ask(b"", b"{}"), [("json-syntax", "/header".to_owned())]);
    assert_eq!(ask(b"{}", b"\"text\""), [("json-object", "/payload".to_owned())]);
    assert_eq!(ask(br#"{"alg":"ES256","alg":"none"}"#, b"{}"), [("json-duplicate-member", "/header/alg".to_owned())]);
}

/// Texts that are nearly the header or the claims that a policy looks for.
fn nearly_json() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        Just("{".to_owned()),
        Just("}".to_owned()),
        Just(",".to_owned()),
        Just(":".to_owned()),
        "\"(alg|typ|kid|x5c|iss|aud|exp|iat|_sd|\\.\\.\\.)\"",
        "-?[0-9]{1,20}(\\.5|e9)?",
        "[\\[\\]]",
    ];
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..200),
        proptest::collection::vec(token, 0..40).prop_map(|tokens| tokens.concat().into_bytes()),
    ]
}

proptest! {
    #[test]
    fn no_header_and_no_payload_make_it_panic(header in nearly_json(), payload in nearly_json()) {
        let key = key(Shown::default());
        let _ = prepare(&header, &payload, JwsAlgorithm::Es256, &key, &policy(), Some(Capacity::Citizen), NOW);
    }

    #[test]
    fn what_is_signed_is_the_payload_byte_for_byte(space in "[ \r\n\t]{0,9}", sub in "\\PC{0,30}", kid in "\\PC{1,30}") {
        let mut payload = claims();
        payload["sub"] = json!(sub);
        let payload = payload.to_string().replacen('{', &format!("{space}{{{space}"), 1);
        let shown = Shown { kid: true, ..Shown::default() };
        let key = JwsKey::new(Some(&kid), &[b"leaf"], shown).unwrap();
        let capacity = Some(Capacity::Citizen);
        let header = br#"{ "typ" : "JWT" }"#;
        let prepared = prepare(header, payload.as_bytes(), JwsAlgorithm::EdDsa, &key, &policy(), capacity, NOW).unwrap();
        prop_assert_eq!(Value::Object(signed_header(&prepared)), json!({"alg": "EdDSA", "kid": kid, "typ": "JWT"}));
        let input = prepared.signing_input().to_vec();
        let parts: Vec<_> = input.split(|byte| *byte == b'.').collect();
        prop_assert_eq!(parts.len(), 2);
        prop_assert_eq!(URL_SAFE_NO_PAD.decode(parts[1]).unwrap(), payload.as_bytes());
    }

    /// Whatever is asked: what is let through has an allowed issuer and audience and ends in time.
    #[test]
    fn nothing_passes_that_the_policy_does_not_allow(
        iss in prop_oneof!["https://idp\\.example", "https://idp\\.example/?", "\\PC{0,5}"],
        aud in prop_oneof![
            "https://sp\\.example/[a-z]{0,3}".prop_map(|one| json!(one)),
            proptest::collection::vec("https://sp\\.example[./a]{0,3}", 0..3).prop_map(|many| json!(many)),
        ],
        exp in NOW - 700..NOW + 700,
        iat in proptest::option::of(NOW - 60..NOW + 60),
    ) {
        let mut payload = json!({"iss": iss, "aud": aud, "exp": exp, "sub": "s"});
        if let Some(iat) = iat {
            payload["iat"] = json!(iat);
        }
        let allowed = iss == "https://idp.example"
            && exp > NOW
            && exp <= NOW + 600
            && iat.is_none_or(|iat| iat.abs_diff(NOW) <= 30 && exp - iat.min(exp) <= 600 )
            && {
                let one = |aud: &Value| {
                    aud.as_str().is_some_and(|aud| aud.starts_with("https://sp.example/") && aud.len() > 19)
                };
                aud.as_array().map_or(one(&aud), |many| !many.is_empty() && many.iter().all(one))
            };
        let result = ask(&json!({"typ": "JWT"}), &payload, &policy(), Capacity::Citizen);
        prop_assert_eq!(result.is_ok(), allowed, "{:?}", result);
    }
}
