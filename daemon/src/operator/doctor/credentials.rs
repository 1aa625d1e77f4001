//! PINs and private keys: who could read them, and what a copied disk would give away.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use segl_hsm::pkcs11::PinSource;

use super::{
    Check, Subject, child,
    unit::{Credential, Unit},
};
use crate::config::{TokenKind, UNIT_CREDENTIALS};

/// Longest beginning of a sealed credential that is looked at: its first 16 bytes, in base64 with line ends.
const HEAD_MAX: usize = 64;

/// Where systemd looks for a credential that is named without a path (systemd.exec(5)).
const STORES: [&str; 3] = ["/etc/credstore.encrypted", "/run/credstore.encrypted", "/usr/lib/credstore.encrypted"];

/// A TPM may take some seconds.
const UNSEAL_LIMIT: Duration = Duration::from_secs(60);

const SEAL: &str = "seal it: OPERATIONS.md, Seal a PIN";

pub(super) fn checks(subject: &Subject) -> Vec<Check> {
    let mut checks = Vec::new();
    let tokens = subject.draft.iter().flat_map(|draft| &draft.tokens);
    for token in tokens {
        let TokenKind::Pkcs11 { pin, .. } = &token.kind else { continue };
        let name = format!("PIN of token {}", token.name);
        match pin {
            PinSource::Credential(credential) => checks.push(given(name, credential, subject.unit.as_ref())),
            PinSource::File(path) => checks.push(file(name, path, subject.user)),
            PinSource::None => checks.push(Check::ok(name, "none is needed, or a person enters it at the device")),
        }
    }
    for credential in subject.unit.iter().flat_map(|unit| &unit.credentials) {
        checks.push(not_unsealed(credential).unwrap_or_else(|| stored(credential)));
        checks.extend(unsealed(credential));
    }
    if checks.is_empty() {
        let advice = "see OPERATIONS.md, Seal a PIN, once segld.service and its configuration are installed";
        checks.push(Check::not_known("credentials", "nothing here names any", advice));
    }
    checks
}

/// A credential that a token wants and the unit may or may not give.
fn given(name: String, credential: &str, unit: Option<&Unit>) -> Check {
    let line = format!("LoadCredentialEncrypted={credential}:/etc/segl/credentials/{credential}.cred in a drop-in");
    match unit {
        None => Check::not_known(name, format!("credential {credential:?}; segld.service is not installed here"), line),
        Some(unit) if unit.credentials.iter().any(|given| given.name == *credential) => {
            Check::ok(name, format!("the unit's credential {credential:?}"))
        }
        Some(_) => Check::problem(name, format!("the unit gives no credential {credential:?}"), line),
    }
}

fn file(name: String, path: &Path, user: Option<u32>) -> Check {
    let advice = format!("chown to root or segld's user, chmod 0600, no ACL; better {SEAL}");
    let Some(user) = user else { return Check::not_known(name, "there is no user segl to judge it for", advice) };
    match (PinSource::File(path.to_owned())).check_for(user) {
        Ok(()) => Check::warning(
            name,
            format!("{} lies readable on the disk, for root and segld's user alone", path.display()),
            SEAL,
        ),
        Err(error) => Check::problem(name, error.to_string(), advice),
    }
}

/// What lies on the disk.
fn stored(credential: &Credential) -> Check {
    let name = format!("credential {}", credential.name);
    let path = located(credential);
    let shown = path.display();
    if !credential.sealed {
        return match fs::metadata(&path) {
            Ok(found) if found.mode() & 0o077 != 0 || found.uid() != 0 => {
                let seen = format!("{shown} lies there in clear, and others than root may read it");
                Check::problem(name, seen, format!("chown root, chmod 0600; better {SEAL}"))
            }
            Ok(_) => {
                Check::warning(name, format!("{shown} lies there in clear: a copy of the disk is a copy of it"), SEAL)
            }
            Err(error) => Check::problem(name, format!("{shown}: {error}"), SEAL),
        };
    }
    match head(&path).map(|head| Key::of(&head)) {
        Ok(Some(Key::Tpm)) => Check::ok(name, format!("{shown} is sealed to this host's TPM")),
        Ok(Some(Key::Host)) => {
            let seen = format!("{shown} is sealed with the host key alone, which lies on the same disk");
            let advice = "where there is a TPM, seal it with --with-key=host+tpm2: then a copied disk is worthless";
            Check::warning(name, seen, advice)
        }
        Ok(Some(Key::Null)) => {
            Check::problem(name, format!("{shown} is sealed with no key at all: anybody can unseal it"), SEAL)
        }
        Ok(None) => {
            let advice = "systemd-creds decrypt --name=NAME FILE /dev/null says whether this host can unseal it";
            Check::not_known(
                name,
                format!("{shown} is sealed in a way that is not known here, or no credential"),
                advice,
            )
        }
        Err(error) => Check::problem(name, format!("{shown}: {error}"), SEAL),
    }
}

/// A sealed credential that this host can not unseal, whatever else is to be said of it.
fn not_unsealed(credential: &Credential) -> Option<Check> {
    if !credential.sealed {
        return None;
    }
    let path = located(credential);
    let why = unseals(&credential.name, &path).err()?;
    let seen = format!("{} can not be unsealed here: {why}", path.display());
    Some(Check::problem(format!("credential {}", credential.name), seen, SEAL))
}

