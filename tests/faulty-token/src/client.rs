//! Making an HSM of the module's file, and commanding it from a test.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use segl_hsm::{KeyType, ModuleId, embedded::EmbeddedToken};

use crate::{Answer, Command, Configuration, Counts, Does, Fault, When};

/// What goes wrong here, as a sentence.
type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// The module's file name as cargo makes it.
pub const MODULE_FILE: &str = "libsegl_faulty_token.so";

/// Longest wait for a count, and a little less than the wait for an answer.
const LIMIT: Duration = Duration::from_secs(30);

/// An HSM: a copy of the module in a directory, with its configuration.
#[derive(Clone, Debug)]
pub struct FaultyHsm {
    directory: PathBuf,
    name: String,
}

impl FaultyHsm {
    /// Makes the HSM `DIRECTORY/NAME.so`. The directory's path must be short enough for a socket's (107 bytes).
    pub fn install(directory: &Path, name: &str, configuration: &Configuration) -> Result<FaultyHsm> {
        let hsm = FaultyHsm { directory: directory.to_owned(), name: name.to_owned() };
        fs::create_dir_all(directory)?;
        let built = built()?;
        fs::copy(&built, hsm.module()).map_err(|error| format!("{}: {error}", built.display()))?;
        hsm.configure(configuration)?;
        Ok(hsm)
    }

    /// Writes its configuration anew, for the next process that loads the module.
    pub fn configure(&self, configuration: &Configuration) -> Result<()> {
        Ok(fs::write(self.file("json"), serde_json::to_vec_pretty(configuration)?)?)
    }

    /// Makes the directory of key files if it is missing, and those of the files that are.
    pub fn make_keys(directory: &Path, keys: &[(String, KeyType)]) -> Result<()> {
        EmbeddedToken::open_directory("keys", directory, ModuleId(0), keys)?;
        Ok(())
    }

    /// The PKCS#11 module.
    pub fn module(&self) -> PathBuf {
        self.file("so")
    }

    /// Carries out a command; a refusal is an error. The module must have been loaded.
    pub fn command(&self, command: &Command) -> Result<Answer> {
        let path = self.file("sock");
        let mut stream = UnixStream::connect(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        stream.set_read_timeout(Some(LIMIT + Duration::from_secs(10)))?;
        let mut line = serde_json::to_vec(command)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        match serde_json::from_str(&answer)? {
            Answer::Refused(why) => Err(format!("{command:?}: {why}").into()),
            answer => Ok(answer),
        }
    }

    /// One more fault, on all tokens and keys; returns its number.
    pub fn fault(&self, call: crate::Call, when: When, does: Does) -> Result<u64> {
        self.add(Fault { call, token: None, key: None, when, does })
    }

    /// One more fault; returns its number.
    pub fn add(&self, fault: Fault) -> Result<u64> {
        match self.command(&Command::Fault(fault))? {
            Answer::Fault(number) => Ok(number),
            other => Err(format!("{other:?} in place of a fault's number").into()),
        }
    }

    /// Takes a fault back.
    pub fn clear(&self, fault: u64) -> Result<()> {
        self.command(&Command::Clear { fault: Some(fault) }).map(drop)
    }

    /// Takes everything back that keeps it from working.
    pub fn heal(&self) -> Result<()> {
        self.command(&Command::Heal).map(drop)
    }

    /// Its counts.
    pub fn counts(&self) -> Result<Counts> {
        self.counts_by(&Command::Counts)
    }

    /// Its counts once the one at this path (see [`Command::Await`]) is at least so high.
    pub fn wait_for(&self, count: &str, at_least: u64) -> Result<Counts> {
        let limit_ms = u64::try_from(LIMIT.as_millis()).expect("half a minute");
        self.counts_by(&Command::Await { count: count.to_owned(), at_least, limit_ms })
    }

    fn counts_by(&self, command: &Command) -> Result<Counts> {
        match self.command(command)? {
            Answer::Counts(counts) => Ok(*counts),
            other => Err(format!("{other:?} in place of counts").into()),
        }
    }

    fn file(&self, extension: &str) -> PathBuf {
        self.directory.join(format!("{}.{extension}", self.name))
    }
}

/// The module as cargo built it: whatever depends on this crate has it built too, beside its own parts.
fn built() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let directory = program.parent().ok_or("a program stands in a directory")?;
    let places = [directory.join(MODULE_FILE), directory.join("deps").join(MODULE_FILE)];
    let found = places.into_iter().find(|place| place.exists());
    found.ok_or_else(|| format!("{MODULE_FILE} is not beside {}", program.display()).into())
}
