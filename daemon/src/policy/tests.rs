//! What the policy promises, against a model that is too simple to be wrong.

use std::{borrow::Cow, collections::HashSet, sync::Arc};

use proptest::{collection::vec, prelude::*, sample::subsequence};
use segl_hsm::{Algorithm, DigestBytes, Input, InputError, KeyType};
use segl_wire::{Class, Payload};

use super::{Denied, IdentifyError, PeerIdentity, Permit, Policy, Registry, Request, Tenant};
use crate::config::{Config, Operation, Purpose, San, tests::Site};

const CLASSES: [Class; 3] = [Class::Login, Class::Signature, Class::Bulk];
const DIGEST: Payload<'static> = Payload::Digest(Cow::Borrowed(&[7; 32]));

/// Three keys of two purposes and three tenants, one of them pinned.
const TEXT: &str = r#"
[tls]
certificate = "server.pem"
private_key = "server.key"
client_ca = "clients-ca.pem"
[audit]
directory = "journal"
[limits]
message_max = "64B"

[[token]]
name = "keys"
kind = "embedded"
directory = "keys"
generate = [
    { file = "a.pem", type = "rsa-3072" },
    { file = "b.pem", type = "rsa-3072" },
    { file = "c.pem", type = "rsa-3072" },
]

[[key]]
name = "a"
purpose = "digest"
tokens = ["keys"]
file = "a.pem"
algorithms = ["rsa-pss-sha256", "rsa-pss-sha512"]
[[key]]
name = "b"
purpose = "digest"
tokens = ["keys"]
file = "b.pem"
algorithms = ["rsa-pss-sha256", "rsa-pss-sha384"]
[[key]]
name = "c"
purpose = "assertion"
tokens = ["keys"]
file = "c.pem"
algorithms = ["rsa-pss-sha256"]

[[tenant]]
name = "borger"
clients = [{ san = "URI:spiffe://segl.example/borger" }, { san = "DNS:Borger.example" }]
[[tenant.grant]]
key = "a"
classes = ["login"]
[[tenant.grant]]
key = "c"
[tenant.grant.assertion]
issuers = ["https://idp.example"]
audiences = ["https://sp.example"]
validity_max = "1h"
name_id_formats = ["urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"]

[[tenant]]
name = "erhverv"
clients = [{ san = "DNS:erhverv.example", spki_sha256 = "1111111111111111111111111111111111111111111111111111111111111111" }]
[[tenant.grant]]
key = "b"
algorithms = ["rsa-pss-sha256"]

[[tenant]]
name = "arkiv"
clients = [{ san = "DNS:erhverv.example", spki_sha256 = "2222222222222222222222222222222222222222222222222222222222222222" }]
[[tenant.grant]]
key = "a"
operations = []
"#;

fn policy_of(config: &Config) -> Policy {
    Policy::new(config, &mut Registry::new())
}

/// The permit, if what shall be signed was authorised under it.
fn sign(policy: &Policy, tenant: &Arc<Tenant>, key: &str, algorithm: &str) -> Result<Permit, Denied> {
    sign_in(policy, tenant, key, algorithm, Class::Login, &DIGEST)
}

fn sign_in(
    policy: &Policy,
    tenant: &Arc<Tenant>,
    key: &str,
    algorithm: &str,
    class: Class,
    payload: &Payload<'_>,
) -> Result<Permit, Denied> {
    let request = Request { operation: Operation::Sign, key, algorithm, class, now_unix_s: 0 };
    let permit = policy.permit(tenant, &request)?;
    permit.sign(payload)?;
    Ok(permit)
}

fn peer(uris: &[&str], names: &[&str], key: u8) -> PeerIdentity {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    PeerIdentity { uri_sans: owned(uris), dns_sans: owned(names), spki_sha256: [key; 32] }
}

