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
/// A key that no configuration speaks of: what a handle of [`P256`] names when handles change their meaning.
pub const DECOY: &str = "decoy-p256";
/// The users' PIN.
pub const PIN: &str = "57-development-31";

/// Makes one in `dir`. Each HSM is the list of its tokens' names, which are their serial numbers too; the first is the
/// HSM's as well. All tokens hold the same keys, [`P256`] and [`ED25519`]. `settings` are lines for every token's section.
///
/// A HSM can be commanded once segld has loaded its module; what has to be wrong before that stands in its
/// [`configuration`].
pub fn create(dir: &Path, hsms: &[&[&str]], settings: &str) -> Result<(Site, Vec<FaultyHsm>)> {
    let mut site = Site::create(dir, Token::Embedded, &[])?;
    let files = on_every_token().map(|(name, key_type)| (format!("{name}.pem"), key_type));
    FaultyHsm::make_keys(&dir.join("keys"), &files)?;
    write_private(&dir.join("pin"), PIN.as_bytes())?;
    let (mut installed, mut sections, mut names) = (Vec::new(), String::new(), Vec::new());
    for tokens in hsms {
        let name = tokens.first().ok_or("an HSM without a token")?;
        let hsm = FaultyHsm::install(&dir.join("hsm"), name, &configuration(dir, tokens))?;
        for name in *tokens {
            write!(
                sections,
                "\n[[token]]\nname = \"{name}\"\nkind = \"pkcs11\"\nmodule = {:?}\nuri = \"pkcs11:serial={name}\"\n\
                 pin_file = \"pin\"\n{settings}\n",
                hsm.module()
            )?;
            names.push(*name);
        }
        installed.push(hsm);
    }
    site.segld_toml = with_tokens(&site.segld_toml, &sections, &names);
    site.write()?;
    Ok((site, installed))
}

/// What an HSM with tokens of these names is made of in an installation in `dir`.
pub fn configuration(dir: &Path, names: &[&str]) -> Configuration {
    let keys = (1..).zip(on_every_token()).map(|(id, (label, _))| KeyConfiguration {
        label: label.to_owned(),
        id: vec![id],
        file: format!("{label}.pem"),
    });
    let keys: Vec<_> = keys.collect();
    let tokens = (1..).zip(names).map(|(slot, name)| TokenConfiguration {
        slot,
        label: "segl".to_owned(),
        serial: (*name).to_owned(),
        pin: PIN.to_owned(),
        tries: 5,
        keys_directory: dir.join("keys"),
        keys: keys.clone(),
    });
    Configuration { tokens: tokens.collect(), commands: Vec::new() }
}

/// In the order of their handles.
fn on_every_token() -> [(&'static str, KeyType); 3] {
    [KEYS[0], (DECOY, KEYS[0].1), KEYS[1]]
}

/// The configuration of an embedded token's installation, with these tokens in its place and no more than their keys.
fn with_tokens(segld_toml: &str, tokens: &str, names: &[&str]) -> String {
    let held = |section: &str| KEYS.iter().any(|(name, _)| section.contains(&format!("\"{name}\"")));
    let mut toml = String::new();
    for section in segld_toml.split_inclusive('\n').fold(Vec::<String>::new(), sections) {
        match section.split_once("]]") {
            Some(("[[token", _)) => toml += tokens,
            Some(("[[key" | "[[tenant.grant", _)) if !held(&section) => {}
            _ => toml += &section,
        }
    }
    for (name, _) in KEYS {
        toml = toml.replace(&format!("file = \"{name}.pem\""), &format!("uri = \"pkcs11:object={name}\""));
    }
    toml.replace("tokens = [\"embedded\"]", &format!("tokens = {names:?}"))
}

/// Gathers lines into parts that begin with `[[`.
fn sections(mut sections: Vec<String>, line: &str) -> Vec<String> {
    match sections.last_mut() {
        Some(section) if !line.starts_with("[[") => section.push_str(line),
        _ => sections.push(line.to_owned()),
    }
    sections
}
