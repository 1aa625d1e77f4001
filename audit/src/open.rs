//! Opening a journal: whose directory it is, what stands at its end, and the repair of a torn end.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
};

use rustix::fs::Advice;

use crate::{
    disk::{self, sync_directory},
    format::{self, BLOCK, GENESIS, SEGMENT_BYTES_MAX},
    journal::{Config, OpenError, Recovery, Repair, Running, Shared, open_intents_possible},
    ledger::{CONTROL_RESERVE, Ledger},
    open_intents::OpenIntents,
    record::{Outcome, OutcomeResult, Record, Repaired},
    scan::{self, ReadError, Segment, Tail},
    writer::{self, Place, SPARE, SPARE_IN_WORK},
};

/// Smallest segment: the reserves and some records fit.
const SEGMENT_BYTES_MIN: u64 = 128 << 10;
const _: () = assert!(SEGMENT_BYTES_MIN >= 4 * CONTROL_RESERVE);

const LOCK: &str = "segl.lock";

/// See [`crate::Journal::open`].
pub(crate) fn open(config: Config) -> Result<(Arc<Shared>, Running, Recovery), OpenError> {
    check(&config)?;
    let directory = config.directory.clone();
    own_directory(&directory)?;
    let lock = lock_directory(&directory)?;
    let warnings = disk::doubts(&lock)
        .map_err(io_error(&directory))?
        .into_iter()
        .map(|doubt| format!("{}: {doubt}", directory.display()));
    let mut warnings: Vec<String> = warnings.collect();

    let End { segments, place, left, next_seq, mut owed, repaired, interrupted } = find_end(&directory)?;
    if let Some(Repair { file, offset, side_file: None, bytes: 1.. }) = &repaired {
        warnings.push(format!(
            "{}: on the full disk there was no room for a copy of the torn bytes at {offset}; the journal has their hash",
            file.display()
        ));
    }
    let last_seq = next_seq - 1;
    let recovery =
        Recovery { segments, last_seq, last_hash: place.hash, repaired, interrupted: interrupted.clone(), warnings };
    owed.extend(interrupted.iter().map(|&intent| {
        Record::Outcome(Outcome {
            intent,
            result: OutcomeResult::Unknown { code: "interrupted".into() },
            token: None,
            attempts: 0,
            attempts_unknown: 0,
            tries: Default::default(),
            queue_us: 0,
            token_us: 0,
        })
    }));

    let spare = reuse_spare(&config)?;
    let mut ledger = Ledger::new(&config, next_seq, left, spare);
    ledger.owe(owed);
    let mut trouble = None;
    if ledger.wants_spare() && left < config.segment_bytes / 2 {
        // Not in the background: the first records shall not be refused only because we were quick.
        match writer::make_spare(&config, &|| false) {
            Ok(spare) => _ = ledger.spare_ready(spare),
            Err(error) => {
                ledger.spare_failed();
                trouble = Some(format!("{}: the next segment can not be allocated: {error}", directory.display()));
            }
        }
    }
    ledger.settle_debts((config.clock)());
    let shared = Arc::new(Shared::new(config, ledger, last_seq));
    shared.complain(trouble);

    // The threads hold the lock, not the journal: one that hangs in the disk may write still when it comes back.
    let (lock, (ends, ended)) = (Arc::new(lock), mpsc::channel());
    let writer = {
        let (shared, held) = (shared.clone(), (lock.clone(), ends.clone()));
        spawn("segl-audit", &directory, move || {
            writer::write(&shared, place);
            drop(held);
        })?
    };
    let allocator = {
        let (shared, held) = (shared.clone(), (lock, ends));
        spawn("segl-audit-room", &directory, move || {
            writer::allocate_ahead(&shared);
            drop(held);
        })
    };
    match allocator {
        Ok(allocator) => Ok((shared, Running { threads: vec![writer, allocator], ended }, recovery)),
        Err(error) => {
            shared.fail("the journal's second thread can not be started".to_owned());
            shared.work.notify_one();
            let _ = writer.join();
            Err(error)
        }
    }
}

