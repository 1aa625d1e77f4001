//! What a reload takes, what it refuses and why, and what it leaves alone.

use std::time::Duration;

use rustls::pki_types::{CertificateDer, pem::PemObject};
use segl_tests::{
    conversation::sign_request,
    openssl,
    pki::Authority,
    site::{P256, RSA, Site, Token},
};
use segl_wire::{Code, GoAwayReason, SignedState};
use time::{Duration as Span, OffsetDateTime};

use crate::room::{DIGEST, Room, add_key, connect, sent_away, site, sound, spki, try_connect};

const P256_ALONE: &str = "ecdsa-p256-sha256";
const HOUR: Duration = Duration::from_secs(3600);

fn write_crl(site: &Site, crl: &str) {
    std::fs::write(site.crl(), crl).unwrap();
}

/// A list that revokes the second tenant.
fn revoking(site: &Site, number: u64) -> String {
    site.clients.crl(number, &[&site.tenants[1].identity], HOUR).unwrap()
}

/// One that revokes the second tenant and ended some minutes ago.
fn expired(site: &Site) -> String {
    let now = OffsetDateTime::now_utc();
    let revoked = [&site.tenants[1].identity];
    site.clients.crl_between(3, &revoked, now - Span::minutes(30), now - Span::minutes(10)).unwrap()
}

/// Whether the second tenant's certificate is turned down for being revoked.
fn stays_out(site: &Site) {
    let error = try_connect(site, 1).unwrap_err().to_string();
    assert!(error.contains("CertificateRevoked"), "{error}");
}

#[test]
fn an_unfit_revocation_list_is_refused_for_its_own_reason_and_the_one_in_force_stays() {
    let mut room = Room::open(Token::Embedded, |site| write_crl(site, &revoking(site, 2)));
    let mut neighbour = connect(&room.site, 0);
    stays_out(&room.site);

    let now = OffsetDateTime::now_utc();
    let stranger = Authority::new("Another CA").unwrap();
    let namesake = Authority::new("Segl clients").unwrap();
    let older = room.site.clients.crl_between(1, &[], now - Span::hours(2), now + Span::hours(2)).unwrap();
    for (crl, why) in [
        (String::new(), "there is none in it"),
        ("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n".to_owned(), "is no sound CRL"),
        (stranger.crl(9, &[], HOUR).unwrap(), "which is not in `client_ca`"),
        (namesake.crl(9, &[], HOUR).unwrap(), "did not sign it"),
        (older, "older than the list in force"),
        (expired(&room.site), "the CRL has expired"),
    ] {
        write_crl(&room.site, &crl);
        room.reload_refused(&[why]);
        stays_out(&room.site);
        sound(&mut neighbour);
    }

    let pardon = room.site.clients.crl(3, &[], HOUR).unwrap();
    write_crl(&room.site, &pardon);
    room.reload_taken();
    sound(&mut connect(&room.site, 1));
    sound(&mut neighbour);
}

#[test]
fn crl_grace_bridges_an_expired_list_which_still_keeps_out_whom_it_revokes() {
    let mut room = Room::open(Token::Embedded, |site| {
        write_crl(site, &expired(site));
        site.segld_toml = site.segld_toml.replace("crls = ", "crl_grace = \"1h\"\ncrls = ");
    });
    let mut neighbour = connect(&room.site, 0);
    sound(&mut neighbour);
    stays_out(&room.site);
    assert!(room.metric("segl_crl_expires_seconds", &[]) < 0.0, "the metric says that it is overdue");

    let with_grace = room.site.segld_toml.clone();
    room.site.segld_toml = with_grace.replace("crl_grace = \"1h\"", "crl_grace = \"1m\"");
    room.reload_refused(&["the CRL has expired"]);
    sound(&mut neighbour);
    room.site.segld_toml = with_grace;
    room.reload_taken();
    sound(&mut neighbour);
    sound(&mut connect(&room.site, 0));
}

