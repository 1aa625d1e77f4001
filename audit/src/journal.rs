//! The journal as its user sees it: append, ask whether it is on disk, be told when something has changed.

use std::{
    cell::RefCell,
    convert::Infallible,
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use crate::{
    codec,
    disk::{Disk, FileSystem},
    format,
    ledger::{Ledger, OUTCOME_RESERVE, RESERVE_BESIDE_OUTCOMES},
    open,
    record::Record,
    scan::ReadError,
};

/// How a journal is kept. [`Config::new`] has the defaults.
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// Where the segments are. Made with mode 0700 when missing; one that others can write to is refused
    pub directory: PathBuf,
    /// Name of the machine, for the segments' headers
    pub host: String,
    /// Size of a segment: 128 KiB to 1 GiB, in whole blocks of 512 bytes
    pub segment_bytes: u64,
    /// So many bytes may wait for the disk; then intents are refused, and from the half of it on the records that
    /// anybody can cause (connections, refusals)
    pub pending_bytes_max: usize,
    /// So many intents may wait for their outcome: at least one, at most [`open_intents_possible`]. A KiB of disk is
    /// kept free for the outcome of each that is open, within one segment; when the bound is near what is possible,
    /// intents are refused as the segment fills, so half of it is a good choice
    pub open_intents_max: u32,
    /// How often a full disk is looked at again
    pub retry: Duration,
    /// UTC in nanoseconds since 1970
    pub clock: fn() -> u64,
    pub(crate) disk: Arc<dyn Disk>,
}

impl Config {
    /// A journal in this directory: segments of 64 MiB, 8 MiB waiting, 16,384 open intents, a look at a full disk
    /// every second, the system's clock.
    pub fn new(directory: impl Into<PathBuf>) -> Config {
        Config {
            directory: directory.into(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            segment_bytes: 64 << 20,
            pending_bytes_max: 8 << 20,
            open_intents_max: 16_384,
            retry: Duration::from_secs(1),
            clock: system_clock_ns,
            disk: Arc::new(FileSystem),
        }
    }
}

/// How many intents segments of so many bytes allow to be open: the reserve of 1.5 KiB for each, 36 KiB for the
/// daemon's own records and for one intent, and the header have to fit (64 MiB: 43,666; 1 MiB: 658).
pub const fn open_intents_possible(segment_bytes: u64) -> u32 {
    let possible = segment_bytes.saturating_sub(format::HEADER_LEN + RESERVE_BESIDE_OUTCOMES) / OUTCOME_RESERVE;
    if possible > u32::MAX as u64 { u32::MAX } else { possible as u32 }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("directory", &self.directory)
            .field("host", &self.host)
            .field("segment_bytes", &self.segment_bytes)
            .field("pending_bytes_max", &self.pending_bytes_max)
            .field("open_intents_max", &self.open_intents_max)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}

fn system_clock_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Why a journal can not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The configuration makes no sense
    #[error("audit journal: {0}")]
    Config(String),
    /// Others could change what is recorded
    #[error("{}: {what}", path.display())]
    Unsafe {
        /// The directory
        path: PathBuf,
        /// What is wrong with it, and what to do
        what: String,
    },
    /// Another process writes here
    #[error("{}: another process keeps its journal here", .0.display())]
    Locked(PathBuf),
    /// It can not be read, or is not as it was written
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The file system refused
    #[error("{}: {source}", path.display())]
    Io {
        /// What was touched
        path: PathBuf,
        /// Why it can not be
        source: io::Error,
    },
}

/// What was found at the opening.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Segments there are
    pub segments: usize,
    /// The last sound record, 0 when there is none
    pub last_seq: u64,
    /// Its hash (zeros when there is none)
    pub last_hash: [u8; 32],
    /// The end was torn
    pub repaired: Option<Repair>,
    /// Intents of the run before without an outcome: the journal has given each the outcome `unknown`, code
    /// `interrupted`
    pub interrupted: Vec<u64>,
    /// What the journal can not promise here, in words for the log
    pub warnings: Vec<String>,
}

/// A torn end that was repaired: nothing in it had been acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// The segment
    pub file: PathBuf,
    /// Where the torn bytes began
    pub offset: u64,
    /// How many they were
    pub bytes: u64,
    /// Where they are now; none when the file was only too short, or the disk too full for a copy
    pub side_file: Option<PathBuf>,
}