fn check(config: &Config) -> Result<(), OpenError> {
    let Config { segment_bytes, open_intents_max, pending_bytes_max, .. } = *config;
    let wrong = |what: String| Err(OpenError::Config(what));
    if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&segment_bytes) {
        return wrong(format!("segments have 128 KiB to 1 GiB, not {segment_bytes} bytes"));
    }
    if !segment_bytes.is_multiple_of(BLOCK) {
        return wrong(format!("segments have whole blocks of 512 bytes, which {segment_bytes} bytes are not"));
    }
    let possible = open_intents_possible(segment_bytes);
    if !(1..=possible).contains(&open_intents_max) {
        return wrong(format!(
            "{open_intents_max} open intents: segments of {segment_bytes} bytes allow 1 to {possible}, at 1.5 KiB each; \
             lower the number or make the segments larger"
        ));
    }
    if pending_bytes_max < CONTROL_RESERVE as usize {
        return wrong(format!("at least 32 KiB have to be allowed to wait, not {pending_bytes_max} bytes"));
    }
    Ok(())
}

fn spawn(name: &str, directory: &Path, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    thread::Builder::new().name(name.to_owned()).spawn(run).map_err(io_error(directory))
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> OpenError + '_ {
    |source| OpenError::Io { path: path.to_owned(), source }
}

/// Makes the directory when it is missing, and sees that nobody else can change what is in it.
fn own_directory(directory: &Path) -> Result<(), OpenError> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => {
            let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
            sync_directory(parent.unwrap_or(Path::new("."))).map_err(io_error(directory))?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(io_error(directory)(error)),
    }
    let metadata = std::fs::metadata(directory).map_err(io_error(directory))?;
    let wrong = |what: String| Err(OpenError::Unsafe { path: directory.to_owned(), what });
    if !metadata.is_dir() {
        return wrong("this is no directory".to_owned());
    }
    if metadata.mode() & 0o022 != 0 {
        return wrong(format!(
            "others can write here (mode {:03o}) and so change the audit journal; chmod it to 0700 or 0750",
            metadata.mode() & 0o777
        ));
    }
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user && metadata.uid() != 0 {
        return wrong(format!("user {} owns it, not the daemon's user {user}; chown it", metadata.uid()));
    }
    Ok(())
}

fn lock_directory(directory: &Path) -> Result<File, OpenError> {
    let path = directory.join(LOCK);
    let lock =
        OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(io_error(&path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked(directory.to_owned())),
        Err(TryLockError::Error(error)) => Err(io_error(&path)(error)),
    }
}

/// The end of a journal.
struct End {
    segments: usize,
    place: Place,
    /// Bytes left in the last segment
    left: u64,
    next_seq: u64,
    owed: Vec<Record<'static>>,
    repaired: Option<Repair>,
    interrupted: Vec<u64>,
}

fn find_end(directory: &Path) -> Result<End, OpenError> {
    let names = scan::list_segments(directory)?;
    let read_from = read_from(&names)?;
    let mut before: Option<Segment> = None;
    let mut open = OpenIntents::default();
    for (index, (first_seq, path)) in names.iter().enumerate() {
        let is_last = index + 1 == names.len();
        let file = OpenOptions::new().read(true).write(is_last).open(path).map_err(io_error(path))?;
        if is_last {
            from_disk(&file).map_err(io_error(path))?;
        }
        let mut segment = Segment::open(path, *first_seq, file)?;
        if index >= read_from {
            if let Some(before) = &before {
                before.is_followed_by(&segment).map_err(ReadError::from)?;
            }
            while segment.next_batch(&mut |entry| _ = open.see(&entry))? {}
            if !is_last {
                segment.ends_clean()?;
                before = Some(segment);
                continue;
            }
            let (owed, repaired) = repair(directory, &mut segment)?;
            return Ok(End {
                segments: names.len(),
                left: segment.header.segment_bytes.saturating_sub(segment.offset),
                next_seq: segment.next_seq,
                place: Place { hash: segment.hash, offset: segment.offset, file: Some(segment.file) },
                owed,
                repaired,
                interrupted: open.into_vec(),
            });
        }
    }
    Ok(End {
        segments: 0,
        place: Place { file: None, offset: 0, hash: GENESIS },
        left: 0,
        next_seq: 1,
        owed: Vec::new(),
        repaired: None,
        interrupted: Vec::new(),
    })
}