#[test]
fn a_key_made_and_added_while_segld_runs_signs_at_once() {
    let mut room = Room::open(Token::SoftHsm, |_| {});
    let mut before = connect(&room.site, 0);
    let fresh = sign_request("fresh", "ecdsa-p256-sha256", &DIGEST);
    assert_eq!(before.sign(&fresh).unwrap().unwrap_err().code, Code::NotGranted);

    let attributes = room.site.softhsm().unwrap().generate("EC:prime256v1", "fresh").unwrap();
    add_key(&mut room.site, "fresh", P256_ALONE, &format!("uri = \"pkcs11:{attributes}\""));
    room.reload_taken();
    let digest = openssl::input_of("sha256", b"a document").unwrap();
    let signature = before.sign(&sign_request("fresh", "ecdsa-p256-sha256", &digest)).unwrap().unwrap();
    openssl::verify("ecdsa-p256-sha256", &spki(&mut before, "fresh"), b"a document", &signature).unwrap();
}

#[test]
fn a_key_that_was_not_on_its_token_is_found_by_the_first_reload_after_it_was_put_there() {
    let mut room = Room::open(Token::SoftHsm, |site| add_key(site, "late", P256_ALONE, "uri = \"pkcs11:object=late\""));
    let mut conversation = connect(&room.site, 0);
    let late = sign_request("late", "ecdsa-p256-sha256", &DIGEST);
    let error = conversation.sign(&late).unwrap().unwrap_err();
    assert_eq!((error.code, error.signed), (Code::KeyRefused, SignedState::No), "{error}");
    sound(&mut conversation);
    room.reload_taken();
    assert_eq!(conversation.sign(&late).unwrap().unwrap_err().code, Code::KeyRefused);

    room.site.softhsm().unwrap().generate("EC:prime256v1", "late").unwrap();
    room.reload_taken();
    conversation.sign(&late).unwrap().unwrap();
}

fn a_key_that_is_nowhere_refuses_the_whole_reload(token: Token, locator: &str, why: &str) {
    let mut room = Room::open(token, |_| {});
    let (mut first, mut second) = (connect(&room.site, 0), connect(&room.site, 1));
    add_key(&mut room.site, "fresh", P256_ALONE, locator);
    // In the same file the second tenant gets another grant, which must not come either.
    room.site.segld_toml.push_str("[[tenant.grant]]\nkey = \"seal-rsa\"\n");
    room.reload_refused(&[why]);
    let fresh = sign_request("fresh", "ecdsa-p256-sha256", &DIGEST);
    assert_eq!(first.sign(&fresh).unwrap().unwrap_err().code, Code::NotGranted);
    let rsa = sign_request(RSA, "rsa-pss-sha256", &DIGEST);
    assert_eq!(second.sign(&rsa).unwrap().unwrap_err().code, Code::NotGranted);
    sound(&mut first);
    sound(&mut second);
}

#[test]
fn a_key_whose_file_is_misspelt_refuses_the_whole_reload() {
    a_key_that_is_nowhere_refuses_the_whole_reload(
        Token::Embedded,
        "file = \"seal-p265.pem\"",
        "seal-p265.pem does not exist",
    );
}

#[test]
fn a_key_whose_uri_is_misspelt_refuses_the_whole_reload() {
    let uri = "uri = \"pkcs11:object=seal-p265\"";
    a_key_that_is_nowhere_refuses_the_whole_reload(Token::SoftHsm, uri, "key fresh on token softhsm");
}

