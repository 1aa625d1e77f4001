//! Rules one by one, each on the shortest configuration that shows it.

use std::{net::SocketAddr, time::Duration};

use segl_assertion::{
    Pattern,
    policy::{AssertionPolicy, CapacityRule, ConfirmationMethod},
};
use segl_hsm::{Algorithm, pkcs11::PinSource};
use segl_wire::Class;

use super::{MACHINE_ID, MINIMAL, Site, Surroundings, minimal_and};
use crate::config::{Clock, Operation, San, SelfTest, TokenKind, Verify};

/// Everything said, which has to be one thing.
#[track_caller]
fn only(site: &Site, text: &str, expected: &str) {
    let (_, findings) = site.read(text);
    assert!(findings.iter().count() == 1 && findings.to_string().contains(expected), "{findings}");
}

#[test]
fn the_shortest_configuration_is_complete() {
    let site = Site::new();
    let (config, findings) = site.read(MINIMAL);
    assert!(findings.is_empty(), "{findings}");
    let config = config.unwrap();
    assert_eq!(config.listen.addresses, [SocketAddr::from(([127, 0, 0, 1], 7443))]);
    assert_eq!(config.admin.address, SocketAddr::from(([127, 0, 0, 1], 9464)));
    assert_eq!(config.limits.handshake_timeout, Duration::from_secs(5));
    assert_eq!(config.audit.directory, site.path("journal"));
    assert_eq!(config.host.name, rustix::system::uname().nodename().to_str().unwrap());
    let [key] = config.keys.as_slice() else { panic!("{:?}", config.keys) };
    assert_eq!((key.repeatable, key.self_test, &*key.versions[0].locator), (false, SelfTest::Sign, "documents.pem"));
    let [tenant] = config.tenants.as_slice() else { panic!("{:?}", config.tenants) };
    assert_eq!(tenant.in_flight_max, config.limits.in_flight_per_tenant);
    assert_eq!(tenant.clients[0].san, San::Uri("spiffe://segl.example/borger".into()));
    let [grant] = tenant.grants.as_slice() else { panic!("{:?}", tenant.grants) };
    assert_eq!(grant.operations, [Operation::Sign]);
    assert_eq!(grant.algorithms, [Algorithm::EcdsaP256Sha256]);
    assert_eq!(grant.classes, [Class::Login, Class::Signature, Class::Bulk]);
}

#[test]
fn a_configuration_for_other_hosts_is_refused_on_this_one() {
    let site = Site::new();
    let on = |ids: &str| minimal_and(&format!("[host]\nmachine_ids = {ids}\n"));
    let (other, ours) = ("ffffffffffffffffffffffffffffffff", MACHINE_ID);
    assert_eq!(site.config(&on(&format!("[\"{other}\", \"{ours}\"]"))).host.machine_ids, [other, ours]);
    let text = on(&format!("[\"{other}\"]"));
    only(&site, &text, &format!("for other hosts than this one, whose machine id is {ours}"));
    let nameless = Surroundings { machine_id: None, ..site.surroundings() };
    assert!(site.read_as(&text, &nameless).1.to_string().contains("/etc/machine-id can not be read"));
    only(&site, &on("[]"), "`machine_ids` is empty");
    only(&site, &on(&format!("[\"{}\"]", ours.to_uppercase())), "must be a machine id");
    only(&site, &on(&format!("[\"{ours}\", \"{ours}\"]")), "names the same thing twice");
}

#[test]
fn a_clock_that_is_not_synchronised_is_a_warning_unless_it_is_required() {
    let site = Site::new();
    assert_eq!(site.config(MINIMAL).host.clock, Clock::Warn);
    let text = minimal_and("[host]\nclock = \"required\"\nclock_marker = \"ptp\"\nclock_age_max = \"10m\"\n");
    let host = site.config(&text).host;
    assert_eq!((host.clock, host.clock_age_max), (Clock::Required, Duration::from_secs(600)));
    assert_eq!(host.clock_marker, Some(site.path("ptp")));
    only(&site, &minimal_and("[host]\nclock = \"require\"\n"), "did you mean \"required\"");
}