#[test]
fn what_is_authorised_carries_what_was_decided() {
    let policy = policy_of(&Site::new().config(TEXT));
    let borger = &policy.tenants()[0];
    let permit = sign(&policy, borger, "a", "rsa-pss-sha256").unwrap();
    let authorised = permit.sign(&DIGEST).unwrap();
    assert_eq!(authorised.input(), &Input::Digest(DigestBytes::new(&[7; 32]).unwrap()));
    let parts = authorised.into_parts();
    assert_eq!((parts.tenant.id(), parts.key.id, &*parts.key.name), (borger.id(), policy.keys()[0].id, "a"));
    assert_eq!(
        (parts.operation, parts.algorithm, parts.class),
        (Operation::Sign, Algorithm::RsaPssSha256, Class::Login)
    );
}

#[test]
fn a_key_of_others_and_one_that_does_not_exist_look_the_same() {
    let policy = policy_of(&Site::new().config(TEXT));
    let [borger, _, arkiv] = policy.tenants() else { panic!() };
    let of_others = sign(&policy, borger, "b", "rsa-pss-sha256").unwrap_err();
    let of_nobody = sign(&policy, borger, "nothing", "no-algorithm").unwrap_err();
    let without_operation = sign(&policy, arkiv, "a", "rsa-pss-sha256").unwrap_err();
    assert_eq!(of_others, Denied::NotGranted);
    assert_eq!((&of_others, of_others.to_string()), (&of_nobody, of_nobody.to_string()));
    assert_eq!((&of_others, of_others.to_string()), (&without_operation, without_operation.to_string()));
}

#[test]
fn raw_digests_are_signed_only_with_keys_for_digests() {
    let policy = policy_of(&Site::new().config(TEXT));
    let denied = sign(&policy, &policy.tenants()[0], "c", "rsa-pss-sha256").unwrap_err();
    assert_eq!(denied, Denied::PurposeViolated { operation: Operation::Sign, purpose: Purpose::Assertion });
}

#[test]
fn each_other_refusal_names_its_cause() {
    let policy = policy_of(&Site::new().config(TEXT));
    let [borger, erhverv, _] = policy.tenants() else { panic!() };
    let denied = |tenant, key, algorithm, class, payload: Payload<'_>| {
        sign_in(&policy, tenant, key, algorithm, class, &payload).unwrap_err()
    };
    let of_key_not_grant = denied(erhverv, "b", "rsa-pss-sha384", Class::Login, DIGEST);
    assert_eq!(of_key_not_grant, Denied::AlgorithmNotAllowed);
    assert_eq!(denied(borger, "a", "RSA-PSS-SHA256", Class::Login, DIGEST), Denied::AlgorithmNotAllowed);
    assert_eq!(denied(borger, "a", "rsa-pss-sha256", Class::Bulk, DIGEST), Denied::ClassNotAllowed);
    let short = Payload::Digest(Cow::Borrowed(&[0; 31]));
    assert!(matches!(
        denied(borger, "a", "rsa-pss-sha256", Class::Login, short),
        Denied::Input(InputError::DigestLength { got: 31, .. })
    ));
    let long = Payload::Message(Cow::Borrowed(&[0; 65]));
    assert_eq!(denied(borger, "a", "rsa-pss-sha256", Class::Login, long), Denied::MessageTooLong { got: 65, max: 64 });
    let fits = Payload::Message(Cow::Borrowed(&[0; 64]));
    assert!(sign_in(&policy, borger, "a", "rsa-pss-sha256", Class::Login, &fits).is_ok());
}