#[test]
fn one_public_key_for_two_purposes_refuses_the_reload() {
    let mut room = Room::open(Token::Embedded, |_| {});
    let keys = room.site.dir.join("keys");
    std::fs::copy(keys.join("seal-p256.pem"), keys.join("copy.pem")).unwrap();
    add_key(&mut room.site, "fresh", P256_ALONE, "file = \"copy.pem\"");
    let digest = "name = \"fresh\"\npurpose = \"digest\"";
    room.site.segld_toml = room.site.segld_toml.replacen(digest, "name = \"fresh\"\npurpose = \"jws\"", 1);
    let grant = "[[tenant.grant]]\nkey = \"fresh\"\n";
    let rules = "[tenant.grant.jws]\nissuers = [\"https://idp.example\"]\nlifetime_max = \"10m\"\n\
                 audiences = [\"https://app.example/*\"]\ncapacity = \"not-compared\"\n";
    room.site.segld_toml = room.site.segld_toml.replacen(grant, &format!("{grant}{rules}"), 1);
    room.reload_refused(&["fresh", P256, "purpose"]);
    sound(&mut connect(&room.site, 0));
}

#[test]
fn a_tenant_taken_out_loses_its_live_connection_and_its_neighbour_goes_on() {
    let mut room = Room::open(Token::Embedded, |_| {});
    let (mut stays, mut goes) = (connect(&room.site, 0), connect(&room.site, 1));
    sound(&mut goes);
    let tenant = room.site.segld_toml.find("[[tenant]]\nname = \"tax-office\"").expect("the second tenant stands last");
    room.site.segld_toml.truncate(tenant);
    room.reload_taken();
    assert_eq!(sent_away(&mut goes), GoAwayReason::Unauthorised);
    sound(&mut stays);
    let error = try_connect(&room.site, 1).unwrap_err().to_string();
    assert!(error.contains("in place of Hello"), "{error}");
}

#[test]
fn a_new_server_certificate_is_shown_to_new_connections_and_old_ones_are_untouched() {
    let mut room = Room::open(Token::Embedded, |_| {});
    let mut before = connect(&room.site, 0);
    let new = room.site.servers.server(&["localhost", "127.0.0.1"]).unwrap();
    let files = new.write(&room.site.dir.join("pki"), "segld").unwrap();
    room.reload_taken();
    let mut after = connect(&room.site, 0);
    let shown = CertificateDer::from_pem_slice(new.certificate_pem.as_bytes()).unwrap();
    assert_eq!(after.server_certificate(), shown);
    assert_ne!(before.server_certificate(), shown);
    sound(&mut before);
    sound(&mut after);

    // A certificate with another's key changes nothing.
    let another = room.site.servers.server(&["localhost"]).unwrap();
    std::fs::write(&files.certificate, &another.certificate_pem).unwrap();
    room.reload_refused(&["the private key does not belong to the certificate"]);
    assert_eq!(connect(&room.site, 0).server_certificate(), shown);
    sound(&mut before);
}

#[test]
fn a_section_that_wants_a_restart_is_named_and_nothing_of_its_reload_is_taken() {
    let mut room = Room::open(Token::Embedded, |_| {});
    let mut second = connect(&room.site, 1);
    let sound_toml = room.site.segld_toml.clone();
    for (change, section) in [
        ("[limits]\nconnections = 5\n\n[audit]", "[limits] can not change without a restart"),
        ("[pool]\nretries_max = 1\n\n[audit]", "[pool] can not change without a restart"),
        ("[log]\nlevel = \"debug\"\n\n[audit]", "[log] can not change without a restart"),
    ] {
        room.site.segld_toml = sound_toml.replace("[audit]", change) + "[[tenant.grant]]\nkey = \"seal-rsa\"\n";
        room.reload_refused(&[section]);
    }
    let rsa = sign_request(RSA, "rsa-pss-sha256", &DIGEST);
    assert_eq!(second.sign(&rsa).unwrap().unwrap_err().code, Code::NotGranted);
}

#[test]
fn a_start_with_an_expired_revocation_list_is_refused() {
    let (site, _dir) = site(Token::Embedded);
    write_crl(&site, &expired(&site));
    let output = site.segld_command().output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("the CRL has expired"), "{said}");
}
