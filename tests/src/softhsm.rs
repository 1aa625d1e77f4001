//! A SoftHSM2 or Kryoptic token in a directory of its own, with keys made by OpenSC's `pkcs11-tool`.

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
    module: PathBuf,
    /// The variable that names the configuration to the module
    variable: &'static str,
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
        let (module, variable) = (MODULE.into(), "SOFTHSM2_CONF");
        let token = SoftHsm { label: label.to_owned(), module, variable, configuration, pin_file, keys: 0 };
        let init = ["--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", SO_PIN];
        run(token.command("softhsm2-util").args(init))?;
        Ok(token)
    }

    /// The same, but of Kryoptic, whose module is given: a second opinion on what PKCS#11 means.
    pub fn create_kryoptic(module: &Path, dir: &Path, label: &str) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let (configuration, pin_file) = (dir.join("kryoptic.conf"), dir.join("pin"));
        let database = dir.join("token.sql");
        std::fs::write(
            &configuration,
            format!("[[slots]]\nslot = 1\ndbtype = \"sqlite\"\ndbargs = {:?}\n", database.display().to_string()),
        )?;
        write_private(&pin_file, PIN.as_bytes())?;
        let (module, variable) = (module.to_owned(), "KRYOPTIC_CONF");
        let token = SoftHsm { label: label.to_owned(), module, variable, configuration, pin_file, keys: 0 };
        run(token.tool().args(["--init-token", "--slot", "1", "--label", label, "--so-pin", SO_PIN]))?;
        let officer = ["--token-label", label, "--login", "--login-type", "so", "--so-pin", SO_PIN];
        run(token.tool().args(officer).args(["--init-pin", "--pin", PIN]))?;
        Ok(token)
    }

    /// Makes a key pair and returns its RFC 7512 attributes (`object` and `id`).
    ///
    /// `kind` is in `pkcs11-tool`'s language: `rsa:3072`, `EC:prime256v1`, `EC:secp384r1`, `EC:edwards25519`.
    pub fn generate(&mut self, kind: &str, name: &str) -> Result<String> {
        self.keys += 1;
        let id = format!("{:02x}", self.keys);
        let mut tool = self.tool();
        tool.args(["--token-label", &self.label, "--login", "--pin", PIN]);
        run(tool.args(["--keypairgen", "--usage-sign", "--key-type", kind, "--label", name, "--id", &id]))?;
        Ok(format!("object={name};id=%{id}"))
    }

    /// The token's label.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The PKCS#11 module.
    pub fn module(&self) -> &Path {
        &self.module
    }

    /// What the environment has to say in every process that uses the token.
    pub fn environment(&self) -> (&'static str, &Path) {
        (self.variable, &self.configuration)
    }

    /// A file with the PIN, mode 0600.
    pub fn pin_file(&self) -> &Path {
        &self.pin_file
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env(self.variable, &self.configuration);
        command
    }

    fn tool(&self) -> Command {
        let mut tool = self.command("pkcs11-tool");
        tool.arg("--module").arg(&self.module);
        tool
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
        let mut tool = token.tool();
        tool.args(["--token-label", "test", "--login", "--pin", PIN, "--list-objects"]);
        let objects = String::from_utf8(run(&mut tool).unwrap()).unwrap();
        assert_eq!(objects.matches("Private Key Object").count(), 4, "{objects}");
    }
}