#[test]
fn a_key_whose_certificate_is_not_valid_now_signs_nothing() {
    let site = Site::new();
    let text = TEXT.replace("rsa-3072\" },\n    { file = \"b", "ec-p256\" },\n    { file = \"b").replace(
        "algorithms = [\"rsa-pss-sha256\", \"rsa-pss-sha512\"]",
        "algorithms = [\"ecdsa-p256-sha256\"]\ncertificate = \"login.pem\"",
    );
    let policy = policy_of(&site.config(&text));
    let ask = |now_unix_s| {
        let (operation, algorithm) = (Operation::Sign, "ecdsa-p256-sha256");
        let request = Request { operation, key: "a", algorithm, class: Class::Login, now_unix_s };
        policy.permit(&policy.tenants()[0], &request).map(drop)
    };
    // From 2025-01-01 to 2027-01-01, both included.
    let (begin, end) = (1_735_689_600, 1_798_761_600);
    assert_eq!(
        [begin - 1, begin, end, end + 1].map(ask),
        [Err(Denied::KeyNotYetValid), Ok(()), Ok(()), Err(Denied::KeyExpired)]
    );
}

#[test]
fn a_client_is_known_by_name_and_where_it_is_pinned_by_key() {
    let policy = policy_of(&Site::new().config(TEXT));
    let identify = |peer: PeerIdentity| policy.identify(&peer).map(|(tenant, _)| tenant.name().to_string());
    let borger = "spiffe://segl.example/borger";
    assert_eq!(identify(peer(&[borger], &[], 9)), Ok("borger".into()));
    assert_eq!(identify(peer(&[], &["other.example", "BORGER.EXAMPLE"], 9)), Ok("borger".into()));
    assert_eq!(identify(peer(&[], &["erhverv.example"], 0x11)), Ok("erhverv".into()));
    assert_eq!(identify(peer(&[], &["erhverv.example"], 0x22)), Ok("arkiv".into()));
    assert_eq!(identify(peer(&[], &["erhverv.example"], 0x33)), Err(IdentifyError::Unknown));
    assert_eq!(identify(peer(&[&borger.to_uppercase()], &[], 9)), Err(IdentifyError::Unknown));
    assert_eq!(identify(peer(&["borger.example"], &[borger], 9)), Err(IdentifyError::Unknown));
    assert_eq!(identify(peer(&[borger], &["erhverv.example"], 0x11)), Err(IdentifyError::Ambiguous));
    assert_eq!(identify(peer(&[borger], &["borger.example"], 9)), Ok("borger".into()));
    assert_eq!(identify(peer(&[], &[], 9)), Err(IdentifyError::Unknown));
}

#[test]
fn a_tenant_of_the_policy_before_may_do_nothing_until_it_is_identified_anew() {
    let (site, mut registry) = (Site::new(), Registry::new());
    let before = Policy::new(&site.config(TEXT), &mut registry);
    let after = Policy::new(&site.config(TEXT), &mut registry);
    assert_ne!(before.generation(), after.generation());
    let [old, new] = [&before, &after].map(|policy| &policy.tenants()[0]);
    assert_eq!(sign(&after, old, "a", "rsa-pss-sha256").unwrap_err(), Denied::NotGranted);
    assert!(sign(&after, new, "a", "rsa-pss-sha256").is_ok());
    assert_eq!(old.id(), new.id());
}

#[test]
fn a_number_is_never_given_to_another_key() {
    let (site, mut registry) = (Site::new(), Registry::new());
    let mut ids = |text: &str| -> Vec<_> {
        Policy::new(&site.config(text), &mut registry).keys().iter().map(|key| key.id).collect()
    };
    let first = ids(TEXT);
    let moved = ids(&TEXT.replace("\"a.pem\"", "\"d.pem\""));
    assert!(!first.contains(&moved[0]), "the key is another one now");
    assert_eq!(first[1..], moved[1..]);
    assert_eq!(ids(TEXT), first);
    assert_eq!(first.iter().collect::<HashSet<_>>().len(), 3);
}

#[test]
fn a_tokens_key_must_fit_every_algorithm_configured_for_it() {
    let policy = policy_of(&Site::new().config(TEXT));
    let key = &policy.keys()[0];
    assert_eq!(key.misfit(KeyType::Rsa { bits: 3072 }, 0), None);
    assert!(key.misfit(KeyType::EcP256, 0).unwrap().contains("rsa-pss-sha256"));
    assert!(key.misfit(KeyType::Rsa { bits: 1024 }, 0).unwrap().contains("1900"));
}