/// Why a record was not taken. It has no number, and nothing of it is written; how many were refused is recorded
/// as soon as that is possible (a [`Record::Gap`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// Not enough room on the disk; it is looked at again every second
    #[error("the audit journal's disk is full")]
    Full,
    /// The disk failed: nothing can be recorded until a restart
    #[error("the audit journal's disk has failed; segld has to be restarted once the disk is sound")]
    Failed,
    /// The disk can not keep up, or too many intents are open
    #[error("the audit journal's disk can not keep up")]
    Backlog,
    /// The journal is closed
    #[error("the audit journal is closed")]
    Closed,
    /// A digest of more than 64 bytes: the caller's error
    #[error("a digest of more than 64 bytes can not be recorded")]
    Invalid,
}

/// What has become of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Settled {
    /// On its way to the disk
    Pending,
    /// On disk
    Durable,
    /// It never will be (or nobody can tell): the journal has failed
    Lost,
}

/// Whether the journal takes records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// It does
    Open,
    /// No intents for want of room; outcomes are still taken
    Full,
    /// Nothing any more
    Failed,
}

/// Figures for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// The last number given
    pub appended_seq: u64,
    /// The last record on disk
    pub durable_seq: u64,
    /// Bytes that wait for the writer
    pub pending_bytes: usize,
    /// Intents without an outcome
    pub open_intents: u32,
    /// Records refused since the opening
    pub refused: u64,
    /// Batches made durable since the opening, one fdatasync each
    pub commits: u64,
    /// For how long the batch that is being written has been on its way, in nanoseconds; 0 when none is. A disk that
    /// hangs shows here first
    pub committing_ns: u64,
    /// Bytes that can be appended for certain before another segment has to be allocated
    pub room_bytes: u64,
}

/// The journal: shared among threads, written by a thread of its own.
///
/// Dropping it closes it, and waits five seconds for the disk at most.
pub struct Journal {
    shared: Arc<Shared>,
    /// None once it is closed
    running: Mutex<Option<Running>>,
}

/// What a journal gives back when it is closed.
pub(crate) struct Running {
    pub(crate) threads: Vec<JoinHandle<()>>,
    /// Disconnected once both have ended; nothing is ever sent
    pub(crate) ended: Receiver<Infallible>,
}

/// How long dropping a journal waits for its threads.
const DROP_LIMIT: Duration = Duration::from_secs(5);

pub(crate) type Subscriber = Arc<dyn Fn() + Send + Sync>;

/// What the journal's threads and users share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) ledger: Mutex<Ledger>,
    /// There is something to write, or the journal closes
    pub(crate) work: Condvar,
    /// A segment has to be allocated, room looked for, or the journal closes
    pub(crate) need: Condvar,
    /// The watermark has risen, or the journal has failed
    pub(crate) settled: Condvar,
    /// The last record on disk
    pub(crate) durable: AtomicU64,
    /// The last record that somebody waits for
    hastened: AtomicU64,
    failed: AtomicBool,
    trouble: Mutex<Option<String>>,
    pub(crate) subscribers: Mutex<Vec<Subscriber>>,
}

impl Journal {
    /// Opens the directory, checks its end, repairs a torn one, and starts the threads.
    ///
    /// Checked are every segment's header and the last two segments entirely, as well as those before in which an
    /// intent without an outcome may stand: as much as keeps the start short after years. [`crate::verify`] checks
    /// everything.
    pub fn open(config: Config) -> Result<(Journal, Recovery), OpenError> {
        let (shared, running, recovery) = open::open(config)?;
        Ok((Journal { shared, running: Mutex::new(Some(running)) }, recovery))
    }