#[test]
fn the_digest_is_that_of_the_files_bytes() {
    let site = Site::new();
    let one = site.config(MINIMAL);
    let other = site.config(&minimal_and("# a comment\n"));
    assert_eq!(one.digest().as_slice(), ring::digest::digest(&ring::digest::SHA256, MINIMAL.as_bytes()).as_ref());
    assert_ne!(one.digest(), other.digest());
}

#[test]
fn a_pkcs11_token_takes_its_pin_from_a_file_or_a_credential() {
    let site = Site::new();
    let token = |pin: &str| {
        MINIMAL
            .replace("kind = \"embedded\"\ndirectory = \"keys\"\ngenerate = [{ file = \"documents.pem\", type = \"ec-p256\" }]",
                &format!("kind = \"pkcs11\"\nmodule = \"module.so\"\nuri = \"pkcs11:token=room-1\"\nsessions = 30\n{pin}"))
            .replace("file = \"documents.pem\"", "uri = \"pkcs11:object=documents;id=%01\"")
    };
    let config = site.config(&token("pin_file = \"pin\""));
    let TokenKind::Pkcs11 { uri, pin, .. } = &config.tokens[0].kind else { panic!("{:?}", config.tokens) };
    assert_eq!((uri.token.as_deref(), pin), (Some("room-1"), &PinSource::File(site.path("pin"))));
    assert_eq!(config.tokens[0].sessions, 30);
    only(&site, &token(""), "[[token]] \"keys\" has no `pin_credential`");
    only(
        &site,
        &token("pin_file = \"pin\"\npin_credential = \"pin\""),
        "both `pin_file` and `pin_credential` are given",
    );
    only(&site, &token("pin_file = \"pin-of-others\""), "pin-of-others: No such file");
}

