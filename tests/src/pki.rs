//! Certificate authorities that live in memory, and what they issue: all keys P-256.

use std::{
    fmt,
    io::Write,
    net::IpAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason, RevokedCertParams, SanType,
    SerialNumber,
};
use time::OffsetDateTime;

use crate::{Result, openssl, run};

/// How long certificates hold: a development installation that stays up for weeks, and no longer.
const VALID: Duration = Duration::from_secs(90 * 24 * 3600);
/// How far back they begin, so that a clock a little behind accepts them.
const LEEWAY: Duration = Duration::from_secs(3600);

/// A certificate (DER) in PEM (RFC 7468).
pub fn pem(certificate: &[u8]) -> String {
    let body = STANDARD.encode(certificate);
    let lines = (0..body.len()).step_by(64).map(|at| &body[at..body.len().min(at + 64)]);
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.collect::<Vec<_>>().join("\n"))
}

/// A certificate authority with its key.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its private key.
#[derive(Clone)]
pub struct Identity {
    /// The certificate alone
    pub certificate_pem: String,
    /// PKCS#8
    pub key_pem: String,
    serial: SerialNumber,
}

/// Where an [`Identity`] was written.
#[derive(Clone, Debug)]
pub struct IdentityFiles {
    /// PEM
    pub certificate: PathBuf,
    /// PEM, PKCS#8, mode 0600
    pub key: PathBuf,
}

impl Authority {
    /// A self-signed one.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = blank(name)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Authority { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    /// Its certificate, as PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A server's certificate for these DNS names and IP addresses.
    pub fn server(&self, names: &[&str]) -> Result<Identity> {
        let mut params = blank(names.first().copied().unwrap_or("server"))?;
        for &name in names {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.try_into()?),
            });
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(params)
    }

    /// A certificate (DER) of a public key (SubjectPublicKeyInfo, DER) whose private key is elsewhere.
    pub fn certify(&self, spki_der: &[u8]) -> Result<Vec<u8>> {
        let dir = tempfile::tempdir()?;
        let file = |name: &str| dir.path().join(name);
        std::fs::write(file("public.pem"), openssl::public_pem(spki_der)?)?;
        std::fs::write(file("ca.pem"), self.pem())?;
        std::fs::write(file("ca.key"), self.issuer.key().serialize_pem())?;
        let mut issue = Command::new("openssl");
        issue.args(["x509", "-new", "-subj", "/CN=signer", "-days", "30", "-outform", "DER"]);
        issue.arg("-force_pubkey").arg(file("public.pem")).arg("-CA").arg(file("ca.pem"));
        run(issue.arg("-CAkey").arg(file("ca.key")).arg("-out").arg(file("certificate")))?;
        Ok(std::fs::read(file("certificate"))?)
    }

    /// A client's certificate with this URI as its identity.
    pub fn client(&self, uri: &str) -> Result<Identity> {
        self.issue(client(uri)?)
    }

    /// A client's certificate that ended an hour ago.
    pub fn expired_client(&self, uri: &str) -> Result<Identity> {
        let mut params = client(uri)?;
        params.not_before = OffsetDateTime::now_utc() - 24 * LEEWAY;
        params.not_after = OffsetDateTime::now_utc() - LEEWAY;
        self.issue(params)
    }

    /// A revocation list, as PEM. `number` has to rise from one to the next.
    pub fn crl(&self, number: u64, revoked: &[&Identity], next_update_in: Duration) -> Result<String> {
        let now = OffsetDateTime::now_utc();
        self.crl_between(number, revoked, now - LEEWAY, now + next_update_in)
    }

    /// A revocation list with these thisUpdate and nextUpdate, as PEM: also one that is too old.
    pub fn crl_between(
        &self,
        number: u64,
        revoked: &[&Identity],
        this_update: OffsetDateTime,
        next_update: OffsetDateTime,
    ) -> Result<String> {
        let revoked_certs = revoked.iter().map(|identity| RevokedCertParams {
            serial_number: identity.serial.clone(),
            revocation_time: this_update,
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update,
            next_update,
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(params.signed_by(&self.issuer)?.pem()?)
    }

    fn issue(&self, mut params: CertificateParams) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let serial = params.serial_number.clone().unwrap_or_else(|| serial_of(&key));
        params.serial_number = Some(serial.clone());
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Identity { certificate_pem: certificate.pem(), key_pem: key.serialize_pem(), serial })
    }
}

impl Identity {
    /// Writes `NAME.pem` and `NAME.key`.
    pub fn write(&self, dir: &Path, name: &str) -> Result<IdentityFiles> {
        std::fs::create_dir_all(dir)?;
        let files =
            IdentityFiles { certificate: dir.join(format!("{name}.pem")), key: dir.join(format!("{name}.key")) };
        std::fs::write(&files.certificate, &self.certificate_pem)?;
        write_private(&files.key, self.key_pem.as_bytes())?;
        Ok(files)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("certificate_pem", &self.certificate_pem).finish_non_exhaustive()
    }
}

/// Writes a file that only its owner can read, from its first byte on.
pub fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    if path.exists() {
        std::fs::remove_file(path)?;
    }
    std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(content)?;
    Ok(())
}

fn client(uri: &str) -> Result<CertificateParams> {
    let mut params = blank(uri)?;
    params.subject_alt_names.push(SanType::URI(uri.try_into()?));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

fn blank(name: &str) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Segl development");
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = OffsetDateTime::now_utc() - LEEWAY;
    params.not_after = OffsetDateTime::now_utc() + VALID;
    Ok(params)
}

/// A serial number from the end of the public key, which is as good as random. Positive, and without a leading zero.
fn serial_of(key: &KeyPair) -> SerialNumber {
    let public = key.public_key_raw();
    let mut serial = public[public.len() - 16..].to_vec();
    serial[0] = serial[0] & 0x7f | 0x40;
    SerialNumber::from(serial)
}