/// The index of the segment from which on all is read: of the last but one, or of one before, when the last says that
/// an intent from there had no outcome. Segments that were taken away are not missed.
fn read_from(names: &[(u64, PathBuf)]) -> Result<usize, OpenError> {
    let Some((first_seq, path)) = names.last() else { return Ok(0) };
    let last = Segment::open(path, *first_seq, File::open(path).map_err(io_error(path))?)?;
    let open_from = names.partition_point(|(first_seq, _)| *first_seq <= last.header.open_from).saturating_sub(1);
    Ok(open_from.min(names.len().saturating_sub(2)))
}

/// What is read after this comes from the disk. What a killed process has written is made durable first; and what a
/// failed fdatasync has left in memory, marked as written, is forgotten.
fn from_disk(file: &File) -> io::Result<()> {
    file.sync_all()?;
    rustix::fs::fadvise(file, 0, None, Advice::DontNeed)?;
    Ok(())
}

/// Puts the end of the last segment right. Returns what has to be recorded about it: also what an earlier repair
/// could not record any more.
fn repair(directory: &Path, segment: &mut Segment) -> Result<(Vec<Record<'static>>, Option<Repair>), OpenError> {
    let path = segment.path.clone();
    let tail = segment.tail()?.ok_or_else(|| {
        // The lock is ours, so this is no daemon.
        ReadError::from(segment.defect("another process writes into this file"))
    })?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let side_name = format!("{name}.torn-{}", segment.offset);
    let (mut repaired, mut uncopied) = (None, None);
    if let Tail::Torn { end } = tail {
        let side_file = set_aside(directory, &side_name, segment, end)?;
        if side_file.is_none() {
            let torn = read_torn(segment, end)?;
            uncopied = Some(repaired_record(&name, segment.offset, &torn, ""));
        }
        zero(segment, end)?;
        repaired = Some(Repair { file: path.clone(), offset: segment.offset, bytes: end - segment.offset, side_file });
    }
    let mut owed = side_file_records(directory, &name, &side_name, segment.offset)?;
    owed.extend(uncopied);
    let len = segment.len()?;
    if len < segment.header.segment_bytes {
        let zeros = vec![0; (segment.header.segment_bytes - len) as usize];
        segment.file.write_all_at(&zeros, len).and_then(|()| segment.file.sync_all()).map_err(io_error(&path))?;
        if repaired.is_none() {
            owed.push(repaired_record(&name, segment.offset, &[], ""));
            repaired = Some(Repair { file: path, offset: segment.offset, bytes: 0, side_file: None });
        }
    }
    Ok((owed, repaired))
}

/// Copies the torn bytes to a file of their own. On a full disk the segment that waits for its turn makes room for
/// them; without one there is no copy: then their hash has to do, since a daemon that does not start records nothing.
fn set_aside(directory: &Path, side_name: &str, segment: &Segment, end: u64) -> Result<Option<PathBuf>, OpenError> {
    let torn = read_torn(segment, end)?;
    for may_make_room in [true, false] {
        match copy_aside(directory, side_name, &torn) {
            Ok(path) => return Ok(Some(path)),
            Err((_, error)) if is_full(&error) && may_make_room => release_spare(directory)?,
            Err((_, error)) if is_full(&error) => {}
            Err((path, error)) => return Err(io_error(&path)(error)),
        }
    }
    Ok(None)
}

