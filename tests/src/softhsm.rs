//! A SoftHSM2 token in a directory of its own, with keys made by OpenSC's `pkcs11-tool`.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Result, pki::write_private, run};

/// SoftHSM2's module as Debian installs it.
pub const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
/// The user's PIN of every token made here.
pub const PIN: &str = "57-development-31";
const SO_PIN: &str = "57-security-officer-31";

/// A token and its keys.
#[derive(Debug)]
pub struct SoftHsm {
    label: String,
    configuration: PathBuf,
    pin_file: PathBuf,
    keys: u8,
}

impl SoftHsm {
    /// Makes an empty token in `dir`, which must not hold one yet.
    pub fn create(dir: &Path, label: &str) -> Result<Self> {
        let tokens = dir.join("tokens");
        std::fs::create_dir_all(&tokens)?;
        let configuration = dir.join("softhsm2.conf");
        std::fs::write(
            &configuration,
            format!("directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n", tokens.display()),
        )?;
        let pin_file = dir.join("pin");
        write_private(&pin_file, PIN.as_bytes())?;
        let token = SoftHsm { label: label.to_owned(), configuration, pin_file, keys: 0 };
        let init = ["--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", SO_PIN];
        run(token.command("softhsm2-util").args(init))?;
        Ok(token)
    }

    /// Makes a key pair and returns its RFC 7512 attributes (`object` and `id`).
    ///
    /// `kind` is in `pkcs11-tool`'s language: `rsa:3072`, `EC:prime256v1`, `EC:secp384r1`, `EC:edwards25519`.
    pub fn generate(&mut self, kind: &str, name: &str) -> Result<String> {
        self.keys += 1;
        let id = format!("{:02x}", self.keys);
        let mut tool = self.command("pkcs11-tool");
        tool.args(["--module", MODULE, "--token-label", &self.label, "--login", "--pin", PIN]);
        run(tool.args(["--keypairgen", "--key-type", kind, "--label", name, "--id", &id]))?;
        Ok(format!("object={name};id=%{id}"))
    }

    /// The token's label.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// What `SOFTHSM2_CONF` has to say in every process that uses the token.
    pub fn configuration(&self) -> &Path {
        &self.configuration
    }

    /// A file with the PIN, mode 0600.
    pub fn pin_file(&self) -> &Path {
        &self.pin_file
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("SOFTHSM2_CONF", &self.configuration);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_holds_a_key_of_every_kind() {
        let dir = tempfile::tempdir().unwrap();
        let mut token = SoftHsm::create(dir.path(), "test").unwrap();
        for (at, kind) in ["rsa:2048", "EC:prime256v1", "EC:secp384r1", "EC:edwards25519"].into_iter().enumerate() {
            assert_eq!(token.generate(kind, "key").unwrap(), format!("object=key;id=%0{}", at + 1));
        }
        let mut tool = token.command("pkcs11-tool");
        tool.args(["--module", MODULE, "--token-label", "test", "--login", "--pin", PIN, "--list-objects"]);
        let objects = String::from_utf8(run(&mut tool).unwrap()).unwrap();
        assert_eq!(objects.matches("Private Key Object").count(), 4, "{objects}");
    }
}
