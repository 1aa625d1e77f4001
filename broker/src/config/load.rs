//! Opens the files that a configuration names: certificates, keys, CAs, providers' metadata.

use std::{path::Path, sync::Arc};

use segl_assertion::{
    MetadataError,
    encrypt::{Defaults, Provider, Providers},
};
use zeroize::Zeroizing;

use super::{At, Config, Findings, Identity};
use crate::{callers::TokenHash, clock, files, tls};

/// What the files of a configuration hold, ready for use.
#[derive(Debug)]
pub struct Loaded {
    /// TLS towards callers; none for plain HTTP on loopback
    pub http_tls: Option<Arc<rustls::ServerConfig>>,
    /// TLS of each tenant towards `segld`, in the configuration's order
    pub tenants: Vec<TenantIdentity>,
    /// Whom assertions may be encrypted for
    pub providers: Providers,
    /// Whose certificate ends when, in seconds since 1970
    pub expiries: Vec<(String, i64)>,
    /// When providers' metadata ends, where it does, by `entityID`
    pub metadata_ends: Vec<(String, i64)>,
    /// What is no reason not to run, but somebody's to mend
    pub warnings: Vec<String>,
}

/// A tenant's identity towards `segld`.
#[derive(Debug)]
pub struct TenantIdentity {
    /// The tenant's name
    pub name: String,
    /// With its certificate and the CA of `segld`
    pub tls: Arc<rustls::ClientConfig>,
    /// Of the files: tells whether a reload changed them
    pub fingerprint: TokenHash,
}

impl Config {
    /// Reads the file and everything that it names. Tells all that is wrong at once.
    pub fn open(path: &Path) -> Result<(Self, Loaded), Findings> {
        let mut findings = Findings::default();
        let base = path.parent().unwrap_or(Path::new(""));
        let text = match files::read(path).map(String::from_utf8) {
            Ok(Ok(text)) => text,
            Ok(Err(_)) => {
                findings.push(1, format!("{} is not UTF-8", path.display()));
                return Err(findings);
            }
            Err(error) => {
                findings.push(1, format!("{} cannot be read: {error}", path.display()));
                return Err(findings);
            }
        };
        let (config, mut findings) = Self::parse(&text, base);
        let loaded = config.load(&mut findings);
        findings.into_result()?;
        Ok((config, loaded))
    }

    fn load(&self, findings: &mut Findings) -> Loaded {
        let mut expiries = Vec::new();
        let client_roots = self.http.client_ca.as_ref().and_then(|path| {
            let pem = read(path, findings)?;
            note(findings, path, tls::roots(&pem))
        });
        let http_tls = self.http.identity.as_ref().and_then(|identity| {
            let (chain, key) = read_identity(identity, findings)?;
            expiries.extend(tls::not_after_s(&chain).map(|at| ("http".to_owned(), at)));
            note(findings, &identity.certificate, tls::server_config(&chain, &key, client_roots))
        });
        let ca = read(&self.upstream.ca, findings);
        if let Some(ca) = &ca {
            note(findings, &self.upstream.ca, tls::roots(ca));
        }
        let mut tenants = Vec::new();
        for tenant in &self.tenants {
            let Some((chain, key)) = read_identity(&tenant.identity, findings) else { continue };
            let Some(ca) = &ca else { continue };
            expiries.extend(tls::not_after_s(&chain).map(|at| (format!("tenant:{}", tenant.name.value), at)));
            let made = segl_wire::client::tls_config(ca, &chain, &key);
            let Some(tls) = note(findings, &tenant.identity.certificate, made) else { continue };
            let all = [ca.as_slice(), &chain, &key].map(|part| TokenHash::of(part).to_string()).concat();
            let fingerprint = TokenHash::of(all.as_bytes());
            tenants.push(TenantIdentity { name: tenant.name.value.clone(), tls, fingerprint });
        }
        for segld in &self.segld {
            if rustls::pki_types::ServerName::try_from(segld.server_name.as_str()).is_err() {
                let message = format!("[[segld]]: `server_name` must be a DNS name, not `{}`", segld.server_name.value);
                findings.push(segld.server_name.line, message);
            }
        }
        let mut loaded = Loaded {
            http_tls,
            tenants,
            providers: Providers::default(),
            expiries,
            metadata_ends: Vec::new(),
            warnings: Vec::new(),
        };
        self.load_providers(&mut loaded, findings);
        loaded
    }

    /// Metadata that is out of date is left out with a warning: one provider's lapse must not keep the broker of all the
    /// others from starting. What can not be used at all is a finding.
    fn load_providers(&self, loaded: &mut Loaded, findings: &mut Findings) {
        let now_unix_s = clock::unix_s();
        for configured in &self.providers {
            let path = &configured.metadata;
            let Some(metadata) = read(path, findings) else { continue };
            match Provider::from_metadata(&metadata, Defaults::default(), now_unix_s) {
                Ok(provider) => {
                    let name = provider.entity_id().to_owned();
                    loaded.expiries.push((format!("provider:{name}"), provider.certificate_not_after_unix_s()));
                    loaded.metadata_ends.extend(provider.valid_until_unix_s().map(|at_s| (name.clone(), at_s)));
                    if loaded.providers.insert(provider).is_some() {
                        findings.push(path.line, format!("[[provider]]: `{name}` has metadata already"));
                    }
                }
                Err(error @ MetadataError::Expired) => loaded.warnings.push(format!("{}: {error}", path.display())),
                Err(error) => findings.push(path.line, format!("{}: {error}", path.display())),
            }
        }
    }
}

fn read(path: &At<std::path::PathBuf>, findings: &mut Findings) -> Option<Vec<u8>> {
    if path.as_os_str().is_empty() {
        return None; // missing, which was told already
    }
    note(findings, path, files::read(path))
}

fn read_identity(identity: &Identity, findings: &mut Findings) -> Option<(Vec<u8>, Zeroizing<Vec<u8>>)> {
    let chain = read(&identity.certificate, findings);
    let key = note(findings, &identity.private_key, files::read_secret(&identity.private_key));
    chain.zip(key)
}

fn note<T, E: std::fmt::Display>(
    findings: &mut Findings,
    path: &At<std::path::PathBuf>,
    result: Result<T, E>,
) -> Option<T> {
    result.map_err(|error| findings.push(path.line, format!("{}: {error}", path.display()))).ok()
}