/// A grant of the model: to whom, which key, with what, in which classes.
type ModelGrant = (usize, usize, Vec<Algorithm>, Vec<Class>);

fn model_grants() -> impl Strategy<Value = Vec<ModelGrant>> {
    let algorithms = subsequence(Algorithm::ALL.to_vec(), 0..=4);
    vec((0..3_usize, 0..3_usize, algorithms, subsequence(CLASSES.to_vec(), 0..=3)), 0..8)
}

fn with_grants(mut config: Config, grants: &[ModelGrant]) -> Config {
    for tenant in &mut config.tenants {
        tenant.grants.clear();
    }
    for (tenant, key, algorithms, classes) in grants {
        let key = config.keys[*key].name.clone();
        let grants = &mut config.tenants[*tenant].grants;
        if grants.iter().all(|grant| grant.key != key) {
            let (operations, algorithms, classes) = (vec![Operation::Sign], algorithms.clone(), classes.clone());
            grants.push(crate::config::Grant { key, operations, algorithms, classes, assertion: None, jws: None });
        }
    }
    config
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_not_granted_is_denied_and_what_is_granted_is_not(grants in model_grants()) {
        let config = with_grants(Site::new().config(TEXT), &grants);
        let policy = policy_of(&config);
        for (at, tenant) in policy.tenants().iter().enumerate() {
            for key in ["a", "b", "c", "d"] {
                for algorithm in Algorithm::ALL {
                    for class in CLASSES {
                        let granted = config.tenants[at].grants.iter().any(|grant| {
                            let key = config.keys.iter().find(|entry| *entry.name == *key);
                            key.is_some_and(|key| {
                                grant.key == key.name
                                    && key.purpose == Purpose::Digest
                                    && key.algorithms.contains(&algorithm)
                                    && grant.algorithms.contains(&algorithm)
                                    && grant.classes.contains(&class)
                            })
                        });
                        let payload = Payload::Message(Cow::Borrowed(b"message"));
                        let decided = sign_in(&policy, tenant, key, algorithm.name(), class, &payload);
                        prop_assert_eq!(decided.is_ok(), granted, "{} {} {} {:?}", tenant.name(), key, algorithm, class);
                    }
                }
            }
        }
    }

    #[test]
    fn any_certificate_has_the_tenants_that_name_it(
        clients in vec((0..3_usize, 0..4_u8, proptest::option::of(0..3_u8)), 0..8),
        names in vec(0..4_u8, 0..3),
        key in 0..3_u8,
    ) {
        let mut config = Site::new().config(TEXT);
        let name = |name: u8| format!("broker-{name}.example");
        for (at, tenant) in config.tenants.iter_mut().enumerate() {
            let own = clients.iter().filter(|(tenant, ..)| *tenant == at);
            let client = |san, pin: Option<u8>| crate::config::Client { san, spki_sha256: pin.map(|pin| [pin; 32]) };
            tenant.clients = own.map(|(_, san, pin)| client(San::Dns(name(*san)), *pin)).collect();
        }
        let policy = policy_of(&config);
        let matching: HashSet<_> = clients
            .iter()
            .filter(|(_, san, pin)| names.contains(san) && pin.is_none_or(|pin| pin == key))
            .map(|(tenant, ..)| *tenant)
            .collect();
        let sans = names.iter().map(|san| name(*san)).collect();
        let peer = PeerIdentity { uri_sans: Vec::new(), dns_sans: sans, spki_sha256: [key; 32] };
        let expected = match matching.len() {
            0 => Err(IdentifyError::Unknown),
            1 => Ok(matching.into_iter().next().unwrap()),
            _ => Err(IdentifyError::Ambiguous),
        };
        let found = policy.identify(&peer).map(|found| {
            policy.tenants().iter().position(|tenant| tenant.id() == found.0.id()).unwrap()
        });
        prop_assert_eq!(found, expected);
    }
}