#[test]
fn a_pin_file_that_others_can_read_is_refused_by_the_daemon_and_warned_of_at_the_shell() {
    use std::os::unix::fs::PermissionsExt;
    let site = Site::new();
    std::fs::set_permissions(site.path("pin"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let text = "[[token]]\nname = \"hsm\"\nkind = \"pkcs11\"\nmodule = \"module.so\"\nuri = \"pkcs11:token=a\"\n\
                sessions = 1\npin_file = \"pin\"\n";
    let text = minimal_and(text);
    only(&site, &text, "error: PIN: ");
    let shell = Surroundings { as_daemon: false, ..site.surroundings() };
    let (config, findings) = site.read_as(&text, &shell);
    assert!(config.is_some() && findings.to_string().contains("warning: PIN: "), "{findings}");
}

#[test]
fn credentials_are_found_where_systemd_puts_them_and_not_missed_at_the_shell() {
    let site = Site::new();
    let text = MINIMAL.replace("\"server.key\"", "\"credential:tls-key\"");
    std::fs::copy(site.path("server.key"), site.path("credentials/tls-key")).unwrap();
    assert_eq!(site.config(&text).tls.private_key.path, site.path("credentials/tls-key"));
    let unset = Surroundings { credentials: None, ..site.surroundings() };
    let (config, findings) = site.read_as(&text, &unset);
    assert!(config.is_none() && findings.fatal() && findings.to_string().contains("$CREDENTIALS_DIRECTORY is not set"));
    let (_, findings) = site.read_as(&text, &Surroundings { as_daemon: false, ..unset });
    assert!(!findings.fatal() && findings.to_string().contains("only the service sees it"), "{findings}");
    only(&site, &text.replace("tls-key", "../server.key"), "must be the name of a credential");
}

#[test]
fn the_daemons_certificate_must_be_valid_now() {
    let site = Site::new();
    let expired = MINIMAL.replace("server.pem", "expired.pem");
    only(&site, &expired, "the certificate has expired: no client would accept it");
    let before = Surroundings { now_unix_s: 1_700_000_000, ..site.surroundings() };
    assert!(site.read_as(MINIMAL, &before).1.to_string().contains("not valid yet"));
    let two_days_before_the_end = Surroundings { now_unix_s: 1_798_761_600 - 2 * 86_400, ..site.surroundings() };
    assert!(
        site.read_as(MINIMAL, &two_days_before_the_end)
            .1
            .to_string()
            .contains("warning: the certificate expires in 2 days")
    );
}

#[test]
fn revocation_lists_must_be_current_and_from_the_clients_ca() {
    let site = Site::new();
    let with = |lists: &str| MINIMAL.replace("\"clients-ca.pem\"", &format!("\"clients-ca.pem\"\ncrls = {lists}"));
    assert_eq!(site.config(&with("[\"clients.crl\"]")).tls.crls.len(), 1);
    only(&site, &with("[\"expired.crl\"]"), "error: the CRL has expired");
    only(&site, &with("[\"clients.crl\", \"foreign.crl\"]"), "is from CN=Somebody's CA, which is not in `client_ca`");
    assert!(site.findings(&with("[\"foreign.crl\"]")).contains("there is no CRL of CN=Clients CA"));
    let text = with("[\"expired.crl\"]\ncrl_grace = \"30d\"");
    let days_after = Surroundings { now_unix_s: 1_767_225_600 + 86_400, ..site.surroundings() };
    let (config, findings) = site.read_as(&text, &days_after);
    assert!(config.is_some() && findings.to_string().contains("lives on `crl_grace`"), "{findings}");
}

#[test]
fn an_expired_key_certificate_is_a_warning_since_the_other_keys_are_well() {
    let site = Site::new();
    let text = MINIMAL.replace("[[tenant]]", "certificate = \"expired.pem\"\n[[tenant]]");
    let (config, findings) = site.read(&text);
    assert!(config.is_some() && findings.to_string().contains("the key refuses to sign"), "{findings}");
}

#[test]
fn one_public_key_with_two_purposes_is_refused_by_its_certificates() {
    let site = Site::new();
    let second = "[[key]]\nname = \"login\"\npurpose = \"assertion\"\ntokens = [\"keys\"]\nfile = \"login.pem\"\n\
                  algorithms = [\"ecdsa-p256-sha256\"]\ncertificate = \"login.pem\"\n";
    let text = minimal_and(second)
        .replace("[[tenant]]", "certificate = \"login.pem\"\n[[tenant]]")
        .replace("generate = [", "generate = [{ file = \"login.pem\", type = \"ec-p256\" }, ");
    only(&site, &text, "keys \"documents\" (digest) and \"login\" (assertion) are one public key");
    assert!(site.read(&text.replace("assertion", "digest")).0.is_some());
}

#[test]
fn what_ts_119_312_is_ending_is_accepted_silently_only_key_by_key() {
    let site = Site::new();
    let rsa = MINIMAL.replace("ec-p256", "rsa-2048").replace("ecdsa-p256-sha256", "rsa-pss-sha256");
    only(&site, &rsa, "warning: rsa-pss-sha256: ETSI TS 119 312 ends RSA below 3000 bits on 2028-12-31");
    let accepted = rsa.replace("[[tenant]]", "accept_legacy = true\n[[tenant]]");
    assert!(site.read(&accepted).1.is_empty());
    let after = |text: &str| {
        let surroundings = Surroundings { now_unix_s: 1_861_920_000, ..site.surroundings() };
        site.read_as(text, &surroundings).1.to_string()
    };
    assert!(after(&rsa).contains("error: rsa-pss-sha256: ETSI TS 119 312 ended"));
    assert!(!after(&accepted).contains("rsa-pss"));
}

#[test]
fn a_client_belongs_to_one_tenant_unless_its_certificates_are_told_apart_by_their_keys() {
    let site = Site::new();
    let other = |client: &str| {
        minimal_and(&format!(
            "[[tenant]]\nname = \"erhverv\"\nclients = [{{ san = \"URI:spiffe://segl.example/borger\"{client} }}]\n\
             [[tenant.grant]]\nkey = \"documents\"\n"
        ))
    };
    let (one, two) = ("11".repeat(32), "22".repeat(32));
    let pinned = |pin: &str| format!(", spki_sha256 = \"{pin}\"");
    only(&site, &other(""), "is a client already, on line 28");
    only(&site, &other(&pinned(&one)), "is a client already, on line 28");
    let both = other(&pinned(&one)).replacen("borger\" }", &format!("borger\"{} }}", pinned(&two)), 1);
    assert!(site.read(&both).1.is_empty(), "{}", site.findings(&both));
}

#[test]
fn limits_that_contradict_one_another_are_refused() {
    let site = Site::new();
    let limits = |text: &str| minimal_and(&format!("[limits]\n{text}"));
    only(&site, &limits("batch_max = 100\nin_flight_per_connection = 99\n"), "a full batch would never fit");
    only(&site, &limits("message_max = \"256KiB\"\n"), "would not fit into a frame");
    only(&site, &limits("frame_max = \"32KiB\"\nmessage_max = \"16KiB\"\n"), "a full batch of digests would not fit");
    let (config, findings) = site.read(&limits("message_max = \"255KiB\"\n"));
    assert!(findings.is_empty() && config.unwrap().limits.message_max == 255 * 1024, "{findings}");
}

#[test]
fn metrics_beyond_this_host_are_warned_of() {
    let site = Site::new();
    let (config, findings) = site.read(&minimal_and("[admin]\naddress = \"0.0.0.0:9464\"\n"));
    assert!(config.is_some() && findings.to_string().contains("warning: metrics and key states"), "{findings}");
}

/// A key for assertions and one for JWS, granted with these lines below.
fn documents(assertion: &str, jws: &str) -> String {
    let text = MINIMAL.replace(
        "generate = [",
        "generate = [{ file = \"login.pem\", type = \"ec-p256\" }, { file = \"tokens.pem\", type = \"ec-p256\" }, ",
    );
    let key = |name: &str, purpose: &str| {
        format!(
            "[[key]]\nname = \"{name}\"\npurpose = \"{purpose}\"\ntokens = [\"keys\"]\nfile = \"{name}.pem\"\n\
             algorithms = [\"ecdsa-p256-sha256\"]\n"
        )
    };
    let keys = key("login", "assertion") + &key("tokens", "jws");
    let text = text.replacen("[[tenant]]", &format!("{keys}[[tenant]]"), 1);
    format!("{text}[[tenant.grant]]\nkey = \"login\"\n{assertion}\n[[tenant.grant]]\nkey = \"tokens\"\n{jws}\n")
}

const ASSERTION: &str = "[tenant.grant.assertion]\nissuers = [\"https://idp.example\"]\naudiences = [\"urn:dk:sp:*\"]\n\
                         validity_max = \"1h\"\nname_id_formats = [\"persistent\"]\n";
const JWS: &str = "[tenant.grant.jws]\nissuers = [\"https://idp.example\"]\nlifetime_max = \"10m\"\n\
                   capacity = \"not-compared\"\n";

#[test]
fn a_grant_to_sign_documents_says_which_and_takes_its_operation_from_the_key() {
    let site = Site::new();
    let config = site.config(&documents(ASSERTION, JWS));
    let [_, login, tokens] = config.tenants[0].grants.as_slice() else { panic!("{:?}", config.tenants) };
    assert_eq!((&*login.operations, &*tokens.operations), (&[Operation::SignAssertion][..], &[Operation::SignJws][..]));
    let rules = login.assertion.as_deref().unwrap();
    assert_eq!((rules.validity_max_s, rules.clock_distance_max_s, rules.profile), (3600, 30, None));
    assert!(rules.audiences[0].matches("urn:dk:sp:borger"));
    assert_eq!(tokens.jws.as_deref().unwrap().lifetime_max_s, 600);
    assert_eq!(rules.confirmation_methods, [ConfirmationMethod::Bearer]);
    let more = "confirmation_methods = [\"bearer\", \"holder-of-key\"]\nother_companies = true\n\
                friendly_names = [{ attribute = \"urn:a\", name = \"A\" }]\nallowed_attributes = [\"urn:a\"]\n";
    let config = site.config(&documents(&format!("{ASSERTION}{more}"), JWS));
    let rules = config.tenants[0].grants[1].assertion.as_deref().unwrap();
    assert_eq!(rules.confirmation_methods, [ConfirmationMethod::Bearer, ConfirmationMethod::HolderOfKey]);
    assert_eq!(rules.friendly_names, [("urn:a".to_owned(), "A".to_owned())]);
    assert!(rules.other_companies && rules.allowed_attributes == ["urn:a"]);
    let others = "recipients = [\"https://sp.example/*\"]\nsession_max = \"8h\"\nclock_distance_max = \"1m\"\n\
                  authn_context_classes = [\"urn:class\"]\nauthenticating_authorities = [\"urn:authority\"]\n\
                  required_attributes = [\"urn:required\"]\nforbidden_attributes = [\"urn:forbidden:*\"]\n\
                  element_valued_attributes = [\"urn:elements\"]\nspec_versions = [\"v\"]\nassurance_levels = [\"High\"]\n\
                  capacity = \"not-compared\"\n";
    let config = site.config(&documents(&format!("{ASSERTION}{others}"), JWS));
    let pattern = |text| Pattern::new(text).unwrap();
    let texts = |text: &str| vec![text.to_owned()];
    let expected = AssertionPolicy {
        issuers: texts("https://idp.example"),
        audiences: vec![pattern("urn:dk:sp:*")],
        recipients: vec![pattern("https://sp.example/*")],
        confirmation_methods: vec![ConfirmationMethod::Bearer],
        validity_max_s: 3600,
        session_max_s: Some(8 * 3600),
        clock_distance_max_s: 60,
        name_id_formats: texts("persistent"),
        authn_context_classes: texts("urn:class"),
        authenticating_authorities: texts("urn:authority"),
        required_attributes: texts("urn:required"),
        forbidden_attributes: vec![pattern("urn:forbidden:*")],
        element_valued_attributes: texts("urn:elements"),
        spec_versions: texts("v"),
        assurance_levels: texts("High"),
        capacity: CapacityRule::NotCompared,
        ..AssertionPolicy::default()
    };
    assert_eq!(config.tenants[0].grants[1].assertion.as_deref(), Some(&expected), "each setting goes to its own rule");
}

#[test]
fn a_grant_to_sign_documents_that_does_not_say_which_is_refused() {
    let site = Site::new();
    only(&site, &documents("", JWS), "\"sign-assertion\" is granted without [tenant.grant.assertion]");
    only(&site, &documents(ASSERTION, ""), "\"sign-jws\" is granted without [tenant.grant.jws]");
    only(&site, &documents(&format!("{ASSERTION}{JWS}"), JWS), "says nothing without the operation \"sign-jws\"");
    only(
        &site,
        &documents(ASSERTION, "[tenant.grant.jws]\nissuers = [\"i\"]\ncapacity_claim = \"cvr\"\n"),
        "has no `lifetime_max`",
    );
}

#[test]
fn what_a_grant_says_of_documents_is_checked_to_the_letter() {
    let site = Site::new();
    let assertion = |more: &str| documents(&format!("{ASSERTION}{more}\n"), JWS);
    only(&site, &assertion("recipients = [\"https://*\"]"), "a `*` stands");
    only(&site, &assertion("profile = \"oiosaml2\""), "did you mean \"oiosaml3\"?");
    let profile = |more: &str| {
        let persistent = "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent";
        assertion(&format!("profile = \"oiosaml3\"\n{more}")).replace("\"persistent\"", &format!("{persistent:?}"))
    };
    let (version, levels) = ("spec_versions = [\"OIO-SAML-3.0\"]\n", "assurance_levels = [\"High\"]\n");
    only(&site, &profile(version), "`assurance_levels` has nothing that `profile` demands");
    only(
        &site,
        &profile(&levels.replace("High", "high")).replace("profile =", &format!("{version}profile =")),
        "`assurance_levels` has",
    );
    only(&site, &profile(levels), "`spec_versions` has nothing");
    let both = format!("{version}{levels}");
    only(
        &site,
        &profile(&both).replace("nameid-format:persistent", "nameid-format:x"),
        "`name_id_formats` has nothing",
    );
    only(&site, &profile(&format!("{both}confirmation_methods = [\"holder-of-key\"]")), "`confirmation_methods` has");
    assert!(site.read(&profile(&both)).1.is_empty());
    only(&site, &assertion("assurance_level = [\"High\"]"), "did you mean `assurance_levels`?");
    only(&site, &assertion("session_max = \"2000h\""), "must be a duration");
    only(&site, &assertion("allowed_attributes = [\"urn:a \"]"), "no name of an attribute");
    only(&site, &assertion("allowed_attributes = [\"urn:cvr\", \"urn:CVR\"]"), "differ by upper and lower case alone");
    let friendly =
        "friendly_names = [{ attribute = \"urn:a\", name = \"cvr\" }, { attribute = \"urn:b\", name = \"CVR\" }]";
    only(&site, &assertion(friendly), "the FriendlyName of another attribute");
    only(&site, &assertion("confirmation_methods = [\"sender-vouches\"]"), "\"bearer\", \"holder-of-key\"");
    let level = "authn_context_classes = [\"https://data.gov.dk/concept/core/nsis/loa/High\"]";
    only(&site, &assertion(level), "is not allowed by this list");
    let jws = |more: &str| documents(ASSERTION, &format!("{JWS}{more}\n"));
    only(&site, &jws("capacity_claim = \"cvr\""), "says nothing with capacity = \"not-compared\"");
    only(&site, &jws("").replace("capacity = \"not-compared\"\n", ""), "does not say which claim agrees");
    only(&site, &jws("selective = true\nforbidden_claims = [\"admin\"]"), "claims stand behind digests");
    only(&site, &jws("header_parameters = [\"jku\"]"), "no header parameter that a caller may send");
    only(&site, &jws("claims = [{ name = \"acr\" }, { name = \"acr\" }]"), "a rule for the claim \"acr\" already");
    only(&site, &jws("no_token = true").replace("lifetime_max = \"10m\"\n", ""), "with `no_token` the payload has no");
}

/// The shortest configuration, with this at the end of its token's section.
fn token_with(settings: &str) -> String {
    MINIMAL.replace("kind = \"embedded\"", &format!("kind = \"embedded\"\n{settings}"))
}

#[test]
fn a_token_of_another_site_is_not_preferred_and_a_site_nobody_compares_with_is_refused() {
    let site = Site::new();
    let at = |host: &str, token: &str| token_with(token) + host;
    assert!(site.config(MINIMAL).tokens[0].preferred);
    assert!(site.config(&at("[host]\nsite = \"A\"\n", "site = \"A\"")).tokens[0].preferred);
    assert!(site.config(&at("[host]\nsite = \"A\"\n", "")).tokens[0].preferred, "it says nothing of its site");
    let (config, findings) = site.read(&at("[host]\nsite = \"A\"\n", "site = \"B\""));
    assert!(!config.unwrap().tokens[0].preferred && findings.to_string().contains("none is preferred"), "{findings}");
    only(&site, &at("", "site = \"B\""), "nothing could be nearer than anything");
    only(&site, &at("[host]\nsite = \"A B\"\n", ""), "a name of 1 to 64 letters");
}

#[test]
fn a_call_is_given_up_within_a_request_s_time() {
    let site = Site::new();
    assert_eq!(site.config(MINIMAL).tokens[0].stuck_after.as_secs(), 5);
    let (config, findings) = site.read(&token_with("stuck_after = \"30s\""));
    assert!(config.is_some() && findings.to_string().contains("never tried elsewhere"), "{findings}");
    only(&site, &token_with("stuck_after = \"900ms\""), "stuck_after");
    only(&site, &token_with("keep_alive = \"5s\""), "has no setting `keep_alive`");
}

#[test]
fn signatures_are_verified_as_the_purpose_says_unless_the_key_says_otherwise() {
    let site = Site::new();
    let key = |setting: &str| MINIMAL.replace("purpose = \"digest\"", &format!("purpose = \"digest\"\n{setting}"));
    assert_eq!(site.config(MINIMAL).keys[0].verify, Verify::Sample);
    assert_eq!(site.config(&key("verify = \"off\"")).keys[0].verify, Verify::Off);
    only(&site, &key("verify = \"sometimes\""), "verify");
    let ca = minimal_and(
        "[[key]]\nname = \"ca\"\npurpose = \"certificate\"\ntokens = [\"keys\"]\nfile = \"ca.pem\"\n\
         algorithms = [\"ecdsa-p256-sha256\"]\n",
    )
    .replace("generate = [", "generate = [{ file = \"ca.pem\", type = \"ec-p256\" }, ");
    let (config, findings) = site.read(&ca);
    assert_eq!(config.unwrap_or_else(|| panic!("{findings}")).keys[1].verify, Verify::Always);
}

#[test]
fn rules_a_pool_can_not_go_by_are_refused() {
    let site = Site::new();
    let pool = |text: &str| minimal_and(&format!("[pool]\n{text}"));
    only(&site, &pool("signature_one_in = 2\nbulk_one_in = 2\n"), "logins would starve");
    only(&site, &pool("retries_max = 3\n"), "retries_max");
    only(&site, &pool("retry_budget_percent = 101\n"), "retry_budget_percent");
}
