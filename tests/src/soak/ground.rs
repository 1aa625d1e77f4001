//! The installation: three HSMs of one token each, keys that several of them hold and keys that one holds alone.

use std::{fmt::Write as _, path::Path, time::Duration};

use segl_faulty_token::{Configuration, FaultyHsm, KeyConfiguration, KeyType, Tempo, TokenConfiguration};

use crate::{
    Result,
    faulty::PIN,
    pki::{Identity, write_private},
    site::{Site, Token},
};

/// The tokens' names, which are their serial numbers too.
pub(super) const TOKENS: [&str; 3] = ["one", "two", "three"];

/// After how long a call is given up.
pub(super) const STUCK_AFTER: Duration = Duration::from_secs(1);

/// The time a signature takes in a well token: with four sessions each, three tokens give some 4,000 a second.
pub(super) const TEMPO: Tempo = Tempo { base_us: 2_000, spread_us: 2_000, tail_one_in: 0, tail_us: 0, parallel: 0 };

/// A key as it is configured.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) ed25519: bool,
    /// Who holds it, by place in [`TOKENS`]
    pub(super) tokens: &'static [usize],
    pub(super) repeatable: bool,
    /// `verify = "always"`
    pub(super) verified: bool,
}

pub(super) const KEYS: [Key; 6] = [
    Key { name: "shared", ed25519: false, tokens: &[0, 1, 2], repeatable: false, verified: false },
    Key { name: "shared-repeatable", ed25519: true, tokens: &[0, 1], repeatable: true, verified: false },
    Key { name: "verified", ed25519: true, tokens: &[1, 2], repeatable: false, verified: true },
    Key { name: "verified-repeatable", ed25519: false, tokens: &[0, 1, 2], repeatable: true, verified: true },
    Key { name: "alone", ed25519: false, tokens: &[2], repeatable: false, verified: false },
    Key { name: "alone-verified", ed25519: true, tokens: &[2], repeatable: true, verified: true },
];

impl Key {
    pub(super) fn algorithm(&self) -> &'static str {
        if self.ed25519 { "ed25519" } else { "ecdsa-p256-sha256" }
    }
}

/// The ground on which everything happens.
pub(super) struct Ground {
    pub(super) site: Site,
    pub(super) hsms: Vec<FaultyHsm>,
    /// One of each tenant
    pub(super) identities: Vec<Identity>,
}

impl Ground {
    pub(super) fn lay(dir: &Path) -> Result<Ground> {
        let mut site = Site::create(dir, Token::Embedded, &[])?;
        let mut identities: Vec<_> = site.tenants.iter().map(|tenant| tenant.identity.clone()).collect();
        identities.push(site.clients.client(THIRD)?);
        let kind = |key: &Key| if key.ed25519 { KeyType::Ed25519 } else { KeyType::EcP256 };
        let files: Vec<_> = KEYS.iter().map(|key| (format!("{}.pem", key.name), kind(key))).collect();
        FaultyHsm::make_keys(&dir.join("keys"), &files)?;
        let mut hsms = Vec::new();
        for (token, name) in TOKENS.into_iter().enumerate() {
            hsms.push(FaultyHsm::install(&dir.join("hsm"), name, &hsm(dir, token))?);
            write_private(&pin_file(dir, token), PIN.as_bytes())?;
        }
        let common = site.segld_toml.split("\n[[token]]").next().expect("splitting gives a first part");
        site.segld_toml = configuration(common, &site, &hsms)?;
        site.write()?;
        Ok(Ground { site, hsms, identities })
    }
}

/// Where a token's PIN is.
pub(super) fn pin_file(dir: &Path, token: usize) -> std::path::PathBuf {
    dir.join(format!("{}.pin", TOKENS[token]))
}

const THIRD: &str = "spiffe://segl.example/land-registry";

fn hsm(dir: &Path, token: usize) -> Configuration {
    let held = (1..).zip(&KEYS).filter(|(_, key)| key.tokens.contains(&token));
    let keys = held.map(|(id, key)| KeyConfiguration {
        label: key.name.to_owned(),
        id: vec![id],
        file: format!("{}.pem", key.name),
    });
    let token = TokenConfiguration {
        slot: 1,
        label: "segl".to_owned(),
        serial: TOKENS[token].to_owned(),
        pin: PIN.to_owned(),
        tries: 5,
        keys_directory: dir.join("keys"),
        keys: keys.collect(),
    };
    Configuration { tokens: vec![token], commands: Vec::new() }
}

fn configuration(common: &str, site: &Site, hsms: &[FaultyHsm]) -> Result<String> {
    let mut toml = format!(
        "{common}\n[pool]\n# So that faults can follow each other.\nbackoff_max = \"2s\"\n\n[limits]\nwrite_timeout = \"2s\"\n"
    );
    for (name, hsm) in TOKENS.iter().zip(hsms) {
        write!(
            toml,
            "\n[[token]]\nname = \"{name}\"\nkind = \"pkcs11\"\nmodule = {:?}\nuri = \"pkcs11:serial={name}\"\n\
             pin_file = \"{name}.pin\"\nsessions = 4\nstuck_after = \"{}s\"\nkeep_alive = \"500ms\"\n",
            hsm.module(),
            STUCK_AFTER.as_secs(),
        )?;
    }
    for key in &KEYS {
        let tokens: Vec<_> = key.tokens.iter().map(|token| TOKENS[*token]).collect();
        write!(
            toml,
            "\n[[key]]\nname = \"{0}\"\npurpose = \"digest\"\ntokens = {tokens:?}\nuri = \"pkcs11:object={0}\"\n\
             algorithms = [\"{1}\"]\nrepeatable = {2}\nverify = \"{3}\"\n",
            key.name,
            key.algorithm(),
            key.repeatable,
            if key.verified { "always" } else { "off" },
        )?;
    }
    let uris = site.tenants.iter().map(|tenant| tenant.uri.as_str()).chain([THIRD]);
    for (number, uri) in uris.enumerate() {
        write!(toml, "\n[[tenant]]\nname = \"tenant-{number}\"\nclients = [{{ san = \"URI:{uri}\" }}]\n")?;
        for key in &KEYS {
            write!(toml, "[[tenant.grant]]\nkey = \"{}\"\n", key.name)?;
        }
    }
    Ok(toml)
}