fn copy_aside(directory: &Path, side_name: &str, torn: &[u8]) -> Result<PathBuf, (PathBuf, io::Error)> {
    let (path, side) = (0..)
        .map(|turn| if turn == 0 { side_name.to_owned() } else { format!("{side_name}-{turn}") })
        .map(|name| directory.join(name))
        .find_map(|path| match OpenOptions::new().write(true).create_new(true).mode(0o640).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
            opened => Some((path, opened)),
        })
        .expect("numbers do not end");
    let side = side.map_err(|error| (path.clone(), error))?;
    let copied = side.write_all_at(torn, 0).and_then(|()| side.sync_all()).and_then(|()| sync_directory(directory));
    match copied {
        Ok(()) => Ok(path),
        Err(error) => {
            // Half a copy would be taken for what was torn.
            let removed = std::fs::remove_file(&path);
            Err((path, removed.err().unwrap_or(error)))
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Gives back the room of the segment that waits for its turn: nothing stands in it.
fn release_spare(directory: &Path) -> Result<(), OpenError> {
    for path in [SPARE_IN_WORK, SPARE].map(|name| directory.join(name)) {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(&path)(error)),
            _ => {}
        }
    }
    sync_directory(directory).map_err(io_error(directory))
}

fn read_torn(segment: &Segment, end: u64) -> Result<Vec<u8>, OpenError> {
    let mut torn = vec![0; (end - segment.offset) as usize];
    segment.file.read_exact_at(&mut torn, segment.offset).map_err(io_error(&segment.path))?;
    Ok(torn)
}

fn zero(segment: &Segment, end: u64) -> Result<(), OpenError> {
    let zeros = vec![0; (end - segment.offset) as usize];
    let zeroed = segment.file.write_all_at(&zeros, segment.offset).and_then(|()| segment.file.sync_all());
    zeroed.map_err(io_error(&segment.path))
}

/// A record for each file of torn bytes from this offset. The record of a repair is the first thing written there
/// afterwards, so when nothing stands there none of them has been recorded.
fn side_file_records(
    directory: &Path,
    name: &str,
    side_name: &str,
    offset: u64,
) -> Result<Vec<Record<'static>>, OpenError> {
    let mut records = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(io_error(directory))? {
        let path = entry.map_err(io_error(directory))?.path();
        let Some(found) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if found.strip_prefix(side_name).is_some_and(|more| more.is_empty() || more.starts_with('-')) {
            let torn = std::fs::read(&path).map_err(io_error(&path))?;
            records.push(repaired_record(name, offset, &torn, found));
        }
    }
    Ok(records)
}

fn repaired_record(file: &str, offset: u64, torn: &[u8], side_file: &str) -> Record<'static> {
    Record::Repaired(Repaired {
        file: file.to_owned().into(),
        offset,
        bytes: torn.len() as u64,
        sha256: format::sha256(torn),
        side_file: side_file.to_owned().into(),
    })
}

/// Takes over the segment that the run before had waiting, when it is as long as it should be and all zeros: on a full
/// disk that is room which others might take otherwise.
fn reuse_spare(config: &Config) -> Result<Option<File>, OpenError> {
    for name in [SPARE_IN_WORK, SPARE] {
        let path = config.directory.join(name);
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened.map_err(io_error(&path))?,
        };
        if name == SPARE && is_blank(&file, config.segment_bytes).map_err(io_error(&path))? {
            return Ok(Some(file));
        }
        std::fs::remove_file(&path).map_err(io_error(&path))?;
    }
    Ok(None)
}

fn is_blank(file: &File, bytes: u64) -> io::Result<bool> {
    if file.metadata()?.len() != bytes {
        return Ok(false);
    }
    let mut chunk = vec![0; 1 << 20];
    let mut at = 0;
    while at < bytes {
        let got = file.read_at(&mut chunk, at)?;
        if got == 0 || chunk[..got].iter().any(|&byte| byte != 0) {
            return Ok(false);
        }
        at += got as u64;
    }
    Ok(true)
}
