//! Holds a PIN back that was refused once, across restarts, so that no restart loop locks the token.
//!
//! One small file a token, in the daemon's state directory. It is there, and durable, *before* C_Login is entered
//! (`trying`), becomes `refused` when the token says so, and is removed when the login succeeds. So a crash in
//! between costs tries in a bounded number: an attempt of unknown end is repeated once, then the PIN is held back.
//! The PIN is tried again when it is another one, or when the operator says so (the file is removed).
//!
//! Who tries holds a lock on the file's neighbour (`.lock`), so that two processes, or two tokens of the configuration
//! that are one device, do not both try a PIN before the first has heard that it is refused.
//!
//! To know whether it is another one, the file holds a fingerprint: PBKDF2 over a random salt, **cut to 12 bits**.
//! A full hash of a six-digit PIN is the PIN to whoever copies the file (a backup, say), and a key beside it would be
//! copied along. Twelve bits leave some 250 of a million PINs, more than any token lets one try, each at the cost of
//! 100,000 rounds; and usually it is the fingerprint of a PIN the token refused. The price: one new PIN in 4,096
//! looks like the old one and waits for the operator, whose error message says what to do. The file's time or inode
//! would not do instead, since a credential is a new file at every start.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    num::NonZeroU32,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use ring::{
    digest, pbkdf2,
    rand::{SecureRandom, SystemRandom},
};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use crate::{Error, Fault, Kind, Result, Rung, Verdict};

/// An attempt whose end nobody saw is repeated this often.
const UNFINISHED_MAX: u8 = 2;

/// Some 40 ms: no delay at a login, and a guess at the fingerprint has its price.
const ROUNDS: NonZeroU32 = NonZeroU32::new(100_000).unwrap();

/// First line of the file.
const HEAD: &str = "segl PIN guard 1";

/// The file of one token. Where it can not be had now, for want of a file descriptor or of room on the disk, say, the
/// PIN is not tried, and it is asked for again; what it says, or that it makes no sense, is for the operator.
#[derive(Debug)]
pub(super) struct PinGuard {
    directory: PathBuf,
    file: PathBuf,
    token: String,
}

/// An attempt that the file knows of.
#[derive(Debug)]
#[must_use]
pub(super) struct Attempt<'a> {
    guard: &'a PinGuard,
    record: Record,
    /// Locked while the attempt lasts.
    _lock: File,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    refused: bool,
    unfinished: u8,
    salt: [u8; 16],
    fingerprint: u16,
}

impl PinGuard {
    /// The guard of the token that `identity` names (whatever tells it from every other, serial number included).
    /// The directory is made if it is missing; nobody else may write to it.
    pub(super) fn open(directory: &Path, identity: &str) -> Result<PinGuard> {
        if let Err(error) = DirBuilder::new().mode(0o700).create(directory)
            && error.kind() != ErrorKind::AlreadyExists
        {
            return Err(unavailable(directory, error));
        }
        let meta = fs::metadata(directory).map_err(|error| unavailable(directory, error))?;
        let euid = rustix::process::geteuid().as_raw();
        if !meta.is_dir() || meta.mode() & 0o022 != 0 || (meta.uid() != 0 && meta.uid() != euid) {
            return Err(wrong(directory, "the state directory must be our own, and written to by nobody else"));
        }
        let hash = digest::digest(&digest::SHA256, identity.as_bytes());
        let name: String = hash.as_ref()[..12].iter().map(|byte| format!("{byte:02x}")).collect();
        let token = identity.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Ok(PinGuard { directory: directory.to_owned(), file: directory.join(format!("pin-{name}")), token })
    }

