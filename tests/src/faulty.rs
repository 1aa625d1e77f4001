//! An installation whose keys are on HSMs that misbehave on command.

use std::{fmt::Write as _, path::Path};

use segl_faulty_token::{Configuration, FaultyHsm, KeyConfiguration, KeyType, TokenConfiguration};

use crate::{
    Result,
    pki::write_private,
    site::{ED25519, P256, Site, Token},
};

/// Keys of a faulty installation: both on every HSM. RSA would cost each test seconds of making keys.
const KEYS: [(&str, KeyType); 2] = [(P256, KeyType::EcP256), (ED25519, KeyType::Ed25519)];
/// The users' PIN.
pub const PIN: &str = "57-development-31";

/// Makes one in `dir` with an HSM of each name, all holding the same keys, [`P256`] and [`ED25519`]. A HSM's name is
/// its token's in `segld.toml`, and its serial number. `settings` are lines for every token's section.
///
/// A HSM can be commanded once segld has loaded its module; what has to be wrong before that stands in the
/// configuration, see [`configuration`].
pub fn create(dir: &Path, names: &[&str], settings: &str) -> Result<(Site, Vec<FaultyHsm>)> {
    let mut site = Site::create(dir, Token::Embedded, &[])?;
    let files = KEYS.map(|(name, key_type)| (format!("{name}.pem"), key_type));
    FaultyHsm::make_keys(&dir.join("keys"), &files)?;
    write_private(&dir.join("pin"), PIN.as_bytes())?;
    let hsms = names.iter().map(|name| FaultyHsm::install(&dir.join("hsm"), name, &configuration(dir, name)));
    let hsms = hsms.collect::<Result<Vec<_>>>()?;
    site.segld_toml = on_hsms(&site.segld_toml, names, &hsms, settings);
    site.write()?;
    Ok((site, hsms))
}

/// What the HSM of that name is made of in an installation in `dir`.
pub fn configuration(dir: &Path, name: &str) -> Configuration {
    let keys = (1..).zip(KEYS).map(|(id, (label, _))| KeyConfiguration {
        label: label.to_owned(),
        id: vec![id],
        file: format!("{label}.pem"),
    });
    let token = TokenConfiguration {
        slot: 1,
        label: "segl".to_owned(),
        serial: name.to_owned(),
        pin: PIN.to_owned(),
        tries: 5,
        keys_directory: dir.join("keys"),
        keys: keys.collect(),
    };
    Configuration { tokens: vec![token], commands: Vec::new() }
}

/// The configuration of an embedded token's installation, with these HSMs in its place and no more than their keys.
fn on_hsms(segld_toml: &str, names: &[&str], hsms: &[FaultyHsm], settings: &str) -> String {
    let held = |section: &str| KEYS.iter().any(|(name, _)| section.contains(&format!("\"{name}\"")));
    let mut toml = String::new();
    for (at, section) in segld_toml.split("\n[[").enumerate() {
        match section.split_once("]]") {
            Some(("token", _)) => {
                for (name, hsm) in names.iter().zip(hsms) {
                    write!(
                        toml,
                        "\n[[token]]\nname = \"{name}\"\nkind = \"pkcs11\"\nmodule = {:?}\n\
                         uri = \"pkcs11:serial={name}\"\npin_file = \"pin\"\n{settings}\n",
                        hsm.module()
                    )
                    .expect("text is written to memory");
                }
            }
            Some(("key" | "tenant.grant", _)) if !held(section) => {}
            _ => {
                let separator = if at == 0 { "" } else { "\n[[" };
                let _ = write!(toml, "{separator}{section}");
            }
        }
    }
    for (name, _) in KEYS {
        toml = toml.replace(&format!("file = \"{name}.pem\""), &format!("uri = \"pkcs11:object={name}\""));
    }
    toml.replace("tokens = [\"embedded\"]", &format!("tokens = {names:?}"))
}
