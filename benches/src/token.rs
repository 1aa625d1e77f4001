//! The tokens that can be measured: how each is made, and how segld and a bare loop are led to it.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use segl_hsm::{KeyId, KeySpec, ModuleId, Token as _, embedded::EmbeddedToken};
use segl_tests::{Result, pki::write_private, softhsm::SoftHsm};
use serde::{Deserialize, Serialize};

use crate::{
    build::Programs,
    key::{Key, Payload},
};

/// The label of every token that the bench makes; segld takes no records off for others.
pub(crate) const LABEL: &str = "segl-bench";

/// The key's file in an embedded token's directory.
const KEY_FILE: &str = "bench.pem";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TokenKind {
    /// Keys in segld's own process, by ring. The ceiling is bare ring
    Embedded,
    /// SoftHSM2, in a directory made for it
    Softhsm,
    /// SIMULATED: an HSM at the other end of a network. It takes --service-us on each of --slots at once, burns no CPU,
    /// and makes no signatures
    Simulated,
    /// SIMULATED: a PKCS#11 module that answers at once and makes no signatures
    Noop,
    /// An HSM of your own: --module, --uri, --pin-file, --key-uri
    Pkcs11,
}

impl TokenKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            TokenKind::Embedded => "embedded",
            TokenKind::Softhsm => "softhsm",
            TokenKind::Simulated => "simulated",
            TokenKind::Noop => "noop (simulated)",
            TokenKind::Pkcs11 => "pkcs11",
        }
    }

    /// Whether what it gives are no signatures.
    pub(crate) fn pretends(self) -> bool {
        matches!(self, TokenKind::Simulated | TokenKind::Noop)
    }
}

/// Which token, and what it is like.
#[derive(Clone, Debug, Args)]
pub(crate) struct TokenArguments {
    /// The token that signs
    #[arg(long, value_enum, default_value = "softhsm")]
    pub(crate) token: TokenKind,
    /// The key that it signs with
    #[arg(long, value_enum, default_value = "p256")]
    pub(crate) key: Key,
    /// Simulated token: time of a signature, in microseconds
    #[arg(long, default_value_t = 1000)]
    pub(crate) service_us: u64,
    /// Simulated token: signatures that it makes at once
    #[arg(long, default_value_t = 32)]
    pub(crate) slots: u32,
    /// Simulated token: one signature in so many takes --tail-us on top; 0 for none
    #[arg(long, default_value_t = 0)]
    pub(crate) tail_one_in: u64,
    /// Simulated token: time of the tail, in microseconds
    #[arg(long, default_value_t = 20_000)]
    pub(crate) tail_us: u64,
    /// Own HSM: the vendor's PKCS#11 library
    #[arg(long, required_if_eq("token", "pkcs11"))]
    pub(crate) module: Option<PathBuf>,
    /// Own HSM: which token (RFC 7512), as pkcs11:token=LABEL;serial=...
    #[arg(long, required_if_eq("token", "pkcs11"))]
    pub(crate) uri: Option<String>,
    /// Own HSM: the file with the user's PIN
    #[arg(long, required_if_eq("token", "pkcs11"))]
    pub(crate) pin_file: Option<PathBuf>,
    /// Own HSM: which key, as pkcs11:object=LABEL. It should be one made for benches: it signs counters
    #[arg(long, required_if_eq("token", "pkcs11"))]
    pub(crate) key_uri: Option<String>,
}

/// Where a bare loop finds the key; handed to it as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Seat {
    /// A PKCS#8 file in a directory, as the embedded token has it
    Ring { directory: PathBuf, file: String },
    /// A PKCS#11 module
    Pkcs11 { module: PathBuf, uri: String, key_uri: String, pin_file: PathBuf },
}

/// A token that is ready to sign.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    pub(crate) key: Key,
    pub(crate) seat: Seat,
    /// What the environment says in every process that uses it
    pub(crate) environment: Option<(&'static str, PathBuf)>,
    /// What is put before a figure's name
    pub(crate) description: String,
    slots: u32,
}