    /// Notes, durably, that this PIN is about to be tried. An error means that it must not be.
    pub(super) fn begin(&self, pin: &[u8]) -> Result<Attempt<'_>> {
        let lock = self.lock()?;
        let mut record = match self.read()? {
            Some(known) if known.fingerprint == fingerprint(&known.salt, pin) => known,
            _ => Record::new(pin)?,
        };
        if record.refused || record.unfinished >= UNFINISHED_MAX {
            let why =
                if record.refused { "the token refused this PIN" } else { "two logins with this PIN never ended" };
            let how = "correct the PIN, or make sure it is right and remove the file";
            let detail = format!("{}: {why}; it is not tried again: {how} {}", self.token, self.file.display());
            return Err(Error::of(Kind::PinHeldBack, "PIN", detail));
        }
        record.unfinished += 1;
        self.write(&record)?;
        Ok(Attempt { guard: self, record, _lock: lock })
    }

    /// Does not wait: another's C_Login may take for ever. The pool tries again.
    fn lock(&self) -> Result<File> {
        let path = self.file.with_extension("lock");
        let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let opened = opened.map_err(|error| unavailable(&path, error))?;
        match flock(&opened, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(opened),
            Err(Errno::WOULDBLOCK) => {
                let verdict = Verdict { fault: Fault::Token, rung: Rung::Session, ..Kind::PinUnavailable.verdict() };
                let detail = format!("{}: somebody else is logging in to it", self.token);
                Err(Error::new(Kind::PinUnavailable, verdict, "PIN guard", detail))
            }
            Err(error) => Err(unavailable(&path, error.into())),
        }
    }

    /// Forgets what was refused: the operator says that the PIN is right now.
    pub(super) fn forget(&self) -> Result<()> {
        match fs::remove_file(&self.file) {
            Ok(()) => self.sync_directory(),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(unavailable(&self.file, error)),
        }
    }

    fn read(&self) -> Result<Option<Record>> {
        let mut text = String::new();
        let opened = match File::open(&self.file) {
            Ok(opened) => opened,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unavailable(&self.file, error)),
        };
        match opened.take(1024).read_to_string(&mut text) {
            Err(error) if error.kind() != ErrorKind::InvalidData => return Err(unavailable(&self.file, error)),
            _ => {}
        }
        // What makes no sense may be a refusal: the PIN is not tried.
        let record = Record::parse(&text).ok_or_else(|| wrong(&self.file, "no record of ours"))?;
        Ok(Some(record))
    }

    fn write(&self, record: &Record) -> Result<()> {
        let temporary = self.file.with_extension("new");
        let written = (|| {
            let mut opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
            opened.write_all(record.text(&self.token).as_bytes())?;
            opened.sync_all()?;
            fs::rename(&temporary, &self.file)
        })();
        written.map_err(|error| unavailable(&self.file, error))?;
        self.sync_directory()
    }

    fn sync_directory(&self) -> Result<()> {
        let synced = File::open(&self.directory).and_then(|directory| directory.sync_all());
        synced.map_err(|error| unavailable(&self.directory, error))
    }
}

impl Attempt<'_> {
    /// The token did not look at the PIN, or took it: forget the attempt. An attempt that is dropped stays unfinished.
    pub(super) fn passed(self) -> Result<()> {
        self.guard.forget()
    }

    /// The token refused the PIN.
    pub(super) fn refused(mut self) -> Result<()> {
        self.record.refused = true;
        self.guard.write(&self.record)
    }
}

impl Record {
    fn new(pin: &[u8]) -> Result<Record> {
        let mut salt = [0; 16];
        let filled = SystemRandom::new().fill(&mut salt);
        filled.map_err(|_| Error::of(Kind::Other, "PIN", "the system gives no random numbers"))?;
        Ok(Record { refused: false, unfinished: 0, fingerprint: fingerprint(&salt, pin), salt })
    }

    fn text(&self, token: &str) -> String {
        let state = if self.refused { "refused" } else { "trying" };
        let salt: String = self.salt.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{HEAD}\n{state}\n{}\n{salt}\n{:03x}\n{token}\n", self.unfinished, self.fingerprint)
    }

    fn parse(text: &str) -> Option<Record> {
        let mut lines = text.lines();
        (lines.next()? == HEAD).then_some(())?;
        let refused = match lines.next()? {
            "refused" => true,
            "trying" => false,
            _ => return None,
        };
        let unfinished = lines.next()?.parse().ok()?;
        let digits = lines.next().filter(|digits| digits.len() == 32 && digits.is_ascii())?;
        let mut salt = [0; 16];
        for (place, byte) in salt.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * place..2 * place + 2], 16).ok()?;
        }
        let fingerprint = u16::from_str_radix(lines.next()?, 16).ok()?;
        lines.next()?;
        Some(Record { refused, unfinished, salt, fingerprint })
    }
}

fn fingerprint(salt: &[u8; 16], pin: &[u8]) -> u16 {
    let mut bytes = [0; 2];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, salt, pin, &mut bytes);
    u16::from_be_bytes(bytes) & 0xfff
}

/// It can not be had now.
fn unavailable(path: &Path, error: io::Error) -> Error {
    let verdict = Verdict { rung: Rung::Session, ..Kind::PinUnavailable.verdict() };
    Error::new(Kind::PinUnavailable, verdict, "PIN guard", format!("{}: {error}", path.display()))
}

