//! A site on disk to read configurations in, and what reading them promises.

mod golden;
mod rules;
mod samples;
mod unrecorded;
mod versions;

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, SerialNumber, date_time_ymd,
};

use super::{Config, Findings, Surroundings, read_text, whole};

/// 2026-09-21, when everything below is tried.
pub(super) const NOW_UNIX_S: i64 = 1_790_000_000;

/// Of the host on which it is tried.
pub(super) const MACHINE_ID: &str = "0123456789abcdef0123456789abcdef";

/// A directory with every file that a sound configuration names.
pub(crate) struct Site {
    directory: tempfile::TempDir,
}

impl Site {
    pub(crate) fn new() -> Site {
        let site = Site { directory: tempfile::tempdir().unwrap() };
        let (ca_key, ca) = authority("Clients CA");
        let (stranger_key, stranger) = authority("Somebody's CA");
        site.write("clients-ca.pem", &ca.pem());
        let ca = Issuer::from_ca_cert_pem(&ca.pem(), &ca_key).unwrap();
        let stranger = Issuer::from_ca_cert_pem(&stranger.pem(), &stranger_key).unwrap();
        site.write("clients.crl", &crl(&ca, 2027));
        site.write("expired.crl", &crl(&ca, 2026));
        site.write("foreign.crl", &crl(&stranger, 2027));
        let server = KeyPair::generate().unwrap();
        site.write("server.pem", &leaf(&server, &ca, 2027));
        site.write("expired.pem", &leaf(&server, &ca, 2026));
        site.write("server.key", &server.serialize_pem());
        site.write("other.key", &KeyPair::generate().unwrap().serialize_pem());
        site.write("login.pem", &leaf(&KeyPair::generate().unwrap(), &ca, 2027));
        site.write("module.so", "");
        site.write("pin", "1234\n");
        fs::DirBuilder::new().mode(0o700).create(site.path("keys")).unwrap();
        fs::create_dir(site.path("credentials")).unwrap();
        site
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn write(&self, name: &str, content: &str) {
        let mut options = fs::File::options();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(self.path(name)).unwrap();
        std::io::Write::write_all(&mut file, content.as_bytes()).unwrap();
    }

    pub(super) fn surroundings(&self) -> Surroundings {
        let credentials = Some(self.path("credentials"));
        Surroundings {
            now_unix_s: NOW_UNIX_S,
            credentials,
            as_daemon: true,
            cores: vec![0, 1],
            machine_id: Some(MACHINE_ID.into()),
        }
    }

    pub(super) fn read(&self, text: &str) -> (Option<Config>, Findings) {
        self.read_as(text, &self.surroundings())
    }

    pub(super) fn read_as(&self, text: &str, surroundings: &Surroundings) -> (Option<Config>, Findings) {
        let (draft, findings) = read_text(&self.path("segld.toml"), text, surroundings);
        (whole(draft, &findings), findings)
    }

    /// A certificate for a key of its own, from 2025 to 2027.
    pub(super) fn certify(&self, name: &str) {
        self.certify_between(name, 2025, 2027);
    }

    /// A certificate for a key of its own, from that year on.
    pub(super) fn certify_from(&self, name: &str, year: i32) {
        self.certify_between(name, year, year + 2);
    }

    fn certify_between(&self, name: &str, from_year: i32, to_year: i32) {
        let (authority_key, authority) = authority("Signers CA");
        let issuer = Issuer::from_ca_cert_pem(&authority.pem(), &authority_key).unwrap();
        self.write(name, &leaf_between(&KeyPair::generate().unwrap(), &issuer, from_year, to_year));
    }

    /// The configuration, which has to be sound.
    pub(crate) fn config(&self, text: &str) -> Config {
        let (config, findings) = self.read(text);
        config.unwrap_or_else(|| panic!("{findings}"))
    }

    /// What is said of a configuration, the site's directory called DIR.
    pub(super) fn findings(&self, text: &str) -> String {
        self.read(text).1.to_string().replace(&*self.directory.path().to_string_lossy(), "DIR")
    }
}

fn authority(name: &str) -> (KeyPair, rcgen::Certificate) {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    (key, certificate)
}

/// Valid from January 2025 to the first of January of that year.
fn leaf(key: &KeyPair, issuer: &Issuer<'_, &KeyPair>, to_year: i32) -> String {
    leaf_between(key, issuer, 2025, to_year)
}

fn leaf_between(key: &KeyPair, issuer: &Issuer<'_, &KeyPair>, from_year: i32, to_year: i32) -> String {
    let mut params = CertificateParams::new(["segld.example".to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "segld.example");
    params.not_before = date_time_ymd(from_year, 1, 1);
    params.not_after = date_time_ymd(to_year, 1, 1);
    params.signed_by(key, issuer).unwrap().pem()
}

fn crl(issuer: &Issuer<'_, &KeyPair>, to_year: i32) -> String {
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2025, 1, 1),
        next_update: date_time_ymd(to_year, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(issuer).unwrap().pem().unwrap()
}

/// The shortest configuration there is.
pub(super) const MINIMAL: &str = r#"
[listen]
addresses = ["127.0.0.1:7443"]

[tls]
certificate = "server.pem"
private_key = "server.key"
client_ca = "clients-ca.pem"

[audit]
directory = "journal"

[[token]]
name = "keys"
kind = "embedded"
directory = "keys"
generate = [{ file = "documents.pem", type = "ec-p256" }]

[[key]]
name = "documents"
purpose = "digest"
tokens = ["keys"]
file = "documents.pem"
algorithms = ["ecdsa-p256-sha256"]

[[tenant]]
name = "borger"
clients = [{ san = "URI:spiffe://segl.example/borger" }]
[[tenant.grant]]
key = "documents"
"#;

/// Kept out of the way of the shortest configuration's own sections.
pub(super) fn minimal_and(more: &str) -> String {
    format!("{MINIMAL}{more}")
}

#[test]
fn a_file_that_is_not_there_is_told_with_its_path() {
    let findings = super::load(Path::new("/nowhere/segld.toml")).unwrap_err();
    assert!(findings.fatal());
    assert!(
        findings.to_string().starts_with("/nowhere/segld.toml: error: it can not be read: No such file"),
        "{findings}"
    );
}