    /// Takes a record and gives it its number; the disk is not waited for.
    pub fn append(&self, record: &Record<'_>) -> Result<u64, Refusal> {
        thread_local! {
            static REST: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        REST.with_borrow_mut(|rest| {
            rest.clear();
            codec::put_rest(record, rest).map_err(|_| Refusal::Invalid)?;
            let mut ledger = self.shared.ledger();
            let time_ns = (self.shared.config.clock)();
            let seq = ledger.append(record, rest, time_ns)?;
            let wake = ledger.wake_writer();
            drop(ledger);
            if wake {
                self.shared.work.notify_one();
            }
            Ok(seq)
        })
    }

    /// Has the record with this number written soon, since somebody waits for it: of others only their bytes count, for
    /// some milliseconds.
    pub fn hasten(&self, seq: u64) {
        // Whoever waits for a later one waits for this one as well.
        if self.shared.hastened.fetch_max(seq, Ordering::Relaxed) < seq && self.shared.ledger().hasten(seq) {
            self.shared.work.notify_one();
        }
    }

    /// What has become of the record with this number. One that is pending is in no hurry: see [`hasten`](Self::hasten).
    pub fn settled(&self, seq: u64) -> Settled {
        self.shared.settled_now(seq)
    }

    /// Waits until the record is settled, or the limit has passed.
    pub fn wait(&self, seq: u64, limit: Duration) -> Settled {
        self.hasten(seq);
        let end = Instant::now() + limit;
        let mut ledger = self.shared.ledger();
        loop {
            let settled = self.shared.settled_now(seq);
            let left = end.saturating_duration_since(Instant::now());
            if settled != Settled::Pending || left.is_zero() {
                return settled;
            }
            ledger = self.shared.settled.wait_timeout(ledger, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Has this called by the journal's thread after every commit, on failure, and when a full disk has room again.
    /// It must not block: what it holds up is everybody's record.
    pub fn subscribe(&self, subscriber: Box<dyn Fn() + Send + Sync>) {
        lock(&self.shared.subscribers).push(subscriber.into());
    }

    /// Whether it takes records.
    pub fn state(&self) -> State {
        if self.shared.has_failed() {
            return State::Failed;
        }
        if self.shared.ledger().is_full() { State::Full } else { State::Open }
    }

    /// The disk's last complaint, for the log and the operator; none while nothing is wrong.
    pub fn trouble(&self) -> Option<String> {
        lock(&self.shared.trouble).clone()
    }

    /// Looks at a full disk at once instead of at the next second.
    pub fn look_for_room(&self) {
        self.shared.ledger().look_for_room();
        self.shared.need.notify_one();
    }

    /// Figures for metrics.
    pub fn stats(&self) -> Stats {
        let durable_seq = self.shared.durable.load(Ordering::Acquire);
        Stats { durable_seq, ..self.shared.ledger().stats() }
    }

    /// The directory of the segments.
    pub fn directory(&self) -> &Path {
        &self.shared.config.directory
    }

    /// Writes what is pending, ends the threads, and gives the directory free. Later appends are refused. An error is
    /// the failure that kept records from the disk, or says that the disk has not come back within the limit: then
    /// the directory stays locked until it does, or the process has ended.
    pub fn close(&self, limit: Duration) -> Result<(), String> {
        self.shared.ledger().close();
        self.shared.work.notify_one();
        self.shared.need.notify_one();
        // Locked until all is done, so that whoever closes second comes back no earlier.
        let mut running = lock(&self.running);
        if let Some(waited_for) = &*running
            && waited_for.ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout)
        {
            return Err(format!(
                "{}: the journal's writer has not come back from the disk within {limit:?}; records after {} may be lost",
                self.shared.config.directory.display(),
                self.shared.durable.load(Ordering::Acquire),
            ));
        }
        for thread in running.take().into_iter().flat_map(|running| running.threads) {
            // A panic has been turned into a failure by the thread itself.
            let _ = thread.join();
        }
        match self.shared.has_failed() {
            true => Err(self.trouble().unwrap_or_else(|| "the audit journal has failed".to_owned())),
            false => Ok(()),
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // Whoever wants to hear of a failure calls close().
        let _ = self.close(DROP_LIMIT);
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("directory", &self.shared.config.directory).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(config: Config, ledger: Ledger, durable: u64) -> Shared {
        Shared {
            config,
            ledger: Mutex::new(ledger),
            work: Condvar::new(),
            need: Condvar::new(),
            settled: Condvar::new(),
            durable: AtomicU64::new(durable),
            hastened: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            trouble: Mutex::new(None),
            subscribers: Mutex::new(Vec::new()),
        }
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// For good: after a failed fdatasync nobody can tell what is on disk, and trying again may succeed without
    /// having written what failed.
    pub(crate) fn fail(&self, why: String) {
        // Under the ledger's lock, so that nobody who has looked begins to wait afterwards.
        let mut ledger = self.ledger();
        let mut trouble = lock(&self.trouble);
        *trouble = Some(why);
        self.failed.store(true, Ordering::Release);
        drop(trouble);
        ledger.fail();
        drop(ledger);
        self.need.notify_one();
        self.tell();
    }

    /// Says what is wrong with the disk; after a failure that stays the last word.
    pub(crate) fn complain(&self, complaint: Option<String>) {
        let mut trouble = lock(&self.trouble);
        if !self.has_failed() {
            *trouble = complaint;
        }
    }

    /// Tells everyone that something has changed.
    pub(crate) fn tell(&self) {
        self.settled.notify_all();
        let subscribers = lock(&self.subscribers).clone();
        for subscriber in subscribers {
            subscriber();
        }
    }

    fn settled_now(&self, seq: u64) -> Settled {
        let failed = self.has_failed();
        // Read after the flag: the watermark does not rise any more once the flag is set.
        if seq <= self.durable.load(Ordering::Acquire) {
            Settled::Durable
        } else if failed {
            Settled::Lost
        } else {
            Settled::Pending
        }
    }
}

/// A panic elsewhere leaves what these mutexes guard consistent: nothing panics between two changes of it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