/// It is not as it must be.
fn wrong(path: &Path, why: &str) -> Error {
    Error::of(Kind::PinUnavailable, "PIN guard", format!("{}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn guard(directory: &tempfile::TempDir) -> PinGuard {
        PinGuard::open(&directory.path().join("state"), "serial 1").unwrap()
    }

    /// Another PIN with another fingerprint under the salt in the file.
    fn other_pin(guard: &PinGuard) -> String {
        let record = guard.read().unwrap().unwrap();
        (0..)
            .map(|n: u32| n.to_string())
            .find(|pin| fingerprint(&record.salt, pin.as_bytes()) != record.fingerprint)
            .unwrap()
    }

    #[test]
    fn a_refused_pin_is_held_back_until_it_is_another_or_the_operator_says_so() {
        let directory = tempfile::tempdir().unwrap();
        guard(&directory).begin(b"1234").unwrap().refused().unwrap();
        for _restart in 0..3 {
            assert_eq!(guard(&directory).begin(b"1234").unwrap_err().kind(), Kind::PinHeldBack);
        }
        let other = other_pin(&guard(&directory));
        guard(&directory).begin(other.as_bytes()).unwrap().refused().unwrap();
        assert_eq!(guard(&directory).begin(other.as_bytes()).unwrap_err().kind(), Kind::PinHeldBack);
        guard(&directory).forget().unwrap();
        guard(&directory).begin(other.as_bytes()).unwrap().passed().unwrap();
        assert!(guard(&directory).read().unwrap().is_none());
    }

    #[test]
    fn a_login_that_never_ended_is_repeated_once() {
        let directory = tempfile::tempdir().unwrap();
        // Dropping an attempt is what a crash leaves behind.
        drop(guard(&directory).begin(b"1234").unwrap());
        drop(guard(&directory).begin(b"1234").unwrap());
        assert_eq!(guard(&directory).begin(b"1234").unwrap_err().kind(), Kind::PinHeldBack);
    }

    #[test]
    fn one_tries_at_a_time_and_who_comes_second_hears_what_became_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let (one, other) = (guard(&directory), guard(&directory));
        let attempt = one.begin(b"1234").unwrap();
        let error = other.begin(b"1234").unwrap_err();
        assert_eq!((error.kind(), error.verdict().rung), (Kind::PinUnavailable, Rung::Session), "{error}");
        attempt.refused().unwrap();
        assert_eq!(other.begin(b"1234").unwrap_err().kind(), Kind::PinHeldBack);
    }

    #[test]
    fn a_pin_is_not_tried_when_that_can_not_be_noted() {
        let directory = tempfile::tempdir().unwrap();
        let guard = guard(&directory);
        fs::remove_dir(&guard.directory).unwrap();
        let error = guard.begin(b"1234").unwrap_err();
        assert_eq!((error.kind(), error.verdict().rung), (Kind::PinUnavailable, Rung::Session), "{error}");
        fs::create_dir(&guard.directory).unwrap();
        guard.begin(b"1234").unwrap().passed().unwrap();
    }

    #[test]
    fn a_file_that_makes_no_sense_is_taken_for_a_refusal() {
        let directory = tempfile::tempdir().unwrap();
        let guard = guard(&directory);
        let good = Record { refused: true, unfinished: 1, salt: [7; 16], fingerprint: 0x123 }.text("token");
        for bad in ["", "x", HEAD, &good[..good.len() / 2], &good.replace("refused", "fine"), &good.replace("07", "ø")]
        {
            fs::write(&guard.file, bad).unwrap();
            let error = guard.begin(b"1234").unwrap_err();
            assert_eq!(
                (error.kind(), error.verdict().rung),
                (Kind::PinUnavailable, Rung::Operator),
                "{bad:?}: {error}"
            );
        }
    }

    #[test]
    fn tokens_have_files_of_their_own() {
        let directory = tempfile::tempdir().unwrap();
        guard(&directory).begin(b"1234").unwrap().refused().unwrap();
        let other = PinGuard::open(&directory.path().join("state"), "serial 2").unwrap();
        other.begin(b"1234").unwrap().passed().unwrap();
        assert_eq!(guard(&directory).begin(b"1234").unwrap_err().kind(), Kind::PinHeldBack);
    }

    #[test]
    fn a_state_directory_others_may_write_to_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o770)).unwrap();
        let error = PinGuard::open(directory.path(), "x").unwrap_err();
        assert_eq!((error.kind(), error.verdict().rung), (Kind::PinUnavailable, Rung::Operator), "{error}");
    }

    #[test]
    fn neither_the_pin_nor_a_whole_hash_of_it_is_in_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let guard = guard(&directory);
        guard.begin(b"31415926").unwrap().refused().unwrap();
        let text = fs::read_to_string(&guard.file).unwrap();
        assert!(!text.contains("31415926"));
        assert_eq!(text.lines().nth(4).unwrap().len(), 3);
        assert_eq!(fs::metadata(&guard.file).unwrap().mode() & 0o777, 0o600);
    }
}