/// Has systemd's own tool unseal it into nowhere; only root may. Where it can not be asked, nothing speaks against it.
fn unseals(name: &str, path: &Path) -> Result<(), String> {
    if !path.exists() || !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    // By a shell, so that what is unsealed never passes through this process.
    let mut creds = Command::new("sh");
    creds.args(["-c", "exec systemd-creds --name=\"$0\" decrypt \"$1\" - >/dev/null", name]).arg(path);
    match child::run(&mut creds, UNSEAL_LIMIT) {
        // 127: there is no systemd-creds, which came with systemd 250.
        Ok(ended) if !ended.status.success() && ended.status.code() != Some(127) => {
            let said = String::from_utf8_lossy(&ended.stderr);
            Err(said.lines().rfind(|line| !line.is_empty()).unwrap_or("systemd-creds does not say why").to_owned())
        }
        Ok(_) => Ok(()),
        Err(why) => Err(format!("systemd-creds {why}")),
    }
}

fn located(credential: &Credential) -> PathBuf {
    if credential.source.is_absolute() {
        return credential.source.clone();
    }
    let places = STORES.iter().map(|store| Path::new(store).join(&credential.source));
    places.into_iter().find(|path| path.exists()).unwrap_or_else(|| Path::new(STORES[0]).join(&credential.source))
}

/// What it looks like to the running service, and to nobody else.
fn unsealed(credential: &Credential) -> Option<Check> {
    let path = Path::new(UNIT_CREDENTIALS).join(&credential.name);
    let found = fs::metadata(&path).ok()?;
    let open = found.mode() & 0o007 != 0;
    let name = format!("credential {} in the service", credential.name);
    Some(if open {
        Check::problem(
            name,
            format!("{} has mode {:o}", path.display(), found.mode() & 0o777),
            "it should be systemd's alone to make: restart segld.service",
        )
    } else {
        Check::ok(name, "readable by segld and root alone")
    })
}

/// What it takes to unseal a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    /// The host key in /var/lib/systemd alone
    Host,
    /// This host's TPM, with or without the host key
    Tpm,
    /// Nothing
    Null,
}

impl Key {
    /// By the id at the beginning, as systemd has it (src/shared/creds-util.h), of which the first 15 bytes are 20 digits
    /// of base64.
    fn of(head: &[u8]) -> Option<Key> {
        let digits = head.iter().filter(|byte| !byte.is_ascii_whitespace());
        let digits: String = digits.take(20).map(|byte| char::from(*byte)).collect();
        match digits.as_str() {
            "Whxqht+dQJax1aZeCGLx" => Some(Key::Host),
            "DHzAexF2RZGcSwvqCLwg" | "+vfrk0HjQSyhpDb5Wik2" | "k6iUCUh0RJCQyvL8k8q1" | "r0lQqEkTTrGnOEYwT/MM" => {
                Some(Key::Tpm)
            }
            "BYRp2vb1QySABUnaD46i" => Some(Key::Null),
            _ => None,
        }
    }
}

fn head(path: &Path) -> io::Result<Vec<u8>> {
    use io::Read;
    let mut head = Vec::new();
    fs::File::open(path)?.take(HEAD_MAX as u64).read_to_end(&mut head)?;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::{super::Outcome, *};

    #[test]
    fn what_lies_on_the_disk_is_judged_by_what_a_copy_of_it_would_give_away() {
        let dir = tempfile::tempdir().unwrap();
        let judged = |content: &str, mode: u32, sealed: bool| {
            let source = dir.path().join("pin");
            fs::write(&source, content).unwrap();
            fs::set_permissions(&source, fs::Permissions::from_mode(mode)).unwrap();
            let outcome = stored(&Credential { name: "pin".into(), source: source.clone(), sealed }).outcome;
            fs::remove_file(&source).unwrap();
            outcome
        };
        // As systemd-creds 252 began them.
        assert_eq!(judged("Whxqht+dQJax1aZeCGLxmiAAAAABAAAADAAAABAAAABBenFF", 0o600, true), Outcome::Warning, "host");
        assert_eq!(judged("DHzAexF2RZGcSwvqCLwg/iAAAAAB\n", 0o644, true), Outcome::Ok, "tpm2");
        assert_eq!(judged("k6iUCUh0RJCQyvL8k8q1UyAAAAAB\n", 0o644, true), Outcome::Ok, "host+tpm2");
        assert_eq!(judged("BYRp2vb1QySABUnaD46i+yAAAAAB\n", 0o600, true), Outcome::Problem, "no key");
        assert_eq!(judged("1234\n", 0o600, true), Outcome::NotKnown);
        assert_eq!(judged("1234\n", 0o644, false), Outcome::Problem, "in clear, for everybody");
        let gone = Credential { name: "pin".into(), source: dir.path().join("gone"), sealed: true };
        assert_eq!(stored(&gone).outcome, Outcome::Problem);
        if rustix::process::geteuid().is_root() {
            assert_eq!(judged("1234\n", 0o600, false), Outcome::Warning, "in clear, for root");
        }
    }
}