impl Token {
    /// Makes it in `dir`.
    pub(crate) fn prepare(arguments: &TokenArguments, dir: &Path, programs: &Programs) -> Result<Token> {
        let (kind, key) = (arguments.token, arguments.key);
        let mut description = format!("{} {}", kind.name(), key.name());
        let mut environment = None;
        let seat = match kind {
            TokenKind::Embedded => {
                let directory = dir.join("keys");
                public_key(&directory, key)?;
                Seat::Ring { directory, file: KEY_FILE.to_owned() }
            }
            TokenKind::Softhsm => {
                let mut softhsm = SoftHsm::create(&dir.join("softhsm"), LABEL).map_err(|error| {
                    format!("SoftHSM2 can not be used ({error}); on Debian: apt-get install softhsm2 opensc")
                })?;
                let attributes = softhsm.generate(key.pkcs11_tool(), "bench")?;
                let (variable, configuration) = softhsm.environment();
                environment = Some((variable, configuration.to_owned()));
                Seat::Pkcs11 {
                    module: softhsm.module().to_owned(),
                    uri: format!("pkcs11:token={LABEL}"),
                    key_uri: format!("pkcs11:{attributes}"),
                    pin_file: softhsm.pin_file().to_owned(),
                }
            }
            TokenKind::Simulated | TokenKind::Noop => {
                let tempo = match kind {
                    TokenKind::Noop => serde_json::json!({}),
                    _ => {
                        description += &format!(" {} us x {}", arguments.service_us, arguments.slots);
                        if arguments.tail_one_in > 0 {
                            description += &format!(" (1 in {}: +{} us)", arguments.tail_one_in, arguments.tail_us);
                        }
                        serde_json::json!({
                            "service_us": arguments.service_us, "slots": arguments.slots,
                            "tail_one_in": arguments.tail_one_in, "tail_us": arguments.tail_us,
                        })
                    }
                };
                let configuration = dir.join("simulated-token.json");
                let what = serde_json::json!({
                    "label": LABEL, "key_label": "bench", "key_type": pkcs11_type(key),
                    "spki_der": public_key(&dir.join("keys"), key)?,
                    "signature_len": key.key_type().signature_len(), "tempo": tempo,
                });
                std::fs::write(&configuration, what.to_string())?;
                environment = Some(("SEGL_SIMULATED_TOKEN", configuration));
                let pin_file = dir.join("pin");
                write_private(&pin_file, b"simulated")?;
                Seat::Pkcs11 {
                    module: programs.simulated_token()?,
                    uri: format!("pkcs11:token={LABEL}"),
                    key_uri: "pkcs11:object=bench".to_owned(),
                    pin_file,
                }
            }
            TokenKind::Pkcs11 => {
                let missing = "--token pkcs11 needs --module, --uri, --pin-file and --key-uri";
                Seat::Pkcs11 {
                    module: arguments.module.clone().ok_or(missing)?.canonicalize()?,
                    uri: arguments.uri.clone().ok_or(missing)?,
                    key_uri: arguments.key_uri.clone().ok_or(missing)?,
                    pin_file: arguments.pin_file.clone().ok_or(missing)?.canonicalize()?,
                }
            }
        };
        Ok(Token { kind, key, seat, environment, description, slots: arguments.slots })
    }

    /// What clients send it: ring signs messages only, and Ed25519 is not made for digests.
    pub(crate) fn payload(&self) -> Payload {
        match (&self.seat, self.key) {
            (Seat::Ring { .. }, _) | (_, Key::Ed25519) => Payload::Message,
            _ => Payload::Digest,
        }
    }

    /// Sessions that segld opens unless told otherwise.
    pub(crate) fn sessions(&self) -> u32 {
        match self.kind {
            TokenKind::Simulated => self.slots,
            TokenKind::Pkcs11 => 8,
            _ => cores() as u32,
        }
    }

    /// Numbers of sessions, one for each segld that is started beside a bare loop that gave most with so many threads;
    /// the best one is measured, and the bare loop is the best of as many processes. SoftHSM2's calls wait for each
    /// other's locks, asleep, and with short calls a process is lucky in that or not from its start to its end, whatever
    /// the number is. RSA's calls are so long that they hardly meet.
    pub(crate) fn sessions_beside(&self, threads: u32) -> Vec<u32> {
        match (self.kind, self.key) {
            (TokenKind::Softhsm, Key::P256 | Key::Ed25519) => {
                let more_than_one = self.ceiling_threads().into_iter().filter(|threads| *threads > 1);
                more_than_one.filter_map(|threads| threads.try_into().ok()).collect()
            }
            _ => vec![threads],
        }
    }

    /// Numbers of threads among which the ceiling is looked for.
    pub(crate) fn ceiling_threads(&self) -> Vec<usize> {
        match self.kind {
            TokenKind::Simulated => vec![self.slots as usize, 2 * self.slots as usize],
            TokenKind::Pkcs11 => vec![1, 2, 4, 8, 16, 32],
            _ => {
                let mut counts = vec![1, cores(), cores() + 1, 2 * cores()];
                counts.dedup();
                counts
            }
        }
    }

    /// segld's `[[token]]`, called `bench`, and how its `[[key]]` finds the key.
    pub(crate) fn sections(&self, sessions: u32) -> (String, String) {
        match &self.seat {
            Seat::Ring { directory, file } => (
                format!(
                    "[[token]]\nname = \"bench\"\nkind = \"embedded\"\ndirectory = {directory:?}\nsessions = {sessions}\n\
                     generate = [{{ file = \"{file}\", type = \"{}\" }}]\n",
                    self.key.configured()
                ),
                format!("file = \"{file}\""),
            ),
            Seat::Pkcs11 { module, uri, key_uri, pin_file } => (
                format!(
                    "[[token]]\nname = \"bench\"\nkind = \"pkcs11\"\nmodule = {module:?}\nuri = \"{uri}\"\n\
                     pin_file = {pin_file:?}\nsessions = {sessions}\n"
                ),
                format!("uri = \"{key_uri}\""),
            ),
        }
    }
}

/// Makes a key, if it is not there yet, and returns its SubjectPublicKeyInfo.
fn public_key(directory: &Path, key: Key) -> Result<Vec<u8>> {
    let generate = [(KEY_FILE.to_owned(), key.key_type())];
    let token = EmbeddedToken::open_directory("bench", directory, ModuleId(0), &generate)?;
    token.add_keys(&[KeySpec { id: KeyId(0), locator: KEY_FILE.into() }]);
    let report = token.open()?.login()?.pop().ok_or("the embedded token has no key")?;
    Ok(report.result?.spki_der)
}

fn pkcs11_type(key: Key) -> u64 {
    match key {
        Key::P256 => cryptoki_sys::CKK_EC,
        Key::Rsa2048 | Key::Rsa3072 => cryptoki_sys::CKK_RSA,
        Key::Ed25519 => cryptoki_sys::CKK_EC_EDWARDS,
    }
}

pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
